//! Doing what a node wants, as the driver of a real peer does; and, where the peer is a forger, not quite that.

use std::time::Duration;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::chain::Held;
use grapevine_channels::node::{Event as NodeEvent, Input, Output, Rejection, Ticket};
use grapevine_channels::verify::VerifiedHeader;
use grapevine_channels::wire::{ChannelBody, Frame, FrameBody, Headers};
use grapevine_crypto::{Digest, PkiId};

use crate::checker::Check;
use crate::event::{HostEvent, Message};
use crate::forger;
use crate::simulation::{Cause, Simulation, cost_of};
use crate::trials::HEALTHY_AFTER;
use crate::truth::{ChannelIndex, Site};

impl Simulation {
    pub(crate) fn carry_out_one(&mut self, peer: Site, cause: Cause, output: Output) -> Check {
        match output {
            Output::SendControl { peer: to, frame } => self.send_control(peer, &to, frame),
            Output::SendBlock { peer: to, channel, number, header, block, .. } => {
                self.send_block(peer, to, channel, number, header, block)
            }
            Output::Dial { endpoint } => {
                self.dial(peer, endpoint);
                Ok(())
            }
            Output::Verify { ticket, channel, verified, kept, body, .. } => {
                let channel = self.channel(&channel)?;
                self.verify(peer, cause, (ticket, verified.is_some()), channel, kept, &body)
            }
            Output::Compare { channel: id, block } => {
                let channel = self.channel(&id)?;
                let kept = self.hosts[peer].committed(channel, block.number()).map(AuthenticBlock::hash);
                self.feed(peer, cause, Input::Compared { channel: id, block, kept })
            }
            Output::LookUp { channel: id, number, peer: whose } => {
                let channel = self.channel(&id)?;
                let hash = self.hosts[peer].committed(channel, number).map(AuthenticBlock::hash);
                self.feed(peer, cause, Input::LookedUp { channel: id, number, peer: whose, hash })
            }
            // Nobody's organisation is removed here, so there are no guests to send away.
            Output::Disconnect { reason, .. } => {
                Err(format!("{} sends a member away: {reason}", self.truth.name(peer)))
            }
            Output::VerifyHeaders { ticket, channel, headers } => {
                let channel = self.channel(&channel)?;
                self.verify_headers(peer, ticket, channel, &headers);
                Ok(())
            }
            Output::ReadHeaders { peer: to, channel, first, count } => {
                self.read_headers(peer, to, channel, first, count)
            }
            Output::Commit { channel, block } => {
                let channel = self.channel(&channel)?;
                let host = &self.hosts[peer];
                self.checker.commit(&self.truth, &self.orderer, peer, channel, &block, host)?;
                self.hosts[peer].disk_waiting.push((channel, block));
                self.write(peer);
                Ok(())
            }
            Output::StartDeliver { channel, next } => {
                let channel = self.channel(&channel)?;
                self.start_pulling(peer, channel, next);
                Ok(())
            }
            Output::ProbeOrderer { channel } => {
                let channel = self.channel(&channel)?;
                self.probe(peer, channel);
                Ok(())
            }
            Output::StopDeliver { channel } => {
                let channel = self.channel(&channel)?;
                self.stop_pulling(peer, channel);
                Ok(())
            }
            Output::PersistIncarnation(incarnation) => {
                self.hosts[peer].incarnation = incarnation;
                Ok(())
            }
            Output::LinkOpened { peer: other, channel, tag } => {
                let (other, channel) = (self.site(&other)?, self.channel(&channel)?);
                self.hosts[peer].tags.insert((other, channel, tag));
                Ok(())
            }
            Output::LinkClosed { peer: other, channel } => {
                let (other, channel) = (self.site(&other)?, self.channel(&channel)?);
                self.hosts[peer].tags.retain(|(of, on, _)| (*of, *on) != (other, channel));
                self.checker.link_closed(peer, other, channel);
                Ok(())
            }
            Output::Penalise { peer: other, why } => {
                let other = self.site(&other)?;
                if self.truth.is_honest(peer) && self.truth.is_honest(other) {
                    return Err(format!(
                        "{} blames {}: {why}",
                        self.truth.name(peer),
                        self.truth.name(other)
                    ));
                }
                self.measurements.penalties += 1;
                let until = self.now + self.scenario.settings.penalty;
                self.hosts[peer].penalties.insert(other, until);
                if let Some(id) = self.network.open_at(peer, other) {
                    self.later(Duration::ZERO, peer, HostEvent::Broken { connection: id });
                    self.hang_up(peer, other, id);
                }
                Ok(())
            }
            // These disks lose nothing while they run.
            Output::Restore { channel, number, .. } => Err(format!(
                "{} restores block {number} of {channel}, which it never lost",
                self.truth.name(peer)
            )),
            // These orderers sign one history.
            Output::KeepEvidence { block, .. } => Err(format!(
                "{} has evidence against the orderers: {}",
                self.truth.name(peer),
                block.number()
            )),
            // These operators join by the block.
            Output::Introduced { channel, .. } => {
                Err(format!("{} is introduced to {channel} unasked", self.truth.name(peer)))
            }
            Output::Halt { channel, reason } => {
                Err(format!("{} halts {channel}: {reason}", self.truth.name(peer)))
            }
            Output::Event(event) => self.note(peer, event),
        }
    }

    fn note(&mut self, peer: Site, event: NodeEvent) -> Check {
        let own = self.truth.peers[peer].credential.pki_id;
        match event {
            NodeEvent::Leader { term: Some(term), .. } if term.leader == own => {
                self.measurements.leader_changes += 1;
                self.measurements.leaders.insert(peer);
                Ok(())
            }
            NodeEvent::MemberDead(subject) => {
                self.note_death(&subject);
                Ok(())
            }
            NodeEvent::Fork { number, .. } if self.truth.is_honest(peer) => {
                Err(format!("{} reports a fork at block {number}", self.truth.name(peer)))
            }
            // Who lost its disk may meet more than one former self.
            NodeEvent::Alarm(text) if self.truth.is_honest(peer) && self.hosts[peer].wipes == 0 => {
                Err(format!("{} raises the alarm: {text}", self.truth.name(peer)))
            }
            NodeEvent::BlockRejected { from: None, reason, .. } => {
                Err(format!("{} rejects a block of the orderer: {reason}", self.truth.name(peer)))
            }
            _ => Ok(()),
        }
    }

    /// Somebody holds a peer for dead.
    fn note_death(&mut self, subject: &PkiId) {
        let Some(subject) = self.truth.site(subject) else { return };
        let host = &self.hosts[subject];
        let calm_since = host.resumed_at.max(host.booted_at);
        if host.is_running() && self.now.since(calm_since) >= HEALTHY_AFTER {
            self.measurements.healthy_declared_dead += 1;
        }
    }

    fn send_control(&mut self, peer: Site, to: &PkiId, frame: Bytes) -> Check {
        let to = self.site(to)?;
        // Without a connection the transport drops the frame; every exchange is repeated.
        let Some(id) = self.network.open_at(peer, to) else { return Ok(()) };
        let Some(connection) = self.network.connections.get(&id) else { return Ok(()) };
        if self.scenario.silent.contains(&peer) && !said_by_the_silent(&frame) {
            return Ok(());
        }
        if self.scenario.frozen && is_of_members(&frame) {
            return Ok(());
        }
        let frame = if self.truth.is_honest(peer) {
            self.checker.control_written(&self.truth, connection, peer, &frame)?;
            frame
        } else {
            forger::tamper(&mut self.rng, frame)
        };
        self.send(peer, to, id, Message::Control(frame));
        Ok(())
    }

    fn send_block(
        &mut self,
        peer: Site,
        to: PkiId,
        id: ChannelId,
        number: u64,
        header: Bytes,
        block: Held,
    ) -> Check {
        let (site, channel) = (self.site(&to)?, self.channel(&id)?);
        if self.scenario.silent.contains(&peer) || self.scenario.withholding.contains(&peer) {
            return Ok(());
        }
        let stored = match &block {
            Held::Memory(block) => Some(block.clone()),
            Held::Ledger(number) => {
                let place = usize::try_from(*number).unwrap_or(usize::MAX);
                self.hosts[peer].ledgers[channel].get(place).cloned()
            }
        };
        let open = self.network.open_at(peer, site);
        let (Some(connection_id), Some(stored)) = (open, stored) else {
            let now = self.hosts[peer].local(self.now);
            if let Some(node) = &mut self.hosts[peer].node {
                node.handle(now, Input::NotSent { peer: to, channel: id, number });
            }
            return Ok(());
        };
        let Some(connection) = self.network.connections.get(&connection_id) else { return Ok(()) };
        let size = stored.size();
        let (header, body) = if self.truth.is_honest(peer) {
            let host = &self.hosts[peer];
            self.checker.block_written(&self.truth, connection, peer, &header, &block, host)?;
            (header, stored.encoded().clone())
        } else {
            forger::forge_block(&mut self.rng, header, size)
        };
        if self.hosts[peer].pullers.contains_key(&channel) {
            self.measurements.leader_bytes_sent += size as u64;
        }
        self.send(peer, site, connection_id, Message::Bulk { header, body, size });
        Ok(())
    }

    /// One verifier per peer, first come first served. A block whose header is verified costs its data hash alone.
    fn verify(
        &mut self,
        peer: Site,
        cause: Cause,
        (ticket, has_header): (Ticket, bool),
        channel: ChannelIndex,
        kept: Option<Digest>,
        body: &[u8],
    ) -> Check {
        let result = self
            .orderer
            .verify(channel, body)
            .ok_or_else(|| Rejection::Forged("no orderer of this channel signed it".into()))
            .and_then(|block| {
                let committed = self.hosts[peer].committed(channel, block.number());
                let kept = kept.or_else(|| committed.map(AuthenticBlock::hash));
                let (number, hash) = (block.number(), block.hash());
                if kept == Some(hash) { Err(Rejection::Known { number, hash }) } else { Ok(block) }
            });
        let size = result.as_ref().map_or(self.scenario.block_bytes, |block| block.size());
        let from = match cause {
            Cause::Peer { from, .. } => Some(from),
            Cause::Orderer(channel) => {
                self.deliver_verifying(peer, channel, ticket, size);
                None
            }
            Cause::Other => None,
        };
        let on_request = matches!(cause, Cause::Peer { on_request: true, .. });
        // What was asked for is bounded by the asking.
        if let Some(from) = from.filter(|_| !on_request) {
            self.checker.verifying(peer, from, true)?;
        }
        let settings = &self.scenario.settings;
        let cost = match result {
            Err(Rejection::Known { .. }) => Duration::ZERO,
            _ if has_header => cost_of(settings.verify_cost_per_mb, size),
            _ => settings.verify_cost + cost_of(settings.verify_cost_per_mb, size),
        };
        let host = &mut self.hosts[peer];
        host.verifier_free_at = host.verifier_free_at.max(self.now) + cost;
        let wait = host.verifier_free_at.since(self.now);
        self.later(wait, peer, HostEvent::Verified { ticket, channel, from, on_request, result });
        Ok(())
    }

    /// Headers wait for the same verifier as blocks.
    fn verify_headers(&mut self, peer: Site, ticket: Ticket, channel: ChannelIndex, headers: &Headers) {
        let verified: Option<Vec<VerifiedHeader>> = headers
            .headers()
            .map(|(header, _)| {
                let genuine = self.orderer.hash(channel, header.number) == Some(header.hash());
                genuine.then(|| VerifiedHeader::simulated(header))
            })
            .collect();
        let result =
            verified.ok_or_else(|| Rejection::Forged("no orderer of this channel signed a header".into()));
        let count = u32::try_from(headers.entries.len()).unwrap_or(u32::MAX);
        let host = &mut self.hosts[peer];
        let cost = self.scenario.settings.header_cost.saturating_mul(count);
        host.verifier_free_at = host.verifier_free_at.max(self.now) + cost;
        let wait = host.verifier_free_at.since(self.now);
        self.later(wait, peer, HostEvent::HeadersVerified { ticket, result });
    }

    fn read_headers(&mut self, peer: Site, to: PkiId, id: ChannelId, first: u64, count: u64) -> Check {
        let channel = self.channel(&id)?;
        let ledger = &self.hosts[peer].ledgers[channel];
        let start = usize::try_from(first).unwrap_or(usize::MAX);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if start.saturating_add(count) > ledger.len() {
            return Err(format!("{} reads headers it does not have", self.truth.name(peer)));
        }
        let range = ledger.iter().skip(start).take(count);
        let range = range.map(|block| Ok::<_, String>((block.block().clone(), block.size())));
        let headers = Headers::of(first, range)?;
        self.later(Duration::ZERO, peer, HostEvent::HeadersRead { peer: to, channel: id, headers });
        Ok(())
    }

    fn site(&self, pki_id: &PkiId) -> Result<Site, String> {
        self.truth.site(pki_id).ok_or_else(|| format!("output for {pki_id}, which does not exist"))
    }

    fn channel(&self, id: &ChannelId) -> Result<ChannelIndex, String> {
        self.truth.channel(id).ok_or_else(|| format!("output for channel {id}, which does not exist"))
    }
}

/// Silent peers keep their place in membership and elections; of blocks they say nothing.
fn said_by_the_silent(frame: &Bytes) -> bool {
    match Frame::parse(frame.clone()) {
        Ok(FrameBody::Channel(frame)) => matches!(frame.body, Some(ChannelBody::Leadership(_))),
        _ => true,
    }
}

/// Whether a frame is one of membership.
pub(crate) fn is_of_members(frame: &Bytes) -> bool {
    !matches!(
        Frame::parse(frame.clone()),
        Ok(FrameBody::Channel(_) | FrameBody::Joined(_) | FrameBody::Ping(_) | FrameBody::Pong(_))
    )
}
