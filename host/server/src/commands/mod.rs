//! One file per verb. Each parses into an `Args` or a `Command` of its own and has one `run`, which prints through [`Output`].

use anyhow::Result;

use crate::{
    cli::{Cli, Command, Exit, Global},
    config::{Environment, Flags, Loaded, load},
    failure::Failure,
    output::Output,
};

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod new;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// The flags that go for every verb.
    pub(crate) global: Global,
    /// The process environment.
    pub(crate) environment: Environment,
    /// Where to print.
    pub(crate) output: Output,
}

impl Context {
    /// The configuration of the host that the flags name.
    pub(crate) fn config(&self) -> Result<Loaded, Failure> {
        self.config_with(Flags::default())
    }

    /// The same with flags that only some verbs have.
    pub(crate) fn config_with(&self, flags: Flags) -> Result<Loaded, Failure> {
        let flags = Flags {
            data_dir: self.global.data_dir.clone(),
            ..flags
        };
        load(&flags, &self.environment, self.global.config.as_deref())
    }
}

/// Runs the command that was typed.
///
/// # Errors
/// Whatever keeps it from being done; a [`Failure`] in the chain names the exit code.
pub(crate) fn run(cli: Cli) -> Result<Exit> {
    let environment = Environment::of_process();
    let context = Context {
        output: Output::new(&cli.global, &environment),
        global: cli.global,
        environment,
    };
    match cli.command {
        Command::New(args) => new::run(&context, &args),
        Command::Config(command) => config::run(&context, &command),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Explain(args) => explain::run(&context, &args),
        Command::Completions(args) => completions::run(&args),
    }
}
