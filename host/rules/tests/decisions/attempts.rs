//! What becomes of a task when its attempt ends, in every way that it can.

use skep_rules::{
    agent::Phase,
    audit::Kind,
    command::Command,
    decide::Reply,
    effect::Changed,
    id::Digest,
    limits::{ACK, LEASE, MAX_DENIALS, MAX_TEXT_BYTES},
    plan::{Outcome, Payload, Retry},
    quantity::{Fuel, Millis},
    reason::Reason,
    seam::{Beat, Call, Denial, End, Lease, RunnerCommand},
    task::TaskState,
};

use crate::bench::{Bench, CREW, plan, text};

fn failed(retry: Retry) -> End {
    End::Finished(Outcome::Failed {
        message: "it did not work".into(),
        retry,
    })
}

fn stopped(reason: Reason) -> End {
    End::Stopped {
        reason,
        message: "stopped".into(),
    }
}

/// One attempt of a task with one retry, ended like this: where the task is then, why, and how many retries are used up.
#[test]
fn every_end_of_an_attempt_has_its_consequence() {
    use TaskState::{Completed, Failed, RetryWait};
    let large = || End::Finished(Outcome::Done(Payload::Inline(vec![0; (256 << 10) + 1])));
    let message = String::new;
    let cases: Vec<(End, TaskState, Option<Reason>, u32)> = vec![
        (End::Finished(Outcome::Done(text("x"))), Completed, None, 0),
        (large(), Failed, Some(Reason::InvalidInput), 0),
        (End::Finished(Outcome::Accepted), Failed, Some(Reason::InvalidInput), 0),
        (
            End::Finished(plan(&[("a", &["a"])])),
            Failed,
            Some(Reason::InvalidInput),
            0,
        ),
        (failed(Retry::Never), Failed, Some(Reason::Error), 0),
        (failed(Retry::Later), RetryWait, Some(Reason::Error), 1),
        (failed(Retry::After(Millis(5))), RetryWait, Some(Reason::Error), 1),
        (stopped(Reason::Trapped), RetryWait, Some(Reason::Trapped), 1),
        (
            stopped(Reason::FuelExhausted),
            RetryWait,
            Some(Reason::FuelExhausted),
            1,
        ),
        (stopped(Reason::MemoryLimit), RetryWait, Some(Reason::MemoryLimit), 1),
        (
            stopped(Reason::DeadlineExceeded),
            RetryWait,
            Some(Reason::DeadlineExceeded),
            1,
        ),
        (
            stopped(Reason::CapabilityDenied),
            Failed,
            Some(Reason::CapabilityDenied),
            0,
        ),
        (stopped(Reason::InvalidInput), Failed, Some(Reason::InvalidInput), 0),
        (
            stopped(Reason::UnsupportedImport),
            Failed,
            Some(Reason::UnsupportedImport),
            0,
        ),
        (
            End::Overload { message: message() },
            RetryWait,
            Some(Reason::Overloaded),
            0,
        ),
        (
            End::HostFault { message: message() },
            RetryWait,
            Some(Reason::HostFault),
            0,
        ),
        (End::Cancelled, RetryWait, Some(Reason::HostFault), 0),
        (End::Fenced, RetryWait, Some(Reason::HostFault), 0),
    ];
    for (end, state, reason, retries) in cases {
        let mut bench = Bench::new();
        let id = bench.task(|task| task.max_retries = Some(1));
        bench.started(id);
        bench.end(id, end.clone());
        let task = bench.record(id);
        let got = (task.state, task.failure.map(|failure| failure.reason), task.retries);
        assert_eq!(got, (state, reason, retries), "{end:?}");
        assert_eq!(task.fuel, Fuel(10), "what was used is accounted, {end:?}");
        assert_eq!(
            bench.heard(Kind::AttemptFailed).len(),
            usize::from(state != Completed),
            "{end:?}"
        );
        let worker = bench.state().agent(bench.agent("worker")).unwrap();
        assert_eq!(
            (worker.phase, worker.active, worker.tasks),
            (Phase::Ready, 0, 1),
            "{end:?}"
        );
    }
}

#[test]
fn retries_are_used_up_and_then_the_task_fails() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.max_retries = Some(2));
    for retry in 1..=2 {
        bench.end(id, failed(Retry::Later));
        let wait = bench.record(id).not_before.unwrap().since(bench.now);
        assert!((800 * retry..=1_200 * retry).contains(&wait.0), "{wait}");
        bench.pass(wait.0 - 1);
        assert_eq!(bench.is(id), TaskState::RetryWait);
        bench.pass(1);
        assert_eq!(bench.is(id), TaskState::Assigned);
    }
    bench.end(id, failed(Retry::Later));
    assert_eq!((bench.is(id), bench.record(id).attempts), (TaskState::Failed, 3));
}

#[test]
fn advice_to_wait_is_followed_within_its_cap() {
    for (wish, wait) in [(7, 7), (u64::MAX, 3_600_000)] {
        let mut bench = Bench::new();
        let id = bench.task(|_| {});
        bench.end(id, failed(Retry::After(Millis(wish))));
        assert_eq!(bench.record(id).not_before.unwrap().since(bench.now), Millis(wait));
    }
}

#[test]
fn the_host_may_fail_an_attempt_three_times() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.max_retries = Some(0));
    for _ in 0..3 {
        bench.end(id, End::HostFault { message: "ours".into() });
        assert_eq!(bench.is(id), TaskState::RetryWait);
        bench.pass(200_000);
    }
    bench.end(id, End::HostFault { message: "ours".into() });
    assert_eq!(bench.record(id).failure.unwrap().reason, Reason::HostFault);
}

#[test]
fn what_no_longer_holds_the_task_is_fenced() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    bench.started(id);
    let lease = bench.lease(id);
    let stale = [
        Lease { epoch: 0, ..lease },
        Lease { epoch: 2, ..lease },
        Lease { generation: 2, ..lease },
        Lease {
            agent: bench.agent("checker"),
            ..lease
        },
    ];
    let before = bench.record(id);
    for stale in stale {
        let end = End::Finished(Outcome::Done(text("late")));
        assert_eq!(bench.end_of(stale, end, vec![]), Reply::Fenced);
        assert_eq!(bench.ask(Command::AttemptStarted { lease: stale }), Ok(Reply::Fenced));
    }
    assert_eq!((bench.record(id), bench.heard(Kind::AttemptFenced).len()), (before, 4));
    bench.done(id);
    assert_eq!(
        bench.end_of(lease, End::Finished(Outcome::Done(text("twice"))), vec![]),
        Reply::Fenced
    );
    assert_eq!(bench.record(id).result, Some(text("output")));
}

#[test]
fn a_start_that_nobody_acknowledges_is_given_again() {
    let mut bench = Bench::new();
    bench.pass(0);
    let id = bench.task(|_| {});
    let first = bench.lease(id);
    assert_eq!(bench.shard.next_wake(bench.now), Some(bench.now.after(ACK)));
    bench.pass(ACK.0);
    let second = bench.lease(id);
    assert_eq!((second.epoch, bench.record(id).retries), (first.epoch + 1, 0));
    assert!(bench.told.contains(&RunnerCommand::Cancel { lease: first }));
}

#[test]
fn a_lease_lasts_as_long_as_it_is_renewed() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    bench.started(id);
    let lease = bench.lease(id);
    for _ in 0..5 {
        bench.pass(LEASE.0 - 1);
        let beat = Beat {
            lease,
            crossings: 1,
            fuel: Fuel(1),
            percent: None,
        };
        bench.shard.beats(bench.now, &[beat]);
    }
    assert_eq!(bench.lease(id), lease);
    bench.pass(LEASE.0);
    assert_eq!(
        bench.lease(id).epoch,
        lease.epoch + 1,
        "it did not count and was given again"
    );
    assert_eq!(
        bench.heard(Kind::AttemptFailed).last().unwrap().reason,
        Some(Reason::Interrupted)
    );
}

#[test]
fn a_restart_of_the_host_loses_attempts_and_nothing_else() {
    let mut bench = Bench::new();
    let (done, running) = (bench.task(|_| {}), bench.task(|_| {}));
    bench.done(done);
    bench.started(running);
    let lease = bench.lease(running);
    bench.restart();
    assert_eq!(
        (bench.is(done), bench.is(running)),
        (TaskState::Completed, TaskState::Ready)
    );
    let worker = bench.state().agent(lease.agent).unwrap();
    assert_eq!((worker.phase, worker.generation, worker.active), (Phase::Warming, 2, 0));
    bench.warm();
    assert_eq!((bench.lease(running).generation, bench.record(running).retries), (2, 0));
}

#[test]
fn a_result_is_checked_by_another_agent() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.check = true);
    bench.done(id);
    assert_eq!(
        (bench.is(id), bench.lease(id).agent),
        (TaskState::Verifying, bench.agent("checker"))
    );
    let result = text("output");
    assert_eq!(bench.given(id).0, Call::Check { result });
    bench.end(id, End::Finished(Outcome::Accepted));
    let task = bench.record(id);
    assert_eq!(
        (task.state, task.result, task.executed_by),
        (TaskState::Completed, Some(text("output")), Some(bench.agent("worker")))
    );
}

#[test]
fn a_result_is_sent_back_twice_and_then_refused() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.check = true);
    for round in 1..=3 {
        bench.done(id);
        bench.end(id, End::Finished(Outcome::Rejected(format!("round {round}"))));
        if round < 3 {
            assert_eq!(bench.is(id), TaskState::Assigned);
            assert_eq!(bench.given(id).1.remarks.last(), Some(&format!("round {round}")));
        }
    }
    let failure = bench.record(id).failure.unwrap();
    assert_eq!(
        (bench.is(id), failure.reason, bench.record(id).retries),
        (TaskState::Failed, Reason::Verify, 0)
    );
}

#[test]
fn a_check_that_traps_is_tried_again_and_the_result_kept() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.check = true);
    bench.done(id);
    bench.end(id, stopped(Reason::Trapped));
    assert_eq!(
        (bench.is(id), bench.state().task(id).unwrap().held.is_none()),
        (TaskState::Verifying, true)
    );
    bench.pass(2_000);
    bench.end(id, End::Finished(Outcome::Accepted));
    assert_eq!(bench.is(id), TaskState::Completed);
}

#[test]
fn what_was_refused_to_an_attempt_is_kept_counted_and_bounded() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    let denial = |n: u64| Denial {
        reason: Reason::MountDenied,
        what: format!("open /{n}"),
        count: 2,
    };
    let (lease, many) = (bench.lease(id), (0..100).map(denial).collect());
    bench.end_of(lease, failed(Retry::Later), many);
    bench.pass(2_000);
    let lease = bench.lease(id);
    bench.end_of(lease, End::Finished(Outcome::Done(text(""))), vec![denial(0)]);
    let task = bench.record(id);
    assert_eq!((task.denials.len(), task.denials[0].count), (MAX_DENIALS, 4));
    assert_eq!(bench.heard(Kind::Denied).len(), MAX_DENIALS + 1);
}

#[test]
fn streams_hear_of_an_end_only_when_it_is_durable() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    bench.done(id);
    let ended = |released: Vec<(u64, Vec<skep_rules::effect::Notice>)>| {
        let mut notices = released.into_iter().flat_map(|(_, notices)| notices);
        notices.any(|notice| matches!(notice.what, Changed::Task { state, .. } if state.is_ended()))
    };
    let position = bench.shard.position();
    let early = bench.shard.durable(position - 1);
    assert!(!ended(early));
    let then = bench.shard.durable(position);
    assert!(ended(then));
}

#[test]
fn a_refused_file_of_the_code_cache_is_one_entry_and_changes_nothing() {
    let mut bench = Bench::new();
    let entries = bench.entries.len();
    let digest = Digest::of(b"a component");
    let why = "x".repeat(MAX_TEXT_BYTES * 2);
    bench.ask(Command::CacheRefused { digest, why }).unwrap();
    assert_eq!(
        bench.entries.len(),
        entries + 1,
        "audit entries need an entry to travel with"
    );
    let heard = bench.heard(Kind::CacheRefused);
    assert!(heard.len() == 1 && heard[0].detail.starts_with(&digest.to_string()));
    assert!(heard[0].detail.len() <= MAX_TEXT_BYTES);
}

#[test]
fn a_stop_in_order_gives_every_attempt_back() {
    let mut bench = Bench::of(&CREW.replacen("\"acme/worker@1.0.0\"", "\"acme/worker@1.0.0\"\n    replicas = 2", 1));
    let (worked, waits) = (bench.task(|_| {}), bench.task(|_| {}));
    let checked = bench.task(|task| task.check = true);
    bench.started(worked);
    bench.done(worked);
    bench.started(waits);
    bench.started(checked);
    bench.done(checked);
    bench.started(checked);
    let ephemeral = bench.task(|task| task.ephemeral = true);
    assert_eq!(bench.is(checked), TaskState::Verifying);
    assert_eq!((bench.record(waits).attempts, bench.record(checked).attempts), (1, 1));

    let (entries, audit, told) = (bench.entries.len(), bench.audit.len(), bench.told.len());
    bench.stop();
    assert_eq!(
        (bench.is(waits), bench.is(checked)),
        (TaskState::Ready, TaskState::Verifying)
    );
    // Work that did not end has not been tried; what is under check has been.
    assert_eq!((bench.record(waits).attempts, bench.record(checked).attempts), (0, 1));
    assert!(bench.state().agents().all(|agent| agent.active == 0));
    assert_eq!(bench.told.len(), told, "nothing new begins");
    assert_eq!(bench.entries.len(), entries + 2);
    let [.., stopped] = &bench.audit[audit..] else {
        unreachable!("it is audited")
    };
    assert_eq!(
        (stopped.kind, stopped.detail.as_str()),
        (Kind::HostStopped, "2 attempts were given back")
    );
    assert!(bench.heard(Kind::AttemptFailed).is_empty());
    // An end that comes too late is nobody's.
    assert_eq!(bench.record(ephemeral).held, None);

    bench.restart();
    bench.warm();
    assert!(
        bench
            .audit
            .iter()
            .all(|entry| entry.reason != Some(Reason::Interrupted))
    );
    assert_eq!(bench.is(waits), TaskState::Assigned);
    bench.end(checked, End::Finished(Outcome::Accepted));
    bench.done(waits);
    assert_eq!(
        (bench.record(waits).attempts, bench.is(checked)),
        (1, TaskState::Completed)
    );
}

#[test]
fn a_stop_skips_what_was_let_finish_in_a_tree_that_has_failed() {
    let mut bench = Bench::of(&CREW.replacen("\"acme/worker@1.0.0\"", "\"acme/worker@1.0.0\"\nreplicas = 2", 1));
    let objective = bench.task(|task| task.plan = true);
    bench.end(objective, End::Finished(plan(&[("a", &[]), ("b", &[])])));
    let (a, b) = (bench.child(objective, "a"), bench.child(objective, "b"));
    bench.end(a, failed(Retry::Never));
    assert_eq!(bench.is(b), TaskState::Assigned);
    bench.stop();
    assert_eq!(bench.is(b), TaskState::Skipped);
    bench.restart();
    assert_eq!(bench.is(objective), TaskState::Failed);
}
