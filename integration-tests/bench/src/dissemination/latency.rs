//! From block traces to latencies.

use std::collections::BTreeMap;
use std::ops::Range;

use grapevine_block_trace::{Event, Station};

/// When a block passed the stations of one process, in nanoseconds, for the blocks of a range.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passages(BTreeMap<(u64, Station), u64>);

impl Passages {
    /// The first time a block of the range was at each station.
    pub(crate) fn new(events: Vec<Event>, channel: &str, numbers: &Range<u64>) -> Self {
        let mut passages = BTreeMap::new();
        for event in events {
            if &*event.channel == channel && numbers.contains(&event.number) {
                passages.entry((event.number, event.station)).or_insert(event.at);
            }
        }
        Self(passages)
    }

    fn at(&self, number: u64, station: Station) -> Result<u64, String> {
        let missing = || format!("block {number} was not {}", station.name());
        self.0.get(&(number, station)).copied().ok_or_else(missing)
    }
}

/// What peers did with the blocks of a range.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Latencies {
    /// From written to handed, of every peer and block, in milliseconds, ascending.
    pub(crate) handed_ms: Vec<f64>,
    /// Of the slowest peer of each block, ascending.
    pub(crate) last_ms: Vec<f64>,
    /// From handed to committed, ascending.
    pub(crate) commit_ms: Vec<f64>,
}

impl Latencies {
    /// Compares the orderer's trace with those of the peers.
    ///
    /// # Errors
    /// If a block was not written, or a peer did not get it: then who.
    pub(crate) fn new(
        orderer: &Passages,
        peers: &[(String, Passages)],
        numbers: Range<u64>,
    ) -> Result<Self, String> {
        let mut latencies = Self::default();
        for number in numbers {
            let written = orderer.at(number, Station::Written)?;
            let mut last: f64 = 0.0;
            for (name, peer) in peers {
                let of = |error: String| format!("{name}: {error}");
                let handed = peer.at(number, Station::Handed).map_err(of)?;
                let committed = peer.at(number, Station::Committed).map_err(of)?;
                let latency = milliseconds(written, handed);
                last = last.max(latency);
                latencies.handed_ms.push(latency);
                latencies.commit_ms.push(milliseconds(handed, committed));
            }
            latencies.last_ms.push(last);
        }
        for values in [&mut latencies.handed_ms, &mut latencies.last_ms, &mut latencies.commit_ms] {
            values.sort_by(f64::total_cmp);
        }
        Ok(latencies)
    }
}

/// A peer can be told of a block in the moment between its being written and that being noted: such a latency is 0.
fn milliseconds(from: u64, to: u64) -> f64 {
    crate::sample::to_f64(to.saturating_sub(from)) / 1e6
}

/// The smallest value that at least this share of the ascending values does not exceed (nearest rank); 0 if there is none.
pub(crate) fn percentile(ascending: &[f64], share: f64) -> f64 {
    let count = ascending.len();
    let rank = (share * crate::sample::to_f64(count as u64)).ceil().max(1.0);
    // Between 1 and the number of values.
    let index = (rank as usize).min(count).saturating_sub(1);
    ascending.get(index).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(of: &[(u64, Station, u64)]) -> Vec<Event> {
        of.iter()
            .map(|(number, station, at)| Event {
                channel: "bench".into(),
                number: *number,
                station: *station,
                at: *at,
            })
            .collect()
    }

    fn peer(name: &str, handed: [u64; 2]) -> (String, Passages) {
        let mut all = Vec::new();
        for (number, at) in [3, 4].into_iter().zip(handed) {
            all.extend([(number, Station::Handed, at), (number, Station::Committed, at + 500_000)]);
        }
        (name.to_owned(), Passages::new(events(&all), "bench", &(3..5)))
    }

    #[test]
    fn latencies_are_those_of_all_peers_and_blocks_and_the_last_those_of_each_block() {
        let written =
            [(2, Station::Written, 1), (3, Station::Written, 1_000_000), (4, Station::Written, 2_000_000)];
        let orderer = Passages::new(events(&written), "bench", &(3..5));
        let peers = [peer("a", [2_000_000, 9_000_000]), peer("b", [3_000_000, 4_000_000])];
        let latencies = Latencies::new(&orderer, &peers, 3..5).unwrap();
        assert_eq!(latencies.handed_ms, [1.0, 2.0, 2.0, 7.0]);
        assert_eq!(latencies.last_ms, [2.0, 7.0]);
        assert_eq!(latencies.commit_ms, [0.5; 4]);
    }

    #[test]
    fn a_block_that_a_peer_did_not_get_is_an_error_that_names_both() {
        let written = [(3, Station::Written, 1), (4, Station::Written, 2)];
        let orderer = Passages::new(events(&written), "bench", &(3..5));
        let missing =
            Passages::new(events(&[(3, Station::Handed, 5), (3, Station::Committed, 6)]), "bench", &(3..5));
        let error = Latencies::new(&orderer, &[("a".to_owned(), missing)], 3..5).unwrap_err();
        assert_eq!(error, "a: block 4 was not handed");
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|share| percentile(&values, share)), [50.0, 90.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
