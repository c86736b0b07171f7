//! An event decided: applied at once, and with what the audit log, the archive and the streams must hear of it.

use super::{Decision, Reply};
use crate::{
    agent::{Failure, Phase},
    audit::{AuditEntry, Kind},
    crew_record::CrewPhase,
    effect::{Changed, Effect, Notice},
    event::{Change, Event},
    facts::{Table, Write},
    id::{AgentId, CrewId, Digest, TaskId},
    lease::Held,
    limits::MAX_DENIALS,
    reason::Reason,
    seam::{Denial, Lease, RunnerCommand},
    state::{State, encode},
    task::TaskState,
};

impl Decision<'_> {
    pub(super) fn run(&mut self, command: RunnerCommand) {
        self.effects.push(Effect::Run(command));
    }

    pub(super) fn notice(&mut self, crew: Option<CrewId>, what: Changed) {
        let at = self.now;
        self.effects.push(Effect::Notice(Notice { at, crew, what }));
    }

    /// Begins an audit entry; the caller adds what it is about and pushes it.
    pub(super) fn entry(&self, kind: Kind, detail: impl AsRef<str>) -> AuditEntry {
        AuditEntry {
            actor: self.actor.clone(),
            ..AuditEntry::new(self.now, kind, detail)
        }
    }

    /// Remembers an event without a word about it: in the journal, or in memory only where it concerns an ephemeral task only.
    pub(super) fn emit(&mut self, event: Event) {
        let volatile = self.state.is_volatile(&event);
        self.state
            .apply(&event)
            .expect("events are decided from this very state");
        if volatile {
            return;
        }
        let entry = encode(&event);
        self.bytes += entry.len();
        self.entries.push(entry);
    }

    /// Puts an entry in the audit log, unless it is about an ephemeral task: of those nothing is audited but what was refused to them.
    pub(super) fn note(&mut self, entry: AuditEntry) {
        let about_ephemeral = entry.task.is_some_and(|task| self.state.is_ephemeral(task));
        if entry.kind == Kind::Denied || !about_ephemeral {
            self.audit.push(entry);
        }
    }

    /// Looks, once the decision settles, whether a task stands in a tree that has failed.
    pub(super) fn suspect(&mut self, task: TaskId) {
        self.suspects.push(task);
    }

    pub(super) fn move_crew(&mut self, crew: CrewId, to: CrewPhase) {
        let at = self.now;
        self.emit(Event::CrewMoved { crew, to, at });
        let kind = match to {
            CrewPhase::Stopped => {
                self.observed.turns.remove(&crew);
                Kind::CrewStopped
            }
            CrewPhase::Live | CrewPhase::Draining => Kind::CrewDrained,
        };
        let name = self.state.crew(crew).map(|crew| crew.manifest.name.to_string());
        let entry = AuditEntry {
            crew: Some(crew),
            ..self.entry(kind, name.unwrap_or_default())
        };
        self.audit.push(entry);
        self.notice(Some(crew), Changed::Crew(to));
    }

    pub(super) fn move_agent(&mut self, agent: AgentId, to: Phase, failure: Option<Failure>) {
        let before = self.phase(agent);
        let at = self.now;
        let reason = failure.as_ref().map(|failure| failure.reason);
        self.emit(Event::AgentMoved { agent, to, at, failure });
        self.agent_moved(agent, before, reason);
    }

    fn phase(&self, agent: AgentId) -> Option<Phase> {
        self.state.agent(agent).map(|agent| agent.phase)
    }

    /// Tells of an agent whose phase is another now, if it is.
    pub(super) fn agent_moved(&mut self, id: AgentId, before: Option<Phase>, reason: Option<Reason>) {
        let Some(agent) = self.state.agent(id) else {
            return;
        };
        let (crew, phase) = (agent.crew, agent.phase);
        let Some(before) = before.filter(|before| *before != phase) else {
            return;
        };
        let entry = AuditEntry {
            crew: Some(crew),
            agent: Some(id),
            reason,
            ..self.entry(Kind::AgentMoved, format!("{before} → {phase}"))
        };
        self.audit.push(entry);
        self.observed.stirred.insert(crew);
        self.notice(Some(crew), Changed::Agent { agent: id, phase });
    }

    pub(super) fn accept(&mut self, task: crate::task::Task) {
        let (id, crew, state) = (task.id, task.crew, task.state);
        let entry = AuditEntry {
            crew: Some(crew),
            task: Some(id),
            actor: Some(task.by.clone()),
            ..self.entry(Kind::TaskSubmitted, &task.description)
        };
        let is_delivery = task.delivery.is_some();
        self.emit(Event::TaskAccepted(Box::new(task)));
        // Of messages the audit log tells only what went wrong.
        if !is_delivery {
            self.note(entry);
        }
        self.observed.stirred.insert(crew);
        let what = Changed::Task {
            task: id,
            state,
            agent: None,
            reason: None,
        };
        self.notice(Some(crew), what);
    }

    /// Moves a task. What held it holds it no longer, unless it is only just being leased or begun.
    pub(super) fn move_task(&mut self, id: TaskId, change: Change) {
        let change = self.gate(id, change);
        self.withdraw(id, &change);
        let Some(task) = self.state.task(id) else {
            return;
        };
        let (crew, parent, before) = (task.crew, task.parent, task.state);
        let released = task.held.clone().filter(|_| !change.keeps_lease());
        match &change {
            Change::Assigned(_) | Change::Reprioritised(_) => {}
            Change::Started => {
                if let Some(held) = &task.held {
                    self.observed.began(held.lease, self.now);
                }
            }
            _ => self.observed.forget(id),
        }
        let ends = change.ends();
        let begins = change.begins_run(task.held.as_ref());
        // Nobody adds to the record any more, and memory lets it go.
        if ends || begins {
            self.write_tail(id);
        }
        let given = matches!(
            change,
            Change::Candidate(_) | Change::Exhausted(_) | Change::Asks { result: Some(_), .. }
        );
        if ends || begins || given {
            self.over.push((id, matches!(change, Change::Continued(_))));
        }
        let was_doomed = parent.is_some_and(|parent| self.state.index.doom_of(parent).is_some());
        let complaint = released.as_ref().and_then(|held| complaint(self.state, held, &change));
        // A person may be asked about something in a tree that has failed meanwhile.
        let asks = matches!(change, Change::Asks { .. });
        let at = self.now;
        self.emit(Event::TaskMoved { task: id, change, at });
        if let (Some(held), Some((reason, message))) = (&released, complaint) {
            self.attempt_failed(crew, held.lease, reason, &message);
        }
        // READY and BUSY follow from leases: the entries of the tasks tell them.
        if released.is_some() {
            self.observed.stirred.insert(crew);
        }
        self.told(id, before);
        if released.is_some() || asks {
            self.suspects.push(id);
        }
        if let Some(parent) = parent.filter(|parent| !was_doomed && self.state.index.doom_of(*parent).is_some()) {
            self.suspects.push(parent);
        }
    }

    /// Audit, archive and notice of a task that has moved.
    fn told(&mut self, id: TaskId, before: crate::task::TaskState) {
        let Some(task) = self.state.task(id) else {
            return;
        };
        let (crew, state) = (task.crew, task.state);
        let reason = task.failure.as_ref().map(|failure| failure.reason);
        let holder = task.held.as_ref().map(|held| held.lease.agent);
        if state.is_ended() {
            let message = task.failure.as_ref().map(|failure| failure.message.as_str());
            let detail = message.map_or_else(|| state.to_string(), |message| format!("{state}: {message}"));
            let row = (!task.ephemeral).then(|| Write {
                table: Table::Tasks,
                key: id.to_bytes().to_vec(),
                value: Some(encode(task)),
            });
            let agent = task.executed_by;
            let entry = AuditEntry {
                crew: Some(crew),
                agent,
                task: Some(id),
                reason,
                ..self.entry(Kind::TaskEnded, detail)
            };
            match task.delivery {
                Some(_) => self.delivered.push(id),
                None => self.note(entry),
            }
            self.writes.extend(row);
        } else {
            if state == TaskState::Paused {
                let why = task.failure.as_ref().map_or("", |failure| failure.message.as_str());
                let entry = AuditEntry {
                    crew: Some(crew),
                    task: Some(id),
                    reason,
                    ..self.entry(Kind::TaskPaused, why)
                };
                self.note(entry);
            }
            self.observed.stirred.insert(crew);
        }
        if state != before || holder.is_some() {
            let what = Changed::Task {
                task: id,
                state,
                agent: holder,
                reason,
            };
            self.notice(Some(crew), what);
        }
    }

    pub(super) fn attempt_failed(&mut self, crew: CrewId, lease: Lease, reason: Reason, message: &str) {
        let entry = AuditEntry {
            crew: Some(crew),
            agent: Some(lease.agent),
            task: Some(lease.task),
            reason: Some(reason),
            ..self.entry(Kind::AttemptFailed, message)
        };
        self.note(entry);
    }

    /// Somebody has written to the code cache, or its disk fails: the operator should know.
    pub(super) fn cache_refused(&mut self, digest: Digest, why: &str) -> Reply {
        let entry = self.entry(Kind::CacheRefused, format!("{digest}: {why}"));
        self.emit(Event::CacheRefused { digest, at: self.now });
        self.audit.push(entry);
        Reply::Done
    }

    /// Somebody outside was not told of what happened, and will not be.
    pub(super) fn note_webhook(&mut self, what: &str) -> Reply {
        let entry = self.entry(Kind::WebhookFailed, what);
        self.emit(Event::TimeSeen { at: self.now });
        self.audit.push(entry);
        Reply::Done
    }

    /// Everything that the host remembers is about to be given away.
    pub(super) fn note_backup(&mut self) -> Reply {
        let entry = self.entry(Kind::BackedUp, "");
        self.emit(Event::TimeSeen { at: self.now });
        self.audit.push(entry);
        Reply::Done
    }

    /// One entry per refused thing of an attempt, equal ones counted.
    pub(super) fn denied(&mut self, crew: CrewId, lease: Lease, denials: &[Denial]) {
        for denial in denials.iter().take(MAX_DENIALS) {
            let entry = AuditEntry {
                crew: Some(crew),
                agent: Some(lease.agent),
                task: Some(lease.task),
                reason: Some(denial.reason),
                ..self.entry(Kind::Denied, format!("{} (×{})", denial.what, denial.count))
            };
            self.note(entry);
        }
        // The entry that tells what an ephemeral attempt used is not journaled, and audit entries travel with one that is.
        if !denials.is_empty() && self.state.is_ephemeral(lease.task) {
            self.emit(Event::TimeSeen { at: self.now });
        }
    }
}

/// Why an attempt did not finish well, if it did not.
fn complaint(state: &State, held: &Held, change: &Change) -> Option<(Reason, String)> {
    let said = |failure: Failure| (failure.reason, failure.message);
    match change {
        Change::Retry { failure, .. }
        | Change::Cancelled(failure)
        | Change::Paused(failure)
        | Change::Exhausted(failure)
        | Change::Buried(failure)
        | Change::Held(failure)
        | Change::Rejected(failure) => Some(said(failure.clone())),
        Change::Failed(cause) | Change::Skipped(cause) => state.failure(cause).ok().map(said),
        Change::Lost if held.started => Some((Reason::Interrupted, "the attempt was lost".to_owned())),
        Change::Lost => Some((Reason::Interrupted, "the attempt never began".to_owned())),
        Change::SentBack(remark) => Some((Reason::Verify, remark.clone())),
        Change::Ready
        | Change::Assigned(_)
        | Change::Started
        | Change::HandedBack
        | Change::Candidate(_)
        | Change::Split
        | Change::Drafted(_)
        | Change::Waits(_)
        | Change::Asks { .. }
        | Change::Continued(_)
        | Change::Completed(_)
        | Change::Resumed(_)
        | Change::Again
        | Change::Reprioritised(_)
        | Change::Overridden(_) => None,
    }
}
