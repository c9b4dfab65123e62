//! Whom this peer trusts: its own organisation and those of the channels it has joined.
//!
//! One place answers the transport (who may connect), membership (who is behind a record) and the election's scope. Trust
//! follows the channel configs: a new config replaces the channel's MSPs at once, for connections that exist too
//! ([`Trust::check`]).
//!
//! Peers of an organisation that was removed from a channel may connect ([`Trust::check_guest`]), judged by the last config their
//! organisation was in; they are no members: what they get is up to [`grapevine_channels::isolation`].
//!
//! A certificate is valid now if *certificate time* lies inside its validity ([`grapevine_channels::certificates`]). The node keeps
//! that clock; its corrections are told here ([`Trust::correct`]), for those that ask from other threads.
//!
//! The own MSP and what this peer signs with are replaced when they change on disk ([`Trust::renew`]).
//!
//! Bounds: at most [`PENALTIES_MAX`] peers serve a penalty at a time, the one that ends first goes early.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::authority::{Authority, Credential};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::isolation::LastBlock;
use grapevine_crypto::{Identity, LocalMsp, Msp, MspId, PkiId, Role};

use crate::history::{self, Removals};
use crate::net::Admission;
use crate::signing::CurrentSigner;

/// How long a peer that misbehaved is kept out.
pub(super) const PENALTY: Duration = Duration::from_secs(10);
/// Most peers kept out at a time.
const PENALTIES_MAX: usize = 1_024;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Trust {
    own: RwLock<Msp>,
    signer: Arc<CurrentSigner>,
    channels: RwLock<BTreeMap<ChannelId, ChannelTrust>>,
    penalties: Mutex<BTreeMap<PkiId, Instant>>,
    /// Certificate time at `started`, Unix milliseconds.
    zero_ms: AtomicI64,
    started: Instant,
}

#[derive(Debug)]
struct ChannelTrust {
    config: Arc<ChannelConfig>,
    removals: Removals,
}

impl Trust {
    pub(super) fn new(local: LocalMsp) -> Self {
        Self {
            own: RwLock::new(local.msp),
            signer: Arc::new(CurrentSigner::new(local.signer)),
            channels: RwLock::default(),
            penalties: Mutex::default(),
            zero_ms: AtomicI64::new(wall_ms()),
            started: Instant::now(),
        }
    }

    pub(super) fn signer(&self) -> &Arc<CurrentSigner> {
        &self.signer
    }

    /// The identity in use.
    pub(super) fn identity(&self) -> Identity {
        self.signer.now().identity().clone()
    }

    /// When this peer started, by the clock that never steps.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Certificate time when this peer started, Unix milliseconds.
    pub(super) fn zero_ms(&self) -> i64 {
        self.zero_ms.load(Ordering::Relaxed)
    }

    /// Certificate time was corrected: this is what it was, as it seems now, when this peer started.
    pub(super) fn correct(&self, zero_ms: i64) {
        self.zero_ms.store(zero_ms, Ordering::Relaxed);
    }

    /// Certificate time, Unix seconds.
    pub(super) fn now(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.zero_ms().saturating_add(elapsed).div_euclid(1_000)
    }

    /// Takes another own MSP and certificate, if they can stand for the same peer; returns whether the certificate is another one.
    ///
    /// # Errors
    /// Why not, for the operator; everything stays as it was.
    pub(super) fn renew(&self, local: LocalMsp) -> Result<bool, String> {
        let (current, new) = (self.identity(), local.signer.identity());
        let is_new = new.serialized() != current.serialized();
        if is_new {
            self.may_replace(&current, new)?;
        }
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = local.msp;
        if is_new {
            self.signer.replace(local.signer);
        }
        Ok(is_new)
    }

    fn may_replace(&self, current: &Identity, new: &Identity) -> Result<(), String> {
        if new.pki_id() != current.pki_id() {
            let name = |identity: &Identity| {
                identity.certificate().subject_common_name().unwrap_or("nobody").to_owned()
            };
            let (new, current) = (name(new), name(current));
            return Err(format!(
                "it is the certificate of {new}, this peer is {current}: a renewed certificate keeps the subject's common name"
            ));
        }
        self.check_peer(new.clone())?;
        if credential(new).order() < credential(current).order() {
            return Err("it is older than the one in use, and others would refuse it".into());
        }
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        for (channel, ChannelTrust { config, .. }) in channels.iter() {
            if config.application_orgs().contains_key(new.msp_id())
                && let Err(error) = config.identify(new.serialized())
            {
                return Err(format!(
                    "the config of channel {channel} does not vouch for it ({error}): update it first"
                ));
            }
        }
        Ok(())
    }

    /// Begins to trust the members of a channel.
    pub(super) fn enter(&self, config: Arc<ChannelConfig>, removals: Removals) {
        self.write_channels().insert(config.channel_id().clone(), ChannelTrust { config, removals });
    }

    /// Puts the new config of a channel in force, which came with block `last`.
    pub(super) fn reconfigure(&self, config: &Arc<ChannelConfig>, last: LastBlock) {
        if let Some(channel) = self.write_channels().get_mut(config.channel_id()) {
            history::advance(&mut channel.removals, &channel.config, config, last);
            channel.config = config.clone();
        }
    }

    /// Ends the trust in the members of a channel that this peer is no longer in.
    pub(super) fn leave(&self, channel: &ChannelId) {
        self.write_channels().remove(channel);
    }

    /// Organisations removed from a channel, with the block that removed each.
    pub(super) fn former(&self, channel: &ChannelId) -> BTreeMap<MspId, LastBlock> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        let removals = channels.get(channel).into_iter().flat_map(|channel| &channel.removals);
        removals.map(|(organization, removal)| (organization.clone(), removal.last)).collect()
    }

    fn write_channels(&self) -> RwLockWriteGuard<'_, BTreeMap<ChannelId, ChannelTrust>> {
        self.channels.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a peer out for [`PENALTY`].
    pub(super) fn penalise(&self, peer: PkiId) {
        let now = Instant::now();
        let mut penalties = self.penalties.lock().unwrap_or_else(PoisonError::into_inner);
        penalties.retain(|_, until| *until > now);
        if penalties.len() >= PENALTIES_MAX {
            let first = penalties.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.and_then(|first| penalties.remove(&first));
        }
        penalties.insert(peer, now + PENALTY);
    }

    /// The identity behind the bytes, if it is a peer of a trusted organisation and valid now.
    pub(super) fn check(&self, serialized: &[u8]) -> Result<Identity, String> {
        self.check_peer(self.find(serialized)?)
    }

    /// The identity behind the bytes, if it was a peer of a trusted organisation that a config block removed.
    pub(super) fn check_guest(&self, serialized: &[u8]) -> Result<Identity, String> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        let mut removals = channels.values().flat_map(|channel| &channel.removals);
        let found = removals.find_map(|(organization, removal)| {
            let identity = removal.config.identify(serialized).ok()?;
            (identity.msp_id() == organization).then_some(identity)
        });
        self.check_peer(found.ok_or("its organisation shares no channel with this peer, nor did it")?)
    }

    fn check_peer(&self, identity: Identity) -> Result<Identity, String> {
        self.check_peer_at(identity, self.now())
    }

    fn check_peer_at(&self, identity: Identity, unix_seconds: i64) -> Result<Identity, String> {
        if let Some(role) = identity.role().filter(|role| *role != Role::Peer) {
            return Err(format!("its certificate is for the role {role:?}, not for a peer"));
        }
        if identity.expired_at(unix_seconds) {
            return Err("its certificate has expired; renew it".into());
        }
        Ok(identity)
    }

    fn find(&self, serialized: &[u8]) -> Result<Identity, String> {
        let own = match self.own.read().unwrap_or_else(PoisonError::into_inner).identify(serialized) {
            Ok(identity) => return Ok(identity),
            Err(error) => error.to_string(),
        };
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        let mut reason = own;
        for ChannelTrust { config, .. } in channels.values() {
            match config.identify(serialized) {
                Ok(identity) if config.application_orgs().contains_key(identity.msp_id()) => {
                    return Ok(identity);
                }
                Ok(_) => reason = "its organisation shares no channel with this peer as a member".into(),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

impl Admission for Trust {
    fn admit(&self, identity: &[u8]) -> Result<Identity, String> {
        let identity = self.check(identity).or_else(|why| self.check_guest(identity).map_err(|_| why))?;
        let penalties = self.penalties.lock().unwrap_or_else(PoisonError::into_inner);
        match penalties.get(&identity.pki_id()) {
            Some(until) if *until > Instant::now() => {
                Err("it misbehaved a moment ago and is kept out for a while".into())
            }
            _ => Ok(identity),
        }
    }
}

/// [`Trust`] as the machines see it.
#[derive(Debug)]
pub(super) struct TrustAuthority(pub(super) Arc<Trust>);

impl Authority for TrustAuthority {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.signer.now().sign(message)
    }

    fn identify(&self, serialized: &[u8], unix_seconds: i64) -> Result<Credential, String> {
        let identity = self.0.check_peer_at(self.0.find(serialized)?, unix_seconds)?;
        Ok(credential(&identity))
    }

    fn verify(&self, credential: &Credential, message: &[u8], signature: &[u8]) -> bool {
        // Validated identities are cached by the MSP, so this costs one signature check.
        self.0.find(&credential.serialized).is_ok_and(|identity| identity.verify(message, signature).is_ok())
    }
}

/// What membership keeps of an identity.
pub(super) fn credential(identity: &Identity) -> Credential {
    let certificate = identity.certificate();
    Credential {
        pki_id: identity.pki_id(),
        msp_id: identity.msp_id().clone(),
        name: certificate.subject_common_name().unwrap_or("(no common name)").to_owned(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        serial: certificate.serial().to_vec(),
        serialized: Bytes::copy_from_slice(identity.serialized()),
    }
}

/// The wall clock, Unix milliseconds; before 1970 negative.
pub(super) fn wall_ms() -> i64 {
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => milliseconds(since),
        Err(before) => milliseconds(before.duration()).saturating_neg(),
    }
}

#[cfg(test)]
mod tests;
