//! Ephemeral tasks: decided like all others, remembered nowhere but in memory.

use skep_rules::{
    agent::Phase,
    audit::Kind,
    command::{Command, Idempotency},
    id::{Digest, TaskId},
    plan::Outcome,
    reason::Reason,
    seam::{Denial, End},
    shard::Shard,
    task::TaskState,
};

use crate::bench::{Bench, plan, text};

/// What the disk has been given so far: entries, audit entries, rows.
fn remembered(bench: &Bench) -> (usize, usize, usize) {
    (bench.entries.len(), bench.audit.len(), bench.rows.len())
}

/// The shard that another process finds on the disk, which it has begun to work on.
fn after_a_crash(bench: &Bench) -> Shard {
    let mut shard = Shard::default();
    shard.take_unsigned(true);
    for (position, entry) in (1..).zip(&bench.entries) {
        shard.replay(position, entry).unwrap();
    }
    let _entries = shard.resume(bench.now);
    assert!(shard.state().index_is_right());
    shard
}

#[test]
fn an_ephemeral_task_runs_and_nothing_of_it_is_remembered() {
    let mut bench = Bench::new();
    let (before, position) = (remembered(&bench), bench.shard.position());
    let id = bench.task(|task| {
        task.ephemeral = true;
        task.check = true;
    });
    bench.started(id);
    bench.done(id);
    assert_eq!(bench.is(id), TaskState::Verifying);
    bench.end(id, End::Finished(Outcome::Accepted));
    assert_eq!(bench.is(id), TaskState::Completed);

    let record = bench.state().recent(id).unwrap();
    assert_eq!((record.result, record.ephemeral), (Some(text("output")), true));
    assert_eq!(bench.state().live_tasks(), 0);
    assert_eq!((remembered(&bench), bench.shard.position()), (before, position));
    let records = bench.shard.checkpoint().records;
    let again = Shard::load(
        position,
        records.into_iter().filter_map(|(key, value)| Some((key, value?))),
    )
    .unwrap();
    assert_eq!((again.state().live_tasks(), again.state().recent(id)), (0, None));
}

#[test]
fn its_failure_its_parts_and_its_end_by_hand_are_not_remembered_either() {
    let mut bench = Bench::new();
    let before = remembered(&bench);
    let objective = bench.task(|task| {
        task.ephemeral = true;
        task.plan = true;
    });
    bench.end(objective, End::Finished(plan(&[("a", &[]), ("b", &["a"])])));
    let (a, b) = (bench.child(objective, "a"), bench.child(objective, "b"));
    assert!(bench.record(a).ephemeral && bench.record(b).ephemeral);
    let trapped = End::Stopped {
        reason: Reason::Trapped,
        message: "it fell".into(),
    };
    bench.end(a, trapped);
    let ends = [objective, a, b].map(|id| bench.state().recent(id).unwrap().state);
    assert_eq!(ends, [TaskState::Failed, TaskState::Failed, TaskState::Skipped]);

    let cancelled = bench.task(|task| task.ephemeral = true);
    let cancel = Command::CancelTask {
        task: cancelled,
        by: "tests".into(),
    };
    bench.ask(cancel.clone()).unwrap();
    assert_eq!(bench.state().recent(cancelled).unwrap().state, TaskState::Cancelled);
    assert_eq!(bench.ask(cancel).unwrap_err().reason, Reason::IllegalTransition);
    assert_eq!(remembered(&bench), before);
}

#[test]
fn what_was_refused_to_it_is_audited() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.ephemeral = true);
    let (entries, position) = (bench.entries.len(), bench.shard.position());
    let denial = Denial {
        reason: Reason::MountDenied,
        what: "open /etc/passwd".into(),
        count: 3,
    };
    let lease = bench.lease(id);
    bench.end_of(lease, End::Finished(Outcome::Done(text("x"))), vec![denial]);
    let [denied] = bench.heard(Kind::Denied)[..] else {
        unreachable!("one thing was refused");
    };
    assert_eq!((denied.task, denied.reason), (Some(id), Some(Reason::MountDenied)));
    // It has an entry to travel with, which says nothing of the task.
    assert_eq!(
        (bench.entries.len(), bench.shard.position()),
        (entries + 1, position + 1)
    );
    let about = |kind| bench.heard(kind).iter().any(|entry| entry.task == Some(id));
    assert!(!about(Kind::TaskSubmitted) && !about(Kind::TaskEnded));
    assert_eq!(after_a_crash(&bench).state().live_tasks(), 0);
}

#[test]
fn synced_tasks_are_not_made_to_wait_for_what_may_be_lost() {
    let mut bench = Bench::new();
    let synced = bench.task(|_| {});
    let ephemeral = bench.task(|task| {
        task.ephemeral = true;
        task.dependencies = vec![synced];
    });
    let refused = |bench: &mut Bench, on: TaskId| {
        let mut task = bench.new_task();
        task.dependencies = vec![on];
        let rejection = bench.submit(vec![task]).unwrap_err();
        assert_eq!(rejection.reason, Reason::InvalidInput);
        assert!(
            rejection.message.contains(&on.to_string()) && rejection.message.contains("ephemeral"),
            "{rejection}"
        );
    };
    refused(&mut bench, ephemeral);
    // In one submission, too.
    let (mut first, mut second) = (bench.new_task(), bench.new_task());
    first.ephemeral = true;
    second.dependencies = vec![first.id];
    assert_eq!(
        bench.submit(vec![first, second]).unwrap_err().reason,
        Reason::InvalidInput
    );

    bench.done(synced);
    let (_, view) = bench.given(ephemeral);
    assert_eq!(view.dependencies[0].output, Ok(text("output")));
    bench.done(ephemeral);
    refused(&mut bench, ephemeral);
    let late = bench.task(|task| {
        task.ephemeral = true;
        task.dependencies = vec![ephemeral];
    });
    assert_eq!(bench.given(late).1.dependencies[0].output, Ok(text("output")));
}

#[test]
fn it_takes_no_idempotency_key() {
    let mut bench = Bench::new();
    let (crew, mut task) = (bench.crew, bench.new_task());
    task.ephemeral = true;
    let command = Command::SubmitTasks {
        crew,
        tasks: vec![task],
        idempotency: Some(Idempotency {
            key: "once".into(),
            digest: Digest::of(b"a"),
        }),
        by: "tests".into(),
    };
    let rejection = bench.ask(command).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidInput);
    assert!(rejection.message.contains("idempotency key"), "{rejection}");
}

#[test]
fn a_crash_loses_it_and_frees_its_agent() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.ephemeral = true);
    bench.started(id);
    let synced = bench.task(|_| {});
    assert_eq!(bench.is(synced), TaskState::Ready);

    // The only worker was busy with it when the checkpoint was written.
    let worker = bench.agent("worker");
    let checkpoint = bench.shard.checkpoint();
    let records = checkpoint.records.into_iter();
    let records = records.filter_map(|(key, value)| Some((key, value?)));
    let mut shard = Shard::load(checkpoint.position, records).unwrap();
    shard.take_unsigned(true);
    assert_eq!(shard.state().agent(worker).unwrap().active, 1);
    let _entries = shard.resume(bench.now);
    assert!(shard.state().index_is_right());
    assert_eq!(shard.state().task(id), None);
    let agent = shard.state().agent(worker).unwrap();
    assert_eq!((agent.active, agent.phase), (0, Phase::Warming));
    let ready = Command::Warmed {
        agent: worker,
        generation: agent.generation,
    };
    let _entries = shard
        .submit(bench.now, &skep_rules::facts::Facts::default(), ready)
        .unwrap();
    assert_eq!(shard.state().task(synced).unwrap().state, TaskState::Assigned);
}

#[test]
fn what_is_heard_of_it_waits_for_what_it_was_decided_from_and_for_nothing_else() {
    let mut bench = Bench::new();
    let settled = bench.shard.position();
    drop(bench.shard.durable(settled));
    let first = bench.task(|task| task.ephemeral = true);
    let heard = bench.shard.durable(settled);
    assert!(
        !heard.is_empty() && heard.iter().all(|(at, _)| *at == settled),
        "{heard:?}"
    );

    // Decided after a synced task that the disk does not have yet.
    bench.task(|_| {});
    drop(bench.shard.durable(settled));
    bench.done(first);
    assert!(bench.shard.durable(settled).is_empty());
    let ended = |(_, notices): &(u64, Vec<skep_rules::effect::Notice>)| {
        notices
            .iter()
            .any(|notice| format!("{:?}", notice.what).contains("Completed"))
    };
    assert!(bench.shard.durable(bench.shard.position()).iter().any(ended));
}

#[test]
fn it_does_not_stand_for_the_time_that_was_seen() {
    let mut bench = Bench::new();
    let seen = |bench: &Bench| bench.state().trust().time(skep_rules::quantity::Time(0));
    let before = seen(&bench);
    bench.now = bench.now.after(skep_rules::quantity::Millis(60_000));
    let id = bench.task(|task| task.ephemeral = true);
    bench.done(id);
    assert_eq!(seen(&bench), before, "a crash would turn it back");
}
