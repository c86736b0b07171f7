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
    approval::{Asks, Points},
    id::{AgentId, CrewId, Digest, NodeName, Role, TaskId},
    lease::Held,
    lifecycle::{Hold, OnFailure, Past, Timeouts},
    limits::{MAX_CHECK_ROUNDS, MAX_TEXT_BYTES},
    message::Delivery,
    plan::{self, Node, NodePoint, Note, Payload, Plan, Slot},
    priority::Priority,
    quantity::{Fuel, Size, Time},
    reason::Reason,
    retry::{OnExhausted, Policy, child_seed},
    schema::Schema,
    seam::{Denial, DependencyEnd, Export, TaskView},
    state::none,
    step::Asked,
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
    /// Its children work, or its run waits for a step: nobody holds it.
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
    /// It waits for a person to approve something: its run, its result, or what its agent is about to do.
    #[n(100)]
    AwaitingApproval,
    /// Its agent has asked a person, and cannot go on without an answer.
    #[n(101)]
    Blocked,
    /// A person has not approved it.
    #[n(102)]
    Rejected,
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
        TaskState::AwaitingApproval,
        TaskState::Blocked,
        TaskState::Rejected,
    ];

    /// Nothing follows.
    #[must_use]
    pub fn is_ended(self) -> bool {
        self.leaves_to().is_empty()
    }

    /// Nothing happens before a person does something, or time runs out.
    #[must_use]
    pub fn waits_for_person(self) -> bool {
        matches!(
            self,
            TaskState::Paused | TaskState::AwaitingApproval | TaskState::Blocked
        )
    }

    /// Where it may go from here; the only transitions there are. VERIFYING to itself is the lease of a checker given or lost.
    #[must_use]
    pub fn leaves_to(self) -> &'static [TaskState] {
        use TaskState::{
            Assigned, AwaitingApproval, Blocked, Cancelled, Completed, Failed, Paused, Pending, Ready, Rejected,
            RetryWait, Running, Skipped, Verifying, Waiting,
        };
        match self {
            Pending => &[Ready, AwaitingApproval, Paused, Completed, Failed, Cancelled, Skipped],
            Ready => &[Assigned, Waiting, Paused, Completed, Failed, Cancelled, Skipped],
            Assigned => &[Running, Ready, Paused, Completed, Failed, Cancelled, Skipped],
            Paused => &[
                Pending, Ready, Waiting, Verifying, Completed, Failed, Cancelled, Skipped,
            ],
            Running => &[
                Waiting,
                AwaitingApproval,
                Blocked,
                RetryWait,
                Verifying,
                Completed,
                Ready,
                Paused,
                Failed,
                Cancelled,
                Skipped,
            ],
            Waiting => &[
                Ready,
                Verifying,
                AwaitingApproval,
                Paused,
                Completed,
                Failed,
                Cancelled,
                Skipped,
            ],
            RetryWait => &[Ready, Paused, Completed, Failed, Cancelled, Skipped],
            Verifying => &[
                Verifying,
                Ready,
                AwaitingApproval,
                Completed,
                Paused,
                Failed,
                Cancelled,
                Skipped,
            ],
            AwaitingApproval => &[Ready, Completed, Rejected, Failed, Cancelled, Skipped],
            Blocked => &[Ready, Paused, Completed, Failed, Cancelled, Skipped],
            Completed | Failed | Cancelled | Skipped | Rejected => &[],
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
            TaskState::AwaitingApproval => "AWAITING_APPROVAL",
            TaskState::Blocked => "BLOCKED",
            TaskState::Rejected => "REJECTED",
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
    pub notes: Vec<Note>,
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
    /// Runs before this one. A run begins with an empty record; attempts that were lost are continued within it.
    #[n(46)]
    #[cbor(skip_if = "none")]
    pub run: u32,
    /// Steps on the record of this run.
    #[n(47)]
    #[cbor(skip_if = "none")]
    pub steps: u64,
    /// What they take together, in bytes.
    #[n(48)]
    #[cbor(skip_if = "none")]
    pub record_bytes: u64,
    /// When the last of them was.
    #[n(49)]
    pub stepped: Option<Time>,
    /// The component that has made them: only that can continue the run.
    #[n(50)]
    pub pinned: Option<Digest>,
    /// When the run began: where its clock stands before its first step.
    #[n(51)]
    pub began: Option<Time>,
    /// What the host knew when the run began, as JSON; integration tasks only.
    #[n(52)]
    #[cbor(with = "minicbor::bytes")]
    pub facts: Option<Vec<u8>>,
    /// What the attempt waits for that gave its lease back.
    #[n(53)]
    pub wait: Option<Wait>,
    /// How a failed attempt is tried again, beside how often.
    #[n(54)]
    #[cbor(skip_if = "none")]
    pub retry: Policy,
    /// Its lane.
    #[n(55)]
    #[cbor(skip_if = "none")]
    pub priority: Priority,
    /// How long it may take.
    #[n(56)]
    #[cbor(skip_if = "none")]
    pub timeouts: Timeouts,
    /// Since when it waits for a slot, while it does.
    #[n(57)]
    pub queued: Option<Time>,
    /// Its attempts that failed, checks included, the newest last; at most [`crate::limits::MAX_HISTORY`].
    #[n(58)]
    #[cbor(skip_if = "Vec::is_empty")]
    pub history: Vec<Past>,
    /// What becomes of it when one of its parts fails.
    #[n(59)]
    #[cbor(skip_if = "none")]
    pub on_failure: OnFailure,
    /// The dead letter that it tries again.
    #[n(60)]
    pub redrives: Option<TaskId>,
    /// Why it is PAUSED, where that says how it goes on.
    #[n(61)]
    pub hold: Option<Hold>,
    /// It hands a message to a mailbox.
    #[n(80)]
    pub delivery: Option<Delivery>,
    /// Where it is not to go on without a person's word.
    #[n(66)]
    pub points: Option<Points>,
    /// The approval that it waits for.
    #[n(67)]
    pub asks: Option<Asks>,
    /// Actions that a person has allowed for the rest of this run.
    #[n(68)]
    #[cbor(skip_if = "Vec::is_empty")]
    pub always: Vec<String>,
    /// What its plan says of it that most plans do not say.
    #[n(70)]
    pub part: Option<Box<Part>>,
    /// A plan that is there and not carried out: a sequencer puts it in order, or its turn has not come.
    #[n(71)]
    pub draft: Option<Box<Draft>>,
    /// Fuel that it and all beneath it may burn.
    #[n(72)]
    pub budget: Option<Fuel>,
}

/// What a plan says of one of its tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    /// Its lane in the plan.
    #[n(0)]
    pub lane: Option<NodeName>,
    /// The note that it came from.
    #[n(1)]
    pub note: Option<String>,
    /// What its output will be.
    #[n(2)]
    pub output: Option<Schema>,
    /// Fields of its input that are outputs of tasks that it depends on.
    #[n(3)]
    pub slots: Vec<Slot>,
    /// Its priority, where that is not left to the task that was split.
    #[n(4)]
    pub priority: Option<Priority>,
}

/// A plan before it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Draft {
    /// It.
    #[n(0)]
    pub plan: Plan,
    /// The submitter gave it: it is carried out as it is.
    #[n(1)]
    pub given: bool,
}

/// What a run waits for between two attempts: a step that will be answered later.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Wait {
    /// The step.
    #[n(0)]
    pub asked: Asked,
    /// Children, in the order asked; none where it sleeps.
    #[n(1)]
    pub tasks: Vec<TaskId>,
    /// All of them, rather than the first.
    #[n(2)]
    pub all: bool,
    /// Until when.
    #[n(3)]
    pub until: Option<Time>,
    /// The delivery of its request, where it waits for an answer.
    #[n(80)]
    pub request: Option<TaskId>,
}

impl Task {
    /// What its next attempt calls.
    #[must_use]
    pub fn export(&self) -> Export {
        match self.state {
            TaskState::Verifying => Export::Checker,
            _ if self.delivery.is_some() => Export::Mailbox,
            _ if self.draft.is_some() => Export::Sequencer,
            _ if self.plan => Export::Planner,
            _ => Export::Executor,
        }
    }

    /// The task as the attempts of this run see it, once one of them has begun; `live` are the ends of its dependencies. An attempt that runs in
    /// the sandbox again, wherever that is, is to be given this.
    #[must_use]
    pub fn view(&self, live: impl IntoIterator<Item = DependencyEnd>) -> TaskView {
        let dependencies: Vec<DependencyEnd> = self.settled.iter().cloned().chain(live).collect();
        TaskView {
            attempt: self.run + 1,
            description: self.description.clone(),
            input: match self.part.as_ref().map_or(&[][..], |part| &part.slots) {
                [] => self.input.clone(),
                slots => filled(&self.input, slots, &dependencies),
            },
            dependencies,
            facts: self.facts.clone(),
            remarks: self.remarks.clone(),
            seed: self.run_seed(),
            records: !self.ephemeral,
            deadline: self.timeouts.start_to_close,
            fuel: self.fuel_left(),
            began: self.began.unwrap_or(self.created),
        }
    }

    /// Fuel that its attempts may still burn, where it has a budget.
    #[must_use]
    pub fn fuel_left(&self) -> Option<Fuel> {
        self.budget.map(|budget| Fuel(budget.0.saturating_sub(self.fuel.0)))
    }

    /// Whether a plan that its submitter gave waits for nothing more.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.state == TaskState::Ready && self.draft.as_ref().is_some_and(|draft| draft.given)
    }

    /// Whether it waits for its parts, as a task does that was split; not for a step of its run.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.state == TaskState::Waiting && self.wait.is_none()
    }

    /// When it is too late to begin it: a message that nobody has begun to receive.
    #[must_use]
    pub fn expires(&self) -> Option<Time> {
        let waits = matches!(self.state, TaskState::Pending | TaskState::Ready | TaskState::RetryWait);
        let delivery = self.delivery.as_ref().filter(|_| waits && self.steps == 0);
        delivery.map(|delivery| delivery.expires)
    }

    /// The seed of this run: each has its own.
    #[must_use]
    pub fn run_seed(&self) -> u64 {
        match self.run {
            0 => self.seed,
            run => child_seed(self.seed, 1 << 40 | u64::from(run)),
        }
    }

    /// What becomes of it when its attempts are used up. A person can be waited for only where one has asked for it, and where it outlives the
    /// host; for a message nobody waits, and those behind it do not wait either.
    #[must_use]
    pub fn on_exhausted(&self) -> OnExhausted {
        let own = self.parent.is_none() && !self.ephemeral && self.delivery.is_none();
        let usual = if own { OnExhausted::Pause } else { OnExhausted::Fail };
        self.retry.on_exhausted.unwrap_or(usual)
    }

    /// Whether every failure of it goes up, because whoever submitted the objective said so.
    #[must_use]
    pub fn escalates(&self) -> bool {
        self.parent.is_some() && self.on_failure == OnFailure::Escalate
    }

    /// Whether whoever has split it can be asked for another way: an agent has, and not too often yet.
    #[must_use]
    pub fn may_split_anew(&self) -> bool {
        let given = self.draft.as_ref().is_some_and(|draft| draft.given);
        self.is_split() && !given && self.remarks.len() + 1 < MAX_CHECK_ROUNDS as usize
    }

    /// When it fails, whatever it does then.
    #[must_use]
    pub fn close_by(&self) -> Option<Time> {
        let timeout = self.timeouts.schedule_to_close?;
        (!self.state.is_ended()).then(|| self.created.after(timeout))
    }

    /// When it fails unless it has been leased by then.
    #[must_use]
    pub fn start_by(&self) -> Option<Time> {
        let timeout = self.timeouts.schedule_to_start?;
        let queued = self.queued.filter(|_| self.state == TaskState::Ready)?;
        Some(queued.after(timeout))
    }

    /// The node of a plan that it was made of, [spelled out](Plan::spelled_out); none where it was not. `name_of` knows what it depends on.
    pub fn node(&self, name_of: impl Fn(TaskId) -> Option<NodeName>) -> Option<Node> {
        let part = self.part.as_deref().cloned().unwrap_or_default();
        let approval = self.points.map(|points| match points.before {
            Some(_) => NodePoint::Before,
            None => NodePoint::After,
        });
        let mut dependencies: Vec<NodeName> = self.dependencies.iter().filter_map(|id| name_of(*id)).collect();
        dependencies.sort_unstable();
        Some(Node {
            description: self.description.clone(),
            roles: self.roles.clone(),
            input: self.input.clone(),
            dependencies,
            check: self.check,
            optional: self.optional,
            integrates: self.integrates,
            max_retries: Some(self.max_retries),
            retry: self.retry.clone(),
            timeouts: self.timeouts,
            plan: self.plan,
            lane: part.lane,
            priority: part.priority,
            approval,
            note: part.note,
            output: part.output,
            slots: part.slots,
            ..Node::named(self.name.clone()?)
        })
    }

    /// The children of its last plan, or of this run.
    #[must_use]
    pub fn parts(&self) -> &[TaskId] {
        let from = usize::try_from(self.planned_from).unwrap_or(usize::MAX);
        self.children.get(from..).unwrap_or_default()
    }

    /// How it ended, for the parent that awaits it: named by its id.
    #[must_use]
    pub fn end_as_child(&self) -> DependencyEnd {
        DependencyEnd {
            name: self.id.to_string(),
            ..self.end()
        }
    }

    /// How it ended, for one that depends on it.
    #[must_use]
    pub fn end(&self) -> DependencyEnd {
        let reason = self.failure.as_ref().map_or(Reason::Error, |failure| failure.reason);
        DependencyEnd {
            name: self.called(),
            output: self.result.clone().ok_or(reason),
            skipped: matches!(self.state, TaskState::Skipped | TaskState::Cancelled),
        }
    }

    /// What people call it: its name in the plan, else its id.
    #[must_use]
    pub fn called(&self) -> String {
        self.name
            .as_ref()
            .map_or_else(|| self.id.to_string(), ToString::to_string)
    }
}

/// An input with the outputs that belong in it, each under its field: JSON as it is, other text as a string, other bytes as `{"$hex": …}`, an artifact as
/// `{"$artifact": {"digest", "size", "media"}}`, what did not come about as `null`.
fn filled(input: &Payload, slots: &[Slot], ends: &[DependencyEnd]) -> Payload {
    let mut fields = plan::object(input).unwrap_or_default();
    for slot in slots {
        let end = ends.iter().find(|end| end.name == slot.node.as_str());
        let output = end.and_then(|end| end.output.as_ref().ok());
        fields.insert(
            slot.field.clone(),
            output.map_or(serde_json::Value::Null, plan::as_json),
        );
    }
    Payload::Inline(serde_json::Value::Object(fields).to_string().into_bytes())
}

/// A text cut to [`MAX_TEXT_BYTES`], at the border of a character.
#[must_use]
pub fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT_BYTES))
        .unwrap_or_default()
        .to_owned()
}
