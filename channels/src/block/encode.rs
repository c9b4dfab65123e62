//! The canonical encoding of a block: `common.Block` as Go marshals it, with five metadata slots of which only the
//! first is filled. Deterministic, so that chunks of a block can be fetched from several peers that hold the same
//! signatures.

use bytes::Bytes;

use super::Block;
use crate::proto::common::{BlockMetadataIndex, METADATA_SLOTS};
use crate::protobuf::{push_varint, varint_length};

const TAG_HEADER: u8 = 0x0a;
const TAG_DATA: u8 = 0x12;
const TAG_METADATA: u8 = 0x1a;
const TAG_ENTRY: u8 = 0x0a;

/// Where encoded bytes go: into a buffer, or against bytes that may already be the encoding.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

struct Compare<'a> {
    rest: &'a [u8],
    equal: bool,
}

impl Sink for Compare<'_> {
    fn put(&mut self, bytes: &[u8]) {
        match self.rest.strip_prefix(bytes) {
            Some(rest) if self.equal => self.rest = rest,
            _ => self.equal = false,
        }
    }
}

/// What an encoding holds beyond header and slot 0.
#[derive(Clone, Copy)]
struct Form<'a> {
    /// Whether the data is there.
    data: bool,
    /// Slot 2.
    transactions_filter: &'a [u8],
}

const CANONICAL: Form<'static> = Form { data: true, transactions_filter: &[] };
/// Slot of the validation codes (Fabric: `BlockMetadataIndex_TRANSACTIONS_FILTER`).
const FILTER_SLOT: usize = BlockMetadataIndex::TransactionsFilter as usize;

pub(super) fn encode(block: &Block) -> Bytes {
    let source = &block.inner.source;
    let length = encoded_length(block);
    if source.len() == length {
        let mut compare = Compare { rest: source, equal: true };
        write(block, CANONICAL, &mut compare);
        if compare.equal {
            return source.clone();
        }
    }
    let mut out = Vec::with_capacity(length);
    write(block, CANONICAL, &mut out);
    out.into()
}

/// Transactions and slot 0 as slices of `encoded`, which is what [`encode`] gave for the block.
pub(super) fn slices(block: &Block, encoded: &Bytes) -> (Vec<Bytes>, Bytes) {
    let prefixed = |length: usize| varint_length(length).saturating_add(1);
    let header = header_body(block).len();
    let mut position = prefixed(header).saturating_add(header).saturating_add(prefixed(data_length(block)));
    let mut take = |before: usize, length: usize| {
        let start = position.saturating_add(before).saturating_add(prefixed(length));
        position = start.saturating_add(length);
        encoded.slice(start..position)
    };
    let transactions = block.transactions().iter().map(|transaction| take(0, transaction.len())).collect();
    let signatures_metadata =
        take(prefixed(metadata_length(block, CANONICAL)), block.signatures_metadata().len());
    (transactions, signatures_metadata)
}

pub(super) fn encoded_length(block: &Block) -> usize {
    form_length(block, CANONICAL)
}

pub(super) fn encode_served(
    block: &Block,
    data: bool,
    transactions_filter: &[u8],
    prefix: impl FnOnce(usize) -> Vec<u8>,
) -> Vec<u8> {
    let form = Form { data, transactions_filter };
    let length = form_length(block, form);
    let mut out = prefix(length);
    out.reserve_exact(length);
    write(block, form, &mut out);
    out
}

fn form_length(block: &Block, form: Form<'_>) -> usize {
    let data = form.data.then(|| data_length(block));
    let bodies = [Some(header_body(block).len()), data, Some(metadata_length(block, form))];
    bodies.into_iter().flatten().fold(0, |sum: usize, body| {
        sum.saturating_add(1).saturating_add(varint_length(body)).saturating_add(body)
    })
}

fn write(block: &Block, form: Form<'_>, sink: &mut impl Sink) {
    let header = header_body(block);
    put_prefix(sink, TAG_HEADER, header.len());
    sink.put(&header);
    if form.data {
        put_prefix(sink, TAG_DATA, data_length(block));
        for transaction in block.transactions() {
            put_prefix(sink, TAG_ENTRY, transaction.len());
            sink.put(transaction);
        }
    }
    put_prefix(sink, TAG_METADATA, metadata_length(block, form));
    put_prefix(sink, TAG_ENTRY, block.signatures_metadata().len());
    sink.put(block.signatures_metadata());
    for slot in 1..METADATA_SLOTS {
        let value = if slot == FILTER_SLOT { form.transactions_filter } else { &[] };
        put_prefix(sink, TAG_ENTRY, value.len());
        sink.put(value);
    }
}

fn header_body(block: &Block) -> Vec<u8> {
    let header = block.header();
    let mut body = Vec::with_capacity(80);
    if header.number != 0 {
        body.push(0x08);
        push_varint(&mut body, header.number);
    }
    for (tag, hash) in [(0x12, &header.previous_hash), (0x1a, &header.data_hash)] {
        if !hash.is_empty() {
            put_prefix(&mut body, tag, hash.len());
            body.extend_from_slice(hash);
        }
    }
    body
}

fn put_prefix(sink: &mut impl Sink, tag: u8, length: usize) {
    // A tag and at most ten bytes of length; on the stack, since every transaction has one.
    let mut prefix = [tag; 11];
    let mut used = 1;
    let mut rest = length as u64;
    for byte in prefix.iter_mut().skip(1) {
        used += 1;
        *byte = (rest & 0x7f) as u8 | if rest >= 0x80 { 0x80 } else { 0 };
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    sink.put(prefix.get(..used).unwrap_or_default());
}

fn entry_length(entry: &[u8]) -> usize {
    entry.len().saturating_add(varint_length(entry.len())).saturating_add(1)
}

fn data_length(block: &Block) -> usize {
    block.transactions().iter().map(|transaction| entry_length(transaction)).fold(0, usize::saturating_add)
}

fn metadata_length(block: &Block, form: Form<'_>) -> usize {
    // Tag and a length of zero for each of the other slots, which are blank.
    let blank = (METADATA_SLOTS - 2) * 2;
    entry_length(block.signatures_metadata())
        .saturating_add(entry_length(form.transactions_filter))
        .saturating_add(blank)
}
