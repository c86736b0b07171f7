//! How an uploaded file becomes an installed plugin, in this order: lengths, envelope and signature, digest, trust, and only then is anything
//! of the file read: manifest and shape, the interfaces against what was signed, the ceiling, what a person has agreed to, compilation, the
//! file itself, the record. A step that refuses leaves nothing behind, and what a crash leaves behind is gone at the next start.

use std::path::{Path, PathBuf};

use skep_rules::{
    command::{Command, Consent},
    decide::Reply,
    grant::Refused,
    id::Digest,
    key::PublicKey,
    plugin::Plugin,
    quantity::{Size, Time},
    reason::Reason,
    rejection::Rejection,
    state::State,
    trust::Signed,
};
use skep_runtime::signature;
use skep_store::{Position, Store};

use crate::{
    data_dir,
    driver::{ADMIN, Driver, Error},
    perform::blob,
};

/// What was uploaded.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// The file.
    pub(crate) component: Vec<u8>,
    /// Its envelope; only a host in dev mode does without.
    pub(crate) signature: Option<Vec<u8>>,
    /// What a person has agreed to.
    pub(crate) consent: Consent,
}

/// An upload of which everything is known but whether it compiles.
#[derive(Debug)]
pub(crate) struct Vetted {
    /// As it would be remembered; without `signed`, which the decision adds.
    pub(crate) plugin: Plugin,
    /// Who signed it.
    pub(crate) signed: Option<Signed>,
    component: Vec<u8>,
    consent: Consent,
}

/// How far the checks go that a person can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// As far as the upload says.
    Said,
    /// Everything, because somebody only wants to know what would be asked.
    All,
}

/// Checks an upload up to its compilation. Computes and waits for the lock, so call it where waiting is allowed.
///
/// # Errors
/// The first check that refuses.
pub(crate) fn vet(driver: &Driver, upload: Upload, agreed: Agreed) -> Result<Vetted, Error> {
    let Upload {
        component,
        signature,
        consent,
    } = upload;
    let now = driver.clock.now();
    let signed = match &signature {
        Some(envelope) => Some(verified(driver, envelope, &component, &consent, now)?),
        None if driver.unsigned => None,
        None => {
            let message = "the plugin comes without a signature; sign it with `skep sign` and send the envelope along";
            return Err(Rejection::new(Reason::SignatureMissing, message).into());
        }
    };
    let read = skep_runtime::plugin::read(&component).map_err(Rejection::from)?;
    if let Some(signed) = &signed {
        signature::interfaces(&signed.release, &read).map_err(Rejection::from)?;
    }
    let plugin = Plugin {
        digest: read.digest,
        manifest: read.manifest,
        exports: read.exports,
        imports: read.imports,
        size: Size(read.size),
        installed_at: Time(0),
        revision: 0,
        signed: None,
    };
    let mut vetted = Vetted {
        plugin,
        signed,
        component,
        consent,
    };
    let (admitted, _) = driver.read(|state| vetted.admit(state, now, agreed))?;
    admitted?;
    Ok(vetted)
}

/// Whose signatures hold over the file, when they are trusted with such a release.
fn verified(driver: &Driver, envelope: &[u8], component: &[u8], consent: &Consent, now: Time) -> Result<Signed, Error> {
    let (keys, _) = driver.read(|state| state.trust().keys())?;
    let signed = signature::release(envelope, component, keys).map_err(|refused| foreign(driver, refused))?;
    let (trusted, _) = driver.read(|state| match known(state, signed.release.component.sha256) {
        true => Ok(()),
        false => state.trust().may_install(now, &signed, consent.downgrade.is_some()),
    })?;
    trusted?;
    Ok(signed)
}

/// A signature that no key of this host explains; where there are no keys at all, that is what to say.
fn foreign(driver: &Driver, refused: Refused) -> Rejection {
    let bare = driver.read(|state| state.trust().keys().is_empty());
    match bare {
        Ok((true, _)) if refused.reason == Reason::SignerUntrusted => Rejection::new(
            refused.reason,
            format!("{}; this host trusts no key yet", refused.message),
        ),
        _ => refused.into(),
    }
}

/// Whether a file is installed as a signed one: then nothing is asked again.
fn known(state: &State, digest: Digest) -> bool {
    state.plugin(digest).is_some_and(|plugin| plugin.signed.is_some())
}

impl Vetted {
    /// The rules for a signed plugin, on which the decision has the last word.
    fn admit(&mut self, state: &State, now: Time, agreed: Agreed) -> Result<(), Rejection> {
        let Some(signed) = self.signed.as_ref().filter(|_| !known(state, self.plugin.digest)) else {
            return Ok(());
        };
        let everything = || Consent {
            publisher: Some(signed.release.plugin.publisher().to_owned()),
            widening: state
                .newest(&self.plugin)
                .map(|before| (before.digest, self.plugin.digest)),
            downgrade: self.consent.downgrade.clone(),
        };
        let consent = match agreed {
            Agreed::Said => &self.consent,
            Agreed::All => &everything(),
        };
        self.plugin.signed = Some(state.admit(now, &self.plugin, signed, consent)?);
        Ok(())
    }

    /// The file, for the compiler.
    pub(crate) fn component(&self) -> Vec<u8> {
        self.component.clone()
    }

    /// Keeps the file and then names it: a record never points at bytes that are not there. Waits for the disk.
    ///
    /// # Errors
    /// When the rules refuse after all, or the store fails; the file is gone then.
    pub(crate) fn install(self, driver: &Driver, place: &Place) -> Result<Installed, Error> {
        let digest = self.plugin.digest;
        // One at a time: what a refused installation clears away must not be another's.
        let _alone = place.alone.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        place.intend(digest)?;
        let decided = driver
            .store
            .blobs()
            .put(&self.component)
            .map_err(Error::from)
            .and_then(|_| {
                driver.accept(|_, _, _| {
                    Ok(Command::InstallPlugin {
                        plugin: self.plugin,
                        by: ADMIN.to_owned(),
                        signed: self.signed,
                        consent: self.consent,
                    })
                })
            });
        match decided {
            Ok(decided) => {
                let already = matches!(decided.reply, Reply::Installed { already: true, .. });
                Ok(Installed {
                    digest,
                    already,
                    position: decided.position,
                })
            }
            Err(error) => {
                place.clear(driver, digest)?;
                Err(error)
            }
        }
    }
}

/// An installation that is decided.
#[derive(Debug)]
pub(crate) struct Installed {
    /// The file.
    pub(crate) digest: Digest,
    /// It was there before.
    pub(crate) already: bool,
    /// Nobody may be told before this is durable.
    pub(crate) position: Position,
}

/// Where the files of plugins lie besides the store: marks of what is being installed or removed, and compiled code.
#[derive(Debug)]
pub(crate) struct Place {
    marks: PathBuf,
    cache: PathBuf,
    /// Held while a file and its record come or go. Never held across a wait for a client.
    alone: std::sync::Mutex<()>,
}

impl Place {
    /// In a data directory.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Place {
            marks: data_dir.join(data_dir::INSTALLING),
            cache: data_dir.join(data_dir::CACHE),
            alone: std::sync::Mutex::default(),
        }
    }

    /// Marks a file whose record comes or goes, durably: a crash before both are done is noticed at the next start.
    fn intend(&self, digest: Digest) -> Result<(), Error> {
        data_dir::mark(&self.marks, &digest.to_string()).map_err(Error::File)
    }

    /// Both are done.
    pub(crate) fn settle(&self, digest: Digest) {
        // A mark that stays is looked at again at the next start, nothing worse.
        drop(std::fs::remove_file(self.marks.join(digest.to_string())));
    }

    /// Removes the record of a plugin. Its file goes with [`Place::clear`] when that is durable.
    ///
    /// # Errors
    /// When the rules refuse.
    pub(crate) fn remove(&self, driver: &Driver, digest: Digest) -> Result<Position, Error> {
        let _alone = self.alone.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.intend(digest)?;
        let decided = driver.decide(Vec::new(), |_, _, _| {
            Ok(Command::RemovePlugin {
                digest,
                by: ADMIN.to_owned(),
            })
        });
        if decided.is_err() {
            self.settle(digest);
        }
        Ok(decided?.position)
    }

    /// Clears away the file and the code of a plugin that has no record.
    ///
    /// # Errors
    /// When the store or the disk fails; the mark stays then.
    pub(crate) fn clear_alone(&self, driver: &Driver, digest: Digest) -> Result<(), Error> {
        let _alone = self.alone.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.clear(driver, digest)
    }

    fn clear(&self, driver: &Driver, digest: Digest) -> Result<(), Error> {
        let (installed, _) = driver.read(|state| state.plugin(digest).is_some())?;
        if !installed {
            self.uncache(|name| name.starts_with(&digest.to_string()))
                .map_err(Error::File)?;
            if !driver.is_artifact(digest)? {
                driver.store.blobs().remove(blob(digest))?;
            }
        }
        self.settle(digest);
        Ok(())
    }

    /// Clears away what a crash has left: files that were being installed or removed and have no record, and compiled code of what is not
    /// installed. Before the host serves anybody.
    ///
    /// # Errors
    /// When the store or the disk fails.
    pub(crate) fn sweep(&self, state: &State, store: &Store) -> Result<(), Error> {
        for name in data_dir::names(&self.marks).map_err(Error::File)? {
            let Ok(digest) = name.parse::<Digest>() else { continue };
            if state.plugin(digest).is_none() && !crate::driver::is_artifact(store, digest)? {
                tracing::info!(%digest, "a file without a record is removed: its installation or removal was cut short");
                store.blobs().remove(blob(digest))?;
            }
            self.settle(digest);
        }
        self.uncache(|name| {
            let digest = name.get(..64).and_then(|digest| digest.parse::<Digest>().ok());
            digest.is_none_or(|digest| state.plugin(digest).is_none())
        })
        .map_err(Error::File)
    }

    fn uncache(&self, which: impl Fn(&str) -> bool) -> std::io::Result<()> {
        let names = data_dir::names(&self.cache)?;
        for name in names.iter().filter(|name| which(name)) {
            std::fs::remove_file(self.cache.join(name))?;
        }
        Ok(())
    }
}

/// Puts a refusal on record, where it is one: a question to a person is none, nor is a request that makes no sense.
pub(crate) fn note(driver: &Driver, what: &str, error: &Error) {
    let Error::Rejected(rejection) = error else { return };
    if matches!(
        rejection.reason,
        Reason::FirstContact | Reason::ApprovalRequired | Reason::Overloaded | Reason::InvalidInput | Reason::NotFound
    ) {
        return;
    }
    let noted = driver.decide(Vec::new(), |_, _, _| {
        Ok(Command::NoteRefusal {
            reason: rejection.reason,
            detail: format!("{what}: {}", rejection.message),
            by: ADMIN.to_owned(),
        })
    });
    if let Err(error) = noted {
        tracing::warn!(%error, "a refusal could not be put on record");
    }
}

/// The public keys that a signed document of trust may be verified with.
pub(crate) fn keys(driver: &Driver) -> Result<std::collections::BTreeSet<PublicKey>, Error> {
    Ok(driver.read(|state| state.trust().keys())?.0)
}
