//! The proxies with small child processes as dialers: each child holds real sockets, as a peer does.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::path::Path;
use std::time::Instant;

const SOON: Duration = Duration::from_secs(10);
/// How long nothing must arrive for silence to be believed. Too short a value can only hide a failure, not cause one.
const QUIET: Duration = Duration::from_millis(150);

/// A child that dials `address`, sends its name, then everything it receives goes back with `echo:` in front.
/// When the connection ends it dials again, as a peer would.
fn dialer(links: &Links, name: &str, address: SocketAddr, directory: &Path) -> Process {
    let script = format!(
        "while :; do exec 3<>/dev/tcp/127.0.0.1/{port} && {{ echo {name} >&3; while read -r line <&3; do echo echo:$line >&3 || break; done; exec 3>&-; }}; sleep 0.02; done 2>/dev/null",
        port = address.port()
    );
    let log = directory.join(format!("{name}.log"));
    links.register(name, || Process::start(name, Path::new("/bin/bash"), &["-c", &script], &log)).unwrap()
}

/// The target: a listener in the test itself, which takes connections and knows them by the name they send first.
struct Target {
    listener: std::net::TcpListener,
    streams: BTreeMap<String, StdStream>,
}

impl Target {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, streams: BTreeMap::new() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Takes one more connection, if one comes within the time.
    fn accept(&mut self, within: Duration) -> Option<String> {
        let started = Instant::now();
        while started.elapsed() < within {
            if let Ok((mut stream, _)) = self.listener.accept() {
                stream.set_nonblocking(false).unwrap();
                if let Ok(name) = read_line(&mut stream, SOON) {
                    self.streams.insert(name.clone(), stream);
                    return Some(name);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    fn say(&mut self, to: &str, text: &str) {
        self.streams.get_mut(to).unwrap().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self, from: &str, within: Duration) -> io::Result<String> {
        read_line(self.streams.get_mut(from).unwrap(), within)
    }
}

fn read_line(stream: &mut StdStream, within: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(within))?;
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
}

fn is_quiet(result: &io::Result<String>) -> bool {
    matches!(result, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}

struct Setup {
    links: Links,
    target: Target,
    proxy: SocketAddr,
    directory: tempfile::TempDir,
    _children: Vec<Process>,
}

/// Links in front of the target "t", and children with these names, all connected and registered.
fn setup(names: &[&str]) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let links = Links::new().unwrap();
    let mut target = Target::new();
    let proxy = links.open("t", target.address()).unwrap();
    let mut children = Vec::new();
    for name in names {
        let child = dialer(&links, name, proxy, directory.path());
        assert_eq!(target.accept(SOON).as_deref(), Some(*name));
        children.push(child);
    }
    Setup { links, target, proxy, directory, _children: children }
}

#[test]
fn bytes_pass_in_both_directions_and_silence_holds_one_direction_of_one_pair() {
    let Setup { links, mut target, _children, .. } = setup(&["a", "b"]);
    for name in ["a", "b"] {
        target.say(name, "hello");
        assert_eq!(target.hear(name, SOON).unwrap(), "echo:hello");
    }
    links.cut("a", "t", Cut::Silence);
    target.say("a", "one");
    assert!(is_quiet(&target.hear("a", QUIET)), "a's bytes must not arrive");
    target.say("b", "two");
    assert_eq!(target.hear("b", SOON).unwrap(), "echo:two", "another pair is not touched");
    links.heal("a", "t");
    assert_eq!(target.hear("a", SOON).unwrap(), "echo:one", "what was on the way arrives after healing");

    links.cut("t", "a", Cut::Silence);
    target.say("a", "three");
    assert!(is_quiet(&target.hear("a", QUIET)), "the target's bytes must not arrive at a");
    links.heal_all();
    assert_eq!(target.hear("a", SOON).unwrap(), "echo:three");
}

#[test]
fn a_reset_cut_ends_connections_and_refuses_new_ones_until_healed() {
    let Setup { links, mut target, _children, .. } = setup(&["a", "b"]);
    links.cut("a", "t", Cut::Reset);
    let error = target.hear("a", SOON).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(target.accept(QUIET), None, "a dials again and again but never gets through");
    target.say("b", "still here");
    assert_eq!(target.hear("b", SOON).unwrap(), "echo:still here");
    links.heal_all_of("a");
    assert_eq!(target.accept(SOON).as_deref(), Some("a"));
}

#[test]
fn a_reset_cut_of_the_other_direction_leaves_the_connection_alone() {
    let Setup { links, mut target, _children, .. } = setup(&["a"]);
    links.cut("t", "a", Cut::Reset);
    target.say("a", "hello");
    assert_eq!(target.hear("a", SOON).unwrap(), "echo:hello");
}

#[test]
fn a_connection_into_silence_comes_about_only_after_healing() {
    for (from, to) in [("c", "t"), ("t", "c")] {
        let Setup { links, mut target, proxy, directory, _children } = setup(&["a"]);
        links.cut(from, to, Cut::Silence);
        let _child = dialer(&links, "c", proxy, directory.path());
        assert_eq!(target.accept(QUIET), None);
        links.heal(from, to);
        assert_eq!(target.accept(SOON).as_deref(), Some("c"));
    }
}

#[test]
fn a_target_that_is_not_there_is_a_reset_and_one_that_comes_back_is_reached() {
    let links = Links::new().unwrap();
    let lease = crate::ports::PortLease::take().unwrap();
    let proxy = links.open("t", lease.address()).unwrap();
    let mut stream = StdStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let listener = std::net::TcpListener::bind(lease.address()).unwrap();
    let mut stream = StdStream::connect(proxy).unwrap();
    stream.write_all(b"x\n").unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(read_line(&mut accepted, SOON).unwrap(), "x");
    // The end of one direction is passed on while the other goes on.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    accepted.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    accepted.write_all(b"y\n").unwrap();
    assert_eq!(read_line(&mut stream, SOON).unwrap(), "y");
}

#[test]
fn connections_are_bounded_and_counted() {
    let links = Links::new().unwrap();
    let target = Target::new();
    let proxy = links.open("t", target.address()).unwrap();
    links.shared.open.store(CONNECTIONS_MAX, Ordering::Relaxed);
    let mut stream = StdStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert!(stream.read(&mut [0]).is_err());
    assert_eq!(links.refused_connections(), 1);
    assert_eq!(links.open_connections(), CONNECTIONS_MAX);
}

#[test]
fn dropping_the_links_ends_every_connection() {
    let Setup { links, mut target, _children, .. } = setup(&["a"]);
    drop(links);
    assert!(!is_quiet(&target.hear("a", SOON)));
}
