//! Tasks: what is submitted, what is read, their trees and their logs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_rules::{
    approval::OnTimeout,
    id::{AgentId, ApprovalId, CrewId, NodeName, Role, TaskId},
    quantity::{Fuel, Millis, Time},
    reason::Reason,
    seam::{Denial, LogLine},
    task::TaskState,
};
use utoipa::ToSchema;

/// What `POST /v1/tasks` takes: one task, or up to 100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Submission {
    /// Several, all or none of which are accepted; the answer is a list in the same order.
    Many(Vec<NewTask>),
    /// One; the answer is the task.
    One(Box<NewTask>),
}

/// A task to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewTask {
    /// For people.
    pub description: String,
    /// What to work on: any JSON, or an object with the single key `$text`, `$hex` or `$artifact`. `null` when absent.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// The crew's id, a unique prefix of it, or its name. May be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crew: Option<String>,
    /// Any agent of the crew with one of these roles may execute it; any agent at all when empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub roles: BTreeSet<Role>,
    /// The only agent that may execute it: id, unique prefix, or name in the crew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Tasks whose ends it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// Whether a planner splits it first.
    #[serde(default)]
    pub plan: bool,
    /// What the planner is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether a checker looks at the result.
    #[serde(default)]
    pub check: bool,
    /// How failures are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// For finding it again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What becomes of it when the host ends.
    #[serde(default, skip_serializing_if = "Durability::is_synced")]
    pub durability: Durability,
    /// Where a person has to approve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// Where a person has to approve a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    /// Before it runs.
    #[serde(default)]
    pub before: bool,
    /// Before its result counts, after the check where there is one.
    #[serde(default)]
    pub after: bool,
    /// How long a person has (`30s`, `24h`): one second to 30 days, a day when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub expires: Option<Millis>,
    /// What then: `reject`, so that the task fails, or `escalate`, which puts it to people once more first.
    #[serde(default)]
    #[schema(value_type = String)]
    pub on_timeout: OnTimeout,
}

/// What becomes of a task when the host ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on disk before it is answered for, and runs again.
    #[default]
    Synced,
    /// It lives in memory and is lost with the process, its parts with it: nothing of it is journaled, only what is refused to it is audited,
    /// its logs are not kept, and once it has ended it can be read for a while only. It stores nothing: no artifacts, no state, no messages. It
    /// cannot have an `Idempotency-Key`, and no synced task can depend on it.
    Ephemeral,
}

impl Durability {
    fn is_synced(&self) -> bool {
        *self == Durability::Synced
    }
}

/// How failures are tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryPolicy {
    /// Executions after the first; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// A [`TaskState`] in four words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Status {
    /// Nobody works on it.
    Pending,
    /// Somebody does.
    #[serde(rename = "In Progress")]
    InProgress,
    /// It has a result.
    Completed,
    /// It never will.
    Failed,
}

impl From<TaskState> for Status {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Pending
            | TaskState::Ready
            | TaskState::Assigned
            | TaskState::RetryWait
            | TaskState::Paused
            | TaskState::AwaitingApproval => Status::Pending,
            TaskState::Running | TaskState::Waiting | TaskState::Verifying | TaskState::Blocked => Status::InProgress,
            TaskState::Completed => Status::Completed,
            TaskState::Failed | TaskState::Cancelled | TaskState::Skipped | TaskState::Rejected => Status::Failed,
        }
    }
}

/// A task as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its id.
    #[schema(value_type = String)]
    pub task_id: TaskId,
    /// Its name in the plan that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<NodeName>,
    /// For people.
    pub description: String,
    /// Where it stands: `PENDING`, `READY`, `ASSIGNED`, `RUNNING`, `WAITING`, `RETRY_WAIT`, `VERIFYING`, `PAUSED`, `AWAITING_APPROVAL`, `BLOCKED`,
    /// `COMPLETED`, `FAILED`, `CANCELLED`, `SKIPPED` or `REJECTED`.
    #[schema(value_type = String)]
    pub state: TaskState,
    /// The same in four words.
    pub status: Status,
    /// What becomes of it when the host ends.
    #[serde(default)]
    pub durability: Durability,
    /// Its crew.
    #[schema(value_type = String)]
    pub crew: CrewId,
    /// What it waits for.
    #[schema(value_type = Vec<String>)]
    pub dependencies: Vec<TaskId>,
    /// Runs before this one: a run begins with an empty record, after a failure or `tasks.continue`.
    #[serde(default)]
    pub run: u32,
    /// Steps on the record of this run.
    #[serde(default)]
    pub steps: u64,
    /// What its run waits for, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
    /// The approval that it waits for, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub approval: Option<ApprovalId>,
    /// Who holds it, or held it last.
    #[schema(value_type = Option<String>)]
    pub assigned_agent: Option<AgentId>,
    /// Executions begun so far.
    pub attempts: u32,
    /// Fuel that they burned together, checks included.
    #[schema(value_type = String)]
    pub fuel: Fuel,
    /// The most memory that one of them held, in bytes.
    pub peak_memory_bytes: u64,
    /// What was refused to them.
    #[schema(value_type = Vec<Object>)]
    pub denials: Vec<Denial>,
    /// Why checkers sent results back, one per round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Its result, in the form of [`super::content`]; only when completed.
    pub result: Option<Value>,
    /// Why it failed or was sent back last; absent while all is well.
    pub failure: Option<Failure>,
    /// The task that it is a part of.
    #[schema(value_type = Option<String>)]
    pub parent: Option<TaskId>,
    /// Its parts.
    #[schema(value_type = Vec<String>)]
    pub children: Vec<TaskId>,
    /// As submitted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was accepted.
    #[schema(value_type = u64)]
    pub created_at: Time,
    /// When it ended.
    #[schema(value_type = Option<u64>)]
    pub ended_at: Option<Time>,
}

impl From<skep_rules::agent::Failure> for Failure {
    fn from(failure: skep_rules::agent::Failure) -> Self {
        Failure {
            code: failure.reason,
            message: failure.message,
        }
    }
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The reason code.
    #[schema(value_type = String)]
    pub code: Reason,
    /// For people.
    pub message: String,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// Children; none where it sleeps.
    #[schema(value_type = Vec<String>)]
    pub tasks: Vec<TaskId>,
    /// For all of them, rather than for the first.
    pub all: bool,
    /// Until when at most, in milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    pub until: Option<Time>,
}

/// A task with its parts, theirs, and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tree {
    /// The task.
    pub task: Task,
    /// Its parts.
    #[schema(no_recursion)]
    pub children: Vec<Tree>,
}

/// What `PUT /v1/tasks/{id}` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What to do.
    pub action: Action,
}

/// What can be asked of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// End it and its parts.
    Cancel,
    /// Let it go on, when it is paused.
    Resume,
}

/// The log of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptLog {
    /// The attempt: the epoch of its lease.
    pub epoch: u64,
    /// Who made it.
    #[schema(value_type = String)]
    pub agent: AgentId,
    /// When it ended.
    #[schema(value_type = u64)]
    pub ended_at: Time,
    /// How it ended: `finished`, `cancelled` or a reason code.
    pub end: String,
    /// Its lines, the oldest first.
    #[schema(value_type = Vec<Object>)]
    pub lines: Vec<LogLine>,
    /// Lines left out in front because the log was longer than is kept.
    pub omitted: u64,
}
