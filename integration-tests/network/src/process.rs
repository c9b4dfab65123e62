//! Child processes that never outlive the harness.
//!
//! - Every child runs in a process group of its own, so that Ctrl-C at the terminal reaches the harness alone, which then stops its children.
//! - Dropping a [`Process`] kills it with SIGKILL and reaps it.
//! - If the harness itself is killed, the kernel kills the children: they are started through `setpriv --pdeathsig KILL`
//!   (util-linux, part of every Debian), which makes the setting without unsafe code and then becomes the program.
//!   The kernel ties that setting to the *thread* that started the child; hence one thread starts them all and lives as long as the process.
//! - Standard output and error go to one log file per process, appended to over restarts.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often a process that should end is looked at.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running (or just ended) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    frozen: bool,
}

impl Process {
    /// Starts `program` with `arguments`; its output is appended to `log`.
    ///
    /// # Errors
    /// If the log cannot be written or the program cannot be executed.
    pub fn start(name: &str, program: &Path, arguments: &[&str], log: &Path) -> io::Result<Self> {
        Self::start_with(name, program, arguments, &[], log)
    }

    /// The same, with additional environment variables.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_with(
        name: &str,
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        log: &Path,
    ) -> io::Result<Self> {
        let mut output = OpenOptions::new().create(true).append(true).open(log)?;
        writeln!(output, "=== {} {}", program.display(), arguments.join(" "))?;
        let mut command = dying_with_us(program)?;
        command
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        Ok(Self { name: name.to_owned(), child: spawn(command)?, frozen: false })
    }

    /// The name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id; not reused by the kernel while this value lives, because the child is reaped only here.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, or `None` while it runs.
    ///
    /// # Errors
    /// If the operating system cannot tell.
    pub fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// True while the process is stopped by [`Process::freeze`].
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// SIGSTOP: the process keeps its sockets but does nothing.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        self.frozen = true;
        Ok(())
    }

    /// SIGCONT: the process goes on after [`Process::freeze`].
    ///
    /// # Errors
    /// If the process has ended.
    pub fn thaw(&mut self) -> io::Result<()> {
        self.signal(Signal::CONT)?;
        self.frozen = false;
        Ok(())
    }

    /// SIGHUP.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn hang_up(&mut self) -> io::Result<()> {
        self.signal(Signal::HUP)
    }

    /// SIGTERM without waiting; a frozen process is thawed first, since it could not react.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn ask_to_end(&mut self) -> io::Result<()> {
        if self.frozen {
            self.thaw()?;
        }
        self.signal(Signal::TERM)
    }

    /// Waits until the process has ended; `None` if it has not after `within`.
    ///
    /// # Errors
    /// If the operating system cannot tell.
    pub fn wait(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if started.elapsed() >= within {
                return Ok(None);
            }
            std::thread::sleep(EXIT_POLL_INTERVAL);
        }
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// If the operating system cannot kill or reap it.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has ended", self.name)));
        }
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("process id out of range"))?;
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has already been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs `program` and dies with this process.
///
/// # Errors
/// If `program` is given by a path and is not a file there: `setpriv` could only tell in the log.
pub(crate) fn dying_with_us(program: &Path) -> io::Result<Command> {
    if program.components().count() > 1 && !program.is_file() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is missing", program.display())));
    }
    let Some(setpriv) = setpriv() else {
        return Ok(Command::new(program));
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    Ok(command)
}

/// Where `setpriv` is. Without it everything works except that children survive a SIGKILL of the harness.
fn setpriv() -> Option<&'static Path> {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(["/usr/bin".into(), "/bin".into()])
            .map(|directory| directory.join("setpriv"))
            .find(|candidate| candidate.is_file())
    };
    SETPRIV.get_or_init(find).as_deref()
}

type SpawnRequest = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a child from the one thread that lives as long as this process.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::SyncSender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::sync_channel::<SpawnRequest>(0);
        std::thread::spawn(move || {
            for (mut command, reply) in requests {
                // The receiver waits for this answer; if its thread has died, the child is killed as nobody owns it.
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        });
        sender
    });
    let gone = || io::Error::other("the thread that starts processes has ended");
    let (reply, answer) = mpsc::sync_channel(1);
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const SOON: Duration = Duration::from_secs(10);

    fn sleeper(directory: &Path) -> Process {
        Process::start("sleeper", Path::new("/bin/sleep"), &["1000"], &directory.join("log")).unwrap()
    }

    fn alive(id: u32) -> bool {
        // A zombie has no command line; only a process that was reaped or never existed has no directory.
        std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty())
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < SOON, "waited for {what}");
            std::thread::sleep(EXIT_POLL_INTERVAL);
        }
    }

    #[test]
    fn dropping_a_process_kills_and_reaps_it() {
        let directory = tempfile::tempdir().unwrap();
        let process = sleeper(directory.path());
        let id = process.id();
        wait_until("the process", || alive(id));
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_panic_kills_the_processes_of_its_stack() {
        let directory = tempfile::tempdir().unwrap();
        let process = sleeper(directory.path());
        let id = process.id();
        let panicked = std::thread::spawn(move || {
            let _process = process;
            panic!("on purpose");
        })
        .join();
        assert!(panicked.is_err());
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let mut process = std::thread::spawn(move || sleeper(&path)).join().unwrap();
        assert_eq!(process.wait(Duration::from_millis(100)).unwrap(), None);
    }

    #[test]
    fn sigterm_ends_even_a_frozen_process() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = sleeper(directory.path());
        process.freeze().unwrap();
        assert!(process.is_frozen());
        wait_until("the stopped state", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        });
        process.ask_to_end().unwrap();
        let status = process.wait(SOON).unwrap().unwrap();
        assert_eq!(status.signal(), Some(15));
    }

    #[test]
    fn children_die_when_the_harness_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        // A shell stands in for the harness: it starts a child the way the harness does and is then killed.
        let child_id_file = directory.path().join("child");
        let script = format!(
            "setpriv --pdeathsig KILL -- /bin/sleep 1000 & echo $! > {0}.part; mv {0}.part {0}; wait",
            child_id_file.display()
        );
        let mut harness =
            Process::start("harness", Path::new("/bin/sh"), &["-c", &script], &directory.path().join("log"))
                .unwrap();
        wait_until("the child", || child_id_file.exists());
        let child: u32 = std::fs::read_to_string(&child_id_file).unwrap().trim().parse().unwrap();
        wait_until("the child to become sleep", || {
            std::fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.starts_with(b"/bin/sleep"))
        });
        harness.kill().unwrap();
        wait_until("the child to die", || !alive(child));
    }

    #[test]
    fn a_missing_program_is_an_error_and_output_goes_to_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let error = Process::start("nothing", Path::new("/nonexistent/program"), &[], &log).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let script = ["-c", "echo to-output; echo to-error >&2; exit 3"];
        let mut process = Process::start("shell", Path::new("/bin/sh"), &script, &log).unwrap();
        assert_eq!(process.wait(SOON).unwrap().unwrap().code(), Some(3));
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("\nto-output\n") && text.contains("\nto-error\n"), "{text}");
    }
}
