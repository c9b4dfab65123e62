//! Connections coming and going.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt as _, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;

use super::{DEADLINE, Members, Peer, any_port, current, enrol, organization, pair};
use crate::net::{Net, NetConfig, NetError, NetEvent};

/// A frame each way shows that the connection reported is the one that lives.
async fn exchange(first: &mut Peer, second: &mut Peer) {
    first.net.send_control(second.pki_id, Bytes::from_static(b"ping")).unwrap();
    assert_eq!(second.control().await, b"ping".as_slice());
    second.net.send_control(first.pki_id, Bytes::from_static(b"pong")).unwrap();
    assert_eq!(first.control().await, b"pong".as_slice());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_survives_a_simultaneous_dial() {
    let organization = organization("Org1MSP");
    let mut first = Peer::start(&organization, "peer0", &[&organization], |_| {});
    let mut second = Peer::start(&organization, "peer1", &[&organization], |_| {});
    for _ in 0..20 {
        first.net.dial(second.endpoint());
        second.net.dial(first.endpoint());
        let ((_, session, dialer), (_, same, other_dialer)) =
            (first.connected().await, second.connected().await);
        assert_eq!(session, same, "both report the same connection");
        assert_ne!(dialer, other_dialer);
        // Any `Disconnected` or second `Connected` in here fails the test.
        exchange(&mut first, &mut second).await;
        first.net.disconnect(second.pki_id, "next round");
        assert_eq!(first.disconnected().await, "next round");
        second.disconnected().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_connected_does_not_dial_the_same_peer_again() {
    let (mut first, mut second) = pair(|_| {}, |_| {}).await;
    first.net.dial(second.endpoint());
    assert_eq!(first.dial_failed().await, "already connected");
    second.net.dial(first.endpoint());
    assert_eq!(second.dial_failed().await, "already connected");
    exchange(&mut first, &mut second).await;
}

#[tokio::test]
async fn dials_to_one_endpoint_collapse() {
    let organization = organization("Org1MSP");
    let mut first = Peer::start(&organization, "peer0", &[&organization], |_| {});
    let mut second = Peer::start(&organization, "peer1", &[&organization], |_| {});
    for _ in 0..5 {
        first.net.dial(second.endpoint());
    }
    first.net.dial(format!("localhost:{}", second.net.listen_address().port()));
    let mut connected = 0;
    let mut failed = Vec::new();
    while connected + failed.len() < 2 {
        match first.next().await {
            NetEvent::Connected { .. } => connected += 1,
            NetEvent::DialFailed { reason, .. } => failed.push(reason),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((connected, failed), (1, vec!["already connected".to_owned()]));
    second.connected().await;
    exchange(&mut first, &mut second).await;
}

#[tokio::test]
async fn own_endpoint_is_reported_as_self() {
    let organization = organization("Org1MSP");
    let mut peer = Peer::start(&organization, "peer0", &[&organization], |_| {});
    peer.net.dial(peer.endpoint());
    assert_eq!(peer.dial_failed().await, "self");

    let everywhere = |config: &mut NetConfig| config.listen = (Ipv4Addr::UNSPECIFIED, 0).into();
    let mut peer = Peer::start(&organization, "peer1", &[&organization], everywhere);
    peer.net.dial(format!("127.0.0.1:{}", peer.net.listen_address().port()));
    assert_eq!(peer.dial_failed().await, "self");
}

#[tokio::test]
async fn another_process_with_this_peers_certificate_is_refused() {
    let organization = organization("Org1MSP");
    let signer = enrol(&organization, "peer0");
    let directory = tempfile::tempdir().unwrap();
    let config = |key: &str| NetConfig::new(any_port(), "net", directory.path().join(key));
    let mut first = Peer::run(config("a"), signer.clone(), Members::of(&[&organization]));
    let second = Peer::run(config("b"), signer, Members::of(&[&organization]));
    first.net.dial(second.endpoint());
    assert!(first.dial_failed().await.contains("own_identity"));
}

#[tokio::test]
async fn a_failed_dial_is_reported_and_may_be_repeated() {
    let organization = organization("Org1MSP");
    let mut first = Peer::start(&organization, "peer0", &[&organization], |_| {});
    let gone = Peer::start(&organization, "peer1", &[&organization], |_| {});
    let endpoint = gone.endpoint();
    gone.net.shutdown().await;
    for _ in 0..3 {
        first.net.dial(endpoint.clone());
        assert!(first.dial_failed().await.contains("refused"));
    }
    first.net.dial("no port");
    assert!(first.dial_failed().await.contains("cannot resolve"));
}

#[tokio::test]
async fn dials_beyond_the_bound_are_dropped_and_counted() {
    let organization = organization("Org1MSP");
    let mut peer = Peer::start(&organization, "peer0", &[&organization], |config| config.dials_max = 0);
    peer.net.dial("127.0.0.1:1");
    assert!(peer.dial_failed().await.contains("too many dials"));
    assert_eq!(peer.net.counters().dials_dropped.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_restarted_peer_connects_again_at_once() {
    let organization = organization("Org1MSP");
    let signer = enrol(&organization, "peer1");
    let directory = tempfile::tempdir().unwrap();
    let mut config = NetConfig::new(any_port(), super::NETWORK, directory.path().join("p2p.key"));
    let mut first = Peer::start(&organization, "peer0", &[&organization], |_| {});
    let mut second = Peer::run(config.clone(), signer.clone(), Members::of(&[&organization]));
    config.listen = second.net.listen_address();
    let peer_id = second.net.local_peer_id();
    for round in 0..4 {
        if round % 2 == 0 {
            first.net.dial(second.endpoint());
        } else {
            second.net.dial(first.endpoint());
        }
        first.connected().await;
        second.connected().await;
        exchange(&mut first, &mut second).await;
        second.net.shutdown().await;
        first.disconnected().await;
        second = Peer::run(config.clone(), signer.clone(), Members::of(&[&organization]));
        assert_eq!(second.net.local_peer_id(), peer_id, "the key is kept");
    }
}

#[tokio::test]
async fn a_stale_connection_is_replaced_whoever_dials() {
    for restarted_dials in [true, false] {
        let organization = organization("Org1MSP");
        let signer = enrol(&organization, "peer1");
        let directory = tempfile::tempdir().unwrap();
        let config = NetConfig::new(any_port(), super::NETWORK, directory.path().join("p2p.key"));
        let mut stays = Peer::start(&organization, "peer0", &[&organization], |_| {});
        let mut vanished = Peer::run(config.clone(), signer.clone(), Members::of(&[&organization]));
        if restarted_dials {
            vanished.net.dial(stays.endpoint());
        } else {
            stays.net.dial(vanished.endpoint());
        }
        let (old, ..) = stays.connected().await;
        vanished.connected().await;
        // Same certificate and key, another process: what a restart looks like before the old
        // connection is noticed to be dead.
        let mut restarted = Peer::run(config, signer, Members::of(&[&organization]));
        restarted.net.dial(stays.endpoint());
        assert_eq!(stays.disconnected().await, "replaced by a newer connection");
        let (new, ..) = stays.connected().await;
        assert_ne!(old, new);
        restarted.connected().await;
        exchange(&mut stays, &mut restarted).await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_address_and_setting() {
    let organization = organization("Org1MSP");
    let first = Peer::start(&organization, "peer0", &[&organization], |_| {});
    let directory = tempfile::tempdir().unwrap();
    let start = |address| {
        let config = NetConfig::new(address, "net", directory.path().join("key"));
        let signer = current(&organization, "peer1");
        Net::start(config, signer, Members::of(&[&organization]), std::sync::Arc::new(super::UpTo(1)))
    };
    let error = start(first.net.listen_address()).unwrap_err();
    assert!(matches!(error, NetError::PortInUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&first.endpoint()) && text.contains("peer.listenAddress"), "{text}");
    // TEST-NET-1 is nobody's address.
    let error = start((Ipv4Addr::new(192, 0, 2, 1), 0).into()).unwrap_err();
    assert!(matches!(error, NetError::BadAddress { .. }), "{error}");
}

#[tokio::test]
async fn the_key_is_private_and_a_broken_one_is_reported() {
    let organization = organization("Org1MSP");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deeper").join("p2p.key");
    let config = NetConfig::new(any_port(), "net", &path);
    let peer = Peer::run(config.clone(), enrol(&organization, "peer0"), Members::of(&[&organization]));
    peer.net.shutdown().await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&path, b"not a key").unwrap();
    let signer = current(&organization, "peer0");
    let limit = std::sync::Arc::new(super::UpTo(1));
    let error = Net::start(config, signer, Members::of(&[&organization]), limit).unwrap_err();
    assert!(error.to_string().contains("delete it to get a new one"), "{error}");
}

#[tokio::test]
async fn shutdown_is_quick_and_ends_the_events_even_if_nobody_takes_them() {
    let (first, mut second) = pair(|_| {}, |_| {}).await;
    let body = Bytes::from(vec![1; 1 << 20]);
    for _ in 0..12 {
        first.net.send_bulk(second.pki_id, super::message(b"b", body.clone())).unwrap();
    }
    tokio::time::timeout(Duration::from_secs(10), first.net.shutdown()).await.expect("quick");
    // `second` has a full channel of bulk messages that nobody takes.
    tokio::time::timeout(Duration::from_secs(10), second.net.shutdown()).await.expect("quick");
    let drained = async { while second.events.recv().await.is_some() {} };
    tokio::time::timeout(DEADLINE, drained).await.expect("the events end");
}

#[tokio::test]
async fn dropping_the_events_stops_the_transport() {
    let (first, mut second) = pair(|_| {}, |_| {}).await;
    drop(first.events);
    second.disconnected().await;
}
