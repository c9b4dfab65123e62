//! What a running peer says about itself over its admin socket: one JSON request line, one JSON answer line.
//!
//! The fields are those of `grapevine status --json`; unknown ones are ignored, so that a test written today reads a newer peer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// Longest answer read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How long a single answer may take; a frozen peer does not answer at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How a running peer is doing.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// Its name.
    pub peer: String,
    /// Its organisation.
    pub msp_id: String,
    /// Its identifier in gossip, hex.
    pub pki_id: String,
    /// What an operator must know of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Serial number of its certificate, hex.
    #[serde(default)]
    pub certificate_serial: String,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// The channels it has joined.
    #[serde(default)]
    pub channels: Vec<ChannelStatus>,
    /// The other peers it knows.
    #[serde(default)]
    pub members: Vec<MemberStatus>,
    /// Everything it counts.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

impl Status {
    /// The state of one channel, if it has joined it.
    #[must_use]
    pub fn channel(&self, channel: &str) -> Option<&ChannelStatus> {
        self.channels.iter().find(|status| status.channel == channel)
    }

    /// Blocks committed in a channel; 0 if it has not joined it.
    #[must_use]
    pub fn height(&self, channel: &str) -> u64 {
        self.channel(channel).map_or(0, |status| status.height)
    }

    /// What it knows about another peer, by the name of that peer.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// How a channel of a running peer is doing.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ChannelStatus {
    /// Its name.
    pub channel: String,
    /// Blocks committed.
    pub height: u64,
    /// Header hash of the last block, hex.
    #[serde(default)]
    pub tip: String,
    /// Identifier (hex) of the leader of the peer's organisation, if one is known.
    #[serde(default)]
    pub leader: Option<String>,
    /// Name of that leader, if known.
    #[serde(default)]
    pub leader_name: Option<String>,
    /// Whether this peer leads.
    #[serde(default)]
    pub is_leader: bool,
    /// Live peers of the channel, this one included.
    #[serde(default)]
    pub members: u64,
    /// The orderer this peer pulls from at the moment.
    #[serde(default)]
    pub orderer: Option<String>,
    /// Why the channel stands still, if it does.
    #[serde(default)]
    pub stopped: Option<String>,
    /// Blocks that the orderers signed and that contradict the peer's chain.
    #[serde(default)]
    pub equivocations: Vec<Equivocation>,
}

/// A block that the orderers signed and that contradicts a peer's chain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Equivocation {
    /// Its number.
    pub number: u64,
    /// Header hash of the committed block of that number, hex, if there is one.
    pub kept: Option<String>,
    /// Its header hash, hex.
    pub other: String,
}

/// What a peer knows about another one.
#[derive(Debug, Clone, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Its organisation.
    pub msp_id: String,
    /// Its identifier, hex.
    pub pki_id: String,
    /// "alive" or "dead".
    pub state: String,
    /// Where it says it can be reached.
    #[serde(default)]
    pub endpoint: String,
    /// Serial number of its certificate, hex.
    #[serde(default)]
    pub certificate_serial: String,
    /// Whether there is a connection to it now.
    #[serde(default)]
    pub connected: bool,
}

/// Asks the peer behind this socket; the error says why there is no answer.
pub(crate) fn ask(socket: &Path) -> Result<Status, String> {
    let line = exchange(socket, "{\"command\":\"status\"}\n").map_err(|error| error.to_string())?;
    let answer: serde_json::Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    if let Some(error) = answer.get("error") {
        return Err(format!("it answers: {error}"));
    }
    serde_json::from_value(answer).map_err(|error| error.to_string())
}

/// One request line, one answer line.
pub(crate) fn exchange(socket: &Path, request: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A peer that gives this answer to one request.
    fn answering(answer: &'static str) -> (tempfile::TempDir, std::thread::JoinHandle<String>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("admin.sock")).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        (directory, thread)
    }

    #[test]
    fn a_status_is_read_and_unknown_fields_are_ignored() {
        let (directory, thread) = answering(
            r#"{"peer":"peer0","msp_id":"Org1MSP","pki_id":"ab","version":"1","channels":[{"channel":"trade","height":7,"tip":"cd","leader":null,"leader_name":null,"is_leader":true,"members":3,"orderer":"o:1","new":1}],"members":[{"name":"peer1","msp_id":"Org1MSP","pki_id":"ef","state":"alive","endpoint":"h:1","connected":true}],"counters":{"x":5}}
"#,
        );
        let status = ask(&directory.path().join("admin.sock")).unwrap();
        assert_eq!(status.height("trade"), 7);
        assert_eq!(status.height("audit"), 0);
        assert!(status.channel("trade").unwrap().is_leader);
        assert_eq!(status.member("peer1").unwrap().state, "alive");
        assert_eq!(status.counters["x"], 5);
        assert_eq!(thread.join().unwrap(), "{\"command\":\"status\"}\n");
    }

    #[test]
    fn an_error_and_a_missing_socket_are_told() {
        let (directory, thread) = answering("{\"error\":\"busy\"}\n");
        assert!(ask(&directory.path().join("admin.sock")).unwrap_err().contains("busy"));
        thread.join().unwrap();
        assert!(ask(&directory.path().join("none.sock")).is_err());
    }
}
