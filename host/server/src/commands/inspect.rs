//! `skep inspect`: what a component can do and what it may reach. Reads the file; runs nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use skep_rules::limits::MAX_COMPONENT_BYTES;
use skep_runtime::plugin;

use super::{Context, sheet::Sheet};
use crate::{cli::Exit, failure::Failure};

/// Arguments of `skep inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file
    component: PathBuf,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let bytes = read_component(&args.component)?;
    let scan = plugin::scan(&bytes).map_err(|refused| refuse(&args.component, &refused))?;
    let sheet = Sheet::of(&scan);
    context.output.one(&sheet, || sheet.to_text())?;
    Ok(Exit::Done)
}

/// The bytes of a component file, without reading more of it than a component may have.
pub(crate) fn read_component(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;

    let name = || format!("cannot read {}", path.display());
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::Error::from(Failure::new(Exit::NotFound, format!("{} is not there", path.display())))
        }
        _ => anyhow::Error::from(error).context(name()),
    };
    let file = std::fs::File::open(path).map_err(missing)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that what is too long is refused as such.
    file.take(MAX_COMPONENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(name)?;
    Ok(bytes)
}

/// A refusal of the runtime, with the file that it is about.
pub(crate) fn refuse(path: &Path, refused: &plugin::Refused) -> Failure {
    Failure::of(refused.reason, refused.message.clone()).at(path, "", None)
}
