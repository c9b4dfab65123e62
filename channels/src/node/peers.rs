//! Connected peers: their channel links, and the frames that come and go.

use bytes::Bytes;
use grapevine_crypto::{Digest, MspId, PkiId};

use super::{
    Claim, Event, Node, Output, Penalty, Ticket, VERIFYING_BYTES_MAX, VERIFYING_PER_PEER_MAX, Verifying,
};
use crate::ChannelId;
use crate::authority::Credential;
use crate::chain::Held;
use crate::dissemination::BlockSource;
use crate::isolation::{ChannelLink, LinkChanges, Links};
use crate::membership::{MembershipOutput, Probe};
use crate::time::Time;
use crate::wire::{
    BulkHeader, BulkKind, ChannelBody, ChannelFrame, Delegation, Frame, FrameBody, IdentityRequest, Joined,
    Nonce, View,
};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) organization: MspId,
    /// What it showed on this connection, or proved since.
    pub(super) credential: Credential,
    pub(super) links: Links,
    /// Since when a guest has been silent; `None`: it is a member.
    pub(super) guest: Option<Time>,
}

impl Node {
    pub(super) fn handle_connected(
        &mut self,
        now: Time,
        credential: Credential,
        session: [u8; 32],
        endpoint: Option<&str>,
    ) {
        let (peer, organization) = (credential.pki_id, credential.msp_id.clone());
        if self.peers.contains_key(&peer) {
            self.handle_disconnected(now, peer);
        }
        if self.refuse_outdated(&credential) {
            return;
        }
        let links = Links::new(session, self.own.pki_id, peer, organization.clone());
        let guest = self.is_former(&organization).then_some(now);
        if guest.is_some() && !self.has_room_for_guest() {
            return self.refuse_guest(peer);
        }
        self.certificates.shown(&credential);
        self.peers.insert(peer, Peer { organization: organization.clone(), credential, links, guest });
        self.guests += usize::from(guest.is_some());
        if guest.is_none() {
            let authority = self.authority.as_ref();
            self.membership.handle_connected(now, peer, organization.clone(), endpoint, authority);
            self.round_trips.handle_connected(now, peer);
        }
        if let Some(endpoint) = endpoint {
            self.note_anchor(now, endpoint, peer, &organization);
            self.handle_introducer(now, endpoint, None);
        }
        self.offer_proofs(peer);
        self.refresh_introductions(now);
        self.prove_renewal_if_recent(now, peer);
    }

    pub(super) fn handle_disconnected(&mut self, now: Time, peer: PkiId) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        self.certificates.gone(&gone.credential);
        self.guests = self.guests.saturating_sub(usize::from(gone.guest.is_some()));
        self.round_trips.handle_disconnected(peer);
        let channels: Vec<ChannelId> = gone.links.open().cloned().collect();
        for channel in channels {
            self.unlink(now, peer, &channel);
        }
        if gone.guest.is_none() {
            self.membership.handle_disconnected(now, peer);
        }
    }

    pub(super) fn handle_control(&mut self, now: Time, peer: PkiId, frame: Bytes) {
        let Some(remote) = self.peers.get(&peer) else { return };
        let is_guest = remote.guest.is_some();
        let body = match Frame::parse(frame) {
            Ok(body) => body,
            Err(error) => {
                self.counters.malformed += 1;
                return self.penalise(peer, Penalty::Malformed(error.to_string()));
            }
        };
        // A pong has no other meaning here; every frame shows that its sender lives.
        if !is_guest {
            self.membership.handle_frame(now, peer, self.authority.as_ref());
        }
        match body {
            FrameBody::Joined(joined) => self.handle_joined(now, peer, &joined),
            FrameBody::Channel(frame) => self.handle_channel_frame(now, peer, frame),
            FrameBody::Ping(nonce) => self.send_frame(peer, FrameBody::Pong(nonce)),
            FrameBody::Renewal(renewal) => self.handle_renewal(now, peer, &renewal),
            // All else is for members.
            _ if is_guest => self.counters.unlinked_frames += 1,
            FrameBody::Alive(record) => {
                self.membership.handle_records(now, peer, vec![record], self.authority.as_ref());
            }
            FrameBody::View(View { records }) => {
                self.membership.handle_records(now, peer, records, self.authority.as_ref());
            }
            FrameBody::IdentityRequest(request) => {
                self.membership.handle_identity_request(peer, &request.digests, self.authority.as_ref());
            }
            FrameBody::Pong(Nonce { value }) => {
                if self.round_trips.handle_pong(now, peer, value).is_some() {
                    self.tell_round_trip(peer);
                }
            }
            FrameBody::ViewRoot(root) => {
                self.membership.handle_view_root(now, peer, &root, self.authority.as_ref());
            }
            FrameBody::ViewList(list) => {
                self.membership.handle_view_list(peer, &list, self.authority.as_ref());
            }
            FrameBody::LookFor(subject) => self.handle_probe_frame(now, peer, &subject, Probe::Ask),
            FrameBody::Heard(subject) => self.handle_probe_frame(now, peer, &subject, Probe::Answer),
            FrameBody::Suspicion(subject) => self.handle_probe_frame(now, peer, &subject, Probe::Accuse),
        }
    }

    fn handle_probe_frame(&mut self, now: Time, peer: PkiId, subject: &[u8], probe: fn(PkiId) -> Probe) {
        if let Ok(subject) = Digest::try_from(subject) {
            self.membership.handle_probe(now, peer, probe(PkiId(subject)), self.authority.as_ref());
        }
    }

    /// The newest estimate of the round trip, for the channels shared with the peer.
    pub(super) fn tell_round_trip(&mut self, peer: PkiId) {
        let Some(round_trip) = self.round_trips.round_trip(&peer) else { return };
        let Some(remote) = self.peers.get(&peer).filter(|remote| remote.organization == self.own.msp_id)
        else {
            return;
        };
        for id in remote.links.open() {
            if let Some(channel) = self.channels.get_mut(id) {
                channel.dissemination.handle_round_trip(peer, round_trip);
            }
        }
    }

    /// Bytes of a body come in. What they are is seen when it is whole; a header that is wrong is refused then.
    pub(super) fn handle_bulk_started(&mut self, now: Time, peer: PkiId, header: Bytes) {
        let Ok(header) = BulkHeader::parse(header) else { return };
        let Some(remote) = self.peers.get(&peer) else { return };
        let Some(id) = remote.links.channel_of(&header.tag) else { return };
        if remote.links.link(id).is_none_or(ChannelLink::is_limited) || remote.organization != self.own.msp_id
        {
            return;
        }
        if let Some(channel) = self.channels.get_mut(id) {
            channel.dissemination.handle_bulk_started(now, &header, &channel.chain);
        }
    }

    pub(super) fn handle_bulk(&mut self, now: Time, peer: PkiId, header: Bytes, body: Bytes) {
        let header = match BulkHeader::parse(header) {
            Ok(header) => header,
            Err(error) => {
                self.counters.malformed += 1;
                return self.penalise(peer, Penalty::Malformed(error.to_string()));
            }
        };
        let Some(remote) = self.peers.get(&peer) else { return };
        let Some(id) = remote.links.channel_of(&header.tag).cloned() else {
            self.counters.unlinked_frames += 1;
            return;
        };
        if remote.links.link(&id).is_none_or(ChannelLink::is_limited) {
            self.counters.unlinked_frames += 1;
            return;
        }
        let own_organization = remote.organization == self.own.msp_id;
        if self.take_genesis(now, peer, &id, header.number, &body) {
            return;
        }
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let hash = match header.hash.as_slice() {
            [] => None,
            hash => match Digest::try_from(hash) {
                Ok(hash) => Some(hash),
                Err(_) => return self.penalise(peer, Penalty::Malformed("block hash".into())),
            },
        };
        let claim = Claim { number: header.number, hash };
        if channel.restoration.take(peer, claim.number) {
            let number = claim.number;
            return self.outputs.push_back(Output::Restore { channel: id, number, peer, body });
        }
        let asked = channel.reconciliation.handle_arrival(now, peer, claim.number);
        let push = header.kind() == BulkKind::Push && own_organization;
        if own_organization {
            channel.dissemination.handle_bulk(now, peer, &header, &channel.chain);
            self.drain_dissemination(&id);
        }
        let Some(channel) = self.channels.get(&id) else { return };
        let is_arriving = channel.arriving.contains_key(&claim.number)
            && self
                .verifying
                .values()
                .any(|entry| entry.channel == id && entry.claim.is_some_and(|other| other == claim));
        let kept = channel.chain.kept_hash(claim.number).or_else(|| channel.chain.hash_at(claim.number));
        let is_kept = kept.is_some() && kept == claim.hash;
        if is_arriving || is_kept {
            self.counters.duplicate_blocks += 1;
            return self.reconcile(now, &id);
        }
        // Pushes come from the own organisation alone; from another the block is taken, but goes no further.
        let source = if push { BlockSource::Push(peer) } else { BlockSource::Reply(peer) };
        let size = body.len();
        let entry = Verifying { channel: id, claim: Some(claim), source, asked, since: now, size };
        self.verify(now, peer, entry, kept, body);
    }

    pub(super) fn verify_orderer_block(&mut self, now: Time, channel: ChannelId, body: Bytes) {
        if self.channels.contains_key(&channel) {
            let size = body.len();
            let source = BlockSource::Orderer;
            let entry = Verifying { channel, claim: None, source, asked: true, since: now, size };
            self.start_verifying(entry, None, body);
        }
    }

    fn verify(&mut self, now: Time, peer: PkiId, entry: Verifying, kept: Option<Digest>, body: Bytes) {
        let size = entry.size;
        let crowded =
            self.verifying_bytes > 0 && self.verifying_bytes.saturating_add(size) > VERIFYING_BYTES_MAX;
        // Counted over reconnections: what the pool still works on does not go away with the connection.
        let unasked = self.verifying_by_peer.get(&peer).copied().unwrap_or(0);
        if crowded || (!entry.asked && unasked >= VERIFYING_PER_PEER_MAX) {
            self.counters.verifying_over_bound += 1;
            if let (Some(claim), Some(channel)) = (entry.claim, self.channels.get_mut(&entry.channel)) {
                channel.reconciliation.handle_dropped(now, claim.number);
                channel.dissemination.handle_rejected(now, peer, claim.number);
            }
            return;
        }
        if !entry.asked {
            self.verifying_by_peer.insert(peer, unasked + 1);
        }
        self.start_verifying(entry, kept, body);
    }

    fn start_verifying(&mut self, entry: Verifying, kept: Option<Digest>, body: Bytes) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let (channel, claim) = (entry.channel.clone(), entry.claim);
        self.verifying_bytes = self.verifying_bytes.saturating_add(entry.size);
        self.verifying.insert(ticket, entry);
        let mut verified = None;
        if let (Some(claim), Some(channel)) = (claim, self.channels.get_mut(&channel)) {
            *channel.arriving.entry(claim.number).or_default() += 1;
            verified = channel.reconciliation.header(claim.number).cloned();
        }
        self.outputs.push_back(Output::Verify { ticket, channel, claim, verified, kept, body });
    }

    fn handle_joined(&mut self, now: Time, peer: PkiId, joined: &Joined) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        remote.links.shown(joined);
        let changes = remote.links.accept(self.scopes.iter());
        self.apply_links(now, peer, changes);
    }

    fn handle_channel_frame(&mut self, now: Time, peer: PkiId, frame: ChannelFrame) {
        let Some(remote) = self.peers.get(&peer) else { return };
        let Some(id) = remote.links.channel_of(&frame.tag).cloned() else {
            self.counters.unlinked_frames += 1;
            return;
        };
        let is_limited = remote.links.link(&id).is_none_or(ChannelLink::is_limited);
        let own_organization = remote.organization == self.own.msp_id;
        let Some(channel) = self.channels.get_mut(&id) else { return };
        match frame.body {
            Some(ChannelBody::Request(request)) if is_limited => {
                self.note_guest_request(now, peer);
                self.serve(peer, &id, &request);
            }
            Some(ChannelBody::HeadersRequest(request)) if is_limited => {
                self.note_guest_request(now, peer);
                self.serve_headers(peer, &id, &request);
            }
            // A former member is asked for nothing, so neither its height nor a refusal matters.
            Some(ChannelBody::State(state)) if is_limited => {
                let own = state.answer.then(|| channel.state());
                if let Some(own) = own {
                    self.send(peer, &id, own);
                }
            }
            Some(_) if is_limited => self.counters.unlinked_frames += 1,
            Some(ChannelBody::State(state)) => {
                let counted = channel.counted(state.height, &state.tip_hash);
                channel.election.handle_claim(&peer, counted);
                channel.dissemination.handle_height(peer, state.height);
                let tip = Digest::try_from(state.tip_hash.as_slice()).ok();
                channel.reconciliation.handle_state(now, peer, state.height, tip, &channel.chain);
                let own = state.answer.then(|| channel.state());
                if let Some(own) = own {
                    self.send(peer, &id, own);
                }
                self.reconcile(now, &id);
            }
            Some(ChannelBody::Leadership(_)) if !own_organization => {
                self.counters.unlinked_frames += 1;
                self.penalise(peer, Penalty::ForeignLeadership);
            }
            Some(ChannelBody::Leadership(message)) => {
                let counted = channel.counted(message.height, &message.tip_hash);
                channel.election.handle_message(now, peer, &message, counted);
                if message.says_farewell() {
                    // The new leader's first plans do without it.
                    channel.dissemination.handle_peer_gone(now, peer);
                    self.drain_dissemination(&id);
                }
            }
            Some(
                body @ (ChannelBody::Announcement(_)
                | ChannelBody::Holding(_)
                | ChannelBody::Late(_)
                | ChannelBody::Hello(_)),
            ) if own_organization => {
                channel.dissemination.handle_frame(now, peer, &body, &channel.chain);
                self.drain_dissemination(&id);
            }
            Some(body @ ChannelBody::Digest(_))
                if own_organization && channel.dissemination.takes_digests() =>
            {
                channel.dissemination.handle_frame(now, peer, &body, &channel.chain);
            }
            Some(ChannelBody::Digest(digest)) if own_organization => {
                channel.reconciliation.handle_digest(now, peer, &digest.ranges, &channel.chain);
                self.reconcile(now, &id);
            }
            Some(ChannelBody::Request(request)) => self.serve(peer, &id, &request),
            Some(ChannelBody::Refusal(request)) => {
                channel.dissemination.handle_refusal(now, peer, &request.numbers);
                channel.reconciliation.handle_refusal(now, peer, &request.numbers);
                channel.restoration.handle_refusal(now, peer, &request.numbers);
                self.restore(now, &id);
                self.reconcile(now, &id);
            }
            Some(ChannelBody::HeadersRequest(request)) => self.serve_headers(peer, &id, &request),
            Some(ChannelBody::Headers(headers)) => self.handle_headers(now, peer, &id, headers),
            Some(_) => self.counters.unlinked_frames += 1,
            None => {}
        }
    }

    pub(super) fn offer_proofs_to_all(&mut self) {
        let peers: Vec<PkiId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.offer_proofs(peer);
        }
    }

    fn offer_proofs(&mut self, peer: PkiId) {
        let Some(remote) = self.peers.get(&peer) else { return };
        let joined = remote.links.offer(self.scopes.iter());
        self.send_frame(peer, FrameBody::Joined(joined));
    }

    pub(super) fn relink_all(&mut self, now: Time) {
        let peers: Vec<PkiId> = self.peers.keys().copied().collect();
        for peer in peers {
            let Some(remote) = self.peers.get_mut(&peer) else { continue };
            let changes = remote.links.accept(self.scopes.iter());
            self.apply_links(now, peer, changes);
        }
    }

    fn apply_links(&mut self, now: Time, peer: PkiId, changes: LinkChanges) {
        for channel in changes.closed {
            self.unlink(now, peer, &channel);
        }
        for id in changes.opened {
            if self.ask_for_genesis(peer, &id) {
                continue;
            }
            let Some(remote) = self.peers.get(&peer) else { return };
            let own_organization = remote.organization == self.own.msp_id;
            let organization = remote.organization.clone();
            let Some(link) = remote.links.link(&id) else { continue };
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            if !link.is_limited() {
                let tag = link.remote_tag();
                self.outputs.push_back(Output::LinkOpened { peer, channel: id.clone(), tag });
                channel.reconciliation.handle_peer(now, peer, organization, own_organization);
                if own_organization {
                    channel.dissemination.handle_peer(now, peer);
                    if let Some(round_trip) = self.round_trips.round_trip(&peer) {
                        channel.dissemination.handle_round_trip(peer, round_trip);
                    }
                    channel.election.handle_member(now, peer);
                }
            }
            let state = channel.state();
            self.send(peer, &id, state);
        }
    }

    /// Takes a member out of the dissemination of a channel while its link stays, as if membership had not told of it
    /// yet: what disagreeing views come to. For simulations; the next link of the channel to the member brings it back.
    pub fn forget_in_dissemination(&mut self, now: Time, id: &ChannelId, peer: PkiId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.dissemination.handle_peer_gone(now, peer);
        }
    }

    fn unlink(&mut self, now: Time, peer: PkiId, id: &ChannelId) {
        self.outputs.push_back(Output::LinkClosed { peer, channel: id.clone() });
        if let Some(channel) = self.channels.get_mut(id) {
            channel.reconciliation.handle_peer_gone(now, peer);
            channel.restoration.handle_peer_gone(now, peer);
            channel.dissemination.handle_peer_gone(now, peer);
            channel.election.handle_member_gone(now, peer);
        }
    }

    /// Sends a frame of a channel, if there is a link to send it by: the isolation of channels hangs on this.
    pub(super) fn send(&mut self, peer: PkiId, id: &ChannelId, body: ChannelBody) {
        let link = self.peers.get(&peer).and_then(|remote| remote.links.link(id));
        if let Some(frame) = link.and_then(|link| link.encode(body)) {
            self.outputs.push_back(Output::SendControl { peer, frame });
        }
    }

    pub(super) fn send_block(
        &mut self,
        peer: PkiId,
        id: &ChannelId,
        number: u64,
        kind: BulkKind,
        delegation: Option<Delegation>,
        block: Held,
    ) {
        let Some(link) = self.peers.get(&peer).and_then(|remote| remote.links.link(id)) else { return };
        let hash = match &block {
            Held::Memory(block) => Some(block.hash()),
            Held::Ledger(_) => None,
        };
        let Some(header) = link.encode_bulk(number, hash, kind, delegation) else { return };
        self.outputs.push_back(Output::SendBlock { peer, channel: id.clone(), number, kind, header, block });
    }

    pub(super) fn send_frame(&mut self, peer: PkiId, body: FrameBody) {
        self.outputs.push_back(Output::SendControl { peer, frame: Frame::encode_body(body) });
    }

    pub(super) fn drain_membership(&mut self, now: Time) {
        while let Some(output) = self.membership.poll_output() {
            match output {
                MembershipOutput::SendAlive { peer, record } => {
                    self.send_frame(peer, FrameBody::Alive(record));
                }
                MembershipOutput::SendView { peer, records } => {
                    self.send_frame(peer, FrameBody::View(View { records }));
                }
                MembershipOutput::AskIdentities { peer, digests } => {
                    self.send_frame(peer, FrameBody::IdentityRequest(IdentityRequest { digests }));
                }
                MembershipOutput::Dial { endpoint } => self.outputs.push_back(Output::Dial { endpoint }),
                MembershipOutput::PersistIncarnation(incarnation) => {
                    self.outputs.push_back(Output::PersistIncarnation(incarnation));
                }
                MembershipOutput::Alive(member) => {
                    self.event(Event::MemberAlive(member));
                    self.live_member(now, member);
                }
                MembershipOutput::Dead(member) => {
                    self.event(Event::MemberDead(member));
                    self.dead_member(now, member);
                }
                MembershipOutput::Renewed(member) => self.event(Event::MemberRenewed(member)),
                MembershipOutput::Suspect(member) => {
                    let by = self.membership.accusers(&member);
                    self.event(Event::MemberSuspect { member, by });
                }
                MembershipOutput::Unreachable { member, endpoint } => {
                    self.event(Event::Unreachable { member, endpoint });
                }
                MembershipOutput::SendViewRoot { peer, root } => {
                    self.send_frame(peer, FrameBody::ViewRoot(root.to_vec()));
                }
                MembershipOutput::SendViewList { peer, list } => {
                    self.send_frame(peer, FrameBody::ViewList(list));
                }
                MembershipOutput::SendProbe { peer, probe } => {
                    let frame = match probe {
                        Probe::Ping => FrameBody::Ping(Nonce { value: 0 }),
                        Probe::Ask(subject) => FrameBody::LookFor(subject.0.0.to_vec()),
                        Probe::Answer(subject) => FrameBody::Heard(subject.0.0.to_vec()),
                        Probe::Accuse(subject) => FrameBody::Suspicion(subject.0.0.to_vec()),
                    };
                    self.send_frame(peer, frame);
                }
                MembershipOutput::Misbehaved { peer, error } => {
                    self.penalise(peer, Penalty::BadRecord(error));
                }
                MembershipOutput::Alarm(text) => self.event(Event::Alarm(text)),
            }
        }
    }

    /// A member that was declared dead while connected counts again.
    fn live_member(&mut self, now: Time, member: PkiId) {
        let Some(remote) = self.peers.get(&member).filter(|peer| peer.organization == self.own.msp_id) else {
            return;
        };
        for id in remote.links.open() {
            if let Some(channel) = self.channels.get_mut(id) {
                channel.election.handle_member(now, member);
            }
        }
    }

    /// A member whose records stopped does not count in elections, connected or not.
    fn dead_member(&mut self, now: Time, member: PkiId) {
        for channel in self.channels.values_mut() {
            channel.election.handle_member_gone(now, member);
        }
    }
}
