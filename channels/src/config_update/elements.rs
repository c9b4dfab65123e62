//! A config tree as a flat map of its elements, and back (Fabric: `configtx.mapConfig`, `configMapToConfig`).

use std::collections::BTreeMap;
use std::fmt;

use super::ConfigUpdateError;
use crate::config::is_valid_name;
use crate::proto::configtx::{ConfigGroup, ConfigPolicy, ConfigValue};

/// Deepest group: channel, orderer or application, organisation, and one more, which the parsed config then refuses.
const DEPTH_MAX: usize = 4;

/// Name of the root.
const ROOT: &str = "Channel";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Group,
    Value,
    Policy,
}

/// Names an element: its kind, the group it is in, and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    kind: Kind,
    /// Path of names from the root, the element's own last.
    path: Vec<String>,
}

/// An element with its own content. The maps of a group matter for their keys alone.
#[derive(Debug, Clone)]
pub(super) enum Element {
    Group(ConfigGroup),
    Value(ConfigValue),
    Policy(ConfigPolicy),
}

/// The elements of a tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Elements(BTreeMap<Key, Element>);

impl Key {
    fn root() -> Self {
        Self { kind: Kind::Group, path: vec![ROOT.to_owned()] }
    }

    fn below(&self, kind: Kind, name: &str) -> Self {
        let mut path = self.path.clone();
        path.push(name.to_owned());
        Self { kind, path }
    }

    /// Absolute path of the policy that `mod_policy`, written at this element, names: a relative one starts at the
    /// element itself if it is a group, else at the group it is in.
    pub(super) fn policy_path(&self, mod_policy: &str) -> String {
        if mod_policy.starts_with('/') {
            return mod_policy.to_owned();
        }
        let group = match (self.kind, self.path.split_last()) {
            (Kind::Value | Kind::Policy, Some((_, group))) => group,
            _ => &self.path,
        };
        format!("/{}/{mod_policy}", group.join("/"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Group => "group",
            Kind::Value => "value",
            Kind::Policy => "policy",
        };
        write!(formatter, "{kind} /{}", self.path.join("/").escape_debug())
    }
}

impl Element {
    pub(super) fn version(&self) -> u64 {
        match self {
            Self::Group(group) => group.version,
            Self::Value(value) => value.version,
            Self::Policy(policy) => policy.version,
        }
    }

    pub(super) fn mod_policy(&self) -> &str {
        match self {
            Self::Group(group) => &group.mod_policy,
            Self::Value(value) => &value.mod_policy,
            Self::Policy(policy) => &policy.mod_policy,
        }
    }
}

impl Elements {
    /// Takes a tree apart.
    pub(super) fn of(root: &ConfigGroup) -> Result<Self, ConfigUpdateError> {
        let mut elements = Self::default();
        elements.add_group(Key::root(), root)?;
        Ok(elements)
    }

    fn add_group(&mut self, key: Key, group: &ConfigGroup) -> Result<(), ConfigUpdateError> {
        if key.path.len() > DEPTH_MAX {
            return Err(ConfigUpdateError::TooDeep(key.to_string()));
        }
        for (name, child) in &group.groups {
            self.add_group(checked(key.below(Kind::Group, name))?, child)?;
        }
        for (name, value) in &group.values {
            self.0.insert(checked(key.below(Kind::Value, name))?, Element::Value(value.clone()));
        }
        for (name, policy) in &group.policies {
            self.0.insert(checked(key.below(Kind::Policy, name))?, Element::Policy(policy.clone()));
        }
        self.0.insert(key, Element::Group(keys_only(group)));
        Ok(())
    }

    pub(super) fn find(&self, key: &Key) -> Option<&Element> {
        self.0.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Element)> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lays `changes` over these elements.
    pub(super) fn extend(&mut self, changes: &Self) {
        self.0.extend(changes.0.iter().map(|(key, element)| (key.clone(), element.clone())));
    }

    /// Puts the tree together. Which members a group has is up to the group; what they are is up to the elements.
    pub(super) fn assemble(&self) -> Result<ConfigGroup, ConfigUpdateError> {
        self.assemble_group(&Key::root())
    }

    fn assemble_group(&self, key: &Key) -> Result<ConfigGroup, ConfigUpdateError> {
        let nowhere = |key: &Key| ConfigUpdateError::Nowhere(key.to_string());
        let Some(Element::Group(group)) = self.find(key) else { return Err(nowhere(key)) };
        let mut result = group.clone();
        for (name, child) in &mut result.groups {
            *child = self.assemble_group(&key.below(Kind::Group, name))?;
        }
        for (name, value) in &mut result.values {
            let key = key.below(Kind::Value, name);
            let Some(Element::Value(found)) = self.find(&key) else { return Err(nowhere(&key)) };
            value.clone_from(found);
        }
        for (name, policy) in &mut result.policies {
            let key = key.below(Kind::Policy, name);
            let Some(Element::Policy(found)) = self.find(&key) else { return Err(nowhere(&key)) };
            policy.clone_from(found);
        }
        Ok(result)
    }
}

impl FromIterator<(Key, Element)> for Elements {
    fn from_iter<T: IntoIterator<Item = (Key, Element)>>(elements: T) -> Self {
        Self(elements.into_iter().collect())
    }
}

fn checked(key: Key) -> Result<Key, ConfigUpdateError> {
    if key.path.last().is_some_and(|name| is_valid_name(name)) {
        Ok(key)
    } else {
        Err(ConfigUpdateError::Name(key.to_string()))
    }
}

fn keys_only(group: &ConfigGroup) -> ConfigGroup {
    ConfigGroup {
        version: group.version,
        mod_policy: group.mod_policy.clone(),
        groups: group.groups.keys().map(|name| (name.clone(), ConfigGroup::default())).collect(),
        values: group.values.keys().map(|name| (name.clone(), ConfigValue::default())).collect(),
        policies: group.policies.keys().map(|name| (name.clone(), ConfigPolicy::default())).collect(),
    }
}

/// Whether a `mod_policy` is a path of valid names, absolute or relative (Fabric: `configtx.validateModPolicy`).
pub(super) fn is_valid_mod_policy(mod_policy: &str) -> bool {
    mod_policy.strip_prefix('/').unwrap_or(mod_policy).split('/').all(is_valid_name)
}
