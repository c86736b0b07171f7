//! `skep:agent/context`: an agent learns its own name, crew and task. Needs no grant, refuses nothing, tells of nobody else.

use skep_rules::capability::Capability;
use wasmtime::component::{HasSelf, Linker};

use crate::{bindings::context, ctx::Ctx};

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    context::add_to_linker::<Ctx, HasSelf<Ctx>>(linker, |ctx| ctx)
}

impl context::Host for Ctx {
    fn current(&mut self) -> wasmtime::Result<context::Identity> {
        self.cross_or_stop(Capability::Context, 0)?;
        Ok(context::Identity {
            agent: self.identity.agent.to_string(),
            name: self.identity.name.to_string(),
            crew: self.identity.crew.to_string(),
            task: self.control.lease().task.to_string(),
            attempt: self.attempt,
        })
    }
}
