//! Crews: a valid manifest spawns exactly its agents (row 1.5), work is spread over them, a drained crew stops.

use std::collections::BTreeSet;

use serde_json::json;
use skep_built_guests::{PLANS, TALK};

use crate::harness::{Host, plugin, until};

#[test]
fn a_manifest_spawns_as_many_agents_as_it_says() {
    let host = Host::start();
    host.install(&plugin("plans", PLANS, "")).json();
    for count in [1, 5, 50] {
        let id = host.assemble(&format!(
            "name = \"crew-{count}\"\n[[agent]]\nname = \"worker\"\nplugin = \"test/plans@1.0.0\"\nreplicas = {count}\n"
        ));
        let status = host.get(&format!("/v1/crews/{id}/status"));
        assert_eq!(status["members"].as_array().map(Vec::len), Some(count), "{status}");
        let names: BTreeSet<_> = status["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|agent| agent["name"].to_string())
            .collect();
        assert_eq!(names.len(), count, "every agent has a name of its own");
    }
}

#[test]
fn work_is_spread_over_the_agents() {
    let host = Host::start();
    host.crew(
        "talk",
        TALK,
        "[wants]\nartifacts = \"1KiB\"\n",
        "replicas = 4\ngrants = { artifacts = \"1KiB\" }\n",
    );
    let tasks: Vec<_> = (0..40)
        .map(|_| json!({"description": "who", "crew": "talk", "input": {"do": "who"}}))
        .collect();
    let answer = host.call("POST", "/v1/tasks?wait=60s", &json!(tasks)).json();
    let agents: BTreeSet<_> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["result"]["name"].to_string())
        .collect();
    assert_eq!(agents.len(), 4, "{answer}");
}

#[test]
fn a_drained_crew_stops_and_takes_no_more_work() {
    let host = Host::start();
    let id = host.crew("plans", PLANS, "", "");
    host.skep(&["crew", "drain", &id, "--yes"]).exits(0);
    until("the crew has stopped", || {
        let status = host.call("GET", &format!("/v1/crews/{id}/status"), &json!(null));
        (status.json()["status"] == "stopped").then_some(())
    });
    let refused = host.call(
        "POST",
        "/v1/tasks",
        &json!({"description": "late", "crew": id, "input": {"answer": 1}}),
    );
    assert!(matches!(refused.status, 404 | 409), "{}", refused.json());
    host.skep(&["audit", "verify"]).exits(0);
}
