//! What is done to the store before it crashes, and what must be left of it then: what was acknowledged is there, what is there
//! is a prefix, and tables, records and audit rows are those of just that prefix.

use std::collections::BTreeMap;

use skep_store::{Batch, Error, Position, Range, SCAN_ROWS, Store, Table, Write};

use crate::disk::{Disk, Happened, open};

pub(crate) const STATE: Table = Table::new("state");
/// Each is an operation; checkpoints and the expiry make some more.
pub(crate) const BATCHES: u64 = 400;
const KEYS: u64 = 17;
const CHECKPOINT_EVERY: u64 = 40;
/// The batch after which audit payloads up to [`EXPIRED`] may go.
const EXPIRY_AT: u64 = 200;
const EXPIRED: u64 = 100;

/// What must be there after each number of batches.
#[derive(Debug)]
pub(crate) struct Script {
    /// The last position of each batch.
    ends: Vec<u64>,
    entries: Vec<Vec<u8>>,
    /// After so many batches: each key with the batch that wrote it last.
    rows: Vec<BTreeMap<Vec<u8>, u64>>,
}

/// Batch `number` has one to three entries.
fn entries_of(number: u64) -> u64 {
    number % 3 + 1
}

pub(crate) fn batch(number: u64) -> Batch {
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
        audit: vec![audit(number)],
        writes: vec![write],
    }
}

/// Now and then large enough to take pages of its own.
fn value(number: u64) -> Vec<u8> {
    format!("{number} ")
        .repeat(if number.is_multiple_of(23) { 4000 } else { 1 })
        .into_bytes()
}

fn audit(number: u64) -> Vec<u8> {
    format!("audit {number}").into_bytes()
}

impl Script {
    pub(crate) fn new(batches: u64) -> Self {
        let mut script = Script {
            ends: Vec::new(),
            entries: Vec::new(),
            rows: vec![BTreeMap::new()],
        };
        let mut rows = BTreeMap::new();
        for number in 0..batches {
            let batch = batch(number);
            script.entries.extend(batch.entries);
            script.ends.push(script.entries.len() as u64);
            for write in batch.writes {
                match write {
                    Write::Put { key, .. } => rows.insert(key, number),
                    Write::Delete { key, .. } => rows.remove(&key),
                };
            }
            script.rows.push(rows.clone());
        }
        script
    }

    /// Does it all on a new disk.
    pub(crate) fn run(&self, disk: &Disk) -> Result<(), Error> {
        let (store, _) = open(disk.clone())?;
        self.drive(&store, disk)?;
        store.close()
    }

    /// Does it all in a new store, or as far as the disk lets it.
    pub(crate) fn drive(&self, store: &Store, disk: &Disk) -> Result<(), Error> {
        for number in 0..self.ends.len() as u64 {
            let position = store.append(batch(number))?;
            if number % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1 {
                let records = vec![(b"at".to_vec(), Some(position.0.to_string().into_bytes()))];
                store.checkpoint(position, records)?;
            }
            if number == EXPIRY_AT {
                store.expire_audit(EXPIRED)?;
            }
            // Some batches share a commit with those before.
            if number % 7 > 2 {
                store.wait_blocking(position)?;
                disk.acknowledge(position);
            }
        }
        store.flush()
    }

    /// Opens what is left on a disk, looks at all of it and goes on.
    pub(crate) fn check(&self, disk: Disk, acknowledged: Position, point: &str) {
        let (store, recovered) = open(disk).unwrap_or_else(|error| panic!("{point}: {error:?}"));
        let last = recovered.last;
        assert!(
            last >= acknowledged,
            "{point}: {acknowledged:?} was acknowledged, {last:?} is left"
        );
        let batches = self.ends.partition_point(|end| *end <= last.0);
        assert_eq!(
            batches.checked_sub(1).map_or(0, |index| self.ends[index]),
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
        let found = recovered.entries().map(Result::unwrap);
        let from = usize::try_from(checkpoint.0).unwrap();
        let until = usize::try_from(last.0).unwrap();
        let expected = (checkpoint.0 + 1..)
            .map(Position)
            .zip(self.entries[from..until].iter().cloned());
        assert!(found.eq(expected), "{point}: the entries are not a prefix");

        let found = store.scan(STATE, &Range::all(), SCAN_ROWS).unwrap();
        let expected = self.rows[batches]
            .iter()
            .map(|(key, number)| (key.clone(), value(*number)));
        assert!(
            found.into_iter().eq(expected),
            "{point}: the tables are of another prefix"
        );
        self.check_audit(&store, batches, point);

        let next = store.append(batch(0)).unwrap();
        store.wait_blocking(next).unwrap();
        assert_eq!(store.verify_journal().unwrap(), next, "{point}: it goes on");
    }

    fn check_audit(&self, store: &Store, batches: usize, point: &str) {
        assert_eq!(
            store.verify_audit().unwrap().seq,
            batches as u64,
            "{point}: the audit log is of another prefix"
        );
        for (row, number) in store.audit(1, SCAN_ROWS).unwrap().into_iter().zip(0..) {
            let expired = row.seq <= EXPIRED && batches as u64 > EXPIRY_AT;
            assert!(
                row.payload == Some(audit(number)) || (row.payload.is_none() && expired),
                "{point}: audit row {}",
                row.seq
            );
        }
    }
}

/// The last position that the store had called durable, after all of this.
pub(crate) fn acknowledged(happened: &[Happened]) -> Position {
    let last = happened.iter().rev().find_map(|event| match event {
        Happened::Acknowledged(position) => Some(*position),
        _ => None,
    });
    last.unwrap_or(Position::START)
}
