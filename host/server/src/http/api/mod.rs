//! The JSON of the HTTP API, written by the host and read by clients: one file per resource. Points in time are milliseconds since
//! 1970-01-01 UTC. What a client sends refuses unknown fields; what the host sends may grow.

pub mod agent;
pub mod approval;
pub mod audit;
pub mod content;
pub mod crew;
pub mod event;
pub mod host;
pub mod key;
pub mod log;
pub mod message;
pub mod plan;
pub mod plugin;
pub mod problem;
pub mod schedule;
pub mod state;
pub mod step;
pub mod task;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list, at most [`skep_rules::limits::MAX_PAGE`] items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give it back as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
