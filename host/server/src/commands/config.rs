//! `skep config`: the configuration of a host, with the origin of every value.

use anyhow::Result;
use serde::Serialize;

use super::Context;
use crate::cli::Exit;

/// `skep config …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print every key with its value
    Show {
        /// Say where each value came from
        #[arg(long)]
        origin: bool,
    },
    /// Refuse what a host would refuse to start with
    Validate,
}

#[derive(Serialize)]
struct Valid {
    valid: bool,
    data_dir: String,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    let loaded = context.config()?;
    match command {
        Command::Show { origin } => {
            let entries = loaded.entries();
            let value = |value: &serde_json::Value| match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if *origin {
                let row = |e: &crate::config::Entry| [e.key.clone(), value(&e.value), e.origin.clone()];
                context.output.list(&entries, ["key", "value", "origin"], row)?;
            } else {
                context.output.one(&loaded.config, || {
                    toml::to_string(&loaded.config).expect("a configuration has only texts, numbers and tables")
                })?;
            }
        }
        Command::Validate => {
            let valid = Valid {
                valid: true,
                data_dir: loaded.config.data_dir.display().to_string(),
            };
            context.output.one(&valid, || "the configuration is valid".to_owned())?;
        }
    }
    Ok(Exit::Done)
}
