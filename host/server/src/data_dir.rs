//! The files of a data directory beside the store: which there may be, secrets that only their owner reads, and where the host says that it
//! runs.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::{clock, host::Error, http::api::host::HostFile};

/// What may lie in a data directory. `host.toml` is the operator's.
pub(crate) const STORE: &str = "store";
pub(crate) const CACHE: &str = "cache";
pub(crate) const WORKSPACES: &str = "workspaces";
pub(crate) const TOKEN: &str = "admin.token";
pub(crate) const CACHE_KEY: &str = "cache.key";
pub(crate) const HOST_FILE: &str = "host.json";
/// One empty file per plugin whose file and record are coming or going.
pub(crate) const INSTALLING: &str = "installing";
/// The operator's configuration.
pub(crate) const CONFIG: &str = "host.toml";
/// A store that is being made of a backup. No host takes a directory that holds one.
pub(crate) const RESTORING: &str = "store.restoring";
/// The key that signs what comes with Skep, when it is installed here.
pub(crate) const BUNDLED_KEY: &str = "bundled.key";
const OURS: &[&str] = &[
    STORE,
    CACHE,
    WORKSPACES,
    INSTALLING,
    BUNDLED_KEY,
    TOKEN,
    CACHE_KEY,
    HOST_FILE,
    "host.json.new",
    CONFIG,
];

/// Makes the directory, or checks that it is one of ours.
pub(crate) fn open(path: &Path) -> Result<(), Error> {
    let io = |doing| {
        move |source| Error::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(io("make the data directory"))?;
    check(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io("close to others"))
}

/// Looks whether everything in the directory is ours.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let name = name.to_string_lossy();
        if !OURS.contains(&name.as_ref()) {
            return Err(Error::Foreign {
                path: path.to_owned(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

/// Who holds the directory, as far as `host.json` tells.
pub(crate) fn holder(data_dir: &Path) -> Option<String> {
    let text = fs::read(data_dir.join(HOST_FILE)).ok()?;
    let file: HostFile = serde_json::from_slice(&text).ok()?;
    Some(format!(" (process {} at {})", file.pid, file.url))
}

/// A secret of 32 random bytes as hexadecimal digits in a file that only its owner reads; made where it is not there.
pub(crate) fn secret(path: &Path) -> Result<String, Error> {
    let io = |doing| {
        move |source| Error::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() == 64 => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io("close to others"))?;
            return Ok(text.trim().to_owned());
        }
        // Cut off by a crash while it was first written: nobody has it yet.
        Ok(_) => fs::remove_file(path).map_err(io("replace"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("read")(error)),
    }
    let bytes: [u8; 32] = clock::random()?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .map_err(io("write"))?;
    Ok(text)
}

/// Leaves an empty file of a name in a directory, durably; makes the directory where it is not there.
pub(crate) fn mark(dir: &Path, name: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join(name))?;
    file.sync_all()?;
    fs::File::open(dir)?.sync_all()
}

/// The names in a directory; none where it is not there.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect()
}

/// Writes `host.json` whole or not at all.
pub(crate) fn sign_on(data_dir: &Path, file: &HostFile) -> Result<(), Error> {
    let path = data_dir.join(HOST_FILE);
    let io = |source| Error::Io {
        doing: "write",
        path: path.clone(),
        source,
    };
    let text = serde_json::to_vec(file).expect("a struct of texts and numbers is JSON");
    let temporary = path.with_extension("json.new");
    fs::write(&temporary, text).map_err(io)?;
    fs::rename(&temporary, &path).map_err(io)
}

/// Removes `host.json` at a clean stop.
pub(crate) fn sign_off(data_dir: &Path) {
    if let Err(error) = fs::remove_file(data_dir.join(HOST_FILE)) {
        tracing::warn!(%error, "host.json could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use skep_rules::reason::Reason;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKEN);
        let made = secret(&path).unwrap();
        assert_eq!((made.len(), secret(&path).unwrap()), (64, made.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "cut").unwrap();
        assert_ne!(secret(&path).unwrap(), made);
    }

    #[test]
    fn a_foreign_directory_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = open(dir.path()).unwrap_err();
        assert_eq!(error.reason(), Reason::DataDirectory);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
