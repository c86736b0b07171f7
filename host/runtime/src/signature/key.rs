//! Keys that sign, and the texts that keys are kept in: PKCS#8 and SPKI in PEM (RFC 8410), so that other tools can read them and judge.

use std::fmt;

use ed25519_dalek::{
    Signer, SigningKey, VerifyingKey,
    pkcs8::{
        DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes, spki::der::pem::LineEnding,
    },
};
use skep_rules::{grant::Refused, key::PublicKey, reason::Reason};

use crate::plugin::refuse;

/// A key that signs. Its bytes are wiped when it is dropped, and it is never printed.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A key from 32 bytes that nobody can guess.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        SecretKey(SigningKey::from_bytes(bytes))
    }

    /// The key that its signatures are checked with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Its signature of a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The key as PKCS#8 in PEM, in a text that is wiped when it is dropped.
    #[must_use]
    pub fn to_pem(&self) -> impl AsRef<str> + use<> {
        // Version 1, without the public key: OpenSSL does not read version 2.
        let bytes = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        bytes
            .to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes are a key of this format")
    }

    /// Reads PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`Reason::InvalidInput`]: it is not that, not of Ed25519, encrypted, or the public key in it is another's.
    pub fn from_pem(text: &str) -> Result<Self, Refused> {
        SigningKey::from_pkcs8_pem(text).map(SecretKey).map_err(|_| {
            let found = match label(text) {
                Some("PUBLIC KEY") => "it is a public key; the secret one is beside it, NAME.key",
                Some("ENCRYPTED PRIVATE KEY") => {
                    "it is encrypted; Skep reads keys that only the file's mode protects (`openssl pkey -in FILE -out PLAIN` decrypts it)"
                }
                Some("PRIVATE KEY") => "it is not an Ed25519 key; `skep key new` makes one",
                Some("OPENSSH PRIVATE KEY") => "it is a key for SSH; `skep key new` makes one that signs",
                _ => "it is not a private key in PEM (PKCS#8); `skep key new` makes one",
            };
            refuse(Reason::InvalidInput, found)
        })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id().short())
    }
}

/// A public key as SPKI in PEM.
///
/// # Errors
/// What [`check_key`] refuses.
pub fn to_pem(key: PublicKey) -> Result<String, Refused> {
    let key = usable(key)?;
    Ok(key
        .to_public_key_pem(LineEnding::LF)
        .expect("32 bytes are a key of this format"))
}

/// Reads a public key: SPKI in PEM.
///
/// # Errors
/// [`Reason::InvalidInput`]: it is not that, or not of Ed25519, or [`check_key`] refuses it.
pub fn from_pem(text: &str) -> Result<PublicKey, Refused> {
    let bytes = ed25519_dalek::pkcs8::PublicKeyBytes::from_public_key_pem(text).map_err(|_| {
        let found = match label(text) {
            Some("PUBLIC KEY") => "it is not an Ed25519 key",
            Some(label) if label.ends_with("PRIVATE KEY") => {
                "it is a private key, which is nobody else's business; give the `.pub` file beside it"
            }
            _ => "it is not a public key in PEM (SPKI), as `skep key new` writes to NAME.pub",
        };
        refuse(Reason::InvalidInput, found)
    })?;
    let key = PublicKey::from_bytes(bytes.to_bytes());
    check_key(key)?;
    Ok(key)
}

/// Whether a key may be trusted at all.
///
/// # Errors
/// [`Reason::InvalidInput`]: it is no point of the curve, a second spelling of one, or a weak one, under which a signature holds for many
/// messages.
pub fn check_key(key: PublicKey) -> Result<(), Refused> {
    usable(key).map(drop)
}

/// Whether a signature of a message holds: RFC 8032, with the checks that leave one signature one meaning.
pub(super) fn holds(key: PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let signature = ed25519_dalek::Signature::from_slice(signature);
    match (usable(key), signature) {
        (Ok(key), Ok(signature)) => key.verify_strict(message, &signature).is_ok(),
        _ => false,
    }
}

fn usable(key: PublicKey) -> Result<VerifyingKey, Refused> {
    let no = |fault: &str| {
        refuse(
            Reason::InvalidInput,
            format!("the key {key} {fault}; ask its owner for another"),
        )
    };
    let point = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| no("is no point of the curve"))?;
    if point.is_weak() {
        return Err(no("is weak: anyone can make signatures that hold under it"));
    }
    if point.to_edwards().compress().as_bytes() != key.as_bytes() {
        return Err(no("is a second spelling of another key"));
    }
    Ok(point)
}

/// What the first line of a PEM text says that it is.
fn label(text: &str) -> Option<&str> {
    let line = text.trim_start().lines().next()?;
    line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")
}
