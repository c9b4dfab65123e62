//! The bulk that waits to leave a site.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use grapevine_channels::time::Time;

use super::{CHUNK_BYTES, Sharing};
use crate::truth::Site;

/// A bulk message on its way out.
#[derive(Debug)]
struct Transfer<P> {
    bytes_left: usize,
    /// What the receiver sees while the rest is on its way.
    head: Option<P>,
    /// `None`: called back after its first byte had left; the rest still takes its time.
    payload: Option<P>,
}

/// What the uplink works on: a piece of one transfer, the whole or a chunk.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) to: Site,
    pub(super) bytes: usize,
    pub(super) began: Time,
    pub(super) ends: Time,
    /// Time that control frames have taken since.
    pub(super) stolen: Duration,
}

#[derive(Debug)]
pub(super) struct Uplink<P> {
    /// Transfers by receiver, each list in order.
    waiting: BTreeMap<Site, VecDeque<Transfer<P>>>,
    /// Whose turn it is next: under Fifo one entry a transfer, under Fair one a receiver.
    turns: VecDeque<Site>,
    bytes_waiting: BTreeMap<Site, usize>,
    pub(super) serving: Option<Service>,
    pub(super) control_free_at: Time,
}

impl<P> Default for Uplink<P> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            bytes_waiting: BTreeMap::new(),
            serving: None,
            control_free_at: Time::ZERO,
        }
    }
}

impl<P: Clone> Uplink<P> {
    pub(super) fn push(&mut self, sharing: Sharing, to: Site, bytes: usize, head: Option<P>, payload: P) {
        let transfers = self.waiting.entry(to).or_default();
        if sharing == Sharing::Fifo || transfers.is_empty() {
            self.turns.push_back(to);
        }
        transfers.push_back(Transfer { bytes_left: bytes, head, payload: Some(payload) });
        *self.bytes_waiting.entry(to).or_default() += bytes;
    }

    /// Receiver and bytes of the next piece.
    pub(super) fn next_piece(&self, sharing: Sharing) -> Option<(Site, usize)> {
        let to = *self.turns.front()?;
        let left = self.waiting.get(&to)?.front()?.bytes_left;
        Some((to, if sharing == Sharing::Fifo { left } else { left.min(CHUNK_BYTES) }))
    }

    /// What the receiver sees of the transfer that is next.
    pub(super) fn head(&self, to: Site) -> Option<P> {
        self.waiting.get(&to)?.front()?.head.clone()
    }

    /// A piece has left; gives the message if it was its last and it was not called back.
    pub(super) fn piece_left(&mut self, sharing: Sharing, to: Site, bytes: usize) -> Option<P> {
        let transfers = self.waiting.get_mut(&to)?;
        if let Some(waiting) = self.bytes_waiting.get_mut(&to) {
            *waiting = waiting.saturating_sub(bytes);
        }
        let first = transfers.front_mut()?;
        first.bytes_left = first.bytes_left.saturating_sub(bytes);
        let done = first.bytes_left == 0;
        let payload = if done { transfers.pop_front().and_then(|transfer| transfer.payload) } else { None };
        let more = !transfers.is_empty();
        self.turns.pop_front();
        if sharing == Sharing::Fair && more {
            self.turns.push_back(to);
        }
        if !more {
            self.waiting.remove(&to);
            self.bytes_waiting.remove(&to);
        }
        payload
    }

    pub(super) fn bytes_waiting(&self, to: Site) -> usize {
        self.bytes_waiting.get(&to).copied().unwrap_or(0)
    }

    /// Takes back what fits: what has begun to leave only if `begun`, and then the rest of it leaves for nothing.
    pub(super) fn call_back(
        &mut self,
        sharing: Sharing,
        to: Site,
        begun: bool,
        fits: impl Fn(&P) -> bool,
    ) -> Vec<P> {
        let Some(transfers) = self.waiting.get_mut(&to) else { return Vec::new() };
        let serving = self.serving.as_ref().is_some_and(|service| service.to == to);
        let mut taken = Vec::new();
        let mut kept = VecDeque::new();
        for (place, mut transfer) in std::mem::take(transfers).into_iter().enumerate() {
            let has_begun = place == 0 && serving;
            if !transfer.payload.as_ref().is_some_and(&fits) || (has_begun && !begun) {
                kept.push_back(transfer);
            } else if has_begun {
                taken.extend(transfer.payload.take());
                kept.push_back(transfer);
            } else {
                if let Some(waiting) = self.bytes_waiting.get_mut(&to) {
                    *waiting = waiting.saturating_sub(transfer.bytes_left);
                }
                taken.extend(transfer.payload);
                if sharing == Sharing::Fifo
                    && let Some(turn) = self.turns.iter().rposition(|turn| *turn == to)
                {
                    self.turns.remove(turn);
                }
            }
        }
        if kept.is_empty() {
            self.waiting.remove(&to);
            self.bytes_waiting.remove(&to);
            self.turns.retain(|turn| *turn != to);
        } else {
            *transfers = kept;
        }
        taken
    }

    /// Forgets all that waits but what is being served, which leaves for nothing.
    pub(super) fn clear(&mut self, sharing: Sharing) {
        let receivers: Vec<Site> = self.waiting.keys().copied().collect();
        for to in receivers {
            self.call_back(sharing, to, true, |_| true);
        }
    }
}
