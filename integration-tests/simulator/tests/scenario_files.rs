//! Every scenario file comes out as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot run has failed")]

use std::path::{Path, PathBuf};

use grapevine_simulator::ScenarioFile;

const SEEDS: u64 = 2;

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_scenario_file_comes_out_as_it_says() {
    let files = files();
    assert!(files.len() >= 9);
    let mut failures = Vec::new();
    for path in files {
        let file = ScenarioFile::read(&path).unwrap();
        assert!(!file.description.is_empty(), "{}", path.display());
        for seed in 1..=SEEDS {
            if let Err(what) = file.run(seed) {
                failures.push(format!("{}: {what}", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_scenario_file_gives_the_same_run_twice() {
    let path = files().into_iter().find(|path| path.ends_with("crashes-pauses-and-cuts.yaml")).unwrap();
    let file = ScenarioFile::read(&path).unwrap();
    let (one, two, other) = (file.run(1).unwrap(), file.run(1).unwrap(), file.run(2).unwrap());
    assert_eq!(one.trace_hash, two.trace_hash);
    assert_ne!(one.trace_hash, other.trace_hash);
}
