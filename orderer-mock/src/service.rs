//! The gRPC face: accepts streams, bounds their number, and hands them to [`crate::broadcast`] and [`crate::deliver`].
//!
//! At most [`STREAMS_MAX`] streams of each kind are open; one more is refused with RESOURCE_EXHAUSTED. Every stream is one
//! task that ends when its client goes, when it is refused, or when the service stops.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::{BroadcastResponse, DeliverResponse};
use grapevine_crypto::{Digest, sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Streaming};

use crate::broadcast;
use crate::clock::unix_seconds;
use crate::deliver::{DeliverRules, DeliverSession, RESPONSES_QUEUED_MAX};
use crate::registry::Registry;
use crate::rpc::AtomicBroadcast;

/// Most open streams of each kind (Fabric's default limit of deliver streams at a peer).
pub const STREAMS_MAX: usize = 2500;

/// Answers of a broadcast stream that wait for the client to read. When it does not, its transactions are not read
/// either.
const BROADCAST_ANSWERS_MAX: usize = 64;

/// The service; a clone serves the same channels.
#[derive(Debug, Clone)]
pub struct OrdererService {
    rules: DeliverRules,
    broadcasts: Arc<Semaphore>,
    deliveries: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl OrdererService {
    /// Serves under `rules`; its streams run as tasks of `tasks`.
    pub fn new(rules: DeliverRules, tasks: TaskTracker) -> Self {
        Self {
            rules,
            broadcasts: Arc::new(Semaphore::new(STREAMS_MAX)),
            deliveries: Arc::new(Semaphore::new(STREAMS_MAX)),
            tasks,
        }
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

#[tonic::async_trait]
impl AtomicBroadcast for OrdererService {
    type BroadcastStream = ResponseStream<BroadcastResponse>;
    type DeliverStream = ResponseStream<DeliverResponse>;

    async fn broadcast(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::BroadcastStream>, tonic::Status> {
        let permit = admit(&self.broadcasts)?;
        let (sender, receiver) = mpsc::channel(BROADCAST_ANSWERS_MAX);
        let (registry, stop) = (self.rules.registry.clone(), self.rules.stop.clone());
        self.tasks.spawn(async move {
            serve_broadcast(registry, request.into_inner(), sender, stop).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn deliver(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverStream>, tonic::Status> {
        let permit = admit(&self.deliveries)?;
        let (sender, receiver) = mpsc::channel(RESPONSES_QUEUED_MAX);
        let client_certificate = client_certificate(&request);
        let session = DeliverSession { rules: self.rules.clone(), client_certificate, responses: sender };
        self.tasks.spawn(async move {
            session.serve(request.into_inner()).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn admit(streams: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, tonic::Status> {
    streams.clone().try_acquire_owned().map_err(|_| {
        tracing::warn!(streams_max = STREAMS_MAX, "too many streams are open; refusing one");
        tonic::Status::resource_exhausted(format!(
            "{STREAMS_MAX} streams are open; close some or try again later"
        ))
    })
}

/// SHA-256 of the client's TLS certificate, if it showed one.
fn client_certificate(request: &Request<Streaming<Envelope>>) -> Option<Digest> {
    let certificates = request.peer_certs()?;
    certificates.first().map(|certificate| sha256(certificate.as_ref()))
}

async fn serve_broadcast(
    registry: Arc<Registry>,
    mut requests: Streaming<Envelope>,
    responses: mpsc::Sender<Result<BroadcastResponse, tonic::Status>>,
    stop: CancellationToken,
) {
    loop {
        let envelope = tokio::select! {
            request = requests.message() => match request {
                Ok(Some(envelope)) => envelope,
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(%status, "broadcast stream broke");
                    // What breaks the stream on this side, such as a message over the limit, is told; else nobody listens.
                    let _gone = responses.try_send(Err(status));
                    return;
                }
            },
            () = stop.cancelled() => return,
        };
        let response = broadcast::process(&registry, envelope, unix_seconds()).await;
        let accepted = response.status == i32::from(Status::Success);
        let sent = tokio::select! {
            sent = responses.send(Ok(response)) => sent.is_ok(),
            () = stop.cancelled() => false,
        };
        if !sent || !accepted {
            return;
        }
    }
}
