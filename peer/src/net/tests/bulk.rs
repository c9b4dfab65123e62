//! Messages in chunks: put together from hostile ones, shared fairly, never more than the budgets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{AsyncRead, io::Cursor};
use rand::{RngExt as _, SeedableRng as _, rngs::ChaCha8Rng};

use super::frames::LIMITS;
use super::{message, pair, until};
use crate::net::bulk::budget::Budget;
use crate::net::bulk::incoming::{Arrival, Arrived, Incoming, Purse};
use crate::net::bulk::outgoing::{Message, Outgoing, OutgoingLimits};
use crate::net::bulk::{CHUNK_BYTES, CREDIT_AHEAD, CREDIT_STANDING, SLOTS};
use crate::net::frames::FrameError;
use crate::net::{BulkMessage, Flow, NetEvent, SendError};

fn incoming() -> (Incoming, Arc<Purse>, Budget) {
    let (purse, budget) = (Arc::new(Purse::new()), Budget::new(128 << 20));
    (Incoming::new(1, LIMITS, budget.clone(), purse.clone()), purse, budget)
}

fn start(slot: u8, header: &[u8], length: u32) -> Vec<u8> {
    let header_length = u32::try_from(header.len()).unwrap();
    [&[1, slot][..], &header_length.to_be_bytes(), header, &length.to_be_bytes()].concat()
}

fn chunk(slot: u8, bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).unwrap();
    [&[2, slot][..], &length.to_be_bytes(), &vec![slot; bytes]].concat()
}

async fn receive(bytes: Vec<u8>) -> Result<Arrived, FrameError> {
    incoming().0.next(&mut Cursor::new(bytes), |_| Some(usize::MAX), |_, _| {}).await
}

#[tokio::test]
async fn random_bytes_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    for round in 0..4000_usize {
        let mut bytes = Vec::new();
        for _ in 0..round % 20 {
            // Plausible kinds, slots and lengths, so that the parts behind them are reached.
            bytes.extend([random.random_range(0..4), random.random_range(0..3)]);
            bytes.extend(random.random_range(0..12_u32).to_be_bytes());
            bytes.extend((0..random.random_range(0..12)).map(|_| random.random::<u8>() / 64));
        }
        let (mut incoming, _, budget) = incoming();
        let mut stream = Cursor::new(bytes);
        while incoming.next(&mut stream, |header| Some(header.len()), |_, _| {}).await.is_ok() {}
        drop(incoming);
        assert_eq!(budget.used(), 0);
    }
}

#[tokio::test]
async fn what_is_against_the_protocol_ends_the_connection() {
    let large = u32::try_from(CREDIT_STANDING * 2).unwrap();
    let unpaid = (0..=CREDIT_STANDING / CHUNK_BYTES).flat_map(|_| chunk(0, CHUNK_BYTES));
    let all_open = || (0..=u8::try_from(SLOTS).unwrap()).flat_map(|slot| start(slot, b"h", 9));
    let cases: [(&str, Vec<u8>); 9] = [
        ("unknown kind", vec![7, 0]),
        ("chunk of no message", chunk(3, 5)),
        ("slot taken", [start(0, b"h", 9), start(0, b"h", 9)].concat()),
        ("too many slots", all_open().collect()),
        ("beyond the body", [start(0, b"h", 9), chunk(0, 10)].concat()),
        ("empty chunk", [start(0, b"h", 9), chunk(0, 0)].concat()),
        ("without credit", start(0, b"h", large).into_iter().chain(unpaid).collect()),
        ("too much open", (0..3).flat_map(|slot| start(slot, b"h", 40 << 20)).collect()),
        ("length over the bound", start(0, b"h", 129 << 20)),
    ];
    for (name, bytes) in cases {
        let error = receive(bytes).await.unwrap_err();
        assert!(matches!(error, FrameError::Protocol(_) | FrameError::TooLarge { .. }), "{name}: {error}");
    }
    let error = receive([start(0, b"h", 9), chunk(0, 8)].concat()).await.unwrap_err();
    assert!(matches!(error, FrameError::Closed), "{error}");
}

#[tokio::test]
async fn messages_that_are_interleaved_are_put_together() {
    let bytes = [
        start(4, b"four", 6),
        start(9, b"nine", 3),
        chunk(4, 5),
        start(5, b"none", 0),
        chunk(9, 3),
        chunk(4, 1),
    ];
    let (mut incoming, _, budget) = incoming();
    let mut stream = Cursor::new(bytes.concat());
    let mut arrivals = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..3 {
        let news = |header: &Bytes, arrival: Arrival| arrivals.push((header.clone(), arrival.arrived));
        let arrived = incoming.next(&mut stream, |_| Some(6), news).await.unwrap();
        let Arrived::Wanted { header, body, .. } = arrived else { panic!("wanted") };
        whole.push((header, body));
    }
    let expected: [(&[u8], &[u8]); 3] = [(b"none", b""), (b"nine", &[9; 3]), (b"four", &[4; 6])];
    assert_eq!(whole, expected.map(|(header, body)| (header.into(), body.into())));
    assert_eq!(arrivals[..3], [("four", 0), ("nine", 0), ("four", 5)].map(|(name, at)| (name.into(), at)));
    assert_eq!(budget.used(), 0);
}

/// Records the largest buffer it was asked to fill.
struct Meagre {
    bytes: Cursor<Vec<u8>>,
    room_max: usize,
}

impl AsyncRead for Meagre {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.room_max = self.room_max.max(room.len());
        Pin::new(&mut self.bytes).poll_read(cx, room)
    }
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_read_past_in_small_steps_and_paid_back() {
    let length = CHUNK_BYTES * 40;
    let chunks = (0..40).flat_map(|_| chunk(0, CHUNK_BYTES));
    let bytes = start(0, b"h", u32::try_from(length).unwrap()).into_iter().chain(chunks).collect();
    let mut stream = Meagre { bytes: Cursor::new(bytes), room_max: 0 };
    let (mut incoming, purse, budget) = incoming();
    let reading = incoming.next(&mut stream, |_| Some(length - 1), |_, _| {});
    let paying = async {
        loop {
            purse.is_due().await;
            assert!(purse.take_due().is_some());
        }
    };
    // It ends only if what was read past is paid back on the way.
    let error = tokio::select! {
        biased;
        () = paying => panic!("endless"),
        read = reading => read.err(),
    };
    // A reader over memory never yields, so the peer here sends ahead of its credit.
    assert!(matches!(error, Some(FrameError::Protocol(_))), "{error:?}");
    assert!(purse.take_due().is_some(), "what was read past is due");
    assert!(stream.room_max <= 64 << 10, "{}", stream.room_max);
    assert_eq!(budget.used(), 0);
}

fn outgoing(peer_bytes_max: usize, bytes_max: usize) -> Outgoing {
    let mut outgoing = Outgoing::new(OutgoingLimits { messages_max: 100, peer_bytes_max, bytes_max });
    (1..=3).for_each(|connection| outgoing.open(connection, usize::MAX >> 1));
    outgoing
}

fn to_send(size: usize, is_droppable: bool) -> Message {
    Message { header: Bytes::from_static(b"h"), body: Bytes::from(vec![0; size]), is_droppable }
}

/// Slots and sizes of all that is sent.
fn sent(outgoing: &mut Outgoing, connection: u64) -> Vec<(u8, usize)> {
    std::iter::from_fn(|| {
        let piece = outgoing.next(connection)?;
        if piece.ends {
            outgoing.written(connection);
        }
        Some((piece.slot, piece.chunk.len()))
    })
    .collect()
}

#[test]
fn a_quiet_flow_waits_for_one_chunk_of_each_busy_one() {
    let mut outgoing = outgoing(1 << 20, 1 << 30);
    outgoing.push(1, Flow(1), to_send(50 << 20, false)).unwrap();
    outgoing.push(1, Flow(2), to_send(700_000, false)).unwrap();
    for _ in 0..9 {
        assert!(outgoing.next(1).is_some_and(|piece| !piece.ends));
    }
    outgoing.push(1, Flow(3), to_send(10_000, false)).unwrap();
    let before = (0..).take_while(|_| outgoing.next(1).is_some_and(|piece| piece.slot != 2)).count();
    assert!(before <= 2, "{before} chunks went first");
}

#[test]
fn small_messages_share_a_turn_and_all_of_a_flow_stay_in_order() {
    let mut outgoing = outgoing(10 << 20, 1 << 30);
    for (flow, size) in [(1, 20_000), (1, 20_001), (1, 90_000), (2, 200_000), (1, 5)] {
        outgoing.push(1, Flow(flow), to_send(size, false)).unwrap();
    }
    let sizes: Vec<usize> = sent(&mut outgoing, 1).into_iter().map(|(_, size)| size).collect();
    let of_first: Vec<usize> = sizes.iter().copied().filter(|size| *size < 60_000 && *size != 5).collect();
    assert_eq!(sizes[..2], [20_000, 20_001]);
    assert!(of_first.contains(&20_001));
    assert_eq!(sizes.iter().sum::<usize>(), 330_006);
    assert_eq!(outgoing.bytes(), 0);
}

#[test]
fn without_credit_beginnings_are_sent_and_no_bodies() {
    let mut outgoing =
        Outgoing::new(OutgoingLimits { messages_max: 99, peer_bytes_max: 1 << 20, bytes_max: 1 << 30 });
    outgoing.open(1, 100_000);
    (0..3).for_each(|_| outgoing.push(1, Flow(1), to_send(200_000, false)).unwrap());
    let pieces = sent(&mut outgoing, 1);
    assert_eq!(pieces.iter().filter(|(_, size)| *size > 0).count(), 1);
    assert_eq!(pieces.len(), 3, "the others have begun");
    assert!(outgoing.waits_for_credit(1));
    assert!(outgoing.add_credit(1, 100_000, 1 << 30));
    let rest: usize = sent(&mut outgoing, 1).into_iter().map(|(_, size)| size).sum();
    assert!((130_000..=136_000).contains(&rest), "{rest}");
    assert!(!outgoing.add_credit(1, (1 << 30) + 1, 1 << 30), "more than anybody needs");
}

#[test]
fn pushes_give_way_to_what_was_asked_for() {
    let mut outgoing = outgoing(101_000, 251_000);
    outgoing.push(1, Flow(1), to_send(60_000, true)).unwrap();
    outgoing.push(1, Flow(1), to_send(50_000, true)).unwrap();
    outgoing.push(1, Flow(2), to_send(40_000, true)).unwrap();
    assert_eq!(outgoing.push(1, Flow(1), to_send(50_000, true)), Err(SendError::QueueFull));
    assert_eq!(outgoing.thrown_out(), 0, "a push throws nothing out");
    outgoing.push(1, Flow(1), to_send(60_000, false)).unwrap();
    assert_eq!(outgoing.thrown_out(), 1);
    // The budget of all peers: what another peer's queue holds gives way, too.
    outgoing.push(2, Flow(1), to_send(90_000, false)).unwrap();
    assert_eq!(outgoing.push(3, Flow(1), to_send(90_000, true)), Err(SendError::QueueFull));
    outgoing.push(3, Flow(1), to_send(90_000, false)).unwrap();
    assert!(outgoing.bytes() <= 251_000, "{}", outgoing.bytes());
    assert_eq!(outgoing.push(3, Flow(2), to_send(90_000, false)), Err(SendError::QueueFull));
    outgoing.close(2);
    assert_eq!(outgoing.push(2, Flow(1), to_send(1, false)), Err(SendError::NotConnected));
    outgoing.push(3, Flow(2), to_send(90_000, false)).unwrap();
}

#[test]
fn a_message_that_has_begun_is_never_thrown_out() {
    let mut outgoing = outgoing(0, 1 << 30);
    outgoing.push(1, Flow(1), to_send(100_000, true)).unwrap();
    assert!(outgoing.next(1).is_some());
    assert_eq!(outgoing.push(1, Flow(1), to_send(200_000, false)), Err(SendError::QueueFull));
    assert_eq!(sent(&mut outgoing, 1).len(), 1);
}

#[test]
fn whatever_happens_the_budget_holds_and_nothing_leaks() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let shared = Bytes::from(vec![0; 30_000]);
    for _ in 0..50 {
        let mut outgoing = outgoing(300_000, 500_000);
        let (mut taken, mut ended) = (0_u64, 0_u64);
        for _ in 0..400 {
            let connection = random.random_range(1..=3);
            if random.random_range(0..3) > 0 {
                let mut message = to_send(random.random_range(0..150_000), random.random());
                if random.random() {
                    message.body = shared.clone();
                }
                let flow = Flow(random.random_range(0..4));
                taken += u64::from(outgoing.push(connection, flow, message).is_ok());
            } else if outgoing.next(connection).is_some_and(|piece| piece.ends) {
                outgoing.written(connection);
                ended += 1;
            }
            assert!(outgoing.bytes() <= 500_000, "{}", outgoing.bytes());
        }
        for connection in 1..=3 {
            while let Some(piece) = outgoing.next(connection) {
                if piece.ends {
                    outgoing.written(connection);
                    ended += 1;
                }
            }
        }
        assert_eq!(ended + outgoing.thrown_out(), taken, "each is sent or thrown out");
        assert_eq!(outgoing.bytes(), 0);
    }
}

#[test]
fn a_connection_that_ends_in_the_middle_leaves_nothing_behind() {
    let mut outgoing = outgoing(1 << 20, 1 << 30);
    outgoing.push(1, Flow(1), to_send(10_000, false)).unwrap();
    outgoing.push(1, Flow(2), to_send(200_000, false)).unwrap();
    assert!(outgoing.next(1).is_some_and(|piece| piece.ends), "being written, and never will be");
    assert!(outgoing.next(1).is_some());
    outgoing.close(1);
    outgoing.written(1);
    assert_eq!(outgoing.bytes(), 0);
}

#[tokio::test]
async fn a_quiet_channel_is_not_behind_a_large_block_of_another() {
    let (first, mut second) = pair(|_| {}, |_| {}).await;
    let large = Bytes::from(vec![1; 50 << 20]);
    first.net.send_bulk(second.pki_id, message(b"large", large.clone())).unwrap();
    // It has begun, and is more than all windows together.
    until("the large one is on its way", || first.net.counters().bytes_out.load(Ordering::Relaxed) > 1 << 20)
        .await;
    let quiet = BulkMessage { flow: Flow(7), ..message(b"quiet", vec![2; 10_000]) };
    first.net.send_bulk(second.pki_id, quiet).unwrap();
    first.net.send_control(second.pki_id, Bytes::from_static(b"control")).unwrap();
    let mut order = Vec::new();
    while order.len() < 3 {
        match second.next().await {
            NetEvent::Bulk { header, .. } => order.push(header),
            NetEvent::Control { frame, .. } => order.push(frame),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(order.last(), Some(&Bytes::from_static(b"large")), "{order:?}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_stops_the_sender_within_its_credit_and_pushes_go_first() {
    let (first, mut second) = pair(|_| {}, |config| config.receive_budget_bytes = 4 << 20).await;
    let push = |size: usize| BulkMessage { is_push: true, ..message(b"push", vec![3; size]) };
    let mut taken = 0;
    while first.net.send_bulk(second.pki_id, push(2 << 20)).is_ok() {
        taken += 1;
        tokio::task::yield_now().await;
    }
    first.net.send_bulk(second.pki_id, message(b"asked for", vec![4; 2 << 20])).unwrap();
    let thrown_out = first.net.counters().bulk_thrown_out.load(Ordering::Relaxed);
    assert!(thrown_out > 0 && first.net.counters().bulk_dropped.load(Ordering::Relaxed) == 1);
    let gauge = |index: usize| second.net.gauges()[index].1;
    until("bodies wait for the owner", || gauge(1) >= 2 << 20).await;
    assert!(gauge(1) <= (4 << 20) + CREDIT_AHEAD, "{}", gauge(1));
    let mut headers = Vec::new();
    while headers.last().is_none_or(|header: &Bytes| header != b"asked for".as_slice()) {
        headers.push(second.bulk().await.0);
    }
    assert_eq!(headers.len() as u64, taken - thrown_out + 1, "all the others came");
    let gauges = || (first.net.gauges()[0].1, second.net.gauges()[1].1);
    until("nothing is left", || gauges() == (0, 0)).await;
}
