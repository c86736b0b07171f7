//! What becomes of an attempt: begun, finished, failed, fenced. A result, a plan or a verdict is accepted only from whoever holds the task.

use std::collections::BTreeMap;

use super::{Decision, Reply, task::blank, task::first_state};
use crate::{
    agent::Failure,
    audit::{AuditEntry, Kind},
    event::{Cause, Change, Counts, Event, Source},
    id::{NodeName, TaskId},
    limits::{
        DEFAULT_RETRIES, MAX_CHECK_ROUNDS, MAX_DECISION_BYTES, MAX_DENIALS, MAX_HOST_FAULTS, MAX_LIVE_TASKS,
        MAX_PLAN_NODES, MAX_TASK_DEPTH,
    },
    plan::{Node, Outcome, Payload, Plan, Retry},
    quantity::Millis,
    reason::Reason,
    retry,
    seam::{Denial, End, Lease, Usage},
    state::encode,
    task::{Task, TaskState, cut},
};

/// Why a plan was not accepted.
enum Refusal {
    /// The same plan would be refused again.
    Plan(String),
    /// The host has no room for it now.
    Room(String),
}

impl Decision<'_> {
    /// The task that a lease holds right now.
    pub(super) fn holder(&self, lease: &Lease) -> Option<&Task> {
        let holds = |task: &&Task| task.held.as_ref().is_some_and(|held| held.lease == *lease);
        self.state.task(lease.task).filter(holds)
    }

    pub(super) fn attempt_started(&mut self, lease: Lease) -> Reply {
        match self.holder(&lease).and_then(|task| task.held.as_ref()) {
            None => Reply::Fenced,
            Some(held) if held.started => Reply::Done,
            Some(_) => {
                self.move_task(lease.task, Change::Started);
                Reply::Done
            }
        }
    }

    pub(super) fn attempt_ended(
        &mut self,
        lease: Lease,
        end: End,
        usage: Usage,
        mut denials: Vec<Denial>,
        children: &[TaskId],
    ) -> Reply {
        let Some(task) = self.holder(&lease) else {
            return self.fenced(lease, &end);
        };
        let (crew, started) = (task.crew, task.held.as_ref().is_some_and(|held| held.started));
        denials.truncate(MAX_DENIALS);
        if !started {
            self.move_task(lease.task, Change::Started);
        }
        self.denied(crew, lease, &denials);
        self.emit(Event::AttemptUsed { lease, usage, denials });
        let Some(task) = self.state.task(lease.task).cloned() else {
            return Reply::Fenced;
        };
        match end {
            End::Finished(Outcome::Plan(plan)) if task.state == TaskState::Running => self.split(&task, plan, children),
            end => {
                let change = self.conclude(&task, end);
                self.move_task(lease.task, change);
            }
        }
        Reply::Done
    }

    /// Tells the audit log of an attempt that was overtaken. One that was told to stop says so and is no news.
    pub(super) fn fenced(&mut self, lease: Lease, end: &End) -> Reply {
        if !matches!(end, End::Cancelled | End::Fenced) {
            let detail = format!("epoch {} generation {}", lease.epoch, lease.generation);
            let entry = AuditEntry {
                agent: Some(lease.agent),
                task: Some(lease.task),
                reason: Some(Reason::Fenced),
                crew: self.state.agent(lease.agent).map(|agent| agent.crew),
                ..self.entry(Kind::AttemptFenced, detail)
            };
            self.emit(Event::AttemptFenced { lease });
            self.note(entry);
        }
        Reply::Fenced
    }

    /// What follows for a task from the end of its attempt, plans aside.
    fn conclude(&self, task: &Task, end: End) -> Change {
        let checking = task.state == TaskState::Verifying;
        match end {
            End::Finished(Outcome::Done(payload)) if !checking && !task.plan => match payload.fits() {
                true if task.check => Change::Candidate(Source::Given(payload)),
                true => Change::Completed(Source::Given(payload)),
                false => failed(Failure::new(
                    Reason::InvalidInput,
                    "the result is larger than 256 KiB; store it as an artifact",
                )),
            },
            End::Finished(Outcome::Accepted) if checking => Change::Completed(Source::Candidate),
            End::Finished(Outcome::Rejected(remark)) if checking => {
                if task.remarks.len() + 1 >= MAX_CHECK_ROUNDS as usize {
                    let message = format!("sent back {MAX_CHECK_ROUNDS} times, the last time: {remark}");
                    failed(Failure::new(Reason::Verify, &message))
                } else {
                    Change::SentBack(cut(&remark))
                }
            }
            End::Finished(Outcome::Continue(input)) if !checking && input.fits() => Change::Continued(input),
            End::Finished(Outcome::Failed { message, retry }) => {
                let failure = Failure::new(Reason::Error, &message);
                match retry {
                    Retry::Never => failed(failure),
                    Retry::Later => self.again(task, failure, None),
                    Retry::After(wish) => self.again(task, failure, Some(retry::advised(wish))),
                }
            }
            End::Finished(_) => failed(Failure::new(
                Reason::InvalidInput,
                "the agent answered something else than was asked of it",
            )),
            End::Stopped { reason, message } => {
                let failure = Failure::new(reason, &message);
                if may_repeat(reason) {
                    self.again(task, failure, None)
                } else {
                    failed(failure)
                }
            }
            End::Overload { message } => self.overloaded(task, &message),
            End::Diverged { step, expected, got } => {
                let message = format!("at step {step} the record says {expected}, the attempt did {got}");
                Change::Paused(Failure::new(Reason::Diverged, &message))
            }
            End::HostFault { message } => self.fault(task, &message),
            End::Cancelled | End::Fenced => self.fault(task, "the runner ended an attempt that still held its task"),
        }
    }

    /// A retry while there are any left, else the failure itself.
    fn again(&self, task: &Task, failure: Failure, delay: Option<Millis>) -> Change {
        if task.retries >= task.max_retries {
            return failed(failure);
        }
        let delay = delay.unwrap_or_else(|| retry::delay(task.seed, task.retries + 1));
        Change::Retry {
            not_before: self.now.after(delay),
            failure,
            counts: Counts::Retry,
        }
    }

    fn fault(&self, task: &Task, message: &str) -> Change {
        let failure = Failure::new(Reason::HostFault, message);
        if task.faults >= MAX_HOST_FAULTS {
            return failed(failure);
        }
        Change::Retry {
            not_before: self.now.after(retry::delay(task.seed, task.faults + 1)),
            failure,
            counts: Counts::Fault,
        }
    }

    fn overloaded(&self, task: &Task, message: &str) -> Change {
        // The epoch rises with every lease, so a host that stays full is asked ever more rarely.
        let step = u32::try_from(task.epoch).unwrap_or(u32::MAX);
        Change::Retry {
            not_before: self.now.after(retry::delay(task.seed, step)),
            failure: Failure::new(Reason::Overloaded, message),
            counts: Counts::Nothing,
        }
    }

    /// Makes the children of a task, all or none.
    fn split(&mut self, task: &Task, plan: Plan, ids: &[TaskId]) {
        match self.children(task, plan, ids) {
            Ok(children) => {
                self.move_task(task.id, Change::Split);
                for child in children {
                    self.accept(child);
                }
            }
            Err(Refusal::Plan(message)) => {
                let failure = Failure::new(Reason::InvalidInput, &format!("the plan was refused: {message}"));
                self.move_task(task.id, failed(failure));
            }
            Err(Refusal::Room(message)) => {
                let change = self.overloaded(task, &message);
                self.move_task(task.id, change);
            }
        }
    }

    /// The records of a plan's nodes, every rule checked.
    fn children(&self, parent: &Task, plan: Plan, ids: &[TaskId]) -> Result<Vec<Task>, Refusal> {
        plan.check().map_err(|error| Refusal::Plan(error.to_string()))?;
        if parent.depth >= MAX_TASK_DEPTH {
            return Err(Refusal::Plan(format!("tasks nest at most {MAX_TASK_DEPTH} deep")));
        }
        let under = self.state.task(parent.root).map_or(0, |root| root.nodes);
        let total = plan
            .nodes
            .len()
            .saturating_add(usize::try_from(under).unwrap_or(usize::MAX));
        if total > MAX_PLAN_NODES {
            return Err(Refusal::Plan(format!(
                "one objective has at most {MAX_PLAN_NODES} tasks beneath it, this would make {total}"
            )));
        }
        if self.state.live_tasks() + plan.nodes.len() > MAX_LIVE_TASKS {
            return Err(Refusal::Room(format!(
                "the host holds {MAX_LIVE_TASKS} live tasks already"
            )));
        }
        let fresh = ids.iter().all(|id| self.state.task(*id).is_none());
        if ids.len() != plan.nodes.len() || !fresh {
            return Err(Refusal::Room("the host drew too few ids for the plan".to_owned()));
        }
        let named: BTreeMap<NodeName, TaskId> = plan
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .zip(ids.iter().copied())
            .collect();
        let mut bytes = 0;
        let mut children = Vec::with_capacity(plan.nodes.len());
        for ((node, id), index) in plan.nodes.into_iter().zip(ids).zip(0_u64..) {
            let name = node.name.clone();
            let child = self.child(parent, node, *id, index, &named);
            self.servable(&child)
                .map_err(|rejection| Refusal::Plan(format!("`{name}`: {}", rejection.message)))?;
            bytes += encode(&child).len();
            children.push(child);
        }
        if bytes > MAX_DECISION_BYTES {
            return Err(Refusal::Plan(format!(
                "its tasks have {bytes} bytes, at most {MAX_DECISION_BYTES}; put large inputs in artifacts"
            )));
        }
        Ok(children)
    }

    fn child(&self, parent: &Task, node: Node, id: TaskId, index: u64, named: &BTreeMap<NodeName, TaskId>) -> Task {
        let mut dependencies: Vec<TaskId> = node
            .dependencies
            .iter()
            .filter_map(|name| named.get(name).copied())
            .collect();
        dependencies.sort_unstable();
        dependencies.dedup();
        let task = Task {
            parent: Some(parent.id),
            root: parent.root,
            name: Some(node.name),
            depth: parent.depth + 1,
            description: node.description,
            input: node.input,
            roles: node.roles,
            check: node.check,
            optional: node.optional,
            integrates: node.integrates,
            max_retries: node.max_retries.unwrap_or(DEFAULT_RETRIES),
            dependencies,
            seed: retry::child_seed(
                parent.run_seed(),
                u64::from(parent.planned_from) + parent.children.len() as u64 + index,
            ),
            order: self.state.next_order() + index,
            created: self.now,
            by: parent.by.clone(),
            ephemeral: parent.ephemeral,
            ..blank(id, parent.crew)
        };
        Task {
            state: first_state(&task),
            ..task
        }
    }

    /// The change that follows when the children of a task have all ended.
    pub(super) fn join(&self, task: &Task) -> Change {
        let failed = self
            .state
            .index
            .doom_of(task.id)
            .and_then(|child| self.state.task(child));
        if let Some(child) = failed {
            return Change::Failed(Cause::Task(child.id));
        }
        let parts: Vec<&Task> = task.parts().iter().filter_map(|id| self.state.task(*id)).collect();
        let output = parts.iter().find(|part| part.integrates).or_else(|| only_sink(&parts));
        let source = match output {
            Some(child) if child.state == TaskState::Completed => Source::Child(child.id),
            Some(child) => return Change::Failed(Cause::Task(child.id)),
            None => Source::Given(summary(&parts)),
        };
        if task.check {
            Change::Candidate(source)
        } else {
            Change::Completed(source)
        }
    }
}

fn failed(failure: Failure) -> Change {
    Change::Failed(Cause::Own(failure))
}

/// The one task that no other waits for, if there is exactly one.
fn only_sink<'a, 'b>(parts: &'a [&'b Task]) -> Option<&'a &'b Task> {
    let needed: std::collections::BTreeSet<TaskId> = parts
        .iter()
        .flat_map(|part| part.dependencies.iter().copied())
        .collect();
    let mut sinks = parts.iter().filter(|part| !needed.contains(&part.id));
    sinks.next().filter(|_| sinks.next().is_none())
}

/// The result of a plan of which no node gives one: a JSON array of `{"name", "state"}`, in the order of the plan.
fn summary(parts: &[&Task]) -> Payload {
    let rows = parts
        .iter()
        .map(|part| serde_json::json!({ "name": part.called(), "state": part.state.to_string() }));
    Payload::Inline(serde_json::Value::Array(rows.collect()).to_string().into_bytes())
}

/// Whether a second attempt could end otherwise.
fn may_repeat(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::CapabilityDenied
            | Reason::InvalidManifest
            | Reason::InvalidInput
            | Reason::UnsupportedImport
            | Reason::CompileLimit
            | Reason::NotAComponent
            | Reason::MessageExpired
    )
}
