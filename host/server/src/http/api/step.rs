//! The record of a task as it is read: its steps, in the order in which they were taken.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_rules::{
    id::{Digest, MessageId, TaskId},
    plan::Payload,
    quantity::Time,
    reason::Reason,
    seam::DependencyEnd,
    step::{Decided, Recorded, StepName, StepResult},
};
use utoipa::ToSchema;

use super::content;

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its place in the record, 0 for the first.
    pub number: u64,
    /// What was asked: `state.put`.
    #[schema(value_type = String)]
    pub name: StepName,
    /// The first half of the SHA-256 of the arguments, in hexadecimal digits.
    pub arguments: String,
    /// When it was answered.
    #[schema(value_type = u64)]
    pub at: Time,
    /// What was answered.
    pub answer: Answer,
}

/// What a step answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Answer {
    /// It is so.
    Done,
    /// The key is not there.
    Nothing,
    /// A value.
    Value {
        /// It, in the form of [`super::content`].
        value: Value,
        /// Its revision.
        revision: u64,
        /// When it was written.
        #[schema(value_type = u64)]
        at: Time,
    },
    /// A key was written.
    Written {
        /// Its revision now.
        revision: u64,
    },
    /// A key was removed.
    Deleted {
        /// Whether it was there.
        found: bool,
    },
    /// Keys.
    Keys {
        /// Each with its revision.
        #[schema(value_type = Vec<Vec<Value>>)]
        keys: Vec<(String, u64)>,
        /// There are more.
        more: bool,
    },
    /// Revisions of a key, the newest first.
    Versions {
        /// Each with the time at which it was written.
        #[schema(value_type = Vec<Vec<u64>>)]
        versions: Vec<(u64, Time)>,
    },
    /// A child was made.
    Spawned {
        /// Which.
        #[schema(value_type = String)]
        task: TaskId,
    },
    /// Children have ended.
    Ended {
        /// Which, and how; their results are theirs to tell.
        ends: Vec<End>,
    },
    /// An artifact was stored or read.
    Artifact {
        /// Which.
        #[schema(value_type = String)]
        digest: Digest,
    },
    /// A message was taken.
    Sent {
        /// Which.
        #[schema(value_type = String)]
        message: MessageId,
    },
    /// A request was answered.
    Answered {
        /// With what.
        answer: Value,
    },
    /// A person has decided, item by item.
    Decided {
        /// How.
        #[schema(value_type = Vec<Object>)]
        items: Vec<Decided>,
    },
    /// It was refused.
    Refused {
        /// Why.
        #[schema(value_type = String)]
        code: Reason,
        /// With `conflict`, the revision that the key had; 0 where it was not there.
        revision: u64,
    },
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Which.
    pub task: String,
    /// Why it has no result; absent where it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub code: Option<Reason>,
}

impl From<&DependencyEnd> for End {
    fn from(end: &DependencyEnd) -> Self {
        End {
            task: end.name.clone(),
            code: end.output.as_ref().err().copied(),
        }
    }
}

impl Step {
    /// A step of a record.
    #[must_use]
    pub fn of(number: u64, recorded: Recorded) -> Self {
        let Recorded { step, ends } = recorded;
        Step {
            number,
            name: step.asked.name,
            arguments: step.asked.arguments.iter().map(|byte| format!("{byte:02x}")).collect(),
            at: step.at,
            answer: Answer::of(step.result, &ends),
        }
    }
}

impl Answer {
    fn of(result: StepResult, ends: &[DependencyEnd]) -> Self {
        match result {
            StepResult::Done => Answer::Done,
            StepResult::Value(None) => Answer::Nothing,
            StepResult::Value(Some(value)) => Answer::Value {
                value: content::to_json(&Payload::Inline(value.bytes)),
                revision: value.revision,
                at: value.at,
            },
            StepResult::Written(revision) => Answer::Written { revision },
            StepResult::Deleted(found) => Answer::Deleted { found },
            StepResult::Keys { keys, more } => Answer::Keys { keys, more },
            StepResult::Versions(versions) => Answer::Versions { versions },
            StepResult::Spawned(task) => Answer::Spawned { task },
            StepResult::Ended(_) => Answer::Ended {
                ends: ends.iter().map(End::from).collect(),
            },
            StepResult::Artifact(digest) => Answer::Artifact { digest },
            StepResult::Sent(message) => Answer::Sent { message },
            StepResult::Answered(answer) => Answer::Answered {
                answer: content::to_json(&answer),
            },
            StepResult::Decided(items) => Answer::Decided { items },
            StepResult::Refused { reason, revision } => Answer::Refused { code: reason, revision },
        }
    }
}

/// Characters of a value that one line shows.
const SHOWN: usize = 80;

fn shown(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = value.to_string();
    let cut: String = text.chars().take(SHOWN).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    write!(f, "{cut}{more}")
}

impl fmt::Display for Answer {
    /// One line for people; a long value is cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => f.write_str("done"),
            Answer::Nothing => f.write_str("not there"),
            Answer::Value { value, revision, .. } => {
                write!(f, "revision {revision}: ")?;
                shown(value, f)
            }
            Answer::Sent { message } => write!(f, "{message}"),
            Answer::Answered { answer } => shown(answer, f),
            Answer::Written { revision } => write!(f, "written as revision {revision}"),
            Answer::Deleted { found: true } => f.write_str("removed"),
            Answer::Deleted { found: false } => f.write_str("was not there"),
            Answer::Keys { keys, more } => {
                write!(f, "{} keys{}", keys.len(), if *more { ", and more" } else { "" })
            }
            Answer::Versions { versions } => write!(f, "{} revisions", versions.len()),
            Answer::Spawned { task } => write!(f, "{task}"),
            Answer::Ended { ends } => {
                let failed = ends.iter().filter(|end| end.code.is_some()).count();
                write!(f, "{} ended, {failed} of them without a result", ends.len())
            }
            Answer::Artifact { digest } => write!(f, "sha256:{}", digest.short()),
            Answer::Decided { items } => {
                let approved = items.iter().filter(|item| item.approved).count();
                write!(f, "{approved} of {} approved", items.len())
            }
            Answer::Refused { code, revision: 0 } => write!(f, "refused: {code}"),
            Answer::Refused { code, revision } => write!(f, "refused: {code}, it has revision {revision}"),
        }
    }
}
