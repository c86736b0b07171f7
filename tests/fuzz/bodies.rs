//! What fuzzing runs, one function for each reader of bytes that strangers write: none may panic, and what was read must read the same when it is
//! written again. Run by `cargo test` (`mod.rs`) and by cargo-fuzz (`fuzz_targets/`).

use skep_rules::{
    id::Digest,
    key::PublicKey,
    limits::{MAX_ENVELOPE_BYTES, MAX_SIGNATURES},
    manifest::Manifest,
    metadata::{Clock, Document, Index, Root, Rotation},
    reason::Reason,
    release::Release,
};
use skep_runtime::{
    plugin,
    signature::{self, Envelope},
};

/// A body; it tells whether the bytes were taken.
pub(crate) type Body = fn(&[u8]) -> bool;

/// All of them, by the name of their corpus.
pub(crate) const BODIES: &[(&str, Body)] = &[
    ("envelope", envelope),
    ("statement", statement),
    ("metadata", metadata),
    ("manifest", manifest),
    ("prescan", prescan),
];

/// The envelope around anything, and its verification under a key that never signed.
pub(crate) fn envelope(bytes: &[u8]) -> bool {
    let stranger = PublicKey::from_bytes([0x58; 32]);
    assert!(signature::release(bytes, b"", [stranger]).is_err());
    match Envelope::parse(bytes, MAX_ENVELOPE_BYTES) {
        Ok(envelope) => {
            assert!((1..=MAX_SIGNATURES).contains(&envelope.key_ids().count()));
            assert_eq!(Envelope::parse(&envelope.to_json(), usize::MAX).as_ref(), Ok(&envelope));
            let signers = envelope.verify(envelope.payload_type(), [stranger]);
            assert!(signers.is_err() || signers.is_ok_and(|signers| signers.is_empty()));
            true
        }
        Err(refused) => {
            assert_eq!(refused.reason, Reason::SignatureInvalid);
            false
        }
    }
}

/// The release statement.
pub(crate) fn statement(bytes: &[u8]) -> bool {
    match Release::parse(bytes) {
        Ok(release) => {
            assert_eq!(Release::parse(&release.to_json()), Ok(release));
            true
        }
        Err(refused) => {
            assert_eq!(refused.reason, Reason::InvalidRelease);
            false
        }
    }
}

/// The documents of trust.
pub(crate) fn metadata(bytes: &[u8]) -> bool {
    let taken = [
        document::<Root>(bytes),
        document::<Rotation>(bytes),
        document::<Index>(bytes),
        document::<Clock>(bytes),
    ];
    let count = taken.iter().filter(|taken| **taken).count();
    assert!(count <= 1, "no document is two");
    count == 1
}

fn document<D: Document + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    match D::parse(bytes) {
        Ok(document) => {
            assert_eq!(D::parse(&document.to_json()), Ok(document));
            true
        }
        Err(refused) => {
            assert_eq!(refused.reason, Reason::InvalidMetadata);
            false
        }
    }
}

/// The manifest that is embedded in a plugin.
pub(crate) fn manifest(bytes: &[u8]) -> bool {
    let manifest = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Manifest::parse(text).ok());
    match manifest {
        Some(manifest) => {
            assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest));
            true
        }
        None => false,
    }
}

/// Everything that is looked at in a component before it is compiled.
pub(crate) fn prescan(bytes: &[u8]) -> bool {
    let read = plugin::read(bytes);
    match plugin::scan(bytes) {
        Ok(scan) => {
            assert_eq!((scan.digest, scan.size), (Digest::of(bytes), bytes.len() as u64));
            if let Ok(plugin) = read {
                assert!(plugin.interfaces.len() >= plugin.exports.len() && !plugin.exports.is_empty());
            }
            true
        }
        Err(refused) => {
            assert_eq!(read, Err(refused));
            false
        }
    }
}
