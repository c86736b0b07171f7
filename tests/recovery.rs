//! `kill -9` in the middle of a crew's work: what was finished stays finished, what was not runs again, the audit chain verifies.

use serde_json::{Value, json};
use skep_built_guests::LIMITS;

use crate::harness::{Host, until};

fn states(host: &Host, ids: &[String]) -> Vec<Value> {
    ids.iter().map(|id| host.get(&format!("/v1/tasks/{id}"))).collect()
}

#[test]
fn finished_tasks_stay_finished_and_the_others_run_again() {
    let mut host = Host::start();
    host.crew("limits", LIMITS, "", "replicas = 2\nlimits = { tier = \"small\" }\n");
    let mut ids = Vec::new();
    for round in 0..3 {
        // Some end at once, some are being slept on when the host dies.
        let tasks: Vec<_> = (0..8)
            .map(|n| json!({"description": format!("task {n}"), "crew": "limits", "input": {"do": "sleep", "ms": if n < 4 { 1 } else { 400 }}}))
            .collect();
        let accepted = host.call("POST", "/v1/tasks", &json!(tasks));
        assert!(matches!(accepted.status, 200..=202), "{}", accepted.json());
        ids.extend(
            accepted
                .json()
                .as_array()
                .unwrap()
                .iter()
                .map(|task| task["taskId"].as_str().unwrap().to_owned()),
        );
        let finished = until("some tasks have ended, others have not", || {
            let states = states(&host, &ids);
            let ended: Vec<_> = states.into_iter().filter(|task| task["state"] == "COMPLETED").collect();
            (ended.len() > 16 * round / 2 && ended.len() < ids.len()).then_some(ended)
        });
        host = host.restart();
        for before in finished {
            let after = host.get(&format!("/v1/tasks/{}", before["taskId"].as_str().unwrap()));
            assert_eq!(
                (&after["state"], &after["result"], &after["endedAt"]),
                (&before["state"], &before["result"], &before["endedAt"])
            );
        }
    }
    until("all tasks have ended", || {
        states(&host, &ids)
            .iter()
            .all(|task| task["state"] == "COMPLETED")
            .then_some(())
    });
    host.skep(&["audit", "verify"]).exits(0);
    // Offline as well: the chain lies in the data directory.
    let data = host.data().to_owned();
    host.kill();
    crate::harness::skep(&data, &["audit", "verify", "--data-dir", data.to_str().unwrap()]).exits(0);
}

#[test]
fn a_second_host_on_the_same_data_is_refused() {
    let host = Host::start();
    let data = host.data().to_str().unwrap();
    crate::harness::skep(host.data(), &["up", "--listen", "127.0.0.1:0", "--data-dir", data])
        .exits(1)
        .says(&["data-directory", "doctor"]);
}

#[test]
fn a_stopped_host_lets_go_of_everything() {
    let mut host = Host::start();
    host.stop();
    assert!(!host.data().join("host.json").exists());
    crate::harness::skep(
        host.data(),
        &["task", "ls", "--data-dir", host.data().to_str().unwrap()],
    )
    .exits(9);
}
