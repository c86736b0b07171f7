//! The engine that forgets: ordered maps in memory, for tests and hosts that keep nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::engine::{Change, Commit, Engine, HEAD, META, Row, Snapshot};
use crate::{Error, Range, Table};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Tables = BTreeMap<Table, Arc<Rows>>;

/// Tables in memory. A snapshot shares them; a commit copies a table that a live snapshot still shares.
#[derive(Debug, Default)]
pub struct Memory {
    /// Readers take the maps out by reference count and let go at once.
    tables: RwLock<Tables>,
}

impl Engine for Memory {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        Ok(Box::new(View(
            self.tables.read().unwrap_or_else(PoisonError::into_inner).clone(),
        )))
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), Error> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let head = tables.get(&META).and_then(|meta| meta.get(HEAD));
        if head.map(Vec::as_slice) != commit.expect {
            return Err(Error::Fenced);
        }
        if let Some((table, range)) = &commit.erase
            && let Some(bounds) = range.bounds()
        {
            let rows = Arc::make_mut(tables.entry(*table).or_default());
            let keys: Vec<Vec<u8>> = rows.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
            for key in keys {
                rows.remove(&key);
            }
        }
        for (table, changes) in &commit.changes {
            change(&mut tables, *table, changes);
        }
        change(&mut tables, META, &[(HEAD, Some(commit.head))]);
        Ok(())
    }
}

fn change(tables: &mut Tables, table: Table, changes: &[Change<'_>]) {
    let rows = Arc::make_mut(tables.entry(table).or_default());
    for (key, value) in changes {
        match value {
            Some(value) => rows.insert(key.to_vec(), value.to_vec()),
            None => rows.remove(*key),
        };
    }
}

#[derive(Debug)]
struct View(Tables);

impl Snapshot for View {
    fn tables(&self) -> Result<Vec<Table>, Error> {
        Ok(self.0.keys().copied().collect())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: &Range, limit: usize) -> Result<Vec<Row>, Error> {
        let (Some(rows), Some(bounds)) = (self.0.get(&table), range.bounds()) else {
            return Ok(Vec::new());
        };
        let rows = rows
            .range::<[u8], _>(bounds)
            .map(|(key, value)| (key.clone(), value.clone()));
        Ok(if range.reverse {
            rows.rev().take(limit).collect()
        } else {
            rows.take(limit).collect()
        })
    }
}
