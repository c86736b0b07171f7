//! What a task takes and gives, as typed JSON.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::Payload;

/// The most bytes that a payload may carry inline; the host refuses more. Larger values travel as artifacts.
pub const MAX_INLINE: usize = 256 * 1024;

/// Why a payload is not what the agent can work with.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not JSON, or not JSON of the shape that was asked for.
    Parse {
        /// Which payload it was, for people.
        what: String,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// The payload is a reference, and the agent does not read artifacts here.
    Reference {
        /// Which payload it was, for people.
        what: String,
    },
    /// The value has no JSON form: a map key that is not a string, or its own `Serialize` failed.
    Serialize(serde_json::Error),
    /// The value is too large to travel inline.
    TooLarge {
        /// Its length as JSON, in bytes.
        bytes: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Parse { what, .. } => write!(f, "{what} does not parse"),
            Error::Reference { what } => write!(f, "{what} is an artifact; this agent takes it inline"),
            Error::Serialize(_) => write!(f, "the value has no JSON form"),
            Error::TooLarge { bytes } => {
                write!(f, "{bytes} bytes are too many to return inline (at most {MAX_INLINE})")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Parse { source, .. } | Error::Serialize(source) => Some(source),
            Error::Reference { .. } | Error::TooLarge { .. } => None,
        }
    }
}

impl Payload {
    /// A value as inline JSON.
    ///
    /// # Errors
    /// The value has no JSON form or is larger than [`MAX_INLINE`].
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Payload, Error> {
        let bytes = serde_json::to_vec(value).map_err(Error::Serialize)?;
        if bytes.len() > MAX_INLINE {
            return Err(Error::TooLarge { bytes: bytes.len() });
        }
        Ok(Payload::Inline(bytes))
    }

    /// The value of an inline JSON payload. Use [`crate::artifacts::parse`] for payloads that may be references.
    ///
    /// # Errors
    /// The payload is a reference, or not JSON of this shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.parse_as("the payload")
    }

    /// [`parse`](Payload::parse) with the name that the error shall use.
    pub(crate) fn parse_as<T: DeserializeOwned>(&self, what: &str) -> Result<T, Error> {
        match self {
            Payload::Inline(bytes) => parse(bytes, what),
            Payload::Artifact(_) => Err(Error::Reference { what: what.into() }),
        }
    }
}

/// Read JSON, blaming `what` when it is none.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Parse {
        what: what.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Artifact, Failure, Retry};

    #[test]
    fn values_survive_the_way_through_a_payload() {
        let payload = Payload::json(&vec![1, 2, 3]).unwrap();
        assert_eq!(payload, Payload::Inline(b"[1,2,3]".to_vec()));
        assert_eq!(payload.parse::<Vec<u8>>().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_wrong_shape_is_named_and_not_tried_again() {
        let failure = Failure::from(
            Payload::Inline(b"{\"a\":1}".to_vec())
                .parse_as::<Vec<u8>>("the input")
                .unwrap_err(),
        );
        assert_eq!(failure.retry, Retry::Never);
        assert!(
            failure
                .message
                .starts_with("the input does not parse: invalid type: map"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn references_and_giants_are_refused() {
        let reference = Payload::Artifact(Artifact {
            digest: "0".repeat(64),
            size: 1,
            media: "application/json".into(),
        });
        assert!(matches!(reference.parse::<u8>(), Err(Error::Reference { .. })));
        let fits = "x".repeat(MAX_INLINE - 2);
        assert!(Payload::json(&fits).is_ok());
        assert!(
            matches!(Payload::json(&format!("{fits}x")), Err(Error::TooLarge { bytes }) if bytes == MAX_INLINE + 1)
        );
    }
}
