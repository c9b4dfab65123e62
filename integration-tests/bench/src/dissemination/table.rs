//! The results for people.

use super::run::Outcome;

/// A name and a figure of a result.
type Column = (&'static str, fn(&Outcome) -> String);

/// Names over two lines, and the figures.
const COLUMNS: [Column; 12] = [
    ("protocol", |outcome| outcome.protocol.to_owned()),
    ("p50 ms", |outcome| format!("{:.1}", outcome.p50_ms)),
    ("p90 ms", |outcome| format!("{:.1}", outcome.p90_ms)),
    ("p99 ms", |outcome| format!("{:.1}", outcome.p99_ms)),
    ("max ms", |outcome| format!("{:.1}", outcome.max_ms)),
    ("last p50 ms", |outcome| format!("{:.1}", outcome.last_p50_ms)),
    ("commit ms", |outcome| format!("{:.1}", outcome.commit_p50_ms)),
    ("copies", |outcome| format!("{:.3}", outcome.copies)),
    ("orderer egress", |outcome| format!("{:.2}", outcome.orderer_egress_blocks)),
    ("CPU ms", |outcome| format!("{:.2}", outcome.cpu_ms_per_peer_block)),
    ("RSS MB", |outcome| format!("{:.0}", outcome.rss_mb_per_peer)),
    ("idle B/s", |outcome| format!("{:.0}", outcome.idle_bytes_per_s_per_peer)),
];

/// A line for each result under a line of names.
pub(super) fn render(outcomes: &[Outcome]) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(COLUMNS.map(|(name, _)| name.to_owned()).to_vec())
        .chain(outcomes.iter().map(|outcome| COLUMNS.map(|(_, figure)| figure(outcome)).to_vec()))
        .collect();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
