//! Throw-away organisations, genesis blocks and options for tests, in this crate and others.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use grapevine_channels::config::BatchSize;
use grapevine_channels::genesis::{ApplicationOrg, GenesisBuilder, OrdererOrg};
use grapevine_crypto::issue::{IssueError, Organization, Validity};
use grapevine_crypto::proto::FabricMspConfig;
use grapevine_crypto::{Algorithm, MspId, Role, Signer};

use crate::chain::BatchOverrides;
use crate::client::{ClientOptions, ClientTls};
use crate::clock::unix_seconds;
use crate::server::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, ServerOptions, ServerTls};

/// Batches of one transaction, cut at once; up to 1 MiB each.
pub const SINGLE: BatchSize =
    BatchSize { max_message_count: 1, absolute_max_bytes: 1 << 20, preferred_max_bytes: 512 << 10 };

/// An orderer organisation, a member organisation and a foreign one that is in no channel.
#[derive(Debug)]
pub struct TestNetwork {
    directory: PathBuf,
    orderers: Organization,
    members: Organization,
    foreigners: Organization,
    orderer: Arc<Signer>,
}

fn validity() -> Validity {
    Validity::ten_years_from(unix_seconds().saturating_sub(3600))
}

fn expired() -> Validity {
    let now = unix_seconds();
    Validity { not_before: now.saturating_sub(7200), not_after: now.saturating_sub(3600) }
}

fn organization(msp_id: &str, domain: &str) -> Result<Organization, IssueError> {
    // Older than any certificate below it, also than an expired one.
    let validity = Validity::ten_years_from(unix_seconds().saturating_sub(24 * 3600));
    Organization::new(MspId::from(msp_id), domain, Algorithm::Ed25519, validity)
}

impl TestNetwork {
    /// New identities; files go below `directory`.
    pub fn new(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let orderers = organization("OrdererMSP", "example.com")?;
        let orderer = Arc::new(orderers.enrol("orderer.example.com", Role::Orderer, validity())?);
        Ok(Self {
            directory: directory.to_path_buf(),
            members: organization("Org1MSP", "org1.example.com")?,
            foreigners: organization("Org9MSP", "org9.example.com")?,
            orderers,
            orderer,
        })
    }

    /// Writes the genesis block of a channel with the orderer and the member organisation.
    pub fn genesis(
        &self,
        channel: &str,
        batch_size: BatchSize,
        timeout_ms: u64,
    ) -> Result<PathBuf, Box<dyn Error>> {
        let block = GenesisBuilder::new(channel.parse()?, rand::random(), unix_seconds())
            .orderer_org(OrdererOrg {
                name: "OrdererMSP".into(),
                msp: self.orderers.msp_config(),
                endpoints: vec!["orderer.example.com:7050".into()],
            })
            .application_org(ApplicationOrg {
                name: "Org1MSP".into(),
                msp: self.members.msp_config(),
                anchor_peers: Vec::new(),
            })
            .batch_size(batch_size)
            .batch_timeout_ms(timeout_ms)
            .build()?;
        let path = self.directory.join(format!("{channel}.block"));
        std::fs::write(&path, block.encode())?;
        Ok(path)
    }

    /// A service on a free port, in plain text, that serves the channels of these genesis blocks.
    pub fn options(&self, genesis_files: Vec<PathBuf>) -> ServerOptions {
        ServerOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            location: self.directory.join("ledger"),
            genesis_files,
            signer: self.orderer.clone(),
            time_window: Duration::from_secs(15 * 60),
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            batch: BatchOverrides::default(),
            trace: grapevine_block_trace::BlockTrace::off(),
        }
    }

    /// A client of the member organisation.
    pub fn member(&self) -> Result<Arc<Signer>, IssueError> {
        Ok(Arc::new(self.members.enrol("user1.org1.example.com", Role::Client, validity())?))
    }

    /// A client of the member organisation whose certificate expired an hour ago.
    pub fn expired_member(&self) -> Result<Arc<Signer>, IssueError> {
        Ok(Arc::new(self.members.enrol("old.org1.example.com", Role::Client, expired())?))
    }

    /// A client of an organisation that is in no channel.
    pub fn foreigner(&self) -> Result<Arc<Signer>, IssueError> {
        Ok(Arc::new(self.foreigners.enrol("user1.org9.example.com", Role::Client, validity())?))
    }

    /// An administrator of the member organisation: its signature changes the application part of a channel's config.
    pub fn member_admin(&self) -> Result<Arc<Signer>, IssueError> {
        Ok(Arc::new(self.members.enrol("Admin@org1.example.com", Role::Admin, validity())?))
    }

    /// An administrator of the orderer organisation: its signature changes the orderer part of a channel's config.
    pub fn orderer_admin(&self) -> Result<Arc<Signer>, IssueError> {
        Ok(Arc::new(self.orderers.enrol("Admin@example.com", Role::Admin, validity())?))
    }

    /// An administrator of the foreign organisation.
    pub fn foreign_admin(&self) -> Result<Arc<Signer>, IssueError> {
        Ok(Arc::new(self.foreigners.enrol("Admin@org9.example.com", Role::Admin, validity())?))
    }

    /// The MSP of the foreign organisation, to add it to a channel.
    pub fn foreign_msp(&self) -> FabricMspConfig {
        self.foreigners.msp_config()
    }

    /// A revocation list of the member organisation, PEM, that revokes a member's certificate.
    pub fn revoke(&self, member: &Signer) -> Result<Vec<u8>, IssueError> {
        self.members.authority().revoke(&[member.identity().certificate()], validity())
    }

    /// Writes the MSP directories of administrators of the orderer, the member and the foreign organisation; returns their
    /// paths.
    pub fn admin_directories(&self) -> Result<[PathBuf; 3], IssueError> {
        let write = |organization: &Organization, name: &str| -> Result<PathBuf, IssueError> {
            let directory = self.directory.join(format!("admin-{name}"));
            organization.write_member_dir(
                &directory,
                &format!("Admin@{name}"),
                Role::Admin,
                &[],
                validity(),
            )?;
            Ok(directory.join("msp"))
        };
        Ok([
            write(&self.orderers, "example.com")?,
            write(&self.members, "org1.example.com")?,
            write(&self.foreigners, "org9.example.com")?,
        ])
    }

    /// Writes the MSP directory of a member client; returns its path.
    pub fn member_directory(&self) -> Result<PathBuf, IssueError> {
        let directory = self.directory.join("user1");
        self.members.write_member_dir(&directory, "user1.org1.example.com", Role::Client, &[], validity())?;
        Ok(directory.join("msp"))
    }

    /// Writes the MSP and TLS directories `msp` and `tls` of an orderer at localhost; returns the directory above them.
    pub fn orderer_directory(&self) -> Result<PathBuf, IssueError> {
        let directory = self.directory.join("orderer");
        let names = local_names();
        self.orderers.write_member_dir(
            &directory,
            "orderer.example.com",
            Role::Orderer,
            &names,
            validity(),
        )?;
        Ok(directory)
    }

    /// TLS of a server at localhost; with `client_auth` clients must show a certificate of the member organisation.
    pub fn server_tls(&self, client_auth: bool) -> Result<ServerTls, Box<dyn Error>> {
        self.server_tls_valid(client_auth, validity())
    }

    /// As [`Self::server_tls`], with a certificate that expired an hour ago.
    pub fn expired_server_tls(&self) -> Result<ServerTls, Box<dyn Error>> {
        self.server_tls_valid(false, expired())
    }

    fn server_tls_valid(&self, client_auth: bool, validity: Validity) -> Result<ServerTls, Box<dyn Error>> {
        let issued =
            self.orderers.tls_authority().issue_tls("orderer.example.com", &local_names(), validity)?;
        let client_roots = client_auth.then(|| self.members.tls_authority().certificate().pem().to_vec());
        Ok(ServerTls {
            certificate: issued.certificate.pem().to_vec(),
            key: issued.key.to_pkcs8_pem()?.as_bytes().to_vec(),
            client_roots,
        })
    }

    /// TLS of a client of that server, with a certificate of the member organisation.
    pub fn client_tls(&self) -> Result<ClientTls, Box<dyn Error>> {
        self.client_tls_valid(validity())
    }

    /// As [`Self::client_tls`], with a certificate that expired an hour ago.
    pub fn expired_client_tls(&self) -> Result<ClientTls, Box<dyn Error>> {
        self.client_tls_valid(expired())
    }

    fn client_tls_valid(&self, validity: Validity) -> Result<ClientTls, Box<dyn Error>> {
        let issued = self.members.tls_authority().issue_tls("user1.org1.example.com", &[], validity)?;
        Ok(ClientTls {
            roots: vec![self.orderers.tls_authority().certificate().pem().to_vec()],
            identity: Some((
                issued.certificate.pem().to_vec(),
                issued.key.to_pkcs8_pem()?.as_bytes().to_vec(),
            )),
            server_name: None,
        })
    }

    /// How a client reaches the service at `address`.
    pub fn client_options(address: SocketAddr, tls: Option<ClientTls>) -> ClientOptions {
        ClientOptions { address: address.to_string(), tls, connect_timeout: Duration::from_secs(3) }
    }
}

fn local_names() -> Vec<String> {
    vec!["localhost".into(), "127.0.0.1".into(), "orderer.example.com".into()]
}
