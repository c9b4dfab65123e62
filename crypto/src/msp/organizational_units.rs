//! Organisational units: those an MSP demands of every member, and NodeOUs that tell roles.
//!
//! Fabric's rules (`validateIdentityOUs`): if identifiers are configured, a member needs one of them, certified by the
//! CA chain configured with it. With NodeOUs on, of the units that tell roles a member has exactly one; a repeated unit
//! counts twice. NodeOUs without any identifier count as off.

use crate::certificate::Certificate;
use crate::digest::Digest;
use crate::identity::IdentityError;
use crate::names::MspId;
use crate::proto;
use crate::role::Role;

use super::authorities::{Authorities, certifiers_identifier};
use super::error::MspError;

/// The organisational units of an MSP.
#[derive(Debug, Default)]
pub(super) struct OrganizationalUnits {
    demanded: Vec<(String, Digest)>,
    roles: Vec<RoleUnit>,
}

#[derive(Debug)]
struct RoleUnit {
    role: Role,
    unit: String,
    certifier: Option<Digest>,
}

impl OrganizationalUnits {
    pub(super) fn new(
        id: &MspId,
        config: &proto::FabricMspConfig,
        authorities: &Authorities,
    ) -> Result<Self, MspError> {
        let mut units = Self::default();
        for identifier in &config.organizational_unit_identifiers {
            let certifier = certifier(id, identifier, authorities)?;
            units.demanded.push((identifier.organizational_unit_identifier.clone(), certifier));
        }
        let Some(nodes) = config.fabric_node_ous.as_ref().filter(|nodes| nodes.enable) else {
            return Ok(units);
        };
        let configured = [
            (Role::Client, &nodes.client_ou_identifier),
            (Role::Peer, &nodes.peer_ou_identifier),
            (Role::Admin, &nodes.admin_ou_identifier),
            (Role::Orderer, &nodes.orderer_ou_identifier),
        ];
        for (role, identifier) in configured {
            let Some(identifier) = identifier else { continue };
            let unit = identifier.organizational_unit_identifier.clone();
            if unit.is_empty() {
                return Err(MspError::EmptyOrganizationalUnit(id.clone()));
            }
            if units.roles.iter().any(|other| other.unit == unit) {
                return Err(MspError::SharedOrganizationalUnit { unit, msp: id.clone() });
            }
            let certifier = if identifier.certificate.is_empty() {
                None
            } else {
                Some(certifier(id, identifier, authorities)?)
            };
            units.roles.push(RoleUnit { role, unit, certifier });
        }
        Ok(units)
    }

    /// Whether NodeOUs are on and tell this role.
    pub(super) fn tells(&self, role: Role) -> bool {
        self.roles.iter().any(|unit| unit.role == role)
    }

    /// Checks the units of a certificate that this CA chain certified; gives the role if NodeOUs are on.
    pub(super) fn check(
        &self,
        id: &MspId,
        units: &[String],
        certifiers_identifier: Digest,
    ) -> Result<Option<Role>, IdentityError> {
        let demanded = |unit: &String| {
            self.demanded.iter().any(|(name, certifier)| name == unit && *certifier == certifiers_identifier)
        };
        if !self.demanded.is_empty() && !units.iter().any(demanded) {
            return Err(IdentityError::OrganizationalUnitMissing(id.clone()));
        }
        if self.roles.is_empty() {
            return Ok(None);
        }
        let mut found = None;
        for unit in units {
            let Some(told) = self.roles.iter().find(|told| told.unit == *unit) else { continue };
            if told.certifier.is_some_and(|certifier| certifier != certifiers_identifier) {
                return Err(IdentityError::WrongCertifier(unit.clone()));
            }
            if found.replace(told.role).is_some() {
                return Err(IdentityError::SeveralRoles);
            }
        }
        found.map(Some).ok_or(IdentityError::RoleMissing)
    }
}

/// The certifiers identifier of the configured CA: the digest of the chain from it to its root.
fn certifier(
    id: &MspId,
    identifier: &proto::FabricOuIdentifier,
    authorities: &Authorities,
) -> Result<Digest, MspError> {
    let unit = &identifier.organizational_unit_identifier;
    if unit.is_empty() {
        return Err(MspError::EmptyOrganizationalUnit(id.clone()));
    }
    let unknown = || MspError::UnknownCertifier { unit: unit.clone(), msp: id.clone() };
    let certificate = Certificate::from_configured_pem(&identifier.certificate).map_err(|_| unknown())?;
    if !authorities.all().any(|authority| *authority == certificate) {
        return Err(unknown());
    }
    let above = authorities.chain_above(&certificate).map_err(|_| unknown())?;
    let chain: Vec<Certificate> = std::iter::once(certificate).chain(above).collect();
    Ok(certifiers_identifier(&chain))
}
