//! What each step is answered, and what its record says of it: the state of a crew, and what every step has in common.

use skep_rules::{
    audit::Kind,
    facts::{Table, record_key},
    id::{Digest, TaskId},
    limits::{
        MAX_NAMESPACES, MAX_RECORD_BYTES, MAX_STATE_KEY_BYTES, MAX_STATE_VALUE_BYTES, MAX_STEPS, RECORD_TAIL_BYTES,
        STATE_HISTORY, STATE_HISTORY_AGE,
    },
    plan::{Artifact, Outcome},
    quantity::{Millis, Time},
    reason::Reason,
    seam::{End, Lease, RunnerCommand, StepReply},
    step::{StepCall, StepResult, Value},
    task::TaskState,
};

use crate::{
    bench::{Bench, text},
    stepping::{STEPPERS, child, children, delete, get, get_old, history, list, put},
};

fn refused(reason: Reason) -> StepResult {
    StepResult::refused(reason)
}

fn conflict(revision: u64) -> StepResult {
    let reason = Reason::Conflict;
    StepResult::Refused { reason, revision }
}

fn value(bytes: &[u8], revision: u64, at: Time) -> StepResult {
    let bytes = bytes.to_vec();
    StepResult::Value(Some(Value { bytes, revision, at }))
}

#[test]
fn every_call_of_the_state_has_its_answer() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let at = bench.now;
    let keys = |keys: &[(&str, u64)], more| StepResult::Keys {
        keys: keys
            .iter()
            .map(|(key, revision)| ((*key).to_owned(), *revision))
            .collect(),
        more,
    };
    let versions = |revisions: &[u64]| StepResult::Versions(revisions.iter().map(|of| (*of, at)).collect());
    let cases = [
        (get("a"), StepResult::Value(None)),
        (put("a", b"1", None), StepResult::Written(1)),
        (get("a"), value(b"1", 1, at)),
        (put("a", b"2", Some(0)), conflict(1)),
        (put("a", b"2", Some(2)), conflict(1)),
        (put("a", b"2", Some(1)), StepResult::Written(2)),
        (put("b", b"1", Some(1)), conflict(0)),
        (put("b", b"1", Some(0)), StepResult::Written(1)),
        (get_old("a", 1), value(b"1", 1, at)),
        (get_old("a", 2), value(b"2", 2, at)),
        (get_old("a", 3), refused(Reason::NotFound)),
        (get_old("nothing", 1), refused(Reason::NotFound)),
        (history("a"), versions(&[2, 1])),
        (history("nothing"), versions(&[])),
        (list("", None, 10), keys(&[("a", 2), ("b", 1)], false)),
        (list("", None, 1), keys(&[("a", 2)], true)),
        (list("", Some("a"), 1), keys(&[("b", 1)], false)),
        (list("b", None, 10), keys(&[("b", 1)], false)),
        (list("b", Some("a"), 10), keys(&[("b", 1)], false)),
        (list("a", Some("z"), 10), keys(&[], false)),
        (delete("a", Some(1)), conflict(2)),
        (delete("nothing", None), StepResult::Deleted(false)),
        (delete("nothing", Some(0)), StepResult::Deleted(false)),
        (delete("nothing", Some(1)), conflict(0)),
        (delete("a", Some(2)), StepResult::Deleted(true)),
        (get("a"), StepResult::Value(None)),
        (history("a"), versions(&[2, 1])),
        (get_old("a", 2), value(b"2", 2, at)),
        (list("", None, 100), keys(&[("b", 1)], false)),
    ];
    for (call, expected) in cases.clone() {
        assert_eq!(bench.answer(id, call.clone()), expected, "{call:?}");
    }
    let expected: Vec<_> = cases.into_iter().map(|(_, result)| result).collect();
    assert_eq!(bench.results_of(id), expected, "refusals are on the record as well");
    let space = bench.state().namespace(&"crew".parse().unwrap()).unwrap();
    assert_eq!((space.keys, space.bytes), (1, 2));
}

#[test]
fn keys_values_and_pages_out_of_bounds_are_refused() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let long = "k".repeat(MAX_STATE_KEY_BYTES + 1);
    for key in ["", "a\0b", &long] {
        for call in [
            get(key),
            get_old(key, 1),
            put(key, b"", None),
            delete(key, None),
            history(key),
        ] {
            assert_eq!(
                bench.answer(id, call.clone()),
                refused(Reason::InvalidInput),
                "{call:?}"
            );
        }
    }
    let cases = [
        put("k", &vec![0; MAX_STATE_VALUE_BYTES + 1], None),
        list("a\0", None, 1),
        list(&long, None, 1),
        list("", Some("a\0"), 1),
        list("", Some(&long), 1),
        list("", None, 0),
        list("", None, 101),
        list("", None, u32::MAX),
    ];
    for call in cases {
        assert_eq!(
            bench.answer(id, call.clone()),
            refused(Reason::InvalidInput),
            "{call:?}"
        );
    }
    assert!(bench.table(Table::State).is_empty());
    let longest = "k".repeat(MAX_STATE_KEY_BYTES);
    assert_eq!(bench.answer(id, put(&longest, b"", None)), StepResult::Written(1));
}

#[test]
fn a_quota_holds_keys_and_values_and_lets_what_is_too_much_shrink() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let cases = [
        (put("a", &[0; 4_095], None), StepResult::Written(1)),
        (put("b", b"", None), refused(Reason::QuotaExceeded)),
        (put("a", &[0; 4_096], None), refused(Reason::QuotaExceeded)),
        (put("a", &[1; 4_095], None), StepResult::Written(2)),
        (put("a", &[0; 4_094], None), StepResult::Written(3)),
        (put("b", b"", None), StepResult::Written(1)),
        (put("c", b"", None), refused(Reason::QuotaExceeded)),
        (delete("b", None), StepResult::Deleted(true)),
        (put("c", b"", None), StepResult::Written(2)),
    ];
    for (call, expected) in cases {
        assert_eq!(bench.answer(id, call.clone()), expected, "{call:?}");
    }

    let mut bench = Bench::stepping_as(&STEPPERS.replace("4KiB", "0B"));
    let id = bench.task(|_| {});
    assert_eq!(bench.answer(id, put("a", b"", None)), refused(Reason::QuotaExceeded));
    assert_eq!(bench.answer(id, get("a")), StepResult::Value(None), "it may read");
}

#[test]
fn a_host_holds_the_state_of_so_many_names() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let namespaces: Vec<_> = (0..MAX_NAMESPACES).map(|n| format!("other-{n}")).collect();
    bench.with_namespaces(&namespaces);
    assert_eq!(bench.answer(id, put("a", b"", None)), refused(Reason::QuotaExceeded));
}

#[test]
fn no_revision_comes_twice() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let mut last = 0;
    for round in 0..5_u64 {
        for _ in 0..=round {
            let StepResult::Written(revision) = bench.answer(id, put("a", b"x", None)) else {
                unreachable!("it is written")
            };
            assert!(revision > last, "{revision} after {last}");
            last = revision;
        }
        assert_eq!(bench.answer(id, delete("a", Some(last))), StepResult::Deleted(true));
    }
    // What begins after others were removed begins above all of them.
    assert_eq!(bench.answer(id, put("b", b"", Some(0))), StepResult::Written(last + 1));
    assert_eq!(bench.answer(id, put("a", b"", Some(0))), StepResult::Written(last + 1));
}

#[test]
fn the_newest_revisions_stay_readable_for_a_day() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    for n in 1..=STATE_HISTORY + 10 {
        let revision = bench.answer(id, put("a", &n.to_be_bytes(), None));
        assert_eq!(revision, StepResult::Written(n));
    }
    // A neighbour whose name begins alike has a history of its own.
    bench.answer(id, put("aa", b"", None));
    let kept = |bench: &mut Bench| match bench.answer(id, history("a")) {
        StepResult::Versions(versions) => versions.into_iter().map(|(of, _)| of).collect::<Vec<_>>(),
        other => unreachable!("{other:?}"),
    };
    let newest: Vec<u64> = (11..=STATE_HISTORY + 10).rev().collect();
    assert_eq!(kept(&mut bench), newest);
    assert_eq!(bench.answer(id, get_old("a", 10)), refused(Reason::NotFound));
    assert!(
        matches!(bench.answer(id, get_old("a", 11)), StepResult::Value(Some(value)) if value.bytes == 11_u64.to_be_bytes())
    );
    // Removed, all of them stay what they were.
    bench.answer(id, delete("a", None));
    assert_eq!(kept(&mut bench), newest);
    for _ in 0..9 {
        bench.answer(id, put("b", b"", None));
    }
    bench.answer(id, delete("b", None));
    bench.answer(id, put("a", b"", None));
    let after = kept(&mut bench);
    let (first, last) = (STATE_HISTORY + 20, STATE_HISTORY + 10);
    let expected: Vec<u64> = [first].into_iter().chain((21..=last).rev()).collect();
    assert_eq!(after, expected, "without a gap of its own making");
    for gone in [19, 20] {
        assert_eq!(bench.answer(id, get_old("a", gone)), refused(Reason::NotFound));
    }

    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.answer(id, put("a", b"1", None));
    bench.answer(id, put("a", b"2", None));
    let replaced = bench.now;
    bench.now = replaced.after(Millis(STATE_HISTORY_AGE.0 - 1));
    assert!(matches!(bench.answer(id, get_old("a", 1)), StepResult::Value(Some(_))));
    bench.now = replaced.after(STATE_HISTORY_AGE);
    assert_eq!(bench.answer(id, get_old("a", 1)), refused(Reason::NotFound));
    assert_eq!(
        bench.answer(id, history("a")),
        StepResult::Versions(vec![(2, replaced)])
    );
    assert_eq!(
        bench.answer(id, get("a")),
        value(b"2", 2, replaced),
        "the newest has no age"
    );
}

#[test]
fn state_is_shared_by_crews_of_one_name_and_by_no_other() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.answer(id, put("a", b"1", None));
    bench.done(id);
    let crew = bench.crew;
    let by = "tests".to_owned();
    bench.ask(skep_rules::command::Command::DrainCrew { crew, by }).unwrap();
    // `crew-b` begins like `crew`; the zero byte keeps their keys apart.
    for (name, expected) in [("crew", Some(1)), ("crew-b", None)] {
        bench.assemble_steppers(&STEPPERS.replace("\"crew\"", &format!("{name:?}")));
        let id = bench.task(|_| {});
        let found = match bench.answer(id, get("a")) {
            StepResult::Value(value) => value.map(|value| value.revision),
            other => unreachable!("{other:?}"),
        };
        assert_eq!(found, expected, "{name}");
        let StepResult::Keys { keys, .. } = bench.answer(id, list("", None, 9)) else {
            unreachable!("it lists")
        };
        assert_eq!(keys.len(), usize::from(expected.is_some()), "{name}");
    }
}

#[test]
fn steps_that_say_what_was_found_are_done() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let artifact = Artifact {
        digest: Digest::of(b"x"),
        size: 1,
        media: "text/plain".into(),
    };
    let read = |refused| StepCall::ReadArtifact {
        digest: Digest::of(b"x"),
        offset: 0,
        length: 1,
        refused,
    };
    let cases = [
        (StepCall::Clock { alarm: None }, StepResult::Done),
        (StepCall::Directive { beats: 3, drain: true }, StepResult::Done),
        (StepCall::PutArtifact(artifact), StepResult::Artifact(Digest::of(b"x"))),
        (read(None), StepResult::Artifact(Digest::of(b"x"))),
        (read(Some(Reason::NotFound)), refused(Reason::NotFound)),
    ];
    for (call, expected) in cases {
        assert_eq!(bench.answer(id, call.clone()), expected, "{call:?}");
    }
}

#[test]
fn time_never_goes_back_in_a_record() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let began = bench.now;
    let at = |bench: &mut Bench, call| bench.recorded_step(id, call).step.at;
    let alarm = |time| StepCall::Clock { alarm: Some(time) };
    bench.now = Time(began.0 - 500);
    assert_eq!(at(&mut bench, get("a")), began, "not before the run");
    bench.now = began.after(Millis(1_000));
    assert_eq!(
        at(&mut bench, alarm(began.after(Millis(400)))),
        began.after(Millis(400))
    );
    assert_eq!(at(&mut bench, alarm(began)), began.after(Millis(400)));
    assert_eq!(at(&mut bench, get("a")), bench.now);
    bench.now = began;
    assert_eq!(at(&mut bench, get("a")), began.after(Millis(1_000)));
    let times: Vec<Time> = bench.steps_of(id, 0).iter().map(|step| step.at).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_long_record_goes_to_its_table_in_pieces_and_reads_back_whole() {
    let mut bench = Bench::stepping_as(&STEPPERS.replace("4KiB", "1MiB"));
    let id = bench.task(|_| {});
    let mut given = Vec::new();
    for n in 0..40_u64 {
        bench.answer(id, put("a", &vec![1; usize::try_from(n * 997 % 9_000).unwrap()], None));
        given.push(bench.recorded_step(id, get("a")).step);
        let tail = bench.state().tail(id).unwrap();
        assert!(tail.bytes.len() <= RECORD_TAIL_BYTES);
        let bytes: u64 = bench
            .steps_of(id, 0)
            .iter()
            .map(|step| minicbor::to_vec(step).unwrap().len() as u64)
            .sum();
        assert_eq!(
            (bench.record(id).steps, bench.record(id).record_bytes),
            (2 * (n + 1), bytes)
        );
    }
    // One that is larger than what memory keeps stands alone.
    bench.answer(id, put("a", &vec![1; MAX_STATE_VALUE_BYTES], None));
    given.push(bench.recorded_step(id, get("a")).step);
    assert_eq!(bench.state().tail(id).unwrap().first, 81);
    assert!(bench.table(Table::Steps).len() > 4);
    let got = |bench: &Bench| {
        let steps = bench.steps_of(id, 0).into_iter();
        steps.filter(|step| step.asked == get("a").asked()).collect::<Vec<_>>()
    };
    assert_eq!(got(&bench), given);
    bench.done(id);
    assert_eq!(bench.state().tail(id), None);
    assert_eq!(got(&bench), given, "what memory kept is a row when the task has ended");
    assert!(bench.table(Table::Steps).contains_key(&record_key(id, 0, 81)));
}

#[test]
fn a_record_has_an_end() {
    for (steps, bytes) in [(MAX_STEPS, 10), (10, MAX_RECORD_BYTES)] {
        let mut bench = Bench::stepping();
        let id = bench.task(|_| {});
        bench.answer(id, get("a"));
        bench.start_with(id, |task| (task.steps, task.record_bytes) = (steps - 1, bytes - 1));
        assert_eq!(bench.recorded(id), steps - 1);
        bench.answer(id, get("a"));
        assert_eq!(bench.step(id, get("a")), StepReply::Refused(Reason::RecordFull));
        assert_eq!(
            bench.step(id, StepCall::Sleep { until: Time(u64::MAX) }),
            StepReply::Refused(Reason::RecordFull)
        );
        // Another run has an empty one.
        bench.end(id, End::Finished(Outcome::Continue(text("more"))));
        bench.answer(id, get("a"));
    }
}

#[test]
fn only_the_next_step_of_an_execution_that_holds_its_task_is_taken() {
    let mut bench = Bench::stepping();
    let id = bench.task(|task| task.check = true);
    let lease = bench.lease(id);
    assert_eq!(bench.record(id).state, TaskState::Assigned);
    for number in [1, 7, u64::MAX] {
        assert_eq!(
            bench.step_by(lease, number, get("a")),
            StepReply::Refused(Reason::HostFault)
        );
    }
    bench.answer(id, get("a"));
    assert_eq!(bench.is(id), TaskState::Running, "who takes a step has begun");
    let before = bench.record(id);
    assert_eq!(bench.step_by(lease, 0, get("a")), StepReply::Refused(Reason::HostFault));

    let stale = [
        Lease { epoch: 0, ..lease },
        Lease { epoch: 2, ..lease },
        Lease { generation: 2, ..lease },
        Lease {
            agent: bench.agent("checker"),
            ..lease
        },
        Lease {
            task: TaskId::new(1, 0),
            ..lease
        },
    ];
    for (count, stale) in (1..).zip(stale) {
        let rows = bench.rows.len();
        assert_eq!(bench.step_by(stale, 1, put("a", b"late", None)), StepReply::Fenced);
        assert_eq!(bench.heard(Kind::AttemptFenced).len(), count, "once each");
        assert_eq!(
            bench.heard(Kind::AttemptFenced).last().unwrap().reason,
            Some(Reason::Fenced)
        );
        bench.end_of(stale, End::Fenced, Vec::new());
        assert_eq!(
            bench.heard(Kind::AttemptFenced).len(),
            count,
            "that it ended of it is no news"
        );
        assert_eq!((bench.record(id), bench.rows.len()), (before.clone(), rows));
    }

    bench.done(id);
    assert_eq!(bench.is(id), TaskState::Verifying);
    assert_eq!(bench.recorded(id), 0, "a check has no record");
    for number in [0, 1] {
        let lease = bench.lease(id);
        assert_eq!(
            bench.step_by(lease, number, get("a")),
            StepReply::Refused(Reason::CapabilityDenied)
        );
    }
    assert_eq!(bench.steps_of(id, 0).len(), 1);
}

#[test]
fn an_ephemeral_task_takes_no_steps() {
    let mut bench = Bench::stepping();
    let id = bench.task(|task| task.ephemeral = true);
    for call in [
        get("a"),
        put("a", b"", None),
        StepCall::Spawn(child()),
        children(&[id], true, None),
    ] {
        assert_eq!(bench.step(id, call), StepReply::Refused(Reason::CapabilityDenied));
    }
    let records = bench
        .told
        .iter()
        .any(|told| matches!(told, RunnerCommand::Start { task, .. } if task.records));
    assert!(!records);
}

#[test]
fn a_step_does_not_make_a_shard_forget_what_it_has_left_over() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.answer(id, get("a"));
    // More than one decision moves.
    for _ in 0..11 {
        let tasks = (0..100).map(|_| bench.new_task()).collect();
        bench.submit(tasks).unwrap();
    }
    let crew = bench.crew;
    let by = "tests".to_owned();
    bench.ask(skep_rules::command::Command::DrainCrew { crew, by }).unwrap();
    assert!(bench.shard.is_unfinished());
    bench.answer(id, get("a"));
    assert!(bench.shard.is_unfinished());
    assert_eq!(bench.shard.next_wake(bench.now), Some(bench.now));
    bench.pass(0);
    assert!(!bench.shard.is_unfinished());
    assert_eq!(bench.state().tasks().filter(|task| !task.state.is_ended()).count(), 2);
}
