//! Children that a run spawns, and what it waits for between two attempts.

use skep_rules::{
    command::Command,
    id::TaskId,
    lifecycle::Timeouts,
    limits::{
        LEASE, MAX_AWAIT, MAX_AWAITED, MAX_ENDS_BYTES, MAX_PAYLOAD_BYTES, MAX_RETRIES, MAX_ROLES, MAX_SLEEP,
        MAX_TASK_DEPTH, MAX_TEXT_BYTES,
    },
    plan::{Outcome, Payload, Retry},
    priority::Priority,
    quantity::{Fuel, Millis, Size},
    reason::Reason,
    retry::Policy,
    seam::{DependencyEnd, End, Lease, StepReply, Usage},
    step::{Child, StepCall, StepResult},
    task::TaskState,
};

use crate::{
    bench::{Bench, text},
    stepping::{STEPPERS, child, children, get},
};

fn refused(reason: Reason) -> StepResult {
    StepResult::refused(reason)
}

fn failed() -> End {
    End::Finished(Outcome::Failed {
        message: "no".into(),
        retry: Retry::Never,
    })
}

/// A parent and children that have not begun: the parent has one stepper, and the other is busy.
fn family(size: usize) -> (Bench, TaskId, Vec<TaskId>) {
    let mut bench = Bench::stepping();
    let parent = bench.task(|_| {});
    let others = (0..size).map(|_| bench.spawn(parent)).collect();
    (bench, parent, others)
}

#[test]
fn a_parent_says_how_urgent_a_child_is_and_how_it_is_tried_again() {
    let (mut bench, parent, _) = family(0);
    let asked = Child {
        priority: Some(Priority::Critical),
        retry: Policy {
            cap: Some(Millis(9_000)),
            ..Policy::default()
        },
        timeouts: Timeouts {
            start_to_close: Some(Millis(5)),
            ..Timeouts::default()
        },
        ..child()
    };
    let StepResult::Spawned(id) = bench.answer(parent, StepCall::Spawn(asked.clone())) else {
        unreachable!()
    };
    let task = bench.record(id);
    assert_eq!(
        (task.priority, task.retry, task.timeouts),
        (Priority::Critical, asked.retry.clone(), asked.timeouts)
    );
    let bad = Child {
        retry: Policy {
            jitter: Some(51),
            ..Policy::default()
        },
        ..asked
    };
    assert_eq!(
        bench.answer(parent, StepCall::Spawn(bad)),
        refused(Reason::InvalidInput)
    );
}

#[test]
fn what_was_burned_before_a_wait_is_billed_when_its_instance_is_dropped() {
    let mut bench = Bench::stepping();
    let id = bench.task(|task| task.budget = Some(Fuel(100)));
    let lease = bench.lease(id);
    bench.waits(
        id,
        StepCall::Sleep {
            until: bench.now.after(Millis(9_000)),
        },
    );
    let usage = Usage {
        fuel: Fuel(30),
        peak_memory: Size(7),
        ..Usage::default()
    };
    let denials = Vec::new();
    let evicted = |lease| Command::AttemptEvicted {
        lease,
        usage,
        denials: denials.clone(),
    };
    bench.ask(evicted(lease)).unwrap();
    let agent = bench.state().agent(lease.agent).unwrap().fuel;
    assert_eq!((bench.record(id).fuel, agent), (Fuel(30), Fuel(30)));
    assert_eq!(bench.is(id), TaskState::Waiting, "that is all");
    bench.pass(9_000);
    assert_eq!(bench.given(id).1.fuel, Some(Fuel(70)), "what is left");
    // Of a task that is gone there is nobody to bill.
    let gone = Lease {
        task: TaskId::new(1, 0),
        ..lease
    };
    bench.ask(evicted(gone)).unwrap();
}

#[test]
fn a_child_is_a_task_of_its_parents_tree() {
    let (mut bench, parent, mut spawned) = family(1);
    let id = spawned.remove(0);
    let (parent, task) = (bench.record(parent), bench.record(id));
    assert_eq!((task.parent, task.root, task.depth), (Some(parent.id), parent.id, 2));
    assert_eq!(
        (task.crew, task.by.as_str(), task.description.as_str()),
        (parent.crew, "tests", "a child")
    );
    assert_eq!((task.max_retries, task.input), (0, text("part")));
    assert_eq!(
        task.state,
        TaskState::Assigned,
        "handed out in the decision that made it"
    );
    assert_eq!((parent.children, parent.nodes), (vec![id], 1));
    // Its failure is nobody's but its own.
    bench.end(id, failed());
    assert_eq!(
        (bench.is(id), bench.is(parent.id)),
        (TaskState::Failed, TaskState::Running)
    );
    assert_ne!(task.seed, parent.seed);
}

#[test]
fn an_await_hands_over_no_more_than_one_call_can() {
    let mut bench = Bench::stepping_as(&STEPPERS.replace("children = 5", "children = 50"));
    let parent = bench.task(|_| {});
    let large = || End::Finished(Outcome::Done(Payload::Inline(vec![7; MAX_PAYLOAD_BYTES])));
    let most = MAX_ENDS_BYTES / MAX_PAYLOAD_BYTES;
    let mut ended: Vec<TaskId> = Vec::new();
    for _ in 0..most {
        let child = bench.spawn(parent);
        bench.end(child, large());
        ended.push(child);
    }
    assert_eq!(
        bench.answer(parent, children(&ended, true, None)),
        StepResult::Ended(ended.clone())
    );
    // One more, also where it comes while the run waits for it.
    let last = bench.spawn(parent);
    ended.push(last);
    bench.waits(parent, children(&ended, true, None));
    bench.end(last, large());
    assert_eq!(bench.results_of(parent).last(), Some(&refused(Reason::BudgetExhausted)));
    let all = children(&ended, false, None);
    assert_eq!(bench.answer(parent, all), refused(Reason::BudgetExhausted));
    assert_eq!(
        bench.answer(parent, children(&[last], true, None)),
        StepResult::Ended(vec![last])
    );
}

#[test]
fn a_spawn_out_of_bounds_is_refused() {
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    let roles = |count: usize| (0..count).map(|n| format!("role-{n}").parse().unwrap()).collect();
    let cases = [
        (
            Child {
                description: long,
                ..child()
            },
            Reason::InvalidInput,
        ),
        (
            Child {
                input: Payload::Inline(vec![0; (256 << 10) + 1]),
                ..child()
            },
            Reason::InvalidInput,
        ),
        (
            Child {
                roles: roles(MAX_ROLES + 1),
                ..child()
            },
            Reason::InvalidInput,
        ),
        (
            Child {
                max_retries: Some(MAX_RETRIES + 1),
                ..child()
            },
            Reason::InvalidInput,
        ),
        (
            Child {
                roles: ["nobody".parse().unwrap()].into(),
                ..child()
            },
            Reason::NotFound,
        ),
    ];
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    for (asked, reason) in cases {
        assert_eq!(bench.answer(id, StepCall::Spawn(asked)), refused(reason), "{reason}");
    }
    let (lease, other) = (bench.lease(id), bench.task(|_| {}));
    for (drawn, reason) in [(None, Reason::InvalidInput), (Some(other), Reason::Overloaded)] {
        let number = bench.record(id).steps;
        let StepReply::Recorded(recorded) = bench.step_with(lease, number, StepCall::Spawn(child()), drawn) else {
            unreachable!("it is on record")
        };
        assert_eq!(recorded.step.result, refused(reason));
    }
    assert!(bench.record(id).children.is_empty());
}

#[test]
fn a_child_that_nobody_could_check_is_not_made() {
    let crew = STEPPERS.split("[[agent]]\n    name = \"checker\"").next().unwrap();
    let mut bench = Bench::stepping_as(crew);
    let id = bench.task(|_| {});
    let checked = Child { check: true, ..child() };
    assert_eq!(bench.answer(id, StepCall::Spawn(checked)), refused(Reason::NotFound));
}

#[test]
fn children_and_depth_have_a_budget() {
    let (mut bench, parent, _) = family(5);
    assert_eq!(
        bench.answer(parent, StepCall::Spawn(child())),
        refused(Reason::BudgetExhausted)
    );
    // Another run has the budget again, and what it had spawned is not counted twice.
    for _ in 0..3 {
        bench.end(parent, End::Finished(Outcome::Continue(text("more"))));
        for _ in 0..5 {
            bench.spawn(parent);
        }
        assert_eq!(bench.record(parent).nodes, 5);
    }

    let mut bench = Bench::stepping_as(&STEPPERS.replace("replicas = 2", "replicas = 9"));
    let mut id = bench.task(|_| {});
    for _ in 1..MAX_TASK_DEPTH {
        id = bench.spawn(id);
    }
    assert_eq!(
        bench.answer(id, StepCall::Spawn(child())),
        refused(Reason::BudgetExhausted)
    );

    let mut bench = Bench::stepping_as(&STEPPERS.replace("children = 5", "children = 0"));
    let id = bench.task(|_| {});
    assert_eq!(
        bench.answer(id, StepCall::Spawn(child())),
        refused(Reason::BudgetExhausted)
    );
}

#[test]
fn what_cannot_be_awaited_is_refused() {
    let (mut bench, parent, mine) = family(2);
    let stranger = bench.task(|_| {});
    let grandchild = bench.spawn(mine[0]);
    let late = Some(MAX_AWAIT.0 + 1);
    let cases = [
        (vec![], None, Reason::InvalidInput),
        (vec![mine[0]; MAX_AWAITED + 1], None, Reason::InvalidInput),
        (vec![parent], None, Reason::InvalidInput),
        (vec![mine[0], parent], None, Reason::InvalidInput),
        (mine.clone(), late, Reason::InvalidInput),
        (vec![TaskId::new(1, 0)], None, Reason::NotFound),
        (vec![mine[0], stranger], None, Reason::NotFound),
        (vec![grandchild], None, Reason::NotFound),
    ];
    for (tasks, timeout, reason) in cases {
        for all in [true, false] {
            let call = children(&tasks, all, timeout);
            assert_eq!(bench.answer(parent, call.clone()), refused(reason), "{call:?}");
        }
    }
    // A child of the run before is not this one's.
    bench.end(parent, End::Finished(Outcome::Continue(text("more"))));
    assert_eq!(
        bench.answer(parent, children(&mine, true, None)),
        refused(Reason::NotFound)
    );
    for until in [MAX_SLEEP.0 + 1, u64::MAX - bench.now.0] {
        let until = bench.now.after(Millis(until));
        assert_eq!(
            bench.answer(parent, StepCall::Sleep { until }),
            refused(Reason::InvalidInput)
        );
    }
}

#[test]
fn what_has_come_is_answered_at_once() {
    let (mut bench, parent, mine) = family(2);
    let (a, b) = (mine[0], mine[1]);
    let ended = StepResult::Ended;
    assert_eq!(bench.answer(parent, children(&[a, b], false, Some(0))), ended(vec![]));
    bench.done(a);
    assert_eq!(bench.answer(parent, children(&[b, a], false, None)), ended(vec![a]));
    assert_eq!(bench.answer(parent, children(&[b, a], true, Some(0))), ended(vec![a]));
    bench.end(b, failed());
    let recorded = bench.recorded_step(parent, children(&[b, a, b], true, None));
    assert_eq!(
        recorded.step.result,
        ended(vec![b, a, b]),
        "in the order asked, as often as asked"
    );
    let failed = DependencyEnd {
        name: b.to_string(),
        output: Err(Reason::Error),
        skipped: false,
    };
    let done = DependencyEnd {
        name: a.to_string(),
        output: Ok(text("output")),
        skipped: false,
    };
    assert_eq!(recorded.ends, vec![failed.clone(), done, failed]);
    for until in [bench.now, skep_rules::quantity::Time(0)] {
        assert_eq!(bench.answer(parent, StepCall::Sleep { until }), StepResult::Done);
    }
    assert_eq!(bench.is(parent), TaskState::Running);
}

/// A run waits like this, then these children end: which end wakes it, and what it is told.
#[test]
fn a_wait_is_over_in_the_decision_that_brings_its_last_end() {
    // The order in which children are awaited, whether for all, how many ends it takes, and what it is told then.
    let cases: [(&[usize], bool, usize, &[usize]); 7] = [
        (&[0, 1, 2], true, 3, &[0, 1, 2]),
        (&[2, 1, 0], true, 3, &[2, 1, 0]),
        (&[0, 1, 2], false, 1, &[0]),
        (&[2, 0], false, 1, &[0]),
        (&[1], true, 2, &[1]),
        (&[1, 1, 0, 1], true, 2, &[1, 1, 0, 1]),
        (&[1, 1], false, 2, &[1, 1]),
    ];
    for (awaited, all, wakes, told) in cases {
        let (mut bench, parent, mine) = family(3);
        let ids = |of: &[usize]| of.iter().map(|at| mine[*at]).collect::<Vec<_>>();
        bench.waits(parent, children(&ids(awaited), all, None));
        for (count, child) in (1..).zip(&mine) {
            assert_eq!(bench.is(parent), TaskState::Waiting, "{awaited:?}");
            bench.done(*child);
            if count == wakes {
                break;
            }
        }
        assert_eq!(bench.is(parent), TaskState::Assigned, "{awaited:?} {all}");
        assert_eq!((bench.recorded(parent), bench.record(parent).wait), (4, None));
        assert_eq!(bench.results_of(parent).last(), Some(&StepResult::Ended(ids(told))));
        // It goes on where it was.
        bench.answer(parent, get("a"));
        assert_eq!(bench.record(parent).attempts, 2);
    }
}

#[test]
fn whoever_waits_holds_no_slot_and_no_lease() {
    let (mut bench, parent, mine) = family(2);
    let lease = bench.lease(parent);
    bench.waits(parent, children(&mine, true, None));
    assert_eq!(
        (bench.is(parent), bench.record(parent).held),
        (TaskState::Waiting, None)
    );
    assert!(
        mine.iter().all(|id| bench.is(*id) == TaskState::Assigned),
        "its slot is theirs"
    );
    assert_eq!(bench.step_by(lease, 3, get("a")), StepReply::Fenced);
    assert_eq!(bench.end_of(lease, failed(), vec![]), skep_rules::decide::Reply::Fenced);
    // Hours later nothing has happened to it.
    for id in &mine {
        bench.started(*id);
    }
    for _ in 0..4 {
        let beats = mine.iter().map(|id| skep_rules::seam::Beat {
            lease: bench.lease(*id),
            crossings: 0,
            fuel: skep_rules::quantity::Fuel(0),
            percent: None,
        });
        let beats: Vec<_> = beats.collect();
        bench.pass(LEASE.0 - 1);
        bench.shard.beats(bench.now, &beats);
    }
    assert_eq!(bench.is(parent), TaskState::Waiting);
}

#[test]
fn time_ends_a_wait_with_what_there_is() {
    let (mut bench, parent, mine) = family(2);
    bench.waits(parent, children(&mine, true, Some(50)));
    assert_eq!(
        bench.record(parent).wait.unwrap().until,
        Some(bench.now.after(Millis(50)))
    );
    assert!(bench.shard.next_wake(bench.now).unwrap() <= bench.now.after(Millis(50)));
    bench.done(mine[1]);
    bench.pass(49);
    assert_eq!(bench.is(parent), TaskState::Waiting);
    bench.pass(1);
    assert_eq!(bench.is(parent), TaskState::Assigned);
    assert_eq!(bench.results_of(parent).last(), Some(&StepResult::Ended(vec![mine[1]])));
    // The longest that is allowed.
    bench.waits(parent, children(&mine, true, Some(MAX_AWAIT.0)));

    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let until = bench.now.after(MAX_SLEEP);
    bench.waits(id, StepCall::Sleep { until });
    let agent = bench.record(id).last_agent;
    bench.pass(MAX_SLEEP.0 - 1);
    assert_eq!(bench.is(id), TaskState::Waiting);
    bench.pass(1);
    assert_eq!(
        (bench.is(id), bench.results_of(id)),
        (TaskState::Assigned, vec![StepResult::Done])
    );
    assert_eq!(bench.steps_of(id, 0)[0].at, until);
    assert_eq!(
        bench.record(id).last_agent,
        agent,
        "who may have kept it is asked first"
    );
}

#[test]
fn a_wait_survives_the_host() {
    let (mut bench, parent, mine) = family(1);
    bench.waits(parent, children(&mine, true, Some(3_600_000)));
    bench.start_with(parent, |_| {});
    assert_eq!(
        (bench.is(parent), bench.is(mine[0])),
        (TaskState::Waiting, TaskState::Assigned)
    );
    bench.done(mine[0]);
    assert_eq!(bench.is(parent), TaskState::Assigned);
}

#[test]
fn cancel_drain_and_a_failed_tree_end_what_waits_and_its_children() {
    let (mut bench, parent, mine) = family(2);
    let grandchild = bench.spawn(mine[0]);
    bench.waits(mine[0], children(&[grandchild], true, None));
    bench.waits(parent, children(&mine, true, None));
    let by = "tests".to_owned();
    bench.ask(Command::CancelTask { task: parent, by }).unwrap();
    for id in [parent, mine[0], mine[1], grandchild] {
        assert_eq!((bench.is(id), bench.record(id).wait), (TaskState::Cancelled, None));
    }
    assert_eq!(bench.state().live_tasks(), 0);

    let (mut bench, parent, mine) = family(3);
    bench.waits(parent, children(&mine, true, None));
    let (crew, by) = (bench.crew, "tests".to_owned());
    bench.ask(Command::DrainCrew { crew, by }).unwrap();
    assert_eq!(bench.is(parent), TaskState::Cancelled);
    // What runs goes with the run that spawned it.
    assert!(mine.iter().all(|id| bench.is(*id) == TaskState::Cancelled));

    let mut bench = Bench::stepping();
    let objective = bench.task(|task| task.plan = true);
    bench.end(objective, End::Finished(crate::bench::plan(&[("a", &[]), ("b", &[])])));
    let (a, b) = (bench.child(objective, "a"), bench.child(objective, "b"));
    let part = bench.spawn(a);
    bench.waits(a, children(&[part], true, None));
    assert_eq!(bench.is(part), TaskState::Assigned);
    bench.end(b, failed());
    assert_eq!(
        (bench.is(a), bench.is(part)),
        (TaskState::Skipped, TaskState::Cancelled)
    );
    assert_eq!(bench.is(objective), TaskState::Failed);
}

#[test]
fn nothing_is_spawned_into_a_tree_that_has_failed() {
    let mut bench = Bench::stepping();
    let objective = bench.task(|task| task.plan = true);
    let parts = crate::bench::plan(&[("a", &[]), ("b", &[])]);
    bench.end(objective, End::Finished(parts));
    let (a, b) = (bench.child(objective, "a"), bench.child(objective, "b"));
    bench.end(b, failed());
    assert_eq!(bench.is(a), TaskState::Assigned, "what runs is let finish");
    let part = bench.spawn(a);
    assert_eq!(bench.is(part), TaskState::Skipped);
    let recorded = bench.recorded_step(a, children(&[part], true, None));
    assert_eq!(recorded.step.result, StepResult::Ended(vec![part]));
    assert!(recorded.ends[0].skipped);
    // It must not wait either.
    bench.waits(
        a,
        StepCall::Sleep {
            until: bench.now.after(Millis(9)),
        },
    );
    assert_eq!(
        (bench.is(a), bench.is(objective)),
        (TaskState::Skipped, TaskState::Failed)
    );
}
