//! `skep build`: compiles a plugin with cargo and embeds its manifest, so that one file is everything there is to upload.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use skep_rules::{id::Digest, manifest::Manifest, seam::Export};
use skep_runtime::plugin;

use super::{
    Context,
    inspect::{read_component, refuse},
};
use crate::{cli::Exit, failure::Failure, output::bytes};

const TARGET: &str = "wasm32-wasip2";

/// Arguments of `skep build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plugin's directory, which holds Cargo.toml and skep.toml
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Write it there instead of NAME.wasm in the plugin's directory
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(serde::Serialize)]
struct Built {
    file: PathBuf,
    plugin: String,
    digest: Digest,
    size: u64,
    exports: Vec<Export>,
    imports: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let manifest = read_manifest(&args.path.join("skep.toml"))?;
    let artifact = compile(context, &args.path)?;
    let component = read_component(&artifact)?;
    let file = plugin::embed(&component, &manifest).map_err(|refused| refuse(&artifact, &refused))?;

    let name = manifest.plugin.name.as_str().rsplit('/').next().unwrap_or_default();
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| args.path.join(format!("{name}.wasm")));
    fs::write(&out, &file).with_context(|| format!("cannot write {}", out.display()))?;

    let plugin = plugin::read(&file).map_err(|refused| refuse(&out, &refused))?;
    let built = Built {
        file: out,
        plugin: format!("{}@{}", manifest.plugin.name, manifest.plugin.version),
        digest: plugin.digest,
        size: plugin.size,
        exports: plugin.exports.into_iter().collect(),
        imports: plugin.imports,
    };
    context.output.one(&built, || {
        let exports: Vec<&str> = built.exports.iter().map(|export| export.interface()).collect();
        format!(
            "{} is in {}, {}\ndigest   sha256:{}\nexports  {}\nimports  {}\n",
            built.plugin,
            built.file.display(),
            bytes(built.size),
            built.digest,
            exports.join("\n         "),
            built.imports.join("\n         "),
        )
    })?;
    Ok(Exit::Done)
}

fn read_manifest(path: &Path) -> Result<Manifest> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let failure = Failure::new(Exit::NotFound, format!("there is no {}", path.display()));
            return Err(failure.next("`skep new NAME` begins a plugin that has one").into());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    Manifest::parse(&text).map_err(|error| Failure::manifest(path, &text, &error).into())
}

/// One line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Compiles the package in a directory and returns the component that cargo made of it.
fn compile(context: &Context, dir: &Path) -> Result<PathBuf> {
    let manifest = fs::canonicalize(dir.join("Cargo.toml")).map_err(|_| {
        Failure::new(
            Exit::NotFound,
            format!("there is no {}", dir.join("Cargo.toml").display()),
        )
    })?;
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(context.environment.get("CARGO").unwrap_or("cargo"));
        command
            .args(arguments)
            .arg("--manifest-path")
            .arg(&manifest)
            .current_dir(dir);
        command.stdin(Stdio::null());
        command
    };
    // Without a network first: a registry is asked only for what is not on this machine.
    let offline = cargo(&["fetch", "--quiet", "--offline", "--target", TARGET])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let offline = offline.map_err(|error| {
        Failure::new(Exit::Failure, format!("cargo cannot be started: {error}"))
            .next("install Rust: https://rustup.rs; `skep doctor` shows what is missing")
    })?;

    let mut command = cargo(&[
        "build",
        "--release",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    if offline.success() {
        command.arg("--offline");
    }
    if context.output.is_quiet() {
        command.arg("--quiet");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    let mut artifact = None;
    for line in BufReader::new(stdout).lines() {
        // Lines that are no messages come from build scripts.
        let Ok(message) = serde_json::from_str::<Message>(&line?) else {
            continue;
        };
        if message.reason == "compiler-artifact" && message.manifest_path == manifest {
            let wasm = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wasm");
            artifact = message.filenames.into_iter().find(wasm).or(artifact);
        }
    }
    if !child.wait()?.success() {
        return Err(Failure::new(Exit::Failure, "cargo did not succeed")
            .next(format!(
                "correct what it says above; a missing target comes with `rustup target add {TARGET}`"
            ))
            .into());
    }
    artifact.ok_or_else(|| {
        Failure::new(Exit::Invalid, "the package makes no component")
            .next("add `[lib]` with `crate-type = [\"cdylib\"]` to Cargo.toml")
            .at(&manifest, "", None)
            .into()
    })
}
