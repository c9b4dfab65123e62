//! The membership gate: the only behaviour of the swarm.
//!
//! It denies every connection for which the registry holds no finished member handshake. The handshake
//! runs before the swarm hears of a connection, so this never happens; it is here so that a mistake in
//! the transport cannot become an open door.
//!
//! On an admitted connection each side opens two one-way streams, control and bulk, and hands all four
//! to the driver together with the number of the connection. (`libp2p-stream` knows peers but not
//! connections, and drops inbound streams that arrive at the same moment.) A peer gets one inbound stream
//! of each kind in the life of a connection; what it opens beyond that is closed and counted.

use std::{
    array,
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, SubstreamProtocol, THandlerInEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{NetCounters, counters::count, registry::Registry};

/// Time to agree on a stream's protocol.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// The two kinds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Small frames.
    Control,
    /// Large bodies.
    Bulk,
}

impl StreamKind {
    const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Control => "/grapevine/control/2",
            Self::Bulk => "/grapevine/bulk/2",
        }
    }
}

/// What a connection's handler gives to the driver.
#[derive(Debug)]
pub(crate) enum LinkStream {
    /// A stream of the other side, to read from.
    Inbound(StreamKind, Stream),
    /// A stream of this side, to write to.
    Outbound(StreamKind, Stream),
    /// The other side did not take a stream of this side.
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
#[error("no member handshake on record")]
struct NotAdmitted;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct MembershipGate {
    registry: Registry,
    counters: Arc<NetCounters>,
    /// At most a handful per connection: a handler makes at most four streams.
    events: VecDeque<(ConnectionId, LinkStream)>,
}

impl MembershipGate {
    pub(crate) fn new(registry: Registry, counters: Arc<NetCounters>) -> Self {
        Self { registry, counters, events: VecDeque::new() }
    }

    fn check(&self, peer: PeerId, remote: &Multiaddr) -> Result<LinkHandler, ConnectionDenied> {
        if self.registry.is_admitted(&peer, remote) {
            return Ok(LinkHandler::new(self.counters.clone()));
        }
        count(&self.counters.gate_denied);
        tracing::error!(%peer, %remote, "connection without a member handshake denied");
        Err(ConnectionDenied::new(NotAdmitted))
    }
}

impl NetworkBehaviour for MembershipGate {
    type ConnectionHandler = LinkHandler;
    type ToSwarm = (ConnectionId, LinkStream);

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<LinkHandler, ConnectionDenied> {
        self.check(peer, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<LinkHandler, ConnectionDenied> {
        self.check(peer, remote)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, connection: ConnectionId, event: LinkStream) {
        self.events.push_back((connection, event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Events only arrive through the swarm, which polls again afterwards: no waker is needed.
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}

/// Opens this side's two streams and takes the other side's two.
#[derive(Debug)]
pub(crate) struct LinkHandler {
    counters: Arc<NetCounters>,
    to_open: VecDeque<StreamKind>,
    events: VecDeque<LinkStream>,
    inbound: Vec<StreamKind>,
}

impl LinkHandler {
    fn new(counters: Arc<NetCounters>) -> Self {
        Self {
            counters,
            to_open: StreamKind::ALL.into(),
            events: VecDeque::new(),
            inbound: Vec::with_capacity(StreamKind::ALL.len()),
        }
    }
}

impl ConnectionHandler for LinkHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = LinkStream;
    type InboundProtocol = OneWayStreams;
    type OutboundProtocol = OneWayStream;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<OneWayStreams> {
        SubstreamProtocol::new(OneWayStreams, ()).with_timeout(STREAM_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<OneWayStream, (), LinkStream>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        match self.to_open.pop_front() {
            Some(kind) => {
                let protocol = SubstreamProtocol::new(OneWayStream(kind), ()).with_timeout(STREAM_TIMEOUT);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, OneWayStreams, OneWayStream>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (kind, stream),
                ..
            }) => {
                if self.inbound.contains(&kind) {
                    count(&self.counters.streams_refused);
                    return;
                }
                self.inbound.push(kind);
                self.events.push_back(LinkStream::Inbound(kind, stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (kind, stream),
                ..
            }) => self.events.push_back(LinkStream::Outbound(kind, stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.events.push_back(LinkStream::Failed(format!("stream not opened: {error}")));
            }
            _ => {}
        }
    }
}

/// Offers one kind of stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OneWayStream(StreamKind);

/// Takes both kinds of streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OneWayStreams;

impl UpgradeInfo for OneWayStream {
    type Info = &'static str;
    type InfoIter = array::IntoIter<&'static str, 1>;

    fn protocol_info(&self) -> Self::InfoIter {
        [self.0.protocol()].into_iter()
    }
}

impl OutboundUpgrade<Stream> for OneWayStream {
    type Output = (StreamKind, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: &'static str) -> Self::Future {
        ready(Ok((self.0, stream)))
    }
}

impl UpgradeInfo for OneWayStreams {
    type Info = &'static str;
    type InfoIter = array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        StreamKind::ALL.map(StreamKind::protocol).into_iter()
    }
}

impl InboundUpgrade<Stream> for OneWayStreams {
    type Output = (StreamKind, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: &'static str) -> Self::Future {
        let bulk = protocol == StreamKind::Bulk.protocol();
        ready(Ok((if bulk { StreamKind::Bulk } else { StreamKind::Control }, stream)))
    }
}
