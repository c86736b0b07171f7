//! Key files of publishers and operators: `NAME.key` (PKCS#8 in PEM, for its owner's eyes only), `NAME.pub` (SPKI in PEM) and
//! `NAME.releases.json`, the ledger of what the key has signed. The formats are those that OpenSSL reads, so that others can judge.

use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use skep::clock;
use skep_rules::{
    grant::Refused,
    id::{Digest, Name, PluginName},
    key::PublicKey,
    limits::{MAX_KEY_FILE_BYTES, MAX_LEDGER_BYTES},
    reason::Reason,
};
use skep_runtime::signature::{self, SecretKey};

use crate::{cli::Exit, failure::Failure, files};

/// A key that signs, and where it lies.
#[derive(Debug)]
pub(crate) struct KeyFile {
    pub(crate) path: PathBuf,
    pub(crate) key: SecretKey,
}

impl KeyFile {
    /// Makes a key and writes it as `NAME.key` and `NAME.pub`.
    ///
    /// # Errors
    /// When one of the files is there already: nothing is written over.
    pub(crate) fn create(dir: &Path, name: &Name) -> Result<Self> {
        let path = dir.join(format!("{name}.key"));
        if !dir.is_dir() {
            let message = format!("there is no directory {}", dir.display());
            return Err(Failure::new(Exit::NotFound, message).into());
        }
        let key = SecretKey::from_random(&clock::random()?);
        files::create(&path, 0o600, key.to_pem().as_ref().as_bytes())?;
        let public = signature::to_pem(key.public()).map_err(|refused| refuse(&path, &refused))?;
        if let Err(error) = files::create(&path.with_extension("pub"), 0o644, public.as_bytes()) {
            // A key without its public half is of no use, and it is only just made.
            std::fs::remove_file(&path).context("the key that was begun cannot be removed")?;
            return Err(error);
        }
        Ok(KeyFile { path, key })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When it is not there, others may read it, or it is no Ed25519 key in PKCS#8.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = files::open(path)?;
        let mode = file
            .metadata()
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mode = mode.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let message = format!("others can read this key (mode {mode:04o})");
            let failure = Failure::of(Reason::InvalidInput, message).at(path, "", None);
            return Err(failure
                .next(format!(
                    "`chmod 600 {}`, and make a new key if others were here",
                    path.display()
                ))
                .into());
        }
        let text = text(files::read_from(file, path, MAX_KEY_FILE_BYTES)?, path)?;
        let key = SecretKey::from_pem(&text).map_err(|refused| refuse(path, &refused))?;
        Ok(KeyFile {
            path: path.to_owned(),
            key,
        })
    }

    /// Where its ledger lies.
    fn ledger(&self) -> PathBuf {
        self.path.with_extension("releases.json")
    }
}

/// Keeps others from signing with these keys until the files are dropped: two that read a ledger at once would give away one number twice.
/// Waits for them.
///
/// # Errors
/// When a key cannot be opened or locked.
pub(crate) fn lock(keys: &[KeyFile]) -> Result<Vec<std::fs::File>> {
    let mut files = BTreeMap::new();
    for key in keys {
        let file = files::open(&key.path)?;
        let about = file.metadata()?;
        // In one order for everybody, and each only once, under whatever names it was given: nobody waits for themselves.
        files.insert((about.dev(), about.ino()), (file, &key.path));
    }
    let lock = |(file, path): (std::fs::File, &PathBuf)| {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    };
    files.into_values().map(lock).collect()
}

/// Reads a public key file.
///
/// # Errors
/// When it is not there, no Ed25519 key in SPKI, or a key that proves nothing.
pub(crate) fn read_public(path: &Path) -> Result<PublicKey> {
    let text = text(files::read(path, MAX_KEY_FILE_BYTES)?, path)?;
    Ok(signature::from_pem(&text).map_err(|refused| refuse(path, &refused))?)
}

/// What a key has signed, by plugin: the newest release of each. It keeps a publisher from signing two releases under one number.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ledger(BTreeMap<PluginName, Last>);

/// The newest release of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Last {
    /// Its number.
    pub(crate) release_seq: u64,
    /// SHA-256 of its statement.
    pub(crate) statement: Digest,
}

impl Ledger {
    /// The ledger beside a key; empty where there is none yet.
    ///
    /// # Errors
    /// When it does not parse: the numbers in it are not to be guessed.
    pub(crate) fn read(key: &KeyFile) -> Result<Self> {
        let path = key.ledger();
        if !path.exists() {
            return Ok(Ledger::default());
        }
        let bad = |message: String| {
            let failure = Failure::of(Reason::InvalidInput, message).at(&path, "", None);
            failure.next("bring the file back from a copy, or remove it and give the next number with `--seq`")
        };
        let bytes = files::read(&path, MAX_LEDGER_BYTES)?;
        if bytes.len() as u64 > MAX_LEDGER_BYTES {
            return Err(bad(format!("a ledger has at most {MAX_LEDGER_BYTES} bytes")).into());
        }
        Ok(serde_json::from_slice(&bytes).map_err(|error| bad(format!("not a ledger of releases: {error}")))?)
    }

    /// The newest release of a plugin that the key has signed.
    pub(crate) fn last(&self, plugin: &PluginName) -> Option<Last> {
        self.0.get(plugin).copied()
    }

    /// Remembers a release, on disk, before anyone can have its envelope.
    ///
    /// # Errors
    /// When the file cannot be written or would grow beyond [`MAX_LEDGER_BYTES`].
    pub(crate) fn note(mut self, key: &KeyFile, plugin: &PluginName, last: Last) -> Result<()> {
        self.0.insert(plugin.clone(), last);
        let mut text = serde_json::to_vec_pretty(&self)?;
        text.push(b'\n');
        if text.len() as u64 > MAX_LEDGER_BYTES {
            let failure = Failure::of(
                Reason::InvalidInput,
                format!("a ledger has at most {MAX_LEDGER_BYTES} bytes"),
            );
            let failure = failure.at(&key.ledger(), "", None);
            return Err(failure.next("use another key for some of the plugins").into());
        }
        files::replace(&key.ledger(), &text)
    }
}

/// The text of a key file.
fn text(bytes: Vec<u8>, path: &Path) -> Result<String> {
    let refused = |message: &str| Failure::of(Reason::InvalidInput, message).at(path, "", None);
    if bytes.len() as u64 > MAX_KEY_FILE_BYTES {
        return Err(refused("the file is too long for a key").into());
    }
    Ok(String::from_utf8(bytes).map_err(|_| refused("the file is not PEM, which is text"))?)
}

fn refuse(path: &Path, refused: &Refused) -> Failure {
    Failure::of(refused.reason, refused.message.clone()).at(path, "", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_locked_once_under_all_its_names_and_against_others() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFile::create(dir.path(), &"acme".parse().unwrap()).unwrap();
        let other = dir.path().join("other.key");
        std::fs::hard_link(&key.path, &other).unwrap();
        let held = lock(&[KeyFile::read(&key.path).unwrap(), KeyFile::read(&other).unwrap()]).unwrap();
        assert_eq!(held.len(), 1);
        let file = files::open(&key.path).unwrap();
        let try_lock = || rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        assert!(try_lock().is_err());
        drop(held);
        try_lock().unwrap();
    }

    #[test]
    fn a_ledger_remembers_and_does_not_guess() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFile::create(dir.path(), &"acme".parse().unwrap()).unwrap();
        let plugin: PluginName = "acme/worker".parse().unwrap();
        assert_eq!(Ledger::read(&key).unwrap().last(&plugin), None);
        let last = Last {
            release_seq: 7,
            statement: Digest::of(b"x"),
        };
        Ledger::read(&key).unwrap().note(&key, &plugin, last).unwrap();
        assert_eq!(Ledger::read(&key).unwrap().last(&plugin), Some(last));
        std::fs::write(key.ledger(), "{\"acme/worker\":").unwrap();
        let error = Ledger::read(&key).unwrap_err().to_string();
        assert!(error.contains("not a ledger") && error.contains("--seq"), "{error}");
    }
}
