//! The live view: what happens as lines that stay, and below them, on a terminal, a table that is redrawn in place.
//! Where the output is no terminal, the table becomes one line whenever something has changed, at most one a second.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use grapevine_network::Network;

/// Time between two looks at the network.
const REFRESH_INTERVAL: Duration = Duration::from_millis(150);

/// Time between two lines about heights where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Where the demo tells what happens.
pub(crate) struct Screen {
    started: Instant,
    terminal: bool,
    done: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Lines of the table that stand on the terminal now.
    drawn: usize,
    table: Vec<String>,
    /// What the story says about a peer that does not run.
    notes: BTreeMap<String, &'static str>,
    last_line: String,
    last_line_at: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { started: Instant::now(), terminal, done: AtomicBool::new(false), state: Mutex::default() }
    }

    /// A line that stays, with the seconds since the start.
    pub(crate) fn say(&self, text: &str) {
        let mut state = self.lock();
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("{seconds:6.1} s  {text}");
        self.print(&mut state, &[line]);
    }

    /// Says in the table why a peer does not run.
    pub(crate) fn note(&self, peer: &str, note: &'static str) {
        self.lock().notes.insert(peer.to_owned(), note);
    }

    /// Watches the network until [`Screen::finish`]; runs on a thread of its own.
    pub(crate) fn watch(&self, network: &Network, channels: &[&str]) {
        while !self.done.load(Ordering::Relaxed) {
            let rows = look(network, channels, &self.lock().notes.clone());
            let mut state = self.lock();
            if self.terminal {
                state.table = table(channels, &rows);
                self.print(&mut state, &[]);
            } else {
                let line = format!("          {}", one_line(channels, &rows));
                let due = state.last_line_at.is_none_or(|at| at.elapsed() >= LINE_INTERVAL);
                if due && line != state.last_line {
                    state.last_line.clone_from(&line);
                    state.last_line_at = Some(Instant::now());
                    self.print(&mut state, &[line]);
                }
            }
            drop(state);
            std::thread::sleep(REFRESH_INTERVAL);
        }
    }

    /// Ends the live view; the table is taken from the terminal.
    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
        let mut state = self.lock();
        state.table.clear();
        self.print(&mut state, &[]);
    }

    /// Prints lines above the table and draws the table again.
    fn print(&self, state: &mut State, lines: &[String]) {
        let mut text = String::new();
        if state.drawn > 0 {
            // To the first line of the table, then clear from there on.
            text.push_str(&format!("\x1b[{}A\r\x1b[J", state.drawn));
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        for line in &state.table {
            text.push_str(line);
            text.push('\n');
        }
        state.drawn = state.table.len();
        let mut output = std::io::stdout().lock();
        // A reader that has gone away is no reason to stop verifying.
        let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `peer0.org1` of `peer0.org1.example.com`.
pub(crate) fn short(name: &str) -> String {
    name.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// One peer in the live view.
struct Row {
    peer: String,
    state: &'static str,
    /// By channel: height and whether it leads; `None` if it has not joined.
    channels: Vec<Option<(u64, bool)>>,
}

fn look(network: &Network, channels: &[&str], notes: &BTreeMap<String, &'static str>) -> Vec<Row> {
    let peers = network.peers().into_iter();
    peers
        .map(|peer| {
            let runs = network.is_running(peer).unwrap_or(false);
            let status = if runs { network.status(peer).ok() } else { None };
            let state = match (runs, &status) {
                (true, Some(_)) => "running",
                (true, None) => "starting",
                (false, _) => notes.get(peer).copied().unwrap_or("stopped"),
            };
            let channels = channels.iter().map(|channel| {
                let channel = status.as_ref()?.channel(channel)?;
                Some((channel.height, channel.is_leader))
            });
            Row { peer: short(peer), state, channels: channels.collect() }
        })
        .collect()
}

fn table(channels: &[&str], rows: &[Row]) -> Vec<String> {
    let mut lines = vec![String::new()];
    let headings: String = channels.iter().map(|channel| format!("{channel:<18}")).collect();
    lines.push(format!("    {:<14}{:<12}{headings}", "peer", "state"));
    for row in rows {
        let cells = row.channels.iter().map(|channel| match channel {
            Some((height, true)) => format!("{:<18}", format!("{height:>5}  leads")),
            Some((height, false)) => format!("{:<18}", format!("{height:>5}")),
            None => format!("{:<18}", "    -"),
        });
        lines.push(format!("    {:<14}{:<12}{}", row.peer, row.state, cells.collect::<String>()));
    }
    lines
}

fn one_line(channels: &[&str], rows: &[Row]) -> String {
    let describe = |(place, channel): (usize, &&str)| {
        let heights = rows.iter().map(|row| match row.channels.get(place) {
            Some(Some((height, true))) => format!("{height}*"),
            Some(Some((height, false))) => height.to_string(),
            _ => "-".to_owned(),
        });
        format!("{channel} {}", heights.collect::<Vec<_>>().join(" "))
    };
    let described: Vec<String> = channels.iter().enumerate().map(describe).collect();
    format!("heights (* leads): {}", described.join(" | "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        vec![
            Row {
                peer: "peer0.org1".to_owned(),
                state: "running",
                channels: vec![Some((12, true)), Some((3, false))],
            },
            Row { peer: "peer0.org2".to_owned(), state: "killed", channels: vec![None, None] },
        ]
    }

    #[test]
    fn the_table_shows_leaders_heights_and_who_does_not_run() {
        let lines = table(&["trade", "audit"], &rows());
        assert!(lines[2].contains("peer0.org1") && lines[2].contains("12  leads"), "{lines:?}");
        assert!(lines[3].contains("killed") && lines[3].contains('-'), "{lines:?}");
        assert!(lines.iter().all(|line| line.len() < 80), "fits a terminal of 80 columns");
    }

    #[test]
    fn without_a_terminal_it_is_one_line() {
        assert_eq!(one_line(&["trade", "audit"], &rows()), "heights (* leads): trade 12* - | audit 3 -");
    }
}
