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
static SDK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../sdk/rust");
/// Gives the SDK's manifest the values that it inherits here.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");
/// The versions that Skep itself was built with, so that a plugin builds without a network where they are at hand.
pub(crate) const LOCK: &str = include_str!("../../../../Cargo.lock");
const TOOLCHAIN: &str = include_str!("../../../../rust-toolchain.toml");

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

    let fill = |text: &str| {
        let filled = text.replace("{{name}}", name).replace("{{publisher}}", publisher);
        filled.replace("{{role}}", name)
    };
    write(&TEMPLATE, &root, &|_, bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Ok(fill(text).into_bytes()),
        Err(_) => Ok(bytes.to_vec()),
    })?;
    write(&SDK, &root.join("skep-sdk"), &|path, bytes| match path.to_str() {
        Some("Cargo.toml") => standalone(std::str::from_utf8(bytes)?, WORKSPACE).map(String::into_bytes),
        _ => Ok(bytes.to_vec()),
    })?;
    for (file, text) in [("Cargo.lock", LOCK), ("rust-toolchain.toml", TOOLCHAIN)] {
        put(&root.join(file), text.as_bytes())?;
    }

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

/// Writes an embedded directory, each file as `change` makes it.
fn write(from: &Dir<'_>, to: &Path, change: &dyn Fn(&Path, &[u8]) -> Result<Vec<u8>>) -> Result<()> {
    for entry in from.entries() {
        match entry {
            DirEntry::Dir(dir) => write(dir, to, change)?,
            DirEntry::File(file) => put(&to.join(file.path()), &change(file.path(), file.contents())?)?,
        }
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// A package manifest that no longer inherits from a workspace.
fn standalone(manifest: &str, workspace: &str) -> Result<String> {
    let mut manifest: toml::Table = toml::from_str(manifest)?;
    let workspace: toml::Table = toml::from_str(workspace)?;
    let inherited = |section: &str, key: &str| {
        let found = workspace
            .get("workspace")
            .and_then(|w| w.get(section))
            .and_then(|s| s.get(key));
        found
            .cloned()
            .with_context(|| format!("the workspace has no {section}.{key}"))
    };
    for (section, from) in [
        ("package", "package"),
        ("dependencies", "dependencies"),
        ("dev-dependencies", "dependencies"),
    ] {
        let Some(toml::Value::Table(table)) = manifest.get_mut(section) else {
            continue;
        };
        for (key, value) in table.iter_mut() {
            if value.get("workspace").and_then(toml::Value::as_bool) == Some(true) {
                *value = inherited(from, key)?;
            }
        }
    }
    manifest.remove("lints");
    Ok(toml::to_string(&manifest)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendored_sdk_inherits_nothing_and_brings_the_contract() {
        let own = SDK.get_file("Cargo.toml").unwrap().contents_utf8().unwrap();
        let text = standalone(own, WORKSPACE).unwrap();
        assert!(!text.contains("workspace"), "{text}");
        assert!(
            text.contains("wit-bindgen") && text.contains("edition = \"2024\""),
            "{text}"
        );
        assert!(SDK.get_file("wit/executor.wit").is_some());
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
