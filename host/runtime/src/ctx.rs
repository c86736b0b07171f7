//! The data of one store: everything that host functions work on while an attempt runs, and nothing that outlives it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use skep_rules::{
    capability::{Capability, GrantWord},
    reason::Reason,
    seam::Identity,
    step::StepCall,
};

use crate::{
    Host,
    caps::{artifacts, base::Base},
    control::Control,
    limiter::Limiter,
    meter::Stop,
    steps::Answer,
};

/// The capabilities that an agent holds at this moment; taking one back acts at the agent's next call.
#[derive(Debug)]
pub(crate) struct Grants(AtomicU64);

impl Grants {
    pub(crate) fn new(word: GrantWord) -> Self {
        Grants(AtomicU64::new(word.0))
    }

    pub(crate) fn word(&self) -> GrantWord {
        GrantWord(self.0.load(Ordering::Relaxed))
    }

    /// Takes everything back that needs a grant: the agent has been forgotten.
    pub(crate) fn revoke(&self) {
        self.0.store(GrantWord::free().0, Ordering::Relaxed);
    }
}

/// The data of one store.
pub(crate) struct Ctx {
    /// The WASI side, with the table of handles, the meter, the log and the denials.
    pub(crate) base: Base,
    pub(crate) limiter: Limiter,
    pub(crate) control: Arc<Control>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) identity: Arc<Identity>,
    /// 1 for the first attempt of the task.
    pub(crate) attempt: u32,
    pub(crate) artifacts: artifacts::Ctx,
    pub(crate) host: Arc<dyn Host>,
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx")
            .field("lease", &self.control.lease())
            .finish_non_exhaustive()
    }
}

impl Ctx {
    /// Counts a call that moves `bytes` and says whether the agent still holds the capability: the second wall, behind the linker.
    ///
    /// # Errors
    /// [`Stop`] when calls come too fast.
    pub(crate) fn cross(&mut self, capability: Capability, bytes: usize) -> wasmtime::Result<bool> {
        self.base.meter.charge(bytes as u64)?;
        Ok(self.grants.word().holds(capability))
    }

    /// As [`Ctx::cross`], for calls that need a record. A refusal is noted as a denial of `what`.
    ///
    /// # Errors
    /// As [`Ctx::cross`].
    pub(crate) fn step(&mut self, capability: Capability, bytes: usize, what: &str) -> wasmtime::Result<bool> {
        let may = self.cross(capability, bytes)? && self.base.steps.are_kept();
        if !may {
            self.base.denials.note(Reason::CapabilityDenied, what);
        }
        Ok(may)
    }

    /// Takes a step that may be answered later. Whoever holds the task then is the agent from there on: another one that is made alike may go on with
    /// the instance, but not with the grants of the one before.
    ///
    /// # Errors
    /// As [`Steps::wait`](crate::steps::Steps::wait).
    pub(crate) async fn wait(&mut self, call: StepCall) -> wasmtime::Result<Answer> {
        let steps = self.base.steps.clone();
        let answer = steps.wait(call).await;
        if let Some(holder) = self.control.new_holder() {
            (self.grants, self.identity) = (holder.grants.clone(), holder.identity.clone());
        }
        answer
    }

    /// As [`Ctx::cross`], for calls that cannot tell the guest of a refusal.
    ///
    /// # Errors
    /// [`Stop`] when calls come too fast or the grant was taken back.
    pub(crate) fn cross_or_stop(&mut self, capability: Capability, bytes: usize) -> wasmtime::Result<()> {
        if self.cross(capability, bytes)? {
            return Ok(());
        }
        let message = format!("the grant for `{}` was taken back", capability.interface());
        Err(Stop::new(Reason::CapabilityDenied, message).into())
    }
}
