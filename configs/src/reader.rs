//! From a tree of YAML values and environment variables to typed values, collecting every problem on the way.
//!
//! Reading a key also makes it known: what the program reads *is* the schema, so the list of known keys, their
//! environment variables and the hints for misspelt ones cannot drift from the code. The name of a variable
//! is the prefix, an underscore, and the dotted key in upper case with `_` for `.`, as in Fabric; a variable
//! that is set to the empty text counts as set. Letters of keys may be in either case, as in Fabric.
//!
//! A key nobody read is an error with the nearest known name, unless it is in the [`Foreign`] table: keys of
//! Fabric's own files that have no meaning here are listed in one warning, so that Fabric's files load.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::document::{Node, Value};
use crate::endpoint::Endpoint;
use crate::error::{ConfigError, Finding, Origin, Problem, Warning, unless_any};
use crate::hint::nearest;
use crate::units::{ByteSize, Period};

/// Keys of Fabric's file of the same kind that this program does not use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    /// Sections that are wholly ignored, with everything in them.
    pub(crate) sections: &'static [&'static str],
    /// Single keys.
    pub(crate) keys: &'static [&'static str],
    /// Variables below these sections must be known; others with our prefix may belong to another program.
    pub(crate) strict_sections: &'static [&'static str],
}

impl Foreign {
    /// A file of our own invention: nothing in it is Fabric's.
    pub(crate) const NOTHING: Self = Self { sections: &[], keys: &[], strict_sections: &[] };

    fn holds_key(&self, path: &str) -> bool {
        let in_section = |section: &&str| {
            path.get(..section.len()).is_some_and(|start| start.eq_ignore_ascii_case(section))
                && path.as_bytes().get(section.len()).is_none_or(|next| matches!(next, b'.' | b'['))
        };
        self.sections.iter().any(in_section) || self.keys.iter().any(|key| key.eq_ignore_ascii_case(path))
    }

    /// `suffix` is a variable's name without prefix.
    fn holds_variable(&self, suffix: &str) -> bool {
        let below = |section: &&str| below_section(suffix, section);
        self.sections.iter().any(below) || self.keys.iter().any(|key| variable_suffix(key) == suffix)
    }
}

fn variable_suffix(path: &str) -> String {
    path.to_ascii_uppercase().replace('.', "_")
}

fn below_section(suffix: &str, section: &str) -> bool {
    let section = variable_suffix(section);
    suffix.strip_prefix(section.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// What to read and how it is called.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// Name of the file in messages.
    pub(crate) name: &'a str,
    /// Directory against which relative paths are resolved; `None` leaves them as they are.
    pub(crate) directory: Option<&'a Path>,
    /// `CORE` or `ORDERER`; `None` if no variable overrides this file.
    pub(crate) prefix: Option<&'static str>,
}

/// Collects problems while a file is read.
#[derive(Debug)]
pub(crate) struct Reader {
    name: String,
    directory: Option<PathBuf>,
    prefix: Option<&'static str>,
    /// Variables with our prefix, by the name without it; those that were read are removed.
    variables: BTreeMap<String, String>,
    /// Keys that were read, `[]` standing for any index: lower case → as documented.
    known: BTreeMap<String, String>,
    /// Where each value that was read came from, by dotted key with its index.
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Reader {
    pub(crate) fn new(source: &Source<'_>, environment: impl Iterator<Item = (String, String)>) -> Self {
        let strip = |(name, value): (String, String)| {
            let suffix = name.strip_prefix(source.prefix?)?.strip_prefix('_')?;
            Some((suffix.to_owned(), value))
        };
        Self {
            name: source.name.to_owned(),
            directory: source.directory.map(Path::to_path_buf),
            prefix: source.prefix,
            variables: environment.filter_map(strip).collect(),
            known: BTreeMap::new(),
            origins: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// The whole file as a section.
    pub(crate) fn root<'d>(&mut self, node: &'d Node) -> Section<'_, 'd> {
        let problem = match node.value {
            Value::Map(_) => None,
            Value::Null => Some("the file is empty; see configs/samples for a file to start from".to_owned()),
            _ => Some(format!("the file must hold keys and values, but holds {}", node.kind())),
        };
        if let Some(message) = problem {
            self.report(String::new(), node.origin.clone(), message);
        }
        Section { reader: self, node: Some(node), path: String::new() }
    }

    fn report(&mut self, key: String, origin: Origin, message: String) {
        self.problems.push(Problem { file: self.name.clone(), origin, key, message });
    }

    /// Judges what was not read, adds what `findings` says about the values, and closes.
    pub(crate) fn finish(
        mut self,
        document: &Node,
        foreign: &Foreign,
        findings: impl FnOnce() -> Vec<Finding>,
    ) -> Result<Vec<Warning>, ConfigError> {
        let mut ignored = Vec::new();
        self.judge_keys(document, "", foreign, &mut ignored);
        let strangers = self.judge_variables(foreign, &mut ignored);
        // A value that could not be read was replaced by a default, about which there is nothing to say.
        if self.problems.is_empty() {
            for (key, message) in findings() {
                let origin = self.origins.get(&key).cloned().unwrap_or_default();
                self.report(key, origin, message);
            }
        }
        unless_any(self.problems)?;
        let mut warnings = Vec::new();
        if !ignored.is_empty() {
            let list = ignored.join(", ");
            let text =
                format!("{}: these Fabric settings have no meaning here and are ignored: {list}", self.name);
            warnings.push(Warning(text));
        }
        if !strangers.is_empty() {
            let list = strangers.join(", ");
            warnings.push(Warning(format!(
                "these environment variables are no settings of Grapevine and are ignored: {list}"
            )));
        }
        Ok(warnings)
    }

    fn judge_keys(&mut self, node: &Node, path: &str, foreign: &Foreign, ignored: &mut Vec<String>) {
        match &node.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.judge_keys(item, &format!("{path}[{index}]"), foreign, ignored);
                }
            }
            Value::Map(entries) => {
                let mut seen = BTreeSet::new();
                for entry in entries {
                    let key = join(path, &entry.key);
                    if !seen.insert(entry.key.to_ascii_lowercase()) {
                        let message = "stands here twice, in other letters; keep one".to_owned();
                        self.report(key, entry.key_origin.clone(), message);
                        continue;
                    }
                    match self.standing(&key) {
                        Standing::Leaf => {}
                        Standing::Section => self.judge_keys(&entry.node, &key, foreign, ignored),
                        Standing::Unknown if foreign.holds_key(&key) => {
                            ignored.push(match entry.key_origin {
                                Origin::Line(line) => format!("{key} (line {line})"),
                                _ => key,
                            })
                        }
                        Standing::Unknown => {
                            let hint = self.key_hint(&key, foreign);
                            let message = format!("is not a known key; {hint}");
                            self.report(key, entry.key_origin.clone(), message);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn standing(&self, path: &str) -> Standing {
        let path = any_index(path).to_ascii_lowercase();
        if self.known.contains_key(&path) {
            return Standing::Leaf;
        }
        let below = |end: char| {
            let start = format!("{path}{end}");
            self.known.range(start.clone()..).next().is_some_and(|(known, _)| known.starts_with(&start))
        };
        if below('.') || below('[') { Standing::Section } else { Standing::Unknown }
    }

    fn key_hint(&self, path: &str, foreign: &Foreign) -> String {
        let path = any_index(path);
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let dot = if parent.is_empty() { "" } else { "." };
        let start = format!("{parent}{dot}");
        let child = |known: &'_ String| -> Option<String> {
            let rest = known.get(start.len()..)?;
            let same = known.get(..start.len())?.eq_ignore_ascii_case(&start);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            same.then(|| rest.get(..end).unwrap_or_default().to_owned())
        };
        let siblings: BTreeSet<String> = self.known.values().filter_map(child).collect();
        if let Some(sibling) = nearest(name, siblings.iter().map(String::as_str)) {
            return format!("did you mean {sibling}?");
        }
        let last = |known: &String| known.rsplit('.').next().unwrap_or_default().to_owned();
        let elsewhere = self.known.values().find(|known| last(known).eq_ignore_ascii_case(name));
        if let Some(known) = elsewhere {
            return format!("did you mean {known}?");
        }
        let in_fabric = foreign.keys.iter().find(|key| nearest(&path, [**key]).is_some());
        if let Some(key) = in_fabric {
            return format!("the nearest name is Fabric's {key}; remove it or correct the spelling");
        }
        let list: Vec<_> = siblings.iter().map(String::as_str).collect();
        format!("remove it, or use one of: {}", list.join(", "))
    }

    /// Sorts what is left of the variables; returns those that are nobody's business here.
    fn judge_variables(&mut self, foreign: &Foreign, ignored: &mut Vec<String>) -> Vec<String> {
        let prefix = self.prefix.unwrap_or_default();
        let mut strangers = Vec::new();
        for suffix in std::mem::take(&mut self.variables).into_keys() {
            let name = format!("{prefix}_{suffix}");
            if foreign.holds_variable(&suffix) {
                ignored.push(name);
            } else if foreign.strict_sections.iter().any(|section| below_section(&suffix, section)) {
                let known: Vec<_> = self.known.keys().map(|path| variable_suffix(path)).collect();
                let hint = nearest(&suffix, known.iter().map(String::as_str)).map_or_else(
                    || "unset it".to_owned(),
                    |near| format!("did you mean {prefix}_{near}? Otherwise unset it"),
                );
                let message = format!("does not name a known key; {hint}");
                self.report(String::new(), Origin::Environment(name), message);
            } else {
                strangers.push(name);
            }
        }
        strangers
    }
}

enum Standing {
    Leaf,
    Section,
    Unknown,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// `a[3].b` → `a[].b`.
fn any_index(path: &str) -> String {
    let mut result = String::with_capacity(path.len());
    let mut inside = false;
    for letter in path.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        result.push(letter);
    }
    result
}

/// One section of a file, being read.
#[derive(Debug)]
pub(crate) struct Section<'r, 'd> {
    reader: &'r mut Reader,
    node: Option<&'d Node>,
    path: String,
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

/// A value that stands alone, not in parts.
pub(crate) trait Scalar: Sized {
    /// Whether empty text means "not given", as for names and addresses in Fabric's files.
    const EMPTY_IS_ABSENT: bool = false;

    /// The typed value, or what is wrong and what to write instead.
    fn read(value: &Value) -> Result<Self, String>;
}

fn expected<T>(what: &str, value: &Value) -> Result<T, String> {
    let got = match value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Null => "nothing".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a section".to_owned(),
    };
    Err(format!("{got} is not {what}"))
}

impl Scalar for bool {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(*value),
            Value::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            other => expected("a switch; write true or false", other),
        }
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Scalar for $type {
            fn read(value: &Value) -> Result<Self, String> {
                let read = match value {
                    Value::Integer(number) => Self::try_from(*number).ok(),
                    Value::Text(text) => text.trim().parse().ok(),
                    _ => None,
                };
                let what = || format!("a whole number from 0 to {}", Self::MAX);
                read.map_or_else(|| expected(&what(), value), Ok)
            }
        }
    )*};
}

whole_number!(u16, u32, usize);

impl Scalar for String {
    const EMPTY_IS_ABSENT: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => expected("text; put it in quotes", value),
            other => expected("text", other),
        }
    }
}

impl Scalar for Period {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(0) => Ok(Self::default()),
            Value::Text(text) => text.parse().map_err(|error: crate::UnitError| error.to_string()),
            other => expected("a duration; write a number with a unit, such as 500ms, 2s or 1m30s", other),
        }
    }
}

impl Scalar for ByteSize {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(number) if u64::try_from(*number).is_ok() => number.to_string().parse(),
            Value::Text(text) => text.parse(),
            other => return expected("a size; write bytes or a unit, such as 512 KB, 10 MB or 4MiB", other),
        }
        .map_err(|error: crate::UnitError| error.to_string())
    }
}

macro_rules! parsed_text {
    ($($type:ty: $what:literal),*) => {$(
        impl Scalar for $type {
            const EMPTY_IS_ABSENT: bool = true;

            fn read(value: &Value) -> Result<Self, String> {
                let parsed = match value {
                    Value::Text(text) => text.trim().parse().ok(),
                    _ => None,
                };
                parsed.map_or_else(|| expected($what, value), Ok)
            }
        }
    )*};
}

parsed_text!(
    Endpoint: "an endpoint; write host:port, such as peer0.org1.example.com:7051",
    SocketAddr: "an address to listen on; write IP:port, such as 127.0.0.1:7051 or 0.0.0.0:7051",
    IpAddr: "an IP address; write one such as 127.0.0.1 or 0.0.0.0"
);
