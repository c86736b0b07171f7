//! Tasks: what is submitted, what is read, their trees and their logs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_rules::{
    approval::OnTimeout,
    id::{AgentId, ApprovalId, CrewId, NodeName, Role, TaskId},
    lifecycle::{self, OnFailure},
    priority::Priority,
    quantity::{Fuel, Millis, Time},
    reason::Reason,
    retry::{OnExhausted, Policy},
    seam::{Denial, LogLine},
    task::TaskState,
};
use utoipa::ToSchema;

use super::plan::{Node, Note};

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
    #[serde(default)]
    pub description: String,
    /// What is to be reached: instead of `description` and `plan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
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
    /// What the planner is told: together at most 256 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// How it is split, where that is known: no planner is asked then, and it is not executed itself. The output is that of the node that integrates, of
    /// the only node on which no other depends, or a list of how each ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    /// With `nodes`: every result is checked, and the next node of a lane waits for that. Nodes without a lane share one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify_before_next: bool,
    /// Fuel that it and all its parts may burn together (`5G`); split among them, and none is given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub fuel_budget: Option<Fuel>,
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
    /// How urgent it and its parts are: `critical`, `high`, `medium` (when absent) or `low`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub priority: Option<Priority>,
    /// How long it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// What becomes of it when one of its parts fails: `fail_fast` (when absent) lets what runs finish and fails; `collect` lets the others go on,
    /// which are told; `escalate` asks whoever split the task for another way, then whoever split what that is a part of, and pauses the part until a person
    /// has decided where there is nobody to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub on_part_failure: Option<OnFailure>,
    /// Where a person has to approve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// How long a task may take. Durations are texts such as `30s`; each is between 1 ms and 366 days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// From READY to the start of an attempt, each time; then the task fails with `timed-out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub schedule_to_start: Option<Millis>,
    /// One attempt, where that is shorter than the deadline of the agent's limits; then the attempt fails with `deadline-exceeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub start_to_close: Option<Millis>,
    /// From its acceptance to its end, pauses included; then the task fails with `timed-out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub schedule_to_close: Option<Millis>,
}

impl From<Timeouts> for lifecycle::Timeouts {
    fn from(timeouts: Timeouts) -> Self {
        lifecycle::Timeouts {
            schedule_to_start: timeouts.schedule_to_start,
            start_to_close: timeouts.start_to_close,
            schedule_to_close: timeouts.schedule_to_close,
        }
    }
}

impl From<lifecycle::Timeouts> for Timeouts {
    fn from(timeouts: lifecycle::Timeouts) -> Self {
        Timeouts {
            schedule_to_start: timeouts.schedule_to_start,
            start_to_close: timeouts.start_to_close,
            schedule_to_close: timeouts.schedule_to_close,
        }
    }
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryPolicy {
    /// Executions after the first; 3 when absent, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// The delay before the first retry, 1 ms to a day; `1s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub initial_delay: Option<Millis>,
    /// By how much each delay is longer than the one before, 1 to 10; 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The longest delay, up to a day; a hundred times the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub max_delay: Option<Millis>,
    /// By how many hundredths a delay is shorter or longer by chance, 0 to 50; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_percent: Option<u32>,
    /// Reason codes that are not tried again, beside those for which it never helps.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub non_retryable: BTreeSet<Reason>,
    /// What becomes of the task when that is used up: `pause` (when absent, unless it is ephemeral) waits for a person, `fail` is an end,
    /// `dead_letter` too, and it can be redriven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub on_exhausted: Option<OnExhausted>,
}

impl RetryPolicy {
    /// A policy as clients see it.
    #[must_use]
    pub fn of(max_retries: u32, policy: &Policy) -> RetryPolicy {
        RetryPolicy {
            max_retries: Some(max_retries),
            initial_delay: policy.initial,
            factor: policy.factor.map(|factor| f64::from(factor) / 100.0),
            max_delay: policy.cap,
            jitter_percent: policy.jitter,
            non_retryable: policy.not_again.clone(),
            on_exhausted: policy.on_exhausted,
        }
    }

    /// The policy as the rules have it, which check its bounds.
    ///
    /// # Errors
    /// A factor that is no number of hundredths.
    pub fn policy(&self) -> Result<Policy, String> {
        Ok(Policy {
            initial: self.initial_delay,
            factor: self.factor.map(hundredths).transpose()?,
            cap: self.max_delay,
            jitter: self.jitter_percent,
            not_again: self.non_retryable.clone(),
            on_exhausted: self.on_exhausted,
        })
    }
}

/// A factor in hundredths. Whether it is within its bounds is for the rules to say.
fn hundredths(factor: f64) -> Result<u32, String> {
    let hundredths = (factor * 100.0).round();
    if !(0.0..=1e6).contains(&hundredths) {
        return Err("`factor`: retry delays grow by a factor between 1 and 10".to_owned());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and between nought and a million"
    )]
    Ok(hundredths as u32)
}

/// A [`TaskState`] as the A2A protocol calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum A2aState {
    /// Nobody has begun it.
    Submitted,
    /// Somebody works on it, or will again.
    Working,
    /// It waits for a person.
    InputRequired,
    /// It has a result.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled, or skipped.
    Canceled,
    /// A person has not approved it.
    Rejected,
}

impl From<TaskState> for A2aState {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Pending | TaskState::Ready | TaskState::Assigned => A2aState::Submitted,
            TaskState::Running | TaskState::Waiting | TaskState::RetryWait | TaskState::Verifying => A2aState::Working,
            TaskState::Paused | TaskState::AwaitingApproval | TaskState::Blocked => A2aState::InputRequired,
            TaskState::Completed => A2aState::Completed,
            TaskState::Failed => A2aState::Failed,
            TaskState::Cancelled | TaskState::Skipped => A2aState::Canceled,
            TaskState::Rejected => A2aState::Rejected,
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// The attempt: the epoch of its lease.
    pub epoch: u64,
    /// Who made it.
    #[schema(value_type = String)]
    pub agent: AgentId,
    /// When it ended.
    #[schema(value_type = u64)]
    pub ended_at: Time,
    /// Why.
    pub failure: Failure,
}

impl From<lifecycle::Past> for Past {
    fn from(past: lifecycle::Past) -> Self {
        Past {
            epoch: past.epoch,
            agent: past.agent,
            ended_at: past.at,
            failure: past.failure.into(),
        }
    }
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
    /// The same in the words of A2A.
    pub a2a_state: A2aState,
    /// How urgent it is.
    #[schema(value_type = String)]
    pub priority: Priority,
    /// How long it may take, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// When it is tried again, while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub retry_at: Option<Time>,
    /// Its attempts that failed, checks included, the newest last; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Past>,
    /// The dead letter that it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub redrives: Option<TaskId>,
    /// What becomes of it when the host ends.
    #[serde(default)]
    pub durability: Durability,
    /// Its crew.
    #[schema(value_type = String)]
    pub crew: CrewId,
    /// The lane of its plan in which it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub lane: Option<NodeName>,
    /// The name of the note that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Fuel that it and what is not yet a part of its own may burn, where that is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub fuel_budget: Option<Fuel>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What to do.
    pub action: Action,
    /// With `reprioritise`: `critical`, `high`, `medium` or `low`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub priority: Option<Priority>,
    /// With `override_result`: the result, in the form of an input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// With `override_result`: why, for the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl From<Action> for Request {
    fn from(action: Action) -> Self {
        Request {
            action,
            priority: None,
            result: None,
            why: None,
        }
    }
}

/// What can be asked of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// End it and its parts.
    Cancel,
    /// Let it go on, when it is paused, with its parts that were paused.
    Resume,
    /// Try it again at once: without the rest of a delay, or from the beginning where it is paused.
    Retry,
    /// Hold it and its parts until somebody lets them go on.
    Pause,
    /// Give it and its parts another priority.
    Reprioritise,
    /// End it with a result of a person's.
    OverrideResult,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The three views of every state.
    #[test]
    fn every_state_has_three_names() {
        let table = "
            PENDING    Pending     submitted
            READY      Pending     submitted
            ASSIGNED   Pending     submitted
            RUNNING    InProgress  working
            WAITING    InProgress  working
            RETRY_WAIT Pending     working
            VERIFYING  InProgress  working
            COMPLETED  Completed   completed
            FAILED     Failed      failed
            CANCELLED  Failed      canceled
            SKIPPED    Failed      canceled
            PAUSED     Pending     input-required
            AWAITING_APPROVAL Pending input-required
            BLOCKED    InProgress  input-required
            REJECTED   Failed      rejected
        ";
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows: Vec<String> = rows.map(|row| row.join(" ")).filter(|row| !row.is_empty()).collect();
        let told = |state: &TaskState| {
            let a2a = serde_json::to_value(A2aState::from(*state)).unwrap();
            format!("{state} {:?} {}", Status::from(*state), a2a.as_str().unwrap())
        };
        assert_eq!(rows, TaskState::ALL.iter().map(told).collect::<Vec<_>>());
    }

    #[test]
    fn a_policy_is_read_with_its_bounds_left_to_the_rules() {
        let read = |text: &str| serde_json::from_str::<RetryPolicy>(text).unwrap().policy();
        let policy = read(
            r#"{"initialDelay": "50ms", "factor": 1.5, "maxDelay": "1s", "jitterPercent": 0, "nonRetryable": ["trapped"], "onExhausted": "dead_letter"}"#,
        );
        let expected = Policy {
            initial: Some(Millis(50)),
            factor: Some(150),
            cap: Some(Millis(1_000)),
            jitter: Some(0),
            not_again: [Reason::Trapped].into(),
            on_exhausted: Some(OnExhausted::DeadLetter),
        };
        assert_eq!(policy, Ok(expected));
        assert_eq!(read(r#"{"factor": 0.5}"#).unwrap().factor, Some(50));
        assert!(read(r#"{"factor": -1}"#).is_err() && read(r#"{"factor": 1e300}"#).is_err());
        for bad in [
            r#"{"factor": "2"}"#,
            r#"{"onExhausted": "wait"}"#,
            r#"{"nonRetryable": ["bad-luck"]}"#,
            r#"{"initialDelay": 5}"#,
        ] {
            assert!(serde_json::from_str::<RetryPolicy>(bad).is_err(), "{bad}");
        }
    }
}
