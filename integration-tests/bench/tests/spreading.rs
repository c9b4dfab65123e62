//! Short forms of the measurements: that they end with whole and sane results, never how fast anything was.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{bench, number};
use serde_json::Value;

#[test]
fn every_protocol_brings_every_block_to_every_peer() {
    let directory = tempfile::tempdir().unwrap();
    let plot = directory.path().join("plot.svg");
    let results = bench(&format!(
        "dissemination --peers 3 --block-bytes 20000 --blocks 5 --interval-ms 100 --idle-seconds 1 \
         --compare grapevine,classic,gossipsub,direct --plot {}",
        plot.display()
    ));
    let results = results.as_array().unwrap();
    let names: Vec<&str> =
        results.iter().filter_map(|result| result.get("protocol").and_then(Value::as_str)).collect();
    assert_eq!(names, ["grapevine", "classic", "gossipsub", "direct"]);
    for result in results {
        // Signatures of some kinds differ by a byte from block to block.
        let size = number(result, "block_bytes");
        assert!((size - 20_000.0).abs() < 10.0, "blocks are of the size that was asked for: {result}");
        assert!(number(result, "copies") >= 1.0, "nobody has a block without reading its bytes: {result}");
        assert!(number(result, "orderer_egress_blocks") >= 1.0, "{result}");
        let order = ["p50_ms", "p90_ms", "p99_ms", "max_ms"].map(|field| number(result, field));
        assert!(order.is_sorted() && number(result, "p50_ms") > 0.0, "{result}");
        assert!(number(result, "last_p50_ms") >= number(result, "p50_ms"), "{result}");
        for field in
            ["commit_p50_ms", "cpu_ms_per_peer_block", "rss_mb_per_peer", "idle_bytes_per_s_per_peer"]
        {
            assert!(number(result, field) >= 0.0);
        }
    }
    let direct = number(results.last().unwrap(), "orderer_egress_blocks");
    assert!(direct >= 3.0, "with direct all three peers pull, but the orderer sent {direct} copies");
    assert!(std::fs::read_to_string(plot).unwrap().ends_with("</svg>\n"));
}

/// What a sender can't beat: two copies of a block of 100 KB at 20 Mbit/s, but for what passes a limit at once.
#[test]
fn limited_links_limit_and_leave_nothing_behind() {
    let arguments = "dissemination --peers 2 --block-bytes 100000 --blocks 3 --interval-ms 400 --idle-seconds 1 \
                     --link-mbit 20 --compare direct";
    let mut command = Command::new(env!("CARGO_BIN_EXE_grapevine-bench"));
    let output = command.args(arguments.split_whitespace()).args(["--json", "-"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        // Where namespaces can't be made, that is said in words.
        let reasons =
            ["as root", "install iproute2", "install util-linux", "unshare", "Operation not permitted"];
        assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
        return;
    }
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let result = results.as_array().unwrap().first().unwrap();
    assert_eq!(number(result, "link_mbit"), 20.0);
    let least_ms = (2.0 * 100_000.0 - 65_536.0) * 8.0 / 20_000.0;
    assert!(number(result, "last_p50_ms") >= least_ms, "{result}");
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().filter_map(Result::ok);
    assert!(
        interfaces.into_iter().all(|interface| !interface.file_name().to_string_lossy().starts_with("gv"))
    );
}

#[test]
fn blocks_go_on_whichever_way_the_leader_goes() {
    let result = bench("failover --peers 3 --runs 1");
    for field in ["gap_p50_s", "gap_max_s", "gap_stop_max_s", "handover_max_s"] {
        // A peer to which nothing came any more would have waited to the end.
        let gap = number(&result, field);
        assert!(gap > 0.0 && gap < 8.0, "{field}: {gap}");
    }
}

#[test]
fn an_idle_network_is_measured() {
    let result = bench("idle --peers 3 --seconds 2");
    assert!(number(&result, "bytes_per_s_per_peer") > 0.0, "{result}");
    assert!(number(&result, "rss_mb_per_peer") > 1.0, "{result}");
    assert!(number(&result, "cpu_percent_per_peer") >= 0.0);
}
