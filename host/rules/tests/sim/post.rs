//! Messages in the simulated world: random letters, and the oracle of a queue. Nothing that was accepted is lost, nobody receives what nobody sent to him,
//! nothing comes more often than it may, and what has a key comes in order.

use std::collections::{BTreeMap, BTreeSet};

use skep_rules::{
    audit::Kind as Told,
    command::{Command, Mail},
    crew_record::Crew,
    decide::Reply,
    event::Event,
    facts::Table,
    id::{AgentId, CrewId, MessageId, TaskId},
    limits::MAX_MESSAGE_TTL,
    message::{Class, Kept, Kind, Letter, Message, Target, hears},
    plan::Payload,
    priority::Priority,
    quantity::{Millis, Time},
    reason::Reason,
    seam::{Call, Export},
    shard::Output,
    state::State,
    task::{Task, TaskState},
};

use crate::world::World;

/// What a crew of the simulation grants all its agents.
pub(crate) const TOPICS: &str = "{ send = [\">\"], receive = [\"a.>\", \"*.b\"] }";
const SUBJECTS: &[&str] = &["a.b", "a.c", "c.b", "x"];

/// A letter out of one number.
pub(crate) fn letter(with: u64) -> Letter {
    // What has an idempotency key says the same each time, but for one in eight.
    let once = (with / 7).is_multiple_of(4).then_some(with / 28 % 6);
    let with = once
        .filter(|_| !with.is_multiple_of(8))
        .map_or(with, |key| 1_000_003 * (key + 1));
    let at = |digits: u64, of: u64| usize::try_from(with / digits % of).unwrap();
    let kind = Kind::ALL[at(1, 8)];
    let volatile = kind == Kind::Heartbeat;
    let ttl = [
        None,
        None,
        Some(0),
        Some(1),
        Some(400),
        Some(9_000),
        Some(40_000),
        Some(MAX_MESSAGE_TTL.0 + 1),
    ];
    Letter {
        kind,
        subject: SUBJECTS[at(8, 4)].parse().unwrap(),
        target: match at(32, 8) {
            0 => Target::Agent("all".into()),
            1 => Target::Agent("all-1".into()),
            2 => Target::Role("scan".parse().unwrap()),
            3 => Target::Role("nobody".parse().unwrap()),
            _ => Target::Subscribers,
        },
        body: Payload::Inline(with.to_be_bytes().to_vec()),
        priority: [Priority::Low, Priority::Medium, Priority::High, Priority::Critical][at(256, 4)],
        ttl: ttl[at(1_024, 8)].map(Millis),
        partition_key: (with / 8_192)
            .is_multiple_of(3)
            .then(|| format!("key-{}", at(24_576, 2)))
            .filter(|_| !volatile),
        idempotency_key: once.map(|key| format!("once-{key}")).filter(|_| !volatile),
        correlation: matches!(kind, Kind::Response | Kind::Error).then(|| "a conversation".into()),
        reply_to: None,
        traceparent: None,
        tracestate: None,
        datatype: None,
    }
}

/// A question out of one number.
pub(crate) fn question(with: u64) -> Letter {
    Letter {
        kind: Kind::Query,
        idempotency_key: None,
        ttl: with.is_multiple_of(2).then_some(Millis(90_000)),
        ..letter(with)
    }
}

/// How the task of a delivery is described: what is done in the handling of a message sends none, or there would be no end of them.
pub(crate) fn is_delivery(description: &str) -> bool {
    Kind::ALL
        .iter()
        .any(|kind| description.starts_with(&format!("{kind} ")))
}

impl World {
    /// Somebody outside sends a message to a crew.
    pub(crate) fn send_message(&mut self) {
        let crews: Vec<CrewId> = self.shard.state().crews().map(|crew| crew.id).collect();
        let Some(crew) = self.luck.pick(&crews).copied() else {
            return;
        };
        let letter = letter(self.luck.draw());
        let mail = self.mail(Some(crew), &letter, false);
        let command = Command::SendMessage {
            crew,
            letter,
            mail,
            by: "sim".into(),
        };
        match self.submit(command) {
            Ok(Reply::Sent {
                message,
                deliveries,
                repeated,
            }) => {
                self.saw(if repeated { "message again" } else { "message" });
                self.promise_message(message, deliveries);
            }
            Ok(other) => unreachable!("{other:?}"),
            Err(rejection) => self.note_refused_message(rejection.reason),
        }
    }

    pub(crate) fn note_refused_message(&mut self, reason: Reason) {
        match reason {
            Reason::NoListener => self.saw("no listener"),
            Reason::InvalidInput | Reason::IllegalTransition | Reason::IdempotencyMismatch => {}
            _ => panic!("a message was refused for {reason}"),
        }
    }

    /// Ids for a message, as many as the driver draws under its lock.
    pub(crate) fn mail(&mut self, crew: Option<CrewId>, letter: &Letter, one: bool) -> Mail {
        let state = self.shard.state();
        let receivers = crew.map_or(0, |crew| state.receivers(crew, letter, one).len());
        Mail {
            message: MessageId::new(self.luck.wide(), 1),
            deliveries: (0..receivers).map(|_| TaskId::new(self.luck.wide(), 1)).collect(),
        }
    }

    /// What the shard says to runners and to the disk of messages.
    pub(crate) fn note_messages(&mut self, output: &Output) {
        for entry in &output.entries {
            if let Event::MessageSent(message) = minicbor::decode(entry).expect("an entry is an event") {
                assert!(!message.is_volatile(), "{message:?} is in the journal");
            }
        }
        for entry in output.audit.iter().filter(|entry| entry.kind == Told::MessageDead) {
            self.saw("dead message");
            if entry.reason == Some(Reason::MessageExpired) {
                self.saw("message expired");
            }
        }
        for write in output.writes.iter().filter(|write| write.table == Table::Messages) {
            let kept: Kept = minicbor::decode(write.value.as_ref().unwrap()).unwrap();
            assert_eq!(kept.deliveries.len(), kept.message.receivers as usize);
            assert!(!kept.message.is_volatile());
        }
    }

    /// An attempt begins: what it receives is not too old.
    pub(crate) fn note_received(&mut self, call: &Call, recorded: u64) {
        if let Call::Receive { message } = call {
            assert!(
                recorded > 0 || message.expires > self.now,
                "{message:?} has come too late"
            );
            self.saw("received");
        }
    }
}

/// What holds of messages after every step.
pub(crate) fn check(state: &State, unfinished: bool) {
    let deliveries: Vec<&Task> = state.tasks().filter(|task| task.delivery.is_some()).collect();
    let named: BTreeSet<MessageId> = deliveries
        .iter()
        .filter_map(|task| Some(task.delivery.as_ref()?.message))
        .collect();
    let kept: BTreeSet<MessageId> = state.messages().map(|message| message.id).collect();
    assert_eq!(named, kept, "a message is in memory as long as a delivery of it is");
    let mut receivers = BTreeSet::new();
    for task in &deliveries {
        let message = message_of(state, task);
        receives(state, task, message);
        assert!(receivers.insert((message.id, task.agent)), "{task:?} is the second one");
        assert!(task.run <= message.letter.kind.retries(), "{task:?} comes too often");
    }
    if unfinished {
        return;
    }
    let mut queues: BTreeMap<(AgentId, &str), Vec<&Task>> = BTreeMap::new();
    for task in deliveries
        .iter()
        .filter(|task| !task.state.is_ended() && !task.ephemeral)
    {
        if let (Some(key), Some(agent)) = (task.delivery.as_ref().and_then(|of| of.key.as_deref()), task.agent) {
            queues.entry((agent, key)).or_default().push(task);
        }
    }
    for queue in queues.values_mut() {
        queue.sort_by_key(|task| task.order);
        let waiting = queue.iter().skip(1).all(|task| task.state == TaskState::Pending);
        assert!(waiting, "one overtakes another of its key: {queue:?}");
    }
    for task in state.tasks() {
        if let Some(request) = task.wait.as_ref().and_then(|wait| wait.request) {
            let open = state.task(request).is_some_and(|of| !of.state.is_ended());
            let volatile = state.task(request).is_none();
            assert!(open && !volatile, "{task:?} waits for an answer that was given");
        }
    }
}

/// Whether a delivery waits for another one of its key.
pub(crate) fn is_behind(state: &State, task: &Task) -> bool {
    let key = |task: &Task| Some((task.agent, task.delivery.as_ref()?.key.clone()?));
    let before = |other: &Task| !other.state.is_ended() && other.order < task.order && key(other) == key(task);
    key(task).is_some() && state.tasks().any(before)
}

fn message_of<'a>(state: &'a State, task: &Task) -> &'a Message {
    let id = task.delivery.as_ref().unwrap().message;
    state.message(id).expect("a delivery has its message")
}

/// Whoever receives is of the crew, has a mailbox and listens.
fn receives(state: &State, task: &Task, message: &Message) {
    let crew: &Crew = state.crew(message.crew).expect("its crew is there");
    assert_eq!(task.crew, crew.id);
    let agent = state.agent(task.agent.expect("a delivery is for one agent")).unwrap();
    assert_eq!(agent.crew, crew.id, "a message has left its crew");
    let member = state.member_of(agent).unwrap();
    assert!(member.exports.contains(&Export::Mailbox), "{agent:?} has no mailbox");
    assert!(
        hears(&member.effective.messages.receive, &message.letter.subject),
        "{agent:?} does not listen"
    );
    assert_eq!(task.ephemeral, message.letter.kind.class() == Class::Latest);
    assert!(message.expires > Time(0) && message.created <= message.expires);
}
