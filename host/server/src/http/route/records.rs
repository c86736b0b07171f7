//! `/v1/tasks/{id}/steps` and `/v1/tasks/{id}/export`

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use serde::Deserialize;
use skep_rules::{id::TaskId, reason::Reason, step::Recorded};

use super::{
    archive, blocking,
    parts::{self, Parts},
};
use crate::{
    driver::Driver,
    host::Shared,
    http::{
        api::{Page, problem::Problem, step::Step},
        extract::{Query, page_size},
        problem::{Answer, Refusal},
    },
    record::{self, Run},
};

/// Which steps.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepsQuery {
    /// Steps after this number.
    after: Option<u64>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// Read the record of a task: the steps of its newest run, the oldest first.
#[utoipa::path(get, path = "/v1/tasks/{id}/steps", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix"), StepsQuery),
    responses((status = 200, body = Page<Step>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn steps(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Query(query): Query<StepsQuery>,
) -> Answer<Json<Page<Step>>> {
    let driver = &shared.driver;
    let id = archive::resolve(driver, &text).await?;
    let limit = page_size(query.limit)?;
    let from = query.after.map_or(0, |after| after.saturating_add(1));
    let (run, position) = run(driver, id)?;
    let page = blocking(driver, move |driver| {
        let mut items = Vec::new();
        let mut number = from;
        while items.len() < limit {
            let steps = run.steps(driver, number)?;
            if steps.is_empty() {
                break;
            }
            for step in steps.into_iter().take(limit - items.len()) {
                let ends = record::ends(driver, &step)?;
                items.push(Step::of(number, Recorded { step, ends }));
                number += 1;
            }
        }
        let next = items.last().filter(|_| number < run.task.steps);
        let next = next.map(|step| step.number.to_string());
        Ok(Page { items, next })
    });
    let page = page.await?;
    driver.store.wait(position).await?;
    Ok(Json(page))
}

fn run(driver: &Driver, id: TaskId) -> Answer<(Run, skep_store::Position)> {
    Run::of(driver, id)?.ok_or_else(|| Refusal::not_found(id))
}

/// What an export holds.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportQuery {
    /// With the values of the agent's environment variables, instead of `***`. Such a file is not for others.
    #[serde(default)]
    unmasked: bool,
    /// With the component; yes when absent.
    component: Option<bool>,
}

/// Export the newest run of a task as one file, which `skep replay` runs again on any machine.
///
/// The file has what the attempts were given, each step with its answer, the artifacts that were read (together at most 64 MiB) and the component. An
/// answer that breaks off shows as a file that is cut short: the last of its pieces says that it is the last.
#[utoipa::path(get, path = "/v1/tasks/{id}/export", tag = "tasks", params(("id" = String, Path, description = "Id or unique prefix"), ExportQuery),
    responses((status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "There is no such task, or no attempt at it has begun", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn export(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Query(query): Query<ExportQuery>,
) -> Answer<Response> {
    let driver = &shared.driver;
    let id = archive::resolve(driver, &text).await?;
    let (run, position) = run(driver, id)?;
    let (run, head) = blocking(driver, move |driver| {
        let head = run.head(driver, query.unmasked)?;
        Ok((run, head))
    })
    .await?;
    driver.store.wait(position).await?;
    let permit = Arc::clone(&shared.exports).try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::new(Reason::Overloaded, "too many exports are under way"))?;
    let component = query.component.unwrap_or(true);
    let write = move |driver: &Driver, to: Parts| run.export(driver, head, component, to);
    Ok(parts::answer(driver, permit, "an export", write))
}
