//! Signatures: published vectors, malleability, weak keys, and every edge of the DER encoding.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use grapevine_crypto::{Algorithm, KeyError, PrivateKey, PublicKey, SignatureError};
use proptest::prelude::*;

/// RFC 8032 7.1, tests 1 to 3: public key, message, signature.
const RFC_8032: [(&str, &str, &str); 3] = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
];

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

#[test]
fn ed25519_accepts_the_vectors_of_rfc_8032_and_nothing_near_them() {
    for (key, message, signature) in RFC_8032 {
        let key = PublicKey::from_ed25519(&bytes(key)).unwrap();
        let (message, signature) = (bytes(message), bytes(signature));
        assert_eq!(key.verify(&message, &signature), Ok(()));
        assert_eq!(key.verify(b"another", &signature), Err(SignatureError::Mismatch));
        for position in 0..signature.len() {
            let mut changed = signature.clone();
            changed[position] ^= 1;
            assert!(key.verify(&message, &changed).is_err(), "byte {position}");
        }
        for length in [0, 32, 63] {
            assert_eq!(key.verify(&message, &signature[..length]), Err(SignatureError::Malformed));
        }
        assert_eq!(key.verify(&message, &[signature, vec![0]].concat()), Err(SignatureError::Malformed));
    }
}

/// Adding the group order to s gives a second valid signature for verifiers that do not check the range of s.
#[test]
fn ed25519_refuses_s_plus_the_group_order() {
    let order = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let (key, message, signature) = RFC_8032[2];
    let key = PublicKey::from_ed25519(&bytes(key)).unwrap();
    let mut signature = bytes(signature);
    let mut carry = 0_u16;
    for (byte, add) in signature[32..].iter_mut().zip(&order) {
        let sum = u16::from(*byte) + u16::from(*add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert!(key.verify(&bytes(message), &signature).is_err());
}

/// Under a small-order key one signature holds for many messages.
#[test]
fn ed25519_refuses_weak_and_non_canonical_keys() {
    let weak = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        // The identity again, y written as p + 1.
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        // Points of large order, y written as p + 3 and p + 18: the same keys have canonical spellings.
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for key in weak {
        assert_eq!(PublicKey::from_ed25519(&bytes(key)), Err(KeyError::Weak), "{key}");
    }
    let no_point = "0200000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(PublicKey::from_ed25519(&bytes(no_point)), Err(KeyError::Malformed));
    assert_eq!(PublicKey::from_ed25519(&[1; 31]), Err(KeyError::Malformed));
}

/// The key of test 1 of RFC 8032 signed "message" with the nonce 0: R is the identity and S is the hash times the secret, so the
/// equation of the signature holds. Only strict verification refuses it.
#[test]
fn ed25519_refuses_signatures_with_a_small_order_commitment() {
    let public = bytes(RFC_8032[0].0);
    let signature = bytes(concat!(
        "0100000000000000000000000000000000000000000000000000000000000000",
        "520a2e25b0f11547a9ae2ad848ed7731c77f99f1a8712d363455d344db33ac04",
    ));
    let lax = ed25519_dalek::VerifyingKey::from_bytes(&public.clone().try_into().unwrap()).unwrap();
    let parsed = ed25519_dalek::Signature::from_slice(&signature).unwrap();
    assert!(ed25519_dalek::Verifier::verify(&lax, b"message", &parsed).is_ok());
    let key = PublicKey::from_ed25519(&public).unwrap();
    assert_eq!(key.verify(b"message", &signature), Err(SignatureError::Mismatch));
}

/// RFC 6979 A.2.5: P-256, SHA-256, message "sample". The S printed there is high.
#[test]
fn p256_follows_rfc_6979_with_low_s() {
    let private = bytes("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    let secret = p256::SecretKey::from_slice(&private).unwrap();
    use p256::pkcs8::EncodePrivateKey as _;
    let key = PrivateKey::from_pkcs8_pem(&secret.to_pkcs8_pem(Default::default()).unwrap()).unwrap();
    let signature = p256::ecdsa::Signature::from_der(&key.sign(b"sample")).unwrap();
    let printed = p256::ecdsa::Signature::from_slice(&bytes(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ))
    .unwrap();
    assert_eq!(signature, printed.normalize_s());
    assert_ne!(signature, printed);
    let public = key.public_key();
    assert_eq!(public.verify(b"sample", signature.to_der().as_bytes()), Ok(()));
    assert_eq!(public.verify(b"sample", printed.to_der().as_bytes()), Err(SignatureError::HighS));
    assert_eq!(public.verify(b"test", signature.to_der().as_bytes()), Err(SignatureError::Mismatch));
}

#[test]
fn p256_signatures_are_always_low_s_and_their_twins_refused() {
    let key = PrivateKey::generate(Algorithm::EcdsaP256);
    let public = key.public_key();
    for number in 0..64_u8 {
        let signature = key.sign(&[number]);
        assert_eq!(public.verify(&[number], &signature), Ok(()));
        let low = p256::ecdsa::Signature::from_der(&signature).unwrap();
        let high = p256::ecdsa::Signature::from_scalars(low.r(), -low.s()).unwrap();
        assert_eq!(public.verify(&[number], high.to_der().as_bytes()), Err(SignatureError::HighS));
    }
}

/// SEQUENCE { INTEGER r, INTEGER s } from raw contents.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut inside = vec![2, u8::try_from(r.len()).unwrap()];
    inside.extend(r);
    inside.extend([2, u8::try_from(s.len()).unwrap()]);
    inside.extend(s);
    [vec![0x30, u8::try_from(inside.len()).unwrap()], inside].concat()
}

#[test]
fn p256_accepts_one_der_spelling_only() {
    let key = PrivateKey::generate(Algorithm::EcdsaP256);
    let public = key.public_key();
    let good = key.sign(b"m");
    let malformed = |signature: &[u8]| {
        assert_eq!(public.verify(b"m", signature), Err(SignatureError::Malformed), "{signature:02x?}");
    };
    malformed(&[]);
    malformed(&[good.as_slice(), &[0]].concat());
    malformed(&good[..good.len() - 1]);
    let long_form = [&[0x30, 0x81, good[1]], &good[2..]].concat();
    malformed(&long_form);
    let r_length = usize::from(good[3]);
    let (r, s) = (&good[4..4 + r_length], &good[6 + r_length..]);
    assert_eq!(der(r, s), good);
    malformed(&der(&[&[0], r].concat(), s));
    malformed(&der(r, &[&[0], s].concat()));
    malformed(&der(&[0], s));
    malformed(&der(r, &[0]));
    malformed(&der(&[], s));
    malformed(&der(&[0xff; 32], s));
    let order = bytes("00ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    malformed(&der(&order, s));
    malformed(&der(r, &order));
    malformed(&der(&[0x7f; 34], s));
    let mut fixed = vec![0; 64];
    fixed[31] = 1;
    fixed[63] = 1;
    malformed(&fixed);
}

#[test]
fn p256_refuses_points_off_the_curve() {
    assert!(PublicKey::from_sec1(&[0]).is_err());
    assert!(PublicKey::from_sec1(&[&[4][..], &[1; 64]].concat()).is_err());
    assert!(PublicKey::from_sec1(&[4; 64]).is_err());
}

#[test]
fn private_keys_round_trip_through_pem_and_do_not_show_themselves() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let key = PrivateKey::generate(algorithm);
        let pem = key.to_pkcs8_pem().unwrap();
        let again = PrivateKey::from_pkcs8_pem(&pem).unwrap();
        assert_eq!((again.algorithm(), again.public_key()), (algorithm, key.public_key()));
        assert_eq!(key.public_key().verify(b"m", &again.sign(b"m")), Ok(()));
        assert_eq!(format!("{key:?}"), format!("PrivateKey({algorithm:?}, hidden)"));
    }
}

const EC_PARAMETERS: &str = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
/// Made by OpenSSL, as the two tools below write one key.
const EC_SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIDVZs3Y5C1h335GOyHFamBiNC2YsLiq/xnJCz7nyEMLFoAoGCCqGSM49\nAwEHoUQDQgAEKT/GnI4IF4K0lSwUs84ygpxVknxf3eoJg3XS9UiB1Gg6Z+DFMLw6\nl2mihuujJQM0MLV/YvYAmh2pQQPRLavL8w==\n-----END EC PRIVATE KEY-----\n";
const EC_PKCS8: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgNVmzdjkLWHffkY7I\ncVqYGI0LZiwuKr/GckLPufIQwsWhRANCAAQpP8acjggXgrSVLBSzzjKCnFWSfF/d\n6gmDddL1SIHUaDpn4MUwvDqXaaKG66MlAzQwtX9i9gCaHalBA9Etq8vz\n-----END PRIVATE KEY-----\n";
const EC_POINT: &str = "04293fc69c8e081782b4952c14b3ce32829c55927c5fddea098375d2f54881d4683a67e0c530bc3a9769a286eba325033430b57f62f6009a1da94103d12dabcbf3";

/// `openssl ecparam -name prime256v1 -genkey` writes the parameters before the key; `openssl pkcs8 -topk8` without.
#[test]
fn loads_openssl_and_go_keys() {
    for pem in [EC_SEC1.to_owned(), format!("{EC_PARAMETERS}{EC_SEC1}"), EC_PKCS8.to_owned()] {
        let key = PrivateKey::from_pkcs8_pem(&pem).unwrap();
        assert_eq!(hex::encode(key.public_key().to_bytes()), EC_POINT);
        let windows = PrivateKey::from_pkcs8_pem(&pem.replace('\n', "\r\n")).unwrap();
        assert_eq!(windows.public_key(), key.public_key());
    }
    assert_eq!(
        PrivateKey::from_pkcs8_pem(EC_PARAMETERS).unwrap_err(),
        KeyError::Label("EC PARAMETERS".to_owned()),
        "parameters alone are no key"
    );
    // Ed25519 PKCS#8 of RFC 8410 10.3, version 1 and version 2.
    for pem in [
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\noB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\nZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PRIVATE KEY-----\n",
    ] {
        let key = PrivateKey::from_pkcs8_pem(pem).unwrap();
        let expected = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        assert_eq!(hex::encode(key.public_key().to_bytes()), expected);
    }
}

#[test]
fn refuses_what_is_no_private_key_and_says_what_is_expected() {
    let error = |text: &str| PrivateKey::from_pkcs8_pem(text).unwrap_err();
    assert!(error("").to_string().contains("PRIVATE KEY"));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(error(encrypted).to_string().contains("decrypted"));
    let headers = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,EF5B\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    assert!(error(headers).to_string().contains("decrypted"));
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(error(garbage), KeyError::Malformed);
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_verifies(message: Vec<u8>, signature: Vec<u8>) {
        for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
            let key = PrivateKey::generate(algorithm).public_key();
            prop_assert!(key.verify(&message, &signature).is_err());
        }
    }

    #[test]
    fn a_changed_bit_never_verifies(message: Vec<u8>, position: prop::sample::Index, bit in 0_u8..8) {
        for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
            let key = PrivateKey::generate(algorithm);
            let mut signature = key.sign(&message);
            let position = position.index(signature.len());
            signature[position] ^= 1 << bit;
            prop_assert!(key.public_key().verify(&message, &signature).is_err());
        }
    }

    #[test]
    fn keys_of_garbage_never_panic(bytes: Vec<u8>, text: String) {
        let _ = PublicKey::from_ed25519(&bytes);
        let _ = PublicKey::from_sec1(&bytes);
        let _ = PrivateKey::from_pkcs8_pem(&text);
        let wrapped = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let _ = PrivateKey::from_pkcs8_pem(&wrapped);
    }
}

proptest! {
    /// The fast verifier against the one it replaced: right, wrong and malformed signatures, messages of any length.
    #[test]
    fn p256_verifies_exactly_what_the_reference_does(
        seed in 1_u64..,
        message in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 0..3),
        high in any::<bool>(),
    ) {
        use p256::ecdsa::signature::{Signer as _, Verifier as _};
        let mut scalar = [7_u8; 32];
        scalar[..8].copy_from_slice(&seed.to_be_bytes());
        scalar[0] &= 0x7f;
        let key = p256::ecdsa::SigningKey::from_slice(&scalar).unwrap();
        let public = PublicKey::from_sec1(key.verifying_key().to_sec1_point(true).as_bytes()).unwrap();
        let low = { let signature: p256::ecdsa::Signature = key.sign(&message); signature.normalize_s() };
        let signature = if high {
            p256::ecdsa::Signature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap()
        } else {
            low
        };
        let mut encoded = signature.to_der().as_bytes().to_vec();
        for (place, bit) in flips {
            let place = place.index(encoded.len());
            encoded[place] ^= 1 << bit;
        }
        let reference = p256::ecdsa::Signature::from_der(&encoded).is_ok_and(|parsed| {
            parsed.to_der().as_bytes() == encoded
                && parsed.normalize_s() == parsed
                && key.verifying_key().verify(&message, &parsed).is_ok()
        });
        prop_assert_eq!(public.verify(&message, &encoded).is_ok(), reference);
    }
}
