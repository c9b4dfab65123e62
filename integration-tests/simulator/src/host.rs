//! The process around one node: what survives it, and what it waits for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::isolation::TAG_SIZE;
use grapevine_channels::node::{Node, Ticket};
use grapevine_channels::time::Time;

use crate::event::{HostEvent, SessionId};
use crate::truth::{ChannelIndex, Site};

/// The client that pulls one channel from the orderer.
#[derive(Debug)]
pub(crate) struct Puller {
    pub(crate) session: SessionId,
    /// First block to ask for after a reconnection.
    pub(crate) next: u64,
    pub(crate) connected: bool,
    pub(crate) failures: u32,
    /// Blocks that came and have no place yet.
    pub(crate) waiting: VecDeque<AuthenticBlock>,
    pub(crate) consumed: u64,
    /// Bytes of blocks with a place: under verification, and on the way to the ledger.
    pub(crate) verifying: BTreeMap<Ticket, usize>,
    pub(crate) committing: BTreeMap<u64, usize>,
}

#[derive(Debug)]
pub(crate) struct Host {
    // What survives a crash.
    /// The ledger of every channel; empty: never joined.
    pub(crate) ledgers: Vec<Vec<AuthenticBlock>>,
    pub(crate) joined: BTreeSet<ChannelIndex>,
    pub(crate) incarnation: u64,
    /// Counts lost disks.
    pub(crate) wipes: u64,

    /// How much faster its clock runs, in millionths.
    pub(crate) drift_ppm: i32,

    // What does not.
    /// Counts starts; events of former ones are void.
    pub(crate) boot: u64,
    pub(crate) booted_at: Time,
    /// `None`: down.
    pub(crate) node: Option<Node>,
    pub(crate) paused: bool,
    /// When it went on after standing still last.
    pub(crate) resumed_at: Time,
    /// What waits for a paused process.
    pub(crate) inbox: VecDeque<HostEvent>,
    pub(crate) timer_generation: u64,
    pub(crate) timer_at: Option<Time>,
    /// When the last timeout was handled, and how many were at that moment.
    pub(crate) timeouts: (Time, u32),
    pub(crate) verifier_free_at: Time,
    pub(crate) disk_waiting: Vec<(ChannelIndex, AuthenticBlock)>,
    /// What is being written; `None`: the disk is idle.
    pub(crate) disk_writing: Option<Vec<(ChannelIndex, AuthenticBlock)>>,
    pub(crate) pullers: BTreeMap<ChannelIndex, Puller>,
    /// Until when misbehaving peers are kept out.
    pub(crate) penalties: BTreeMap<Site, Time>,
    /// Tags of bulk messages that may come.
    pub(crate) tags: BTreeSet<(Site, ChannelIndex, [u8; TAG_SIZE])>,
}

const MILLION: u32 = 1_000_000;

fn scaled(nanos: u128, by: u128, over: u128) -> u64 {
    u64::try_from(nanos.saturating_mul(by) / over).unwrap_or(u64::MAX)
}

impl Host {
    pub(crate) fn new(channels: usize, joined: BTreeSet<ChannelIndex>, drift_ppm: i32) -> Self {
        Self {
            ledgers: vec![Vec::new(); channels],
            joined,
            incarnation: 0,
            wipes: 0,
            drift_ppm,
            boot: 0,
            booted_at: Time::ZERO,
            node: None,
            paused: false,
            resumed_at: Time::ZERO,
            inbox: VecDeque::new(),
            timer_generation: 0,
            timer_at: None,
            timeouts: (Time::ZERO, 0),
            verifier_free_at: Time::ZERO,
            disk_waiting: Vec::new(),
            disk_writing: None,
            pullers: BTreeMap::new(),
            penalties: BTreeMap::new(),
            tags: BTreeSet::new(),
        }
    }

    /// Forgets all that a crash loses.
    pub(crate) fn crash(&mut self) {
        self.boot += 1;
        self.node = None;
        self.paused = false;
        self.inbox.clear();
        self.timer_at = None;
        self.disk_waiting.clear();
        self.disk_writing = None;
        self.pullers.clear();
        self.penalties.clear();
        self.tags.clear();
    }

    /// The time of the process: since its start, by its own clock.
    pub(crate) fn local(&self, now: Time) -> Time {
        let real = now.since(self.booted_at).as_nanos();
        Time::from_nanos(scaled(
            real,
            u128::from(MILLION.saturating_add_signed(self.drift_ppm)),
            u128::from(MILLION),
        ))
    }

    /// The first moment of global time at which the process's clock shows this.
    pub(crate) fn global(&self, local: Time) -> Time {
        let real = scaled(
            u128::from(local.as_nanos()),
            u128::from(MILLION),
            u128::from(MILLION.saturating_add_signed(self.drift_ppm).max(1)),
        );
        // Rounded up, or the clock would not yet show the moment.
        let up = u64::from(self.drift_ppm != 0);
        Time::from_nanos(self.booted_at.as_nanos().saturating_add(real).saturating_add(up))
    }

    /// Whether it runs and is not paused.
    pub(crate) fn is_running(&self) -> bool {
        self.node.is_some() && !self.paused
    }

    /// Number of blocks on disk.
    pub(crate) fn height(&self, channel: ChannelIndex) -> u64 {
        self.ledgers[channel].len() as u64
    }

    /// The block of this number on disk.
    pub(crate) fn committed(&self, channel: ChannelIndex, number: u64) -> Option<&AuthenticBlock> {
        self.ledgers[channel].get(usize::try_from(number).ok()?)
    }

    /// The channel that bulk messages of this peer with this tag belong to.
    pub(crate) fn channel_of(&self, from: Site, tag: &[u8]) -> Option<ChannelIndex> {
        let first = (from, 0, [0; TAG_SIZE]);
        let tags = self.tags.range(first..=(from, ChannelIndex::MAX, [u8::MAX; TAG_SIZE]));
        tags.into_iter().find(|(.., of)| of.as_slice() == tag).map(|(_, channel, _)| *channel)
    }

    /// No bulk message of this peer may come any more.
    pub(crate) fn forget_tags(&mut self, from: Site) {
        let mut later = self.tags.split_off(&(from, 0, [0; TAG_SIZE]));
        self.tags.append(&mut later.split_off(&(from + 1, 0, [0; TAG_SIZE])));
    }

    /// Whether it keeps a peer out now.
    pub(crate) fn keeps_out(&self, peer: Site, now: Time) -> bool {
        self.penalties.get(&peer).is_some_and(|until| *until > now)
    }
}
