//! Standard error of a running peer: log lines, and below them, on a terminal, bars of the channels that catch up.
//!
//! A process has one terminal, so there is one [`Screen`] for it. The bars are taken away before a log line is written and drawn again after
//! it; what is drawn never leaves a line half overwritten. Where standard error is no terminal nothing but the log is written, and
//! progress is told by the log alone.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes back the line the cursor is in.
const ERASE_LINE: &str = "\r\x1b[K";
/// One line up.
const UP: &str = "\x1b[A";

static SCREEN: Mutex<Option<Screen<io::Stderr>>> = Mutex::new(None);

/// Whether bars are shown.
pub(crate) fn is_live() -> bool {
    screen().as_ref().is_some_and(|screen| screen.live)
}

/// Shows these lines below the log in place of those shown before.
pub(crate) fn show(bars: Vec<String>) {
    if let Some(screen) = screen().as_mut() {
        // A closed standard error is nobody's concern.
        let _closed = screen.show(bars);
    }
}

/// Where the log goes.
pub(crate) fn log_writer() -> impl Write {
    screen().get_or_insert_with(|| Screen::new(io::stderr(), io::stderr().is_terminal()));
    LogWriter
}

fn screen() -> MutexGuard<'static, Option<Screen<io::Stderr>>> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match screen().as_mut() {
            Some(screen) => screen.log(text).map(|()| text.len()),
            None => io::stderr().write(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What is drawn on one terminal.
#[derive(Debug)]
struct Screen<W> {
    out: W,
    live: bool,
    bars: Vec<String>,
}

impl<W: Write> Screen<W> {
    fn new(out: W, live: bool) -> Self {
        Self { out, live, bars: Vec::new() }
    }

    /// Writes text of the log, which ends with a line end.
    fn log(&mut self, text: &[u8]) -> io::Result<()> {
        // One write for all, so that others who write to the terminal come between lines at worst.
        let mut drawn = self.erased();
        drawn.extend_from_slice(text);
        self.draw(&mut drawn);
        self.out.write_all(&drawn)
    }

    fn show(&mut self, bars: Vec<String>) -> io::Result<()> {
        if !self.live || bars == self.bars {
            return Ok(());
        }
        let mut drawn = self.erased();
        self.bars = bars;
        self.draw(&mut drawn);
        self.out.write_all(&drawn)?;
        self.out.flush()
    }

    /// What takes the bars away. The cursor stands behind the last of them.
    fn erased(&self) -> Vec<u8> {
        if self.bars.is_empty() {
            return Vec::new();
        }
        let above = [UP, ERASE_LINE].concat().repeat(self.bars.len().saturating_sub(1));
        [ERASE_LINE, &above].concat().into_bytes()
    }

    fn draw(&self, drawn: &mut Vec<u8>) {
        drawn.extend_from_slice(self.bars.join("\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal shows after these bytes: enough of one for what is written here.
    fn shown(bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (mut lines, mut row) = (vec![String::new()], 0usize);
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix(ERASE_LINE) {
                lines[row].clear();
                rest = after;
            } else if let Some(after) = rest.strip_prefix(UP) {
                row -= 1;
                rest = after;
            } else {
                if first == '\n' {
                    row += 1;
                    if row == lines.len() {
                        lines.push(String::new());
                    }
                } else {
                    lines[row].push(first);
                }
                rest = &rest[first.len_utf8()..];
            }
        }
        lines.truncate(row + 1);
        lines
    }

    fn bars(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn bars_stay_below_the_log() {
        let mut screen = Screen::new(Vec::new(), true);
        screen.log(b"one\n").unwrap();
        screen.show(bars(&["trade 10 %", "audit 20 %"])).unwrap();
        assert_eq!(shown(&screen.out), ["one", "trade 10 %", "audit 20 %"]);
        screen.log(b"two\n").unwrap();
        assert_eq!(shown(&screen.out), ["one", "two", "trade 10 %", "audit 20 %"]);
        screen.show(bars(&["audit 30 %"])).unwrap();
        assert_eq!(shown(&screen.out), ["one", "two", "audit 30 %"]);
        screen.show(Vec::new()).unwrap();
        screen.log(b"three\n").unwrap();
        assert_eq!(shown(&screen.out), ["one", "two", "three", ""]);
    }

    #[test]
    fn without_a_terminal_there_is_only_the_log() {
        let mut screen = Screen::new(Vec::new(), false);
        screen.show(bars(&["trade 10 %"])).unwrap();
        screen.log(b"one\n").unwrap();
        assert_eq!(screen.out, b"one\n");
    }

    #[test]
    fn what_has_not_changed_is_not_drawn_again() {
        let mut screen = Screen::new(Vec::new(), true);
        screen.show(bars(&["trade 10 %"])).unwrap();
        let drawn = screen.out.len();
        screen.show(bars(&["trade 10 %"])).unwrap();
        assert_eq!(screen.out.len(), drawn);
    }
}
