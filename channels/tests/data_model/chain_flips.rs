//! No byte that counts can be changed: blocks of Fabric's chains, broken off or with one byte changed.
//!
//! The short form takes seconds; `make test-exhaustive` (`GRAPEVINE_EXHAUSTIVE=1`) changes every bit of every small block
//! and tries every value of every byte of the smallest ones.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::verify::BlockVerifier;

use crate::vectors::{CHAINS, raw_blocks, walk};

/// A block small enough to try every value of every byte.
const EVERY_VALUE_BYTES: usize = 1_500;
/// A block small enough to change every bit.
const EVERY_BIT_BYTES: usize = 5_000;
/// Above, one byte in so many.
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

/// Header, data and slot 0 of every block but block 0: every bit of the smallest block of the chain, one bit of every byte
/// of small blocks, samples of the others.
fn change_bytes(chain: &str) {
    if std::env::var_os("GRAPEVINE_EXHAUSTIVE").is_some() {
        return change_all_bytes(chain);
    }
    let smallest = raw_blocks(chain).iter().map(Bytes::len).min().unwrap();
    let mut every_bit = 0;
    walk(chain, |verifier, received, authentic| {
        let encoded = authentic.encoded();
        let number = usize::try_from(received.number()).unwrap();
        let is_smallest = raw_blocks(chain)[number].len() == smallest;
        let stride = if encoded.len() <= EVERY_BIT_BYTES { 1 } else { 8 * STRIDE };
        let data = data_range(authentic);
        for position in 0..encoded.len() - 8 {
            if data.contains(&position) && !position.is_multiple_of(stride) {
                continue;
            }
            let bits = if is_smallest { 0..8 } else { position % 8..position % 8 + 1 };
            for bit in bits {
                let mut changed = encoded.to_vec();
                changed[position] ^= 1 << bit;
                assert_refused(verifier, changed, authentic, position);
            }
        }
        every_bit += usize::from(is_smallest);
    });
    assert!(every_bit > 0);
}

/// Every value of every byte in the smallest block of the chain and in those below [`EVERY_VALUE_BYTES`], every bit in
/// small blocks, samples of the others.
fn change_all_bytes(chain: &str) {
    let smallest = raw_blocks(chain).iter().map(Bytes::len).min().unwrap();
    let mut all_values = 0;
    walk(chain, |verifier, received, authentic| {
        // As it is kept: header, data and slot 0, then the four blank slots, which nobody signs.
        let encoded = authentic.encoded();
        let covered = encoded.len() - 8;
        let bits: Vec<u8> = (0..8).map(|bit| 1 << bit).collect();
        let every_value = raw_blocks(chain)[usize::try_from(received.number()).unwrap()].len()
            <= smallest.max(EVERY_VALUE_BYTES)
            && all_values == 0;
        let (stride, changes) = if every_value {
            all_values += 1;
            (1, (1..=255).collect())
        } else if encoded.len() <= EVERY_BIT_BYTES {
            (1, bits)
        } else {
            (STRIDE, vec![0x01, 0x80])
        };
        // Header and slot 0 of every block are changed everywhere.
        let data = data_range(authentic);
        let sampled = |position: usize| !data.contains(&position) || position.is_multiple_of(stride);
        for position in (0..covered).filter(|position| sampled(*position)) {
            for change in &changes {
                let mut changed = encoded.to_vec();
                changed[position] ^= change;
                assert_refused(verifier, changed, authentic, position);
            }
        }
    });
    assert_eq!(all_values, 1);
}

/// Where the transactions lie in the encoding.
fn data_range(block: &AuthenticBlock) -> std::ops::Range<usize> {
    let start = block.encoded().as_ptr() as usize;
    let transactions = block.block().transactions();
    let last = transactions.last().unwrap();
    transactions[0].as_ptr() as usize - start..last.as_ptr() as usize + last.len() - start
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
