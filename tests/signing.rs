//! The publisher's commands, offline: keys, signatures over plugins and documents of trust, and every check that can fail.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use skep_rules::{id::Digest, release::PAYLOAD_TYPE};
use skep_runtime::signature::{self, Envelope, SecretKey};

use crate::{
    corpus,
    harness::{Run, directory, plugin, skep, write},
};

/// A directory with the keys `acme` and `other`, and the plugin `worker.wasm`.
fn workshop() -> tempfile::TempDir {
    let directory = directory();
    let at = directory.path();
    for name in ["acme", "other"] {
        skep(at, &["key", "new", name]).exits(0);
    }
    write(
        at,
        "worker.wasm",
        plugin("worker", &corpus::idle(), "license = \"MIT\"\n"),
    );
    directory
}

fn sign(at: &Path, more: &[&str]) -> Run {
    skep(at, &[&["sign", "worker.wasm", "-o", "json"], more].concat())
}

/// The check that failed and its code.
fn verdict(at: &Path, arguments: &[&str]) -> (String, String, String) {
    let run = skep(at, &[&["verify", "worker.wasm", "-o", "json"], arguments].concat()).exits(6);
    let json = run.json();
    let checks = json["checks"].as_array().unwrap();
    let failed = checks.iter().find(|check| check["outcome"] == "failed").unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let code = text(&failed["code"]);
    assert!(
        run.stderr.contains(&format!("code: {code}\n  next: ")),
        "{}",
        run.stderr
    );
    (text(&json["state"]), text(&failed["check"]), code)
}

fn found(state: &str, check: &str, code: &str) -> (String, String, String) {
    (state.to_owned(), check.to_owned(), code.to_owned())
}

#[test]
fn keys_are_made_once_and_kept_from_others() {
    let directory = directory();
    let at = directory.path();
    let made = skep(at, &["key", "new", "acme", "-o", "json"]).exits(0).json();
    assert_eq!(made["words"].as_str().unwrap().split(' ').count(), 12);
    assert!(made["id"].as_str().unwrap().starts_with("key_") && made["key"].as_str().unwrap().starts_with("ed25519:"));
    let mode = |name: &str| fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("acme.key"), 0o600);
    let (key, public) = (
        fs::read(at.join("acme.key")).unwrap(),
        fs::read(at.join("acme.pub")).unwrap(),
    );
    assert!(key.starts_with(b"-----BEGIN PRIVATE KEY-----\n") && public.starts_with(b"-----BEGIN PUBLIC KEY-----\n"));

    skep(at, &["key", "new", "acme"]).exits(4).says(&["acme.key", "next: "]);
    fs::remove_file(at.join("acme.key")).unwrap();
    skep(at, &["key", "new", "acme"]).exits(4).says(&["acme.pub"]);
    assert!(
        !at.join("acme.key").exists(),
        "a key without its public half is of no use"
    );
    assert_eq!(fs::read(at.join("acme.pub")).unwrap(), public);
    skep(at, &["key", "new", "Acme!"]).exits(2);
    skep(at, &["key", "new", "acme", "--dir", "nowhere"])
        .exits(3)
        .says(&["nowhere"]);
}

#[test]
fn what_is_signed_verifies_line_by_line() {
    let directory = workshop();
    let at = directory.path();
    let made = sign(
        at,
        &["--key", "acme.key", "--contact", "acme@example.com", "--expires", "30d"],
    )
    .exits(0)
    .json();
    let release = &made["release"];
    assert_eq!(
        json!([
            release["plugin"],
            release["version"],
            release["releaseSeq"],
            release["license"],
            release["contact"]
        ]),
        json!(["test/worker", "1.0.0", 1, "MIT", "acme@example.com"])
    );
    assert_eq!(
        release["expires"].as_u64().unwrap() - release["notBefore"].as_u64().unwrap(),
        30 * 86_400_000
    );
    assert!(release.get("previous").is_none());
    let explained = skep(at, &["verify", "worker.wasm", "--key", "acme.pub", "--explain"]).exits(0);
    let lines: Vec<_> = explained
        .stdout
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let checks = [
        "length",
        "envelope",
        "signature",
        "statement",
        "digest",
        "trust",
        "time",
        "component",
        "interfaces",
    ];
    assert_eq!(lines, checks.map(|check| format!("passed {check}")));
    assert_eq!(
        skep(at, &["verify", "worker.wasm", "--key", "acme.pub"])
            .exits(0)
            .stdout,
        "signed\n"
    );
    skep(at, &["inspect", "worker.wasm", "--key", "acme.pub"])
        .exits(0)
        .says(&["signature   signed"]);
    skep(at, &["inspect", "worker.wasm"])
        .exits(0)
        .says(&["signature   untrusted"]);
    let untrusted = skep(at, &["verify", "worker.wasm", "--explain"]).exits(6);
    let id = made["keys"][0].as_str().unwrap();
    untrusted.says(&[id, "code: signer-untrusted", "--key FILE.pub", "skipped  interfaces"]);
}

#[test]
fn each_check_fails_with_its_own_code() {
    let directory = workshop();
    let at = directory.path();
    let key = ["--key", "acme.pub"];
    assert_eq!(verdict(at, &key), found("unsigned", "envelope", "signature-missing"));
    skep(at, &["inspect", "worker.wasm"])
        .exits(0)
        .says(&["signature   unsigned"]);
    skep(at, &["verify", "worker.wasm", "--sig", "nowhere.sig"])
        .exits(3)
        .says(&["nowhere.sig"]);

    sign(at, &["--key", "acme.key"]).exits(0);
    assert_eq!(
        verdict(at, &["--key", "other.pub"]),
        found("untrusted", "signature", "signer-untrusted")
    );
    let (file, envelope) = (
        fs::read(at.join("worker.wasm")).unwrap(),
        fs::read_to_string(at.join("worker.wasm.sig")).unwrap(),
    );
    let mut changed = file.clone();
    changed[100] ^= 1;
    write(at, "worker.wasm", &changed);
    assert_eq!(verdict(at, &key), found("modified", "digest", "modified"));
    write(at, "worker.wasm", &file[..50]);
    assert_eq!(verdict(at, &key), found("modified", "digest", "modified"));
    write(at, "worker.wasm", vec![0; (16 << 20) + 1]);
    assert_eq!(verdict(at, &key), found("invalid", "length", "compile-limit"));
    write(at, "worker.wasm", &file);

    let spoiled = [
        envelope.replace("\"payload\":\"e", "\"payload\":\"f"),
        "{}".to_owned(),
        "x".repeat(1 << 20),
    ];
    for (text, check) in spoiled.iter().zip(["signature", "envelope", "envelope"]) {
        write(at, "worker.wasm.sig", text);
        assert_eq!(verdict(at, &key), found("invalid", check, "signature-invalid"));
    }
    sign(at, &["--key", "acme.key", "--not-before", "2d"]).exits(0);
    assert_eq!(verdict(at, &key), found("invalid", "time", "not-yet-valid"));
    sign(at, &["--key", "acme.key", "--expires", "1ms"]).exits(0);
    assert_eq!(verdict(at, &key), found("invalid", "time", "expired"));

    // What our own command would refuse to sign.
    let key_file = SecretKey::from_pem(&fs::read_to_string(at.join("acme.key")).unwrap()).unwrap();
    let good: Value = sign(at, &["--key", "acme.key"]).exits(0).json()["release"].clone();
    let forge = |statement: &Value| {
        let payload = serde_json::to_vec(statement).unwrap();
        write(
            at,
            "worker.wasm.sig",
            signature::sign(PAYLOAD_TYPE, &payload, &[&key_file]),
        );
    };
    for (field, value, check, code) in [
        ("more", json!(1), "statement", "invalid-release"),
        ("releaseSeq", json!(0), "statement", "invalid-release"),
        ("hostApi", json!("9.0.0"), "time", "unsupported-host"),
        ("version", json!("2.0.0"), "interfaces", "invalid-release"),
        ("plugin", json!("acme/worker"), "interfaces", "invalid-release"),
        (
            "imports",
            json!(["wasi:io/poll@0.2.6"]),
            "interfaces",
            "invalid-release",
        ),
        ("exports", json!([]), "interfaces", "invalid-release"),
    ] {
        let mut statement = good.clone();
        statement[field] = value;
        forge(&statement);
        assert_eq!(verdict(at, &key), found("invalid", check, code), "{field}");
    }
    let text = b"(component)";
    write(at, "worker.wasm", text);
    let mut statement = good.clone();
    statement["component"] = json!({"sha256": Digest::of(text), "size": text.len()});
    forge(&statement);
    assert_eq!(verdict(at, &key), found("invalid", "component", "not-a-component"));

    let bare = write(at, "bare.wasm", wat::parse_str("(component)").unwrap());
    skep(at, &["sign", &bare, "--key", "acme.key"]).exits(6).says(&[
        "skep:manifest",
        "skep build",
        "code: invalid-manifest",
    ]);
    assert!(!at.join("bare.wasm.sig").exists());
}

#[test]
fn release_numbers_are_given_once_and_chained() {
    let directory = workshop();
    let at = directory.path();
    let first = sign(at, &["--key", "acme.key"]).exits(0).json();
    let second = sign(at, &["--key", "acme.key"]).exits(0).json();
    assert_eq!(second["release"]["releaseSeq"], 2);
    assert_eq!(second["release"]["previous"], first["statement"]);
    let envelope = fs::read(at.join("worker.wasm.sig")).unwrap();
    for seq in ["1", "2", "0"] {
        sign(at, &["--key", "acme.key", "--seq", seq])
            .exits(6)
            .says(&["next: "]);
    }
    assert_eq!(
        fs::read(at.join("worker.wasm.sig")).unwrap(),
        envelope,
        "a refused signature leaves everything as it was"
    );
    assert_eq!(
        sign(at, &["--key", "acme.key", "--seq", "9"]).exits(0).json()["release"]["releaseSeq"],
        9
    );
    // Two keys, of which one has never signed it: the number is above what either knows.
    let both = sign(at, &["--key", "other.key", "--key", "acme.key"]).exits(0).json();
    assert_eq!(
        (&both["release"]["releaseSeq"], both["keys"].as_array().unwrap().len()),
        (&json!(10), 2)
    );
    let ledger: Value = serde_json::from_slice(&fs::read(at.join("other.releases.json")).unwrap()).unwrap();
    assert_eq!(
        ledger,
        json!({"test/worker": {"releaseSeq": 10, "statement": both["statement"]}})
    );
    write(at, "acme.releases.json", "{");
    sign(at, &["--key", "acme.key"])
        .exits(6)
        .says(&["acme.releases.json", "--seq"]);
}

#[test]
fn a_second_key_adds_its_signature_to_the_same_statement() {
    let directory = workshop();
    let at = directory.path();
    skep(at, &["sign", "worker.wasm", "--key", "other.key", "--add"])
        .exits(3)
        .says(&["worker.wasm.sig"]);
    let first = sign(at, &["--key", "acme.key"]).exits(0).json();
    let both = sign(at, &["--key", "other.key", "--add"]).exits(0).json();
    assert_eq!(
        (&both["statement"], both["keys"].as_array().unwrap().len()),
        (&first["statement"], 2)
    );
    for key in ["acme.pub", "other.pub"] {
        skep(at, &["verify", "worker.wasm", "--key", key]).exits(0);
    }
    assert_eq!(
        sign(at, &["--key", "acme.key", "--add"]).exits(0).json()["keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    sign(at, &["--key", "other.key", "--add", "--seq", "7"]).exits(2);
    let mut changed = fs::read(at.join("worker.wasm")).unwrap();
    write(
        at,
        "worker.wasm",
        plugin("worker", &corpus::idle(), "license = \"MIT OR X\"\n"),
    );
    sign(at, &["--key", "other.key", "--add"])
        .exits(6)
        .says(&["code: modified"]);
    changed.truncate(99);
    write(at, "worker.wasm", changed);
    sign(at, &["--key", "other.key", "--add"])
        .exits(6)
        .says(&["code: not-a-component"]);
}

#[test]
fn bad_keys_and_bad_statements_are_refused_with_the_next_step() {
    let directory = workshop();
    let at = directory.path();
    sign(at, &["--key", "nowhere.key"]).exits(3).says(&["nowhere.key"]);
    sign(at, &[]).exits(2);
    sign(at, &["--key", "acme.pub"]).exits(6).says(&["chmod 600"]);
    fs::set_permissions(at.join("acme.pub"), fs::Permissions::from_mode(0o600)).unwrap();
    sign(at, &["--key", "acme.pub"])
        .exits(6)
        .says(&["public key", "acme.pub"]);
    fs::set_permissions(at.join("acme.key"), fs::Permissions::from_mode(0o640)).unwrap();
    sign(at, &["--key", "acme.key"])
        .exits(6)
        .says(&["mode 0640", "chmod 600"]);
    write(at, "text.key", "nonsense");
    fs::set_permissions(at.join("text.key"), fs::Permissions::from_mode(0o600)).unwrap();
    sign(at, &["--key", "text.key"])
        .exits(6)
        .says(&["not a private key", "skep key new"]);
    // The neutral element in SPKI: the prefix of RFC 8410, then 1.
    let weak = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    for (name, text, says) in [
        ("weak.pub", weak, "weak"),
        (
            "secret.pub",
            &fs::read_to_string(at.join("other.key")).unwrap(),
            "private key",
        ),
        ("long.pub", &"x".repeat(1 << 20), "too long"),
    ] {
        write(at, name, text);
        skep(at, &["verify", "worker.wasm", "--key", name])
            .exits(6)
            .says(&[says, name, "code: invalid-input"]);
    }
    let other = ["--key", "other.key"];
    sign(at, &[&other[..], &["--expires", "401d"]].concat())
        .exits(6)
        .says(&["400d"]);
    sign(at, &[&other[..], &["--expires", "0s"]].concat()).exits(6);
    sign(at, &[&other[..], &["--provenance", "abc"]].concat())
        .exits(2)
        .says(&["SHA-256"]);
    sign(at, &[&other[..], &["--contact", &"x".repeat(60_000)]].concat())
        .exits(6)
        .says(&["--contact"]);
    skep(at, &["sign", "nowhere.wasm", "--key", "other.key"])
        .exits(3)
        .says(&["nowhere.wasm"]);
    assert!(!at.join("worker.wasm.sig").exists() && !at.join("other.releases.json").exists());
}

#[test]
fn documents_of_trust_are_signed_as_they_are() {
    let directory = workshop();
    let at = directory.path();
    let digest = "0".repeat(64);
    let clock =
        format!("{{\n  \"format\": 1, \"version\": 3, \"issued\": 1, \"expires\": 2,\n  \"index\": \"{digest}\"\n}}\n");
    write(at, "clock.json", &clock);
    let run = |more: &[&str]| {
        skep(
            at,
            &[&["sign", "--document", "clock", "clock.json", "-o", "json"], more].concat(),
        )
    };
    run(&["--key", "acme.key"]).exits(0);
    let envelope = || -> Value { serde_json::from_slice(&fs::read(at.join("clock.json.sig")).unwrap()).unwrap() };
    assert_eq!(envelope()["payloadType"], "application/vnd.skep.clock+json");
    run(&["--key", "other.key", "--add"]).exits(0);
    assert_eq!(envelope()["signatures"].as_array().unwrap().len(), 2);
    // The bytes are signed as they are, not as we would have written them.
    let bytes = fs::read(at.join("clock.json.sig")).unwrap();
    assert_eq!(
        Envelope::parse(&bytes, bytes.len()).unwrap().payload(),
        clock.as_bytes()
    );

    for (kind, text, says) in [
        ("index", clock.clone(), "unknown field `index`"),
        (
            "clock",
            clock.replace("\"version\": 3", "\"version\": 0"),
            "`version` begins at 1",
        ),
        (
            "clock",
            clock.replace("\"version\": 3", "\"version\": 3, \"version\": 3"),
            "duplicate field",
        ),
        ("root", "{}".into(), "missing field"),
        ("rotation", "no".into(), "the rotation"),
    ] {
        write(at, "bad.json", text);
        skep(at, &["sign", "--document", kind, "bad.json", "--key", "acme.key"])
            .exits(6)
            .says(&[says, "code: invalid-metadata"]);
        assert!(!at.join("bad.json.sig").exists());
    }
    write(at, "clock.json", clock.replace("\"version\": 3", "\"version\": 4"));
    run(&["--key", "acme.key", "--add"])
        .exits(6)
        .says(&["another document", "code: modified"]);
    run(&["--key", "acme.key", "--seq", "1"]).exits(2);
}
