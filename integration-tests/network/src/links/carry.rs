//! Carrying the bytes of one connection under the rules that hold at every moment.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::{BUFFER_BYTES, Cut, Cuts, SILENT_CONNECT_MAX, reset};

/// Carries one accepted connection until it ends, is reset or a rule resets it.
///
/// `dialer` is `None` for a process that is not registered: no rule applies to it.
pub(super) async fn carry(
    cuts: watch::Receiver<Cuts>,
    mut inbound: TcpStream,
    dialer: Option<String>,
    name: String,
    target: SocketAddr,
) {
    let pair = Pair { dialer, target: name };
    let admitted = tokio::time::timeout(SILENT_CONNECT_MAX, pair.admit(cuts.clone())).await;
    if admitted != Ok(true) {
        reset(&inbound);
        return;
    }
    let Ok(mut outbound) = connect(target).await else {
        // The process is not there: the dialer learns it as a reset.
        reset(&inbound);
        return;
    };
    for stream in [&inbound, &outbound] {
        // Without it small control frames would wait for acknowledgements twice.
        let _ = stream.set_nodelay(true);
    }
    let orderly = {
        let (inbound_read, inbound_write) = inbound.split();
        let (outbound_read, outbound_write) = outbound.split();
        let forth = pump(inbound_read, outbound_write, cuts.clone(), pair.forth());
        let back = pump(outbound_read, inbound_write, cuts.clone(), pair.back());
        let both = async { tokio::try_join!(forth, back) };
        tokio::select! {
            ended = both => ended.is_ok(),
            () = pair.until_reset(cuts) => false,
        }
    };
    if !orderly {
        reset(&inbound);
        reset(&outbound);
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    TcpSocket::new_v4()?.connect(target).await
}

/// Who dialed whom.
struct Pair {
    dialer: Option<String>,
    target: String,
}

/// One direction of a connection as a key of the rules; `None` if no rule can apply.
type Direction = Option<(String, String)>;

impl Pair {
    fn forth(&self) -> Direction {
        Some((self.dialer.clone()?, self.target.clone()))
    }

    fn back(&self) -> Direction {
        Some((self.target.clone(), self.dialer.clone()?))
    }

    /// Waits while a silent cut swallows the connection attempt; false if it is to be reset.
    async fn admit(&self, mut cuts: watch::Receiver<Cuts>) -> bool {
        let (forth, back) = (self.forth(), self.back());
        loop {
            let silent = {
                let cuts = cuts.borrow_and_update();
                if rule(&cuts, &forth) == Some(Cut::Reset) {
                    return false;
                }
                rule(&cuts, &forth).is_some() || rule(&cuts, &back) == Some(Cut::Silence)
            };
            if !silent {
                return true;
            }
            if cuts.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Returns when a rule resets what this dialer has dialed to this target.
    async fn until_reset(&self, mut cuts: watch::Receiver<Cuts>) {
        let forth = self.forth();
        // An error means that the links are gone, which ends the connection as well.
        let _ = cuts.wait_for(|cuts| rule(cuts, &forth) == Some(Cut::Reset)).await;
    }
}

fn rule(cuts: &Cuts, direction: &Direction) -> Option<Cut> {
    cuts.get(direction.as_ref()?).copied()
}

/// Carries one direction; returns after passing on the end of the stream.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut cuts: watch::Receiver<Cuts>,
    direction: Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionReset);
    loop {
        let count = from.read(&mut buffer).await?;
        // What was read before a cut but not yet delivered counts as being on the way; the end of a stream does not pass either.
        cuts.wait_for(|cuts| rule(cuts, &direction) != Some(Cut::Silence)).await.map_err(gone)?;
        match buffer.get(..count) {
            Some(bytes) if count > 0 => to.write_all(bytes).await?,
            _ => return to.shutdown().await,
        }
    }
}
