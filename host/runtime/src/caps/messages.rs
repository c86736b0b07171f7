//! `skep:agent/messages`: an agent sends messages to its crew, and asks. Granted by `messages` with topics, which are kept where messages are. Refused:
//! letters that are none or over a bound, before a step is taken; everything once the grant was taken back, and to attempts without a record. An attempt
//! that asks holds no lease while it waits: see [`Ctx::wait`].

use skep_rules::{
    capability::Capability,
    id::Role,
    limits::MAX_SUBJECT_BYTES,
    message::{self, Letter, Source},
    plan::Payload,
    quantity::{Millis, Time},
    reason::Reason,
    step::{StepCall, StepResult},
};
use wasmtime::component::{HasSelf, Linker};

use super::stepped::Stepped;
use crate::{
    bindings::{
        messages::{self, Error, Target},
        types,
    },
    convert,
    ctx::Ctx,
    steps::Answer,
};

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    use messages::Host;
    messages::add_to_linker::<Ctx, HasSelf<Ctx>>(linker, |ctx| ctx)?;
    let mut stepped = Stepped::new(linker, "skep:agent/messages@0.1.0", |ctx| &mut ctx.base);
    stepped.plain("send", |ctx, (letter,)| Ok((Host::send(ctx, letter)?,)))?;
    stepped.waiting("request", |ctx, (letter,)| {
        Box::pin(async move { Ok((Host::request(ctx, letter).await?,)) })
    })
}

impl messages::Host for Ctx {
    fn send(&mut self, letter: messages::Letter) -> wasmtime::Result<Result<String, Error>> {
        if !self.step(Capability::Messages, size(&letter), "messages.send")? {
            return Ok(Err(Error::Denied));
        }
        let sound = checked(letter).filter(|letter| letter.kind != message::Kind::Query);
        let Some(letter) = sound else {
            return Ok(Err(Error::InvalidInput));
        };
        match self.base.steps.take(StepCall::Send(letter))? {
            Answer::Given(StepResult::Sent(id), _) => Ok(Ok(id.to_string())),
            other => self.unsent(other, "messages.send"),
        }
    }

    async fn request(&mut self, letter: messages::Letter) -> wasmtime::Result<Result<types::Payload, Error>> {
        if !self.step(Capability::Messages, size(&letter), "messages.request")? {
            return Ok(Err(Error::Denied));
        }
        let question = messages::Letter {
            kind: types::MessageKind::Query,
            reply_to: None,
            idempotency_key: None,
            ..letter
        };
        let Some(letter) = checked(question) else {
            return Ok(Err(Error::InvalidInput));
        };
        match self.wait(StepCall::Request(letter)).await? {
            Answer::Given(StepResult::Answered(answer), _) => Ok(Ok(convert::payload_in(answer))),
            other => self.unsent(other, "messages.request"),
        }
    }
}

impl Ctx {
    /// What the guest is told of an answer that is no result.
    fn unsent<T>(&self, answer: Answer, what: &str) -> wasmtime::Result<Result<T, Error>> {
        let reason = match answer {
            Answer::Refused(reason) | Answer::Given(StepResult::Refused { reason, .. }, _) => reason,
            unfit @ Answer::Given(..) => return Err(unfit.unfit().into()),
        };
        if reason == Reason::CapabilityDenied {
            self.base.denials.note(reason, what);
        }
        Ok(Err(error(reason)))
    }
}

fn size(letter: &messages::Letter) -> usize {
    let body = match &letter.body {
        types::Payload::Inline(bytes) => bytes.len(),
        types::Payload::Artifact(_) => 0,
    };
    body.saturating_add(letter.subject.len())
}

/// The letter within its bounds; `None` when it passes one.
fn checked(letter: messages::Letter) -> Option<Letter> {
    let target = match letter.target {
        Target::Agent(name) => message::Target::Agent(Some(name).filter(|name| name.len() <= MAX_SUBJECT_BYTES)?),
        Target::Role(role) => message::Target::Role(role.parse::<Role>().ok()?),
        Target::Subscribers => message::Target::Subscribers,
    };
    let body: Payload = convert::payload(letter.body).ok()?;
    let letter = Letter {
        kind: kind(letter.kind),
        subject: letter.subject.parse().ok()?,
        target,
        body,
        priority: convert::priority(letter.priority),
        ttl: letter.ttl.map(Millis),
        partition_key: letter.partition_key,
        idempotency_key: letter.idempotency_key,
        correlation: letter.correlation,
        reply_to: match letter.reply_to {
            Some(subject) => Some(subject.parse().ok()?),
            None => None,
        },
        traceparent: None,
        tracestate: None,
        datatype: match letter.datatype {
            Some(digest) => Some(digest.parse().ok()?),
            None => None,
        },
    };
    letter.check().is_ok().then_some(letter)
}

fn kind(kind: types::MessageKind) -> message::Kind {
    match kind {
        types::MessageKind::Heartbeat => message::Kind::Heartbeat,
        types::MessageKind::Query => message::Kind::Query,
        types::MessageKind::Response => message::Kind::Response,
        types::MessageKind::Command => message::Kind::Command,
        types::MessageKind::Event => message::Kind::Event,
        types::MessageKind::Notification => message::Kind::Notification,
        types::MessageKind::Data => message::Kind::Data,
        types::MessageKind::Error => message::Kind::Error,
    }
}

fn kind_in(kind: message::Kind) -> types::MessageKind {
    match kind {
        message::Kind::Heartbeat => types::MessageKind::Heartbeat,
        message::Kind::Query => types::MessageKind::Query,
        message::Kind::Response => types::MessageKind::Response,
        message::Kind::Command => types::MessageKind::Command,
        message::Kind::Event => types::MessageKind::Event,
        message::Kind::Notification => types::MessageKind::Notification,
        message::Kind::Data => types::MessageKind::Data,
        message::Kind::Error => types::MessageKind::Error,
    }
}

/// Whether the time of a message is over when it has waited so long since it was handed out.
pub(crate) fn is_late(message: &message::Message, handed_out: Time, waited: Millis) -> bool {
    handed_out.after(waited) >= message.expires
}

/// The message as its receiver sees it, in its so-many-th delivery.
pub(crate) fn received(message: message::Message, delivery: u32) -> types::Message {
    let letter = message.letter;
    types::Message {
        id: message.id.to_string(),
        kind: kind_in(letter.kind),
        subject: letter.subject.to_string(),
        sender: match message.source {
            Source::Agent { name, .. } => types::Sender::Agent(name),
            Source::Principal(name) => types::Sender::Principal(name),
        },
        correlation: message.correlation,
        causation: message.causation.map(|id| id.to_string()),
        reply_to: letter.reply_to.map(|subject| subject.to_string()),
        priority: convert::priority_in(letter.priority),
        created_at: message.created.0,
        expires_at: message.expires.0,
        partition_key: letter.partition_key,
        idempotency_key: letter.idempotency_key,
        traceparent: letter.traceparent,
        tracestate: letter.tracestate,
        datatype: letter.datatype.map(|digest| digest.to_string()),
        delivery,
        body: convert::payload_in(letter.body),
    }
}

/// What a guest is told of a refusal; it never learns of troubles of the host.
fn error(reason: Reason) -> Error {
    match reason {
        Reason::NoListener => Error::NoListener,
        Reason::InvalidInput | Reason::IdempotencyMismatch => Error::InvalidInput,
        Reason::Overloaded => Error::Busy,
        Reason::TimedOut => Error::TimedOut,
        Reason::Error | Reason::BodyLimit => Error::Failed,
        Reason::CapabilityDenied => Error::Denied,
        Reason::RecordFull => Error::RecordFull,
        _ => Error::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use skep_rules::{
        id::{AgentId, CrewId, MessageId},
        limits::{MAX_KEY_BYTES, MAX_MESSAGE_TTL, MAX_PAYLOAD_BYTES},
        priority::Priority,
    };

    use super::*;

    fn letter(change: impl FnOnce(&mut messages::Letter)) -> Option<Letter> {
        let mut letter = messages::Letter {
            kind: types::MessageKind::Event,
            subject: "job.done".into(),
            target: Target::Subscribers,
            body: types::Payload::Inline(vec![1]),
            priority: types::Priority::High,
            ttl: Some(MAX_MESSAGE_TTL.0),
            partition_key: Some("k".repeat(MAX_KEY_BYTES)),
            idempotency_key: None,
            correlation: None,
            reply_to: Some("job.answer".into()),
            datatype: Some("d".repeat(64)),
        };
        change(&mut letter);
        checked(letter)
    }

    #[test]
    fn a_letter_has_its_bounds() {
        let whole = letter(|_| {}).unwrap();
        assert_eq!((whole.subject.as_str(), whole.priority), ("job.done", Priority::High));
        assert!(letter(|letter| letter.subject = "job.>".into()).is_none());
        assert!(letter(|letter| letter.ttl = Some(0)).is_none());
        assert!(letter(|letter| letter.ttl = Some(MAX_MESSAGE_TTL.0 + 1)).is_none());
        assert!(letter(|letter| letter.partition_key = Some(String::new())).is_none());
        assert!(letter(|letter| letter.reply_to = Some(String::new())).is_none());
        assert!(letter(|letter| letter.target = Target::Role("NO!".into())).is_none());
        assert!(letter(|letter| letter.target = Target::Agent("a".repeat(MAX_SUBJECT_BYTES + 1))).is_none());
        let large = vec![0; MAX_PAYLOAD_BYTES + 1];
        assert!(letter(|letter| letter.body = types::Payload::Inline(large)).is_none());
    }

    #[test]
    fn every_type_survives_the_way_there_and_back() {
        for known in message::Kind::ALL {
            assert_eq!(kind(kind_in(*known)), *known);
        }
    }

    fn message(source: Source) -> message::Message {
        message::Message {
            id: MessageId::new(1 << 20, 0),
            crew: CrewId::new(1 << 20, 0),
            letter: letter(|_| {}).unwrap(),
            source,
            created: Time(7),
            expires: Time(9),
            correlation: "c".into(),
            causation: None,
            task: None,
            seq: 1,
            receivers: 1,
            redrives: None,
        }
    }

    #[test]
    fn a_message_that_has_waited_past_its_time_is_late() {
        let message = message(Source::Principal("admin".into()));
        assert!(!is_late(&message, Time(7), Millis(1)));
        assert!(is_late(&message, Time(7), Millis(2)));
    }

    #[test]
    fn a_receiver_sees_who_sent_it() {
        let agent = Source::Agent {
            id: AgentId::new(1 << 20, 0),
            name: "one".into(),
        };
        let seen = received(message(agent), 3);
        assert!(matches!(seen.sender, types::Sender::Agent(name) if name == "one"));
        assert_eq!((seen.delivery, seen.created_at, seen.expires_at), (3, 7, 9));
        let seen = received(message(Source::Principal("admin".into())), 1);
        assert!(matches!(seen.sender, types::Sender::Principal(name) if name == "admin"));
    }

    #[test]
    fn a_refusal_shows_as_what_it_means_or_as_unavailable() {
        assert!(matches!(error(Reason::NoListener), Error::NoListener));
        assert!(matches!(error(Reason::Overloaded), Error::Busy));
        assert!(matches!(error(Reason::BodyLimit), Error::Failed));
        assert!(matches!(error(Reason::DataDirectory), Error::Unavailable));
    }
}
