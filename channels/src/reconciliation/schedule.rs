//! Whom to ask for what, and when to stop waiting.

use super::*;

impl Reconciliation {
    /// Gives up silent sources and asks for what is missing. `room` is what the in-order buffer takes beyond what is asked for
    /// already, in bytes; `elsewhere` tells whether a number comes without being asked for here.
    pub fn handle_timeout(
        &mut self,
        now: Time,
        chain: &Chain,
        room: usize,
        elsewhere: impl Fn(u64) -> Elsewhere,
    ) -> Vec<Ask> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        self.changed_at = None;
        self.grace_ends = None;
        self.looked_at = now;
        self.asked_at = now;
        let sources = &self.sources;
        self.busy.retain(|peer| {
            sources.get(peer).is_some_and(|source| !source.asked().is_empty() || source.rests(now))
        });
        self.give_up_silent(now);
        let next = chain.next_needed();
        self.forget_below(next);
        self.missing = self.missing.split_off(&next);
        self.asked = self.asked.split_off(&next);
        self.headers.advance(next, chain.height());
        self.cursor = self.cursor.max(next);
        self.note_level(now, chain);
        let mut asks = std::mem::take(&mut self.said);
        self.compare_next(now, &mut asks);
        self.continue_search(now, &mut asks);
        self.ask_headers(now, next, &mut asks);
        self.consider_orderer(now, chain, &mut asks);
        if self.paused_until <= now {
            let mut blocks = BTreeMap::new();
            self.hedge(now, next, &mut blocks);
            self.assign(now, chain, room, elsewhere, &mut blocks);
            self.request(blocks, &mut asks);
        }
        asks
    }

    /// When [`Reconciliation::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let paused = (self.paused_until > self.looked_at).then_some(self.paused_until);
        let changed_at =
            self.changed_at.map(|at| if self.behind { at.max(self.asked_at + LOOK_INTERVAL) } else { at });
        let changed = match paused {
            Some(until) => changed_at.map(|at| at.max(until)).or(paused),
            None => changed_at,
        };
        let silent = self.busy_sources().filter_map(|source| self.silent_at(source)).min();
        let silent_headers = self.headers.silent_at(self.header_patience());
        let rested = self.busy_sources().map(Source::rests_until).filter(|at| *at > self.looked_at).min();
        let hedge = self.hedge_due().map(|(_, at)| at.max(self.paused_until));
        let stranded = self.stranded_at();
        [Some(self.next_state), changed, silent, silent_headers, rested, hedge, self.grace_ends, stranded]
            .into_iter()
            .fold(None, earliest)
    }

    pub(super) fn busy_sources(&self) -> impl Iterator<Item = &Source> {
        self.busy.iter().filter_map(|peer| self.sources.get(peer))
    }

    /// How long nothing may come from a source that owes blocks of these bytes.
    fn patience(&self, bytes: usize) -> Duration {
        match self.usual_s {
            Some(usual) => Duration::from_secs_f64((1.5 * usual).clamp(0.0, 3_600.0)).max(PATIENCE_MIN),
            None => PATIENCE_FIRST + Duration::from_secs_f64(bytes as f64 / SLOW),
        }
    }

    fn header_patience(&self) -> Duration {
        let usual =
            self.usual_headers_s.map(|usual| Duration::from_secs_f64((1.5 * usual).clamp(0.0, 3_600.0)));
        usual
            .unwrap_or(PATIENCE_FIRST)
            .clamp(PATIENCE_MIN * 2, self.config.response_timeout.max(PATIENCE_MIN * 2))
    }

    /// When a source is taken for silent if nothing comes. While nobody else answers either, the fault may be on this side.
    fn silent_at(&self, source: &Source) -> Option<Time> {
        let patience = self.patience(source.asked_bytes());
        let others_answer = self.arrived_at.is_some_and(|at| at > source.heard_at());
        let patience =
            if others_answer { patience } else { (patience * 4).max(self.config.response_timeout) };
        source.silent_at(patience)
    }

    fn give_up_silent(&mut self, now: Time) {
        let silent = self.busy.iter().filter(|peer| {
            let source = self.sources.get(peer);
            source.and_then(|source| self.silent_at(source)).is_some_and(|at| at <= now)
        });
        let mut silent: Vec<PkiId> = silent.copied().collect();
        silent.extend(self.headers.silent(now, self.header_patience()));
        silent.sort_unstable();
        silent.dedup();
        for peer in silent {
            self.counters.timeouts += 1;
            self.fail(now, peer);
        }
    }

    /// Asks one member after the other for its state.
    fn compare_next(&mut self, now: Time, asks: &mut Vec<Ask>) {
        if self.next_state > now {
            return;
        }
        self.next_state = now + self.config.check_interval;
        let after = self.last_place.and_then(|last| {
            self.places.range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded)).next()
        });
        let Some((place, peer)) = after.or_else(|| self.places.first_key_value()) else { return };
        self.last_place = Some(*place);
        asks.push(Ask::State { peer: *peer });
    }

    /// Asks for ranges of headers while the ledger is far behind.
    fn ask_headers(&mut self, now: Time, next: u64, asks: &mut Vec<Ask>) {
        if !self.config.enabled || self.claims_end.saturating_sub(next) <= HEADERS_FROM_BLOCKS {
            return;
        }
        let mut ranked: Vec<(usize, bool, u32, std::cmp::Reverse<u64>, PkiId)> = self
            .sources
            .iter()
            .filter(|(_, source)| !source.rests(now))
            .map(|(peer, source)| {
                let open = self.headers.asked_of(*peer);
                let rate = std::cmp::Reverse(source.rate() as u64);
                (open, !source.own_organization, source.failures(), rate, *peer)
            })
            .collect();
        ranked.sort_unstable();
        for (open, .., peer) in ranked {
            let Some(source) = self.sources.get(&peer) else { continue };
            let claimed = source.height();
            if open > 0 || claimed.saturating_sub(next) <= HEADERS_FROM_BLOCKS {
                continue;
            }
            let Some((first, count)) = self.headers.next_range(next, claimed) else { continue };
            self.headers.ask(now, peer, first, count);
            self.counters.header_requests += 1;
            asks.push(Ask::Headers { peer, first, count });
        }
    }

    /// The lowest missing block, if it was asked for once and somebody else has it too; and when it is late.
    fn hedge_due(&self) -> Option<(u64, Time)> {
        let (number, 1) = self.asked.first_key_value().map(|(number, count)| (*number, *count))? else {
            return None;
        };
        let mut asked =
            self.busy.iter().filter_map(|peer| Some((*peer, *self.sources.get(peer)?.asked().get(&number)?)));
        let (slow, asked) = asked.next()?;
        self.other_source(number, asked.bytes, slow)?;
        Some((number, asked.at + self.patience(asked.bytes)))
    }

    fn other_source(&self, number: u64, bytes: usize, except: PkiId) -> Option<PkiId> {
        let by_height = self.config.enabled;
        let fits = |(peer, source): &(&PkiId, &Source)| {
            **peer != except
                && source.failures() == 0
                && !source.rests(self.looked_at)
                && source.claims(number, by_height)
        };
        let soonest = |(_, one): &(&PkiId, &Source), (_, other): &(&PkiId, &Source)| {
            one.expected_s(bytes).total_cmp(&other.expected_s(bytes))
        };
        self.sources.iter().filter(fits).min_by(soonest).map(|(peer, _)| *peer)
    }

    fn hedge(&mut self, now: Time, next: u64, blocks: &mut BTreeMap<PkiId, Vec<u64>>) {
        let Some((number, _)) = self.hedge_due().filter(|(number, at)| *at <= now && *number >= next) else {
            return;
        };
        let slow = self.sources.iter().find(|(_, source)| source.asked().contains_key(&number));
        let Some((slow, bytes)) = slow.map(|(peer, _)| (*peer, self.expected_bytes(number))) else { return };
        if let Some(peer) = self.other_source(number, bytes, slow) {
            self.counters.hedges += 1;
            self.ask_block(now, peer, number, bytes, blocks);
        }
    }

    pub(super) fn expected_bytes(&self, number: u64) -> usize {
        let bytes = self
            .headers
            .size(number)
            .unwrap_or_else(|| self.block_bytes.map_or(BLOCK_BYTES_FIRST, |bytes| bytes as usize));
        bytes.clamp(1, crate::block::BLOCK_SIZE_MAX)
    }

    /// Hands out missing numbers, the lowest first.
    fn assign(
        &mut self,
        now: Time,
        chain: &Chain,
        mut room: usize,
        elsewhere: impl Fn(u64) -> Elsewhere,
        blocks: &mut BTreeMap<PkiId, Vec<u64>>,
    ) {
        let next = chain.next_needed();
        let (proven, claimed) = (self.headers.end(next), self.credible_height());
        let behind = claimed.saturating_sub(next) > NEAR_TIP_BLOCKS;
        self.behind = behind;
        let unproven = if self.block_bytes.is_some() { UNPROVEN_BLOCKS } else { UNSIZED_BLOCKS };
        let end = proven.max(claimed.min(next.saturating_add(unproven))).min(chain.window_end());
        // Put in order only if somebody has to be asked.
        let mut active: Option<Vec<PkiId>> = None;
        let mut hole = false;
        for number in self.cursor.max(next)..end {
            let is_asked = chain.holds(number) || self.asked.contains_key(&number);
            let elsewhere = if is_asked { Elsewhere::Arriving } else { elsewhere(number) };
            if elsewhere == Elsewhere::Pursued {
                self.grace_ends = earliest(self.grace_ends, Some(now + PUSH_GRACE));
                hole = true;
                continue;
            }
            if elsewhere == Elsewhere::Arriving {
                if !hole {
                    self.cursor = number.saturating_add(1);
                }
                continue;
            }
            if !behind && number >= proven {
                let eligible = *self.missing.entry(number).or_insert(now) + PUSH_GRACE;
                if eligible > now {
                    self.grace_ends = earliest(self.grace_ends, Some(eligible));
                    hole = true;
                    continue;
                }
            }
            let bytes = self.expected_bytes(number);
            // The next needed one always fits: without it nothing leaves the buffer.
            if bytes > room && number != next {
                return;
            }
            let active = active.get_or_insert_with(|| self.active(now));
            match self.pick(now, number, bytes, active) {
                Pick::Source(peer) => {
                    room = room.saturating_sub(bytes);
                    self.ask_block(now, peer, number, bytes, blocks);
                }
                Pick::Busy => return,
                Pick::Nobody => hole = true,
            }
        }
    }

    /// Who is asked first: the own organisation, and others if it has fewer than [`SOURCES_MIN`] that are well.
    fn active(&self, now: Time) -> Vec<PkiId> {
        let well = |own: bool| {
            let mut peers: Vec<(u32, PkiId)> = self
                .sources
                .iter()
                .filter(|(_, source)| source.own_organization == own && !source.rests(now))
                .map(|(peer, source)| (source.failures(), *peer))
                .collect();
            peers.sort_unstable();
            peers
        };
        let mut active = well(true);
        let own_well = active.iter().filter(|(failures, _)| *failures == 0).count();
        active.extend(well(false).into_iter().take(SOURCES_MIN.saturating_sub(own_well)));
        active.into_iter().map(|(_, peer)| peer).collect()
    }

    fn pick(&self, now: Time, number: u64, bytes: usize, active: &[PkiId]) -> Pick {
        let of_active =
            self.pick_of(number, bytes, active.iter().filter_map(|peer| self.sources.get_key_value(peer)));
        match of_active {
            Pick::Nobody => {
                self.pick_of(number, bytes, self.sources.iter().filter(|(_, source)| !source.rests(now)))
            }
            pick => pick,
        }
    }

    fn pick_of<'a>(
        &self,
        number: u64,
        bytes: usize,
        sources: impl Iterator<Item = (&'a PkiId, &'a Source)>,
    ) -> Pick {
        let mut pick = Pick::Nobody;
        let mut soonest = f64::INFINITY;
        for (peer, source) in sources {
            if !source.claims(number, self.config.enabled) {
                continue;
            }
            if !source.has_room(bytes) {
                if matches!(pick, Pick::Nobody) {
                    pick = Pick::Busy;
                }
                continue;
            }
            let expected = source.expected_s(bytes);
            if expected < soonest {
                soonest = expected;
                pick = Pick::Source(*peer);
            }
        }
        pick
    }

    fn ask_block(
        &mut self,
        now: Time,
        peer: PkiId,
        number: u64,
        bytes: usize,
        blocks: &mut BTreeMap<PkiId, Vec<u64>>,
    ) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        source.ask(now, number, bytes);
        self.busy.insert(peer);
        *self.asked.entry(number).or_default() += 1;
        blocks.entry(peer).or_default().push(number);
    }

    fn request(&mut self, blocks: BTreeMap<PkiId, Vec<u64>>, asks: &mut Vec<Ask>) {
        for (peer, numbers) in blocks {
            for numbers in numbers.chunks(self.config.batch_size.clamp(1, wire::NUMBERS_PER_FRAME_MAX)) {
                self.counters.requests += 1;
                asks.push(Ask::Blocks { peer, numbers: numbers.to_vec() });
            }
        }
    }
}

enum Pick {
    Source(PkiId),
    /// All who have it have been asked for as much as they may be.
    Busy,
    Nobody,
}
