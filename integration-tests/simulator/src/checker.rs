//! The safety checks: what must never happen, whatever fails and whoever lies.
//!
//! The checker is told everything that honest peers write and everything that reaches anybody, and compares it with the truth:
//! * frames and blocks of a channel are written and delivered only to peers of its organisations that have joined it, by the
//!   tag they carry, whatever the sender meant; proofs of a channel are shown to its organisations alone;
//! * pushes, digests and election messages stay inside the organisation, a push goes to at most the fanout, once to
//!   each link, and never over one that brought the block; internal endpoints stay inside the organisation;
//! * what is forwarded was verified by the forwarder or stands in its ledger; what is committed was verified, comes in order, and
//!   links; a ledger never shrinks and equals the orderers' chain: so no two honest peers differ at any height;
//! * blocks under verification and on the way to the disk stay within the machines' bounds;
//! * no honest peer is blamed by another; no honest peer raises an alarm; what peers hold of each other is what its
//!   subject signed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::chain::{COMMITS_IN_FLIGHT_MAX, Held};
use grapevine_channels::dissemination::{DisseminationConfig, DisseminationMode};
use grapevine_channels::isolation::TAG_SIZE;
use grapevine_channels::node::VERIFYING_PER_PEER_MAX;
use grapevine_channels::time::Time;
use grapevine_channels::wire::{BulkHeader, BulkKind, ChannelBody, Frame, FrameBody};
use grapevine_crypto::{Digest, PkiId};

use crate::host::Host;
use crate::network::Connection;
use crate::orderer::Orderer;
use crate::truth::{ChannelIndex, Site, Truth};

/// Members whose views are compared with the truth at each whole check, peers in turn: everybody's in networks of up to a hundred peers.
const MEMBERS_CHECKED: usize = 10_000;
/// Blocks of a ledger that are compared again at each whole check.
const LEDGER_CHECKED_AGAIN: usize = 64;

/// Something that must not be. The run that led to it is reproduced by its scenario and seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, {at}: {what}")]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// When.
    pub at: Time,
    /// What.
    pub what: String,
}

/// `Err` says what is wrong.
pub(crate) type Check = Result<(), String>;

/// What the checker remembers of one peer.
#[derive(Debug, Default)]
struct Memory {
    /// Kept over crashes: who has left or crashed may be sent frames for a while.
    ever_joined: BTreeSet<ChannelIndex>,
    /// Highest ledger ever seen.
    height: BTreeMap<ChannelIndex, u64>,
    verified: BTreeSet<Digest>,
    /// Number and tip of what was handed to the disk last.
    queued: BTreeMap<ChannelIndex, (u64, Digest)>,
    /// Who sent which block.
    received: BTreeSet<(ChannelIndex, u64, Site)>,
    /// Who was pushed which block.
    pushed: BTreeMap<(ChannelIndex, u64), BTreeSet<Site>>,
    /// Blocks under verification by sender.
    verifying: BTreeMap<Site, usize>,
}

#[derive(Debug)]
pub(crate) struct Checker {
    memories: Vec<Memory>,
    /// Whose view is compared with the truth next.
    next_view: Site,
    fanout: usize,
    /// In Fabric's mode a peer may get back what it, too, sent: only the first sender is spared.
    spares_all_senders: bool,
}

impl Checker {
    pub(crate) fn new(peers: usize, dissemination: &DisseminationConfig) -> Self {
        Self {
            memories: (0..peers).map(|_| Memory::default()).collect(),
            next_view: 0,
            fanout: dissemination.propagate_peer_num,
            spares_all_senders: dissemination.mode != DisseminationMode::Classic,
        }
    }

    /// A peer starts, or starts again with the ledgers it has.
    pub(crate) fn started(&mut self, peer: Site, host: &Host) {
        let memory = &mut self.memories[peer];
        memory.verified.clear();
        memory.queued.clear();
        memory.received.clear();
        memory.pushed.clear();
        memory.verifying.clear();
        for (channel, ledger) in host.ledgers.iter().enumerate() {
            if let Some(tip) = ledger.last() {
                memory.queued.insert(channel, (ledger.len() as u64, tip.hash()));
            }
        }
    }

    pub(crate) fn joined(&mut self, peer: Site, channel: ChannelIndex, host: &Host) {
        let memory = &mut self.memories[peer];
        memory.ever_joined.insert(channel);
        if let Some(tip) = host.ledgers[channel].last() {
            memory.queued.insert(channel, (host.height(channel), tip.hash()));
        }
    }

    /// A channel's link to another peer closed. Who it was with may come back without what it sent or was sent: it may
    /// have crashed, or have left the channel for a while.
    pub(crate) fn link_closed(&mut self, peer: Site, other: Site, channel: ChannelIndex) {
        let memory = &mut self.memories[peer];
        memory.received.retain(|(of, _, from)| (*of, *from) != (channel, other));
        for (_, targets) in memory.pushed.iter_mut().filter(|((of, _), _)| *of == channel) {
            targets.remove(&other);
        }
    }

    /// A peer's disk is lost; its ledger starts again.
    pub(crate) fn wiped(&mut self, peer: Site) {
        self.memories[peer].height.clear();
    }

    /// An honest peer writes a control frame.
    pub(crate) fn control_written(
        &self,
        truth: &Truth,
        connection: &Connection,
        from: Site,
        frame: &Bytes,
    ) -> Check {
        let to = connection.other_end(from);
        let kind = Frame::parse(frame.clone())
            .map_err(|error| format!("{} wrote a bad frame: {error}", truth.name(from)))?;
        let says = |what: &str| format!("{} to {}: {what}", truth.name(from), truth.name(to));
        match kind {
            FrameBody::Channel(frame) => {
                self.may_hear(truth, connection, from, &frame.tag).map_err(|what| says(&what))?;
                let inside = matches!(
                    frame.body,
                    Some(
                        ChannelBody::Leadership(_)
                            | ChannelBody::Digest(_)
                            | ChannelBody::Hello(_)
                            | ChannelBody::Announcement(_)
                            | ChannelBody::Holding(_)
                            | ChannelBody::Late(_)
                    )
                );
                if inside && !truth.same_organization(from, to) {
                    return Err(says("election message or digest left the organisation"));
                }
            }
            FrameBody::Joined(joined) => {
                for shown in &joined.proofs {
                    let proofs = &connection.proofs[connection.direction_from(from)];
                    let channel = proofs.iter().position(|proof| proof.as_slice() == shown);
                    let Some(channel) = channel else { return Err(says("proof of no channel")) };
                    if !truth.is_member(to, channel) {
                        return Err(says("proof of a channel shown outside its organisations"));
                    }
                }
            }
            FrameBody::Alive(record) => disclosed(truth, from, to, &[record]).map_err(|what| says(&what))?,
            FrameBody::View(view) => disclosed(truth, from, to, &view.records).map_err(|what| says(&what))?,
            FrameBody::LookFor(_) | FrameBody::Heard(_) if !truth.same_organization(from, to) => {
                return Err(says("a probe for others left the organisation"));
            }
            FrameBody::Suspicion(subject) => {
                let subject = Digest::try_from(subject.as_slice()).ok().and_then(|id| truth.site(&PkiId(id)));
                let Some(subject) = subject else { return Err(says("accusation of nobody")) };
                let visible = !truth.peers[subject].external_endpoint.is_empty();
                let known = truth.same_organization(subject, from) || truth.same_organization(subject, to);
                if !(truth.same_organization(from, to) || (visible && known)) {
                    return Err(says("a member was named to somebody who may not know it"));
                }
            }
            FrameBody::IdentityRequest(_)
            | FrameBody::Ping(_)
            | FrameBody::Pong(_)
            | FrameBody::Renewal(_)
            | FrameBody::ViewRoot(_)
            | FrameBody::ViewList(_)
            | FrameBody::LookFor(_)
            | FrameBody::Heard(_) => {}
        }
        Ok(())
    }

    /// An honest peer writes a block.
    pub(crate) fn block_written(
        &mut self,
        truth: &Truth,
        connection: &Connection,
        from: Site,
        header: &Bytes,
        block: &Held,
        host: &Host,
    ) -> Check {
        let to = connection.other_end(from);
        let says = |what: &str| format!("{} to {}: block {what}", truth.name(from), truth.name(to));
        let header = BulkHeader::parse(header.clone()).map_err(|error| says(&error.to_string()))?;
        let channel = self.may_hear(truth, connection, from, &header.tag).map_err(|what| says(&what))?;
        let memory = &mut self.memories[from];
        match block {
            Held::Memory(block) if !memory.verified.contains(&block.hash()) => {
                return Err(says(&format!("{} was never verified by its sender", header.number)));
            }
            Held::Ledger(number) if *number >= host.height(channel) => {
                return Err(says(&format!("{number} is not in the sender's ledger")));
            }
            _ => {}
        }
        if header.kind() != BulkKind::Push {
            return Ok(());
        }
        if !truth.same_organization(from, to) {
            return Err(says("pushed out of the organisation"));
        }
        if self.spares_all_senders && memory.received.contains(&(channel, header.number, to)) {
            return Err(says(&format!("{} pushed back to who sent it", header.number)));
        }
        let targets = memory.pushed.entry((channel, header.number)).or_default();
        if !targets.insert(to) {
            return Err(says(&format!("{} pushed twice", header.number)));
        }
        // Who has the block from the orderer draws the plan; how many children it takes is bounded by its link.
        let heard = memory.received.range((channel, header.number, 0)..).next();
        let relays = heard.is_some_and(|(of, number, _)| (*of, *number) == (channel, header.number));
        if relays && targets.len() > self.fanout {
            return Err(says(&format!("{} pushed to more than {}", header.number, self.fanout)));
        }
        Ok(())
    }

    /// A control frame reaches a peer.
    pub(crate) fn control_delivered(
        &self,
        truth: &Truth,
        connection: &Connection,
        to: Site,
        frame: &Bytes,
    ) -> Check {
        match Frame::parse(frame.clone()) {
            Ok(FrameBody::Channel(frame)) => {
                let from = connection.other_end(to);
                self.may_hear(truth, connection, from, &frame.tag).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// A block reaches a peer.
    pub(crate) fn block_delivered(
        &self,
        truth: &Truth,
        connection: &Connection,
        to: Site,
        header: &BulkHeader,
    ) -> Check {
        let from = connection.other_end(to);
        self.may_hear(truth, connection, from, &header.tag).map(|_| ())
    }

    /// A peer takes a block that another sent, for it has a link with it.
    pub(crate) fn block_taken(&mut self, channel: ChannelIndex, to: Site, from: Site, number: u64) {
        self.memories[to].received.insert((channel, number, from));
    }

    /// A peer takes a block of `from` to verify, or is done with it.
    pub(crate) fn verifying(&mut self, peer: Site, from: Site, begins: bool) -> Check {
        let count = self.memories[peer].verifying.entry(from).or_default();
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        if *count > VERIFYING_PER_PEER_MAX {
            return Err(format!("peer {peer} verifies {count} blocks of peer {from}"));
        }
        Ok(())
    }

    pub(crate) fn verified(&mut self, peer: Site, block: &AuthenticBlock) {
        self.memories[peer].verified.insert(block.hash());
    }

    /// A peer hands a block to its disk.
    pub(crate) fn commit(
        &mut self,
        truth: &Truth,
        orderer: &Orderer,
        peer: Site,
        channel: ChannelIndex,
        block: &AuthenticBlock,
        host: &Host,
    ) -> Check {
        let says = |what: &str| format!("{}: commits block {} {what}", truth.name(peer), block.number());
        let memory = &mut self.memories[peer];
        if !memory.verified.contains(&block.hash()) {
            return Err(says("that it did not verify"));
        }
        if orderer.hash(channel, block.number()) != Some(block.hash()) {
            return Err(says("that is not the orderers'"));
        }
        let Some((next, tip)) = memory.queued.get(&channel) else {
            return Err(says("of a channel not joined"));
        };
        if *next != block.number() || block.previous_hash() != Some(*tip) {
            return Err(says(&format!("after {next} blocks, or unlinked")));
        }
        memory.queued.insert(channel, (block.number() + 1, block.hash()));
        if block.number() + 1 - host.height(channel) > COMMITS_IN_FLIGHT_MAX {
            return Err(says("with too many on the way to the disk"));
        }
        Ok(())
    }

    /// Everything, at every honest peer.
    pub(crate) fn whole(&mut self, truth: &Truth, orderer: &Orderer, hosts: &[Host]) -> Check {
        self.ledgers(truth, orderer, hosts)?;
        self.views(truth, hosts, usize::MAX)
    }

    /// Every ledger, and views in turn.
    pub(crate) fn regular(&mut self, truth: &Truth, orderer: &Orderer, hosts: &[Host]) -> Check {
        self.ledgers(truth, orderer, hosts)?;
        self.views(truth, hosts, MEMBERS_CHECKED)
    }

    /// Whether views are true, of peers in turn with as many members together.
    fn views(&mut self, truth: &Truth, hosts: &[Host], mut members: usize) -> Check {
        for _ in 0..hosts.len() {
            let peer = self.next_view % hosts.len();
            let Some(host) = hosts.get(peer) else { break };
            self.next_view = peer + 1;
            if truth.is_honest(peer) {
                members_are_true(truth, peer, host, hosts)?;
            }
            members = members.saturating_sub(hosts.len());
            if members == 0 {
                break;
            }
        }
        Ok(())
    }

    fn ledgers(&mut self, truth: &Truth, orderer: &Orderer, hosts: &[Host]) -> Check {
        for (peer, host) in hosts.iter().enumerate().filter(|(peer, _)| truth.is_honest(*peer)) {
            for (channel, ledger) in host.ledgers.iter().enumerate() {
                if !ledger.is_empty() && !truth.is_member(peer, channel) {
                    return Err(format!("{} holds blocks of a foreign channel", truth.name(peer)));
                }
                let highest = self.memories[peer].height.entry(channel).or_default();
                if (ledger.len() as u64) < *highest {
                    return Err(format!("{}: the ledger of channel {channel} shrank", truth.name(peer)));
                }
                // What is new, and the last that were looked at before: all of it each time would cost the square of the run.
                let checked = usize::try_from(std::mem::replace(highest, ledger.len() as u64)).unwrap_or(0);
                let from = checked.saturating_sub(LEDGER_CHECKED_AGAIN);
                for (block, genuine) in ledger.iter().zip(&orderer.chains[channel]).skip(from) {
                    if block.hash() != genuine.hash() {
                        return Err(format!("{} differs at block {}", truth.name(peer), block.number()));
                    }
                }
                let id = &truth.channels[channel].id;
                let believed = host.node.as_ref().and_then(|node| node.height(id)).map(|(height, _)| height);
                if believed.is_some_and(|believed| believed != ledger.len() as u64) {
                    return Err(format!("{}: believes in {believed:?} blocks", truth.name(peer)));
                }
            }
        }
        Ok(())
    }

    /// The channel of a tag, if both ends may speak of it.
    fn may_hear(
        &self,
        truth: &Truth,
        connection: &Connection,
        from: Site,
        tag: &[u8],
    ) -> Result<ChannelIndex, String> {
        let to = connection.other_end(from);
        let proofs = &connection.proofs[connection.direction_from(from)];
        let channel = proofs.iter().position(|proof| proof.get(..TAG_SIZE) == Some(tag));
        let channel = channel.ok_or("carries the tag of no channel")?;
        let id = &truth.channels[channel].id;
        for site in [from, to] {
            if !truth.is_member(site, channel) {
                return Err(format!("of {id}, whose config lacks {}", truth.name(site)));
            }
            if !self.memories[site].ever_joined.contains(&channel) {
                return Err(format!("of {id}, which {} has not joined", truth.name(site)));
            }
        }
        Ok(channel)
    }
}

/// Internal endpoints and invisible peers stay inside the organisation.
fn disclosed(
    truth: &Truth,
    from: Site,
    to: Site,
    records: &[grapevine_channels::wire::SignedAlive],
) -> Check {
    if !truth.same_organization(from, to) && records.iter().any(|record| record.internal.is_some()) {
        return Err("an internal endpoint left the organisation".into());
    }
    Ok(())
}

/// What a peer believes of others is what these signed.
fn members_are_true(truth: &Truth, peer: Site, host: &Host, hosts: &[Host]) -> Check {
    let Some(node) = &host.node else { return Ok(()) };
    for (pki_id, member) in node.membership().members() {
        let says =
            |what: &str| format!("{} believes of {}: {what}", truth.name(peer), member.credential.name);
        let Some(subject) = truth.site(pki_id) else { return Err(says("that it exists")) };
        let real = &truth.peers[subject];
        if !truth.is_honest(subject) {
            continue;
        }
        if member.external_endpoint != real.external_endpoint {
            return Err(says("a wrong external endpoint"));
        }
        if member.internal_endpoint.as_ref().is_some_and(|endpoint| *endpoint != real.internal_endpoint) {
            return Err(says("a wrong internal endpoint"));
        }
        // After a lost disk the counter starts again, and the former life is believed until the new one outbids it.
        if hosts[subject].wipes == 0 && member.order.incarnation > hosts[subject].incarnation {
            return Err(says("an incarnation it never had"));
        }
    }
    Ok(())
}
