//! Messages: who receives them, in which order, until when, and what becomes of what is not received.

use skep_rules::{
    audit::Kind as Told,
    command::{Command, Mail},
    decide::Reply,
    facts::Table,
    grant::Ceiling,
    id::{AgentId, TaskId},
    lifecycle::Request,
    limits::{
        AGEING, IDEMPOTENCY, LEASE, MAX_ANSWER_BYTES, MAX_DEAD_MESSAGES, MAX_MAILBOX, MAX_MESSAGE_TTL, MAX_RECEIVERS,
        QUERY_TTL,
    },
    message::{Kept, Kind, Letter, Message, Source, Target},
    plan::{Artifact, Outcome, Payload, Retry},
    priority::Priority,
    quantity::{Fuel, Millis, Time},
    reason::Reason,
    rejection::Rejection,
    seam::{Beat, Call, End, Export, StepReply},
    step::{StepCall, StepResult},
    task::{Task, TaskState},
};

use crate::bench::{Bench, plugin, text};

/// One that sends and hears nothing, two that hear `job.*`, one that hears all, one that has a mailbox and hears nothing.
const POST: &str = r#"
    name = "crew"
    [[agent]]
    name = "sender"
    plugin = "acme/sender@1.0.0"
    grants = { messages = { send = ["job.>", "note"] }, tasks = { children = 5 } }
    [[agent]]
    name = "jobs"
    plugin = "acme/mailer@1.0.0"
    replicas = 2
    grants = { messages = { receive = ["job.*"], send = ["job.>"] } }
    [[agent]]
    name = "all"
    plugin = "acme/listener@1.0.0"
    grants = { messages = { receive = [">", "job.*"] } }
    [[agent]]
    name = "deaf"
    plugin = "acme/listener@1.0.0"
    grants = { messages = {} }
"#;

fn letter(kind: Kind, subject: &str) -> Letter {
    Letter {
        kind,
        subject: subject.parse().unwrap(),
        target: Target::Subscribers,
        body: text("body"),
        priority: Priority::Medium,
        ttl: None,
        partition_key: None,
        idempotency_key: None,
        correlation: matches!(kind, Kind::Response | Kind::Error).then(|| "a conversation".into()),
        reply_to: None,
        traceparent: None,
        tracestate: None,
        datatype: None,
    }
}

fn to(letter: Letter, agent: &str) -> Letter {
    Letter {
        target: Target::Agent(agent.into()),
        ..letter
    }
}

fn event() -> Letter {
    letter(Kind::Event, "job.done")
}

/// For one agent, in a lane.
fn job(priority: Priority) -> Letter {
    Letter {
        priority,
        ..to(event(), "all")
    }
}

impl Bench {
    fn post() -> Self {
        Bench::post_as(POST)
    }

    fn post_as(manifest: &str) -> Self {
        let wants = "[wants]\nmessages = { send = ['>'], receive = ['>'] }\ntasks = { children = 9 }\n";
        let plugins = [
            plugin("sender", &[Export::Executor], "\"work\"", wants),
            plugin(
                "mailer",
                &[Export::Executor, Export::Mailbox],
                "\"work\", \"mail\"",
                wants,
            ),
            plugin("listener", &[Export::Mailbox], "\"mail\"", wants),
        ];
        let mut bench = Bench::empty();
        bench.assemble_with(manifest, &plugins, &Ceiling::default()).unwrap();
        bench.warm();
        bench
    }

    fn send(&mut self, letter: Letter) -> Result<Vec<TaskId>, Rejection> {
        let mail = self.mail();
        match self.send_with(letter, mail)? {
            Reply::Sent { deliveries, .. } => Ok(deliveries),
            other => unreachable!("{other:?}"),
        }
    }

    fn send_with(&mut self, letter: Letter, mail: Mail) -> Result<Reply, Rejection> {
        let command = Command::SendMessage {
            crew: self.crew,
            letter,
            mail,
            by: "tests".into(),
        };
        let facts = self.facts_for(command.needs(self.state()));
        self.ask_with(&facts, command)
    }

    /// A person asks something of a task.
    fn changed(&mut self, task: TaskId, request: Request) -> Result<Reply, Rejection> {
        self.ask(Command::ChangeTask {
            task,
            request,
            revision: None,
            by: "tests".into(),
        })
    }

    fn sent(&mut self, letter: Letter) -> TaskId {
        self.send(letter).unwrap()[0]
    }

    /// A task of the one that sends.
    fn sender(&mut self) -> TaskId {
        self.task(|task| task.agent = Some("sender".into()))
    }

    fn receiver(&self, delivery: TaskId) -> String {
        let agent = self.record(delivery).agent.unwrap();
        self.state().agent(agent).unwrap().name.clone()
    }

    fn receivers(&self, deliveries: &[TaskId]) -> Vec<String> {
        deliveries.iter().map(|id| self.receiver(*id)).collect()
    }

    /// What the receiver of a delivery was given.
    fn received(&self, delivery: TaskId) -> Message {
        match self.given(delivery).0 {
            Call::Receive { message } => *message,
            other => unreachable!("{other:?}"),
        }
    }

    fn kept(&self, message: &Message) -> Kept {
        let rows = self.table(Table::Messages);
        minicbor::decode(&rows[message.id.to_bytes().as_slice()]).unwrap()
    }

    /// Which of some deliveries is leased.
    fn held(&self, deliveries: &[TaskId]) -> Option<TaskId> {
        let held = |id: &&TaskId| self.state().task(**id).is_some_and(|task| task.held.is_some());
        deliveries.iter().find(held).copied()
    }
}

fn ended(delivery: &Task) -> Option<Reason> {
    delivery.failure.as_ref().map(|failure| failure.reason)
}

fn failed(retry: Retry) -> End {
    End::Finished(Outcome::Failed {
        message: "no".into(),
        retry,
    })
}

#[test]
fn who_listens_to_the_subject_receives_once() {
    for (of, receives) in [
        (letter(Kind::Event, "job.done"), vec!["jobs-1", "jobs-2", "all"]),
        (letter(Kind::Event, "job.done.late"), vec!["all"]),
        (letter(Kind::Data, "note"), vec!["all"]),
        (to(event(), "jobs-2"), vec!["jobs-2"]),
        (letter(Kind::Heartbeat, "job.alive"), vec!["jobs-1", "jobs-2", "all"]),
    ] {
        let mut bench = Bench::post();
        let deliveries = bench.send(of).unwrap();
        assert_eq!(bench.receivers(&deliveries), receives);
    }
    let mut bench = Bench::post();
    let by_id = bench.agent("jobs-1").to_string();
    let delivery = bench.sent(to(event(), &by_id));
    assert_eq!(bench.receiver(delivery), "jobs-1");
}

#[test]
fn one_of_a_role_receives_who_has_the_fewest_waiting() {
    let mut bench = Bench::post();
    let mail = Letter {
        target: Target::Role("mail".parse().unwrap()),
        ..event()
    };
    let order: Vec<String> = (0..4)
        .map(|_| {
            let delivery = bench.sent(mail.clone());
            bench.receiver(delivery)
        })
        .collect();
    assert_eq!(order, ["jobs-1", "jobs-2", "all", "jobs-1"]);
}

#[test]
fn where_nobody_listens_it_is_said_at_once_or_kept_as_a_dead_letter() {
    let deaf = |kind| to(letter(kind, "job.done"), "deaf");
    for (of, refused) in [
        (letter(Kind::Command, "nobody"), true),
        (letter(Kind::Query, "nobody"), true),
        (letter(Kind::Response, "nobody"), true),
        (letter(Kind::Event, "nobody"), false),
        (letter(Kind::Notification, "nobody"), false),
        (letter(Kind::Data, "nobody"), false),
        (letter(Kind::Error, "nobody"), false),
        (letter(Kind::Heartbeat, "nobody"), false),
        (deaf(Kind::Event), true),
        (deaf(Kind::Data), true),
        (deaf(Kind::Error), false),
        (deaf(Kind::Heartbeat), false),
        (to(event(), "nobody"), true),
        (
            Letter {
                target: Target::Role("nobody".parse().unwrap()),
                ..event()
            },
            true,
        ),
    ] {
        let manifest = POST.replace("[\">\", \"job.*\"]", "[\"job.*\"]");
        let mut bench = Bench::post_as(&manifest);
        let (kind, entries) = (of.kind, bench.entries.len());
        match bench.send(of) {
            Ok(deliveries) => assert!(!refused && deliveries.is_empty(), "{kind}"),
            Err(rejection) => {
                assert!(refused && rejection.reason == Reason::NoListener, "{kind}: {rejection}");
                assert_eq!(bench.entries.len(), entries);
            }
        }
        let dead = bench.heard(Told::MessageDead);
        assert_eq!(dead.len(), usize::from(kind == Kind::Error), "{kind}");
        assert!(bench.state().messages().next().is_none());
    }
}

#[test]
fn no_message_leaves_its_crew() {
    let mut bench = Bench::post();
    let first = bench.crew;
    let (other, agent) = (POST.replace("\"crew\"", "\"other\""), bench.agent("all"));
    let plugins = bench.state().crew(first).unwrap().members.len();
    assert_eq!(plugins, 4);
    let wants = "[wants]\nmessages = { send = ['>'], receive = ['>'] }\ntasks = { children = 9 }\n";
    let plugins = ["sender", "mailer", "listener"].map(|name| {
        let exports: &[Export] = match name {
            "sender" => &[Export::Executor],
            "mailer" => &[Export::Executor, Export::Mailbox],
            _ => &[Export::Mailbox],
        };
        plugin(name, exports, "\"work\", \"mail\"", wants)
    });
    bench.assemble_with(&other, &plugins, &Ceiling::default()).unwrap();
    bench.warm();
    assert_ne!(bench.crew, first);
    let deliveries = bench.send(event()).unwrap();
    assert!(deliveries.iter().all(|id| bench.record(*id).crew == bench.crew));
    let rejection = bench.send(to(event(), &agent.to_string())).unwrap_err();
    assert_eq!(
        rejection.reason,
        Reason::NoListener,
        "an id of another crew is nobody's"
    );
}

#[test]
fn the_host_says_who_sent_it_and_when() {
    let mut bench = Bench::post();
    let delivery = bench.sent(event());
    let message = bench.received(delivery);
    assert_eq!(
        (message.source.clone(), message.created, message.crew, message.task),
        (Source::Principal("tests".into()), bench.now, bench.crew, None)
    );
    assert_eq!(message.correlation, message.id.to_string());
    assert_eq!(
        (message.expires, message.receivers),
        (bench.now.after(MAX_MESSAGE_TTL), 3)
    );

    let task = bench.sender();
    let StepResult::Sent(id) = bench.answer(task, StepCall::Send(to(event(), "all"))) else {
        unreachable!("it is allowed")
    };
    let message = bench.state().message(id).unwrap().clone();
    let (id, name) = (bench.agent("sender"), "sender".to_owned());
    assert_eq!((message.source, message.task), (Source::Agent { id, name }, Some(task)));
}

#[test]
fn what_is_sent_in_the_handling_of_a_message_follows_from_it() {
    let mut bench = Bench::post();
    let conversation = Letter {
        correlation: Some("a conversation".into()),
        ..to(event(), "jobs-1")
    };
    let delivery = bench.sent(conversation);
    let first = bench.received(delivery);
    bench.answer(delivery, StepCall::Send(to(letter(Kind::Event, "job.more"), "all")));
    let next = bench.state().messages().last().unwrap().clone();
    assert_eq!(
        (next.causation, next.correlation.as_str()),
        (Some(first.id), "a conversation")
    );
    let own = Letter {
        correlation: Some("another".into()),
        ..to(letter(Kind::Event, "job.more"), "all")
    };
    bench.answer(delivery, StepCall::Send(own));
    let last = bench.state().messages().last().unwrap();
    assert_eq!((last.causation, last.correlation.as_str()), (Some(first.id), "another"));
    assert!(last.seq > next.seq);
}

#[test]
fn a_delivery_is_handled_and_nothing_of_it_stays_in_memory() {
    let mut bench = Bench::post();
    let deliveries = bench.send(event()).unwrap();
    let message = bench.received(deliveries[0]);
    let audited = bench.audit.len();
    for (at, delivery) in deliveries.iter().enumerate() {
        assert!(bench.state().message(message.id).is_some(), "{at} are handled");
        bench.done(*delivery);
        assert_eq!(bench.is(*delivery), TaskState::Completed);
    }
    assert!(bench.state().message(message.id).is_none());
    assert_eq!(bench.state().live_tasks(), 0);
    assert_eq!(bench.audit.len(), audited, "what goes well is not audited");
    let kept = bench.kept(&message);
    assert_eq!(
        (kept.deliveries, kept.until),
        (deliveries, message.created.after(MAX_MESSAGE_TTL))
    );
    assert_eq!(kept.message, message);
}

#[test]
fn a_delivery_asks_no_person() {
    let mut bench = Bench::post();
    let delivery = bench.sent(to(event(), "jobs-1"));
    let question = StepCall::RaiseBlocker {
        question: "what now?".into(),
        expires: None,
    };
    assert_eq!(
        bench.answer(delivery, question),
        StepResult::Refused {
            reason: Reason::CapabilityDenied,
            revision: 0
        }
    );
    assert_eq!(bench.state().approvals().len(), 0);
    bench.done(delivery);
    assert_eq!(bench.is(delivery), TaskState::Completed);
}

#[test]
fn a_failed_delivery_is_tried_again_and_then_is_a_dead_letter() {
    let mut bench = Bench::post();
    let delivery = bench.sent(to(event(), "all"));
    for tried in 1..=4 {
        assert_eq!(bench.given(delivery).1.attempt, tried);
        bench.end(delivery, failed(Retry::Later));
        bench.pass(130_000);
    }
    assert_eq!(
        (bench.is(delivery), ended(&bench.record(delivery))),
        (TaskState::Failed, Some(Reason::Error))
    );
    let dead = bench.heard(Told::MessageDead);
    let message = bench.record(delivery).delivery.unwrap().message;
    assert_eq!(dead.len(), 1);
    assert!(
        dead[0].detail.starts_with(&format!("{message} job.done: no")),
        "{}",
        dead[0].detail
    );
    assert_eq!((dead[0].task, dead[0].reason), (Some(delivery), Some(Reason::Error)));
}

#[test]
fn what_is_delivered_at_most_once_is_not_tried_again() {
    for kind in [Kind::Query, Kind::Response, Kind::Heartbeat] {
        let mut bench = Bench::post();
        let delivery = bench.sent(to(letter(kind, "job.done"), "all"));
        bench.end(delivery, failed(Retry::Later));
        assert_eq!(bench.is(delivery), TaskState::Failed, "{kind}");
        assert!(bench.heard(Told::MessageDead).is_empty(), "{kind}");
    }
}

#[test]
fn a_lost_delivery_is_continued_and_counts_no_try() {
    let mut bench = Bench::post();
    let delivery = bench.sent(to(letter(Kind::Command, "job.do"), "jobs-1"));
    let lease = bench.lease(delivery);
    bench.answer(delivery, StepCall::Send(to(letter(Kind::Event, "job.done"), "all")));
    bench.restart();
    bench.warm();
    assert!(bench.lease(delivery).epoch > lease.epoch);
    assert_eq!((bench.recorded(delivery), bench.given(delivery).1.attempt), (1, 1));
    assert_eq!(bench.end_of(lease, failed(Retry::Never), Vec::new()), Reply::Fenced);
    bench.done(delivery);
    let sent = bench.table(Table::Messages).len();
    assert_eq!(sent, 2, "nothing is sent twice");
}

#[test]
fn expired_messages_are_not_begun() {
    // While it waits for the agent, for the one before it, for its next try, and as it is handed out.
    let short = |letter: Letter| Letter {
        ttl: Some(Millis(2_000)),
        ..letter
    };
    let mut bench = Bench::post();
    let busy = bench.sent(to(event(), "all"));
    let waits = bench.sent(short(to(event(), "all")));
    let keyed = |letter: Letter| Letter {
        partition_key: Some("key".into()),
        ..letter
    };
    bench.sent(keyed(to(event(), "all")));
    let behind = bench.sent(short(keyed(to(event(), "all"))));
    assert_eq!(
        (bench.is(waits), bench.is(behind)),
        (TaskState::Ready, TaskState::Pending)
    );
    bench.pass(2_000);
    for id in [waits, behind] {
        assert_eq!(
            (bench.is(id), ended(&bench.record(id))),
            (TaskState::Failed, Some(Reason::MessageExpired))
        );
    }
    assert_eq!(bench.heard(Told::MessageDead).len(), 2);
    bench.done(busy);

    let mut bench = Bench::post();
    let again = bench.sent(short(to(event(), "all")));
    bench.end(again, failed(Retry::After(Millis(5_000))));
    assert_eq!(bench.is(again), TaskState::RetryWait);
    bench.pass(2_000);
    assert_eq!(ended(&bench.record(again)), Some(Reason::MessageExpired));

    let mut bench = Bench::post();
    let busy = bench.sent(to(event(), "all"));
    let waits = bench.sent(short(to(event(), "all")));
    // The agent comes free at the very time, before the time is looked at.
    bench.now = bench.now.after(Millis(2_000));
    bench.done(busy);
    assert_eq!(ended(&bench.record(waits)), Some(Reason::MessageExpired));
}

#[test]
fn what_has_begun_may_end_after_its_time() {
    let mut bench = Bench::post();
    let delivery = bench.sent(Letter {
        ttl: Some(Millis(1_000)),
        ..to(event(), "all")
    });
    bench.started(delivery);
    bench.pass(1_500);
    bench.done(delivery);
    assert_eq!(bench.is(delivery), TaskState::Completed);
}

#[test]
fn messages_of_one_key_come_one_after_the_other() {
    let mut bench = Bench::post();
    let keyed = |key: &str, priority| Letter {
        partition_key: Some(key.into()),
        ..job(priority)
    };
    let first = bench.sent(keyed("a", Priority::Low));
    let second = bench.sent(keyed("a", Priority::Critical));
    let third = bench.sent(keyed("a", Priority::Critical));
    let other = bench.sent(keyed("b", Priority::Low));
    assert_eq!(bench.held(&[first, second, third, other]), Some(first));
    // While the first one is tried again, others may be received, those of its key not.
    bench.end(first, failed(Retry::Later));
    assert_eq!(bench.held(&[first, second, third, other]), Some(other));
    bench.done(other);
    assert_eq!(bench.held(&[first, second, third]), None);
    bench.pass(130_000);
    assert_eq!(bench.held(&[first, second, third]), Some(first));
    // One that ends in the middle lets nobody overtake.
    bench
        .ask(Command::CancelTask {
            task: second,
            by: "tests".into(),
        })
        .unwrap();
    assert_eq!(bench.is(third), TaskState::Pending);
    let second = bench.sent(keyed("a", Priority::Low));
    // However the first one ends, the next one comes.
    bench.end(first, failed(Retry::Never));
    assert_eq!(bench.held(&[second, third]), Some(third));
    bench.done(third);
    bench.done(second);
}

#[test]
fn each_lane_has_its_turns() {
    let mut bench = Bench::post();
    let busy = bench.sent(job(Priority::Critical));
    let lanes = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];
    let mut all = Vec::new();
    for priority in lanes {
        for _ in 0..20 {
            all.push((priority, bench.sent(job(priority))));
        }
    }
    bench.done(busy);
    let ids: Vec<TaskId> = all.iter().map(|(_, id)| *id).collect();
    let mut turns = [0; 4];
    let mut last = [0_u64; 4];
    for _ in 0..30 {
        let id = bench.held(&ids).unwrap();
        let priority = all.iter().find(|(_, of)| *of == id).unwrap().0;
        let (order, lane) = (bench.record(id).order, priority as usize);
        assert!(order > last[lane], "in a lane the oldest comes first");
        (turns[lane], last[lane]) = (turns[lane] + 1, order);
        bench.done(id);
    }
    assert_eq!(turns, [2, 4, 8, 16]);
}

#[test]
fn what_waits_for_long_moves_up_a_lane() {
    for (age, first) in [(AGEING.0 - 1, false), (AGEING.0, true)] {
        let mut bench = Bench::post();
        let busy = bench.sent(job(Priority::Low));
        bench.started(busy);
        let lease = bench.lease(busy);
        let old = bench.sent(job(Priority::High));
        bench.pass(age / 2);
        let beat = Beat {
            lease,
            crossings: 1,
            fuel: Fuel(1),
            percent: None,
        };
        bench.shard.beats(bench.now, &[beat]);
        bench.pass(age - age / 2);
        let young = bench.sent(job(Priority::Critical));
        assert!(bench.held(&[old, young]).is_none());
        bench.end_of(lease, End::Finished(Outcome::Done(text(""))), Vec::new());
        // In the same lane the older one comes first.
        let held = bench.held(&[old, young]);
        assert_eq!(held == Some(old), first, "after {age} ms");
    }
}

#[test]
fn a_newer_heartbeat_takes_the_place_of_one_that_waits() {
    let mut bench = Bench::post();
    let beat = || to(letter(Kind::Heartbeat, "job.alive"), "all");
    let entries = bench.entries.len();
    let running = bench.sent(beat());
    let waits = bench.sent(beat());
    let other = bench.sent(to(letter(Kind::Heartbeat, "job.other"), "all"));
    let newest = bench.sent(beat());
    assert_eq!(bench.is(waits), TaskState::Cancelled);
    for id in [running, other, newest] {
        assert!(!bench.is(id).is_ended(), "{id}");
    }
    for id in [running, newest, other] {
        let id = bench.held(&[running, newest, other]).unwrap_or(id);
        bench.done(id);
    }
    assert_eq!(bench.entries.len(), entries, "nothing of it is kept");
    assert!(bench.table(Table::Messages).is_empty());
    assert!(bench.state().messages().next().is_none());
}

#[test]
fn an_idempotency_key_is_taken_once() {
    let mut bench = Bench::post();
    let once = |body: &str| Letter {
        idempotency_key: Some("key".into()),
        body: text(body),
        ..to(event(), "all")
    };
    let mail = bench.mail();
    let Ok(Reply::Sent {
        message,
        deliveries,
        repeated: false,
    }) = bench.send_with(once("a"), mail)
    else {
        unreachable!("it is new")
    };
    let again = bench.mail();
    let repeated = Reply::Sent {
        message,
        deliveries: deliveries.clone(),
        repeated: true,
    };
    assert_eq!(bench.send_with(once("a"), again), Ok(repeated));
    assert_eq!(bench.send(once("b")).unwrap_err().reason, Reason::IdempotencyMismatch);
    // An agent's keys are its own.
    let task = bench.sender();
    let StepResult::Sent(own) = bench.answer(task, StepCall::Send(once("a"))) else {
        unreachable!("it is new")
    };
    assert_ne!(own, message);
    assert_eq!(bench.answer(task, StepCall::Send(once("a"))), StepResult::Sent(own));
    assert_eq!(
        bench.answer(task, StepCall::Send(once("b"))),
        StepResult::refused(Reason::IdempotencyMismatch)
    );
    bench.now = bench.now.after(IDEMPOTENCY);
    assert_ne!(
        bench.send(once("b")).unwrap(),
        deliveries,
        "it is forgotten after a day"
    );
    // Also where nobody received it.
    let unheard = Letter {
        idempotency_key: Some("other".into()),
        ..letter(Kind::Error, "nobody")
    };
    let manifest = POST.replace("[\">\", \"job.*\"]", "[\"job.*\"]");
    let mut bench = Bench::post_as(&manifest);
    for repeated in [false, true] {
        let mail = bench.mail();
        let reply = bench.send_with(unheard.clone(), mail).unwrap();
        assert!(matches!(reply, Reply::Sent { repeated: of, .. } if of == repeated));
    }
}

#[test]
fn a_full_mailbox_is_said_and_what_was_accepted_is_kept() {
    let mut bench = Bench::post();
    let sent: Vec<TaskId> = (0..MAX_MAILBOX).map(|_| bench.sent(to(event(), "all"))).collect();
    for of in [to(event(), "all"), event()] {
        let entries = bench.entries.len();
        assert_eq!(bench.send(of).unwrap_err().reason, Reason::Overloaded);
        assert_eq!(bench.entries.len(), entries, "all receive it, or nobody does");
    }
    assert_eq!(bench.send(to(event(), "jobs-1")).unwrap().len(), 1);
    let beat = bench.send(letter(Kind::Heartbeat, "job.alive")).unwrap();
    assert_eq!(bench.receivers(&beat), ["jobs-1", "jobs-2"], "the next one comes soon");
    let task = bench.sender();
    let busy = StepResult::refused(Reason::Overloaded);
    assert_eq!(bench.answer(task, StepCall::Send(to(event(), "all"))), busy);
    bench.done(sent[0]);
    assert!(bench.send(to(event(), "all")).is_ok());
    assert!(sent[1..].iter().all(|id| !bench.is(*id).is_ended()));
}

#[test]
fn a_message_has_so_many_receivers_and_is_so_large() {
    let crowd = |replicas: usize| {
        format!(
            "name = \"crew\"\n[[agent]]\nname = \"all\"\nplugin = \"acme/listener@1.0.0\"\nreplicas = {replicas}\n\
             grants = {{ messages = {{ receive = [\">\"] }} }}\n"
        )
    };
    let mut bench = Bench::post_as(&crowd(MAX_RECEIVERS));
    assert_eq!(bench.send(event()).unwrap().len(), MAX_RECEIVERS);
    let large = Letter {
        body: Payload::Inline(vec![0; 256 << 10]),
        subject: "a".repeat(250).parse().unwrap(),
        correlation: Some("c".repeat(120)),
        ..event()
    };
    assert_eq!(bench.send(large.clone()).unwrap_err().reason, Reason::BodyLimit);
    assert_eq!(bench.send(to(large, "all-7")).unwrap().len(), 1);
}

#[test]
fn what_a_letter_must_not_say_is_refused() {
    let mut bench = Bench::post();
    let bad = Letter {
        ttl: Some(Millis(MAX_MESSAGE_TTL.0 + 1)),
        ..event()
    };
    assert_eq!(bench.send(bad.clone()).unwrap_err().reason, Reason::InvalidInput);
    let task = bench.sender();
    assert_eq!(
        bench.answer(task, StepCall::Send(bad)),
        StepResult::refused(Reason::InvalidInput)
    );
    let lease = bench.lease(task);
    let number = bench.record(task).steps;
    let foreign = Letter {
        body: Payload::Artifact(Artifact {
            digest: skep_rules::id::Digest::of(b"x"),
            size: 1,
            media: "text/plain".into(),
        }),
        ..event()
    };
    let command = Command::Step {
        lease,
        number,
        call: StepCall::Send(foreign),
        child: None,
        mail: None,
    };
    let StepReply::Recorded(recorded) = bench.take_step(command) else {
        unreachable!("it is on record")
    };
    assert_eq!(recorded.step.result, StepResult::refused(Reason::InvalidInput));
    let (crew, letter) = (skep_rules::id::CrewId::new(1 << 99, 0), event());
    let mail = bench.mail();
    let by = "tests".into();
    let unknown = bench.ask(Command::SendMessage { crew, letter, mail, by }).unwrap_err();
    assert_eq!(unknown.reason, Reason::NotFound);
    let none = Mail {
        deliveries: Vec::new(),
        ..bench.mail()
    };
    assert_eq!(bench.send_with(event(), none).unwrap_err().reason, Reason::Overloaded);
    bench
        .ask(Command::DrainCrew {
            crew: bench.crew,
            by: "tests".into(),
        })
        .unwrap();
    assert_eq!(bench.send(event()).unwrap_err().reason, Reason::IllegalTransition);
}

#[test]
fn an_agent_sends_on_the_topics_of_its_grant_only() {
    let mut bench = Bench::post();
    let task = bench.sender();
    for (subject, allowed) in [
        ("job.a", true),
        ("job.a.b", true),
        ("note", true),
        ("job", false),
        ("other", false),
    ] {
        let call = StepCall::Send(letter(Kind::Event, subject));
        let denied = StepResult::refused(Reason::CapabilityDenied);
        assert_eq!(bench.answer(task, call) != denied, allowed, "{subject}");
        let call = StepCall::Request(to(letter(Kind::Query, subject), "nobody"));
        let refused = if allowed {
            Reason::NoListener
        } else {
            Reason::CapabilityDenied
        };
        assert_eq!(bench.answer(task, call), StepResult::refused(refused), "{subject}");
    }
}

/// A task that has asked, and the delivery of its question.
fn asking(bench: &mut Bench) -> (TaskId, TaskId) {
    let task = bench.sender();
    bench.waits(task, StepCall::Request(letter(Kind::Query, "job.question")));
    let request = bench.record(task).wait.unwrap().request.unwrap();
    (task, request)
}

#[test]
fn a_request_is_answered_by_whoever_receives_it() {
    let mut bench = Bench::post();
    let (task, request) = asking(&mut bench);
    assert_eq!(
        (bench.is(task), bench.receiver(request).as_str()),
        (TaskState::Waiting, "jobs-1")
    );
    assert_eq!(bench.received(request).letter.kind, Kind::Query);
    bench.end(request, End::Finished(Outcome::Done(text("an answer"))));
    assert_eq!(bench.results_of(task), [StepResult::Answered(text("an answer"))]);
    assert_eq!((bench.is(task), bench.recorded(task)), (TaskState::Assigned, 1));
    // The other way to the same mailbox.
    let sent = bench.sent(to(letter(Kind::Command, "job.question"), "jobs-1"));
    assert!(matches!(bench.given(sent).0, Call::Receive { .. }));
}

#[test]
fn an_answer_says_why_there_is_none() {
    let answer = |end: End| {
        let mut bench = Bench::post();
        let (task, request) = asking(&mut bench);
        bench.end(request, end);
        bench.results_of(task)
    };
    let large = |bytes| End::Finished(Outcome::Done(Payload::Inline(vec![7; bytes])));
    assert_eq!(answer(failed(Retry::Later)), [StepResult::refused(Reason::Error)]);
    assert_eq!(
        answer(large(MAX_ANSWER_BYTES + 1)),
        [StepResult::refused(Reason::BodyLimit)]
    );
    assert!(matches!(answer(large(MAX_ANSWER_BYTES))[..], [StepResult::Answered(_)]));
}

#[test]
fn a_request_is_over_with_its_time() {
    // The one who could answer works on it.
    let mut bench = Bench::post();
    let (task, request) = asking(&mut bench);
    bench.started(request);
    bench.pass(QUERY_TTL.0);
    assert_eq!(bench.results_of(task), [StepResult::refused(Reason::TimedOut)]);
    assert_eq!(bench.is(request), TaskState::Cancelled);
    // It has not begun.
    let mut bench = Bench::post();
    let busy = bench.sent(to(event(), "all"));
    let task = bench.sender();
    let call = StepCall::Request(Letter {
        ttl: Some(Millis(300)),
        ..to(letter(Kind::Query, "job.question"), "all")
    });
    bench.waits(task, call);
    let request = bench.record(task).wait.unwrap().request.unwrap();
    bench.pass(299);
    assert_eq!(bench.is(task), TaskState::Waiting);
    bench.pass(1);
    assert!(bench.is(request).is_ended());
    assert_eq!(bench.results_of(task), [StepResult::refused(Reason::TimedOut)]);
    bench.done(busy);
}

#[test]
fn a_request_survives_the_host_and_is_answered_once() {
    let mut bench = Bench::post();
    let (task, request) = asking(&mut bench);
    bench.started(request);
    bench.restart();
    bench.warm();
    bench.end(request, End::Finished(Outcome::Done(text("late"))));
    assert_eq!(bench.results_of(task), [StepResult::Answered(text("late"))]);
}

#[test]
fn whoever_asked_and_is_gone_hears_nothing() {
    let mut bench = Bench::post();
    let (task, request) = asking(&mut bench);
    bench
        .ask(Command::CancelTask {
            task,
            by: "tests".into(),
        })
        .unwrap();
    bench.done(request);
    assert_eq!(
        (bench.is(task), bench.is(request)),
        (TaskState::Cancelled, TaskState::Completed)
    );
}

#[test]
fn a_crew_that_drains_receives_no_more() {
    let mut bench = Bench::post();
    let running = bench.sent(to(event(), "all"));
    let waits = bench.sent(to(event(), "all"));
    bench.started(running);
    bench
        .ask(Command::DrainCrew {
            crew: bench.crew,
            by: "tests".into(),
        })
        .unwrap();
    assert_eq!(bench.is(waits), TaskState::Cancelled);
    bench.done(running);
    assert_eq!(bench.is(running), TaskState::Completed);
    assert!(bench.state().messages().next().is_none());
}

#[test]
fn a_check_and_an_ephemeral_task_send_nothing() {
    let mut bench = Bench::post();
    let task = bench.task(|task| {
        task.agent = Some("sender".into());
        task.ephemeral = true;
    });
    let reply = bench.step(task, StepCall::Send(event()));
    assert_eq!(reply, StepReply::Refused(Reason::CapabilityDenied));
}

#[test]
fn a_checkpoint_holds_what_is_not_received() {
    let mut bench = Bench::post();
    let keyed = Letter {
        partition_key: Some("key".into()),
        ..to(event(), "all")
    };
    let (first, second) = (bench.sent(keyed.clone()), bench.sent(keyed));
    let beat = bench.sent(letter(Kind::Heartbeat, "job.alive"));
    bench.start_with(first, |_| {});
    assert!(bench.state().task(beat).is_none(), "a heartbeat is lost with the host");
    assert_eq!(bench.held(&[first, second]), Some(first));
    assert_eq!(bench.received(first).letter.subject.as_str(), "job.done");
    bench.done(first);
    bench.done(second);
    assert!(bench.state().messages().next().is_none());
}

#[test]
fn who_gives_no_sign_of_life_loses_the_message_to_another_try() {
    let mut bench = Bench::post();
    let delivery = bench.sent(to(event(), "all"));
    bench.started(delivery);
    let lease = bench.lease(delivery);
    bench.pass(LEASE.0);
    let again = bench.lease(delivery);
    assert_eq!((again.epoch, again.agent), (lease.epoch + 1, lease.agent));
    assert_eq!(bench.end_of(lease, failed(Retry::Never), Vec::new()), Reply::Fenced);
}

#[test]
fn a_grant_has_no_topic_that_the_plugin_does_not_want() {
    let wants = |topics: &str| {
        let mut bench = Bench::empty();
        let plugins = [plugin("listener", &[Export::Mailbox], "\"mail\"", topics)];
        let manifest = "name = \"crew\"\n[[agent]]\nname = \"all\"\nplugin = \"acme/listener@1.0.0\"\n\
             grants = { messages = { receive = [\"job.*\"], send = [\"note\"] } }\n";
        bench.assemble_with(manifest, &plugins, &Ceiling::default())
    };
    assert!(wants("[wants]\nmessages = { receive = ['job.>'], send = ['*'] }").is_ok());
    for (topics, named) in [
        ("", "the plugin does not want it"),
        (
            "[wants]\nmessages = { receive = ['job.done'], send = ['*'] }",
            "receive has `job.*`",
        ),
        ("[wants]\nmessages = { receive = ['>'] }", "send has `note`"),
    ] {
        let refused = wants(topics).unwrap_err();
        assert_eq!(refused.reason, Reason::CapabilityDenied);
        assert!(refused.message.contains(named), "{}", refused.message);
    }
}

#[test]
fn ids_and_times_are_as_the_driver_drew_them() {
    let mut bench = Bench::post();
    bench.now = Time(7_000_000);
    let mail = bench.mail();
    let message = mail.message;
    let expected = mail.deliveries[..3].to_vec();
    let Ok(Reply::Sent {
        message: id,
        deliveries,
        ..
    }) = bench.send_with(event(), mail)
    else {
        unreachable!("it is allowed")
    };
    assert_eq!((id, deliveries), (message, expected.clone()));
    let agents: Vec<AgentId> = expected.iter().map(|id| bench.record(*id).agent.unwrap()).collect();
    assert_eq!(
        agents,
        [bench.agent("jobs-1"), bench.agent("jobs-2"), bench.agent("all")]
    );
}

#[test]
fn of_a_delivery_a_person_may_ask_what_holds_nothing_up() {
    let mut bench = Bench::post();
    let delivery = bench.sent(to(event(), "all"));
    for request in [Request::Pause, Request::Retry, Request::Resume] {
        let refused = bench.changed(delivery, request).unwrap_err();
        assert_eq!(refused.reason, Reason::IllegalTransition);
        assert_eq!(refused.legal, ["cancel", "reprioritise", "override_result"]);
    }
    bench.end(delivery, failed(Retry::Later));
    assert_eq!(bench.is(delivery), TaskState::RetryWait);
    assert!(bench.changed(delivery, Request::Pause).is_err());
    bench.changed(delivery, Request::Retry).unwrap();
    assert_eq!(bench.held(&[delivery]), Some(delivery));
    bench.changed(delivery, Request::Cancel).unwrap();
    assert_eq!(bench.is(delivery), TaskState::Cancelled);
    // A result that a person gives is the answer.
    let (task, request) = asking(&mut bench);
    let result = Request::OverrideResult {
        result: text("by hand"),
        why: "it is known".into(),
    };
    bench.changed(request, result).unwrap();
    assert_eq!(bench.results_of(task), [StepResult::Answered(text("by hand"))]);
}

#[test]
fn what_cannot_be_received_waits_for_nobody_and_is_no_task_to_be_redriven() {
    for end in [
        failed(Retry::Never),
        End::Finished(Outcome::Accepted),
        End::Stopped {
            reason: Reason::CapabilityDenied,
            message: "no".into(),
        },
    ] {
        let mut bench = Bench::post();
        let delivery = bench.sent(to(event(), "all"));
        bench.end(delivery, end);
        assert_eq!(bench.is(delivery), TaskState::Failed);
        assert_eq!(bench.heard(Told::MessageDead).len(), 1);
        assert_eq!(bench.state().dead_letters().len(), 0);
    }
}

#[test]
fn an_answer_is_kept_for_one_that_a_person_has_paused() {
    let mut bench = Bench::post();
    let (task, request) = asking(&mut bench);
    bench.changed(task, Request::Pause).unwrap();
    bench.end(request, End::Finished(Outcome::Done(text("an answer"))));
    assert_eq!(bench.is(task), TaskState::Paused, "only a person lets it go on");
    assert_eq!(bench.results_of(task), [StepResult::Answered(text("an answer"))]);
    bench.changed(task, Request::Resume).unwrap();
    assert_eq!((bench.is(task), bench.recorded(task)), (TaskState::Assigned, 1));
    // Where none has come in time, it is told so when it goes on.
    let mut bench = Bench::post();
    let (task, request) = asking(&mut bench);
    bench.started(request);
    bench.changed(task, Request::Pause).unwrap();
    bench.pass(QUERY_TTL.0);
    assert_eq!(bench.is(task), TaskState::Paused);
    bench.changed(task, Request::Resume).unwrap();
    bench.pass(1);
    assert_eq!(bench.results_of(task), [StepResult::refused(Reason::TimedOut)]);
    assert_eq!(bench.is(request), TaskState::Cancelled);
}

#[test]
fn messages_and_tasks_have_their_turns_in_the_same_lanes() {
    let mut bench = Bench::post();
    let low = || Letter {
        priority: Priority::Low,
        ..to(event(), "jobs-1")
    };
    let busy = bench.sent(low());
    let [first, second] = [low(), low()].map(|letter| bench.sent(letter));
    let task = bench.task(|task| {
        task.agent = Some("jobs-1".into());
        task.priority = Priority::Critical;
    });
    bench.done(busy);
    assert_eq!(bench.held(&[first, second, task]), Some(task));
    bench
        .changed(second, Request::Reprioritise(Priority::Critical))
        .unwrap();
    bench.done(task);
    assert_eq!(bench.held(&[first, second]), Some(second));
    assert_eq!(bench.record(first).priority, Priority::Low);
}

#[test]
fn a_dead_letter_is_sent_anew_once_to_whoever_lost_it() {
    let mut bench = Bench::post();
    let once = Letter {
        idempotency_key: Some("once".into()),
        ttl: Some(Millis(60_000)),
        ..event()
    };
    let deliveries = bench.send(once).unwrap();
    let [lost, handled, expired] = deliveries[..] else {
        unreachable!("three listen")
    };
    let message = bench.received(lost);
    let redrive = |bench: &mut Bench, delivery| {
        let command = Command::RedriveMessage {
            delivery,
            message: message.id,
            mail: bench.mail(),
            by: "tests".into(),
        };
        let facts = bench.facts_for(command.needs(bench.state()));
        bench.ask_with(&facts, command)
    };
    bench.end(lost, failed(Retry::Never));
    bench.done(handled);
    let illegal = redrive(&mut bench, expired).unwrap_err();
    assert_eq!(illegal.reason, Reason::IllegalTransition, "it is still on its way");
    bench.end(expired, failed(Retry::After(Millis(100_000))));
    bench.pass(60_000);
    assert_eq!(ended(&bench.record(expired)), Some(Reason::MessageExpired));
    let dead = |bench: &Bench| {
        bench
            .state()
            .dead_messages()
            .map(|dead| dead.delivery)
            .collect::<Vec<_>>()
    };
    assert_eq!(dead(&bench), [lost, expired]);
    bench.restart();
    bench.warm();
    assert_eq!(dead(&bench), [lost, expired], "a start forgets none");

    let Ok(Reply::Sent {
        message: again,
        deliveries,
        ..
    }) = redrive(&mut bench, lost)
    else {
        unreachable!("it is a dead letter")
    };
    assert_eq!(bench.receivers(&deliveries), ["jobs-1"]);
    let sent = bench.received(deliveries[0]);
    assert_eq!(
        (sent.id, sent.redrives, sent.causation),
        (again, Some(lost), Some(message.id))
    );
    assert_eq!(
        (&sent.source, &sent.correlation),
        (&message.source, &message.correlation)
    );
    assert_eq!(
        (&sent.letter.body, sent.expires),
        (&message.letter.body, bench.now.after(Millis(60_000)))
    );
    assert_eq!(dead(&bench), [expired]);
    let told = bench.heard(Told::MessageRedriven);
    assert_eq!(
        (told.len(), told[0].task, told[0].detail.as_str()),
        (1, Some(lost), again.to_string().as_str())
    );
    assert_eq!(redrive(&mut bench, lost).unwrap_err().reason, Reason::IllegalTransition);
    // It is a dead letter again where it fails again.
    bench.end(deliveries[0], failed(Retry::Never));
    assert_eq!(dead(&bench), [expired, deliveries[0]]);
}

#[test]
fn what_is_delivered_at_most_once_and_what_was_cancelled_is_no_dead_letter() {
    let mut bench = Bench::post();
    for kind in [Kind::Query, Kind::Response, Kind::Heartbeat] {
        let delivery = bench.sent(to(letter(kind, "job.done"), "all"));
        bench.end(delivery, failed(Retry::Never));
    }
    let cancelled = bench.sent(to(event(), "all"));
    bench.changed(cancelled, Request::Cancel).unwrap();
    assert_eq!(bench.state().dead_messages().len(), 0);
    for _ in 0..=MAX_DEAD_MESSAGES {
        let delivery = bench.sent(to(event(), "all"));
        bench.end(delivery, failed(Retry::Never));
    }
    assert_eq!(
        bench.state().dead_messages().len(),
        MAX_DEAD_MESSAGES,
        "the oldest is one no longer"
    );
}
