//! `skep backup`: one file with everything that a host remembers. The host makes it where one runs; where none does, its data directory is read.

use std::{
    fs,
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hyper::Method;
use serde::Serialize;
use skep::host::store_options;
use skep_rules::id::Digest;
use skep_store::BackedUp;

use super::{Context, audit};
use crate::{
    cli::Exit,
    failure::Failure,
    files,
    output::{bytes, grouped},
};

/// Arguments of `skep backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to make; it holds secrets and is for its owner's eyes
    file: PathBuf,
}

/// What is in a backup.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    file: String,
    bytes: u64,
    position: u64,
    rows: u64,
    blobs: u64,
    audit_rows: u64,
    audit_chain: Digest,
}

impl Summary {
    pub(crate) fn of(file: &Path, backup: &BackedUp) -> Self {
        Summary {
            file: file.display().to_string(),
            bytes: backup.bytes,
            position: backup.position.0,
            rows: backup.rows,
            blobs: backup.blobs,
            audit_rows: backup.audit.seq,
            audit_chain: Digest::from_bytes(backup.audit.chain),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        format!(
            "{}: {} as of entry {}: {} rows, {} blobs\naudit  {} rows, chain {}\n",
            self.file,
            bytes(self.bytes),
            grouped(self.position),
            grouped(self.rows),
            grouped(self.blobs),
            grouped(self.audit_rows),
            self.audit_chain
        )
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let path = &args.file;
    if path.symlink_metadata().is_ok() {
        return Err(taken(path).into());
    }
    // Beside the file, under another name until it is whole; only its owner may read it.
    let folder = files::folder(path);
    let mut file =
        tempfile::NamedTempFile::new_in(folder).with_context(|| format!("cannot write in {}", folder.display()))?;
    match audit::running(context)? {
        Some(client) => context.wait(client.download(Method::POST, "/v1/backup", |part| {
            file.write_all(part).map_err(cannot(path))
        }))?,
        None => {
            let (store, data_dir) = audit::offline(context)?;
            skep::backup::write(&store, &data_dir, io::BufWriter::new(file.as_file())).map_err(super::up::failed)?;
        }
    }
    file.as_file().sync_all().map_err(cannot(path))?;
    file.rewind().map_err(cannot(path))?;
    // What arrived is read once more: a backup that cannot be restored is found out now, not then.
    let made =
        skep_store::check_backup(io::BufReader::new(file.as_file()), store_options().blob_bytes).map_err(|error| {
            Failure::new(Exit::Failure, format!("the backup did not arrive whole: {error}"))
                .next("try again; the host's log says more")
        })?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => taken(path).into(),
        _ => cannot(path)(error.error),
    })?;
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(cannot(path))?;
    let summary = Summary::of(path, &made);
    context.output.one(&summary, || summary.text())?;
    Ok(Exit::Done)
}

fn taken(path: &Path) -> Failure {
    Failure::new(Exit::Conflict, format!("{} is there already", path.display()))
        .next("choose another name; Skep never writes over a backup")
}

fn cannot(path: &Path) -> impl FnOnce(io::Error) -> anyhow::Error + '_ {
    move |error| anyhow::Error::from(error).context(format!("cannot write {}", path.display()))
}
