//! What is accepted, what is refused, and what asking twice does.

use skep_rules::{
    command::{Command, Idempotency, NewTask},
    decide::Reply,
    facts::{Facts, Remembered, Table},
    id::{Digest, TaskId},
    plan::{Note, Outcome, Retry},
    reason::Reason,
    seam::End,
    task::TaskState,
};

use crate::bench::{Bench, text};

/// Submits one altered task and returns the refusal.
fn refused(alter: impl FnOnce(&mut NewTask)) -> (Reason, String) {
    let mut bench = Bench::new();
    let mut task = bench.new_task();
    alter(&mut task);
    let position = bench.shard.position();
    let rejection = bench.submit(vec![task]).unwrap_err();
    assert_eq!(bench.shard.position(), position, "a refused command changes nothing");
    (rejection.reason, rejection.message)
}

#[test]
fn what_passes_a_bound_is_refused_by_name() {
    type Alter = fn(&mut NewTask);
    let cases: &[(Alter, Reason, &str)] = &[
        (
            |task| task.description = "x".repeat(4097),
            Reason::InvalidInput,
            "description",
        ),
        (
            |task| task.input = text(&"x".repeat((256 << 10) + 1)),
            Reason::InvalidInput,
            "artifact",
        ),
        (|task| task.max_retries = Some(101), Reason::InvalidInput, "100 retries"),
        (
            |task| {
                task.notes = vec![Note {
                    name: "a.md".into(),
                    text: "for whom".into(),
                }];
            },
            Reason::InvalidInput,
            "planner",
        ),
        (
            |task| task.roles = [("paint").parse().unwrap()].into(),
            Reason::NotFound,
            "role paint",
        ),
        (
            |task| task.agent = Some("nobody".into()),
            Reason::NotFound,
            "agent `nobody`",
        ),
        (
            |task| task.agent = Some("checker".into()),
            Reason::NotFound,
            "one agent was named",
        ),
        (
            |task| task.dependencies = vec![TaskId::new(5 << 16, 0)],
            Reason::NotFound,
            "depend",
        ),
        (|task| task.dependencies = vec![task.id], Reason::InvalidInput, "itself"),
        (
            |task| task.labels = (0..17).map(|n| (n.to_string(), String::new())).collect(),
            Reason::InvalidInput,
            "labels",
        ),
    ];
    for (alter, reason, named) in cases {
        let (got, message) = refused(alter);
        assert_eq!(got, *reason, "{message}");
        assert!(message.contains(named) && message.contains("tasks[0]"), "{message}");
    }
}

#[test]
fn a_submission_is_accepted_whole_or_not_at_all() {
    let mut bench = Bench::new();
    let (good, mut bad) = (bench.new_task(), bench.new_task());
    bad.agent = Some("nobody".into());
    assert!(bench.submit(vec![good, bad]).is_err());
    assert_eq!(bench.state().live_tasks(), 0);
    assert_eq!(bench.submit(vec![]).unwrap_err().reason, Reason::InvalidInput);
    let many = (0..101).map(|_| bench.new_task()).collect();
    assert_eq!(bench.submit(many).unwrap_err().reason, Reason::InvalidInput);
    let heavy = (0..3).map(|_| NewTask {
        input: text(&"x".repeat(250 << 10)),
        ..bench.new_task()
    });
    let heavy = heavy.collect();
    assert_eq!(bench.submit(heavy).unwrap_err().reason, Reason::BodyLimit);
}

#[test]
fn a_crew_whose_only_checker_would_execute_takes_no_checked_task() {
    let mut bench = Bench::of("name = 'crew'\n[[agent]]\nname = 'both'\nplugin = 'acme/both@1.0.0'");
    let mut task = bench.new_task();
    task.check = true;
    let message = bench.submit(vec![task]).unwrap_err().message;
    assert!(message.contains("the only checker"), "{message}");
}

#[test]
fn asking_twice_with_a_key_is_asking_once() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, facts: &Facts, body: &[u8]| {
        let (crew, tasks) = (bench.crew, vec![bench.new_task()]);
        let idempotency = Some(Idempotency {
            key: "once".into(),
            digest: Digest::of(body),
        });
        let by = "tests".into();
        bench.ask_with(
            facts,
            Command::SubmitTasks {
                crew,
                tasks,
                idempotency,
                by,
            },
        )
    };
    let Ok(Reply::Submitted { tasks, repeated: false }) = ask(&mut bench, &Facts::default(), b"a") else {
        unreachable!("a new key is accepted");
    };
    let row = bench.rows.iter().find(|row| row.table == Table::Idempotency).unwrap();
    assert_eq!(row.key, b"once");
    let remembered: Remembered = minicbor::decode(row.value.as_ref().unwrap()).unwrap();
    let facts = Facts {
        idempotency: Some(remembered.clone()),
        ..Facts::default()
    };
    let repeated = Reply::Submitted { tasks, repeated: true };
    assert_eq!(ask(&mut bench, &facts, b"a"), Ok(repeated));
    assert_eq!(
        ask(&mut bench, &facts, b"b").unwrap_err().reason,
        Reason::IdempotencyMismatch
    );
    bench.now = remembered.until;
    assert!(matches!(
        ask(&mut bench, &facts, b"b"),
        Ok(Reply::Submitted { repeated: false, .. })
    ));
}

#[test]
fn a_dependency_holds_a_task_back_and_its_end_lets_it_go() {
    let mut bench = Bench::new();
    let first = bench.task(|_| {});
    let second = bench.task(|task| task.dependencies = vec![first]);
    assert_eq!(
        (bench.is(first), bench.is(second)),
        (TaskState::Assigned, TaskState::Pending)
    );
    bench.done(first);
    assert_eq!(bench.is(second), TaskState::Assigned);
    let (_, view) = bench.given(second);
    let [dependency] = view.dependencies.as_slice() else {
        unreachable!("it has one dependency: {view:?}");
    };
    assert_eq!(
        (dependency.name.clone(), &dependency.output),
        (first.to_string(), &Ok(text("output")))
    );
    assert!(bench.state().task(first).is_some(), "what is needed is not archived");
    bench.done(second);
    assert_eq!(bench.state().live_tasks(), 0);
}

#[test]
fn a_failed_dependency_skips_what_waits_for_it() {
    let mut bench = Bench::new();
    let first = bench.task(|_| {});
    let second = bench.task(|task| task.dependencies = vec![first]);
    let third = bench.task(|task| task.dependencies = vec![second]);
    let failed = Outcome::Failed {
        message: "no".into(),
        retry: Retry::Never,
    };
    bench.end(first, End::Finished(failed));
    assert_eq!(bench.is(first), TaskState::Failed);
    for task in [second, third] {
        let record = bench.record(task);
        assert_eq!(record.state, TaskState::Skipped);
        assert_eq!(record.failure.unwrap().reason, Reason::DependencyFailed);
    }
}

#[test]
fn an_archived_dependency_is_read_from_its_row() {
    let mut bench = Bench::new();
    let first = bench.task(|_| {});
    bench.done(first);
    assert!(bench.state().task(first).is_none());
    let mut task = bench.new_task();
    task.dependencies = vec![first];
    let (id, crew) = (task.id, bench.crew);
    let command = Command::SubmitTasks {
        crew,
        tasks: vec![task],
        idempotency: None,
        by: "tests".into(),
    };
    assert_eq!(command.needs(bench.shard.state()).tasks, [first]);
    let facts = Facts {
        tasks: [(first, bench.record(first))].into(),
        ..Facts::default()
    };
    bench.ask_with(&facts, command).unwrap();
    assert_eq!(bench.given(id).1.dependencies.len(), 1);
}

#[test]
fn what_has_ended_cannot_be_cancelled() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    bench.done(id);
    let facts = Facts {
        tasks: [(id, bench.record(id))].into(),
        ..Facts::default()
    };
    let cancel = |task| Command::CancelTask {
        task,
        by: "tests".into(),
    };
    assert_eq!(
        bench.ask_with(&facts, cancel(id)).unwrap_err().reason,
        Reason::IllegalTransition
    );
    assert_eq!(
        bench.ask(cancel(TaskId::new(9 << 16, 0))).unwrap_err().reason,
        Reason::NotFound
    );
}
