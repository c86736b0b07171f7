//! How tasks live: what people ask of them over HTTP and by command, what becomes of them when their attempts or their time are used up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skep_built_guests::{LIMITS, PLANS};

use crate::harness::{Answer, Host, plugin, until};

const SMALL: &str = "limits = { tier = \"small\", fuel = \"1T\", deadline = \"50s\" }";

fn host(replicas: u32) -> Host {
    let host = Host::start();
    host.crew("limits", LIMITS, "", &format!("replicas = {replicas}\n{SMALL}"));
    host
}

fn task(act: Value, more: Value) -> Value {
    let mut task = json!({"description": "a life", "crew": "limits", "input": act});
    let more = more.as_object().cloned().unwrap_or_default();
    task.as_object_mut().unwrap().extend(more);
    task
}

fn submit(host: &Host, task: &Value) -> Value {
    let answer = host.call("POST", "/v1/tasks", task);
    assert_eq!(answer.status, 201, "{}", answer.json());
    answer.json()
}

fn id(task: &Value) -> &str {
    task["taskId"].as_str().unwrap()
}

fn path(task: &Value) -> String {
    format!("/v1/tasks/{}", id(task))
}

/// Waits until a task is in a state.
fn is(host: &Host, task: &Value, state: &str) -> Value {
    until(state, || {
        Some(host.get(&path(task))).filter(|task| task["state"] == state)
    })
}

/// A request with a revision, or with none.
fn put(host: &Host, task: &Value, revision: Option<&str>, body: &Value) -> Answer {
    let token = std::fs::read_to_string(host.data().join("admin.token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let mut headers = vec![("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    headers.extend(revision.map(|revision| ("If-Match", revision)));
    host.send("PUT", &path(task), &headers, body.to_string().as_bytes())
}

/// What traps each time, and soon again.
fn poison(on_exhausted: &str) -> Value {
    let retry = json!({"maxRetries": 1, "initialDelay": "1ms", "jitterPercent": 0, "onExhausted": on_exhausted});
    task(json!({"do": "panic"}), json!({"retry": retry}))
}

#[test]
fn a_change_names_the_revision_that_was_read_and_what_is_legal() {
    let host = host(1);
    let busy = submit(&host, &task(json!({"do": "spin"}), json!({})));
    is(&host, &busy, "RUNNING");
    let waits = submit(&host, &task(json!({"do": "dice"}), json!({})));
    let revision = |task: &Value| format!("\"{}\"", task["revision"]);
    let cancel = json!({"action": "cancel"});

    put(&host, &waits, None, &cancel).refuses(428, "precondition-required");
    put(&host, &waits, Some("\"99\""), &cancel).refuses(412, "stale-revision");
    put(&host, &waits, Some("seven"), &cancel).refuses(400, "invalid-input");
    assert_eq!(host.get(&path(&waits))["state"], "READY", "nothing of that was done");

    let pause = json!({"action": "pause"});
    let paused = put(&host, &waits, Some(&revision(&waits)), &pause).json();
    assert_eq!(
        (&paused["state"], &paused["a2aState"], &paused["failure"]["code"]),
        (&json!("PAUSED"), &json!("input-required"), &json!("paused"))
    );
    let problem = put(&host, &waits, Some("*"), &pause).refuses(409, "illegal-transition");
    assert_eq!(
        problem["legal"],
        json!(["cancel", "resume", "reprioritise", "override_result"])
    );

    for bad in [
        json!({"action": "reprioritise"}),
        json!({"action": "cancel", "why": "because"}),
        json!({"action": "override_result", "result": 1}),
        json!({"action": "override_result", "result": 1, "why": ""}),
        json!({"action": "reprioritise", "priority": "urgent"}),
        json!({"action": "explode"}),
    ] {
        put(&host, &waits, Some("*"), &bad).refuses(400, "invalid-input");
    }
    let urgent = json!({"action": "reprioritise", "priority": "critical"});
    assert_eq!(put(&host, &waits, Some("*"), &urgent).json()["priority"], "critical");
    let given = json!({"action": "override_result", "result": {"known": true}, "why": "we know it"});
    let ended = put(&host, &waits, Some("*"), &given).json();
    assert_eq!(
        (&ended["state"], &ended["result"]),
        (&json!("COMPLETED"), &json!({"known": true}))
    );
    let problem = put(&host, &waits, Some("*"), &cancel).refuses(409, "illegal-transition");
    assert_eq!(problem["legal"], Value::Null, "nothing is");
    let log = host.get("/v1/audit?limit=100").to_string();
    for kind in ["task-held", "task-reprioritised", "task-overridden", "we know it"] {
        assert!(log.contains(kind), "{kind}: {log}");
    }
}

#[test]
fn every_request_has_its_command() {
    let host = host(1);
    let runs = submit(&host, &task(json!({"do": "spin"}), json!({})));
    is(&host, &runs, "RUNNING");
    let run = |arguments: &[&str]| host.skep(&[&["task"], arguments].concat());
    run(&["pause", id(&runs)]).exits(0).says(&["paused"]);
    run(&["pause", id(&runs)]).exits(4).says(&["illegal-transition"]);
    run(&["resume", id(&runs)]).exits(0);
    is(&host, &runs, "RUNNING");
    run(&["reprioritise", id(&runs), "low"]).exits(0);
    assert_eq!(host.get(&path(&runs))["priority"], "low");
    run(&["override", id(&runs), "--result", "7", "--why", "enough"])
        .exits(0)
        .says(&["completed"]);
    assert_eq!(host.get(&path(&runs))["result"], 7);
    // The slot is free again.
    assert_eq!(host.run(&task(json!({"do": "dice"}), json!({})))["state"], "COMPLETED");

    let waits = submit(
        &host,
        &task(
            json!({"do": "fail-until", "attempt": 2}),
            json!({"retry": {"initialDelay": "1h"}}),
        ),
    );
    is(&host, &waits, "RETRY_WAIT");
    run(&["retry", id(&waits)]).exits(0);
    assert_eq!(is(&host, &waits, "COMPLETED")["result"], 2);
    let gone = submit(&host, &task(json!({"do": "spin"}), json!({})));
    run(&["cancel", id(&gone)]).exits(0).says(&["cancelled"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the promise is one of time")]
fn a_task_that_is_worn_out_waits_for_a_person_and_so_does_nobody_else() {
    let host = host(1);
    let began = Instant::now();
    let paused = host.run(&poison("pause"));
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "the wait ends with the pause"
    );
    assert_eq!(
        (
            &paused["state"],
            &paused["status"],
            &paused["failure"]["code"],
            &paused["attempts"]
        ),
        (&json!("PAUSED"), &json!("Pending"), &json!("trapped"), &json!(2)),
        "{paused}"
    );
    assert_eq!(paused["history"].as_array().map(Vec::len), Some(2), "{paused}");
    let submit = [
        "task",
        "submit",
        "--input",
        r#"{"do": "panic"}"#,
        "--retries",
        "0",
        "--wait",
        "50s",
    ];
    let run = host.skep(&submit).exits(7);
    assert!(run.stderr.contains("skep task retry"), "{}", run.stderr);
    host.skep(&["task", "retry", id(&paused)]).exits(0);
    let again = is(&host, &paused, "PAUSED");
    assert_eq!(again["attempts"], 4, "it had all its attempts again: {again}");
    host.skep(&["task", "cancel", id(&paused)]).exits(0);
}

#[test]
fn a_poison_task_among_many_becomes_a_dead_letter_and_is_redriven() {
    let host = host(2);
    let whole = vec![task(json!({"do": "dice"}), json!({})); 100];
    let poisoned = [&whole[..40], &[poison("dead_letter")], &whole[41..]].concat();
    // Batches, all of them queued before most of them run. Ten thousand, and what they cost others, are the bench `poison`.
    let mut batches: Vec<Value> = Vec::new();
    for number in 0..10 {
        let tasks = if number == 2 { &poisoned } else { &whole };
        let answer = host.call("POST", "/v1/tasks", &json!(tasks));
        assert_eq!(answer.status, 201, "{}", answer.json());
        batches.extend(answer.json().as_array().unwrap().iter().cloned());
    }
    assert_eq!(batches.len(), 1_000);
    let letters = || host.get("/v1/tasks?state=FAILED&reason=dead-letter")["items"].clone();
    let letter = until("it is a dead letter", || {
        Some(letters()[0].clone()).filter(Value::is_object)
    });
    assert_eq!(letter["taskId"], batches[240]["taskId"]);
    let letter = &host.get(&path(&letter));
    let mut others = batches.iter().filter(|task| task["taskId"] != letter["taskId"]);
    assert!(others.all(|task| {
        let read = host
            .call("GET", &format!("{}?wait=60s", path(task)), &Value::Null)
            .json();
        read["state"] == "COMPLETED"
    }));
    // Its agents go on as before.
    let agents = host.get("/v1/agents");
    let ready = |agent: &Value| agent["phase"] == "READY" && agent["generation"] == 1;
    assert!(agents["items"].as_array().unwrap().iter().all(ready), "{agents}");
    assert_eq!(
        (
            &letter["state"],
            &letter["failure"]["code"],
            &letter["history"][1]["failure"]["code"]
        ),
        (&json!("FAILED"), &json!("dead-letter"), &json!("trapped")),
        "{letter}"
    );
    assert_eq!(letters().as_array().map(Vec::len), Some(1));
    let listed = host.skep(&["task", "ls", "--reason", "dead-letter"]).exits(0);
    listed.says(&[id(letter)]);

    let run = host.skep(&["task", "redrive", id(letter), "-o", "json"]).exits(0);
    let again = run.json();
    assert_eq!(again["redrives"], letter["taskId"]);
    let kept = letters();
    let mut kept = kept.as_array().unwrap().iter();
    assert!(
        kept.all(|kept| kept["taskId"] != letter["taskId"]),
        "it is one no longer"
    );
    host.skep(&["task", "redrive", id(letter)])
        .exits(4)
        .says(&["illegal-transition"]);
    assert_eq!(is(&host, &again, "FAILED")["failure"]["code"], "dead-letter");
    assert_eq!(letters()[0]["taskId"], again["taskId"]);

    let host = host.restart();
    let kept = host.get("/v1/tasks?reason=dead-letter")["items"].clone();
    assert_eq!(kept[0]["taskId"], again["taskId"], "it survives the host");
}

#[test]
fn time_ends_what_takes_too_long() {
    let host = host(1);
    let timeouts = |name: &str, timeout: &str| json!({"timeouts": {name: timeout}, "retry": {"maxRetries": 0, "onExhausted": "fail"}});
    let short = host.run(&task(json!({"do": "spin"}), timeouts("startToClose", "300ms")));
    assert_eq!(
        (&short["state"], &short["failure"]["code"]),
        (&json!("FAILED"), &json!("deadline-exceeded")),
        "{short}"
    );
    let whole = host.run(&task(json!({"do": "spin"}), timeouts("scheduleToClose", "300ms")));
    assert_eq!(
        (&whole["state"], &whole["failure"]["code"]),
        (&json!("FAILED"), &json!("timed-out")),
        "{whole}"
    );
    let busy = submit(&host, &task(json!({"do": "spin"}), json!({})));
    is(&host, &busy, "RUNNING");
    let waits = host.run(&task(json!({"do": "dice"}), timeouts("scheduleToStart", "300ms")));
    assert_eq!(
        (&waits["state"], &waits["failure"]["code"]),
        (&json!("FAILED"), &json!("timed-out")),
        "{waits}"
    );
    host.skep(&["task", "cancel", id(&busy)]).exits(0);
    // What it ended has let go of the slot.
    assert_eq!(host.run(&task(json!({"do": "dice"}), json!({})))["state"], "COMPLETED");
    for bad in [
        json!({"timeouts": {"scheduleToClose": "0ms"}}),
        json!({"timeouts": {"scheduleToClose": "367d"}}),
        json!({"timeouts": {"later": "1s"}}),
        json!({"retry": {"factor": 0.5}}),
        json!({"retry": {"jitterPercent": 51}}),
        json!({"retry": {"initialDelay": "25h"}}),
        json!({"retry": {"initialDelay": "2s", "maxDelay": "1s"}}),
        json!({"retry": {"nonRetryable": ["bad-luck"]}}),
        json!({"retry": {"onExhausted": "shrug"}}),
        json!({"priority": "urgent"}),
        json!({"onPartFailure": "panic"}),
        json!({"durability": "ephemeral", "retry": {"onExhausted": "dead_letter"}}),
    ] {
        host.call("POST", "/v1/tasks", &task(json!({"do": "dice"}), bad.clone()))
            .refuses(400, "invalid-input");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the promise is one of time")]
fn a_cancellation_reaches_the_leaves_of_a_tree_within_a_second() {
    let host = Host::start();
    host.install(&plugin("plans", PLANS, "[provides]\nroles = [\"planner\"]\n"))
        .json();
    host.install(&plugin("limits", LIMITS, "[provides]\nroles = [\"leaf\"]\n"))
        .json();
    host.assemble(&format!(
        "name = \"tree\"\n[[agent]]\nname = \"planner\"\nplugin = \"test/plans@1.0.0\"\n\
         [[agent]]\nname = \"leaf\"\nplugin = \"test/limits@1.0.0\"\nreplicas = 2\n{SMALL}\n"
    ));
    let leaf = |name: &str| json!({"name": name, "role": "leaf", "input": {"do": "spin"}});
    let objective = json!({
        "description": "a tree", "crew": "tree", "plan": true, "input": {"plan": [leaf("a"), leaf("b"), leaf("c")]},
    });
    let top = submit(&host, &objective);
    let agents = |phase: &str| {
        let agents = host.get("/v1/agents")["items"].clone();
        let leaves = agents
            .as_array()
            .unwrap()
            .iter()
            .filter(|agent| agent["name"].as_str().unwrap().starts_with("leaf"));
        leaves.filter(|agent| agent["phase"] == phase).count()
    };
    until("two leaves spin", || {
        let tree = host.get(&format!("{}/tree", path(&top)));
        let running = tree["children"]
            .as_array()?
            .iter()
            .filter(|part| part["task"]["state"] == "RUNNING")
            .count();
        (running == 2).then_some(())
    });
    let began = Instant::now();
    assert_eq!(host.call("PUT", &path(&top), &json!({"action": "cancel"})).status, 200);
    // They take other work: nothing spins on.
    let other = json!({"description": "next", "crew": "tree", "roles": ["leaf"], "input": {"do": "dice"}});
    let next = host.call("POST", "/v1/tasks?wait=20s", &json!([other, other])).json();
    let took = began.elapsed();
    assert!(
        next.as_array().unwrap().iter().all(|task| task["state"] == "COMPLETED"),
        "{next}"
    );
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert_eq!(agents("READY"), 2);
    let tree = host.get(&format!("{}/tree", path(&top)));
    assert!(
        tree["children"]
            .as_array()
            .unwrap()
            .iter()
            .all(|part| part["task"]["state"] == "CANCELLED"),
        "{tree}"
    );
}

#[test]
fn the_most_urgent_has_its_turn_before_a_flood() {
    let host = host(1);
    let busy = submit(&host, &task(json!({"do": "spin"}), json!({})));
    is(&host, &busy, "RUNNING");
    let low: Vec<Value> = (0..50)
        .map(|_| task(json!({"do": "sleep", "ms": 20}), json!({"priority": "low"})))
        .collect();
    let low = host.call("POST", "/v1/tasks", &json!(low)).json();
    let urgent = submit(&host, &task(json!({"do": "dice"}), json!({"priority": "critical"})));
    host.skep(&["task", "cancel", id(&busy)]).exits(0);
    is(&host, &urgent, "COMPLETED");
    let waiting = low
        .as_array()
        .unwrap()
        .iter()
        .filter(|task| host.get(&path(task))["state"] == "READY")
        .count();
    assert!(waiting > 25, "{waiting} of the flood still wait");
}

#[test]
fn a_part_that_escalates_goes_to_its_planner_and_then_to_a_person_who_gives_its_result() {
    let host = Host::start();
    host.crew("plans", PLANS, "[provides]\nroles = [\"worker\"]\n", "replicas = 2\n");
    let top = submit(
        &host,
        &json!({
            "description": "a tree", "crew": "plans", "plan": true, "onPartFailure": "escalate",
            "input": {"plan": [
                {"name": "bad", "input": {"fail": "it cannot be done"}},
                {"name": "sum", "needs": ["bad"], "integrates": true, "input": {"dependencies": true}},
            ]},
        }),
    );
    let part = until("the part is paused", || {
        let tree = host.get(&format!("{}/tree", path(&top)));
        let parts = tree["children"].as_array()?.iter().map(|child| child["task"].clone());
        parts.into_iter().find(|part| part["state"] == "PAUSED")
    });
    host.skep(&["approval", "ls"])
        .exits(0)
        .says(&["1 paused", "skep task ls --state paused"]);
    // Its planner was asked for another way twice, and had none.
    let asked: Vec<Value> = host.audited("task-escalated");
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|entry| entry["detail"] == "`bad` failed (error): it cannot be done"),
        "{asked:?}"
    );
    assert_eq!(host.get(&path(&top))["state"], "WAITING");
    host.skep(&[
        "task",
        "override",
        id(&part),
        "--result",
        "41",
        "--why",
        "counted by hand",
    ])
    .exits(0);
    let ended = is(&host, &top, "COMPLETED");
    assert_eq!(ended["result"]["dependencies"][0]["output"], 41, "{ended}");
}
