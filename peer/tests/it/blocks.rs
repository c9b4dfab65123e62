//! Commands that show and verify blocks and configs, on chains made by Fabric's own orderers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::verify::BlockVerifier;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{Files, fails, grapevine, works};

const CHAINS: [(&str, usize); 3] = [("ecdsa", 11), ("ed25519", 11), ("bft-ecdsa", 6)];

fn vectors(chain: &str) -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../integration-tests/fixtures/fabric-vectors");
    PathBuf::from(fixtures).join(chain)
}

fn block_file(chain: &str, number: u64) -> String {
    text(&vectors(chain).join(format!("blocks/{number:03}.block")))
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&works(arguments)).unwrap()
}

/// A copy of a chain's blocks that may be changed, its files named by `name`.
fn copied(chain: &str, name: impl Fn(u64) -> String) -> TempDir {
    let directory = TempDir::new().unwrap();
    let count = CHAINS.iter().find(|(known, _)| *known == chain).unwrap().1 as u64;
    for number in 0..count {
        std::fs::write(
            directory.path().join(name(number)),
            std::fs::read(block_file(chain, number)).unwrap(),
        )
        .unwrap();
    }
    directory
}

fn verify(chain: &str, directory: &Path) -> Vec<String> {
    ["channel", "verify-blocks", "--genesis", &block_file(chain, 0), &text(directory)]
        .map(str::to_owned)
        .to_vec()
}

fn verify_works(chain: &str, directory: &Path) -> String {
    works(&verify(chain, directory).iter().map(String::as_str).collect::<Vec<_>>())
}

fn verify_fails(chain: &str, directory: &Path) -> String {
    fails(&verify(chain, directory).iter().map(String::as_str).collect::<Vec<_>>())
}

/// A peer that joined the channel of a vector chain through the command line and then committed its blocks. Its MSP
/// directory is cryptogen's and lacks the private key, which joining does not need.
fn peer_with(chain: &str) -> Files {
    let files = Files::new();
    let msp =
        vectors(chain).join("crypto/peerOrganizations/org1.example.com/peers/peer0.org1.example.com/msp");
    let yaml = std::fs::read_to_string(files.config()).unwrap();
    let yaml = yaml.replace("mspConfigPath: msp", &format!("mspConfigPath: {}", msp.display()));
    std::fs::write(files.config(), yaml).unwrap();
    let said = works(&["channel", "join", "--block", &block_file(chain, 0), "--config", &files.config()]);
    assert!(said.starts_with("joined ch1"), "{said}");
    let ledger = files.ledger();
    let read = |number| {
        Block::decode(Bytes::from(std::fs::read(block_file(chain, number)).unwrap()), usize::MAX).unwrap()
    };
    let mut verifier = BlockVerifier::new(Arc::new(ChannelConfig::from_block(&read(0)).unwrap()));
    for number in 1..11 {
        let block: AuthenticBlock = verifier.verify(read(number)).unwrap();
        ledger.append(&"ch1".parse().unwrap(), std::slice::from_ref(&block)).unwrap();
        if block.is_config() {
            verifier = BlockVerifier::new(Arc::new(verifier.config().next(&block).unwrap()));
        }
    }
    files
}

#[test]
fn chains_of_fabric_verify_whatever_their_files_are_named() {
    for (chain, count) in CHAINS {
        let said = verify_works(chain, &vectors(chain).join("blocks"));
        assert_eq!(said.lines().count(), 1);
        assert!(said.starts_with(&format!("{count} blocks of channel ")), "{said}");
        assert!(said.contains(&format!("up to number {}", count - 1)), "{said}");
    }
    let directory = copied("ed25519", |number| format!("{number}.block"));
    std::fs::write(directory.path().join("README.md"), "not a block").unwrap();
    std::fs::write(directory.path().join("newest.block"), "not numbered").unwrap();
    verify_works("ed25519", directory.path());
    // Without block 0, which is given apart.
    std::fs::remove_file(directory.path().join("0.block")).unwrap();
    let said = verify_works("ed25519", directory.path());
    assert!(said.starts_with("10 blocks of channel ch1"), "{said}");
}

#[test]
fn the_first_bad_block_is_named_with_the_reason() {
    for (chain, _) in CHAINS {
        for number in [0, 1, 4, 5] {
            let directory = copied(chain, |number| format!("{number:03}.block"));
            let path = directory.path().join(format!("{number:03}.block"));
            let original = std::fs::read(&path).unwrap();
            let block = Block::decode(original.clone().into(), usize::MAX).unwrap();
            // Header hash field, data, and for signed blocks the signatures.
            let find =
                |needle: &[u8]| original.windows(needle.len()).position(|part| part == needle).unwrap();
            let mut places = vec![find(&block.header().data_hash), find(&block.transactions()[0]) + 40];
            if number > 0 {
                places.push(find(&block.header().previous_hash));
                places.push(find(block.signatures_metadata()) + block.signatures_metadata().len() - 3);
            }
            for place in places {
                let mut changed = original.clone();
                changed[place] ^= 1;
                std::fs::write(&path, changed).unwrap();
                let complaint = verify_fails(chain, directory.path());
                assert!(complaint.contains(&format!("block {number} (")), "{complaint}");
            }
            std::fs::write(&path, original).unwrap();
            verify_works(chain, directory.path());
        }
    }
}

#[test]
fn gaps_duplicates_swaps_and_strangers_are_refused() {
    let name = |number: u64| format!("{number:03}.block");
    let directory = copied("ecdsa", name);
    let at = |number: u64| directory.path().join(name(number));
    std::fs::rename(at(3), directory.path().join("kept")).unwrap();
    let complaint = verify_fails("ecdsa", directory.path());
    assert!(complaint.contains("block 3: there is no such block"), "{complaint}");
    // Another block under its number.
    std::fs::copy(at(2), at(3)).unwrap();
    let complaint = verify_fails("ecdsa", directory.path());
    assert!(complaint.contains("block 3 (") && complaint.contains("number 2 inside"), "{complaint}");
    std::fs::rename(directory.path().join("kept"), at(3)).unwrap();
    std::fs::copy(at(3), directory.path().join("3.block")).unwrap();
    let complaint = verify_fails("ecdsa", directory.path());
    assert!(complaint.contains("both"), "{complaint}");
    std::fs::remove_file(directory.path().join("3.block")).unwrap();
    verify_works("ecdsa", directory.path());
    // Blocks of another channel of the same name.
    let complaint = verify_fails("ed25519", directory.path());
    assert!(complaint.contains("another genesis block"), "{complaint}");
    std::fs::remove_file(at(0)).unwrap();
    let complaint = verify_fails("ed25519", directory.path());
    assert!(complaint.contains("block 1 ("), "{complaint}");
    // Without a config block the blocks after it do not verify.
    std::fs::write(at(4), std::fs::read(at(5)).unwrap()).unwrap();
    let complaint = verify_fails("ecdsa", directory.path());
    assert!(complaint.contains("block 4 ("), "{complaint}");
}

#[test]
fn verifying_nothing_is_an_error() {
    let empty = TempDir::new().unwrap();
    let complaint = verify_fails("ecdsa", empty.path());
    assert!(complaint.contains("no files NUMBER.block"), "{complaint}");
    let complaint = verify_fails("ecdsa", &empty.path().join("missing"));
    assert!(complaint.contains("missing"), "{complaint}");
    let blocks = text(&vectors("ecdsa").join("blocks"));
    let first = block_file("ecdsa", 1);
    for genesis in ["/no/such.block", &first] {
        let complaint = fails(&["channel", "verify-blocks", "--genesis", genesis, &blocks]);
        assert!(complaint.contains(genesis), "{complaint}");
    }
    assert_eq!(grapevine(&["channel", "verify-blocks", &blocks]).status.code(), Some(2));
}

#[test]
fn a_block_of_a_file_is_shown() {
    for (chain, count) in CHAINS {
        let expected = std::fs::read(vectors(chain).join("expected.json")).unwrap();
        let expected: Vec<Value> = serde_json::from_slice(&expected).unwrap();
        assert_eq!(expected.len(), count);
        let mut previous = json!("");
        for expected in &expected {
            let file = block_file(chain, expected["number"].as_u64().unwrap());
            let block = json_of(&["block", "show", &file, "--json"]);
            for field in ["number", "header_hash", "data_hash", "last_config"] {
                assert_eq!(block[field], expected[field], "{file} {field}");
            }
            assert_eq!(expected["transactions"], block["transactions"].as_array().unwrap().len());
            assert_eq!(expected["orderer_signatures"], block["signers"].as_array().unwrap().len());
            assert_eq!(block["previous_hash"], previous, "{file}");
            previous = expected["header_hash"].clone();
        }
    }
    let plain = works(&["block", "show", &block_file("ed25519", 1)]);
    for part in [
        "block          1\n",
        "header hash    ff7e0f8c",
        "orderer.example.com",
        "User1@org1.example.com",
        "not checked",
    ] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    let (four, zero) = (block_file("ed25519", 4), block_file("ed25519", 0));
    let plain = works(&["block", "show", &four, "--config-block", &zero]);
    assert!(plain.contains("authentic      yes"), "{plain}");
    assert!(
        plain.ends_with("CONFIG CHANGES\n/Channel/Application/Org2MSP/AnchorPeers\n  - 127.0.0.1:22000\n  + peer1.org2.example.com:7051\n"),
        "{plain}"
    );
    let complaint = fails(&["block", "show", "/no/such.block"]);
    assert!(complaint.contains("/no/such.block"), "{complaint}");
    let complaint = fails(&["block", "show", &four, "--config-block", &block_file("ed25519", 1)]);
    assert!(complaint.contains("--config-block"), "{complaint}");
    let complaint = fails(&["block", "show", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert!(complaint.contains("is not a block"), "{complaint}");
    assert_eq!(grapevine(&["block", "show"]).status.code(), Some(2));
    assert_eq!(grapevine(&["block", "show", "3", "--channel", "ch1"]).status.code(), Some(2));
}

#[test]
fn a_fabric_channel_is_joined_with_cryptogens_material_and_shown_from_the_ledger() {
    for chain in ["ecdsa", "ed25519"] {
        let files = peer_with(chain);
        let config = files.config();
        let show =
            |number: &str| json_of(&["block", "show", number, "-c", "ch1", "--config", &config, "--json"]);
        let (first, sixth) = (show("1"), show("6"));
        assert_eq!((&first["authentic"], &first["signers"][0]["valid"]), (&json!(true), &json!(true)));
        assert_eq!(first["signers"][0]["role"], "orderer");
        let change =
            json!([{ "path": "/Channel/Orderer/BatchSize/max_message_count", "before": "3", "after": "1" }]);
        assert_eq!(sixth["config_difference"], change);
        assert_eq!(show("0")["number"], 0);
        assert_eq!(show("10")["authentic"], true);
        let complaint = fails(&["block", "show", "11", "-c", "ch1", "--config", &config]);
        assert!(complaint.contains("its height is 11"), "{complaint}");
        let complaint = fails(&["block", "show", "x", "-c", "ch1", "--config", &config]);
        assert!(complaint.contains("x is not a block's number"), "{complaint}");

        let channel = json_of(&["channel", "config", "show", "-c", "ch1", "--config", &config, "--json"]);
        assert_eq!((&channel["sequence"], &channel["config_block"]), (&json!(2), &json!(6)));
        assert_eq!(channel["max_message_count"], 1);
        let plain = works(&["channel", "config", "show", "-c", "ch1", "--config", &config]);
        for part in [
            "sequence      2 (block 6)",
            "127.0.0.1:17050 (OrdererMSP)",
            "ca.org1.example.com, expires 2036-",
            "peer1.org2.example.com:7051",
            "/Channel/Orderer/BlockValidation",
            "ANY Writers",
            "V3_0",
        ] {
            assert!(plain.contains(part), "{part}: {plain}");
        }
        // What the peer holds can be taken out and verified again.
        let directory = files.path("blocks");
        works(&["channel", "export", "-c", "ch1", "--config", &config, "--blocks-dir", &directory]);
        let said = verify_works(chain, Path::new(&directory));
        assert!(said.starts_with("11 blocks"), "{said}");
    }
}

#[test]
fn a_channel_that_was_not_joined_cannot_be_shown() {
    let files = Files::new();
    let arguments = ["channel", "config", "show", "-c", "ch1", "--config", &files.config()];
    assert!(fails(&arguments).contains("no ledger in"));
    drop(files.ledger());
    assert!(fails(&arguments).contains("has not joined channel ch1"));
    let complaint = fails(&["block", "show", "0", "-c", "ch1", "--config", &files.config()]);
    assert!(complaint.contains("has not joined channel ch1"), "{complaint}");
}
