//! Takes commands, runs attempts, tells events. Decides nothing about tasks: it keeps agents ready, starts what it is told to start, and ends each
//! attempt exactly once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use skep_rules::{
    grant::Effective,
    id::{AgentId, Digest},
    limits::{
        LIVE_LOG_BYTES, LIVE_LOG_FRAME_BYTES, MAX_BLOCKING_THREADS, MAX_COMPILATIONS, MAX_WARMING, PARK, PARKED_SHARE,
        Tier,
    },
    reason::Reason,
    seam::{Beat, End, Identity, Lease, LogFrame, RunnerCommand, RunnerEvent, Usage},
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::Semaphore,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    Error, Host, Options,
    caps::clocks::Clock,
    control::{Control, Halt},
    instance::{Attempt, Ended, Prepared, Ran},
    plugin::Refused,
    sandbox::Sandbox,
    seats::{Parked, Place, Seats, Start},
    turns::Turns,
    watchdog::Watchdog,
};

/// How often signs of life are told.
const BEAT: Duration = Duration::from_secs(1);
/// How often attempts that wait are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long stopping waits for attempts: each ends at its next yield or at once, so this is reached only when one of them cannot be stopped.
const STOP: Duration = Duration::from_secs(5);

/// Runs attempts of agents. Stops when it is dropped; [`Runner::stop`] also waits.
#[derive(Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    /// Taken when the runner stops.
    runtime: Mutex<Option<Runtime>>,
    _watchdog: Watchdog,
}

/// What the runner's tasks share.
#[derive(Debug)]
struct Shared {
    host: Arc<dyn Host>,
    sandbox: Sandbox,
    handle: Handle,
    /// Every task that was spawned.
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Who compiles at the moment.
    turns: Turns,
    /// Agents that are tried out at a time: the engine has as many slots beyond those for attempts.
    warming: Semaphore,
    /// Agents that are ready or being made so. Locked for single look-ups and changes.
    agents: Mutex<HashMap<AgentId, Agent>>,
    /// Attempts that have not ended. Locked likewise; the loop of beats and the watchdog copy the list.
    seats: Mutex<Seats>,
    /// By which it is known how long attempts wait.
    clock: Clock,
}

#[derive(Debug)]
struct Agent {
    generation: u64,
    draining: bool,
    /// `None` while it is made ready.
    prepared: Option<Arc<Prepared>>,
    /// Ends making it ready when this entry goes: it was forgotten, or is warmed anew.
    _wanted: DropGuard,
}

impl std::fmt::Debug for dyn Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// Makes the engine, the threads and the directories.
    ///
    /// # Errors
    /// When the engine cannot be made, a directory cannot be used or no threads can be had.
    pub fn start(options: Options, host: Arc<dyn Host>) -> Result<Arc<Self>, Error> {
        let sandbox = Sandbox::new(&options)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.guest_threads.max(1))
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name("guest")
            .enable_time()
            .build()
            .map_err(Error::Threads)?;
        let shared = Arc::new(Shared {
            host,
            sandbox,
            handle: runtime.handle().clone(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            turns: Turns::new(MAX_COMPILATIONS),
            warming: Semaphore::new(MAX_WARMING as usize),
            agents: Mutex::default(),
            seats: Mutex::default(),
            clock: Clock::start(),
        });
        let spared = Arc::downgrade(&shared);
        let spare = move || spared.upgrade().is_some_and(|shared| shared.spare());
        shared.sandbox.total().spare_with(Box::new(spare));
        let watched = Arc::downgrade(&shared);
        let live = move || watched.upgrade().map(|shared| shared.live()).unwrap_or_default();
        let watchdog = Watchdog::start(live).map_err(Error::Threads)?;
        for (period, act) in [(BEAT, beat as fn(&Shared)), (LOOK, evict_old), (LOOK, tell_lines)] {
            let each = each(period, Arc::downgrade(&shared), shared.stop.clone(), act);
            shared.tasks.spawn_on(each, &shared.handle);
        }
        Ok(Arc::new(Runner {
            shared,
            runtime: Mutex::new(Some(runtime)),
            _watchdog: watchdog,
        }))
    }

    /// Attempts that can be live at once: what was asked for, or what the machine holds.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.shared.sandbox.slots()
    }

    /// Compiles a component into the code cache, unless its code is there, and refuses what no tier could instantiate. For uploads: what is
    /// installed is warmed without compiling anything. Waits until fewer than [`MAX_COMPILATIONS`] others are being compiled, none of them for the
    /// same publisher, and then for the compiler: with the bounds on that, up to a minute.
    ///
    /// # Errors
    /// When the component does not compile, or not within the compiler's limits; when it imports core modules, or declares more memories, tables
    /// or bytes than the tier `large` has; when the host itself fails, which is no fault of the component.
    pub async fn compile(&self, publisher: &str, tier: Tier, digest: Digest, bytes: Vec<u8>) -> Result<(), Refused> {
        let turn = self.shared.turns.take(publisher).await;
        let shared = self.shared.clone();
        let compile = move || {
            // Held until the compiler is gone, also when whoever asked no longer waits.
            let _turn = turn;
            shared.sandbox.compile(&*shared.host, tier, digest, || Ok(bytes))
        };
        let compiled = self.shared.handle.spawn_blocking(compile).await;
        compiled.unwrap_or_else(|error| {
            Err(Refused {
                reason: Reason::HostFault,
                message: format!("compiling failed: {error}"),
            })
        })
    }

    /// Attempts that are live now.
    #[must_use]
    pub fn attempts(&self) -> usize {
        lock(&self.shared.seats).live.len()
    }

    /// Takes a command. Returns at once; what becomes of it is told as events. After [`Runner::stop`] commands are ignored.
    pub fn command(&self, command: RunnerCommand) {
        if self.shared.stop.is_cancelled() {
            return;
        }
        match command {
            RunnerCommand::Warm {
                agent,
                component,
                effective,
            } => self.shared.warm(agent, component, effective),
            RunnerCommand::Start {
                lease,
                call,
                task,
                recorded,
            } => self.shared.start(Start {
                lease,
                call,
                task,
                recorded,
            }),
            RunnerCommand::Cancel { lease } => {
                // One that is not live has ended, and its `Ended` has been told.
                if let Some(control) = lock(&self.shared.seats).live.get(&lease) {
                    control.cancel();
                }
            }
            RunnerCommand::Drain { agent } => self.shared.drain(agent),
            RunnerCommand::Forget { agent } => self.shared.forget(agent),
        }
    }

    /// Ends every attempt (told as `Ended` with an overload, because it is not the agent's doing) and waits until the last has been told.
    pub async fn stop(&self) {
        // In this order: an attempt that begins in between finds the runner stopped.
        self.shared.stop.cancel();
        self.shared.halt(Halt::Stopping, |_| true);
        self.shared.evict(|_, _| true);
        self.shared.tasks.close();
        if tokio::time::timeout(STOP, self.shared.tasks.wait()).await.is_err() {
            tracing::error!("attempts are still running after {STOP:?}; their threads are left behind");
        }
        let runtime = lock(&self.runtime).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
impl Runner {
    /// Attempts that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.tasks_waiting().len()
    }

    /// Whose they are.
    pub(crate) fn tasks_waiting(&self) -> Vec<skep_rules::id::TaskId> {
        lock(&self.shared.seats).waiting()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.halt(Halt::Stopping, |_| true);
        self.shared.evict(|_, _| true);
        let runtime = lock(&self.runtime).take();
        if let Some(runtime) = runtime {
            // Also where the last owner is a task: waiting there would be a panic.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn live(&self) -> Vec<Arc<Control>> {
        lock(&self.seats).live.values().cloned().collect()
    }

    fn halt(&self, halt: Halt, which: impl Fn(&Lease) -> bool) {
        for control in self.live().iter().filter(|control| which(&control.lease())) {
            control.halt(halt);
        }
    }

    fn warm(self: &Arc<Self>, identity: Identity, component: Digest, effective: Effective) {
        let (agent, generation) = (identity.agent, identity.generation);
        let unwanted = self.stop.child_token();
        let entry = Agent {
            generation,
            draining: false,
            prepared: None,
            _wanted: unwanted.clone().drop_guard(),
        };
        if let Some(older) = lock(&self.agents).insert(agent, entry) {
            older.prepared.inspect(|prepared| prepared.grants.revoke());
        }
        let older = |lease: &Lease| lease.agent == agent && lease.generation < generation;
        self.halt(Halt::Fenced, older);
        self.evict(|lease, _| older(&lease));
        let shared = self.clone();
        let warming = async move {
            let ready = tokio::select! {
                ready = shared.prepare(identity, component, effective) => ready,
                // Nobody waits for the answer.
                () = unwanted.cancelled() => return,
            };
            let event = match ready {
                Ok(prepared) => match shared.keep(agent, generation, prepared) {
                    true => RunnerEvent::Warmed { agent, generation },
                    // Forgotten, or warmed again, since it became ready.
                    false => return,
                },
                Err(Refused { reason, message }) => RunnerEvent::WarmFailed {
                    agent,
                    generation,
                    reason,
                    message,
                },
            };
            shared.host.event(event);
        };
        self.tasks.spawn_on(warming, &self.handle);
    }

    async fn prepare(
        self: &Arc<Self>,
        identity: Identity,
        component: Digest,
        effective: Effective,
    ) -> Result<Arc<Prepared>, Refused> {
        let fault = |message: String| Refused {
            reason: Reason::HostFault,
            message,
        };
        let lease = Lease {
            task: skep_rules::id::TaskId::new(0, 0),
            epoch: 0,
            agent: identity.agent,
            generation: identity.generation,
        };
        let work = (self.clone(), identity, effective);
        let (shared, identity, effective) = work.clone();
        let compiled = tokio::task::spawn_blocking(move || {
            shared
                .sandbox
                .prepare_compiled(&shared.host, &identity, component, &effective)
        });
        let failed = |error| fault(format!("preparing failed: {error}"));
        let prepared = match compiled.await.map_err(failed)?? {
            Some(prepared) => prepared,
            None => {
                let turn = self.turns.take(&component.to_string()).await;
                let (shared, identity, effective) = work;
                let prepare = move || {
                    let _turn = turn;
                    shared
                        .sandbox
                        .prepare(shared.host.clone(), identity, component, effective)
                };
                tokio::task::spawn_blocking(prepare).await.map_err(failed)??
            }
        };
        let _slot = self.warming.acquire().await.map_err(|error| fault(error.to_string()))?;
        loop {
            match prepared.try_out(&Control::new(lease)).await {
                // What is short now need not be short for ever: an agent is not given up for its neighbours' sake. Whoever wants it no longer ends this.
                Err(Refused {
                    reason: Reason::Overloaded,
                    ..
                }) => tokio::time::sleep(BEAT).await,
                tried => break tried.map(|()| prepared),
            }
        }
    }

    /// Keeps what was made ready; false when nobody wants it any more.
    fn keep(&self, agent: AgentId, generation: u64, prepared: Arc<Prepared>) -> bool {
        match lock(&self.agents).get_mut(&agent) {
            Some(entry) if entry.generation == generation => {
                entry.prepared = Some(prepared);
                true
            }
            _ => false,
        }
    }

    fn start(self: &Arc<Self>, start: Start) {
        let lease = start.lease;
        let agent = self.ready(lease);
        let placed = lock(&self.seats).place(start, agent.as_deref().ok());
        match placed {
            // One lease is one attempt and one `Ended`: the first goes on.
            Place::Taken => tracing::error!(?lease, "an attempt was started twice"),
            Place::Early => {}
            Place::Begins(start, unfit) => {
                self.drop_all(unfit);
                self.begin(start, agent);
            }
            Place::GoesOn(start, parked) => self.go_on(&start, parked, agent),
        }
    }

    fn begin(self: &Arc<Self>, start: Start, agent: Result<Arc<Prepared>, End>) {
        let Start {
            lease,
            call,
            task,
            recorded,
        } = start;
        let control = Control::new(lease);
        if !self.seat(lease, &control) {
            return;
        }
        let shared = self.clone();
        let attempt = async move {
            match agent {
                Ok(agent) => shared.run(agent.begin(control, call, task, recorded)).await,
                Err(end) => shared.ended(lease, unbegun(end)),
            }
        };
        self.tasks.spawn_on(attempt, &self.handle);
    }

    /// Lets an attempt that waited go on where it is.
    fn go_on(self: &Arc<Self>, start: &Start, parked: Parked, agent: Result<Arc<Prepared>, End>) {
        let (lease, mut attempt) = (start.lease, parked.attempt);
        if !self.seat(lease, attempt.control()) {
            return self.discard(attempt);
        }
        match agent {
            Ok(agent) => attempt.resume(lease, agent, start.recorded),
            Err(end) => {
                self.discard(attempt);
                return self.ended(lease, unbegun(end));
            }
        }
        let shared = self.clone();
        self.tasks
            .spawn_on(async move { shared.run(attempt).await }, &self.handle);
    }

    /// Gives a lease to an attempt; false when it is another's.
    fn seat(&self, lease: Lease, control: &Arc<Control>) -> bool {
        let seated = lock(&self.seats).seat(lease, control.clone());
        if self.stop.is_cancelled() {
            // Whoever stops the runner may have halted what was live before this was.
            control.halt(Halt::Stopping);
        }
        if lock(&self.agents).get(&lease.agent).is_some_and(|agent| agent.draining) {
            control.drain();
        }
        seated
    }

    /// Runs an attempt until it ends or waits. That it has begun is told when it first gives way: of one that is over by then, or has taken a step, that
    /// says so too.
    async fn run(self: &Arc<Self>, mut attempt: Attempt) {
        let lease = attempt.control().lease();
        let ran = {
            let mut run = std::pin::pin!(attempt.run());
            let mut told = false;
            std::future::poll_fn(|cx| {
                let polled = run.as_mut().poll(cx);
                if polled.is_pending() && !std::mem::replace(&mut told, true) {
                    self.host.event(RunnerEvent::Started { lease });
                }
                polled
            })
            .await
        };
        match ran {
            Ran::Ended(ended) => self.ended(attempt.control().lease(), ended),
            Ran::Waiting => self.park(attempt),
        }
    }

    /// Keeps an attempt that waits: no longer than [`PARK`], and only while nobody else needs its room.
    fn park(self: &Arc<Self>, attempt: Attempt) {
        let most = (self.sandbox.slots() / PARKED_SHARE).max(1) as usize;
        if let Some(frame) = attempt.control().fresh(LIVE_LOG_BYTES) {
            self.host.event(RunnerEvent::Lines { frames: vec![frame] });
        }
        let (early, dropped) = lock(&self.seats).park(attempt, self.clock.elapsed(), most);
        self.drop_all(dropped);
        if self.stop.is_cancelled() {
            self.evict(|_, _| true);
        } else if let Some(start) = early {
            self.start(start);
        }
    }

    /// Drops attempts that wait; their tasks go on by their records.
    fn evict(&self, which: impl Fn(Lease, Duration) -> bool) {
        let dropped = lock(&self.seats).evict(which);
        self.drop_all(dropped);
    }

    /// Drops the attempt that has waited longest; false when none waits.
    fn spare(&self) -> bool {
        let oldest = lock(&self.seats).oldest();
        let found = oldest.is_some();
        self.drop_all(oldest);
        found
    }

    fn drop_all(&self, parked: impl IntoIterator<Item = Parked>) {
        parked.into_iter().for_each(|parked| self.discard(parked.attempt));
    }

    /// Drops an attempt that waits here and now, says what it has used, and leaves its directory to the threads that may block.
    fn discard(&self, mut attempt: Attempt) {
        let _runtime = self.handle.enter();
        let lease = attempt.control().lease();
        if let Some(Ended { usage, denials, .. }) = attempt.break_off() {
            self.host.event(RunnerEvent::Evicted { lease, usage, denials });
        }
    }

    fn ended(self: &Arc<Self>, lease: Lease, ended: Ended) {
        let Ended {
            end,
            usage,
            denials,
            log,
            fresh,
        } = ended;
        if let End::HostFault { message } = &end {
            tracing::error!(?lease, message, "an attempt ended by a fault of the host");
        }
        let early = lock(&self.seats).leave(lease);
        if let Some(frame) = fresh {
            self.host.event(RunnerEvent::Lines { frames: vec![frame] });
        }
        self.host.event(RunnerEvent::Ended {
            lease,
            end,
            usage,
            denials,
            log,
        });
        if let Some(start) = early {
            self.start(start);
        }
    }

    /// What the attempt runs in, or how it ends because there is no such thing.
    fn ready(&self, lease: Lease) -> Result<Arc<Prepared>, End> {
        match lock(&self.agents).get(&lease.agent) {
            Some(agent) if agent.generation != lease.generation => Err(End::Fenced),
            Some(Agent {
                prepared: Some(prepared),
                ..
            }) => Ok(prepared.clone()),
            _ => Err(End::Overload {
                message: "the agent is not ready on this runner".into(),
            }),
        }
    }

    fn drain(&self, agent: AgentId) {
        if let Some(agent) = lock(&self.agents).get_mut(&agent) {
            agent.draining = true;
        }
        let live = self.live();
        live.iter()
            .filter(|control| control.lease().agent == agent)
            .for_each(|control| control.drain());
    }

    fn forget(&self, agent: AgentId) {
        if let Some(agent) = lock(&self.agents).remove(&agent) {
            agent.prepared.inspect(|prepared| prepared.grants.revoke());
        }
        self.halt(Halt::Cancelled, |lease| lease.agent == agent);
        self.evict(|lease, _| lease.agent == agent);
    }
}

/// An attempt that ended before it began.
fn unbegun(end: End) -> Ended {
    Ended {
        end,
        usage: Usage::default(),
        denials: Vec::new(),
        log: Vec::new(),
        fresh: None,
    }
}

/// Does something again and again, until the runner stops.
async fn each(period: Duration, shared: Weak<Shared>, stop: CancellationToken, act: impl Fn(&Shared)) {
    let mut every = tokio::time::interval(period);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(shared) = shared.upgrade() else { return };
        act(&shared);
    }
}

/// Drops attempts that have waited too long to be kept.
fn evict_old(shared: &Shared) {
    let now = shared.clock.elapsed();
    shared.evict(|_, since| now.saturating_sub(since) >= PARK.duration());
}

/// Tells what was written lately, all of it in one message. Where many write, each is told of less.
fn tell_lines(shared: &Shared) {
    let live = shared.live();
    let share = (LIVE_LOG_FRAME_BYTES / live.len().max(1)).min(LIVE_LOG_BYTES);
    let frames: Vec<LogFrame> = live.iter().filter_map(|control| control.fresh(share)).collect();
    if !frames.is_empty() {
        shared.host.event(RunnerEvent::Lines { frames });
    }
}

/// Tells signs of life, those of all attempts in one message.
fn beat(shared: &Shared) {
    let beats: Vec<Beat> = shared.live().iter().filter_map(|control| control.beat()).collect();
    if !beats.is_empty() {
        shared.host.event(RunnerEvent::Beats { beats });
    }
}

#[cfg(test)]
mod tests {
    use skep_rules::{
        plan::{Outcome, Payload},
        quantity::{Fuel, Millis, Size},
        seam::Call,
    };

    use super::*;
    use crate::trial::{Trial, agent, effective, identity, lease, module, with_artifacts};

    const SPIN: &str = "(loop $again (br $again)) unreachable";

    fn reason(end: &End) -> Option<Reason> {
        match end {
            End::Stopped { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    #[test]
    fn an_attempt_runs_to_its_end_and_says_what_it_used() {
        let trial = Trial::new();
        let beat = "(drop (call $beat (i32.const 1) (i32.const 40))) (drop (memory.grow (i32.const 3))) i32.const 1024";
        let (end, usage, denials, log) = trial.run(beat, effective(|_| {}));
        assert_eq!(end, End::Finished(Outcome::Done(Payload::Inline(vec![]))));
        assert_eq!((usage.hostcalls, usage.peak_memory), (1, Size(4 << 16)));
        assert!((1..5_000).contains(&usage.fuel.0), "{:?}", usage.fuel);
        assert!(denials.is_empty() && log.is_empty());
        assert_eq!(
            std::fs::read_dir(trial.dir.path().join("workspaces")).unwrap().count(),
            0
        );
    }

    #[test]
    fn every_bound_ends_the_attempt_with_its_own_reason() {
        let trial = Trial::new();
        let short = |limits: &mut skep_rules::limits::Limits| limits.deadline = Millis(50);
        let little = |limits: &mut skep_rules::limits::Limits| limits.fuel = Fuel(1_000_000);
        let cases = [
            (SPIN, effective(little), Reason::FuelExhausted),
            (SPIN, effective(short), Reason::DeadlineExceeded),
            ("unreachable", effective(|_| {}), Reason::Trapped),
            ("(call $deep (i32.const 0))", effective(|_| {}), Reason::StackOverflow),
            ("(i32.load (i32.const 0x7fffffff))", effective(|_| {}), Reason::Trapped),
            // Growing to the limit is answered with -1; dying of that is the memory limit.
            (
                "(if (i32.eq (memory.grow (i32.const 190)) (i32.const -1)) (then unreachable)) i32.const 1024",
                effective(|limits| limits.memory = Size(1 << 20)),
                Reason::MemoryLimit,
            ),
            (
                "(loop $again (drop (call $beat (i32.const 0) (i32.const 0))) (br $again)) unreachable",
                effective(|limits| limits.hostcalls_per_second = 1_000),
                Reason::RateLimited,
            ),
            // The result lies outside memory.
            ("i32.const -8", effective(|_| {}), Reason::Trapped),
        ];
        for (body, effective, expected) in cases {
            let (end, ..) = trial.run(body, effective);
            assert_eq!(reason(&end), Some(expected), "{body}: {end:?}");
        }
    }

    #[test]
    fn fuel_is_metered_exactly() {
        let trial = Trial::new();
        let used = |_| {
            trial
                .run(SPIN, effective(|limits| limits.fuel = Fuel(12_345_678)))
                .1
                .fuel
        };
        assert_eq!((0..2).map(used).collect::<Vec<_>>(), [Fuel(12_345_678); 2]);
    }

    #[test]
    fn a_spinning_guest_is_alive_and_can_be_cancelled() {
        let trial = Trial::new();
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        trial.start(1, Call::Execute);
        trial.started(1);
        let beats = trial.beat();
        assert!(beats[0].lease == lease(1) && beats[0].fuel > Fuel(0) && beats[0].crossings == 0);
        trial.runner.command(RunnerCommand::Cancel { lease: lease(1) });
        let (end, usage, ..) = trial.ended(1);
        assert_eq!(end, End::Cancelled);
        assert!(usage.fuel > Fuel(0));
    }

    #[test]
    fn a_new_generation_fences_the_old_and_is_not_taken_for_it() {
        let trial = Trial::new();
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        trial.start(1, Call::Execute);
        trial.started(1);
        trial.runner.command(RunnerCommand::Warm {
            agent: identity(2),
            component: Digest::of(&agent(SPIN)),
            effective: effective(|_| {}),
        });
        let mut told = [trial.next(), trial.next()];
        told.sort_by_key(|event| matches!(event, RunnerEvent::Warmed { .. }));
        assert!(
            matches!(&told[0], RunnerEvent::Ended { end: End::Fenced, .. }),
            "{told:?}"
        );
        assert!(
            matches!(&told[1], RunnerEvent::Warmed { generation: 2, .. }),
            "{told:?}"
        );
        // An attempt of the first generation, told to start too late.
        trial.start(2, Call::Execute);
        assert_eq!(trial.ended(2).0, End::Fenced);
    }

    #[test]
    fn forgetting_and_stopping_end_what_runs() {
        let trial = Trial::new();
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        trial.start(1, Call::Execute);
        trial.started(1);
        trial.runner.command(RunnerCommand::Forget { agent: lease(1).agent });
        assert_eq!(trial.ended(1).0, End::Cancelled);
        trial.start(2, Call::Execute);
        assert!(
            matches!(trial.ended(2).0, End::Overload { .. }),
            "a forgotten agent is not ready"
        );

        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        trial.start(3, Call::Execute);
        trial.started(3);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(trial.runner.stop());
        assert!(matches!(trial.ended(3).0, End::Overload { .. }));
    }

    /// Waits until so many agents are being tried out.
    fn tried_out(trial: &Trial, agents: usize) {
        let free = MAX_WARMING as usize - agents;
        let reached = || trial.runner.shared.warming.available_permits() == free;
        // Some ten seconds.
        let found = (0..1_000).any(|_| {
            reached() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        });
        assert!(
            found,
            "{} agents are tried out",
            MAX_WARMING as usize - trial.runner.shared.warming.available_permits()
        );
    }

    fn neighbour(number: u128) -> Identity {
        Identity {
            agent: AgentId::new(number << 16, 0),
            ..identity(1)
        }
    }

    #[test]
    fn whoever_is_forgotten_is_no_longer_made_ready() {
        let trial = Trial::new();
        let spins = module(
            r#"(module (memory (export "memory") 1)
                (func $start (loop $again (br $again))) (start $start)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
                (func (export "skep:agent/executor@0.1.0#execute") (param i32) (result i32) i32.const 1024))"#,
        );
        let component = trial.offer(&spins);
        let neighbours = || (2..2 + u128::from(MAX_WARMING)).map(neighbour);
        for agent in neighbours() {
            let effective = effective(|limits| limits.fuel = Fuel(u64::MAX));
            trial.runner.command(RunnerCommand::Warm {
                agent,
                component,
                effective,
            });
        }
        tried_out(&trial, MAX_WARMING as usize);
        for Identity { agent, .. } in neighbours() {
            trial.runner.command(RunnerCommand::Forget { agent });
        }
        tried_out(&trial, 0);
        // The next that is told: nothing of those that were forgotten.
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
    }

    #[test]
    fn an_agent_waits_for_room_to_be_tried_out() {
        let trial = Trial::new();
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        let pool = 8 + u64::from(MAX_WARMING);
        for epoch in 0..pool {
            trial.start(epoch, Call::Execute);
            trial.started(epoch);
        }
        trial.runner.command(RunnerCommand::Warm {
            agent: neighbour(2),
            component: Digest::of(&agent(SPIN)),
            effective: effective(|_| {}),
        });
        tried_out(&trial, 1);
        // Two are a second apart: it has been refused by then, and still waits.
        trial.beat();
        trial.beat();
        tried_out(&trial, 1);
        trial.runner.command(RunnerCommand::Cancel { lease: lease(0) });
        assert_eq!(trial.ended(0).0, End::Cancelled);
        let told = trial.next();
        let waited = matches!(told, RunnerEvent::Warmed { agent, .. } if agent == neighbour(2).agent);
        assert!(waited, "{told:?}");
    }

    #[test]
    fn a_lease_is_one_attempt_however_often_it_is_started() {
        let trial = Trial::new();
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        trial.start(1, Call::Execute);
        trial.start(1, Call::Execute);
        trial.started(1);
        trial.runner.command(RunnerCommand::Cancel { lease: lease(1) });
        assert_eq!(trial.ended(1).0, End::Cancelled);
        trial.start(2, Call::Execute);
        trial.started(2);
    }

    #[test]
    fn a_full_pool_is_an_overload_and_slots_come_back() {
        let trial = Trial::new();
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        let pool = 8 + 16;
        (0..=pool).for_each(|epoch| trial.start(epoch, Call::Execute));
        let mut overloads = 0;
        // All begin but the one that finds no slot, which ends.
        for _ in 0..=pool {
            overloads += u64::from(matches!(
                trial.next(),
                RunnerEvent::Ended {
                    end: End::Overload { .. },
                    ..
                }
            ));
        }
        assert_eq!(overloads, 1);
        (0..=pool).for_each(|epoch| trial.runner.command(RunnerCommand::Cancel { lease: lease(epoch) }));
        for _ in 0..pool {
            assert!(matches!(
                trial.next(),
                RunnerEvent::Ended {
                    end: End::Cancelled,
                    ..
                }
            ));
        }
        trial.start(100, Call::Execute);
        trial.started(100);
    }

    #[test]
    fn that_an_attempt_has_begun_is_told_when_it_gives_way() {
        let trial = Trial::new();
        let told = || trial.bench.gave_way.load(std::sync::atomic::Ordering::Relaxed);
        trial.warm(&agent("i32.const 1024"), 1, effective(|_| {})).unwrap();
        trial.start(1, Call::Execute);
        trial.started(1);
        assert!(matches!(trial.ended(1).0, End::Finished(_)));
        assert_eq!(told(), 0, "its end says so too");
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        trial.start(2, Call::Execute);
        trial.started(2);
        assert_eq!(told(), 1);
    }

    #[test]
    fn what_was_not_granted_is_refused_before_anything_runs() {
        let trial = Trial::new();
        let reads =
            "(call $read (i32.const 2048) (i32.const 64) (i64.const 0) (i32.const 9) (i32.const 512)) i32.const 1024";
        let (reason, message) = trial.warm(&agent(reads), 1, effective(|_| {})).unwrap_err();
        assert_eq!(reason, Reason::CapabilityDenied);
        assert!(
            message.contains("skep:agent/artifacts") && message.contains("artifacts ="),
            "{message}"
        );
        let (end, usage, ..) = trial.run(reads, with_artifacts(1));
        assert_eq!(
            (end, usage.hostcalls),
            (End::Finished(Outcome::Done(Payload::Inline(vec![]))), 1)
        );
    }

    #[test]
    fn a_call_that_is_not_exported_is_refused_by_name() {
        let trial = Trial::new();
        trial.warm(&agent(SPIN), 1, effective(|_| {})).unwrap();
        trial.start(1, Call::Plan { notes: vec![] });
        trial.started(1);
        let End::Stopped { reason, message } = trial.ended(1).0 else {
            panic!("it cannot plan")
        };
        assert_eq!(reason, Reason::InvalidInput);
        assert!(message.contains("skep:agent/planner"), "{message}");
    }

    #[test]
    fn a_start_function_is_metered_like_everything_else() {
        let trial = Trial::new();
        let spins = module(
            r#"(module (memory (export "memory") 1)
                (func $start (loop $again (br $again))) (start $start)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
                (func (export "skep:agent/executor@0.1.0#execute") (param i32) (result i32) i32.const 1024))"#,
        );
        let little = effective(|limits| limits.fuel = Fuel(1_000_000));
        let (reason, message) = trial.warm(&spins, 1, little).unwrap_err();
        assert_eq!(reason, Reason::FuelExhausted, "{message}");
    }

    #[test]
    fn what_cannot_fit_is_refused_when_it_is_warmed() {
        let trial = Trial::new();
        let (reason, _) = trial
            .warm(&agent(SPIN), 1, effective(|limits| limits.memory = Size(1 << 10)))
            .unwrap_err();
        assert_eq!(reason, Reason::MemoryLimit);
        let mount = |host: String| {
            let mut effective = effective(|_| {});
            effective.mounts.push(skep_rules::grant::Mount {
                guest: "/input".parse().unwrap(),
                host,
                access: skep_rules::manifest::Access::Read,
            });
            effective
        };
        let dir = trial.dir.path().canonicalize().unwrap();
        let (file, link) = (dir.join("file"), dir.join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        for bad in [file, link, dir.join("none"), "relative".into()] {
            let (reason, message) = trial
                .warm(&agent(SPIN), 1, mount(bad.display().to_string()))
                .unwrap_err();
            assert!(reason == Reason::MountDenied && message.contains("/input"), "{message}");
        }
        trial.warm(&agent(SPIN), 1, mount(dir.display().to_string())).unwrap();
    }

    /// Waits for something that a runner does on its own threads.
    fn wait<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(work)
    }

    #[test]
    fn what_was_compiled_for_an_upload_is_warmed_without_its_bytes() {
        let trial = Trial::new();
        let bytes = agent("unreachable");
        let digest = Digest::of(&bytes);
        let compile = |bytes: Vec<u8>| wait(trial.runner.compile("acme", Tier::Medium, Digest::of(&bytes), bytes));
        assert_eq!(compile(bytes.clone()), Ok(()));
        assert_eq!(compile(bytes), Ok(()), "again changes nothing");
        let files = || std::fs::read_dir(trial.dir.path().join("cache")).unwrap().count();
        assert_eq!(files(), 1);
        // The host was never given the bytes of this one.
        trial.runner.command(RunnerCommand::Warm {
            agent: identity(1),
            component: digest,
            effective: effective(|_| {}),
        });
        assert!(matches!(trial.next(), RunnerEvent::Warmed { .. }));

        let one = |n: usize| format!("(core module $m{n} (memory 0)) (core instance (instantiate $m{n}))");
        let five: String = (0..5).map(one).collect();
        let five = wat::parse_str(format!("(component {five})")).unwrap();
        assert_eq!(compile(five), Ok(()), "a crew may raise its tier");
        let many: String = (0..17).map(one).collect();
        let many = format!("(component {many})");
        let refused = compile(wat::parse_str(many).unwrap()).unwrap_err();
        assert_eq!(refused.reason, Reason::CompileLimit, "{refused:?}");
        assert_eq!(files(), 2, "nothing stays of what was refused");
        let refused = compile(b"\0asm\x0d\0\x01\0\xff".to_vec()).unwrap_err();
        assert_eq!(refused.reason, Reason::CompileLimit, "{refused:?}");
    }

    #[test]
    fn a_changed_file_of_the_cache_is_told_once_and_compiled_anew() {
        let trial = Trial::new();
        let bytes = agent("unreachable");
        trial.warm(&bytes, 1, effective(|_| {})).unwrap();
        trial.runner.command(RunnerCommand::Forget { agent: lease(1).agent });
        let cache = trial.dir.path().join("cache");
        let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        let good = std::fs::read(&file).unwrap();
        let mut changed = good.clone();
        *changed.last_mut().unwrap() ^= 1;
        std::fs::write(&file, changed).unwrap();
        trial.runner.command(RunnerCommand::Warm {
            agent: identity(2),
            component: Digest::of(&bytes),
            effective: effective(|_| {}),
        });
        let RunnerEvent::CacheRefused { digest, why } = trial.next() else {
            panic!("it is told first")
        };
        assert!(digest == Digest::of(&bytes) && why.contains("tag"), "{why}");
        assert!(matches!(trial.next(), RunnerEvent::Warmed { .. }));
        assert_eq!(std::fs::read(&file).unwrap(), good);
    }
}
