//! Messages: taken whole or not at all, stamped, handed to every mailbox that listens. A delivery is a small task of its own, so it is leased, fenced,
//! continued, tried again and archived like every other; what is decided here is who receives, in which order, until when, and who is told the answer.

use super::{Decision, Reply};
use crate::{
    agent::Failure,
    audit::{AuditEntry, Kind},
    command::Mail,
    crew_record::CrewPhase,
    effect::Changed,
    event::{Cause, Change, Event},
    facts::{Facts, Remembered, Table, Write, message_key},
    id::{AgentId, CrewId, Digest, MessageId, TaskId},
    limits::{
        IDEMPOTENCY, MAX_ANSWER_BYTES, MAX_DECISION_BYTES, MAX_LIVE_TASKS, MAX_MAILBOX, MAX_MESSAGE_TTL, MAX_RECEIVERS,
    },
    message::{Class, Dead, Delivery, Kept, Letter, Message, Source, Target, hears},
    plan::Payload,
    reason::Reason,
    rejection::Rejection,
    retry::child_seed,
    seam::{Call, Lease},
    state::encode,
    step::StepResult,
    task::{Task, TaskState},
};

/// Who sends, and in which conversation: what the host stamps.
struct Sender {
    crew: CrewId,
    source: Source,
    task: Option<TaskId>,
    /// The message that is being handled.
    cause: Option<MessageId>,
    /// It asks, and waits for the answer.
    asks: bool,
    /// The dead letter that is tried again.
    redrives: Option<TaskId>,
}

/// A message that was taken, now or before under the same key.
struct Taken {
    message: MessageId,
    deliveries: Vec<TaskId>,
    repeated: bool,
}

impl Decision<'_> {
    /// A principal sends a message to a crew.
    pub(super) fn send_message(
        &mut self,
        facts: &Facts,
        crew: CrewId,
        letter: Letter,
        mail: Mail,
    ) -> Result<Reply, Rejection> {
        let known = self.state.crew(crew).ok_or_else(|| Rejection::not_found(crew))?;
        if known.phase != CrewPhase::Live {
            let message = format!(
                "the crew `{}` takes no messages: it is {:?}",
                known.manifest.name, known.phase
            );
            return Err(Rejection::illegal(message.to_lowercase(), &[]));
        }
        let from = Sender {
            crew,
            source: Source::Principal(self.actor.clone().unwrap_or_default()),
            task: None,
            cause: None,
            asks: false,
            redrives: None,
        };
        let taken = self.take(facts, from, letter, mail)?;
        Ok(Reply::Sent {
            message: taken.message,
            deliveries: taken.deliveries,
            repeated: taken.repeated,
        })
    }

    /// Sends a message anew to the one receiver of whom it is a dead letter: with all its time, from whom it came, in its conversation.
    pub(super) fn redrive_message(
        &mut self,
        facts: &Facts,
        delivery: TaskId,
        message: MessageId,
        mail: Mail,
    ) -> Result<Reply, Rejection> {
        let dead = Dead { message, delivery };
        if !self.state.dead_messages().any(|known| known == dead) {
            let message = format!("{delivery} is no dead letter, or was redriven already");
            return Err(Rejection::illegal(message, &[]));
        }
        let task = self.known(facts, delivery)?;
        let kept = facts.message.as_ref().ok_or_else(|| Rejection::not_found(message))?;
        let crew = self.state.crew(task.crew).filter(|crew| crew.phase == CrewPhase::Live);
        if crew.is_none() {
            let message = format!("the crew of {message} takes no messages any more");
            return Err(Rejection::illegal(message, &[]));
        }
        let receiver = task.agent.ok_or_else(|| Rejection::not_found(delivery))?;
        let letter = Letter {
            target: Target::Agent(receiver.to_string()),
            // It was taken once under its key, and this is another.
            idempotency_key: None,
            correlation: Some(kept.message.correlation.clone()),
            ..kept.message.letter.clone()
        };
        let from = Sender {
            crew: task.crew,
            source: kept.message.source.clone(),
            task: None,
            cause: Some(message),
            asks: false,
            redrives: Some(delivery),
        };
        let taken = self.take(&Facts::default(), from, letter, mail)?;
        let entry = AuditEntry {
            crew: Some(task.crew),
            agent: Some(receiver),
            task: Some(delivery),
            ..self.entry(Kind::MessageRedriven, taken.message.to_string())
        };
        self.audit.push(entry);
        Ok(Reply::Sent {
            message: taken.message,
            deliveries: taken.deliveries,
            repeated: taken.repeated,
        })
    }

    /// An attempt sends a message.
    pub(super) fn send_step(&mut self, facts: &Facts, lease: &Lease, letter: Letter, mail: Option<Mail>) -> StepResult {
        match self.post(facts, lease, letter, mail, false) {
            Ok(taken) => StepResult::Sent(taken.message),
            Err(reason) => StepResult::refused(reason),
        }
    }

    /// An attempt asks: the delivery of its question, and until when it waits.
    pub(super) fn ask_step(
        &mut self,
        lease: &Lease,
        letter: Letter,
        mail: Option<Mail>,
    ) -> Result<(TaskId, crate::quantity::Time), Reason> {
        let until = self.now.after(letter.ttl.unwrap_or(letter.kind.default_ttl()));
        let taken = self.post(&Facts::default(), lease, letter, mail, true)?;
        let delivery = taken.deliveries.first().ok_or(Reason::NoListener)?;
        Ok((*delivery, until))
    }

    fn post(
        &mut self,
        facts: &Facts,
        lease: &Lease,
        letter: Letter,
        mail: Option<Mail>,
        asks: bool,
    ) -> Result<Taken, Reason> {
        let (crew, source) = self.state.source_of(lease).ok_or(Reason::HostFault)?;
        let agent = self
            .state
            .agent(lease.agent)
            .and_then(|agent| self.state.member_of(agent));
        if !agent.is_some_and(|member| hears(&member.effective.messages.send, &letter.subject)) {
            return Err(Reason::CapabilityDenied);
        }
        // The body is an artifact that the crew does not have.
        let mail = mail.ok_or(Reason::InvalidInput)?;
        let task = self.state.task(lease.task);
        // What is done for a message belongs to it, also where others do it.
        let cause = task
            .and_then(|task| task.delivery.as_ref().or(self.state.task(task.root)?.delivery.as_ref()))
            .map(|delivery| delivery.message);
        let from = Sender {
            crew,
            source,
            task: Some(lease.task),
            cause,
            asks,
            redrives: None,
        };
        self.take(facts, from, letter, mail)
            .map_err(|rejection| rejection.reason)
    }

    /// Takes a message, every rule checked, or changes nothing but what is counted.
    fn take(&mut self, facts: &Facts, from: Sender, letter: Letter, mail: Mail) -> Result<Taken, Rejection> {
        let kind = letter.kind;
        let taken = self.take_or_refuse(facts, from, letter, mail);
        match &taken {
            Ok(taken) if taken.repeated => {}
            Ok(_) => self.observed.traffic.count(kind).sent += 1,
            Err(refused) if refused.reason == Reason::Overloaded => self.observed.traffic.count(kind).refused += 1,
            Err(_) => {}
        }
        taken
    }

    fn take_or_refuse(&mut self, facts: &Facts, from: Sender, letter: Letter, mail: Mail) -> Result<Taken, Rejection> {
        letter.check().map_err(Rejection::invalid)?;
        let digest = Digest::of(&encode(&letter));
        let key = letter.idempotency_key.as_deref();
        let key = key.map(|key| message_key(from.crew, &from.source, key));
        if let Some(known) = facts
            .idempotency
            .as_ref()
            .filter(|known| key.is_some() && known.until > self.now)
        {
            return repeated(known, digest);
        }
        let receivers = self.receivers_of(&from, &letter)?;
        let expires = self.now.after(letter.ttl.unwrap_or(letter.kind.default_ttl()));
        let handled = from.cause.and_then(|cause| self.state.message(cause));
        let correlation = letter.correlation.clone();
        let correlation = correlation.or_else(|| handled.map(|message| message.correlation.clone()));
        let message = Message {
            id: mail.message,
            crew: from.crew,
            created: self.now,
            expires,
            correlation: correlation.unwrap_or_else(|| mail.message.to_string()),
            causation: from.cause,
            task: from.task,
            redrives: from.redrives,
            seq: self.state.next_order(),
            receivers: u32::try_from(receivers.len()).unwrap_or(u32::MAX),
            source: from.source,
            letter,
        };
        if mail.deliveries.len() < receivers.len() || mail.deliveries.iter().any(|id| self.state.task(*id).is_some()) {
            let what = "the host drew too few ids for the message";
            return Err(Rejection::new(Reason::Overloaded, what));
        }
        let deliveries = self.deliveries(
            &message,
            &receivers,
            mail.deliveries,
            from.asks.then_some(from.task).flatten(),
        );
        let bytes = encode(&message).len() + deliveries.iter().map(|task| encode(task).len()).sum::<usize>();
        if bytes > MAX_DECISION_BYTES {
            let what = format!(
                "the message and its deliveries have {bytes} bytes, at most {MAX_DECISION_BYTES}; put a large body in an artifact"
            );
            return Err(Rejection::new(Reason::BodyLimit, what));
        }
        let taken = Taken {
            message: message.id,
            deliveries: deliveries.iter().map(|task| task.id).collect(),
            repeated: false,
        };
        self.accept_message(message, deliveries);
        if let Some(key) = key {
            self.remember(&taken, key, digest);
        }
        Ok(taken)
    }

    /// Who receives a letter. Refused where somebody must listen and nobody does, and where a mailbox is full.
    fn receivers_of(&self, from: &Sender, letter: &Letter) -> Result<Vec<AgentId>, Rejection> {
        let mut receivers = self.state.receivers(from.crew, letter, from.asks);
        let kind = letter.kind;
        let lenient = matches!(kind.class(), Class::Latest) || kind == crate::message::Kind::Error;
        let needed = from.asks || kind.needs_listener() || (letter.target != Target::Subscribers && !lenient);
        if receivers.is_empty() && needed {
            let message = format!("nobody who could receive it listens to `{}`", letter.subject);
            return Err(Rejection::new(Reason::NoListener, message));
        }
        let full = |agent: &AgentId| self.state.mailbox(*agent) >= MAX_MAILBOX;
        match kind.class() {
            // The next one comes soon.
            Class::Latest => receivers.retain(|agent| !full(agent)),
            Class::AtMostOnce | Class::AtLeastOnce => {
                if let Some(agent) = receivers.iter().find(|agent| full(agent)) {
                    let name = self.state.agent(*agent).map_or("", |agent| agent.name.as_str());
                    let message = format!("{MAX_MAILBOX} messages wait in the mailbox of `{name}`");
                    return Err(Rejection::new(Reason::Overloaded, message));
                }
            }
        }
        if receivers.len() > MAX_RECEIVERS {
            let message = format!(
                "a message has at most {MAX_RECEIVERS} receivers, this one {}",
                receivers.len()
            );
            return Err(Rejection::invalid(message));
        }
        if self.state.live_tasks() + receivers.len() > MAX_LIVE_TASKS {
            let message = format!("the host holds {MAX_LIVE_TASKS} live tasks and messages already");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        Ok(receivers)
    }

    fn deliveries(
        &self,
        message: &Message,
        receivers: &[AgentId],
        ids: Vec<TaskId>,
        asker: Option<TaskId>,
    ) -> Vec<Task> {
        let letter = &message.letter;
        let key = message.order_key();
        let by = match &message.source {
            Source::Agent { name, .. } => name.clone(),
            Source::Principal(name) => name.clone(),
        };
        let one = |((agent, id), index): ((&AgentId, TaskId), u64)| {
            let before = key.as_deref().filter(|_| !message.is_volatile());
            let before = before.and_then(|key| self.state.index.last_keyed(*agent, key));
            // The first of its key that has not ended is received; the others wait, in their order, however it ends.
            let state = match before {
                Some(_) => TaskState::Pending,
                None => TaskState::Ready,
            };
            Task {
                agent: Some(*agent),
                description: format!("{} {}", letter.kind, letter.subject),
                max_retries: letter.kind.retries(),
                priority: letter.priority,
                seed: child_seed(message.seq, index),
                order: self.state.next_order() + index,
                created: self.now,
                by: by.clone(),
                ephemeral: message.is_volatile(),
                delivery: Some(Delivery {
                    message: message.id,
                    kind: letter.kind,
                    expires: message.expires,
                    key: key.clone(),
                    asker,
                }),
                state,
                queued: before.is_none().then_some(self.now),
                ..super::task::blank(id, message.crew)
            }
        };
        receivers.iter().zip(ids).zip(0..).map(one).collect()
    }

    fn accept_message(&mut self, message: Message, deliveries: Vec<Task>) {
        let (id, crew, volatile) = (message.id, message.crew, message.is_volatile());
        if !volatile {
            let kept = Kept {
                deliveries: deliveries.iter().map(|task| task.id).collect(),
                until: self.now.after(MAX_MESSAGE_TTL),
                message: message.clone(),
            };
            self.writes.push(Write {
                table: Table::Messages,
                key: id.to_bytes().to_vec(),
                value: Some(encode(&kept)),
            });
        }
        let unheard = deliveries.is_empty() && message.letter.kind == crate::message::Kind::Error;
        let about = format!("{id} {}: nobody listens", message.letter.subject);
        self.emit(Event::MessageSent(Box::new(message)));
        for delivery in deliveries {
            if volatile {
                self.supersede(&delivery);
            }
            self.accept(delivery);
        }
        if unheard {
            self.observed.traffic.count(crate::message::Kind::Error).dead += 1;
            let entry = AuditEntry {
                crew: Some(crew),
                reason: Some(Reason::NoListener),
                ..self.entry(Kind::MessageDead, about)
            };
            self.audit.push(entry);
        }
        self.notice(Some(crew), Changed::Message(id));
    }

    /// Ends the delivery that waits where a newer one of its sender and subject comes.
    fn supersede(&mut self, newer: &Task) {
        let key = newer.delivery.as_ref().and_then(|delivery| delivery.key.as_deref());
        let before = newer
            .agent
            .zip(key)
            .and_then(|(agent, key)| self.state.index.last_keyed(agent, key));
        let waits = |id: &TaskId| self.state.task(*id).is_some_and(|task| task.held.is_none());
        if let Some(before) = before.filter(waits) {
            let failure = Failure::new(Reason::Cancelled, "a newer one has taken its place");
            self.move_task(before, Change::Cancelled(failure));
        }
    }

    fn remember(&mut self, taken: &Taken, key: String, digest: Digest) {
        let remembered = Remembered {
            digest,
            tasks: taken.deliveries.clone(),
            until: self.now.after(IDEMPOTENCY),
            message: Some(taken.message),
        };
        self.writes.push(Write {
            table: Table::Idempotency,
            key: key.into_bytes(),
            value: Some(encode(&remembered)),
        });
    }

    /// What a delivery calls.
    pub(super) fn receive(&self, delivery: &Delivery) -> Option<Call> {
        let message = self.state.message(delivery.message)?;
        Some(Call::Receive {
            message: Box::new(message.clone()),
        })
    }

    /// Whether it is too late to begin a delivery.
    pub(super) fn is_expired(&self, task: TaskId) -> bool {
        let expires = self.state.task(task).and_then(Task::expires);
        expires.is_some_and(|expires| expires <= self.now)
    }

    /// Ends a delivery that nobody has begun in time.
    pub(super) fn expire(&mut self, task: TaskId) {
        let failure = Failure::new(Reason::MessageExpired, "nobody has begun to receive it in time");
        self.move_task(task, Change::Failed(Cause::Own(failure)));
    }

    /// What follows from the end of a delivery: whoever asked is told, and the operator where it was not handled.
    pub(super) fn delivered(&mut self, id: TaskId) {
        let Some(task) = self.state.task(id) else {
            return;
        };
        let Some(delivery) = task.delivery.clone() else {
            return;
        };
        let is_dead = task.state == TaskState::Failed && delivery.kind.class() == Class::AtLeastOnce;
        let is_late = task
            .failure
            .as_ref()
            .is_some_and(|failure| failure.reason == Reason::MessageExpired);
        let counts = self.observed.traffic.count(delivery.kind);
        counts.delivered += u64::from(task.state == TaskState::Completed);
        counts.dead += u64::from(is_dead);
        counts.expired += u64::from(is_late);
        if is_dead {
            let failure = task.failure.clone();
            let subject = self
                .state
                .message(delivery.message)
                .map(|message| message.letter.subject.to_string());
            let why = failure.as_ref().map_or("", |failure| failure.message.as_str());
            let entry = AuditEntry {
                crew: Some(task.crew),
                agent: task.agent,
                task: Some(id),
                reason: failure.as_ref().map(|failure| failure.reason),
                ..self.entry(
                    Kind::MessageDead,
                    format!("{} {}: {why}", delivery.message, subject.unwrap_or_default()),
                )
            };
            self.audit.push(entry);
        }
        let waits = |asker: &TaskId| {
            let wait = self.state.task(*asker).and_then(|asker| asker.wait.as_ref());
            wait.is_some_and(|wait| wait.request == Some(id))
        };
        if let Some(asker) = delivery.asker.filter(waits) {
            let answer = answer(task);
            self.answer_to(asker, answer);
        }
    }

    /// The time of a request is over.
    pub(super) fn give_up(&mut self, asker: TaskId, delivery: TaskId) {
        self.answer_to(asker, StepResult::refused(Reason::TimedOut));
        if self.state.task(delivery).is_some_and(|task| !task.state.is_ended()) {
            self.cancel_tree(delivery, "whoever asked waits no longer");
        }
    }

    fn answer_to(&mut self, asker: TaskId, result: StepResult) {
        let Some(task) = self.state.task(asker) else {
            return;
        };
        let Some(wait) = task.wait.clone() else {
            return;
        };
        let held = task.failure.clone().filter(|_| task.state == TaskState::Paused);
        let now = self.now;
        self.put_on_record(asker, wait.asked, now, result);
        self.move_task(asker, Change::Ready);
        // The answer is not lost on one that a person has paused meanwhile: it goes on with it when it is let go.
        if let Some(why) = held {
            self.move_task(asker, Change::Held(why));
        }
    }
}

/// What whoever asked is told of a delivery that has ended.
fn answer(task: &Task) -> StepResult {
    match (&task.result, &task.failure) {
        (Some(Payload::Inline(bytes)), _) if bytes.len() > MAX_ANSWER_BYTES => StepResult::refused(Reason::BodyLimit),
        (Some(payload), _) => StepResult::Answered(payload.clone()),
        (None, Some(failure)) if failure.reason == Reason::MessageExpired => StepResult::refused(Reason::TimedOut),
        (None, _) => StepResult::refused(Reason::Error),
    }
}

/// The answer of the first time; refused where something else was asked then.
fn repeated(known: &Remembered, digest: Digest) -> Result<Taken, Rejection> {
    match known.message {
        Some(message) if known.digest == digest => Ok(Taken {
            message,
            deliveries: known.tasks.clone(),
            repeated: true,
        }),
        _ => {
            let message = "the idempotency key was used with another message";
            Err(Rejection::new(Reason::IdempotencyMismatch, message))
        }
    }
}
