//! A disk that keeps a prefix of what it was given, batch by batch.

use std::collections::BTreeMap;

use skep_rules::{
    facts::{Page, Table, Write},
    shard::{Checkpoint, Output, Shard},
};

/// What becomes durable together.
enum Batch {
    Decision {
        entries: Vec<Vec<u8>>,
        writes: Vec<Write>,
        position: u64,
    },
    Checkpoint(Checkpoint),
}

#[derive(Default)]
pub(crate) struct Disk {
    checkpoint: u64,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Entries after the checkpoint, by position.
    entries: BTreeMap<u64, Vec<u8>>,
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    pending: Vec<Batch>,
    durable: u64,
}

impl Disk {
    pub(crate) fn append(&mut self, output: &Output) {
        let bytes: usize = output.entries.iter().map(Vec::len).sum();
        assert!(
            bytes < 768 << 10,
            "a decision fits in a frame, this one has {bytes} bytes"
        );
        assert!(
            !output.entries.is_empty() || (output.writes.is_empty() && output.audit.is_empty()),
            "rows and audit entries come with entries"
        );
        if !output.entries.is_empty() {
            self.pending.push(Batch::Decision {
                entries: output.entries.clone(),
                writes: output.writes.clone(),
                position: output.position,
            });
        }
    }

    pub(crate) fn write_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.pending.push(Batch::Checkpoint(checkpoint));
    }

    /// A row, pending writes first.
    pub(crate) fn row(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let pending = self.pending.iter().rev().find_map(|batch| match batch {
            Batch::Decision { writes, .. } => writes
                .iter()
                .rev()
                .find(|write| write.table == table && write.key == key),
            Batch::Checkpoint(_) => None,
        });
        match pending {
            Some(write) => write.value.clone(),
            None => self.rows.get(&(table, key.to_vec())).cloned(),
        }
    }

    /// Several rows, pending writes first.
    pub(crate) fn page(&self, page: &Page) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found: Vec<_> = self.beginning_with(page.table, &page.prefix).into_iter().collect();
        found.retain(|(key, _)| page.after.as_ref().is_none_or(|after| key > after));
        if page.reverse {
            found.reverse();
        }
        found.truncate(page.limit);
        found
    }

    /// A table, pending writes first.
    pub(crate) fn rows(&self, table: Table) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.beginning_with(table, &[])
    }

    fn beginning_with(&self, table: Table, prefix: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let begins = |of: Table, key: &[u8]| of == table && key.starts_with(prefix);
        let durable = self.rows.range((table, prefix.to_vec())..);
        let durable = durable.take_while(|((of, key), _)| begins(*of, key));
        let mut rows: BTreeMap<_, _> = durable.map(|((_, key), row)| (key.clone(), row.clone())).collect();
        for batch in &self.pending {
            let Batch::Decision { writes, .. } = batch else {
                continue;
            };
            for write in writes.iter().filter(|write| begins(write.table, &write.key)) {
                match &write.value {
                    Some(row) => drop(rows.insert(write.key.clone(), row.clone())),
                    None => drop(rows.remove(&write.key)),
                }
            }
        }
        rows
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Makes the first few batches durable.
    pub(crate) fn sync(&mut self, batches: usize) -> u64 {
        for batch in self.pending.drain(..batches) {
            match batch {
                Batch::Decision {
                    entries,
                    writes,
                    position,
                } => {
                    let first = position + 1 - entries.len() as u64;
                    assert_eq!(first, self.durable + 1, "positions have no gaps");
                    self.entries.extend((first..).zip(entries));
                    for write in writes {
                        match write.value {
                            Some(value) => drop(self.rows.insert((write.table, write.key), value)),
                            None => drop(self.rows.remove(&(write.table, write.key))),
                        }
                    }
                    self.durable = position;
                }
                Batch::Checkpoint(Checkpoint { position, records }) => {
                    self.checkpoint = position;
                    self.entries = self.entries.split_off(&(position + 1));
                    for (key, value) in records {
                        match value {
                            Some(value) => drop(self.records.insert(key, value)),
                            None => assert!(self.records.remove(&key).is_some(), "only what is there is taken out"),
                        }
                    }
                }
            }
        }
        self.durable
    }

    /// What did not reach the disk is gone.
    pub(crate) fn crash(&mut self) {
        self.pending.clear();
    }

    /// The shard as a host finds it at its start.
    pub(crate) fn recover(&self) -> Shard {
        let mut shard = Shard::load(self.checkpoint, self.records.clone()).expect("the records are ours");
        shard.take_unsigned(true);
        for (position, entry) in &self.entries {
            shard.replay(*position, entry).expect("the entries are ours");
        }
        assert_eq!(shard.position(), self.durable);
        shard
    }
}
