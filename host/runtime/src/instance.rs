//! One attempt: a store of its own, an instance, one call, under every limit from before the first instruction to the last; then all of it is
//! dropped. Nothing is ever used twice.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use skep_rules::{
    grant::Effective,
    limits::{Limits, WARM_UP, YIELD_FUEL},
    plan::Outcome,
    quantity::{Fuel, Millis, Size},
    reason::Reason,
    seam::{Call, Denial, End, Export, Identity, Lease, LogFrame, LogLine, TaskView, Usage},
};
use wasmtime::{PoolConcurrencyLimitError, Store, component::Instance};

use crate::{
    Host,
    caps::{artifacts, base::Base, clocks::Clock, environment, messages},
    control::Control,
    convert,
    ctx::{Ctx, Grants},
    limiter::{Limiter, Total},
    meter::Stop,
    outcome::{self, Fault, Return},
    sandbox::Linked,
    steps::Steps,
    watchdog,
    workspace::{Workspace, Workspaces},
};

/// An agent that is compiled, linked and checked: attempts can begin at once.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) linked: Arc<Linked>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) effective: Effective,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) total: Arc<Total>,
    pub(crate) workspaces: Arc<Workspaces>,
}

/// How an attempt ended, and what it left.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// What it used.
    pub usage: Usage,
    /// What was refused to it.
    pub denials: Vec<Denial>,
    /// Its log.
    pub log: Vec<LogLine>,
    /// What of it was not told yet while it ran.
    pub fresh: Option<LogFrame>,
}

/// What became of an attempt that ran.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is taken apart at once"
)]
pub enum Ran {
    /// It has ended.
    Ended(Ended),
    /// A step of it is answered later. Its instance is kept, and no time counts against it, until [`Attempt::resume`] or until it is dropped.
    Waiting,
}

/// One attempt with its store, which is gone when this is.
pub struct Attempt {
    body: Pin<Box<dyn Future<Output = Ended> + Send>>,
    prepared: Arc<Prepared>,
    control: Arc<Control>,
    steps: Steps,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt")
            .field("lease", &self.control.lease())
            .finish_non_exhaustive()
    }
}

impl Attempt {
    /// Runs it to its end or to a wait. Must be polled inside a tokio runtime with timers, and not again after its end; a guest computes on the thread
    /// that polls and gives way after each [`YIELD_FUEL`] units.
    pub async fn run(&mut self) -> Ran {
        std::future::poll_fn(|cx| match self.body.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Ran::Ended(ended)),
            Poll::Pending if self.control.is_parked() => Poll::Ready(Ran::Waiting),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Whether it can go on as an attempt of this agent: the one that it was, or one that is made alike.
    pub(crate) fn fits(&self, agent: &Prepared) -> bool {
        let own = &*self.prepared;
        own.identity.agent == agent.identity.agent && own.identity.generation == agent.identity.generation
            || Arc::ptr_eq(&own.linked, &agent.linked) && own.effective == agent.effective
    }

    /// Lets an attempt that waits go on when it runs next, under another lease of its task, for the agent that has it, and with so many steps on its
    /// record: the answer is the last of them.
    pub fn resume(&mut self, lease: Lease, agent: Arc<Prepared>, recorded: u64) {
        self.steps.resume(recorded);
        self.control.resume(lease, agent);
    }

    /// Steps that it has taken, those that were given to it from its record included.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.taken()
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Ends it where it waits, without a word to the guest: what it came to until then.
    pub(crate) fn break_off(&mut self) -> Option<Ended> {
        self.control.break_off();
        match self.body.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending => None,
        }
    }
}

impl Prepared {
    /// Who the agent is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the agent's component exports.
    #[must_use]
    pub fn exports(&self) -> Vec<Export> {
        self.linked.exports()
    }

    /// Begins an attempt that has so many steps on its record, if it has one. Nothing runs before [`Attempt::run`].
    #[must_use]
    pub fn begin(self: &Arc<Self>, control: Arc<Control>, call: Call, task: TaskView, recorded: u64) -> Attempt {
        let asked = Clock::start();
        let steps = match task.records {
            true => Steps::of(self.host.clone(), control.clone(), task.began, recorded),
            false => Steps::default(),
        };
        Attempt {
            body: Box::pin(self.clone().body(control.clone(), call, task, steps.clone(), asked)),
            prepared: self.clone(),
            control,
            steps,
        }
    }

    /// Runs one attempt to its end, on behalf of a host that answers every step at once; an attempt that has to wait ends as a fault of that host.
    /// Must be polled inside a tokio runtime with timers.
    pub async fn attempt(self: &Arc<Self>, control: &Arc<Control>, call: Call, task: TaskView, recorded: u64) -> Ended {
        match self.begin(control.clone(), call, task, recorded).run().await {
            Ran::Ended(ended) => ended,
            Ran::Waiting => {
                let error = Fault("the host answers a step later, and nobody waits for it".into());
                self.stillborn(error.into(), Clock::start())
            }
        }
    }

    /// `asked` says since when it is to begin.
    async fn body(
        self: Arc<Self>,
        control: Arc<Control>,
        call: Call,
        task: TaskView,
        steps: Steps,
        asked: Clock,
    ) -> Ended {
        let mut began = Clock::start();
        let attempt = task.attempt;
        if is_late(&call, &task, &steps, asked.elapsed()) {
            let message = "its time was over before an instance could begin to receive it";
            return self.stillborn(Stop::new(Reason::MessageExpired, message).into(), began);
        }
        // Outlives the store.
        let mut workspace = None;
        let mut store = match self.store(&control, attempt, task.seed, steps.clone(), &mut workspace) {
            Ok(store) => store,
            Err(error) => return self.stillborn(error, began),
        };
        if let Some(Fuel(budget)) = task.fuel
            && let Err(error) = confine(&mut store, budget)
        {
            return self.stillborn(error, began);
        }
        let budget = task.fuel;
        let limits = &Limits {
            fuel: budget.map_or(self.effective.limits.fuel, |budget| {
                budget.min(self.effective.limits.fuel)
            }),
            ..self.effective.limits
        };
        let deadline = task.deadline.unwrap_or(limits.deadline).min(limits.deadline);
        let inner = self.call(&mut store, call, task);
        let returned = guard(inner, &control, &mut began, deadline).await;
        let left = store.get_fuel().unwrap_or(0);
        let ctx = store.data_mut();
        let mut usage = Usage {
            fuel: Fuel(ctx.base.billed_from.saturating_sub(left)),
            hostcalls: control.pulse.crossings(),
            peak_memory: Size(ctx.limiter.peak()),
            wall: Millis(0),
        };
        let mut end = outcome::end(returned, limits, ctx.limiter.has_refused());
        if let (End::Finished(_), Some(early)) = (&end, steps.left()) {
            end = outcome::diverged(early);
        }
        let fresh = ctx.base.log.last().of(control.lease());
        let (mut denials, log) = (ctx.base.denials.take(), ctx.base.log.take());
        if !matches!(end, End::Finished(_)) {
            denials.retain(|denial| denial.what != environment::READ);
        }
        drop(store);
        drop(workspace);
        usage.wall = millis(began.elapsed());
        Ended {
            end,
            usage,
            denials,
            log,
            fresh,
        }
    }

    /// Calls `execute` again and again on one instance, which attempts never do, and says how long the calls took together: the measure of a bare
    /// call, without the sandbox around it.
    ///
    /// # Errors
    /// When the attempt cannot begin or a call fails.
    pub async fn repeat(&self, control: &Arc<Control>, task: TaskView, times: u32) -> Result<Duration, End> {
        let limits = &self.effective.limits;
        let failed = |error| outcome::end(Return::Called(Err(error)), limits, false);
        let mut store = self.store(control, 1, 0, Steps::default(), &mut None).map_err(failed)?;
        let calls = async {
            let instance = self.linked.pre.instantiate_async(&mut store).await?;
            let guest = self
                .linked
                .executor
                .as_ref()
                .ok_or_else(|| lacks(Export::Executor))?
                .load(&mut store, &instance)?;
            let task = convert::task(control.lease(), task);
            let began = Clock::start();
            for _ in 0..times {
                drop(guest.call_execute(&mut store, &task).await?);
            }
            Ok(began.elapsed())
        };
        calls.await.map_err(failed)
    }

    /// Instantiates once and calls nothing: what warming an agent ends with.
    ///
    /// # Errors
    /// Why attempts of this agent would not begin.
    pub async fn try_out(&self, control: &Arc<Control>) -> Result<(), crate::plugin::Refused> {
        let mut began = Clock::start();
        let mut workspace = None;
        let returned = match self.store(control, 0, 0, Steps::default(), &mut workspace) {
            Ok(mut store) => {
                let inner = async {
                    self.instantiate(&mut store).await?;
                    Ok(Outcome::Accepted)
                };
                let deadline = self.effective.limits.deadline.min(WARM_UP);
                let returned = guard(inner, control, &mut began, deadline).await;
                outcome::end(returned, &self.effective.limits, store.data().limiter.has_refused())
            }
            Err(error) => self.stillborn(error, began).end,
        };
        drop(workspace);
        let (reason, message) = match returned {
            End::Finished(_) => return Ok(()),
            End::Stopped { reason, message } => (reason, message),
            End::Overload { message } => (Reason::Overloaded, message),
            End::Cancelled | End::Fenced => (Reason::Cancelled, "the agent was forgotten while it was warmed".into()),
            End::Diverged { .. } => (Reason::HostFault, "it was held against a record".into()),
            End::HostFault { message } => (Reason::HostFault, message),
        };
        let message = format!("the component cannot be instantiated: {message}");
        Err(crate::plugin::Refused { reason, message })
    }

    /// An attempt that ended before its store was made.
    fn stillborn(&self, error: wasmtime::Error, began: Clock) -> Ended {
        Ended {
            end: outcome::end(Return::Called(Err(error)), &self.effective.limits, false),
            usage: Usage {
                wall: millis(began.elapsed()),
                ..Usage::default()
            },
            denials: Vec::new(),
            log: Vec::new(),
            fresh: None,
        }
    }

    /// A store with every limit set. Fuel counts from before instantiation, because guests run code there too.
    fn store(
        &self,
        control: &Arc<Control>,
        attempt: u32,
        seed: u64,
        steps: Steps,
        workspace: &mut Option<Workspace>,
    ) -> wasmtime::Result<Store<Ctx>> {
        let effective = &self.effective;
        let Limits {
            fuel,
            hostcall_bytes,
            handles,
            ..
        } = effective.limits;
        if effective.workspace > Size(0) {
            let made = self.workspaces.make();
            *workspace = Some(made.map_err(|error| Fault(format!("cannot make a workspace: {error}")))?);
        }
        let path = workspace.as_ref().map(Workspace::path);
        let base = Base::new(effective, path, seed, control.pulse.clone(), steps)
            .map_err(|error| Stop::new(Reason::MountDenied, format!("{error}: {}", error.source)))?;
        control.writes_to(base.log.clone());
        let ctx = Ctx {
            base,
            limiter: Limiter::new(&effective.limits, self.total.clone()),
            control: control.clone(),
            grants: self.grants.clone(),
            identity: self.identity.clone(),
            attempt,
            artifacts: artifacts::build(effective),
            host: self.host.clone(),
        };
        let mut store = Store::new(&self.linked.engine, ctx);
        store.limiter(|ctx| &mut ctx.limiter);
        store.set_fuel(fuel.0)?;
        store.fuel_async_yield_interval(Some(YIELD_FUEL))?;
        store.set_hostcall_fuel(usize::try_from(hostcall_bytes.0).unwrap_or(usize::MAX));
        // A little above the table's own bound, so that its typed error comes first.
        let handles = usize::try_from(handles).unwrap_or(usize::MAX);
        store.set_max_component_handles(handles.saturating_add(handles / 16));
        Ok(store)
    }

    /// An instance, in the slot of an attempt that waits when there is no other.
    async fn instantiate(&self, store: &mut Store<Ctx>) -> wasmtime::Result<Instance> {
        loop {
            let made = self.linked.pre.instantiate_async(&mut *store).await;
            let full = |error: &wasmtime::Error| error.is::<PoolConcurrencyLimitError>();
            if !(made.as_ref().is_err_and(full) && self.total.make_room()) {
                return made;
            }
        }
    }

    async fn call(&self, store: &mut Store<Ctx>, call: Call, task: TaskView) -> wasmtime::Result<Outcome> {
        let linked = &*self.linked;
        let delivery = task.attempt;
        let task = convert::task(store.data().control.lease(), task);
        let instance = self.instantiate(&mut *store).await?;
        let outcome = match call {
            Call::Execute => {
                let guest = linked
                    .executor
                    .as_ref()
                    .ok_or_else(|| lacks(Export::Executor))?
                    .load(&mut *store, &instance)?;
                convert::executed(guest.call_execute(&mut *store, &task).await?)
            }
            Call::Plan { notes } => {
                let guest = linked
                    .planner
                    .as_ref()
                    .ok_or_else(|| lacks(Export::Planner))?
                    .load(&mut *store, &instance)?;
                convert::planned(guest.call_plan(&mut *store, &task, &convert::notes(notes)).await?)
            }
            Call::Check { result } => {
                let guest = linked
                    .checker
                    .as_ref()
                    .ok_or_else(|| lacks(Export::Checker))?
                    .load(&mut *store, &instance)?;
                Ok(convert::checked(
                    guest
                        .call_check(&mut *store, &task, &convert::payload_in(result))
                        .await?,
                ))
            }
            Call::Sequence { plan } => {
                let guest = linked
                    .sequencer
                    .as_ref()
                    .ok_or_else(|| lacks(Export::Sequencer))?
                    .load(&mut *store, &instance)?;
                convert::planned(guest.call_sequence(&mut *store, &convert::plan_in(*plan)).await?)
            }
            Call::Receive { message } => {
                let guest = linked
                    .mailbox
                    .as_ref()
                    .ok_or_else(|| lacks(Export::Mailbox))?
                    .load(&mut *store, &instance)?;
                let message = messages::received(*message, delivery);
                convert::received(guest.call_receive(&mut *store, &message).await?)
            }
        };
        Ok(outcome?)
    }
}

/// Lets an attempt burn no more than is left of its task's budget: at once, or, where a record is given first, from its end on.
fn confine(store: &mut Store<Ctx>, budget: u64) -> wasmtime::Result<()> {
    let fuel = store.get_fuel()?.min(budget);
    let ctx = store.data_mut();
    ctx.base.budget = Some(budget);
    if ctx.base.billed_from > 0 {
        ctx.base.billed_from = fuel;
        store.set_fuel(fuel)?;
    }
    Ok(())
}

/// Whether a message has waited here past its time, after the host had found it in time. What was begun before goes on.
fn is_late(call: &Call, task: &TaskView, steps: &Steps, waited: Duration) -> bool {
    match call {
        Call::Receive { message } => !steps.are_given() && messages::is_late(message, task.began, millis(waited)),
        _ => false,
    }
}

/// Asked of an agent that cannot do it: whoever assigned the task should have known.
fn lacks(export: Export) -> Stop {
    Stop::new(
        Reason::InvalidInput,
        format!("the agent's component does not export `{}`", export.interface()),
    )
}

/// Runs a call under its deadline and its control. Both are looked at before each poll, and guests that compute are polled again after each
/// [`YIELD_FUEL`]; the meter looks at them inside a poll that holds many calls, and a timer covers guests that wait. While the attempt is parked no
/// time passes; `began` is when it began or went on last. What is left when this returns can only be dropped.
async fn guard(
    call: impl Future<Output = wasmtime::Result<Outcome>>,
    control: &Arc<Control>,
    began: &mut Clock,
    deadline: Millis,
) -> Return {
    let mut call = std::pin::pin!(call);
    let mut timer: Option<Pin<Box<tokio::time::Sleep>>> = None;
    let mut deadline = deadline.duration();
    let end_in = |left: Duration| {
        let left = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        control.pulse.end_at(watchdog::now().saturating_add(left));
    };
    end_in(deadline.saturating_sub(began.elapsed()));
    let mut parked = false;
    let own = Waker::from(control.clone());
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if control.is_parked() {
            return Poll::Pending;
        }
        if std::mem::take(&mut parked) {
            *began = Clock::start();
            end_in(deadline);
        }
        let now = began.elapsed();
        control.enter(watchdog::now(), cx.waker());
        if let Some(halt) = control.halted() {
            control.leave(false);
            return Poll::Ready(Return::Halted(halt));
        }
        if now >= deadline {
            control.leave(false);
            return Poll::Ready(Return::Deadline);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut Context::from_waker(&own))));
        control.leave(matches!(polled, Ok(Poll::Pending)));
        match polled {
            Ok(Poll::Ready(result)) => return Poll::Ready(called(result, control)),
            Err(panic) => return Poll::Ready(Return::Panicked(text(&*panic))),
            Ok(Poll::Pending) if control.is_parked() => {
                (parked, timer) = (true, None);
                deadline = deadline.saturating_sub(began.elapsed());
                return Poll::Pending;
            }
            Ok(Poll::Pending) => {}
        }
        // Only attempts that are not over at once need a timer.
        let left = deadline.saturating_sub(now);
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Return::Deadline),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What a call that is over came to: one that the meter ended was ended for the reason that the meter looked for.
fn called(result: wasmtime::Result<Outcome>, control: &Control) -> Return {
    let Err(error) = &result else {
        return Return::Called(result);
    };
    let overdue = |stop: &Stop| stop.reason == Reason::DeadlineExceeded;
    match control.halted() {
        Some(halt) => Return::Halted(halt),
        None if error.downcast_ref().is_some_and(overdue) => Return::Deadline,
        None => Return::Called(result),
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let known = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    known
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
