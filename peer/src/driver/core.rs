//! The core: the one task that owns the node. See the module above.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::node::{Event, Input, Node, Output};
use grapevine_channels::time::Time;
use grapevine_channels::wire::Headers;
use grapevine_configs::PeerConfig;
use tokio::sync::mpsc;

use super::alarms::Alarms;
use super::certificates::{Certificates, Material};
use super::joining::Joining;
use super::limits::Limits;
use super::orderer::{OrdererNews, Orderers};
use super::progress::{self, ProgressLog};
use super::reader::{ReaderNews, Reading, Wanted};
use super::restorer::{Restored, Restorer};
use super::sender;
use super::stations::Stations;
use super::trust::{Trust, credential};
use super::verifier::{Finding, Job, Judged, Verdict, Verifier};
use super::{INCARNATION_KEY, STOP_GRACE, status};
use crate::admin::{AdminCall, AdminRequest, AdminResponse};
use crate::deliver_server::{DeliverChannels, DeliverServer};
use crate::ledger::{CommitRefused, Ledger, LedgerError, LedgerReport, LedgerThread};
use crate::net::{ALREADY_CONNECTED, NetEvent, NetEvents, NetHandle};

/// An orderer that sent a block which does not verify is asked again after this long.
const ORDERER_DISTRUST: Duration = Duration::from_secs(1);
/// A stream that had to drop a block begins again after this long, when some of what was in the way is done.
const ORDERER_RESTART: Duration = Duration::from_millis(200);
/// Being outbid this soon after a start is by a former self.
const FORMER_SELF: Duration = Duration::from_secs(60);
/// Most events of the transport that are taken before the others have their turn.
const NET_EVENTS_AT_ONCE: usize = 32;
/// Most config blocks being committed at a time; they come one by one.
const CONFIG_BLOCKS_MAX: usize = 64;

/// Everything the core hears.
#[derive(Debug)]
pub(super) struct Feeds {
    pub(super) net_events: NetEvents,
    pub(super) ledger_reports: mpsc::Receiver<LedgerReport>,
    pub(super) findings: mpsc::UnboundedReceiver<Finding>,
    pub(super) orderer_news: mpsc::Receiver<OrdererNews>,
    pub(super) reader_news: mpsc::Receiver<ReaderNews>,
    pub(super) restored: mpsc::Receiver<Restored>,
    pub(super) admin_calls: mpsc::Receiver<AdminCall>,
    pub(super) material: mpsc::Receiver<Material>,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: PeerConfig,
    pub(super) node: Node,
    pub(super) started: Instant,
    pub(super) trust: Arc<Trust>,
    pub(super) limits: Arc<Limits>,
    pub(super) ledger: Ledger,
    pub(super) ledger_thread: LedgerThread,
    pub(super) net: NetHandle,
    pub(super) verifier: Verifier,
    pub(super) orderers: Orderers,
    pub(super) readings: mpsc::Sender<Reading>,
    pub(super) restorer: Restorer,
    /// The walk that an operator asked for, while it is under way.
    pub(super) repair: Option<(ChannelId, tokio::task::JoinHandle<()>)>,
    /// Who waits for a channel to be joined through a peer.
    pub(super) joining: Joining,
    /// What is known of a former start of this peer that its ledger knows nothing of.
    pub(super) former_self: Option<String>,
    /// Blocks the ledger thread's queue had no room for, in order.
    pub(super) waiting_commits: VecDeque<(ChannelId, AuthenticBlock)>,
    /// Config blocks handed to the ledger, by channel and number.
    pub(super) config_blocks: BTreeMap<(ChannelId, u64), AuthenticBlock>,
    pub(super) certificates: Certificates,
    /// Channels that were stopped, and why.
    pub(super) halted: BTreeMap<ChannelId, String>,
    /// Halted channels, and when to leave each.
    pub(super) leaving: BTreeMap<ChannelId, Instant>,
    /// Channels whose orderers signed two histories.
    pub(super) alarms: Alarms,
    /// Orderer streams to start again later.
    pub(super) restarts: BTreeMap<ChannelId, Instant>,
    /// What clients' streams know of the channels.
    pub(super) client_channels: DeliverChannels,
    pub(super) deliver_server: Option<DeliverServer>,
    /// The way of each block, for measurements.
    pub(super) stations: Stations,
    pub(super) progress_log: ProgressLog,
}

impl Core {
    /// Joins what the ledger holds, then what peer.yaml names.
    pub(super) fn join_known_channels(&mut self) -> anyhow::Result<()> {
        for channel in self.ledger.channels() {
            self.enter(&channel)?;
        }
        for path in self.config.channels.clone() {
            let bytes = std::fs::read(&path)
                .with_context(|| format!("channels: cannot read the genesis block {}", path.display()))?;
            self.join(bytes.into())
                .with_context(|| format!("channels: cannot join with {}", path.display()))?;
        }
        Ok(())
    }

    /// Runs until `stop` or until the ledger fails.
    pub(super) async fn run(
        mut self,
        mut feeds: Feeds,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        tokio::pin!(stop);
        let ledger = self.ledger.clone();
        let outcome = loop {
            self.carry_out();
            let wake = self.next_wake();
            tokio::select! {
                () = &mut stop => break Ok(()),
                () = tokio::time::sleep_until(wake.into()) => self.tick(),
                Some(event) = feeds.net_events.recv() => self.net_events(event, &mut feeds.net_events),
                Some(report) = feeds.ledger_reports.recv() => {
                    if let Err(error) = self.ledger_report(report) {
                        break Err(error);
                    }
                }
                Some(finding) = feeds.findings.recv() => self.finding(finding),
                Some(news) = feeds.orderer_news.recv() => self.orderer_news(news),
                Some(news) = feeds.reader_news.recv() => self.reader_news(news),
                Some(Restored { channel, number, peer, result }) = feeds.restored.recv() => {
                    self.feed(Input::Restored { channel, number, peer, result });
                }
                () = ledger.damage_found() => self.fetch_damaged(),
                Some(call) = feeds.admin_calls.recv() => self.admin_call(call),
                Some(material) = feeds.material.recv() => self.take_material(material),
            }
        };
        self.stop(feeds.ledger_reports).await;
        outcome
    }

    async fn stop(mut self, ledger_reports: mpsc::Receiver<LedgerReport>) {
        self.feed(Input::Shutdown);
        self.carry_out();
        self.orderers.stop_all();
        let streams_ended = async {
            if let Some(server) = self.deliver_server {
                server.stop().await;
            }
        };
        // What the ledger has taken is finished; nothing new comes, since the core has stopped.
        let written = tokio::time::timeout(STOP_GRACE, self.ledger_thread.shutdown(ledger_reports));
        let (written, ()) = tokio::join!(written, streams_ended);
        if written.is_err() {
            tracing::warn!("the ledger is still writing; blocks not yet committed will be fetched again");
        }
    }

    pub(super) fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.node.handle(self.now(), input);
    }

    fn next_wake(&self) -> Instant {
        let deadline = self.node.next_deadline().map(|at| self.started + Duration::from_nanos(at.as_nanos()));
        let restart = self.restarts.values().min().copied();
        let leave = self.leaving.values().min().copied();
        let wake = deadline.into_iter().chain(restart).chain(leave).chain([self.certificates.next_reading()]);
        wake.fold(self.progress_log.next(), Instant::min)
    }

    fn tick(&mut self) {
        self.node.handle_timeout(self.now());
        let now = Instant::now();
        progress::look(self, now);
        self.read_wall_clock(now);
        let left: Vec<ChannelId> =
            self.leaving.extract_if(.., |_, at| *at <= now).map(|(id, _)| id).collect();
        for channel in left {
            self.feed(Input::Leave(channel));
        }
        let due: Vec<ChannelId> =
            self.restarts.iter().filter(|(_, at)| **at <= now).map(|(channel, _)| channel.clone()).collect();
        for channel in due {
            self.restarts.remove(&channel);
            let next = self.ledger.height(&channel);
            if self.orderers.is_running(&channel) {
                self.start_deliver(&channel, next);
            }
        }
    }

    /// Takes what is there at once: looking for the next deadline costs more than most events.
    fn net_events(&mut self, event: NetEvent, more: &mut NetEvents) {
        self.net_event(event);
        for _ in 1..NET_EVENTS_AT_ONCE {
            let Some(event) = more.try_recv() else { return };
            self.net_event(event);
        }
    }

    fn net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Connected { identity, session, dialer, remote_address, .. } => {
                tracing::info!(
                    peer = identity.certificate().subject_common_name().unwrap_or_default(),
                    organization = %identity.msp_id(),
                    address = remote_address,
                    "connected"
                );
                let endpoint = dialer.then_some(remote_address);
                self.feed(Input::Connected { credential: credential(&identity), session, endpoint });
            }
            NetEvent::Disconnected { peer, reason, .. } => {
                tracing::info!(peer = self.name(&peer), reason, "disconnected");
                self.feed(Input::Disconnected { peer });
            }
            NetEvent::Control { peer, frame, .. } => self.feed(Input::Control { peer, frame }),
            NetEvent::Bulk { peer, header, body, .. } => self.feed(Input::Bulk { peer, header, body }),
            NetEvent::BulkStarted { peer, header, .. } => self.feed(Input::BulkStarted { peer, header }),
            NetEvent::BulkProgress { peer, header, .. } => self.feed(Input::BulkProgress { peer, header }),
            NetEvent::DialFailed { endpoint, reason } => {
                tracing::debug!(endpoint, reason, "dial failed");
                self.feed(if reason == ALREADY_CONNECTED {
                    Input::AlreadyConnected { endpoint }
                } else {
                    Input::DialFailed { endpoint, reason }
                });
            }
        }
    }

    /// Blocks that were found damaged come again from other peers.
    fn fetch_damaged(&mut self) {
        let mut lost: BTreeMap<ChannelId, Vec<u64>> = BTreeMap::new();
        for (channel, number) in self.ledger.damaged() {
            lost.entry(channel).or_default().push(number);
        }
        for (channel, numbers) in lost {
            self.feed(Input::Lost { channel, numbers });
        }
    }

    fn ledger_report(&mut self, report: LedgerReport) -> anyhow::Result<()> {
        self.hand_over_commits();
        match report {
            LedgerReport::Committed { channel, height, tip } => {
                self.stations.committed(&channel, height);
                self.orderers.committed(&channel, height);
                let (committed, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) =
                    std::mem::take(&mut self.config_blocks)
                        .into_iter()
                        .partition(|((of, number), _)| *of == channel && *number < height);
                self.config_blocks = waiting;
                self.feed(Input::Committed { channel: channel.clone(), height, tip });
                for block in committed.into_values() {
                    self.new_config(&channel, &block);
                }
                // After the config, so that no client gets a block under a config that it has replaced.
                self.client_channels.committed(&channel, height);
                Ok(())
            }
            LedgerReport::Refused { channel, number, error } => {
                self.halt(&channel, format!("the ledger refused block {number}: {error}"));
                Ok(())
            }
            LedgerReport::Failed { error } => {
                Err(anyhow::Error::new(error).context("the ledger cannot be written any more"))
            }
        }
    }

    fn reader_news(&mut self, news: ReaderNews) {
        self.feed(match news {
            ReaderNews::NotSent { peer, channel, number } => Input::NotSent { peer, channel, number },
            ReaderNews::Headers { peer, channel, headers } => Input::HeadersRead { peer, channel, headers },
        });
    }

    fn finding(&mut self, finding: Finding) {
        match finding {
            Finding::Verdict(verdict) => self.verdict(verdict),
            Finding::Compared { channel, block, kept } => {
                self.feed(Input::Compared { channel, block, kept });
            }
            Finding::LookedUp { channel, number, peer, hash } => {
                self.feed(Input::LookedUp { channel, number, peer, hash });
            }
        }
    }

    fn verdict(&mut self, Verdict { ticket, channel, result }: Verdict) {
        let result = match result {
            Judged::Block(result) => result,
            Judged::Headers(result) => return self.feed(Input::HeadersVerified { ticket, result }),
        };
        let number = result.as_ref().ok().map(AuthenticBlock::number);
        self.stations.verified(ticket, &channel, number);
        let pending = number.filter(|number| *number >= self.ledger.height(&channel));
        self.orderers.verified(ticket, &channel, pending);
        self.feed(Input::Verified { ticket, result });
    }

    fn orderer_news(&mut self, news: OrdererNews) {
        match news {
            OrdererNews::Block { channel, body, place } => {
                // The node answers an orderer's block with exactly one Verify, or with none if the channel is gone.
                let mut place = Some(place);
                self.node.handle(self.now(), Input::OrdererBlock { channel, body });
                let outputs: Vec<Output> = std::iter::from_fn(|| self.node.poll_output()).collect();
                for output in outputs {
                    if let Output::Verify { ticket, claim: None, .. } = &output
                        && let Some(place) = place.take()
                    {
                        self.orderers.verifying(*ticket, place);
                    }
                    self.carry_out_one(output);
                }
            }
            OrdererNews::Connected { channel, endpoint } => {
                self.orderers.connected(&channel, endpoint);
                self.feed(Input::OrdererContact { channel, in_contact: true, round_trip: None });
            }
            OrdererNews::Failed { channel, endpoint, reason } => {
                self.orderers.failed(&channel, &endpoint, reason);
                self.feed(Input::OrdererContact { channel, in_contact: false, round_trip: None });
            }
            OrdererNews::Probed { channel, found } => {
                self.orderers.probed(&channel);
                self.feed(Input::OrdererProbe { channel, found });
            }
        }
    }

    fn admin_call(&mut self, call: AdminCall) {
        let response = match call.request {
            AdminRequest::Status => AdminResponse::Status(Box::new(status::status(self))),
            AdminRequest::JoinByAnchor { channel, anchor, genesis_hash } => {
                return self.join_by_anchor(&channel, &anchor, &genesis_hash, call.answer);
            }
            AdminRequest::Join { block } => match self.join(block) {
                Ok(channel) => AdminResponse::Joined { joined: channel.to_string() },
                Err(error) => AdminResponse::Error { error: format!("{error:#}") },
            },
            AdminRequest::Repair { channel, ranges } => match self.start_repair(&channel, &ranges) {
                Ok(repairing) => AdminResponse::Repairing { repairing },
                Err(error) => AdminResponse::Error { error: format!("{error:#}") },
            },
        };
        // Who asked may have gone.
        let _gone = call.answer.send(response);
    }

    /// Looks at blocks beside the core's own work: what finds a block is written anew, a block that is damaged is noted and
    /// fetched. One repair at a time.
    fn start_repair(&mut self, channel: &str, ranges: &[(u64, u64)]) -> anyhow::Result<u64> {
        let channel: ChannelId = channel.parse()?;
        let height = self.ledger.height(&channel);
        if height == 0 {
            return Err(LedgerError::UnknownChannel { channel }.into());
        }
        if self.repair.as_ref().is_some_and(|(_, task)| !task.is_finished()) {
            bail!("a repair is under way; wait for its end");
        }
        let ranges: Vec<_> =
            ranges.iter().map(|(first, last)| *first..last.saturating_add(1).min(height)).collect();
        let count =
            ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)));
        let (ledger, of) = (self.ledger.clone(), channel.clone());
        let task = tokio::task::spawn_blocking(move || {
            for number in ranges.into_iter().flatten() {
                match ledger.reindex(&of, number) {
                    // Noted by the ledger, which wakes the core.
                    Ok(()) | Err(LedgerError::Damaged { .. }) => {}
                    Err(error) => {
                        return tracing::error!(channel = %of, number, %error, "the repair ends early");
                    }
                }
            }
        });
        self.repair = Some((channel, task));
        Ok(count)
    }

    /// Whether a repair of the channel is still looking.
    pub(super) fn is_repairing(&self, channel: &ChannelId) -> bool {
        self.repair.as_ref().is_some_and(|(of, task)| of == channel && !task.is_finished())
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.carry_out_one(output);
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            // A frame that finds its queue full is dropped and counted by the transport; every exchange is repeated.
            Output::SendControl { peer, frame } => drop(self.net.send_control(peer, frame)),
            Output::SendBlock { peer, channel, number, kind, header, block } => {
                let sent = sender::send(&self.net, &self.readings, peer, &channel, (kind, header), block);
                if !sent {
                    self.feed(Input::NotSent { peer, channel, number });
                }
            }
            Output::Dial { endpoint } => self.net.dial(endpoint),
            Output::Verify { ticket, channel, verified: header, kept, body, .. } => {
                self.stations.received(ticket);
                self.verifier.verify(Job { ticket, channel, header, kept, body });
            }
            Output::VerifyHeaders { ticket, channel, headers } => {
                self.verifier.verify_headers(ticket, channel, headers);
            }
            Output::ReadHeaders { peer, channel, first, count } => {
                let what = Wanted::Headers { first, count };
                if self.readings.try_send(Reading { peer, channel: channel.clone(), what }).is_err() {
                    let headers = Headers { first, ..Headers::default() };
                    self.feed(Input::HeadersRead { peer, channel, headers });
                }
            }
            Output::Compare { channel, block } => self.verifier.compare(channel, block),
            Output::LookUp { channel, number, peer } => self.verifier.look_up(channel, number, peer),
            Output::Commit { channel, block } => self.commit(channel, block),
            Output::Restore { channel, number, peer, body } => {
                self.restorer.restore(channel, number, peer, body);
            }
            // Its node may still take part in elections for a moment.
            Output::StartDeliver { channel, .. } if self.halted.contains_key(&channel) => {}
            Output::StartDeliver { channel, next } => {
                if self.orderers.is_running(&channel) {
                    self.restarts.insert(channel, Instant::now() + ORDERER_RESTART);
                } else {
                    self.start_deliver(&channel, next);
                }
            }
            Output::ProbeOrderer { channel } => {
                if let Some(config) = self.verifier.config(&channel) {
                    self.orderers.probe(&channel, &config);
                }
            }
            Output::StopDeliver { channel } => {
                self.restarts.remove(&channel);
                self.orderers.stop(&channel);
            }
            Output::PersistIncarnation(incarnation) => {
                self.outbid(incarnation);
            }
            Output::LinkOpened { peer, channel, tag } => self.limits.open(peer, channel, tag),
            Output::LinkClosed { peer, channel } => self.limits.close(peer, &channel),
            Output::Penalise { peer, why } => {
                tracing::warn!(peer = self.name(&peer), %why, "disconnecting a peer that misbehaved");
                self.trust.penalise(peer);
                self.net.disconnect(peer, &why.to_string());
            }
            Output::Introduced { channel, result } => self.introduced(&channel, result),
            Output::Disconnect { peer, reason } => self.net.disconnect(peer, &reason),
            Output::KeepEvidence { channel, block } => self.keep_evidence(&channel, &block),
            Output::Halt { channel, reason } => self.halt_soon(channel, reason),
            Output::Event(event) => self.event(event),
        }
    }

    /// Others know a later start of this peer than its ledger does. Soon after a start that is a former self: the data
    /// directory is older than what ran on it last.
    fn outbid(&mut self, incarnation: u64) {
        if self.started.elapsed() < FORMER_SELF && self.former_self.is_none() {
            let text = format!(
                "others know start {} of this peer, its data directory does not: an older backup was restored, the disk was lost, or a copy of the directory runs elsewhere; blocks that are missing are fetched again",
                incarnation.saturating_sub(1)
            );
            tracing::error!("{text}");
            self.former_self = Some(text);
        }
        if let Err(error) = self.ledger.meta_put(INCARNATION_KEY, &incarnation.to_be_bytes()) {
            tracing::error!(%error, "the counter of starts cannot be written");
        }
    }

    fn commit(&mut self, channel: ChannelId, block: AuthenticBlock) {
        self.stations.handed(&channel, block.number());
        if block.is_config() && self.config_blocks.len() < CONFIG_BLOCKS_MAX {
            self.config_blocks.insert((channel.clone(), block.number()), block.clone());
        }
        self.waiting_commits.push_back((channel, block));
        self.hand_over_commits();
    }

    /// Hands blocks to the ledger thread, in order. Each chain bounds what it has on the way, but the thread's queue is
    /// shared by all channels: what it does not take now waits for its next report.
    fn hand_over_commits(&mut self) {
        while let Some((channel, block)) = self.waiting_commits.front() {
            match self.ledger_thread.try_commit(channel, vec![block.clone()]) {
                Err(CommitRefused::QueueFull) => return,
                Ok(()) => {
                    self.waiting_commits.pop_front();
                }
                Err(error @ CommitRefused::Stopped) => {
                    let Some((channel, _)) = self.waiting_commits.pop_front() else { return };
                    self.halt(&channel, format!("a block cannot be committed: {error}"));
                }
            }
        }
    }

    fn start_deliver(&mut self, channel: &ChannelId, next: u64) {
        if let Some(config) = self.verifier.config(channel) {
            self.orderers.start(channel, &config, next);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::MemberAlive(peer) => tracing::info!(peer = self.name(&peer), "member is alive"),
            Event::MemberSuspect { member, by } => {
                let by: Vec<String> = by.iter().map(|peer| self.name(peer)).collect();
                tracing::info!(
                    peer = self.name(&member),
                    by = by.join(", "),
                    "member is suspected to be silent"
                );
            }
            Event::MemberRenewed(peer) => {
                tracing::info!(peer = self.name(&peer), "member has a new certificate")
            }
            Event::OwnCertificate(notice) => self.tell_of_own_certificate(notice),
            Event::WallClock(news) => self.tell_of_wall_clock(news),
            Event::Unreachable { member, endpoint } => tracing::warn!(
                peer = self.name(&member),
                endpoint,
                "member lives, but nobody answers at the address it advertises: set peer.gossip.endpoint or externalEndpoint there to one that others can reach"
            ),
            Event::MemberDead(peer) => tracing::info!(peer = self.name(&peer), "member is silent"),
            Event::Anchor { channel, organization, trouble } => {
                tracing::warn!(%channel, %organization, "{}", status::anchor_text(&organization, &trouble));
            }
            Event::Leader { channel, term } => {
                let leader = term.map_or_else(|| "nobody".to_owned(), |term| self.name(&term.leader));
                let account = self.node.leader_account(&channel);
                let reason = account.and_then(|account| account.reason).map_or("", |reason| reason.words());
                tracing::info!(%channel, leader, term = term.map_or(0, |term| term.counter), reason, "leader");
            }
            Event::Withholding { channel, leader } => tracing::warn!(
                %channel,
                leader = self.name(&leader),
                "the leader kept back blocks that the orderer has; it is not followed for a while"
            ),
            Event::Fork { channel, number, dropped } => tracing::error!(
                %channel, number, %dropped,
                "an authentic block contradicts this ledger: the orderers signed two histories"
            ),
            Event::Diverged { channel, peer, number, own, theirs } => tracing::error!(
                %channel, peer = self.name(&peer), number, %own, %theirs,
                "the history of a member differs from this ledger's from this block on: compare with other organisations which is the agreed one"
            ),
            Event::BlockRejected { channel, from: Some(peer), reason } => {
                tracing::warn!(%channel, peer = self.name(&peer), reason, "block rejected");
            }
            Event::BlockRejected { channel, from: None, reason } => {
                tracing::warn!(%channel, reason, "block of the orderer rejected; asking again");
                self.restarts.insert(channel, Instant::now() + ORDERER_DISTRUST);
            }
            Event::Alarm(text) => tracing::error!("{text}"),
        }
    }

    pub(super) fn name(&self, peer: &grapevine_crypto::PkiId) -> String {
        let own = self.trust.identity();
        if *peer == own.pki_id() {
            return own.certificate().subject_common_name().unwrap_or("this peer").to_owned();
        }
        match self.node.membership().member(peer) {
            Some(member) => member.credential.name.clone(),
            None => peer.short(),
        }
    }
}
