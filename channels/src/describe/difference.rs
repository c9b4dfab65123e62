//! What one config changes of another.
//!
//! Both trees are laid out as lines, path and text, which are then compared. An element whose bytes differ though its
//! lines do not, such as a value of a kind unknown here, is told by its digests, so that no change goes unseen. Version
//! numbers are not compared: they rise with each change.

use std::collections::BTreeMap;

use grapevine_crypto::{proto, sha256};
use prost::Message;
use serde::Serialize;

use super::{msp, policy, printable};
use crate::config::ChannelConfig;
use crate::proto::configtx::{
    BlockDataHashingStructure, Capabilities, ConfigGroup, ConfigUpdate, HashingAlgorithm, OrdererAddresses,
    Orderers,
};
use crate::proto::orderer::{
    BatchSize, BatchTimeout, ChannelRestrictions, ConsensusType, RaftConfigMetadata,
};
use crate::proto::peer::{Acls, AnchorPeers};

const ROOT: &str = "/Channel";

/// One line that is new, gone or different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// Path in the tree, such as `/Channel/Orderer/BatchSize/max_message_count`.
    pub path: String,
    /// What stood there; `None` if it is new.
    pub before: Option<String>,
    /// What stands there now; `None` if it is gone.
    pub after: Option<String>,
}

/// What changed from `before` to `after`, by path.
pub fn config_difference(before: &ChannelConfig, after: &ChannelConfig) -> Vec<ConfigChange> {
    let (before, after) = (Lines::of(before), Lines::of(after));
    let mut changes = compare(&before.shown, &after.shown);
    for change in compare(&before.elements, &after.elements) {
        let shown = changes.iter().any(|shown| is_within(&shown.path, &change.path));
        if !shown {
            changes.push(change);
        }
    }
    changes.sort_by(|left, right| left.path.cmp(&right.path));
    changes
}

/// What the update of a config block writes, as far as it is not what the update expects to be there; what stood there
/// before it does not say.
pub(super) fn update_difference(update: &ConfigUpdate) -> Vec<ConfigChange> {
    let lines = |set: &Option<ConfigGroup>| {
        let mut lines = Lines::default();
        if let Some(root) = set {
            lines.add_group(ROOT, root);
        }
        lines
    };
    let (read, write) = (lines(&update.read_set), lines(&update.write_set));
    let mut changes = compare(&read.shown, &write.shown);
    for change in compare(&read.elements, &write.elements) {
        if !changes.iter().any(|shown| is_within(&shown.path, &change.path)) {
            changes.push(change);
        }
    }
    // Groups that are only passed through stand in the write set without their policies.
    changes.retain(|change| change.after.is_some() && !change.path.ends_with("/mod_policy"));
    changes.iter_mut().for_each(|change| change.before = None);
    changes.sort_by(|left, right| left.path.cmp(&right.path));
    changes
}

fn is_within(path: &str, element: &str) -> bool {
    path.strip_prefix(element).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn compare(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<ConfigChange> {
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |path: &String| {
        let (before, after) = (before.get(path).cloned(), after.get(path).cloned());
        (before != after).then(|| ConfigChange { path: path.clone(), before, after })
    };
    paths.into_iter().filter_map(change).collect()
}

#[derive(Default)]
struct Lines {
    shown: BTreeMap<String, String>,
    /// Digest of every value and policy.
    elements: BTreeMap<String, String>,
}

impl Lines {
    fn of(config: &ChannelConfig) -> Self {
        let mut lines = Self::default();
        if let Some(root) = &config.config().channel_group {
            lines.add_group(ROOT, root);
        }
        lines
    }

    /// Three levels in a config that has been parsed, else as many as the protobuf decoder lets through.
    fn add_group(&mut self, path: &str, group: &ConfigGroup) {
        self.add_mod_policy(path, &group.mod_policy);
        for (name, child) in &group.groups {
            self.add_group(&format!("{path}/{name}"), child);
        }
        for (name, value) in &group.values {
            let path = format!("{path}/{name}");
            self.add_mod_policy(&path, &value.mod_policy);
            self.add_digest(&path, &value.value);
            for (suffix, text) in value_lines(name, &value.value).unwrap_or_default() {
                let path = if suffix.is_empty() { path.clone() } else { format!("{path}/{suffix}") };
                self.shown.insert(path, text);
            }
        }
        for (name, entry) in &group.policies {
            let path = format!("{path}/Policies/{name}");
            self.add_mod_policy(&path, &entry.mod_policy);
            let value = entry.policy.as_ref().map(Message::encode_to_vec).unwrap_or_default();
            self.add_digest(&path, &value);
            self.shown.insert(path, policy::describe(entry));
        }
    }

    fn add_mod_policy(&mut self, path: &str, mod_policy: &str) {
        self.shown.insert(format!("{path}/mod_policy"), printable(mod_policy));
    }

    fn add_digest(&mut self, path: &str, bytes: &[u8]) {
        let digest: String = sha256(bytes).to_string().chars().take(16).collect();
        self.elements.insert(path.to_owned(), format!("{} bytes, SHA-256 {digest}", bytes.len()));
    }
}

type Line = (&'static str, String);

/// What a value says; `None` if it is of an unknown kind or cannot be read.
fn value_lines(name: &str, bytes: &[u8]) -> Option<Vec<Line>> {
    Some(match name {
        "MSP" => msp_lines(bytes)?,
        "AnchorPeers" => {
            let anchors = decode::<AnchorPeers>(bytes)?.anchor_peers;
            vec![("", list(anchors.iter().map(|anchor| format!("{}:{}", anchor.host, anchor.port))))]
        }
        "Endpoints" | "OrdererAddresses" => {
            vec![("", list(decode::<OrdererAddresses>(bytes)?.addresses.into_iter()))]
        }
        "Capabilities" => vec![("", list(decode::<Capabilities>(bytes)?.capabilities.into_keys()))],
        "ACLs" => {
            let acls = decode::<Acls>(bytes)?.acls;
            vec![("", list(acls.iter().map(|(name, acl)| format!("{name} → {}", acl.policy_ref))))]
        }
        "BatchSize" => {
            let size = decode::<BatchSize>(bytes)?;
            vec![
                ("max_message_count", size.max_message_count.to_string()),
                ("absolute_max_bytes", size.absolute_max_bytes.to_string()),
                ("preferred_max_bytes", size.preferred_max_bytes.to_string()),
            ]
        }
        "BatchTimeout" => vec![("", printable(&decode::<BatchTimeout>(bytes)?.timeout))],
        "ConsensusType" => consensus_lines(bytes)?,
        "Orderers" => {
            let consenters = decode::<Orderers>(bytes)?.consenter_mapping;
            let line = |consenter: &crate::proto::configtx::Consenter| {
                format!("{} {} {}:{}", consenter.id, consenter.msp_id, consenter.host, consenter.port)
            };
            vec![("", list(consenters.iter().map(line)))]
        }
        "ChannelRestrictions" => {
            vec![("max_count", decode::<ChannelRestrictions>(bytes)?.max_count.to_string())]
        }
        "HashingAlgorithm" => vec![("", printable(&decode::<HashingAlgorithm>(bytes)?.name))],
        "BlockDataHashingStructure" => {
            vec![("width", decode::<BlockDataHashingStructure>(bytes)?.width.to_string())]
        }
        _ => return None,
    })
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.map(|item| printable(&item)).collect::<Vec<_>>().join(", ")
}

fn msp_lines(bytes: &[u8]) -> Option<Vec<Line>> {
    let config: proto::FabricMspConfig = decode(&decode::<proto::MspConfig>(bytes)?.config)?;
    let certificates =
        |pems: &[Vec<u8>]| pems.iter().map(|pem| msp::certificate_line(pem)).collect::<Vec<_>>().join(", ");
    let units = config.organizational_unit_identifiers.iter();
    let lists = config.revocation_list.iter().map(|list| {
        let digest: String = sha256(list).to_string().chars().take(16).collect();
        format!("SHA-256 {digest}")
    });
    Some(vec![
        ("id", printable(&config.name)),
        ("root_certs", certificates(&config.root_certs)),
        ("intermediate_certs", certificates(&config.intermediate_certs)),
        ("admins", certificates(&config.admins)),
        ("tls_root_certs", certificates(&config.tls_root_certs)),
        ("tls_intermediate_certs", certificates(&config.tls_intermediate_certs)),
        ("revocation_list", list(lists)),
        ("organizational_units", list(units.map(|unit| unit.organizational_unit_identifier.clone()))),
        ("node_ous", config.fabric_node_ous.is_some_and(|units| units.enable).to_string()),
    ])
}

fn consensus_lines(bytes: &[u8]) -> Option<Vec<Line>> {
    let consensus: ConsensusType = decode(bytes)?;
    let mut lines = vec![
        ("type", printable(&consensus.r#type)),
        ("state", if consensus.state == 0 { "normal" } else { "maintenance" }.to_owned()),
    ];
    if consensus.r#type == "etcdraft" {
        let raft: RaftConfigMetadata = decode(&consensus.metadata)?;
        let consenters = raft.consenters.iter();
        lines.push(("consenters", list(consenters.map(|one| format!("{}:{}", one.host, one.port)))));
    }
    Some(lines)
}
