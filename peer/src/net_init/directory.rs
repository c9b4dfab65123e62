//! The directory: whose it is, what may be removed, and how files get into it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path};

use super::NetInitError;

/// Says that this command made the directory; one line of explanation, then one entry per line.
const MARKER: &str = ".grapevine-network";
const MARKER_FIRST_LINE: &str =
    "Made by `grapevine net init`, which removes these when it is run here again:";

/// Whether `dir` holds a network made earlier. Refuses a directory of others, and one whose processes run.
pub(super) fn check(dir: &Path) -> Result<bool, NetInitError> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(NetInitError::file("read", dir)(error)),
    };
    if entries.next().is_none() {
        return Ok(false);
    }
    for name in made_earlier(dir)? {
        // Only a running peer answers on its admin socket; the file alone may be left over.
        if UnixStream::connect(dir.join(&name).join(super::processes::DATA).join("admin.sock")).is_ok() {
            return Err(NetInitError::Running { directory: dir.to_path_buf(), name });
        }
    }
    Ok(true)
}

/// What the marker lists.
fn made_earlier(dir: &Path) -> Result<BTreeSet<String>, NetInitError> {
    let path = dir.join(MARKER);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(NetInitError::NotEmpty(dir.to_path_buf()));
        }
        Err(error) => return Err(NetInitError::file("read", &path)(error)),
    };
    let mut lines = text.lines();
    let entries: BTreeSet<String> = lines.by_ref().skip(1).map(str::to_owned).collect();
    // The marker decides what is removed, so a name that leads out of the directory must not be believed.
    let plain = |name: &String| {
        let mut parts = Path::new(name).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name.as_str())
    };
    if text.lines().next() != Some(MARKER_FIRST_LINE) || !entries.iter().all(plain) {
        return Err(NetInitError::Marker(path));
    }
    Ok(entries)
}

/// Removes what was made earlier and writes the marker for `entries`.
pub(super) fn prepare(dir: &Path, entries: &[&str]) -> Result<(), NetInitError> {
    fs::create_dir_all(dir).map_err(NetInitError::file("create", dir))?;
    let mut listed: BTreeSet<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
    let earlier = if dir.join(MARKER).exists() { made_earlier(dir)? } else { BTreeSet::new() };
    // A file of somebody else under one of our names is not ours to remove.
    for entry in listed.difference(&earlier) {
        if dir.join(entry).symlink_metadata().is_ok() {
            return Err(NetInitError::NotEmpty(dir.join(entry)));
        }
    }
    // Both lists, so that a run that breaks off in between can be repeated.
    let fresh = listed.clone();
    listed.extend(earlier.iter().cloned());
    write_marker(dir, &listed)?;
    for entry in &earlier {
        remove(&dir.join(entry))?;
    }
    write_marker(dir, &fresh)
}

fn write_marker(dir: &Path, entries: &BTreeSet<String>) -> Result<(), NetInitError> {
    let mut text = format!("{MARKER_FIRST_LINE}\n");
    for entry in entries {
        text.push_str(entry);
        text.push('\n');
    }
    write(&dir.join(MARKER), text.as_bytes())
}

fn remove(path: &Path) -> Result<(), NetInitError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(NetInitError::file("remove", path))
}

/// Writes a file and the directories above it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), NetInitError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(NetInitError::file("create", parent))?;
    }
    fs::write(path, bytes).map_err(NetInitError::file("write", path))
}
