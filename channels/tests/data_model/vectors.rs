//! Every block that Fabric's orderers made verifies, and every hash equals the one computed independently.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::proto::common::Metadata;
use grapevine_channels::transaction::transaction_payload;
use grapevine_channels::verify::BlockVerifier;
use prost::Message as _;
use serde_json::Value;

pub(crate) const CHAINS: [&str; 3] = ["ecdsa", "ed25519", "bft-ecdsa"];

pub(crate) fn directory(chain: &str) -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../integration-tests/fixtures/fabric-vectors");
    PathBuf::from(fixtures).join(chain)
}

pub(crate) fn raw_blocks(chain: &str) -> Vec<Bytes> {
    let mut paths: Vec<_> =
        fs::read_dir(directory(chain).join("blocks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap().into()).collect()
}

pub(crate) fn blocks(chain: &str) -> Vec<Block> {
    raw_blocks(chain).into_iter().map(|bytes| Block::decode(bytes, usize::MAX).unwrap()).collect()
}

/// Walks a chain as a peer does: each block verified under the config in force, links checked, configs followed.
pub(crate) fn walk(chain: &str, mut each: impl FnMut(&BlockVerifier, &Block, &AuthenticBlock)) {
    let blocks = blocks(chain);
    let mut tip = AuthenticBlock::genesis(&blocks[0]).unwrap();
    let mut verifier = BlockVerifier::new(Arc::new(ChannelConfig::from_block(&blocks[0]).unwrap()));
    for block in &blocks[1..] {
        let authentic = verifier.verify(block.clone()).unwrap();
        assert_eq!(authentic.previous_hash(), Some(tip.hash()));
        assert_eq!(authentic.number(), tip.number() + 1);
        each(&verifier, block, &authentic);
        if authentic.is_config() {
            verifier = BlockVerifier::new(Arc::new(verifier.config().next(&authentic).unwrap()));
        }
        tip = authentic;
    }
}

#[test]
fn hashes_and_contents_equal_the_independent_ones() {
    for chain in CHAINS {
        let expected = fs::read(directory(chain).join("expected.json")).unwrap();
        let expected: Vec<Value> = serde_json::from_slice(&expected).unwrap();
        let raw = raw_blocks(chain);
        assert_eq!(raw.len(), expected.len());
        for (bytes, expected) in raw.iter().zip(&expected) {
            let block = Block::decode(bytes.clone(), bytes.len()).unwrap();
            let metadata = Metadata::decode(block.signatures_metadata().clone()).unwrap();
            let types: Vec<i64> = block
                .transactions()
                .iter()
                .map(|transaction| transaction_payload(transaction).unwrap().header_type.into())
                .collect();
            assert_eq!(expected["number"], block.number());
            assert_eq!(expected["header_hash"], block.header_hash().to_string());
            assert_eq!(expected["data_hash"], block.compute_data_hash().to_string());
            assert_eq!(expected["data_hash"], hex(&block.header().data_hash));
            assert_eq!(expected["transactions"], block.transactions().len());
            assert_eq!(expected["header_types"], Value::from(types));
            assert_eq!(expected["last_config"], block.last_config_index().unwrap());
            assert_eq!(expected["orderer_signatures"], metadata.signatures.len());
            assert_eq!(expected["bytes"], bytes.len());
        }
    }
}

#[test]
fn every_block_verifies_under_the_config_in_force() {
    for (chain, count) in [("ecdsa", 10), ("ed25519", 10), ("bft-ecdsa", 5)] {
        let mut seen = 0;
        walk(chain, |_, block, authentic| {
            seen += 1;
            assert_eq!(authentic.hash(), block.header_hash());
            assert_eq!(authentic.block().transactions(), block.transactions());
        });
        assert_eq!(seen, count, "{chain}");
    }
}

#[test]
fn config_updates_take_effect() {
    let mut sequences = Vec::new();
    walk("ed25519", |verifier, _, authentic| {
        if authentic.is_config() {
            let next = verifier.config().next(authentic).unwrap();
            let org2 = &next.application_orgs()[&"Org2MSP".into()];
            let anchors: Vec<String> = org2.anchor_peers.iter().map(ToString::to_string).collect();
            sequences.push((next.config_block_number(), next.sequence()));
            assert_eq!(anchors, ["peer1.org2.example.com:7051"]);
            let expected_count = if next.sequence() == 1 { 3 } else { 1 };
            assert_eq!(next.batch_size().max_message_count, expected_count);
        }
    });
    assert_eq!(sequences, [(4, 1), (6, 2)]);
}

#[test]
fn what_is_kept_is_canonical_and_reads_back() {
    for chain in CHAINS {
        walk(chain, |verifier, block, authentic| {
            let again = Block::decode(authentic.encoded().clone(), authentic.size()).unwrap();
            assert_eq!(again, *authentic.block());
            // Encoding what was decoded from the canonical form copies nothing.
            assert_eq!(again.encode().as_ptr(), authentic.encoded().as_ptr());
            assert_eq!(again.signatures_metadata(), block.signatures_metadata());
            // The block that is kept holds no second buffer alive.
            let kept = authentic.encoded().as_ptr_range();
            assert!(authentic.block().transactions().iter().all(|slice| kept.contains(&slice.as_ptr())));
            assert_eq!(verifier.verify(again).unwrap().encoded(), authentic.encoded());
            assert_eq!(AuthenticBlock::stored(authentic.encoded().clone()).unwrap(), *authentic);
        });
    }
}

#[test]
fn a_config_describes_its_channel() {
    let config = ChannelConfig::from_block(&blocks("ed25519")[0]).unwrap();
    assert_eq!(config.channel_id().as_str(), "ch1");
    assert_eq!((config.sequence(), config.config_block_number()), (0, 0));
    let application: Vec<&str> = config.application_orgs().keys().map(|id| id.as_str()).collect();
    assert_eq!(application, ["Org1MSP", "Org2MSP"]);
    assert_eq!(config.orderer_endpoints()[0].address, "127.0.0.1:17050");
    assert_eq!(config.orderer_endpoints()[0].org, "OrdererMSP".into());
    assert!(config.orderer_endpoints()[0].tls_roots[0].starts_with(b"-----BEGIN CERTIFICATE"));
    assert_eq!(config.batch_timeout_ms(), 300);
    assert_eq!(config.batch_size().preferred_max_bytes, 2 << 20);
    assert_eq!(config.block_size_max(), 51 << 20);
    assert_eq!(config.consensus_type(), "etcdraft");
    let bft = ChannelConfig::from_block(&blocks("bft-ecdsa")[0]).unwrap();
    assert_eq!((bft.consensus_type(), bft.consenters().len()), ("BFT", 4));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
