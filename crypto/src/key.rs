//! Signature keys: Ed25519 (RFC 8032) and ECDSA over P-256 (FIPS 186-4).
//!
//! Promises, and the attacks they resist:
//! - **One signature, one spelling.** Ed25519 uses strict verification (canonical `s`, no small-order points); ECDSA
//!   signatures must be canonical DER with low `s`, as Fabric demands, so that nobody can turn a valid signature into
//!   another valid one.
//! - **No weak keys.** Small-order and non-canonical Ed25519 keys are refused when a key is made, so that no signature
//!   verifies for several messages.
//! - **Fabric's conventions.** Ed25519 signs the raw message; ECDSA signs its SHA-256.
//! - **Total.** Malformed keys and signatures of any length are errors, never panics.
//!
//! Signatures of a CA inside certificates follow [`PublicKey::verify_certificate`], which accepts high `s`.
//!
//! **Speed.** Verification of ECDSA is what a peer does most, so AWS-LC does it: several times as fast as `p256`, and in
//! every peer anyhow for TLS. `p256` parses keys and signatures, decides about DER and low `s` before AWS-LC sees
//! anything, signs, and verifies certificates, of which there are few. A property test holds the two against each other.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};

use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::{self, EncodePrivateKey as _, PrivateKeyInfoRef};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::elliptic_curve::scalar::IsHigh as _;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::digest::{Digest, sha256};
use crate::pem::{self, PemError};

/// Signature algorithms of identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 over the raw message.
    Ed25519,
    /// ECDSA over P-256 with SHA-256, low-S DER signatures.
    EcdsaP256,
}

/// A signature that does not hold, or is spelled in a form that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not 64 bytes (Ed25519) or not canonical DER (ECDSA).
    #[error("the signature is malformed")]
    Malformed,
    /// The other of two equivalent ECDSA signatures; Fabric accepts only low S.
    #[error("the ECDSA signature has a high S value; sign with low S as Fabric requires")]
    HighS,
    /// The signature is not one of this key over this message.
    #[error("the signature does not match the message and the key")]
    Mismatch,
    /// A certificate claims a signature algorithm that its issuer's key cannot have made.
    #[error("the signature algorithm does not fit the issuer's key")]
    WrongAlgorithm,
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a PEM block.
    #[error("the key is not PEM: {0}; expected a PKCS#8 \"PRIVATE KEY\" or a SEC1 \"EC PRIVATE KEY\"")]
    Pem(#[from] PemError),
    /// A PEM block of another kind.
    #[error(
        "expected a PEM block \"PRIVATE KEY\" or \"EC PRIVATE KEY\", found \"{0}\"; encrypted keys must be decrypted first"
    )]
    Label(String),
    /// The encoding is broken, or the algorithm is another one.
    #[error(
        "the key is malformed or of an unsupported algorithm; supported are Ed25519 and ECDSA over P-256"
    )]
    Malformed,
    /// A small-order or non-canonical Ed25519 key.
    #[error(
        "the Ed25519 public key is weak: signatures would verify for more than one message; issue a new key"
    )]
    Weak,
}

/// A public key that verifies signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(PublicKeyKind);

#[derive(Clone, PartialEq, Eq)]
enum PublicKeyKind {
    Ed25519(ed25519_dalek::VerifyingKey),
    EcdsaP256(EcdsaKey),
}

/// One key in the forms of both libraries.
#[derive(Clone)]
struct EcdsaKey {
    key: p256::ecdsa::VerifyingKey,
    fast: Arc<ParsedPublicKey>,
}

impl EcdsaKey {
    fn new(key: p256::ecdsa::VerifyingKey) -> Result<Self, KeyError> {
        let point = key.to_sec1_point(false);
        let fast = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.as_bytes());
        Ok(Self { key, fast: Arc::new(fast.map_err(|_| KeyError::Malformed)?) })
    }

    /// Canonical DER and low S, then the signature itself.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let parsed = parse_ecdsa(signature)?;
        if bool::from(parsed.s().is_high()) {
            return Err(SignatureError::HighS);
        }
        self.fast.verify_sig(message, signature).map_err(|_| SignatureError::Mismatch)
    }
}

impl PartialEq for EcdsaKey {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for EcdsaKey {}

/// How a certificate or revocation list was signed (RFC 5758, RFC 8410).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateSignatureAlgorithm {
    Ed25519,
    EcdsaSha256,
    EcdsaSha384,
    EcdsaSha512,
    /// Known to be something else, such as RSA; never verifies.
    Unsupported,
}

impl PublicKey {
    /// An Ed25519 key from its 32 bytes; weak and non-canonical keys are refused.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] for another length or no curve point, [`KeyError::Weak`] for small-order points and
    /// encodings that are not canonical.
    pub fn from_ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| KeyError::Malformed)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Malformed)?;
        // Decompression tolerates y ≥ p; one point must not have two encodings, hence two key identifiers.
        let canonical = key.to_edwards().compress().to_bytes() == *bytes;
        if key.is_weak() || !canonical { Err(KeyError::Weak) } else { Ok(Self(PublicKeyKind::Ed25519(key))) }
    }

    /// A P-256 key from its SEC1 encoding (compressed or uncompressed).
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if the bytes are not a point of the curve other than infinity.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| KeyError::Malformed)?;
        EcdsaKey::new(key).map(|key| Self(PublicKeyKind::EcdsaP256(key)))
    }

    /// Which algorithm this key is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            PublicKeyKind::Ed25519(_) => Algorithm::Ed25519,
            PublicKeyKind::EcdsaP256(_) => Algorithm::EcdsaP256,
        }
    }

    /// The key's bytes: 32 bytes (Ed25519) or the uncompressed SEC1 point (P-256).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            PublicKeyKind::Ed25519(key) => key.as_bytes().to_vec(),
            PublicKeyKind::EcdsaP256(key) => key.key.to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    /// SHA-256 of [`Self::to_bytes`]: Fabric's SKI, the name of the private key's file in a keystore.
    #[must_use]
    pub fn key_id(&self) -> Digest {
        sha256(&self.to_bytes())
    }

    /// Verifies a signature over a message.
    ///
    /// # Errors
    /// [`SignatureError`] unless `signature` is the canonical encoding of a valid, low-S signature.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        match &self.0 {
            PublicKeyKind::Ed25519(key) => verify_ed25519(key, message, signature),
            PublicKeyKind::EcdsaP256(key) => key.verify(message, signature),
        }
    }

    /// Verifies the signature of a certificate or revocation list over its raw to-be-signed bytes.
    ///
    /// High S is accepted here and only here: Go's X.509 library, and so `cryptogen`, signs certificates without
    /// normalising S, and Fabric sanitises such certificates instead of refusing them. Two spellings of one certificate
    /// do not become two identities because [`crate::Certificate::fingerprint`] is taken over the low-S form.
    pub(crate) fn verify_certificate(
        &self,
        algorithm: CertificateSignatureAlgorithm,
        to_be_signed: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        use CertificateSignatureAlgorithm as Kind;
        let (key, hash) = match (&self.0, algorithm) {
            (PublicKeyKind::Ed25519(key), Kind::Ed25519) => {
                return verify_ed25519(key, to_be_signed, signature);
            }
            (PublicKeyKind::EcdsaP256(key), Kind::EcdsaSha256) => {
                (&key.key, Sha256::digest(to_be_signed).to_vec())
            }
            (PublicKeyKind::EcdsaP256(key), Kind::EcdsaSha384) => {
                (&key.key, Sha384::digest(to_be_signed).to_vec())
            }
            (PublicKeyKind::EcdsaP256(key), Kind::EcdsaSha512) => {
                (&key.key, Sha512::digest(to_be_signed).to_vec())
            }
            _ => return Err(SignatureError::WrongAlgorithm),
        };
        let signature = parse_ecdsa(signature)?;
        key.verify_prehash(&hash, &signature).map_err(|_| SignatureError::Mismatch)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({:?}, {})", self.algorithm(), hex::encode(self.to_bytes()))
    }
}

/// The DER of an ECDSA signature with S made low; `None` if it is not a P-256 signature in canonical DER.
pub(crate) fn ecdsa_with_low_s(signature: &[u8]) -> Option<Vec<u8>> {
    let signature = parse_ecdsa(signature).ok()?;
    Some(signature.normalize_s().to_der().as_bytes().to_vec())
}

fn verify_ed25519(
    key: &ed25519_dalek::VerifyingKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| SignatureError::Malformed)?;
    key.verify_strict(message, &signature).map_err(|_| SignatureError::Mismatch)
}

/// Parses canonical DER; the re-encoding must be equal, so that there is exactly one spelling of (r, s).
fn parse_ecdsa(signature: &[u8]) -> Result<p256::ecdsa::Signature, SignatureError> {
    let parsed = p256::ecdsa::Signature::from_der(signature).map_err(|_| SignatureError::Malformed)?;
    if parsed.to_der().as_bytes() == signature { Ok(parsed) } else { Err(SignatureError::Malformed) }
}

/// A private key. Erased from memory when dropped; never shown by `Debug`.
#[derive(Clone)]
pub struct PrivateKey(PrivateKeyKind);

#[derive(Clone)]
enum PrivateKeyKind {
    Ed25519(ed25519_dalek::SigningKey),
    EcdsaP256 { key: p256::ecdsa::SigningKey, public: EcdsaKey },
}

impl PrivateKey {
    /// A new key from a generator seeded by the operating system.
    #[must_use]
    pub fn generate(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Ed25519 => {
                let seed: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
                Self(PrivateKeyKind::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed)))
            }
            // A random 32-byte string is a valid scalar except with probability 2^-32 (P-256's order is just below 2^256).
            Algorithm::EcdsaP256 => loop {
                let seed: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
                let key = p256::ecdsa::SigningKey::from_slice(seed.as_slice());
                if let Some(key) = key.ok().and_then(|key| Self::from_ecdsa(key).ok()) {
                    return key;
                }
            },
        }
    }

    /// A key from PKCS#8 PEM ("PRIVATE KEY", Ed25519 or P-256) or SEC1 PEM ("EC PRIVATE KEY", P-256). A block
    /// "EC PARAMETERS" before it, as `openssl ecparam -genkey` writes it, is ignored: the key itself names its curve.
    ///
    /// # Errors
    /// [`KeyError`] if it is neither, encrypted, or of another algorithm.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
        if text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Label("EC PRIVATE KEY, encrypted".to_owned()));
        }
        let block = pem::first_block_after(text.as_bytes(), pem::PEM_BYTES_MAX, "EC PARAMETERS")?;
        let contents = Zeroizing::new(block.contents);
        match block.label {
            "PRIVATE KEY" => Self::from_pkcs8_der(&contents),
            "EC PRIVATE KEY" => {
                let key = p256::SecretKey::from_sec1_der(&contents).map_err(|_| KeyError::Malformed)?;
                Self::from_ecdsa(key.into())
            }
            label => Err(KeyError::Label(label.to_owned())),
        }
    }

    fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let information = PrivateKeyInfoRef::try_from(der).map_err(|_| KeyError::Malformed)?;
        if let Ok(key) = ed25519_dalek::SigningKey::try_from(information.clone()) {
            return Ok(Self(PrivateKeyKind::Ed25519(key)));
        }
        Self::from_ecdsa(p256::ecdsa::SigningKey::try_from(information).map_err(|_| KeyError::Malformed)?)
    }

    fn from_ecdsa(key: p256::ecdsa::SigningKey) -> Result<Self, KeyError> {
        let public = EcdsaKey::new(*key.verifying_key())?;
        Ok(Self(PrivateKeyKind::EcdsaP256 { key, public }))
    }

    /// The key as PKCS#8 PEM, erased from memory when dropped.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if the encoder fails, which it does not for keys made by this module.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let encoded = match &self.0 {
            // Version 1 of the format, without the public key: OpenSSL before 3.x and Go refuse or ignore version 2.
            PrivateKeyKind::Ed25519(key) => {
                let bytes =
                    ed25519_dalek::pkcs8::KeypairBytes { secret_key: key.to_bytes(), public_key: None };
                bytes.to_pkcs8_pem(pkcs8::spki::der::pem::LineEnding::LF)
            }
            PrivateKeyKind::EcdsaP256 { key, .. } => key.to_pkcs8_pem(pkcs8::spki::der::pem::LineEnding::LF),
        };
        encoded.map_err(|_| KeyError::Malformed)
    }

    /// Which algorithm this key is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            PrivateKeyKind::Ed25519(_) => Algorithm::Ed25519,
            PrivateKeyKind::EcdsaP256 { .. } => Algorithm::EcdsaP256,
        }
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(match &self.0 {
            PrivateKeyKind::Ed25519(key) => PublicKeyKind::Ed25519(key.verifying_key()),
            PrivateKeyKind::EcdsaP256 { public, .. } => PublicKeyKind::EcdsaP256(public.clone()),
        })
    }

    /// Signs a message. Deterministic: RFC 8032 for Ed25519, RFC 6979 with low S for ECDSA.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            PrivateKeyKind::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            PrivateKeyKind::EcdsaP256 { key, .. } => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.normalize_s().to_der().as_bytes().to_vec()
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PrivateKey({:?}, hidden)", self.algorithm())
    }
}
