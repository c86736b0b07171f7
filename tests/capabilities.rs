//! Each import of `skep:agent`: granted, refused, over its limit.

use serde_json::{Value, json};
use skep_built_guests::TALK;

use crate::harness::Host;

const WANTS: &str = "[wants]\nartifacts = \"64KiB\"\n";
const GRANTS: &str = "grants = { artifacts = \"64KiB\" }\n";

fn run(host: &Host, crew: &str, act: Value) -> Value {
    host.run(
        &json!({"description": "talk", "crew": crew, "input": act, "retry": {"maxRetries": 0, "onExhausted": "fail"}}),
    )
}

#[test]
fn log_lines_and_captured_output_are_kept_in_order_and_escaped() {
    let host = Host::start();
    host.crew("talk", TALK, WANTS, GRANTS);
    let task = run(&host, "talk", json!({"do": "log"}));
    let id = task["taskId"].as_str().unwrap();
    let logs = host.get(&format!("/v1/tasks/{id}/logs")).to_string();
    let mut from = 0;
    for line in ["a trace", "a debug line", "info", "a warning", "an error"] {
        let at = logs[from..]
            .find(line)
            .unwrap_or_else(|| panic!("`{line}` is missing or out of order: {logs}"));
        from += at;
    }
    assert!(
        logs.contains("a printed line") && logs.contains("a line on stderr"),
        "{logs}"
    );
    assert!(
        !logs.contains('\u{1b}') && !logs.contains("\\u001b["),
        "control bytes are escaped: {logs}"
    );
    host.skep(&["task", "logs", id])
        .exits(0)
        .says(&["a warning", "a printed line"]);
}

#[test]
fn a_flood_of_lines_is_bounded() {
    let host = Host::start();
    host.crew("talk", TALK, WANTS, GRANTS);
    let task = run(&host, "talk", json!({"do": "log-many", "count": 100_000}));
    assert_eq!(task["state"], "COMPLETED", "{task}");
    let logs = host
        .get(&format!("/v1/tasks/{}/logs", task["taskId"].as_str().unwrap()))
        .to_string();
    assert!(logs.len() < 1 << 20, "{} bytes", logs.len());
    assert!(
        logs.contains("were dropped"),
        "what was dropped is said: {}",
        &logs[logs.len() - 300..]
    );
}

#[test]
fn an_attempt_knows_who_it_is_and_hears_the_host() {
    let host = Host::start();
    let crew = host.crew("talk", TALK, WANTS, GRANTS);
    let task = run(&host, "talk", json!({"do": "who"}));
    let me = &task["result"];
    assert_eq!(
        (&me["name"], &me["crew"], &me["attempt"]),
        (&json!("talk"), &json!(crew), &json!(1)),
        "{task}"
    );
    assert_eq!(me["task"], task["taskId"]);
    assert_eq!(
        run(&host, "talk", json!({"do": "beat"}))["result"],
        "Directive::Continue"
    );
}

#[test]
fn artifacts_are_content_addressed_and_stay_in_their_crew() {
    let host = Host::start();
    host.crew("talk", TALK, WANTS, GRANTS);
    let stored = run(&host, "talk", json!({"do": "store", "text": "hello"}))["result"].clone();
    assert_eq!(
        stored["digest"],
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!((&stored["size"], &stored["same"]), (&json!(5), &json!(true)));
    let read = json!({"do": "read", "digest": stored["digest"]});
    assert_eq!(run(&host, "talk", read.clone())["result"], "hello");

    host.assemble(&format!(
        "name = \"others\"\n[[agent]]\nname = \"spy\"\nplugin = \"test/talk@1.0.0\"\n{GRANTS}"
    ));
    let spied = run(&host, "others", read);
    assert!(
        spied["result"]["refused"]
            .as_str()
            .is_some_and(|why| why.contains("not-found")),
        "{spied}"
    );
    for bad in ["", "zz", "../../etc/passwd"] {
        let refused = run(&host, "talk", json!({"do": "read", "digest": bad}))["result"]["refused"].clone();
        assert!(
            refused.as_str().is_some_and(|why| why.contains("invalid-input")),
            "{bad}: {refused}"
        );
    }
}

#[test]
fn an_artifact_that_is_returned_is_the_crews_own_as_it_was_stored() {
    let host = Host::start();
    host.crew("talk", TALK, WANTS, GRANTS);
    let stored = run(&host, "talk", json!({"do": "store", "text": "hello"}))["result"].clone();
    let give = |digest: &Value| json!({"do": "give", "digest": digest, "size": 1_u64 << 40, "media": "text/html"});
    let given = run(&host, "talk", give(&stored["digest"]));
    let own = json!({"digest": stored["digest"], "size": 5, "media": "text/plain"});
    assert_eq!(given["result"]["$artifact"], own, "{given}");

    host.assemble(&format!(
        "name = \"others\"\n[[agent]]\nname = \"thief\"\nplugin = \"test/talk@1.0.0\"\n{GRANTS}"
    ));
    let nowhere = json!("0".repeat(64));
    for (crew, digest) in [("others", &stored["digest"]), ("talk", &nowhere)] {
        let failed = run(&host, crew, give(digest));
        let message = failed["failure"]["message"].as_str().unwrap_or_default();
        assert!(
            failed["failure"]["code"] == "invalid-input" && message.contains(digest.as_str().unwrap()),
            "{crew}: {failed}"
        );
    }
}

#[test]
fn the_quota_of_artifacts_is_kept() {
    let host = Host::start();
    host.crew("talk", TALK, WANTS, GRANTS);
    let task = run(&host, "talk", json!({"do": "store-many", "count": 10, "bytes": 16_384}));
    assert_eq!(task["result"], 4, "64 KiB hold four blobs of 16 KiB: {task}");
}

#[test]
fn an_import_without_its_grant_is_refused_before_anything_runs() {
    let host = Host::start();
    host.install(&crate::harness::plugin("talk", TALK, WANTS)).json();
    let crew = json!({"name": "poor", "agent": [{"name": "poor", "plugin": "test/talk@1.0.0"}]});
    let answer = host.call("POST", "/v1/crews/assemble", &crew);
    let problem = answer.refuses(403, "capability-denied");
    let text = problem.to_string();
    assert!(
        text.contains("skep:agent/artifacts") && text.contains("artifacts = "),
        "the interface and the grant are named: {text}"
    );
    assert_eq!(host.get("/v1/crews")["items"], json!([]), "nothing is half assembled");
}
