//! Typed identifiers. An id is a UUIDv7 drawn by the driver whose last 16 bits carry the shard that owns the record; its text is a prefix
//! and 32 hexadecimal digits (`task_0193…`). Also the digest that names content and the names that people choose.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::quantity::Time;

/// Why a text is not an id, a digest or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct Error {
    /// What was given, cut at 80 characters.
    pub text: String,
    /// What it should have been.
    pub expected: &'static str,
}

impl Error {
    fn new(text: &str, expected: &'static str) -> Self {
        Error {
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

/// Serialises through `Display` and `FromStr`, so that JSON and TOML hold what people type.
macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// What its text begins with.
            pub const PREFIX: &'static str = $prefix;

            /// An id from a UUIDv7 of the driver; the shard replaces its last 16 bits.
            #[must_use]
            pub fn new(uuid: u128, shard: u16) -> Self {
                $name(uuid & !0xffff | u128::from(shard))
            }

            /// The shard that owns the record.
            #[must_use]
            pub fn shard(self) -> u16 {
                u16::try_from(self.0 & 0xffff).expect("masked to 16 bits")
            }

            /// Sixteen bytes that sort as the ids do, for keys of tables.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:032x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                text.strip_prefix($prefix)
                    .filter(|hex| hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
                    .and_then(|hex| u128::from_str_radix(hex, 16).ok())
                    .map($name)
                    .ok_or_else(|| Error::new(text, $expected))
            }
        }

        text_serde!($name);

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.to_bytes())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let bytes = d.bytes()?.try_into().map_err(|_| decode::Error::message("an id is 16 bytes"))?;
                Ok($name(u128::from_be_bytes(bytes)))
            }
        }
    )*};
}

ids! {
    /// A task.
    TaskId, "task_", "a task id (`task_` and 32 hexadecimal digits)";
    /// An agent.
    AgentId, "agent_", "an agent id (`agent_` and 32 hexadecimal digits)";
    /// A crew.
    CrewId, "crew_", "a crew id (`crew_` and 32 hexadecimal digits)";
    /// A message.
    MessageId, "message_", "a message id (`message_` and 32 hexadecimal digits)";
    /// What a person is asked.
    ApprovalId, "approval_", "an approval id (`approval_` and 32 hexadecimal digits)";
}

impl TaskId {
    /// A UUIDv7 of a time whose random bits are those of a digest.
    #[must_use]
    pub(crate) fn of_digest(digest: Digest, at: Time, shard: u16) -> Self {
        let random = digest.0.first_chunk::<10>().expect("a digest has 32 bytes");
        let uuid = uuid::Builder::from_unix_timestamp_millis(at.0, random).into_uuid();
        TaskId::new(uuid.as_u128(), shard)
    }
}

impl ApprovalId {
    /// The id that was drawn for what a step makes.
    #[must_use]
    pub fn drawn(id: TaskId) -> Self {
        ApprovalId(id.0)
    }
}

/// SHA-256 of content: a component, an artifact, a request. Its text is 64 lower-case hexadecimal digits; `sha256:` in front is accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::new(text, "a SHA-256 digest (64 lower-case hexadecimal digits)");
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Digest(bytes))
    }
}

text_serde!(Digest);

impl<C> Encode<C> for Digest {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Digest {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.bytes()?
            .try_into()
            .map(Digest)
            .map_err(|_| decode::Error::message("a digest is 32 bytes"))
    }
}

/// Names that people choose: text that was checked once and cannot be wrong afterwards.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $max:literal, $extra:pat, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-') || matches!(b, $extra);
                let good = (1..=$max).contains(&text.len()) && text.bytes().all(legal)
                    && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
                good.then(|| $name(text.to_owned())).ok_or_else(|| Error::new(text, $expected))
            }
        }

        text_serde!($name);
    )*};
}

names! {
    /// A member of a crew, or a crew.
    Name, 64, b'_' | b'.', "a name (1 to 64 of `a-z 0-9 - _ .`, beginning and ending with a letter or digit)";
    /// A work label that a plugin provides and a task asks for.
    Role, 64, b'_' | b'.' | b'=', "a role (1 to 64 of `a-z 0-9 - _ . =`, beginning and ending with a letter or digit)";
    /// A node of a plan.
    NodeName, 64, b'_' | b'.' | b'/', "a node name (1 to 64 of `a-z 0-9 - _ . /`, beginning and ending with a letter or digit)";
}

/// `publisher/name` of a plugin; each half is a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PluginName(#[n(0)] String);

impl PluginName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first half: a [`Name`].
    #[must_use]
    pub fn publisher(&self) -> &str {
        self.0.split_once('/').map_or("", |(publisher, _)| publisher)
    }

    /// The second half: a [`Name`].
    #[must_use]
    pub fn plugin(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, plugin)| plugin)
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PluginName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('/') {
            Some((publisher, name)) if publisher.parse::<Name>().is_ok() && name.parse::<Name>().is_ok() => {
                Ok(PluginName(text.to_owned()))
            }
            _ => Err(Error::new(
                text,
                "a plugin name (`publisher/name`, each of `a-z 0-9 - _ .`)",
            )),
        }
    }
}

text_serde!(PluginName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_text_and_their_shard() {
        let id = TaskId::new(0x0193_0000_0000_7000_8000_0000_dead_beef, 7);
        assert_eq!(id.to_string(), "task_019300000000700080000000dead0007");
        assert_eq!((id.to_string().parse(), id.shard()), (Ok(id), 7));
        for bad in [
            "",
            "task_",
            "task_0193",
            "agent_019300000000700080000000dead0007",
            "task_019300000000700080000000DEAD0007",
        ] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_parse_with_and_without_their_prefix() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(format!("sha256:{digest}").parse(), Ok(digest));
        assert!("sha256:éé".parse::<Digest>().is_err());
    }

    #[test]
    fn names_are_checked_once() {
        for good in ["a", "secrets-1", "x.y_z"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a b", "ü", &"a".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!("skep/secrets".parse::<PluginName>().is_ok());
        for bad in ["skep", "skep/", "/x", "a/b/c"] {
            assert!(bad.parse::<PluginName>().is_err(), "{bad}");
        }
    }
}
