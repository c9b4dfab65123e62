//! Blocks on the wire: bulk messages cut into chunks, several on their way at a time, paid for with the receiver's credits.
//!
//! # Promise
//! A large message delays nothing but itself. Control frames have a stream of their own; between the *flows* of a
//! connection (the channels) chunks take turns, so that a small message of a quiet channel waits for one chunk of each
//! busy one and not for a whole body. A body is in memory once: it is sent in slices of the block itself, and received into one
//! buffer that grows with what has come. What waits to be sent and what has come and is not taken yet are bounded in bytes, for each peer and
//! for the process, over all channels.
//!
//! # Messages
//! On the bulk stream, integers big-endian ([`frames`](super::frames) has those of control):
//! - *start*: `1 ‖ slot u8 ‖ header length u32 ‖ header ‖ body length u32`. The slot is the sender's number, below
//!   [`SLOTS`], for the message until its body is complete.
//! - *chunk*: `2 ‖ slot u8 ‖ length u32 ‖ bytes`, at most [`CHUNK_BYTES`].
//! - *credit*, on the control stream against the direction of the bodies: how many more body bytes may come.
//!
//! # Sending ([`outgoing`])
//! Deficit round robin between flows, in order inside a flow; the quantum is one chunk. A message waits whole in its queue; its bytes count
//! until the last is written. When credit is missing, the beginnings of up to `CREDIT_AHEAD` bytes of what waits are sent ahead, so that a long way costs no round trip for each message. For one peer at most `bulk_queue_bytes_max` wait besides the largest message, for all peers at most `send_budget_bytes` (a body that
//! waits for several peers is in memory once and counts once). For what does not fit, a reply makes place by throwing out
//! pushes that have not begun, the newest first: their receivers hear of the block from others and ask for it. What still does not fit, and every push that
//! does not fit, is refused to the caller. All are counted.
//!
//! # Receiving ([`incoming`], [`budget`])
//! A peer may always be [`CREDIT_STANDING`] body bytes ahead of what is accounted for. Every wanted body is accounted for by `receive_budget_bytes`, at most
//! [`CREDIT_AHEAD`] beyond what has come of it, and counts until the owner has taken it; what is accounted for is paid back as credit. When the budget is used up and no complete body
//! waits for the owner, the connection of the body that began first is served beyond it, so that there is always one that comes to its end. Memory of bodies is therefore
//! at most the budget, what one connection may have open, and the standing credits. Unwanted bodies are read past and paid back at once.
//!
//! # Attacks
//! A chunk without credit, of no message, or beyond its body; a start in a slot that is taken; a length over its bound; more than [`OPEN_BYTES_MAX`] begun besides
//! the largest: the connection ends. Whoever announces much and sends nothing holds at most `CREDIT_AHEAD` of the budget for each body, until `progress_timeout` ends
//! the connection. So do credits beyond [`CREDIT_MAX`].
//!
//! # For a model of this transport
//! One queue for each connection with chunks of [`CHUNK_BYTES`], turns between channels, control ahead of all; refusals and thrown-out pushes at the bounds
//! of `NetConfig`. [`outgoing::Outgoing`] is sans-IO and says exactly which chunk is next. Credits need a model only where receivers are slower
//! than links: then a sender stops `CREDIT_STANDING` + `CREDIT_AHEAD` bytes ahead.

pub(crate) mod budget;
pub(crate) mod incoming;
pub(crate) mod outgoing;

/// Most body bytes of a chunk: with its head it fills one frame of yamux and one message of Noise.
pub(crate) const CHUNK_BYTES: usize = super::multiplex::FRAME_BODY_BYTES - CHUNK_HEAD_BYTES;
/// Kind, slot and length.
pub(crate) const CHUNK_HEAD_BYTES: usize = 6;
/// Messages of one connection that may be under way in one direction at a time.
pub(crate) const SLOTS: usize = 64;
/// Body bytes that a peer may always send ahead of what is accounted for.
pub(crate) const CREDIT_STANDING: usize = 1 << 20;
/// Most bytes of a body that are accounted for before they come.
pub(crate) const CREDIT_AHEAD: usize = 8 << 20;
/// A sender never has more credit than this.
pub(crate) const CREDIT_MAX: usize = 1 << 30;
/// Most bytes of the messages of one connection that have begun, besides the largest.
pub(crate) const OPEN_BYTES_MAX: usize = 64 << 20;
/// A body is accounted for in steps of at least this size, so that not every chunk costs a frame.
pub(crate) const CREDIT_STEP: usize = 256 << 10;

/// Kinds of frames on the bulk stream.
pub(crate) mod kind {
    pub(crate) const START: u8 = 1;
    pub(crate) const CHUNK: u8 = 2;
}
