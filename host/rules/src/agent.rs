//! The record of an agent and its phases: who owns it and what it may do. A trap ends an attempt, not the agent; nothing in memory outlives
//! an attempt, so READY means compiled and linked, no more.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    id::{AgentId, CrewId},
    quantity::{Fuel, Size, Time},
    reason::Reason,
    seam::Identity,
};

/// One phase of the life of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// The record is there, its grants are computed.
    #[n(0)]
    Provisioning,
    /// The runner compiles, links and instantiates it once.
    #[n(1)]
    Warming,
    /// It has a free slot.
    #[n(2)]
    Ready,
    /// All its slots are leased.
    #[n(3)]
    Busy,
    /// It finishes what it has and is given nothing new.
    #[n(4)]
    Draining,
    /// A clean end.
    #[n(5)]
    Stopped,
    /// It could not be made ready.
    #[n(6)]
    Failed,
    /// What it runs was revoked: it is given nothing and says nothing any more.
    #[n(7)]
    Quarantined,
}

impl Phase {
    /// All of them.
    pub const ALL: &[Phase] = &[
        Phase::Provisioning,
        Phase::Warming,
        Phase::Ready,
        Phase::Busy,
        Phase::Draining,
        Phase::Stopped,
        Phase::Failed,
        Phase::Quarantined,
    ];

    /// Where it may go from here; the only transitions there are, but for the restart of the host, which takes all that may serve back to
    /// PROVISIONING, one generation on.
    #[must_use]
    pub fn leaves_to(self) -> &'static [Phase] {
        match self {
            Phase::Provisioning => &[Phase::Warming, Phase::Stopped, Phase::Quarantined],
            Phase::Warming => &[Phase::Ready, Phase::Failed, Phase::Draining, Phase::Quarantined],
            Phase::Ready => &[Phase::Busy, Phase::Draining, Phase::Quarantined],
            Phase::Busy => &[Phase::Ready, Phase::Draining, Phase::Quarantined],
            Phase::Draining | Phase::Failed => &[Phase::Stopped, Phase::Quarantined],
            Phase::Quarantined => &[Phase::Stopped],
            Phase::Stopped => &[],
        }
    }

    /// Whether it has work, or can be given some now or once it is warm.
    #[must_use]
    pub fn may_serve(self) -> bool {
        matches!(self, Phase::Provisioning | Phase::Warming | Phase::Ready | Phase::Busy)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Provisioning => "PROVISIONING",
            Phase::Warming => "WARMING",
            Phase::Ready => "READY",
            Phase::Busy => "BUSY",
            Phase::Draining => "DRAINING",
            Phase::Stopped => "STOPPED",
            Phase::Failed => "FAILED",
            Phase::Quarantined => "QUARANTINED",
        })
    }
}

/// Why something failed: a code, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Failure {
    /// The reason code.
    #[n(0)]
    pub reason: Reason,
    /// At most [`crate::limits::MAX_TEXT_BYTES`].
    #[n(1)]
    pub message: String,
}

impl Failure {
    /// A failure, its message cut to its bound.
    #[must_use]
    pub fn new(reason: Reason, message: &str) -> Self {
        Failure {
            reason,
            message: crate::task::cut(message),
        }
    }
}

/// One agent: a durable identity that runs one plugin under the grants of one member of its crew.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Agent {
    /// Its id.
    #[n(0)]
    pub id: AgentId,
    /// Its crew.
    #[n(1)]
    pub crew: CrewId,
    /// Its name in the crew.
    #[n(2)]
    pub name: String,
    /// Which of the crew's members it is one of.
    #[n(3)]
    pub member: u32,
    /// Its place among the crew's agents: what decides between two of equal load.
    #[n(4)]
    pub place: u32,
    /// Where it is in its life.
    #[n(5)]
    pub phase: Phase,
    /// Rises with every start; leases of an older one are fenced.
    #[n(6)]
    pub generation: u64,
    /// Attempts that it may run at a time.
    #[n(7)]
    pub slots: u32,
    /// Leases in force.
    #[n(8)]
    pub active: u32,
    /// Rises with every change of the record.
    #[n(9)]
    pub revision: u64,
    /// Attempts given to it, ever.
    #[n(10)]
    pub tasks: u64,
    /// Fuel burned, ever.
    #[n(11)]
    pub fuel: Fuel,
    /// The most memory that one of its attempts held.
    #[n(12)]
    pub peak_memory: Size,
    /// Why it is FAILED.
    #[n(13)]
    pub failure: Option<Failure>,
    /// When its phase last changed.
    #[n(14)]
    pub changed: Time,
}

impl Agent {
    /// Who it is, for the runner.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            agent: self.id,
            generation: self.generation,
            name: self.name.clone(),
            crew: self.crew,
        }
    }
}
