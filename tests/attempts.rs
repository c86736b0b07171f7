//! Limits (T01, T05, T09, T12, T13, T16 to T18): every row is one task; the host must stay well and the next task must work.

use serde_json::{Value, json};
use skep_built_guests::LIMITS;

use crate::harness::Host;

/// Small limits, so that each is reached quickly.
const SMALL: &str = "limits = { tier = \"small\", fuel = \"1G\", deadline = \"5s\" }";

fn task(act: Value) -> Value {
    json!({"description": "a limit", "crew": "limits", "input": act, "retry": {"maxRetries": 0, "onExhausted": "fail"}})
}

#[test]
fn every_limit_has_its_reason_code_and_leaves_the_host_well() {
    let host = Host::start();
    host.crew("limits", LIMITS, "", SMALL);
    let cases = [
        (json!({"do": "spin"}), "fuel-exhausted"),
        (json!({"do": "copy"}), "fuel-exhausted"),
        (json!({"do": "sleep", "ms": 3_600_000}), "deadline-exceeded"),
        (json!({"do": "sleep", "ms": u64::MAX}), "deadline-exceeded"),
        (json!({"do": "panic"}), "trapped"),
        (json!({"do": "exit"}), "trapped"),
        (json!({"do": "allocate"}), "memory-limit"),
        (json!({"do": "shout", "bytes": 2_000_000}), "hostcall-limit"),
        (json!({"do": "return", "bytes": 2_000_000}), "hostcall-limit"),
        (json!({"do": "return", "bytes": 300_000}), "body-limit"),
        (json!({"do": "fail"}), "error"),
    ];
    for (act, code) in cases {
        let ended = host.run(&task(act.clone()));
        assert_eq!(
            (ended["state"].as_str(), ended["failure"]["code"].as_str()),
            (Some("FAILED"), Some(code)),
            "{act}: {ended}"
        );
        let next = host.run(&task(json!({"do": "dice"})));
        assert_eq!(next["state"], "COMPLETED", "after {act}: {next}");
    }
}

#[test]
fn a_stack_that_runs_out_ends_the_attempt_only() {
    let host = Host::start();
    host.crew("limits", LIMITS, "", SMALL);
    let ended = host.run(&task(json!({"do": "recurse"})));
    let code = ended["failure"]["code"].as_str().unwrap_or_default();
    // An ordinary Rust guest keeps its stack in linear memory and runs off its lower end, which is a memory fault to the engine.
    assert!(matches!(code, "stack-overflow" | "trapped"), "{ended}");
    assert_eq!(host.run(&task(json!({"do": "dice"})))["state"], "COMPLETED");
}

#[test]
fn memory_growth_is_refused_at_the_limit_and_the_agent_lives() {
    let host = Host::start();
    host.crew("limits", LIMITS, "", SMALL);
    let ended = host.run(&task(json!({"do": "grow"})));
    assert_eq!(
        (&ended["state"], &ended["result"]),
        (&json!("COMPLETED"), &json!(16 * 16)),
        "16 MiB are 256 pages: {ended}"
    );
}

#[test]
fn a_flood_of_host_calls_is_stopped() {
    let host = Host::start();
    host.crew(
        "limits",
        LIMITS,
        "",
        "limits = { tier = \"small\", deadline = \"20s\" }",
    );
    for act in ["chatter", "clock"] {
        let ended = host.run(&task(json!({"do": act})));
        assert_eq!(ended["failure"]["code"], "rate-limited", "{act}: {ended}");
    }
}

#[test]
fn the_same_seed_is_not_drawn_twice_and_fuel_is_deterministic() {
    let host = Host::start();
    host.crew("limits", LIMITS, "", SMALL);
    let dice = || host.run(&task(json!({"do": "dice"})));
    assert_ne!(
        dice()["result"],
        dice()["result"],
        "each task draws from a seed of its own"
    );
    let fuel = || host.run(&task(json!({"do": "fail"})))["fuel"].clone();
    assert_eq!(fuel(), fuel(), "the same call burns the same fuel");
}

#[test]
fn a_retry_is_given_when_the_agent_advises_it() {
    let host = Host::start();
    host.crew("limits", LIMITS, "", SMALL);
    let ended = host.run(
        &json!({"description": "third time lucky", "crew": "limits", "input": {"do": "fail-until", "attempt": 2}}),
    );
    assert_eq!(
        (&ended["state"], &ended["result"], &ended["attempts"]),
        (&json!("COMPLETED"), &json!(2), &json!(2)),
        "{ended}"
    );
}

#[test]
fn cancelling_reaches_a_guest_that_spins() {
    let host = Host::start();
    host.crew("limits", LIMITS, "", "limits = { fuel = \"1T\", deadline = \"60s\" }");
    let spinning = host.call("POST", "/v1/tasks", &task(json!({"do": "spin"}))).json();
    let path = format!("/v1/tasks/{}", spinning["taskId"].as_str().expect("a task has an id"));
    crate::harness::until("the task runs", || {
        (host.get(&path)["state"] == "RUNNING").then_some(())
    });
    assert_eq!(host.call("PUT", &path, &json!({"action": "cancel"})).status, 200);
    let ended = crate::harness::until("the task is cancelled", || {
        Some(host.get(&path)).filter(|task| task["state"] == "CANCELLED")
    });
    assert_eq!(ended["status"], "Failed");
    // The slot is free again.
    assert_eq!(host.run(&task(json!({"do": "dice"})))["state"], "COMPLETED");
}
