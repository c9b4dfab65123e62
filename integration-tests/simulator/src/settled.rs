//! Whether a run is over: liveness after the last fault and block.

use std::collections::BTreeMap;
use std::time::Duration;

use grapevine_channels::membership::MemberState;
use grapevine_crypto::PkiId;

use crate::event::Event;
use crate::scenario::Leadership;
use crate::simulation::{CHECK_INTERVAL, Simulation};
use crate::truth::{ChannelIndex, Site};

/// How long everybody must have everything.
const SETTLED_FOR: Duration = Duration::from_secs(3);

impl Simulation {
    /// Whether all is over: everybody has had everything for a while.
    pub(crate) fn look(&mut self) -> Result<bool, String> {
        if self.is_measured {
            return Ok(false);
        }
        self.queue.push(self.now + CHECK_INTERVAL, Event::Check);
        let all_made =
            (0..self.truth.channels.len()).all(|channel| self.orderer.height(channel) > self.scenario.blocks);
        let calm = self.now >= self.last_fault && (all_made || !self.orderer.up);
        if !calm {
            return Ok(false);
        }
        let calm_since = *self.calm_since.get_or_insert(self.now);
        match self.unsettled() {
            None => {
                let settled_at = *self.settled_at.get_or_insert(self.now);
                if self.now.since(settled_at) < SETTLED_FOR {
                    return Ok(false);
                }
                self.checker.whole(&self.truth, &self.orderer, &self.hosts)?;
                Ok(true)
            }
            Some(why) if self.now.since(calm_since) >= self.scenario.settle => {
                Err(format!("not settled {:?} after the last fault and block: {why}", self.scenario.settle))
            }
            Some(_) => {
                self.settled_at = None;
                Ok(false)
            }
        }
    }

    /// What keeps the run from being over; `None`: everybody has everything and agrees.
    pub(crate) fn unsettled(&self) -> Option<String> {
        (0..self.truth.channels.len())
            .find_map(|channel| self.channel_unsettled(channel))
            .or_else(|| self.members_unsettled())
    }

    /// Whether a peer does what peers do: it neither lies nor keeps silent.
    pub(crate) fn takes_part(&self, peer: Site) -> bool {
        self.truth.is_honest(peer) && !self.scenario.silent.contains(&peer)
    }

    /// Honest peers that run and have joined.
    fn participants(&self, channel: ChannelIndex) -> Vec<Site> {
        (0..self.hosts.len())
            .filter(|peer| self.takes_part(*peer) && self.hosts[*peer].is_running())
            .filter(|peer| self.hosts[*peer].joined.contains(&channel))
            .collect()
    }

    fn channel_unsettled(&self, channel: ChannelIndex) -> Option<String> {
        let participants = self.participants(channel);
        let id = &self.truth.channels[channel].id;
        let pulled = participants
            .iter()
            .any(|peer| self.truth.leaderships[self.truth.peers[*peer].organization] != Leadership::Nobody);
        let highest = participants.iter().map(|peer| self.hosts[*peer].height(channel)).max().unwrap_or(0);
        let top = if self.orderer.up && pulled { self.orderer.height(channel) } else { highest };
        for peer in &participants {
            let height = self.hosts[*peer].height(channel);
            if height != top {
                return Some(format!("{} has {height} of {top} blocks of {id}", self.truth.name(*peer)));
            }
        }
        if self.truth.forgers.is_empty() { self.leaders_unsettled(channel, &participants) } else { None }
    }

    /// One leader for each organisation that elects one, known to all of its peers.
    fn leaders_unsettled(&self, channel: ChannelIndex, participants: &[Site]) -> Option<String> {
        let id = &self.truth.channels[channel].id;
        let mut leaders: BTreeMap<usize, PkiId> = BTreeMap::new();
        for peer in participants {
            let organization = self.truth.peers[*peer].organization;
            if self.truth.leaderships[organization] != Leadership::Elected {
                continue;
            }
            let Some(term) = self.hosts[*peer].node.as_ref().and_then(|node| node.leader(id)) else {
                return Some(format!("{} knows no leader of {id}", self.truth.name(*peer)));
            };
            let leader = leaders.entry(organization).or_insert(term.leader);
            if *leader != term.leader {
                return Some(format!("{} follows another leader of {id}", self.truth.name(*peer)));
            }
        }
        let absent = leaders.values().find(|leader| {
            !participants.iter().any(|peer| {
                self.truth.peers[*peer].credential.pki_id == **leader
                    && self.hosts[*peer].node.as_ref().is_some_and(|node| node.is_leader(id))
                    && self.hosts[*peer].pullers.contains_key(&channel)
            })
        });
        absent.map(|leader| format!("{} of {id} does not lead", leader.short()))
    }

    /// Honest peers of one organisation see each other alive, and are connected.
    fn members_unsettled(&self) -> Option<String> {
        let running: Vec<Site> = (0..self.hosts.len())
            .filter(|peer| self.truth.is_honest(*peer) && self.hosts[*peer].is_running())
            .collect();
        for one in &running {
            for other in running.iter().filter(|other| *other != one) {
                let visible = !self.truth.peers[*other].external_endpoint.is_empty()
                    && self.truth.channels.iter().any(|channel| {
                        [one, other].iter().all(|peer| {
                            channel.organizations.contains(&self.truth.peers[**peer].organization)
                        })
                    });
                if !self.truth.same_organization(*one, *other) && !visible {
                    continue;
                }
                let membership = self.hosts[*one].node.as_ref()?.membership();
                let pki_id = self.truth.peers[*other].credential.pki_id;
                let alive =
                    membership.member(&pki_id).is_some_and(|member| member.state == MemberState::Alive);
                if !alive || !membership.is_connected(&pki_id) {
                    let state = if alive { "not connected" } else { "not alive" };
                    return Some(format!(
                        "{} to {}: {state}",
                        self.truth.name(*one),
                        self.truth.name(*other)
                    ));
                }
            }
        }
        None
    }
}
