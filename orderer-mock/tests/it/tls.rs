//! TLS, with and without client authentication, and the binding of requests to connections.

use grapevine_channels::proto::common::Status;
use grapevine_channels::proto::orderer::SeekPosition;
use grapevine_crypto::{Certificate, sha256};
use grapevine_orderer_mock::client::{ClientTls, connect};
use grapevine_orderer_mock::server::{RunningServer, ServerTls};
use grapevine_orderer_mock::testing::{SINGLE, TestNetwork};

use crate::client::{Deliver, channel, now, range, within};

struct TlsFixture {
    _directory: tempfile::TempDir,
    network: TestNetwork,
    server: RunningServer,
}

async fn start(client_auth: bool) -> TlsFixture {
    let directory = tempfile::tempdir().unwrap();
    let network = TestNetwork::new(directory.path()).unwrap();
    let genesis = network.genesis("trade", SINGLE, 50).unwrap();
    let mut options = network.options(vec![genesis]);
    options.tls = Some(network.server_tls(client_auth).unwrap());
    let server = RunningServer::start(options).await.unwrap();
    TlsFixture { _directory: directory, network, server }
}

#[tokio::test]
async fn blocks_come_over_tls() {
    let fixture = start(false).await;
    let tls = ClientTls { identity: None, ..fixture.network.client_tls().unwrap() };
    let options = TestNetwork::client_options(fixture.server.address(), Some(tls));
    let mut deliver = Deliver::open(&options, fixture.network.member().unwrap()).await;
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::oldest())).await;
    assert_eq!(deliver.block().await.header().number, 0);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let fixture = start(false).await;
    let other = TestNetwork::new(fixture._directory.path()).unwrap();
    for (tls, want) in
        [(other.client_tls().unwrap(), "BadSignature"), (ClientTls::default(), "UnknownIssuer")]
    {
        let error = within(connect(&TestNetwork::client_options(fixture.server.address(), Some(tls)))).await;
        let text = error.err().unwrap().to_string();
        assert!(text.contains(want) && !text.contains('\n'), "{text}");
    }
    let wrong_name =
        ClientTls { server_name: Some("other.example".into()), ..fixture.network.client_tls().unwrap() };
    let error =
        within(connect(&TestNetwork::client_options(fixture.server.address(), Some(wrong_name)))).await;
    assert!(error.is_err());
}

#[tokio::test]
async fn client_authentication_binds_requests_to_connections() {
    let fixture = start(true).await;
    let tls = fixture.network.client_tls().unwrap();
    let own = Certificate::from_pem(&tls.identity.as_ref().unwrap().0).unwrap().fingerprint();
    let options = TestNetwork::client_options(fixture.server.address(), Some(tls));
    let seek = range(SeekPosition::oldest(), SeekPosition::oldest());
    let member = fixture.network.member().unwrap();
    for hash in [None, Some(sha256(b"another certificate"))] {
        let mut deliver = Deliver::open(&options, member.clone()).await;
        deliver.seek_with(&seek, &channel(), now(), hash).await;
        assert_eq!(deliver.last_status().await, Status::BadRequest);
    }
    let mut deliver = Deliver::open(&options, member).await;
    deliver.seek_with(&seek, &channel(), now(), Some(own)).await;
    assert_eq!(deliver.block().await.header().number, 0);
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let fixture = start(true).await;
    let tls = ClientTls { identity: None, ..fixture.network.client_tls().unwrap() };
    // With TLS 1.3 the client learns of the refusal only when it uses the connection.
    let options = TestNetwork::client_options(fixture.server.address(), Some(tls));
    let refused = match within(connect(&options)).await {
        Err(_) => true,
        Ok(mut client) => within(client.deliver(tokio_stream::empty())).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn broken_tls_material_is_an_error_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let network = TestNetwork::new(directory.path()).unwrap();
    let mut options = network.options(Vec::new());
    options.tls =
        Some(ServerTls { certificate: b"junk".to_vec(), key: b"junk".to_vec(), client_roots: None });
    let error = RunningServer::start(options).await.unwrap_err();
    assert!(error.to_string().contains("General.TLS"), "{error}");
}
