//! The gRPC service `protos.Deliver` (Fabric: `peer/events.proto`), written out instead of generated: responses are
//! encoded once for all streams, which a generated service has no place for.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use grapevine_channels::proto::common::Envelope;
use grapevine_crypto::{Digest, sha256};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tokio_util::task::TaskTracker;
use tonic::Streaming;
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::outlet::outlet;
use super::session::{Method, Session};
use super::{REQUEST_BYTES_MAX, Shared};

/// The service; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct DeliverService {
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: TaskTracker,
}

impl NamedService for DeliverService {
    const NAME: &'static str = "protos.Deliver";
}

impl Service<http::Request<Body>> for DeliverService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        ready(Ok(self.open(request).unwrap_or_else(tonic::Status::into_http)))
    }
}

impl DeliverService {
    fn open(&self, request: http::Request<Body>) -> Result<http::Response<Body>, tonic::Status> {
        let method = match request.uri().path() {
            "/protos.Deliver/Deliver" => Method::Blocks,
            "/protos.Deliver/DeliverFiltered" => Method::Filtered,
            "/protos.Deliver/DeliverWithPrivateData" => Method::PrivateData,
            _ => return Err(tonic::Status::unimplemented("protos.Deliver has no such method")),
        };
        let encoding = request.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(tonic::Status::unimplemented("compressed requests are not taken"));
        }
        let permit = self.shared.streams.clone().try_acquire_owned().map_err(|_| {
            let streams_max = self.shared.streams_max;
            self.shared.counters.streams_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(streams_max, "too many delivery streams are open; refusing one");
            tonic::Status::resource_exhausted(format!(
                "{streams_max} delivery streams are open; close some or try again later"
            ))
        })?;
        let client_certificate = client_certificate(&request);
        let decoder = ProstCodec::<Envelope, Envelope>::default().decoder();
        let requests = Streaming::new_request(decoder, request.into_body(), None, Some(REQUEST_BYTES_MAX));
        let (outlet, body) = outlet();
        let session = Session { shared: self.shared.clone(), method, client_certificate, outlet };
        self.tasks.spawn(async move {
            session.serve(requests).await;
            drop(permit);
        });
        let mut response = http::Response::new(Body::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}

/// SHA-256 of the client's TLS certificate, if it showed one.
fn client_certificate(request: &http::Request<Body>) -> Option<Digest> {
    let certificates = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?.peer_certs()?;
    certificates.first().map(|certificate| sha256(certificate.as_ref()))
}
