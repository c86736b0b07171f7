//! What a decision has done about it. What stays inside the shard's process (a runner told to start) is done at once: if a crash loses it, it
//! loses its cause too. What leaves (an answer, a stream, whoever waits for a task) is held back until the entries before it are durable.

use crate::{
    agent::Phase,
    approval::Settled,
    crew_record::CrewPhase,
    id::{AgentId, ApprovalId, CrewId, Digest, MessageId, TaskId},
    quantity::Time,
    reason::Reason,
    seam::RunnerCommand,
    task::TaskState,
};

/// What a decision has done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "an effect is performed once and never kept")]
pub enum Effect {
    /// Inside: tell the runner, now.
    Run(RunnerCommand),
    /// Leaves the shard: tell streams and whoever waits, once durable.
    Notice(Notice),
}

/// What the outside may learn of a change. It names the record; the record is read where more is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// When.
    pub at: Time,
    /// The crew concerned; none for plugins.
    pub crew: Option<CrewId>,
    /// What changed.
    pub what: Changed,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A plugin was installed, removed or revoked.
    Plugin(Digest),
    /// Who is trusted, or what is revoked.
    Trust,
    /// A crew was assembled, drains or has stopped.
    Crew(CrewPhase),
    /// An agent changed its phase.
    Agent {
        /// Which.
        agent: AgentId,
        /// Where it is.
        phase: Phase,
    },
    /// A task was accepted or changed its state. With [`TaskState::is_ended`], whoever waits for it is to be woken.
    Task {
        /// Which.
        task: TaskId,
        /// Where it is.
        state: TaskState,
        /// Who holds it.
        agent: Option<AgentId>,
        /// Why it failed, or why its last attempt did.
        reason: Option<Reason>,
    },
    /// A message was taken.
    Message(MessageId),
    /// A person is asked something, has decided some of it, is asked once more, or it is over.
    Approval {
        /// Which.
        approval: ApprovalId,
        /// Whose.
        task: TaskId,
        /// How it is over, if it is.
        settled: Option<Settled>,
    },
}
