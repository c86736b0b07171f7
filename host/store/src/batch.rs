//! What a caller hands over to become durable together, and the bounds on its parts.

use crate::audit::AUDIT_BYTES;
use crate::error::within;
use crate::frame::{BATCH_BYTES, entry_bytes};
use crate::{Error, Table};

/// Bytes of a key: what an index page holds dozens of.
pub const KEY_BYTES: usize = 2 * 1024;
/// Bytes of a value or of a checkpointed record; what is larger is a blob.
pub const VALUE_BYTES: usize = 1024 * 1024;
/// A change to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put {
        /// The table, created by its first write.
        table: Table,
        /// At most [`KEY_BYTES`].
        key: Vec<u8>,
        /// At most [`VALUE_BYTES`].
        value: Vec<u8>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Vec<u8>,
    },
}

/// What a part of a batch takes in memory beside its bytes, so that many small ones count for what they are.
const PART_BYTES: usize = 64;

/// What becomes durable together or not at all. Without entries it must be empty: positions tell what is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Entries of the journal, together under [`crate::FRAME_BYTES`]: a batch is never parted over frames.
    pub entries: Vec<Vec<u8>>,
    /// Payloads of audit rows, each at most [`AUDIT_BYTES`].
    pub audit: Vec<Vec<u8>>,
    /// Changes to tables, the last one of a key counts.
    pub writes: Vec<Write>,
}

impl Batch {
    /// What it takes in memory, if every part is within its bound.
    pub(crate) fn measure(&self) -> Result<usize, Error> {
        let entries = self.entries.iter().map(|entry| entry_bytes(entry)).sum();
        within("entries of a batch", entries, BATCH_BYTES)?;
        if self.entries.is_empty() && !(self.audit.is_empty() && self.writes.is_empty()) {
            return Err(Error::NoEntry);
        }
        let parts = self.entries.len() + self.audit.len() + self.writes.len();
        let mut bytes = entries + parts * PART_BYTES;
        for payload in &self.audit {
            within("audit payload", payload.len(), AUDIT_BYTES)?;
            bytes += payload.len();
        }
        for write in &self.writes {
            bytes += match write {
                Write::Put { key, value, .. } => measure_row(key, Some(value))?,
                Write::Delete { key, .. } => measure_row(key, None)?,
            };
        }
        Ok(bytes)
    }
}

/// The bytes of a row, if key and value are within their bounds.
pub(crate) fn measure_row(key: &[u8], value: Option<&Vec<u8>>) -> Result<usize, Error> {
    let value = value.map_or(0, Vec::len);
    within("key", key.len(), KEY_BYTES)?;
    within("value", value, VALUE_BYTES)?;
    Ok(key.len() + value)
}
