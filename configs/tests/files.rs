//! `orderer.yaml`, `client.yaml`, the sample files, and the table of defaults.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use grapevine_configs::{
    ClientConfig, ConfigError, ConfigFile, GossipConfig, NetworkConfig, OrdererConfig, PeerConfig, Period,
};

const ORDERER: &str = "\
General:
  LocalMSPID: OrdererMSP
  LocalMSPDir: msp
FileLedger: { Location: ledger }
";

fn none() -> std::iter::Empty<(String, String)> {
    std::iter::empty()
}

fn variables(list: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.into_iter()
}

fn orderer(more: &str, list: &[(&str, &str)]) -> Result<OrdererConfig, ConfigError> {
    let text = format!("{ORDERER}{more}");
    OrdererConfig::parse(&text, "orderer.yaml", Some(Path::new("/o")), variables(list))
        .map(|(config, _)| config)
}

#[test]
fn the_least_orderer_gets_fabrics_defaults() {
    let config = orderer("", &[]).unwrap();
    assert_eq!(config.listen_socket(), "127.0.0.1:7050".parse().unwrap());
    assert_eq!(config.general.authentication.time_window, Period::seconds(900));
    assert_eq!(config.file_ledger.location, PathBuf::from("/o/ledger"));
    assert_eq!(config.general.local_msp_dir, PathBuf::from("/o/msp"));
}

#[test]
fn orderer_variables_override() {
    let list = [
        ("ORDERER_GENERAL_LISTENADDRESS", "0.0.0.0"),
        ("ORDERER_GENERAL_LISTENPORT", "7060"),
        ("ORDERER_GENERAL_LOCALMSPID", "Other"),
        ("ORDERER_FILELEDGER_LOCATION", "/elsewhere"),
        ("ORDERER_GENERAL_TLS_ENABLED", "false"),
        ("ORDERER_BATCH_TIMEOUT", "50ms"),
        ("ORDERER_CHANNELS", "a.block b.block"),
        ("CORE_PEER_GOSSIP_NONSENSE", "not ours to judge"),
    ];
    let config = orderer("", &list).unwrap();
    assert_eq!(config.listen_socket(), "0.0.0.0:7060".parse().unwrap());
    assert_eq!(config.general.local_msp_id, "Other");
    assert_eq!(config.file_ledger.location, PathBuf::from("/elsewhere"));
    assert_eq!(config.batch.timeout, Some(Period::milliseconds(50)));
    assert_eq!(config.channels, [PathBuf::from("/o/a.block"), "/o/b.block".into()]);
}

#[test]
fn bad_orderer_files() {
    for (more, expected) in [
        (
            "Batch: { PreferredMaxBytes: 2 MB, AbsoluteMaxBytes: 1 MB }\n",
            "orderer.yaml:5: Batch.PreferredMaxBytes: 2 MiB is more than AbsoluteMaxBytes (1 MiB); make it smaller",
        ),
        (
            "Batch: { AbsoluteMaxBytes: 100 MB }\n",
            "orderer.yaml:5: Batch.AbsoluteMaxBytes: 100 MiB is out of range; write 1 B to 99 MiB",
        ),
        (
            "Batch: { AbsoluteMaxBytes: 10 bananas }\n",
            "orderer.yaml:5: Batch.AbsoluteMaxBytes: \"10 bananas\" is not a size; write bytes or a unit, such as 512 KB, 10 MB or 4MiB",
        ),
        ("Batch: { MaxMessageCount: 0 }\n", "orderer.yaml:5: Batch.MaxMessageCount: must be at least 1"),
        ("Batch: { Timeout: 0s }\n", "orderer.yaml:5: Batch.Timeout: must be at least 1ms"),
        ("Batches: {}\n", "orderer.yaml:5: Batches: is not a known key; did you mean Batch?"),
    ] {
        assert_eq!(orderer(more, &[]).expect_err(more).to_string(), expected);
    }
    for (name, value, expected) in [
        (
            "ORDERER_GENERAL_LISTENPORT",
            "70000",
            "General.ListenPort: \"70000\" is not a whole number from 0 to 65535",
        ),
        (
            "ORDERER_GENERAL_LISTENADDRESS",
            "localhost",
            "General.ListenAddress: \"localhost\" is not an IP address; write one such as 127.0.0.1 or 0.0.0.0",
        ),
        (
            "ORDERER_GENERAL_TLS_CLIENTAUTHREQUIRED",
            "true",
            "General.TLS.ClientAuthRequired: needs General.TLS.Enabled; set that to true, or this to false",
        ),
        (
            "ORDERER_GENERAL_AUTHENTICATION_TIMEWINDOW",
            "0s",
            "General.Authentication.TimeWindow: must be longer than 0s; 15m is usual",
        ),
        (
            "ORDERER_GENERAL_LISTENPRT",
            "1",
            "does not name a known key; did you mean ORDERER_GENERAL_LISTENPORT? Otherwise unset it",
        ),
    ] {
        let error = orderer("", &[(name, value)]).expect_err(name).to_string();
        assert_eq!(error, format!("environment variable {name}: {expected}"));
    }
    let error = orderer("", &[("ORDERER_GENERAL_TLS_ENABLED", "true")]).unwrap_err();
    assert_eq!(error.problems().len(), 2);
    assert!(error.to_string().contains("which needs General.TLS.Certificate; name the PEM file"));
}

#[test]
fn a_fabric_orderer_file_loads_with_one_warning() {
    let text = format!("{ORDERER}Kafka: {{ Retry: 1 }}\nMetrics: {{ Provider: disabled }}\n");
    let text = text.replace(
        "  LocalMSPDir",
        "  Cluster: { SendBufferSize: 100 }\n  BootstrapMethod: none\n  LocalMSPDir",
    );
    let (_, warnings) = OrdererConfig::parse(
        &text,
        "orderer.yaml",
        None,
        variables(&[("ORDERER_OPERATIONS_LISTENADDRESS", "x")]),
    )
    .unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].to_string().ends_with(
        "ignored: General.Cluster (line 3), General.BootstrapMethod (line 4), Kafka (line 7), Metrics (line 8), ORDERER_OPERATIONS_LISTENADDRESS"
    ));
}

#[test]
fn an_orderer_file_serves_a_client() {
    let tls =
        "  TLS: { Enabled: true, Certificate: a, PrivateKey: b, RootCAs: [c] }\n  ListenAddress: 0.0.0.0\n";
    let text = ORDERER.replace("FileLedger", &format!("{tls}FileLedger"));
    let (client, _) = ClientConfig::parse(&text, "orderer.yaml", Some(Path::new("/o")), none()).unwrap();
    let client = client.client;
    assert_eq!(client.orderer.to_string(), "localhost:7050");
    assert_eq!(client.tls.root_cas, [PathBuf::from("/o/c")]);
    assert_eq!(client.tls.client_cert.file, None);
    assert_eq!(client.msp_config_path, PathBuf::from("/o/msp"));

    let text = text.replace(", RootCAs: [c]", "");
    let error = ClientConfig::parse(&text, "orderer.yaml", None, none()).unwrap_err().to_string();
    assert!(error.contains("General.TLS.RootCAs: is missing"), "{error}");
}

#[test]
fn bad_client_files() {
    let good = "client:\n  localMspId: A\n  mspConfigPath: m\n  orderer: o:1\n";
    for (more, expected) in [
        (
            "  tls: { enabled: true }\n",
            "c.yaml:5: client.tls.enabled: is true, which needs client.tls.rootCAs; name the orderer's root certificates",
        ),
        (
            "  tls: { clientCert: { file: a } }\n",
            "c.yaml:5: client.tls.clientCert.file: clientCert.file and clientKey.file belong together; name both or neither",
        ),
        ("  connTimeout: 0s\n", "c.yaml:5: client.connTimeout: must be longer than 0s; 3s is usual"),
        ("  ordrer: a:1\n", "c.yaml:5: client.ordrer: is not a known key; did you mean orderer?"),
    ] {
        let error = ClientConfig::parse(&format!("{good}{more}"), "c.yaml", None, none()).expect_err(more);
        assert_eq!(error.to_string(), expected);
    }
    let error = ClientConfig::parse("client: {}\n", "c.yaml", None, none()).unwrap_err();
    assert_eq!(error.problems().len(), 3);
}

#[test]
fn samples_load_without_a_warning_and_read_back() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let samples = directory.join("samples");
    let (peer, warnings) = PeerConfig::load(&samples.join("peer.yaml"), none()).unwrap();
    assert_eq!(warnings, []);
    let defaults = GossipConfig {
        bootstrap: peer.peer.gossip.bootstrap.clone(),
        external_endpoint: peer.peer.gossip.external_endpoint.clone(),
        ..GossipConfig::default()
    };
    assert_eq!(peer.peer.gossip, defaults, "the sample shows other values than the defaults");
    assert_eq!(peer.peer.deliveryclient, Default::default());
    assert_eq!(PeerConfig::parse(&peer.to_yaml().unwrap(), "", None, none()).unwrap().0, peer);

    let (orderer, warnings) = OrdererConfig::load(&samples.join("orderer.yaml"), none()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(OrdererConfig::parse(&orderer.to_yaml().unwrap(), "", None, none()).unwrap().0, orderer);

    let (client, warnings) = ClientConfig::load(&samples.join("client.yaml"), none()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(ClientConfig::parse(&client.to_yaml().unwrap(), "", None, none()).unwrap().0, client);

    for file in [samples.join("network.yaml"), directory.join("demo/network.yaml")] {
        let (network, warnings) = NetworkConfig::load(&file, none()).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(NetworkConfig::parse(&network.to_yaml().unwrap(), "", None, none()).unwrap().0, network);
    }
}

#[test]
fn the_readme_has_the_table_of_the_code() {
    let code = include_str!("../src/gossip.rs");
    let table: Vec<&str> = code
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.starts_with('|'))
        .collect();
    assert!(table.len() > 20);
    assert!(
        include_str!("../README.md").contains(&table.join("\n")),
        "copy the table of src/gossip.rs into README.md"
    );
}

/// The column "Ours" against the values the code uses.
#[test]
fn the_table_tells_the_defaults() {
    let yaml = serde_json::to_value(GossipConfig::default()).unwrap();
    let mut checked = 0;
    for row in include_str!("../README.md")
        .split("## Defaults")
        .nth(1)
        .unwrap()
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, key, _, ours, ..] = cells[..] else { continue };
        let value = key.split('.').fold(&yaml, |value, part| &value[part]);
        match value {
            serde_json::Value::Null | serde_json::Value::Array(_) => continue,
            serde_json::Value::String(text) => assert_eq!(text, ours, "{key}"),
            other => assert_eq!(other.to_string(), ours, "{key}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 22);
}
