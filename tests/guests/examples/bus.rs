//! What the figures of messages measure, without JSON or standard input and output, so that the component is small: the input, which is a JSON text, says
//! what to do. `"send:N:NAME"` sends N events to the agent of that name and waits a moment whenever its mailbox is full; `"ask:N:NAME"` asks it N times, one
//! after the other. The mailbox answers with what it was told.

use std::time::Duration;

use skep_sdk::{
    Executor, Failure, Mailbox, Message, MessageKind, Outcome, Payload, Priority, Task,
    messages::{self, Error, Letter, Target},
    tasks,
};

/// What every message says: a short JSON document.
const BODY: &[u8] = br#"{"job":"0123456789abcdef","state":"done","attempt":1}"#;

/// How long a sender gives a receiver that is behind.
const PATIENCE: Duration = Duration::from_millis(5);

struct Bus;

impl Executor for Bus {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let asked = match &task.input {
            Payload::Inline(bytes) => str::from_utf8(bytes).unwrap_or_default(),
            Payload::Artifact(_) => "",
        };
        let Some((act, count, name)) = parts(asked) else {
            return Err(Failure::never("the input is no act"));
        };
        match act {
            "send" => {
                let letter = letter(MessageKind::Event, name);
                for _ in 0..count {
                    while let Err(error) = messages::send(&letter) {
                        match error {
                            Error::Busy => tasks::sleep_for(PATIENCE)?,
                            other => return Err(Failure::never(format!("not sent: {other:?}"))),
                        }
                    }
                }
            }
            _ => {
                let letter = letter(MessageKind::Query, name);
                for _ in 0..count {
                    messages::request(&letter)?;
                }
            }
        }
        Ok(Outcome::Done(task.input))
    }
}

/// The act, how often and to whom, out of `"ACT:N:NAME"`.
fn parts(asked: &str) -> Option<(&str, u64, &str)> {
    let mut parts = asked.strip_prefix('"')?.strip_suffix('"')?.splitn(3, ':');
    Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?))
}

fn letter(kind: MessageKind, name: &str) -> Letter {
    Letter {
        kind,
        subject: "load.job".to_owned(),
        target: Target::Agent(name.to_owned()),
        body: Payload::Inline(BODY.to_vec()),
        priority: Priority::Medium,
        ttl: None,
        partition_key: None,
        idempotency_key: None,
        correlation: None,
        reply_to: None,
        datatype: None,
    }
}

impl Mailbox for Bus {
    fn receive(message: Message) -> Result<Option<Payload>, Failure> {
        Ok(Some(message.body))
    }
}

skep_sdk::executor!(Bus);
skep_sdk::mailbox!(Bus);
