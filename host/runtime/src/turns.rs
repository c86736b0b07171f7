//! Whose turn it is to compile: a few components at a time on this host, and one at a time for whoever asks. Knows nothing of compiling.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// The queues.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// One queue per name that has a turn or waits for one; the others are dropped when the next comes. Locked for a look.
    each: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to compile; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedMutexGuard<()>,
}

impl Turns {
    /// At most so many turns at a time.
    pub(crate) fn new(most: usize) -> Self {
        Turns {
            all: Arc::new(Semaphore::new(most)),
            each: Mutex::default(),
        }
    }

    /// Waits for a turn. Who waits for an earlier one of their own keeps nobody else waiting.
    pub(crate) async fn take(&self, name: &str) -> Turn {
        let own = {
            let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds or awaits a queue has a clone of it.
            each.retain(|_, queue| Arc::strong_count(queue) > 1);
            each.entry(name.to_owned()).or_default().clone()
        };
        let _own = own.lock_owned().await;
        let all = self.all.clone().acquire_owned().await;
        Turn {
            _all: all.expect("the semaphore is never closed"),
            _own,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_at_a_time_for_each_and_a_few_for_all() {
        let turns = Turns::new(2);
        let now = |name| turns.take(name).now_or_never();
        let first = now("a").expect("nobody else is there");
        assert!(now("a").is_none(), "one at a time");
        let second = now("b").expect("another has a turn of its own");
        assert!(now("c").is_none(), "two are enough");
        drop(first);
        assert!(now("c").is_some());
        let mut waits = Box::pin(turns.take("b"));
        assert!(waits.as_mut().now_or_never().is_none());
        let third = now("a").expect("who waits for their own holds no place");
        drop(third);
        drop(second);
        assert!(waits.now_or_never().is_some());
        drop(now("d"));
        assert!(
            turns.each.lock().unwrap().len() <= 1,
            "queues that nobody is in are dropped"
        );
    }
}
