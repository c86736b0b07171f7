//! What is known for the moment only: when each attempt was last seen alive, and which crews have work to hand out. Never journaled; after a
//! start everything counts as seen now.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{AgentId, CrewId, TaskId},
    limits::{LANE_WEIGHTS, LEASE},
    quantity::Time,
    seam::Lease,
};

/// Volatile evidence, reset at start.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    seen: BTreeMap<TaskId, Seen>,
    /// Times by which to look again. An entry may be too early, never too late: a beat does not move it.
    looks: BTreeSet<(Time, TaskId)>,
    /// Crews in which something changed since work was last handed out.
    pub(crate) stirred: BTreeSet<CrewId>,
    /// When to compare what runs with what is revoked; at once when absent.
    pub(crate) next_sweep: Option<Time>,
    /// Agents to be quarantined before anything else is done.
    pub(crate) condemned: BTreeSet<AgentId>,
    /// Agents of revoked plugins that may finish what they have, by the time when that is over.
    pub(crate) drained: BTreeMap<Time, BTreeSet<AgentId>>,
    /// Whose turn it is among the lanes of a crew, as far as several compete.
    turns: BTreeMap<CrewId, [i32; LANE_WEIGHTS.len()]>,
    /// The host takes plugins that nobody signed.
    pub(crate) unsigned: bool,
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

    /// The lane whose turn it is among those of a crew in which something waits: over fifteen turns each as often as it weighs, spread evenly.
    pub(crate) fn turn(&mut self, crew: CrewId, waits: [bool; LANE_WEIGHTS.len()]) -> Option<usize> {
        let only = waits.iter().position(|waits| *waits)?;
        if waits.iter().filter(|waits| **waits).count() == 1 {
            return Some(only);
        }
        let credits = self.turns.entry(crew).or_default();
        let mut total = 0;
        for ((credit, weight), waits) in credits.iter_mut().zip(LANE_WEIGHTS).zip(waits) {
            if waits {
                *credit += weight;
                total += weight;
            }
        }
        let waiting = credits
            .iter_mut()
            .zip(waits)
            .enumerate()
            .filter(|(_, (_, waits))| *waits);
        let (lane, (credit, _)) = waiting.max_by_key(|(_, (credit, _))| **credit)?;
        *credit -= total;
        Some(lane)
    }

    /// A crew has stopped.
    pub(crate) fn forget_crew(&mut self, crew: CrewId) {
        self.turns.remove(&crew);
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

    /// When an attempt was last seen alive.
    #[must_use]
    pub fn last_seen(&self, task: TaskId) -> Option<Time> {
        self.seen.get(&task).map(|seen| seen.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_have_their_turns_by_weight_and_none_is_left_out() {
        let crew = CrewId::new(1 << 16, 0);
        let mut observed = Observed::default();
        let mut turns = [0; 4];
        let mut last_low = 0;
        for at in 0..150 {
            let lane = observed.turn(crew, [true; 4]).unwrap();
            turns[lane] += 1;
            if lane == 0 {
                assert!(
                    at - last_low <= 15,
                    "the lowest lane has waited from {last_low} to {at}"
                );
                last_low = at;
            }
        }
        assert_eq!(turns, [10, 20, 40, 80]);
        assert_eq!(observed.turn(crew, [false, true, false, false]), Some(1));
        assert_eq!(observed.turn(crew, [false; 4]), None);
        let mut other = Observed::default();
        let pair: Vec<_> = (0..6)
            .map(|_| other.turn(crew, [false, true, true, false]).unwrap())
            .collect();
        assert_eq!(pair.iter().filter(|lane| **lane == 2).count(), 4);
    }
}
