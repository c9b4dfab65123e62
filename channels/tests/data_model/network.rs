//! A channel `trade` of two organisations and one orderer, with keys, so that blocks can be made and forged.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_channels::config::{ChannelConfig, Endpoint};
use grapevine_channels::genesis::{ApplicationOrg, GenesisBuilder, OrdererOrg};
use grapevine_channels::sign::sign_block;
use grapevine_channels::transaction::endorser_transaction;
use grapevine_channels::verify::BlockVerifier;
use grapevine_crypto::issue::{Organization, Validity};
use grapevine_crypto::{Algorithm, Digest, Role, Signer, sha256_of};

pub(crate) const NOW: i64 = 1_795_000_000;
pub(crate) const VALIDITY: Validity = Validity::ten_years_from(NOW);

pub(crate) struct Network {
    pub(crate) orderer_org: Organization,
    pub(crate) org1: Organization,
    pub(crate) org2: Organization,
    pub(crate) orderer: Signer,
    pub(crate) client: Signer,
    pub(crate) genesis: Block,
}

pub(crate) fn organization(msp_id: &str, domain: &str) -> Organization {
    Organization::new(msp_id.into(), domain, Algorithm::Ed25519, VALIDITY).unwrap()
}

impl Network {
    pub(crate) fn new() -> Self {
        Self::of_channel("trade")
    }

    pub(crate) fn of_channel(name: &str) -> Self {
        let orderer_org = organization("OrdererMSP", "example.com");
        let org1 = organization("Org1MSP", "org1.example.com");
        let org2 = organization("Org2MSP", "org2.example.com");
        let mut network = Self {
            orderer: orderer_org.enrol("orderer.example.com", Role::Orderer, VALIDITY).unwrap(),
            client: org1.enrol("User1@org1.example.com", Role::Client, VALIDITY).unwrap(),
            genesis: Block::from_parts(header(0, &[], &[]), Vec::new(), Bytes::new()),
            orderer_org,
            org1,
            org2,
        };
        network.genesis = network.builder(name).build().unwrap();
        network
    }

    pub(crate) fn builder(&self, name: &str) -> GenesisBuilder {
        let application = |org: &Organization, host: &str| ApplicationOrg {
            name: org.msp_id().to_string(),
            msp: org.msp_config(),
            anchor_peers: vec![Endpoint { host: host.to_owned(), port: 7051 }],
        };
        GenesisBuilder::new(name.parse().unwrap(), [7; 24], NOW)
            .orderer_org(OrdererOrg {
                name: "OrdererMSP".to_owned(),
                msp: self.orderer_org.msp_config(),
                endpoints: vec!["127.0.0.1:7050".to_owned()],
            })
            .application_org(application(&self.org1, "peer0.org1.example.com"))
            .application_org(application(&self.org2, "peer0.org2.example.com"))
    }

    pub(crate) fn channel(&self) -> ChannelId {
        self.genesis.channel_id().unwrap()
    }

    pub(crate) fn config(&self) -> Arc<ChannelConfig> {
        Arc::new(ChannelConfig::from_block(&self.genesis).unwrap())
    }

    pub(crate) fn verifier(&self) -> BlockVerifier {
        BlockVerifier::new(self.config())
    }

    pub(crate) fn transaction(&self, payload: &[u8]) -> Bytes {
        endorser_transaction(&self.client, &self.channel(), payload, [9; 24], NOW)
    }

    /// Three transactions in block 1, signed by the orderer.
    pub(crate) fn block(&self) -> Block {
        let transactions = [b"a".as_slice(), b"bb", b"ccc"].map(|payload| self.transaction(payload)).to_vec();
        self.signed(1, self.genesis.header_hash(), transactions)
    }

    pub(crate) fn signed(&self, number: u64, previous: Digest, transactions: Vec<Bytes>) -> Block {
        self.signed_by(&self.orderer, number, previous, transactions, 0)
    }

    pub(crate) fn signed_by(
        &self,
        signer: &Signer,
        number: u64,
        previous: Digest,
        transactions: Vec<Bytes>,
        last_config: u64,
    ) -> Block {
        let header = header(number, previous.as_ref(), &transactions);
        let metadata = sign_block(&header, last_config, Bytes::new(), signer, [5; 24]);
        Block::from_parts(header, transactions, metadata)
    }
}

pub(crate) fn header(number: u64, previous: &[u8], transactions: &[Bytes]) -> BlockHeader {
    let data_hash = sha256_of(transactions.iter().map(AsRef::as_ref)).0.to_vec();
    BlockHeader { number, previous_hash: previous.to_vec(), data_hash }
}

/// Over the wire and back.
pub(crate) fn sent(block: &Block) -> Block {
    Block::decode(block.encode(), usize::MAX).unwrap()
}

pub(crate) fn genesis(block: &Block) -> AuthenticBlock {
    AuthenticBlock::genesis(block).unwrap()
}
