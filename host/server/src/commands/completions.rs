//! `skep completions`: a completion script for a shell.

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, Exit};

/// Arguments of `skep completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    // Made in memory first: clap_complete panics when its writer is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "skep", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}
