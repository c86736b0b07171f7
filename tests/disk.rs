//! A disk that fails while the host writes: the host ends, with its exit code, and answers nobody whose work is not on the disk;
//! what it had accepted is there at the next start.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use skep_built_guests::LIMITS;

use crate::harness::{Host, binary, directory, until};

/// A host whose files take no more than so many bytes each: writes beyond fail, as on a full disk.
fn limited(data: &Path, bytes: u64) -> Host {
    let skep = binary();
    let mut command = Command::new("sh");
    for (name, _) in skep.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    command
        // The signal would end the process before a write can fail. The limit counts in 512 bytes.
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"",
            &(bytes / 512).to_string(),
        ])
        .arg(skep.get_program())
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data);
    Host::start_by(command, data)
}

#[test]
fn a_disk_that_takes_no_more_ends_the_host_and_what_was_accepted_is_there() {
    let directory = directory();
    let data = directory.path().join("data");
    let task =
        |ms: u64| json!({"description": "d".repeat(4_000), "crew": "limits", "input": {"do": "sleep", "ms": ms}});
    let mut host = Host::start_in(&data, &[]);
    host.crew("limits", LIMITS, "", "replicas = 2\nlimits = { tier = \"small\" }\n");
    // Its code is in the cache from here on.
    host.run(&task(1));
    host.stop();

    let size = fs::metadata(data.join("store/store.redb")).unwrap().len();
    let mut host = limited(&data, size + (1 << 20));
    let bearer = format!("Bearer {}", host.token);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let mut accepted = Vec::new();
    let refused = (0..500).find_map(|_| {
        let body = json!(vec![task(50); 20]).to_string();
        let answer = host.try_send("POST", "/v1/tasks", &headers, body.as_bytes());
        let taken = answer.as_ref().filter(|answer| matches!(answer.status, 200..=202));
        let Some(taken) = taken else {
            return Some(answer);
        };
        let id = |task: &Value| task["taskId"].as_str().unwrap().to_owned();
        accepted.extend(taken.json().as_array().unwrap().iter().map(id));
        None
    });
    let refused = refused.expect("what is submitted does not fit for ever");
    assert!(accepted.len() >= 20, "some were accepted before: {}", accepted.len());
    if let Some(refused) = refused {
        assert!(matches!(refused.status, 500..=599), "{refused:?}");
    }
    let (code, log) = host.ends();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("the host has failed") && log.contains("the host failed: "),
        "{log}"
    );

    let host = Host::start_in(&data, &[]);
    for id in &accepted {
        until("every accepted task ends", || {
            let task = host.get(&format!("/v1/tasks/{id}"));
            (task["state"] == "COMPLETED").then_some(())
        });
    }
    host.skep(&["audit", "verify"]).exits(0);
}
