//! The ledger thread.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::*;
use super::{block, block_key, chain, channel, filled, remove};

async fn next(reports: &mut mpsc::Receiver<LedgerReport>) -> LedgerReport {
    timeout(Duration::from_secs(30), reports.recv()).await.expect("no report in time").expect("thread ended")
}

#[tokio::test]
async fn the_thread_commits_in_order_and_reports() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 10);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..1]);
    let (thread, mut reports) = LedgerThread::spawn(ledger.clone(), LedgerLimits::default()).unwrap();
    thread.try_commit(&trade, blocks[1..4].to_vec()).unwrap();
    thread.try_commit(&trade, Vec::new()).unwrap();
    thread.try_commit(&trade, blocks[7..8].to_vec()).unwrap();
    thread.try_commit(&trade, blocks[4..5].to_vec()).unwrap();
    match next(&mut reports).await {
        LedgerReport::Committed { channel, height: 4, tip } if channel == trade => {
            assert_eq!(tip, blocks[3].hash())
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&mut reports).await, LedgerReport::Refused { number: 7, .. }));
    assert!(matches!(next(&mut reports).await, LedgerReport::Committed { height: 5, .. }));
    let counters = thread.counters();
    assert_eq!((counters.blocks, counters.refused, counters.queue_full), (4, 1, 0));
    assert!(thread.shutdown(reports).await.is_empty());
    assert_eq!(ledger.height(&trade), 5);
}

/// Keeps the ledger's writer busy, so that the thread waits with what it took and the queue fills.
#[tokio::test]
async fn a_full_queue_refuses_counts_and_recovers_with_one_sync_for_all() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 9);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..1]);
    let busy = ledger.store.next_position.lock().unwrap();
    let limits = LedgerLimits { queue_commits_max: 4, ..LedgerLimits::default() };
    let (thread, mut reports) = LedgerThread::spawn(ledger.clone(), limits).unwrap();
    for block in &blocks[1..5] {
        thread.try_commit(&trade, vec![block.clone()]).unwrap();
    }
    let refused = thread.try_commit(&trade, blocks[5..6].to_vec());
    assert_eq!(refused, Err(CommitRefused::QueueFull));
    assert_eq!((thread.counters().queue_full, thread.queued()), (1, 4));
    drop(busy);
    let mut height = 1;
    while height < 5 {
        match next(&mut reports).await {
            LedgerReport::Committed { height: at, .. } if at > height => height = at,
            other => panic!("{other:?} after height {height}"),
        }
    }
    // At most the first commit went alone, before the others were queued.
    assert!(thread.counters().syncs <= 2, "{:?}", thread.counters());
    thread.try_commit(&trade, blocks[5..].to_vec()).unwrap();
    assert!(matches!(next(&mut reports).await, LedgerReport::Committed { height: 9, .. }));
    assert_eq!(thread.queued(), 0);
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_but_takes_one_commit_of_any_size() {
    let directory = TempDir::new().unwrap();
    let large = [block(0, None, 10), block(1, Some(block(0, None, 10).hash()), 5000)];
    let trade = channel("trade");
    let ledger = filled(&directory, &large[..1]);
    let busy = ledger.store.next_position.lock().unwrap();
    let limits = LedgerLimits { queue_bytes_max: 1000, ..LedgerLimits::default() };
    let (thread, mut reports) = LedgerThread::spawn(ledger.clone(), limits).unwrap();
    thread.try_commit(&trade, large[1..].to_vec()).unwrap();
    let next_block = block(2, Some(large[1].hash()), 10);
    assert_eq!(thread.try_commit(&trade, vec![next_block.clone()]), Err(CommitRefused::QueueFull));
    drop(busy);
    assert!(matches!(next(&mut reports).await, LedgerReport::Committed { height: 2, .. }));
    thread.try_commit(&trade, vec![next_block]).unwrap();
    assert!(matches!(next(&mut reports).await, LedgerReport::Committed { height: 3, .. }));
}

#[tokio::test]
async fn shutdown_finishes_what_is_queued() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 30);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..1]);
    let busy = ledger.store.next_position.lock().unwrap();
    let (thread, reports) = LedgerThread::spawn(ledger.clone(), LedgerLimits::default()).unwrap();
    for block in &blocks[1..] {
        thread.try_commit(&trade, vec![block.clone()]).unwrap();
    }
    drop(busy);
    let left = timeout(Duration::from_secs(30), thread.shutdown(reports)).await.unwrap();
    assert!(matches!(left.last(), Some(LedgerReport::Committed { height: 30, .. })), "{left:?}");
    assert!(left.len() <= 2, "what is written together is reported together: {left:?}");
    assert_eq!(ledger.height(&trade), 30);
}

#[tokio::test]
async fn a_dropped_thread_and_a_dropped_receiver_still_finish() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 30);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..1]);
    let (thread, reports) = LedgerThread::spawn(ledger.clone(), LedgerLimits::default()).unwrap();
    drop(reports);
    for block in &blocks[1..] {
        thread.try_commit(&trade, vec![block.clone()]).unwrap();
    }
    drop(thread);
    let deadline = Instant::now() + Duration::from_secs(30);
    while ledger.height(&trade) < 30 {
        assert!(Instant::now() < deadline, "still at {}", ledger.height(&trade));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn after_a_failed_write_the_ledger_is_opened_again_and_goes_on() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 4);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..1]);
    let (thread, mut reports) = LedgerThread::spawn(ledger.clone(), LedgerLimits::default()).unwrap();
    ledger.store.stopped.store(true, Ordering::Release);
    thread.try_commit(&trade, blocks[1..2].to_vec()).unwrap();
    assert!(matches!(next(&mut reports).await, LedgerReport::Committed { height: 2, .. }));
    // Also when nothing is to be written.
    ledger.store.stopped.store(true, Ordering::Release);
    let deadline = Instant::now() + Duration::from_secs(30);
    while ledger.is_stopped() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    thread.try_commit(&trade, blocks[2..].to_vec()).unwrap();
    assert!(matches!(next(&mut reports).await, LedgerReport::Committed { height: 4, .. }));
    assert_eq!((thread.counters().reopened, thread.state()), (2, LedgerState::Writing));
}

#[tokio::test]
async fn blocks_that_were_reported_and_are_gone_end_the_thread() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 6);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..5]);
    let (thread, mut reports) = LedgerThread::spawn(ledger.clone(), LedgerLimits::default()).unwrap();
    remove(&ledger, keys::BLOCKS, &block_key(4));
    ledger.store.stopped.store(true, Ordering::Release);
    match next(&mut reports).await {
        LedgerReport::Failed { error: LedgerError::Shrunk { height: 5, left: 4, .. } } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(thread.try_commit(&trade, blocks[5..].to_vec()), Err(CommitRefused::Stopped));
    assert!(thread.shutdown(reports).await.is_empty());
}

#[tokio::test]
async fn intake_pauses_while_the_disk_has_too_little_room() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 2);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..1]);
    let limits = LedgerLimits { free_bytes_min: u64::MAX / 2, ..LedgerLimits::default() };
    let (thread, mut reports) = LedgerThread::spawn(ledger.clone(), limits).unwrap();
    thread.try_commit(&trade, blocks[1..].to_vec()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !matches!(thread.state(), LedgerState::LowDisk { .. }) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(reports.try_recv().is_err());
    assert_eq!((thread.counters().low_disk, ledger.height(&trade)), (1, 1));
    // It can be stopped all the same; what was queued is dropped.
    assert!(timeout(Duration::from_secs(30), thread.shutdown(reports)).await.unwrap().is_empty());
    assert_eq!(ledger.height(&trade), 1);
}
