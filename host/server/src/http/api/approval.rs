//! Approvals: what people are asked, and what they say.

use serde::{Deserialize, Serialize};
use skep_rules::{
    approval::{OnTimeout, Point, Settled, Verdict},
    id::{ApprovalId, CrewId, Digest, TaskId},
    quantity::Time,
};
use utoipa::ToSchema;

/// What a person is asked, and has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Its id: all that addresses it.
    #[schema(value_type = String)]
    pub approval_id: ApprovalId,
    /// The task that waits for it.
    #[schema(value_type = String)]
    pub task: TaskId,
    /// Its crew.
    #[schema(value_type = String)]
    pub crew: CrewId,
    /// Where the task waits: `before` it runs, `after` it has a result, before an `action` of its agent, or at a `blocker`, which wants an answer.
    #[schema(value_type = String)]
    pub point: Point,
    /// What would be done; empty at a blocker.
    pub action: String,
    /// For the person who decides.
    pub question: String,
    /// To what it would be done; each is decided by itself.
    pub items: Vec<Item>,
    /// The component that asks, or that made the result; absent before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub component: Option<Digest>,
    /// SHA-256 of all that a decision is bound to: task, point, action, question, items, component.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Who wants it: an agent, or the principal who submitted the task.
    pub requester: String,
    /// When it was asked.
    #[schema(value_type = u64)]
    pub asked_at: Time,
    /// Until when it can be decided.
    #[schema(value_type = u64)]
    pub expires_at: Time,
    /// What then: `reject`, or `escalate`, which puts it to people once more first.
    #[schema(value_type = String)]
    pub on_timeout: OnTimeout,
    /// How often it was put to people once more.
    pub escalated: u32,
    /// How it is over: `decided`, `expired` or `withdrawn`, because its task ended before; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub settled: Option<Settled>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub settled_at: Option<Time>,
}

/// One thing that may be done or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What it is called.
    pub name: String,
    /// With what it would be done: canonical JSON as text, or the text itself where it is no JSON.
    pub arguments: String,
    /// Whether it is JSON. What is not is never covered by an `always`.
    pub parsed: bool,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub verdict: Option<Verdict>,
}

/// What `POST /v1/approvals` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decide {
    /// Which approval; the whole id.
    #[schema(value_type = String)]
    pub approval_id: ApprovalId,
    /// How.
    pub decision: Decision,
    /// The items that it is about, by name; every one that is not decided yet when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// For the agent and the record; at a blocker, the answer. At most 4 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remark: String,
    /// Approve the same action for the rest of the run of the task, whatever its arguments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// The digest of what was seen: a decision about anything else is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It may be done; at a blocker, the remark is the answer.
    Approve,
    /// It may not; at a blocker, there is no answer.
    Reject,
}
