//! What is so, whatever the nodes believe: who belongs where, and under which names.

use std::collections::{BTreeMap, BTreeSet};

use grapevine_channels::ChannelId;
use grapevine_channels::authority::{Credential, ToyAuthority};
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::isolation::Scope;
use grapevine_channels::node::Anchors;
use grapevine_crypto::{Digest, MspId, PkiId};

use crate::scenario::{Leadership, Scenario};

/// A place in the network: peers are 0, 1, 2 …; the orderer is the number of peers.
pub type Site = usize;
/// A channel by its place in the scenario.
pub type ChannelIndex = usize;

#[derive(Debug)]
pub(crate) struct PeerTruth {
    pub(crate) organization: usize,
    /// Its place in the organisation.
    pub(crate) place: usize,
    pub(crate) credential: Credential,
    pub(crate) internal_endpoint: String,
    /// Empty: invisible to other organisations.
    pub(crate) external_endpoint: String,
}

#[derive(Debug)]
pub(crate) struct ChannelTruth {
    pub(crate) id: ChannelId,
    pub(crate) organizations: BTreeSet<usize>,
    pub(crate) scope: Scope,
    pub(crate) anchors: Anchors,
    pub(crate) genesis: AuthenticBlock,
}

#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) peers: Vec<PeerTruth>,
    pub(crate) channels: Vec<ChannelTruth>,
    pub(crate) leaderships: Vec<Leadership>,
    pub(crate) forgers: BTreeSet<Site>,
    by_pki_id: BTreeMap<PkiId, Site>,
    by_endpoint: BTreeMap<String, Site>,
    by_channel: BTreeMap<ChannelId, ChannelIndex>,
}

impl Truth {
    /// Errors say what is wrong with the scenario.
    pub(crate) fn new(scenario: &Scenario) -> Result<Self, String> {
        let mut peers = Vec::new();
        for (number, organization) in scenario.organizations.iter().enumerate() {
            for place in 0..organization.peers {
                let host = format!("peer{place}.org{}", number + 1);
                let visible = place < organization.visible;
                peers.push(PeerTruth {
                    organization: number,
                    place,
                    credential: ToyAuthority::credential(&organization.name, &format!("peer{place}")),
                    internal_endpoint: format!("{host}:7051"),
                    external_endpoint: if visible {
                        format!("{host}.example.com:7051")
                    } else {
                        String::new()
                    },
                });
            }
        }
        let mut channels = Vec::new();
        for (index, plan) in scenario.channels.iter().enumerate() {
            // The size makes the genesis hashes, and so the chains, differ.
            let genesis = AuthenticBlock::simulated(0, Digest([0; 32]), 1_000 + index);
            let names = plan.organizations.iter().map(|number| {
                let organization = scenario.organizations.get(*number);
                organization.map(|organization| MspId::from(organization.name.as_str()))
            });
            let organizations: Option<BTreeSet<MspId>> = names.collect();
            let organizations = organizations
                .ok_or_else(|| format!("channel {} names an organisation that is not there", plan.name))?;
            let mut anchors: Anchors =
                organizations.iter().map(|organization| (organization.clone(), BTreeSet::new())).collect();
            for peer in plan.anchors.iter().filter_map(|anchor| peers.get(*anchor)) {
                if !peer.external_endpoint.is_empty() {
                    let listed = anchors.entry(peer.credential.msp_id.clone()).or_default();
                    listed.insert(peer.external_endpoint.clone());
                }
            }
            channels.push(ChannelTruth {
                id: plan.name.parse().map_err(|error| format!("channel {}: {error}", plan.name))?,
                organizations: plan.organizations.iter().copied().collect(),
                scope: Scope { genesis_hash: genesis.hash(), organizations, former: BTreeMap::new() },
                anchors,
                genesis,
            });
        }
        let endpoints = peers.iter().enumerate().flat_map(|(site, peer)| {
            [(peer.internal_endpoint.clone(), site), (peer.external_endpoint.clone(), site)]
        });
        Ok(Self {
            by_endpoint: endpoints.collect(),
            by_pki_id: peers.iter().enumerate().map(|(site, peer)| (peer.credential.pki_id, site)).collect(),
            by_channel: channels
                .iter()
                .enumerate()
                .map(|(index, channel)| (channel.id.clone(), index))
                .collect(),
            leaderships: scenario.organizations.iter().map(|organization| organization.leadership).collect(),
            forgers: scenario.forgers.clone(),
            peers,
            channels,
        })
    }

    pub(crate) fn orderer(&self) -> Site {
        self.peers.len()
    }

    pub(crate) fn site(&self, pki_id: &PkiId) -> Option<Site> {
        self.by_pki_id.get(pki_id).copied()
    }

    pub(crate) fn site_at(&self, endpoint: &str) -> Option<Site> {
        self.by_endpoint.get(endpoint).copied()
    }

    pub(crate) fn channel(&self, id: &ChannelId) -> Option<ChannelIndex> {
        self.by_channel.get(id).copied()
    }

    pub(crate) fn is_honest(&self, site: Site) -> bool {
        !self.forgers.contains(&site)
    }

    pub(crate) fn is_member(&self, site: Site, channel: ChannelIndex) -> bool {
        self.channels[channel].organizations.contains(&self.peers[site].organization)
    }

    pub(crate) fn same_organization(&self, one: Site, other: Site) -> bool {
        self.peers[one].organization == self.peers[other].organization
    }

    pub(crate) fn name(&self, site: Site) -> String {
        match self.peers.get(site) {
            Some(peer) => format!("{}/{}", peer.credential.msp_id, peer.credential.name),
            None => "orderer".into(),
        }
    }
}
