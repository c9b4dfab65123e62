//! MSP principals: the conditions on identities of which policies are made (Fabric's `SatisfiesPrincipal`).

use prost::Message as _;

use crate::certificate::Certificate;
use crate::identity::Identity;
use crate::proto::{self, MspRoleType, PrincipalClassification};
use crate::role::Role;

use super::Msp;

/// Combined principals may hold combined principals; deeper nesting than this satisfies nothing.
const COMBINED_DEPTH_MAX: usize = 4;

impl Msp {
    /// Whether a member of this MSP satisfies a principal.
    ///
    /// The identity is validated again under this MSP (usually from the cache), so that one validated under another
    /// version of the organisation's configuration does not pass. Malformed and unknown principals satisfy nobody.
    #[must_use]
    pub fn satisfies(&self, identity: &Identity, principal: &proto::MspPrincipal) -> bool {
        self.identify(identity.serialized()).is_ok_and(|member| self.holds(&member, principal, 0))
    }

    fn holds(&self, member: &Identity, principal: &proto::MspPrincipal, depth: usize) -> bool {
        let bytes = principal.principal.as_slice();
        match PrincipalClassification::try_from(principal.principal_classification) {
            Ok(PrincipalClassification::Role) => self.holds_role(member, bytes),
            Ok(PrincipalClassification::OrganizationUnit) => self.holds_unit(member, bytes),
            Ok(PrincipalClassification::Identity) => self.is_identity(member, bytes),
            Ok(PrincipalClassification::Anonymity) => {
                proto::MspIdentityAnonymity::decode(bytes).is_ok_and(|wanted| wanted.anonymity_type == 0)
            }
            Ok(PrincipalClassification::Combined) if depth < COMBINED_DEPTH_MAX => {
                proto::CombinedPrincipal::decode(bytes).is_ok_and(|combined| {
                    !combined.principals.is_empty()
                        && combined
                            .principals
                            .iter()
                            .all(|part| self.holds(member, part, depth.saturating_add(1)))
                })
            }
            Ok(PrincipalClassification::Combined) | Err(_) => false,
        }
    }

    fn holds_role(&self, member: &Identity, bytes: &[u8]) -> bool {
        let Ok(wanted) = proto::MspRole::decode(bytes) else { return false };
        if wanted.msp_identifier != self.id().as_str() {
            return false;
        }
        match MspRoleType::try_from(wanted.role) {
            Ok(MspRoleType::Member) => true,
            Ok(MspRoleType::Admin) => member.is_admin(),
            Ok(MspRoleType::Client) => member.role() == Some(Role::Client),
            Ok(MspRoleType::Peer) => member.role() == Some(Role::Peer),
            Ok(MspRoleType::Orderer) => member.role() == Some(Role::Orderer),
            Err(_) => false,
        }
    }

    fn holds_unit(&self, member: &Identity, bytes: &[u8]) -> bool {
        let Ok(wanted) = proto::OrganizationUnit::decode(bytes) else { return false };
        wanted.msp_identifier == self.id().as_str()
            && wanted.certifiers_identifier == member.certifiers_identifier().as_ref()
            && member.certificate().organizational_units().contains(&wanted.organizational_unit_identifier)
    }

    fn is_identity(&self, member: &Identity, bytes: &[u8]) -> bool {
        let Ok(wanted) = proto::SerializedIdentity::decode(bytes) else { return false };
        wanted.mspid == self.id().as_str()
            && Certificate::from_configured_pem(&wanted.id_bytes)
                .is_ok_and(|certificate| certificate == *member.certificate())
    }
}
