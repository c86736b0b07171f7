//! `skep:agent/heartbeat`: an agent says how far it is and hears what the host wishes. Needs no grant, refuses nothing. A beat is a few atomics: no
//! message leaves the thread, unless the wish has changed, which is a step.

use skep_rules::capability::Capability;
use wasmtime::component::{HasSelf, Linker};

use super::stepped::Stepped;
use crate::{
    bindings::heartbeat::{self, Directive},
    ctx::Ctx,
};

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    heartbeat::add_to_linker::<Ctx, HasSelf<Ctx>>(linker, |ctx| ctx)?;
    let mut stepped = Stepped::new(linker, "skep:agent/heartbeat@0.1.0", |ctx| &mut ctx.base);
    stepped.plain("beat", |ctx, (percent,)| Ok((heartbeat::Host::beat(ctx, percent)?,)))
}

impl heartbeat::Host for Ctx {
    fn beat(&mut self, percent: Option<u8>) -> wasmtime::Result<Directive> {
        self.cross_or_stop(Capability::Heartbeat, 0)?;
        if let Some(percent) = percent {
            self.control.tell(percent);
        }
        if self.control.halted().is_some() {
            // Not recorded: it ends anyway.
            return Ok(Directive::Cancel);
        }
        Ok(match self.base.steps.beat(self.control.is_draining())? {
            true => Directive::Drain,
            false => Directive::Continue,
        })
    }
}
