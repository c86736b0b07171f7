//! Agents.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skep_rules::{
    agent::Phase,
    id::{AgentId, CrewId, Digest, Role},
    quantity::{Fuel, Time},
};
use utoipa::ToSchema;

use super::{plugin::Standing, task::Failure};

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
    /// How the plugin's signature stands.
    pub signature: Standing,
    /// The roles that it serves.
    #[schema(value_type = Vec<String>)]
    pub roles: BTreeSet<Role>,
    /// Where it is in its life: `PROVISIONING`, `WARMING`, `READY`, `BUSY`, `DRAINING`, `STOPPED`, `FAILED` or `QUARANTINED`.
    #[schema(value_type = String)]
    pub phase: Phase,
    /// Why it is not well.
    pub failure: Option<Failure>,
    /// Attempts that it may run at a time.
    pub slots: u32,
    /// Attempts that it runs now.
    pub active: u32,
    /// Rises with every start.
    pub generation: u64,
    /// Attempts that it made.
    pub attempts: u64,
    /// Fuel that they burned.
    #[schema(value_type = String)]
    pub fuel: Fuel,
    /// The most memory that one of them held, in bytes.
    pub peak_memory_bytes: u64,
    /// When its phase last changed.
    #[schema(value_type = u64)]
    pub changed_at: Time,
    /// Rises with every change.
    pub revision: u64,
}
