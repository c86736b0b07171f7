//! `kill -9` at random moments under load, against the real binary, with a ledger on the client's side: what was accepted is there afterwards and
//! ends once, and what steps did is done exactly once, however often their attempts died.
//!
//! `SKEP_KILLS=n` kills more often than by default (a hundred thousand take some twenty hours), `SKEP_KILL_SEED=n` repeats the load and the
//! moments of a run, as far as a machine can be repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use skep_built_guests::PROGRAM;

use crate::harness::{Host, until};

/// Kills of one run in CI: some three minutes of a development build.
const KILLS: usize = 80;
/// What the interpreter may do here.
pub(crate) const WANTS: &str = "[wants]\nstate = { quota = \"1MiB\" }\ntasks = { children = 100 }\nartifacts = \"10MiB\"\nworkspace = \"1MiB\"\n[limits]\ntier = \"small\"\n";
/// The same as grants, for some agents.
pub(crate) const GRANTS: &str = "replicas = 6\ngrants = { state = { quota = \"1MiB\" }, tasks = { children = 100 }, artifacts = \"10MiB\", workspace = \"1MiB\" }\n";

/// splitmix64: enough for moments.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// The place of one of so many.
    pub(crate) fn pick(&mut self, of: usize) -> usize {
        usize::try_from(self.below(of as u64)).expect("below a usize")
    }
}

/// A number from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "how much is tried is an argument of the test run"
)]
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Prints what is needed to repeat a run when it fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SKEP_KILL_SEED={} repeats the load", self.0);
        }
    }
}

/// What every task does: it counts on a shared number, on one of its own, and has two children that count as well. So many counts it adds.
const COUNTS: u64 = 4;

fn load(n: usize) -> Value {
    let child = json!([{"add": {"key": "/total", "by": 1}}, {"put": {"key": "mine", "value": "x"}}]);
    json!({
        "path": format!("task-{n}/"),
        "program": [
            {"add": {"key": "/total", "by": 1}},
            {"put": {"key": "a", "value": "1"}},
            {"spawn": {"program": child}},
            {"spawn": {"program": child}},
            {"store": {"text": format!("artifact {n}")}},
            {"await-all": {"timeout": null}},
            {"sleep": {"ms": 5}},
            {"cas": {"key": "a", "value": "2", "revision": null}},
            {"get": {"key": "a"}},
            {"load": {"artifact": 0}},
            {"add": {"key": "/total", "by": 1}},
        ]
    })
}

/// What clients know: for each key of theirs, the task that was acknowledged.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeMap<usize, String>>,
    next: AtomicUsize,
    done: AtomicBool,
}

impl Ledger {
    fn len(&self) -> usize {
        self.acknowledged.lock().expect("no client panicked").len()
    }
}

/// A host's address and token, for clients that outlive it.
#[derive(Clone)]
struct Door(String, String);

/// One submission under its key; the task where the host has acknowledged it.
fn submit(door: &Door, n: usize) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let Door(address, token) = door;
    let body = json!({"description": format!("task {n}"), "crew": "program", "input": load(n)}).to_string();
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(
        stream,
        "POST /v1/tasks HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: key-{n}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?;
    if !status.starts_with('2') {
        assert!(matches!(status, "429" | "503"), "{answer}");
        return None;
    }
    let task: Value = serde_json::from_str(body).ok()?;
    Some(task["taskId"].as_str()?.to_owned())
}

/// Submits tasks through whatever door is open, each until it is acknowledged, until the ledger is closed.
fn client(ledger: &Ledger, door: &Mutex<Option<Door>>, most: usize) {
    while !ledger.done.load(Ordering::Relaxed) {
        let n = ledger.next.fetch_add(1, Ordering::Relaxed);
        if n >= most {
            return;
        }
        loop {
            let open = door.lock().expect("nobody panicked").clone();
            if let Some(task) = open.and_then(|door| submit(&door, n)) {
                let before = ledger.acknowledged.lock().expect("nobody panicked").insert(n, task);
                assert_eq!(before, None);
                break;
            }
            if ledger.done.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn killed_at_random_moments_nothing_is_lost_and_nothing_happens_twice() {
    let kills = number("SKEP_KILLS").map_or(KILLS, |n| usize::try_from(n).expect("a number of kills"));
    let seed = Seed(number("SKEP_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id())));
    let mut dice = Dice(seed.0);
    let mut host = Host::start();
    host.crew("program", PROGRAM, WANTS, GRANTS);
    let (ledger, door) = (Ledger::default(), Mutex::new(None));
    let open =
        |host: &Host| *door.lock().expect("nobody panicked") = Some(Door(host.address.clone(), host.token.clone()));
    // Some three tasks a kill: there is always work under way, and the rest comes to its end soon after the last one.
    let most = kills * 3;
    host = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client(&ledger, &door, most));
        }
        for _ in 0..kills {
            open(&host);
            let (known, more) = (ledger.len(), dice.pick(4));
            until("clients are served, or have nothing left", || {
                let left = ledger.next.load(Ordering::Relaxed) < most;
                (!left || ledger.len() >= known + more).then_some(())
            });
            // A moment within what a task takes.
            std::thread::sleep(Duration::from_micros(dice.below(60_000)));
            *door.lock().expect("nobody panicked") = None;
            host = host.restart();
        }
        open(&host);
        until("every task is acknowledged", || (ledger.len() == most).then_some(()));
        ledger.done.store(true, Ordering::Relaxed);
        host
    });
    judge(&host, &ledger, most);
    // Once more from the disk alone.
    let host = host.restart();
    judge(&host, &ledger, most);
}

/// Everything that was acknowledged has ended well, once, and the number is that of the tasks.
fn judge(host: &Host, ledger: &Ledger, most: usize) {
    let acknowledged = ledger.acknowledged.lock().expect("nobody panicked").clone();
    let distinct: BTreeSet<&String> = acknowledged.values().collect();
    assert_eq!((acknowledged.len(), distinct.len()), (most, most), "one task per key");
    let mut expected: Option<Value> = None;
    for (n, id) in &acknowledged {
        let task = until("an acknowledged task ends", || {
            let task = host.get(&format!("/v1/tasks/{id}"));
            matches!(task["status"].as_str(), Some("Completed" | "Failed")).then_some(task)
        });
        assert_eq!(task["state"], "COMPLETED", "{n}: {task}");
        // All have done and seen the same, but for what they stored.
        let mut result = task["result"].clone();
        for seen in result["seen"].as_array_mut().expect("a program tells what it has seen") {
            if seen.get("digest").is_some() || seen.to_string().contains("artifact") {
                *seen = json!("the artifact");
            }
        }
        assert_eq!(expected.get_or_insert_with(|| result.clone()), &result, "{n}");
    }
    let total = host.run(&json!({"description": "sum", "crew": "program", "input": [{"get": {"key": "/total"}}]}));
    assert_eq!(total["state"], "COMPLETED", "{total}");
    let text = total["result"]["seen"].to_string();
    let counted = COUNTS * most as u64;
    assert!(
        text.contains(&format!("\"{counted}\"")),
        "{counted} counts, and the host says {text}"
    );
    for (id, ends) in ends(host) {
        assert_eq!(ends, 1, "{id} ended so often");
    }
    host.skep(&["audit", "verify"]).exits(0);
}

/// How often each task ended, by the audit log.
fn ends(host: &Host) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    let mut path = "/v1/audit?limit=100".to_owned();
    loop {
        let page = host.get(&path);
        for row in page["items"].as_array().expect("a page has items") {
            let entry = row.get("entry").unwrap_or(row);
            if entry["kind"] == "task-ended" {
                let task = entry["task"].as_str().expect("a task ended").to_owned();
                *ends.entry(task).or_default() += 1;
            }
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/audit?limit=100&from={next}"),
            None => return ends,
        }
    }
}

#[test]
fn a_host_that_is_stopped_and_goes_on_loses_nothing() {
    let host = Host::start();
    host.crew("program", PROGRAM, WANTS, GRANTS);
    let door = Door(host.address.clone(), host.token.clone());
    let ledger = Ledger::default();
    for n in 0..20 {
        let task = submit(&door, n).expect("a host that runs acknowledges");
        ledger.acknowledged.lock().unwrap().insert(n, task);
        if n % 5 == 4 {
            signal(&host, "STOP");
            std::thread::sleep(Duration::from_millis(200));
            signal(&host, "CONT");
        }
    }
    judge(&host, &ledger, 20);
}

fn signal(host: &Host, name: &str) {
    let pid = host.pid().to_string();
    let sent = std::process::Command::new("kill")
        .args([&format!("-{name}"), &pid])
        .status();
    assert!(sent.expect("kill runs").success());
}
