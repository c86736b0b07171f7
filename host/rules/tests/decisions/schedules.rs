//! Schedules: what is refused, what comes when, and what becomes of due times that nobody was there for.

use skep_rules::{
    audit::Kind,
    command::{Command, NewTask},
    decide::Reply,
    event::Event,
    id::Digest,
    plan::{Artifact, Payload},
    quantity::{Millis, Time},
    reason::Reason,
    rejection::Rejection,
    schedule::{DUE_LABEL, Missed, SCHEDULE_LABEL, Schedule, When},
    shard::Shard,
};

use crate::bench::{Bench, CREW, text};

const MINUTE: u64 = 60_000;

fn every(millis: u64, first: Time) -> When {
    When::Every {
        every: Millis(millis),
        first,
    }
}

fn cron(pattern: &str) -> When {
    When::Cron {
        pattern: pattern.to_owned(),
        zone: "UTC".to_owned(),
    }
}

fn create(
    bench: &mut Bench,
    name: &str,
    when: When,
    missed: Missed,
    alter: impl FnOnce(&mut NewTask),
) -> Result<Reply, Rejection> {
    let mut task = bench.new_task();
    alter(&mut task);
    let command = Command::CreateSchedule {
        crew: bench.crew,
        name: name.parse().unwrap(),
        when,
        missed,
        task,
        by: "tests".into(),
    };
    bench.ask(command)
}

/// A crew, and one schedule a minute from the next minute on.
fn minutely(missed: Missed) -> Bench {
    let mut bench = Bench::new();
    let first = bench.now.after(Millis(MINUTE));
    create(&mut bench, "tick", every(MINUTE, first), missed, |_| {}).unwrap();
    bench
}

fn schedule(bench: &Bench, name: &str) -> Option<Schedule> {
    let crew = "crew".parse().unwrap();
    bench.state().schedule(&crew, &name.parse().unwrap()).cloned()
}

/// The due times of the tasks that were submitted so far, in the order of their entries, and when.
fn fired(bench: &Bench) -> Vec<(Time, Time)> {
    let task = |entry: &Vec<u8>| match minicbor::decode::<Event>(entry).unwrap() {
        Event::TaskAccepted(task) if task.labels.contains_key(SCHEDULE_LABEL) => {
            Some((Time(task.labels[DUE_LABEL].parse().unwrap()), task.created))
        }
        _ => None,
    };
    bench.entries.iter().filter_map(task).collect()
}

fn dues(bench: &Bench) -> Vec<u64> {
    fired(bench).into_iter().map(|(due, _)| due.0).collect()
}

#[test]
fn what_cannot_be_a_schedule_is_refused_by_name() {
    type Alter = fn(&mut NewTask);
    let artifact: Alter = |task| {
        task.input = Payload::Artifact(Artifact {
            digest: Digest::of(b""),
            size: 0,
            media: String::new(),
        });
    };
    let cases: &[(When, Alter, Reason, &str)] = &[
        (cron("0 0 30 2 *"), |_| {}, Reason::InvalidInput, "field 3, `30`"),
        (When::Once(Time(5)), |_| {}, Reason::InvalidInput, "past"),
        (
            cron("@daily"),
            |task| task.dependencies = vec![task.id],
            Reason::InvalidInput,
            "`dependencies`",
        ),
        (
            cron("@daily"),
            |task| task.ephemeral = true,
            Reason::InvalidInput,
            "durable",
        ),
        (cron("@daily"), artifact, Reason::InvalidInput, "artifact"),
        (
            cron("@daily"),
            |task| task.input = text(&"x".repeat(64 << 10)),
            Reason::InvalidInput,
            "65536",
        ),
        (
            cron("@daily"),
            |task| task.labels = [("due".to_owned(), String::new())].into(),
            Reason::InvalidInput,
            "`due` is given",
        ),
        (
            cron("@daily"),
            |task| task.labels = (0..15).map(|n| (n.to_string(), String::new())).collect(),
            Reason::InvalidInput,
            "at most 14",
        ),
        // What a submission would be refused for.
        (
            cron("@daily"),
            |task| task.agent = Some("nobody".into()),
            Reason::NotFound,
            "agent `nobody`",
        ),
        (
            cron("@daily"),
            |task| task.max_retries = Some(101),
            Reason::InvalidInput,
            "100 retries",
        ),
    ];
    for (when, alter, reason, named) in cases {
        let mut bench = Bench::new();
        let position = bench.shard.position();
        let refused = create(&mut bench, "nightly", when.clone(), Missed::One, alter).unwrap_err();
        assert_eq!(refused.reason, *reason, "{refused}");
        assert!(refused.message.contains(named), "{named} is missing: {refused}");
        assert_eq!(bench.shard.position(), position, "a refused command changes nothing");
    }
}

#[test]
fn a_name_is_one_schedule_of_its_crew() {
    let mut bench = Bench::new();
    let daily = || cron("@daily");
    create(&mut bench, "nightly", daily(), Missed::One, |_| {}).unwrap();
    let position = bench.shard.position();
    assert_eq!(
        create(&mut bench, "nightly", daily(), Missed::One, |_| {}),
        Ok(Reply::Done)
    );
    assert_eq!(bench.shard.position(), position, "asked again it changes nothing");
    let other: [Result<Reply, Rejection>; 3] = [
        create(&mut bench, "nightly", daily(), Missed::All, |_| {}),
        create(&mut bench, "nightly", cron("@hourly"), Missed::One, |_| {}),
        create(&mut bench, "nightly", daily(), Missed::One, |task| task.plan = true),
    ];
    assert!(
        other
            .iter()
            .all(|refused| refused.as_ref().unwrap_err().reason == Reason::Conflict),
        "{other:?}"
    );

    let delete = |crew: &str, name: &str| Command::DeleteSchedule {
        crew: crew.parse().unwrap(),
        name: name.parse().unwrap(),
        by: "tests".into(),
    };
    for (crew, name) in [("crew", "other"), ("other", "nightly")] {
        assert_eq!(bench.ask(delete(crew, name)).unwrap_err().reason, Reason::NotFound);
    }
    bench.ask(delete("crew", "nightly")).unwrap();
    assert_eq!(schedule(&bench, "nightly"), None);
    bench.pass(3 * 86_400_000);
    assert_eq!(fired(&bench), []);
    assert_eq!(
        (
            bench.heard(Kind::ScheduleCreated).len(),
            bench.heard(Kind::ScheduleDeleted).len()
        ),
        (1, 1)
    );
}

#[test]
fn a_host_holds_so_many_schedules() {
    let mut bench = Bench::new();
    for n in 0..1_000 {
        create(&mut bench, &format!("s{n}"), cron("@yearly"), Missed::Skip, |_| {}).unwrap();
    }
    let refused = create(&mut bench, "more", cron("@yearly"), Missed::Skip, |_| {}).unwrap_err();
    assert_eq!(refused.reason, Reason::Overloaded);
}

#[test]
fn a_due_time_is_a_task_and_never_early() {
    let mut bench = minutely(Missed::One);
    let first = bench.now.0 + MINUTE;
    assert_eq!(bench.shard.next_wake(bench.now).map(|wake| wake.0 <= first), Some(true));
    bench.pass(MINUTE - 1);
    assert_eq!(fired(&bench), []);
    bench.pass(1);
    assert_eq!(fired(&bench), [(Time(first), Time(first))]);
    bench.pass(0);
    assert_eq!(fired(&bench).len(), 1, "once");
    // A little late is not missed.
    bench.pass(MINUTE + 1_000);
    assert_eq!(dues(&bench), [first, first + MINUTE]);
    let task = bench.state().tasks().next().unwrap().clone();
    assert_eq!((task.by.as_str(), task.description.as_str()), ("tests", "a task"));
    assert_eq!(
        (task.labels[SCHEDULE_LABEL].as_str(), task.input.clone()),
        ("tick", text("input"))
    );
    let now = schedule(&bench, "tick").unwrap();
    assert_eq!((now.next, now.fired, now.passed), (Time(first + 2 * MINUTE), 2, None));
    assert_eq!(now.last.unwrap().due, Time(first + MINUTE));
    let (ids, seeds): (Vec<_>, Vec<_>) = bench.state().tasks().map(|task| (task.id, task.seed)).unzip();
    assert!(ids[0] != ids[1] && seeds[0] != seeds[1]);
}

#[test]
fn an_hour_of_downtime_ends_as_the_schedule_says() {
    // Down from just behind a due time, for an hour and half a minute.
    for (missed, made_up) in [(Missed::Skip, 0), (Missed::One, 1), (Missed::All, 60)] {
        let mut bench = minutely(missed);
        let start = bench.now.0;
        bench.pass(MINUTE);
        bench.now = bench.now.after(Millis(60 * MINUTE + 30_000));
        bench.restart();
        bench.pass(0);
        let last = start + 61 * MINUTE;
        let expected: Vec<u64> = (0..made_up).rev().map(|n| last - n * MINUTE).collect();
        assert_eq!(dues(&bench)[1..], expected, "{missed:?}");
        // And then as always.
        bench.pass(30_000);
        assert_eq!(dues(&bench).last(), Some(&(last + MINUTE)), "{missed:?}");
        let passed = schedule(&bench, "tick").unwrap().passed;
        let first = Time(start + 2 * MINUTE);
        let expected = match missed {
            Missed::Skip => Some((first, Time(last + MINUTE))),
            Missed::One => Some((first, Time(last))),
            Missed::All => None,
        };
        assert_eq!(passed, expected, "{missed:?}");
        assert_eq!(
            bench.heard(Kind::SchedulePassed).len(),
            usize::from(missed != Missed::All)
        );
    }
}

#[test]
fn all_is_the_newest_hundred() {
    let mut bench = minutely(Missed::All);
    let start = bench.now.0;
    bench.pass(500 * MINUTE);
    let expected: Vec<u64> = (401..=500).map(|n| start + n * MINUTE).collect();
    assert_eq!(dues(&bench), expected);
    let passed = schedule(&bench, "tick").unwrap().passed;
    assert_eq!(passed, Some((Time(start + MINUTE), Time(start + 401 * MINUTE))));
}

#[test]
fn many_that_are_due_at_once_all_come() {
    // Large templates: only some firings fit in one decision.
    let mut bench = Bench::new();
    let at = bench.now.after(Millis(MINUTE));
    for n in 0..40 {
        let input = text(&"x".repeat(60 << 10));
        create(&mut bench, &format!("s{n}"), When::Once(at), Missed::Skip, |task| {
            task.input = input
        })
        .unwrap();
    }
    bench.pass(MINUTE);
    let first = dues(&bench).len();
    assert!((1..40).contains(&first), "{first}");
    while bench.shard.is_unfinished() {
        bench.pass(0);
    }
    assert_eq!(dues(&bench), [at.0; 40]);
    assert_eq!(
        bench.state().schedules().len(),
        0,
        "what has come for the last time is gone"
    );
}

#[test]
fn once_is_once_and_gone() {
    for (missed, late, comes) in [
        (Missed::Skip, 0, true),
        (Missed::Skip, 1_001, false),
        (Missed::One, 3_600_000, true),
        (Missed::All, 3_600_000, true),
    ] {
        let mut bench = Bench::new();
        let at = bench.now.after(Millis(MINUTE));
        create(&mut bench, "launch", When::Once(at), missed, |_| {}).unwrap();
        bench.pass(MINUTE + late);
        bench.pass(MINUTE);
        assert_eq!(dues(&bench).len(), usize::from(comes), "{missed:?} {late}");
        assert_eq!(schedule(&bench, "launch"), None);
    }
}

#[test]
fn a_clock_that_goes_back_repeats_nothing() {
    let mut bench = minutely(Missed::All);
    let start = bench.now.0;
    bench.pass(3 * MINUTE);
    assert_eq!(dues(&bench).len(), 3);
    // The machine comes up again with a clock that stands two minutes before.
    bench.now = Time(start + MINUTE);
    bench.restart();
    for _ in 0..4 {
        bench.pass(30_000);
    }
    assert_eq!(dues(&bench).len(), 3, "none of them comes again");
    bench.pass(MINUTE);
    assert_eq!(dues(&bench), [1, 2, 3, 4].map(|n| start + n * MINUTE));
}

#[test]
fn a_clock_that_was_wrong_is_forgotten_on_a_persons_word() {
    let mut bench = minutely(Missed::One);
    let start = bench.now.0;
    bench.pass(86_400_000);
    bench.now = Time(start + 30_000);
    bench.restart();
    bench.pass(MINUTE);
    assert_eq!(dues(&bench), [start + 86_400_000], "it waits for a day that has been");
    let command = Command::ResetTime {
        why: "the battery was dead".into(),
        by: "tests".into(),
    };
    bench.ask(command).unwrap();
    bench.pass(30_000);
    assert_eq!(dues(&bench), [start + 86_400_000, start + 2 * MINUTE]);
}

#[test]
fn a_schedule_rests_while_its_crew_is_drained() {
    let mut bench = minutely(Missed::One);
    let start = bench.now.0;
    bench.pass(MINUTE);
    let (crew, by) = (bench.crew, "tests".to_owned());
    bench.ask(Command::DrainCrew { crew, by }).unwrap();
    bench.pass(10 * MINUTE);
    assert_eq!(dues(&bench), [start + MINUTE]);
    // Another crew is none of its business; the next of that name is.
    bench.assemble(&CREW.replace("\"crew\"", "\"other\"")).unwrap();
    bench.pass(MINUTE);
    assert_eq!(dues(&bench), [start + MINUTE]);
    bench.assemble(CREW).unwrap();
    bench.pass(30_000);
    assert_eq!(dues(&bench), [start + MINUTE, start + 12 * MINUTE]);
    assert_eq!(bench.state().tasks().last().unwrap().crew, bench.crew);
}

#[test]
fn what_cannot_be_submitted_is_told_and_does_not_come_again() {
    let mut bench = Bench::new();
    let first = bench.now.after(Millis(MINUTE));
    let roles = |task: &mut NewTask| task.agent = Some("worker".into());
    create(&mut bench, "tick", every(MINUTE, first), Missed::All, roles).unwrap();
    let (crew, by) = (bench.crew, "tests".to_owned());
    bench.ask(Command::DrainCrew { crew, by }).unwrap();
    bench.pass(0);
    // A crew of that name in which nobody has that one.
    bench.assemble(&CREW.replace("\"worker\"", "\"somebody\"")).unwrap();
    bench.pass(2 * MINUTE);
    assert_eq!(fired(&bench), []);
    let refused = bench.heard(Kind::ScheduleRefused);
    assert_eq!((refused.len(), refused[0].reason), (2, Some(Reason::NotFound)));
    let record = schedule(&bench, "tick").unwrap();
    let last = record.last.unwrap();
    assert_eq!(
        (last.due, last.task.unwrap_err().reason),
        (Time(first.0 + MINUTE), Reason::NotFound)
    );
    assert_eq!((record.next, record.fired), (Time(first.0 + 2 * MINUTE), 0));
}

#[test]
fn a_shard_that_is_read_back_goes_on() {
    let mut bench = minutely(Missed::One);
    create(&mut bench, "nightly", cron("0 0 1 1 *"), Missed::Skip, |_| {}).unwrap();
    bench.pass(MINUTE);
    // From the entries, and from a checkpoint.
    let mut replayed = Shard::default();
    for (entry, position) in bench.entries.iter().zip(1..) {
        replayed.replay(position, entry).unwrap();
    }
    let checkpoint = bench.shard.checkpoint();
    let records = checkpoint
        .records
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let loaded = Shard::load(checkpoint.position, records).unwrap();
    for shard in [replayed, loaded] {
        assert!(shard.state().index_is_right());
        assert!(shard.state().schedules().eq(bench.state().schedules()));
        assert_eq!(shard.state().next_due(), bench.state().next_due());
    }
}
