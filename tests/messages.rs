//! Messages between agents and from outside: who receives them, once and in order; requests; what a kill between taking and handling leaves.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use skep_built_guests::MESSAGES;

use crate::harness::{Answer, Host, binary, plugin, until};

const WANTS: &str = "[wants]\nstate = { quota = \"1MiB\" }\ntasks = { children = 0 }\nmessages = { send = [\">\"], receive = [\">\"] }\n";

/// One agent of the crew, and what it sends and hears.
fn agent(name: &str, send: &str, receive: &str) -> String {
    format!(
        "[[agent]]\nname = \"{name}\"\nplugin = \"test/post@1.0.0\"\n\
         grants = {{ state = {{ quota = \"1MiB\" }}, tasks = {{ children = 0 }}, messages = {{ send = [{send}], receive = [{receive}] }} }}\n"
    )
}

/// A host with one crew: one that sends, three that hear overlapping topics.
fn host() -> Host {
    let host = Host::start();
    host.install(&plugin("post", MESSAGES, WANTS)).json();
    crew(&host, "post");
    host
}

fn crew(host: &Host, name: &str) -> String {
    let agents = [
        agent("sender", "\"job.>\", \"note\"", ""),
        agent("exact", "", "\"job.done\""),
        agent("star", "", "\"job.*\", \"job.done\""),
        agent("rest", "", "\"job.>\""),
    ];
    host.assemble(&format!("name = \"{name}\"\n{}", agents.concat()))
}

fn post(host: &Host, query: &str, message: &Value) -> Answer {
    host.call("POST", &format!("/v1/messages{query}"), message)
}

/// An event with a note.
fn event(subject: &str, note: &str) -> Value {
    json!({"crew": "post", "type": "event", "subject": subject, "body": {"note": note}})
}

/// Has the sender do something, and says what came of it.
fn act(host: &Host, input: &Value) -> Value {
    let task = host.run(&json!({"description": "act", "crew": "post", "agent": "sender", "input": input}));
    assert_eq!(task["state"], "COMPLETED", "{task}");
    task["result"].clone()
}

/// What an agent has received so far.
fn received(host: &Host, name: &str) -> Vec<Value> {
    let answer = host.call("GET", &format!("/v1/state/post/received%2F{name}"), &Value::Null);
    match answer.status {
        200 => answer.json()["value"].as_array().unwrap().clone(),
        404 => Vec::new(),
        _ => panic!("{}", answer.json()),
    }
}

fn notes(host: &Host, name: &str) -> Vec<String> {
    let seen = received(host, name);
    seen.iter()
        .map(|seen| seen["note"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn subscribers_with_overlapping_topics_receive_their_set_once() {
    let host = host();
    for (at, subject) in ["job.done", "job.begun", "job.done.late", "note"]
        .into_iter()
        .enumerate()
    {
        let answer = post(&host, "?wait=60s", &event(subject, &format!("{at}"))).json();
        let handled = answer["deliveries"].as_array().unwrap();
        assert!(
            handled.iter().all(|delivery| delivery["state"] == "COMPLETED"),
            "{answer}"
        );
    }
    assert_eq!(notes(&host, "exact"), ["0"]);
    assert_eq!(notes(&host, "star"), ["0", "1"]);
    assert_eq!(notes(&host, "rest"), ["0", "1", "2"]);
    assert!(received(&host, "sender").is_empty());
    // An agent publishes as well, under its own name.
    let sent = act(
        &host,
        &json!({"do": "send", "subject": "job.done", "body": {"note": "4"}}),
    );
    let id = sent["ok"].as_str().unwrap();
    until("all three have received it", || {
        let message = host.get(&format!("/v1/messages/{id}"));
        let handled = message["deliveries"].as_array().unwrap();
        let ended = handled
            .iter()
            .filter(|delivery| delivery["state"] == "COMPLETED")
            .count();
        (ended == 3).then_some(())
    });
    let last = received(&host, "rest").pop().unwrap();
    assert_eq!(
        (&last["note"], &last["from"], &last["id"]),
        (&json!("4"), &json!("agent sender"), &json!(id))
    );
}

#[test]
fn no_message_reaches_another_crew() {
    let host = host();
    crew(&host, "other");
    post(&host, "?wait=60s", &event("job.done", "ours")).json();
    assert_eq!(notes(&host, "exact"), ["ours"]);
    let theirs = host.call("GET", "/v1/state/other", &Value::Null);
    assert_eq!(theirs.status, 404, "nobody there has noted anything: {}", theirs.json());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the promise is one of time")]
fn a_request_is_answered_and_one_without_a_listener_fails_at_once() {
    let host = host();
    let answer = act(
        &host,
        &json!({"do": "ask", "subject": "job.question", "to": "rest", "body": {"note": "?", "answer": [1, 2]}}),
    );
    assert_eq!(answer, json!({"ok": [1, 2]}));
    for (subject, to) in [
        ("job.question", json!("nobody")),
        ("job.question", json!("sender")),
        ("note", json!(null)),
    ] {
        let begun = Instant::now();
        let ask = json!({"do": "ask", "subject": subject, "to": to, "body": {"note": "?"}});
        assert_eq!(act(&host, &ask), json!({"refused": "no-listener"}));
        // The whole task, on a busy machine; the time of a request is 5 seconds.
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
    let failing = json!({"do": "ask", "subject": "job.question", "to": "rest", "body": {"note": "?", "fail": true}});
    assert_eq!(act(&host, &failing), json!({"refused": "failed"}));
    let late = json!({"do": "ask", "subject": "job.question", "to": "rest", "ttl": 300, "body": {"note": "?", "sleep": 60_000}});
    assert_eq!(act(&host, &late), json!({"refused": "timed-out"}));
    // The same mailbox from outside, and a command to nobody.
    let query = json!({"crew": "post", "type": "query", "subject": "job.question", "target": {"agent": "rest"},
        "body": {"note": "?", "answer": "yes"}});
    let answer = post(&host, "?wait=60s", &query).json();
    assert_eq!(answer["deliveries"][0]["answer"], "yes", "{answer}");
    let command = json!({"crew": "post", "type": "command", "subject": "note", "body": null});
    post(&host, "", &command).refuses(404, "no-listener");
}

#[test]
fn a_source_cannot_be_given_and_bad_letters_are_refused() {
    let host = host();
    for forged in ["source", "createdAt", "messageId", "causation", "seq"] {
        let mut message = event("job.done", "forged");
        message[forged] = json!("agent sender");
        post(&host, "", &message).refuses(400, "invalid-input");
    }
    let with = |key: &str, value: Value| {
        let mut message = event("job.done", "bad");
        message[key] = value;
        message
    };
    let zstd = |body: Value| {
        let mut message = with("body", body);
        message["encoding"] = json!("zstd");
        message
    };
    for (bad, status, code) in [
        (with("ttl", json!("25h")), 422, "invalid-input"),
        (with("ttl", json!("0ms")), 400, "invalid-input"),
        (with("subject", json!("job.*")), 400, "invalid-input"),
        (with("type", json!("shout")), 400, "invalid-input"),
        (with("type", json!("error")), 400, "invalid-input"),
        (with("specversion", json!("2.0")), 422, "unsupported-version"),
        (with("crew", json!("nobody")), 404, "not-found"),
        (with("body", json!("x".repeat(257 << 10))), 400, "invalid-input"),
        (with("traceparent", json!("00-0-0-0")), 400, "invalid-input"),
        (with("tracestate", json!("a=b")), 400, "invalid-input"),
        (with("datatype", json!("what")), 400, "invalid-input"),
        (with("encoding", json!("gzip")), 400, "invalid-input"),
        (zstd(json!({"$text": "no frame"})), 400, "invalid-input"),
        (
            zstd(json!({"$artifact": {"digest": "0".repeat(64), "size": 1, "media": "x"}})),
            400,
            "invalid-input",
        ),
        // A bomb: half a kilobyte that become a byte too many.
        (zstd(compressed(&vec![b' '; (10 << 20) + 1])), 400, "invalid-input"),
        (with("target", json!({"agent": "nobody"})), 404, "no-listener"),
    ] {
        post(&host, "", &bad).refuses(status, code);
    }
    assert_eq!(post(&host, "", &with("specversion", json!("1.7"))).status, 201);
    let outside = act(&host, &json!({"do": "send", "subject": "other", "body": {"note": "x"}}));
    assert_eq!(outside, json!({"refused": "denied"}));
    let longest = 24 * 3_600_000;
    for (ttl, told) in [(longest, "ok"), (longest + 1, "refused")] {
        let sent = act(
            &host,
            &json!({"do": "send", "subject": "note", "ttl": ttl, "body": null}),
        );
        assert!(sent.get(told).is_some(), "{sent}");
    }
}

/// Bytes as a body says them that is compressed.
fn compressed(bytes: &[u8]) -> Value {
    let frame = ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    json!({"$hex": frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
}

#[test]
fn what_is_compressed_is_expanded_at_the_door_and_what_is_large_becomes_an_artifact() {
    let host = host();
    let parent = format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16));
    let datatype = "c".repeat(64);
    let mut small = event("job.done", "small");
    small["body"] = compressed(&serde_json::to_vec(&small["body"]).unwrap());
    for (key, value) in [
        ("encoding", "zstd"),
        ("traceparent", &parent),
        ("tracestate", "a=1,b@c=2"),
        ("datatype", &datatype),
    ] {
        small[key] = json!(value);
    }
    let sent = post(&host, "?wait=60s", &small).json();
    assert_eq!(sent["deliveries"][0]["state"], "COMPLETED", "{sent}");
    let read = host.get(&format!("/v1/messages/{}", sent["messageId"].as_str().unwrap()));
    assert_eq!(read["body"]["note"], "small");
    assert_eq!(
        (&read["tracestate"], &read["datatype"]),
        (&small["tracestate"], &small["datatype"])
    );

    // The largest that there is, from the command line; its receiver has no use for it, which is its own affair.
    let note = "x".repeat((10 << 20) - 100);
    let file = crate::harness::write(
        host.data().parent().unwrap(),
        "large.json",
        json!({"note": note}).to_string(),
    );
    let sent = host.skep(&[
        "message",
        "send",
        "job.done",
        "--crew",
        "post",
        "--body",
        &format!("@{file}"),
        "-o",
        "json",
    ]);
    let sent = sent.exits(0).json();
    let artifact = &sent["body"]["$artifact"];
    assert_eq!(
        (&artifact["size"], &artifact["media"]),
        (&json!(note.len() + 11), &json!("application/json"))
    );
    let fetched = host.call(
        "GET",
        &format!("/v1/artifacts/{}?crew=post", artifact["digest"].as_str().unwrap()),
        &Value::Null,
    );
    assert_eq!(fetched.json(), json!({"note": note}));
}

/// Topics, and which of the subjects below each of them has.
const HEARD: [(&str, &[&str]); 10] = [
    (">", &SUBJECTS),
    ("a.>", &["a.b", "a.b.c", "a.x", "a.x.c"]),
    ("a.*", &["a.b", "a.x"]),
    ("a.b", &["a.b"]),
    ("a.*.c", &["a.b.c", "a.x.c"]),
    ("*.b", &["a.b", "e.b"]),
    ("*.b.>", &["a.b.c", "e.b.y.z"]),
    ("a.b.c", &["a.b.c"]),
    ("d", &["d"]),
    ("*", &["d", "q"]),
];
const SUBJECTS: [&str; 8] = ["a.b", "a.b.c", "a.x", "a.x.c", "d", "e.b", "e.b.y.z", "q"];

#[test]
fn a_hundred_subscribers_with_overlapping_topics_receive_their_exact_sets_once() {
    let host = Host::start();
    host.install(&plugin("post", MESSAGES, WANTS)).json();
    // Twenty pairs of topics, each heard by five agents.
    let pairs: Vec<_> = (0..20)
        .map(|n| (HEARD[n % 10], HEARD[(3 * n + n / 10 + 1) % 10]))
        .collect();
    let members = pairs.iter().enumerate().map(|(n, ((one, _), (other, _)))| {
        let agent = agent(&format!("m{n}"), "", &format!("\"{one}\", \"{other}\""));
        agent.replace("\ngrants", "\nreplicas = 5\ngrants")
    });
    let members: String = members.chain([agent("sender", "\">\"", "")]).collect();
    host.assemble(&format!("name = \"post\"\n{members}"));
    let send = |subject: &&str| json!({"do": "send", "subject": subject, "body": {"note": subject}});
    let acts: Vec<Value> = SUBJECTS.iter().map(send).collect();
    let sent = act(&host, &json!({"do": "all", "acts": acts}));
    for sent in sent.as_array().unwrap() {
        let path = format!("/v1/messages/{}", sent["ok"].as_str().unwrap());
        until("all have received it", || {
            let message = host.get(&path);
            let deliveries = message["deliveries"].as_array().unwrap();
            deliveries
                .iter()
                .all(|delivery| delivery["state"] == "COMPLETED")
                .then_some(())
        });
    }
    for (n, ((_, one), (_, other))) in pairs.iter().enumerate() {
        let mut expected: Vec<&str> = one.iter().chain(*other).copied().collect();
        expected.sort_unstable();
        expected.dedup();
        for replica in 1..=5 {
            let mut heard = notes(&host, &format!("m{n}-{replica}"));
            heard.sort_unstable();
            assert_eq!(heard, expected, "m{n}-{replica}");
        }
    }
}

/// A figure of `/metrics`, which needs no token.
fn figure(host: &Host, series: &str) -> f64 {
    let answer = host.send("GET", "/metrics", &[], b"");
    let text = String::from_utf8(answer.body).unwrap();
    assert!(
        answer.status == 200 && answer.head.contains("text/plain"),
        "{}",
        answer.head
    );
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{series}: {text}")).parse().unwrap()
}

#[test]
fn a_flood_is_refused_and_what_was_accepted_is_received() {
    let host = host();
    // The one that is received first sleeps until it is cancelled; all others have its key and wait.
    let mut first = event("job.done.late", "first");
    first["partitionKey"] = json!("one");
    first["body"]["sleep"] = json!(3_600_000);
    let answer = post(&host, "", &first).json();
    let shown = host.get(&format!("/v1/messages/{}", answer["messageId"].as_str().unwrap()));
    let holder = shown["deliveries"][0]["taskId"].as_str().unwrap().to_owned();
    let flood = json!({"do": "flood", "times": 10_000, "subject": "job.done.late", "key": "one", "body": {"note": null, "count": true}});
    assert_eq!(act(&host, &flood), json!({"taken": 999, "busy": 9_001}));
    let refused = post(&host, "", &first);
    assert!(
        refused.head.to_ascii_lowercase().contains("retry-after:"),
        "{}",
        refused.head
    );
    refused.refuses(429, "overloaded");
    assert_eq!(figure(&host, "skep_messages_waiting{crew=\"post\"}"), 1_000.0);
    assert_eq!(figure(&host, "skep_messages_sent_total{type=\"event\"}"), 1_000.0);
    assert_eq!(figure(&host, "skep_messages_refused_total{type=\"event\"}"), 9_002.0);
    assert!(figure(&host, "skep_messages_oldest_seconds{crew=\"post\"}") > 0.0);
    let cancel = json!({"action": "cancel"});
    let cancelled = host.call("PUT", &format!("/v1/tasks/{holder}"), &cancel);
    assert_eq!(cancelled.status, 200, "{}", cancelled.json());
    until("the others are received", || {
        (figure(&host, "skep_messages_waiting{crew=\"post\"}") == 0.0).then_some(())
    });
    let counted = host.get("/v1/state/post/counted%2Frest");
    assert_eq!(counted["value"], 999, "{counted}");
    assert_eq!(figure(&host, "skep_messages_delivered_total{type=\"event\"}"), 999.0);
    let text = String::from_utf8(host.send("GET", "/metrics", &[], b"").body).unwrap();
    assert!(
        !text.contains("job.") && !text.contains("_01"),
        "no subjects and no ids: {text}"
    );
}

#[test]
fn what_was_accepted_before_a_kill_is_received_once_and_in_order() {
    let mut host = host();
    let mut sent = Vec::new();
    for at in 0..30 {
        let mut message = event("job.done.late", &format!("{at:02}"));
        message["partitionKey"] = json!("one");
        // The first one sleeps, so that the others wait when the host dies.
        message["body"]["sleep"] = json!(if at == 0 { 2_000 } else { 0 });
        let answer = post(&host, "", &message);
        assert_eq!(answer.status, 201, "{}", answer.json());
        sent.push(format!("{at:02}"));
    }
    host.kill();
    let host = host.restart();
    until("all of them were received", || {
        (received(&host, "rest").len() >= sent.len()).then_some(())
    });
    assert_eq!(notes(&host, "rest"), sent);
}

#[test]
fn an_idempotency_key_sends_once_also_when_the_attempt_is_tried_again() {
    let host = host();
    let mut once = event("job.done.late", "a");
    once["idempotencyKey"] = json!("key");
    let first = post(&host, "?wait=60s", &once);
    let again = post(&host, "", &once);
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json()["messageId"], again.json()["messageId"]);
    once["body"]["note"] = json!("b");
    post(&host, "", &once).refuses(422, "idempotency-mismatch");
    act(
        &host,
        &json!({"do": "send-and-fail", "subject": "job.done.late", "once": "key", "body": {"note": "c"}}),
    );
    until("it was received", || (received(&host, "rest").len() == 2).then_some(()));
    assert_eq!(notes(&host, "rest"), ["a", "c"]);
}

#[test]
fn a_message_past_its_time_is_a_dead_letter_and_is_not_received() {
    let host = host();
    let mut busy = event("job.done.late", "busy");
    busy["partitionKey"] = json!("one");
    busy["body"]["sleep"] = json!(1_500);
    post(&host, "", &busy).json();
    let mut late = event("job.done.late", "late");
    late["partitionKey"] = json!("one");
    late["ttl"] = json!("200ms");
    let answer = post(&host, "?wait=60s", &late).json();
    let delivery = &answer["deliveries"][0];
    assert_eq!(
        (&delivery["state"], &delivery["reason"]),
        (&json!("FAILED"), &json!("message-expired")),
        "{answer}"
    );
    let audit = host.get("/v1/audit");
    assert!(
        audit.to_string().contains(answer["messageId"].as_str().unwrap()),
        "{audit}"
    );
    until("the first one was received", || {
        (!received(&host, "rest").is_empty()).then_some(())
    });
    assert_eq!(notes(&host, "rest"), ["busy"]);
}

#[test]
fn a_dead_letter_is_listed_and_redriven_once() {
    let host = host();
    let mut lost = event("job.done", "lost");
    lost["body"]["fail"] = json!(true);
    let sent = post(&host, "?wait=60s", &lost).json();
    let id = sent["messageId"].as_str().unwrap();
    let failed = |message: &Value| {
        let deliveries = message["deliveries"].as_array().unwrap();
        deliveries.iter().all(|delivery| delivery["state"] == "FAILED")
    };
    assert!(
        failed(&sent) && sent["deliveries"].as_array().unwrap().len() == 3,
        "{sent}"
    );
    post(&host, "?wait=60s", &event("job.done", "well")).json();
    let dead = host.get("/v1/messages?state=dead&crew=post&topic=job.*");
    let [listed] = &dead["items"].as_array().unwrap()[..] else {
        panic!("{dead}")
    };
    assert!(listed["messageId"] == *id && failed(listed), "{listed}");
    assert_eq!(host.get("/v1/messages?state=dead&topic=note")["items"], json!([]));
    host.skep(&["message", "ls", "--dead"])
        .exits(0)
        .says(&[id, "job.done", "3 who listen", "error"]);

    let again = host.skep(&["message", "redrive", id, "-o", "json"]).exits(0).json();
    let again = again.as_array().unwrap();
    assert_eq!(again.len(), 3, "one for each that lost it: {again:?}");
    for message in again {
        assert_eq!(
            (&message["source"], &message["causation"]),
            (&sent["source"], &json!(id))
        );
        let path = format!("/v1/messages/{}", message["messageId"].as_str().unwrap());
        until("it has failed again", || failed(&host.get(&path)).then_some(()));
    }
    host.skep(&["message", "redrive", id])
        .exits(4)
        .says(&["no dead letter, or was redriven already"]);
    host.call("POST", &format!("/v1/messages/{id}/redrive"), &Value::Null)
        .refuses(409, "illegal-transition");
    assert_eq!(
        host.get("/v1/messages?state=dead")["items"].as_array().unwrap().len(),
        3
    );
    let unknown = format!("message_{}", "0".repeat(32));
    host.call("POST", &format!("/v1/messages/{unknown}/redrive"), &Value::Null)
        .refuses(404, "not-found");
    assert!(host.get("/v1/audit").to_string().contains("message-redriven"));
}

#[test]
fn messages_are_sent_and_followed_on_the_command_line() {
    let host = host();
    let url = format!("http://{}", host.address);
    let mut tail = binary();
    tail.args([
        "message",
        "tail",
        "--topic",
        "job.>",
        "--count",
        "2",
        "--host",
        &url,
        "--token",
        &host.token,
    ]);
    let tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The stream is open once it hears of something; what was sent before is not told.
    let followed = std::thread::scope(|scope| {
        let output = scope.spawn(|| tail.wait_with_output().unwrap());
        until("the stream has heard two", || {
            host.skep(&["message", "send", "note", "--body", "{\"note\":\"other\"}"])
                .exits(0);
            let body = "{\"note\":\"told\",\"answer\":7}";
            let send = [
                "message",
                "send",
                "job.begun",
                "--body",
                body,
                "--agent",
                "rest",
                "--wait",
                "60s",
            ];
            host.skep(&send).exits(0).says(&["1 receive it", "7"]);
            output.is_finished().then_some(())
        });
        output.join().unwrap()
    });
    assert!(followed.status.success());
    let said = String::from_utf8(followed.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    for line in lines {
        assert!(
            line.contains("event job.begun  admin → rest") && line.contains("told"),
            "{line}"
        );
    }
    host.skep(&["message", "send", "note", "--type", "command"])
        .exits(3)
        .says(&["no-listener"]);
    let listed = host.get("/v1/messages?crew=post&topic=note&limit=1");
    assert_eq!(listed["items"][0]["source"], json!({"principal": "admin"}), "{listed}");
}
