//! How far the blocks that members claim reach. The highest is kept at hand: with many members it is asked for all the time and changes
//! once a block.

use super::*;

impl Reconciliation {
    /// The greatest height claimed by a member that does not rest for a failure: those who can't show what they claim do.
    pub(super) fn credible_height(&self) -> u64 {
        if !self.busy_sources().any(|source| source.rests(self.looked_at)) {
            return self.claims_end;
        }
        let by_height = self.config.enabled;
        let credible = self.sources.values().filter(|source| !source.rests(self.looked_at));
        credible.map(|source| source.claim_end(by_height)).max().unwrap_or(0)
    }

    /// One past the highest block that a peer claims.
    pub(super) fn claim_end(&self, peer: PkiId) -> u64 {
        self.sources.get(&peer).map_or(0, |source| source.claim_end(self.config.enabled))
    }

    /// A peer's claims are no longer what they were. All are looked through only when the highest is taken back.
    pub(super) fn claims_changed(&mut self, peer: PkiId, before: u64) {
        let claimed = self.claim_end(peer);
        if claimed < before && before >= self.claims_end {
            let by_height = self.config.enabled;
            self.claims_end =
                self.sources.values().map(|source| source.claim_end(by_height)).max().unwrap_or(0);
        } else {
            self.claims_end = self.claims_end.max(claimed);
        }
    }

    /// What is committed or about to be is nobody's to claim any more.
    pub(super) fn forget_below(&mut self, next: u64) {
        if next <= self.forgotten_below {
            return;
        }
        self.forgotten_below = next;
        let by_height = self.config.enabled;
        self.claims_end = 0;
        for source in self.sources.values_mut() {
            source.forget_below(next);
            self.claims_end = self.claims_end.max(source.claim_end(by_height));
        }
    }
}
