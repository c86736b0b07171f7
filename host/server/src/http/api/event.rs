//! What happened, live: the data of the event stream.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_rules::{
    id::{AgentId, CrewId, TaskId},
    quantity::Time,
};
use utoipa::ToSchema;

/// One event. On the stream its position is the `id` and its kind the `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its position in the journal.
    pub position: u64,
    /// When.
    #[schema(value_type = u64)]
    pub at: Time,
    /// What happened: `task-completed`.
    pub kind: String,
    /// In which crew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub crew: Option<CrewId>,
    /// To which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// By or to which agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub agent: Option<AgentId>,
    /// More, depending on the kind.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}
