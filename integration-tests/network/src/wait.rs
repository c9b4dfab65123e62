//! Waiting for a state of the network: everything has a deadline, nothing sleeps longer than [`POLL_INTERVAL`].

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use grapevine_channels::block::Block;

use crate::error::NetworkError;
use crate::member::Member;
use crate::network::Network;
use crate::status::{self, Status};

/// How often the network is looked at while waiting.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Network {
    /// Waits until `look` gives a value. Until then it gives a text that says what it sees instead, which a timeout shows
    /// together with the last log lines of `members`. A member that ends by itself ends the waiting.
    pub(crate) fn poll<T>(
        &self,
        what: &str,
        within: Duration,
        members: &[&Member],
        mut look: impl FnMut() -> Result<Result<T, String>, NetworkError>,
    ) -> Result<T, NetworkError> {
        let started = Instant::now();
        loop {
            let seen = match look()? {
                Ok(value) => return Ok(value),
                Err(seen) => seen,
            };
            for member in members {
                if let Some(status) = self.unexpected_end(member) {
                    return Err(self.ended(member, status));
                }
            }
            if self.is_interrupted() {
                return Err(NetworkError::Interrupted);
            }
            if started.elapsed() >= within {
                return Err(self.timeout(what.to_owned(), within, &seen, members.iter().copied()));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until a condition of the test's own holds; `look` says what it sees while it does not.
    ///
    /// # Errors
    /// [`NetworkError::Timeout`] with the last log lines of all processes, or what `look` fails with.
    pub fn wait_until<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl FnMut() -> Result<Result<T, String>, NetworkError>,
    ) -> Result<T, NetworkError> {
        let names = self.orderers().into_iter().chain(self.peers());
        let members: Vec<&Member> = names.map(|name| self.member(name)).collect::<Result<_, _>>()?;
        self.poll(what, within, &members, look)
    }

    /// Fails if the caller has asked to stop or a process has ended by itself; for waiting in which nothing is looked at.
    ///
    /// # Errors
    /// [`NetworkError::Interrupted`], [`NetworkError::Ended`].
    pub fn check(&self) -> Result<(), NetworkError> {
        if self.is_interrupted() {
            return Err(NetworkError::Interrupted);
        }
        for name in self.orderers().into_iter().chain(self.peers()) {
            let member = self.member(name)?;
            if let Some(status) = self.unexpected_end(member) {
                return Err(self.ended(member, status));
            }
        }
        Ok(())
    }

    /// What a running peer says about itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self, peer: &str) -> Result<Status, NetworkError> {
        let member = self.peer(peer)?;
        status::ask(&member.admin_socket()).map_err(|reason| {
            let reason = format!("{reason}{}", self.logs([member]));
            NetworkError::Answer { from: member.name.clone(), reason }
        })
    }

    /// As [`Network::status`], but a peer that does not answer, since it starts or has just died, is no error.
    ///
    /// # Errors
    /// [`NetworkError::Interrupted`], and if there is no such peer.
    pub fn look(&self, peer: &str) -> Result<Option<Status>, NetworkError> {
        if self.is_interrupted() {
            return Err(NetworkError::Interrupted);
        }
        Ok(status::ask(&self.peer(peer)?.admin_socket()).ok())
    }

    /// Waits until each of `peers` has committed at least `height` blocks of the channel.
    ///
    /// # Errors
    /// [`NetworkError::Timeout`] with the heights seen, [`NetworkError::Ended`] if one of them ends by itself.
    pub fn wait_for_height(
        &self,
        channel: &str,
        peers: &[&str],
        height: u64,
        within: Duration,
    ) -> Result<(), NetworkError> {
        self.channel(channel)?;
        let members: Vec<&Member> = peers.iter().map(|peer| self.peer(peer)).collect::<Result<_, _>>()?;
        let what = format!("height {height} of channel {channel}");
        self.poll(&what, within, &members, || {
            let seen: Vec<String> = members
                .iter()
                .filter_map(|member| match status::ask(&member.admin_socket()) {
                    Ok(status) if status.height(channel) >= height => None,
                    Ok(status) => Some(format!("{} is at {}", member.name, status.height(channel))),
                    Err(reason) => Some(format!("{} does not answer ({reason})", member.name)),
                })
                .collect();
            Ok(if seen.is_empty() { Ok(()) } else { Err(seen.join(", ")) })
        })
    }

    /// Waits until everything submitted so far is in blocks and every running peer of the channel has all of them; returns the height.
    ///
    /// # Errors
    /// [`NetworkError::Timeout`] with what is missing, [`NetworkError::Ended`] if a peer ends by itself.
    pub fn wait_for_sync(&self, channel: &str, within: Duration) -> Result<u64, NetworkError> {
        let started = Instant::now();
        let submitted = self.submitted_transactions(channel);
        let what = format!("{submitted} transactions of channel {channel} in blocks");
        let orderers: Vec<&Member> =
            self.orderers().into_iter().map(|name| self.member(name)).collect::<Result<_, _>>()?;
        let height = self.poll(&what, within, &orderers, || {
            let (height, transactions) = self.ordered(channel)?;
            let missing = || format!("the orderer has made {height} blocks with {transactions} of them");
            Ok(if transactions >= submitted { Ok(height) } else { Err(missing()) })
        })?;
        let mut peers = Vec::new();
        for peer in self.peers_in(channel) {
            if self.is_running(peer)? {
                peers.push(peer);
            }
        }
        self.wait_for_height(channel, &peers, height, within.saturating_sub(started.elapsed()))?;
        Ok(height)
    }

    /// Waits until exactly one running peer of the organisation leads in the channel and all its running peers agree on it;
    /// returns its name.
    ///
    /// # Errors
    /// [`NetworkError::Timeout`] with the views of all.
    pub fn wait_for_leader(
        &self,
        channel: &str,
        msp_id: &str,
        within: Duration,
    ) -> Result<String, NetworkError> {
        self.channel(channel)?;
        let mut members = Vec::new();
        for peer in self.peers_of(msp_id) {
            let member = self.peer(peer)?;
            if member.joins(channel) && self.is_running(peer)? {
                members.push(member);
            }
        }
        if members.is_empty() {
            return Err(NetworkError::State(format!("no peer of {msp_id} in channel {channel} runs")));
        }
        let what = format!("one leader of {msp_id} in channel {channel}");
        self.poll(&what, within, &members, || {
            let views = members.iter().map(|member| (*member, status::ask(&member.admin_socket())));
            Ok(agreed_leader(channel, &views.collect::<Vec<_>>()))
        })
    }

    /// Number of blocks of a channel that an orderer has made; also while it does not run.
    ///
    /// # Errors
    /// If there is no such channel, or the orderer's directory cannot be read.
    pub fn orderer_height(&self, channel: &str) -> Result<u64, NetworkError> {
        Ok(self.ordered(channel)?.0)
    }

    /// Blocks that the first orderer has made, and transactions in them besides the genesis block's.
    fn ordered(&self, channel: &str) -> Result<(u64, u64), NetworkError> {
        self.channel(channel)?;
        let Some(orderer) = self.orderers().first().copied() else { return Ok((0, 0)) };
        let directory = self.member(orderer)?.data.join(channel);
        let mut known = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        let (height, transactions) = known.entry(channel.to_owned()).or_default();
        loop {
            let path = directory.join(format!("{height:03}.block"));
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Ok((*height, *transactions));
                }
                Err(error) => return Err(NetworkError::io(format!("reading {}", path.display()))(error)),
            };
            let size = bytes.len();
            let block = Block::decode(bytes.into(), size).map_err(|error| NetworkError::Answer {
                from: orderer.to_owned(),
                reason: format!("{} is no block: {error}", path.display()),
            })?;
            if *height > 0 {
                *transactions += u64::try_from(block.transactions().len()).unwrap_or(u64::MAX);
            }
            *height += 1;
        }
    }

    /// An error unless the network has this channel: a misspelt name must not make an assertion hold.
    pub(crate) fn channel(&self, name: &str) -> Result<(), NetworkError> {
        let channels = &self.config().channels;
        if channels.iter().any(|channel| channel.name == name) {
            return Ok(());
        }
        let known = channels.iter().map(|channel| channel.name.as_str()).collect::<Vec<_>>().join(", ");
        Err(NetworkError::Unknown { kind: "channel", name: name.to_owned(), known })
    }
}

/// The name all views agree on, or what they say instead.
fn agreed_leader(channel: &str, views: &[(&Member, Result<Status, String>)]) -> Result<String, String> {
    let mut leaders = Vec::new();
    let mut seen = Vec::new();
    for (member, view) in views {
        let Ok(status) = view else {
            seen.push(format!("{} does not answer", member.name));
            continue;
        };
        let Some(state) = status.channel(channel) else {
            seen.push(format!("{} has not joined", member.name));
            continue;
        };
        if state.is_leader {
            leaders.push((status.peer.as_str(), status.pki_id.as_str()));
        }
        let named = state.leader_name.as_deref().or(state.leader.as_deref()).unwrap_or("nobody");
        seen.push(format!("{} follows {named}", member.name));
    }
    if let [(name, id)] = leaders.as_slice() {
        let follows =
            |status: &Status| status.channel(channel).and_then(|state| state.leader.as_deref()) == Some(*id);
        if views.iter().all(|(_, view)| view.as_ref().is_ok_and(follows)) {
            return Ok((*name).to_owned());
        }
    }
    Err(seen.join(", "))
}
