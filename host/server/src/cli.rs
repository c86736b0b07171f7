//! The command line as people type it: the verbs, what goes for all of them, and the exit codes. What a verb does is in `commands/`, one
//! file per verb.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use skep_rules::{quantity::Millis, reason::Reason};

use crate::commands;

/// Runs agents you did not write.
///
/// Skep runs WebAssembly agents from strangers in a sandbox and orchestrates them. `skep demo` shows it on a directory of yours.
#[derive(Debug, Parser)]
#[command(name = "skep", version, propagate_version = true, max_term_width = 120)]
#[command(after_help = "First steps: skep demo · skep new hello · skep up")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What goes for every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// How results are printed
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// No progress and no remarks, only the result and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// No colours; NO_COLOR in the environment does the same
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Give up after so long (`30s`, `5min`)
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) timeout: Option<Millis>,
    /// The host to talk to; otherwise the one that holds the data directory
    #[arg(long, global = true, value_name = "URL", env = "SKEP_HOST")]
    pub(crate) host: Option<String>,
    /// The token to show it; otherwise `admin.token` of the data directory
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "SKEP_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// Where the host keeps everything
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A host configuration to use instead of the data directory's `host.toml`
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON document per line and record
    Jsonl,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Audit a directory with a crew of agents, one of them hostile
    Demo(commands::demo::Args),
    /// Run a host until it is told to stop
    Up(commands::up::Args),
    /// Run one agent on one task, without a host
    Run(commands::run::Args),
    /// Begin a plugin: sources, SDK and contract in a new directory
    New(commands::new::Args),
    /// Compile a plugin and embed its manifest
    Build(commands::build::Args),
    /// Show what a component can do and what it may reach, without running it
    Inspect(commands::inspect::Args),
    /// Keys of publishers and operators
    #[command(subcommand)]
    Key(commands::key::Command),
    /// Sign a plugin or a document of trust
    Sign(commands::sign::Args),
    /// Check what was signed, and by whom
    Verify(commands::verify::Args),
    /// Plugins of a host
    #[command(subcommand)]
    Plugin(commands::plugin::Command),
    /// Crews of a host
    #[command(subcommand)]
    Crew(commands::crew::Command),
    /// Tasks of a host
    #[command(subcommand)]
    Task(commands::task::Command),
    /// What people are asked to approve or to answer
    #[command(subcommand)]
    Approval(commands::approval::Command),
    /// Run a recorded task again, offline, and say where it does something else
    Replay(commands::replay::Args),
    /// The state of crews: what their agents remember
    #[command(subcommand)]
    State(commands::state::Command),
    /// Messages of crews
    #[command(subcommand)]
    Message(commands::message::Command),
    /// Show what agents write and what the host decides and refuses
    Logs(commands::logs::Args),
    /// Tasks that are submitted again and again
    #[command(subcommand)]
    Schedule(commands::schedule::Command),
    /// Agents of a host
    #[command(subcommand)]
    Agent(commands::agent::Command),
    /// The audit log of a host
    #[command(subcommand)]
    Audit(commands::audit::Command),
    /// Write everything that a host remembers to one file, also while it runs
    Backup(commands::backup::Args),
    /// Make a data directory of a backup
    Restore(commands::restore::Args),
    /// The configuration of a host
    #[command(subcommand)]
    Config(commands::config::Command),
    /// Look for what would keep a host from working well
    Doctor(commands::doctor::Args),
    /// Say what a reason code means and what to do
    Explain(commands::explain::Args),
    /// Compile one component, as a process of a host
    #[command(hide = true, name = "compile-component")]
    CompileComponent {
        /// Address space of a memory in bytes
        #[arg(long)]
        reservation: u64,
        /// Of the code that is expected
        #[arg(long)]
        fingerprint: String,
    },
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
}

/// How a command ends. The numbers are a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed, for a reason that has no number of its own.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Something else is there, or its state does not allow it.
    Conflict = 4,
    /// Not allowed: token, origin or grant.
    Denied = 5,
    /// A file, a plugin or an input is not acceptable.
    Invalid = 6,
    /// The task ended, failed; a replay did something else than the record says.
    TaskFailed = 7,
    /// A person has to agree first; of a task that was waited for, to what it asks.
    Waiting = 8,
    /// No host answers.
    Unreachable = 9,
    /// The time was up.
    TimedOut = 124,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of a refusal or failure that carries a reason code.
    pub(crate) fn of(reason: Reason) -> Exit {
        match reason {
            Reason::NotFound | Reason::NoListener => Exit::NotFound,
            Reason::IllegalTransition
            | Reason::Conflict
            | Reason::IdempotencyMismatch
            | Reason::ApprovalExpired
            | Reason::StaleRevision
            | Reason::PreconditionRequired => Exit::Conflict,
            Reason::CapabilityDenied
            | Reason::MountDenied
            | Reason::AddressDenied
            | Reason::Unauthenticated
            | Reason::SelfApproval
            | Reason::Forbidden => Exit::Denied,
            Reason::BodyLimit
            | Reason::InvalidManifest
            | Reason::InvalidInput
            | Reason::UnsupportedImport
            | Reason::CompileLimit
            | Reason::NotAComponent
            | Reason::SignatureMissing
            | Reason::SignatureInvalid
            | Reason::Modified
            | Reason::SignerUntrusted
            | Reason::ThresholdUnmet
            | Reason::InvalidRelease
            | Reason::Expired
            | Reason::NotYetValid
            | Reason::Rollback
            | Reason::Revoked
            | Reason::CeilingExceeded
            | Reason::InvalidMetadata
            | Reason::UnsupportedVersion
            | Reason::UnsupportedHost => Exit::Invalid,
            Reason::ApprovalRequired | Reason::FirstContact => Exit::Waiting,
            Reason::FuelExhausted
            | Reason::MemoryLimit
            | Reason::StackOverflow
            | Reason::HandleLimit
            | Reason::HostcallLimit
            | Reason::QuotaExceeded
            | Reason::Trapped
            | Reason::Diverged
            | Reason::RecordFull
            | Reason::BudgetExhausted
            | Reason::Preempted
            | Reason::DeadLetter
            | Reason::Paused
            | Reason::DependencyFailed
            | Reason::Cancelled
            | Reason::Verify
            | Reason::Rejected
            | Reason::Error => Exit::TaskFailed,
            Reason::DeadlineExceeded | Reason::TimedOut | Reason::MessageExpired => Exit::TimedOut,
            Reason::RateLimited
            | Reason::Fenced
            | Reason::Overloaded
            | Reason::DataDirectory
            | Reason::HostFault
            | Reason::Interrupted => Exit::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_go_anywhere() {
        let cli = Cli::try_parse_from(["skep", "explain", "-o", "json", "--timeout", "5s"]).unwrap();
        assert_eq!(
            (cli.global.output, cli.global.timeout),
            (Format::Json, Some(Millis(5_000)))
        );
        let cli =
            Cli::try_parse_from(["skep", "--output=jsonl", "task", "ls", "--host", "http://127.0.0.1:1"]).unwrap();
        assert_eq!(
            (cli.global.output, cli.global.host.as_deref()),
            (Format::Jsonl, Some("http://127.0.0.1:1"))
        );
    }

    #[test]
    fn every_reason_leaves_with_a_number_of_its_kind() {
        for (reason, exit) in [
            (Reason::NotFound, 3),
            (Reason::Conflict, 4),
            (Reason::Unauthenticated, 5),
            (Reason::NotAComponent, 6),
            (Reason::SignerUntrusted, 6),
            (Reason::ApprovalRequired, 8),
            (Reason::Trapped, 7),
            (Reason::DeadlineExceeded, 124),
        ] {
            assert_eq!(Exit::of(reason) as u8, exit, "{reason}");
        }
    }
}
