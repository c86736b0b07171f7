//! Schedules: which times a task is due at, and what becomes of due times that nobody was there for. The times are computed by `croner` with the
//! zones of the IANA database, which is compiled in; the machine is asked neither for the time nor for its zone. What was once decided stands in
//! the journal, so a newer database changes no past.

use croner::{Cron, CronDateTime as _};
use jiff::{Timestamp, Zoned, civil::Date, tz::TimeZone};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    agent::Failure,
    command::NewTask,
    id::{Name, TaskId},
    limits::{MAX_CATCH_UP, MAX_CRON_BYTES, MAX_SCHEDULE_AHEAD, MIN_INTERVAL, ON_TIME},
    quantity::{Millis, Time},
};

/// The label of a task that names its schedule.
pub const SCHEDULE_LABEL: &str = "schedule";
/// The label of a task that says when it was due, in milliseconds since 1970.
pub const DUE_LABEL: &str = "due";

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum When {
    /// At the times that a cron pattern names. Of times that a zone leaves out, a pattern of fixed times is due right after; of times that it has
    /// twice, at the first. A pattern with `*` or steps in its hours or minutes goes by the clock on the wall.
    #[n(0)]
    Cron {
        /// Five fields, or six with seconds in front, or seven with years behind.
        #[n(0)]
        pattern: String,
        /// A name of the IANA database.
        #[n(1)]
        zone: String,
    },
    /// Again and again.
    #[n(1)]
    Every {
        /// How often.
        #[n(0)]
        every: Millis,
        /// The first time.
        #[n(1)]
        first: Time,
    },
    /// Once.
    #[n(2)]
    Once(#[n(0)] Time),
}

/// What becomes of due times that have passed while the host was down or the crew drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Nothing.
    #[n(0)]
    Skip,
    /// The last of them is made up for.
    #[default]
    #[n(1)]
    One,
    /// Each of them is, the oldest first; of more than [`MAX_CATCH_UP`] the newest.
    #[n(2)]
    All,
}

/// A task that is submitted again and again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Schedule {
    /// The name of the crew that works on it: the schedule rests while there is none, and goes on with the next crew of that name.
    #[n(0)]
    pub crew: Name,
    /// Its name, the only one of the crew.
    #[n(1)]
    pub name: Name,
    /// When it is due.
    #[n(2)]
    pub when: When,
    /// What becomes of due times that were missed.
    #[n(3)]
    pub missed: Missed,
    /// What is submitted. Each time it gets an id and a seed of its own, drawn from the seed here and the due time.
    #[n(4)]
    pub task: NewTask,
    /// Who made it, and in whose name it submits.
    #[n(5)]
    pub by: String,
    /// When it was made.
    #[n(6)]
    pub created: Time,
    /// The next due time. A schedule that has none is gone.
    #[n(7)]
    pub next: Time,
    /// Due times that became tasks.
    #[n(8)]
    pub fired: u64,
    /// The last due time that was looked at, and what became of it.
    #[n(9)]
    pub last: Option<Last>,
    /// Due times that were passed over last: from the first to the second, which was not.
    #[n(10)]
    pub passed: Option<(Time, Time)>,
    /// Rises with every change of the record.
    #[n(11)]
    pub revision: u64,
}

/// What became of a due time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Last {
    /// It.
    #[n(0)]
    pub due: Time,
    /// When it was looked at.
    #[n(1)]
    pub at: Time,
    /// The task, or why there is none.
    #[n(2)]
    pub task: Result<TaskId, Failure>,
}

/// How a schedule moved on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Advance {
    /// A task was submitted.
    #[n(0)]
    Fired {
        /// For this time.
        #[n(0)]
        due: Time,
        /// It.
        #[n(1)]
        task: TaskId,
    },
    /// A task could not be submitted. It is not tried again.
    #[n(1)]
    Refused {
        /// For this time.
        #[n(0)]
        due: Time,
        /// Why.
        #[n(1)]
        failure: Failure,
    },
    /// Due times were passed over.
    #[n(2)]
    Passed {
        /// The first of them.
        #[n(0)]
        first: Time,
    },
    /// The clock had been wrong, and due times are counted anew.
    #[n(3)]
    Reset,
}

/// What is to be done about the due times that have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The next due time is passed over, and all before the first of `fire`; where there is none, before `next`.
    pub(crate) passes: bool,
    /// These are submitted, in order.
    pub(crate) fire: Vec<Time>,
    /// And this comes after them.
    pub(crate) next: Option<Time>,
}

impl Schedule {
    /// What is to be done; nothing before its time. What is late by no more than [`ON_TIME`] was not missed.
    pub(crate) fn turn(&self, now: Time) -> Option<Turn> {
        let due = self.next;
        if due > now {
            return None;
        }
        let after = |fire: Vec<Time>| Turn {
            passes: fire.first().is_some_and(|first| *first > due),
            next: fire.last().and_then(|last| self.when.after(*last)),
            fire,
        };
        Some(match self.missed {
            _ if now.since(due) <= ON_TIME => after(vec![due]),
            Missed::Skip => Turn {
                passes: true,
                fire: Vec::new(),
                next: self.when.after(Time(now.0.saturating_sub(ON_TIME.0 + 1))),
            },
            Missed::One => after(self.when.between(due, now, 1)),
            Missed::All => after(self.when.between(due, now, MAX_CATCH_UP)),
        })
    }
}

impl When {
    /// Why it is not acceptable, with the place, if it is not; `now` is when it is made.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, now: Time) -> Result<(), String> {
        match self {
            When::Cron { pattern, zone } => {
                let zone = zone_of(zone)?;
                let cron = parse(pattern)?;
                match next(&cron, &zone, now) {
                    Some(_) => Ok(()),
                    None => Err(never(pattern, &zone, now)),
                }
            }
            When::Every { every, first } => {
                if *every < MIN_INTERVAL || *every > MAX_SCHEDULE_AHEAD {
                    let message = format!("`every`: {every} is not between {MIN_INTERVAL} and {MAX_SCHEDULE_AHEAD}");
                    return Err(message);
                }
                ahead("first", *first, now)
            }
            When::Once(at) if *at <= now => Err("`at`: this time is past, so it can never come".to_owned()),
            When::Once(at) => ahead("at", *at, now),
        }
    }

    /// The first due time behind a time; none where there is none within [`MAX_SCHEDULE_AHEAD`].
    #[must_use]
    pub fn after(&self, time: Time) -> Option<Time> {
        match self {
            When::Cron { pattern, zone } => next(&parse(pattern).ok()?, &zone_of(zone).ok()?, time),
            When::Every { first, .. } if *first > time => Some(*first),
            When::Every { every, first } => {
                let passed = time.since(*first).0.checked_div(every.0)?;
                let next = first.0.checked_add(every.0.checked_mul(passed.checked_add(1)?)?)?;
                Some(Time(next))
            }
            When::Once(at) => (*at > time).then_some(*at),
        }
    }

    /// The due times from one, which is due, to another time: the newest, at most so many, the oldest first.
    fn between(&self, due: Time, until: Time, most: usize) -> Vec<Time> {
        let mut found = Vec::new();
        match self {
            When::Cron { pattern, zone } => {
                if let (Ok(cron), Ok(zone)) = (parse(pattern), zone_of(zone)) {
                    let mut at = last(&cron, &zone, until, true);
                    while let Some(time) = at.filter(|time| *time > due && found.len() < most) {
                        found.push(time);
                        at = last(&cron, &zone, time, false);
                    }
                }
            }
            When::Every { every, first } => {
                let passed = until.since(*first).0.checked_div(every.0).unwrap_or(0);
                let mut at = Time(first.0.saturating_add(every.0.saturating_mul(passed)));
                while at > due && found.len() < most {
                    found.push(at);
                    at = Time(at.0.saturating_sub(every.0));
                }
            }
            When::Once(_) => {}
        }
        if found.len() < most {
            found.push(due);
        }
        found.reverse();
        found
    }
}

/// Refuses what lies too far ahead to be meant.
fn ahead(what: &str, time: Time, now: Time) -> Result<(), String> {
    match time <= now.after(MAX_SCHEDULE_AHEAD) {
        true => Ok(()),
        false => Err(format!("`{what}`: it is more than {MAX_SCHEDULE_AHEAD} ahead")),
    }
}

/// A point in time as people write it: `2027-01-31T09:00:00Z`, with any offset, or milliseconds since 1970.
///
/// # Errors
/// When it is neither.
pub fn time(text: &str) -> Result<Time, String> {
    let number = || text.parse().ok().map(Time);
    let written = text.parse::<Timestamp>().ok();
    let written = written.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    let found = written.map(Time).or_else(number);
    found.ok_or_else(|| "write it as `2027-01-31T09:00:00Z`, or in milliseconds since 1970".to_owned())
}

fn zone_of(name: &str) -> Result<TimeZone, String> {
    // Names of the database have some thirty characters; a longer one is not worth repeating.
    let shown: String = name.chars().take(64).collect();
    TimeZone::get(name).map_err(|_| format!("`zone`: there is no time zone `{shown}`; write it as `Europe/Vienna`"))
}

fn parse(pattern: &str) -> Result<Cron, String> {
    if pattern.len() > MAX_CRON_BYTES {
        return Err(format!("`cron`: it has more than {MAX_CRON_BYTES} bytes"));
    }
    pattern.parse().map_err(|error: croner::errors::CronError| {
        // A field is wrong if it is so among fields that are right.
        match fields(pattern).find(|field| alone(pattern, field).parse::<Cron>().is_err()) {
            Some(field) => place(pattern, &field, &error.to_string()),
            None => format!("`cron`: `{pattern}`: {error}"),
        }
    })
}

/// A field of a pattern: its number from 1, and where it is.
type Field = (usize, std::ops::Range<usize>);

fn fields(pattern: &str) -> impl Iterator<Item = Field> + '_ {
    let start = |field: &str| field.as_ptr().addr() - pattern.as_ptr().addr();
    let ranges = pattern.split_whitespace().map(move |field| (start(field), field.len()));
    ranges
        .zip(1..)
        .map(|((start, len), number)| (number, start..start + len))
}

/// The pattern with `*` in every field but one.
fn alone(pattern: &str, kept: &Field) -> String {
    let text = |field: Field| match field.0 == kept.0 {
        true => pattern.get(field.1).unwrap_or_default().to_owned(),
        false => "*".to_owned(),
    };
    fields(pattern).map(text).collect::<Vec<_>>().join(" ")
}

/// The pattern with `*` in one field.
fn without(pattern: &str, dropped: &Field) -> String {
    let text = |field: Field| match field.0 == dropped.0 {
        true => "*".to_owned(),
        false => pattern.get(field.1).unwrap_or_default().to_owned(),
    };
    fields(pattern).map(text).collect::<Vec<_>>().join(" ")
}

/// What is wrong with a field, and a caret beneath it.
fn place(pattern: &str, field: &Field, why: &str) -> String {
    let (number, range) = field;
    let text = pattern.get(range.clone()).unwrap_or_default();
    let before = pattern.get(..range.start).unwrap_or_default().chars().count();
    let carets = "^".repeat(text.chars().count());
    format!(
        "`cron`: field {number}, `{text}`: {why}\n  {pattern}\n  {}{carets}",
        " ".repeat(before)
    )
}

/// Why a pattern names no time: the first field without which it would.
fn never(pattern: &str, zone: &TimeZone, now: Time) -> String {
    let comes = |field: &Field| {
        let cron = without(pattern, field).parse::<Cron>();
        cron.is_ok_and(|cron| next(&cron, zone, now).is_some())
    };
    let years = MAX_SCHEDULE_AHEAD.0 / (366 * 86_400_000);
    let why = format!("with this it never comes, not within {years} years");
    match fields(pattern).find(comes) {
        Some(field) => place(pattern, &field, &why),
        None => format!("`cron`: `{pattern}` never comes, not within {years} years"),
    }
}

/// The first time behind another that a pattern names.
fn next(cron: &Cron, zone: &TimeZone, time: Time) -> Option<Time> {
    let start = zoned(zone, time)?;
    // The search goes on for thousands of years where no day fits, so a day is looked for first.
    first_day(cron, start.date())?;
    let found = millis(&cron.find_next_occurrence(&start, false).ok()?)?;
    (found > time && found <= time.after(MAX_SCHEDULE_AHEAD)).then_some(found)
}

/// The last time before another, or at it, that a pattern names. Asked only where there is one.
fn last(cron: &Cron, zone: &TimeZone, time: Time, inclusive: bool) -> Option<Time> {
    let found = millis(&cron.find_previous_occurrence(&zoned(zone, time)?, inclusive).ok()?)?;
    (found < time || inclusive && found == time).then_some(found)
}

/// The first day from one on that a pattern names, not looking further than [`MAX_SCHEDULE_AHEAD`].
fn first_day(cron: &Cron, from: Date) -> Option<Date> {
    let pattern = &cron.pattern;
    let fits = |day: Date| {
        let (civil, weekday) = (day.at(0, 0, 0, 0).to_civil(), day.at(0, 0, 0, 0).civil_weekday());
        let (year, month) = (civil.year(), civil.month());
        let right = pattern.year_match(year).ok()? && pattern.month_match(month).ok()?;
        Some(right && pattern.day_match(year, month, civil.day(), weekday).ok()?)
    };
    let mut day = from;
    for _ in 0..=MAX_SCHEDULE_AHEAD.0 / 86_400_000 {
        if fits(day)? {
            return Some(day);
        }
        day = day.tomorrow().ok()?;
    }
    None
}

/// A time on the wall, cut to whole seconds: patterns name no others.
fn zoned(zone: &TimeZone, time: Time) -> Option<Zoned> {
    let seconds = i64::try_from(time.0 / 1_000).ok()?;
    Some(Timestamp::from_second(seconds).ok()?.to_zoned(zone.clone()))
}

fn millis(time: &Zoned) -> Option<Time> {
    u64::try_from(time.timestamp().as_millisecond()).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time(u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap())
    }

    fn cron(pattern: &str, zone: &str) -> When {
        When::Cron {
            pattern: pattern.to_owned(),
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn patterns_name_their_times() {
        let cases: &[(&str, &str, &str, &[&str])] = &[
            (
                "*/15 * * * * *",
                "UTC",
                "2026-01-01T00:00:00.001Z",
                &["2026-01-01T00:00:15Z", "2026-01-01T00:00:30Z"],
            ),
            // Never at the time itself, nor before it.
            ("0 0 * * *", "UTC", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z"]),
            (
                "0 0 * * *",
                "UTC",
                "2025-12-31T23:59:59.999Z",
                &["2026-01-01T00:00:00Z"],
            ),
            ("@weekly", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T00:00:00Z"]),
            (
                "0 0 L * *",
                "UTC",
                "2023-02-10T00:00:00Z",
                &["2023-02-28T00:00:00Z", "2023-03-31T00:00:00Z"],
            ),
            (
                "0 9 * * MON-FRI",
                "America/New_York",
                "2024-11-01T20:00:00Z",
                &["2024-11-04T14:00:00Z"],
            ),
            // Leap years, also across 2100, which is none.
            ("0 0 29 2 *", "UTC", "2024-03-01T00:00:00Z", &["2028-02-29T00:00:00Z"]),
            ("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00Z"]),
            (
                "0 0 0 1 1 * 2030",
                "UTC",
                "2026-01-01T00:00:00Z",
                &["2030-01-01T00:00:00Z"],
            ),
            // A night without 02:30: right after, and then as always.
            (
                "30 2 * * *",
                "Europe/Vienna",
                "2024-03-30T12:00:00Z",
                &["2024-03-31T01:00:00Z", "2024-04-01T00:30:00Z"],
            ),
            // Each half hour there is.
            (
                "*/30 * * * *",
                "Europe/Vienna",
                "2024-03-31T00:15:00Z",
                &["2024-03-31T00:30:00Z", "2024-03-31T01:00:00Z", "2024-03-31T01:30:00Z"],
            ),
            // A night with 02:30 twice: the first of them.
            (
                "30 2 * * *",
                "Europe/Vienna",
                "2024-10-26T12:00:00Z",
                &["2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"],
            ),
            // Each half hour there is, the repeated ones too.
            (
                "*/30 * * * *",
                "Europe/Vienna",
                "2024-10-27T00:15:00Z",
                &[
                    "2024-10-27T00:30:00Z",
                    "2024-10-27T01:00:00Z",
                    "2024-10-27T01:30:00Z",
                    "2024-10-27T02:00:00Z",
                ],
            ),
            // A zone that moves by half an hour.
            (
                "45 1 * * *",
                "Australia/Lord_Howe",
                "2024-04-06T00:00:00Z",
                &["2024-04-06T14:45:00Z", "2024-04-07T15:15:00Z"],
            ),
        ];
        for (pattern, zone, after, expected) in cases {
            let when = cron(pattern, zone);
            let mut time = at(after);
            assert_eq!(when.check(time), Ok(()), "{pattern}");
            for expected in *expected {
                time = when.after(time).unwrap_or_else(|| panic!("{pattern} comes"));
                assert_eq!(time, at(expected), "{pattern} in {zone} after {after}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let now = at("2026-06-01T00:00:00Z");
        let cases: &[(When, &[&str])] = &[
            (
                cron("0 0 30 2 *", "UTC"),
                &["field 3, `30`", "never comes", "\n  0 0 30 2 *\n      ^^"],
            ),
            (
                cron("0 0  31 4,6,9,11 *", "UTC"),
                &["field 3, `31`", "\n  0 0  31 4,6,9,11 *\n       ^^"],
            ),
            (cron("0 0 0 1 1 * 2025", "UTC"), &["field 7, `2025`", "never"]),
            (cron("0 0 30,31 2 +MON", "UTC"), &["field 3, `30,31`"]),
            (cron("61 * * * *", "UTC"), &["field 1, `61`", "\n  61 * * * *\n  ^^"]),
            (cron("0 0 * MAI *", "UTC"), &["field 4, `MAI`"]),
            (cron("* * *", "UTC"), &["5 and 7 fields"]),
            (cron("", "UTC"), &["empty"]),
            (cron("ä * * * *", "UTC"), &["field 1, `ä`", "\n  ^"]),
            (cron(&"*".repeat(257), "UTC"), &["256 bytes"]),
            (cron("* * * * *", "Mars/Olympus"), &["`zone`", "Mars/Olympus"]),
            (cron("* * * * *", "../../etc/passwd"), &["`zone`"]),
            (cron("* * * * *", ""), &["`zone`"]),
            (When::Once(now), &["past"]),
            (When::Once(Time(u64::MAX)), &["3660d ahead"]),
            (
                When::Every {
                    every: Millis(999),
                    first: now,
                },
                &["`every`: 999ms"],
            ),
            (
                When::Every {
                    every: Millis(u64::MAX),
                    first: now,
                },
                &["`every`"],
            ),
            (
                When::Every {
                    every: Millis(1_000),
                    first: Time(u64::MAX),
                },
                &["`first`"],
            ),
        ];
        for (when, named) in cases {
            let refused = when.check(now).expect_err("it is refused");
            for named in *named {
                assert!(refused.contains(named), "{named} is missing: {refused}");
            }
        }
    }

    #[test]
    fn numbers_at_the_end_of_time_are_no_times() {
        let every = |every, first| When::Every {
            every: Millis(every),
            first: Time(first),
        };
        for when in [
            every(0, 5),
            every(u64::MAX, 5),
            every(1_000, 5),
            cron("* * * * *", "UTC"),
            When::Once(Time(7)),
        ] {
            assert_eq!(when.after(Time(u64::MAX)), None, "{when:?}");
        }
    }

    #[test]
    fn looking_back_finds_what_was_found_looking_ahead() {
        let zones = [
            "UTC",
            "Europe/Vienna",
            "Australia/Lord_Howe",
            "America/St_Johns",
            "Asia/Kathmandu",
        ];
        let patterns = [
            "*/7 * * * *",
            "0 * * * *",
            "30 2 * * *",
            "0 0 1 * *",
            "*/20 1-3 * * SUN",
            "5 0 * 8 *",
        ];
        for (zone, pattern) in zones.iter().flat_map(|zone| patterns.map(|pattern| (zone, pattern))) {
            let when = cron(pattern, zone);
            // Across both changes of a year.
            for start in ["2024-03-30T00:00:00Z", "2024-10-26T00:00:00Z", "2024-04-05T00:00:00Z"] {
                let mut ahead = vec![when.after(at(start)).unwrap()];
                while ahead.len() < 250 {
                    ahead.extend(when.after(*ahead.last().unwrap()));
                }
                let last = *ahead.last().unwrap();
                assert_eq!(when.between(ahead[150], last, 100), ahead[150..], "{pattern} in {zone}");
                assert_eq!(when.between(ahead[0], last, 100), ahead[150..], "{pattern} in {zone}");
                assert_eq!(when.between(ahead[0], last, 1), [last], "{pattern} in {zone}");
            }
        }
        let when = When::Every {
            every: Millis(1_500),
            first: Time(100),
        };
        assert_eq!(
            when.between(Time(1_600), Time(5_000), 10),
            [Time(1_600), Time(3_100), Time(4_600)]
        );
        assert_eq!(when.between(Time(1_600), Time(5_000), 2), [Time(3_100), Time(4_600)]);
    }
}
