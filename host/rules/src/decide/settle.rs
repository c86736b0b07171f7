//! What follows by itself once something has happened: tasks whose dependencies ended, parents whose children did, trees that failed, crews
//! that drain, agents to be warmed and stopped, work to be handed out, what has ended to be archived. Everything here is found in the
//! index, so what one decision leaves over (it moves a bounded number of records) the next tick takes up.

use super::Decision;
use crate::{
    agent::{Failure, Phase},
    crew_record::CrewPhase,
    event::{Cause, Change, Event},
    facts::{Table, Write},
    id::{AgentId, CrewId, TaskId},
    limits::{MAX_AGENTS, MAX_DECISION_BYTES, MAX_STOPPED_CREWS, WAIT_ALERT},
    reason::Reason,
    seam::RunnerCommand,
    state::encode,
    task::{Task, TaskState},
};

impl Decision<'_> {
    /// Lets everything follow, as far as the stride reaches.
    pub(super) fn settle(&mut self) {
        loop {
            self.sweep();
            if !(self.quarantine_condemned()
                || self.ripen()
                || self.split_given()
                || self.join_all()
                || self.wake_all()
                || self.drain_crews()
                || self.warm_all()
                || self.stop_idle())
            {
                if self.assign() {
                    continue;
                }
                break;
            }
        }
        self.sweep();
        self.archive();
        if self.observed.next_alert.is_none() && self.state.index.all_heads().next().is_some() {
            self.observed.next_alert = Some(self.now.after(WAIT_ALERT));
        }
        self.settled = true;
    }

    /// Whether work is left that nothing but another tick would take up, where some was left before.
    pub(crate) fn is_unfinished(&self, before: bool) -> bool {
        self.stride == 0 || before && !self.settled
    }

    /// One step of the stride; false when it is used up.
    pub(super) fn step(&mut self) -> bool {
        if self.bytes > MAX_DECISION_BYTES {
            self.stride = 0;
        }
        let left = self.stride > 0;
        self.stride = self.stride.saturating_sub(1);
        left
    }

    /// Whether so many bytes more would make this decision too large, where it can be left to the next one.
    pub(super) fn is_crowded(&self, more: usize) -> bool {
        self.bytes > 0 && self.bytes + more > MAX_DECISION_BYTES
    }

    /// Ends what does not run in trees that have failed, and what runs that are over have left behind. A tree is bounded, so this is never left
    /// over.
    pub(super) fn sweep(&mut self) {
        loop {
            // Each may leave more of the others.
            if let Some((id, continues)) = self.over.pop() {
                self.clear(id, continues);
            } else if let Some(id) = self.delivered.pop() {
                self.delivered(id);
            } else if let Some(id) = self.suspects.pop() {
                self.skip_idle(id);
            } else {
                break;
            }
        }
    }

    /// Ends what does not run beneath a task, if that stands in a tree that has failed.
    fn skip_idle(&mut self, id: TaskId) {
        let Some(child) = self.doom_over(id) else {
            return;
        };
        let still = |task: &&&Task| !task.state.is_ended() && task.held.is_none() && !task.is_split();
        let idle: Vec<TaskId> = self.state.tree(id).iter().filter(still).map(|task| task.id).collect();
        for task in idle {
            self.move_task(task, Change::Skipped(Cause::Task(child)));
        }
    }

    /// Cancels the children of a task whose run is over. Where another run begins, they leave memory: a task may run for ever.
    fn clear(&mut self, id: TaskId, continues: bool) {
        let Some(task) = self.state.task(id) else {
            return;
        };
        let open = |id: &&TaskId| self.state.task(**id).is_some_and(|task| !task.state.is_ended());
        let left: Vec<TaskId> = task.children.iter().filter(open).copied().collect();
        let archives = continues && !task.children.is_empty();
        for child in left {
            self.cancel_tree(child, "the run that spawned it is over");
        }
        let needed = |task: &&Task| task.id != id && self.state.index.is_depended_on(task.id);
        if archives && !self.state.tree(id).iter().any(needed) {
            self.emit(Event::PartsArchived { task: id });
        }
    }

    /// What has failed the nearest task, at or above this one, of which a child has ended badly.
    fn doom_over(&self, id: TaskId) -> Option<TaskId> {
        let mut at = Some(id);
        while let Some(id) = at {
            if let Some(child) = self.state.index.doom_of(id) {
                return Some(child);
            }
            at = self.state.task(id)?.parent;
        }
        None
    }

    /// PENDING tasks whose time has come.
    fn ripen(&mut self) -> bool {
        let mut any = false;
        while let Some(id) = self.state.index.ripe.first().copied() {
            if !self.step() {
                return false;
            }
            let Some(task) = self.state.task(id) else {
                return false;
            };
            let bad = |other: &&Task| other.state.is_ended() && other.state != TaskState::Completed && !other.optional;
            let failed = task.dependencies.iter().filter_map(|id| self.state.task(*id)).find(bad);
            let settled = task.settled.iter().find(|end| end.output.is_err());
            let change = match (failed, settled) {
                (Some(other), _) => Change::Skipped(Cause::Task(other.id)),
                (None, Some(end)) => {
                    let message = format!("`{}` had ended without a result", end.name);
                    Change::Skipped(Cause::Own(Failure::new(Reason::DependencyFailed, &message)))
                }
                (None, None) => Change::Ready,
            };
            self.move_task(id, change);
            any = true;
        }
        any
    }

    /// WAITING tasks whose children have all ended.
    fn join_all(&mut self) -> bool {
        let mut any = false;
        while let Some(id) = self.state.index.joined.first().copied() {
            if !self.step() {
                return false;
            }
            let Some(task) = self.state.task(id) else {
                return false;
            };
            let (change, told) = match self.split_anew(task) {
                Some((change, entry)) => (change, Some(entry)),
                None => (self.join(task), None),
            };
            told.into_iter().for_each(|entry| self.note(entry));
            self.move_task(id, change);
            any = true;
        }
        any
    }

    /// Tasks of draining crews that do not run any more, and crews that are over.
    fn drain_crews(&mut self) -> bool {
        let crews: Vec<CrewId> = self.state.index.draining.iter().copied().collect();
        let mut any = false;
        for crew in crews {
            while let Some(task) = { self.state.index.loose_in(crew).next() } {
                if !self.step() {
                    return false;
                }
                let failure = Failure::new(Reason::Cancelled, "its crew was drained");
                self.move_task(task, Change::Cancelled(failure));
                any = true;
            }
            if self.state.index.is_over(crew) {
                self.move_crew(crew, CrewPhase::Stopped);
                any = true;
            }
        }
        any
    }

    fn warm_all(&mut self) -> bool {
        let mut any = false;
        while let Some(agent) = self.state.index.cold.first().copied() {
            if !self.step() {
                return false;
            }
            self.warm(agent);
            any = true;
        }
        any
    }

    fn stop_idle(&mut self) -> bool {
        let mut any = false;
        while let Some(agent) = self.state.index.idle.first().copied() {
            if !self.step() {
                return false;
            }
            let crew = self.state.agent(agent).and_then(|agent| self.state.crew(agent.crew));
            // In a crew that lives on, only what is revoked drains.
            if crew.is_some_and(|crew| crew.phase == CrewPhase::Live) {
                self.quarantine(agent);
            } else {
                self.move_agent(agent, Phase::Stopped, None);
                self.run(RunnerCommand::Forget { agent });
            }
            any = true;
        }
        any
    }

    /// Lets ended trees go from memory (each task wrote its row when it ended), and stopped crews beyond those that are kept.
    fn archive(&mut self) {
        while let Some(root) = self.state.index.closed.first().copied() {
            self.emit(Event::TreeArchived { root });
        }
        let kept = self.state.index.stopped.len();
        let crowded = self.state.agent_count() > 2 * MAX_AGENTS;
        if kept > MAX_STOPPED_CREWS || crowded {
            let mut stopped = self.state.index.stopped.iter().map(|(_, crew)| *crew);
            if let Some(oldest) = stopped.find(|crew| !self.state.index.has_tasks(*crew)) {
                self.archive_crew(oldest);
            }
        }
    }

    fn archive_crew(&mut self, id: CrewId) {
        let Some(crew) = self.state.crew(id) else {
            return;
        };
        let mut writes = vec![Write {
            table: Table::Crews,
            key: id.to_bytes().to_vec(),
            value: Some(encode(crew)),
        }];
        let key = |agent: AgentId| [id.to_bytes(), agent.to_bytes()].concat();
        writes.extend(self.state.agents_of(id).map(|agent| Write {
            table: Table::Agents,
            key: key(agent.id),
            value: Some(encode(agent)),
        }));
        self.writes.extend(writes);
        self.emit(Event::CrewArchived { crew: id });
    }
}
