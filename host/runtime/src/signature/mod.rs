//! Signatures over plugins and documents of trust: which keys have signed, and whether the file is the one that they signed. Whom to trust
//! for what is decided elsewhere, from what is found here; nothing here reads a clock, a disk or a network.
//!
//! Nothing of a component is parsed before a known key's signature over its digest holds: [`release`] only hashes it.

use std::{collections::BTreeSet, fmt};

use skep_rules::{
    grant::Refused,
    id::Digest,
    key::{KeyId, PublicKey},
    limits::{MAX_COMPONENT_BYTES, MAX_ENVELOPE_BYTES, MAX_METADATA_ENVELOPE_BYTES},
    metadata::Document,
    reason::Reason,
    release::{PAYLOAD_TYPE, Release},
    trust::Signed,
};

use crate::plugin::{Plugin, refuse};

mod envelope;
mod explain;
mod key;
#[cfg(test)]
mod tests;

pub use envelope::{Envelope, pae};
pub use explain::{Check, Explained, Outcome, explain};
pub use key::{SecretKey, check_key, from_pem, to_pem};

use key::holds;

/// A document of trust that known keys have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<D> {
    /// What it says.
    pub document: D,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The known keys whose signatures hold; at least one.
    pub signers: BTreeSet<KeyId>,
}

/// Signs bytes as a document of a type, with each of the keys once.
#[must_use]
pub fn sign(payload_type: &str, payload: &[u8], keys: &[&SecretKey]) -> Vec<u8> {
    Envelope::around(payload_type, payload, keys).to_json()
}

/// Checks the file of a plugin against its envelope: lengths, envelope, signature, statement, digest, in that order. Parses no WebAssembly.
///
/// # Errors
/// [`Reason::CompileLimit`]: the file is too long. [`Reason::SignatureInvalid`]: no envelope of a release, or a known key's signature in it does
/// not hold. [`Reason::SignerUntrusted`]: no known key signed it. [`Reason::InvalidRelease`]: the statement. [`Reason::Modified`]: the file is
/// not the one that was signed.
pub fn release(
    envelope: &[u8],
    component: &[u8],
    keys: impl IntoIterator<Item = PublicKey>,
) -> Result<Signed, Refused> {
    lengths(component)?;
    let envelope = Envelope::parse(envelope, MAX_ENVELOPE_BYTES)?;
    let signers = signers(&envelope, PAYLOAD_TYPE, keys)?;
    let signed = Signed {
        release: Release::parse(envelope.payload())?,
        statement: Digest::of(envelope.payload()),
        signers,
    };
    digest(&signed.release, component)?;
    Ok(signed)
}

/// Checks that the statement says of the component what is in it: name and version of the manifest, every interface that it imports and
/// exports, no more and no less.
///
/// # Errors
/// [`Reason::InvalidRelease`], with the first difference.
pub fn interfaces(release: &Release, plugin: &Plugin) -> Result<(), Refused> {
    let bad = |difference: String| {
        let message = format!("the signed statement and the file differ: {difference}");
        Err(refuse(Reason::InvalidRelease, message))
    };
    let about = &plugin.manifest.plugin;
    if release.plugin != about.name {
        return bad(format!("it is signed as `{}` and is `{}`", release.plugin, about.name));
    }
    if release.version != about.version {
        let (signed, found) = (&release.version, &about.version);
        return bad(format!("it is signed as version {signed} and is {found}"));
    }
    let imports = plugin.imports.iter().cloned().collect();
    for (verb, signed, found) in [
        ("import", &release.imports, &imports),
        ("export", &release.exports, &plugin.interfaces),
    ] {
        if let Some(more) = found.difference(signed).next() {
            return bad(format!("the file {verb}s `{more}`, which is not signed"));
        }
        if let Some(less) = signed.difference(found).next() {
            return bad(format!("`{less}` is signed, which the file does not {verb}"));
        }
    }
    Ok(())
}

/// Reads a document of trust that at least one of these keys has signed.
///
/// # Errors
/// [`Reason::SignatureInvalid`]: no envelope of such a document, or one of these keys' signatures does not hold. [`Reason::SignerUntrusted`]:
/// none of them signed it. [`Reason::InvalidMetadata`]: what [`Document::parse`] refuses.
pub fn open<D: Document>(bytes: &[u8], keys: impl IntoIterator<Item = PublicKey>) -> Result<Opened<D>, Refused> {
    let envelope = Envelope::parse(bytes, MAX_METADATA_ENVELOPE_BYTES)?;
    let signers = signers(&envelope, D::PAYLOAD_TYPE, keys)?;
    Ok(Opened {
        document: D::parse(envelope.payload())?,
        digest: Digest::of(envelope.payload()),
        signers,
    })
}

/// What is plainly said of the signature of a file, wherever it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A trusted key signed this very file, and nothing stands against it.
    Signed,
    /// It is signed, but by no key that may speak for it here.
    Untrusted,
    /// It is not the file that was signed.
    Modified,
    /// The envelope, the statement or what it claims is not acceptable.
    Invalid,
    /// There is no envelope.
    Unsigned,
}

impl State {
    /// The state of a file that was refused for this reason.
    #[must_use]
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::SignatureMissing => State::Unsigned,
            Reason::Modified => State::Modified,
            Reason::SignerUntrusted | Reason::ThresholdUnmet | Reason::Revoked | Reason::FirstContact => {
                State::Untrusted
            }
            _ => State::Invalid,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Signed => "signed",
            State::Untrusted => "untrusted",
            State::Modified => "modified",
            State::Invalid => "invalid",
            State::Unsigned => "unsigned",
        })
    }
}

impl serde::Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn lengths(component: &[u8]) -> Result<(), Refused> {
    if component.len() as u64 <= MAX_COMPONENT_BYTES {
        return Ok(());
    }
    let length = component.len();
    Err(refuse(
        Reason::CompileLimit,
        format!("the file has {length} bytes; a component holds at most {MAX_COMPONENT_BYTES}"),
    ))
}

/// The known keys that signed; an envelope without any is refused.
fn signers(
    envelope: &Envelope,
    payload_type: &str,
    keys: impl IntoIterator<Item = PublicKey>,
) -> Result<BTreeSet<KeyId>, Refused> {
    let signers = envelope.verify(payload_type, keys)?;
    if signers.is_empty() {
        let ids: Vec<String> = envelope.key_ids().map(|id| id.to_string()).collect();
        return Err(refuse(
            Reason::SignerUntrusted,
            format!("signed by {}, which is not trusted here", ids.join(", ")),
        ));
    }
    Ok(signers)
}

fn digest(release: &Release, component: &[u8]) -> Result<(), Refused> {
    let (signed, length) = (release.component, component.len() as u64);
    let differs = |message: String| Err(refuse(Reason::Modified, message));
    if length != signed.size {
        return differs(format!("the file has {length} bytes; {} were signed", signed.size));
    }
    let found = Digest::of(component);
    if found != signed.sha256 {
        let (found, signed) = (found.short(), signed.sha256.short());
        return differs(format!("the file is sha256:{found}; sha256:{signed} was signed"));
    }
    Ok(())
}
