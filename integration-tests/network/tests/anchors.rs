//! Anchor peers: joining a channel through one, and being told of those that are wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use grapevine_network::{Network, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(45);
/// In no channel at first.
const LATE: &str = "peer1.org1.example.com";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn genesis_hash(network: &Network) -> Result<String, Box<dyn std::error::Error>> {
    let shown = network.tool_success("peer0.org1", &["channel", "info", "-c", "trade", "--json"])?;
    let info: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
    Ok(info["genesis"].as_str().ok_or("no hash")?.to_owned())
}

/// Runs `channel join` through a peer; what it says, and whether it worked.
fn join(network: &Network, channel: &str, anchor: &str, hash: &str) -> Result<(bool, String), NetworkError> {
    let arguments = ["channel", "join", "--channel", channel, "--anchor", anchor, "--genesis-hash", hash];
    let output = network.tool(LATE, &arguments)?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn a_peer_joins_through_an_anchor_and_is_told_why_it_cannot() -> Outcome {
    let network = Network::builder()
        .change(|config| {
            for channel in &mut config.channels {
                let names = ["peer0.org1.example.com", "peer0.org2.example.com", "peer1.org2.example.com"];
                channel.peers = Some(
                    names
                        .iter()
                        .filter(|name| channel.name == "trade" || name.contains("org1"))
                        .map(|name| (*name).to_owned())
                        .collect(),
                );
            }
        })
        .start()?;
    network.submit("trade", Payload::lines(["one", "two", "three"]))?;
    let height = network.wait_for_sync("trade", SOON)?;
    let address = network.member("peer0.org1")?.listen_address().to_string();
    let anchor = address.as_str();
    let hash = genesis_hash(&network)?;

    for (channel, at, of, expected) in [
        // An address where nobody answers is no error here: a member that is connected already may know the genesis block.
        ("trade", anchor, "00".repeat(32), "does not show that it is in a channel of this genesis hash"),
        ("trade", anchor, "zz".to_owned(), "--genesis-hash"),
        ("trade", "no-port", hash.clone(), "--anchor"),
        ("other", anchor, hash.clone(), "is that of channel trade, not of other"),
    ] {
        let (joined, text) = join(&network, channel, at, &of)?;
        assert!(!joined && text.contains(expected), "{channel} {at} {of}: {text}");
        assert!(network.status(LATE)?.channel("trade").is_none(), "nothing is joined");
    }
    let (joined, text) = join(&network, "trade", anchor, &hash)?;
    assert!(joined && text.contains("joined trade"), "{text}");
    network.wait_for_height("trade", &[LATE], height, SOON)?;
    assert_eq!(network.chain(LATE, "trade")?, network.chain("peer0.org1", "trade")?);
    let (joined, text) = join(&network, "trade", anchor, &hash)?;
    assert!(!joined && text.contains("joined already"), "{text}");
    Ok(())
}

fn wait_for_warning(network: &Network, peer: &str, expected: &str) -> Result<(), NetworkError> {
    network.wait_until(&format!("{peer} to warn: {expected}"), Duration::from_secs(90), || {
        let warnings = network.status(peer)?.warnings;
        let is_there = warnings.iter().any(|warning| warning.contains(expected));
        Ok(if is_there { Ok(()) } else { Err(format!("{warnings:?}")) })
    })
}

/// One organisation lists none, then the address of another's peer, then the right one, by config blocks while peers run.
#[test]
fn wrong_anchors_are_named_until_they_are_put_right() -> Outcome {
    let network = Network::builder()
        .change(|config| {
            let listed = BTreeMap::from([("Org1MSP".to_owned(), vec!["peer0".to_owned()])]);
            config.channels[0].anchor_peers = listed;
        })
        .start()?;
    let told = "peer1.org1";
    wait_for_warning(&network, told, "Org2MSP lists no anchor peer")?;
    let foreign = network.member("peer0.org1")?.listen_address();
    network.update("trade", &["Org2MSP"], &["--anchor", &format!("Org2MSP={foreign}")])?;
    wait_for_warning(
        &network,
        told,
        &format!("a peer of Org1MSP answers at {foreign}, which Org2MSP lists"),
    )?;
    let right = network.member("peer0.org2")?.listen_address();
    network.update("trade", &["Org2MSP"], &["--anchor", &format!("Org2MSP={right}")])?;
    network.wait_until("the warnings to end", SOON, || {
        let warnings = network.status(told)?.warnings;
        Ok(if warnings.is_empty() { Ok(()) } else { Err(format!("{warnings:?}")) })
    })?;
    network.stop("peer0.org2")?;
    wait_for_warning(&network, told, "no anchor peer of Org2MSP answers")?;
    network.start("peer0.org2")?;
    network.wait_until("the warnings to end", SOON, || {
        let warnings = network.status(told)?.warnings;
        Ok(if warnings.is_empty() { Ok(()) } else { Err(format!("{warnings:?}")) })
    })?;
    Ok(())
}
