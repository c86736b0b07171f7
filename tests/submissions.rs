//! What a submission promises: once for each key, all or none, durable or declared not to be, refused where there is no room.

use std::{fs, path::Path};

use serde_json::{Value, json};
use skep_built_guests::LIMITS;
use skep_rules::id::TaskId;

use crate::harness::{Answer, Host, until};

/// A host with a crew of `replicas` agents that do as they are told.
fn host(replicas: u32) -> Host {
    let host = Host::start();
    assemble(&host, replicas);
    host
}

fn assemble(host: &Host, replicas: u32) {
    let agent = format!("replicas = {replicas}\nlimits = {{ tier = \"small\" }}\n");
    host.crew("limits", LIMITS, "", &agent);
}

fn sleep(milliseconds: u64) -> Value {
    json!({"description": "sleeps", "input": {"do": "sleep", "ms": milliseconds}})
}

fn ephemeral(mut task: Value) -> Value {
    task["durability"] = json!("ephemeral");
    task
}

fn id(task: &Value) -> String {
    task["taskId"].as_str().unwrap_or_else(|| panic!("{task}")).to_owned()
}

fn with_key(host: &Host, key: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {}", host.token);
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", key),
    ];
    host.send("POST", "/v1/tasks", &headers, body.to_string().as_bytes())
}

/// The whole audit log.
fn audit(host: &Host) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut from = json!("1");
    while let Some(next) = from.as_str() {
        let page = host.get(&format!("/v1/audit?from={next}"));
        rows.extend(page["items"].as_array().unwrap().iter().cloned());
        from = page["next"].clone();
    }
    rows
}

/// Whether anything in a directory holds the id of a task, as records have it.
fn remembers(directory: &Path, task: &str) -> bool {
    let id = task.parse::<TaskId>().unwrap().to_bytes();
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return remembers(&path, task);
        }
        let bytes = fs::read(&path).unwrap();
        bytes.windows(id.len()).any(|window| window == id)
    })
}

#[test]
fn an_ephemeral_task_answers_and_says_so_and_is_lost_with_the_process() {
    let mut host = host(2);
    let synced = host.run(&sleep(1));
    assert_eq!(
        (&synced["state"], &synced["durability"]),
        (&json!("COMPLETED"), &json!("synced"))
    );
    let before = audit(&host);

    let ended = host.run(&ephemeral(sleep(1)));
    assert_eq!(
        (&ended["state"], &ended["durability"]),
        (&json!("COMPLETED"), &json!("ephemeral"))
    );
    let read = host.get(&format!("/v1/tasks/{}?wait=5s", id(&ended)));
    assert_eq!(
        (&read["result"], &read["revision"]),
        (&ended["result"], &ended["revision"])
    );
    let several = host.call("POST", "/v1/tasks?wait=60s", &json!(vec![ephemeral(sleep(1)); 100]));
    assert_eq!(several.status, 201);
    for task in several.json().as_array().unwrap() {
        assert_eq!(
            (&task["state"], &task["durability"]),
            (&json!("COMPLETED"), &json!("ephemeral")),
            "{task}"
        );
    }
    let run = host.skep(&[
        "task",
        "submit",
        "--ephemeral",
        "--input",
        r#"{"do": "sleep", "ms": 60000}"#,
    ]);
    let line = run.exits(0).stdout;
    let running = line.split_whitespace().next().unwrap().to_owned();
    host.skep(&["task", "show", &running]).exits(0).says(&["ephemeral"]);
    assert_eq!(audit(&host), before, "nothing of all this is remembered");

    let held = host.call(
        "POST",
        "/v1/tasks",
        &json!({"input": null, "description": "", "dependencies": [running]}),
    );
    let problem = held.refuses(400, "invalid-input");
    assert!(problem["detail"].as_str().unwrap().contains("ephemeral"), "{problem}");
    let keyed = with_key(&host, "once", &ephemeral(sleep(1))).refuses(400, "invalid-input");
    assert!(keyed["detail"].as_str().unwrap().contains("idempotency key"), "{keyed}");

    host.kill();
    let store = host.data().join("store");
    assert!(remembers(&store, &id(&synced)));
    let unknown = [&id(&ended), &running, &id(&several.json()[57])];
    assert!(unknown.iter().all(|task| !remembers(&store, task)));
    host = host.restart();
    for gone in [&id(&ended), &running] {
        host.call("GET", &format!("/v1/tasks/{gone}"), &Value::Null)
            .refuses(404, "not-found");
    }
    let kept = host.get(&format!("/v1/tasks/{}", id(&synced)));
    assert_eq!(kept["state"], "COMPLETED");
    // Its agent is free again.
    let both = host.call("POST", "/v1/tasks?wait=60s", &json!([sleep(1), sleep(1)]));
    assert!(
        both.json()
            .as_array()
            .unwrap()
            .iter()
            .all(|task| task["state"] == "COMPLETED")
    );
    host.skep(&["audit", "verify"]).exits(0);
}

#[test]
fn a_stop_in_order_loses_no_attempt() {
    let mut host = host(20);
    let tasks = host.call("POST", "/v1/tasks", &json!(vec![sleep(4_000); 20]));
    let ids: Vec<String> = tasks.json().as_array().unwrap().iter().map(id).collect();
    let read = |host: &Host| -> Vec<Value> { ids.iter().map(|id| host.get(&format!("/v1/tasks/{id}"))).collect() };
    until("all of them run", || {
        read(&host).iter().all(|task| task["state"] == "RUNNING").then_some(())
    });
    host.stop();
    host = host.restart();
    until("all of them have ended", || {
        read(&host)
            .iter()
            .all(|task| task["endedAt"] != Value::Null)
            .then_some(())
    });
    for task in read(&host) {
        assert_eq!(
            (&task["state"], &task["attempts"]),
            (&json!("COMPLETED"), &json!(1)),
            "{task}"
        );
    }
    let rows = audit(&host);
    let of = |kind: &str| {
        rows.iter()
            .filter(|row| row["entry"]["kind"] == *kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("host-stopped")[0]["entry"]["detail"], "20 attempts were given back");
    assert_eq!(of("host-restarted")[0]["entry"]["detail"], "0 attempts were lost");
    assert!(of("attempt-failed").is_empty());
    assert!(rows.iter().all(|row| row["entry"]["reason"] != "interrupted"));
    host.skep(&["audit", "verify"]).exits(0);
}
