//! The update that leads from one config to another, and its signatures (Fabric: `configtxlator compute_update`).
//!
//! Only what differs is in the write set, one version up. A group whose members or `mod_policy` change is raised itself;
//! then the read and write set name its unchanged members too, by version, so that the update fails if somebody else
//! changes one of them first. Versions in the wanted config do not matter; those of the current one count.

use std::collections::BTreeMap;

use grapevine_crypto::Signer;
use prost::Message as _;

use super::ConfigUpdateError;
use super::elements;
use crate::channel_id::ChannelId;
use crate::proto::common::SignatureHeader;
use crate::proto::configtx::{
    ConfigGroup, ConfigPolicy, ConfigSignature, ConfigUpdate, ConfigUpdateEnvelope, ConfigValue,
};
use crate::transaction::NONCE_LENGTH;

/// The update of `channel` that makes the tree `wanted` of the tree `current` (both rooted at `/Channel`).
///
/// Fails if nothing differs, and on names and depths that no config has. Whether the result is usable and who must sign
/// says [`crate::config::ChannelConfig::propose_update`].
pub fn compute_update(
    channel: &ChannelId,
    current: &ConfigGroup,
    wanted: &ConfigGroup,
) -> Result<ConfigUpdate, ConfigUpdateError> {
    // Taking the trees apart bounds their depth and checks their names.
    elements::Elements::of(current)?;
    elements::Elements::of(wanted)?;
    let difference = group_difference(current, wanted);
    if !difference.changed {
        return Err(ConfigUpdateError::Empty);
    }
    Ok(ConfigUpdate {
        channel_id: channel.to_string(),
        read_set: Some(difference.read),
        write_set: Some(difference.write),
    })
}

/// The update with the signatures of `signers`, each with a fresh nonce: the data of an envelope of type CONFIG_UPDATE.
pub fn sign_update(update: &ConfigUpdate, signers: &[(&Signer, [u8; NONCE_LENGTH])]) -> ConfigUpdateEnvelope {
    let config_update = update.encode_to_vec();
    let sign = |(signer, nonce): &(&Signer, [u8; NONCE_LENGTH])| {
        let header = SignatureHeader { creator: signer.serialized().to_vec(), nonce: nonce.to_vec() };
        let signature_header = header.encode_to_vec();
        let signature = signer.sign(&[signature_header.as_slice(), &config_update].concat());
        ConfigSignature { signature_header, signature }
    };
    let signatures = signers.iter().map(sign).collect();
    ConfigUpdateEnvelope { config_update, signatures }
}

struct GroupDifference {
    read: ConfigGroup,
    write: ConfigGroup,
    changed: bool,
}

/// What differs between two maps of members.
struct Members<T> {
    read: BTreeMap<String, T>,
    write: BTreeMap<String, T>,
    /// Members that are equal, by version only.
    same: BTreeMap<String, T>,
    /// Whether a member came or went.
    others: bool,
}

impl<T: Clone> Members<T> {
    fn is_unchanged(&self) -> bool {
        !self.others && self.write.is_empty()
    }

    /// Read and write set; `with_same` when the group itself is raised.
    fn sets(self, with_same: bool) -> (BTreeMap<String, T>, BTreeMap<String, T>) {
        let Self { mut read, mut write, same, .. } = self;
        if with_same {
            read.extend(same.clone());
            write.extend(same);
        }
        (read, write)
    }
}

/// How one member compares.
enum Compared<T> {
    Same(T),
    /// What the read set has of it, if anything, and the write set.
    Changed(Option<T>, T),
}

fn members<T>(
    current: &BTreeMap<String, T>,
    wanted: &BTreeMap<String, T>,
    compare: impl Fn(&T, &T) -> Compared<T>,
    new: impl Fn(&T) -> T,
) -> Members<T> {
    let mut members =
        Members { read: BTreeMap::new(), write: BTreeMap::new(), same: BTreeMap::new(), others: false };
    for (name, old) in current {
        match wanted.get(name).map(|wanted| compare(old, wanted)) {
            None => members.others = true,
            Some(Compared::Same(version)) => drop(members.same.insert(name.clone(), version)),
            Some(Compared::Changed(read, write)) => {
                members.read.extend(read.map(|read| (name.clone(), read)));
                members.write.insert(name.clone(), write);
            }
        }
    }
    for (name, wanted) in wanted.iter().filter(|(name, _)| !current.contains_key(*name)) {
        members.others = true;
        members.write.insert(name.clone(), new(wanted));
    }
    members
}

fn group_difference(current: &ConfigGroup, wanted: &ConfigGroup) -> GroupDifference {
    let values = members(&current.values, &wanted.values, compare_values, |new| ConfigValue {
        version: 0,
        ..new.clone()
    });
    let policies = members(&current.policies, &wanted.policies, compare_policies, |new| ConfigPolicy {
        version: 0,
        ..new.clone()
    });
    let groups = members(&current.groups, &wanted.groups, compare_groups, new_group);
    let raised = values.others || policies.others || groups.others || current.mod_policy != wanted.mod_policy;
    let changed = raised || !(values.is_unchanged() && policies.is_unchanged() && groups.is_unchanged());
    let (read_values, write_values) = values.sets(raised);
    let (read_policies, write_policies) = policies.sets(raised);
    let (read_groups, write_groups) = groups.sets(raised);
    let version = current.version;
    let read = ConfigGroup {
        version,
        groups: read_groups,
        values: read_values,
        policies: read_policies,
        mod_policy: String::new(),
    };
    let write = ConfigGroup {
        version: if raised { version.saturating_add(1) } else { version },
        groups: write_groups,
        values: write_values,
        policies: write_policies,
        mod_policy: if raised { wanted.mod_policy.clone() } else { String::new() },
    };
    GroupDifference { read, write, changed }
}

fn compare_values(current: &ConfigValue, wanted: &ConfigValue) -> Compared<ConfigValue> {
    if current.value == wanted.value && current.mod_policy == wanted.mod_policy {
        return Compared::Same(ConfigValue { version: current.version, ..ConfigValue::default() });
    }
    let version = current.version.saturating_add(1);
    Compared::Changed(None, ConfigValue { version, ..wanted.clone() })
}

fn compare_policies(current: &ConfigPolicy, wanted: &ConfigPolicy) -> Compared<ConfigPolicy> {
    if current.policy == wanted.policy && current.mod_policy == wanted.mod_policy {
        return Compared::Same(ConfigPolicy { version: current.version, ..ConfigPolicy::default() });
    }
    let version = current.version.saturating_add(1);
    Compared::Changed(None, ConfigPolicy { version, ..wanted.clone() })
}

fn compare_groups(current: &ConfigGroup, wanted: &ConfigGroup) -> Compared<ConfigGroup> {
    let GroupDifference { read, write, changed } = group_difference(current, wanted);
    if changed { Compared::Changed(Some(read), write) } else { Compared::Same(read) }
}

/// A group that is not there yet, all its members at version 0.
fn new_group(wanted: &ConfigGroup) -> ConfigGroup {
    let GroupDifference { write, .. } = group_difference(&ConfigGroup::default(), wanted);
    ConfigGroup { version: 0, mod_policy: wanted.mod_policy.clone(), ..write }
}
