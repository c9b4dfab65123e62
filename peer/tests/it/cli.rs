//! The binary `grapevine`: what it prints, what it says when something is wrong, how it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_channels::genesis::{ApplicationOrg, GenesisBuilder, OrdererOrg};
use grapevine_channels::proto::common::{ChannelHeader, Envelope, Header, HeaderType, Payload};
use grapevine_channels::proto::configtx::{Capabilities, Capability, ConfigEnvelope};
use grapevine_crypto::issue::{Organization, Validity};
use grapevine_crypto::{Algorithm, Digest, MspId, sha256_of};
use grapevine_peer::admin::{AdminCall, AdminRequest, AdminResponse, AdminServer, ChannelStatus, Status};
use grapevine_peer::ledger::{DIRECTORY, Ledger};
use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) fn grapevine(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grapevine"));
    // Variables of whoever runs the tests must not change what they see.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CORE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must work and returns what it printed.
pub(crate) fn works(arguments: &[&str]) -> String {
    let output = grapevine(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail with exit code 1 and returns its one line of complaint.
pub(crate) fn fails(arguments: &[&str]) -> String {
    let output = grapevine(arguments);
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(!complaint.contains("panicked"), "{complaint}");
    complaint
}

/// A peer's files without a peer.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let yaml = "peer:\n  id: peer0\n  listenAddress: 127.0.0.1:0\n  localMspId: Org1MSP\n  mspConfigPath: msp\n  fileSystemPath: data\n";
        std::fs::write(directory.path().join("peer.yaml"), yaml).unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        Self { directory }
    }

    pub(crate) fn config(&self) -> String {
        self.path("peer.yaml")
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::open(self.data().join(DIRECTORY)).unwrap()
    }
}

fn block(number: u64, previous: Option<Digest>, transactions: Vec<Bytes>) -> AuthenticBlock {
    let data_hash = sha256_of(transactions.iter().map(AsRef::as_ref)).0.to_vec();
    let previous_hash = previous.map(|hash| hash.0.to_vec()).unwrap_or_default();
    let header = BlockHeader { number, previous_hash, data_hash };
    AuthenticBlock::stored(Block::from_parts(header, transactions, Bytes::new()).encode()).unwrap()
}

/// The genesis block of a channel of one organisation; `nonce` makes channels of one name different.
fn genesis(channel: &str, nonce: u8) -> AuthenticBlock {
    let organization = |id: &str, domain: &str| {
        let validity = Validity::ten_years_from(1_700_000_000);
        Organization::new(MspId::from(id), domain, Algorithm::Ed25519, validity).unwrap().msp_config()
    };
    let block = GenesisBuilder::new(channel.parse().unwrap(), [nonce; 24], 1_700_000_000)
        .orderer_org(OrdererOrg {
            name: "OrdererMSP".to_owned(),
            msp: organization("OrdererMSP", "example.com"),
            endpoints: vec!["127.0.0.1:7050".to_owned()],
        })
        .application_org(ApplicationOrg {
            name: "Org1MSP".to_owned(),
            msp: organization("Org1MSP", "org1.example.com"),
            anchor_peers: Vec::new(),
        })
        .build()
        .unwrap();
    AuthenticBlock::genesis(&block).unwrap()
}

fn transaction(header_type: HeaderType, payload: &[u8]) -> Bytes {
    let header = ChannelHeader {
        r#type: header_type.into(),
        channel_id: "trade".to_owned(),
        ..ChannelHeader::default()
    };
    let header = Header { channel_header: header.encode_to_vec().into(), signature_header: Bytes::new() };
    let payload = Payload { header: Some(header), data: Bytes::copy_from_slice(payload) };
    Envelope { payload: payload.encode_to_vec().into(), signature: Bytes::new() }.encode_to_vec().into()
}

fn trade() -> ChannelId {
    "trade".parse().unwrap()
}

/// Fills channel `trade` with blocks of the given transactions after an arbitrary block 0; returns the header hashes.
fn fill(ledger: &Ledger, genesis: &AuthenticBlock, blocks: Vec<Vec<Bytes>>) -> Vec<Digest> {
    ledger.create_channel(&trade(), genesis).unwrap();
    let mut hashes = vec![genesis.hash()];
    for (place, transactions) in blocks.into_iter().enumerate() {
        let block = block(place as u64 + 1, hashes.last().copied(), transactions);
        ledger.append(&trade(), std::slice::from_ref(&block)).unwrap();
        hashes.push(block.hash());
    }
    hashes
}

/// Serves the admin socket of `data` as a peer of channel `trade` at `height` would.
fn serve(data: &Path, height: u64) -> CancellationToken {
    let server = AdminServer::bind(data).unwrap();
    let (calls, mut requests) = mpsc::channel::<AdminCall>(4);
    let stop = CancellationToken::new();
    tokio::spawn(server.serve(calls, stop.clone()));
    tokio::spawn(async move {
        while let Some(AdminCall { request, answer }) = requests.recv().await {
            let response = match request {
                AdminRequest::Status => {
                    let channel = ChannelStatus {
                        channel: "trade".to_owned(),
                        height,
                        tip: "abcd".to_owned(),
                        is_leader: true,
                        ..ChannelStatus::default()
                    };
                    let peer = "peer0".to_owned();
                    AdminResponse::Status(Box::new(Status {
                        peer,
                        channels: vec![channel],
                        ..Status::default()
                    }))
                }
                AdminRequest::Join { .. } => AdminResponse::Joined { joined: "asked-the-peer".to_owned() },
                AdminRequest::JoinByAnchor { channel, .. } => AdminResponse::Joined { joined: channel },
                AdminRequest::Repair { .. } => AdminResponse::Repairing { repairing: 0 },
            };
            let _client_gone = answer.send(response);
        }
    });
    stop
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_none() {
    for arguments in [&["frobnicate"][..], &["channel", "info"], &["run"], &[]] {
        assert_eq!(grapevine(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert!(works(&["--help"]).contains("channel"));
    for (command, options) in [
        (&["run"][..], &["--config"][..]),
        (&["block", "show"], &["--channel", "--config-block", "--json"]),
        (&["channel", "join"], &["--block", "--config"]),
        (&["channel", "verify-blocks"], &["--genesis", "<DIR>"]),
        (&["channel", "config", "show"], &["--channel", "--config", "--json"]),
        (&["channel", "export"], &["--channel", "--blocks-dir"]),
    ] {
        let help = works(&[command, &["--help"]].concat());
        for option in options {
            assert!(help.contains(option), "{command:?} tells of {option}: {help}");
        }
    }
    assert!(works(&["--version"]).starts_with("grapevine "));
}

#[test]
fn net_init_makes_peers_that_can_join_their_channels() {
    let directory = TempDir::new().unwrap();
    let description = directory.path().join("network.yaml");
    let yaml = "ordering: { organization: OrdererMSP, domain: example.com, orderers: [ { name: orderer, listenAddress: 127.0.0.1:0 } ] }\n\
        organizations: [ { mspId: Org1MSP, domain: org1.example.com, peers: [ { name: peer0, listenAddress: 127.0.0.1:0 } ] } ]\n\
        channels: [ { name: trade, organizations: [Org1MSP], anchorPeers: { Org1MSP: [peer0] } } ]\n";
    std::fs::write(&description, yaml).unwrap();
    let network = directory.path().join("net");
    let (description, target) = (description.to_str().unwrap(), network.to_str().unwrap());
    let said = works(&["net", "init", "--config", description, "--dir", target]);
    assert!(said.contains("grapevine run --config") && said.contains("trade"), "{said}");
    let config = network.join("peer0.org1.example.com/peer.yaml");
    let block = network.join("channels/trade.block");
    let (config, block) = (config.to_str().unwrap(), block.to_str().unwrap());
    works(&["channel", "join", "--block", block, "--config", config]);
    assert!(works(&["channel", "list", "--config", config]).contains("trade    1 "));
    let joined = |block: &str| grapevine(&["channel", "join", "--block", block, "--config", config]);
    assert!(joined(block).stderr.is_empty());
    // The block of another network may be meant: its channel may let this organisation in later.
    let foreign = directory.path().join("audit.block");
    std::fs::write(&foreign, genesis("audit", 1).encoded()).unwrap();
    let output = joined(foreign.to_str().unwrap());
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("no member of channel audit"), "{said}");

    let complaint =
        fails(&["net", "init", "--config", description, "--dir", directory.path().to_str().unwrap()]);
    assert!(complaint.contains("not empty"), "{complaint}");
    let complaint = fails(&["net", "init", "--config", "/no/such.yaml", "--dir", target]);
    assert!(complaint.contains("/no/such.yaml"), "{complaint}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    for command in [&["run"][..], &["status"], &["channel", "list"]] {
        let complaint = fails(&[command, &["--config", "/no/such/peer.yaml"]].concat());
        assert!(complaint.contains("/no/such/peer.yaml"), "{complaint}");
    }
}

#[test]
fn status_without_a_peer_says_how_to_start_one() {
    let files = Files::new();
    let complaint = fails(&["status", "--config", &files.config()]);
    assert!(complaint.contains("grapevine run"), "{complaint}");
}

#[test]
fn a_peer_without_ledger_has_no_channels() {
    let files = Files::new();
    assert_eq!(works(&["channel", "list", "--config", &files.config(), "--json"]), "[]\n");
    let complaint = fails(&["channel", "info", "-c", "trade", "--config", &files.config()]);
    assert!(complaint.contains("no ledger in"), "{complaint}");
    let complaint = fails(&["channel", "info", "-c", "Trade!", "--config", &files.config()]);
    assert!(complaint.contains("Trade!"), "{complaint}");
    assert!(!files.data().join(DIRECTORY).exists());
}

#[test]
fn channels_are_listed_and_described_from_the_files_also_beside_a_writer() {
    let files = Files::new();
    let ledger = files.ledger();
    let genesis = block(0, None, vec![Bytes::from_static(b"genesis")]);
    let hashes =
        fill(&ledger, &genesis, vec![vec![Bytes::from_static(b"one")], vec![Bytes::from_static(b"two")]]);
    let config = files.config();

    let list = works(&["channel", "list", "--config", &config]);
    assert!(list.lines().any(|line| line.starts_with("trade    3       ")), "{list}");
    let arguments = ["channel", "info", "-c", "trade", "--config", &config, "--json", "--hashes"];
    let info: serde_json::Value = serde_json::from_str(&works(&arguments)).unwrap();
    assert_eq!(info["height"], 3);
    assert_eq!(info["tip"], hashes[2].to_string());
    assert_eq!(info["genesis"], hashes[0].to_string());
    assert_eq!(info["running"], false);
    let expected: Vec<String> = hashes.iter().map(ToString::to_string).collect();
    assert_eq!(serde_json::from_value::<Vec<String>>(info["hashes"].clone()).unwrap(), expected);
    let plain = works(&["channel", "info", "-c", "trade", "--config", &config]);
    assert!(plain.contains("height   3\n"), "{plain}");

    let complaint = fails(&["channel", "info", "-c", "audit", "--config", &config]);
    assert!(complaint.contains("has not joined channel audit"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heights_of_a_running_peer_come_from_the_peer() {
    let files = Files::new();
    let ledger = files.ledger();
    fill(&ledger, &block(0, None, vec![Bytes::from_static(b"genesis")]), Vec::new());
    let _stop = serve(&files.data(), 42).drop_guard();
    let info = works(&["channel", "info", "-c", "trade", "--config", &files.config(), "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!((info["height"].as_u64(), info["running"].as_bool()), (Some(42), Some(true)));
    let status = works(&["status", "--config", &files.config()]);
    assert!(status.contains("trade    42      abcd  this peer"), "{status}");
    let status: serde_json::Value =
        serde_json::from_str(&works(&["status", "--config", &files.config(), "--json"])).unwrap();
    assert_eq!(status["channels"][0]["height"], 42);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let files = Files::new();
    let ledger = files.ledger();
    fill(&ledger, &block(0, None, vec![Bytes::from_static(b"genesis")]), Vec::new());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_grapevine"))
        .args(["channel", "list", "--config", &files.config()])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_bad_log_filter_is_named() {
    let files = Files::new();
    let output = Command::new(env!("CARGO_BIN_EXE_grapevine"))
        .args(["run", "--config", &files.config()])
        .env("GRAPEVINE_LOG", "a=b=c")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("GRAPEVINE_LOG=a=b=c"), "{}", text(&output.stderr));
}

#[test]
fn joining_without_a_peer_goes_to_the_ledger() {
    let files = Files::new();
    let (config, file) = (files.config(), files.path("trade.block"));
    let block = genesis("trade", 1);
    std::fs::write(&file, block.encoded()).unwrap();
    for _ in 0..2 {
        let said = works(&["channel", "join", "--block", &file, "--config", &config]);
        assert!(said.starts_with("joined trade"), "{said}");
    }
    assert_eq!(files.ledger().tip(&trade()), Some((0, block.hash())));

    std::fs::write(&file, genesis("trade", 2).encoded()).unwrap();
    let complaint = fails(&["channel", "join", "--block", &file, "--config", &config]);
    assert!(complaint.contains("another genesis block"), "{complaint}");
    let held = files.ledger();
    let complaint = fails(&["channel", "join", "--block", &file, "--config", &config]);
    assert!(complaint.contains("in use by another process"), "{complaint}");
    assert!(complaint.contains(&held.path().display().to_string()), "{complaint}");
}

/// A genesis block whose channel requires what this version does not know.
fn genesis_of_the_future() -> AuthenticBlock {
    let today = genesis("trade", 1);
    let envelope = Envelope::decode(today.block().transactions()[0].clone()).unwrap();
    let mut payload = Payload::decode(envelope.payload.clone()).unwrap();
    let mut carried = ConfigEnvelope::decode(payload.data).unwrap();
    let root = carried.config.as_mut().unwrap().channel_group.as_mut().unwrap();
    let capabilities = root.values.get_mut("Capabilities").unwrap();
    let mut names = Capabilities::decode(capabilities.value.as_slice()).unwrap();
    names.capabilities.insert("V9_0".to_owned(), Capability::default());
    capabilities.value = names.encode_to_vec();
    payload.data = carried.encode_to_vec().into();
    let envelope = Envelope { payload: payload.encode_to_vec().into(), ..envelope };
    block(0, None, vec![envelope.encode_to_vec().into()])
}

#[test]
fn an_unknown_capability_says_upgrade_and_stops_nothing_else() {
    let files = Files::new();
    let (config, file, other) = (files.config(), files.path("future.block"), files.path("audit.block"));
    let future = genesis_of_the_future();
    std::fs::write(&file, future.encoded()).unwrap();
    std::fs::write(&other, genesis("audit", 1).encoded()).unwrap();
    let says_upgrade = |arguments: &[&str]| {
        let complaint = fails(arguments);
        for part in ["/Channel requires the capability V9_0", "upgrade grapevine"] {
            assert!(complaint.contains(part), "{complaint}");
        }
        complaint
    };
    let complaint = says_upgrade(&["channel", "join", "--block", &file, "--config", &config]);
    assert!(complaint.contains(&file) && !complaint.contains("not a channel's genesis block"), "{complaint}");
    assert!(!files.data().join(DIRECTORY).exists());

    // The block can be looked at all the same; only as the config in force it is of no use.
    let shown = works(&["block", "show", &file]);
    assert!(shown.contains(&future.hash().to_string()), "{shown}");
    let complaint = says_upgrade(&["block", "show", &other, "--config-block", &file]);
    assert!(!complaint.contains("carries no config"), "{complaint}");

    // As a later version may have left it behind in the ledger.
    files.ledger().create_channel(&trade(), &future).unwrap();
    says_upgrade(&["channel", "config", "show", "-c", "trade", "--config", &config]);
    let shown = works(&["block", "show", "0", "-c", "trade", "--config", &config]);
    assert!(shown.contains(&future.hash().to_string()), "{shown}");
    works(&["channel", "join", "--block", &other, "--config", &config]);
    let shown = works(&["channel", "config", "show", "-c", "audit", "--config", &config]);
    assert!(shown.contains("audit"), "{shown}");
}

#[test]
fn joining_with_a_wrong_file_names_the_file() {
    let files = Files::new();
    let config = files.config();
    let complaint = fails(&["channel", "join", "--block", "/no/such.block", "--config", &config]);
    assert!(complaint.contains("/no/such.block") && complaint.contains("--block"), "{complaint}");
    let not_a_block = files.path("peer.yaml");
    let not_genesis = files.path("1.block");
    std::fs::write(&not_genesis, block(1, Some(Digest([1; 32])), vec![Bytes::from_static(b"x")]).encoded())
        .unwrap();
    for file in [not_a_block, not_genesis] {
        let complaint = fails(&["channel", "join", "--block", &file, "--config", &config]);
        assert!(complaint.contains(&file), "{complaint}");
    }
    assert!(!files.data().join(DIRECTORY).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_beside_a_running_peer_asks_the_peer() {
    let files = Files::new();
    let _ledger = files.ledger();
    let _stop = serve(&files.data(), 1).drop_guard();
    let file = files.path("trade.block");
    std::fs::write(&file, genesis("trade", 1).encoded()).unwrap();
    let said = works(&["channel", "join", "--block", &file, "--config", &files.config()]);
    assert_eq!(said, "joined asked-the-peer\n");
}

#[test]
fn export_writes_what_was_submitted_in_order_without_config_transactions() {
    let files = Files::new();
    let config = files.config();
    let client = |payload: &[u8]| transaction(HeaderType::EndorserTransaction, payload);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let genesis = genesis("trade", 1);
    let blocks = vec![
        vec![client(b"first\n"), client(b""), client(&all_bytes)],
        vec![transaction(HeaderType::Config, b"not for export")],
        vec![client(b"last")],
    ];
    let ledger = files.ledger();
    fill(&ledger, &genesis, blocks);
    let expected = [b"first\n".as_slice(), &all_bytes, b"last"].concat();

    let output = files.path("out");
    let said = works(&["channel", "export", "-c", "trade", "--config", &config, "--output", &output]);
    assert!(said.starts_with("4 transactions of 4 blocks"), "{said}");
    assert_eq!(std::fs::read(&output).unwrap(), expected);
    assert!(!Path::new(&format!("{output}.partial")).exists());
    let piped = grapevine(&["channel", "export", "-c", "trade", "--config", &config, "--output", "-"]);
    assert_eq!(piped.stdout, expected);

    let directory = files.path("blocks");
    works(&["channel", "export", "-c", "trade", "--config", &config, "--blocks-dir", &directory]);
    for number in 0..4 {
        let written = std::fs::read(format!("{directory}/{number:03}.block")).unwrap();
        assert_eq!(Some(Bytes::from(written)), ledger.block(&trade(), number).unwrap());
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 4);

    let nowhere = files.path("missing/out");
    let complaint = fails(&["channel", "export", "-c", "trade", "--config", &config, "--output", &nowhere]);
    assert!(complaint.contains(&nowhere), "{complaint}");
    let complaint = fails(&["channel", "export", "-c", "audit", "--config", &config, "--output", &output]);
    assert!(complaint.contains("has not joined channel audit"), "{complaint}");
}
