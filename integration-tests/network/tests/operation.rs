//! Starting with something wrong, and stopping.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use grapevine_configs::{ConfigFile, PeerConfig};
use grapevine_network::{Network, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(30);
const PEER: &str = "peer0.org1";

/// Starts a peer that cannot run; returns the last line it wrote, after checking that it ended with an error and without a panic.
fn complaint(network: &Network) -> Result<String, NetworkError> {
    let (status, text) = network.start_expecting_end(PEER, SOON)?;
    assert!(!status.success(), "it ended with {status}:\n{text}");
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("grapevine:")).collect();
    assert_eq!(errors.len(), 1, "one line says what is wrong:\n{text}");
    Ok(errors.concat())
}

fn change_peer(
    network: &Network,
    change: impl FnOnce(&mut PeerConfig),
) -> Result<(), Box<dyn std::error::Error>> {
    let path = &network.member(PEER)?.config;
    let (mut config, _) = PeerConfig::load(path, std::iter::empty())?;
    change(&mut config);
    std::fs::write(path, config.to_yaml()?)?;
    Ok(())
}

#[test]
fn a_broken_configuration_file_is_named_with_the_line() -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::builder().prepare()?;
    let path = &network.member(PEER)?.config;
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(b"peer: [this is: not\n  yaml\n")?;
    let (status, text) = network.start_expecting_end(PEER, SOON)?;
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("peer.yaml") && !text.contains("panicked"), "{text}");
    Ok(())
}

#[test]
fn an_unknown_gossip_key_is_refused_with_a_suggestion() -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::builder().environment("CORE_PEER_GOSSIP_PULLINTERVALL", "1s").prepare()?;
    let text = complaint(&network)?;
    assert!(text.contains("pullInterval") || text.contains("PULLINTERVAL"), "{text}");
    Ok(())
}

#[test]
fn a_missing_certificate_is_named() -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::builder().prepare()?;
    let (config, _) = PeerConfig::load(&network.member(PEER)?.config, std::iter::empty())?;
    std::fs::remove_dir_all(config.peer.msp_config_path.join("signcerts"))?;
    let text = complaint(&network)?;
    assert!(text.contains("signcerts"), "{text}");
    Ok(())
}

#[test]
fn a_wrong_msp_directory_is_named() -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::builder().prepare()?;
    change_peer(&network, |config| config.peer.msp_config_path = "/nonexistent/msp".into())?;
    let text = complaint(&network)?;
    assert!(text.contains("/nonexistent/msp"), "{text}");
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::builder().prepare()?;
    let address = network.member(PEER)?.listen_address();
    let _holder = TcpListener::bind(address)?;
    let text = complaint(&network)?;
    assert!(text.contains(&address.port().to_string()), "{text}");
    Ok(())
}

#[test]
fn a_peer_runs_without_an_orderer_says_so_and_uses_it_once_it_is_there()
-> Result<(), Box<dyn std::error::Error>> {
    let network = Network::builder().prepare()?;
    network.start(PEER)?;
    let address = network.member("orderer")?.listen_address().to_string();
    network.wait_until("the log to name the orderer", SOON, || {
        let log = std::fs::read_to_string(&network.member(PEER)?.log).unwrap_or_default();
        let named = log.lines().any(|line| line.contains("WARN") && line.contains(&address));
        Ok(if named { Ok(()) } else { Err("it does not".to_owned()) })
    })?;
    network.start("orderer")?;
    network.submit("trade", Payload::lines(["late but not lost"]))?;
    network.wait_for_sync("trade", SOON)?;
    assert_eq!(network.export(PEER, "trade")?, b"late but not lost\n");
    Ok(())
}

#[test]
fn sigterm_ends_every_process_in_time_also_while_blocks_flow() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    let many = Payload::lines((0..2_000).map(|number| format!("line {number}"))).rate(500.0);
    let _submission = network.submit_in_background("trade", many)?;
    network.wait_for_height("trade", &network.peers(), 3, SOON)?;
    network.stop("peer1.org1")?;
    // And with a connection to a peer that does not answer any more.
    network.freeze("peer0.org2")?;
    network.stop("peer0.org1")?;
    network.thaw("peer0.org2")?;
    network.stop_all()
}
