//! Streams of server-sent events: what is there behind a place, then whatever comes, until the host ends or the reader has fallen too far behind.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{self, KeepAlive, KeepAliveStream, Sse};
use futures_util::{Stream, stream};
use skep_rules::{limits::MAX_WATCHERS, reason::Reason};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::{
    driver::Driver,
    host::Shared,
    http::problem::{Answer, Refusal},
};

/// A sign of life on a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A place in what is followed: the position or the piece, and which of its parts.
pub(super) type Place = (u64, u32);

/// What lies behind a place is no longer kept.
pub(super) struct Gone;

/// What a stream tells.
pub(super) trait Follow: Send + Sized + 'static {
    /// What may be told.
    type Item: Send;

    /// The next of it behind a place, each with its own place; some at a time.
    fn read(&mut self, driver: &Driver, after: Place) -> Result<Vec<(Place, Self::Item)>, Gone>;

    /// What is told of it, if anything is.
    fn tell(&self, driver: &Driver, place: Place, item: Self::Item) -> Option<sse::Event>;

    /// How often to look whether there will be no more, while nothing comes; none where there always may be.
    fn look(&self) -> Option<Duration> {
        None
    }

    /// Whether there will be no more.
    fn has_ended(&self, _: &Driver) -> bool {
        false
    }
}

/// One stream.
struct Watcher<F: Follow> {
    driver: Arc<Driver>,
    newest: watch::Receiver<Place>,
    place: Place,
    follow: F,
    taken: VecDeque<(Place, F::Item)>,
    /// There will be no more, it was said when there was nothing to tell.
    ended: bool,
    /// The last event was told.
    over: bool,
    /// Its seat among the bounded number of streams.
    _permit: OwnedSemaphorePermit,
}

/// Begins a stream behind a place. It ends with an event `gone` when it has fallen too far behind, and with `end` when there will be no more.
///
/// # Errors
/// [`MAX_WATCHERS`] are open; what lies behind the place is no longer kept: `gone` says what to do then.
pub(super) fn begin<F: Follow>(
    shared: &Arc<Shared>,
    newest: watch::Receiver<Place>,
    place: Place,
    mut follow: F,
    gone: &str,
) -> Answer<Sse<KeepAliveStream<impl Stream<Item = Result<sse::Event, Infallible>> + use<F>>>> {
    let driver = Arc::clone(&shared.driver);
    let permit = Arc::clone(&shared.watchers).try_acquire_owned();
    let full = || Refusal::new(Reason::Overloaded, format!("{MAX_WATCHERS} streams are open"));
    let permit = permit.map_err(|_| full())?;
    let taken = follow.read(&driver, place).map_err(|_| Refusal::gone(gone))?.into();
    let watcher = Watcher {
        driver,
        newest,
        place,
        follow,
        taken,
        ended: false,
        over: false,
        _permit: permit,
    };
    Ok(Sse::new(stream::unfold(watcher, Watcher::next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl<F: Follow> Watcher<F> {
    async fn next(mut self) -> Option<(Result<sse::Event, Infallible>, Self)> {
        loop {
            while let Some((place, item)) = self.taken.pop_front() {
                self.place = place;
                if let Some(event) = self.follow.tell(&self.driver, place, item) {
                    return Some((Ok(event.id(format!("{}.{}", place.0, place.1))), self));
                }
            }
            if self.over {
                return None;
            }
            self.newest.borrow_and_update();
            match self.follow.read(&self.driver, self.place) {
                Ok(items) if items.is_empty() && self.ended => {
                    self.over = true;
                    return Some((Ok(sse::Event::default().event("end").data("{}")), self));
                }
                // It is looked at once more: the last of it may come after its end.
                Ok(items) if items.is_empty() => self.ended = self.follow.has_ended(&self.driver),
                Ok(items) => {
                    self.taken = items.into();
                    continue;
                }
                Err(Gone) => {
                    self.over = true;
                    return Some((Ok(sse::Event::default().event("gone").data("{}")), self));
                }
            }
            let period = self.follow.look();
            let look = async {
                match period {
                    Some(period) => tokio::time::sleep(period).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = look => {}
                () = self.driver.stopping.cancelled() => return None,
                () = self.driver.failed.cancelled() => return None,
            }
        }
    }
}
