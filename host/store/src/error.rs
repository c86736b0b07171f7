//! What can go wrong in the store. The variants part by who must act: the caller gave something too large or too old, the
//! operator pointed at the wrong directory or has a damaged disk, or the store has failed and the process must reopen it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{Digest, Position};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory, or the file in it, is not a store of Skep; nothing in it was changed.
    #[error("{} is not a store of skep", path.display())]
    Foreign {
        /// The directory that was to be opened.
        path: PathBuf,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory that was to be opened.
        path: PathBuf,
    },
    /// A store or a backup was written in a format that this release does not know.
    #[error("the {what} has format {found}, this release reads {known}")]
    Format {
        /// Store or backup.
        what: &'static str,
        /// The format found.
        found: u32,
        /// The only format this release reads.
        known: u32,
    },
    /// Bytes on the disk are not those that were written. The store does not repair or skip them.
    #[error("damaged {what}: {at}")]
    Damaged {
        /// The kind of thing: frame, audit row, row, blob, head, database, backup.
        what: &'static str,
        /// Which one, and what is wrong with it.
        at: String,
    },
    /// Someone else moved the head of the journal: this owner has lost its right to append.
    #[error("the head of the journal was moved by another owner")]
    Fenced,
    /// A batch, key, value, payload, page or blob is over its bound.
    #[error("{what} of {size} is over the limit of {limit}")]
    OverLimit {
        /// What was measured.
        what: &'static str,
        /// Its size: bytes, or rows for a page.
        size: usize,
        /// The bound, in the same unit.
        limit: usize,
    },
    /// A batch holds writes or audit rows but no entry, so no position could tell when they are durable.
    #[error("a batch with writes or audit rows needs an entry")]
    NoEntry,
    /// A checkpoint was asked at a position that was not assigned yet, or that lies before the last checkpoint.
    #[error("a checkpoint at entry {} is outside entries {} to {}", at.0, checkpoint.0, last.0)]
    CheckpointOutside {
        /// The position asked for.
        at: Position,
        /// The last checkpoint.
        checkpoint: Position,
        /// The last entry appended.
        last: Position,
    },
    /// The entries asked for were dropped by a checkpoint.
    #[error("entries after {} were asked for, the journal begins after {}", after.0, base.0)]
    Truncated {
        /// The position asked for.
        after: Position,
        /// The last position that was dropped.
        base: Position,
    },
    /// No blob has this digest.
    #[error("no blob {digest}")]
    NoBlob {
        /// The digest asked for.
        digest: Digest,
    },
    /// A commit failed. It is never retried: what the disk holds is known only after the store is opened again.
    #[error("the store has failed: {reason}")]
    Failed {
        /// The first failure.
        reason: Arc<str>,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The operating system refused.
    #[error("cannot {doing}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
    /// The engine refused for a reason that none of the above covers.
    #[error("engine: {0}")]
    Engine(String),
}

impl Error {
    /// For `map_err`: names what was attempted.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn damaged(what: &'static str, at: impl Into<String>) -> Self {
        Self::Damaged { what, at: at.into() }
    }

    /// The message with its sources, for the one string that a failed store keeps.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        text
    }
}

/// Refuses `size` over `limit`.
pub(crate) fn within(what: &'static str, size: usize, limit: usize) -> Result<(), Error> {
    if size > limit {
        return Err(Error::OverLimit { what, size, limit });
    }
    Ok(())
}
