//! What the demo does, act by act. Every act verifies what it shows; the first thing that does not hold ends the demo.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use grapevine_network::{Network, Payload};

use crate::report::{PeerLine, Verified};
use crate::screen::{Screen, short};

/// The channel of both organisations.
const TRADE: &str = "trade";
/// The channel of Org1 alone.
const AUDIT: &str = "audit";
const ORG1: &str = "Org1MSP";
const ORG2: &str = "Org2MSP";

/// No act takes longer, on the slowest machine it should run on.
const ACT_WITHIN: Duration = Duration::from_secs(60);

/// About how many transactions the file becomes.
const PIECES: usize = 240;
/// Smallest and largest piece in bytes.
const PIECE_BYTES: (usize, usize) = (16, 1024 * 1024);
/// Lines that go into the audit channel.
const AUDIT_LINES: u32 = 60;
/// Blocks everybody has before the leader is killed, and blocks the others commit before it is restarted; fewer for a tiny file.
const BLOCKS_BETWEEN: usize = 10;

/// What is needed to tell it.
pub(crate) struct Story {
    pub(crate) config: PathBuf,
    pub(crate) input: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// Seconds over which the file is submitted.
    pub(crate) pace: f64,
    pub(crate) keep: bool,
    pub(crate) interrupted: Arc<AtomicBool>,
}

impl Story {
    /// Runs everything; when it returns, in whatever way, all processes are gone.
    pub(crate) fn tell(&self) -> anyhow::Result<Verified> {
        let screen = Screen::new();
        let network = Network::builder()
            .config(self.config.clone())
            .interrupted_by(Arc::clone(&self.interrupted))
            .keep(self.keep)
            .prepare()?;
        screen.say(&format!("made certificates and genesis blocks in {}", network.directory().display()));
        let told = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| screen.watch(&network, &[TRADE, AUDIT]));
            let told = Acts { story: self, network: &network, screen: &screen }.play();
            screen.finish();
            // It cannot panic; if it did, the demo would still be right.
            let _ = watcher.join();
            told
        });
        let verified = told?;
        network.stop_all().context("stopping the network")?;
        Ok(verified)
    }

    fn piece_bytes(&self) -> usize {
        self.bytes.len().div_ceil(PIECES).clamp(PIECE_BYTES.0, PIECE_BYTES.1)
    }
}

struct Acts<'a> {
    story: &'a Story,
    network: &'a Network,
    screen: &'a Screen,
}

impl Acts<'_> {
    fn play(&self) -> anyhow::Result<Verified> {
        let late = self.start()?;
        let takeover = self.sync_and_takeover(&late)?;
        let catch_up = self.catch_up_without_orderer(&late)?;
        let peers = self.verify()?;
        Ok(Verified {
            file_bytes: self.story.bytes.len(),
            peers,
            channels: self.network.config().channels.len(),
            takeover_ms: takeover.as_millis(),
            catch_up_ms: catch_up.as_millis(),
        })
    }

    /// Starts everything but the last peer of Org2, whose name is returned.
    fn start(&self) -> anyhow::Result<String> {
        let network = self.network;
        let late =
            network.peers_of(ORG2).last().copied().context("the network has no peer of Org2MSP")?.to_owned();
        self.screen.note(&late, "held back");
        network.start_all_but(&[&late])?;
        let running = network.peers().len().saturating_sub(1);
        self.screen.say(&format!("one orderer and {running} peers run; {} is held back", short(&late)));
        for (channel, organization) in [(TRADE, ORG1), (TRADE, ORG2), (AUDIT, ORG1)] {
            let leader = network.wait_for_leader(channel, organization, ACT_WITHIN)?;
            self.screen.say(&format!("{} leads {organization} in {channel}", short(&leader)));
        }
        Ok(late)
    }

    /// The file goes in; meanwhile Org1's leader is killed and restarted. Returns how long the takeover took.
    fn sync_and_takeover(&self, late: &str) -> anyhow::Result<Duration> {
        let (network, screen) = (self.network, self.screen);
        let pieces = self.story.bytes.len().div_ceil(self.story.piece_bytes());
        let rate = f64::from(u32::try_from(pieces)?) / self.story.pace;
        let file = Payload::file(&self.story.input).pieces(self.story.piece_bytes()).rate(rate);
        let file = network.submit_in_background(TRADE, file)?;
        let lines = (0..AUDIT_LINES)
            .map(|number| format!("audit entry {number}: Org1 paid invoice {}", number * 7919));
        let lines = network.submit_in_background(
            AUDIT,
            Payload::lines(lines).rate(f64::from(AUDIT_LINES) / self.story.pace),
        )?;
        screen.say(&format!(
            "{} goes into {TRADE} as {pieces} transactions, {AUDIT_LINES} lines into {AUDIT}",
            self.story.input.display()
        ));

        let running: Vec<&str> = network.peers().into_iter().filter(|peer| *peer != late).collect();
        let start = network.orderer_height(TRADE)?;
        // A block holds at least one transaction; the clock decides how many.
        let between = u64::try_from(BLOCKS_BETWEEN.min(pieces.div_ceil(4)))?;
        network.wait_for_height(TRADE, &running, start.saturating_add(between), ACT_WITHIN)?;
        let killed = network.wait_for_leader(TRADE, ORG1, ACT_WITHIN)?;
        screen.note(&killed, "killed");
        network.kill(&killed)?;
        let killed_at = Instant::now();
        screen.say(&format!("SIGKILL for {}, leader of {ORG1} in {TRADE}", short(&killed)));
        let successor = network.wait_for_leader(TRADE, ORG1, ACT_WITHIN)?;
        let takeover = killed_at.elapsed();
        screen.say(&format!("{} takes over after {:.1} s", short(&successor), takeover.as_secs_f64()));

        let others: Vec<&str> = running.into_iter().filter(|peer| *peer != killed).collect();
        let height = network.status(&successor)?.height(TRADE);
        // Near the end of a short file there may be fewer blocks left.
        let _ =
            network.wait_for_height(TRADE, &others, height.saturating_add(between), Duration::from_secs(5));
        network.start(&killed)?;
        screen.say(&format!("{} is started again and catches up", short(&killed)));

        file.wait(ACT_WITHIN)?;
        lines.wait(ACT_WITHIN)?;
        for channel in [TRADE, AUDIT] {
            let height = network.wait_for_sync(channel, ACT_WITHIN)?;
            screen.say(&format!("every running peer of {channel} has all {height} blocks"));
        }
        Ok(takeover)
    }

    /// The orderer goes, the late peer comes. Returns how long it took to catch up.
    fn catch_up_without_orderer(&self, late: &str) -> anyhow::Result<Duration> {
        let (network, screen) = (self.network, self.screen);
        let height = network.orderer_height(TRADE)?;
        for orderer in network.orderers() {
            network.stop(orderer)?;
        }
        screen.say("the orderer is stopped");
        let started = Instant::now();
        network.start(late)?;
        screen.say(&format!("{} starts with an empty ledger; only peers can help it", short(late)));
        network.wait_for_height(TRADE, &[late], height, ACT_WITHIN)?;
        let catch_up = started.elapsed();
        screen.say(&format!("{} has all {height} blocks after {:.1} s", short(late), catch_up.as_secs_f64()));
        Ok(catch_up)
    }

    fn verify(&self) -> anyhow::Result<Vec<PeerLine>> {
        let (network, screen) = (self.network, self.screen);
        let trade = network.assert_ledgers_identical(TRADE)?;
        ensure!(trade.peers.len() == network.peers().len(), "only {:?} hold {TRADE}", trade.peers);
        ensure!(
            trade.payload == self.story.bytes,
            "the file exported from the ledgers is not the file that went in"
        );
        screen.say(&format!(
            "{TRADE}: all {} header hashes equal at {} peers, the file comes back byte for byte from each",
            trade.height,
            trade.peers.len()
        ));
        let audit = network.assert_ledgers_identical(AUDIT)?;
        screen.say(&format!(
            "{AUDIT}: all {} header hashes equal at {} peers",
            audit.height,
            audit.peers.len()
        ));
        for peer in network.peers_of(ORG1) {
            // The search must be able to find something, or finding nothing in Org2 would mean nothing.
            ensure!(
                !network.find_channel_in_files(peer, AUDIT)?.is_empty(),
                "{AUDIT} is not found in the files of {peer}"
            );
        }
        for peer in network.peers_of(ORG2) {
            network.assert_holds_nothing_of(peer, AUDIT)?;
        }
        screen.say(&format!("no file of {ORG2}'s peers contains anything of {AUDIT}"));
        let line = |peer: &str| PeerLine {
            peer: peer.to_owned(),
            trade: (trade.height, trade.tip.clone()),
            audit: audit.peers.iter().any(|holder| holder == peer).then(|| (audit.height, audit.tip.clone())),
            memory_kib: network.peak_memory_kib(peer).ok().flatten(),
        };
        Ok(network.peers().into_iter().map(line).collect())
    }
}
