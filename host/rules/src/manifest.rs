//! The plugin manifest, `skep.toml`: what a plugin is, what it can serve and the most that it will ever ask for. Unknown keys are errors,
//! because a typo in a security file must not be silent.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    capability::Capability,
    http::HttpWant,
    id::{PluginName, Role},
    limits::{
        MAX_HTTP_WANTS, MAX_MANIFEST_BYTES, MAX_MOUNTS, MAX_PLAN_NODES, MAX_ROLES, MAX_STATE_QUOTA, MAX_TEXT_BYTES,
        MAX_TOPICS, Wish,
    },
    message::Topics,
    quantity::Size,
};

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not TOML, or a key or value is not one of ours.
    #[error("{message}")]
    Syntax {
        /// What is wrong.
        message: String,
        /// Where: first byte and length in the text.
        span: Option<(usize, usize)>,
    },
    /// It is well-formed and says something that cannot be.
    #[error("{key}: {message}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// It is longer than a manifest may be.
    #[error("a manifest holds at most {MAX_MANIFEST_BYTES} bytes, this one has {0}")]
    TooLong(usize),
}

impl Error {
    pub(crate) fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Value {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Reads a document of ours, with the place of the first error.
pub(crate) fn read_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    if text.len() > MAX_MANIFEST_BYTES {
        return Err(Error::TooLong(text.len()));
    }
    toml::from_str(text).map_err(|error| Error::Syntax {
        message: error.message().to_owned(),
        span: error.span().map(|span| (span.start, span.len())),
    })
}

/// A plugin manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What it is.
    #[n(0)]
    pub plugin: About,
    /// What work it can serve.
    #[n(1)]
    #[serde(default)]
    pub provides: Provides,
    /// The most that it will ever ask for.
    #[n(2)]
    #[serde(default)]
    pub wants: Wants,
    /// The most that it needs.
    #[n(3)]
    #[serde(default)]
    pub limits: Wish,
}

/// `[plugin]`
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// `publisher/name`
    #[n(0)]
    pub name: PluginName,
    /// A semantic version.
    #[n(1)]
    pub version: Version,
    /// One sentence.
    #[n(2)]
    #[serde(default)]
    pub description: String,
    /// An SPDX expression.
    #[n(3)]
    #[serde(default)]
    pub license: String,
}

/// A semantic version (semver 2.0.0), kept as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Version(#[n(0)] String);

impl Version {
    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Version {
    type Err = crate::id::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match semver::Version::parse(text) {
            Ok(_) if text.len() <= 64 => Ok(Version(text.to_owned())),
            _ => Err(crate::id::Error {
                text: text.chars().take(80).collect(),
                expected: "a semantic version (`1.2.3`), at most 64 characters",
            }),
        }
    }
}

crate::id::text_serde!(Version);

/// `[provides]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provides {
    /// Work labels that it can serve.
    #[n(0)]
    #[serde(default)]
    pub roles: BTreeSet<Role>,
}

/// `[wants]`, and in a crew manifest `grants`: the same keys, because the second can only narrow the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wants {
    /// Directories.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileWant>,
    /// An ephemeral `/workspace` of so many bytes; zero is none.
    #[n(1)]
    #[serde(default)]
    pub workspace: Size,
    /// Artifacts: the most that one attempt may write; zero is none.
    #[n(2)]
    #[serde(default)]
    pub artifacts: Size,
    /// HTTP: hosts, methods and paths. Told on the sheet and compared at each update; this host performs none yet, so none is granted.
    #[n(3)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<HttpWant>,
    /// The crew's state.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateWant>,
    /// Children, waits and time.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TasksWant>,
    /// Topics on which it sends messages, and those that it hears.
    #[n(80)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Topics>,
}

/// `state = { quota = "1MiB" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "`{ quota = \"1MiB\" }`")]
pub struct StateWant {
    /// The most bytes, keys included, that the crew's state may hold for the agent still to be let write; zero lets it read only.
    #[n(0)]
    pub quota: Size,
}

impl std::fmt::Display for StateWant {
    /// In words: `read and write the state of its crew, up to 1MiB`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.quota {
            Size(0) => f.write_str("read the state of its crew"),
            quota => write!(f, "read and write the state of its crew, up to {quota}"),
        }
    }
}

/// `tasks = { children = 100 }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "`{ children = 100 }`")]
pub struct TasksWant {
    /// The most children that one run of a task may spawn; zero lets it sleep and continue only.
    #[n(0)]
    pub children: u32,
}

impl std::fmt::Display for TasksWant {
    /// In words: `give its crew up to 100 tasks per run, and wait`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.children {
            0 => f.write_str("wait, but give no tasks"),
            1 => f.write_str("give its crew one task per run, and wait"),
            children => write!(f, "give its crew up to {children} tasks per run, and wait"),
        }
    }
}

/// One directory that a plugin wants.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileWant {
    /// Where the agent sees it.
    #[n(0)]
    pub mount: GuestPath,
    /// What it may do there.
    #[n(1)]
    pub access: Access,
}

impl std::fmt::Display for FileWant {
    /// In words: `read files beneath /input`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let act = match self.access {
            Access::Read => "read",
            Access::Write => "read and write",
        };
        write!(f, "{act} files beneath {}", self.mount)
    }
}

/// What an agent may do with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read.
    #[n(0)]
    Read,
    /// Read and write.
    #[n(1)]
    Write,
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
        })
    }
}

/// An absolute path inside an agent: `/input`. Made of plain names; `/` alone and `/workspace` are not to be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct GuestPath(#[n(0)] String);

impl GuestPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for GuestPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for GuestPath {
    type Err = crate::id::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let good = text.len() <= 128
            && text
                .strip_prefix('/')
                .is_some_and(|rest| rest.split('/').all(plain) && rest.split('/').next() != Some("workspace"));
        good.then(|| GuestPath(text.to_owned()))
            .ok_or_else(|| crate::id::Error {
                text: text.chars().take(80).collect(),
                expected: "a mount point (an absolute path such as `/input`; `/workspace` is the agent's own)",
            })
    }
}

crate::id::text_serde!(GuestPath);

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is too long, is not TOML, has an unknown key, lacks a key or says something that cannot be; the error names the place.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let manifest: Manifest = read_toml(text)?;
        if manifest.provides.roles.len() > MAX_ROLES {
            return Err(Error::value("provides.roles", format!("at most {MAX_ROLES} roles")));
        }
        if manifest.plugin.description.len() > MAX_TEXT_BYTES || manifest.plugin.license.len() > 256 {
            return Err(Error::value(
                "plugin",
                "the description holds at most 4096 bytes, the licence 256",
            ));
        }
        manifest.wants.check("wants")?;
        Ok(manifest)
    }

    /// The text of the manifest, as it is embedded in a component.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a manifest has only tables, arrays and texts, all of which TOML can hold")
    }
}

impl Wants {
    /// Refuses lists that are too long and mounts named twice.
    pub(crate) fn check(&self, key: &str) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        if self.files.len() > MAX_MOUNTS {
            return Err(Error::value(
                format!("{key}.files"),
                format!("at most {MAX_MOUNTS} mounts"),
            ));
        }
        if self.http.len() > MAX_HTTP_WANTS {
            return Err(Error::value(
                format!("{key}.http"),
                format!("at most {MAX_HTTP_WANTS} entries"),
            ));
        }
        if self.state.is_some_and(|state| state.quota > MAX_STATE_QUOTA) {
            let message = format!("at most {MAX_STATE_QUOTA}");
            return Err(Error::value(format!("{key}.state.quota"), message));
        }
        if self.tasks.is_some_and(|tasks| tasks.children as usize > MAX_PLAN_NODES) {
            let message = format!("at most {MAX_PLAN_NODES}");
            return Err(Error::value(format!("{key}.tasks.children"), message));
        }
        if let Some(topics) = &self.messages {
            for (name, list) in [("send", &topics.send), ("receive", &topics.receive)] {
                if list.len() > MAX_TOPICS {
                    let message = format!("at most {MAX_TOPICS} topics");
                    return Err(Error::value(format!("{key}.messages.{name}"), message));
                }
            }
        }
        match self.files.iter().find(|want| !seen.insert(&want.mount)) {
            Some(twice) => Err(Error::value(
                format!("{key}.files"),
                format!("`{}` is there twice", twice.mount),
            )),
            None => Ok(()),
        }
    }

    /// Whether it covers a capability.
    #[must_use]
    pub fn covers(&self, capability: Capability) -> bool {
        match capability {
            Capability::Log | Capability::Heartbeat | Capability::Context => true,
            Capability::Artifacts => self.artifacts > Size(0),
            Capability::State => self.state.is_some(),
            Capability::Tasks => self.tasks.is_some(),
            Capability::Messages => self.messages.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[wants]` as it was before it had `http`.
    #[derive(Encode)]
    struct OldWants {
        #[n(0)]
        files: Vec<FileWant>,
        #[n(1)]
        workspace: Size,
        #[n(2)]
        artifacts: Size,
    }

    #[test]
    fn records_from_before_http_are_still_read() {
        let (files, workspace, artifacts) = (Vec::new(), Size(7), Size(8));
        let old = minicbor::to_vec(OldWants {
            files,
            workspace,
            artifacts,
        })
        .unwrap();
        let read: Wants = minicbor::decode(&old).unwrap();
        let (workspace, artifacts) = (Size(7), Size(8));
        assert_eq!(
            read,
            Wants {
                workspace,
                artifacts,
                ..Wants::default()
            }
        );
    }

    #[test]
    fn http_wants_survive_their_encodings() {
        let text = "[plugin]\nname = 'a/b'\nversion = '1.0.0'\n[wants]\nhttp = [{host = '*.Bücher.example.', methods = ['PUT', 'GET'], path = '/v1'}]";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest.clone()));
        let bytes = minicbor::to_vec(&manifest).unwrap();
        assert_eq!(minicbor::decode::<Manifest>(&bytes).unwrap(), manifest);
        let json = serde_json::to_string(&manifest).unwrap();
        assert!(
            json.contains(r#""host":"*.xn--bcher-kva.example","methods":["GET","PUT"]"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    }

    #[test]
    fn http_wants_are_bounded_and_may_be_spelled_twice() {
        let wants = |count: usize| {
            let entries: Vec<String> = (0..count)
                .map(|n| format!("{{host = 'h{n}.example'}}, {{host = 'H{n}.example.:443'}}"))
                .collect();
            Manifest::parse(&format!(
                "[plugin]\nname = 'a/b'\nversion = '1.0.0'\n[wants]\nhttp = [{}]",
                entries.join(",")
            ))
        };
        assert_eq!(wants(MAX_HTTP_WANTS).unwrap().wants.http.len(), MAX_HTTP_WANTS);
        assert!(
            wants(MAX_HTTP_WANTS + 1)
                .unwrap_err()
                .to_string()
                .starts_with("wants.http: at most")
        );
    }
}
