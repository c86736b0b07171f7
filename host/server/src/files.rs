//! Reading files that may be anything, and writing files whole or not at all.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::{cli::Exit, failure::Failure};

/// The bytes of a file, at most one more than `most`: so what is too long shows as such, and is not read whole.
///
/// # Errors
/// [`Exit::NotFound`] when it is not there.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_from(open(path)?, path, most)
}

/// Opens a file to be read.
///
/// # Errors
/// [`Exit::NotFound`] when it is not there.
pub(crate) fn open(path: &Path) -> Result<fs::File> {
    fs::File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{} is not there", path.display())).into(),
        _ => anyhow::Error::from(error).context(format!("cannot read {}", path.display())),
    })
}

/// The rest of [`read`], of a file that is open.
pub(crate) fn read_from(file: fs::File, path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// Makes a file with these bytes, durably; one that is there already stays as it is.
///
/// # Errors
/// [`Exit::Conflict`] when it is there already.
pub(crate) fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(Exit::Conflict, format!("{} is there already", path.display()))
            .next("choose another name; Skep never writes over a key")
            .into(),
        _ => anyhow::Error::from(error).context(format!("cannot write {}", path.display())),
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // A name that a crash takes back would take the key with it.
    let written = written.and_then(|()| fs::File::open(folder(path))?.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Puts bytes in place of a file. After a crash the file is the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder(path);
    let put = || {
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}

/// The folder that a file lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
