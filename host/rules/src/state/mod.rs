//! The live records, and the only place where they change: `apply`, exactly as a replay would. What can be computed from the records is kept
//! in `index` and never stored. The system part (plugins, trust) and the crews never read each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use minicbor::{Decode, Encode};

use crate::{
    agent::Agent,
    approval::Approval,
    crew_record::{Crew, CrewPhase, Member},
    event::Event,
    id::{AgentId, ApprovalId, CrewId, Digest, MessageId, Name, PluginName, TaskId},
    index::{Index, Tasks},
    key::KeyId,
    message::{Dead, Letter, Message, Source, Target, hears},
    plugin::Plugin,
    quantity::Time,
    recent::Recent,
    schedule::Schedule,
    seam::{DependencyEnd, Export, Lease},
    step::{Step, StepResult},
    task::{Task, TaskState},
    trust::{Revocation, Trust},
};

mod apply;
mod schedules;
#[cfg(test)]
mod tests;

/// The journal or a checkpoint says something that cannot be: it was not written by this program, or this program is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// Bytes that are not a record or an entry.
    #[error("{what} cannot be decoded: {message}")]
    Undecodable {
        /// What it should have been.
        what: &'static str,
        /// The decoder's complaint.
        message: String,
    },
    /// An entry about a record that is not there.
    #[error("an entry is about {0}, which is not there")]
    Missing(String),
    /// An entry that moves a record where it cannot go.
    #[error("{what} cannot go from {from} to {to}")]
    Illegal {
        /// The record.
        what: String,
        /// Where it is.
        from: String,
        /// Where the entry moves it.
        to: String,
    },
    /// Entries that do not follow each other.
    #[error("entry {found} follows entry {last}")]
    Gap {
        /// The position of the last one.
        last: u64,
        /// The position that came.
        found: u64,
    },
}

/// Which record of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) enum Key {
    #[n(0)]
    Plugin(#[n(0)] Digest),
    #[n(1)]
    Crew(#[n(0)] CrewId),
    #[n(2)]
    Agent(#[n(0)] AgentId),
    #[n(3)]
    Task(#[n(0)] TaskId),
    #[n(4)]
    Metadata,
    #[n(5)]
    Publisher(#[n(0)] Name),
    #[n(6)]
    Highest(#[n(0)] PluginName),
    #[n(7)]
    Latest,
    #[n(8)]
    Tail(#[n(0)] TaskId),
    #[n(9)]
    Namespace(#[n(0)] Name),
    #[n(60)]
    DeadLetters,
    #[n(80)]
    Message(#[n(0)] MessageId),
    #[n(90)]
    Schedule(#[n(0)] Name, #[n(1)] Name),
    #[n(100)]
    Approval(#[n(0)] ApprovalId),
    #[n(110)]
    DeadMessages,
}

/// What memory keeps of a task's record: the last steps. Those before are in their table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Tail {
    /// The number of the first of them.
    #[n(0)]
    pub first: u64,
    /// Encoded [`Step`]s, one behind the other.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// What is known of a crew's state without reading it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Namespace {
    /// Bytes of keys and values.
    #[n(0)]
    pub bytes: u64,
    /// Keys.
    #[n(1)]
    pub keys: u64,
    /// The revision with which a key begins: above those of all that were removed, so that none comes twice.
    #[n(2)]
    pub floor: u64,
}

/// Everything that lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    plugins: BTreeMap<Digest, Plugin>,
    trust: Trust,
    /// Files that must not run: what `trust` says of the installed plugins, and every revoked file.
    void: BTreeSet<Digest>,
    crews: BTreeMap<CrewId, Crew>,
    agents: BTreeMap<AgentId, Agent>,
    tasks: Tasks,
    /// Ended ephemeral tasks.
    recent: Recent,
    /// The records of runs that have steps, as far as memory keeps them.
    tails: BTreeMap<TaskId, Tail>,
    namespaces: BTreeMap<Name, Namespace>,
    /// Dead letters, the oldest first: tasks that have failed and were not redriven.
    dead: VecDeque<TaskId>,
    /// Deliveries that are dead letters, the oldest first.
    dead_messages: VecDeque<Dead>,
    /// Messages of which a delivery is in memory.
    messages: BTreeMap<MessageId, Message>,
    /// By the name of their crew and their own.
    schedules: BTreeMap<(Name, Name), Schedule>,
    /// When which of them is due whose crew is live. A function of the records, as the index is.
    due: BTreeSet<(Time, Name, Name)>,
    /// What people are asked and have not decided.
    approvals: BTreeMap<ApprovalId, Approval>,
    pub(crate) index: Index,
    /// Beyond the place of every task that was accepted since the start.
    next_order: u64,
    /// Records changed since the last checkpoint.
    dirty: BTreeSet<Key>,
    /// Records that a checkpoint holds: only those need to be taken out of it when they go.
    saved: BTreeSet<Key>,
}

/// A record of a checkpoint: its key, and its value unless it is to go.
pub type Record = (Vec<u8>, Option<Vec<u8>>);

impl State {
    /// A state from the records of a checkpoint.
    ///
    /// # Errors
    /// [`Corrupt::Undecodable`].
    pub fn load(records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, Corrupt> {
        let mut state = State::default();
        for (key, value) in records {
            let key: Key = decode("the key of a record", &key)?;
            match key {
                Key::Plugin(id) => drop(state.plugins.insert(id, decode("a plugin", &value)?)),
                Key::Crew(id) => drop(state.crews.insert(id, decode("a crew", &value)?)),
                Key::Agent(id) => drop(state.agents.insert(id, decode("an agent", &value)?)),
                Key::Task(id) => drop(state.tasks.insert(id, decode("a task", &value)?)),
                Key::Metadata => state.trust.metadata = decode("what is trusted", &value)?,
                Key::Publisher(ref name) => {
                    drop(
                        state
                            .trust
                            .publishers
                            .insert(name.clone(), decode("a publisher", &value)?),
                    );
                }
                Key::Highest(ref name) => {
                    let highest = decode("the newest of a plugin", &value)?;
                    state.trust.highest.insert(name.clone(), highest);
                }
                Key::Latest => state.trust.latest = decode::<Time>("a time", &value)?,
                Key::Tail(id) => drop(state.tails.insert(id, decode("a record", &value)?)),
                Key::DeadLetters => state.dead = decode::<Vec<TaskId>>("the dead letters", &value)?.into(),
                Key::DeadMessages => state.dead_messages = decode::<Vec<Dead>>("the dead messages", &value)?.into(),
                Key::Approval(id) => drop(state.approvals.insert(id, decode("an approval", &value)?)),
                Key::Namespace(ref name) => {
                    let namespace = decode("a namespace", &value)?;
                    state.namespaces.insert(name.clone(), namespace);
                }
                Key::Message(id) => drop(state.messages.insert(id, decode("a message", &value)?)),
                Key::Schedule(ref crew, ref name) => {
                    let schedule = decode("a schedule", &value)?;
                    state.schedules.insert((crew.clone(), name.clone()), schedule);
                }
            }
            state.saved.insert(key);
        }
        state.examine_plugins();
        state.next_order = state.tasks.values().map(|task| task.order + 1).max().unwrap_or(0);
        state.index = Index::of(&state.crews, &state.agents, &state.tasks);
        state.due = state.all_due();
        Ok(state)
    }

    /// How many records the next checkpoint holds.
    #[must_use]
    pub fn changed_records(&self) -> usize {
        self.dirty.len()
    }

    /// The records that changed since the last call, as a checkpoint wants them.
    pub fn take_dirty(&mut self) -> Vec<Record> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut records = Vec::with_capacity(dirty.len());
        for key in dirty {
            let value = match &key {
                Key::Plugin(id) => self.plugins.get(id).map(encode),
                Key::Crew(id) => self.crews.get(id).map(encode),
                Key::Agent(id) => self.agents.get(id).map(encode),
                Key::Task(id) => self.tasks.get(id).map(encode),
                Key::Metadata => Some(encode(&self.trust.metadata)),
                Key::Publisher(name) => self.trust.publishers.get(name).map(encode),
                Key::Highest(name) => self.trust.highest.get(name).map(encode),
                Key::Latest => Some(encode(&self.trust.latest)),
                Key::Tail(id) => self.tails.get(id).map(encode),
                Key::DeadLetters => Some(encode(&self.dead.iter().copied().collect::<Vec<_>>())),
                Key::DeadMessages => Some(encode(&self.dead_messages.iter().copied().collect::<Vec<_>>())),
                Key::Namespace(name) => self.namespaces.get(name).map(encode),
                Key::Message(id) => self.messages.get(id).map(encode),
                Key::Schedule(crew, name) => self.schedule(crew, name).map(encode),
                Key::Approval(id) => self.approvals.get(id).map(encode),
            };
            let encoded = encode(&key);
            match value {
                Some(_) => self.saved.insert(key),
                None => self.saved.remove(&key),
            };
            records.push((encoded, value));
        }
        records
    }

    /// An installed plugin.
    #[must_use]
    pub fn plugin(&self, digest: Digest) -> Option<&Plugin> {
        self.plugins.get(&digest)
    }

    /// The installed plugins, by digest.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.values()
    }

    /// Who is trusted, and what is revoked.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The newest other release of the same plugin that is installed and not revoked: what an update is compared with.
    #[must_use]
    pub fn newest(&self, of: &Plugin) -> Option<&Plugin> {
        let same = |plugin: &&Plugin| {
            plugin.manifest.plugin.name == of.manifest.plugin.name
                && plugin.digest != of.digest
                && !self.is_void(plugin.digest)
        };
        let age = |plugin: &&Plugin| {
            (
                plugin.signed.as_ref().map(|signed| signed.release_seq),
                plugin.installed_at,
            )
        };
        self.plugins.values().filter(same).max_by_key(age)
    }

    /// Whether a person has to type the publisher's name to install a plugin: nothing of that publisher was here before, or the plugin was, and no
    /// release is left that an update could be compared with.
    #[must_use]
    pub fn is_first_contact(&self, plugin: &Plugin) -> bool {
        let name = &plugin.manifest.plugin.name;
        self.trust.is_stranger(name.publisher())
            || (self.trust.highest(name).is_some() && self.newest(plugin).is_none())
    }

    /// The keys that a revocation ends. With a publisher go those that were rotated out as well: trusted anew under other keys, it does not bring
    /// back what those signed.
    pub(crate) fn keys_ended_by(&self, what: &Revocation) -> BTreeSet<KeyId> {
        let mut keys = self.trust.keys_of(what);
        if let Revocation::Publisher(name) = what {
            let own = self.plugins.values();
            let own = own.filter(|plugin| plugin.manifest.plugin.name.publisher() == name.as_str());
            let signed = own.filter_map(|plugin| plugin.signed.as_ref());
            keys.extend(signed.flat_map(|signed| signed.signers.iter().copied()));
        }
        keys
    }

    /// Whether a file must not run, because it, its release, its publisher or too many of its keys are revoked.
    #[must_use]
    pub fn is_void(&self, component: Digest) -> bool {
        self.void.contains(&component)
    }

    /// What trust says of every plugin, after it changed.
    fn examine_plugins(&mut self) {
        let trust = &self.trust;
        let fallen = self.plugins.values().filter(|plugin| trust.stands(plugin).is_err());
        let fallen = fallen.map(|plugin| plugin.digest);
        self.void = fallen.chain(trust.metadata.revoked.digests.iter().copied()).collect();
    }

    /// A crew that is live, drains, or stopped not long ago.
    #[must_use]
    pub fn crew(&self, id: CrewId) -> Option<&Crew> {
        self.crews.get(&id)
    }

    /// The crews, in the order of their ids, which is that of their age.
    pub fn crews(&self) -> impl Iterator<Item = &Crew> {
        self.crews.values()
    }

    /// The crew of a name that has not stopped.
    #[must_use]
    pub fn crew_named(&self, name: &Name) -> Option<&Crew> {
        self.crews
            .values()
            .find(|crew| crew.manifest.name == *name && crew.phase != CrewPhase::Stopped)
    }

    /// An agent.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<&Agent> {
        self.agents.get(&id)
    }

    /// All agents.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// The agents of a crew, in the order of its manifest.
    pub fn agents_of(&self, crew: CrewId) -> impl Iterator<Item = &Agent> {
        self.index.agents_of(crew).filter_map(|id| self.agents.get(&id))
    }

    /// How many tasks of a crew in memory are in which state.
    pub fn standing(&self, crew: CrewId) -> impl Iterator<Item = (TaskState, usize)> + '_ {
        self.index.standing(crew)
    }

    /// What an agent is: its plugin, its roles, what it holds.
    #[must_use]
    pub fn member_of(&self, agent: &Agent) -> Option<&Member> {
        let index = usize::try_from(agent.member).ok()?;
        self.crews.get(&agent.crew)?.members.get(index)
    }

    /// A task that is not ended, or whose tree is not.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id).map(Box::as_ref)
    }

    /// The tasks in memory, in the order of their ids.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(Box::as_ref)
    }

    /// An ephemeral task whose tree has ended, while it is kept.
    #[must_use]
    pub fn recent(&self, id: TaskId) -> Option<Task> {
        self.recent.get(id)
    }

    /// The ids of the ephemeral tasks whose trees have ended, while they are kept.
    pub fn recent_ids(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.recent.ids()
    }

    /// The failed tasks that are kept as dead letters, the oldest first.
    pub fn dead_letters(&self) -> impl ExactSizeIterator<Item = TaskId> + '_ {
        self.dead.iter().copied()
    }

    /// The deliveries of messages that are kept as dead letters, the oldest first.
    pub fn dead_messages(&self) -> impl ExactSizeIterator<Item = Dead> + '_ {
        self.dead_messages.iter().copied()
    }

    /// Whether a task is kept as a dead letter.
    #[must_use]
    pub fn is_dead_letter(&self, id: TaskId) -> bool {
        self.dead.contains(&id)
    }

    /// Whether a task is ephemeral. Of one that has ended, and is not kept any more, that is not known.
    #[must_use]
    pub fn is_ephemeral(&self, id: TaskId) -> bool {
        self.tasks
            .get(&id)
            .map_or_else(|| self.recent.contains(id), |task| task.ephemeral)
    }

    /// Whether an event concerns an ephemeral task only: then it is applied and not journaled. Ask before it is applied.
    pub(crate) fn is_volatile(&self, event: &Event) -> bool {
        match event {
            Event::TaskAccepted(task) => task.ephemeral,
            Event::TaskMoved { task, .. } => self.is_ephemeral(*task),
            Event::AttemptUsed { lease, .. } | Event::AttemptFenced { lease } => self.is_ephemeral(lease.task),
            Event::MessageSent(message) => message.is_volatile(),
            Event::TreeArchived { root: task } | Event::PartsArchived { task } => self.is_ephemeral(*task),
            _ => false,
        }
    }

    /// How many tasks are in memory.
    #[must_use]
    pub fn live_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The place in the order of creation that the next task takes. Higher than that of every task in memory; those in the archive do not
    /// compete any more.
    #[must_use]
    pub fn next_order(&self) -> u64 {
        self.next_order
    }

    /// How many agents are in memory.
    #[must_use]
    pub fn agent_count(&self) -> usize {
        self.agents.len()
    }

    /// A task and everything beneath it, parents first. Ended trees are in the archive.
    #[must_use]
    pub fn tree(&self, top: TaskId) -> Vec<&Task> {
        let mut found = Vec::new();
        let mut next = vec![top];
        while let Some(id) = next.pop() {
            if let Some(task) = self.task(id) {
                next.extend(task.children.iter().rev());
                found.push(task);
            }
        }
        found
    }

    /// The crew of the task that a lease holds right now; none where it holds it no longer.
    #[must_use]
    pub fn crew_of(&self, lease: &Lease) -> Option<&Crew> {
        let task = self.tasks.get(&lease.task)?;
        task.held.as_ref().filter(|held| held.lease == *lease)?;
        self.crews.get(&task.crew)
    }

    /// What memory keeps of a task's record.
    #[must_use]
    pub fn tail(&self, task: TaskId) -> Option<&Tail> {
        self.tails.get(&task)
    }

    /// What is known of the state of crews of a name; none where there never was any.
    #[must_use]
    pub fn namespace(&self, name: &Name) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// The names of crews that have, or had, state.
    pub fn namespaces(&self) -> impl ExactSizeIterator<Item = (&Name, &Namespace)> {
        self.namespaces.iter()
    }

    /// A message of which a delivery is in memory.
    #[must_use]
    pub fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// The messages of which a delivery is in memory, the oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.values()
    }

    /// Deliveries to an agent that have not ended.
    #[must_use]
    pub fn mailbox(&self, agent: AgentId) -> usize {
        self.index.mailbox_of(agent)
    }

    /// Deliveries of a crew that have not ended, and when the oldest was accepted; none where there are none.
    #[must_use]
    pub fn mail(&self, crew: CrewId) -> Option<(usize, Time)> {
        self.index.mail_of(crew)
    }

    /// Who sends what the attempt sends that a lease is for, and in which crew; none where the lease is not in force.
    #[must_use]
    pub fn source_of(&self, lease: &Lease) -> Option<(CrewId, Source)> {
        let crew = self.crew_of(lease)?.id;
        let agent = self.agents.get(&lease.agent)?;
        let (id, name) = (agent.id, agent.name.clone());
        Some((crew, Source::Agent { id, name }))
    }

    /// The agent of a crew that has a name or an id.
    fn agent_of(&self, crew: CrewId, named: &str) -> Option<&Agent> {
        if let Ok(id) = named.parse::<AgentId>() {
            return self.agents.get(&id).filter(|agent| agent.crew == crew);
        }
        let mut first = 0;
        for member in &self.crews.get(&crew)?.manifest.members {
            let replica = named
                .strip_prefix(member.name.as_str())
                .and_then(|rest| match member.replicas {
                    1 => rest.is_empty().then_some(1),
                    _ => rest.strip_prefix('-')?.parse::<u32>().ok(),
                });
            let replica = replica.filter(|replica| (1..=member.replicas).contains(replica));
            let id = replica.and_then(|replica| self.index.agent_at(crew, first + replica - 1));
            // A number can be written in other ways than in a name.
            let found = id
                .and_then(|id| self.agents.get(&id))
                .filter(|agent| agent.name == named);
            if found.is_some() {
                return found;
            }
            first += member.replicas;
        }
        None
    }

    /// Who receives a letter of a crew, in the order of its manifest: agents that have a mailbox, can serve now or once they are warm, and listen to its
    /// subject. `one` of them only, where the letter is for one agent or role or is a request: that with the fewest messages waiting. Nobody of another
    /// crew, ever.
    #[must_use]
    pub fn receivers(&self, crew: CrewId, letter: &Letter, one: bool) -> Vec<AgentId> {
        let has_role = |agent: &Agent| match &letter.target {
            Target::Role(role) => self.member_of(agent).is_some_and(|member| member.roles.contains(role)),
            Target::Agent(_) | Target::Subscribers => true,
        };
        let listens = |member: &Member| {
            member.exports.contains(&Export::Mailbox)
                && hears(&member.effective.messages.receive, &letter.subject)
                && !self.is_void(member.digest)
        };
        let Some(members) = self.crews.get(&crew).map(|crew| &crew.members) else {
            return Vec::new();
        };
        if let Target::Agent(named) = &letter.target {
            // The crew may have a thousand others.
            let found = self.agent_of(crew, named).filter(|agent| agent.phase.may_serve());
            let found = found.filter(|agent| self.member_of(agent).is_some_and(listens));
            return found.map(|agent| agent.id).into_iter().collect();
        }
        // Whether an agent listens is a matter of its member, of which there are few.
        let listen: Vec<bool> = members.iter().map(listens).collect();
        let listens = |agent: &&Agent| {
            let at = usize::try_from(agent.member).unwrap_or(usize::MAX);
            listen.get(at) == Some(&true) && agent.phase.may_serve() && has_role(agent)
        };
        let found = self.agents_of(crew).filter(listens);
        match one || letter.target != Target::Subscribers {
            true => found
                .min_by_key(|agent| (self.index.mailbox_of(agent.id), agent.place))
                .map(|agent| agent.id)
                .into_iter()
                .collect(),
            false => found.map(|agent| agent.id).collect(),
        }
    }

    /// What a person is asked and has not decided.
    #[must_use]
    pub fn approval(&self, id: ApprovalId) -> Option<&Approval> {
        self.approvals.get(&id)
    }

    /// What people are asked and have not decided, in the order of the ids, which is that of their age.
    pub fn approvals(&self) -> impl ExactSizeIterator<Item = &Approval> {
        self.approvals.values()
    }

    /// How the children ended that a step tells of, as far as they are in memory: those of a live task are.
    #[must_use]
    pub fn ends(&self, step: &Step) -> Vec<DependencyEnd> {
        let StepResult::Ended(tasks) = &step.result else {
            return Vec::new();
        };
        let ended = tasks.iter().filter_map(|id| self.task(*id));
        ended.map(Task::end_as_child).collect()
    }

    /// Has a record written with the next checkpoint; that of an ephemeral task never is.
    fn touch(&mut self, key: Key) {
        let ephemeral = match &key {
            Key::Task(id) => self.is_ephemeral(*id),
            Key::Message(id) => self.messages.get(id).is_some_and(Message::is_volatile),
            _ => false,
        };
        if !ephemeral {
            self.dirty.insert(key);
        }
    }

    fn gone(&mut self, key: Key) {
        if self.saved.contains(&key) {
            self.dirty.insert(key);
        } else {
            self.dirty.remove(&key);
        }
    }
}

/// Whether a field says nothing, and is not written.
pub(crate) fn none<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes of a value that cannot fail to encode: memory is the only sink.
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    // Most records fit, and growing in small steps costs more than the encoding.
    let mut bytes = Vec::with_capacity(512);
    minicbor::encode(value, &mut bytes).expect("encoding into memory cannot fail");
    bytes
}

/// A value from bytes of ours.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, Corrupt> {
    minicbor::decode(bytes).map_err(|error| Corrupt::Undecodable {
        what,
        message: error.to_string(),
    })
}
