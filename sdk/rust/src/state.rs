//! The key-value state of the crew. Needs the grant `state`.
//!
//! Here is what has to outlast an attempt and to be seen by others of the crew: counters, positions, what was found so far. An agent that calls
//! nothing of this module does not import the interface and needs no grant. Every call is a durable step, see [the crate](crate#steps).
//!
//! ```
//! use skep_sdk::state;
//!
//! // Typed, as JSON; others may write the same key at the same time.
//! let seen = state::update("seen", |old: Option<u64>| old.unwrap_or(0) + 1)?;
//! assert_eq!(seen, 1);
//!
//! // Bytes, with revisions.
//! let first = state::put("page/1", b"<html>")?;
//! assert_eq!(state::compare_and_set("page/1", 0, b"other"), Err(state::Error::Conflict(first)));
//!
//! for key in state::list("page/") {
//!     state::delete(&key?.name)?;
//! }
//! # Ok::<(), skep_sdk::Failure>(())
//! ```

use std::collections::VecDeque;

use serde::{Serialize, de::DeserializeOwned};

#[cfg(target_family = "wasm")]
use crate::bindings::imports::skep::agent::state as host;
#[cfg(not(target_family = "wasm"))]
use crate::double::state as host;
use crate::{Failure, payload};

pub use crate::bindings::imports::skep::agent::state::{Entry, Error, Key, Version};

/// The most bytes that a value may have; the host refuses more. Larger ones are artifacts, and the value names them.
pub const MAX_VALUE: usize = 64 * 1024;

/// The most keys that the host gives at a time.
const PAGE: u32 = 100;

/// The newest value of a key; `None` where it is not there.
///
/// # Errors
/// The key has not 1 to 256 bytes, or as [`put`] for what is no fault of the call.
pub fn get(key: &str) -> Result<Option<Entry>, Error> {
    host::get(key)
}

/// An older value: the newest 64 revisions of a key are kept, for 24 hours, also of one that was deleted.
///
/// # Errors
/// [`Error::NotFound`] where it is not kept or never was; else as [`get`].
pub fn get_revision(key: &str, revision: u64) -> Result<Entry, Error> {
    host::get_revision(key, revision)
}

/// The revisions that [`get_revision`] can still give, the newest first. Empty for a key that never was.
///
/// # Errors
/// As [`get`].
pub fn history(key: &str) -> Result<Vec<Version>, Error> {
    host::history(key)
}

/// Write a key, whatever is there. Gives its new revision.
///
/// # Errors
/// The key has not 1 to 256 bytes or the value more than [`MAX_VALUE`], the quota is used up, the grant was taken back, the attempt has no record (it is
/// a check, or its task is ephemeral) or a full one, or the host cannot write now ([`Error::Unavailable`]: trying again may help).
pub fn put(key: &str, value: &[u8]) -> Result<u64, Error> {
    host::put(key, value)
}

/// Write a key only where it has this revision; 0 means that it is not there. Gives its new revision.
///
/// # Errors
/// [`Error::Conflict`] with the revision that it has; else as [`put`].
pub fn compare_and_set(key: &str, revision: u64, value: &[u8]) -> Result<u64, Error> {
    host::compare_and_set(key, revision, value)
}

/// Remove a key. Says whether it was there.
///
/// # Errors
/// As [`put`].
pub fn delete(key: &str) -> Result<bool, Error> {
    host::delete(key, None)
}

/// Remove a key only where it has this revision.
///
/// # Errors
/// [`Error::Conflict`] with the revision that it has, 0 where it is not there; else as [`put`].
pub fn delete_revision(key: &str, revision: u64) -> Result<bool, Error> {
    host::delete(key, Some(revision))
}

/// The keys that begin with a prefix, in the order of their bytes; all keys for an empty one. They are fetched by pages of 100, each of which is a
/// step: keys that others write or delete meanwhile may be seen or not, every other one is seen exactly once.
pub fn list(prefix: &str) -> Keys {
    Keys {
        prefix: prefix.to_owned(),
        page: VecDeque::new(),
        after: None,
        more: true,
    }
}

/// The keys of [`list`]. After an error it ends.
#[derive(Debug)]
pub struct Keys {
    prefix: String,
    page: VecDeque<Key>,
    /// The last key that the host gave.
    after: Option<String>,
    /// Whether there may be keys after it.
    more: bool,
}

impl Iterator for Keys {
    type Item = Result<Key, Error>;

    fn next(&mut self) -> Option<Result<Key, Error>> {
        if self.page.is_empty() && self.more {
            match host::list(&self.prefix, self.after.as_deref(), PAGE) {
                Ok(page) => {
                    // A page without keys leads nowhere, whatever it says of more.
                    self.more = page.more && !page.keys.is_empty();
                    self.after = page.keys.last().map(|key| key.name.clone());
                    self.page = page.keys.into();
                }
                Err(error) => {
                    self.more = false;
                    return Some(Err(error));
                }
            }
        }
        self.page.pop_front().map(Ok)
    }
}

/// The value of a key as JSON; `None` where it is not there.
///
/// # Errors
/// As [`get`], or the value is not JSON of this shape (never tried again).
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Failure> {
    Ok(get(key)?.map(|entry| parse(key, &entry)).transpose()?)
}

/// Write a value as JSON, whatever is there. Gives the new revision of the key.
///
/// # Errors
/// As [`put`], or the value has no JSON form.
pub fn put_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<u64, Failure> {
    Ok(put(key, &bytes(value)?)?)
}

/// Change a JSON value and give the new one: `change` is handed the old value, or `None` where there is none. When somebody else has written the key
/// meanwhile it is done again with what they wrote, until it holds; so `change` should do nothing else.
///
/// # Errors
/// As [`get_json`] and [`put_json`].
pub fn update<T: Serialize + DeserializeOwned>(
    key: &str,
    mut change: impl FnMut(Option<T>) -> T,
) -> Result<T, Failure> {
    loop {
        let (old, revision) = match get(key)? {
            Some(entry) => (Some(parse(key, &entry)?), entry.revision),
            None => (None, 0),
        };
        let new = change(old);
        match compare_and_set(key, revision, &bytes(&new)?) {
            Ok(_) => return Ok(new),
            // Whoever made it conflict has got on, so all together do; a task that never wins ends with a full record.
            Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn parse<T: DeserializeOwned>(key: &str, entry: &Entry) -> Result<T, payload::Error> {
    payload::parse(&entry.value, &format!("the state `{key}`"))
}

fn bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, payload::Error> {
    serde_json::to_vec(value).map_err(payload::Error::Serialize)
}

/// A refusal in words, for messages.
pub(crate) fn describe(error: Error) -> String {
    match error {
        Error::NotFound => "no such key or revision".to_owned(),
        Error::Conflict(0) => "the key is not there".to_owned(),
        Error::Conflict(revision) => format!("the key has revision {revision}"),
        Error::InvalidInput => format!("a key has 1 to 256 bytes, a value at most {MAX_VALUE}"),
        Error::QuotaExceeded => "the state would grow over the quota of the grant".to_owned(),
        Error::Denied => {
            "the grant was taken back, or the attempt has no record: a check, an ephemeral task".to_owned()
        }
        Error::RecordFull => "the record of the task is full; go on with tasks::continue_with".to_owned(),
        Error::Unavailable => "the host cannot read or write it now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Retry;

    #[test]
    fn revisions_rise_and_older_values_stay_readable() {
        let first = put("k", b"one").unwrap();
        let second = compare_and_set("k", first, b"two").unwrap();
        assert!(second > first);
        assert_eq!(compare_and_set("k", first, b"three"), Err(Error::Conflict(second)));
        assert_eq!(delete_revision("k", first), Err(Error::Conflict(second)));
        assert_eq!(delete("k"), Ok(true));
        assert_eq!(delete("k"), Ok(false));
        assert_eq!(get("k"), Ok(None));
        assert_eq!(get_revision("k", first).unwrap().value, b"one");
        let third = compare_and_set("k", 0, b"three").unwrap();
        assert!(third > second);
        let kept: Vec<u64> = history("k").unwrap().iter().map(|version| version.revision).collect();
        assert_eq!(kept, [third, second, first]);
        assert_eq!(get_revision("k", third + 1), Err(Error::NotFound));
        assert_eq!(history("never"), Ok(vec![]));
    }

    #[test]
    fn keys_are_listed_over_pages_in_order() {
        for n in (0..250).rev() {
            put(&format!("a/{n:03}"), b"").unwrap();
        }
        put("b", b"").unwrap();
        let names: Vec<String> = list("a/").map(|key| key.unwrap().name).collect();
        let expected: Vec<String> = (0..250).map(|n| format!("a/{n:03}")).collect();
        assert_eq!(names, expected);
        assert_eq!(list("").count(), 251);
        assert_eq!(list("c").count(), 0);
    }

    #[test]
    fn json_is_written_read_and_blamed_by_its_key() {
        assert_eq!(get_json::<u8>("n").unwrap(), None);
        put_json("n", &7).unwrap();
        assert_eq!(get_json::<u8>("n").unwrap(), Some(7));
        let failure = get_json::<String>("n").unwrap_err();
        assert!(
            failure.message.starts_with("the state `n` does not parse"),
            "{}",
            failure.message
        );
        assert_eq!(failure.retry, Retry::Never);
    }

    #[test]
    fn an_update_that_was_overtaken_is_done_again() {
        let mut seen = Vec::new();
        let new = update("n", |old: Option<u32>| {
            if seen.len() < 2 {
                // Somebody else, in between.
                put_json("n", &(10 * (seen.len() + 1))).unwrap();
            }
            seen.push(old);
            old.unwrap_or(0) + 1
        });
        assert_eq!(new.unwrap(), 21);
        assert_eq!(seen, [None, Some(10), Some(20)]);
        assert_eq!(get_json::<u32>("n").unwrap(), Some(21));
    }

    #[test]
    fn bounds_are_those_of_the_host() {
        assert_eq!(put("", b""), Err(Error::InvalidInput));
        assert_eq!(get(&"k".repeat(257)), Err(Error::InvalidInput));
        assert!(put(&"k".repeat(256), &vec![0; MAX_VALUE]).is_ok());
        assert_eq!(put("k", &vec![0; MAX_VALUE + 1]), Err(Error::InvalidInput));
    }
}
