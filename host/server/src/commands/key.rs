//! `skep key`: the keys of publishers and operators.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use skep_rules::{
    id::Name,
    key::{KeyId, PublicKey},
};

use super::Context;
use crate::{
    cli::Exit,
    keys::{KeyFile, words},
};

/// What can be done with keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key: NAME.key signs and stays with you, NAME.pub is for everyone
    New(New),
}

/// Arguments of `skep key new`.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// What to call the files; the publisher's name, for example
    name: Name,
    /// Put them there
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    public: PathBuf,
    key: PublicKey,
    id: KeyId,
    words: String,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::New(args) => new(context, args),
    }
}

fn new(context: &Context, args: &New) -> Result<Exit> {
    let made = KeyFile::create(&args.dir, &args.name)?;
    let key = made.key.public();
    let made = Made {
        public: made.path.with_extension("pub"),
        file: made.path,
        key,
        id: key.id(),
        words: words(key.id()),
    };
    context.output.one(&made, || {
        format!(
            "secret   {} (keep it to yourself, and a copy of it elsewhere)\npublic   {}\nkey      {}\nid       {}\nwords    {}\n",
            made.file.display(),
            made.public.display(),
            made.key,
            made.id,
            made.words
        )
    })?;
    Ok(Exit::Done)
}
