//! `/v1/state`: the state of crews, to be read only. What agents read and write is theirs.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Deserialize;
use skep_rules::{
    facts::{Replaced, old_value_key, value_key},
    id::Name,
    limits::STATE_HISTORY,
    plan::Payload,
    step::Value,
};
use skep_store::Range;

use super::blocking;
use crate::{
    driver::{Driver, Error, REPLACED, STATE, decode},
    host::Shared,
    http::{
        api::{
            Page, content,
            problem::Problem,
            state::{Entry, Key, Version},
        },
        extract::{Query, page_size},
        problem::{Answer, Refusal},
    },
};

/// Which keys.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Those that begin so.
    #[serde(default)]
    prefix: String,
    /// Where the page before ended.
    after: Option<String>,
    /// At most so many, 100 when absent.
    limit: Option<usize>,
}

/// List the keys of a crew's state.
#[utoipa::path(get, path = "/v1/state/{crew}", tag = "state", params(("crew" = String, Path, description = "The name of the crew; it need not live any more"), ListQuery),
    responses((status = 200, body = Page<Key>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(crew): Path<String>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<Key>>> {
    let limit = page_size(query.limit)?;
    let name = name(&crew)?;
    let after = query.after.as_ref().map(|after| value_key(&name, after));
    let prefix = value_key(&name, &query.prefix);
    let skip = value_key(&name, "").len();
    let page = read(&shared.driver, name, move |driver| {
        let mut range = Range::prefix(&prefix);
        if let Some(after) = after.filter(|after| *after >= prefix) {
            range = range.after(&after);
        }
        let mut rows = driver.store.scan(STATE, &range, limit + 1)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let items = rows.iter().map(|(key, row)| {
            let value: Value = decode(row)?;
            let key = key.get(skip..).and_then(|key| std::str::from_utf8(key).ok());
            let key = key.ok_or_else(|| Error::Undecodable("a key of the state".to_owned()))?;
            Ok(Key {
                key: key.to_owned(),
                revision: value.revision,
                at: value.at,
                bytes: value.bytes.len() as u64,
            })
        });
        let items = items.collect::<Result<Vec<_>, Error>>()?;
        let next = items.last().filter(|_| more).map(|item| item.key.clone());
        Ok(Page { items, next })
    });
    Ok(Json(page.await?))
}

/// Which revision.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowQuery {
    /// The newest when absent.
    revision: Option<u64>,
}

/// Read a value of a crew's state: the newest, or an older one while it is kept (64 revisions, 24 hours).
#[utoipa::path(get, path = "/v1/state/{crew}/{key}", tag = "state",
    params(("crew" = String, Path, description = "The name of the crew; it need not live any more"), ("key" = String, Path, description = "The key, slashes encoded"), ShowQuery),
    responses((status = 200, body = Entry), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path((crew, key)): Path<(String, String)>,
    Query(query): Query<ShowQuery>,
) -> Answer<Json<Entry>> {
    let name = name(&crew)?;
    let now = shared.driver.clock.now();
    let what = match query.revision {
        Some(revision) => format!("revision {revision} of the key `{key}`"),
        None => format!("key `{key}`"),
    };
    let (row, old) = (value_key(&name, &key), old_value_key(&name, &key, query.revision));
    let found = read(&shared.driver, name, move |driver| {
        let newest: Option<Value> = driver.row(STATE, &row)?;
        let Some(revision) = query.revision else {
            return Ok(newest);
        };
        if let Some(newest) = newest.filter(|newest| newest.revision == revision) {
            return Ok(Some(newest));
        }
        let old: Option<Replaced> = driver.row(REPLACED, &old)?;
        Ok(old.filter(|old| old.until > now).map(|old| old.value))
    });
    let value = found.await?.ok_or_else(|| Refusal::not_found(what))?;
    Ok(Json(Entry {
        key,
        value: content::to_json(&Payload::Inline(value.bytes)),
        revision: value.revision,
        at: value.at,
    }))
}

/// List the revisions of a key that can be read, the newest first.
#[utoipa::path(get, path = "/v1/state/{crew}/{key}/history", tag = "state",
    params(("crew" = String, Path, description = "The name of the crew; it need not live any more"), ("key" = String, Path, description = "The key, slashes encoded")),
    responses((status = 200, description = "At most 65 of them", body = Page<Version>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn history(
    State(shared): State<Arc<Shared>>,
    Path((crew, key)): Path<(String, String)>,
) -> Answer<Json<Page<Version>>> {
    let name = name(&crew)?;
    let now = shared.driver.clock.now();
    let what = format!("key `{key}`");
    let (row, old) = (value_key(&name, &key), old_value_key(&name, &key, None));
    let versions = read(&shared.driver, name, move |driver| {
        let newest: Option<Value> = driver.row(STATE, &row)?;
        let version = |value: Value, newest| Version {
            revision: value.revision,
            at: value.at,
            newest,
        };
        let mut versions: Vec<Version> = newest.map(|value| version(value, true)).into_iter().collect();
        let kept = usize::try_from(STATE_HISTORY).unwrap_or(usize::MAX);
        for (_, row) in driver.store.scan(REPLACED, &Range::prefix(&old).reversed(), kept)? {
            let old: Replaced = decode(&row)?;
            if old.until > now {
                versions.push(version(old.value, false));
            }
        }
        Ok(versions)
    });
    let items = versions.await?;
    if items.is_empty() {
        return Err(Refusal::not_found(what));
    }
    Ok(Json(Page { items, next: None }))
}

/// The name of a crew. Keys hold no zero byte and no name does, so one crew's keys are never another's.
fn name(text: &str) -> Answer<Name> {
    text.parse()
        .map_err(|_| Refusal::not_found(format!("crew `{}`", text.chars().take(80).collect::<String>())))
}

/// Reads tables, and waits until what was read is durable. A crew without state has none to be read.
async fn read<T: Send + 'static>(
    driver: &Arc<Driver>,
    name: Name,
    work: impl FnOnce(&Driver) -> Result<T, Error> + Send + 'static,
) -> Answer<T> {
    let (found, position) = blocking(driver, move |driver| {
        let (known, _) = driver.read(|state| state.namespace(&name).is_some())?;
        let found = match known {
            true => Some(work(driver)?),
            false => None,
        };
        // Read last: all that was seen was decided before.
        let ((), position) = driver.read(|_| ())?;
        Ok((found.ok_or(name), position))
    })
    .await?;
    driver.store.wait(position).await?;
    found.map_err(|name| Refusal::not_found(format!("state of a crew `{name}`")))
}
