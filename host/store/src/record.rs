//! The store's own rows, with numbered fields: an older reader skips what it does not know.

use minicbor::{Decode, Encode};

use crate::audit::AuditHead;
use crate::engine::{HEAD, META, Snapshot};
use crate::frame::Hash;
use crate::seal::{opened, sealed};
use crate::{Error, Position};

/// The format that this release writes. The first, whose rows had no seals, is brought to it when a store is opened.
pub(crate) const FORMAT: u32 = 2;

/// Where journal and audit stand. Every commit replaces it and names the one it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Head {
    /// First in every format, so that an unknown one can be named.
    #[n(0)]
    pub(crate) format: u32,
    /// Raised by every owner that opens the store.
    #[n(1)]
    pub(crate) fence: u64,
    /// The last entry, and the hash of the frame that holds it.
    #[n(2)]
    pub(crate) last: Position,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) hash: Hash,
    /// The last entry that was dropped, and the hash of the frame that held it.
    #[n(4)]
    pub(crate) base: Position,
    #[cbor(n(5), with = "minicbor::bytes")]
    pub(crate) base_hash: Hash,
    #[n(6)]
    pub(crate) checkpoint: Position,
    #[n(7)]
    pub(crate) audit: AuditHead,
    /// Audit payloads up to this row are expired.
    #[n(8)]
    pub(crate) expired: u64,
}

#[derive(Decode)]
struct Format {
    #[n(0)]
    format: u32,
}

impl Head {
    /// The head of a store without entries.
    pub(crate) fn new() -> Self {
        Self {
            format: FORMAT,
            fence: 0,
            last: Position::START,
            hash: Hash::default(),
            base: Position::START,
            base_hash: Hash::default(),
            checkpoint: Position::START,
            audit: AuditHead::default(),
            expired: 0,
        }
    }

    /// The head row of a snapshot, none in a new store.
    pub(crate) fn read(snapshot: &dyn Snapshot) -> Result<Option<(Self, Vec<u8>)>, Error> {
        let Some(row) = snapshot.get(META, HEAD)? else {
            return Ok(None);
        };
        Ok(Some((Self::decode(&row)?, row)))
    }

    /// The head that a row holds.
    pub(crate) fn decode(row: &[u8]) -> Result<Self, Error> {
        let format = format_of(row)?;
        if format != FORMAT {
            return Err(Error::Format {
                what: "store",
                found: format,
                known: FORMAT,
            });
        }
        Self::unsealed(&opened(META, HEAD, row.to_vec())?)
    }

    /// The head that the bytes of a row hold, without its seal.
    pub(crate) fn unsealed(row: &[u8]) -> Result<Self, Error> {
        minicbor::decode(row).map_err(damaged)
    }
}

/// The format of the store whose head is in a row.
pub(crate) fn format_of(row: &[u8]) -> Result<u32, Error> {
    let Format { format } = minicbor::decode(row).map_err(damaged)?;
    Ok(format)
}

fn damaged(error: minicbor::decode::Error) -> Error {
    Error::damaged("head", error.to_string())
}

impl Head {
    /// The row of this head.
    pub(crate) fn row(&self) -> Vec<u8> {
        sealed(META, HEAD, &encode(self))
    }
}

/// Encodes a row.
pub(crate) fn encode(value: &impl Encode<()>) -> Vec<u8> {
    encode_onto(Vec::new(), value)
}

/// Encodes behind what `row` already holds.
pub(crate) fn encode_onto(mut row: Vec<u8>, value: &impl Encode<()>) -> Vec<u8> {
    minicbor::encode(value, &mut row).expect("writing to a vector cannot fail, and no field encodes with an error");
    row
}
