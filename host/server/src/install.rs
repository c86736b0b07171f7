//! How an uploaded file becomes an installed plugin, in this order: lengths, envelope and signature, digest, trust, and only then is anything
//! of the file read: manifest and shape, the interfaces against what was signed, the ceiling, what a person has agreed to, compilation, the
//! file itself, the record. A step that refuses leaves nothing behind, and what a crash leaves behind is gone at the next start.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

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
        None => return Err(Rejection::unsigned().into()),
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
        let mut pending = place.alone();
        place.intend(&mut pending, digest)?;
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
                    already,
                    position: decided.position,
                })
            }
            Err(error) => {
                place.end(&mut pending, driver, digest)?;
                Err(error)
            }
        }
    }
}

/// An installation that is decided.
#[derive(Debug)]
pub(crate) struct Installed {
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
    alone: Mutex<Pending>,
}

/// How many operations have marked a file and are not settled. Its mark and its bytes are the last one's to remove: only then is everything
/// durable that was decided about it.
type Pending = BTreeMap<Digest, usize>;

impl Place {
    /// In a data directory.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Place {
            marks: data_dir.join(data_dir::INSTALLING),
            cache: data_dir.join(data_dir::CACHE),
            alone: Mutex::default(),
        }
    }

    /// Marks a file whose record comes or goes, durably: a crash before both are done is noticed at the next start.
    fn intend(&self, pending: &mut Pending, digest: Digest) -> Result<(), Error> {
        data_dir::mark(&self.marks, &digest.to_string()).map_err(Error::File)?;
        *pending.entry(digest).or_default() += 1;
        Ok(())
    }

    fn alone(&self) -> MutexGuard<'_, Pending> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unmark(&self, digest: Digest) {
        // A mark that stays is looked at again at the next start, nothing worse.
        drop(std::fs::remove_file(self.marks.join(digest.to_string())));
    }

    /// Removes the record of a plugin. Its file goes with [`Place::settle`] when that is durable.
    ///
    /// # Errors
    /// When the rules refuse.
    pub(crate) fn remove(&self, driver: &Driver, digest: Digest) -> Result<Position, Error> {
        let mut pending = self.alone();
        self.intend(&mut pending, digest)?;
        let decided = driver.decide(Vec::new(), |_, _, _| {
            Ok(Command::RemovePlugin {
                digest,
                by: ADMIN.to_owned(),
            })
        });
        if decided.is_err() {
            self.end(&mut pending, driver, digest)?;
        }
        Ok(decided?.position)
    }

    /// Ends an operation whose decision is durable. The last one about a file takes its mark away, and the file and its code where it has no
    /// record. Waits for the disk.
    ///
    /// # Errors
    /// When the store or the disk fails; the mark stays then.
    pub(crate) fn settle(&self, driver: &Driver, digest: Digest) -> Result<(), Error> {
        self.end(&mut self.alone(), driver, digest)
    }

    fn end(&self, pending: &mut Pending, driver: &Driver, digest: Digest) -> Result<(), Error> {
        let others = pending.remove(&digest).unwrap_or_default().saturating_sub(1);
        if others > 0 {
            pending.insert(digest, others);
            return Ok(());
        }
        let (installed, _) = driver.read(|state| state.plugin(digest).is_some())?;
        if !installed {
            self.uncache(|name| name.starts_with(&digest.to_string()))
                .map_err(Error::File)?;
            driver.remove_blob(digest)?;
        }
        self.unmark(digest);
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
            self.unmark(digest);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Host, Options};

    /// An upload of the bundled echo, vetted by a host that takes what nobody signed.
    fn vetted(driver: &Driver) -> Vetted {
        let echo = skep_bundled::get("echo").unwrap();
        let manifest = skep_rules::manifest::Manifest::parse(echo.manifest).unwrap();
        let upload = Upload {
            component: skep_runtime::plugin::embed(echo.component, &manifest).unwrap(),
            ..Upload::default()
        };
        vet(driver, upload, Agreed::Said).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_mark_stays_until_the_last_operation_on_its_file_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dev: true,
            work: false,
            ..Options::new(dir.path().join("data"))
        };
        let host = Host::start(options).await.unwrap();
        let (driver, place) = (&host.shared.driver, &host.shared.place);
        let first = vetted(driver);
        let digest = first.plugin.digest;
        let there = || {
            let marked = place.marks.join(digest.to_string()).exists();
            (marked, driver.store.blobs().read(blob(digest), 0, 1).is_ok())
        };

        first.install(driver, place).unwrap();
        place.remove(driver, digest).unwrap();
        // Who installed it wakes while the removal is on its way to the disk.
        place.settle(driver, digest).unwrap();
        assert_eq!(there(), (true, true));
        place.settle(driver, digest).unwrap();
        assert_eq!(there(), (false, false));

        vetted(driver).install(driver, place).unwrap();
        place.remove(driver, digest).unwrap();
        vetted(driver).install(driver, place).unwrap();
        place.settle(driver, digest).unwrap();
        // Neither may a removal that is refused take the mark of those that are under way.
        place.remove(driver, digest).unwrap();
        place.remove(driver, digest).unwrap_err();
        assert_eq!(there(), (true, true));
        place.settle(driver, digest).unwrap();
        place.settle(driver, digest).unwrap();
        assert_eq!(there(), (true, true));
        place.settle(driver, digest).unwrap();
        assert_eq!(there(), (false, false));
        host.stop().await.unwrap();
    }
}
