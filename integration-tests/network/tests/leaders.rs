//! Who pulls from the orderer: one peer of each organisation, another one if that dies, or the one the operator names.

use std::time::Duration;

use grapevine_network::{Network, NetworkConfig, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(30);
/// With the timers of the standard network a takeover takes two to three seconds; the rest is for busy machines.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(15);

fn third_peer(config: &mut NetworkConfig) {
    let organization = &mut config.organizations[0];
    let mut peer = organization.peers[1].clone();
    peer.name = "peer2".to_owned();
    peer.listen_address.set_port(7053);
    organization.peers.push(peer);
}

#[test]
fn the_next_leader_takes_over_when_one_is_killed_and_blocks_go_on() -> Result<(), NetworkError> {
    let network = Network::builder().change(third_peer).start()?;
    let first = network.wait_for_leader("trade", "Org1MSP", SOON)?;
    network.submit("trade", Payload::lines(["before"]))?;
    network.wait_for_sync("trade", SOON)?;

    network.kill(&first)?;
    let second = network.wait_for_leader("trade", "Org1MSP", TAKEOVER_WITHIN)?;
    assert_ne!(first, second);
    network.submit("trade", Payload::lines(["between"]))?;
    network.wait_for_sync("trade", SOON)?;

    network.start(&first)?;
    network.submit("trade", Payload::lines(["after"]))?;
    network.wait_for_sync("trade", SOON)?;
    network.wait_for_leader("trade", "Org1MSP", SOON)?;
    assert_eq!(network.assert_ledgers_identical("trade")?.payload, b"before\nbetween\nafter\n");
    Ok(())
}

#[test]
fn a_frozen_leader_is_replaced_and_there_is_one_again_when_it_thaws() -> Result<(), NetworkError> {
    let network = Network::builder().change(third_peer).start()?;
    let frozen = network.wait_for_leader("trade", "Org1MSP", SOON)?;
    network.freeze(&frozen)?;
    let others: Vec<&str> = network.peers_of("Org1MSP").into_iter().filter(|peer| *peer != frozen).collect();
    network.wait_until("another leader", TAKEOVER_WITHIN, || {
        for peer in &others {
            if network.status(peer)?.channel("trade").is_some_and(|channel| channel.is_leader) {
                return Ok(Ok(()));
            }
        }
        Ok(Err("nobody else leads".to_owned()))
    })?;
    network.submit("trade", Payload::lines(["while one stood still"]))?;
    network.wait_for_height("trade", &others, 2, SOON)?;
    network.thaw(&frozen)?;
    network.wait_for_leader("trade", "Org1MSP", SOON)?;
    network.wait_for_sync("trade", SOON)?;
    network.assert_ledgers_identical("trade")?;
    Ok(())
}

#[test]
fn a_static_leader_leads_and_nobody_else_does() -> Result<(), NetworkError> {
    let network = Network::builder()
        .change(|config| {
            for (place, peer) in config.organizations[0].peers.iter_mut().enumerate() {
                peer.gossip.0.insert("useLeaderElection".to_owned(), false.into());
                peer.gossip.0.insert("orgLeader".to_owned(), (place == 1).into());
            }
        })
        .start()?;
    network.submit("trade", Payload::lines(["pulled by the one that was named"]))?;
    network.wait_for_sync("trade", SOON)?;
    let leads = |peer: &str| -> Result<bool, NetworkError> {
        Ok(network.status(peer)?.channel("trade").is_some_and(|channel| channel.is_leader))
    };
    assert!(leads("peer1.org1")?);
    assert!(!leads("peer0.org1")?);
    network.assert_ledgers_identical("trade")?;
    Ok(())
}
