//! Messages.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_rules::{
    id::{AgentId, CrewId, Digest, MessageId, TaskId},
    message::{Kind, Subject},
    priority::Priority,
    quantity::{Millis, Time},
    reason::Reason,
    task::TaskState,
};
use utoipa::ToSchema;

/// A message as it is sent. Who sends it, in which crew and when is the host's to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewMessage {
    /// The version of the envelope, `1.0` when absent. Another major version is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specversion: Option<String>,
    /// The crew: id, unique prefix or name. May be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crew: Option<String>,
    /// What it is: `heartbeat`, `query`, `response`, `command`, `event`, `notification`, `data` or `error`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Kind,
    /// What it is about: names with dots between.
    #[schema(value_type = String)]
    pub subject: Subject,
    /// For whom; everybody who listens to its subject when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What it says: JSON, or an object with a single key that begins with `$`, as the input of a task.
    #[serde(default)]
    pub body: Value,
    /// `low`, `medium`, `high` or `critical`; `medium` when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub priority: Priority,
    /// How long it may be delivered, for instance `5s`, at most 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ttl: Option<Millis>,
    /// Messages of one key come to a receiver one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<String>,
    /// The same key of the same sender is taken once in 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The conversation that it belongs to; needed for a response and for an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The subject on which an answer that comes later is welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reply_to: Option<Subject>,
    /// W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// W3C `tracestate`, with a `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The schema that the body follows: SHA-256 of it. For the receiver; the host does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub datatype: Option<Digest>,
    /// How the body is compressed; it is `$hex` then, and is expanded before it is taken, to at most 10 MiB. What has more than 256 KiB becomes an
    /// artifact of the crew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// One frame of Zstandard.
    Zstd,
}

/// For whom a message is. Only those receive it whose grant has a topic for its subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// One agent: its name in the crew, or its id.
    Agent(String),
    /// Any one agent that has this role.
    Role(String),
    /// Everybody who listens to its subject.
    Subscribers,
}

/// A message as it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id.
    #[schema(value_type = String)]
    pub message_id: MessageId,
    /// The version of the envelope.
    pub specversion: String,
    /// Its crew.
    #[schema(value_type = String)]
    pub crew: CrewId,
    /// What it is.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Kind,
    /// What it is about.
    #[schema(value_type = String)]
    pub subject: Subject,
    /// Who sent it: stamped by the host.
    pub source: Source,
    /// For whom.
    pub target: Target,
    /// What it says.
    pub body: Value,
    /// Its lane.
    #[schema(value_type = String)]
    pub priority: Priority,
    /// When the host took it.
    #[schema(value_type = u64)]
    pub created_at: Time,
    /// Not delivered after.
    #[schema(value_type = u64)]
    pub expires_at: Time,
    /// The conversation that it belongs to.
    pub correlation: String,
    /// The message in whose handling it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub causation: Option<MessageId>,
    /// The task in whose work it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// Its place in the order of its host; rises, with gaps.
    pub seq: u64,
    /// See `NewMessage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<String>,
    /// See `NewMessage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// See `NewMessage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reply_to: Option<Subject>,
    /// See `NewMessage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// See `NewMessage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// See `NewMessage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub datatype: Option<Digest>,
    /// How many receive it.
    pub receivers: u32,
    /// The delivery of another message, a dead letter, that it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub redrives: Option<TaskId>,
    /// Its deliveries, where one message was asked for or sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<Vec<Delivery>>,
}

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An agent of the crew, by its name.
    Agent(String),
    /// A principal of the host.
    Principal(String),
}

/// One message on its way to one agent: a task of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The task.
    #[schema(value_type = String)]
    pub task_id: TaskId,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub agent: Option<AgentId>,
    /// Where it is.
    #[schema(value_type = String)]
    pub state: TaskState,
    /// How often it was begun.
    pub attempts: u32,
    /// What the mailbox answered, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// Why it was not received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
}
