//! The plugins that come with Skep. They are as good as the binary that they come in, so whoever runs it signs them with a key of their own
//! and trusts that for `skep/*`: the same path as for a stranger's plugins, with nothing let through.

use std::path::Path;

use anyhow::{Context as _, Result};
use skep::{
    clock::Clock,
    currency,
    http::api::key::{NewPublisher, Trust},
};
use skep_rules::{
    key::PublicKey,
    limits::MAX_RELEASE_LIFE,
    manifest::Manifest,
    metadata::{Ceiling, Keys},
    quantity::Time,
    reason::Reason,
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
    let release = release(&read, currency::built_at(), Clock::system().now())?;
    let envelope = signature::sign(PAYLOAD_TYPE, &release.to_json(), &[key]);
    Ok(Bundled { component, envelope })
}

/// The statement of a plugin. Its number is the time of the build: a newer binary's plugins are newer releases, and a clock that stood in the
/// future once does not keep them out.
fn release(plugin: &Plugin, built: Time, now: Time) -> Result<Release> {
    let about = &plugin.manifest.plugin;
    // The host's clock may be behind this one, so the earliest time that is certain; but the binary is signed whenever it is run, however old.
    let not_before = built.min(now).max(Time(now.0.saturating_sub(MAX_RELEASE_LIFE.0 / 2)));
    Ok(Release {
        format: FORMAT,
        plugin: about.name.clone(),
        version: about.version.clone(),
        release_seq: built.0.max(1),
        previous: None,
        component: Content {
            sha256: plugin.digest,
            size: plugin.size,
        },
        imports: plugin.imports.iter().cloned().collect(),
        exports: plugin.interfaces.clone(),
        host_api: HOST_API.parse().context("the version of the contract")?,
        not_before,
        expires: not_before.after(MAX_RELEASE_LIFE),
        provenance: None,
        license: about.license.clone(),
        contact: String::new(),
    })
}

/// Trusts a key for the plugins that come with Skep, where nobody is trusted for them yet. What an operator has said about `skep` stays as it is:
/// only the time of this very key is renewed when it is over.
///
/// # Errors
/// [`Reason::SignerUntrusted`] when other keys are trusted for `skep`; what the host refuses.
pub(super) async fn trust(client: &Client, key: PublicKey) -> Result<()> {
    let trust: Trust = client.get("/v1/keys").await?;
    if let Some(publisher) = wanted(&trust, key)? {
        let _trust: Trust = client.post("/v1/keys", &publisher, std::time::Duration::ZERO).await?;
    }
    Ok(())
}

/// What a host is to be told so that it trusts the key; nothing where it does.
fn wanted(trust: &Trust, key: PublicKey) -> Result<Option<NewPublisher>> {
    let Some(known) = trust.publishers.iter().find(|known| known.name.as_str() == PUBLISHER) else {
        return Ok(Some(NewPublisher {
            name: PUBLISHER.parse().context("the publisher of the bundled plugins")?,
            release: Keys {
                keys: [key].into(),
                threshold: 1,
            },
            recovery: None,
            plugins: None,
            ceiling: Ceiling::default(),
            expires: None,
        }));
    };
    let keys = &known.release.keys;
    if !keys.iter().any(|known| known.key == key) {
        let message = format!(
            "this host trusts other keys for `{PUBLISHER}` than {}, which signs the plugins of this binary here",
            key.id()
        );
        let next = format!(
            "`skep key ls` shows them; `skep key trust --publisher {PUBLISHER} FILE.pub ...` says anew which keys count, then install files \
             that those have signed"
        );
        return Err(Failure::of(Reason::SignerUntrusted, message).next(next).into());
    }
    if known.expires > trust.time {
        return Ok(None);
    }
    Ok(Some(NewPublisher {
        name: known.name.clone(),
        release: Keys {
            keys: keys.iter().map(|known| known.key).collect(),
            threshold: known.release.threshold,
        },
        recovery: known.recovery.as_ref().map(|known| known.key),
        plugins: known.plugins.clone(),
        ceiling: known.ceiling.clone(),
        expires: None,
    }))
}

#[cfg(test)]
mod tests {
    use skep::http::api::key::{Key, Publisher, Role};
    use skep_rules::metadata::Revocations;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_random(&[seed; 32]).public()
    }

    /// A host that trusts these keys for `skep` until 10.
    fn host(keys: &[PublicKey], time: Time) -> Trust {
        let known = |key: PublicKey| Key {
            id: key.id(),
            key,
            words: String::new(),
            revoked: false,
        };
        Trust {
            publishers: vec![Publisher {
                name: PUBLISHER.parse().unwrap(),
                release: Role {
                    keys: keys.iter().copied().map(known).collect(),
                    threshold: 2,
                },
                recovery: Some(known(key(9))),
                plugins: Some(["echo".parse().unwrap()].into()),
                ceiling: Ceiling {
                    http: false,
                    ..Ceiling::default()
                },
                expires: Time(10),
                since: Time(0),
                rotation: 0,
            }],
            root: None,
            index: None,
            clock: None,
            revoked: Revocations::default(),
            time,
            clock_time: time,
        }
    }

    #[test]
    fn what_an_operator_said_about_the_publisher_stays() {
        let nobody = Trust {
            publishers: Vec::new(),
            ..host(&[], Time(0))
        };
        let new = wanted(&nobody, key(1)).unwrap().expect("nobody is trusted yet");
        assert_eq!(new.release.keys, [key(1)].into());

        let error = wanted(&host(&[key(2)], Time(0)), key(1)).unwrap_err();
        let failure = error.downcast_ref::<Failure>().expect("a failure");
        assert_eq!(failure.reason, Some(Reason::SignerUntrusted));
        assert!(error.to_string().contains("skep key trust"), "{error}");

        let both = [key(1), key(2)];
        assert_eq!(wanted(&host(&both, Time(9)), key(1)).unwrap(), None);
        let renewed = wanted(&host(&both, Time(10)), key(1)).unwrap().expect("it is over");
        assert_eq!(renewed.release.keys, both.into());
        assert_eq!((renewed.release.threshold, renewed.recovery), (2, Some(key(9))));
        assert!(renewed.plugins.is_some() && !renewed.ceiling.http && renewed.expires.is_none());
    }

    #[test]
    fn a_clock_in_the_future_does_not_number_the_releases() {
        let plugin = plugin::read(&file("echo").unwrap()).unwrap();
        let day = 24 * 60 * 60 * 1_000;
        let built = Time(20_000 * day);
        for (now, not_before) in [
            (built.0 - day, built.0 - day),
            (built.0 + day, built.0),
            (built.0 + 1_000 * day, built.0 + 800 * day),
        ] {
            let release = release(&plugin, built, Time(now)).unwrap();
            assert_eq!((release.release_seq, release.not_before), (built.0, Time(not_before)));
            assert!(release.current(Time(now)).is_ok());
        }
    }
}
