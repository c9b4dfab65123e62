//! Catching up: headers and blocks that are asked for, the room they may take, and how the channel does.

use std::cell::Cell;
use std::time::Duration;

use grapevine_crypto::{Digest, PkiId};

use super::{Event, Node, OrdererAnswer, Output, Penalty, Rejection, Ticket, Verifying};
use crate::ChannelId;
use crate::chain::PENDING_BYTES_MAX;
use crate::reconciliation::{Ask, Elsewhere, NotReady, Progress};
use crate::time::Time;
use crate::verify::VerifiedHeader;
use crate::wire::{self, ChannelBody, HEADERS_PER_RANGE_MAX, Headers, HeadersRequest, Request};

/// How long a block that others have may be on its way from the orderer to a peer that pulls for itself.
const ORDERER_GRACE: Duration = Duration::from_secs(2);

/// Most requests for headers of one peer being read from the ledger at a time.
pub const HEADER_READS_PER_PEER_MAX: usize = 4;

/// Bytes of blocks asked for, being verified, early or waiting for the disk, over all channels, at which no more are asked for. Half as
/// much again as a path of 1 Gbit/s and 66 ms holds; the rest of [`PENDING_BYTES_MAX`] is for blocks that come unasked.
pub const ASKED_BYTES_MAX: usize = 12 << 20;

const _: () = assert!(ASKED_BYTES_MAX < PENDING_BYTES_MAX, "what was asked for has to fit");

/// A range of headers in the worker pool.
#[derive(Debug)]
pub(super) struct VerifyingHeaders {
    channel: ChannelId,
    /// `None`: an orderer, which was asked for its newest.
    peer: Option<PkiId>,
    first: u64,
    /// Sizes of the blocks, as the peer says.
    sizes: Vec<usize>,
}

/// Whether the orderer's stream may still be bringing a block that this peer lacks: then it is not fetched from others, who got it
/// from the same orderer. The lowest such block decides for all.
fn is_owed(owed: &Cell<Option<(u64, Time)>>, number: u64, now: Time) -> bool {
    let (first, since) = owed.get().unwrap_or((number, now));
    owed.set(Some((first, since)));
    now < since + ORDERER_GRACE
}

impl Node {
    /// Asks for what the channel lacks, if a look is due.
    pub(super) fn reconcile(&mut self, now: Time, id: &ChannelId) {
        let room = self.room();
        let Some(channel) = self.channels.get_mut(id).filter(|channel| !channel.halted) else { return };
        let (dissemination, arriving) = (&channel.dissemination, &channel.arriving);
        let is_direct = dissemination.is_direct() && channel.orderer_contact;
        let next = channel.chain.next_needed();
        let owed = Cell::new(channel.owed.filter(|(number, _)| is_direct && *number >= next));
        let elsewhere = |number| {
            if arriving.contains_key(&number) {
                Elsewhere::Arriving
            } else if dissemination.is_pursuing(number) || (is_direct && is_owed(&owed, number, now)) {
                Elsewhere::Pursued
            } else {
                Elsewhere::Nowhere
            }
        };
        let asks = channel.reconciliation.handle_timeout(now, &channel.chain, room, elsewhere);
        channel.owed = owed.get();
        for ask in asks {
            match ask {
                Ask::Blocks { peer, numbers } => {
                    self.send(peer, id, ChannelBody::Request(Request { numbers }))
                }
                Ask::Headers { peer, first, count } => {
                    self.send(peer, id, ChannelBody::HeadersRequest(HeadersRequest { first, count }));
                }
                Ask::State { peer } => {
                    let own = self.channels.get(id).map(|channel| channel.state());
                    if let Some(ChannelBody::State(own)) = own {
                        self.send(peer, id, ChannelBody::State(wire::State { answer: true, ..own }));
                    }
                }
                Ask::Orderer { pull } => self.pull_as_last_resort(id, pull),
                Ask::OwnHash { peer, number } => {
                    self.outputs.push_back(Output::LookUp { channel: id.clone(), number, peer });
                }
                Ask::Diverged { peer, number, own, theirs } => {
                    self.event(Event::Diverged { channel: id.clone(), peer, number, own, theirs });
                }
            }
        }
    }

    /// Begins or ends to pull from the orderer although another peer leads.
    fn pull_as_last_resort(&mut self, id: &ChannelId, pull: bool) {
        let Some(channel) = self.channels.get_mut(id).filter(|channel| !channel.election.is_leader()) else {
            return;
        };
        channel.is_stranded = pull;
        self.outputs.push_back(if pull {
            Output::StartDeliver { channel: id.clone(), next: channel.chain.next_needed() }
        } else {
            channel.orderer_again_at = None;
            Output::StopDeliver { channel: id.clone() }
        });
    }

    /// The ledger's hash at the tip of a member that is far behind.
    pub(super) fn handle_looked_up(
        &mut self,
        now: Time,
        id: &ChannelId,
        number: u64,
        peer: PkiId,
        hash: Option<Digest>,
    ) {
        if let (Some(channel), Some(hash)) = (self.channels.get_mut(id), hash) {
            channel.reconciliation.handle_own_hash(now, peer, number, hash);
        }
        self.reconcile(now, id);
    }

    /// Bytes that may be asked for beyond what is: one bound for all channels and all ways a block comes.
    fn room(&self) -> usize {
        let waiting = self.channels.values().map(|channel| {
            channel.chain.waiting_bytes().saturating_add(channel.reconciliation.asked_bytes())
        });
        let taken = waiting.fold(self.verifying_bytes, usize::saturating_add);
        ASKED_BYTES_MAX.saturating_sub(taken)
    }

    /// Tells a channel's chain how much of the in-order buffer the others leave it.
    pub(super) fn share_room(&mut self, id: &ChannelId) {
        let others = self.channels.iter().filter(|(other, _)| *other != id);
        let others: usize = others.map(|(_, channel)| channel.chain.waiting_bytes()).sum();
        if let Some(channel) = self.channels.get_mut(id) {
            channel.chain.set_pending_bytes_max(PENDING_BYTES_MAX.saturating_sub(others));
        }
    }

    /// A block is no longer being verified.
    pub(super) fn arrived(&mut self, entry: &Verifying) {
        let (Some(claim), Some(channel)) = (entry.claim, self.channels.get_mut(&entry.channel)) else {
            return;
        };
        if let Some(count) = channel.arriving.get_mut(&claim.number) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                channel.arriving.remove(&claim.number);
            }
        }
    }

    /// Answers a request for headers from the ledger; what is not committed is not told.
    pub(super) fn serve_headers(&mut self, peer: PkiId, id: &ChannelId, request: &HeadersRequest) {
        let Some(channel) = self.channels.get(id) else { return };
        let Some(link) = self.peers.get(&peer).and_then(|remote| remote.links.link(id)) else { return };
        let (first, height) = (request.first, link.limit_height(channel.chain.height()));
        let count = request.count.min(HEADERS_PER_RANGE_MAX as u64).min(height.saturating_sub(first));
        // Block 0 has no signatures and is nobody's to prove.
        if count == 0 || first == 0 {
            return self.send(peer, id, ChannelBody::Headers(Headers { first, ..Headers::default() }));
        }
        let reads = self.reading_headers.entry(peer).or_default();
        if *reads >= HEADER_READS_PER_PEER_MAX {
            self.counters.headers_over_bound += 1;
            return;
        }
        *reads += 1;
        self.outputs.push_back(Output::ReadHeaders { peer, channel: id.clone(), first, count });
    }

    pub(super) fn handle_headers_read(&mut self, peer: PkiId, id: &ChannelId, headers: Headers) {
        if let Some(reads) = self.reading_headers.get_mut(&peer) {
            *reads = reads.saturating_sub(1);
            if *reads == 0 {
                self.reading_headers.remove(&peer);
            }
        }
        self.send(peer, id, ChannelBody::Headers(headers));
    }

    pub(super) fn handle_headers(&mut self, now: Time, peer: PkiId, id: &ChannelId, headers: Headers) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.reconciliation.handle_headers(now, peer, &headers, &channel.chain) {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            let size = |entry: &wire::HeaderEntry| usize::try_from(entry.block_bytes).unwrap_or(usize::MAX);
            let sizes = headers.entries.iter().map(size).collect();
            let entry =
                VerifyingHeaders { channel: id.clone(), peer: Some(peer), first: headers.first, sizes };
            self.verifying_headers.insert(ticket, entry);
            self.outputs.push_back(Output::VerifyHeaders { ticket, channel: id.clone(), headers });
        }
        self.reconcile(now, id);
    }

    /// What a probe of an orderer found: contact first, then, if its newest header is authentic, how far the chain is.
    pub(super) fn handle_probe(&mut self, now: Time, id: &ChannelId, found: Option<OrdererAnswer>) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.election.handle_probe(now, found.as_ref().map(|answer| answer.round_trip));
        let Some(OrdererAnswer { newest, .. }) = found.filter(|answer| !answer.newest.entries.is_empty())
        else {
            return;
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let entry =
            VerifyingHeaders { channel: id.clone(), peer: None, first: newest.first, sizes: Vec::new() };
        self.verifying_headers.insert(ticket, entry);
        self.outputs.push_back(Output::VerifyHeaders { ticket, channel: id.clone(), headers: newest });
    }

    pub(super) fn handle_headers_verified(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Vec<VerifiedHeader>, Rejection>,
    ) {
        let Some(entry) = self.verifying_headers.remove(&ticket) else { return };
        let VerifyingHeaders { channel: id, peer, first, sizes } = entry;
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Some(peer) = peer else {
            // One that cannot be judged, or is forged, says nothing of the chain.
            if let Some(newest) = result.ok().and_then(|headers| headers.last().map(VerifiedHeader::number)) {
                channel.election.handle_newest(now, newest.saturating_add(1));
            }
            return;
        };
        let verified = match result {
            Ok(headers) => Some(headers.into_iter().zip(sizes).collect()),
            Err(Rejection::Forged(reason)) => {
                self.counters.blocks_rejected += 1;
                self.outputs.push_back(Output::Penalise { peer, why: Penalty::BadHeader(reason) });
                None
            }
            Err(_) => Some(Vec::new()),
        };
        channel.reconciliation.handle_verified_headers(now, peer, first, verified, &channel.chain);
        self.reconcile(now, &id);
    }

    /// How far a channel is behind, and how fast it catches up.
    pub fn progress(&self, id: &ChannelId) -> Option<Progress> {
        let channel = self.channels.get(id)?;
        Some(channel.reconciliation.progress(&channel.chain))
    }

    /// Why a channel is not ready; `None`: it is, or it is not joined.
    pub fn not_ready(&self, id: &ChannelId) -> Option<NotReady> {
        let channel = self.channels.get(id)?;
        let organizations = self.scopes.get(id).map_or(1, |scope| scope.organizations.len());
        channel.reconciliation.not_ready(&channel.chain, channel.orderer_contact, organizations)
    }
}
