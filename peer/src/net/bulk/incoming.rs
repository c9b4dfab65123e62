//! Bulk messages of one peer, put together from their chunks. The parent module says by which rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::AsyncRead;
use tokio::sync::Notify;

use super::budget::{Budget, Granted, Held};
use super::{CHUNK_BYTES, CREDIT_AHEAD, CREDIT_STANDING, CREDIT_STEP, OPEN_BYTES_MAX, SLOTS, kind};
use crate::net::frames::{self, FrameError, FrameLimits};

/// The first memory of a large body.
const FIRST_BYTES: usize = 256 << 10;

/// What one peer may still send, and what it is yet to be told of that.
#[derive(Debug)]
pub(crate) struct Purse {
    state: Mutex<Credits>,
    /// Wakes the writer of control frames.
    due: Notify,
}

#[derive(Debug)]
struct Credits {
    /// Told, and not used.
    outstanding: usize,
    /// Not told yet.
    due: usize,
    /// Of the bodies that have begun.
    expected: usize,
}

impl Credits {
    /// Small credits wait for each other while the peer has enough.
    fn is_due(&self) -> bool {
        self.due > 0 && (self.outstanding < CREDIT_STANDING / 2 || self.outstanding < self.expected)
    }
}

impl Purse {
    pub(crate) fn new() -> Self {
        let state = Mutex::new(Credits { outstanding: CREDIT_STANDING, due: 0, expected: 0 });
        Self { state, due: Notify::new() }
    }

    /// Waits until the peer has to be told of credit.
    pub(crate) async fn is_due(&self) {
        while !self.lock().is_due() {
            self.due.notified().await;
        }
    }

    /// Credit to tell of: all there is, if it is due.
    pub(crate) fn take_due(&self) -> Option<u32> {
        let mut credits = self.lock();
        if !credits.is_due() {
            return None;
        }
        let told = u32::try_from(credits.due).unwrap_or(u32::MAX).min(frames::CREDIT_FRAME_MAX);
        let bytes = usize::try_from(told).unwrap_or(usize::MAX);
        credits.due = credits.due.saturating_sub(bytes);
        credits.outstanding = credits.outstanding.saturating_add(bytes);
        Some(told)
    }

    fn change(&self, change: impl FnOnce(&mut Credits)) {
        let is_due = {
            let mut credits = self.lock();
            change(&mut credits);
            credits.is_due()
        };
        if is_due {
            self.due.notify_one();
        }
    }

    fn begins(&self, length: usize) {
        self.change(|credits| credits.expected = credits.expected.saturating_add(length));
    }

    /// Bytes of a body have come, as many as there was credit for.
    fn comes(&self, bytes: usize) -> Result<(), FrameError> {
        let mut is_paid = true;
        self.change(|credits| {
            is_paid = bytes <= credits.outstanding;
            credits.outstanding = credits.outstanding.saturating_sub(bytes);
            credits.expected = credits.expected.saturating_sub(bytes);
        });
        if is_paid { Ok(()) } else { Err(FrameError::Protocol("more bytes than it had credit for")) }
    }

    fn may_send(&self) -> bool {
        self.lock().outstanding > 0
    }

    fn lock(&self) -> MutexGuard<'_, Credits> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Granted for Purse {
    fn granted(&self, bytes: usize) {
        self.change(|credits| credits.due = credits.due.saturating_add(bytes));
    }
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) length: usize,
    pub(crate) arrived: usize,
}

/// A whole message.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// Header and body, the body within the owner's limit.
    Wanted { header: Bytes, body: Bytes, held: Held },
    /// The body was read past.
    Refused { header: Bytes, length: usize },
}

#[derive(Debug)]
struct Body {
    header: Bytes,
    length: usize,
    arrived: usize,
    /// Of a wanted body: what has come, what accounts for it, and how much is accounted for.
    kept: Option<(Vec<u8>, Held, usize)>,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Incoming {
    connection: u64,
    limits: FrameLimits,
    budget: Budget,
    purse: Arc<Purse>,
    open: BTreeMap<u8, Body>,
}

impl Incoming {
    pub(crate) fn new(connection: u64, limits: FrameLimits, budget: Budget, purse: Arc<Purse>) -> Self {
        Self { connection, limits, budget, purse, open: BTreeMap::new() }
    }

    /// Reads until a message is whole. `body_limit` is asked with the header before anything is kept of the body; `news` hears how
    /// a wanted body comes in.
    pub(crate) async fn next<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        body_limit: impl Fn(&[u8]) -> Option<usize>,
        mut news: impl FnMut(&Bytes, Arrival),
    ) -> Result<Arrived, FrameError> {
        loop {
            let [kind, slot] = self.read_kind(stream).await?;
            match kind {
                kind::START => self.read_start(stream, slot, &body_limit, &mut news).await?,
                kind::CHUNK => self.read_chunk(stream, slot, &mut news).await?,
                _ => return Err(FrameError::Protocol("an unknown kind of bulk frame")),
            }
            if self.open.get(&slot).is_some_and(|body| body.arrived >= body.length)
                && let Some(Body { header, length, kept, .. }) = self.open.remove(&slot)
            {
                return Ok(match kept {
                    Some((body, held, _)) => {
                        held.complete();
                        Arrived::Wanted { header, body: Bytes::from(body), held }
                    }
                    None => Arrived::Refused { header, length },
                });
            }
        }
    }

    /// Without limit while nothing is under way, or nothing may be sent.
    async fn read_kind<S: AsyncRead + Unpin>(&self, stream: &mut S) -> Result<[u8; 2], FrameError> {
        if !self.open.is_empty() && self.purse.may_send() {
            return frames::read_array(stream, self.limits.progress_timeout).await;
        }
        frames::read_array_unlimited(stream).await
    }

    async fn read_start<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        slot: u8,
        body_limit: impl Fn(&[u8]) -> Option<usize>,
        mut news: impl FnMut(&Bytes, Arrival),
    ) -> Result<(), FrameError> {
        if usize::from(slot) >= SLOTS || self.open.contains_key(&slot) {
            return Err(FrameError::Protocol("a message begins in a slot that is not free"));
        }
        let progress = self.limits.progress_timeout;
        let header_length = frames::read_length(stream, self.limits.header_bytes_max, progress).await?;
        let header = frames::read_part(stream, header_length, progress).await?;
        let length = frames::read_length(stream, self.limits.body_bytes_max, progress).await?;
        let lengths = || self.open.values().map(|body| body.length).chain([length]);
        let besides_largest = lengths().sum::<usize>().saturating_sub(lengths().max().unwrap_or(0));
        if besides_largest > OPEN_BYTES_MAX {
            return Err(FrameError::Protocol("too much has begun at a time"));
        }
        let wanted = body_limit(&header).is_some_and(|limit| length <= limit);
        self.purse.begins(length);
        let kept = wanted.then(|| {
            let held = self.budget.begin(self.connection, self.purse.clone());
            let asked = length.min(CREDIT_AHEAD);
            held.want(asked);
            (Vec::new(), held, asked)
        });
        if wanted {
            news(&header, Arrival { length, arrived: 0 });
        }
        self.open.insert(slot, Body { header, length, arrived: 0, kept });
        Ok(())
    }

    async fn read_chunk<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        slot: u8,
        mut news: impl FnMut(&Bytes, Arrival),
    ) -> Result<(), FrameError> {
        let progress = self.limits.progress_timeout;
        let count = frames::read_length(stream, CHUNK_BYTES, progress).await?;
        let Some(body) = self.open.get_mut(&slot) else {
            return Err(FrameError::Protocol("a chunk of no message"));
        };
        if count == 0 || count > body.length.saturating_sub(body.arrived) {
            return Err(FrameError::Protocol("a chunk that is empty or longer than the rest of its body"));
        }
        self.purse.comes(count)?;
        let Some((part, held, asked)) = &mut body.kept else {
            frames::read_past(stream, count, progress).await?;
            body.arrived = body.arrived.saturating_add(count);
            self.purse.granted(count);
            return Ok(());
        };
        make_room(part, count, body.length);
        let filled = part.len();
        part.resize(filled.saturating_add(count), 0);
        frames::fill(stream, part.get_mut(filled..).unwrap_or_default(), progress).await?;
        body.arrived = part.len();
        let ahead = asked.saturating_sub(body.arrived);
        if *asked < body.length && ahead <= CREDIT_AHEAD.saturating_sub(CREDIT_STEP) {
            let more = body.length.saturating_sub(*asked).min(CREDIT_AHEAD.saturating_sub(ahead));
            *asked = asked.saturating_add(more);
            held.want(more);
        }
        news(&body.header, Arrival { length: body.length, arrived: body.arrived });
        Ok(())
    }
}

/// Memory grows with what has come, fourfold, and is never more than the body takes.
fn make_room(part: &mut Vec<u8>, count: usize, length: usize) {
    let needed = part.len().saturating_add(count);
    if needed > part.capacity() {
        let generous = part.len().saturating_mul(4).max(FIRST_BYTES).max(needed).min(length);
        part.reserve_exact(generous.saturating_sub(part.len()));
    }
}
