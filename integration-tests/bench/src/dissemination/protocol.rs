//! The protocols that can be compared, and what sets them apart in the description of a network.

use clap::ValueEnum;
use grapevine_network::NetworkBuilder;

use crate::gossipsub;

/// How blocks spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Our peer's own way.
    Grapevine,
    /// Our peer in Fabric's way.
    Classic,
    /// Every peer pulls from the orderer.
    Direct,
    /// rust-libp2p's gossipsub in place of our peer.
    Gossipsub,
}

impl Protocol {
    /// The name in arguments and results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Grapevine => "grapevine",
            Self::Classic => "classic",
            Self::Direct => "direct",
            Self::Gossipsub => "gossipsub",
        }
    }

    /// How many peers pull from the orderer.
    pub(crate) const fn pullers(self, peers: usize) -> usize {
        match self {
            Self::Direct => peers,
            Self::Grapevine | Self::Classic | Self::Gossipsub => 1,
        }
    }

    /// A network that spreads blocks so.
    ///
    /// # Errors
    /// If this program does not know where it lies.
    pub(crate) fn apply(self, builder: NetworkBuilder) -> std::io::Result<NetworkBuilder> {
        Ok(match self {
            Self::Gossipsub => builder.peer_command(std::env::current_exe()?, [gossipsub::COMMAND]),
            _ => builder.change(move |config| {
                config.gossip.0.insert("dissemination".to_owned(), self.name().into());
                if self == Self::Classic {
                    // Fabric's values, and its repair alone: what is missed comes by pull.
                    let fabric = [
                        ("propagatePeerNum", 3.into()),
                        ("pullPeerNum", 3.into()),
                        ("pullInterval", "4s".into()),
                        ("state", serde_json::json!({ "enabled": false })),
                    ];
                    let fabric = fabric.map(|(key, value)| (key.to_owned(), value));
                    config.gossip.0.extend(fabric);
                }
            }),
        })
    }
}
