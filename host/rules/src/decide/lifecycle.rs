//! What people ask of tasks that are there already, and what becomes of tasks whose time or attempts are used up.

use super::{Decision, Reply};
use crate::{
    agent::Failure,
    approval::Points,
    audit::{AuditEntry, Kind},
    command::NewTask,
    crew_record::CrewPhase,
    event::{Cause, Change},
    facts::Facts,
    id::TaskId,
    lifecycle::{Hold, OnFailure, Request},
    limits::{MAX_LIVE_TASKS, MAX_PAYLOAD_BYTES, MAX_REASON_BYTES},
    plan::Payload,
    priority::Priority,
    quantity::Time,
    reason::Reason,
    rejection::Rejection,
    retry::OnExhausted,
    seam::RunnerCommand,
    task::{Task, TaskState, cut},
};

impl Decision<'_> {
    pub(super) fn change_task(
        &mut self,
        facts: &Facts,
        id: TaskId,
        request: Request,
        revision: Option<u64>,
    ) -> Result<Reply, Rejection> {
        let task = self.known(facts, id)?;
        if let Some(read) = revision.filter(|read| *read != task.revision) {
            let message = format!("{id} is at revision {}, and {read} was read", task.revision);
            return Err(Rejection::new(Reason::StaleRevision, message));
        }
        let legal = Request::legal(&task);
        if !legal.contains(&request.name()) {
            let what = if task.state.is_ended() {
                "has ended already: it "
            } else {
                ""
            };
            let message = format!(
                "{id} {what}is {}, from which one cannot {}",
                task.state,
                asked(&request)
            );
            return Err(Rejection::illegal(message, legal));
        }
        if let Request::OverrideResult { result, why } = &request {
            if !result.fits() {
                let message = format!("the result is larger than {MAX_PAYLOAD_BYTES} bytes; store it as an artifact");
                return Err(Rejection::invalid(message));
            }
            if why.is_empty() || why.len() > MAX_REASON_BYTES {
                let message = format!("say why the result is overridden, in 1 to {MAX_REASON_BYTES} bytes");
                return Err(Rejection::invalid(message));
            }
        }
        let by = self.actor.clone().unwrap_or_default();
        match request {
            Request::Cancel => {
                self.note_request(&task, Kind::TaskCancelled, "");
                self.cancel_tree(id, &format!("cancelled by {by}"));
            }
            Request::Retry => self.retry(&task),
            Request::Pause => {
                self.note_request(&task, Kind::TaskHeld, "");
                self.hold_tree(id, &format!("paused by {by}"));
            }
            Request::Resume => self.resume_tree(&task),
            Request::Reprioritise(priority) => self.reprioritise(&task, priority),
            Request::OverrideResult { result, why } => self.override_result(&task, result, &why),
        }
        Ok(Reply::Done)
    }

    fn note_request(&mut self, task: &Task, kind: Kind, detail: &str) {
        let entry = AuditEntry {
            crew: Some(task.crew),
            task: Some(task.id),
            ..self.entry(kind, detail)
        };
        self.note(entry);
    }

    /// Tries a task again at once: what is left of a delay is not waited for, and what is PAUSED begins anew.
    fn retry(&mut self, task: &Task) {
        self.note_request(task, Kind::TaskRetried, "");
        let change = match (task.state, &task.candidate) {
            (TaskState::Paused, Some(_)) => Change::Resumed(TaskState::Verifying),
            (TaskState::Paused, None) => Change::Again,
            _ => Change::Ready,
        };
        self.move_task(task.id, change);
    }

    /// Holds a task and everything beneath it that is not held yet; what runs is told to stop, and goes on with its record. What waits for a person's
    /// answer is held when it has that.
    fn hold_tree(&mut self, top: TaskId, why: &str) {
        let open = |task: &&&Task| !task.state.is_ended() && !task.state.waits_for_person();
        let tree: Vec<_> = self
            .state
            .tree(top)
            .iter()
            .filter(open)
            .map(|task| (task.id, task.held.clone()))
            .collect();
        for (id, held) in tree {
            self.move_task(id, Change::Held(Failure::new(Reason::Paused, why)));
            if let Some(held) = held {
                self.run(RunnerCommand::Cancel { lease: held.lease });
            }
        }
    }

    /// Lets a task go on, and what a person paused beneath it.
    fn resume_tree(&mut self, task: &Task) {
        self.note_request(task, Kind::TaskResumed, "");
        let held = |of: &&&Task| of.state == TaskState::Paused && matches!(of.hold, Some(Hold::Person(_)));
        let beneath = self.state.tree(task.id);
        let beneath = beneath.iter().filter(|of| of.id != task.id).filter(held);
        let all: Vec<(TaskId, Change)> = std::iter::once(task)
            .chain(beneath.copied())
            .map(|task| (task.id, onward(task)))
            .collect();
        for (id, change) in all {
            self.move_task(id, change);
            // Its tree may have failed meanwhile.
            self.suspect(id);
        }
    }

    fn reprioritise(&mut self, task: &Task, priority: Priority) {
        let other = |of: &&&Task| !of.state.is_ended() && of.priority != priority;
        let tree: Vec<TaskId> = self.state.tree(task.id).iter().filter(other).map(|of| of.id).collect();
        if !tree.is_empty() {
            self.note_request(task, Kind::TaskReprioritised, priority.code());
        }
        for id in tree {
            self.move_task(id, Change::Reprioritised(priority));
        }
    }

    fn override_result(&mut self, task: &Task, result: Payload, why: &str) {
        self.note_request(task, Kind::TaskOverridden, why);
        self.move_task(task.id, Change::Overridden(result));
        if let Some(held) = &task.held {
            self.run(RunnerCommand::Cancel { lease: held.lease });
        }
    }

    /// Submits a dead letter anew: a task of its own, that is one no longer when this is done.
    pub(super) fn redrive(
        &mut self,
        facts: &Facts,
        dead: TaskId,
        dependencies: &[TaskId],
        points: Option<Points>,
        id: TaskId,
        seed: u64,
    ) -> Result<Reply, Rejection> {
        let task = self.known(facts, dead)?;
        if !self.state.is_dead_letter(dead) {
            let message = format!("{dead} is {} and no dead letter, or was redriven already", task.state);
            return Err(Rejection::illegal(message, Request::legal(&task)));
        }
        let same_points = task.points.map(Points::shape) == points.map(Points::shape);
        if task.dependencies != dependencies || !same_points || self.state.task(id).is_some() {
            return Err(Rejection::new(
                Reason::Conflict,
                "the record was read wrongly; ask again",
            ));
        }
        let crew = self.state.crew(task.crew).filter(|crew| crew.phase == CrewPhase::Live);
        let Some(crew) = crew else {
            let message = format!("the crew of {dead} takes no new tasks any more");
            return Err(Rejection::illegal(message, &[]));
        };
        if self.state.live_tasks() >= MAX_LIVE_TASKS {
            let message = format!("the host holds {MAX_LIVE_TASKS} live tasks already");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        let new = NewTask {
            id,
            seed,
            description: task.description.clone(),
            input: task.input.clone(),
            roles: task.roles.clone(),
            agent: task.agent.map(|agent| agent.to_string()),
            plan: task.plan,
            notes: task.notes.clone(),
            check: task.check,
            max_retries: Some(task.max_retries),
            dependencies: task.dependencies.clone(),
            labels: task.labels.clone(),
            ephemeral: false,
            retry: task.retry.clone(),
            priority: task.priority,
            timeouts: task.timeouts,
            on_failure: task.on_failure,
            approval: points,
            parts: task
                .draft
                .as_ref()
                .filter(|draft| draft.given)
                .map(|draft| draft.plan.clone()),
            // What a tree has left says nothing of what it had.
            budget: None,
        };
        let record = self.record(facts, crew, new, 0, &std::collections::BTreeMap::new())?;
        let record = Task {
            settled: task.settled.iter().cloned().chain(record.settled).collect(),
            redrives: Some(dead),
            ..record
        };
        self.note_request(&task, Kind::TaskRedriven, &id.to_string());
        self.accept(record);
        Ok(Reply::Submitted {
            tasks: vec![id],
            repeated: false,
        })
    }

    /// What becomes of a task that cannot be tried again.
    pub(super) fn exhausted(&self, task: &Task, failure: Failure) -> Change {
        match task.on_exhausted() {
            _ if task.escalates() => self.escalated(task, failure),
            OnExhausted::Pause => Change::Exhausted(failure),
            OnExhausted::Fail => Change::Failed(Cause::Own(failure)),
            OnExhausted::DeadLetter => Change::Buried(failure),
        }
    }

    /// What becomes of a task that another attempt would not help. Nobody is asked whether it is to be made, unless the parts of its parent escalate.
    pub(super) fn hopeless(&self, task: &Task, failure: Failure) -> Change {
        match task.on_exhausted() {
            _ if task.escalates() => self.escalated(task, failure),
            OnExhausted::DeadLetter => Change::Buried(failure),
            OnExhausted::Pause | OnExhausted::Fail => Change::Failed(Cause::Own(failure)),
        }
    }

    /// What becomes of a part whose failure goes up: it fails where somebody above can do something about that, the nearest first, and waits for a
    /// person where nobody can.
    fn escalated(&self, task: &Task, failure: Failure) -> Change {
        let mut above = task.parent;
        while let Some(parent) = above.and_then(|id| self.state.task(id)) {
            // Who has spawned it is told of its end, and goes on as it likes.
            if !parent.is_split() || parent.may_split_anew() {
                return Change::Failed(Cause::Own(failure));
            }
            above = parent.parent;
        }
        Change::Exhausted(failure)
    }

    /// Has a task split anew of which a part has failed, where the failures of its parts go up; and what is told of that.
    pub(super) fn split_anew(&self, task: &Task) -> Option<(Change, AuditEntry)> {
        let state = |id: &TaskId| self.state.task(*id).map(|part| part.state);
        let by_person = |id: &TaskId| state(id) == Some(TaskState::Cancelled);
        // What a person has ended is not begun again behind its back.
        if task.on_failure != OnFailure::Escalate || !task.may_split_anew() || task.parts().iter().any(by_person) {
            return None;
        }
        let bad = |part: &&Task| matches!(part.state, TaskState::Failed | TaskState::Rejected);
        let part = task.parts().iter().filter_map(|id| self.state.task(*id)).find(bad)?;
        let failure = part.failure.as_ref()?;
        let remark = cut(&format!(
            "`{}` failed ({}): {}",
            part.called(),
            failure.reason,
            failure.message
        ));
        let entry = AuditEntry {
            crew: Some(task.crew),
            task: Some(task.id),
            reason: Some(failure.reason),
            ..self.entry(Kind::TaskEscalated, &remark)
        };
        Some((Change::SentBack(remark), entry))
    }

    /// Ends a task whose time is up, if it is.
    pub(super) fn time_out(&mut self, task: &Task) -> bool {
        let is_up = |at: Option<Time>| at.is_some_and(|at| at <= self.now);
        let message = if is_up(task.close_by()) {
            let timeout = task.timeouts.schedule_to_close.unwrap_or_default();
            format!("it had not ended {timeout} after it was accepted")
        } else if is_up(task.start_by()) {
            let timeout = task.timeouts.schedule_to_start.unwrap_or_default();
            format!("no agent had a free slot for it in {timeout}")
        } else {
            return false;
        };
        let failure = Failure::new(Reason::TimedOut, &message);
        self.move_task(task.id, Change::Failed(Cause::Own(failure)));
        if let Some(held) = &task.held {
            self.run(RunnerCommand::Cancel { lease: held.lease });
        }
        true
    }
}

/// How a PAUSED task goes on.
fn onward(task: &Task) -> Change {
    match (task.hold, &task.candidate) {
        (Some(Hold::Person(TaskState::Pending)), _) => Change::Resumed(TaskState::Pending),
        (Some(Hold::Person(TaskState::Waiting)), _) => Change::Resumed(TaskState::Waiting),
        (_, Some(_)) => Change::Resumed(TaskState::Verifying),
        (Some(Hold::Exhausted), None) => Change::Again,
        (_, None) => Change::Resumed(TaskState::Ready),
    }
}

fn asked(request: &Request) -> String {
    request
        .name()
        .replace('_', " the ")
        .replace("reprioritise", "change its priority")
}
