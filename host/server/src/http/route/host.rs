//! `/v1/host` and what answers without a token

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use skep_rules::{
    agent::Phase,
    crew_record::CrewPhase,
    limits::{MAX_AGENTS, MAX_CREWS, MAX_LIVE_TASKS},
};

use crate::{
    currency,
    host::Shared,
    http::{
        api::host::{Capacity, Host},
        problem::Answer,
    },
};

/// Read what the host is, what it holds and how much it could.
#[utoipa::path(get, path = "/v1/host", tag = "host", responses((status = 200, body = Host)))]
pub(crate) async fn show(State(shared): State<Arc<Shared>>) -> Answer<Json<Host>> {
    let driver = &shared.driver;
    let counted = driver.read_durable(|state| Capacity {
        slots: shared.slots,
        attempts: shared.runner.attempts() as u64,
        guest_threads: u32::try_from(shared.guest_threads).unwrap_or(u32::MAX),
        crews: state.crews().filter(|crew| crew.phase != CrewPhase::Stopped).count() as u64,
        max_crews: MAX_CREWS as u64,
        agents: state.agents().filter(|agent| agent.phase != Phase::Stopped).count() as u64,
        max_agents: MAX_AGENTS as u64,
        live_tasks: state.live_tasks() as u64,
        max_live_tasks: MAX_LIVE_TASKS as u64,
    });
    Ok(Json(Host {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        dev: driver.unsigned,
        started_at: shared.started_at,
        ceiling: shared.ceiling.clone(),
        capacity: counted.await?,
        durable: driver.store.durable().0,
        currency: currency::at(driver.clock.now()),
    }))
}

/// Whether the process is alive and can be relied on.
#[utoipa::path(get, path = "/healthz", tag = "host", security(()),
    responses((status = 200, description = "It is"), (status = 503, description = "It has failed and is about to end")))]
pub(crate) async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    answer(shared.driver.failure().is_none())
}

/// Whether it takes work: recovered, and not stopping.
#[utoipa::path(get, path = "/readyz", tag = "host", security(()),
    responses((status = 200, description = "It does"), (status = 503, description = "Not yet, or no longer")))]
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    answer(shared.ready.load(Ordering::Acquire) && shared.driver.failure().is_none())
}

fn answer(good: bool) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({ "ok": good }))).into_response()
}

/// The description of this API.
#[utoipa::path(get, path = "/openapi.json", tag = "host", security(()), responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(crate) async fn openapi(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.openapi.get().cloned().unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
