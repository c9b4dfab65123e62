//! Reads signed requests, in the stages in which Fabric checks them: first where a request goes (payload, header, channel
//! header), later who sent it (signature header), so that an unknown channel is answered before a bad signature.
//!
//! Decoding is total: whatever a client sends becomes a value or a [`Refusal`] with Fabric's status.

use bytes::Bytes;
use grapevine_crypto::Digest;
use prost::Message;

use crate::channel_id::ChannelId;
use crate::policy::SignedData;
use crate::proto::common::{ChannelHeader, Envelope, Header, Payload, SignatureHeader};
use crate::proto::orderer::SeekInfo;

use super::Refusal;

/// A request whose destination is known, but not yet its sender.
#[derive(Debug)]
pub struct Request {
    /// Where to, and of which kind.
    pub channel_header: ChannelHeader,
    /// The message inside; its type follows from the header type.
    pub data: Bytes,
    signature_header: Bytes,
    signed: Bytes,
    signature: Bytes,
}

impl Request {
    /// Reads payload, header and channel header; 400 if one is missing or malformed.
    pub fn parse(envelope: &Envelope) -> Result<Self, Refusal> {
        if envelope.payload.is_empty() {
            return Err(Refusal::bad("the envelope has no payload"));
        }
        let payload = Payload::decode(envelope.payload.clone())
            .map_err(|error| Refusal::bad(format!("malformed payload: {error}")))?;
        let Some(Header { channel_header, signature_header }) = payload.header else {
            return Err(Refusal::bad("the payload has no header"));
        };
        if channel_header.is_empty() {
            return Err(Refusal::bad("the header has no channel header"));
        }
        let channel_header = ChannelHeader::decode(channel_header)
            .map_err(|error| Refusal::bad(format!("malformed channel header: {error}")))?;
        Ok(Self {
            channel_header,
            data: payload.data,
            signature_header,
            signed: envelope.payload.clone(),
            signature: envelope.signature.clone(),
        })
    }

    /// The channel it names; `None` if no channel can have that name.
    pub fn channel(&self) -> Option<ChannelId> {
        self.channel_header.channel_id.parse().ok()
    }

    /// 400 unless the timestamp is there and at most `window_seconds` from `now` (Unix seconds), either way.
    pub fn check_time(&self, now: i64, window_seconds: u64) -> Result<(), Refusal> {
        let timestamp = self.channel_header.timestamp;
        let timestamp = timestamp.ok_or_else(|| Refusal::bad("the channel header has no timestamp"))?;
        if now.abs_diff(timestamp.seconds) > window_seconds {
            return Err(Refusal::bad(
                "the timestamp is too far from this server's time; set the clocks right",
            ));
        }
        Ok(())
    }

    /// 400 unless the request names the certificate that its connection showed: its SHA-256, `None` if there was none.
    /// To be asked only where client certificates are required.
    pub fn check_binding(&self, client_certificate: Option<Digest>) -> Result<(), Refusal> {
        let claimed = &self.channel_header.tls_cert_hash;
        if client_certificate.is_some_and(|digest| digest.as_ref() == claimed.as_slice()) {
            return Ok(());
        }
        Err(Refusal::bad("tls_cert_hash is not the SHA-256 of the client's TLS certificate"))
    }

    /// The seek inside; 400 if it does not parse. The header type is not looked at, as in Fabric.
    pub fn seek(&self) -> Result<SeekInfo, Refusal> {
        SeekInfo::decode(self.data.clone()).map_err(|error| Refusal::bad(format!("malformed seek: {error}")))
    }

    /// Who signed what; 400 if the signature header is missing or malformed. Nothing is verified yet.
    pub fn signed_data(&self) -> Result<SignedData, Refusal> {
        if self.signature_header.is_empty() {
            return Err(Refusal::bad("the header has no signature header"));
        }
        let header = SignatureHeader::decode(self.signature_header.clone())
            .map_err(|error| Refusal::bad(format!("malformed signature header: {error}")))?;
        let (data, signature) = (self.signed.clone(), self.signature.clone());
        Ok(SignedData { data, identity: header.creator.into(), signature })
    }
}
