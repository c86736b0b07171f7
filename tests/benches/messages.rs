//! Messages between agents of one crew, on the real `skep up` as a process of its own. Every message is accepted by one decision, delivered to a fresh
//! sandbox of its receiver and ended by another; the sandboxes of senders and receivers share the cores.

use std::time::Duration;

use serde_json::{Value, json};
use skep_built_guests::BUS;

use crate::{
    harness::{Host, plugin, until},
    journal::floor,
    percentiles, round,
    tasks::cpu,
    time,
};

/// Agents that send, and as many that receive.
const PAIRS: usize = 32;

/// A host whose crew `load` has senders and receivers that come in pairs.
struct Crew {
    host: Host,
    /// Microseconds for one write and sync on the same disk, just before.
    floor: f64,
    _directory: tempfile::TempDir,
}

impl Crew {
    fn of(pairs: usize) -> Crew {
        // Beside the build, so that the disk is a disk: /tmp may be memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
        let floor = floor(directory.path());
        let host = Host::start_in(&directory.path().join("data"), &[]);
        let wants = "[wants]\ntasks = { children = 0 }\nmessages = { send = [\">\"], receive = [\">\"] }\n[limits]\ntier = \"small\"\n";
        host.install(&plugin("bus", BUS, wants)).json();
        let agent = |name: &str, topics: &str| {
            format!(
                "[[agent]]\nname = \"{name}\"\nplugin = \"test/bus@1.0.0\"\nreplicas = {pairs}\n\
                 grants = {{ tasks = {{ children = 0 }}, messages = {{ {topics} = [\"load.>\"] }} }}\n"
            )
        };
        let agents = [agent("sender", "send"), agent("receiver", "receive")].concat();
        host.assemble(&format!("name = \"load\"\n{agents}"));
        Crew {
            host,
            floor,
            _directory: directory,
        }
    }

    /// Has every sender do something with its receiver, and waits until all have.
    fn act(&self, pairs: usize, act: &str, count: usize) {
        let name = |role: &str, pair: usize| match pairs {
            1 => role.to_owned(),
            _ => format!("{role}-{pair}"),
        };
        let task = |pair| {
            json!({
                "description": act, "crew": "load", "agent": name("sender", pair),
                "input": format!("{act}:{count}:{}", name("receiver", pair)), "retry": {"maxRetries": 0, "onExhausted": "fail"}
            })
        };
        let tasks: Vec<Value> = (1..=pairs).map(task).collect();
        let answer = self.host.call("POST", "/v1/tasks?wait=120s", &Value::Array(tasks));
        let text = String::from_utf8_lossy(&answer.body);
        let completed = text.matches("\"state\":\"COMPLETED\"").count();
        assert!(answer.status == 201 && completed == pairs, "{text}");
    }

    /// Messages that receivers have begun to handle.
    fn received(&self) -> u64 {
        let page = self.host.get("/v1/agents?crew=load&limit=100");
        let items = page["items"].as_array().expect("a page has items");
        let receives = |agent: &&Value| agent["name"].as_str().is_some_and(|name| name.starts_with("receiver"));
        let attempts = items
            .iter()
            .filter(receives)
            .filter_map(|agent| agent["attempts"].as_u64());
        attempts.sum()
    }

    /// Waits until no message is on its way.
    fn settle(&self) {
        until("every message is handled", || {
            let tasks = &self.host.get("/v1/crews")["items"][0]["tasks"];
            (tasks["pending"] == 0 && tasks["in_progress"] == 0).then_some(())
        });
    }
}

/// Durable messages from agent to agent per second, handled; and how long one agent's question to another takes.
pub(crate) fn messages() -> Vec<Value> {
    vec![durable(), request()]
}

/// From the request that has the senders begin until every message is handled, all of it on the disk by then.
fn durable() -> Value {
    const EACH: usize = 2_000;
    let crew = Crew::of(PAIRS);
    crew.act(PAIRS, "send", 50);
    crew.settle();
    let before = (crew.received(), cpu(crew.host.pid()));
    let ((), took) = time(|| {
        crew.act(PAIRS, "send", EACH);
        crew.settle();
    });
    let (sent, cpu) = (PAIRS * EACH, cpu(crew.host.pid()) - before.1);
    let received = crew.received() - before.0;
    assert_eq!(received, sent as u64, "each message is handled once");
    json!({
        "value": round(sent as f64 / took.as_secs_f64(), 0), "unit": "messages/s", "n": sent, "in_flight": PAIRS, "agents": 2 * PAIRS,
        "host_cpu_us_each": round(cpu * 1e6 / sent as f64, 0), "durability": "synced", "floor_us": crew.floor
    })
}

/// A guest's clock has milliseconds, so what is timed from outside is a task that asks many times, and what a task costs that asks once is taken off. A
/// question waits for no disk, and neither does its answer; both are journaled with the task that asks.
fn request() -> Value {
    const ASKED: usize = 500;
    const SAMPLES: usize = 200;
    let crew = Crew::of(1);
    let sample = |asked: usize| time(|| crew.act(1, "ask", asked)).1;
    for _ in 0..20 {
        sample(ASKED);
    }
    let (alone, _) = percentiles((0..SAMPLES).map(|_| sample(1)).collect());
    let alone = Duration::from_secs_f64(alone / 1e6);
    let each = |_| sample(ASKED).saturating_sub(alone) / u32::try_from(ASKED - 1).expect("a small number");
    let before = cpu(crew.host.pid());
    let (p50, p99) = percentiles((0..SAMPLES).map(each).collect());
    let cpu = cpu(crew.host.pid()) - before;
    json!({
        "host_cpu_us_each": round(cpu * 1e6 / (SAMPLES * ASKED) as f64, 0),
        "value": p50, "unit": "µs", "p50": p50, "p99": p99, "n": SAMPLES * ASKED, "samples": SAMPLES, "in_flight": 1, "task_alone_ms": round(alone.as_secs_f64() * 1e3, 3),
        "durability": "at most once", "floor_us": crew.floor
    })
}
