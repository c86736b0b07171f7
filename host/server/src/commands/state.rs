//! `skep state`: what the agents of a crew remember, to be read.

use anyhow::Result;
use skep::http::api::state::{Entry, Key, Version};

use super::{Context, session::Session, task::pretty};
use crate::{
    cli::Exit,
    client::escape,
    output::{bytes, time},
};

/// `skep state …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show a value
    Get {
        /// The name of the crew; it need not live any more
        crew: String,
        /// The key
        key: String,
        /// An older one: 64 revisions are kept, for 24 hours
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
    /// List keys
    Ls {
        /// The name of the crew; it need not live any more
        crew: String,
        /// Only those that begin so
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// List the revisions of a key that can be read
    History {
        /// The name of the crew; it need not live any more
        crew: String,
        /// The key
        key: String,
    },
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    let session = Session::open(context, false)?;
    let client = session.client();
    match command {
        Command::Get { crew, key, revision } => {
            let query = revision
                .map(|revision| format!("?revision={revision}"))
                .unwrap_or_default();
            let entry: Entry = session.wait(client.get(&format!("{}{query}", path(crew, Some(key)))))?;
            context.output.one(&entry, || pretty(&entry.value))?;
        }
        Command::Ls { crew, prefix } => {
            let query = format!("{}?prefix={}", path(crew, None), escape(prefix));
            let keys: Vec<Key> = session.wait(client.list(&query))?;
            context
                .output
                .list(&keys, ["key", "revision", "size", "written"], |key| {
                    [
                        key.key.clone(),
                        key.revision.to_string(),
                        bytes(key.bytes),
                        time(key.at),
                    ]
                })?;
        }
        Command::History { crew, key } => {
            let query = format!("{}/history", path(crew, Some(key)));
            let versions: Vec<Version> = session.wait(client.list(&query))?;
            context.output.list(&versions, ["revision", "written", ""], |version| {
                let newest = if version.newest { "newest" } else { "" };
                [version.revision.to_string(), time(version.at), newest.to_owned()]
            })?;
        }
    }
    Ok(Exit::Done)
}

fn path(crew: &str, key: Option<&str>) -> String {
    let key = key.map(|key| format!("/{}", escape(key))).unwrap_or_default();
    format!("/v1/state/{}{key}", escape(crew))
}
