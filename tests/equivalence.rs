//! Replay equivalence: programs over all step interfaces, run by the interpreter guest in the real runner under the real shard, with a host that
//! dies at every step. Whatever it forgets is forgotten with all that followed from it; the results and the crew's state must be those of a host that
//! nobody disturbed.
//!
//! `SKEP_PROGRAMS=n` runs more programs than by default; a program that failed is repeated with `SKEP_PROGRAM_SEED=n`.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use serde_json::{Value, json};
use skep_built_guests::{MESSAGES, PROGRAM};
use skep_rules::{
    approval::{Approval, Ruling},
    command::{Command, Consent, Mail, NewTask, children_of},
    crew::CrewManifest,
    decide::Reply,
    facts::{self, Facts, Page, Table, record_key},
    grant::Ceiling,
    id::{AgentId, CrewId, Digest, MessageId, TaskId},
    manifest::Manifest,
    plan::{Artifact, Payload},
    plugin::Plugin,
    quantity::{Millis, Size, Time},
    reason::Reason,
    seam::{Export, HostCall, HostReply, Lease, RunnerCommand, RunnerEvent, StepReply},
    shard::{Output, Shard},
    step::{Recorded, StepCall, read_steps},
    task::{Task, TaskState},
};
use skep_runtime::{Compiler, Host, Options, Runner};

use crate::{
    harness::{now, until},
    kills::{Dice, GRANTS, WANTS, number},
};

/// Programs of one run in CI.
const PROGRAMS: u64 = 40;

/// What is run: a guest, its crew, and what its first task is given.
struct Case {
    component: &'static [u8],
    exports: &'static [Export],
    /// What the manifest says after name and version.
    wants: &'static str,
    /// The agents of the crew, of the plugin `test/program`.
    agents: &'static str,
    input: Value,
    /// Only the first agent may take the first task.
    first: bool,
}

/// What becomes durable together.
struct Batch {
    entries: Vec<Vec<u8>>,
    writes: Vec<facts::Write>,
}

/// A host in memory: the shard and what a disk would hold, with nothing between.
struct Memory {
    shard: Shard,
    batches: Vec<Batch>,
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    blobs: HashMap<Digest, Vec<u8>>,
    outbox: Vec<RunnerCommand>,
    performing: bool,
    ids: u128,
    /// Batches that somebody outside was told of: a crash does not take them back.
    told: usize,
    /// Steps taken so far, in all lives.
    steps: u64,
    /// Dies at its next steps, by their number.
    dies: Option<Dies>,
    dead: bool,
    crashes: u64,
    /// How far this world's clock is ahead of the machine's: where everybody waits, nobody has to.
    ahead: Millis,
}

/// When a host dies.
#[derive(Clone, Copy)]
enum Dies {
    /// Behind every step, which is the last thing on its disk.
    AtEach,
    /// At one step only; what was on the disk then is a matter of chance.
    At(u64),
}

struct World {
    component: &'static [u8],
    memory: Mutex<Memory>,
    runner: OnceLock<Arc<Runner>>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides a command and performs what follows, as a driver does.
    fn decide(&self, build: impl FnOnce(&mut Memory) -> Command) -> Option<Reply> {
        let mut memory = self.lock();
        if memory.dead {
            return None;
        }
        let command = build(&mut memory);
        let facts = memory.facts(&command);
        let now = memory.now();
        let output = memory.shard.submit(now, &facts, command).expect("nothing is refused");
        let reply = memory.append(output);
        self.perform(memory);
        Some(reply)
    }

    fn perform<'a>(&'a self, mut memory: MutexGuard<'a, Memory>) {
        if memory.performing {
            return;
        }
        memory.performing = true;
        while !memory.outbox.is_empty() {
            let commands = std::mem::take(&mut memory.outbox);
            drop(memory);
            let runner = self.runner.get().expect("a runner runs");
            commands.into_iter().for_each(|command| runner.command(command));
            memory = self.lock();
        }
        memory.performing = false;
    }

    fn tick(&self) {
        let mut memory = self.lock();
        if !memory.dead {
            memory.skip();
            let now = memory.now();
            let output = memory.shard.tick(now);
            memory.append(output);
            self.perform(memory);
        }
    }

    /// People say yes to what is called `a`, to what an agent cannot go on without, and to nothing else.
    fn answer(&self) {
        let mut memory = self.lock();
        if memory.dead {
            return;
        }
        let items = |approval: &Approval| {
            let names = approval.items.iter().map(|item| item.name.clone());
            (approval.id, names.collect::<Vec<_>>())
        };
        let open: Vec<_> = memory.shard.state().approvals().map(items).collect();
        for (approval, names) in open {
            for name in names {
                let ruling = Ruling {
                    approved: name != "b",
                    remark: format!("about {name}"),
                    items: vec![name],
                    always: false,
                    digest: None,
                };
                let by = "tests".to_owned();
                let command = Command::DecideApproval { approval, ruling, by };
                let now = memory.now();
                let output = memory.shard.submit(now, &Facts::default(), command);
                memory.append(output.expect("what is open can be decided"));
            }
        }
        self.perform(memory);
    }

    /// A start after a crash that kept so many batches.
    fn recover(&self, kept: usize) {
        let mut memory = self.lock();
        memory.batches.truncate(kept);
        let mut shard = Shard::default();
        shard.take_unsigned(true);
        let mut rows = BTreeMap::new();
        let mut position = 0;
        for batch in &memory.batches {
            for entry in &batch.entries {
                position += 1;
                shard.replay(position, entry).expect("the entries are ours");
            }
            for write in &batch.writes {
                keep(&mut rows, write);
            }
        }
        (memory.shard, memory.rows) = (shard, rows);
        memory.outbox.clear();
        (memory.dead, memory.crashes) = (false, memory.crashes + 1);
        let now = memory.now();
        let output = memory.shard.resume(now);
        memory.append(output);
        self.perform(memory);
    }
}

fn keep(rows: &mut BTreeMap<(Table, Vec<u8>), Vec<u8>>, write: &facts::Write) {
    let key = (write.table, write.key.clone());
    match &write.value {
        Some(value) => drop(rows.insert(key, value.clone())),
        None => drop(rows.remove(&key)),
    }
}

impl Memory {
    fn now(&self) -> Time {
        now().after(self.ahead)
    }

    /// Lets the time pass to which everybody waits, if nobody works.
    fn skip(&mut self) {
        let mut tasks = self.shard.state().tasks();
        if !self.dead && tasks.all(|task| task.held.is_none() && task.state != TaskState::Ready) {
            let waits = self.shard.state().tasks().filter_map(|task| task.wait.as_ref()?.until);
            if let Some(until) = waits.min() {
                self.ahead = self.ahead.max(Millis(until.0.saturating_sub(now().0)));
            }
        }
    }

    fn id(&mut self) -> u128 {
        self.ids += 1;
        self.ids << 16
    }

    /// Ids for what a step sends.
    fn mail(&mut self, lease: &Lease, call: &StepCall) -> Option<Mail> {
        let (letter, one) = match call {
            StepCall::Send(letter) => (letter, false),
            StepCall::Request(letter) => (letter, true),
            _ => return None,
        };
        let state = self.shard.state();
        let receivers = state.receivers(state.crew_of(lease)?.id, letter, one).len();
        Some(Mail {
            deliveries: (0..receivers).map(|_| TaskId::new(self.id(), 0)).collect(),
            message: MessageId::new(self.id(), 0),
        })
    }

    fn append(&mut self, output: Output) -> Reply {
        for write in &output.writes {
            keep(&mut self.rows, write);
        }
        if !output.entries.is_empty() {
            self.batches.push(Batch {
                entries: output.entries,
                writes: output.writes,
            });
        }
        self.outbox.extend(output.effects);
        output.reply
    }

    fn row<T: for<'b> minicbor::Decode<'b, ()>>(&self, table: Table, key: Vec<u8>) -> Option<T> {
        let row = self.rows.get(&(table, key))?;
        Some(minicbor::decode(row).expect("the rows are ours"))
    }

    fn page(&self, page: &Page) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.rows.iter().filter(|((table, key), _)| {
            *table == page.table && key.starts_with(&page.prefix) && page.after.as_ref().is_none_or(|after| key > after)
        });
        let mut rows: Vec<_> = rows.map(|((_, key), row)| (key.clone(), row.clone())).collect();
        if page.reverse {
            rows.reverse();
        }
        rows.truncate(page.limit);
        rows
    }

    fn facts(&self, command: &Command) -> Facts {
        let needs = command.needs(self.shard.state());
        Facts {
            value: needs.value.and_then(|key| self.row(Table::State, key)),
            old: needs.old.and_then(|key| self.row(Table::Replaced, key)),
            page: needs.page.map(|page| self.page(&page)).unwrap_or_default(),
            ..Facts::default()
        }
    }

    /// Whether the host dies at this step.
    fn falls(&mut self) -> bool {
        self.steps += 1;
        match self.dies {
            Some(Dies::AtEach) => true,
            Some(Dies::At(step)) => self.steps == step,
            None => false,
        }
    }

    fn record(&self, lease: Lease, from: u64) -> Result<Vec<Recorded>, Reason> {
        let state = self.shard.state();
        let task = state
            .crew_of(&lease)
            .and_then(|_| state.task(lease.task))
            .ok_or(Reason::Fenced)?;
        let (first, bytes) = match state.tail(task.id).filter(|tail| tail.first <= from) {
            Some(tail) => (tail.first, tail.bytes.clone()),
            None => {
                let range = (Table::Steps, record_key(task.id, task.run, 0))
                    ..=(Table::Steps, record_key(task.id, task.run, from));
                let ((_, key), bytes) = self.rows.range(range).next_back().expect("the piece is there");
                let first = key
                    .last_chunk()
                    .map(|number| u64::from_be_bytes(*number))
                    .expect("a number");
                (first, bytes.clone())
            }
        };
        let steps = read_steps(&bytes).expect("the steps are ours");
        let skip = usize::try_from(from - first).expect("a number of steps");
        let recorded = steps.into_iter().skip(skip).map(|step| Recorded {
            ends: state.ends(&step),
            step,
        });
        Ok(recorded.collect())
    }
}

impl Host for World {
    fn event(&self, event: RunnerEvent) {
        let command = match event {
            RunnerEvent::Warmed { agent, generation } => Command::Warmed { agent, generation },
            RunnerEvent::WarmFailed { message, .. } => panic!("the guest is not ready: {message}"),
            RunnerEvent::Started { lease } => Command::AttemptStarted { lease },
            RunnerEvent::Ended {
                lease,
                end,
                usage,
                denials,
                ..
            } => Command::AttemptEnded {
                children: (0..children_of(&end))
                    .map(|_| TaskId::new(self.lock().id(), 0))
                    .collect(),
                lease,
                end,
                usage,
                denials,
            },
            RunnerEvent::Beats { beats } => {
                let mut memory = self.lock();
                let now = memory.now();
                return memory.shard.beats(now, &beats);
            }
            RunnerEvent::Evicted { lease, usage, denials } => Command::AttemptEvicted { lease, usage, denials },
            RunnerEvent::Lines { .. } | RunnerEvent::CacheRefused { .. } => return,
        };
        self.decide(|_| command);
    }

    fn component(&self, _: Digest) -> std::io::Result<Vec<u8>> {
        Ok(self.component.to_vec())
    }

    fn step(&self, lease: Lease, number: u64, call: StepCall) -> StepReply {
        let reply = self.decide(|memory| Command::Step {
            mail: memory.mail(&lease, &call),
            lease,
            number,
            call,
            child: Some(TaskId::new(memory.id(), 0)),
        });
        let Some(Reply::Step(reply)) = reply else {
            return StepReply::Fenced;
        };
        let mut memory = self.lock();
        if !matches!(reply, StepReply::Fenced) && memory.falls() {
            memory.dead = true;
            return StepReply::Fenced;
        }
        reply
    }

    fn record(&self, lease: Lease, from: u64) -> Result<Vec<Recorded>, Reason> {
        let memory = self.lock();
        if memory.dead {
            Err(Reason::Fenced)
        } else {
            memory.record(lease, from)
        }
    }

    fn call(&self, call: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        let observed = |lease, step: Option<u64>, call| match step.map(|number| self.step(lease, number, call)) {
            None | Some(StepReply::Recorded(_)) => None,
            Some(StepReply::Refused(reason)) => Some(reason),
            Some(StepReply::Fenced | StepReply::Waiting) => Some(Reason::Fenced),
        };
        let reply = match call {
            HostCall::PutArtifact {
                lease,
                step,
                bytes,
                media,
            } => {
                let artifact = Artifact {
                    digest: Digest::of(&bytes),
                    size: bytes.len() as u64,
                    media,
                };
                self.lock().blobs.insert(artifact.digest, bytes);
                let refused = observed(lease, step, StepCall::PutArtifact(artifact.clone()));
                refused.map_or(HostReply::Artifact(artifact), HostReply::Refused)
            }
            HostCall::ReadArtifact {
                lease,
                step,
                digest,
                offset,
                length,
            } => {
                let read = self.lock().blobs.get(&digest).cloned();
                let call = StepCall::ReadArtifact {
                    digest,
                    offset,
                    length,
                    refused: read.is_none().then_some(Reason::NotFound),
                };
                let refused = observed(lease, step, call).or(read.is_none().then_some(Reason::NotFound));
                let bytes = read.unwrap_or_default();
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let to = from.saturating_add(length as usize).min(bytes.len());
                refused.map_or(HostReply::Bytes(bytes[from..to].to_vec()), HostReply::Refused)
            }
        };
        Box::pin(std::future::ready(reply))
    }
}

/// What a run came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    result: Option<Value>,
    failure: Option<Reason>,
    /// Keys and values of the crew, revisions aside, because tasks interleave, and times.
    state: BTreeMap<String, Vec<u8>>,
}

/// Runs a program of the interpreter, see [`run`].
fn run_program(program: &Value, seed: u64, dies: Option<Dies>) -> (Outcome, u64, u64) {
    let case = Case {
        component: PROGRAM,
        exports: &[Export::Executor],
        wants: WANTS,
        agents: program_agents(),
        // A path of its own: what it lists does not show what all share.
        input: json!({"path": "root/", "program": program}),
        first: false,
    };
    run(&case, seed, dies)
}

/// The agents of the interpreter's crew.
fn program_agents() -> &'static str {
    static AGENTS: OnceLock<String> = OnceLock::new();
    AGENTS.get_or_init(|| format!("[[agent]]\nname = \"program\"\nplugin = \"test/program@1.0.0\"\n{GRANTS}"))
}

/// Runs a case on a host that dies as it is told, until nothing is left to do; the outcome, the steps taken and the crashes.
fn run(case: &Case, seed: u64, dies: Option<Dies>) -> (Outcome, u64, u64) {
    let directory = crate::harness::directory();
    let world = Arc::new(World {
        component: case.component,
        memory: Mutex::new(Memory {
            shard: Shard::default(),
            batches: Vec::new(),
            rows: BTreeMap::new(),
            blobs: HashMap::new(),
            outbox: Vec::new(),
            performing: false,
            ids: 1 << 64,
            told: 0,
            steps: 0,
            dies: None,
            dead: false,
            crashes: 0,
            ahead: Millis(0),
        }),
        runner: OnceLock::new(),
    });
    let options = Options {
        compiler: Compiler::InProcess,
        cache_dir: cache(case.component).to_owned(),
        cache_key: [7; 32],
        workspaces: directory.path().join("workspaces"),
        slots: 16,
        memory: None,
        guest_threads: 2,
    };
    let runner = Runner::start(options, world.clone()).expect("a runner starts");
    world.runner.set(runner.clone()).expect("one runner");
    world.lock().shard.take_unsigned(true);
    let root = begin(&world, case, seed);
    let mut dice = Dice(seed);
    {
        let mut memory = world.lock();
        (memory.told, memory.steps, memory.dies) = (memory.batches.len(), 0, dies);
    }
    let ended = until("the program ends", || {
        world.answer();
        world.tick();
        let (dead, kept) = {
            let memory = world.lock();
            let all = memory.batches.len();
            let kept = match memory.dies {
                Some(Dies::At(_)) => memory.told + dice.pick(all - memory.told + 1),
                _ => all,
            };
            (memory.dead, kept)
        };
        if dead {
            world.recover(kept);
        }
        let memory = world.lock();
        let task = memory.shard.state().task(root).cloned();
        let task = task.or_else(|| memory.row::<Task>(Table::Tasks, root.to_bytes().to_vec()));
        // What it has sent may still be on its way.
        let is_over = |task: &Task| task.state.is_ended() || task.state == TaskState::Paused;
        let all = memory.shard.state().tasks().all(is_over);
        task.filter(|task| !memory.dead && all && is_over(task))
    });
    let memory = world.lock();
    let state = memory
        .rows
        .iter()
        .filter(|((table, _), _)| *table == Table::State)
        .map(|((_, key), row)| {
            let value: skep_rules::step::Value = minicbor::decode(row).expect("a value");
            let key = String::from_utf8(key.clone()).expect("keys are text");
            let bytes = match key.as_str() {
                key if key.ends_with("clock") => b"a time".to_vec(),
                key if key.contains("received/") => heard(&value.bytes),
                _ => value.bytes,
            };
            (key, bytes)
        });
    let outcome = Outcome {
        result: ended.result.as_ref().map(|result| match result {
            Payload::Inline(bytes) => serde_json::from_slice(bytes).expect("a program tells JSON"),
            Payload::Artifact(artifact) => json!(artifact.digest),
        }),
        failure: ended.failure.as_ref().map(|failure| failure.reason),
        state: state.collect(),
    };
    let found = (outcome, memory.steps, memory.crashes);
    drop(memory);
    drop(runner);
    found
}

/// What an agent has noted of its messages, ids and order aside: those that were sent by different tasks come as they come.
fn heard(noted: &[u8]) -> Vec<u8> {
    let noted: Vec<Value> = serde_json::from_slice(noted).expect("a list of what was received");
    let mut heard: Vec<String> = noted
        .iter()
        .map(|one| format!("{} {} {}", one["subject"], one["note"], one["from"]))
        .collect();
    heard.sort();
    heard.join("\n").into_bytes()
}

/// One directory of compiled code for all runs of a component: a runner that starts clears away what another is about to put there.
fn cache(component: &[u8]) -> &'static std::path::Path {
    static PROGRAMS: OnceLock<tempfile::TempDir> = OnceLock::new();
    static OTHERS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let cache = if component == PROGRAM { &PROGRAMS } else { &OTHERS };
    cache.get_or_init(crate::harness::directory).path()
}

/// Installs the guest, assembles a crew and submits the first task; nothing of it is forgotten by later crashes.
fn begin(world: &World, case: &Case, seed: u64) -> TaskId {
    let manifest = format!("[plugin]\nname = \"test/program\"\nversion = \"1.0.0\"\n{}", case.wants);
    let digest = Digest::of(case.component);
    let plugin = Plugin {
        digest,
        manifest: Manifest::parse(&manifest).expect("the manifest parses"),
        exports: case.exports.iter().copied().collect(),
        imports: Vec::new(),
        size: Size(case.component.len() as u64),
        installed_at: now(),
        revision: 1,
        signed: None,
    };
    world.decide(|_| Command::InstallPlugin {
        plugin: plugin.clone(),
        by: "test".into(),
        signed: None,
        consent: Consent::default(),
    });
    let crew = format!("name = \"program\"\n{}", case.agents);
    let manifest = CrewManifest::parse(&crew).expect("the crew parses");
    let agents: usize = manifest.members.iter().map(|member| member.agent_names().count()).sum();
    let crew = CrewId::new(world.lock().id(), 0);
    let agents: Vec<AgentId> = (0..agents).map(|_| AgentId::new(world.lock().id(), 0)).collect();
    let first = agents.first().copied().filter(|_| case.first);
    world.decide(|_| Command::AssembleCrew {
        crew,
        agents,
        manifest,
        plugins: vec![plugin],
        ceiling: Ceiling::default(),
        by: "test".into(),
    });
    let root = TaskId::new(world.lock().id(), 0);
    world.decide(|_| Command::SubmitTasks {
        crew,
        tasks: vec![NewTask {
            id: root,
            seed,
            description: "a program".into(),
            input: Payload::Inline(case.input.to_string().into_bytes()),
            roles: Default::default(),
            agent: first.map(|agent| agent.to_string()),
            plan: false,
            notes: Vec::new(),
            check: false,
            max_retries: Some(3),
            dependencies: Vec::new(),
            labels: Default::default(),
            ephemeral: false,
            retry: skep_rules::retry::Policy {
                initial: Some(Millis(10)),
                on_exhausted: Some(skep_rules::retry::OnExhausted::Fail),
                ..Default::default()
            },
            priority: Default::default(),
            timeouts: Default::default(),
            on_failure: Default::default(),
            approval: None,
            parts: None,
            budget: None,
        }],
        idempotency: None,
        by: "test".into(),
    });
    root
}

/// A program of some instructions; children nest so deep.
fn program(dice: &mut Dice, depth: u64) -> Vec<Value> {
    let length = 2 + dice.below(6);
    let mut acts = Vec::new();
    for _ in 0..length {
        let key = ["a", "b", "c"][dice.pick(3)];
        let value = format!("v{}", dice.below(100));
        acts.push(match dice.below(if depth > 0 { 23 } else { 20 }) {
            0 => json!({"put": {"key": key, "value": value}}),
            1 => json!({"get": {"key": key}}),
            2 => json!({"cas": {"key": key, "value": value, "revision": null}}),
            3 => json!({"cas": {"key": key, "value": value, "revision": dice.below(3)}}),
            4 => json!({"delete": {"key": key, "revision": null}}),
            // Only what is its own: what children write beneath its path comes and goes.
            5 => json!({"list": {"prefix": key}}),
            6 => json!({"history": {"key": key}}),
            7 => json!({"get-revision": {"key": key, "revision": dice.below(3)}}),
            8 => json!({"add": {"key": "/sum", "by": dice.below(5)}}),
            9 => json!({"sleep": {"ms": dice.below(8)}}),
            10 => json!({"pause": {"ms": dice.below(4)}}),
            11 => json!({"clock": {"key": "clock", "reads": dice.below(600)}}),
            12 => json!({"random": {"key": "random"}}),
            13 => json!({"store": {"text": value}}),
            14 => json!({"beat": {}}),
            15 => json!({"write": {"file": key, "text": value}}),
            16 => json!({"read": {"file": key}}),
            17 => json!({"fail": {"message": "not yet", "until": dice.below(3)}}),
            18 => json!({"ask": {"action": key, "items": [["a", format!("{{\"to\":\"{value}\"}}")], ["b", value]]}}),
            19 => json!({"block": {"question": value}}),
            20 => json!({"spawn": {"program": program(dice, depth - 1), "max_retries": 3}}),
            21 => json!({"await-all": {"timeout": null}}),
            _ => json!({"loop": {"times": dice.below(3) + 1, "program": [{"put": {"key": key, "value": value}}, {"get": {"key": key}}]}}),
        });
    }
    if depth > 0 {
        acts.push(json!({"await-all": {"timeout": null}}));
    }
    acts
}

#[test]
fn programs_that_are_killed_at_every_step_end_as_if_nobody_had() {
    let seeds = match number("SKEP_PROGRAM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SKEP_PROGRAMS").unwrap_or(PROGRAMS),
    };
    let (mut kills, mut steps) = (0, 0);
    for seed in seeds {
        let mut dice = Dice(seed);
        let program = json!(program(&mut dice, 2));
        let told = |how: &str| format!("SKEP_PROGRAM_SEED={seed} repeats it, {how}: {program}");
        let (expected, taken, _) = run_program(&program, seed, None);
        assert!(
            expected.result.is_some() || expected.failure.is_some(),
            "{}",
            told("undisturbed")
        );
        let (killed, _, crashes) = run_program(&program, seed, Some(Dies::AtEach));
        assert_eq!(killed, expected, "{}", told("killed behind each step"));
        kills += crashes;
        steps += taken;
        for _ in 0..3 {
            let at = dice.below(taken.max(1)) + 1;
            let (killed, _, crashes) = run_program(&program, seed, Some(Dies::At(at)));
            assert_eq!(killed, expected, "{}", told(&format!("killed at step {at}")));
            kills += crashes;
        }
    }
    assert!(kills > 0 && steps > 0, "{kills} kills at {steps} steps");
}

#[test]
fn a_long_workflow_is_equal_to_its_undisturbed_twin() {
    // Three levels, some three hundred steps, twenty minutes of sleep on each level, and on the first a wait for the others.
    let work = json!({"loop": {"times": 10, "program": [{"add": {"key": "/sum", "by": 1}}, {"put": {"key": "n", "value": "x"}}]}});
    let sleep = json!({"sleep": {"ms": 1_200_000}});
    let leaf = json!([work, sleep, {"get": {"key": "n"}}]);
    let branch = json!([work, {"spawn": {"program": leaf}}, {"spawn": {"program": leaf}}, sleep, {"await-all": {"timeout": null}}, work]);
    let program = json!([
        work, {"store": {"text": "long"}}, {"spawn": {"program": branch}}, {"spawn": {"program": branch}}, {"await-all": {"timeout": null}},
        sleep, {"clock": {"key": "clock", "reads": 300}}, {"load": {"artifact": 0}}, {"random": {"key": "random"}}, work,
    ]);
    let (expected, taken, _) = run_program(&program, 7, None);
    assert!(expected.result.is_some() && taken >= 200, "{taken} steps: {expected:?}");
    let (killed, _, crashes) = run_program(&program, 7, Some(Dies::AtEach));
    assert!(crashes >= 20, "{crashes} crashes");
    assert_eq!(killed, expected);
}

#[test]
fn messages_that_are_killed_at_every_step_are_received_as_if_nobody_had() {
    // One that sends, by name, to all who listen and to nobody, and asks; those who hear it note it, step by step.
    let send = |subject: &str, to: Value, note: &str| json!({"do": "send", "subject": subject, "to": to, "body": {"note": note}});
    let ask = |answer: u32| {
        // Longer than the default: what is compared is not how fast a busy machine is.
        json!({"do": "ask", "subject": "job.question", "to": "one", "ttl": 3_600_000, "body": {"note": "?", "answer": answer}})
    };
    let slow =
        json!({"do": "send", "subject": "job.done", "to": "two", "key": "k", "body": {"note": "slow", "sleep": 50}});
    let after = json!({"do": "send", "subject": "job.done", "to": "two", "key": "k", "body": {"note": "after"}});
    let acts = json!([
        send("job.done", Value::Null, "all"),
        slow,
        after,
        ask(7),
        send("job.late.done", Value::Null, "late"),
        send("job.done", json!("nobody"), "lost"),
        ask(8),
    ]);
    let last = json!({"do": "send-and-fail", "subject": "job.done", "body": {"note": "twice"}});
    let mut acts: Vec<Value> = acts.as_array().unwrap().clone();
    // Its run fails once, and begins anew: whatever was sent by then is sent again.
    acts.insert(2, last);
    let case = Case {
        component: MESSAGES,
        exports: &[Export::Executor, Export::Mailbox],
        wants: "[wants]\nstate = { quota = \"1MiB\" }\ntasks = { children = 0 }\nmessages = { send = [\">\"], receive = [\">\"] }\n",
        agents: r#"
            [[agent]]
            name = "sender"
            plugin = "test/program@1.0.0"
            grants = { state = { quota = "1MiB" }, tasks = { children = 0 }, messages = { send = ["job.>"] } }
            [[agent]]
            name = "one"
            plugin = "test/program@1.0.0"
            grants = { state = { quota = "1MiB" }, tasks = { children = 0 }, messages = { receive = ["job.>"] } }
            [[agent]]
            name = "two"
            plugin = "test/program@1.0.0"
            grants = { state = { quota = "1MiB" }, tasks = { children = 0 }, messages = { receive = ["job.*"] } }
        "#,
        input: json!({"do": "all", "acts": acts}),
        first: true,
    };
    let (expected, taken, _) = run(&case, 3, None);
    let answers = expected.result.as_ref().expect("it tells what became of each");
    assert!(
        answers[4] == json!({"ok": 7})
            && answers[6] == json!({"refused": "no-listener"})
            && answers[7] == json!({"ok": 8}),
        "{answers}"
    );
    let (killed, _, crashes) = run(&case, 3, Some(Dies::AtEach));
    assert!(crashes >= 20, "{crashes} crashes");
    let told = |outcome: Outcome| (sent(outcome.result), outcome.failure, outcome.state);
    let expected = told(expected);
    assert_eq!(told(killed), expected);
    for at in (1..=taken).step_by(5) {
        let (killed, ..) = run(&case, 3 + at, Some(Dies::At(at)));
        assert_eq!(told(killed), expected, "killed at step {at}");
    }
}

/// What a sender tells, without the ids of its messages, which differ from run to run.
fn sent(result: Option<Value>) -> Option<Value> {
    let told = result?;
    let nameless = told.as_array()?.iter().map(|one| match one["ok"].as_str() {
        Some(_) => json!("sent"),
        None => one.clone(),
    });
    Some(nameless.collect())
}
