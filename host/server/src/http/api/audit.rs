//! The audit log.

use serde::{Deserialize, Serialize};
use skep_rules::{audit::AuditEntry, id::Digest};
use utoipa::ToSchema;

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Row {
    /// Its number, from 1 without gaps.
    pub seq: u64,
    /// What was recorded; absent once expired.
    #[schema(value_type = Option<Object>)]
    pub entry: Option<AuditEntry>,
    /// SHA-256 of what was recorded, as it was encoded.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// SHA-256 over the previous row's chain, this number and this digest.
    #[schema(value_type = String)]
    pub chain: Digest,
}

/// The end of a log whose whole chain was recomputed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// Rows.
    pub rows: u64,
    /// The chain of the last one; whoever keeps it can prove later that the log still begins so.
    #[schema(value_type = String)]
    pub chain: Digest,
}
