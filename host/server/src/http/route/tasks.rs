//! `/v1/tasks`

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use skep_rules::{
    approval::{Points, Terms},
    command::{Command, Idempotency, NewTask},
    decide::Reply,
    id::{AgentId, ApprovalId, CrewId, Digest, PluginName, TaskId},
    lifecycle::Request,
    limits::{MAX_BODY_BYTES, MAX_LOG_PAGE, MAX_SUBMISSION},
    plan::Payload,
    quantity::Time,
    reason::Reason,
    rejection::Rejection,
    task::{Task, TaskState},
};
use skep_store::Range;

use super::{archive, blocking, plans};
use crate::{
    clock::Draw,
    driver::{ADMIN, Driver, Error, LOGS, SHARD, decode},
    host::Shared,
    http::{
        api::{
            self, Page, content,
            problem::Problem,
            task::{Action, Durability},
        },
        extract::{self, Body, Query, Wait, page_size},
        problem::{Answer, Refusal},
    },
    perform::{self, StoredLog},
    read, record,
};

/// Submit one task, or up to 100, all or none of them.
///
/// With `wait` the answer comes when all of them have ended, or the time is up. An `Idempotency-Key` makes asking twice the same as asking once
/// for 24 hours; the second answer has status 200. Ephemeral tasks are taken without one.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", params(Wait, ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters")),
    request_body = api::task::Submission,
    responses((status = 201, description = "Accepted, durable; a list where a list was submitted", body = api::task::Task),
        (status = 200, description = "Accepted before under the same key", body = api::task::Task),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn submit(
    State(shared): State<Arc<Shared>>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let driver = &shared.driver;
    let many = body.0.trim_ascii_start().first() == Some(&b'[');
    let tasks: Vec<api::task::NewTask> = if many { body.json()? } else { vec![body.json()?] };
    if tasks.is_empty() || tasks.len() > MAX_SUBMISSION {
        return Err(Refusal::invalid(format!(
            "a submission holds 1 to {MAX_SUBMISSION} tasks"
        )));
    }
    let idempotency = idempotency(&headers, &body)?;
    let crew = tasks.first().and_then(|task| task.crew.clone());
    if tasks.iter().any(|task| task.crew != crew) {
        return Err(Refusal::invalid("`crew`: the tasks of one submission are for one crew"));
    }
    let inputs = inputs(driver, &tasks, crew.as_deref())?;
    let plans = tasks.iter().map(|task| plans::given(driver, task, crew.as_deref()));
    let plans = plans.collect::<Answer<Vec<_>>>()?;
    let decided = driver.accept(|state, draw, now| {
        let crew = extract::crew(state, crew.as_deref())?;
        let mut new = Vec::with_capacity(tasks.len());
        for (((task, input), parts), at) in tasks.into_iter().zip(inputs).zip(plans).zip(0_usize..) {
            if let Some(retry) = &task.retry {
                retry
                    .policy()
                    .map_err(|what| Rejection::invalid(format!("tasks[{at}]: {what}")))?;
            }
            let task = new_task(state, draw, now, crew, task, input)?;
            new.push(NewTask { parts, ..task });
        }
        Ok(Command::SubmitTasks {
            crew,
            tasks: new,
            idempotency,
            by: ADMIN.to_owned(),
        })
    })?;
    let Reply::Submitted { tasks, repeated } = decided.reply else {
        return Err(Refusal::panicked());
    };
    let mut answers = Vec::with_capacity(tasks.len());
    let mut timer = pin!(tokio::time::sleep(wait.capped().duration()));
    for id in tasks {
        answers.push(read::task(
            archive::ended(driver, id, wait.capped(), timer.as_mut()).await?,
        ));
    }
    driver.store.wait(decided.position).await?;
    let status = if repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok(match (many, answers.pop()) {
        (false, Some(one)) => (status, tag(one.revision), Json(one)).into_response(),
        (_, last) => {
            answers.extend(last);
            (status, Json(answers)).into_response()
        }
    })
}

/// A task as it was asked for, with what is drawn for it.
pub(super) fn new_task(
    state: &skep_rules::state::State,
    draw: &mut Draw,
    now: Time,
    crew: CrewId,
    task: api::task::NewTask,
    input: Payload,
) -> Result<NewTask, Error> {
    let agent = match task.agent {
        Some(text) if text.starts_with(AgentId::PREFIX) => Some(whole_agent(state, crew, &text)?),
        other => other,
    };
    let dependencies = task.dependencies.iter().map(|text| dependency(state, text));
    let retry = task.retry.unwrap_or_default();
    let plan = task.plan || task.objective.is_some() && task.nodes.is_empty();
    Ok(NewTask {
        parts: None,
        budget: task.fuel_budget,
        id: TaskId::new(draw.uuid(now)?, SHARD),
        seed: draw.seed()?,
        description: match task.objective {
            Some(_) if !task.description.is_empty() => {
                let message = "`objective` and `description` say the same; give one of them";
                return Err(Rejection::invalid(message).into());
            }
            Some(objective) => objective,
            None => task.description,
        },
        input,
        roles: task.roles,
        agent,
        plan,
        notes: api::plan::notes(task.notes),
        check: task.check,
        max_retries: retry.max_retries,
        retry: retry.policy().map_err(Rejection::invalid)?,
        priority: task.priority.unwrap_or_default(),
        timeouts: task.timeouts.unwrap_or_default().into(),
        on_failure: task.on_part_failure.unwrap_or_default(),
        dependencies: dependencies.collect::<Result<_, _>>()?,
        labels: task.labels,
        ephemeral: task.durability == Durability::Ephemeral,
        approval: task.approval.map(|asked| points(asked, draw, now)).transpose()?,
    })
}

/// The points of a task; where a person is asked at one, the approval has an id already.
fn points(asked: api::task::Approval, draw: &mut Draw, now: Time) -> Result<Points, Error> {
    Ok(Points {
        before: approval_id(asked.before, draw, now)?,
        after: approval_id(asked.after, draw, now)?,
        terms: Terms {
            expires: asked.expires,
            on_timeout: asked.on_timeout,
        },
    })
}

/// The same points of another task: a person is asked anew.
fn redrawn(points: Points, draw: &mut Draw, now: Time) -> Result<Points, Error> {
    Ok(Points {
        before: approval_id(points.before.is_some(), draw, now)?,
        after: approval_id(points.after.is_some(), draw, now)?,
        ..points
    })
}

fn approval_id(asked: bool, draw: &mut Draw, now: Time) -> Result<Option<ApprovalId>, Error> {
    let drawn = asked.then(|| draw.uuid(now)).transpose()?;
    Ok(drawn.map(|uuid| ApprovalId::new(uuid, SHARD)))
}

fn idempotency(headers: &HeaderMap, body: &Body) -> Answer<Option<Idempotency>> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .map_err(|_| Refusal::invalid("`Idempotency-Key` holds ASCII characters"))?;
    Ok(Some(Idempotency {
        key: key.to_owned(),
        digest: Digest::of(&body.0),
    }))
}

/// The inputs as payloads. An artifact must be the crew's; its length and media type are those that it was stored with.
pub(super) fn inputs(driver: &Driver, tasks: &[api::task::NewTask], crew: Option<&str>) -> Answer<Vec<Payload>> {
    let read = |task: &api::task::NewTask| input(driver, &task.input, &task.description, crew);
    tasks.iter().map(read).collect()
}

/// The input of what is called so.
pub(super) fn input(driver: &Driver, input: &serde_json::Value, of: &str, crew: Option<&str>) -> Answer<Payload> {
    let place = |message| Refusal::invalid(format!("`input` of `{of}`: {message}"));
    match content::from_json(input).map_err(place)? {
        Payload::Artifact(named) => {
            let (crew, _) = driver.read(|state| extract::crew(state, crew))?;
            let found = perform::artifact(driver, crew?, named.digest)?;
            let found = found.ok_or_else(|| Refusal::not_found(format!("artifact {} in this crew", named.digest)))?;
            Ok(Payload::Artifact(found))
        }
        inline @ Payload::Inline(_) => Ok(inline),
    }
}

fn whole_agent(state: &skep_rules::state::State, crew: CrewId, text: &str) -> Result<String, Rejection> {
    let what = format!("agent `{text}` in this crew");
    let range = extract::prefix::<AgentId>(text, AgentId::PREFIX).map_err(|_| Rejection::not_found(&what))?;
    let agents = state.agents_of(crew).map(|agent| agent.id);
    let found = extract::only(agents.filter(|id| (range.first..=range.last).contains(id)), what);
    found.map(|id| id.to_string())
}

/// A whole id, or the beginning of that of a task in memory.
fn dependency(state: &skep_rules::state::State, text: &str) -> Result<TaskId, Rejection> {
    let what = format!("task `{}`", text.chars().take(80).collect::<String>());
    let range = extract::prefix::<TaskId>(text, TaskId::PREFIX).map_err(|_| Rejection::not_found(&what))?;
    if range.first == range.last {
        return Ok(range.first);
    }
    extract::only(extract::known_tasks(state, &range).into_iter(), what)
}

/// Which tasks.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Of one crew: id, unique prefix or name.
    crew: Option<String>,
    /// In one state.
    #[param(value_type = Option<String>)]
    state: Option<TaskState>,
    /// With this reason code of a failure; `dead-letter` gives those only that can still be redriven.
    #[param(value_type = Option<String>)]
    reason: Option<Reason>,
    /// With steps on the record of their newest run, taken by an agent of this plugin: `publisher/name`, of any version.
    #[param(value_type = Option<String>)]
    recorded: Option<PluginName>,
    /// Where the page before ended.
    #[param(value_type = Option<String>)]
    after: Option<TaskId>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// List tasks, the newest first.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", params(ListQuery),
    responses((status = 200, body = Page<api::task::Task>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<api::task::Task>>> {
    let limit = page_size(query.limit)?;
    let driver = &shared.driver;
    let (crew, _) = driver.read(|state| {
        query
            .crew
            .as_deref()
            .map(|crew| extract::crew(state, Some(crew)))
            .transpose()
    })?;
    let crew = crew?;
    let page = blocking(driver, move |driver| {
        let letters = query.reason == Some(Reason::DeadLetter);
        let letters = letters.then(|| driver.read(|state| state.dead_letters().collect::<BTreeSet<_>>()));
        let letters = letters.transpose()?.map(|(letters, _)| letters);
        let mut makers = query.recorded.map(|plugin| Makers::of(driver, plugin)).transpose()?;
        let mut matches = |task: &Task| {
            let failed = |reason| task.failure.as_ref().is_some_and(|failure| failure.reason == reason);
            // Deliveries of messages are read with their messages.
            let fits = task.delivery.is_none()
                && crew.is_none_or(|crew| task.crew == crew)
                && query.state.is_none_or(|state| task.state == state)
                && query.reason.is_none_or(failed)
                && letters.as_ref().is_none_or(|letters| letters.contains(&task.id));
            match &mut makers {
                Some(makers) if fits => makers.recorded(driver, task),
                _ => Ok(fits),
            }
        };
        archive::page(driver, query.after, limit, &mut matches)
    });
    let (page, position) = page.await?;
    driver.store.wait(position).await?;
    Ok(Json(page))
}

/// The agents of a plugin.
struct Makers {
    plugin: PluginName,
    /// Whether an agent is one: all that are in memory, and those of archived crews that were met.
    known: BTreeMap<AgentId, bool>,
}

impl Makers {
    fn of(driver: &Driver, plugin: PluginName) -> Result<Self, Error> {
        let (known, _) = driver.read(|state| {
            let is_one = |agent| state.member_of(agent).is_some_and(|member| member.plugin == plugin);
            state.agents().map(|agent| (agent.id, is_one(agent))).collect()
        })?;
        Ok(Makers { plugin, known })
    }

    /// Whether one of them took the steps of a task's newest run. Asks nothing of the state, which may be locked.
    fn recorded(&mut self, driver: &Driver, task: &Task) -> Result<bool, Error> {
        let Some(agent) = task.last_agent.filter(|_| task.steps > 0) else {
            return Ok(false);
        };
        if let Some(known) = self.known.get(&agent) {
            return Ok(*known);
        }
        let member = record::archived_agent(driver, task.crew, agent)?;
        let is_one = member.is_some_and(|(_, member)| member.plugin == self.plugin);
        self.known.insert(agent, is_one);
        Ok(is_one)
    }
}

/// Read a task; with `wait`, when it has ended or the time is up.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix"), Wait),
    responses((status = 200, body = api::task::Task), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Query(wait): Query<Wait>,
) -> Answer<Response> {
    let driver = &shared.driver;
    let id = archive::resolve(driver, &text).await?;
    let timer = pin!(tokio::time::sleep(wait.capped().duration()));
    let task = read::task(archive::ended(driver, id, wait.capped(), timer).await?);
    Ok((tag(task.revision), Json(task)).into_response())
}

/// Ask something of a task.
///
/// `cancel` ends it and its parts; `pause` holds them, `resume` lets them go on; `retry` tries it again at once; `reprioritise` (with `priority`) gives
/// them another place among others; `override_result` (with `result` and `why`) ends it with a result of a person's.
#[utoipa::path(put, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Id or unique prefix"), ("If-Match" = String, Header, description = "The `ETag` of the task as it was read; `*` for any")),
    request_body = api::task::Request,
    responses((status = 200, body = api::task::Task), (status = 409, description = "Not from its present state; `legal` lists what is", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It has changed since it was read", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "`If-Match` is missing", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let revision = extract::if_match(&headers)?;
    let asked: api::task::Request = body.json()?;
    let driver = &shared.driver;
    let id = archive::resolve(driver, &text).await?;
    let request = request(driver, id, asked)?;
    let decided = driver.decide(Vec::new(), |_, _, _| {
        Ok(Command::ChangeTask {
            task: id,
            request,
            revision,
            by: ADMIN.to_owned(),
        })
    })?;
    driver.store.wait(decided.position).await?;
    let (task, position) = archive::fetch(driver, id)?.ok_or_else(|| Refusal::not_found(id))?;
    driver.store.wait(position).await?;
    let task = read::task(task);
    Ok((tag(task.revision), Json(task)).into_response())
}

/// What is asked, as the rules have it: what an action needs is there, and nothing that it does not need.
fn request(driver: &Driver, id: TaskId, asked: api::task::Request) -> Answer<Request> {
    let api::task::Request {
        action,
        priority,
        result,
        why,
    } = asked;
    let alone = priority.is_none() && result.is_none() && why.is_none();
    let request = match (action, priority, result, why) {
        (Action::Cancel, ..) if alone => Request::Cancel,
        (Action::Retry, ..) if alone => Request::Retry,
        (Action::Pause, ..) if alone => Request::Pause,
        (Action::Resume, ..) if alone => Request::Resume,
        (Action::Reprioritise, Some(priority), None, None) => Request::Reprioritise(priority),
        (Action::OverrideResult, None, Some(result), Some(why)) => Request::OverrideResult {
            result: given(driver, id, &result)?,
            why,
        },
        _ => {
            let message = "`reprioritise` takes `priority`, `override_result` takes `result` and `why`; nothing else takes anything";
            return Err(Refusal::invalid(message));
        }
    };
    Ok(request)
}

/// A result that a person gives. An artifact must be the crew's.
fn given(driver: &Driver, id: TaskId, result: &serde_json::Value) -> Answer<Payload> {
    match content::from_json(result).map_err(|message| Refusal::invalid(format!("`result`: {message}")))? {
        Payload::Artifact(named) => {
            let (task, _) = archive::fetch(driver, id)?.ok_or_else(|| Refusal::not_found(id))?;
            let found = perform::artifact(driver, task.crew, named.digest)?;
            let found = found.ok_or_else(|| Refusal::not_found(format!("artifact {} in this crew", named.digest)))?;
            Ok(Payload::Artifact(found))
        }
        inline @ Payload::Inline(_) => Ok(inline),
    }
}

/// Submit a dead letter anew, as a task of its own.
#[utoipa::path(post, path = "/v1/tasks/{id}/redrive", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix")),
    responses((status = 201, description = "The new task", body = api::task::Task),
        (status = 409, description = "It is no dead letter, or was redriven already", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn redrive(State(shared): State<Arc<Shared>>, Path(text): Path<String>) -> Answer<Response> {
    let driver = &shared.driver;
    let dead = archive::resolve(driver, &text).await?;
    let (letter, _) = archive::fetch(driver, dead)?.ok_or_else(|| Refusal::not_found(dead))?;
    let decided = driver.accept(|_, draw, now| {
        Ok(Command::RedriveTask {
            task: dead,
            dependencies: letter.dependencies,
            id: TaskId::new(draw.uuid(now)?, SHARD),
            seed: draw.seed()?,
            by: ADMIN.to_owned(),
            points: letter.points.map(|points| redrawn(points, draw, now)).transpose()?,
        })
    })?;
    let Reply::Submitted { tasks, .. } = decided.reply else {
        return Err(Refusal::panicked());
    };
    driver.store.wait(decided.position).await?;
    let id = tasks.first().copied().unwrap_or(dead);
    let (task, position) = archive::fetch(driver, id)?.ok_or_else(|| Refusal::not_found(id))?;
    driver.store.wait(position).await?;
    let task = read::task(task);
    Ok((StatusCode::CREATED, tag(task.revision), Json(task)).into_response())
}

/// Read a task with its parts, theirs, and so on. Results are left out; read them one by one.
#[utoipa::path(get, path = "/v1/tasks/{id}/tree", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix")),
    responses((status = 200, body = api::task::Tree), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn tree(State(shared): State<Arc<Shared>>, Path(text): Path<String>) -> Answer<Json<api::task::Tree>> {
    let driver = &shared.driver;
    let id = archive::resolve(driver, &text).await?;
    let (tree, position) = blocking(driver, move |driver| archive::tree(driver, id)).await?;
    driver.store.wait(position).await?;
    tree.map(Json).ok_or_else(|| Refusal::not_found(id))
}

/// Read the tree of a task as it can be submitted again: what is to be done, in which order, and nothing of what became of it.
#[utoipa::path(get, path = "/v1/tasks/{id}/tree/export", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix")),
    responses((status = 200, body = api::plan::Export), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn export_tree(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
) -> Answer<Json<api::plan::Export>> {
    let driver = &shared.driver;
    let id = archive::resolve(driver, &text).await?;
    let (tasks, position) = blocking(driver, move |driver| archive::records(driver, id)).await?;
    driver.store.wait(position).await?;
    let bytes: usize = tasks.values().map(|task| inline_bytes(&task.input)).sum();
    if bytes > MAX_BODY_BYTES {
        let message = format!(
            "its inputs have {bytes} bytes, and a submission takes {MAX_BODY_BYTES}: inputs that are artifacts are told by reference"
        );
        return Err(Rejection::new(Reason::BodyLimit, message).into());
    }
    let export = plans::export(&tasks, id).ok_or_else(|| Refusal::not_found(id))?;
    Ok(Json(export))
}

fn inline_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Inline(bytes) => bytes.len(),
        Payload::Artifact(_) => 0,
    }
}

/// Which attempts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    /// Attempts after this epoch.
    after: Option<u64>,
    /// At most so many attempts, 10 when absent.
    limit: Option<usize>,
}

/// Read the logs of a task's attempts that have ended, the oldest first.
#[utoipa::path(get, path = "/v1/tasks/{id}/logs", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix"), LogQuery),
    responses((status = 200, body = Page<api::task::AttemptLog>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn logs(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Query(query): Query<LogQuery>,
) -> Answer<Json<Page<api::task::AttemptLog>>> {
    let driver = &shared.driver;
    let id = archive::resolve(driver, &text).await?;
    let limit = query.limit.unwrap_or(MAX_LOG_PAGE);
    if !(1..=MAX_LOG_PAGE).contains(&limit) {
        return Err(Refusal::invalid(format!("`limit` is between 1 and {MAX_LOG_PAGE}")));
    }
    let (page, position) = blocking(driver, move |driver| {
        let mut range = Range::prefix(&id.to_bytes());
        if let Some(after) = query.after {
            range = range.after(&perform::log_key(id, after));
        }
        let mut rows = driver.store.scan(LOGS, &range, limit + 1)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let items = rows
            .iter()
            .map(|(key, row)| attempt_log(key, row))
            .collect::<Result<Vec<_>, _>>()?;
        let next = items.last().filter(|_| more).map(|log| log.epoch.to_string());
        let ((), position) = driver.read(|_| ())?;
        Ok((Page { items, next }, position))
    })
    .await?;
    driver.store.wait(position).await?;
    Ok(Json(page))
}

fn attempt_log(key: &[u8], row: &[u8]) -> Result<api::task::AttemptLog, Error> {
    let log: StoredLog = decode(row)?;
    let epoch = key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    Ok(api::task::AttemptLog {
        epoch: epoch.ok_or_else(|| Error::Undecodable("the key of a log".to_owned()))?,
        agent: log.agent,
        ended_at: log.ended_at,
        end: log.end,
        lines: log.lines,
        omitted: log.omitted,
    })
}

fn tag(revision: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{revision}\""))]
}
