//! Ends the process when a guest computes and neither gives way nor calls its host: that cannot happen unless fuel is broken, and then nothing inside
//! the process can stop the guest. A thread of its own, because the threads that run guests may be the stuck ones.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use skep_rules::limits::WATCHDOG;

use crate::{caps::clocks::Clock, control::Control};

/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(100);
/// The status with which the process ends, as after a failed assertion.
const STATUS: i32 = 134;

/// The clock by which polls are timed.
static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::start);

/// Microseconds by the watchdog's clock.
pub(crate) fn now() -> u64 {
    CLOCK.micros()
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Looks, from now on, at the attempts that `live` lists. Instantiation is watched like everything else: its slowest step maps and copies memory,
    /// which takes milliseconds.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(crate) fn start(live: impl Fn() -> Vec<Arc<Control>> + Send + 'static) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watch = move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(stuck) = stuck(&live(), now()) {
                    let lease = stuck.lease();
                    tracing::error!(
                        ?lease,
                        "a guest has not given way for a second: fuel does not work; the process ends"
                    );
                    end_process();
                }
                std::thread::park_timeout(LOOK);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(watch)?;
        Ok(Watchdog {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the watchdog has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

/// Whoever has been in one poll for longer than a working guest can be.
fn stuck(live: &[Arc<Control>], now: u64) -> Option<&Arc<Control>> {
    let limit = WATCHDOG.0.saturating_mul(1_000);
    live.iter().find(|control| {
        control
            .polling_since()
            .is_some_and(|since| now.saturating_sub(since) > limit)
    })
}

#[expect(
    clippy::exit,
    reason = "a guest that cannot be stopped holds its thread for good; only a new process is whole"
)]
fn end_process() -> ! {
    std::process::exit(STATUS)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::trial::lease;

    #[test]
    fn only_a_poll_without_end_is_stuck() {
        let (idle, busy) = (Control::new(lease(1)), Control::new(lease(2)));
        let live = [idle, busy.clone()];
        assert!(stuck(&live, 10_000_000).is_none());
        busy.enter(1_000_000, Waker::noop());
        assert!(stuck(&live, 2_000_000).is_none());
        assert_eq!(stuck(&live, 2_000_001).map(|control| control.lease()), Some(lease(2)));
        busy.leave(true);
        assert!(stuck(&live, 9_000_000).is_none());
    }
}
