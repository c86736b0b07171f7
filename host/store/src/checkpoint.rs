//! Checkpoints: the caller's records as of a position, written together with that position, so that recovery loads them and
//! replays only the entries after it. What lies before may then be dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::engine::{Row, Snapshot};
use crate::frame::{Entries, Entry, FRAMES, Frame, newest};
use crate::record::Head;
use crate::seal::opened;
use crate::{Error, Position, Range, Table};

pub(crate) const RECORDS: Table = Table::own(".records");

/// Records read at a time.
const PAGE: usize = 512;

/// A checkpoint that waits for the writer. A later one absorbs it.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) at: Position,
    pub(crate) records: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// Moves the base of the journal up to `target` and says which rows go. Only whole frames go, and the newest stays: the
/// head is checked against it.
pub(crate) fn truncate(
    snapshot: &dyn Snapshot,
    head: &mut Head,
    target: Position,
) -> Result<Option<(Table, Range)>, Error> {
    let Some((key, row)) = newest(snapshot, target.plus(1))? else {
        return Ok(None);
    };
    let (frame, _) = Frame::decode(&key, &row)?;
    let base = Position(frame.first.0.saturating_sub(1));
    if base <= head.base {
        return Ok(None);
    }
    head.base = base;
    head.base_hash = frame.previous;
    let range = Range {
        start: Bound::Unbounded,
        end: Bound::Excluded(key),
        reverse: false,
    };
    Ok(Some((FRAMES, range)))
}

/// What a store held when it was opened: load the records, then replay the entries. Drop it then: as long as it lives, the
/// engine keeps the rows it shows.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The records are as of this position; the entries begin after it.
    pub checkpoint: Position,
    /// The last entry.
    pub last: Position,
    snapshot: Arc<dyn Snapshot>,
    head: Arc<Head>,
}

impl Recovered {
    pub(crate) fn new(snapshot: Arc<dyn Snapshot>, head: Head) -> Self {
        Self {
            checkpoint: head.checkpoint,
            last: head.last,
            snapshot,
            head: Arc::new(head),
        }
    }

    /// The records of the last checkpoint, by ascending key, read a page at a time.
    ///
    /// # Errors
    /// Each item: [`Error::Damaged`] naming the record, or those of the engine.
    pub fn records(&self) -> impl Iterator<Item = Result<Row, Error>> + '_ {
        let mut range = Some(Range::all());
        let mut page = Vec::new().into_iter();
        std::iter::from_fn(move || {
            if page.len() == 0 {
                match self.snapshot.scan(RECORDS, &range.take()?, PAGE) {
                    Ok(rows) => {
                        range = rows.last().map(|(key, _)| Range::all().after(key));
                        page = rows.into_iter();
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            let (key, row) = page.next()?;
            Some(opened(RECORDS, &key, row).map(|value| (key, value)))
        })
    }

    /// The entries after the checkpoint, in order, read a few frames at a time and checked against the hash chain.
    ///
    /// # Errors
    /// Each item: [`Error::Damaged`] naming the frame, after which nothing follows, or those of the engine.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> + '_ {
        let (entries, refused) = match Entries::after(&*self.snapshot, &self.head, self.checkpoint) {
            Ok(entries) => (Some(entries), None),
            Err(error) => (None, Some(Err(error))),
        };
        refused.into_iter().chain(entries.into_iter().flatten())
    }
}
