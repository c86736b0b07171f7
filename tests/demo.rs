//! `skep demo` on trees that are made to be difficult: planted keys, odd names, giant lines, links that lead out.

use std::{fs, os::unix::fs::symlink};

use serde_json::Value;

use crate::harness::{directory, skep, write};

/// Secrets by rule, put together here so that no scanner finds them in this file.
fn planted() -> Vec<(&'static str, String)> {
    vec![
        ("aws-access-key", ["AKIA", "Q3EGRIZ7TZ5UL4BD"].concat()),
        ("github", ["ghp_", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx"].concat()),
        ("gitlab", ["glpat-", "kZ7xYq3vLm9sWd2RtBnf"].concat()),
        (
            "slack",
            ["xoxb-", "263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1"].concat(),
        ),
        ("stripe", ["sk_live_", "4eC39HqLyjWDarjtT1zdp7dcQ8Vn"].concat()),
        ("google", ["AIza", "SyD3kQ9vXl2mPz7RtY8wNb4cJf6hUeGoA1s"].concat()),
        ("npm", ["npm_", "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"].concat()),
        (
            "password",
            ["postgres://admin:", "hunter2-Zx9", "@db.internal/app"].concat(),
        ),
    ]
}

#[test]
fn a_difficult_tree_is_audited_and_the_intruder_contained() {
    let directory = directory();
    let tree = directory.path().join("tree");
    let planted = planted();
    for (n, (_, secret)) in planted.iter().enumerate() {
        write(
            &tree,
            &format!("src/config_{n}.py"),
            format!("import os\n\nvalue = \"{secret}\"  # TODO rotate\n"),
        );
    }
    let key = [
        "-----BEGIN ",
        "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\n-----END ",
        "RSA PRIVATE KEY-----\n",
    ]
    .concat();
    write(&tree, "deploy/id_rsa", key);
    write(
        &tree,
        "LICENSE",
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../LICENSE")).unwrap(),
    );
    write(&tree, ".gitignore", "ignored/\n");
    write(&tree, "ignored/secret.txt", format!("token = {}\n", planted[1].1));
    write(&tree, "odd/latin1.txt", b"caf\xe9 TODO\n");
    write(&tree, "odd/binary.bin", [0, 159, 146, 150].repeat(1000));
    write(&tree, "odd/long_line.txt", "x".repeat(32 << 20));
    write(&tree, "odd/empty.txt", "");
    write(
        &tree,
        "odd/<script>alert(1)<.js",
        "// FIXME <img src=x onerror=alert(1)>\n",
    );
    let outside = write(directory.path(), "outside.txt", "canary-outside-the-tree");
    symlink(&outside, tree.join("odd/leads_out")).unwrap();
    symlink("/etc/passwd", tree.join("odd/passwd")).unwrap();
    symlink("..", tree.join("odd/loop")).unwrap();
    let fifo = tree.join("odd/fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    fs::set_permissions(
        write(&tree, "odd/unreadable.txt", "x"),
        std::os::unix::fs::PermissionsExt::from_mode(0o000),
    )
    .unwrap();

    let run = skep(
        directory.path(),
        &["demo", tree.to_str().unwrap(), "--report", "audit.html"],
    )
    .exits(0);
    let html = fs::read_to_string(directory.path().join("audit.html")).unwrap();
    let json = fs::read_to_string(directory.path().join("audit.json")).unwrap();
    let report: Value = serde_json::from_str(&json).unwrap();

    // Found, at the right place, masked everywhere.
    for (n, (rule, secret)) in planted.iter().enumerate() {
        let file = format!("src/config_{n}.py");
        let found = report["findings"].as_array().unwrap().iter().any(|finding| {
            finding["kind"] == "secret"
                && finding["file"] == file
                && finding["line"] == 3
                && finding["rule"].as_str().unwrap().contains(rule)
        });
        assert!(found, "{rule} in {file} is not found: {}", report["findings"]);
        let tail = if secret.contains("://") {
            "hunter2"
        } else {
            secret.get(6..16).unwrap()
        };
        for (place, text) in [
            ("html", &html),
            ("json", &json),
            ("stdout", &run.stdout),
            ("stderr", &run.stderr),
        ] {
            assert!(!text.contains(tail), "{rule}: part of the secret is in the {place}");
        }
    }
    let of = |kind: &str| {
        report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["kind"] == kind)
            .count()
    };
    assert!(of("todo") >= planted.len(), "{}", of("todo"));
    assert!(
        !json.contains("canary") && !html.contains("canary") && !json.contains("root:x:0:0"),
        "nothing outside the tree is read"
    );
    assert!(!json.contains("ignored/"), "ignored files are left out");
    assert!(
        !html.contains("<script>alert") && !html.contains("<img src=x"),
        "file names and excerpts are escaped"
    );

    // Contained, each attempt with its code, while the crew finished.
    let denied: Vec<(String, String)> = report["denied"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            (
                d["attempt"].as_str().unwrap().to_lowercase(),
                d["code"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let codes: std::collections::BTreeSet<_> = denied.iter().map(|(_, code)| code.as_str()).collect();
    for code in [
        "mount-denied",
        "address-denied",
        "memory-limit",
        "fuel-exhausted",
        "deadline-exceeded",
        "quota-exceeded",
    ] {
        assert!(codes.contains(code), "no attempt was denied with `{code}`: {denied:?}");
    }
    assert!(
        !run.stdout.contains("NOT CONTAINED") && !run.stderr.contains("NOT CONTAINED"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    assert!(
        report["tasks"]["completed"].as_u64().unwrap() > 3 && report["files"].as_u64().unwrap() >= 14,
        "{}",
        report["tasks"]
    );
    assert!(
        report["agents"].as_array().unwrap().iter().any(|agent| agent["plugin"]
            .as_str()
            .unwrap()
            .starts_with("skep/secrets")
            && agent["fuel"].as_u64().unwrap() > 0)
    );
    assert!(
        report["languages"]["Python"]["files"] == planted.len(),
        "{}",
        report["languages"]
    );
}

#[test]
fn an_empty_directory_is_audited_too() {
    let directory = directory();
    fs::create_dir(directory.path().join("empty")).unwrap();
    skep(directory.path(), &["demo", "empty", "--report", "out/report.html"]).says(&["out"]);
    skep(directory.path(), &["demo", "empty"]).exits(0);
    let report: Value = serde_json::from_slice(&fs::read(directory.path().join("skep-report.json")).unwrap()).unwrap();
    assert_eq!(
        (&report["files"], &report["findings"]),
        (&0.into(), &Value::Array(vec![]))
    );
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let directory = directory();
    skep(directory.path(), &["demo", "no-such-directory"])
        .exits(3)
        .says(&["no-such-directory"]);
    let file = write(directory.path(), "file", "x");
    let run = skep(directory.path(), &["demo", &file]);
    assert!(matches!(run.code, 3 | 6), "{}", run.stderr);
}
