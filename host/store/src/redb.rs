//! The default engine: one redb file in a directory of its own. No type of redb leaves this file but the backend that
//! crash tests put under it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cap_std::fs::{Dir, OpenOptions, Permissions, PermissionsExt};
use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, TableError, TableHandle, WriteTransaction,
};

use crate::engine::{Change, Commit, Engine, HEAD, META, Row, Snapshot};
use crate::{Error, Options, Range, Table};

const FILE: &str = "store.redb";
/// A database under construction. It gets its real name once it is whole, so a crash leaves nothing that looks damaged.
const UNFINISHED: &str = "store.redb.new";
const LOCK: &str = "lock";
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// Tables in a redb file.
#[derive(Debug)]
pub struct Redb {
    /// Here until the engine is dropped.
    database: Option<Database>,
    /// Keeps other processes out of the directory. After `database`, so that the file is closed before the lock goes.
    _lock: Option<std::fs::File>,
}

impl Redb {
    /// Opens the database of a directory, or creates it in an empty one (`expected` names what may already be there). One
    /// of at most `options.check_bytes` is checked page by page. `path` is only for messages.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Foreign`], [`Error::Io`], [`Error::Damaged`], [`Error::Engine`].
    pub(crate) fn open(dir: &Dir, path: &Path, expected: &[&str], options: &Options) -> Result<Self, Error> {
        let foreign = || Error::Foreign { path: path.to_owned() };
        if !dir.exists(FILE) && !is_vacant(dir, expected).map_err(Error::io("list the directory of the store"))? {
            return Err(foreign());
        }
        let lock = lock(dir, path)?;
        if !dir.exists(FILE) {
            create(dir)?;
        }
        let file = dir.open_with(FILE, OpenOptions::new().read(true).write(true));
        let file = file.map_err(Error::io("open the database"))?.into_std();
        if !begins_with_magic(&file).map_err(Error::io("read the database"))? {
            return Err(foreign());
        }
        let small = file.metadata().map_err(Error::io("measure the database"))?.len() <= options.check_bytes;
        let open = || {
            let opened = Builder::new().set_cache_size(options.cache_bytes).create_file(file);
            opened.map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => Error::Locked { path: path.to_owned() },
                other => refused(other),
            })
        };
        let engine = Self::checked(open, small, Some(lock))?;
        if !engine.is_ours()? {
            return Err(foreign());
        }
        Ok(engine)
    }

    /// The engine over a disk of the caller's, for tests that damage it; every page is checked if `check` says so.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`] or [`Error::Engine`].
    #[doc(hidden)]
    pub fn with_backend(backend: impl StorageBackend, check: bool) -> Result<Self, Error> {
        Self::checked(
            || Builder::new().create_with_backend(backend).map_err(refused),
            check,
            None,
        )
    }

    fn checked(
        open: impl FnOnce() -> Result<Database, Error>,
        check: bool,
        lock: Option<std::fs::File>,
    ) -> Result<Self, Error> {
        let database = guard(|| {
            let mut database = open()?;
            // Every commit being of two phases, a page that does not match its checksum is an error here and never a
            // reason for the engine to go back to an older commit.
            if check && !database.check_integrity().map_err(refused)? {
                tracing::warn!("the database's record of free pages was damaged and has been rebuilt");
            }
            Ok(database)
        })?;
        Ok(Self {
            database: Some(database),
            _lock: lock,
        })
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or(Error::Closed)
    }

    /// Whether the database is new or has our head table: another program's redb file has neither.
    fn is_ours(&self) -> Result<bool, Error> {
        let transaction = self.database()?.begin_read().map_err(refused)?;
        let mut tables = transaction.list_tables().map_err(refused)?.peekable();
        Ok(tables.peek().is_none() || tables.any(|table| table.name() == META.name()))
    }

    fn begin(&self) -> Result<WriteTransaction, Error> {
        let mut transaction = self.database()?.begin_write().map_err(refused)?;
        // Agents choose bytes that are stored. With one phase, a torn commit is told from a whole one by a checksum that
        // is no secret; with two, by the order of syncs alone.
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }

    fn write(&self, commit: &Commit<'_>) -> Result<(), Error> {
        let transaction = self.begin()?;
        {
            let mut meta = transaction.open_table(definition(META)).map_err(refused)?;
            let head = meta.get(HEAD).map_err(refused)?;
            if head.as_ref().map(|row| row.value()) != commit.expect {
                return Err(Error::Fenced);
            }
            drop(head);
            meta.insert(HEAD, commit.head).map_err(refused)?;
        }
        if let Some((table, range)) = &commit.erase
            && let Some(bounds) = range.bounds()
        {
            let mut table = transaction.open_table(definition(*table)).map_err(refused)?;
            table.retain_in::<&[u8], _>(bounds, |_, _| false).map_err(refused)?;
        }
        for (table, changes) in &commit.changes {
            change(&transaction, *table, changes)?;
        }
        transaction.commit().map_err(refused)
    }
}

/// The engine panics on some pages it cannot make sense of, and a file may hold anything.
fn guard<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::damaged("database", "the engine gave up on it")))
}

impl Drop for Redb {
    fn drop(&mut self) {
        let database = self.database.take();
        // Nothing is lost with an error here: what was committed is durable, and closing only tidies.
        if let Err(error) = guard(|| {
            drop(database);
            Ok(())
        }) {
            tracing::warn!(error = error.chain(), "closing the database");
        }
    }
}

/// Takes the directory for this process; the lock goes when the file is closed.
fn lock(dir: &Dir, path: &Path) -> Result<std::fs::File, Error> {
    let file = dir
        .open_with(LOCK, OpenOptions::new().write(true).create(true))
        .map_err(Error::io("open the lock of the store"))?
        .into_std();
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::Io {
            doing: "lock the store",
            source,
        }),
    }
}

/// Whether nothing is there but what a store leaves behind while it is being created.
fn is_vacant(dir: &Dir, expected: &[&str]) -> std::io::Result<bool> {
    for entry in dir.entries()? {
        let name = entry?.file_name();
        if ![LOCK, UNFINISHED]
            .iter()
            .chain(expected)
            .any(|known| name.to_str() == Some(*known))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn create(dir: &Dir) -> Result<(), Error> {
    let file = dir.open_with(
        UNFINISHED,
        OpenOptions::new().read(true).write(true).create(true).truncate(true),
    );
    let file = file.map_err(Error::io("create the database"))?.into_std();
    drop(Builder::new().create_file(file).map_err(refused)?);
    // What agents wrote is for the operator's eyes.
    dir.set_permissions(".", Permissions::from_mode(0o700))
        .map_err(Error::io("close the directory of the store to others"))?;
    dir.rename(UNFINISHED, dir, FILE)
        .map_err(Error::io("name the new database"))?;
    sync_dir(dir)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Dir) -> Result<(), Error> {
    dir.open(".")
        .and_then(|file| file.sync_all())
        .map_err(Error::io("sync a directory of the store"))
}

fn begins_with_magic(mut file: &std::fs::File) -> std::io::Result<bool> {
    use std::io::{ErrorKind, Read, Seek};
    let mut found = [0; MAGIC.len()];
    match file.read_exact(&mut found) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    file.rewind()?;
    Ok(found == MAGIC)
}

impl Engine for Redb {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        let transaction = guard(|| self.database()?.begin_read().map_err(refused))?;
        Ok(Box::new(View(transaction)))
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), Error> {
        guard(|| self.write(commit))
    }
}

fn change(transaction: &WriteTransaction, table: Table, changes: &[Change<'_>]) -> Result<(), Error> {
    let mut rows = transaction.open_table(definition(table)).map_err(refused)?;
    for (key, value) in changes {
        match value {
            Some(value) => drop(rows.insert(*key, *value).map_err(refused)?),
            None => drop(rows.remove(*key).map_err(refused)?),
        }
    }
    Ok(())
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

struct View(ReadTransaction);

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// A table that nobody has written to is empty.
    fn table(&self, table: Table) -> Result<Option<Rows>, Error> {
        match self.0.open_table(definition(table)) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Snapshot for View {
    fn tables(&self) -> Result<Vec<Table>, Error> {
        guard(|| {
            let found = self.0.list_tables().map_err(refused)?;
            let named = |name: &str| {
                let unknown = || Error::damaged("database", format!("table {name:?} is none of a store"));
                Table::named(name).ok_or_else(unknown)
            };
            let mut tables = found.map(|table| named(table.name())).collect::<Result<Vec<_>, _>>()?;
            tables.sort_unstable();
            Ok(tables)
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        guard(|| {
            let Some(rows) = self.table(table)? else {
                return Ok(None);
            };
            Ok(rows.get(key).map_err(refused)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, table: Table, range: &Range, limit: usize) -> Result<Vec<Row>, Error> {
        let Some(bounds) = range.bounds() else {
            return Ok(Vec::new());
        };
        guard(|| {
            let Some(rows) = self.table(table)? else {
                return Ok(Vec::new());
            };
            let mut rows = rows.range::<&[u8]>(bounds).map_err(refused)?;
            let mut found = Vec::new();
            while found.len() < limit {
                let Some(row) = (if range.reverse { rows.next_back() } else { rows.next() }) else {
                    break;
                };
                let (key, value) = row.map_err(refused)?;
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }
}

fn refused(error: impl Into<redb::Error>) -> Error {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error.into() {
        redb::Error::Io(source) if matches!(source.kind(), InvalidData | UnexpectedEof) => {
            Error::damaged("database", source.to_string())
        }
        redb::Error::Io(source) => Error::Io {
            doing: "use the database",
            source,
        },
        redb::Error::Corrupted(at) => Error::damaged("database", at),
        // Every table and every file of ours is of the same kind.
        other @ (redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => Error::damaged("database", other.to_string()),
        other => Error::Engine(other.to_string()),
    }
}
