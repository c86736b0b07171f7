//! Bad input gets a clear error with its place, its reason code and the next step, the right exit code, and loses nothing.

use serde_json::json;
use skep_built_guests::{PLANS, TALK};

use crate::harness::{Host, directory, plugin, plugin_unchecked, skep, write};

/// The smallest core module.
const CORE: &[u8] = b"\0asm\x01\0\0\0";

#[test]
fn files_that_are_no_plugins_are_refused_each_with_its_reason() {
    let host = Host::start();
    let directory = directory();
    let good = plugin("plans", PLANS, "");
    let twice = plugin_unchecked(&good);
    let nested = wat::parse_str("(component ".repeat(12) + &")".repeat(12)).unwrap();
    let fat = wat::parse_str("(component (core module (memory 65536)))").unwrap();
    let foreign = wat::parse_str("(component (import \"acme:thing/do@1.0.0\" (instance)))").unwrap();
    let many = wat::parse_str(format!("(component {})", "(core module)".repeat(200))).unwrap();
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty", b"", "not-a-component"),
        ("core module", CORE, "not-a-component"),
        ("text", b"(component)", "not-a-component"),
        ("ELF", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "not-a-component"),
        ("cut short", &good[..good.len() / 2], "not-a-component"),
        ("no manifest", PLANS, "invalid-manifest"),
        ("two manifests", &twice, "invalid-manifest"),
        ("foreign import", &foreign, "unsupported-import"),
        ("nested too deep", &nested, "compile-limit"),
        ("too many modules", &many, "compile-limit"),
        ("4 GiB from the start", &fat, "compile-limit"),
    ];
    for (name, bytes, code) in cases {
        let answer = host.install(bytes);
        let problem = answer.json();
        assert!(
            matches!(answer.status, 400..=422),
            "{name}: {} {problem}",
            answer.status
        );
        assert_eq!(problem["code"], *code, "{name}: {problem}");
        let file = write(directory.path(), "bad.wasm", bytes);
        // `inspect` describes a component that only lacks its manifest, and refuses everything else.
        let described = *name == "no manifest";
        skep(directory.path(), &["inspect", &file]).exits(if described { 0 } else { 6 });
        host.skep(&["plugin", "install", &file, "--yes"]).exits(6);
    }
    assert_eq!(host.get("/v1/plugins")["items"], json!([]), "nothing is half installed");
}

#[test]
fn manifests_are_refused_with_line_and_column() {
    let directory = directory();
    let host = Host::start();
    host.install(&plugin("plans", PLANS, "")).json();
    let base = "name = \"x\"\n[[agent]]\nname = \"a\"\nplugin = \"test/plans@1.0.0\"\n";
    let cases = [
        ("not TOML", "name = \n".to_owned(), "bad.toml:1"),
        ("unknown key", format!("{base}colour = \"red\"\n"), "colour"),
        ("missing plugin", base.replace("plans", "nothing"), "test/nothing"),
        (
            "over-wide grant",
            format!("{base}grants = {{ artifacts = \"1MiB\" }}\n"),
            "grants.artifacts",
        ),
        ("role not provided", format!("{base}roles = [\"queen\"]\n"), "queen"),
        ("no agents", "name = \"x\"\n".to_owned(), "agent"),
        (
            "twice the same name",
            format!("{base}[[agent]]\nname = \"a\"\nplugin = \"test/plans@1.0.0\"\n"),
            "`a`",
        ),
        (
            "mount that is not there",
            "[[mount]]\nguest = \"/in\"\nhost = \"/no/such/place\"\n".replace("[[mount]]", "name = \"x\"\n[[mount]]")
                + &base["name = \"x\"\n".len()..],
            "/no/such/place",
        ),
        ("too many replicas", format!("{base}replicas = 1000000\n"), "replicas"),
    ];
    for (name, text, named) in cases {
        let file = write(directory.path(), "bad.toml", &text);
        let run = host.skep(&["crew", "assemble", &file]);
        assert!(
            matches!(run.code, 3 | 5 | 6),
            "{name}: {} {}{}",
            run.code,
            run.stdout,
            run.stderr
        );
        assert!(
            run.stderr.contains(named),
            "{name}: `{named}` is not named: {}",
            run.stderr
        );
    }
    assert_eq!(host.get("/v1/crews")["items"], json!([]), "nothing is half assembled");
}

#[test]
fn a_want_that_the_imports_contradict_is_refused() {
    let host = Host::start();
    // `talk` imports artifacts; a manifest that does not want them contradicts it.
    let problem = host.install(&plugin_unchecked(TALK)).refuses(422, "invalid-manifest");
    assert!(problem.to_string().contains("skep:agent/artifacts"), "{problem}");
}

#[test]
fn the_same_name_and_version_with_other_bytes_is_a_conflict() {
    let host = Host::start();
    let first = host.install(&plugin("same", PLANS, ""));
    assert!(matches!(first.status, 200 | 201), "{}", first.json());
    let again = host.install(&plugin("same", PLANS, ""));
    assert_eq!(
        again.json()["digest"],
        first.json()["digest"],
        "the same file again is the same plugin"
    );
    host.install(&plugin("same", PLANS, "[provides]\nroles = [\"other\"]\n"))
        .refuses(409, "conflict");
}

#[test]
fn requests_are_refused_with_problem_documents() {
    let host = Host::start();
    host.crew("plans", PLANS, "", "");
    let bearer = format!("Bearer {}", host.token);
    let authorized = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];

    host.send("GET", "/v1/tasks", &[], b"").refuses(401, "unauthenticated");
    host.send("GET", "/v1/tasks", &[("Authorization", "Bearer 0000")], b"")
        .refuses(401, "unauthenticated");
    host.send(
        "GET",
        "/v1/tasks",
        &[("Authorization", &bearer), ("Host", "evil.example")],
        b"",
    )
    .refuses(403, "forbidden");
    host.send(
        "GET",
        "/v1/tasks",
        &[("Authorization", &bearer), ("Origin", "https://evil.example")],
        b"",
    )
    .refuses(403, "forbidden");
    host.send("POST", "/v1/tasks", &authorized, b"{")
        .refuses(400, "invalid-input");
    host.send("POST", "/v1/tasks", &authorized, &vec![b' '; (1 << 20) + 1])
        .refuses(413, "body-limit");
    host.upload("", &[("component", &vec![0; (20 << 20) + 1])])
        .refuses(413, "body-limit");
    host.call("GET", "/v1/nothing", &json!(null)).refuses(404, "not-found");
    host.call("GET", "/v1/tasks/task_00000000000000000000000000000000", &json!(null))
        .refuses(404, "not-found");
    host.call("GET", "/v1/tasks?colour=red", &json!(null))
        .refuses(400, "invalid-input");

    let refused = [
        (json!({"description": "x", "crew": "nobody"}), 404),
        (json!({"description": "x", "crew": "plans", "colour": 1}), 400),
        (json!({"description": "x", "crew": "plans", "roles": ["queen"]}), 404),
        (
            json!({"description": "x", "crew": "plans", "input": "y".repeat(300_000)}),
            400,
        ),
        (json!({"description": "x".repeat(5_000), "crew": "plans"}), 400),
        (
            json!({"description": "x", "crew": "plans", "dependencies": ["task_00000000000000000000000000000000"]}),
            404,
        ),
        (json!([]), 400),
    ];
    for (task, status) in refused {
        let answer = host.call("POST", "/v1/tasks", &task);
        let shown = task.to_string().chars().take(100).collect::<String>();
        assert_eq!(answer.status, status, "{shown}: {}", answer.json());
        assert!(
            answer.head.to_lowercase().contains("application/problem+json"),
            "{shown}: {}",
            answer.head
        );
        assert!(answer.json()["code"].is_string(), "{shown}");
    }
    assert_eq!(host.get("/v1/tasks")["items"], json!([]), "nothing was accepted");
}

#[test]
fn an_idempotency_key_gives_the_same_answer_once() {
    let host = Host::start();
    host.crew("plans", PLANS, "", "");
    let bearer = format!("Bearer {}", host.token);
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k1"),
    ];
    let body = json!({"description": "once", "crew": "plans", "input": {"answer": 1}}).to_string();
    let first = host.send("POST", "/v1/tasks", &headers, body.as_bytes()).json();
    let second = host.send("POST", "/v1/tasks", &headers, body.as_bytes()).json();
    assert_eq!(first["taskId"], second["taskId"]);
    let other = body.replace("once", "twice");
    host.send("POST", "/v1/tasks", &headers, other.as_bytes())
        .refuses(422, "idempotency-mismatch");
}

#[test]
fn a_port_in_use_and_a_foreign_data_directory_are_named() {
    let host = Host::start();
    let directory = directory();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    skep(directory.path(), &["up", "--listen", &host.address, "--data-dir", data])
        .exits(6)
        .says(&[&host.address]);

    let foreign = directory.path().join("foreign");
    write(&foreign, "journal.redb", "this is no database");
    for name in ["skep.redb", "store.redb", "db.redb"] {
        write(&foreign, name, "this is no database");
    }
    skep(
        directory.path(),
        &["up", "--listen", "127.0.0.1:0", "--data-dir", foreign.to_str().unwrap()],
    )
    .exits(1)
    .says(&["data-directory", "doctor"]);

    let file = write(directory.path(), "file", "a file, not a directory");
    skep(
        directory.path(),
        &["up", "--listen", "127.0.0.1:0", "--data-dir", &file],
    )
    .exits(1)
    .says(&["data-directory"]);
}

#[test]
fn configuration_names_its_origin_and_refuses_unknown_keys() {
    let directory = directory();
    let config = write(directory.path(), "host.toml", "[ceiling]\ntier = \"small\"\n");
    let data = directory.path().to_str().unwrap();
    let shown = skep(
        directory.path(),
        &["config", "show", "--origin", "--config", &config, "--data-dir", data],
    )
    .exits(0);
    shown.says(&["ceiling.tier", "small", "host.toml"]);
    write(directory.path(), "host.toml", "ceilling = 1\n");
    skep(directory.path(), &["up", "--config", &config, "--data-dir", data])
        .exits(6)
        .says(&["ceilling", "host.toml"]);
    skep(directory.path(), &["config", "show", "--config", "/no/such/host.toml"]).says(&["/no/such/host.toml"]);
}

#[test]
fn usage_errors_and_unreachable_hosts_have_their_exit_codes() {
    let directory = directory();
    skep(directory.path(), &["frobnicate"]).exits(2);
    skep(
        directory.path(),
        &["task", "ls", "--host", "http://127.0.0.1:1", "--token", "x"],
    )
    .exits(9);
    skep(directory.path(), &["explain", "fuel-exhausted"])
        .exits(0)
        .says(&["limits.fuel"]);
    skep(directory.path(), &["explain", "no-such-code"]).exits(3);
    skep(directory.path(), &["run", "/no/such/file.wasm"])
        .exits(3)
        .says(&["/no/such/file.wasm"]);
}
