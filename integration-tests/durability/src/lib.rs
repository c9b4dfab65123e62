//! Whether the ledger keeps what it has reported: real processes that are killed, and disks that fail.
//!
//! A *writer* ([`writer`]) is a child process that appends blocks to two channels without end, as fast as the ledger takes them,
//! and prints each report of the ledger thread. Its parent kills it or spoils its disk, and then looks whether every block that
//! was reported is there, is the right one, and is linked to those before it ([`Expected`]). Every process computes the same
//! blocks ([`load`]), so that they are compared byte by byte.
//!
//! `campaign` does that many times and counts.

mod campaign;
pub mod deadly;
mod death;
mod expected;
pub mod load;
mod measure;
mod process;
pub mod writer;

pub use campaign::{Campaign, Outcome};
pub use death::{Death, Deaths};
pub use expected::Expected;
pub use measure::{Measured, measure};
pub use process::{Line, WriterProcess};
