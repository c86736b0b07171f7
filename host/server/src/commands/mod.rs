//! One file per verb. Each parses into an `Args` or a `Command` of its own and has one `run`, which prints through [`Output`].

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    cli::{Cli, Command, Exit, Global},
    client::Client,
    config::{Environment, Flags, Loaded, load},
    failure::Failure,
    output::Output,
};

pub(crate) mod agent;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod build;
mod bundled;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod crew;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod logs;
pub(crate) mod message;
pub(crate) mod new;
mod offline;
pub(crate) mod plugin;
pub(crate) mod replay;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod schedule;
mod session;
mod sheet;
pub(crate) mod sign;
pub(crate) mod state;
pub(crate) mod task;
mod tree;
pub(crate) mod up;
pub(crate) mod verify;

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

    /// A client of the host that the flags name.
    pub(crate) fn client(&self) -> Result<Client> {
        // The configuration only says where the host's files are; with --host nothing is asked of this machine.
        let data_dir = match self.global.host {
            Some(_) => PathBuf::new(),
            None => self.config()?.config.data_dir,
        };
        Client::find(&self.global, &data_dir)
    }

    /// Waits for something that talks to a host, at most until Ctrl-C.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                done = work => done,
                _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted").into()),
            }
        })
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
        Command::Demo(args) => demo::run(&context, &args),
        Command::Up(args) => up::run(&context, &args),
        Command::Backup(args) => backup::run(&context, &args),
        Command::Restore(args) => restore::run(&context, &args),
        Command::Run(args) => run::run(&context, &args),
        Command::Audit(command) => audit::run(&context, &command),
        Command::Build(args) => build::run(&context, &args),
        Command::Inspect(args) => inspect::run(&context, &args),
        Command::Sign(args) => sign::run(&context, &args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Plugin(command) => plugin::run(&context, &command),
        Command::Key(command) => key::run(&context, &command),
        Command::Crew(command) => crew::run(&context, &command),
        Command::Task(command) => task::run(&context, &command),
        Command::Approval(command) => approval::run(&context, &command),
        Command::Replay(args) => replay::run(&context, &args),
        Command::State(command) => state::run(&context, &command),
        Command::Message(command) => message::run(&context, &command),
        Command::Agent(command) => agent::run(&context, &command),
        Command::New(args) => new::run(&context, &args),
        Command::Config(command) => config::run(&context, &command),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Explain(args) => explain::run(&context, &args),
        Command::CompileComponent {
            reservation,
            fingerprint,
        } => {
            let job = skep_runtime::CompilerJob {
                reservation,
                fingerprint,
            };
            let done = skep_runtime::compiler_process(&job);
            Ok(if done { Exit::Done } else { Exit::Failure })
        }
        Command::Completions(args) => completions::run(&args),
        Command::Logs(args) => logs::run(&context, &args),
        Command::Schedule(command) => schedule::run(&context, &command),
    }
}
