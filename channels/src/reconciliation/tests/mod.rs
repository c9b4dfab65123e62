//! The machine alone: what it asks when it is told what.

mod world;

use super::*;
use crate::block::{AuthenticBlock, BlockHeader};
use rand::SeedableRng;

fn peer(index: usize) -> PkiId {
    PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
}

fn at(milliseconds: u64) -> Time {
    Time::from_millis(milliseconds)
}

fn config() -> ReconciliationConfig {
    ReconciliationConfig {
        enabled: true,
        check_interval: Duration::from_millis(500),
        response_timeout: Duration::from_secs(3),
        batch_size: 64,
        max_retries: 3,
    }
}

/// A machine with one source for each entry: true for the own organisation.
fn new(peers: &[bool]) -> Reconciliation {
    let mut machine = Reconciliation::new(config(), Time::ZERO, ChaCha8Rng::seed_from_u64(1));
    for (index, own) in peers.iter().enumerate() {
        let organization = if *own { "Org1MSP" } else { "Org2MSP" };
        machine.handle_peer(Time::ZERO, peer(index), organization.into(), *own);
    }
    machine.block_bytes = Some(50_000.0);
    machine
}

/// A chain of block 0 alone.
fn chain() -> Chain {
    Chain::new(1, genesis().hash(), 4_096, 4)
}

fn genesis() -> AuthenticBlock {
    AuthenticBlock::simulated(0, Digest([0; 32]), 100)
}

/// Blocks 0 to `count`.
fn blocks(count: u64, size: usize) -> Vec<AuthenticBlock> {
    let mut blocks = vec![genesis()];
    for number in 1..=count {
        let previous = blocks.last().unwrap().hash();
        blocks.push(AuthenticBlock::simulated(number, previous, size));
    }
    blocks
}

fn commit(chain: &mut Chain, blocks: &[AuthenticBlock]) {
    for block in blocks {
        chain.offer(block.clone());
    }
    while let Some(block) = chain.poll_commit() {
        let next = block.unwrap().number() + 1;
        chain.handle_committed(next);
    }
}

fn ask(machine: &mut Reconciliation, now: Time, chain: &Chain) -> Vec<Ask> {
    machine.handle_timeout(now, chain, 32 << 20, nowhere)
}

fn nowhere(_number: u64) -> Elsewhere {
    Elsewhere::Nowhere
}

fn arriving(is_arriving: bool) -> Elsewhere {
    if is_arriving { Elsewhere::Arriving } else { Elsewhere::Nowhere }
}

/// The numbers asked for, by peer.
fn numbers(asks: &[Ask]) -> BTreeMap<PkiId, Vec<u64>> {
    let mut all: BTreeMap<PkiId, Vec<u64>> = BTreeMap::new();
    for ask in asks {
        if let Ask::Blocks { peer, numbers } = ask {
            all.entry(*peer).or_default().extend(numbers);
        }
    }
    all
}

fn header_asks(asks: &[Ask]) -> Vec<(PkiId, u64, u64)> {
    let of = |ask: &Ask| match ask {
        Ask::Headers { peer, first, count } => Some((*peer, *first, *count)),
        _ => None,
    };
    asks.iter().filter_map(of).collect()
}

fn answer(blocks: &[AuthenticBlock], first: u64, count: u64) -> wire::Headers {
    let range = blocks.iter().skip(first as usize).take(count as usize);
    let range = range.map(|block| Ok::<_, ()>((block.block().clone(), block.size())));
    wire::Headers::of(first, range).unwrap()
}

fn verified(headers: &wire::Headers) -> Vec<(VerifiedHeader, usize)> {
    let sizes = headers.entries.iter().map(|entry| entry.block_bytes as usize);
    headers.headers().map(|(header, _)| VerifiedHeader::simulated(header)).zip(sizes).collect()
}

fn state(machine: &mut Reconciliation, now: Time, index: usize, height: u64, chain: &Chain) {
    machine.handle_state(now, peer(index), height, None, chain);
}

#[test]
fn far_behind_asks_at_once_for_headers_and_the_first_blocks() {
    let (mut machine, chain) = (new(&[true, true]), chain());
    state(&mut machine, at(0), 0, 1_000, &chain);
    state(&mut machine, at(0), 1, 1_000, &chain);
    let asks = ask(&mut machine, at(0), &chain);
    let asked = numbers(&asks);
    assert_eq!(asked.len(), 2, "both are asked");
    let mut all: Vec<u64> = asked.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=UNPROVEN_BLOCKS).take(all.len()).collect::<Vec<_>>());
    let headers: Vec<(u64, u64)> =
        header_asks(&asks).iter().map(|(_, first, count)| (*first, *count)).collect();
    assert_eq!(headers, vec![(1, 128), (129, 128)]);
}

/// Sixteen blocks of the largest size at once would be more memory than a peer may take.
#[test]
fn few_blocks_are_asked_for_while_their_size_is_unknown() {
    let (mut machine, chain) = (new(&[true, true]), chain());
    machine.block_bytes = None;
    state(&mut machine, at(0), 0, 1_000, &chain);
    assert_eq!(numbers(&ask(&mut machine, at(0), &chain)), [(peer(0), vec![1, 2, 3, 4])].into());
    machine.handle_authentic(at(1), Some(peer(0)), 1, 8 << 20);
    assert_eq!(machine.expected_bytes(9), 8 << 20);
}

#[test]
fn near_the_tip_a_push_gets_its_time() {
    let (mut machine, chain) = (new(&[true]), chain());
    state(&mut machine, at(0), 0, 3, &chain);
    assert_eq!(numbers(&ask(&mut machine, at(0), &chain)), BTreeMap::new());
    assert!(machine.next_deadline() <= Some(at(150)));
    let asks = ask(&mut machine, at(150), &chain);
    assert_eq!(numbers(&asks), [(peer(0), vec![1, 2])].into());
    assert_eq!(header_asks(&asks), vec![]);
}

#[test]
fn numbers_held_or_arriving_are_not_asked_for() {
    let (mut machine, mut chain) = (new(&[true]), chain());
    chain.offer(AuthenticBlock::simulated(2, Digest([1; 32]), 10));
    state(&mut machine, at(0), 0, 9, &chain);
    let asks = machine.handle_timeout(at(0), &chain, 32 << 20, |number| arriving(number == 3));
    assert_eq!(numbers(&asks), [(peer(0), vec![1, 4, 5, 6, 7, 8])].into());
}

#[test]
fn what_dissemination_pursues_is_left_to_it_until_it_gives_up() {
    let (mut machine, chain) = (new(&[true]), chain());
    state(&mut machine, at(0), 0, 9, &chain);
    let pursued = |number| if number == 5 { Elsewhere::Pursued } else { Elsewhere::Nowhere };
    let asks = machine.handle_timeout(at(0), &chain, 32 << 20, pursued);
    assert_eq!(numbers(&asks), [(peer(0), vec![1, 2, 3, 4, 6, 7, 8])].into());
    assert!(machine.next_deadline() <= Some(at(150)));
    assert_eq!(numbers(&ask(&mut machine, at(150), &chain)), [(peer(0), vec![5])].into());
}

#[test]
fn digests_are_followed_even_if_history_is_not() {
    let mut machine = new(&[true]);
    machine.config.enabled = false;
    let chain = chain();
    state(&mut machine, at(0), 0, 500, &chain);
    machine.handle_digest(at(0), peer(0), &[1, 2, 7, 7], &chain);
    assert_eq!(numbers(&ask(&mut machine, at(0), &chain)), [(peer(0), vec![1, 2, 7])].into());
}

#[test]
fn proven_blocks_are_asked_for_up_to_the_window_and_the_room() {
    let (mut machine, chain, blocks) = (new(&[true, true]), chain(), blocks(100, 100_000));
    state(&mut machine, at(0), 0, 101, &chain);
    let asks = ask(&mut machine, at(0), &chain);
    let [(source, first, count)] = header_asks(&asks)[..] else { panic!("{asks:?}") };
    let headers = answer(&blocks, first, count);
    assert!(machine.handle_headers(at(10), source, &headers, &chain));
    machine.handle_verified_headers(at(11), source, 1, Some(verified(&headers)), &chain);
    assert_eq!(machine.counters().headers, 100);
    assert_eq!(machine.header(100).map(VerifiedHeader::hash), Some(blocks[100].hash()));
    state(&mut machine, at(12), 1, 101, &chain);
    let room = 250_000;
    let asks = machine.handle_timeout(at(12), &chain, room, nowhere);
    let asked: Vec<u64> = numbers(&asks).into_values().flatten().collect();
    assert_eq!(asked.len(), 2, "two blocks of 100 kB fit into the room: {asked:?}");
    let before = machine.asked_bytes();
    machine.changed(at(13));
    ask(&mut machine, at(13), &chain);
    assert!(machine.asked_bytes() > before);
    for source in machine.sources.values() {
        assert!(source.asked_bytes() <= source.window(), "{}", source.asked_bytes());
    }
}

#[test]
fn the_next_needed_block_is_asked_for_without_room() {
    let (mut machine, chain) = (new(&[true]), chain());
    state(&mut machine, at(0), 0, 50, &chain);
    let asks = machine.handle_timeout(at(0), &chain, 0, nowhere);
    assert_eq!(numbers(&asks), [(peer(0), vec![1])].into());
}

/// A height of 2^64 - 1 costs its claimant its turn, and nobody else anything.
#[test]
fn a_height_without_headers_does_not_count() {
    let (mut machine, chain) = (new(&[true, true]), chain());
    state(&mut machine, at(0), 0, u64::MAX, &chain);
    state(&mut machine, at(0), 1, 2, &chain);
    let asks = ask(&mut machine, at(0), &chain);
    assert_eq!(header_asks(&asks), vec![(peer(0), 1, 128)]);
    let empty = wire::Headers { first: 1, ..wire::Headers::default() };
    assert!(!machine.handle_headers(at(5), peer(0), &empty, &chain));
    assert_eq!(machine.counters().unproven_claims, 1);
    assert_eq!(machine.progress(&chain).claimed, 2);
    let mut asked = 0;
    for now in 6..10_000 {
        state(&mut machine, at(now), 0, u64::MAX, &chain);
        let asks = ask(&mut machine, at(now), &chain);
        for (source, first, _) in header_asks(&asks) {
            asked += 1;
            let empty = wire::Headers { first, ..wire::Headers::default() };
            machine.handle_headers(at(now), source, &empty, &chain);
        }
    }
    assert!(asked <= 6, "asked {asked} times in 10 s, the rests double");
}

#[test]
fn own_organisation_first_and_at_least_four_sources() {
    let (mut machine, chain) = (new(&[true, true, false, false, false, false]), chain());
    for index in 0..6 {
        state(&mut machine, at(0), index, 17, &chain);
    }
    machine.block_bytes = Some(1_000.0);
    let asked = numbers(&ask(&mut machine, at(0), &chain));
    assert_eq!(asked.len(), SOURCES_MIN);
    assert!(asked.contains_key(&peer(0)) && asked.contains_key(&peer(1)));
    let (mut machine, chain) = (new(&[true, true, true, true, false]), self::chain());
    for index in 0..5 {
        state(&mut machine, at(0), index, 17, &chain);
    }
    machine.block_bytes = Some(1_000.0);
    let asked = numbers(&ask(&mut machine, at(0), &chain));
    assert!(!asked.contains_key(&peer(4)), "the own organisation has enough");
}

#[test]
fn what_a_silent_source_owes_goes_to_others_soon() {
    let (mut machine, chain) = (new(&[true, true]), chain());
    machine.block_bytes = Some(1_000.0);
    state(&mut machine, at(0), 0, 9, &chain);
    state(&mut machine, at(0), 1, 9, &chain);
    let asked = numbers(&ask(&mut machine, at(0), &chain));
    let owed = asked.get(&peer(1)).unwrap().clone();
    for number in asked.get(&peer(0)).unwrap() {
        machine.handle_arrival(at(100), peer(0), *number);
    }
    let due = machine.next_deadline().unwrap();
    assert!(due <= at(250), "{due}");
    let arrived = asked.get(&peer(0)).unwrap().clone();
    let mut again = Vec::new();
    for now in 100..400 {
        let asks =
            machine.handle_timeout(at(now), &chain, 32 << 20, |number| arriving(arrived.contains(&number)));
        again.extend(numbers(&asks).remove(&peer(0)).unwrap_or_default());
    }
    again.sort_unstable();
    again.dedup();
    assert_eq!(again, owed);
    assert!(machine.counters().timeouts >= 1);
    // Late, it is welcome again, one block at a time at first.
    machine.handle_arrival(at(450), peer(1), owed[0]);
    assert!(!machine.sources[&peer(1)].rests(at(450)));
}

/// While nobody answers the fault may be here: no source is given up before the response timeout.
#[test]
fn silence_of_all_is_judged_slowly() {
    let (mut machine, chain) = (new(&[true, true]), chain());
    state(&mut machine, at(0), 0, 9, &chain);
    state(&mut machine, at(0), 1, 9, &chain);
    ask(&mut machine, at(0), &chain);
    for now in 1..2_900 {
        ask(&mut machine, at(now), &chain);
    }
    assert_eq!(machine.counters().timeouts, 0);
    for now in 2_900..6_000 {
        ask(&mut machine, at(now), &chain);
    }
    assert!(machine.counters().timeouts >= 2);
}

#[test]
fn refused_numbers_go_to_others() {
    let (mut machine, chain) = (new(&[true, true]), chain());
    state(&mut machine, at(0), 0, 9, &chain);
    assert_eq!(numbers(&ask(&mut machine, at(0), &chain)).len(), 1);
    state(&mut machine, at(1), 1, 9, &chain);
    let open: Vec<u64> = machine.sources[&peer(0)].asked().keys().copied().collect();
    machine.handle_refusal(at(1), peer(0), &open);
    assert_eq!(machine.counters().refused, open.len() as u64);
    let asked = numbers(&ask(&mut machine, at(1), &chain));
    assert_eq!(asked.get(&peer(1)).map(|numbers| numbers[0]), Some(1));
    assert!(!asked.contains_key(&peer(0)), "it rests for a moment");
    machine.handle_refusal(at(2), peer(1), &[77, 78]);
    assert_eq!(machine.counters().refused, open.len() as u64, "what was not asked for cannot be refused");
}

#[test]
fn a_peer_that_leaves_frees_what_it_owed() {
    let (mut machine, chain) = (new(&[true, true]), chain());
    state(&mut machine, at(0), 0, 9, &chain);
    ask(&mut machine, at(0), &chain);
    state(&mut machine, at(1), 1, 9, &chain);
    machine.handle_peer_gone(at(1), peer(0));
    assert_eq!(machine.asked_bytes(), 0);
    let asked = numbers(&ask(&mut machine, at(1), &chain));
    assert_eq!(asked.get(&peer(1)), Some(&(1..9).collect()));
}

/// The orderer is the last source: only for what exists, and only when nobody brings it.
#[test]
fn a_block_that_nobody_brings_is_pulled_from_the_orderer() {
    let pulls = |asks: &[Ask]| -> Vec<bool> {
        asks.iter()
            .filter_map(|ask| if let Ask::Orderer { pull } = ask { Some(*pull) } else { None })
            .collect()
    };
    let (mut machine, mut chain, blocks) = (new(&[true, false]), chain(), blocks(8, 1_000));
    // Both have it, and both refuse.
    state(&mut machine, at(0), 0, 9, &chain);
    state(&mut machine, at(0), 1, 9, &chain);
    let mut said = Vec::new();
    let mut until = |machine: &mut Reconciliation, chain: &Chain, from: u64, to: u64| {
        for now in from..to {
            let asks = ask(machine, at(now), chain);
            for (peer, refused) in numbers(&asks) {
                machine.handle_refusal(at(now), peer, &refused);
            }
            said.extend(pulls(&asks).into_iter().map(|pull| (now, pull)));
        }
        std::mem::take(&mut said)
    };
    assert_eq!(until(&mut machine, &chain, 0, 5_000), []);
    assert!(machine.next_deadline() <= Some(at(0) + STRANDED_AFTER));
    assert_eq!(until(&mut machine, &chain, 5_000, 5_010), [(5_000, true)]);
    commit(&mut chain, &blocks[1..5]);
    machine.handle_committed(at(5_010), 4, 4_000, &chain);
    assert_eq!(until(&mut machine, &chain, 5_010, 5_100), [], "the rest is missing");
    commit(&mut chain, &blocks[5..]);
    machine.handle_committed(at(5_100), 4, 4_000, &chain);
    assert_eq!(until(&mut machine, &chain, 5_100, 12_000), [(5_100, false)]);
}

/// What only a liar claims sends nobody to the orderer.
#[test]
fn a_claim_that_cannot_be_shown_is_nothing_to_pull() {
    let (mut machine, chain) = (new(&[true]), chain());
    for now in 0..30_000 {
        if now % 100 == 0 {
            state(&mut machine, at(now), 0, u64::MAX, &chain);
        }
        for ask in ask(&mut machine, at(now), &chain) {
            match ask {
                Ask::Headers { peer, first, .. } => {
                    let empty = wire::Headers { first, ..wire::Headers::default() };
                    machine.handle_headers(at(now), peer, &empty, &chain);
                }
                Ask::Orderer { .. } => panic!("at {now}"),
                _ => {}
            }
        }
    }
}

/// Any gap is compared with every member within as many rounds as there are members.
#[test]
fn the_walk_visits_every_member_in_a_fixed_order() {
    let (mut machine, chain) = (new(&[true; 9]), chain());
    let mut visited = Vec::new();
    for now in 0..9_500 {
        for ask in ask(&mut machine, at(now), &chain) {
            if let Ask::State { peer } = ask {
                visited.push(peer);
            }
        }
    }
    assert!(visited.len() >= 18);
    let round: std::collections::BTreeSet<PkiId> = visited[..9].iter().copied().collect();
    assert_eq!(round.len(), 9, "all within one round");
    assert_eq!(visited[..9], visited[9..18], "in the same order each time");
    machine.handle_peer_gone(at(9_500), visited[0]);
    let mut again = std::collections::BTreeSet::new();
    for now in 9_500..13_600 {
        for ask in ask(&mut machine, at(now), &chain) {
            if let Ask::State { peer } = ask {
                again.insert(peer);
            }
        }
    }
    assert_eq!(again.len(), 8, "also after one has left");
}

#[test]
fn headers_past_a_config_block_wait_until_it_is_committed() {
    let (mut machine, mut chain, blocks) = (new(&[true]), chain(), blocks(60, 1_000));
    state(&mut machine, at(0), 0, 61, &chain);
    ask(&mut machine, at(0), &chain);
    let headers = answer(&blocks, 1, 60);
    assert!(machine.handle_headers(at(1), peer(0), &headers, &chain));
    let header = |number: usize| -> BlockHeader { blocks[number].block().header().clone() };
    let mut proven = verified(&headers);
    proven[19].0 = VerifiedHeader::simulated_config(header(20));
    machine.handle_verified_headers(at(1), peer(0), 1, Some(proven), &chain);
    assert!(machine.header(20).is_some());
    assert!(machine.header(21).is_none());
    assert_eq!(header_asks(&ask(&mut machine, at(2), &chain)), vec![]);
    commit(&mut chain, &blocks[1..=20]);
    machine.handle_committed(at(3), 20, 20_000, &chain);
    assert_eq!(header_asks(&ask(&mut machine, at(3), &chain)), vec![(peer(0), 21, 40)]);
}

#[test]
fn ranges_link_in_whatever_order_they_come() {
    let (mut machine, chain, blocks) = (new(&[true; 3]), chain(), blocks(384, 1_000));
    for index in 0..3 {
        state(&mut machine, at(0), index, 385, &chain);
    }
    let mut asked = header_asks(&ask(&mut machine, at(0), &chain));
    assert_eq!(asked.len(), 3);
    asked.reverse();
    for (source, first, count) in asked {
        let headers = answer(&blocks, first, count);
        assert!(
            !machine.handle_headers(at(1), source, &answer(&blocks, first + 1, count), &chain),
            "wrong range"
        );
        assert!(!machine.handle_headers(at(1), peer(9), &headers, &chain), "a stranger");
        assert!(machine.handle_headers(at(1), source, &headers, &chain));
        assert!(!machine.handle_headers(at(1), source, &headers, &chain), "twice");
        machine.handle_verified_headers(at(1), source, first, Some(verified(&headers)), &chain);
    }
    assert_eq!(machine.counters().headers, 384);
    assert!((1..=384).all(
        |number| machine.header(number).map(VerifiedHeader::hash) == Some(blocks[number as usize].hash())
    ));
}

/// The first block that differs is found and fetched, whichever the tip that showed it.
#[test]
fn a_diverging_history_is_found_at_the_first_difference() {
    let own = blocks(300, 1_000);
    for differs in [2u64, 100, 171, 172, 173, 299, 300] {
        let mut theirs = own[..differs as usize].to_vec();
        for number in differs..=300 {
            let previous = theirs.last().unwrap().hash();
            theirs.push(AuthenticBlock::simulated(number, previous, 2_000));
        }
        let (mut machine, mut chain) = (new(&[true, true]), chain());
        commit(&mut chain, &own[1..]);
        ask(&mut machine, at(0), &chain);
        machine.handle_state(at(0), peer(0), 301, Some(theirs[300].hash()), &chain);
        let mut said = Vec::new();
        for now in 1..20 {
            for ask in ask(&mut machine, at(now), &chain) {
                match ask {
                    Ask::Headers { peer, first, count } => {
                        let headers = answer(&theirs, first, count);
                        assert!(
                            !machine.handle_headers(at(now), peer, &headers, &chain),
                            "not for the way ahead"
                        );
                    }
                    Ask::State { .. } => {}
                    other => said.push(other),
                }
            }
        }
        let place = differs as usize;
        let diverged = Ask::Diverged {
            peer: peer(0),
            number: differs,
            own: own[place].hash(),
            theirs: theirs[place].hash(),
        };
        assert_eq!(said, vec![diverged, Ask::Blocks { peer: peer(0), numbers: vec![differs] }]);
        machine.handle_state(at(30), peer(0), 301, Some(theirs[300].hash()), &chain);
        assert_eq!(header_asks(&ask(&mut machine, at(30), &chain)), vec![], "it is reported once");
    }
}

/// The tip of a member that is far behind is compared with the ledger: once for each number, and reported once.
#[test]
fn a_tip_older_than_the_remembered_hashes_is_looked_up() {
    let behind = 10;
    let own = blocks(crate::chain::HASHES_MAX as u64 + behind + 1, 100);
    let (mut machine, mut chain) = (new(&[true, true]), chain());
    for some in own[1..].chunks(64) {
        commit(&mut chain, some);
    }
    assert_eq!(chain.hash_at(behind), None, "it is no longer in memory");
    ask(&mut machine, at(0), &chain);
    let theirs = Digest([7; 32]);
    let place = behind as usize;
    let lookups = |asks: &[Ask]| asks.iter().filter(|ask| matches!(ask, Ask::OwnHash { .. })).count();
    for (index, tip) in [(0, own[place].hash()), (1, theirs)] {
        for _ in 0..3 {
            machine.handle_state(at(1), peer(index), behind + 1, Some(tip), &chain);
        }
        let asks = ask(&mut machine, at(1), &chain);
        assert!(asks.contains(&Ask::OwnHash { peer: peer(index), number: behind }));
        assert_eq!(lookups(&asks), 1, "once for each number");
    }
    let mut said = Vec::new();
    for _ in 0..2 {
        machine.handle_own_hash(at(2), peer(0), behind, own[place].hash());
        machine.handle_own_hash(at(2), peer(1), behind, own[place].hash());
        machine.handle_own_hash(at(2), peer(1), behind - 1, own[place - 1].hash());
        machine.handle_own_hash(at(2), peer(2), behind, theirs);
        said.extend(ask(&mut machine, at(2), &chain));
    }
    said.retain(|ask| !matches!(ask, Ask::State { .. }));
    let diverged = Ask::Diverged { peer: peer(1), number: behind, own: own[place].hash(), theirs };
    assert_eq!(said, vec![diverged, Ask::Blocks { peer: peer(1), numbers: vec![behind] }]);
    assert_eq!(machine.counters().diverged, 1);

    // It goes on, so another number is looked up.
    machine.handle_state(at(3), peer(0), behind + 2, Some(own[place + 1].hash()), &chain);
    assert_eq!(lookups(&ask(&mut machine, at(3), &chain)), 1);
}

#[test]
fn readiness_needs_sources_the_blocks_and_two_organisations() {
    let (own, mut chain) = (blocks(40, 1_000), chain());
    let mut machine = new(&[]);
    assert_eq!(machine.not_ready(&chain, false, 2), Some(NotReady::NoSource));
    assert_ne!(machine.not_ready(&chain, true, 2), Some(NotReady::NoSource));
    for (index, organization) in ["Org1MSP", "Org1MSP", "Org2MSP"].into_iter().enumerate() {
        machine.handle_peer(at(0), peer(index), organization.into(), index < 2);
    }
    machine.handle_state(at(0), peer(0), 41, Some(own[40].hash()), &chain);
    let behind = NotReady::Behind { height: 1, claimed: 41, missing: 40, sources: 1 };
    assert_eq!(machine.not_ready(&chain, false, 2), Some(behind));
    commit(&mut chain, &own[1..]);
    machine.handle_committed(at(5), 40, 40_000, &chain);
    let unconfirmed = NotReady::Unconfirmed { number: 40, organizations: 1, wanted: 2 };
    assert_eq!(machine.not_ready(&chain, false, 2), Some(unconfirmed.clone()));
    machine.handle_state(at(6), peer(1), 41, Some(own[40].hash()), &chain);
    machine.handle_state(at(6), peer(2), 41, Some(Digest([9; 32])), &chain);
    ask(&mut machine, at(6), &chain);
    assert_eq!(machine.not_ready(&chain, false, 2), Some(unconfirmed), "two peers of one organisation");
    machine.handle_state(at(7), peer(2), 41, Some(own[40].hash()), &chain);
    ask(&mut machine, at(7), &chain);
    assert_eq!(machine.not_ready(&chain, false, 2), None);
}

#[test]
fn an_orderer_confirms_alone() {
    let (own, mut chain, mut machine) = (blocks(3, 1_000), chain(), new(&[true]));
    machine.handle_state(at(0), peer(0), 3, None, &chain);
    commit(&mut chain, &own[1..3]);
    machine.handle_state(at(1), peer(0), 3, Some(own[2].hash()), &chain);
    machine.handle_committed(at(1), 2, 2_000, &chain);
    assert!(matches!(machine.not_ready(&chain, true, 2), Some(NotReady::Unconfirmed { number: 2, .. })));
    machine.handle_confirmation(at(2), 3);
    commit(&mut chain, &own[3..]);
    machine.handle_committed(at(2), 1, 1_000, &chain);
    assert_eq!(machine.not_ready(&chain, true, 2), None);
}

#[test]
fn progress_has_speed_and_time_left() {
    let (own, mut chain, mut machine) = (blocks(100, 1_000), chain(), new(&[true]));
    state(&mut machine, at(0), 0, 201, &chain);
    machine.handle_committed(at(0), 0, 0, &chain);
    commit(&mut chain, &own[1..]);
    machine.handle_committed(at(1_000), 100, 100_000, &chain);
    let progress = machine.progress(&chain);
    assert_eq!((progress.height, progress.claimed, progress.sources), (101, 201, 1));
    assert!((progress.blocks_per_s - 100.0).abs() < 1e-6 && (progress.bytes_per_s - 1e5).abs() < 1e-3);
    assert_eq!(progress.left, Some(Duration::from_secs(1)));
}
