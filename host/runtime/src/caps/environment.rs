//! `wasi:cli`: gives every agent the environment variables that its crew lists, captured standard output and error, and an exit. Needs no grant.
//! There are no arguments, standard input is closed, nothing is a terminal, and nothing is ever inherited from the host.
//!
//! Reading the environment where nothing of it was granted is noted as a denial, and so is asking for arguments. The standard libraries of some
//! languages do so by themselves, Rust's when it panics: so an attempt that trapped is not told to have read it.

use skep_rules::reason::Reason;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    I32Exit,
    p2::{
        DynInputStream, DynOutputStream,
        bindings::cli::{
            environment, exit, stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr, terminal_stdin,
            terminal_stdout,
        },
        pipe::ClosedInputStream,
    },
};

use super::{
    base::{Base, Get, HasBase},
    output::Source,
};

/// What the note of a read says.
pub(crate) const READ: &str = "read the environment";

/// Links `wasi:cli` without `run`.
///
/// # Errors
/// When the linker holds one of the interfaces already.
pub(super) fn link<T: Send + 'static>(linker: &mut Linker<T>, get: Get<T>) -> wasmtime::Result<()> {
    environment::add_to_linker::<T, HasBase>(linker, get)?;
    exit::add_to_linker::<T, HasBase>(linker, get)?;
    stdin::add_to_linker::<T, HasBase>(linker, get)?;
    stdout::add_to_linker::<T, HasBase>(linker, get)?;
    stderr::add_to_linker::<T, HasBase>(linker, get)?;
    terminal_input::add_to_linker::<T, HasBase>(linker, get)?;
    terminal_output::add_to_linker::<T, HasBase>(linker, get)?;
    terminal_stdin::add_to_linker::<T, HasBase>(linker, get)?;
    terminal_stdout::add_to_linker::<T, HasBase>(linker, get)?;
    terminal_stderr::add_to_linker::<T, HasBase>(linker, get)
}

impl environment::Host for Base {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        self.meter.charge(0)?;
        if self.env.is_empty() {
            self.denials.note(Reason::CapabilityDenied, READ);
        }
        Ok(self.env.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        self.meter.charge(0)?;
        self.denials.note(Reason::CapabilityDenied, "read the arguments");
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        self.meter.charge(0)?;
        Ok(None)
    }
}

impl exit::Host for Base {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        Err(I32Exit(i32::from(status.is_err())).into())
    }

    fn exit_with_code(&mut self, status: u8) -> wasmtime::Result<()> {
        Err(I32Exit(i32::from(status)).into())
    }
}

impl stdin::Host for Base {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        self.meter.charge(0)?;
        let closed: DynInputStream = Box::new(ClosedInputStream);
        Ok(self.table.push(closed)?)
    }
}

impl stdout::Host for Base {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.meter.charge(0)?;
        Ok(self.table.push(self.log.stream(Source::Stdout))?)
    }
}

impl stderr::Host for Base {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.meter.charge(0)?;
        Ok(self.table.push(self.log.stream(Source::Stderr))?)
    }
}

impl terminal_input::Host for Base {}

impl terminal_input::HostTerminalInput for Base {
    fn drop(&mut self, terminal: Resource<terminal_input::TerminalInput>) -> wasmtime::Result<()> {
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl terminal_output::Host for Base {}

impl terminal_output::HostTerminalOutput for Base {
    fn drop(&mut self, terminal: Resource<terminal_output::TerminalOutput>) -> wasmtime::Result<()> {
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl terminal_stdin::Host for Base {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<terminal_input::TerminalInput>>> {
        self.meter.charge(0)?;
        Ok(None)
    }
}

impl terminal_stdout::Host for Base {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        self.meter.charge(0)?;
        Ok(None)
    }
}

impl terminal_stderr::Host for Base {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        self.meter.charge(0)?;
        Ok(None)
    }
}
