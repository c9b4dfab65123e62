//! TCP for the swarm: one listener, plain dials, sockets that count bytes and can be cut.
//!
//! libp2p's own TCP transport listens with `SO_REUSEPORT`, so that a second peer on the same port
//! would start without an error and take half of the connections. This one binds before the swarm
//! exists, so a port in use is an error of the start and a port of 0 is known at once; it never dials
//! from the listening port.
//!
//! A socket can be cut through its [`KillSwitch`]: an orderly close waits for the other side, and one
//! that has vanished would hold buffers until the kernel gives up after many minutes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use futures::{
    AsyncRead, AsyncWrite,
    future::{BoxFuture, FutureExt as _, Ready, ready},
    task::AtomicWaker,
};
use libp2p::{
    Multiaddr,
    core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::io::poll_read_buf;

use super::NetCounters;

/// Pause after a failed accept (out of file descriptors, usually), so that the task does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is read at a time when more is waiting than the reader asked for.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Cuts a socket at once, whatever its user is doing.
#[derive(Debug, Clone, Default)]
pub(crate) struct KillSwitch(Arc<KillState>);

#[derive(Debug, Default)]
struct KillState {
    dead: AtomicBool,
    waker: AtomicWaker,
}

impl KillSwitch {
    /// Every further use of the socket fails.
    pub(crate) fn kill(&self) {
        self.0.dead.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.0.waker.register(context.waker());
        if self.0.dead.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "connection cut"));
        }
        Ok(())
    }
}

/// A TCP connection that counts its bytes. Noise asks for 8 KiB at a time; while more is waiting, this reads ahead.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: TcpStream,
    /// Read and not yet asked for. Has memory only while much is coming in.
    ahead: BytesMut,
    /// The last read filled what it was given: more is waiting.
    more: bool,
    counters: Arc<NetCounters>,
    kill: KillSwitch,
}

impl Socket {
    pub(crate) fn new(inner: TcpStream, counters: Arc<NetCounters>) -> Self {
        // Without it small control frames would wait for acknowledgements; failing costs only latency.
        if let Err(error) = inner.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        Self { inner, ahead: BytesMut::new(), more: false, counters, kill: KillSwitch::default() }
    }

    pub(crate) fn kill_switch(&self) -> KillSwitch {
        self.kill.clone()
    }

    fn counted(&self, count: usize) -> usize {
        self.counters.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        count
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.kill.check(cx)?;
        if this.ahead.is_empty() {
            if !this.more {
                this.ahead = BytesMut::new();
                let mut buffer = ReadBuf::new(buffer);
                std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer))?;
                this.more = buffer.remaining() == 0;
                return Poll::Ready(Ok(this.counted(buffer.filled().len())));
            }
            // Cleared first: memory that has been read from is used again.
            this.ahead.clear();
            this.ahead.reserve(READ_AHEAD_BYTES);
            let count = match poll_read_buf(Pin::new(&mut this.inner), cx, &mut this.ahead) {
                Poll::Ready(count) => count?,
                Poll::Pending => {
                    this.more = false;
                    this.ahead = BytesMut::new();
                    return Poll::Pending;
                }
            };
            this.more = count >= READ_AHEAD_BYTES;
            this.counted(count);
        }
        let count = this.ahead.len().min(buffer.len());
        if let Some(room) = buffer.get_mut(..count) {
            this.ahead.copy_to_slice(room);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.kill.check(cx)?;
        let count = std::task::ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        this.counters.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.kill.check(cx)?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.kill.check(cx)?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// `/ip4|ip6/../tcp/..` of a socket address.
pub(crate) fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty().with(Protocol::from(address.ip())).with(Protocol::Tcp(address.port()))
}

/// The socket address of a plain TCP multiaddress.
pub(crate) fn to_socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The transport: an already bound listener and a dialer.
pub(crate) struct TcpTransport {
    listener: Option<TcpListener>,
    local: SocketAddr,
    listener_id: Option<ListenerId>,
    announced: bool,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    dial_timeout: Duration,
    counters: Arc<NetCounters>,
}

impl TcpTransport {
    pub(crate) fn new(
        listener: TcpListener,
        local: SocketAddr,
        dial_timeout: Duration,
        counters: Arc<NetCounters>,
    ) -> Self {
        let listener = Some(listener);
        Self { listener, local, listener_id: None, announced: false, pause: None, dial_timeout, counters }
    }

    fn poll_accept(
        &mut self,
        id: ListenerId,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<<Self as Transport>::ListenerUpgrade, io::Error>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.poll_unpin(cx));
            self.pause = None;
        }
        let Some(listener) = &self.listener else { return Poll::Pending };
        match std::task::ready!(listener.poll_accept(cx)) {
            Ok((stream, remote)) => {
                let local = stream.local_addr().unwrap_or(self.local);
                Poll::Ready(TransportEvent::Incoming {
                    listener_id: id,
                    upgrade: ready(Ok(Socket::new(stream, self.counters.clone()))),
                    local_addr: to_multiaddr(local),
                    send_back_addr: to_multiaddr(remote),
                })
            }
            Err(error) => {
                self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                cx.waker().wake_by_ref();
                Poll::Ready(TransportEvent::ListenerError { listener_id: id, error })
            }
        }
    }
}

impl Transport for TcpTransport {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Socket>>;
    type Dial = BoxFuture<'static, io::Result<Socket>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        if to_socket_address(&address) != Some(self.local) || self.listener_id.is_some() {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.listener_id = Some(id);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let known = self.listener_id == Some(id);
        if known {
            self.listener = None;
        }
        known
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(remote) = to_socket_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let (limit, counters) = (self.dial_timeout, self.counters.clone());
        Ok(async move {
            let stream = tokio::time::timeout(limit, TcpStream::connect(remote))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the TCP connection"))??;
            Ok(Socket::new(stream, counters))
        }
        .boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = self.get_mut();
        let Some(id) = this.listener_id else { return Poll::Pending };
        if !this.announced {
            this.announced = true;
            let listen_addr = to_multiaddr(this.local);
            return Poll::Ready(TransportEvent::NewAddress { listener_id: id, listen_addr });
        }
        this.poll_accept(id, cx)
    }
}
