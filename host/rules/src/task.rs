//! The record of a task and its states: a unit of work, perhaps with children. Which transitions there are is a table here; `apply` asserts
//! it, so an illegal one cannot be remembered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    agent::Failure,
    id::{AgentId, CrewId, NodeName, Role, TaskId},
    lease::Held,
    limits::MAX_TEXT_BYTES,
    plan::Payload,
    quantity::{Fuel, Size, Time},
    seam::{Denial, DependencyEnd, Export},
};

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    /// Accepted; something that it depends on has not ended.
    #[n(0)]
    Pending,
    /// Waits for a slot.
    #[n(1)]
    Ready,
    /// Leased, not yet begun.
    #[n(2)]
    Assigned,
    /// An attempt executes or plans it.
    #[n(3)]
    Running,
    /// Its children work.
    #[n(4)]
    Waiting,
    /// A failed attempt is tried again after a delay.
    #[n(5)]
    RetryWait,
    /// Its result is being checked, or waits for a checker's slot.
    #[n(6)]
    Verifying,
    /// It has a result.
    #[n(7)]
    Completed,
    /// It has a failure.
    #[n(8)]
    Failed,
    /// It was cancelled, or its crew drained.
    #[n(9)]
    Cancelled,
    /// Something that it depended on failed.
    #[n(10)]
    Skipped,
    /// It waits for a person.
    #[n(11)]
    Paused,
}

impl TaskState {
    /// All of them.
    pub const ALL: &[TaskState] = &[
        TaskState::Pending,
        TaskState::Ready,
        TaskState::Assigned,
        TaskState::Running,
        TaskState::Waiting,
        TaskState::RetryWait,
        TaskState::Verifying,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Cancelled,
        TaskState::Skipped,
        TaskState::Paused,
    ];

    /// Nothing follows.
    #[must_use]
    pub fn is_ended(self) -> bool {
        self.leaves_to().is_empty()
    }

    /// Where it may go from here; the only transitions there are. VERIFYING to itself is the lease of a checker given or lost.
    #[must_use]
    pub fn leaves_to(self) -> &'static [TaskState] {
        use TaskState::{
            Assigned, Cancelled, Completed, Failed, Paused, Pending, Ready, RetryWait, Running, Skipped, Verifying,
            Waiting,
        };
        match self {
            Pending => &[Ready, Failed, Cancelled, Skipped],
            Ready => &[Assigned, Paused, Failed, Cancelled, Skipped],
            Assigned => &[Running, Ready, Paused, Cancelled, Skipped],
            Paused => &[Ready, Verifying, Cancelled, Skipped],
            Running => &[
                Waiting, RetryWait, Verifying, Completed, Ready, Paused, Failed, Cancelled, Skipped,
            ],
            Waiting => &[Verifying, Completed, Failed, Cancelled, Skipped],
            RetryWait => &[Ready, Failed, Cancelled, Skipped],
            Verifying => &[Verifying, Ready, Completed, Paused, Failed, Cancelled, Skipped],
            Completed | Failed | Cancelled | Skipped => &[],
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Pending => "PENDING",
            TaskState::Ready => "READY",
            TaskState::Assigned => "ASSIGNED",
            TaskState::Running => "RUNNING",
            TaskState::Waiting => "WAITING",
            TaskState::RetryWait => "RETRY_WAIT",
            TaskState::Verifying => "VERIFYING",
            TaskState::Completed => "COMPLETED",
            TaskState::Failed => "FAILED",
            TaskState::Cancelled => "CANCELLED",
            TaskState::Skipped => "SKIPPED",
            TaskState::Paused => "PAUSED",
        })
    }
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Task {
    /// Its id.
    #[n(0)]
    pub id: TaskId,
    /// Its crew.
    #[n(1)]
    pub crew: CrewId,
    /// The task that it is part of.
    #[n(2)]
    pub parent: Option<TaskId>,
    /// The objective at the top of its tree: itself where it has no parent.
    #[n(3)]
    pub root: TaskId,
    /// Its name in the plan.
    #[n(4)]
    pub name: Option<NodeName>,
    /// 1 for an objective.
    #[n(5)]
    pub depth: u32,
    /// For people.
    #[n(6)]
    pub description: String,
    /// What to work on.
    #[n(7)]
    pub input: Payload,
    /// An agent with one of them may take it; any agent when empty.
    #[n(8)]
    pub roles: BTreeSet<Role>,
    /// Only this agent may take it.
    #[n(9)]
    pub agent: Option<AgentId>,
    /// A planner splits it; it is never executed itself.
    #[n(10)]
    pub plan: bool,
    /// What the planner is told.
    #[n(11)]
    pub notes: Vec<String>,
    /// Another agent checks the result.
    #[n(12)]
    pub check: bool,
    /// Its failure stops nobody.
    #[n(13)]
    pub optional: bool,
    /// Its result is the result of its parent.
    #[n(14)]
    pub integrates: bool,
    /// How often a failed attempt may be tried again.
    #[n(15)]
    pub max_retries: u32,
    /// Live tasks, or tasks of its own tree, whose ends it waits for.
    #[n(16)]
    pub dependencies: Vec<TaskId>,
    /// The ends of dependencies that were archived before it was submitted.
    #[n(17)]
    pub settled: Vec<DependencyEnd>,
    /// Its parts, in the order of the plan.
    #[n(18)]
    pub children: Vec<TaskId>,
    /// For the submitter.
    #[n(19)]
    pub labels: BTreeMap<String, String>,
    /// Seed of everything random about it.
    #[n(20)]
    pub seed: u64,
    /// Its place in the order of creation, which is the order of the queue.
    #[n(21)]
    pub order: u64,
    /// When it was accepted.
    #[n(22)]
    pub created: Time,
    /// Where it is in its life.
    #[n(23)]
    pub state: TaskState,
    /// Rises with every change of the record.
    #[n(24)]
    pub revision: u64,
    /// Attempts begun, checks not counted.
    #[n(25)]
    pub attempts: u32,
    /// Retries used up.
    #[n(26)]
    pub retries: u32,
    /// Attempts that the host failed.
    #[n(27)]
    pub faults: u32,
    /// Rises with every lease.
    #[n(28)]
    pub epoch: u64,
    /// The lease in force.
    #[n(29)]
    pub held: Option<Held>,
    /// Why checkers sent results back, one per round.
    #[n(30)]
    pub remarks: Vec<String>,
    /// The result under check.
    #[n(31)]
    pub candidate: Option<Payload>,
    /// Who made the result.
    #[n(32)]
    pub executed_by: Option<AgentId>,
    /// What it gave.
    #[n(33)]
    pub result: Option<Payload>,
    /// Why it ended without a result; in RETRY_WAIT and after, why the last attempt failed.
    #[n(34)]
    pub failure: Option<Failure>,
    /// Not assigned before; RETRY_WAIT, and VERIFYING where a check failed.
    #[n(35)]
    pub not_before: Option<Time>,
    /// When its first attempt began.
    #[n(36)]
    pub started: Option<Time>,
    /// When it ended.
    #[n(37)]
    pub ended: Option<Time>,
    /// Fuel burned by its attempts, checks included.
    #[n(38)]
    pub fuel: Fuel,
    /// The most memory that one of its attempts held.
    #[n(39)]
    pub peak_memory: Size,
    /// What was refused to its attempts, equal ones counted; at most [`crate::limits::MAX_DENIALS`].
    #[n(40)]
    pub denials: Vec<Denial>,
    /// Who submitted it.
    #[n(41)]
    pub by: String,
    /// Objectives only: tasks in its tree, itself not counted.
    #[n(42)]
    pub nodes: u32,
    /// Where in `children` those of the last plan begin: a result that was sent back is planned anew.
    #[n(43)]
    pub planned_from: u32,
    /// Who was given its last attempt, checks not counted.
    #[n(44)]
    pub last_agent: Option<AgentId>,
    /// It lives in memory and is lost with the process: of it nothing is journaled, nothing written, and only what is refused to it audited.
    #[n(45)]
    #[cbor(skip_if = "std::ops::Not::not")]
    pub ephemeral: bool,
}

impl Task {
    /// What its next attempt calls.
    #[must_use]
    pub fn export(&self) -> Export {
        match self.state {
            TaskState::Verifying => Export::Checker,
            _ if self.plan => Export::Planner,
            _ => Export::Executor,
        }
    }

    /// The children of its last plan.
    #[must_use]
    pub fn parts(&self) -> &[TaskId] {
        let from = usize::try_from(self.planned_from).unwrap_or(usize::MAX);
        self.children.get(from..).unwrap_or_default()
    }

    /// What people call it: its name in the plan, else its id.
    #[must_use]
    pub fn called(&self) -> String {
        self.name
            .as_ref()
            .map_or_else(|| self.id.to_string(), ToString::to_string)
    }
}

/// A text cut to [`MAX_TEXT_BYTES`], at the border of a character.
#[must_use]
pub fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT_BYTES))
        .unwrap_or_default()
        .to_owned()
}
