//! Names of channels.

use std::fmt;
use std::str::FromStr;

/// Longest channel name in bytes (Fabric: `configtx.MaxLength`).
pub const CHANNEL_ID_LENGTH_MAX: usize = 249;

/// A valid channel name: `[a-z][a-z0-9.-]*`, at most [`CHANNEL_ID_LENGTH_MAX`] bytes (Fabric: `ValidateChannelID`).
///
/// Names are used in paths and keys, so nothing else may ever be made into one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelId(std::sync::Arc<str>);

/// A name that no channel can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no channel name: use a lower-case letter followed by lower-case letters, digits, '.' and '-', {CHANNEL_ID_LENGTH_MAX} characters at most"
)]
pub struct ChannelIdError {
    /// The name, shortened.
    pub name: String,
}

impl ChannelId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChannelId {
    type Err = ChannelIdError;

    fn from_str(name: &str) -> Result<Self, ChannelIdError> {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
        let rest = bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        if first && rest && name.len() <= CHANNEL_ID_LENGTH_MAX {
            Ok(Self(name.into()))
        } else {
            Err(ChannelIdError { name: name.chars().take(64).collect() })
        }
    }
}

impl TryFrom<String> for ChannelId {
    type Error = ChannelIdError;

    fn try_from(name: String) -> Result<Self, ChannelIdError> {
        name.parse()
    }
}

impl From<ChannelId> for String {
    fn from(id: ChannelId) -> Self {
        id.as_str().to_owned()
    }
}

impl AsRef<str> for ChannelId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_fabric_accepts() {
        for name in ["a", "trade", "ch1", "a.b-c", &"x".repeat(249)] {
            assert_eq!(name.parse::<ChannelId>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for name in ["", "1ch", ".a", "-a", "Trade", "a_b", "a/b", "a b", "a\0", "é", &"x".repeat(250)] {
            assert!(name.parse::<ChannelId>().is_err(), "{name}");
        }
    }
}
