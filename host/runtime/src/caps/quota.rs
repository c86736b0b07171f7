//! The account of one `/workspace`: bytes by the length of its files, and entries. The account is the truth, not the disk, because writes through
//! streams run in the background; it is never below what the disk holds. Files are known by what identifies them on the host, and each has
//! exactly one name, because links are refused.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use skep_rules::reason::Reason;
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::denials::Denials;

/// What identifies a file on the host: the library's hash over device and inode.
pub(super) type Key = (u64, u64);

/// The quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The account of a workspace. Clones share it: streams write into it after the borrow of the store has ended.
#[derive(Debug, Clone)]
pub(super) struct Quota(
    /// Locked for one entry at a time, by the one guest that it belongs to; never held across a wait.
    Arc<Mutex<Account>>,
);

#[derive(Debug)]
struct Account {
    denials: Denials,
    bytes: u64,
    most_bytes: u64,
    entries: u32,
    most_entries: u32,
    /// Files with a name.
    files: HashMap<Key, Held>,
    /// Files without a name that may still be open; they give back what they hold when their last descriptor is gone. Swept before it grows, so it
    /// holds no more than there are descriptors.
    nameless: HashMap<Key, Held>,
}

/// One file.
#[derive(Debug, Default)]
struct Held {
    length: u64,
    /// Its open descriptors and streams, as far as they still live.
    open: Vec<Weak<File>>,
}

impl Held {
    fn is_open(&self) -> bool {
        self.open.iter().any(|file| file.strong_count() > 0)
    }
}

impl Quota {
    /// An empty workspace of so many bytes and entries.
    pub(super) fn new(most_bytes: u64, most_entries: u32, denials: Denials) -> Self {
        Quota(Arc::new(Mutex::new(Account {
            denials,
            bytes: 0,
            most_bytes,
            entries: 0,
            most_entries,
            files: HashMap::new(),
            nameless: HashMap::new(),
        })))
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of one more file or directory.
    pub(super) fn add_entry(&self) -> Result<(), Full> {
        let mut account = self.account();
        if account.entries >= account.most_entries {
            account.sweep();
        }
        if account.entries >= account.most_entries {
            let most = account.most_entries;
            account.denials.note(
                Reason::QuotaExceeded,
                &format!("hold more than {most} files in /workspace"),
            );
            return Err(Full);
        }
        account.entries += 1;
        Ok(())
    }

    /// Gives the place of an entry back: it was not made, or a directory was removed.
    pub(super) fn drop_entry(&self) {
        let mut account = self.account();
        account.entries = account.entries.saturating_sub(1);
    }

    /// A file was opened, perhaps made.
    pub(super) fn opened(&self, key: Key, file: &Arc<File>) {
        let mut account = self.account();
        if account.nameless.contains_key(&key) {
            // The host gave the identity of a file that is gone to a new one.
            account.sweep();
        }
        let held = account.files.entry(key).or_default();
        held.open.retain(|file| file.strong_count() > 0);
        held.open.push(Arc::downgrade(file));
    }

    /// The file will reach at least to `end`.
    pub(super) fn reach(&self, key: Key, end: u64) -> Result<(), Full> {
        let mut account = self.account();
        let length = account.held(key).length;
        account.grow(key, end.saturating_sub(length))
    }

    /// `more` bytes will be added at the end of the file.
    pub(super) fn append(&self, key: Key, more: u64) -> Result<(), Full> {
        self.account().grow(key, more)
    }

    /// The file was cut to `length`.
    pub(super) fn cut(&self, key: Key, length: u64) {
        let mut account = self.account();
        let held = account.held(key);
        let freed = held.length.saturating_sub(length);
        held.length -= freed;
        account.bytes = account.bytes.saturating_sub(freed);
    }

    /// The name of an entry is gone, by unlink or by a rename over it. A file that is still open keeps its bytes until it is closed; what is not a
    /// known file is a directory.
    pub(super) fn removed(&self, key: Key) {
        let mut account = self.account();
        account.sweep();
        match account.files.remove(&key) {
            Some(held) if held.is_open() => {
                account.nameless.insert(key, held);
            }
            Some(held) => account.give_back(held.length),
            None => account.give_back(0),
        }
    }
}

impl Account {
    fn held(&mut self, key: Key) -> &mut Held {
        match self.nameless.contains_key(&key) {
            true => self.nameless.entry(key).or_default(),
            false => self.files.entry(key).or_default(),
        }
    }

    fn grow(&mut self, key: Key, more: u64) -> Result<(), Full> {
        let fits = |account: &Account| more <= account.most_bytes - account.bytes;
        if !fits(self) {
            self.sweep();
        }
        if !fits(self) {
            let most = self.most_bytes;
            self.denials.note(
                Reason::QuotaExceeded,
                &format!("hold more than {most} bytes in /workspace"),
            );
            return Err(Full);
        }
        self.bytes += more;
        self.held(key).length += more;
        Ok(())
    }

    fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.entries = self.entries.saturating_sub(1);
    }

    /// Gives back what nameless files held whose last descriptor is gone.
    fn sweep(&mut self) {
        let mut freed = Vec::new();
        self.nameless.retain(|_, held| {
            let open = held.is_open();
            if !open {
                freed.push(held.length);
            }
            open
        });
        freed.into_iter().for_each(|length| self.give_back(length));
    }
}

/// A stream into a file of the workspace that asks the account before it writes.
pub(super) struct Counted {
    inner: DynOutputStream,
    quota: Quota,
    key: Key,
    /// Where the next write goes; `None` appends.
    at: Option<u64>,
}

impl Counted {
    /// Wraps a stream of the file `key` that writes at `at`, or appends.
    pub(super) fn wrap(inner: DynOutputStream, quota: Quota, key: Key, at: Option<u64>) -> DynOutputStream {
        Box::new(Counted { inner, quota, key, at })
    }

    fn count(&mut self, bytes: &Bytes) -> StreamResult<()> {
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let counted = match &mut self.at {
            None => self.quota.append(self.key, more),
            Some(at) => {
                let end = at.saturating_add(more);
                self.quota.reach(self.key, end).inspect(|()| *at = end)
            }
        };
        // The guest's library can ask for the code of an error of the operating system only.
        let full = |Full| std::io::Error::from(rustix::io::Errno::NOSPC);
        counted.map_err(|error| StreamError::LastOperationFailed(full(error).into()))
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Counted {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.count(&bytes)?;
        self.inner.write(bytes)
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.count(&bytes)?;
        self.inner.blocking_write_and_flush(bytes).await
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.inner.check_write()
    }

    async fn write_ready(&mut self) -> StreamResult<usize> {
        self.inner.write_ready().await
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Counted {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = (1, 1);
    const B: Key = (2, 2);

    fn quota() -> (Quota, Denials) {
        let denials = Denials::default();
        (Quota::new(100, 3, denials.clone()), denials)
    }

    fn used(quota: &Quota) -> (u64, u32) {
        let account = quota.account();
        (account.bytes, account.entries)
    }

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn growth_is_charged_once_and_stops_at_the_bound() {
        let (quota, denials) = quota();
        quota.add_entry().unwrap();
        quota.reach(A, 60).unwrap();
        quota.reach(A, 40).unwrap();
        quota.append(A, 10).unwrap();
        assert_eq!(used(&quota), (70, 1));
        assert_eq!(quota.reach(A, 101), Err(Full));
        assert_eq!(quota.reach(A, u64::MAX), Err(Full));
        assert_eq!(quota.append(B, 31), Err(Full));
        quota.append(B, 30).unwrap();
        assert_eq!(used(&quota), (100, 1));
        let denials = denials.take();
        assert_eq!(
            (denials.len(), denials[0].reason, denials[0].count),
            (1, Reason::QuotaExceeded, 3)
        );
    }

    #[test]
    fn cutting_gives_bytes_back() {
        let (quota, _) = quota();
        quota.reach(A, 90).unwrap();
        quota.cut(A, 20);
        quota.cut(A, 50);
        assert_eq!(used(&quota).0, 20);
        quota.reach(A, 100).unwrap();
        quota.cut(A, 0);
        assert_eq!(used(&quota).0, 0);
    }

    #[test]
    fn entries_are_bounded_and_given_back() {
        let (quota, denials) = quota();
        for _ in 0..3 {
            quota.add_entry().unwrap();
        }
        assert_eq!(quota.add_entry(), Err(Full));
        quota.drop_entry();
        quota.add_entry().unwrap();
        // A directory: no file of that key is known.
        quota.removed(B);
        assert_eq!(used(&quota), (0, 2));
        assert_eq!(denials.take().len(), 1);
    }

    #[test]
    fn an_unlinked_file_keeps_its_bytes_while_it_is_open() {
        let (quota, _) = quota();
        let open = file();
        quota.add_entry().unwrap();
        quota.opened(A, &open);
        quota.reach(A, 80).unwrap();
        quota.removed(A);
        assert_eq!(used(&quota), (80, 1));
        assert_eq!(quota.reach(A, 120), Err(Full));
        quota.reach(A, 90).unwrap();
        drop(open);
        quota.reach(B, 100).unwrap();
        assert_eq!(used(&quota), (100, 0));
    }

    #[test]
    fn an_identity_that_comes_back_belongs_to_the_new_file() {
        let (quota, _) = quota();
        let open = file();
        quota.add_entry().unwrap();
        quota.opened(A, &open);
        quota.reach(A, 80).unwrap();
        quota.removed(A);
        drop(open);
        quota.add_entry().unwrap();
        quota.opened(A, &file());
        quota.reach(A, 30).unwrap();
        assert_eq!(used(&quota), (30, 1));
        quota.removed(A);
        assert_eq!(used(&quota), (0, 0));
    }

    #[test]
    fn a_closed_file_that_is_removed_gives_everything_back() {
        let (quota, _) = quota();
        quota.add_entry().unwrap();
        quota.opened(A, &file());
        quota.append(A, 100).unwrap();
        quota.removed(A);
        assert_eq!(used(&quota), (0, 0));
    }
}
