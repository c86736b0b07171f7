//! Tasks as trees: plans, dependencies, optional nodes, checks, failures. The guest `plans` does what its input says.

use serde_json::{Value, json};
use skep_built_guests::PLANS;

use crate::harness::Host;

/// A host with a crew of two agents that plan, execute and check.
fn host() -> Host {
    let host = Host::start();
    host.crew("plans", PLANS, "[provides]\nroles = [\"worker\"]\n", "replicas = 2\n");
    host
}

fn objective(plan: Value) -> Value {
    json!({"description": "objective", "crew": "plans", "plan": true, "input": {"plan": plan}})
}

#[test]
fn a_plan_runs_in_the_order_of_its_dependencies_and_its_integration_is_the_result() {
    let host = host();
    let ended = host.run(&objective(json!([
        {"name": "a", "input": {"answer": 1}},
        {"name": "b", "input": {"answer": 2}, "needs": ["a"]},
        {"name": "sum", "needs": ["b", "a"], "integrates": true, "input": {"dependencies": true}},
    ])));
    assert_eq!(ended["state"], "COMPLETED", "{ended}");
    let told = &ended["result"]["dependencies"];
    assert_eq!(
        (&told[0]["name"], &told[0]["output"], &told[1]["output"]),
        (&json!("a"), &json!(1), &json!(2)),
        "{told}"
    );
    assert!(
        ended["result"]["facts"]["agents"].is_array(),
        "an integration task is told the host's facts: {ended}"
    );

    let id = ended["taskId"].as_str().unwrap();
    let tree = host.get(&format!("/v1/tasks/{id}/tree"));
    assert_eq!(tree["children"].as_array().map(Vec::len), Some(3), "{tree}");
    host.skep(&["task", "tree", id]).exits(0).says(&["sum", "completed"]);
}

#[test]
fn an_executor_may_decompose_what_is_too_large() {
    let host = host();
    let split = json!({"plan": [{"name": "half", "input": {"answer": "done"}, "integrates": true}]});
    let ended = host.run(&json!({"description": "large", "crew": "plans", "input": split}));
    assert_eq!(
        (&ended["state"], &ended["result"]),
        (&json!("COMPLETED"), &json!("done")),
        "{ended}"
    );
}

#[test]
fn the_failure_of_a_node_fails_the_objective_and_skips_what_waits() {
    let host = host();
    let ended = host.run(&objective(json!([
        {"name": "bad", "input": {"fail": "no"}},
        {"name": "after", "needs": ["bad"], "input": {"answer": 1}},
    ])));
    assert_eq!(
        (&ended["state"], &ended["failure"]["code"]),
        (&json!("FAILED"), &json!("dependency-failed")),
        "{ended}"
    );
    assert!(ended["failure"]["message"].as_str().unwrap().contains("bad"), "{ended}");
    let tree = host.get(&format!("/v1/tasks/{}/tree", ended["taskId"].as_str().unwrap()));
    let states: Vec<_> = tree["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| child["task"]["state"].clone())
        .collect();
    assert_eq!(states, ["FAILED", "SKIPPED"], "{tree}");
}

#[test]
fn the_failure_of_an_optional_node_is_told_and_stops_nobody() {
    let host = host();
    let ended = host.run(&objective(json!([
        {"name": "risky", "optional": true, "input": {"fail": "no"}},
        {"name": "report", "needs": ["risky"], "integrates": true, "input": {"dependencies": true}},
    ])));
    let told = &ended["result"]["dependencies"][0];
    assert_eq!(
        (&told["ended"], &told["reason"]),
        (&json!("failed"), &json!("error")),
        "{ended}"
    );
}

#[test]
fn a_checker_sends_back_with_remarks_and_at_last_refuses() {
    let host = host();
    let check = |least: u32| json!({"description": "checked", "crew": "plans", "check": true, "input": {"refuse-below": least}});
    let ended = host.run(&check(2));
    assert_eq!(
        (&ended["state"], &ended["result"]["remarks"]),
        (&json!("COMPLETED"), &json!(["remark 1", "remark 2"])),
        "{ended}"
    );
    let refused = host.run(&check(9));
    assert_eq!(
        (&refused["state"], &refused["failure"]["code"]),
        (&json!("FAILED"), &json!("verify")),
        "{refused}"
    );
}

#[test]
fn a_plan_with_a_cycle_is_refused_and_the_cycle_is_named() {
    let host = host();
    let ended = host.run(&objective(json!([
        {"name": "a", "needs": ["b"], "input": 1},
        {"name": "b", "needs": ["a"], "input": 1},
    ])));
    let message = ended["failure"]["message"].as_str().unwrap_or_default();
    assert!(
        ended["state"] == "FAILED" && message.contains("cycle") && message.contains('→'),
        "{ended}"
    );
}

#[test]
fn a_task_may_wait_for_another_task() {
    let host = host();
    let first = host.run(&json!({"description": "first", "crew": "plans", "input": {"answer": 7}}));
    let second = json!({"description": "second", "crew": "plans", "dependencies": [first["taskId"]], "input": {"dependencies": true}});
    assert_eq!(host.run(&second)["result"]["dependencies"][0]["output"], 7);
}
