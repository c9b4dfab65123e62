//! From peer.yaml to the settings of the machines and the transport.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use grapevine_channels::dissemination::{DisseminationConfig, DisseminationMode};
use grapevine_channels::election::ElectionConfig;
use grapevine_channels::membership::MembershipConfig;
use grapevine_channels::node::NodeConfig;
use grapevine_channels::reconciliation::ReconciliationConfig;
use grapevine_configs::{OnEquivocation, PeerConfig};

use crate::ledger::LedgerLimits;
use crate::net::NetConfig;

/// Most peers that a membership record is sent on to.
const RECORD_FANOUT_MAX: usize = 4;

/// Connections after which members of other organisations are no longer dialled.
const CONNECTIONS_WANTED_MAX: usize = 512;
/// A changed height is announced at most this often.
const HEIGHT_ANNOUNCEMENT_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// The machines' settings. `listening` is the address the transport really listens on.
pub(super) fn node(config: &PeerConfig, listening: SocketAddr) -> anyhow::Result<NodeConfig> {
    let gossip = &config.peer.gossip;
    let internal = gossip.endpoint.as_ref().or(config.peer.address.as_ref());
    let internal_endpoint = match internal.filter(|endpoint| !endpoint.is_unspecified()) {
        Some(endpoint) => endpoint.to_string(),
        None if listening.ip().is_unspecified() => bail!(
            "peer.address is needed, because peer.listenAddress {listening} names no address others could dial: set it to host:port of this peer as its organisation reaches it"
        ),
        None => listening.to_string(),
    };
    Ok(NodeConfig {
        membership: MembershipConfig {
            network_id: config.network.id.clone(),
            internal_endpoint,
            external_endpoint: gossip.external_endpoint.as_ref().map(ToString::to_string).unwrap_or_default(),
            bootstrap: gossip.bootstrap.iter().map(ToString::to_string).collect(),
            alive_interval: gossip.alive_time_interval.as_duration(),
            alive_expiration: gossip.alive_expiration_timeout.as_duration(),
            reconnect_interval: gossip.reconnect_interval.as_duration(),
            // Records spread even where the push of blocks is switched off, and not wider where blocks do.
            fanout: gossip.propagate_peer_num.clamp(1, RECORD_FANOUT_MAX),
            connections_max: CONNECTIONS_WANTED_MAX,
        },
        election: ElectionConfig {
            use_leader_election: gossip.use_leader_election,
            org_leader: gossip.org_leader,
            startup_grace_period: gossip.election.startup_grace_period.as_duration(),
            membership_sample_interval: gossip.election.membership_sample_interval.as_duration(),
            leader_alive_threshold: gossip.election.leader_alive_threshold.as_duration(),
            leader_election_duration: gossip.election.leader_election_duration.as_duration(),
        },
        dissemination: DisseminationConfig {
            mode: mode(gossip.dissemination),
            propagate_peer_num: gossip.propagate_peer_num,
            pull_interval: gossip.pull_interval.as_duration(),
            pull_peer_num: gossip.pull_peer_num,
            link_bits_per_second: u64::from(gossip.link_mbit) * 1_000_000,
        },
        dissemination_modes: gossip
            .channel_dissemination
            .iter()
            .map(|(channel, way)| {
                let channel = channel
                    .parse()
                    .with_context(|| format!("peer.gossip.channelDissemination: {channel}"))?;
                Ok((channel, mode(*way)))
            })
            .collect::<anyhow::Result<_>>()?,
        reconciliation: ReconciliationConfig {
            enabled: gossip.state.enabled,
            check_interval: gossip.state.check_interval.as_duration(),
            response_timeout: gossip.state.response_timeout.as_duration(),
            batch_size: gossip.state.batch_size,
            max_retries: gossip.state.max_retries,
        },
        block_buffer_size: u64::try_from(gossip.state.block_buffer_size).context("state.blockBufferSize")?,
        max_block_count_to_store: gossip.max_block_count_to_store,
        halt_on_equivocation: gossip.on_equivocation == OnEquivocation::Halt,
        publish_state_info_interval: HEIGHT_ANNOUNCEMENT_INTERVAL,
    })
}

fn mode(mode: grapevine_configs::DisseminationMode) -> DisseminationMode {
    match mode {
        grapevine_configs::DisseminationMode::Grapevine => DisseminationMode::Grapevine,
        grapevine_configs::DisseminationMode::Classic => DisseminationMode::Classic,
        grapevine_configs::DisseminationMode::Direct => DisseminationMode::Direct,
    }
}

/// Where the transport's key lies.
pub(super) fn key_path(config: &PeerConfig) -> PathBuf {
    config.peer.file_system_path.join("libp2p.key")
}

/// The ledger thread's bounds.
pub(super) fn ledger(config: &PeerConfig) -> LedgerLimits {
    LedgerLimits { free_bytes_min: config.ledger.min_free_disk_space.as_bytes(), ..LedgerLimits::default() }
}

/// The transport's settings.
pub(super) fn net(config: &PeerConfig) -> NetConfig {
    NetConfig::new(config.peer.listen_address, config.network.id.clone(), key_path(config))
}
