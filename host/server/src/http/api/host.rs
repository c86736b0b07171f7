//! The host itself.

use serde::{Deserialize, Serialize};
use skep_rules::{grant::Ceiling, quantity::Time};
use utoipa::ToSchema;

/// What `GET /v1/host` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Version of Skep.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Whether it takes and runs plugins that nobody signed.
    pub dev: bool,
    /// When it was started.
    #[schema(value_type = u64)]
    pub started_at: Time,
    /// The most that it lets agents have.
    #[schema(value_type = Object)]
    pub ceiling: Ceiling,
    /// What it holds, and how much it could.
    pub capacity: Capacity,
    /// The last position of its journal that is durable.
    pub durable: u64,
    /// How current it is.
    pub currency: Currency,
}

/// How current a build of Skep is: what runs the agents, and what was known against that when it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Currency {
    /// The version of wasmtime that is compiled in.
    pub wasmtime: String,
    /// When it was built.
    #[schema(value_type = u64)]
    pub built_at: Time,
    /// Whether that is longer ago than a build should be used: 90 days.
    pub outdated: bool,
    /// The day on which the list of advisories was compared with what is published: `2026-01-31`.
    pub advisories_as_of: String,
    /// Those that a newer wasmtime fixes.
    pub advisories: Vec<Advisory>,
}

/// An advisory of wasmtime, as it was known when Skep was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    /// Under which it is published.
    pub id: String,
    /// What happens.
    pub what: String,
    /// The version of wasmtime that first has the fix.
    pub fixed: String,
    /// Whether an agent could get at the fault if Skep did nothing about it.
    pub reaches: bool,
    /// Why no agent can. Absent where one might.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub countered: Option<String>,
}

/// What a host holds, and how much it could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Attempts that may be live at a time.
    pub slots: u32,
    /// Attempts that are live now: instances with a store of their own.
    #[serde(default)]
    pub attempts: u64,
    /// Threads that guests run on.
    pub guest_threads: u32,
    /// Crews that are not stopped.
    pub crews: u64,
    /// At most so many.
    pub max_crews: u64,
    /// Agents that are not stopped.
    pub agents: u64,
    /// At most so many.
    pub max_agents: u64,
    /// Tasks that have not ended.
    pub live_tasks: u64,
    /// At most so many.
    pub max_live_tasks: u64,
}

/// What a running host writes into its data directory as `host.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFile {
    /// Where it listens: `http://127.0.0.1:8080`.
    pub url: String,
    /// Its process id.
    pub pid: u32,
    /// Version of Skep.
    pub version: String,
}
