//! One section of a file while it is read: typed values out of untyped ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Reader, Scalar, any_index, join, variable_suffix};
use crate::document::{Node, Value};
use crate::error::Origin;

/// One section of a file, being read.
#[derive(Debug)]
pub(crate) struct Section<'r, 'd> {
    pub(super) reader: &'r mut Reader,
    pub(super) node: Option<&'d Node>,
    pub(super) path: String,
}

impl Section<'_, '_> {
    /// The value of `key`, or `default` if it is absent (or null) in file and environment.
    pub(crate) fn value<T: Scalar>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of a key that must be there. `advice` says what to write.
    pub(crate) fn required<T: Scalar>(&mut self, key: &str, placeholder: T, advice: &str) -> T {
        let problems = self.reader.problems.len();
        if let Some(value) = self.optional(key) {
            return value;
        }
        if self.reader.problems.len() == problems {
            let origin = self.node.map(|node| node.origin.clone()).unwrap_or_default();
            let message = format!("is missing; {advice}");
            self.reader.report(join(&self.path, key), origin, message);
        }
        placeholder
    }

    /// The value of a key that may be absent; null and empty text count as absent.
    pub(crate) fn optional<T: Scalar>(&mut self, key: &str) -> Option<T> {
        let node = self.leaf(key)?;
        if matches!(&node.value, Value::Text(text) if text.is_empty()) && T::EMPTY_IS_ABSENT {
            return None;
        }
        self.convert(&join(&self.path, key), &node)
    }

    /// A path, relative to the directory of the file.
    pub(crate) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text: String = self.optional(key)?;
        Some(self.resolve(&text))
    }

    /// A path that must be there.
    pub(crate) fn required_path(&mut self, key: &str, advice: &str) -> PathBuf {
        let text = self.required(key, String::new(), advice);
        self.resolve(&text)
    }

    fn resolve(&self, text: &str) -> PathBuf {
        match &self.reader.directory {
            Some(directory) => directory.join(text),
            None => PathBuf::from(text),
        }
    }

    /// A list of scalars: a YAML list, or text with blanks between the items, or one item.
    pub(crate) fn list<T: Scalar>(&mut self, key: &str) -> Option<Vec<T>> {
        let node = self.leaf(key)?;
        let path = join(&self.path, key);
        let items = match &node.value {
            Value::List(items) => items.clone(),
            Value::Text(text) => self.split(&path, text, &node.origin),
            _ => vec![node],
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            values.extend(self.convert(&format!("{path}[{index}]"), item));
        }
        Some(values)
    }

    /// A list of paths.
    pub(crate) fn paths(&mut self, key: &str) -> Vec<PathBuf> {
        let texts = self.list::<String>(key).unwrap_or_default();
        texts.iter().map(|text| self.resolve(text)).collect()
    }

    /// The items of a text: a YAML list, or words.
    fn split(&mut self, path: &str, text: &str, origin: &Origin) -> Vec<Node> {
        if text.trim_start().starts_with('[') {
            return self.embedded(path, text, origin);
        }
        let item = |word: &str| Node { value: Value::Text(word.to_owned()), origin: origin.clone() };
        text.split_whitespace().map(item).collect()
    }

    /// A YAML list that stands in a variable.
    fn embedded(&mut self, path: &str, text: &str, origin: &Origin) -> Vec<Node> {
        let parsed = Node::parse(text, "the value").map(|mut node| {
            node.set_origin(origin);
            node.value
        });
        match parsed {
            Ok(Value::List(items)) => return items,
            Ok(Value::Null) => return Vec::new(),
            Ok(_) | Err(_) => {}
        }
        let message = format!("{text:?} is not a YAML list");
        self.reader.report(path.to_owned(), origin.clone(), message);
        Vec::new()
    }

    /// A section inside this one; an absent section is read as an empty one.
    pub(crate) fn section(&mut self, key: &str) -> Section<'_, '_> {
        let path = join(&self.path, key);
        let entry = self.node.and_then(|node| node.child(key));
        if let Some(entry) = entry {
            self.reader.origins.insert(path.clone(), entry.key_origin.clone());
            if !matches!(entry.node.value, Value::Map(_) | Value::Null) {
                let message = format!("must be a section of keys and values, but is {}", entry.node.kind());
                self.reader.report(path.clone(), entry.node.origin.clone(), message);
            }
        }
        Section { reader: self.reader, node: entry.map(|entry| &entry.node), path }
    }

    /// A list of sections; `None` if the key is absent.
    pub(crate) fn sections<T>(
        &mut self,
        key: &str,
        mut each: impl FnMut(&mut Section<'_, '_>) -> T,
    ) -> Option<Vec<T>> {
        let path = join(&self.path, key);
        // An empty list must still make the keys of its items known; reading nothing does.
        let before = self.reader.problems.len();
        each(&mut Section { reader: self.reader, node: None, path: format!("{path}[0]") });
        self.reader.problems.truncate(before);
        let node = self.find(key)?;
        let items = match &node.value {
            Value::List(items) => items.clone(),
            Value::Text(text) => self.embedded(&path, text, &node.origin),
            Value::Null => return None,
            _ => {
                let message = format!("must be a list, but is {}", node.kind());
                self.reader.report(path, node.origin.clone(), message);
                return None;
            }
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.reader.origins.insert(path.clone(), item.origin.clone());
            if !matches!(item.value, Value::Map(_)) {
                let message = format!("must be a section of keys and values, but is {}", item.kind());
                self.reader.report(path, item.origin.clone(), message);
                continue;
            }
            values.push(each(&mut Section { reader: self.reader, node: Some(item), path }));
        }
        Some(values)
    }

    /// The keys and values of a section whose keys are names chosen by the operator.
    pub(crate) fn names<T: Scalar>(&mut self, key: &str) -> BTreeMap<String, Vec<T>> {
        let Some(node) = self.leaf(key) else { return BTreeMap::new() };
        let path = join(&self.path, key);
        let Value::Map(entries) = &node.value else {
            let message = format!("must be a section of names, but is {}", node.kind());
            self.reader.report(path, node.origin.clone(), message);
            return BTreeMap::new();
        };
        let mut result = BTreeMap::new();
        for entry in entries {
            let mut names = Section { reader: self.reader, node: Some(&node), path: path.clone() };
            result.insert(entry.key.clone(), names.list(&entry.key).unwrap_or_default());
        }
        result
    }

    /// The values of a section whose keys are names chosen by the operator; `None` if the section is absent.
    pub(crate) fn values<T: Scalar>(&mut self, key: &str) -> Option<BTreeMap<String, T>> {
        let node = self.leaf(key)?;
        let path = join(&self.path, key);
        let Value::Map(entries) = &node.value else {
            let message = format!("must be a section of names, but is {}", node.kind());
            self.reader.report(path, node.origin.clone(), message);
            return None;
        };
        let mut result = BTreeMap::new();
        for entry in entries {
            let mut named = Section { reader: self.reader, node: Some(&node), path: path.clone() };
            if let Some(value) = named.optional(&entry.key) {
                result.insert(entry.key.clone(), value);
            }
        }
        Some(result)
    }

    /// The section as it stands.
    pub(crate) fn raw(&self, key: &str) -> Option<&Node> {
        self.node.and_then(|node| node.child(key)).map(|entry| &entry.node)
    }

    /// The node of a key that has no keys below it, which makes the key known.
    fn leaf(&mut self, key: &str) -> Option<Node> {
        let path = any_index(&join(&self.path, key));
        self.reader.known.insert(path.to_ascii_lowercase(), path);
        self.find(key).filter(|node| !matches!(node.value, Value::Null))
    }

    /// The node of a key, the environment first.
    fn find(&mut self, key: &str) -> Option<Node> {
        let path = join(&self.path, key);
        let suffix = variable_suffix(&path);
        let found = match self.reader.variables.remove(&suffix) {
            Some(text) => {
                let name = format!("{}_{suffix}", self.reader.prefix.unwrap_or_default());
                Some(Node { value: Value::Text(text), origin: Origin::Environment(name) })
            }
            None => self.raw(key).cloned(),
        };
        if let Some(node) = &found {
            self.reader.origins.insert(path, node.origin.clone());
        }
        found
    }

    fn convert<T: Scalar>(&mut self, path: &str, node: &Node) -> Option<T> {
        self.reader.origins.insert(path.to_owned(), node.origin.clone());
        match T::read(&node.value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.reader.report(path.to_owned(), node.origin.clone(), message);
                None
            }
        }
    }
}
