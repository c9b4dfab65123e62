//! Names of organisations and members.
//!
//! An [`MspId`] names an organisation; a [`PkiId`] names one member of it. A PKI-ID is derived from the MSP ID and the
//! subject's common name, not from the certificate, so renewing a certificate does not change who a member is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, sha256_of};

/// The identifier of a membership service provider, such as `Org1MSP`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MspId(String);

impl MspId {
    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MspId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<&str> for MspId {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl From<String> for MspId {
    fn from(name: String) -> Self {
        Self(name)
    }
}

/// Who a member is across certificate renewals: a digest of MSP ID and subject common name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PkiId(pub Digest);

/// Keeps PKI-IDs apart from every other SHA-256 in the system; the number changes if the derivation does.
const PKI_ID_TAG: &[u8] = b"grapevine/pki-id/1";

impl PkiId {
    /// SHA-256(tag ‖ u32 big-endian length ‖ MSP ID ‖ u32 big-endian length ‖ common name).
    ///
    /// The lengths make the encoding injective: no other pair of MSP ID and common name hashes the same bytes.
    #[must_use]
    pub fn new(msp_id: &MspId, common_name: &str) -> Self {
        let msp_id = msp_id.as_str().as_bytes();
        let common_name = common_name.as_bytes();
        Self(sha256_of([PKI_ID_TAG, &length(msp_id), msp_id, &length(common_name), common_name]))
    }

    /// The first eight hexadecimal characters, for logs.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Names come from certificates and configuration of bounded size, far below 4 GiB.
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

impl fmt::Display for PkiId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for PkiId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    #[test]
    fn pki_id_is_the_documented_hash() {
        let mut bytes = b"grapevine/pki-id/1".to_vec();
        bytes.extend([0, 0, 0, 7]);
        bytes.extend(b"Org1MSP");
        bytes.extend([0, 0, 0, 5]);
        bytes.extend(b"peer0");
        let id = PkiId::new(&"Org1MSP".into(), "peer0");
        assert_eq!(id.0, sha256(&bytes));
        assert_eq!(id.short(), id.to_string()[..8]);
    }

    #[test]
    fn moving_a_character_between_the_fields_changes_the_id() {
        assert_ne!(PkiId::new(&"Org1".into(), "peer0"), PkiId::new(&"Org1p".into(), "eer0"));
        assert_ne!(PkiId::new(&"".into(), "a"), PkiId::new(&"a".into(), ""));
    }
}
