//! The crew's state in memory, with revisions and their history.

use super::HOST;
use crate::{
    bindings::imports::skep::agent::state::Page,
    state::{Entry, Error, Key, MAX_VALUE, Version},
};

const MAX_KEY: usize = 256;
const MAX_PAGE: usize = 100;
const HISTORY: usize = 64;

/// What is remembered of a key.
#[derive(Default)]
pub(super) struct Record {
    /// Oldest first, never more than [`HISTORY`] and the newest.
    revisions: Vec<Entry>,
    /// Whether it was deleted after the newest.
    deleted: bool,
}

impl Record {
    fn live(&self) -> Option<&Entry> {
        self.revisions.last().filter(|_| !self.deleted)
    }

    fn revision(&self) -> u64 {
        self.live().map_or(0, |entry| entry.revision)
    }
}

fn check(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Error::InvalidInput);
    }
    Ok(())
}

/// Does something with the record of a key, an empty one where there is none.
fn with<T>(key: &str, act: impl FnOnce(&mut Record) -> Result<T, Error>) -> Result<T, Error> {
    check(key)?;
    HOST.with_borrow_mut(|host| act(host.state.entry(key.to_owned()).or_default()))
}

pub(crate) fn get(key: &str) -> Result<Option<Entry>, Error> {
    with(key, |record| Ok(record.live().cloned()))
}

pub(crate) fn get_revision(key: &str, revision: u64) -> Result<Entry, Error> {
    with(key, |record| {
        let found = record.revisions.iter().find(|entry| entry.revision == revision);
        found.cloned().ok_or(Error::NotFound)
    })
}

pub(crate) fn history(key: &str) -> Result<Vec<Version>, Error> {
    with(key, |record| {
        let version = |entry: &Entry| Version {
            revision: entry.revision,
            at: entry.at,
        };
        Ok(record.revisions.iter().rev().map(version).collect())
    })
}

pub(crate) fn put(key: &str, value: &[u8]) -> Result<u64, Error> {
    write(key, None, value)
}

pub(crate) fn compare_and_set(key: &str, revision: u64, value: &[u8]) -> Result<u64, Error> {
    write(key, Some(revision), value)
}

fn write(key: &str, expected: Option<u64>, value: &[u8]) -> Result<u64, Error> {
    if value.len() > MAX_VALUE {
        return Err(Error::InvalidInput);
    }
    with(key, |record| {
        expect(record, expected)?;
        let revision = record.revisions.last().map_or(1, |entry| entry.revision + 1);
        record.revisions.push(Entry {
            value: value.to_vec(),
            revision,
            at: super::milliseconds(),
        });
        if record.revisions.len() > HISTORY + 1 {
            record.revisions.remove(0);
        }
        record.deleted = false;
        Ok(revision)
    })
}

fn expect(record: &Record, expected: Option<u64>) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != record.revision() => Err(Error::Conflict(record.revision())),
        _ => Ok(()),
    }
}

pub(crate) fn delete(key: &str, revision: Option<u64>) -> Result<bool, Error> {
    with(key, |record| {
        expect(record, revision)?;
        let there = record.live().is_some();
        record.deleted = true;
        Ok(there)
    })
}

pub(crate) fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 || limit > MAX_PAGE || prefix.len() > MAX_KEY {
        return Err(Error::InvalidInput);
    }
    HOST.with_borrow(|host| {
        let keys = host.state.iter().filter(|(name, _)| name.starts_with(prefix));
        let mut keys = keys
            .filter(|(name, record)| record.live().is_some() && after.is_none_or(|after| name.as_str() > after))
            .map(|(name, record)| Key {
                name: name.clone(),
                revision: record.revision(),
            });
        Ok(Page {
            keys: keys.by_ref().take(limit).collect(),
            more: keys.next().is_some(),
        })
    })
}
