//! Accepts TCP connections for the gRPC server, and cuts or refuses them when a fault says so.
//!
//! When stopped, the listening socket is closed, so that clients are refused by the operating system, and opened again at
//! the same address when cleared; if that fails it is tried again every [`REOPEN_INTERVAL`]. A cut connection ends for the
//! server as if the client had gone.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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

/// A connection that ends when its token is cancelled.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Accepts until `stop` is cancelled or nobody takes the connections.
pub(crate) async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    faults: Arc<Faults>,
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
                    if accepted.send(Ok(Connection { stream, cut })).await.is_err() {
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

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
