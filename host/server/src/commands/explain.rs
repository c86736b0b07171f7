//! `skep explain`: what a reason code means and what to do.

use anyhow::Result;
use serde::Serialize;
use skep_rules::reason::Reason;

use super::Context;
use crate::{cli::Exit, failure::Failure};

/// Arguments of `skep explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The code; all of them without one
    code: Option<String>,
}

#[derive(Serialize)]
struct Explained {
    code: Reason,
    means: &'static str,
    next: &'static str,
}

impl From<Reason> for Explained {
    fn from(code: Reason) -> Self {
        Explained {
            code,
            means: code.means(),
            next: code.next(),
        }
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    match &args.code {
        Some(text) => {
            let reason: Reason = text.parse().map_err(|error: skep_rules::reason::Unknown| {
                Failure::new(Exit::NotFound, error.to_string()).next("`skep explain` lists all of them")
            })?;
            let told = Explained::from(reason);
            context
                .output
                .one(&told, || format!("{reason}: {}\n{}\n", told.means, told.next))?;
        }
        None => {
            let all: Vec<Explained> = Reason::ALL.iter().copied().map(Explained::from).collect();
            let row = |told: &Explained| [told.code.to_string(), told.means.to_owned()];
            context.output.list(&all, ["code", "means"], row)?;
        }
    }
    Ok(Exit::Done)
}
