//! What is seen, held back and refused while commits are under way: a gate between the store and its engine holds them.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex};

use proptest::prelude::*;
use skep_store::engine::{Commit, Engine, Snapshot};
use skep_store::{Batch, Error, Memory, Options, Position, Range, Redb, Store, Table, Write};

const STATE: Table = Table::new("state");

/// An engine shared by several stores, whose commits wait while the gate is shut.
#[derive(Debug, Clone)]
struct Gated(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Box<dyn Engine>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Gated {
    fn new(engine: impl Engine) -> Self {
        let engine = Box::new(engine);
        Self(Arc::new(Inner {
            engine,
            shut: Mutex::default(),
            opened: Condvar::new(),
        }))
    }

    fn set_shut(&self, shut: bool) {
        *self.0.shut.lock().unwrap() = shut;
        self.0.opened.notify_all();
    }
}

impl Engine for Gated {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        self.0.engine.snapshot()
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), Error> {
        drop(
            self.0
                .opened
                .wait_while(self.0.shut.lock().unwrap(), |shut| *shut)
                .unwrap(),
        );
        self.0.engine.commit(commit)
    }
}

/// Opens the gate when the test ends, however it ends: closing a store waits for its commits.
struct AtLast(Gated);

impl Drop for AtLast {
    fn drop(&mut self) {
        self.0.set_shut(false);
    }
}

fn open(engine: &Gated) -> Store {
    Store::with_engine(engine.clone(), Options::default()).unwrap().0
}

fn entry(bytes: usize) -> Batch {
    Batch {
        entries: vec![vec![0; bytes]],
        ..Batch::default()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    /// Lets the writer commit everything so far.
    Commit,
    /// Closes the store and opens another over the same engine.
    Reopen,
    Checkpoint,
    Scan {
        start: Bound<u8>,
        end: Bound<u8>,
        reverse: bool,
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let bound = || {
        prop_oneof![
            (0..20u8).prop_map(Bound::Included),
            (0..20u8).prop_map(Bound::Excluded),
            Just(Bound::Unbounded)
        ]
    };
    prop_oneof![
        6 => (0..20u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => (0..20u8).prop_map(Step::Delete),
        2 => Just(Step::Commit),
        1 => Just(Step::Reopen),
        1 => Just(Step::Checkpoint),
        6 => (bound(), bound(), any::<bool>(), 0..8usize)
            .prop_map(|(start, end, reverse, limit)| Step::Scan { start, end, reverse, limit }),
    ]
}

/// What a scan should find, told from a plain map.
fn expected(model: &BTreeMap<u8, u8>, range: &Range, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let above = |key: &[u8]| match &range.start {
        Bound::Included(start) => key >= start.as_slice(),
        Bound::Excluded(start) => key > start.as_slice(),
        Bound::Unbounded => true,
    };
    let below = |key: &[u8]| match &range.end {
        Bound::Included(end) => key <= end.as_slice(),
        Bound::Excluded(end) => key < end.as_slice(),
        Bound::Unbounded => true,
    };
    let mut rows: Vec<_> = model.iter().map(|(key, value)| (vec![*key], vec![*value])).collect();
    rows.retain(|(key, _)| above(key) && below(key));
    if range.reverse {
        rows.reverse();
    }
    rows.truncate(limit);
    rows
}

proptest! {
    #[test]
    fn reads_agree_with_a_plain_map_wherever_the_writes_are(steps in prop::collection::vec(step(), 1..60)) {
        let engine = Gated::new(Memory::default());
        let mut store = open(&engine);
        let _open = AtLast(engine.clone());
        let mut model = BTreeMap::new();
        engine.set_shut(true);
        for step in steps {
            let write = match step {
                Step::Put(key, value) => {
                    model.insert(key, value);
                    Write::Put { table: STATE, key: vec![key], value: vec![value] }
                }
                Step::Delete(key) => {
                    model.remove(&key);
                    Write::Delete { table: STATE, key: vec![key] }
                }
                Step::Commit => {
                    engine.set_shut(false);
                    store.flush().unwrap();
                    engine.set_shut(true);
                    continue;
                }
                Step::Reopen => {
                    engine.set_shut(false);
                    store.close().unwrap();
                    store = open(&engine);
                    engine.set_shut(true);
                    continue;
                }
                Step::Checkpoint => {
                    store.checkpoint(store.last(), vec![(b"r".to_vec(), Some(b"v".to_vec()))]).unwrap();
                    continue;
                }
                Step::Scan { start, end, reverse, limit } => {
                    let range = Range { start: start.map(|key| vec![key]), end: end.map(|key| vec![key]), reverse };
                    prop_assert_eq!(store.scan(STATE, &range, limit).unwrap(), expected(&model, &range, limit));
                    continue;
                }
            };
            store.append(Batch { entries: vec![b"e".to_vec()], writes: vec![write], ..Batch::default() }).unwrap();
            for key in 0..20 {
                prop_assert_eq!(store.get(STATE, &[key]).unwrap(), model.get(&key).map(|value| vec![*value]));
            }
        }
    }
}

#[test]
fn a_second_owner_fences_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(directory.path().join("f"))
        .unwrap();
    let redb = Redb::with_backend(redb::backends::FileBackend::new(file).unwrap(), false).unwrap();
    for engine in [Gated::new(Memory::default()), Gated::new(redb)] {
        let first = open(&engine);
        first.wait_blocking(first.append(entry(1)).unwrap()).unwrap();
        let second = open(&engine);
        assert!(second.fence() > first.fence());

        let lost = first.append(entry(1)).unwrap();
        assert!(matches!(first.wait_blocking(lost), Err(Error::Failed { reason }) if reason.contains("another owner")));
        assert!(matches!(first.append(entry(1)), Err(Error::Failed { .. })));
        let kept = second.append(entry(1)).unwrap();
        second.wait_blocking(kept).unwrap();
        assert_eq!(
            second.verify_journal().unwrap(),
            Position(2),
            "what the first owner lost is not there"
        );
    }
}

#[test]
fn appends_are_held_back_once_too_much_is_pending() {
    let engine = Gated::new(Memory::default());
    let (store, _) = Store::with_engine(
        engine.clone(),
        Options {
            pending_bytes: 1600,
            ..Options::default()
        },
    )
    .unwrap();
    engine.set_shut(true);
    let appender = std::thread::spawn({
        let store = store.clone();
        move || {
            for _ in 0..1000 {
                let position = store.append(entry(100)).unwrap();
                // Nine fit the bound; as many again may be under way.
                let pending = position.0 - store.durable().0.min(position.0);
                assert!(pending <= 18, "{pending} entries are pending");
            }
        }
    });
    while store.last() < Position(9) {
        std::thread::yield_now();
    }
    assert_eq!(store.durable(), Position::START);
    engine.set_shut(false);
    appender.join().unwrap();
    store.flush().unwrap();
    assert_eq!(store.durable(), Position(1000));
}

#[test]
fn what_gathers_is_packed_into_frames_that_part_no_batch() {
    let engine = Gated::new(Memory::default());
    let store = open(&engine);
    engine.set_shut(true);
    // Two megabytes in batches that do not divide a frame: three of them, six entries, fill one.
    for _ in 0..9 {
        store
            .append(Batch {
                entries: vec![vec![1; 100_000], vec![2; 130_000]],
                ..Batch::default()
            })
            .unwrap();
    }
    engine.set_shut(false);
    store.flush().unwrap();
    assert_eq!(store.verify_journal().unwrap(), Position(18));
    let sizes = store
        .entries(Position::START, 100)
        .unwrap()
        .into_iter()
        .map(|(_, entry)| entry.len());
    assert!(sizes.eq([100_000, 130_000].repeat(9)));

    // Truncation goes by whole frames, so it shows where they end.
    store.checkpoint(Position(11), vec![]).unwrap();
    store.flush().unwrap();
    let Err(Error::Truncated { base, .. }) = store.entries(Position::START, 1) else {
        unreachable!("frames were dropped")
    };
    assert!(base.0.is_multiple_of(2) && (6..=11).contains(&base.0), "{base:?}");
}
