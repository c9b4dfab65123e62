//! The protocols that can be compared, and what sets them apart in the description of a network.

use clap::ValueEnum;
use grapevine_network::NetworkBuilder;

/// How blocks spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Our peer's own way.
    Grapevine,
    /// Our peer in Fabric's way.
    Classic,
    /// Every peer pulls from the orderer.
    Direct,
}

impl Protocol {
    /// The name in arguments and results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Grapevine => "grapevine",
            Self::Classic => "classic",
            Self::Direct => "direct",
        }
    }

    /// How many peers pull from the orderer.
    pub(crate) const fn pullers(self, peers: usize) -> usize {
        match self {
            Self::Direct => peers,
            Self::Grapevine | Self::Classic => 1,
        }
    }

    /// A network that spreads blocks so.
    pub(crate) fn apply(self, builder: NetworkBuilder) -> NetworkBuilder {
        builder.change(move |config| {
            config.gossip.0.insert("dissemination".to_owned(), self.name().into());
        })
    }
}
