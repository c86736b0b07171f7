//! The one thread that commits. Whatever gathers while a commit is being synced becomes the next transaction: its entries
//! as frames, its audit rows, table writes, checkpoint and expiry, all or nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::audit::{self, AUDIT};
use crate::checkpoint::{Checkpoint, RECORDS, truncate};
use crate::engine::{Change, Commit, Engine};
use crate::frame::{FRAMES, Frame, pack};
use crate::record::Head;
use crate::seal::sealed;
use crate::{Batch, Error, Position, Table, Write};

/// Audit payloads expired in one transaction, so that a long expiry never holds up appends for long.
const EXPIRED_AT_ONCE: usize = 1000;

/// How long what nobody waits for is held back, so that it shares a commit with what comes after it: what a stream of events may be late by.
const LINGER: Duration = Duration::from_millis(2);

/// Batches in one commit from which on many are at work at once: then the next ones are given [`GATHER`] to come together.
const CROWD: usize = 8;
/// What a crowd is held up by: a commit costs the processor much the same for ten batches as for a hundred.
const GATHER: Duration = Duration::from_millis(1);

/// Writes by table and key, the last one of each key; none deletes.
pub(crate) type Writes = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// A row of frames or audit, under its big-endian number.
type Numbered = ([u8; 8], Vec<u8>);

/// What becomes one transaction.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) batches: Vec<Vec<Vec<u8>>>,
    pub(crate) audit: Vec<Vec<u8>>,
    pub(crate) writes: Writes,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Expire audit payloads up to this row.
    pub(crate) expire: Option<u64>,
    /// Bytes held, for back-pressure.
    pub(crate) bytes: usize,
}

impl Group {
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.checkpoint.is_none() && self.expire.is_none()
    }

    pub(crate) fn add(&mut self, batch: Batch, bytes: usize) {
        self.bytes += bytes;
        self.batches.push(batch.entries);
        self.audit.extend(batch.audit);
        for write in batch.writes {
            let (table, key, value) = match write {
                Write::Put { table, key, value } => (table, key, Some(value)),
                Write::Delete { table, key } => (table, key, None),
            };
            self.writes.entry(table).or_default().insert(key, value);
        }
    }

    pub(crate) fn add_checkpoint(&mut self, at: Position, dirty: BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        match &mut self.checkpoint {
            None => self.checkpoint = Some(Checkpoint { at, records: dirty }),
            Some(waiting) => {
                waiting.at = at;
                waiting.records.extend(dirty);
            }
        }
    }
}

/// What appenders, readers and the writer share, under one short lock.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The last position handed out.
    pub(crate) last: Position,
    /// The last checkpoint asked for.
    pub(crate) checkpoint: Position,
    /// The last position known durable, for those who wait without async.
    pub(crate) durable: Position,
    pub(crate) gathering: Group,
    /// Being committed now; still the newest value of its keys until it is done.
    pub(crate) committing: Arc<Group>,
    /// Groups taken by the writer so far, and groups committed: for those who wait for more than entries.
    taken: u64,
    pub(crate) committed: u64,
    /// The first failure, kept for everyone who comes later.
    failed: Option<Arc<str>>,
    closing: bool,
    /// Somebody waits for what is gathered, or for room.
    hurried: bool,
    /// The writer has committed what was left and gone.
    pub(crate) ended: bool,
}

impl Pending {
    /// Refuses once the store has failed or was closed.
    pub(crate) fn open(&self) -> Result<(), Error> {
        self.sound()?;
        if self.closing { Err(Error::Closed) } else { Ok(()) }
    }

    /// How many groups are committed once everything asked so far is.
    pub(crate) fn asked(&self) -> u64 {
        self.taken + u64::from(!self.gathering.is_empty())
    }

    /// Refuses once the store has failed.
    pub(crate) fn sound(&self) -> Result<(), Error> {
        match &self.failed {
            Some(reason) => Err(Error::Failed {
                reason: Arc::clone(reason),
            }),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pending: Mutex<Pending>,
    /// Wakes the writer: something gathered, or the store closes.
    work: Condvar,
    /// Wakes appenders held back and those who wait: a group was committed, or the store failed.
    progress: Condvar,
    pub(crate) engine: Box<dyn Engine>,
}

impl Shared {
    pub(crate) fn new(engine: Box<dyn Engine>, head: &Head) -> Self {
        let pending = Pending {
            last: head.last,
            checkpoint: head.checkpoint,
            durable: head.last,
            gathering: Group::default(),
            committing: Arc::default(),
            taken: 0,
            committed: 0,
            failed: None,
            closing: false,
            hurried: false,
            ended: false,
        };
        Self {
            pending: Mutex::new(pending),
            work: Condvar::new(),
            progress: Condvar::new(),
            engine,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next commit or failure.
    pub(crate) fn progress<'a>(&self, pending: MutexGuard<'a, Pending>) -> MutexGuard<'a, Pending> {
        self.progress.wait(pending).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// What is gathered is not to be held back: somebody waits for it.
    pub(crate) fn hurry(&self, pending: &mut Pending) {
        if !std::mem::replace(&mut pending.hurried, true) {
            self.work.notify_one();
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
        self.progress.notify_all();
    }

    /// Waits for work and takes it all; none when the store closes and nothing is left.
    fn take(&self) -> Option<Arc<Group>> {
        let mut pending = self.lock();
        while pending.gathering.is_empty() {
            if pending.closing {
                pending.ended = true;
                drop(pending);
                self.progress.notify_all();
                return None;
            }
            pending = self.work.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let unhurried = |pending: &mut Pending| !pending.hurried && !pending.closing;
        let waited = self.work.wait_timeout_while(pending, LINGER, unhurried);
        let (mut pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        pending.hurried = false;
        pending.taken += 1;
        pending.committing = Arc::new(std::mem::take(&mut pending.gathering));
        Some(Arc::clone(&pending.committing))
    }

    fn committed(&self, last: Position) {
        let mut pending = self.lock();
        pending.durable = last;
        pending.committed += 1;
        pending.committing = Arc::default();
        drop(pending);
        self.progress.notify_all();
    }

    fn fail(&self, error: &Error) {
        tracing::error!(error = error.chain(), "the store has failed");
        let mut pending = self.lock();
        pending.failed = Some(error.chain().into());
        pending.gathering = Group::default();
        drop(pending);
        self.progress.notify_all();
    }
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// Dropped when the writer ends, which subscribers see as the end of progress.
    pub(crate) durable: watch::Sender<Position>,
    pub(crate) head: Head,
    /// The head row as it was committed.
    pub(crate) row: Vec<u8>,
}

impl Writer {
    /// Commits until the store is closed or a commit fails. A failed commit is never retried: after a failed sync the
    /// kernel may have dropped the pages, and a second sync would report a success that is none.
    pub(crate) fn run(mut self) {
        let mut crowded = false;
        loop {
            if crowded {
                std::thread::sleep(GATHER);
            }
            let Some(group) = self.shared.take() else {
                return;
            };
            crowded = group.batches.len() >= CROWD;
            // Should it ever panic, those who wait must hear of it: without the writer they would wait for ever.
            let committed = catch_unwind(AssertUnwindSafe(|| self.commit(&group)))
                .unwrap_or_else(|_| Err(Error::Engine("the writer panicked".to_owned())));
            if let Err(error) = committed {
                return self.shared.fail(&error);
            }
            // First, so that whoever is let through by the lock sees it there too.
            self.durable.send_replace(self.head.last);
            self.shared.committed(self.head.last);
        }
    }

    fn commit(&mut self, group: &Group) -> Result<(), Error> {
        let mut head = self.head.clone();
        let mut audit = self.expire(group, &mut head)?;
        audit.extend(group.audit.iter().map(|payload| head.audit.push(payload)));
        let erase = self.checkpoint(group, &mut head)?;
        let frames = frames(group, &mut head);

        let records = group
            .checkpoint
            .as_ref()
            .map(|checkpoint| (RECORDS, &checkpoint.records));
        let writes = group.writes.iter().map(|(table, writes)| (*table, writes));
        let sets: Vec<_> = writes
            .chain(records)
            .map(|(table, rows)| (table, seals(table, rows)))
            .collect();
        let mut changes: Vec<(Table, Vec<Change<'_>>)> = vec![(FRAMES, puts(&frames)), (AUDIT, puts(&audit))];
        changes.extend(sets.iter().map(|(table, rows)| (*table, borrowed(rows))));
        changes.retain(|(_, rows)| !rows.is_empty());

        let row = head.row();
        self.shared.engine.commit(&Commit {
            expect: Some(&self.row),
            head: &row,
            erase,
            changes,
        })?;
        self.head = head;
        self.row = row;
        Ok(())
    }

    fn checkpoint(&self, group: &Group, head: &mut Head) -> Result<Option<(Table, crate::Range)>, Error> {
        let Some(checkpoint) = &group.checkpoint else {
            return Ok(None);
        };
        head.checkpoint = checkpoint.at;
        truncate(&*self.shared.engine.snapshot()?, head, checkpoint.at)
    }

    /// The next audit rows to lose their payload. What does not fit one transaction is gathered again.
    fn expire(&self, group: &Group, head: &mut Head) -> Result<Vec<Numbered>, Error> {
        let Some(through) = group
            .expire
            .map(|seq| seq.min(head.audit.seq))
            .filter(|seq| *seq > head.expired)
        else {
            return Ok(Vec::new());
        };
        let mut rows = audit::rows(&*self.shared.engine.snapshot()?, head.expired + 1, EXPIRED_AT_ONCE)?;
        rows.retain(|row| row.seq <= through);
        head.expired = rows.last().map_or(through, |row| row.seq);
        if head.expired < through {
            let mut pending = self.shared.lock();
            pending.gathering.expire = pending.gathering.expire.max(Some(through));
        }
        Ok(rows.iter().map(|row| (row.seq.to_be_bytes(), row.expired())).collect())
    }
}

/// The group's entries as frame rows, chained onto the head.
fn frames(group: &Group, head: &mut Head) -> Vec<Numbered> {
    let mut rows = Vec::new();
    for entries in pack(&group.batches) {
        let count = entries.len().try_into().unwrap_or(u64::MAX);
        let first = head.last.plus(1);
        let frame = Frame {
            first,
            count,
            fence: head.fence,
            previous: head.hash,
            entries,
        };
        let (row, hash) = frame.encode();
        rows.push((first.key(), row));
        head.last = frame.last();
        head.hash = hash;
    }
    rows
}

fn puts(rows: &[Numbered]) -> Vec<Change<'_>> {
    rows.iter()
        .map(|(key, row)| (key.as_slice(), Some(row.as_slice())))
        .collect()
}

/// A key with its row, sealed; none deletes.
type Sealed<'a> = (&'a [u8], Option<Vec<u8>>);

fn seals(table: Table, rows: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Vec<Sealed<'_>> {
    rows.iter()
        .map(|(key, value)| (key.as_slice(), value.as_ref().map(|value| sealed(table, key, value))))
        .collect()
}

fn borrowed<'a>(rows: &'a [Sealed<'a>]) -> Vec<Change<'a>> {
    rows.iter().map(|(key, row)| (*key, row.as_deref())).collect()
}
