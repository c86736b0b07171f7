//! `/v1/events`

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{self, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use skep_rules::{id::CrewId, reason::Reason};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::{
    driver::Driver,
    feed::Place,
    host::Shared,
    http::{
        api::{event::Event, problem::Problem},
        extract::{self, Query},
        problem::{Answer, Refusal},
    },
};

/// Events taken from the ring at a time.
const BATCH: usize = 256;
/// A sign of life on a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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
    let driver = Arc::clone(&shared.driver);
    let (crew, _) = driver.read(|state| {
        query
            .crew
            .as_deref()
            .map(|crew| extract::crew(state, Some(crew)))
            .transpose()
    })?;
    let crew = crew?;
    let permit = Arc::clone(&shared.watchers).try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::new(Reason::Overloaded, "too many streams are open"))?;
    let newest = driver.feed.watch();
    let place = match headers.get("last-event-id") {
        Some(id) => id
            .to_str()
            .ok()
            .and_then(parse)
            .ok_or_else(|| Refusal::invalid("`Last-Event-ID` is `position.index`"))?,
        None => *newest.borrow(),
    };
    if driver.feed.read(place, 1).is_err() {
        return Err(Refusal::gone(
            "the events behind this one are no longer kept; read the state anew and follow from now",
        ));
    }
    let watcher = Watcher {
        driver,
        newest,
        place,
        crew,
        taken: VecDeque::new(),
        gone: false,
        _permit: permit,
    };
    Ok(Sse::new(stream::unfold(watcher, Watcher::next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// `position.index`, or `position` for behind all of it.
fn parse(id: &str) -> Option<Place> {
    match id.split_once('.') {
        Some((position, index)) => Some((position.parse().ok()?, index.parse().ok()?)),
        None => Some((id.parse().ok()?, u32::MAX)),
    }
}

/// One stream.
struct Watcher {
    driver: Arc<Driver>,
    newest: watch::Receiver<Place>,
    place: Place,
    crew: Option<CrewId>,
    taken: VecDeque<Event>,
    gone: bool,
    /// Its seat among the bounded number of streams.
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<sse::Event, Infallible>, Self)> {
        loop {
            while let Some(event) = self.taken.pop_front() {
                self.place = (event.position, event.index);
                if self.crew.is_none() || event.crew == self.crew {
                    return Some((Ok(line(&event)), self));
                }
            }
            if self.gone {
                return None;
            }
            self.newest.borrow_and_update();
            match self.driver.feed.read(self.place, BATCH) {
                Ok(events) if events.is_empty() => {}
                Ok(events) => {
                    self.taken = events.into();
                    continue;
                }
                Err(_) => {
                    self.gone = true;
                    return Some((Ok(sse::Event::default().event("gone").data("{}")), self));
                }
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = self.driver.stopping.cancelled() => return None,
                () = self.driver.failed.cancelled() => return None,
            }
        }
    }
}

fn line(event: &Event) -> sse::Event {
    let data = serde_json::to_string(event).expect("an event is made of texts and numbers");
    sse::Event::default()
        .id(format!("{}.{}", event.position, event.index))
        .event(event.kind.name())
        .data(data)
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
