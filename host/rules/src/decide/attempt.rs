//! What becomes of an attempt: begun, finished, failed, fenced. A result, a plan or a verdict is accepted only from whoever holds the task.

use super::{
    Decision, Reply, approval,
    task::{blank, placed},
};
use crate::{
    agent::Failure,
    approval::{Points, Terms},
    audit::{AuditEntry, Kind},
    event::{Cause, Change, Counts, Event, Source},
    id::{ApprovalId, Digest, TaskId},
    index::Need,
    lifecycle::OnFailure,
    limits::{
        DEFAULT_RETRIES, MAX_CHECK_ROUNDS, MAX_DECISION_BYTES, MAX_DENIALS, MAX_HOST_FAULTS, MAX_LIVE_TASKS,
        MAX_PLAN_NODES, MAX_TASK_DEPTH, TASK_BYTES,
    },
    plan::{Node, NodePoint, Note, Outcome, Payload, Plan, Retry, as_json},
    quantity::{Fuel, Millis, Time},
    reason::Reason,
    retry,
    seam::{Denial, End, Export, Lease, Usage},
    state::encode,
    task::{Draft, Part, Task, TaskState, cut},
};

/// Why a plan was not accepted.
enum Refusal {
    /// The same plan would be refused again.
    Plan(String),
    /// The objective has no room for it.
    Budget(String),
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
        let called = task.held.as_ref().map(|held| held.export);
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
            End::Finished(Outcome::Plan(plan)) if task.state == TaskState::Running => {
                self.planned(&task, called, plan, children);
            }
            end => {
                let change = self.conclude(&task, end);
                self.move_task(lease.task, change);
            }
        }
        Reply::Done
    }

    /// Bills what an attempt used that waited and was dropped: its task goes on by its record, for which nothing is billed again.
    pub(super) fn attempt_evicted(&mut self, lease: Lease, usage: Usage, mut denials: Vec<Denial>) -> Reply {
        let crew = self.state.task(lease.task).map(|task| task.crew);
        let agent = self.state.agent(lease.agent);
        if let (Some(crew), Some(_)) = (crew, agent) {
            denials.truncate(MAX_DENIALS);
            self.denied(crew, lease, &denials);
            self.emit(Event::AttemptUsed { lease, usage, denials });
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
            End::Finished(Outcome::Done(payload)) if !checking && !task.plan => match promised(task, &payload) {
                Ok(()) if task.check => Change::Candidate(Source::Given(payload)),
                Ok(()) => Change::Completed(Source::Given(payload)),
                Err(message) => self.hopeless(task, Failure::new(Reason::InvalidInput, &message)),
            },
            End::Finished(Outcome::Accepted) if checking => Change::Completed(Source::Candidate),
            End::Finished(Outcome::Rejected(remark)) if checking => {
                if task.remarks.len() + 1 >= MAX_CHECK_ROUNDS as usize {
                    let message = format!("sent back {MAX_CHECK_ROUNDS} times, the last time: {remark}");
                    self.hopeless(task, Failure::new(Reason::Verify, &message))
                } else {
                    Change::SentBack(cut(&remark))
                }
            }
            End::Finished(Outcome::Continue(input)) if !checking && input.fits() => Change::Continued(input),
            End::Finished(Outcome::Failed { message, retry }) => {
                let failure = Failure::new(Reason::Error, &message);
                match retry {
                    Retry::Never => self.hopeless(task, failure),
                    Retry::Later => self.again(task, failure, None),
                    Retry::After(wish) => self.again(task, failure, Some(retry::advised(wish))),
                }
            }
            End::Finished(_) => self.hopeless(
                task,
                Failure::new(
                    Reason::InvalidInput,
                    "the agent answered something else than was asked of it",
                ),
            ),
            End::Stopped { reason, message } => self.again(task, Failure::new(reason, &message), None),
            End::Overload { message } => self.overloaded(task, &message),
            End::Diverged { step, expected, got } => {
                let message = format!("at step {step} the record says {expected}, the attempt did {got}");
                Change::Paused(Failure::new(Reason::Diverged, &message))
            }
            End::HostFault { message } => self.fault(task, &message),
            End::Cancelled | End::Fenced => self.fault(task, "the runner ended an attempt that still held its task"),
        }
    }

    /// A retry where one can help and there are any left.
    fn again(&self, task: &Task, failure: Failure, delay: Option<Millis>) -> Change {
        if task.fuel_left() == Some(Fuel(0)) {
            let message = format!("its share of the fuel of the objective is used up: {}", failure.message);
            return self.hopeless(task, Failure::new(Reason::BudgetExhausted, &message));
        }
        if !retry::may_help(failure.reason) || task.retry.not_again.contains(&failure.reason) {
            return self.hopeless(task, failure);
        }
        if task.retries >= task.max_retries {
            return self.exhausted(task, failure);
        }
        let delay = delay.unwrap_or_else(|| task.retry.delay(task.seed, task.retries + 1));
        Change::Retry {
            not_before: self.now.after(delay),
            failure,
            counts: Counts::Retry,
        }
    }

    fn fault(&self, task: &Task, message: &str) -> Change {
        let failure = Failure::new(Reason::HostFault, message);
        if task.faults >= MAX_HOST_FAULTS {
            return self.exhausted(task, failure);
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

    /// What follows from a plan: its tasks, or first the turn of a sequencer where the crew has one and a planner made it.
    fn planned(&mut self, task: &Task, called: Option<Export>, plan: Plan, ids: &[TaskId]) {
        let draft = task.draft.as_ref().map(|draft| &draft.plan);
        let refused = match (called, draft) {
            (Some(Export::Planner), _) => plan.check_notes(&task.notes).err(),
            (Some(Export::Sequencer), Some(draft)) => plan.keeps(draft).err(),
            _ => None,
        };
        let sequencer = Need::any(Export::Sequencer);
        let is_draft = called == Some(Export::Planner) && self.can_serve(task.crew, &sequencer).is_ok();
        match refused.or_else(|| plan.check().err().filter(|_| is_draft)) {
            Some(error) => self.refuse_plan(task, Refusal::Plan(error.to_string())),
            // It is journaled whole.
            None if is_draft => match encode(&plan).len() {
                0..=MAX_DECISION_BYTES => self.move_task(task.id, Change::Drafted(Box::new(plan))),
                bytes => self.refuse_plan(task, too_large(bytes)),
            },
            None => match self.children(task, plan, ids) {
                Ok(children) => self.split(task.id, children),
                Err(refusal) => self.refuse_plan(task, refusal),
            },
        }
    }

    /// Gives a task its children.
    fn split(&mut self, id: TaskId, children: Vec<Task>) {
        self.move_task(id, Change::Split);
        for child in children {
            self.accept(child);
        }
    }

    fn refuse_plan(&mut self, task: &Task, refusal: Refusal) {
        let (reason, message) = match refusal {
            Refusal::Plan(message) => (Reason::InvalidInput, message),
            Refusal::Budget(message) => (Reason::BudgetExhausted, message),
            // Of a plan that was given there is no attempt that could be made again.
            Refusal::Room(message) if task.state == TaskState::Running => {
                let change = self.overloaded(task, &message);
                return self.move_task(task.id, change);
            }
            Refusal::Room(message) => (Reason::Overloaded, message),
        };
        let failure = Failure::new(reason, &format!("the plan was refused: {message}"));
        let change = match task.state {
            TaskState::Running => self.hopeless(task, failure),
            _ => Change::Failed(Cause::Own(failure)),
        };
        self.move_task(task.id, change);
    }

    /// Carries out the plans that were given and have their turn.
    pub(super) fn split_given(&mut self) -> bool {
        let mut any = false;
        while let Some(id) = self.state.index.given.first().copied() {
            let Some(task) = self.state.task(id).cloned() else {
                return any;
            };
            let Some(draft) = task.draft.as_ref() else {
                return any;
            };
            // It makes a whole tree, and what was decided before may fill the frame already.
            if !self.step() || self.is_crowded(encode(draft).len() + draft.plan.nodes.len() * TASK_BYTES) {
                self.stride = 0;
                return false;
            }
            let ids = 0..draft.plan.nodes.len() as u64;
            let ids: Vec<TaskId> = ids.map(|index| derived_id(&task, index, self.now)).collect();
            match self.children(&task, draft.plan.clone(), &ids) {
                Ok(children) => self.split(id, children),
                Err(refusal) => self.refuse_plan(&task, refusal),
            }
            any = true;
        }
        any
    }

    /// The records of a plan's nodes, every rule checked.
    fn children(&self, parent: &Task, plan: Plan, ids: &[TaskId]) -> Result<Vec<Task>, Refusal> {
        let order = plan.check().map_err(|error| Refusal::Plan(error.to_string()))?;
        if parent.depth >= MAX_TASK_DEPTH {
            return Err(Refusal::Budget(format!("tasks nest at most {MAX_TASK_DEPTH} deep")));
        }
        let under = self.state.task(parent.root).map_or(0, |root| root.nodes);
        let total = plan
            .nodes
            .len()
            .saturating_add(usize::try_from(under).unwrap_or(usize::MAX));
        if total > MAX_PLAN_NODES {
            return Err(Refusal::Budget(format!(
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
        // One share stays, for a check, or another plan when the result is sent back.
        let budget = parent.fuel_left().map(|left| Fuel(left.0 / (ids.len() as u64 + 1)));
        if budget == Some(Fuel(0)) {
            return Err(Refusal::Budget("no fuel is left for its tasks".to_owned()));
        }
        let verify = plan.verify_before_next;
        let mut bytes = 0;
        let mut children = Vec::with_capacity(plan.nodes.len());
        for (((node, waits), id), index) in plan.nodes.into_iter().zip(order.waits).zip(ids).zip(0_u64..) {
            let name = node.name.clone();
            let mut dependencies: Vec<TaskId> = waits.iter().filter_map(|at| ids.get(*at).copied()).collect();
            dependencies.sort_unstable();
            let child = self.child(parent, node, *id, index);
            let check = child.check || verify && child.draft.is_none();
            let child = placed(self.guarded(Task {
                dependencies,
                check,
                budget,
                ..child
            }));
            let refuse = |why: String| Refusal::Plan(format!("`{name}`: {why}"));
            let points = child.points.as_ref();
            points
                .map_or(Ok(()), |points| approval::points(points, child.ephemeral))
                .map_err(refuse)?;
            self.servable(&child).map_err(|rejection| refuse(rejection.message))?;
            bytes += encode(&child).len();
            children.push(child);
        }
        if bytes > MAX_DECISION_BYTES {
            return Err(too_large(bytes));
        }
        Ok(children)
    }

    fn child(&self, parent: &Task, node: Node, id: TaskId, index: u64) -> Task {
        let noted = |note: &&Note| Some(&note.name) == node.note.as_ref();
        let notes = parent.notes.iter().filter(noted).cloned();
        let notes: Vec<Note> = notes.filter(|_| node.plan || node.parts.is_some()).collect();
        let seed = retry::child_seed(
            parent.run_seed(),
            u64::from(parent.planned_from) + parent.children.len() as u64 + index,
        );
        let points = node.approval.map(|point| {
            let id = ApprovalId::drawn(random_id(seed, id, self.now));
            Points {
                before: Some(id).filter(|_| point == NodePoint::Before),
                after: Some(id).filter(|_| point == NodePoint::After),
                terms: Terms::default(),
            }
        });
        let part = Part {
            lane: node.lane,
            note: node.note,
            output: node.output,
            slots: node.slots,
            priority: node.priority,
        };
        Task {
            parent: Some(parent.id),
            root: parent.root,
            name: Some(node.name),
            depth: parent.depth + 1,
            description: node.description,
            input: node.input,
            roles: node.roles,
            plan: node.plan,
            notes,
            draft: node.parts.map(|plan| Box::new(Draft { plan, given: true })),
            check: node.check,
            optional: node.optional || parent.on_failure == OnFailure::Collect,
            integrates: node.integrates,
            max_retries: node.max_retries.unwrap_or(DEFAULT_RETRIES),
            retry: node.retry,
            timeouts: node.timeouts,
            seed,
            order: self.state.next_order() + index,
            created: self.now,
            by: parent.by.clone(),
            ephemeral: parent.ephemeral,
            priority: node.priority.unwrap_or(parent.priority),
            on_failure: parent.on_failure,
            points,
            part: (part != Part::default()).then(|| Box::new(part)),
            ..blank(id, parent.crew)
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
            Some(child) if child.state == TaskState::Completed => {
                let result = child.result.as_ref();
                if let Some(Err(message)) = result.map(|result| promised(task, result)) {
                    return Change::Failed(Cause::Own(Failure::new(Reason::InvalidInput, &message)));
                }
                Source::Child(child.id)
            }
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

fn too_large(bytes: usize) -> Refusal {
    Refusal::Plan(format!(
        "its tasks have {bytes} bytes, at most {MAX_DECISION_BYTES}; put large inputs in artifacts"
    ))
}

/// Whether a result is what its task may give.
fn promised(task: &Task, result: &Payload) -> Result<(), String> {
    if !result.fits() {
        return Err("the result is larger than 256 KiB; store it as an artifact".to_owned());
    }
    let schema = task.part.as_ref().and_then(|part| part.output.as_ref());
    let allowed = schema.map_or(Ok(()), |schema| schema.allows(&as_json(result)));
    allowed.map_err(|why| format!("the result is not what the plan says of it: {why}"))
}

/// The id of a task that follows from a plan that was given: the same however often it is carried out after a crash.
fn derived_id(task: &Task, index: u64, now: Time) -> TaskId {
    let seed = retry::child_seed(task.seed, u64::from(task.run) << 32 | index);
    random_id(seed, task.id, now)
}

/// A UUIDv7 whose random bits follow from a seed, which nobody outside knows, and another id.
pub(super) fn random_id(seed: u64, of: TaskId, now: Time) -> TaskId {
    let digest = Digest::of(&[of.to_bytes().as_slice(), &seed.to_be_bytes()].concat());
    TaskId::of_digest(digest, now, of.shard())
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
