//! Runs: what is continued with its record, what begins anew with an empty one, and who may go on with it.

use skep_rules::{
    command::Command,
    facts::{Table, record_key},
    id::TaskId,
    limits::LEASE,
    plan::{Outcome, Retry},
    quantity::Millis,
    reason::Reason,
    seam::{Call, End, StepReply},
    step::{StepCall, StepResult},
    task::TaskState,
};

use crate::{
    bench::{Bench, plan, text},
    stepping::{children, get, put},
};

fn failed(retry: Retry) -> End {
    let message = "no".to_owned();
    End::Finished(Outcome::Failed { message, retry })
}

fn continues() -> End {
    End::Finished(Outcome::Continue(text("more")))
}

/// A task with two steps and a child.
fn stepped(bench: &mut Bench) -> (TaskId, TaskId) {
    let id = bench.task(|_| {});
    bench.answer(id, put("a", b"1", None));
    (id, bench.spawn(id))
}

#[test]
fn an_attempt_that_was_lost_or_that_the_host_failed_is_continued() {
    let ends: [Option<End>; 5] = [
        None,
        Some(End::HostFault { message: "ours".into() }),
        Some(End::Overload { message: "full".into() }),
        Some(End::Cancelled),
        Some(End::Fenced),
    ];
    for end in ends {
        let mut bench = Bench::stepping();
        let (id, child) = stepped(&mut bench);
        let (record, view) = (bench.record(id), bench.given(id).1);
        match end.clone() {
            None => bench.pass(LEASE.0),
            Some(end) => drop(bench.end(id, end)),
        }
        bench.pass(200_000);
        let after = bench.record(id);
        assert_eq!((after.run, after.steps, after.pinned), (0, 2, record.pinned), "{end:?}");
        assert_eq!((bench.recorded(id), bench.results_of(id).len()), (2, 2), "{end:?}");
        assert_eq!(bench.given(id).1, view, "it is told the same, {end:?}");
        assert!(!bench.is(child).is_ended(), "{end:?}");
        assert_eq!(bench.answer(id, get("a")), {
            let (bytes, revision, at) = (b"1".to_vec(), 1, record.created);
            StepResult::Value(Some(skep_rules::step::Value { bytes, revision, at }))
        });
    }
}

#[test]
fn a_restart_continues_runs_and_so_does_a_stop_in_order() {
    for in_order in [false, true] {
        let mut bench = Bench::stepping();
        let (id, child) = stepped(&mut bench);
        let (view, attempts) = (bench.given(id).1, bench.record(id).attempts);
        bench.now = bench.now.after(Millis(5_000));
        if in_order {
            bench.stop();
        }
        bench.start_with(id, |_| {});
        assert_eq!((bench.recorded(id), bench.given(id).1), (2, view));
        assert_eq!(bench.is(child), TaskState::Assigned);
        bench.answer(id, get("a"));
        assert_eq!(bench.record(id).attempts, attempts + u32::from(!in_order));
    }
}

#[test]
fn a_failed_attempt_and_a_refused_result_begin_another_run() {
    let mut bench = Bench::stepping();
    for (end, check) in [
        (failed(Retry::Later), false),
        (
            End::Stopped {
                reason: Reason::Trapped,
                message: String::new(),
            },
            false,
        ),
        (End::Finished(Outcome::Done(text("x"))), true),
    ] {
        let id = bench.task(|task| task.check = check);
        bench.answer(id, put("a", b"1", None));
        let child = bench.spawn(id);
        let first = bench.given(id).1;
        bench.end(id, end);
        assert_eq!(
            bench.is(child),
            TaskState::Cancelled,
            "what it spawned goes with its run"
        );
        if check {
            assert_eq!(bench.record(id).steps, 2, "until it is sent back");
            bench.end(id, End::Finished(Outcome::Rejected("look again".into())));
        }
        let record = bench.record(id);
        assert_eq!((record.run, record.steps, record.record_bytes), (1, 0, 0));
        assert_eq!((record.pinned, record.stepped), (None, None));
        assert_eq!(bench.state().tail(id), None);
        assert_eq!(
            bench.steps_of(id, 0).len(),
            2,
            "the record of the run before is in its table"
        );
        bench.pass(2_000);
        let second = bench.given(id).1;
        assert_eq!((first.attempt, second.attempt, bench.recorded(id)), (1, 2, 0));
        assert_ne!(first.seed, second.seed, "each run has its own chance");
        assert!(second.began > first.began || check);
        assert_eq!(
            bench.answer(id, children(&[child], true, None)),
            StepResult::refused(Reason::NotFound)
        );
        bench.done(id);
        if check {
            bench.end(id, End::Finished(Outcome::Accepted));
        }
        assert_eq!((bench.is(id), bench.steps_of(id, 1).len()), (TaskState::Completed, 1));
        assert!(bench.table(Table::Steps).contains_key(&record_key(id, 1, 0)));
    }
}

#[test]
fn a_failed_check_leaves_the_run_alone() {
    let mut bench = Bench::stepping();
    let id = bench.task(|task| task.check = true);
    bench.answer(id, get("a"));
    bench.done(id);
    bench.end(id, failed(Retry::Later));
    assert_eq!((bench.record(id).run, bench.record(id).steps), (0, 1));
    bench.pass(2_000);
    bench.end(id, End::Finished(Outcome::Accepted));
    assert_eq!((bench.is(id), bench.steps_of(id, 0).len()), (TaskState::Completed, 1));
}

#[test]
fn a_task_that_continues_begins_anew_with_another_input() {
    let mut bench = Bench::stepping();
    let (id, child) = stepped(&mut bench);
    let grandchild = bench.spawn(child);
    let first = bench.given(id).1;
    bench.end(id, continues());
    for gone in [child, grandchild] {
        assert_eq!(bench.is(gone), TaskState::Cancelled);
        assert!(
            bench.state().task(gone).is_none(),
            "a task may run for ever, so they leave memory"
        );
    }
    let record = bench.record(id);
    assert_eq!((record.state, record.run, record.retries), (TaskState::Assigned, 1, 0));
    assert_eq!((record.nodes, record.children.len(), record.steps), (0, 0, 0));
    let second = bench.given(id).1;
    assert_eq!((second.input, bench.recorded(id)), (text("more"), 0));
    assert_ne!(first.seed, second.seed);
    bench.answer(id, get("a"));
    assert_eq!((bench.steps_of(id, 0).len(), bench.steps_of(id, 1).len()), (2, 1));
    let large = skep_rules::plan::Payload::Inline(vec![0; (256 << 10) + 1]);
    bench.end(id, End::Finished(Outcome::Continue(large)));
    assert_eq!(bench.record(id).failure.unwrap().reason, Reason::InvalidInput);
}

#[test]
fn what_continues_within_a_plan_gives_its_nodes_back_though_others_wait_for_it() {
    let mut bench = Bench::stepping();
    let objective = bench.task(|task| task.plan = true);
    bench.end(objective, End::Finished(plan(&[("a", &[]), ("b", &["a"])])));
    let a = bench.child(objective, "a");
    for _ in 0..3 {
        let part = bench.spawn(a);
        bench.end(a, continues());
        assert!(bench.state().task(part).is_none());
        assert_eq!((bench.record(objective).nodes, bench.record(a).children.len()), (2, 0));
    }
    // One that somebody waits for stays until it is not needed any more.
    let part = bench.spawn(a);
    let waits = bench.task(|task| task.dependencies = vec![part]);
    bench.end(a, continues());
    assert_eq!(
        (bench.is(part), bench.is(waits)),
        (TaskState::Cancelled, TaskState::Skipped)
    );
    bench.end(a, continues());
    assert!(bench.state().task(part).is_none());
}

#[test]
fn an_ephemeral_task_continues_and_nothing_of_it_is_remembered() {
    let mut bench = Bench::stepping();
    let id = bench.task(|task| {
        task.ephemeral = true;
        task.check = true;
    });
    let entries = bench.entries.len();
    bench.end(id, continues());
    assert_eq!(bench.given(id).1.input, text("more"));
    bench.end(id, End::Finished(plan(&[("a", &[])])));
    let part = bench.child(id, "a");
    bench.done(part);
    assert_eq!(bench.is(id), TaskState::Verifying);
    bench.end(id, End::Finished(Outcome::Rejected("again".into())));
    // Its parts leave memory with its run.
    bench.end(id, continues());
    assert!(bench.state().task(part).is_none());
    bench.done(id);
    bench.end(id, End::Finished(Outcome::Accepted));
    assert_eq!((bench.is(id), bench.entries.len()), (TaskState::Completed, entries));
}

const TWO_COMPONENTS: &str = r#"
    name = "crew"
    [[agent]]
    name = "stepper"
    plugin = "acme/stepper@1.0.0"
    grants = { state = { quota = "4KiB" } }
    [[agent]]
    name = "other"
    plugin = "acme/other@1.0.0"
    grants = { state = { quota = "4KiB" } }
"#;

#[test]
fn a_run_with_a_step_goes_to_its_component_only() {
    // A step, or a wait that is the first of its run.
    for sleeps in [false, true] {
        let mut bench = Bench::stepping_as(TWO_COMPONENTS);
        let id = bench.task(|_| {});
        let holder = bench.lease(id).agent;
        assert_eq!(holder, bench.agent("stepper"));
        if sleeps {
            bench.waits(
                id,
                StepCall::Sleep {
                    until: bench.now.after(Millis(10)),
                },
            );
        } else {
            bench.answer(id, get("a"));
            bench.end(id, End::HostFault { message: "ours".into() });
        }
        // Whoever made its record is busy; the other is free and must not have it.
        let blocks = bench.task(|task| task.agent = Some("stepper".into()));
        bench.started(blocks);
        bench.pass(2_000);
        assert_eq!(bench.is(id), TaskState::Ready, "sleeps: {sleeps}");
        bench.done(blocks);
        assert_eq!(bench.lease(id).agent, holder);
        // Its next run is anybody's.
        bench.end(id, failed(Retry::Later));
        assert_eq!(bench.record(id).pinned, None);
    }
}

#[test]
fn a_run_that_nobody_is_left_to_continue_waits_for_a_person() {
    let mut bench = Bench::stepping_as(TWO_COMPONENTS);
    let id = bench.task(|_| {});
    bench.answer(id, get("a"));
    let digest = bench.record(id).pinned.unwrap();
    assert_eq!(digest, skep_rules::id::Digest::of(b"stepper"));
    bench.start_without("stepper");
    let failure = bench.record(id).failure.unwrap();
    assert_eq!((bench.is(id), failure.reason), (TaskState::Paused, Reason::NotFound));
    assert!(
        failure.message.contains("only the component that made its record"),
        "{failure:?}"
    );
    assert_eq!(bench.record(id).steps, 1);
    let by = || "tests".to_owned();
    bench.ask(Command::ResumeTask { task: id, by: by() }).unwrap();
    assert_eq!(bench.is(id), TaskState::Paused, "there is still nobody");
    bench.ask(Command::CancelTask { task: id, by: by() }).unwrap();
    assert_eq!(bench.steps_of(id, 0).len(), 1);
}

#[test]
fn a_run_that_diverged_waits_for_a_person_and_goes_on_with_its_record() {
    let mut bench = Bench::stepping();
    let (id, child) = stepped(&mut bench);
    bench.end(id, End::HostFault { message: "ours".into() });
    bench.pass(200_000);
    bench.end(
        id,
        End::Diverged {
            step: 1,
            expected: "state.put (a)".into(),
            got: "state.get (b)".into(),
        },
    );
    let failure = bench.record(id).failure.unwrap();
    assert_eq!((bench.is(id), failure.reason), (TaskState::Paused, Reason::Diverged));
    for part in ["step 1", "state.put (a)", "state.get (b)"] {
        assert!(failure.message.contains(part), "{failure:?}");
    }
    assert!(!bench.is(child).is_ended());
    let (task, by) = (id, "tests".to_owned());
    bench.ask(Command::ResumeTask { task, by }).unwrap();
    assert_eq!(
        (bench.is(id), bench.recorded(id), bench.record(id).run),
        (TaskState::Assigned, 2, 0)
    );
    bench.answer(id, get("a"));
}

#[test]
fn what_the_host_knows_is_told_once_in_a_run() {
    let mut bench = Bench::stepping();
    let objective = bench.task(|task| task.plan = true);
    bench.end(objective, End::Finished(plan(&[("a", &[]), ("all!", &["a"])])));
    let (a, all) = (bench.child(objective, "a"), bench.child(objective, "all"));
    bench.done(a);
    let first = bench.given(all).1;
    assert!(first.facts.is_some());
    // Before its first step a run has told nobody anything.
    bench.pass(LEASE.0);
    let second = bench.given(all).1;
    assert_ne!((&first.facts, first.began), (&second.facts, second.began));
    assert_eq!(bench.given(all).0, Call::Execute);
    bench.answer(all, get("a"));
    bench.pass(LEASE.0);
    assert_eq!(bench.given(all).1, second);
    bench.end(all, continues());
    let third = bench.given(all).1;
    assert!(third.began > second.began && third.facts != second.facts);
}

#[test]
fn a_run_that_decomposes_lets_its_children_finish() {
    let mut bench = Bench::stepping();
    let (id, child) = stepped(&mut bench);
    bench.end(id, End::Finished(plan(&[("a", &[])])));
    let part = bench.child(id, "a");
    bench.done(child);
    assert_eq!(bench.is(id), TaskState::Waiting);
    bench.done(part);
    let record = bench.record(id);
    assert_eq!(
        (record.state, record.result),
        (TaskState::Completed, Some(text("output")))
    );
    assert_ne!(bench.record(part).seed, bench.record(child).seed);
    assert_eq!(bench.steps_of(id, 0).len(), 2);
}

#[test]
fn two_steps_of_one_number_are_one() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let lease = bench.lease(id);
    let first = bench.step_by(lease, 0, put("a", b"1", None));
    assert!(matches!(first, StepReply::Recorded(_)));
    assert_eq!(
        bench.step_by(lease, 0, put("a", b"1", None)),
        StepReply::Refused(Reason::HostFault)
    );
    assert_eq!((bench.record(id).steps, bench.table(Table::State).len()), (1, 1));
}

#[test]
fn whoever_had_a_run_is_asked_first() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.answer(id, get("a"));
    let first = bench.lease(id).agent;
    bench.end(id, End::HostFault { message: "ours".into() });
    bench.pass(200_000);
    // Of two that could, whoever had it is asked first, though it has worked more.
    assert_eq!(bench.lease(id).agent, first);
}
