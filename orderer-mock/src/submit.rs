//! Submits a file as signed transactions, in order, over one `Broadcast` stream.
//!
//! Promises: transactions reach the ordering service in the order of the file; [`submit`] returns only when every one has
//! been answered, or with an error that says how many were accepted. Until the first connection stands it tries again for
//! a bounded time; after that a broken stream is an error, since it is unknown what was accepted last.
//!
//! Bounds: at most [`IN_FLIGHT_MAX`] transactions and [`IN_FLIGHT_BYTES_MAX`] bytes are sent and not yet answered.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use grapevine_channels::ChannelId;
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::BroadcastResponse;
use grapevine_channels::transaction::endorser_transaction;
use grapevine_crypto::Signer;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{ClientOptions, ConnectError, connect};
use crate::clock::unix_seconds;
use crate::pieces::{Cutting, payloads};
use crate::rpc::MESSAGE_BYTES_MAX;

/// Most transactions sent and not yet answered.
pub const IN_FLIGHT_MAX: usize = 512;

/// Most bytes of transactions sent and not yet answered. At least one of any size is.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Time between attempts to reach an orderer.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// An orderer that answers nothing for this long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What to submit, and how.
#[derive(Debug, Clone)]
pub struct SubmitOptions {
    /// The ordering service.
    pub orderer: ClientOptions,
    /// The channel.
    pub channel: ChannelId,
    /// The file.
    pub file: PathBuf,
    /// How it becomes transactions.
    pub cutting: Cutting,
    /// Transactions per second; `None` for as fast as they are taken.
    pub rate: Option<f64>,
    /// How long to wait for an orderer that cannot be reached yet.
    pub wait: Duration,
}

/// What was submitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Submitted {
    /// Transactions the ordering service accepted.
    pub transactions: u64,
    /// Their payloads' bytes.
    pub payload_bytes: u64,
}

/// Why not everything was submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The file.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The ordering service cannot be reached.
    #[error("{0}; start it, check the address, or allow more time with --wait")]
    Connect(#[from] ConnectError),
    /// A transaction was refused; those after it were not ordered.
    #[error(
        "the orderer refused transaction {number} with status {status}: {info}; {accepted} were accepted before it"
    )]
    Refused {
        /// Which one, counted from 1.
        number: u64,
        /// Fabric's status.
        status: i32,
        /// The orderer's words.
        info: String,
        /// How many were accepted.
        accepted: u64,
    },
    /// The stream broke before everything was answered.
    #[error(
        "the stream to the orderer broke after {accepted} accepted transactions: {reason}; later ones may or may not be ordered"
    )]
    Broken {
        /// How many were accepted.
        accepted: u64,
        /// What happened.
        reason: String,
    },
}

/// A transaction on its way; the permit is given back with the answer.
struct InFlight {
    payload_bytes: u64,
    _permit: OwnedSemaphorePermit,
}

/// Submits the file; see the module.
pub async fn submit(options: SubmitOptions, signer: Arc<Signer>) -> Result<Submitted, SubmitError> {
    let file_error = |source| SubmitError::File { path: options.file.clone(), source };
    let file = std::fs::File::open(&options.file).map_err(file_error)?;
    let mut client = connect_patiently(&options.orderer, options.wait).await?;
    // The capacities are never reached before the permits of `IN_FLIGHT_MAX` are.
    let (envelopes, stream) = mpsc::channel(IN_FLIGHT_MAX);
    let (in_flight, mut answered) = mpsc::channel(IN_FLIGHT_MAX);
    let producer = Producer {
        signer,
        channel: options.channel,
        pace: options.rate.map(Pace::new),
        budget: Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX)),
        envelopes,
        in_flight,
    };
    let (path, cutting) = (options.file.clone(), options.cutting);
    let runtime = tokio::runtime::Handle::current();
    // Reading and signing block; a dropped receiver ends the thread.
    let produced =
        tokio::task::spawn_blocking(move || producer.run(BufReader::new(file), cutting, &path, &runtime));
    let mut total = Submitted::default();
    let broken = |accepted, reason: String| SubmitError::Broken { accepted, reason };
    let response = client.broadcast(ReceiverStream::new(stream)).await;
    let mut responses = response.map_err(|status| broken(0, status.to_string()))?.into_inner();
    loop {
        let Some(transaction) = answered.recv().await else { break };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, responses.message()).await;
        let silent =
            || broken(total.transactions, format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        let response = answer.map_err(|_| silent())?;
        let response = response.map_err(|status| broken(total.transactions, status.to_string()))?;
        let ended = || broken(total.transactions, "the orderer ended it".into());
        count(response.ok_or_else(ended)?, &transaction, &mut total)?;
    }
    match produced.await {
        Ok(result) => result.map(|()| total),
        Err(error) => Err(broken(total.transactions, error.to_string())),
    }
}

fn count(
    response: BroadcastResponse,
    transaction: &InFlight,
    total: &mut Submitted,
) -> Result<(), SubmitError> {
    let number = total.transactions.saturating_add(1);
    if response.status != i32::from(Status::Success) {
        let BroadcastResponse { status, info } = response;
        return Err(SubmitError::Refused { number, status, info, accepted: total.transactions });
    }
    total.transactions = number;
    total.payload_bytes = total.payload_bytes.saturating_add(transaction.payload_bytes);
    Ok(())
}

/// Connects, trying again until `wait` is over.
async fn connect_patiently(
    options: &ClientOptions,
    wait: Duration,
) -> Result<crate::rpc::AtomicBroadcastClient<tonic::transport::Channel>, ConnectError> {
    let deadline = Instant::now() + wait;
    loop {
        match connect(options).await {
            Err(ConnectError::Unreachable { reason, .. }) if Instant::now() + RETRY_INTERVAL < deadline => {
                tracing::debug!(reason, "the orderer cannot be reached yet");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// How much lost time a paced submission makes up for by sending faster.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);

/// Reads, signs and sends, on a thread of its own.
struct Producer {
    signer: Arc<Signer>,
    channel: ChannelId,
    pace: Option<Pace>,
    budget: Arc<Semaphore>,
    envelopes: mpsc::Sender<Envelope>,
    in_flight: mpsc::Sender<InFlight>,
}

impl Producer {
    /// Ends at the end of the file, or early when the other side of the channels is gone.
    fn run(
        mut self,
        input: impl std::io::BufRead,
        cutting: Cutting,
        path: &Path,
        runtime: &tokio::runtime::Handle,
    ) -> Result<(), SubmitError> {
        for payload in payloads(input, cutting, MESSAGE_BYTES_MAX) {
            let payload = payload.map_err(|source| SubmitError::File { path: path.into(), source })?;
            let encoded =
                endorser_transaction(&self.signer, &self.channel, &payload, rand::random(), unix_seconds());
            let payload_bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX);
            // Our own encoding always parses.
            let Ok(envelope) = Envelope::decode(encoded) else { continue };
            if let Some(pace) = &mut self.pace {
                runtime.block_on(tokio::time::sleep_until(pace.next()));
            }
            if runtime.block_on(self.send(envelope, payload_bytes)).is_none() {
                break;
            }
        }
        Ok(())
    }

    /// `None` if nobody takes it any more.
    async fn send(&self, envelope: Envelope, payload_bytes: u64) -> Option<()> {
        let bytes = envelope.payload.len().clamp(1, IN_FLIGHT_BYTES_MAX);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let acquired = tokio::select! {
            acquired = self.budget.clone().acquire_many_owned(permits) => acquired.ok()?,
            () = self.in_flight.closed() => return None,
        };
        self.in_flight.send(InFlight { payload_bytes, _permit: acquired }).await.ok()?;
        self.envelopes.send(envelope).await.ok()
    }
}

/// Spreads transactions evenly over time.
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX);
        Self { interval, next: Instant::now() }
    }

    /// When the next transaction may go. Of time lost, to timers or a slow orderer, at most [`CATCH_UP_MAX`] is made up
    /// for.
    fn next(&mut self) -> Instant {
        let now = Instant::now();
        let due = self.next.max(now.checked_sub(CATCH_UP_MAX).unwrap_or(now));
        self.next = due.checked_add(self.interval).unwrap_or(due);
        due
    }
}
