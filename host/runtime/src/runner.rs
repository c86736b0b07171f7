//! Takes commands, runs attempts, tells events. Decides nothing about tasks: it keeps agents ready, starts what it is told to start, and ends each
//! attempt exactly once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use skep_rules::{
    grant::Effective,
    id::{AgentId, Digest},
    reason::Reason,
    seam::{Beat, Call, End, Identity, Lease, RunnerCommand, RunnerEvent, TaskView, Usage},
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error, Host, Options,
    control::{Control, Halt},
    instance::{Ended, Prepared},
    plugin::Refused,
    sandbox::Sandbox,
    watchdog::Watchdog,
};

/// How often signs of life are told.
const BEAT: Duration = Duration::from_secs(1);
/// How long stopping waits for attempts: each ends at its next yield or at once, so this is reached only when one of them cannot be stopped.
const STOP: Duration = Duration::from_secs(5);
/// Threads for what may block: reading, compiling, removing workspaces.
const BLOCKING_THREADS: usize = 16;
/// Components compiled at a time; each takes one core and up to hundreds of MiB.
const COMPILATIONS: usize = 2;

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
    compilations: Semaphore,
    /// Agents that are ready or being made so. Locked for single look-ups and changes.
    agents: Mutex<HashMap<AgentId, Agent>>,
    /// Attempts that have not ended. Locked likewise; the loop of beats and the watchdog copy the list.
    live: Mutex<BTreeMap<Lease, Arc<Control>>>,
}

#[derive(Debug)]
struct Agent {
    generation: u64,
    draining: bool,
    /// `None` while it is made ready.
    prepared: Option<Arc<Prepared>>,
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
            .max_blocking_threads(BLOCKING_THREADS)
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
            compilations: Semaphore::new(COMPILATIONS),
            agents: Mutex::default(),
            live: Mutex::default(),
        });
        let watched = Arc::downgrade(&shared);
        let live = move || watched.upgrade().map(|shared| shared.live()).unwrap_or_default();
        let watchdog = Watchdog::start(live).map_err(Error::Threads)?;
        shared.tasks.spawn_on(beats(Arc::downgrade(&shared), shared.stop.clone()), &shared.handle);
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
            RunnerCommand::Start { lease, call, task } => self.shared.start(lease, call, task),
            RunnerCommand::Cancel { lease } => {
                // One that is not live has ended, and its `Ended` has been told.
                if let Some(control) = lock(&self.shared.live).get(&lease) {
                    control.cancel();
                }
            }
            RunnerCommand::Drain { agent } => self.shared.drain(agent),
            RunnerCommand::Forget { agent } => self.shared.forget(agent),
        }
    }

    /// Ends every attempt (told as `Ended` with an overload, because it is not the agent's doing) and waits until the last has been told.
    pub async fn stop(&self) {
        self.shared.halt(Halt::Stopping, |_| true);
        self.shared.stop.cancel();
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

impl Drop for Runner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.halt(Halt::Stopping, |_| true);
        let runtime = lock(&self.runtime).take();
        if let Some(runtime) = runtime {
            // Also where the last owner is a task: waiting there would be a panic.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn live(&self) -> Vec<Arc<Control>> {
        lock(&self.live).values().cloned().collect()
    }

    fn halt(&self, halt: Halt, which: impl Fn(&Lease) -> bool) {
        for control in self.live().iter().filter(|control| which(&control.lease())) {
            control.halt(halt);
        }
    }

    fn warm(self: &Arc<Self>, identity: Identity, component: Digest, effective: Effective) {
        let (agent, generation) = (identity.agent, identity.generation);
        let entry = Agent {
            generation,
            draining: false,
            prepared: None,
        };
        if let Some(older) = lock(&self.agents).insert(agent, entry) {
            older.prepared.inspect(|prepared| prepared.grants.revoke());
        }
        self.halt(Halt::Fenced, |lease| lease.agent == agent && lease.generation < generation);
        let shared = self.clone();
        let warming = async move {
            let ready = tokio::select! {
                ready = shared.prepare(identity, component, effective) => ready,
                () = shared.stop.cancelled() => return,
            };
            let event = match ready {
                Ok(prepared) => match shared.keep(agent, generation, prepared) {
                    true => RunnerEvent::Warmed { agent, generation },
                    // Forgotten, or warmed again, in the meantime: nobody waits for the answer.
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
        let permit = self.compilations.acquire().await.map_err(|error| fault(error.to_string()))?;
        let shared = self.clone();
        let prepare = move || shared.sandbox.prepare(shared.host.clone(), identity, component, effective);
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(|error| fault(format!("preparing failed: {error}")))??;
        drop(permit);
        prepared.try_out(&Control::new(lease)).await?;
        Ok(prepared)
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

    fn start(self: &Arc<Self>, lease: Lease, call: Call, task: TaskView) {
        let control = Control::new(lease);
        if lock(&self.live).insert(lease, control.clone()).is_some() {
            // The first one's control is lost to Cancel, so put it back: one lease is one attempt.
            tracing::error!(?lease, "an attempt was started twice");
            return;
        }
        let prepared = self.ready(lease);
        if lock(&self.agents).get(&lease.agent).is_some_and(|agent| agent.draining) {
            control.drain();
        }
        let shared = self.clone();
        let attempt = async move {
            let ended = match prepared {
                Ok(prepared) => {
                    shared.host.event(RunnerEvent::Started { lease });
                    prepared.attempt(&control, call, task).await
                }
                Err(end) => Ended {
                    end,
                    usage: Usage::default(),
                    denials: Vec::new(),
                    log: Vec::new(),
                },
            };
            shared.ended(lease, ended);
        };
        self.tasks.spawn_on(attempt, &self.handle);
    }

    fn ended(&self, lease: Lease, ended: Ended) {
        let Ended {
            end,
            usage,
            denials,
            log,
        } = ended;
        if let End::HostFault { message } = &end {
            tracing::error!(?lease, message, "an attempt ended by a fault of the host");
        }
        lock(&self.live).remove(&lease);
        self.host.event(RunnerEvent::Ended {
            lease,
            end,
            usage,
            denials,
            log,
        });
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
        live.iter().filter(|control| control.lease().agent == agent).for_each(|control| control.drain());
    }

    fn forget(&self, agent: AgentId) {
        if let Some(agent) = lock(&self.agents).remove(&agent) {
            agent.prepared.inspect(|prepared| prepared.grants.revoke());
        }
        self.halt(Halt::Cancelled, |lease| lease.agent == agent);
    }
}

/// Tells signs of life once a second, those of all attempts in one message.
async fn beats(shared: Weak<Shared>, stop: CancellationToken) {
    let mut every = tokio::time::interval(BEAT);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(shared) = shared.upgrade() else { return };
        let beats: Vec<Beat> = shared.live().iter().filter_map(|control| control.beat()).collect();
        if !beats.is_empty() {
            shared.host.event(RunnerEvent::Beats { beats });
        }
    }
}
