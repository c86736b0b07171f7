//! The closed list of what the audit log tells: who did what to what, and why. The payloads are in the journal.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    id::{AgentId, ApprovalId, CrewId, TaskId},
    quantity::Time,
    reason::Reason,
};

/// What an audit entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A plugin was installed.
    #[n(0)]
    PluginInstalled,
    /// A crew was assembled.
    #[n(1)]
    CrewAssembled,
    /// A crew was told to drain.
    #[n(2)]
    CrewDrained,
    /// All of a crew is over.
    #[n(3)]
    CrewStopped,
    /// An agent changed its phase; the detail is `FROM → TO`.
    #[n(4)]
    AgentMoved,
    /// A task was submitted, or made by a plan.
    #[n(5)]
    TaskSubmitted,
    /// Somebody asked to cancel a task.
    #[n(6)]
    TaskCancelled,
    /// A task ended; the detail is its state.
    #[n(7)]
    TaskEnded,
    /// An attempt did not finish well.
    #[n(8)]
    AttemptFailed,
    /// An attempt ended without holding its task any more; nothing of it was accepted.
    #[n(9)]
    AttemptFenced,
    /// Something was refused to an attempt; the detail is what, and how often.
    #[n(10)]
    Denied,
    /// The host came up again; all attempts are lost.
    #[n(11)]
    HostRestarted,
    /// A file of the code cache was not this host's own work and was removed; the detail is whose code, and what is wrong with the file.
    #[n(12)]
    CacheRefused,
    /// A backup was asked for: whoever has it has everything that the host remembers.
    #[n(13)]
    BackedUp,
    /// A plugin was removed.
    #[n(20)]
    PluginRemoved,
    /// A plugin or a document of trust was refused.
    #[n(21)]
    Refused,
    /// A publisher is trusted, or may sign something else than before.
    #[n(22)]
    PublisherTrusted,
    /// A root was adopted.
    #[n(23)]
    RootAdopted,
    /// A publisher changed its keys.
    #[n(24)]
    KeysRotated,
    /// An index was adopted.
    #[n(25)]
    IndexAdopted,
    /// A clock was adopted.
    #[n(26)]
    ClockAdopted,
    /// A key, a file, a release or a publisher was revoked.
    #[n(27)]
    Revoked,
    /// The clock of the machine stands before a time that was seen.
    #[n(28)]
    ClockBack,
    /// A person set the latest time right.
    #[n(29)]
    TimeReset,
    /// A person let a paused task go on.
    #[n(30)]
    TaskResumed,
    /// A task waits for a person; the detail is why.
    #[n(31)]
    TaskPaused,
    /// The host stopped in order; the detail is how many attempts were given back, to go on at the next start.
    #[n(40)]
    HostStopped,
    /// A person has a task tried again.
    #[n(60)]
    TaskRetried,
    /// A person paused a task and everything beneath it.
    #[n(61)]
    TaskHeld,
    /// A person gave a task another priority; the detail is which.
    #[n(62)]
    TaskReprioritised,
    /// A person gave the result of a task; the detail is why.
    #[n(63)]
    TaskOverridden,
    /// A dead letter was submitted anew; the detail is the new task.
    #[n(64)]
    TaskRedriven,
    /// A message that was accepted is not received any more: its time is over, its retries are, or nobody listens; the detail is its id and subject.
    #[n(80)]
    MessageDead,
    /// A message that was a dead letter was sent anew; the detail is the new message.
    #[n(110)]
    MessageRedriven,
    /// A schedule was made.
    #[n(90)]
    ScheduleCreated,
    /// A schedule was deleted.
    #[n(91)]
    ScheduleDeleted,
    /// A task that was due could not be submitted.
    #[n(92)]
    ScheduleRefused,
    /// Due times of a schedule were passed over; the detail is which.
    #[n(93)]
    SchedulePassed,
    /// A person is asked to approve something, or for an answer; the detail is which approval, what, and what a decision is bound to.
    #[n(100)]
    ApprovalAsked,
    /// A person has decided something of that, or has before; the detail is which approval, what and how.
    #[n(101)]
    ApprovalDecided,
    /// Nobody has decided in time.
    #[n(102)]
    ApprovalExpired,
    /// Nobody has decided in time, and it was put to people once more.
    #[n(103)]
    ApprovalEscalated,
    /// The task of an approval ended before it was decided.
    #[n(104)]
    ApprovalWithdrawn,
    /// A part of a task has failed, and whoever split the task is asked for another way; the detail is what has failed.
    #[n(121)]
    TaskEscalated,
    /// A task has waited for an agent for so long that somebody should know; the detail is for how long, and for whom. Once for the oldest task of each
    /// kind of work.
    #[n(122)]
    TaskWaits,
    /// A webhook was not told of something that it was to be told of, and will not be; the detail is which, of what, and why.
    #[n(120)]
    WebhookFailed,
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    #[n(0)]
    pub at: Time,
    /// What.
    #[n(1)]
    pub kind: Kind,
    /// In which crew.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crew: Option<CrewId>,
    /// Which agent.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// Which task.
    #[n(4)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The principal who asked, where one did.
    #[n(5)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why.
    #[n(6)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For people; at most [`crate::limits::MAX_TEXT_BYTES`].
    #[n(7)]
    pub detail: String,
    /// Which approval.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
}

impl AuditEntry {
    /// An entry that names nothing yet.
    #[must_use]
    pub fn new(at: Time, kind: Kind, detail: impl AsRef<str>) -> Self {
        AuditEntry {
            at,
            kind,
            crew: None,
            agent: None,
            task: None,
            actor: None,
            reason: None,
            detail: crate::task::cut(detail.as_ref()),
            approval: None,
        }
    }
}
