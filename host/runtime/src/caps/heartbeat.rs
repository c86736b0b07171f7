//! `skep:agent/heartbeat`: an agent says how far it is and hears what the host wishes. Needs no grant, refuses nothing. A beat is two atomics: no
//! message leaves the thread.

use skep_rules::capability::Capability;
use wasmtime::component::{HasSelf, Linker};

use crate::{
    bindings::heartbeat::{self, Directive},
    ctx::Ctx,
};

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    heartbeat::add_to_linker::<Ctx, HasSelf<Ctx>>(linker, |ctx| ctx)
}

impl heartbeat::Host for Ctx {
    fn beat(&mut self, percent: Option<u8>) -> wasmtime::Result<Directive> {
        self.cross_or_stop(Capability::Heartbeat, 0)?;
        if let Some(percent) = percent {
            self.control.tell(percent);
        }
        Ok(if self.control.halted().is_some() {
            Directive::Cancel
        } else if self.control.is_draining() {
            Directive::Drain
        } else {
            Directive::Continue
        })
    }
}
