//! `/v1/plugins`

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
};
use serde::Deserialize;
use skep_rules::{
    command::{Command, Consent},
    crew::PluginRef,
    decide::Reply,
    id::Digest,
    plugin::Plugin as Record,
    quantity::{Size, Time},
    reason::Reason,
    rejection::Rejection,
};

use super::blocking;
use crate::{
    driver::{ADMIN, Driver},
    host::Shared,
    http::{
        api::{Page, plugin::Plugin, problem::Problem},
        extract::{Body, Query, page_size},
        problem::{Answer, Refusal},
    },
    read,
};

/// Install a plugin: a component with its manifest embedded. The same file again changes nothing.
#[utoipa::path(post, path = "/v1/plugins", tag = "plugins",
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "At most 20 MiB"),
    responses((status = 201, description = "Installed, durable", body = Plugin), (status = 200, description = "It was there", body = Plugin),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn install(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Answer<(StatusCode, Json<Plugin>)> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |kind| kind.to_str().unwrap_or_default());
    if !matches!(kind, "application/wasm" | "application/octet-stream") {
        return Err(Refusal::invalid(
            "a plugin is sent with the content type `application/wasm`",
        ));
    }
    // Held while the body arrives and is checked: few uploads at a time bound what they hold together.
    let _permit = shared.uploads.acquire().await.expect("the semaphore is never closed");
    let Body(bytes) = <Body as axum::extract::FromRequest<()>>::from_request(request, &()).await?;
    let driver = &shared.driver;
    let decided = blocking(driver, move |driver| store(driver, &bytes)).await?;
    let Reply::Installed { digest, already } = decided.reply else {
        return Err(Refusal::panicked());
    };
    let found = driver
        .read_durable(|state| state.plugin(digest).map(read::plugin))
        .await?;
    let plugin = found.ok_or_else(|| Refusal::not_found(format!("plugin {digest}")))?;
    let status = if already { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(plugin)))
}

/// The body limit of an upload.
pub(crate) fn limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(skep_rules::limits::MAX_UPLOAD_BYTES)
}

/// Checks a file, keeps it, and only then names it: a record never points at bytes that are not there.
fn store(driver: &Driver, bytes: &[u8]) -> Result<crate::driver::Decided, crate::driver::Error> {
    let plugin =
        skep_runtime::plugin::read(bytes).map_err(|refused| Rejection::new(refused.reason, refused.message))?;
    driver.store.blobs().put(bytes)?;
    driver.accept(|_, _, _| {
        Ok(Command::InstallPlugin {
            plugin: Record {
                digest: plugin.digest,
                manifest: plugin.manifest,
                exports: plugin.exports,
                imports: plugin.imports,
                size: Size(plugin.size),
                installed_at: Time(0),
                revision: 0,
                signed: None,
            },
            by: ADMIN.to_owned(),
            signed: None,
            consent: Consent::default(),
        })
    })
}

/// Which plugins.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Where the page before ended.
    #[param(value_type = Option<String>)]
    after: Option<Digest>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// List the installed plugins, by digest.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", params(ListQuery),
    responses((status = 200, body = Page<Plugin>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<Plugin>>> {
    let limit = page_size(query.limit)?;
    let page = shared.driver.read_durable(|state| {
        let mut plugins = state
            .plugins()
            .filter(|plugin| query.after.is_none_or(|after| plugin.digest > after));
        let items: Vec<_> = plugins.by_ref().take(limit).map(read::plugin).collect();
        let next = plugins.next().and(items.last()).map(|plugin| plugin.digest.to_string());
        Page { items, next }
    });
    Ok(Json(page.await?))
}

/// Read a plugin. A name may also be written with its slash: `/v1/plugins/skep/echo@0.1.0`.
#[utoipa::path(get, path = "/v1/plugins/{reference}", tag = "plugins",
    params(("reference" = String, Path, description = "Digest, unique prefix of one, or `publisher/name@version` with the slash encoded")),
    responses((status = 200, body = Plugin), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(State(shared): State<Arc<Shared>>, Path(reference): Path<String>) -> Answer<Json<Plugin>> {
    find(&shared.driver, &reference).await
}

/// [`show`] with the slash of the name unencoded.
pub(crate) async fn show_named(
    State(shared): State<Arc<Shared>>,
    Path((publisher, name)): Path<(String, String)>,
) -> Answer<Json<Plugin>> {
    find(&shared.driver, &format!("{publisher}/{name}")).await
}

async fn find(driver: &Driver, reference: &str) -> Answer<Json<Plugin>> {
    let what = format!("plugin `{}`", reference.chars().take(120).collect::<String>());
    let named = reference.parse::<PluginRef>();
    let prefix = reference.strip_prefix("sha256:").unwrap_or(reference);
    if named.is_err() && !(4..64).contains(&prefix.len()) {
        return Err(Refusal::new(
            Reason::NotFound,
            format!("there is no {what}: give `publisher/name@version` or a digest"),
        ));
    }
    let found = driver.read_durable(|state| {
        let meant = |plugin: &&Record| match &named {
            Ok(reference) => plugin.answers_to(reference),
            Err(_) => plugin.digest.to_string().starts_with(prefix),
        };
        crate::http::extract::only(state.plugins().filter(meant).map(read::plugin), what)
    });
    Ok(Json(found.await??))
}
