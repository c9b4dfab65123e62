//! Config updates: what administrators signed takes effect, everything else does not, orderers or no orderers.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::config::{ChannelConfig, ConfigError};
use grapevine_channels::config_update::{
    ConfigUpdateError, UPDATE_SIGNATURES_MAX, compute_update, sign_update,
};
use grapevine_channels::genesis::{ApplicationOrg, application_org_group};
use grapevine_channels::proto::common::{Envelope, HeaderType, SignatureHeader};
use grapevine_channels::proto::configtx::{
    Config, ConfigEnvelope, ConfigGroup, ConfigSignature, ConfigUpdate, ConfigUpdateEnvelope, ConfigValue,
};
use grapevine_channels::proto::orderer::BatchSize;
use grapevine_channels::proto::peer::{AnchorPeer, AnchorPeers};
use grapevine_channels::transaction::{EnvelopeHeader, signed_envelope, transaction_payload};
use grapevine_channels::verify::BlockVerifier;
use grapevine_crypto::issue::Organization;
use grapevine_crypto::{Role, Signer};
use prost::Message as _;

use crate::network::{NOW, Network, VALIDITY, organization, sent};
use crate::vectors;

fn admin(org: &Organization) -> Signer {
    org.enrol("Admin", Role::Admin, VALIDITY).unwrap()
}

/// A tree with `leaf` at the group `path`.
fn nest(path: &[&str], leaf: ConfigGroup) -> ConfigGroup {
    path.iter().rev().fold(leaf, |inner, name| {
        let mut outer = ConfigGroup::default();
        outer.groups.insert((*name).to_owned(), inner);
        outer
    })
}

/// The group of Org1, for read sets.
fn org1(group: ConfigGroup) -> ConfigGroup {
    nest(&["Application", "Org1MSP"], group)
}

fn with_value(path: &[&str], name: &str, value: ConfigValue) -> ConfigGroup {
    let mut leaf = ConfigGroup::default();
    leaf.values.insert(name.to_owned(), value);
    nest(path, leaf)
}

fn anchors(host: &str, version: u64) -> ConfigGroup {
    let anchors = AnchorPeers { anchor_peers: vec![AnchorPeer { host: host.into(), port: 7051 }] };
    let value = ConfigValue { version, value: anchors.encode_to_vec(), mod_policy: "Admins".into() };
    with_value(&["Application", "Org1MSP"], "AnchorPeers", value)
}

/// An envelope of type CONFIG_UPDATE.
fn update(network: &Network, read_set: ConfigGroup, write_set: ConfigGroup, signers: &[&Signer]) -> Envelope {
    let update = ConfigUpdate {
        channel_id: network.channel().to_string(),
        read_set: Some(read_set),
        write_set: Some(write_set),
    };
    wrap(network, update.encode_to_vec(), signers)
}

fn wrap(network: &Network, config_update: Vec<u8>, signers: &[&Signer]) -> Envelope {
    let sign = |signer: &&Signer| {
        let header =
            SignatureHeader { creator: signer.serialized().to_vec(), nonce: vec![1; 24] }.encode_to_vec();
        let signature = signer.sign(&[header.as_slice(), &config_update].concat());
        ConfigSignature { signature_header: header, signature }
    };
    let signatures = signers.iter().map(sign).collect();
    let data = ConfigUpdateEnvelope { config_update: config_update.clone(), signatures }.encode_to_vec();
    envelope(network, &network.client, HeaderType::ConfigUpdate, data)
}

fn envelope(network: &Network, signer: &Signer, header_type: HeaderType, data: Vec<u8>) -> Envelope {
    let channel = network.channel();
    let header = EnvelopeHeader {
        header_type,
        channel: &channel,
        nonce: [2; 24],
        timestamp_seconds: NOW,
        tls_cert_hash: None,
    };
    Envelope::decode(signed_envelope(signer, header, data.into())).unwrap()
}

/// A config block 1 made and signed by the orderer, whatever it carries.
fn config_block(network: &Network, config: &ConfigEnvelope) -> AuthenticBlock {
    let transaction = envelope(network, &network.orderer, HeaderType::Config, config.encode_to_vec());
    let transactions = vec![Bytes::from(transaction.encode_to_vec())];
    let block = network.signed_by(&network.orderer, 1, network.genesis.header_hash(), transactions, 1);
    network.verifier().verify(sent(&block)).unwrap()
}

fn refused(result: Result<ChannelConfig, ConfigError>) -> ConfigUpdateError {
    match result.unwrap_err() {
        ConfigError::Update { source, .. } => source,
        error => panic!("{error}"),
    }
}

#[test]
fn an_organisation_moves_its_anchor() {
    let network = Network::new();
    let config = network.config();
    let admin1 = admin(&network.org1);
    let read_set = org1(ConfigGroup::default());
    let proposed =
        config.propose_update(&update(&network, read_set, anchors("moved", 1), &[&admin1])).unwrap();
    let block = config_block(&network, &proposed);
    assert!(block.is_config());
    let next = config.next(&block).unwrap();
    assert_eq!((next.sequence(), next.config_block_number()), (1, 1));
    assert_eq!(next.application_orgs()[&"Org1MSP".into()].anchor_peers[0].host, "moved");
    let org2 = &"Org2MSP".into();
    assert_eq!(next.application_orgs()[org2].anchor_peers, config.application_orgs()[org2].anchor_peers);

    // Blocks after it verify under the new config alone.
    let later = network.signed_by(&network.orderer, 2, block.hash(), vec![network.transaction(b"x")], 1);
    assert!(network.verifier().verify(sent(&later)).is_err());
    assert!(BlockVerifier::new(Arc::new(next)).verify(sent(&later)).is_ok());
}

#[test]
fn others_may_not() {
    let network = Network::new();
    let config = network.config();
    let (admin2, peer) = (admin(&network.org2), network.org1.enrol("peer0", Role::Peer, VALIDITY).unwrap());
    for signers in [&[][..], &[&admin2], &[&peer, &network.client, &network.orderer]] {
        let update = update(&network, org1(ConfigGroup::default()), anchors("x", 1), signers);
        let refused = config.propose_update(&update);
        assert!(matches!(refused, Err(ConfigUpdateError::Unauthorized { .. })), "{refused:?}");
    }
    // Nor those who satisfy only the policy that the change itself would bring in.
    let client = &network.client;
    assert!(config.evaluate_identity("/Channel/Application/Org1MSP/Readers", client.identity()).is_ok());
    let lax = ConfigValue { version: 1, value: Vec::new(), mod_policy: "Readers".into() };
    let lax = with_value(&["Application", "Org1MSP"], "AnchorPeers", lax);
    let refused = config.propose_update(&update(&network, org1(ConfigGroup::default()), lax, &[client]));
    assert!(matches!(refused, Err(ConfigUpdateError::Unauthorized { .. })), "{refused:?}");
}

#[test]
fn signatures_of_an_update_are_bounded() {
    let network = Network::new();
    let admin1 = admin(&network.org1);
    let signed = |count| {
        let signers = vec![&admin1; count];
        let update = update(&network, org1(ConfigGroup::default()), anchors("moved", 1), &signers);
        network.config().propose_update(&update)
    };
    assert!(signed(UPDATE_SIGNATURES_MAX).is_ok());
    assert_eq!(signed(UPDATE_SIGNATURES_MAX + 1).unwrap_err(), ConfigUpdateError::TooManySignatures);
}

/// An organisation may renew its CAs; under another MSP ID it would be another one, in the name of the first.
#[test]
fn an_organisation_stays_the_same_one() {
    let network = Network::new();
    let config = network.config();
    let third = organization("Org3MSP", "org3.example.com");
    let described =
        ApplicationOrg { name: "Org1MSP".to_owned(), msp: third.msp_config(), anchor_peers: Vec::new() };
    let value = ConfigValue { version: 1, ..application_org_group(&described).values["MSP"].clone() };
    let write_set = with_value(&["Application", "Org1MSP"], "MSP", value.clone());
    let update = update(&network, org1(ConfigGroup::default()), write_set, &[&admin(&network.org1)]);
    let expected = ConfigUpdateError::MspIdChanged("Org1MSP".into());
    assert_eq!(config.propose_update(&update).unwrap_err(), expected);

    let mut root = tree(&config).clone();
    application(&mut root).groups.get_mut("Org1MSP").unwrap().values.insert("MSP".to_owned(), value);
    let carried = ConfigEnvelope {
        config: Some(Config { sequence: 1, channel_group: Some(root) }),
        last_update: Some(update),
    };
    assert_eq!(refused(config.next(&config_block(&network, &carried))), expected);
}

/// Org2 leaves the channel, signed by `signers`.
fn propose_removal(network: &Network, signers: &[&Signer]) -> Result<ConfigEnvelope, ConfigUpdateError> {
    let config = network.config();
    let existing = &tree(&config).groups["Application"];
    let mut group = existing.clone();
    group.version = 1;
    group.groups.remove("Org2MSP");
    let read_set = ConfigGroup { mod_policy: String::new(), ..existing.clone() };
    let (read_set, write_set) = (nest(&["Application"], read_set), nest(&["Application"], group));
    config.propose_update(&update(network, read_set, write_set, signers))
}

/// The config after Org2 has left.
pub(crate) fn without_org2(network: &Network) -> ChannelConfig {
    let (admin1, admin2) = (admin(&network.org1), admin(&network.org2));
    let proposed = propose_removal(network, &[&admin1, &admin2]).unwrap();
    network.config().next(&config_block(network, &proposed)).unwrap()
}

#[test]
fn thresholds_count_organisations() {
    let network = Network::new();
    let (admin1, admin2) = (admin(&network.org1), admin(&network.org2));
    for signers in [&[&admin1][..], &[&admin1, &admin1]] {
        let refused = propose_removal(&network, signers);
        assert!(matches!(refused, Err(ConfigUpdateError::Unauthorized { .. })), "{refused:?}");
    }
    let next = without_org2(&network);
    assert_eq!(next.application_orgs().len(), 1);
    assert!(matches!(
        next.identify(admin2.serialized()),
        Err(grapevine_channels::config::MemberError::UnknownMsp(_))
    ));
}

#[test]
fn versions_and_read_sets() {
    let network = Network::new();
    let config = network.config();
    let admin1 = admin(&network.org1);
    let propose = |read_set, write_set| {
        config.propose_update(&update(&network, read_set, write_set, &[&admin1])).unwrap_err()
    };
    let none = ConfigGroup::default;
    let error = propose(org1(none()), anchors("x", 2));
    assert!(matches!(error, ConfigUpdateError::Version { written: 2, expected: 1, .. }), "{error}");
    let stale = org1(ConfigGroup { version: 3, ..none() });
    let error = propose(stale, anchors("x", 1));
    assert!(matches!(error, ConfigUpdateError::ReadSet { read: 3, version: Some(0), .. }), "{error}");
    let missing = nest(&["Application", "Org9MSP"], none());
    let error = propose(missing, anchors("x", 1));
    assert!(matches!(error, ConfigUpdateError::ReadSet { version: None, .. }), "{error}");
    assert_eq!(propose(anchors("x", 0), anchors("x", 0)), ConfigUpdateError::Empty);
    let value = ConfigValue { version: 1, value: Vec::new(), mod_policy: String::new() };
    let error = propose(org1(none()), with_value(&["Application", "Org1MSP"], "AnchorPeers", value));
    assert!(matches!(error, ConfigUpdateError::ModPolicy { .. }), "{error}");
    let deep = nest(&["a", "b", "c", "d", "e"], none());
    assert!(matches!(propose(none(), deep), ConfigUpdateError::TooDeep(_)));
    assert!(matches!(propose(none(), nest(&["a b"], none())), ConfigUpdateError::Name(_)));
}

#[test]
fn a_result_that_cannot_be_used_is_not_proposed() {
    let network = Network::new();
    let batch_size = BatchSize { max_message_count: 0, absolute_max_bytes: 1, preferred_max_bytes: 1 };
    let value = ConfigValue { version: 1, value: batch_size.encode_to_vec(), mod_policy: "Admins".into() };
    let update = update(
        &network,
        nest(&["Orderer"], ConfigGroup::default()),
        with_value(&["Orderer"], "BatchSize", value),
        &[&admin(&network.orderer_org)],
    );
    let refused = network.config().propose_update(&update);
    assert!(matches!(refused, Err(ConfigUpdateError::Unusable(_))), "{refused:?}");
}

/// Orderers alone cannot change a channel: the block is authentic, its config is not accepted.
#[test]
fn an_orderer_cannot_make_up_a_config() {
    let network = Network::new();
    let config = network.config();
    let admin1 = admin(&network.org1);
    let read_set = org1(ConfigGroup::default());
    let honest = config.propose_update(&update(&network, read_set, anchors("moved", 1), &[&admin1])).unwrap();

    let mut without_update = honest.clone();
    without_update.last_update = None;
    assert!(matches!(
        refused(config.next(&config_block(&network, &without_update))),
        ConfigUpdateError::Decode(_)
    ));

    let mut more = honest.clone();
    let root = more.config.as_mut().unwrap().channel_group.as_mut().unwrap();
    root.groups.get_mut("Application").unwrap().groups.remove("Org2MSP");
    assert_eq!(refused(config.next(&config_block(&network, &more))), ConfigUpdateError::OtherResult);

    let mut skipped = honest.clone();
    skipped.config.as_mut().unwrap().sequence = 2;
    let expected = ConfigUpdateError::Sequence { expected: 1, actual: 2 };
    assert_eq!(refused(config.next(&config_block(&network, &skipped))), expected);

    let mut other_type = honest.clone();
    other_type.last_update = Some(envelope(&network, &admin1, HeaderType::Message, Vec::new()));
    let error = refused(config.next(&config_block(&network, &other_type)));
    assert_eq!(error, ConfigUpdateError::NotAnUpdate(0));

    let elsewhere = ConfigUpdate { channel_id: "audit".into(), ..ConfigUpdate::default() };
    let mut other_channel = honest;
    other_channel.last_update = Some(wrap(&network, elsewhere.encode_to_vec(), &[&admin1]));
    let error = refused(config.next(&config_block(&network, &other_channel)));
    assert_eq!(error, ConfigUpdateError::OtherChannel("audit".into()));
}

/// Blocks of the own ledger are not verified again, so the channel is looked at here too.
#[test]
fn a_config_block_of_another_channel_is_refused() {
    let (network, other) = (Network::new(), Network::of_channel("audit"));
    let admin1 = admin(&network.org1);
    let read_set = org1(ConfigGroup::default());
    let config = network.config();
    let honest = config.propose_update(&update(&network, read_set, anchors("moved", 1), &[&admin1])).unwrap();
    let transaction = envelope(&other, &network.orderer, HeaderType::Config, honest.encode_to_vec());
    let transactions = vec![Bytes::from(transaction.encode_to_vec())];
    let block = network.signed_by(&network.orderer, 1, network.genesis.header_hash(), transactions, 1);
    let stored = AuthenticBlock::stored(block.encode()).unwrap();
    assert_eq!(refused(config.next(&stored)), ConfigUpdateError::OtherChannel("audit".into()));
}

#[test]
fn replayed_config_blocks_are_refused() {
    vectors::walk("ecdsa", |verifier, _, authentic| {
        if authentic.is_config() {
            let next = verifier.config().next(authentic).unwrap();
            assert!(matches!(refused(next.next(authentic)), ConfigUpdateError::NotLater(_)));
        }
    });
}

/// The update inside an envelope of type CONFIG_UPDATE.
fn update_inside(envelope: &Envelope) -> ConfigUpdate {
    let view = transaction_payload(&envelope.encode_to_vec().into()).unwrap();
    let envelope = ConfigUpdateEnvelope::decode(view.payload).unwrap();
    ConfigUpdate::decode(envelope.config_update.as_slice()).unwrap()
}

fn tree(config: &ChannelConfig) -> &ConfigGroup {
    config.config().channel_group.as_ref().unwrap()
}

/// Computed from the configs before and after, the update is that of Fabric's tools, so its signatures are good for it.
#[test]
fn computed_updates_equal_those_of_fabric() {
    let mut compared = 0;
    for chain in vectors::CHAINS {
        vectors::walk(chain, |verifier, block, authentic| {
            if !authentic.is_config() {
                return;
            }
            let current = verifier.config();
            let next = current.next(authentic).unwrap();
            let computed = compute_update(current.channel_id(), tree(current), tree(&next)).unwrap();
            let view = transaction_payload(&block.transactions()[0]).unwrap();
            let last_update = ConfigEnvelope::decode(view.payload).unwrap().last_update.unwrap();
            assert_eq!(computed, update_inside(&last_update), "{chain} block {}", block.number());
            compared += 1;
        });
    }
    assert!(compared >= 4, "{compared}");
}

#[test]
fn computed_updates_lead_to_what_was_wanted() {
    let network = Network::new();
    let config = network.config();
    let (admin1, admin2) = (admin(&network.org1), admin(&network.org2));
    let orderer_admin = admin(&network.orderer_org);
    let signers = [(&admin1, [1; 24]), (&admin2, [2; 24]), (&orderer_admin, [3; 24])];
    let org3 = crate::network::organization("Org3MSP", "org3.example.com");
    let new_org = application_org_group(&ApplicationOrg {
        name: "Org3MSP".into(),
        msp: org3.msp_config(),
        anchor_peers: Vec::new(),
    });
    type Edit<'a> = (&'a str, &'a dyn Fn(&mut ConfigGroup));
    let edits: [Edit<'_>; 6] = [
        ("organisation added", &|root| {
            application(root).groups.insert("Org3MSP".into(), new_org.clone());
        }),
        ("organisation removed", &|root| {
            application(root).groups.remove("Org2MSP");
        }),
        ("value changed", &|root| {
            let orderer = root.groups.get_mut("Orderer").unwrap();
            let batch = BatchSize { max_message_count: 7, absolute_max_bytes: 9, preferred_max_bytes: 9 };
            orderer.values.get_mut("BatchSize").unwrap().value = batch.encode_to_vec();
        }),
        ("value removed, another changed", &|root| {
            application(root).groups.get_mut("Org1MSP").unwrap().values.remove("AnchorPeers");
            application(root).values.get_mut("Capabilities").unwrap().mod_policy = "Writers".into();
        }),
        ("policy changed", &|root| {
            let readers = application(root).policies["Writers"].policy.clone();
            application(root).policies.get_mut("Readers").unwrap().policy = readers;
        }),
        ("mod_policy of a group", &|root| application(root).mod_policy = "Writers".into()),
    ];
    for (name, edit) in edits {
        let mut wanted = tree(&config).clone();
        edit(&mut wanted);
        let update = compute_update(&network.channel(), tree(&config), &wanted).unwrap();
        let data = sign_update(&update, &signers).encode_to_vec();
        let envelope = envelope(&network, &network.client, HeaderType::ConfigUpdate, data);
        let proposed = config.propose_update(&envelope).unwrap_or_else(|error| panic!("{name}: {error}"));
        let next = config.next(&config_block(&network, &proposed)).unwrap();
        assert_eq!(unversioned(tree(&next)), unversioned(&wanted), "{name}");
        assert_eq!(next.sequence(), 1);
        // Once more to the same: nothing is left to change.
        let again = compute_update(&network.channel(), tree(&next), &wanted);
        assert_eq!(again.unwrap_err(), ConfigUpdateError::Empty, "{name}");
        // It cannot be applied a second time.
        assert!(next.propose_update(&envelope).is_err(), "{name}");
    }
}

fn application(root: &mut ConfigGroup) -> &mut ConfigGroup {
    root.groups.get_mut("Application").unwrap()
}

fn unversioned(group: &ConfigGroup) -> ConfigGroup {
    let mut group = group.clone();
    group.version = 0;
    group.groups.values_mut().for_each(|child| *child = unversioned(child));
    group.values.values_mut().for_each(|value| value.version = 0);
    group.policies.values_mut().for_each(|policy| policy.version = 0);
    group
}

#[test]
fn nonsense_is_not_computed() {
    let network = Network::new();
    let config = network.config();
    let compute = |wanted: &ConfigGroup| compute_update(&network.channel(), tree(&config), wanted);
    assert_eq!(compute(tree(&config)).unwrap_err(), ConfigUpdateError::Empty);
    let deep = nest(&["a", "b", "c", "d", "e"], ConfigGroup::default());
    assert!(matches!(compute(&deep), Err(ConfigUpdateError::TooDeep(_))));
    let name = nest(&["a b"], ConfigGroup::default());
    assert!(matches!(compute(&name), Err(ConfigUpdateError::Name(_))));
}
