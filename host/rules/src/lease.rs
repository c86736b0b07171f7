//! Who holds a task right now, and the volatile evidence that the holder lives. The lease itself is `seam::Lease`; here is what the record
//! of a task keeps of it. When it was last seen is never journaled: see `observed`.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    limits::ACK,
    quantity::Time,
    seam::{Export, Lease},
};

/// A lease that is in force: one attempt, one slot of its agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The right itself.
    #[n(0)]
    pub lease: Lease,
    /// Which export the attempt calls.
    #[n(1)]
    pub export: Export,
    /// When it was given.
    #[n(2)]
    pub since: Time,
    /// Whether the runner has said that the attempt began.
    #[n(3)]
    pub started: bool,
    /// What the host knew when it was given, as JSON: only on the way to the record of an integration task whose run begins.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    #[serde(skip)]
    pub facts: Option<Vec<u8>>,
}

impl Held {
    /// When the runner must have said that the attempt began; `None` once it has.
    #[must_use]
    pub fn ack_by(&self) -> Option<Time> {
        (!self.started).then(|| self.since.after(ACK))
    }
}
