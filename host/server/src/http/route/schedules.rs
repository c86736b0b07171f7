//! `/v1/schedules`

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use skep_rules::{
    command::{Command, NewTask},
    id::{CrewId, Name},
    quantity::Time,
    rejection::Rejection,
    schedule,
    state::State as Records,
};

use super::{plans, tasks};
use crate::{
    driver::ADMIN,
    host::Shared,
    http::{
        api::{
            Page,
            problem::Problem,
            schedule::{NewSchedule, Schedule, When},
        },
        extract::{self, Body, Query, only, page_size},
        problem::{Answer, Refusal},
    },
    read,
};

/// Have a task submitted again and again.
///
/// Asked again for the same schedule it changes nothing; the answer has status 200. A pattern that can never come is refused with its place.
#[utoipa::path(post, path = "/v1/schedules", tag = "schedules", request_body = NewSchedule,
    responses((status = 201, description = "Made, durable", body = Schedule), (status = 200, description = "It was there", body = Schedule),
        (status = 409, description = "Another schedule of the crew has the name", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(State(shared): State<Arc<Shared>>, body: Body) -> Answer<(StatusCode, Json<Schedule>)> {
    let NewSchedule {
        name,
        crew,
        cron,
        zone,
        every,
        first,
        at,
        missed,
        task,
    } = body.json()?;
    let when = When {
        cron,
        zone,
        every,
        first,
        at,
    };
    if task.crew.is_some() {
        return Err(Refusal::invalid(
            "`task`: its crew is the schedule's: say `crew` beside it",
        ));
    }
    let driver = &shared.driver;
    let mut inputs = tasks::inputs(driver, std::slice::from_ref(&task), crew.as_deref())?;
    let parts = plans::given(driver, &task, crew.as_deref())?;
    let input = inputs.pop().ok_or_else(Refusal::panicked)?;
    let (mut status, mut made) = (StatusCode::CREATED, None);
    let decided = driver.accept(|state, draw, now| {
        let crew = extract::crew(state, crew.as_deref())?;
        let of = state.crew(crew).map(|crew| crew.manifest.name.clone());
        let of = of.ok_or_else(|| Rejection::not_found(crew))?;
        let known = state.schedule(&of, &name);
        let when = due(when, known, now)?;
        if known.is_some() {
            status = StatusCode::OK;
        }
        made = Some((of, name.clone()));
        Ok(Command::CreateSchedule {
            task: NewTask {
                parts,
                ..tasks::new_task(state, draw, now, crew, task, input)?
            },
            crew,
            name,
            when,
            missed,
            by: ADMIN.to_owned(),
        })
    })?;
    driver.store.wait(decided.position).await?;
    let found = driver.read_durable(|state| {
        let (crew, name) = made.as_ref()?;
        Some(read::schedule(state, state.schedule(crew, name)?))
    });
    // One that is due once may be over already.
    let found = found
        .await?
        .ok_or_else(|| Refusal::not_found("schedule of that name any more"))?;
    Ok((status, Json(found)))
}

/// When it is due, of the three ways to say it. An interval whose first time is not said begins one interval from now, or as the same schedule has begun.
fn due(when: When, known: Option<&schedule::Schedule>, now: Time) -> Result<schedule::When, Rejection> {
    let one = "`cron`, `every` and `at`: say when by exactly one of them";
    match when {
        When {
            cron: Some(pattern),
            zone,
            every: None,
            first: None,
            at: None,
        } => Ok(schedule::When::Cron {
            pattern,
            zone: zone.unwrap_or_else(|| "UTC".to_owned()),
        }),
        When {
            every: Some(every),
            first,
            cron: None,
            zone: None,
            at: None,
        } => {
            let begun = match known.map(|known| &known.when) {
                Some(schedule::When::Every { every: same, first }) if *same == every => Some(*first),
                _ => None,
            };
            let first = first.or(begun).unwrap_or_else(|| now.after(every));
            Ok(schedule::When::Every { every, first })
        }
        When {
            at: Some(at),
            cron: None,
            zone: None,
            every: None,
            first: None,
        } => Ok(schedule::When::Once(at)),
        When {
            cron: None,
            zone: Some(_),
            ..
        } => Err(Rejection::invalid("`zone` goes with `cron`")),
        When {
            every: None,
            first: Some(_),
            ..
        } => Err(Rejection::invalid("`first` goes with `every`")),
        _ => Err(Rejection::invalid(one)),
    }
}

/// Which schedules.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Of one crew, by its name.
    #[param(value_type = Option<String>)]
    crew: Option<Name>,
    /// Where the page before ended.
    after: Option<String>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// List schedules by the names of their crews and their own.
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules", params(ListQuery),
    responses((status = 200, body = Page<Schedule>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<Schedule>>> {
    let limit = page_size(query.limit)?;
    let after = match &query.after {
        Some(after) => Some(place(after).ok_or_else(|| Refusal::invalid("`after` is the `next` of the page before"))?),
        None => None,
    };
    let page = shared.driver.read_durable(|state| {
        let behind = |of: &&schedule::Schedule| {
            after
                .as_ref()
                .is_none_or(|(crew, name)| (&of.crew, &of.name) > (crew, name))
        };
        let mut found = state
            .schedules()
            .filter(|of| query.crew.as_ref().is_none_or(|crew| of.crew == *crew))
            .filter(behind);
        let items: Vec<_> = found.by_ref().take(limit).map(|of| read::schedule(state, of)).collect();
        let next = found
            .next()
            .and(items.last())
            .map(|last| format!("{}/{}", last.crew, last.name));
        Page { items, next }
    });
    Ok(Json(page.await?))
}

/// `crew/name`
fn place(text: &str) -> Option<(Name, Name)> {
    let (crew, name) = text.split_once('/')?;
    Some((crew.parse().ok()?, name.parse().ok()?))
}

/// Of which crew.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrewQuery {
    /// The crew: name, also of one that is not there any more, id or unique prefix. May be left out where only one crew has a schedule of the name.
    crew: Option<String>,
}

/// Read a schedule.
#[utoipa::path(get, path = "/v1/schedules/{name}", tag = "schedules", params(("name" = String, Path, description = "Its name"), CrewQuery),
    responses((status = 200, body = Schedule), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Query(query): Query<CrewQuery>,
) -> Answer<Json<Schedule>> {
    let found = shared.driver.read_durable(|state| {
        let found = find(state, query.crew.as_deref(), &text)?;
        Ok::<_, Rejection>(read::schedule(state, found))
    });
    Ok(Json(found.await??))
}

/// Submit it no more. Tasks that it has submitted go on. The answer is what it was.
#[utoipa::path(delete, path = "/v1/schedules/{name}", tag = "schedules", params(("name" = String, Path, description = "Its name"), CrewQuery),
    responses((status = 200, body = Schedule), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Query(query): Query<CrewQuery>,
) -> Answer<Json<Schedule>> {
    let driver = &shared.driver;
    let mut gone = None;
    let decided = driver.decide(Vec::new(), |state, _, _| {
        let found = find(state, query.crew.as_deref(), &text)?;
        gone = Some(read::schedule(state, found));
        Ok(Command::DeleteSchedule {
            crew: found.crew.clone(),
            name: found.name.clone(),
            by: ADMIN.to_owned(),
        })
    })?;
    driver.store.wait(decided.position).await?;
    gone.map(Json).ok_or_else(Refusal::panicked)
}

/// The schedule that is meant.
fn find<'a>(state: &'a Records, crew: Option<&str>, text: &str) -> Result<&'a schedule::Schedule, Rejection> {
    let what = format!("schedule `{}`", text.chars().take(80).collect::<String>());
    let name: Name = text.parse().map_err(|_| Rejection::not_found(&what))?;
    let Some(crew) = crew else {
        let named = state.schedules().filter(|of| of.name == name);
        return only(named, what).map_err(|refused| match refused.reason {
            skep_rules::reason::Reason::InvalidInput => {
                Rejection::invalid(format!("several crews have a schedule `{name}`: say which with `crew`"))
            }
            _ => refused,
        });
    };
    let by_name = crew.parse().ok().and_then(|crew: Name| state.schedule(&crew, &name));
    let by_id = || {
        let id: CrewId = extract::crew(state, Some(crew)).ok()?;
        state.schedule(&state.crew(id)?.manifest.name, &name)
    };
    by_name.or_else(by_id).ok_or_else(|| {
        let crew = crew.chars().take(80).collect::<String>();
        Rejection::not_found(format!("{what} of a crew `{crew}`"))
    })
}
