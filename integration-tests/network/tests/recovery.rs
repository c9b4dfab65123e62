//! Peers that were away come back to the same ledger.

use std::time::Duration;

use grapevine_network::{Cut, Network, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(30);

fn lines(from: u32, count: u32) -> Payload {
    Payload::lines((from..from + count).map(|number| format!("transaction number {number}")))
}

#[test]
fn a_stopped_peer_catches_up_after_its_restart() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    network.submit("trade", lines(0, 30))?;
    network.wait_for_sync("trade", SOON)?;
    network.stop("peer1.org2")?;
    network.submit("trade", lines(30, 200))?;
    let height = network.wait_for_sync("trade", SOON)?;
    network.start("peer1.org2")?;
    network.wait_for_height("trade", &["peer1.org2"], height, SOON)?;
    network.assert_ledgers_identical("trade")?;
    Ok(())
}

#[test]
fn a_new_peer_catches_up_from_peers_alone_while_the_orderer_is_down() -> Result<(), NetworkError> {
    let network = Network::builder().hold_back("peer1.org2").start()?;
    network.submit("trade", lines(0, 300))?;
    let height = network.wait_for_sync("trade", SOON)?;
    network.stop("orderer")?;
    // The organisation's own other peer is away as well: the blocks must come from the other organisation.
    network.stop("peer0.org2")?;
    network.start("peer1.org2")?;
    network.wait_for_height("trade", &["peer1.org2"], height, SOON)?;
    assert_eq!(network.chain("peer1.org2", "trade")?, network.chain("peer0.org1", "trade")?);

    network.start("orderer")?;
    network.start("peer0.org2")?;
    network.submit("trade", lines(300, 10))?;
    network.wait_for_sync("trade", SOON)?;
    network.assert_ledgers_identical("trade")?;
    Ok(())
}

#[test]
fn a_new_peer_catches_up_with_blocks_that_come_faster_than_the_disk_takes_them() -> Result<(), NetworkError> {
    let network = Network::builder().hold_back("peer1.org1").start()?;
    // Both channels of Org1 at once, so that they share what the ledger takes in.
    for channel in ["trade", "audit"] {
        let bytes: Vec<u8> =
            (0..9_000_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        network.submit(channel, Payload::bytes(bytes).pieces(950_000))?;
        network.wait_for_sync(channel, SOON)?;
    }
    network.start("peer1.org1")?;
    for channel in ["trade", "audit"] {
        network.wait_for_sync(channel, SOON)?;
        assert_eq!(network.chain("peer1.org1", channel)?, network.chain("peer0.org1", channel)?);
    }
    Ok(())
}

#[test]
fn a_killed_peer_has_every_block_it_reported() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    for round in 0..5 {
        let submission = network.submit_in_background("trade", lines(round * 400, 400).rate(400.0))?;
        let before = network.status("peer0.org1")?.height("trade");
        network.wait_for_height("trade", &["peer0.org1"], before + 2 + u64::from(round), SOON)?;
        let reported = network.status("peer0.org1")?.channel("trade").cloned().unwrap_or_default();
        network.kill("peer0.org1")?;
        let chain = network.chain("peer0.org1", "trade")?;
        assert!(chain.height >= reported.height, "{} blocks are left of {}", chain.height, reported.height);
        let tip = usize::try_from(reported.height).unwrap_or(usize::MAX) - 1;
        assert_eq!(chain.hashes[tip], reported.tip);
        network.start("peer0.org1")?;
        submission.wait(SOON)?;
    }
    network.wait_for_sync("trade", SOON)?;
    network.assert_ledgers_identical("trade")?;
    Ok(())
}

#[test]
fn a_peer_that_was_cut_off_is_missed_and_catches_up_once_healed() -> Result<(), NetworkError> {
    for cut in [Cut::Reset, Cut::Silence] {
        let network = Network::builder().links(true).start()?;
        network.submit("trade", lines(0, 30))?;
        let before = network.wait_for_sync("trade", SOON)?;
        let others = ["peer0.org1", "peer1.org1", "peer0.org2"];
        network.cut_off("peer1.org2", cut)?;
        network.submit("trade", lines(30, 100))?;
        let height = network.orderer_height("trade")?.max(before + 1);
        network.wait_for_height("trade", &others, height, SOON)?;
        let full_name = "peer1.org2.example.com";
        network.wait_until("the others to miss it", SOON, || {
            let status = network.status("peer0.org2")?;
            let state = status.member(full_name).map_or("unknown", |member| member.state.as_str()).to_owned();
            Ok(if state == "dead" { Ok(()) } else { Err(format!("it is {state}")) })
        })?;
        assert_eq!(network.status("peer1.org2")?.height("trade"), before, "{cut:?}");
        network.heal("peer1.org2")?;
        network.wait_for_sync("trade", SOON)?;
        network.assert_ledgers_identical("trade")?;
        network.wait_until("it to be alive again", SOON, || {
            let status = network.status("peer0.org2")?;
            let state = status.member(full_name).map_or("unknown", |member| member.state.as_str()).to_owned();
            Ok(if state == "alive" { Ok(()) } else { Err(format!("it is {state}")) })
        })?;
    }
    Ok(())
}

#[test]
fn a_leader_cut_off_from_the_orderer_alone_does_not_stop_its_organisation() -> Result<(), NetworkError> {
    let network = Network::builder().links(true).start()?;
    let leader = network.wait_for_leader("trade", "Org1MSP", SOON)?;
    network.cut_both(&leader, "orderer", Cut::Reset)?;
    network.submit("trade", lines(0, 50))?;
    // The blocks come over the other organisation, or a leader that reaches the orderer takes over; both are right.
    network.wait_for_sync("trade", SOON)?;
    network.assert_ledgers_identical("trade")?;
    Ok(())
}
