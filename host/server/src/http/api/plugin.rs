//! Plugins.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skep_rules::{id::Digest, manifest::Manifest, quantity::Time, seam::Export};
use utoipa::ToSchema;

/// An installed plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plugin {
    /// SHA-256 of its file.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// `publisher/name`
    pub name: String,
    /// Its version.
    pub version: String,
    /// Length of its file in bytes.
    pub size: u64,
    /// What it can do.
    #[schema(value_type = Vec<String>)]
    pub exports: BTreeSet<Export>,
    /// Interfaces that it imports.
    pub imports: Vec<String>,
    /// Its manifest: what it provides, wants and needs.
    #[schema(value_type = Object)]
    pub manifest: Manifest,
    /// When it was installed.
    #[schema(value_type = u64)]
    pub installed_at: Time,
}
