//! Parsing of blocks on the wire level; what is accepted is said in the header of [`super`].

use std::ops::Range;

use bytes::Bytes;

use super::{Block, BlockError, BlockHeader, TRANSACTIONS_MAX};
use crate::protobuf::{Field, Fields, Value};

/// Bytes of a SHA-256 hash.
const HASH_LENGTH: usize = 32;

pub(super) fn decode(bytes: Bytes, size_max: usize) -> Result<Block, BlockError> {
    if bytes.len() > size_max {
        return Err(BlockError::TooLarge { size: bytes.len(), size_max });
    }
    let (mut header, mut data, mut metadata) = (None, None, None);
    for field in Fields::new(&bytes) {
        let field = field?;
        match field.number {
            1 => once(&mut header, range(&field, "header")?, "header")?,
            2 => once(&mut data, range(&field, "data")?, "data")?,
            3 => once(&mut metadata, range(&field, "metadata")?, "metadata")?,
            _ => {}
        }
    }
    let header = decode_header(&bytes, header.ok_or(BlockError::NoHeader)?)?;
    let transactions = decode_data(&bytes, data.unwrap_or(0..0))?;
    let signatures_metadata = decode_metadata(&bytes, metadata.unwrap_or(0..0))?;
    Ok(Block::with_source(header, transactions, signatures_metadata, bytes))
}

fn decode_header(bytes: &Bytes, within: Range<usize>) -> Result<BlockHeader, BlockError> {
    let (mut number, mut previous_hash, mut data_hash) = (None, None, None);
    for field in Fields::within(bytes, within) {
        let field = field?;
        match (field.number, &field.value) {
            (1, Value::Varint(value)) => once(&mut number, *value, "number")?,
            (1, _) => return Err(BlockError::WrongType("number")),
            (2, _) => once(&mut previous_hash, range(&field, "previous_hash")?, "previous_hash")?,
            (3, _) => once(&mut data_hash, range(&field, "data_hash")?, "data_hash")?,
            _ => {}
        }
    }
    let number = number.unwrap_or(0);
    let previous_hash = previous_hash.unwrap_or(0..0);
    let data_hash = data_hash.unwrap_or(0..0);
    let previous_length = if number == 0 { 0 } else { HASH_LENGTH };
    check_length(number, "previous_hash", previous_hash.len(), previous_length)?;
    check_length(number, "data_hash", data_hash.len(), HASH_LENGTH)?;
    Ok(BlockHeader {
        number,
        previous_hash: bytes.slice(previous_hash).to_vec(),
        data_hash: bytes.slice(data_hash).to_vec(),
    })
}

fn decode_data(bytes: &Bytes, within: Range<usize>) -> Result<Vec<Bytes>, BlockError> {
    let mut transactions = Vec::new();
    for field in Fields::within(bytes, within) {
        let field = field?;
        if field.number == 1 {
            if transactions.len() >= TRANSACTIONS_MAX {
                return Err(BlockError::TooManyTransactions);
            }
            transactions.push(bytes.slice(range(&field, "data entry")?));
        }
    }
    Ok(transactions)
}

/// Slot 0; the others are parsed, so that the bytes are a block, and dropped.
fn decode_metadata(bytes: &Bytes, within: Range<usize>) -> Result<Bytes, BlockError> {
    let mut first = None;
    for field in Fields::within(bytes, within) {
        let field = field?;
        if field.number == 1 {
            let slot = range(&field, "metadata slot")?;
            first.get_or_insert(slot);
        }
    }
    Ok(bytes.slice(first.unwrap_or(0..0)))
}

fn range(field: &Field, name: &'static str) -> Result<Range<usize>, BlockError> {
    match &field.value {
        Value::Bytes(range) => Ok(range.clone()),
        _ => Err(BlockError::WrongType(name)),
    }
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), BlockError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(BlockError::Duplicate(name)),
    }
}

fn check_length(number: u64, field: &'static str, length: usize, expected: usize) -> Result<(), BlockError> {
    if length == expected { Ok(()) } else { Err(BlockError::HashLength { number, field, length }) }
}
