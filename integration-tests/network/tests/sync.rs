//! Blocks reach every peer of a channel, and nobody else.

use std::time::Duration;

use grapevine_network::{Network, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(30);

/// Bytes that no compression makes smaller and that contain every byte value.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

#[test]
fn two_organisations_hold_the_same_ledger_byte_for_byte() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    let file = noise(3_000_000);
    network.submit("trade", Payload::bytes(file.clone()).pieces(50_000))?;
    let height = network.wait_for_sync("trade", SOON)?;
    let ledgers = network.assert_ledgers_identical("trade")?;
    assert_eq!(ledgers.peers.len(), 4);
    assert_eq!(ledgers.height, height);
    assert!(height > 3, "sixty transactions of 50 kB do not fit into {height} blocks of 1 MB");
    assert!(ledgers.payload == file);
    network.stop_all()
}

#[test]
fn organisations_find_each_other_through_anchor_peers_alone() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    network.wait_until("every peer to know the three others", SOON, || {
        for peer in network.peers() {
            let status = network.status(peer)?;
            let alive =
                status.members.iter().filter(|member| member.state == "alive" && member.name != peer).count();
            if alive < 3 {
                return Ok(Err(format!("{peer} knows {alive}")));
            }
        }
        Ok(Ok(()))
    })?;
    for channel in ["trade", "audit"] {
        network.wait_for_leader(channel, "Org1MSP", SOON)?;
    }
    network.wait_for_leader("trade", "Org2MSP", SOON)?;
    Ok(())
}

#[test]
fn an_organisation_holds_nothing_of_a_channel_it_is_no_member_of() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    network.submit("audit", Payload::lines(["for the eyes of Org1 alone", "nor this line either"]))?;
    network.submit("trade", Payload::lines(["for everybody, even if it mentions audit"]))?;
    network.wait_for_sync("audit", SOON)?;
    network.wait_for_sync("trade", SOON)?;
    assert_eq!(network.assert_ledgers_identical("audit")?.peers.len(), 2);
    for peer in network.peers_of("Org2MSP") {
        network.assert_holds_nothing_of(peer, "audit")?;
        assert_eq!(network.channels(peer)?.into_keys().collect::<Vec<_>>(), ["trade"]);
    }
    // The search finds what is there: otherwise finding nothing would prove nothing.
    let error = network.assert_holds_nothing_of("peer0.org1", "audit");
    assert!(matches!(error, Err(NetworkError::Leak { .. })), "{error:?}");
    let found = network.find_channel_in_files("peer1.org1", "audit")?;
    assert!(found.iter().any(|place| place.bytes.starts_with(b"for the eyes")), "{found:?}");
    assert!(found.iter().any(|place| place.bytes.ends_with(b"\x05audit")), "{found:?}");
    Ok(())
}

#[test]
fn a_peer_joins_a_channel_while_it_runs_and_catches_up() -> Result<(), NetworkError> {
    let network = Network::builder()
        .change(|config| {
            let joining = ["peer0.org1.example.com", "peer0.org2.example.com", "peer1.org2.example.com"];
            config.channels[0].peers = Some(joining.map(str::to_owned).to_vec());
        })
        .start()?;
    network.submit("trade", Payload::lines((0..100).map(|number| format!("line {number}"))))?;
    let height = network.wait_for_sync("trade", SOON)?;
    network.assert_holds_nothing_of("peer1.org1", "trade")?;
    network.join("peer1.org1", "trade")?;
    network.wait_for_height("trade", &["peer1.org1"], height, SOON)?;
    assert_eq!(network.chain("peer1.org1", "trade")?, network.chain("peer0.org2", "trade")?);
    Ok(())
}
