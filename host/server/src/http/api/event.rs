//! What happens, live: the data of the event stream.

use serde::{Deserialize, Serialize};
use skep_rules::{
    id::{AgentId, ApprovalId, CrewId, Digest, MessageId, TaskId},
    quantity::Time,
    reason::Reason,
};
use utoipa::ToSchema;

/// One event. On the stream `position.index` is the `id` and its kind the `event`. It names the record; read the record for more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The position of its journal entries; rises, with gaps.
    pub position: u64,
    /// Which of the events of this position.
    pub index: u32,
    /// When.
    #[schema(value_type = u64)]
    pub at: Time,
    /// What changed.
    pub kind: Kind,
    /// Where it went: the state of a task, the phase of an agent or a crew; `changed` for a plugin and for trust, `sent`
    /// for a message; of an approval `open`, also when some of it is decided, `decided`, `expired` or `withdrawn`.
    pub to: String,
    /// In which crew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub crew: Option<CrewId>,
    /// Which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// Which agent; of a task, who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub agent: Option<AgentId>,
    /// Which plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub plugin: Option<Digest>,
    /// Which message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub message: Option<MessageId>,
    /// Which approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub approval: Option<ApprovalId>,
    /// Why a task failed, or why its last attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A plugin was installed or removed.
    Plugin,
    /// Who is trusted, or what is revoked.
    Trust,
    /// A crew was assembled, drains or has stopped.
    Crew,
    /// An agent changed its phase.
    Agent,
    /// A task was accepted or changed its state.
    Task,
    /// A message was taken.
    Message,
    /// A person is asked something, has decided some of it, is asked once more, or it is over.
    Approval,
}

impl Kind {
    /// The `event` of the stream.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Plugin => "plugin",
            Kind::Trust => "trust",
            Kind::Crew => "crew",
            Kind::Agent => "agent",
            Kind::Task => "task",
            Kind::Message => "message",
            Kind::Approval => "approval",
        }
    }
}
