//! Sending transactions through the orderer, and remembering enough of them to look for leaks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use crate::error::NetworkError;
use crate::ledgers::forms_of;
use crate::network::Network;
use crate::tools::Tool;

/// How long a submission in the foreground may take.
const SUBMIT_WITHIN: Duration = Duration::from_secs(60);

/// Pieces into which bytes are cut unless the test says otherwise.
const PIECE_BYTES: usize = 64 * 1024;

/// Length of the samples that [`Network::assert_holds_nothing_of`] looks for: long enough to occur nowhere else.
const SAMPLE_BYTES: usize = 24;

/// Different bytes a sample must have: runs of one byte occur in every file.
const SAMPLE_VARIETY_MIN: usize = 8;

/// Samples kept for every channel; the first ones of each submission.
const SAMPLES_MAX: usize = 64;

/// What is to be submitted. The ledger then holds exactly these bytes again (`grapevine channel export`).
#[derive(Debug, Clone)]
pub struct Payload {
    source: Source,
    cut: Cutting,
    rate: Option<f64>,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// How bytes become transactions.
#[derive(Debug, Clone, Copy)]
enum Cutting {
    Lines,
    Pieces(usize),
}

impl Payload {
    /// One transaction for every line; the line ends are part of it.
    pub fn lines<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Self {
        let mut text = String::new();
        for line in lines {
            text.push_str(line.as_ref());
            text.push('\n');
        }
        Self { source: Source::Bytes(text.into_bytes()), cut: Cutting::Lines, rate: None }
    }

    /// Bytes, cut into pieces of 64 KiB.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { source: Source::Bytes(bytes.into()), cut: Cutting::Pieces(PIECE_BYTES), rate: None }
    }

    /// A file, cut into pieces of 64 KiB.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File(path.into()), cut: Cutting::Pieces(PIECE_BYTES), rate: None }
    }

    /// One transaction for every so many bytes.
    #[must_use]
    pub const fn pieces(mut self, piece_bytes: usize) -> Self {
        self.cut = Cutting::Pieces(piece_bytes);
        self
    }

    /// At most so many transactions a second; by default as fast as the orderer takes them.
    #[must_use]
    pub const fn rate(mut self, transactions_per_second: f64) -> Self {
        self.rate = Some(transactions_per_second);
        self
    }
}

/// Transactions on their way to the orderer; the sender is killed when this is dropped.
#[derive(Debug)]
pub struct Submission<'a> {
    tool: Tool,
    network: &'a Network,
    channel: String,
    transactions: u64,
}

impl Submission<'_> {
    /// True once the last transaction was sent, or sending has failed.
    ///
    /// # Errors
    /// If the operating system cannot tell.
    pub fn has_ended(&mut self) -> Result<bool, NetworkError> {
        self.tool.has_ended()
    }

    /// Waits until the orderer has taken every transaction.
    ///
    /// # Errors
    /// If it refused one, or is not done in time.
    pub fn wait(self, within: Duration) -> Result<(), NetworkError> {
        let network = self.network;
        self.tool.success(within, || network.is_interrupted())?;
        let mut fingerprints = network.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        let known = fingerprints.entry(self.channel).or_default();
        known.submitted = known.submitted.saturating_add(self.transactions);
        Ok(())
    }
}

impl Network {
    /// Sends transactions through the first orderer; returns when it has taken all of them.
    ///
    /// # Errors
    /// If it refuses one or does not answer.
    pub fn submit(&self, channel: &str, payload: Payload) -> Result<(), NetworkError> {
        self.submit_in_background(channel, payload)?.wait(SUBMIT_WITHIN)
    }

    /// As [`Network::submit`], but returns at once.
    ///
    /// # Errors
    /// If the sender cannot be started.
    pub fn submit_in_background(
        &self,
        channel: &str,
        payload: Payload,
    ) -> Result<Submission<'_>, NetworkError> {
        self.channel(channel)?;
        let config = self.submitter(channel)?.to_string_lossy().into_owned();
        let path = match payload.source {
            Source::File(path) => path,
            Source::Bytes(bytes) => {
                let path = self.new_file("payload");
                std::fs::write(&path, bytes)
                    .map_err(NetworkError::io(format!("writing {}", path.display())))?;
                path
            }
        };
        let transactions = self.remember(channel, &path, payload.cut)?;
        let file = path.to_string_lossy();
        let mut arguments = vec!["submit", "--config", &config, "--channel", channel, "--file", &file];
        let piece_bytes;
        match payload.cut {
            Cutting::Lines => arguments.push("--lines"),
            Cutting::Pieces(bytes) => {
                piece_bytes = bytes.to_string();
                arguments.extend(["--piece-bytes", &piece_bytes]);
            }
        }
        let rate = payload.rate.map(|rate| rate.to_string());
        if let Some(rate) = &rate {
            arguments.extend(["--rate", rate]);
        }
        let tool = self.start_orderer_tool(&arguments)?;
        Ok(Submission { tool, network: self, channel: channel.to_owned(), transactions })
    }

    /// Configuration of an identity that may write to the channel: the client that `net init` makes in the first organisation, or
    /// the orderer itself in channels of others.
    pub(crate) fn submitter(&self, channel: &str) -> Result<PathBuf, NetworkError> {
        let first = self.config().organizations.first().map(|organization| organization.msp_id.as_str());
        let channels = self.config().channels.iter().find(|known| known.name == channel);
        if channels
            .is_some_and(|channel| channel.organizations.iter().any(|member| Some(member.as_str()) == first))
        {
            return Ok(self.directory().join("net").join("client.yaml"));
        }
        let orderer = self.orderers().first().copied();
        let orderer = orderer.ok_or_else(|| NetworkError::State("the network has no orderer".to_owned()))?;
        Ok(self.member(orderer)?.config.clone())
    }

    /// Number of transactions of a channel that the orderer has taken from this harness.
    pub(crate) fn submitted_transactions(&self, channel: &str) -> u64 {
        let fingerprints = self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        fingerprints.get(channel).map_or(0, |known| known.submitted)
    }

    /// Takes samples of what goes into a channel; returns the number of transactions.
    fn remember(&self, channel: &str, file: &Path, cut: Cutting) -> Result<u64, NetworkError> {
        let bytes = std::fs::read(file).map_err(NetworkError::io(format!("reading {}", file.display())))?;
        let mut fingerprints = self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        let known = fingerprints.entry(channel.to_owned()).or_default();
        let others = self.config().channels.iter().filter(|other| other.name != channel);
        let forms = others.flat_map(|other| forms_of(&other.name));
        known.mentions.extend(forms.filter(|form| memchr::memmem::find(&bytes, form).is_some()));
        let mut count = 0u64;
        let mut add = |transaction: &[u8]| {
            known.add(transaction);
            count = count.saturating_add(1);
        };
        match cut {
            Cutting::Lines => bytes.split_inclusive(|byte| *byte == b'\n').for_each(&mut add),
            Cutting::Pieces(size) => bytes.chunks(size.max(1)).for_each(&mut add),
        }
        Ok(count)
    }
}

/// What the harness knows of the transactions of a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fingerprints {
    /// Transactions the orderer has taken.
    submitted: u64,
    /// Forms of names of other channels that occur in the transactions.
    pub(crate) mentions: BTreeSet<Vec<u8>>,
    samples: Vec<Vec<u8>>,
}

impl Fingerprints {
    /// Keeps the first window of a transaction that is varied enough not to occur by chance.
    fn add(&mut self, transaction: &[u8]) {
        if self.samples.len() >= SAMPLES_MAX {
            return;
        }
        let varied = |window: &&[u8]| {
            let mut different = window.to_vec();
            different.sort_unstable();
            different.dedup();
            different.len() >= SAMPLE_VARIETY_MIN
        };
        let length = SAMPLE_BYTES.min(transaction.len()).max(1);
        self.samples.extend(transaction.windows(length).find(varied).map(<[u8]>::to_vec));
    }

    pub(crate) fn samples(&self) -> impl Iterator<Item = &[u8]> {
        self.samples.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_varied_and_bounded() {
        let mut fingerprints = Fingerprints::default();
        fingerprints.add(&[0; 1000]);
        assert_eq!(fingerprints.samples().count(), 0);
        let mut zeros_then_text = vec![0; 1000];
        zeros_then_text.extend_from_slice(b"the quick brown fox jumps over the lazy dog");
        fingerprints.add(&zeros_then_text);
        fingerprints.add(b"short but varied\n");
        let samples: Vec<&[u8]> = fingerprints.samples().collect();
        assert_eq!(samples[0].len(), SAMPLE_BYTES);
        assert_eq!(samples[1], b"short but varied\n");
        for number in 0..1000 {
            fingerprints.add(format!("transaction number {number}").as_bytes());
        }
        assert_eq!(fingerprints.samples().count(), SAMPLES_MAX);
    }
}
