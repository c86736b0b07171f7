//! What people are asked: the points that a submitter has set, what an agent is about to do, what it cannot go on without. A question gives the lease
//! back like every other wait; its answer, or the end of its time, moves the task. A decision is taken once: the same one again is the same
//! answer, the opposite is refused.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Decision, Reply, attempt::random_id};

use crate::{
    agent::Failure,
    approval::{Approval, Asks, Item, Point, Points, Request, Ruling, Settled, Terms, Verdict},
    audit::{AuditEntry, Kind},
    effect::Changed,
    event::{Change, Event, Source},
    facts::{Facts, Table, Write},
    id::{AgentId, ApprovalId, Digest, Role, TaskId},
    lifecycle::Hold,
    limits::{MAX_APPROVAL_ITEMS, MAX_OPEN_APPROVALS, MAX_TEXT_BYTES},
    plan::Payload,
    quantity::{Millis, Time},
    reason::Reason,
    rejection::Rejection,
    retry::child_seed,
    seam::Lease,
    state::encode,
    step::{Asked, Decided, StepResult},
    task::{Task, TaskState, Wait},
};

/// What becomes of a question of an agent.
pub(super) enum Question {
    /// It is put to people.
    Asked(Box<Approval>),
    /// It is answered already, or refused.
    Answered(StepResult),
}

impl Decision<'_> {
    /// A change that a person must approve before becomes the asking.
    pub(super) fn gate(&mut self, id: TaskId, change: Change) -> Change {
        let Some((task, points)) = self.state.task(id).and_then(|task| Some((task, task.points?))) else {
            return change;
        };
        let (before, after) = (points.before, points.after);
        let approval = match (&change, before, after) {
            (Change::Ready, Some(approval), _) if task.state == TaskState::Pending => {
                let item = Item::new("input".to_owned(), described(&task.input));
                self.of_task(task, approval, Point::Before, "run", item, None)
            }
            (Change::Completed(source), _, Some(approval)) if task.state != TaskState::AwaitingApproval => {
                let (result, made_by) = self.result_of(task, source);
                let item = Item::new("result".to_owned(), result.map_or_else(|| "null".to_owned(), described));
                self.of_task(task, approval, Point::After, "complete", item, self.component(made_by))
            }
            _ => return change,
        };
        let result = match change {
            Change::Completed(source) => Some(source),
            _ => None,
        };
        self.asking(approval, None, result)
    }

    /// A new task with the points that its crew sets, beside those that it has. What is for anybody may come to whoever is meant. Messages and plans that are
    /// given are not executed.
    pub(super) fn guarded(&self, task: Task) -> Task {
        let crew = self.state.crew(task.crew);
        let Some(policy) = crew.and_then(|crew| crew.manifest.approvals.as_ref()) else {
            return task;
        };
        let concerns =
            |roles: &BTreeSet<Role>| !roles.is_empty() && (task.roles.is_empty() || !roles.is_disjoint(&task.roles));
        let runs = task.delivery.is_none() && task.draft.is_none();
        let (before, after) = (runs && concerns(&policy.before), runs && concerns(&policy.after));
        if !before && !after {
            return task;
        }
        let drawn =
            |point: u64| ApprovalId::drawn(random_id(child_seed(task.seed, 1 << 41 | point), task.id, self.now));
        let own = task.points.unwrap_or_default();
        let points = Points {
            before: own.before.or_else(|| before.then(|| drawn(0))),
            after: own.after.or_else(|| after.then(|| drawn(1))),
            ..own
        };
        Task {
            points: Some(points),
            ..task
        }
    }

    /// The approval of a point that the submitter of a task has set, or its plan, or its crew.
    fn of_task(
        &self,
        task: &Task,
        id: ApprovalId,
        point: Point,
        action: &str,
        item: Item,
        component: Option<Digest>,
    ) -> Approval {
        let request = Request {
            action: action.to_owned(),
            question: task.description.clone(),
            items: vec![item],
            terms: task.points.map(|points| points.terms).unwrap_or_default(),
        };
        self.approval(task, id, point, request, component, task.by.clone())
    }

    fn approval(
        &self,
        task: &Task,
        id: ApprovalId,
        point: Point,
        request: Request,
        component: Option<Digest>,
        requester: String,
    ) -> Approval {
        let policy = self
            .state
            .crew(task.crew)
            .and_then(|crew| crew.manifest.approvals.as_ref());
        let approval = Approval {
            id,
            task: task.id,
            crew: task.crew,
            point,
            action: request.action,
            question: request.question,
            items: request.items,
            component,
            digest: Digest::of(&[]),
            requester,
            by_requester: policy.is_some_and(|policy| policy.by_requester),
            asked: self.now,
            until: self.now.after(request.terms.life()),
            terms: request.terms,
            escalated: 0,
            verdicts: std::collections::BTreeMap::new(),
            settled: None,
        };
        Approval {
            digest: approval.binding(),
            ..approval
        }
    }

    /// The result that a task is about to have, and who made it.
    fn result_of<'a>(&'a self, task: &'a Task, source: &'a Source) -> (Option<&'a Payload>, Option<AgentId>) {
        match source {
            Source::Given(payload) => (Some(payload), task.held.as_ref().map(|held| held.lease.agent)),
            Source::Child(child) => self
                .state
                .task(*child)
                .map_or((None, None), |child| (child.result.as_ref(), child.executed_by)),
            Source::Candidate => (task.candidate.as_ref(), task.executed_by),
        }
    }

    fn component(&self, agent: Option<AgentId>) -> Option<Digest> {
        let agent = self.state.agent(agent?)?;
        self.state.member_of(agent).map(|member| member.digest)
    }

    /// What an agent asks a person, unless it was allowed for the whole run, or is out of bounds.
    pub(super) fn question(
        &mut self,
        lease: &Lease,
        request: Request,
        point: Point,
        drawn: Option<TaskId>,
    ) -> Question {
        let refuse = |reason| Question::Answered(StepResult::refused(reason));
        let (Some(task), Some(drawn)) = (self.state.task(lease.task), drawn) else {
            return refuse(Reason::HostFault);
        };
        let canonical = |item: &Item| *item == Item::new(item.name.clone(), item.arguments.clone());
        let sound = match point {
            Point::Blocker => (1..=MAX_TEXT_BYTES).contains(&request.question.len()) && request.terms.fit(),
            Point::Before | Point::After | Point::Action => request.fits() && request.items.iter().all(canonical),
        };
        if !sound {
            return refuse(Reason::InvalidInput);
        }
        // The time of a message goes on, and those of its key wait behind it.
        if task.delivery.is_some() {
            return refuse(Reason::CapabilityDenied);
        }
        let covered = point == Point::Action
            && task.always.contains(&request.action)
            && request.items.iter().all(|item| item.parsed);
        if covered {
            let detail = format!("`{}` was approved for the whole run before", request.action);
            let entry = AuditEntry {
                crew: Some(task.crew),
                agent: Some(lease.agent),
                task: Some(lease.task),
                ..self.entry(Kind::ApprovalDecided, detail)
            };
            let decided = request.items.iter().map(|_| Decided {
                approved: true,
                remark: String::new(),
            });
            let decided = StepResult::Decided(decided.collect());
            self.note(entry);
            return Question::Answered(decided);
        }
        let of_agents = |approval: &&Approval| matches!(approval.point, Point::Action | Point::Blocker);
        let id = ApprovalId::drawn(drawn);
        let open = self.state.approvals().filter(of_agents).count();
        if open >= MAX_OPEN_APPROVALS || self.state.approval(id).is_some() {
            return refuse(Reason::Overloaded);
        }
        let component = self.component(Some(lease.agent));
        let approval = self.approval(task, id, point, request, component, lease.agent.to_string());
        Question::Asked(Box::new(approval))
    }

    /// Puts a question of an agent to people: the run waits for the answer.
    pub(super) fn ask(&mut self, approval: Approval, asked: Asked) {
        let task = approval.task;
        let wait = Wait {
            asked,
            tasks: Vec::new(),
            all: false,
            until: None,
            request: None,
        };
        let change = self.asking(approval, Some(wait), None);
        self.move_task(task, change);
    }

    /// Takes up a question, and gives the change that makes its task wait for it.
    fn asking(&mut self, approval: Approval, wait: Option<Wait>, result: Option<Source>) -> Change {
        let asks = Asks {
            approval: approval.id,
            point: approval.point,
            until: approval.until,
        };
        let what = match approval.point {
            Point::Blocker => approval.question.clone(),
            Point::Before | Point::After | Point::Action => approval.action.clone(),
        };
        let detail = format!("{} ({}, {}): {what}", approval.id, approval.point, approval.digest);
        self.tell_of(&approval, Kind::ApprovalAsked, None, detail);
        self.emit(Event::ApprovalAsked(Box::new(approval)));
        Change::Asks { asks, wait, result }
    }

    /// An audit entry and a notice about an approval.
    fn tell_of(&mut self, approval: &Approval, kind: Kind, settled: Option<Settled>, detail: String) {
        let entry = AuditEntry {
            crew: Some(approval.crew),
            task: Some(approval.task),
            approval: Some(approval.id),
            ..self.entry(kind, detail)
        };
        self.note(entry);
        let what = Changed::Approval {
            approval: approval.id,
            task: approval.task,
            settled,
        };
        self.notice(Some(approval.crew), what);
    }

    /// Decides what a person was asked, some of it or all.
    pub(super) fn decide_approval(
        &mut self,
        facts: &Facts,
        id: ApprovalId,
        ruling: Ruling,
    ) -> Result<Reply, Rejection> {
        let by = self.actor.clone().unwrap_or_default();
        let known = self.state.approval(id).or(facts.approval.as_ref());
        let approval = known
            .filter(|approval| approval.id == id)
            .cloned()
            .ok_or_else(|| Rejection::not_found(id))?;
        let items = ruled(&approval, &ruling, &by)?;
        if items.is_empty() {
            return Ok(Reply::Ruled(Box::new(approval)));
        }
        undecided(&approval, self.now)?;
        let verdict = Verdict {
            approved: ruling.approved,
            by: Some(by),
            remark: ruling.remark,
            at: self.now,
            always: ruling.always,
        };
        let names = items.iter().filter_map(|at| approval.items.get(*at as usize));
        let names: Vec<&str> = names.map(|item| item.name.as_str()).collect();
        let detail = format!(
            "{id} {}: {}{} {}",
            approval.action,
            if verdict.approved { "approved" } else { "rejected" },
            if verdict.always { " for the whole run" } else { "" },
            names.join(", "),
        );
        self.emit(Event::ApprovalDecided {
            approval: id,
            items,
            verdict,
        });
        let after = self.state.approval(id).cloned().unwrap_or(approval);
        let over = after.open().next().is_none();
        self.tell_of(&after, Kind::ApprovalDecided, over.then_some(Settled::Decided), detail);
        if !over {
            return Ok(Reply::Ruled(Box::new(after)));
        }
        let after = self.settle_approval(after, Settled::Decided);
        self.decided(&after);
        Ok(Reply::Ruled(Box::new(after)))
    }

    /// Ends an open approval: from now on it is read from its table.
    fn settle_approval(&mut self, approval: Approval, how: Settled) -> Approval {
        let approval = Approval {
            settled: Some((how, self.now)),
            ..approval
        };
        self.writes.push(Write {
            table: Table::Approvals,
            key: approval.id.to_bytes().to_vec(),
            value: Some(encode(&approval)),
        });
        self.emit(Event::ApprovalSettled {
            approval: approval.id,
            how,
            at: self.now,
        });
        approval
    }

    /// What follows for a task when all that it asked is decided.
    fn decided(&mut self, approval: &Approval) {
        let change = match approval.point {
            Point::Action | Point::Blocker => return self.answer(approval),
            Point::Before | Point::After => match approval.verdicts.values().find(|verdict| !verdict.approved) {
                Some(verdict) => {
                    let by = verdict.by.as_deref().unwrap_or_default();
                    let message = format!("rejected by {by}: {}", verdict.remark);
                    Change::Rejected(Failure::new(Reason::Rejected, message.trim_end_matches(": ")))
                }
                None if approval.point == Point::After => Change::Completed(Source::Candidate),
                None => Change::Ready,
            },
        };
        self.go_on(approval.task, change);
    }

    /// Moves a task whose question is answered. What waits for an answer is not paused with its tree; it is now.
    fn go_on(&mut self, id: TaskId, change: Change) {
        self.move_task(id, change);
        let paused = self.paused_above(id);
        let goes_on = |task: &Task| !task.state.is_ended();
        if let Some(failure) = paused.filter(|_| self.state.task(id).is_some_and(goes_on)) {
            self.move_task(id, Change::Held(failure));
        }
    }

    /// Why a person has paused what a task is a part of, if one has. What asks people itself was passed over.
    fn paused_above(&self, id: TaskId) -> Option<Failure> {
        let mut at = self.state.task(id)?.parent;
        loop {
            let task = self.state.task(at?)?;
            match (task.state, task.hold) {
                (TaskState::AwaitingApproval | TaskState::Blocked, _) => at = task.parent,
                (TaskState::Paused, Some(Hold::Person(_))) => return task.failure.clone(),
                _ => return None,
            }
        }
    }

    /// Tells the run that asked what was decided; what was not is not approved.
    fn answer(&mut self, approval: &Approval) {
        let Some(wait) = self.state.task(approval.task).and_then(|task| task.wait.clone()) else {
            return;
        };
        let decided = approval.decided().map(|(_, verdict)| match verdict {
            Some(verdict) => Decided {
                approved: verdict.approved,
                remark: verdict.remark.clone(),
            },
            None => Decided {
                approved: false,
                remark: "nobody has decided in time".to_owned(),
            },
        });
        let result = StepResult::Decided(decided.collect());
        let now = self.now;
        self.put_on_record(approval.task, wait.asked, now, result);
        self.go_on(approval.task, Change::Ready);
    }

    /// The time of what a task asks is up.
    pub(super) fn lapse(&mut self, id: TaskId, asks: Asks) {
        let Some(approval) = self.state.approval(asks.approval).cloned() else {
            return;
        };
        if approval.escalates() {
            let until = self.now.after(approval.terms.life());
            let (approval_id, at) = (approval.id, self.now);
            self.emit(Event::ApprovalEscalated {
                approval: approval_id,
                until,
                at,
            });
            return self.tell_of(&approval, Kind::ApprovalEscalated, None, approval_id.to_string());
        }
        let approval = self.settle_approval(approval, Settled::Expired);
        let detail = approval.id.to_string();
        self.tell_of(&approval, Kind::ApprovalExpired, Some(Settled::Expired), detail);
        match approval.point {
            Point::Action => self.answer(&approval),
            Point::Before | Point::After | Point::Blocker => {
                let message = format!("nobody has decided {} in {}", approval.id, approval.terms.life());
                let failure = Failure::new(Reason::ApprovalExpired, &message);
                let change = self.state.task(id).map(|task| self.hopeless(task, failure));
                change.into_iter().for_each(|change| self.move_task(id, change));
            }
        }
    }

    /// Takes back what a task has asked that goes on without an answer: it was cancelled, or its tree has failed.
    pub(super) fn withdraw(&mut self, id: TaskId, change: &Change) {
        let asks = self.state.task(id).and_then(|task| task.asks);
        let open = asks.and_then(|asks| self.state.approval(asks.approval)).cloned();
        if let Some(approval) = open.filter(|_| !matches!(change, Change::Asks { .. } | Change::Reprioritised(_))) {
            let approval = self.settle_approval(approval, Settled::Withdrawn);
            let detail = approval.id.to_string();
            self.tell_of(&approval, Kind::ApprovalWithdrawn, Some(Settled::Withdrawn), detail);
        }
    }
}

/// What a person is asked whose word an agent needs to go on.
pub(super) fn blocker(question: String, expires: Option<Millis>) -> Request {
    Request {
        action: String::new(),
        question,
        items: vec![Item::new("answer".to_owned(), "null".to_owned())],
        terms: Terms {
            expires,
            ..Terms::default()
        },
    }
}

/// The bounds of the points of a task.
pub(super) fn points(points: &Points, ephemeral: bool) -> Result<(), String> {
    if ephemeral {
        Err("an approval outlives the host, and an ephemeral task does not; submit it durably".to_owned())
    } else if !points.terms.fit() {
        Err(format!(
            "an approval expires after {} to {}",
            crate::limits::MIN_APPROVAL_LIFE,
            crate::limits::MAX_APPROVAL_LIFE
        ))
    } else {
        Ok(())
    }
}

/// The places of the items that a ruling decides: none where it has decided them already.
fn ruled(approval: &Approval, ruling: &Ruling, by: &str) -> Result<Vec<u32>, Rejection> {
    let id = approval.id;
    if ruling.remark.len() > MAX_TEXT_BYTES || ruling.items.len() > MAX_APPROVAL_ITEMS {
        let message =
            format!("a decision names at most {MAX_APPROVAL_ITEMS} items, its remark holds {MAX_TEXT_BYTES} bytes");
        return Err(Rejection::invalid(message));
    }
    if ruling.always && (approval.point != Point::Action || !ruling.approved) {
        return Err(Rejection::invalid(
            "only an action of an agent can be approved for the whole run",
        ));
    }
    if approval.requester == by && !approval.by_requester {
        let message = format!("{by} has asked for {id} and cannot decide it");
        return Err(Rejection::new(Reason::SelfApproval, message));
    }
    if ruling.digest.is_some_and(|digest| digest != approval.digest) {
        let message = format!("{id} asks for {}, which is not what was decided about", approval.digest);
        return Err(Rejection::new(Reason::Conflict, message));
    }
    let same = |at: u32| {
        approval
            .verdicts
            .get(&at)
            .map(|verdict| verdict.approved == ruling.approved)
    };
    if ruling.items.is_empty() {
        let open: Vec<u32> = approval.open().collect();
        let any = (0..).zip(&approval.items).any(|(at, _)| same(at) == Some(true));
        return match open.is_empty() && !any {
            true => Err(opposite(approval)),
            false => Ok(open),
        };
    }
    let mut places = Vec::new();
    for name in &ruling.items {
        let place = (0..).zip(&approval.items).find(|(_, item)| item.name == *name);
        let (at, _) = place.ok_or_else(|| Rejection::not_found(format!("item `{name}` in {id}")))?;
        match same(at) {
            Some(true) => {}
            Some(false) => return Err(opposite(approval)),
            None if places.contains(&at) => {}
            None => places.push(at),
        }
    }
    Ok(places)
}

fn opposite(approval: &Approval) -> Rejection {
    let message = format!("{} was decided otherwise before; a decision is final", approval.id);
    Rejection::new(Reason::Conflict, message)
}

/// Refuses a decision that comes too late.
fn undecided(approval: &Approval, now: Time) -> Result<(), Rejection> {
    let id = approval.id;
    match approval.settled {
        Some((Settled::Withdrawn, _)) => Err(Rejection::illegal(
            format!("{id} was withdrawn: its task ended before it was decided"),
            &[],
        )),
        None if approval.until > now || approval.escalates() => Ok(()),
        Some((Settled::Expired | Settled::Decided, _)) | None => Err(Rejection::new(
            Reason::ApprovalExpired,
            format!("the time of {id} is up"),
        )),
    }
}

/// What a person needs to know of a payload that may be large: which one it is. The task shows it.
fn described(payload: &Payload) -> String {
    match payload {
        Payload::Inline(bytes) => json!({ "sha256": Digest::of(bytes), "bytes": bytes.len() }),
        Payload::Artifact(artifact) => {
            json!({ "artifact": artifact.digest, "bytes": artifact.size, "media": artifact.media })
        }
    }
    .to_string()
}
