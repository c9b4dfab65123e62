//! The orderer as the last source of a peer that does not lead: blocks are missing, and nobody else brings them.

use super::*;

/// A block that exists has not come from any member for this long: the orderer is asked.
pub const STRANDED_AFTER: Duration = Duration::from_secs(5);

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct LastResort {
    /// The block that is needed, and since when.
    needed: Option<(u64, Time)>,
    pulls: bool,
}

impl Reconciliation {
    /// Whether to begin or end pulling from the orderer.
    pub(super) fn consider_orderer(&mut self, now: Time, chain: &Chain, asks: &mut Vec<Ask>) {
        let next = chain.next_needed();
        let missing = self.is_missing(next);
        let resort = &mut self.last_resort;
        if !missing {
            resort.needed = None;
        } else if resort.needed.is_none_or(|(number, _)| number != next) {
            resort.needed = Some((next, now));
        }
        let stranded = resort.needed.is_some_and(|(_, since)| since + STRANDED_AFTER <= now);
        let pulls = if resort.pulls { missing } else { stranded };
        if pulls != resort.pulls {
            resort.pulls = pulls;
            asks.push(Ask::Orderer { pull: pulls });
        }
    }

    /// When the orderer is asked if nothing comes.
    pub(super) fn stranded_at(&self) -> Option<Time> {
        let LastResort { needed, pulls } = &self.last_resort;
        needed.filter(|_| !pulls).map(|(_, since)| since + STRANDED_AFTER)
    }

    /// Whoever pulled from the orderer does so no longer, or pulls as the leader from now on.
    pub fn handle_orderer_stopped(&mut self) {
        self.last_resort = LastResort::default();
    }

    /// Whether the next block exists, for all that is known: its header is verified, or somebody claims it who has never failed to show
    /// what it claims. A liar must not send everybody to the orderer.
    fn is_missing(&self, next: u64) -> bool {
        let by_height = self.config.enabled;
        let honest = |source: &Source| source.failures() == 0 && source.claim_end(by_height) > next;
        self.headers.end(next) > next || (self.claims_end > next && self.sources.values().any(honest))
    }
}
