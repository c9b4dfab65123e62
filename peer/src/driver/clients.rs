//! Blocks for clients: the deliver server as peer.yaml wants it.

use std::sync::Arc;

use grapevine_configs::PeerConfig;

use super::trust::Trust;
use crate::deliver_server::{
    DeliverChannels, DeliverServer, DeliverServerError, DeliverServerOptions, FRAME_BYTES_MAX,
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STALL_MAX, ServerTls,
};
use crate::ledger::Ledger;

/// Starts the server; `None` if peer.yaml names no address for it.
pub(super) async fn start(
    config: &PeerConfig,
    trust: &Arc<Trust>,
    ledger: &Ledger,
    channels: &DeliverChannels,
) -> Result<Option<DeliverServer>, DeliverServerError> {
    let peer = &config.peer;
    let Some(listen) = peer.deliver_service.listen_address else { return Ok(None) };
    let trust = trust.clone();
    let options = DeliverServerOptions {
        listen,
        tls: ServerTls::read(&peer.tls)?,
        time_window: peer.authentication.timewindow.as_duration(),
        streams_max: usize::try_from(peer.limits.concurrency.deliver_service).unwrap_or(usize::MAX),
        frame_bytes_max: FRAME_BYTES_MAX,
        stall_max: STALL_MAX,
        keepalive_interval: KEEPALIVE_INTERVAL,
        keepalive_timeout: KEEPALIVE_TIMEOUT,
        certificate_time: Arc::new(move || trust.now()),
    };
    DeliverServer::start(options, ledger.clone(), channels.clone()).await.map(Some)
}
