//! The record of one attempt, as it is given to it and as it grows: what the guest asked before is answered as it was answered, in the same order;
//! what it asks then is asked of the host. Also what follows from the record alone: where the guest's clock stands and what it was told last.
//! Knows nothing of what the steps mean.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use skep_rules::{
    limits::CLOCK_READS,
    plan::Payload,
    quantity::Time,
    reason::Reason,
    seam::{DependencyEnd, StepReply},
    step::{Asked, Recorded, Step, StepCall, StepName, StepResult},
};

use crate::{
    Host,
    caps::clocks::Clock,
    control::{Control, Halt},
    meter::Stop,
    outcome::Fault,
};

/// The attempt does something else than its record says. Travels as the error of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at step {step} the record says {expected}, the attempt did {got}")]
pub(crate) struct Diverged {
    pub(crate) step: u64,
    pub(crate) expected: String,
    pub(crate) got: String,
}

/// The attempt goes on as another run of its task. Travels as the error of the call that asked for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the run goes on as another one")]
pub(crate) struct Continued(pub(crate) Payload);

/// A step was refused for a reason that may be another one the next time, so nothing is on record that a second run could be told. Travels as the
/// error of the call; the attempt is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the step could not be taken: {}", .0.means())]
pub(crate) struct Unrecorded(pub(crate) Reason);

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is on record. With [`StepResult::Ended`], how each of the children ended.
    Given(StepResult, Vec<DependencyEnd>),
    /// It is not, and would not be a second time: the record is full, or there is none.
    Refused(Reason),
}

impl Answer {
    /// Of a kind that the call cannot have: whoever decides is mistaken.
    pub(crate) fn unfit(&self) -> Fault {
        Fault(format!("a step was answered with {self:?}"))
    }
}

/// The record of an attempt, for all that can make it grow; nothing for those that have none, which are checks and warm-ups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps(
    /// Shared by the host functions and by the alarms that a guest holds, all of one thread; locked for one call at a time.
    Option<Arc<Mutex<Record>>>,
);

#[derive(Debug)]
struct Record {
    host: Arc<dyn Host>,
    control: Arc<Control>,
    /// Steps that are on record already.
    recorded: u64,
    /// The number of the next step.
    next: u64,
    /// Steps that were fetched and not given yet: at most one page.
    page: VecDeque<Recorded>,
    /// Where the guest's clock stood at the beginning, and where it stands.
    began: Time,
    now: Time,
    /// When the clock moved last, by a clock that does not stand still.
    moved: Duration,
    clock: Clock,
    /// Looks at the clock and beats since the last step.
    reads: u32,
    beats: u64,
    /// The directive that was told last is to finish.
    draining: bool,
    /// The earliest alarm that the poll under way found not to have come, and how many it found.
    earliest: Option<Time>,
    pending: usize,
    /// An alarm was looked at since the poll began.
    looked: bool,
}

impl Steps {
    /// The record of an attempt, of which so many steps are to be given to it first.
    pub(crate) fn of(host: Arc<dyn Host>, control: Arc<Control>, began: Time, recorded: u64) -> Self {
        if recorded > 0 {
            control.pulse.replay();
        }
        let clock = Clock::start();
        Steps(Some(Arc::new(Mutex::new(Record {
            host,
            control,
            recorded,
            next: 0,
            page: VecDeque::new(),
            began,
            now: began,
            moved: clock.elapsed(),
            clock,
            reads: 0,
            beats: 0,
            draining: false,
            earliest: None,
            pending: 0,
            looked: false,
        }))))
    }

    fn lock(&self) -> Option<MutexGuard<'_, Record>> {
        let record = self.0.as_ref()?;
        Some(record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is a record.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Whether any are on record that are to be given first.
    pub(crate) fn are_given(&self) -> bool {
        self.lock().is_some_and(|record| record.recorded > 0)
    }

    /// Steps that were taken, those that were given included.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().map_or(0, |record| record.next)
    }

    /// Takes a step: given from the record where it goes on, else asked of the host.
    ///
    /// # Errors
    /// [`Diverged`] when the record says something else, [`Stop`] when the attempt no longer holds its task, [`Fault`] when the record cannot be
    /// read.
    pub(crate) fn take(&self, call: StepCall) -> wasmtime::Result<Answer> {
        let Some(mut record) = self.lock() else {
            return Ok(Answer::Refused(Reason::CapabilityDenied));
        };
        let name = call.name();
        record.take(call)?.ok_or_else(|| unasked(name).into())
    }

    /// The same for what may be answered later: then the attempt is parked, and goes on when somebody has put the answer on its record.
    ///
    /// # Errors
    /// As [`Steps::take`].
    pub(crate) async fn wait(&self, call: StepCall) -> wasmtime::Result<Answer> {
        let Some((control, taken)) = self.lock().map(|mut record| {
            let control = record.control.clone();
            // Before the host is asked: the answer can come before the word that it will come later.
            control.asks(true);
            (control, record.take(call.clone()))
        }) else {
            return Ok(Answer::Refused(Reason::CapabilityDenied));
        };
        if let Some(answer) = taken? {
            control.asks(false);
            return Ok(answer);
        }
        control.park();
        let woken = |_: &mut std::task::Context<'_>| match control.is_parked() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        };
        std::future::poll_fn(woken).await;
        self.take(call)
    }

    /// The next step of the record, if it is this one; `None` when the record is used up.
    ///
    /// # Errors
    /// As [`Steps::take`].
    pub(crate) fn given(&self, call: impl FnOnce() -> StepCall) -> wasmtime::Result<Option<StepResult>> {
        let Some(mut record) = self.lock() else {
            return Ok(None);
        };
        match record.recorded()?.is_some() {
            true => Ok(record.give(&call())?.map(|recorded| recorded.step.result)),
            false => Ok(None),
        }
    }

    /// The number under which the host is to record the next step itself; `None` without a record.
    pub(crate) fn number(&self) -> Option<u64> {
        self.lock().map(|record| record.next)
    }

    /// Counts the step that the host was to record itself, if it has.
    ///
    /// # Errors
    /// As [`Steps::take`].
    pub(crate) fn passed(&self, number: Option<u64>) -> wasmtime::Result<()> {
        let (Some(mut record), Some(number)) = (self.lock(), number) else {
            return Ok(());
        };
        if let Some(recorded) = record.fetch(number)?.first() {
            record.pass(&recorded.step);
        }
        Ok(())
    }

    /// An attempt that waited goes on, with so many steps on its record.
    pub(crate) fn resume(&self, recorded: u64) {
        if let Some(mut record) = self.lock() {
            record.recorded = recorded;
            record.control.pulse.replay();
        }
    }

    /// What the record says next, when the attempt has come to its end too early.
    pub(crate) fn left(&self) -> Option<Diverged> {
        let mut record = self.lock()?;
        if record.next >= record.recorded {
            return None;
        }
        let expected = match record.recorded() {
            Ok(Some(asked)) => asked.to_string(),
            Ok(None) | Err(_) => "another step".into(),
        };
        Some(Diverged {
            step: record.next,
            expected,
            got: "come to its end".into(),
        })
    }

    /// Hears the host's wish at a beat: whether to finish. `wish` is what it is now.
    ///
    /// # Errors
    /// As [`Steps::take`], and [`Stop`] when the change cannot be recorded.
    pub(crate) fn beat(&self, wish: bool) -> wasmtime::Result<bool> {
        let Some(mut record) = self.lock() else {
            return Ok(wish);
        };
        record.beats += 1;
        let other = !record.draining;
        let call = StepCall::Directive {
            beats: record.beats,
            drain: other,
        };
        let due = match record.recorded()? {
            Some(asked) => asked.name == StepName::Directive && *asked == call.asked(),
            None => wish == other,
        };
        if due {
            record.done(call)?;
            record.draining = other;
        }
        Ok(record.draining)
    }

    /// Reads the guest's clock: where it stood when it began, and where it stands; `None` without a record. The 257th look in a row finds that it has moved on.
    ///
    /// # Errors
    /// As [`Steps::beat`].
    pub(crate) fn now(&self) -> wasmtime::Result<Option<(Time, Time)>> {
        let Some(mut record) = self.lock() else {
            return Ok(None);
        };
        record.tick()?;
        record.reads += 1;
        Ok(Some((record.began, record.now)))
    }

    /// The same without looking: nobody is shown it.
    pub(crate) fn clock(&self) -> Option<(Time, Time)> {
        self.lock().map(|record| (record.began, record.now))
    }

    /// Whether the guest's clock has reached an alarm. One that has not come is noted for [`Steps::poll`].
    pub(crate) fn has_come(&self, alarm: Time) -> bool {
        let Some(mut record) = self.lock() else {
            return false;
        };
        record.looked = true;
        let come = alarm <= record.now;
        if !come {
            record.pending += 1;
            record.earliest = Some(record.earliest.map_or(alarm, |earliest| earliest.min(alarm)));
        }
        come
    }

    /// Looks at `things` of which some may be alarms, once.
    ///
    /// # Errors
    /// As [`Steps::beat`].
    pub(crate) async fn look<T>(&self, things: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
        self.begin()?;
        let found = things.await;
        self.finish();
        found
    }

    /// Waits for one of `things`, of which there are so many and some may be alarms. Which of them have come follows from the guest's clock alone,
    /// and the clock moves once: to the earliest alarm, when there is nothing else to wait for. So a second run, which does not wait, finds the same.
    ///
    /// # Errors
    /// As [`Steps::beat`].
    pub(crate) async fn poll<T>(
        &self,
        count: usize,
        things: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let mut things = std::pin::pin!(things);
        self.begin()?;
        let mut found = futures_util::poll!(things.as_mut());
        let alarm = self
            .lock()
            .and_then(|record| record.earliest.filter(|_| record.pending == count));
        if let (Poll::Pending, Some(alarm)) = (&found, alarm) {
            self.arrive(alarm).await?;
            found = futures_util::poll!(things.as_mut());
        }
        let found = match found {
            Poll::Ready(found) => found,
            // Without a record, or for something that is no alarm: a file, which has its answer soon.
            Poll::Pending => things.await,
        };
        self.finish();
        found
    }

    fn begin(&self) -> wasmtime::Result<()> {
        let Some(mut record) = self.lock() else { return Ok(()) };
        record.tick()?;
        (record.earliest, record.pending, record.looked) = (None, 0, false);
        Ok(())
    }

    /// Looking at alarms is looking at the clock.
    fn finish(&self) {
        if let Some(mut record) = self.lock() {
            record.reads += u32::from(record.looked);
        }
    }

    /// Waits until an alarm comes, and moves the clock there.
    async fn arrive(&self, alarm: Time) -> wasmtime::Result<()> {
        let left = match self.lock() {
            Some(mut record) => record.left_until(alarm)?,
            None => return Ok(()),
        };
        if left > Duration::ZERO {
            tokio::time::sleep(left).await;
        }
        let Some(mut record) = self.lock() else { return Ok(()) };
        record.done(StepCall::Clock { alarm: Some(alarm) })?;
        record.now = record.now.max(alarm);
        Ok(())
    }
}

impl Record {
    /// A step; `None` when it is answered later.
    fn take(&mut self, call: StepCall) -> wasmtime::Result<Option<Answer>> {
        if let Some(recorded) = self.give(&call)? {
            return Ok(Some(Answer::Given(recorded.step.result, recorded.ends)));
        }
        match self.host.step(self.control.lease(), self.next, call) {
            StepReply::Recorded(recorded) => {
                self.pass(&recorded.step);
                Ok(Some(Answer::Given(recorded.step.result, recorded.ends)))
            }
            StepReply::Waiting => Ok(None),
            StepReply::Fenced => Err(self.fenced().into()),
            StepReply::Refused(reason @ (Reason::RecordFull | Reason::CapabilityDenied)) => {
                Ok(Some(Answer::Refused(reason)))
            }
            StepReply::Refused(reason) => Err(Unrecorded(reason).into()),
        }
    }

    /// A step that the guest cannot be told a refusal of.
    fn done(&mut self, call: StepCall) -> wasmtime::Result<()> {
        let name = call.name();
        match self.take(call)? {
            Some(Answer::Given(StepResult::Done, _)) => Ok(()),
            Some(Answer::Refused(reason) | Answer::Given(StepResult::Refused { reason, .. }, _)) => {
                let message = format!("`{name}` could not be recorded: {}", reason.means());
                Err(Stop::new(reason, message).into())
            }
            Some(unfit) => Err(unfit.unfit().into()),
            None => Err(unasked(name).into()),
        }
    }

    /// What the record says next; `None` when it is used up.
    fn recorded(&mut self) -> wasmtime::Result<Option<&Asked>> {
        if self.next >= self.recorded {
            return Ok(None);
        }
        if self.page.is_empty() {
            self.page = self.fetch(self.next)?.into();
        }
        match self.page.front() {
            Some(recorded) => Ok(Some(&recorded.step.asked)),
            None => Err(Fault(format!("the record lacks step {} of {}", self.next, self.recorded)).into()),
        }
    }

    fn fetch(&self, from: u64) -> wasmtime::Result<Vec<Recorded>> {
        match self.host.record(self.control.lease(), from) {
            Ok(page) => Ok(page),
            Err(Reason::Fenced) => Err(self.fenced().into()),
            Err(reason) => Err(Fault(format!("the record cannot be read from step {from} on: {reason}")).into()),
        }
    }

    /// The next step of the record, which must be this one; `None` when the record is used up.
    fn give(&mut self, call: &StepCall) -> wasmtime::Result<Option<Recorded>> {
        let Some(expected) = self.recorded()? else {
            return Ok(None);
        };
        let got = call.asked();
        if *expected != got {
            let expected = expected.to_string();
            return Err(Diverged {
                step: self.next,
                expected,
                got: got.to_string(),
            }
            .into());
        }
        let given = self.page.pop_front();
        if let Some(recorded) = &given {
            self.pass(&recorded.step);
        }
        Ok(given)
    }

    /// A step is behind the attempt.
    fn pass(&mut self, step: &Step) {
        self.next += 1;
        (self.reads, self.beats) = (0, 0);
        self.now = self.now.max(step.at);
        self.moved = self.clock.elapsed();
        if self.next == self.recorded {
            self.control.pulse.use_up();
        }
    }

    /// Lets the clock move on when it was read too often.
    fn tick(&mut self) -> wasmtime::Result<()> {
        match self.reads < CLOCK_READS {
            true => Ok(()),
            false => self.done(StepCall::Clock { alarm: None }),
        }
    }

    /// How long until an alarm comes, in real time: by the wall clock or by what has passed since the guest's clock moved, whichever is sooner. The
    /// one is right after a crash, the other where the host's clock is not this machine's. Nothing while the record is given.
    fn left_until(&mut self, alarm: Time) -> wasmtime::Result<Duration> {
        if self.recorded()?.is_some() {
            return Ok(Duration::ZERO);
        }
        let at = |time: Time| Duration::from_millis(time.0);
        let passed = at(self.now).saturating_add(self.clock.elapsed().saturating_sub(self.moved));
        Ok(at(alarm).saturating_sub(passed.max(self.clock.wall())))
    }

    fn fenced(&self) -> Stop {
        self.control.halt(Halt::Fenced);
        Stop::new(Reason::Fenced, "the attempt no longer holds its task")
    }
}

/// A wait where nothing can be waited for.
fn unasked(name: StepName) -> Fault {
    Fault(format!("`{name}` was answered with a wait"))
}

#[cfg(test)]
mod tests;
