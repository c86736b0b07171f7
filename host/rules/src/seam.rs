//! Everything that crosses between the side that decides and the side that executes: plain messages without a pointer in them. Today they are
//! direct calls in one process; a runner in another process or on another machine speaks the same.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    grant::Effective,
    id::{AgentId, CrewId, Digest, TaskId},
    message::Message,
    plan::{Artifact, Note, Outcome, Payload, Plan},
    quantity::{Fuel, Millis, Size, Time},
    reason::Reason,
    step::Recorded,
};

/// The right of one agent to execute one attempt of one task. Everything that an attempt writes carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The task.
    #[n(0)]
    pub task: TaskId,
    /// Rises with every lease of the task; an older one is fenced.
    #[n(1)]
    pub epoch: u64,
    /// The agent.
    #[n(2)]
    pub agent: AgentId,
    /// The agent's generation; a new start of the agent fences the leases of the old.
    #[n(3)]
    pub generation: u64,
}

/// What an attempt calls.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum Call {
    /// `executor.execute`
    #[n(0)]
    Execute,
    /// `planner.plan`
    #[n(1)]
    Plan {
        /// What the submitter gave along.
        #[n(0)]
        notes: Vec<Note>,
    },
    /// `checker.check`
    #[n(2)]
    Check {
        /// The result to be checked.
        #[n(0)]
        result: Payload,
    },
    /// `sequencer.sequence`
    #[n(70)]
    Sequence {
        /// What a planner has made.
        #[n(0)]
        plan: Box<Plan>,
    },
    /// `mailbox.receive`
    #[n(80)]
    Receive {
        /// What is received.
        #[n(0)]
        message: Box<Message>,
    },
}

/// The things that a component can export, in the order of the bits of [`Exports`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Export {
    /// `skep:agent/executor`
    #[n(0)]
    Executor,
    /// `skep:agent/planner`
    #[n(1)]
    Planner,
    /// `skep:agent/checker`
    #[n(2)]
    Checker,
    /// `skep:agent/mailbox`
    #[n(80)]
    Mailbox,
    /// `skep:agent/sequencer`
    #[n(70)]
    Sequencer,
}

impl Export {
    /// All of them.
    pub const ALL: &[Export] = &[
        Export::Executor,
        Export::Planner,
        Export::Checker,
        Export::Mailbox,
        Export::Sequencer,
    ];

    /// The interface.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Export::Executor => "skep:agent/executor",
            Export::Planner => "skep:agent/planner",
            Export::Checker => "skep:agent/checker",
            Export::Mailbox => "skep:agent/mailbox",
            Export::Sequencer => "skep:agent/sequencer",
        }
    }
}

/// How a dependency of a task ended, for its executor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct DependencyEnd {
    /// Its name in the plan, or its id where it was not planned.
    #[n(0)]
    pub name: String,
    /// Its output, or why there is none.
    #[n(1)]
    pub output: Result<Payload, Reason>,
    /// It was skipped or cancelled, rather than failed.
    #[n(2)]
    pub skipped: bool,
}

/// The task as an attempt sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct TaskView {
    /// 1 for the first attempt.
    #[n(0)]
    pub attempt: u32,
    /// For people.
    #[n(1)]
    pub description: String,
    /// What to work on.
    #[n(2)]
    pub input: Payload,
    /// The ends of what it waited for.
    #[n(3)]
    pub dependencies: Vec<DependencyEnd>,
    /// What the host knows, as JSON; integration tasks only.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub facts: Option<Vec<u8>>,
    /// Why a checker sent earlier results back.
    #[n(5)]
    pub remarks: Vec<String>,
    /// Seed of everything random that the attempt sees.
    #[n(6)]
    pub seed: u64,
    /// Where its clock stands before the first step: the beginning of the run, also for an attempt that continues it.
    #[n(7)]
    pub began: Time,
    /// Whether its attempts have a record: not where the task is ephemeral, nor in a check.
    #[n(8)]
    pub records: bool,
    /// The longest that an attempt may take, where that is shorter than the deadline of the agent's limits; not in a check.
    #[n(60)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Millis>,
    /// The most fuel that an attempt may burn, where that is less than the agent's limits; not in a check.
    #[n(70)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<Fuel>,
}

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Identity {
    /// The agent.
    #[n(0)]
    pub agent: AgentId,
    /// Its generation.
    #[n(1)]
    pub generation: u64,
    /// Its name in its crew.
    #[n(2)]
    pub name: String,
    /// Its crew.
    #[n(3)]
    pub crew: CrewId,
}

/// Asked of a runner.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum RunnerCommand {
    /// Compile, link and keep ready. Answered by `Warmed` or `WarmFailed`.
    #[n(0)]
    Warm {
        /// Who.
        #[n(0)]
        agent: Identity,
        /// The component.
        #[n(1)]
        component: Digest,
        /// What it holds.
        #[n(2)]
        effective: Effective,
    },
    /// Execute an attempt. Answered by `Started` and exactly one `Ended`.
    #[n(1)]
    Start {
        /// The right to do it.
        #[n(0)]
        lease: Lease,
        /// What to call.
        #[n(1)]
        call: Call,
        /// With what.
        #[n(2)]
        task: TaskView,
        /// Steps on its record, to be given to it before it goes on; 0 where it begins, and where it is a check.
        #[n(3)]
        recorded: u64,
    },
    /// End an attempt at its next yield. Answered by its `Ended`.
    #[n(2)]
    Cancel {
        /// Which.
        #[n(0)]
        lease: Lease,
    },
    /// Ask the attempts of an agent to finish; the next beat says `drain`.
    #[n(3)]
    Drain {
        /// Whose.
        #[n(0)]
        agent: AgentId,
    },
    /// Drop what was kept ready for an agent and cancel its attempts.
    #[n(4)]
    Forget {
        /// Whose.
        #[n(0)]
        agent: AgentId,
    },
}

/// Told by a runner.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum RunnerEvent {
    /// An agent is compiled, linked and instantiated once.
    #[n(0)]
    Warmed {
        /// Who.
        #[n(0)]
        agent: AgentId,
        /// Its generation.
        #[n(1)]
        generation: u64,
    },
    /// An agent cannot be made ready.
    #[n(1)]
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
    /// An attempt has begun. Of one that keeps no record and is over at once, only the end is told.
    #[n(2)]
    Started {
        /// Which.
        #[n(0)]
        lease: Lease,
    },
    /// An attempt has ended; its store is gone.
    #[n(3)]
    Ended {
        /// Which.
        #[n(0)]
        lease: Lease,
        /// How.
        #[n(1)]
        end: End,
        /// What it used.
        #[n(2)]
        usage: Usage,
        /// What was refused to it while it ran.
        #[n(3)]
        denials: Vec<Denial>,
        /// Its log, captured output included.
        #[n(4)]
        log: Vec<LogLine>,
    },
    /// Signs of life since the last one, for all agents that gave any.
    #[n(4)]
    Beats {
        /// One entry per agent.
        #[n(0)]
        beats: Vec<Beat>,
    },
    /// A file of the code cache was not this host's own work; it was removed, and the component is compiled anew.
    #[n(5)]
    CacheRefused {
        /// The component.
        #[n(0)]
        digest: Digest,
        /// What is wrong with the file.
        #[n(1)]
        why: String,
    },
    /// An attempt that waited was dropped, and what follows of its task goes on by its record: what it had used until then would be told of by nobody
    /// else. Its lease was over before.
    #[n(91)]
    Evicted {
        /// The last that it had.
        #[n(0)]
        lease: Lease,
        /// What it used.
        #[n(1)]
        usage: Usage,
        /// What was refused to it while it ran.
        #[n(2)]
        denials: Vec<Denial>,
    },
    /// Lines that attempts have written since the last one, those of all attempts that wrote any. The last of an attempt come before its end.
    #[n(90)]
    Lines {
        /// One entry per attempt.
        #[n(0)]
        frames: Vec<LogFrame>,
    },
}

/// What one attempt has written lately, as far as it is told while the attempt runs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct LogFrame {
    /// Which attempt.
    #[n(0)]
    pub lease: Lease,
    /// When this was taken, in milliseconds since the attempt began.
    #[n(1)]
    pub now: Millis,
    /// At most [`crate::limits::LIVE_LOG_LINES`], the newest.
    #[n(2)]
    pub lines: Vec<LogLine>,
    /// Lines before them that are not told.
    #[n(3)]
    pub dropped_lines: u64,
    /// Bytes that came in faster than [`crate::limits::OUTPUT_BYTES_PER_SECOND`] and are no lines at all.
    #[n(4)]
    pub dropped_bytes: u64,
}

/// How an attempt ended: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum End {
    /// The export returned.
    #[n(0)]
    Finished(#[n(0)] Outcome),
    /// The guest trapped, ran out of something or passed a bound.
    #[n(1)]
    Stopped {
        /// Which bound, or `trapped`.
        #[n(0)]
        reason: Reason,
        /// For people: the trap's text, cut at 4 KiB.
        #[n(1)]
        message: String,
    },
    /// It was cancelled.
    #[n(2)]
    Cancelled,
    /// Its lease was no longer valid.
    #[n(3)]
    Fenced,
    /// The host had no room: pool, mappings, totals. Not the guest's fault.
    #[n(4)]
    Overload {
        /// What was short.
        #[n(0)]
        message: String,
    },
    /// A bug of ours; logged as an error, never shown inside a guest.
    #[n(5)]
    HostFault {
        /// For the log.
        #[n(0)]
        message: String,
    },
    /// It was continued and did something else than its record says.
    #[n(6)]
    Diverged {
        /// The number of the step, 0 for the first.
        #[n(0)]
        step: u64,
        /// What the record says.
        #[n(1)]
        expected: String,
        /// What it did instead.
        #[n(2)]
        got: String,
    },
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Fuel burned.
    #[n(0)]
    pub fuel: Fuel,
    /// The most linear memory that it held.
    #[n(1)]
    pub peak_memory: Size,
    /// Wall time from before instantiation to the end.
    #[n(2)]
    pub wall: Millis,
    /// Calls into the host.
    #[n(3)]
    pub hostcalls: u64,
}

/// One thing that was refused while an attempt ran; equal ones are counted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Denial {
    /// Why.
    #[n(0)]
    pub reason: Reason,
    /// What was tried: `open /etc/passwd`, cut at 256 bytes and escaped.
    #[n(1)]
    pub what: String,
    /// How often.
    #[n(2)]
    pub count: u64,
}

/// One line of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since the attempt began.
    #[n(0)]
    pub at: Millis,
    /// `trace`, `debug`, `info`, `warn`, `error`, or `stdout` and `stderr` for captured output.
    #[n(1)]
    pub level: String,
    /// The text, control bytes escaped.
    #[n(2)]
    pub message: String,
    /// Named fields.
    #[n(3)]
    pub fields: Vec<(String, String)>,
}

/// Evidence of life of one agent since the last beat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Beat {
    /// Which attempt.
    #[n(0)]
    pub lease: Lease,
    /// Calls into the host so far.
    #[n(1)]
    pub crossings: u64,
    /// Fuel burned so far.
    #[n(2)]
    pub fuel: Fuel,
    /// What the agent itself said, 0 to 100.
    #[n(3)]
    pub percent: Option<u8>,
}

/// A host call that the runner cannot answer itself, asked of the side that holds the store.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum HostCall {
    /// Store a blob for the crew of the lease's agent.
    #[n(0)]
    PutArtifact {
        /// On whose behalf.
        #[n(0)]
        lease: Lease,
        /// Under which number of its record; none for what has no record.
        #[n(3)]
        step: Option<u64>,
        /// The bytes, at most [`crate::limits::MAX_ARTIFACT_BYTES`].
        #[cbor(n(1), with = "minicbor::bytes")]
        bytes: Vec<u8>,
        /// The media type.
        #[n(2)]
        media: String,
    },
    /// Read a piece of a blob of the crew of the lease's agent.
    #[n(1)]
    ReadArtifact {
        /// On whose behalf.
        #[n(0)]
        lease: Lease,
        /// Under which number of its record; none for what has no record, or is read again for it.
        #[n(4)]
        step: Option<u64>,
        /// Which.
        #[n(1)]
        digest: Digest,
        /// From where.
        #[n(2)]
        offset: u64,
        /// How much, at most [`crate::limits::MAX_PIECE_BYTES`].
        #[n(3)]
        length: u32,
    },
}

/// The answer to a [`StepCall`](crate::step::StepCall).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum StepReply {
    /// It was taken and is recorded.
    #[n(0)]
    Recorded(#[n(0)] Recorded),
    /// It will be answered later: the task is WAITING, the lease is over. When the time has come there will be a `Start` with the answer on record;
    /// whoever has kept the instance goes on with it.
    #[n(1)]
    Waiting,
    /// The lease does not hold the task.
    #[n(2)]
    Fenced,
    /// Refused, and not recorded: asked again it may be answered otherwise.
    #[n(3)]
    Refused(#[n(0)] Reason),
}

/// The answer to a [`HostCall`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum HostReply {
    /// Stored.
    #[n(0)]
    Artifact(#[n(0)] Artifact),
    /// Read.
    #[n(1)]
    Bytes(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Refused, or failed.
    #[n(2)]
    Refused(#[n(0)] Reason),
}
