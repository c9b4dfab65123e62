//! Unix sockets for an operator's commands, such as `admin.sock` of a peer.
//!
//! - **Private from the first moment**: nobody but the owner can ever open one. It is made inside a private directory and
//!   moved out when its permissions are right.
//! - **One process a path**: a socket on which somebody answers is left alone ([`ListenError::InUse`]); one whose process is
//!   gone is replaced. Two processes that start in the same instant are kept apart by their callers' own locks.
//! - **At any length of path**: a socket address holds 107 bytes. A longer path is reached through an open descriptor of its
//!   directory, `/proc/self/fd/N/name`, which is always short.
//! - **Gone when done**: [`PrivateListener::into_parts`] gives a [`SocketFile`] that removes the file when it is dropped.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path a Unix socket address holds, in bytes.
const ADDRESS_BYTES_MAX: usize = 107;

/// Why a socket cannot be opened for listening.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A process answers on it.
    #[error("another process answers on the socket")]
    InUse,
    /// Something else has the socket's name.
    #[error("the file is not a socket")]
    NotASocket,
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A listening socket and its file.
#[derive(Debug)]
pub struct PrivateListener {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the file of a socket when it is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is gone already, that is what was wanted.
        let _gone = std::fs::remove_file(&self.0);
    }
}

impl PrivateListener {
    /// Listens on `path`, readable and writable by the owner alone.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        make_way(path)?;
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let private = directory.join(format!(".{}.{}", name.display(), std::process::id()));
        // That of a process that had our id.
        match std::fs::remove_dir_all(&private) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&private)?;
        let made = make(&private.join("s"), path);
        let removed = std::fs::remove_dir_all(&private);
        let listener = made?;
        removed?;
        Ok(Self { listener, file: SocketFile(path.to_owned()) })
    }

    /// The listener, in nonblocking mode as an async runtime wants it, and the guard of its file. Drop the listener first:
    /// a file whose socket answers is not taken over by a process that comes next.
    ///
    /// # Errors
    /// The operating system's.
    pub fn into_parts(self) -> io::Result<(UnixListener, SocketFile)> {
        self.listener.set_nonblocking(true)?;
        Ok((self.listener, self.file))
    }
}

/// Fails unless nothing stands at `path`, or the socket of a process that is gone.
fn make_way(path: &Path) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match connect(path) {
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(()),
            // Its queue of connections is full.
            io::ErrorKind::WouldBlock => Err(ListenError::InUse),
            _ => Err(error.into()),
        },
        Ok(_) => Err(ListenError::InUse),
    }
}

fn make(at: &Path, path: &Path) -> io::Result<UnixListener> {
    let listener = short(at, |address| UnixListener::bind(address))?;
    std::fs::set_permissions(at, Permissions::from_mode(0o600))?;
    std::fs::rename(at, path)?;
    Ok(listener)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// The operating system's: `NotFound` without a socket, `ConnectionRefused` when nobody answers.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_alone_may_use_it_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (listener, file) = PrivateListener::bind(&path).unwrap().into_parts().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        connect(&path).unwrap();
        assert_eq!(file.path(), path);
        drop((listener, file));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_that_answers_is_kept_and_one_whose_process_is_gone_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (listener, file) = PrivateListener::bind(&path).unwrap().into_parts().unwrap();
        assert!(matches!(PrivateListener::bind(&path), Err(ListenError::InUse)));
        drop(listener);
        std::mem::forget(file);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _again = PrivateListener::bind(&path).unwrap();
        connect(&path).unwrap();
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(PrivateListener::bind(&path), Err(ListenError::NotASocket)));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        let missing = PrivateListener::bind(&directory.path().join("nowhere/admin.sock")).unwrap_err();
        assert!(matches!(missing, ListenError::Io(_)), "{missing}");
    }

    #[test]
    fn paths_longer_than_a_socket_address_work() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&long).unwrap();
        let path = long.join("admin.sock");
        let _listener = PrivateListener::bind(&path).unwrap();
        connect(&path).unwrap();
        assert!(matches!(PrivateListener::bind(&path), Err(ListenError::InUse)));
    }
}
