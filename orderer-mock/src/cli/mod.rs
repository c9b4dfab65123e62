//! The commands beyond `run` and `submit`.

pub(crate) mod client;
pub(crate) mod fault;
pub(crate) mod update;
