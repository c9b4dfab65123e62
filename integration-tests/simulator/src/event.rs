//! What happens, and the queue of what will.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::node::{Rejection, Ticket};
use grapevine_channels::time::Time;
use grapevine_channels::verify::VerifiedHeader;
use grapevine_channels::wire::Headers;
use grapevine_crypto::PkiId;

use crate::fault::Fault;
use crate::links::Class;
use crate::truth::{ChannelIndex, Site};

/// Names a connection for ever.
pub(crate) type ConnectionId = u64;
/// Names one attempt to pull a channel from the orderer, for ever.
pub(crate) type SessionId = u64;

/// What travels on a connection.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Control(Bytes),
    Bulk {
        header: Bytes,
        body: Bytes,
        size: usize,
    },
    /// The first byte of a bulk message, or a sign that the rest goes on.
    Started {
        header: Bytes,
    },
}

impl Message {
    /// Bytes on the wire; a block counts as large as it claims to be.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Control(frame) => frame.len(),
            Self::Bulk { header, size, .. } => header.len() + size,
            Self::Started { .. } => 0,
        }
    }

    /// Control and bulk are two streams: each is in order, not both together.
    pub(crate) fn class(&self) -> Class {
        if matches!(self, Self::Control(_)) { Class::Control } else { Class::Bulk }
    }
}

/// What is under way between two sites.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    /// On a connection between peers; `boot` is the receiver's when it was sent.
    Peer { connection: ConnectionId, boot: u64, message: Message },
    /// On a stream of the orderer.
    Orderer { channel: ChannelIndex, session: SessionId, boot: u64, block: AuthenticBlock },
}

/// Something that happens at one peer; waits while the peer is paused, is void after it crashed.
#[derive(Debug)]
pub(crate) enum HostEvent {
    Timer {
        generation: u64,
    },
    Arrival {
        connection: ConnectionId,
        message: Message,
    },
    Broken {
        connection: ConnectionId,
    },
    DialFailed {
        endpoint: String,
    },
    Verified {
        ticket: Ticket,
        channel: ChannelIndex,
        from: Option<Site>,
        on_request: bool,
        result: Result<AuthenticBlock, Rejection>,
    },
    HeadersVerified {
        ticket: Ticket,
        result: Result<Vec<VerifiedHeader>, Rejection>,
    },
    HeadersRead {
        peer: PkiId,
        channel: ChannelId,
        headers: Headers,
    },
    DiskDone,
    /// The answer of the orderer to a probe, or none in time.
    Probed {
        channel: ChannelIndex,
        answers: bool,
    },
    DeliverOpened {
        channel: ChannelIndex,
        session: SessionId,
    },
    DeliverFailed {
        channel: ChannelIndex,
        session: SessionId,
    },
    DeliverRetry {
        channel: ChannelIndex,
        session: SessionId,
    },
    /// A cut may have broken the stream.
    DeliverSilent {
        channel: ChannelIndex,
        session: SessionId,
    },
    DeliverBlock {
        channel: ChannelIndex,
        session: SessionId,
        block: AuthenticBlock,
    },
}

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    Host {
        peer: Site,
        boot: u64,
        event: HostEvent,
    },
    /// Everybody starts, connected.
    Warm,
    Boot {
        peer: Site,
    },
    Fault(Fault),
    /// A dial's handshake would be complete.
    Established {
        dialer: Site,
        listener: Site,
        boots: (u64, u64),
        endpoint: String,
    },
    /// A cut that began at `since` may have broken the connection.
    Silence {
        connection: ConnectionId,
        direction: usize,
        since: Time,
    },
    Produce {
        channel: ChannelIndex,
    },
    /// The orderer may send more.
    Pump {
        channel: ChannelIndex,
        session: SessionId,
    },
    /// Look whether everybody has everything.
    Check,
}

#[derive(Debug)]
struct Entry {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Events by time; those of one moment in the order they were added.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    events: BinaryHeap<Entry>,
    added: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Time, event: Event) {
        self.events.push(Entry { at, order: self.added, event });
        self.added += 1;
    }

    /// When the next event is.
    pub(crate) fn next(&self) -> Option<Time> {
        self.events.peek().map(|entry| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        self.events.pop().map(|entry| (entry.at, entry.event))
    }
}
