//! What time does: starts that nobody acknowledged, leases that ran out, delays that are over.

use super::Decision;
use crate::{
    audit::Kind,
    event::{Change, Event},
    limits::MAX_STRIDE,
    reason::Reason,
    seam::RunnerCommand,
};

impl Decision<'_> {
    /// Ends the attempts of the life before and starts every agent anew.
    pub(crate) fn resume(&mut self) {
        self.compare_clock();
        if self.state.agents().next().is_some() {
            let lost: Vec<_> = self.state.index.held().filter_map(|id| self.state.task(id)).collect();
            let lost: Vec<_> = lost
                .iter()
                .filter_map(|task| Some((task.crew, task.held.as_ref()?.lease)))
                .collect();
            let before: Vec<_> = self.state.agents().map(|agent| (agent.id, agent.phase)).collect();
            let entry = self.entry(Kind::HostRestarted, format!("{} attempts were lost", lost.len()));
            self.audit.push(entry);
            self.emit(Event::HostRestarted { at: self.now });
            for (crew, lease) in lost {
                self.attempt_failed(crew, lease, Reason::Interrupted, "the host stopped");
                self.suspect(lease.task);
            }
            for (agent, phase) in before {
                self.agent_moved(agent, Some(phase), Some(Reason::Interrupted));
            }
        }
        self.settle();
    }

    /// Decides what the time that has passed makes of the state.
    pub(crate) fn tick(&mut self) {
        self.sweep_revoked();
        self.end_drained();
        for lease in self.observed.expired(self.now, MAX_STRIDE) {
            // Whoever still runs it has been fenced; it is told only so that it stops burning fuel.
            self.move_task(lease.task, Change::Lost);
            self.run(RunnerCommand::Cancel { lease });
        }
        while let Some((time, id)) = self.state.index.timers.first().copied() {
            if time > self.now || !self.step() {
                break;
            }
            let Some(task) = self.state.task(id) else {
                break;
            };
            match task.held.clone() {
                Some(held) => {
                    self.move_task(id, Change::Lost);
                    self.run(RunnerCommand::Cancel { lease: held.lease });
                }
                None => self.move_task(id, Change::Ready),
            }
        }
        self.settle();
    }
}
