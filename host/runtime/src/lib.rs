//! Executes agents as sandboxed WebAssembly components, under limits and grants that somebody else decided.
//!
//! A [`Runner`] takes [`RunnerCommand`](skep_rules::seam::RunnerCommand)s and tells [`RunnerEvent`]s; what it cannot answer itself (artifacts, the
//! bytes of a component) it asks of its [`Host`]. Each attempt has a store of its own, made for it and dropped after it. This crate knows no HTTP,
//! no task tree and no database, holds no keys and needs no network.
//!
//! ```
//! let refused = skep_runtime::plugin::read(b"(component)").unwrap_err();
//! assert_eq!(refused.reason, skep_rules::reason::Reason::NotAComponent);
//! ```

use std::{path::PathBuf, pin::Pin};

use skep_rules::{
    id::Digest,
    quantity::Size,
    reason::Reason,
    seam::{HostCall, HostReply, Lease, RunnerEvent, StepReply},
    step::{Recorded, StepCall},
};

mod bindings;
mod caps;
mod compile;
mod control;
mod convert;
mod ctx;
mod denials;
mod engine;
mod escape;
mod instance;
mod limiter;
mod meter;
mod outcome;
pub mod plugin;
mod runner;
mod sandbox;
mod seats;
pub mod signature;
mod steps;
#[cfg(test)]
mod trial;
mod turns;
mod watchdog;
mod workspace;

pub use compile::{Compiler, Confinement, Job as CompilerJob, child as compiler_process};
pub use control::Control;
pub use engine::mappings_needed;
pub use instance::{Attempt, Ended, Prepared, Ran};
pub use runner::Runner;
pub use sandbox::Sandbox;

/// The version of wasmtime that is compiled in.
pub const WASMTIME: &str = wasmtime_environ::VERSION;

/// Does not compile unless the crate that tells the version is the one that wasmtime itself is built of.
const _: fn(wasmtime_environ::OperatorCost) -> wasmtime::OperatorCost = |cost| cost;

/// How a [`Runner`] is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// What turns components into code.
    pub compiler: Compiler,
    /// Where compiled code is kept. Created if absent; not shared with another running host.
    pub cache_dir: PathBuf,
    /// Authenticates the files of the cache: code that was not written under this key is compiled anew, never loaded.
    pub cache_key: [u8; 32],
    /// The directory that holds the attempts' `/workspace` directories. Created if absent; what is in it is removed at start, so it must not be
    /// shared.
    pub workspaces: PathBuf,
    /// Attempts live at once, at most. Lowered, with a log line, where the kernel's `vm.max_map_count` or the address space does not hold so many.
    pub slots: u32,
    /// Linear memory of all attempts together, beyond the first 2 MiB of each; `None` is three quarters of the machine's memory.
    pub memory: Option<Size>,
    /// Threads that run guests: as many guests compute at the same moment.
    pub guest_threads: usize,
}

/// The side that decides, as a runner sees it.
pub trait Host: Send + Sync + 'static {
    /// Takes an event. Called on the threads that run guests, so it must not block.
    fn event(&self, event: RunnerEvent);

    /// The bytes of an installed component. May block: it is called on a thread that is made for it.
    ///
    /// # Errors
    /// When it is not there or cannot be read; the text is shown to people.
    fn component(&self, digest: Digest) -> std::io::Result<Vec<u8>>;

    /// Takes the next step of an attempt: its answer is decided and on record when this returns, or comes later. Called on the threads that run
    /// guests; takes as long as a decision, some microseconds.
    fn step(&self, lease: Lease, number: u64, call: StepCall) -> StepReply;

    /// The next steps on the record of the task that a lease holds, from a number on: at least one where there is one, and no more than a page.
    /// Called on the threads that run guests, while an attempt is given its record.
    ///
    /// # Errors
    /// [`Reason::Fenced`] when the lease does not hold the task; another reason when the record cannot be read.
    fn record(&self, lease: Lease, from: u64) -> Result<Vec<Recorded>, Reason>;

    /// Answers what a runner cannot. The guest waits for it; dropping the future abandons the call.
    fn call(&self, call: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>>;
}

/// Why a runner could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refused its configuration, or the machine has not the memory mappings or address space for even one slot.
    #[error("the WebAssembly engine cannot be set up: {message}")]
    Engine {
        /// What it said.
        message: String,
    },
    /// A directory of the options cannot be made, emptied or written.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The threads for guests cannot be started.
    #[error("cannot start the threads that run guests")]
    Threads(#[source] std::io::Error),
}
