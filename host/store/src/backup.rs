//! Backups: everything that a store holds as of one position, in one stream, made while the store goes on. A snapshot of the
//! engine holds the rows still, and blobs that are dropped meanwhile go when the backup is done. One piece is in memory at a
//! time.

use std::io::{Read, Write};

use crate::audit::AUDIT;
use crate::engine::{META, Row, Snapshot};
use crate::frame::{Entries, FRAMES};
use crate::piece::{Piece, Reader, Writer, damaged};
use crate::record::Head;
use crate::seal::opened;
use crate::{AuditHead, Blobs, Error, Position, Range, Table, audit};

/// Rows are gathered into a piece until it holds so much.
pub(crate) const PIECE_BYTES: usize = 2 << 20;
/// Rows read at a time: one may have a mebibyte.
const PAGE: usize = 16;
/// What a row takes in a piece beside its bytes, at most.
const ROW_OVERHEAD: usize = 16;
const _: () = assert!(
    PIECE_BYTES > crate::VALUE_BYTES + crate::KEY_BYTES + 2 * ROW_OVERHEAD,
    "any row fits in a piece"
);
/// Bytes of a caller's file.
pub const BACKUP_FILE_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// It is as of this position.
    pub position: Position,
    /// The end of the audit log there.
    pub audit: AuditHead,
    /// Rows of all tables.
    pub rows: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of the backup.
    pub bytes: u64,
}

/// Writes a backup. `files` are the caller's own, by name, each at most [`BACKUP_FILE_BYTES`]. What is read is checked on the
/// way: a damaged store has no backup.
pub(crate) fn write(
    snapshot: &dyn Snapshot,
    head: &Head,
    blobs: &Blobs,
    files: &[(&str, Vec<u8>)],
    to: impl Write,
) -> Result<BackedUp, Error> {
    Entries::after(snapshot, head, head.base)?.try_for_each(|entry| entry.map(drop))?;
    let audit = audit::verify(snapshot, head)?;

    let mut writer = Writer::begin(to)?;
    let row = head.row();
    writer.write(&Piece::Head {
        row: row.as_slice().into(),
    })?;
    for (name, bytes) in files {
        crate::error::within("file of a backup", bytes.len(), BACKUP_FILE_BYTES)?;
        let bytes = bytes.as_slice().into();
        writer.write(&Piece::File { name, bytes })?;
    }
    let mut rows = 0;
    for table in snapshot.tables()? {
        if table != META {
            rows += write_table(snapshot, table, &mut writer)?;
        }
    }
    let mut kept = 0;
    for digest in blobs.list()? {
        let bytes = blobs.whole(digest)?;
        let bytes = bytes.as_slice().into();
        writer.write(&Piece::Blob { bytes })?;
        kept += 1;
    }
    writer.write(&Piece::End { rows, blobs: kept })?;
    Ok(BackedUp {
        position: head.last,
        audit,
        rows,
        blobs: kept,
        bytes: writer.finish()?,
    })
}

fn write_table(snapshot: &dyn Snapshot, table: Table, writer: &mut Writer<impl Write>) -> Result<u64, Error> {
    let mut gathered: Vec<Row> = Vec::new();
    let mut bytes = 0;
    let count = each_row(snapshot, table, |key, row| {
        let more = key.len() + row.len() + ROW_OVERHEAD;
        if bytes + more > PIECE_BYTES {
            write_rows(table, &gathered, writer)?;
            gathered.clear();
            bytes = 0;
        }
        bytes += more;
        gathered.push((key, row));
        Ok(())
    })?;
    write_rows(table, &gathered, writer)?;
    Ok(count)
}

/// Gives every row of a table as it lies in the engine, after a look at its seal, and says how many there are.
fn each_row(
    snapshot: &dyn Snapshot,
    table: Table,
    mut take: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut range = Range::all();
    let mut count = 0;
    loop {
        let page = snapshot.scan(table, &range, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        range = Range::all().after(last);
        for (key, row) in page {
            // Frames and audit rows have no seal, but chains.
            if table != FRAMES && table != AUDIT {
                opened(table, &key, row.clone())?;
            }
            take(key, row)?;
            count += 1;
        }
    }
}

/// Reads every row of every table, and says how many there are.
pub(crate) fn verify_tables(snapshot: &dyn Snapshot) -> Result<u64, Error> {
    let count = |table| each_row(snapshot, table, |_, _| Ok(()));
    snapshot.tables()?.into_iter().map(count).sum()
}

fn write_rows(table: Table, rows: &[Row], writer: &mut Writer<impl Write>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    writer.write(&Piece::Rows {
        table: table.name(),
        rows: rows
            .iter()
            .map(|(key, row)| (key.as_slice().into(), row.as_slice().into()))
            .collect(),
    })
}

/// Reads a backup to its end without keeping anything, and says what it holds. `blob_bytes` is the size of the largest blob.
///
/// # Errors
/// [`Error::Damaged`] naming the byte at which the first bad piece begins; [`Error::Format`]; [`Error::Io`].
pub fn check_backup(from: impl Read, blob_bytes: usize) -> Result<BackedUp, Error> {
    read(from, blob_bytes, &mut |_, _| Ok(()))
}

/// Reads a backup and gives each piece but the last, in their order, with the byte at which it begins. The head comes first.
pub(crate) fn read(
    from: impl Read,
    blob_bytes: usize,
    take: &mut dyn FnMut(u64, Piece<'_>) -> Result<(), Error>,
) -> Result<BackedUp, Error> {
    let mut reader = Reader::begin(from, blob_bytes)?;
    let mut head = None;
    let (mut rows, mut blobs) = (0, 0);
    loop {
        let (at, piece) = reader.next()?;
        match &piece {
            Piece::Head { row } if head.is_none() => head = Some(Head::decode(row)?),
            Piece::Head { .. } => return Err(damaged(at, "it has a second head")),
            _ if head.is_none() => return Err(damaged(at, "it does not begin with a head")),
            Piece::File { .. } => {}
            Piece::Rows { rows: more, .. } => rows += more.len() as u64,
            Piece::Blob { .. } => blobs += 1,
            Piece::End {
                rows: all,
                blobs: every,
            } if (*all, *every) == (rows, blobs) => break,
            Piece::End { .. } => return Err(damaged(at, "it does not hold as much as its end says")),
        }
        take(at, piece)?;
    }
    let bytes = reader.end()?;
    let head = head.ok_or_else(|| damaged(0, "it has no head"))?;
    Ok(BackedUp {
        position: head.last,
        audit: head.audit,
        rows,
        blobs,
        bytes,
    })
}
