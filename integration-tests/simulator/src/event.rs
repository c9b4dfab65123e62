//! What happens, and the queue of what will.

use std::collections::BTreeMap;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::node::{Rejection, Ticket};
use grapevine_channels::time::Time;
use grapevine_channels::verify::VerifiedHeader;
use grapevine_channels::wire::Headers;
use grapevine_crypto::PkiId;

use crate::fault::Fault;
use crate::truth::{ChannelIndex, Site};

/// Names a connection for ever.
pub(crate) type ConnectionId = u64;
/// Names one attempt to pull a channel from the orderer, for ever.
pub(crate) type SessionId = u64;

/// What travels on a connection.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Control(Bytes),
    Bulk { header: Bytes, body: Bytes, size: usize },
}

impl Message {
    /// Bytes on the wire; a block counts as large as it claims to be.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Control(frame) => frame.len(),
            Self::Bulk { header, size, .. } => header.len() + size,
        }
    }

    /// Control and bulk are two streams: each is in order, not both together.
    pub(crate) fn stream(&self) -> usize {
        usize::from(matches!(self, Self::Bulk { .. }))
    }
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

/// Events by time; those of one moment in the order they were added.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    events: BTreeMap<(Time, u64), Event>,
    added: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Time, event: Event) {
        self.events.insert((at, self.added), event);
        self.added += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}
