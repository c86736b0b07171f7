//! Who works on what: tasks by lane and in the order of their creation, agents by role, then least load, fewest tasks, place in the crew.

use std::collections::{BTreeMap, BTreeSet};

use super::Decision;
use crate::{
    agent::{Agent, Failure, Phase},
    crew_record::Member,
    event::{Cause, Change},
    id::{AgentId, CrewId, Digest, TaskId},
    index::{Head, Need},
    lease::Held,
    priority::Priority,
    reason::Reason,
    seam::{Call, Export, Lease, RunnerCommand},
    state::State,
    task::Task,
};

impl Decision<'_> {
    /// Hands out work in every crew where something changed. True when tasks were ended for want of anybody who could take them, so that
    /// what follows from that is looked at again.
    pub(super) fn assign(&mut self) -> bool {
        let mut ended = false;
        while let Some(crew) = self.observed.stirred.first().copied() {
            if !self.assign_in(crew, &mut ended) {
                return false;
            }
            self.observed.stirred.remove(&crew);
        }
        ended
    }

    /// False when the stride was used up before the crew was served.
    fn assign_in(&mut self, crew: CrewId, ended: &mut bool) -> bool {
        let lone = self.state.lone_checker(crew);
        // What is for an agent that is busy waits for it: there may be a thousand such queues, and each decision comes by here.
        let waits = |need: &Need| {
            let only = need.agent.and_then(|only| self.state.agent(only));
            only.is_some_and(|agent| {
                let is_busy = agent.phase.may_serve() && agent.phase != Phase::Ready;
                is_busy && admits(need, agent.id, lone) && self.state.member_for(crew, need, agent).is_some()
            })
        };
        let mut heads = self.state.index.heads(crew, |need| !waits(need));
        heads.sort_unstable_by_key(|head| head.order);
        let hopeless: Vec<(Head, String)> = heads
            .iter()
            .filter_map(|head| Some((head.clone(), self.can_serve(crew, &head.need).err()?)))
            .collect();
        for (Head { need, lane, .. }, why) in hopeless {
            while let Some((_, task)) = self.state.index.head_of(crew, &need, lane) {
                if !self.step() {
                    return false;
                }
                if self.was_quarantined(crew, &need) {
                    let why = format!("{why}; those who could are quarantined");
                    self.move_task(task, Change::Paused(Failure::new(Reason::Revoked, &why)));
                    continue;
                }
                if need.pinned.is_some() {
                    let why = format!("{why}, and only the component that made its record can continue it");
                    self.move_task(task, Change::Paused(Failure::new(Reason::NotFound, &why)));
                    continue;
                }
                self.move_task(task, Change::Failed(Cause::Own(Failure::new(Reason::NotFound, &why))));
                *ended = true;
            }
            heads.retain(|head| head.need != need || head.lane != lane);
        }
        // One queue at a time: after each assignment only that queue's head changes.
        while let Some((at, task, agent)) = self.match_next(crew, &heads, lone) {
            if !self.step() {
                return false;
            }
            if self.is_expired(task) {
                self.expire(task);
                *ended = true;
            } else {
                *ended |= !self.lease(task, agent);
            }
            let Some(head) = heads.get_mut(at) else {
                break;
            };
            match self.state.index.head_of(crew, &head.need, head.lane) {
                Some(next) => (head.order, head.task) = next,
                None => drop(heads.remove(at)),
            }
            heads.sort_unstable_by_key(|head| head.order);
        }
        true
    }

    /// The task that is next, and who takes it: the oldest for which somebody is free, of the lane whose turn it is. Who waits long is in a
    /// higher lane than it came with; within a queue the order is that of creation.
    fn match_next(&mut self, crew: CrewId, heads: &[Head], lone: Option<AgentId>) -> Option<(usize, TaskId, AgentId)> {
        let mut found: BTreeMap<Priority, (usize, TaskId, AgentId)> = BTreeMap::new();
        for (at, head) in heads.iter().enumerate() {
            let queued = self.state.task(head.task).and_then(|task| task.queued);
            let lane = head.lane.at(queued, self.now);
            if !found.contains_key(&lane)
                && let Some(agent) = self.free_for(crew, head, lone)
            {
                found.insert(lane, (at, head.task, agent));
            }
            if found.len() == Priority::ALL.len() {
                break;
            }
        }
        if found.is_empty() {
            return None;
        }
        let turns = self.observed.turns.entry(crew).or_default();
        let lane = turns.take(|lane| found.contains_key(&lane))?;
        found.remove(&lane)
    }

    /// Who is free for a task.
    fn free_for(&self, crew: CrewId, head: &Head, lone: Option<AgentId>) -> Option<AgentId> {
        if let Some(only) = head.need.agent {
            let agent = self.state.agent(only).filter(|agent| agent.phase == Phase::Ready)?;
            let digest = self.state.member_for(crew, &head.need, agent)?.digest;
            return (!self.state.is_void(digest) && admits(&head.need, only, lone)).then_some(only);
        }
        let free = |member| {
            self.state
                .index
                .free_of(crew, member)
                .find(|(.., agent)| admits(&head.need, *agent, lone))
        };
        // What was revoked since the last sweep still has free agents; they are given nothing.
        let members = self
            .state
            .members_for(crew, &head.need)
            .filter(|(_, digest)| !self.state.is_void(*digest));
        let (.., agent) = members.filter_map(|(member, _)| free(member)).min()?;
        Some(self.keeper_of(crew, head.task, &head.need, lone).unwrap_or(agent))
    }

    /// Whoever had a run that goes on may still keep its instance: it is given the run again if it is free.
    fn keeper_of(&self, crew: CrewId, task: TaskId, need: &Need, lone: Option<AgentId>) -> Option<AgentId> {
        let task = self
            .state
            .task(task)
            .filter(|task| task.steps > 0 && need.export != Export::Checker)?;
        let agent = self.state.agent(task.last_agent?)?;
        let mut free = self.state.index.free_of(crew, agent.member);
        let is_free = agent.phase == Phase::Ready && free.any(|(.., free)| free == agent.id);
        let serves = self
            .state
            .members_for(crew, need)
            .any(|(member, digest)| member == agent.member && !self.state.is_void(digest));
        (is_free && serves && admits(need, agent.id, lone)).then_some(agent.id)
    }

    /// Gives a task to an agent; false where the task has ended instead.
    fn lease(&mut self, id: TaskId, agent: AgentId) -> bool {
        let (Some(task), Some(agent)) = (self.state.task(id), self.state.agent(agent)) else {
            return true;
        };
        let lease = Lease {
            task: id,
            epoch: task.epoch + 1,
            agent: agent.id,
            generation: agent.generation,
        };
        let held = Held {
            lease,
            export: task.export(),
            since: self.now,
            started: false,
            facts: None,
        };
        let received = task.delivery.as_ref().map(|delivery| self.receive(delivery));
        let Some(call) = received.unwrap_or_else(|| Some(call(task))) else {
            let failure = Failure::new(Reason::HostFault, "its message is not there");
            self.move_task(id, Change::Failed(Cause::Own(failure)));
            return false;
        };
        let recorded = task.steps;
        let view = self.view(task);
        if !view.input.fits() {
            let message = "the outputs in its slots make an input larger than 256 KiB; have them stored as artifacts";
            let failure = Failure::new(Reason::InvalidInput, message);
            self.move_task(id, Change::Failed(Cause::Own(failure)));
            return false;
        }
        let checks = held.export == Export::Checker;
        let begins = recorded == 0 && !checks;
        let held = Held {
            facts: view.facts.clone().filter(|_| begins),
            ..held
        };
        self.move_task(id, Change::Assigned(held));
        self.run(RunnerCommand::Start {
            lease,
            call,
            task: view,
            recorded: if checks { 0 } else { recorded },
        });
        true
    }

    /// Whether somebody who could take a task of this need was quarantined: then a person decides what becomes of it.
    fn was_quarantined(&self, crew: CrewId, need: &Need) -> bool {
        let members: BTreeSet<u32> = self.state.members_for(crew, need).map(|(member, _)| member).collect();
        let quarantined = |agent: &Agent| agent.phase == Phase::Quarantined;
        self.state
            .agents_of(crew)
            .any(|agent| quarantined(agent) && members.contains(&agent.member))
    }

    /// Whether anybody in a crew could ever take a task of this need; if not, why.
    pub(super) fn can_serve(&self, crew: CrewId, need: &Need) -> Result<(), String> {
        let lone = self.state.lone_checker(crew);
        if let Some(agent) = need.agent.and_then(|only| self.state.agent(only))
            && agent.phase.may_serve()
            && self.state.member_for(crew, need, agent).is_some()
            && admits(need, agent.id, lone)
        {
            return Ok(());
        }
        let members = self.state.members_for(crew, need);
        let mut agents = members.flat_map(|(member, _)| self.state.index.able_of(crew, member));
        if agents.any(|agent| admits(need, agent, lone)) {
            return Ok(());
        }
        let what = match need.export {
            Export::Executor => "execute",
            Export::Planner => "plan",
            Export::Checker => "check",
            Export::Mailbox => "receive",
            Export::Sequencer => "put in order",
        };
        let mut why = format!("no agent of the crew can {what} it");
        if !need.roles.is_empty() {
            let roles: Vec<&str> = need.roles.iter().map(crate::id::Role::as_str).collect();
            why.push_str(&format!(" (role {})", roles.join(" or ")));
        }
        if need.agent.is_some() {
            why.push_str(" (one agent was named)");
        }
        if need.check && lone.is_some() {
            why.push_str("; the only checker must not execute what it will check");
        }
        let failed = self
            .state
            .agents_of(crew)
            .find_map(|agent| Some((&agent.name, agent.failure.as_ref()?)));
        if let Some((name, failure)) = failed {
            why.push_str(&format!("; agent `{name}` failed: {}", failure.message));
        }
        Err(why)
    }
}

/// What the next attempt at a task calls.
fn call(task: &Task) -> Call {
    match (task.export(), &task.candidate) {
        (Export::Checker, Some(result)) => Call::Check { result: result.clone() },
        (Export::Planner, _) => Call::Plan {
            notes: task.notes.clone(),
        },
        (Export::Sequencer, _) => match &task.draft {
            Some(draft) => Call::Sequence {
                plan: Box::new(draft.plan.clone()),
            },
            None => Call::Execute,
        },
        _ => Call::Execute,
    }
}

impl State {
    /// The members of a crew whose agents are what a task needs, by their place in the manifest, and what they run.
    fn members_for<'a>(&'a self, crew: CrewId, need: &'a Need) -> impl Iterator<Item = (u32, Digest)> + 'a {
        let members = self.crew(crew).map(|crew| crew.members.as_slice()).unwrap_or_default();
        let members = (0..).zip(members).filter(|(_, member)| serves(member, need));
        members.map(|(at, member)| (at, member.digest))
    }

    /// What an agent of a crew is, if it is what a task needs.
    fn member_for(&self, crew: CrewId, need: &Need, agent: &Agent) -> Option<&Member> {
        let member = self.member_of(agent).filter(|_| agent.crew == crew)?;
        serves(member, need).then_some(member)
    }

    /// The checker of a crew that has no other.
    fn lone_checker(&self, crew: CrewId) -> Option<AgentId> {
        let need = Need::any(Export::Checker);
        let mut checkers = self
            .members_for(crew, &need)
            .flat_map(|(member, _)| self.index.able_of(crew, member));
        let first = checkers.next()?;
        checkers.next().is_none().then_some(first)
    }
}

/// Whether agents of a member are what a task needs.
fn serves(member: &Member, need: &Need) -> bool {
    member.exports.contains(&need.export)
        && (need.roles.is_empty() || !need.roles.is_disjoint(&member.roles))
        && need.pinned.is_none_or(|digest| digest == member.digest)
}

/// Whether a task may go to this very agent, its member aside.
fn admits(need: &Need, agent: AgentId, lone_checker: Option<AgentId>) -> bool {
    need.agent.is_none_or(|only| only == agent)
        && need.except != Some(agent)
        && !(need.check && lone_checker == Some(agent))
}
