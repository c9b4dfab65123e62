//! The tree itself: its shape, its names, the values and policies in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;

use super::ConfigError;
use crate::policy::{Policy, PolicyFormatError};
use crate::proto::configtx::{ConfigGroup, ConfigPolicy};
use crate::proto::policies::PolicyType;

/// Path of the root.
pub(super) const ROOT: &str = "/Channel";
/// Group of those who order.
pub(super) const ORDERER: &str = "Orderer";
/// Group of those who use the channel.
pub(super) const APPLICATION: &str = "Application";

/// Longest name in the tree in bytes (Fabric: `configtx.MaxLength`).
const NAME_LENGTH_MAX: usize = 249;

/// Whether `name` may stand in the tree (Fabric: `configtx.validateConfigID`).
pub(crate) fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && name != "."
        && name != ".."
        && name.bytes().all(allowed)
}

/// Channel holds Orderer and Application, these hold organisations, and organisations hold no groups. So the tree has
/// three levels, and walking it recursively is bounded.
pub(super) fn check_shape(root: &ConfigGroup) -> Result<(), ConfigError> {
    check_names(ROOT, root)?;
    for (name, group) in &root.groups {
        let path = format!("{ROOT}/{name}");
        if name != ORDERER && name != APPLICATION {
            return Err(ConfigError::UnexpectedGroup { path });
        }
        check_names(&path, group)?;
        for (name, organization) in &group.groups {
            let path = format!("{path}/{name}");
            check_names(&path, organization)?;
            if let Some(name) = organization.groups.keys().next() {
                return Err(ConfigError::UnexpectedGroup { path: format!("{path}/{name}") });
            }
        }
    }
    Ok(())
}

fn check_names(path: &str, group: &ConfigGroup) -> Result<(), ConfigError> {
    let mut names = group.groups.keys().chain(group.values.keys()).chain(group.policies.keys());
    match names.find(|name| !is_valid_name(name)) {
        Some(name) => Err(ConfigError::Name { path: format!("{path}/{}", name.escape_debug()) }),
        None => Ok(()),
    }
}

/// The sub-group `name`, which must be there.
pub(super) fn group<'a>(
    path: &str,
    parent: &'a ConfigGroup,
    name: &str,
) -> Result<&'a ConfigGroup, ConfigError> {
    parent.groups.get(name).ok_or_else(|| ConfigError::Missing { path: format!("{path}/{name}") })
}

/// The value `name`, which must be there.
pub(super) fn value<M: Message + Default>(
    path: &str,
    group: &ConfigGroup,
    name: &str,
) -> Result<M, ConfigError> {
    let found = optional_value(path, group, name)?;
    found.ok_or_else(|| ConfigError::Missing { path: format!("{path}/{name}") })
}

/// The value `name`, if it is there.
pub(super) fn optional_value<M: Message + Default>(
    path: &str,
    group: &ConfigGroup,
    name: &str,
) -> Result<Option<M>, ConfigError> {
    let Some(value) = group.values.get(name) else { return Ok(None) };
    let decoded = M::decode(value.value.as_slice());
    decoded.map(Some).map_err(|source| ConfigError::Decode { path: format!("{path}/{name}"), source })
}

/// All policies of the tree by absolute path.
pub(super) fn compile_policies(root: &ConfigGroup) -> Result<BTreeMap<String, Arc<Policy>>, ConfigError> {
    let mut policies = BTreeMap::new();
    compile_group(ROOT, root, &mut policies)?;
    Ok(policies)
}

fn compile_group(
    path: &str,
    group: &ConfigGroup,
    policies: &mut BTreeMap<String, Arc<Policy>>,
) -> Result<(), ConfigError> {
    for (name, child) in &group.groups {
        compile_group(&format!("{path}/{name}"), child, policies)?;
    }
    for (name, entry) in &group.policies {
        let policy_path = format!("{path}/{name}");
        let below = |name: &str| {
            let path_of = |child: &String| format!("{path}/{child}/{name}");
            let policy_of = |child| policies.get(&path_of(child)).cloned();
            group
                .groups
                .keys()
                .map(|child| policy_of(child).unwrap_or_else(|| Policy::Reject.into()))
                .collect()
        };
        match compile_policy(entry, below) {
            Ok(Some(policy)) => drop(policies.insert(policy_path, Arc::new(policy))),
            Ok(None) => {}
            Err(source) => return Err(ConfigError::Policy { path: policy_path, source }),
        }
    }
    Ok(())
}

/// `None` if the entry is empty, which Fabric ignores as well.
fn compile_policy(
    entry: &ConfigPolicy,
    policy_below: impl FnOnce(&str) -> Vec<Arc<Policy>>,
) -> Result<Option<Policy>, PolicyFormatError> {
    let Some(policy) = &entry.policy else { return Ok(None) };
    match PolicyType::try_from(policy.r#type) {
        Ok(PolicyType::Signature) => Policy::from_signature_policy(&policy.value).map(Some),
        Ok(PolicyType::ImplicitMeta) => {
            Policy::from_implicit_meta_policy(&policy.value, policy_below).map(Some)
        }
        _ => Err(PolicyFormatError::UnknownType(policy.r#type)),
    }
}
