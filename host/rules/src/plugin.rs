//! The record of an installed plugin, and the revisioned copy of it that a crew's decision is given: crews never read the system part.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::{
    crew::PluginRef,
    id::Digest,
    key::KeyId,
    manifest::Manifest,
    quantity::{Size, Time},
    seam::Export,
};

/// An installed plugin. Never changed once it is there: another file under the same name and version is refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Plugin {
    /// SHA-256 of its file.
    #[n(0)]
    pub digest: Digest,
    /// The manifest embedded in it.
    #[n(1)]
    pub manifest: Manifest,
    /// What can be called.
    #[n(2)]
    pub exports: BTreeSet<Export>,
    /// The interfaces that it imports, with versions.
    #[n(3)]
    pub imports: Vec<String>,
    /// Bytes of its file.
    #[n(4)]
    pub size: Size,
    /// When it was installed.
    #[n(5)]
    pub installed_at: Time,
    /// Rises with every change of the record.
    #[n(6)]
    pub revision: u64,
    /// Who signed it; none only where the host takes unsigned plugins.
    #[n(7)]
    #[cbor(default)]
    pub signed: Option<Signature>,
}

/// What is remembered of a signed release.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Signature {
    /// SHA-256 of the statement.
    #[n(0)]
    pub statement: Digest,
    /// The number of the release.
    #[n(1)]
    pub release_seq: u64,
    /// Trusted keys that signed it.
    #[n(2)]
    pub signers: BTreeSet<KeyId>,
    /// How many of them it takes: when keys are revoked and fewer are left, it must not run.
    #[n(3)]
    pub needed: u32,
    /// Until when it could be installed.
    #[n(4)]
    pub expires: Time,
}

impl Plugin {
    /// Whether a crew manifest's reference means this plugin.
    #[must_use]
    pub fn answers_to(&self, reference: &PluginRef) -> bool {
        match reference {
            PluginRef::Digest(digest) => *digest == self.digest,
            PluginRef::Named(name, version) => {
                *name == self.manifest.plugin.name && *version == self.manifest.plugin.version
            }
        }
    }
}
