//! The records of schedules, and when which of them is due.

use std::collections::BTreeSet;

use super::{Corrupt, Key, State};
use crate::{
    crew_record::{Crew, CrewPhase},
    id::Name,
    quantity::Time,
    schedule::{Advance, Last, Schedule},
};

impl State {
    /// A schedule.
    #[must_use]
    pub fn schedule(&self, crew: &Name, name: &Name) -> Option<&Schedule> {
        self.schedules.get(&(crew.clone(), name.clone()))
    }

    /// The schedules, by the names of their crews and their own.
    pub fn schedules(&self) -> impl ExactSizeIterator<Item = &Schedule> {
        self.schedules.values()
    }

    /// The schedule that is due first, and when. One whose crew is not live rests.
    #[must_use]
    pub fn next_due(&self) -> Option<(Time, &Schedule)> {
        let (time, crew, name) = self.due.first()?;
        Some((*time, self.schedule(crew, name)?))
    }

    /// The live crew of a name.
    pub(crate) fn live_crew(&self, name: &Name) -> Option<&Crew> {
        self.crew_named(name).filter(|crew| crew.phase == CrewPhase::Live)
    }

    pub(super) fn all_due(&self) -> BTreeSet<(Time, Name, Name)> {
        let live = self.crews.values().filter(|crew| crew.phase == CrewPhase::Live);
        let live: BTreeSet<&Name> = live.map(|crew| &crew.manifest.name).collect();
        let paced = self.schedules.values().filter(|schedule| live.contains(&schedule.crew));
        paced.map(place).collect()
    }

    /// Lets the schedules of a crew come, or rest, as the crew now is.
    pub(super) fn pace(&mut self, crew: &Name) {
        let live = self.live_crew(crew).is_some();
        let own = self.schedules.values().filter(|schedule| schedule.crew == *crew);
        for place in own.map(place).collect::<Vec<_>>() {
            match live {
                true => self.due.insert(place),
                false => self.due.remove(&place),
            };
        }
    }

    pub(super) fn keep_schedule(&mut self, schedule: &Schedule) {
        if self.live_crew(&schedule.crew).is_some() {
            self.due.insert(place(schedule));
        }
        let key = (schedule.crew.clone(), schedule.name.clone());
        self.touch(Key::Schedule(key.0.clone(), key.1.clone()));
        self.schedules.insert(key, schedule.clone());
    }

    pub(super) fn advance_schedule(
        &mut self,
        crew: &Name,
        name: &Name,
        advance: &Advance,
        next: Option<Time>,
        at: Time,
    ) -> Result<(), Corrupt> {
        let Some(next) = next else {
            return self.drop_schedule(crew, name);
        };
        let key = (crew.clone(), name.clone());
        let schedule = self.schedules.get_mut(&key).ok_or_else(|| missing(name))?;
        let paced = self.due.remove(&place(schedule));
        match advance {
            Advance::Fired { due, task } => {
                schedule.fired += 1;
                schedule.last = Some(Last {
                    due: *due,
                    at,
                    task: Ok(*task),
                });
            }
            Advance::Refused { due, failure } => {
                schedule.last = Some(Last {
                    due: *due,
                    at,
                    task: Err(failure.clone()),
                });
            }
            Advance::Passed { first } => schedule.passed = Some((*first, next)),
            Advance::Reset => {}
        }
        schedule.next = next;
        schedule.revision += 1;
        if paced {
            self.due.insert(place(schedule));
        }
        self.touch(Key::Schedule(key.0, key.1));
        Ok(())
    }

    pub(super) fn drop_schedule(&mut self, crew: &Name, name: &Name) -> Result<(), Corrupt> {
        let key = (crew.clone(), name.clone());
        let schedule = self.schedules.remove(&key).ok_or_else(|| missing(name))?;
        self.due.remove(&place(&schedule));
        self.gone(Key::Schedule(key.0, key.1));
        Ok(())
    }
}

fn place(schedule: &Schedule) -> (Time, Name, Name) {
    (schedule.next, schedule.crew.clone(), schedule.name.clone())
}

fn missing(name: &Name) -> Corrupt {
    Corrupt::Missing(format!("the schedule `{name}`"))
}
