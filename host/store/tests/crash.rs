//! Power is cut at every sync of a scripted run, over a disk that keeps only what was synced and, of the rest, any part.
//! What was acknowledged must be there; what is there must be a prefix, with the tables and audit rows of just that prefix.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use skep_store::{Batch, Error, Options, Position, Range, Redb, SCAN_ROWS, Store, Table, Write};

const STATE: Table = Table::new("state");
const BATCHES: u64 = 300;
const KEYS: u64 = 17;

/// What reached the disk, in order, with what the store said meanwhile.
#[derive(Debug, Clone)]
enum Happened {
    Written(usize, Vec<u8>),
    Resized(usize),
    Synced,
    Acknowledged(Position),
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    happened: Vec<Happened>,
    /// Fails this sync, counted from now.
    fail_sync: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State {
            bytes,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn apply(bytes: &mut Vec<u8>, happened: &Happened) {
    match happened {
        Happened::Written(offset, written) => bytes[*offset..offset + written.len()].copy_from_slice(written),
        Happened::Resized(len) => bytes.resize(*len, 0),
        Happened::Synced | Happened::Acknowledged(_) => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let state = self.state();
        let found = state
            .bytes
            .get(offset..offset + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.record(Happened::Resized(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(left) = &mut self.state().fail_sync {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return Err(io::Error::other("the disk is gone")),
            }
        }
        self.record(Happened::Synced);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.record(Happened::Written(usize::try_from(offset).unwrap(), data.to_vec()));
        Ok(())
    }
}

impl Disk {
    fn record(&self, happened: Happened) {
        let mut state = self.state();
        apply(&mut state.bytes, &happened);
        state.happened.push(happened);
    }
}

fn open(disk: Disk) -> Result<(Store, skep_store::Recovered), Error> {
    Store::with_engine(Redb::with_backend(disk)?, Options::default())
}

/// Batch `number` has one to three entries.
fn entries_of(number: u64) -> u64 {
    number % 3 + 1
}

/// The last position of each batch.
fn boundaries() -> Vec<u64> {
    (0..BATCHES)
        .scan(0, |last, number| {
            *last += entries_of(number);
            Some(*last)
        })
        .collect()
}

fn batch(number: u64) -> Batch {
    let key = (number % KEYS).to_be_bytes().to_vec();
    let write = if number % 5 == 4 {
        Write::Delete { table: STATE, key }
    } else {
        Write::Put {
            table: STATE,
            key,
            value: value(number),
        }
    };
    Batch {
        entries: (0..entries_of(number))
            .map(|entry| format!("{number}.{entry}").into_bytes())
            .collect(),
        audit: vec![format!("audit {number}").into_bytes()],
        writes: vec![write],
    }
}

/// Now and then large enough to take pages of its own.
fn value(number: u64) -> Vec<u8> {
    format!("{number} ")
        .repeat(if number.is_multiple_of(23) { 4000 } else { 1 })
        .into_bytes()
}

/// Runs the script and returns all that happened.
fn script() -> Vec<Happened> {
    let disk = Disk::default();
    let (store, _) = open(disk.clone()).unwrap();
    for number in 0..BATCHES {
        let position = store.append(batch(number)).unwrap();
        if number % 40 == 39 {
            let records = vec![(b"at".to_vec(), Some(position.0.to_string().into_bytes()))];
            store.checkpoint(position, records).unwrap();
        }
        if number == 200 {
            store.expire_audit(100).unwrap();
        }
        // Some batches share a commit with those before.
        if number % 7 > 2 {
            store.wait_blocking(position).unwrap();
            disk.record(Happened::Acknowledged(position));
        }
    }
    store.close().unwrap();
    disk.state().happened.clone()
}

/// Opens what is left on a disk and checks it against the script.
fn check(bytes: Vec<u8>, acknowledged: Position, point: &str) {
    let (store, recovered) = open(Disk::holding(bytes)).unwrap_or_else(|error| panic!("{point}: {error:?}"));
    let last = recovered.last;
    assert!(
        last >= acknowledged,
        "{point}: {acknowledged:?} was acknowledged, {last:?} is left"
    );
    let boundaries = boundaries();
    let batches = boundaries.iter().filter(|boundary| **boundary <= last.0).count();
    assert_eq!(
        batches.checked_sub(1).map_or(0, |index| boundaries[index]),
        last.0,
        "{point}: a batch was parted"
    );

    let checkpoint = recovered.checkpoint;
    let records: Vec<_> = recovered.records().map(Result::unwrap).collect();
    let expected = (checkpoint.0 > 0).then(|| (b"at".to_vec(), checkpoint.0.to_string().into_bytes()));
    assert_eq!(
        records,
        Vec::from_iter(expected),
        "{point}: records and position differ"
    );

    let found: Vec<_> = recovered.entries().map(Result::unwrap).collect();
    let all = (0..BATCHES).flat_map(|number| batch(number).entries);
    let expected: Vec<_> = (1..=last.0)
        .map(Position)
        .zip(all)
        .skip(usize::try_from(checkpoint.0).unwrap())
        .collect();
    assert_eq!(found, expected, "{point}: the entries are not a prefix");

    let mut rows = std::collections::BTreeMap::new();
    for number in 0..batches as u64 {
        for write in batch(number).writes {
            match write {
                Write::Put { key, value, .. } => rows.insert(key, value),
                Write::Delete { key, .. } => rows.remove(&key),
            };
        }
    }
    let found = store.scan(STATE, &Range::all(), SCAN_ROWS).unwrap();
    assert_eq!(found, Vec::from_iter(rows), "{point}: the tables are of another prefix");
    assert_eq!(
        store.verify_audit().unwrap().seq,
        batches as u64,
        "{point}: the audit log is of another prefix"
    );

    let next = store.append(batch(0)).unwrap();
    store.wait_blocking(next).unwrap();
    assert_eq!(store.verify_journal().unwrap(), next, "{point}: it goes on");
}

/// A small generator of its own: each point must be the same on every run.
fn coin(seed: &mut u64) -> bool {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 63 == 1
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_every_sync() {
    let happened = script();
    // Before the head row of a new store is durable there is no store yet; Store::open gives the file its name after that.
    let syncs: Vec<usize> = (0..happened.len())
        .filter(|index| matches!(happened[*index], Happened::Synced))
        .collect();
    let first_commit = open_syncs();
    assert!(syncs.len() > 300, "{} syncs are too few to prove anything", syncs.len());

    let mut synced = Vec::new();
    let mut applied = 0;
    let mut acknowledged = Position::START;
    for (number, sync) in syncs.iter().enumerate() {
        for event in &happened[applied..*sync] {
            apply(&mut synced, event);
            if let Happened::Acknowledged(position) = event {
                acknowledged = *position;
            }
        }
        applied = *sync;
        if number < first_commit {
            continue;
        }
        // The power goes just before the next sync: of what was written since this one, any part may be there.
        let until = syncs.get(number + 1).copied().unwrap_or(happened.len());
        let since = &happened[*sync..until];
        for event in since {
            if let Happened::Acknowledged(position) = event {
                acknowledged = *position;
            }
        }
        check(synced.clone(), acknowledged, &format!("sync {number}, nothing more"));
        check(
            torn(synced.clone(), since),
            acknowledged,
            &format!("sync {number}, last write torn"),
        );
        let mut seed = number as u64;
        let some = since
            .iter()
            .filter(|event| matches!(event, Happened::Resized(_)) || coin(&mut seed));
        let mut bytes = synced.clone();
        some.for_each(|event| apply(&mut bytes, event));
        check(bytes, acknowledged, &format!("sync {number}, some writes"));
    }
}

/// All of it, but only the first sectors of the last write.
fn torn(mut bytes: Vec<u8>, since: &[Happened]) -> Vec<u8> {
    let last = since.iter().rposition(|event| matches!(event, Happened::Written(..)));
    for (index, event) in since.iter().enumerate() {
        match event {
            Happened::Written(offset, written) if Some(index) == last => {
                let kept = written.len() / 2 / 512 * 512;
                apply(&mut bytes, &Happened::Written(*offset, written[..kept].to_vec()));
            }
            other => apply(&mut bytes, other),
        }
    }
    bytes
}

/// How many syncs it takes until a new store is one.
fn open_syncs() -> usize {
    let disk = Disk::default();
    drop(Redb::with_backend(disk.clone()).unwrap());
    disk.state()
        .happened
        .iter()
        .filter(|event| matches!(event, Happened::Synced))
        .count()
}

#[test]
fn a_failed_sync_is_final() {
    let disk = Disk::default();
    let (store, _) = open(disk.clone()).unwrap();
    let sound = store.append(batch(0)).unwrap();
    store.wait_blocking(sound).unwrap();

    disk.state().fail_sync = Some(0);
    let mut progress = store.subscribe();
    let lost = store.append(batch(1)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(matches!(runtime.block_on(store.wait(lost)), Err(Error::Failed { .. })));
    assert!(matches!(store.wait_blocking(lost), Err(Error::Failed { .. })));
    assert!(runtime.block_on(progress.wait_for(|durable| *durable >= lost)).is_err());

    // The disk works again, and still nothing is taken or shown.
    disk.state().fail_sync = None;
    assert!(matches!(store.append(batch(2)), Err(Error::Failed { .. })));
    assert!(matches!(store.get(STATE, b"k"), Err(Error::Failed { .. })));
    assert!(matches!(store.scan(STATE, &Range::all(), 1), Err(Error::Failed { .. })));
    assert!(matches!(store.flush(), Err(Error::Failed { .. })));
    assert_eq!(store.durable(), sound);
    assert!(matches!(store.close(), Err(Error::Failed { .. })));
}
