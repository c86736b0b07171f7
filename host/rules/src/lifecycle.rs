//! What a submitter says of the life of a task, what is remembered of it, and what a person may ask of it in which state. The states are in
//! `task`; what follows from a request is in `decide::lifecycle`.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    agent::Failure,
    id::AgentId,
    limits::{MAX_HISTORY_TEXT_BYTES, MAX_TIMEOUT},
    plan::Payload,
    priority::Priority,
    quantity::{Millis, Time},
    task::{Task, TaskState},
};

/// How long a task may take. None is set unless said; the lease of an attempt has its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Timeouts {
    /// From READY to the lease of an attempt, each time. Then the task is FAILED with `timed-out`.
    #[n(0)]
    pub schedule_to_start: Option<Millis>,
    /// One attempt, where that is shorter than the deadline of the agent's limits. Then the attempt has failed with `deadline-exceeded`.
    #[n(1)]
    pub start_to_close: Option<Millis>,
    /// From its acceptance to its end, whatever it does meanwhile. Then the task is FAILED with `timed-out`.
    #[n(2)]
    pub schedule_to_close: Option<Millis>,
}

impl Timeouts {
    /// Whether every one is within its bounds.
    ///
    /// # Errors
    /// Which is not, and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let range = Millis(1)..=MAX_TIMEOUT;
        let all = [
            ("schedule_to_start", self.schedule_to_start),
            ("start_to_close", self.start_to_close),
            ("schedule_to_close", self.schedule_to_close),
        ];
        let bad = |(_, timeout): &(_, Option<Millis>)| timeout.is_some_and(|timeout| !range.contains(&timeout));
        match all.into_iter().find(bad) {
            Some((name, _)) => Err(format!("the timeout {name} is between 1ms and {MAX_TIMEOUT}")),
            None => Ok(()),
        }
    }
}

/// What becomes of a task, and of its other parts, when a part of its plan fails. The parts of its parts do the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Nothing more begins, what runs is let finish, and the task fails.
    #[default]
    #[n(0)]
    FailFast,
    /// The others go on, and those that depend on it are told; the task has a result as long as the part has one that integrates.
    #[n(1)]
    Collect,
    /// Whoever is nearest above is asked for another way: an agent that has split the task is given it again, with what has failed as a remark, up to
    /// [`crate::limits::MAX_CHECK_ROUNDS`] times, and one that has spawned the part is told of its end. Where nobody can be asked the part is PAUSED
    /// and waits for a person, who tries it again, gives its result or cancels it, and the others go on.
    #[n(2)]
    Escalate,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Past {
    /// Of its lease.
    #[n(0)]
    pub epoch: u64,
    /// Who made it.
    #[n(1)]
    pub agent: AgentId,
    /// When it ended.
    #[n(2)]
    pub at: Time,
    /// Why. The message is cut to [`MAX_HISTORY_TEXT_BYTES`].
    #[n(3)]
    pub failure: Failure,
}

impl Past {
    pub(crate) fn of(epoch: u64, agent: AgentId, at: Time, failure: &Failure) -> Self {
        let message = &failure.message;
        let end = message.floor_char_boundary(MAX_HISTORY_TEXT_BYTES);
        Past {
            epoch,
            agent,
            at,
            failure: Failure {
                reason: failure.reason,
                message: message.get(..end).unwrap_or_default().to_owned(),
            },
        }
    }
}

/// Why a task is PAUSED, where what is to be done about it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Hold {
    /// Its attempts are used up: when it goes on, it has all of them again.
    #[n(0)]
    Exhausted,
    /// A person asked for it, when it was in this state. It goes on where it was.
    #[n(1)]
    Person(#[n(0)] TaskState),
}

/// What a person asks of a task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// End it, and everything beneath it.
    #[n(0)]
    Cancel,
    /// Try it again now: without the rest of a delay, or from the beginning where it is PAUSED.
    #[n(1)]
    Retry,
    /// Hold it, and everything beneath it, until somebody lets it go on.
    #[n(2)]
    Pause,
    /// Let it go on where it stands, and what was held with it.
    #[n(3)]
    Resume,
    /// Give it, and everything beneath it, another place among others.
    #[n(4)]
    Reprioritise(#[n(0)] Priority),
    /// End it with this result, whatever its attempts did.
    #[n(5)]
    OverrideResult {
        /// The result.
        #[n(0)]
        result: Payload,
        /// For the record; 1 to [`crate::limits::MAX_REASON_BYTES`].
        #[n(1)]
        why: String,
    },
}

impl Request {
    /// What it is called in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Request::Cancel => "cancel",
            Request::Retry => "retry",
            Request::Pause => "pause",
            Request::Resume => "resume",
            Request::Reprioritise(_) => "reprioritise",
            Request::OverrideResult { .. } => "override_result",
        }
    }

    /// What may be asked of a task as it is: this is the table.
    #[must_use]
    pub fn legal(task: &Task) -> &'static [&'static str] {
        match (task.state, task.hold) {
            (state, _) if state.is_ended() => &[],
            // A message has a time by which it is received, those behind it wait for it, and how often it comes is its type's to say.
            (TaskState::RetryWait, _) if task.delivery.is_some() => {
                &["cancel", "retry", "reprioritise", "override_result"]
            }
            (TaskState::Paused, _) if task.delivery.is_some() => {
                &["cancel", "resume", "reprioritise", "override_result"]
            }
            _ if task.delivery.is_some() => &["cancel", "reprioritise", "override_result"],
            // It waits already; when it is answered it goes on, unless it is told not to.
            (TaskState::AwaitingApproval | TaskState::Blocked, _) => &["cancel", "reprioritise", "override_result"],
            (TaskState::RetryWait, _) => &["cancel", "retry", "pause", "reprioritise", "override_result"],
            (TaskState::Paused, Some(Hold::Person(_))) => &["cancel", "resume", "reprioritise", "override_result"],
            (TaskState::Paused, _) => &["cancel", "retry", "resume", "reprioritise", "override_result"],
            _ => &["cancel", "pause", "reprioritise", "override_result"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn timeouts_are_bounded() {
        let all: [fn(Millis) -> Timeouts; 3] = [
            |timeout| Timeouts {
                schedule_to_start: Some(timeout),
                ..Timeouts::default()
            },
            |timeout| Timeouts {
                start_to_close: Some(timeout),
                ..Timeouts::default()
            },
            |timeout| Timeouts {
                schedule_to_close: Some(timeout),
                ..Timeouts::default()
            },
        ];
        for of in all {
            assert!(of(Millis(0)).check().is_err());
            assert_eq!(of(Millis(1)).check(), Ok(()));
            assert_eq!(of(MAX_TIMEOUT).check(), Ok(()));
            assert!(of(Millis(MAX_TIMEOUT.0 + 1)).check().is_err());
        }
        assert_eq!(Timeouts::default().check(), Ok(()));
    }

    #[test]
    fn what_is_remembered_of_an_attempt_is_short() {
        let failure = Failure::new(Reason::Trapped, &"ü".repeat(2_000));
        let past = Past::of(1, AgentId::new(1, 0), Time(0), &failure);
        assert_eq!(past.failure.message.len(), MAX_HISTORY_TEXT_BYTES);
    }
}
