//! The network that all measurements use: one organisation, one orderer, one channel, blocks of one transaction, and our own defaults for
//! everything a peer can be set to.

use std::time::Duration;

use anyhow::Context;
use grapevine_configs::ConfigFile;
use grapevine_network::{Interrupt, Network, NetworkBuilder, NetworkConfig};

/// The channel.
pub(crate) const CHANNEL: &str = "bench";

/// How long a network may take to find together; for busy machines.
pub(crate) const SETTLE_WITHIN: Duration = Duration::from_secs(60);

const DESCRIPTION: &str = "\
network: { id: bench }
ordering:
  organization: OrdererMSP
  domain: example.com
  orderers:
    - { name: orderer, listenAddress: 127.0.0.1:7050 }
  batch: { timeout: 2s, maxMessageCount: 1, absoluteMaxBytes: 99 MB, preferredMaxBytes: 99 MB }
organizations:
  - mspId: Org1MSP
    domain: org1.example.com
    peers:
      - { name: peer0, listenAddress: 127.0.0.1:7051 }
channels:
  - name: bench
    organizations: [Org1MSP]
    anchorPeers: { Org1MSP: [peer0] }
";

/// A network of so many peers, to be prepared or started.
///
/// # Errors
/// If there is to be no peer.
pub(crate) fn builder(peers: usize, interrupt: &Interrupt) -> anyhow::Result<NetworkBuilder> {
    let (mut config, _warnings) = NetworkConfig::parse(DESCRIPTION, "bench.yaml", None, std::iter::empty())?;
    let organization = config.organizations.first_mut().context("the description has an organisation")?;
    let first = organization.peers.first().cloned().context("the description has a peer")?;
    anyhow::ensure!(peers > 0, "--peers: write a number above 0");
    organization.peers = (0..peers)
        .map(|index| {
            let mut peer = first.clone();
            peer.name = format!("peer{index}");
            // Replaced by the harness; here they only have to differ.
            peer.listen_address.set_port(u16::try_from(index).unwrap_or(u16::MAX).saturating_add(20_000));
            peer
        })
        .collect();
    Ok(Network::builder()
        .config(config)
        .block_traces(true)
        .start_within(SETTLE_WITHIN)
        .interrupted_by(interrupt.flag()))
}

/// Waits until every peer is connected to every other one and `pullers` of them pull from the orderer.
///
/// # Errors
/// If that does not come about in time.
pub(crate) fn settle(network: &Network, pullers: usize) -> anyhow::Result<()> {
    let peers = network.peers();
    network.wait_until(
        "all peers to be connected and the orderer to be pulled from",
        SETTLE_WITHIN,
        || {
            let mut pulling = 0;
            for peer in &peers {
                let status = network.status(peer)?;
                let connected = status.members.iter().filter(|member| member.connected).count();
                if connected + 1 < peers.len() {
                    return Ok(Err(format!("{peer} is connected to {connected} others")));
                }
                pulling +=
                    usize::from(status.channel(CHANNEL).is_some_and(|channel| channel.orderer.is_some()));
            }
            Ok(if pulling == pullers {
                Ok(())
            } else {
                Err(format!("{pulling} peers pull from the orderer"))
            })
        },
    )?;
    Ok(())
}

/// How many peers pull from the orderer now.
///
/// # Errors
/// If a peer does not answer.
pub(crate) fn pullers(network: &Network) -> anyhow::Result<usize> {
    let mut pulling = 0;
    for peer in network.peers() {
        let status = network.status(peer)?;
        pulling += usize::from(status.channel(CHANNEL).is_some_and(|channel| channel.orderer.is_some()));
    }
    Ok(pulling)
}
