//! What an error looks like.

use serde::{Deserialize, Serialize};
use skep_rules::reason::Reason;
use utoipa::ToSchema;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document (RFC 9457) with a reason code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:skep:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time, and where.
    pub detail: String,
    /// The reason code.
    #[schema(value_type = String)]
    pub code: Reason,
    /// What to do about it.
    pub next: String,
    /// What may be asked instead; only of an illegal transition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legal: Vec<String>,
}
