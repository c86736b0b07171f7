//! The record of a crew: its manifest with every grant computed, and where it is in its life. Its status is computed, never stored.

use std::{collections::BTreeSet, fmt};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    agent::{Agent, Phase},
    crew::CrewManifest,
    grant::Effective,
    id::{CrewId, Digest, PluginName, Role},
    manifest::Version,
    quantity::Time,
    seam::Export,
};

/// What is stored of the life of a crew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum CrewPhase {
    /// It takes tasks.
    #[n(0)]
    Live,
    /// It finishes what runs and takes nothing new.
    #[n(1)]
    Draining,
    /// All its agents are stopped and all its tasks ended.
    #[n(2)]
    Stopped,
}

/// How a crew is, as people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Agents are being made ready.
    Assembling,
    /// As many agents as it needs can take work.
    Ready,
    /// Agents failed, and too few are left.
    Degraded,
    /// See [`CrewPhase::Draining`].
    Draining,
    /// See [`CrewPhase::Stopped`].
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Assembling => "assembling",
            Status::Ready => "ready",
            Status::Degraded => "degraded",
            Status::Draining => "draining",
            Status::Stopped => "stopped",
        })
    }
}

/// What the agents of one `[[agent]]` have in common.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// The plugin's name.
    #[n(0)]
    pub plugin: PluginName,
    /// Its version.
    #[n(1)]
    pub version: Version,
    /// The component.
    #[n(2)]
    pub digest: Digest,
    /// The work that it takes.
    #[n(3)]
    pub roles: BTreeSet<Role>,
    /// What can be called.
    #[n(4)]
    pub exports: BTreeSet<Export>,
    /// What it holds.
    #[n(5)]
    pub effective: Effective,
    /// Nobody signed the plugin: it runs only where the host takes such.
    #[n(6)]
    #[cbor(default)]
    pub unsigned: bool,
}

/// One crew.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Crew {
    /// Its id.
    #[n(0)]
    pub id: CrewId,
    /// What it was assembled from.
    #[n(1)]
    pub manifest: CrewManifest,
    /// One per member of the manifest, in its order.
    #[n(2)]
    pub members: Vec<Member>,
    /// Where it is in its life.
    #[n(3)]
    pub phase: CrewPhase,
    /// How many agents it has.
    #[n(4)]
    pub size: u32,
    /// When it was assembled.
    #[n(5)]
    pub created: Time,
    /// When it stopped.
    #[n(6)]
    pub ended: Option<Time>,
    /// Rises with every change of the record.
    #[n(7)]
    pub revision: u64,
}

impl Crew {
    /// How it is, given its agents. Busy agents count as ready.
    #[must_use]
    pub fn status<'a>(&self, agents: impl IntoIterator<Item = &'a Agent>) -> Status {
        match self.phase {
            CrewPhase::Draining => return Status::Draining,
            CrewPhase::Stopped => return Status::Stopped,
            CrewPhase::Live => {}
        }
        let (mut ready, mut coming) = (0_u32, 0_u32);
        for agent in agents {
            ready += u32::from(matches!(agent.phase, Phase::Ready | Phase::Busy));
            coming += u32::from(matches!(agent.phase, Phase::Provisioning | Phase::Warming));
        }
        if ready >= self.manifest.min_ready.unwrap_or(self.size) {
            Status::Ready
        } else if coming > 0 {
            Status::Assembling
        } else {
            Status::Degraded
        }
    }
}
