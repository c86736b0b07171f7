//! How many messages were sent since the host started, and what became of them, by type: figures for whoever watches the host. No decision looks at them, and
//! a start forgets them.

use std::collections::BTreeMap;

use crate::message::Kind;

/// What became of the messages of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were taken.
    pub sent: u64,
    /// Deliveries that were handled.
    pub delivered: u64,
    /// Deliveries that ended as dead letters, and errors that nobody heard.
    pub dead: u64,
    /// Deliveries that nobody had begun in time; those of a type that is delivered at least once are dead letters as well.
    pub expired: u64,
    /// Messages that were refused because a mailbox or the host was full.
    pub refused: u64,
}

/// Counts by type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic(BTreeMap<Kind, Counts>);

impl Traffic {
    /// The counts of a type.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Counts {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    pub(crate) fn count(&mut self, kind: Kind) -> &mut Counts {
        self.0.entry(kind).or_default()
    }
}
