//! `skep plugin`: what is installed on a host, and installing more after showing what it asks for.

use std::path::Path;

use anyhow::Result;
use skep::http::api::plugin::Plugin;
use skep_rules::{id::Digest, manifest::Manifest};
use skep_runtime::plugin::{self, Scan};

use super::{
    Context,
    inspect::{read_component, refuse},
    sheet::Sheet,
};
use crate::{
    cli::Exit,
    client::{Client, escape},
    failure::Failure,
    output::{bytes, time},
};

/// `skep plugin …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Install a plugin after showing what it asks for
    Install {
        /// A file, or `bundled:NAME`
        source: String,
    },
    /// List what is installed
    Ls,
    /// Show one
    Show {
        /// `publisher/name@version`, or the digest or its beginning
        plugin: String,
    },
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::Install { source } => {
            let file = read_source(source)?;
            let scan = plugin::scan(&file).map_err(|refused| refuse(Path::new(source), &refused))?;
            // All that a host would refuse is refused before anybody is asked.
            plugin::read(&file).map_err(|refused| refuse(Path::new(source), &refused))?;
            let client = context.client()?;
            context.output.note(&Sheet::of(&scan).to_text());
            context.output.confirm(&format!("install {}", title(&scan)))?;
            let installed = context.wait(install(&client, file))?;
            context.output.one(&installed, || {
                format!(
                    "installed {}@{}  sha256:{}",
                    installed.name, installed.version, installed.digest
                )
            })?;
        }
        Command::Ls => {
            let client = context.client()?;
            let plugins: Vec<Plugin> = context.wait(client.list("/v1/plugins"))?;
            context
                .output
                .list(&plugins, ["plugin", "digest", "size", "installed"], |plugin| {
                    [
                        format!("{}@{}", plugin.name, plugin.version),
                        plugin.digest.short(),
                        bytes(plugin.size),
                        time(plugin.installed_at),
                    ]
                })?;
        }
        Command::Show { plugin } => {
            let client = context.client()?;
            let plugin: Plugin = context.wait(client.get(&format!("/v1/plugins/{}", escape(plugin))))?;
            context.output.one(&plugin, || Sheet::of(&scan_of(&plugin)).to_text())?;
        }
    }
    Ok(Exit::Done)
}

/// Uploads a plugin.
pub(crate) async fn install(client: &Client, file: Vec<u8>) -> Result<Plugin> {
    client.upload("/v1/plugins", file).await
}

/// The file of a plugin that comes with Skep, its manifest embedded.
pub(crate) fn bundled(name: &str) -> Result<Vec<u8>> {
    let Some(bundled) = skep_bundled::get(name) else {
        let names: Vec<&str> = skep_bundled::ALL.iter().map(|plugin| plugin.name).collect();
        let failure = Failure::new(Exit::NotFound, format!("no plugin `{name}` comes with Skep"));
        return Err(failure.next(format!("there are: {}", names.join(", "))).into());
    };
    let path = Path::new(bundled.name).join("skep.toml");
    let manifest =
        Manifest::parse(bundled.manifest).map_err(|error| Failure::manifest(&path, bundled.manifest, &error))?;
    Ok(plugin::embed(bundled.component, &manifest).map_err(|refused| refuse(Path::new(bundled.name), &refused))?)
}

fn read_source(source: &str) -> Result<Vec<u8>> {
    match source.strip_prefix("bundled:") {
        Some(name) => bundled(name),
        None => read_component(Path::new(source)),
    }
}

fn title(scan: &Scan) -> String {
    match &scan.manifest {
        Some(manifest) => format!("{}@{}", manifest.plugin.name, manifest.plugin.version),
        None => Digest::short(&scan.digest),
    }
}

/// What the host says of an installed plugin, in the form that sheets are made of.
fn scan_of(plugin: &Plugin) -> Scan {
    Scan {
        digest: plugin.digest,
        size: plugin.size,
        manifest: Some(plugin.manifest.clone()),
        exports: plugin.exports.clone(),
        imports: plugin.imports.clone(),
    }
}
