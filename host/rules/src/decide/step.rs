//! Steps of a run: what is asked is decided, or observed, and its answer goes on the record in the same commit. A wait gives the lease back; its
//! answer is recorded when it has come, so that whoever goes on finds it there.

use super::{
    Decision, Reply,
    approval::{Question, blocker},
    task::{blank, placed},
};
use crate::{
    approval::{Approval, Point},
    command::Mail,
    crew_record::Member,
    event::{Change, Event},
    facts::{Facts, Needs, Page, Replaced, Table, Write, old_value_key, record_key, value_key},
    id::{Name, TaskId},
    limits::{
        DEFAULT_RETRIES, MAX_AWAIT, MAX_AWAITED, MAX_ENDS_BYTES, MAX_LIVE_TASKS, MAX_NAMESPACES, MAX_PLAN_NODES,
        MAX_RECORD_BYTES, MAX_RETRIES, MAX_ROLES, MAX_SLEEP, MAX_STATE_KEY_BYTES, MAX_STATE_PAGE,
        MAX_STATE_VALUE_BYTES, MAX_STEPS, MAX_TASK_DEPTH, MAX_TEXT_BYTES, RECORD_TAIL_BYTES, STATE_HISTORY,
        STATE_HISTORY_AGE,
    },
    plan::{Artifact, Payload},
    quantity::{Fuel, Millis, Time},
    reason::Reason,
    retry,
    seam::{End, Export, Lease, StepReply},
    state::{Namespace, decode, encode},
    step::{Asked, Child, Recorded, Step, StepCall, StepResult, Value},
    task::{Task, Wait},
};

/// What is to become of a step.
enum Verdict {
    /// It is answered.
    Answer(StepResult),
    /// It will be.
    Wait {
        tasks: Vec<TaskId>,
        all: bool,
        until: Option<Time>,
    },
    /// It will be, by a person.
    Ask(Box<Approval>),
    /// It cannot be taken now.
    Refuse(Reason),
    /// It will be when a delivery has ended, or then.
    Request(TaskId, Time),
}

/// Ids that were drawn for a step: for a child, for a message.
type Drawn = (Option<TaskId>, Option<Mail>);

impl From<Question> for Verdict {
    fn from(question: Question) -> Self {
        match question {
            Question::Asked(approval) => Verdict::Ask(approval),
            Question::Answered(result) => Verdict::Answer(result),
        }
    }
}

/// The rows that a step needs.
pub(crate) fn needs(namespace: &Name, call: &StepCall) -> Needs {
    let one = |key: &str| Needs {
        value: Some(value_key(namespace, key)),
        ..Needs::default()
    };
    match call {
        StepCall::Get { key, revision } => Needs {
            old: revision.map(|revision| old_value_key(namespace, key, Some(revision))),
            ..one(key)
        },
        StepCall::Put { key, .. } | StepCall::Delete { key, .. } => one(key),
        StepCall::History { key } => Needs {
            page: Some(Page {
                table: Table::Replaced,
                prefix: old_value_key(namespace, key, None),
                after: None,
                reverse: true,
                limit: usize::try_from(STATE_HISTORY).unwrap_or(usize::MAX),
            }),
            ..one(key)
        },
        StepCall::List { prefix, after, limit } => Needs {
            page: Some(Page {
                table: Table::State,
                prefix: value_key(namespace, prefix),
                after: after.as_ref().map(|after| value_key(namespace, after)),
                reverse: false,
                // One more than asked says whether there are more.
                limit: usize::try_from(*limit).unwrap_or(usize::MAX).min(MAX_STATE_PAGE) + 1,
            }),
            ..Needs::default()
        },
        _ => Needs::default(),
    }
}

impl Decision<'_> {
    /// Decides a step, and says whether anything can follow from it.
    pub(super) fn step_of(
        &mut self,
        facts: &Facts,
        lease: Lease,
        number: u64,
        call: StepCall,
        drawn: Drawn,
    ) -> (Reply, bool) {
        let refuse = |reason| (Reply::Step(StepReply::Refused(reason)), false);
        let Some(task) = self.holder(&lease) else {
            // The attempt ends of it, so it is told once.
            self.fenced(lease, &End::Finished(crate::plan::Outcome::Accepted));
            return (Reply::Step(StepReply::Fenced), false);
        };
        let Some(held) = &task.held else {
            return refuse(Reason::HostFault);
        };
        if held.export == Export::Checker || task.ephemeral {
            return refuse(Reason::CapabilityDenied);
        }
        if task.steps != number {
            return refuse(Reason::HostFault);
        }
        if number >= MAX_STEPS || task.record_bytes >= MAX_RECORD_BYTES {
            return refuse(Reason::RecordFull);
        }
        if !held.started {
            self.move_task(lease.task, Change::Started);
        }
        let asked = call.asked();
        let at = match &call {
            StepCall::Clock { alarm: Some(alarm) } => *alarm,
            _ => self.now,
        };
        let follows = matches!(
            call,
            StepCall::Spawn(_)
                | StepCall::Await { .. }
                | StepCall::Sleep { .. }
                | StepCall::Send(_)
                | StepCall::Request(_)
                | StepCall::AskApproval(_)
                | StepCall::RaiseBlocker { .. }
        );
        let reply = match self.verdict(facts, &lease, call, drawn) {
            Verdict::Answer(result) => {
                let step = self.put_on_record(lease.task, asked, at, result);
                StepReply::Recorded(Recorded {
                    ends: self.state.ends(&step),
                    step,
                })
            }
            Verdict::Wait { tasks, all, until } => {
                let wait = Wait {
                    asked,
                    tasks,
                    all,
                    until,
                    request: None,
                };
                self.move_task(lease.task, Change::Waits(wait));
                StepReply::Waiting
            }
            Verdict::Request(delivery, until) => {
                let wait = Wait {
                    asked,
                    tasks: Vec::new(),
                    all: false,
                    until: Some(until),
                    request: Some(delivery),
                };
                self.move_task(lease.task, Change::Waits(wait));
                StepReply::Waiting
            }
            Verdict::Ask(approval) => {
                self.ask(*approval, asked);
                StepReply::Waiting
            }
            Verdict::Refuse(reason) => StepReply::Refused(reason),
        };
        (Reply::Step(reply), follows)
    }

    fn verdict(&mut self, facts: &Facts, lease: &Lease, call: StepCall, (child, mail): Drawn) -> Verdict {
        let result = match call {
            StepCall::Get { .. }
            | StepCall::Put { .. }
            | StepCall::Delete { .. }
            | StepCall::List { .. }
            | StepCall::History { .. } => match self.namespace_of(lease) {
                Some((name, quota)) => self.state_step(facts, &name, quota, call),
                None => return Verdict::Refuse(Reason::CapabilityDenied),
            },
            StepCall::Spawn(asked) => match child {
                Some(id) => self.spawn(lease, asked, id),
                // Its input is an artifact that the crew does not have.
                None => StepResult::refused(Reason::InvalidInput),
            },
            StepCall::Await { tasks, all, timeout } => return self.await_children(lease, tasks, all, timeout),
            StepCall::Send(letter) => self.send_step(facts, lease, letter, mail),
            StepCall::Request(letter) => match self.ask_step(lease, letter, mail) {
                Ok((delivery, until)) => return Verdict::Request(delivery, until),
                Err(reason) => StepResult::refused(reason),
            },
            StepCall::Sleep { until } if until <= self.now => StepResult::Done,
            StepCall::Sleep { until } if until > self.now.after(MAX_SLEEP) => StepResult::refused(Reason::InvalidInput),
            StepCall::Sleep { until } => {
                return Verdict::Wait {
                    tasks: Vec::new(),
                    all: false,
                    until: Some(until),
                };
            }
            StepCall::AskApproval(request) => return self.question(lease, request, Point::Action, child).into(),
            StepCall::RaiseBlocker { question, expires } => {
                let request = blocker(question, expires);
                return self.question(lease, request, Point::Blocker, child).into();
            }
            StepCall::ReadArtifact {
                refused: Some(reason), ..
            } => StepResult::refused(reason),
            StepCall::PutArtifact(Artifact { digest, .. })
            | StepCall::ReadArtifact {
                digest, refused: None, ..
            } => StepResult::Artifact(digest),
            StepCall::Clock { .. } | StepCall::Directive { .. } => StepResult::Done,
        };
        Verdict::Answer(result)
    }

    /// Puts an answer on the record of a run. What memory keeps of the record goes to its table first where it is long.
    pub(super) fn put_on_record(&mut self, id: TaskId, asked: Asked, at: Time, result: StepResult) -> Step {
        let last = self.state.task(id).and_then(|task| task.stepped.or(task.began));
        let at = last.map_or(at, |last| last.max(at));
        let step = Step { asked, at, result };
        let encoded = encode(&step);
        let kept = self.state.tail(id).map_or(0, |tail| tail.bytes.len());
        if kept > 0 && kept + encoded.len() > RECORD_TAIL_BYTES {
            self.write_tail(id);
            self.emit(Event::RecordSpilled { task: id });
        }
        self.emit(Event::Stepped {
            task: id,
            at,
            step: encoded,
        });
        step
    }

    /// Writes what memory keeps of a record to its table.
    pub(super) fn write_tail(&mut self, id: TaskId) {
        let (Some(task), Some(tail)) = (self.state.task(id), self.state.tail(id)) else {
            return;
        };
        self.writes.push(Write {
            table: Table::Steps,
            key: record_key(id, task.run, tail.first),
            value: Some(tail.bytes.clone()),
        });
    }

    /// WAITING runs of which a step can be answered.
    pub(super) fn wake_all(&mut self) -> bool {
        let mut any = false;
        while let Some(id) = self.state.index.woken.first().copied() {
            if !self.step() {
                return false;
            }
            self.wake(id);
            any = true;
        }
        any
    }

    /// Answers the step that a run waits for, with what there is.
    pub(super) fn wake(&mut self, id: TaskId) {
        let Some(wait) = self.state.task(id).and_then(|task| task.wait.clone()) else {
            return;
        };
        if let Some(delivery) = wait.request {
            return self.give_up(id, delivery);
        }
        let result = match wait.tasks.is_empty() {
            true => StepResult::Done,
            false => self.ended(self.ended_of(&wait.tasks)),
        };
        let now = self.now;
        self.put_on_record(id, wait.asked, now, result);
        self.move_task(id, Change::Ready);
    }

    /// Children that have ended, unless their outputs are more than one call can hand over.
    fn ended(&self, tasks: Vec<TaskId>) -> StepResult {
        let inline = |id: &TaskId| match self.state.task(*id)?.result.as_ref()? {
            Payload::Inline(bytes) => Some(bytes.len()),
            Payload::Artifact(_) => None,
        };
        match tasks.iter().filter_map(inline).sum::<usize>() > MAX_ENDS_BYTES {
            true => StepResult::refused(Reason::BudgetExhausted),
            false => StepResult::Ended(tasks),
        }
    }

    fn ended_of(&self, tasks: &[TaskId]) -> Vec<TaskId> {
        let ended = |id: &&TaskId| self.state.task(**id).is_none_or(|task| task.state.is_ended());
        tasks.iter().filter(ended).copied().collect()
    }

    /// What the agent of a lease is: its plugin, its roles, what it holds.
    fn member(&self, lease: &Lease) -> Option<&Member> {
        self.state.member_of(self.state.agent(lease.agent)?)
    }

    /// The state that a lease may use, and how large it may become.
    fn namespace_of(&self, lease: &Lease) -> Option<(Name, u64)> {
        let quota = self.member(lease)?.effective.state.0;
        let crew = self.state.crew_of(lease)?;
        Some((crew.manifest.name.clone(), quota))
    }

    fn state_step(&mut self, facts: &Facts, name: &Name, quota: u64, call: StepCall) -> StepResult {
        let now = self.now;
        let invalid = StepResult::refused(Reason::InvalidInput);
        match call {
            StepCall::Get { key, .. } if !is_key(&key) => invalid,
            StepCall::Get { revision: None, .. } => StepResult::Value(facts.value.clone()),
            StepCall::Get {
                revision: Some(revision),
                ..
            } => {
                let newest = facts.value.clone().filter(|value| value.revision == revision);
                let old = facts.old.clone().filter(|old| is_kept(facts, old, now));
                match newest.or(old.map(|old| old.value)) {
                    Some(value) => StepResult::Value(Some(value)),
                    None => StepResult::refused(Reason::NotFound),
                }
            }
            StepCall::Put { key, value, .. } if !is_key(&key) || value.len() > MAX_STATE_VALUE_BYTES => invalid,
            StepCall::Put { key, value, expected } => self.put(facts, name, quota, &key, value, expected),
            StepCall::Delete { key, .. } if !is_key(&key) => invalid,
            // A quota of zero lets it read only.
            StepCall::Delete { .. } if quota == 0 => StepResult::refused(Reason::QuotaExceeded),
            StepCall::Delete { key, expected } => self.delete(facts, name, &key, expected),
            StepCall::History { key } if !is_key(&key) => invalid,
            StepCall::History { .. } => {
                let rows = facts
                    .page
                    .iter()
                    .filter_map(|(_, row)| decode("an older value", row).ok());
                let old = rows
                    .filter(|old: &Replaced| is_kept(facts, old, now))
                    .map(|old| old.value);
                let all = facts.value.clone().into_iter().chain(old);
                StepResult::Versions(all.map(|value| (value.revision, value.at)).collect())
            }
            StepCall::List { prefix, after, limit } => list(facts, name, &prefix, after.as_deref(), limit),
            _ => StepResult::refused(Reason::HostFault),
        }
    }

    fn put(
        &mut self,
        facts: &Facts,
        name: &Name,
        quota: u64,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<u64>,
    ) -> StepResult {
        let known = &facts.value;
        if let Some(conflict) = conflict(known.as_ref(), expected) {
            return conflict;
        }
        let space = self.state.namespace(name).cloned();
        if space.is_none() && self.state.namespaces().count() >= MAX_NAMESPACES {
            return StepResult::refused(Reason::QuotaExceeded);
        }
        let space = space.unwrap_or_default();
        let before = known.as_ref().map_or(0, |known| size(key, &known.bytes));
        let after = size(key, &bytes);
        let total = space.bytes.saturating_sub(before).saturating_add(after);
        if quota == 0 || after > before && total > quota {
            return StepResult::refused(Reason::QuotaExceeded);
        }
        let revision = known.as_ref().map_or(space.floor.max(1), |known| known.revision + 1);
        self.replace(facts, name, key);
        if let Some(oldest) = revision.checked_sub(STATE_HISTORY) {
            self.writes.push(Write {
                table: Table::Replaced,
                key: old_value_key(name, key, Some(oldest)),
                value: None,
            });
        }
        let value = Value {
            bytes,
            revision,
            at: self.now,
        };
        self.writes.push(Write {
            table: Table::State,
            key: value_key(name, key),
            value: Some(encode(&value)),
        });
        let namespace = Namespace {
            bytes: total,
            keys: space.keys + u64::from(known.is_none()),
            floor: space.floor,
        };
        self.emit(Event::NamespaceChanged {
            name: name.clone(),
            namespace,
        });
        StepResult::Written(revision)
    }

    fn delete(&mut self, facts: &Facts, name: &Name, key: &str, expected: Option<u64>) -> StepResult {
        if let Some(conflict) = conflict(facts.value.as_ref(), expected) {
            return conflict;
        }
        let (Some(known), Some(space)) = (&facts.value, self.state.namespace(name).cloned()) else {
            return StepResult::Deleted(false);
        };
        self.replace(facts, name, key);
        self.writes.push(Write {
            table: Table::State,
            key: value_key(name, key),
            value: None,
        });
        let namespace = Namespace {
            bytes: space.bytes.saturating_sub(size(key, &known.bytes)),
            keys: space.keys.saturating_sub(1),
            floor: space.floor.max(known.revision + 1),
        };
        self.emit(Event::NamespaceChanged {
            name: name.clone(),
            namespace,
        });
        StepResult::Deleted(true)
    }

    /// Keeps the value that is about to go.
    fn replace(&mut self, facts: &Facts, name: &Name, key: &str) {
        if let Some(value) = facts.value.clone() {
            let key = old_value_key(name, key, Some(value.revision));
            let until = self.now.after(STATE_HISTORY_AGE);
            self.writes.push(Write {
                table: Table::Replaced,
                key,
                value: Some(encode(&Replaced { value, until })),
            });
        }
    }

    fn spawn(&mut self, lease: &Lease, asked: Child, id: TaskId) -> StepResult {
        let Some(children) = self.member(lease).map(|member| member.effective.children) else {
            return StepResult::refused(Reason::HostFault);
        };
        let Some(parent) = self.state.task(lease.task) else {
            return StepResult::refused(Reason::HostFault);
        };
        let nodes = self.state.task(parent.root).map_or(0, |root| root.nodes);
        let bad = asked.description.len() > MAX_TEXT_BYTES
            || !asked.input.fits()
            || asked.roles.len() > MAX_ROLES
            || asked.max_retries.is_some_and(|retries| retries > MAX_RETRIES)
            || asked.retry.check().is_err()
            || asked.timeouts.check().is_err();
        if bad {
            return StepResult::refused(Reason::InvalidInput);
        }
        let spawned = u32::try_from(parent.parts().len()).unwrap_or(u32::MAX);
        if spawned >= children || parent.depth >= MAX_TASK_DEPTH || nodes as usize >= MAX_PLAN_NODES {
            return StepResult::refused(Reason::BudgetExhausted);
        }
        if self.state.live_tasks() >= MAX_LIVE_TASKS || self.state.task(id).is_some() {
            return StepResult::refused(Reason::Overloaded);
        }
        let budget = parent.fuel_left().map(|left| Fuel(left.0 / 2));
        if budget == Some(Fuel(0)) {
            return StepResult::refused(Reason::BudgetExhausted);
        }
        let seed = parent.run_seed();
        let task = Task {
            budget,
            parent: Some(parent.id),
            root: parent.root,
            depth: parent.depth + 1,
            description: asked.description,
            input: asked.input,
            roles: asked.roles,
            check: asked.check,
            max_retries: asked.max_retries.unwrap_or(DEFAULT_RETRIES),
            retry: asked.retry,
            timeouts: asked.timeouts,
            seed: retry::child_seed(seed, parent.children.len() as u64),
            order: self.state.next_order(),
            created: self.now,
            by: parent.by.clone(),
            priority: asked.priority.unwrap_or(parent.priority),
            on_failure: parent.on_failure,
            ..blank(id, parent.crew)
        };
        let task = placed(self.guarded(task));
        if self.servable(&task).is_err() {
            return StepResult::refused(Reason::NotFound);
        }
        self.accept(task);
        // Its parent may be finishing in a tree that has failed, where nothing begins.
        self.suspect(id);
        StepResult::Spawned(id)
    }

    fn await_children(&self, lease: &Lease, tasks: Vec<TaskId>, all: bool, timeout: Option<Millis>) -> Verdict {
        let refuse = |reason| Verdict::Answer(StepResult::refused(reason));
        let Some(task) = self.state.task(lease.task) else {
            return Verdict::Refuse(Reason::HostFault);
        };
        let count = 1..=MAX_AWAITED;
        if !count.contains(&tasks.len())
            || tasks.contains(&lease.task)
            || timeout.is_some_and(|timeout| timeout > MAX_AWAIT)
        {
            return refuse(Reason::InvalidInput);
        }
        let mine: std::collections::BTreeSet<&TaskId> = task.parts().iter().collect();
        if !tasks.iter().all(|id| mine.contains(id)) {
            return refuse(Reason::NotFound);
        }
        let ended = self.ended_of(&tasks);
        let enough = if all {
            ended.len() == tasks.len()
        } else {
            !ended.is_empty()
        };
        if enough || timeout == Some(Millis(0)) {
            return Verdict::Answer(self.ended(ended));
        }
        Verdict::Wait {
            tasks,
            all,
            until: timeout.map(|timeout| self.now.after(timeout)),
        }
    }
}

/// A page of keys, out of rows of which there may be one more than was asked for.
fn list(facts: &Facts, name: &Name, prefix: &str, after: Option<&str>, limit: u32) -> StepResult {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let good = |text: &str| text.len() <= MAX_STATE_KEY_BYTES && !text.contains('\0');
    if !(1..=MAX_STATE_PAGE).contains(&limit) || !good(prefix) || !after.is_none_or(good) {
        return StepResult::refused(Reason::InvalidInput);
    }
    let skip = value_key(name, "").len();
    let rows = facts.page.iter().take(limit).filter_map(|(key, row)| {
        let key = String::from_utf8(key.get(skip..)?.to_vec()).ok()?;
        let value: Value = decode("a value", row).ok()?;
        Some((key, value.revision))
    });
    StepResult::Keys {
        keys: rows.collect(),
        more: facts.page.len() > limit,
    }
}

/// Whether an older value is still to be read. The rows of those that are not may be there: a key that comes again begins with a higher revision.
fn is_kept(facts: &Facts, old: &Replaced, now: Time) -> bool {
    let newest = facts.value.as_ref().map_or(0, |value| value.revision);
    old.until > now && old.value.revision.saturating_add(STATE_HISTORY) > newest
}

/// Whether a text can be a key: the rules refuse what the runner should have refused.
fn is_key(text: &str) -> bool {
    (1..=MAX_STATE_KEY_BYTES).contains(&text.len()) && !text.contains('\0')
}

fn size(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

fn conflict(known: Option<&Value>, expected: Option<u64>) -> Option<StepResult> {
    let revision = known.map_or(0, |known| known.revision);
    expected
        .filter(|expected| *expected != revision)
        .map(|_| StepResult::Refused {
            reason: Reason::Conflict,
            revision,
        })
}
