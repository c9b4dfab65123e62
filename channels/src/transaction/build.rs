//! Making envelopes (Fabric: `protoutil.CreateSignedEnvelope`, `protoutil.ComputeTxID`).

use bytes::Bytes;
use grapevine_crypto::{Digest, Signer, sha256_of};
use prost::Message as _;

use crate::channel_id::ChannelId;
use crate::proto::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use crate::proto::orderer::SeekInfo;

/// Bytes of a nonce (Fabric: `crypto.NonceSize`).
pub const NONCE_LENGTH: usize = 24;

/// What an envelope says about itself, apart from its data.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeHeader<'a> {
    /// What the data is.
    pub header_type: HeaderType,
    /// The channel it is for.
    pub channel: &'a ChannelId,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_LENGTH],
    /// The sender's clock, Unix seconds. Orderers refuse requests more than 15 minutes off.
    pub timestamp_seconds: i64,
    /// SHA-256 of the sender's TLS certificate in DER; servers with mutual TLS require it.
    pub tls_cert_hash: Option<Digest>,
}

/// Fabric's transaction id: hex SHA-256 over nonce and creator.
pub fn transaction_id(nonce: &[u8], creator: &[u8]) -> String {
    sha256_of([nonce, creator]).to_string()
}

/// A marshalled, signed `common.Envelope` with a transaction id of its own.
pub fn signed_envelope(signer: &Signer, header: EnvelopeHeader<'_>, data: Bytes) -> Bytes {
    let creator = signer.serialized();
    let channel_header = ChannelHeader {
        r#type: header.header_type.into(),
        timestamp: Some(prost_types::Timestamp { seconds: header.timestamp_seconds, nanos: 0 }),
        channel_id: header.channel.as_str().to_owned(),
        tx_id: transaction_id(&header.nonce, creator),
        tls_cert_hash: header.tls_cert_hash.map(|hash| hash.0.to_vec()).unwrap_or_default(),
        ..ChannelHeader::default()
    };
    let signature_header = SignatureHeader { creator: creator.to_vec(), nonce: header.nonce.to_vec() };
    let payload = Payload {
        header: Some(Header {
            channel_header: channel_header.encode_to_vec().into(),
            signature_header: signature_header.encode_to_vec().into(),
        }),
        data,
    };
    let payload = payload.encode_to_vec();
    let signature = signer.sign(&payload);
    Envelope { payload: payload.into(), signature: signature.into() }.encode_to_vec().into()
}

/// A client transaction (header type ENDORSER_TRANSACTION) whose data is `payload`, byte for byte.
pub fn endorser_transaction(
    signer: &Signer,
    channel: &ChannelId,
    payload: &[u8],
    nonce: [u8; NONCE_LENGTH],
    timestamp_seconds: i64,
) -> Bytes {
    let header = EnvelopeHeader {
        header_type: HeaderType::EndorserTransaction,
        channel,
        nonce,
        timestamp_seconds,
        tls_cert_hash: None,
    };
    signed_envelope(signer, header, Bytes::copy_from_slice(payload))
}

/// A request to deliver blocks. `tls_cert_hash` is needed under mutual TLS.
pub fn seek_envelope(
    signer: &Signer,
    channel: &ChannelId,
    seek: &SeekInfo,
    nonce: [u8; NONCE_LENGTH],
    timestamp_seconds: i64,
    tls_cert_hash: Option<Digest>,
) -> Bytes {
    let header = EnvelopeHeader {
        header_type: HeaderType::DeliverSeekInfo,
        channel,
        nonce,
        timestamp_seconds,
        tls_cert_hash,
    };
    signed_envelope(signer, header, seek.encode_to_vec().into())
}
