//! How an attempt ended: every way in which a call into a guest can end becomes exactly one [`End`]. The guest's fault, a bound, the host's lack of
//! room and the host's own fault are kept apart, because somebody else must act on each.

use skep_rules::{
    limits::{Limits, MAX_TEXT_BYTES},
    plan::Outcome,
    reason::Reason,
    seam::End,
};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

use crate::{
    control::Halt,
    convert,
    escape::escape,
    limiter::Overload,
    meter::Stop,
    steps::{Continued, Diverged, Unrecorded},
};

/// What came back from the guest's thread.
#[derive(Debug)]
pub(crate) enum Return {
    /// The export returned, or the call failed.
    Called(wasmtime::Result<Outcome>),
    /// The wall deadline passed first.
    Deadline,
    /// Somebody ended it first.
    Halted(Halt),
    /// A host function panicked.
    Panicked(String),
}

/// A fault of our own while an attempt was set up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fault(pub(crate) String);

/// The end of an attempt. `memory_refused`: its limiter has refused it memory.
pub(crate) fn end(returned: Return, limits: &Limits, memory_refused: bool) -> End {
    match returned {
        Return::Called(Ok(outcome)) => End::Finished(outcome),
        Return::Called(Err(error)) => failed(&error, limits, memory_refused),
        Return::Deadline => stopped(
            Reason::DeadlineExceeded,
            format!("still running at its deadline of {}", limits.deadline),
        ),
        Return::Halted(Halt::Cancelled) => End::Cancelled,
        Return::Halted(Halt::Fenced) => End::Fenced,
        Return::Halted(Halt::Stopping) => End::Overload {
            message: "the host stops".into(),
        },
        Return::Panicked(message) => End::HostFault {
            message: format!("a host function panicked: {message}"),
        },
    }
}

/// The end of an attempt that did something else than its record says.
pub(crate) fn diverged(Diverged { step, expected, got }: Diverged) -> End {
    End::Diverged { step, expected, got }
}

fn stopped(reason: Reason, message: impl Into<String>) -> End {
    End::Stopped {
        reason,
        message: escape(message.into().as_bytes(), MAX_TEXT_BYTES),
    }
}

/// The end of an attempt whose call failed. What has a type is told by its type; the rest by flags of ours, and only then by its text.
fn failed(error: &wasmtime::Error, limits: &Limits, memory_refused: bool) -> End {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stopped(stop.reason, stop.message.clone());
    }
    if let Some(bad) = error.downcast_ref::<convert::Error>() {
        return stopped(bad.reason, bad.message.clone());
    }
    if let Some(unrecorded @ Unrecorded(reason)) = error.downcast_ref() {
        let message = unrecorded.to_string();
        return match reason {
            Reason::HostFault => End::HostFault { message },
            _ => End::Overload { message },
        };
    }
    if let Some(Continued(input)) = error.downcast_ref() {
        return End::Finished(Outcome::Continue(input.clone()));
    }
    if let Some(diverged) = error.downcast_ref::<Diverged>() {
        return self::diverged(diverged.clone());
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return trapped(*trap, error, limits, memory_refused);
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        let how = if exit.0 == 0 { "success" } else { "failure" };
        let message = format!("the agent ended its process ({how}) instead of returning");
        return stopped(Reason::Trapped, message);
    }
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return End::HostFault {
            message: fault.0.clone(),
        };
    }
    if error.is::<Overload>() || error.is::<PoolConcurrencyLimitError>() || lacks_mappings(error) {
        return End::Overload {
            message: escape(error.root_cause().to_string().as_bytes(), 256),
        };
    }
    if matches!(
        error.downcast_ref::<ResourceTableError>(),
        Some(ResourceTableError::Full)
    ) {
        return stopped(
            Reason::HandleLimit,
            format!("more than {} handles at a time", limits.handles),
        );
    }
    let text = error.root_cause().to_string();
    if text.contains("handle limit exceeded") {
        return stopped(
            Reason::HandleLimit,
            format!("more than {} handles at a time", limits.handles),
        );
    }
    if text.contains("too much data is being copied") {
        let message = format!(
            "one call handed over more than {} (its lists and texts counted)",
            limits.hostcall_bytes
        );
        return stopped(Reason::HostcallLimit, message);
    }
    if text.contains("exceeds memory limits") || text.contains("resource limit exceeded") {
        return stopped(Reason::MemoryLimit, format!("{text}; the limit is {}", limits.memory));
    }
    // Everything else that a call can fail of is a value that breaks the rules of the component model.
    stopped(Reason::Trapped, with_frames(&text, error))
}

fn trapped(trap: Trap, error: &wasmtime::Error, limits: &Limits, memory_refused: bool) -> End {
    match trap {
        Trap::OutOfFuel => stopped(
            Reason::FuelExhausted,
            format!("burned all of its {} of fuel", limits.fuel),
        ),
        Trap::StackOverflow => stopped(Reason::StackOverflow, with_frames("the call stack ran out", error)),
        // Rust aborts when an allocation fails, and an abort is an `unreachable`.
        Trap::UnreachableCodeReached if memory_refused => {
            let message = format!("wanted more memory than its limit of {}", limits.memory);
            stopped(Reason::MemoryLimit, with_frames(&message, error))
        }
        // The stack of ordinary Rust code lies at the bottom of linear memory and runs out below address zero.
        Trap::MemoryOutOfBounds => stopped(
            Reason::Trapped,
            with_frames(
                "a memory fault, or a stack overflow: recursion too deep looks the same",
                error,
            ),
        ),
        trap => stopped(Reason::Trapped, with_frames(&trap.to_string(), error)),
    }
}

/// The text and the guest's own frames, innermost first; never the host's.
fn with_frames(text: &str, error: &wasmtime::Error) -> String {
    let frames = error
        .downcast_ref::<WasmBacktrace>()
        .map(WasmBacktrace::frames)
        .unwrap_or_default();
    let mut names: Vec<String> = frames
        .iter()
        .filter_map(|frame| frame.func_name())
        .map(|name| escape(name.as_bytes(), 160))
        .collect();
    // Recursion shows once.
    names.dedup();
    match names.is_empty() {
        true => text.to_owned(),
        false => format!("{text}, in {}", names.join(" < ")),
    }
}

/// The kernel refused a mapping: `vm.max_map_count` is used up, or memory is.
fn lacks_mappings(error: &wasmtime::Error) -> bool {
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        let os = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        os == Some(rustix::io::Errno::NOMEM.raw_os_error()) || cause.downcast_ref() == Some(&rustix::io::Errno::NOMEM)
    };
    error.chain().any(refused)
}

#[cfg(test)]
mod tests {
    use skep_rules::limits::Tier;

    use super::*;

    fn check(error: impl Into<wasmtime::Error>, memory_refused: bool) -> Result<Reason, End> {
        match end(Return::Called(Err(error.into())), &Tier::Small.limits(), memory_refused) {
            End::Stopped { reason, .. } => Ok(reason),
            other => Err(other),
        }
    }

    #[test]
    fn every_failed_call_has_its_reason() {
        let text = wasmtime::Error::msg;
        let cases: Vec<(wasmtime::Error, bool, Reason)> = vec![
            (Trap::OutOfFuel.into(), false, Reason::FuelExhausted),
            (Trap::StackOverflow.into(), false, Reason::StackOverflow),
            (Trap::MemoryOutOfBounds.into(), false, Reason::Trapped),
            (Trap::UnreachableCodeReached.into(), false, Reason::Trapped),
            (Trap::UnreachableCodeReached.into(), true, Reason::MemoryLimit),
            (Trap::IntegerDivisionByZero.into(), true, Reason::Trapped),
            (Trap::CannotEnterComponent.into(), false, Reason::Trapped),
            (I32Exit(1).into(), false, Reason::Trapped),
            (ResourceTableError::Full.into(), false, Reason::HandleLimit),
            (
                text("cannot allocate another handle: store handle limit exceeded"),
                false,
                Reason::HandleLimit,
            ),
            (
                text("too much data is being copied between the host and the guest"),
                false,
                Reason::HostcallLimit,
            ),
            (
                text("memory minimum size of 17 pages exceeds memory limits"),
                true,
                Reason::MemoryLimit,
            ),
            (
                text("resource limit exceeded: memory count too high at 5"),
                false,
                Reason::MemoryLimit,
            ),
            (text("invalid utf-8 sequence"), false, Reason::Trapped),
            (
                Stop::new(Reason::RateLimited, "too fast").into(),
                true,
                Reason::RateLimited,
            ),
        ];
        for (error, refused, reason) in cases {
            // As it comes back from a call: with the backtrace and other context around it.
            let error = error.context("error while executing at wasm backtrace");
            let shown = format!("{error:#}");
            assert_eq!(check(error, refused), Ok(reason), "{shown}");
        }
    }

    #[test]
    fn what_the_host_lacked_is_no_fault_of_the_guest() {
        let errno = wasmtime::Error::from(std::io::Error::from_raw_os_error(12));
        for error in [
            errno.context("mmap failed"),
            wasmtime::Error::from(rustix::io::Errno::NOMEM),
        ] {
            assert!(matches!(check(error, true), Err(End::Overload { .. })));
        }
        assert!(matches!(check(Fault("ours".into()), false), Err(End::HostFault { .. })));
    }

    #[test]
    fn an_end_from_outside_is_what_it_was() {
        let limits = Tier::Small.limits();
        assert_eq!(end(Return::Halted(Halt::Cancelled), &limits, false), End::Cancelled);
        assert_eq!(end(Return::Halted(Halt::Fenced), &limits, false), End::Fenced);
        assert!(matches!(
            end(Return::Halted(Halt::Stopping), &limits, false),
            End::Overload { .. }
        ));
        assert!(matches!(
            end(Return::Panicked("x".into()), &limits, false),
            End::HostFault { .. }
        ));
        assert!(matches!(
            end(Return::Deadline, &limits, false),
            End::Stopped {
                reason: Reason::DeadlineExceeded,
                ..
            }
        ));
    }
}
