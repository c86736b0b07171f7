//! What may happen next. A decision looks at the state, at what was observed, at facts and at the time, and says what has happened then and
//! what is to be done about it. It sees its own events: each is applied as it is decided, by `apply` and nothing else, so that what follows
//! from it follows in the same decision. A command that is refused is refused before its first event.

mod approval;
mod assign;
mod attempt;
mod crew;
mod emit;
mod lifecycle;
mod message;
mod schedule;
mod settle;
mod step;
mod task;
mod tick;
mod trust;
mod view;

pub(crate) use step::needs as step_needs;
#[cfg(test)]
pub(crate) use task::blank;

use crate::{
    approval::Approval,
    audit::AuditEntry,
    command::Command,
    effect::Effect,
    event::Event,
    facts::{Facts, Write},
    id::{CrewId, Digest, MessageId, TaskId},
    lifecycle::Request,
    observed::Observed,
    quantity::Time,
    rejection::Rejection,
    seam::StepReply,
    state::State,
};

/// What the asker is told, once what was decided is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is so now.
    Done,
    /// The plugin is there.
    Installed {
        /// Its digest.
        digest: Digest,
        /// It was there before.
        already: bool,
    },
    /// The crew is being made ready.
    Assembled(CrewId),
    /// The tasks are accepted.
    Submitted {
        /// Their ids, in the order of the submission.
        tasks: Vec<TaskId>,
        /// They are those of an earlier request with the same key.
        repeated: bool,
    },
    /// The message is accepted.
    Sent {
        /// Its id.
        message: MessageId,
        /// Its deliveries.
        deliveries: Vec<TaskId>,
        /// It was sent before, under the same key.
        repeated: bool,
    },
    /// The attempt does not hold its task any more: nothing of it was accepted.
    Fenced,
    /// What became of a step.
    Step(StepReply),
    /// An approval as it is after a decision.
    Ruled(Box<Approval>),
}

/// A decision in the making.
pub(crate) struct Decision<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) observed: &'a mut Observed,
    pub(crate) now: Time,
    /// The principal who asked, for the audit log.
    actor: Option<String>,
    /// Encoded events, and how much that is.
    pub(crate) entries: Vec<Vec<u8>>,
    bytes: usize,
    pub(crate) audit: Vec<AuditEntry>,
    pub(crate) writes: Vec<Write>,
    pub(crate) effects: Vec<Effect>,
    /// Tasks that may stand in a tree that has failed already.
    suspects: Vec<TaskId>,
    /// Tasks whose run is over, and whether it goes on as another: what it spawned goes with it.
    over: Vec<(TaskId, bool)>,
    /// Deliveries that have ended.
    delivered: Vec<TaskId>,
    /// Records that may still be moved before others have a turn.
    stride: usize,
    /// What follows was looked at; what an earlier decision has left over with it.
    settled: bool,
    /// The host takes plugins that nobody signed.
    unsigned: bool,
}

impl<'a> Decision<'a> {
    pub(crate) fn new(state: &'a mut State, observed: &'a mut Observed, now: Time) -> Self {
        Decision {
            unsigned: observed.unsigned,
            state,
            observed,
            now,
            actor: None,
            entries: Vec::new(),
            bytes: 0,
            audit: Vec::new(),
            writes: Vec::new(),
            effects: Vec::new(),
            suspects: Vec::new(),
            over: Vec::new(),
            delivered: Vec::new(),
            stride: crate::limits::MAX_STRIDE,
            settled: false,
        }
    }

    /// Decides a command and what follows from it.
    ///
    /// # Errors
    /// When it is refused; nothing has changed then.
    pub(crate) fn decide(&mut self, facts: &Facts, command: Command) -> Result<Reply, Rejection> {
        let reply = match command {
            Command::InstallPlugin {
                plugin,
                by,
                signed,
                consent,
            } => self.by(by).install(plugin, signed, &consent),
            Command::RemovePlugin { digest, by } => self.by(by).remove(digest),
            Command::NoteRefusal { reason, detail, by } => Ok(self.by(by).note_refusal(reason, &detail)),
            Command::NoteBackup { by } => Ok(self.by(by).note_backup()),
            Command::NoteWebhook { what } => Ok(self.note_webhook(&what)),
            Command::TrustPublisher { publisher, by } => self.by(by).trust_publisher(publisher),
            Command::AdoptRoot { root, signers, by } => self.by(by).adopt_root(root, &signers),
            Command::RotateKeys { rotation, signers, by } => self.by(by).rotate(rotation, &signers),
            Command::AdoptIndex {
                index,
                digest,
                signers,
                by,
            } => self.by(by).adopt_index(index, digest, &signers),
            Command::AdoptClock { clock, signers, by } => self.by(by).adopt_clock(clock, &signers),
            Command::Revoke { what, why, by } => self.by(by).revoke(what, &why),
            Command::ResetTime { why, by } => self.by(by).reset_time(&why),
            Command::ResumeTask { task, by } => self.by(by).change_task(facts, task, Request::Resume, None),
            Command::ChangeTask {
                task,
                request,
                revision,
                by,
            } => self.by(by).change_task(facts, task, request, revision),
            Command::RedriveTask {
                task,
                dependencies,
                id,
                seed,
                by,
                points,
            } => self.by(by).redrive(facts, task, &dependencies, points, id, seed),
            Command::DecideApproval { approval, ruling, by } => self.by(by).decide_approval(facts, approval, ruling),
            Command::AssembleCrew {
                crew,
                agents,
                manifest,
                plugins,
                ceiling,
                by,
            } => self.by(by).assemble(crew, agents, manifest, &plugins, &ceiling),
            Command::DrainCrew { crew, by } => self.by(by).drain(crew),
            Command::SubmitTasks {
                crew,
                tasks,
                idempotency,
                by,
            } => self.by(by).submit(facts, crew, tasks, idempotency),
            Command::CancelTask { task, by } => self.by(by).change_task(facts, task, Request::Cancel, None),
            Command::Warmed { agent, generation } => Ok(self.warmed(agent, generation)),
            Command::WarmFailed {
                agent,
                generation,
                reason,
                message,
            } => Ok(self.warm_failed(agent, generation, reason, &message)),
            Command::AttemptStarted { lease } => Ok(self.attempt_started(lease)),
            Command::AttemptEvicted { lease, usage, denials } => Ok(self.attempt_evicted(lease, usage, denials)),
            Command::AttemptEnded {
                lease,
                end,
                usage,
                denials,
                children,
            } => Ok(self.attempt_ended(lease, end, usage, denials, &children)),
            Command::Step {
                lease,
                number,
                call,
                child,
                mail,
            } => {
                let (reply, follows) = self.step_of(facts, lease, number, call, (child, mail));
                match follows {
                    true => Ok(reply),
                    // The usual case, many times a task: nothing else moves.
                    false => return Ok(reply),
                }
            }
            Command::SendMessage { crew, letter, mail, by } => self.by(by).send_message(facts, crew, letter, mail),
            Command::RedriveMessage {
                delivery,
                message,
                mail,
                by,
            } => self.by(by).redrive_message(facts, delivery, message, mail),
            Command::CacheRefused { digest, why } => Ok(self.cache_refused(digest, &why)),
            Command::CreateSchedule {
                crew,
                name,
                when,
                missed,
                task,
                by,
            } => self.by(by).create_schedule(crew, name, when, missed, task),
            Command::NoteTime => {
                self.emit(Event::TimeSeen { at: self.now });
                Ok(Reply::Done)
            }
            Command::DeleteSchedule { crew, name, by } => self.by(by).delete_schedule(&crew, &name),
        };
        if reply.is_err() {
            assert!(self.entries.is_empty(), "a refused command has changed nothing");
        }
        self.actor = None;
        let reply = reply?;
        self.settle();
        Ok(reply)
    }

    fn by(&mut self, actor: String) -> &mut Self {
        self.actor = Some(actor);
        self
    }
}
