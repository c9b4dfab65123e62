//! Config updates through `Broadcast`: who may, what follows, and that it lasts.

use std::time::Duration;

use grapevine_channels::config::{BatchSize, ChannelConfig, Endpoint};
use grapevine_channels::config_update::compute_update;
use grapevine_channels::proto::common::{Envelope, Status};
use grapevine_channels::proto::configtx::ConfigUpdate;
use grapevine_channels::proto::orderer::{ConsensusState, ConsensusType, SeekInfo, SeekPosition};
use grapevine_channels::verify::BlockVerifier;
use grapevine_crypto::{MspId, Signer};
use grapevine_orderer_mock::testing::TestNetwork;
use grapevine_orderer_mock::update::{ConfigClient, Edit, EditError, UpdateError, edited, update_envelope};
use prost::Message;

use crate::client::{Broadcast, Deliver, Fixture, channel, payloads, range, transaction, within};

const ORG1: &str = "Org1MSP";
const ORG9: &str = "Org9MSP";

/// Larger batches and a timeout that never comes, so that only config updates cut.
const LARGE: BatchSize =
    BatchSize { max_message_count: 100, absolute_max_bytes: 1 << 20, preferred_max_bytes: 512 << 10 };
const NEVER_MS: u64 = 3_600_000;

fn anchors(host: &str) -> Edit {
    Edit::AnchorPeers { organization: ORG1.into(), anchors: vec![Endpoint { host: host.into(), port: 7051 }] }
}

fn add_org9(network: &TestNetwork) -> Edit {
    Edit::AddOrganization(network.foreign_msp().into())
}

/// Changes the config with the signatures of all administrators of the channel.
async fn change(fixture: &Fixture, edits: &[Edit]) -> Result<u64, UpdateError> {
    let network = &fixture.network;
    let admins = [network.member_admin().unwrap(), network.orderer_admin().unwrap()];
    change_as(fixture, edits, &[&admins[0], &admins[1]]).await
}

async fn change_as(fixture: &Fixture, edits: &[Edit], signers: &[&Signer]) -> Result<u64, UpdateError> {
    let submitter = fixture.network.member().unwrap();
    let mut client = within(ConfigClient::connect(&fixture.options(), channel())).await.unwrap();
    within(client.change(edits, &submitter, signers)).await
}

fn config(fixture: &Fixture) -> std::sync::Arc<ChannelConfig> {
    fixture.server.registry().chain(&channel()).unwrap().config()
}

fn height(fixture: &Fixture) -> u64 {
    fixture.server.registry().chain(&channel()).unwrap().state().borrow().height
}

async fn answer(fixture: &Fixture, envelope: Envelope) -> Option<i32> {
    Broadcast::open(&fixture.options()).await.send(envelope).await.map(|response| response.status)
}

fn refused(result: Result<u64, UpdateError>) -> i32 {
    match result.unwrap_err() {
        UpdateError::Refused { status, .. } => status,
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_update_becomes_a_block_of_its_own_that_peers_accept() {
    let fixture = Fixture::with_batch(LARGE, NEVER_MS).await;
    let mut broadcast = Broadcast::open(&fixture.options()).await;
    let member = fixture.network.member().unwrap();
    assert_eq!(broadcast.send(transaction(&member, b"pending")).await.unwrap().status, 200);
    assert_eq!(change(&fixture, &[anchors("moved")]).await.unwrap(), 1);
    // The answer comes when the block is written: what was pending is block 1, the config block 2.
    assert_eq!(height(&fixture), 3);
    assert_eq!(change(&fixture, &[Edit::BatchCount(1)]).await.unwrap(), 2);
    fixture.submit(&[b"after"], 5).await;

    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::newest())).await;
    let genesis = deliver.block().await;
    let mut verifier = BlockVerifier::new(ChannelConfig::from_block(&genesis).unwrap().into());
    let mut previous = genesis.header_hash();
    for (number, is_config, last_config) in [(1, false, 0), (2, true, 2), (3, true, 3), (4, false, 3)] {
        let block = deliver.block().await;
        assert_eq!(block.last_config_index(), Some(last_config), "block {number}");
        let authentic = verifier.verify(block).unwrap();
        assert_eq!((authentic.number(), authentic.is_config()), (number, is_config));
        assert_eq!(authentic.previous_hash(), Some(previous));
        previous = authentic.hash();
        if is_config {
            assert_eq!(authentic.block().transactions().len(), 1);
            let next = verifier.config().next(&authentic).unwrap();
            verifier = BlockVerifier::new(next.into());
        } else {
            let want: &[u8] = if number == 1 { b"pending" } else { b"after" };
            assert_eq!(payloads(authentic.block()), [want]);
        }
    }
    assert_eq!(verifier.config().application_orgs()[&ORG1.into()].anchor_peers[0].host, "moved");
    assert_eq!(verifier.config().batch_size().max_message_count, 1);
}

#[tokio::test]
async fn a_restart_continues_with_the_newest_config() {
    let fixture = Fixture::with_batch(LARGE, NEVER_MS).await;
    assert_eq!(change(&fixture, &[Edit::BatchCount(2)]).await.unwrap(), 1);
    let fixture = fixture.restart().await;
    assert_eq!((config(&fixture).sequence(), config(&fixture).config_block_number()), (1, 1));
    // Two make a block now, by the count alone.
    fixture.submit(&[b"1", b"2"], 3).await;
    assert_eq!(change(&fixture, &[anchors("later")]).await.unwrap(), 2);
    let fixture = fixture.restart().await;
    assert_eq!((config(&fixture).sequence(), config(&fixture).config_block_number()), (2, 3));
    let mut deliver = fixture.deliver().await;
    deliver.seek(&range(SeekPosition::specified(2), SeekPosition::specified(3))).await;
    assert_eq!(deliver.block().await.last_config_index(), Some(1));
    assert_eq!(deliver.block().await.last_config_index(), Some(3));
}

#[tokio::test]
async fn the_table_of_statuses() {
    let fixture = Fixture::start().await;
    let network = &fixture.network;
    let (member, admin) = (network.member().unwrap(), network.member_admin().unwrap());
    let (orderer_admin, foreign_admin) = (network.orderer_admin().unwrap(), network.foreign_admin().unwrap());
    let current = config(&fixture);
    let signed = |update: &ConfigUpdate, submitter: &Signer, signers: &[&Signer]| {
        update_envelope(&channel(), update, submitter, signers)
    };
    let good = edited(&current, &[anchors("a")]).unwrap();
    let batch = edited(&current, &[Edit::BatchCount(0)]).unwrap();
    let mut versions = good.clone();
    let root = versions.write_set.as_mut().unwrap();
    let org1 = root.groups.get_mut("Application").unwrap().groups.get_mut(ORG1).unwrap();
    org1.version += 3;
    let mut stale = good.clone();
    stale.read_set.as_mut().unwrap().version = 9;
    let mut elsewhere = good.clone();
    elsewhere.channel_id = "audit".into();
    let table = [
        ("nobody signed", signed(&good, &member, &[]), 400),
        ("no administrator signed", signed(&good, &member, &[&member]), 400),
        ("another administrator signed", signed(&good, &member, &[&orderer_admin, &foreign_admin]), 400),
        ("the submitter may not write", signed(&good, &foreign_admin, &[&admin]), 403),
        ("versions that do not follow", signed(&versions, &member, &[&admin]), 400),
        ("read set of another config", signed(&stale, &member, &[&admin]), 400),
        ("update of another channel", signed(&elsewhere, &member, &[&admin]), 400),
        ("config that cannot be used", signed(&batch, &member, &[&orderer_admin]), 400),
        ("unknown channel", update_envelope(&"audit".parse().unwrap(), &elsewhere, &member, &[&admin]), 400),
        ("good", signed(&good, &member, &[&admin]), 200),
        ("the same once more", signed(&good, &member, &[&admin]), 400),
    ];
    for (name, envelope, want) in table {
        assert_eq!(answer(&fixture, envelope).await, Some(want), "{name}");
    }
    assert_eq!((height(&fixture), config(&fixture).sequence()), (2, 1));
}

#[tokio::test]
async fn of_two_racing_updates_the_second_meets_the_new_config() {
    let fixture = Fixture::start().await;
    let (member, admin) = (fixture.network.member().unwrap(), fixture.network.member_admin().unwrap());
    let current = config(&fixture);
    let made = |host: &str| {
        let update = edited(&current, &[anchors(host)]).unwrap();
        update_envelope(&channel(), &update, &member, &[&admin])
    };
    let (first, second) = tokio::join!(answer(&fixture, made("a")), answer(&fixture, made("b")));
    let mut answers = [first.unwrap(), second.unwrap()];
    answers.sort_unstable();
    assert_eq!(answers, [200, 400]);
    assert_eq!((height(&fixture), config(&fixture).sequence()), (2, 1));
}

#[tokio::test]
async fn an_organisation_comes_and_goes() {
    let fixture = Fixture::start().await;
    let network = &fixture.network;
    let foreigner = network.foreigner().unwrap();
    let everything = SeekInfo::from_number(0);
    let mut early = Deliver::open(&fixture.options(), foreigner.clone()).await;
    early.seek(&everything).await;
    assert_eq!(early.last_status().await, Status::Forbidden);
    assert_eq!(answer(&fixture, transaction(&foreigner, b"x")).await, Some(403));

    assert_eq!(change(&fixture, &[add_org9(network)]).await.unwrap(), 1);
    assert_eq!(answer(&fixture, transaction(&foreigner, b"x")).await, Some(200));
    let mut live = Deliver::open(&fixture.options(), foreigner.clone()).await;
    live.seek(&everything).await;
    for number in 0..3 {
        assert_eq!(live.block().await.number(), number);
    }

    // Two organisations now: a majority of their administrators is both.
    let removal = [Edit::RemoveOrganization(ORG9.into())];
    let admin = network.member_admin().unwrap();
    assert_eq!(refused(change_as(&fixture, &removal, &[&admin]).await), 400);
    let foreign_admin = network.foreign_admin().unwrap();
    // A slow reader has its stream, but nothing was sent on it yet beyond what fits into its windows.
    let mut slow = Deliver::open(&fixture.options(), foreigner.clone()).await;
    slow.seek(&everything).await;
    assert_eq!(slow.block().await.number(), 0);
    assert_eq!(change_as(&fixture, &removal, &[&admin, &foreign_admin]).await.unwrap(), 2);
    fixture.submit(&[b"secret"], 5).await;

    // The block that removes it is the last it gets, however far behind it was.
    assert_eq!(live.block().await.number(), 3);
    assert_eq!(live.last_status().await, Status::Forbidden);
    for number in 1..4 {
        assert_eq!(slow.block().await.number(), number);
    }
    assert_eq!(slow.last_status().await, Status::Forbidden);
    let mut late = Deliver::open(&fixture.options(), foreigner.clone()).await;
    late.seek(&everything).await;
    assert_eq!(late.last_status().await, Status::Forbidden);
    assert_eq!(answer(&fixture, transaction(&foreigner, b"x")).await, Some(403));
    // A member that stays reads through all configs.
    let mut member = fixture.deliver().await;
    member.seek(&range(SeekPosition::oldest(), SeekPosition::newest())).await;
    for number in 0..5 {
        assert_eq!(member.block().await.number(), number);
    }
    assert_eq!(member.status().await, Status::Success);
}

#[tokio::test]
async fn a_range_that_ends_with_the_removal_is_finished() {
    let fixture = Fixture::start().await;
    let network = &fixture.network;
    change(&fixture, &[add_org9(network)]).await.unwrap();
    let mut deliver = Deliver::open(&fixture.options(), network.foreigner().unwrap()).await;
    deliver.seek(&range(SeekPosition::specified(1), SeekPosition::specified(2))).await;
    assert_eq!(deliver.block().await.number(), 1);
    let admins = [network.member_admin().unwrap(), network.foreign_admin().unwrap()];
    let removal = [Edit::RemoveOrganization(ORG9.into())];
    change_as(&fixture, &removal, &[&admins[0], &admins[1]]).await.unwrap();
    assert_eq!(deliver.block().await.number(), 2);
    assert_eq!(deliver.status().await, Status::Success);
    deliver.seek(&range(SeekPosition::oldest(), SeekPosition::oldest())).await;
    assert_eq!(deliver.last_status().await, Status::Forbidden);
}

#[tokio::test]
async fn what_was_accepted_under_an_earlier_config_is_checked_again() {
    let fixture = Fixture::with_batch(LARGE, 200).await;
    let network = &fixture.network;
    change(&fixture, &[add_org9(network)]).await.unwrap();
    let chain = fixture.server.registry().chain(&channel()).unwrap().clone();
    let sequence = chain.config().sequence();
    let admins = [network.member_admin().unwrap(), network.foreign_admin().unwrap()];
    let removal = [Edit::RemoveOrganization(ORG9.into())];
    change_as(&fixture, &removal, &[&admins[0], &admins[1]]).await.unwrap();
    // As if they had been checked just before the update was ordered.
    for signer in [network.foreigner().unwrap(), network.member().unwrap()] {
        let envelope = transaction(&signer, signer.identity().msp_id().as_str().as_bytes());
        let encoded = prost::Message::encode_to_vec(&envelope);
        chain.order(encoded.into(), 100, sequence).await.unwrap();
    }
    let mut deliver = fixture.deliver().await;
    deliver.seek(&SeekInfo::from_number(3)).await;
    assert_eq!(payloads(&deliver.block().await), [ORG1]);
}

#[tokio::test]
async fn a_revoked_member_is_refused_from_then_on() {
    let fixture = Fixture::start().await;
    let network = &fixture.network;
    let revoked = network.member().unwrap();
    assert_eq!(answer(&fixture, transaction(&revoked, b"x")).await, Some(200));
    let mut deliver = Deliver::open(&fixture.options(), revoked.clone()).await;
    deliver.seek(&SeekInfo::from_number(1)).await;
    assert_eq!(deliver.block().await.number(), 1);
    let pem = network.revoke(&revoked).unwrap();
    change(&fixture, &[Edit::RevocationList { organization: ORG1.into(), pem }]).await.unwrap();
    assert_eq!(deliver.block().await.number(), 2);
    assert_eq!(deliver.last_status().await, Status::Forbidden);
    assert_eq!(answer(&fixture, transaction(&revoked, b"x")).await, Some(403));
    assert_eq!(answer(&fixture, transaction(&network.member().unwrap(), b"x")).await, Some(200));
}

#[tokio::test]
async fn edits_that_do_not_fit() {
    let fixture = Fixture::start().await;
    let unknown = MspId::from("Org7MSP");
    let edit_error = |result: Result<u64, UpdateError>| match result.unwrap_err() {
        UpdateError::Edit(error) => error,
        error => panic!("{error}"),
    };
    let removal = Edit::RemoveOrganization(unknown.clone());
    assert_eq!(
        edit_error(change(&fixture, &[removal]).await),
        EditError::UnknownOrganization(unknown.clone())
    );
    let list = Edit::RevocationList { organization: unknown.clone(), pem: Vec::new() };
    assert_eq!(edit_error(change(&fixture, &[list]).await), EditError::UnknownOrganization(unknown));
    let twice = [add_org9(&fixture.network), add_org9(&fixture.network)];
    assert_eq!(edit_error(change(&fixture, &twice).await), EditError::KnownOrganization(ORG9.into()));
    // Taking away anchors that are not there changes nothing.
    let none = Edit::AnchorPeers { organization: ORG1.into(), anchors: Vec::new() };
    assert!(matches!(change(&fixture, &[none]).await, Err(UpdateError::Compute(_))));
    let list = Edit::RevocationList { organization: ORG1.into(), pem: b"junk".to_vec() };
    assert_eq!(refused(change(&fixture, &[list]).await), 400);
    assert_eq!(height(&fixture), 1);
}

#[tokio::test]
async fn the_batch_timeout_holds_after_a_config_change() {
    let fixture = Fixture::with_batch(LARGE, 100).await;
    change(&fixture, &[anchors("a")]).await.unwrap();
    let started = std::time::Instant::now();
    fixture.submit(&[b"1"], 3).await;
    assert!(started.elapsed() >= Duration::from_millis(100));
}

/// While the consensus type is being changed, the ordering organisations alone read and update.
#[tokio::test]
async fn in_maintenance_members_neither_read_nor_write() {
    let fixture = Fixture::start().await;
    let network = &fixture.network;
    let (member, orderer_admin) = (network.member().unwrap(), network.orderer_admin().unwrap());
    let set_state = |state: ConsensusState| {
        let config = config(&fixture);
        let current = config.config().channel_group.clone().unwrap();
        let mut wanted = current.clone();
        let orderer = wanted.groups.get_mut("Orderer").unwrap();
        let value = orderer.values.get_mut("ConsensusType").unwrap();
        let mut consensus = ConsensusType::decode(value.value.as_slice()).unwrap();
        consensus.state = state.into();
        value.value = consensus.encode_to_vec();
        compute_update(&channel(), &current, &wanted).unwrap()
    };
    let by = |update: &ConfigUpdate, submitter: &Signer| {
        update_envelope(&channel(), update, submitter, &[&orderer_admin])
    };
    let mut live = fixture.deliver().await;
    live.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(live.block().await.number(), 0);
    let enter = set_state(ConsensusState::Maintenance);
    assert_eq!(answer(&fixture, by(&enter, &member)).await, Some(200));
    assert_eq!(live.block().await.number(), 1);
    assert_eq!(live.last_status().await, Status::Forbidden, "nothing after the block that begins it");

    let mut late = fixture.deliver().await;
    late.seek(&SeekInfo::from_number(0)).await;
    assert_eq!(late.last_status().await, Status::Forbidden);
    let mut orderers = Deliver::open(&fixture.options(), orderer_admin.clone()).await;
    orderers.seek(&range(SeekPosition::newest(), SeekPosition::newest())).await;
    assert_eq!(orderers.block().await.number(), 1);
    for signer in [&member, &orderer_admin] {
        assert_eq!(answer(&fixture, transaction(signer, b"x")).await, Some(503));
    }
    let leave = set_state(ConsensusState::Normal);
    assert_eq!(answer(&fixture, by(&leave, &member)).await, Some(403));
    assert_eq!(answer(&fixture, by(&leave, &orderer_admin)).await, Some(200));
    assert_eq!(answer(&fixture, transaction(&member, b"x")).await, Some(200));
}
