//! Dissemination by the leader's plan: whole blocks, verified before they are forwarded.
//!
//! # Promise
//! In the ordinary case every member gets each block once, over a tree near the optimum for the sizes and round trips of the moment;
//! when relays fail, each member fetches the block itself soon after it should have come. A block goes to at most
//! `propagate_peer_num` children of a peer (the leader: [`ROOT_CHILDREN_MIN`] to [`ROOT_CHILDREN_MAX`], by what its link has to spare),
//! once; never to whom it came from or who is known to hold it. Delivery is best effort: what is given up is reconciliation's.
//!
//! # Messages
//! * *Push*, leader to children, relays to theirs: the block, and whom the receiver serves ([`super::delegation`]).
//! * *Announcement*, leader to everybody: number, hash, size, and when the receiver should have the block.
//! * *Holding*, from whoever has just got a block: the first [`HEADS`] peers of the plan tell everybody, the others
//!   [`LISTENERS_MIN`] to [`LISTENERS_MAX`] random members; nobody is told what it is known to hold. Announcements of small blocks wait for each other ([`super::outbox`]).
//! * *Request*, to one that holds a block, when the promised arrival and what was learned of promises ([`super::slack`]) have passed and no
//!   byte of it is arriving ([`super::pursuit`]).
//! * *Late*, to the leader that promised: the block had to be fetched. Its plan says whose fault that was ([`super::blame`]).
//!
//! Members far behind get announcements and no bodies: what they could not keep would be sent in vain.
//!
//! # Attacks
//! Whatever a member says can only delay blocks, since each is verified and repaired from elsewhere. A relay that drops, or lies
//! about the rest of the plan, costs those below it one wait and is a leaf afterwards. Promises count only from the leader this peer follows.
//! A false claim to hold a block makes the claimant be asked for it. A child made a head without right sends one small frame
//! to each member. A body that dribbles in is waited for [`ARRIVING_MIN`] or the time of [`ARRIVING_TRANSFERS`] transfers; then others are asked.
//!
//! # Bounds
//! Numbers are looked at only inside the in-order buffer's window. Promises, orders, forwarded blocks and those that have begun to come:
//! [`REMEMBERED_MAX`] each, the lowest go first; orders that go are counted.

mod announcements;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use grapevine_crypto::{Digest, PkiId};
use rand::rngs::ChaCha8Rng;

use super::blame::Blame;
use super::delegation::{self, Branch, Prefix, prefix};
use super::estimate::{Rate, VerifyCost};
use super::known::Known;
use super::outbox::{Outbox, Planned};
use super::plan::{Plan, Target, Terms, plan};
use super::pursuit::{Pursuit, Step};
use super::slack::Slack;
use super::{BlockSource, DisseminationConfig, DisseminationCounters, DisseminationOutput, NewBlock};
use crate::chain::Chain;
use crate::time::{Time, earliest};
use crate::wire::{BulkHeader, BulkKind, ChannelBody, Delegation, Manifest, NUMBERS_PER_FRAME_MAX, Request};

/// Least children of the leader, however busy its link.
pub(super) const ROOT_CHILDREN_MIN: usize = 4;
/// Most children of the leader, however idle its link.
pub(super) const ROOT_CHILDREN_MAX: usize = 64;
/// Part of the leader's link that pushes of one channel may fill.
const ROOT_LINK_SHARE: f64 = 0.25;
/// Peers that tell everybody of a block, besides the leader.
pub(super) const HEADS: u32 = 8;
/// Random members that each other peer tells, in an organisation of up to 500. When relays fail, most of a larger one has to fetch the block
/// while few hold it; whoever has heard of no holder but the heads would queue at those.
pub(super) const LISTENERS_MIN: usize = 4;
/// The same in an organisation of 1,000 and more.
pub(super) const LISTENERS_MAX: usize = 10;
/// Between the two: one listener for so many members.
const MEMBERS_PER_LISTENER: usize = 100;
/// Numbers remembered of promises, orders and forwarded blocks.
pub(super) const REMEMBERED_MAX: usize = 256;
/// A member whose ledger is this far behind gets no bodies pushed.
pub(super) const FAR_BEHIND_BLOCKS: u64 = 50;
/// Round trip that is assumed of members while none is known.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(1);
/// A body that does not go on for this long, or for the time of eight transfers, is no longer waited for.
const STALLED_MIN: Duration = Duration::from_millis(100);
/// A body is waited for so long at most, or for the time of so many transfers, however steadily it dribbles in.
pub(super) const ARRIVING_MIN: Duration = Duration::from_secs(1);
pub(super) const ARRIVING_TRANSFERS: u32 = 64;
/// Most of what was learned of promises that is added to the wait for an answer.
const HEDGE_MARGIN_MAX: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Peer {
    known: Known,
    round_trip: Option<Duration>,
    far_behind: bool,
}

/// When the leader said a block would arrive.
#[derive(Debug, Clone, Copy)]
struct Promise {
    from: PkiId,
    since: Time,
    arrival: Duration,
    size: usize,
    taught: bool,
}

/// A body that has begun to come.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    began: Time,
    /// It is trusted to go on until then.
    until: Time,
}

/// What a push said this peer is to do.
#[derive(Debug)]
struct Orders {
    from: PkiId,
    hash: Digest,
    delegation: Delegation,
}

/// The machine. See the module's header.
#[derive(Debug)]
pub(super) struct Grapevine {
    config: DisseminationConfig,
    peers: BTreeMap<PkiId, Peer>,
    names: BTreeMap<Prefix, PkiId>,
    leader: Option<PkiId>,
    highest: u64,
    pursuit: Pursuit,
    promises: BTreeMap<u64, Promise>,
    orders: BTreeMap<u64, Orders>,
    forwarded: BTreeSet<u64>,
    /// Bodies that have begun to come.
    arriving: BTreeMap<u64, Arriving>,
    outbox: Outbox,
    slack: Slack,
    blame: Blame,
    rate: Rate,
    verify_cost: VerifyCost,
    /// Median of the known round trips; `None`: to be computed.
    typical_round_trip: Option<Duration>,
    typical_size: usize,
    rng: ChaCha8Rng,
}

type Outputs = VecDeque<DisseminationOutput>;

impl Grapevine {
    pub(super) fn new(config: DisseminationConfig, rng: ChaCha8Rng) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            names: BTreeMap::new(),
            leader: None,
            highest: 0,
            pursuit: Pursuit::default(),
            promises: BTreeMap::new(),
            orders: BTreeMap::new(),
            forwarded: BTreeSet::new(),
            arriving: BTreeMap::new(),
            outbox: Outbox::default(),
            slack: Slack::new(),
            blame: Blame::default(),
            rate: Rate::default(),
            verify_cost: VerifyCost::default(),
            typical_round_trip: None,
            typical_size: 0,
            rng,
        }
    }

    pub(super) fn handle_peer(&mut self, peer: PkiId) {
        self.peers.entry(peer).or_default();
        self.names.insert(prefix(&peer), peer);
    }

    pub(super) fn handle_peer_gone(&mut self, now: Time, peer: PkiId) {
        self.peers.remove(&peer);
        self.names.remove(&prefix(&peer));
        self.pursuit.handle_gone(now, peer);
        self.blame.handle_gone(&peer);
        self.typical_round_trip = None;
    }

    pub(super) fn handle_round_trip(&mut self, peer: PkiId, round_trip: Duration) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.round_trip = Some(round_trip);
            self.typical_round_trip = None;
        }
    }

    pub(super) fn handle_leader(&mut self, leader: Option<PkiId>) {
        self.leader = leader;
    }

    pub(super) fn handle_height(&mut self, peer: PkiId, height: u64) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.known.raise(height);
            peer.far_behind = height.saturating_add(FAR_BEHIND_BLOCKS) <= self.highest;
        }
    }

    pub(super) fn handle_bulk_started(&mut self, now: Time, header: &BulkHeader, chain: &Chain) {
        if is_open(chain, header.number) {
            let transfer = self.transfer(self.size_of(header.number));
            let arriving = self.arriving.entry(header.number).or_insert(Arriving { began: now, until: now });
            let end = arriving.began + ARRIVING_MIN.max(transfer * ARRIVING_TRANSFERS);
            arriving.until = (now + STALLED_MIN.max(transfer * 8)).min(end);
            trim_map(&mut self.arriving);
        }
    }

    /// A whole body: teaches how good promises are, and says what is to be done once the block is verified.
    pub(super) fn handle_bulk(
        &mut self,
        now: Time,
        peer: PkiId,
        header: &BulkHeader,
        chain: &Chain,
        outputs: &mut Outputs,
        counters: &mut DisseminationCounters,
    ) {
        let number = header.number;
        self.handle_bulk_started(now, header, chain);
        let Some(sender) = self.peers.get_mut(&peer) else { return };
        sender.known.note(number);
        if header.kind() != BulkKind::Push {
            return;
        }
        if let Some(promise) = self.promises.get_mut(&number).filter(|promise| !promise.taught) {
            promise.taught = true;
            self.slack.learn(promise.arrival, now.since(promise.since));
        }
        let Ok(hash) = Digest::try_from(header.hash.as_slice()) else { return };
        let inside =
            number < chain.window_end() && number.saturating_add(REMEMBERED_MAX as u64) > chain.next_needed();
        if inside && !self.forwarded.contains(&number) && !self.orders.contains_key(&number) {
            let delegation = header.delegation.clone().unwrap_or_default();
            self.orders.insert(number, Orders { from: peer, hash, delegation });
            counters.over_bound += trim_map(&mut self.orders);
            // The block came otherwise in the meantime; those this peer is to serve still wait.
            if chain.kept_hash(number) == Some(hash) {
                self.forward(number, hash, outputs, counters);
            }
        }
    }

    /// What was arriving is not the block.
    pub(super) fn handle_rejected(&mut self, now: Time, peer: PkiId, number: u64) {
        self.arriving.remove(&number);
        if self.orders.get(&number).is_some_and(|orders| orders.from == peer) {
            self.orders.remove(&number);
        }
        self.pursuit.handle_refusal(now, peer, number);
    }

    pub(super) fn handle_refusal(&mut self, now: Time, peer: PkiId, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.pursuit.handle_refusal(now, peer, *number));
    }

    pub(super) fn handle_block(
        &mut self,
        now: Time,
        block: &NewBlock,
        outputs: &mut Outputs,
        counters: &mut DisseminationCounters,
    ) {
        let number = block.number;
        let was_near = number >= self.highest.saturating_sub(FAR_BEHIND_BLOCKS);
        self.highest = self.highest.max(number);
        self.typical_size = block.size;
        self.verify_cost.learn(block.size, block.verified_in);
        self.arriving.remove(&number);
        let tries = self.pursuit.handle_here(number);
        if let Some(peer) = block.source.peer().and_then(|peer| self.peers.get_mut(&peer)) {
            peer.known.note(number);
        }
        match block.source {
            BlockSource::Orderer => self.send_out(now, block, outputs),
            BlockSource::Push(_) => self.announce(now, block),
            BlockSource::Reply(_) if tries.is_some_and(|tries| tries > 0) => {
                counters.repaired += 1;
                self.report_late(number, outputs);
                self.announce(now, block);
            }
            // Fetched by reconciliation. Near the tip somebody should have told of it.
            BlockSource::Reply(_) => {
                counters.missed += u64::from(was_near && self.highest == number && tries.is_none())
            }
        }
        if block.source != BlockSource::Orderer {
            self.forward(number, block.hash, outputs, counters);
        }
        self.flush(now, outputs);
    }

    pub(super) fn handle_frame(
        &mut self,
        now: Time,
        peer: PkiId,
        frame: &ChannelBody,
        chain: &Chain,
        outputs: &mut Outputs,
        counters: &mut DisseminationCounters,
    ) {
        match frame {
            ChannelBody::Announcement(announcement) => {
                for manifest in &announcement.manifests {
                    self.handle_manifest(now, peer, manifest, chain, counters);
                }
            }
            ChannelBody::Holding(holding) => self.handle_holding(now, peer, holding, chain, counters),
            ChannelBody::Late(late) => {
                for number in &late.numbers {
                    self.blame.handle_late(peer, *number);
                }
            }
            _ => {}
        }
        self.flush(now, outputs);
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Time,
        chain: &Chain,
        outputs: &mut Outputs,
        counters: &mut DisseminationCounters,
    ) {
        self.pursuit.forget_below(chain.next_needed());
        let (peers, arriving, promises) = (&self.peers, &self.arriving, &self.promises);
        let (link, verify_cost, typical) =
            (self.config.link_bits_per_second, &self.verify_cost, self.typical_size);
        let margin = self.slack.margin(self.typical_round_trip.unwrap_or(ROUND_TRIP_ASSUMED));
        let answer = |number| {
            let size = promises.get(&number).map_or(typical, |promise| promise.size);
            transfer(size, link) * 4 + verify_cost.of(size) + margin.min(HEDGE_MARGIN_MAX)
        };
        let steps = self.pursuit.handle_timeout(
            now,
            &mut self.rng,
            |number| arriving.get(&number).map(|arriving| arriving.until),
            |peer, number| {
                let round_trip = peers.get(peer).and_then(|peer| peer.round_trip);
                round_trip.unwrap_or(ROUND_TRIP_ASSUMED).mul_f64(1.25) + answer(number)
            },
        );
        let mut asks: BTreeMap<PkiId, Vec<u64>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Ask(peer, number) => asks.entry(peer).or_default().push(number),
                Step::GiveUp(_) => counters.missed += 1,
            }
        }
        for (peer, mut numbers) in asks {
            numbers.truncate(NUMBERS_PER_FRAME_MAX);
            counters.requested += numbers.len() as u64;
            outputs.push_back(send(peer, ChannelBody::Request(Request { numbers })));
        }
        self.flush(now, outputs);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        earliest(self.pursuit.next_deadline(), self.outbox.next_deadline())
    }

    pub(super) fn is_pursuing(&self, number: u64) -> bool {
        self.pursuit.contains(number)
    }

    /// The leader has a new block: plans it, announces it, pushes it.
    fn send_out(&mut self, now: Time, block: &NewBlock, outputs: &mut Outputs) {
        self.rate.add(now, block.size);
        let plan = self.plan(now, block);
        self.forwarded.insert(block.number);
        trim_set(&mut self.forwarded);
        let arrivals = plan.places.iter().map(|place| (place.peer, place.arrival)).collect();
        let manifest = Manifest {
            number: block.number,
            hash: block.hash.0.to_vec(),
            size: block.size as u64,
            ..Manifest::default()
        };
        self.outbox.planned.push(Planned { manifest, since: now, arrivals });
        self.outbox.handle_put(now, block.size);
        // Announcements are small and go first.
        self.flush(now, outputs);
        self.push(block.number, delegation::of_plan(&plan, HEADS), outputs);
    }

    fn plan(&mut self, now: Time, block: &NewBlock) -> Plan {
        self.blame.handle_time(now, &mut self.rng);
        if self.config.propagate_peer_num == 0 {
            return Plan::default();
        }
        let typical = self.typical_round_trip();
        let suspects = self.blame.suspects(block.number);
        let targets: Vec<Target> = self
            .peers
            .iter()
            .filter(|(_, state)| !state.far_behind && !state.known.holds(block.number))
            .map(|(peer, state)| Target {
                peer: *peer,
                round_trip: state.round_trip.unwrap_or(typical),
                may_relay: !suspects.contains(peer),
                proven: !suspects.is_empty() && self.blame.is_proven(peer),
            })
            .collect();
        let link = self.config.link_bits_per_second as f64 / 8.0;
        let spare = (ROOT_LINK_SHARE * link / self.rate.bytes_per_second(now)) as usize;
        let terms = Terms {
            transfer: self.transfer(block.size),
            verify: self.verify_cost.of(block.size),
            root_children_max: spare.clamp(ROOT_CHILDREN_MIN, ROOT_CHILDREN_MAX),
            children_max: self.config.propagate_peer_num,
        };
        let plan = plan(&targets, &terms, &mut self.rng);
        // Reports are here when the last has waited, asked, been served and said so.
        let reported = plan.last_arrival() * 3 + typical * 4 + super::outbox::COALESCE * 2;
        self.blame.handle_plan(block.number, &plan, now + reported, &mut self.rng);
        plan
    }

    /// Serves those that the push which brought the block named, once.
    fn forward(
        &mut self,
        number: u64,
        hash: Digest,
        outputs: &mut Outputs,
        counters: &mut DisseminationCounters,
    ) {
        let Some(orders) = self.orders.remove(&number).filter(|orders| orders.hash == hash) else { return };
        if !self.forwarded.insert(number) {
            return;
        }
        trim_set(&mut self.forwarded);
        let peers = &self.peers;
        let member = |name: &Prefix| {
            let peer = self.names.get(name).filter(|peer| **peer != orders.from)?;
            let lacks = peers.get(peer).is_some_and(|state| !state.known.holds(number));
            lacks.then_some(*peer)
        };
        match delegation::branches(&orders.delegation, self.config.propagate_peer_num, member) {
            Ok(branches) => self.push(number, branches, outputs),
            Err(_) => counters.bad_plans += 1,
        }
    }

    fn push(&mut self, number: u64, branches: Vec<Branch>, outputs: &mut Outputs) {
        for Branch { peer, delegation } in branches {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.known.note(number);
            }
            outputs.push_back(DisseminationOutput::Push { peer, number, delegation });
        }
    }

    /// How long a block that nobody promised is waited for: it may be on its way.
    fn patience(&mut self, size: usize) -> Duration {
        self.typical_round_trip() + self.transfer(size) * 4 + self.verify_cost.of(size) * 2
    }

    fn size_of(&self, number: u64) -> usize {
        self.promises.get(&number).map_or(self.typical_size, |promise| promise.size)
    }

    fn transfer(&self, size: usize) -> Duration {
        transfer(size, self.config.link_bits_per_second)
    }

    fn typical_round_trip(&mut self) -> Duration {
        if let Some(typical) = self.typical_round_trip {
            return typical;
        }
        let mut known: Vec<Duration> = self.peers.values().filter_map(|peer| peer.round_trip).collect();
        let middle = known.len() / 2;
        let typical = match middle {
            _ if known.is_empty() => ROUND_TRIP_ASSUMED,
            middle => *known.select_nth_unstable(middle).1,
        };
        self.typical_round_trip = Some(typical);
        typical
    }
}

/// How many random members hear from a peer that it holds a block, in an organisation of so many others.
fn listeners(members: usize) -> usize {
    (members / MEMBERS_PER_LISTENER).clamp(LISTENERS_MIN, LISTENERS_MAX)
}

fn transfer(size: usize, link_bits_per_second: u64) -> Duration {
    Duration::from_secs_f64(size as f64 * 8.0 / link_bits_per_second.max(1) as f64)
}

/// Whether the block is wanted: inside the window and not held.
fn is_open(chain: &Chain, number: u64) -> bool {
    number < chain.window_end() && !chain.holds(number)
}

fn send(peer: PkiId, body: ChannelBody) -> DisseminationOutput {
    DisseminationOutput::Send { peer, body }
}

/// Returns how many went.
fn trim_map<V>(map: &mut BTreeMap<u64, V>) -> u64 {
    let mut gone = 0;
    while map.len() > REMEMBERED_MAX {
        map.pop_first();
        gone += 1;
    }
    gone
}

fn trim_set(set: &mut BTreeSet<u64>) {
    while set.len() > REMEMBERED_MAX {
        set.pop_first();
    }
}

#[cfg(test)]
mod tests;
