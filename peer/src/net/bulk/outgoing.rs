//! What waits to be sent to all peers, and which chunk is next. The parent module says by which rules. Sans-IO.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{CHUNK_BYTES, CREDIT_AHEAD, SLOTS};
use crate::net::{Flow, SendError};

/// Kind, slot, and the two lengths of a start.
const START_HEAD_BYTES: usize = 10;
/// However long the header, the first chunk has this much.
const FIRST_CHUNK_BYTES_MIN: usize = 4 << 10;

/// Bounds of what waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutgoingLimits {
    /// Messages for one peer.
    pub(crate) messages_max: usize,
    /// Bytes for one peer, besides its largest message.
    pub(crate) peer_bytes_max: usize,
    /// Bytes for all peers; a single larger message is taken when nothing else waits.
    pub(crate) bytes_max: usize,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
    /// May be thrown out for one that may not.
    pub(crate) is_droppable: bool,
}

impl Message {
    fn size(&self) -> usize {
        self.header.len().saturating_add(self.body.len())
    }
}

/// What is to be written next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) slot: u8,
    /// Header and length of the body, at the start of a message.
    pub(crate) start: Option<(Bytes, usize)>,
    pub(crate) chunk: Bytes,
    /// Whether this is the end of the message: then [`Outgoing::written`] is to be called.
    pub(crate) ends: bool,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    sent: usize,
    slot: Option<u8>,
}

#[derive(Debug)]
struct Lane {
    flow: Flow,
    waiting: VecDeque<Waiting>,
    /// Bytes this flow may still send before the next has its turn.
    deficit: usize,
}

#[derive(Debug)]
struct Queue {
    /// The first has its turn.
    lanes: VecDeque<Lane>,
    messages: usize,
    bytes: usize,
    credit: usize,
    free_slots: Vec<u8>,
    /// Messages whose last piece is being written.
    ending: VecDeque<Message>,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Outgoing {
    limits: OutgoingLimits,
    queues: BTreeMap<u64, Queue>,
    memory: Memory,
    thrown_out: u64,
}

/// Bytes of all that waits. Bodies are told apart by where they lie: they stay there as long as they wait.
#[derive(Debug, Default)]
struct Memory {
    bodies: BTreeMap<usize, usize>,
    bytes: usize,
}

impl Outgoing {
    pub(crate) fn new(limits: OutgoingLimits) -> Self {
        Self { limits, queues: BTreeMap::new(), memory: Memory::default(), thrown_out: 0 }
    }

    /// A connection that may send this many body bytes.
    pub(crate) fn open(&mut self, connection: u64, credit: usize) {
        // The last is taken first.
        let free_slots = (0..SLOTS).rev().filter_map(|slot| u8::try_from(slot).ok()).collect();
        let (lanes, ending) = (VecDeque::new(), VecDeque::new());
        let queue = Queue { lanes, messages: 0, bytes: 0, credit, free_slots, ending };
        self.queues.insert(connection, queue);
    }

    /// The connection is gone with all that waited for it.
    pub(crate) fn close(&mut self, connection: u64) {
        let Some(queue) = self.queues.remove(&connection) else { return };
        let waiting = queue.lanes.iter().flat_map(|lane| &lane.waiting).map(|waiting| &waiting.message);
        waiting.chain(&queue.ending).for_each(|message| self.memory.remove(message));
    }

    /// Takes a message if it fits, or can be made to fit.
    pub(crate) fn push(&mut self, connection: u64, flow: Flow, message: Message) -> Result<(), SendError> {
        let (size, droppable) = (message.size(), message.is_droppable);
        while !self.queues.get(&connection).ok_or(SendError::NotConnected)?.fits(size, &self.limits) {
            if droppable || !self.throw_out(connection) {
                return Err(SendError::QueueFull);
            }
        }
        while !self.memory.fits(&message, self.limits.bytes_max) {
            if droppable || !self.throw_out_of_longest() {
                return Err(SendError::QueueFull);
            }
        }
        let queue = self.queues.get_mut(&connection).ok_or(SendError::NotConnected)?;
        queue.messages = queue.messages.saturating_add(1);
        queue.bytes = queue.bytes.saturating_add(size);
        self.memory.add(&message);
        let waiting = Waiting { message, sent: 0, slot: None };
        match queue.lanes.iter_mut().find(|lane| lane.flow == flow) {
            Some(lane) => lane.waiting.push_back(waiting),
            None => queue.lanes.push_back(Lane { flow, waiting: [waiting].into(), deficit: CHUNK_BYTES }),
        }
        Ok(())
    }

    /// More body bytes may be sent; `false` if that is more than anybody could want.
    pub(crate) fn add_credit(&mut self, connection: u64, bytes: usize, credit_max: usize) -> bool {
        let Some(queue) = self.queues.get_mut(&connection) else { return true };
        queue.credit = queue.credit.saturating_add(bytes);
        queue.credit <= credit_max
    }

    /// The next piece for a connection; `None` while nothing waits, or all that waits has begun and no credit is left.
    pub(crate) fn next(&mut self, connection: u64) -> Option<Piece> {
        let queue = self.queues.get_mut(&connection)?;
        for _ in 0..queue.lanes.len() {
            if let Some(piece) = queue.next_of_first() {
                return Some(piece);
            }
            queue.lanes.rotate_left(1);
        }
        queue.next_start()
    }

    /// Whether something waits that only credit is missing for.
    pub(crate) fn waits_for_credit(&self, connection: u64) -> bool {
        self.queues.get(&connection).is_some_and(|queue| !queue.lanes.is_empty())
    }

    /// The piece that ended a message has been written.
    pub(crate) fn written(&mut self, connection: u64) {
        if let Some(queue) = self.queues.get_mut(&connection)
            && let Some(message) = queue.ending.pop_front()
        {
            queue.forget(message.size());
            self.memory.remove(&message);
        }
    }

    /// Pushes that were thrown out after they had been taken.
    pub(crate) fn thrown_out(&self) -> u64 {
        self.thrown_out
    }

    /// Bytes that wait, for all peers.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.bytes
    }

    fn throw_out(&mut self, connection: u64) -> bool {
        let Some(queue) = self.queues.get_mut(&connection) else { return false };
        let fullest = queue.lanes.iter_mut().max_by_key(|lane| lane.droppable_bytes());
        let Some(message) = fullest.and_then(Lane::throw_out) else { return false };
        queue.lanes.retain(|lane| !lane.waiting.is_empty());
        queue.forget(message.size());
        self.memory.remove(&message);
        self.thrown_out = self.thrown_out.saturating_add(1);
        true
    }

    fn throw_out_of_longest(&mut self) -> bool {
        let droppable = |queue: &Queue| queue.lanes.iter().map(Lane::droppable_bytes).sum::<usize>();
        let longest = self.queues.iter().max_by_key(|(_, queue)| droppable(queue));
        longest.map(|(connection, _)| *connection).is_some_and(|connection| self.throw_out(connection))
    }
}

impl Memory {
    fn key(message: &Message) -> usize {
        message.body.as_ptr() as usize
    }

    fn added_by(&self, message: &Message) -> usize {
        let body = if self.bodies.contains_key(&Self::key(message)) { 0 } else { message.body.len() };
        body.saturating_add(message.header.len())
    }

    /// A single message over the bound fits when nothing else waits.
    fn fits(&self, message: &Message, bytes_max: usize) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(self.added_by(message)) <= bytes_max
    }

    fn add(&mut self, message: &Message) {
        self.bytes = self.bytes.saturating_add(self.added_by(message));
        let waiting = self.bodies.entry(Self::key(message)).or_default();
        *waiting = waiting.saturating_add(1);
    }

    fn remove(&mut self, message: &Message) {
        let key = Self::key(message);
        let mut freed = message.header.len();
        if let Some(waiting) = self.bodies.get_mut(&key) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.bodies.remove(&key);
                freed = freed.saturating_add(message.body.len());
            }
        }
        self.bytes = self.bytes.saturating_sub(freed);
    }
}

impl Queue {
    fn fits(&self, size: usize, limits: &OutgoingLimits) -> bool {
        let all = self.bytes.saturating_add(size);
        // The largest does not count; looked for only where it decides.
        self.messages < limits.messages_max
            && (all <= limits.peer_bytes_max
                || all.saturating_sub(self.largest().max(size)) <= limits.peer_bytes_max)
    }

    fn largest(&self) -> usize {
        let waiting = self.lanes.iter().flat_map(|lane| &lane.waiting).map(|waiting| &waiting.message);
        waiting.chain(&self.ending).map(Message::size).max().unwrap_or(0)
    }

    fn forget(&mut self, size: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
    }

    /// A piece of the flow whose turn it is, if credit and slots allow.
    fn next_of_first(&mut self) -> Option<Piece> {
        let lane = self.lanes.front_mut()?;
        let waiting = lane.waiting.front_mut()?;
        let body = &waiting.message.body;
        let left = body.len().saturating_sub(waiting.sent);
        let head = match waiting.slot {
            Some(_) => 0,
            None => waiting.message.header.len().saturating_add(START_HEAD_BYTES),
        };
        let whole = left.min(CHUNK_BYTES.saturating_sub(head).max(FIRST_CHUNK_BYTES_MIN));
        // A rest of credit is not worth a frame of its own.
        if whole > self.credit {
            return None;
        }
        let (slot, start) = match waiting.slot {
            Some(slot) => (slot, None),
            None => (self.free_slots.pop()?, Some((waiting.message.header.clone(), body.len()))),
        };
        waiting.slot = Some(slot);
        let end = waiting.sent.saturating_add(whole);
        let chunk = body.slice(waiting.sent..end);
        waiting.sent = end;
        self.credit = self.credit.saturating_sub(whole);
        let ends = whole == left;
        if ends {
            self.free_slots.push(slot);
            self.ending.extend(lane.waiting.pop_front().map(|waiting| waiting.message));
        }
        lane.deficit = lane.deficit.saturating_sub(whole.max(1));
        self.end_turn();
        Some(Piece { slot, start, chunk, ends })
    }

    /// The beginning of a message for which there is no credit yet: it tells the receiver what to give credit for, so that a long way does
    /// not cost a round trip for each message.
    fn next_start(&mut self) -> Option<Piece> {
        let begun = self.lanes.iter().flat_map(|lane| &lane.waiting).filter(|waiting| waiting.slot.is_some());
        let begun: usize = begun.map(|waiting| waiting.message.body.len().saturating_sub(waiting.sent)).sum();
        if begun >= CREDIT_AHEAD {
            return None;
        }
        let all = self.lanes.iter_mut().flat_map(|lane| &mut lane.waiting);
        let waiting = { all }.find(|waiting| waiting.slot.is_none())?;
        let slot = self.free_slots.pop()?;
        waiting.slot = Some(slot);
        let start = Some((waiting.message.header.clone(), waiting.message.body.len()));
        Some(Piece { slot, start, chunk: Bytes::new(), ends: false })
    }

    /// Passes the turn on when the first flow is empty, or its next piece is more than it may still send.
    fn end_turn(&mut self) {
        let Some(lane) = self.lanes.front_mut() else { return };
        let Some(next) = lane.waiting.front() else {
            self.lanes.pop_front();
            return;
        };
        let next = next.message.body.len().saturating_sub(next.sent).min(CHUNK_BYTES);
        if next > lane.deficit {
            // At most one chunk is saved up: the quantum is a whole one.
            lane.deficit = lane.deficit.saturating_add(CHUNK_BYTES).min(2 * CHUNK_BYTES);
            self.lanes.rotate_left(1);
        }
    }
}

impl Lane {
    fn droppable_bytes(&self) -> usize {
        let droppable = |waiting: &&Waiting| waiting.message.is_droppable && waiting.slot.is_none();
        self.waiting.iter().filter(droppable).map(|waiting| waiting.message.size()).sum()
    }

    /// Throws out the newest push that has not begun.
    fn throw_out(&mut self) -> Option<Message> {
        let unsent = |waiting: &Waiting| waiting.message.is_droppable && waiting.slot.is_none();
        let newest = self.waiting.iter().rposition(unsent)?;
        self.waiting.remove(newest).map(|waiting| waiting.message)
    }
}
