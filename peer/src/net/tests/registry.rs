//! The rule by which a pair of peers keeps one connection.

use grapevine_crypto::Role;
use libp2p::PeerId;

use super::{VALIDITY, organization};
use crate::net::{RefusalKind, handshake::Verified, registry::Registry};

/// A registry of the smaller and one of the larger of two PeerIds, each with the other's PeerId.
fn both() -> [(Registry, PeerId); 2] {
    let mut ids = [PeerId::random(), PeerId::random()];
    ids.sort_unstable();
    let [small, large] = ids;
    [(Registry::new(small, 10, 10, 10), large), (Registry::new(large, 10, 10, 10), small)]
}

fn verified(instance: u8) -> Verified {
    let signer = organization("Org1MSP").enrol("peer0", Role::Peer, VALIDITY).unwrap();
    Verified { identity: signer.identity().clone(), session: [0; 32], instance: [instance; 16] }
}

fn is_duplicate<T: std::fmt::Debug>(result: Result<T, crate::net::handshake::Refusal>) -> bool {
    result.is_err_and(|refusal| refusal.kind == RefusalKind::AlreadyConnected)
}

#[test]
fn the_smaller_peer_id_lets_its_own_dial_win() {
    let [(small, large_id), (large, small_id)] = both();
    let _dial = small.claim_dial(large_id).unwrap();
    assert!(is_duplicate(small.claim_accept(large_id, &verified(1))));
    let _dial = large.claim_dial(small_id).unwrap();
    assert!(large.claim_accept(small_id, &verified(1)).is_ok());
}

#[test]
fn the_smaller_peer_id_gives_up_its_dial_once_the_other_is_admitted() {
    let [(small, large_id), (large, small_id)] = both();
    let _accept = small.claim_accept(large_id, &verified(1)).unwrap();
    assert!(is_duplicate(small.claim_dial(large_id)));
    let _accept = large.claim_accept(small_id, &verified(1)).unwrap();
    assert!(large.claim_dial(small_id).is_ok());
}

#[test]
fn a_dropped_claim_counts_no_longer() {
    let [(small, large_id), _] = both();
    drop(small.claim_dial(large_id).unwrap());
    drop(small.claim_accept(large_id, &verified(1)).unwrap());
    assert!(small.claim_dial(large_id).is_ok());
}

#[test]
fn just_after_its_own_dial_only_a_restarted_process_gets_through_to_the_smaller_peer_id() {
    let [(small, large_id), _] = both();
    small.connected(large_id, 1, [1; 16], true);
    assert!(is_duplicate(small.claim_accept(large_id, &verified(1))));
    assert!(small.claim_accept(large_id, &verified(2)).is_ok());
}

#[test]
fn a_connected_peer_is_not_dialed_and_an_old_connection_does_not_end_a_newer_one() {
    for (registry, other) in both() {
        registry.connected(other, 1, [1; 16], false);
        registry.connected(other, 2, [2; 16], false);
        registry.disconnected(&other, 1);
        assert!(is_duplicate(registry.claim_dial(other)));
        registry.disconnected(&other, 2);
        assert!(registry.claim_dial(other).is_ok());
    }
}
