//! Messages to others of the crew. Needs the grant `messages` with the topics on which the agent sends.
//!
//! An agent that calls nothing of this module does not import the interface and needs no grant. Every call is a durable step, see
//! [the crate](crate#steps): what was sent is sent once, also when the attempt is continued after a crash. To receive, implement
//! [`Mailbox`](crate::Mailbox).
//!
//! ```
//! use skep_sdk::{Executor, Failure, MessageKind, Outcome, Task, messages::{self, Letter}};
//!
//! struct Build;
//!
//! impl Executor for Build {
//!     fn execute(task: Task) -> Result<Outcome, Failure> {
//!         let target: String = task.input()?;
//!         // Who answers is whoever in the crew listens to the subject.
//!         let cached: bool = messages::request(&Letter::question("cache.has", &target)?)?.parse()?;
//!         messages::send(&Letter {
//!             partition_key: Some(target.clone()),
//!             ..Letter::new(MessageKind::Event, "build.done", &target)?
//!         })?;
//!         Ok(Outcome::json(&cached)?)
//!     }
//! }
//!
//! // A test plays who answers.
//! use skep_sdk::{Payload, double};
//! double::answer_requests(|letter| {
//!     assert_eq!(letter.subject, "cache.has");
//!     Ok(Payload::json(&true).unwrap())
//! });
//! let outcome = Build::execute(Task::new("build", "app").unwrap()).unwrap();
//! assert_eq!(outcome, Outcome::json(&true).unwrap());
//! assert_eq!(double::sent()[0].subject, "build.done");
//! ```

use serde::{Serialize, de::DeserializeOwned};

#[cfg(target_family = "wasm")]
use crate::bindings::imports::skep::agent::messages as host;
#[cfg(not(target_family = "wasm"))]
use crate::double::messages as host;
use crate::{Message, MessageKind, Payload, Priority, Sender, payload};

pub use crate::bindings::imports::skep::agent::messages::{Error, Letter, Target};

impl Letter {
    /// A letter to everybody who listens to its subject, of medium priority, with a body as JSON. Everything else is set by field:
    /// `Letter { target: Target::Agent("cache".into()), ..Letter::new(MessageKind::Command, "cache.drop", &key)? }`.
    ///
    /// # Errors
    /// As [`Payload::json`].
    pub fn new<T: Serialize + ?Sized>(
        kind: MessageKind,
        subject: impl Into<String>,
        body: &T,
    ) -> Result<Letter, payload::Error> {
        Ok(Letter {
            kind,
            subject: subject.into(),
            target: Target::Subscribers,
            body: Payload::json(body)?,
            priority: Priority::Medium,
            ttl: None,
            partition_key: None,
            idempotency_key: None,
            correlation: None,
            reply_to: None,
            datatype: None,
        })
    }

    /// A letter for [`request`], to whoever listens to its subject.
    ///
    /// # Errors
    /// As [`Payload::json`].
    pub fn question<T: Serialize + ?Sized>(subject: impl Into<String>, body: &T) -> Result<Letter, payload::Error> {
        Letter::new(MessageKind::Query, subject, body)
    }
}

impl Message {
    /// A first delivery with nothing but a type, a subject and an inline body: what a unit test of a mailbox starts from.
    ///
    /// # Errors
    /// As [`Payload::json`].
    pub fn new<T: Serialize + ?Sized>(
        kind: MessageKind,
        subject: impl Into<String>,
        body: &T,
    ) -> Result<Message, payload::Error> {
        Ok(Message {
            id: "message_0".into(),
            kind,
            subject: subject.into(),
            sender: Sender::Principal("tests".into()),
            correlation: "message_0".into(),
            causation: None,
            reply_to: None,
            priority: Priority::Medium,
            created_at: 0,
            expires_at: u64::MAX,
            partition_key: None,
            idempotency_key: None,
            traceparent: None,
            tracestate: None,
            datatype: None,
            delivery: 1,
            body: Payload::json(body)?,
        })
    }

    /// What it says, as inline JSON. Use `artifacts::parse(&message.body)` where it may be a reference.
    ///
    /// # Errors
    /// The body is a reference, or not JSON of this shape. As a [`Failure`](crate::Failure) it is never tried again.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, payload::Error> {
        self.body.parse_as("the body")
    }
}

/// Hand a message over; its id as soon as it is accepted.
///
/// # Errors
/// Nobody listens who must, a mailbox is full ([`Error::Busy`]: trying again later may help), the letter is none, its subject is not among the topics of
/// the grant, the grant was taken back, or the attempt has no record (it is a check, or its task is ephemeral) or a full one.
pub fn send(letter: &Letter) -> Result<String, Error> {
    host::send(letter)
}

/// Ask one agent and wait for what its mailbox answers, as long as the letter lives: 5 seconds unless it says otherwise.
///
/// # Errors
/// Nobody listens, which is told at once; the time is over; whoever received it failed; or as [`send`].
pub fn request(letter: &Letter) -> Result<Payload, Error> {
    host::request(letter)
}

/// A refusal in words, for messages.
pub(crate) fn describe(error: Error) -> &'static str {
    match error {
        Error::NoListener => "nobody who could receive it listens to its subject",
        Error::InvalidInput => {
            "a subject, a key, a time or an artifact is none, or the idempotency key had another letter"
        }
        Error::Busy => "the mailbox of a receiver, or the host, is full",
        Error::TimedOut => "the time was over before the answer came",
        Error::Failed => "whoever received it failed, or answered too much",
        Error::Denied => "the subject is not granted, the grant was taken back, or the attempt has no record",
        Error::RecordFull => "the record of the task is full; go on with tasks::continue_with",
        Error::Unavailable => "the host could not take it now",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Failure, Retry, double};

    #[test]
    fn what_was_sent_is_kept_and_requests_are_answered_as_the_test_says() {
        let letter = Letter::new(MessageKind::Event, "job.done", &7).unwrap();
        assert_eq!(send(&letter).unwrap(), "message_1");
        assert_eq!(double::sent(), [letter]);
        let question = Letter::question("job.question", "why").unwrap();
        assert_eq!(request(&question), Err(Error::NoListener), "until a test answers");
        double::answer_requests(|letter| match letter.body.parse::<String>().unwrap().as_str() {
            "why" => Ok(Payload::json("because").unwrap()),
            _ => Err(Error::TimedOut),
        });
        assert_eq!(request(&question).unwrap().parse::<String>().unwrap(), "because");
        let other = Letter::question("job.question", "when").unwrap();
        assert_eq!(request(&other), Err(Error::TimedOut));
    }

    #[test]
    fn a_query_is_not_sent_and_a_subject_is_one() {
        let query = Letter::question("job.question", &()).unwrap();
        assert_eq!(send(&query), Err(Error::InvalidInput));
        for bad in ["", "a..b", "a.*", "a b"] {
            let letter = Letter::new(MessageKind::Event, bad, &()).unwrap();
            assert_eq!(send(&letter), Err(Error::InvalidInput), "{bad}");
        }
    }

    #[test]
    fn a_body_is_read_by_shape() {
        let message = Message::new(MessageKind::Event, "job.done", &[1, 2]).unwrap();
        assert_eq!(message.body::<Vec<u8>>().unwrap(), [1, 2]);
        let failure = Failure::from(message.body::<String>().unwrap_err());
        assert_eq!(failure.retry, Retry::Never);
        assert!(
            failure.message.starts_with("the body does not parse"),
            "{}",
            failure.message
        );
    }
}
