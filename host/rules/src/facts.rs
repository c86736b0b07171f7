//! What a command needs from tables that are too large for memory. `Command::needs` says which rows; the driver reads them, pending writes
//! first, and hands them to the decision.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::{
    command::Command,
    id::{Digest, TaskId},
    quantity::Time,
    task::Task,
};

/// A table whose rows the shard writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Ended tasks: [`TaskId::to_bytes`] to an encoded [`Task`].
    Tasks,
    /// Stopped crews: the id's bytes to an encoded [`crate::crew_record::Crew`].
    Crews,
    /// Agents of stopped crews: the crew's id and the agent's to an encoded [`crate::agent::Agent`].
    Agents,
    /// Idempotency keys: the key's bytes to an encoded [`Remembered`]. Rows past their time may be swept.
    Idempotency,
}

/// A row to be written in the same commit as the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: Vec<u8>,
    /// What.
    pub value: Vec<u8>,
}

/// What an idempotency key answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Remembered {
    /// Digest of the request.
    #[n(0)]
    pub digest: Digest,
    /// The tasks that it made.
    #[n(1)]
    pub tasks: Vec<TaskId>,
    /// Forgotten after.
    #[n(2)]
    pub until: Time,
}

/// Rows that a command needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// From [`Table::Idempotency`].
    pub idempotency: Option<String>,
    /// From [`Table::Tasks`]; those that are live are not there, and need not be.
    pub tasks: Vec<TaskId>,
}

/// The rows that were there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the command's idempotency key answered.
    pub idempotency: Option<Remembered>,
    /// Ended tasks by id.
    pub tasks: BTreeMap<TaskId, Task>,
}

impl Command {
    /// Which rows its decision needs.
    #[must_use]
    pub fn needs(&self) -> Needs {
        match self {
            Command::SubmitTasks { tasks, idempotency, .. } => Needs {
                idempotency: idempotency.as_ref().map(|given| given.key.clone()),
                tasks: tasks
                    .iter()
                    .flat_map(|task| task.dependencies.iter().copied())
                    .collect(),
            },
            Command::CancelTask { task, .. } | Command::ResumeTask { task, .. } => Needs {
                tasks: vec![*task],
                ..Needs::default()
            },
            Command::InstallPlugin { .. }
            | Command::RemovePlugin { .. }
            | Command::NoteRefusal { .. }
            | Command::TrustPublisher { .. }
            | Command::AdoptRoot { .. }
            | Command::RotateKeys { .. }
            | Command::AdoptIndex { .. }
            | Command::AdoptClock { .. }
            | Command::Revoke { .. }
            | Command::ResetTime { .. }
            | Command::AssembleCrew { .. }
            | Command::DrainCrew { .. }
            | Command::Warmed { .. }
            | Command::WarmFailed { .. }
            | Command::AttemptStarted { .. }
            | Command::AttemptEnded { .. }
            | Command::CacheRefused { .. } => Needs::default(),
        }
    }
}
