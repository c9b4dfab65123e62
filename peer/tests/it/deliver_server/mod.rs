//! The peer's deliver server: what is in a block, who gets it, in which order, and within which bounds.

mod access;
mod bounds;
mod content;
pub(crate) mod fixture;
mod process;
mod statuses;
