//! What `skep doctor` says of a data directory: whose it is, who has it, how old it is, and what in it is damaged.

use std::path::Path;

use skep::{examine, host};
use skep_store::Error;

use super::{Check, existing};
use crate::output::grouped;

const ANOTHER: &str = "choose another with --data-dir";
const RESTORE: &str = "keep a copy of the directory as it is, then `skep restore FILE --data-dir NEW`";

/// The directory and its store; every byte of it where `deep` says so.
pub(super) fn checks(dir: &Path, deep: bool) -> Vec<Check> {
    let directory = directory(dir);
    // A store is opened as a host would open it: not in a directory that is not a host's.
    if directory.failed() {
        return vec![directory];
    }
    let mut checks = vec![directory];
    match examine::open(dir, deep) {
        Ok(None) => checks.push(Check::ok(STORE, "nothing yet")),
        Err(error) => checks.push(refused(dir, &error, deep)),
        Ok(Some(store)) => {
            let entries = grouped(store.durable().0);
            drop(store);
            let pages = if deep {
                "every page is as it was written"
            } else {
                "sound"
            };
            checks.push(Check::ok(STORE, format!("{pages}, {entries} entries")));
            if deep {
                checks.extend(everything(dir));
            }
        }
    }
    checks
}

const STORE: &str = "store";

fn directory(dir: &Path) -> Check {
    let what = "data directory";
    let shown = dir.display();
    if dir.exists() && !dir.is_dir() {
        return Check::fail(what, format!("{shown} is not a directory"), ANOTHER);
    }
    if let Err(error) = examine::belongings(dir) {
        let next = match &error {
            host::Error::Foreign { found, .. } if found == skep::backup::UNFINISHED => {
                "a restore was cut short: remove the directory and restore once more".to_owned()
            }
            host::Error::Foreign { found, .. } => format!("move `{found}` elsewhere, or {ANOTHER}"),
            _ => format!("make it yours, or {ANOTHER}"),
        };
        return Check::fail(what, examine::causes(&error), next);
    }
    let there = existing(dir);
    match tempfile::tempfile_in(there) {
        Ok(_) if there == dir => Check::ok(what, format!("{shown} is writable")),
        Ok(_) => Check::ok(what, format!("{shown} is not there yet; `skep up` makes it")),
        Err(error) => {
            let found = format!("{} is not writable: {error}", there.display());
            Check::fail(what, found, format!("make it yours, or {ANOTHER}"))
        }
    }
}

/// Why a store cannot be opened, and what to do about it.
fn refused(dir: &Path, error: &Error, deep: bool) -> Check {
    let found = examine::causes(error);
    match error {
        Error::Locked { .. } => match (examine::holder(dir), deep) {
            (Some(holder), false) => Check::ok(STORE, format!("a running host has it{holder}")),
            (Some(holder), true) => Check::warn(
                STORE,
                format!("a running host has it{holder}, so it cannot be read here"),
                "`skep backup FILE` reads everything while the host runs; or stop the host first",
            ),
            (None, _) => Check::warn(
                STORE,
                "a process has it that does not say where it is: a host that is starting, or a command",
                format!(
                    "try again; `fuser {}` names the process",
                    dir.join("store/lock").display()
                ),
            ),
        },
        Error::Foreign { .. } => Check::fail(STORE, found, format!("move `store` elsewhere, or {ANOTHER}")),
        Error::Format { .. } => Check::fail(
            STORE,
            found,
            "use the release that wrote it, or `skep restore` a backup that this one made",
        ),
        Error::Io { .. } => Check::fail(
            STORE,
            found,
            format!("see that the disk works and the files are yours, or {ANOTHER}"),
        ),
        _ => Check::fail(STORE, found, RESTORE),
    }
}

fn everything(dir: &Path) -> Vec<Check> {
    let findings = match examine::everything(dir) {
        Ok(findings) => findings,
        Err(error) => return vec![refused(dir, &error, true)],
    };
    let check = |finding: examine::Finding| match finding.found {
        Ok(found) => Check::ok(finding.what, found),
        Err(found) => Check::fail(finding.what, found, RESTORE),
    };
    findings.into_iter().map(check).collect()
}
