//! Every process behind a link of its own of limited bandwidth, by network namespaces.
//!
//! Needs root and iproute2. [`isolate`] first moves the program itself into a network namespace and a mount namespace that nobody else has;
//! everything else is made in there, so that the kernel removes all of it with the last process, however that ends, and the machine's own
//! interfaces, routes and `/run/netns` are never touched. [`Namespaces`] then makes in it, for each process, a namespace with one interface, all
//! of them on one bridge:
//!
//! ```text
//! process ─ eth0 ─tbf─▶ ┊ ─▶ bridge ─tbf─▶ ┊ ─▶ eth0 ─ process
//! ```
//!
//! What a process sends is limited on its own interface, what it receives on the bridge's side of it (token bucket filters). A queue in front of a
//! limit holds [`QUEUE_TIME`] of traffic, as the buffer of a switch does, then packets are dropped. The bridge itself has no limit and no delay.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::binaries::Binaries;
use crate::error::NetworkError;

/// How long a packet may wait for the limit.
pub const QUEUE_TIME: Duration = Duration::from_millis(50);

/// Bytes that pass at once after a pause: half a millisecond of a gigabit, and enough for any packet as the kernel passes it on.
const BURST_BYTES_MIN: u64 = 64 << 10;

/// Most processes of one network; the rest of the last two bytes of an address.
const PROCESSES_MAX: u16 = 1_000;

/// Stands in the private `/run`, and only there.
const MARK: &str = "/run/grapevine-isolated";

/// Moves this program into a network namespace and a mount namespace of its own by starting it anew with the same arguments, under the same
/// process id; returns if that was done before. The binaries under test are built first, since there is no way out of the namespace.
///
/// # Errors
/// If the user is not root, a tool is missing, the binaries cannot be built, or the program cannot be started anew.
pub fn isolate() -> Result<(), NetworkError> {
    if Path::new(MARK).exists() {
        return Ok(());
    }
    let unusable = |reason: &str| NetworkError::State(format!("links with a limit need {reason}"));
    if !rustix::process::geteuid().is_root() {
        return Err(unusable("network namespaces, which only root can make; run this as root"));
    }
    for (tool, package) in
        [("ip", "iproute2"), ("tc", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")]
    {
        let probe = Command::new(tool).arg("-V").stdin(Stdio::null()).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            return Err(unusable(&format!("the command `{tool}`; install {package}")));
        }
    }
    Binaries::ready()?;
    let program = std::env::current_exe().map_err(NetworkError::io("finding this program"))?;
    let script =
        format!("mount -t tmpfs tmpfs /run && touch {MARK} && ip link set lo up && exec \"$0\" \"$@\"");
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c", &script])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(NetworkError::io("entering a network namespace with unshare")(error))
}

/// The namespaces of one network; removed when dropped.
#[derive(Debug)]
pub struct Namespaces {
    /// Sets the networks of a program apart, in names and addresses.
    index: u8,
    mbit: u32,
    names: Mutex<Vec<String>>,
}

impl Namespaces {
    /// Makes the bridge, on which this program has an address without a limit.
    ///
    /// # Errors
    /// If the limit is 0, [`isolate`] was not called, or the kernel refuses.
    pub fn new(mbit: u32) -> Result<Self, NetworkError> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        if mbit == 0 {
            return Err(NetworkError::State("a link's limit must be above 0 Mbit/s".to_owned()));
        }
        if !Path::new(MARK).exists() {
            let reason = "namespaces are made only in isolation; call namespaces::isolate first";
            return Err(NetworkError::State(reason.to_owned()));
        }
        let namespaces = Self { index: NEXT.fetch_add(1, Ordering::Relaxed), mbit, names: Mutex::default() };
        shell(&format!(
            "ip link add {bridge} type bridge\nip addr add {address}/16 dev {bridge}\nip link set {bridge} up\n",
            bridge = namespaces.bridge(),
            address = namespaces.address(0),
        ))?;
        Ok(namespaces)
    }

    /// Makes the namespace of a process; returns the address it has in there.
    ///
    /// # Errors
    /// If there are too many or the kernel refuses.
    pub fn add(&self, process: &str) -> Result<Ipv4Addr, NetworkError> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u16::try_from(names.len() + 1).unwrap_or(u16::MAX);
        if number > PROCESSES_MAX {
            return Err(NetworkError::State(format!("more than {PROCESSES_MAX} processes")));
        }
        let address = self.address(number);
        names.push(process.to_owned());
        shell(&link_script(&self.name(number), &self.bridge(), address, self.mbit))?;
        Ok(address)
    }

    /// Loses every packet from and to a process from now on, or no more. Its interface and its connections stay.
    ///
    /// # Errors
    /// If the process has no namespace or the kernel refuses.
    pub(crate) fn lose(&self, process: &str, lose: bool) -> Result<(), NetworkError> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let position = names.iter().position(|name| name == process);
        let number = position.and_then(|position| u16::try_from(position + 1).ok());
        let number =
            number.ok_or_else(|| NetworkError::State(format!("{process} has no namespace of its own")))?;
        shell(&format!("ip link set {} {}\n", self.name(number), if lose { "down" } else { "up" }))
    }

    /// The command, without its arguments, that runs `program` in the namespace of a process.
    pub(crate) fn wrap(&self, process: &str, program: &Path) -> Option<(PathBuf, Vec<String>)> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let position = names.iter().position(|name| name == process)?;
        let name = self.name(u16::try_from(position + 1).ok()?);
        let arguments = vec![format!("--net=/run/netns/{name}"), program.to_string_lossy().into_owned()];
        Some((PathBuf::from("nsenter"), arguments))
    }

    fn bridge(&self) -> String {
        format!("gv{}", self.index)
    }

    fn name(&self, number: u16) -> String {
        format!("gv{}-{number}", self.index)
    }

    fn address(&self, number: u16) -> Ipv4Addr {
        let [high, low] = (number + 1).to_be_bytes();
        Ipv4Addr::new(10, self.index, high, low)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let count = self.names.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        let mut script = String::new();
        for number in 1..=u16::try_from(count).unwrap_or(u16::MAX) {
            // The interfaces go with it, also those on the bridge.
            script.push_str(&format!("ip netns del {} || true\n", self.name(number)));
        }
        script.push_str(&format!("ip link del {}\n", self.bridge()));
        // What is left goes with this program.
        let _left = shell(&script);
    }
}

/// One process' namespace and its link to the bridge.
fn link_script(name: &str, bridge: &str, address: Ipv4Addr, mbit: u32) -> String {
    // Two milliseconds of traffic: enough for the kernel's timers at any rate.
    let burst = BURST_BYTES_MIN.max(u64::from(mbit) * 1_000_000 / 8 / 500);
    let limit = format!("tbf rate {mbit}mbit burst {burst} latency {}ms", QUEUE_TIME.as_millis());
    format!(
        "ip netns add {name}\n\
         ip link add {name} type veth peer name eth0 netns {name}\n\
         ip link set {name} master {bridge} up\n\
         ip -n {name} addr add {address}/16 dev eth0\n\
         ip -n {name} link set lo up\n\
         ip -n {name} link set eth0 up\n\
         tc qdisc add dev {name} root {limit}\n\
         tc -n {name} qdisc add dev eth0 root {limit}\n"
    )
}

/// Runs a script that ends with the first command that fails.
fn shell(script: &str) -> Result<(), NetworkError> {
    let doing = || NetworkError::io("running ip and tc");
    let mut child = Command::new("sh")
        .args(["-e", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(doing())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A shell that ends early tells why below.
        let _ended = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(doing())?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetworkError::Command {
        command: script.to_owned(),
        status: output.status,
        output: crate::tools::text_of(&output),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_of_a_link_have_the_limit() {
        let script = link_script("gv0-7", "gv0", Ipv4Addr::new(10, 0, 0, 8), 100);
        let limits: Vec<&str> = script.lines().filter(|line| line.contains("tbf rate 100mbit")).collect();
        assert_eq!(limits.len(), 2, "{script}");
        assert!(limits.iter().any(|line| line.contains("dev gv0-7 ")));
        assert!(limits.iter().any(|line| line.contains("-n gv0-7 qdisc add dev eth0 ")));
    }

    #[test]
    fn a_burst_grows_with_the_rate() {
        let burst = |mbit| {
            let script = link_script("a", "b", Ipv4Addr::LOCALHOST, mbit);
            let (_, rest) = script.split_once("burst ").unwrap();
            rest.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(burst(1), BURST_BYTES_MIN);
        assert_eq!(burst(10_000), 2_500_000);
    }

    #[test]
    fn nothing_is_made_outside_of_isolation_or_without_a_limit() {
        assert!(Namespaces::new(100).unwrap_err().to_string().contains("isolate"));
        assert!(Namespaces::new(0).unwrap_err().to_string().contains("above 0"));
    }
}
