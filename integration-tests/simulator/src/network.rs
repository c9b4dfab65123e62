//! Connections between peers: streams over links that may be cut.
//!
//! One connection at most between two peers that both believe in it. A frame on a cut direction waits; healed, all that
//! waited arrives in order. [`Network`] keeps the books; the simulation turns them into events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grapevine_channels::isolation::proof;
use grapevine_channels::time::Time;
use grapevine_crypto::sha256_of;

use crate::event::{ConnectionId, Message};
use crate::truth::{Site, Truth};

#[derive(Debug)]
pub(crate) struct Connection {
    /// Dialler and listener.
    pub(crate) ends: [Site; 2],
    /// For each end and channel, the proof that it joined; the first bytes are its tag. The checker's key to whose
    /// frame a frame is.
    pub(crate) proofs: [Vec<[u8; 32]>; 2],
    /// Frames of each direction that a cut holds back.
    waiting: [VecDeque<Message>; 2],
    /// Since when each direction is cut.
    pub(crate) cut_since: [Option<Time>; 2],
}

impl Connection {
    /// The end that sends in a direction is the direction's number.
    pub(crate) fn direction_from(&self, site: Site) -> usize {
        usize::from(self.ends[1] == site)
    }

    pub(crate) fn other_end(&self, site: Site) -> Site {
        self.ends[1 - self.direction_from(site)]
    }
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    /// The connection that each end believes to have with the other.
    open: BTreeMap<(Site, Site), ConnectionId>,
    cuts: BTreeSet<(Site, Site)>,
    next: ConnectionId,
}

impl Network {
    /// Whether nothing gets from one site to the other.
    pub(crate) fn is_cut(&self, from: Site, to: Site) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether two sites can talk.
    pub(crate) fn can_talk(&self, one: Site, other: Site) -> bool {
        !self.is_cut(one, other) && !self.is_cut(other, one)
    }

    /// The connection that `site` believes to have with `other`.
    pub(crate) fn open_at(&self, site: Site, other: Site) -> Option<ConnectionId> {
        self.open.get(&(site, other)).copied()
    }

    /// Everybody `site` believes to be connected with.
    pub(crate) fn connected_to(&self, site: Site) -> Vec<(Site, ConnectionId)> {
        self.open.range((site, 0)..=(site, Site::MAX)).map(|((_, other), id)| (*other, *id)).collect()
    }

    /// A new connection, and the session value both ends derive.
    pub(crate) fn connect(&mut self, dialer: Site, listener: Site, seed: u64, truth: &Truth) -> [u8; 32] {
        let id = self.next;
        self.next += 1;
        let session = sha256_of([seed.to_be_bytes().as_slice(), &id.to_be_bytes()]).0;
        let proofs = [dialer, listener].map(|site| {
            let prover = &truth.peers[site].credential.pki_id;
            truth
                .channels
                .iter()
                .map(|channel| proof(&channel.scope.genesis_hash, &session, prover))
                .collect()
        });
        let connection = Connection {
            ends: [dialer, listener],
            proofs,
            waiting: [VecDeque::new(), VecDeque::new()],
            cut_since: [None; 2],
        };
        self.connections.insert(id, connection);
        self.open.insert((dialer, listener), id);
        self.open.insert((listener, dialer), id);
        session
    }

    /// `site` no longer believes in the connection. True if it did.
    pub(crate) fn close_at(&mut self, site: Site, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        let other = connection.other_end(site);
        if self.open.get(&(site, other)) != Some(&id) {
            return false;
        }
        self.open.remove(&(site, other));
        if self.open.get(&(other, site)) != Some(&id) {
            self.connections.remove(&id);
        }
        true
    }

    /// Keeps a message back if the direction is cut, or gives it back to be sent.
    pub(crate) fn hold_back(&mut self, id: ConnectionId, from: Site, message: Message) -> Option<Message> {
        let connection = self.connections.get_mut(&id)?;
        let direction = connection.direction_from(from);
        let to = connection.other_end(from);
        if self.cuts.contains(&(from, to)) {
            connection.waiting[direction].push_back(message);
            return None;
        }
        Some(message)
    }

    /// Cuts a direction. Gives the connection over it, if it was not cut before.
    pub(crate) fn cut(&mut self, from: Site, to: Site, now: Time) -> Option<(ConnectionId, usize)> {
        if !self.cuts.insert((from, to)) {
            return None;
        }
        let id = self.open_at(from, to).or_else(|| self.open_at(to, from))?;
        let connection = self.connections.get_mut(&id)?;
        let direction = connection.direction_from(from);
        connection.cut_since[direction] = Some(now);
        Some((id, direction))
    }

    /// Heals a direction. Gives what waited, in order.
    pub(crate) fn heal(&mut self, from: Site, to: Site) -> Option<(ConnectionId, Vec<Message>)> {
        if !self.cuts.remove(&(from, to)) {
            return None;
        }
        let id = self.open_at(from, to).or_else(|| self.open_at(to, from))?;
        let connection = self.connections.get_mut(&id)?;
        let direction = connection.direction_from(from);
        connection.cut_since[direction] = None;
        Some((id, connection.waiting[direction].drain(..).collect()))
    }

    pub(crate) fn cuts(&self) -> Vec<(Site, Site)> {
        self.cuts.iter().copied().collect()
    }
}
