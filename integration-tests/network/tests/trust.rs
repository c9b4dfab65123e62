//! What a channel's config and its orderers may do: config changes take effect while peers run, removed organisations get what is
//! theirs and nothing later, and orderers that sign two histories are found out.

use std::time::Duration;

use grapevine_crypto::Certificate;
use grapevine_crypto::issue::{CertificateAuthority, Validity};
use grapevine_network::{Network, NetworkConfig, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(45);
const BOTH: [&str; 2] = ["Org1MSP", "Org2MSP"];

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn lines(from: u32, count: u32) -> Payload {
    Payload::lines((from..from + count).map(|number| format!("transaction number {number}")))
}

/// Another organisation with one peer, in no channel.
fn add_third_organization(config: &mut NetworkConfig) {
    let mut third = config.organizations[1].clone();
    third.msp_id = "Org3MSP".to_owned();
    third.domain = "org3.example.com".to_owned();
    third.peers.truncate(1);
    for peer in &mut third.peers {
        let port = peer.listen_address.port() + 1_000;
        peer.listen_address.set_port(port);
        peer.external_endpoint = Some(peer.listen_address.into());
    }
    config.organizations.push(third);
}

/// Waits until the orderer has cut a block beyond `height`; returns how many it has.
fn wait_for_orderer(network: &Network, height: u64) -> Result<u64, NetworkError> {
    network.wait_until("the orderer to cut another block", SOON, || {
        let found = network.orderer_height("trade")?;
        Ok(if found > height { Ok(found) } else { Err(format!("height {found}")) })
    })
}

fn wait_for_stop(network: &Network, peer: &str, height: u64) -> Result<(), NetworkError> {
    network.wait_until(&format!("{peer} to stop at height {height}"), SOON, || {
        let status = network.status(peer)?;
        let Some(channel) = status.channel("trade") else { return Ok(Err("it has no channel".to_owned())) };
        let has_stopped = channel.stopped.as_deref().is_some_and(|reason| reason.contains("removed Org2MSP"));
        Ok(if has_stopped && channel.height == height {
            Ok(())
        } else {
            Err(format!("height {}, stopped: {:?}", channel.height, channel.stopped))
        })
    })
}

#[test]
fn anchor_peers_and_orderer_addresses_change_while_peers_run() -> Outcome {
    let network = Network::builder().change(|config| config.channels[0].anchor_peers.clear()).start()?;
    network.submit("trade", lines(0, 5))?;
    network.wait_for_sync("trade", SOON)?;
    // Without anchor peers the organisations do not know each other: each has its own orderer stream.
    let knows = |peer: &str, other: &str| -> Result<bool, NetworkError> {
        Ok(network.status(peer)?.member(other).is_some_and(|member| member.state == "alive"))
    };
    assert!(!knows("peer1.org2", "peer1.org1.example.com")?);
    let anchor = network.member("peer0.org1")?.listen_address();
    network.update("trade", &["Org1MSP"], &["--anchor", &format!("Org1MSP={anchor}")])?;
    network.wait_until("the organisations to know each other", SOON, || {
        Ok(if knows("peer1.org2", "peer1.org1.example.com")? { Ok(()) } else { Err("not yet".to_owned()) })
    })?;

    let port = network.member("orderer")?.listen_address().port();
    let moved = format!("localhost:{port}");
    network.update("trade", &["OrdererMSP"], &["--orderer-endpoint", &format!("OrdererMSP={moved}")])?;
    network.wait_until("leaders to pull from the new address", SOON, || {
        for organization in BOTH {
            let leader = network.wait_for_leader("trade", organization, SOON)?;
            let orderer =
                network.status(&leader)?.channel("trade").and_then(|channel| channel.orderer.clone());
            if orderer.as_deref() != Some(moved.as_str()) {
                return Ok(Err(format!("{leader} pulls from {orderer:?}")));
            }
        }
        Ok(Ok(()))
    })?;
    network.submit("trade", lines(5, 5))?;
    network.wait_for_sync("trade", SOON)?;
    network.assert_ledgers_identical("trade")?;
    Ok(())
}

#[test]
fn an_organisation_is_added_and_its_peer_joins_with_the_first_block() -> Outcome {
    let network = Network::builder().change(add_third_organization).start()?;
    network.submit("trade", lines(0, 10))?;
    network.wait_for_sync("trade", SOON)?;
    let msp = network.organization_directory("Org3MSP")?.join("msp");
    let newcomer = "peer0.org3";
    // Before it is let in it gets nothing but the block it joined with.
    network.join(newcomer, "trade")?;
    network.update("trade", &BOTH, &["--add-org", &format!("Org3MSP={}", msp.display())])?;
    network.submit("trade", lines(10, 10))?;
    let height = network.wait_for_sync("trade", SOON)?;
    network.wait_for_height("trade", &[newcomer], height, SOON)?;
    assert_eq!(network.chain(newcomer, "trade")?, network.chain("peer0.org1", "trade")?);
    // Members take it for one: it counts in the channel.
    network.wait_until("peer0.org1 to count it", SOON, || {
        let members = network.status("peer0.org1")?.channel("trade").map_or(0, |channel| channel.members);
        Ok(if members == 5 { Ok(()) } else { Err(format!("{members} members")) })
    })?;
    Ok(())
}

#[test]
fn a_revoked_peer_is_cut_off_while_it_runs_and_stays_out() -> Outcome {
    let network = Network::builder().start()?;
    network.submit("trade", lines(0, 10))?;
    let before = network.wait_for_sync("trade", SOON)?;
    let organization = network.organization_directory("Org2MSP")?;
    let authority = CertificateAuthority::load(&organization.join("ca"))?;
    let revoked = "peer1.org2.example.com";
    let signcerts = organization.join("peers").join(revoked).join("msp/signcerts");
    let file = std::fs::read_dir(signcerts)?.next().ok_or("no certificate")??.path();
    let certificate = Certificate::from_pem(&std::fs::read(file)?)?;
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
    let validity = Validity { not_before: now - 60, not_after: now + 86_400 };
    let list = network.directory().join("org2.crl");
    std::fs::write(&list, authority.revoke(&[&certificate], validity)?)?;
    network.update("trade", &["Org2MSP"], &["--crl", &format!("Org2MSP={}", list.display())])?;

    let others = ["peer0.org1", "peer1.org1"];
    network.wait_until("the others to cut it off", SOON, || {
        for peer in others {
            if network.status(peer)?.member(revoked).is_some_and(|member| member.connected) {
                return Ok(Err(format!("{peer} is connected to it")));
            }
        }
        Ok(Ok(()))
    })?;
    network.submit("trade", lines(10, 10))?;
    network.wait_for_height("trade", &others, before + 2, SOON)?;
    network.stop("peer1.org2")?;
    network.start("peer1.org2")?;
    network.submit("trade", lines(20, 10))?;
    network.wait_for_height("trade", &others, before + 3, SOON)?;
    for peer in others {
        assert!(network.status(peer)?.member(revoked).is_none_or(|member| !member.connected), "{peer}");
    }
    Ok(())
}

/// One peer of the removed organisation is there, one was away, one is far behind; all get the block that removes them, and
/// nothing of what comes after it, however long they are there.
#[test]
fn a_removed_organisation_gets_the_block_that_removes_it_and_nothing_later() -> Outcome {
    let network = Network::builder().hold_back("peer1.org2").start()?;
    network.submit("trade", lines(0, 100))?;
    network.update("trade", &BOTH, &["--remove-org", "Org2MSP"])?;
    let removed_at = network.orderer_height("trade")?;
    wait_for_stop(&network, "peer0.org2", removed_at)?;
    network.submit("trade", lines(100, 40))?;
    let height = wait_for_orderer(&network, removed_at)?;
    let members = ["peer0.org1", "peer1.org1"];
    network.wait_for_height("trade", &members, height, SOON)?;

    // It has only block 0; its own organisation's other peer serves nothing any more, and the orderer refuses it.
    network.stop("peer0.org2")?;
    network.start("peer1.org2")?;
    wait_for_stop(&network, "peer1.org2", removed_at)?;
    network.start("peer0.org2")?;
    wait_for_stop(&network, "peer0.org2", removed_at)?;
    // The members, restarted, know of the removal by their ledgers.
    for peer in members {
        network.stop(peer)?;
        network.start(peer)?;
    }
    network.submit("trade", lines(140, 40))?;
    let height = wait_for_orderer(&network, height)?;
    network.wait_for_height("trade", &members, height, SOON)?;
    let whole = network.chain("peer0.org1", "trade")?;
    for peer in ["peer0.org2", "peer1.org2"] {
        let chain = network.chain(peer, "trade")?;
        assert_eq!(chain.height, removed_at);
        assert_eq!(chain.hashes[..], whole.hashes[..chain.hashes.len()]);
        assert!(
            network.find_in_files(peer, b"transaction number 100")?.is_empty(),
            "{peer} holds a later block"
        );
    }
    // The search finds what is there.
    assert!(!network.find_in_files("peer0.org1", b"transaction number 100")?.is_empty());
    Ok(())
}

/// Waits until every peer knows a second block; returns one peer's evidence by `channel evidence`.
fn wait_for_alarm(network: &Network, peers: &[&str]) -> Result<(), NetworkError> {
    network.wait_until("every peer to raise the alarm", SOON, || {
        for peer in peers {
            if network.status(peer)?.channel("trade").is_none_or(|channel| channel.equivocations.is_empty()) {
                return Ok(Err(format!("{peer} does not")));
            }
        }
        Ok(Ok(()))
    })
}

#[test]
fn orderers_that_sign_two_histories_are_found_out() -> Outcome {
    let network = Network::builder().start()?;
    network.submit("trade", lines(0, 10))?;
    let before = network.wait_for_sync("trade", SOON)?;
    for organization in BOTH {
        network.wait_for_leader("trade", organization, SOON)?;
    }
    network.fault("orderer", &["equivocate"])?;
    network.submit("trade", lines(10, 10))?;
    let peers = network.peers();
    wait_for_alarm(&network, &peers)?;
    let tips = |peer: &str| network.chain(peer, "trade").map(|chain| chain.hashes);
    let mut histories = std::collections::BTreeSet::new();
    for peer in &peers {
        let text = network.tool_success(peer, &["status"])?;
        assert!(String::from_utf8_lossy(&text.stdout).contains("ALARM: channel trade"), "{text:?}");
        let shown = network.tool_success(peer, &["channel", "evidence", "-c", "trade", "--json"])?;
        let evidence: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
        let first = &evidence[0];
        let number = usize::try_from(first["number"].as_u64().ok_or("no number")?)?;
        assert!(number as u64 >= before, "{evidence}");
        assert_eq!(first["other"]["authentic"], true, "evidence holds on its own: {evidence}");
        let chain = tips(peer)?;
        let kept = chain.get(number).ok_or("the first block is gone")?;
        assert_eq!(first["kept"], kept.as_str(), "the first block is kept");
        assert_ne!(first["other"]["header_hash"], kept.as_str());
        histories.insert(chain[usize::try_from(before)?].clone());
    }
    assert_eq!(histories.len(), 2, "each organisation follows what its leader was told first");
    // An alarm outlives a restart.
    network.stop("peer1.org1")?;
    network.start("peer1.org1")?;
    wait_for_alarm(&network, &["peer1.org1"])?;
    Ok(())
}

#[test]
fn a_channel_stops_at_once_if_the_operator_wants_it() -> Outcome {
    let network = Network::builder().environment("CORE_PEER_GOSSIP_ONEQUIVOCATION", "halt").start()?;
    network.submit("trade", lines(0, 10))?;
    network.wait_for_sync("trade", SOON)?;
    for organization in BOTH {
        network.wait_for_leader("trade", organization, SOON)?;
    }
    network.fault("orderer", &["--channel", "trade", "equivocate"])?;
    network.submit("trade", lines(10, 10))?;
    network.wait_until("every peer to stop the channel", SOON, || {
        for peer in network.peers() {
            let status = network.status(peer)?;
            let stopped = status.channel("trade").and_then(|channel| channel.stopped.clone());
            if stopped.is_none_or(|reason| !reason.contains("signed two blocks")) {
                return Ok(Err(format!("{peer} does not")));
            }
        }
        Ok(Ok(()))
    })?;
    // The other channel goes on.
    network.submit("audit", Payload::lines(["business as usual"]))?;
    network.wait_for_sync("audit", SOON)?;
    Ok(())
}
