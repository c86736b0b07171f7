//! How often a guest may call its host. A host call costs host time but no fuel, so a guest that does nothing else is stopped here; the same
//! counter is the evidence of life that heartbeats are made of.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use skep_rules::reason::Reason;

use crate::caps::clocks::Clock;

/// Calls between two looks at the clock: at the highest rate a look is then taken every 5 ms, and it costs nothing per call.
const SLICE: u64 = 1_000;
/// Bytes that a call may move for the price of one call.
const BYTES_PER_CALL: u64 = 16 << 10;
/// Tokens are millionths of a call, so that refilling by microseconds loses nothing to rounding.
const MICRO: u64 = 1_000_000;

/// Ends the attempt from inside a host function. It travels as the error of the call and is found by `downcast_ref`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stop {
    /// Which bound was passed.
    pub(crate) reason: Reason,
    /// For people.
    pub(crate) message: String,
}

impl Stop {
    /// An end for `reason`.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Stop {
            reason,
            message: message.into(),
        }
    }
}

/// What others may see of an attempt while it runs, without touching its store.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Calls into the host so far. Written by the one thread that runs the store, read by whoever makes beats.
    crossings: AtomicU64,
    /// The thread sits in a file operation of the operating system; a watchdog must not take that for a guest that does not yield.
    waiting: AtomicBool,
}

impl Pulse {
    /// Calls into the host so far.
    pub(crate) fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::Relaxed)
    }

    /// Whether the guest's thread waits for the operating system inside a host call.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Says, while it lives, that the thread waits for the operating system.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Pulse>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.store(false, Ordering::Relaxed);
    }
}

/// A token bucket over the host calls of one attempt: so many per second, twice as many in a burst. Some nanoseconds per call.
#[derive(Debug)]
pub(crate) struct Meter {
    pulse: Arc<Pulse>,
    clock: Clock,
    per_second: u64,
    /// Millionths of calls that may still be made without waiting for the clock.
    tokens: u64,
    /// Calls already taken from the tokens and not yet made.
    slice: u64,
    /// When the tokens were last filled up, in microseconds of the clock.
    filled: u64,
}

impl Meter {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, clock: Clock, pulse: Arc<Pulse>) -> Self {
        let per_second = u64::from(per_second);
        Meter {
            pulse,
            clock,
            per_second,
            tokens: 2 * per_second * MICRO,
            slice: 0,
            filled: clock.micros(),
        }
    }

    /// Counts one call that moves `bytes`.
    ///
    /// # Errors
    /// [`Stop`] with `rate-limited` when the burst is used up: the attempt ends. There is no waiting instead, because most of these calls cannot
    /// wait, and a guest that makes 200,000 calls a second has lost its way.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Stop> {
        let crossings = &self.pulse.crossings;
        // One writer: a plain add is enough and is what makes this cheap.
        crossings.store(crossings.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let price = 1 + bytes / BYTES_PER_CALL;
        match self.slice.checked_sub(price) {
            Some(left) => {
                self.slice = left;
                Ok(())
            }
            None => self.refill(price),
        }
    }

    /// Marks the thread as waiting for the operating system until the guard is dropped.
    pub(crate) fn waiting(&self) -> Waiting {
        self.pulse.waiting.store(true, Ordering::Relaxed);
        Waiting(self.pulse.clone())
    }

    #[cold]
    fn refill(&mut self, price: u64) -> Result<(), Stop> {
        let now = self.clock.micros();
        let earned = now.saturating_sub(self.filled).saturating_mul(self.per_second);
        self.filled = now;
        self.tokens = self.tokens.saturating_add(earned).min(2 * self.per_second * MICRO);
        let missing = price - self.slice.min(price);
        let taken = missing.max(SLICE).min(self.tokens / MICRO);
        if taken < missing {
            let message = format!(
                "more than {} host calls per second, for longer than the burst lasts",
                self.per_second
            );
            return Err(Stop::new(Reason::RateLimited, message));
        }
        self.tokens -= taken * MICRO;
        self.slice = self.slice + taken - price;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn meter(per_second: u32) -> (Meter, Arc<Pulse>) {
        let pulse = Arc::new(Pulse::default());
        (Meter::new(per_second, Clock::start(), pulse.clone()), pulse)
    }

    #[test]
    fn the_burst_passes_and_the_flood_ends() {
        let (mut meter, pulse) = meter(50_000);
        let mut made = 0_u64;
        let stop = loop {
            match meter.charge(0) {
                Ok(()) => made += 1,
                Err(stop) => break stop,
            }
        };
        assert_eq!(stop.reason, Reason::RateLimited);
        // The burst, and what was earned while it was spent (a slow machine may earn more).
        assert!((100_000..200_000).contains(&made), "{made}");
        assert_eq!(pulse.crossings(), made + 1);
    }

    #[test]
    fn a_guest_below_the_rate_is_never_stopped() {
        let (mut meter, _) = meter(100_000);
        for _ in 0..20 {
            for _ in 0..100 {
                meter.charge(0).unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn calls_that_move_much_cost_more() {
        let (mut meter, _) = meter(100);
        assert!(meter.charge(199 * BYTES_PER_CALL).is_ok());
        assert!(meter.charge(199 * BYTES_PER_CALL).is_err());
        assert!(meter.charge(u64::MAX).is_err());
    }

    #[test]
    fn waiting_is_seen_from_outside() {
        let (meter, pulse) = meter(1);
        let waiting = meter.waiting();
        assert!(pulse.is_waiting());
        drop(waiting);
        assert!(!pulse.is_waiting());
    }
}
