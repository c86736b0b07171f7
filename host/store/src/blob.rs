//! Blobs: immutable bytes named by their SHA-256, one file each, so that `sha256sum` can check them too.
//!
//! A blob is hashed in full when it is first read after opening. That pass keeps a BLAKE3 hash of every piece of 64 KiB,
//! and later reads hash only the pieces they touch: a byte that flips on the disk, before or after, is found and never
//! served, and reading a blob in ranges costs no more than reading it once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{Read, Seek, SeekFrom, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::{Dir, File, OpenOptions};
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::error::within;
use crate::redb::sync_dir;

/// The directory of blobs in the directory of the store.
pub(crate) const BLOBS: &str = "blobs";
/// Where blobs are written before they get their name; emptied at opening.
const TEMPORARY: &str = "tmp";

const PIECE: usize = 64 * 1024;
/// Blobs whose piece hashes are remembered: 5 KiB each for the largest, so 5 MiB at most.
const REMEMBERED: usize = 1024;

/// SHA-256 of a blob, its name. Written and parsed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NotADigest),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(NotADigest);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Self(bytes))
    }
}

#[derive(Debug)]
enum Place {
    Disk {
        dir: Dir,
        /// Numbers temporary files: two threads may write at once.
        next: AtomicU64,
    },
    Memory(Mutex<BTreeMap<Digest, Arc<[u8]>>>),
}

/// The hashes of a blob's pieces, and its length.
#[derive(Debug)]
struct Pieces {
    len: usize,
    hashes: Vec<blake3::Hash>,
}

impl Pieces {
    fn of(bytes: &[u8]) -> Self {
        Self {
            len: bytes.len(),
            hashes: bytes.chunks(PIECE).map(blake3::hash).collect(),
        }
    }
}

#[derive(Debug, Default)]
struct Verified {
    pieces: BTreeMap<Digest, Arc<Pieces>>,
    /// Oldest first: the first to be forgotten.
    order: VecDeque<Digest>,
}

/// The blobs of a store. Every call waits for the disk, so call it where waiting is allowed.
#[derive(Debug)]
pub struct Blobs {
    place: Place,
    limit: usize,
    verified: Mutex<Verified>,
    /// While somebody reads all of them, none goes.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by: usize,
    /// To be removed when nobody holds them any more.
    doomed: BTreeSet<Digest>,
}

/// Keeps every blob there until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold<'a>(&'a Blobs);

impl std::ops::Deref for Hold<'_> {
    type Target = Blobs;

    fn deref(&self) -> &Blobs {
        self.0
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut held = locked(&self.0.held);
        held.by -= 1;
        if held.by > 0 {
            return;
        }
        // Under the lock: a blob that is put again meanwhile must not go.
        for digest in std::mem::take(&mut held.doomed) {
            if let Err(error) = self.0.erase(digest) {
                tracing::warn!(error = error.chain(), "a blob that was dropped during a backup");
            }
        }
    }
}

impl Blobs {
    pub(crate) fn open(dir: &Dir, limit: usize) -> Result<Self, Error> {
        let opened = || -> std::io::Result<Dir> {
            dir.create_dir_all(BLOBS)?;
            let blobs = dir.open_dir(BLOBS)?;
            if blobs.exists(TEMPORARY) {
                blobs.remove_dir_all(TEMPORARY)?;
            }
            blobs.create_dir(TEMPORARY)?;
            Ok(blobs)
        };
        let blobs = opened().map_err(Error::io("open the directory of blobs"))?;
        sync_dir(dir)?;
        Ok(Self::on(
            Place::Disk {
                dir: blobs,
                next: AtomicU64::new(0),
            },
            limit,
        ))
    }

    pub(crate) fn in_memory(limit: usize) -> Self {
        Self::on(Place::Memory(Mutex::default()), limit)
    }

    fn on(place: Place, limit: usize) -> Self {
        Self {
            place,
            limit,
            verified: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Keeps every blob there until the hold is dropped: what is removed meanwhile goes then, unless it is put again.
    pub(crate) fn hold(&self) -> Hold<'_> {
        locked(&self.held).by += 1;
        Hold(self)
    }

    /// Keeps `bytes`; when it returns they are durable. Keeping the same bytes again changes nothing, except that a copy
    /// found damaged is replaced.
    ///
    /// # Errors
    /// [`Error::OverLimit`] over [`crate::Options::blob_bytes`]; [`Error::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        within("blob", bytes.len(), self.limit)?;
        let digest = Digest::of(bytes);
        locked(&self.held).doomed.remove(&digest);
        if self.remembered(digest).is_some() {
            return Ok(digest);
        }
        match &self.place {
            Place::Disk { dir, next } => match self.whole(digest) {
                // Another call may have given it its name and not synced it yet.
                Ok(_) => sync_dir(dir)?,
                Err(Error::NoBlob { .. } | Error::Damaged { .. }) => {
                    write(dir, next.fetch_add(1, Ordering::Relaxed), digest, bytes)?;
                }
                Err(error) => return Err(error),
            },
            Place::Memory(blobs) => drop(locked(blobs).entry(digest).or_insert_with(|| bytes.into())),
        }
        self.remember(digest, Pieces::of(bytes));
        Ok(digest)
    }

    /// At most `len` bytes from `offset`; fewer, or none, where the blob ends.
    ///
    /// # Errors
    /// [`Error::NoBlob`]; [`Error::Damaged`] naming the blob, when what was read is not what was put; [`Error::Io`].
    pub fn read(&self, digest: Digest, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let cut = |bytes: &[u8], start: usize| {
            let start = offset.saturating_sub(start).min(bytes.len());
            let end = start.saturating_add(len).min(bytes.len());
            bytes.get(start..end).unwrap_or_default().to_vec()
        };
        let Some(pieces) = self.remembered(digest) else {
            let bytes = self.whole(digest)?;
            self.remember(digest, Pieces::of(&bytes));
            return Ok(cut(&bytes, 0));
        };
        if offset >= pieces.len || len == 0 {
            return Ok(Vec::new());
        }
        let first = offset / PIECE;
        let end = offset.saturating_add(len).min(pieces.len).div_ceil(PIECE);
        let start = first * PIECE;
        let bytes = self.fetch(digest, start, (end * PIECE).min(pieces.len) - start)?;
        let sound = bytes
            .chunks(PIECE)
            .map(blake3::hash)
            .eq(pieces.hashes.iter().take(end).skip(first).copied());
        if !sound {
            self.forget(digest);
            return Err(damaged(digest));
        }
        Ok(cut(&bytes, start))
    }

    /// How long a blob is, as the directory says.
    ///
    /// # Errors
    /// [`Error::NoBlob`] or [`Error::Io`].
    pub fn len(&self, digest: Digest) -> Result<u64, Error> {
        match &self.place {
            Place::Disk { .. } => self
                .file(digest)?
                .metadata()
                .map(|found| found.len())
                .map_err(Error::io("measure a blob")),
            Place::Memory(blobs) => locked(blobs)
                .get(&digest)
                .map(|bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX))
                .ok_or(Error::NoBlob { digest }),
        }
    }

    /// Drops a blob, during a backup only after it; none there is no error. Not durable by itself: after a crash the blob may be there again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, digest: Digest) -> Result<(), Error> {
        let mut held = locked(&self.held);
        if held.by > 0 {
            held.doomed.insert(digest);
            return Ok(());
        }
        // Under the lock, so that nobody who holds them has seen it.
        self.erase(digest)
    }

    fn erase(&self, digest: Digest) -> Result<(), Error> {
        self.forget(digest);
        match &self.place {
            Place::Disk { dir, .. } => match dir.remove_file(digest.to_string()) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
                    doing: "remove a blob",
                    source,
                }),
                _ => Ok(()),
            },
            Place::Memory(blobs) => {
                locked(blobs).remove(&digest);
                Ok(())
            }
        }
    }

    /// Hashes every blob in full and returns how many there are.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the first bad blob; [`Error::Io`].
    pub fn verify(&self) -> Result<u64, Error> {
        let mut count = 0;
        for digest in self.list()? {
            self.whole(digest)?;
            count += 1;
        }
        Ok(count)
    }

    /// Every blob, in no order: for those who sweep what nothing refers to any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        let dir = match &self.place {
            Place::Disk { dir, .. } => dir,
            Place::Memory(blobs) => return Ok(locked(blobs).keys().copied().collect()),
        };
        let mut found = Vec::new();
        for entry in dir.entries().map_err(Error::io("list blobs"))? {
            let name = entry.map_err(Error::io("list blobs"))?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        Ok(found)
    }

    /// The whole blob, checked against its name.
    pub(crate) fn whole(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        let len = usize::try_from(self.len(digest)?).unwrap_or(usize::MAX);
        // A file longer than any blob may be is damaged; it is not read into memory to find out.
        if len > self.limit {
            return Err(damaged(digest));
        }
        let bytes = self.fetch(digest, 0, len)?;
        if Digest::of(&bytes) != digest {
            return Err(damaged(digest));
        }
        Ok(bytes)
    }

    /// The bytes as they lie there, fewer where the blob was cut.
    fn fetch(&self, digest: Digest, start: usize, len: usize) -> Result<Vec<u8>, Error> {
        match &self.place {
            Place::Disk { .. } => {
                let mut file = self.file(digest)?;
                let mut bytes = Vec::with_capacity(len);
                file.seek(SeekFrom::Start(start as u64))
                    .and_then(|_| file.take(len as u64).read_to_end(&mut bytes))
                    .map_err(Error::io("read a blob"))?;
                Ok(bytes)
            }
            Place::Memory(blobs) => {
                let blobs = locked(blobs);
                let bytes = blobs.get(&digest).ok_or(Error::NoBlob { digest })?;
                Ok(bytes.iter().skip(start).take(len).copied().collect())
            }
        }
    }

    fn file(&self, digest: Digest) -> Result<File, Error> {
        let Place::Disk { dir, .. } = &self.place else {
            return Err(Error::NoBlob { digest });
        };
        dir.open(digest.to_string()).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NoBlob { digest },
            _ => Error::Io {
                doing: "open a blob",
                source,
            },
        })
    }

    fn remembered(&self, digest: Digest) -> Option<Arc<Pieces>> {
        locked(&self.verified).pieces.get(&digest).cloned()
    }

    fn remember(&self, digest: Digest, pieces: Pieces) {
        let mut verified = locked(&self.verified);
        if verified.pieces.insert(digest, Arc::new(pieces)).is_none() {
            verified.order.push_back(digest);
        }
        if verified.order.len() > REMEMBERED
            && let Some(oldest) = verified.order.pop_front()
        {
            verified.pieces.remove(&oldest);
        }
    }

    fn forget(&self, digest: Digest) {
        let mut verified = locked(&self.verified);
        if verified.pieces.remove(&digest).is_some() {
            verified.order.retain(|other| *other != digest);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged(digest: Digest) -> Error {
    Error::damaged("blob", format!("{digest}: its bytes do not match its name"))
}

/// Content first, then the name, then the directory: a crash leaves the whole blob or none.
fn write(dir: &Dir, number: u64, digest: Digest, bytes: &[u8]) -> Result<(), Error> {
    let temporary = format!("{TEMPORARY}/{number}");
    let written = || -> std::io::Result<()> {
        let mut file = dir.open_with(&temporary, OpenOptions::new().write(true).create_new(true))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        dir.rename(&temporary, dir, digest.to_string())
    };
    written().map_err(Error::io("write a blob"))?;
    sync_dir(dir)
}
