//! What a submission promises: once for each key, all or none, durable or declared not to be, refused where there is no room.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use serde_json::{Value, json};
use skep_built_guests::{LIMITS, TALK};
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

/// Submits under a key and waits for the end.
fn with_key(host: &Host, key: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {}", host.token);
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", key),
    ];
    host.send("POST", "/v1/tasks?wait=60s", &headers, body.to_string().as_bytes())
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
fn an_ephemeral_task_stores_nothing() {
    let host = Host::start();
    let wants = "[wants]\nartifacts = \"64KiB\"\n";
    let grants = "limits = { tier = \"small\" }\ngrants = { artifacts = \"64KiB\" }\n";
    host.crew("talk", TALK, wants, grants);
    let store = json!({"description": "stores", "input": {"do": "store", "text": "kept"}, "retry": {"maxRetries": 0, "onExhausted": "fail"}});
    assert_eq!(host.run(&store)["state"], "COMPLETED");
    let refused = host.run(&ephemeral(store));
    assert_eq!(
        (&refused["state"], &refused["failure"]["code"]),
        (&json!("FAILED"), &json!("error")),
        "{refused}"
    );
    let message = refused["failure"]["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains("the task is ephemeral"), "{message}");
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

#[test]
fn a_key_makes_one_task_however_often_and_however_long_it_is_asked() {
    let mut host = host(2);
    let body = sleep(300);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| with_key(&host, "once", &body)))
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let first = answers
        .iter()
        .find(|answer| answer.status == 201)
        .expect("one of them makes it");
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 99);
    assert!(answers.iter().all(|answer| answer.json() == first.json()));
    assert_eq!(first.json()["state"], "COMPLETED");
    assert_eq!(host.get("/v1/tasks")["items"].as_array().unwrap().len(), 1);

    let other = sleep(301);
    with_key(&host, "once", &other).refuses(422, "idempotency-mismatch");
    with_key(&host, &"k".repeat(256), &body).refuses(400, "invalid-input");
    with_key(&host, "", &body).refuses(400, "invalid-input");
    let longest = with_key(&host, &"k".repeat(255), &body);
    assert_eq!(longest.status, 201);

    host = host.restart();
    let again = with_key(&host, "once", &body);
    assert_eq!((again.status, again.json()), (200, first.json()));
    with_key(&host, "once", &other).refuses(422, "idempotency-mismatch");
    assert_eq!(host.get("/v1/tasks")["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all_and_is_on_disk_when_it_is_answered() {
    let mut host = host(2);
    let submit = |host: &Host, tasks: Vec<Value>| host.call("POST", "/v1/tasks", &json!(tasks));
    submit(&host, vec![sleep(0); 101]).refuses(400, "invalid-input");
    submit(&host, Vec::new()).refuses(400, "invalid-input");
    let mut bad = vec![sleep(0); 100];
    bad[99]["agent"] = json!("nobody");
    let problem = submit(&host, bad).refuses(404, "not-found");
    assert!(problem["detail"].as_str().unwrap().contains("tasks[99]"), "{problem}");
    assert_eq!(host.get("/v1/tasks")["items"], json!([]));

    // Killed at once: what was answered is there, all of it.
    let accepted = submit(&host, vec![sleep(1); 100]);
    host.kill();
    assert_eq!(accepted.status, 201);
    host = host.restart();
    let accepted = accepted.json();
    let ids = accepted.as_array().unwrap().iter().map(id);
    let known: Vec<String> = ids
        .filter(|id| host.get(&format!("/v1/tasks/{id}"))["taskId"] == **id)
        .collect();
    assert_eq!(known.len(), 100);

    // An answer does not come later than it was asked for.
    let early = host.call("POST", "/v1/tasks?wait=50ms", &sleep(30_000));
    assert_eq!((early.status, &early.json()["endedAt"]), (201, &Value::Null));
    let still = host.get(&format!("/v1/tasks/{}?wait=50ms", id(&early.json())));
    assert_eq!(still["endedAt"], Value::Null);
    host.call("POST", "/v1/tasks?wait=soon", &sleep(1))
        .refuses(400, "invalid-input");
}

/// What a process holds in memory, in KiB.
fn resident(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Offers batches of 100 from eight clients at once until `batches` are answered; how many were accepted.
fn offer(host: &Host, batches: usize) -> usize {
    let batch = json!(vec![
        json!({"description": "waits", "input": {"do": "sleep", "ms": 600_000}});
        100
    ]);
    let left = AtomicUsize::new(batches);
    let one = || {
        let mut accepted = 0;
        while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            let answer = host.call("POST", "/v1/tasks", &batch);
            if answer.status == 201 {
                accepted += 100;
            } else {
                answer.refuses(429, "overloaded");
                assert!(answer.head.to_lowercase().contains("retry-after: "), "{}", answer.head);
            }
        }
        accepted
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

#[test]
fn a_full_host_says_so_and_does_not_grow() {
    let host = host(1);
    let room = host.get("/v1/host")["capacity"]["maxLiveTasks"].as_u64().unwrap();
    let batches = usize::try_from(room / 100).unwrap();
    // The last batch fits as a whole or not at all; one of the tasks may have ended by its deadline.
    let accepted = offer(&host, batches + 10);
    assert!((100 * batches..=100 * (batches + 1)).contains(&accepted), "{accepted}");
    let full = resident(&host);
    assert_eq!(
        offer(&host, 9 * batches),
        0,
        "ten times as much was offered as it takes"
    );
    let grown = resident(&host).saturating_sub(full);
    assert!(grown < 32 << 10, "{grown} KiB more than the {full} KiB of a full host");

    // Where something ends there is room again.
    let listed = host.get("/v1/tasks?limit=100");
    for task in listed["items"].as_array().unwrap() {
        let cancelled = host.call("PUT", &format!("/v1/tasks/{}", id(task)), &json!({"action": "cancel"}));
        assert_eq!(cancelled.status, 200, "{}", cancelled.json());
    }
    assert!(offer(&host, 1) == 100);
}
