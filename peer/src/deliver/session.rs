//! One attempt: connect, ask, and pass on blocks until something ends it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::deliver_response::Type;
use grapevine_channels::proto::orderer::{DeliverResponse, SeekInfo};
use grapevine_channels::transaction::seek_envelope;
use grapevine_crypto::{Certificate, Digest, Signer};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::transport::{Certificate as TlsCertificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::rpc::AtomicBroadcastClient;
use super::{DeliverConfig, DeliverEndpoint, DeliverEvent, DeliverTls};

/// HTTP/2 flow control window of the stream and of its connection, in bytes: what an orderer may send ahead of us.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Room for the fields of a response around a block, in bytes.
const RESPONSE_OVERHEAD_BYTES: usize = 64 * 1024;

/// An orderer that has not refused the request after this time is reported as connected.
const REFUSAL_TIME: Duration = Duration::from_millis(500);

/// The report that a connection stands.
struct Announcement {
    /// When it is due, if no block comes before.
    due: Instant,
    made: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// Nobody takes events any more.
    Closed,
    /// The channel's orderers changed.
    Changed,
    /// It failed; the reason is for the operator.
    Failed(String),
}

impl From<String> for SessionEnd {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// One attempt with one endpoint. Cancel safe.
pub(super) struct Session<'a> {
    pub(super) config: &'a DeliverConfig,
    pub(super) endpoint: &'a DeliverEndpoint,
    pub(super) block_bytes_max: usize,
    pub(super) signer: &'a Arc<Signer>,
    pub(super) sink: &'a mpsc::Sender<DeliverEvent>,
    /// Number of the next block; moves only when the block is in the sink.
    pub(super) next: &'a mut u64,
}

impl Session<'_> {
    pub(super) async fn run(&mut self) -> SessionEnd {
        match self.pull().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn pull(&mut self) -> Result<std::convert::Infallible, SessionEnd> {
        let mut client = self.connect().await?;
        let request = self.request(&SeekInfo::from_number(*self.next))?;
        let mut announcement = Announcement { due: Instant::now() + REFUSAL_TIME, made: false };
        // An orderer may answer nothing at all until there is a block, so nothing here has a time limit; pings find
        // dead connections.
        let (requests, _open) = open_ended(request);
        let opened = self.accompany(&mut announcement, client.deliver(requests)).await?;
        let mut blocks = opened.map_err(|status| stream_error(&status))?.into_inner();
        loop {
            let response = self.accompany(&mut announcement, blocks.message()).await?;
            let Some(response) = response.map_err(|status| stream_error(&status))? else {
                return Err("the orderer ended the stream".to_owned().into());
            };
            let bytes = self.take(response)?;
            self.announce(&mut announcement).await?;
            let channel = self.config.channel.clone();
            self.report(DeliverEvent::Block { channel, bytes }).await?;
            // The last number there is cannot be followed.
            *self.next = self.next.checked_add(1).ok_or_else(|| "the chain is at its end".to_owned())?;
        }
    }

    /// The newest block there is, without its data as far as the orderer can leave that out; `asked` becomes the moment the request went out.
    pub(super) async fn newest(&self, asked: &mut std::time::Instant) -> Result<Bytes, SessionEnd> {
        let mut client = self.connect().await?;
        let request = self.request(&SeekInfo::newest_header())?;
        *asked = std::time::Instant::now();
        let (requests, _open) = open_ended(request);
        let mut blocks = client.deliver(requests).await.map_err(|status| stream_error(&status))?.into_inner();
        let response = blocks.message().await.map_err(|status| stream_error(&status))?;
        let response = response.ok_or_else(|| "the orderer ended the stream".to_owned())?;
        self.block_of(response)
    }

    /// Waits for the orderer, announces the connection when that is due meanwhile, and ends when nobody takes events.
    async fn accompany<T>(
        &self,
        announcement: &mut Announcement,
        work: impl Future<Output = T>,
    ) -> Result<T, SessionEnd> {
        let mut work = std::pin::pin!(work);
        if !announcement.made {
            tokio::select! {
                result = &mut work => return Ok(result),
                () = tokio::time::sleep_until(announcement.due) => self.announce(announcement).await?,
                () = self.sink.closed() => return Err(SessionEnd::Closed),
            }
        }
        tokio::select! {
            result = work => Ok(result),
            () = self.sink.closed() => Err(SessionEnd::Closed),
        }
    }

    async fn announce(&self, announcement: &mut Announcement) -> Result<(), SessionEnd> {
        if announcement.made {
            return Ok(());
        }
        announcement.made = true;
        let (channel, endpoint) = (self.config.channel.clone(), self.endpoint.address.clone());
        self.report(DeliverEvent::Connected { channel, endpoint }).await
    }

    async fn connect(&self) -> Result<AtomicBroadcastClient<Channel>, SessionEnd> {
        let timeout = self.config.connect_timeout;
        let connected = tokio::time::timeout(timeout, self.transport()?.connect()).await;
        let channel = connected
            .map_err(|_| {
                format!("no connection within {} ms; check address and network", timeout.as_millis())
            })?
            .map_err(|error| format!("cannot connect: {}", with_causes(&error)))?;
        let limit = self.block_bytes_max.saturating_add(RESPONSE_OVERHEAD_BYTES);
        Ok(AtomicBroadcastClient::new(channel).max_decoding_message_size(limit))
    }

    fn transport(&self) -> Result<Endpoint, SessionEnd> {
        let replaced = self.config.overrides.iter().find(|entry| entry.from == self.endpoint.address);
        let address = replaced.map_or(&self.endpoint.address, |entry| &entry.to);
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        let transport = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| format!("{address:?} is not a host:port address: {}", with_causes(&error)))?
            .connect_timeout(self.config.connect_timeout)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(self.config.keepalive_interval)
            .keep_alive_timeout(self.config.keepalive_timeout)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let Some(tls) = &self.config.tls else { return Ok(transport) };
        let roots = match replaced {
            Some(entry) if !entry.tls_roots.is_empty() => &entry.tls_roots,
            _ => &self.endpoint.tls_roots,
        };
        let configured = transport.tls_config(tls_config(tls, roots));
        Ok(configured.map_err(|error| format!("TLS cannot be set up: {}", with_causes(&error)))?)
    }

    fn request(&self, seek: &SeekInfo) -> Result<Envelope, SessionEnd> {
        let hash = client_certificate_hash(self.config.tls.as_ref())?;
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
        let encoded = seek_envelope(self.signer, &self.config.channel, seek, rand::random(), now, hash);
        Ok(Envelope::decode(encoded).map_err(|error| format!("cannot make a request: {error}"))?)
    }

    /// The block of a response, if it is the next one.
    fn take(&self, response: DeliverResponse) -> Result<Bytes, SessionEnd> {
        let bytes = self.block_of(response)?;
        let number =
            block_number(bytes.clone()).map_err(|error| format!("the orderer sent no block: {error}"))?;
        if number != *self.next {
            return Err(format!("the orderer sent block {number} where block {} was due", self.next).into());
        }
        Ok(bytes)
    }

    /// The block of a response, if it has one and that is not too large.
    fn block_of(&self, response: DeliverResponse) -> Result<Bytes, SessionEnd> {
        let bytes = match response.r#type {
            Some(Type::Block(bytes)) => bytes,
            Some(Type::Status(status)) => return Err(refusal(status, *self.next).into()),
            None => return Err("the orderer sent a message of an unknown kind".to_owned().into()),
        };
        if bytes.len() > self.block_bytes_max {
            let reason = format!(
                "the orderer sent a block of {} bytes, the channel allows {}",
                bytes.len(),
                self.block_bytes_max
            );
            return Err(reason.into());
        }
        Ok(bytes)
    }

    async fn report(&self, event: DeliverEvent) -> Result<(), SessionEnd> {
        self.sink.send(event).await.map_err(|_| SessionEnd::Closed)
    }
}

/// One request on a stream that stays open, since its end would tell the orderer that we are done, until what is returned
/// with it is dropped. HTTP/2 resets a stream only when both directions are let go: of a request stream that never ended, the
/// orderer would go on sending blocks that nobody reads, to the end of the window, on a connection that never closes.
fn open_ended(request: Envelope) -> (impl Stream<Item = Envelope> + Send + 'static, oneshot::Sender<()>) {
    let (open, closed) = oneshot::channel();
    (stream::iter([request]).chain(stream::pending()).take_until(closed), open)
}

fn tls_config(tls: &DeliverTls, endpoint_roots: &[Vec<u8>]) -> ClientTlsConfig {
    let roots = endpoint_roots.iter().chain(&tls.roots).map(TlsCertificate::from_pem);
    let config = ClientTlsConfig::new().ca_certificates(roots);
    match &tls.client {
        Some(client) => config.identity(Identity::from_pem(&client.certificate, &client.key)),
        None => config,
    }
}

/// SHA-256 of our TLS certificate, which ties the request to the connection.
fn client_certificate_hash(tls: Option<&DeliverTls>) -> Result<Option<Digest>, String> {
    let Some(client) = tls.and_then(|tls| tls.client.as_ref()) else { return Ok(None) };
    let certificate = Certificate::from_pem(&client.certificate).map_err(|error| {
        format!("the TLS client certificate cannot be used: {error}; check peer.tls.clientCert")
    })?;
    Ok(Some(certificate.fingerprint()))
}

/// A `common.Block` of which only the number is read; other fields are skipped without a copy.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct NumberedBlock {
    #[prost(message, optional, tag = "1")]
    header: Option<NumberedHeader>,
}

/// A `common.BlockHeader` of which only the number is read.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct NumberedHeader {
    #[prost(uint64, tag = "1")]
    number: u64,
}

fn block_number(bytes: Bytes) -> Result<u64, String> {
    let block = NumberedBlock::decode(bytes).map_err(|error| error.to_string())?;
    block.header.map(|header| header.number).ok_or_else(|| "it has no header".into())
}

/// What a status means to the operator. No status is right: a seek without end must not finish.
fn refusal(status: i32, next: u64) -> String {
    match Status::try_from(status) {
        Ok(Status::Success) => "the orderer finished a request that has no end (SUCCESS)".into(),
        Ok(Status::BadRequest) => {
            "the orderer refused the request as malformed (BAD_REQUEST); check this machine's clock and peer.tls.clientCert"
                .into()
        }
        Ok(Status::Forbidden) => {
            "the orderer does not let this peer read the channel (FORBIDDEN); check that its certificate is valid and its organisation in the channel"
                .into()
        }
        Ok(Status::NotFound) => {
            format!("the orderer does not serve the channel, or has not reached block {next} (NOT_FOUND)")
        }
        Ok(Status::ServiceUnavailable) => "the orderer cannot serve now (SERVICE_UNAVAILABLE)".into(),
        Ok(other) => format!("the orderer answered {other:?} ({status})"),
        Err(_) => format!("the orderer answered the unknown status {status}"),
    }
}

fn stream_error(status: &tonic::Status) -> String {
    format!("the stream broke: {} ({:?})", status.message(), status.code())
}

/// An error with its causes in one line; the transport's own text alone says nothing.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_and_junk_is_not() {
        let mut encoded = vec![0x0a, 0x03, 0x08, 0x80, 0x01];
        encoded.extend([0x12, 0x02, 0xff, 0xff]);
        assert_eq!(block_number(encoded.into()), Ok(128));
        assert_eq!(block_number(Bytes::from_static(&[0x0a, 0x00])), Ok(0));
        for junk in [&b""[..], b"junk", &[0x0a, 0x7f], &[0x12, 0x00]] {
            assert!(block_number(Bytes::copy_from_slice(junk)).is_err(), "{junk:?}");
        }
    }

    #[test]
    fn every_status_is_an_error() {
        for status in [0, 200, 400, 403, 404, 413, 500, 501, 503, 7] {
            assert!(refusal(status, 5).contains("orderer"), "{status}");
        }
    }
}
