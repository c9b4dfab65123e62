//! Who reads: policies, ACLs, changes of the config, expiry, TLS.

use std::collections::BTreeMap;
use std::path::PathBuf;

use grapevine_channels::proto::common::Status;
use grapevine_channels::proto::configtx::{Config, ConfigGroup, ConfigValue};
use grapevine_channels::proto::orderer::SeekInfo;
use grapevine_channels::proto::peer::{Acls, ApiResource};
use grapevine_configs::{FileKey, FilesKey, TlsConfig};
use grapevine_crypto::{Certificate, sha256};
use grapevine_orderer_mock::client::ClientTls;
use grapevine_peer::deliver_server::{DeliverServer, ServerTls};
use prost::Message;

use super::fixture::{
    Client, DELIVER, FILTERED, Fixture, blocks, channel, connect, now, options, server_tls, try_connect,
};

fn application(config: &mut Config) -> &mut ConfigGroup {
    config.channel_group.as_mut().unwrap().groups.get_mut("Application").unwrap()
}

fn acl(config: &mut Config, resource: &str, policy: &str) {
    let resource = (resource.to_owned(), ApiResource { policy_ref: policy.to_owned() });
    let value = Acls { acls: BTreeMap::from([resource]) }.encode_to_vec();
    let value = ConfigValue { version: 0, value, mod_policy: "Admins".into() };
    application(config).values.insert("ACLs".into(), value);
}

/// What a member gets who asks for block 0.
async fn outcome(fixture: &Fixture, method: &str) -> Option<Status> {
    let mut client = fixture.open(method).await;
    client.seek(&blocks(0, 0)).await;
    match client.answer().await {
        super::fixture::Answer::Status(status) => Some(status),
        _ => None,
    }
}

#[tokio::test]
async fn acls_of_the_channel_config_decide() {
    let fixture = Fixture::start().await;
    let mut config = fixture.genesis_config();
    assert_eq!((outcome(&fixture, DELIVER).await, outcome(&fixture, FILTERED).await), (None, None));
    let forbidden = Some(Status::Forbidden);
    for (resource, policy, want) in [
        ("event/Block", "/Channel/Application/Admins", (forbidden, None)),
        ("event/FilteredBlock", "Admins", (None, forbidden)),
        ("event/Block", "", (None, None)),
        ("event/Block", "/Channel/Readers", (None, None)),
        ("event/Block", "/Channel/Application/Missing", (forbidden, None)),
        ("qscc/GetBlockByNumber", "/Channel/Application/Admins", (None, None)),
    ] {
        config = fixture.reconfigure(&config, |config| acl(config, resource, policy));
        let got = (outcome(&fixture, DELIVER).await, outcome(&fixture, FILTERED).await);
        assert_eq!(got, want, "{resource} {policy}");
    }
}

#[tokio::test]
async fn a_running_stream_loses_its_right_with_the_config() {
    let fixture = Fixture::start().await;
    let genesis = fixture.genesis_config();
    let mut client = fixture.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(client.number().await, 0);
    // A change that leaves the right in place.
    let config = fixture.reconfigure(&genesis, |_| {});
    assert_eq!(client.number().await, 1);
    let config = fixture.reconfigure(&config, |config| acl(config, "event/Block", "Admins"));
    assert_eq!(client.last_status().await, Status::Forbidden);
    // Nor does a removed organisation get anything later.
    let config = fixture.reconfigure(&config, |config| acl(config, "event/Block", "Readers"));
    let mut client = fixture.seek(&SeekInfo::from_number(3)).await;
    assert_eq!(client.number().await, 3);
    fixture.reconfigure(&config, |config| {
        application(config).groups.remove("Org1MSP").unwrap();
    });
    assert_eq!(client.last_status().await, Status::Forbidden);
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_of_its_signer() {
    let fixture = Fixture::start().await;
    let mut client = fixture.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(client.number().await, 0);
    fixture.commit(&[b"in time"]);
    assert_eq!(client.number().await, 1);
    fixture.expire();
    fixture.commit(&[b"too late"]);
    assert_eq!(client.last_status().await, Status::Forbidden);
    assert_eq!(fixture.seek(&blocks(0, 0)).await.last_status().await, Status::Forbidden);
}

#[tokio::test]
async fn blocks_come_over_tls() {
    let fixture = Fixture::with(|network, options| options.tls = Some(server_tls(network, false))).await;
    let tls = ClientTls { identity: None, ..fixture.network.client_tls().unwrap() };
    let channel = connect(fixture.server.address(), Some(tls)).await;
    let mut client = Client::open(channel, DELIVER, fixture.member()).await.unwrap();
    client.seek(&blocks(0, 0)).await;
    assert_eq!(client.number().await, 0);
    // Plain text does not get through.
    let plain = try_connect(fixture.server.address(), None).await;
    let refused = match plain {
        Err(_) => true,
        Ok(channel) => Client::open(channel, DELIVER, fixture.member()).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn mutual_tls_binds_requests_to_connections() {
    let fixture = Fixture::with(|network, options| options.tls = Some(server_tls(network, true))).await;
    let tls = fixture.network.client_tls().unwrap();
    let own = Certificate::from_pem(&tls.identity.as_ref().unwrap().0).unwrap().fingerprint();
    let connection = connect(fixture.server.address(), Some(tls.clone())).await;
    for hash in [None, Some(sha256(b"another certificate"))] {
        let mut client = Client::open(connection.clone(), DELIVER, fixture.member()).await.unwrap();
        client.seek_with(&blocks(0, 0), &channel(), now(), hash).await;
        assert_eq!(client.last_status().await, Status::BadRequest);
    }
    let mut client = Client::open(connection, DELIVER, fixture.member()).await.unwrap();
    client.seek_with(&blocks(0, 0), &channel(), now(), Some(own)).await;
    assert_eq!(client.number().await, 0);
    // Without a certificate there is no stream; with TLS 1.3 a client learns it when it uses the connection.
    let refused = match try_connect(fixture.server.address(), Some(ClientTls { identity: None, ..tls })).await
    {
        Err(_) => true,
        Ok(connection) => Client::open(connection, DELIVER, fixture.member()).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn what_keeps_the_server_from_starting_is_one_clear_line() {
    let fixture = Fixture::start().await;
    let start = |options| DeliverServer::start(options, fixture.ledger.clone(), fixture.channels.clone());
    let taken = grapevine_peer::deliver_server::DeliverServerOptions {
        listen: fixture.server.address(),
        ..options(fixture.ahead.clone())
    };
    let error = start(taken).await.unwrap_err().to_string();
    assert!(error.contains("peer.deliverService.listenAddress") && !error.contains('\n'), "{error}");
    let junk = ServerTls { certificate: b"junk".to_vec(), key: b"junk".to_vec(), client_roots: None };
    let bad = grapevine_peer::deliver_server::DeliverServerOptions {
        tls: Some(junk),
        ..options(fixture.ahead.clone())
    };
    let error = start(bad).await.unwrap_err().to_string();
    assert!(error.contains("peer.tls.cert.file") && !error.contains('\n'), "{error}");

    let file = fixture.directory.path().join("some.pem");
    std::fs::write(&file, "pem").unwrap();
    let missing = PathBuf::from("/nowhere/at all.pem");
    let config = |cert: &PathBuf, key: &PathBuf, roots: &PathBuf| TlsConfig {
        enabled: true,
        client_auth_required: true,
        cert: FileKey::of(cert),
        key: FileKey::of(key),
        client_root_cas: FilesKey { files: vec![roots.clone()] },
        ..TlsConfig::default()
    };
    for (config, key) in [
        (config(&missing, &file, &file), "peer.tls.cert.file"),
        (config(&file, &missing, &file), "peer.tls.key.file"),
        (config(&file, &file, &missing), "peer.tls.clientRootCAs.files"),
    ] {
        let error = ServerTls::read(&config).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("/nowhere/at all.pem"), "{error}");
    }
    assert!(ServerTls::read(&TlsConfig::default()).unwrap().is_none());
}
