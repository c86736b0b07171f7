//! The release statement: what a publisher says of one plugin file, and signs. Its bytes are signed as they are and never written anew; reading
//! them is strict, because a typo in a signed document must not be silent.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    grant::Refused,
    id::{Digest, PluginName},
    limits::{CLOCK_SKEW, MAX_METADATA_BYTES, MAX_RELEASE_LIFE},
    manifest::Version,
    quantity::Time,
    reason::Reason,
};

/// The payload type of its envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.skep.release+json";
/// The version of the format of all signed documents.
pub const FORMAT: u32 = 1;
/// The version of the contract that this host offers, `skep:agent@…`.
pub const HOST_API: &str = "0.1.0";

/// What is signed of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Release {
    /// [`FORMAT`].
    #[n(0)]
    pub format: u32,
    /// `publisher/plugin`
    #[n(1)]
    pub plugin: PluginName,
    /// The version in the manifest.
    #[n(2)]
    pub version: Version,
    /// Rises with every release of the plugin; at least 1.
    #[n(3)]
    pub release_seq: u64,
    /// SHA-256 of the statement of the release before; absent in the first.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The file.
    #[n(5)]
    pub component: Content,
    /// Every interface that the component imports, with versions.
    #[n(6)]
    #[serde(deserialize_with = "crate::once::set")]
    pub imports: BTreeSet<String>,
    /// Every interface that it exports, with versions.
    #[n(7)]
    #[serde(deserialize_with = "crate::once::set")]
    pub exports: BTreeSet<String>,
    /// The oldest contract that it works with.
    #[n(8)]
    pub host_api: Version,
    /// Not to be installed before; milliseconds since 1970.
    #[n(9)]
    pub not_before: Time,
    /// Not to be installed after; at most 400 days later.
    #[n(10)]
    pub expires: Time,
    /// SHA-256 of what tells how it was built.
    #[n(11)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Digest>,
    /// An SPDX expression.
    #[n(12)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// Whom to ask.
    #[n(13)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contact: String,
}

/// A file by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// SHA-256.
    #[n(0)]
    pub sha256: Digest,
    /// Bytes.
    #[n(1)]
    pub size: u64,
}

impl Release {
    /// Reads a statement.
    ///
    /// # Errors
    /// [`Reason::InvalidRelease`]: not JSON of this shape, a key that is unknown or there twice, another format, or a time that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let release: Release = read(bytes, "the release statement", Reason::InvalidRelease)?;
        let bad = |message: &str| {
            let message = format!("the release statement: {message}");
            Err(Refused {
                reason: Reason::InvalidRelease,
                message,
            })
        };
        if release.format != FORMAT {
            return bad("`format` is not 1; it was made for another Skep");
        }
        if release.release_seq == 0 {
            return bad("`releaseSeq` begins at 1");
        }
        if release.expires <= release.not_before {
            return bad("it expires before it begins");
        }
        if release.expires.since(release.not_before) > MAX_RELEASE_LIFE {
            return bad("it lasts longer than 400 days");
        }
        Ok(release)
    }

    /// Whether it may be installed at a time on a host of this version, all that is known of others aside.
    ///
    /// # Errors
    /// [`Reason::NotYetValid`], with [`CLOCK_SKEW`] for a publisher whose clock is ahead; [`Reason::Expired`]; [`Reason::UnsupportedHost`].
    pub fn current(&self, now: Time) -> Result<(), Refused> {
        let what = format!("release {} of {}", self.release_seq, self.plugin);
        let (reason, message) = if self.not_before > now.after(CLOCK_SKEW) {
            (Reason::NotYetValid, format!("{what} is not valid yet"))
        } else if self.expires <= now {
            (Reason::Expired, format!("{what} has expired"))
        } else if above(self.host_api.as_str(), HOST_API) {
            let message = format!("{what} needs skep:agent@{}; this host offers {HOST_API}", self.host_api);
            (Reason::UnsupportedHost, message)
        } else {
            return Ok(());
        };
        Err(Refused { reason, message })
    }

    /// The statement as bytes to be signed.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement has only texts, numbers and lists")
    }
}

/// Whether a semantic version is above another.
fn above(version: &str, than: &str) -> bool {
    match (semver::Version::parse(version), semver::Version::parse(than)) {
        (Ok(version), Ok(than)) => version > than,
        _ => true,
    }
}

/// Reads a signed document: strict JSON of one shape. Duplicate and unknown keys are errors of the shapes themselves.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], what: &str, reason: Reason) -> Result<T, Refused> {
    let refuse = |message: String| Refused { reason, message };
    if bytes.len() > MAX_METADATA_BYTES {
        return Err(refuse(format!(
            "{what} has {} bytes, at most {MAX_METADATA_BYTES}",
            bytes.len()
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| refuse(format!("{what}: {error}")))
}
