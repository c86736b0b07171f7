//! Content-addressed blobs of the crew. Needs the grant `artifacts`.
//!
//! An agent that calls nothing of this module does not import the interface and needs no grant. Blobs of any size up to 10 MiB are taken
//! and given here; the pieces of less than 1 MiB in which the host moves them are this module's business.

use std::{borrow::Cow, io};

use serde::{Serialize, de::DeserializeOwned};

#[cfg(target_family = "wasm")]
use crate::bindings::imports::skep::agent::artifacts as host;
#[cfg(not(target_family = "wasm"))]
use crate::double::artifacts as host;
use crate::{Artifact, Failure, Payload, payload};

pub use crate::bindings::imports::skep::agent::artifacts::Error;

/// Outputs up to this many bytes travel inline; leaves room below [`payload::MAX_INLINE`] for what a plan or a reporter adds.
pub const INLINE_OUTPUT: usize = 200 * 1024;

/// The largest piece that one call moves. The host takes less than 1 MiB; half of it leaves an agent of 16 MiB room to work.
const PIECE: u32 = 512 * 1024;

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// A blob being written. Dropped before [`finish`](Writer::finish) it leaves nothing behind.
#[derive(Debug)]
pub struct Writer(host::Writer);

impl Writer {
    /// Begin a blob of a media type, for example [`JSON`].
    pub fn new(media: &str) -> Writer {
        Writer(host::Writer::new(media))
    }

    /// Append bytes, however many.
    ///
    /// # Errors
    /// The grant is used up, the blob passes 10 MiB, or the host cannot store it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        bytes.chunks(PIECE as usize).try_for_each(|piece| self.0.write(piece))
    }

    /// Store it. The same bytes always give the same digest.
    ///
    /// # Errors
    /// As [`write`](Writer::write).
    pub fn finish(self) -> Result<Artifact, Error> {
        host::Writer::finish(self.0)
    }
}

impl io::Write for Writer {
    /// Every call crosses into the host: wrap it in a [`std::io::BufWriter`] for small writes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Writer::write(self, bytes).map_err(|error| io::Error::other(describe(error)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Store a blob in one go.
///
/// # Errors
/// As [`Writer::write`].
pub fn write_all(media: &str, bytes: &[u8]) -> Result<Artifact, Error> {
    let mut writer = Writer::new(media);
    writer.write(bytes)?;
    writer.finish()
}

/// Read at most `length` bytes (and less than 1 MiB) from `offset`. Empty at or past the end.
///
/// # Errors
/// The crew has no such artifact, or the host cannot read it.
pub fn read(artifact: &Artifact, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
    host::read(&artifact.digest, offset, length)
}

/// Read a whole blob.
///
/// # Errors
/// As [`read`].
pub fn read_all(artifact: &Artifact) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    loop {
        let piece = read(artifact, bytes.len() as u64, PIECE)?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
    }
}

/// The bytes of a payload, wherever they are.
///
/// # Errors
/// As [`read`].
pub fn bytes(payload: &Payload) -> Result<Cow<'_, [u8]>, Error> {
    match payload {
        Payload::Inline(bytes) => Ok(Cow::Borrowed(bytes)),
        Payload::Artifact(artifact) => read_all(artifact).map(Cow::Owned),
    }
}

/// The value of a JSON payload, inline or by reference.
///
/// # Errors
/// It cannot be read (tried again when the host says that this may help) or is not JSON of this shape (never tried again).
pub fn parse<T: DeserializeOwned>(payload: &Payload) -> Result<T, Failure> {
    Ok(payload::parse(&bytes(payload)?, "the payload")?)
}

/// A value as a JSON payload: inline up to [`INLINE_OUTPUT`], an artifact above.
///
/// # Errors
/// It has no JSON form, or cannot be stored.
pub fn output<T: Serialize + ?Sized>(value: &T) -> Result<Payload, Failure> {
    let bytes = serde_json::to_vec(value).map_err(payload::Error::Serialize)?;
    if bytes.len() <= INLINE_OUTPUT {
        return Ok(Payload::Inline(bytes));
    }
    Ok(Payload::Artifact(write_all(JSON, &bytes)?))
}

/// A refusal in words, for messages.
pub(crate) fn describe(error: Error) -> &'static str {
    match error {
        Error::NotFound => "no such artifact in this crew",
        Error::QuotaExceeded => "the grant is used up or the blob passes 10 MiB",
        Error::InvalidInput => "the digest, the piece or the media type is not valid",
        Error::CapabilityDenied => "the grant was taken back, or the task is ephemeral",
        Error::Unavailable => "the host cannot store or read it now",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_of_several_pieces_come_back_whole() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * PIECE as usize / 2).collect();
        let artifact = write_all("text/plain", &bytes).unwrap();
        assert_eq!(
            (artifact.size, artifact.media.as_str()),
            (bytes.len() as u64, "text/plain")
        );
        assert_eq!(read_all(&artifact).unwrap(), bytes);
        assert_eq!(read(&artifact, 10, 2).unwrap(), [10, 11]);
        assert_eq!(write_all("text/plain", &bytes).unwrap().digest, artifact.digest);
    }

    #[test]
    fn outputs_choose_their_way_and_parse_reads_both() {
        let small = output("short").unwrap();
        assert_eq!(small, Payload::Inline(b"\"short\"".to_vec()));
        let text = "x".repeat(INLINE_OUTPUT);
        let large = output(&text).unwrap();
        assert!(matches!(&large, Payload::Artifact(artifact) if artifact.media == JSON));
        assert_eq!(parse::<String>(&small).unwrap(), "short");
        assert_eq!(parse::<String>(&large).unwrap(), text);
        assert!(parse::<u8>(&small).unwrap_err().message.contains("does not parse"));
    }

    #[test]
    fn unknown_digests_are_not_found() {
        let missing = Artifact {
            digest: "f".repeat(64),
            size: 1,
            media: JSON.into(),
        };
        assert_eq!(read_all(&missing), Err(Error::NotFound));
    }
}
