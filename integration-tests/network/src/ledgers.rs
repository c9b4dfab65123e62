//! Comparing ledgers, and looking for what must not be there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use memchr::memmem;
use serde::Deserialize;

use crate::error::NetworkError;
use crate::member::Member;
use crate::network::Network;

/// A channel as it stands in the files of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Chain {
    /// Number of blocks.
    pub height: u64,
    /// Header hash of every block, hex, from the genesis block on.
    pub hashes: Vec<String>,
}

/// What [`Network::assert_ledgers_identical`] has found to be the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSummary {
    /// Names of the peers compared.
    pub peers: Vec<String>,
    /// Blocks in each ledger.
    pub height: u64,
    /// Header hash of the last block, hex.
    pub tip: String,
    /// The payloads of all transactions, one after the other.
    pub payload: Vec<u8>,
}

/// Where something was found in the files of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The file.
    pub file: PathBuf,
    /// Offset in bytes of the first occurrence in it.
    pub offset: usize,
    /// What was searched for.
    pub bytes: Vec<u8>,
}

impl Network {
    /// Height and header hashes of a channel as `grapevine channel info` reads them from the peer's files, whether it runs or not.
    ///
    /// # Errors
    /// If the peer does not have the channel.
    pub fn chain(&self, peer: &str, channel: &str) -> Result<Chain, NetworkError> {
        let output = self.tool_success(peer, &["channel", "info", "-c", channel, "--hashes", "--json"])?;
        serde_json::from_slice(&output.stdout).map_err(|error| NetworkError::Answer {
            from: format!("grapevine channel info of {peer}"),
            reason: error.to_string(),
        })
    }

    /// The payloads of all transactions of a channel, one after the other: what was submitted, byte for byte.
    ///
    /// # Errors
    /// If the peer does not have the channel.
    pub fn export(&self, peer: &str, channel: &str) -> Result<Vec<u8>, NetworkError> {
        let path = self.new_file("export");
        let output = path.to_string_lossy();
        self.tool_success(peer, &["channel", "export", "-c", channel, "--output", &output])?;
        let bytes = std::fs::read(&path).map_err(NetworkError::io(format!("reading {output}")));
        // Only space is lost if it stays.
        let _ = std::fs::remove_file(&path);
        bytes
    }

    /// Asserts that the ledgers of all peers that join the channel at their start and have been started are equal now: same
    /// height, same header hash of every block, same transactions. Whoever is still catching up fails it: wait first.
    ///
    /// # Errors
    /// [`NetworkError::LedgersDiffer`] with the first difference.
    pub fn assert_ledgers_identical(&self, channel: &str) -> Result<LedgerSummary, NetworkError> {
        self.channel(channel)?;
        let mut members = Vec::new();
        for peer in self.peers_in(channel) {
            let member = self.member(peer)?;
            // A peer held back and never started has no ledger yet.
            if member.log.exists() {
                members.push(member);
            }
        }
        let mut first: Option<(&Member, Chain, Vec<u8>)> = None;
        for member in &members {
            let chain = self.chain(&member.name, channel)?;
            let payload = self.export(&member.name, channel)?;
            if let Some((other, expected, expected_payload)) = &first {
                let difference =
                    difference(&other.name, expected, expected_payload, &member.name, &chain, &payload);
                if let Some(difference) = difference {
                    let logs = self.logs([*other, *member]);
                    return Err(NetworkError::LedgersDiffer {
                        channel: channel.to_owned(),
                        difference,
                        logs,
                    });
                }
            } else {
                first = Some((member, chain, payload));
            }
        }
        let (_, chain, payload) =
            first.ok_or_else(|| NetworkError::State(format!("no peer of channel {channel} was started")))?;
        Ok(LedgerSummary {
            peers: members.iter().map(|member| member.name.clone()).collect(),
            height: chain.height,
            tip: chain.hashes.last().cloned().unwrap_or_default(),
            payload,
        })
    }

    /// Asserts that a peer has nothing of a channel: it does not list it, its tools do not know it, and
    /// [`Network::find_channel_in_files`] finds nothing.
    ///
    /// # Errors
    /// [`NetworkError::Leak`] with the place.
    pub fn assert_holds_nothing_of(&self, peer: &str, channel: &str) -> Result<(), NetworkError> {
        self.channel(channel)?;
        let member = self.peer(peer)?;
        let leak = |found: String| NetworkError::Leak {
            peer: member.name.clone(),
            channel: channel.to_owned(),
            found,
        };
        if self.channels(peer)?.contains_key(channel) {
            return Err(leak("`channel list` names it".to_owned()));
        }
        let known = self.tool(peer, &["channel", "info", "-c", channel])?;
        if known.status.success() {
            return Err(leak("`channel info` knows it".to_owned()));
        }
        if self.is_running(peer)? && self.status(peer)?.channel(channel).is_some() {
            return Err(leak("the running peer names it".to_owned()));
        }
        match self.find_channel_in_files(peer, channel)?.first() {
            None => Ok(()),
            Some(place) => {
                let (file, offset) = (place.file.display(), place.offset);
                Err(leak(format!(
                    "{:?} stands in {file} at byte {offset}",
                    String::from_utf8_lossy(&place.bytes)
                )))
            }
        }
    }

    /// Searches all files below the data directory of a peer for the name of a channel and for bytes of
    /// transactions that were submitted there (a sample of each, unless it was submitted in another channel as well).
    ///
    /// A transaction of another channel may mention the name. Then the name is searched for only as it stands in keys
    /// of the ledger and in headers of transactions, behind its length, since every block of the channel contains that.
    ///
    /// # Errors
    /// If the files cannot be read, or transactions of other channels contain even those forms, so that nothing could be told.
    pub fn find_channel_in_files(&self, peer: &str, channel: &str) -> Result<Vec<Occurrence>, NetworkError> {
        self.channel(channel)?;
        let mut patterns = self.telling_forms(channel);
        if patterns.is_empty() {
            let text = format!(
                "transactions of other channels contain whatever names channel {channel}; submit something else"
            );
            return Err(NetworkError::State(text));
        }
        patterns.extend(self.samples_only_of(channel));
        self.find_any_in_files(peer, &patterns)
    }

    /// Every file below the data directory of a peer that contains these bytes, uncompressed.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn find_in_files(&self, peer: &str, bytes: &[u8]) -> Result<Vec<Occurrence>, NetworkError> {
        self.find_any_in_files(peer, &[bytes.to_vec()])
    }

    fn find_any_in_files(&self, peer: &str, patterns: &[Vec<u8>]) -> Result<Vec<Occurrence>, NetworkError> {
        let member = self.peer(peer)?;
        let mut found = Vec::new();
        let looking = NetworkError::io(format!("looking into {}", member.data.display()));
        find_below(&member.data, patterns, &mut found).map_err(looking)?;
        found.sort_by(|one, other| one.file.cmp(&other.file));
        Ok(found)
    }

    /// The channels of a peer with their heights, as `grapevine channel list` reads them from its files.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn channels(&self, peer: &str) -> Result<BTreeMap<String, u64>, NetworkError> {
        #[derive(Deserialize)]
        struct Listed {
            channel: String,
            height: u64,
        }
        let output = self.tool_success(peer, &["channel", "list", "--json"])?;
        let listed: Vec<Listed> =
            serde_json::from_slice(&output.stdout).map_err(|error| NetworkError::Answer {
                from: format!("grapevine channel list of {peer}"),
                reason: error.to_string(),
            })?;
        Ok(listed.into_iter().map(|listed| (listed.channel, listed.height)).collect())
    }

    /// The forms of a channel's name that occur in no transaction of another channel.
    fn telling_forms(&self, channel: &str) -> Vec<Vec<u8>> {
        let fingerprints = self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        let others: Vec<_> = fingerprints.iter().filter(|(other, _)| *other != channel).collect();
        let forms = forms_of(channel).into_iter();
        forms.filter(|form| others.iter().all(|(_, known)| !known.mentions.contains(form))).collect()
    }

    /// Samples of transactions of this channel that were submitted in no other.
    fn samples_only_of(&self, channel: &str) -> Vec<Vec<u8>> {
        let fingerprints = self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        let elsewhere = |sample: &[u8]| {
            let others = fingerprints.iter().filter(|(other, _)| *other != channel);
            others.flat_map(|(_, known)| known.samples()).any(|other| other == sample)
        };
        let Some(known) = fingerprints.get(channel) else { return Vec::new() };
        known.samples().filter(|sample| !elsewhere(sample)).map(<[u8]>::to_vec).collect()
    }
}

/// The first difference between two ledgers in words.
fn difference(
    one: &str,
    one_chain: &Chain,
    one_payload: &[u8],
    other: &str,
    other_chain: &Chain,
    other_payload: &[u8],
) -> Option<String> {
    let hashes = one_chain.hashes.iter().zip(&other_chain.hashes);
    if let Some((number, (left, right))) = hashes.enumerate().find(|(_, (left, right))| left != right) {
        return Some(format!("block {number} is {left} at {one} and {right} at {other}"));
    }
    if (one_chain.height, one_chain.hashes.len()) != (other_chain.height, other_chain.hashes.len()) {
        return Some(format!("{one} has {} blocks, {other} has {}", one_chain.height, other_chain.height));
    }
    if one_payload != other_payload {
        let same = one_payload.iter().zip(other_payload).take_while(|(left, right)| left == right).count();
        return Some(format!(
            "equal header hashes, but from byte {same} on {one} and {other} export different bytes"
        ));
    }
    None
}

/// Adds every file below `directory` with its first occurrence of each pattern.
fn find_below(directory: &Path, patterns: &[Vec<u8>], found: &mut Vec<Occurrence>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find_below(&entry.path(), patterns, found)?;
        } else if kind.is_file() {
            let content = match std::fs::read(entry.path()) {
                Ok(content) => content,
                // A running store removes files when it likes.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            found.extend(patterns.iter().filter_map(|pattern| {
                let offset = memmem::find(&content, pattern)?;
                Some(Occurrence { file: entry.path(), offset, bytes: pattern.clone() })
            }));
        }
    }
    Ok(())
}

/// How the name of a channel stands in files: plainly, in the channel header of a transaction (protobuf field 4), and in keys of the
/// ledger (two bytes of length, big endian).
pub(crate) fn forms_of(channel: &str) -> Vec<Vec<u8>> {
    let name = channel.as_bytes();
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let mut forms = vec![name.to_vec(), [&[0, length], name].concat()];
    // From 128 bytes on protobuf writes the length in two bytes; the other forms do for such a name.
    if length < 128 {
        forms.push([&[0x22, length], name].concat());
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(hashes: &[&str]) -> Chain {
        let hashes: Vec<String> = hashes.iter().map(|hash| (*hash).to_owned()).collect();
        Chain { height: u64::try_from(hashes.len()).unwrap(), hashes }
    }

    #[test]
    fn the_first_difference_is_named() {
        let (long, short, fork) = (chain(&["a", "b", "c"]), chain(&["a", "b"]), chain(&["a", "x", "c"]));
        assert_eq!(difference("p", &long, b"1", "q", &long, b"1"), None);
        assert_eq!(difference("p", &long, b"1", "q", &short, b"1").unwrap(), "p has 3 blocks, q has 2");
        assert_eq!(difference("p", &long, b"1", "q", &fork, b"1").unwrap(), "block 1 is b at p and x at q");
        assert!(difference("p", &long, b"12", "q", &long, b"13").unwrap().contains("from byte 1 on"));
    }

    #[test]
    fn bytes_are_found_in_nested_files_and_only_where_they_are() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("ledger")).unwrap();
        std::fs::write(directory.path().join("ledger/000.log"), b"aauaudaudit!").unwrap();
        std::fs::write(directory.path().join("other"), b"audi").unwrap();
        let mut found = Vec::new();
        find_below(directory.path(), &[b"audit".to_vec(), b"nothing".to_vec()], &mut found).unwrap();
        assert_eq!(
            found,
            [Occurrence {
                file: directory.path().join("ledger/000.log"),
                offset: 6,
                bytes: b"audit".to_vec()
            }]
        );
    }
}
