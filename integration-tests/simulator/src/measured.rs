//! Runs for their figures.

use std::collections::BTreeMap;
use std::time::Duration;

use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::time::Time;

use crate::checker::Violation;
use crate::event::Packet;
use crate::links::{Class, Wire};
use crate::scoreboard::{Row, RowKey};
use crate::simulation::Simulation;
use crate::truth::{ChannelIndex, Site};

/// How long frames that follow the last block are still counted.
const DRAIN: Duration = Duration::from_millis(200);

/// What a run came to.
#[derive(Debug)]
pub struct Measured {
    /// What became of each block in each organisation: by channel, organisation and number.
    pub rows: BTreeMap<(ChannelIndex, usize, u64), Row>,
    /// From the leader holding a block to each peer holding it.
    pub latencies: Vec<Duration>,
    /// Bytes of control frames that came to honest peers since the first block.
    pub control_bytes: u64,
    /// Bytes of bodies, with their headers, that honest peers got from others.
    pub body_bytes: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual time at the end.
    pub ended_at: Time,
    /// SHA-256 over every event.
    pub trace_hash: String,
}

/// What is counted on the way.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Bytes {
    pub(crate) control: u64,
    pub(crate) bodies: u64,
}

impl Simulation {
    /// Runs until every block is where it should be, or `patience` has passed since the leaders had the last.
    ///
    /// # Errors
    /// The first violation.
    pub fn measure(
        mut self,
        patience: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<Measured, Violation> {
        let fail = |seed, at, what| Violation { seed, at, what };
        self.is_measured = true;
        let rows = self.rows_expected();
        let mut over_at: Option<Time> = None;
        let mut last_row_at: Option<Time> = None;
        let mut seen = 0;
        loop {
            self.step().map_err(|what| fail(self.seed, self.now, what))?;
            if self.board.rows() != seen {
                seen = self.board.rows();
                progress(seen as u64);
            }
            if seen < rows {
                // Without a leader there is no row: give up at some time, too.
                let end = self.last_production() + patience;
                if self.now > end {
                    break;
                }
                continue;
            }
            let since = *last_row_at.get_or_insert(self.now);
            if self.board.is_complete() {
                over_at.get_or_insert(self.now);
            }
            let drained = over_at.is_some_and(|at| self.now.since(at) >= DRAIN);
            if drained || self.now.since(since) >= patience {
                break;
            }
        }
        self.checker
            .whole(&self.truth, &self.orderer, &self.hosts)
            .map_err(|what| fail(self.seed, self.now, what))?;
        let (rows, latencies) = self.board.finish();
        Ok(Measured {
            rows,
            latencies,
            control_bytes: self.bytes.control,
            body_bytes: self.bytes.bodies,
            events: self.measurements.events,
            ended_at: self.now,
            trace_hash: self.measurements.trace_hash(),
        })
    }

    fn rows_expected(&self) -> usize {
        let organizations: usize =
            self.truth.channels.iter().map(|channel| channel.organizations.len()).sum();
        organizations * usize::try_from(self.scenario.blocks).unwrap_or(usize::MAX)
    }

    fn last_production(&self) -> Time {
        let blocks = u32::try_from(self.scenario.blocks).unwrap_or(u32::MAX);
        self.scenario.first_block + self.scenario.block_interval.saturating_mul(blocks)
    }

    /// A peer has verified a block, which came from the orderer or not.
    pub(crate) fn score_verified(
        &mut self,
        peer: Site,
        channel: ChannelIndex,
        block: &AuthenticBlock,
        from_orderer: bool,
        on_request: bool,
    ) {
        let organization = self.truth.peers[peer].organization;
        let key = (channel, organization, block.number());
        if from_orderer {
            let limit = self.limit(peer, block.size());
            let receivers: Vec<Site> = (0..self.hosts.len())
                .filter(|site| self.truth.peers[*site].organization == organization)
                .filter(|site| self.takes_part(*site) && self.hosts[*site].node.is_some())
                .filter(|site| self.hosts[*site].joined.contains(&channel))
                .collect();
            self.board.held(key, self.now, peer, limit, block.size(), receivers.into_iter());
        }
        self.board.got(key, self.now, peer, on_request);
    }

    /// The least time in which a leader's organisation can have a block.
    fn limit(&self, leader: Site, bytes: usize) -> Duration {
        let organization = self.truth.peers[leader].organization;
        let others =
            (0..self.hosts.len()).filter(|site| self.truth.peers[*site].organization == organization);
        let send = self.wire.settings().up.map_or(0.0, |bandwidth| bytes as f64 / bandwidth as f64);
        Duration::from_secs_f64(send) + self.wire.latency().longest(leader, others)
    }

    pub(crate) fn score_control(&mut self, to: Site, bytes: usize) {
        if self.board.rows() > 0 && self.takes_part(to) {
            self.bytes.control += Wire::<Packet>::size_of(Class::Control, bytes) as u64;
        }
    }

    pub(crate) fn score_body(
        &mut self,
        to: Site,
        from: Site,
        channel: ChannelIndex,
        number: u64,
        bytes: usize,
    ) {
        let counts = self.takes_part(to);
        self.bytes.bodies += if counts { bytes as u64 } else { 0 };
        let key: RowKey = (channel, self.truth.peers[to].organization, number);
        self.board.body(key, from, bytes, counts);
    }
}
