//! How often tasks are tried, how long they may take, what people ask of them, and in which order they have their turn.

use skep_rules::{
    approval::Points,
    audit::Kind,
    command::Command,
    decide::Reply,
    facts::Facts,
    id::{ApprovalId, TaskId},
    lifecycle::{Hold, OnFailure, Request, Timeouts},
    limits::{MAX_CHECK_ROUNDS, MAX_DEAD_LETTERS, MAX_HISTORY, MAX_HOST_FAULTS},
    plan::{Outcome, Plan, Retry},
    priority::Priority,
    quantity::Millis,
    reason::Reason,
    rejection::Rejection,
    retry::{OnExhausted, Policy},
    seam::{End, RunnerCommand},
    step::StepCall,
    task::TaskState,
};

use crate::{
    approvals::{blocker, points, ruling},
    bench::{Bench, CREW, plan, text},
};

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

/// A crew with so many workers.
fn workers(count: u32) -> Bench {
    let worker = format!("\"acme/worker@1.0.0\"\nreplicas = {count}");
    Bench::of(&CREW.replacen("\"acme/worker@1.0.0\"", &worker, 1))
}

fn exhausting(on_exhausted: Option<OnExhausted>) -> Policy {
    Policy {
        on_exhausted,
        ..Policy::default()
    }
}

impl Bench {
    pub(crate) fn request(&mut self, task: TaskId, request: Request) -> Result<Reply, Rejection> {
        self.change(task, request, None)
    }

    fn change(&mut self, task: TaskId, request: Request, revision: Option<u64>) -> Result<Reply, Rejection> {
        let known = [(task, self.record(task))].into();
        let facts = Facts {
            tasks: known,
            ..Facts::default()
        };
        let command = Command::ChangeTask {
            task,
            request,
            revision,
            by: "a person".into(),
        };
        self.ask_with(&facts, command)
    }

    /// Fails every attempt until the task is not tried again, and says how many there were.
    fn wear_out(&mut self, task: TaskId, end: &End) -> u32 {
        let mut attempts = 0;
        loop {
            self.end(task, end.clone());
            attempts += 1;
            match self.record(task).not_before {
                Some(at) if self.is(task) == TaskState::RetryWait => self.pass(at.since(self.now).0),
                _ => return attempts,
            }
        }
    }

    pub(crate) fn redrive(&mut self, dead: TaskId) -> Result<TaskId, Rejection> {
        let letter = self.record(dead);
        let (id, seed) = (TaskId::new(self.draw(), 0), 8);
        let dependencies = letter.dependencies.clone();
        let mut anew = |id: Option<ApprovalId>| id.map(|_| ApprovalId::new(self.draw(), 0));
        let points = letter.points.map(|points| Points {
            before: anew(points.before),
            after: anew(points.after),
            ..points
        });
        let known = dependencies.iter().map(|id| (*id, self.record(*id)));
        let facts = Facts {
            tasks: known.chain([(dead, letter)]).collect(),
            ..Facts::default()
        };
        let command = Command::RedriveTask {
            task: dead,
            dependencies,
            id,
            seed,
            by: "a person".into(),
            points,
        };
        self.ask_with(&facts, command).map(|_| id)
    }

    fn reason(&self, task: TaskId) -> Option<Reason> {
        self.record(task).failure.map(|failure| failure.reason)
    }
}

fn timed(alter: impl FnOnce(&mut Timeouts)) -> Timeouts {
    let mut timeouts = Timeouts::default();
    alter(&mut timeouts);
    timeouts
}

#[test]
fn retries_give_exactly_one_execution_more() {
    for (retries, executions) in [(0, 1), (1, 2), (3, 4)] {
        let mut bench = Bench::new();
        let id = bench.task(|task| task.max_retries = Some(retries));
        assert_eq!(bench.wear_out(id, &failed(Retry::Later)), executions);
        assert_eq!(
            (bench.is(id), bench.record(id).attempts),
            (TaskState::Failed, executions)
        );
    }
    let mut bench = Bench::new();
    let usual = bench.task(|_| {});
    assert_eq!(
        bench.wear_out(usual, &failed(Retry::Later)),
        4,
        "three retries unless said"
    );
}

/// What a policy says, how the attempts end, and where the task is after, why, and after how many executions.
#[test]
fn what_becomes_of_a_task_that_is_worn_out() {
    use OnExhausted::{DeadLetter, Fail, Pause};
    let traps = || stopped(Reason::Trapped);
    let denied = || stopped(Reason::CapabilityDenied);
    let never = || failed(Retry::Never);
    let fault = || End::HostFault { message: "ours".into() };
    let (faults, retried) = (MAX_HOST_FAULTS + 1, 2);
    let cases: Vec<(Option<OnExhausted>, End, TaskState, Reason, u32)> = vec![
        (None, traps(), TaskState::Paused, Reason::Trapped, retried),
        (Some(Pause), traps(), TaskState::Paused, Reason::Trapped, retried),
        (Some(Fail), traps(), TaskState::Failed, Reason::Trapped, retried),
        (
            Some(DeadLetter),
            traps(),
            TaskState::Failed,
            Reason::DeadLetter,
            retried,
        ),
        // Another attempt would not help, so nobody is asked for one.
        (None, denied(), TaskState::Failed, Reason::CapabilityDenied, 1),
        (Some(Pause), never(), TaskState::Failed, Reason::Error, 1),
        (Some(DeadLetter), never(), TaskState::Failed, Reason::DeadLetter, 1),
        (None, fault(), TaskState::Paused, Reason::HostFault, faults),
        (Some(Fail), fault(), TaskState::Failed, Reason::HostFault, faults),
    ];
    for (on_exhausted, end, state, reason, executions) in cases {
        let mut bench = Bench::new();
        let id = bench.task(|task| {
            task.max_retries = Some(1);
            task.retry = exhausting(on_exhausted);
        });
        let what = format!("{on_exhausted:?} {end:?}");
        assert_eq!(bench.wear_out(id, &end), executions, "{what}");
        assert_eq!((bench.is(id), bench.reason(id)), (state, Some(reason)), "{what}");
        assert_eq!(u32::try_from(bench.record(id).history.len()), Ok(executions), "{what}");
    }
}

#[test]
fn only_what_a_person_submitted_waits_for_one() {
    let mut bench = Bench::new();
    let ephemeral = bench.task(|task| {
        task.ephemeral = true;
        task.max_retries = Some(0);
        task.retry = Policy::default();
    });
    bench.end(ephemeral, stopped(Reason::Trapped));
    assert_eq!(bench.is(ephemeral), TaskState::Failed, "it would not outlive the host");
    let parent = bench.task(|task| {
        task.plan = true;
        task.retry = Policy::default();
    });
    bench.end(parent, End::Finished(plan(&[("a", &[])])));
    let child = bench.child(parent, "a");
    bench.end(child, stopped(Reason::Trapped));
    assert_eq!(
        (bench.is(child), bench.is(parent)),
        (TaskState::Failed, TaskState::Failed)
    );
}

#[test]
fn reasons_that_the_policy_names_are_not_tried_again() {
    for (reason, state) in [
        (Reason::FuelExhausted, TaskState::Failed),
        (Reason::Error, TaskState::Failed),
        (Reason::Trapped, TaskState::RetryWait),
    ] {
        let mut bench = Bench::new();
        let id = bench.task(|task| task.retry.not_again = [Reason::FuelExhausted, Reason::Error].into());
        let end = match reason {
            Reason::Error => failed(Retry::After(Millis(5))),
            reason => stopped(reason),
        };
        bench.end(id, end);
        assert_eq!(bench.is(id), state, "{reason}");
    }
}

#[test]
fn the_delays_are_those_of_the_policy() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.retry = Policy {
            initial: Some(Millis(50)),
            factor: Some(300),
            cap: Some(Millis(200)),
            jitter: Some(0),
            ..task.retry.clone()
        };
    });
    for delay in [50, 150, 200] {
        bench.end(id, failed(Retry::Later));
        assert_eq!(bench.record(id).not_before, Some(bench.now.after(Millis(delay))));
        bench.pass(delay - 1);
        assert_eq!(bench.is(id), TaskState::RetryWait);
        bench.pass(1);
        assert_eq!(bench.is(id), TaskState::Assigned);
    }
}

#[test]
fn what_cannot_be_a_policy_or_a_timeout_is_refused() {
    let mut bench = Bench::new();
    let mut refused = |alter: &dyn Fn(&mut skep_rules::command::NewTask)| {
        let mut task = bench.new_task();
        alter(&mut task);
        bench.submit(vec![task]).unwrap_err().reason
    };
    assert_eq!(
        refused(&|task| task.retry.initial = Some(Millis(0))),
        Reason::InvalidInput
    );
    assert_eq!(refused(&|task| task.retry.factor = Some(1)), Reason::InvalidInput);
    assert_eq!(refused(&|task| task.retry.jitter = Some(100)), Reason::InvalidInput);
    let timeouts = timed(|timeouts| timeouts.schedule_to_close = Some(Millis(0)));
    assert_eq!(refused(&|task| task.timeouts = timeouts), Reason::InvalidInput);
    let kept = |task: &mut skep_rules::command::NewTask| {
        task.ephemeral = true;
        task.retry.on_exhausted = Some(OnExhausted::DeadLetter);
    };
    assert_eq!(refused(&kept), Reason::InvalidInput);
}

#[test]
fn a_worn_out_task_has_all_its_attempts_again_when_a_person_says_so() {
    for request in [Request::Retry, Request::Resume] {
        let mut bench = Bench::new();
        let id = bench.task(|task| {
            task.max_retries = Some(1);
            task.retry = Policy::default();
        });
        assert_eq!(bench.wear_out(id, &stopped(Reason::Trapped)), 2);
        assert_eq!(bench.record(id).hold, Some(Hold::Exhausted));
        bench.request(id, request.clone()).unwrap();
        let task = bench.record(id);
        assert_eq!(
            (task.state, task.retries, task.hold),
            (TaskState::Assigned, 0, None),
            "{request:?}"
        );
        assert_eq!(bench.wear_out(id, &stopped(Reason::Trapped)), 2, "{request:?}");
        bench.request(id, request).unwrap();
        bench.done(id);
        assert_eq!((bench.is(id), bench.record(id).failure), (TaskState::Completed, None));
        assert_eq!(bench.record(id).history.len(), 4);
    }
}

#[test]
fn a_check_that_is_worn_out_keeps_the_result() {
    let mut bench = Bench::new();
    let id = bench.task(|task| {
        task.check = true;
        task.max_retries = Some(0);
        task.retry = Policy::default();
    });
    bench.done(id);
    bench.end(id, stopped(Reason::Trapped));
    assert_eq!(
        (bench.is(id), bench.record(id).candidate),
        (TaskState::Paused, Some(text("output")))
    );
    bench.request(id, Request::Retry).unwrap();
    assert_eq!(bench.is(id), TaskState::Verifying);
    bench.end(id, End::Finished(Outcome::Accepted));
    assert_eq!(bench.record(id).result, Some(text("output")));
}

#[test]
fn the_history_is_that_of_the_newest_attempts() {
    let mut bench = Bench::new();
    let id = bench.task(|task| task.max_retries = Some(20));
    assert_eq!(bench.wear_out(id, &failed(Retry::Later)), 21);
    let history = bench.record(id).history;
    let epochs: Vec<u64> = history.iter().map(|past| past.epoch).collect();
    assert_eq!(
        (history.len(), epochs.first(), epochs.last()),
        (MAX_HISTORY, Some(&6), Some(&21))
    );
    assert!(history.iter().all(|past| past.failure.reason == Reason::Error));
}

#[test]
fn a_dead_letter_is_kept_and_redriven_once() {
    let mut bench = Bench::new();
    let before = bench.task(|_| {});
    bench.done(before);
    let dead = bench.task(|task| {
        task.max_retries = Some(0);
        task.retry = exhausting(Some(OnExhausted::DeadLetter));
        task.priority = Priority::High;
        task.labels = [("a".to_owned(), "b".to_owned())].into();
    });
    bench.end(dead, stopped(Reason::Trapped));
    let letter = bench.record(dead);
    let failure = letter.failure.clone().unwrap();
    assert_eq!(failure.message, "trapped: stopped", "it says why");
    assert_eq!(letter.history[0].failure.reason, Reason::Trapped);
    assert_eq!(bench.state().dead_letters().collect::<Vec<_>>(), [dead]);

    let again = bench.redrive(dead).unwrap();
    let task = bench.record(again);
    assert_eq!(
        (task.redrives, task.input, task.priority),
        (Some(dead), letter.input, Priority::High)
    );
    assert_eq!(
        (task.labels, task.retry, task.retries),
        (letter.labels, letter.retry, 0)
    );
    assert_eq!(bench.state().dead_letters().len(), 0);
    assert_eq!(bench.heard(Kind::TaskRedriven)[0].detail, again.to_string());
    assert_eq!(bench.redrive(dead).unwrap_err().reason, Reason::IllegalTransition);
    bench.done(again);
    assert_eq!(
        (bench.is(again), bench.is(dead)),
        (TaskState::Completed, TaskState::Failed)
    );
    assert_eq!(bench.redrive(before).unwrap_err().reason, Reason::IllegalTransition);
}

#[test]
fn dead_letters_are_bounded_and_survive_a_checkpoint() {
    let mut bench = Bench::new();
    let mut letters = Vec::new();
    for _ in 0..=MAX_DEAD_LETTERS {
        let id = bench.task(|task| task.retry = exhausting(Some(OnExhausted::DeadLetter)));
        bench.end(id, failed(Retry::Never));
        letters.push(id);
    }
    let kept: Vec<TaskId> = bench.state().dead_letters().collect();
    assert_eq!(kept, letters[1..], "the oldest is a failed task like any other");
    assert_eq!(bench.redrive(letters[0]).unwrap_err().reason, Reason::IllegalTransition);
    let checkpoint = bench.shard.checkpoint();
    let records = checkpoint
        .records
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let shard = skep_rules::shard::Shard::load(checkpoint.position, records).unwrap();
    assert!(shard.state().dead_letters().eq(bench.state().dead_letters()));
}

#[test]
fn a_task_that_nobody_starts_in_time_fails_at_the_boundary() {
    let mut bench = Bench::new();
    let first = bench.task(|_| {});
    let waits = bench.task(|task| task.timeouts = timed(|timeouts| timeouts.schedule_to_start = Some(Millis(500))));
    assert_eq!(
        (bench.is(first), bench.is(waits)),
        (TaskState::Assigned, TaskState::Ready)
    );
    bench.started(first);
    bench.pass(499);
    assert_eq!(bench.is(waits), TaskState::Ready);
    assert_eq!(bench.shard.next_wake(bench.now), Some(bench.now.after(Millis(1))));
    bench.pass(1);
    assert_eq!(
        (bench.is(waits), bench.reason(waits)),
        (TaskState::Failed, Some(Reason::TimedOut))
    );

    // The time begins anew each time that it is READY, and does not go on once it is leased.
    let waits = bench.task(|task| task.timeouts = timed(|timeouts| timeouts.schedule_to_start = Some(Millis(500))));
    bench.done(first);
    bench.pass(499);
    bench.end(waits, failed(Retry::After(Millis(1_000))));
    bench.pass(1_000);
    assert_eq!(bench.is(waits), TaskState::Assigned);
    bench.started(waits);
    bench.pass(10_000);
    assert_eq!(bench.is(waits), TaskState::Running);
}

/// A task that has a second from its acceptance to its end, in every state that it can be in.
#[test]
fn a_task_ends_at_its_time_whatever_it_does() {
    use TaskState::{Assigned, Paused, Pending, Ready, RetryWait, Running, Verifying, Waiting};
    for state in [Pending, Ready, Assigned, Running, Waiting, RetryWait, Verifying, Paused] {
        let mut bench = Bench::new();
        let busy = (state != Assigned).then(|| bench.task(|_| {}));
        let busy = busy.filter(|_| matches!(state, Pending | Ready));
        if busy.is_none() && state != Assigned {
            let other = bench.state().tasks().next().unwrap().id;
            bench.done(other);
        }
        let id = bench.task(|task| {
            task.timeouts = timed(|timeouts| timeouts.schedule_to_close = Some(Millis(1_000)));
            task.dependencies = busy.filter(|_| state == Pending).into_iter().collect();
            task.plan = state == Waiting;
            task.check = state == Verifying;
        });
        match state {
            Running => bench.started(id),
            Waiting => drop(bench.end(id, End::Finished(plan(&[("a", &[]), ("b", &["a"])])))),
            RetryWait => drop(bench.end(id, failed(Retry::After(Millis(60_000))))),
            Verifying => bench.done(id),
            Paused => drop(bench.request(id, Request::Pause).unwrap()),
            _ => {}
        }
        assert_eq!(bench.is(id), state);
        bench.pass(999);
        assert_eq!(bench.is(id), state);
        let held = bench.record(id).held.map(|held| held.lease);
        bench.told.clear();
        bench.pass(1);
        assert_eq!(
            (bench.is(id), bench.reason(id)),
            (TaskState::Failed, Some(Reason::TimedOut)),
            "{state}"
        );
        if let Some(lease) = held {
            assert!(bench.told.contains(&RunnerCommand::Cancel { lease }), "{state}");
        }
        for child in bench.record(id).children {
            assert_eq!(bench.is(child), TaskState::Cancelled, "its parts end with it");
        }
        assert_eq!(
            bench.heard(Kind::TaskEnded).last().unwrap().reason,
            Some(Reason::TimedOut)
                .filter(|_| state != Waiting)
                .or(Some(Reason::Cancelled))
        );
    }
}

#[test]
fn an_attempt_is_told_of_its_own_deadline_and_a_check_is_not() {
    let mut bench = Bench::new();
    let deadline = Some(Millis(250));
    let id = bench.task(|task| {
        task.timeouts = timed(|timeouts| timeouts.start_to_close = deadline);
        task.check = true;
    });
    assert_eq!(bench.given(id).1.deadline, deadline);
    bench.done(id);
    assert_eq!(bench.given(id).1.deadline, None);
}

/// What may be asked in which state, and where the task is then; what is not in the line is refused with the line.
#[test]
fn requests_are_done_where_they_are_legal_and_nowhere_else() {
    use TaskState::{
        Assigned, AwaitingApproval, Blocked, Cancelled, Completed, Failed, Paused, Pending, Ready, Rejected, RetryWait,
        Running, Skipped, Verifying, Waiting,
    };
    let result = || Request::OverrideResult {
        result: text("so it is"),
        why: "a person knows".into(),
    };
    let all = || {
        [
            Request::Cancel,
            Request::Retry,
            Request::Pause,
            Request::Resume,
            Request::Reprioritise(Priority::High),
            result(),
        ]
    };
    // In the order of `all`: where it leads, or nothing where it is refused.
    let table: &[(TaskState, [Option<TaskState>; 6])] = &[
        (
            Pending,
            [
                Some(Cancelled),
                None,
                Some(Paused),
                None,
                Some(Pending),
                Some(Completed),
            ],
        ),
        (
            Ready,
            [Some(Cancelled), None, Some(Paused), None, Some(Ready), Some(Completed)],
        ),
        (
            Assigned,
            [
                Some(Cancelled),
                None,
                Some(Paused),
                None,
                Some(Assigned),
                Some(Completed),
            ],
        ),
        (
            Running,
            [
                Some(Cancelled),
                None,
                Some(Paused),
                None,
                Some(Running),
                Some(Completed),
            ],
        ),
        (
            Waiting,
            [
                Some(Cancelled),
                None,
                Some(Paused),
                None,
                Some(Waiting),
                Some(Completed),
            ],
        ),
        // Its worker is free.
        (
            RetryWait,
            [
                Some(Cancelled),
                Some(Assigned),
                Some(Paused),
                None,
                Some(RetryWait),
                Some(Completed),
            ],
        ),
        (
            Verifying,
            [
                Some(Cancelled),
                None,
                Some(Paused),
                None,
                Some(Verifying),
                Some(Completed),
            ],
        ),
        (
            Paused,
            [
                Some(Cancelled),
                Some(Assigned),
                None,
                Some(Assigned),
                Some(Paused),
                Some(Completed),
            ],
        ),
        // What waits for an answer waits already.
        (
            AwaitingApproval,
            [
                Some(Cancelled),
                None,
                None,
                None,
                Some(AwaitingApproval),
                Some(Completed),
            ],
        ),
        (
            Blocked,
            [Some(Cancelled), None, None, None, Some(Blocked), Some(Completed)],
        ),
        (Rejected, [None; 6]),
        (Completed, [None; 6]),
        (Failed, [None; 6]),
        (Cancelled, [None; 6]),
        (Skipped, [None; 6]),
    ];
    assert_eq!(
        table
            .iter()
            .map(|(state, _)| *state)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        TaskState::ALL.len()
    );
    for (state, row) in table {
        for (request, expected) in all().into_iter().zip(row) {
            let (mut bench, id) = standing(*state);
            let before = bench.record(id);
            assert_eq!(before.state, *state);
            let what = format!("{request:?} of {state}");
            match (bench.request(id, request.clone()), expected) {
                (Ok(_), Some(to)) => assert_eq!(bench.is(id), *to, "{what}"),
                (Err(rejection), None) => {
                    let legal: Vec<&str> = all()
                        .iter()
                        .zip(row)
                        .filter(|(_, to)| to.is_some())
                        .map(|(of, _)| of.name())
                        .collect();
                    assert_eq!(
                        (rejection.reason, &rejection.legal),
                        (
                            Reason::IllegalTransition,
                            &legal.iter().map(ToString::to_string).collect()
                        ),
                        "{what}"
                    );
                    assert_eq!(bench.record(id), before, "{what}");
                }
                (got, _) => panic!("{what}: {got:?}"),
            }
        }
    }
}

/// A task in a state, on a bench of its own.
fn standing(state: TaskState) -> (Bench, TaskId) {
    if matches!(
        state,
        TaskState::AwaitingApproval | TaskState::Blocked | TaskState::Rejected
    ) {
        return asking(state);
    }
    let mut bench = Bench::new();
    let first = bench.task(|_| {});
    let id = bench.task(|task| {
        task.dependencies = match state {
            TaskState::Pending | TaskState::Skipped => vec![first],
            _ => Vec::new(),
        };
        task.plan = state == TaskState::Waiting;
        task.check = state == TaskState::Verifying;
        task.max_retries = Some(u32::from(state == TaskState::RetryWait));
        task.retry = Policy::default();
    });
    match state {
        TaskState::Pending | TaskState::Ready => return (bench, id),
        TaskState::Skipped => drop(bench.end(first, failed(Retry::Never))),
        _ => bench.done(first),
    }
    match state {
        TaskState::Running => bench.started(id),
        TaskState::Waiting => drop(bench.end(id, End::Finished(plan(&[("a", &[])])))),
        TaskState::RetryWait | TaskState::Paused => drop(bench.end(id, failed(Retry::Later))),
        TaskState::Failed => drop(bench.end(id, failed(Retry::Never))),
        TaskState::Verifying | TaskState::Completed => bench.done(id),
        TaskState::Cancelled => drop(bench.request(id, Request::Cancel).unwrap()),
        _ => {}
    }
    (bench, id)
}

fn asking(state: TaskState) -> (Bench, TaskId) {
    let mut bench = Bench::stepping();
    let points = points(&mut bench, true, false);
    let id = bench.task(|task| task.approval = points.filter(|_| state != TaskState::Blocked));
    match state {
        TaskState::Blocked => bench.waits(id, blocker("where?", None)),
        TaskState::Rejected => {
            let asked = bench.asked(id);
            bench.rule(asked.id, ruling(false, &[])).unwrap();
        }
        _ => {}
    }
    (bench, id)
}

#[test]
fn whoever_has_not_read_the_record_as_it_is_changes_nothing() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    let read = bench.record(id).revision;
    bench.started(id);
    for request in [Request::Cancel, Request::Pause, Request::Reprioritise(Priority::Low)] {
        let rejection = bench.change(id, request, Some(read)).unwrap_err();
        assert_eq!(rejection.reason, Reason::StaleRevision);
    }
    let read = bench.record(id).revision;
    bench.change(id, Request::Pause, Some(read)).unwrap();
    assert!(bench.record(id).revision > read);
}

/// A task that a person paused in a state goes on in that state.
#[test]
fn what_a_person_paused_goes_on_where_it_was() {
    use TaskState::{Assigned, Pending, Ready, RetryWait, Running, Verifying, Waiting};
    for (state, after) in [
        (Pending, Pending),
        (Ready, Ready),
        // A new lease; the run goes on.
        (Assigned, Assigned),
        (Running, Assigned),
        (Waiting, Waiting),
        (RetryWait, Assigned),
        (Verifying, Verifying),
    ] {
        let (mut bench, id) = standing(state);
        let before = bench.record(id);
        bench.request(id, Request::Pause).unwrap();
        let held = bench.record(id);
        assert_eq!((held.hold, held.held.is_none()), (Some(Hold::Person(state)), true));
        if let Some(lease) = before.held.map(|held| held.lease) {
            assert!(bench.told.contains(&RunnerCommand::Cancel { lease }));
            assert_eq!(bench.end_of(lease, End::Cancelled, vec![]), Reply::Fenced);
        }
        bench.pass(3_600_000);
        assert_eq!(bench.is(id), TaskState::Paused, "time alone does not wake it");
        bench.request(id, Request::Resume).unwrap();
        let now = bench.record(id);
        assert_eq!((now.state, now.hold, now.run), (after, None, before.run), "{state}");
        assert_eq!(
            (now.retries, now.failure.map(|of| of.reason) == Some(Reason::Paused)),
            (before.retries, false)
        );
    }
}

#[test]
fn a_pause_holds_the_whole_tree_and_loses_nothing_of_it() {
    let mut bench = workers(2);
    let parent = bench.task(|task| task.plan = true);
    bench.end(parent, End::Finished(plan(&[("a", &[]), ("b", &["a"]), ("c", &[])])));
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.child(parent, name));
    bench.request(parent, Request::Pause).unwrap();
    assert!([parent, a, b, c].iter().all(|id| bench.is(*id) == TaskState::Paused));
    // One of them is finished by hand meanwhile.
    let result = text("by hand");
    bench
        .request(
            a,
            Request::OverrideResult {
                result,
                why: "known".into(),
            },
        )
        .unwrap();
    assert_eq!((bench.is(a), bench.is(b)), (TaskState::Completed, TaskState::Paused));
    bench.request(parent, Request::Resume).unwrap();
    assert_eq!(bench.is(parent), TaskState::Waiting);
    assert_eq!((bench.is(b), bench.is(c)), (TaskState::Assigned, TaskState::Assigned));
    bench.done(b);
    bench.done(c);
    assert_eq!(bench.is(parent), TaskState::Completed);
}

#[test]
fn a_parent_that_is_held_learns_later_that_a_part_has_failed() {
    let mut bench = Bench::new();
    let parent = bench.task(|task| task.plan = true);
    bench.end(parent, End::Finished(plan(&[("a", &[]), ("b", &["a"])])));
    let a = bench.child(parent, "a");
    bench.request(parent, Request::Pause).unwrap();
    bench.request(a, Request::Resume).unwrap();
    bench.end(a, failed(Retry::Never));
    assert_eq!((bench.is(a), bench.is(parent)), (TaskState::Failed, TaskState::Paused));
    bench.request(parent, Request::Resume).unwrap();
    assert_eq!(
        (bench.is(parent), bench.reason(parent)),
        (TaskState::Failed, Some(Reason::DependencyFailed))
    );
}

#[test]
fn a_run_that_is_held_while_it_waits_hears_its_answer_when_it_goes_on() {
    let mut bench = Bench::new();
    let id = bench.task(|_| {});
    let lease = bench.lease(id);
    let until = bench.now.after(Millis(1_000));
    let call = StepCall::Sleep { until };
    bench
        .ask(Command::Step {
            lease,
            number: 0,
            call,
            child: None,
            mail: None,
        })
        .unwrap();
    assert_eq!(bench.is(id), TaskState::Waiting);
    bench.request(id, Request::Pause).unwrap();
    bench.pass(5_000);
    assert_eq!((bench.is(id), bench.record(id).steps), (TaskState::Paused, 0));
    bench.request(id, Request::Resume).unwrap();
    bench.pass(0);
    assert_eq!((bench.is(id), bench.record(id).steps), (TaskState::Assigned, 1));
}

#[test]
fn a_paused_run_goes_on_with_its_record_and_one_that_is_tried_again_does_not() {
    for (request, run, steps) in [(Request::Resume, 0, 1), (Request::Retry, 1, 0)] {
        let mut bench = Bench::new();
        let id = bench.task(|_| {});
        let lease = bench.lease(id);
        let call = StepCall::Clock { alarm: None };
        bench
            .ask(Command::Step {
                lease,
                number: 0,
                call,
                child: None,
                mail: None,
            })
            .unwrap();
        let diverged = End::Diverged {
            step: 0,
            expected: "a".into(),
            got: "b".into(),
        };
        bench.end(id, diverged);
        assert_eq!((bench.is(id), bench.record(id).hold), (TaskState::Paused, None));
        bench.request(id, request.clone()).unwrap();
        let task = bench.record(id);
        assert_eq!((task.run, task.steps), (run, steps), "{request:?}");
    }
}

#[test]
fn an_overridden_task_ends_with_what_a_person_gave() {
    let mut bench = workers(2);
    let parent = bench.task(|task| task.plan = true);
    bench.end(parent, End::Finished(plan(&[("a", &[]), ("b", &["a"])])));
    let next = bench.task(|task| task.dependencies = vec![parent]);
    let a = bench.child(parent, "a");
    let lease = bench.lease(a);
    let result = text("so it is");
    bench
        .request(
            parent,
            Request::OverrideResult {
                result: result.clone(),
                why: "we know".into(),
            },
        )
        .unwrap();
    assert_eq!(
        (bench.is(parent), bench.record(parent).result),
        (TaskState::Completed, Some(result))
    );
    assert_eq!(bench.is(a), TaskState::Cancelled, "its parts are not needed any more");
    assert!(bench.told.contains(&RunnerCommand::Cancel { lease }));
    assert_eq!(bench.is(next), TaskState::Assigned);
    let entry = bench.heard(Kind::TaskOverridden)[0];
    assert_eq!(
        (entry.detail.as_str(), entry.actor.as_deref()),
        ("we know", Some("a person"))
    );
    for why in [String::new(), "x".repeat(257)] {
        let result = text("no");
        let refused = bench
            .request(next, Request::OverrideResult { result, why })
            .unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidInput);
    }
    let result = skep_rules::plan::Payload::Inline(vec![0; (256 << 10) + 1]);
    let refused = bench.request(
        next,
        Request::OverrideResult {
            result,
            why: "no".into(),
        },
    );
    assert_eq!(refused.unwrap_err().reason, Reason::InvalidInput);
}

pub(crate) fn parts(nodes: &[(&str, &[&str])]) -> Plan {
    let Outcome::Plan(plan) = plan(nodes) else {
        unreachable!()
    };
    plan
}

/// The failure of `x`, which `top` has split into `a` and `a` into that, goes up: to `a`, then to `top`, each as often as it may be asked, then to a
/// person.
#[test]
fn a_failure_goes_up_the_path_before_it_goes_to_a_person() {
    let mut bench = workers(1);
    let top = bench.task(|task| task.on_failure = OnFailure::Escalate);
    let mut rounds = 0;
    loop {
        if bench.is(top) == TaskState::Assigned {
            bench.end(top, End::Finished(plan(&[("a", &[])])));
        }
        let a = bench.child(top, "a");
        bench.end(a, End::Finished(plan(&[("x", &[])])));
        let x = bench.child(a, "x");
        bench.end(x, failed(Retry::Never));
        rounds += 1;
        if bench.is(x) == TaskState::Paused {
            break;
        }
        if bench.is(a) == TaskState::Assigned {
            let remark = "`x` failed (error): it did not work";
            assert_eq!(bench.given(a).1.remarks.last().unwrap(), remark);
        } else {
            let remarks = bench.given(top).1.remarks;
            assert_eq!(
                remarks.last().unwrap(),
                "`a` failed (dependency-failed): `x` ended as FAILED: it did not work",
                "{remarks:?}"
            );
        }
    }
    assert_eq!(rounds, MAX_CHECK_ROUNDS.pow(2) as usize);
    assert_eq!(bench.heard(Kind::TaskEscalated).len() + 1, rounds);
    let a = bench.child(top, "a");
    assert_eq!((bench.is(top), bench.is(a)), (TaskState::Waiting, TaskState::Waiting));
    // A person gives what the part did not, and all of them go on.
    let (x, result, why) = (bench.child(a, "x"), text("by hand"), "known".into());
    bench.request(x, Request::OverrideResult { result, why }).unwrap();
    assert_eq!(
        (bench.is(top), bench.record(top).result),
        (TaskState::Completed, Some(text("by hand")))
    );
}

#[test]
fn whoever_waits_long_for_an_agent_is_told_of_once() {
    let mut bench = workers(1);
    let first = bench.task(|_| {});
    bench.pass(10_000);
    let [second, third] = [(); 2].map(|()| bench.task(|_| {}));
    let waits = |bench: &Bench| -> Vec<(Option<TaskId>, String)> {
        let heard = bench.heard(Kind::TaskWaits);
        heard.iter().map(|entry| (entry.task, entry.detail.clone())).collect()
    };
    bench.pass(29_999);
    assert_eq!(waits(&bench), [], "not yet");
    bench.pass(1);
    let mut told = vec![(Some(second), "30s for an agent".to_owned())];
    assert_eq!(waits(&bench), told);
    bench.pass(60_000);
    assert_eq!(waits(&bench), told, "once");
    // The next that has waited for too long is told of when it is the oldest.
    bench.done(first);
    bench.pass(30_000);
    assert_eq!(bench.is(second), TaskState::Assigned);
    told.push((Some(third), "2min for an agent".to_owned()));
    assert_eq!(waits(&bench), told);
    bench.done(second);
    bench.done(third);
    bench.pass(600_000);
    assert_eq!(bench.heard(Kind::TaskWaits).len(), 2);
}

#[test]
fn what_a_person_has_ended_is_not_begun_again() {
    let mut bench = workers(2);
    let top = bench.task(|task| task.on_failure = OnFailure::Escalate);
    bench.end(top, End::Finished(plan(&[("a", &[]), ("b", &[])])));
    let (a, b) = (bench.child(top, "a"), bench.child(top, "b"));
    bench.request(a, Request::Cancel).unwrap();
    bench.end(b, failed(Retry::Never));
    assert_eq!(bench.is(top), TaskState::Failed);
}

/// What becomes of a parent of `a`, `b` after `a`, and `c`, when `a` fails for good, by its policy.
#[test]
fn the_failure_of_a_part_does_what_the_policy_says() {
    use TaskState::{Assigned, Completed, Failed, Paused, Pending, Skipped, Waiting};
    for (policy, then, end) in [
        (OnFailure::FailFast, [Failed, Skipped, Assigned], Failed),
        (OnFailure::Collect, [Failed, Assigned, Assigned], Completed),
        (OnFailure::Escalate, [Paused, Pending, Assigned], Waiting),
    ] {
        let mut bench = workers(2);
        let parent = bench.task(|task| {
            task.parts = Some(parts(&[("a", &[]), ("b", &["a"]), ("c", &[])]));
            task.on_failure = policy;
        });
        let parts = ["a", "b", "c"].map(|name| bench.child(parent, name));
        let [a, b, c] = parts;
        bench.end(a, failed(Retry::Never));
        assert_eq!(parts.map(|id| bench.is(id)), then, "{policy:?}");
        bench.done(c);
        if bench.is(b) == Assigned {
            assert_eq!(
                bench.given(b).1.dependencies[0].output,
                Err(Reason::Error),
                "it is told"
            );
            bench.done(b);
        }
        assert_eq!(bench.is(parent), end, "{policy:?}");
        if policy == OnFailure::Escalate {
            // A person gives what the part did not.
            let result = text("by hand");
            bench
                .request(
                    a,
                    Request::OverrideResult {
                        result,
                        why: "known".into(),
                    },
                )
                .unwrap();
            bench.done(b);
            assert_eq!(bench.is(parent), Completed);
        }
    }
}

#[test]
fn the_most_urgent_has_its_turn_first_and_equals_go_by_age() {
    let mut bench = Bench::new();
    let first = bench.task(|_| {});
    let mut submit = |priority| bench.task(|task| task.priority = priority);
    let low = submit(Priority::Low);
    let [one, two] = [Priority::Medium; 2].map(&mut submit);
    let high = submit(Priority::High);
    let critical = submit(Priority::Critical);
    let mut at = first;
    let mut order = Vec::new();
    for _ in 0..5 {
        bench.done(at);
        at = bench.state().tasks().find(|task| task.held.is_some()).unwrap().id;
        order.push(at);
    }
    assert_eq!(order, [critical, high, one, two, low]);
}

#[test]
fn what_waits_long_is_not_overtaken_for_ever() {
    // Each attempt takes a second, and there is always something more urgent.
    let mut bench = Bench::new();
    let mut running = bench.task(|task| task.priority = Priority::Critical);
    let low: Vec<TaskId> = (0..4)
        .map(|_| bench.task(|task| task.priority = Priority::Low))
        .collect();
    let began = bench.now;
    let mut waited = Vec::new();
    for _ in 0..240 {
        for _ in 0..2 {
            bench.task(|task| task.priority = Priority::Critical);
        }
        bench.started(running);
        bench.pass(1_000);
        bench.done(running);
        running = bench.state().tasks().find(|task| task.held.is_some()).unwrap().id;
        if low.contains(&running) {
            waited.push(bench.now.since(began));
        }
    }
    assert_eq!(waited.len(), low.len());
    assert!(waited.iter().all(|waited| *waited <= Millis(60_000)), "{waited:?}");
}

#[test]
fn a_flood_of_the_least_urgent_does_not_hold_up_the_most_urgent() {
    let mut bench = Bench::new();
    let mut running = bench.task(|_| {});
    let flood: Vec<_> = (0..100)
        .map(|_| bench.task(|task| task.priority = Priority::Low))
        .collect();
    for _ in 0..40 {
        let urgent = bench.task(|task| task.priority = Priority::Critical);
        let mut turns = 0;
        while running != urgent {
            bench.started(running);
            bench.pass(1_000);
            bench.done(running);
            running = bench.state().tasks().find(|task| task.held.is_some()).unwrap().id;
            turns += 1;
        }
        assert!(turns <= 3, "it waited for {turns} others");
    }
    assert!(
        flood.iter().any(|id| bench.is(*id) == TaskState::Completed),
        "some of the flood had its turn"
    );
}

#[test]
fn another_priority_is_another_place_for_the_whole_tree() {
    let mut bench = Bench::new();
    let first = bench.task(|_| {});
    let parent = bench.task(|task| task.plan = true);
    bench.end(parent, End::Finished(plan(&[("a", &[]), ("b", &["a"])])));
    let (a, b) = (bench.child(parent, "a"), bench.child(parent, "b"));
    let other = bench.task(|task| task.priority = Priority::High);
    bench
        .request(parent, Request::Reprioritise(Priority::Critical))
        .unwrap();
    for id in [parent, a, b] {
        assert_eq!(bench.record(id).priority, Priority::Critical);
    }
    assert_eq!(bench.is(parent), TaskState::Waiting);
    bench.done(first);
    assert_eq!((bench.is(a), bench.is(other)), (TaskState::Assigned, TaskState::Ready));
    // What runs goes on under its lease.
    let lease = bench.lease(a);
    bench.request(a, Request::Reprioritise(Priority::Low)).unwrap();
    assert_eq!(bench.lease(a), lease);
    let entries = bench.entries.len();
    bench.request(a, Request::Reprioritise(Priority::Low)).unwrap();
    assert_eq!(bench.entries.len(), entries, "it has it already");
    assert_eq!(bench.heard(Kind::TaskReprioritised).len(), 2);
}

#[test]
fn parts_are_as_urgent_as_what_they_are_parts_of() {
    let mut bench = Bench::new();
    let parent = bench.task(|task| {
        task.plan = true;
        task.priority = Priority::Critical;
    });
    bench.end(parent, End::Finished(plan(&[("a", &[])])));
    let a = bench.child(parent, "a");
    assert_eq!(bench.record(a).priority, Priority::Critical);
    assert_eq!(bench.record(a).queued, None, "it was leased at once");
}
