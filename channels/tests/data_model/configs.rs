//! Channel configs that cannot be used give a typed error that says what to do.

use std::collections::BTreeMap;

use bytes::Bytes;
use grapevine_channels::block::Block;
use grapevine_channels::config::{ChannelConfig, ConfigError, MemberError};
use grapevine_channels::proto::common::{Envelope, Payload};
use grapevine_channels::proto::configtx::{
    BlockDataHashingStructure, Capabilities, Capability, ConfigEnvelope, ConfigGroup, ConfigValue,
    OrdererAddresses,
};
use grapevine_channels::proto::peer::{AnchorPeer, AnchorPeers};
use grapevine_channels::proto::policies::Policy;
use grapevine_crypto::proto::MspConfig;
use prost::Message;

use crate::network::{Network, header, organization};

/// A genesis block with a changed tree.
pub(crate) fn changed(
    genesis: &Block,
    change: impl FnOnce(&mut ConfigGroup),
) -> Result<ChannelConfig, ConfigError> {
    let envelope = Envelope::decode(genesis.transactions()[0].clone()).unwrap();
    let mut payload = Payload::decode(envelope.payload).unwrap();
    let mut config = ConfigEnvelope::decode(payload.data).unwrap();
    change(config.config.as_mut().unwrap().channel_group.as_mut().unwrap());
    payload.data = config.encode_to_vec().into();
    let envelope = Envelope { payload: payload.encode_to_vec().into(), signature: Bytes::new() };
    let transactions = vec![envelope.encode_to_vec().into()];
    ChannelConfig::from_block(&Block::from_parts(header(0, &[], &transactions), transactions, Bytes::new()))
}

pub(crate) fn value(message: &impl Message) -> ConfigValue {
    ConfigValue { version: 0, value: message.encode_to_vec(), mod_policy: "Admins".into() }
}

fn capabilities(names: &[&str]) -> ConfigValue {
    let names = names.iter().map(|name| ((*name).to_owned(), Capability {}));
    value(&Capabilities { capabilities: names.collect() })
}

fn group<'a>(root: &'a mut ConfigGroup, path: &[&str]) -> &'a mut ConfigGroup {
    path.iter().fold(root, |group, name| group.groups.get_mut(*name).unwrap())
}

pub(crate) fn set(root: &mut ConfigGroup, path: &[&str], name: &str, value: ConfigValue) {
    group(root, path).values.insert(name.to_owned(), value);
}

#[test]
fn unknown_capabilities_say_upgrade() {
    let network = Network::new();
    // Each group has its own: orderers end at V2_0 and applications at V2_5 in Fabric 3.
    for (path, known, unknown) in [
        (&[][..], "V3_0", "V9_0"),
        (&["Orderer"][..], "V2_0", "V3_0"),
        (&["Application"][..], "V2_5", "V3_0"),
    ] {
        let refused = changed(&network.genesis, |root| {
            set(root, path, "Capabilities", capabilities(&[known, unknown]));
        });
        let error = refused.unwrap_err();
        assert!(matches!(&error, ConfigError::UnknownCapability { name, .. } if name == unknown), "{error}");
        assert!(error.to_string().contains("upgrade grapevine"));
    }
}

#[test]
fn capabilities_below_v1_4_3_are_refused() {
    let network = Network::new();
    for names in [&[][..], &["V1_1"], &["V1_4_2"]] {
        let refused = changed(&network.genesis, |root| set(root, &[], "Capabilities", capabilities(names)));
        assert!(matches!(refused, Err(ConfigError::CapabilityTooOld { .. })), "{refused:?}");
    }
}

#[test]
fn ed25519_needs_v3_0_and_global_addresses_need_less() {
    let network = Network::new();
    let addresses = value(&OrdererAddresses { addresses: vec!["old.example.com:7050".into()] });
    let config = changed(&network.genesis, |root| {
        set(root, &[], "Capabilities", capabilities(&["V2_0"]));
        set(root, &[], "OrdererAddresses", addresses.clone());
        group(root, &["Orderer", "OrdererMSP"]).values.remove("Endpoints");
    })
    .unwrap();
    assert_eq!(config.orderer_endpoints()[0].address, "old.example.com:7050");
    assert!(matches!(config.identify(network.client.serialized()), Err(MemberError::Algorithm)));
    let refused = changed(&network.genesis, |root| set(root, &[], "OrdererAddresses", addresses));
    assert!(matches!(refused, Err(ConfigError::Value { .. })), "{refused:?}");
}

#[test]
fn shape_and_names() {
    let network = Network::new();
    let refuse = |change: fn(&mut ConfigGroup)| changed(&network.genesis, change).unwrap_err();
    let error = refuse(|root| drop(root.groups.insert("Consortiums".into(), ConfigGroup::default())));
    assert!(matches!(error, ConfigError::UnexpectedGroup { .. }), "{error}");
    let error = refuse(|root| {
        drop(group(root, &["Application", "Org1MSP"]).groups.insert("Sub".into(), ConfigGroup::default()));
    });
    assert!(matches!(error, ConfigError::UnexpectedGroup { .. }), "{error}");
    for name in ["", ".", "..", "a/b", "a b", "ü"] {
        let refused = changed(&network.genesis, |root| {
            root.values.insert(name.into(), ConfigValue::default());
        });
        assert!(matches!(refused, Err(ConfigError::Name { .. })), "{name}");
    }
    let error = refuse(|root| drop(root.groups.remove("Application")));
    assert!(matches!(error, ConfigError::Missing { .. }), "{error}");
    let error = refuse(|root| drop(group(root, &["Orderer"]).values.remove("BatchSize")));
    assert!(matches!(error, ConfigError::Missing { .. }), "{error}");
}

#[test]
fn values_policies_and_msps() {
    let network = Network::new();
    let refuse = |change: &dyn Fn(&mut ConfigGroup)| changed(&network.genesis, change).unwrap_err();
    let hashing = value(&BlockDataHashingStructure { width: 2 });
    let error = refuse(&|root| set(root, &[], "BlockDataHashingStructure", hashing.clone()));
    assert!(matches!(error, ConfigError::Value { .. }), "{error}");
    let garbage = ConfigValue { value: vec![0xff], ..ConfigValue::default() };
    let error = refuse(&|root| set(root, &["Orderer"], "BatchSize", garbage.clone()));
    assert!(matches!(error, ConfigError::Decode { .. }), "{error}");
    let idemix = value(&MspConfig { r#type: 1, config: Vec::new() });
    let error = refuse(&|root| set(root, &["Application", "Org1MSP"], "MSP", idemix.clone()));
    assert!(matches!(error, ConfigError::Value { .. }), "{error}");
    let nameless = value(&MspConfig { r#type: 0, config: Vec::new() });
    let error = refuse(&|root| set(root, &["Application", "Org1MSP"], "MSP", nameless.clone()));
    assert!(matches!(error, ConfigError::Msp { .. }), "{error}");
    let impostor = organization("OrdererMSP", "evil.example").msp_config().encode_to_vec();
    let impostor = value(&MspConfig { r#type: 0, config: impostor });
    let error = refuse(&|root| set(root, &["Application", "Org1MSP"], "MSP", impostor.clone()));
    assert!(matches!(error, ConfigError::MspConflict { .. }), "{error}");
    let error = refuse(&|root| {
        let policy = Policy { r#type: 2, value: Vec::new() };
        root.policies.get_mut("Readers").unwrap().policy = Some(policy);
    });
    assert!(matches!(error, ConfigError::Policy { .. }), "{error}");
}

#[test]
fn one_msp_may_order_and_use_if_its_definition_is_the_same() {
    let network = Network::new();
    let config = changed(&network.genesis, |root| {
        let msp = group(root, &["Orderer", "OrdererMSP"]).values["MSP"].clone();
        let both = ConfigGroup { values: BTreeMap::from([("MSP".into(), msp)]), ..ConfigGroup::default() };
        group(root, &["Application"]).groups.insert("Both".into(), both);
    })
    .unwrap();
    assert!(config.application_orgs().contains_key(&"OrdererMSP".into()));
}

#[test]
fn impossible_anchors_are_left_out() {
    let network = Network::new();
    let anchor = |host: &str, port| AnchorPeer { host: host.into(), port };
    let anchors = [anchor("", 1), anchor("a", 0), anchor("b", 65_536), anchor("c", -1), anchor("::1", 7051)];
    let anchors = value(&AnchorPeers { anchor_peers: anchors.to_vec() });
    let config =
        changed(&network.genesis, |root| set(root, &["Application", "Org1MSP"], "AnchorPeers", anchors))
            .unwrap();
    let org1 = &config.application_orgs()[&"Org1MSP".into()];
    assert_eq!(org1.anchor_peers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::1]:7051"]);
}

#[test]
fn ordinary_blocks_are_no_configs() {
    let network = Network::new();
    let refused = ChannelConfig::from_block(&network.block());
    assert!(matches!(refused, Err(ConfigError::NotConfig { number: 1 })));
}

#[test]
fn capabilities_of_fabric_1_4_3_to_3_0_are_served() {
    let network = Network::new();
    for (channel, orderer, application) in [
        ("V1_4_3", "V1_4_2", "V1_4_2"),
        ("V2_0", "V2_0", "V2_0"),
        ("V2_0", "V2_0", "V2_5"),
        ("V3_0", "V2_0", "V2_5"),
    ] {
        let config = changed(&network.genesis, |root| {
            set(root, &[], "Capabilities", capabilities(&[channel]));
            set(root, &["Orderer"], "Capabilities", capabilities(&[orderer]));
            set(root, &["Application"], "Capabilities", capabilities(&[application]));
        });
        assert!(config.is_ok(), "{channel} {orderer} {application}: {config:?}");
    }
}

#[test]
fn endpoints_of_the_ordering_organisations_come_before_global_addresses() {
    let network = Network::new();
    let own = OrdererAddresses { addresses: vec!["a.example.com:7050".into(), "b.example.com:7050".into()] };
    let global = OrdererAddresses { addresses: vec!["old.example.com:7050".into()] };
    let config = changed(&network.genesis, |root| {
        set(root, &[], "Capabilities", capabilities(&["V2_0"]));
        set(root, &[], "OrdererAddresses", value(&global));
        set(root, &["Orderer", "OrdererMSP"], "Endpoints", value(&own));
    })
    .unwrap();
    let addresses: Vec<&str> =
        config.orderer_endpoints().iter().map(|endpoint| endpoint.address.as_str()).collect();
    assert_eq!(addresses, ["a.example.com:7050", "b.example.com:7050"]);
}
