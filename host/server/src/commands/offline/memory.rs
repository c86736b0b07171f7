//! What an attempt without a host has instead of a store: artifacts and state in memory, for the time of that attempt.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use skep_rules::{
    id::Digest,
    limits::{MAX_STATE_KEY_BYTES, MAX_STATE_PAGE, MAX_STATE_VALUE_BYTES, STATE_HISTORY},
    plan::Artifact,
    quantity::{Size, Time},
    reason::Reason,
    step::{StepCall, StepResult, Value},
};

/// What one run may store, together.
const MAX_STORED: u64 = 64 << 20;

/// Blobs by their digests.
#[derive(Debug, Default)]
pub(crate) struct Artifacts(HashMap<Digest, Vec<u8>>);

impl Artifacts {
    /// Keeps the bytes, within the bound of all.
    pub(crate) fn put(&mut self, bytes: Vec<u8>, media: String) -> Result<Artifact, Reason> {
        let held: usize = self.0.values().map(Vec::len).sum();
        if (held + bytes.len()) as u64 > MAX_STORED {
            return Err(Reason::QuotaExceeded);
        }
        let artifact = Artifact {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            media,
        };
        self.0.insert(artifact.digest, bytes);
        Ok(artifact)
    }

    /// A piece of one.
    pub(crate) fn read(&self, digest: Digest, offset: u64, length: u32) -> Result<Vec<u8>, Reason> {
        let bytes = self.0.get(&digest).ok_or(Reason::NotFound)?;
        Ok(piece(bytes, offset, length))
    }
}

/// A piece of a blob; what is behind its end is empty.
pub(crate) fn piece(bytes: &[u8], offset: u64, length: u32) -> Vec<u8> {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let rest = bytes.get(from..).unwrap_or_default();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    rest.get(..length).unwrap_or(rest).to_vec()
}

/// The state of a crew of one.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The values of each key that can be read, the oldest first, and whether the last of them is there still.
    keys: BTreeMap<String, (Vec<Value>, bool)>,
    /// The revision with which a key begins: above those of all that were removed.
    floor: u64,
}

impl State {
    /// Answers a step on the state; `None` for other steps.
    pub(crate) fn answer(&mut self, call: &StepCall, quota: Size, now: Time) -> Option<StepResult> {
        let text = match call {
            StepCall::Get { key, .. }
            | StepCall::Put { key, .. }
            | StepCall::Delete { key, .. }
            | StepCall::History { key } => key,
            StepCall::List { prefix, .. } => prefix,
            _ => return None,
        };
        let empty = text.is_empty() && !matches!(call, StepCall::List { .. });
        if empty || text.len() > MAX_STATE_KEY_BYTES || text.contains('\0') {
            return Some(StepResult::refused(Reason::InvalidInput));
        }
        Some(match call {
            StepCall::Get { key, revision: None } => StepResult::Value(self.newest(key).cloned()),
            StepCall::Get {
                key,
                revision: Some(revision),
            } => {
                let found = self.of(key).iter().find(|value| value.revision == *revision);
                found.map_or(StepResult::refused(Reason::NotFound), |value| {
                    StepResult::Value(Some(value.clone()))
                })
            }
            StepCall::Put { key, value, expected } => self.put(key, value, *expected, quota, now),
            StepCall::Delete { key, expected } => self.delete(key, *expected),
            StepCall::History { key } => {
                let values = self.of(key).iter().rev();
                StepResult::Versions(values.map(|value| (value.revision, value.at)).collect())
            }
            StepCall::List { prefix, after, limit } => self.list(prefix, after.as_deref(), *limit),
            _ => return None,
        })
    }

    fn of(&self, key: &str) -> &[Value] {
        self.keys
            .get(key)
            .map(|(values, _)| values.as_slice())
            .unwrap_or_default()
    }

    fn newest(&self, key: &str) -> Option<&Value> {
        let (values, there) = self.keys.get(key)?;
        values.last().filter(|_| *there)
    }

    fn conflict(&self, key: &str, expected: Option<u64>) -> Option<StepResult> {
        let revision = self.newest(key).map_or(0, |value| value.revision);
        let reason = Reason::Conflict;
        expected
            .filter(|expected| *expected != revision)
            .map(|_| StepResult::Refused { reason, revision })
    }

    fn put(&mut self, key: &str, bytes: &[u8], expected: Option<u64>, quota: Size, now: Time) -> StepResult {
        if bytes.len() > MAX_STATE_VALUE_BYTES {
            return StepResult::refused(Reason::InvalidInput);
        }
        if let Some(conflict) = self.conflict(key, expected) {
            return conflict;
        }
        let size = |key: &str, bytes: &[u8]| (key.len() + bytes.len()) as u64;
        let before = self.newest(key).map_or(0, |value| size(key, &value.bytes));
        let held = self
            .keys
            .keys()
            .filter_map(|key| Some(size(key, &self.newest(key)?.bytes)));
        let after = size(key, bytes);
        if quota == Size(0) || after > before && held.sum::<u64>() - before + after > quota.0 {
            return StepResult::refused(Reason::QuotaExceeded);
        }
        let revision = self.newest(key).map_or(self.floor.max(1), |value| value.revision + 1);
        let (values, there) = self.keys.entry(key.to_owned()).or_default();
        *there = true;
        values.push(Value {
            bytes: bytes.to_vec(),
            revision,
            at: now,
        });
        let kept = usize::try_from(STATE_HISTORY).unwrap_or(usize::MAX);
        // The newest, and so many before it.
        values.drain(..values.len().saturating_sub(kept.saturating_add(1)));
        StepResult::Written(revision)
    }

    fn delete(&mut self, key: &str, expected: Option<u64>) -> StepResult {
        if let Some(conflict) = self.conflict(key, expected) {
            return conflict;
        }
        let Some(revision) = self.newest(key).map(|value| value.revision) else {
            return StepResult::Deleted(false);
        };
        self.floor = self.floor.max(revision + 1);
        if let Some((_, there)) = self.keys.get_mut(key) {
            *there = false;
        }
        StepResult::Deleted(true)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: u32) -> StepResult {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if !(1..=MAX_STATE_PAGE).contains(&limit) {
            return StepResult::refused(Reason::InvalidInput);
        }
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let keys = self.keys.range::<str, _>((from, Bound::Unbounded));
        let keys = keys.map(|(key, _)| key).take_while(|key| key.starts_with(prefix));
        let mut keys = keys.filter_map(|key| Some((key.clone(), self.newest(key)?.revision)));
        StepResult::Keys {
            keys: keys.by_ref().take(limit).collect(),
            more: keys.next().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Size = Size(64);

    fn put(state: &mut State, key: &str, value: &str, expected: Option<u64>) -> StepResult {
        let call = StepCall::Put {
            key: key.into(),
            value: value.into(),
            expected,
        };
        state.answer(&call, QUOTA, Time(7)).unwrap()
    }

    fn get(state: &mut State, key: &str, revision: Option<u64>) -> StepResult {
        let key = key.into();
        state.answer(&StepCall::Get { key, revision }, QUOTA, Time(7)).unwrap()
    }

    fn value(text: &str, revision: u64) -> StepResult {
        StepResult::Value(Some(Value {
            bytes: text.into(),
            revision,
            at: Time(7),
        }))
    }

    #[test]
    fn revisions_rise_also_over_a_removal() {
        let mut state = State::default();
        let delete = StepCall::Delete {
            key: "a".into(),
            expected: Some(2),
        };
        let refused = |revision| StepResult::Refused {
            reason: Reason::Conflict,
            revision,
        };
        assert_eq!(get(&mut state, "a", None), StepResult::Value(None));
        assert_eq!(put(&mut state, "a", "1", Some(1)), refused(0));
        assert_eq!(put(&mut state, "a", "1", Some(0)), StepResult::Written(1));
        assert_eq!(put(&mut state, "a", "2", None), StepResult::Written(2));
        assert_eq!(put(&mut state, "a", "3", Some(1)), refused(2));
        assert_eq!(get(&mut state, "a", Some(1)), value("1", 1));
        assert_eq!(state.answer(&delete, QUOTA, Time(8)), Some(StepResult::Deleted(true)));
        assert_eq!(state.answer(&delete, QUOTA, Time(8)), Some(refused(0)));
        assert_eq!(get(&mut state, "a", None), StepResult::Value(None));
        assert_eq!(get(&mut state, "a", Some(2)), value("2", 2));
        assert_eq!(put(&mut state, "a", "4", None), StepResult::Written(3));
        let history = StepCall::History { key: "a".into() };
        let versions = StepResult::Versions(vec![(3, Time(7)), (2, Time(7)), (1, Time(7))]);
        assert_eq!(state.answer(&history, QUOTA, Time(8)), Some(versions));
    }

    #[test]
    fn keys_come_in_pages_and_within_the_quota() {
        let mut state = State::default();
        for key in ["b/2", "a", "b/1", "b/3"] {
            put(&mut state, key, "x", None);
        }
        let list = |state: &mut State, after: Option<&str>, limit| {
            let (prefix, after) = ("b/".into(), after.map(str::to_owned));
            state.answer(&StepCall::List { prefix, after, limit }, QUOTA, Time(7))
        };
        let keys = |keys: &[&str], more| {
            let keys = keys.iter().map(|key| ((*key).to_owned(), 1)).collect();
            Some(StepResult::Keys { keys, more })
        };
        assert_eq!(list(&mut state, None, 2), keys(&["b/1", "b/2"], true));
        assert_eq!(list(&mut state, Some("b/2"), 2), keys(&["b/3"], false));
        assert_eq!(
            list(&mut state, None, 0),
            Some(StepResult::refused(Reason::InvalidInput))
        );
        let large = "x".repeat(64);
        assert_eq!(
            put(&mut state, "a", &large, None),
            StepResult::refused(Reason::QuotaExceeded)
        );
        assert_eq!(
            put(&mut state, "", "x", None),
            StepResult::refused(Reason::InvalidInput)
        );
        assert_eq!(state.answer(&StepCall::Clock { alarm: None }, QUOTA, Time(7)), None);
    }

    #[test]
    fn artifacts_are_read_in_pieces_and_bounded() {
        let mut artifacts = Artifacts::default();
        let stored = artifacts.put(b"hello".to_vec(), "text/plain".into()).unwrap();
        let read = |offset| artifacts.read(stored.digest, offset, 3).unwrap();
        assert_eq!((read(0), read(3), read(9)), (b"hel".to_vec(), b"lo".to_vec(), vec![]));
        assert_eq!(artifacts.read(Digest::of(b"other"), 0, 3), Err(Reason::NotFound));
        let most = usize::try_from(MAX_STORED).unwrap();
        assert_eq!(artifacts.put(vec![0; most], String::new()), Err(Reason::QuotaExceeded));
    }
}
