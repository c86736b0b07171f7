//! What is known for the moment only: when each attempt was last seen alive, which crews have work to hand out, whose turn it is, how many messages went
//! which way. Never journaled; after a start everything counts as seen now.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{AgentId, CrewId, TaskId},
    limits::LEASE,
    priority::Turns,
    quantity::Time,
    seam::Lease,
    traffic::Traffic,
};

/// Volatile evidence, reset at start.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    seen: BTreeMap<TaskId, Seen>,
    /// Times by which to look again. An entry may be too early, never too late: a beat does not move it.
    looks: BTreeSet<(Time, TaskId)>,
    /// Crews in which something changed since work was last handed out.
    pub(crate) stirred: BTreeSet<CrewId>,
    /// Whose turn it is, in crews that live.
    pub(crate) turns: BTreeMap<CrewId, Turns>,
    /// When to compare what runs with what is revoked; at once when absent.
    pub(crate) next_sweep: Option<Time>,
    /// When to look for tasks that wait for too long; none while nothing waits.
    pub(crate) next_alert: Option<Time>,
    /// The oldest tasks that have been told of, one per kind of work.
    pub(crate) alerted: BTreeSet<TaskId>,
    /// Agents to be quarantined before anything else is done.
    pub(crate) condemned: BTreeSet<AgentId>,
    /// Agents of revoked plugins that may finish what they have, by the time when that is over.
    pub(crate) drained: BTreeMap<Time, BTreeSet<AgentId>>,
    /// The host takes plugins that nobody signed.
    pub(crate) unsigned: bool,
    /// What became of messages since the start.
    pub(crate) traffic: Traffic,
}

#[derive(Debug, Clone)]
struct Seen {
    lease: Lease,
    last: Time,
    look: Time,
}

impl Observed {
    /// Forgets all that was seen; what the host takes stays.
    pub(crate) fn reset(&mut self) {
        *self = Observed {
            unsigned: self.unsigned,
            ..Observed::default()
        };
    }

    /// An attempt has begun.
    pub(crate) fn began(&mut self, lease: Lease, now: Time) {
        self.forget(lease.task);
        let look = now.after(LEASE);
        self.looks.insert((look, lease.task));
        self.seen.insert(lease.task, Seen { lease, last: now, look });
    }

    /// Evidence that an attempt lives. Of one that is not known, or no longer, it says nothing.
    pub fn beat(&mut self, lease: &Lease, now: Time) {
        if let Some(seen) = self.seen.get_mut(&lease.task)
            && seen.lease == *lease
        {
            seen.last = seen.last.max(now);
        }
    }

    /// An attempt is over.
    pub(crate) fn forget(&mut self, task: TaskId) {
        if let Some(seen) = self.seen.remove(&task) {
            self.looks.remove(&(seen.look, task));
        }
    }

    /// The attempts whose lease has run out, at most `most` of them.
    pub(crate) fn expired(&mut self, now: Time, most: usize) -> Vec<Lease> {
        let mut expired = Vec::new();
        while let Some((look, task)) = self.looks.first().copied() {
            if look > now || expired.len() >= most {
                break;
            }
            self.looks.pop_first();
            let Some(seen) = self.seen.get_mut(&task) else {
                continue;
            };
            seen.look = seen.last.after(LEASE);
            if seen.look <= now {
                expired.push(seen.lease);
                self.seen.remove(&task);
            } else {
                self.looks.insert((seen.look, task));
            }
        }
        expired
    }

    /// When to look at the leases again.
    pub(crate) fn next_look(&self) -> Option<Time> {
        self.looks.first().map(|(time, _)| *time)
    }

    /// When to look at what is revoked again; now where nobody has looked since the start.
    pub(crate) fn next_revocation(&self, now: Time) -> Time {
        let sweep = self.next_sweep.unwrap_or(now);
        self.drained
            .first_key_value()
            .map_or(sweep, |(time, _)| sweep.min(*time))
    }

    /// What became of messages since the start.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// When an attempt was last seen alive.
    #[must_use]
    pub fn last_seen(&self, task: TaskId) -> Option<Time> {
        self.seen.get(&task).map(|seen| seen.last)
    }
}
