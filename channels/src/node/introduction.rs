//! Joining a channel through a peer that is in it: fetching its genesis block by hash.
//!
//! # How
//! Whoever knows the hash of a channel's genesis block can show the proof of [`crate::isolation`]; a peer that has joined and whose config lists our
//! organisation then has a link to us, and serves block 0 as it serves any other. The hash pins the block, so it does not matter who
//! sends it: peers that are connected are asked as well as the one at the endpoint.
//!
//! # Bounds
//! At most [`INTRODUCTIONS_MAX`] at a time, each for [`INTRODUCTION_TIMEOUT`].
//!
//! # Attacks
//! A block 0 of another hash is misbehaviour. Who does not know the hash learns nothing from our proof, and a peer in another channel, or
//! one that does not list us, answers nothing: which of these it is cannot be told apart, on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use grapevine_crypto::{Digest, PkiId};

use super::{Node, Output, Penalty};
use crate::ChannelId;
use crate::block::{AuthenticBlock, Block};
use crate::isolation::Scope;
use crate::time::Time;
use crate::wire::{ChannelBody, Request};

/// Most introductions under way.
pub const INTRODUCTIONS_MAX: usize = 8;
/// How long an introduction may take.
pub const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(super) struct Introduction {
    genesis_hash: Digest,
    endpoint: String,
    deadline: Time,
    reached: bool,
    asked: BTreeSet<PkiId>,
}

impl Node {
    pub(super) fn handle_introduce(
        &mut self,
        now: Time,
        id: ChannelId,
        genesis_hash: Digest,
        endpoint: String,
    ) {
        let known = self.scopes.iter().find(|(_, scope)| scope.genesis_hash == genesis_hash);
        let refusal = if self.channels.contains_key(&id) {
            Some("it is joined already".to_owned())
        } else if let Some((known, _)) = known {
            Some(format!("the channel of this genesis hash is {known}, joined already or being joined"))
        } else if self.introductions.contains_key(&id) || self.introductions.len() >= INTRODUCTIONS_MAX {
            Some("another attempt is under way; wait for its end".to_owned())
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.outputs.push_back(Output::Introduced { channel: id, result: Err(reason) });
        }
        let deadline = now + INTRODUCTION_TIMEOUT;
        let introduction = Introduction {
            genesis_hash,
            endpoint: endpoint.clone(),
            deadline,
            reached: false,
            asked: BTreeSet::new(),
        };
        self.introductions.insert(id, introduction);
        self.refresh_introductions(now);
        self.outputs.push_back(Output::Dial { endpoint });
    }

    /// The endpoint was dialled: nobody is there (`reason`), or somebody who is connected already (`None`).
    pub(super) fn handle_introducer(&mut self, now: Time, endpoint: &str, reason: Option<String>) {
        let of_endpoint =
            self.introductions.iter_mut().filter(|(_, one)| one.endpoint == endpoint && !one.reached);
        let mut failed = Vec::new();
        for (id, introduction) in of_endpoint {
            match &reason {
                None => introduction.reached = true,
                Some(reason) => {
                    failed.push((id.clone(), format!("no peer can be reached at {endpoint}: {reason}")))
                }
            }
        }
        for (id, reason) in failed {
            self.end_introduction(now, id, Err(reason));
        }
    }

    /// Shows the proofs to whoever is connected, once more.
    pub(super) fn refresh_introductions(&mut self, now: Time) {
        if self.introductions.is_empty() {
            return;
        }
        let connected = self.peers.values().filter(|peer| peer.guest.is_none());
        let mut organizations: BTreeSet<_> = connected.map(|peer| peer.organization.clone()).collect();
        organizations.insert(self.own.msp_id.clone());
        for (id, introduction) in &self.introductions {
            let genesis_hash = introduction.genesis_hash;
            let scope = Scope { genesis_hash, organizations: organizations.clone(), former: BTreeMap::new() };
            self.scopes.insert(id.clone(), scope);
        }
        self.offer_proofs_to_all();
        self.relink_all(now);
    }

    /// A peer shows that it has the channel: it is asked for block 0. `false`: no introduction is under way.
    pub(super) fn ask_for_genesis(&mut self, peer: PkiId, id: &ChannelId) -> bool {
        let Some(introduction) = self.introductions.get_mut(id) else { return false };
        if introduction.asked.insert(peer)
            && let Some(link) = self.peers.get(&peer).and_then(|remote| remote.links.link(id))
        {
            let tag = link.remote_tag();
            self.outputs.push_back(Output::LinkOpened { peer, channel: id.clone(), tag });
            self.send(peer, id, ChannelBody::Request(Request { numbers: vec![0] }));
        }
        true
    }

    /// A block came for a channel that may not be joined yet. `false`: no introduction is under way.
    ///
    /// The peer takes us for a member by now, and may push live blocks: these are dropped, as nothing can be made of them here.
    pub(super) fn take_genesis(
        &mut self,
        now: Time,
        peer: PkiId,
        id: &ChannelId,
        number: u64,
        body: &Bytes,
    ) -> bool {
        let Some(introduction) = self.introductions.get(id) else { return false };
        if number != 0 || !introduction.asked.contains(&peer) {
            return true;
        }
        let block = Block::decode(body.clone(), body.len()).ok();
        let is_it = block
            .and_then(|block| AuthenticBlock::genesis(&block).ok())
            .is_some_and(|block| block.hash() == introduction.genesis_hash);
        if is_it {
            self.end_introduction(now, id.clone(), Ok(body.clone()));
        } else {
            self.penalise(peer, Penalty::WrongBlock);
        }
        true
    }

    pub(super) fn introductions_deadline(&self) -> Option<Time> {
        self.introductions.values().map(|introduction| introduction.deadline).min()
    }

    pub(super) fn introductions_timeout(&mut self, now: Time) {
        let due = self.introductions.iter().filter(|(_, introduction)| introduction.deadline <= now);
        let due: Vec<_> = due.map(|(id, introduction)| (id.clone(), self.why_none(introduction))).collect();
        for (id, reason) in due {
            self.end_introduction(now, id, Err(reason));
        }
    }

    fn why_none(&self, introduction: &Introduction) -> String {
        let Introduction { endpoint, reached, asked, .. } = introduction;
        let seconds = INTRODUCTION_TIMEOUT.as_secs();
        if !asked.is_empty() {
            format!("none of the peers that have the channel sent its genesis block within {seconds} s")
        } else if *reached {
            format!(
                "the peer at {endpoint} does not show that it is in a channel of this genesis hash with {}: the hash is another one's, the peer has not joined the channel, or the channel's config does not list {}",
                self.own.msp_id, self.own.msp_id
            )
        } else {
            format!("no peer answered at {endpoint} within {seconds} s")
        }
    }

    /// A channel is being joined by its block: nobody needs to introduce us any more.
    pub(super) fn stop_introduction(&mut self, id: &ChannelId) {
        if self.introductions.remove(id).is_some() {
            let result = Err("it has been joined by its block meanwhile".to_owned());
            self.outputs.push_back(Output::Introduced { channel: id.clone(), result });
        }
    }

    fn end_introduction(&mut self, now: Time, id: ChannelId, result: Result<Bytes, String>) {
        self.introductions.remove(&id);
        // The links of the channel open again when it is joined.
        self.scopes.remove(&id);
        self.offer_proofs_to_all();
        self.relink_all(now);
        self.outputs.push_back(Output::Introduced { channel: id, result });
    }
}
