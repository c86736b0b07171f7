//! `/v1/tasks`

use std::{collections::VecDeque, pin::pin, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use skep_rules::{
    command::{Command, Idempotency, NewTask},
    decide::Reply,
    id::{AgentId, CrewId, Digest, TaskId},
    limits::{MAX_LOG_PAGE, MAX_SUBMISSION},
    plan::Payload,
    quantity::Millis,
    rejection::Rejection,
    task::{Task, TaskState},
};
use skep_store::{Position, Range};

use super::blocking;
use crate::{
    driver::{ADMIN, Driver, Error, LOGS, SHARD, TASKS, decode},
    host::Shared,
    http::{
        api::{self, Page, content, problem::Problem},
        extract::{self, Body, Prefix, Query, Wait, page_size},
        problem::{Answer, Refusal},
    },
    perform::{self, StoredLog},
    read,
};

/// Archived rows that one page may read past because they do not match.
const SCAN_BUDGET: usize = 2_000;
/// Archived rows read at a time.
const SCAN_PAGE: usize = 200;

/// Submit one task, or up to 100, all or none of them.
///
/// With `wait` the answer comes when all of them have ended, or the time is up. An `Idempotency-Key` makes asking twice the same as asking once
/// for 24 hours; the second answer has status 200.
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
    let decided = driver.accept(|state, draw, now| {
        let crew = extract::crew(state, crew.as_deref())?;
        let mut new = Vec::with_capacity(tasks.len());
        for (task, input) in tasks.into_iter().zip(inputs) {
            let agent = match task.agent {
                Some(text) if text.starts_with(AgentId::PREFIX) => Some(whole_agent(state, crew, &text)?),
                other => other,
            };
            let dependencies = task.dependencies.iter().map(|text| dependency(state, text));
            new.push(NewTask {
                id: TaskId::new(draw.uuid(now)?, SHARD),
                seed: draw.seed()?,
                description: task.description,
                input,
                roles: task.roles,
                agent,
                plan: task.plan,
                notes: task.notes,
                check: task.check,
                max_retries: task.retry.and_then(|retry| retry.max_retries),
                dependencies: dependencies.collect::<Result<_, _>>()?,
                labels: task.labels,
            });
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
        answers.push(read::task(ended(driver, id, wait.capped(), timer.as_mut()).await?));
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
fn inputs(driver: &Driver, tasks: &[api::task::NewTask], crew: Option<&str>) -> Answer<Vec<Payload>> {
    let read = |task: &api::task::NewTask| {
        let place = |message| Refusal::invalid(format!("`input` of `{}`: {message}", task.description));
        match content::from_json(&task.input).map_err(place)? {
            Payload::Artifact(named) => {
                let (crew, _) = driver.read(|state| extract::crew(state, crew))?;
                let found = perform::artifact(driver, crew?, named.digest)?;
                let found =
                    found.ok_or_else(|| Refusal::not_found(format!("artifact {} in this crew", named.digest)))?;
                Ok(Payload::Artifact(found))
            }
            inline @ Payload::Inline(_) => Ok(inline),
        }
    };
    tasks.iter().map(read).collect()
}

fn whole_agent(state: &skep_rules::state::State, crew: CrewId, text: &str) -> Result<String, Rejection> {
    let what = format!("agent `{text}` in this crew");
    let range = extract::prefix::<AgentId>(text, AgentId::PREFIX).map_err(|_| Rejection::not_found(&what))?;
    let agents = state.agents_of(crew).map(|agent| agent.id);
    let found = extract::only(agents.filter(|id| (range.first..=range.last).contains(id)), what);
    found.map(|id| id.to_string())
}

/// A whole id, or the beginning of a live task's.
fn dependency(state: &skep_rules::state::State, text: &str) -> Result<TaskId, Rejection> {
    let what = format!("task `{}`", text.chars().take(80).collect::<String>());
    let range = extract::prefix::<TaskId>(text, TaskId::PREFIX).map_err(|_| Rejection::not_found(&what))?;
    if range.first == range.last {
        return Ok(range.first);
    }
    extract::only(extract::live_tasks(state, &range).into_iter(), what)
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
        let matches = move |task: &Task| {
            crew.is_none_or(|crew| task.crew == crew) && query.state.is_none_or(|state| task.state == state)
        };
        page(driver, query.after, limit, &matches)
    });
    let (page, position) = page.await?;
    driver.store.wait(position).await?;
    Ok(Json(page))
}

/// Live tasks first, then the archive: one that moves in between is seen twice, never missed.
fn page(
    driver: &Driver,
    after: Option<TaskId>,
    limit: usize,
    matches: &dyn Fn(&Task) -> bool,
) -> Result<(Page<api::task::Task>, Position), Error> {
    let before = |id: TaskId| after.is_none_or(|after| id < after);
    let (live, _) = driver.read(|state| {
        let mut newest = VecDeque::with_capacity(limit + 2);
        for task in state.tasks().filter(|task| before(task.id) && matches(task)) {
            newest.push_back(task);
            if newest.len() > limit + 1 {
                newest.pop_front();
            }
        }
        newest.into_iter().cloned().collect::<Vec<Task>>()
    })?;
    let mut found: std::collections::BTreeMap<TaskId, Task> = live.into_iter().map(|task| (task.id, task)).collect();

    let mut range = Range::all().reversed();
    if let Some(after) = after {
        range = range.before(&after.to_bytes());
    }
    // Where the archive was read down to, if it was not read to its end.
    let mut floor = None;
    let (mut scanned, mut archived) = (0, 0);
    while archived <= limit {
        let rows = driver.store.scan(TASKS, &range, SCAN_PAGE)?;
        let Some((last, _)) = rows.last() else {
            floor = None;
            break;
        };
        range = range.before(last);
        scanned += rows.len();
        let full = rows.len() == SCAN_PAGE;
        for (_, row) in rows {
            let task: Task = decode(&row)?;
            floor = Some(task.id);
            if matches(&task) {
                archived += 1;
                found.insert(task.id, task);
            }
        }
        if !full {
            floor = None;
            break;
        }
        if scanned >= SCAN_BUDGET {
            break;
        }
    }
    let seen = found
        .into_values()
        .rev()
        .filter(|task| floor.is_none_or(|floor| task.id >= floor));
    let mut items: Vec<_> = seen.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(|task| task.id) } else { floor };
    let page = Page {
        next: next.map(|id| id.to_string()),
        items: items.into_iter().map(read::task).collect(),
    };
    // Read last: everything seen was decided before.
    let ((), position) = driver.read(|_| ())?;
    Ok((page, position))
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
    let id = resolve(driver, &text).await?;
    let timer = pin!(tokio::time::sleep(wait.capped().duration()));
    let task = read::task(ended(driver, id, wait.capped(), timer).await?);
    Ok((tag(task.revision), Json(task)).into_response())
}

/// Ask for a transition of a task. So far there is one: `{"action": "cancel"}` ends it and its parts.
#[utoipa::path(put, path = "/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix")),
    request_body = api::task::Request,
    responses((status = 200, body = api::task::Task), (status = 409, description = "Not from its present state", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    body: Body,
) -> Answer<Response> {
    let api::task::Request {
        action: api::task::Action::Cancel,
    } = body.json()?;
    let driver = &shared.driver;
    let id = resolve(driver, &text).await?;
    let decided = driver.decide(Vec::new(), |_, _, _| {
        Ok(Command::CancelTask {
            task: id,
            by: ADMIN.to_owned(),
        })
    })?;
    driver.store.wait(decided.position).await?;
    let (task, position) = fetch(driver, id)?.ok_or_else(|| Refusal::not_found(id))?;
    driver.store.wait(position).await?;
    let task = read::task(task);
    Ok((tag(task.revision), Json(task)).into_response())
}

/// Read a task with its parts, theirs, and so on. Results are left out; read them one by one.
#[utoipa::path(get, path = "/v1/tasks/{id}/tree", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix")),
    responses((status = 200, body = api::task::Tree), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn tree(State(shared): State<Arc<Shared>>, Path(text): Path<String>) -> Answer<Json<api::task::Tree>> {
    let driver = &shared.driver;
    let id = resolve(driver, &text).await?;
    let (tree, position) = blocking(driver, move |driver| {
        let without_result = |mut task: Task| {
            task.result = None;
            task
        };
        let mut tasks: std::collections::BTreeMap<TaskId, Task> = driver
            .read(|state| {
                state
                    .tree(id)
                    .into_iter()
                    .map(|task| (task.id, without_result(task.clone())))
                    .collect()
            })?
            .0;
        // What is not live is archived; the tree is bounded by the plan limits.
        let mut wanted = vec![id];
        while let Some(id) = wanted.pop() {
            if !tasks.contains_key(&id)
                && let Some(task) = driver.row(TASKS, &id.to_bytes())?
            {
                tasks.insert(id, without_result(task));
            }
            wanted.extend(
                tasks
                    .get(&id)
                    .into_iter()
                    .flat_map(|task| task.children.iter().copied()),
            );
        }
        let ((), position) = driver.read(|_| ())?;
        Ok((grow(&mut tasks, id), position))
    })
    .await?;
    driver.store.wait(position).await?;
    tree.map(Json).ok_or_else(|| Refusal::not_found(id))
}

/// Recursion is bounded by the depth of tasks.
fn grow(tasks: &mut std::collections::BTreeMap<TaskId, Task>, id: TaskId) -> Option<api::task::Tree> {
    let task = tasks.remove(&id)?;
    let children = task.children.clone();
    Some(api::task::Tree {
        task: read::task(task),
        children: children.into_iter().filter_map(|child| grow(tasks, child)).collect(),
    })
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
    let id = resolve(driver, &text).await?;
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

/// A task, live or archived, and the position that must be durable before anybody is told.
fn fetch(driver: &Driver, id: TaskId) -> Result<Option<(Task, Position)>, Error> {
    let (live, position) = driver.read(|state| state.task(id).cloned())?;
    if let Some(task) = live {
        return Ok(Some((task, position)));
    }
    let Some(task) = driver.row(TASKS, &id.to_bytes())? else {
        return Ok(None);
    };
    // It may have been archived after the state was read.
    let ((), position) = driver.read(|_| ())?;
    Ok(Some((task, position)))
}

/// A task when it has ended, or as it is when the timer fires or the host stops.
async fn ended(
    driver: &Driver,
    id: TaskId,
    wait: Millis,
    mut timer: std::pin::Pin<&mut tokio::time::Sleep>,
) -> Answer<Task> {
    let mut patient = wait > Millis(0);
    loop {
        let end = patient.then(|| driver.wait_for(id));
        let (task, position) = fetch(driver, id)?.ok_or_else(|| Refusal::not_found(id))?;
        let Some(mut end) = end.filter(|_| !task.state.is_ended()) else {
            driver.stop_waiting(id);
            driver.store.wait(position).await?;
            return Ok(task);
        };
        patient = tokio::select! {
            told = &mut end => told.is_ok(),
            () = timer.as_mut() => false,
            () = driver.stopping.cancelled() => false,
            () = driver.failed.cancelled() => false,
        };
        drop(end);
    }
}

/// The task that an id or a unique prefix means.
async fn resolve(driver: &Arc<Driver>, text: &str) -> Answer<TaskId> {
    let range: Prefix<TaskId> = extract::prefix(text, TaskId::PREFIX)?;
    if range.first == range.last {
        return Ok(range.first);
    }
    let what = format!("task `{text}`");
    let found = blocking(driver, move |driver| {
        let (mut found, _) = driver.read(|state| extract::live_tasks(state, &range))?;
        let archived = Range {
            start: std::ops::Bound::Included(range.first.to_bytes().to_vec()),
            end: std::ops::Bound::Included(range.last.to_bytes().to_vec()),
            reverse: false,
        };
        for (_, row) in driver.store.scan(TASKS, &archived, 2)? {
            found.push(decode::<Task>(&row)?.id);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    });
    Ok(extract::only(found.await?.into_iter(), what)?)
}
