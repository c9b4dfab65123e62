//! Reads signed requests, in the stages in which Fabric checks them: first where a request goes (payload, header, channel
//! header), later who sent it (signature header), so that an unknown channel is answered before a bad signature.
//!
//! Decoding is total: whatever a client sends becomes a value or a [`Refusal`] with Fabric's status.

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::policy::SignedData;
use grapevine_channels::proto::common::{ChannelHeader, Envelope, Header, Payload, SignatureHeader, Status};
use prost::Message;

/// A request that is not served: the status to answer and why, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Fabric's status.
    pub status: Status,
    /// Why, and what the client can do.
    pub info: String,
}

impl Refusal {
    /// A refusal with `status`.
    pub fn new(status: Status, info: impl Into<String>) -> Self {
        Self { status, info: info.into() }
    }

    fn bad(info: impl Into<String>) -> Self {
        Self::new(Status::BadRequest, info)
    }
}

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

/// Checks that the signer satisfies `policy` of the channel and that its certificate has not expired at `now` (Unix
/// seconds); 403 otherwise.
pub fn authorise(config: &ChannelConfig, policy: &str, signed: &SignedData, now: i64) -> Result<(), Refusal> {
    let forbidden = |info: String| Refusal::new(Status::Forbidden, info);
    let channel = config.channel_id();
    config.evaluate(policy, std::slice::from_ref(signed)).map_err(|error| {
        forbidden(format!("the signer does not satisfy {policy} of channel {channel}: {error}"))
    })?;
    let identity = config
        .identify(&signed.identity)
        .map_err(|error| forbidden(format!("the signer is not a member: {error}")))?;
    if identity.expired_at(now) {
        return Err(forbidden("the signer's certificate has expired; renew it".into()));
    }
    Ok(())
}
