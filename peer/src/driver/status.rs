//! What a running peer says about itself over the admin socket.

use std::collections::BTreeMap;

use grapevine_channels::ChannelId;
use grapevine_channels::membership;
use grapevine_channels::node::AnchorTrouble;
use grapevine_channels::reconciliation::Progress;
use grapevine_crypto::MspId;

use super::core::Core;
use crate::admin::{CatchUp, ChannelStatus, LeadershipStatus, MemberState, MemberStatus, Status};
use crate::ledger::{LedgerState, free_bytes};

/// The state of the peer at this moment.
pub(super) fn status(core: &Core) -> Status {
    let identity = core.trust.identity();
    let mut members: Vec<MemberStatus> = core
        .node
        .membership()
        .members()
        .iter()
        .map(|(pki_id, member)| MemberStatus {
            name: member.credential.name.clone(),
            msp_id: member.credential.msp_id.to_string(),
            pki_id: pki_id.to_string(),
            state: match member.state {
                membership::MemberState::Alive => MemberState::Alive,
                membership::MemberState::Suspect => MemberState::Suspect,
                membership::MemberState::Dead => MemberState::Dead,
            },
            endpoint: member.endpoint().unwrap_or_default().to_owned(),
            certificate_serial: hex::encode(&member.credential.serial),
            connected: core.node.membership().is_connected(pki_id),
            suspected_by: core.node.membership().accusers(pki_id).iter().map(|by| core.name(by)).collect(),
        })
        .collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    Status {
        peer: core.config.peer.id.clone(),
        msp_id: identity.msp_id().to_string(),
        pki_id: identity.pki_id().to_string(),
        certificate_serial: hex::encode(identity.certificate().serial()),
        certificate_not_after: identity.certificate().not_after(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        warnings: warnings(core),
        ledger_takes_blocks: core.ledger_thread.state() == LedgerState::Writing,
        disk_free_bytes: free_bytes(core.ledger.path()),
        channels: core.ledger.channels().iter().map(|id| channel(core, id)).collect(),
        members,
        counters: counters(core),
    }
}

/// What an operator must know of.
fn warnings(core: &Core) -> Vec<String> {
    let mebibytes = |bytes: u64| bytes >> 20;
    let ledger = match core.ledger_thread.state() {
        LedgerState::Writing => None,
        LedgerState::LowDisk { free, needed } => Some(format!(
            "NOT TAKING BLOCKS: the disk of {} has {} MiB left, {} MiB are needed (ledger.minFreeDiskSpace); free some space, it goes on by itself",
            core.ledger.path().display(),
            mebibytes(free),
            mebibytes(needed)
        )),
        LedgerState::Failing { error } => {
            Some(format!("NOT TAKING BLOCKS: {error}; writing is tried again all the time"))
        }
    };
    let damaged = core.ledger.damaged().len();
    let damaged = (damaged > 0).then(|| {
        format!("{damaged} stored blocks are damaged; they are not handed out and are being fetched from other peers")
    });
    let found = ledger.into_iter().chain(damaged).chain(core.former_self.clone());
    let anchors = core.node.channels().flat_map(|id| {
        let troubles = core.node.anchor_troubles(id).into_iter();
        troubles.map(move |(organization, trouble)| {
            format!("channel {id}: {}", anchor_text(&organization, &trouble))
        })
    });
    found.chain(core.certificate_warnings()).chain(member_warnings(core)).chain(anchors).collect()
}

/// What is wrong with the anchors of an organisation, for the operator.
pub(super) fn anchor_text(organization: &MspId, trouble: &AnchorTrouble) -> String {
    match trouble {
        AnchorTrouble::Missing => format!(
            "{organization} lists no anchor peer: other organisations find its peers only if these dial them; add one by a config update"
        ),
        AnchorTrouble::Silent => format!(
            "no anchor peer of {organization} answers: start one, or change the list by a config update"
        ),
        AnchorTrouble::Foreign { endpoint, organization: other } => format!(
            "a peer of {other} answers at {endpoint}, which {organization} lists as its anchor peer: correct the list by a config update"
        ),
    }
}

/// Members that seem to be set up wrongly, and this one's own double.
fn member_warnings(core: &Core) -> Vec<String> {
    let membership = core.node.membership();
    let unreachable = membership.members().values().filter(|member| member.unreachable).map(|member| {
        format!(
            "{} lives, but nobody answers at the address it advertises, {}: set peer.gossip.endpoint or externalEndpoint there to one that others can reach",
            member.credential.name,
            member.endpoint().unwrap_or_default()
        )
    });
    membership.alarm(core.now()).map(ToOwned::to_owned).into_iter().chain(unreachable).collect()
}

fn channel(core: &Core, id: &ChannelId) -> ChannelStatus {
    let leader = core.node.leader(id).map(|term| term.leader);
    let own = core.trust.identity();
    let leader_name = leader.and_then(|leader| {
        if leader == own.pki_id() {
            return own.certificate().subject_common_name().map(ToOwned::to_owned);
        }
        core.node.membership().member(&leader).map(|member| member.credential.name.clone())
    });
    let tip = core.ledger.tip(id);
    let not_ready = not_ready(core, id);
    ChannelStatus {
        channel: id.to_string(),
        height: core.ledger.height(id),
        tip: tip.map(|(_, hash)| hash.to_string()).unwrap_or_default(),
        leader: leader.map(|leader| leader.to_string()),
        leader_name,
        is_leader: core.node.is_leader(id),
        leadership: leadership(core, id),
        members: u64::try_from(core.node.channel_members(id).len()).unwrap_or(u64::MAX).saturating_add(1),
        orderer: core.orderers.endpoint(id).map(ToOwned::to_owned),
        ready: not_ready.is_none(),
        not_ready,
        progress: core.node.progress(id).filter(|progress| progress.claimed > progress.height).map(catch_up),
        damaged: core.ledger.damaged().iter().fold(0, |sum, (of, _)| sum + u64::from(of == id)),
        restored: core.node.restoration(id).map_or(0, |(_, restored)| restored),
        repairing: core.is_repairing(id),
        stopped: core.halted.get(id).cloned(),
        equivocations: core.alarms.of(id, &core.ledger),
    }
}

fn leadership(core: &Core, id: &ChannelId) -> Option<LeadershipStatus> {
    let account = core.node.leader_account(id)?;
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Some(LeadershipStatus {
        term: account.term.counter,
        seconds: core.now().since(account.since).as_secs(),
        height: account.height,
        orderer_round_trip_ms: account.orderer_round_trip.map(milliseconds),
        reason: account.reason.map(|reason| reason.words().to_owned()),
        hearsay: account.hearsay,
    })
}

/// Progress as an operator reads it.
pub(super) fn catch_up(progress: Progress) -> CatchUp {
    CatchUp {
        claimed: progress.claimed,
        proven: progress.proven,
        sources: u64::try_from(progress.sources).unwrap_or(u64::MAX),
        blocks_per_s: progress.blocks_per_s as u64,
        bytes_per_s: progress.bytes_per_s as u64,
        left_s: progress.left.map(|left| left.as_secs()),
    }
}

/// What keeps a channel from being ready, in words for the operator.
pub(super) fn not_ready(core: &Core, id: &ChannelId) -> Option<String> {
    match core.halted.get(id) {
        Some(reason) => Some(format!("stopped: {reason}")),
        None => core.node.not_ready(id).map(|reason| reason.to_string()),
    }
}

fn counters(core: &Core) -> BTreeMap<String, u64> {
    let mut counters: BTreeMap<String, u64> = core.net.counters().snapshot().into_iter().collect();
    let gauges = core.net.gauges();
    counters.extend(gauges.map(|(name, bytes)| (name.to_owned(), u64::try_from(bytes).unwrap_or(u64::MAX))));
    let node = core.node.counters();
    let membership = core.node.membership().counters();
    let ledger = core.ledger_thread.counters();
    let plain = [
        ("node_malformed", node.malformed),
        ("node_unlinked_frames", node.unlinked_frames),
        ("node_duplicate_blocks", node.duplicate_blocks),
        ("node_verifying_over_bound", node.verifying_over_bound),
        ("node_comparing_over_bound", node.comparing_over_bound),
        ("node_guests_over_bound", node.guests_over_bound),
        ("node_renewals_refused", node.renewals_refused),
        ("node_blocks_rejected", node.blocks_rejected),
        ("node_blocks_pushed", node.blocks_pushed),
        ("node_blocks_served", node.blocks_served),
        ("membership_refutations", membership.refutations),
        ("membership_suspects_cleared", membership.suspects_cleared),
        ("membership_local_health", core.node.membership().local_health().into()),
        ("membership_records_rejected", membership.records_rejected),
        ("membership_records_stale", membership.records_stale),
        ("membership_members_over_bound", membership.members_over_bound),
        ("membership_unknown_over_bound", membership.unknown_over_bound),
        ("ledger_queue_full", ledger.queue_full),
        ("ledger_refused", ledger.refused),
        ("ledger_blocks", ledger.blocks),
        ("ledger_bytes", ledger.bytes),
        ("ledger_syncs", ledger.syncs),
        ("ledger_low_disk", ledger.low_disk),
        ("ledger_reopened", ledger.reopened),
    ];
    counters.extend(plain.map(|(name, value)| (name.to_owned(), value)));
    if let Some(server) = &core.deliver_server {
        let deliver = server.counters();
        let of_clients = [
            ("deliver_streams", deliver.streams),
            ("deliver_streams_refused", deliver.streams_refused),
            ("deliver_streams_cut", deliver.streams_cut),
            ("deliver_connections_refused", deliver.connections_refused),
            ("deliver_blocks_sent", deliver.blocks_sent),
            ("deliver_blocks_read", deliver.blocks_read),
            ("deliver_frame_bytes", deliver.frame_bytes),
        ];
        counters.extend(of_clients.map(|(name, value)| (name.to_owned(), value)));
    }
    for id in core.node.channels() {
        let Some((chain, reconciliation)) = core.node.channel_counters(id) else { continue };
        let of_channel = [
            ("chain_too_far", chain.too_far),
            ("chain_unlinked", chain.unlinked),
            ("chain_conflicts", chain.conflicts),
            ("reconciliation_requests", reconciliation.requests),
            ("reconciliation_header_requests", reconciliation.header_requests),
            ("reconciliation_headers", reconciliation.headers),
            ("reconciliation_hedges", reconciliation.hedges),
            ("reconciliation_unproven_claims", reconciliation.unproven_claims),
            ("reconciliation_diverged", reconciliation.diverged),
            ("reconciliation_timeouts", reconciliation.timeouts),
            ("reconciliation_refused", reconciliation.refused),
        ];
        counters.extend(of_channel.map(|(name, value)| (format!("{name}{{channel={id}}}"), value)));
        let Some(dissemination) = core.node.dissemination_counters(id) else { continue };
        let of_dissemination = [
            ("dissemination_frames", dissemination.frames),
            ("dissemination_requested", dissemination.requested),
            ("dissemination_repaired", dissemination.repaired),
            ("dissemination_missed", dissemination.missed),
            ("dissemination_over_bound", dissemination.over_bound),
            ("dissemination_bad_plans", dissemination.bad_plans),
        ];
        counters.extend(of_dissemination.map(|(name, value)| (format!("{name}{{channel={id}}}"), value)));
    }
    counters
}
