//! What guests can call: one file per capability, all of one shape.

pub(crate) mod base;
pub(crate) mod clocks;
mod environment;
mod files;
pub(crate) mod output;
mod quota;
mod random;
mod sockets;
mod streams;
