//! What the outside may see happening: a bounded ring of durable events, read by streams at their own pace.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use skep_rules::{
    effect::{Changed, Notice},
    limits::MAX_EVENTS,
};
use tokio::sync::watch;

use crate::http::api::event::{Event, Kind};

/// A place in the feed: the position in the journal, and which of its events.
pub(crate) type Place = (u64, u32);

/// The events before the asked place are gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

#[derive(Debug)]
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    /// The place of the newest event: what streams wait on.
    newest: watch::Sender<Place>,
}

#[derive(Debug)]
struct Ring {
    /// As they were decided: most are never read, so what clients see is made for those that are.
    events: VecDeque<(Place, Notice)>,
    /// Everything up to here is not in the ring: what happened before the host started, and what fell out of it.
    floor: Place,
}

impl Feed {
    /// A feed of what happens after a position.
    pub(crate) fn after(position: u64) -> Self {
        let floor = (position, u32::MAX);
        Feed {
            ring: Mutex::new(Ring {
                events: VecDeque::new(),
                floor,
            }),
            newest: watch::Sender::new(floor),
        }
    }

    /// Begins to add what became durable. Whoever takes this while the shard is locked adds in the order of the journal, and may let go of the shard.
    pub(crate) fn begin(&self) -> Adding<'_> {
        Adding {
            ring: self.ring.lock().unwrap_or_else(PoisonError::into_inner),
            newest: &self.newest,
        }
    }

    /// The events after a place, at most `limit`.
    pub(crate) fn read(&self, after: Place, limit: usize) -> Result<Vec<Event>, Gone> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if after < ring.floor {
            return Err(Gone);
        }
        let start = ring.events.partition_point(|(place, _)| *place <= after);
        let events = ring.events.iter().skip(start).take(limit);
        Ok(events.map(|(place, notice)| event(*place, notice)).collect())
    }

    /// Follows the place of the newest event.
    pub(crate) fn watch(&self) -> watch::Receiver<Place> {
        self.newest.subscribe()
    }
}

/// Adds to a feed, which is locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Adding<'a> {
    ring: MutexGuard<'a, Ring>,
    newest: &'a watch::Sender<Place>,
}

impl Adding<'_> {
    /// Adds what became durable at a position; what comes at the same position again goes after it.
    pub(crate) fn push(&mut self, position: u64, notices: Vec<Notice>) {
        let ring = &mut *self.ring;
        let mut place = ring.events.back().map_or(ring.floor, |(place, _)| *place);
        let told = !notices.is_empty();
        for notice in notices {
            place = match place {
                (at, index) if at == position => (position, index.saturating_add(1)),
                _ => (position, 0),
            };
            ring.events.push_back((place, notice));
            if ring.events.len() > MAX_EVENTS
                && let Some((oldest, _)) = ring.events.pop_front()
            {
                ring.floor = oldest;
            }
        }
        if told {
            self.newest.send_replace(place);
        }
    }
}

fn event((position, index): Place, notice: &Notice) -> Event {
    let mut event = Event {
        position,
        index,
        at: notice.at,
        kind: Kind::Plugin,
        to: "changed".to_owned(),
        crew: notice.crew,
        task: None,
        agent: None,
        plugin: None,
        message: None,
        approval: None,
        reason: None,
    };
    match &notice.what {
        Changed::Plugin(digest) => event.plugin = Some(*digest),
        Changed::Trust => event.kind = Kind::Trust,
        Changed::Crew(phase) => {
            event.kind = Kind::Crew;
            event.to = crate::read::crew_phase(*phase).to_owned();
        }
        Changed::Message(message) => {
            event.kind = Kind::Message;
            event.to = "sent".to_owned();
            event.message = Some(*message);
        }
        Changed::Agent { agent, phase } => {
            event.kind = Kind::Agent;
            event.to = phase.to_string();
            event.agent = Some(*agent);
        }
        Changed::Task {
            task,
            state,
            agent,
            reason,
        } => {
            event.kind = Kind::Task;
            event.to = state.to_string();
            event.task = Some(*task);
            event.agent = *agent;
            event.reason = *reason;
        }
        Changed::Approval {
            approval,
            task,
            settled,
        } => {
            event.kind = Kind::Approval;
            event.to = crate::read::settled(*settled).to_owned();
            event.task = Some(*task);
            event.approval = Some(*approval);
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use skep_rules::{id::Digest, quantity::Time};

    use super::*;

    fn notice() -> Notice {
        Notice {
            at: Time(1),
            crew: None,
            what: Changed::Plugin(Digest::of(b"")),
        }
    }

    #[test]
    fn readers_go_on_where_they_were_and_learn_what_is_gone() {
        let feed = Feed::after(7);
        assert_eq!(feed.read((7, u32::MAX), 10), Ok(Vec::new()));
        assert_eq!(feed.read((6, 0), 10), Err(Gone));
        feed.begin().push(9, vec![notice(), notice()]);
        feed.begin().push(10, vec![notice()]);
        let places = |after| {
            let events = feed.read(after, 10).unwrap();
            events
                .iter()
                .map(|event| (event.position, event.index))
                .collect::<Vec<_>>()
        };
        assert_eq!(places((7, u32::MAX)), [(9, 0), (9, 1), (10, 0)]);
        assert_eq!(places((9, 0)), [(9, 1), (10, 0)]);
        assert_eq!(*feed.watch().borrow(), (10, 0));
        for position in 11..=(10 + MAX_EVENTS as u64) {
            feed.begin().push(position, vec![notice()]);
        }
        assert_eq!(feed.read((9, 0), 1), Err(Gone));
        assert_eq!(feed.read((10, 0), 1).unwrap()[0].position, 11);
    }
}
