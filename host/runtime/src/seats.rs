//! Who holds a lease on this runner, and who waits without one. Decides nothing: it says what fits together and what goes first.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use skep_rules::{
    id::TaskId,
    seam::{Call, Lease, TaskView},
};

use crate::{
    control::Control,
    instance::{Attempt, Prepared},
};

/// What an attempt is started with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) lease: Lease,
    pub(crate) call: Call,
    pub(crate) task: TaskView,
    /// Steps on its record.
    pub(crate) recorded: u64,
}

/// An attempt that waits, with its instance.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) attempt: Attempt,
    /// Since when, by the runner's clock.
    since: Duration,
}

/// Where a start belongs.
#[derive(Debug)]
pub(crate) enum Place {
    /// Its lease has an attempt already.
    Taken,
    /// It is kept until the attempt of the same task, which asks for something that may be answered later, has been parked.
    Early,
    /// It begins. What waited for the same task and cannot go on is to be dropped.
    Begins(Start, Option<Parked>),
    /// An attempt that waited goes on with it.
    GoesOn(Start, Parked),
}

/// All attempts of a runner.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    /// Those that hold a lease and have not ended.
    pub(crate) live: BTreeMap<Lease, Arc<Control>>,
    /// Those that wait; one per task.
    parked: HashMap<TaskId, Parked>,
    /// Starts of tasks whose attempts are about to be parked: the wake-up came first.
    early: HashMap<TaskId, Start>,
}

impl Seats {
    /// Says where a start for an agent belongs, and takes what waits for its task.
    pub(crate) fn place(&mut self, start: Start, agent: Option<&Prepared>) -> Place {
        let task = start.lease.task;
        if self.live.contains_key(&start.lease) {
            return Place::Taken;
        }
        // Ordered by task and epoch first.
        let from = Lease {
            epoch: 0,
            ..start.lease
        };
        let mut before = self.live.range(from..start.lease);
        if before.any(|(lease, control)| lease.task == task && control.is_asking()) {
            self.early.insert(task, start);
            return Place::Early;
        }
        match self.parked.remove(&task) {
            Some(parked) if agent.is_some_and(|agent| parked.fits(&start, agent)) => Place::GoesOn(start, parked),
            unfit => Place::Begins(start, unfit),
        }
    }

    /// An attempt has a lease from now on; false when the lease has one already.
    pub(crate) fn seat(&mut self, lease: Lease, control: Arc<Control>) -> bool {
        match self.live.entry(lease) {
            Entry::Vacant(place) => {
                place.insert(control);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// A lease is over. A start that came early is to be started now.
    pub(crate) fn leave(&mut self, lease: Lease) -> Option<Start> {
        self.live.remove(&lease);
        self.early.remove(&lease.task)
    }

    /// An attempt waits, its lease is over. Returns a start that came early, and what waited longest where more than `most` wait.
    pub(crate) fn park(&mut self, attempt: Attempt, now: Duration, most: usize) -> (Option<Start>, Vec<Parked>) {
        let lease = attempt.control().lease();
        let early = self.leave(lease);
        let parked = Parked { attempt, since: now };
        let mut dropped: Vec<Parked> = self.parked.insert(lease.task, parked).into_iter().collect();
        if self.parked.len() > most {
            dropped.extend(self.oldest());
        }
        (early, dropped)
    }

    /// Takes out what has waited longest.
    pub(crate) fn oldest(&mut self) -> Option<Parked> {
        let (task, _) = self.parked.iter().min_by_key(|(_, parked)| parked.since)?;
        let task = *task;
        self.parked.remove(&task)
    }

    /// Takes out what waits and is not wanted: `which` is told the lease that it had, and since when it waits.
    pub(crate) fn evict(&mut self, which: impl Fn(Lease, Duration) -> bool) -> Vec<Parked> {
        let out = |_: &TaskId, parked: &mut Parked| which(parked.attempt.control().lease(), parked.since);
        self.parked.extract_if(out).map(|(_, parked)| parked).collect()
    }

    /// The tasks whose attempts wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> Vec<TaskId> {
        let mut tasks: Vec<_> = self.parked.keys().copied().collect();
        tasks.sort();
        tasks
    }
}

impl Parked {
    /// Whether it goes on with this start: nobody ended it on its way here, the answer that it waits for is the last step of the record, and the agent is
    /// its own or one like it.
    fn fits(&self, start: &Start, agent: &Prepared) -> bool {
        self.attempt.control().halted().is_none()
            && start.recorded == self.attempt.steps() + 1
            && self.attempt.fits(agent)
    }
}
