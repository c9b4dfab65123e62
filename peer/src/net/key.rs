//! The libp2p key of this peer: an ed25519 key in the data directory.
//!
//! It names the process on the wire (PeerId) and nothing more: who a peer is says its certificate,
//! which the member handshake binds to this key. It may be deleted; the peer then gets a new PeerId.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use libp2p::identity::Keypair;

use super::NetError;

/// No key file is larger than this; keeps a wrong path from being read whole.
const KEY_BYTES_MAX: u64 = 4096;

/// Reads the key, or makes one on the first start (mode 0600, written beside and renamed).
pub(crate) fn load_or_create(path: &Path) -> Result<Keypair, NetError> {
    let error = |reason: String| NetError::Key { path: path.to_owned(), reason };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > KEY_BYTES_MAX => {
            Err(error("it is too large for a key; point to another file".to_owned()))
        }
        Ok(metadata) => {
            if metadata.permissions().mode() & 0o077 != 0 {
                tracing::warn!(path = %path.display(), "others can read the libp2p key; run chmod 600 on it");
            }
            let bytes =
                fs::read(path).map_err(|cause| error(format!("{cause}; check its owner and mode")))?;
            Keypair::from_protobuf_encoding(&bytes).map_err(|cause| {
                error(format!("it holds no libp2p key ({cause}); delete it to get a new one"))
            })
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|cause| error(format!("{cause}; check that the directory is writable")))
        }
        Err(cause) => Err(error(format!("{cause}; check the directory"))),
    }
}

fn create(path: &Path) -> io::Result<Keypair> {
    let keypair = Keypair::generate_ed25519();
    let bytes = keypair.to_protobuf_encoding().map_err(io::Error::other)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(keypair)
}
