//! The examples run as their READMEs say: `examples/01-audit` is the demo's crew, `examples/02-hello` the smallest agent, `examples/03-tally` one
//! that waits, spawns and remembers.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::harness::{Host, directory, skep, until};

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
        .canonicalize()
        .expect("the example is there")
}

#[test]
fn hello_is_built_and_run() {
    let directory = directory();
    let file = directory.path().join("hello.wasm");
    let file = file.to_str().unwrap();
    skep(&example("examples/02-hello"), &["build", "--out", file]).exits(0);
    let run = skep(directory.path(), &["run", file, "--input", "\"Ada\""]).exits(0);
    assert!(run.stdout.contains("Hello, Ada!"), "{}", run.stdout);
}

#[test]
fn audit_is_assembled_by_hand() {
    let host = Host::start();
    for plugin in [
        "audit-planner",
        "secrets",
        "licenses",
        "todos",
        "audit-checker",
        "reporter",
        "intruder",
    ] {
        // Bundled plugins are signed by a key of the data directory: of this host's, not of whoever runs the tests.
        let data = host.data().to_str().unwrap();
        host.skep(&["plugin", "install", &format!("bundled:{plugin}"), "--data-dir", data])
            .exits(0);
    }
    let audit = example("examples/01-audit");
    let (crew, hello) = (audit.join("crew.toml"), example("examples/02-hello"));
    let mount = format!("/input={}", hello.display());
    host.skep(&["crew", "assemble", crew.to_str().unwrap(), "--mount", &mount, "--wait"])
        .exits(0);
    let input = format!("@{}", audit.join("objective.json").display());
    let submit = [
        "task",
        "submit",
        "--crew",
        "audit",
        "--description",
        "audit",
        "--plan",
        "--input",
        &input,
        "--wait",
        "60s",
        "-o",
        "json",
    ];
    let task = host.skep(&submit).exits(0).json();
    assert_eq!(task["state"], "COMPLETED", "{task}");
    assert!(
        task["result"]["summary"]["files"]
            .as_u64()
            .is_some_and(|files| files >= 4),
        "{task}"
    );
}

#[test]
fn tally_goes_on_where_it_was_killed() {
    let (host, built) = (Host::start(), directory());
    let tally = example("examples/03-tally");
    let file = built.path().join("tally.wasm");
    skep(&tally, &["build", "--out", file.to_str().unwrap()]).exits(0);
    let installed = host.install(&fs::read(&file).unwrap());
    assert_eq!(installed.status, 201, "{}", installed.json());
    let crew = tally.join("crew.toml");
    host.skep(&["crew", "assemble", crew.to_str().unwrap(), "--wait"])
        .exits(0);
    let task = |rest: u64| {
        let input = json!({"texts": ["one two three", "four", "five six"], "rest": rest});
        json!({"description": "tally", "crew": "tally", "input": input})
    };
    let submitted = host.call("POST", "/v1/tasks", &task(3)).json();
    let path = format!("/v1/tasks/{}", submitted["taskId"].as_str().unwrap());
    until("it sleeps", || (host.get(&path)["state"] == "WAITING").then_some(()));
    let host = host.restart();
    let ended = until("it has ended", || {
        let task = host.get(&path);
        (task["state"] == "COMPLETED" || task["state"] == "FAILED").then_some(task)
    });
    assert_eq!(ended["result"], json!({"words": [3, 1, 2], "tally": 6}), "{ended}");
    let again = host.run(&task(0));
    assert_eq!(again["result"], json!({"words": [3, 1, 2], "tally": 12}), "{again}");
}
