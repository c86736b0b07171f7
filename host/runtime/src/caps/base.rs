//! The WASI base: what every agent's component may import without a grant, over contexts that hold only what was granted. All of it is implemented
//! for one type, [`Base`], which the data of a store holds; nothing of the host is inherited.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use skep_rules::{grant::Effective, limits::Limits};
use wasmtime::component::{HasData, Linker, ResourceTable};

use super::{
    clocks::{self, Clock},
    environment,
    files::{self, Files},
    output::Log,
    random::{self, Random},
    sockets, streams,
};
use crate::{
    denials::Denials,
    meter::{Meter, Pulse},
    steps::Steps,
};

/// Finds the base in the data of a store.
pub(crate) type Get<T> = fn(&mut T) -> &mut Base;

/// Tells the bindings what the host functions of the base work on.
pub(super) struct HasBase;

impl HasData for HasBase {
    type Data<'a> = &'a mut Base;
}

/// The WASI side of one store. One attempt, then dropped.
pub(crate) struct Base {
    /// Everything that the guest holds handles of, those of other capabilities included; bounded by `limits.handles`.
    pub(crate) table: ResourceTable,
    /// Counts and bounds host calls. Every host function charges it first.
    pub(crate) meter: Meter,
    /// What was refused.
    pub(crate) denials: Denials,
    /// Captured output and log lines.
    pub(crate) log: Log,
    /// Time as the attempt knows it.
    pub(crate) clock: Clock,
    /// The record, which says where the guest's clock stands.
    pub(crate) steps: Steps,
    /// The fuel that was left when it began to be billed.
    pub(crate) billed_from: u64,
    /// The most fuel that may be billed, where the task has a budget.
    pub(crate) budget: Option<u64>,
    pub(super) random: Random,
    pub(super) env: Vec<(String, String)>,
    pub(super) files: Files,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// A directory of the host that an agent was granted cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the directory for `{guest}`")]
pub(crate) struct Error {
    /// Where the agent would see it.
    pub(crate) guest: String,
    /// Why not.
    pub(crate) source: std::io::Error,
}

impl Base {
    /// The base of one attempt: only what `effective` holds. `workspace` is the attempt's own empty directory, needed when bytes of it were
    /// granted. Opens the granted directories; a few microseconds each.
    ///
    /// # Errors
    /// When a granted directory is not there, is no directory or cannot be opened.
    pub(crate) fn new(
        effective: &Effective,
        workspace: Option<&Path>,
        seed: u64,
        pulse: Arc<Pulse>,
        steps: Steps,
    ) -> Result<Self, Error> {
        let Limits {
            fuel,
            handles,
            hostcalls_per_second,
            ..
        } = effective.limits;
        let clock = Clock::start();
        let denials = Denials::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(handles).unwrap_or(usize::MAX));
        let pairs =
            |env: &BTreeMap<String, String>| env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Base {
            table,
            meter: Meter::new(hostcalls_per_second, clock, pulse.clone()),
            log: Log::new(clock, denials.clone()),
            clock,
            // What burns while the record is given was billed when it was made.
            billed_from: if pulse.replays() { 0 } else { fuel.0 },
            budget: None,
            steps,
            random: Random::new(seed),
            env: pairs(&effective.env),
            files: Files::open(effective, workspace, denials.clone())?,
            denials,
        })
    }
}

/// Links the whole base: `wasi:io`, `wasi:cli`, `wasi:clocks`, `wasi:random`, `wasi:filesystem` and `wasi:sockets`, each as far as its own file says.
///
/// # Errors
/// When the linker holds one of the interfaces already.
pub(crate) fn link<T: Send + 'static>(linker: &mut Linker<T>, get: Get<T>) -> wasmtime::Result<()> {
    streams::link(linker, get)?;
    environment::link(linker, get)?;
    clocks::link(linker, get)?;
    random::link(linker, get)?;
    files::link(linker, get)?;
    sockets::link(linker, get)
}
