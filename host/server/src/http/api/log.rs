//! The log of the host: what agents write, and what the host decides and refuses.

use serde::{Deserialize, Serialize};
use skep_rules::{
    id::{AgentId, CrewId, TaskId},
    quantity::Time,
};
use utoipa::ToSchema;

/// One line. On the stream its place is the `id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// Where it is in the log: give it back as `after`.
    pub place: String,
    /// When it was written.
    #[schema(value_type = u64)]
    pub at: Time,
    /// `trace`, `debug`, `info`, `warn` or `error`; `stdout` and `stderr` for captured output.
    pub level: String,
    /// The text, control bytes escaped.
    pub message: String,
    /// Named fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Vec<String>>)]
    pub fields: Vec<(String, String)>,
    /// In which crew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub crew: Option<CrewId>,
    /// On which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// In which attempt: the epoch of its lease. Absent where the host says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// Which agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub agent: Option<AgentId>,
    /// What all lines of a tree of tasks share: the 32 digits of the objective's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// One page of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lines {
    /// The lines, the newest first. A page may be short, or empty, while there is a next one.
    pub items: Vec<Line>,
    /// Give it back as `after` for older ones; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Where the log ended when this was read: give it to `follow` as `after` for what comes then.
    pub newest: String,
    /// Lines that were dropped since the host started, because an agent or the host itself wrote faster than is kept. Where they were is said in the log.
    pub dropped: u64,
}
