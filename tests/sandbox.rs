//! Files, sockets and output as agents meet them (T13, T20, T21, T36 to T40): what is granted works, everything else is refused and noted. The guest
//! `files_script` takes steps, `sockets_reach` tries addresses, `output_write` floods.

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};
use skep_built_guests::{FILES_SCRIPT, OUTPUT_WRITE, SOCKETS_REACH};

use crate::harness::{Host, directory, until, write};

const FILES: &str = "[wants]\nfiles = [{ mount = \"/input\", access = \"read\" }]\nworkspace = \"1MiB\"\n";

fn run(host: &Host, crew: &str, input: Value) -> Value {
    host.run(&json!({"description": "reach out", "crew": crew, "input": input, "retry": {"maxRetries": 0, "onExhausted": "fail"}}))
}

/// The reason codes of what was refused to a task.
fn denied(task: &Value) -> Vec<String> {
    let denials = task["denials"].as_array().into_iter().flatten();
    denials
        .map(|denial| {
            format!(
                "{} {}",
                denial["reason"].as_str().unwrap_or_default(),
                denial["what"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

/// Each step and how it must end, as the guest tells it; `?` stands for any error.
#[track_caller]
fn script(host: &Host, steps: &[(Value, &str)]) -> Value {
    let input: Vec<_> = steps.iter().map(|(step, _)| step.clone()).collect();
    let task = run(host, "files", json!(input));
    let ends = task["result"].as_array().unwrap_or_else(|| panic!("{task}")).clone();
    for ((step, expected), end) in steps.iter().zip(&ends) {
        let end = end.as_str().unwrap_or_default();
        assert!(
            end == *expected || (*expected == "?" && !end.starts_with("ok")),
            "{step}: `{end}`, not `{expected}`: {task}"
        );
    }
    task
}

fn files() -> (Host, tempfile::TempDir) {
    let host = Host::start();
    let tree = directory();
    write(tree.path(), "tree/a.txt", "12345");
    write(tree.path(), "canary.txt", "nobody may read this");
    let root = tree.path().join("tree").canonicalize().unwrap();
    symlink("a.txt", root.join("inside")).unwrap();
    symlink("../canary.txt", root.join("outside")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(root.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    host.install(&crate::harness::plugin("files", FILES_SCRIPT, FILES))
        .json();
    host.assemble(&format!(
        "name = \"files\"\n[[mount]]\nguest = \"/input\"\nhost = \"{}\"\n[[agent]]\nname = \"files\"\nplugin = \"test/files@1.0.0\"\n\
         grants = {{ files = [{{ mount = \"/input\", access = \"read\" }}], workspace = \"1MiB\" }}\nlimits = {{ tier = \"small\" }}\n",
        root.display()
    ));
    (host, tree)
}

#[test]
fn a_mount_is_read_and_nothing_around_it() {
    let (host, tree) = files();
    let task = script(
        &host,
        &[
            (json!({"do": "read", "path": "/input/a.txt"}), "ok 5"),
            (json!({"do": "read", "path": "/input/inside"}), "ok 5"),
            (json!({"do": "read", "path": "/input/missing"}), "NotFound"),
            (json!({"do": "read", "path": "/etc/passwd"}), "NotFound"),
            (json!({"do": "read", "path": "/input/../canary.txt"}), "?"),
            (json!({"do": "read", "path": "/input/../../etc/passwd"}), "?"),
            (json!({"do": "read", "path": "/input/outside"}), "PermissionDenied"),
            (json!({"do": "read", "path": "/input/absolute"}), "PermissionDenied"),
            (
                json!({"do": "read", "path": "/input/up/canary.txt"}),
                "PermissionDenied",
            ),
            (json!({"do": "read", "path": "/input/pipe"}), "PermissionDenied"),
            (
                json!({"do": "write", "path": "/input/new", "bytes": 1}),
                "PermissionDenied",
            ),
            (
                json!({"do": "append", "path": "/input/a.txt", "bytes": 1}),
                "PermissionDenied",
            ),
            (
                json!({"do": "set-len", "path": "/input/a.txt", "bytes": 0}),
                "PermissionDenied",
            ),
            (json!({"do": "remove", "path": "/input/a.txt"}), "PermissionDenied"),
            (json!({"do": "mkdir", "path": "/input/directory"}), "PermissionDenied"),
            (
                json!({"do": "rename", "path": "/input/a.txt", "to": "/input/b.txt"}),
                "PermissionDenied",
            ),
            (
                json!({"do": "link", "path": "/input/a.txt", "to": "/workspace/a.txt"}),
                "?",
            ),
        ],
    );
    let denied = denied(&task);
    for what in [
        "mount-denied open /etc/passwd",
        "outside",
        "absolute",
        "pipe",
        "/input/new",
    ] {
        assert!(
            denied.iter().any(|denial| denial.starts_with("mount-denied")
                && denial.contains(what.trim_start_matches("mount-denied "))),
            "{what}: {denied:?}"
        );
    }
    assert!(
        !denied.iter().any(|denial| denial.contains("missing")),
        "not finding a file is no denial: {denied:?}"
    );
    assert_eq!(fs::read_to_string(tree.path().join("tree/a.txt")).unwrap(), "12345");
}

#[test]
fn the_workspace_is_empty_for_each_attempt_and_bounded() {
    let (host, _tree) = files();
    let mib = 1 << 20;
    let task = script(
        &host,
        &[
            (json!({"do": "list", "path": "/workspace"}), "ok 0"),
            (
                json!({"do": "write", "path": "/workspace/a", "bytes": mib / 2}),
                "ok 524288",
            ),
            (
                json!({"do": "write", "path": "/workspace/a", "bytes": mib / 2}),
                "ok 524288",
            ),
            (
                json!({"do": "set-len", "path": "/workspace/a", "bytes": mib}),
                "ok 1048576",
            ),
            (
                json!({"do": "set-len", "path": "/workspace/a", "bytes": mib + 1}),
                "StorageFull",
            ),
            (json!({"do": "write", "path": "/workspace/b", "bytes": 4096}), "?"),
            (json!({"do": "remove", "path": "/workspace/a"}), "ok 0"),
            (json!({"do": "write", "path": "/workspace/b", "bytes": 4096}), "ok 4096"),
            (
                json!({"do": "rename", "path": "/workspace/b", "to": "/workspace/c"}),
                "ok 0",
            ),
            (json!({"do": "poke", "path": "/workspace/c", "at": 1_u64 << 40}), "?"),
            (
                json!({"do": "symlink", "path": "/workspace/link", "to": "../../../etc/passwd"}),
                "PermissionDenied",
            ),
            (
                json!({"do": "link", "path": "/workspace/c", "to": "/workspace/d"}),
                "PermissionDenied",
            ),
            (json!({"do": "hoard", "path": "/workspace/c"}), "ok 64"),
            (json!({"do": "release"}), "ok 0"),
            (json!({"do": "fill", "path": "/workspace", "count": 5_000}), "ok 999"),
        ],
    );
    let denied = denied(&task);
    for code in ["quota-exceeded", "mount-denied", "handle-limit"] {
        assert!(
            denied.iter().any(|denial| denial.starts_with(code)),
            "{code}: {denied:?}"
        );
    }
    script(&host, &[(json!({"do": "list", "path": "/workspace"}), "ok 0")]);
    let empty = || fs::read_dir(host.data().join("workspaces")).unwrap().next().is_none();
    until("the workspaces of ended attempts are gone", || empty().then_some(()));
}

#[test]
fn looking_at_files_without_end_is_stopped() {
    let (host, tree) = files();
    // Fuel for some ten thousands of calls: fewer than the burst of the rate, so that no machine is fast enough for another end, and far from the
    // deadline. That the rate ends a flood of calls is tested where the rate can be chosen, in the runner.
    host.assemble(&format!(
        "name = \"looking\"\n[[mount]]\nguest = \"/input\"\nhost = \"{}\"\n[[agent]]\nname = \"files\"\nplugin = \"test/files@1.0.0\"\n\
         grants = {{ files = [{{ mount = \"/input\", access = \"read\" }}], workspace = \"1MiB\" }}\nlimits = {{ tier = \"small\", fuel = \"50M\" }}\n",
        tree.path().join("tree").canonicalize().unwrap().display()
    ));
    let task = run(
        &host,
        "looking",
        json!([{"do": "spin", "path": "/input/a.txt", "times": 1_000_000_000_u64}]),
    );
    assert_eq!(task["failure"]["code"], "fuel-exhausted", "{task}");
}

#[test]
fn every_address_and_name_is_refused() {
    let host = Host::start();
    host.crew("sockets", SOCKETS_REACH, "", "");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let tries = json!([
        {"do": "connect", "to": here}, {"do": "connect", "to": host.address}, {"do": "connect", "to": "169.254.169.254:80"}, {"do": "connect", "to": "[::1]:80"},
        {"do": "bind", "to": "0.0.0.0:0"}, {"do": "listen", "to": "127.0.0.1:0"}, {"do": "look-up", "to": "example.com:80"}, {"do": "look-up", "to": "localhost:80"},
    ]);
    let task = run(&host, "sockets", tries);
    let ends = task["result"].as_array().unwrap_or_else(|| panic!("{task}"));
    assert!(ends.len() == 8 && ends.iter().all(|end| end != "reached"), "{task}");
    let denied = denied(&task);
    assert!(
        denied.iter().all(|denial| denial.starts_with("address-denied"))
            && denied.iter().any(|denial| denial.contains(&here)),
        "{denied:?}"
    );
    assert!(listener.accept().is_err(), "nobody connected");
}

#[test]
fn a_flood_of_output_is_bounded_and_the_panic_is_still_heard() {
    let host = Host::start();
    host.crew("output", OUTPUT_WRITE, "", "");
    let line = "\u{1b}[31m0123456789 0123456789 0123456789\u{1b}[0m\n".repeat(100);
    let task = run(
        &host,
        "output",
        json!({"stream": "stdout", "text": line, "times": 2_000, "panic": true}),
    );
    assert_eq!(task["failure"]["code"], "trapped", "{task}");
    assert!(
        denied(&task).iter().any(|denial| denial.starts_with("rate-limited")),
        "{task}"
    );
    let logs = host
        .get(&format!("/v1/tasks/{}/logs", task["taskId"].as_str().unwrap()))
        .to_string();
    assert!(logs.contains("asked to panic after 2000 writes"), "{logs}");
    assert!(
        logs.len() < 1 << 20 && !logs.contains("\\u001b["),
        "{} bytes",
        logs.len()
    );
    let quiet = run(
        &host,
        "output",
        json!({"stream": "stderr", "text": "", "times": 100_000}),
    );
    assert_eq!(quiet["state"], "COMPLETED", "writes of nothing cost nothing: {quiet}");
}
