//! A YAML file as a tree that remembers the line of every value. The only module that names the YAML library.
//!
//! Values are not typed here: that is the reader's work, which can then report every wrong value of a file at
//! once, with its line, instead of stopping at the first. The library bounds depth, size and aliases (its
//! default budget), and refuses a key that is given twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::error::{ConfigError, Origin};

/// A value and where it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What YAML can hold.
#[derive(Clone, Debug, Default)]
pub(crate) enum Value {
    #[default]
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Entries in the order of the file.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_origin: Origin,
    pub(crate) node: Node,
}

impl Node {
    /// Reads a document. `name` is what the operator calls the file.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let parsed: Option<Self> = serde_saphyr::from_str(text).map_err(|error| {
            let snippet = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            let snippet = snippet.replacen("--> <input>:", &format!("--> {name}:"), 1);
            ConfigError::Syntax(format!("{name} is not valid YAML: {snippet}"))
        })?;
        Ok(parsed.unwrap_or_default())
    }

    /// The value under `key`, whatever the case of its letters (Fabric reads its files that way), and the
    /// line of the key.
    pub(crate) fn child(&self, key: &str) -> Option<&Entry> {
        let Value::Map(entries) = &self.value else { return None };
        let exact = entries.iter().find(|entry| entry.key == key);
        exact.or_else(|| entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key)))
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a section",
        }
    }

    /// The same tree without places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => {
                i64::try_from(*value).map_or_else(|_| value.to_string().into(), Into::into)
            }
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.clone().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
            }
        }
    }

    /// A tree without places.
    pub(crate) fn from_json(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => number.as_i128().map_or_else(
                || number.as_f64().map_or_else(|| Value::Text(number.to_string()), Value::Float),
                Value::Integer,
            ),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => Value::Map(map.iter().map(json_entry).collect()),
        };
        Self { value, origin: Origin::Unknown }
    }

    /// Gives every value of the tree one place: it came from a variable as a whole.
    pub(crate) fn set_origin(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_origin(origin)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.key_origin = origin.clone();
                entry.node.set_origin(origin);
            }),
            _ => {}
        }
    }
}

fn json_entry((key, value): (&String, &serde_json::Value)) -> Entry {
    Entry { key: key.clone(), key_origin: Origin::Unknown, node: Node::from_json(value) }
}

fn origin_of<T>(spanned: &Spanned<T>) -> Origin {
    match spanned.referenced.line() {
        0 => Origin::Unknown,
        line => Origin::Line(line),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let origin = origin_of(&spanned);
        Ok(Self { value: spanned.value, origin })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value::<Node>()?;
            entries.push(Entry { key_origin: origin_of(&key), key: key.value, node });
        }
        Ok(Value::Map(entries))
    }
}
