//! Plans: children made, joined, failed, cancelled, bounded.

use skep_rules::{
    audit::Kind,
    command::Command,
    limits::MAX_TASK_DEPTH,
    plan::{Outcome, Payload, Retry},
    reason::Reason,
    seam::{Call, Denial, End},
    task::TaskState,
};

use crate::bench::{Bench, plan, text};

fn never() -> End {
    End::Finished(Outcome::Failed {
        message: "no".into(),
        retry: Retry::Never,
    })
}

/// An objective that has been planned like this.
fn planned(nodes: &[(&str, &[&str])]) -> (Bench, skep_rules::id::TaskId) {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.plan = true;
        task.notes = vec!["be brief".into()];
    });
    assert_eq!(bench.lease(id).agent, bench.agent("planner"));
    let notes = vec!["be brief".into()];
    assert_eq!(bench.given(id).0, Call::Plan { notes });
    bench.end(id, End::Finished(plan(nodes)));
    (bench, id)
}

#[test]
fn children_run_in_the_order_of_their_dependencies() {
    let (mut bench, id) = planned(&[("last!", &["a", "b"]), ("a", &[]), ("b", &["a"])]);
    assert_eq!(bench.is(id), TaskState::Waiting);
    let [last, a, b] = ["last", "a", "b"].map(|name| bench.child(id, name));
    assert_eq!(
        [last, a, b].map(|task| bench.is(task)),
        [TaskState::Pending, TaskState::Assigned, TaskState::Pending]
    );
    bench.done(a);
    bench.done(b);
    let (_, view) = bench.given(last);
    let names: Vec<&str> = view
        .dependencies
        .iter()
        .map(|dependency| dependency.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    bench.end(last, End::Finished(Outcome::Done(text("whole"))));
    assert_eq!(
        (bench.is(id), bench.record(id).result),
        (TaskState::Completed, Some(text("whole")))
    );
    assert_eq!(bench.state().live_tasks(), 0, "the tree is archived");
}

#[test]
fn the_result_without_an_integrating_node_is_that_of_the_only_sink_or_a_summary() {
    let (mut bench, id) = planned(&[("a", &[]), ("b", &["a"])]);
    for name in ["a", "b"] {
        let child = bench.child(id, name);
        bench.end(child, End::Finished(Outcome::Done(text(name))));
    }
    assert_eq!(bench.record(id).result, Some(text("b")));

    let (mut bench, id) = planned(&[("a", &[]), ("b?", &[])]);
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    bench.done(a);
    bench.end(b, never());
    let expected = r#"[{"name":"a","state":"COMPLETED"},{"name":"b","state":"FAILED"}]"#;
    assert_eq!(bench.record(id).result, Some(text(expected)));
}

#[test]
fn a_failed_child_fails_its_parent_and_skips_what_does_not_run() {
    let (mut bench, id) = planned(&[("a", &[]), ("b", &[]), ("c", &["b"]), ("d?", &[])]);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| bench.child(id, name));
    bench.end(a, never());
    assert_eq!([b, c, d].map(|task| bench.is(task)), [TaskState::Skipped; 3]);
    let failure = bench.record(id).failure.unwrap();
    assert_eq!(
        (bench.is(id), failure.reason),
        (TaskState::Failed, Reason::DependencyFailed)
    );
    assert!(failure.message.contains("`a`"), "{}", failure.message);
}

#[test]
fn what_runs_when_a_sibling_fails_is_let_finish_but_not_tried_again() {
    let mut bench = Bench::of(
        "name = 'crew'\n[[agent]]\nname = 'w'\nplugin = 'acme/worker@1.0.0'\nreplicas = 2\n[[agent]]\nname = 'p'\nplugin = 'acme/planner@1.0.0'",
    );
    let id = bench.task(|task| task.plan = true);
    bench.end(id, End::Finished(plan(&[("a", &[]), ("b", &[])])));
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    bench.end(a, never());
    assert_eq!((bench.is(id), bench.is(b)), (TaskState::Waiting, TaskState::Assigned));
    let message = String::new();
    bench.end(b, End::Overload { message });
    assert_eq!((bench.is(id), bench.is(b)), (TaskState::Failed, TaskState::Skipped));
}

#[test]
fn an_attempt_lost_in_a_failed_tree_is_not_given_again() {
    let mut bench = Bench::of(
        "name = 'crew'\n[[agent]]\nname = 'w'\nplugin = 'acme/worker@1.0.0'\nreplicas = 2\n[[agent]]\nname = 'p'\nplugin = 'acme/planner@1.0.0'",
    );
    let id = bench.task(|task| task.plan = true);
    bench.end(id, End::Finished(plan(&[("a", &[]), ("b", &[])])));
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    bench.end(a, never());
    bench.restart();
    assert_eq!((bench.is(id), bench.is(b)), (TaskState::Failed, TaskState::Skipped));
}

#[test]
fn the_failure_of_an_optional_child_is_told_to_those_that_waited() {
    let (mut bench, id) = planned(&[("drill?", &[]), ("report!", &["drill"])]);
    let (drill, report) = (bench.child(id, "drill"), bench.child(id, "report"));
    let denial = Denial {
        reason: Reason::MountDenied,
        what: "open /etc/passwd".into(),
        count: 1,
    };
    let lease = bench.lease(drill);
    let end = End::Stopped {
        reason: Reason::MemoryLimit,
        message: "4 GiB".into(),
    };
    bench.end_of(lease, end, vec![denial]);
    let (_, view) = bench.given(report);
    assert_eq!(view.dependencies[0].output, Err(Reason::MemoryLimit));
    let facts: serde_json::Value = serde_json::from_slice(&view.facts.unwrap()).unwrap();
    let codes: Vec<_> = facts["denied"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["code"].clone())
        .collect();
    assert_eq!(codes, ["mount-denied", "memory-limit"]);
    assert_eq!(facts["denied"][0]["agent"], "worker");
    assert_eq!(
        facts["tasks"],
        serde_json::json!({ "total": 3, "completed": 0, "failed": 1 })
    );
    bench.done(report);
    assert_eq!(bench.is(id), TaskState::Completed);
}

#[test]
fn a_result_that_was_put_together_is_checked_and_when_sent_back_planned_anew() {
    let mut bench = Bench::new();
    let id = bench.task(|task| (task.plan, task.check) = (true, true));
    for round in 0..2 {
        bench.end(id, End::Finished(plan(&[("a", &[])])));
        let a = bench.child(id, "a");
        bench.done(a);
        assert_eq!(bench.is(id), TaskState::Verifying);
        let verdict = if round == 0 {
            Outcome::Rejected("again".into())
        } else {
            Outcome::Accepted
        };
        bench.end(id, End::Finished(verdict));
    }
    let task = bench.record(id);
    assert_eq!(
        (task.state, task.children.len(), task.result),
        (TaskState::Completed, 2, Some(text("output")))
    );
}

#[test]
fn cancelling_reaches_the_whole_tree() {
    let (mut bench, id) = planned(&[("a", &[]), ("b", &["a"])]);
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    let lease = bench.lease(a);
    bench
        .ask(Command::CancelTask {
            task: id,
            by: "tests".into(),
        })
        .unwrap();
    assert_eq!([id, a, b].map(|task| bench.is(task)), [TaskState::Cancelled; 3]);
    assert!(bench.told.contains(&skep_rules::seam::RunnerCommand::Cancel { lease }));
    let heard = bench.heard(Kind::AttemptFenced).len();
    bench.end_of(lease, End::Cancelled, vec![]);
    assert_eq!(bench.heard(Kind::AttemptFenced).len(), heard, "obeying is no news");
}

#[test]
fn a_plan_that_does_not_check_fails_its_task_with_the_reason() {
    type Nodes = &'static [(&'static str, &'static [&'static str])];
    let cases: &[(Nodes, &str)] = &[
        (&[], "at least one node"),
        (&[("a", &["b"]), ("b", &["a"])], "cycle"),
        (&[("a", &["x"])], "not in the plan"),
    ];
    for (nodes, named) in cases {
        let (bench, id) = planned(nodes);
        let failure = bench.record(id).failure.unwrap();
        assert_eq!(failure.reason, Reason::InvalidInput);
        assert!(failure.message.contains(named), "{}", failure.message);
    }
    let mut bench = Bench::new();
    let id = bench.task(|task| task.plan = true);
    let Outcome::Plan(mut nobody) = plan(&[("a", &[])]) else {
        unreachable!()
    };
    nobody.nodes[0].roles = ["paint".parse().unwrap()].into();
    bench.end(id, End::Finished(Outcome::Plan(nobody)));
    assert!(bench.record(id).failure.unwrap().message.contains("role paint"));
}

#[test]
fn plans_are_bounded_in_depth_number_and_bytes() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    let mut at = id;
    for _ in 1..MAX_TASK_DEPTH {
        bench.end(at, End::Finished(plan(&[("a", &[])])));
        at = bench.child(at, "a");
    }
    bench.end(at, End::Finished(plan(&[("a", &[])])));
    assert!(bench.record(at).failure.unwrap().message.contains("deep"));
    assert_eq!(bench.is(id), TaskState::Failed);

    let names: Vec<String> = (0..1_000).map(|n| format!("n{n}")).collect();
    let wide: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), [].as_slice())).collect();
    let (mut bench, id) = planned(&wide);
    assert_eq!(bench.state().task(id).unwrap().nodes, 1_000);
    let child = bench.child(id, "n0");
    bench.end(child, End::Finished(plan(&[("a", &[])])));
    assert!(bench.record(child).failure.unwrap().message.contains("at most 1000"));

    let mut bench = Bench::new();
    let id = bench.task(|task| task.plan = true);
    let Outcome::Plan(mut heavy) = plan(&[("a", &[]), ("b", &[]), ("c", &[])]) else {
        unreachable!()
    };
    heavy
        .nodes
        .iter_mut()
        .for_each(|node| node.input = Payload::Inline(vec![0; 200 << 10]));
    bench.end(id, End::Finished(Outcome::Plan(heavy)));
    assert!(bench.record(id).failure.unwrap().message.contains("bytes"));
}

/// A guest chooses how long its failure message is; a thousand siblings that are skipped for it must still fit in one frame.
#[test]
fn a_failure_that_a_thousand_siblings_hear_of_fits_in_a_frame() {
    let names: Vec<String> = (0..1_000).map(|n| format!("n{n}")).collect();
    let wide: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), [].as_slice())).collect();
    let (mut bench, id) = planned(&wide);
    let before = bench.entries.len();
    let message = "x".repeat(1 << 20);
    let child = bench.child(id, "n0");
    let retry = Retry::Never;
    bench.end(child, End::Finished(Outcome::Failed { message, retry }));
    let bytes: usize = bench.entries.iter().skip(before).map(Vec::len).sum();
    assert!(bytes < 256 << 10, "{bytes}");
    assert_eq!((bench.is(id), bench.state().live_tasks()), (TaskState::Failed, 0));
}
