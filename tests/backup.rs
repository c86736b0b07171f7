//! A backup that a running host makes, restored elsewhere: everything that was accepted before it is there. Backups that are not
//! whole, and directories that are not empty, are refused.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use skep_built_guests::{LIMITS, TALK};

use crate::harness::{Host, Run, directory, skep, until};

/// Tasks that have ended before the backup; `SKEP_BACKUP_TASKS=100000` measures the drill with more.
const ENDED: usize = 10;

/// How long something takes, printed.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the drill is measured in real time, and says so"
)]
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    let done = work();
    println!("{what}: {:?}", begun.elapsed());
    done
}

#[expect(
    clippy::disallowed_methods,
    reason = "the number of tasks is an argument of the test run"
)]
fn ended() -> usize {
    std::env::var("SKEP_BACKUP_TASKS").map_or(ENDED, |tasks| tasks.parse().unwrap())
}

/// Submits some tasks that take so long each, and gives their ids.
fn submit(host: &Host, count: usize, ms: u64) -> Vec<String> {
    let task = |n| json!({"description": format!("task {n}"), "crew": "limits", "input": {"do": "sleep", "ms": ms}});
    let tasks: Vec<_> = (0..count).map(task).collect();
    let accepted = host.call("POST", "/v1/tasks", &json!(tasks));
    assert!(matches!(accepted.status, 200..=202), "{}", accepted.json());
    let id = |task: &Value| task["taskId"].as_str().unwrap().to_owned();
    accepted.json().as_array().unwrap().iter().map(id).collect()
}

fn restore(file: &Path, data: &Path) -> Run {
    let arguments = [
        "restore",
        file.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
        "-o",
        "json",
    ];
    skep(Path::new("/"), &arguments)
}

#[test]
fn everything_accepted_before_a_backup_is_there_after_a_restore() {
    let host = Host::start();
    host.crew("limits", LIMITS, "", "replicas = 2\nlimits = { tier = \"small\" }\n");
    let wants = "[wants]\nartifacts = \"10MiB\"\n";
    host.crew("talk", TALK, wants, "grants = { artifacts = \"10MiB\" }\n");
    let task = json!({"description": "store", "crew": "talk", "input": {"do": "store", "text": "kept"}});
    let stored = host.run(&task)["result"].clone();
    let directory = directory();
    // Many for ever in the queue of two replicas, so that the backup is made in the middle of the work.
    let mut ended = Vec::new();
    while ended.len() < self::ended() {
        let tasks = submit(&host, 100.min(self::ended()), 0);
        until("some have ended", || {
            let last = host.get(&format!("/v1/tasks/{}", tasks.last().unwrap()));
            (last["state"] == "COMPLETED").then_some(())
        });
        ended.extend(tasks);
    }
    let waiting = submit(&host, 40, 50);
    let file = directory.path().join("host.backup");
    let backup = ["backup", file.to_str().unwrap(), "-o", "json"];
    let made = timed(&format!("backup of {} tasks", ended.len()), || host.skep(&backup))
        .exits(0)
        .json();
    let later = submit(&host, 1, 1);
    // Whoever has it has everything: that it was made is in it, too.
    let told = |host: &Host| {
        let backups = host.audited("backed-up");
        backups.iter().map(|entry| entry["actor"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(&host), ["admin"]);
    assert_eq!(made["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "and nothing beside it"
    );
    // A backup is never written over.
    host.skep(&["backup", file.to_str().unwrap()]).exits(4);

    let data = directory.path().join("new");
    let restored = timed("restore", || restore(&file, &data)).exits(0).json();
    for same in ["bytes", "position", "rows", "blobs", "auditRows", "auditChain"] {
        assert_eq!(restored[same], made[same], "{same}: {restored} {made}");
    }
    // The old one still runs; what it does from now on is not the new one's.
    let new = timed("start", || Host::start_in(&data, &[]));
    assert_ne!(
        new.token, host.token,
        "a backup does not hold the host that it was made of"
    );
    // Of many, some.
    for id in ended.iter().rev().take(100).chain(&waiting) {
        let task = until("every accepted task ends", || {
            let task = new.get(&format!("/v1/tasks/{id}"));
            (task["state"] == "COMPLETED").then_some(task)
        });
        if ended.contains(id) {
            let before = host.get(&format!("/v1/tasks/{id}"));
            assert_eq!(
                (&task["result"], &task["endedAt"]),
                (&before["result"], &before["endedAt"])
            );
        }
    }
    new.call("GET", &format!("/v1/tasks/{}", later[0]), &Value::Null)
        .refuses(404, "not-found");
    let artifact = format!("/v1/artifacts/{}?crew=talk", stored["digest"].as_str().unwrap());
    assert_eq!(new.call("GET", &artifact, &Value::Null).body, b"kept");
    new.skep(&["audit", "verify"]).exits(0);
    assert_eq!(told(&new), ["admin"]);
    // The trust came along: another release of the same publisher is taken.
    new.crew("again", LIMITS, "", "");
}

#[test]
fn without_a_host_the_directory_itself_is_backed_up() {
    let mut host = Host::start();
    host.crew("limits", LIMITS, "", "");
    submit(&host, 3, 1);
    fs::write(host.data().join("host.toml"), "slots = 77\n").unwrap();
    let data = host.data().to_owned();
    host.kill();
    let directory = directory();
    let file = directory.path().join("host.backup");
    let from = ["--data-dir", data.to_str().unwrap()];
    skep(&data, &[&["backup", file.to_str().unwrap()], &from[..]].concat()).exits(0);
    let new = directory.path().join("new");
    restore(&file, &new).exits(0);
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(new.join("host.toml")).unwrap(), "slots = 77\n");
    skep(&new, &["doctor", "--deep", "--data-dir", new.to_str().unwrap()])
        .exits(0)
        .says(&["every page is as it was written", "replay"]);
    // Nothing is there to back up, nothing is made.
    let none = directory.path().join("none");
    skep(&data, &["backup", "other.backup", "--data-dir", none.to_str().unwrap()]).exits(3);
    assert!(!data.join("other.backup").exists() && !none.exists());
}

#[test]
fn a_backup_that_is_not_whole_and_a_directory_that_is_not_empty_are_refused() {
    let mut host = Host::start();
    host.crew("limits", LIMITS, "", "");
    let data = host.data().to_owned();
    host.kill();
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    let file = path("host.backup");
    skep(
        &data,
        &["backup", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()],
    )
    .exits(0);
    let sound = fs::read(&file).unwrap();
    let (bad, new) = (path("bad.backup"), path("new"));
    for cut in [0, 5, 13, sound.len() / 2, sound.len() - 1] {
        fs::write(&bad, &sound[..cut]).unwrap();
        restore(&bad, &new)
            .exits(6)
            .says(&["bad.backup", "damaged backup: byte"]);
        assert!(!new.exists(), "nothing is left of a restore that failed");
    }
    for at in (0..sound.len()).step_by(sound.len() / 7) {
        let mut bytes = sound.clone();
        bytes[at] ^= 4;
        fs::write(&bad, &bytes).unwrap();
        restore(&bad, &new).exits(6).says(&["bad.backup", "backup"]);
        assert!(!new.exists());
    }
    fs::write(&bad, b"skep-backup 9\n").unwrap();
    restore(&bad, &new)
        .exits(6)
        .says(&["the backup has format 9, this release reads 1"]);
    restore(&path("not-there"), &new).exits(3);

    fs::create_dir(&new).unwrap();
    fs::write(new.join("thesis.tex"), "x").unwrap();
    restore(&file, &new).exits(4).says(&["thesis.tex", "--data-dir"]);
    restore(&file, &data).exits(4);
    assert_eq!(fs::read_dir(&new).unwrap().count(), 1);
    fs::remove_file(new.join("thesis.tex")).unwrap();
    restore(&file, &new).exits(0);
}
