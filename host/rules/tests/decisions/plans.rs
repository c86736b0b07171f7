//! Plans: children made, joined, failed, cancelled, bounded.

use skep_rules::{
    audit::Kind,
    command::Command,
    lifecycle::Timeouts,
    limits::MAX_TASK_DEPTH,
    plan::{NodePoint, Note, Outcome, Payload, Plan, Retry, Slot},
    quantity::{Fuel, Millis},
    reason::Reason,
    retry::Policy,
    seam::{Call, Denial, End, Export},
    task::TaskState,
};

use crate::bench::{Bench, CREW, plan, plugin, plugins, text};

fn never() -> End {
    End::Finished(Outcome::Failed {
        message: "no".into(),
        retry: Retry::Never,
    })
}

fn note(name: &str) -> Note {
    Note {
        name: name.into(),
        text: "be brief".into(),
    }
}

/// A plan of which every node came from one note.
fn noted(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Plan(mut plan) => {
            plan.nodes.iter_mut().for_each(|node| node.note = Some("a.md".into()));
            Outcome::Plan(plan)
        }
        other => other,
    }
}

/// An objective that has been planned like this.
fn planned(nodes: &[(&str, &[&str])]) -> (Bench, skep_rules::id::TaskId) {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.plan = true;
        task.notes = vec![note("a.md")];
    });
    assert_eq!(bench.lease(id).agent, bench.agent("planner"));
    let notes = vec![note("a.md")];
    assert_eq!(bench.given(id).0, Call::Plan { notes });
    bench.end(id, End::Finished(noted(plan(nodes))));
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

/// Like `plan`, altered.
fn altered(nodes: &[(&str, &[&str])], alter: impl FnOnce(&mut Plan)) -> Plan {
    let Outcome::Plan(mut plan) = plan(nodes) else {
        unreachable!("a plan is a plan")
    };
    alter(&mut plan);
    plan
}

#[test]
fn a_planner_names_the_note_of_every_node() {
    type Case = (&'static str, fn(&mut Plan), Option<&'static str>);
    let cases: [Case; 4] = [
        (
            "each",
            |plan| plan.nodes.iter_mut().for_each(|node| node.note = Some("a.md".into())),
            None,
        ),
        ("but the last", |plan| plan.nodes[0].note = Some("b.md".into()), None),
        (
            "none",
            |_| (),
            Some("`a` names none as the note that it came from; there are `a.md`, `b.md`"),
        ),
        (
            "another",
            |plan| plan.nodes[0].note = Some("c.md".into()),
            Some("`a` names `c.md` as the note that it came from"),
        ),
    ];
    for (what, alter, refused) in cases {
        let mut bench = Bench::new();
        let id = bench.task(|task| {
            task.plan = true;
            task.notes = vec![note("a.md"), note("b.md")];
        });
        let plan = altered(&[("a", &[]), ("b!", &[])], alter);
        bench.end(id, End::Finished(Outcome::Plan(plan)));
        match refused {
            None => assert_eq!(bench.is(id), TaskState::Waiting, "{what}"),
            Some(message) => {
                let failure = bench.record(id).failure.unwrap();
                assert!(failure.message.contains(message), "{what}: {}", failure.message);
            }
        }
    }
}

/// A crew that also has a sequencer.
fn orderly() -> Bench {
    let mut bench = Bench::empty();
    let manifest = format!("{CREW}[[agent]]\nname = \"sequencer\"\nplugin = \"acme/sequencer@1.0.0\"\n");
    let mut plugins = plugins();
    plugins.push(plugin("sequencer", &[Export::Sequencer], "\"order\"", ""));
    bench
        .assemble_with(&manifest, &plugins, &skep_rules::grant::Ceiling::default())
        .unwrap();
    bench.warm();
    bench
}

#[test]
fn a_sequencer_orders_what_a_planner_has_planned() {
    let mut bench = orderly();
    let id = bench.task(|task| task.plan = true);
    let before = altered(&[("a", &[]), ("b", &[])], |_| ());
    bench.end(id, End::Finished(Outcome::Plan(before.clone())));
    assert_eq!(bench.lease(id).agent, bench.agent("sequencer"));
    assert_eq!(bench.given(id).0, Call::Sequence { plan: Box::new(before) });
    // A lost attempt is made again, by a sequencer.
    let restart = bench.now;
    bench.restart();
    bench.warm();
    assert_eq!((bench.now, bench.lease(id).agent), (restart, bench.agent("sequencer")));
    bench.end(id, End::Finished(plan(&[("a", &[]), ("b", &["a"]), ("join!", &["b"])])));
    let b = bench.child(id, "b");
    assert_eq!((bench.is(id), bench.is(b)), (TaskState::Waiting, TaskState::Pending));
}

#[test]
fn a_sequencer_cannot_change_what_is_done() {
    let mut bench = orderly();
    let id = bench.task(|task| task.plan = true);
    bench.end(id, End::Finished(plan(&[("a", &[]), ("b", &[])])));
    bench.end(id, End::Finished(plan(&[("a", &[])])));
    let failure = bench.record(id).failure.unwrap();
    assert_eq!(
        (bench.is(id), failure.reason),
        (TaskState::Failed, Reason::InvalidInput)
    );
    assert!(
        failure.message.contains("the sequencer must keep `b`"),
        "{}",
        failure.message
    );
}

#[test]
fn a_bad_plan_never_reaches_the_sequencer() {
    let mut bench = orderly();
    let id = bench.task(|task| task.plan = true);
    bench.end(id, End::Finished(plan(&[("a", &["b"]), ("b", &["a"])])));
    let failure = bench.record(id).failure.unwrap();
    assert!(failure.message.contains("the plan has a cycle"), "{}", failure.message);
}

#[test]
fn a_plan_that_is_given_needs_no_planner() {
    let mut bench = Bench::new();
    let inner = altered(&[("x", &[]), ("y", &["x"])], |_| ());
    let id = bench.task(|task| {
        task.parts = Some(altered(&[("a", &[]), ("b", &["a"])], |plan| {
            plan.nodes[1].parts = Some(inner)
        }));
    });
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    assert_eq!(
        (bench.is(id), bench.is(a), bench.is(b)),
        (TaskState::Waiting, TaskState::Assigned, TaskState::Pending)
    );
    bench.done(a);
    let x = bench.child(b, "x");
    assert_eq!(
        (bench.is(b), bench.is(x), bench.record(x).depth),
        (TaskState::Waiting, TaskState::Assigned, 3)
    );
    bench.done(x);
    let y = bench.child(b, "y");
    bench.end(y, End::Finished(Outcome::Done(text("whole"))));
    assert_eq!(bench.record(id).result, Some(text("whole")));
}

#[test]
fn a_plan_that_is_given_waits_for_what_its_task_waits_for() {
    let mut bench = Bench::new();
    let first = bench.task(|_| ());
    let id = bench.task(|task| {
        task.dependencies = vec![first];
        task.parts = Some(altered(&[("a", &[])], |_| ()));
    });
    assert_eq!((bench.is(id), bench.record(id).children.len()), (TaskState::Pending, 0));
    bench.done(first);
    assert_eq!(bench.is(bench.child(id, "a")), TaskState::Assigned);
}

#[test]
fn a_node_says_how_it_is_tried_again_and_how_long_it_may_take() {
    let retry = Policy {
        initial: Some(Millis(7)),
        jitter: Some(0),
        not_again: [Reason::Trapped].into(),
        ..Policy::default()
    };
    let timeouts = Timeouts {
        schedule_to_close: Some(Millis(60_000)),
        ..Timeouts::default()
    };
    let mut bench = Bench::new();
    let parts = altered(&[("a", &[]), ("b", &["a"])], |plan| {
        plan.nodes[0].max_retries = Some(1);
        (plan.nodes[0].retry, plan.nodes[0].timeouts) = (retry.clone(), timeouts);
    });
    let id = bench.task(|task| task.parts = Some(parts.clone()));
    let a = bench.child(id, "a");
    let failed = |retry| {
        End::Finished(Outcome::Failed {
            message: "no".into(),
            retry,
        })
    };
    bench.end(a, failed(Retry::Later));
    assert_eq!(
        (bench.is(a), bench.record(a).not_before),
        (TaskState::RetryWait, Some(bench.now.after(Millis(7))))
    );
    assert_eq!(bench.record(a).node(|_| None).unwrap().retry, retry, "it is told again");
    bench.pass(60_000);
    let failure = bench.record(a).failure.unwrap();
    assert_eq!((bench.is(a), failure.reason), (TaskState::Failed, Reason::TimedOut));
    for bad in [
        Policy {
            factor: Some(99),
            ..Policy::default()
        },
        Policy {
            initial: Some(Millis(0)),
            ..Policy::default()
        },
    ] {
        let mut parts = parts.clone();
        parts.nodes[1].retry = bad;
        assert!(parts.check().unwrap_err().to_string().contains("`b`"));
    }
}

#[test]
fn what_is_wrong_with_a_given_plan_is_told_at_once() {
    let deep = |depth: u32| {
        (1..depth).fold(altered(&[("a", &[])], |_| ()), |inner, _| {
            altered(&[("a", &[])], |plan| plan.nodes[0].parts = Some(inner))
        })
    };
    let cases: [(Plan, &str); 5] = [
        (altered(&[("a", &["b"]), ("b", &["a"])], |_| ()), "the plan has a cycle"),
        (
            altered(&[("a", &["x"])], |_| ()),
            "`a` depends on `x`, which is not in the plan",
        ),
        (
            altered(&[("a", &[])], |plan| {
                plan.nodes[0].roles = ["nobody".parse().unwrap()].into()
            }),
            "no agent of the crew can execute it",
        ),
        (
            altered(&[("a", &[])], |plan| plan.nodes = vec![plan.nodes[0].clone(); 1_001]),
            "at most 1000 nodes",
        ),
        (deep(8), "tasks nest at most 8 deep"),
    ];
    for (plan, expected) in cases {
        let mut bench = Bench::new();
        let mut task = bench.new_task();
        task.parts = Some(plan);
        let refused = bench.submit(vec![task]).unwrap_err();
        assert!(refused.message.contains(expected), "{}", refused.message);
        assert_eq!(bench.state().live_tasks(), 0);
    }
    let mut bench = Bench::new();
    bench.task(|task| task.parts = Some(deep(7)));
}

#[test]
fn the_next_of_a_lane_begins_after_the_check_of_the_one_before() {
    let mut bench = Bench::of(&CREW.replace("name = \"worker\"", "name = \"worker\"\nreplicas = 3"));
    let id = bench.task(|task| {
        task.parts = Some(altered(&[("a", &[]), ("b", &[]), ("c", &[])], |plan| {
            plan.verify_before_next = true;
            plan.nodes[2].lane = Some("other".parse().unwrap());
        }));
    });
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.child(id, name));
    let states = |bench: &Bench| [a, b, c].map(|task| bench.is(task));
    assert_eq!(
        states(&bench),
        [TaskState::Assigned, TaskState::Pending, TaskState::Assigned]
    );
    bench.done(a);
    assert_eq!(
        states(&bench),
        [TaskState::Verifying, TaskState::Pending, TaskState::Assigned]
    );
    bench.end(a, End::Finished(Outcome::Rejected("again".into())));
    assert_eq!(
        states(&bench),
        [TaskState::Assigned, TaskState::Pending, TaskState::Assigned]
    );
    bench.done(a);
    bench.end(a, End::Finished(Outcome::Accepted));
    assert_eq!(
        states(&bench),
        [TaskState::Completed, TaskState::Assigned, TaskState::Assigned]
    );
}

#[test]
fn a_slot_is_filled_with_the_output_of_another() {
    let artifact = skep_rules::plan::Artifact {
        digest: skep_rules::id::Digest::of(b"x"),
        size: 1,
        media: "text/plain".into(),
    };
    let digest = artifact.digest.to_string();
    let by_reference =
        format!(r#"{{"n":1,"whole":{{"$artifact":{{"digest":"{digest}","media":"text/plain","size":1}}}}}}"#);
    let cases = [
        (text(r#"{"b": [1, 2]}"#), r#"{"n":1,"whole":{"b":[1,2]}}"#.to_owned()),
        (text("plain"), r#"{"n":1,"whole":"plain"}"#.to_owned()),
        (
            Payload::Inline(vec![0xff]),
            r#"{"n":1,"whole":{"$hex":"ff"}}"#.to_owned(),
        ),
        (Payload::Artifact(artifact), by_reference),
    ];
    for (output, input) in cases {
        let mut bench = Bench::new();
        let id = bench.task(|task| {
            task.parts = Some(altered(&[("a", &[]), ("b", &[])], |plan| {
                plan.nodes[1].input = text(r#"{"n": 1}"#);
                plan.nodes[1].slots = vec![Slot {
                    field: "whole".into(),
                    node: "a".parse().unwrap(),
                    schema: None,
                }];
            }));
        });
        let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
        assert_eq!(bench.is(b), TaskState::Pending);
        bench.end(a, End::Finished(Outcome::Done(output)));
        assert_eq!(bench.given(b).1.input, text(&input));
    }
}

#[test]
fn an_output_is_what_the_plan_says_of_it() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.parts = Some(altered(&[("a", &[])], |plan| {
            plan.nodes[0].output = Some(r#"{"type":"object"}"#.parse().unwrap())
        }));
    });
    let a = bench.child(id, "a");
    bench.end(a, End::Finished(Outcome::Done(text("[]"))));
    let failure = bench.record(a).failure.unwrap();
    assert_eq!((bench.is(a), failure.reason), (TaskState::Failed, Reason::InvalidInput));
    let message = "the result is not what the plan says of it: it is array, and must be object";
    assert_eq!(failure.message, message);
}

#[test]
fn a_node_waits_for_a_person_where_its_plan_says_so() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.parts = Some(altered(&[("a", &[]), ("b", &["a"])], |plan| {
            plan.nodes[0].approval = Some(NodePoint::After);
            plan.nodes[1].approval = Some(NodePoint::Before);
        }));
    });
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    let approve = |bench: &mut Bench, task| {
        let approval = bench.record(task).asks.unwrap().approval;
        let ruling = skep_rules::approval::Ruling {
            items: Vec::new(),
            approved: true,
            remark: String::new(),
            always: false,
            digest: None,
        };
        let by = "somebody else".into();
        bench.ask(Command::DecideApproval { approval, ruling, by }).unwrap();
    };
    bench.done(a);
    assert_eq!(
        (bench.is(a), bench.is(b)),
        (TaskState::AwaitingApproval, TaskState::Pending)
    );
    approve(&mut bench, a);
    assert_eq!(
        (bench.is(a), bench.is(b)),
        (TaskState::Completed, TaskState::AwaitingApproval)
    );
    approve(&mut bench, b);
    assert_eq!(bench.is(b), TaskState::Assigned);
    let mut ephemeral = bench.new_task();
    ephemeral.ephemeral = true;
    ephemeral.parts = Some(altered(&[("a", &[])], |plan| {
        plan.nodes[0].approval = Some(NodePoint::After)
    }));
    assert_eq!(bench.submit(vec![ephemeral]).unwrap_err().reason, Reason::InvalidInput);
}

#[test]
fn a_node_that_is_to_be_planned_is_given_its_note() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.plan = true;
        task.notes = vec![note("a.md"), note("b.md")];
    });
    let plan = altered(&[("a", &[])], |plan| {
        plan.nodes[0].plan = true;
        plan.nodes[0].roles = ["plan".parse().unwrap()].into();
        plan.nodes[0].note = Some("b.md".into());
    });
    bench.end(id, End::Finished(Outcome::Plan(plan)));
    let a = bench.child(id, "a");
    assert_eq!(bench.lease(a).agent, bench.agent("planner"));
    assert_eq!(
        bench.given(a).0,
        Call::Plan {
            notes: vec![note("b.md")]
        }
    );
}

#[test]
fn fuel_is_split_and_ends_what_has_used_up_its_share() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.budget = Some(Fuel(60));
        task.parts = Some(altered(&[("a", &[]), ("b", &["a"])], |plan| {
            plan.nodes.iter_mut().for_each(|node| node.max_retries = Some(9));
        }));
    });
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    assert_eq!([id, a, b].map(|task| bench.record(task).budget), [Some(Fuel(20)); 3]);
    // Every attempt here burns ten.
    for left in [20, 10] {
        assert_eq!(bench.given(a).1.fuel, Some(Fuel(left)));
        let stopped = End::Stopped {
            reason: Reason::FuelExhausted,
            message: "no fuel".into(),
        };
        bench.end(a, stopped);
        bench.pass(10_000);
    }
    let failure = bench.record(a).failure.unwrap();
    assert_eq!(
        (bench.is(a), failure.reason),
        (TaskState::Failed, Reason::BudgetExhausted)
    );
    assert_eq!(bench.is(id), TaskState::Failed);
}

#[test]
fn a_plan_for_which_no_fuel_is_left_is_refused() {
    let mut bench = Bench::new();
    let id = bench.task(|task| (task.plan, task.budget) = (true, Some(Fuel(12))));
    bench.end(id, End::Finished(plan(&[("a", &[]), ("b", &[]), ("c", &[])])));
    assert_eq!(bench.record(id).failure.unwrap().reason, Reason::BudgetExhausted);
}

#[test]
fn a_given_plan_is_carried_out_again_when_its_result_is_sent_back() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.check = true;
        task.parts = Some(altered(&[("a", &[])], |_| ()));
    });
    let first = bench.child(id, "a");
    bench.done(first);
    assert_eq!(bench.is(id), TaskState::Verifying);
    bench.end(id, End::Finished(Outcome::Rejected("once more".into())));
    let second = bench.child(id, "a");
    assert_ne!(first, second);
    bench.done(second);
    bench.end(id, End::Finished(Outcome::Accepted));
    assert_eq!(bench.record(id).result, Some(text("output")));
}

#[test]
fn a_crew_has_people_approve_what_its_plans_say_nothing_of() {
    let manifest = format!("{CREW}[approvals]\nbefore = [\"deploy\"]\nafter = [\"work\"]\n");
    let mut bench = Bench::of(&manifest);
    let work = ["work".parse().unwrap()];
    let id = bench.task(|task| {
        task.roles = work.clone().into();
        task.parts = Some(altered(&[("a", &[])], |_| ()));
    });
    let a = bench.child(id, "a");
    assert_eq!((bench.is(id), bench.is(a)), (TaskState::Waiting, TaskState::Assigned));
    bench.done(a);
    assert_eq!(
        bench.is(a),
        TaskState::AwaitingApproval,
        "its result is asked about, not its run"
    );
    // What anybody may do may be done by whoever is meant.
    let anybody = bench.task(|_| ());
    assert_eq!(bench.is(anybody), TaskState::AwaitingApproval);
    let planned = bench.task(|task| {
        task.plan = true;
        task.roles = ["plan".parse().unwrap()].into();
    });
    assert_eq!(bench.is(planned), TaskState::Assigned);
    let mut ephemeral = bench.new_task();
    ephemeral.ephemeral = true;
    ephemeral.roles = work.into();
    assert_eq!(bench.submit(vec![ephemeral]).unwrap_err().reason, Reason::InvalidInput);
    let points = |task| bench.record(task).points.unwrap();
    assert_ne!(points(a).after, points(anybody).after);
}

#[test]
fn a_plan_that_does_not_fit_in_a_frame_is_no_draft() {
    let mut bench = orderly();
    let id = bench.task(|task| task.plan = true);
    let heavy = altered(&[("a", &[]), ("b", &[]), ("c", &[])], |plan| {
        plan.nodes
            .iter_mut()
            .for_each(|node| node.input = Payload::Inline(vec![0; 200 << 10]));
    });
    bench.end(id, End::Finished(Outcome::Plan(heavy)));
    let failure = bench.record(id).failure.unwrap();
    assert!(
        failure.message.contains("put large inputs in artifacts"),
        "{}",
        failure.message
    );
}

#[test]
fn outputs_that_make_an_input_too_large_end_the_task() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.parts = Some(altered(&[("a", &[]), ("b", &[]), ("c", &[])], |plan| {
            let slot = |node: &str| Slot {
                field: node.into(),
                node: node.parse().unwrap(),
                schema: None,
            };
            plan.nodes[2].input = text("");
            plan.nodes[2].slots = vec![slot("a"), slot("b")];
        }));
    });
    let large = || End::Finished(Outcome::Done(text(&"x".repeat(150 << 10))));
    for name in ["a", "b"] {
        let part = bench.child(id, name);
        bench.end(part, large());
    }
    let failure = bench.record(bench.child(id, "c")).failure.unwrap();
    assert_eq!(
        (bench.is(id), failure.reason),
        (TaskState::Failed, Reason::InvalidInput)
    );
    assert!(failure.message.contains("larger than 256 KiB"), "{}", failure.message);
}
