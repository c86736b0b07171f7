//! What time does: starts that nobody acknowledged, leases that ran out, delays that are over.

use std::collections::BTreeSet;

use super::Decision;
use crate::{
    audit::{AuditEntry, Kind},
    event::{Change, Event},
    id::AgentId,
    limits::{ALERT_PAUSE, MAX_ALERTS, MAX_STRIDE, WAIT_ALERT},
    quantity::Time,
    reason::Reason,
    seam::RunnerCommand,
    task::Task,
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
            let interrupted: BTreeSet<AgentId> = lost.iter().map(|(_, lease)| lease.agent).collect();
            for (crew, lease) in lost {
                self.attempt_failed(crew, lease, Reason::Interrupted, "the host stopped");
                self.suspect(lease.task);
            }
            for (agent, phase) in before {
                let reason = interrupted.contains(&agent).then_some(Reason::Interrupted);
                self.agent_moved(agent, Some(phase), reason);
            }
        }
        self.settle();
    }

    /// Gives leases back because the host stops in order, so that the next start finds nothing lost. Nobody is told to stop: whoever held
    /// them is not listened to any more. Nothing new is handed out.
    pub(crate) fn hand_back(&mut self) {
        let held: Vec<_> = self.state.index.held().collect();
        let mut back = 0_u32;
        for id in held {
            if !self.step() {
                break;
            }
            back += u32::from(!self.state.is_ephemeral(id));
            self.move_task(id, Change::HandedBack);
        }
        // What was let finish in a tree that has failed has not finished.
        self.sweep();
        // What else follows, the next start looks at.
        self.settled = true;
        if back > 0 {
            let entry = self.entry(Kind::HostStopped, format!("{back} attempts were given back"));
            self.audit.push(entry);
        }
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
            let task = task.clone();
            self.due(&task);
        }
        self.fire_schedules();
        self.settle();
        // What can be handed out does not wait.
        self.tell_of_waits();
    }

    /// Tells of the oldest task of each kind of work that has waited too long for an agent, once of each.
    fn tell_of_waits(&mut self) {
        if self.observed.next_alert.is_none_or(|due| due > self.now) {
            return;
        }
        let before = std::mem::take(&mut self.observed.alerted);
        let (mut fresh, mut next) = (Vec::new(), None::<Time>);
        let heads = self.state.index.all_heads().filter_map(|id| self.state.task(id));
        for (task, queued) in heads.filter_map(|task| Some((task, task.queued?))) {
            let due = queued.after(WAIT_ALERT);
            let is_old = due <= self.now && !task.ephemeral;
            if is_old && before.contains(&task.id) {
                self.observed.alerted.insert(task.id);
            } else if is_old && fresh.len() < MAX_ALERTS {
                fresh.push((task.id, task.crew, queued, task.roles.clone()));
            }
            let due = if due <= self.now {
                self.now.after(WAIT_ALERT)
            } else {
                due
            };
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        // Clients and agents say how many kinds of work there are, and when each begins to wait: all are looked at, but not at each.
        self.observed.next_alert = next.map(|next| next.max(self.now.after(ALERT_PAUSE)));
        for (id, crew, queued, roles) in fresh {
            self.observed.alerted.insert(id);
            let roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
            let whom = match roles.as_slice() {
                [] => "an agent".to_owned(),
                roles => format!("an agent with role {}", roles.join(" or ")),
            };
            let entry = AuditEntry {
                crew: Some(crew),
                task: Some(id),
                ..self.entry(Kind::TaskWaits, format!("{} for {whom}", self.now.since(queued)))
            };
            self.note(entry);
        }
        // What is told travels with an entry of the journal.
        if !self.audit.is_empty() {
            self.emit(Event::TimeSeen { at: self.now });
        }
    }

    /// Does what one of the timers of a task says. A timeout goes before all else that is due in the same millisecond.
    fn due(&mut self, task: &Task) {
        if self.time_out(task) {
            return;
        }
        match task.held.clone() {
            Some(held) => {
                self.move_task(task.id, Change::Lost);
                self.run(RunnerCommand::Cancel { lease: held.lease });
            }
            None if task.asks.is_some() => task.asks.into_iter().for_each(|asks| self.lapse(task.id, asks)),
            None if self.is_expired(task.id) => self.expire(task.id),
            None if task.wait.is_some() => self.wake(task.id),
            None => self.move_task(task.id, Change::Ready),
        }
    }
}
