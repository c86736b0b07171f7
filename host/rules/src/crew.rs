//! The crew manifest, `crew.toml`: which agents to assemble from which plugins, and what each is granted. Unknown keys are errors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    grant::Mount,
    id::{Digest, Name, PluginName, Role, text_serde},
    limits::{MAX_ENV, MAX_MEMBERS, MAX_MOUNTS, MAX_REPLICAS, MAX_ROLES, Wish},
    manifest::{Error, Version, Wants, read_toml},
};

/// Which plugin: `publisher/name@version`, or its digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum PluginRef {
    /// By name and version.
    #[n(0)]
    Named(#[n(0)] PluginName, #[n(1)] Version),
    /// By the digest of its file.
    #[n(1)]
    Digest(#[n(0)] Digest),
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginRef::Named(name, version) => write!(f, "{name}@{version}"),
            PluginRef::Digest(digest) => write!(f, "sha256:{digest}"),
        }
    }
}

impl FromStr for PluginRef {
    type Err = crate::id::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('@') {
            Some((name, version)) => Ok(PluginRef::Named(name.parse()?, version.parse()?)),
            None => text.parse().map(PluginRef::Digest).map_err(|_| crate::id::Error {
                text: text.chars().take(80).collect(),
                expected: "a plugin (`publisher/name@version`, or the SHA-256 digest of its file)",
            }),
        }
    }
}

text_serde!(PluginRef);

/// A crew manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrewManifest {
    /// What people call it; unique among the live crews of a host.
    #[n(0)]
    pub name: Name,
    /// Agents that must be ready before the crew is; all of them unless said.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready: Option<u32>,
    /// Directories that it offers its agents.
    #[n(2)]
    #[serde(default, rename = "mount", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Its members.
    #[n(3)]
    #[serde(default, rename = "agent")]
    pub members: Vec<Member>,
    /// Who decides what its tasks ask of people.
    #[n(66)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Policy>,
}

/// `[approvals]`: what the tasks of a crew ask of people, whatever their submitters and plans say, and who decides.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whoever submitted a task may approve that it runs, and what it gave; not unless said.
    #[n(0)]
    #[serde(default)]
    pub by_requester: bool,
    /// A person approves before a task runs that is for one of these roles, or for anybody.
    #[n(1)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub before: BTreeSet<Role>,
    /// A person approves the result of such a task before it counts.
    #[n(2)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<Role>,
}

/// One `[[agent]]`: a number of agents of one plugin under the same grants.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The agent's name; with several replicas `name-1`, `name-2` ….
    #[n(0)]
    pub name: Name,
    /// Which plugin.
    #[n(1)]
    pub plugin: PluginRef,
    /// How many agents; 1 unless said.
    #[n(2)]
    #[serde(default = "one")]
    pub replicas: u32,
    /// Which of the roles that the plugin provides it serves; all of them unless said.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<BTreeSet<Role>>,
    /// What it is granted; nothing unless said.
    #[n(4)]
    #[serde(default)]
    pub grants: Wants,
    /// Limits below the plugin's own.
    #[n(5)]
    #[serde(default)]
    pub limits: Wish,
    /// Environment variables; none unless said.
    #[n(6)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl CrewManifest {
    /// Reads a crew manifest.
    ///
    /// # Errors
    /// When it is not TOML, has an unknown key, passes a bound or names a thing twice; the error names the place.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let crew: CrewManifest = read_toml(text)?;
        crew.check()?;
        Ok(crew)
    }

    /// Checks a manifest that did not come through [`CrewManifest::parse`].
    ///
    /// # Errors
    /// As `parse`, syntax aside.
    pub fn check(&self) -> Result<(), Error> {
        if self.members.is_empty() || self.members.len() > MAX_MEMBERS {
            return Err(Error::value(
                "agent",
                format!("a crew has 1 to {MAX_MEMBERS} [[agent]] entries"),
            ));
        }
        if self.mounts.len() > MAX_MOUNTS {
            return Err(Error::value("mount", format!("a crew has at most {MAX_MOUNTS} mounts")));
        }
        let mut guests = BTreeSet::new();
        if let Some(twice) = self.mounts.iter().find(|mount| !guests.insert(&mount.guest)) {
            return Err(Error::value("mount.guest", format!("`{}` is there twice", twice.guest)));
        }
        for member in &self.members {
            member.check()?;
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = self
            .members
            .iter()
            .flat_map(Member::agent_names)
            .find(|name| !names.insert(name.clone()))
        {
            return Err(Error::value(
                "agent.name",
                format!("two agents would be called `{twice}`"),
            ));
        }
        if self
            .min_ready
            .is_some_and(|least| least == 0 || least as usize > names.len())
        {
            return Err(Error::value(
                "min_ready",
                format!("it is between 1 and the number of agents, {}", names.len()),
            ));
        }
        Ok(())
    }
}

impl Member {
    fn check(&self) -> Result<(), Error> {
        let key = |key: &str| format!("agent `{}`: {key}", self.name);
        if !(1..=MAX_REPLICAS).contains(&self.replicas) {
            return Err(Error::value(
                key("replicas"),
                format!("it is between 1 and {MAX_REPLICAS}"),
            ));
        }
        if self.roles.as_ref().is_some_and(|roles| roles.len() > MAX_ROLES) {
            return Err(Error::value(key("roles"), format!("at most {MAX_ROLES} roles")));
        }
        if self.env.len() > MAX_ENV
            || self
                .env
                .iter()
                .any(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0'))
        {
            return Err(Error::value(
                key("env"),
                format!("at most {MAX_ENV} variables, without `=` or NUL in a name"),
            ));
        }
        self.grants.check(&key("grants"))
    }

    /// The names of its agents.
    pub fn agent_names(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.replicas).map(|n| {
            if self.replicas == 1 {
                self.name.to_string()
            } else {
                format!("{}-{n}", self.name)
            }
        })
    }
}
