//! `skep restore`: a data directory of its own from a backup.

use std::{io, path::PathBuf};

use anyhow::Result;

use super::{Context, backup::Summary};
use crate::{cli::Exit, failure::Failure, files};

/// Arguments of `skep restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file that `skep backup` made
    file: PathBuf,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let data_dir = context.config()?.config.data_dir;
    let file = files::open(&args.file)?;
    let restored = skep::backup::restore(io::BufReader::with_capacity(1 << 20, file), &data_dir);
    let restored = restored.map_err(|error| {
        let (exit, next) = match &error {
            skep::host::Error::NotEmpty { .. } => (Exit::Conflict, "name a new directory with --data-dir DIR"),
            skep::host::Error::Damaged { .. } => {
                (Exit::Invalid, "restore another backup; nothing was made of this one")
            }
            _ => (
                Exit::Failure,
                "see that the directory can be written and its disk has room",
            ),
        };
        let message = format!("{:#}", anyhow::Error::from(error));
        Failure::new(exit, message).at(&args.file, "", None).next(next)
    })?;
    let summary = Summary::of(&args.file, &restored);
    context.output.one(&summary, || summary.text())?;
    let note = format!(
        "restored into {}; stop the old host for good before `skep up --data-dir {0}`",
        data_dir.display()
    );
    context.output.note(&note);
    Ok(Exit::Done)
}
