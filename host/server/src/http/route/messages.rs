//! `/v1/messages`

use std::{collections::BTreeMap, convert::Infallible, pin::pin, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{self, Sse},
    },
};
use futures_util::Stream;
use serde::Deserialize;
use skep_rules::{
    command::{Command, Mail},
    decide::Reply,
    id::{CrewId, MessageId, Role, TaskId},
    limits::{MAX_MESSAGE_TTL, MAX_PAGE, MAX_PAYLOAD_BYTES},
    message::{self, Kept, Letter, Topic},
    plan::Payload,
    reason::Reason,
    rejection::Rejection,
    task::Task,
};
use skep_store::{Position, Range};

use super::{
    archive, blocking,
    stream::{self, Follow, Gone, Place},
};
use crate::{
    driver::{ADMIN, Driver, Error, MESSAGES, SHARD, decode},
    host::Shared,
    http::{
        api::{
            self, Page, content,
            event::Event,
            message::{Delivery, Encoding, NewMessage, Source, Target},
            problem::Problem,
        },
        extract::{self, Body, Query, Wait, page_size},
        problem::{Answer, Refusal},
        zstd,
    },
    perform,
};

/// Events taken from the ring at a time.
const BATCH: usize = 256;
/// The version of the envelope.
const VERSION: &str = "1.0";

/// Send a message to a crew.
///
/// It is accepted when this answers, not received; with `wait` the answer comes when every receiver has handled it, or the time is up, and holds what their
/// mailboxes answered. Who sends it is stamped by the host.
#[utoipa::path(post, path = "/v1/messages", tag = "messages", params(Wait), request_body = NewMessage,
    responses((status = 201, description = "Accepted, durable", body = api::message::Message),
        (status = 200, description = "Accepted before under the same key", body = api::message::Message),
        (status = 404, description = "Nobody listens who must", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A mailbox or the host is full", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn send(State(shared): State<Arc<Shared>>, Query(wait): Query<Wait>, body: Body) -> Answer<Response> {
    let driver = &shared.driver;
    let new: NewMessage = body.json()?;
    let crew = new.crew.clone();
    // What is compressed takes milliseconds, and the disk.
    let letter = match new.encoding {
        Some(Encoding::Zstd) => {
            let _one_of_few = shared.expansions.acquire().await;
            tokio::task::block_in_place(|| letter(driver, new))?
        }
        Some(Encoding::Identity) | None => letter(driver, new)?,
    };
    let decided = driver.accept(|state, draw, now| {
        let crew = extract::crew(state, crew.as_deref())?;
        let receivers = state.receivers(crew, &letter, false).len();
        let deliveries = (0..receivers).map(|_| -> Result<TaskId, Error> { Ok(TaskId::new(draw.uuid(now)?, SHARD)) });
        Ok(Command::SendMessage {
            crew,
            mail: Mail {
                deliveries: deliveries.collect::<Result<_, _>>()?,
                message: MessageId::new(draw.uuid(now)?, SHARD),
            },
            letter,
            by: ADMIN.to_owned(),
        })
    })?;
    let Reply::Sent {
        message,
        deliveries,
        repeated,
    } = decided.reply
    else {
        return Err(Refusal::panicked());
    };
    let kept = kept(driver, message)?;
    let mut told = Vec::with_capacity(deliveries.len());
    let mut timer = pin!(tokio::time::sleep(wait.capped().duration()));
    for id in deliveries {
        told.push(delivery(
            archive::ended(driver, id, wait.capped(), timer.as_mut()).await?,
        ));
    }
    driver.store.wait(decided.position).await?;
    let status = if repeated { StatusCode::OK } else { StatusCode::CREATED };
    // A heartbeat may be over already, and nothing of it is kept.
    let answer = kept.map(|kept| read(kept, Some(told)));
    Ok((status, Json(answer)).into_response())
}

/// The letter that a client means.
fn letter(driver: &Driver, new: NewMessage) -> Answer<Letter> {
    if let Some(version) = new
        .specversion
        .as_deref()
        .filter(|version| version.split('.').next() != Some("1"))
    {
        let version: String = version.chars().take(16).collect();
        let detail = format!("`specversion`: this host speaks {VERSION}, not `{version}`");
        return Err(Refusal::new(Reason::UnsupportedVersion, detail));
    }
    if new.ttl.is_some_and(|ttl| ttl > MAX_MESSAGE_TTL) {
        let detail = "`ttl`: messages are kept for 24 hours, and no longer to be delivered than that";
        return Err(Refusal::unprocessable(detail));
    }
    let place = |message| Refusal::invalid(format!("`body`: {message}"));
    let body = match content::from_json(&new.body).map_err(place)? {
        Payload::Artifact(_) if new.encoding == Some(Encoding::Zstd) => {
            return Err(place(
                "what is compressed is `$hex`; an artifact is taken as it is".to_owned(),
            ));
        }
        Payload::Inline(bytes) if new.encoding == Some(Encoding::Zstd) => {
            let bytes = zstd::expand(&bytes).map_err(place)?;
            match Payload::Inline(bytes) {
                Payload::Inline(bytes) if bytes.len() > MAX_PAYLOAD_BYTES => {
                    let (crew, _) = driver.read(|state| extract::crew(state, new.crew.as_deref()))?;
                    Payload::Artifact(perform::keep(driver, crew?, &bytes)?)
                }
                small => small,
            }
        }
        Payload::Artifact(named) => {
            let (crew, _) = driver.read(|state| extract::crew(state, new.crew.as_deref()))?;
            let found = perform::artifact(driver, crew?, named.digest)?;
            let found = found.ok_or_else(|| Refusal::not_found(format!("artifact {} in this crew", named.digest)))?;
            Payload::Artifact(found)
        }
        inline @ Payload::Inline(_) => inline,
    };
    Ok(Letter {
        kind: new.kind,
        subject: new.subject,
        target: match new.target.unwrap_or(Target::Subscribers) {
            Target::Agent(name) => message::Target::Agent(name),
            Target::Role(role) => {
                let role = role.parse::<Role>();
                message::Target::Role(role.map_err(|error| Refusal::invalid(format!("`target`: {error}")))?)
            }
            Target::Subscribers => message::Target::Subscribers,
        },
        body,
        priority: new.priority,
        ttl: new.ttl,
        partition_key: new.partition_key,
        idempotency_key: new.idempotency_key,
        correlation: new.correlation,
        reply_to: new.reply_to,
        traceparent: new.traceparent,
        tracestate: new.tracestate,
        datatype: new.datatype,
    })
}

/// Which messages.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Of one crew: id, unique prefix or name.
    crew: Option<String>,
    /// On one topic.
    #[param(value_type = Option<String>)]
    topic: Option<Topic>,
    /// `dead`: those with a delivery that is a dead letter, with these deliveries.
    state: Option<Standing>,
    /// Where the page before ended.
    #[param(value_type = Option<String>)]
    after: Option<MessageId>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// Which messages, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// A delivery has failed for good, and can be redriven.
    Dead,
}

/// List the messages that are kept, the newest first. Heartbeats are not.
#[utoipa::path(get, path = "/v1/messages", tag = "messages", params(ListQuery),
    responses((status = 200, body = Page<api::message::Message>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<api::message::Message>>> {
    let limit = page_size(query.limit)?;
    let driver = &shared.driver;
    let filter = Filter::of(driver, query.crew.as_deref(), query.topic)?;
    let (page, position) = blocking(driver, move |driver| {
        if query.state == Some(Standing::Dead) {
            return dead(driver, &filter, query.after, limit);
        }
        let mut range = Range::all();
        range.reverse = true;
        if let Some(after) = query.after {
            range.end = std::ops::Bound::Excluded(after.to_bytes().to_vec());
        }
        let (mut items, mut last) = (Vec::new(), None);
        // As many as a page may have, whether they match or not: each may hold 256 KiB.
        let rows = driver.store.scan(MESSAGES, &range, MAX_PAGE)?;
        let more = rows.len() == MAX_PAGE;
        for (_, row) in rows {
            if items.len() == limit {
                break;
            }
            let kept: Kept = decode(&row)?;
            last = Some(kept.message.id);
            if filter.has(&kept.message) {
                items.push(read(kept, None));
            }
        }
        let ((), position) = driver.read(|_| ())?;
        let next = last.filter(|_| more || items.len() == limit).map(|id| id.to_string());
        Ok((Page { items, next }, position))
    })
    .await?;
    driver.store.wait(position).await?;
    Ok(Json(page))
}

/// A page of the messages with dead letters, and the position that must be durable before anybody is told.
fn dead(
    driver: &Driver,
    filter: &Filter,
    after: Option<MessageId>,
    limit: usize,
) -> Result<(Page<api::message::Message>, Position), Error> {
    let (letters, _) = driver.read(|state| {
        let mut letters: BTreeMap<MessageId, Vec<TaskId>> = BTreeMap::new();
        for dead in state.dead_messages() {
            letters.entry(dead.message).or_default().push(dead.delivery);
        }
        letters
    })?;
    let (mut items, mut next) = (Vec::new(), None);
    for (id, deliveries) in letters.into_iter().rev() {
        if after.is_some_and(|after| id >= after) {
            continue;
        }
        let Some(kept) = kept(driver, id)?.filter(|kept| filter.has(&kept.message)) else {
            continue;
        };
        if items.len() == limit {
            next = items
                .last()
                .map(|last: &api::message::Message| last.message_id.to_string());
            break;
        }
        let mut told = Vec::with_capacity(deliveries.len());
        for id in deliveries {
            told.extend(archive::fetch(driver, id)?.map(|(task, _)| delivery(task)));
        }
        items.push(read(kept, Some(told)));
    }
    let ((), position) = driver.read(|_| ())?;
    Ok((Page { items, next }, position))
}

/// Send a message anew to every receiver of whom it is a dead letter: each is a message of its own, from whoever sent the first, with all its time.
#[utoipa::path(post, path = "/v1/messages/{id}/redrive", tag = "messages", params(("id" = String, Path, description = "Id")),
    responses((status = 201, description = "The new messages, durable", body = Vec<api::message::Message>),
        (status = 404, description = "It is kept no longer, or its receiver is gone", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is no dead letter, or was redriven already", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn redrive(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
) -> Answer<(StatusCode, Json<Vec<api::message::Message>>)> {
    let driver = &shared.driver;
    let message = id_of(&text)?;
    kept(driver, message)?.ok_or_else(|| Refusal::not_found(message))?;
    let (letters, _) = driver.read(|state| {
        let letters = state.dead_messages().filter(|dead| dead.message == message);
        letters.map(|dead| dead.delivery).collect::<Vec<_>>()
    })?;
    if letters.is_empty() {
        let message = format!("{message} is no dead letter, or was redriven already");
        return Err(Rejection::illegal(message, &[]).into());
    }
    let (mut sent, mut newest) = (Vec::with_capacity(letters.len()), Position(0));
    for delivery in letters {
        let decided = driver.accept(|_, draw, now| {
            Ok(Command::RedriveMessage {
                delivery,
                message,
                mail: Mail {
                    message: MessageId::new(draw.uuid(now)?, SHARD),
                    deliveries: vec![TaskId::new(draw.uuid(now)?, SHARD)],
                },
                by: ADMIN.to_owned(),
            })
        })?;
        newest = decided.position;
        if let Reply::Sent { message, .. } = decided.reply {
            sent.extend(kept(driver, message)?.map(|kept| read(kept, None)));
        }
    }
    driver.store.wait(newest).await?;
    Ok((StatusCode::CREATED, Json(sent)))
}

fn id_of(text: &str) -> Answer<MessageId> {
    let id = text.parse();
    id.map_err(|error: skep_rules::id::Error| Refusal::invalid(error.to_string()))
}

/// Read a message that is kept, and what became of its deliveries.
#[utoipa::path(get, path = "/v1/messages/{id}", tag = "messages", params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = api::message::Message), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
) -> Answer<Json<api::message::Message>> {
    let driver = &shared.driver;
    let id = id_of(&text)?;
    let kept = kept(driver, id)?.ok_or_else(|| Refusal::not_found(id))?;
    let mut deliveries = Vec::with_capacity(kept.deliveries.len());
    let (_, mut newest) = driver.read(|_| ())?;
    for id in &kept.deliveries {
        if let Some((task, position)) = archive::fetch(driver, *id)? {
            newest = newest.max(position);
            deliveries.push(delivery(task));
        }
    }
    driver.store.wait(newest).await?;
    Ok(Json(read(kept, Some(deliveries))))
}

/// Which messages.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct TailQuery {
    /// Of one crew: id, unique prefix or name.
    crew: Option<String>,
    /// On one topic.
    #[param(value_type = Option<String>)]
    topic: Option<Topic>,
}

/// Follow the messages that are sent from now on, as server-sent events. Only what is durable is told; heartbeats are told while they last.
#[utoipa::path(get, path = "/v1/messages/tail", tag = "messages", params(TailQuery),
    responses((status = 200, description = "`id: position.index`, `event: message`, `data: Message`", body = api::message::Message, content_type = "text/event-stream"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn tail(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<TailQuery>,
) -> Answer<Sse<sse::KeepAliveStream<impl Stream<Item = Result<sse::Event, Infallible>> + use<>>>> {
    let filter = Filter::of(&shared.driver, query.crew.as_deref(), query.topic)?;
    let newest = shared.driver.feed.watch();
    let place = *newest.borrow();
    stream::begin(
        &shared,
        newest,
        place,
        filter,
        "the host is too busy to follow; try again",
    )
}

/// What is looked for.
struct Filter {
    crew: Option<CrewId>,
    topic: Option<Topic>,
}

impl Filter {
    fn of(driver: &Driver, crew: Option<&str>, topic: Option<Topic>) -> Answer<Self> {
        let (crew, _) = driver.read(|state| crew.map(|crew| extract::crew(state, Some(crew))).transpose())?;
        Ok(Filter { crew: crew?, topic })
    }

    fn has(&self, message: &message::Message) -> bool {
        self.crew.is_none_or(|crew| crew == message.crew)
            && self
                .topic
                .as_ref()
                .is_none_or(|topic| topic.has(&message.letter.subject))
    }
}

/// Messages as they are sent.
impl Follow for Filter {
    /// None is an event of another kind.
    type Item = Option<MessageId>;

    fn read(&mut self, driver: &Driver, after: Place) -> Result<Vec<(Place, Option<MessageId>)>, Gone> {
        let events = driver.feed.read(after, BATCH).map_err(|_| Gone)?;
        let sent = |event: Event| ((event.position, event.index), event.message);
        Ok(events.into_iter().map(sent).collect())
    }

    fn tell(&self, driver: &Driver, _: Place, id: Option<MessageId>) -> Option<sse::Event> {
        // What cannot be read is a row that went, or a host that ends.
        let kept = kept(driver, id?).ok()??;
        let told = self.has(&kept.message).then(|| read(kept, None))?;
        let data = serde_json::to_string(&told).expect("a message is made of texts and numbers");
        Some(sse::Event::default().event("message").data(data))
    }
}

/// A message that is kept, or of which a delivery is in memory.
fn kept(driver: &Driver, id: MessageId) -> Result<Option<Kept>, Error> {
    if let Some(kept) = driver.row(MESSAGES, &id.to_bytes())? {
        return Ok(Some(kept));
    }
    let (message, _) = driver.read(|state| state.message(id).cloned())?;
    Ok(message.map(|message| Kept {
        until: message.expires,
        message,
        deliveries: Vec::new(),
    }))
}

fn read(kept: Kept, deliveries: Option<Vec<Delivery>>) -> api::message::Message {
    let message = kept.message;
    let letter = message.letter;
    api::message::Message {
        message_id: message.id,
        specversion: VERSION.to_owned(),
        crew: message.crew,
        kind: letter.kind,
        subject: letter.subject,
        source: match message.source {
            message::Source::Agent { name, .. } => Source::Agent(name),
            message::Source::Principal(name) => Source::Principal(name),
        },
        target: match letter.target {
            message::Target::Agent(name) => Target::Agent(name),
            message::Target::Role(role) => Target::Role(role.to_string()),
            message::Target::Subscribers => Target::Subscribers,
        },
        body: content::to_json(&letter.body),
        priority: letter.priority,
        created_at: message.created,
        expires_at: message.expires,
        correlation: message.correlation,
        causation: message.causation,
        task: message.task,
        seq: message.seq,
        partition_key: letter.partition_key,
        idempotency_key: letter.idempotency_key,
        reply_to: letter.reply_to,
        traceparent: letter.traceparent,
        tracestate: letter.tracestate,
        datatype: letter.datatype,
        receivers: message.receivers,
        redrives: message.redrives,
        deliveries,
    }
}

fn delivery(task: Task) -> Delivery {
    Delivery {
        task_id: task.id,
        agent: task.agent,
        state: task.state,
        attempts: task.attempts,
        answer: task.result.as_ref().map(content::to_json),
        reason: task.failure.as_ref().map(|failure| failure.reason),
    }
}
