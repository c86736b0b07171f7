//! Drives one shard: a short lock around decide and append, taken on the thread that has the command, so that the order of the journal is the
//! order of the decisions. What stays inside the process is performed at once, what leaves waits until the store says durable. Whatever fails
//! here fails for good: a shard whose journal cannot be trusted answers nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, LockResult, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use skep_rules::{
    approval::Approval,
    command::{Command, Mail},
    decide::Reply,
    effect::{Changed, Notice},
    facts::{self, Facts, Remembered, Replaced, record_key},
    id::{Digest, MessageId, TaskId},
    limits::{
        APPROVAL_AGE, CHECKPOINT_BYTES, CHECKPOINT_ENTRIES, CHECKPOINT_RECORDS, LOG_AGE, LOG_MEMORY_PIECES, MAX_RIDERS,
        RECORD_PAGE_BYTES,
    },
    message::Kept,
    observed::Observed,
    plan::Payload,
    quantity::Time,
    reason::Reason,
    rejection::Rejection,
    seam::{Beat, DependencyEnd, Lease, LogFrame, RunnerCommand, StepReply},
    shard::{Output, Shard},
    state::State,
    step::{Recorded, Step, StepCall, read_steps_after},
    task::Task,
};
use skep_runtime::Runner;
use skep_store::{Batch, Position, Range, Store, Table, Write};
use tokio::sync::{Notify, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::{Clock, Draw, NoRandomness},
    feed::{Adding, Feed},
    logs::{self, LINES, Logs, Whose},
    perform::StoredLog,
    webhook::WEBHOOKS,
};

/// Ended tasks, see [`facts::Table::Tasks`].
pub(crate) const TASKS: Table = Table::new("tasks");
/// Stopped crews, see [`facts::Table::Crews`].
pub(crate) const CREWS: Table = Table::new("crews");
/// Their agents, see [`facts::Table::Agents`].
pub(crate) const AGENTS: Table = Table::new("agents");
const IDEMPOTENCY: Table = Table::new("idempotency");
/// Records of tasks, see [`facts::Table::Steps`].
pub(crate) const STEPS: Table = Table::new("steps");
/// The crews' state, see [`facts::Table::State`].
pub(crate) const STATE: Table = Table::new("state");
/// Approvals that are over, see [`facts::Table::Approvals`].
pub(crate) const APPROVALS: Table = Table::new("approvals");
/// Its older values, see [`facts::Table::Replaced`].
pub(crate) const REPLACED: Table = Table::new("replaced");
/// Messages, see [`facts::Table::Messages`].
pub(crate) const MESSAGES: Table = Table::new("messages");
/// Rows with an end of their time that are looked at per checkpoint and table: some hundred microseconds under the shard's lock.
const SWEPT_ROWS: usize = 1_000;
/// Bytes of them after which no more are looked at, and rows read at a time: a message or a log may have a quarter of a MiB.
const SWEPT_BYTES: usize = 1 << 20;
const SWEPT_PAGE: usize = 25;
/// Blobs of a crew: the crew's id and the digest to an encoded artifact.
pub(crate) const ARTIFACTS: Table = Table::new("artifacts");
/// Logs of attempts: the task's id and the epoch (8 bytes, big-endian) to an encoded [`crate::perform::StoredLog`].
pub(crate) const LOGS: Table = Table::new("logs");

/// How often the log is handed to the disk.
const LOG_FLUSH: Duration = Duration::from_secs(1);
/// For how many times it waits for a decision to travel with.
const LOG_PATIENCE: u32 = 4;

/// The one shard of this host.
pub(crate) const SHARD: u16 = 0;
/// The principal of everything that the admin token asks.
pub(crate) const ADMIN: &str = "admin";

/// Why the driver did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rule refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store refused or failed.
    #[error("the store")]
    Store(#[from] skep_store::Error),
    /// No randomness, so no ids.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A file beside the store cannot be used.
    #[error("a file of the data directory: {0}")]
    File(std::io::Error),
    /// A record in a table is not one of ours.
    #[error("a record cannot be read: {0}")]
    Undecodable(String),
    /// The host is stopping.
    #[error("the host is stopping")]
    Stopping,
    /// The host has failed and is about to end.
    #[error("the host has failed: {0}")]
    Failed(Arc<str>),
}

/// A decision that was taken, for whoever asked.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) reply: Reply,
    /// Nobody may be told before this is durable.
    pub(crate) position: Position,
}

#[derive(Debug)]
pub(crate) struct Driver {
    /// The shard's lock. Never held across a wait, except for the store's back-pressure.
    core: Mutex<Core>,
    /// Held for reading from the time that an artifact's bytes are kept until its row is, and for writing while it is decided that bytes go.
    kept: RwLock<()>,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) feed: Feed,
    pub(crate) logs: Logs,
    /// Who waits for the end of which task. Bounded by the number of connections. May be locked under the shard's lock, never around it.
    waiters: Mutex<BTreeMap<TaskKey, Waiting>>,
    runner: OnceLock<Arc<Runner>>,
    /// The next wake-up has become earlier.
    sooner: Notify,
    /// Work of the driver's own that may block, run on the control runtime.
    pub(crate) blocking: TaskTracker,
    pub(crate) runtime: tokio::runtime::Handle,
    /// The host is being stopped: waits end at once.
    pub(crate) stopping: CancellationToken,
    /// Nothing more is let out: the host is gone, in order or not.
    pub(crate) ended: CancellationToken,
    /// The host has failed.
    pub(crate) failed: CancellationToken,
    failure: OnceLock<Arc<str>>,
    /// The disk is nearly full: nothing new is accepted.
    pub(crate) low_space: AtomicBool,
    /// Plugins that nobody signed are taken and run.
    pub(crate) unsigned: bool,
}

/// The key of a task in [`TASKS`].
type TaskKey = [u8; 16];

/// Who waits for the end of a task.
#[derive(Debug, Default)]
struct Waiting {
    senders: Vec<oneshot::Sender<Option<Ended>>>,
    /// The task's row, once it has ended and until that is durable.
    row: Option<Ended>,
}

/// The encoded record of a task that has ended.
pub(crate) type Ended = Arc<[u8]>;

#[derive(Debug)]
struct Core {
    shard: Shard,
    draw: Draw,
    next_wake: Option<Time>,
    /// For the runner, in the order of the decisions.
    outbox: VecDeque<RunnerCommand>,
    /// Some thread is emptying the outbox; a runner that answers at once must not be called again from inside.
    performing: bool,
    /// Rows that travel with the next batch: nothing durable can refer to them before.
    riders: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Rows past their time, to be deleted with the next batch; and how far their tables were looked through.
    expired: Vec<Write>,
    swept: BTreeMap<Table, Vec<u8>>,
    /// Pieces of the log, that travel likewise; without a value they go.
    lines: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// How far webhooks were told; travels likewise.
    cursors: BTreeMap<String, u64>,
    /// Audit entries of decisions that made no entry of the journal; they travel too.
    audit: Vec<Vec<u8>>,
    /// What the runner says no longer counts: its attempts are being lost.
    closed: bool,
    entries: usize,
    bytes: usize,
}

impl Driver {
    /// A driver of a recovered shard, which takes plugins that nobody signed only where `unsigned` says so. Nothing happens before
    /// [`Driver::resume`].
    pub(crate) fn new(
        mut shard: Shard,
        store: Store,
        clock: Clock,
        runtime: tokio::runtime::Handle,
        unsigned: bool,
    ) -> Self {
        shard.take_unsigned(unsigned);
        // A store that cannot be read fails the host when it is used in earnest.
        let last = logs::last_piece(&store).unwrap_or_default();
        Driver {
            unsigned,
            feed: Feed::after(shard.position()),
            logs: Logs::behind(last),
            core: Mutex::new(Core {
                shard,
                draw: Draw::new(),
                next_wake: None,
                outbox: VecDeque::new(),
                performing: false,
                riders: BTreeMap::new(),
                expired: Vec::new(),
                swept: BTreeMap::new(),
                lines: BTreeMap::new(),
                cursors: BTreeMap::new(),
                audit: Vec::new(),
                closed: false,
                entries: 0,
                bytes: 0,
            }),
            kept: RwLock::default(),
            store,
            clock,
            waiters: Mutex::default(),
            runner: OnceLock::new(),
            sooner: Notify::new(),
            blocking: TaskTracker::new(),
            runtime,
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
            failed: CancellationToken::new(),
            failure: OnceLock::new(),
            low_space: AtomicBool::new(false),
        }
    }

    /// Begins to live: what the life before still owed is done.
    pub(crate) fn resume(&self, runner: Arc<Runner>) -> Result<(), Error> {
        drop(self.runner.set(runner));
        let mut core = self.core()?;
        let now = self.clock.now();
        let output = core.shard.resume(now);
        self.carry_out(core, output, Vec::new()).map(drop)
    }

    /// Builds a command under the lock, where it can see the state and draw ids, and decides it.
    pub(crate) fn decide(
        &self,
        writes: Vec<Write>,
        build: impl FnOnce(&State, &mut Draw, Time) -> Result<Command, Error>,
    ) -> Result<Decided, Error> {
        let mut guard = self.core()?;
        if guard.closed {
            return Err(Error::Stopping);
        }
        let core = &mut *guard;
        let now = self.clock.now();
        let command = build(core.shard.state(), &mut core.draw, now)?;
        let facts = self.facts(core.shard.state(), &command)?;
        let output = core.shard.submit(now, &facts, command)?;
        self.carry_out(guard, output, writes)
    }

    /// [`Driver::decide`] for what clients ask, which is refused where there is no room.
    pub(crate) fn accept(
        &self,
        build: impl FnOnce(&State, &mut Draw, Time) -> Result<Command, Error>,
    ) -> Result<Decided, Error> {
        self.admit()?;
        self.decide(Vec::new(), build)
    }

    /// Reads the state. What is read may be told once the position is durable.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<(T, Position), Error> {
        let core = self.core()?;
        Ok((read(core.shard.state()), Position(core.shard.position())))
    }

    /// Reads what is known for the moment as well, which no journal has: not to be told as if it were certain.
    pub(crate) fn observe<T>(&self, read: impl FnOnce(&State, &Observed) -> T) -> Result<T, Error> {
        let core = self.core()?;
        Ok(read(core.shard.state(), core.shard.observed()))
    }

    /// [`Driver::read`], and waits.
    pub(crate) async fn read_durable<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, Error> {
        let (found, position) = self.read(read)?;
        self.store.wait(position).await?;
        Ok(found)
    }

    /// Decides what the time makes of the state.
    fn tick(&self) -> Result<(), Error> {
        let mut core = self.core()?;
        if core.closed {
            return Ok(());
        }
        let output = core.shard.tick(self.clock.now());
        self.carry_out(core, output, Vec::new()).map(drop)
    }

    /// Takes a step of an attempt. Its answer is on record when this returns, durable or not: if it is lost, so is the attempt that knows it.
    /// `ids` says whether ids are to be drawn for what it makes.
    pub(crate) fn step(&self, lease: Lease, number: u64, call: StepCall, ids: bool) -> Result<StepReply, Error> {
        // Also what only reads: its answer grows the record, and an agent that goes on for ever would fill the disk.
        if self.low_space.load(Ordering::Relaxed) {
            return Ok(StepReply::Refused(Reason::Overloaded));
        }
        let decided = self.decide(Vec::new(), |state, draw, now| {
            let receivers = match &call {
                _ if !ids => None,
                StepCall::Send(letter) => Some((letter, false)),
                StepCall::Request(letter) => Some((letter, true)),
                _ => None,
            };
            let crew = state.crew_of(&lease).map(|crew| crew.id);
            let mail = receivers.zip(crew).map(|((letter, one), crew)| {
                let receivers = state.receivers(crew, letter, one).len();
                let deliveries =
                    (0..receivers).map(|_| -> Result<TaskId, Error> { Ok(TaskId::new(draw.uuid(now)?, SHARD)) });
                Ok::<_, Error>(Mail {
                    deliveries: deliveries.collect::<Result<_, _>>()?,
                    message: MessageId::new(draw.uuid(now)?, SHARD),
                })
            });
            let mail = mail.transpose()?;
            let child = match ids && call.makes() {
                true => Some(TaskId::new(draw.uuid(now)?, SHARD)),
                false => None,
            };
            Ok(Command::Step {
                lease,
                number,
                call,
                child,
                mail,
            })
        })?;
        Ok(match decided.reply {
            Reply::Step(reply) => reply,
            _ => StepReply::Refused(Reason::HostFault),
        })
    }

    /// Steps on the record of the task that a lease holds, from a number on: a piece of it, empty where there are no more.
    pub(crate) fn record(&self, lease: Lease, from: u64) -> Result<Result<Vec<Recorded>, Reason>, Error> {
        let core = self.core()?;
        let state = core.shard.state();
        let Some(task) = state.crew_of(&lease).and_then(|_| state.task(lease.task)) else {
            return Ok(Err(Reason::Fenced));
        };
        let steps = match state.tail(task.id).filter(|tail| tail.first <= from) {
            Some(tail) => piece(tail.first, &tail.bytes, from)?,
            None => self.recorded(task.id, task.run, from)?,
        };
        let (mut page, mut bytes) = (Vec::new(), 0);
        for step in steps {
            let ends = state.ends(&step);
            bytes += ends.iter().map(inline).sum::<usize>();
            page.push(Recorded { step, ends });
            // The steps are those of one row; what their children gave is not bounded by it.
            if bytes > RECORD_PAGE_BYTES {
                break;
            }
        }
        Ok(Ok(page))
    }

    /// Steps of a run that are in their table, from a number on: those of one row.
    pub(crate) fn recorded(&self, task: TaskId, run: u32, from: u64) -> Result<Vec<Step>, Error> {
        let first = record_key(task, run, 0);
        let range = Range {
            start: Bound::Included(first.clone()),
            end: Bound::Included(record_key(task, run, from)),
            reverse: true,
        };
        let row = self.store.scan(STEPS, &range, 1)?.pop();
        row.map_or(Ok(Vec::new()), |(key, bytes)| {
            let number = key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number));
            piece(number, &bytes, from)
        })
    }

    /// Takes note of signs of life.
    pub(crate) fn beats(&self, beats: &[Beat]) -> Result<(), Error> {
        self.core()?.shard.beats(self.clock.now(), beats);
        Ok(())
    }

    /// Keeps an artifact: its bytes, durably, and then its row, which travels with the next batch. Waits for the disk.
    pub(crate) fn keep_artifact(&self, bytes: &[u8], key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        let _kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        self.store.blobs().put(bytes)?;
        self.ride(key, value)
    }

    /// Removes the bytes of a plugin, unless they are an artifact's too. Waits for the disk.
    pub(crate) fn remove_blob(&self, digest: Digest) -> Result<(), Error> {
        // Whoever keeps an artifact of the same bytes has its row already, or finds the bytes gone and keeps them anew.
        let _going = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if !self.is_artifact(digest)? {
            self.store.blobs().remove(crate::perform::blob(digest))?;
        }
        Ok(())
    }

    /// Keeps a row that travels with the next batch.
    fn ride(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        let mut core = self.core()?;
        if core.riders.len() >= MAX_RIDERS && !core.riders.contains_key(&key) {
            let message = "too many artifacts were stored since anything else happened";
            return Err(Rejection::new(Reason::Overloaded, message).into());
        }
        core.riders.insert(key, value);
        Ok(())
    }

    /// A row of [`ARTIFACTS`], those that have not travelled yet included.
    pub(crate) fn artifact_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if let Some(value) = self.core()?.riders.get(key) {
            return Ok(Some(value.clone()));
        }
        Ok(self.store.get(ARTIFACTS, key)?)
    }

    /// Whether any crew has an artifact of these bytes: then they are not a plugin's alone.
    fn is_artifact(&self, digest: Digest) -> Result<bool, Error> {
        if self.core()?.riders.keys().any(|key| key.ends_with(digest.as_bytes())) {
            return Ok(true);
        }
        is_artifact(&self.store, digest)
    }

    /// Keeps lines that attempts have written.
    pub(crate) fn keep_lines(&self, frames: Vec<LogFrame>) -> Result<(), Error> {
        let whose = |task: &Task| {
            // Of an ephemeral task nothing is written.
            (!task.ephemeral).then_some(Whose {
                crew: task.crew,
                trace: task.root,
            })
        };
        let known = |state: &State| -> Vec<Option<Option<Whose>>> {
            let tasks = frames.iter().map(|frame| state.task(frame.lease.task).map(whose));
            tasks.collect()
        };
        let (known, _) = self.read(known)?;
        let mut found = BTreeMap::new();
        for (frame, known) in frames.iter().zip(known) {
            let task = frame.lease.task;
            // The last lines of an attempt that was cancelled come when its task has left memory.
            let known = match known {
                Some(known) => known,
                None => self.row::<Task>(TASKS, &task.to_bytes())?.as_ref().and_then(whose),
            };
            found.extend(known.map(|whose| (task, whose)));
        }
        self.logs
            .frames(self.clock.now(), frames, |frame| found.get(&frame.lease.task).copied());
        Ok(())
    }

    /// Hands the log to the disk, until the host stops or fails: what was added travels with the next decision, and has one of its own where none
    /// comes.
    pub(crate) async fn keep_log(self: Arc<Self>) {
        let mut waited = 0_u32;
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.failed.cancelled() => return,
                () = tokio::time::sleep(LOG_FLUSH) => {}
            }
            let Ok(left) = self.write_log() else { return };
            waited = if left { waited + 1 } else { 0 };
            if waited > LOG_PATIENCE && self.note_time().is_err() {
                return;
            }
        }
    }

    /// Remembers through which row of the audit log a webhook was told, soon: who is told once more after a crash knows it by the id.
    pub(crate) fn keep_cursor(&self, webhook: &str, through: u64) -> Result<(), Error> {
        self.core()?.cursors.insert(webhook.to_owned(), through);
        Ok(())
    }

    /// Puts what was added to the log where the next batch takes it; whether some of it lay there already.
    fn write_log(&self) -> Result<bool, Error> {
        let rows = self.logs.take_rows();
        let mut core = self.core()?;
        let left = !core.lines.is_empty() || !core.cursors.is_empty();
        // The log is the first that a full disk does without.
        if !self.low_space.load(Ordering::Relaxed) {
            core.lines.extend(rows.into_iter().map(|row| match row {
                Write::Put { key, value, .. } => (key, Some(value)),
                Write::Delete { key, .. } => (key, None),
            }));
        }
        while core.lines.len() > 2 * LOG_MEMORY_PIECES {
            core.lines.pop_first();
        }
        Ok(left)
    }

    fn note_time(&self) -> Result<(), Error> {
        self.decide(Vec::new(), |_, _, _| Ok(Command::NoteTime)).map(drop)
    }

    /// From here on what the runner says is ignored, so that attempts which it ends because it is stopped are not taken for cancelled. Their
    /// leases are given back: the next start goes on with them.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if self.runner.get().is_some() {
            self.write_log()?;
            self.note_time()?;
        }
        let mut core = self.core()?;
        core.closed = true;
        core.outbox.clear();
        // Without a runner the leases are those of a life before, and were lost with it.
        while self.runner.get().is_some() {
            let output = core.shard.hand_back(self.clock.now());
            let more = core.shard.is_unfinished();
            self.carry_out(core, output, Vec::new())?;
            if !more {
                break;
            }
            core = self.core()?;
        }
        Ok(())
    }

    /// Writes a checkpoint, so that the next start replays nothing.
    pub(crate) fn checkpoint(&self) -> Result<(), Error> {
        self.checkpoint_of(&mut *self.core()?)
    }

    /// Registers for the durable end of a task; look whether it has ended after, not before. What comes is its record, unless it ended before this.
    pub(crate) fn wait_for(&self, task: TaskId) -> oneshot::Receiver<Option<Ended>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters();
        let senders = &mut waiters.entry(task.to_bytes()).or_default().senders;
        senders.retain(|waiter| !waiter.is_closed());
        senders.push(sender);
        receiver
    }

    /// Keeps what those will be told who wait for tasks that ended in a decision; whether there are any.
    fn keep_ends(&self, writes: &[facts::Write]) -> bool {
        let mut ended = writes
            .iter()
            .filter(|write| write.table == facts::Table::Tasks)
            .peekable();
        if ended.peek().is_none() {
            return false;
        }
        let mut any = false;
        let mut waiters = self.waiters();
        for write in ended {
            if let Some(waiting) = waiters.get_mut(write.key.as_slice()) {
                waiting.row = write.value.as_deref().map(Ended::from);
                any = true;
            }
        }
        any
    }

    /// Forgets waiters of a task that have given up.
    pub(crate) fn stop_waiting(&self, task: TaskId) {
        let mut waiters = self.waiters();
        if let Some(waiting) = waiters.get_mut(&task.to_bytes()) {
            waiting.senders.retain(|waiter| !waiter.is_closed());
            if waiting.senders.is_empty() {
                waiters.remove(&task.to_bytes());
            }
        }
    }

    /// The host has failed, for good.
    pub(crate) fn fail(&self, why: &dyn std::fmt::Display) {
        if self.failure.set(why.to_string().into()).is_ok() {
            tracing::error!(error = %why, "the host has failed and stops");
        }
        self.failed.cancel();
    }

    /// Why the host has failed, if it has.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.failure.get().cloned()
    }

    /// Ticks when it is time, until the host stops or fails.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let Ok(next) = self.core().map(|core| core.next_wake) else {
                return;
            };
            let sleep = async {
                match next {
                    Some(time) => self.clock.sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.failed.cancelled() => return,
                () = self.sooner.notified() => {}
                () = sleep => if self.tick().is_err() { return },
            }
        }
    }

    /// Lets out what has become durable, until the host or the store ends.
    pub(crate) async fn keep_gate(self: Arc<Self>) {
        let mut durable = self.store.subscribe();
        loop {
            let position = *durable.borrow_and_update();
            if self.release(position).is_err() {
                return;
            }
            let changed = tokio::select! {
                () = self.ended.cancelled() => return,
                changed = durable.changed() => changed,
            };
            if changed.is_err() {
                // Closed in order, or failed: then waiting for anything says why.
                if let Err(error @ skep_store::Error::Failed { .. }) =
                    self.store.wait(self.store.durable().plus(1)).await
                {
                    self.fail(&error);
                }
                return;
            }
        }
    }

    /// Tells everybody what is durable by now, in the order of the journal.
    fn release(&self, durable: Position) -> Result<(), Error> {
        let mut core = self.core()?;
        let released = core.shard.durable(durable.0);
        let adding = self.feed.begin();
        drop(core);
        tell(self.let_out(adding, released));
        Ok(())
    }

    /// Adds to the feed and says who else is to be told: after that, so that whoever is told finds it there.
    fn let_out(&self, mut feed: Adding<'_>, released: Vec<(u64, Vec<Notice>)>) -> Vec<Waiting> {
        let mut woken = Vec::new();
        for (position, notices) in released {
            // Whoever waits for one that waits for a person is told as well: nothing more comes of it without one. It may have ended meanwhile, which is
            // not durable yet.
            let ended = notices.iter().filter_map(|notice| match notice.what {
                Changed::Task { task, state, .. } if state.is_ended() => Some((task, true)),
                Changed::Task { task, state, .. } if state.waits_for_person() => Some((task, false)),
                _ => None,
            });
            woken.extend(ended.filter_map(|(task, over)| {
                let waiting = self.waiters().remove(&task.to_bytes())?;
                let row = waiting.row.filter(|_| over);
                Some(Waiting { row, ..waiting })
            }));
            feed.push(position, notices);
        }
        woken
    }

    /// Appends a decision under the lock that it was taken under, then lets go of the lock and performs.
    fn carry_out<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        output: Output,
        writes: Vec<Write>,
    ) -> Result<Decided, Error> {
        let decided = Decided {
            position: Position(output.position),
            reply: output.reply,
        };
        let sooner = output
            .next_wake
            .is_some_and(|next| core.next_wake.is_none_or(|planned| next < planned));
        core.next_wake = output.next_wake;
        core.audit.extend(output.audit.iter().map(encode));
        let state = core.shard.state();
        self.logs
            .decisions(&output.audit, |id| state.task(id).map_or(id, |task| task.root));
        // What concerns ephemeral tasks only waits for nothing of its own: nobody would come later to let it out.
        let lone = output.entries.is_empty();
        if !lone {
            core.entries += output.entries.len();
            core.bytes += output.entries.iter().map(Vec::len).sum::<usize>();
            let riders = std::mem::take(&mut core.riders)
                .into_iter()
                .map(|(key, value)| Write::Put {
                    table: ARTIFACTS,
                    key,
                    value,
                });
            // Deletions first: a key that is used again in this batch stays.
            let expired = std::mem::take(&mut core.expired).into_iter();
            let awaited = self.keep_ends(&output.writes);
            let lines = std::mem::take(&mut core.lines).into_iter().map(log_row);
            let written = output.writes.into_iter().map(put).chain(riders).chain(lines);
            let cursors = std::mem::take(&mut core.cursors)
                .into_iter()
                .map(|(name, through)| Write::Put {
                    table: WEBHOOKS,
                    key: name.into_bytes(),
                    value: through.to_be_bytes().to_vec(),
                });
            let written = written.chain(cursors).chain(writes);
            let batch = Batch {
                entries: output.entries,
                audit: std::mem::take(&mut core.audit),
                writes: expired.chain(written).collect(),
            };
            let appended = self.store.append(batch).inspect_err(|error| self.fail(error))?;
            if awaited {
                self.store.hurry();
            }
            if appended != decided.position {
                let why = format!(
                    "the journal is at {} and the shard at {}",
                    appended.0, decided.position.0
                );
                self.fail(&why);
                return Err(Error::Failed(why.into()));
            }
            let due = core.entries >= CHECKPOINT_ENTRIES || core.bytes >= CHECKPOINT_BYTES;
            if due || core.shard.state().changed_records() >= CHECKPOINT_RECORDS {
                self.checkpoint_of(&mut core)?;
            }
        }
        core.outbox.extend(output.effects);
        let mut woken = Vec::new();
        if lone {
            let released = core.shard.durable(self.store.durable().0);
            woken = self.let_out(self.feed.begin(), released);
        }
        self.perform(core);
        tell(woken);
        if sooner {
            self.sooner.notify_one();
        }
        Ok(decided)
    }

    /// Hands the outbox to the runner without the lock, one thread at a time, so that commands keep their order.
    fn perform<'a>(&'a self, mut core: MutexGuard<'a, Core>) {
        if core.performing || core.outbox.is_empty() {
            return;
        }
        let Some(runner) = self.runner.get() else {
            return;
        };
        core.performing = true;
        loop {
            let commands = std::mem::take(&mut core.outbox);
            if commands.is_empty() {
                core.performing = false;
                return;
            }
            drop(core);
            commands.into_iter().for_each(|command| runner.command(command));
            let Ok(again) = self.core() else {
                return;
            };
            core = again;
        }
    }

    fn checkpoint_of(&self, core: &mut Core) -> Result<(), Error> {
        let checkpoint = core.shard.checkpoint();
        (core.entries, core.bytes) = (0, 0);
        let written = self.store.checkpoint(Position(checkpoint.position), checkpoint.records);
        written.inspect_err(|error| self.fail(error))?;
        let now = self.clock.now();
        self.sweep(core, IDEMPOTENCY, |_, row| {
            Ok(Sweep::of(decode::<Remembered>(row)?.until < now))
        })?;
        self.sweep(core, LOGS, |_, row| {
            Ok(Sweep::of(decode::<StoredLog>(row)?.ended_at.after(LOG_AGE) < now))
        })?;
        self.sweep(core, REPLACED, |_, row| {
            Ok(Sweep::of(decode::<Replaced>(row)?.until < now))
        })?;
        self.sweep(core, APPROVALS, |_, row| {
            let settled = decode::<Approval>(row)?.settled;
            Ok(Sweep::of(settled.is_some_and(|(_, at)| at.after(APPROVAL_AGE) < now)))
        })?;
        self.sweep(core, MESSAGES, |state, row| {
            let kept: Kept = decode(row)?;
            match kept.until < now {
                true => self.without(state, &kept),
                false => Ok(Sweep::of(false)),
            }
        })
    }

    /// What goes with a message that is past its time: its deliveries and their records. All of it stays while one of them is in memory, whose rows are yet
    /// to be written, and while one can be redriven.
    fn without(&self, state: &State, kept: &Kept) -> Result<Sweep, Error> {
        let lives = |id: &TaskId| state.task(*id).is_some();
        let is_dead = state.dead_messages().any(|dead| dead.message == kept.message.id);
        let mut sweep = Sweep::of(!is_dead && !kept.deliveries.iter().any(lives));
        if !sweep.over {
            return Ok(sweep);
        }
        for id in &kept.deliveries {
            let key = id.to_bytes().to_vec();
            let steps = self.store.scan(STEPS, &Range::prefix(&key), SWEPT_PAGE)?;
            // What is left of a long record goes the next time, and the message with it.
            sweep.over &= steps.len() < SWEPT_PAGE;
            sweep
                .more
                .extend(steps.into_iter().map(|(key, _)| Write::Delete { table: STEPS, key }));
            sweep.more.push(Write::Delete { table: TASKS, key });
        }
        Ok(sweep)
    }

    /// Looks through a part of a table for rows past their time: each checkpoint takes up where the last one stopped, so that the table stays near
    /// the rows of one day.
    fn sweep(
        &self,
        core: &mut Core,
        table: Table,
        look: impl Fn(&State, &[u8]) -> Result<Sweep, Error>,
    ) -> Result<(), Error> {
        let mut from = core.swept.remove(&table).unwrap_or_default();
        let (mut looked, mut bytes) = (0, 0);
        while looked < SWEPT_ROWS && bytes < SWEPT_BYTES {
            let rows = self.store.scan(table, &Range::all().after(&from), SWEPT_PAGE)?;
            let more = rows.len() == SWEPT_PAGE;
            looked += rows.len();
            for (key, value) in rows {
                bytes += value.len();
                from.clone_from(&key);
                let sweep = look(core.shard.state(), &value)?;
                looked += sweep.more.len();
                core.expired.extend(sweep.more);
                if sweep.over {
                    core.expired.push(Write::Delete { table, key });
                }
            }
            if !more {
                return Ok(());
            }
        }
        core.swept.insert(table, from);
        Ok(())
    }

    /// Reads the rows that a command needs, pending writes first.
    fn facts(&self, state: &State, command: &Command) -> Result<Facts, Error> {
        let needs = command.needs(state);
        let mut facts = Facts::default();
        if let Some(key) = &needs.idempotency {
            facts.idempotency = self.row(IDEMPOTENCY, key.as_bytes())?;
        }
        for id in needs.tasks {
            if state.task(id).is_none()
                && let Some(task) = self.row(TASKS, &id.to_bytes())?
            {
                facts.tasks.insert(id, task);
            }
        }
        if let Some(key) = &needs.value {
            facts.value = self.row(STATE, key)?;
        }
        if let Some(id) = needs.approval.filter(|id| state.approval(*id).is_none()) {
            facts.approval = self.row(APPROVALS, &id.to_bytes())?;
        }
        if let Some(id) = needs.message {
            facts.message = self.row(MESSAGES, &id.to_bytes())?;
        }
        if let Some(key) = &needs.old {
            facts.old = self.row(REPLACED, key)?;
        }
        if let Some(page) = needs.page {
            let mut range = Range::prefix(&page.prefix);
            if let Some(after) = page.after.filter(|after| *after >= page.prefix) {
                range = range.after(&after);
            }
            range.reverse = page.reverse;
            facts.page = self.store.scan(table_of(page.table), &range, page.limit)?;
        }
        Ok(facts)
    }

    /// A record from a table.
    pub(crate) fn row<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<T>, Error> {
        let row = self.store.get(table, key)?;
        row.map(|bytes| decode(&bytes)).transpose()
    }

    fn waiters(&self) -> MutexGuard<'_, BTreeMap<TaskKey, Waiting>> {
        lock_soon(&self.waiters).unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock. A decision that panicked has left a state that nobody may rely on: the host ends.
    fn core(&self) -> Result<MutexGuard<'_, Core>, Error> {
        if let Some(why) = self.failure() {
            return Err(Error::Failed(why));
        }
        lock_soon(&self.core).map_err(|_| {
            let why = "a decision panicked";
            self.fail(&why);
            Error::Failed(why.into())
        })
    }
}

/// What becomes of a row that was looked at.
struct Sweep {
    /// Its time is over, and it goes.
    over: bool,
    /// What goes as well.
    more: Vec<Write>,
}

impl Sweep {
    fn of(over: bool) -> Self {
        Sweep { over, more: Vec::new() }
    }
}

/// Tells those who wait for the ends of tasks.
fn tell(woken: Vec<Waiting>) {
    for Waiting { senders, row } in woken {
        for waiter in senders {
            // One that has given up needs no telling.
            let _gone = waiter.send(row.clone());
        }
    }
}

/// Looks at a lock that is taken before sleeping until it is free: some 10 µs, longer than most decisions hold it and shorter than being woken takes.
const LOOKS: u32 = 200;

/// Locks what is held for microseconds.
fn lock_soon<T>(mutex: &Mutex<T>) -> LockResult<MutexGuard<'_, T>> {
    for _ in 0..LOOKS {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
            Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
        }
    }
    mutex.lock()
}

/// Whether any crew has stored an artifact of these bytes. Reads the whole table, so ask it where a plugin goes, not where work is done.
pub(crate) fn is_artifact(store: &Store, digest: Digest) -> Result<bool, Error> {
    let mut range = Range::all();
    loop {
        let rows = store.scan(ARTIFACTS, &range, SWEPT_ROWS)?;
        if rows.iter().any(|(key, _)| key.ends_with(digest.as_bytes())) {
            return Ok(true);
        }
        match rows.last() {
            Some((key, _)) if rows.len() == SWEPT_ROWS => range = Range::all().after(key),
            _ => return Ok(false),
        }
    }
}

fn table_of(table: facts::Table) -> Table {
    match table {
        facts::Table::Tasks => TASKS,
        facts::Table::Crews => CREWS,
        facts::Table::Agents => AGENTS,
        facts::Table::Idempotency => IDEMPOTENCY,
        facts::Table::Steps => STEPS,
        facts::Table::State => STATE,
        facts::Table::Replaced => REPLACED,
        facts::Table::Messages => MESSAGES,
        facts::Table::Approvals => APPROVALS,
    }
}

/// Bytes of the output of a task that ended, where it is inline.
fn inline(end: &DependencyEnd) -> usize {
    match &end.output {
        Ok(Payload::Inline(bytes)) => bytes.len(),
        Ok(Payload::Artifact(_)) | Err(_) => 0,
    }
}

/// A piece of the log that is written, or goes.
fn log_row((key, value): (Vec<u8>, Option<Vec<u8>>)) -> Write {
    let table = LINES;
    match value {
        Some(value) => Write::Put { table, key, value },
        None => Write::Delete { table, key },
    }
}

/// Encoded steps of which the first has a number, from another number on.
pub(crate) fn piece(first: u64, bytes: &[u8], from: u64) -> Result<Vec<Step>, Error> {
    let steps = read_steps_after(bytes, from.saturating_sub(first));
    steps.map_err(|error| Error::Undecodable(error.to_string()))
}

/// A row that the shard writes.
fn put(write: facts::Write) -> Write {
    let (table, key) = (table_of(write.table), write.key);
    match write.value {
        Some(value) => Write::Put { table, key, value },
        None => Write::Delete { table, key },
    }
}

/// Bytes of a record.
pub(crate) fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding into memory cannot fail")
}

/// A record from bytes of ours.
pub(crate) fn decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Error> {
    minicbor::decode(bytes).map_err(|error| Error::Undecodable(error.to_string()))
}
