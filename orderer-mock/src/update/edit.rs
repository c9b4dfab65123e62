//! What can be changed in a config tree. Pure: trees in, trees out.

use grapevine_channels::config::Endpoint;
use grapevine_channels::genesis::{ApplicationOrg, application_org_group};
use grapevine_channels::proto::configtx::{ConfigGroup, ConfigValue, OrdererAddresses};
use grapevine_channels::proto::orderer::BatchSize;
use grapevine_channels::proto::peer::{AnchorPeer, AnchorPeers};
use grapevine_crypto::MspId;
use grapevine_crypto::proto::{FabricMspConfig, MspConfig};
use prost::Message;

const APPLICATION: &str = "Application";
const ORDERER: &str = "Orderer";
const MSP: &str = "MSP";
const BATCH_SIZE: &str = "BatchSize";
const ANCHOR_PEERS: &str = "AnchorPeers";
const ENDPOINTS: &str = "Endpoints";
/// The policy by which configtxgen's values are changed.
const ADMINS: &str = "Admins";

/// One change. Organisations are named by MSP ID.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Replaces the anchor peers of an application organisation; none removes them.
    AnchorPeers {
        /// The organisation.
        organization: MspId,
        /// All its anchor peers.
        anchors: Vec<Endpoint>,
    },
    /// Replaces the addresses of an ordering organisation's orderers.
    OrdererEndpoints {
        /// The organisation.
        organization: MspId,
        /// All its addresses.
        endpoints: Vec<Endpoint>,
    },
    /// Removes an application organisation.
    RemoveOrganization(MspId),
    /// Adds an application organisation with configtxgen's sample policies; its group is named like its MSP.
    AddOrganization(Box<FabricMspConfig>),
    /// Most transactions in a block.
    BatchCount(u32),
    /// Adds a certificate revocation list, PEM, to an organisation, wherever it stands in the config.
    RevocationList {
        /// The organisation.
        organization: MspId,
        /// The list.
        pem: Vec<u8>,
    },
}

/// An edit that does not fit the config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No such organisation.
    #[error("the channel has no organisation with the MSP ID {0}")]
    UnknownOrganization(MspId),
    /// It is there already.
    #[error("the channel has an organisation with the MSP ID {0} already")]
    KnownOrganization(MspId),
    /// A value is missing or cannot be decoded.
    #[error("the channel config has no usable {0}")]
    Unusable(&'static str),
}

impl Edit {
    /// Makes the change in the tree rooted at `/Channel`. Versions are left alone: they follow from the comparison.
    pub fn apply(&self, root: &mut ConfigGroup) -> Result<(), EditError> {
        match self {
            Self::AnchorPeers { organization, anchors } => set_anchors(root, organization, anchors),
            Self::OrdererEndpoints { organization, endpoints } => {
                set_endpoints(root, organization, endpoints)
            }
            Self::RemoveOrganization(organization) => {
                let application = group(root, APPLICATION)?;
                let name = group_name(application, organization)
                    .ok_or_else(|| EditError::UnknownOrganization(organization.clone()))?;
                application.groups.remove(&name);
                Ok(())
            }
            Self::AddOrganization(msp) => add_organization(root, msp),
            Self::BatchCount(count) => {
                let value = group(root, ORDERER)?.values.get_mut(BATCH_SIZE);
                let value = value.ok_or(EditError::Unusable(BATCH_SIZE))?;
                let size =
                    BatchSize::decode(value.value.as_slice()).map_err(|_| EditError::Unusable(BATCH_SIZE))?;
                value.value = BatchSize { max_message_count: *count, ..size }.encode_to_vec();
                Ok(())
            }
            Self::RevocationList { organization, pem } => add_revocation_list(root, organization, pem),
        }
    }
}

fn group<'a>(root: &'a mut ConfigGroup, name: &'static str) -> Result<&'a mut ConfigGroup, EditError> {
    root.groups.get_mut(name).ok_or(EditError::Unusable(name))
}

fn msp_of(organization: &ConfigGroup) -> Option<FabricMspConfig> {
    let config = MspConfig::decode(organization.values.get(MSP)?.value.as_slice()).ok()?;
    FabricMspConfig::decode(config.config.as_slice()).ok()
}

/// Name of an organisation's group, which need not be its MSP ID.
fn group_name(parent: &ConfigGroup, msp_id: &MspId) -> Option<String> {
    let is_it = |organization: &ConfigGroup| {
        msp_of(organization).is_some_and(|config| config.name == msp_id.as_str())
    };
    parent.groups.iter().find(|(_, organization)| is_it(organization)).map(|(name, _)| name.clone())
}

fn set_anchors(root: &mut ConfigGroup, msp_id: &MspId, anchors: &[Endpoint]) -> Result<(), EditError> {
    let unknown = || EditError::UnknownOrganization(msp_id.clone());
    let application = group(root, APPLICATION)?;
    let name = group_name(application, msp_id).ok_or_else(unknown)?;
    let organization = application.groups.get_mut(&name).ok_or_else(unknown)?;
    if anchors.is_empty() {
        organization.values.remove(ANCHOR_PEERS);
        return Ok(());
    }
    let anchors = anchors.iter().map(|peer| AnchorPeer { host: peer.host.clone(), port: peer.port.into() });
    let encoded = AnchorPeers { anchor_peers: anchors.collect() }.encode_to_vec();
    let value = organization
        .values
        .entry(ANCHOR_PEERS.to_owned())
        .or_insert_with(|| ConfigValue { mod_policy: ADMINS.to_owned(), ..ConfigValue::default() });
    value.value = encoded;
    Ok(())
}

fn set_endpoints(root: &mut ConfigGroup, msp_id: &MspId, endpoints: &[Endpoint]) -> Result<(), EditError> {
    let unknown = || EditError::UnknownOrganization(msp_id.clone());
    let orderer = group(root, ORDERER)?;
    let name = group_name(orderer, msp_id).ok_or_else(unknown)?;
    let organization = orderer.groups.get_mut(&name).ok_or_else(unknown)?;
    let value = organization
        .values
        .entry(ENDPOINTS.to_owned())
        .or_insert_with(|| ConfigValue { mod_policy: ADMINS.to_owned(), ..ConfigValue::default() });
    let addresses = endpoints.iter().map(ToString::to_string).collect();
    value.value = OrdererAddresses { addresses }.encode_to_vec();
    Ok(())
}

fn add_organization(root: &mut ConfigGroup, msp: &FabricMspConfig) -> Result<(), EditError> {
    let msp_id = MspId::from(msp.name.as_str());
    let application = group(root, APPLICATION)?;
    if application.groups.contains_key(&msp.name) || group_name(application, &msp_id).is_some() {
        return Err(EditError::KnownOrganization(msp_id));
    }
    let name = msp.name.clone();
    let org = ApplicationOrg { name: name.clone(), msp: msp.clone(), anchor_peers: Vec::new() };
    application.groups.insert(name, application_org_group(&org));
    Ok(())
}

/// An organisation that also runs orderers stands in two places, which must agree.
fn add_revocation_list(root: &mut ConfigGroup, msp_id: &MspId, pem: &[u8]) -> Result<(), EditError> {
    let mut found = false;
    for parent in [APPLICATION, ORDERER] {
        let parent = group(root, parent)?;
        let Some(name) = group_name(parent, msp_id) else { continue };
        let Some(organization) = parent.groups.get_mut(&name) else { continue };
        let Some(mut config) = msp_of(organization) else { continue };
        let Some(value) = organization.values.get_mut(MSP) else { continue };
        config.revocation_list.push(pem.to_vec());
        value.value = MspConfig { r#type: 0, config: config.encode_to_vec() }.encode_to_vec();
        found = true;
    }
    if found { Ok(()) } else { Err(EditError::UnknownOrganization(msp_id.clone())) }
}
