//! `skep new`: a plugin's sources in a new directory, with the SDK and the contract beside them, so that no registry has to know Skep.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use include_dir::{Dir, DirEntry, include_dir};
use serde::Serialize;
use skep_rules::id::Name;

use super::Context;
use crate::{cli::Exit, failure::Failure};

static TEMPLATE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../sdk/template");
/// The template holds the manifest of the SDK; its sources and the contract are taken from where they live.
static SDK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../sdk/rust/src");
static CONTRACT: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../wit");
/// The versions that Skep itself was built with, so that a plugin builds without a network where they are at hand.
pub(crate) const LOCK: &str = include_str!("../../../../Cargo.lock");

/// Arguments of `skep new`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `name` or `publisher/name`; the directory is called like the name
    name: String,
    /// Put it there instead
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

#[derive(Serialize)]
struct Made {
    plugin: String,
    path: PathBuf,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let (publisher, name) = args.name.split_once('/').unwrap_or(("local", &args.name));
    check(publisher, name)?;
    let root = args.path.clone().unwrap_or_else(|| PathBuf::from(name));
    refuse_used(&root)?;

    let fill = |text: &str| text.replace("{{name}}", name).replace("{{publisher}}", publisher);
    write(&TEMPLATE, &root, &fill)?;
    let vendored = root.join("vendor/skep-sdk");
    write(&SDK, &vendored.join("src"), &str::to_owned)?;
    write(&CONTRACT, &vendored.join("wit"), &str::to_owned)?;
    put(&root.join("Cargo.lock"), LOCK)?;

    let made = Made {
        plugin: format!("{publisher}/{name}"),
        path: root,
    };
    context.output.one(&made, || {
        let path = made.path.display();
        format!(
            "made {} in {path}\n\n  cd {path}\n  skep build\n  skep inspect {name}.wasm\n",
            made.plugin
        )
    })?;
    Ok(Exit::Done)
}

/// The name of a plugin that is also one of a Rust package.
fn check(publisher: &str, name: &str) -> Result<(), Failure> {
    let package = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if package && name.parse::<Name>().is_ok() && publisher.parse::<Name>().is_ok() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "`{publisher}/{name}` cannot be the name of a plugin and of its package"
    ))
    .next("use letters `a-z`, digits, `-` and `_`, beginning with a letter: skep new hello"))
}

fn refuse_used(root: &Path) -> Result<()> {
    match fs::read_dir(root).map(|entries| entries.take(1).count()) {
        Ok(0) => Ok(()),
        Ok(_) => Err(
            Failure::new(Exit::Conflict, format!("{} is there and not empty", root.display()))
                .next("choose another name, or --path DIR")
                .into(),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| root.display().to_string()),
    }
}

/// Writes an embedded directory of texts, each as `change` makes it.
fn write(from: &Dir<'_>, to: &Path, change: &dyn Fn(&str) -> String) -> Result<()> {
    for entry in from.entries() {
        match entry {
            DirEntry::Dir(dir) => write(dir, to, change)?,
            DirEntry::File(file) => {
                let text = file.contents_utf8().expect("sources and templates are UTF-8");
                put(&to.join(file.path()), &change(text))?;
            }
        }
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_plugin_needs_is_embedded() {
        for (dir, file) in [
            (&TEMPLATE, "vendor/skep-sdk/Cargo.toml"),
            (&SDK, "lib.rs"),
            (&CONTRACT, "executor.wit"),
        ] {
            assert!(
                dir.get_file(file).is_some_and(|file| file.contents_utf8().is_some()),
                "{file}"
            );
        }
    }

    #[test]
    fn only_names_that_cargo_takes_are_taken() {
        assert!(check("acme", "hello-2").is_ok());
        for (publisher, name) in [
            ("acme", ""),
            ("acme", "2hello"),
            ("acme", "He"),
            ("acme", "a.b"),
            ("", "a"),
            ("a", "a/b"),
        ] {
            assert!(check(publisher, name).is_err(), "{publisher}/{name}");
        }
    }
}
