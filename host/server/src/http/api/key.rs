//! Trust: who may sign what, the documents that say so, and what is revoked.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skep_rules::{
    id::{Digest, Name},
    key::{KeyId, PublicKey},
    metadata::{Ceiling, Keys, Revocations},
    quantity::Time,
};
use utoipa::ToSchema;

/// What `GET /v1/keys` answers: all that this host trusts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Whose releases are taken.
    pub publishers: Vec<Publisher>,
    /// The last root. Without one the operator's token says who is trusted.
    pub root: Option<Root>,
    /// The last index.
    pub index: Option<Document>,
    /// The last clock.
    pub clock: Option<Document>,
    /// Everything that is revoked.
    #[schema(value_type = Object)]
    pub revoked: Revocations,
    /// The time that expiry is judged by: the latest that was seen.
    #[schema(value_type = u64)]
    pub time: Time,
    /// The host's clock; when it stands before `time`, it was set back.
    #[schema(value_type = u64)]
    pub clock_time: Time,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its name.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// `ed25519:` and its bytes.
    #[schema(value_type = String)]
    pub key: PublicKey,
    /// The beginning of its name in words, to be compared by people.
    pub words: String,
    /// Whether it is revoked.
    pub revoked: bool,
}

/// The keys of a role and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Role {
    /// The keys.
    pub keys: Vec<Key>,
    /// How many of them must sign.
    pub threshold: u32,
}

/// A trusted publisher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publisher {
    /// The first half of its plugins' names.
    #[schema(value_type = String)]
    pub name: Name,
    /// Sign its releases.
    pub release: Role,
    /// Changes its keys, together with the release keys.
    pub recovery: Option<Key>,
    /// The second halves of the names that it may sign; all when absent.
    #[schema(value_type = Option<Vec<String>>)]
    pub plugins: Option<BTreeSet<Name>>,
    /// The most that its plugins may want.
    #[schema(value_type = Object)]
    pub ceiling: Ceiling,
    /// Until when its keys count.
    #[schema(value_type = u64)]
    pub expires: Time,
    /// Since when it is trusted.
    #[schema(value_type = u64)]
    pub since: Time,
    /// The version of its last rotation; 0 before the first.
    pub rotation: u64,
}

/// The last root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Root {
    /// Its version.
    pub version: u64,
    /// Until when it counts.
    #[schema(value_type = u64)]
    pub expires: Time,
    /// Signs the next root.
    pub root: Role,
    /// Signs indexes.
    pub index: Option<Role>,
    /// Signs clocks.
    pub clock: Option<Role>,
}

/// The last document of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Document {
    /// Its version.
    pub version: u64,
    /// Until when it counts.
    #[schema(value_type = u64)]
    pub expires: Time,
    /// SHA-256 of the index: of the one that is here, or of the one that the clock names.
    #[schema(value_type = String)]
    pub index: Digest,
}

/// What `POST /v1/keys` takes: whom to trust, and for what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewPublisher {
    /// The first half of its plugins' names.
    #[schema(value_type = String)]
    pub name: Name,
    /// Its release keys and how many of them must sign.
    #[schema(value_type = Object)]
    pub release: Keys,
    /// Its offline key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub recovery: Option<PublicKey>,
    /// The second halves of the names that it may sign; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub plugins: Option<BTreeSet<Name>>,
    /// The most that its plugins may want; the default of [`Ceiling`] when absent.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub ceiling: Ceiling,
    /// Until when; 400 days from now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub expires: Option<Time>,
}

/// What `POST /v1/keys/revoke` takes: a key, or a publisher with all its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// A key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// A publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub publisher: Option<Name>,
    /// For the audit log.
    pub reason: String,
}

/// What `POST /v1/keys/time` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetTime {
    /// For the audit log.
    pub reason: String,
}
