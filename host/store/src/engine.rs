//! The seam under the store: ordered tables, read through snapshots and changed by one durable transaction at a time.
//! Journal, records and audit are rows like any other here; an engine knows nothing of them but the head row it guards.

use std::fmt::Debug;

use crate::{Error, Range, Table};

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A key and its new value; none deletes it.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// Where the head row lives.
pub(crate) const META: Table = Table::own(".meta");
/// Its key.
pub(crate) const HEAD: &[u8] = b"head";

/// One transaction, borrowed from whoever commits it.
#[derive(Debug, Default)]
pub struct Commit<'a> {
    /// The head row that must be there now. It holds position, frame hash and fence, so that one comparison checks all three.
    pub expect: Option<&'a [u8]>,
    /// The head row afterwards.
    pub head: &'a [u8],
    /// Rows to erase before the changes.
    pub erase: Option<(Table, Range)>,
    /// Rows to set and delete, each table once, keys ascending.
    pub changes: Vec<(Table, Vec<Change<'a>>)>,
}

/// A place that remembers. One owner writes; any thread reads.
pub trait Engine: Debug + Send + Sync + 'static {
    /// What is committed now, unmoved by later commits until dropped.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`] or [`Error::Engine`].
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error>;

    /// Makes all of it durable, or nothing. After an error nobody may commit again: what the disk holds is unknown.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the head row is not the expected one; else those of the engine.
    fn commit(&self, commit: &Commit<'_>) -> Result<(), Error>;
}

/// A view of one committed state.
pub trait Snapshot: Debug + Send + Sync {
    /// Every table that was ever written to, by ascending name.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`] or [`Error::Engine`].
    fn tables(&self) -> Result<Vec<Table>, Error>;

    /// The value of a key.
    ///
    /// # Errors
    /// As [`Snapshot::tables`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The first `limit` rows of a range, in its order.
    ///
    /// # Errors
    /// As [`Snapshot::tables`].
    fn scan(&self, table: Table, range: &Range, limit: usize) -> Result<Vec<Row>, Error>;
}
