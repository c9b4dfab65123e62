//! Transactions: reading, making and checking envelopes.
//!
//! An envelope (`common.Envelope`) is a payload and its creator's signature over it; the payload names a channel, a
//! type and the creator. What a block carries are marshalled envelopes that clients wrote, so [`transaction_payload`]
//! reads them as Go does (last value of a repeated singular field, merged sub-messages, unknown fields and known
//! fields of another wire type skipped): a client can not make a transaction that Fabric's orderers accept and that
//! stops this peer. Nothing here verifies the creator's signature; [`TransactionView::signed_data`] is what to verify.

mod build;
mod canonical;
mod events;

use std::ops::Range;

use bytes::Bytes;

pub use build::{
    EnvelopeHeader, NONCE_LENGTH, endorser_transaction, seek_envelope, signed_envelope, transaction_id,
};
pub use canonical::{check_canonical, check_transactions};
pub use events::chaincode_events;

use crate::policy::SignedData;
use crate::protobuf::{Fields, Value, WireError};

/// An envelope that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Not protobuf.
    #[error("transaction is {0}")]
    Wire(#[from] WireError),
    /// A text field is not UTF-8.
    #[error("transaction has a {0} that is not UTF-8")]
    Text(&'static str),
    /// There is no header, so it belongs to no channel.
    #[error("transaction has no header")]
    NoHeader,
    /// There is nothing in it.
    #[error("transaction has no payload")]
    NoPayload,
    /// Nobody signed it.
    #[error("transaction has no signature")]
    NoSignature,
    /// The bytes are not what its fields encode to, so one data hash could have two parses (CVE-2023-46132).
    #[error("transaction is not encoded canonically")]
    NotCanonical,
}

/// The parts of an envelope. Slices of the envelope; nothing is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionView {
    /// The channel it names; may be any text.
    pub channel: String,
    /// The transaction id it claims.
    pub tx_id: String,
    /// A [`crate::proto::common::HeaderType`], or any other number.
    pub header_type: i32,
    /// Sender's clock, Unix seconds, if it says.
    pub timestamp_seconds: Option<i64>,
    /// SHA-256 of the sender's TLS certificate, if it says.
    pub tls_cert_hash: Bytes,
    /// Marshalled `msp.SerializedIdentity` of the claimed creator.
    pub creator: Bytes,
    /// Nonce of the signature header.
    pub nonce: Bytes,
    /// What was submitted: the data of the payload.
    pub payload: Bytes,
    /// What the signature covers: the marshalled payload.
    pub signed: Bytes,
    /// The signature.
    pub signature: Bytes,
}

impl TransactionView {
    /// Who claims to have signed what, for [`crate::config::ChannelConfig::evaluate`].
    pub fn signed_data(&self) -> SignedData {
        SignedData {
            data: self.signed.clone(),
            identity: self.creator.clone(),
            signature: self.signature.clone(),
        }
    }
}

/// Takes an envelope apart without copying.
pub fn transaction_payload(envelope: &Bytes) -> Result<TransactionView, TransactionError> {
    let [signed, signature] = last_bytes(envelope, 0..envelope.len(), [1, 2])?;
    let signed = signed.unwrap_or(0..0);
    let header = merged_header(envelope, signed.clone())?;
    let [payload] = last_bytes(envelope, signed.clone(), [2])?;
    let [creator, nonce] = last_bytes(envelope, header.signature_header, [1, 2])?;
    let channel_header = channel_header(envelope, header.channel_header)?;
    let slice = |range: Option<Range<usize>>| envelope.slice(range.unwrap_or(0..0));
    Ok(TransactionView {
        channel: channel_header.channel,
        tx_id: channel_header.tx_id,
        header_type: channel_header.header_type,
        timestamp_seconds: channel_header.timestamp_seconds,
        tls_cert_hash: slice(channel_header.tls_cert_hash),
        creator: slice(creator),
        nonce: slice(nonce),
        payload: slice(payload),
        signed: envelope.slice(signed),
        signature: slice(signature),
    })
}

struct HeaderRanges {
    channel_header: Range<usize>,
    signature_header: Range<usize>,
}

#[derive(Default)]
struct ChannelHeaderView {
    header_type: i32,
    timestamp_seconds: Option<i64>,
    channel: String,
    tx_id: String,
    tls_cert_hash: Option<Range<usize>>,
}

/// Last value of each wanted `bytes` field.
fn last_bytes<const N: usize>(
    input: &[u8],
    within: Range<usize>,
    numbers: [u64; N],
) -> Result<[Option<Range<usize>>; N], WireError> {
    let mut found = std::array::from_fn(|_| None);
    for field in Fields::within(input, within) {
        let field = field?;
        if let Value::Bytes(range) = field.value {
            for (place, number) in found.iter_mut().zip(numbers) {
                if number == field.number {
                    *place = Some(range.clone());
                }
            }
        }
    }
    Ok(found)
}

/// `Payload.header`: a message, so several occurrences are merged.
fn merged_header(input: &[u8], payload: Range<usize>) -> Result<HeaderRanges, TransactionError> {
    let mut seen = false;
    let mut merged = HeaderRanges { channel_header: 0..0, signature_header: 0..0 };
    for field in Fields::within(input, payload) {
        let field = field?;
        if let (1, Value::Bytes(range)) = (field.number, field.value) {
            seen = true;
            let [channel_header, signature_header] = last_bytes(input, range, [1, 2])?;
            merged.channel_header = channel_header.unwrap_or(merged.channel_header);
            merged.signature_header = signature_header.unwrap_or(merged.signature_header);
        }
    }
    if seen { Ok(merged) } else { Err(TransactionError::NoHeader) }
}

fn channel_header(input: &[u8], within: Range<usize>) -> Result<ChannelHeaderView, TransactionError> {
    let mut view = ChannelHeaderView::default();
    for field in Fields::within(input, within) {
        let field = field?;
        match (field.number, field.value) {
            // Go truncates varints of 32-bit fields in the same way.
            (1, Value::Varint(value)) => view.header_type = value as i32,
            (3, Value::Bytes(range)) => {
                let seconds = timestamp_seconds(input, range)?.or(view.timestamp_seconds);
                view.timestamp_seconds = seconds.or(Some(0));
            }
            (4, Value::Bytes(range)) => view.channel = text(input, range, "channel name")?,
            (5, Value::Bytes(range)) => view.tx_id = text(input, range, "transaction id")?,
            (8, Value::Bytes(range)) => view.tls_cert_hash = Some(range),
            _ => {}
        }
    }
    Ok(view)
}

fn timestamp_seconds(input: &[u8], within: Range<usize>) -> Result<Option<i64>, WireError> {
    let mut seconds = None;
    for field in Fields::within(input, within) {
        let field = field?;
        if let (1, Value::Varint(value)) = (field.number, field.value) {
            seconds = Some(value.cast_signed());
        }
    }
    Ok(seconds)
}

fn text(input: &[u8], range: Range<usize>, what: &'static str) -> Result<String, TransactionError> {
    let bytes = input.get(range).unwrap_or_default();
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| TransactionError::Text(what))
}
