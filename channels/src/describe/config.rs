//! A channel config.

use std::collections::BTreeMap;

use prost::Message as _;
use serde::Serialize;

use super::identity::IdentityDescription;
use super::{MspDescription, policy, printable};
use crate::config::{ChannelConfig, OrgConfig};
use crate::proto::configtx::{Capabilities, ConfigGroup};
use crate::proto::peer::Acls;

/// A channel config as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigDescription {
    /// The channel.
    pub channel: String,
    /// Number of updates since the genesis block.
    pub sequence: u64,
    /// Number of the block that carries this config.
    pub config_block: u64,
    /// What members must understand.
    pub capabilities: CapabilityDescription,
    /// `etcdraft` or `BFT`.
    pub consensus_type: String,
    /// How long an orderer waits for a block to fill, in milliseconds.
    pub batch_timeout_ms: u64,
    /// Most transactions in a block.
    pub max_message_count: u32,
    /// Most bytes of transactions in a block.
    pub absolute_max_bytes: u32,
    /// Size beyond which a block does not grow, unless by a single transaction.
    pub preferred_max_bytes: u32,
    /// Where blocks can be pulled from.
    pub orderer_endpoints: Vec<EndpointDescription>,
    /// Members of the consenter set of a BFT channel.
    pub consenters: Vec<ConsenterDescription>,
    /// Organisations whose peers share the channel.
    pub application_organizations: Vec<OrganizationDescription>,
    /// Organisations that run orderers.
    pub orderer_organizations: Vec<OrganizationDescription>,
    /// Policies by path.
    pub policies: BTreeMap<String, String>,
    /// Resources by name and the policy each is governed by, where it is not the default.
    pub acls: BTreeMap<String, String>,
}

/// Capabilities by group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapabilityDescription {
    /// Of `/Channel`.
    pub channel: Vec<String>,
    /// Of `/Channel/Orderer`.
    pub orderer: Vec<String>,
    /// Of `/Channel/Application`.
    pub application: Vec<String>,
}

/// An orderer to pull from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointDescription {
    /// `host:port`.
    pub address: String,
    /// Whose it is.
    pub msp_id: String,
}

/// A BFT orderer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsenterDescription {
    /// The number that its signatures carry.
    pub id: u32,
    /// Who it is.
    #[serde(flatten)]
    pub identity: IdentityDescription,
}

/// An organisation of the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrganizationDescription {
    /// Name of its group.
    pub name: String,
    /// Who its members are.
    pub msp: MspDescription,
    /// Peers that other organisations may contact first.
    pub anchor_peers: Vec<String>,
}

impl ConfigDescription {
    /// Describes a config.
    pub fn new(config: &ChannelConfig) -> Self {
        let empty = ConfigGroup::default();
        let root = config.config().channel_group.as_ref().unwrap_or(&empty);
        let group = |name: &str| root.groups.get(name).unwrap_or(&empty);
        let batch_size = config.batch_size();
        let mut policies = BTreeMap::new();
        add_policies("/Channel", root, &mut policies);
        let endpoints = config.orderer_endpoints().iter().map(|endpoint| EndpointDescription {
            address: printable(&endpoint.address),
            msp_id: printable(endpoint.org.as_str()),
        });
        let consenters = config.consenters().iter().map(|(id, identity)| ConsenterDescription {
            id: *id,
            identity: IdentityDescription::new(identity, Some(config)),
        });
        Self {
            channel: config.channel_id().to_string(),
            sequence: config.sequence(),
            config_block: config.config_block_number(),
            capabilities: CapabilityDescription {
                channel: capabilities(root),
                orderer: capabilities(group("Orderer")),
                application: capabilities(group("Application")),
            },
            consensus_type: printable(config.consensus_type()),
            batch_timeout_ms: config.batch_timeout_ms(),
            max_message_count: batch_size.max_message_count,
            absolute_max_bytes: batch_size.absolute_max_bytes,
            preferred_max_bytes: batch_size.preferred_max_bytes,
            orderer_endpoints: endpoints.collect(),
            consenters: consenters.collect(),
            application_organizations: config.application_orgs().values().map(organization).collect(),
            orderer_organizations: config.orderer_orgs().values().map(organization).collect(),
            policies,
            acls: acls(group("Application")),
        }
    }
}

fn organization(organization: &OrgConfig) -> OrganizationDescription {
    OrganizationDescription {
        name: printable(&organization.name),
        msp: MspDescription::new(&organization.msp),
        anchor_peers: organization.anchor_peers.iter().map(|anchor| printable(&anchor.to_string())).collect(),
    }
}

fn capabilities(group: &ConfigGroup) -> Vec<String> {
    let value = group.values.get("Capabilities");
    let decoded = value.and_then(|value| Capabilities::decode(value.value.as_slice()).ok());
    decoded.unwrap_or_default().capabilities.keys().map(|name| printable(name)).collect()
}

fn acls(group: &ConfigGroup) -> BTreeMap<String, String> {
    let value = group.values.get("ACLs");
    let decoded = value.and_then(|value| Acls::decode(value.value.as_slice()).ok()).unwrap_or_default();
    decoded.acls.iter().map(|(name, acl)| (printable(name), printable(&acl.policy_ref))).collect()
}

/// Three levels, since the config has been parsed.
fn add_policies(path: &str, group: &ConfigGroup, policies: &mut BTreeMap<String, String>) {
    for (name, child) in &group.groups {
        add_policies(&format!("{path}/{name}"), child, policies);
    }
    for (name, entry) in &group.policies {
        policies.insert(format!("{path}/{name}"), policy::describe(entry));
    }
}
