//! The socket file: private from the first moment, replaced only when nobody answers on it, at any length of path.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path a Unix socket address holds, in bytes.
const ADDRESS_BYTES_MAX: usize = 107;

/// Listens on `path`. [`io::ErrorKind::AddrInUse`] if somebody answers there already.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match connect(path) {
            // Nobody answers, so the process that made it is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    // Made inside a private directory and moved out when its permissions are right, so that nobody else can ever open it.
    let private = directory.join(format!(".control.{}", std::process::id()));
    if let Err(error) = std::fs::remove_dir_all(&private)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    DirBuilder::new().mode(0o700).create(&private)?;
    let made = make(&private.join("s"), path);
    std::fs::remove_dir_all(&private)?;
    made
}

fn make(at: &Path, path: &Path) -> io::Result<UnixListener> {
    let listener = short(at, |address| UnixListener::bind(address))?;
    std::fs::set_permissions(at, Permissions::from_mode(0o600))?;
    std::fs::rename(at, path)?;
    Ok(listener)
}

/// Connects to the socket at `path`.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    short(path, |address| UnixStream::connect(address))
}

/// Runs `use_address` with a path that fits into a socket address.
fn short<T>(path: &Path, use_address: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return use_address(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    use_address(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}
