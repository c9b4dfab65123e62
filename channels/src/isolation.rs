//! Channel isolation: the one place where frames of a channel are made and recognised.
//!
//! # Promise
//! To a peer whose organisation is not in a channel's config, or that has not shown that it joined the channel, no
//! frame of the channel is written. The only type that can encode a channel frame or a bulk header is [`ChannelLink`];
//! the only way to a `ChannelLink` is [`Links::accept`], which demands both. A frame that arrives is matched against
//! the links of its own connection before anything else looks at it.
//!
//! # Messages
//! After admission each side sends the proofs of the channels it has joined *and* whose config lists the other's
//! organisation. A proof is HMAC-SHA-256 keyed by the channel's genesis hash over a tag, the connection's session
//! value (both nonces of the member handshake) and the PKI-ID of the side that proves. Who does not hold the genesis
//! hash can neither make a proof nor learn from one which channel it is for; a proof is worth nothing on any other
//! connection. The first [`TAG_SIZE`] bytes of a side's proof are its tag of the channel on this connection.
//!
//! # Former members
//! An organisation that a config block removed may still have the chain up to and including that block, so that its peers
//! learn why nothing follows, those too that were away at the time. A link to such a peer is *limited*: it encodes blocks and headers up to
//! that number, states that name no greater height, and refusals. Everything else is not encoded at all, and of what the peer sends only
//! requests count.
//!
//! # Boundary
//! The security boundary is the organisation in the channel's config: any member of it may learn the genesis hash.
//! Joined or not inside an organisation is routing, and this module refuses it all the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use grapevine_crypto::{Digest, MspId, PkiId};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;

use crate::ChannelId;
use crate::wire::{
    BulkHeader, BulkKind, ChannelBody, ChannelFrame, Delegation, Frame, FrameBody, Headers, Joined, State,
};

/// Bytes of a channel's tag on one connection.
pub const TAG_SIZE: usize = 16;

const PROOF_TAG: &[u8] = b"grapevine/joined/1";

/// The proof that the peer `prover` of the connection `session` has joined the channel of `genesis_hash`.
pub fn proof(genesis_hash: &Digest, session: &[u8; 32], prover: &PkiId) -> [u8; 32] {
    // HMAC takes keys of any length; the error type is for other MACs.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(genesis_hash.as_ref()) else { return [0; 32] };
    mac.update(PROOF_TAG);
    mac.update(session);
    mac.update(prover.0.as_ref());
    mac.finalize().into_bytes().into()
}

/// Both ends of one connection have joined the channel, and the remote's organisation is in its config, or was.
///
/// Holding one is the right to write frames of the channel to this remote, as far as its limit allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelLink {
    own_tag: [u8; TAG_SIZE],
    remote_tag: [u8; TAG_SIZE],
    /// The block that removed the remote's organisation.
    last: Option<LastBlock>,
}

impl ChannelLink {
    /// Encodes a control frame of the channel for this remote; `None` if a former member may not have it.
    pub fn encode(&self, body: ChannelBody) -> Option<Bytes> {
        let body = match (self.last, body) {
            (None, body) => body,
            (Some(last), ChannelBody::State(state)) => ChannelBody::State(last.limit(state)),
            (Some(last), ChannelBody::Headers(headers)) => ChannelBody::Headers(last.limit_headers(headers)),
            (Some(_), body @ ChannelBody::Refusal(_)) => body,
            (Some(_), _) => return None,
        };
        let frame = ChannelFrame { tag: self.own_tag.to_vec(), body: Some(body) };
        Some(Frame { body: Some(FrameBody::Channel(frame)) }.encode_to_vec().into())
    }

    /// Encodes the header of a block of the channel for this remote; a push says whom the remote is to serve. `None` if a
    /// former member may not have the block.
    pub fn encode_bulk(
        &self,
        number: u64,
        hash: Option<Digest>,
        kind: BulkKind,
        delegation: Option<Delegation>,
    ) -> Option<Bytes> {
        if !self.may_have(number) {
            return None;
        }
        let hash = hash.map_or_else(Vec::new, |hash| hash.0.to_vec());
        let tag = self.own_tag.to_vec();
        Some(BulkHeader { tag, number, hash, kind: kind.into(), delegation }.encode_to_vec().into())
    }

    /// Whether the remote's organisation is no longer a member.
    pub fn is_limited(&self) -> bool {
        self.last.is_some()
    }

    /// Whether the remote may have the block of this number.
    pub fn may_have(&self, number: u64) -> bool {
        self.last.is_none_or(|last| number <= last.number)
    }

    /// A height of the chain as far as the remote may have it.
    pub fn limit_height(&self, height: u64) -> u64 {
        self.last.map_or(height, |last| height.min(last.number.saturating_add(1)))
    }

    /// The tag that bulk messages of the remote carry.
    pub fn remote_tag(&self) -> [u8; TAG_SIZE] {
        self.remote_tag
    }
}

/// Who a joined channel is open to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Header hash of the channel's genesis block.
    pub genesis_hash: Digest,
    /// The application organisations of its config.
    pub organizations: BTreeSet<MspId>,
    /// Organisations that were in it, with the config block that removed each.
    pub former: BTreeMap<MspId, LastBlock>,
}

impl Scope {
    /// How far the chain is open to an organisation: `None` not at all, `Some(None)` without limit.
    fn admits(&self, organization: &MspId) -> Option<Option<LastBlock>> {
        if self.organizations.contains(organization) {
            return Some(None);
        }
        self.former.get(organization).map(|last| Some(*last))
    }
}

/// The last block that a former member may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBlock {
    /// Its number.
    pub number: u64,
    /// Its header hash.
    pub hash: Digest,
}

impl LastBlock {
    fn limit(&self, state: State) -> State {
        let height = self.number.saturating_add(1);
        if state.height < height {
            state
        } else {
            State { height, tip_hash: self.hash.0.to_vec(), answer: state.answer }
        }
    }

    fn limit_headers(&self, mut headers: Headers) -> Headers {
        let count = self.number.saturating_add(1).saturating_sub(headers.first);
        headers.entries.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        headers
    }
}

/// What changed when links were matched again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LinkChanges {
    /// Channels that frames may now go to.
    pub opened: Vec<ChannelId>,
    /// Channels that no frame may go to any more.
    pub closed: Vec<ChannelId>,
}

/// The channel links of one connection.
#[derive(Debug)]
pub struct Links {
    session: [u8; 32],
    own: PkiId,
    remote: PkiId,
    remote_organization: MspId,
    open: BTreeMap<ChannelId, ChannelLink>,
    by_remote_tag: BTreeMap<[u8; TAG_SIZE], ChannelId>,
    /// Proofs the remote sent last, kept for channels that this node joins later. Bounded by the frame's own bound.
    shown: BTreeSet<[u8; 32]>,
}

impl Links {
    /// The links of a new connection: none. `session` is the value both ends derived from their nonces.
    pub fn new(session: [u8; 32], own: PkiId, remote: PkiId, remote_organization: MspId) -> Self {
        Self {
            session,
            own,
            remote,
            remote_organization,
            open: BTreeMap::new(),
            by_remote_tag: BTreeMap::new(),
            shown: BTreeSet::new(),
        }
    }

    /// The value that both ends of the connection derived from their nonces.
    pub fn session(&self) -> &[u8; 32] {
        &self.session
    }

    /// This node's proofs for the channels whose config lists the remote's organisation, or did; no others.
    pub fn offer<'a>(&self, joined: impl Iterator<Item = (&'a ChannelId, &'a Scope)>) -> Joined {
        let proofs = joined
            .filter(|(_, scope)| scope.admits(&self.remote_organization).is_some())
            .map(|(_, scope)| proof(&scope.genesis_hash, &self.session, &self.own).to_vec())
            .collect();
        Joined { proofs }
    }

    /// Takes the remote's list of proofs in place of its former one. Proofs of a wrong length are ignored.
    pub fn shown(&mut self, joined: &Joined) {
        self.shown = joined.proofs.iter().filter_map(|proof| proof.as_slice().try_into().ok()).collect();
    }

    /// Opens and closes links so that they fit this node's joined channels and the remote's proofs. A link whose limit
    /// changed is closed and opened.
    pub fn accept<'a>(&mut self, joined: impl Iterator<Item = (&'a ChannelId, &'a Scope)>) -> LinkChanges {
        let mut fitting = BTreeMap::new();
        for (channel, scope) in joined {
            let Some(last) = scope.admits(&self.remote_organization) else { continue };
            let expected = proof(&scope.genesis_hash, &self.session, &self.remote);
            if self.shown.contains(&expected) {
                let own = proof(&scope.genesis_hash, &self.session, &self.own);
                let link = ChannelLink { own_tag: tag_of(&own), remote_tag: tag_of(&expected), last };
                fitting.insert(channel.clone(), link);
            }
        }
        let changes =
            LinkChanges { opened: missing(&fitting, &self.open), closed: missing(&self.open, &fitting) };
        self.by_remote_tag =
            fitting.iter().map(|(channel, link)| (link.remote_tag, channel.clone())).collect();
        self.open = fitting;
        changes
    }

    /// The link to write frames of `channel` with, if there may be any.
    pub fn link(&self, channel: &ChannelId) -> Option<&ChannelLink> {
        self.open.get(channel)
    }

    /// The channel that a tag sent by the remote names on this connection.
    pub fn channel_of(&self, remote_tag: &[u8]) -> Option<&ChannelId> {
        let tag: [u8; TAG_SIZE] = remote_tag.try_into().ok()?;
        self.by_remote_tag.get(&tag)
    }

    /// The channels with an open link.
    pub fn open(&self) -> impl Iterator<Item = &ChannelId> {
        self.open.keys()
    }
}

/// The channels of `all` that `others` does not have, or has with another link.
fn missing(
    all: &BTreeMap<ChannelId, ChannelLink>,
    others: &BTreeMap<ChannelId, ChannelLink>,
) -> Vec<ChannelId> {
    all.iter()
        .filter(|(channel, link)| others.get(*channel) != Some(*link))
        .map(|(id, _)| id.clone())
        .collect()
}

fn tag_of(proof: &[u8; 32]) -> [u8; TAG_SIZE] {
    let mut tag = [0; TAG_SIZE];
    tag.copy_from_slice(proof.first_chunk::<TAG_SIZE>().unwrap_or(&[0; TAG_SIZE]));
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Digest as DigestFrame, HeaderEntry, Request};

    struct Side {
        links: Links,
        joined: BTreeMap<ChannelId, Scope>,
    }

    impl Side {
        fn new(own: &str, remote: &str, channels: &[(&str, &[&str])]) -> Self {
            let (own_org, own_name) = own.split_once('/').unwrap();
            let (remote_org, remote_name) = remote.split_once('/').unwrap();
            let own = PkiId::new(&own_org.into(), own_name);
            let remote = PkiId::new(&remote_org.into(), remote_name);
            let joined = channels
                .iter()
                .map(|(name, orgs)| {
                    let scope = Scope {
                        genesis_hash: grapevine_crypto::sha256(name.as_bytes()),
                        organizations: orgs.iter().map(|org| (*org).into()).collect(),
                        former: BTreeMap::new(),
                    };
                    (name.parse().unwrap(), scope)
                })
                .collect();
            Self { links: Links::new([7; 32], own, remote, remote_org.into()), joined }
        }

        fn offer(&self) -> Joined {
            self.links.offer(self.joined.iter())
        }

        fn take(&mut self, joined: &Joined) -> LinkChanges {
            self.links.shown(joined);
            self.links.accept(self.joined.iter())
        }
    }

    const TRADE: (&str, &[&str]) = ("trade", &["Org1MSP", "Org2MSP"]);
    const AUDIT: (&str, &[&str]) = ("audit", &["Org1MSP"]);

    fn state() -> ChannelBody {
        ChannelBody::State(State { height: 3, tip_hash: vec![1; 32], answer: false })
    }

    #[test]
    fn both_ends_find_the_same_channel() {
        let mut one = Side::new("Org1MSP/peer0", "Org2MSP/peer0", &[TRADE, AUDIT]);
        let mut two = Side::new("Org2MSP/peer0", "Org1MSP/peer0", &[TRADE]);
        let trade: ChannelId = "trade".parse().unwrap();
        assert_eq!(one.take(&two.offer()).opened, vec![trade.clone()]);
        assert_eq!(two.take(&one.offer()).opened, vec![trade.clone()]);
        let frame = one.links.link(&trade).unwrap().encode(state()).unwrap();
        let FrameBody::Channel(frame) = Frame::parse(frame).unwrap() else { panic!("not a channel frame") };
        assert_eq!(two.links.channel_of(&frame.tag), Some(&trade));
        assert_eq!(frame.body, Some(state()));
    }

    /// The promise of the module: no link, so no way to encode, for an organisation outside the config, whatever
    /// proofs it shows; and nothing of the channel is offered to it.
    #[test]
    fn an_organisation_outside_the_config_gets_no_frame() {
        let audit: ChannelId = "audit".parse().unwrap();
        let mut one = Side::new("Org1MSP/peer0", "Org2MSP/peer0", &[TRADE, AUDIT]);
        let impostor =
            Side::new("Org2MSP/peer0", "Org1MSP/peer0", &[TRADE, ("audit", &["Org1MSP", "Org2MSP"])]);
        assert_eq!(impostor.offer().proofs.len(), 2);
        assert!(!one.take(&impostor.offer()).opened.contains(&audit));
        assert!(one.links.link(&audit).is_none());
        assert_eq!(one.offer().proofs.len(), 1, "the audit proof is not even offered");
    }

    #[test]
    fn a_member_that_has_not_joined_gets_no_frame() {
        let mut one = Side::new("Org1MSP/peer0", "Org1MSP/peer1", &[TRADE, AUDIT]);
        let two = Side::new("Org1MSP/peer1", "Org1MSP/peer0", &[TRADE]);
        one.take(&two.offer());
        assert!(one.links.link(&"audit".parse().unwrap()).is_none());
        assert!(one.links.link(&"trade".parse().unwrap()).is_some());
    }

    #[test]
    fn proofs_of_another_session_or_prover_open_nothing() {
        let mut one = Side::new("Org1MSP/peer0", "Org2MSP/peer0", &[TRADE]);
        let scope = one.joined.values().next().unwrap().clone();
        let own = PkiId::new(&"Org1MSP".into(), "peer0");
        let remote = PkiId::new(&"Org2MSP".into(), "peer0");
        for proofs in [
            vec![proof(&scope.genesis_hash, &[8; 32], &remote).to_vec()],
            vec![proof(&scope.genesis_hash, &[7; 32], &own).to_vec()],
            vec![vec![0; 31], vec![]],
        ] {
            assert_eq!(one.take(&Joined { proofs }), LinkChanges::default());
        }
    }

    #[test]
    fn leaving_or_losing_the_organisation_closes_the_link() {
        let trade: ChannelId = "trade".parse().unwrap();
        let mut one = Side::new("Org1MSP/peer0", "Org2MSP/peer0", &[TRADE]);
        let two = Side::new("Org2MSP/peer0", "Org1MSP/peer0", &[TRADE]);
        one.take(&two.offer());
        one.joined.get_mut(&trade).unwrap().organizations = ["Org1MSP".into()].into();
        let changes = one.links.accept(one.joined.iter());
        assert_eq!(changes.closed, vec![trade.clone()]);
        assert!(one.links.link(&trade).is_none());
    }

    #[test]
    fn a_former_member_gets_the_chain_up_to_its_removal_and_nothing_else() {
        let trade: ChannelId = "trade".parse().unwrap();
        let mut one = Side::new("Org1MSP/peer0", "Org2MSP/peer0", &[TRADE]);
        let two = Side::new("Org2MSP/peer0", "Org1MSP/peer0", &[TRADE]);
        one.take(&two.offer());
        assert!(!one.links.link(&trade).unwrap().is_limited());
        let last = LastBlock { number: 5, hash: Digest([5; 32]) };
        let scope = one.joined.get_mut(&trade).unwrap();
        scope.organizations = ["Org1MSP".into()].into();
        scope.former = [("Org2MSP".into(), last)].into();
        let changes = one.links.accept(one.joined.iter());
        let both = vec![trade.clone()];
        assert_eq!(changes, LinkChanges { opened: both.clone(), closed: both }, "its machines must let go");
        assert_eq!(one.offer().proofs.len(), 1, "it may come back and ask");

        let link = one.links.link(&trade).unwrap();
        assert!(link.is_limited());
        let numbers = vec![6];
        for refused in [
            ChannelBody::Request(Request { numbers: numbers.clone() }),
            ChannelBody::Digest(DigestFrame { ranges: vec![1, 9] }),
            ChannelBody::Leadership(crate::wire::Leadership::default()),
        ] {
            assert_eq!(link.encode(refused.clone()), None, "{refused:?}");
        }
        assert!(link.encode(ChannelBody::Refusal(Request { numbers })).is_some());
        assert!(link.encode_bulk(5, None, BulkKind::Reply, None).is_some());
        assert_eq!(link.encode_bulk(6, None, BulkKind::Reply, None), None);
        for (height, named, hash) in [(3, 3, [1; 32]), (6, 6, [5; 32]), (90, 6, [5; 32])] {
            let state = ChannelBody::State(State { height, tip_hash: vec![1; 32], answer: false });
            let FrameBody::Channel(frame) = Frame::parse(link.encode(state).unwrap()).unwrap() else {
                panic!()
            };
            let expected = State { height: named, tip_hash: hash.to_vec(), answer: false };
            assert_eq!(frame.body, Some(ChannelBody::State(expected)));
        }
        for (first, sent) in [(1, 4), (4, 2), (5, 1), (6, 0), (90, 0)] {
            let hash = Bytes::from_static(&[3; 32]);
            let entries = vec![HeaderEntry { data_hash: hash.clone(), ..HeaderEntry::default() }; 4];
            let headers = ChannelBody::Headers(Headers { first, entries, previous_hash: hash });
            let FrameBody::Channel(frame) = Frame::parse(link.encode(headers).unwrap()).unwrap() else {
                panic!()
            };
            let Some(ChannelBody::Headers(headers)) = frame.body else { panic!("{:?}", frame.body) };
            assert_eq!(headers.entries.len(), sent, "from {first} on");
        }
    }
}
