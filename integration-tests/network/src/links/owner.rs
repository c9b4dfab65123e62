//! Which process made a TCP connection on this machine, found in `/proc` without privileges.
//!
//! The kernel lists every IPv4 socket in `/proc/net/tcp` with both addresses and the inode of the socket;
//! `/proc/<id>/fd` of the owner holds a link `socket:[inode]`. Both are readable for processes of the same user.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// The table is not a snapshot: an entry can be missed while others come and go, so a miss is looked up again.
const LOOKUPS_MAX: u32 = 5;

/// Pause between two lookups.
const LOOKUP_PAUSE: Duration = Duration::from_millis(2);

/// The one of `processes` that holds the socket from `local` to `remote` (as seen from that process), if any does.
pub fn find(local: SocketAddr, remote: SocketAddr, processes: impl Iterator<Item = u32>) -> Option<u32> {
    let processes: Vec<u32> = processes.collect();
    for attempt in 0..LOOKUPS_MAX {
        if attempt > 0 {
            std::thread::sleep(LOOKUP_PAUSE);
        }
        let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { continue };
        // Inode 0: the owner has closed the socket, nobody can be found any more.
        let Some(inode) = socket_inode(&table, local, remote) else { continue };
        if inode == 0 {
            return None;
        }
        let link = format!("socket:[{inode}]");
        return processes.iter().copied().find(|id| holds(*id, &link));
    }
    None
}

/// The inode of the socket from `local` to `remote` in the text of `/proc/net/tcp`.
fn socket_inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let line_local = address(fields.next()?)?;
        let line_remote = address(fields.next()?)?;
        if line_local != local || line_remote != remote {
            return None;
        }
        // Behind the two addresses: state, queues, timer, retransmits, user id, timeout, inode.
        fields.nth(6)?.parse().ok()
    })
}

/// Parses `0100007F:1B8C`: the address in the byte order of the machine, then the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(Ipv4Addr::from(address.to_ne_bytes()).into(), port))
}

/// True if the process has an open file that is this link.
fn holds(process_id: u32, link: &str) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process_id}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == Path::new(link)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_line_of_the_table_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1B8C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5000 1 0 100 0 0 10 0\n   \
                     1: 0100007F:C350 0100007F:1B8C 01 00000000:00000000 00:00000000 00000000  1000        0 777123 1 0 20 4 30 10 -1\n";
        let dialer = "127.0.0.1:50000".parse().unwrap();
        let listener = "127.0.0.1:7052".parse().unwrap();
        assert_eq!(socket_inode(table, dialer, listener), Some(777_123));
        assert_eq!(socket_inode(table, listener, dialer), None);
        assert_eq!(socket_inode("garbage\nmore garbage : ::", dialer, listener), None);
    }

    #[test]
    fn the_process_that_dialed_is_found_among_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let ourselves = std::process::id();
        assert_eq!(find(local, remote, [1, ourselves].into_iter()), Some(ourselves));
        assert_eq!(find(local, remote, std::iter::empty()), None);
    }
}
