//! What can be computed from the records and would be too slow to compute each time: queues, work lists, who depends on whom. Never stored;
//! a function of the records alone, which the simulation asserts after each step.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    agent::{Agent, Phase},
    crew_record::{Crew, CrewPhase},
    id::{AgentId, CrewId, Digest, MessageId, Role, TaskId},
    priority::Priority,
    quantity::Time,
    seam::Export,
    task::{Task, TaskState, Wait},
};

/// What a queued task needs of an agent. Tasks of equal needs form one queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    /// What is to be called.
    pub(crate) export: Export,
    /// One agent only.
    pub(crate) agent: Option<AgentId>,
    /// One of these; any when empty.
    pub(crate) roles: BTreeSet<Role>,
    /// Not this one: it made what is to be checked.
    pub(crate) except: Option<AgentId>,
    /// Its result will be checked: the only checker of a crew must not execute it.
    pub(crate) check: bool,
    /// This component only: it has made the record.
    pub(crate) pinned: Option<Digest>,
}

impl Need {
    /// Anybody who has this export.
    pub(crate) fn any(export: Export) -> Need {
        Need {
            export,
            agent: None,
            roles: BTreeSet::new(),
            except: None,
            check: false,
            pinned: None,
        }
    }

    pub(crate) fn of(task: &Task) -> Need {
        match task.export() {
            Export::Checker => Need {
                except: task.executed_by,
                ..Need::any(Export::Checker)
            },
            // Its roles are those of who splits it.
            Export::Sequencer => Need {
                pinned: task.pinned,
                ..Need::any(Export::Sequencer)
            },
            export @ (Export::Executor | Export::Planner | Export::Mailbox) => Need {
                export,
                agent: task.agent,
                roles: task.roles.clone(),
                except: None,
                check: task.check && export == Export::Executor,
                pinned: task.pinned,
            },
        }
    }
}

/// The oldest task of a queue, and which queue that is.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Its place in the order of creation.
    pub(crate) order: u64,
    pub(crate) task: TaskId,
    pub(crate) need: Need,
    pub(crate) lane: Priority,
}

/// An agent as it is ranked among others: least load, fewest tasks, place in the crew.
pub(crate) type Rank = (u32, u64, u32, AgentId);

/// The records of tasks. Boxed: a node of the map moves pointers, not records of a kilobyte, and is not half full of them.
pub(crate) type Tasks = BTreeMap<TaskId, Box<Task>>;

/// A queue in the order of creation.
type Queue = BTreeSet<(u64, TaskId)>;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    agents_of: BTreeMap<CrewId, BTreeMap<u32, AgentId>>,
    /// Crews that drain.
    pub(crate) draining: BTreeSet<CrewId>,
    /// Crews that have stopped, the oldest end first.
    pub(crate) stopped: BTreeSet<(Option<Time>, CrewId)>,
    /// Agents in READY, by member: whether an agent can serve is a matter of its member.
    free: BTreeSet<(CrewId, u32, Rank)>,
    /// Agents that have work, or can be given some now or once they are warm, by member.
    able: BTreeSet<(CrewId, u32, AgentId)>,
    /// Agents in PROVISIONING.
    pub(crate) cold: BTreeSet<AgentId>,
    /// Agents in DRAINING without a lease.
    pub(crate) idle: BTreeSet<AgentId>,
    /// Agents that are not STOPPED, per crew.
    unstopped: BTreeMap<CrewId, usize>,
    /// Tasks that wait for a slot, by crew, need and lane.
    demand: BTreeMap<(CrewId, Need, Priority), Queue>,
    /// Ends of delays and of timeouts, and times by which a start must be acknowledged.
    pub(crate) timers: BTreeSet<(Time, TaskId)>,
    /// Tasks with a lease in force, by who holds it.
    held: BTreeSet<(AgentId, TaskId)>,
    /// How many tasks in memory are in which state, per crew.
    standing: BTreeMap<(CrewId, TaskState), usize>,
    /// Tasks that have not ended and hold no lease, per crew.
    pub(crate) loose: BTreeSet<(CrewId, TaskId)>,
    /// Tasks that have not ended, by what they depend on.
    dependents: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// How many such dependencies lead into a tree, by its objective.
    leaning: BTreeMap<TaskId, usize>,
    /// PENDING tasks and how many of their dependencies have not ended.
    blocked: BTreeMap<TaskId, usize>,
    /// PENDING tasks whose dependencies have all ended, or one of them badly.
    pub(crate) ripe: BTreeSet<TaskId>,
    /// Tasks whose plan was given and can be carried out.
    pub(crate) given: BTreeSet<TaskId>,
    /// Deliveries to an agent that have not ended.
    mailboxes: BTreeMap<AgentId, usize>,
    /// The same by crew, the oldest first.
    mail: BTreeMap<CrewId, BTreeSet<(Time, TaskId)>>,
    /// Those that are ordered by a key, in their order.
    keyed: BTreeMap<(AgentId, String), Queue>,
    /// Deliveries of a message that are in memory.
    deliveries: BTreeMap<MessageId, usize>,
    /// How many children of a task have not ended.
    open_parts: BTreeMap<TaskId, usize>,
    /// WAITING tasks whose children have all ended.
    pub(crate) joined: BTreeSet<TaskId>,
    /// Runs that wait for children, and how many of these have not ended.
    waits: BTreeMap<TaskId, usize>,
    /// Runs whose wait for children is over.
    pub(crate) woken: BTreeSet<TaskId>,
    /// WAITING tasks of which a child that is not optional ended badly, and which.
    doomed: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// How many tasks of a tree have not ended, by its objective.
    open_tree: BTreeMap<TaskId, usize>,
    /// Objectives whose tree has ended and on which nothing leans.
    pub(crate) closed: BTreeSet<TaskId>,
}

impl Index {
    /// The index of some records.
    pub(crate) fn of(crews: &BTreeMap<CrewId, Crew>, agents: &BTreeMap<AgentId, Agent>, tasks: &Tasks) -> Self {
        let mut index = Index::default();
        crews.values().for_each(|crew| index.add_crew(crew));
        agents.values().for_each(|agent| index.add_agent(agent));
        for task in tasks.values() {
            index.accept_task(task, tasks);
        }
        // Children may have been seen before their parents, and the ends of dependencies in any order.
        for task in tasks.values().filter(|task| task.state.is_ended()) {
            index.doom(task, tasks);
        }
        for task in tasks.values() {
            index.watch(task, tasks);
            index.examine(task.root, tasks);
        }
        index
    }

    pub(crate) fn add_crew(&mut self, crew: &Crew) {
        match crew.phase {
            CrewPhase::Live => {}
            CrewPhase::Draining => drop(self.draining.insert(crew.id)),
            CrewPhase::Stopped => drop(self.stopped.insert((crew.ended, crew.id))),
        }
    }

    pub(crate) fn remove_crew(&mut self, crew: &Crew) {
        self.draining.remove(&crew.id);
        self.stopped.remove(&(crew.ended, crew.id));
    }

    pub(crate) fn add_agent(&mut self, agent: &Agent) {
        self.agents_of
            .entry(agent.crew)
            .or_default()
            .insert(agent.place, agent.id);
        if agent.phase != Phase::Stopped {
            *self.unstopped.entry(agent.crew).or_default() += 1;
        }
        if agent.phase.may_serve() {
            self.able.insert((agent.crew, agent.member, agent.id));
        }
        match agent.phase {
            Phase::Provisioning => drop(self.cold.insert(agent.id)),
            Phase::Ready => drop(self.free.insert((agent.crew, agent.member, rank(agent)))),
            Phase::Draining if agent.active == 0 => drop(self.idle.insert(agent.id)),
            _ => {}
        }
    }

    pub(crate) fn remove_agent(&mut self, agent: &Agent) {
        if agent.phase != Phase::Stopped {
            take_one(&mut self.unstopped, agent.crew);
        }
        self.cold.remove(&agent.id);
        self.idle.remove(&agent.id);
        self.free.remove(&(agent.crew, agent.member, rank(agent)));
        self.able.remove(&(agent.crew, agent.member, agent.id));
    }

    pub(crate) fn forget_agent(&mut self, agent: &Agent) {
        self.remove_agent(agent);
        if let Some(places) = self.agents_of.get_mut(&agent.crew) {
            places.remove(&agent.place);
            if places.is_empty() {
                self.agents_of.remove(&agent.crew);
            }
        }
    }

    /// The agent at a place of a crew.
    pub(crate) fn agent_at(&self, crew: CrewId, place: u32) -> Option<AgentId> {
        self.agents_of.get(&crew)?.get(&place).copied()
    }

    pub(crate) fn agents_of(&self, crew: CrewId) -> impl Iterator<Item = AgentId> + '_ {
        self.agents_of
            .get(&crew)
            .into_iter()
            .flat_map(|places| places.values().copied())
    }

    /// Whether all agents of a crew are STOPPED and none of its tasks is left to do.
    pub(crate) fn is_over(&self, crew: CrewId) -> bool {
        !self.unstopped.contains_key(&crew) && self.loose_in(crew).next().is_none()
    }

    /// Whether any task of a crew is in memory.
    pub(crate) fn has_tasks(&self, crew: CrewId) -> bool {
        self.standing(crew).next().is_some()
    }

    pub(crate) fn loose_in(&self, crew: CrewId) -> impl Iterator<Item = TaskId> + '_ {
        let range = self.loose.range((crew, TaskId::new(0, 0))..);
        range.take_while(move |(of, _)| *of == crew).map(|(_, task)| *task)
    }

    /// The oldest task of every queue of a crew whose need is to be looked at.
    pub(crate) fn heads(&self, crew: CrewId, which: impl Fn(&Need) -> bool) -> Vec<Head> {
        // The lowest of all needs, in the lowest of all lanes.
        let lowest = (crew, Need::any(Export::Executor), Priority::Low);
        let queues = self.demand.range(lowest..).take_while(|((of, ..), _)| *of == crew);
        let head = |((_, need, lane), queue): (&(CrewId, Need, Priority), &Queue)| {
            let (order, task) = queue.first().copied()?;
            Some(Head {
                order,
                task,
                need: need.clone(),
                lane: *lane,
            })
        };
        queues
            .filter(|((_, need, _), _)| which(need))
            .filter_map(head)
            .collect()
    }

    /// The oldest task of every queue.
    pub(crate) fn all_heads(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.demand
            .values()
            .filter_map(|queue| queue.first().map(|(_, task)| *task))
    }

    /// The oldest task of a queue.
    pub(crate) fn head_of(&self, crew: CrewId, need: &Need, lane: Priority) -> Option<(u64, TaskId)> {
        self.demand
            .get(&(crew, need.clone(), lane))
            .and_then(|queue| queue.first().copied())
    }

    /// Agents of a member with a free slot, the best first.
    pub(crate) fn free_of(&self, crew: CrewId, member: u32) -> impl Iterator<Item = Rank> + '_ {
        let range = self.free.range((crew, member, (0, 0, 0, AgentId::new(0, 0)))..);
        range
            .take_while(move |(of, at, _)| (*of, *at) == (crew, member))
            .map(|(.., rank)| *rank)
    }

    /// Agents of a member that can serve, now or once they are warm.
    pub(crate) fn able_of(&self, crew: CrewId, member: u32) -> impl Iterator<Item = AgentId> + '_ {
        let range = self.able.range((crew, member, AgentId::new(0, 0))..);
        range
            .take_while(move |(of, at, _)| (*of, *at) == (crew, member))
            .map(|(.., agent)| *agent)
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.held.iter().map(|(_, task)| *task)
    }

    /// How many tasks of a crew are in which state.
    pub(crate) fn standing(&self, crew: CrewId) -> impl Iterator<Item = (TaskState, usize)> + '_ {
        let range = self.standing.range((crew, TaskState::Pending)..);
        range
            .take_while(move |((of, _), _)| *of == crew)
            .map(|((_, state), count)| (*state, *count))
    }

    /// The tasks that an agent holds.
    pub(crate) fn held_by(&self, agent: AgentId) -> impl Iterator<Item = TaskId> + '_ {
        let range = self.held.range((agent, TaskId::new(0, 0))..);
        range.take_while(move |(of, _)| *of == agent).map(|(_, task)| *task)
    }

    /// The children of a WAITING task that ended badly, the first of them first.
    pub(crate) fn doom_of(&self, task: TaskId) -> Option<TaskId> {
        self.doomed.get(&task).and_then(|children| children.first().copied())
    }

    /// A task that is new to the index.
    pub(crate) fn accept_task(&mut self, task: &Task, tasks: &Tasks) {
        if let Some(delivery) = &task.delivery {
            *self.deliveries.entry(delivery.message).or_default() += 1;
        }
        if !task.state.is_ended() {
            if let (Some(delivery), Some(agent)) = (&task.delivery, task.agent) {
                *self.mailboxes.entry(agent).or_default() += 1;
                self.mail.entry(task.crew).or_default().insert((task.created, task.id));
                if let Some(key) = &delivery.key {
                    let queue = self.keyed.entry((agent, key.clone())).or_default();
                    queue.insert((task.order, task.id));
                }
            }
            *self.open_tree.entry(task.root).or_default() += 1;
            self.closed.remove(&task.root);
            if let Some(parent) = task.parent {
                *self.open_parts.entry(parent).or_default() += 1;
                self.joined.remove(&parent);
            }
            for dependency in &task.dependencies {
                self.dependents.entry(*dependency).or_default().insert(task.id);
                let root = tasks.get(dependency).map_or(task.root, |of| of.root);
                *self.leaning.entry(root).or_default() += 1;
                self.closed.remove(&root);
            }
        }
        self.add_task(task);
        self.block(task, tasks);
    }

    /// What a PENDING task waits for. One that has a key waits for its place in its queue.
    fn block(&mut self, task: &Task, tasks: &Tasks) {
        let keyed = task.delivery.as_ref().is_some_and(|delivery| delivery.key.is_some());
        if task.state == TaskState::Pending && !keyed {
            let open = |id: &&TaskId| tasks.get(id).is_none_or(|of| !of.state.is_ended());
            let left = task.dependencies.iter().filter(open).count();
            let bad = task
                .dependencies
                .iter()
                .filter_map(|id| tasks.get(id))
                .any(|of| ended_badly(of));
            self.blocked.insert(task.id, left);
            if left == 0 || bad {
                self.ripe.insert(task.id);
            }
        }
    }

    /// What follows from the record of a task alone.
    pub(crate) fn add_task(&mut self, task: &Task) {
        *self.standing.entry((task.crew, task.state)).or_default() += 1;
        if task.state.is_ended() {
            return;
        }
        match &task.held {
            Some(held) => {
                self.held.insert((held.lease.agent, task.id));
            }
            None => drop(self.loose.insert((task.crew, task.id))),
        }
        self.timers.extend(times(task).map(|time| (time, task.id)));
        if task.is_given() {
            self.given.insert(task.id);
        }
        if queued(task) {
            let key = (task.crew, Need::of(task), task.priority);
            self.demand.entry(key).or_default().insert((task.order, task.id));
        }
        if task.is_split() && !self.open_parts.contains_key(&task.id) {
            self.joined.insert(task.id);
        }
    }

    /// The reverse of `add_task`, before the record changes.
    pub(crate) fn remove_task(&mut self, task: &Task) {
        take_one(&mut self.standing, (task.crew, task.state));
        if let Some(held) = &task.held {
            self.held.remove(&(held.lease.agent, task.id));
        }
        self.loose.remove(&(task.crew, task.id));
        for time in times(task) {
            self.timers.remove(&(time, task.id));
        }
        if queued(task) {
            let key = (task.crew, Need::of(task), task.priority);
            if let Some(queue) = self.demand.get_mut(&key) {
                queue.remove(&(task.order, task.id));
                if queue.is_empty() {
                    self.demand.remove(&key);
                }
            }
        }
        self.blocked.remove(&task.id);
        self.ripe.remove(&task.id);
        self.given.remove(&task.id);
        self.joined.remove(&task.id);
        self.doomed.remove(&task.id);
        self.waits.remove(&task.id);
        self.woken.remove(&task.id);
    }

    /// What a task waits for that has moved, after it was added: one that was held may have missed something.
    pub(crate) fn watch(&mut self, task: &Task, tasks: &Tasks) {
        self.block(task, tasks);
        if let Some(key) = order_of(task) {
            self.next_keyed(&key, tasks);
        }
        for part in task.parts().iter().filter_map(|id| tasks.get(id)) {
            if task.is_split() && ended_badly(part) {
                self.doomed.entry(task.id).or_default().insert(part.id);
            }
        }
        if let Some(wait) = waiting(task).filter(|wait| !wait.tasks.is_empty()) {
            let open = |id: &&TaskId| tasks.get(id).is_some_and(|of| !of.state.is_ended());
            let open = wait.tasks.iter().filter(open).count();
            self.waits.insert(task.id, open);
            self.come(task.id, wait, open);
        }
    }

    fn come(&mut self, id: TaskId, wait: &Wait, open: usize) {
        if open == 0 || !wait.all && open < wait.tasks.len() {
            self.woken.insert(id);
        }
    }

    /// Deliveries to an agent that have not ended.
    pub(crate) fn mailbox_of(&self, agent: AgentId) -> usize {
        self.mailboxes.get(&agent).copied().unwrap_or(0)
    }

    /// Deliveries of a crew that have not ended, and when the oldest was accepted.
    pub(crate) fn mail_of(&self, crew: CrewId) -> Option<(usize, Time)> {
        let mail = self.mail.get(&crew)?;
        mail.first().map(|(oldest, _)| (mail.len(), *oldest))
    }

    /// The last delivery to an agent under a key that has not ended.
    pub(crate) fn last_keyed(&self, agent: AgentId, key: &str) -> Option<TaskId> {
        let queue = self.keyed.get(&(agent, key.to_owned()))?;
        queue.last().map(|(_, task)| *task)
    }

    /// Whether a delivery of a message is in memory.
    pub(crate) fn is_delivered(&self, message: MessageId) -> bool {
        self.deliveries.contains_key(&message)
    }

    /// Whether a live task depends on this one.
    pub(crate) fn is_depended_on(&self, task: TaskId) -> bool {
        self.dependents.contains_key(&task)
    }

    /// What follows for others from the end of a task.
    pub(crate) fn end_task(&mut self, task: &Task, tasks: &Tasks) {
        if let (Some(delivery), Some(agent)) = (&task.delivery, task.agent) {
            take_one(&mut self.mailboxes, agent);
            if let Some(mail) = self.mail.get_mut(&task.crew) {
                mail.remove(&(task.created, task.id));
                if mail.is_empty() {
                    self.mail.remove(&task.crew);
                }
            }
            if let Some(key) = &delivery.key {
                let key = (agent, key.clone());
                if let Some(queue) = self.keyed.get_mut(&key) {
                    queue.remove(&(task.order, task.id));
                    if queue.is_empty() {
                        self.keyed.remove(&key);
                    }
                }
                self.next_keyed(&key, tasks);
            }
        }
        for dependency in &task.dependencies {
            if let Some(dependents) = self.dependents.get_mut(dependency) {
                dependents.remove(&task.id);
                if dependents.is_empty() {
                    self.dependents.remove(dependency);
                }
            }
            let root = tasks.get(dependency).map_or(task.root, |of| of.root);
            take_one(&mut self.leaning, root);
            self.examine(root, tasks);
        }
        let bad = ended_badly(task);
        for dependent in self.dependents.get(&task.id).into_iter().flatten() {
            if let Some(left) = self.blocked.get_mut(dependent) {
                *left -= 1;
                if *left == 0 || bad {
                    self.ripe.insert(*dependent);
                }
            }
        }
        if let Some(parent) = task.parent {
            take_one(&mut self.open_parts, parent);
            if let Some(parent) = tasks.get(&parent) {
                if parent.is_split() && !self.open_parts.contains_key(&parent.id) {
                    self.joined.insert(parent.id);
                }
                self.ended_for(parent, task.id);
            }
            self.doom(task, tasks);
        }
        take_one(&mut self.open_tree, task.root);
        self.examine(task.root, tasks);
    }

    /// The first delivery of a key can be received.
    fn next_keyed(&mut self, key: &(AgentId, String), tasks: &Tasks) {
        let first = self.keyed.get(key).and_then(|queue| queue.first());
        let waits = |id: &TaskId| tasks.get(id).is_some_and(|task| task.state == TaskState::Pending);
        if let Some((_, first)) = first.filter(|(_, id)| waits(id)) {
            self.ripe.insert(*first);
        }
    }

    /// A task that leaves memory.
    pub(crate) fn forget_task(&mut self, task: &Task) {
        take_one(&mut self.standing, (task.crew, task.state));
        self.closed.remove(&task.id);
        if let Some(delivery) = &task.delivery {
            take_one(&mut self.deliveries, delivery.message);
        }
    }

    /// A child ended of which its parent may wait.
    fn ended_for(&mut self, parent: &Task, child: TaskId) {
        let (Some(wait), Some(open)) = (waiting(parent), self.waits.get_mut(&parent.id)) else {
            return;
        };
        // Named twice, it is counted twice.
        let times = wait.tasks.iter().filter(|id| **id == child).count();
        *open = open.saturating_sub(times);
        let open = *open;
        self.come(parent.id, wait, open);
    }

    fn doom(&mut self, task: &Task, tasks: &Tasks) {
        let Some(parent) = task.parent.and_then(|parent| tasks.get(&parent)) else {
            return;
        };
        if ended_badly(task) && parent.is_split() && parent.parts().contains(&task.id) {
            self.doomed.entry(parent.id).or_default().insert(task.id);
        }
    }

    fn examine(&mut self, root: TaskId, tasks: &Tasks) {
        let ended = tasks.contains_key(&root) && !self.open_tree.contains_key(&root);
        if ended && !self.leaning.contains_key(&root) {
            self.closed.insert(root);
        }
    }
}

/// It ended without a result, and somebody needed it.
fn ended_badly(task: &Task) -> bool {
    task.state.is_ended() && task.state != TaskState::Completed && !task.optional
}

/// What a delivery is ordered by.
fn order_of(task: &Task) -> Option<(AgentId, String)> {
    task.agent.zip(task.delivery.as_ref()?.key.clone())
}

/// What a run waits for, while nobody holds it up.
fn waiting(task: &Task) -> Option<&Wait> {
    task.wait.as_ref().filter(|_| task.state == TaskState::Waiting)
}

/// When something becomes of a task by itself.
fn times(task: &Task) -> impl Iterator<Item = Time> + use<> {
    let ack = task.held.as_ref().and_then(crate::lease::Held::ack_by);
    let wait = waiting(task).and_then(|wait| wait.until);
    let asks = task.asks.map(|asks| asks.until);
    let all = [
        ack,
        task.not_before,
        wait,
        asks,
        task.start_by(),
        task.close_by(),
        task.expires(),
    ];
    all.into_iter().flatten()
}

fn queued(task: &Task) -> bool {
    match task.state {
        TaskState::Ready => !task.is_given(),
        TaskState::Verifying => task.held.is_none() && task.not_before.is_none(),
        _ => false,
    }
}

fn rank(agent: &Agent) -> Rank {
    (agent.active, agent.tasks, agent.place, agent.id)
}

/// One less; what is at zero is not there.
fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
