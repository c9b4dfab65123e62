//! Blocks that name a config this peer does not have yet, with a chain that Fabric's orderers made: its block 4 is a config
//! block, block 5 names it.

use std::path::Path;

use grapevine_channels::block::BlockHeader;

use super::*;

const CONFIG_BLOCK: u64 = 4;

fn raw(number: u64) -> Bytes {
    let chain = "../integration-tests/fixtures/fabric-vectors/ecdsa/blocks";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(chain).join(format!("{number:03}.block"));
    std::fs::read(path).unwrap().into()
}

fn decoded(number: u64) -> Block {
    Block::decode(raw(number), usize::MAX).unwrap()
}

fn channel() -> ChannelId {
    "ch1".parse().unwrap()
}

/// A verifier over a ledger that ends before the config block.
struct Fixture {
    _directory: tempfile::TempDir,
    ledger: Ledger,
    verifier: Verifier,
    findings: mpsc::UnboundedReceiver<Finding>,
    tickets: u64,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path().join("ledger")).unwrap();
        let genesis = decoded(0);
        ledger.create_channel(&channel(), &AuthenticBlock::genesis(&genesis).unwrap()).unwrap();
        let before: Vec<_> =
            (1..CONFIG_BLOCK).map(|number| AuthenticBlock::stored(raw(number)).unwrap()).collect();
        ledger.append(&channel(), &before).unwrap();
        let (verifier, findings) = Verifier::new(ledger.clone());
        verifier.add_channel(Arc::new(ChannelConfig::from_block(&genesis).unwrap()));
        Self { _directory: directory, ledger, verifier, findings, tickets: 0 }
    }

    /// Judges a block at once; its verdict, if it has one, is among the findings.
    fn judge(&mut self, body: Bytes) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.verifier.judge(Job { ticket, channel: channel(), header: None, kept: None, body });
        ticket
    }

    fn verdict(&mut self) -> Option<(Ticket, Result<AuthenticBlock, Rejection>)> {
        match self.findings.try_recv().ok()? {
            Finding::Verdict(Verdict { ticket, result: Judged::Block(result), .. }) => Some((ticket, result)),
            other => panic!("{other:?}"),
        }
    }

    fn untimely(&mut self) -> bool {
        matches!(self.verdict(), Some((_, Err(Rejection::Untimely(_)))))
    }
}

/// A block of `bytes` that claims the number and the config of block 5. It waits before anything else of it is checked.
fn of_size(bytes: usize) -> Bytes {
    let known = decoded(5);
    let header = BlockHeader { number: 6, ..known.header().clone() };
    let mut transactions = known.transactions().to_vec();
    transactions.push(vec![0; bytes].into());
    Block::from_parts(header, transactions, known.signatures_metadata().clone()).encode()
}

#[tokio::test]
async fn a_block_of_a_config_not_known_yet_waits_for_it() {
    let mut fixture = Fixture::new();
    let waiting = fixture.judge(raw(5));
    assert!(fixture.verdict().is_none(), "it waits");
    let config = fixture.judge(raw(CONFIG_BLOCK));
    let (ticket, verified) = fixture.verdict().unwrap();
    let verified = verified.unwrap();
    assert_eq!((ticket, verified.number()), (config, CONFIG_BLOCK));
    assert!(fixture.verdict().is_none(), "a verified config is not in force before its block is committed");

    let hash = verified.hash();
    fixture.ledger.append(&channel(), &[verified]).unwrap();
    fixture.verifier.committed(&channel(), &hash).unwrap().unwrap();
    let Some(Finding::Verdict(Verdict { ticket, result: Judged::Block(result), .. })) =
        tokio::time::timeout(std::time::Duration::from_secs(30), fixture.findings.recv()).await.unwrap()
    else {
        panic!("no verdict");
    };
    assert_eq!((ticket, result.unwrap().number()), (waiting, 5));
}

#[test]
fn blocks_that_wait_for_a_config_are_bounded_in_number() {
    let mut fixture = Fixture::new();
    for _ in 0..PARKED_MAX {
        fixture.judge(raw(5));
        assert!(fixture.verdict().is_none());
    }
    fixture.judge(raw(5));
    assert!(fixture.untimely(), "dropped, to be fetched again");
}

#[test]
fn blocks_that_wait_for_a_config_are_bounded_in_bytes() {
    let mut fixture = Fixture::new();
    let third = of_size(PARKED_BYTES_MAX / 3);
    for _ in 0..2 {
        fixture.judge(third.clone());
        assert!(fixture.verdict().is_none());
    }
    fixture.judge(third);
    assert!(fixture.untimely());
    fixture.judge(raw(5));
    assert!(fixture.verdict().is_none(), "a small one still fits");
}

#[test]
fn a_block_of_an_older_config_does_not_wait() {
    let mut fixture = Fixture::new();
    fixture.verifier.add_channel(Arc::new({
        let genesis = ChannelConfig::from_block(&decoded(0)).unwrap();
        let before = BlockVerifier::new(Arc::new(genesis));
        before.config().next(&before.verify(decoded(CONFIG_BLOCK)).unwrap()).unwrap()
    }));
    // The ledger does not have it, so it names a config that is over.
    let mut header = decoded(3).header().clone();
    header.number = 5;
    let block = Block::from_parts(
        header,
        decoded(3).transactions().to_vec(),
        decoded(3).signatures_metadata().clone(),
    );
    fixture.judge(block.encode());
    assert!(fixture.untimely());
}
