//! The socket file: private from the first moment, replaced only when nobody answers on it, at any length of path.
//!
//! A Unix socket address holds 107 bytes of path. A longer path is reached through an open descriptor of its directory,
//! `/proc/self/fd/N/admin.sock`, which is always short.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path a Unix socket address holds, in bytes.
const ADDRESS_BYTES_MAX: usize = 107;

/// Why the admin socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Another peer answers on this socket.
    #[error(
        "another peer already runs on {}; stop it, or give this one its own peer.fileSystemPath",
        directory.display()
    )]
    InUse {
        /// Data directory of both.
        directory: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{} is not a socket; move that file away", path.display())]
    NotASocket {
        /// The offending path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("the admin socket {} could not be opened: {source}; check that its directory is writable", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Message of the operating system.
        source: io::Error,
    },
}

/// Listens on `path`, readable and writable by the owner alone.
pub(super) fn listen(path: &Path) -> Result<UnixListener, AdminSocketError> {
    let failed = |source| AdminSocketError::Io { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(AdminSocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => match connect(path) {
            // Nobody answers, so the peer that made it is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(failed(error)),
            _ => return Err(AdminSocketError::InUse { directory: directory.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Made inside a private directory and moved out when its permissions are right, so that nobody else can ever open it.
    let private = directory.join(format!(".admin.{}", std::process::id()));
    let cleared = std::fs::remove_dir_all(&private);
    if let Err(error) = cleared
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed(error));
    }
    DirBuilder::new().mode(0o700).create(&private).map_err(failed)?;
    let made = make(&private.join("s"), path);
    let removed = std::fs::remove_dir_all(&private);
    let listener = made.map_err(failed)?;
    removed.map_err(failed)?;
    Ok(listener)
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
