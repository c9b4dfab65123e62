//! Anchor peers: where a channel's organisations say that others find them.
//!
//! # Promise
//! An anchor counts for the organisation that lists it only if a peer of that organisation answers there, or says by its signed record
//! that it would. What is wrong is told once, and again when it comes back ([`AnchorTrouble`]): an organisation that lists none, one
//! whose anchors have all been silent for [`ANCHOR_SILENCE_MAX`], and an anchor at which somebody else answers (who is a member like any
//! other, but no anchor of that organisation). Config blocks take effect at once. A channel of one organisation needs no anchors.
//!
//! # Bounds
//! One entry for each anchor of the joined channels' configs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::{MspId, PkiId};

use super::{Event, Node};
use crate::ChannelId;
use crate::membership::MemberState;
use crate::time::Time;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long all anchors of an organisation may be silent.
pub const ANCHOR_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The anchor peers (`host:port`) of each application organisation; an empty set for one that lists none.
pub type Anchors = BTreeMap<MspId, BTreeSet<String>>;

/// What is wrong with the anchors of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnchorTrouble {
    /// It lists none.
    Missing,
    /// None of its peers answers at any.
    Silent,
    /// A peer of another organisation answers.
    Foreign {
        /// Where.
        endpoint: String,
        /// Whose it is.
        organization: MspId,
    },
}

#[derive(Debug)]
pub(super) struct AnchorWatch {
    anchors: Anchors,
    /// Who answered where when this node dialled.
    answered: BTreeMap<String, (PkiId, MspId)>,
    silent_since: BTreeMap<MspId, Time>,
    troubles: BTreeSet<(MspId, AnchorTrouble)>,
    next: Time,
}

impl AnchorWatch {
    pub(super) fn new(anchors: Anchors, now: Time) -> Self {
        Self {
            anchors,
            answered: BTreeMap::new(),
            silent_since: BTreeMap::new(),
            troubles: BTreeSet::new(),
            next: now + LOOK_INTERVAL,
        }
    }

    pub(super) fn replace(&mut self, anchors: Anchors, now: Time) {
        self.answered.retain(|endpoint, _| anchors.values().any(|listed| listed.contains(endpoint)));
        self.silent_since.retain(|organization, _| anchors.contains_key(organization));
        self.anchors = anchors;
        self.next = now;
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &String> {
        self.anchors.values().flatten()
    }

    fn lists(&self, endpoint: &str) -> bool {
        self.anchors.values().any(|listed| listed.contains(endpoint))
    }

    fn lists_for(&self, endpoint: &str, organization: &MspId) -> bool {
        self.anchors.get(organization).is_some_and(|listed| listed.contains(endpoint))
    }

    pub(super) fn next_deadline(&self) -> Time {
        self.next
    }
}

impl Node {
    /// What is wrong with the anchors of a channel, by organisation.
    pub fn anchor_troubles(&self, channel: &ChannelId) -> Vec<(MspId, AnchorTrouble)> {
        self.channels
            .get(channel)
            .map_or_else(Vec::new, |channel| channel.anchors.troubles.iter().cloned().collect())
    }

    /// A peer answered at an endpoint that was dialled.
    pub(super) fn note_anchor(&mut self, now: Time, endpoint: &str, peer: PkiId, organization: &MspId) {
        for channel in self.channels.values_mut() {
            if channel.anchors.lists(endpoint) {
                channel.anchors.answered.insert(endpoint.to_owned(), (peer, organization.clone()));
                channel.anchors.next = now;
            }
        }
    }

    pub(super) fn look_at_anchors(&mut self, now: Time, id: &ChannelId) {
        let Some(channel) = self.channels.get(id).filter(|channel| channel.anchors.next <= now) else {
            return;
        };
        let held = self.holders(&channel.anchors);
        let Some(channel) = self.channels.get_mut(id) else { return };
        let watch = &mut channel.anchors;
        watch.next = now + LOOK_INTERVAL;
        let mut troubles = BTreeSet::new();
        let is_shared = watch.anchors.len() > 1;
        for (organization, listed) in watch.anchors.iter().filter(|_| is_shared) {
            if listed.is_empty() {
                troubles.insert((organization.clone(), AnchorTrouble::Missing));
                continue;
            }
            let holders = || listed.iter().filter_map(|endpoint| Some((endpoint, held.get(endpoint)?)));
            for (endpoint, holder) in holders().filter(|(_, holder)| *holder != organization) {
                let (endpoint, holder) = (endpoint.clone(), holder.clone());
                let trouble = AnchorTrouble::Foreign { endpoint, organization: holder };
                troubles.insert((organization.clone(), trouble));
            }
            if holders().any(|(_, holder)| holder == organization) {
                watch.silent_since.remove(organization);
                continue;
            }
            let since = *watch.silent_since.entry(organization.clone()).or_insert(now);
            if now.since(since) >= ANCHOR_SILENCE_MAX {
                troubles.insert((organization.clone(), AnchorTrouble::Silent));
            }
        }
        let new: Vec<_> = troubles.difference(&watch.troubles).cloned().collect();
        watch.troubles = troubles;
        for (organization, trouble) in new {
            self.event(Event::Anchor { channel: id.clone(), organization, trouble });
        }
    }

    /// The organisation behind each anchor endpoint, where there is somebody: who answered when it was dialled, this node, or a live member
    /// that advertises it.
    fn holders(&self, watch: &AnchorWatch) -> BTreeMap<String, MspId> {
        let mut held = BTreeMap::new();
        let members = self.membership.members().values();
        for member in members.filter(|member| member.state != MemberState::Dead && !member.unreachable) {
            let endpoints = member.internal_endpoint.iter().chain([&member.external_endpoint]);
            for endpoint in endpoints.filter(|endpoint| watch.lists(endpoint)) {
                // Anybody can claim an address; who is listed there is believed first.
                let organization = &member.credential.msp_id;
                if watch.lists_for(endpoint, organization) || !held.contains_key(endpoint) {
                    held.insert(endpoint.clone(), organization.clone());
                }
            }
        }
        for (endpoint, (peer, organization)) in &watch.answered {
            if self.peers.contains_key(peer) {
                held.insert(endpoint.clone(), organization.clone());
            }
        }
        let own = &self.config.membership;
        for endpoint in [&own.internal_endpoint, &own.external_endpoint] {
            if watch.lists(endpoint) {
                held.insert(endpoint.clone(), self.own.msp_id.clone());
            }
        }
        held
    }
}
