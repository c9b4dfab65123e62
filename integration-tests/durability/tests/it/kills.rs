//! Nothing that was reported as committed is lost by a kill, nor by a power failure.

use grapevine_durability::Campaign;

use crate::{rounds, writer_command};

fn nothing_is_lost(drop_unsynced: bool, kills: u64) {
    let directory = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(directory.path()).unwrap();
    let campaign = Campaign { kills, drop_unsynced, seed: 7 };
    let outcome = campaign.run(&root, &|| Ok(writer_command()), &|| true).unwrap();
    assert_eq!((outcome.kills, outcome.lost_blocks), (kills, 0), "{outcome:?}");
    // The kills hit what they were aimed at, and there was something to lose.
    assert!(outcome.at_failpoints >= kills / 6 && outcome.at_system_calls >= kills / 6, "{outcome:?}");
    assert!(outcome.blocks > kills, "{outcome:?}");
}

#[test]
fn nothing_reported_is_lost_by_kill_9() {
    nothing_is_lost(false, rounds(18, 500));
}

#[test]
fn nothing_reported_is_lost_with_what_was_not_synced() {
    nothing_is_lost(true, rounds(18, 100));
}
