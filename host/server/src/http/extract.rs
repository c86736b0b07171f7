//! What handlers take: queries and bodies that say where they are wrong, and references to records by id, unique prefix or name.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use skep_rules::{
    crew_record::CrewPhase,
    id::{AgentId, CrewId, Name, TaskId},
    limits::{MAX_PAGE, MAX_WAIT, REQUEST},
    quantity::Millis,
    reason::Reason,
    rejection::Rejection,
    state::State,
};

use super::problem::Refusal;

/// A query without unknown keys.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Query(query)),
            Err(error) => Err(Refusal::invalid(format!("the query: {}", error.body_text()))),
        }
    }
}

/// A body within the limit of its route.
#[derive(Debug)]
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let read = tokio::time::timeout(REQUEST.duration(), Bytes::from_request(request, state));
        match read.await.map_err(|_| Refusal::too_slow())? {
            Ok(bytes) => Ok(Body(bytes)),
            Err(error) if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => Err(Refusal::new(
                Reason::BodyLimit,
                "the body holds more bytes than this route takes",
            )),
            Err(error) => Err(Refusal::invalid(format!("the body: {}", error.body_text()))),
        }
    }
}

impl Body {
    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.0).map_err(|error| Refusal::invalid(format!("the body: {error}")))
    }
}

/// How long to wait for something to end.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// Answer when it has ended, or after so long, for instance `5s`; at most 10 minutes. At once when absent.
    #[param(value_type = Option<String>)]
    #[serde(default)]
    pub(super) wait: Millis,
}

impl Wait {
    pub(super) fn capped(self) -> Millis {
        self.wait.min(MAX_WAIT)
    }
}

/// The revision that a client has read, as `If-Match` says it; `*` is any.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        let message = "`If-Match` is missing: send the `ETag` of the record as it was read";
        return Err(Refusal::new(Reason::PreconditionRequired, message));
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match number.and_then(|number| number.parse().ok()) {
        Some(revision) => Ok(Some(revision)),
        None => Err(Refusal::invalid("`If-Match` is one `ETag` as it was answered, or `*`")),
    }
}

/// How many items a page may have.
pub(super) fn page_size(limit: Option<usize>) -> Result<usize, Refusal> {
    match limit.unwrap_or(MAX_PAGE) {
        limit @ 1..=MAX_PAGE => Ok(limit),
        _ => Err(Refusal::invalid(format!("`limit` is between 1 and {MAX_PAGE}"))),
    }
}

/// The ids that begin with a prefix, as the first and the last of them.
#[derive(Debug, PartialEq)]
pub(super) struct Prefix<T> {
    pub(super) first: T,
    pub(super) last: T,
}

/// An id, or the first digits of one.
pub(super) fn prefix<T>(text: &str, tag: &str) -> Result<Prefix<T>, Refusal>
where
    T: std::str::FromStr<Err = skep_rules::id::Error>,
{
    let digits = text.strip_prefix(tag).map_or(0, str::len);
    let padded = |pad: &str| {
        let missing = if digits == 0 {
            0
        } else {
            32_usize.saturating_sub(digits)
        };
        format!("{text}{}", pad.repeat(missing)).parse::<T>()
    };
    match (padded("0"), padded("f")) {
        (Ok(first), Ok(last)) => Ok(Prefix { first, last }),
        (Err(error), _) | (_, Err(error)) => Err(Refusal::invalid(format!(
            "`{}` is neither {} nor the beginning of one",
            error.text, error.expected
        ))),
    }
}

/// The one record that is meant.
pub(super) fn only<T>(mut found: impl Iterator<Item = T>, what: impl std::fmt::Display) -> Result<T, Rejection> {
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Rejection::not_found(what)),
        (Some(_), Some(_)) => Err(Rejection::invalid(format!(
            "{what}: more than one begins so, give more digits"
        ))),
    }
}

/// The crew that is meant by an id, a unique prefix, a name, or by nothing where there is only one.
pub(super) fn crew(state: &State, text: Option<&str>) -> Result<CrewId, Rejection> {
    let Some(text) = text else {
        let mut live = state.crews().filter(|crew| crew.phase == CrewPhase::Live);
        return match (live.next(), live.next()) {
            (Some(crew), None) => Ok(crew.id),
            (None, _) => Err(Rejection::not_found(
                "crew; assemble one with `POST /v1/crews/assemble`",
            )),
            (Some(_), Some(_)) => Err(Rejection::invalid("there are several crews: say which with `crew`")),
        };
    };
    if let Ok(name) = text.parse::<Name>()
        && let Some(crew) = state.crew_named(&name)
    {
        return Ok(crew.id);
    }
    let what = format!("crew `{}`", text.chars().take(80).collect::<String>());
    let Ok(range) = prefix::<CrewId>(text, CrewId::PREFIX) else {
        return Err(Rejection::not_found(what));
    };
    let crews = state.crews().map(|crew| crew.id);
    only(crews.filter(|id| (range.first..=range.last).contains(id)), what)
}

/// The agent that is meant by an id or a unique prefix.
pub(super) fn agent(state: &State, text: &str) -> Result<AgentId, Refusal> {
    let range = prefix::<AgentId>(text, AgentId::PREFIX)?;
    let agents = state.agents().map(|agent| agent.id);
    let found = only(
        agents.filter(|id| (range.first..=range.last).contains(id)),
        format!("agent `{text}`"),
    );
    Ok(found?)
}

/// The tasks whose ids begin so, of those in memory.
pub(super) fn known_tasks(state: &State, range: &Prefix<TaskId>) -> Vec<TaskId> {
    if range.first == range.last {
        return state.task(range.first).map(|task| task.id).into_iter().collect();
    }
    let tasks = state.tasks().map(|task| task.id);
    tasks
        .chain(state.recent_ids())
        .filter(|id| (range.first..=range.last).contains(id))
        .take(2)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_the_ids_that_begin_so() {
        let range: Prefix<TaskId> = prefix("task_0193", TaskId::PREFIX).unwrap();
        assert_eq!(range.first.to_string(), "task_01930000000000000000000000000000");
        assert_eq!(range.last.to_string(), "task_0193ffffffffffffffffffffffffffff");
        let whole = "task_0193aaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let range: Prefix<TaskId> = prefix(whole, TaskId::PREFIX).unwrap();
        assert_eq!(range.first, range.last);
        for bad in [
            "",
            "task_",
            "agent_01",
            "task_xyz",
            "task_0193aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(prefix::<TaskId>(bad, TaskId::PREFIX).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_revision_is_read_from_its_header() {
        let read = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::IF_MATCH, value.parse().unwrap());
            }
            if_match(&headers).ok()
        };
        for (value, revision) in [
            (Some("\"7\""), Some(Some(7))),
            (Some(" \"7\" "), Some(Some(7))),
            (Some("*"), Some(None)),
            (None, None),
            (Some("7"), None),
            (Some("\"x\""), None),
            (Some("\"1\", \"2\""), None),
            (Some("W/\"7\""), None),
            (Some(""), None),
        ] {
            assert_eq!(read(value), revision, "{value:?}");
        }
    }

    #[test]
    fn nothing_and_too_many_are_told_apart() {
        assert_eq!(only([7].into_iter(), "x"), Ok(7));
        assert_eq!(only([0; 0].into_iter(), "x").unwrap_err().reason, Reason::NotFound);
        assert_eq!(only([1, 2].into_iter(), "x").unwrap_err().reason, Reason::InvalidInput);
    }
}
