//! How things in the store are named: entries by position, rows by table and key, runs of rows by range.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use minicbor::{Decode, Encode};

/// The number of an entry of the journal. Entries are numbered from 1 without gaps; 0 is before everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Position(#[n(0)] pub u64);

impl Position {
    /// Before every entry.
    pub const START: Self = Self(0);

    /// The position `count` entries further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The key of a frame that begins here: big-endian, so that byte order is journal order.
    pub(crate) const fn key(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// Names of tables that are read from files, and the length of one: a store has a dozen short ones.
const TABLES: usize = 256;
const TABLE_NAME_BYTES: usize = 64;

/// A named table of bytes to bytes, created by the first write to it. What is in it is the caller's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(&'static str);

impl Table {
    /// Names a table; meant for a `const`, so that a bad name does not compile.
    ///
    /// # Panics
    /// If the name is empty or begins with a dot: those tables are the store's own.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(
            !name.is_empty() && !matches!(name.as_bytes().first(), Some(b'.')),
            "a table has a name, and a leading dot marks the store's own"
        );
        Self(name)
    }

    /// A table of the store itself.
    pub(crate) const fn own(name: &'static str) -> Self {
        Self(name)
    }

    /// The table of a name that was read; none where the name is too long or there are too many. Names live as long as the
    /// process, each once.
    pub(crate) fn named(name: &str) -> Option<Self> {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Some(Self(known));
        }
        if name.is_empty() || name.len() > TABLE_NAME_BYTES || names.len() >= TABLES {
            return None;
        }
        let name: &'static str = Box::leak(name.into());
        names.insert(name);
        Some(Self(name))
    }

    /// The name given to [`Table::new`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// The lowest and the highest key of a range.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Which keys of a table a scan visits, and in which order. Ascending unless [`Range::reversed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The lowest key.
    pub start: Bound<Vec<u8>>,
    /// The highest key.
    pub end: Bound<Vec<u8>>,
    /// From the highest key down.
    pub reverse: bool,
}

impl Range {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            reverse: false,
        }
    }

    /// Every key that begins with these bytes.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        // The first key past the prefix: the prefix with its last byte below 0xff raised. A prefix of 0xff only has none.
        while let Some(last) = end.pop() {
            if let Some(raised) = last.checked_add(1) {
                end.push(raised);
                break;
            }
        }
        let end = if end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(end)
        };
        Self {
            start: Bound::Included(prefix.to_vec()),
            end,
            reverse: false,
        }
    }

    /// Only keys greater than `key`: how an ascending scan goes on after its last row.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        self.start = Bound::Excluded(key.to_vec());
        self
    }

    /// Only keys less than `key`: how a descending scan goes on after its last row.
    #[must_use]
    pub fn before(mut self, key: &[u8]) -> Self {
        self.end = Bound::Excluded(key.to_vec());
        self
    }

    /// The same keys, from the highest down.
    #[must_use]
    pub const fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// The bounds as slices; an empty pair where start lies past end, which ordered maps would panic on.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let (start, end) = (
            self.start.as_ref().map(Vec::as_slice),
            self.end.as_ref().map(Vec::as_slice),
        );
        let empty = match (start, end) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b))
            | (Bound::Excluded(a), Bound::Included(b)) => a >= b,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        };
        (!empty).then_some((start, end))
    }
}
