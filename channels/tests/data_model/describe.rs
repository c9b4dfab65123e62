//! Readable forms of blocks and configs: of Fabric's chains, of changed blocks, of nonsense.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::{Block, BlockHeader};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::describe::{BlockDescription, ConfigDescription, config_difference};
use grapevine_channels::proto::common::Metadata;
use grapevine_crypto::sha256;
use prost::Message as _;
use serde_json::{Value, json};

use crate::network::Network;
use crate::vectors::{CHAINS, blocks, directory, walk};

fn config_of(block: &Block) -> Arc<ChannelConfig> {
    Arc::new(ChannelConfig::from_block(block).unwrap())
}

#[test]
fn descriptions_of_fabrics_blocks_say_what_was_found_independently() {
    for chain in CHAINS {
        let expected = fs::read(directory(chain).join("expected.json")).unwrap();
        let expected: Vec<Value> = serde_json::from_slice(&expected).unwrap();
        for (block, expected) in blocks(chain).iter().zip(&expected) {
            let description = serde_json::to_value(BlockDescription::new(block, None)).unwrap();
            for field in ["number", "header_hash", "data_hash", "last_config"] {
                assert_eq!(description[field], expected[field], "{chain} {field}");
            }
            let transactions = description["transactions"].as_array().unwrap();
            assert_eq!(expected["transactions"], transactions.len());
            assert_eq!(expected["orderer_signatures"], description["signers"].as_array().unwrap().len());
            assert_eq!(description["data_hash_holds"], true);
            assert_eq!(description["authentic"], Value::Null);
            let previous = description["previous_hash"].as_str().unwrap();
            assert_eq!(previous.len(), if block.number() == 0 { 0 } else { 64 });
        }
    }
}

#[test]
fn with_the_config_in_force_signatures_are_checked_and_changes_shown() {
    for (chain, changed) in [("ecdsa", vec![4, 6]), ("ed25519", vec![4, 6]), ("bft-ecdsa", vec![])] {
        let mut with_changes = Vec::new();
        walk(chain, |verifier, block, _| {
            let description = BlockDescription::new(block, Some(verifier.config()));
            assert_eq!((description.authentic, description.problem), (Some(true), None));
            for signer in &description.signers {
                assert_eq!(signer.valid, Some(true));
                assert_eq!(signer.identity.role.as_deref(), Some("orderer"));
                assert_eq!(signer.identity.msp_id, "OrdererMSP");
                assert_eq!(signer.consenter.is_some(), chain == "bft-ecdsa");
            }
            if let Some(changes) = description.config_difference {
                assert!(!changes.is_empty());
                with_changes.push(block.number());
            }
        });
        assert_eq!(with_changes, changed, "{chain}");
    }
}

#[test]
fn differences_name_path_before_and_after() {
    let blocks = blocks("ed25519");
    let (zero, four, six) = (config_of(&blocks[0]), config_of(&blocks[4]), config_of(&blocks[6]));
    let shown = |before, after| serde_json::to_value(config_difference(before, after)).unwrap();
    let anchors = json!([{
        "path": "/Channel/Application/Org2MSP/AnchorPeers",
        "before": "127.0.0.1:22000",
        "after": "peer1.org2.example.com:7051",
    }]);
    assert_eq!(shown(&zero, &four), anchors);
    let batch = json!([{
        "path": "/Channel/Orderer/BatchSize/max_message_count", "before": "3", "after": "1",
    }]);
    assert_eq!(shown(&four, &six), batch);
    assert_eq!(shown(&six, &six), json!([]));
    // Another channel: organisations come and go as a whole, certificates are named.
    let other = config_of(&Network::new().genesis);
    let changes = config_difference(&zero, &other);
    let root =
        changes.iter().find(|change| change.path == "/Channel/Application/Org1MSP/MSP/root_certs").unwrap();
    assert!(root.before.as_deref().unwrap().starts_with("ca.org1.example.com (expires 2036-"), "{root:?}");
}

#[test]
fn a_change_of_something_unknown_is_told_by_digest() {
    use grapevine_channels::proto::common::{Envelope, Payload};
    use grapevine_channels::proto::configtx::{ConfigEnvelope, ConfigValue};
    let network = Network::new();
    let with_value = |bytes: &[u8]| {
        let mut envelope = Envelope::decode(network.genesis.transactions()[0].clone()).unwrap();
        let mut payload = Payload::decode(envelope.payload).unwrap();
        let mut config = ConfigEnvelope::decode(payload.data).unwrap();
        let root = config.config.as_mut().unwrap().channel_group.as_mut().unwrap();
        root.values.insert("Novelty".into(), ConfigValue { value: bytes.to_vec(), ..ConfigValue::default() });
        payload.data = config.encode_to_vec().into();
        envelope.payload = payload.encode_to_vec().into();
        let transaction = Bytes::from(envelope.encode_to_vec());
        let header = network.genesis.header().clone();
        config_of(&Block::from_parts(
            header,
            vec![transaction],
            network.genesis.signatures_metadata().clone(),
        ))
    };
    let changes = config_difference(&with_value(b"one"), &with_value(b"two!"));
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].path, "/Channel/Novelty");
    assert!(changes[0].before.as_deref().unwrap().starts_with("3 bytes, SHA-256 "));
    assert!(changes[0].after.as_deref().unwrap().starts_with("4 bytes, SHA-256 "));
}

/// A file stands alone: then the update itself says what it writes.
#[test]
fn a_config_block_without_the_config_before_shows_its_update() {
    let blocks = blocks("ecdsa");
    let shown = |number: usize, config: Option<usize>| {
        let config = config.map(|number| config_of(&blocks[number]));
        let shown = serde_json::to_value(BlockDescription::new(&blocks[number], config.as_ref())).unwrap();
        (shown["config_update"].clone(), shown["config_difference"].clone())
    };
    let anchor = json!([{ "path": "/Channel/Application/Org2MSP/AnchorPeers", "before": null, "after": "peer1.org2.example.com:7051" }]);
    assert_eq!(shown(4, None), (anchor, json!(null)));
    let (update, _) = shown(6, None);
    assert_eq!(
        update[1],
        json!({ "path": "/Channel/Orderer/BatchSize/max_message_count", "before": null, "after": "1" })
    );
    assert!(
        update
            .as_array()
            .unwrap()
            .iter()
            .all(|change| change["path"].as_str().unwrap().starts_with("/Channel/Orderer/BatchSize/"))
    );
    let (update, difference) = shown(4, Some(0));
    assert!(update.is_null() && difference.is_array());
    assert_eq!(shown(5, None), (json!(null), json!(null)));
    assert_eq!(shown(0, None).0, json!(null));
    let creator = BlockDescription::new(&blocks[0], None).transactions[0].creator.clone();
    assert_eq!((creator.msp_id, creator.problem), (String::new(), None), "nobody made the genesis block");
}

#[test]
fn a_config_in_full() {
    let config = serde_json::to_value(ConfigDescription::new(&config_of(&blocks("ed25519")[6]))).unwrap();
    assert_eq!(
        (&config["channel"], &config["sequence"], &config["config_block"]),
        (&json!("ch1"), &json!(2), &json!(6))
    );
    assert_eq!(config["capabilities"]["channel"], json!(["V3_0"]));
    assert_eq!(
        config["orderer_endpoints"],
        json!([{ "address": "127.0.0.1:17050", "msp_id": "OrdererMSP" }])
    );
    assert_eq!(config["policies"]["/Channel/Orderer/BlockValidation"], "ANY Writers");
    assert_eq!(
        config["policies"]["/Channel/Application/Org1MSP/Readers"],
        "OR('Org1MSP.admin', 'Org1MSP.peer', 'Org1MSP.client')"
    );
    let org2 = &config["application_organizations"][1];
    assert_eq!(org2["anchor_peers"], json!(["peer1.org2.example.com:7051"]));
    assert_eq!(org2["msp"]["id"], "Org2MSP");
    assert_eq!(org2["msp"]["node_ous"], true);
    let authorities: Vec<(&str, &str)> = org2["msp"]["authorities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|authority| (authority["kind"].as_str().unwrap(), authority["subject"].as_str().unwrap()))
        .collect();
    assert_eq!(authorities, [("root", "ca.org2.example.com"), ("tls root", "tlsca.org2.example.com")]);
    assert!(org2["msp"]["authorities"][0]["expires"].as_str().unwrap().starts_with("2036-"));
    let bft = ConfigDescription::new(&config_of(&blocks("bft-ecdsa")[0]));
    let consenters: Vec<(u32, &str)> =
        bft.consenters.iter().map(|one| (one.id, one.identity.common_name.as_str())).collect();
    assert_eq!(consenters.len(), 4);
    assert_eq!(consenters[0], (1, "orderer0.example.com"));
}

#[test]
fn what_does_not_hold_is_said() {
    let network = Network::new();
    let (block, config) = (network.block(), network.config());
    let mut metadata = Metadata::decode(block.signatures_metadata().clone()).unwrap();
    metadata.signatures[0].signature = vec![0; 64].into();
    let slot = Bytes::from(metadata.encode_to_vec());
    let forged = Block::from_parts(block.header().clone(), block.transactions().to_vec(), slot.clone());
    let description = BlockDescription::new(&forged, Some(&config));
    assert_eq!((description.authentic, description.signers[0].valid), (Some(false), Some(false)));
    assert!(description.problem.unwrap().contains("BlockValidation"));

    let foreign = Network::of_channel("audit").block();
    let description = BlockDescription::new(&foreign, Some(&config));
    assert_eq!(description.signers[0].identity.common_name, "orderer.example.com");
    assert!(description.signers[0].identity.problem.is_some());
    assert!(description.problem.unwrap().contains("audit"));

    let moved = Block::from_parts(block.header().clone(), vec![Bytes::from_static(b"\xff")], slot);
    let description = BlockDescription::new(&moved, None);
    assert!(!description.data_hash_holds && description.channel.is_none());
    assert!(description.transactions[0].problem.is_some());
}

#[test]
fn any_bytes_that_parse_can_be_described() {
    let header = BlockHeader { number: 7, previous_hash: vec![0; 32], data_hash: sha256(b"").0.to_vec() };
    let empty = Block::from_parts(header.clone(), Vec::new(), Bytes::from_static(b"\xff\xff"));
    let description = BlockDescription::new(&empty, None);
    assert_eq!((description.signers.len(), description.last_config), (0, None));
    let signature = grapevine_channels::proto::common::MetadataSignature {
        signature_header: Bytes::from_static(b"\xff"),
        ..Default::default()
    };
    let metadata = Metadata { value: Bytes::new(), signatures: vec![signature; 500] };
    let many = Block::from_parts(header, Vec::new(), metadata.encode_to_vec().into());
    assert_eq!(BlockDescription::new(&many, None).signers.len(), 128);
}
