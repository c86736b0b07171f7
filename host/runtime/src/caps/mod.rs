//! What guests can call: one file per capability, all of one shape. This is the one list of what is linked.

use skep_rules::capability::{Capability, GrantWord};
use wasmtime::component::Linker;

use crate::ctx::Ctx;

pub(crate) mod artifacts;
pub(crate) mod base;
pub(crate) mod clocks;
mod context;
pub(crate) mod environment;
mod files;
mod heartbeat;
mod log;
pub(crate) mod messages;
pub(crate) mod output;
mod quota;
mod random;
mod sockets;
mod state;
mod stepped;
mod streams;
mod tasks;

/// Links the WASI base, which everybody gets, and the capabilities that were granted. What is not linked cannot be instantiated.
///
/// # Errors
/// When two of them define the same interface.
pub(crate) fn link(linker: &mut Linker<Ctx>, word: GrantWord) -> wasmtime::Result<()> {
    base::link(linker, |ctx| &mut ctx.base)?;
    for capability in Capability::ALL.iter().filter(|capability| word.holds(**capability)) {
        match capability {
            Capability::Log => log::link(linker)?,
            Capability::Heartbeat => heartbeat::link(linker)?,
            Capability::Context => context::link(linker)?,
            Capability::Artifacts => artifacts::link(linker)?,
            Capability::State => state::link(linker)?,
            Capability::Tasks => tasks::link(linker)?,
            Capability::Messages => messages::link(linker)?,
        }
    }
    Ok(())
}
