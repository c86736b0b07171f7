//! The examples run as their READMEs say: `examples/01-audit` is the demo's crew, `examples/02-hello` the smallest agent.

use std::path::PathBuf;

use crate::harness::{Host, directory, skep};

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
        "planner", "secrets", "licenses", "todos", "checker", "reporter", "intruder",
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
