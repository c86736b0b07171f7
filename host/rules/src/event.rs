//! What has happened: the entries of the journal. `State::apply` is the only reader that matters, and the only place where state changes.

use minicbor::{Decode, Encode};

use crate::{
    agent::{Failure, Phase},
    approval::{Approval, Asks, Settled, Verdict},
    crew_record::{Crew, CrewPhase},
    id::{AgentId, ApprovalId, CrewId, Digest, Name, TaskId},
    lease::Held,
    message::Message,
    metadata::{Clock, Index, Publisher, Root, Rotation},
    plan::{Payload, Plan},
    plugin::Plugin,
    priority::Priority,
    quantity::Time,
    schedule::{Advance, Schedule},
    seam::{Denial, Export, Lease, Usage},
    state::Namespace,
    task::{Task, TaskState, Wait},
    trust::Revocation,
};

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// A plugin is there.
    #[n(0)]
    PluginInstalled(#[n(0)] Box<Plugin>),
    /// A crew is there, with its agents in PROVISIONING.
    #[n(1)]
    CrewAssembled {
        /// The record.
        #[n(0)]
        crew: Box<Crew>,
        /// Its agents, in the order of members and replicas.
        #[n(1)]
        agents: Vec<AgentId>,
    },
    /// A crew drains, or has stopped.
    #[n(2)]
    CrewMoved {
        /// Which.
        #[n(0)]
        crew: CrewId,
        /// Where to.
        #[n(1)]
        to: CrewPhase,
        /// When.
        #[n(2)]
        at: Time,
    },
    /// A stopped crew and its agents are read from tables from now on.
    #[n(3)]
    CrewArchived {
        /// Which.
        #[n(0)]
        crew: CrewId,
    },
    /// An agent changed its phase. READY and BUSY follow from leases and are not entries of their own.
    #[n(4)]
    AgentMoved {
        /// Which.
        #[n(0)]
        agent: AgentId,
        /// Where to.
        #[n(1)]
        to: Phase,
        /// When.
        #[n(2)]
        at: Time,
        /// Why, where it failed.
        #[n(3)]
        failure: Option<Failure>,
    },
    /// The host came up again: every lease is lost (its task goes back in the queue), every agent that was to serve starts anew in
    /// PROVISIONING, one generation on.
    #[n(5)]
    HostRestarted {
        /// When.
        #[n(0)]
        at: Time,
    },
    /// A task is there.
    #[n(6)]
    TaskAccepted(#[n(0)] Box<Task>),
    /// What an attempt used and was refused.
    #[n(7)]
    AttemptUsed {
        /// Which.
        #[n(0)]
        lease: Lease,
        /// What it used.
        #[n(1)]
        usage: Usage,
        /// What was refused to it.
        #[n(2)]
        denials: Vec<Denial>,
    },
    /// A task changed.
    #[n(8)]
    TaskMoved {
        /// Which.
        #[n(0)]
        task: TaskId,
        /// How.
        #[n(1)]
        change: Change,
        /// When.
        #[n(2)]
        at: Time,
    },
    /// An ended task and all beneath it are read from a table from now on.
    #[n(9)]
    TreeArchived {
        /// The objective.
        #[n(0)]
        root: TaskId,
    },
    /// An attempt ended that did not hold its task any more. It changes nothing; the audit log tells of it.
    #[n(10)]
    AttemptFenced {
        /// Which.
        #[n(0)]
        lease: Lease,
    },
    /// A file of the code cache was refused. It changes nothing; the audit log tells of it.
    #[n(11)]
    CacheRefused {
        /// The component.
        #[n(0)]
        digest: Digest,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// A step of a run was answered and is on its record.
    #[n(30)]
    Stepped {
        /// Whose.
        #[n(0)]
        task: TaskId,
        /// When.
        #[n(1)]
        at: Time,
        /// The encoded [`crate::step::Step`].
        #[cbor(n(2), with = "minicbor::bytes")]
        step: Vec<u8>,
    },
    /// The steps that memory keeps of a task are read from their table from now on.
    #[n(31)]
    RecordSpilled {
        /// Whose.
        #[n(0)]
        task: TaskId,
    },
    /// The state of a crew holds something else now. The values are rows.
    #[n(32)]
    NamespaceChanged {
        /// The crew's name.
        #[n(0)]
        name: Name,
        /// What it holds.
        #[n(1)]
        namespace: Namespace,
    },
    /// The ended children of a task, and all beneath them, are read from a table from now on, and no longer counted.
    #[n(33)]
    PartsArchived {
        /// Whose.
        #[n(0)]
        task: TaskId,
    },
    /// A message was taken. Its deliveries are tasks, and follow.
    #[n(80)]
    MessageSent(#[n(0)] Box<Message>),
    /// A plugin is gone; its number stays known.
    #[n(20)]
    PluginRemoved {
        /// Which.
        #[n(0)]
        digest: Digest,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// A publisher is trusted, or may sign something else than before.
    #[n(21)]
    PublisherTrusted {
        /// Who.
        #[n(0)]
        publisher: Box<Publisher>,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// A root says who is trusted.
    #[n(22)]
    RootAdopted {
        /// It.
        #[n(0)]
        root: Box<Root>,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// A publisher has other keys.
    #[n(23)]
    KeysRotated {
        /// How.
        #[n(0)]
        rotation: Box<Rotation>,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// An index says what is newest, and what is revoked.
    #[n(24)]
    IndexAdopted {
        /// It.
        #[n(0)]
        index: Box<Index>,
        /// SHA-256 of it as it was signed.
        #[n(1)]
        digest: Digest,
        /// When.
        #[n(2)]
        at: Time,
    },
    /// A clock says which index is the newest.
    #[n(25)]
    ClockAdopted {
        /// It.
        #[n(0)]
        clock: Clock,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// Something is revoked.
    #[n(26)]
    Revoked {
        /// What.
        #[n(0)]
        what: Revocation,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// The time was seen; nothing else happened for long, or only something for the audit log.
    #[n(27)]
    TimeSeen {
        /// It.
        #[n(0)]
        at: Time,
    },
    /// The latest time seen was wrong.
    #[n(28)]
    TimeReset {
        /// What it is instead.
        #[n(0)]
        at: Time,
    },
    /// A schedule is there.
    #[n(90)]
    ScheduleCreated(#[n(0)] Box<Schedule>),
    /// A schedule moved on; the task that it submitted, if any, is the next entry.
    #[n(91)]
    ScheduleAdvanced {
        /// Of which crew.
        #[n(0)]
        crew: Name,
        /// Which.
        #[n(1)]
        name: Name,
        /// How.
        #[n(2)]
        advance: Advance,
        /// When it is due next. Without one it is gone.
        #[n(3)]
        next: Option<Time>,
        /// When.
        #[n(4)]
        at: Time,
    },
    /// A schedule is gone.
    #[n(92)]
    ScheduleDeleted {
        /// Of which crew.
        #[n(0)]
        crew: Name,
        /// Which.
        #[n(1)]
        name: Name,
        /// When.
        #[n(2)]
        at: Time,
    },
    /// A person is asked.
    #[n(100)]
    ApprovalAsked(#[n(0)] Box<Approval>),
    /// A person has decided some of what was asked.
    #[n(101)]
    ApprovalDecided {
        /// Which.
        #[n(0)]
        approval: ApprovalId,
        /// The places of the items, all decided alike.
        #[n(1)]
        items: Vec<u32>,
        /// How.
        #[n(2)]
        verdict: Verdict,
    },
    /// Nobody has decided in time: it is put to people once more.
    #[n(102)]
    ApprovalEscalated {
        /// Which.
        #[n(0)]
        approval: ApprovalId,
        /// Until when it can be decided now.
        #[n(1)]
        until: Time,
        /// When.
        #[n(2)]
        at: Time,
    },
    /// An approval is over and is read from its table from now on.
    #[n(103)]
    ApprovalSettled {
        /// Which.
        #[n(0)]
        approval: ApprovalId,
        /// How.
        #[n(1)]
        how: Settled,
        /// When.
        #[n(2)]
        at: Time,
    },
}

/// How a task changed. Every change but `Assigned`, `Started` and `Reprioritised` ends the lease in force and frees its slot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// Nothing stands in its way, or what it waited for has come: READY; or, in VERIFYING, a checker is sought again.
    #[n(0)]
    Ready,
    /// Leased: ASSIGNED, or a checker's lease in VERIFYING.
    #[n(1)]
    Assigned(#[n(0)] Held),
    /// The attempt began: RUNNING, or a checker's in VERIFYING.
    #[n(2)]
    Started,
    /// The attempt is lost and does not count: READY, or VERIFYING without a checker.
    #[n(3)]
    Lost,
    /// The attempt failed and is tried again: RETRY_WAIT; or, where it was a check, VERIFYING without a checker.
    #[n(4)]
    Retry {
        /// Not before.
        #[n(0)]
        not_before: Time,
        /// Why the attempt failed.
        #[n(1)]
        failure: Failure,
        /// What it counts against.
        #[n(2)]
        counts: Counts,
    },
    /// A result is there and wants to be checked: VERIFYING.
    #[n(5)]
    Candidate(#[n(0)] Source),
    /// The checker sent the result back, or a part of it has failed and it is split anew: READY.
    #[n(6)]
    SentBack(#[n(0)] String),
    /// It has children now: WAITING.
    #[n(7)]
    Split,
    /// COMPLETED.
    #[n(8)]
    Completed(#[n(0)] Source),
    /// FAILED.
    #[n(9)]
    Failed(#[n(0)] Cause),
    /// CANCELLED.
    #[n(10)]
    Cancelled(#[n(0)] Failure),
    /// SKIPPED.
    #[n(11)]
    Skipped(#[n(0)] Cause),
    /// The run waits for a step: WAITING.
    #[n(20)]
    Waits(#[n(0)] Wait),
    /// The run is over and another one begins with this input: READY.
    #[n(21)]
    Continued(#[n(0)] Payload),
    /// PAUSED: a person must look at it. Resumed, it is READY, or VERIFYING where it has a result that waits for that.
    #[n(12)]
    Paused(#[n(0)] Failure),
    /// The host stopped in order and gave the lease back. The attempt counts no more than one that never began: READY, or VERIFYING without a
    /// checker.
    #[n(40)]
    HandedBack,
    /// Its attempts are used up: PAUSED, and a person says whether it begins anew.
    #[n(60)]
    Exhausted(#[n(0)] Failure),
    /// A person paused it: PAUSED.
    #[n(61)]
    Held(#[n(0)] Failure),
    /// It goes on where it stood: this state.
    #[n(62)]
    Resumed(#[n(0)] TaskState),
    /// It was PAUSED and begins anew, with all its attempts: READY.
    #[n(63)]
    Again,
    /// It has another lane. Its state and its lease stay.
    #[n(64)]
    Reprioritised(#[n(0)] Priority),
    /// A person gave its result: COMPLETED.
    #[n(65)]
    Overridden(#[n(0)] Payload),
    /// Its attempts are used up, or another would not help, and it is kept as a dead letter: FAILED, and this is why.
    #[n(66)]
    Buried(#[n(0)] Failure),
    /// A planner has split it, and a sequencer puts the plan in order first: READY.
    #[n(70)]
    Drafted(#[n(0)] Box<Plan>),
    /// It waits for a person: BLOCKED where its agent cannot go on, else AWAITING_APPROVAL.
    #[n(100)]
    Asks {
        /// For what.
        #[n(0)]
        asks: Asks,
        /// The step that the answer is for, where an agent asks.
        #[n(1)]
        wait: Option<Wait>,
        /// The result that is to be approved.
        #[n(2)]
        result: Option<Source>,
    },
    /// A person has not approved it: REJECTED.
    #[n(101)]
    Rejected(#[n(0)] Failure),
}

impl Change {
    /// Whether the task ends with it.
    #[must_use]
    pub fn ends(&self) -> bool {
        matches!(
            self,
            Change::Completed(_)
                | Change::Failed(_)
                | Change::Cancelled(_)
                | Change::Skipped(_)
                | Change::Overridden(_)
                | Change::Buried(_)
                | Change::Rejected(_)
        )
    }

    /// Whether the lease in force, if there is one, stays so.
    #[must_use]
    pub fn keeps_lease(&self) -> bool {
        matches!(self, Change::Assigned(_) | Change::Started | Change::Reprioritised(_))
    }

    /// Whether another run begins with it, with an empty record. An attempt that was lost, or that the host failed, is continued instead.
    #[must_use]
    pub fn begins_run(&self, held: Option<&Held>) -> bool {
        match self {
            Change::SentBack(_) | Change::Continued(_) | Change::Again | Change::Drafted(_) => true,
            Change::Retry { counts, .. } => {
                *counts == Counts::Retry && held.is_none_or(|held| held.export != Export::Checker)
            }
            _ => false,
        }
    }
}

/// Why a task ends without a result. By reference where another task is the cause: a failed tree names it a thousand times.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// This.
    #[n(0)]
    Own(#[n(0)] Failure),
    /// Another task, on which it depended or which is part of it, has ended badly.
    #[n(1)]
    Task(#[n(0)] TaskId),
}

/// What a failed attempt counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Counts {
    /// The task's retries.
    #[n(0)]
    Retry,
    /// What the host may get wrong.
    #[n(1)]
    Fault,
    /// Nothing: the host had no room.
    #[n(2)]
    Nothing,
}

/// Where a result comes from. By reference where the bytes are in the state already: a chain of parents does not copy them into the journal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Source {
    /// The attempt gave it.
    #[n(0)]
    Given(#[n(0)] Payload),
    /// It is a child's.
    #[n(1)]
    Child(#[n(0)] TaskId),
    /// It is the one under check.
    #[n(2)]
    Candidate,
}
