//! Organisations: their MSPs, anchor peers and orderer endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use grapevine_crypto::{Msp, MspId, proto};
use prost::Message as _;

use super::ConfigError;
use super::tree::{APPLICATION, ORDERER, ROOT, group, optional_value, value};
use super::values::Values;
use crate::proto::configtx::{ConfigGroup, OrdererAddresses};
use crate::proto::peer::AnchorPeers;

/// Type of an X.509 MSP in `msp.MSPConfig`.
const MSP_TYPE_X509: i32 = 0;

/// An organisation of a channel.
#[derive(Debug, Clone)]
pub struct OrgConfig {
    /// Name of its group in the config.
    pub name: String,
    /// Who its members are.
    pub msp: Arc<Msp>,
    /// Peers that other organisations may contact first. Empty for orderer organisations.
    pub anchor_peers: Vec<Endpoint>,
}

/// A TCP address, the host being a name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port, not 0.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// Where an orderer listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdererEndpoint {
    /// `host:port` as in the config.
    pub address: String,
    /// Whose it is. For a global address of a channel before `V3_0`, the first orderer organisation.
    pub org: MspId,
    /// TLS root certificates to expect there, PEM. For a global address, those of all orderer organisations.
    pub tls_roots: Vec<Vec<u8>>,
}

/// Where orderer addresses stand.
#[derive(Debug)]
pub(super) enum OrdererAddressSource {
    /// With every organisation.
    Organizations,
    /// With organisations, or else here.
    OrganizationsOrGlobal(Vec<String>),
}

#[derive(Debug)]
pub(super) struct Organizations {
    pub(super) application: BTreeMap<MspId, OrgConfig>,
    pub(super) orderer: BTreeMap<MspId, OrgConfig>,
    pub(super) orderer_endpoints: Vec<OrdererEndpoint>,
    /// MSPs of both.
    pub(super) msps: BTreeMap<MspId, Arc<Msp>>,
}

/// MSPs set up so far, with what they were set up from.
type KnownMsps = BTreeMap<MspId, (proto::FabricMspConfig, Arc<Msp>)>;

pub(super) fn parse(root: &ConfigGroup, values: &Values) -> Result<Organizations, ConfigError> {
    let mut known = KnownMsps::new();
    let orderer_group = group(ROOT, root, ORDERER)?;
    let orderer_path = format!("{ROOT}/{ORDERER}");
    let orderer = organizations(&orderer_path, orderer_group, &mut known)?;
    let application_path = format!("{ROOT}/{APPLICATION}");
    let application = organizations(&application_path, group(ROOT, root, APPLICATION)?, &mut known)?;
    let orderer_endpoints = orderer_endpoints(&orderer_path, orderer_group, &orderer, values)?;
    let msps = known.into_iter().map(|(msp_id, (_, msp))| (msp_id, msp)).collect();
    Ok(Organizations { application, orderer, orderer_endpoints, msps })
}

fn organizations(
    path: &str,
    parent: &ConfigGroup,
    known: &mut KnownMsps,
) -> Result<BTreeMap<MspId, OrgConfig>, ConfigError> {
    let mut organizations = BTreeMap::new();
    for (name, group) in &parent.groups {
        let path = format!("{path}/{name}");
        let msp = msp(&path, group, known)?;
        let anchor_peers: AnchorPeers = optional_value(&path, group, "AnchorPeers")?.unwrap_or_default();
        let anchor_peers = anchor_peers.anchor_peers.into_iter().filter_map(|anchor| {
            let port = u16::try_from(anchor.port).ok().filter(|port| *port != 0)?;
            (!anchor.host.is_empty()).then_some(Endpoint { host: anchor.host, port })
        });
        let msp_id = msp.id().clone();
        let organization = OrgConfig { name: name.clone(), msp, anchor_peers: anchor_peers.collect() };
        if organizations.insert(msp_id.clone(), organization).is_some() {
            return Err(ConfigError::MspConflict { path, msp_id });
        }
    }
    Ok(organizations)
}

/// The MSP of an organisation. One MSP ID in both Orderer and Application must have the same definition in both.
fn msp(path: &str, group: &ConfigGroup, known: &mut KnownMsps) -> Result<Arc<Msp>, ConfigError> {
    let config: proto::MspConfig = value(path, group, "MSP")?;
    let path = format!("{path}/MSP");
    if config.r#type != MSP_TYPE_X509 {
        let reason = format!("MSP type {} is not supported, only X.509 (0)", config.r#type);
        return Err(ConfigError::Value { path, reason });
    }
    let config = match proto::FabricMspConfig::decode(config.config.as_slice()) {
        Ok(config) => config,
        Err(source) => return Err(ConfigError::Decode { path, source }),
    };
    let msp_id = MspId::from(config.name.as_str());
    match known.get(&msp_id) {
        Some((other, msp)) if *other == config => Ok(Arc::clone(msp)),
        Some(_) => Err(ConfigError::MspConflict { path, msp_id }),
        None => match Msp::from_config(&config) {
            Ok(msp) => {
                let msp = Arc::new(msp);
                known.insert(msp_id, (config, Arc::clone(&msp)));
                Ok(msp)
            }
            Err(source) => Err(ConfigError::Msp { path, source }),
        },
    }
}

fn orderer_endpoints(
    path: &str,
    parent: &ConfigGroup,
    organizations: &BTreeMap<MspId, OrgConfig>,
    values: &Values,
) -> Result<Vec<OrdererEndpoint>, ConfigError> {
    let mut endpoints = Vec::new();
    for (org, organization) in organizations {
        let path = format!("{path}/{}", organization.name);
        let Some(group) = parent.groups.get(&organization.name) else { continue };
        let own: OrdererAddresses = optional_value(&path, group, "Endpoints")?.unwrap_or_default();
        if own.addresses.is_empty() && matches!(values.addresses, OrdererAddressSource::Organizations) {
            let reason = "the capability V3_0 requires orderer endpoints for every orderer organisation";
            return Err(ConfigError::Value { path: format!("{path}/Endpoints"), reason: reason.to_owned() });
        }
        let tls_roots = organization.msp.tls_root_certificates();
        endpoints.extend(own.addresses.into_iter().map(|address| OrdererEndpoint {
            address,
            org: org.clone(),
            tls_roots: tls_roots.clone(),
        }));
    }
    if let (true, OrdererAddressSource::OrganizationsOrGlobal(global), Some(org)) =
        (endpoints.is_empty(), &values.addresses, organizations.keys().next())
    {
        let tls_roots: Vec<Vec<u8>> = organizations
            .values()
            .flat_map(|organization| organization.msp.tls_root_certificates())
            .collect();
        endpoints.extend(global.iter().map(|address| OrdererEndpoint {
            address: address.clone(),
            org: org.clone(),
            tls_roots: tls_roots.clone(),
        }));
    }
    Ok(endpoints)
}
