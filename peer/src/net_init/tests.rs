//! A network is made, looked at with the eyes of those who will use it, moved, made again, and refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use grapevine_channels::block::Block;
use grapevine_channels::config::ChannelConfig;
use grapevine_configs::network::KeyAlgorithm;
use grapevine_configs::{ClientConfig, ConfigFile, NetworkConfig, OrdererConfig, PeerConfig, Period};
use grapevine_crypto::{Algorithm, LocalMsp, MspId, Role};

use super::{InitReport, NetInitError, ProcessKind, net_init};

const NOW: i64 = 1_900_000_000;

fn demo() -> NetworkConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/demo/network.yaml");
    NetworkConfig::load(&path, std::iter::empty()).unwrap().0
}

fn peer_config(dir: &Path, name: &str) -> PeerConfig {
    PeerConfig::load(&dir.join(name).join("peer.yaml"), std::iter::empty()).unwrap().0
}

fn orderer_config(dir: &Path, name: &str) -> OrdererConfig {
    OrdererConfig::load(&dir.join(name).join("orderer.yaml"), std::iter::empty()).unwrap().0
}

fn client_config(dir: &Path) -> ClientConfig {
    ClientConfig::load(&dir.join("client.yaml"), std::iter::empty()).unwrap().0
}

fn channel(file: &Path) -> ChannelConfig {
    let bytes = Bytes::from(fs::read(file).unwrap());
    ChannelConfig::from_block(&Block::decode(bytes, 10 << 20).unwrap()).unwrap()
}

fn made(network: &NetworkConfig) -> (tempfile::TempDir, InitReport) {
    let dir = tempfile::tempdir().unwrap();
    let report = net_init(network, dir.path(), NOW).unwrap();
    (dir, report)
}

fn peers(report: &InitReport) -> Vec<String> {
    let peers = report.processes.iter().filter(|process| process.kind == ProcessKind::Peer);
    peers.map(|process| process.name.clone()).collect()
}

/// Everything a process opens at its start is there and fits together.
fn usable(dir: &Path, report: &InitReport) {
    for process in &report.processes {
        let (msp, msp_id, role, blocks, tls) = match process.kind {
            ProcessKind::Peer => {
                let config = peer_config(dir, &process.name);
                assert_eq!(config.peer.id, process.name);
                assert_eq!(config.peer.listen_address, process.listen_address);
                let tls = config.peer.tls;
                let files = [tls.cert.file, tls.key.file, tls.rootcert.file].map(Option::unwrap);
                (
                    config.peer.msp_config_path,
                    config.peer.local_msp_id,
                    Role::Peer,
                    config.channels,
                    files.to_vec(),
                )
            }
            ProcessKind::Orderer => {
                let config = orderer_config(dir, &process.name);
                assert_eq!(config.listen_socket(), process.listen_address);
                let general = config.general;
                let mut files =
                    [general.tls.certificate, general.tls.private_key].map(Option::unwrap).to_vec();
                files.extend(general.tls.root_cas.into_iter().chain(general.tls.client_root_cas));
                (general.local_msp_dir, general.local_msp_id, Role::Orderer, config.channels, files)
            }
        };
        let local = LocalMsp::load(&msp, &MspId::from(msp_id.as_str())).unwrap();
        let identity = local.signer.identity();
        assert_eq!(identity.role(), Some(role));
        assert_eq!(identity.certificate().subject_common_name(), Some(process.name.as_str()));
        assert_eq!(identity.certificate().not_before(), NOW - 300);
        assert!(!identity.expired_at(NOW + 9 * 365 * 24 * 3600));
        for block in &blocks {
            assert_eq!(
                channel(block).identify(local.signer.serialized()).unwrap().pki_id(),
                identity.pki_id()
            );
        }
        for file in tls {
            assert!(file.is_file(), "{}", file.display());
        }
    }
    let client = client_config(dir).client;
    let local = LocalMsp::load(&client.msp_config_path, &MspId::from(client.local_msp_id.as_str())).unwrap();
    assert_eq!(local.signer.identity().role(), Some(Role::Client));
    assert!(client.tls.root_cas.iter().all(|file| file.is_file()));
}

#[test]
fn the_demo_network_is_usable() {
    let (dir, report) = made(&demo());
    assert!(!report.replaced);
    assert_eq!(report.processes.len(), 7);
    assert_eq!(report.processes[0].name, "orderer.example.com");
    usable(dir.path(), &report);

    let ports: BTreeSet<u16> = report.processes.iter().map(|process| process.listen_address.port()).collect();
    assert_eq!(ports.len(), 7);
    assert!(ports.iter().all(|port| (super::ports::FIRST..=super::ports::LAST).contains(port)));
    let orderer = report.processes[0].listen_address.to_string();
    assert_eq!(client_config(dir.path()).client.orderer.to_string(), orderer);

    let again = NetworkConfig::load(&dir.path().join("network.yaml"), std::iter::empty()).unwrap().0;
    assert_eq!(again, report.network);
}

#[test]
fn channels_hold_their_members_only() {
    let (dir, report) = made(&demo());
    let [(_, trade), (_, audit)] = &report.channels[..] else { panic!("{:?}", report.channels) };
    assert_eq!(trade, &dir.path().join("channels/trade.block"));
    let (trade, audit) = (channel(trade), channel(audit));
    let members = |channel: &ChannelConfig| {
        channel.application_orgs().keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(members(&trade), ["Org1MSP", "Org2MSP"]);
    assert_eq!(members(&audit), ["Org1MSP"]);
    assert_eq!((trade.batch_size().max_message_count, trade.batch_timeout_ms()), (100, 200));
    let orderer = report.processes[0].listen_address.to_string();
    let endpoints: Vec<_> =
        trade.orderer_endpoints().iter().map(|endpoint| endpoint.address.clone()).collect();
    assert_eq!(endpoints, [orderer]);

    for (org, anchor) in
        trade.application_orgs().values().zip(["peer0.org1.example.com", "peer0.org2.example.com"])
    {
        let config = peer_config(dir.path(), anchor);
        let told = config.external_endpoint().unwrap();
        let anchors: Vec<_> =
            org.anchor_peers.iter().map(|anchor| (anchor.host.as_str(), anchor.port)).collect();
        assert_eq!(anchors, [(told.host.as_str(), told.port)]);
    }
    let stranger = peer_config(dir.path(), "peer0.org2.example.com");
    let stranger = LocalMsp::load(&stranger.peer.msp_config_path, &MspId::from("Org2MSP")).unwrap();
    audit.identify(stranger.signer.serialized()).unwrap_err();
}

#[test]
fn peers_start_with_their_own_organisation_and_their_channels() {
    let (dir, report) = made(&demo());
    for name in peers(&report) {
        let config = peer_config(dir.path(), &name);
        let org1 = config.peer.local_msp_id == "Org1MSP";
        assert_eq!(config.channels.len(), if org1 { 2 } else { 1 });
        assert_eq!(config.network.id, "grapevine-demo");
        assert_eq!(config.external_endpoint().unwrap(), &config.internal_endpoint());
        let own: BTreeSet<String> = report
            .processes
            .iter()
            .filter(|process| process.msp_id == config.peer.local_msp_id && process.name != name)
            .map(|process| process.listen_address.to_string())
            .collect();
        let bootstrap: BTreeSet<String> =
            config.peer.gossip.bootstrap.iter().map(ToString::to_string).collect();
        assert_eq!(bootstrap, own);
    }
}

#[test]
fn what_the_description_says_reaches_the_files() {
    let mut network = demo();
    network.network.algorithm = KeyAlgorithm::Ecdsa;
    network.ordering.client_auth_required = true;
    network.gossip.0.insert("pullInterval".into(), "300ms".into());
    network.organizations[0].peers[1].gossip.0.insert("useLeaderElection".into(), false.into());
    network.organizations[0].peers[1].gossip.0.insert("endpoint".into(), "proxy.example.com:99".into());
    network.organizations[0].peers[2].bootstrap = Some(vec!["peer1".into()]);
    network.organizations[0].peers[2].external_endpoint = Some("far.example.com:98".parse().unwrap());
    network.channels[1].peers = Some(vec!["peer0.org1.example.com".into()]);
    let (dir, report) = made(&network);
    usable(dir.path(), &report);

    let [zero, one, two] =
        ["peer0", "peer1", "peer2"].map(|peer| peer_config(dir.path(), &format!("{peer}.org1.example.com")));
    assert_eq!(zero.peer.gossip.pull_interval, Period::milliseconds(300));
    assert!(zero.peer.gossip.use_leader_election && !one.peer.gossip.use_leader_election);
    assert_eq!(one.internal_endpoint().to_string(), "proxy.example.com:99");
    assert_eq!(two.peer.gossip.bootstrap, [one.internal_endpoint()]);
    assert_eq!(two.external_endpoint().unwrap().to_string(), "far.example.com:98");
    assert_eq!([&zero, &one, &two].map(|peer| peer.channels.len()), [2, 1, 1]);

    let local = LocalMsp::load(&zero.peer.msp_config_path, &MspId::from("Org1MSP")).unwrap();
    assert_eq!(local.signer.identity().certificate().public_key().algorithm(), Algorithm::EcdsaP256);
    let orderer = orderer_config(dir.path(), "orderer.example.com");
    assert!(orderer.general.tls.client_auth_required);
    assert_eq!(orderer.general.tls.client_root_cas.len(), 3);
    let tls = client_config(dir.path()).client.tls;
    assert!(tls.client_cert.file.unwrap().is_file() && tls.client_key.file.unwrap().is_file());
}

#[test]
fn the_directory_can_be_moved() {
    let parent = tempfile::tempdir().unwrap();
    let (first, second) = (parent.path().join("first"), parent.path().join("second"));
    let report = net_init(&demo(), &first, NOW).unwrap();
    fs::rename(&first, &second).unwrap();
    usable(&second, &report);
}

#[test]
fn private_keys_are_private() {
    let (dir, _report) = made(&demo());
    let mut keys = 0;
    for file in files(dir.path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with("_sk") || name.ends_with(".key") {
            assert_eq!(
                fs::metadata(&file).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                file.display()
            );
            keys += 1;
        }
    }
    // Three organisations with two CAs; seven processes, three Admins and two Users with two keys each.
    assert_eq!(keys, 3 * 2 + (7 + 3 + 2) * 2);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_network_made_earlier_is_replaced_and_other_files_stay() {
    let (dir, report) = made(&demo());
    let (root, name) = (dir.path(), &peers(&report)[0]);
    fs::create_dir(root.join(name).join("data")).unwrap();
    fs::write(root.join(name).join("data/ledger"), "old").unwrap();
    fs::write(root.join("notes.txt"), "mine").unwrap();
    let before = fs::read(root.join("channels/trade.block")).unwrap();

    let mut smaller = demo();
    smaller.organizations[1].peers.truncate(2);
    let report = net_init(&smaller, root, NOW).unwrap();
    assert!(report.replaced);
    usable(root, &report);
    assert!(!root.join(name).join("data").exists());
    assert!(!root.join("peer2.org2.example.com").exists());
    assert_eq!(fs::read_to_string(root.join("notes.txt")).unwrap(), "mine");
    assert_ne!(fs::read(root.join("channels/trade.block")).unwrap(), before);
}

#[test]
fn a_directory_of_others_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
    let error = net_init(&demo(), dir.path(), NOW).unwrap_err();
    assert!(matches!(error, NetInitError::NotEmpty(_)), "{error}");
    assert!(
        error.to_string().ends_with(
            "is not empty and was not made by net init; name another directory, or empty this one"
        )
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_of_others_under_one_of_our_names_is_refused() {
    let mut smaller = demo();
    smaller.organizations[1].peers.truncate(2);
    let (dir, _report) = made(&smaller);
    let file = dir.path().join("peer2.org2.example.com");
    fs::write(&file, "mine").unwrap();
    let error = net_init(&demo(), dir.path(), NOW).unwrap_err();
    assert!(error.to_string().contains("peer2.org2.example.com"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert!(dir.path().join("crypto").exists());
}

#[test]
fn a_running_network_is_refused() {
    let (dir, report) = made(&demo());
    let name = peers(&report)[2].clone();
    let data = dir.path().join(&name).join("data");
    fs::create_dir(&data).unwrap();
    let running = UnixListener::bind(data.join("admin.sock")).unwrap();
    let error = net_init(&demo(), dir.path(), NOW).unwrap_err();
    assert!(matches!(&error, NetInitError::Running { name: found, .. } if *found == name), "{error}");
    drop(running);
    // The socket file that is left over does not count.
    net_init(&demo(), dir.path(), NOW).unwrap();
}

#[test]
fn a_marker_that_leads_elsewhere_is_not_believed() {
    let parent = tempfile::tempdir().unwrap();
    let (root, victim) = (parent.path().join("net"), parent.path().join("victim"));
    fs::write(&victim, "precious").unwrap();
    net_init(&demo(), &root, NOW).unwrap();
    let marker = root.join(".grapevine-network");
    let good = fs::read_to_string(&marker).unwrap();
    for line in ["../victim", "/etc", "..", ".", "a/b", ""] {
        fs::write(&marker, format!("{good}{line}\n")).unwrap();
        let error = net_init(&demo(), &root, NOW).unwrap_err();
        assert!(matches!(error, NetInitError::Marker(_)), "{line}: {error}");
    }
    fs::write(&marker, "").unwrap();
    assert!(matches!(net_init(&demo(), &root, NOW).unwrap_err(), NetInitError::Marker(_)));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn bad_descriptions_make_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("net");
    let mut network = demo();
    network.channels[0].organizations.push("Org9MSP".into());
    let error = net_init(&network, &root, NOW).unwrap_err().to_string();
    assert!(error.contains("there is no organisation \"Org9MSP\""), "{error}");

    let mut network = demo();
    network.organizations[0].peers[0].listen_address = "192.0.2.1:0".parse().unwrap();
    let error = net_init(&network, &root, NOW).unwrap_err();
    assert!(matches!(error, NetInitError::ForeignAddress { .. }), "{error}");
    assert!(!root.exists());
}

#[test]
fn a_file_in_the_way_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "x").unwrap();
    for dir in [file.clone(), file.join("below")] {
        let error = net_init(&demo(), &dir, NOW).unwrap_err().to_string();
        assert!(error.starts_with("cannot ") && error.contains(&*file.to_string_lossy()), "{error}");
    }
}
