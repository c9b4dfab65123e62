//! `peer.yaml`: what is read, what overrides what, and what is said about bad input.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use grapevine_configs::{
    ConfigError, ConfigFile, DisseminationMode, GossipConfig, PeerConfig, Period, Warning,
};

const GOOD: &str = "\
peer:
  id: peer0
  listenAddress: 127.0.0.1:7051
  localMspId: Org1MSP
  mspConfigPath: msp
  fileSystemPath: data
";

/// Line of the first thing that is appended to `GOOD`.
const NEXT: usize = 7;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<(PeerConfig, Vec<Warning>), ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    PeerConfig::parse(text, "peer.yaml", Some(Path::new("/etc/peer")), variables)
}

fn good(more: &str, variables: &[(&str, &str)]) -> PeerConfig {
    let (config, warnings) = parse(&format!("{GOOD}{more}"), variables).unwrap();
    assert_eq!(warnings, []);
    config
}

fn lines(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = parse(text, variables).expect_err(text);
    error.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_least_file_gets_our_defaults() {
    let config = good("", &[]);
    assert_eq!(config.network.id, "grapevine");
    assert_eq!(config.peer.gossip, GossipConfig::default());
    assert_eq!(config.peer.msp_config_path, PathBuf::from("/etc/peer/msp"));
    assert_eq!(config.internal_endpoint().to_string(), "127.0.0.1:7051");
    assert_eq!(config.external_endpoint(), None);
    assert_eq!(config.channels, Vec::<PathBuf>::new());
}

#[test]
fn relative_paths_start_at_the_file_and_absolute_ones_stay() {
    let more =
        "  tls: { enabled: true, cert: { file: tls/a.crt }, key: { file: /b.key } }\nchannels: [c.block]\n";
    let config = good(more, &[]);
    assert_eq!(config.peer.tls.cert.file, Some("/etc/peer/tls/a.crt".into()));
    assert_eq!(config.peer.tls.key.file, Some("/b.key".into()));
    assert_eq!(config.channels, [PathBuf::from("/etc/peer/c.block")]);
    let config = good("", &[("CORE_PEER_MSPCONFIGPATH", "other")]);
    assert_eq!(config.peer.msp_config_path, PathBuf::from("/etc/peer/other"));
}

#[test]
fn variables_override_the_file() {
    let file = "  gossip: { useLeaderElection: true, pullInterval: 4s, bootstrap: [x:1] }\n";
    let config = good(
        file,
        &[
            ("CORE_PEER_GOSSIP_USELEADERELECTION", "false"),
            ("CORE_PEER_GOSSIP_ORGLEADER", "TRUE"),
            ("CORE_PEER_GOSSIP_PULLINTERVAL", "250ms"),
            ("CORE_PEER_GOSSIP_BOOTSTRAP", "a:1  b:2"),
            ("CORE_PEER_GOSSIP_STATE_BATCHSIZE", "20"),
            ("CORE_PEER_ID", "renamed"),
            ("CORE_NETWORK_ID", "other"),
            ("CORE_CHANNELS", "one.block two.block"),
            (
                "CORE_PEER_DELIVERYCLIENT_ADDRESSOVERRIDES",
                "[{from: a:1, to: b:2, caCertsFile: ca.pem}, {from: c:3, to: d:4}]",
            ),
            ("PATH", "/bin"),
            ("CORELLI", "x"),
        ],
    );
    let gossip = &config.peer.gossip;
    assert!(!gossip.use_leader_election && gossip.org_leader);
    assert_eq!(gossip.pull_interval, Period::milliseconds(250));
    assert_eq!(gossip.bootstrap.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
    assert_eq!(gossip.state.batch_size, 20);
    assert_eq!((config.peer.id.as_str(), config.network.id.as_str()), ("renamed", "other"));
    assert_eq!(config.channels, [PathBuf::from("/etc/peer/one.block"), "/etc/peer/two.block".into()]);
    let overrides = &config.peer.deliveryclient.address_overrides;
    assert_eq!(overrides.len(), 2);
    assert_eq!(overrides[0].ca_certs_file, Some("/etc/peer/ca.pem".into()));
    assert_eq!(overrides[1].to.to_string(), "d:4");
}

#[test]
fn an_empty_variable_counts_as_set() {
    let config = good(
        "  gossip: { bootstrap: [x:1], externalEndpoint: y:1 }\n",
        &[("CORE_PEER_GOSSIP_BOOTSTRAP", ""), ("CORE_PEER_GOSSIP_EXTERNALENDPOINT", "")],
    );
    assert_eq!(config.peer.gossip.bootstrap, []);
    assert_eq!(config.external_endpoint(), None);
    let said = lines(GOOD, &[("CORE_PEER_GOSSIP_PULLPEERNUM", "")]);
    assert!(said[0].starts_with("environment variable CORE_PEER_GOSSIP_PULLPEERNUM: "), "{said:?}");
}

#[test]
fn letters_of_keys_may_be_in_either_case() {
    assert!(!good("  GOSSIP: { useleaderelection: false }\n", &[]).peer.gossip.use_leader_election);
}

#[test]
fn the_address_told_to_others_is_the_most_special_one() {
    let told = |more: &str| good(more, &[]).internal_endpoint().to_string();
    assert_eq!(told("  address: a:1\n"), "a:1");
    assert_eq!(told("  address: a:1\n  gossip: { endpoint: b:2 }\n"), "b:2");
}

#[test]
fn fabric_keys_without_meaning_give_one_warning() {
    let more = "  networkId: dev
  BCCSP: { Default: SW, SW: { Hash: SHA2 } }
  gossip:
    propagateIterations: 1
    digestWaitTime: 1s
    pvtData: { implicitCollectionDisseminationPolicy: { requiredPeerCount: 0 } }
chaincode:
  builder: x
vm: {}
";
    let variables =
        [("CORE_VM_ENDPOINT", "unix:///x"), ("CORE_PEER_GOSSIP_DIALTIMEOUT", "3s"), ("CORE_OTHER", "1")];
    let (_, warnings) = parse(&format!("{GOOD}{more}"), &variables).unwrap();
    let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "peer.yaml: these Fabric settings have no meaning here and are ignored: peer.networkId (line 7), \
         peer.BCCSP (line 8), peer.gossip.propagateIterations (line 10), peer.gossip.digestWaitTime (line 11), \
         peer.gossip.pvtData (line 12), chaincode (line 13), vm (line 15), CORE_PEER_GOSSIP_DIALTIMEOUT, CORE_VM_ENDPOINT",
            "these environment variables are no settings of Grapevine and are ignored: CORE_OTHER",
        ]
    );
}

/// What is appended to a good file, and the one line that is said about it, without `peer.yaml:LINE: `.
#[test]
fn bad_values() {
    let duration = "is not a duration; write a number with a unit, such as 500ms, 2s or 1m30s";
    let table: &[(&str, usize, String)] = &[
        ("  gossip:\n    pulInterval: 1s\n", 1, "peer.gossip.pulInterval: is not a known key; did you mean pullInterval?".into()),
        ("  gossip:\n    election:\n      pullInterval: 1s\n", 2, "peer.gossip.election.pullInterval: is not a known key; did you mean peer.gossip.pullInterval?".into()),
        ("  gosip: {}\n", 0, "peer.gosip: is not a known key; did you mean gossip?".into()),
        ("chanels: []\n", 0, "chanels: is not a known key; did you mean channels?".into()),
        ("whatever: 1\n", 0, "whatever: is not a known key; remove it, or use one of: channels, ledger, network, peer".into()),
        ("  gossip:\n    digestWaitTimee: 1s\n", 1, "peer.gossip.digestWaitTimee: is not a known key; the nearest name is Fabric's peer.gossip.digestWaitTime; remove it or correct the spelling".into()),
        ("  gossip: []\n", 0, "peer.gossip: must be a section of keys and values, but is a list".into()),
        ("  gossip:\n    pullInterval: 10 parsecs\n", 1, format!("peer.gossip.pullInterval: \"10 parsecs\" {duration}")),
        ("  gossip:\n    pullInterval: 5\n", 1, format!("peer.gossip.pullInterval: 5 {duration}").replace("is not a duration;", "is not a duration;")),
        ("  gossip:\n    pullInterval: 1ms\n", 1, "peer.gossip.pullInterval: 1ms is too short; the shortest is 10ms".into()),
        ("  gossip:\n    pullPeerNum: -1\n", 1, format!("peer.gossip.pullPeerNum: -1 is not a whole number from 0 to {}", usize::MAX)),
        ("  gossip:\n    pullPeerNum: 2.5\n", 1, format!("peer.gossip.pullPeerNum: 2.5 is not a whole number from 0 to {}", usize::MAX)),
        ("  gossip:\n    pullPeerNum: 0\n", 1, "peer.gossip.pullPeerNum: 0 is out of range; write 1 to 10000".into()),
        ("  gossip:\n    maxBlockCountToStore: 1000000000\n", 1, "peer.gossip.maxBlockCountToStore: 1000000000 is out of range; write 1 to 10000".into()),
        ("  gossip:\n    orgLeader: maybe\n", 1, "peer.gossip.orgLeader: \"maybe\" is not a switch; write true or false".into()),
        ("  gossip:\n    orgLeader: true\n", 1, "peer.gossip.orgLeader: useLeaderElection and orgLeader are both true; set one of them to false".into()),
        ("  gossip:\n    aliveExpirationTimeout: 1s\n", 1, "peer.gossip.aliveExpirationTimeout: 1s is less than two heartbeats (aliveTimeInterval is 1s), so that every peer would look dead; five are usual".into()),
        ("  gossip:\n    state:\n      blockBufferSize: 5\n", 2, "peer.gossip.state.blockBufferSize: 5 is less than state.batchSize (64), so that an answer would not fit; make it larger".into()),
        ("  gossip:\n    bootstrap: [a:1, b]\n", 1, "peer.gossip.bootstrap[1]: \"b\" is not an endpoint; write host:port, such as peer0.org1.example.com:7051".into()),
        ("  gossip:\n    externalEndpoint: 0.0.0.0:1\n", 1, "peer.gossip.externalEndpoint: nobody can reach 0.0.0.0:1; write the name or address of this machine".into()),
        ("  address: 0.0.0.0:7051\n", 0, "peer.address: other peers cannot reach 0.0.0.0:7051; add peer.gossip.endpoint with the name or address of this machine and the port".into()),
        ("  tls: { enabled: true, key: { file: k } }\n", 0, "peer.tls.enabled: peer.tls.enabled is true, which needs peer.tls.cert.file; name the PEM file".into()),
        ("  deliveryclient: { connTimeout: 0 }\n", 0, "peer.deliveryclient.connTimeout: must be longer than 0s; 3s is usual".into()),
        ("  deliveryclient: { addressOverrides: [ { from: a:1 } ] }\n", 0, "peer.deliveryclient.addressOverrides[0].to: is missing; write the host:port to dial instead".into()),
        ("  deliveryclient: { addressOverrides: [ { from: a:1, to: b:1, caCertFile: x } ] }\n", 0, "peer.deliveryclient.addressOverrides[0].caCertFile: is not a known key; did you mean caCertsFile?".into()),
        ("  deliveryclient: { addressOverrides: a:1 }\n", 0, "peer.deliveryclient.addressOverrides: \"a:1\" is not a YAML list".into()),
        ("network: { id: 7 }\n", 0, "network.id: 7 is not text; put it in quotes".into()),
        ("network: { id: a b }\n", 0, "network.id: \"a b\" cannot name a network; write 1 to 64 printable letters without blanks".into()),
        ("  ID: twice\n", 0, "peer.ID: stands here twice, in other letters; keep one".into()),
    ];
    for (more, line, expected) in table {
        let said = lines(&format!("{GOOD}{more}"), &[]);
        assert_eq!(said, [format!("peer.yaml:{}: {expected}", NEXT + line)], "{more}");
    }
}

#[test]
fn bad_variables() {
    for (name, value, expected) in [
        (
            "CORE_PEER_GOSSIP_PULINTERVAL",
            "1s",
            "does not name a known key; did you mean CORE_PEER_GOSSIP_PULLINTERVAL? Otherwise unset it",
        ),
        ("CORE_PEER_GOSSIP_XXXXXXXXXXXXXXXXXXX", "1s", "does not name a known key; unset it"),
        (
            "CORE_PEER_MSPPATH",
            "x",
            "does not name a known key; did you mean CORE_PEER_MSPCONFIGPATH? Otherwise unset it",
        ),
        (
            "CORE_PEER_GOSSIP_ORGLEADER",
            "true",
            "peer.gossip.orgLeader: useLeaderElection and orgLeader are both true; set one of them to false",
        ),
        (
            "CORE_PEER_LISTENADDRESS",
            "peer0:7051",
            "peer.listenAddress: \"peer0:7051\" is not an address to listen on; write IP:port, such as 127.0.0.1:7051 or 0.0.0.0:7051",
        ),
        (
            "CORE_PEER_DELIVERYCLIENT_ADDRESSOVERRIDES",
            "{from: a:1}",
            "peer.deliveryclient.addressOverrides: \"{from: a:1}\" is not a YAML list",
        ),
        ("CORE_PEER_GOSSIP_BOOTSTRAP", "[a:1", "peer.gossip.bootstrap: \"[a:1\" is not a YAML list"),
        (
            "CORE_PEER_GOSSIP_BOOTSTRAP",
            "a:1 b",
            "peer.gossip.bootstrap[1]: \"b\" is not an endpoint; write host:port, such as peer0.org1.example.com:7051",
        ),
    ] {
        let said = lines(GOOD, &[(name, value)]);
        assert_eq!(said, [format!("environment variable {name}: {expected}")]);
    }
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_file() {
    let text = "peer:\n  id: peer0\n  listenAddress: nowhere\n  gossip:\n    pullInterval: x\n    pulPeerNum: 3\n  localMspId: [a]\n";
    let said = lines(text, &[("CORE_PEER_GOSSIP_ORGLEADER", "perhaps")]);
    let starts = [
        "peer.yaml:2: peer.mspConfigPath: is missing; ",
        "peer.yaml:2: peer.fileSystemPath: is missing; ",
        "peer.yaml:3: peer.listenAddress: ",
        "peer.yaml:5: peer.gossip.pullInterval: ",
        "peer.yaml:6: peer.gossip.pulPeerNum: ",
        "peer.yaml:7: peer.localMspId: a list is not text",
        "environment variable CORE_PEER_GOSSIP_ORGLEADER: peer.gossip.orgLeader: ",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (line, start) in said.iter().zip(starts) {
        assert!(line.starts_with(start), "{line} / {start}");
    }
}

#[test]
fn broken_yaml_shows_the_place() {
    for (text, place) in [
        ("peer:\n  id: \"x\n", "peer.yaml:2:"),
        ("peer: {id: 1\n", "peer.yaml:"),
        ("peer:\n  id: a\n  id: b\n", "peer.yaml:3:3"),
        ("peer:\n\tid: a\n", "peer.yaml:"),
        ("a: *nowhere\n", "peer.yaml:1"),
    ] {
        let error = parse(text, &[]).expect_err(text);
        assert!(matches!(error, ConfigError::Syntax(_)), "{text}: {error:?}");
        let said = error.to_string();
        assert!(said.starts_with("peer.yaml is not valid YAML: ") && said.contains(place), "{said}");
        assert!(!said.contains("DuplicateKeyPolicy") && !said.contains("<input>"), "{said}");
    }
}

#[test]
fn files_that_hold_no_keys() {
    assert!(lines("", &[])[0].contains("the file is empty; see configs/samples"));
    assert!(lines("- a\n", &[])[0].contains("must hold keys and values, but holds a list"));
    assert!(lines("just words\n", &[])[0].contains("must hold keys and values, but holds text"));
}

#[test]
fn a_missing_file_is_named() {
    let error =
        PeerConfig::load(Path::new("/nowhere/peer.yaml"), std::iter::empty()).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read /nowhere/peer.yaml: ")
            && error.ends_with("check the path and its permissions"),
        "{error}"
    );
}

#[test]
fn load_resolves_against_the_directory_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peer.yaml");
    std::fs::write(&path, GOOD).unwrap();
    let (config, _) = PeerConfig::load(&path, std::iter::empty()).unwrap();
    assert_eq!(config.peer.file_system_path, directory.path().join("data"));
}

#[test]
fn what_is_written_reads_back() {
    let more = "  gossip: { bootstrap: [a:1], endpoint: b:2, externalEndpoint: c:3, pullInterval: 1500ms, propagatePeerNum: 0 }
  deliveryclient: { addressOverrides: [ { from: a:1, to: b:2, caCertsFile: ca.pem } ] }
  tls: { enabled: true, cert: { file: a }, key: { file: b }, clientAuthRequired: true, clientRootCAs: { files: [c] } }
network: { id: \"7\" }
channels: [x.block]
";
    let config = good(more, &[]);
    let text = config.to_yaml().unwrap();
    let (again, warnings) = PeerConfig::parse(&text, "again.yaml", None, std::iter::empty()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(again, config);
}

#[test]
fn a_configuration_built_in_a_program_is_judged_too() {
    let mut config = good("", &[]);
    config.validate().unwrap();
    config.peer.gossip.org_leader = true;
    let said = config.validate().unwrap_err().to_string();
    assert_eq!(
        said,
        "peer.gossip.orgLeader: useLeaderElection and orgLeader are both true; set one of them to false"
    );
}

#[test]
fn the_deliver_service_is_off_until_it_has_an_address() {
    let config = good("", &[]);
    assert_eq!(config.peer.deliver_service.listen_address, None);
    assert_eq!(config.peer.authentication.timewindow, Period::seconds(900));
    assert_eq!(config.peer.limits.concurrency.deliver_service, 2500);
    for empty in ["  deliverService: { listenAddress: \"\" }\n", "  deliverService: { listenAddress: }\n"] {
        assert_eq!(good(empty, &[]).peer.deliver_service.listen_address, None);
    }
    let more = "  deliverService: { listenAddress: 0.0.0.0:7151 }\n  authentication: { timewindow: 1m }\n  \
        limits: { concurrency: { deliverService: 7 } }\n";
    let config = good(more, &[("CORE_PEER_LIMITS_CONCURRENCY_DELIVERSERVICE", "9")]);
    assert_eq!(config.peer.deliver_service.listen_address, Some("0.0.0.0:7151".parse().unwrap()));
    assert_eq!(config.peer.authentication.timewindow, Period::seconds(60));
    assert_eq!(config.peer.limits.concurrency.deliver_service, 9);
}

#[test]
fn a_deliver_service_that_cannot_be_is_refused() {
    for (more, key) in [
        ("  deliverService: { listenAddress: 127.0.0.1:7051 }\n", "peer.deliverService.listenAddress"),
        ("  deliverService: { listenAddress: 0.0.0.0:7051 }\n", "peer.deliverService.listenAddress"),
        ("  deliverService: { listenAddress: nowhere }\n", "peer.deliverService.listenAddress"),
        ("  authentication: { timewindow: 0s }\n", "peer.authentication.timewindow"),
        ("  limits: { concurrency: { deliverService: 0 } }\n", "peer.limits.concurrency.deliverService"),
    ] {
        let lines = lines(&format!("{GOOD}{more}"), &[]);
        assert!(lines.iter().any(|line| line.contains(key)), "{lines:?}");
    }
    // Fabric's other limits have no meaning here.
    let (_, warnings) =
        parse(&format!("{GOOD}  limits: {{ concurrency: {{ endorserService: 5 }} }}\n"), &[]).unwrap();
    assert_eq!(warnings.len(), 1);
}

#[test]
fn the_way_blocks_travel_can_be_chosen_for_each_channel() {
    assert_eq!(good("", &[]).peer.gossip.dissemination, DisseminationMode::Grapevine);
    let more = "  gossip: { dissemination: direct, linkMbit: 100, channelDissemination: { trade: classic, audit: Grapevine } }\n";
    let config = good(more, &[]);
    let gossip = &config.peer.gossip;
    assert_eq!((gossip.dissemination, gossip.link_mbit), (DisseminationMode::Direct, 100));
    let modes: Vec<_> =
        gossip.channel_dissemination.iter().map(|(name, mode)| (name.as_str(), *mode)).collect();
    assert_eq!(modes, vec![("audit", DisseminationMode::Grapevine), ("trade", DisseminationMode::Classic)]);
    let text = config.to_yaml().unwrap();
    assert_eq!(PeerConfig::parse(&text, "again.yaml", None, std::iter::empty()).unwrap().0, config);
    let chosen = good("", &[("CORE_PEER_GOSSIP_DISSEMINATION", "classic")]);
    assert_eq!(chosen.peer.gossip.dissemination, DisseminationMode::Classic);
}
