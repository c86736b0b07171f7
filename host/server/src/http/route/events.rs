//! `/v1/events`

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{self, Sse},
};
use futures_util::Stream;
use serde::Deserialize;
use skep_rules::id::CrewId;

use super::stream::{self, Follow, Gone, Place};
use crate::{
    driver::Driver,
    host::Shared,
    http::{
        api::{event::Event, problem::Problem},
        extract::{self, Query},
        problem::{Answer, Refusal},
    },
};

/// Events taken from the ring at a time.
const BATCH: usize = 256;

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamQuery {
    /// Of one crew: id, unique prefix or name.
    crew: Option<String>,
}

/// Follow what happens, as server-sent events. Only what is durable is told.
///
/// Without `Last-Event-ID` the stream begins now, with it behind that event; where the events behind it are no longer kept, or the host was
/// started since, the answer is 410: read the state anew and begin now. A stream that falls too far behind ends with an event `gone`.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(StreamQuery, ("Last-Event-ID" = Option<String>, Header, description = "`position.index` of the last event seen")),
    responses((status = 200, description = "`id: position.index`, `event: kind`, `data: Event`", body = Event, content_type = "text/event-stream"),
        (status = 410, description = "The events behind are gone", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn stream(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Answer<Sse<sse::KeepAliveStream<impl Stream<Item = Result<sse::Event, Infallible>> + use<>>>> {
    let driver = &shared.driver;
    let (crew, _) = driver.read(|state| {
        query
            .crew
            .as_deref()
            .map(|crew| extract::crew(state, Some(crew)))
            .transpose()
    })?;
    let crew = crew?;
    let newest = driver.feed.watch();
    let place = match headers.get("last-event-id") {
        Some(id) => id
            .to_str()
            .ok()
            .and_then(parse)
            .ok_or_else(|| Refusal::invalid("`Last-Event-ID` is `position.index`"))?,
        None => *newest.borrow(),
    };
    let gone = "the events behind this one are no longer kept; read the state anew and follow from now";
    stream::begin(&shared, newest, place, Events { crew }, gone)
}

/// `position.index`, or `position` for behind all of it.
fn parse(id: &str) -> Option<Place> {
    match id.split_once('.') {
        Some((position, index)) => Some((position.parse().ok()?, index.parse().ok()?)),
        None => Some((id.parse().ok()?, u32::MAX)),
    }
}

/// What happens, in one crew or in all.
struct Events {
    crew: Option<CrewId>,
}

impl Follow for Events {
    type Item = Event;

    fn read(&mut self, driver: &Driver, after: Place) -> Result<Vec<(Place, Event)>, Gone> {
        let events = driver.feed.read(after, BATCH).map_err(|_| Gone)?;
        let placed = |event: Event| ((event.position, event.index), event);
        Ok(events.into_iter().map(placed).collect())
    }

    fn tell(&self, _: &Driver, _: Place, event: Event) -> Option<sse::Event> {
        let told = self.crew.is_none() || event.crew == self.crew;
        let data = serde_json::to_string(&event).expect("an event is made of texts and numbers");
        told.then(|| sse::Event::default().event(event.kind.name()).data(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_a_place() {
        assert_eq!((parse("7.2"), parse("7")), (Some((7, 2)), Some((7, u32::MAX))));
        for bad in ["", "x", "7.", "7.x", "-1", "7.2.1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
