//! From a tree of YAML values and environment variables to typed values, collecting every problem on the way.
//!
//! Reading a key also makes it known: what the program reads *is* the schema, so the list of known keys, their
//! environment variables and the hints for misspelt ones cannot drift from the code. The name of a variable
//! is the prefix, an underscore, and the dotted key in upper case with `_` for `.`, as in Fabric; a variable
//! that is set to the empty text counts as set. Letters of keys may be in either case, as in Fabric.
//!
//! A key nobody read is an error with the nearest known name, unless it is in the [`Foreign`] table: keys of
//! Fabric's own files that have no meaning here are listed in one warning, so that Fabric's files load.

mod scalar;
mod section;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::document::{Node, Value};
use crate::error::{ConfigError, Finding, Origin, Problem, Warning, unless_any};
use crate::hint::nearest;

pub(crate) use scalar::Scalar;
pub(crate) use section::Section;

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
        if !matches!(document.value, Value::Map(_)) {
            // Every key is missing, which goes without saying.
            self.problems.retain(|problem| problem.key.is_empty());
        }
        // In the order of the file; what has no line comes first, variables last.
        self.problems.sort_by_key(|problem| match problem.origin {
            Origin::Unknown => 0,
            Origin::Line(line) => line,
            Origin::Environment(_) => u64::MAX,
        });
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
