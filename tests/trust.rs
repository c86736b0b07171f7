//! Trust, as publishers and operators meet it: a walk of both, each refusal of an upload with its code and nothing left behind, keys that
//! must agree, documents of trust, revocation that reaches what runs, dev mode.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use skep::{
    clock::Clock,
    host::{self, Options},
};
use skep_built_guests::{LIMITS, PLANS};
use skep_rules::{
    id::Digest,
    limits::{REVOCATION_DRAIN, REVOCATION_SWEEP},
    manifest::Manifest,
    metadata::{self, Ceiling, Document, Index, Keys, Newest, Publisher, Revocations, Root},
    quantity::{Millis, Time},
    release::{FORMAT, Release},
};
use skep_runtime::signature::{self, SecretKey};

use crate::harness::{Answer, Host, Run, directory, key, key_of, now, plugin, release, sign, skep, until, write};

const DAY: Millis = Millis(86_400_000);

/// Fields of an upload.
type Fields<'a> = &'a [(&'a str, &'a [u8])];

/// A version of `acme/worker`.
fn worker(version: &str, more: &str) -> Vec<u8> {
    let text = format!("[plugin]\nname = \"acme/worker\"\nversion = \"{version}\"\n{more}");
    skep_runtime::plugin::embed(LIMITS, &Manifest::parse(&text).unwrap()).unwrap()
}

/// A command on a data directory that no host holds.
fn offline(at: &Path, arguments: &[&str]) -> Run {
    skep(at, &[arguments, &["--data-dir", "data"]].concat())
}

#[test]
fn a_publisher_and_an_operator_walk_offline() {
    let (publisher, operator) = (directory(), directory());
    let (publisher, operator) = (publisher.path(), operator.path());
    for (version, more) in [
        ("1.0.0", ""),
        ("1.1.0", ""),
        ("1.2.0", "[wants]\nhttp = [{ host = \"api.example.com\" }]\n"),
    ] {
        write(publisher, &format!("worker-{version}.wasm"), worker(version, more));
    }
    // The publisher: a key, and a signature over each release.
    skep(publisher, &["key", "new", "acme"]).exits(0);
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        let file = format!("worker-{version}.wasm");
        skep(publisher, &["sign", &file, "--key", "acme.key"]).exits(0);
        skep(publisher, &["verify", &file, "--key", "acme.pub"]).exits(0);
    }
    // What the publisher gives away: the public key, files and envelopes.
    for entry in fs::read_dir(publisher).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name != "acme.key" {
            fs::copy(entry.path(), operator.join(name)).unwrap();
        }
    }

    // The operator, without a host: nothing is there, nothing is trusted, then the key is.
    offline(operator, &["plugin", "ls"]).exits(9);
    assert!(!operator.join("data").exists(), "looking makes nothing");
    offline(operator, &["plugin", "install", "worker-1.1.0.wasm"])
        .exits(6)
        .says(&["signer-untrusted", "trusts no key yet"]);
    offline(operator, &["key", "trust", "acme.pub", "--publisher", "acme"])
        .exits(0)
        .says(&["acme may sign acme/*", "tier medium"]);
    offline(operator, &["plugin", "install", "worker-1.1.0.wasm", "--yes"])
        .exits(8)
        .says(&[
            "first-contact",
            "skep plugin install worker-1.1.0.wasm --data-dir data --publisher acme",
        ]);
    offline(
        operator,
        &["plugin", "install", "worker-1.1.0.wasm", "--publisher", "acme"],
    )
    .exits(0)
    .says(&["signed by key_", "release 2", "installed acme/worker@1.1.0"]);

    // One byte flipped.
    let mut flipped = fs::read(operator.join("worker-1.2.0.wasm")).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    write(operator, "flipped.wasm", &flipped);
    offline(
        operator,
        &["plugin", "install", "flipped.wasm", "--sig", "worker-1.2.0.wasm.sig"],
    )
    .exits(6)
    .says(&["code: modified"]);
    // An older release.
    offline(operator, &["plugin", "install", "worker-1.0.0.wasm", "--yes"])
        .exits(6)
        .says(&["code: rollback"]);
    // An update that asks for one host more.
    let asked = offline(operator, &["plugin", "install", "worker-1.2.0.wasm", "--yes"])
        .exits(8)
        .says(&["code: approval-required", "+ ", "api.example.com"]);
    let command = asked
        .stderr
        .lines()
        .find_map(|line| line.split_once("skep plugin install "));
    let command = command.expect("the command that agrees is printed").1;
    let arguments: Vec<&str> = ["plugin", "install"].into_iter().chain(command.split(' ')).collect();
    // As it is: it names the data directory itself.
    skep(operator, &arguments)
        .exits(0)
        .says(&["installed acme/worker@1.2.0"]);
    offline(operator, &["plugin", "ls"])
        .exits(0)
        .says(&["acme/worker@1.2.0", "signed"]);
    offline(operator, &["plugin", "diff", "acme/worker@1.2.0"])
        .exits(0)
        .says(&["+ ", "api.example.com"]);

    // Revoked while it runs.
    let data = operator.join("data");
    let host = Host::start_in(&data, &[]);
    let (task, agent) = spinning(&host, "acme/worker@1.2.0");
    let attempts = || host.get("/v1/host")["capacity"]["attempts"].as_u64();
    assert_eq!(attempts(), Some(1), "it computes");
    let began = now();
    let revoked = host
        .skep(&["plugin", "revoke", "acme/worker@1.2.0", "--reason", "stolen", "--yes"])
        .exits(0);
    revoked.says(&["1 agents are in quarantine"]);
    until("the last instance is gone", || (attempts() == Some(0)).then_some(()));
    assert!(now().since(began) < Millis(1_000), "the last instance took too long");
    let paused = host.get(&task);
    assert_eq!(
        (&paused["state"], &paused["failure"]["code"]),
        (&json!("PAUSED"), &json!("revoked")),
        "{paused}"
    );
    let quarantined = host.get(&agent);
    assert_eq!(quarantined["phase"], "QUARANTINED", "{quarantined}");
    host.skep(&["agent", "ls"])
        .exits(0)
        .says(&["QUARANTINED (revoked)", "REVOKED"]);
    host.skep(&["plugin", "ls"]).exits(0).says(&["REVOKED"]);
    host.skep(&[
        "plugin",
        "install",
        operator.join("worker-1.2.0.wasm").to_str().unwrap(),
        "--yes",
    ])
    .exits(6)
    .says(&["code: revoked"]);
    drop(host);

    // Restarted with its clock set back ten years: what was revoked stays so, and the host says what it sees.
    let back = Time(now().0 - 3_650 * DAY.0);
    in_process(&data, Clock::manual(back), |host, _| {
        let trust = host.get("/v1/keys");
        assert!(trust["time"].as_u64() > trust["clockTime"].as_u64(), "{trust}");
        assert_eq!(trust["revoked"]["digests"].as_array().map(Vec::len), Some(1), "{trust}");
        host.skep(&["key", "ls"]).exits(0).says(&["! the clock stands before"]);
        // Only a person takes that clock for right.
        host.skep(&["key", "reset-time", "--reason", "it was right"]).exits(0);
        let trust = host.get("/v1/keys");
        assert_eq!(trust["time"], trust["clockTime"], "{trust}");
    });
    offline(operator, &["key", "ls"]).exits(0).says(&["acme may sign"]);
    offline(operator, &["audit", "verify"]).exits(0);
    let log = offline(operator, &["audit", "tail", "-o", "json"]).exits(0).stdout;
    for entry in [
        "plugin-installed",
        "refused",
        "modified",
        "rollback",
        "revoked",
        "clock-back",
    ] {
        assert!(log.contains(entry), "`{entry}` is not in the audit log: {log}");
    }
}

#[test]
fn what_has_expired_stays_so_when_the_clock_is_set_back() {
    let directory = directory();
    let data = directory.path().join("data");
    let start = now();
    let upload = |host: &Host, publisher: &str, file: &[u8], life: Millis| {
        let mut release = release(file);
        release.expires = start.after(life);
        let envelope = sign(&release, &[&key_of(publisher)]);
        let publisher = publisher.as_bytes();
        host.upload(
            "",
            &[("component", file), ("signature", &envelope), ("publisher", publisher)],
        )
    };
    let (short, long) = (DAY, Millis(9 * DAY.0));
    let (first, second, other) = (worker("1.0.0", ""), worker("1.0.1", ""), plugin("other", LIMITS, ""));
    let refused = |host: &Host| {
        let late = upload(host, "acme", &second, short).refuses(422, "expired");
        assert!(late["detail"].to_string().contains("release"), "{late}");
        let late = upload(host, "test", &other, long).refuses(422, "expired");
        assert!(late["detail"].to_string().contains("trust in the keys"), "{late}");
    };
    in_process(&data, Clock::manual(start), |host, clock| {
        for (publisher, life) in [("acme", long), ("test", short)] {
            let keys = json!({"keys": [key_of(publisher).public().to_string()], "threshold": 1});
            let trust = json!({"name": publisher, "release": keys, "expires": start.after(life)});
            let answer = host.call("POST", "/v1/keys", &trust);
            assert_eq!(answer.status, 200, "{}", answer.json());
        }
        assert_eq!(upload(host, "acme", &first, short).status, 201);
        clock.advance(Millis(2 * DAY.0));
        refused(host);
    });
    in_process(&data, Clock::manual(start), |host, _| {
        refused(host);
        host.skep(&["key", "reset-time", "--reason", "it was right"]).exits(0);
        assert_eq!(
            upload(host, "acme", &second, short).status,
            201,
            "only the time was wrong"
        );
        assert_eq!(
            upload(host, "test", &other, long).status,
            201,
            "only the time was wrong"
        );
    });
}

/// A task that spins in a crew of a plugin: where it and its agent are read.
fn spinning(host: &Host, plugin: &str) -> (String, String) {
    let crew = host.assemble(&format!(
        "name = \"spin\"\n[[agent]]\nname = \"spin\"\nplugin = \"{plugin}\"\nlimits = {{ fuel = \"1T\", deadline = \"60s\" }}\n"
    ));
    let task = json!({"description": "spin", "crew": "spin", "input": {"do": "spin"}});
    let task = host.call("POST", "/v1/tasks", &task).json();
    let path = format!("/v1/tasks/{}", task["taskId"].as_str().unwrap());
    until("the task runs", || {
        (host.get(&path)["state"] == "RUNNING").then_some(())
    });
    let status = host.get(&format!("/v1/crews/{crew}/status"));
    let agent = status["members"][0]["agentId"].as_str().unwrap().to_owned();
    (path, format!("/v1/agents/{agent}"))
}

/// Does something with a host in this process whose clock is the test's.
fn in_process<T>(data: &Path, clock: Clock, work: impl FnOnce(&Host, &Clock) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = Options {
        clock: clock.clone(),
        compiler: skep_runtime::Compiler::Child {
            program: env!("CARGO_BIN_EXE_skep").into(),
        },
        ..Options::new(data)
    };
    let host = runtime.block_on(Box::pin(host::Host::start(options))).unwrap();
    let done = work(&Host::here(&host, data), &clock);
    runtime.block_on(Box::pin(host.stop())).unwrap();
    done
}

/// The files that an upload may leave in a data directory.
fn left_behind(data: &Path) -> Vec<String> {
    let names = |folder: &str| {
        let entries = fs::read_dir(data.join(folder)).into_iter().flatten();
        entries.map(move |entry| entry.unwrap().file_name().into_string().unwrap())
    };
    let blobs = names("store/blobs").filter(|name| name != "tmp");
    blobs.chain(names("cache")).chain(names("installing")).collect()
}

#[test]
fn each_refusal_of_an_upload_has_its_code_and_leaves_nothing_behind() {
    let host = Host::start();
    let good = plugin("plans", PLANS, "");
    let stranger = SecretKey::from_random(&[9; 32]);
    let signed = |change: &dyn Fn(&mut Release)| {
        let mut release = release(&good);
        change(&mut release);
        sign(&release, &[&key()])
    };
    host.upload("", &[("component", &good), ("signature", &signed(&|_| {}))])
        .refuses(422, "signer-untrusted");
    host.trust("test");

    let envelope = signed(&|_| {});
    let flipped: Vec<u8> = good.iter().map(|byte| byte ^ u8::from(*byte == b'k')).collect();
    let forged = sign(&release(&good), &[&stranger]);
    let expired = signed(&|release| {
        release.not_before = Time(0);
        release.expires = Time(1);
    });
    let early = signed(&|release| release.not_before = now().after(Millis(3_600_000)));
    let later = signed(&|release| release.host_api = "9.0.0".parse().unwrap());
    let other = signed(&|release| release.plugin = "test/other".parse().unwrap());
    let more = signed(&|release| release.imports.extend(["wasi:nothing/there@0.2.6".to_owned()]));
    let typed: &[u8] = b"test";
    let cases: &[(&str, Fields<'_>, u16, &str)] = &[
        ("no fields", &[], 400, "invalid-input"),
        ("no component", &[("signature", &envelope)], 400, "invalid-input"),
        (
            "an unknown field",
            &[("component", &good), ("colour", b"red")],
            400,
            "invalid-input",
        ),
        (
            "a field twice",
            &[("component", &good), ("component", &good)],
            400,
            "invalid-input",
        ),
        (
            "a bad approval",
            &[("component", &good), ("approve", b"a..b")],
            400,
            "invalid-input",
        ),
        ("no signature", &[("component", &good)], 422, "signature-missing"),
        (
            "an endless envelope",
            &[("component", &good), ("signature", &[b' '; 65_537])],
            413,
            "body-limit",
        ),
        (
            "an endless component",
            &[("component", &vec![0; (16 << 20) + 1]), ("signature", &envelope)],
            413,
            "body-limit",
        ),
        (
            "no envelope",
            &[("component", &good), ("signature", b"{}")],
            422,
            "signature-invalid",
        ),
        (
            "another's key",
            &[("component", &good), ("signature", &forged)],
            422,
            "signer-untrusted",
        ),
        (
            "a flipped byte",
            &[("component", &flipped), ("signature", &envelope)],
            422,
            "modified",
        ),
        (
            "expired",
            &[("component", &good), ("signature", &expired)],
            422,
            "expired",
        ),
        (
            "too early",
            &[("component", &good), ("signature", &early)],
            422,
            "not-yet-valid",
        ),
        (
            "a newer host",
            &[("component", &good), ("signature", &later)],
            422,
            "unsupported-host",
        ),
        (
            "another name",
            &[("component", &good), ("signature", &other)],
            422,
            "invalid-release",
        ),
        (
            "another import",
            &[("component", &good), ("signature", &more)],
            422,
            "invalid-release",
        ),
        (
            "nobody typed",
            &[("component", &good), ("signature", &envelope)],
            422,
            "first-contact",
        ),
        (
            "typed wrong",
            &[("component", &good), ("signature", &envelope), ("publisher", b"tset")],
            422,
            "first-contact",
        ),
        (
            "an endless reason",
            &[
                ("component", &good),
                ("signature", &envelope),
                ("publisher", typed),
                ("downgrade", &[b'x'; 300]),
            ],
            413,
            "body-limit",
        ),
    ];
    for (name, fields, status, code) in cases {
        let answer = host.upload("", fields);
        let problem = answer.json();
        assert_eq!(
            (answer.status, problem["code"].as_str()),
            (*status, Some(*code)),
            "{name}: {problem}"
        );
        assert_eq!(host.get("/v1/plugins")["items"], json!([]), "{name}");
        assert_eq!(left_behind(host.data()), Vec::<String>::new(), "{name}");
    }
    let log = host.get("/v1/audit?limit=100").to_string();
    for code in [
        "signer-untrusted",
        "signature-invalid",
        "modified",
        "expired",
        "unsupported-host",
        "invalid-release",
    ] {
        assert!(log.contains(code), "{code} is not on record: {log}");
    }
    assert!(!log.contains("first-contact"), "a question is no refusal: {log}");

    // What is asked before: everything is known, nothing is done.
    let checked = host
        .upload("?check=true", &[("component", &good), ("signature", &envelope)])
        .json();
    assert_eq!(
        (&checked["firstContact"], &checked["installed"]),
        (&json!(true), &json!(false)),
        "{checked}"
    );
    assert_eq!(left_behind(host.data()), Vec::<String>::new());
    let fields: Fields<'_> = &[("component", &good), ("signature", &envelope), ("publisher", typed)];
    assert_eq!(host.upload("", fields).status, 201);
    assert_eq!(host.upload("", fields).status, 200, "the same again changes nothing");
    assert_eq!(left_behind(host.data()).len(), 2, "the file and its code");

    // Removed without a trace, but its number stays known.
    let digest = Digest::of(&good);
    let removed = host.call("DELETE", &format!("/v1/plugins/sha256:{digest}"), &Value::Null);
    assert_eq!(removed.status, 200, "{}", removed.json());
    assert_eq!(left_behind(host.data()), Vec::<String>::new());
    let before = plugin("plans", PLANS, "license = \"MIT\"\n");
    let mut older = release(&before);
    older.release_seq = 1;
    let older = sign(&older, &[&key()]);
    host.upload("", &[("component", &before), ("signature", &older)])
        .refuses(422, "rollback");
}

#[test]
fn a_ceiling_and_a_threshold_are_kept() {
    let host = Host::start();
    let second = SecretKey::from_random(&[8; 32]);
    let trust = |threshold: u32, tier: &str| {
        let keys = [key().public().to_string(), second.public().to_string()];
        let body =
            json!({"name": "test", "release": {"keys": keys, "threshold": threshold}, "ceiling": {"tier": tier}});
        assert_eq!(host.call("POST", "/v1/keys", &body).status, 200);
    };
    let upload = |file: &[u8], keys: &[&SecretKey]| -> Answer {
        let envelope = sign(&release(file), keys);
        host.upload(
            "",
            &[("component", file), ("signature", &envelope), ("publisher", b"test")],
        )
    };
    // The neutral element of the curve: anyone can make signatures that hold under it.
    let weak = format!("ed25519:01{}", "0".repeat(62));
    let body = json!({"name": "test", "release": {"keys": [weak], "threshold": 1}});
    host.call("POST", "/v1/keys", &body).refuses(400, "invalid-input");
    trust(1, "small");
    let large = plugin("large", PLANS, "[limits]\ntier = \"large\"\n");
    upload(&large, &[&key()]).refuses(422, "ceiling-exceeded");
    trust(2, "large");
    upload(&large, &[&key()]).refuses(422, "threshold-unmet");
    assert_eq!(upload(&large, &[&key(), &second]).status, 201);
    // One of the two keys is revoked: too few are left.
    let id = second.public().id().to_string();
    host.skep(&["key", "revoke", &id[..16], "--reason", "lost", "--yes"])
        .exits(0);
    let installed = host.get("/v1/plugins")["items"][0].clone();
    assert_eq!(installed["signature"]["state"], "revoked", "{installed}");
    let crew = json!({"name": "late", "agent": [{"name": "late", "plugin": "test/large@1.0.0"}]});
    host.call("POST", "/v1/crews/assemble", &crew).refuses(422, "revoked");
}

/// An envelope of a document, signed by the tests' key.
fn document<D: Document>(document: &D) -> Vec<u8> {
    signature::sign(D::PAYLOAD_TYPE, &document.to_json(), &[&key()])
}

#[test]
fn a_root_says_who_is_trusted_and_its_index_reaches_what_runs() {
    let directory = directory();
    let data = directory.path().join("data");
    let keys = Keys {
        keys: [key().public()].into(),
        threshold: 1,
    };
    in_process(&data, Clock::manual(now()), |host, clock| {
        let root = Root {
            format: FORMAT,
            version: 1,
            issued: clock.now(),
            expires: clock.now().after(DAY),
            root: keys.clone(),
            index: Some(keys.clone()),
            clock: None,
            publishers: vec![Publisher {
                name: "acme".parse().unwrap(),
                release: keys.clone(),
                recovery: None,
                plugins: None,
                ceiling: Ceiling::default(),
                expires: clock.now().after(DAY),
            }],
        };
        let file = write(directory.path(), "root.json.sig", document(&root));
        host.skep(&["key", "trust", "--root", &file])
            .exits(0)
            .says(&["acme may sign"]);
        host.skep(&["key", "trust", "--root", &file])
            .exits(6)
            .says(&["code: rollback"]);
        // From here on the token no longer says who is trusted.
        let new = json!({"name": "other", "release": {"keys": [key().public().to_string()], "threshold": 1}});
        host.call("POST", "/v1/keys", &new).refuses(422, "signer-untrusted");

        let file = worker("1.0.0", "");
        let envelope = sign(&release(&file), &[&key()]);
        let fields: Fields<'_> = &[("component", &file), ("signature", &envelope), ("publisher", b"acme")];
        assert_eq!(host.upload("", fields).status, 201);
        let (task, agent) = spinning(host, "acme/worker@1.0.0");

        let newest = Newest {
            release_seq: 1_000_000,
            digest: Digest::of(b"a later one"),
        };
        let index = Index {
            format: FORMAT,
            version: 1,
            issued: clock.now(),
            expires: clock.now().after(DAY),
            plugins: [("acme/worker".parse().unwrap(), newest)].into(),
            revoked: Revocations {
                version: 1,
                digests: [Digest::of(&file)].into(),
                ..Revocations::default()
            },
        };
        let file = write(directory.path(), "index.json.sig", document(&index));
        host.skep(&["key", "trust", "--index", &file])
            .exits(0)
            .says(&["1 files"]);
        // The sweep drains what works, and ends it when its time is over. The clock goes on in steps, so that no lease runs out meanwhile.
        let step = Millis(1_000);
        let end = clock
            .now()
            .after(Millis(REVOCATION_SWEEP.0 + REVOCATION_DRAIN.0 + 5_000));
        while clock.now() < end {
            clock.advance(step);
            std::thread::sleep(Duration::from_millis(60));
        }
        until("the agent is in quarantine", || {
            (host.get(&agent)["phase"] == "QUARANTINED").then_some(())
        });
        let paused = host.get(&task);
        assert_eq!(
            (&paused["state"], &paused["failure"]["code"]),
            (&json!("PAUSED"), &json!("revoked")),
            "{paused}"
        );
        // Resumed by a person, it has nobody to go to and waits again; one that was cancelled waits for nobody.
        let id = paused["taskId"].as_str().unwrap();
        host.skep(&["task", "resume", id]).exits(0).says(&["paused"]);
        let log = host.get("/v1/audit?limit=100").to_string();
        assert!(log.contains("task-resumed"), "{log}");
        assert_eq!(host.call("PUT", &task, &json!({"action": "cancel"})).status, 200);
        host.skep(&["task", "resume", id]).exits(4);
    });
}

#[test]
fn a_publisher_changes_its_keys_with_its_recovery_key() {
    let host = Host::start();
    let (recovery, fresh) = (SecretKey::from_random(&[5; 32]), SecretKey::from_random(&[6; 32]));
    let text = |key: &SecretKey| key.public().to_string();
    let body =
        json!({"name": "test", "release": {"keys": [text(&key())], "threshold": 1}, "recovery": text(&recovery)});
    assert_eq!(host.call("POST", "/v1/keys", &body).status, 200);
    let rotation = metadata::Rotation {
        format: FORMAT,
        publisher: "test".parse().unwrap(),
        version: 1,
        issued: now(),
        expires: now().after(DAY),
        release: Keys {
            keys: [fresh.public()].into(),
            threshold: 1,
        },
        recovery: recovery.public(),
    };
    let directory = directory();
    let signed = |name: &str, keys: &[&SecretKey]| {
        let envelope = signature::sign(metadata::Rotation::PAYLOAD_TYPE, &rotation.to_json(), keys);
        write(directory.path(), name, envelope)
    };
    host.skep(&["key", "rotate", &signed("stolen.sig", &[&key()])])
        .exits(6)
        .says(&["code: threshold-unmet"]);
    host.skep(&["key", "rotate", &signed("good.sig", &[&key(), &recovery])])
        .exits(0)
        .says(&[&fresh.public().id().to_string()]);
    let file = plugin("plans", PLANS, "");
    let upload = |keys: &[&SecretKey]| {
        let envelope = sign(&release(&file), keys);
        host.upload(
            "",
            &[("component", &file), ("signature", &envelope), ("publisher", b"test")],
        )
    };
    upload(&[&key()]).refuses(422, "signer-untrusted");
    assert_eq!(upload(&[&fresh]).status, 201);
}

#[test]
fn dev_mode_is_loud_and_what_nobody_signed_runs_nowhere_else() {
    let directory = directory();
    let data = directory.path().join("data");
    let host = Host::start_in(&data, &["--dev"]);
    assert_eq!(host.get("/v1/host")["dev"], true);
    let file = write(directory.path(), "loose.wasm", plugin("loose", PLANS, ""));
    host.skep(&["plugin", "install", &file, "--yes"])
        .exits(0)
        .says(&["UNSIGNED"]);
    host.skep(&["plugin", "ls"])
        .exits(0)
        .says(&["test/loose@1.0.0", "UNSIGNED"]);
    host.assemble("name = \"loose\"\n[[agent]]\nname = \"loose\"\nplugin = \"test/loose@1.0.0\"\n");
    host.skep(&["agent", "ls"]).exits(0).says(&["UNSIGNED"]);
    host.skep(&["crew", "status", "loose"]).exits(0).says(&["UNSIGNED"]);
    let log = fs::read_to_string(data.with_extension("log")).unwrap();
    assert!(log.contains("DEV MODE"), "{log}");
    drop(host);

    let host = Host::start_in(&data, &[]);
    assert_eq!(host.get("/v1/host")["dev"], false);
    let agent = until("the agent has failed", || {
        let status = host.get("/v1/crews/loose/status");
        Some(status["members"][0].clone()).filter(|agent| agent["phase"] == "FAILED")
    });
    assert_eq!(agent["failure"]["code"], "signature-missing", "{agent}");
    host.skep(&["agent", "ls"])
        .exits(0)
        .says(&["failed (signature-missing)", "UNSIGNED"]);
    host.skep(&["plugin", "install", &file, "--yes"]).exits(6);
    drop(host);
    skep(
        directory.path(),
        &["up", "--dev", "--listen", "0.0.0.0:0", "--data-dir", "data"],
    )
    .exits(6)
    .says(&["0.0.0.0:0 is not a loopback address", "code: invalid-input"]);
}

#[test]
fn what_a_crash_leaves_of_an_installation_is_gone_at_the_next_start() {
    let mut host = Host::start();
    host.install(&plugin("plans", PLANS, "")).json();
    host.kill();
    let data = host.data().to_owned();
    let kept = left_behind(&data);
    let orphan = Digest::of(b"orphan");
    fs::write(data.join(format!("store/blobs/{orphan}")), b"orphan").unwrap();
    fs::write(data.join(format!("installing/{orphan}")), b"").unwrap();
    fs::write(data.join(format!("cache/{orphan}-0123456789abcdef.code")), b"code").unwrap();
    // The mark of one that was installed after all, but not settled.
    fs::write(
        data.join(format!("installing/{}", Digest::of(&plugin("plans", PLANS, "")))),
        b"",
    )
    .unwrap();
    let host = host.restart();
    assert_eq!(left_behind(&data), kept);
    host.assemble("name = \"plans\"\n[[agent]]\nname = \"plans\"\nplugin = \"test/plans@1.0.0\"\n");
}
