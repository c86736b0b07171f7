//! What the tests of this crate share: a host that remembers, agents made of hand-written core modules, and the commands to run them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use skep_rules::{
    capability::{Capability, GrantWord},
    grant::Effective,
    id::{AgentId, CrewId, Digest, MessageId, TaskId},
    limits::{Limits, Tier},
    plan::{Artifact, Payload},
    quantity::{Size, Time},
    reason::Reason,
    seam::{
        Call, DependencyEnd, End, HostCall, HostReply, Identity, Lease, RunnerCommand, RunnerEvent, StepReply,
        TaskView, Usage,
    },
    step::{Decided, Recorded, Step, StepCall, StepResult, Value},
};

use crate::{Compiler, Host, Options, Runner};

/// A host with a few components and one crew's blobs.
pub(crate) struct Bench {
    events: Mutex<mpsc::Sender<RunnerEvent>>,
    components: Mutex<HashMap<Digest, Vec<u8>>>,
    pub(crate) blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    pub(crate) ledger: Mutex<Ledger>,
    /// Woken while it answers a wait, when the ledger says so.
    runner: Mutex<Weak<Runner>>,
    /// Leases whose attempts have begun.
    begun: Mutex<BTreeSet<Lease>>,
    /// Attempts that said that they have begun.
    pub(crate) gave_way: AtomicUsize,
}

/// The record of one task, and what its steps see.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) record: Vec<Recorded>,
    /// The epoch that holds the task, when somebody looks.
    pub(crate) epoch: Option<u64>,
    /// Moves by 10 ms at each step.
    pub(crate) now: u64,
    pub(crate) state: BTreeMap<String, Value>,
    /// How often it was asked for a step, and for a page of the record.
    pub(crate) asked: u64,
    pub(crate) pages: u64,
    /// Steps per page.
    pub(crate) page: usize,
    /// Refuses every step, when there is a reason to.
    pub(crate) refuse: Option<Reason>,
    /// Wakes who waits before it knows that it waits, under this epoch.
    pub(crate) hurry: Option<u64>,
    /// Answers waits at once.
    pub(crate) at_once: bool,
    /// State and time at each length of the record.
    pub(crate) past: Vec<(BTreeMap<String, Value>, u64)>,
    /// What was asked for last and is not answered.
    pub(crate) waits: Option<StepCall>,
}

impl Ledger {
    /// Puts the answer of a step on record.
    pub(crate) fn keep(&mut self, call: &StepCall, result: StepResult) -> Recorded {
        self.now = match call {
            StepCall::Clock { alarm: Some(alarm) } => self.now.max(alarm.0),
            _ => self.now + 10,
        };
        let ends = match &result {
            StepResult::Ended(tasks) => tasks.iter().map(end_of).collect(),
            _ => Vec::new(),
        };
        let step = Step {
            asked: call.asked(),
            at: Time(self.now),
            result,
        };
        let recorded = Recorded { step, ends };
        self.past.push((self.state.clone(), self.now));
        self.record.push(recorded.clone());
        recorded
    }

    /// Answers what waits.
    pub(crate) fn answer(&mut self) {
        let call = self.waits.take().expect("somebody waits");
        let result = match &call {
            StepCall::Await { tasks, .. } => StepResult::Ended(tasks.clone()),
            StepCall::AskApproval(request) => StepResult::Decided(request.items.iter().map(|_| approved()).collect()),
            StepCall::RaiseBlocker { .. } => StepResult::Decided(vec![approved()]),
            _ => StepResult::Done,
        };
        self.keep(&call, result);
    }

    /// As it was when it held so many steps.
    pub(crate) fn rewind(&mut self, steps: usize) {
        self.record.truncate(steps);
        (self.state, self.now) = match steps.checked_sub(1) {
            Some(last) => self.past[last].clone(),
            None => (BTreeMap::new(), BEGAN.0),
        };
        self.past.truncate(steps);
    }

    fn step(&mut self, call: &StepCall) -> Option<StepResult> {
        Some(match call {
            StepCall::Get { key, .. } => StepResult::Value(self.state.get(key).cloned()),
            StepCall::Put { key, value, .. } => {
                let revision = self.state.get(key).map_or(1, |value| value.revision + 1);
                let value = Value {
                    bytes: value.clone(),
                    revision,
                    at: Time(self.now),
                };
                self.state.insert(key.clone(), value);
                StepResult::Written(revision)
            }
            StepCall::Delete { key, .. } => StepResult::Deleted(self.state.remove(key).is_some()),
            StepCall::List { .. } => StepResult::Keys {
                keys: self
                    .state
                    .iter()
                    .map(|(key, value)| (key.clone(), value.revision))
                    .collect(),
                more: false,
            },
            StepCall::History { .. } => StepResult::Versions(Vec::new()),
            StepCall::Spawn(_) => StepResult::Spawned(TaskId::new((self.record.len() as u128 + 100) << 16, 0)),
            StepCall::Clock { .. } | StepCall::Directive { .. } | StepCall::PutArtifact(_) => StepResult::Done,
            StepCall::ReadArtifact { refused, .. } => refused.map_or(StepResult::Done, StepResult::refused),
            StepCall::Await { tasks, .. } if self.at_once => StepResult::Ended(tasks.clone()),
            StepCall::Sleep { .. } if self.at_once => StepResult::Done,
            StepCall::Await { .. }
            | StepCall::Sleep { .. }
            | StepCall::AskApproval(_)
            | StepCall::RaiseBlocker { .. }
            | StepCall::Request(_) => return None,
            StepCall::Send(_) => StepResult::Sent(MessageId::new((self.record.len() as u128 + 100) << 16, 0)),
        })
    }
}

fn approved() -> Decided {
    Decided {
        approved: true,
        remark: "go".into(),
    }
}

fn end_of(task: &TaskId) -> DependencyEnd {
    DependencyEnd {
        name: task.to_string(),
        output: Ok(Payload::Inline(b"output".to_vec())),
        skipped: false,
    }
}

impl Bench {
    /// Notes that an attempt has begun, which the host hears from whatever it hears first: of tests each is told once, and before all else.
    fn begins(&self, lease: Lease) {
        if self.begun.lock().unwrap().insert(lease) {
            self.tell(RunnerEvent::Started { lease });
        }
    }

    fn tell(&self, event: RunnerEvent) {
        self.events.lock().unwrap().send(event).ok();
    }
}

impl Host for Bench {
    fn event(&self, event: RunnerEvent) {
        match event {
            RunnerEvent::Started { lease } => {
                self.gave_way.fetch_add(1, Ordering::Relaxed);
                self.begins(lease);
            }
            RunnerEvent::Ended { lease, usage, .. } => {
                // One that could not begin has no memory.
                if usage.peak_memory > Size(0) {
                    self.begins(lease);
                }
                self.begun.lock().unwrap().remove(&lease);
                self.tell(event);
            }
            event => self.tell(event),
        }
    }

    fn component(&self, digest: Digest) -> std::io::Result<Vec<u8>> {
        let found = self.components.lock().unwrap().get(&digest).cloned();
        found.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn step(&self, lease: Lease, number: u64, call: StepCall) -> StepReply {
        self.begins(lease);
        let mut ledger = self.ledger.lock().unwrap();
        ledger.asked += 1;
        assert_eq!(number, ledger.record.len() as u64, "steps are numbered without a gap");
        if ledger.epoch.is_some_and(|epoch| epoch != lease.epoch) {
            return StepReply::Fenced;
        }
        if let Some(reason) = ledger.refuse {
            return StepReply::Refused(reason);
        }
        if let Some(result) = ledger.step(&call) {
            return StepReply::Recorded(ledger.keep(&call, result));
        }
        ledger.waits = Some(call);
        if let Some(epoch) = ledger.hurry.take() {
            ledger.answer();
            let recorded = ledger.record.len() as u64;
            drop(ledger);
            let runner = self.runner.lock().unwrap().upgrade().unwrap();
            runner.command(RunnerCommand::Start {
                lease: self::lease(epoch),
                call: Call::Execute,
                task: task(b""),
                recorded,
            });
        }
        StepReply::Waiting
    }

    fn record(&self, lease: Lease, from: u64) -> Result<Vec<Recorded>, Reason> {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.pages += 1;
        if ledger.epoch.is_some_and(|epoch| epoch != lease.epoch) {
            return Err(Reason::Fenced);
        }
        let rest = ledger.record.get(usize::try_from(from).unwrap()..).unwrap_or_default();
        Ok(rest.iter().take(ledger.page).cloned().collect())
    }

    fn call(&self, call: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        let mut ledger = self.ledger.lock().unwrap();
        let reply = match call {
            HostCall::PutArtifact { bytes, media, step, .. } => {
                let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
                self.blobs.lock().unwrap().insert(digest, bytes);
                let artifact = Artifact { digest, size, media };
                if let Some(number) = step {
                    assert_eq!(number, ledger.record.len() as u64);
                    ledger.keep(&StepCall::PutArtifact(artifact.clone()), StepResult::Done);
                }
                HostReply::Artifact(artifact)
            }
            HostCall::ReadArtifact {
                digest,
                offset,
                length,
                step,
                ..
            } => {
                let read = self.blobs.lock().unwrap().get(&digest).map(|bytes| {
                    let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
                    rest[..rest.len().min(length as usize)].to_vec()
                });
                if let Some(number) = step {
                    assert_eq!(number, ledger.record.len() as u64);
                    let refused = read.is_none().then_some(Reason::NotFound);
                    let call = StepCall::ReadArtifact {
                        digest,
                        offset,
                        length,
                        refused,
                    };
                    ledger.keep(&call, refused.map_or(StepResult::Done, StepResult::refused));
                }
                read.map_or(HostReply::Refused(Reason::NotFound), HostReply::Bytes)
            }
        };
        Box::pin(std::future::ready(reply))
    }
}

/// A runner, and what it told.
pub(crate) struct Trial {
    pub(crate) runner: Arc<Runner>,
    pub(crate) bench: Arc<Bench>,
    told: mpsc::Receiver<RunnerEvent>,
    pub(crate) dir: tempfile::TempDir,
}

/// What an attempt left.
pub(crate) type Left = (
    End,
    skep_rules::seam::Usage,
    Vec<skep_rules::seam::Denial>,
    Vec<skep_rules::seam::LogLine>,
);

impl Trial {
    pub(crate) fn new() -> Self {
        Trial::with(|_| {})
    }

    /// With other options than usual.
    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (events, told) = mpsc::channel();
        let bench = Arc::new(Bench {
            events: Mutex::new(events),
            components: Mutex::default(),
            blobs: Mutex::default(),
            ledger: Mutex::new(Ledger {
                page: 3,
                now: BEGAN.0,
                ..Ledger::default()
            }),
            runner: Mutex::default(),
            begun: Mutex::default(),
            gave_way: AtomicUsize::new(0),
        });
        let mut options = options(dir.path());
        change(&mut options);
        let runner = Runner::start(options, bench.clone()).unwrap();
        *bench.runner.lock().unwrap() = Arc::downgrade(&runner);
        Trial {
            runner,
            bench,
            told,
            dir,
        }
    }

    /// The next event that is no beat.
    pub(crate) fn next(&self) -> RunnerEvent {
        loop {
            match self.told.recv_timeout(Duration::from_secs(60)).unwrap() {
                RunnerEvent::Beats { .. } | RunnerEvent::Lines { .. } | RunnerEvent::Evicted { .. } => {}
                event => return event,
            }
        }
    }

    /// What an attempt has used that waited and was dropped.
    pub(crate) fn evicted(&self) -> (Lease, Usage) {
        loop {
            if let RunnerEvent::Evicted { lease, usage, .. } = self.told.recv_timeout(Duration::from_secs(60)).unwrap()
            {
                return (lease, usage);
            }
        }
    }

    /// The next message of beats.
    pub(crate) fn beat(&self) -> Vec<skep_rules::seam::Beat> {
        loop {
            if let RunnerEvent::Beats { beats } = self.told.recv_timeout(Duration::from_secs(60)).unwrap() {
                return beats;
            }
        }
    }

    /// Has a component that agents can be made of.
    pub(crate) fn offer(&self, component: &[u8]) -> Digest {
        let digest = Digest::of(component);
        self.bench.components.lock().unwrap().insert(digest, component.to_vec());
        digest
    }

    /// Warms the agent of a generation.
    pub(crate) fn warm(&self, component: &[u8], generation: u64, effective: Effective) -> Result<(), (Reason, String)> {
        self.runner.command(RunnerCommand::Warm {
            agent: identity(generation),
            component: self.offer(component),
            effective,
        });
        match self.next() {
            RunnerEvent::Warmed { generation: told, .. } if told == generation => Ok(()),
            RunnerEvent::WarmFailed { reason, message, .. } => Err((reason, message)),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&self, epoch: u64, call: Call) {
        self.resume(epoch, call, 0);
    }

    /// Starts an attempt that has so many steps on its record.
    pub(crate) fn resume(&self, epoch: u64, call: Call, recorded: u64) {
        let task = TaskView {
            records: !matches!(call, Call::Check { .. }),
            deadline: None,
            fuel: None,
            ..task(b"")
        };
        self.runner.command(RunnerCommand::Start {
            lease: lease(epoch),
            call,
            task,
            recorded,
        });
    }

    pub(crate) fn started(&self, epoch: u64) {
        assert_eq!(self.next(), RunnerEvent::Started { lease: lease(epoch) });
    }

    pub(crate) fn ended(&self, epoch: u64) -> Left {
        match self.next() {
            RunnerEvent::Ended {
                lease: told,
                end,
                usage,
                denials,
                log,
            } if told == lease(epoch) => (end, usage, denials, log),
            other => panic!("{other:?}"),
        }
    }

    /// Warms an agent made of a core module and runs one attempt.
    pub(crate) fn run(&self, body: &str, effective: Effective) -> Left {
        self.warm(&agent(body), 1, effective).unwrap();
        self.start(1, Call::Execute);
        self.started(1);
        self.ended(1)
    }
}

/// A small host in a directory of its own.
pub(crate) fn options(dir: &Path) -> Options {
    Options {
        compiler: Compiler::InProcess,
        cache_dir: dir.join("cache"),
        cache_key: [7; 32],
        workspaces: dir.join("workspaces"),
        slots: 8,
        memory: Some(Size(1 << 30)),
        guest_threads: 2,
    }
}

pub(crate) fn lease(epoch: u64) -> Lease {
    Lease {
        task: TaskId::new(1, 0),
        epoch,
        agent: AgentId::new(1, 0),
        generation: 1,
    }
}

pub(crate) fn identity(generation: u64) -> Identity {
    Identity {
        agent: AgentId::new(1, 0),
        generation,
        name: "worker".into(),
        crew: CrewId::new(1, 0),
    }
}

pub(crate) fn task(input: &[u8]) -> TaskView {
    TaskView {
        attempt: 1,
        description: String::new(),
        input: Payload::Inline(input.to_vec()),
        dependencies: Vec::new(),
        facts: None,
        remarks: Vec::new(),
        seed: 1,
        began: BEGAN,
        records: true,
        deadline: None,
        fuel: None,
    }
}

/// The free capabilities and the limits of `small`, changed as the test wants.
pub(crate) fn effective(change: impl FnOnce(&mut Limits)) -> Effective {
    let mut limits = Tier::Small.limits();
    change(&mut limits);
    Effective {
        mounts: Vec::new(),
        workspace: Size(0),
        artifacts: Size(0),
        env: std::collections::BTreeMap::new(),
        limits,
        word: GrantWord::free(),
        state: Size(0),
        children: 0,
        messages: skep_rules::message::Topics::default(),
    }
}

/// As [`effective`], with so many bytes of artifacts.
pub(crate) fn with_artifacts(bytes: u64) -> Effective {
    Effective {
        artifacts: Size(bytes),
        word: GrantWord::free().with(Capability::Artifacts),
        ..effective(|_| {})
    }
}

/// Where the clock of every attempt begins.
pub(crate) const BEGAN: Time = Time(1_000);

/// An executor whose `execute` is this body of WAT. It returns the address of its result; zeroes there (1024) are an empty payload.
/// What the body does not call is not imported.
pub(crate) fn agent(body: &str) -> Vec<u8> {
    let read = r#"(import "skep:agent/artifacts@0.1.0" "read" (func $read (param i32 i32 i64 i32 i32)))"#;
    module(&format!(
        r#"(module
            (import "skep:agent/heartbeat@0.1.0" "beat" (func $beat (param i32 i32) (result i32)))
            {read}
            (memory (export "memory") 1 200)
            (data (i32.const 2048) "{digest}")
            (global $next (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                global.get $next
                (global.set $next (i32.add (global.get $next) (local.get 3))))
            (func $deep (param i32) (result i32)
                (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
            (func (export "skep:agent/executor@0.1.0#execute") (param i32) (result i32)
                {body}))"#,
        read = if body.contains("$read") { read } else { "" },
        digest = Digest::of(b"blob")
    ))
}

/// A component of the world `executor-agent` around a core module.
pub(crate) fn module(wat: &str) -> Vec<u8> {
    module_of(wat, "executor-agent", "")
}

/// A component of a world that is given along, in a package of its own.
pub(crate) fn module_of(wat: &str, world: &str, wit: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(wat).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(Path::new("../../wit")).unwrap();
    let package = match wit {
        "" => package,
        wit => resolve.push_str("trial.wit", wit).unwrap(),
    };
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    wit_component::ComponentEncoder::default()
        .module(&bytes)
        .unwrap()
        .validate(true)
        .encode()
        .unwrap()
}
