//! The hashed part of a block.

use grapevine_crypto::{Digest, sha256};

/// Number, link to the block before, and commitment to the data (`common.BlockHeader`).
///
/// A block's identity is the SHA-256 of the header's DER encoding (Fabric: `protoutil.BlockHeaderHash`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlockHeader {
    /// Height; the genesis block is 0.
    pub number: u64,
    /// Header hash of the block before; empty in the genesis block.
    pub previous_hash: Vec<u8>,
    /// SHA-256 over the concatenation of all data entries (Fabric: `protoutil.ComputeBlockDataHash`).
    pub data_hash: Vec<u8>,
}

const TAG_INTEGER: u8 = 0x02;
const TAG_OCTET_STRING: u8 = 0x04;
const TAG_SEQUENCE: u8 = 0x30;

impl BlockHeader {
    /// DER of `SEQUENCE { INTEGER number, OCTET STRING previous_hash, OCTET STRING data_hash }`: what is hashed, and
    /// what orderers sign (Fabric: `protoutil.BlockHeaderBytes`).
    pub fn der(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(96);
        push_der(&mut body, TAG_INTEGER, &integer(self.number));
        push_der(&mut body, TAG_OCTET_STRING, &self.previous_hash);
        push_der(&mut body, TAG_OCTET_STRING, &self.data_hash);
        let mut der = Vec::with_capacity(body.len().saturating_add(6));
        push_der(&mut der, TAG_SEQUENCE, &body);
        der
    }

    /// SHA-256 of [`Self::der`].
    pub fn hash(&self) -> Digest {
        sha256(&self.der())
    }
}

/// Content octets of a non-negative INTEGER: shortest big-endian form, with a leading zero if the high bit is set.
fn integer(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let mut content: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    if content.first().is_none_or(|byte| *byte >= 0x80) {
        content.insert(0, 0);
    }
    content
}

fn push_der(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => out.push(length),
        _ => {
            let bytes = content.len().to_be_bytes();
            let length: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | length.len() as u8);
            out.extend_from_slice(&length);
        }
    }
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u64, previous: &[u8]) -> BlockHeader {
        BlockHeader { number, previous_hash: previous.to_vec(), data_hash: sha256(b"data").0.to_vec() }
    }

    #[test]
    fn hashes_equal_those_computed_by_fabric() {
        let previous = sha256(b"prev").0;
        for (number, previous, hash) in [
            (0, &[][..], "ca0f510a0966e4a18bc60b9425322fd8a582dcf255942c6742151db219b17f61"),
            (1, &previous, "0ac40147e376383d6846af140c13e47a67d2283166d4e691c8c7be6a7d0a20c9"),
            (127, &previous, "a826456f279a9dccc48e530e0d01af563284ee99fdbce2602200d2bd753cf270"),
            (128, &previous, "7f346625b18934ec57f60c91ac74cbb1a5e0baeb9cf6803241a64b441233343e"),
            (u64::MAX, &previous, "0ea1396492d3c3b29b33f35142116c674bf3295afd9fa5d38f618a2ec6ca601e"),
        ] {
            assert_eq!(header(number, previous).hash().to_string(), hash, "block {number}");
        }
    }

    #[test]
    fn der_of_edge_values() {
        let der = header(0, &[]).der();
        assert_eq!(&der[..9], [0x30, 0x27, 2, 1, 0, 4, 0, 4, 0x20]);
        assert_eq!(&header(128, &[]).der()[2..6], [2, 2, 0, 0x80]);
        assert_eq!(&header(u64::MAX, &[]).der()[2..13], [2, 9, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn long_form_lengths() {
        let long = BlockHeader { number: 1, previous_hash: vec![7; 300], data_hash: Vec::new() };
        let der = long.der();
        assert_eq!(&der[..4], [0x30, 0x82, 0x01, 0x35]);
        assert_eq!(&der[7..11], [4, 0x82, 0x01, 0x2c]);
    }
}
