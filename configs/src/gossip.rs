//! `peer.gossip`: how a peer keeps company with the others.
//!
//! Names are Fabric's where the meaning is the same; defaults are ours, in one place ([`GossipConfig::default`]),
//! made for networks where a message takes milliseconds and an operator expects a takeover within seconds.
//!
//! | Key | Fabric | Ours | Why |
//! |---|---|---|---|
//! | bootstrap | 127.0.0.1:7051 | none | a peer's own address is no help; peers of other organisations come from the anchor peers |
//! | endpoint | peer.address | peer.address, then peer.listenAddress | one address is enough on most machines |
//! | externalEndpoint | none | none | empty keeps the peer invisible to other organisations, as in Fabric |
//! | useLeaderElection | false | true | a dead static leader stops its organisation; election heals itself |
//! | orgLeader | true | false | excludes the above |
//! | dissemination | none | grapevine | ours alone: how new blocks travel; `classic` is Fabric's gossip, with `direct` every peer pulls from the orderer |
//! | channelDissemination | none | none | ours alone: channels with another way, as `channel: way` |
//! | linkMbit | none | 1000 | ours alone: Mbit/s of the peers' links, for plans; four times wrong costs half as much again at worst |
//! | propagatePeerNum | 3 | 8 | children of a peer in a block's delivery plan; a leader with bandwidth to spare takes more; 0 turns push off |
//! | pullInterval | 4s | 1s | a digest costs some dozens of bytes; a missed push should not cost four seconds |
//! | pullPeerNum | 3 | 3 | |
//! | maxBlockCountToStore | 10 | 100 | at a hundred small blocks a second, ten are a tenth of a second |
//! | aliveTimeInterval | 5s | 1s | time between two looks at each watched member; own records are signed anew every 3 × members such intervals |
//! | aliveExpirationTimeout | 25s | 5s | five intervals, as in Fabric; grows with the members like the interval of records, and counts only for members that nobody watches |
//! | reconnectInterval | 25s | 1s | a restarted peer should be back at once; one dial a second to a dead one is nothing |
//! | election.startupGracePeriod | 15s | 2s | longest wait for a stable view before the first election |
//! | election.membershipSampleInterval | 1s | 200ms | |
//! | election.leaderAliveThreshold | 10s | 1200ms | the lease: silence before the others elect again; five declarations fit in |
//! | election.leaderElectionDuration | 5s | 300ms | some round trips of a slow network |
//! | state.enabled | false | true | without it a gap stays until the orderer is asked |
//! | state.checkInterval | 10s | 500ms | heights travel anyway; comparing them is free |
//! | state.responseTimeout | 3s | 3s | silence of all sources; one that is silent while others answer is given up at 1.5 times the usual time |
//! | state.batchSize | 10 | 64 | blocks in one request; a source may have several open, its window is counted in bytes |
//! | state.blockBufferSize | 20 | 4096 | blocks that wait for an earlier one; their bytes are bounded apart, over all channels |
//! | state.maxRetries | 3 | 3 | |
//! | onEquivocation | none | alarm | ours alone: what to do when orderers sign two blocks at one number; `halt` stops the channel at once |

use std::collections::BTreeMap;

use serde::Serialize;

use crate::document::{Node, Value};
use crate::endpoint::Endpoint;
use crate::error::{ConfigError, Finding};
use crate::reader::{Foreign, Reader, Scalar, Section, Source};
use crate::units::Period;

/// `peer.gossip`. The module's documentation has the table of defaults and reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GossipConfig {
    /// Peers of the own organisation that are contacted at start and never forgotten.
    pub bootstrap: Vec<Endpoint>,
    /// Address for peers of the own organisation; by default `peer.address`, else `peer.listenAddress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Address for peers of other organisations; without it they do not learn of this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_endpoint: Option<Endpoint>,
    /// Whether the peers of the organisation elect, for each channel, the one that pulls from the orderer.
    pub use_leader_election: bool,
    /// Whether this peer pulls from the orderer without election. Excludes `useLeaderElection`.
    pub org_leader: bool,
    /// How new blocks travel. Ours alone.
    pub dissemination: DisseminationMode,
    /// Channels in which they travel in another way. Ours alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub channel_dissemination: BTreeMap<String, DisseminationMode>,
    /// Speed of the links of the organisation's peers, in Mbit/s; plans reckon with it. Ours alone.
    pub link_mbit: u32,
    /// Most peers that a peer sends a new block to; a leader with bandwidth to spare sends it to more. 0 turns push off.
    pub propagate_peer_num: usize,
    /// Time between two digest rounds and membership exchanges.
    pub pull_interval: Period,
    /// Peers asked in such a round.
    pub pull_peer_num: usize,
    /// Newest blocks of each channel kept in memory to answer digests.
    pub max_block_count_to_store: usize,
    /// Time between two looks at each watched member; records are spread in multiples of it.
    pub alive_time_interval: Period,
    /// Age of a record after which a member that nobody watches counts as dead; grows with the members.
    pub alive_expiration_timeout: Period,
    /// Time between two attempts to reach dead or missing peers.
    pub reconnect_interval: Period,
    /// `peer.gossip.election`.
    pub election: ElectionConfig,
    /// `peer.gossip.state`.
    pub state: StateConfig,
    /// What to do when orderers sign two blocks at one number. Ours alone.
    pub on_equivocation: OnEquivocation,
}

/// `peer.gossip.onEquivocation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnEquivocation {
    /// Keep the first block and the evidence, raise an alarm, and stop the channel only when the orderers follow the other.
    #[default]
    Alarm,
    /// Stop the channel at once.
    Halt,
}

impl Scalar for OnEquivocation {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) if text.eq_ignore_ascii_case("alarm") => Ok(Self::Alarm),
            Value::Text(text) if text.eq_ignore_ascii_case("halt") => Ok(Self::Halt),
            _ => Err("is not known; write alarm or halt".to_owned()),
        }
    }
}

/// `peer.gossip.dissemination`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DisseminationMode {
    /// By the leader's delivery plan, with announcements and repair.
    #[default]
    Grapevine,
    /// As Fabric's gossip does: push to a few random peers, periodic pull.
    Classic,
    /// Not between peers: every peer pulls from the orderer.
    Direct,
}

impl Scalar for DisseminationMode {
    fn read(value: &Value) -> Result<Self, String> {
        let Value::Text(text) = value else {
            return Err("is not known; write grapevine, classic or direct".to_owned());
        };
        match text.to_ascii_lowercase().as_str() {
            "grapevine" => Ok(Self::Grapevine),
            "classic" => Ok(Self::Classic),
            "direct" => Ok(Self::Direct),
            _ => Err("is not known; write grapevine, classic or direct".to_owned()),
        }
    }
}

/// `peer.gossip.election`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ElectionConfig {
    /// Longest wait after start for the membership view to settle before the first election.
    pub startup_grace_period: Period,
    /// Time between two looks at the view; equal ones mean it has settled.
    pub membership_sample_interval: Period,
    /// Silence of the leader after which the others elect again.
    pub leader_alive_threshold: Period,
    /// How long candidates listen to each other before the best declares itself.
    pub leader_election_duration: Period,
}

/// `peer.gossip.state`: fetching missing blocks from other peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateConfig {
    /// Whether missing blocks are fetched from peers at all.
    pub enabled: bool,
    /// Time between two comparisons of the own height with those of others.
    pub check_interval: Period,
    /// Silence of all sources after which a request is given up; of one alone much earlier.
    pub response_timeout: Period,
    /// Blocks in one request; a source may have several open.
    pub batch_size: usize,
    /// Blocks that may wait in memory for an earlier one.
    pub block_buffer_size: usize,
    /// Failures in a row after which a source's rest grows no further.
    pub max_retries: u32,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            endpoint: None,
            external_endpoint: None,
            use_leader_election: true,
            org_leader: false,
            dissemination: DisseminationMode::Grapevine,
            channel_dissemination: BTreeMap::new(),
            link_mbit: 1_000,
            propagate_peer_num: 8,
            pull_interval: Period::seconds(1),
            pull_peer_num: 3,
            max_block_count_to_store: 100,
            alive_time_interval: Period::seconds(1),
            alive_expiration_timeout: Period::seconds(5),
            reconnect_interval: Period::seconds(1),
            election: ElectionConfig {
                startup_grace_period: Period::seconds(2),
                membership_sample_interval: Period::milliseconds(200),
                leader_alive_threshold: Period::milliseconds(1200),
                leader_election_duration: Period::milliseconds(300),
            },
            state: StateConfig {
                enabled: true,
                check_interval: Period::milliseconds(500),
                response_timeout: Period::seconds(3),
                batch_size: 64,
                block_buffer_size: 4_096,
                max_retries: 3,
            },
            on_equivocation: OnEquivocation::Alarm,
        }
    }
}

/// Shortest interval that makes sense for a timer; below it a peer only burns its processor.
const INTERVAL_MIN: Period = Period::milliseconds(10);

/// Largest value of a count of peers or blocks; above it the setting is a slip of the hand, and memory would go.
const COUNT_MAX: usize = 10_000;

impl GossipConfig {
    pub(crate) fn read(gossip: &mut Section<'_, '_>, base: Self) -> Self {
        Self {
            bootstrap: gossip.list("bootstrap").unwrap_or(base.bootstrap),
            endpoint: gossip.optional("endpoint").or(base.endpoint),
            external_endpoint: gossip.optional("externalEndpoint").or(base.external_endpoint),
            use_leader_election: gossip.value("useLeaderElection", base.use_leader_election),
            org_leader: gossip.value("orgLeader", base.org_leader),
            dissemination: gossip.value("dissemination", base.dissemination),
            channel_dissemination: gossip
                .values("channelDissemination")
                .unwrap_or(base.channel_dissemination),
            link_mbit: gossip.value("linkMbit", base.link_mbit),
            propagate_peer_num: gossip.value("propagatePeerNum", base.propagate_peer_num),
            pull_interval: gossip.value("pullInterval", base.pull_interval),
            pull_peer_num: gossip.value("pullPeerNum", base.pull_peer_num),
            max_block_count_to_store: gossip.value("maxBlockCountToStore", base.max_block_count_to_store),
            alive_time_interval: gossip.value("aliveTimeInterval", base.alive_time_interval),
            alive_expiration_timeout: gossip.value("aliveExpirationTimeout", base.alive_expiration_timeout),
            reconnect_interval: gossip.value("reconnectInterval", base.reconnect_interval),
            election: ElectionConfig::read(&mut gossip.section("election"), &base.election),
            state: StateConfig::read(&mut gossip.section("state"), &base.state),
            on_equivocation: gossip.value("onEquivocation", base.on_equivocation),
        }
    }

    /// What is wrong with the values, each with its key below `path`.
    pub(crate) fn findings(&self, path: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |key: &str, message: String| found.push((format!("{path}.{key}"), message));
        if self.use_leader_election && self.org_leader {
            say(
                "orgLeader",
                "useLeaderElection and orgLeader are both true; set one of them to false".to_owned(),
            );
        }
        let (election, state) = (&self.election, &self.state);
        for (key, interval) in [
            ("pullInterval", self.pull_interval),
            ("aliveTimeInterval", self.alive_time_interval),
            ("reconnectInterval", self.reconnect_interval),
            ("election.membershipSampleInterval", election.membership_sample_interval),
            ("election.leaderAliveThreshold", election.leader_alive_threshold),
            ("election.leaderElectionDuration", election.leader_election_duration),
            ("state.checkInterval", state.check_interval),
            ("state.responseTimeout", state.response_timeout),
        ] {
            if interval < INTERVAL_MIN {
                say(key, format!("{interval} is too short; the shortest is {INTERVAL_MIN}"));
            }
        }
        if self.alive_expiration_timeout.as_nanos() / 2 < self.alive_time_interval.as_nanos() {
            let message = format!(
                "{} is less than two heartbeats (aliveTimeInterval is {}), so that every peer would look dead; five are usual",
                self.alive_expiration_timeout, self.alive_time_interval
            );
            say("aliveExpirationTimeout", message);
        }
        for (key, count, least) in [
            ("propagatePeerNum", self.propagate_peer_num, 0),
            ("pullPeerNum", self.pull_peer_num, 1),
            ("maxBlockCountToStore", self.max_block_count_to_store, 1),
            ("state.batchSize", state.batch_size, 1),
            ("state.blockBufferSize", state.block_buffer_size, 1),
        ] {
            if !(least..=COUNT_MAX).contains(&count) {
                say(key, format!("{count} is out of range; write {least} to {COUNT_MAX}"));
            }
        }
        if self.link_mbit == 0 {
            say("linkMbit", "0 is out of range; write the speed of the links in Mbit/s".to_owned());
        }
        if state.block_buffer_size < state.batch_size {
            let message = format!(
                "{} is less than state.batchSize ({}), so that an answer would not fit; make it larger",
                state.block_buffer_size, state.batch_size
            );
            say("state.blockBufferSize", message);
        }
        for (key, endpoint) in [("endpoint", &self.endpoint), ("externalEndpoint", &self.external_endpoint)] {
            if let Some(endpoint) = endpoint.as_ref().filter(|endpoint| endpoint.is_unspecified()) {
                say(key, format!("nobody can reach {endpoint}; write the name or address of this machine"));
            }
        }
        found
    }
}

impl ElectionConfig {
    fn read(election: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            startup_grace_period: election.value("startupGracePeriod", base.startup_grace_period),
            membership_sample_interval: election
                .value("membershipSampleInterval", base.membership_sample_interval),
            leader_alive_threshold: election.value("leaderAliveThreshold", base.leader_alive_threshold),
            leader_election_duration: election.value("leaderElectionDuration", base.leader_election_duration),
        }
    }
}

impl StateConfig {
    fn read(state: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            enabled: state.value("enabled", base.enabled),
            check_interval: state.value("checkInterval", base.check_interval),
            response_timeout: state.value("responseTimeout", base.response_timeout),
            batch_size: state.value("batchSize", base.batch_size),
            block_buffer_size: state.value("blockBufferSize", base.block_buffer_size),
            max_retries: state.value("maxRetries", base.max_retries),
        }
    }
}

/// Some keys of `peer.gossip`, to be laid over a [`GossipConfig`]: what `network.yaml` says for all peers or one.
///
/// Keys and values are those of the file; nested sections are nested objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct GossipOverrides(pub BTreeMap<String, serde_json::Value>);

impl GossipOverrides {
    /// True if nothing is overridden.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the section `key` of a file; wrong values are reported with their place.
    pub(crate) fn read(parent: &mut Section<'_, '_>, key: &str) -> Self {
        GossipConfig::read(&mut parent.section(key), GossipConfig::default());
        match parent.raw(key).map(Node::to_json) {
            Some(serde_json::Value::Object(map)) => Self(map.into_iter().collect()),
            _ => Self::default(),
        }
    }

    /// `base` with these keys replaced.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if a key is unknown or a value has the wrong form.
    pub fn apply(&self, base: GossipConfig) -> Result<GossipConfig, ConfigError> {
        let node = Node::from_json(&self.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
        let source = Source { name: "", directory: None, prefix: None };
        let mut reader = Reader::new(&source, std::iter::empty());
        let config = GossipConfig::read(&mut reader.root(&node), base);
        reader.finish(&node, &Foreign::NOTHING, Vec::new)?;
        Ok(config)
    }
}
