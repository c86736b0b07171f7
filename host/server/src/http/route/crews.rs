//! `/v1/crews`

use std::{path::Path as FilePath, pin::pin, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
};
use serde::Deserialize;
use skep_rules::{
    command::Command,
    crew::CrewManifest,
    crew_record::Status,
    decide::Reply,
    id::{AgentId, CrewId},
    limits::{MAX_AGENTS, MAX_PAGE},
    manifest,
    reason::Reason,
    rejection::Rejection,
    state::State as Records,
};

use super::blocking;
use crate::{
    driver::{ADMIN, SHARD},
    host::Shared,
    http::{
        api::{
            self, Page,
            crew::{Assembled, Crew, CrewStatus, Endpoints},
            problem::Problem,
        },
        extract::{self, Body, Query, Wait, page_size},
        problem::{Answer, Refusal},
    },
    read,
};

/// Assemble a crew, whole or not at all.
///
/// The body is a crew manifest, as JSON or (with the content type `application/toml`) as TOML. The directories of its mounts are absolute.
#[utoipa::path(post, path = "/v1/crews/assemble", tag = "crews",
    request_body(content((serde_json::Value = "application/json"), (String = "application/toml"))),
    responses((status = 202, description = "Accepted, durable; its agents are being made ready", body = Assembled),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn assemble(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Answer<(StatusCode, Json<Assembled>)> {
    let driver = &shared.driver;
    let mut manifest = manifest(&headers, &body)?;
    let wanted: usize = manifest.members.iter().map(|member| member.agent_names().count()).sum();
    if wanted > MAX_AGENTS {
        return Err(Refusal::new(
            Reason::Overloaded,
            format!("a host holds at most {MAX_AGENTS} agents, this crew has {wanted}"),
        ));
    }
    let (data_dir, mounts) = (shared.data_dir.clone(), manifest.mounts);
    manifest.mounts = blocking(driver, move |_| {
        let mut mounts = mounts;
        for mount in &mut mounts {
            mount.host = directory(&mount.host, &data_dir)?;
        }
        Ok(mounts)
    })
    .await?;
    let ceiling = shared.ceiling.clone();
    let decided = driver.accept(|state, draw, now| {
        let crew = CrewId::new(draw.uuid(now)?, SHARD);
        let agents = (0..wanted).map(|_| Ok(AgentId::new(draw.uuid(now)?, SHARD)));
        let named = state
            .plugins()
            .filter(|plugin| manifest.members.iter().any(|member| plugin.answers_to(&member.plugin)));
        Ok(Command::AssembleCrew {
            crew,
            plugins: named.cloned().collect(),
            agents: agents.collect::<Result<_, crate::driver::Error>>()?,
            manifest,
            ceiling,
            by: ADMIN.to_owned(),
        })
    })?;
    let Reply::Assembled(crew_id) = decided.reply else {
        return Err(Refusal::panicked());
    };
    let ((), position) = driver.read(|_| ())?;
    driver.store.wait(position).await?;
    let assembled = Assembled {
        crew_id,
        endpoints: Endpoints {
            status: format!("/v1/crews/{crew_id}/status"),
            tasks: format!("/v1/tasks?crew={crew_id}"),
            agents: format!("/v1/agents?crew={crew_id}"),
            events: format!("/v1/events?crew={crew_id}"),
        },
        status: Status::Assembling,
    };
    Ok((StatusCode::ACCEPTED, Json(assembled)))
}

/// The manifest in a body, checked.
fn manifest(headers: &HeaderMap, body: &Body) -> Answer<CrewManifest> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if matches!(kind, "application/toml" | "text/toml" | "text/plain") {
        let text = std::str::from_utf8(&body.0)
            .map_err(|_| Refusal::new(Reason::InvalidManifest, "the manifest is not UTF-8"))?;
        return CrewManifest::parse(text).map_err(|error| wrong(text, &error));
    }
    let parsed: Result<CrewManifest, _> = serde_json::from_slice(&body.0);
    let manifest = parsed.map_err(|error| Refusal::new(Reason::InvalidManifest, error.to_string()))?;
    manifest.check().map_err(|error| wrong("", &error))?;
    Ok(manifest)
}

fn wrong(text: &str, error: &manifest::Error) -> Refusal {
    let place = match error {
        manifest::Error::Syntax {
            span: Some((start, _)), ..
        } => {
            let before = text.get(..*start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("line {line}, column {column}: ")
        }
        _ => String::new(),
    };
    Refusal::new(Reason::InvalidManifest, format!("{place}{error}"))
}

/// The directory of a mount with its links resolved: what agents see is what the operator named, and never the host's own secrets.
fn directory(host: &str, data_dir: &FilePath) -> Result<String, Rejection> {
    let refuse = |why: String| Rejection::new(Reason::InvalidManifest, format!("mount `{host}`: {why}"));
    if !FilePath::new(host).is_absolute() {
        return Err(refuse("the directory is not given as an absolute path".to_owned()));
    }
    let path = std::fs::canonicalize(host).map_err(|error| refuse(error.to_string()))?;
    if !path.is_dir() {
        return Err(refuse("it is not a directory".to_owned()));
    }
    if path.starts_with(data_dir) || data_dir.starts_with(&path) {
        return Err(refuse(
            "it would show agents the data directory of this host, with its token".to_owned(),
        ));
    }
    path.into_os_string()
        .into_string()
        .map_err(|_| refuse("its name is not UTF-8".to_owned()))
}

/// Which crews.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Where the page before ended.
    #[param(value_type = Option<String>)]
    after: Option<CrewId>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// List the crews that are live or stopped not long ago, the oldest first.
#[utoipa::path(get, path = "/v1/crews", tag = "crews", params(ListQuery),
    responses((status = 200, body = Page<Crew>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<Crew>>> {
    let limit = page_size(query.limit)?;
    let page = shared.driver.read_durable(|state| {
        let mut crews = state
            .crews()
            .filter(|crew| query.after.is_none_or(|after| crew.id > after));
        let items: Vec<_> = crews.by_ref().take(limit).map(|crew| read::crew(state, crew)).collect();
        let next = crews.next().and(items.last()).map(|crew| crew.crew_id.to_string());
        Page { items, next }
    });
    Ok(Json(page.await?))
}

/// Read how a crew is, with its agents; with `wait`, when it is no longer being assembled or the time is up.
#[utoipa::path(get, path = "/v1/crews/{id}/status", tag = "crews", params(("id" = String, Path, description = "Id, unique prefix or name"), Wait),
    responses((status = 200, body = CrewStatus), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Query(wait): Query<Wait>,
) -> Answer<Json<CrewStatus>> {
    let driver = &shared.driver;
    let mut changes = driver.feed.watch();
    let mut timer = pin!(tokio::time::sleep(wait.capped().duration()));
    let mut patient = true;
    loop {
        changes.borrow_and_update();
        let found = driver.read_durable(|state| {
            let id = extract::crew(state, Some(&text))?;
            crew_status(state, id).ok_or_else(|| Rejection::not_found(id))
        });
        let found = found.await??;
        if !patient || found.crew.status != Status::Assembling {
            return Ok(Json(found));
        }
        patient = tokio::select! {
            changed = changes.changed() => changed.is_ok(),
            () = timer.as_mut() => false,
            () = driver.stopping.cancelled() => false,
            () = driver.failed.cancelled() => false,
        };
    }
}

fn crew_status(state: &Records, id: CrewId) -> Option<CrewStatus> {
    let crew = state.crew(id)?;
    let members = state
        .agents_of(id)
        .take(MAX_PAGE)
        .filter_map(|agent| read::agent(state, agent));
    Some(CrewStatus {
        crew: read::crew(state, crew),
        members: members.collect::<Vec<api::agent::Agent>>(),
    })
}

/// Let a crew finish what runs, and stop.
#[utoipa::path(delete, path = "/v1/crews/{id}", tag = "crews", params(("id" = String, Path, description = "Id, unique prefix or name")),
    responses((status = 202, description = "It drains", body = Crew), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn drain(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
) -> Answer<(StatusCode, Json<Crew>)> {
    let driver = &shared.driver;
    let mut meant = None;
    let decided = driver.decide(Vec::new(), |state, _, _| {
        let crew = extract::crew(state, Some(&text))?;
        meant = Some(crew);
        Ok(Command::DrainCrew {
            crew,
            by: ADMIN.to_owned(),
        })
    })?;
    driver.store.wait(decided.position).await?;
    let found = driver.read_durable(|state| {
        let crew = meant.and_then(|id| state.crew(id))?;
        Some(read::crew(state, crew))
    });
    let crew = found
        .await?
        .ok_or_else(|| Refusal::not_found(format!("crew `{text}`")))?;
    Ok((StatusCode::ACCEPTED, Json(crew)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_resolved_and_never_shows_the_data_directory() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let (input, data) = (top.join("input"), top.join("data"));
        std::fs::create_dir_all(data.join("store")).unwrap();
        std::fs::create_dir(&input).unwrap();
        std::os::unix::fs::symlink(&data, top.join("link")).unwrap();
        let check = |path: &FilePath| directory(path.to_str().unwrap(), &data);
        assert_eq!(check(&input).unwrap(), input.to_str().unwrap());
        for bad in [
            &top,
            &data,
            &data.join("store"),
            &top.join("link"),
            &top.join("absent"),
            FilePath::new("input"),
        ] {
            assert_eq!(
                check(bad).unwrap_err().reason,
                Reason::InvalidManifest,
                "{}",
                bad.display()
            );
        }
    }

    #[test]
    fn a_wrong_manifest_is_placed() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/toml".parse().unwrap());
        let body = Body(axum::body::Bytes::from_static(b"name = \"x\"\nnonsense = 1\n"));
        let refusal = format!("{:?}", manifest(&headers, &body).unwrap_err());
        assert!(refusal.contains("line 2") && refusal.contains("nonsense"), "{refusal}");
    }
}
