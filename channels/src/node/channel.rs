//! One joined channel: its machines, and how a block goes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::{Digest, PkiId};

use super::anchors::{AnchorWatch, Anchors};
use super::heights::{self, Audience, Heights};
use super::{
    ChannelSetup, Event, Node, NodeConfig, ORDERER_REST, Output, Penalty, REPLY_BLOCKS_MAX, REPLY_BYTES_MAX,
    Rejection, Ticket, fork,
};
use crate::ChannelId;
use crate::block::AuthenticBlock;
use crate::chain::{Chain, Held, Offer};
use crate::dissemination::{BlockSource, Dissemination, DisseminationMode, DisseminationOutput, NewBlock};
use crate::election::{Election, ElectionOutput};
use crate::isolation::Scope;
use crate::reconciliation::Reconciliation;
use crate::restoration::Restoration;
use crate::time::{Time, earliest};
use crate::wire::{self, BulkKind, ChannelBody, Request};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) election: Election,
    pub(super) dissemination: Dissemination,
    pub(super) reconciliation: Reconciliation,
    pub(super) restoration: Restoration,
    pub(super) chain: Chain,
    pub(super) tip: Digest,
    pub(super) anchors: AnchorWatch,
    /// No block is written or asked for any more: the channel was told to halt.
    pub(super) halted: bool,
    heights: Heights,
    /// When the orderer's stream, which had lost a block, is taken up again; `None`: it has not.
    pub(super) orderer_again_at: Option<Time>,
    /// It pulls from the orderer as the last source, without leading.
    pub(super) is_stranded: bool,
    /// Whether an orderer answers.
    pub(super) orderer_contact: bool,
    /// The lowest block that the orderer's stream of this peer owes, and since when others are known to have it.
    pub(super) owed: Option<(u64, Time)>,
    /// Numbers that peers' blocks under verification are said to have.
    pub(super) arriving: BTreeMap<u64, usize>,
}

impl Channel {
    pub(super) fn new(
        config: &NodeConfig,
        own: PkiId,
        setup: &ChannelSetup,
        now: Time,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let mut election = config.election.clone();
        let mut dissemination = config.dissemination.clone();
        if let Some(mode) = config.dissemination_modes.get(&setup.channel) {
            dissemination.mode = *mode;
        }
        if dissemination.mode == DisseminationMode::Direct {
            (election.use_leader_election, election.org_leader) = (false, true);
        }
        Self {
            election: Election::new(election, own, setup.height, now),
            dissemination: Dissemination::new(dissemination, now, fork(rng)),
            reconciliation: Reconciliation::new(config.reconciliation.clone(), now, fork(rng)),
            restoration: Restoration::default(),
            chain: Chain::new(
                setup.height,
                setup.tip,
                config.block_buffer_size,
                config.max_block_count_to_store,
            ),
            tip: setup.tip,
            anchors: AnchorWatch::new(setup.anchors.clone(), now),
            halted: false,
            heights: Heights::new(config.publish_state_info_interval, now),
            orderer_again_at: None,
            is_stranded: false,
            orderer_contact: false,
            owed: None,
            arriving: BTreeMap::new(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let machines = earliest(
            self.dissemination.next_deadline(),
            earliest(self.election.next_deadline(), self.reconciliation.next_deadline()),
        );
        let machines = earliest(machines, self.restoration.next_deadline());
        let machines = earliest(machines, Some(self.anchors.next_deadline()));
        earliest(machines, earliest(self.heights.next_deadline(), self.orderer_again_at))
    }

    /// A claimed height as far as blocks up to there have been verified here; 0 if the claimed tip is not the one kept.
    pub(super) fn counted(&self, height: u64, tip_hash: &[u8]) -> u64 {
        let kept = height.checked_sub(1).and_then(|number| self.chain.kept_hash(number));
        match kept {
            Some(kept) if kept.as_ref() != tip_hash => 0,
            _ => height.min(self.election.verified()),
        }
    }

    /// Whether this peer pulls from the orderer.
    fn pulls(&self) -> bool {
        self.is_stranded || self.election.is_leader()
    }

    pub(super) fn state(&self) -> ChannelBody {
        let tip_hash = self.tip.0.to_vec();
        ChannelBody::State(wire::State { height: self.chain.height(), tip_hash, answer: false })
    }
}

impl Node {
    pub(super) fn handle_join(&mut self, now: Time, setup: ChannelSetup) {
        if self.channels.contains_key(&setup.channel) {
            return;
        }
        self.stop_introduction(&setup.channel);
        let channel = Channel::new(&self.config, self.own.pki_id, &setup, now, &mut self.rng);
        self.channels.insert(setup.channel.clone(), channel);
        self.scopes.insert(setup.channel, setup.scope);
        self.scopes_changed(now);
    }

    pub(super) fn handle_leave(&mut self, now: Time, id: &ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.election.handle_shutdown(now);
            self.drain_election(id);
        }
        self.scopes.remove(id);
        self.scopes_changed(now);
        self.channels.remove(id);
    }

    pub(super) fn handle_reconfigured(&mut self, now: Time, id: ChannelId, scope: Scope, anchors: Anchors) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.anchors.replace(anchors, now);
        let last = channel.chain.height().saturating_sub(1);
        self.scopes.insert(id.clone(), scope);
        self.scopes_changed(now);
        self.send_last_block_to_removed(&id, last);
        self.trust_changed(now);
    }

    fn scopes_changed(&mut self, now: Time) {
        let anchors =
            self.channels.values().flat_map(|channel| channel.anchors.endpoints().cloned()).collect();
        self.membership.set_anchors(now, anchors);
        self.sort_guests(now);
        self.offer_proofs_to_all();
        self.relink_all(now);
    }

    pub(super) fn channel_timeout(&mut self, now: Time, id: &ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.election.handle_timeout(now);
        channel.dissemination.handle_timeout(now, &channel.chain);
        if channel.heights.next_deadline().is_some_and(|due| due <= now) {
            self.tell_height(now, id);
        }
        self.look_at_anchors(now, id);
        self.drain_dissemination(id);
        self.return_to_orderer(now, id);
        self.restore(now, id);
        self.reconcile(now, id);
    }

    fn tell_height(&mut self, now: Time, id: &ChannelId) {
        let members = self.channel_members(id);
        let Some(channel) = self.channels.get_mut(id) else { return };
        let state = channel.state();
        let told = match channel.heights.take(now, members.len()) {
            None => return,
            Some(Audience::Everybody) => members,
            Some(Audience::Few) => {
                let leader = channel.election.leader().map(|term| term.leader);
                let mut told: BTreeSet<PkiId> =
                    members.sample(&mut self.rng, heights::LISTENERS).copied().collect();
                told.extend(leader.filter(|leader| members.contains(leader)));
                told.into_iter().collect()
            }
        };
        for peer in told {
            self.send(peer, id, state.clone());
        }
    }

    pub(super) fn drain_dissemination(&mut self, id: &ChannelId) {
        while let Some(channel) = self.channels.get_mut(id)
            && let Some(output) = channel.dissemination.poll_output()
        {
            match output {
                DisseminationOutput::Push { peer, number, delegation } => {
                    let Some(block) = channel.chain.held(number) else { continue };
                    self.send_block(peer, id, number, BulkKind::Push, Some(delegation), block);
                    self.counters.blocks_pushed += 1;
                }
                DisseminationOutput::Send { peer, body } => self.send(peer, id, body),
            }
        }
    }

    pub(super) fn drain_election(&mut self, id: &ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let (mut next, tip) = (channel.chain.next_needed(), channel.tip);
        if !channel.reconciliation.is_confirmed() {
            // The orderer sends the own tip again: the same block confirms it, another one is a fork found at once.
            next = next.saturating_sub(1).max(1);
        }
        let outputs: Vec<ElectionOutput> = std::iter::from_fn(|| channel.election.poll_output()).collect();
        channel.dissemination.handle_leader(channel.election.leader().map(|term| term.leader));
        if outputs.iter().any(|output| matches!(output, ElectionOutput::Lead(_))) {
            channel.orderer_again_at = None;
        }
        if outputs.iter().any(|output| matches!(output, ElectionOutput::Lead(_) | ElectionOutput::StepDown)) {
            channel.is_stranded = false;
            channel.reconciliation.handle_orderer_stopped();
        }
        for output in outputs {
            match output {
                ElectionOutput::Send { peer, message } => {
                    let message = wire::Leadership { tip_hash: tip.0.to_vec(), ..message };
                    self.send(peer, id, ChannelBody::Leadership(message));
                }
                ElectionOutput::ProbeOrderer => {
                    self.outputs.push_back(Output::ProbeOrderer { channel: id.clone() });
                }
                ElectionOutput::Deposed(leader) => {
                    self.event(Event::Withholding { channel: id.clone(), leader });
                }
                ElectionOutput::Lead(term) => {
                    self.outputs.push_back(Output::StartDeliver { channel: id.clone(), next });
                    self.event(Event::Leader { channel: id.clone(), term: Some(term) });
                }
                ElectionOutput::StepDown => {
                    self.outputs.push_back(Output::StopDeliver { channel: id.clone() });
                }
                ElectionOutput::Follow(term) => self.event(Event::Leader { channel: id.clone(), term }),
            }
        }
    }

    pub(super) fn handle_verified(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<AuthenticBlock, Rejection>,
    ) {
        let Some(entry) = self.verifying.remove(&ticket) else { return };
        self.arrived(&entry);
        self.verifying_bytes = self.verifying_bytes.saturating_sub(entry.size);
        let from = entry.source.peer();
        if let Some(peer) = from.filter(|_| !entry.asked)
            && let Some(count) = self.verifying_by_peer.get_mut(&peer)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.verifying_by_peer.remove(&peer);
            }
        }
        let id = entry.channel;
        let claimed = entry.claim.map(|claim| claim.number);
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let block = match result {
            Ok(block) => block,
            Err(Rejection::Known { number, hash }) => {
                self.counters.duplicate_blocks += 1;
                if from.is_none() {
                    channel.reconciliation.handle_confirmation(now, number);
                } else if !channel.chain.holds(number) {
                    channel.reconciliation.handle_dropped(now, number);
                }
                if let (Some(peer), Some(claim)) = (from, entry.claim)
                    && !claim.fits(number, hash)
                {
                    channel.reconciliation.handle_bad_block(now, peer, claim.number);
                    self.penalise(peer, Penalty::WrongBlock);
                }
                return self.reconcile(now, &id);
            }
            Err(Rejection::Untimely(_)) => {
                if let Some(number) = claimed {
                    channel.reconciliation.handle_dropped(now, number);
                }
                if from.is_none() {
                    self.rest_from_orderer(now, &id);
                }
                return self.reconcile(now, &id);
            }
            Err(Rejection::Forged(reason)) => {
                self.counters.blocks_rejected += 1;
                if let Some(peer) = from {
                    channel.reconciliation.handle_bad_block(now, peer, claimed.unwrap_or(0));
                    self.penalise(peer, Penalty::BadBlock(reason.clone()));
                }
                self.event(Event::BlockRejected { channel: id.clone(), from, reason });
                return self.reconcile(now, &id);
            }
        };
        if let (Some(peer), Some(claim)) = (from, entry.claim)
            && !claim.fits(block.number(), block.hash())
        {
            channel.reconciliation.handle_bad_block(now, peer, claim.number);
            self.penalise(peer, Penalty::WrongBlock);
        }
        self.take_authentic(now, &id, block, entry.source, now.since(entry.since));
    }

    fn take_authentic(
        &mut self,
        now: Time,
        id: &ChannelId,
        block: AuthenticBlock,
        source: BlockSource,
        verified_in: Duration,
    ) {
        self.share_room(id);
        let Some(channel) = self.channels.get_mut(id) else { return };
        let (number, hash) = (block.number(), block.hash());
        channel.election.handle_verified(now, number.saturating_add(1));
        channel.reconciliation.handle_authentic(now, source.peer(), number, block.size());
        let offered = channel.chain.offer(block.clone());
        if source == BlockSource::Orderer
            && (offered == Offer::Accepted || channel.chain.hash_at(number) == Some(hash))
        {
            channel.reconciliation.handle_confirmation(now, number);
        }
        match offered {
            // What a stranded peer pulls is old news; spreading is the leader's.
            Offer::Accepted if source == BlockSource::Orderer && channel.is_stranded => {}
            Offer::Accepted => {
                let new = NewBlock { number, hash, size: block.size(), source, verified_in };
                channel.dissemination.handle_block(now, &new, &channel.chain);
                self.drain_dissemination(id);
            }
            Offer::Known => self.counters.duplicate_blocks += 1,
            Offer::TooFar => {
                channel.reconciliation.handle_dropped(now, number);
                match source {
                    BlockSource::Orderer => self.rest_from_orderer(now, id),
                    // The leader takes this peer for one that can keep new blocks: it shall hear the height.
                    BlockSource::Push(_) => channel.heights.handle_changed(now),
                    BlockSource::Reply(_) => {}
                }
            }
            Offer::Committed => self.compare(id, block),
            Offer::Conflict { kept } => {
                if self.conflict(id, block, kept) {
                    return;
                }
            }
        }
        self.commit_ready(now, id);
    }

    fn commit_ready(&mut self, now: Time, id: &ChannelId) {
        loop {
            let Some(channel) = self.channels.get_mut(id) else { return };
            if channel.halted {
                return;
            }
            match channel.chain.poll_commit() {
                Some(Ok(block)) => self.outputs.push_back(Output::Commit { channel: id.clone(), block }),
                Some(Err(block)) => {
                    let reason = format!(
                        "block {} of the orderers does not follow this ledger's last block: compare with other organisations which history is the agreed one",
                        block.number()
                    );
                    self.fork(id, block);
                    return self.halt(id, reason);
                }
                None => break,
            }
        }
        self.reconcile(now, id);
    }

    /// A block of the orderer's stream was dropped: the rest of the stream is of no use, and nobody else may have the
    /// block yet. The stream ends here and begins again where the chain stands when the ledger has caught up;
    /// at once, what does not fit would be pulled over and over.
    fn rest_from_orderer(&mut self, now: Time, id: &ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.pulls() && channel.orderer_again_at.is_none() {
            channel.orderer_again_at = Some(now + ORDERER_REST);
            self.outputs.push_back(Output::StopDeliver { channel: id.clone() });
        }
    }

    /// Takes up the orderer's stream again if it rests and the ledger has caught up.
    fn return_to_orderer(&mut self, now: Time, id: &ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.orderer_again_at.is_none_or(|at| at > now) {
            return;
        }
        let next = channel.chain.next_needed();
        if next > channel.chain.height() {
            channel.orderer_again_at = Some(now + ORDERER_REST);
            return;
        }
        channel.orderer_again_at = None;
        if channel.pulls() {
            self.outputs.push_back(Output::StartDeliver { channel: id.clone(), next });
        }
    }

    pub(super) fn handle_committed(&mut self, now: Time, id: &ChannelId, height: u64, tip: Digest) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let (blocks, bytes) = channel.chain.handle_committed(height);
        channel.tip = tip;
        channel.reconciliation.handle_committed(now, blocks, bytes, &channel.chain);
        channel.election.handle_height(now, height);
        channel.heights.handle_changed(now);
        self.commit_ready(now, id);
    }

    /// Answers a request as far as the bounds allow and says what will not come.
    pub(super) fn serve(&mut self, peer: PkiId, id: &ChannelId, request: &Request) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(link) = self.peers.get(&peer).and_then(|remote| remote.links.link(id)) else { return };
        let numbers: BTreeSet<u64> = request.numbers.iter().copied().collect();
        let (mut blocks, mut refused, mut bytes) = (Vec::new(), Vec::new(), 0usize);
        for number in numbers {
            match channel.chain.held(number).filter(|_| link.may_have(number)) {
                Some(held) if bytes < REPLY_BYTES_MAX && blocks.len() < REPLY_BLOCKS_MAX => {
                    if let Held::Memory(block) = &held {
                        bytes = bytes.saturating_add(block.size());
                    }
                    blocks.push((number, held));
                }
                _ => refused.push(number),
            }
        }
        for (number, held) in blocks {
            self.send_block(peer, id, number, BulkKind::Reply, None, held);
            self.counters.blocks_served += 1;
        }
        if !refused.is_empty() {
            self.send(peer, id, ChannelBody::Refusal(Request { numbers: refused }));
        }
    }

    /// The driver could not send a block it was told to: the peer hears that it will not come.
    pub(super) fn handle_not_sent(&mut self, peer: PkiId, id: &ChannelId, number: u64) {
        self.send(peer, id, ChannelBody::Refusal(Request { numbers: vec![number] }));
    }
}
