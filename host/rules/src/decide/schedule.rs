//! Schedules: made and deleted by people, and what they submit when they are due. A firing and the schedule's advance are one decision, and the
//! task's id follows from the schedule and the due time: whatever is lost, no due time makes two tasks.

use super::{Decision, Reply};
use crate::{
    agent::Failure,
    audit::{AuditEntry, Kind},
    command::NewTask,
    event::Event,
    facts::Facts,
    id::{CrewId, Digest, Name, TaskId},
    limits::{MAX_LABELS, MAX_SCHEDULES, MAX_TEMPLATE_BYTES},
    plan::Payload,
    quantity::Time,
    reason::Reason,
    rejection::Rejection,
    retry::child_seed,
    schedule::{Advance, DUE_LABEL, Missed, SCHEDULE_LABEL, Schedule, When},
    state::encode,
};

impl Decision<'_> {
    pub(super) fn create_schedule(
        &mut self,
        crew: CrewId,
        name: Name,
        when: When,
        missed: Missed,
        task: NewTask,
    ) -> Result<Reply, Rejection> {
        let record = self.state.crew(crew).ok_or_else(|| Rejection::not_found(crew))?;
        let of = record.manifest.name.clone();
        if let Some(known) = self.state.schedule(&of, &name) {
            // Drawn anew for every request.
            let same = NewTask {
                id: known.task.id,
                seed: known.task.seed,
                ..task
            };
            if (&known.when, known.missed, &known.task) == (&when, missed, &same) {
                return Ok(Reply::Done);
            }
            let message = format!("the crew `{of}` has a schedule `{name}` already, and it is not the same");
            return Err(Rejection::new(Reason::Conflict, message));
        }
        if self.state.schedules().len() >= MAX_SCHEDULES {
            let message = format!("a host holds at most {MAX_SCHEDULES} schedules");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        template(&task).map_err(|what| Rejection::invalid(format!("`task`: {what}")))?;
        when.check(self.now).map_err(Rejection::invalid)?;
        let next = when.after(self.now);
        let next = match &when {
            // The first due time may be this very moment.
            When::Every { first, .. } if *first >= self.now => Some(*first),
            _ => next,
        };
        let next = next.ok_or_else(|| Rejection::invalid("this never comes"))?;
        // Refuses what could not be submitted now.
        self.records(&Facts::default(), crew, vec![task.clone()])?;
        let schedule = Schedule {
            crew: of,
            name,
            when,
            missed,
            task,
            by: self.actor.clone().unwrap_or_default(),
            created: self.now,
            next,
            fired: 0,
            last: None,
            passed: None,
            revision: 1,
        };
        let entry = AuditEntry {
            crew: Some(crew),
            ..self.entry(Kind::ScheduleCreated, schedule.name.as_str())
        };
        self.emit(Event::ScheduleCreated(Box::new(schedule)));
        self.audit.push(entry);
        Ok(Reply::Done)
    }

    pub(super) fn delete_schedule(&mut self, crew: &Name, name: &Name) -> Result<Reply, Rejection> {
        if self.state.schedule(crew, name).is_none() {
            return Err(Rejection::not_found(format!("schedule `{name}` of a crew `{crew}`")));
        }
        self.emit(Event::ScheduleDeleted {
            crew: crew.clone(),
            name: name.clone(),
            at: self.now,
        });
        self.tell_of_schedule(Kind::ScheduleDeleted, crew, None, name.as_str());
        Ok(Reply::Done)
    }

    /// Submits what is due, as far as the stride reaches.
    pub(super) fn fire_schedules(&mut self) {
        while let Some(schedule) = self.state.next_due().map(|(_, schedule)| schedule.clone()) {
            let Some(turn) = schedule.turn(self.now) else {
                break;
            };
            if !self.step() {
                break;
            }
            let following = turn.fire.iter().skip(1).copied().map(Some).chain([turn.next]);
            if turn.passes {
                let next = turn.fire.first().copied().or(turn.next);
                self.pass_over(&schedule, next);
            }
            for ((due, next), at) in turn.fire.iter().zip(following).zip(0..) {
                // What the stride does not reach, the next tick finds again.
                if at > 0 && !self.step() {
                    return;
                }
                self.fire(&schedule, *due, next);
            }
        }
    }

    fn fire(&mut self, schedule: &Schedule, due: Time, next: Option<Time>) {
        let task = due_task(schedule, due);
        let id = task.id;
        let crew = self.state.live_crew(&schedule.crew).map(|crew| crew.id);
        let crew = crew.ok_or_else(|| Rejection::not_found(format!("live crew `{}`", schedule.crew)));
        let before = self.actor.replace(schedule.by.clone());
        let records = crew.and_then(|crew| self.records(&Facts::default(), crew, vec![task]));
        match records {
            Ok(records) => {
                self.advance(schedule, Advance::Fired { due, task: id }, next);
                for record in records {
                    self.accept(record);
                }
            }
            Err(refused) => {
                let failure = Failure::new(refused.reason, &refused.message);
                let detail = format!("{} due at {} ms: {}", schedule.name, due.0, refused.message);
                self.advance(schedule, Advance::Refused { due, failure }, next);
                self.tell_of_schedule(Kind::ScheduleRefused, &schedule.crew, Some(refused.reason), &detail);
            }
        }
        self.actor = before;
    }

    fn pass_over(&mut self, schedule: &Schedule, next: Option<Time>) {
        let first = schedule.next;
        let until = next.map_or_else(|| "its end".to_owned(), |next| format!("{} ms", next.0));
        let detail = format!("{}: from {} ms to {until}", schedule.name, first.0);
        self.advance(schedule, Advance::Passed { first }, next);
        self.tell_of_schedule(Kind::SchedulePassed, &schedule.crew, None, &detail);
    }

    fn advance(&mut self, schedule: &Schedule, advance: Advance, next: Option<Time>) {
        self.emit(Event::ScheduleAdvanced {
            crew: schedule.crew.clone(),
            name: schedule.name.clone(),
            advance,
            next,
            at: self.now,
        });
    }

    /// Counts due times anew, after a clock that stood in the future was set right: otherwise they would come no sooner than it had said. Those
    /// that were fired while it was wrong come again.
    pub(super) fn reset_schedules(&mut self) {
        let schedules: Vec<Schedule> = self.state.schedules().cloned().collect();
        for schedule in schedules {
            let next = schedule.when.after(self.now);
            if next.is_some_and(|next| next < schedule.next) {
                self.advance(&schedule, Advance::Reset, next);
            }
        }
    }

    fn tell_of_schedule(&mut self, kind: Kind, crew: &Name, reason: Option<Reason>, detail: &str) {
        let entry = AuditEntry {
            crew: self.state.crew_named(crew).map(|crew| crew.id),
            reason,
            ..self.entry(kind, detail)
        };
        self.audit.push(entry);
    }
}

/// What a schedule submits for a due time.
fn due_task(schedule: &Schedule, due: Time) -> NewTask {
    let mut task = schedule.task.clone();
    task.seed = child_seed(schedule.task.seed, due.0);
    task.id = due_id(schedule, due);
    let labels = [
        (SCHEDULE_LABEL, schedule.name.to_string()),
        (DUE_LABEL, due.0.to_string()),
    ];
    task.labels.extend(labels.map(|(key, value)| (key.to_owned(), value)));
    task
}

/// A UUIDv7 of the due time whose random bits follow from the schedule's own id and the due time.
fn due_id(schedule: &Schedule, due: Time) -> TaskId {
    let drawn = [schedule.task.id.to_bytes().as_slice(), &due.0.to_be_bytes()].concat();
    TaskId::of_digest(Digest::of(&drawn), due, schedule.task.id.shard())
}

/// What a schedule cannot submit.
fn template(task: &NewTask) -> Result<(), String> {
    let size = encode(task).len();
    if task.approval.is_some() {
        Err(
            "`approval`: each task of a schedule would need a person anew; have its agent ask (`tasks.ask-approval`)"
                .to_owned(),
        )
    } else if !task.dependencies.is_empty() {
        Err("`dependencies`: what is submitted again and again waits for nothing".to_owned())
    } else if task.ephemeral {
        Err("`durability`: what a schedule submits is durable".to_owned())
    } else if matches!(task.input, Payload::Artifact(_)) {
        Err("`input`: an artifact is one crew's, and a schedule may outlive it; give it inline".to_owned())
    } else if let Some(key) = [SCHEDULE_LABEL, DUE_LABEL]
        .iter()
        .find(|key| task.labels.contains_key(**key))
    {
        Err(format!("`labels`: `{key}` is given to each task by its schedule"))
    } else if task.labels.len() + 2 > MAX_LABELS {
        Err(format!(
            "`labels`: at most {}, because two are the schedule's",
            MAX_LABELS - 2
        ))
    } else if size > MAX_TEMPLATE_BYTES {
        Err(format!("it has {size} bytes, at most {MAX_TEMPLATE_BYTES}"))
    } else {
        Ok(())
    }
}
