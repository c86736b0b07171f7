//! The log of a host: lines of attempts while they run, what the host decides about them, filters, and a flood that costs its own lines only.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};
use skep_built_guests::{OUTPUT_WRITE, PROGRAM};

use crate::{
    harness::{Host, binary, until},
    kills::{GRANTS, WANTS},
};

fn submit(host: &Host, crew: &str, input: &Value) -> String {
    let task = json!({"description": "write", "crew": crew, "input": input, "retry": {"maxRetries": 0}});
    let answer = host.call("POST", "/v1/tasks", &task).json();
    answer["taskId"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned()
}

/// The lines that a query finds, the oldest first.
fn lines(host: &Host, query: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = host.get(&format!("/v1/logs?{query}{after}"));
        found.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    found.reverse();
    found
}

fn messages(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["message"].as_str().unwrap()).collect()
}

fn state(host: &Host, task: &str) -> Value {
    host.get(&format!("/v1/tasks/{task}"))["state"].clone()
}

fn cancel(host: &Host, task: &str) {
    let answer = host.call("PUT", &format!("/v1/tasks/{task}"), &json!({"action": "cancel"}));
    assert_eq!(answer.status, 200, "{}", answer.json());
}

#[test]
fn lines_are_told_while_the_attempt_runs_and_until_its_task_ends() {
    let host = Host::start();
    host.crew("program", PROGRAM, WANTS, GRANTS);
    let task = submit(
        &host,
        "program",
        &json!({"path": "x/", "program": [{"log": {"text": "it begins"}}, {"pause": {"ms": 600_000}}]}),
    );
    let url = format!("http://{}", host.address);
    let mut follower = binary()
        .args([
            "task",
            "logs",
            &task,
            "--follow",
            "-o",
            "jsonl",
            "--host",
            &url,
            "--token",
            &host.token,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut told = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&told.next().expect("another line").unwrap()).unwrap() };
    let line = loop {
        let line = next();
        if line["message"] == "it begins" {
            break line;
        }
    };
    assert_eq!(state(&host, &task), "RUNNING", "nothing of it has ended");
    assert_eq!(
        (line["level"].as_str(), line["task"].as_str(), line["attempt"].as_u64()),
        (Some("info"), Some(task.as_str()), Some(1))
    );
    assert_eq!(line["trace"].as_str(), task.strip_prefix("task_"));
    assert!(
        line["agent"].as_str().is_some() && line["crew"].as_str().is_some(),
        "{line}"
    );
    cancel(&host, &task);
    while !next()["message"].as_str().unwrap().starts_with("task-ended: CANCELLED") {}
    let status = until("the follower ends with its task", || follower.try_wait().unwrap());
    assert!(status.success(), "{status}");

    // Of a task that has ended a stream is what there is, and an end.
    let answer = host.call(
        "GET",
        &format!("/v1/logs?task={task}&follow=true&after=1.0"),
        &Value::Null,
    );
    let stream = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        stream.contains("it begins") && stream.contains("event: end"),
        "{stream}"
    );
    host.call("GET", "/v1/logs?follow=true&after=999.0", &Value::Null)
        .refuses(410, "not-found");
}

#[test]
fn the_log_is_filtered_paged_and_there_after_a_stop() {
    let mut host = Host::start();
    host.crew("output", OUTPUT_WRITE, "", "");
    let run = |text: &str, stream: &str| {
        let input = json!({"stream": stream, "text": text});
        let task = host.run(&json!({"description": "write", "crew": "output", "input": input}));
        task["taskId"].as_str().unwrap().to_owned()
    };
    let many: String = (0..230).map(|n| format!("line {n}\n")).collect();
    let (first, second) = (run(&many, "stdout"), run("oh\n", "stderr"));
    let own = lines(&host, &format!("task={first}&limit=100"));
    let written: Vec<&str> = messages(&own)
        .into_iter()
        .filter(|text| text.starts_with("line "))
        .collect();
    let expected: Vec<String> = (0..230).map(|n| format!("line {n}")).collect();
    assert_eq!(written, expected);
    let told = messages(&own);
    assert!(
        told.contains(&"task-submitted: write") && told.contains(&"task-ended: COMPLETED"),
        "{told:?}"
    );

    // As grave as asked; standard error counts as a warning.
    let crew = lines(&host, "crew=output&level=warn");
    assert_eq!(messages(&crew), ["oh"]);
    assert_eq!(
        messages(&lines(&host, &format!("trace={}&level=warn", &second[5..]))),
        ["oh"]
    );
    let at = crew[0]["at"].as_u64().unwrap();
    assert_eq!(
        lines(&host, &format!("task={second}&until={}", at - 60_000)),
        [] as [Value; 0]
    );
    assert_eq!(
        messages(&lines(&host, &format!("task={second}&level=warn&from={at}&until={at}"))),
        ["oh"]
    );
    for bad in ["level=loud", "after=1", "limit=101", "trace=xyz", "task=none", "who=me"] {
        host.call("GET", &format!("/v1/logs?{bad}"), &Value::Null)
            .refuses(400, "invalid-input");
    }

    let shown = host.skep(&["logs", "--task", &second, "-n", "5"]).exits(0);
    shown.says(&["stderr", "oh", "task-ended: COMPLETED"]);
    host.skep(&["logs", "--since", "1h", "--level", "warn", "-o", "json"])
        .exits(0)
        .says(&["\"oh\""]);
    // The host's own words, on standard error of `up`, are JSON where nobody sits.
    let log = std::fs::read_to_string(host.data().with_extension("log")).unwrap();
    let said: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(
        said.iter()
            .any(|line| line["message"] == "listening" && line["level"] == "INFO"),
        "{log}"
    );

    host.stop();
    let host = host.restart();
    let own = lines(&host, &format!("task={first}&limit=100"));
    assert_eq!(messages(&own), told, "what was written before the stop is there");
    assert!(messages(&lines(&host, "crew=output&level=warn")).contains(&"oh"));
}

#[test]
fn a_flood_costs_its_own_lines_and_nobody_else_anything() {
    let host = Host::start();
    host.crew("flood", OUTPUT_WRITE, "", "");
    host.crew("quiet", OUTPUT_WRITE, "", "");
    let text = "0123456789 0123456789 0123456789\n".repeat(120);
    let flood = submit(
        &host,
        "flood",
        &json!({"stream": "stdout", "text": text, "times": 1_000_000_000_u64}),
    );
    // It floods, and what is over is counted, while it runs.
    until("the flood is counted", || {
        let left_out = lines(&host, &format!("task={flood}&level=warn"));
        let counts = |line: &Value| line["fields"].to_string().contains("dropped-lines");
        left_out.iter().any(counts).then_some(())
    });
    let quiet: Vec<String> = (0..20)
        .map(|n| {
            let input = json!({"stream": "stdout", "text": format!("quiet {n}\n")});
            let task = host.run(&json!({"description": "write", "crew": "quiet", "input": input}));
            assert_eq!(task["state"], "COMPLETED", "{task}");
            task["taskId"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(state(&host, &flood), "RUNNING", "the others came and went beside it");
    for (n, task) in quiet.iter().enumerate() {
        let own = lines(&host, &format!("task={task}"));
        let expected = format!("quiet {n}");
        assert!(messages(&own).contains(&expected.as_str()), "{own:?}");
        assert!(
            own.iter().all(|line| line["level"] != "warn"),
            "nothing of it is left out: {own:?}"
        );
    }
    let page = host.get("/v1/logs?limit=1");
    assert!(page["dropped"].as_u64().unwrap() > 0, "{page}");
    cancel(&host, &flood);
}
