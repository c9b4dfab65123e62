//! Blocks that a hostile peer may send. None becomes authentic.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block, BlockError};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::proto::common::{Metadata, MetadataSignature};
use grapevine_channels::sign::sign_block;
use grapevine_channels::transaction::{TransactionError, check_canonical};
use grapevine_channels::verify::{BlockVerifier, SIGNATURES_MAX, VerifyError};
use grapevine_crypto::issue::{Organization, Validity};
use grapevine_crypto::{Algorithm, Role, sha256};
use prost::Message as _;

use crate::network::{NOW, Network, VALIDITY, header, organization, sent};
use crate::vectors;

fn with_metadata(block: &Block, metadata: &Metadata) -> Block {
    let slot = metadata.encode_to_vec().into();
    sent(&Block::from_parts(block.header().clone(), block.transactions().to_vec(), slot))
}

fn metadata(block: &Block) -> Metadata {
    Metadata::decode(block.signatures_metadata().clone()).unwrap()
}

#[test]
fn an_honest_block_is_authentic() {
    let network = Network::new();
    let block = network.block();
    let authentic = network.verifier().verify(sent(&block)).unwrap();
    assert_eq!((authentic.number(), authentic.hash()), (1, block.header_hash()));
    assert_eq!(authentic.previous_hash(), Some(network.genesis.header_hash()));
    assert_eq!(authentic.size(), authentic.encoded().len());
    assert!(!authentic.is_config());
}

#[test]
fn unsigned_and_forged_signatures() {
    let network = Network::new();
    let block = network.block();
    let mut unsigned = metadata(&block);
    unsigned.signatures.clear();
    let mut forged = metadata(&block);
    let mut signature = forged.signatures[0].signature.to_vec();
    signature[10] ^= 1;
    forged.signatures[0].signature = signature.into();
    for metadata in [unsigned, forged] {
        let refused = network.verifier().verify(with_metadata(&block, &metadata));
        assert!(matches!(refused, Err(VerifyError::Policy { number: 1, .. })), "{refused:?}");
    }
}

#[test]
fn signed_by_somebody_who_is_no_orderer() {
    let network = Network::new();
    let peer = network.org1.enrol("peer0.org1.example.com", Role::Peer, VALIDITY).unwrap();
    let foreign =
        organization("OrdererMSP", "evil.example").enrol("orderer", Role::Orderer, VALIDITY).unwrap();
    let unknown = organization("EvilMSP", "evil.example").enrol("orderer", Role::Orderer, VALIDITY).unwrap();
    for signer in [&peer, &network.client, &foreign, &unknown] {
        let transactions = vec![network.transaction(b"theft")];
        let block = network.signed_by(signer, 1, network.genesis.header_hash(), transactions, 0);
        let refused = network.verifier().verify(sent(&block));
        assert!(matches!(refused, Err(VerifyError::Policy { .. })), "{refused:?}");
    }
}

#[test]
fn reordered_moved_or_exchanged_transactions() {
    let network = Network::new();
    let block = network.block();
    let mut swapped = block.transactions().to_vec();
    swapped.swap(0, 1);
    let refused = network.verifier().verify(sent(&Block::from_parts(
        block.header().clone(),
        swapped.clone(),
        block.signatures_metadata().clone(),
    )));
    assert!(matches!(refused, Err(VerifyError::Block(BlockError::DataHash { .. }))), "{refused:?}");

    // With a data hash of its own, the orderer's signature no longer fits.
    let new_header = header(1, &block.header().previous_hash, &swapped);
    let refused = network.verifier().verify(sent(&Block::from_parts(
        new_header,
        swapped,
        block.signatures_metadata().clone(),
    )));
    assert!(matches!(refused, Err(VerifyError::Policy { .. })), "{refused:?}");
}

/// CVE-2023-46132: the same concatenation, cut differently.
#[test]
fn the_same_data_cut_into_other_transactions() {
    let network = Network::new();
    let block = network.block();
    let [first, second, third] = block.transactions() else { panic!("three transactions") };
    let joined = Bytes::from([first.as_ref(), second].concat());
    let cut = first.len() - 10;
    let cuts = [
        vec![joined, third.clone()],
        vec![first.slice(..cut), [&first[cut..], second].concat().into(), third.clone()],
        vec![Bytes::from([first.as_ref(), second, third].concat())],
        vec![first.clone(), second.clone(), third.clone(), Bytes::new()],
    ];
    for transactions in cuts {
        let forged =
            Block::from_parts(block.header().clone(), transactions, block.signatures_metadata().clone());
        assert_eq!(forged.compute_data_hash(), block.compute_data_hash());
        let refused = network.verifier().verify(sent(&forged));
        assert!(
            matches!(refused, Err(VerifyError::Transaction { .. } | VerifyError::Block(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_signed_block_with_a_transaction_that_is_not_canonical() {
    let network = Network::new();
    let good = network.transaction(b"a");
    // The signature in front of the payload.
    let view = grapevine_channels::transaction::transaction_payload(&good).unwrap();
    let mut reordered = vec![0x12, view.signature.len() as u8];
    reordered.extend_from_slice(&view.signature);
    reordered.extend_from_slice(&good[..good.len() - 2 - view.signature.len()]);
    let block = network.signed(1, network.genesis.header_hash(), vec![good, reordered.into()]);
    let refused = network.verifier().verify(sent(&block));
    let expected = VerifyError::Transaction { number: 1, index: 1, source: TransactionError::NotCanonical };
    assert_eq!(refused.unwrap_err(), expected);
}

/// The exemption of Fabric: with a single transaction there is nothing to move bytes to.
#[test]
fn a_single_config_transaction_may_be_encoded_in_any_way() {
    let network = Network::new();
    let [config] = network.genesis.transactions() else { panic!("one transaction") };
    assert_eq!(check_canonical(config), Err(TransactionError::NoSignature));
    let signed_as = |transactions: Vec<Bytes>, last_config| {
        let previous = network.genesis.header_hash();
        let block = network.signed_by(&network.orderer, 1, previous, transactions, last_config);
        network.verifier().verify(sent(&block))
    };
    assert!(signed_as(vec![config.clone()], 1).unwrap().is_config());
    // It ends where another transaction stands beside it, even if the orderers call the block a config block.
    let other = network.transaction(b"a");
    let refused = signed_as(vec![config.clone(), other.clone()], 0);
    let expected = VerifyError::Transaction { number: 1, index: 0, source: TransactionError::NoSignature };
    assert_eq!(refused.unwrap_err(), expected);
    let refused = signed_as(vec![config.clone(), other], 1);
    assert!(matches!(refused, Err(VerifyError::ConfigMismatch { .. })), "{refused:?}");
}

#[test]
fn a_block_outlives_the_certificates_of_its_signer_and_of_the_authority() {
    let mut network = Network::new();
    // From 2001 to 2011.
    let past = Validity::ten_years_from(1_000_000_000);
    let former = Organization::new("OrdererMSP".into(), "example.com", Algorithm::Ed25519, past).unwrap();
    network.orderer = former.enrol("orderer.example.com", Role::Orderer, past).unwrap();
    network.orderer_org = former;
    network.genesis = network.builder("trade").build().unwrap();
    assert!(network.orderer.identity().expired_at(NOW));
    network.verifier().verify(sent(&network.block())).unwrap();
}

#[test]
fn of_another_channel() {
    let network = Network::new();
    let other = network.builder("audit").build().unwrap();
    let audit = BlockVerifier::new(Arc::new(ChannelConfig::from_block(&other).unwrap()));
    let refused = audit.verify(sent(&network.block()));
    assert!(matches!(refused, Err(VerifyError::OtherChannel { number: 1, .. })), "{refused:?}");
}

#[test]
fn another_height_or_another_predecessor() {
    let network = Network::new();
    let block = network.block();
    for (number, previous) in [(2, network.genesis.header_hash()), (1, sha256(b"other"))] {
        let moved = header(number, previous.as_ref(), block.transactions());
        let moved =
            Block::from_parts(moved, block.transactions().to_vec(), block.signatures_metadata().clone());
        let refused = network.verifier().verify(sent(&moved));
        assert!(matches!(refused, Err(VerifyError::Policy { .. })), "{refused:?}");
    }
}

#[test]
fn empty_blocks_and_second_genesis_blocks() {
    let network = Network::new();
    let empty = network.signed(1, network.genesis.header_hash(), Vec::new());
    let refused = network.verifier().verify(sent(&empty));
    assert!(matches!(refused, Err(VerifyError::Block(BlockError::Empty { number: 1 }))), "{refused:?}");
    let refused = network.verifier().verify(sent(&network.genesis));
    assert!(matches!(refused, Err(VerifyError::Genesis)), "{refused:?}");
}

#[test]
fn the_config_index_is_signed_and_must_fit() {
    let network = Network::new();
    let previous = network.genesis.header_hash();
    let verify = |number, last_config, transactions| {
        let block = network.signed_by(&network.orderer, number, previous, transactions, last_config);
        network.verifier().verify(sent(&block)).unwrap_err()
    };
    let data = || vec![network.transaction(b"a")];
    assert_eq!(verify(5, 3, data()), VerifyError::OtherConfig { number: 5, last_config: 3, config: 0 });
    assert_eq!(verify(5, 5, data()), VerifyError::ConfigMismatch { number: 5, last_config: 5 });
    assert_eq!(verify(5, 9, data()), VerifyError::ConfigMismatch { number: 5, last_config: 9 });
    // A config transaction in a block that says it is none.
    let config = network.genesis.transactions().to_vec();
    assert_eq!(verify(5, 0, config), VerifyError::ConfigMismatch { number: 5, last_config: 0 });

    // Changing the index breaks the signature; leaving it out is refused.
    let block = network.block();
    let other = sign_block(block.header(), 1, Bytes::new(), &network.client, [1; 24]);
    let mut changed = metadata(&block);
    changed.value = Metadata::decode(other).unwrap().value;
    assert!(network.verifier().verify(with_metadata(&block, &changed)).is_err());
    changed.value = Bytes::new();
    let refused = network.verifier().verify(with_metadata(&block, &changed)).unwrap_err();
    assert_eq!(refused, VerifyError::NoLastConfig { number: 1 });
}

#[test]
fn only_good_orderer_signatures_are_kept_and_each_signer_once() {
    let network = Network::new();
    let block = network.block();
    let honest = metadata(&block);
    let second = network.orderer_org.enrol("orderer2.example.com", Role::Orderer, VALIDITY).unwrap();
    let sign = |signer, nonce| {
        let slot = sign_block(block.header(), 0, Bytes::new(), signer, [nonce; 24]);
        Metadata::decode(slot).unwrap().signatures.remove(0)
    };
    let mut wrong = sign(&network.orderer, 3);
    wrong.signature = sign(&network.orderer, 4).signature;
    let mut padded = honest.clone();
    padded.signatures = vec![
        wrong,
        honest.signatures[0].clone(),
        sign(&network.orderer, 1),
        sign(&network.client, 2),
        sign(&second, 6),
    ];
    let authentic = network.verifier().verify(with_metadata(&block, &padded)).unwrap();
    let kept = metadata(authentic.block());
    assert_eq!(kept.value, honest.value);
    assert_eq!(kept.signatures, [padded.signatures[1].clone(), padded.signatures[4].clone()]);
    assert_eq!(authentic.hash(), block.header_hash());
}

#[test]
fn signatures_are_bounded_and_malformed_headers_fail() {
    let network = Network::new();
    let block = network.block();
    let mut many = metadata(&block);
    many.signatures.resize(SIGNATURES_MAX + 1, MetadataSignature::default());
    let refused = network.verifier().verify(with_metadata(&block, &many)).unwrap_err();
    assert_eq!(refused, VerifyError::TooManySignatures { number: 1 });
    many.signatures.truncate(SIGNATURES_MAX);
    assert!(network.verifier().verify(with_metadata(&block, &many)).is_ok());

    let mut malformed = metadata(&block);
    malformed
        .signatures
        .push(MetadataSignature { signature_header: vec![0xff].into(), ..Default::default() });
    let refused = network.verifier().verify(with_metadata(&block, &malformed));
    assert!(matches!(refused, Err(VerifyError::Metadata { .. })), "{refused:?}");
}

#[test]
fn a_bft_block_needs_its_quorum() {
    let blocks = vectors::blocks("bft-ecdsa");
    let verifier = BlockVerifier::new(Arc::new(ChannelConfig::from_block(&blocks[0]).unwrap()));
    let full = metadata(&blocks[1]);
    assert_eq!(full.signatures.len(), 3);

    let mut repeated = full.clone();
    repeated.signatures[2] = repeated.signatures[1].clone();
    let mut short = full.clone();
    short.signatures.pop();
    let mut renamed = full.clone();
    renamed.signatures[0].identifier_header = vec![0x08, 4].into();
    for metadata in [repeated, short, renamed] {
        let refused = verifier.verify(with_metadata(&blocks[1], &metadata));
        assert!(matches!(refused, Err(VerifyError::Policy { .. })), "{refused:?}");
    }

    // An unknown consenter beside a quorum does not matter and is not kept.
    let mut unknown = full.clone();
    let stranger = MetadataSignature { identifier_header: vec![0x08, 99].into(), ..Default::default() };
    unknown.signatures.insert(0, stranger);
    let authentic = verifier.verify(with_metadata(&blocks[1], &unknown)).unwrap();
    assert_eq!(metadata(authentic.block()), full);
}

#[test]
fn genesis_must_be_block_zero_and_whole() {
    let network = Network::new();
    assert!(matches!(AuthenticBlock::genesis(&network.block()), Err(BlockError::NotGenesis { number: 1 })));
    let mut header = network.genesis.header().clone();
    header.data_hash[0] ^= 1;
    let broken = Block::from_parts(header, network.genesis.transactions().to_vec(), Bytes::new());
    assert!(matches!(AuthenticBlock::genesis(&broken), Err(BlockError::DataHash { .. })));
    assert_eq!(crate::network::genesis(&network.genesis).previous_hash(), None);
}
