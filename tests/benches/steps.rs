//! Durable steps: over HTTP, as clients meet them, and the replay of a record, as the next attempt meets it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use skep_built_guests::{PROGRAM, STEPS};
use skep_rules::{
    capability::{Capability, GrantWord},
    grant::Effective,
    id::{AgentId, CrewId, Digest, TaskId},
    limits::Tier,
    plan::Payload,
    quantity::{Size, Time},
    reason::Reason,
    seam::{Call, End, HostCall, HostReply, Identity, Lease, RunnerEvent, StepReply, TaskView},
    step::{Recorded, Step, StepCall, StepResult},
};
use skep_runtime::{Compiler, Control, Options, Sandbox};

use crate::{
    journal::floor,
    round,
    tasks::{CLIENTS, Ready, threads},
    time,
};

const WANTS: &str = "[wants]\nartifacts = \"1MiB\"\nstate = { quota = \"64MiB\" }\ntasks = { children = 1000 }\n[limits]\ntier = \"small\"\n";
const GRANTS: &str = "grants = { artifacts = \"1MiB\", state = { quota = \"64MiB\" }, tasks = { children = 1000 } }\n";

fn ready(component: &[u8]) -> Ready {
    Ready::of(component, WANTS, GRANTS)
}

fn task(input: &Value) -> Value {
    json!({"description": "steps", "crew": "load", "input": input})
}

/// Tasks of three steps, and tasks that spawn and await three children in turn.
pub(crate) fn workflow3() -> Vec<Value> {
    ["steps3", "children3"]
        .into_iter()
        .map(|input| {
            let mut line = crate::tasks::throughput(&ready(STEPS), &task(&json!(input)), "synced");
            line["workflow"] = json!(input);
            line
        })
        .collect()
}

/// Recorded host calls per second: puts and gets, all in one task, and over a thousand tasks.
pub(crate) fn steps() -> Vec<Value> {
    const ONE: usize = 100_000;
    const TASKS: usize = 1_000;
    const EACH: usize = 200;
    let line = |ready: &Ready, clients: usize, batch: usize, rounds: usize, each: usize| {
        let request = ready.request(&Value::Array(vec![task(&json!(format!("steps:{each}"))); batch]));
        let (samples, took) =
            time(|| ready.load(clients, &request, batch, Duration::ZERO, move |asked| asked < rounds));
        let n = samples.len() * batch * each;
        json!({
            "value": round(n as f64 / took.as_secs_f64(), 0), "unit": "steps/s", "n": n, "tasks": samples.len() * batch, "in_flight": clients * batch,
            "threads": threads(ready), "durability": "synced", "floor_us": ready.floor
        })
    };
    let one = line(&ready(STEPS), 1, 1, 1, ONE);
    let many = line(&ready(STEPS), 10, TASKS / 10, 1, EACH);
    vec![one, many]
}

/// What a waiting task takes in memory when its instance is gone.
pub(crate) fn waiting() -> Vec<Value> {
    const BATCH: usize = 100;
    let tasks = if std::env::var_os("SKEP_FIGURES_FULL").is_some() {
        99_000
    } else {
        20_000
    };
    let ready = ready(PROGRAM);
    let sleep = task(&json!([{"sleep": {"ms": 86_400_000}}]));
    let body = Value::Array(vec![sleep; BATCH]);
    let pid = ready.host.pid();
    let before = crate::tasks::rss(pid);
    for _ in 0..tasks / BATCH {
        let answer = ready.host.call("POST", "/v1/tasks", &body);
        assert!(
            matches!(answer.status, 200..=202),
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
    }
    crate::harness::until("every task waits", || {
        let crew = &ready.host.get("/v1/crews")["items"][0];
        (crew["tasks"]["in_progress"] == tasks).then_some(())
    });
    // Instances are kept for two seconds.
    std::thread::sleep(Duration::from_secs(5));
    let more = crate::tasks::rss(pid) - before;
    vec![json!({
        "value": round(more * 1024.0 / tasks as f64, 2), "unit": "KiB per waiting task", "more_mib": round(more, 1), "n": tasks, "floor_us": ready.floor
    })]
}

/// A host that has a record and takes no step beyond it.
struct Records(Mutex<Vec<Recorded>>);

/// Steps handed out at a time: what a page of a real record holds of such small ones.
const PAGE: usize = 500;

impl skep_runtime::Host for Records {
    fn event(&self, _: RunnerEvent) {}

    fn component(&self, _: Digest) -> std::io::Result<Vec<u8>> {
        Ok(STEPS.to_vec())
    }

    fn step(&self, _: Lease, number: u64, call: StepCall) -> StepReply {
        let result = match &call {
            StepCall::Get { .. } => StepResult::Value(None),
            _ => StepResult::Written(number + 1),
        };
        let step = Step {
            asked: call.asked(),
            at: Time(number),
            result,
        };
        let recorded = Recorded { step, ends: Vec::new() };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(recorded.clone());
        StepReply::Recorded(recorded)
    }

    fn record(&self, _: Lease, from: u64) -> Result<Vec<Recorded>, Reason> {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(from).expect("a number of steps");
        Ok(record.iter().skip(from).take(PAGE).cloned().collect())
    }

    fn call(&self, _: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        Box::pin(std::future::ready(HostReply::Refused(Reason::Overloaded)))
    }
}

/// Recorded steps per second that a second run of an attempt is given, by the real runner from a record in memory.
pub(crate) fn replay() -> Vec<Value> {
    const STEPS_OF: u64 = 300_000;
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let floor = floor(directory.path());
    let options = Options {
        compiler: Compiler::InProcess,
        cache_dir: directory.path().join("cache"),
        cache_key: [0; 32],
        workspaces: directory.path().join("workspaces"),
        slots: 4,
        memory: None,
        guest_threads: 1,
    };
    let sandbox = Sandbox::new(&options).expect("the sandbox starts");
    let mut limits = Tier::Medium.limits();
    limits.hostcalls_per_second = u32::MAX;
    let effective = Effective {
        mounts: Vec::new(),
        workspace: Size(0),
        artifacts: Size(0),
        env: Default::default(),
        limits,
        word: GrantWord::free().with(Capability::State).with(Capability::Tasks),
        state: Size(1 << 20),
        children: 10,
        messages: skep_rules::message::Topics::default(),
    };
    let identity = Identity {
        agent: AgentId::new(1, 0),
        generation: 1,
        name: "bench".into(),
        crew: CrewId::new(1, 0),
    };
    let host = Arc::new(Records(Mutex::default()));
    let agent = sandbox
        .prepare(host, identity, Digest::of(STEPS), effective)
        .expect("the guest can be prepared");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime starts");
    let run = |epoch: u64, recorded: u64| {
        let control = Control::new(Lease {
            task: TaskId::new(1, 0),
            epoch,
            agent: AgentId::new(1, 0),
            generation: 1,
        });
        let view = TaskView {
            attempt: 1,
            description: String::new(),
            input: Payload::Inline(json!(format!("steps:{STEPS_OF}")).to_string().into_bytes()),
            dependencies: Vec::new(),
            facts: None,
            remarks: Vec::new(),
            seed: 1,
            began: Time(0),
            records: true,
            deadline: None,
            fuel: None,
        };
        let (ended, took) = time(|| runtime.block_on(agent.attempt(&control, Call::Execute, view, recorded)));
        assert!(matches!(ended.end, End::Finished(_)), "{:?}", ended.end);
        took
    };
    let live = run(1, 0);
    let best = (2..7).map(|epoch| run(epoch, STEPS_OF)).min().unwrap_or(live);
    vec![json!({
        "value": round(STEPS_OF as f64 / best.as_secs_f64(), 0), "unit": "recorded steps/s", "n": STEPS_OF, "threads": 1,
        "taken_per_s": round(STEPS_OF as f64 / live.as_secs_f64(), 0), "in_flight": CLIENTS.min(1), "floor_us": floor
    })]
}
