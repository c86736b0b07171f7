//! Restoring: a backup becomes a store of its own, with a fence that no earlier owner can have.

use std::io::Read;
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use crate::backup::{self, BackedUp};
use crate::blob::BLOBS;
use crate::engine::{Commit, Engine, META, Row};
use crate::piece::{Piece, damaged};
use crate::record::Head;
use crate::{Blobs, Error, Options, Redb, Store, Table};

/// Bytes of rows that become one transaction.
const AT_ONCE: usize = 8 << 20;
/// What a restore adds to the fence. Every opening adds one, so the upper half of a fence counts restores, and an owner of the
/// store from which the backup came, however often it was opened since, has a lower one.
const RESTORED: u64 = 1 << 32;

/// Makes a store in a directory of its own from a backup, checks all of it and closes it again. The backup's files are given to
/// `file`, by name. The directory must be empty or not be there; after an error it holds a part of a store, to be removed.
///
/// # Errors
/// [`Error::Damaged`] naming the byte at which the first bad piece of the backup begins, or what did not hold in the store made
/// of it; [`Error::Format`]; [`Error::Foreign`] when the directory is not empty; [`Error::Io`]; those of `file`.
pub fn restore(
    from: impl Read,
    path: &Path,
    options: Options,
    mut file: impl FnMut(&str, &[u8]) -> Result<(), Error>,
) -> Result<BackedUp, Error> {
    Dir::create_ambient_dir_all(path, ambient_authority()).map_err(Error::io("create the directory of the store"))?;
    let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(Error::io("open the directory of the store"))?;
    if dir
        .entries()
        .map_err(Error::io("list the directory of the store"))?
        .next()
        .is_some()
    {
        return Err(Error::Foreign { path: path.to_owned() });
    }
    let mut making = Making {
        engine: Redb::open(&dir, path, &[BLOBS], &options)?,
        blobs: Blobs::open(&dir, options.blob_bytes)?,
        head: None,
        begun: false,
        rows: Vec::new(),
        bytes: 0,
    };
    let read = backup::read(from, options.blob_bytes, &mut |at, piece| match piece {
        Piece::File { name, bytes } => file(name, bytes),
        piece => making.take(at, piece),
    })?;
    making.commit()?;
    drop(making);

    let (store, recovered) = Store::open(
        path,
        Options {
            check_bytes: u64::MAX,
            ..options
        },
    )?;
    recovered.records().try_for_each(|record| record.map(drop))?;
    drop(recovered);
    store.verify_journal()?;
    store.verify_audit()?;
    store.close()?;
    Ok(read)
}

/// A store under construction.
struct Making {
    engine: Redb,
    blobs: Blobs,
    /// Its head row, once that is known.
    head: Option<Vec<u8>>,
    /// Something was committed, under that head.
    begun: bool,
    /// Rows of a table that wait to be committed, and their bytes.
    rows: Vec<(Table, Vec<Row>)>,
    bytes: usize,
}

impl Making {
    fn take(&mut self, at: u64, piece: Piece<'_>) -> Result<(), Error> {
        match piece {
            Piece::Head { row } => {
                let mut head = Head::decode(row)?;
                head.fence = head.fence.saturating_add(RESTORED);
                self.head = Some(head.row());
                Ok(())
            }
            Piece::Rows { table, rows } => {
                let table = Table::named(table).filter(|table| *table != META);
                let table = table.ok_or_else(|| damaged(at, "it names a table that no backup has"))?;
                self.bytes += rows.iter().map(|(key, row)| key.len() + row.len()).sum::<usize>();
                let rows = rows.iter().map(|(key, row)| (key.to_vec(), row.to_vec()));
                self.rows.push((table, rows.collect()));
                if self.bytes > AT_ONCE { self.commit() } else { Ok(()) }
            }
            Piece::Blob { bytes } => self.blobs.put(bytes).map(drop),
            Piece::File { .. } | Piece::End { .. } => Ok(()),
        }
    }

    /// Commits the rows that wait; the head goes with each commit.
    fn commit(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let head = self.head.as_deref().unwrap_or_default();
        self.engine.commit(&Commit {
            expect: self.begun.then_some(head),
            head,
            erase: None,
            changes: rows
                .iter()
                .map(|(table, rows)| {
                    (
                        *table,
                        rows.iter()
                            .map(|(key, row)| (key.as_slice(), Some(row.as_slice())))
                            .collect(),
                    )
                })
                .collect(),
        })?;
        self.begun = true;
        Ok(())
    }
}
