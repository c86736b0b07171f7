//! The plugins that come with Skep. They are as good as the binary that they come in, so whoever runs it signs them with a key of their own
//! and trusts that for `skep/*`: the same path as for a stranger's plugins, with nothing let through.

use std::path::Path;

use anyhow::{Context as _, Result};
use skep::{
    clock::Clock,
    http::api::key::{NewPublisher, Trust},
};
use skep_rules::{
    key::PublicKey,
    limits::MAX_RELEASE_LIFE,
    manifest::Manifest,
    metadata::{Ceiling, Keys},
    quantity::Time,
    release::{Content, FORMAT, HOST_API, PAYLOAD_TYPE, Release},
};
use skep_runtime::{
    plugin::{self, Plugin},
    signature::{self, SecretKey},
};

use super::inspect::refuse;
use crate::{cli::Exit, client::Client, failure::Failure};

/// The publisher of all of them.
pub(super) const PUBLISHER: &str = "skep";

/// A plugin of the binary, signed.
pub(super) struct Bundled {
    /// The file, its manifest embedded.
    pub(super) component: Vec<u8>,
    /// Its envelope.
    pub(super) envelope: Vec<u8>,
}

/// The file of a plugin that comes with Skep, its manifest embedded.
pub(super) fn file(name: &str) -> Result<Vec<u8>> {
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

/// A plugin that comes with Skep, signed.
pub(super) fn signed(name: &str, key: &SecretKey) -> Result<Bundled> {
    let component = file(name)?;
    let read = plugin::read(&component).map_err(|refused| refuse(Path::new(name), &refused))?;
    let release = release(&read, Clock::system().now())?;
    let envelope = signature::sign(PAYLOAD_TYPE, &release.to_json(), &[key]);
    Ok(Bundled { component, envelope })
}

/// The statement of a plugin. Its number is the time: a newer binary's plugins are newer releases.
fn release(plugin: &Plugin, now: Time) -> Result<Release> {
    let about = &plugin.manifest.plugin;
    Ok(Release {
        format: FORMAT,
        plugin: about.name.clone(),
        version: about.version.clone(),
        release_seq: now.0,
        previous: None,
        component: Content {
            sha256: plugin.digest,
            size: plugin.size,
        },
        imports: plugin.imports.iter().cloned().collect(),
        exports: plugin.interfaces.clone(),
        host_api: HOST_API.parse().context("the version of the contract")?,
        not_before: now,
        expires: now.after(MAX_RELEASE_LIFE),
        provenance: None,
        license: about.license.clone(),
        contact: String::new(),
    })
}

/// Trusts a key for the plugins that come with Skep, unless it is trusted already.
pub(super) async fn trust(client: &Client, key: PublicKey) -> Result<()> {
    let trust: Trust = client.get("/v1/keys").await?;
    let known = trust.publishers.iter().any(|publisher| {
        publisher.name.as_str() == PUBLISHER && publisher.release.keys.iter().any(|known| known.key == key)
    });
    if known {
        return Ok(());
    }
    let publisher = NewPublisher {
        name: PUBLISHER.parse().context("the publisher of the bundled plugins")?,
        release: Keys {
            keys: [key].into(),
            threshold: 1,
        },
        recovery: None,
        plugins: None,
        ceiling: Ceiling::default(),
        expires: None,
    };
    let _trust: Trust = client.post("/v1/keys", &publisher, std::time::Duration::ZERO).await?;
    Ok(())
}
