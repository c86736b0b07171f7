//! The Skep binary: parses the command line, runs one command and turns what it says into an exit code.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod client;
mod commands;
mod config;
mod failure;
mod files;
mod keys;
mod output;

use cli::{Cli, Exit};
use failure::Failure;

/// Thousands of small records, payloads and messages a second are made on one thread and let go on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => report(&error).into(),
    }
}

/// Prints an error and says what to end with. A reader that went away is no error.
fn report(error: &anyhow::Error) -> Exit {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return Exit::Done;
    }
    // A closed standard error leaves the exit code to speak.
    drop(std::io::Write::write_all(
        &mut std::io::stderr().lock(),
        format!("error: {}\n", failure::plain(&format!("{error:#}"))).as_bytes(),
    ));
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    failure
        .or_else(|| error.downcast_ref::<Failure>())
        .map_or(Exit::Failure, |failure| failure.exit)
}
