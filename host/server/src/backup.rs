//! What of a data directory goes into a backup, and how a backup becomes a data directory again: the store, the key that signs
//! what comes with Skep, and the operator's configuration. Nothing that a host makes anew (the code cache and its key,
//! workspaces) and not the token: whoever holds a backup does not hold the host that it was made of.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use skep_store::{BACKUP_FILE_BYTES, BackedUp, Store};

use crate::{
    data_dir::{BUNDLED_KEY, CONFIG, RESTORING, STORE},
    host::{Error, store_options},
};

/// What a restore that was cut short leaves in a data directory; no host takes one that holds it.
pub const UNFINISHED: &str = RESTORING;

/// The files beside the store that are kept.
const FILES: [&str; 2] = [BUNDLED_KEY, CONFIG];

/// Writes a backup of a data directory whose store is open, as of one position, while the host goes on. Blocks until it is
/// written.
///
/// # Errors
/// [`Error::Io`] when a file of the directory cannot be read; [`Error::Damaged`] when something in it is not what was written, or
/// the backup cannot be written.
pub fn write(store: &Store, data_dir: &Path, to: impl Write) -> Result<BackedUp, Error> {
    let mut files = Vec::new();
    for name in FILES {
        let path = data_dir.join(name);
        match fs::File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                let most = BACKUP_FILE_BYTES as u64 + 1;
                file.take(most).read_to_end(&mut bytes).map_err(io(&path, "read"))?;
                files.push((name, bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(&path, "read")(error)),
        }
    }
    store.backup(&files, to).map_err(damaged(data_dir))
}

/// Makes a data directory of a backup, in a directory that is empty or not there. Its store is checked whole, and no owner of
/// the old one can write to it. After an error the directory is as it was.
///
/// # Errors
/// [`Error::NotEmpty`]; [`Error::Damaged`] naming the byte of the backup at which the first bad piece begins; [`Error::Io`].
pub fn restore(from: impl Read, data_dir: &Path) -> Result<BackedUp, Error> {
    let found = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(data_dir, "read")(error)),
    };
    if let Some(entry) = found {
        return Err(Error::NotEmpty {
            path: data_dir.to_owned(),
            found: entry
                .map_err(io(data_dir, "read"))?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        });
    }
    let mut made = Made::default();
    let restored = made.restore(from, data_dir);
    if restored.is_err() {
        made.undo();
    }
    restored
}

/// What a restore has made so far, the newest last.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn restore(&mut self, from: impl Read, data_dir: &Path) -> Result<BackedUp, Error> {
        if !data_dir.exists() {
            self.directory(data_dir)?;
        }
        let store = data_dir.join(RESTORING);
        self.directory(&store)?;
        let mut files = Vec::new();
        let read = skep_store::restore(from, &store, store_options(), |name, bytes| {
            // One that a later version keeps is of no use to this one.
            if let Some(known) = FILES.iter().find(|known| **known == name) {
                files.push((*known, bytes.to_vec()));
            }
            Ok(())
        });
        let read = read.map_err(damaged(data_dir))?;
        for (name, bytes) in files {
            self.file(&data_dir.join(name), &bytes)?;
        }
        // The name makes it a store: until here a crash leaves a directory that no host takes for one.
        fs::rename(&store, data_dir.join(STORE)).map_err(io(&store, "rename"))?;
        fs::File::open(data_dir)
            .and_then(|directory| directory.sync_all())
            .map_err(io(data_dir, "sync"))?;
        Ok(read)
    }

    fn directory(&mut self, path: &Path) -> Result<(), Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(io(path, "make"))?;
        self.0.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let mut file = file.map_err(io(path, "make"))?;
        self.0.push(path.to_owned());
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(io(path, "write"))
    }

    /// The directory was empty, so everything in it is ours to remove.
    fn undo(self) {
        for path in self.0.iter().rev() {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "what a failed restore left could not be removed");
            }
        }
    }
}

fn io<'a>(path: &'a Path, doing: &'static str) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn damaged(path: &Path) -> impl FnOnce(skep_store::Error) -> Error + '_ {
    move |source| Error::Damaged {
        path: path.to_owned(),
        source: source.into(),
    }
}
