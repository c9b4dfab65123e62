//! What is asked and answered over the admin socket.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A request as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum WireRequest {
    /// How the peer is doing.
    Status,
    /// Join a channel by its genesis block.
    Join {
        /// The block in base64, or the absolute path of a file that holds it. A block never starts with the byte that would
        /// make its base64 begin with a slash.
        block: String,
    },
    /// Join a channel whose genesis block another peer has.
    #[serde(rename = "join-anchor")]
    JoinByAnchor {
        /// Name of the channel.
        channel: String,
        /// `host:port` of the peer.
        anchor: String,
        /// Header hash of the genesis block, hex.
        genesis_hash: String,
    },
    /// Look at blocks of the ledger and mend what is wrong with them.
    Repair {
        /// Name of the channel.
        channel: String,
        /// Inclusive ranges of blocks, at most [`super::RANGES_MAX`].
        ranges: Vec<(u64, u64)>,
    },
}

/// A request as the driver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// How the peer is doing: answer [`AdminResponse::Status`].
    Status,
    /// Join a channel: answer [`AdminResponse::Joined`].
    Join {
        /// The encoded genesis block, not yet looked at.
        block: Bytes,
    },
    /// Fetch a genesis block from another peer and join: answer [`AdminResponse::Joined`].
    JoinByAnchor {
        /// Name of the channel, not yet looked at.
        channel: String,
        /// Endpoint of the peer, not yet looked at.
        anchor: String,
        /// Hex, not yet looked at.
        genesis_hash: String,
    },
    /// Mend blocks of the ledger: answer [`AdminResponse::Repairing`].
    Repair {
        /// Name of the channel, not yet looked at.
        channel: String,
        /// Inclusive ranges of blocks.
        ranges: Vec<(u64, u64)>,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AdminResponse {
    /// The channel is joined, or was before.
    Joined {
        /// Name of the channel.
        joined: String,
    },
    /// The blocks are being looked at; what is damaged is fetched, and counted in [`ChannelStatus::damaged`] until it is there.
    Repairing {
        /// Number of blocks named.
        repairing: u64,
    },
    /// It did not work.
    Error {
        /// One line that says what to do.
        error: String,
    },
    /// How the peer is doing.
    Status(Box<Status>),
}

/// A request on its way to the driver, with the way back.
#[derive(Debug)]
pub struct AdminCall {
    /// What is asked.
    pub request: AdminRequest,
    /// Where the answer goes; dropping it answers with an error.
    pub answer: oneshot::Sender<AdminResponse>,
}

/// How a running peer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `peer.id`.
    pub peer: String,
    /// MSP ID of the peer's organisation.
    pub msp_id: String,
    /// PKI-ID of the peer, hex.
    pub pki_id: String,
    /// Serial number of the certificate in use, hex.
    #[serde(default)]
    pub certificate_serial: String,
    /// Last second of its validity, Unix seconds.
    #[serde(default)]
    pub certificate_not_after: i64,
    /// Version of the program.
    pub version: String,
    /// What an operator must know of, each in plain words; empty if all is well.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether blocks are taken into the ledger; if not, the warnings say why.
    #[serde(default)]
    pub ledger_takes_blocks: bool,
    /// Bytes free on the ledger's disk, if that is known.
    #[serde(default)]
    pub disk_free_bytes: Option<u64>,
    /// Channels joined, by name.
    pub channels: Vec<ChannelStatus>,
    /// Other peers known, by name.
    pub members: Vec<MemberStatus>,
    /// Everything that is counted, by name.
    pub counters: BTreeMap<String, u64>,
}

/// How a channel of a running peer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Name of the channel.
    pub channel: String,
    /// Blocks committed.
    pub height: u64,
    /// Header hash of the last block, hex.
    pub tip: String,
    /// PKI-ID (hex) of the organisation's leader, if one is known.
    pub leader: Option<String>,
    /// Common name of the leader, if known.
    pub leader_name: Option<String>,
    /// Whether this peer is the leader.
    pub is_leader: bool,
    /// Why the leader leads, if one is known.
    #[serde(default)]
    pub leadership: Option<LeadershipStatus>,
    /// Live peers of the channel, this one included.
    pub members: u64,
    /// Orderer this peer pulls blocks from at the moment.
    pub orderer: Option<String>,
    /// Whether the channel is level with what others have and its tip was confirmed.
    #[serde(default)]
    pub ready: bool,
    /// Why it is not, with numbers.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// How it catches up, while blocks are missing.
    #[serde(default)]
    pub progress: Option<CatchUp>,
    /// Damaged blocks of the ledger that are being fetched from other peers.
    #[serde(default)]
    pub damaged: u64,
    /// Damaged blocks that have been put back since the start.
    #[serde(default)]
    pub restored: u64,
    /// Whether a repair that an operator asked for is still looking.
    #[serde(default)]
    pub repairing: bool,
    /// Why the channel stands still, if it was stopped.
    #[serde(default)]
    pub stopped: Option<String>,
    /// Numbers at which the orderers signed two blocks, as far as evidence is kept.
    #[serde(default)]
    pub equivocations: Vec<Equivocation>,
}

/// A block of a channel that its orderers signed and that contradicts the own chain: another one stands at its number, or
/// it does not follow the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equivocation {
    /// Number of both.
    pub number: u64,
    /// Header hash of the committed one, hex; `None` while the ledger has no block of this number.
    pub kept: Option<String>,
    /// Header hash of the other one, hex.
    pub other: String,
}

/// Why a peer leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadershipStatus {
    /// Counter of its term; the other half is its PKI-ID.
    pub term: u64,
    /// For how long, in seconds, as this peer knows.
    pub seconds: u64,
    /// Its ledger height, as it said last.
    pub height: u64,
    /// Milliseconds between it and its orderer, as it said last.
    pub orderer_round_trip_ms: Option<u64>,
    /// Why it leads, in words.
    pub reason: Option<String>,
    /// This peer does not hear it, but others do and say so.
    pub hearsay: bool,
}

/// How a channel catches up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUp {
    /// Blocks others claim to have, as far as they are believed.
    pub claimed: u64,
    /// Blocks proven to exist by verified headers.
    pub proven: u64,
    /// Connected members that claim the next missing block.
    pub sources: u64,
    /// Blocks committed a second, averaged over some seconds.
    pub blocks_per_s: u64,
    /// Bytes committed a second.
    pub bytes_per_s: u64,
    /// Seconds left at this speed, if it is known.
    pub left_s: Option<u64>,
}

/// Characters of the bar.
const BAR_WIDTH: usize = 30;

impl CatchUp {
    /// Bar, blocks, speed and time left of a channel that catches up.
    pub fn line(&self, height: u64) -> String {
        let total = self.claimed.max(1);
        let share = (height.min(total) as f64) / (total as f64);
        let filled = ((share * BAR_WIDTH as f64) as usize).min(BAR_WIDTH);
        let left = match self.left_s {
            Some(left_s) => format!("{}:{:02} left", left_s / 60, left_s % 60),
            None => "time left unknown".to_owned(),
        };
        format!(
            "[{}{}] {height} of {} blocks, {} blocks/s, {:.1} MB/s from {} sources, {left}",
            "#".repeat(filled),
            "-".repeat(BAR_WIDTH.saturating_sub(filled)),
            self.claimed,
            self.blocks_per_s,
            self.bytes_per_s as f64 / 1e6,
            self.sources,
        )
    }
}

/// What a running peer knows about another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Subject common name.
    pub name: String,
    /// MSP ID.
    pub msp_id: String,
    /// PKI-ID, hex.
    pub pki_id: String,
    /// Whether it has been heard of lately.
    pub state: MemberState,
    /// Where it says it can be reached.
    pub endpoint: String,
    /// Serial number of its certificate, hex.
    #[serde(default)]
    pub certificate_serial: String,
    /// Whether there is a connection to it now.
    pub connected: bool,
    /// While it is suspected: the common names, or PKI-IDs, of those who say that it is silent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspected_by: Vec<String>,
}

/// Whether a member has been heard of lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It was heard of.
    Alive,
    /// It seems silent and may yet refute that.
    Suspect,
    /// It is silent.
    Dead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_catches_up_shows_a_bar_and_the_time_left() {
        let catch_up = CatchUp {
            claimed: 1_000,
            proven: 600,
            sources: 4,
            blocks_per_s: 50,
            bytes_per_s: 5_000_000,
            left_s: Some(75),
        };
        let line = catch_up.line(500);
        assert_eq!(
            line,
            "[###############---------------] 500 of 1000 blocks, 50 blocks/s, 5.0 MB/s from 4 sources, 1:15 left"
        );
        assert!(CatchUp::default().line(u64::MAX).contains("unknown"));
    }

    #[test]
    fn wire_forms_are_the_documented_ones() {
        let status: WireRequest = serde_json::from_str(r#"{"command":"status"}"#).unwrap();
        assert_eq!(status, WireRequest::Status);
        let join: WireRequest = serde_json::from_str(r#"{"command":"join","block":"Cg=="}"#).unwrap();
        assert_eq!(join, WireRequest::Join { block: "Cg==".to_owned() });
        let repair: WireRequest =
            serde_json::from_str(r#"{"command":"repair","channel":"trade","ranges":[[2,5]]}"#).unwrap();
        assert_eq!(repair, WireRequest::Repair { channel: "trade".to_owned(), ranges: vec![(2, 5)] });
        assert!(serde_json::from_str::<WireRequest>(r#"{"command":"stop"}"#).is_err());

        let joined = AdminResponse::Joined { joined: "trade".to_owned() };
        assert_eq!(serde_json::to_string(&joined).unwrap(), r#"{"joined":"trade"}"#);
        let repairing = AdminResponse::Repairing { repairing: 4 };
        let line = serde_json::to_string(&repairing).unwrap();
        assert_eq!(line, r#"{"repairing":4}"#);
        assert_eq!(serde_json::from_str::<AdminResponse>(&line).unwrap(), repairing);
        let refused = AdminResponse::Error { error: "no".to_owned() };
        assert_eq!(serde_json::to_string(&refused).unwrap(), r#"{"error":"no"}"#);
    }

    #[test]
    fn status_survives_the_wire() {
        let member = MemberStatus {
            name: "peer1".to_owned(),
            msp_id: "Org1MSP".to_owned(),
            pki_id: "ab".to_owned(),
            state: MemberState::Dead,
            endpoint: "127.0.0.1:1".to_owned(),
            certificate_serial: "0a".to_owned(),
            connected: false,
            suspected_by: Vec::new(),
        };
        let status = Status {
            peer: "peer0".to_owned(),
            channels: vec![ChannelStatus { channel: "trade".to_owned(), height: 3, ..Default::default() }],
            members: vec![member],
            ..Default::default()
        };
        let line = serde_json::to_string(&AdminResponse::Status(Box::new(status.clone()))).unwrap();
        assert!(line.contains(r#""leader":null"#) && line.contains(r#""state":"dead""#));
        let back: AdminResponse = serde_json::from_str(&line).unwrap();
        assert_eq!(back, AdminResponse::Status(Box::new(status)));
    }
}
