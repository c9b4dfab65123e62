//! Running the command line tools under test.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crate::error::NetworkError;
use crate::process::{dying_with_us, spawn};

/// How often a tool that should end is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Everything a finished tool wrote: standard output, then standard error.
pub(crate) fn text_of(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// A tool that runs in the background; killed when dropped.
#[derive(Debug)]
pub(crate) struct Tool {
    command: String,
    child: Child,
    /// Threads that empty the pipes, so that the tool never waits for us.
    readers: Option<[std::thread::JoinHandle<Vec<u8>>; 2]>,
}

impl Tool {
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Result<Self, NetworkError> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let command_line = format!("{name} {}", arguments.join(" "));
        let failed = || NetworkError::io(format!("running `{command_line}`"));
        let mut command: Command = dying_with_us(program).map_err(failed())?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = spawn(command).map_err(failed())?;
        let readers = Some([read_all(child.stdout.take()), read_all(child.stderr.take())]);
        Ok(Self { command: command_line, child, readers })
    }

    #[cfg(test)]
    fn id(&self) -> u32 {
        self.child.id()
    }

    /// True once it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool, NetworkError> {
        let status =
            self.child.try_wait().map_err(NetworkError::io(format!("waiting for `{}`", self.command)))?;
        Ok(status.is_some())
    }

    /// Waits for its end, whatever its exit status; gives up (and kills it) after `within` or when `stop` says so.
    pub(crate) fn output(
        mut self,
        within: Duration,
        stop: impl Fn() -> bool,
    ) -> Result<Output, NetworkError> {
        let started = Instant::now();
        while !self.has_ended()? {
            if stop() {
                return Err(NetworkError::Interrupted);
            }
            if started.elapsed() >= within {
                return Err(NetworkError::Timeout {
                    what: format!("the end of `{}`", self.command),
                    within,
                    seen: "it still runs".to_owned(),
                    logs: crate::error::LogTails::default(),
                });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let status = self.end()?;
        let [stdout, stderr] = self
            .readers
            .take()
            .map_or_else(Default::default, |readers| readers.map(|reader| reader.join().unwrap_or_default()));
        Ok(Output { status, stdout, stderr })
    }

    /// As [`Tool::output`], but an exit status other than 0 is an error that shows what the tool wrote.
    pub(crate) fn success(self, within: Duration, stop: impl Fn() -> bool) -> Result<Output, NetworkError> {
        let command = self.command.clone();
        let output = self.output(within, stop)?;
        if output.status.success() {
            return Ok(output);
        }
        Err(NetworkError::Command { command, status: output.status, output: text_of(&output) })
    }

    fn end(&mut self) -> Result<ExitStatus, NetworkError> {
        self.child.wait().map_err(NetworkError::io(format!("waiting for `{}`", self.command)))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both fail only if it has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // An error ends the output where it is, which the exit status explains.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Tool {
        Tool::start(Path::new("/bin/sh"), &["-c", script]).unwrap()
    }

    #[test]
    fn much_output_is_read_and_a_failure_shows_it() {
        let output = shell("head -c 300000 /dev/zero; echo end >&2").success(SOON, || false).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.as_slice()), (300_000, b"end\n".as_slice()));
        let error = shell("echo because >&2; exit 2").success(SOON, || false).unwrap_err().to_string();
        assert!(error.contains("because") && error.contains("exit status: 2"), "{error}");
    }

    #[test]
    fn a_tool_that_does_not_end_is_killed_and_named() {
        let tool = shell("exec sleep 1000");
        let id = tool.id();
        let error = tool.output(Duration::from_millis(50), || false).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("sleep 1000"), "{error}");
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        assert!(matches!(shell("exec sleep 1000").output(SOON, || true), Err(NetworkError::Interrupted)));
    }
}
