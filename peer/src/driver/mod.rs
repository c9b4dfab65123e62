//! Runs a peer.

use grapevine_configs::PeerConfig;

/// Runs the peer described by `config` until it is told to stop.
///
/// # Errors
/// Whatever keeps the peer from running, in words for the operator.
#[expect(clippy::unused_async, reason = "the signature is what the command line calls")]
pub async fn run(config: PeerConfig) -> anyhow::Result<()> {
    anyhow::bail!("peer {} cannot run: this build has no driver", config.peer.id)
}
