//! Work for others, time, and questions to people. Needs the grant `tasks`.
//!
//! An agent that calls nothing of this module does not import the interface and needs no grant. Every call is a durable step, see
//! [the crate](crate#steps): a task may wait for days, through stops and crashes of its host, and holds neither a slot nor memory while it does.
//!
//! ```
//! use std::time::Duration;
//!
//! use skep_sdk::{Executor, Failure, Outcome, RetryPolicy, Task, tasks::{self, Child}};
//!
//! struct Sum;
//!
//! impl Executor for Sum {
//!     fn execute(task: Task) -> Result<Outcome, Failure> {
//!         let parts: Vec<Vec<u64>> = task.input()?;
//!         let mut children = Vec::new();
//!         for part in &parts {
//!             let child = Child {
//!                 roles: vec!["adder".into()],
//!                 retry: RetryPolicy::times(1),
//!                 ..Child::new("add some numbers", part)?
//!             };
//!             children.push(tasks::spawn(&child)?);
//!         }
//!         tasks::sleep_for(Duration::from_secs(3600))?;
//!         let mut sum = 0;
//!         for ended in tasks::await_all(&children, None)? {
//!             sum += ended.output::<u64>()?;
//!         }
//!         Ok(Outcome::json(&sum)?)
//!     }
//! }
//!
//! // A test plays the children.
//! use skep_sdk::double;
//! double::end_children(|child| {
//!     let numbers: Vec<u64> = child.input.parse().unwrap();
//!     Some(tasks::End::Completed(skep_sdk::Payload::json(&numbers.iter().sum::<u64>()).unwrap()))
//! });
//! let outcome = Sum::execute(Task::new("add", &[[1, 2], [3, 4]]).unwrap()).unwrap();
//! assert_eq!(outcome, Outcome::json(&10).unwrap());
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, de::DeserializeOwned};

#[cfg(target_family = "wasm")]
use crate::bindings::imports::skep::agent::tasks as host;
#[cfg(not(target_family = "wasm"))]
use crate::double::tasks as host;
use crate::{Failure, Payload, RetryPolicy, Timeouts, payload};

pub use crate::bindings::imports::skep::agent::tasks::{
    Answer, Child, Decision, End, Ended, Error, Item, Mode, OnTimeout, Request,
};

impl Child {
    /// A child for any agent of the crew, unchecked, retried as the host sees fit. Everything else is set by field:
    /// `Child { roles: vec!["writer".into()], ..Child::new("write it down", &text)? }`.
    ///
    /// # Errors
    /// As [`Payload::json`].
    pub fn new<T: Serialize + ?Sized>(description: impl Into<String>, input: &T) -> Result<Child, payload::Error> {
        Ok(Child {
            description: description.into(),
            input: Payload::json(input)?,
            roles: Vec::new(),
            check: false,
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            priority: None,
        })
    }
}

impl Request {
    /// Whether one thing may be done, decided within a day, and rejected when nobody has decided by then. Everything else is set by field:
    /// `Request { expires_in: Some(3_600_000), ..Request::new("deploy", "it is Friday", "eu-west", &arguments)? }`.
    ///
    /// # Errors
    /// As [`Payload::json`].
    pub fn new<T: Serialize + ?Sized>(
        action: impl Into<String>,
        question: impl Into<String>,
        item: impl Into<String>,
        arguments: &T,
    ) -> Result<Request, payload::Error> {
        Ok(Request {
            action: action.into(),
            question: question.into(),
            items: vec![Item::new(item, arguments)?],
            expires_in: None,
            on_timeout: OnTimeout::Reject,
        })
    }
}

impl Item {
    /// An item with these arguments, as JSON.
    ///
    /// # Errors
    /// As [`Payload::json`].
    pub fn new<T: Serialize + ?Sized>(name: impl Into<String>, arguments: &T) -> Result<Item, payload::Error> {
        let arguments = match Payload::json(arguments)? {
            Payload::Inline(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Payload::Artifact(_) => String::new(),
        };
        Ok(Item {
            name: name.into(),
            arguments,
        })
    }
}

impl Ended {
    /// The child's output, as inline JSON. Where it may be a reference, match on [`end`](Ended::end) and use [`artifacts::parse`](crate::artifacts::parse).
    ///
    /// # Errors
    /// The child did not complete, its output is a reference, or it is not JSON of this shape. None of them is tried again: the child has ended, and
    /// was tried again itself as often as it may.
    pub fn output<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        match &self.end {
            End::Completed(output) => Ok(output.parse_as(&format!("the output of {}", self.task))?),
            End::Failed(reason) => Err(Failure::never(format!("{} failed: {reason}", self.task))),
            End::Cancelled => Err(Failure::never(format!("{} was cancelled", self.task))),
        }
    }
}

/// Give work to others; the id of the child at once. A child that has not ended when this task does is cancelled.
///
/// # Errors
/// Nobody in the crew has one of the roles, the child is not valid, its number or place in the tree passes a bound, the grant was taken back, the
/// attempt has no record (it is a check, or its task is ephemeral) or a full one, or the host has no room now ([`Error::Unavailable`]: trying again
/// may help).
pub fn spawn(child: &Child) -> Result<String, Error> {
    host::spawn(child)
}

/// Wait until all of these children have ended. Gives them in the order in which they were named: every one, or those that have ended when the
/// timeout (at most 30 days) is over first.
///
/// # Errors
/// One of them is not a child of this task, there is none or more than 1,000, or as [`spawn`] for what is no fault of the call.
pub fn await_all(children: &[String], timeout: impl Into<Option<Duration>>) -> Result<Vec<Ended>, Error> {
    host::await_(children, Mode::All, timeout.into().map(milliseconds))
}

/// Wait until one of these children has ended. Gives all that have, in the order in which they were named: at least one, or none when the timeout
/// (at most 30 days) is over first.
///
/// # Errors
/// As [`await_all`].
pub fn await_any(children: &[String], timeout: impl Into<Option<Duration>>) -> Result<Vec<Ended>, Error> {
    host::await_(children, Mode::Any, timeout.into().map(milliseconds))
}

/// Wait until a time, at most 366 days ahead. Returns at once when it has passed.
///
/// # Errors
/// It is too far ahead, or as [`spawn`] for what is no fault of the call.
pub fn sleep_until(time: SystemTime) -> Result<(), Error> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    host::sleep_until(milliseconds(since))
}

/// Wait for so long, at most 366 days. Unlike [`std::thread::sleep`], which is continued after a crash as well, it holds no slot meanwhile.
///
/// # Errors
/// As [`sleep_until`].
pub fn sleep_for(time: Duration) -> Result<(), Error> {
    // A time that no clock can name is too far ahead.
    sleep_until(present().checked_add(time).ok_or(Error::InvalidInput)?)
}

/// Ask a person to allow something before it is done, and wait for the decisions, one per item and in their order. Act on what is approved at once and
/// only once.
///
/// ```
/// use skep_sdk::{Failure, double, tasks::{self, Request}};
///
/// fn deploy(region: &str) -> Result<bool, Failure> {
///     let asked = tasks::ask_approval(&Request::new("deploy", "The tests pass.", region, &serde_json::json!({"version": 7}))?)?;
///     Ok(asked.iter().all(|decision| decision.approved))
/// }
///
/// // A test plays the person; nobody else decides.
/// double::decide(|request, item| request.action == "deploy" && item.name == "eu-west");
/// assert!(deploy("eu-west").unwrap());
/// assert!(!deploy("us-east").unwrap());
/// ```
///
/// # Errors
/// The request is out of its bounds, or as [`spawn`] for what is no fault of the call.
pub fn ask_approval(request: &Request) -> Result<Vec<Decision>, Error> {
    host::ask_approval(request)
}

/// Tell people what the task cannot go on without, and wait for an answer: a day, or as long as said, then the task fails.
///
/// # Errors
/// The question is empty or longer than 4 KiB, the time is out of bounds (a second to 30 days), or as [`spawn`] for what is no fault of the call.
pub fn raise_blocker(question: &str, expires_in: impl Into<Option<Duration>>) -> Result<Answer, Error> {
    host::raise_blocker(question, expires_in.into().map(milliseconds))
}

/// End this run and begin another one of the same task with this input, as JSON, and an empty record: what tasks do that never end, or whose record is
/// full. It returns only when it was refused:
///
/// ```no_run
/// # use skep_sdk::{Failure, Outcome, Task, tasks};
/// fn execute(task: Task) -> Result<Outcome, Failure> {
///     let page: u64 = task.input()?;
///     // ... one page of work ...
///     Err(tasks::continue_with(&(page + 1)))
/// }
/// ```
///
/// Children that have not ended are cancelled. Natively, [`double::continued`](crate::double) catches it.
#[must_use = "it returns only when it was refused: `return Err(continue_with(…))`"]
pub fn continue_with<T: Serialize + ?Sized>(input: &T) -> Failure {
    match Payload::json(input) {
        Ok(input) => continue_with_payload(&input).into(),
        Err(error) => error.into(),
    }
}

/// [`continue_with`] with an input that is not JSON, or lies in an artifact.
#[must_use = "it returns only when it was refused"]
pub fn continue_with_payload(input: &Payload) -> Error {
    host::continue_(input)
}

/// Rounded up: who asks to wait for a microsecond does not ask not to wait.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The present, as the host tells it: it is recorded, and the same when the attempt is continued.
#[expect(
    clippy::disallowed_methods,
    reason = "in a sandbox the clock is the host's, which records it"
)]
pub(crate) fn present() -> SystemTime {
    SystemTime::now()
}

/// A refusal in words, for messages.
pub(crate) fn describe(error: Error) -> &'static str {
    match error {
        Error::NotFound => "nobody in the crew has one of the roles, or the task is not a child of this one",
        Error::InvalidInput => {
            "a text, a list or a time is out of bounds, a role, an id or an artifact is none, or nothing is awaited or asked"
        }
        Error::BudgetExceeded => "the grant's number of children is used up, or the tree is too deep or too large",
        Error::Denied => "the grant was taken back, or the attempt has no record: a check, an ephemeral task",
        Error::RecordFull => "the record of the task is full; go on with tasks::continue_with",
        Error::Unavailable => "the host has no room now",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Retry, double};

    fn three() -> Vec<String> {
        ["a", "b", "c"]
            .map(|input| spawn(&Child::new("a child", input).unwrap()).unwrap())
            .into()
    }

    #[test]
    fn children_are_kept_and_end_as_the_test_says() {
        let children = three();
        double::end_children(|child| match child.input.parse::<String>().unwrap().as_str() {
            "a" => Some(End::Completed(Payload::json(&1).unwrap())),
            "b" => Some(End::Failed("trapped".into())),
            _ => Some(End::Cancelled),
        });
        let ended = await_all(&children, None).unwrap();
        let named: Vec<&String> = ended.iter().map(|ended| &ended.task).collect();
        assert_eq!(named, children.iter().collect::<Vec<_>>());
        assert_eq!(ended[0].output::<u8>().unwrap(), 1);
        assert!(
            ended[0]
                .output::<String>()
                .unwrap_err()
                .message
                .contains("does not parse")
        );
        let failure = ended[1].output::<u8>().unwrap_err();
        assert!(failure.message.ends_with("failed: trapped"), "{}", failure.message);
        assert_eq!(failure.retry, Retry::Never);
        assert!(ended[2].output::<u8>().unwrap_err().message.ends_with("was cancelled"));
        assert_eq!(double::children().len(), 3);
        assert_eq!(double::children()[1].input, Payload::json("b").unwrap());
    }

    #[test]
    fn waits_return_what_has_ended() {
        let children = three();
        assert_eq!(await_all(&children, Duration::from_secs(1)), Ok(vec![]));
        double::end_children(|child| (child.input.parse::<String>().unwrap() == "b").then_some(End::Cancelled));
        let only = [Ended {
            task: children[1].clone(),
            end: End::Cancelled,
        }];
        assert_eq!(await_any(&children, None).unwrap(), only);
        assert_eq!(await_all(&children, Duration::from_secs(1)).unwrap(), only);
        double::end_children(|_| Some(End::Completed(Payload::json(&()).unwrap())));
        let ended = await_all(&children, None).unwrap();
        assert_eq!(ended[1], only[0], "an end is for good");
        assert_eq!(ended.len(), 3);
        assert_eq!(await_any(&[], None), Err(Error::InvalidInput));
        assert_eq!(await_any(&["task_9".into()], None), Err(Error::NotFound));
    }

    #[test]
    fn sleeps_are_told_and_take_no_time() {
        let before = present();
        sleep_for(Duration::from_secs(3600)).unwrap();
        sleep_until(UNIX_EPOCH + Duration::from_micros(1_500)).unwrap();
        let sleeps = double::sleeps();
        assert!(sleeps[0] >= before + Duration::from_secs(3600) && sleeps[0] < before + Duration::from_secs(3660));
        assert_eq!(sleeps[1], UNIX_EPOCH + Duration::from_millis(2), "rounded up");
        assert_eq!(sleep_for(Duration::MAX), Err(Error::InvalidInput));
    }

    #[test]
    fn people_decide_as_the_test_says() {
        let request = Request {
            items: ["a", "b"].map(|name| Item::new(name, &[1]).unwrap()).into(),
            ..Request::new("deploy", "why", "", &()).unwrap()
        };
        double::decide(|_, item| item.name == "b" && item.arguments == "[1]");
        let decided = ask_approval(&request).unwrap();
        let told: Vec<(&str, bool)> = decided
            .iter()
            .map(|decision| (decision.item.as_str(), decision.approved))
            .collect();
        assert_eq!(told, [("a", false), ("b", true)]);
        assert_eq!(double::requests(), [request.clone()]);
        let twice = Request {
            items: vec![request.items[0].clone(); 2],
            ..request
        };
        for wrong in [
            twice.clone(),
            Request { items: vec![], ..twice },
            Request::new("", "why", "a", &()).unwrap(),
            Request::new("a", "x".repeat(5_000), "a", &()).unwrap(),
        ] {
            assert_eq!(ask_approval(&wrong), Err(Error::InvalidInput));
        }
    }

    #[test]
    fn people_answer_as_the_test_says() {
        double::answer(|question| (question == "where?").then(|| "here".into()));
        assert_eq!(raise_blocker("where?", None), Ok(Answer::Answered("here".into())));
        let nobody = raise_blocker("why?", Duration::from_secs(5)).unwrap();
        assert!(matches!(nobody, Answer::Declined(_)));
        assert_eq!(double::questions(), ["where?", "why?"]);
        assert_eq!(raise_blocker("", None), Err(Error::InvalidInput));
        assert_eq!(raise_blocker("a", Duration::from_millis(1)), Err(Error::InvalidInput));
    }

    #[test]
    fn a_run_that_goes_on_as_another_is_caught() {
        let next = double::continued(|| continue_with(&[1, 2]));
        assert_eq!(next.unwrap_err(), Payload::json(&[1, 2]).unwrap());
        assert_eq!(double::continued(|| 7), Ok(7));
        let too_large = double::continued(|| continue_with(&"x".repeat(payload::MAX_INLINE)));
        assert_eq!(too_large.unwrap().retry, Retry::Never);
    }
}
