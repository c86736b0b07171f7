//! Steps: the calls of an attempt whose answers it could see differently on a second run. Each answer is recorded under the number of its step, so
//! that an attempt which is continued by another is given the same ones again. What is a step, and what it answers, is a closed list here; the
//! runner checks on the way back that the same is asked in the same order.

use std::{collections::BTreeSet, fmt};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    approval::Request,
    id::{Digest, MessageId, Role, TaskId},
    lifecycle::Timeouts,
    message::Letter,
    plan::{Artifact, Payload},
    priority::Priority,
    quantity::{Millis, Time},
    reason::Reason,
    retry::Policy,
    seam::DependencyEnd,
    state::{Corrupt, encode, none},
};

/// What an attempt asks.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum StepCall {
    /// Read a key: its newest revision, or the one named.
    #[n(0)]
    Get {
        /// The key.
        #[n(0)]
        key: String,
        /// Which revision.
        #[n(1)]
        revision: Option<u64>,
    },
    /// Write a key.
    #[n(1)]
    Put {
        /// The key.
        #[n(0)]
        key: String,
        /// The value.
        #[cbor(n(1), with = "minicbor::bytes")]
        value: Vec<u8>,
        /// The revision that it must have, 0 for none; whatever it has when absent.
        #[n(2)]
        expected: Option<u64>,
    },
    /// Remove a key.
    #[n(2)]
    Delete {
        /// The key.
        #[n(0)]
        key: String,
        /// The revision that it must have; whatever it has when absent.
        #[n(1)]
        expected: Option<u64>,
    },
    /// List keys.
    #[n(3)]
    List {
        /// What they begin with.
        #[n(0)]
        prefix: String,
        /// Those after this one.
        #[n(1)]
        after: Option<String>,
        /// At most so many.
        #[n(2)]
        limit: u32,
    },
    /// List the revisions of a key.
    #[n(4)]
    History {
        /// The key.
        #[n(0)]
        key: String,
    },
    /// Make a child.
    #[n(5)]
    Spawn(#[n(0)] Child),
    /// Wait for children.
    #[n(6)]
    Await {
        /// Which.
        #[n(0)]
        tasks: Vec<TaskId>,
        /// For all of them, rather than for the first.
        #[n(1)]
        all: bool,
        /// No longer than that.
        #[n(2)]
        timeout: Option<Millis>,
    },
    /// Wait for a time.
    #[n(7)]
    Sleep {
        /// Which.
        #[n(0)]
        until: Time,
    },
    /// The clock moves on: to the present after many reads, or to where an alarm of `wasi:clocks` stands, which has come.
    #[n(8)]
    Clock {
        /// The alarm's time; the present when absent.
        #[n(0)]
        alarm: Option<Time>,
    },
    /// The host's wish is another than at the last beat.
    #[n(9)]
    Directive {
        /// Beats since the step before, this one included.
        #[n(0)]
        beats: u64,
        /// To finish, rather than to carry on.
        #[n(1)]
        drain: bool,
    },
    /// An artifact was stored. Its bytes are durable before.
    #[n(10)]
    PutArtifact(#[n(0)] Artifact),
    /// A piece of an artifact was read. The bytes are not recorded: they are read again.
    #[n(11)]
    ReadArtifact {
        /// Which.
        #[n(0)]
        digest: Digest,
        /// From where.
        #[n(1)]
        offset: u64,
        /// How much at most.
        #[n(2)]
        length: u32,
        /// Why it was refused, if it was.
        #[n(3)]
        refused: Option<Reason>,
    },
    /// Send a message.
    #[n(80)]
    Send(#[n(0)] Letter),
    /// Send a question and wait for its answer.
    #[n(81)]
    Request(#[n(0)] Letter),
    /// Ask a person to allow something.
    #[n(100)]
    AskApproval(#[n(0)] Request),
    /// Ask a person for what the run cannot go on without.
    #[n(101)]
    RaiseBlocker {
        /// What it needs.
        #[n(0)]
        question: String,
        /// How long a person has.
        #[n(1)]
        expires: Option<Millis>,
    },
}

/// A child as its parent asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Child {
    /// For people.
    #[n(0)]
    pub description: String,
    /// What to work on.
    #[n(1)]
    pub input: Payload,
    /// An agent with one of them may take it; any agent when empty.
    #[n(2)]
    pub roles: BTreeSet<Role>,
    /// Have the result checked.
    #[n(3)]
    pub check: bool,
    /// How often it may be tried again; the host's default when absent.
    #[n(4)]
    pub max_retries: Option<u32>,
    /// How failures are tried again, beside how often.
    #[n(5)]
    #[cbor(default, skip_if = "none")]
    pub retry: Policy,
    /// How long it may take.
    #[n(6)]
    #[cbor(default, skip_if = "none")]
    pub timeouts: Timeouts,
    /// Its lane; its parent's when absent.
    #[n(7)]
    pub priority: Option<Priority>,
}

/// What a step answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum StepResult {
    /// It is so.
    #[n(0)]
    Done,
    /// A value, if there is one.
    #[n(1)]
    Value(#[n(0)] Option<Value>),
    /// A key was written: its revision now.
    #[n(2)]
    Written(#[n(0)] u64),
    /// A key was removed, if it was there.
    #[n(3)]
    Deleted(#[n(0)] bool),
    /// Keys and their revisions.
    #[n(4)]
    Keys {
        /// In the order of their bytes.
        #[n(0)]
        keys: Vec<(String, u64)>,
        /// There are more.
        #[n(1)]
        more: bool,
    },
    /// Revisions and when they were written, the newest first.
    #[n(5)]
    Versions(#[n(0)] Vec<(u64, Time)>),
    /// The child.
    #[n(6)]
    Spawned(#[n(0)] TaskId),
    /// The children that have ended, in the order asked. How they ended is their own record's to say: see [`Recorded::ends`].
    #[n(7)]
    Ended(#[n(0)] Vec<TaskId>),
    /// Refused.
    #[n(8)]
    Refused {
        /// Why.
        #[n(0)]
        reason: Reason,
        /// With [`Reason::Conflict`], the revision that the key has; 0 where it is not there.
        #[n(1)]
        revision: u64,
    },
    /// An artifact was stored, or a piece of it read: this one.
    #[n(9)]
    Artifact(#[n(0)] Digest),
    /// A message was taken.
    #[n(80)]
    Sent(#[n(0)] MessageId),
    /// A request was answered; at most [`crate::limits::MAX_ANSWER_BYTES`].
    #[n(81)]
    Answered(#[n(0)] Payload),
    /// What a person has decided, in the order of the items.
    #[n(100)]
    Decided(#[n(0)] Vec<Decided>),
}

/// What a person has decided about one item, as the agent is told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Decided {
    /// It may be done.
    #[n(0)]
    pub approved: bool,
    /// What the person said.
    #[n(1)]
    pub remark: String,
}

impl StepResult {
    /// Refused for a reason that says all.
    #[must_use]
    pub fn refused(reason: Reason) -> Self {
        StepResult::Refused { reason, revision: 0 }
    }
}

/// A value of the crew's state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Value {
    /// The bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Its revision.
    #[n(1)]
    pub revision: u64,
    /// When it was written.
    #[n(2)]
    pub at: Time,
}

/// What a step was called for, as far as a second run is held against it: its name and a digest of its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Asked {
    /// The name: `state.put`.
    #[n(0)]
    pub name: StepName,
    /// The first half of the SHA-256 of the encoded call.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub arguments: [u8; 16],
}

impl fmt::Display for Asked {
    /// `state.put (1f0c…)`: the name, and enough of the digest to tell two calls apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.name)?;
        self.arguments
            .iter()
            .take(4)
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

/// One entry of a task's record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Step {
    /// What was asked.
    #[n(0)]
    pub asked: Asked,
    /// When it was answered: the agent's clock stands there until the next step. Never before the step before.
    #[n(1)]
    pub at: Time,
    /// What was answered.
    #[n(2)]
    pub result: StepResult,
}

/// A step as an attempt is given it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Recorded {
    /// The step.
    #[n(0)]
    pub step: Step,
    /// With [`StepResult::Ended`], how each of the children ended; named by their ids.
    #[n(1)]
    pub ends: Vec<DependencyEnd>,
}

/// Reads encoded steps, one behind the other.
///
/// # Errors
/// When they are not ours, or cut short.
pub fn read_steps(bytes: &[u8]) -> Result<Vec<Step>, Corrupt> {
    read_steps_after(bytes, 0)
}

/// The same without the first of them: who goes on with a run wants the last of some hundred.
///
/// # Errors
/// As [`read_steps`].
pub fn read_steps_after(bytes: &[u8], passed: u64) -> Result<Vec<Step>, Corrupt> {
    let corrupt = |error: minicbor::decode::Error| Corrupt::Undecodable {
        what: "a step",
        message: error.to_string(),
    };
    let mut decoder = minicbor::Decoder::new(bytes);
    let (mut at, mut steps) = (0, Vec::new());
    while decoder.position() < bytes.len() {
        match at < passed {
            true => decoder.skip().map_err(corrupt)?,
            false => steps.push(decoder.decode().map_err(corrupt)?),
        }
        at += 1;
    }
    Ok(steps)
}

macro_rules! names {
    ($($number:literal $name:ident $text:literal;)*) => {
        /// The name of a step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[cbor(index_only)]
        pub enum StepName {
            $(#[doc = concat!("`", $text, "`")] #[n($number)] #[serde(rename = $text)] $name,)*
        }

        impl fmt::Display for StepName {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(StepName::$name => $text),* })
            }
        }
    };
}

names! {
    0 Get "state.get";
    1 Put "state.put";
    2 Delete "state.delete";
    3 List "state.list";
    4 History "state.history";
    5 Spawn "tasks.spawn";
    6 Await "tasks.await";
    7 Sleep "tasks.sleep-until";
    8 Clock "clock";
    9 Directive "heartbeat.beat";
    10 PutArtifact "artifacts.finish";
    11 ReadArtifact "artifacts.read";
    80 Send "messages.send";
    81 Request "messages.request";
    100 AskApproval "tasks.ask-approval";
    101 RaiseBlocker "tasks.raise-blocker";
}

impl StepCall {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> StepName {
        match self {
            StepCall::Get { .. } => StepName::Get,
            StepCall::Put { .. } => StepName::Put,
            StepCall::Delete { .. } => StepName::Delete,
            StepCall::List { .. } => StepName::List,
            StepCall::History { .. } => StepName::History,
            StepCall::Spawn(_) => StepName::Spawn,
            StepCall::Await { .. } => StepName::Await,
            StepCall::Sleep { .. } => StepName::Sleep,
            StepCall::Clock { .. } => StepName::Clock,
            StepCall::Directive { .. } => StepName::Directive,
            StepCall::PutArtifact(_) => StepName::PutArtifact,
            StepCall::ReadArtifact { .. } => StepName::ReadArtifact,
            StepCall::Send(_) => StepName::Send,
            StepCall::Request(_) => StepName::Request,
            StepCall::AskApproval(_) => StepName::AskApproval,
            StepCall::RaiseBlocker { .. } => StepName::RaiseBlocker,
        }
    }

    /// Whether it makes something that needs an id: a child, or what a person is asked.
    #[must_use]
    pub fn makes(&self) -> bool {
        matches!(
            self,
            StepCall::Spawn(_) | StepCall::AskApproval(_) | StepCall::RaiseBlocker { .. }
        )
    }

    /// What a second run is held against. What the host found out itself (the present, why a read was refused) is no argument.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let encoded = match self {
            StepCall::ReadArtifact {
                digest, offset, length, ..
            } => encode(&StepCall::ReadArtifact {
                digest: *digest,
                offset: *offset,
                length: *length,
                refused: None,
            }),
            call => encode(call),
        };
        let digest: [u8; 32] = Sha256::digest(&encoded).into();
        let mut arguments = [0; 16];
        arguments.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Asked {
            name: self.name(),
            arguments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_apart_and_what_the_host_found_is_not() {
        let put = |key: &str, value: &[u8]| StepCall::Put {
            key: key.into(),
            value: value.into(),
            expected: None,
        };
        assert_eq!(put("a", b"1").asked(), put("a", b"1").asked());
        assert_ne!(put("a", b"1").asked(), put("a", b"2").asked());
        assert_ne!(put("a", b"1").asked(), put("b", b"1").asked());
        let read = |refused| StepCall::ReadArtifact {
            digest: Digest::of(b""),
            offset: 0,
            length: 9,
            refused,
        };
        assert_eq!(read(None).asked(), read(Some(Reason::NotFound)).asked());
        assert!(put("a", b"1").asked().to_string().starts_with("state.put ("));
    }

    #[test]
    fn steps_survive_their_encoding() {
        let step = Step {
            asked: StepCall::Get {
                key: "k".into(),
                revision: None,
            }
            .asked(),
            at: Time(5),
            result: StepResult::Value(Some(Value {
                bytes: vec![1, 2],
                revision: 3,
                at: Time(4),
            })),
        };
        assert_eq!(minicbor::decode::<Step>(&encode(&step)).unwrap(), step);
    }
}
