//! What it costs to verify a block, beside what nobody can avoid: one SHA-256 over its data and one signature check.
//!
//! Groups: `verify/SIZE/ALGORITHM` from received bytes to an authentic block, `sha256/SIZE`, `signature/ALGORITHM`. SIZE
//! is that of the block's data: headers, certificates and signatures come on top and count as overhead. Afterwards a
//! table sets them in relation: *share* is (hash + signature) ÷ verification, and must be at least [`SHARE_MIN`] for
//! every block. The table has measurements of its own, taken in turns call by call, so that a machine that is busy for a
//! while slows down all of them alike; blocks come in both forms, as peers send them and as orderers do, whose unsigned metadata is
//! dropped. Exit code 1 if a share is too low.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use grapevine_channels::ChannelId;
use grapevine_channels::block::{Block, BlockHeader};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::genesis::{ApplicationOrg, GenesisBuilder, OrdererOrg};
use grapevine_channels::proto::common;
use grapevine_channels::sign::sign_block;
use grapevine_channels::verify::BlockVerifier;
use grapevine_crypto::issue::{Organization, Validity};
use grapevine_crypto::{Algorithm, PublicKey, Role, Signer, sha256, sha256_of};
use prost::Message as _;

/// Least share of a verification that hash and signature must make up.
const SHARE_MIN: f64 = 0.85;
/// Data bytes of a block and how many transactions they are.
const SIZES: [(&str, usize, usize); 3] =
    [("1KB", 1_000, 1), ("160KB", 160_000, 100), ("2MB", 2_000_000, 500)];
const ALGORITHMS: [(&str, Algorithm); 2] = [("Ed25519", Algorithm::Ed25519), ("P-256", Algorithm::EcdsaP256)];
/// How long the table measures each case, and how often at least. It shows medians; a share is the median of those of the
/// rounds, since what slows a round down slows all of it down.
const MEASUREMENT: Duration = Duration::from_secs(3);
const ROUNDS_MIN: usize = 40;

struct Channel {
    orderer: Signer,
    verifier: BlockVerifier,
    genesis: Block,
}

struct Case {
    size: &'static str,
    algorithm: &'static str,
    verifier: BlockVerifier,
    from_peer: Bytes,
    from_orderer: Bytes,
    data: Vec<u8>,
    signature: SignatureCheck,
}

#[derive(Clone)]
struct SignatureCheck {
    key: PublicKey,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl SignatureCheck {
    fn run(&self) {
        self.key.verify(black_box(&self.message), black_box(&self.signature)).unwrap();
    }
}

fn channel(algorithm: Algorithm) -> Channel {
    let now = 1_795_000_000;
    let validity = Validity::ten_years_from(now);
    let organization =
        |id: &str, domain: &str| Organization::new(id.into(), domain, algorithm, validity).unwrap();
    let ordering = organization("OrdererMSP", "example.com");
    let genesis = GenesisBuilder::new("trade".parse().unwrap(), [7; 24], now)
        .orderer_org(OrdererOrg {
            name: "OrdererMSP".to_owned(),
            msp: ordering.msp_config(),
            endpoints: vec!["127.0.0.1:7050".to_owned()],
        })
        .application_org(ApplicationOrg {
            name: "Org1MSP".to_owned(),
            msp: organization("Org1MSP", "org1.example.com").msp_config(),
            anchor_peers: Vec::new(),
        })
        .build()
        .unwrap();
    let config = Arc::new(ChannelConfig::from_block(&genesis).unwrap());
    Channel {
        orderer: ordering.enrol("orderer.example.com", Role::Orderer, validity).unwrap(),
        verifier: BlockVerifier::new(config),
        genesis,
    }
}

/// An envelope of exactly `size` bytes; `seed` makes the bytes of its payload differ.
fn transaction(channel: &ChannelId, size: usize, seed: usize) -> Bytes {
    let header = common::Header {
        channel_header: common::ChannelHeader {
            r#type: common::HeaderType::EndorserTransaction.into(),
            channel_id: channel.to_string(),
            tx_id: sha256(&seed.to_be_bytes()).to_string(),
            ..common::ChannelHeader::default()
        }
        .encode_to_vec()
        .into(),
        signature_header: common::SignatureHeader { creator: vec![1; 100], nonce: vec![2; 24] }
            .encode_to_vec()
            .into(),
    };
    let of_payload = |length: usize| {
        let data: Vec<u8> = (0..length).map(|place| (place.wrapping_mul(31) ^ seed) as u8).collect();
        let payload = common::Payload { header: Some(header.clone()), data: data.into() };
        let signature = Bytes::from(vec![3; 64]);
        common::Envelope { payload: payload.encode_to_vec().into(), signature }.encode_to_vec()
    };
    let overhead = of_payload(size).len() - size;
    let envelope = of_payload(size - overhead);
    // Length prefixes may have become shorter.
    let envelope = of_payload(size - overhead + (size - envelope.len()));
    assert_eq!(envelope.len(), size);
    envelope.into()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (algorithm_name, algorithm) in ALGORITHMS {
        let channel = channel(algorithm);
        for (size_name, size, count) in SIZES {
            cases.push(case(&channel, algorithm_name, size_name, size, count));
        }
    }
    cases
}

fn case(channel: &Channel, algorithm: &'static str, name: &'static str, size: usize, count: usize) -> Case {
    let channel_id = channel.genesis.channel_id().unwrap();
    let transactions: Vec<Bytes> =
        (0..count).map(|place| transaction(&channel_id, size / count, place)).collect();
    let header = BlockHeader {
        number: 1,
        previous_hash: channel.genesis.header_hash().0.to_vec(),
        data_hash: sha256_of(transactions.iter().map(AsRef::as_ref)).0.to_vec(),
    };
    let slot = sign_block(&header, 0, Bytes::new(), &channel.orderer, [5; 24]);
    let from_orderer = common::Block {
        header: Some(common::BlockHeader {
            number: header.number,
            previous_hash: header.previous_hash.clone(),
            data_hash: header.data_hash.clone(),
        }),
        data: Some(common::BlockData { data: transactions.clone() }),
        metadata: Some(common::BlockMetadata {
            metadata: vec![slot.clone(), slot.slice(..40), Bytes::new(), slot.slice(..40), Bytes::new()],
        }),
    };
    // What the orderer signed, so that signature checks are measured over a message of the usual length.
    let metadata = common::Metadata::decode(slot.clone()).unwrap();
    let signature = &metadata.signatures[0];
    let message = [metadata.value.as_ref(), &signature.signature_header, &header.der()].concat();
    let key = channel.orderer.identity().certificate().public_key().clone();
    Case {
        size: name,
        algorithm,
        verifier: channel.verifier.clone(),
        from_orderer: from_orderer.encode_to_vec().into(),
        data: transactions.concat(),
        signature: SignatureCheck { key, message, signature: signature.signature.to_vec() },
        from_peer: Block::from_parts(header, transactions, slot).encode(),
    }
}

impl Case {
    fn verify(&self, received: &Bytes) {
        let block = Block::decode(black_box(received.clone()), received.len()).unwrap();
        black_box(self.verifier.verify(block).unwrap());
    }
}

fn benchmark(criterion: &mut Criterion, cases: &[Case]) {
    for case in cases {
        let mut group = criterion.benchmark_group(format!("verify/{}", case.size));
        group.throughput(Throughput::Bytes(case.data.len() as u64));
        group.bench_function(case.algorithm, |bencher| bencher.iter(|| case.verify(&case.from_peer)));
        group.finish();
    }
    let mut group = criterion.benchmark_group("sha256");
    for case in cases.iter().take(SIZES.len()) {
        group.throughput(Throughput::Bytes(case.data.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(case.size), |bencher| {
            bencher.iter(|| sha256(black_box(&case.data)));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("signature");
    for case in cases.iter().step_by(SIZES.len()) {
        group.bench_function(case.algorithm, |bencher| bencher.iter(|| case.signature.run()));
    }
    group.finish();
}

/// Microseconds that a call takes.
fn measure(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

/// Hash, signature, verification as a peer sends the block and as an orderer does, one call right after the other.
fn measure_round(case: &Case) -> [f64; 4] {
    [
        measure(|| {
            black_box(sha256(black_box(&case.data)));
        }),
        measure(|| case.signature.run()),
        measure(|| case.verify(&case.from_peer)),
        measure(|| case.verify(&case.from_orderer)),
    ]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the table; whether every share is high enough.
fn summarize(cases: &[Case]) -> bool {
    println!("\nmicroseconds; share = (sha256 + signature) / verify, at least {SHARE_MIN}");
    println!(
        "{:<7} {:<8} {:>9} {:>9}   {:>9} {:>6}   {:>12} {:>6}",
        "data", "key", "sha256", "signature", "from peer", "share", "from orderer", "share"
    );
    let mut good = true;
    for case in cases {
        let start = Instant::now();
        let mut rounds = Vec::new();
        while start.elapsed() < MEASUREMENT || rounds.len() < ROUNDS_MIN {
            rounds.push(measure_round(case));
        }
        let [hash, signature, from_peer, from_orderer] =
            std::array::from_fn(|column| median(rounds.iter().map(|round| round[column])));
        let shares = [2, 3]
            .map(|verify: usize| median(rounds.iter().map(|round| (round[0] + round[1]) / round[verify])));
        good &= shares.iter().all(|share| *share >= SHARE_MIN);
        println!(
            "{:<7} {:<8} {hash:>9.1} {signature:>9.1}   {from_peer:>9.1} {:>6.3}   {from_orderer:>12.1} {:>6.3}",
            case.size, case.algorithm, shares[0], shares[1]
        );
    }
    good
}

fn main() -> ExitCode {
    let cases = cases();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    benchmark(&mut criterion, &cases);
    criterion.final_summary();
    // `cargo test --benches` runs everything once and measures nothing; profilers want no table in their profile.
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    if !has("--bench") || has("--profile-time") {
        return ExitCode::SUCCESS;
    }
    if summarize(&cases) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
