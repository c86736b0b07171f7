//! The key-value state of crews as it is read: it belongs to the name of a crew, and only agents write it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_rules::quantity::Time;
use utoipa::ToSchema;

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// The key.
    pub key: String,
    /// Its newest revision.
    pub revision: u64,
    /// When that was written.
    #[schema(value_type = u64)]
    pub at: Time,
    /// How many bytes it has.
    pub bytes: u64,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What was written, in the form of [`super::content`].
    pub value: Value,
    /// Its revision.
    pub revision: u64,
    /// When it was written.
    #[schema(value_type = u64)]
    pub at: Time,
}

/// A revision that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Which.
    pub revision: u64,
    /// When it was written.
    #[schema(value_type = u64)]
    pub at: Time,
    /// Whether it is the value of the key now, rather than one that was overwritten or removed.
    pub newest: bool,
}
