//! The handle that everyone holds: checks a batch, gives it its positions and hands it to the writer; reads pending writes
//! first, then the engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio::sync::watch;

use crate::audit;
use crate::backup::{self, BackedUp};
use crate::batch::measure_row;
use crate::blob::BLOBS;
use crate::engine::{Commit, Engine, Row, Snapshot};
use crate::error::within;
use crate::frame::{Entries, Entry};
use crate::overlay::Overlay;
use crate::record::Head;
use crate::seal::opened;
use crate::upgrade::upgrade;
use crate::writer::{Group, Shared, Writer};
use crate::{AuditHead, AuditRow, Batch, Blobs, Error, Memory, Position, Range, Recovered, Redb, Table};

/// Rows, entries or audit rows in one page: what a caller can ask for without holding much memory or the lock for long.
pub const SCAN_ROWS: usize = 1000;

/// Bounds that the caller chooses.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that may wait for the writer before [`Store::append`] blocks. As much again may be under way. Default 64 MiB:
    /// half a second of a slow disk.
    pub pending_bytes: usize,
    /// Bytes of the database that the engine may keep in memory. Default 128 MiB.
    pub cache_bytes: usize,
    /// A database up to this size is read whole when it is opened, every page checked against its checksum. Default
    /// 256 MiB, about a second; larger ones are checked so only after a crash. `u64::MAX` checks always.
    pub check_bytes: u64,
    /// The largest blob. Default 10 MiB.
    pub blob_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pending_bytes: 64 << 20,
            cache_bytes: 128 << 20,
            check_bytes: 256 << 20,
            blob_bytes: 10 << 20,
        }
    }
}

/// A store, open. Clones share it; when the last one goes, what was appended is made durable and the directory released.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    durable: watch::Receiver<Position>,
    blobs: Blobs,
    pending_bytes: usize,
    fence: u64,
    /// The writer, until someone has waited for its end.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in a directory of its own, creating both when they are not there.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it; [`Error::Foreign`] when the directory holds anything else;
    /// [`Error::Format`]; [`Error::Damaged`] when the last frame is not the one that was written; [`Error::Io`].
    pub fn open(path: &Path, options: Options) -> Result<(Self, Recovered), Error> {
        Dir::create_ambient_dir_all(path, ambient_authority())
            .map_err(Error::io("create the directory of the store"))?;
        let dir =
            Dir::open_ambient_dir(path, ambient_authority()).map_err(Error::io("open the directory of the store"))?;
        let engine = Redb::open(&dir, path, &[BLOBS], &options)?;
        let blobs = Blobs::open(&dir, options.blob_bytes)?;
        Self::on(Box::new(engine), blobs, &options)
    }

    /// A store that is gone with its last clone.
    ///
    /// # Errors
    /// [`Error::Io`] when the writer's thread cannot be started.
    pub fn in_memory(options: Options) -> Result<(Self, Recovered), Error> {
        Self::with_engine(Memory::default(), options)
    }

    /// A store over an engine of the caller's, with blobs in memory.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn with_engine(engine: impl Engine, options: Options) -> Result<(Self, Recovered), Error> {
        Self::on(Box::new(engine), Blobs::in_memory(options.blob_bytes), &options)
    }

    fn on(engine: Box<dyn Engine>, blobs: Blobs, options: &Options) -> Result<(Self, Recovered), Error> {
        let (head, row) = take_over(&*engine)?;
        let snapshot: Arc<dyn Snapshot> = engine.snapshot()?.into();
        // The last frame is checked now, before anything is chained onto it; the others when they are read.
        let before_last = Position(head.last.0.saturating_sub(1)).max(head.base);
        Entries::after(&*snapshot, &head, before_last)?.try_for_each(|entry| entry.map(drop))?;

        let recovered = Recovered::new(snapshot, head.clone());
        let fence = head.fence;
        let shared = Arc::new(Shared::new(engine, &head));
        let (sender, durable) = watch::channel(head.last);
        let writer = Writer {
            shared: Arc::clone(&shared),
            durable: sender,
            head,
            row,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(|| writer.run())
            .map_err(Error::io("start the writer of the store"))?;
        let pending_bytes = options.pending_bytes;
        let inner = Inner {
            shared,
            durable,
            blobs,
            pending_bytes,
            fence,
            writer: Mutex::new(Some(writer)),
        };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    /// Appends a batch and returns the position of its last entry. Reads see it at once; the disk has it when
    /// [`Store::wait`] for that position returns, or some milliseconds later where nobody waits. Blocks only while
    /// [`Options::pending_bytes`] are waiting. An empty batch changes nothing and returns the last position.
    ///
    /// # Errors
    /// [`Error::OverLimit`] and [`Error::NoEntry`], changing nothing; [`Error::Failed`]; [`Error::Closed`].
    pub fn append(&self, batch: Batch) -> Result<Position, Error> {
        let bytes = batch.measure()?;
        let shared = &self.inner.shared;
        let mut pending = shared.lock();
        loop {
            pending.open()?;
            let waiting = pending.gathering.bytes;
            if waiting == 0 || waiting + bytes <= self.inner.pending_bytes {
                break;
            }
            shared.hurry(&mut pending);
            pending = shared.progress(pending);
        }
        if batch.entries.is_empty() {
            return Ok(pending.last);
        }
        // Otherwise the writer has been woken for what is there already.
        let first = pending.gathering.is_empty();
        pending.last = pending.last.plus(batch.entries.len().try_into().unwrap_or(u64::MAX));
        let position = pending.last;
        pending.gathering.add(batch, bytes);
        drop(pending);
        if first {
            shared.wake();
        }
        Ok(position)
    }

    /// Replaces records, and from its completion on lets recovery begin after `at`: the caller promises that the records
    /// then hold everything up to there. Records and position become durable together, behind every append so far and
    /// without stopping new ones; frames wholly at or before `at` go, all but the newest. Not
    /// held back: how much is dirty is up to the caller. Returns without waiting for the
    /// disk; [`Store::flush`] waits.
    ///
    /// # Errors
    /// [`Error::CheckpointOutside`] and [`Error::OverLimit`], changing nothing; [`Error::Failed`]; [`Error::Closed`].
    pub fn checkpoint(&self, at: Position, dirty: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), Error> {
        for (key, value) in &dirty {
            measure_row(key, value.as_ref())?;
        }
        // Sorted before the lock is taken: all that append and read wait for it.
        let dirty = BTreeMap::from_iter(dirty);
        let mut pending = self.inner.shared.lock();
        pending.open()?;
        let (checkpoint, last) = (pending.checkpoint, pending.last);
        if at < checkpoint || at > last {
            return Err(Error::CheckpointOutside { at, checkpoint, last });
        }
        pending.checkpoint = at;
        pending.gathering.add_checkpoint(at, dirty);
        drop(pending);
        self.inner.shared.wake();
        Ok(())
    }

    /// Lets the payloads of audit rows up to `through` go. Their digests stay, so the chain can still be verified. Returns
    /// without waiting for the disk.
    ///
    /// # Errors
    /// [`Error::Failed`]; [`Error::Closed`].
    pub fn expire_audit(&self, through: u64) -> Result<(), Error> {
        let mut pending = self.inner.shared.lock();
        pending.open()?;
        pending.gathering.expire = pending.gathering.expire.max(Some(through));
        drop(pending);
        self.inner.shared.wake();
        Ok(())
    }

    /// The position up to which everything is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        *self.inner.durable.borrow()
    }

    /// The last position handed out; perhaps not durable yet.
    #[must_use]
    pub fn last(&self) -> Position {
        self.inner.shared.lock().last
    }

    /// Bytes that wait for the writer, those being committed not counted: how far the disk is behind.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.inner.shared.lock().gathering.bytes
    }

    /// This owner's fence, higher than that of every owner before.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.inner.fence
    }

    /// Follows [`Store::durable`]. When the store fails or closes, `changed` returns an error after the last position.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.inner.durable.clone()
    }

    /// Waits until `position` is durable; a position not handed out yet is waited for too.
    ///
    /// # Errors
    /// [`Error::Failed`] or [`Error::Closed`] when it will never be.
    pub async fn wait(&self, position: Position) -> Result<(), Error> {
        if self.durable() >= position {
            return Ok(());
        }
        self.hurry();
        let ended = self
            .inner
            .durable
            .clone()
            .wait_for(|durable| *durable >= position)
            .await
            .is_err();
        if ended {
            self.inner.shared.lock().sound()?;
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Has what was appended written at once, for somebody who waits for it by other means than [`Store::wait`].
    pub fn hurry(&self) {
        let shared = &self.inner.shared;
        shared.hurry(&mut shared.lock());
    }

    /// [`Store::wait`] for threads that may block.
    ///
    /// # Errors
    /// As [`Store::wait`].
    pub fn wait_blocking(&self, position: Position) -> Result<(), Error> {
        let mut pending = self.inner.shared.lock();
        while pending.durable < position {
            self.inner.shared.hurry(&mut pending);
            pending.sound()?;
            if pending.ended {
                return Err(Error::Closed);
            }
            pending = self.inner.shared.progress(pending);
        }
        Ok(())
    }

    /// Waits until everything asked so far is durable, checkpoints too (a long expiry goes on behind it). Blocks.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn flush(&self) -> Result<(), Error> {
        let mut pending = self.inner.shared.lock();
        let asked = pending.asked();
        while pending.committed < asked {
            self.inner.shared.hurry(&mut pending);
            pending.sound()?;
            pending = self.inner.shared.progress(pending);
        }
        Ok(())
    }

    /// The value of a key, pending writes included.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the row; [`Error::Failed`] once the store has failed; those of the engine.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let pending = self.inner.shared.lock();
        pending.sound()?;
        for group in [&pending.gathering, &*pending.committing] {
            if let Some(value) = group.writes.get(&table).and_then(|rows| rows.get(key)) {
                return Ok(value.clone());
            }
        }
        // The engine is asked without the lock: what was committed since is newer, never older.
        drop(pending);
        let row = self.inner.shared.engine.snapshot()?.get(table, key)?;
        row.map(|row| opened(table, key, row)).transpose()
    }

    /// The first `limit` rows of a range, pending writes included, as of one moment.
    ///
    /// # Errors
    /// [`Error::OverLimit`] over [`SCAN_ROWS`]; [`Error::Damaged`] naming the row; [`Error::Failed`]; those of the engine.
    pub fn scan(&self, table: Table, range: &Range, limit: usize) -> Result<Vec<Row>, Error> {
        within("page", limit, SCAN_ROWS)?;
        let pending = self.inner.shared.lock();
        pending.sound()?;
        // Taken under the lock: a commit that ended in between would show rows newer than the pending ones laid over them.
        let snapshot = self.inner.shared.engine.snapshot()?;
        let newer = collect(&pending.gathering, &pending.committing, table, range, limit);
        drop(pending);

        let deleted = newer.iter().filter(|(_, value)| value.is_none()).count();
        let older = snapshot.scan(table, range, limit + deleted)?.into_iter();
        let older = older.map(|(key, row)| opened(table, &key, row).map(|value| (key, Some(value))));
        let older = older.collect::<Result<Vec<_>, _>>()?.into_iter();
        let rows = Overlay::new(newer.into_iter(), older, range.reverse);
        Ok(rows
            .filter_map(|(key, value)| Some((key, value?)))
            .take(limit)
            .collect())
    }

    /// The first `limit` durable entries after a position.
    ///
    /// # Errors
    /// [`Error::Truncated`] when a checkpoint dropped them; [`Error::OverLimit`] over [`SCAN_ROWS`]; [`Error::Damaged`];
    /// [`Error::Failed`]; those of the engine.
    pub fn entries(&self, after: Position, limit: usize) -> Result<Vec<Entry>, Error> {
        within("page", limit, SCAN_ROWS)?;
        let (snapshot, head) = self.committed()?;
        Entries::after(&*snapshot, &head, after)?.take(limit).collect()
    }

    /// Reads every frame that is still there, checking the hash chain, and returns the last position.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the first bad frame; [`Error::Failed`]; those of the engine.
    pub fn verify_journal(&self) -> Result<Position, Error> {
        let (snapshot, head) = self.committed()?;
        Entries::after(&*snapshot, &head, head.base)?.try_for_each(|entry| entry.map(drop))?;
        Ok(head.last)
    }

    /// Reads every row of every table, records included, and returns how many there are.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the first bad row; [`Error::Failed`]; those of the engine.
    pub fn verify_tables(&self) -> Result<u64, Error> {
        backup::verify_tables(&*self.committed()?.0)
    }

    /// The first `limit` durable audit rows numbered `from` or higher, each checked against its digest and the row before it.
    ///
    /// # Errors
    /// [`Error::OverLimit`] over [`SCAN_ROWS`]; [`Error::Damaged`] naming the first bad row; [`Error::Failed`]; those of the
    /// engine.
    pub fn audit(&self, from: u64, limit: usize) -> Result<Vec<AuditRow>, Error> {
        within("page", limit, SCAN_ROWS)?;
        let (snapshot, head) = self.committed()?;
        audit::read(&*snapshot, &head, from, limit)
    }

    /// The end of the durable audit log.
    ///
    /// # Errors
    /// [`Error::Failed`]; those of the engine.
    pub fn audit_head(&self) -> Result<AuditHead, Error> {
        Ok(self.committed()?.1.audit)
    }

    /// Recomputes the whole audit chain and returns its end.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the first bad row; [`Error::Failed`]; those of the engine.
    pub fn verify_audit(&self) -> Result<AuditHead, Error> {
        let (snapshot, head) = self.committed()?;
        audit::verify(&*snapshot, &head)
    }

    /// Writes all that is durable now to a backup, as of one position, while the store goes on; `files` are the caller's own,
    /// by name, each at most [`crate::BACKUP_FILE_BYTES`]. Blocks until it is written, and keeps what is dropped meanwhile
    /// until then. [`crate::restore`] makes a store of it.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming what cannot be backed up because it is not what was written; [`Error::OverLimit`];
    /// [`Error::Failed`]; [`Error::Io`], also those of `to`; those of the engine.
    pub fn backup(&self, files: &[(&str, Vec<u8>)], to: impl std::io::Write) -> Result<BackedUp, Error> {
        // Before the snapshot: what its rows name must still be there when it is read.
        let blobs = self.inner.blobs.hold();
        let (snapshot, head) = self.committed()?;
        backup::write(&*snapshot, &head, &blobs, files, to)
    }

    /// The blobs beside the journal.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Makes everything durable that was appended and stops the writer; other clones can still read. The directory is
    /// released when the last clone is gone. Blocks.
    ///
    /// # Errors
    /// [`Error::Failed`] when the last of it could not be made durable.
    pub fn close(self) -> Result<(), Error> {
        self.inner.stop();
        self.inner.shared.lock().sound()
    }

    fn committed(&self) -> Result<(Box<dyn Snapshot>, Head), Error> {
        self.inner.shared.lock().sound()?;
        let snapshot = self.inner.shared.engine.snapshot()?;
        let head = Head::read(&*snapshot)?.map_or_else(Head::new, |(head, _)| head);
        Ok((snapshot, head))
    }
}

impl Inner {
    fn stop(&self) {
        self.shared.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.join().expect("the writer catches its own panics");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Raises the fence in the head row, writing the first one in a new store: from here on no earlier owner can commit.
fn take_over(engine: &dyn Engine) -> Result<(Head, Vec<u8>), Error> {
    upgrade(engine)?;
    let found = Head::read(&*engine.snapshot()?)?;
    let (mut head, before) = match found {
        Some((head, row)) => (head, Some(row)),
        None => (Head::new(), None),
    };
    head.fence += 1;
    let row = head.row();
    engine.commit(&Commit {
        expect: before.as_deref(),
        head: &row,
        ..Commit::default()
    })?;
    Ok((head, row))
}

/// Pending rows of a range in its order, as many as a page of `limit` rows can need: after that many puts, whatever
/// follows lies beyond the page.
fn collect(
    gathering: &Group,
    committing: &Group,
    table: Table,
    range: &Range,
    limit: usize,
) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let Some(bounds) = range.bounds() else {
        return Vec::new();
    };
    let none = BTreeMap::new();
    let [newer, older] = [gathering, committing].map(|group| {
        let rows = group.writes.get(&table).unwrap_or(&none).range::<[u8], _>(bounds);
        let rows: Box<dyn Iterator<Item = _>> = if range.reverse {
            Box::new(rows.rev())
        } else {
            Box::new(rows)
        };
        rows
    });
    let mut puts = 0;
    let mut found = Vec::new();
    for (key, value) in Overlay::new(newer, older, range.reverse) {
        if puts == limit {
            break;
        }
        puts += usize::from(value.is_some());
        found.push((key.clone(), value.clone()));
    }
    found
}
