//! The binary: runs from files, stops on signals, and says in one line what is wrong.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use grapevine_orderer_mock::testing::{SINGLE, TestNetwork};

const BINARY: &str = env!("CARGO_BIN_EXE_orderer-mock");

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Files {
    directory: tempfile::TempDir,
    config: PathBuf,
    member: PathBuf,
    authority: PathBuf,
}

fn files() -> Files {
    files_and_network().0
}

fn files_and_network() -> (Files, TestNetwork) {
    let directory = tempfile::tempdir().unwrap();
    let network = TestNetwork::new(directory.path()).unwrap();
    let orderer = network.orderer_directory().unwrap();
    network.genesis("trade", SINGLE, 50).unwrap();
    let config = directory.path().join("orderer.yaml");
    fs::write(
        &config,
        "General:\n  ListenAddress: 127.0.0.1\n  ListenPort: 0\n  LocalMSPID: OrdererMSP\n  LocalMSPDir: orderer/msp\n  \
         TLS:\n    Enabled: true\n    Certificate: orderer/tls/server.crt\n    PrivateKey: orderer/tls/server.key\n    \
         RootCAs: [orderer/tls/ca.crt]\nFileLedger:\n  Location: ledger\nChannels: [trade.block]\n",
    )
    .unwrap();
    let member = network.member_directory().unwrap();
    (Files { authority: orderer.join("tls/ca.crt"), directory, config, member }, network)
}

/// Starts the orderer; returns it with the address it says it listens on.
fn start(config: &Path) -> (Running, String) {
    let mut child =
        Command::new(BINARY).args(["run", "--config"]).arg(config).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = Running(child);
    let address = lines.find_map(|line| {
        line.unwrap().split_once("listening on ").map(|(_, address)| address.trim().to_owned())
    });
    // Keep reading, so that the orderer never blocks on its log.
    std::thread::spawn(move || lines.for_each(drop));
    (running, address.expect("the orderer ended without listening"))
}

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn error_line(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    errors[0].to_owned()
}

#[test]
fn runs_takes_a_file_over_tls_and_stops_on_sigterm() {
    let files = files();
    let (mut orderer, address) = start(&files.config);
    let input = files.directory.path().join("input");
    fs::write(&input, b"one\ntwo\n").unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let submit = |channel: &str, id: &str| {
        run(&[
            "submit",
            "--channel",
            channel,
            "--file",
            &path(&input),
            "--lines",
            "--orderer",
            &address,
            "--msp-dir",
            &path(&files.member),
            "--msp-id",
            id,
            "--tls-root",
            &path(&files.authority),
        ])
    };
    let output = submit("trade", "Org1MSP");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("submitted 2 transactions, 8 bytes"));
    assert!(error_line(&submit("other", "Org1MSP")).contains("400"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !files.directory.path().join("ledger/trade/002.block").exists() {
        assert!(Instant::now() < deadline, "no second block");
        std::thread::sleep(Duration::from_millis(10));
    }
    let stopping = Instant::now();
    let id = orderer.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(orderer.0.wait().unwrap().success());
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
}

#[test]
fn changes_the_config_and_switches_faults_by_command() {
    let (files, network) = files_and_network();
    let [orderer_admin, admin, foreign_admin] = network.admin_directories().unwrap();
    let list = files.directory.path().join("revoked.pem");
    fs::write(&list, network.revoke(&network.member().unwrap()).unwrap()).unwrap();
    let (orderer, address) = start(&files.config);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let of = |id: &str, file: &Path| format!("{id}={}", path(file));
    let client = [
        "--orderer".to_owned(),
        address,
        "--msp-dir".to_owned(),
        path(&files.member),
        "--msp-id".to_owned(),
        "Org1MSP".to_owned(),
        "--tls-root".to_owned(),
        path(&files.authority),
    ];
    let org1 = of("Org1MSP", &admin);
    let update = |arguments: &[&str]| {
        let mut all = vec!["update", "--channel", "trade"];
        all.extend(client.iter().map(String::as_str));
        all.extend(arguments);
        run(&all)
    };
    let updated = |arguments: &[&str], sequence: u64| {
        let output = update(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("config {sequence} of channel trade")), "{text}");
    };
    assert!(error_line(&update(&["--signer", &org1])).contains("--anchor"));
    assert!(error_line(&update(&["--anchor", "Org1MSP=peer0:7051"])).contains("400"));
    updated(&["--signer", &org1, "--anchor", "Org1MSP=peer0:7051", "--anchor", "Org1MSP=peer1:7051"], 1);
    let unchanged =
        update(&["--signer", &org1, "--anchor", "Org1MSP=peer0:7051", "--anchor", "Org1MSP=peer1:7051"]);
    assert!(error_line(&unchanged).contains("changes nothing"));
    updated(&["--signer", &of("OrdererMSP", &orderer_admin), "--batch-count", "3"], 2);
    updated(&["--signer", &org1, "--crl", &of("Org1MSP", &list)], 3);
    updated(&["--signer", &org1, "--add-org", &of("Org9MSP", &foreign_admin)], 4);
    let org9 = of("Org9MSP", &foreign_admin);
    updated(&["--signer", &org1, "--signer", &org9, "--remove-org", "Org9MSP"], 5);
    assert!(files.directory.path().join("ledger/trade/005.block").exists());

    let config = path(&files.config);
    let fault = |arguments: &[&str]| {
        let mut all = vec!["fault", "--config", &config];
        all.extend(arguments);
        run(&all)
    };
    for kind in [&["withhold"][..], &["withhold", "3"], &["delay", "20"], &["bad-signature"], &["equivocate"]]
    {
        let output = fault(kind);
        assert!(output.status.success(), "{kind:?}: {output:?}");
    }
    assert!(fault(&["--channel", "trade", "wrong-previous-hash"]).status.success());
    assert!(fault(&["status", "503"]).status.success());
    let anchor = ["--signer", &org1, "--anchor", "Org1MSP="];
    assert!(error_line(&update(&anchor)).contains("503"));
    assert!(error_line(&fault(&["--channel", "audit", "clear"])).contains("audit"));
    assert!(error_line(&fault(&["status", "200"])).contains("200"));
    assert!(fault(&["clear"]).status.success());
    updated(&anchor, 6);
    drop(orderer);
    assert!(error_line(&fault(&["clear"])).contains("no ordering service runs"));
}

#[test]
fn logs_to_a_file_have_no_colours() {
    let files = files();
    let config = files.config.to_str().unwrap();
    fs::write(config, fs::read_to_string(config).unwrap() + "Unknown: 1\n").unwrap();
    let mut child =
        Command::new(BINARY).args(["run", "--config", config]).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let _running = Running(child);
    let read: Vec<String> = lines.take_while(|line| !line.contains("listening on")).collect();
    assert!(!read.is_empty() && read.iter().all(|line| !line.contains('\u{1b}')), "{read:?}");
}

#[test]
fn an_orderer_that_peers_will_not_believe_is_told_at_the_start() {
    for (from, to, warned) in [("LocalMSPID: OrdererMSP", "LocalMSPID: OtherMSP", true), ("", "", false)] {
        let files = files();
        let good = fs::read_to_string(&files.config).unwrap();
        assert!(good.contains(from), "{good}");
        fs::write(&files.config, good.replacen(from, to, 1)).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--config"]).arg(&files.config).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let _running = Running(child);
        let log: Vec<String> = log.take_while(|line| !line.contains("listening on")).collect();
        assert_eq!(log.iter().any(|line| line.contains("peers will refuse")), warned, "{log:?}");
    }
}

#[test]
fn errors_are_one_line_that_says_what_to_do() {
    let files = files();
    let config = files.config.to_str().unwrap();
    let good = fs::read_to_string(config).unwrap();
    let table = [
        ("ListenPort: 0", "ListenPort: zero", "ListenPort"),
        ("orderer/msp", "nowhere/msp", "nowhere"),
        ("server.crt", "missing.crt", "missing.crt"),
        ("trade.block", "missing.block", "missing.block"),
        ("trade.block", "orderer.yaml", "genesis block"),
        ("[trade.block]", "[trade.block, trade.block]", "trade"),
    ];
    for (from, to, want) in table {
        fs::write(config, good.replace(from, to)).unwrap();
        let line = error_line(&run(&["run", "--config", config]));
        assert!(line.contains(want), "{to}: {line}");
        assert!(line.matches("genesis block is not").count() < 2, "causes are told once: {line}");
    }
    assert!(error_line(&run(&["run", "--config", "absent.yaml"])).contains("absent.yaml"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(config, good.replace("ListenPort: 0", &format!("ListenPort: {port}"))).unwrap();
    let line = error_line(&run(&["run", "--config", config]));
    assert!(line.contains("cannot listen on") && line.contains(&port.to_string()), "{line}");
}
