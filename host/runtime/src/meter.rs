//! How often a guest may call its host. A host call costs host time but no fuel, so a guest that does nothing else is stopped here, also by a
//! cancel or its deadline: without that, one poll could hold any number of slow calls. The same counter is the evidence of life that heartbeats are
//! made of.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use skep_rules::reason::Reason;

use crate::{caps::clocks::Clock, watchdog};

/// Calls between two looks at the clock. Many enough that a look costs nothing per call, and few enough that one is taken within some hundred
/// microseconds: every second call that moves 1 MiB takes one.
const SLICE: u64 = 100;
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
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Calls into the host so far. Written by the one thread that runs the store, read by whoever makes beats.
    crossings: AtomicU64,
    /// The thread sits in a file operation of the operating system; a watchdog must not take that for a guest that does not yield.
    waiting: AtomicBool,
    /// The next call ends the attempt.
    stop: AtomicBool,
    /// When the thread was last seen inside a call, in microseconds of the watchdog's clock: since then it can have been stopped.
    seen: AtomicU64,
    /// When the attempt must end, in microseconds of the watchdog's clock. Set before the first call, and again when it goes on after a wait.
    deadline: AtomicU64,
    /// The attempt is given its record: its calls were metered when they were made first.
    replays: AtomicBool,
    /// The record has just been used up: from here on fuel is billed.
    used_up: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            crossings: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            deadline: AtomicU64::new(u64::MAX),
            replays: AtomicBool::new(false),
            used_up: AtomicBool::new(false),
        }
    }
}

impl Pulse {
    /// Calls into the host so far.
    pub(crate) fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::Relaxed)
    }

    /// Whether the guest's thread waits for the operating system inside a host call.
    pub(crate) fn is_waiting(&self) -> bool {
        // Pairs with the end of waiting: whoever sees that also sees when it was.
        self.waiting.load(Ordering::Acquire)
    }

    /// Makes the next call end the attempt.
    pub(crate) fn stop(&self) {
        // Pairs with `charge`: whoever is stopped also sees why.
        self.stop.store(true, Ordering::Release);
    }

    /// Makes the first look at the clock at or after `deadline` end the attempt; in microseconds of the watchdog's clock.
    pub(crate) fn end_at(&self, deadline: u64) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// The attempt is given its record from here on.
    pub(crate) fn replay(&self) {
        self.used_up.store(false, Ordering::Relaxed);
        self.replays.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(crate) fn replays(&self) -> bool {
        self.replays.load(Ordering::Relaxed)
    }

    /// It has been given all of it.
    pub(crate) fn use_up(&self) {
        self.replays.store(false, Ordering::Relaxed);
        self.used_up.store(true, Ordering::Relaxed);
    }

    /// Whether the record has been used up since the last time that this was asked.
    pub(crate) fn take_used_up(&self) -> bool {
        self.used_up.load(Ordering::Relaxed) && self.used_up.swap(false, Ordering::Relaxed)
    }

    /// When the thread was last seen inside a call, in microseconds of the watchdog's clock.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Says that the thread is inside a call at `now`, and whether the deadline has passed.
    fn look(&self, now: u64) -> bool {
        self.seen.store(now, Ordering::Relaxed);
        now >= self.deadline.load(Ordering::Relaxed)
    }
}

/// Says, while it lives, that the thread waits for the operating system. When that took the attempt past its deadline, the next call ends it.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Pulse>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.look(watchdog::now()) {
            self.0.stop();
        }
        self.0.waiting.store(false, Ordering::Release);
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
    /// wait, and a guest that makes 200,000 calls a second has lost its way. [`Stop`] with `deadline-exceeded` or `cancelled` when the attempt is to
    /// end anyway.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Stop> {
        let crossings = &self.pulse.crossings;
        // One writer: a plain add is enough and is what makes this cheap.
        crossings.store(crossings.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        if self.pulse.stop.load(Ordering::Acquire) {
            return Err(self.stopped());
        }
        if self.pulse.replays() {
            return self.unmetered();
        }
        let price = 1 + bytes / BYTES_PER_CALL;
        match self.slice.checked_sub(price) {
            Some(left) => {
                self.slice = left;
                Ok(())
            }
            None => self.refill(price),
        }
    }

    /// Whether the record has just been used up, so that fuel is billed from now on.
    pub(crate) fn take_used_up(&self) -> bool {
        self.pulse.take_used_up()
    }

    /// Marks the thread as waiting for the operating system until the guard is dropped.
    pub(crate) fn waiting(&self) -> Waiting {
        self.pulse.waiting.store(true, Ordering::Relaxed);
        Waiting(self.pulse.clone())
    }

    /// Counts a call of an attempt that is given its record: only its deadline is looked at.
    fn unmetered(&self) -> Result<(), Stop> {
        match self.pulse.crossings().is_multiple_of(SLICE) && self.pulse.look(watchdog::now()) {
            true => Err(self.stopped()),
            false => Ok(()),
        }
    }

    /// Why the attempt ends at this call. Who halted it knows better, and is asked by whoever gets this.
    #[cold]
    fn stopped(&self) -> Stop {
        match self.pulse.look(watchdog::now()) {
            true => Stop::new(Reason::DeadlineExceeded, "still running at its deadline"),
            false => Stop::new(Reason::Cancelled, "ended from outside"),
        }
    }

    #[cold]
    fn refill(&mut self, price: u64) -> Result<(), Stop> {
        if self.pulse.look(watchdog::now()) {
            return Err(self.stopped());
        }
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
    fn what_was_metered_before_is_not_metered_again_but_has_its_deadline() {
        let (mut meter, pulse) = meter(10);
        pulse.replay();
        (0..10_000).for_each(|_| meter.charge(1 << 20).unwrap());
        assert!(!pulse.take_used_up());
        pulse.end_at(watchdog::now());
        let stop = (0..=SLICE).find_map(|_| meter.charge(0).err());
        assert_eq!(stop.unwrap().reason, Reason::DeadlineExceeded);
        pulse.end_at(u64::MAX);
        pulse.use_up();
        assert!(pulse.take_used_up() && !pulse.take_used_up());
        let stop = (0..=20).find_map(|_| meter.charge(0).err());
        assert_eq!(stop.unwrap().reason, Reason::RateLimited);
    }

    #[test]
    fn waiting_is_seen_from_outside() {
        let (mut meter, pulse) = meter(1);
        let waiting = meter.waiting();
        assert!(pulse.is_waiting());
        let before = watchdog::now();
        drop(waiting);
        assert!(!pulse.is_waiting() && pulse.seen() >= before);
        assert!(meter.charge(0).is_ok());
        pulse.end_at(watchdog::now());
        drop(meter.waiting());
        assert_eq!(meter.charge(0).unwrap_err().reason, Reason::DeadlineExceeded);
    }

    #[test]
    fn the_first_call_after_a_stop_ends_the_attempt() {
        let (mut meter, pulse) = meter(100_000);
        meter.charge(0).unwrap();
        pulse.stop();
        assert_eq!(meter.charge(0).unwrap_err().reason, Reason::Cancelled);
    }

    #[test]
    fn calls_after_the_deadline_end_the_attempt_soon() {
        let passed = |bytes| {
            let (mut meter, pulse) = meter(100_000);
            meter.charge(0).unwrap();
            pulse.end_at(watchdog::now());
            let mut calls = 1;
            let stop = loop {
                match meter.charge(bytes) {
                    Ok(()) => calls += 1,
                    Err(stop) => break stop,
                }
            };
            assert_eq!(stop.reason, Reason::DeadlineExceeded);
            calls
        };
        assert_eq!((passed(0), passed(1 << 20)), (SLICE, 2));
    }
}
