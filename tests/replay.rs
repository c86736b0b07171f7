//! Records: shown, exported, run again without a host, and held against another component. And what agents remember, as people read it.

use std::{fs, path::Path};

use serde_json::{Value, json};
use skep_built_guests::{PROGRAM, STEPS};
use skep_rules::limits::MAX_PAGE;

use crate::{
    harness::{Host, Run, directory, plugin, skep, write},
    kills::{GRANTS, WANTS},
};

/// A program with a step of every kind, the last of them before the artifact is read again.
fn all_steps() -> Value {
    json!([
        {"put": {"key": "k", "value": "one"}},
        {"get": {"key": "k"}},
        {"cas": {"key": "k", "value": "two"}},
        {"get-revision": {"key": "k", "revision": 1}},
        {"history": {"key": "k"}},
        {"list": {"prefix": ""}},
        {"spawn": {"program": [{"put": {"key": "mine", "value": "x"}}]}},
        {"spawn": {"program": [{"fail": {"message": "no"}}]}},
        {"await-all": {}},
        {"sleep": {"ms": 30}},
        {"pause": {"ms": 5}},
        {"clock": {"key": "c", "reads": 300}},
        {"random": {"key": "r"}},
        {"log": {"text": "about to store"}},
        {"store": {"text": "stored"}},
        {"load": {"artifact": 0}},
        {"delete": {"key": "k"}},
        {"beat": {}},
    ])
}

/// Runs a program to its end; the task.
fn run(host: &Host, program: Value) -> Value {
    host.run(&json!({"description": "program", "input": program, "retry": {"maxRetries": 0, "onExhausted": "fail"}}))
}

fn id(task: &Value) -> &str {
    task["taskId"].as_str().unwrap_or_else(|| panic!("{task}"))
}

/// A host on which a program with all steps has run; the task.
fn recorded() -> (Host, Value) {
    let host = Host::start();
    host.crew("program", PROGRAM, WANTS, GRANTS);
    let task = run(&host, all_steps());
    assert_eq!(task["state"], "COMPLETED", "{task}");
    (host, task)
}

/// Exports a task to a file of this name.
fn export(host: &Host, task: &Value, directory: &Path, name: &str) -> String {
    let file = directory.join(name).to_str().unwrap().to_owned();
    host.skep(&["task", "export", id(task), "--to", &file])
        .exits(0)
        .says(&["steps"]);
    file
}

/// The program as another release of it, in which one text is another of the same length.
fn changed(text: &str, other: &str) -> Vec<u8> {
    assert_eq!(text.len(), other.len());
    let mut component = PROGRAM.to_vec();
    let places: Vec<usize> = (0..component.len() - text.len())
        .filter(|at| component[*at..].starts_with(text.as_bytes()))
        .collect();
    assert_eq!(places.len(), 1, "`{text}` stands once in the component");
    component[places[0]..places[0] + text.len()].copy_from_slice(other.as_bytes());
    plugin("program", &component, WANTS)
}

/// `skep replay` in a directory of its own, where no host is.
fn replay(arguments: &[&str]) -> Run {
    let nowhere = directory();
    let data = nowhere.path().join("data");
    let all = [&["replay"], arguments, &["--data-dir", data.to_str().unwrap()]].concat();
    skep(nowhere.path(), &all)
}

/// The place of a step of a name in the record.
fn place(steps: &Value, name: &str) -> u64 {
    let found = steps.as_array().unwrap().iter().find(|step| step["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {steps}"))["number"]
        .as_u64()
        .unwrap()
}

#[test]
fn a_record_is_shown_exported_and_run_again_where_no_host_is() {
    let (host, task) = recorded();
    let shown = host
        .skep(&["task", "show", id(&task), "--steps", "-o", "json"])
        .exits(0)
        .json();
    let steps = shown.as_array().unwrap();
    assert_eq!(steps.len() as u64, task["steps"].as_u64().unwrap());
    for (number, step) in steps.iter().enumerate() {
        assert_eq!(step["number"], number, "{step}");
    }
    for name in [
        "state.put",
        "state.get",
        "state.delete",
        "state.list",
        "state.history",
        "tasks.spawn",
        "tasks.await",
        "tasks.sleep-until",
        "clock",
        "artifacts.finish",
        "artifacts.read",
    ] {
        place(&shown, name);
    }
    let read = &steps[1]["answer"];
    assert_eq!(
        (&read["kind"], &read["value"]),
        (&json!("value"), &json!({"$text": "one"})),
        "{read}"
    );
    let ends = &steps[usize::try_from(place(&shown, "tasks.await")).unwrap()]["answer"]["ends"];
    assert_eq!(
        (&ends[0]["code"], &ends[1]["code"]),
        (&Value::Null, &json!("error")),
        "{ends}"
    );
    host.skep(&["task", "show", id(&task), "--steps"])
        .exits(0)
        .says(&["written as revision 1", "artifacts.finish ("]);

    let pages = host.get(&format!("/v1/tasks/{}/steps?limit=4&after=3", id(&task)));
    assert_eq!(
        (pages["items"].as_array().unwrap().len(), &pages["next"]),
        (4, &json!("7"))
    );
    assert_eq!(pages["items"][0], steps[4]);
    let path = format!("/v1/tasks/{}/steps?limit={}", id(&task), MAX_PAGE + 1);
    host.call("GET", &path, &Value::Null).refuses(400, "invalid-input");

    let home = directory();
    let file = export(&host, &task, home.path(), "run.export");
    let task_id = id(&task).to_owned();
    host.skep(&["replay", &task_id]).exits(0).says(&["equal"]);
    drop(host);
    replay(&[&file]).exits(0).says(&["equal", &task_id]);
    let report = replay(&[&file, "-o", "json"]).exits(0).json();
    assert_eq!(
        (&report["equal"], &report["replayed"]),
        (&json!(true), &task["steps"]),
        "{report}"
    );
    let until = replay(&[&file, "--until", "3", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&until["equal"], &until["replayed"]),
        (&json!(true), &json!(3)),
        "{until}"
    );
    let verbose = replay(&[&file, "--verbose"])
        .exits(0)
        .says(&["equal", "about to store", "tasks.sleep-until ("]);
    let lines = verbose.stderr.lines().filter(|line| line.contains(" (")).count();
    assert_eq!(lines as u64, task["steps"].as_u64().unwrap(), "{}", verbose.stderr);
}

#[test]
fn a_changed_component_diverges_where_it_is_another() {
    let (host, task) = recorded();
    let home = directory();
    let file = export(&host, &task, home.path(), "run.export");
    let shown = host
        .skep(&["task", "show", id(&task), "--steps", "-o", "json"])
        .exits(0)
        .json();
    let stored = place(&shown, "artifacts.finish");

    let other = write(home.path(), "other.wasm", changed("text/plain", "text/plane"));
    let report = replay(&[&file, "--plugin", &other, "-o", "json"]).exits(7).json();
    let divergence = &report["divergence"];
    assert_eq!(
        (&report["equal"], &divergence["step"]),
        (&json!(false), &json!(stored)),
        "{report}"
    );
    for side in ["expected", "got"] {
        assert!(
            divergence[side].as_str().unwrap().starts_with("artifacts.finish ("),
            "{report}"
        );
    }
    assert_ne!(divergence["expected"], divergence["got"]);
    assert_ne!(report["component"], report["recordedBy"]);
    let before = stored.to_string();
    replay(&[&file, "--plugin", &other, "--until", &before])
        .exits(0)
        .says(&["equal"]);
    host.skep(&["replay", id(&task), "--plugin", &other]).exits(7).says(&[
        "DIVERGED",
        "expected    artifacts.finish",
        "got         artifacts.finish",
    ]);

    // The same steps, and another result.
    let result = write(home.path(), "result.wasm", changed("logged", "lagged"));
    let report = replay(&[&file, "--plugin", &result, "-o", "json"]).exits(7).json();
    assert_eq!(report["divergence"]["step"], task["steps"], "{report}");
    assert!(
        report["divergence"]["got"].as_str().unwrap().contains("the result"),
        "{report}"
    );

    // No steps at all.
    let none = write(home.path(), "none.wasm", plugin("program", STEPS, WANTS));
    let report = replay(&[&file, "--plugin", &none, "-o", "json"]).exits(7).json();
    assert_eq!(report["divergence"]["step"], 0, "{report}");
    assert!(
        report["divergence"]["expected"]
            .as_str()
            .unwrap()
            .starts_with("state.put ("),
        "{report}"
    );

    let bare = write(home.path(), "bare.wasm", PROGRAM);
    replay(&[&file, "--plugin", &bare]).exits(6).says(&["invalid-manifest"]);
}

#[test]
fn a_damaged_export_is_refused_with_the_place() {
    let (host, task) = recorded();
    let home = directory();
    let good = fs::read(export(&host, &task, home.path(), "good.export")).unwrap();
    let refused = |name: &str, bytes: &[u8], says: &str| {
        let file = write(home.path(), name, bytes);
        replay(&[&file]).exits(6).says(&[says, "invalid-input", name]);
    };
    for length in [14, 40, good.len() / 2, good.len() - 1] {
        refused("cut.export", &good[..length], "it is cut short: it ends at byte");
    }
    let flip = |at: usize, says: &str| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused("flipped.export", &bytes, says);
    };
    flip(0, "it does not begin as one");
    flip(12, "it is written in format");
    for at in [30, good.len() / 2, good.len() - 1] {
        flip(at, "not what was written");
    }
    refused(
        "long.export",
        &[good.as_slice(), b"x"].concat(),
        "something follows the last piece",
    );
    refused("other.export", PROGRAM, "it does not begin as one");

    let file = home.path().join("good.export");
    host.skep(&["task", "export", id(&task), "--to", file.to_str().unwrap()])
        .exits(4)
        .says(&["is there already"]);
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().collect();
    assert_eq!(left.len(), 5, "nothing half written stays: {left:?}");
    host.skep(&["replay", "task_00000000"]).exits(3);
    replay(&["nothing.export"]).exits(3);
    replay(&[file.to_str().unwrap(), "--env", "NONE=1"])
        .exits(2)
        .says(&["NONE"]);
}

#[test]
fn a_run_that_failed_fails_again() {
    let host = Host::start();
    host.crew("program", PROGRAM, WANTS, GRANTS);
    for (act, code) in [
        (json!({"trap": {}}), "trapped"),
        (json!({"fail": {"message": "on purpose"}}), "error"),
    ] {
        let task = run(&host, json!([{"put": {"key": "k", "value": "1"}}, act]));
        assert_eq!(task["failure"]["code"], code, "{task}");
        let report = host.skep(&["replay", id(&task), "-o", "json"]).exits(0).json();
        assert_eq!(
            (&report["equal"], &report["replayed"]),
            (&json!(true), &json!(1)),
            "{report}"
        );
    }
}

#[test]
fn a_plugin_is_checked_against_the_records_of_the_one_before() {
    let (host, _) = recorded();
    let short = run(&host, json!([{"put": {"key": "k", "value": "1"}}]));
    let home = directory();
    let file = |name: &str, bytes: Vec<u8>| write(home.path(), name, bytes);
    let check = |file: &str, count: &str| host.skep(&["plugin", "check", file, "--replay", count, "-o", "json"]);

    // Three have a record: the two that were submitted and one of the children.
    let same = file("same.wasm", plugin("program", PROGRAM, WANTS));
    let reports = check(&same, "9").exits(0).json();
    assert_eq!(reports.as_array().unwrap().len(), 3, "{reports}");
    let newest = check(&same, "1").exits(0).json();
    assert_eq!(
        (newest.as_array().unwrap().len(), &newest[0]["task"]),
        (1, &short["taskId"]),
        "{newest}"
    );

    let other = file("other.wasm", changed("text/plain", "text/plane"));
    let reports = check(&other, "9").exits(7).json();
    let equal: Vec<bool> = reports
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|report| report["equal"].as_bool())
        .collect();
    assert_eq!(equal.iter().filter(|equal| !**equal).count(), 1, "{reports}");
    check(&other, "1").exits(0);

    let stranger = file("stranger.wasm", plugin("stranger", PROGRAM, WANTS));
    check(&stranger, "9")
        .exits(3)
        .says(&["no task of `test/stranger` has a record"]);
}

#[test]
fn values_of_the_environment_are_masked_in_a_file() {
    let host = Host::start();
    let agent = format!("{GRANTS}env = {{ KEY = \"a very secret text\" }}\n");
    host.crew("program", PROGRAM, WANTS, &agent);
    let task = run(&host, json!([{"put": {"key": "k", "value": "1"}}]));
    let home = directory();
    let file = export(&host, &task, home.path(), "run.export");
    let holds = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let bytes = fs::read(&file).unwrap();
    assert!(holds(&bytes, b"KEY") && !holds(&bytes, b"a very secret text"));
    let path = format!("/v1/tasks/{}/export", id(&task));
    assert_eq!(host.send("GET", &path, &[], b"").status, 401);
    let unmasked = host.call("GET", &format!("{path}?unmasked=true&component=false"), &Value::Null);
    assert!(holds(&unmasked.body, b"a very secret text") && unmasked.body.len() < bytes.len());
    replay(&[&file, "--env", "KEY=x"]).exits(0).says(&["equal"]);
    let component = host.call("GET", "/v1/plugins/test%2Fprogram@1.0.0/component", &Value::Null);
    assert_eq!(component.body, plugin("program", PROGRAM, WANTS));
}

#[test]
fn what_agents_remember_is_read_with_and_without_a_host() {
    let (mut host, task) = recorded();
    run(
        &host,
        json!([{"put": {"key": "a/b", "value": "{\"n\": 1}"}}, {"put": {"key": "a/b", "value": "[2]"}}]),
    );
    let entry = host
        .skep(&["state", "get", "program", "a/b", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(entry["value"], json!([2]), "{entry}");
    let newest = entry["revision"].as_u64().unwrap();
    let before = (newest - 1).to_string();
    host.skep(&["state", "get", "program", "a/b", "--revision", &before])
        .exits(0)
        .says(&["\"n\": 1"]);
    let history = host
        .skep(&["state", "history", "program", "a/b", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (&history[0]["newest"], &history[1]["revision"]),
        (&json!(true), &json!(newest - 1)),
        "{history}"
    );
    // Removed, and its older values are there still.
    host.skep(&["state", "get", "program", "k"]).exits(3);
    let removed = host
        .skep(&["state", "history", "program", "k", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (removed.as_array().unwrap().len(), &removed[0]["newest"]),
        (2, &json!(false)),
        "{removed}"
    );
    host.skep(&["state", "get", "program", "nothing"])
        .exits(3)
        .says(&["key `nothing`"]);
    host.skep(&["state", "ls", "nobody"]).exits(3).says(&["nobody"]);
    let page = host.get("/v1/state/program?limit=1&prefix=a");
    assert_eq!(
        (&page["items"][0]["key"], &page["next"]),
        (&json!("a/b"), &Value::Null),
        "{page}"
    );

    let task = id(&task).to_owned();
    host.stop();
    let data = host.data().to_str().unwrap().to_owned();
    let home = directory();
    let keys = skep(
        home.path(),
        &["state", "ls", "program", "-o", "json", "--data-dir", &data],
    )
    .exits(0)
    .json();
    let names: Vec<&str> = keys
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|key| key["key"].as_str())
        .collect();
    assert_eq!(names, ["0.1/mine", "a/b", "c", "r"], "{keys}");
    skep(home.path(), &["replay", &task, "--data-dir", &data])
        .exits(0)
        .says(&["equal"]);
    skep(home.path(), &["task", "show", &task, "--steps", "--data-dir", &data])
        .exits(0)
        .says(&["state.put ("]);
}

#[test]
fn one_agent_without_a_host_has_a_state_for_itself() {
    let home = directory();
    let file = write(home.path(), "program.wasm", plugin("program", PROGRAM, WANTS));
    let program = json!([
        {"put": {"key": "k", "value": "1"}}, {"cas": {"key": "k", "value": "2"}}, {"get": {"key": "k"}}, {"history": {"key": "k"}},
        {"sleep": {"ms": 86_400_000}}, {"spawn": {"program": []}}, {"store": {"text": "x"}}, {"load": {"artifact": 0}},
    ]);
    let input = program.to_string();
    let done = skep(home.path(), &["run", &file, "--input", &input, "-o", "json"]).exits(0);
    let seen = &done.json()["seen"];
    assert_eq!(
        (&seen[2], &seen[3], &seen[4], &seen[7]),
        (
            &json!({"value": "2", "revision": 2}),
            &json!([1, 2]),
            &json!("slept"),
            &json!("x")
        ),
        "{seen}"
    );
    assert!(seen[5]["refused"].as_str().unwrap().contains("budget"), "{seen}");
    done.says(&["a sleep was passed over"]);
}
