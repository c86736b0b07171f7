//! Crews. Their keys are those of the crew manifest, in snake case.

use serde::{Deserialize, Serialize};
use skep_rules::{
    crew_record::Status,
    id::{CrewId, Name},
    quantity::Time,
};
use utoipa::ToSchema;

use super::agent::Agent;

/// What `POST /v1/crews/assemble` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assembled {
    /// Its id.
    #[schema(value_type = String)]
    pub crew_id: CrewId,
    /// Where to go on.
    pub endpoints: Endpoints,
    /// Where it stands: `assembling`, `ready`, `degraded`, `draining` or `stopped`.
    #[schema(value_type = String)]
    pub status: Status,
}

/// Paths about one crew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoints {
    /// Its status.
    pub status: String,
    /// Where tasks are submitted.
    pub tasks: String,
    /// Its agents.
    pub agents: String,
    /// What happens in it, live.
    pub events: String,
}

/// A crew as it is read in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Crew {
    /// Its id.
    #[schema(value_type = String)]
    pub crew_id: CrewId,
    /// What people call it.
    #[schema(value_type = String)]
    pub name: Name,
    /// Where it stands: `assembling`, `ready`, `degraded`, `draining` or `stopped`.
    #[schema(value_type = String)]
    pub status: Status,
    /// Agents that are ready or busy.
    pub ready: u32,
    /// Agents in all.
    pub agents: u32,
    /// Agents that must be ready before the crew is.
    pub min_ready: u32,
    /// Its tasks that are not archived, by where they stand.
    pub tasks: TaskCounts,
    /// When it was assembled.
    #[schema(value_type = u64)]
    pub created_at: Time,
    /// Rises with every change.
    pub revision: u64,
}

/// Tasks by where they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    /// Nobody works on them.
    pub pending: u64,
    /// Somebody does.
    pub in_progress: u64,
    /// They have a result.
    pub completed: u64,
    /// They never will.
    pub failed: u64,
}

/// What `GET /v1/crews/{id}/status` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CrewStatus {
    /// The crew.
    #[serde(flatten)]
    pub crew: Crew,
    /// Its agents, at most 100; the rest is under `/v1/agents`.
    pub members: Vec<Agent>,
}
