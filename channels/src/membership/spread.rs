//! Who gets which record, and how many.

use std::time::Duration;

use grapevine_crypto::{MspId, PkiId};

use super::types::MembershipOutput;
use super::{Membership, NEWS_MAX, record};
use crate::authority::Credential;
use crate::time::Time;
use crate::wire::SignedAlive;

impl Membership {
    /// To how many a new record is passed on. News go to so many more that hardly anybody misses them (each peer passes
    /// them on once; of N peers about N × e^-copies hear nothing), unless there are too many at a time.
    pub(super) fn copies(&mut self, now: Time, is_news: bool) -> usize {
        if !is_news {
            return self.config.fanout;
        }
        if now.since(self.news.0) >= Duration::from_secs(1) {
            self.news = (now, 0);
        }
        self.news.1 = self.news.1.saturating_add(1);
        if self.news.1 > NEWS_MAX {
            return 1;
        }
        let doublings = usize::BITS - self.connected.len().leading_zeros();
        self.config.fanout + 2 * usize::try_from(doublings).unwrap_or_default()
    }

    /// Whether a peer of `receiver` may know of a member of `subject` with this external endpoint.
    pub(super) fn may_know(&self, receiver: &MspId, subject: &MspId, external_endpoint: &str) -> bool {
        may_know(&self.own.msp_id, receiver, subject, external_endpoint)
    }

    /// Sends a record of `subject` to random connected peers that may have it, never to its subject or sender.
    pub(super) fn spread(
        &mut self,
        record: &SignedAlive,
        subject: &Credential,
        from: Option<PkiId>,
        copies: usize,
    ) {
        let decoded = record::decode(record, &self.config.network_id);
        let external = decoded.map(|alive| alive.external_endpoint).unwrap_or_default();
        let own = &self.own.msp_id;
        let receivers = self.connected.sample(&mut self.rng, copies, |peer, organization| {
            may_know(own, organization, &subject.msp_id, &external)
                && *peer != subject.pki_id
                && Some(*peer) != from
        });
        for peer in receivers {
            let Some(organization) = self.connected.organization(&peer) else { continue };
            if let Some(record) = self.disclose(record, &subject.msp_id, organization) {
                self.outputs.push_back(MembershipOutput::SendAlive { peer, record });
            }
        }
    }

    /// The record of a member of `subject` as a peer of `receiver` may see it.
    pub(super) fn disclose(
        &self,
        record: &SignedAlive,
        subject: &MspId,
        receiver: &MspId,
    ) -> Option<SignedAlive> {
        if *receiver == self.own.msp_id {
            return Some(record.clone());
        }
        let external = record::decode(record, &self.config.network_id).ok()?.external_endpoint;
        self.may_know(receiver, subject, &external).then(|| SignedAlive { internal: None, ..record.clone() })
    }
}

fn may_know(own: &MspId, receiver: &MspId, subject: &MspId, external_endpoint: &str) -> bool {
    let shared = subject == receiver || subject == own;
    receiver == own || (shared && !external_endpoint.is_empty())
}
