//! A frame: the run of entries that one commit made durable together, as one row. It names the position of its first entry,
//! the fence of the owner that wrote it and the hash of the frame before it, so that a missing, foreign or changed frame
//! is found when the journal is read.

use std::ops::Bound;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use crate::engine::{Row, Snapshot};
use crate::record::Head;
use crate::{Error, Position, Range, Table};

pub(crate) const FRAMES: Table = Table::own(".frames");

/// Bytes of encoded entries in a frame. Below 1 MiB with room for headers, the largest message that a replicated log
/// accepts by default, so that one frame stays one publish there.
pub const FRAME_BYTES: usize = 768 * 1024;

/// Room for the hash and the frame's own fields.
const FRAME_OVERHEAD: usize = 128;
/// CBOR's header of a byte string under 4 GiB.
const ENTRY_OVERHEAD: usize = 5;

/// BLAKE3 of an encoded frame.
pub(crate) type Hash = [u8; HASH];
const HASH: usize = 32;

/// An entry and its position.
pub type Entry = (Position, Vec<u8>);

#[derive(Debug, Encode, Decode)]
pub(crate) struct Frame<'a> {
    #[n(0)]
    pub(crate) first: Position,
    #[n(1)]
    pub(crate) count: u64,
    #[n(2)]
    pub(crate) fence: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) previous: Hash,
    #[b(4)]
    pub(crate) entries: Vec<&'a ByteSlice>,
}

/// What one entry adds to a frame.
pub(crate) const fn entry_bytes(entry: &[u8]) -> usize {
    entry.len() + ENTRY_OVERHEAD
}

/// What a batch's entries may add up to and still fit one frame, as they must: a frame is the unit that a log replicates.
pub(crate) const BATCH_BYTES: usize = FRAME_BYTES - FRAME_OVERHEAD;

impl<'a> Frame<'a> {
    /// The row of a frame, its own hash first, and that hash.
    pub(crate) fn encode(&self) -> (Vec<u8>, Hash) {
        let entries: usize = self.entries.iter().map(|entry| entry_bytes(entry)).sum();
        let mut row = Vec::with_capacity(entries + FRAME_OVERHEAD);
        row.extend_from_slice(&[0; HASH]);
        let row = crate::record::encode_onto(row, self);
        Self::sealed(row)
    }

    fn sealed(mut row: Vec<u8>) -> (Vec<u8>, Hash) {
        let hash = row.get(HASH..).map_or_else(|| blake3::hash(&[]), blake3::hash);
        if let Some(place) = row.first_chunk_mut::<HASH>() {
            *place = *hash.as_bytes();
        }
        (row, *hash.as_bytes())
    }

    /// Reads the row kept under `key`, refusing one that is not as it was written.
    pub(crate) fn decode(key: &[u8], row: &'a [u8]) -> Result<(Self, Hash), Error> {
        let at = key.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        let damaged = |why: &str| Error::damaged("frame", format!("entry {at}: {why}"));
        let Some((hash, body)) = row.split_first_chunk::<HASH>() else {
            return Err(damaged("too short"));
        };
        if blake3::hash(body).as_bytes() != hash {
            return Err(damaged("its bytes do not match its hash"));
        }
        let frame: Self = minicbor::decode(body).map_err(|error| damaged(&error.to_string()))?;
        if frame.first.key() != *key || frame.entries.is_empty() || frame.len() != frame.count {
            return Err(damaged("its row does not match its header"));
        }
        Ok((frame, *hash))
    }

    fn len(&self) -> u64 {
        self.entries.len().try_into().unwrap_or(u64::MAX)
    }

    /// The position of its last entry.
    pub(crate) fn last(&self) -> Position {
        Position((self.first.0 + self.count).saturating_sub(1))
    }
}

/// Packs batches into as few frames as hold them without parting a batch.
pub(crate) fn pack(batches: &[Vec<Vec<u8>>]) -> Vec<Vec<&ByteSlice>> {
    let mut frames: Vec<Vec<&ByteSlice>> = Vec::new();
    let mut room = 0;
    for batch in batches {
        let bytes: usize = batch.iter().map(|entry| entry_bytes(entry)).sum();
        let entries = batch.iter().map(|entry| <&ByteSlice>::from(entry.as_slice()));
        match frames.last_mut() {
            Some(frame) if bytes <= room => {
                frame.extend(entries);
                room -= bytes;
            }
            _ => {
                frames.push(entries.collect());
                room = BATCH_BYTES.saturating_sub(bytes);
            }
        }
    }
    frames
}

/// Frames read at a time; a frame is under 1 MiB.
const PAGE: usize = 8;

/// The entries after a position, verified as they are read.
#[derive(Debug)]
pub(crate) struct Entries<'s> {
    snapshot: &'s dyn Snapshot,
    head: &'s Head,
    /// Entries up to here are skipped.
    after: Position,
    /// The last entry of the frame read before, and its hash where it is known.
    read: Position,
    hash: Option<Hash>,
    frames: std::vec::IntoIter<Row>,
    entries: std::vec::IntoIter<Entry>,
    done: bool,
}

impl<'s> Entries<'s> {
    /// Refuses a position whose successors were dropped.
    pub(crate) fn after(snapshot: &'s dyn Snapshot, head: &'s Head, after: Position) -> Result<Self, Error> {
        if after < head.base {
            return Err(Error::Truncated { after, base: head.base });
        }
        let mut found = Self {
            snapshot,
            head,
            after,
            read: head.base,
            hash: Some(head.base_hash),
            frames: Vec::new().into_iter(),
            entries: Vec::new().into_iter(),
            done: after >= head.last,
        };
        if let Some(first) = holder(snapshot, after.plus(1))?
            && first > found.read.plus(1)
        {
            found.read = Position(first.0 - 1);
            found.hash = None;
        }
        Ok(found)
    }

    /// The next frame's entries; none at the end of the journal.
    fn frame(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let next = self.read.plus(1);
        if self.frames.len() == 0 {
            let mut range = Range::all();
            range.start = Bound::Included(next.key().to_vec());
            self.frames = self.snapshot.scan(FRAMES, &range, PAGE)?.into_iter();
        }
        let Some((key, row)) = self.frames.next() else {
            if self.read != self.head.last {
                return Err(Error::damaged("frame", format!("entry {}: missing", next.0)));
            }
            if self.hash.is_some_and(|hash| hash != self.head.hash) {
                return Err(Error::damaged(
                    "frame",
                    format!("entry {}: it is not the one the head names", self.read.0),
                ));
            }
            return Ok(None);
        };
        let (frame, hash) = Frame::decode(&key, &row)?;
        if frame.first != next {
            return Err(Error::damaged("frame", format!("entry {}: missing", next.0)));
        }
        if self.hash.is_some_and(|hash| hash != frame.previous) {
            return Err(Error::damaged(
                "frame",
                format!("entry {}: it does not follow the frame before", next.0),
            ));
        }
        self.read = frame.last();
        self.hash = Some(hash);
        let positions = (frame.first.0..).map(Position);
        let entries = positions
            .zip(&frame.entries)
            .map(|(position, entry)| (position, entry.to_vec()));
        Ok(Some(entries.filter(|(position, _)| *position > self.after).collect()))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            if self.done {
                return None;
            }
            match self.frame() {
                Ok(Some(entries)) => self.entries = entries.into_iter(),
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Where the frame begins that holds `position`, or would.
fn holder(snapshot: &dyn Snapshot, position: Position) -> Result<Option<Position>, Error> {
    Ok(newest(snapshot, position)?
        .map(|(key, _)| Position(key.first_chunk().map_or(0, |key| u64::from_be_bytes(*key)))))
}

/// The newest frame that begins at or before `position`.
pub(crate) fn newest(snapshot: &dyn Snapshot, position: Position) -> Result<Option<Row>, Error> {
    let mut range = Range::all().reversed();
    range.end = Bound::Included(position.key().to_vec());
    Ok(snapshot.scan(FRAMES, &range, 1)?.pop())
}
