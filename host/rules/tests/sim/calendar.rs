//! What schedules did, entry by entry, against arithmetic: each due time at most once, none early, and what was passed over is what the schedule
//! says. What was not durable has not happened.

use std::collections::{BTreeMap, BTreeSet};

use skep_rules::{
    command::Command,
    event::Event,
    id::{CrewId, Name, TaskId},
    limits::{MAX_CATCH_UP, ON_TIME},
    quantity::{Millis, Time},
    reason::Reason,
    schedule::{Advance, DUE_LABEL, Missed, SCHEDULE_LABEL, Schedule, When},
    shard::Output,
};

use crate::world::World;

/// Patterns whose times are numbers: so often, and so much behind the full hour.
const PATTERNS: &[(&str, u64, u64)] = &[("*/2 * * * *", 120_000, 0), ("30 * * * * *", 60_000, 30_000)];

/// The entries about schedules and the tasks that they submitted, by their positions.
#[derive(Default)]
pub(crate) struct Calendar(BTreeMap<u64, Event>);

/// One schedule as it should be.
struct Life {
    record: Schedule,
    next: Time,
    /// Due times that became tasks.
    fired: BTreeSet<Time>,
    /// The task that the next entry must be.
    owed: Option<(TaskId, Time)>,
}

impl Calendar {
    pub(crate) fn note(&mut self, output: &Output) {
        let first = output.position + 1 - output.entries.len() as u64;
        for (entry, position) in output.entries.iter().zip(first..) {
            let event: Event = minicbor::decode(entry).expect("an entry is an event");
            let about = match &event {
                // One that is tried anew as another task has the labels of the one before.
                Event::TaskAccepted(task) => task.redrives.is_none() && task.labels.contains_key(SCHEDULE_LABEL),
                Event::ScheduleCreated(_) | Event::ScheduleAdvanced { .. } | Event::ScheduleDeleted { .. } => true,
                _ => false,
            };
            if about {
                self.0.insert(position, event);
            }
        }
    }

    pub(crate) fn crash(&mut self, durable: u64) {
        self.0.retain(|position, _| *position <= durable);
    }

    /// Whether all of it is as it should be; what was seen.
    pub(crate) fn check(&self) -> BTreeSet<&'static str> {
        let mut lives: BTreeMap<(Name, Name), Life> = BTreeMap::new();
        let (mut seen, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for event in self.0.values() {
            let owed: Vec<(TaskId, Time)> = lives.values_mut().filter_map(|life| life.owed.take()).collect();
            match event {
                Event::TaskAccepted(task) => {
                    let due = Time(task.labels[DUE_LABEL].parse().unwrap());
                    assert_eq!(owed, [(task.id, due)], "a task comes with its schedule's advance");
                    assert!(ids.insert(task.id), "{} comes twice", task.id);
                    assert!(task.created >= due, "{task:?} is early");
                    continue;
                }
                Event::ScheduleCreated(record) => {
                    let life = Life {
                        next: following(&record.when, Time(record.created.0 - 1)).expect("it comes"),
                        record: record.as_ref().clone(),
                        fired: BTreeSet::new(),
                        owed: None,
                    };
                    assert_eq!(record.next, first(&life), "{record:?}");
                    lives.insert(
                        (record.crew.clone(), record.name.clone()),
                        Life {
                            next: record.next,
                            ..life
                        },
                    );
                }
                Event::ScheduleDeleted { crew, name, .. } => {
                    lives.remove(&(crew.clone(), name.clone())).expect("it was there");
                }
                Event::ScheduleAdvanced {
                    crew,
                    name,
                    advance,
                    next,
                    at,
                } => {
                    let key = (crew.clone(), name.clone());
                    seen.insert(lives.get_mut(&key).expect("it is there").advance(advance, *next, *at));
                    if next.is_none() {
                        seen.insert("ended schedule");
                        // The task of the last due time is still to come.
                        if !matches!(advance, Advance::Fired { .. }) {
                            lives.remove(&key);
                        }
                    }
                }
                _ => {}
            }
            assert_eq!(owed, [], "a task comes with its schedule's advance");
        }
        seen
    }
}

impl Life {
    fn advance(&mut self, advance: &Advance, next: Option<Time>, at: Time) -> &'static str {
        let (when, missed) = (self.record.when.clone(), self.record.missed);
        let (due, late) = (self.next, at.since(self.next) > ON_TIME);
        assert!(at >= due, "{:?} is early", self.record);
        let left = |from: Time| count(&when, from, at);
        let what = match advance {
            Advance::Fired { due: told, .. } | Advance::Refused { due: told, .. } => {
                assert_eq!((*told, next), (due, following(&when, due)), "{:?}", self.record);
                match missed {
                    Missed::Skip => assert!(!late, "{:?} was missed", self.record),
                    Missed::One => assert!(!late || left(due) == 1, "{:?} is not the last", self.record),
                    Missed::All => assert!(!late || left(due) <= MAX_CATCH_UP as u64),
                }
                if let Advance::Fired { task, .. } = advance {
                    assert!(self.fired.insert(due), "{due:?} comes twice");
                    self.owed = Some((*task, due));
                }
                match (advance, late) {
                    (Advance::Refused { .. }, _) => "refused firing",
                    (_, true) => "made up for",
                    (_, false) => "fired",
                }
            }
            Advance::Passed { first } => {
                assert!(*first == due && late, "{:?}", self.record);
                let kept = next.map_or(0, left);
                let right = match missed {
                    Missed::Skip => next == following(&when, Time(at.0 - ON_TIME.0 - 1)),
                    Missed::One => kept == 1 && left(due) > 1,
                    Missed::All => kept == MAX_CATCH_UP as u64 && left(due) > kept,
                };
                assert!(right, "{:?} passes to {next:?} at {at:?}", self.record);
                match missed {
                    Missed::Skip => "skipped",
                    Missed::One => "all but one passed over",
                    Missed::All => "more missed than is made up for",
                }
            }
            Advance::Reset => unreachable!("nobody resets the time here"),
        };
        self.next = next.unwrap_or(Time(u64::MAX));
        what
    }
}

/// So often, from when on.
fn rhythm(when: &When) -> (Option<u64>, u64) {
    match when {
        When::Cron { pattern, .. } => {
            let (_, period, phase) = PATTERNS.iter().find(|(known, ..)| known == pattern).unwrap();
            (Some(*period), *phase)
        }
        When::Every { every, first } => (Some(every.0), first.0),
        When::Once(at) => (None, at.0),
    }
}

/// The first due time behind another.
fn following(when: &When, time: Time) -> Option<Time> {
    let (period, first) = rhythm(when);
    if first > time.0 {
        return Some(Time(first));
    }
    Some(Time(first + ((time.0 - first) / period? + 1) * period?))
}

/// How many due times there are from one to a time.
fn count(when: &When, due: Time, until: Time) -> u64 {
    match rhythm(when).0 {
        _ if due > until => 0,
        Some(period) => (until.0 - due.0) / period + 1,
        None => 1,
    }
}

/// The due time that a schedule begins with: one of an interval may be the very moment.
fn first(life: &Life) -> Time {
    match life.record.when {
        When::Every { .. } => life.next,
        _ => following(&life.record.when, life.record.created).expect("it comes"),
    }
}

impl World {
    /// Somebody makes a schedule, or deletes one.
    pub(crate) fn plan_ahead(&mut self) {
        if self.luck.percent(25) {
            return self.delete_schedule();
        }
        let crews: Vec<CrewId> = self.shard.state().crews().map(|crew| crew.id).collect();
        let Some(crew) = self.luck.pick(&crews).copied() else {
            return;
        };
        let ahead = Millis(self.luck.below(100_000));
        let when = match self.luck.below(10) {
            0..=3 => {
                let (pattern, ..) = self.luck.pick(PATTERNS).unwrap();
                When::Cron {
                    pattern: (*pattern).to_owned(),
                    zone: "UTC".to_owned(),
                }
            }
            4..=7 => When::Every {
                // Now and then so often that more is missed than is made up for.
                every: Millis(if self.luck.percent(10) {
                    1_000
                } else {
                    [20_000, 90_000][self.luck.index(2)]
                }),
                first: self.now.after(ahead),
            },
            _ => When::Once(self.now.after(ahead)),
        };
        let mut task = self.new_task(crew, None);
        task.dependencies.clear();
        task.ephemeral = false;
        let command = Command::CreateSchedule {
            crew,
            name: format!("schedule-{}", self.luck.below(3)).parse().unwrap(),
            when,
            missed: [Missed::Skip, Missed::One, Missed::All][self.luck.index(3)],
            task,
            by: "sim".into(),
        };
        if let Err(rejection) = self.submit(command) {
            let expected = matches!(
                rejection.reason,
                Reason::NotFound | Reason::IllegalTransition | Reason::Conflict | Reason::InvalidInput
            );
            assert!(expected, "{rejection}");
        }
    }

    fn delete_schedule(&mut self) {
        let known: Vec<(Name, Name)> = self.schedules();
        if let Some((crew, name)) = self.luck.pick(&known).cloned() {
            let by = "sim".to_owned();
            self.submit(Command::DeleteSchedule { crew, name, by }).unwrap();
            self.saw("deleted schedule");
        }
    }

    fn schedules(&self) -> Vec<(Name, Name)> {
        let schedules = self.shard.state().schedules();
        schedules.map(|of| (of.crew.clone(), of.name.clone())).collect()
    }

    /// Nothing new comes any more.
    pub(crate) fn delete_schedules(&mut self) {
        for (crew, name) in self.schedules() {
            let by = "sim".to_owned();
            self.submit(Command::DeleteSchedule { crew, name, by }).unwrap();
        }
    }

    /// What is due has come, once nothing is left over.
    pub(crate) fn nothing_is_late(&self) {
        let next = self.shard.state().next_due().map(|(time, _)| time);
        assert!(
            self.shard.is_unfinished() || next.is_none_or(|next| next > self.now),
            "{next:?} should have come by {:?}",
            self.now
        );
        let wake = self.shard.next_wake(self.now);
        assert!(next.is_none() || wake <= next, "nobody wakes for {next:?}");
    }
}
