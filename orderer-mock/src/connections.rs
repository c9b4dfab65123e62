//! Accepts TCP connections for the gRPC server, and cuts or refuses them when a fault says so.
//!
//! When stopped, the listening socket is closed, so that clients are refused by the operating system, and opened again at
//! the same address when cleared; if that fails it is tried again every [`REOPEN_INTERVAL`]. A cut connection ends for the
//! server as if the client had gone.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::faults::Faults;

/// Time between attempts to listen again.
const REOPEN_INTERVAL: Duration = Duration::from_millis(200);

/// Pause after an accept that failed: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that crossed the sockets of all connections since the start, whatever they were.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

/// A connection that ends when its token is cancelled, and counts its bytes.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    traffic: Arc<Traffic>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Accepts until `stop` is cancelled or nobody takes the connections.
pub(crate) async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    faults: Arc<Faults>,
    traffic: Arc<Traffic>,
    accepted: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let mut stopped = faults.stopped();
    let mut listening = Some(listener);
    loop {
        if *stopped.borrow_and_update() {
            listening = None;
        }
        let refusing = *stopped.borrow();
        tokio::select! {
            () = stop.cancelled() => return,
            // The sender lives as long as `faults`, which this function holds.
            _ = stopped.changed() => {}
            next = next(&mut listening, address), if !refusing => match next {
                Ok(stream) => {
                    let cut = Box::pin(faults.connections().cancelled_owned());
                    if accepted.send(Ok(Connection { stream, traffic: traffic.clone(), cut })).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// The next connection; opens the listener if it was closed. Cancel safe.
async fn next(listening: &mut Option<TcpListener>, address: SocketAddr) -> io::Result<TcpStream> {
    let listener = loop {
        if let Some(listener) = listening.as_ref() {
            break listener;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => *listening = Some(listener),
            Err(error) => {
                tracing::error!(%error, %address, "cannot listen again; trying on");
                tokio::time::sleep(REOPEN_INTERVAL).await;
            }
        }
    };
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connection {
    fn check_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        add(&self.traffic.bytes_in, buffer.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(context)?;
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        add(&self.traffic.bytes_out, count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(context)?;
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        add(&self.traffic.bytes_out, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}
