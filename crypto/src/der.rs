//! The outermost layer of signed DER objects.
//!
//! Certificates and revocation lists have one shape: SEQUENCE { to-be-signed, algorithm, BIT STRING }. The signature covers
//! only the first part, so the wrapping around it must have one spelling or else anyone could re-spell a certificate.
//! This module walks the wrapping with strict DER rules (definite, minimal lengths, nothing left over) and demands that
//! the algorithm outside equals the signed one inside (RFC 5280 4.1.1.2).

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const CONTEXT_0: u8 = 0xa0;

/// The parts of a signed object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedObject<'a> {
    /// The signed bytes, header included.
    pub(crate) to_be_signed: &'a [u8],
    /// The AlgorithmIdentifier, header included.
    pub(crate) algorithm: &'a [u8],
    /// The signature itself.
    pub(crate) signature: &'a [u8],
}

/// Splits a certificate or revocation list; `None` if the wrapping is not strict DER.
pub(crate) fn split_signed(der: &[u8]) -> Option<SignedObject<'_>> {
    let (outer, rest) = element(der)?;
    if outer.tag != SEQUENCE || !rest.is_empty() {
        return None;
    }
    let (signed, rest) = element(outer.contents)?;
    let (algorithm, rest) = element(rest)?;
    let (bits, rest) = element(rest)?;
    let (&unused_bits, signature) = bits.contents.split_first()?;
    let shape = (signed.tag, algorithm.tag, bits.tag, unused_bits, rest.is_empty());
    if shape != (SEQUENCE, SEQUENCE, BIT_STRING, 0, true) {
        return None;
    }
    if inner_algorithm(signed.contents)? != algorithm.whole {
        return None;
    }
    Some(SignedObject { to_be_signed: signed.whole, algorithm: algorithm.whole, signature })
}

/// The AlgorithmIdentifier is the first SEQUENCE after the optional version and, in certificates, the serial number.
fn inner_algorithm(mut contents: &[u8]) -> Option<&[u8]> {
    for _ in 0..3 {
        let (item, rest) = element(contents)?;
        match item.tag {
            SEQUENCE => return Some(item.whole),
            CONTEXT_0 | INTEGER => contents = rest,
            _ => return None,
        }
    }
    None
}

/// Puts a signed object together again with another signature.
pub(crate) fn join_signed(to_be_signed: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut bits = vec![0];
    bits.extend_from_slice(signature);
    let contents = [to_be_signed, algorithm, &encode(BIT_STRING, &bits)].concat();
    encode(SEQUENCE, &contents)
}

struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    contents: &'a [u8],
}

/// Reads one element with a single-byte tag and a definite, minimal length.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, after_tag) = bytes.split_first()?;
    let (&first, after_first) = after_tag.split_first()?;
    let (length, after_length) = if first < 0x80 {
        (usize::from(first), after_first)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (octets, rest) = after_first.split_at_checked(count)?;
        let length = octets.iter().fold(0_u64, |length, &octet| (length << 8) | u64::from(octet));
        let shortest = length >= 0x80 && octets.first() != Some(&0);
        (usize::try_from(length).ok().filter(|_| shortest)?, rest)
    };
    let (contents, rest) = after_length.split_at_checked(length)?;
    let whole = bytes.get(..bytes.len().checked_sub(rest.len())?)?;
    Some((Element { tag, whole, contents }, rest))
}

fn encode(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|&octet| octet == 0).collect();
    let mut bytes = vec![tag];
    match significant.as_slice() {
        [] => bytes.push(0),
        [octet] if *octet < 0x80 => bytes.push(*octet),
        octets => {
            // A usize has at most eight octets.
            bytes.push(0x80 | octets.len() as u8);
            bytes.extend_from_slice(octets);
        }
    }
    bytes.extend_from_slice(contents);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(filler: usize) -> Vec<u8> {
        let algorithm = encode(SEQUENCE, &[6, 1, 42]);
        let mut inside = encode(CONTEXT_0, &[2, 1, 2]);
        inside.extend(encode(INTEGER, &[7]));
        inside.extend(&algorithm);
        inside.extend(vec![0; filler]);
        join_signed(&encode(SEQUENCE, &inside), &algorithm, b"signature")
    }

    #[test]
    fn splits_what_it_joined_at_every_length_form() {
        for filler in [0, 100, 200, 300, 70_000] {
            let der = sample(filler);
            let parts = split_signed(&der).unwrap();
            assert_eq!(parts.signature, b"signature");
            assert_eq!(join_signed(parts.to_be_signed, parts.algorithm, parts.signature), der);
        }
    }

    #[test]
    fn refuses_other_spellings() {
        let der = sample(0);
        assert!(split_signed(&[der.as_slice(), &[0]].concat()).is_none(), "trailing byte");
        for cut in 0..der.len() {
            assert!(split_signed(&der[..cut]).is_none(), "cut at {cut}");
        }
        let mut long_length = vec![SEQUENCE, 0x81, der[1]];
        long_length.extend(&der[2..]);
        assert!(split_signed(&long_length).is_none(), "length not minimal");
        let mut indefinite = vec![SEQUENCE, 0x80];
        indefinite.extend(&der[2..]);
        indefinite.extend([0, 0]);
        assert!(split_signed(&indefinite).is_none(), "indefinite length");
        let mut other_algorithm = der.clone();
        let position = der.windows(3).rposition(|window| window == [6, 1, 42]).unwrap();
        other_algorithm[position + 2] = 43;
        assert!(split_signed(&other_algorithm).is_none(), "algorithm outside differs from inside");
    }
}
