//! Frames between two connected peers.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;

use super::{Peer, message, organization, pair, until};
use crate::net::{BulkMessage, NetEvent, SendError};

fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_peers_agree_on_the_session_and_exchange_control_and_large_bulk_messages() {
    let organization = organization("Org1MSP");
    let mut first = Peer::start(&organization, "peer0", &[&organization], |_| {});
    let mut second = Peer::start(&organization, "peer1", &[&organization], |_| {});
    first.net.dial(second.endpoint());
    let (at_first, at_second) = (first.next().await, second.next().await);
    let (
        NetEvent::Connected { peer, session, dialer: true, remote_address, remote_peer_id, .. },
        NetEvent::Connected { peer: back, session: same, dialer: false, identity, .. },
    ) = (at_first, at_second)
    else {
        panic!("both connected, one as dialer")
    };
    assert_eq!((peer, back, session), (second.pki_id, first.pki_id, same));
    assert_eq!((remote_address, remote_peer_id), (second.endpoint(), second.net.local_peer_id()));
    assert_eq!(identity.pki_id(), first.pki_id);

    let body = pattern(20 << 20);
    for (from, to) in [(&first, &second), (&second, &first)] {
        from.net.send_bulk(to.pki_id, message(b"block", body.clone())).unwrap();
        from.net.send_control(to.pki_id, Bytes::from_static(b"hello")).unwrap();
    }
    for peer in [&mut first, &mut second] {
        assert_eq!(peer.control().await, b"hello".as_slice(), "control overtakes bulk");
        let (header, received) = peer.bulk().await;
        assert_eq!(header, b"block".as_slice());
        assert!(received == body, "the body arrives unchanged");
    }
    let counters = first.net.counters();
    assert!(counters.bytes_out.load(Ordering::Relaxed) > 20 << 20);
    until("the writer has counted", || counters.bulk_out.load(Ordering::Relaxed) == 1).await;
    assert_eq!(counters.bulk_in.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_read_past_and_the_connection_lives_on() {
    let (first, mut second) = pair(|_| {}, |_| {}).await;
    // The fixture allows 64 MiB and nothing after the header "unwanted".
    let large = Bytes::from(vec![0; 65 << 20]);
    first.net.send_bulk(second.pki_id, message(b"block", large)).unwrap();
    first.net.send_bulk(second.pki_id, message(b"unwanted", b"x".as_slice())).unwrap();
    first.net.send_bulk(second.pki_id, message(b"block", b"small".as_slice())).unwrap();
    assert_eq!(second.bulk().await.1, b"small".as_slice());
    assert_eq!(second.net.counters().bulk_refused.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_beginning_of_a_large_body_is_told_before_the_body_is_here() {
    let (first, mut second) = pair(|_| {}, |_| {}).await;
    // More than all windows take: the body cannot be complete before the owner has heard of its beginning.
    let body = Bytes::from(vec![1; 40 << 20]);
    first.net.send_bulk(second.pki_id, message(b"small", b"x".as_slice())).unwrap();
    first.net.send_bulk(second.pki_id, message(b"large", body.clone())).unwrap();
    let mut heard = Vec::new();
    loop {
        match second.next_or_start().await {
            NetEvent::BulkStarted { header, .. } => heard.push((header, 0)),
            NetEvent::BulkProgress { .. } => {}
            NetEvent::Bulk { header, body, .. } => heard.push((header, body.len())),
            other => panic!("{other:?}"),
        }
        if heard.last().is_some_and(|(_, length)| *length == body.len()) {
            break;
        }
    }
    let large = Bytes::from_static(b"large");
    heard.sort();
    assert_eq!(heard, [(large.clone(), 0), (large, body.len()), (Bytes::from_static(b"small"), 1)]);
}

#[tokio::test]
async fn a_slow_owner_stalls_bulk_but_not_control_and_a_full_queue_drops_and_counts() {
    let (first, mut second) = pair(|config| config.bulk_queue_bytes_max = 30 << 20, |_| {}).await;
    let body = Bytes::from(vec![7; 1 << 20]);
    // The owner of `second` takes nothing: lane and channel fill, then the window, then the queue.
    let mut taken = 0_u32;
    let full = async {
        while first.net.send_bulk(second.pki_id, message(b"b", body.clone())).is_ok() {
            taken += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::DEADLINE, full).await.expect("the queue fills");
    assert_eq!(first.net.counters().bulk_dropped.load(Ordering::Relaxed), 1);

    first.net.send_control(second.pki_id, Bytes::from_static(b"urgent")).unwrap();
    let counters = second.net.shared.counters.clone();
    until("control arrives while bulk stands", || counters.control_in.load(Ordering::Relaxed) == 1).await;
    let mut ahead = 0;
    while let NetEvent::Bulk { .. } = second.next().await {
        ahead += 1;
    }
    assert!(ahead <= 4, "{ahead} bulk messages were ahead of the control frame");
    for _ in ahead..taken {
        second.bulk().await;
    }
}

#[tokio::test]
async fn a_full_control_queue_drops_and_counts() {
    let (first, second) = pair(|config| config.control_queue_frames_max = 8, |_| {}).await;
    // Without a pause on this single thread nothing is written in between.
    let sent = (0..20).filter(|_| first.net.send_control(second.pki_id, Bytes::from_static(b"x")).is_ok());
    assert_eq!(sent.count(), 8);
    assert_eq!(first.net.counters().control_dropped.load(Ordering::Relaxed), 12);
}

#[tokio::test]
async fn sending_says_when_there_is_no_connection_or_the_frame_is_too_large() {
    let (first, second) = pair(|_| {}, |_| {}).await;
    let large = Bytes::from(vec![0; (256 << 10) + 1]);
    assert_eq!(first.net.send_control(first.pki_id, Bytes::new()), Err(SendError::NotConnected));
    assert_eq!(first.net.send_control(second.pki_id, large.clone()), Err(SendError::TooLarge));
    assert_eq!(
        first.net.send_bulk(second.pki_id, BulkMessage { header: large, ..message(b"", b"x".as_slice()) }),
        Err(SendError::TooLarge)
    );
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection() {
    let (first, mut second) = pair(|config| config.control_frame_bytes_max = 1 << 20, |_| {}).await;
    first.net.send_control(second.pki_id, Bytes::from(vec![0; 512 << 10])).unwrap();
    let reason = second.disconnected().await;
    assert!(reason.contains("524288 bytes where 262144 are allowed"), "{reason}");
}

#[tokio::test]
async fn a_silent_peer_is_disconnected() {
    let mute = |config: &mut crate::net::NetConfig| {
        config.keep_alive_interval = Duration::from_secs(1000);
        config.silence_timeout = Duration::from_secs(2000);
    };
    let impatient = |config: &mut crate::net::NetConfig| {
        config.keep_alive_interval = Duration::from_millis(50);
        config.silence_timeout = Duration::from_millis(400);
    };
    let (mut first, mut second) = pair(mute, impatient).await;
    assert!(second.disconnected().await.contains("nothing heard"));
    first.disconnected().await;
}

#[tokio::test]
async fn keep_alives_hold_an_idle_connection() {
    let lively = |config: &mut crate::net::NetConfig| {
        config.keep_alive_interval = Duration::from_millis(20);
        config.silence_timeout = Duration::from_secs(5);
    };
    let (first, mut second) = pair(lively, lively).await;
    let bytes = || first.net.counters().bytes_in.load(Ordering::Relaxed);
    let before = bytes();
    until("keep-alives travel", || bytes() > before + 500).await;
    first.net.send_control(second.pki_id, Bytes::from_static(b"still here")).unwrap();
    assert_eq!(second.control().await, b"still here".as_slice());
}

#[tokio::test]
async fn a_bulk_writer_that_moves_nothing_ends_the_connection() {
    let (mut first, second) = pair(
        |config| {
            (config.progress_timeout, config.bulk_queue_bytes_max) = (Duration::from_millis(500), 64 << 20)
        },
        |_| {},
    )
    .await;
    let body = Bytes::from(vec![7; 8 << 20]);
    while first.net.send_bulk(second.pki_id, message(b"b", body.clone())).is_ok() {}
    let reason = first.disconnected().await;
    assert!(reason.contains("no byte moved"), "{reason}");
    // The owner of `second` took nothing: 4 bodies in the lane, 1 in the reader, credit for 1 that had begun, the standing
    // credit, and what was written around them.
    let received = second.net.counters().bytes_in.load(Ordering::Relaxed);
    assert!(received <= (6 * 8 + 1 + 1) << 20, "{received} bytes received and not taken");
}
