//! Who somebody claims to be.

use grapevine_crypto::{Certificate, Identity, Role, proto};
use prost::Message as _;
use serde::Serialize;

use super::printable;
use crate::config::ChannelConfig;

/// A marshalled identity, as far as it can be made out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IdentityDescription {
    /// The organisation it names.
    pub msp_id: String,
    /// Subject common name of its certificate; empty if there is none.
    pub common_name: String,
    /// `client`, `peer`, `admin` or `orderer`: as the organisation's MSP says if the config is known, else as the
    /// certificate's organisational units claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Why it is not a member of the channel, or cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl IdentityDescription {
    /// Describes `serialized`; checks membership too if `config` is given.
    pub(super) fn new(serialized: &[u8], config: Option<&ChannelConfig>) -> Self {
        // That of a genesis block: nobody.
        if serialized.is_empty() {
            return Self::default();
        }
        match config.map(|config| config.identify(serialized)) {
            Some(Ok(identity)) => Self::of_member(&identity),
            Some(Err(error)) => {
                Self { problem: Some(printable(&error.to_string())), ..Self::claimed(serialized) }
            }
            None => Self::claimed(serialized),
        }
    }

    fn of_member(identity: &Identity) -> Self {
        Self {
            msp_id: printable(identity.msp_id().as_str()),
            common_name: printable(identity.certificate().subject_common_name().unwrap_or_default()),
            role: identity.role().map(|role| role.to_string()),
            problem: None,
        }
    }

    /// What it says without anybody vouching for it.
    fn claimed(serialized: &[u8]) -> Self {
        let Ok(identity) = proto::SerializedIdentity::decode(serialized) else {
            return Self { problem: Some("not an identity".to_owned()), ..Self::default() };
        };
        let msp_id = printable(&identity.mspid);
        match Certificate::from_pem(&identity.id_bytes) {
            Ok(certificate) => Self {
                msp_id,
                common_name: printable(certificate.subject_common_name().unwrap_or_default()),
                role: claimed_role(&certificate).map(|role| role.to_string()),
                problem: None,
            },
            Err(error) => Self { msp_id, problem: Some(printable(&error.to_string())), ..Self::default() },
        }
    }
}

fn claimed_role(certificate: &Certificate) -> Option<Role> {
    let units = certificate.organizational_units();
    Role::ALL.into_iter().find(|role| units.iter().any(|unit| unit == role.organizational_unit()))
}
