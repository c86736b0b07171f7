//! `/v1/plugins`

use std::sync::Arc;

use axum::{
    Json,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use skep_rules::{
    agent::Phase,
    command::Command,
    crew::PluginRef,
    id::{Digest, PluginName},
    limits::MAX_COMPONENT_BYTES,
    plugin::Plugin as Record,
    reason::Reason,
    rejection::Rejection,
    state::State as Records,
    trust::Revocation,
};

use super::{blocking, owned, upload};
use crate::{
    driver::{ADMIN, Driver, Error},
    host::Shared,
    http::{
        api::{
            Page,
            plugin::{Checked, Difference, Plugin, Revoke, Revoked},
            problem::Problem,
        },
        extract::{self, Body, Query, page_size},
        problem::{Answer, Refusal},
    },
    install::{self, Agreed, Vetted},
    perform, read,
};

/// How an upload is meant.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstallQuery {
    /// Only say what would become of it and what a person has to agree to; nothing is compiled or installed.
    #[serde(default)]
    check: bool,
}

/// The form of an upload, for the description of the API.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes; `upload` reads the fields one by one")]
pub(crate) struct UploadForm {
    /// The file, at most 16 MiB.
    #[schema(format = Binary)]
    component: String,
    /// Its envelope, at most 64 KiB.
    #[schema(format = Binary)]
    signature: Option<String>,
    /// The publisher's name as a person typed it: needed for the first plugin of a publisher.
    publisher: Option<String>,
    /// `FROM..TO`: the digests of what is installed and of this file, when a person has agreed that it asks for more.
    approve: Option<String>,
    /// Why an older release than the newest one seen is wanted.
    downgrade: Option<String>,
}

/// Install a plugin: a component with its manifest embedded, and its envelope. The same file again changes nothing.
///
/// Nothing of the file is read before a trusted key's signature over its digest holds. With `check` the answer is what would be installed, and
/// what a person has to agree to before.
#[utoipa::path(post, path = "/v1/plugins", tag = "plugins", params(InstallQuery),
    request_body(content = UploadForm, content_type = "multipart/form-data", description = "At most 20 MiB"),
    responses((status = 201, description = "Installed, durable", body = Plugin), (status = 200, description = "It was there; with `check`, a `Checked`", body = Plugin),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn install(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<InstallQuery>,
    request: axum::extract::Request,
) -> Answer<axum::response::Response> {
    use axum::response::IntoResponse as _;

    // Held until the upload is dealt with, whether or not anybody waits for the answer: few at a time bound what they hold together.
    let permit = shared.uploads.enter().await;
    let upload = upload::read(request).await?;
    let agreed = if query.check { Agreed::All } else { Agreed::Said };
    let vetted = blocking(&shared.driver, move |driver| {
        install::vet(driver, upload, agreed).inspect_err(|error| install::note(driver, "an upload", error))
    })
    .await?;
    if query.check {
        return Ok(Json(checked(&shared, &vetted).await?).into_response());
    }
    let turn = shared.uploads.queue(vetted.plugin.manifest.plugin.name.publisher())?;
    let on = Arc::clone(&shared);
    let (status, plugin) = owned(&shared.driver, async move {
        let _held = (permit, turn);
        accept(&on, vetted).await
    })
    .await?;
    Ok((status, Json(plugin)).into_response())
}

/// What a person has to agree to.
async fn checked(shared: &Shared, vetted: &Vetted) -> Answer<Checked> {
    let plugin = &vetted.plugin;
    let checked = shared.driver.read_durable(|state| {
        let installed = state
            .plugin(plugin.digest)
            .is_some_and(|known| known.signed.is_some() || vetted.signed.is_none());
        Checked {
            plugin: read::plugin(state, plugin),
            installed,
            first_contact: vetted.signed.is_some() && !installed && state.is_first_contact(plugin),
            update: state
                .newest(plugin)
                .filter(|_| !installed)
                .map(|before| read::difference(before, plugin)),
        }
    });
    Ok(checked.await?)
}

/// Compiles, keeps and names what was found good so far.
async fn accept(shared: &Arc<Shared>, vetted: Vetted) -> Answer<(StatusCode, Plugin)> {
    let about = vetted.plugin.manifest.plugin.clone();
    let what = format!("{}@{}", about.name, about.version);
    let tier = vetted.plugin.manifest.limits.tier.unwrap_or_default();
    let digest = vetted.plugin.digest;
    let publisher = about.name.publisher();
    let compiled = tokio::select! {
        compiled = shared.runner.compile(publisher, tier, digest, vetted.component()) => compiled,
        // What the compiler leaves behind is removed at the next start.
        () = shared.driver.stopping.cancelled() => return Err(Error::Stopping.into()),
    };
    let on = Arc::clone(shared);
    let installed = blocking(&shared.driver, move |driver| {
        let installed = match compiled {
            Ok(()) => vetted.install(driver, &on.place),
            Err(refused) => Err(Rejection::from(refused).into()),
        };
        installed.inspect_err(|error| install::note(driver, &what, error))
    })
    .await?;
    shared.driver.store.wait(installed.position).await?;
    let on = Arc::clone(shared);
    blocking(&shared.driver, move |driver| on.place.settle(driver, digest)).await?;
    let found = shared
        .driver
        .read_durable(|state| state.plugin(digest).map(|plugin| read::plugin(state, plugin)))
        .await?;
    let plugin = found.ok_or_else(|| Refusal::not_found(format!("plugin sha256:{digest}")))?;
    let status = if installed.already {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, plugin))
}

/// The body limit of an upload.
pub(crate) fn limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(skep_rules::limits::MAX_UPLOAD_BYTES)
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
        let items: Vec<_> = plugins
            .by_ref()
            .take(limit)
            .map(|plugin| read::plugin(state, plugin))
            .collect();
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
    let found = driver.read_durable(|state| meant(state, reference).map(|plugin| read::plugin(state, plugin)));
    Ok(Json(found.await??))
}

/// The one plugin that a reference means.
fn meant<'a>(state: &'a Records, reference: &str) -> Result<&'a Record, Rejection> {
    let what = format!("plugin `{}`", reference.chars().take(120).collect::<String>());
    let named = reference.parse::<PluginRef>();
    let prefix = reference.strip_prefix("sha256:").unwrap_or(reference);
    if named.is_err() && !(4..64).contains(&prefix.len()) {
        let message = format!("there is no {what}: give `publisher/name@version` or a digest");
        return Err(Rejection::new(Reason::NotFound, message));
    }
    let fits = |plugin: &&Record| match &named {
        Ok(reference) => plugin.answers_to(reference),
        Err(_) => plugin.digest.to_string().starts_with(prefix),
    };
    extract::only(state.plugins().filter(fits), what)
}

/// Remove a plugin that no crew uses. That it was there, and its number, stay known.
#[utoipa::path(delete, path = "/v1/plugins/{reference}", tag = "plugins",
    params(("reference" = String, Path, description = "Digest, unique prefix of one, or `publisher/name@version` with the slash encoded")),
    responses((status = 200, description = "Removed, durable; as it was", body = Plugin), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(State(shared): State<Arc<Shared>>, Path(reference): Path<String>) -> Answer<Json<Plugin>> {
    let Json(plugin) = find(&shared.driver, &reference).await?;
    let (on, digest) = (Arc::clone(&shared), plugin.digest);
    owned(&shared.driver, async move {
        let place = Arc::clone(&on);
        let position = blocking(&on.driver, move |driver| place.place.remove(driver, digest)).await?;
        on.driver.store.wait(position).await?;
        let place = Arc::clone(&on);
        blocking(&on.driver, move |driver| place.place.settle(driver, digest)).await
    })
    .await?;
    Ok(Json(plugin))
}

/// Revoke a plugin at once: what runs of it is ended and does not run again. There is no way back.
///
/// With `below` all releases of the plugin under that number are revoked, also those that are not installed; the reference may then be a bare
/// `publisher/name`. A whole digest is revoked whether or not its file is installed.
#[utoipa::path(post, path = "/v1/plugins/{reference}/revoke", tag = "plugins",
    params(("reference" = String, Path, description = "Digest, unique prefix of one, or `publisher/name@version` with the slash encoded")),
    request_body = Revoke,
    responses((status = 200, description = "Revoked, durable", body = Revoked), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Path(reference): Path<String>,
    body: Body,
) -> Answer<Json<Revoked>> {
    let Revoke { reason, below } = body.json()?;
    let what = |state: &Records| {
        let digits = reference.strip_prefix("sha256:").unwrap_or(&reference);
        match (below, reference.parse::<PluginName>(), digits.parse::<Digest>()) {
            (Some(minimum), Ok(plugin), _) => Ok(Revocation::Below { plugin, minimum }),
            (Some(minimum), Err(_), _) => meant(state, &reference).map(|plugin| Revocation::Below {
                plugin: plugin.manifest.plugin.name.clone(),
                minimum,
            }),
            (None, _, Ok(digest)) => Ok(Revocation::Digest(digest)),
            (None, _, Err(_)) => meant(state, &reference).map(|plugin| Revocation::Digest(plugin.digest)),
        }
    };
    Ok(Json(revoked(&shared, what, reason).await?))
}

/// Revokes something, and says what that has done.
pub(super) async fn revoked(
    shared: &Shared,
    what: impl FnOnce(&Records) -> Result<Revocation, Rejection>,
    why: String,
) -> Answer<Revoked> {
    let mut named = None;
    let decided = shared.driver.decide(Vec::new(), |state, _, _| {
        let what = what(state)?;
        named = Some(what.clone());
        Ok(Command::Revoke {
            what,
            why,
            by: ADMIN.to_owned(),
        })
    })?;
    shared.driver.store.wait(decided.position).await?;
    let (subject, below) = match named.ok_or_else(Refusal::panicked)? {
        Revocation::Key(key) => (key.to_string(), None),
        Revocation::Digest(digest) => (format!("sha256:{digest}"), None),
        Revocation::Publisher(name) => (name.to_string(), None),
        Revocation::Below { plugin, minimum } => (plugin.to_string(), Some(minimum)),
    };
    let revoked = shared.driver.read_durable(|state| Revoked {
        subject,
        below,
        plugins: state
            .plugins()
            .filter(|plugin| state.is_void(plugin.digest))
            .map(|plugin| plugin.manifest.plugin.name.clone())
            .collect(),
        agents: state.agents().filter(|agent| agent.phase == Phase::Quarantined).count() as u64,
    });
    Ok(revoked.await?)
}

/// Fetch the file of a plugin: the bytes that were signed.
#[utoipa::path(get, path = "/v1/plugins/{reference}/component", tag = "plugins",
    params(("reference" = String, Path, description = "Digest, unique prefix of one, or `publisher/name@version` with the slash encoded")),
    responses((status = 200, body = Vec<u8>, content_type = "application/wasm"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn component(
    State(shared): State<Arc<Shared>>,
    Path(reference): Path<String>,
) -> Answer<axum::response::Response> {
    use axum::{http::header, response::IntoResponse as _};

    let Json(plugin) = find(&shared.driver, &reference).await?;
    let bytes = blocking(&shared.driver, move |driver| {
        let length = usize::try_from(MAX_COMPONENT_BYTES).unwrap_or(usize::MAX);
        Ok(driver.store.blobs().read(perform::blob(plugin.digest), 0, length)?)
    });
    Ok(([(header::CONTENT_TYPE, "application/wasm")], bytes.await?).into_response())
}

/// Which two releases.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiffQuery {
    /// The release before: digest, unique prefix of one, or `publisher/name@version`. The newest other release when absent.
    from: Option<String>,
}

/// Compare what two releases ask for and offer.
#[utoipa::path(get, path = "/v1/plugins/{reference}/diff", tag = "plugins",
    params(("reference" = String, Path, description = "The release after: digest, unique prefix of one, or `publisher/name@version` with the slash encoded"), DiffQuery),
    responses((status = 200, body = Difference), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn diff(
    State(shared): State<Arc<Shared>>,
    Path(reference): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Answer<Json<Difference>> {
    let found = shared.driver.read_durable(|state| {
        let to = meant(state, &reference)?;
        let from = match &query.from {
            Some(from) => meant(state, from)?,
            None => {
                let what = || format!("other release of {}", to.manifest.plugin.name);
                state.newest(to).ok_or_else(|| Rejection::not_found(what()))?
            }
        };
        Ok::<_, Error>(read::difference(from, to))
    });
    Ok(Json(found.await??))
}
