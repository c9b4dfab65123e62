//! Many clients, slow clients, too many clients.

use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::SeekInfo;
use tokio::time::Duration;
use tonic::Code;

use super::fixture::{Answer, Client, DELIVER, Fixture, blocks, channel, within};

#[tokio::test]
async fn fifty_clients_follow_live_blocks_and_each_block_is_read_once() {
    const CLIENTS: u64 = 50;
    const BLOCKS: u64 = 40;
    let fixture = Fixture::start().await;
    let mut clients = tokio::task::JoinSet::new();
    let mut ready = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = fixture.seek(&SeekInfo::from_number(0)).await;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        ready.push(receiver);
        clients.spawn(async move {
            assert_eq!(client.number().await, 0);
            sender.send(()).unwrap();
            for number in 1..=BLOCKS {
                assert_eq!(client.number().await, number);
            }
        });
    }
    for receiver in ready {
        within(receiver).await.unwrap();
    }
    let payload = vec![7_u8; 100_000];
    for _ in 0..BLOCKS {
        fixture.commit(&[&payload]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while let Some(ended) = within(clients.join_next()).await {
        ended.unwrap();
    }
    let counters = fixture.server.counters();
    assert_eq!(counters.blocks_sent, CLIENTS * (BLOCKS + 1));
    assert!(counters.blocks_read < 2 * (BLOCKS + 1), "{} reads", counters.blocks_read);
    assert_eq!(counters.streams_cut, 0);
    assert!(counters.frame_bytes <= 16 << 20, "{} bytes kept", counters.frame_bytes);
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_until_others_end() {
    let fixture = Fixture::with(|_, options| options.streams_max = 2).await;
    let connection = fixture.connect().await;
    let open = || Client::open(connection.clone(), DELIVER, fixture.member());
    let first = open().await.unwrap();
    let mut second = open().await.unwrap();
    let refused = open().await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("2 delivery streams"), "{refused}");
    // The others are not touched.
    second.seek(&blocks(0, 0)).await;
    assert_eq!(second.number().await, 0);
    drop(first);
    let mut third = within(async {
        loop {
            match open().await {
                Ok(client) => return client,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    third.seek(&blocks(0, 0)).await;
    assert_eq!(third.number().await, 0);
    let counters = fixture.server.counters();
    assert!(counters.streams_refused >= 1 && counters.streams == 2, "{counters:?}");
}

#[tokio::test]
async fn clients_that_take_nothing_lose_their_memory_to_those_that_do() {
    const MEMORY: u32 = 2 << 20;
    let fixture = Fixture::with(|_, options| options.frame_bytes_max = MEMORY).await;
    let payload = vec![7_u8; 500_000];
    for _ in 0..40 {
        fixture.commit(&[&payload]);
    }
    // Each holds another block, old enough not to be in the cache, and takes only what the window lets through.
    let mut idle = Vec::new();
    for number in 1..=6 {
        let client = fixture.seek(&SeekInfo::from_number(number)).await;
        idle.push((number, client));
    }
    let mut reader = fixture.seek(&SeekInfo::from_number(0)).await;
    for number in 0..=40 {
        assert_eq!(reader.number().await, number);
        let held = fixture.server.counters().frame_bytes;
        assert!(held <= u64::from(MEMORY), "{held}");
    }
    assert!(fixture.server.counters().streams_cut >= 1, "{:?}", fixture.server.counters());
    // Who was cut hears it; the others find every block.
    let mut cut = 0;
    for (first, mut client) in idle {
        for number in first..=40 {
            match client.answer().await {
                Answer::Block(bytes) => {
                    let block = grapevine_channels::block::Block::decode(bytes, usize::MAX).unwrap();
                    assert_eq!(block.number(), number);
                }
                Answer::Failed(status) => {
                    cut += 1;
                    assert!(!status.message().is_empty(), "{status}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(cut >= 1);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let fixture = Fixture::start().await;
    let mut client = fixture.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(client.number().await, 0);
    assert_eq!(fixture.server.counters().streams, 1);
    drop(client);
    within(async {
        while fixture.server.counters().streams > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn requests_are_bounded_and_other_methods_unknown() {
    let fixture = Fixture::start().await;
    let mut client = fixture.open(DELIVER).await;
    client.send(Envelope { payload: vec![0; 2 << 20].into(), signature: vec![].into() }).await;
    assert!(matches!(client.answer().await, Answer::End | Answer::Failed(_)));
    let unknown = Client::open(fixture.connect().await, "Discover", fixture.member()).await.err().unwrap();
    assert_eq!(unknown.code(), Code::Unimplemented);
    let mut client = fixture.seek(&blocks(0, 0)).await;
    assert_eq!(client.number().await, 0);
    assert_eq!(client.status().await, Status::Success);
    assert_eq!(fixture.ledger.height(&channel()), 1);
}
