//! Sends messages and receives them. As an executor it does what its input `{"do": …}` says; as a mailbox it notes in the state of its crew, under its
//! own name, what it receives, and then does what the body says: `{"note": …}` alone, or with `"count"` (only count it), `"fail"`, `"sleep"` (milliseconds)
//! or `"answer"`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use skep_sdk::{
    Executor, Failure, Mailbox, Message, MessageKind, Outcome, Payload, Sender, Task, context,
    messages::{self, Letter, Target},
    state, tasks,
};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Act {
    /// Send a message of a type.
    Send(Post),
    /// Send one, then fail, until it is tried the second time.
    SendAndFail(Post),
    /// Ask, and say what was answered, or why not.
    Ask(Post),
    /// One after the other.
    All { acts: Vec<Act> },
    /// Send one so many times, and say how often it was taken and how often its receiver was full.
    Flood {
        times: u32,
        #[serde(flatten)]
        post: Post,
    },
}

#[derive(Deserialize)]
struct Post {
    kind: Option<String>,
    subject: String,
    /// An agent; everybody who listens when absent.
    to: Option<String>,
    body: Value,
    /// A partition key.
    key: Option<String>,
    /// An idempotency key.
    once: Option<String>,
    ttl: Option<u64>,
}

impl Post {
    fn letter(self) -> Result<Letter, Failure> {
        let kind = match self.kind.as_deref() {
            Some("command") => MessageKind::Command,
            Some("heartbeat") => MessageKind::Heartbeat,
            None | Some("event") => MessageKind::Event,
            Some(other) => return Err(Failure::never(format!("no such type: {other}"))),
        };
        Ok(Letter {
            target: self.to.map_or(Target::Subscribers, Target::Agent),
            ttl: self.ttl,
            partition_key: self.key,
            idempotency_key: self.once,
            ..Letter::new(kind, self.subject, &self.body)?
        })
    }
}

struct Correspondent;

impl Executor for Correspondent {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let told = act(task.input()?, task.attempt)?;
        Ok(Outcome::json(&told)?)
    }
}

fn act(asked: Act, attempt: u32) -> Result<Value, Failure> {
    Ok(match asked {
        Act::Send(post) => told(messages::send(&post.letter()?).map(Value::from)),
        Act::SendAndFail(post) => {
            let sent = told(messages::send(&post.letter()?).map(Value::from));
            if attempt == 1 {
                return Err(Failure::later("the first attempt fails"));
            }
            sent
        }
        Act::Ask(post) => match messages::request(&post.letter()?) {
            Ok(answer) => told(Ok(answer.parse()?)),
            Err(error) => told(Err(error)),
        },
        Act::Flood { times, post } => {
            let letter = post.letter()?;
            let (mut taken, mut busy) = (0, 0);
            for _ in 0..times {
                match messages::send(&letter) {
                    Ok(_) => taken += 1,
                    Err(messages::Error::Busy) => busy += 1,
                    Err(error) => return Ok(told(Err(error))),
                }
            }
            json!({"taken": taken, "busy": busy})
        }
        Act::All { acts } => acts
            .into_iter()
            .map(|each| act(each, attempt))
            .collect::<Result<_, _>>()?,
    })
}

fn told(said: Result<Value, messages::Error>) -> Value {
    match said {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "refused": named(error) }),
    }
}

fn named(error: messages::Error) -> &'static str {
    match error {
        messages::Error::NoListener => "no-listener",
        messages::Error::InvalidInput => "invalid-input",
        messages::Error::Busy => "busy",
        messages::Error::TimedOut => "timed-out",
        messages::Error::Failed => "failed",
        messages::Error::Denied => "denied",
        messages::Error::RecordFull => "record-full",
        messages::Error::Unavailable => "unavailable",
    }
}

#[derive(Deserialize)]
struct Body {
    note: Value,
    #[serde(default)]
    count: bool,
    #[serde(default)]
    fail: bool,
    #[serde(default)]
    sleep: u64,
    answer: Option<Value>,
}

impl Mailbox for Correspondent {
    fn receive(message: Message) -> Result<Option<Payload>, Failure> {
        let body: Body = message.body()?;
        let me = context::current();
        if body.count {
            let key = format!("counted/{}", me.name);
            let counted: u64 = match state::get(&key)? {
                Some(entry) => serde_json::from_slice(&entry.value)?,
                None => 0,
            };
            state::put(&key, &serde_json::to_vec(&(counted + 1))?)?;
            return Ok(None);
        }
        let key = format!("received/{}", me.name);
        let mut seen: Vec<Value> = match state::get(&key)? {
            Some(entry) => serde_json::from_slice(&entry.value)?,
            None => Vec::new(),
        };
        let from = match &message.sender {
            Sender::Agent(name) => format!("agent {name}"),
            Sender::Principal(name) => format!("principal {name}"),
        };
        seen.push(json!({
            "note": body.note, "subject": message.subject, "from": from, "delivery": message.delivery,
            "correlation": message.correlation, "causation": message.causation, "id": message.id,
        }));
        state::put(&key, &serde_json::to_vec(&seen)?)?;
        if body.sleep > 0 {
            tasks::sleep_for(Duration::from_millis(body.sleep))?;
        }
        if body.fail {
            return Err(Failure::never("told to fail"));
        }
        Ok(body.answer.map(|answer| Payload::json(&answer)).transpose()?)
    }
}

skep_sdk::executor!(Correspondent);
skep_sdk::mailbox!(Correspondent);
