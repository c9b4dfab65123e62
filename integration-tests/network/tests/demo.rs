//! The demo with a small file, and what it leaves behind when it is interrupted: nothing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The first start of a demo may wait for a build that another test has begun.
const LINE_WITHIN: Duration = Duration::from_secs(90);

type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Demo {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Demo {
    fn start(input: &Path) -> Result<Self, std::io::Error> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_grapevine-demo"))
            .arg("--input")
            .arg(input)
            .args(["--pace", "8"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, lines) = mpsc::channel();
        let output = child.stdout.take();
        std::thread::spawn(move || {
            for line in
                output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok)
            {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, seen: Vec::new() })
    }

    /// Waits for a line that contains this text.
    fn wait_for(&mut self, text: &str) -> Result<String, String> {
        loop {
            match self.lines.recv_timeout(LINE_WITHIN) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(error) => {
                    return Err(format!("no line with {text:?} ({error}) after:\n{}", self.seen.join("\n")));
                }
            }
        }
    }

    fn end(&mut self, within: Duration) -> Result<ExitStatus, Box<dyn std::error::Error>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > within {
                self.child.kill()?;
                return Err(format!("it still runs after {within:?}:\n{}", self.seen.join("\n")).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The directory of its network, from its own words.
    fn directory(&mut self) -> Result<String, String> {
        let line = self.wait_for("made certificates and genesis blocks in ")?;
        line.rsplit(' ').next().map(str::to_owned).ok_or_else(|| line.clone())
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until no process has this directory in its command line.
fn assert_no_process_of(directory: &str) -> Outcome {
    let started = Instant::now();
    loop {
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(directory) {
                left.push(line);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        // The kernel kills children of a killed demo at once, but not before it.
        if started.elapsed() > Duration::from_secs(5) {
            return Err(format!("still there: {left:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_demo_verifies_a_file_on_six_peers_and_leaves_nothing_behind() -> Outcome {
    let directory = tempfile::tempdir()?;
    let input = directory.path().join("input");
    let text: String = (0..20_000).map(|number| format!("{number} little lines make a file\n")).collect();
    std::fs::write(&input, text)?;
    let mut demo = Demo::start(&input)?;
    let network = demo.directory()?;
    demo.wait_for("SIGKILL for")?;
    demo.wait_for("takes over after")?;
    demo.wait_for("starts with an empty ledger")?;
    demo.wait_for("ledger sync verified: 6 peers, 2 channels")?;
    let status = demo.end(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(0));
    assert_no_process_of(&network)?;
    assert!(!Path::new(&network).exists(), "{network} is left");
    Ok(())
}

#[test]
fn ctrl_c_ends_the_demo_with_130_and_every_process_with_it() -> Outcome {
    let directory = tempfile::tempdir()?;
    let input = directory.path().join("input");
    std::fs::write(&input, vec![7; 100_000])?;
    let mut demo = Demo::start(&input)?;
    let network = demo.directory()?;
    demo.wait_for("run; ")?;
    demo.signal(Signal::INT)?;
    let status = demo.end(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(130));
    assert_no_process_of(&network)?;
    assert!(!Path::new(&network).exists(), "{network} is left");
    Ok(())
}

#[test]
fn even_a_killed_demo_leaves_no_process() -> Outcome {
    let directory = tempfile::tempdir()?;
    let input = directory.path().join("input");
    std::fs::write(&input, vec![7; 100_000])?;
    let mut demo = Demo::start(&input)?;
    let network = demo.directory()?;
    demo.wait_for("run; ")?;
    demo.signal(Signal::KILL)?;
    demo.end(Duration::from_secs(10))?;
    assert_no_process_of(&network)?;
    std::fs::remove_dir_all(&network)?;
    Ok(())
}
