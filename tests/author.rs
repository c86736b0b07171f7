//! The way of a new author, as the README has it: new, edit, build, inspect, run, install, a crew of it. Offline: nothing but what building
//! Skep itself has fetched.

use serde_json::json;

use crate::harness::{Host, directory, key_of, release, sign, skep};

#[test]
fn from_nothing_to_a_crew() {
    let directory = directory();
    let at = directory.path();
    skep(at, &["new", "acme/greeter"]).exits(0);
    skep(at, &["new", "acme/greeter"]).exits(4).says(&["greeter"]);

    let project = at.join("greeter");
    let source = std::fs::read_to_string(project.join("src/lib.rs")).unwrap();
    assert!(
        source
            .lines()
            .take_while(|line| !line.contains("cfg(test)"))
            .filter(|line| !line.trim().is_empty())
            .count()
            <= 15,
        "{source}"
    );

    let file = at.join("greeter.wasm");
    let file = file.to_str().unwrap();
    skep(&project, &["build", "--out", file])
        .exits(0)
        .says(&["skep:agent/executor"]);
    skep(at, &["inspect", file])
        .exits(0)
        .says(&["acme/greeter", "unsigned", "execute tasks"]);
    let run = skep(at, &["run", file, "--input", "\"Ada\""]).exits(0);
    assert!(run.stdout.contains("Ada"), "stdout carries the outcome: {}", run.stdout);

    let host = Host::start();
    host.skep(&["plugin", "install", file])
        .exits(6)
        .says(&["signature-missing"]);
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(format!("{file}.sig"), sign(&release(&bytes), &[&key_of("acme")])).unwrap();
    host.skep(&["plugin", "install", file])
        .exits(6)
        .says(&["signer-untrusted"]);
    host.trust("acme");
    host.skep(&["plugin", "install", file, "--yes"])
        .exits(8)
        .says(&["first-contact", "--publisher acme"]);
    host.skep(&["plugin", "install", file, "--publisher", "acme"])
        .exits(0)
        .says(&["acme/greeter"]);
    host.skep(&["plugin", "ls"])
        .exits(0)
        .says(&["acme/greeter", "0.1.0", "signed"]);
    host.assemble("name = \"greeters\"\n[[agent]]\nname = \"greeter\"\nplugin = \"acme/greeter@0.1.0\"\n");
    let ended = host.run(&json!({"description": "greet", "crew": "greeters", "input": "Ada"}));
    assert_eq!(ended["state"], "COMPLETED", "{ended}");
    host.skep(&[
        "task",
        "submit",
        "--crew",
        "greeters",
        "--description",
        "greet",
        "--input",
        "\"Bob\"",
        "--wait",
        "30s",
    ])
    .exits(0)
    .says(&["Bob"]);
    host.skep(&["agent", "ls"]).exits(0).says(&["greeter"]);
    host.skep(&["audit", "tail"]).exits(0).says(&["plugin"]);
}
