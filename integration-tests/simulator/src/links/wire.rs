//! All links, as one machine.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use grapevine_channels::time::Time;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::uplink::{Service, Uplink};
use super::{Class, FRAME_BYTES_MIN, Jitter, Latency, LinkSettings, Loss};
use crate::truth::Site;

/// Distinguishes the wire's randomness from that of the run with the same seed.
const WIRE_STREAM: u64 = 0x317e;

/// Time between two signs that a long transfer goes on.
pub const PROGRESS: Duration = Duration::from_millis(10);

/// Something came out of the wire.
#[derive(Debug)]
pub enum Delivery<P> {
    /// A message is there, whole.
    Message {
        /// From.
        from: Site,
        /// To.
        to: Site,
        /// What was sent.
        payload: P,
    },
    /// The first byte of a bulk message is there; again for every [`PROGRESS`] that the rest takes.
    Head {
        /// From.
        from: Site,
        /// To.
        to: Site,
        /// What was sent along for this.
        payload: P,
    },
    /// A packet was lost for good: the connection between two sites breaks, and the message with it.
    Reset {
        /// From.
        from: Site,
        /// To.
        to: Site,
        /// What was lost.
        payload: P,
    },
}

#[derive(Debug)]
enum Step<P> {
    /// The uplink of a site is done with a piece, unless control frames took some of its time.
    PieceLeft(Site),
    /// The last byte of a piece or frame is at the receiver's downlink.
    Tail { from: Site, to: Site, class: Class, bytes: usize, head: Time, payload: Option<P>, reset: bool },
    /// The downlink is done with a message.
    Done(Delivery<P>),
}

#[derive(Debug)]
struct Entry<P> {
    at: Time,
    order: u64,
    step: Step<P>,
}

impl<P> PartialEq for Entry<P> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<P> Eq for Entry<P> {}

impl<P> PartialOrd for Entry<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Entry<P> {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Downlink {
    control_free_at: Time,
    bulk_free_at: Time,
}

/// The links of all sites. See the module's header.
#[derive(Debug)]
pub struct Wire<P> {
    settings: LinkSettings,
    latency: Latency,
    up: Vec<Uplink<P>>,
    down: Vec<Downlink>,
    /// Last arrival of each stream; kept only where messages could overtake.
    last: BTreeMap<(Site, Site, Class), Time>,
    steps: BinaryHeap<Entry<P>>,
    added: u64,
    rng: ChaCha8Rng,
}

impl<P: Clone> Wire<P> {
    /// Idle links between `sites` sites.
    pub fn new(settings: LinkSettings, latency: Latency, sites: usize, seed: u64) -> Self {
        Self {
            settings,
            latency,
            up: (0..sites).map(|_| Uplink::default()).collect(),
            down: vec![Downlink::default(); sites],
            last: BTreeMap::new(),
            steps: BinaryHeap::new(),
            added: 0,
            rng: ChaCha8Rng::seed_from_u64(seed ^ WIRE_STREAM),
        }
    }

    /// One-way times.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// What the links are like.
    pub fn settings(&self) -> &LinkSettings {
        &self.settings
    }

    /// Makes a site's links slower by a factor from now on; 1 is full speed.
    pub fn slow_down(&mut self, site: Site, factor: f64) {
        self.settings.slow.insert(site, factor);
    }

    /// Bytes a message takes of a link.
    pub fn size_of(class: Class, bytes: usize) -> usize {
        if class == Class::Control { bytes.max(FRAME_BYTES_MIN) } else { bytes }
    }

    /// Bulk bytes that wait at one site for another.
    pub fn bytes_waiting(&self, from: Site, to: Site) -> usize {
        self.up[from].bytes_waiting(to)
    }

    /// Takes a bulk message, and what the receiver shall see of it when its first byte comes.
    pub fn send_bulk(&mut self, now: Time, from: Site, to: Site, bytes: usize, head: P, payload: P) {
        if self.settings.up.is_none() {
            let at = now + self.latency.one_way(from, to);
            self.push(at, Step::Done(Delivery::Head { from, to, payload: head }));
            return self.send(now, from, to, Class::Bulk, bytes, payload);
        }
        self.up[from].push(self.settings.sharing, to, bytes, Some(head), payload);
        self.serve(now, from);
    }

    /// Takes a message.
    pub fn send(&mut self, now: Time, from: Site, to: Site, class: Class, bytes: usize, payload: P) {
        let bytes = Self::size_of(class, bytes);
        match (class, self.settings.up) {
            (Class::Bulk, Some(_)) => {
                self.up[from].push(self.settings.sharing, to, bytes, None, payload);
                self.serve(now, from);
            }
            (Class::Bulk, None) => self.leave(from, to, class, bytes, now, now, Some(payload)),
            (Class::Control, _) => {
                let time = self.time_up(from, bytes);
                let uplink = &mut self.up[from];
                let began = uplink.control_free_at.max(now);
                uplink.control_free_at = began + time;
                if let Some(service) = &mut uplink.serving {
                    service.stolen += time;
                }
                self.leave(from, to, class, bytes, began, began + time, Some(payload));
            }
        }
    }

    /// Takes back messages from one site to another that fit and have not begun to leave.
    pub fn call_back(&mut self, from: Site, to: Site, fits: impl Fn(&P) -> bool) -> Vec<P> {
        self.up[from].call_back(self.settings.sharing, to, false, fits)
    }

    /// All that waits at one site for another is lost; what has begun to leave leaves for nothing.
    pub fn drop_waiting(&mut self, from: Site, to: Site) {
        self.up[from].call_back(self.settings.sharing, to, true, |_| true);
    }

    /// All that waits at a site is lost: its process died.
    pub fn clear(&mut self, site: Site) {
        self.up[site].clear(self.settings.sharing);
    }

    /// When [`Wire::step`] is due.
    pub fn next(&self) -> Option<Time> {
        self.steps.peek().map(|entry| entry.at)
    }

    /// Does what is due next; the delivery, if that was one, is due now.
    pub fn step(&mut self) -> Option<Delivery<P>> {
        let Entry { at, step, .. } = self.steps.pop()?;
        match step {
            Step::PieceLeft(site) => {
                self.piece_left(at, site);
                None
            }
            Step::Tail { from, to, class, bytes, head, payload, reset } => {
                let done = self.come_in(at, to, class, bytes, head);
                let payload = payload?;
                let delivery = if reset {
                    Delivery::Reset { from, to, payload }
                } else {
                    Delivery::Message { from, to, payload }
                };
                if done <= at {
                    return Some(delivery);
                }
                self.push(done, Step::Done(delivery));
                None
            }
            Step::Done(delivery) => Some(delivery),
        }
    }

    fn push(&mut self, at: Time, step: Step<P>) {
        self.steps.push(Entry { at, order: self.added, step });
        self.added += 1;
    }

    fn time_up(&self, site: Site, bytes: usize) -> Duration {
        self.time_of(self.settings.up, site, bytes)
    }

    fn time_of(&self, bandwidth: Option<u64>, site: Site, bytes: usize) -> Duration {
        let Some(bandwidth) = bandwidth else { return Duration::ZERO };
        let factor = self.settings.slow.get(&site).copied().unwrap_or(1.0);
        Duration::from_secs_f64(bytes as f64 * factor / bandwidth as f64)
    }

    /// Begins with the next piece if the uplink is idle.
    fn serve(&mut self, now: Time, site: Site) {
        let sharing = self.settings.sharing;
        let uplink = &self.up[site];
        if uplink.serving.is_some() {
            return;
        }
        let Some((to, bytes)) = uplink.next_piece(sharing) else { return };
        let began = uplink.control_free_at.max(now);
        let ends = began + self.time_up(site, bytes);
        if let Some(head) = self.up[site].head(to) {
            let mut at = began + self.latency.one_way(site, to);
            let signs = 1 + ends.since(began).as_nanos() / PROGRESS.as_nanos();
            for _ in 0..signs {
                self.push(at, Step::Done(Delivery::Head { from: site, to, payload: head.clone() }));
                at = at + PROGRESS;
            }
        }
        self.up[site].serving = Some(Service { to, bytes, began, ends, stolen: Duration::ZERO });
        self.push(ends, Step::PieceLeft(site));
    }

    fn piece_left(&mut self, now: Time, site: Site) {
        let uplink = &mut self.up[site];
        let Some(mut service) = uplink.serving.take() else { return };
        if !service.stolen.is_zero() {
            service.ends = service.ends + std::mem::take(&mut service.stolen);
            let ends = service.ends;
            uplink.serving = Some(service);
            return self.push(ends, Step::PieceLeft(site));
        }
        let payload = uplink.piece_left(self.settings.sharing, service.to, service.bytes);
        self.leave(site, service.to, Class::Bulk, service.bytes, service.began, now, payload);
        self.serve(now, site);
    }

    /// First and last byte leave at these times.
    #[expect(clippy::too_many_arguments, reason = "a message and its times")]
    fn leave(
        &mut self,
        from: Site,
        to: Site,
        class: Class,
        bytes: usize,
        began: Time,
        ended: Time,
        payload: Option<P>,
    ) {
        let latency = self.latency.one_way(from, to);
        let (extra, reset) =
            if payload.is_some() { self.accident(from, to) } else { (Duration::ZERO, false) };
        let mut tail = ended + latency + extra;
        if self.settings.jitter != Jitter::None || self.settings.loss != Loss::None {
            let last = self.last.entry((from, to, class)).or_default();
            tail = tail.max(*last);
            *last = tail;
        }
        let head = began + latency + extra;
        self.push(tail, Step::Tail { from, to, class, bytes, head, payload, reset });
    }

    /// Extra time of a message, and whether its connection breaks.
    fn accident(&mut self, from: Site, to: Site) -> (Duration, bool) {
        let jitter = match self.settings.jitter {
            Jitter::None => Duration::ZERO,
            Jitter::Uniform(max) => max.mul_f64(self.rng.random_range(0.0..1.0)),
            Jitter::Exponential(mean) => mean.mul_f64(-(1.0 - self.rng.random_range(0.0f64..1.0)).ln()),
        };
        match self.settings.loss {
            Loss::None => (jitter, false),
            Loss::Retransmit { probability, timeout } => {
                let hit = self.rng.random_bool(probability.clamp(0.0, 1.0));
                let again = if hit { timeout + self.latency.round_trip(from, to) } else { Duration::ZERO };
                (jitter + again, false)
            }
            Loss::Reset { probability } => (jitter, self.rng.random_bool(probability.clamp(0.0, 1.0))),
        }
    }

    /// When the receiver's downlink is done with a piece whose last byte comes now.
    fn come_in(&mut self, now: Time, to: Site, class: Class, bytes: usize, head: Time) -> Time {
        if self.settings.down.is_none() {
            return now;
        }
        let time = self.time_of(self.settings.down, to, bytes);
        let downlink = &mut self.down[to];
        match class {
            Class::Control => {
                let done = now.max(downlink.control_free_at.max(head) + time);
                downlink.control_free_at = done;
                if downlink.bulk_free_at > now {
                    downlink.bulk_free_at = downlink.bulk_free_at + time;
                }
                done
            }
            Class::Bulk => {
                let done = now.max(downlink.bulk_free_at.max(head) + time);
                downlink.bulk_free_at = done;
                done
            }
        }
    }
}
