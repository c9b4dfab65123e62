//! Links between the processes that a test can cut, without root and without changing the processes under test.
//!
//! Every process is advertised under the address of a proxy here and listens on another one. Nothing in a TCP
//! connection says which process dialed it, yet a pair can only be cut if both ends are known. The kernel knows:
//! the dialer's socket stands in `/proc/net/tcp` with its inode, and the same inode stands among the open files of exactly one child
//! (see [`owner`]). So every carried connection has a dialer and a target, and cuts are rules about *ordered* pairs:
//!
//! - [`Cut::Reset`] from `a` to `b`, like a firewall that answers: connections that `a` dialed to `b` are reset now, new ones at once after they are made.
//!   Connections that `b` dialed to `a` go on, in both directions.
//! - [`Cut::Silence`] from `a` to `b`, like a dead cable: no byte written by `a` reaches `b`, on whichever connection, and no connection
//!   between the two comes about (TCP needs both directions for that). Nothing is told to either side. Bytes on the way are delivered after healing, as TCP would retransmit them.
//!
//! Bounds: [`CONNECTIONS_MAX`] at a time, further ones are reset; a connection made into silence is held for [`SILENT_CONNECT_MAX`], then reset;
//! every carried direction buffers at most [`BUFFER_BYTES`]. A dialer that is none of the registered processes (a user's own tool) is carried and never cut.

mod carry;
pub mod owner;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::process::Process;

/// Connections carried at a time by all proxies of one [`Links`].
pub const CONNECTIONS_MAX: usize = 2_048;

/// How long a connection made into silence is held: Linux itself gives up on an unanswered connect after about two minutes.
pub const SILENT_CONNECT_MAX: Duration = Duration::from_secs(60);

/// Bytes buffered in each direction of a connection.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// How a link is cut; the [module documentation](self) defines both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Connections are reset and refused: both sides know at once.
    Reset,
    /// Bytes vanish: nobody is told.
    Silence,
}

/// Which ordered pairs are cut, how.
pub(crate) type Cuts = BTreeMap<(String, String), Cut>;

/// The proxies of one network.
#[derive(Debug)]
pub struct Links {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
}

/// What the tasks of all connections share.
#[derive(Debug)]
struct Shared {
    cuts: watch::Sender<Cuts>,
    /// Process id of every registered running process.
    processes: Mutex<BTreeMap<u32, String>>,
    open: AtomicUsize,
    refused: AtomicUsize,
}

impl Links {
    /// Starts with no proxy and nothing cut.
    ///
    /// # Errors
    /// If the thread that carries the bytes cannot be started.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("links")
            .enable_all()
            .build()?;
        let shared = Shared {
            cuts: watch::Sender::new(Cuts::new()),
            processes: Mutex::new(BTreeMap::new()),
            open: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        };
        Ok(Self { runtime: Some(runtime), shared: Arc::new(shared) })
    }

    /// Opens a proxy in front of the process `name`, which listens (now or later) on `target`; returns the address to advertise.
    ///
    /// # Errors
    /// If no port can be opened.
    pub fn open(&self, name: &str, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if let Some(runtime) = &self.runtime {
            let _guard = runtime.enter();
            let listener = TcpListener::from_std(listener)?;
            runtime.spawn(accept(Arc::clone(&self.shared), listener, name.to_owned(), target));
        }
        Ok(address)
    }

    /// Starts the process `name` and remembers its process id. Whoever dials meanwhile is looked up only afterwards, so that
    /// no connection of the new process is mistaken for one of an unknown dialer.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn register<E>(&self, name: &str, start: impl FnOnce() -> Result<Process, E>) -> Result<Process, E> {
        let mut processes = self.shared.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let process = start()?;
        processes.retain(|_, known| known != name);
        processes.insert(process.id(), name.to_owned());
        Ok(process)
    }

    /// Cuts from `from` to `to`; replaces an earlier cut of that ordered pair.
    pub fn cut(&self, from: &str, to: &str, cut: Cut) {
        self.shared.cuts.send_modify(|cuts| {
            cuts.insert((from.to_owned(), to.to_owned()), cut);
        });
    }

    /// Takes back the cut from `from` to `to`, if there is one.
    pub fn heal(&self, from: &str, to: &str) {
        self.shared.cuts.send_modify(|cuts| {
            cuts.remove(&(from.to_owned(), to.to_owned()));
        });
    }

    /// Takes back every cut from or to `name`.
    pub fn heal_all_of(&self, name: &str) {
        self.shared.cuts.send_modify(|cuts| cuts.retain(|(from, to), _| from != name && to != name));
    }

    /// Takes back every cut.
    pub fn heal_all(&self) {
        self.shared.cuts.send_modify(Cuts::clear);
    }

    /// Number of connections carried or held now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Number of connections reset because of [`CONNECTIONS_MAX`], since the start.
    #[must_use]
    pub fn refused_connections(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // All tasks are cancelled, which closes their sockets; waiting for them is not needed.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// The registered process that dialed the connection, or `None` if it is another one.
    fn dialer(&self, dialer: SocketAddr, proxy: SocketAddr) -> Option<String> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let process_id = owner::find(dialer, proxy, processes.keys().copied())?;
        processes.get(&process_id).cloned()
    }
}

/// Accepts connections in front of `target` for ever.
async fn accept(shared: Arc<Shared>, listener: TcpListener, name: String, target: SocketAddr) {
    loop {
        let Ok((inbound, dialer_address)) = listener.accept().await else {
            // Out of file descriptors, or the dialer was gone already: neither ends the proxy.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Some(slot) = Slot::take(&shared) else {
            reset(&inbound);
            continue;
        };
        let shared = Arc::clone(&shared);
        let name = name.clone();
        tokio::spawn(async move {
            let dialer = match inbound.local_addr() {
                Ok(proxy) => {
                    // Reading /proc takes a moment; it must not hold up the bytes of other connections.
                    let shared = Arc::clone(&shared);
                    tokio::task::spawn_blocking(move || shared.dialer(dialer_address, proxy))
                        .await
                        .unwrap_or(None)
                }
                Err(_) => None,
            };
            carry::carry(shared.cuts.subscribe(), inbound, dialer, name, target).await;
            drop(slot);
        });
    }
}

/// Makes the next close of this socket a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = stream.set_zero_linger();
}

/// One of the [`CONNECTIONS_MAX`] places.
#[derive(Debug)]
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        if shared.open.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX {
            return Some(Self(Arc::clone(shared)));
        }
        shared.open.fetch_sub(1, Ordering::Relaxed);
        shared.refused.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
