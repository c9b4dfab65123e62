//! Short forms of the measurements of ledgers and of catching up: whole and sane results, never how fast anything was.

#![allow(clippy::unwrap_used)]

mod common;

use common::{bench, number};
use serde_json::Value;

/// Whole peers are killed at all kinds of moments, and nothing they had told anybody of is lost.
#[test]
fn killed_peers_lose_nothing() {
    for arguments in ["crash --kills 9 --seed 5", "crash --kills 6 --seed 6 --drop-unsynced"] {
        let result = bench(arguments);
        assert_eq!(number(&result, "lost_blocks"), 0.0, "{result}");
        assert!(number(&result, "reported_blocks") > number(&result, "kills"), "{result}");
        assert!(number(&result, "kills_at_failpoints") >= 1.0, "{result}");
        assert!(number(&result, "kills_while_committing") >= number(&result, "kills") / 2.0, "{result}");
        assert!(number(&result, "restart_max_s") > 0.0, "{result}");
    }
}

#[test]
fn a_late_peer_catches_up_and_is_measured() {
    let result = bench("catch-up --blocks 60 --block-bytes 20000 --sources 3 --silent-sources 0");
    for field in ["first_block_s", "rate_mb_s", "rocksdb_mb_s", "sha256_mb_s", "ratio"] {
        assert!(number(&result, field) > 0.0, "{field}: {result}");
    }
    assert!(result.get("memory_mb_above_idle").is_some(), "{result}");
}

#[test]
fn what_late_peers_cost_the_others_is_measured() {
    let arguments =
        "burden --peers 3 --late 2 --blocks 50 --block-bytes 50000 --live-blocks 5 --interval-ms 100";
    let result = bench(arguments);
    for field in ["live_p50_ms", "live_p99_ms"] {
        let values = result.get(field).and_then(Value::as_array).unwrap();
        assert!(values.len() == 2 && values.iter().all(|value| value.as_f64() > Some(0.0)), "{result}");
    }
    assert!(number(&result, "live_p99_ratio") > 0.0, "{result}");
}

#[test]
fn the_ledger_alone_is_measured() {
    let result = bench("ledger --megabytes 20 --openings 2");
    assert!(number(&result, "written_ratio") > 1.0, "{result}");
    assert_eq!(result.get("openings").and_then(Value::as_array).map(Vec::len), Some(2), "{result}");
}
