//! The kinds of outside thing that a component may import, and the word of bits that says which of them an agent holds. The list is closed:
//! an import that is not here cannot be linked.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// One capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Structured log lines.
    #[n(0)]
    Log,
    /// Progress and directives.
    #[n(1)]
    Heartbeat,
    /// The attempt's own identity.
    #[n(2)]
    Context,
    /// Content-addressed blobs.
    #[n(3)]
    Artifacts,
    /// The crew's key-value state.
    #[n(4)]
    State,
    /// Children, waits and time.
    #[n(5)]
    Tasks,
    /// Messages of the crew.
    #[n(6)]
    Messages,
}

impl Capability {
    /// All of them.
    pub const ALL: &[Capability] = &[
        Capability::Log,
        Capability::Heartbeat,
        Capability::Context,
        Capability::Artifacts,
        Capability::State,
        Capability::Tasks,
        Capability::Messages,
    ];

    /// The interface that gives it.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Capability::Log => "skep:agent/log",
            Capability::Heartbeat => "skep:agent/heartbeat",
            Capability::Context => "skep:agent/context",
            Capability::Artifacts => "skep:agent/artifacts",
            Capability::State => "skep:agent/state",
            Capability::Tasks => "skep:agent/tasks",
            Capability::Messages => "skep:agent/messages",
        }
    }

    /// What it lets an agent do, for a permission sheet.
    #[must_use]
    pub fn means(self) -> &'static str {
        match self {
            Capability::Log => "write log lines",
            Capability::Heartbeat => "report progress and hear the host's wishes",
            Capability::Context => "know its own name, crew and task",
            Capability::Artifacts => "store and read blobs of its crew",
            Capability::State => "read and write the state of its crew",
            Capability::Tasks => "give work to its crew and wait for it",
            Capability::Messages => "send messages to its crew",
        }
    }

    /// Held by every agent without a grant.
    #[must_use]
    pub fn is_free(self) -> bool {
        matches!(self, Capability::Log | Capability::Heartbeat | Capability::Context)
    }

    /// The key of `[wants]` and `grants` that asks for it and gives it; `None` for what is free.
    #[must_use]
    pub fn grant(self) -> Option<&'static str> {
        (!self.is_free()).then_some(match self {
            Capability::Log | Capability::Heartbeat | Capability::Context => "",
            Capability::Artifacts => "artifacts = \"10MiB\"",
            Capability::State => "state = { quota = \"1MiB\" }",
            Capability::Tasks => "tasks = { children = 100 }",
            Capability::Messages => "messages = { send = [\"build.*\"] }",
        })
    }

    /// The capability that an imported interface gives; versions are ignored.
    #[must_use]
    pub fn of_interface(name: &str) -> Option<Capability> {
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        Capability::ALL
            .iter()
            .copied()
            .find(|capability| capability.interface() == name)
    }
}

/// The capabilities that an agent holds, one bit each: what is checked at every call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct GrantWord(#[n(0)] pub u64);

impl GrantWord {
    /// What every agent holds.
    #[must_use]
    pub fn free() -> Self {
        Capability::ALL
            .iter()
            .filter(|c| c.is_free())
            .fold(GrantWord(0), |word, c| word.with(*c))
    }

    /// This and one more.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        GrantWord(self.0 | 1 << capability as u64)
    }

    /// Whether it holds a capability.
    #[must_use]
    pub fn holds(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u64) != 0
    }
}
