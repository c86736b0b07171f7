//! From a person's word to the task that waited for it, on the real `skep up`, over HTTP.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{percentiles, round, tasks::Ready};

/// From the request that decides until a reader finds the task begun: each decision is durable before it is answered.
pub(crate) fn approvals() -> Vec<Value> {
    const COUNT: usize = 1_000;
    const BATCH: usize = 100;
    // The token that submits is the one that decides.
    let echo = skep_bundled::get("echo").expect("echo is bundled").component;
    let ready = Ready::of(
        echo,
        "[limits]\ntier = \"small\"\n",
        "[approvals]\nby_requester = true\n",
    );
    let task = json!({"description": "waits", "crew": "load", "input": [1], "approval": {"before": true}});
    let mut samples = Vec::with_capacity(COUNT);
    for lap in 0..=COUNT / BATCH {
        let body = Value::Array(vec![task.clone(); BATCH]);
        let answer = ready.host.call("POST", "/v1/tasks", &body);
        assert_eq!(answer.status, 201, "{}", answer.json());
        let asked = ready.host.get("/v1/approvals?limit=100");
        let asked = asked["items"].as_array().expect("a page has items");
        assert_eq!(asked.len(), BATCH, "every task waits for a person");
        let took: Vec<Duration> = asked.iter().map(|approval| decide(&ready, approval)).collect();
        // The first lap warms up.
        if lap > 0 {
            samples.extend(took);
        }
    }
    let n = samples.len();
    let (p50, p99) = percentiles(samples);
    vec![json!({
        "value": round(p99 / 1e3, 2), "unit": "ms", "p50": round(p50 / 1e3, 2), "p99": round(p99 / 1e3, 2), "n": n, "in_flight": 1,
        "durability": "synced", "floor_us": ready.floor
    })]
}

fn decide(ready: &Ready, approval: &Value) -> Duration {
    let word = json!({"approvalId": approval["approvalId"], "decision": "approve"});
    let path = format!("/v1/tasks/{}", approval["task"].as_str().expect("a task asks"));
    let start = Instant::now();
    let answer = ready.host.call("POST", "/v1/approvals", &word);
    assert_eq!(answer.status, 200, "{}", answer.json());
    loop {
        // One that is brief has ended before it could be seen at work.
        let task = ready.host.get(&path);
        match task["state"].as_str() {
            Some("RUNNING" | "COMPLETED") => return start.elapsed(),
            state => assert!(start.elapsed() < Duration::from_secs(60), "{state:?}"),
        }
    }
}
