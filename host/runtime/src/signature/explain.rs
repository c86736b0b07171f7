//! Every check of a signed file, one by one, for people: what was looked at, what was found, and where it ended. The same functions that
//! [`release`](super::release) runs, in the same order.

use skep_rules::{
    grant::Refused,
    id::Digest,
    key::{KeyId, PublicKey},
    limits::MAX_ENVELOPE_BYTES,
    quantity::Time,
    reason::Reason,
    release::{PAYLOAD_TYPE, Release},
    trust::Signed,
};

use super::{Envelope, State, digest, interfaces, lengths, signers};
use crate::plugin::{self, Plugin, refuse};

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, one word.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What was found.
    Passed(String),
    /// Why not.
    Failed(Refused),
    /// An earlier one failed.
    Skipped,
}

/// All checks of a file.
#[derive(Debug, Clone)]
pub struct Explained {
    /// In their order; all after the first that failed are skipped.
    pub checks: Vec<Check>,
    /// What was signed, when the signature holds and the file is the one that was signed.
    pub signed: Option<Signed>,
}

impl Explained {
    /// The first check that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Refused> {
        self.checks.iter().find_map(|check| match &check.outcome {
            Outcome::Failed(refused) => Some(refused),
            Outcome::Passed(_) | Outcome::Skipped => None,
        })
    }

    /// The state in one word.
    #[must_use]
    pub fn state(&self) -> State {
        self.failure()
            .map_or(State::Signed, |refused| State::of(refused.reason))
    }
}

/// Checks a file against its envelope, or against its absence. `trust` decides whether those who signed may: the rules of a host, or that a
/// person named their keys.
pub fn explain(
    component: &[u8],
    envelope: Option<&[u8]>,
    keys: impl IntoIterator<Item = PublicKey>,
    now: Time,
    trust: impl FnOnce(&Signed) -> Result<(), Refused>,
) -> Explained {
    let mut steps = Steps(Vec::new());
    let fits = steps.step("length", Some(()), |()| {
        let found = format!("{} bytes", component.len());
        lengths(component).map(|()| (envelope, found))
    });
    let envelope = steps.step("envelope", fits, |envelope| {
        let missing = || refuse(Reason::SignatureMissing, "there is no envelope beside the file");
        let envelope = Envelope::parse(envelope.ok_or_else(missing)?, MAX_ENVELOPE_BYTES)?;
        let found = format!(
            "{} signatures, {} bytes signed",
            envelope.key_ids().count(),
            envelope.payload().len()
        );
        Ok((envelope, found))
    });
    let signers = steps.step("signature", envelope.as_ref(), |envelope| {
        let signers = signers(envelope, PAYLOAD_TYPE, keys)?;
        let found = format!("holds: {}", names(&signers));
        Ok((signers, found))
    });
    let signed = steps.step("statement", envelope.zip(signers), |(envelope, signers)| {
        let release = Release::parse(envelope.payload())?;
        let found = format!(
            "{}@{}, release {}",
            release.plugin, release.version, release.release_seq
        );
        let statement = Digest::of(envelope.payload());
        let signed = Signed {
            release,
            statement,
            signers,
        };
        Ok((signed, found))
    });
    let signed = steps.step("digest", signed, |signed| {
        let found = format!("sha256:{}", signed.release.component.sha256);
        digest(&signed.release, component).map(|()| (signed, found))
    });
    let trusted = steps.step("trust", signed.as_ref(), |signed| {
        trust(signed).map(|()| {
            (
                signed,
                format!("{} may sign {}", names(&signed.signers), signed.release.plugin),
            )
        })
    });
    let current = steps.step("time", trusted, |signed| {
        let left = signed.release.expires.since(now).0 / 86_400_000;
        let found = format!("{left} days are left");
        signed.release.current(now).map(|()| (signed, found))
    });
    let read = steps.step("component", current, |signed| {
        let plugin = plugin::read(component)?;
        let found = format!("a plugin with a manifest, {} interfaces imported", plugin.imports.len());
        Ok(((signed, plugin), found))
    });
    steps.step("interfaces", read, |(signed, plugin): (&Signed, Plugin)| {
        interfaces(&signed.release, &plugin).map(|()| ((), "as signed".to_owned()))
    });
    Explained {
        checks: steps.0,
        signed,
    }
}

/// The checks so far.
struct Steps(Vec<Check>);

impl Steps {
    /// Runs a check on what the one before it found; without that it is skipped.
    fn step<A, T>(
        &mut self,
        name: &'static str,
        before: Option<A>,
        check: impl FnOnce(A) -> Result<(T, String), Refused>,
    ) -> Option<T> {
        let (found, outcome) = match before.map(check) {
            Some(Ok((found, text))) => (Some(found), Outcome::Passed(text)),
            Some(Err(refused)) => (None, Outcome::Failed(refused)),
            None => (None, Outcome::Skipped),
        };
        self.0.push(Check { name, outcome });
        found
    }
}

fn names<'a>(keys: impl IntoIterator<Item = &'a KeyId>) -> String {
    let names: Vec<String> = keys.into_iter().map(KeyId::short).collect();
    names.join(", ")
}
