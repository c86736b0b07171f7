//! `skep message`: to send messages to crews, and to see what is sent.

use std::{io::Write as _, time::Duration};

use anyhow::Result;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use skep::http::api::message::{Encoding, Message, NewMessage, Source, Target};
use skep_rules::{
    id::{Digest, MessageId, Role},
    limits::{MAX_ARTIFACT_BYTES, MAX_PAYLOAD_BYTES},
    message::{Kind, Subject, Topic},
    priority::Priority,
    quantity::Millis,
};

use super::{
    Context,
    task::{pretty, read_json_of},
};
use crate::{
    cli::{Exit, Format},
    client::escape,
    output::{time, word},
};

/// `skep message …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Send a message to a crew
    Send(Box<Letter>),
    /// Show messages as they are sent, until Ctrl-C
    Tail {
        /// Of one crew: id, its beginning, or name
        #[arg(long)]
        crew: Option<String>,
        /// On one topic: `build.*`, `build.>`
        #[arg(long)]
        topic: Option<Topic>,
        /// End after so many
        #[arg(long, value_name = "N")]
        count: Option<usize>,
    },
    /// List the messages that are kept, the newest first
    Ls {
        /// Of one crew: id, its beginning, or name
        #[arg(long)]
        crew: Option<String>,
        /// On one topic: `build.*`, `build.>`
        #[arg(long)]
        topic: Option<Topic>,
        /// Only those that somebody did not receive and that can be redriven
        #[arg(long)]
        dead: bool,
    },
    /// Send a dead letter anew to whoever did not receive it
    Redrive {
        /// Id
        message: MessageId,
    },
}

/// Arguments of `skep message send`.
#[derive(Debug, clap::Args)]
pub(crate) struct Letter {
    /// What it is about: names with dots between
    subject: Subject,
    /// The crew: id, its beginning, or name; may be left out where there is only one
    #[arg(long)]
    crew: Option<String>,
    /// What it is: heartbeat, query, response, command, event, notification, data, error
    #[arg(long = "type", default_value = "event")]
    kind: Kind,
    /// What it says
    #[arg(long, value_name = "JSON|@FILE", default_value = "null")]
    body: String,
    /// Only for this agent: name in the crew, or id
    #[arg(long, conflicts_with = "role")]
    agent: Option<String>,
    /// For any one agent that has this role
    #[arg(long)]
    role: Option<Role>,
    /// Its lane: low, medium, high, critical
    #[arg(long, default_value = "medium")]
    priority: Priority,
    /// How long it may be delivered (`5s`, at most 24 hours)
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Millis>,
    /// Messages of one key come one after the other
    #[arg(long, value_name = "KEY")]
    partition_key: Option<String>,
    /// Take the same key once in 24 hours
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The conversation that it belongs to
    #[arg(long, value_name = "TEXT")]
    correlation: Option<String>,
    /// The schema that the body follows, by its digest
    #[arg(long, value_name = "SHA-256")]
    datatype: Option<Digest>,
    /// Where an answer that comes later is welcome
    #[arg(long, value_name = "SUBJECT")]
    reply_to: Option<Subject>,
    /// Wait until it was handled, at most so long, and show the answers
    #[arg(long, value_name = "DURATION")]
    wait: Option<Millis>,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::Send(args) => send(context, args),
        Command::Tail { crew, topic, count } => tail(context, crew.as_deref(), topic.as_ref(), *count),
        Command::Ls { crew, topic, dead } => {
            let state = dead.then(|| "state=dead".to_owned());
            let query: Vec<String> = of(crew.as_deref(), topic.as_ref()).chain(state).collect();
            let path = format!("/v1/messages?{}", query.join("&"));
            let messages: Vec<Message> = context.wait(context.client()?.list(&path))?;
            list(context, &messages)
        }
        Command::Redrive { message } => {
            let path = format!("/v1/messages/{message}/redrive");
            let sent: Vec<Message> = context.wait(context.client()?.post(&path, &(), Duration::ZERO))?;
            list(context, &sent)
        }
    }
}

/// Crew and topic as parts of a query.
fn of(crew: Option<&str>, topic: Option<&Topic>) -> impl Iterator<Item = String> + use<> {
    let crew = crew.map(|crew| format!("crew={}", escape(crew)));
    let topic = topic.map(|topic| format!("topic={}", escape(topic.as_str())));
    crew.into_iter().chain(topic)
}

fn list(context: &Context, messages: &[Message]) -> Result<Exit> {
    let columns = ["MESSAGE", "SENT", "TYPE", "SUBJECT", "FROM", "TO", "LOST"];
    context.output.list(messages, columns, |message| {
        let lost = message
            .deliveries
            .iter()
            .flatten()
            .filter_map(|delivery| delivery.reason);
        let lost: Vec<String> = lost.map(|reason| reason.to_string()).collect();
        [
            message.message_id.to_string(),
            time(message.created_at),
            word(&message.kind),
            message.subject.to_string(),
            from(message),
            to(message),
            lost.join(", "),
        ]
    })?;
    Ok(Exit::Done)
}

fn send(context: &Context, args: &Letter) -> Result<Exit> {
    let client = context.client()?;
    let target = match (&args.agent, &args.role) {
        (Some(agent), _) => Some(Target::Agent(agent.clone())),
        (None, Some(role)) => Some(Target::Role(role.to_string())),
        (None, None) => None,
    };
    let (body, encoding) = compressed(read_json_of(&args.body, MAX_ARTIFACT_BYTES)?);
    let new = NewMessage {
        specversion: None,
        crew: args.crew.clone(),
        kind: args.kind,
        subject: args.subject.clone(),
        target,
        body,
        priority: args.priority,
        ttl: args.ttl,
        partition_key: args.partition_key.clone(),
        idempotency_key: args.idempotency_key.clone(),
        correlation: args.correlation.clone(),
        reply_to: args.reply_to.clone(),
        traceparent: None,
        tracestate: None,
        datatype: args.datatype,
        encoding,
    };
    let wait = args.wait.unwrap_or(Millis(0));
    let path = format!("/v1/messages?wait={wait}");
    let sent: Option<Message> = context.wait(client.post(&path, &new, wait.duration()))?;
    let Some(sent) = sent else {
        context.output.note("it is over already, and nothing of it is kept");
        return Ok(Exit::Done);
    };
    context.output.one(&sent, || {
        let deliveries = sent.deliveries.iter().flatten().map(|delivery| {
            let what = match (&delivery.answer, delivery.reason) {
                (Some(answer), _) => pretty(answer),
                (None, Some(reason)) => format!("{} ({reason})", delivery.state),
                (None, None) => delivery.state.to_string(),
            };
            let agent = delivery.agent.map(|agent| agent.to_string()).unwrap_or_default();
            format!("{agent}  {what}")
        });
        std::iter::once(format!("{}  {} receive it", sent.message_id, sent.receivers))
            .chain(deliveries)
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    Ok(Exit::Done)
}

/// A body that is too large for a message is compressed: the host makes an artifact of it.
fn compressed(body: Value) -> (Value, Option<Encoding>) {
    let text = body.to_string();
    if text.len() <= MAX_PAYLOAD_BYTES {
        return (body, None);
    }
    let bytes = compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (json!({ "$hex": hex }), Some(Encoding::Zstd))
}

#[expect(clippy::print_stdout, reason = "a stream has no end after which it could be printed")]
fn tail(context: &Context, crew: Option<&str>, topic: Option<&Topic>, count: Option<usize>) -> Result<Exit> {
    let client = context.client()?;
    let query: Vec<String> = of(crew, topic).collect();
    let as_json = context.global.output != Format::Table;
    context.wait(async {
        let mut events = client.events(&format!("/v1/messages/tail?{}", query.join("&"))).await?;
        context.output.note("messages that are sent from now on");
        let mut left = count.unwrap_or(usize::MAX);
        while left > 0 {
            let Some(message) = events.next::<Message>().await? else {
                break;
            };
            left -= 1;
            match as_json {
                true => println!("{}", serde_json::to_string(&message)?),
                false => println!("{}", told(&message)),
            }
            std::io::stdout().flush()?;
        }
        Ok(Exit::Done)
    })
}

/// One line: when, what, about what, from whom to whom, and what it says.
fn told(message: &Message) -> String {
    format!(
        "{}  {} {}  {} → {}  {}",
        time(message.created_at),
        word(&message.kind),
        message.subject,
        from(message),
        to(message),
        message.body
    )
}

fn from(message: &Message) -> String {
    match &message.source {
        Source::Agent(name) | Source::Principal(name) => name.clone(),
    }
}

fn to(message: &Message) -> String {
    match &message.target {
        Target::Agent(name) => name.clone(),
        Target::Role(role) => format!("role {role}"),
        Target::Subscribers => format!("{} who listen", message.receivers),
    }
}
