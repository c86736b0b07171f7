//! What can be asked of a shard, by people through the API and by the runner. Ids and seeds are drawn by the driver and travel here.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::{
    approval::{Points, Ruling},
    crew::CrewManifest,
    grant::Ceiling,
    id::{AgentId, ApprovalId, CrewId, Digest, MessageId, Name, Role, TaskId},
    key::KeyId,
    lifecycle::{OnFailure, Request, Timeouts},
    message::Letter,
    metadata::{Clock, Index, Publisher, Root, Rotation},
    plan::{Note, Outcome, Payload, Plan},
    plugin::Plugin,
    priority::Priority,
    quantity::Fuel,
    reason::Reason,
    retry::Policy,
    schedule::{Missed, When},
    seam::{Denial, End, Lease, Usage},
    step::StepCall,
    trust::{Revocation, Signed},
};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[expect(clippy::large_enum_variant, reason = "a command is decided once and never kept")]
pub enum Command {
    /// Remember a plugin whose file is stored and whose signatures were computed. The same digest again changes nothing.
    #[n(0)]
    InstallPlugin {
        /// The record; `revision`, `installed_at` and `signed` are set by the decision.
        #[n(0)]
        plugin: Plugin,
        /// The principal.
        #[n(1)]
        by: String,
        /// Who signed it; none is taken only by a host that takes unsigned plugins.
        #[n(2)]
        signed: Option<Signed>,
        /// What a person has agreed to.
        #[n(3)]
        consent: Consent,
    },
    /// Assemble a crew whole, or not at all.
    #[n(1)]
    AssembleCrew {
        /// Its id.
        #[n(0)]
        crew: CrewId,
        /// As many ids as [`CrewManifest`] has agents, in the order of members and replicas.
        #[n(1)]
        agents: Vec<AgentId>,
        /// What to assemble.
        #[n(2)]
        manifest: CrewManifest,
        /// Copies of the records of the plugins that it names.
        #[n(3)]
        plugins: Vec<Plugin>,
        /// What the host allows at most.
        #[n(4)]
        ceiling: Ceiling,
        /// The principal.
        #[n(5)]
        by: String,
    },
    /// Let a crew finish what runs, and stop. Asked again, it changes nothing.
    #[n(2)]
    DrainCrew {
        /// Which.
        #[n(0)]
        crew: CrewId,
        /// The principal.
        #[n(1)]
        by: String,
    },
    /// Accept tasks, all or none.
    #[n(3)]
    SubmitTasks {
        /// The crew that works on them.
        #[n(0)]
        crew: CrewId,
        /// 1 to [`crate::limits::MAX_SUBMISSION`].
        #[n(1)]
        tasks: Vec<NewTask>,
        /// So that asking twice is asking once.
        #[n(2)]
        idempotency: Option<Idempotency>,
        /// The principal.
        #[n(3)]
        by: String,
    },
    /// Cancel a task and everything beneath it.
    #[n(4)]
    CancelTask {
        /// Which.
        #[n(0)]
        task: TaskId,
        /// The principal.
        #[n(1)]
        by: String,
    },
    /// From the runner: an agent is ready.
    #[n(5)]
    Warmed {
        /// Who.
        #[n(0)]
        agent: AgentId,
        /// Its generation.
        #[n(1)]
        generation: u64,
    },
    /// From the runner: an agent cannot be made ready.
    #[n(6)]
    WarmFailed {
        /// Who.
        #[n(0)]
        agent: AgentId,
        /// Its generation.
        #[n(1)]
        generation: u64,
        /// Why.
        #[n(2)]
        reason: Reason,
        /// For people.
        #[n(3)]
        message: String,
    },
    /// From the runner: an attempt has begun.
    #[n(7)]
    AttemptStarted {
        /// Which.
        #[n(0)]
        lease: Lease,
    },
    /// From the runner: an attempt has ended.
    #[n(8)]
    AttemptEnded {
        /// Which.
        #[n(0)]
        lease: Lease,
        /// How.
        #[n(1)]
        end: End,
        /// What it used.
        #[n(2)]
        usage: Usage,
        /// What was refused to it.
        #[n(3)]
        denials: Vec<Denial>,
        /// Ids for the children, as many as [`children_of`] says.
        #[n(4)]
        children: Vec<TaskId>,
    },
    /// From the runner: a file of the code cache was not this host's own work.
    #[n(9)]
    CacheRefused {
        /// The component.
        #[n(0)]
        digest: Digest,
        /// What is wrong with the file.
        #[n(1)]
        why: String,
    },
    /// From the runner: an attempt takes a step.
    #[n(30)]
    Step {
        /// Which attempt.
        #[n(0)]
        lease: Lease,
        /// The step's number: that of the steps before it.
        #[n(1)]
        number: u64,
        /// What it asks.
        #[n(2)]
        call: StepCall,
        /// An id for what the step makes: for the child, with [`StepCall::Spawn`] of an input that the crew has; for what a person is asked.
        #[n(3)]
        child: Option<TaskId>,
        /// Ids for a message, with [`StepCall::Send`] and [`StepCall::Request`] of a body that the crew has.
        #[n(80)]
        mail: Option<Mail>,
    },
    /// From the runner: an attempt that waited was dropped.
    #[n(121)]
    AttemptEvicted {
        /// The last lease that it had.
        #[n(0)]
        lease: Lease,
        /// What it used.
        #[n(1)]
        usage: Usage,
        /// What was refused to it.
        #[n(2)]
        denials: Vec<Denial>,
    },
    /// Send a message to a crew, on behalf of a principal.
    #[n(80)]
    SendMessage {
        /// Which crew.
        #[n(0)]
        crew: CrewId,
        /// What.
        #[n(1)]
        letter: Letter,
        /// Ids for it.
        #[n(2)]
        mail: Mail,
        /// The principal.
        #[n(3)]
        by: String,
    },
    /// Send a message anew to the one receiver of whom it is a dead letter.
    #[n(110)]
    RedriveMessage {
        /// The delivery that has failed.
        #[n(0)]
        delivery: TaskId,
        /// Its message.
        #[n(1)]
        message: MessageId,
        /// Ids for the new one, which has one delivery.
        #[n(2)]
        mail: Mail,
        /// The principal.
        #[n(3)]
        by: String,
    },
    /// Forget a plugin that no crew uses. That it was there, and its number, stay known.
    #[n(20)]
    RemovePlugin {
        /// Which.
        #[n(0)]
        digest: Digest,
        /// The principal.
        #[n(1)]
        by: String,
    },
    /// Put on record that a plugin or a document of trust was refused. Changes nothing else.
    #[n(21)]
    NoteRefusal {
        /// Why.
        #[n(0)]
        reason: Reason,
        /// What.
        #[n(1)]
        detail: String,
        /// The principal.
        #[n(2)]
        by: String,
    },
    /// Put on record that a backup is about to be made. Changes nothing else.
    #[n(31)]
    NoteBackup {
        /// The principal.
        #[n(0)]
        by: String,
    },
    /// Put on record that a webhook was not told of something, and will not be. Changes nothing else.
    #[n(120)]
    NoteWebhook {
        /// Which, of what, and why.
        #[n(0)]
        what: String,
    },
    /// Trust a publisher, or say anew what it may sign. Only while no root was adopted.
    #[n(22)]
    TrustPublisher {
        /// Who, and what it may sign.
        #[n(0)]
        publisher: Publisher,
        /// The principal.
        #[n(1)]
        by: String,
    },
    /// Adopt a root whose signatures were computed.
    #[n(23)]
    AdoptRoot {
        /// It.
        #[n(0)]
        root: Root,
        /// Keys of this host, or of the root itself, whose signatures hold.
        #[n(1)]
        signers: BTreeSet<KeyId>,
        /// The principal.
        #[n(2)]
        by: String,
    },
    /// Let a publisher change its keys.
    #[n(24)]
    RotateKeys {
        /// How.
        #[n(0)]
        rotation: Rotation,
        /// Keys whose signatures hold.
        #[n(1)]
        signers: BTreeSet<KeyId>,
        /// The principal.
        #[n(2)]
        by: String,
    },
    /// Adopt an index, with what it revokes. The next sweep acts on that.
    #[n(25)]
    AdoptIndex {
        /// It.
        #[n(0)]
        index: Index,
        /// SHA-256 of it as it was signed.
        #[n(1)]
        digest: Digest,
        /// Keys whose signatures hold.
        #[n(2)]
        signers: BTreeSet<KeyId>,
        /// The principal.
        #[n(3)]
        by: String,
    },
    /// Adopt a clock.
    #[n(26)]
    AdoptClock {
        /// It.
        #[n(0)]
        clock: Clock,
        /// Keys whose signatures hold.
        #[n(1)]
        signers: BTreeSet<KeyId>,
        /// The principal.
        #[n(2)]
        by: String,
    },
    /// Revoke at once: what runs of it is ended in the same decision. There is no way back.
    #[n(27)]
    Revoke {
        /// What.
        #[n(0)]
        what: Revocation,
        /// For the record; at most [`crate::limits::MAX_REASON_BYTES`].
        #[n(1)]
        why: String,
        /// The principal.
        #[n(2)]
        by: String,
    },
    /// Take the clock of the machine for right again, after it stood in the future.
    #[n(28)]
    ResetTime {
        /// For the record; at most [`crate::limits::MAX_REASON_BYTES`].
        #[n(0)]
        why: String,
        /// The principal.
        #[n(1)]
        by: String,
    },
    /// Let a paused task go on.
    #[n(29)]
    ResumeTask {
        /// Which.
        #[n(0)]
        task: TaskId,
        /// The principal.
        #[n(1)]
        by: String,
    },
    /// Ask something of a task.
    #[n(60)]
    ChangeTask {
        /// Which.
        #[n(0)]
        task: TaskId,
        /// What.
        #[n(1)]
        request: Request,
        /// The revision that the asker has read; any when absent.
        #[n(2)]
        revision: Option<u64>,
        /// The principal.
        #[n(3)]
        by: String,
    },
    /// Submit a dead letter anew, as a task of its own.
    #[n(61)]
    RedriveTask {
        /// The dead letter.
        #[n(0)]
        task: TaskId,
        /// What it depended on, as its record says.
        #[n(1)]
        dependencies: Vec<TaskId>,
        /// The id of the new task.
        #[n(2)]
        id: TaskId,
        /// Drawn by the driver.
        #[n(3)]
        seed: u64,
        /// The principal.
        #[n(4)]
        by: String,
        /// Where the dead letter was not to go on without a person's word, under ids drawn by the driver.
        #[n(100)]
        points: Option<Points>,
    },
    /// Decide what a person was asked. The same decision again changes nothing.
    #[n(100)]
    DecideApproval {
        /// Which.
        #[n(0)]
        approval: ApprovalId,
        /// How.
        #[n(1)]
        ruling: Ruling,
        /// The principal.
        #[n(2)]
        by: String,
    },
    /// Submit a task again and again. The same schedule again changes nothing.
    #[n(90)]
    CreateSchedule {
        /// The crew that works on it, which is live.
        #[n(0)]
        crew: CrewId,
        /// Its name.
        #[n(1)]
        name: Name,
        /// When it is due.
        #[n(2)]
        when: When,
        /// What becomes of due times that were missed.
        #[n(3)]
        missed: Missed,
        /// What is submitted; without dependencies, with an inline input. Of its id only that it is free is needed.
        #[n(4)]
        task: NewTask,
        /// The principal.
        #[n(5)]
        by: String,
    },
    /// Put the time on record, so that what travels with a decision has one.
    #[n(92)]
    NoteTime,
    /// Submit it no more. What it has submitted stays.
    #[n(91)]
    DeleteSchedule {
        /// The name of its crew, which need not be there.
        #[n(0)]
        crew: Name,
        /// Its name.
        #[n(1)]
        name: Name,
        /// The principal.
        #[n(2)]
        by: String,
    },
}

/// Ids drawn for a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Mail {
    /// Its own.
    #[n(0)]
    pub message: MessageId,
    /// Those of its deliveries, as many as [`crate::state::State::receivers`] has.
    #[n(1)]
    pub deliveries: Vec<TaskId>,
}

/// What a person has agreed to when a plugin is installed; nothing unless said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Consent {
    /// The publisher's name as it was typed: needed for the first plugin of a publisher.
    #[n(0)]
    pub publisher: Option<String>,
    /// That the second file asks for more than the first, which is installed.
    #[n(1)]
    pub widening: Option<(Digest, Digest)>,
    /// Why an older release than the newest that was seen is wanted; at most [`crate::limits::MAX_REASON_BYTES`].
    #[n(2)]
    pub downgrade: Option<String>,
}

/// How many ids the driver must draw for the tasks that this end makes.
#[must_use]
pub fn children_of(end: &End) -> usize {
    match end {
        End::Finished(Outcome::Plan(plan)) => plan.nodes.len(),
        _ => 0,
    }
}

/// A task as it is submitted. Schedules keep it in their records: what it grows by must be absent from those that there are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NewTask {
    /// Its id.
    #[n(0)]
    pub id: TaskId,
    /// Drawn by the driver.
    #[n(1)]
    pub seed: u64,
    /// For people; at most [`crate::limits::MAX_TEXT_BYTES`].
    #[n(2)]
    pub description: String,
    /// What to work on.
    #[n(3)]
    pub input: Payload,
    /// An agent with one of them may take it; any agent when empty. With `plan`, it is the planner that has one of them.
    #[n(4)]
    pub roles: BTreeSet<Role>,
    /// Only this agent may take it: a name in the crew, or an id.
    #[n(5)]
    pub agent: Option<String>,
    /// Have a planner split it.
    #[n(6)]
    pub plan: bool,
    /// For the planner.
    #[n(7)]
    pub notes: Vec<Note>,
    /// Have another agent check the result.
    #[n(8)]
    pub check: bool,
    /// [`crate::limits::DEFAULT_RETRIES`] when absent.
    #[n(9)]
    pub max_retries: Option<u32>,
    /// Tasks of the same crew, from earlier submissions or earlier in this one.
    #[n(10)]
    pub dependencies: Vec<TaskId>,
    /// For the submitter.
    #[n(11)]
    pub labels: BTreeMap<String, String>,
    /// See [`crate::task::Task::ephemeral`].
    #[n(12)]
    #[cbor(skip_if = "std::ops::Not::not")]
    pub ephemeral: bool,
    /// How a failed attempt is tried again, beside how often.
    #[n(60)]
    #[cbor(default)]
    pub retry: Policy,
    /// Its lane.
    #[n(61)]
    #[cbor(default)]
    pub priority: Priority,
    /// How long it may take.
    #[n(62)]
    #[cbor(default)]
    pub timeouts: Timeouts,
    /// What becomes of it when one of its parts fails.
    #[n(63)]
    #[cbor(default)]
    pub on_failure: OnFailure,
    /// Where it is not to go on without a person's word.
    #[n(66)]
    pub approval: Option<Points>,
    /// How it is split, where that is known.
    #[n(70)]
    pub parts: Option<Plan>,
    /// Fuel that it and all beneath it may burn.
    #[n(72)]
    pub budget: Option<Fuel>,
}

/// What makes asking twice the same as asking once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Idempotency {
    /// The client's key, 1 to [`crate::limits::MAX_IDEMPOTENCY_KEY_BYTES`].
    #[n(0)]
    pub key: String,
    /// Digest of the request without what the driver draws.
    #[n(1)]
    pub digest: Digest,
}
