//! What a command needs from tables that are too large for memory. `Command::needs` says which rows; the driver reads them, pending writes
//! first, and hands them to the decision.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::{
    approval::Approval,
    command::Command,
    id::{ApprovalId, CrewId, Digest, MessageId, Name, TaskId},
    message::{Kept, Source},
    quantity::Time,
    state::State,
    step::{StepCall, Value},
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
    /// Records of tasks, in pieces: [`record_key`] to encoded [`crate::step::Step`]s, one behind the other.
    Steps,
    /// The crews' state: [`value_key`] to an encoded [`crate::step::Value`].
    State,
    /// Older values: [`old_value_key`] to an encoded [`Replaced`]. Rows past their time may be swept.
    Replaced,
    /// Messages: [`MessageId::to_bytes`] to an encoded [`crate::message::Kept`]. Rows past their time may be swept.
    Messages,
    /// Approvals that are over: [`ApprovalId::to_bytes`] to an encoded [`Approval`].
    Approvals,
}

/// The idempotency key of a message. No key of a client has a zero byte.
#[must_use]
pub fn message_key(crew: CrewId, source: &Source, key: &str) -> String {
    format!("\0{crew} {} {key}", source.key())
}

/// The key of a piece of a record: the task, the run, and the number of its first step.
#[must_use]
pub fn record_key(task: TaskId, run: u32, first: u64) -> Vec<u8> {
    [
        task.to_bytes().as_slice(),
        run.to_be_bytes().as_slice(),
        first.to_be_bytes().as_slice(),
    ]
    .concat()
}

/// The key of a value of a crew's state, or what the keys of all begin with that begin with `key`. Neither name nor key has a zero byte.
#[must_use]
pub fn value_key(namespace: &Name, key: &str) -> Vec<u8> {
    [namespace.as_str().as_bytes(), b"\0", key.as_bytes()].concat()
}

/// The key of an older value; without a revision, what the keys of all of them begin with.
#[must_use]
pub fn old_value_key(namespace: &Name, key: &str, revision: Option<u64>) -> Vec<u8> {
    let revision = revision.map(u64::to_be_bytes);
    let revision = revision.as_ref().map_or(&[][..], <[u8; 8]>::as_slice);
    [value_key(namespace, key).as_slice(), b"\0", revision].concat()
}

/// A value that was overwritten or removed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Replaced {
    /// It.
    #[n(0)]
    pub value: Value,
    /// Forgotten after.
    #[n(1)]
    pub until: Time,
}

/// A row to be written in the same commit as the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: Vec<u8>,
    /// What; without a value the row goes.
    pub value: Option<Vec<u8>>,
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
    /// The message that it sent; the tasks are its deliveries then.
    #[n(80)]
    pub message: Option<MessageId>,
}

/// Rows that a command needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// From [`Table::Idempotency`].
    pub idempotency: Option<String>,
    /// From [`Table::Tasks`]; those that are live are not there, and need not be.
    pub tasks: Vec<TaskId>,
    /// One row of [`Table::State`].
    pub value: Option<Vec<u8>>,
    /// One row of [`Table::Replaced`].
    pub old: Option<Vec<u8>>,
    /// Several rows.
    pub page: Option<Page>,
    /// From [`Table::Approvals`]; one that is open is not there, and need not be.
    pub approval: Option<ApprovalId>,
    /// From [`Table::Messages`].
    pub message: Option<MessageId>,
}

/// Rows whose keys begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Of which table.
    pub table: Table,
    /// What their keys begin with.
    pub prefix: Vec<u8>,
    /// Only those after this key.
    pub after: Option<Vec<u8>>,
    /// The last ones first.
    pub reverse: bool,
    /// At most so many.
    pub limit: usize,
}

/// The rows that were there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the command's idempotency key answered.
    pub idempotency: Option<Remembered>,
    /// Ended tasks by id.
    pub tasks: BTreeMap<TaskId, Task>,
    /// The value that was asked for.
    pub value: Option<Value>,
    /// The older value that was asked for.
    pub old: Option<Replaced>,
    /// The rows of the page, in its order.
    pub page: Vec<(Vec<u8>, Vec<u8>)>,
    /// The approval that was asked for, if it is over.
    pub approval: Option<Approval>,
    /// The message that was asked for, if it is kept.
    pub message: Option<Kept>,
}

impl Command {
    /// Which rows its decision needs.
    #[must_use]
    pub fn needs(&self, state: &State) -> Needs {
        match self {
            Command::RedriveMessage { delivery, message, .. } => Needs {
                tasks: vec![*delivery],
                message: Some(*message),
                ..Needs::default()
            },
            Command::Step { lease, call, .. } => match call {
                StepCall::Send(letter) => Needs {
                    idempotency: state
                        .source_of(lease)
                        .zip(letter.idempotency_key.as_deref())
                        .map(|((crew, source), key)| message_key(crew, &source, key)),
                    ..Needs::default()
                },
                call => state.crew_of(lease).map_or_else(Needs::default, |crew| {
                    crate::decide::step_needs(&crew.manifest.name, call)
                }),
            },
            Command::SendMessage { crew, letter, by, .. } => Needs {
                idempotency: letter
                    .idempotency_key
                    .as_deref()
                    .map(|key| message_key(*crew, &Source::Principal(by.clone()), key)),
                ..Needs::default()
            },
            Command::SubmitTasks { tasks, idempotency, .. } => Needs {
                idempotency: idempotency.as_ref().map(|given| given.key.clone()),
                tasks: tasks
                    .iter()
                    .flat_map(|task| task.dependencies.iter().copied())
                    .collect(),
                ..Needs::default()
            },
            Command::CancelTask { task, .. } | Command::ResumeTask { task, .. } | Command::ChangeTask { task, .. } => {
                Needs {
                    tasks: vec![*task],
                    ..Needs::default()
                }
            }
            Command::RedriveTask { task, dependencies, .. } => Needs {
                tasks: dependencies.iter().copied().chain([*task]).collect(),
                ..Needs::default()
            },
            Command::DecideApproval { approval, .. } => Needs {
                approval: Some(*approval),
                ..Needs::default()
            },
            Command::InstallPlugin { .. }
            | Command::RemovePlugin { .. }
            | Command::NoteRefusal { .. }
            | Command::NoteBackup { .. }
            | Command::NoteWebhook { .. }
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
            | Command::AttemptEvicted { .. }
            | Command::CreateSchedule { .. }
            | Command::DeleteSchedule { .. }
            | Command::NoteTime
            | Command::CacheRefused { .. } => Needs::default(),
        }
    }
}
