//! What a flood of lines by one agent does to another crew's tasks. Beside it, because a flood also computes: the same tasks beside an agent that only
//! computes, in turns, so that what is compared is what the lines cost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skep_built_guests::{LIMITS, OUTPUT_WRITE};

use crate::{harness::Host, percentiles, round};

pub(crate) fn logs() -> Vec<Value> {
    const ROUNDS: usize = 4;
    const TASKS: usize = 250;
    let host = Host::start();
    host.crew("quiet", OUTPUT_WRITE, "", "");
    host.crew("flood", OUTPUT_WRITE, "", "limits = { fuel = \"1T\" }");
    host.crew("spin", LIMITS, "", "limits = { fuel = \"1T\" }");
    // 4 KB are 120 lines; a call takes some microseconds.
    let text = "0123456789 0123456789 0123456789\n".repeat(120);
    // Well above the hundred thousand lines a second that are asked for, and below the host calls at which a flood is stopped.
    let flood = json!({"stream": "stdout", "text": text, "times": 1_000_000_000_u64, "turns": 50_000});
    let (mut beside_spin, mut beside_flood) = (Vec::new(), Vec::new());
    tasks(&host, TASKS);
    for _ in 0..ROUNDS {
        beside_spin.extend(beside(&host, "spin", &json!({"do": "spin"}), TASKS));
        beside_flood.extend(beside(&host, "flood", &flood, TASKS));
    }
    let dropped = host.get("/v1/logs?limit=1")["dropped"].clone();
    let (quiet_p50, quiet_p99) = percentiles(beside_spin);
    let (p50, p99) = percentiles(beside_flood);
    let change = round(100.0 * (p99 / quiet_p99 - 1.0), 1);
    vec![json!({
        "value": change, "unit": "% change of p99", "p50": round(p50 / 1e3, 3), "p99": round(p99 / 1e3, 3), "beside_spin_p50": round(quiet_p50 / 1e3, 3),
        "beside_spin_p99": round(quiet_p99 / 1e3, 3), "n": ROUNDS * TASKS, "dropped_lines": dropped, "durability": "synced"
    })]
}

/// How long tasks of the quiet crew take while an agent of another does something.
fn beside(host: &Host, crew: &str, input: &Value, count: usize) -> Vec<Duration> {
    let task = json!({"description": crew, "crew": crew, "input": input, "retry": {"maxRetries": 0}});
    let task = host.call("POST", "/v1/tasks", &task).json();
    let path = format!("/v1/tasks/{}", task["taskId"].as_str().expect("it is accepted"));
    let start = Instant::now();
    while host.get(&path)["state"] != "RUNNING" {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
    }
    let took = tasks(host, count);
    let task = host.get(&path);
    assert_eq!(task["state"], "RUNNING", "it went on all the while: {task}");
    assert_eq!(host.call("PUT", &path, &json!({"action": "cancel"})).status, 200);
    took
}

fn tasks(host: &Host, count: usize) -> Vec<Duration> {
    let task = json!({"description": "quiet", "crew": "quiet", "input": {"stream": "stdout", "text": "quiet\n"}});
    let one = |_| {
        let start = Instant::now();
        assert_eq!(host.run(&task)["state"], "COMPLETED");
        start.elapsed()
    };
    (0..count).map(one).collect()
}
