//! Tasks that come by schedule: made, listed, refused with their place, exactly one for each due time however often the host dies.

use serde_json::{Value, json};
use skep_built_guests::OUTPUT_WRITE;

use crate::harness::{Host, now, until};

fn create(host: &Host, schedule: &Value) -> (u16, Value) {
    let answer = host.call("POST", "/v1/schedules", schedule);
    (answer.status, answer.json())
}

/// The tasks that a schedule has submitted, by when they were due.
fn fired(host: &Host, name: &str) -> Vec<(u64, Value)> {
    let tasks = host.get("/v1/tasks")["items"].as_array().cloned().unwrap_or_default();
    let own = tasks.into_iter().filter(|task| task["labels"]["schedule"] == name);
    let mut due: Vec<(u64, Value)> = own
        .map(|task| (task["labels"]["due"].as_str().unwrap().parse().unwrap(), task))
        .collect();
    due.sort_by_key(|(due, _)| *due);
    due
}

#[test]
fn a_schedule_comes_exactly_once_for_each_due_time_across_kills() {
    let mut host = Host::start();
    host.crew("output", OUTPUT_WRITE, "", "");
    let first = now().0 + 500;
    let (status, made) = create(
        &host,
        &json!({"name": "pulse", "every": "1s", "first": first, "missed": "all",
            "task": {"description": "beat", "input": {"stream": "stdout", "text": "beat\n"}}}),
    );
    assert_eq!((status, made["next"].as_u64()), (201, Some(first)), "{made}");
    for kills in 1..=3 {
        until("it comes", || (fired(&host, "pulse").len() >= 2 * kills).then_some(()));
        host = host.restart();
    }
    until("what was missed has come", || {
        (fired(&host, "pulse").len() >= 9).then_some(())
    });
    let deleted = host
        .skep(&["schedule", "delete", "pulse", "-o", "json"])
        .exits(0)
        .json();
    let fired = fired(&host, "pulse");
    let dues: Vec<u64> = fired.iter().map(|(due, _)| *due).collect();
    let expected: Vec<u64> = (0..).map(|n| first + n * 1_000).take(dues.len()).collect();
    assert_eq!(dues, expected, "each due time is one task, and none is left out");
    assert_eq!(deleted["fired"].as_u64(), Some(dues.len() as u64));
    assert!(
        fired
            .iter()
            .all(|(due, task)| task["createdAt"].as_u64().unwrap() >= *due),
        "none is early"
    );
    let answer = host.call("GET", "/v1/schedules/pulse", &Value::Null);
    answer.refuses(404, "not-found");
}

#[test]
fn schedules_are_made_listed_shown_and_refused_with_their_place() {
    let host = Host::start();
    host.crew("output", OUTPUT_WRITE, "", "");
    let bad = host
        .skep(&["schedule", "create", "never", "--cron", "0 0 30 2 *", "--input", "1"])
        .exits(6);
    bad.says(&["field 3, `30`", "never comes", "0 0 30 2 *\n      ^^"]);
    host.skep(&[
        "schedule",
        "create",
        "lost",
        "--cron",
        "@daily",
        "--zone",
        "Mars/Olympus",
    ])
    .exits(6)
    .says(&["Mars/Olympus"]);
    host.skep(&["schedule", "create", "both", "--cron", "@daily", "--every", "1s"])
        .exits(2);
    host.skep(&["schedule", "create", "late", "--at", "2001-01-01T00:00:00Z"])
        .exits(6)
        .says(&["past"]);

    let nightly = [
        "schedule",
        "create",
        "nightly",
        "--cron",
        "30 2 * * *",
        "--zone",
        "Europe/Vienna",
    ];
    let more = [
        "--missed",
        "skip",
        "--description",
        "audit",
        "--label",
        "team=red",
        "-o",
        "json",
    ];
    let made = host.skep(&[&nightly[..], &more[..]].concat()).exits(0).json();
    assert_eq!(
        (made["missed"].as_str(), made["zone"].as_str()),
        (Some("skip"), Some("Europe/Vienna"))
    );
    // Asked again it is the same, and another one of that name is a conflict.
    let again = host.skep(&[&nightly[..], &more[..]].concat()).exits(0).json();
    assert_eq!(again, made);
    host.skep(&nightly).exits(4);
    host.skep(&["schedule", "create", "hourly", "--every", "1h"]).exits(0);

    let listed = host.skep(&["schedule", "ls", "-o", "json"]).exits(0).json();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["hourly", "nightly"]);
    let page = host.get("/v1/schedules?limit=1");
    assert_eq!(page["next"], "output/hourly");
    assert_eq!(
        host.get("/v1/schedules?after=output/hourly")["items"][0]["name"],
        "nightly"
    );
    host.skep(&["schedule", "show", "nightly"])
        .exits(0)
        .says(&["30 2 * * * Europe/Vienna", "audit"]);
    host.skep(&["schedule", "show", "weekly"]).exits(3);

    let bodies: &[(Value, &str)] = &[
        (json!({"name": "x", "task": {"description": ""}}), "exactly one"),
        (
            json!({"name": "x", "at": 1, "every": "1s", "task": {"description": ""}}),
            "exactly one",
        ),
        (
            json!({"name": "x", "every": "1s", "zone": "UTC", "task": {"description": ""}}),
            "`zone` goes with",
        ),
        (
            json!({"name": "x", "every": "1s", "when": 1, "task": {"description": ""}}),
            "unknown field `when`",
        ),
        (
            json!({"name": "x", "every": "1s", "task": {"description": "", "crew": "output"}}),
            "beside it",
        ),
        (
            json!({"name": "x", "every": "1s", "task": {"description": "", "durability": "ephemeral"}}),
            "durable",
        ),
    ];
    for (body, named) in bodies {
        let problem = host.call("POST", "/v1/schedules", body).refuses(400, "invalid-input");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }

    // A drained crew's schedules rest, and can be deleted.
    host.skep(&["crew", "drain", "output"]).exits(0);
    host.skep(&["schedule", "show", "hourly", "--crew", "output"])
        .exits(0)
        .says(&["rests"]);
    host.skep(&["schedule", "delete", "hourly"]).exits(0);
    host.skep(&["schedule", "delete", "hourly"]).exits(3);
}
