//! What people are asked, over the real binary: by agents and by submitters, decided over HTTP and from the command line, on a host that is killed
//! between every two of its steps.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};
use skep_built_guests::PROGRAM;

use crate::{
    harness::{Host, until},
    kills::{GRANTS, WANTS},
};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

/// A host with a crew of the interpreter.
fn host() -> Host {
    let host = Host::start();
    host.crew("program", PROGRAM, WANTS, GRANTS);
    host
}

/// What is open, as the inbox has it.
fn open(host: &Host) -> Vec<Value> {
    let page = host.get("/v1/approvals");
    page["items"].as_array().expect("a page has items").clone()
}

/// Waits until a task asks; the approval.
fn asked(host: &Host, task: &str) -> Value {
    until("the task asks", || {
        open(host).into_iter().find(|open| open["task"] == *task)
    })
}

/// A task when it has ended, or waits for a person.
fn waited(host: &Host, task: &str) -> Value {
    host.call("GET", &format!("/v1/tasks/{task}?wait=60s"), &Value::Null)
        .json()
}

/// A task when it has ended, whatever it waits for before.
fn ended(host: &Host, task: &str) -> Value {
    let asks = |task: &Value| ["AWAITING_APPROVAL", "BLOCKED"].contains(&text(&task["state"]));
    until("it ends", || Some(waited(host, task)).filter(|task| !asks(task)))
}

fn submit(host: &Host, task: &Value) -> String {
    let answer = host.call("POST", "/v1/tasks", task);
    assert_eq!(answer.status, 201, "{}", answer.json());
    text(&answer.json()["taskId"]).to_owned()
}

#[test]
fn an_agent_asks_and_the_host_dies_between_asking_deciding_and_going_on() {
    let host = host();
    let program = json!([
        {"put": {"key": "before", "value": "x"}},
        {"ask": {"action": "deploy", "items": [["eu", "{\"n\": 1, \"a\": []}"], ["us", "{"]]}},
        {"add": {"key": "after", "by": 1}},
        {"block": {"question": "which account?", "expires": 600_000}},
    ]);
    // Whoever waits for the task is told that it waits for a person.
    let arguments = ["task", "submit", "--wait", "60s", "-o", "json", "--input"];
    let waiting = host.skep(&[&arguments[..], &[&program.to_string()]].concat()).exits(8);
    let task = text(&waiting.json()["taskId"]).to_owned();
    assert_eq!(waiting.json()["state"], "AWAITING_APPROVAL");
    let first = asked(&host, &task);
    let id = text(&first["approvalId"]).to_owned();
    assert_eq!(waiting.json()["approval"], *id);
    assert_eq!(
        (
            &first["point"],
            &first["action"],
            &first["question"],
            &first["onTimeout"]
        ),
        (
            &json!("action"),
            &json!("deploy"),
            &json!("may it deploy?"),
            &json!("reject")
        )
    );
    let items = json!([
        {"name": "eu", "arguments": "{\"a\":[],\"n\":1}", "parsed": true}, {"name": "us", "arguments": "{", "parsed": false},
    ]);
    assert_eq!(first["items"], items);
    assert!(text(&first["requester"]).starts_with("agent_"));
    host.skep(&["approval", "ls"])
        .exits(0)
        .says(&[&id, "deploy (2)", "may it deploy?"]);
    host.skep(&["approval", "show", &id]).exits(0).says(&[
        "eu {\"a\":[],\"n\":1}",
        "not JSON",
        text(&first["digest"]),
        "open",
    ]);

    let host = host.restart();
    assert_eq!(open(&host), std::slice::from_ref(&first), "it is asked as before");
    let decide = |body: Value| {
        let mut whole = json!({"approvalId": id, "decision": "approve", "remark": "go"});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        whole
    };
    let post = |host: &Host, body: Value| host.call("POST", "/v1/approvals", &decide(body));
    let other = "00".repeat(32);
    post(&host, json!({"digest": other})).refuses(409, "conflict");
    post(&host, json!({"items": ["eu", "asia"]})).refuses(404, "not-found");
    let unknown = format!("approval_{}", "0".repeat(32));
    post(&host, json!({"approvalId": unknown})).refuses(404, "not-found");
    post(&host, json!({"approvalId": id.get(..20)})).refuses(400, "invalid-input");
    post(&host, json!({"decision": "perhaps"})).refuses(400, "invalid-input");
    post(&host, json!({"sure": true})).refuses(400, "invalid-input");
    let decided = post(&host, json!({"items": ["eu"], "digest": first["digest"]}));
    assert_eq!(decided.status, 200, "{}", decided.json());
    assert_eq!(decided.json()["items"][0]["verdict"]["by"], "admin");

    let host = host.restart();
    assert_eq!(open(&host), [decided.json()], "and what was decided is");
    let again = post(&host, json!({"items": ["eu"]}));
    assert_eq!((again.status, again.json()), (200, decided.json()));
    post(&host, json!({"items": ["eu"], "decision": "reject"})).refuses(409, "conflict");
    host.skep(&["approval", "approve", &id, "--item", "eu", "--digest", &other])
        .exits(4);
    let cut = id.get(..30).unwrap();
    host.skep(&["approval", "reject", cut, "--remark", "not today"])
        .exits(0)
        .says(&["us rejected by admin", "not today", "decided"]);

    let host = host.restart();
    let second = asked(&host, &task);
    assert_eq!(
        (&second["point"], &second["question"]),
        (&json!("blocker"), &json!("which account?"))
    );
    let blocked = host.get(&format!("/v1/tasks/{task}"));
    assert_eq!(
        (&blocked["state"], &blocked["status"]),
        (&json!("BLOCKED"), &json!("In Progress"))
    );
    host.skep(&["approval", "reject", &id]).exits(4).says(&["conflict"]);
    let second = text(&second["approvalId"]).to_owned();
    host.skep(&["approval", "approve", &second, "--remark", "acct-7"])
        .exits(0);

    let host = host.restart();
    let done = ended(&host, &task);
    assert_eq!(done["state"], "COMPLETED", "{done}");
    let seen = json!([
        {"written": 1}, [["eu", true, "go"], ["us", false, "not today"]], 1, {"answered": "acct-7"},
    ]);
    assert_eq!(done["result"]["seen"], seen, "nothing is done again");
    assert!(open(&host).is_empty());
    let settled = host.get(&format!("/v1/approvals/{id}"));
    assert_eq!(settled["settled"], "decided");
    let steps = host.get(&format!("/v1/tasks/{task}/steps"));
    assert_eq!(steps["items"][1]["name"], "tasks.ask-approval");
    assert_eq!(steps["items"][1]["answer"]["items"][1]["approved"], false);
    host.skep(&["audit", "verify"]).exits(0);
    let told = host.skep(&["audit", "ls", "-o", "json"]).exits(0).json();
    let count = |kind: &str| {
        let rows = told.as_array().expect("a list").iter();
        rows.filter(|row| row["entry"]["kind"] == *kind).count()
    };
    assert_eq!((count("approval-asked"), count("approval-decided")), (2, 3));
}

#[test]
fn a_submitter_has_a_run_and_a_result_approved() {
    let host = host();
    // There is one principal yet, and nobody approves what he asked for, unless the crew says so.
    let strict = submit(
        &host,
        &json!({"description": "strict", "input": [], "approval": {"before": true}}),
    );
    let approval = asked(&host, &strict);
    assert_eq!(
        (&approval["point"], &approval["requester"]),
        (&json!("before"), &json!("admin"))
    );
    let id = text(&approval["approvalId"]);
    host.skep(&["approval", "approve", id])
        .exits(5)
        .says(&["self-approval", "by_requester"]);
    host.call("PUT", &format!("/v1/tasks/{strict}"), &json!({"action": "cancel"}))
        .json();
    assert_eq!(host.get(&format!("/v1/approvals/{id}"))["settled"], "withdrawn");
    host.skep(&["approval", "approve", id]).exits(5);

    host.assemble(&format!(
        "name = \"lax\"\n[approvals]\nby_requester = true\n[[agent]]\nname = \"program\"\nplugin = \"test/program@1.0.0\"\n{GRANTS}"
    ));
    let both = [
        "--crew",
        "lax",
        "--approve-before",
        "--approve-after",
        "--input",
        "[]",
        "--wait",
        "60s",
        "-o",
        "json",
    ];
    let waiting = host.skep(&[&["task", "submit"][..], &both].concat()).exits(8).json();
    let task = text(&waiting["taskId"]).to_owned();
    assert_eq!(
        (&waiting["state"], &waiting["attempts"]),
        (&json!("AWAITING_APPROVAL"), &json!(0))
    );
    let before = asked(&host, &task);
    host.skep(&["approval", "approve", text(&before["approvalId"])])
        .exits(0);
    let after = until("its result waits", || {
        open(&host).into_iter().find(|open| open["point"] == "after")
    });
    assert_eq!(after["component"].as_str().map(str::len), Some(64));
    let waiting = host.get(&format!("/v1/tasks/{task}"));
    assert_eq!((&waiting["result"], &waiting["attempts"]), (&Value::Null, &json!(1)));
    let host = host.restart();
    host.skep(&["approval", "approve", text(&after["approvalId"])]).exits(0);
    let done = ended(&host, &task);
    assert_eq!(
        (&done["state"], &done["result"]["seen"]),
        (&json!("COMPLETED"), &json!([]))
    );

    // No is an end of its own.
    let task = submit(
        &host,
        &json!({"description": "no", "crew": "lax", "input": [], "approval": {"after": true}}),
    );
    let after = asked(&host, &task);
    host.skep(&["approval", "reject", text(&after["approvalId"]), "--remark", "not that"])
        .exits(0);
    let rejected = ended(&host, &task);
    assert_eq!(
        (&rejected["state"], &rejected["status"], &rejected["failure"]["code"]),
        (&json!("REJECTED"), &json!("Failed"), &json!("rejected"))
    );
    assert_eq!(rejected["failure"]["message"], "rejected by admin: not that");
}

#[test]
fn nobody_answers() {
    let host = host();
    // The time that a person has goes on while the host is down.
    let escalate = json!({"before": true, "expires": "4s", "onTimeout": "escalate"});
    let task = submit(
        &host,
        &json!({"description": "late", "input": [], "approval": escalate}),
    );
    let program = json!([{"ask": {"action": "deploy", "items": [["eu", "{}"]], "expires": 1_000}}]);
    let asks = submit(&host, &json!({"description": "asks", "input": program}));
    let first = text(&asked(&host, &task)["approvalId"]).to_owned();
    assert_eq!(waited(&host, &task)["approval"], *first, "whoever waits is told");
    let pause = host.call("PUT", &format!("/v1/tasks/{task}"), &json!({"action": "pause"}));
    let problem = pause.refuses(409, "illegal-transition");
    assert_eq!(problem["legal"], json!(["cancel", "reprioritise", "override_result"]));
    let host = host.restart();
    let failed = ended(&host, &task);
    assert_eq!(
        (&failed["state"], &failed["failure"]["code"]),
        (&json!("FAILED"), &json!("approval-expired"))
    );
    let expired = host.get(&format!("/v1/approvals/{first}"));
    assert_eq!(
        (&expired["settled"], &expired["escalated"]),
        (&json!("expired"), &json!(1))
    );
    let late = ended(&host, &asks);
    assert_eq!(
        (&late["state"], &late["result"]["seen"]),
        (
            &json!("COMPLETED"),
            &json!([[["eu", false, "nobody has decided in time"]]])
        )
    );
    for bad in [
        json!({"before": true, "expires": "1ms"}),
        json!({"before": true, "expires": "31d"}),
        json!({"never": true}),
    ] {
        let refused = host.call(
            "POST",
            "/v1/tasks",
            &json!({"description": "bad", "input": [], "approval": bad}),
        );
        refused.refuses(400, "invalid-input");
    }
    let ephemeral = json!({"description": "bad", "input": [], "durability": "ephemeral", "approval": {"before": true}});
    host.call("POST", "/v1/tasks", &ephemeral).refuses(400, "invalid-input");
}

#[test]
fn streams_tell_of_it() {
    let host = host();
    let mut stream = TcpStream::connect(&host.address).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    let head = format!(
        "GET /v1/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
        host.address, host.token
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut told = String::new();
    let mut hears = |what: &[&str]| {
        let mut buffer = [0; 4096];
        while !what.iter().all(|what| told.contains(what)) {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the stream ended: {told}");
            told += &String::from_utf8_lossy(&buffer[..read]);
        }
    };
    hears(&["200 OK"]);
    let program = json!([{"ask": {"action": "deploy", "items": [["eu", "{}"]]}}]);
    let task = submit(&host, &json!({"description": "asks", "input": program}));
    let id = text(&asked(&host, &task)["approvalId"]).to_owned();
    hears(&[
        "event: approval",
        &id,
        "\"to\":\"open\"",
        "\"to\":\"AWAITING_APPROVAL\"",
    ]);
    host.skep(&["approval", "approve", &id]).exits(0);
    hears(&["\"to\":\"decided\"", "\"to\":\"COMPLETED\""]);
}
