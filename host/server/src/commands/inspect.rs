//! `skep inspect`: what a component can do and what it may reach. Reads the file; runs nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;
use skep_rules::limits::MAX_COMPONENT_BYTES;
use skep_runtime::plugin;

use super::{Context, sheet::Sheet, verify::Signer};
use crate::{cli::Exit, failure::Failure, files};

/// Arguments of `skep inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file
    component: PathBuf,
    #[command(flatten)]
    signer: Signer,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let bytes = read_component(&args.component)?;
    let scan = plugin::scan(&bytes).map_err(|refused| refuse(&args.component, &refused))?;
    let state = args.signer.explain(&args.component, &bytes)?.state();
    let sheet = Sheet::of(&scan).signed(state.to_string());
    context.output.one(&sheet, || sheet.to_text())?;
    Ok(Exit::Done)
}

/// The bytes of a component file, without reading more of it than a component may have.
pub(crate) fn read_component(path: &Path) -> Result<Vec<u8>> {
    files::read(path, MAX_COMPONENT_BYTES)
}

/// A refusal of the runtime, with the file that it is about.
pub(crate) fn refuse(path: &Path, refused: &plugin::Refused) -> Failure {
    Failure::of(refused.reason, refused.message.clone()).at(path, "", None)
}
