//! Messages: the envelope around what agents tell each other, the eight types and how each is delivered, and topics, which say who hears what. The host
//! stamps who sent a message, where and when; nothing here is taken from a sender's word. That a message reaches somebody is a task of its own, a
//! *delivery*: see `decide/message.rs`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    id::{AgentId, CrewId, Digest, Error, MessageId, Role, TaskId, text_serde},
    limits::{DEFAULT_RETRIES, LEASE, MAX_KEY_BYTES, MAX_MESSAGE_TTL, MAX_SUBJECT_BYTES, MAX_SUBJECT_NAMES, QUERY_TTL},
    plan::Payload,
    priority::Priority,
    quantity::{Millis, Time},
};

/// What a message is. The type says how it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A sign of life.
    #[n(0)]
    Heartbeat,
    /// A question.
    #[n(1)]
    Query,
    /// An answer that comes later than the call that asked.
    #[n(2)]
    Response,
    /// Something to be done.
    #[n(3)]
    Command,
    /// Something that happened.
    #[n(4)]
    Event,
    /// Something to be known.
    #[n(5)]
    Notification,
    /// Something to work with.
    #[n(6)]
    Data,
    /// Something that failed.
    #[n(7)]
    Error,
}

/// How often a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Once at most, and the newest one of its sender and subject takes the place of one that still waits. Nothing of it is kept.
    Latest,
    /// Never tried again once it has failed.
    AtMostOnce,
    /// Until it has been handled, its time is over or its retries are.
    AtLeastOnce,
}

impl Kind {
    /// All of them.
    pub const ALL: &[Kind] = &[
        Kind::Heartbeat,
        Kind::Query,
        Kind::Response,
        Kind::Command,
        Kind::Event,
        Kind::Notification,
        Kind::Data,
        Kind::Error,
    ];

    /// How often it is delivered.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Kind::Heartbeat => Class::Latest,
            Kind::Query | Kind::Response => Class::AtMostOnce,
            Kind::Command | Kind::Event | Kind::Notification | Kind::Data | Kind::Error => Class::AtLeastOnce,
        }
    }

    /// How long it may be delivered unless its sender says otherwise.
    #[must_use]
    pub fn default_ttl(self) -> Millis {
        match self {
            Kind::Heartbeat => LEASE,
            Kind::Query | Kind::Response => QUERY_TTL,
            Kind::Command | Kind::Event | Kind::Notification | Kind::Data | Kind::Error => MAX_MESSAGE_TTL,
        }
    }

    /// How often a delivery that failed is tried again.
    #[must_use]
    pub fn retries(self) -> u32 {
        match self.class() {
            Class::Latest | Class::AtMostOnce => 0,
            Class::AtLeastOnce => DEFAULT_RETRIES,
        }
    }

    /// Whether somebody must listen for it to be taken at all, however it is addressed.
    #[must_use]
    pub fn needs_listener(self) -> bool {
        matches!(self, Kind::Query | Kind::Response | Kind::Command)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Heartbeat => "heartbeat",
            Kind::Query => "query",
            Kind::Response => "response",
            Kind::Command => "command",
            Kind::Event => "event",
            Kind::Notification => "notification",
            Kind::Data => "data",
            Kind::Error => "error",
        })
    }
}

impl FromStr for Kind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Kind::ALL.iter().copied().find(|kind| kind.to_string() == text);
        found.ok_or_else(|| Error {
            text: text.chars().take(80).collect(),
            expected: "a type of message (heartbeat, query, response, command, event, notification, data, error)",
        })
    }
}

/// Whether a text can be one name of a subject.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// What a message is about: names with dots between, `build.done`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Subject(#[n(0)] String);

impl Subject {
    /// The subject as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let good = text.len() <= MAX_SUBJECT_BYTES
            && text.split('.').count() <= MAX_SUBJECT_NAMES
            && text.split('.').all(is_word);
        good.then(|| Subject(text.to_owned())).ok_or_else(|| Error {
            text: text.chars().take(80).collect(),
            expected: "a subject (1 to 16 names of `a-z A-Z 0-9 - _` with dots between, at most 256 bytes)",
        })
    }
}

text_serde!(Subject);

/// A pattern of subjects: `*` stands for one name, `>` at the end for one or more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Topic(#[n(0)] String);

impl Topic {
    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a subject fits.
    #[must_use]
    pub fn has(&self, subject: &Subject) -> bool {
        fits(self.0.split('.'), subject.0.split('.'))
    }

    /// Whether every subject that fits the other one fits this one.
    #[must_use]
    pub fn covers(&self, other: &Topic) -> bool {
        fits(self.0.split('.'), other.0.split('.'))
    }
}

/// Whether a pattern has all that another one has. A subject is a pattern of itself alone.
fn fits<'a>(mut pattern: impl Iterator<Item = &'a str>, mut other: impl Iterator<Item = &'a str>) -> bool {
    loop {
        match (pattern.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(name)) if name != ">" => {}
            (Some(name), Some(same)) if name == same => {}
            _ => return false,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let (front, last) = text
            .rsplit_once('.')
            .map_or((None, text), |(front, last)| (Some(front), last));
        let inner = |name: &str| name == "*" || is_word(name);
        let good = text.len() <= MAX_SUBJECT_BYTES
            && text.split('.').count() <= MAX_SUBJECT_NAMES
            && front.is_none_or(|front| front.split('.').all(inner))
            && (last == ">" || inner(last));
        good.then(|| Topic(text.to_owned())).ok_or_else(|| Error {
            text: text.chars().take(80).collect(),
            expected: "a topic (1 to 16 names with dots between, at most 256 bytes; `*` for any one name, `>` at the end for all that follow)",
        })
    }
}

text_serde!(Topic);

/// Whether a subject fits one of some topics.
#[must_use]
pub fn hears<'a>(topics: impl IntoIterator<Item = &'a Topic>, subject: &Subject) -> bool {
    topics.into_iter().any(|topic| topic.has(subject))
}

/// For whom a message is. Only those receive it whose grant has a topic for its subject.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// One agent, by its name in the crew or by its id.
    #[n(0)]
    Agent(#[n(0)] String),
    /// Any one agent that has this role.
    #[n(1)]
    Role(#[n(0)] Role),
    /// Every agent of the crew that listens to its subject.
    #[n(2)]
    Subscribers,
}

/// Who sent a message: stamped by the host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An agent of the crew.
    #[n(0)]
    Agent {
        /// Its id.
        #[n(0)]
        id: AgentId,
        /// Its name.
        #[n(1)]
        name: String,
    },
    /// A principal of the host.
    #[n(1)]
    Principal(#[n(0)] String),
}

impl Source {
    /// For keys: no two sources have the same.
    pub(crate) fn key(&self) -> String {
        match self {
            Source::Agent { id, .. } => id.to_string(),
            Source::Principal(name) => format!("principal {name}"),
        }
    }
}

/// A message as its sender writes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Letter {
    /// What it is.
    #[n(0)]
    pub kind: Kind,
    /// What it is about.
    #[n(1)]
    pub subject: Subject,
    /// For whom.
    #[n(2)]
    pub target: Target,
    /// What it says.
    #[n(3)]
    pub body: Payload,
    /// Its lane.
    #[n(4)]
    pub priority: Priority,
    /// How long it may be delivered; [`Kind::default_ttl`] when absent.
    #[n(5)]
    pub ttl: Option<Millis>,
    /// Those of one key come to a receiver one after the other.
    #[n(6)]
    pub partition_key: Option<String>,
    /// The same key of the same source is taken once.
    #[n(7)]
    pub idempotency_key: Option<String>,
    /// The conversation that it belongs to.
    #[n(8)]
    pub correlation: Option<String>,
    /// Where an answer that comes later is welcome.
    #[n(9)]
    pub reply_to: Option<Subject>,
    /// W3C `traceparent`.
    #[n(10)]
    pub traceparent: Option<String>,
    /// W3C `tracestate`, with a `traceparent`.
    #[n(11)]
    pub tracestate: Option<String>,
    /// The schema that its body follows, by its digest: for the receiver; the host does not read it.
    #[n(12)]
    pub datatype: Option<Digest>,
}

impl Letter {
    /// Checks the bounds of every field, and what the type forbids.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let keys = [
            ("partition key", &self.partition_key),
            ("idempotency key", &self.idempotency_key),
            ("correlation", &self.correlation),
        ];
        for (what, text) in keys {
            let good = |text: &String| (1..=MAX_KEY_BYTES).contains(&text.len()) && !text.contains(char::is_control);
            if !text.as_ref().is_none_or(good) {
                return Err(format!(
                    "the {what} has 1 to {MAX_KEY_BYTES} bytes and no control characters"
                ));
            }
        }
        if !self.traceparent.as_deref().is_none_or(is_traceparent) {
            return Err("the traceparent is none: `00-32 digits-16 digits-2 digits`, in hexadecimal".to_owned());
        }
        if self.tracestate.is_some() && self.traceparent.is_none() {
            return Err("a tracestate comes with a traceparent".to_owned());
        }
        if !self.tracestate.as_deref().is_none_or(is_tracestate) {
            return Err(
                "the tracestate is none: up to 32 times `key=value` with commas between, together at most 512 bytes"
                    .to_owned(),
            );
        }
        if !self.body.fits() {
            return Err("the body is larger than 256 KiB; store it as an artifact".to_owned());
        }
        if self.ttl.is_some_and(|ttl| ttl == Millis(0) || ttl > MAX_MESSAGE_TTL) {
            return Err("the time to live is between 1 ms and 24 hours, for which messages are kept".to_owned());
        }
        match self.kind {
            Kind::Heartbeat if self.idempotency_key.is_some() => {
                Err("an idempotency key is remembered longer than a heartbeat lives".to_owned())
            }
            Kind::Heartbeat if self.partition_key.is_some() => {
                Err("a heartbeat has no partition key: the newest takes the place of those before".to_owned())
            }
            Kind::Query if self.target == Target::Subscribers && self.reply_to.is_some() => {
                Err("a query is answered by whoever receives it; `reply-to` is for the other types".to_owned())
            }
            Kind::Response | Kind::Error if self.correlation.is_none() => Err(format!(
                "a message of type `{}` names the correlation that it belongs to",
                self.kind
            )),
            _ => Ok(()),
        }
    }
}

/// `00-` and 32, 16 and 2 lower-case hexadecimal digits, the first two groups not all zero.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    match parts.as_slice() {
        ["00", trace, parent, flags] => {
            hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && some(trace) && some(parent)
        }
        _ => false,
    }
}

/// What W3C's Trace Context 3.3.1 says of a list, keys only by their first byte: up to 32 members of printable ASCII.
fn is_tracestate(text: &str) -> bool {
    let printable = |part: &str| part.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=');
    let member = |member: &str| {
        let named = |(key, value): (&str, &str)| {
            key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && printable(key)
                && printable(value)
                && !value.is_empty()
        };
        member.trim().split_once('=').is_some_and(named)
    };
    text.len() <= 512 && text.split(',').count() <= 32 && text.split(',').all(member)
}

/// One message: what its sender wrote, and what the host stamped.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    #[n(0)]
    pub id: MessageId,
    /// Its crew; it never leaves it.
    #[n(1)]
    pub crew: CrewId,
    /// What the sender wrote.
    #[n(2)]
    pub letter: Letter,
    /// Who sent it.
    #[n(3)]
    pub source: Source,
    /// When the host took it.
    #[n(4)]
    pub created: Time,
    /// Not delivered after.
    #[n(5)]
    pub expires: Time,
    /// The conversation: the sender's word, else that of the message before, else its own id.
    #[n(6)]
    pub correlation: String,
    /// The message in whose handling it was sent.
    #[n(7)]
    pub causation: Option<MessageId>,
    /// The task in whose work it was sent.
    #[n(8)]
    pub task: Option<TaskId>,
    /// Its place in the order in which the host took things; rises, with gaps.
    #[n(9)]
    pub seq: u64,
    /// How many deliveries it has.
    #[n(10)]
    pub receivers: u32,
    /// The delivery of another message, a dead letter, that it tries again.
    #[n(110)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrives: Option<TaskId>,
}

impl Message {
    /// Whether nothing of it is kept.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.letter.kind.class() == Class::Latest
    }

    /// What its deliveries to one receiver are ordered by.
    pub(crate) fn order_key(&self) -> Option<String> {
        match self.is_volatile() {
            // No key of a sender has a control character.
            true => Some(format!("\0{} {}", self.source.key(), self.letter.subject)),
            false => self.letter.partition_key.clone(),
        }
    }
}

/// What a delivery is about: a task that has one calls `mailbox.receive`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delivery {
    /// The message.
    #[n(0)]
    pub message: MessageId,
    /// Its type.
    #[n(1)]
    pub kind: Kind,
    /// Not begun after.
    #[n(2)]
    pub expires: Time,
    /// Deliveries of one key to one receiver come one after the other.
    #[n(3)]
    pub key: Option<String>,
    /// The task that waits for the answer.
    #[n(4)]
    pub asker: Option<TaskId>,
}

/// A message as it is kept for a while after it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// It.
    #[n(0)]
    pub message: Message,
    /// Its deliveries.
    #[n(1)]
    pub deliveries: Vec<TaskId>,
    /// Forgotten after.
    #[n(2)]
    pub until: Time,
}

/// A delivery that is a dead letter, until it is redriven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Dead {
    /// The message.
    #[n(0)]
    pub message: MessageId,
    /// Its delivery.
    #[n(1)]
    pub delivery: TaskId,
}

/// The topics of a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "`{ send = [\"build.*\"], receive = [\"build.>\"] }`"
)]
pub struct Topics {
    /// What may be sent.
    #[n(0)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub send: BTreeSet<Topic>,
    /// What is heard.
    #[n(1)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub receive: BTreeSet<Topic>,
}

impl Topics {
    /// Those of the other that no topic of these covers, and whether they are to be sent (else received).
    #[must_use]
    pub fn beyond<'a>(&self, other: &'a Topics) -> Vec<(bool, &'a Topic)> {
        let covered = |by: &BTreeSet<Topic>, topic: &Topic| by.iter().any(|wide| wide.covers(topic));
        let send = other.send.iter().filter(|topic| !covered(&self.send, topic));
        let receive = other.receive.iter().filter(|topic| !covered(&self.receive, topic));
        send.map(|topic| (true, topic))
            .chain(receive.map(|topic| (false, topic)))
            .collect()
    }
}

impl fmt::Display for Topics {
    /// In words: `send messages on build.*, receive those on build.>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |topics: &BTreeSet<Topic>| topics.iter().map(Topic::as_str).collect::<Vec<_>>().join(", ");
        match (self.send.is_empty(), self.receive.is_empty()) {
            (true, true) => f.write_str("neither send messages nor receive any"),
            (false, true) => write!(f, "send messages to its crew on {}", list(&self.send)),
            (true, false) => write!(f, "receive messages of its crew on {}", list(&self.receive)),
            (false, false) => write!(
                f,
                "send messages to its crew on {}, receive those on {}",
                list(&self.send),
                list(&self.receive)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_the_subjects_that_they_say() {
        for (topic, subject, has) in [
            ("a", "a", true),
            ("a", "a.b", false),
            ("a.b", "a", false),
            ("*", "a", true),
            ("*", "a.b", false),
            (">", "a", true),
            (">", "a.b.c", true),
            ("a.>", "a", false),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("*.b.>", "a.b.c.d", true),
            ("A", "a", false),
        ] {
            let (of, about): (Topic, Subject) = (topic.parse().unwrap(), subject.parse().unwrap());
            assert_eq!(of.has(&about), has, "{topic} {subject}");
        }
    }

    #[test]
    fn a_topic_covers_what_has_no_more_subjects() {
        for (wide, narrow, covers) in [
            (">", ">", true),
            (">", "*", true),
            (">", "a.*.>", true),
            ("*", ">", false),
            ("*", "*", true),
            ("*", "a", true),
            ("a", "*", false),
            ("a.*", "a.>", false),
            ("a.>", "a.*", true),
            ("a.>", "a", false),
            ("a.*.c", "a.b.c", true),
            ("a.b.c", "a.*.c", false),
        ] {
            let (of, other): (Topic, Topic) = (wide.parse().unwrap(), narrow.parse().unwrap());
            assert_eq!(of.covers(&other), covers, "{wide} {narrow}");
        }
    }

    #[test]
    fn what_is_no_subject_and_no_topic_is_refused() {
        let deep = ["a"; MAX_SUBJECT_NAMES + 1].join(".");
        let long = "a".repeat(MAX_SUBJECT_BYTES + 1);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "ä", "a\0", &deep, &long] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
            assert!(bad.parse::<Topic>().is_err(), "{bad}");
        }
        for pattern in ["*", ">", "a.*", "a.>"] {
            assert!(
                pattern.parse::<Subject>().is_err() && pattern.parse::<Topic>().is_ok(),
                "{pattern}"
            );
        }
        for bad in [">.a", "a.>.b", "a*", "**", "a.b>"] {
            assert!(bad.parse::<Topic>().is_err(), "{bad}");
        }
        assert!(["a"; MAX_SUBJECT_NAMES].join(".").parse::<Subject>().is_ok());
    }

    pub(crate) fn letter(kind: Kind) -> Letter {
        Letter {
            kind,
            subject: "a.b".parse().unwrap(),
            target: Target::Subscribers,
            body: Payload::Inline(vec![1]),
            priority: Priority::Medium,
            ttl: None,
            partition_key: None,
            idempotency_key: None,
            correlation: matches!(kind, Kind::Response | Kind::Error).then(|| "c".to_owned()),
            reply_to: None,
            traceparent: None,
            tracestate: None,
            datatype: None,
        }
    }

    #[test]
    fn every_type_has_its_class_its_time_and_its_tries() {
        for (kind, class, ttl, retries, listener) in [
            (Kind::Heartbeat, Class::Latest, 30_000, 0, false),
            (Kind::Query, Class::AtMostOnce, 5_000, 0, true),
            (Kind::Response, Class::AtMostOnce, 5_000, 0, true),
            (Kind::Command, Class::AtLeastOnce, 86_400_000, 3, true),
            (Kind::Event, Class::AtLeastOnce, 86_400_000, 3, false),
            (Kind::Notification, Class::AtLeastOnce, 86_400_000, 3, false),
            (Kind::Data, Class::AtLeastOnce, 86_400_000, 3, false),
            (Kind::Error, Class::AtLeastOnce, 86_400_000, 3, false),
        ] {
            assert_eq!(
                (kind.class(), kind.default_ttl(), kind.retries(), kind.needs_listener()),
                (class, Millis(ttl), retries, listener),
                "{kind}"
            );
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(letter(kind).check(), Ok(()), "{kind}");
        }
        assert_eq!(Kind::ALL.len(), 8);
    }

    #[test]
    fn a_letter_is_refused_for_what_its_type_forbids() {
        let changed = |kind, change: fn(&mut Letter)| {
            let mut letter = letter(kind);
            change(&mut letter);
            letter.check()
        };
        let long = |letter: &mut Letter| letter.partition_key = Some("k".repeat(MAX_KEY_BYTES + 1));
        type Spoil = fn(&mut Letter);
        let cases: [(Kind, Spoil, &str); 12] = [
            (Kind::Event, long, "partition key"),
            (
                Kind::Event,
                |letter| letter.idempotency_key = Some(String::new()),
                "idempotency key",
            ),
            (
                Kind::Event,
                |letter| letter.correlation = Some("a\nb".into()),
                "correlation",
            ),
            (Kind::Event, |letter| letter.ttl = Some(Millis(0)), "time to live"),
            (
                Kind::Event,
                |letter| letter.ttl = Some(Millis(MAX_MESSAGE_TTL.0 + 1)),
                "time to live",
            ),
            (
                Kind::Data,
                |letter| letter.body = Payload::Inline(vec![0; (256 << 10) + 1]),
                "256 KiB",
            ),
            (
                Kind::Event,
                |letter| letter.traceparent = Some("00-0-0-00".into()),
                "traceparent",
            ),
            (
                Kind::Heartbeat,
                |letter| letter.idempotency_key = Some("k".into()),
                "heartbeat",
            ),
            (
                Kind::Heartbeat,
                |letter| letter.partition_key = Some("k".into()),
                "heartbeat",
            ),
            (
                Kind::Query,
                |letter| letter.reply_to = Some("a".parse().unwrap()),
                "query",
            ),
            (Kind::Response, |letter| letter.correlation = None, "`response`"),
            (Kind::Error, |letter| letter.correlation = None, "`error`"),
        ];
        for (kind, change, said) in cases {
            let refused = changed(kind, change).unwrap_err();
            assert!(refused.contains(said), "{kind}: {refused}");
        }
        let whole = |letter: &mut Letter| {
            letter.partition_key = Some("k".repeat(MAX_KEY_BYTES));
            letter.ttl = Some(MAX_MESSAGE_TTL);
            letter.traceparent = Some(format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16)));
        };
        assert_eq!(changed(Kind::Event, whole), Ok(()));
    }

    #[test]
    fn topics_beyond_others_are_named_one_by_one() {
        let topics = |send: &[&str], receive: &[&str]| Topics {
            send: send.iter().map(|topic| topic.parse().unwrap()).collect(),
            receive: receive.iter().map(|topic| topic.parse().unwrap()).collect(),
        };
        let (have, want) = (topics(&["a.*"], &["b.>"]), topics(&["a.b", "a.b.c"], &["b.c", "b"]));
        let beyond: Vec<_> = have
            .beyond(&want)
            .iter()
            .map(|(send, topic)| (*send, topic.as_str()))
            .collect();
        assert_eq!(beyond, [(true, "a.b.c"), (false, "b")]);
        assert!(want.beyond(&want).is_empty());
    }
}
