//! A whole peer: `net init`, an ordering service, `grapevine run`, a client that follows, SIGTERM.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use grapevine_channels::proto::common::Status;
use grapevine_channels::proto::orderer::SeekInfo;
use grapevine_configs::{ConfigFile, NetworkConfig};
use grapevine_crypto::{LocalMsp, MspId, Signer};
use grapevine_orderer_mock::chain::BatchOverrides;
use grapevine_orderer_mock::client::{ClientOptions, ClientTls};
use grapevine_orderer_mock::pieces::Cutting;
use grapevine_orderer_mock::server::{
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, RunningServer, ServerOptions, ServerTls,
};
use grapevine_orderer_mock::submit::{SubmitOptions, submit};
use grapevine_peer::net_init::{InitReport, net_init};

use super::fixture::{Client, DELIVER, FILTERED, channel, now, try_connect, within};

const NETWORK: &str = "\
ordering: { batch: { timeout: 50ms, maxMessageCount: 1 }, orderers: [ { name: orderer, listenAddress: 127.0.0.1:0 } ] }
organizations:
  - mspId: Org1MSP
    domain: org1.example.com
    peers: [ { name: peer0, listenAddress: 127.0.0.1:0, deliverListenAddress: 127.0.0.1:0 } ]
channels: [ { name: trade, organizations: [Org1MSP], anchorPeers: { Org1MSP: [peer0] } } ]
";
/// Below the directory of the network.
const ORDERER: &str = "crypto/ordererOrganizations/example.com/orderers/orderer.example.com";
const PEER: &str = "crypto/peerOrganizations/org1.example.com/peers/peer0.org1.example.com";
const USER: &str = "crypto/peerOrganizations/org1.example.com/users/User1@org1.example.com";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signer(directory: &Path, msp_id: &str) -> Arc<Signer> {
    Arc::new(LocalMsp::load(&directory.join("msp"), &MspId::from(msp_id)).unwrap().signer)
}

async fn orderer(report: &InitReport) -> RunningServer {
    let own = report.directory.join(ORDERER);
    let read = |file: &str| std::fs::read(own.join("tls").join(file)).unwrap();
    let options = ServerOptions {
        listen: report.network.ordering.orderers[0].listen_address,
        tls: Some(ServerTls { certificate: read("server.crt"), key: read("server.key"), client_roots: None }),
        location: report.directory.join("blocks"),
        genesis_files: vec![report.directory.join("channels/trade.block")],
        signer: signer(&own, "OrdererMSP"),
        time_window: Duration::from_secs(900),
        keepalive_interval: KEEPALIVE_INTERVAL,
        keepalive_timeout: KEEPALIVE_TIMEOUT,
        batch: BatchOverrides::default(),
        trace: grapevine_block_trace::BlockTrace::off(),
    };
    RunningServer::start(options).await.unwrap()
}

fn run(report: &InitReport) -> Killed {
    let config = report.directory.join("peer0.org1.example.com/peer.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_grapevine"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORE_")) {
        command.env_remove(name);
    }
    command.args(["run", "--config"]).arg(config).stdin(Stdio::null());
    Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn a_client_follows_a_running_peer_until_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let (network, _) = NetworkConfig::parse(NETWORK, "network.yaml", None, std::iter::empty()).unwrap();
    let report = net_init(&network, &directory.path().join("net"), now()).unwrap();
    let orderer = orderer(&report).await;
    let mut peer = run(&report);
    let address = report.network.organizations[0].peers[0].deliver_listen_address.unwrap();
    let tls = ClientTls {
        roots: vec![std::fs::read(report.directory.join(PEER).join("tls/ca.crt")).unwrap()],
        ..ClientTls::default()
    };
    let connection = within(async {
        loop {
            match try_connect(address, Some(tls.clone())).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    let user = signer(&report.directory.join(USER), "Org1MSP");
    let mut whole = Client::open(connection.clone(), DELIVER, user.clone()).await.unwrap();
    let mut filtered = Client::open(connection, FILTERED, user.clone()).await.unwrap();
    whole.seek(&SeekInfo::from_number(0)).await;
    filtered.seek(&SeekInfo::from_number(1)).await;
    assert_eq!(whole.number().await, 0);

    let file: PathBuf = directory.path().join("input");
    std::fs::write(&file, b"abcde").unwrap();
    let roots = vec![std::fs::read(report.directory.join(ORDERER).join("tls/ca.crt")).unwrap()];
    let options = SubmitOptions {
        orderer: ClientOptions {
            address: orderer.address().to_string(),
            tls: Some(ClientTls { roots, ..ClientTls::default() }),
            connect_timeout: Duration::from_secs(3),
        },
        channel: channel(),
        file,
        cutting: Cutting::Pieces(1),
        rate: None,
        wait: Duration::ZERO,
    };
    within(submit(options, user)).await.unwrap();
    for number in 1..=5 {
        assert_eq!(whole.number().await, number);
        let block = filtered.filtered().await;
        assert_eq!(block.number, number);
        assert!(block.filtered_transactions.iter().all(|transaction| transaction.tx_validation_code == 254));
    }

    let terminated = Instant::now();
    let pid = peer.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(whole.last_status().await, Status::ServiceUnavailable);
    assert_eq!(filtered.last_status().await, Status::ServiceUnavailable);
    let exit = within(async {
        loop {
            if let Some(status) = peer.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(
        exit.success() && terminated.elapsed() < Duration::from_secs(5),
        "{exit} {:?}",
        terminated.elapsed()
    );
}
