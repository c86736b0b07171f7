//! `wasi:clocks`: gives every agent a monotonic and a wall clock with a resolution of 1 ms. Needs no grant. What is refused is precision: finer
//! clocks are how a guest measures its neighbours (reduced, not removed).
//!
//! Both interfaces are our own, sleeping included, because an attempt with a record sees recorded time: its clocks stand still between steps, move to
//! the time of each, and make a step of their own when they are read again and again, and when an alarm comes that is waited for.

use std::time::{Duration, Instant, SystemTime};

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::{
    DynPollable, Pollable,
    bindings::clocks::{
        monotonic_clock,
        wall_clock::{self, Datetime},
    },
    subscribe,
};

use skep_rules::quantity::{Millis, Time};

use super::{
    base::{Base, Get, HasBase},
    stepped::Stepped,
};
use crate::steps::Steps;

/// The resolution of both clocks, in nanoseconds.
const RESOLUTION: u64 = 1_000_000;

/// Time as one attempt knows it. The only place of this crate that reads the machine's clocks: everything else is given one of these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    /// Wall time at the beginning, since 1970. Later readings add what has passed since, so that the wall clock of an attempt never jumps.
    wall: Duration,
}

impl Clock {
    /// A clock that begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the runtime reads the machine's clocks"
    )]
    pub(crate) fn start() -> Self {
        Clock {
            began: Instant::now(),
            // A machine whose clock stands before 1970 gives its guests 1970.
            wall: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// Time since the beginning.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the runtime reads the machine's clocks"
    )]
    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.began)
    }

    /// Microseconds since the beginning: enough for 584,000 years.
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Wall time since 1970.
    pub(crate) fn wall(&self) -> Duration {
        self.wall.saturating_add(self.elapsed())
    }

    /// What a guest sees: nanoseconds since the beginning, whole milliseconds only.
    fn coarse(&self) -> u64 {
        let now = u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX);
        now - now % RESOLUTION
    }
}

/// Links `wasi:clocks`.
///
/// # Errors
/// When the linker holds one of the interfaces already.
pub(super) fn link<T: Send + 'static>(linker: &mut Linker<T>, get: Get<T>) -> wasmtime::Result<()> {
    monotonic_clock::add_to_linker::<T, HasBase>(linker, get)?;
    wall_clock::add_to_linker::<T, HasBase>(linker, get)?;
    let mut stepped = Stepped::new(linker, "wasi:clocks/monotonic-clock@0.2.12", get);
    stepped.plain("now", move |data, ()| Ok((monotonic_clock::Host::now(get(data))?,)))?;
    let mut stepped = Stepped::new(linker, "wasi:clocks/wall-clock@0.2.12", get);
    stepped.plain("now", move |data, ()| Ok((wall_clock::Host::now(get(data))?,)))
}

impl wall_clock::Host for Base {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        self.meter.charge(0)?;
        let now = match self.steps.now()? {
            Some((_, now)) => Duration::from_millis(now.0),
            None => self.clock.wall(),
        };
        let nanoseconds = now.subsec_millis() * 1_000_000;
        Ok(Datetime {
            seconds: now.as_secs(),
            nanoseconds,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        self.meter.charge(0)?;
        Ok(Datetime {
            seconds: 0,
            nanoseconds: 1_000_000,
        })
    }
}

impl monotonic_clock::Host for Base {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.meter.charge(0)?;
        Ok(match self.steps.now()? {
            Some((began, now)) => now.since(began).0.saturating_mul(RESOLUTION),
            None => self.clock.coarse(),
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.meter.charge(0)?;
        Ok(RESOLUTION)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.meter.charge(0)?;
        let now = match self.steps.clock() {
            Some((began, now)) => now.since(began).0.saturating_mul(RESOLUTION),
            None => self.clock.coarse(),
        };
        self.alarm(when.saturating_sub(now))
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.meter.charge(0)?;
        self.alarm(duration)
    }
}

impl Base {
    /// A pollable that becomes ready in `nanos`, rounded up to whole milliseconds: who then looks at the coarse clock must find the time passed.
    fn alarm(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wait = Millis(nanos.div_ceil(RESOLUTION));
        if let Some((_, now)) = self.steps.clock() {
            let alarm = Alarm::Recorded(now.after(wait), self.steps.clone());
            let alarm = self.table.push(alarm)?;
            return subscribe(&mut self.table, alarm);
        }
        let alarm = match tokio::time::Instant::from_std(self.clock.began)
            .checked_add(self.clock.elapsed())
            .and_then(|now| now.checked_add(wait.duration()))
        {
            Some(when) => Alarm::At(when),
            None => Alarm::Never,
        };
        let alarm = self.table.push(alarm)?;
        subscribe(&mut self.table, alarm)
    }
}

/// What a guest that sleeps waits for.
enum Alarm {
    At(tokio::time::Instant),
    /// So far ahead that it cannot be told; the attempt's deadline ends the wait.
    Never,
    /// This time of the guest's own clock, which stands still until whoever polls moves it.
    Recorded(Time, Steps),
}

#[wasmtime_wasi::async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        match self {
            Alarm::At(when) => tokio::time::sleep_until(*when).await,
            Alarm::Never => std::future::pending().await,
            Alarm::Recorded(when, steps) => {
                let come = |_: &mut std::task::Context<'_>| match steps.has_come(*when) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                };
                std::future::poll_fn(come).await;
            }
        }
    }
}
