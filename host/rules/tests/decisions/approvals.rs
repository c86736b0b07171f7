//! What people are asked: the ten checks, one test each, then where a task waits and how it leaves.

use skep_rules::{
    approval::{Approval, Item, OnTimeout, Point, Points, Request, Ruling, Settled, Terms},
    audit::Kind,
    command::{Command, NewTask},
    decide::Reply,
    effect::Changed,
    facts::{Facts, Table},
    id::{ApprovalId, Digest, TaskId},
    lifecycle::{self, OnFailure},
    limits::{
        APPROVAL_LIFE, MAX_ALWAYS, MAX_APPROVAL_ITEMS, MAX_APPROVAL_LIFE, MAX_OPEN_APPROVALS, MAX_TEXT_BYTES,
        MIN_APPROVAL_LIFE,
    },
    plan::{Outcome, Retry},
    priority::Priority,
    quantity::{Millis, Time},
    reason::Reason,
    rejection::Rejection,
    retry::OnExhausted,
    seam::{End, RunnerCommand, StepReply},
    step::{Decided, StepCall, StepResult},
    task::TaskState,
};

use crate::{
    bench::{Bench, plan, text},
    stepping::{STEPPERS, child, children, get},
};

/// A request for `deploy` of these items, `name` or `name=arguments`.
fn request(items: &[&str]) -> Request {
    let item = |item: &&str| {
        let (name, arguments) = item.split_once('=').unwrap_or((item, "{}"));
        Item::new(name.into(), arguments.into())
    };
    Request {
        action: "deploy".into(),
        question: "it is Friday".into(),
        items: items.iter().map(item).collect(),
        terms: Terms::default(),
    }
}

fn ask(items: &[&str]) -> StepCall {
    StepCall::AskApproval(request(items))
}

pub(crate) fn blocker(question: &str, expires: Option<u64>) -> StepCall {
    StepCall::RaiseBlocker {
        question: question.into(),
        expires: expires.map(Millis),
    }
}

pub(crate) fn ruling(approved: bool, items: &[&str]) -> Ruling {
    Ruling {
        items: items.iter().map(|item| (*item).to_owned()).collect(),
        approved,
        remark: if approved { "go" } else { "no" }.into(),
        always: false,
        digest: None,
    }
}

fn told(approved: bool) -> Decided {
    Decided {
        approved,
        remark: if approved { "go" } else { "no" }.into(),
    }
}

/// The points of a task: before its first attempt, or when its result is there.
pub(crate) fn points(bench: &mut Bench, before: bool, after: bool) -> Option<Points> {
    let mut id = || ApprovalId::new(bench.draw(), 0);
    Some(Points {
        before: before.then(&mut id),
        after: after.then(&mut id),
        terms: Terms::default(),
    })
}

/// A crew in which whoever submits may approve.
fn lenient() -> Bench {
    Bench::stepping_as(&format!("{STEPPERS}\n[approvals]\nby_requester = true"))
}

impl Bench {
    /// The only open approval of a task.
    pub(crate) fn asked(&self, task: TaskId) -> Approval {
        let asks = self.record(task).asks.expect("it asks");
        let approval = self.state().approval(asks.approval).expect("it is open");
        assert_eq!(
            (approval.task, approval.point, approval.until),
            (task, asks.point, asks.until)
        );
        approval.clone()
    }

    fn settled(&self, id: ApprovalId) -> Approval {
        let rows = self.table(Table::Approvals);
        minicbor::decode(&rows[id.to_bytes().as_slice()]).unwrap()
    }

    fn rule_as(&mut self, by: &str, approval: ApprovalId, ruling: Ruling) -> Result<Approval, Rejection> {
        let command = Command::DecideApproval {
            approval,
            ruling,
            by: by.into(),
        };
        let needs = command.needs(self.state()).approval.unwrap();
        let row = self.table(Table::Approvals).remove(needs.to_bytes().as_slice());
        let facts = Facts {
            approval: row.map(|row| minicbor::decode(&row).unwrap()),
            ..Facts::default()
        };
        match self.ask_with(&facts, command)? {
            Reply::Ruled(approval) => Ok(*approval),
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) fn rule(&mut self, approval: ApprovalId, ruling: Ruling) -> Result<Approval, Rejection> {
        self.rule_as("ann", approval, ruling)
    }

    fn refusal(&mut self, approval: ApprovalId, ruling: Ruling) -> Reason {
        let before = (self.shard.position(), self.audit.len());
        let reason = self.rule(approval, ruling).unwrap_err().reason;
        assert_eq!(
            (self.shard.position(), self.audit.len()),
            before,
            "a refusal changes nothing"
        );
        reason
    }

    fn last_result(&self, task: TaskId) -> StepResult {
        self.results_of(task).pop().expect("it has a record")
    }
}

#[test]
fn check_1_a_pause_frees_the_slot_and_the_instance() {
    let calls = [
        (ask(&["a"]), TaskState::AwaitingApproval),
        (blocker("where?", None), TaskState::Blocked),
    ];
    for (call, state) in calls {
        let mut bench = Bench::stepping_as(&STEPPERS.replace("replicas = 2", "replicas = 1"));
        let (id, other) = (bench.task(|_| {}), bench.task(|_| {}));
        let lease = bench.lease(id);
        bench.waits(id, call);
        assert_eq!((bench.is(id), bench.record(id).held), (state, None));
        assert_eq!(bench.is(other), TaskState::Assigned, "its slot is another's");
        assert_eq!(bench.step_by(lease, 1, get("a")), StepReply::Fenced);
        // Hours later nothing has happened to it: nothing times out, nothing is burned.
        bench.done(other);
        bench.pass(APPROVAL_LIFE.0 - 1);
        assert_eq!((bench.is(id), bench.record(id).epoch), (state, 1));
    }
}

#[test]
fn check_2_it_survives_the_host() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.waits(id, ask(&["a"]));
    let asked = bench.asked(id);
    // From the journal alone, and from a checkpoint.
    for checkpoint in [false, true] {
        if checkpoint {
            bench.start_with(id, |_| {});
        } else {
            bench.restart();
            bench.warm();
        }
        assert_eq!(
            (bench.is(id), bench.asked(id)),
            (TaskState::AwaitingApproval, asked.clone())
        );
    }
    let mut replayed = skep_rules::shard::Shard::default();
    for (at, entry) in (1..).zip(&bench.entries) {
        replayed.replay(at, entry).unwrap();
    }
    assert_eq!(replayed.state().approval(asked.id), Some(&asked));
    bench.rule(asked.id, ruling(true, &[])).unwrap();
    assert_eq!(bench.is(id), TaskState::Assigned);
    assert_eq!(bench.last_result(id), StepResult::Decided(vec![told(true)]));
}

#[test]
fn check_3_it_goes_on_behind_its_record() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.answer(id, get("a"));
    bench.waits(id, ask(&["a"]));
    let asked = bench.asked(id);
    bench.rule(asked.id, ruling(true, &[])).unwrap();
    let run = bench.record(id).run;
    assert_eq!((bench.recorded(id), run, bench.record(id).asks), (2, 0, None));
    bench.answer(id, get("b"));
    bench.done(id);
    let record = bench.record(id);
    assert_eq!(
        (record.state, record.attempts, record.retries),
        (TaskState::Completed, 2, 0)
    );
}

#[test]
fn check_4_a_changed_argument_is_another_question() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.waits(id, ask(&[r#"a={"to": "eu", "n": 1}"#]));
    let asked = bench.asked(id);
    assert_eq!(asked.digest, asked.binding());
    assert_eq!(asked.items[0].arguments, r#"{"n":1,"to":"eu"}"#, "in canonical form");
    // Everything that it is bound to.
    let others: [&dyn Fn(&mut Approval); 8] = [
        &|other| other.task = TaskId::new(9 << 16, 0),
        &|other| other.point = Point::Blocker,
        &|other| other.action.push('!'),
        &|other| other.question.push('!'),
        &|other| other.items[0].arguments = r#"{"n":2,"to":"eu"}"#.into(),
        &|other| other.items[0].name.push('!'),
        &|other| other.items.push(other.items[0].clone()),
        &|other| other.component = Some(Digest::of(b"another")),
    ];
    for change in others {
        let mut other = asked.clone();
        change(&mut other);
        assert_ne!(other.binding(), asked.digest);
    }
    // Said in another way it is the same.
    let mut same = asked.clone();
    same.items = request(&[r#"a={ "n":1,"to":"eu"}"#]).items;
    assert_eq!(same.binding(), asked.digest);
    // Whoever has seen something else decides nothing.
    let unseen = Ruling {
        digest: Some(Digest::of(b"another")),
        ..ruling(true, &[])
    };
    assert_eq!(bench.refusal(asked.id, unseen), Reason::Conflict);
    let seen = Ruling {
        digest: Some(asked.digest),
        ..ruling(true, &[])
    };
    bench.rule(asked.id, seen).unwrap();
    // What was approved covers neither another argument, nor the same asked again, nor another run.
    bench.waits(id, ask(&[r#"a={"to": "eu", "n": 2}"#]));
    let again = bench.asked(id);
    assert!(again.id != asked.id && again.digest != asked.digest);
    bench.rule(again.id, ruling(false, &[])).unwrap();
    let failed = Outcome::Failed {
        message: "no".into(),
        retry: Retry::Later,
    };
    bench.end(id, End::Finished(failed));
    bench.pass(200_000);
    bench.waits(id, ask(&[r#"a={"to": "eu", "n": 1}"#]));
    assert_ne!(bench.asked(id).id, asked.id);
}

#[test]
fn check_5_it_is_addressed_by_its_id_alone() {
    let mut bench = Bench::stepping();
    let (a, b) = (bench.task(|_| {}), bench.task(|_| {}));
    bench.waits(a, ask(&["a"]));
    bench.waits(b, ask(&["a"]));
    let (first, second) = (bench.asked(a), bench.asked(b));
    assert_ne!(first.id, second.id);
    assert_eq!(bench.state().approvals().count(), 2);
    for unknown in [ApprovalId::new(1 << 40, 0), ApprovalId::drawn(a)] {
        assert_eq!(bench.refusal(unknown, ruling(true, &[])), Reason::NotFound);
    }
    bench.rule(second.id, ruling(false, &[])).unwrap();
    assert_eq!(
        (bench.is(a), bench.is(b)),
        (TaskState::AwaitingApproval, TaskState::Assigned)
    );
    assert_eq!(bench.last_result(b), StepResult::Decided(vec![told(false)]));
}

#[test]
fn check_6_items_are_decided_one_by_one() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.waits(id, ask(&["a", "b", "c"]));
    let asked = bench.asked(id);
    assert_eq!(bench.refusal(asked.id, ruling(true, &["a", "d"])), Reason::NotFound);
    let after = bench.rule(asked.id, ruling(true, &["c", "c"])).unwrap();
    assert_eq!((after.open().collect::<Vec<_>>(), after.settled), (vec![0, 1], None));
    assert_eq!(bench.is(id), TaskState::AwaitingApproval);
    bench.rule(asked.id, ruling(false, &["a"])).unwrap();
    // The rest.
    let after = bench.rule(asked.id, ruling(true, &[])).unwrap();
    assert_eq!(after.settled, Some((Settled::Decided, bench.now)));
    let expected = StepResult::Decided(vec![told(false), told(true), told(true)]);
    assert_eq!(bench.last_result(id), expected, "in the order of the request");
    assert_eq!(bench.settled(asked.id), after);
    assert!(bench.state().approval(asked.id).is_none());
}

#[test]
fn check_7_the_same_again_is_the_same_and_the_opposite_is_refused() {
    for (first, second) in [(true, false), (false, true)] {
        let mut bench = Bench::stepping();
        let id = bench.task(|_| {});
        bench.waits(id, ask(&["a", "b"]));
        let asked = bench.asked(id);
        for items in [&["a"][..], &[]] {
            let decided = bench.rule(asked.id, ruling(first, items)).unwrap();
            let (position, audited) = (bench.shard.position(), bench.audit.len());
            for by in ["ann", "bob"] {
                let again = bench.rule_as(by, asked.id, ruling(first, items)).unwrap();
                assert_eq!(again, decided, "by whomever");
            }
            assert_eq!((bench.shard.position(), bench.audit.len()), (position, audited));
            assert_eq!(bench.refusal(asked.id, ruling(second, &["a"])), Reason::Conflict);
        }
        // Also when it is over, and the task with it.
        bench.done(id);
        assert_eq!(bench.refusal(asked.id, ruling(second, &[])), Reason::Conflict);
        assert_eq!(bench.refusal(asked.id, ruling(second, &["b"])), Reason::Conflict);
        let again = bench.rule(asked.id, ruling(first, &["b"])).unwrap();
        assert_eq!(again, bench.settled(asked.id));
    }
}

#[test]
fn check_8_nobody_approves_what_he_asked_for_unless_the_crew_says_so() {
    for (lax, mut bench) in [(false, Bench::stepping()), (true, lenient())] {
        for (before, after) in [(true, false), (false, true)] {
            let points = points(&mut bench, before, after);
            let id = bench.task(|task| task.approval = points);
            if after {
                bench.done(id);
            }
            let asked = bench.asked(id);
            assert_eq!((asked.requester.as_str(), asked.by_requester), ("tests", lax));
            let ruled = bench.rule_as("tests", asked.id, ruling(true, &[]));
            assert_eq!(ruled.is_ok(), lax);
            if let Err(rejection) = ruled {
                assert_eq!(rejection.reason, Reason::SelfApproval);
                assert_eq!(bench.is(id), TaskState::AwaitingApproval);
                bench.rule(asked.id, ruling(true, &[])).unwrap();
            }
            assert_ne!(bench.is(id), TaskState::AwaitingApproval);
            if before {
                bench.done(id);
            }
        }
        // An agent asks for itself: whoever submitted its task is another.
        let id = bench.task(|_| {});
        let agent = bench.lease(id).agent.to_string();
        bench.waits(id, ask(&["a"]));
        let asked = bench.asked(id);
        assert_eq!(asked.requester, agent);
        if !lax {
            let rejection = bench.rule_as(&agent, asked.id, ruling(true, &[])).unwrap_err();
            assert_eq!(rejection.reason, Reason::SelfApproval);
        }
        bench.rule_as("tests", asked.id, ruling(true, &[])).unwrap();
    }
}

/// Where a task waits, what its time is over to, and where the task is then; `None` where it goes on.
#[test]
fn check_9_its_time_is_up() {
    let cases: [(Point, OnTimeout, Option<TaskState>); 6] = [
        (Point::Action, OnTimeout::Reject, None),
        (Point::Action, OnTimeout::Escalate, None),
        (Point::Before, OnTimeout::Reject, Some(TaskState::Failed)),
        (Point::Before, OnTimeout::Escalate, Some(TaskState::Failed)),
        (Point::After, OnTimeout::Reject, Some(TaskState::Failed)),
        (Point::Blocker, OnTimeout::Reject, Some(TaskState::Failed)),
    ];
    for (point, on_timeout, ends) in cases {
        let mut bench = Bench::stepping();
        let terms = Terms {
            expires: (on_timeout == OnTimeout::Escalate).then_some(Millis(5_000)),
            on_timeout,
        };
        let points = points(&mut bench, point == Point::Before, point == Point::After);
        let points = points.map(|points| Points { terms, ..points });
        let id = bench.task(|task| task.approval = points);
        match point {
            Point::Action => bench.waits(
                id,
                StepCall::AskApproval(Request {
                    terms,
                    ..request(&["a", "b"])
                }),
            ),
            Point::Blocker => bench.waits(id, blocker("where?", None)),
            Point::After => bench.done(id),
            Point::Before => {}
        }
        let asked = bench.asked(id);
        assert_eq!((asked.point, asked.until), (point, bench.now.after(terms.life())));
        if point == Point::Action {
            bench.rule(asked.id, ruling(true, &["b"])).unwrap();
        }
        bench.pass(terms.life().0 - 1);
        assert!(bench.state().approval(asked.id).is_some(), "not early");
        bench.pass(1);
        if on_timeout == OnTimeout::Escalate {
            let once_more = bench.asked(id);
            assert_eq!((once_more.id, once_more.escalated), (asked.id, 1));
            assert_eq!(once_more.until, bench.now.after(terms.life()));
            assert_eq!(bench.heard(Kind::ApprovalEscalated).len(), 1);
            bench.pass(terms.life().0);
        }
        assert_eq!(bench.heard(Kind::ApprovalExpired).len(), 1);
        assert_eq!(bench.settled(asked.id).settled, Some((Settled::Expired, bench.now)));
        match ends {
            Some(state) => {
                let reason = bench.record(id).failure.map(|failure| failure.reason);
                assert_eq!((bench.is(id), reason), (state, Some(Reason::ApprovalExpired)));
            }
            None => {
                let late = Decided {
                    approved: false,
                    remark: "nobody has decided in time".into(),
                };
                assert_eq!(bench.is(id), TaskState::Assigned);
                assert_eq!(bench.last_result(id), StepResult::Decided(vec![late, told(true)]));
                // What was decided in time stays decided.
                bench.rule(asked.id, ruling(true, &["b"])).unwrap();
                assert_eq!(bench.refusal(asked.id, ruling(true, &["a"])), Reason::ApprovalExpired);
            }
        }
        assert_eq!(bench.refusal(asked.id, ruling(false, &[])), Reason::ApprovalExpired);
    }
}

#[test]
fn check_9_what_comes_too_late_is_refused_before_anybody_has_looked_at_the_clock() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.waits(id, ask(&["a"]));
    let asked = bench.asked(id);
    bench.now = asked.until;
    assert_eq!(bench.refusal(asked.id, ruling(true, &[])), Reason::ApprovalExpired);
    bench.now = Time(asked.until.0 - 1);
    bench.rule(asked.id, ruling(true, &[])).unwrap();
}

#[test]
fn check_10_what_cannot_be_read_is_never_covered_by_an_earlier_decision() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    bench.waits(id, ask(&["a"]));
    let asked = bench.asked(id);
    let always = Ruling {
        always: true,
        ..ruling(true, &[])
    };
    bench.rule(asked.id, always).unwrap();
    assert_eq!(bench.record(id).always, ["deploy"]);
    // The same action goes through, on the record and on the books.
    let covered = bench.answer(id, ask(&["x", r#"y={"n":2}"#]));
    let silent = Decided {
        approved: true,
        remark: String::new(),
    };
    assert_eq!(covered, StepResult::Decided(vec![silent; 2]));
    assert_eq!(bench.heard(Kind::ApprovalDecided).len(), 2);
    // What is no JSON, or could be read two ways, wants a person; so does another action.
    let other = StepCall::AskApproval(Request {
        action: "deploy2".into(),
        ..request(&["a"])
    });
    let cases = [
        (ask(&["x", "y={"]), false),
        (ask(&[r#"x={"n":1,"n":2}"#]), false),
        (other, true),
    ];
    for (call, parsed) in cases {
        bench.waits(id, call);
        let asked = bench.asked(id);
        assert_eq!(asked.items.iter().all(|item| item.parsed), parsed);
        bench.rule(asked.id, ruling(false, &[])).unwrap();
    }
    // It ends with the run, and is of this task alone.
    bench.end(id, End::Finished(Outcome::Continue(text("more"))));
    assert!(bench.record(id).always.is_empty());
    bench.waits(id, ask(&["a"]));
    let stranger = bench.task(|_| {});
    bench.waits(stranger, ask(&["a"]));
}

#[test]
fn always_is_for_what_an_agent_does_and_for_so_many_actions() {
    let mut bench = lenient();
    let always = |approved| Ruling {
        always: true,
        ..ruling(approved, &[])
    };
    let id = bench.task(|_| {});
    bench.waits(id, blocker("where?", None));
    let asked = bench.asked(id);
    assert_eq!(bench.refusal(asked.id, always(true)), Reason::InvalidInput);
    bench.rule(asked.id, ruling(true, &[])).unwrap();
    let action = |n: usize| {
        StepCall::AskApproval(Request {
            action: format!("a{n}"),
            ..request(&["a"])
        })
    };
    for n in 0..=MAX_ALWAYS {
        bench.waits(id, action(n));
        let asked = bench.asked(id);
        assert_eq!(bench.refusal(asked.id, always(false)), Reason::InvalidInput);
        bench.rule(asked.id, always(true)).unwrap();
    }
    bench.answer(id, action(MAX_ALWAYS - 1));
    bench.waits(id, action(MAX_ALWAYS));
}

#[test]
fn a_question_out_of_bounds_is_refused() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    let many: Vec<String> = (0..=MAX_APPROVAL_ITEMS).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = request(&["a"]);
        change(&mut request);
        StepCall::AskApproval(request)
    };
    let cases = [
        ask(&[]),
        ask(&many),
        ask(&["a", "a"]),
        with(&|request| request.action.clear()),
        with(&|request| request.question = long.clone()),
        with(&|request| request.terms.expires = Some(Millis(MIN_APPROVAL_LIFE.0 - 1))),
        with(&|request| request.terms.expires = Some(Millis(MAX_APPROVAL_LIFE.0 + 1))),
        // A runner that calls something canonical that is not.
        with(&|request| request.items[0].arguments = "{ }".into()),
        with(&|request| {
            request.items[0] = Item {
                name: "a".into(),
                arguments: "{".into(),
                parsed: true,
            };
        }),
        blocker("", None),
        blocker(&long, None),
        blocker("where?", Some(MIN_APPROVAL_LIFE.0 - 1)),
        blocker("where?", Some(MAX_APPROVAL_LIFE.0 + 1)),
    ];
    for call in cases {
        let refused = StepResult::refused(Reason::InvalidInput);
        assert_eq!(bench.answer(id, call.clone()), refused, "{call:?}");
    }
    let number = bench.record(id).steps;
    let lease = bench.lease(id);
    let StepReply::Recorded(recorded) = bench.step_with(lease, number, ask(&["a"]), None) else {
        unreachable!("it is on record")
    };
    assert_eq!(recorded.step.result, StepResult::refused(Reason::HostFault));
    // A decision has its bounds as well.
    bench.waits(id, ask(&["a"]));
    let asked = bench.asked(id);
    let long = Ruling {
        remark: long,
        ..ruling(true, &[])
    };
    assert_eq!(bench.refusal(asked.id, long), Reason::InvalidInput);
    assert_eq!(bench.refusal(asked.id, ruling(true, &many)), Reason::InvalidInput);
}

#[test]
fn agents_ask_people_no_more_than_people_read() {
    let replicas = MAX_OPEN_APPROVALS / 100 + 1;
    let mut bench = Bench::stepping_as(&STEPPERS.replace("replicas = 2", &format!("replicas = {replicas}")));
    let ids: Vec<TaskId> = (0..=MAX_OPEN_APPROVALS).map(|_| bench.task(|_| {})).collect();
    let (last, others) = ids.split_last().unwrap();
    for id in others {
        bench.waits(*id, ask(&["a"]));
    }
    let overloaded = StepResult::refused(Reason::Overloaded);
    assert_eq!(bench.answer(*last, ask(&["a"])), overloaded);
    assert_eq!(bench.answer(*last, blocker("where?", None)), overloaded);
    let asked = bench.asked(others[0]);
    bench.rule(asked.id, ruling(true, &[])).unwrap();
    bench.waits(*last, ask(&["a"]));
}

#[test]
fn a_task_runs_when_that_is_approved() {
    let mut bench = Bench::stepping();
    let first = bench.task(|_| {});
    let points = points(&mut bench, true, false);
    let id = bench.task(|task| {
        task.approval = points;
        task.dependencies = vec![first];
    });
    assert_eq!(bench.is(id), TaskState::Pending, "people are asked when it could run");
    bench.done(first);
    let asked = bench.asked(id);
    assert_eq!(
        (bench.is(id), asked.action.as_str()),
        (TaskState::AwaitingApproval, "run")
    );
    assert_eq!((Some(asked.id), asked.component), (points.unwrap().before, None));
    let input = Digest::of(b"input");
    assert_eq!(asked.items[0].arguments, format!(r#"{{"bytes":5,"sha256":"{input}"}}"#));
    bench.rule(asked.id, ruling(true, &[])).unwrap();
    assert_eq!(bench.is(id), TaskState::Assigned);
    // Once is enough, however often it is tried.
    let failed = Outcome::Failed {
        message: "no".into(),
        retry: Retry::Later,
    };
    bench.end(id, End::Finished(failed));
    bench.pass(200_000);
    assert_eq!(bench.is(id), TaskState::Assigned);
    bench.done(id);
    assert_eq!(bench.is(id), TaskState::Completed);
}

#[test]
fn a_task_that_is_rejected_never_runs_and_nobody_waits_for_it() {
    let mut bench = Bench::stepping();
    let points = points(&mut bench, true, false);
    let id = bench.task(|task| task.approval = points);
    let next = bench.task(|task| task.dependencies = vec![id]);
    let asked = bench.asked(id);
    bench.rule(asked.id, ruling(false, &[])).unwrap();
    let record = bench.record(id);
    assert_eq!((record.state, record.epoch), (TaskState::Rejected, 0));
    let failure = record.failure.unwrap();
    assert_eq!(
        (failure.reason, failure.message.as_str()),
        (Reason::Rejected, "rejected by ann: no")
    );
    assert_eq!(bench.is(next), TaskState::Skipped);
    assert!(
        !bench
            .told
            .iter()
            .any(|command| matches!(command, RunnerCommand::Start { .. }))
    );
}

/// A result comes from an attempt, from a check, from a child, or from nobody; each waits for a person before it counts.
#[test]
fn a_result_counts_when_that_is_approved() {
    let cases = ["attempt", "check", "child", "summary"];
    for case in cases {
        for approved in [true, false] {
            let mut bench = Bench::stepping();
            let points = points(&mut bench, false, true);
            let id = bench.task(|task| {
                task.approval = points;
                task.check = case == "check";
                task.plan = matches!(case, "child" | "summary");
            });
            match case {
                "attempt" => bench.done(id),
                "check" => {
                    bench.done(id);
                    assert_eq!(bench.is(id), TaskState::Verifying, "checked first");
                    bench.end(id, End::Finished(Outcome::Accepted));
                }
                _ => {
                    let nodes: &[(&str, &[&str])] = if case == "child" {
                        &[("a", &[]), ("b!", &["a"])]
                    } else {
                        &[("a", &[]), ("b", &[])]
                    };
                    bench.end(id, End::Finished(plan(nodes)));
                    for name in ["a", "b"] {
                        let child = bench.child(id, name);
                        bench.done(child);
                    }
                }
            }
            let record = bench.record(id);
            let asked = bench.asked(id);
            assert_eq!(
                (record.state, record.held),
                (TaskState::AwaitingApproval, None),
                "{case}"
            );
            assert_eq!((record.result, Some(asked.id)), (None, points.unwrap().after));
            assert_eq!(asked.component.is_some(), case != "summary", "{case}");
            if case != "summary" {
                let output = Digest::of(b"output");
                assert_eq!(
                    asked.items[0].arguments,
                    format!(r#"{{"bytes":6,"sha256":"{output}"}}"#)
                );
            }
            bench.rule(asked.id, ruling(approved, &[])).unwrap();
            let record = bench.record(id);
            let state = if approved {
                TaskState::Completed
            } else {
                TaskState::Rejected
            };
            assert_eq!((record.state, record.result.is_some()), (state, approved), "{case}");
            assert_eq!((record.candidate, record.asks), (None, None));
        }
    }
}

#[test]
fn an_agent_that_cannot_go_on_is_told_what_a_person_says() {
    for approved in [true, false] {
        let mut bench = Bench::stepping();
        let id = bench.task(|_| {});
        bench.waits(id, blocker("which account?", None));
        let asked = bench.asked(id);
        assert_eq!(
            (bench.is(id), asked.question.as_str()),
            (TaskState::Blocked, "which account?")
        );
        bench.rule(asked.id, ruling(approved, &[])).unwrap();
        assert_eq!(bench.is(id), TaskState::Assigned);
        assert_eq!(bench.last_result(id), StepResult::Decided(vec![told(approved)]));
    }
}

/// What takes a task away while people are asked takes the question back.
#[test]
fn a_question_goes_with_its_task() {
    type Ends = fn(&mut Bench, TaskId);
    let ends: [(&str, TaskState, Ends); 3] = [
        ("cancelled", TaskState::Cancelled, |bench, id| {
            let by = "tests".to_owned();
            bench.ask(Command::CancelTask { task: id, by }).unwrap();
        }),
        ("drained", TaskState::Cancelled, |bench, _| {
            let (crew, by) = (bench.crew, "tests".to_owned());
            bench.ask(Command::DrainCrew { crew, by }).unwrap();
        }),
        ("its parent is done", TaskState::Cancelled, |bench, id| {
            let parent = bench.record(id).parent.unwrap();
            bench.done(parent);
        }),
    ];
    for (what, state, end) in ends {
        let mut bench = Bench::stepping();
        let parent = bench.task(|_| {});
        let id = bench.spawn(parent);
        bench.waits(id, ask(&["a", "b"]));
        let asked = bench.asked(id);
        bench.rule(asked.id, ruling(true, &["a"])).unwrap();
        end(&mut bench, id);
        assert_eq!((bench.is(id), bench.record(id).asks), (state, None), "{what}");
        assert_eq!(bench.state().approvals().count(), 0);
        assert_eq!(bench.settled(asked.id).settled, Some((Settled::Withdrawn, bench.now)));
        assert_eq!(bench.heard(Kind::ApprovalWithdrawn).len(), 1);
        assert_eq!(bench.refusal(asked.id, ruling(true, &[])), Reason::IllegalTransition);
        bench.rule(asked.id, ruling(true, &["a"])).unwrap();
    }
}

#[test]
fn a_question_in_a_tree_that_has_failed_is_taken_back() {
    let mut bench = Bench::stepping();
    let id = bench.task(|task| task.plan = true);
    bench.end(id, End::Finished(plan(&[("a", &[]), ("b", &[])])));
    let (a, b) = (bench.child(id, "a"), bench.child(id, "b"));
    bench.waits(a, ask(&["a"]));
    let asked = bench.asked(a);
    let failed = Outcome::Failed {
        message: "no".into(),
        retry: Retry::Never,
    };
    bench.end(b, End::Finished(failed));
    assert_eq!((bench.is(a), bench.is(id)), (TaskState::Skipped, TaskState::Failed));
    assert_eq!(bench.refusal(asked.id, ruling(true, &[])), Reason::IllegalTransition);
}

#[test]
fn a_parent_awaits_a_child_that_waits_for_a_person() {
    let mut bench = Bench::stepping();
    let parent = bench.task(|_| {});
    let id = bench.spawn(parent);
    bench.waits(id, blocker("where?", Some(MIN_APPROVAL_LIFE.0)));
    bench.waits(parent, children(&[id], true, None));
    bench.pass(MIN_APPROVAL_LIFE.0);
    assert_eq!(
        (bench.is(id), bench.is(parent)),
        (TaskState::Failed, TaskState::Assigned)
    );
    // A rejected child is one that failed, for whoever awaits it.
    assert!(matches!(
        bench.answer(parent, StepCall::Spawn(child())),
        StepResult::Spawned(_)
    ));
}

#[test]
fn an_ephemeral_task_asks_nobody() {
    let mut bench = Bench::stepping();
    let points = points(&mut bench, true, false);
    let mut task = bench.new_task();
    (task.approval, task.ephemeral) = (points, true);
    assert_eq!(bench.submit(vec![task]).unwrap_err().reason, Reason::InvalidInput);
    for expires in [MIN_APPROVAL_LIFE.0 - 1, MAX_APPROVAL_LIFE.0 + 1] {
        let mut task = bench.new_task();
        task.approval = points.map(|points| Points {
            terms: Terms {
                expires: Some(Millis(expires)),
                ..Terms::default()
            },
            ..points
        });
        assert_eq!(bench.submit(vec![task]).unwrap_err().reason, Reason::InvalidInput);
    }
    let id = bench.task(|task| task.ephemeral = true);
    assert_eq!(
        bench.step(id, ask(&["a"])),
        StepReply::Refused(Reason::CapabilityDenied)
    );
}

#[test]
fn every_question_and_decision_is_on_the_books_and_told() {
    let mut bench = Bench::stepping();
    let id = bench.task(|_| {});
    let already = bench.shard.durable(u64::MAX).len();
    assert!(already > 0);
    bench.waits(id, ask(&["a", "b"]));
    let asked = bench.asked(id);
    bench.rule(asked.id, ruling(true, &["a"])).unwrap();
    bench.rule(asked.id, ruling(false, &["b"])).unwrap();
    let [entry] = bench.heard(Kind::ApprovalAsked)[..] else {
        unreachable!("asked once")
    };
    let detail = format!("{} (action, {}): deploy", asked.id, asked.digest);
    assert_eq!(
        (entry.task, entry.crew, &entry.detail),
        (Some(id), Some(bench.crew), &detail)
    );
    let decided = bench.heard(Kind::ApprovalDecided);
    let details: Vec<&str> = decided.iter().map(|entry| entry.detail.as_str()).collect();
    let of = |what: &str| format!("{} deploy: {what}", asked.id);
    assert_eq!(details, [of("approved a"), of("rejected b")]);
    assert!(decided.iter().all(|entry| entry.actor.as_deref() == Some("ann")));
    let told = bench
        .shard
        .durable(u64::MAX)
        .into_iter()
        .flat_map(|(_, notices)| notices);
    let told: Vec<Changed> = told.map(|notice| notice.what).collect();
    let of = |settled| Changed::Approval {
        approval: asked.id,
        task: id,
        settled,
    };
    for what in [of(None), of(Some(Settled::Decided))] {
        assert!(told.contains(&what), "{told:?}");
    }
    let waits = |what: &Changed| {
        matches!(
            what,
            Changed::Task {
                state: TaskState::AwaitingApproval,
                ..
            }
        )
    };
    assert_eq!(told.iter().filter(|what| waits(what)).count(), 1);
}

/// A task that asks at a point, on a bench of its own.
fn asks_at(point: Point, alter: impl FnOnce(&mut NewTask)) -> (Bench, TaskId, Approval) {
    let mut bench = Bench::stepping();
    let points = points(&mut bench, point == Point::Before, point == Point::After);
    let id = bench.task(|task| {
        task.approval = points;
        alter(task);
    });
    match point {
        Point::Before => {}
        Point::After => bench.done(id),
        Point::Action => bench.waits(id, ask(&["a"])),
        Point::Blocker => bench.waits(id, blocker("where?", None)),
    }
    let asked = bench.asked(id);
    (bench, id, asked)
}

#[test]
fn whatever_else_ends_a_task_takes_its_question_back() {
    let given = || lifecycle::Request::OverrideResult {
        result: text("so it is"),
        why: "a person knows".into(),
    };
    for point in [Point::Before, Point::After, Point::Action, Point::Blocker] {
        for (request, ends) in [
            (Some(lifecycle::Request::Cancel), TaskState::Cancelled),
            (Some(given()), TaskState::Completed),
            (None, TaskState::Failed),
        ] {
            let what = format!("{point} and {request:?}");
            let (mut bench, id, asked) = asks_at(point, |task| task.timeouts.schedule_to_close = Some(Millis(9_000)));
            match request {
                Some(request) => drop(bench.request(id, request).unwrap()),
                None => {
                    bench.pass(8_999);
                    assert_eq!(bench.asked(id).id, asked.id, "not early");
                    bench.pass(1);
                    let reason = bench.record(id).failure.map(|failure| failure.reason);
                    assert_eq!(reason, Some(Reason::TimedOut), "{what}");
                }
            }
            assert_eq!(bench.is(id), ends, "{what}");
            let settled = bench.settled(asked.id).settled;
            assert_eq!(settled, Some((Settled::Withdrawn, bench.now)), "{what}");
            assert_eq!(bench.heard(Kind::ApprovalWithdrawn).len(), 1, "{what}");
            let late = bench.refusal(asked.id, ruling(true, &[]));
            assert_eq!(late, Reason::IllegalTransition, "{what}");
        }
    }
}

#[test]
fn another_lane_leaves_a_question_open() {
    for point in [Point::Before, Point::After, Point::Action, Point::Blocker] {
        let (mut bench, id, asked) = asks_at(point, |_| {});
        bench
            .request(id, lifecycle::Request::Reprioritise(Priority::High))
            .unwrap();
        assert_eq!(bench.asked(id), asked, "{point}");
        bench.rule(asked.id, ruling(true, &[])).unwrap();
        let expected = match point {
            Point::After => TaskState::Completed,
            Point::Before | Point::Action | Point::Blocker => TaskState::Assigned,
        };
        assert_eq!(bench.is(id), expected, "{point}");
    }
}

#[test]
fn what_is_answered_beneath_a_paused_task_is_paused_with_it() {
    for pauses in [true, false] {
        let mut bench = Bench::stepping();
        let top = bench.task(|task| task.plan = true);
        bench.end(top, End::Finished(plan(&[("a", &[]), ("b", &[])])));
        let (a, b) = (bench.child(top, "a"), bench.child(top, "b"));
        bench.waits(a, ask(&["x"]));
        let asked = bench.asked(a);
        bench.request(top, lifecycle::Request::Pause).unwrap();
        let states = [top, a, b].map(|id| bench.is(id));
        assert_eq!(
            states,
            [TaskState::Paused, TaskState::AwaitingApproval, TaskState::Paused]
        );
        if pauses {
            bench.rule(asked.id, ruling(true, &[])).unwrap();
            let reason = bench.record(a).failure.map(|failure| failure.reason);
            assert_eq!((bench.is(a), reason), (TaskState::Paused, Some(Reason::Paused)));
            bench.request(top, lifecycle::Request::Resume).unwrap();
        } else {
            bench.request(top, lifecycle::Request::Resume).unwrap();
            assert_eq!(bench.asked(a), asked);
            bench.rule(asked.id, ruling(true, &[])).unwrap();
        }
        assert_eq!(bench.is(a), TaskState::Assigned);
        assert_eq!(bench.last_result(a), StepResult::Decided(vec![told(true)]));
        bench.done(a);
        bench.done(b);
        assert_eq!(bench.is(top), TaskState::Completed);
    }
}

#[test]
fn a_part_that_nobody_answers_does_what_the_policy_says() {
    for (policy, becomes) in [
        (OnFailure::FailFast, TaskState::Failed),
        (OnFailure::Escalate, TaskState::Paused),
    ] {
        let mut bench = Bench::stepping();
        let top = bench.task(|task| {
            task.parts = Some(crate::lifecycle::parts(&[("a", &[])]));
            task.on_failure = policy;
        });
        let a = bench.child(top, "a");
        bench.waits(a, blocker("where?", Some(MIN_APPROVAL_LIFE.0)));
        bench.pass(MIN_APPROVAL_LIFE.0);
        let record = bench.record(a);
        let reason = record.failure.map(|failure| failure.reason);
        assert_eq!((record.state, reason), (becomes, Some(Reason::ApprovalExpired)));
        if policy == OnFailure::Escalate {
            assert_eq!((record.asks, record.wait), (None, None));
            bench.request(a, lifecycle::Request::Retry).unwrap();
            let record = bench.record(a);
            assert_eq!((record.state, record.steps), (TaskState::Assigned, 0));
            bench.done(a);
            assert_eq!(bench.is(top), TaskState::Completed);
        }
    }
}

#[test]
fn a_dead_letter_that_is_redriven_asks_anew() {
    let buries = |task: &mut NewTask| task.retry.on_exhausted = Some(OnExhausted::DeadLetter);
    // Either it was approved and its attempt failed, or nobody has decided.
    for approved in [true, false] {
        let (mut bench, dead, asked) = asks_at(Point::Before, buries);
        if approved {
            bench.rule(asked.id, ruling(true, &[])).unwrap();
            let outcome = Outcome::Failed {
                message: "no".into(),
                retry: Retry::Never,
            };
            bench.end(dead, End::Finished(outcome));
        } else {
            bench.pass(APPROVAL_LIFE.0);
        }
        assert_eq!(bench.state().dead_letters().collect::<Vec<_>>(), [dead]);
        let again = bench.redrive(dead).unwrap();
        assert_eq!(bench.is(again), TaskState::AwaitingApproval);
        let anew = bench.asked(again);
        assert!(anew.id != asked.id && anew.terms == asked.terms, "{anew:?}");
        bench.rule(anew.id, ruling(true, &[])).unwrap();
        bench.done(again);
        assert_eq!(bench.is(again), TaskState::Completed);
    }
}
