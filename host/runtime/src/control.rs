//! What others see and ask of an attempt while it runs, without touching its store: signs of life out; cancel, fence and drain in. All of it atomics.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::Wake,
};

use futures_util::task::AtomicWaker;
use skep_rules::{
    limits::YIELD_FUEL,
    quantity::Fuel,
    seam::{Beat, Lease, LogFrame},
};

use crate::{caps::output::Log, instance::Prepared, meter::Pulse};

/// Why an attempt is to end before its export returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Halt {
    /// Somebody cancelled it.
    Cancelled = 1,
    /// A newer generation of its agent was warmed.
    Fenced = 2,
    /// The runner stops.
    Stopping = 3,
}

/// No percentage was told.
const UNTOLD: u8 = u8::MAX;

/// The outside of one attempt.
#[derive(Debug)]
pub struct Control {
    /// The lease that it holds, or held last: an attempt that waited goes on under another one of its task. Locked for a look.
    lease: Mutex<Lease>,
    /// Who holds the task since the attempt went on, until its store has taken note.
    holder: Mutex<Option<Arc<Prepared>>>,
    /// The attempt asks for something that may be answered later.
    asking: AtomicBool,
    /// It will be: the attempt holds no lease until it is resumed.
    parked: AtomicBool,
    /// Counts calls into the host; shared with the meter inside.
    pub(crate) pulse: Arc<Pulse>,
    /// A [`Halt`], or 0. The first one stays.
    halt: AtomicU8,
    drain: AtomicBool,
    percent: AtomicU8,
    /// Times that the guest used up [`YIELD_FUEL`] and gave way: the evidence of a guest that only computes.
    yields: AtomicU64,
    /// When the poll under way began, in microseconds of the watchdog's clock plus one; 0 between polls. For the watchdog.
    polling: AtomicU64,
    /// The poll under way has been woken from within, which is how a fuel yield looks from outside.
    woken: AtomicBool,
    /// What the attempt writes, once its store is there.
    log: OnceLock<Log>,
    /// The task that runs the attempt.
    waker: AtomicWaker,
    /// Crossings, yields and percentage at the last beat. Touched by the loop that makes beats only.
    told: [AtomicU64; 3],
}

impl Control {
    /// The outside of an attempt that has not begun.
    #[must_use]
    pub fn new(lease: Lease) -> Arc<Self> {
        Arc::new(Control {
            lease: Mutex::new(lease),
            holder: Mutex::default(),
            asking: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            pulse: Arc::default(),
            halt: AtomicU8::new(0),
            drain: AtomicBool::new(false),
            percent: AtomicU8::new(UNTOLD),
            yields: AtomicU64::new(0),
            polling: AtomicU64::new(0),
            woken: AtomicBool::new(false),
            log: OnceLock::new(),
            waker: AtomicWaker::new(),
            told: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(UNTOLD.into())],
        })
    }

    /// Which attempt.
    #[must_use]
    pub fn lease(&self) -> Lease {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who holds the task now, if that has changed since this was asked last.
    pub(crate) fn new_holder(&self) -> Option<Arc<Prepared>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says whether the attempt asks for something that may be answered later.
    pub(crate) fn asks(&self, asks: bool) {
        self.asking.store(asks, Ordering::Release);
    }

    /// Whether it does. Until it is parked, or has its answer.
    pub(crate) fn is_asking(&self) -> bool {
        self.asking.load(Ordering::Acquire)
    }

    /// The attempt waits, without a lease.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::Release);
    }

    /// The attempt writes there.
    pub(crate) fn writes_to(&self, log: Log) {
        // An attempt has one store, and so one log.
        let _first = self.log.set(log);
    }

    /// What it has written since the last call, within so many bytes.
    pub(crate) fn fresh(&self, bytes: usize) -> Option<LogFrame> {
        self.log.get()?.fresh(bytes).of(self.lease())
    }

    /// Whether it does.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// The attempt goes on under another lease of the same task.
    pub(crate) fn resume(&self, lease: Lease, holder: Arc<Prepared>) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(holder);
        self.asks(false);
        self.parked.store(false, Ordering::Release);
    }

    /// The attempt ends where it waits, when it is polled next.
    pub(crate) fn break_off(&self) {
        self.halt(Halt::Cancelled);
        self.parked.store(false, Ordering::Release);
    }

    /// Ends the attempt as cancelled, at its next yield or call, or at once where it waits.
    pub fn cancel(&self) {
        self.halt(Halt::Cancelled);
    }

    pub(crate) fn halt(&self, halt: Halt) {
        // Losing the exchange means that another reason came first, and it stays.
        let _first = self
            .halt
            .compare_exchange(0, halt as u8, Ordering::Relaxed, Ordering::Relaxed);
        self.pulse.stop();
        self.waker.wake();
    }

    /// Why it is to end, if it is.
    pub(crate) fn halted(&self) -> Option<Halt> {
        let found = self.halt.load(Ordering::Relaxed);
        [Halt::Cancelled, Halt::Fenced, Halt::Stopping]
            .into_iter()
            .find(|halt| *halt as u8 == found)
    }

    /// Asks the attempt to finish what is under way.
    pub fn drain(&self) {
        self.drain.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Relaxed)
    }

    /// The attempt's own word on how far it is.
    pub(crate) fn tell(&self, percent: u8) {
        self.percent.store(percent.min(100), Ordering::Relaxed);
    }

    /// A poll begins, `now` by the watchdog's clock; `waker` is the task's.
    pub(crate) fn enter(&self, now: u64, waker: &std::task::Waker) {
        self.waker.register(waker);
        self.woken.store(false, Ordering::Relaxed);
        self.polling.store(now.saturating_add(1), Ordering::Relaxed);
    }

    /// The poll ended; `pending` when the guest is to be polled again.
    pub(crate) fn leave(&self, pending: bool) {
        self.polling.store(0, Ordering::Relaxed);
        if pending && self.woken.load(Ordering::Relaxed) {
            self.yields.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Since when the guest computes without giving way or being seen by its meter, in microseconds of the watchdog's clock; `None` while it does
    /// not, or waits for the operating system inside a host call.
    pub(crate) fn polling_since(&self) -> Option<u64> {
        let since = self.polling.load(Ordering::Relaxed).checked_sub(1)?;
        (!self.pulse.is_waiting()).then(|| since.max(self.pulse.seen()))
    }

    /// The signs of life since the last call; `None` when there are none. For one caller.
    #[must_use]
    pub fn beat(&self) -> Option<Beat> {
        let crossings = self.pulse.crossings();
        let yields = self.yields.load(Ordering::Relaxed);
        let percent = self.percent.load(Ordering::Relaxed);
        let [told_crossings, told_yields, told_percent] = &self.told;
        let fresh = told_crossings.swap(crossings, Ordering::Relaxed) != crossings
            || told_yields.swap(yields, Ordering::Relaxed) != yields
            || told_percent.swap(percent.into(), Ordering::Relaxed) != u64::from(percent);
        fresh.then(|| Beat {
            lease: self.lease(),
            crossings,
            fuel: Fuel(yields.saturating_mul(YIELD_FUEL)),
            percent: (percent != UNTOLD).then_some(percent),
        })
    }
}

impl Wake for Control {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        self.waker.wake();
    }
}
