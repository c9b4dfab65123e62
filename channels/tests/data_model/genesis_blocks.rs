//! Genesis blocks: a round trip, and the same tree that Fabric's `configtxgen` makes.

use grapevine_channels::config::{BatchSize, ChannelConfig, ConfigError};
use grapevine_channels::genesis::{ApplicationOrg, GenesisBuilder, OrdererOrg};
use grapevine_channels::proto::common::Metadata;
use grapevine_channels::proto::configtx::{Capabilities, Config, ConfigGroup};
use grapevine_channels::proto::orderer::{ConsensusType, RaftConfigMetadata};
use grapevine_channels::transaction::transaction_payload;
use prost::Message as _;

use crate::network::{Network, sent};
use crate::vectors::blocks;

#[test]
fn comes_back_as_described() {
    let network = Network::new();
    let batch_size =
        BatchSize { max_message_count: 7, absolute_max_bytes: 1 << 20, preferred_max_bytes: 1 << 10 };
    let block = network.builder("audit").batch_size(batch_size).batch_timeout_ms(250).build().unwrap();
    assert!(block.is_config());
    assert_eq!(block.last_config_index(), Some(0));
    assert!(Metadata::decode(block.signatures_metadata().clone()).unwrap().signatures.is_empty());
    let config = ChannelConfig::from_block(&sent(&block)).unwrap();
    assert_eq!(config.channel_id().as_str(), "audit");
    assert_eq!((config.batch_size(), config.batch_timeout_ms()), (batch_size, 250));
    assert_eq!(config.block_size_max(), 2 << 20);
    assert_eq!(config.orderer_endpoints()[0].address, "127.0.0.1:7050");
    let org2 = &config.application_orgs()[&"Org2MSP".into()];
    assert_eq!(org2.anchor_peers[0].to_string(), "peer0.org2.example.com:7051");
    assert_eq!(org2.msp.to_config(), network.org2.msp_config());
    assert!(config.identify(network.client.serialized()).is_ok());
}

#[test]
fn equal_descriptions_give_equal_blocks_and_the_channel_matters() {
    let network = Network::new();
    let build = |name| network.builder(name).build().unwrap().header_hash();
    assert_eq!(build("trade"), build("trade"));
    assert_ne!(build("trade"), build("audit"));
}

#[test]
fn what_peers_could_not_use_is_not_built() {
    let network = Network::new();
    let no_endpoint = GenesisBuilder::new("trade".parse().unwrap(), [0; 24], 0).orderer_org(OrdererOrg {
        name: "OrdererMSP".into(),
        msp: network.orderer_org.msp_config(),
        endpoints: Vec::new(),
    });
    assert!(matches!(no_endpoint.build(), Err(ConfigError::Value { .. })));
    let no_timeout = network.builder("trade").batch_timeout_ms(0);
    assert!(matches!(no_timeout.build(), Err(ConfigError::Value { .. })));
    let twice = network.builder("trade").application_org(ApplicationOrg {
        name: "Twin".into(),
        msp: network.org1.msp_config(),
        anchor_peers: Vec::new(),
    });
    assert!(matches!(twice.build(), Err(ConfigError::MspConflict { .. })));
}

/// Describes the channel of each vector chain again; the tree must be the one that configtxgen made.
#[test]
fn the_tree_equals_that_of_configtxgen() {
    for chain in ["ecdsa", "ed25519"] {
        let genesis = &blocks(chain)[0];
        let original = ChannelConfig::from_block(genesis).unwrap();
        let view = transaction_payload(&genesis.transactions()[0]).unwrap();
        let nonce = view.nonce.as_ref().try_into().unwrap();
        let mut builder =
            GenesisBuilder::new(original.channel_id().clone(), nonce, view.timestamp_seconds.unwrap())
                .batch_size(original.batch_size())
                .batch_timeout_ms(original.batch_timeout_ms());
        for (msp_id, org) in original.orderer_orgs() {
            let endpoints = original.orderer_endpoints().iter();
            let endpoints = endpoints.filter(|endpoint| endpoint.org == *msp_id);
            builder = builder.orderer_org(OrdererOrg {
                name: org.name.clone(),
                msp: org.msp.to_config(),
                endpoints: endpoints.map(|endpoint| endpoint.address.clone()).collect(),
            });
        }
        for org in original.application_orgs().values() {
            builder = builder.application_org(ApplicationOrg {
                name: org.name.clone(),
                msp: org.msp.to_config(),
                anchor_peers: org.anchor_peers.clone(),
            });
        }
        let root = original.config().channel_group.as_ref().unwrap();
        let consensus = &root.groups["Orderer"].values["ConsensusType"].value;
        let consensus = ConsensusType::decode(consensus.as_slice()).unwrap();
        let raft = RaftConfigMetadata::decode(consensus.metadata.as_slice()).unwrap();
        for consenter in raft.consenters {
            builder = builder.consenter(consenter);
        }
        let rebuilt = builder.build().unwrap();
        let rebuilt = ChannelConfig::from_block(&rebuilt).unwrap();
        assert_same(original.config(), rebuilt.config());
    }
}

fn assert_same(original: &Config, rebuilt: &Config) {
    let mut original = original.clone();
    normalize(original.channel_group.as_mut().unwrap());
    let original = &original;
    assert_same_group(
        "/Channel",
        original.channel_group.as_ref().unwrap(),
        rebuilt.channel_group.as_ref().unwrap(),
    );
    assert_eq!(original, rebuilt);
}

/// Go writes an empty capability as an empty message into the map, `prost` leaves it out: the same map.
fn normalize(group: &mut ConfigGroup) {
    if let Some(capabilities) = group.values.get_mut("Capabilities") {
        let decoded = Capabilities::decode(capabilities.value.as_slice()).unwrap();
        capabilities.value = decoded.encode_to_vec();
    }
    group.groups.values_mut().for_each(normalize);
}

fn assert_same_group(path: &str, original: &ConfigGroup, rebuilt: &ConfigGroup) {
    let keys = |group: &ConfigGroup| {
        let keys = group.groups.keys().chain(group.values.keys()).chain(group.policies.keys());
        keys.cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(original), keys(rebuilt), "{path}");
    for (name, value) in &original.values {
        assert_eq!(value, &rebuilt.values[name], "{path}/{name}");
    }
    for (name, policy) in &original.policies {
        assert_eq!(policy, &rebuilt.policies[name], "{path}/{name}");
    }
    for (name, group) in &original.groups {
        assert_same_group(&format!("{path}/{name}"), group, &rebuilt.groups[name]);
    }
}
