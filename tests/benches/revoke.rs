//! From the command that revokes to the end of the last instance: a host with a crew that does nothing but compute.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skep_built_guests::LIMITS;

use crate::{harness::Host, percentiles, round};

pub(crate) fn revoke() -> Vec<Value> {
    const AGENTS: usize = 50;
    const TIMES: usize = 9;
    let (mut gone, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let host = Host::start();
        host.crew("spinners", LIMITS, "", &format!("replicas = {AGENTS}"));
        for _ in 0..AGENTS {
            let task = json!({"description": "spin", "input": {"do": "spin"}, "crew": "spinners"});
            assert_eq!(host.call("POST", "/v1/tasks", &task).status, 201, "it is accepted");
        }
        let live = || host.get("/v1/host")["capacity"]["attempts"].as_u64();
        wait("all of them compute", || live() == Some(AGENTS as u64));
        let start = Instant::now();
        let answer = host.call(
            "POST",
            "/v1/plugins/test%2Fspinners@1.0.0/revoke",
            &json!({"reason": "a measurement"}),
        );
        answered.push(start.elapsed());
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        wait("none of them does", || live() == Some(0));
        gone.push(start.elapsed());
    }
    let (p50, p99) = percentiles(gone);
    let (answer, _) = percentiles(answered);
    vec![json!({
        "value": round(p50 / 1e3, 1), "unit": "ms to the last instance gone", "p50": round(p50 / 1e3, 1), "p99": round(p99 / 1e3, 1),
        "answered_p50_ms": round(answer / 1e3, 1), "agents": AGENTS, "n": TIMES
    })]
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
    }
}
