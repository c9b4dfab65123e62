//! Blocks as they are served, and streams that follow.

use std::time::Duration;

use bytes::Bytes;
use grapevine_channels::block::Block;
use grapevine_channels::proto::common::{self, HeaderType, Status};
use grapevine_channels::proto::orderer::{
    SeekContentType, SeekInfo, SeekNextCommit, SeekPosition, seek_position,
};
use grapevine_channels::transaction::transaction_payload;
use prost::Message;

use super::fixture::{Answer, DELIVER, FILTERED, Fixture, PRIVATE, blocks, channel, range};

#[tokio::test]
async fn blocks_are_those_of_the_ledger_with_every_transaction_not_validated() {
    let fixture = Fixture::start().await;
    let sent = fixture.commit(&[b"one", b"two", b"three"]);
    let mut client = fixture.seek(&blocks(1, 1)).await;
    let raw = client.raw().await;
    assert_eq!(client.status().await, Status::Success);
    let block = common::Block::decode(raw.clone()).unwrap();
    let metadata = block.metadata.unwrap().metadata;
    assert_eq!(metadata.len(), 5);
    assert_eq!(&metadata[0], sent.signatures_metadata());
    assert_eq!(&metadata[2][..], [254, 254, 254]);
    assert!([1, 3, 4].iter().all(|slot| metadata[*slot].is_empty()));
    assert_eq!(block.data.unwrap().data, sent.transactions());
    let parsed = Block::decode(raw, usize::MAX).unwrap();
    assert_eq!(parsed.header_hash(), sent.header_hash());
    // What a client got is what the ledger holds, but for slot 2.
    assert_eq!(parsed.encode(), fixture.ledger.block(&channel(), 1).unwrap().unwrap());
}

#[tokio::test]
async fn filtered_blocks_list_every_transaction_as_not_validated() {
    let fixture = Fixture::start().await;
    let good = fixture.transaction(b"payload");
    let id = transaction_payload(&good).unwrap().tx_id;
    let junk = Bytes::from_static(b"\xff\xff\xff");
    // Transaction → action → endorsed action → response → chaincode action → event {"assets", name "sold"}.
    let nest = |fields: &[u8], bytes: Vec<u8>| {
        fields
            .iter()
            .rev()
            .fold(bytes, |inner, field| [&[field << 3 | 2, inner.len() as u8], &inner[..]].concat())
    };
    let event = [nest(&[1], b"assets".to_vec()), nest(&[3], b"sold".to_vec())].concat();
    let eventful = fixture.transaction(&nest(&[1, 2, 2, 1, 2, 2], event));
    fixture.append(vec![good, junk, eventful]);
    fixture.channels.committed(&channel(), 2);
    let mut client = fixture.open(FILTERED).await;
    client.seek(&blocks(0, 1)).await;
    let genesis = client.filtered().await;
    assert_eq!((genesis.channel_id.as_str(), genesis.number), ("trade", 0));
    assert_eq!(genesis.filtered_transactions[0].r#type, HeaderType::Config as i32);
    let block = client.filtered().await;
    assert_eq!(block.number, 1);
    let [first, second, third] = &block.filtered_transactions[..] else { panic!("{block:?}") };
    assert_eq!((first.txid.as_str(), first.r#type), (id.as_str(), HeaderType::EndorserTransaction as i32));
    assert_eq!((second.txid.as_str(), second.r#type), ("", 0));
    for transaction in [first, second, third] {
        assert_eq!(transaction.tx_validation_code, 254);
    }
    assert_eq!((&first.transaction_actions, &second.transaction_actions), (&None, &None));
    let actions = &third.transaction_actions.as_ref().unwrap().chaincode_actions;
    let event = actions[0].chaincode_event.as_ref().unwrap();
    assert_eq!(
        (event.chaincode_id.as_str(), event.event_name.as_str(), actions.len()),
        ("assets", "sold", 1)
    );
    assert_eq!(client.status().await, Status::Success);
}

#[tokio::test]
async fn headers_come_without_data_except_of_config_blocks() {
    let fixture = Fixture::start().await;
    let sent = fixture.commit(&[b"payload"]);
    let seek = SeekInfo { content_type: SeekContentType::HeaderWithSig.into(), ..blocks(0, 1) };
    let mut client = fixture.seek(&seek).await;
    assert_eq!(client.block().await.transactions().len(), 1, "config block");
    let raw = client.raw().await;
    let header = common::Block::decode(raw.clone()).unwrap();
    assert_eq!(header.data, None);
    assert_eq!(&header.metadata.unwrap().metadata[2][..], [254]);
    let header = Block::decode(raw, usize::MAX).unwrap();
    assert_eq!(header.header_hash(), sent.header_hash());
    assert_eq!(header.signatures_metadata(), sent.signatures_metadata());
    // The whole block, which other streams get, is not touched by it.
    client.seek(&blocks(1, 1)).await;
    assert_eq!(client.status().await, Status::Success);
    assert_eq!(client.block().await, sent);
}

#[tokio::test]
async fn private_data_is_not_implemented() {
    let fixture = Fixture::start().await;
    let mut client = fixture.open(PRIVATE).await;
    client.seek(&blocks(0, 0)).await;
    assert_eq!(client.last_status().await, Status::NotImplemented);
}

#[tokio::test]
async fn several_ranges_on_one_stream() {
    let fixture = Fixture::start().await;
    for payload in [b"1", b"2", b"3"] {
        fixture.commit(&[payload]);
    }
    let mut client = fixture.open(DELIVER).await;
    let (oldest, newest) = (SeekPosition::oldest, SeekPosition::newest);
    for (seek, numbers) in [
        (range(oldest(), oldest()), 0..=0),
        (range(newest(), newest()), 3..=3),
        (range(oldest(), newest()), 0..=3),
        (blocks(1, 2), 1..=2),
    ] {
        client.seek(&seek).await;
        for number in numbers {
            assert_eq!(client.number().await, number);
        }
        assert_eq!(client.status().await, Status::Success);
    }
}

#[tokio::test]
async fn a_stream_follows_live_and_another_resumes_where_it_ended() {
    let fixture = Fixture::start().await;
    let mut client = fixture.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(client.number().await, 0);
    for number in 1..=3 {
        // What is in the ledger but not reported as committed is not sent.
        let block = fixture.append(vec![fixture.transaction(b"live")]);
        assert_eq!(block.number(), number);
        tokio::task::yield_now().await;
        fixture.channels.committed(&channel(), number + 1);
        assert_eq!(client.block().await, block);
    }
    drop(client);
    for _ in 4..=6 {
        fixture.commit(&[b"meanwhile"]);
    }
    let mut resumed = fixture.seek(&SeekInfo::from_number(4)).await;
    for number in 4..=6 {
        assert_eq!(resumed.number().await, number);
    }
    fixture.commit(&[b"live again"]);
    assert_eq!(resumed.number().await, 7);
}

#[tokio::test]
async fn next_commit_starts_behind_the_tip() {
    let fixture = Fixture::start().await;
    let next_commit = SeekPosition { r#type: Some(seek_position::Type::NextCommit(SeekNextCommit {})) };
    let mut client = fixture.seek(&range(next_commit, SeekPosition::specified(u64::MAX))).await;
    // When the seek is read is not known, so blocks are made until one comes.
    let first = loop {
        fixture.commit(&[b"payload"]);
        let answer = tokio::time::timeout(Duration::from_millis(20), client.answer());
        match answer.await {
            Ok(Answer::Block(bytes)) => break Block::decode(bytes, usize::MAX).unwrap().number(),
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    };
    assert!(first >= 1);
    fixture.commit(&[b"payload"]);
    assert_eq!(client.number().await, first + 1);
}

#[tokio::test]
async fn a_slow_client_gets_every_block() {
    let fixture = Fixture::start().await;
    let mut client = fixture.seek(&SeekInfo::from_number(0)).await;
    // Far more than windows and the cache of recent blocks hold, while nobody reads.
    for index in 0..60_u8 {
        fixture.commit(&[&[index; 50_000]]);
    }
    for number in 0..=60 {
        assert_eq!(client.number().await, number);
    }
}
