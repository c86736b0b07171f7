//! Keys as the rules see them: bytes with a name. That they are good points on the curve, and that a signature holds, is for whoever computes with
//! them; the rules decide what a key that has signed may say.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};

use crate::id::{Digest, Error, text_serde};

/// What stands before a key's bytes where it is hashed or written: room for other algorithms, never negotiated.
const ALGORITHM: &str = "ed25519:";

/// An Ed25519 public key (RFC 8032). Its text is `ed25519:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A key from its 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        PublicKey(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its name: SHA-256 over the algorithm's tag and the bytes.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&[ALGORITHM.as_bytes(), &self.0].concat()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", Digest::from_bytes(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        hex(
            text,
            ALGORITHM,
            "a public key (`ed25519:` and 64 lower-case hexadecimal digits)",
        )
        .map(PublicKey)
    }
}

text_serde!(PublicKey);

impl<C> Encode<C> for PublicKey {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for PublicKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bytes = d.bytes()?.try_into();
        bytes
            .map(PublicKey)
            .map_err(|_| decode::Error::message("a key is 32 bytes"))
    }
}

/// The name of a key. Its text is `key_` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyId(#[n(0)] Digest);

impl KeyId {
    /// What its text begins with.
    pub const PREFIX: &'static str = "key_";

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// `key_` and 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}{}", Self::PREFIX, self.0.short())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = hex(
            text,
            Self::PREFIX,
            "a key id (`key_` and 64 lower-case hexadecimal digits)",
        )?;
        Ok(KeyId(Digest::from_bytes(bytes)))
    }
}

text_serde!(KeyId);

fn hex(text: &str, prefix: &str, expected: &'static str) -> Result<[u8; 32], Error> {
    let digest = text.strip_prefix(prefix).filter(|hex| hex.len() == 64);
    let digest = digest.and_then(|hex| hex.parse::<Digest>().ok());
    digest.map(|digest| *digest.as_bytes()).ok_or_else(|| Error {
        text: text.chars().take(80).collect(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_names_read_what_they_print() {
        let key = PublicKey::from_bytes([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
        assert_ne!(key.id(), PublicKey::from_bytes([8; 32]).id());
        let long = "0".repeat(64);
        for bad in [
            String::new(),
            "ed25519:00".into(),
            long.clone(),
            format!("ed25519:sha256:{long}"),
        ] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
        assert!(format!("ed25519:{long}").parse::<KeyId>().is_err());
    }
}
