//! `/v1/agents`

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use skep_rules::id::AgentId;

use crate::{
    host::Shared,
    http::{
        api::{Page, agent::Agent, problem::Problem},
        extract::{self, Query, page_size},
        problem::{Answer, Refusal},
    },
    read,
};

/// Which agents.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Of one crew: id, unique prefix or name.
    crew: Option<String>,
    /// Where the page before ended.
    #[param(value_type = Option<String>)]
    after: Option<AgentId>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// List agents, the oldest first.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(ListQuery),
    responses((status = 200, body = Page<Agent>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<Agent>>> {
    let limit = page_size(query.limit)?;
    let page = shared.driver.read_durable(|state| {
        let crew = query
            .crew
            .as_deref()
            .map(|crew| extract::crew(state, Some(crew)))
            .transpose()?;
        let wanted = |agent: &&skep_rules::agent::Agent| {
            crew.is_none_or(|crew| agent.crew == crew) && query.after.is_none_or(|after| agent.id > after)
        };
        let mut agents = state
            .agents()
            .filter(wanted)
            .filter_map(|agent| read::agent(state, agent));
        let items: Vec<_> = agents.by_ref().take(limit).collect();
        let next = agents.next().and(items.last()).map(|agent| agent.agent_id.to_string());
        Ok::<_, Refusal>(Page { items, next })
    });
    Ok(Json(page.await??))
}

/// Read an agent.
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path, description = "Id or unique prefix")),
    responses((status = 200, body = Agent), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(State(shared): State<Arc<Shared>>, Path(text): Path<String>) -> Answer<Response> {
    let found = shared.driver.read_durable(|state| {
        let id = extract::agent(state, &text)?;
        let agent = state.agent(id).and_then(|agent| read::agent(state, agent));
        agent.ok_or_else(|| Refusal::not_found(id))
    });
    let agent = found.await??;
    Ok(([(header::ETAG, format!("\"{}\"", agent.revision))], Json(agent)).into_response())
}
