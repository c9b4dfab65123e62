//! The canonical encoding of a block: `common.Block` as Go marshals it, with five metadata slots of which only the
//! first is filled. Deterministic, so that chunks of a block can be fetched from several peers that hold the same
//! signatures.

use bytes::Bytes;

use super::Block;
use crate::proto::common::METADATA_SLOTS;
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

pub(super) fn encode(block: &Block) -> Bytes {
    let source = &block.inner.source;
    let length = encoded_length(block);
    if source.len() == length {
        let mut compare = Compare { rest: source, equal: true };
        write(block, &mut compare);
        if compare.equal {
            return source.clone();
        }
    }
    let mut out = Vec::with_capacity(length);
    write(block, &mut out);
    out.into()
}

pub(super) fn encoded_length(block: &Block) -> usize {
    let data = data_length(block);
    let metadata = metadata_length(block);
    [header_body(block).len(), data, metadata].into_iter().fold(0, |sum: usize, body| {
        sum.saturating_add(1).saturating_add(varint_length(body)).saturating_add(body)
    })
}

fn write(block: &Block, sink: &mut impl Sink) {
    let header = header_body(block);
    put_prefix(sink, TAG_HEADER, header.len());
    sink.put(&header);
    put_prefix(sink, TAG_DATA, data_length(block));
    for transaction in block.transactions() {
        put_prefix(sink, TAG_ENTRY, transaction.len());
        sink.put(transaction);
    }
    put_prefix(sink, TAG_METADATA, metadata_length(block));
    put_prefix(sink, TAG_ENTRY, block.signatures_metadata().len());
    sink.put(block.signatures_metadata());
    for _ in 1..METADATA_SLOTS {
        put_prefix(sink, TAG_ENTRY, 0);
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
    let mut prefix = vec![tag];
    push_varint(&mut prefix, length as u64);
    sink.put(&prefix);
}

fn entry_length(entry: &Bytes) -> usize {
    entry.len().saturating_add(varint_length(entry.len())).saturating_add(1)
}

fn data_length(block: &Block) -> usize {
    block.transactions().iter().map(entry_length).fold(0, usize::saturating_add)
}

fn metadata_length(block: &Block) -> usize {
    // Tag and a length of zero for each blank slot.
    entry_length(block.signatures_metadata()).saturating_add((METADATA_SLOTS - 1) * 2)
}
