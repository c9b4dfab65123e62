//! Who may read blocks, and for how long.

use grapevine_channels::config::{APPLICATION_READERS, CHANNEL_READERS, ORDERER_READERS};
use grapevine_channels::deliver::{Access, Refusal, Request};
use grapevine_channels::policy::SignedData;
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::orderer::{ConsensusState, ConsensusType, SeekInfo};
use grapevine_channels::proto::peer::{Acls, ApiResource};
use grapevine_channels::transaction::seek_envelope;
use grapevine_crypto::{Digest, Role, Signer, sha256};
use prost::Message as _;

use crate::config_updates::without_org2;
use crate::configs::{changed, set, value};
use crate::network::{NOW, Network, VALIDITY, organization};

fn request(network: &Network, signer: &Signer, timestamp: i64, tls: Option<Digest>) -> Request {
    let seek = SeekInfo::from_number(0);
    let encoded = seek_envelope(signer, &network.channel(), &seek, [1; 24], timestamp, tls);
    Request::parse(&Envelope::decode(encoded).unwrap()).unwrap()
}

fn signed(network: &Network, signer: &Signer) -> SignedData {
    request(network, signer, NOW, None).signed_data().unwrap()
}

fn status<T>(result: Result<T, Refusal>) -> Status {
    result.map_or_else(|refusal| refusal.status, |_| Status::Success)
}

#[test]
fn clocks_may_differ_by_the_time_window_either_way() {
    let network = Network::new();
    for (difference, expected) in [
        (0, Status::Success),
        (-900, Status::Success),
        (900, Status::Success),
        (-901, Status::BadRequest),
        (901, Status::BadRequest),
    ] {
        let request = request(&network, &network.client, NOW + difference, None);
        assert_eq!(status(request.check_time(NOW, 900)), expected, "{difference}");
    }
}

#[test]
fn a_request_is_good_on_connections_of_its_tls_certificate_alone() {
    let network = Network::new();
    let (own, other) = (sha256(b"own"), sha256(b"other"));
    for (claimed, shown, expected) in [
        (Some(own), Some(own), Status::Success),
        (Some(own), Some(other), Status::BadRequest),
        (None, Some(own), Status::BadRequest),
        (Some(own), None, Status::BadRequest),
        (None, None, Status::BadRequest),
    ] {
        let request = request(&network, &network.client, NOW, claimed);
        assert_eq!(status(request.check_binding(shown)), expected, "{claimed:?} {shown:?}");
    }
}

#[test]
fn readers_satisfy_the_policy_and_their_certificates_are_valid() {
    let network = Network::new();
    let config = network.config();
    let granted = |policy, signed, now| status(Access::grant(&config, policy, signed, now));
    let honest = signed(&network, &network.client);
    let not_after = network.client.identity().certificate().not_after();
    assert_eq!(granted(CHANNEL_READERS, honest.clone(), NOW), Status::Success);
    assert_eq!(granted(CHANNEL_READERS, honest.clone(), not_after), Status::Success);
    assert_eq!(granted(CHANNEL_READERS, honest.clone(), not_after + 1), Status::Forbidden);
    assert_eq!(granted(ORDERER_READERS, honest.clone(), NOW), Status::Forbidden);
    let forged = SignedData { signature: vec![7; 64].into(), ..honest };
    assert_eq!(granted(CHANNEL_READERS, forged, NOW), Status::Forbidden);
    let stranger = organization("Org1MSP", "evil.example").enrol("client", Role::Client, VALIDITY).unwrap();
    assert_eq!(granted(CHANNEL_READERS, signed(&network, &stranger), NOW), Status::Forbidden);
}

#[test]
fn access_ends_with_the_membership_and_with_the_certificate() {
    let network = Network::new();
    let (before, after) = (network.config(), without_org2(&network));
    let removed = network.org2.enrol("client", Role::Client, VALIDITY).unwrap();
    let access = |signer| Access::grant(&before, CHANNEL_READERS, signed(&network, signer), NOW).unwrap();
    let (mut stays, mut goes) = (access(&network.client), access(&removed));
    for access in [&mut stays, &mut goes] {
        assert_eq!(status(access.check_again(&before, CHANNEL_READERS, NOW)), Status::Success);
    }
    assert_eq!(status(stays.check_again(&after, CHANNEL_READERS, NOW)), Status::Success);
    assert_eq!(status(goes.check_again(&after, CHANNEL_READERS, NOW)), Status::Forbidden);
    let not_after = network.client.identity().certificate().not_after();
    assert_eq!(status(stays.check_again(&after, CHANNEL_READERS, not_after)), Status::Success);
    assert_eq!(status(stays.check_again(&after, CHANNEL_READERS, not_after + 1)), Status::Forbidden);
}

#[test]
fn the_config_says_which_policy_readers_must_satisfy() {
    let network = Network::new();
    let resource = |policy: &str| ApiResource { policy_ref: policy.to_owned() };
    let acls = [("event/Block", resource("Admins")), ("event/FilteredBlock", resource(ORDERER_READERS))];
    let acls = Acls { acls: acls.into_iter().map(|(name, policy)| (name.to_owned(), policy)).collect() };
    let config = changed(&network.genesis, |root| set(root, &["Application"], "ACLs", value(&acls))).unwrap();
    assert_eq!(config.reader_policy("event/Block"), "/Channel/Application/Admins");
    assert_eq!(config.reader_policy("event/FilteredBlock"), ORDERER_READERS);
    assert_eq!(network.config().reader_policy("event/Block"), APPLICATION_READERS);

    // While the consensus type is changed, orderers serve one another alone.
    let consensus = ConsensusType {
        r#type: "etcdraft".to_owned(),
        state: ConsensusState::Maintenance.into(),
        ..ConsensusType::default()
    };
    let config =
        changed(&network.genesis, |root| set(root, &["Orderer"], "ConsensusType", value(&consensus)));
    assert_eq!(config.unwrap().orderer_reader_policy(), ORDERER_READERS);
    assert_eq!(network.config().orderer_reader_policy(), CHANNEL_READERS);
}
