//! The one place that reads clocks and draws randomness. Everything else is given the time.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use skep_rules::quantity::{Millis, Time};
use tokio::sync::watch;

/// Where a host takes its time from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's: the wall clock as it was when the host started, moved on by the monotonic one, so it never goes back.
    System {
        /// The wall clock at the start.
        start: Time,
        /// The monotonic clock at the start.
        since: Instant,
    },
    /// Stands still until a test moves it.
    Manual(Arc<watch::Sender<Time>>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn system() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock::System {
            start: Time(millis(wall)),
            since: Instant::now(),
        }
    }

    /// A clock that stands at `time` until [`Clock::advance`].
    #[must_use]
    pub fn manual(time: Time) -> Self {
        Clock::Manual(Arc::new(watch::Sender::new(time)))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        match self {
            Clock::System { start, since } => start.after(Millis(millis(since.elapsed()))),
            Clock::Manual(time) => *time.borrow(),
        }
    }

    /// Moves a manual clock on, and wakes whoever sleeps until then. The machine's is not to be moved.
    pub fn advance(&self, by: Millis) {
        if let Clock::Manual(time) = self {
            time.send_modify(|time| *time = time.after(by));
        }
    }

    /// Sleeps until a point in time; a past one is at once.
    pub async fn sleep_until(&self, until: Time) {
        match self {
            Clock::System { .. } => tokio::time::sleep(until.since(self.now()).duration()).await,
            Clock::Manual(time) => {
                let reached = time.subscribe().wait_for(|now| *now >= until).await.is_ok();
                assert!(reached, "the sender lives in `self`, so the wait cannot be cut short");
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The operating system gave no randomness: nothing can be named or kept secret.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no randomness: {0}")]
pub struct NoRandomness(getrandom::Error);

/// Bytes that nobody can guess.
///
/// # Errors
/// [`NoRandomness`].
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

/// Draws ids (UUIDv7, rising) and seeds. Randomness is fetched in blocks: one system call serves dozens of tasks.
#[derive(Debug)]
pub(crate) struct Draw {
    block: [u8; 1024],
    used: usize,
    /// The last time and the counter within it: ids of one millisecond rise too.
    last: Time,
    counter: u16,
}

impl Draw {
    pub(crate) fn new() -> Self {
        Draw {
            block: [0; 1024],
            used: 1024,
            last: Time(0),
            counter: 0,
        }
    }

    /// A seed.
    pub(crate) fn seed(&mut self) -> Result<u64, NoRandomness> {
        self.take::<8>().map(u64::from_be_bytes)
    }

    /// A UUIDv7: 48 bits of milliseconds, a counter in `rand_a`, then randomness; its last 16 bits will be the shard's.
    pub(crate) fn uuid(&mut self, now: Time) -> Result<u128, NoRandomness> {
        if now > self.last {
            (self.last, self.counter) = (now, 0);
        } else {
            self.counter += 1;
            // 12 bits a millisecond; beyond them the time is borrowed from the next one.
            if self.counter > 0xfff {
                (self.last, self.counter) = (self.last.after(Millis(1)), 0);
            }
        }
        let random = self.take::<8>()?;
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&self.counter.to_be_bytes());
        bytes[2..].copy_from_slice(&random);
        Ok(uuid::Builder::from_unix_timestamp_millis(self.last.0, &bytes)
            .into_uuid()
            .as_u128())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], NoRandomness> {
        if self.used + N > self.block.len() {
            self.block = random()?;
            self.used = 0;
        }
        let bytes = self
            .block
            .get(self.used..self.used + N)
            .and_then(|bytes| bytes.try_into().ok());
        self.used += N;
        Ok(bytes.expect("a block holds more than one draw"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_differ() {
        let mut draw = Draw::new();
        let ids: Vec<u128> = (0..10_000).map(|_| draw.uuid(Time(1_000_000)).unwrap() >> 16).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        let next = draw.uuid(Time(2_000_000)).unwrap();
        assert_eq!((next >> 80, (next >> 76) & 0xf), (2_000_000, 7));
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_it_is_moved() {
        let clock = Clock::manual(Time(5));
        let sleeper = clock.clone();
        let sleep = sleeper.sleep_until(Time(10));
        tokio::pin!(sleep);
        assert!(
            tokio::time::timeout(Duration::from_millis(5), &mut sleep)
                .await
                .is_err()
        );
        clock.advance(Millis(5));
        sleep.await;
        assert_eq!(clock.now(), Time(10));
    }
}
