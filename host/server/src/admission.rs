//! Whether a host takes anything new just now: not while its disk is nearly full, nor while the disk is far behind. What was accepted before goes
//! on in both cases, on the room that is left to it here. How many tasks, crews and agents there may be is for the rules to say.

use std::sync::atomic::Ordering;

use skep_rules::{limits::MAX_BACKLOG_BYTES, reason::Reason, rejection::Rejection};

use crate::driver::Driver;

impl Driver {
    /// Lets something new in. Ask before its decision, of all that clients submit.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] while there is no room.
    pub(crate) fn admit(&self) -> Result<(), Rejection> {
        let message = if self.low_space.load(Ordering::Relaxed) {
            "the disk of the data directory is nearly full; nothing new is accepted until there is space"
        } else if self.store.waiting_bytes() > MAX_BACKLOG_BYTES {
            "the disk is behind with what was accepted; nothing new is accepted until it has caught up"
        } else {
            return Ok(());
        };
        Err(Rejection::new(Reason::Overloaded, message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};

    use skep_rules::{command::Command, shard::Shard};
    use skep_store::{
        Memory, Options, Position, Store,
        engine::{Commit, Engine, Snapshot},
    };

    use super::*;
    use crate::{clock::Clock, driver::Error};

    /// An engine over memory whose commits wait while it is stalled.
    #[derive(Debug, Default)]
    struct Stalled {
        memory: Memory,
        stalled: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Engine for Stalled {
        fn snapshot(&self) -> Result<Box<dyn Snapshot>, skep_store::Error> {
            self.memory.snapshot()
        }

        fn commit(&self, commit: &Commit<'_>) -> Result<(), skep_store::Error> {
            let (stalled, changed) = &*self.stalled;
            drop(changed.wait_while(stalled.lock().unwrap(), |stalled| *stalled).unwrap());
            self.memory.commit(commit)
        }
    }

    fn driver(engine: Stalled) -> Driver {
        let (store, _) = Store::with_engine(engine, Options::default()).unwrap();
        let handle = tokio::runtime::Handle::current();
        Driver::new(Shard::default(), store, Clock::system(), handle, true)
    }

    /// The largest entry of the audit log that anybody can ask for.
    fn note() -> Command {
        Command::NoteRefusal {
            reason: Reason::Modified,
            detail: "x".repeat(4 << 10),
            by: "tests".to_owned(),
        }
    }

    fn refused(driver: &Driver, why: &str) -> bool {
        match driver.accept(|_, _, _| Ok(note())) {
            Ok(_) => false,
            Err(Error::Rejected(rejection)) => {
                assert_eq!(rejection.reason, Reason::Overloaded);
                assert!(rejection.message.contains(why), "{rejection}");
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_takes_nothing_new() {
        let driver = driver(Stalled::default());
        assert!(!refused(&driver, ""));
        driver.low_space.store(true, Ordering::Relaxed);
        assert!(refused(&driver, "nearly full"));
        // What was accepted may still end.
        driver.decide(Vec::new(), |_, _, _| Ok(note())).unwrap();
        driver.low_space.store(false, Ordering::Relaxed);
        assert!(!refused(&driver, ""));
    }

    #[tokio::test]
    async fn a_disk_that_is_behind_takes_nothing_new_until_it_has_caught_up() {
        let engine = Stalled::default();
        let stalled = Arc::clone(&engine.stalled);
        let driver = driver(engine);
        *stalled.0.lock().unwrap() = true;
        let mut taken = 0;
        while !refused(&driver, "behind") {
            taken += 1;
            assert!(taken < 20_000, "the bound is never reached");
        }
        // Ten times as much is offered; nothing of it is kept.
        let kept = driver.store.waiting_bytes();
        assert!(kept <= MAX_BACKLOG_BYTES + (8 << 10), "{kept}");
        for _ in 0..10 * taken {
            assert!(refused(&driver, "behind"));
        }
        assert_eq!(driver.store.waiting_bytes(), kept);
        // What was accepted may still end.
        let last = driver.decide(Vec::new(), |_, _, _| Ok(note())).unwrap().position;
        assert!(driver.store.durable() < Position(taken));

        *stalled.0.lock().unwrap() = false;
        stalled.1.notify_all();
        driver.store.wait(last).await.unwrap();
        assert_eq!(last, Position(taken + 1));
        assert!(!refused(&driver, ""));
    }
}
