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
    seam::{Call, Denial, End, Export, Identity, LogLine, TaskView, Usage},
};
use tempfile::TempDir;
use wasmtime::Store;

use crate::{
    Host,
    caps::{artifacts, base::Base, clocks::Clock, environment},
    control::Control,
    convert,
    ctx::{Ctx, Grants},
    limiter::{Limiter, Total},
    meter::Stop,
    outcome::{self, Fault, Return},
    sandbox::Linked,
    watchdog,
    workspace::Workspaces,
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

    /// Runs one attempt to its end, in a store that is gone when this returns. Must be polled inside a tokio runtime with timers; a guest computes on
    /// the thread that polls and gives way after each [`YIELD_FUEL`] units.
    pub async fn attempt(&self, control: &Arc<Control>, call: Call, task: TaskView) -> Ended {
        let began = Clock::start();
        let attempt = task.attempt;
        let mut workspace = None;
        let (mut store, mut usage) = match self.store(control, attempt, task.seed, &mut workspace) {
            Ok(store) => (store, Usage::default()),
            Err(error) => return self.stillborn(error, began),
        };
        let inner = self.call(&mut store, call, task);
        let returned = guard(inner, control, began, self.effective.limits.deadline).await;
        let limits = &self.effective.limits;
        usage.fuel = Fuel(limits.fuel.0.saturating_sub(store.get_fuel().unwrap_or(0)));
        usage.hostcalls = control.pulse.crossings();
        let ctx = store.data_mut();
        usage.peak_memory = Size(ctx.limiter.peak());
        let end = outcome::end(returned, limits, ctx.limiter.has_refused());
        let (mut denials, log) = (ctx.base.denials.take(), ctx.base.log.take());
        if !matches!(end, End::Finished(_)) {
            denials.retain(|denial| denial.what != environment::READ);
        }
        drop(store);
        remove(workspace);
        usage.wall = millis(began.elapsed());
        Ended {
            end,
            usage,
            denials,
            log,
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
        let mut store = self.store(control, 1, 0, &mut None).map_err(failed)?;
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
        let began = Clock::start();
        let mut workspace = None;
        let returned = match self.store(control, 0, 0, &mut workspace) {
            Ok(mut store) => {
                let inner = async {
                    self.linked.pre.instantiate_async(&mut store).await?;
                    Ok(Outcome::Accepted)
                };
                let deadline = self.effective.limits.deadline.min(WARM_UP);
                let returned = guard(inner, control, began, deadline).await;
                outcome::end(returned, &self.effective.limits, store.data().limiter.has_refused())
            }
            Err(error) => self.stillborn(error, began).end,
        };
        remove(workspace);
        let (reason, message) = match returned {
            End::Finished(_) => return Ok(()),
            End::Stopped { reason, message } => (reason, message),
            End::Overload { message } => (Reason::Overloaded, message),
            End::Cancelled | End::Fenced => (Reason::Cancelled, "the agent was forgotten while it was warmed".into()),
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
        }
    }

    /// A store with every limit set. Fuel counts from before instantiation, because guests run code there too.
    fn store(
        &self,
        control: &Arc<Control>,
        attempt: u32,
        seed: u64,
        workspace: &mut Option<TempDir>,
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
        let path = workspace.as_ref().map(TempDir::path);
        let base = Base::new(effective, path, seed, control.pulse.clone())
            .map_err(|error| Stop::new(Reason::MountDenied, format!("{error}: {}", error.source)))?;
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

    async fn call(&self, store: &mut Store<Ctx>, call: Call, task: TaskView) -> wasmtime::Result<Outcome> {
        let linked = &*self.linked;
        let task = convert::task(store.data().control.lease(), task);
        let instance = linked.pre.instantiate_async(&mut *store).await?;
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
        };
        Ok(outcome?)
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
/// [`YIELD_FUEL`]; the meter looks at them inside a poll that holds many calls, and a timer covers guests that wait. What is left when this returns
/// can only be dropped.
async fn guard(
    call: impl Future<Output = wasmtime::Result<Outcome>>,
    control: &Arc<Control>,
    began: Clock,
    deadline: Millis,
) -> Return {
    let mut call = std::pin::pin!(call);
    let mut timer: Option<Pin<Box<tokio::time::Sleep>>> = None;
    let left = deadline.duration().saturating_sub(began.elapsed());
    let left = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
    control.pulse.end_at(watchdog::now().saturating_add(left));
    let own = Waker::from(control.clone());
    std::future::poll_fn(|cx: &mut Context<'_>| {
        let now = began.elapsed();
        control.enter(watchdog::now(), cx.waker());
        if let Some(halt) = control.halted() {
            control.leave(false);
            return Poll::Ready(Return::Halted(halt));
        }
        if now >= deadline.duration() {
            control.leave(false);
            return Poll::Ready(Return::Deadline);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut Context::from_waker(&own))));
        control.leave(matches!(polled, Ok(Poll::Pending)));
        match polled {
            Ok(Poll::Ready(result)) => return Poll::Ready(called(result, control)),
            Err(panic) => return Poll::Ready(Return::Panicked(text(&*panic))),
            Ok(Poll::Pending) => {}
        }
        // Only attempts that are not over at once need a timer.
        let left = deadline.duration().saturating_sub(now);
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

/// Removes a workspace on a thread that may block: it holds what the guest left there.
fn remove(workspace: Option<TempDir>) {
    if let Some(workspace) = workspace {
        drop(tokio::task::spawn_blocking(move || drop(workspace)));
    }
}
