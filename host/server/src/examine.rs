//! Looks at a data directory without a host: whose it is, who has it, and whether all of it is as it was written.

use std::path::Path;

use skep_store::{Options, Store};

use crate::{
    data_dir,
    driver::ARTIFACTS,
    host::{Error, replay, store_options},
    perform::blob,
};

/// A part of a data directory that was read whole.
#[derive(Debug)]
pub struct Finding {
    /// Which part.
    pub what: &'static str,
    /// How much there is of it, or what is wrong with it, by name.
    pub found: Result<String, String>,
}

/// Whether everything in the directory is a host's; nothing is made or changed, and none there is fine.
///
/// # Errors
/// [`Error::Foreign`] naming something that is not; [`Error::Io`].
pub fn belongings(data_dir: &Path) -> Result<(), Error> {
    if data_dir.is_dir() {
        data_dir::check(data_dir)
    } else {
        Ok(())
    }
}

/// The host that says it has the directory: process and address. It may have been killed since.
#[must_use]
pub fn holder(data_dir: &Path) -> Option<String> {
    data_dir::holder(data_dir)
}

/// Opens the store of a data directory as a host does, every page checked where `deep` says so; `None` where there is none.
///
/// # Errors
/// Those of [`Store::open`].
pub fn open(data_dir: &Path, deep: bool) -> Result<Option<Store>, skep_store::Error> {
    let path = data_dir.join(data_dir::STORE);
    if !path.is_dir() {
        return Ok(None);
    }
    let mut options = store_options();
    if deep {
        options.check_bytes = u64::MAX;
    }
    Store::open(&path, options).map(|(store, _)| Some(store))
}

/// Reads everything of a data directory and rehearses a start. Nothing is changed but what every opening changes.
///
/// # Errors
/// Those of [`Store::open`]: then there is nothing to read.
pub fn everything(data_dir: &Path) -> Result<Vec<Finding>, skep_store::Error> {
    let path = data_dir.join(data_dir::STORE);
    let options = Options {
        check_bytes: u64::MAX,
        ..store_options()
    };
    let (store, recovered) = Store::open(&path, options)?;
    let shard = replay(&recovered).map_err(|error| causes(&*error));
    drop(recovered);
    let named = match &shard {
        Ok(shard) => {
            let plugins = shard.state().plugins().map(|plugin| (plugin.digest, "a plugin"));
            named(&store, plugins.collect())
        }
        Err(_) => Err("which are needed is not known, because the entries cannot be replayed".to_owned()),
    };
    let rows = |count: u64| format!("{count} rows");
    let said = |result: Result<String, skep_store::Error>| result.map_err(|error| causes(&error));
    let journal = store.verify_journal().map(|last| format!("up to entry {}", last.0));
    let finding = |what, found| Finding { what, found };
    Ok(vec![
        finding("journal", said(journal)),
        finding("tables", said(store.verify_tables().map(rows))),
        finding("audit log", said(store.verify_audit().map(|head| rows(head.seq)))),
        finding(
            "blobs",
            said(store.blobs().verify().map(|count| format!("{count} blobs"))),
        ),
        finding("named blobs", named),
        finding(
            "replay",
            shard.map(|shard| format!("{} live tasks", shard.state().live_tasks())),
        ),
    ])
}

/// Whether every blob that something names is there, and how many that are.
fn named(store: &Store, mut named: Vec<(skep_rules::id::Digest, &'static str)>) -> Result<String, String> {
    let failed = |error: skep_store::Error| causes(&error);
    let mut range = skep_store::Range::all();
    loop {
        let rows = store.scan(ARTIFACTS, &range, skep_store::SCAN_ROWS).map_err(failed)?;
        let Some((last, _)) = rows.last() else { break };
        range = skep_store::Range::all().after(last);
        let digests = rows.iter().filter_map(|(key, _)| key.last_chunk::<32>());
        named.extend(digests.map(|digest| (skep_rules::id::Digest::from_bytes(*digest), "an artifact")));
    }
    for (digest, what) in &named {
        store
            .blobs()
            .len(blob(*digest))
            .map_err(|error| format!("{}, which {what} names", causes(&error)))?;
    }
    Ok(format!("{} are there", named.len()))
}

/// An error with its causes, in one line.
#[must_use]
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
