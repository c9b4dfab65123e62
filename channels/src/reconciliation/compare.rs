//! Do the histories agree: the tips of others against the own chain, the search for the first difference, and readiness.

use super::*;
use crate::wire::HEADERS_PER_RANGE_MAX;

/// A peer behind by no more than this many blocks counts as level: blocks come all the time.
pub(super) const LEVEL_BLOCKS: u64 = 16;

/// Why a peer is not ready in a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Nobody could be asked.
    #[error(
        "no source: no member of the channel is connected and no orderer answers; check peer.gossip.bootstrap, the anchor peers and the network"
    )]
    NoSource,
    /// Blocks are missing.
    #[error(
        "behind: {height} of {claimed} blocks, {missing} missing, {sources} members can be asked for the next one"
    )]
    Behind {
        /// Blocks committed.
        height: u64,
        /// Blocks others have.
        claimed: u64,
        /// The difference.
        missing: u64,
        /// Connected members that claim the next block.
        sources: usize,
    },
    /// Nobody has confirmed the tip since the start.
    #[error(
        "unconfirmed: the history up to block {number} is confirmed by peers of {organizations} of {wanted} organisations and by no orderer"
    )]
    Unconfirmed {
        /// Own tip when the peer had first caught up, or now.
        number: u64,
        /// Organisations with a peer that has the same block there or above.
        organizations: usize,
        /// How many are needed.
        wanted: usize,
    },
}

/// Who agrees with the own chain.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// Highest own block that an orderer delivered.
    pub(super) by_orderer: Option<u64>,
    /// Highest own block that a peer of each organisation holds too.
    by_organization: BTreeMap<MspId, u64>,
    /// Own tip when nothing was missing for the first time.
    level_at: Option<u64>,
    confirmed: bool,
    /// Own height, and whether a difference was being searched for, when all tips were compared last.
    compared: Option<(u64, bool)>,
}

/// The search for the first block that differs from a peer's.
#[derive(Debug)]
pub(super) struct Search {
    peer: PkiId,
    /// Lowest block known to differ.
    differs: u64,
    theirs: Digest,
    /// Range asked for.
    first: u64,
    deadline: Option<Time>,
}

impl Reconciliation {
    /// Why the channel is not ready; `None`: it is. `orderer` tells whether an orderer answers, `organizations` how many the
    /// channel has.
    pub fn not_ready(&self, chain: &Chain, orderer: bool, organizations: usize) -> Option<NotReady> {
        let Progress { height, claimed, sources, .. } = self.progress(chain);
        if self.sources.is_empty() && !orderer {
            return Some(NotReady::NoSource);
        }
        let missing = claimed.saturating_sub(height);
        if missing > LEVEL_BLOCKS {
            return Some(NotReady::Behind { height, claimed, missing, sources });
        }
        // Block 0 comes from the operator.
        if self.confirmation.confirmed || height <= 1 {
            return None;
        }
        let number = self.confirmation.level_at.unwrap_or_else(|| height.saturating_sub(1));
        let wanted = organizations.clamp(1, 2);
        let confirming = self.organizations_confirming(number);
        (confirming < wanted).then_some(NotReady::Unconfirmed { number, organizations: confirming, wanted })
    }

    /// Whether the tip was confirmed since the start.
    pub fn is_confirmed(&self) -> bool {
        self.confirmation.confirmed
    }

    fn organizations_confirming(&self, number: u64) -> usize {
        self.confirmation.by_organization.values().filter(|held| **held >= number).count()
    }

    /// Notes when the peer is level for the first time, and whether its tip is confirmed.
    pub(super) fn note_level(&mut self, now: Time, chain: &Chain) {
        if self.confirmation.confirmed {
            return;
        }
        self.looked_at = self.looked_at.max(now);
        let height = chain.height();
        // What a peer tells is compared when it tells it: only more blocks of the own chain, or the end of a search, change the answer.
        let compared = Some((height, self.search.is_some()));
        if self.confirmation.compared != compared {
            let peers: Vec<PkiId> = self.sources.keys().copied().collect();
            for peer in peers {
                self.compare(peer, chain);
            }
            self.confirmation.compared = Some((height, self.search.is_some()));
        }
        let heard = self.confirmation.by_orderer.is_some()
            || self.sources.values().any(|source| source.tip.is_some());
        if self.confirmation.level_at.is_none() && heard && self.credible_height() <= height {
            self.confirmation.level_at = height.checked_sub(1);
        }
        let Some(number) = self.confirmation.level_at else { return };
        let by_orderer = self.confirmation.by_orderer.is_some_and(|held| held >= number && held < height);
        self.confirmation.confirmed = by_orderer || self.organizations_confirming(number) >= 2;
    }

    /// Compares the tip that a peer told with the own chain, as far as that reaches.
    pub(super) fn compare(&mut self, peer: PkiId, chain: &Chain) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let Some((number, theirs)) = source.tip.filter(|(number, _)| *number < chain.height()) else {
            return;
        };
        let Some(own) = chain.hash_at(number) else {
            if source.looked_up.replace(number) != Some(number) {
                self.said.push(Ask::OwnHash { peer, number });
            }
            return;
        };
        if own == theirs {
            let held = self.confirmation.by_organization.entry(source.organization.clone()).or_default();
            *held = (*held).max(number);
        } else if !source.diverges && self.search.is_none() {
            source.diverges = true;
            self.search = Some(Search { peer, differs: number, theirs, first: number, deadline: None });
        }
    }

    /// What the ledger has at the number of a peer's tip that is no longer in memory.
    pub fn handle_own_hash(&mut self, now: Time, peer: PkiId, number: u64, own: Digest) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let Some((_, theirs)) = source.tip.filter(|(tip, theirs)| *tip == number && *theirs != own) else {
            return;
        };
        if std::mem::replace(&mut source.diverges, true) {
            return;
        }
        self.report(peer, number, own, theirs);
        self.changed(now);
    }

    fn report(&mut self, peer: PkiId, number: u64, own: Digest, theirs: Digest) {
        self.counters.diverged += 1;
        self.said.push(Ask::Diverged { peer, number, own, theirs });
        // The block itself is the evidence, if orderers signed it.
        self.said.push(Ask::Blocks { peer, numbers: vec![number] });
    }

    /// A peer's header of this number does not link to the own chain: the difference lies below.
    pub(super) fn search_below(&mut self, peer: PkiId, number: u64) {
        let Some(source) = self.sources.get_mut(&peer).filter(|source| !source.diverges) else { return };
        if self.search.is_none() {
            source.diverges = true;
            let differs = number.saturating_sub(1);
            self.search =
                Some(Search { peer, differs, theirs: Digest([0; 32]), first: number, deadline: None });
        }
    }

    /// Asks for the headers below the lowest known difference.
    pub(super) fn continue_search(&mut self, now: Time, asks: &mut Vec<Ask>) {
        let timeout = self.config.response_timeout;
        let Some(search) = &mut self.search else { return };
        if !self.sources.contains_key(&search.peer) || search.deadline.is_some_and(|at| at <= now) {
            self.search = None;
            return;
        }
        if search.deadline.is_none() {
            search.deadline = Some(now + timeout);
            let count = HEADERS_PER_RANGE_MAX as u64;
            search.first = search.differs.saturating_add(1).saturating_sub(count).max(1);
            let count = search.differs.saturating_sub(search.first).saturating_add(1);
            asks.push(Ask::Headers { peer: search.peer, first: search.first, count });
        }
    }

    /// True if the headers were asked for by the search.
    pub(super) fn search_answered(
        &mut self,
        now: Time,
        peer: PkiId,
        headers: &wire::Headers,
        chain: &Chain,
    ) -> bool {
        let Some(search) = self.search.as_mut().filter(|search| {
            search.peer == peer && search.deadline.is_some() && headers.first == search.first
        }) else {
            return false;
        };
        let mut found = None;
        for (header, _) in headers.headers() {
            let theirs = header.hash();
            match chain.hash_at(header.number) {
                Some(own) if own != theirs => {
                    found = Some((header.number, own, theirs));
                    break;
                }
                _ => {}
            }
        }
        let Some((number, own, theirs)) = found else {
            // They say now what this peer has: no difference to report.
            self.search = None;
            return true;
        };
        search.differs = number;
        search.theirs = theirs;
        let below = number.checked_sub(1).and_then(|below| chain.hash_at(below));
        let links = below.is_none_or(|own| own.0.as_slice() == headers.previous_hash.as_ref())
            || number > headers.first;
        if number == headers.first && !links && number > 1 {
            search.deadline = None;
            self.changed(now);
            return true;
        }
        self.search = None;
        self.report(peer, number, own, theirs);
        self.changed(now);
        true
    }
}
