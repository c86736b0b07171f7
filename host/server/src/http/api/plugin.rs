//! Plugins.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skep_rules::{
    id::{Digest, PluginName},
    key::KeyId,
    manifest::Manifest,
    quantity::Time,
    seam::Export,
};
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
    /// Who signed it, and whether that still counts.
    pub signature: Signature,
}

/// Who signed a plugin, and whether that still counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// In one word.
    pub state: Standing,
    /// Why it must not run, when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The number of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_seq: Option<u64>,
    /// SHA-256 of the signed statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub statement: Option<Digest>,
    /// The keys that signed it.
    #[schema(value_type = Vec<String>)]
    pub keys: BTreeSet<KeyId>,
    /// How many of them it takes.
    pub needed: u32,
}

/// How an installed plugin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A trusted key signed it, and nothing stands against it.
    Signed,
    /// Nobody signed it. Only a host in dev mode runs it.
    Unsigned,
    /// It was revoked, and does not run any more.
    Revoked,
}

impl Standing {
    /// As people read it: what nobody signed is not to be overlooked.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Standing::Signed => "signed",
            Standing::Unsigned => "UNSIGNED",
            Standing::Revoked => "REVOKED",
        }
    }
}

/// What `POST /v1/plugins?check=true` answers: the plugin as it would be, and what a person has to agree to. Nothing was installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// As it would be installed.
    pub plugin: Plugin,
    /// The very file is installed already.
    pub installed: bool,
    /// No release of this publisher, or of this plugin, is here to compare it with: the publisher's name has to be given in `publisher`.
    pub first_contact: bool,
    /// Against the newest release that is installed, where there is one. What it widens has to be approved in `approve`.
    pub update: Option<Difference>,
}

/// What one release of a plugin asks for and offers that another does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The release before.
    #[schema(value_type = String)]
    pub from: Digest,
    /// The release after.
    #[schema(value_type = String)]
    pub to: Digest,
    /// What the second asks for and the first did not, one line each.
    pub wider: Vec<String>,
    /// Everything else that differs.
    pub changes: Vec<String>,
}

/// What `POST /v1/plugins/{reference}/revoke` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// For the audit log.
    pub reason: String,
    /// Revoke all releases of the plugin below this number, instead of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<u64>,
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// The file, the plugin, the key or the publisher.
    pub subject: String,
    /// The first release that may stay, where only older ones were revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<u64>,
    /// Installed plugins that must not run now, in all.
    #[schema(value_type = Vec<String>)]
    pub plugins: Vec<PluginName>,
    /// Agents that are in quarantine now, in all.
    pub agents: u64,
}
