//! Agents.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skep_rules::{
    id::{AgentId, CrewId, Digest, Role, TaskId},
    quantity::{Fuel, Time},
};
use utoipa::ToSchema;

use super::task::Failure;

/// Who owns an agent, and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Its record exists.
    Provisioning,
    /// Being compiled, linked and instantiated once.
    Warming,
    /// It may be given work.
    Ready,
    /// It has work.
    Busy,
    /// It was lost.
    Unhealthy,
    /// Waits before it is started again.
    Backoff,
    /// Finishes, then stops.
    Draining,
    /// A clean end.
    Stopped,
    /// It could not be started, or too often.
    Failed,
}

/// An agent as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its id.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// Its name in its crew.
    pub name: String,
    /// Its crew.
    #[schema(value_type = String)]
    pub crew: CrewId,
    /// Its plugin, `publisher/name@version`.
    pub plugin: String,
    /// The plugin's digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The roles that it serves.
    #[schema(value_type = Vec<String>)]
    pub roles: BTreeSet<Role>,
    /// Who owns it, and what it may do.
    pub phase: Phase,
    /// Why it is not well.
    pub failure: Option<Failure>,
    /// The task that it holds.
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// Rises with every start.
    pub generation: u64,
    /// How often it was started again.
    pub restarts: u32,
    /// The last sign of life.
    #[schema(value_type = Option<u64>)]
    pub last_heartbeat: Option<Time>,
    /// Attempts that it made.
    pub attempts: u64,
    /// Fuel that they burned.
    #[schema(value_type = String)]
    pub fuel: Fuel,
    /// The most memory that one of them held, in bytes.
    pub peak_memory_bytes: u64,
    /// Calls that were refused to it.
    pub denials: u64,
    /// Rises with every change.
    pub revision: u64,
}
