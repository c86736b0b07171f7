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

#[cfg(test)]
mod tests {
    use crate::{
        event::Event,
        id::TaskId,
        quantity::Time,
        schedule::{Advance, Missed, When},
        state::{decode, encode},
    };

    fn bytes(written: &str) -> Vec<u8> {
        let digits: Vec<u8> = written.bytes().filter(|byte| *byte != b' ').collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// As in `super::super::tests`: these bytes never change, lines are only added.
    #[test]
    fn entries_of_every_release_are_read() {
        let (crew, name) = ("c".parse().unwrap(), "n".parse().unwrap());
        let task = TaskId::new(3 << 16, 0);
        let advanced = |advance, next| Event::ScheduleAdvanced {
            crew: "c".parse().unwrap(),
            name: "n".parse().unwrap(),
            advance,
            next,
            at: Time(5),
        };
        let cases = [
            (
                advanced(Advance::Fired { due: Time(5), task }, Some(Time(7))),
                "82185b 85 6163 616e 82 00 82 05 5000000000000000000000000000030000 07 05",
            ),
            (
                advanced(Advance::Passed { first: Time(5) }, None),
                "82185b 85 6163 616e 82 02 81 05 f6 05",
            ),
            (
                advanced(Advance::Reset, Some(Time(7))),
                "82185b 85 6163 616e 82 03 80 07 05",
            ),
            (
                Event::ScheduleDeleted {
                    crew,
                    name,
                    at: Time(5),
                },
                "82185c 83 6163 616e 05",
            ),
        ];
        for (event, written) in cases {
            assert_eq!(decode::<Event>("an entry", &encode(&event)).as_ref(), Ok(&event));
            assert_eq!(decode::<Event>("an entry", &bytes(written)), Ok(event));
        }
        let created = "82185a 81 8c 6163 616e 82 00 82 692a202a202a202a202a 63555443 01 \
                       8c 5000000000000000000000000000030000 07 6164 82008140 80 f6 f4 80 f4 f6 80 a0 6162 05 07 00 f6 f6 01";
        let Ok(Event::ScheduleCreated(schedule)) = decode("an entry", &bytes(created)) else {
            panic!("it is a schedule")
        };
        let when = When::Cron {
            pattern: "* * * * *".to_owned(),
            zone: "UTC".to_owned(),
        };
        assert_eq!((&schedule.when, schedule.missed), (&when, Missed::One));
        assert_eq!((schedule.task.id, schedule.task.description.as_str()), (task, "d"));
        assert_eq!(
            (schedule.by.as_str(), schedule.next, schedule.revision),
            ("b", Time(7), 1)
        );
        assert_eq!(
            decode::<Event>("an entry", &encode(&Event::ScheduleCreated(schedule.clone()))),
            Ok(Event::ScheduleCreated(schedule))
        );
    }
}
