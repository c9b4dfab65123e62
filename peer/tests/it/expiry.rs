//! Certificates that have expired: of an orderer's or a client's TLS, and of the peer itself.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use grapevine_configs::{ConfigFile, NetworkConfig};
use grapevine_orderer_mock::server::RunningServer;
use grapevine_orderer_mock::testing::{SINGLE, TestNetwork};
use grapevine_peer::deliver::{DeliverClient, DeliverConfig, DeliverEndpoint, DeliverEvent, DeliverTls};
use grapevine_peer::net_init::{InitReport, net_init};

use crate::deliver_server::fixture::{
    Client, DELIVER, Fixture, channel, connect, now, server_tls, try_connect, within,
};

const DEADLINE: Duration = Duration::from_secs(30);
const DAY: i64 = 86_400;
const NETWORK: &str = "\
ordering: { orderers: [ { name: orderer, listenAddress: 127.0.0.1:0 } ] }
organizations:
  - mspId: Org1MSP
    domain: org1.example.com
    peers: [ { name: peer0, listenAddress: 127.0.0.1:0 } ]
channels: [ { name: trade, organizations: [Org1MSP] } ]
";

#[tokio::test]
async fn an_orderer_whose_tls_certificate_has_expired_is_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let network = TestNetwork::new(directory.path()).unwrap();
    let genesis = network.genesis("trade", SINGLE, 50).unwrap();
    let mut options = network.options(vec![genesis]);
    options.tls = Some(network.expired_server_tls().unwrap());
    let server = RunningServer::start(options).await.unwrap();
    let address = format!("localhost:{}", server.address().port());
    let tls_roots = network.client_tls().unwrap().roots;
    let endpoints = vec![DeliverEndpoint { address, tls_roots }];
    let mut config = DeliverConfig::new(channel(), endpoints, 2 << 20);
    config.tls = Some(DeliverTls::default());
    let (sink, mut events) = tokio::sync::mpsc::channel(1);
    let _client = DeliverClient::spawn(config, network.member().unwrap(), 0, sink);
    match within(events.recv()).await.unwrap() {
        DeliverEvent::Failed { reason, .. } => assert!(reason.contains("xpired"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_whose_tls_certificate_has_expired_is_refused() {
    let fixture = Fixture::with(|network, options| options.tls = Some(server_tls(network, true))).await;
    let valid = connect(fixture.server.address(), Some(fixture.network.client_tls().unwrap())).await;
    assert!(Client::open(valid, DELIVER, fixture.member()).await.is_ok());
    let tls = fixture.network.expired_client_tls().unwrap();
    // With TLS 1.3 a client learns it when it uses the connection.
    let refused = match try_connect(fixture.server.address(), Some(tls)).await {
        Err(_) => true,
        Ok(connection) => Client::open(connection, DELIVER, fixture.member()).await.is_err(),
    };
    assert!(refused);
}

struct Peer {
    process: Child,
    log: mpsc::Receiver<String>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _ = self.process.wait();
    }
}

fn grapevine() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grapevine"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

impl Peer {
    fn start(report: &InitReport) -> Self {
        let config = report.directory.join("peer0.org1.example.com/peer.yaml");
        let mut command = grapevine();
        command.args(["run", "--config"]).arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (sender, log) = mpsc::channel();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _nobody_waits = sender.send(line);
            }
        });
        Self { process, log }
    }

    /// The log up to the line that has these words.
    fn until(&self, words: &str) -> Vec<String> {
        let (deadline, mut lines) = (Instant::now() + DEADLINE, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("no {words:?} in {lines:#?}"));
            let found = line.contains(words);
            lines.push(line);
            if found {
                return lines;
            }
        }
    }
}

/// The peer runs whatever its certificate says, and answers its operator. Others refuse it; see the tests of
/// `driver::trust`.
#[test]
fn a_peer_tells_that_its_certificate_has_expired_or_will_soon_and_runs() {
    let (network, _) = NetworkConfig::parse(NETWORK, "network.yaml", None, std::iter::empty()).unwrap();
    let ten_years = 10 * 365 * DAY;
    for (issued, words) in [
        (now() - ten_years - DAY, Some("certificate has expired")),
        (now() - ten_years + 5 * DAY, Some("certificate expires in")),
        (now(), None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let report = net_init(&network, &directory.path().join("net"), issued).unwrap();
        let peer = Peer::start(&report);
        let mut log = peer.until("listening=");
        if let Some(words) = words.filter(|words| !log.iter().any(|line| line.contains(words))) {
            peer.until(words);
        }
        let config = report.directory.join("peer0.org1.example.com/peer.yaml");
        let status = grapevine().args(["status", "--config"]).arg(config).output().unwrap();
        let text = String::from_utf8(status.stdout).unwrap();
        assert!(status.status.success() && text.contains("trade"), "{text}");
        log.extend(peer.log.try_iter());
        assert!(words.is_some() || !log.iter().any(|line| line.contains("certificate")), "{log:?}");
    }
}
