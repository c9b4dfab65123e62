//! `network.yaml`: what is read and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use grapevine_configs::network::{KeyAlgorithm, full_name};
use grapevine_configs::{ConfigFile, GossipConfig, NetworkConfig, Period};

const GOOD: &str = "\
network: { id: test, algorithm: ecdsa }
ordering: { orderers: [ { name: orderer, listenAddress: '127.0.0.1:7050' } ] }
gossip: { aliveTimeInterval: 500ms, state: { checkInterval: 200ms } }
organizations:
  - mspId: Org1MSP
    domain: org1.example.com
    peers:
      - { name: peer0, listenAddress: '127.0.0.1:7051', gossip: { state: { batchSize: 5 } } }
      - { name: peer1.org1.example.com, listenAddress: '127.0.0.1:0', bootstrap: [peer0] }
  - mspId: Org2MSP
    domain: org2.example.com
    peers:
      - { name: peer0, listenAddress: '127.0.0.1:0' }
channels:
  - name: trade
    organizations: [Org1MSP, Org2MSP]
    anchorPeers: { Org1MSP: [peer0, peer1.org1.example.com], Org2MSP: peer0 }
    peers: [peer0.org1.example.com, peer0.org2.example.com]
  - { name: audit, organizations: [Org1MSP] }
";

fn parse(text: &str) -> Result<NetworkConfig, String> {
    let result = NetworkConfig::parse(text, "n.yaml", None, std::iter::empty());
    result.map(|(config, _)| config).map_err(|error| error.to_string())
}

#[test]
fn a_network_is_read() {
    let network = parse(GOOD).unwrap();
    assert_eq!(network.network.algorithm, KeyAlgorithm::Ecdsa);
    assert_eq!(network.ordering.organization, "OrdererMSP");
    assert_eq!(network.ordering.orderer_name(&network.ordering.orderers[0]), "orderer.example.com");
    let organization = network.organization("Org1MSP").unwrap();
    let names: Vec<_> = organization.peers.iter().map(|peer| organization.peer_name(peer)).collect();
    assert_eq!(names, ["peer0.org1.example.com", "peer1.org1.example.com"]);
    assert_eq!(organization.peer("peer1").unwrap(), organization.peer("peer1.org1.example.com").unwrap());
    let (trade, audit) = (&network.channels[0], &network.channels[1]);
    assert_eq!(trade.anchors(organization).into_iter().collect::<Vec<_>>(), names);
    assert!(
        trade.joins("Org1MSP", "peer0.org1.example.com") && !trade.joins("Org1MSP", "peer1.org1.example.com")
    );
    assert!(
        audit.joins("Org1MSP", "peer1.org1.example.com") && !audit.joins("Org2MSP", "peer0.org2.example.com")
    );
}

#[test]
fn overrides_go_over_the_defaults_key_by_key() {
    let network = parse(GOOD).unwrap();
    let peer = &network.organizations[0].peers[0];
    let gossip = peer.gossip.apply(network.gossip.apply(GossipConfig::default()).unwrap()).unwrap();
    assert_eq!(gossip.alive_time_interval, Period::milliseconds(500));
    assert_eq!(gossip.state.check_interval, Period::milliseconds(200));
    assert_eq!(gossip.state.batch_size, 5);
    assert_eq!(gossip.pull_interval, GossipConfig::default().pull_interval);
}

#[test]
fn overrides_can_be_set_in_a_program_and_are_judged() {
    let mut network = parse(GOOD).unwrap();
    network.gossip.0.insert("pullInterval".into(), "100ms".into());
    network.validate().unwrap();
    assert_eq!(parse(&network.to_yaml().unwrap()).unwrap(), network);
    network.gossip.0.insert("pulInterval".into(), "100ms".into());
    let said = network.validate().unwrap_err().to_string();
    assert!(
        said.contains(
            "organizations[0].peers[0].gossip: pulInterval: is not a known key; did you mean pullInterval?"
        ),
        "{said}"
    );
}

#[test]
fn what_is_written_reads_back() {
    let network = parse(GOOD).unwrap();
    assert_eq!(parse(&network.to_yaml().unwrap()).unwrap(), network);
}

#[test]
fn full_names() {
    for (short, full) in [
        ("peer0", "peer0.org1.example.com"),
        ("peer0.org1.example.com", "peer0.org1.example.com"),
        ("xorg1.example.com", "xorg1.example.com.org1.example.com"),
    ] {
        assert_eq!(full_name(short, "org1.example.com"), full);
    }
}

#[test]
fn two_stand_in_orderers_give_a_warning() {
    let text = GOOD.replace("orderers: [", "orderers: [ { name: other, listenAddress: '127.0.0.1:7060' }, ");
    let (_, warnings) = NetworkConfig::parse(&text, "n.yaml", None, std::iter::empty()).unwrap();
    assert!(warnings[0].to_string().contains("orderer-mock does not replicate"));
}

/// Replacement in the good file → the one line that is said.
#[test]
fn bad_networks() {
    for (from, to, expected) in [
        (
            "algorithm: ecdsa",
            "algorithm: rsa",
            "n.yaml:1: network.algorithm: \"rsa\" is not an algorithm; write ed25519 or ecdsa",
        ),
        (
            "algorithm: ecdsa",
            "algorithmus: ecdsa",
            "n.yaml:1: network.algorithmus: is not a known key; did you mean algorithm?",
        ),
        (
            "  - { name: audit",
            "  - { name: Audit",
            "n.yaml:19: channels[1].name: \"Audit\" cannot name a channel; begin with a small letter, go on with small letters, digits, '.' and '-', 249 letters at most",
        ),
        (
            "name: audit",
            "name: trade",
            "n.yaml:19: channels[1].name: trade is taken by another channel; choose another",
        ),
        (
            "organizations: [Org1MSP] }",
            "organizations: [Org3MSP] }",
            "n.yaml:19: channels[1].organizations[0]: there is no organisation \"Org3MSP\"; did you mean Org1MSP?",
        ),
        (
            "organizations: [Org1MSP] }",
            "organizations: [Org1MSP, Org1MSP] }",
            "n.yaml:19: channels[1].organizations[1]: Org1MSP is listed twice; remove one",
        ),
        (
            "organizations: [Org1MSP] }",
            "organizations: [] }",
            "n.yaml:19: channels[1].organizations: is empty; list the MSP ids of the members",
        ),
        (
            "Org2MSP: peer0 }",
            "Org2MSP: peer1 }",
            "n.yaml:17: channels[0].anchorPeers.Org2MSP: Org2MSP has no peer \"peer1\"; did you mean peer0?",
        ),
        (
            "Org2MSP: peer0 }",
            "OrdererMSP: peer0 }",
            "n.yaml:17: channels[0].anchorPeers.OrdererMSP: \"OrdererMSP\" is no member of this channel; add it to the channel's organizations",
        ),
        (
            "peers: [peer0.org1.example.com, ",
            "peers: [peer7.org1.example.com, ",
            "n.yaml:18: channels[0].peers: no member organisation has a peer \"peer7.org1.example.com\"; did you mean peer0.org1.example.com?",
        ),
        (
            "bootstrap: [peer0]",
            "bootstrap: [zebra]",
            "n.yaml:9: organizations[0].peers[1].bootstrap: Org1MSP has no peer \"zebra\"; add it to the organisation's peers",
        ),
        (
            "mspId: Org2MSP",
            "mspId: Org 2",
            "n.yaml:10: organizations[1].mspId: \"Org 2\" cannot be an MSP id; use letters, digits, '.', '-' and '_'",
        ),
        (
            "org2.example.com\n",
            "../evil\n",
            "n.yaml:11: organizations[1].domain: \"../evil\" is not a domain; write one such as org1.example.com",
        ),
        (
            "org2.example.com\n",
            "org1.example.com\n",
            "n.yaml:11: organizations[1].domain: org1.example.com is taken by another organisation; choose another",
        ),
        (
            "name: peer1.org1.example.com",
            "name: PEER0",
            "n.yaml:9: organizations[0].peers[1].name: PEER0.org1.example.com is taken; choose another name",
        ),
        (
            "name: peer1.org1.example.com",
            "name: a/b",
            "n.yaml:9: organizations[0].peers[1].name: \"a/b\" cannot name a process; use letters, digits, '-' and '.'",
        ),
        (
            "127.0.0.1:7051",
            "127.0.0.1:7050",
            "n.yaml:8: organizations[0].peers[0].listenAddress: 127.0.0.1:7050 is where orderer.example.com listens; choose another port",
        ),
        (
            "127.0.0.1:7051",
            "0.0.0.0:7051",
            "n.yaml:8: organizations[0].peers[0].listenAddress: others cannot reach 0.0.0.0:7051; add gossip.endpoint with the name or address of its machine and the port",
        ),
        (
            "127.0.0.1:7050",
            "0.0.0.0:7050",
            "n.yaml:2: ordering.orderers[0].listenAddress: others cannot reach 0.0.0.0:7050; add externalEndpoint with the name or address of its machine and the port",
        ),
        (
            "batchSize: 5",
            "batchSize: 0",
            "n.yaml:8: organizations[0].peers[0].gossip.state.batchSize: 0 is out of range; write 1 to 10000",
        ),
        (
            "batchSize: 5",
            "batchSice: 5",
            "n.yaml:8: organizations[0].peers[0].gossip.state.batchSice: is not a known key; did you mean batchSize?",
        ),
        (
            "orderers: [ { name: orderer, listenAddress: '127.0.0.1:7050' } ]",
            "orderers: []",
            "n.yaml:2: ordering.orderers: is empty; list one orderer with name and listenAddress",
        ),
        (
            "ordering: {",
            "ordering: { batch: { maxMessageCount: 0 },",
            "n.yaml:2: ordering.batch.maxMessageCount: must be at least 1",
        ),
        (
            "ordering: {",
            "ordering: { batch: { absoluteMaxBytes: 1 GB },",
            "n.yaml:2: ordering.batch.absoluteMaxBytes: 1 GiB is out of range; write 1 B to 99 MiB",
        ),
        (
            "ordering: {",
            "ordering: { batch: { preferredMaxBytes: 11 MB },",
            "n.yaml:2: ordering.batch.preferredMaxBytes: 11 MiB is out of range; write 1 B to absoluteMaxBytes (10 MiB)",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let said = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
        let first = said.lines().next().unwrap();
        // Renaming what others refer to has further consequences; the cause must be among what is said.
        assert!(
            said.lines().any(|line| line == expected),
            "{to}: {said}\nexpected: {expected}\nfirst: {first}"
        );
    }
}

#[test]
fn an_empty_network_says_what_is_missing() {
    let said = parse("network: {}\n").unwrap_err();
    assert!(
        said.contains("ordering.orderers: is empty") && said.contains("organizations: is empty"),
        "{said}"
    );
}
