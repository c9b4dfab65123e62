//! Reconciliation: what this peer lacks, who has it, whom to ask, and whether the histories agree.
//!
//! # Promise
//! A block that some connected member of the channel, of any of its organisations, holds and this peer lacks is asked for until it
//! is here, whatever others claim, withhold or send. Every block is verified and linked before it is committed, whoever sent it.
//! Dissemination brings new blocks; reconciliation asks for older gaps, and for new blocks that stayed away for [`PUSH_GRACE`].
//!
//! # Messages
//! `State` (height and tip hash; with `answer` set it wants the other's in return), `HeadersRequest` and `Headers` (a range of headers
//! with the orderers' signatures), `Request` and `Refusal` (block numbers). Blocks come on the bulk stream.
//!
//! # How
//! *Start*: a digest, a member's height or a connection starts it at once. Every `check_interval` one member is asked for its state, in a
//! fixed permutation of all, so that any gap is compared with everyone within as many rounds as there are other members.
//!
//! *Headers first*: a claimed height is a hint. Further than [`HEADERS_FROM_BLOCKS`] behind, ranges of headers are fetched, several at a
//! time from different members, verified and linked to the own tip. A config block ends the walk until it is committed. Whoever cannot
//! show headers of what it claims no longer counts for it. A block whose header is verified is checked by its data hash alone.
//!
//! *Bodies*: the lowest missing first, from at least [`SOURCES_MIN`] members at a time if there are as many, own organisation first.
//! Each is asked for up to its window: twice bandwidth × delay as measured. All together never exceed the room that the in-order buffer
//! has left, so a slow disk slows the network down. The first [`UNPROVEN_BLOCKS`] are asked for without waiting for their headers, so that
//! the first block takes one round trip.
//!
//! *Hedging*: a source from which nothing came for 1.5 × the usual time while others answered is taken for silent: what it was asked for
//! goes to others, it rests (doubling up to [`REST_MAX`]) and comes back with one block at a time. The lowest missing block alone, when late,
//! is asked for a second time elsewhere. A trickle of bytes counts as silence until a block is whole.
//!
//! *Last resort*: a block that is known to exist and that no member brings for [`STRANDED_AFTER`] is pulled from the orderer, by a peer that
//! does not lead too, until nothing is missing.
//!
//! *Comparing*: both ends compare the other's tip hash with their own chain. If they differ, the first differing block is searched by
//! headers, reported, and fetched: if orderers signed it, it is the evidence; if not, its sender is to blame. A tip older than the hashes
//! that the chain remembers ([`HASHES_MAX`](crate::chain::HASHES_MAX)) is looked up in the ledger, and reported as it stands if it differs: whoever is
//! so far behind meets the difference himself, when headers from above do not link to his tip, and searches.
//!
//! *Ready*: a peer is ready once it was level with what is proven and its tip was confirmed by an orderer or by peers of two
//! organisations; [`NotReady`] says why not, with numbers.
//!
//! # Bounds
//! Sources: the connected members. Digest numbers a source: [`CLAIMS_PER_PEER_MAX`]. Blocks asked of one: [`ASKED_PER_SOURCE_MAX`] and
//! [`WINDOW_BYTES_MAX`]. Old tips being looked up: one a source, each number once. Headers ahead: [`HEADERS_AHEAD_MAX`] and about [`HEADERS_AHEAD_BYTES_MAX`]; open ranges [`HEADER_RANGES_MAX`].
//!
//! # Attacks
//! A huge height costs one request for headers, then the claimant rests. Silence costs its window once in each rest. A block that does not
//! verify costs the connection. Untrue sizes of blocks only change how many are asked for at a time, and cost the source its turn.

mod claims;
mod compare;
mod headers;
mod last_resort;
mod progress;
mod schedule;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::{Digest, MspId, PkiId, sha256_of};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::chain::Chain;
use crate::time::{Time, earliest};
use crate::verify::VerifiedHeader;
use crate::wire;
pub use compare::NotReady;
use compare::{Confirmation, Search};
use headers::{Answer, Headers, Linking};
use last_resort::LastResort;
pub use last_resort::STRANDED_AFTER;
pub use progress::Progress;
use progress::Speed;
use source::Source;

/// How long a block near the tip may be on its way by push before it is asked for.
pub const PUSH_GRACE: Duration = Duration::from_millis(150);
/// Further behind than this many blocks, nothing missing is expected by push.
pub const NEAR_TIP_BLOCKS: u64 = 4;
/// Further behind than this many blocks, headers are fetched first.
pub const HEADERS_FROM_BLOCKS: u64 = 8;
/// Blocks above the own ones that are asked for on a claim alone.
pub const UNPROVEN_BLOCKS: u64 = 16;
/// Of them while no size of a block is known.
pub const UNSIZED_BLOCKS: u64 = 4;
/// Members asked at a time, at least, if there are as many.
pub const SOURCES_MIN: usize = 4;
/// First rest of a peer that failed.
pub const REST_MIN: Duration = Duration::from_millis(500);
/// Longest rest of a peer that failed.
pub const REST_MAX: Duration = Duration::from_secs(30);
/// Most numbers remembered from one peer's digests.
pub const CLAIMS_PER_PEER_MAX: usize = 1_024;
/// Most blocks asked of one source at a time.
pub const ASKED_PER_SOURCE_MAX: usize = 1_024;
/// Bytes asked of a source before its speed is known, and at least.
pub const WINDOW_BYTES_FIRST: usize = 512 << 10;
/// Most bytes asked of one source at a time.
pub const WINDOW_BYTES_MAX: usize = 8 << 20;
/// Most verified headers ahead of the ledger.
pub const HEADERS_AHEAD_MAX: u64 = 4_096;
/// Bytes of verified headers after which no more are asked for.
pub const HEADERS_AHEAD_BYTES_MAX: usize = 4 << 20;
/// Most ranges of headers being fetched.
pub const HEADER_RANGES_MAX: usize = 4;
/// How long a peer that refused everything is left alone.
const REST_AFTER_REFUSAL: Duration = Duration::from_millis(200);
/// Patience with a source while no answer of anybody is known.
const PATIENCE_FIRST: Duration = Duration::from_secs(1);
/// Least patience: below it, scheduling alone makes a source look silent.
const PATIENCE_MIN: Duration = Duration::from_millis(60);
/// Speed in bytes a second that is slow but not silent.
const SLOW: f64 = 4e6;
/// Far behind, what happens within this time is looked at once: with small blocks something happens every few microseconds.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);
/// Pause after a block was dropped on the way to the ledger, so that it is not fetched over and over.
const PAUSE_AFTER_DROP: Duration = Duration::from_millis(20);
/// What a block is expected to have while none was seen.
const BLOCK_BYTES_FIRST: usize = 64 << 10;

/// How reconciliation behaves; the names are peer.yaml's under `peer.gossip.state`.
#[derive(Debug, Clone)]
pub struct ReconciliationConfig {
    /// Ask for history by claimed heights (`enabled`). Digests are followed in any case.
    pub enabled: bool,
    /// Time between two comparisons of states (`checkInterval`).
    pub check_interval: Duration,
    /// Silence of all sources after which a request is given up (`responseTimeout`); of one alone much earlier.
    pub response_timeout: Duration,
    /// Most blocks in one request (`batchSize`). A source may have several open.
    pub batch_size: usize,
    /// Failures in a row after which the rest grows no further (`maxRetries`).
    pub max_retries: u32,
}

/// Something to send, or to tell the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Ask a peer for blocks, ascending.
    Blocks {
        /// The peer.
        peer: PkiId,
        /// The blocks.
        numbers: Vec<u64>,
    },
    /// Ask a peer for headers.
    Headers {
        /// The peer.
        peer: PkiId,
        /// Number of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Send a peer the own state and ask for its own.
    State {
        /// The peer.
        peer: PkiId,
    },
    /// Begin or end to pull from the orderer although another peer leads.
    Orderer {
        /// Begin.
        pull: bool,
    },
    /// Look up the header hash of an own block that is no longer in memory, for the tip of a peer; the answer is
    /// [`Reconciliation::handle_own_hash`].
    OwnHash {
        /// The peer.
        peer: PkiId,
        /// The block.
        number: u64,
    },
    /// A peer's history differs from the own one.
    Diverged {
        /// The peer.
        peer: PkiId,
        /// The first differing block, or the lowest that was compared.
        number: u64,
        /// Header hash of the own one.
        own: Digest,
        /// Header hash of the peer's.
        theirs: Digest,
    },
}

/// Whether a block comes without being asked for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// It does not.
    Nowhere,
    /// It is being verified.
    Arriving,
    /// Dissemination is after it, and may give it up.
    Pursued,
}

/// Counts of what happened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ReconciliationCounters {
    /// Requests for blocks sent.
    pub requests: u64,
    /// Requests for headers sent.
    pub header_requests: u64,
    /// Headers verified and linked.
    pub headers: u64,
    /// Blocks asked for a second time elsewhere while the first request was open.
    pub hedges: u64,
    /// Sources given up for silence.
    pub timeouts: u64,
    /// Numbers peers refused.
    pub refused: u64,
    /// Claims of blocks that their claimants could not show.
    pub unproven_claims: u64,
    /// Histories of peers that differ from the own one.
    pub diverged: u64,
}

/// The reconciliation machine of one channel. See the module's header.
///
/// Tell it what happens by `handle_…`, then call [`Reconciliation::handle_timeout`] and carry out what it asks; it is due at
/// [`Reconciliation::next_deadline`] at the latest, and at once after anything was told.
#[derive(Debug)]
pub struct Reconciliation {
    config: ReconciliationConfig,
    sources: BTreeMap<PkiId, Source>,
    /// Those of them that may owe something or rest; all others need no timer.
    busy: BTreeSet<PkiId>,
    /// One past the highest block that any source claims.
    claims_end: u64,
    /// Below it no source's claims are remembered.
    forgotten_below: u64,
    /// Places in the permutation by which members are compared.
    places: BTreeMap<Digest, PkiId>,
    salt: [u8; 32],
    last_place: Option<Digest>,
    /// Numbers asked for, with how many sources.
    asked: BTreeMap<u64, usize>,
    /// Below it everything is here or asked for.
    cursor: u64,
    headers: Headers,
    /// When each missing number near the tip was first seen claimed.
    missing: BTreeMap<u64, Time>,
    /// Average time of answers with blocks, and with headers, in seconds.
    usual_s: Option<f64>,
    usual_headers_s: Option<f64>,
    /// When a block arrived last.
    arrived_at: Option<Time>,
    /// Average size of blocks, once one was seen.
    block_bytes: Option<f64>,
    speed: Speed,
    confirmation: Confirmation,
    last_resort: LastResort,
    search: Option<Search>,
    next_state: Time,
    /// Something happened since the last look.
    changed_at: Option<Time>,
    /// Blocks that nobody pushes are missing.
    behind: bool,
    /// No look before this.
    paused_until: Time,
    /// When a block near the tip no longer may be on its way by push.
    grace_ends: Option<Time>,
    /// The present, as far as it is known.
    looked_at: Time,
    /// When all was last looked at, and what is missing asked for.
    asked_at: Time,
    said: Vec<Ask>,
    counters: ReconciliationCounters,
}

impl Reconciliation {
    /// A channel joined at `now`.
    pub fn new(config: ReconciliationConfig, now: Time, mut rng: ChaCha8Rng) -> Self {
        let mut salt = [0; 32];
        salt.iter_mut().for_each(|byte| *byte = rng.random_range(0..=u8::MAX));
        // Started at once, peers would otherwise compare at the same moments for ever.
        let next_state = now + config.check_interval.mul_f64(rng.random_range(0.0..1.0));
        Self {
            config,
            sources: BTreeMap::new(),
            busy: BTreeSet::new(),
            claims_end: 0,
            forgotten_below: 0,
            places: BTreeMap::new(),
            salt,
            last_place: None,
            asked: BTreeMap::new(),
            cursor: 0,
            headers: Headers::default(),
            missing: BTreeMap::new(),
            usual_s: None,
            usual_headers_s: None,
            arrived_at: None,
            block_bytes: None,
            speed: Speed::default(),
            confirmation: Confirmation::default(),
            last_resort: LastResort::default(),
            search: None,
            next_state,
            changed_at: None,
            behind: false,
            paused_until: now,
            grace_ends: None,
            looked_at: now,
            asked_at: now,
            said: Vec::new(),
            counters: ReconciliationCounters::default(),
        }
    }

    /// A member of the channel is connected.
    pub fn handle_peer(&mut self, now: Time, peer: PkiId, organization: MspId, own_organization: bool) {
        let place = sha256_of([self.salt.as_slice(), peer.0.as_ref()]);
        self.places.insert(place, peer);
        self.sources.entry(peer).or_insert_with(|| Source::new(now, organization, own_organization));
    }

    /// It no longer is; what it was asked for is free for others.
    pub fn handle_peer_gone(&mut self, now: Time, peer: PkiId) {
        self.free_all(peer);
        let claimed = self.claim_end(peer);
        self.sources.remove(&peer);
        self.busy.remove(&peer);
        self.claims_changed(peer, claimed);
        self.places.retain(|_, at| *at != peer);
        self.headers.give_up_peer(peer);
        self.changed(now);
    }

    /// A peer claims a ledger of `height` blocks whose last has the header hash `tip`.
    pub fn handle_state(&mut self, now: Time, peer: PkiId, height: u64, tip: Option<Digest>, chain: &Chain) {
        let claimed = self.claim_end(peer);
        let Some(source) = self.sources.get_mut(&peer) else { return };
        source.set_height(height);
        if let (Some(number), Some(tip)) = (height.checked_sub(1), tip) {
            source.tip = Some((number, tip));
        }
        self.claims_changed(peer, claimed);
        self.compare(peer, chain);
        self.changed(now);
    }

    /// A peer claims to hold the blocks of these inclusive ranges.
    pub fn handle_digest(&mut self, now: Time, peer: PkiId, ranges: &[u64], chain: &Chain) {
        let claimed = self.claim_end(peer);
        let Some(source) = self.sources.get_mut(&peer) else { return };
        for range in ranges.chunks_exact(2) {
            let [first, last] = *range else { continue };
            for number in first.max(chain.next_needed())..=last.min(chain.window_end()) {
                if !source.claim(number) {
                    break;
                }
            }
        }
        self.claims_changed(peer, claimed);
        self.changed(now);
    }

    /// A block arrived from a peer, verified or not. Says whether it was asked of it, lately or long ago.
    pub fn handle_arrival(&mut self, now: Time, peer: PkiId, number: u64) -> bool {
        let Some(source) = self.sources.get_mut(&peer) else { return false };
        let was_asked = source.asked().contains_key(&number);
        let Some(response) = source.arrived(now, number) else { return false };
        if was_asked {
            self.release(number);
        }
        self.arrived_at = Some(now);
        average(&mut self.usual_s, response, 1.0 / 16.0);
        self.changed(now);
        true
    }

    /// A block that arrived was dropped before it was committed, and nobody is to blame: it is asked for again.
    pub fn handle_dropped(&mut self, now: Time, number: u64) {
        self.cursor = self.cursor.min(number);
        self.paused_until = now + PAUSE_AFTER_DROP;
        self.changed(now);
    }

    /// An authentic block of `size` bytes that `from` sent.
    pub fn handle_authentic(&mut self, now: Time, from: Option<PkiId>, number: u64, size: usize) {
        self.block_bytes =
            Some(self.block_bytes.map_or(size as f64, |average| average + (size as f64 - average) / 16.0));
        let claimed = self.headers.size(number).unwrap_or(size);
        // It needs no second request, whoever still owes it.
        self.asked.remove(&number);
        if from.is_some() && claimed / 4 > size.max(1 << 10) {
            // The size came with the header. Who said it is no longer known; the average counts from now on.
            self.headers.forget_sizes();
        }
        self.changed(now);
    }

    /// An orderer delivered a block that is, or becomes, part of the own chain.
    pub fn handle_confirmation(&mut self, now: Time, number: u64) {
        self.confirmation.by_orderer = self.confirmation.by_orderer.max(Some(number));
        self.changed(now);
    }

    /// A peer will not send these blocks now.
    pub fn handle_refusal(&mut self, now: Time, peer: PkiId, numbers: &[u64]) {
        let claimed = self.claim_end(peer);
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let mut refused = Vec::new();
        for number in numbers {
            if source.take(*number).is_some() {
                source.disclaim(*number);
                refused.push(*number);
            }
        }
        if refused.is_empty() {
            return;
        }
        source.slow_down();
        if source.asked().is_empty() {
            source.rest(now, REST_AFTER_REFUSAL);
            self.busy.insert(peer);
        }
        self.claims_changed(peer, claimed);
        self.counters.refused += refused.len() as u64;
        for number in refused {
            self.release(number);
            self.cursor = self.cursor.min(number);
        }
        self.changed(now);
    }

    /// A peer sent something that did not verify: it is not asked again for a while.
    pub fn handle_bad_block(&mut self, now: Time, peer: PkiId, number: u64) {
        self.fail(now, peer);
        self.cursor = self.cursor.min(number);
        self.changed(now);
    }

    /// A peer answers with headers. True: verify them, then call [`Reconciliation::handle_verified_headers`].
    pub fn handle_headers(&mut self, now: Time, peer: PkiId, headers: &wire::Headers, chain: &Chain) -> bool {
        if self.search_answered(now, peer, headers, chain) {
            return false;
        }
        let count = headers.entries.len() as u64;
        let Some(answer) = self.headers.answered(peer, headers.first, count) else { return false };
        self.changed(now);
        match answer {
            Answer::Empty => {
                self.counters.unproven_claims += 1;
                let claimed = self.claim_end(peer);
                if let Some(source) = self.sources.get_mut(&peer) {
                    source.lower_height(headers.first);
                }
                self.claims_changed(peer, claimed);
                self.fail(now, peer);
                false
            }
            Answer::Headers { asked_at } => {
                average(&mut self.usual_headers_s, now.since(asked_at), 1.0 / 4.0);
                true
            }
        }
    }

    /// Headers were verified: those that hold, from `first` on, each with the size its source gives; or why none does.
    pub fn handle_verified_headers(
        &mut self,
        now: Time,
        peer: PkiId,
        first: u64,
        verified: Option<Vec<(VerifiedHeader, usize)>>,
        chain: &Chain,
    ) {
        self.changed(now);
        let Some(headers) = verified else {
            self.headers.give_up(first);
            return self.fail(now, peer);
        };
        let (next, before) = (chain.next_needed(), self.headers.end(chain.next_needed()));
        match self.headers.verified(next, chain.next_previous_hash(), first, headers) {
            Linking::Fine => self.counters.headers += self.headers.end(next).saturating_sub(before),
            // Another history, signed by orderers: whose it is shows the comparison of the tips.
            Linking::Unlinked { peer, first } => {
                self.headers.give_up(first);
                self.fail(now, peer);
                self.search_below(peer, first);
            }
        }
    }

    /// Blocks below `chain.height()` are committed: `blocks` more than before, of `bytes` together.
    pub fn handle_committed(&mut self, now: Time, blocks: u64, bytes: u64, chain: &Chain) {
        self.speed.committed(now, blocks, bytes);
        self.note_level(now, chain);
        self.changed(now);
    }

    /// What is known of a block ahead of the ledger.
    pub fn header(&self, number: u64) -> Option<&VerifiedHeader> {
        self.headers.header(number)
    }

    /// Bytes that were asked for and are not here.
    pub fn asked_bytes(&self) -> usize {
        self.busy_sources().map(Source::asked_bytes).fold(0, usize::saturating_add)
    }

    /// The greatest height any connected member claims, with who claims it.
    pub fn height_claimed(&self) -> Option<(u64, PkiId)> {
        self.sources.iter().map(|(peer, source)| (source.height(), *peer)).max()
    }

    /// How far the channel is behind, and how fast it catches up.
    pub fn progress(&self, chain: &Chain) -> Progress {
        let height = chain.height();
        let proven = self.headers.end(chain.next_needed());
        let claimed = self.credible_height().max(proven);
        let (blocks_per_s, bytes_per_s) = self.speed.speed();
        let missing = claimed.saturating_sub(height);
        let left = match missing {
            0 => Some(Duration::ZERO),
            _ => Duration::try_from_secs_f64(missing as f64 / blocks_per_s).ok(),
        };
        let sources =
            self.sources.values().filter(|source| source.claims(height, self.config.enabled)).count();
        Progress { height, proven, claimed, sources, blocks_per_s, bytes_per_s, left }
    }

    /// Counts of what happened.
    pub fn counters(&self) -> &ReconciliationCounters {
        &self.counters
    }

    fn changed(&mut self, now: Time) {
        self.changed_at.get_or_insert(now);
    }

    /// One request less for this number.
    fn release(&mut self, number: u64) {
        if let Some(count) = self.asked.get_mut(&number) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.asked.remove(&number);
            }
        }
    }

    /// All that a peer was asked for is free for others.
    fn free_all(&mut self, peer: PkiId) {
        let Some(source) = self.sources.get(&peer) else { return };
        let numbers: Vec<u64> = source.asked().keys().copied().collect();
        for number in numbers {
            self.release(number);
            self.cursor = self.cursor.min(number);
        }
    }

    fn fail(&mut self, now: Time, peer: PkiId) {
        self.free_all(peer);
        self.headers.give_up_peer(peer);
        if let Some(source) = self.sources.get_mut(&peer) {
            source.fail(now, self.config.max_retries);
            self.busy.insert(peer);
        }
    }
}

/// Moves an average by `weight` towards a new value.
fn average(average: &mut Option<f64>, value: Duration, weight: f64) {
    let value = value.as_secs_f64();
    *average = Some(average.map_or(value, |average| average + (value - average) * weight));
}
