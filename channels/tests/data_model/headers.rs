//! Headers verified alone, and blocks checked against them: no sender gets in what whole verification would refuse.

use bytes::Bytes;
use grapevine_channels::block::{Block, BlockError};
use grapevine_channels::proto::common::{Metadata, MetadataSignature};
use grapevine_channels::verify::VerifyError;
use grapevine_channels::wire::{
    ChannelBody, ChannelFrame, Frame, FrameBody, Headers, HeadersRequest, WireError,
};
use grapevine_crypto::Digest;
use prost::Message as _;

use crate::network::{Network, sent};

/// Blocks 1 to `count`.
fn chain(network: &Network, count: u64) -> Vec<Block> {
    let mut previous = network.genesis.header_hash();
    (1..=count)
        .map(|number| {
            let transactions = vec![network.transaction(&number.to_be_bytes()), network.transaction(b"x")];
            let block = network.signed(number, previous, transactions);
            previous = block.header_hash();
            block
        })
        .collect()
}

fn headers_of(blocks: &[Block]) -> Headers {
    let entries = blocks.iter().map(|block| Ok::<_, ()>((block.clone(), block.encoded_length())));
    Headers::of(blocks.first().map_or(0, Block::number), entries).unwrap()
}

#[test]
fn what_is_sent_of_headers_is_what_was_signed() {
    let network = Network::new();
    let blocks = chain(&network, 5);
    let headers = Headers::decode(headers_of(&blocks).encode_to_vec().as_slice()).unwrap();
    let verified: Vec<_> = headers
        .headers()
        .map(|(header, signatures)| network.verifier().verify_header(header, signatures).unwrap())
        .collect();
    assert_eq!(verified.len(), 5);
    for (header, block) in verified.iter().zip(&blocks) {
        assert_eq!((header.number(), header.hash()), (block.number(), block.header_hash()));
        assert_eq!(header.previous_hash(), Digest::try_from(block.header().previous_hash.as_slice()).ok());
        assert!(!header.is_config());
        let whole = network.verifier().verify(sent(block)).unwrap();
        let by_header = network.verifier().verify_body(&sent(block), header).unwrap();
        assert_eq!(by_header.encoded(), whole.encoded());
    }
}

#[test]
fn a_header_with_any_part_changed_does_not_verify() {
    let network = Network::new();
    let blocks = chain(&network, 2);
    let good = headers_of(&blocks);
    let flip = |bytes: &Bytes| {
        let mut changed = bytes.to_vec();
        changed[7] ^= 1;
        Bytes::from(changed)
    };
    let mut changed = vec![good.clone(), good.clone(), good.clone(), good.clone()];
    changed[0].previous_hash = flip(&good.previous_hash);
    changed[1].entries[0].data_hash = flip(&good.entries[0].data_hash);
    changed[2].first = 2;
    changed[3].entries.swap(0, 1);
    for headers in changed {
        let (header, signatures) = headers.headers().next().unwrap();
        let refused = network.verifier().verify_header(header, signatures);
        assert!(matches!(refused, Err(VerifyError::Policy { .. })), "{refused:?}");
    }
    let (first, signatures) = good.headers().next().unwrap();
    let mut unsigned = Metadata::decode(signatures.clone()).unwrap();
    unsigned.signatures.clear();
    let refused = network.verifier().verify_header(first.clone(), unsigned.encode_to_vec().into());
    assert!(matches!(refused, Err(VerifyError::Policy { .. })), "{refused:?}");
    let refused = network.verifier().verify_header(first, Bytes::from_static(&[0xff, 0x07]));
    assert!(
        matches!(refused, Err(VerifyError::Metadata { .. } | VerifyError::NoLastConfig { .. })),
        "{refused:?}"
    );
    let genesis = network.genesis.header().clone();
    assert!(matches!(network.verifier().verify_header(genesis, Bytes::new()), Err(VerifyError::Genesis)));
}

#[test]
fn a_header_belongs_under_the_config_it_names() {
    let network = Network::new();
    let previous = network.genesis.header_hash();
    let verify = |number, last_config| {
        let transactions = vec![network.transaction(b"a")];
        let block = network.signed_by(&network.orderer, number, previous, transactions, last_config);
        network.verifier().verify_header(block.header().clone(), block.signatures_metadata().clone())
    };
    let other = VerifyError::OtherConfig { number: 5, last_config: 3, config: 0 };
    assert_eq!(verify(5, 3).unwrap_err(), other);
    assert_eq!(verify(5, 6).unwrap_err(), VerifyError::ConfigMismatch { number: 5, last_config: 6 });
    assert!(verify(5, 5).unwrap().is_config(), "it says that it is a config block");
}

/// The header is genuine; the data is what a hostile sender can do to it.
#[test]
fn only_the_data_of_the_header_fits_it() {
    let network = Network::new();
    let blocks = chain(&network, 2);
    let verifier = network.verifier();
    let (first, signatures) = headers_of(&blocks).headers().next().unwrap();
    let verified = verifier.verify_header(first.clone(), signatures.clone()).unwrap();
    let with =
        |transactions: Vec<Bytes>| sent(&Block::from_parts(first.clone(), transactions, signatures.clone()));
    let [one, two] = blocks[0].transactions() else { panic!("two transactions") };

    let refused = verifier.verify_body(&with(vec![two.clone(), one.clone()]), &verified);
    assert!(matches!(refused, Err(VerifyError::Block(BlockError::DataHash { .. }))), "{refused:?}");
    let refused = verifier.verify_body(&with(Vec::new()), &verified);
    assert!(matches!(refused, Err(VerifyError::Block(BlockError::Empty { .. }))), "{refused:?}");
    // The same concatenation, cut differently, has the same data hash.
    let joined = with(vec![[one.as_ref(), two].concat().into()]);
    assert_eq!(joined.compute_data_hash(), blocks[0].compute_data_hash());
    let refused = verifier.verify_body(&joined, &verified);
    assert!(matches!(refused, Err(VerifyError::Transaction { .. } | VerifyError::Block(_))), "{refused:?}");
    let refused = verifier.verify_body(&sent(&blocks[1]), &verified);
    assert_eq!(refused.unwrap_err(), VerifyError::OtherHeader { number: 2 });
}

#[test]
fn a_header_that_claims_a_config_needs_one() {
    let network = Network::new();
    let transactions = vec![network.transaction(b"a")];
    let block = network.signed_by(&network.orderer, 5, network.genesis.header_hash(), transactions, 5);
    let verifier = network.verifier();
    let verified =
        verifier.verify_header(block.header().clone(), block.signatures_metadata().clone()).unwrap();
    let refused = verifier.verify_body(&sent(&block), &verified);
    assert!(matches!(refused, Err(VerifyError::ConfigMismatch { number: 5, .. })), "{refused:?}");
}

#[test]
fn a_block_of_another_channel_does_not_fit() {
    let network = Network::new();
    let other = Network::of_channel("audit");
    let foreign = vec![other.transaction(b"a")];
    let block = network.signed(1, network.genesis.header_hash(), foreign);
    let verifier = network.verifier();
    let verified =
        verifier.verify_header(block.header().clone(), block.signatures_metadata().clone()).unwrap();
    let refused = verifier.verify_body(&sent(&block), &verified);
    assert!(matches!(refused, Err(VerifyError::OtherChannel { number: 1, .. })), "{refused:?}");
}

/// What a sender adds to slot 0 of a block goes no further: the signatures verified with the header are kept.
#[test]
fn signatures_are_kept_from_the_header() {
    let network = Network::new();
    let block = network.block();
    let verifier = network.verifier();
    let verified =
        verifier.verify_header(block.header().clone(), block.signatures_metadata().clone()).unwrap();
    let mut stuffed = Metadata::decode(block.signatures_metadata().clone()).unwrap();
    stuffed.signatures.push(MetadataSignature { signature: vec![1; 5_000].into(), ..Default::default() });
    let slot: Bytes = stuffed.encode_to_vec().into();
    let sent = sent(&Block::from_parts(block.header().clone(), block.transactions().to_vec(), slot));
    let kept = verifier.verify_body(&sent, &verified).unwrap();
    assert_eq!(kept.block().signatures_metadata(), block.signatures_metadata());
}

#[test]
fn frames_with_headers_are_bounded() {
    let network = Network::new();
    let good = headers_of(&chain(&network, 2));
    let parse = |body: ChannelBody| {
        let frame = ChannelFrame { tag: vec![1; 16], body: Some(body) };
        Frame::parse(Frame { body: Some(FrameBody::Channel(frame)) }.encode_to_vec().into())
    };
    assert!(parse(ChannelBody::Headers(good.clone())).is_ok());
    let mut bad = vec![good.clone(), good.clone(), good.clone(), good.clone()];
    bad[0].first = u64::MAX - 1;
    bad[1].previous_hash = Bytes::new();
    bad[2].entries[1].data_hash = vec![1; 31].into();
    bad[3].entries = vec![good.entries[0].clone(); 129];
    for headers in bad {
        assert_eq!(parse(ChannelBody::Headers(headers)).unwrap_err(), WireError::OutOfBounds("headers"));
    }
    let request = HeadersRequest { first: 0, count: 129 };
    let refused = parse(ChannelBody::HeadersRequest(request)).unwrap_err();
    assert_eq!(refused, WireError::OutOfBounds("requested headers"));
}
