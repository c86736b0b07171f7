//! `skep:agent/log`: gives every agent structured log lines, kept with its captured output in one bounded ring. Needs no grant. Nothing is refused;
//! what is over the rate or the bounds is dropped and counted.

use skep_rules::capability::Capability;
use wasmtime::component::{HasSelf, Linker};

use crate::{bindings::log, ctx::Ctx};

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    log::add_to_linker::<Ctx, HasSelf<Ctx>>(linker, |ctx| ctx)
}

impl log::Host for Ctx {
    fn write(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let size = fields
            .iter()
            .fold(message.len(), |sum, (name, value)| sum + name.len() + value.len());
        self.cross_or_stop(Capability::Log, size)?;
        self.base.log.line(name(level), &message, &fields);
        Ok(())
    }
}

fn name(level: log::Level) -> &'static str {
    match level {
        log::Level::Trace => "trace",
        log::Level::Debug => "debug",
        log::Level::Info => "info",
        log::Level::Warn => "warn",
        log::Level::Error => "error",
    }
}
