//! Parsing and encoding of blocks.

use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block, BlockError};
use grapevine_channels::proto::common;
use grapevine_crypto::sha256;
use proptest::prelude::*;
use prost::Message as _;

use crate::network::header;

fn block(number: u64, transactions: Vec<Bytes>, slot: Bytes) -> Block {
    let previous = if number == 0 { Vec::new() } else { sha256(b"previous").0.to_vec() };
    Block::from_parts(header(number, &previous, &transactions), transactions, slot)
}

fn decode(bytes: impl Into<Bytes>) -> Result<Block, BlockError> {
    Block::decode(bytes.into(), usize::MAX)
}

/// A field of wire type 2.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

fn good_header() -> Vec<u8> {
    [vec![8, 1], field(2, &[1; 32]), field(3, &[2; 32])].concat()
}

#[test]
fn size_is_checked_before_anything_else() {
    let garbage = Bytes::from_static(&[0xff; 100]);
    assert_eq!(Block::decode(garbage, 99).unwrap_err(), BlockError::TooLarge { size: 100, size_max: 99 });
}

#[test]
fn singular_fields_may_appear_once() {
    let header = field(1, &good_header());
    assert!(decode(header.clone()).is_ok());
    let inner = |extra: &[u8]| field(1, &[good_header().as_slice(), extra].concat());
    for (bytes, name) in [
        ([header.clone(), header.clone()].concat(), "header"),
        ([header.clone(), field(2, &[]), field(2, &[])].concat(), "data"),
        ([header.clone(), field(3, &[]), field(3, &[])].concat(), "metadata"),
        (inner(&[8, 1]), "number"),
        (inner(&field(2, &[1; 32])), "previous_hash"),
        (inner(&field(3, &[2; 32])), "data_hash"),
    ] {
        assert_eq!(decode(bytes).unwrap_err(), BlockError::Duplicate(name));
    }
}

#[test]
fn unknown_fields_are_dropped_and_wrong_types_refused() {
    let plain = decode(field(1, &good_header())).unwrap();
    let inner = [good_header(), field(9, b"x")].concat();
    let unknown = decode([field(1, &inner), field(8, b"later")].concat()).unwrap();
    assert_eq!(unknown, plain);
    assert_eq!(unknown.encode(), plain.encode());
    assert_eq!(decode(vec![8, 1]).unwrap_err(), BlockError::WrongType("header"));
    assert_eq!(decode(field(1, &field(1, b"7"))).unwrap_err(), BlockError::WrongType("number"));
    let data = [field(1, &good_header()), field(2, &[8, 1])].concat();
    assert_eq!(decode(data).unwrap_err(), BlockError::WrongType("data entry"));
}

#[test]
fn headers_are_required_and_hashes_have_their_length() {
    assert_eq!(decode(Vec::new()).unwrap_err(), BlockError::NoHeader);
    let length = |bytes: Vec<u8>| matches!(decode(bytes), Err(BlockError::HashLength { .. }));
    assert!(length(field(1, &[])));
    assert!(length(field(1, &[vec![8, 1], field(3, &[2; 32])].concat())));
    assert!(length(field(1, &[vec![8, 1], field(2, &[1; 31]), field(3, &[2; 32])].concat())));
    assert!(length(field(1, &[field(2, &[1; 32]), field(3, &[2; 32])].concat())));
    assert!(decode(field(1, &field(3, &[2; 32]))).is_ok());
}

#[test]
fn transactions_are_slices_of_the_input() {
    let encoded = block(1, vec![Bytes::from(vec![7; 1000])], Bytes::new()).encode();
    let parsed = decode(encoded.clone()).unwrap();
    let inside = encoded.as_ptr_range();
    assert!(inside.contains(&parsed.transactions()[0].as_ptr()));
}

#[test]
fn too_many_transactions() {
    let count = grapevine_channels::block::TRANSACTIONS_MAX + 1;
    let many = block(1, vec![Bytes::new(); count], Bytes::new());
    assert_eq!(decode(many.encode()).unwrap_err(), BlockError::TooManyTransactions);
}

#[test]
fn other_metadata_slots_are_blank_on_receipt() {
    let original = common::Block {
        header: Some(common::BlockHeader { number: 0, previous_hash: vec![], data_hash: vec![3; 32] }),
        data: Some(common::BlockData { data: vec![Bytes::from_static(b"t")] }),
        metadata: Some(common::BlockMetadata { metadata: ["zero", "one", "two"].map(Bytes::from).to_vec() }),
    };
    let parsed = decode(original.encode_to_vec()).unwrap();
    assert_eq!(parsed.signatures_metadata(), "zero");
    let again = common::Block::decode(parsed.encode()).unwrap();
    assert_eq!(again.metadata.unwrap().metadata, ["zero", "", "", "", ""]);
    assert_eq!((again.header, again.data), (original.header, original.data));
}

#[test]
fn simulated_blocks_link_and_differ() {
    let genesis = AuthenticBlock::simulated(0, sha256(b"ignored"), 10);
    let next = AuthenticBlock::simulated(1, genesis.hash(), 20_000_000);
    assert_eq!(genesis.previous_hash(), None);
    assert_eq!(next.previous_hash(), Some(genesis.hash()));
    assert_eq!((next.number(), next.size(), next.is_config()), (1, 20_000_000, false));
    assert!(next.encoded().len() < 200);
    assert_ne!(next.hash(), AuthenticBlock::simulated(1, genesis.hash(), 1).hash());
    assert_eq!(next, AuthenticBlock::stored(next.encoded().clone()).unwrap());
}

proptest! {
    #[test]
    fn encoding_equals_prost_and_round_trips(
        number: u64,
        transactions in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        slot in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let transactions: Vec<Bytes> = transactions.into_iter().map(Bytes::from).collect();
        let block = block(number, transactions.clone(), slot.clone().into());
        let encoded = block.encode();
        prop_assert_eq!(encoded.len(), block.encoded_length());
        let mut metadata = vec![Bytes::new(); 5];
        metadata[0] = slot.into();
        let header = block.header();
        let by_prost = common::Block {
            header: Some(common::BlockHeader {
                number,
                previous_hash: header.previous_hash.clone(),
                data_hash: header.data_hash.clone(),
            }),
            data: Some(common::BlockData { data: transactions }),
            metadata: Some(common::BlockMetadata { metadata }),
        };
        prop_assert_eq!(&encoded, &by_prost.encode_to_vec());
        prop_assert_eq!(decode(encoded).unwrap(), block);
    }

    #[test]
    fn any_bytes_give_a_block_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(block) = decode(bytes) {
            let again = decode(block.encode()).unwrap();
            prop_assert_eq!(&again, &block);
            let _ = (block.channel_id(), block.is_config(), block.last_config_index());
        }
    }
}
