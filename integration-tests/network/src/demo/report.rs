//! What was verified, as a table.

use std::fmt;

use crate::screen::short;

/// The result of the demo. Only made when everything holds.
pub(crate) struct Verified {
    pub(crate) file_bytes: usize,
    pub(crate) peers: Vec<PeerLine>,
    pub(crate) channels: usize,
    pub(crate) takeover_ms: u128,
    pub(crate) catch_up_ms: u128,
}

/// One peer of the table.
pub(crate) struct PeerLine {
    pub(crate) peer: String,
    /// Height and tip of `trade`.
    pub(crate) trade: (u64, String),
    /// Height and tip of `audit`; `None` if the peer holds nothing of it.
    pub(crate) audit: Option<(u64, String)>,
    /// Most memory it had at a time, in KiB.
    pub(crate) memory_kib: Option<u64>,
}

impl fmt::Display for Verified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<12}{:>7} {:<14}{:>7} {:<14}{:<18}{:>9}",
            "peer", "trade", "", "audit", "", "file", "memory"
        )?;
        for line in &self.peers {
            let (height, tip) = &line.trade;
            let (audit_height, audit_tip) = match &line.audit {
                Some((height, tip)) => (height.to_string(), beginning(tip)),
                None => ("-".to_owned(), "nothing held".to_owned()),
            };
            let memory = line.memory_kib.map_or_else(String::new, |kib| format!("{} MiB", kib / 1024));
            writeln!(
                formatter,
                "{:<12}{height:>7} {:<14}{audit_height:>7} {audit_tip:<14}{:<18}{memory:>9}",
                short(&line.peer),
                beginning(tip),
                "byte for byte",
            )?;
        }
        writeln!(formatter)?;
        writeln!(
            formatter,
            "file of {} bytes; new leader after {:.1} s; a new peer caught up without orderer in {:.1} s",
            self.file_bytes,
            seconds(self.takeover_ms),
            seconds(self.catch_up_ms),
        )?;
        write!(formatter, "ledger sync verified: {} peers, {} channels", self.peers.len(), self.channels)
    }
}

fn beginning(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn seconds(ms: u128) -> f64 {
    f64::from(u32::try_from(ms).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_peers_and_channels_and_the_table_fits_a_terminal() {
        let line = |peer: &str, audit| PeerLine {
            peer: format!("{peer}.example.com"),
            trade: (120, "ab".repeat(32)),
            audit,
            memory_kib: Some(65_536),
        };
        let verified = Verified {
            file_bytes: 1000,
            peers: vec![line("peer0.org1", Some((9, "cd".repeat(32)))), line("peer0.org2", None)],
            channels: 2,
            takeover_ms: 1900,
            catch_up_ms: 400,
        };
        let text = verified.to_string();
        assert!(text.ends_with("\nledger sync verified: 2 peers, 2 channels"), "{text}");
        assert!(text.contains("nothing held") && text.contains("64 MiB"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 90), "{text}");
    }
}
