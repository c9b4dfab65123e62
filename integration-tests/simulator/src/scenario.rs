//! What is simulated: organisations, channels, settings, load and faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_channels::dissemination::{DisseminationConfig, DisseminationMode};
use grapevine_channels::election::ElectionConfig;
use grapevine_channels::membership::MembershipConfig;
use grapevine_channels::node::NodeConfig;
use grapevine_channels::reconciliation::ReconciliationConfig;
use grapevine_channels::time::Time;

use crate::fault::Fault;
use crate::links::{Distance, LinkSettings};
use crate::truth::{ChannelIndex, PeerTruth, Site};

/// Who leads in an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// Whom the election finds (`useLeaderElection`).
    Elected,
    /// The peer at this place of the organisation (`orgLeader`).
    Static(usize),
    /// Nobody: the organisation lives from the others.
    Nobody,
}

/// An organisation.
#[derive(Debug, Clone)]
pub struct Organization {
    /// MSP id.
    pub name: String,
    /// Number of peers.
    pub peers: usize,
    /// The first so many peers have an external endpoint.
    pub visible: usize,
    /// Who leads.
    pub leadership: Leadership,
}

/// A channel.
#[derive(Debug, Clone)]
pub struct ChannelPlan {
    /// Its name.
    pub name: String,
    /// Its organisations, by place in the scenario.
    pub organizations: Vec<usize>,
    /// Anchor peers in its config; the external endpoint counts.
    pub anchors: Vec<Site>,
}

/// How peers, hosts and the orderer behave. [`Settings::default`] is what peer.yaml defaults to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time between own alive records.
    pub alive_interval: Duration,
    /// Silence after which a member is dead.
    pub alive_expiration: Duration,
    /// Time between dials of one endpoint.
    pub reconnect_interval: Duration,
    /// The election's times; who takes part comes from [`Organization::leadership`].
    pub election: ElectionConfig,
    /// Push and digests.
    pub dissemination: DisseminationConfig,
    /// Requests.
    pub reconciliation: ReconciliationConfig,
    /// Blocks above the committed height that are kept.
    pub block_buffer_size: u64,
    /// Committed blocks kept in memory.
    pub max_block_count_to_store: usize,
    /// A changed height is announced at most this often.
    pub publish_state_info_interval: Duration,
    /// Verification of one block.
    pub verify_cost: Duration,
    /// Verification of one header: a signature, by a peer with more than one core.
    pub header_cost: Duration,
    /// Verification of each further MB.
    pub verify_cost_per_mb: Duration,
    /// One synced write, however many blocks wait for it.
    pub disk_cost: Duration,
    /// Writing each MB.
    pub disk_cost_per_mb: Duration,
    /// A dial without answer fails after this time.
    pub dial_timeout: Duration,
    /// A connection that is cut in any direction breaks after this time.
    pub broken_after: Duration,
    /// A peer that misbehaved is kept out for this time.
    pub penalty: Duration,
    /// Blocks of one channel between the orderer's stream and the ledger.
    pub orderer_blocks_in_flight: usize,
    /// Bytes of them; a larger block goes alone.
    pub orderer_bytes_in_flight: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            alive_interval: ms(1_000),
            alive_expiration: ms(5_000),
            reconnect_interval: ms(1_000),
            election: ElectionConfig {
                use_leader_election: true,
                org_leader: false,
                startup_grace_period: ms(2_000),
                membership_sample_interval: ms(200),
                leader_alive_threshold: ms(1_200),
                leader_election_duration: ms(300),
            },
            dissemination: DisseminationConfig {
                mode: DisseminationMode::Grapevine,
                propagate_peer_num: 8,
                pull_interval: ms(1_000),
                pull_peer_num: 3,
                link_bits_per_second: 1_000_000_000,
            },
            reconciliation: ReconciliationConfig {
                enabled: true,
                check_interval: ms(500),
                response_timeout: ms(3_000),
                batch_size: 64,
                max_retries: 3,
            },
            block_buffer_size: 4_096,
            max_block_count_to_store: 100,
            publish_state_info_interval: ms(100),
            verify_cost: Duration::from_micros(300),
            header_cost: Duration::from_micros(60),
            verify_cost_per_mb: ms(1),
            disk_cost: ms(2),
            disk_cost_per_mb: ms(2),
            dial_timeout: ms(3_000),
            broken_after: ms(30_000),
            penalty: ms(10_000),
            orderer_blocks_in_flight: 32,
            orderer_bytes_in_flight: 16 << 20,
        }
    }
}

/// Everything a run depends on but the seed.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The organisations; peers are numbered through them in order.
    pub organizations: Vec<Organization>,
    /// The channels; every peer of their organisations joins at its start, but for [`Scenario::joins_later`].
    pub channels: Vec<ChannelPlan>,
    /// Latencies, unless the run is given some of its own.
    pub distance: Distance,
    /// Bandwidth, jitter, loss, slow peers; without limit and perfect unless said.
    pub links: LinkSettings,
    /// Behaviour.
    pub settings: Settings,
    /// Blocks the orderer makes in each channel.
    pub blocks: u64,
    /// Bytes of each.
    pub block_bytes: usize,
    /// Time between two of a channel.
    pub block_interval: Duration,
    /// When the first is made.
    pub first_block: Time,
    /// Blocks of each channel that the orderer and the peers have at the start, besides the first.
    pub history: u64,
    /// Peers that have nothing of it.
    pub behind: BTreeSet<Site>,
    /// Peers that start later than at zero.
    pub starts: BTreeMap<Site, Time>,
    /// Channels that peers join by [`Fault::Join`] only.
    pub joins_later: BTreeSet<(Site, ChannelIndex)>,
    /// Everybody who may be is connected at the start and knows the others, at no cost; heartbeats are yet to come.
    pub warm: bool,
    /// Nobody says anything of members, for runs that measure something else with members that do not change.
    pub frozen: bool,
    /// Peers that accept everything and never forward, announce, ask or answer.
    pub silent: BTreeSet<Site>,
    /// Peers that say all that is expected of them and never send a block.
    pub withholding: BTreeSet<Site>,
    /// Each ordered pair of peers in an organisation: the first does not know the second, with this probability.
    pub views_off: f64,
    /// How much faster each process's clock runs than true time, in millionths.
    pub clock_drift_ppm: BTreeMap<Site, i32>,
    /// Peers that send forged blocks and records.
    pub forgers: BTreeSet<Site>,
    /// What goes wrong, and when.
    pub faults: Vec<(Time, Fault)>,
    /// How long after the last fault and block everybody may take to get everything.
    pub settle: Duration,
}

impl Scenario {
    /// `organizations` of `peers_each`, all visible to each other, with elected leaders, in one channel `trade` whose
    /// anchors are the first peers; 50 blocks of 16 KB, ten a second, after 5 s.
    pub fn network(organizations: usize, peers_each: usize) -> Self {
        Self::sized(&vec![peers_each; organizations])
    }

    /// As [`Scenario::network`] with organisations of these sizes.
    pub fn sized(sizes: &[usize]) -> Self {
        let mut anchors = Vec::new();
        let mut next = 0;
        let organizations = sizes.iter().enumerate().map(|(number, peers)| {
            anchors.push(next);
            next += peers;
            Organization {
                name: format!("Org{}MSP", number + 1),
                peers: *peers,
                visible: *peers,
                leadership: Leadership::Elected,
            }
        });
        let organizations: Vec<Organization> = organizations.collect();
        let channels = vec![ChannelPlan {
            name: "trade".into(),
            organizations: (0..organizations.len()).collect(),
            anchors,
        }];
        Self {
            organizations,
            channels,
            distance: Distance::Lan,
            links: LinkSettings::default(),
            settings: Settings::default(),
            blocks: 50,
            block_bytes: 16_000,
            block_interval: Duration::from_millis(100),
            first_block: Time::from_millis(5_000),
            history: 0,
            behind: BTreeSet::new(),
            starts: BTreeMap::new(),
            joins_later: BTreeSet::new(),
            warm: false,
            frozen: false,
            silent: BTreeSet::new(),
            withholding: BTreeSet::new(),
            views_off: 0.0,
            clock_drift_ppm: BTreeMap::new(),
            forgers: BTreeSet::new(),
            faults: Vec::new(),
            settle: Duration::from_secs(60),
        }
    }

    /// Adds a channel of some organisations, with their first peers as anchors.
    #[must_use]
    pub fn with_channel(mut self, name: &str, organizations: &[usize]) -> Self {
        let anchors = organizations.iter().map(|number| self.first_of(*number)).collect();
        self.channels.push(ChannelPlan { name: name.into(), organizations: organizations.to_vec(), anchors });
        self
    }

    /// Adds a fault at `milliseconds`.
    #[must_use]
    pub fn at(mut self, milliseconds: u64, fault: Fault) -> Self {
        self.faults.push((Time::from_millis(milliseconds), fault));
        self
    }

    /// Sets who leads in every organisation.
    #[must_use]
    pub fn led_by(mut self, leadership: Leadership) -> Self {
        for organization in &mut self.organizations {
            organization.leadership = leadership;
        }
        self
    }

    /// Number of peers.
    pub fn peers(&self) -> usize {
        self.organizations.iter().map(|organization| organization.peers).sum()
    }

    /// The site of an organisation's first peer.
    pub fn first_of(&self, organization: usize) -> Site {
        self.organizations.iter().take(organization).map(|organization| organization.peers).sum()
    }

    /// A node's configuration. The first two others of the organisation are its bootstrap peers.
    pub(crate) fn node_config(&self, peer: &PeerTruth, peers: &[PeerTruth]) -> NodeConfig {
        let settings = &self.settings;
        let others =
            peers.iter().filter(|other| other.organization == peer.organization && other.place != peer.place);
        let leadership = self.organizations[peer.organization].leadership;
        NodeConfig {
            membership: MembershipConfig {
                network_id: "simulated".into(),
                internal_endpoint: peer.internal_endpoint.clone(),
                external_endpoint: peer.external_endpoint.clone(),
                bootstrap: others.take(2).map(|other| other.internal_endpoint.clone()).collect(),
                alive_interval: settings.alive_interval,
                alive_expiration: settings.alive_expiration,
                reconnect_interval: settings.reconnect_interval,
                fanout: settings.dissemination.propagate_peer_num.clamp(1, 4),
                connections_max: 512,
            },
            election: ElectionConfig {
                use_leader_election: leadership == Leadership::Elected,
                org_leader: leadership == Leadership::Static(peer.place),
                ..settings.election.clone()
            },
            dissemination: settings.dissemination.clone(),
            dissemination_modes: BTreeMap::new(),
            reconciliation: settings.reconciliation.clone(),
            block_buffer_size: settings.block_buffer_size,
            max_block_count_to_store: settings.max_block_count_to_store,
            halt_on_equivocation: false,
            publish_state_info_interval: settings.publish_state_info_interval,
        }
    }
}
