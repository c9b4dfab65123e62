//! The own certificates: noticing new ones on disk, putting them to use, and saying when they end.
//!
//! # Promise
//! New files in `peer.mspConfigPath` and new TLS files are put to use while the peer runs, [`POLL_INTERVAL`] × 2 after the last of
//! them was written at the latest, and at once on SIGHUP. Files that do not fit together, or are another member's, are refused with
//! a line in the log and a warning in the status; what was in use stays in use. Connections and streams stay.
//!
//! # How
//! A task looks at names, sizes, and times of modification. When they have changed, and stayed the same from one look to the
//! next (whoever replaces a certificate and its key writes two files), it reads them and hands them to the core, which decides.
//!
//! # Bounds
//! At most [`FILES_MAX`] files are looked at.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;
use grapevine_channels::certificates::{ClockNews, ExpiryNotice};
use grapevine_channels::node::Input;
use grapevine_configs::PeerConfig;
use grapevine_crypto::{LocalMsp, MspId, Role};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::core::Core;
use super::trust::{credential, wall_ms};
use crate::deliver_server::ServerTls;

/// Time between two looks at the files.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Most files looked at.
const FILES_MAX: usize = 4_096;
/// Time between two readings of the wall clock.
const WALL_INTERVAL: Duration = Duration::from_secs(10);

/// What was found on disk.
#[derive(Debug)]
pub(super) enum Material {
    /// The MSP directory, or why it cannot be used.
    Local(Box<Result<LocalMsp, String>>),
    /// The TLS files have changed.
    Tls,
}

/// What the core remembers.
#[derive(Debug)]
pub(super) struct Certificates {
    next_reading: Instant,
    /// Why the files on disk are not in use.
    refused: Option<String>,
    refused_tls: Option<String>,
    /// Seconds by which the wall clock was stepped ahead of certificate time.
    wall_ahead: Option<i64>,
}

impl Certificates {
    pub(super) fn new(started: Instant) -> Self {
        Self { next_reading: started + WALL_INTERVAL, refused: None, refused_tls: None, wall_ahead: None }
    }

    /// When the wall clock is read next.
    pub(super) fn next_reading(&self) -> Instant {
        self.next_reading
    }
}

/// This peer's MSP, certificate and key.
pub(super) fn local_identity(config: &PeerConfig) -> anyhow::Result<LocalMsp> {
    let msp_id = MspId::from(config.peer.local_msp_id.as_str());
    let local = LocalMsp::load(&config.peer.msp_config_path, &msp_id)?;
    let identity = local.signer.identity();
    if let Some(role) = identity.role().filter(|role| *role != Role::Peer) {
        bail!(
            "the certificate in {} is for the role {role:?}: a peer needs one with the organisational unit of peers",
            config.peer.msp_config_path.display()
        );
    }
    Ok(local)
}

/// Watches the files until the receiver is dropped.
pub(super) fn watch(config: &PeerConfig) -> std::io::Result<mpsc::Receiver<Material>> {
    let (sender, receiver) = mpsc::channel(1);
    let mut hangup = signal(SignalKind::hangup())?;
    let config = config.clone();
    let tls = tls_files(&config);
    let mut local = Watched::new(config.peer.msp_config_path.clone(), Vec::new());
    let mut tls = Watched::new(PathBuf::new(), tls);
    tokio::spawn(async move {
        loop {
            let forced = tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => false,
                _ = hangup.recv() => true,
                () = sender.closed() => return,
            };
            if forced {
                tracing::info!("SIGHUP: reading certificates again");
            }
            if local.look(forced) {
                let read = config.clone();
                let read = move || local_identity(&read).map_err(|error| format!("{error:#}"));
                let Ok(found) = tokio::task::spawn_blocking(read).await else { return };
                if sender.send(Material::Local(Box::new(found))).await.is_err() {
                    return;
                }
            }
            if tls.look(forced) && sender.send(Material::Tls).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Name, size and time of modification.
type Stamp = (PathBuf, u64, Option<SystemTime>);

#[derive(Debug)]
struct Watched {
    directory: PathBuf,
    files: Vec<PathBuf>,
    used: Vec<Stamp>,
    seen: Vec<Stamp>,
}

impl Watched {
    fn new(directory: PathBuf, files: Vec<PathBuf>) -> Self {
        let mut watched = Self { directory, files, used: Vec::new(), seen: Vec::new() };
        watched.used = watched.stamps();
        watched.seen = watched.used.clone();
        watched
    }

    /// Whether to read the files now: they have changed and come to rest, or somebody wants it so.
    fn look(&mut self, forced: bool) -> bool {
        let stamps = self.stamps();
        let at_rest = stamps == self.seen;
        self.seen = stamps;
        if !forced && (!at_rest || self.seen == self.used) {
            return false;
        }
        self.used = self.seen.clone();
        true
    }

    fn stamps(&self) -> Vec<Stamp> {
        let mut stamps: Vec<Stamp> = self.files.iter().filter_map(|file| stamp(file)).collect();
        if !self.directory.as_os_str().is_empty() {
            for path in entries(&self.directory) {
                if path.is_dir() {
                    stamps.extend(entries(&path).iter().filter_map(|file| stamp(file)));
                } else {
                    stamps.extend(stamp(&path));
                }
            }
        }
        stamps.truncate(FILES_MAX);
        stamps
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().take(FILES_MAX).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((path.to_owned(), metadata.len(), metadata.modified().ok()))
}

fn tls_files(config: &PeerConfig) -> Vec<PathBuf> {
    let tls = &config.peer.tls;
    if !tls.enabled {
        return Vec::new();
    }
    let single = [&tls.cert, &tls.key, &tls.rootcert, &tls.client_cert, &tls.client_key];
    let single = single.into_iter().filter_map(|key| key.file.clone());
    let overrides = config.peer.deliveryclient.address_overrides.iter();
    let overrides = overrides.filter_map(|entry| entry.ca_certs_file.clone());
    single.chain(tls.client_root_cas.files.iter().cloned()).chain(overrides).collect()
}

impl Core {
    /// The wall clock is read now and then, so that certificate time can follow it.
    pub(super) fn read_wall_clock(&mut self, now: Instant) {
        if now < self.certificates.next_reading {
            return;
        }
        self.certificates.next_reading = now + WALL_INTERVAL;
        self.feed(Input::Wall { unix_ms: wall_ms() });
        self.trust.correct(self.node.clock().unix_milliseconds(grapevine_channels::time::Time::ZERO));
    }

    /// Puts new files to use, or says why not.
    pub(super) fn take_material(&mut self, material: Material) {
        match material {
            Material::Local(found) => match (*found).and_then(|local| self.trust.renew(local)) {
                Ok(is_new) => self.renewed(is_new),
                Err(reason) => {
                    let path = self.config.peer.msp_config_path.display();
                    let text = format!(
                        "the files in {path} are not taken into use, this peer goes on with those it has: {reason}"
                    );
                    tracing::error!("{text}");
                    self.certificates.refused = Some(text);
                }
            },
            Material::Tls => self.renew_tls(),
        }
    }

    fn renewed(&mut self, is_new: bool) {
        self.certificates.refused = None;
        if is_new {
            let own = credential(&self.trust.identity());
            let days = own.not_after.saturating_sub(self.trust.now()) / 86_400;
            tracing::info!(serial = hex::encode(&own.serial), days, "this peer has a new certificate");
            self.feed(Input::Renewed(own));
            self.restart_streams();
        }
        // The directory may have brought a revocation list as well.
        self.feed(Input::TrustChanged);
    }

    fn renew_tls(&mut self) {
        let clients = match &mut self.deliver_server {
            Some(server) => ServerTls::read(&self.config.peer.tls)
                .and_then(|tls| tls.map_or(Ok(()), |tls| server.replace_tls(&tls)))
                .map_err(|error| error.to_string()),
            None => Ok(()),
        };
        let read = clients.and_then(|()| {
            self.orderers.read_files_again(&self.config).map_err(|error| format!("{error:#}"))
        });
        self.certificates.refused_tls = read.err().map(|reason| {
            format!("the TLS files of peer.tls are not taken into use, this peer goes on with those it has: {reason}")
        });
        match &self.certificates.refused_tls {
            Some(text) => tracing::error!("{text}"),
            None => {
                tracing::info!("TLS files were read again");
                self.restart_streams();
            }
        }
    }

    fn restart_streams(&mut self) {
        let now = Instant::now();
        let running: Vec<_> = self.orderers.running().cloned().collect();
        self.restarts.extend(running.into_iter().map(|channel| (channel, now)));
    }

    pub(super) fn tell_of_own_certificate(&self, notice: ExpiryNotice) {
        match notice {
            ExpiryNotice::DaysLeft(days) => tracing::warn!(days, "{}", expiry_text(notice)),
            ExpiryNotice::Expired => tracing::error!("{}", expiry_text(notice)),
        }
    }

    pub(super) fn tell_of_wall_clock(&mut self, news: ClockNews) {
        match news {
            ClockNews::Stepped { ahead } => {
                self.certificates.wall_ahead = Some(ahead);
                tracing::warn!(ahead_s = ahead, "{}", step_text(ahead));
            }
            ClockNews::Agrees => {
                self.certificates.wall_ahead = None;
                tracing::info!("the wall clock agrees with certificate time again");
            }
        }
    }

    /// What an operator must know of the own certificates and the clock.
    pub(super) fn certificate_warnings(&self) -> Vec<String> {
        let expiry = self.node.own_certificate(self.now()).map(expiry_text);
        let step = self.certificates.wall_ahead.map(step_text);
        let Certificates { refused, refused_tls, .. } = &self.certificates;
        [expiry, step, refused.clone(), refused_tls.clone()].into_iter().flatten().collect()
    }
}

fn expiry_text(notice: ExpiryNotice) -> String {
    match notice {
        ExpiryNotice::DaysLeft(0) => "this peer's certificate expires within a day: renew it".to_owned(),
        ExpiryNotice::DaysLeft(days) => format!("this peer's certificate expires in {days} days: renew it"),
        ExpiryNotice::Expired => {
            "this peer's certificate has expired: others refuse it until it is renewed".to_owned()
        }
    }
}

fn step_text(ahead: i64) -> String {
    let (seconds, way) = (ahead.unsigned_abs(), if ahead < 0 { "back" } else { "ahead" });
    format!(
        "the wall clock of this machine was set {seconds} s {way}; certificates are judged by the time before, which follows by 1 s a minute: check the clock, or restart if it is right now"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_when_they_have_changed_and_come_to_rest() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("signcerts");
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("cert.pem");
        std::fs::write(&file, b"one").unwrap();
        let mut watched = Watched::new(directory.path().to_owned(), Vec::new());
        assert!(!watched.look(false));
        assert!(watched.look(true), "on demand");
        std::fs::write(&file, b"longer").unwrap();
        assert!(!watched.look(false), "perhaps the key is still to come");
        std::fs::create_dir(directory.path().join("keystore")).unwrap();
        std::fs::write(directory.path().join("keystore/key"), b"key").unwrap();
        assert!(!watched.look(false));
        assert!(watched.look(false));
        assert!(!watched.look(false), "once");
        std::fs::remove_file(&file).unwrap();
        assert!(!watched.look(false));
        assert!(watched.look(false));
    }
}
