//! `/v1/approvals`

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Deserialize;
use skep_rules::{approval, approval::Ruling, command::Command, decide::Reply, id::ApprovalId};

use crate::{
    driver::{ADMIN, APPROVALS},
    host::Shared,
    http::{
        api::{
            Page,
            approval::{Approval, Decide, Decision},
            problem::Problem,
        },
        extract::{self, Body, Query, page_size},
        problem::{Answer, Refusal},
    },
    read,
};

/// Which approvals.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Of one crew: id, unique prefix or name.
    crew: Option<String>,
    /// Where the page before ended.
    #[param(value_type = Option<String>)]
    after: Option<ApprovalId>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// List what people are asked and have not decided, the oldest first.
#[utoipa::path(get, path = "/v1/approvals", tag = "approvals", params(ListQuery),
    responses((status = 200, body = Page<Approval>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<Approval>>> {
    let limit = page_size(query.limit)?;
    let page = shared.driver.read_durable(|state| {
        let crew = query.crew.as_deref();
        let crew = crew.map(|crew| extract::crew(state, Some(crew))).transpose()?;
        let wanted = |approval: &&approval::Approval| {
            crew.is_none_or(|crew| approval.crew == crew) && query.after.is_none_or(|after| approval.id > after)
        };
        let mut open = state.approvals().filter(wanted).map(read::approval);
        let items: Vec<_> = open.by_ref().take(limit).collect();
        let next = open.next().and(items.last()).map(|last| last.approval_id.to_string());
        Ok::<_, Refusal>(Page { items, next })
    });
    Ok(Json(page.await??))
}

/// Read an approval, open or over.
#[utoipa::path(get, path = "/v1/approvals/{id}", tag = "approvals", params(("id" = String, Path, description = "The whole id")),
    responses((status = 200, body = Approval), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(State(shared): State<Arc<Shared>>, Path(text): Path<String>) -> Answer<Json<Approval>> {
    let driver = &shared.driver;
    let id: ApprovalId = text
        .parse()
        .map_err(|error: skep_rules::id::Error| Refusal::invalid(error.to_string()))?;
    let (open, _) = driver.read(|state| state.approval(id).map(read::approval))?;
    let found = match open {
        Some(open) => Some(open),
        None => driver
            .row::<approval::Approval>(APPROVALS, &id.to_bytes())?
            .as_ref()
            .map(read::approval),
    };
    // Read last: what was found was decided before.
    let ((), position) = driver.read(|_| ())?;
    driver.store.wait(position).await?;
    found.map(Json).ok_or_else(|| Refusal::not_found(id))
}

/// Decide what a person is asked, all of it or some.
///
/// The same decision again has the same answer. An item is decided once: the opposite is refused, and so is what comes too late.
#[utoipa::path(post, path = "/v1/approvals", tag = "approvals", request_body = Decide,
    responses((status = 200, description = "Decided, durable", body = Approval),
        (status = 409, description = "Decided otherwise before, expired, withdrawn, or not what was seen", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn decide(State(shared): State<Arc<Shared>>, body: Body) -> Answer<Json<Approval>> {
    let decide: Decide = body.json()?;
    let driver = &shared.driver;
    let decided = driver.decide(Vec::new(), |_, _, _| {
        Ok(Command::DecideApproval {
            approval: decide.approval_id,
            ruling: Ruling {
                items: decide.items,
                approved: decide.decision == Decision::Approve,
                remark: decide.remark,
                always: decide.always,
                digest: decide.digest,
            },
            by: ADMIN.to_owned(),
        })
    })?;
    let Reply::Ruled(approval) = decided.reply else {
        return Err(Refusal::panicked());
    };
    driver.store.wait(decided.position).await?;
    Ok(Json(read::approval(&approval)))
}
