//! What each event does to the records. Transitions that the tables of `task` and `agent` do not have are refused.

use std::collections::BTreeSet;

use super::{Corrupt, Key, State, Tail};
use crate::{
    agent::{Agent, Failure, Phase},
    approval::{Asks, Point, Verdict},
    crew_record::{Crew, CrewPhase},
    event::{Cause, Change, Counts, Event, Source},
    id::{AgentId, ApprovalId, CrewId, Digest, Name, TaskId},
    index::Index,
    lease::Held,
    lifecycle::{Hold, Past},
    limits::{MAX_ALWAYS, MAX_DEAD_LETTERS, MAX_DEAD_MESSAGES, MAX_DENIALS, MAX_HISTORY},
    message::{Class, Dead, Message},
    plan::Payload,
    plugin::Plugin,
    quantity::Time,
    reason::Reason,
    seam::{Denial, Export, Lease, Usage},
    task::{Draft, Task, TaskState},
    trust::{Highest, Revocation, SeenClock, Trusted},
};

impl State {
    /// Changes the records as an event says.
    ///
    /// # Errors
    /// When the event does not fit the records; they are then not to be used any more.
    pub fn apply(&mut self, event: &Event) -> Result<(), Corrupt> {
        self.see(event);
        match event {
            Event::PluginInstalled(plugin) => {
                self.install(plugin);
                Ok(())
            }
            Event::PluginRemoved { digest, .. } => {
                self.plugins.remove(digest).ok_or_else(|| missing(digest))?;
                self.gone(Key::Plugin(*digest));
                self.examine_plugins();
                Ok(())
            }
            Event::PublisherTrusted { .. }
            | Event::RootAdopted { .. }
            | Event::KeysRotated { .. }
            | Event::IndexAdopted { .. }
            | Event::ClockAdopted { .. }
            | Event::Revoked { .. } => self.change_trust(event),
            Event::CrewAssembled { crew, agents } => {
                self.assemble(crew, agents);
                Ok(())
            }
            Event::CrewMoved { crew, to, at } => self.move_crew(*crew, *to, *at),
            Event::CrewArchived { crew } => {
                self.archive_crew(*crew);
                Ok(())
            }
            Event::AgentMoved { agent, to, at, failure } => self.move_agent(*agent, *to, *at, failure.as_ref()),
            Event::HostRestarted { at } => self.restart(*at),
            Event::TaskAccepted(task) => self.accept(task),
            Event::AttemptUsed { lease, usage, denials } => self.account(lease, usage, denials),
            Event::TaskMoved { task, change, at } => self.move_task(*task, change, *at),
            Event::Stepped { task, at, step } => self.take_step(*task, *at, step),
            Event::RecordSpilled { task } => self.spill(*task),
            Event::NamespaceChanged { name, namespace } => {
                self.namespaces.insert(name.clone(), namespace.clone());
                self.touch(Key::Namespace(name.clone()));
                Ok(())
            }
            Event::PartsArchived { task } => self.archive_parts(*task),
            Event::MessageSent(message) => {
                self.keep_message(message);
                if let Some(delivery) = message.redrives {
                    self.dead_messages.retain(|dead| dead.delivery != delivery);
                    self.touch(Key::DeadMessages);
                }
                Ok(())
            }
            Event::ScheduleCreated(schedule) => {
                self.keep_schedule(schedule);
                Ok(())
            }
            Event::ScheduleAdvanced {
                crew,
                name,
                advance,
                next,
                at,
            } => self.advance_schedule(crew, name, advance, *next, *at),
            Event::ScheduleDeleted { crew, name, .. } => self.drop_schedule(crew, name),
            Event::ApprovalAsked(approval) => {
                self.approvals.insert(approval.id, approval.as_ref().clone());
                self.touch(Key::Approval(approval.id));
                Ok(())
            }
            Event::ApprovalDecided {
                approval,
                items,
                verdict,
            } => self.rule(*approval, items, verdict),
            Event::ApprovalEscalated { approval, until, .. } => self.escalate(*approval, *until),
            Event::ApprovalSettled { approval, .. } => {
                self.approvals.remove(approval).ok_or_else(|| missing(approval))?;
                self.gone(Key::Approval(*approval));
                Ok(())
            }
            Event::AttemptFenced { .. }
            | Event::CacheRefused { .. }
            | Event::TimeSeen { .. }
            | Event::TimeReset { .. } => Ok(()),
            Event::TreeArchived { root } => {
                self.forget_tree(*root);
                Ok(())
            }
        }
    }

    /// Drops a task and everything beneath it from memory, and says how many that were.
    fn forget_tree(&mut self, top: TaskId) -> usize {
        let tree: Vec<TaskId> = self.tree(top).iter().map(|task| task.id).collect();
        for id in &tree {
            if let Some(task) = self.tasks.remove(id) {
                if task.ephemeral {
                    self.recent.keep(&task);
                }
                self.index.forget_task(&task);
                self.gone(Key::Task(*id));
                self.drop_message(&task);
            }
        }
        tree.len()
    }

    /// Keeps a message as long as a delivery of it is in memory. Those are accepted in the same decision.
    fn keep_message(&mut self, message: &Message) {
        if message.receivers > 0 {
            self.messages.insert(message.id, message.clone());
            self.touch(Key::Message(message.id));
        }
    }

    /// Lets the message of a delivery go that was the last one.
    fn drop_message(&mut self, task: &Task) {
        if let Some(delivery) = &task.delivery
            && !self.index.is_delivered(delivery.message)
            && self.messages.remove(&delivery.message).is_some()
        {
            self.gone(Key::Message(delivery.message));
        }
    }

    fn archive_parts(&mut self, id: TaskId) -> Result<(), Corrupt> {
        let task = self.tasks.get_mut(&id).ok_or_else(|| missing(id))?;
        let (root, parts) = (task.root, std::mem::take(&mut task.children));
        task.planned_from = 0;
        self.touch(Key::Task(id));
        let gone: usize = parts.into_iter().map(|part| self.forget_tree(part)).sum();
        if let Some(root) = self.tasks.get_mut(&root) {
            root.nodes = root.nodes.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
        }
        self.touch(Key::Task(root));
        Ok(())
    }

    /// The component that an attempt at a task runs.
    fn component_of(&self, task: &Task) -> Option<Digest> {
        let agent = self.agents.get(&task.held.as_ref()?.lease.agent)?;
        self.member_of(agent).map(|member| member.digest)
    }

    fn take_step(&mut self, id: TaskId, at: Time, step: &[u8]) -> Result<(), Corrupt> {
        let task = self.tasks.get(&id).ok_or_else(|| missing(id))?;
        let pinned = task.pinned.or_else(|| self.component_of(task));
        let first = task.steps;
        let task = self.tasks.get_mut(&id).ok_or_else(|| missing(id))?;
        task.pinned = pinned;
        task.steps += 1;
        task.record_bytes += step.len() as u64;
        task.stepped = Some(at);
        let tail = self.tails.entry(id).or_insert_with(|| Tail {
            first,
            bytes: Vec::new(),
        });
        tail.bytes.extend_from_slice(step);
        self.touch(Key::Task(id));
        self.touch(Key::Tail(id));
        Ok(())
    }

    fn spill(&mut self, id: TaskId) -> Result<(), Corrupt> {
        let steps = self.tasks.get(&id).ok_or_else(|| missing(id))?.steps;
        let tail = self.tails.get_mut(&id).ok_or_else(|| missing(id))?;
        tail.first = steps;
        tail.bytes = Vec::new();
        self.touch(Key::Tail(id));
        Ok(())
    }

    fn drop_tail(&mut self, id: TaskId) {
        if self.tails.remove(&id).is_some() {
            self.gone(Key::Tail(id));
        }
    }

    /// Takes note of the time of an event that is journaled. Time does not go back but by a person's word.
    fn see(&mut self, event: &Event) {
        let at = match event {
            Event::PluginInstalled(plugin) => plugin.installed_at,
            Event::CrewAssembled { crew, .. } => crew.created,
            Event::TaskAccepted(task) => task.created,
            Event::MessageSent(message) => message.created,
            Event::ScheduleCreated(schedule) => schedule.created,
            Event::ScheduleAdvanced { at, .. } | Event::ScheduleDeleted { at, .. } => *at,
            Event::ApprovalAsked(approval) => approval.asked,
            Event::ApprovalDecided { verdict, .. } => verdict.at,
            Event::CrewMoved { at, .. }
            | Event::AgentMoved { at, .. }
            | Event::HostRestarted { at }
            | Event::TaskMoved { at, .. }
            | Event::PluginRemoved { at, .. }
            | Event::PublisherTrusted { at, .. }
            | Event::RootAdopted { at, .. }
            | Event::KeysRotated { at, .. }
            | Event::IndexAdopted { at, .. }
            | Event::ClockAdopted { at, .. }
            | Event::Revoked { at, .. }
            | Event::CacheRefused { at, .. }
            | Event::ApprovalEscalated { at, .. }
            | Event::ApprovalSettled { at, .. }
            | Event::TimeReset { at }
            | Event::TimeSeen { at } => *at,
            // An alarm's time is what the agent was told, not what was seen.
            Event::Stepped { .. }
            | Event::CrewArchived { .. }
            | Event::RecordSpilled { .. }
            | Event::NamespaceChanged { .. }
            | Event::PartsArchived { .. }
            | Event::AttemptUsed { .. }
            | Event::TreeArchived { .. }
            | Event::AttemptFenced { .. } => return,
        };
        // Most events are decided many to a millisecond; the record is touched once for all of them.
        let later = at > self.trust.latest && !self.is_volatile(event);
        if later || matches!(event, Event::TimeReset { .. }) {
            self.trust.latest = at;
            self.touch(Key::Latest);
        }
    }

    /// The record and the number of its release in one: what stands against an older one is remembered with the install, or not at all.
    fn install(&mut self, plugin: &Plugin) {
        if let Some(signed) = &plugin.signed {
            let name = &plugin.manifest.plugin.name;
            let highest = Highest {
                release_seq: signed.release_seq,
                digest: plugin.digest,
                statement: signed.statement,
            };
            let known = self.trust.highest.get(name);
            if known.is_none_or(|known| known.release_seq <= highest.release_seq) {
                self.trust.highest.insert(name.clone(), highest);
                self.touch(Key::Highest(name.clone()));
            }
        }
        self.plugins.insert(plugin.digest, plugin.clone());
        self.touch(Key::Plugin(plugin.digest));
        if self.trust.stands(plugin).is_err() {
            self.void.insert(plugin.digest);
        }
    }

    fn change_trust(&mut self, event: &Event) -> Result<(), Corrupt> {
        let mut names: BTreeSet<Name> = BTreeSet::new();
        let ended = match event {
            Event::Revoked { what, .. } => self.keys_ended_by(what),
            _ => BTreeSet::new(),
        };
        let trust = &mut self.trust;
        match event {
            Event::PublisherTrusted { publisher, at } => {
                let known = trust.publishers.get(&publisher.name);
                let trusted = Trusted {
                    publisher: publisher.as_ref().clone(),
                    // A recovery key that stays keeps the rotations that it signed from being shown again.
                    rotation: known.map_or(0, |known| known.rotation),
                    since: known.map_or(*at, |known| known.since),
                    granted: publisher.release.clone(),
                };
                trust.publishers.insert(publisher.name.clone(), trusted);
                names.insert(publisher.name.clone());
            }
            Event::RootAdopted { root, at } => {
                names.extend(trust.publishers.keys().cloned());
                trust.adopt_root(root, *at);
                names.extend(trust.publishers.keys().cloned());
            }
            Event::KeysRotated { rotation, .. } => {
                let name = &rotation.publisher;
                let trusted = trust.publishers.get_mut(name).ok_or_else(|| missing(name))?;
                trusted.rotation = rotation.version;
                trusted.publisher.release = rotation.release.clone();
                trusted.publisher.recovery = Some(rotation.recovery);
                // How long it is trusted is not the publisher's to say.
                trusted.publisher.expires = trusted.publisher.expires.min(rotation.expires);
                names.insert(name.clone());
            }
            Event::IndexAdopted { index, digest, .. } => trust.adopt_index(index, *digest),
            Event::ClockAdopted { clock, .. } => {
                trust.metadata.clock = Some(SeenClock::of(clock));
            }
            Event::Revoked { what, .. } => {
                if let Revocation::Publisher(name) = what {
                    names.insert(name.clone());
                }
                trust.revoke(what, ended);
            }
            _ => {}
        }
        for name in names {
            match self.trust.publishers.contains_key(&name) {
                true => self.touch(Key::Publisher(name)),
                false => self.gone(Key::Publisher(name)),
            }
        }
        self.touch(Key::Metadata);
        self.examine_plugins();
        Ok(())
    }

    fn assemble(&mut self, crew: &Crew, agents: &[AgentId]) {
        let named = crew.manifest.members.iter().zip(0..).flat_map(|(member, index)| {
            let names: Vec<_> = member.agent_names().collect();
            names.into_iter().map(move |name| (index, name))
        });
        for ((member, name), (id, place)) in named.zip(agents.iter().zip(0..)) {
            let agent = Agent {
                id: *id,
                crew: crew.id,
                name,
                member,
                place,
                phase: Phase::Provisioning,
                generation: 1,
                slots: 1,
                active: 0,
                revision: 1,
                tasks: 0,
                fuel: crate::quantity::Fuel(0),
                peak_memory: crate::quantity::Size(0),
                failure: None,
                changed: crew.created,
            };
            self.index.add_agent(&agent);
            self.agents.insert(*id, agent);
            self.touch(Key::Agent(*id));
        }
        self.index.add_crew(crew);
        self.crews.insert(crew.id, crew.clone());
        self.touch(Key::Crew(crew.id));
        self.pace(&crew.manifest.name);
    }

    fn move_crew(&mut self, id: CrewId, to: CrewPhase, at: Time) -> Result<(), Corrupt> {
        let crew = self.crews.get_mut(&id).ok_or_else(|| missing(id))?;
        if to <= crew.phase {
            return Err(illegal(id, format!("{:?}", crew.phase), format!("{to:?}")));
        }
        self.index.remove_crew(crew);
        crew.phase = to;
        crew.revision += 1;
        crew.ended = (to == CrewPhase::Stopped).then_some(at);
        self.index.add_crew(crew);
        let name = crew.manifest.name.clone();
        self.touch(Key::Crew(id));
        self.pace(&name);
        Ok(())
    }

    fn archive_crew(&mut self, id: CrewId) {
        let agents: Vec<AgentId> = self.index.agents_of(id).collect();
        for agent in agents {
            if let Some(agent) = self.agents.remove(&agent) {
                self.index.forget_agent(&agent);
                self.gone(Key::Agent(agent.id));
            }
        }
        if let Some(crew) = self.crews.remove(&id) {
            self.index.remove_crew(&crew);
        }
        self.gone(Key::Crew(id));
    }

    fn move_agent(&mut self, id: AgentId, to: Phase, at: Time, failure: Option<&Failure>) -> Result<(), Corrupt> {
        let agent = self.agents.get_mut(&id).ok_or_else(|| missing(id))?;
        if !agent.phase.leaves_to().contains(&to) {
            return Err(illegal(id, agent.phase, to));
        }
        self.index.remove_agent(agent);
        agent.phase = to;
        agent.failure = failure.cloned();
        agent.changed = at;
        agent.revision += 1;
        self.index.add_agent(agent);
        self.touch(Key::Agent(id));
        Ok(())
    }

    fn restart(&mut self, at: Time) -> Result<(), Corrupt> {
        for id in self.index.held().collect::<Vec<_>>() {
            self.move_task(id, &Change::Lost, at)?;
        }
        let mut moved = Vec::new();
        for agent in self.agents.values_mut() {
            // A lease on an ephemeral task is in the records of a checkpoint, and its end in no entry.
            let stale = agent.active > 0;
            let rests = matches!(agent.phase, Phase::Stopped | Phase::Failed | Phase::Quarantined);
            if rests && !stale {
                continue;
            }
            self.index.remove_agent(agent);
            agent.active = 0;
            if rests {
                self.index.add_agent(agent);
                moved.push(Key::Agent(agent.id));
                continue;
            }
            if agent.phase.may_serve() {
                agent.phase = Phase::Provisioning;
                agent.changed = at;
            }
            agent.generation += 1;
            agent.revision += 1;
            self.index.add_agent(agent);
            moved.push(Key::Agent(agent.id));
        }
        self.dirty.extend(moved);
        Ok(())
    }

    fn accept(&mut self, task: &Task) -> Result<(), Corrupt> {
        if let Some(parent) = task.parent {
            let parent = self.tasks.get_mut(&parent).ok_or_else(|| missing(parent))?;
            parent.children.push(task.id);
            // What a part may burn its parent may not: budgets are split.
            if let (Some(left), Some(share)) = (&mut parent.budget, task.budget) {
                left.0 = left.0.saturating_sub(share.0);
            }
            let root = self.tasks.get_mut(&task.root).ok_or_else(|| missing(task.root))?;
            root.nodes += 1;
            self.touch(Key::Task(task.root));
        }
        if let Some(dead) = task.redrives {
            self.exhume(dead);
        }
        self.next_order = self.next_order.max(task.order.saturating_add(1));
        self.tasks.insert(task.id, Box::new(task.clone()));
        self.index.accept_task(task, &self.tasks);
        self.touch(Key::Task(task.id));
        Ok(())
    }

    fn account(&mut self, lease: &Lease, usage: &Usage, denials: &[Denial]) -> Result<(), Corrupt> {
        let task = self.tasks.get_mut(&lease.task).ok_or_else(|| missing(lease.task))?;
        task.fuel.0 = task.fuel.0.saturating_add(usage.fuel.0);
        task.peak_memory = task.peak_memory.max(usage.peak_memory);
        for denial in denials {
            let same = |known: &&mut Denial| known.reason == denial.reason && known.what == denial.what;
            if let Some(known) = task.denials.iter_mut().find(same) {
                known.count = known.count.saturating_add(denial.count);
            } else if task.denials.len() < MAX_DENIALS {
                task.denials.push(denial.clone());
            }
        }
        task.revision += 1;
        self.touch(Key::Task(lease.task));
        let agent = self.agents.get_mut(&lease.agent).ok_or_else(|| missing(lease.agent))?;
        agent.fuel.0 = agent.fuel.0.saturating_add(usage.fuel.0);
        agent.peak_memory = agent.peak_memory.max(usage.peak_memory);
        agent.revision += 1;
        self.touch(Key::Agent(lease.agent));
        Ok(())
    }

    /// Puts a decision on an open approval; one that is for always on the task as well.
    fn rule(&mut self, id: ApprovalId, items: &[u32], verdict: &Verdict) -> Result<(), Corrupt> {
        let approval = self.approvals.get_mut(&id).ok_or_else(|| missing(id))?;
        for item in items {
            approval.verdicts.insert(*item, verdict.clone());
        }
        let (of, action) = (approval.task, approval.action.clone());
        self.touch(Key::Approval(id));
        let task = self.tasks.get_mut(&of).ok_or_else(|| missing(of))?;
        if verdict.always && task.always.len() < MAX_ALWAYS && !task.always.contains(&action) {
            task.always.push(action);
        }
        task.revision += 1;
        self.touch(Key::Task(of));
        Ok(())
    }

    fn escalate(&mut self, id: ApprovalId, until: Time) -> Result<(), Corrupt> {
        let approval = self.approvals.get_mut(&id).ok_or_else(|| missing(id))?;
        approval.escalated += 1;
        approval.until = until;
        let of = approval.task;
        self.touch(Key::Approval(id));
        let task = self.tasks.get_mut(&of).ok_or_else(|| missing(of))?;
        self.index.remove_task(task);
        task.asks = task.asks.map(|asks| Asks { until, ..asks });
        task.revision += 1;
        self.index.add_task(task);
        self.touch(Key::Task(of));
        Ok(())
    }

    fn move_task(&mut self, id: TaskId, change: &Change, at: Time) -> Result<(), Corrupt> {
        let child = match change {
            Change::Completed(Source::Child(child))
            | Change::Candidate(Source::Child(child))
            | Change::Asks {
                result: Some(Source::Child(child)),
                ..
            } => {
                let child = self.tasks.get(child).ok_or_else(|| missing(child))?;
                Some((child.result.clone(), child.executed_by))
            }
            _ => None,
        };
        let failure = match change {
            Change::Failed(cause) | Change::Skipped(cause) => Some(self.failure(cause)?),
            Change::Cancelled(failure)
            | Change::Paused(failure)
            | Change::Exhausted(failure)
            | Change::Held(failure)
            | Change::Rejected(failure) => Some(failure.clone()),
            Change::Buried(failure) => {
                let message = format!("{}: {}", failure.reason, failure.message);
                Some(Failure::new(Reason::DeadLetter, &message))
            }
            _ => None,
        };
        let task = self.tasks.get(&id).ok_or_else(|| missing(id))?;
        let begins = change.begins_run(task.held.as_ref());
        // A wait may be the first step of its run.
        let pinned = matches!(change, Change::Waits(_) | Change::Asks { wait: Some(_), .. })
            .then(|| task.pinned.or_else(|| self.component_of(task)))
            .flatten();
        let task = self.tasks.get_mut(&id).ok_or_else(|| missing(id))?;
        let Some(to) = target(task.state, change) else {
            return Err(illegal(id, task.state, format!("{change:?}")));
        };
        self.index.remove_task(task);
        let release = (!change.keeps_lease()).then(|| task.held.take()).flatten();
        let from = task.state;
        task.state = to;
        task.revision += 1;
        if *change == Change::HandedBack
            && let Some(held) = &release
        {
            task.attempts -= u32::from(held.started && held.export != Export::Checker);
        }
        alter(task, change, child, release.as_ref().map(|held| held.lease.agent), at);
        remember(task, change, release.as_ref(), at);
        queue(task, from, change, at);
        task.pinned = pinned.or(task.pinned);
        if begins {
            begin_run(task);
        }
        if failure.is_some() {
            task.failure = failure;
            if to.is_ended() {
                task.candidate = None;
            }
        }
        if to.is_ended() {
            (task.ended, task.wait, task.asks) = (Some(at), None, None);
            task.always = Vec::new();
        }
        self.index.add_task(task);
        if let Some(task) = self.tasks.get(&id) {
            if to.is_ended() {
                self.index.end_task(task, &self.tasks);
            } else {
                self.index.watch(task, &self.tasks);
            }
        }
        if begins || to.is_ended() {
            self.drop_tail(id);
        }
        if matches!(change, Change::Buried(_)) {
            self.bury(id);
        }
        self.lose(id);
        self.touch(Key::Task(id));
        match (change, release) {
            (Change::Assigned(held), _) => self.occupy(held.lease.agent, 1),
            (_, Some(held)) => self.occupy(held.lease.agent, -1),
            _ => Ok(()),
        }
    }

    /// Keeps a task as a dead letter. Of too many the oldest is one no longer.
    fn bury(&mut self, id: TaskId) {
        if self.dead.len() >= MAX_DEAD_LETTERS {
            self.dead.pop_front();
        }
        self.dead.push_back(id);
        self.touch(Key::DeadLetters);
    }

    /// Keeps a delivery that has failed, and was to be tried until it was received, as a dead letter. Of too many the oldest is one no longer.
    fn lose(&mut self, id: TaskId) {
        let task = self.tasks.get(&id).filter(|task| task.state == TaskState::Failed);
        let delivery = task.and_then(|task| task.delivery.as_ref());
        let Some(delivery) = delivery.filter(|delivery| delivery.kind.class() == Class::AtLeastOnce) else {
            return;
        };
        let dead = Dead {
            message: delivery.message,
            delivery: id,
        };
        if self.dead_messages.len() >= MAX_DEAD_MESSAGES {
            self.dead_messages.pop_front();
        }
        self.dead_messages.push_back(dead);
        self.touch(Key::DeadMessages);
    }

    fn exhume(&mut self, id: TaskId) {
        self.dead.retain(|dead| *dead != id);
        self.touch(Key::DeadLetters);
    }

    /// Why a task ends, in words.
    pub(crate) fn failure(&self, cause: &Cause) -> Result<Failure, Corrupt> {
        match cause {
            Cause::Own(failure) => Ok(failure.clone()),
            Cause::Task(id) => {
                let other = self.tasks.get(id).ok_or_else(|| missing(id))?;
                let why = other.failure.as_ref().map_or("", |failure| failure.message.as_str());
                let message = format!("`{}` ended as {}: {why}", other.called(), other.state);
                Ok(Failure::new(Reason::DependencyFailed, &message))
            }
        }
    }

    /// Takes or frees a slot. READY and BUSY follow from it.
    fn occupy(&mut self, id: AgentId, by: i8) -> Result<(), Corrupt> {
        let agent = self.agents.get_mut(&id).ok_or_else(|| missing(id))?;
        self.index.remove_agent(agent);
        if by > 0 {
            agent.active += 1;
            agent.tasks += 1;
        } else {
            agent.active = agent.active.saturating_sub(1);
        }
        match agent.phase {
            Phase::Ready if agent.active >= agent.slots => agent.phase = Phase::Busy,
            Phase::Busy if agent.active < agent.slots => agent.phase = Phase::Ready,
            _ => {}
        }
        agent.revision += 1;
        self.index.add_agent(agent);
        self.touch(Key::Agent(id));
        Ok(())
    }
}

/// Where a change takes a task; `None` where it cannot be. This is the table of transitions.
fn target(from: TaskState, change: &Change) -> Option<TaskState> {
    use TaskState::{
        Assigned, AwaitingApproval, Blocked, Cancelled, Completed, Failed, Paused, Pending, Ready, Rejected, RetryWait,
        Running, Skipped, Verifying, Waiting,
    };
    let to = match (from, change) {
        (Pending | RetryWait | Paused | Waiting, Change::Ready) => Ready,
        (Running, Change::Waits(_)) => Waiting,
        (Running, Change::Continued(_)) => Ready,
        (Paused, Change::Candidate(Source::Candidate)) => Verifying,
        (Ready | Assigned | Running | Verifying, Change::Paused(_)) => Paused,
        (Ready, Change::Assigned(_)) => Assigned,
        (Assigned, Change::Started) => Running,
        (Assigned | Running, Change::Lost | Change::HandedBack) => Ready,
        (Running, Change::Retry { .. }) => RetryWait,
        (Running, Change::Split) => Waiting,
        // Of a plan that was given.
        (Ready, Change::Split) => Waiting,
        (Running, Change::Drafted(_)) => Ready,
        (Running | Waiting, Change::Candidate(_)) => Verifying,
        (Running | Waiting | Verifying, Change::Completed(_)) => Completed,
        (
            Verifying,
            Change::Ready
            | Change::Assigned(_)
            | Change::Started
            | Change::Lost
            | Change::HandedBack
            | Change::Retry { .. },
        ) => Verifying,
        (Verifying, Change::SentBack(_)) => Ready,
        // A part of it has failed.
        (Waiting, Change::SentBack(_)) => Ready,
        (from, Change::Failed(_)) if !from.is_ended() => Failed,
        (Running | Verifying | Blocked, Change::Exhausted(_)) => Paused,
        (Running | Verifying | AwaitingApproval | Blocked, Change::Buried(_)) => Failed,
        (AwaitingApproval | Blocked | Paused, Change::Held(_)) => return None,
        (from, Change::Held(_)) if !from.is_ended() => Paused,
        (Paused, Change::Resumed(to @ (Pending | Ready | Waiting | Verifying))) => *to,
        (Paused, Change::Again) => Ready,
        (from, Change::Reprioritised(_)) if !from.is_ended() => from,
        (from, Change::Overridden(_)) if !from.is_ended() => Completed,
        (AwaitingApproval | Blocked, Change::Ready) => Ready,
        (AwaitingApproval, Change::Completed(Source::Candidate)) => Completed,
        (AwaitingApproval, Change::Rejected(_)) => Rejected,
        (from, Change::Asks { asks, wait, result }) => match (asks.point, from) {
            (Point::Before, Pending) if wait.is_none() && result.is_none() => AwaitingApproval,
            (Point::After, Running | Waiting | Verifying) if wait.is_none() && result.is_some() => AwaitingApproval,
            (Point::Action, Running) if wait.is_some() && result.is_none() => AwaitingApproval,
            (Point::Blocker, Running) if wait.is_some() && result.is_none() => Blocked,
            _ => return None,
        },
        (from, Change::Cancelled(_)) if !from.is_ended() => Cancelled,
        (from, Change::Skipped(_)) if !from.is_ended() => Skipped,
        _ => return None,
    };
    Some(to)
}

/// What a change does to the record besides its state.
fn alter(
    task: &mut Task,
    change: &Change,
    child: Option<(Option<Payload>, Option<AgentId>)>,
    released: Option<AgentId>,
    at: Time,
) {
    match change {
        Change::Ready => (task.not_before, task.wait, task.asks, task.hold) = (None, None, None, None),
        Change::Asks { asks, wait, result } => {
            (task.asks, task.wait, task.not_before) = (Some(*asks), wait.clone(), None);
            match result {
                Some(Source::Given(payload)) => {
                    task.candidate = Some(payload.clone());
                    task.executed_by = released;
                }
                Some(Source::Child(_)) => (task.candidate, task.executed_by) = child.unwrap_or_default(),
                Some(Source::Candidate) | None => {}
            }
        }
        Change::Assigned(held) => {
            task.epoch = held.lease.epoch;
            if held.export != Export::Checker {
                task.last_agent = Some(held.lease.agent);
                if task.steps == 0 {
                    task.began = Some(held.since);
                    task.facts = held.facts.clone();
                }
            }
            task.held = Some(Held {
                facts: None,
                ..held.clone()
            });
        }
        Change::Waits(wait) => task.wait = Some(wait.clone()),
        Change::Continued(input) => task.input = input.clone(),
        Change::Started => {
            if let Some(held) = &mut task.held {
                held.started = true;
                task.attempts += u32::from(held.export != Export::Checker);
            }
            task.started = task.started.or(Some(at));
        }
        Change::Lost
        | Change::HandedBack
        | Change::Failed(_)
        | Change::Buried(_)
        | Change::Cancelled(_)
        | Change::Skipped(_)
        | Change::Rejected(_)
        | Change::Candidate(Source::Candidate) => {}
        // The delay of a check that was to be tried again is over.
        Change::Paused(_) => task.not_before = None,
        Change::Exhausted(_) => {
            (task.not_before, task.wait, task.asks) = (None, None, None);
            task.hold = Some(Hold::Exhausted);
        }
        Change::Held(_) => task.not_before = None,
        Change::Resumed(_) | Change::Again => {
            if task.hold != Some(Hold::Exhausted) && matches!(change, Change::Resumed(_)) {
                // Why a person paused it is no news any more.
                task.failure = task.failure.take().filter(|failure| failure.reason != Reason::Paused);
            } else {
                (task.retries, task.faults) = (0, 0);
            }
            task.hold = None;
            if *change == Change::Again {
                task.draft = task.draft.take().filter(|draft| draft.given);
            }
        }
        Change::Reprioritised(priority) => task.priority = *priority,
        Change::Overridden(payload) => {
            (task.result, task.candidate, task.failure) = (Some(payload.clone()), None, None);
            (task.executed_by, task.not_before, task.hold) = (None, None, None);
        }
        Change::Retry {
            not_before,
            failure,
            counts,
        } => {
            task.not_before = Some(*not_before);
            task.failure = Some(failure.clone());
            task.retries += u32::from(*counts == Counts::Retry);
            task.faults += u32::from(*counts == Counts::Fault);
        }
        Change::Candidate(Source::Given(payload)) => {
            task.candidate = Some(payload.clone());
            task.executed_by = released;
        }
        Change::Candidate(Source::Child(_)) => {
            (task.candidate, task.executed_by) = child.unwrap_or_default();
        }
        Change::SentBack(remark) => {
            task.remarks.push(remark.clone());
            task.candidate = None;
            // It is planned anew, unless its submitter has planned it.
            task.draft = task.draft.take().filter(|draft| draft.given);
        }
        Change::Split => {
            task.planned_from = u32::try_from(task.children.len()).unwrap_or(u32::MAX);
        }
        Change::Drafted(plan) => {
            let plan = plan.as_ref().clone();
            task.draft = Some(Box::new(Draft { plan, given: false }));
        }
        Change::Completed(source) => {
            match source {
                Source::Given(payload) => {
                    task.result = Some(payload.clone());
                    task.executed_by = released.or(task.executed_by);
                }
                Source::Child(_) => (task.result, task.executed_by) = child.unwrap_or_default(),
                Source::Candidate => task.result = task.candidate.take(),
            }
            task.failure = None;
        }
    }
}

/// Keeps what a failed attempt has told, the newest only.
fn remember(task: &mut Task, change: &Change, released: Option<&Held>, at: Time) {
    let (Change::Retry { failure, .. }
    | Change::Exhausted(failure)
    | Change::Buried(failure)
    | Change::Failed(Cause::Own(failure))) = change
    else {
        return;
    };
    let Some(lease) = released.map(|held| held.lease) else {
        return;
    };
    if task.history.len() >= MAX_HISTORY {
        task.history.remove(0);
    }
    task.history.push(Past::of(lease.epoch, lease.agent, at, failure));
}

/// Where a task that is held came from, and since when one waits for a slot that does.
fn queue(task: &mut Task, from: TaskState, change: &Change, at: Time) {
    match change {
        Change::Held(_) => task.hold = Some(Hold::Person(from)),
        Change::Reprioritised(_) => return,
        _ => {}
    }
    let waits = task.held.is_none() && matches!(task.state, TaskState::Ready | TaskState::Verifying);
    task.queued = waits.then_some(at);
}

/// Another run begins: its record is empty, and the children before it are not its own.
fn begin_run(task: &mut Task) {
    task.run = task.run.saturating_add(1);
    (task.steps, task.record_bytes) = (0, 0);
    (task.stepped, task.pinned, task.began) = (None, None, None);
    (task.facts, task.always) = (None, Vec::new());
    task.planned_from = u32::try_from(task.children.len()).unwrap_or(u32::MAX);
}

fn missing(what: impl ToString) -> Corrupt {
    Corrupt::Missing(what.to_string())
}

fn illegal(what: impl ToString, from: impl ToString, to: impl ToString) -> Corrupt {
    Corrupt::Illegal {
        what: what.to_string(),
        from: from.to_string(),
        to: to.to_string(),
    }
}

impl State {
    /// The index as it would be built from the records alone: what the kept one must equal.
    #[must_use]
    pub fn index_is_right(&self) -> bool {
        self.index == Index::of(&self.crews, &self.agents, &self.tasks) && self.due == self.all_due()
    }
}
