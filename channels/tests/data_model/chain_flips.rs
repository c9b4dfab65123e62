//! No byte that counts can be changed: blocks of Fabric's chains, broken off or with one byte changed.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::verify::BlockVerifier;

use crate::vectors::{CHAINS, raw_blocks, walk};

/// A block small enough to try every byte.
const EXHAUSTIVE_BYTES: usize = 5_000;
/// Above, one in so many.
const STRIDE: usize = 37;

#[test]
fn a_block_broken_off_anywhere_is_refused_without_panic() {
    for chain in CHAINS {
        let raw = raw_blocks(chain);
        let verifier = BlockVerifier::new(Arc::new(
            ChannelConfig::from_block(&Block::decode(raw[0].clone(), usize::MAX).unwrap()).unwrap(),
        ));
        for length in 0..raw[1].len() {
            let decoded = Block::decode(raw[1].slice(..length), usize::MAX);
            // The encodings of Fabric end with blank metadata slots; those may be missing.
            if let Ok(block) = decoded {
                let verified = verifier.verify(block);
                assert!(verified.is_err() || length >= raw[1].len() - 8, "{chain}: {length} bytes");
            }
        }
    }
}

#[test]
fn a_changed_byte_is_refused_in_an_ecdsa_chain() {
    change_bytes("ecdsa");
}

#[test]
fn a_changed_byte_is_refused_in_an_ed25519_chain() {
    change_bytes("ed25519");
}

#[test]
fn a_changed_byte_is_refused_in_a_bft_chain() {
    change_bytes("bft-ecdsa");
}

fn change_bytes(chain: &str) {
    walk(chain, |verifier, _, authentic| {
        let encoded = authentic.encoded();
        let stride = if encoded.len() <= EXHAUSTIVE_BYTES { 1 } else { STRIDE };
        // Behind slot 0 stand the four blank slots, which nobody signs.
        let covered = encoded.len() - 8;
        for position in (0..covered).step_by(stride) {
            for bit in [0x01, 0x80] {
                let mut changed = encoded.to_vec();
                changed[position] ^= bit;
                assert_refused(verifier, changed, authentic, position);
            }
        }
    });
}

fn assert_refused(verifier: &BlockVerifier, changed: Vec<u8>, original: &AuthenticBlock, position: usize) {
    let Ok(block) = Block::decode(Bytes::from(changed), usize::MAX) else { return };
    if let Ok(accepted) = verifier.verify(block) {
        panic!(
            "block {}: a change at byte {position} was accepted as {}",
            original.number(),
            if accepted.encoded() == original.encoded() { "the same block" } else { "another block" }
        );
    }
}
