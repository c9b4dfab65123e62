//! One data hash, one list of transactions (CVE-2023-46132).
//!
//! The data hash covers the plain concatenation of the data entries. Without a further rule one could move bytes
//! between entries and so show peers other transactions under the same signed header. Fabric's rule
//! (`protoutil.VerifyTransactionsAreWellFormed`): each entry, decoded and encoded again by Go, must give the same bytes.
//! Go writes the known fields in order, each once and in its shortest form, empty ones not at all, and then the unknown
//! fields as they came, except that their tags are shortened. This is checked here on the wire level, without decoding.
//!
//! A block of a single config transaction is exempt, as in Fabric: the genesis block has no signature, and with one
//! entry there is nothing to move bytes to. That a block claims to be one is checked against the last config index
//! that orderers signed ([`crate::verify`]).

use super::TransactionError;
use crate::block::Block;
use crate::protobuf::{Fields, Value};

/// Checks every entry of a block; see the module.
pub fn check_transactions(block: &Block) -> Result<(), (usize, TransactionError)> {
    if block.is_config() {
        return Ok(());
    }
    for (index, transaction) in block.transactions().iter().enumerate() {
        check_canonical(transaction).map_err(|error| (index, error))?;
    }
    Ok(())
}

/// Whether `envelope` is what Go's protobuf encodes its own decoding to, with payload and signature present.
pub fn check_canonical(envelope: &[u8]) -> Result<(), TransactionError> {
    let (mut payload, mut signature, mut unknown) = (false, false, false);
    let mut canonical = true;
    for field in Fields::new(envelope) {
        let field = field?;
        match (field.number, &field.value) {
            (1, Value::Bytes(range)) => {
                canonical &= !payload && !signature && !unknown && field.minimal && !range.is_empty();
                payload = !range.is_empty();
            }
            (2, Value::Bytes(range)) => {
                canonical &= !signature && !unknown && field.minimal && !range.is_empty();
                signature = !range.is_empty();
            }
            // Also a known number with another wire type: Go keeps it as an unknown field.
            _ => {
                unknown = true;
                canonical &= field.tag_minimal;
            }
        }
    }
    match (payload, signature, canonical) {
        (false, ..) => Err(TransactionError::NoPayload),
        (_, false, _) => Err(TransactionError::NoSignature),
        (.., false) => Err(TransactionError::NotCanonical),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = &[0x0a, 1, 7, 0x12, 1, 8];

    fn check(parts: &[&[u8]]) -> Result<(), TransactionError> {
        check_canonical(&parts.concat())
    }

    #[test]
    fn accepts_what_go_reproduces() {
        assert_eq!(check(&[GOOD]), Ok(()));
        // Unknown fields after the known ones, in any order and with values encoded in any way.
        assert_eq!(check(&[GOOD, &[0x1a, 1, 0]]), Ok(()));
        assert_eq!(check(&[GOOD, &[0x22, 0x81, 0x00, 9, 0x18, 0x80, 0x00]]), Ok(()));
        assert_eq!(check(&[GOOD, &[0x1b, 0x88, 0x00, 0, 0x1c]]), Ok(()));
        // Known number, other wire type.
        assert_eq!(check(&[GOOD, &[0x08, 1, 0x15, 0, 0, 0, 0]]), Ok(()));
    }

    #[test]
    fn refuses_what_go_changes() {
        let cases: &[&[&[u8]]] = &[
            &[&[0x12, 1, 8, 0x0a, 1, 7]],          // order
            &[&[0x1a, 1, 0], GOOD],                // unknown before known
            &[&[0x08, 1], GOOD],                   // known number as unknown field before known
            &[GOOD, GOOD],                         // twice
            &[&[0x0a, 1, 7], GOOD],                // payload twice
            &[GOOD, &[0x12, 1, 8]],                // signature twice
            &[&[0x0a, 0], GOOD],                   // empty payload before
            &[&[0x8a, 0x00, 1, 7, 0x12, 1, 8]],    // long tag
            &[&[0x0a, 0x81, 0x00, 7, 0x12, 1, 8]], // long length
            &[GOOD, &[0x9a, 0x80, 0x00, 1, 0]],    // long tag of an unknown field
        ];
        for case in cases {
            assert_eq!(check(case), Err(TransactionError::NotCanonical), "{case:?}");
        }
    }

    #[test]
    fn refuses_what_is_missing_or_broken() {
        assert_eq!(check(&[]), Err(TransactionError::NoPayload));
        assert_eq!(check(&[&[0x12, 1, 8]]), Err(TransactionError::NoPayload));
        assert_eq!(check(&[&[0x0a, 1, 7]]), Err(TransactionError::NoSignature));
        assert_eq!(check(&[GOOD, &[0x12, 0]]), Err(TransactionError::NoSignature));
        assert!(matches!(check(&[GOOD, &[0x1a]]), Err(TransactionError::Wire(_))));
    }
}
