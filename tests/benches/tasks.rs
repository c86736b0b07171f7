//! Tasks from the request to the answer: the real `skep up` as a process of its own, durable as by default, every task a request over HTTP and a
//! fresh sandbox. The load comes from one thread of the bench's process and shares the cores with the host.

use std::{
    io,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{harness::Host, journal::floor, percentiles, round, time};

/// Agents of the crew, and so attempts that can run at a time.
const AGENTS: usize = 64;
/// Connections that submit one task after the other.
pub(crate) const CLIENTS: usize = 64;
/// How long the load is kept up.
const LOAD: Duration = Duration::from_secs(5);
/// The most bytes of an answer: a hundred small tasks.
const ANSWER: usize = 256 << 10;

/// A host with a crew of `echo`, and what it stands on.
pub(crate) struct Ready {
    pub(crate) host: Host,
    /// Microseconds for one write and sync on the same disk, just before.
    pub(crate) floor: f64,
    /// Attempts per task that was submitted; none where they are not told beforehand.
    attempts: Option<usize>,
    _directory: tempfile::TempDir,
}

impl Ready {
    fn new() -> Ready {
        let echo = skep_bundled::get("echo").expect("echo is bundled").component;
        Ready::of(echo, "[limits]\ntier = \"small\"\n", "")
    }

    /// A crew of another component, with what its manifest wants and its agents are granted.
    pub(crate) fn of(component: &[u8], wants: &str, grants: &str) -> Ready {
        // Beside the build, so that the disk is a disk: /tmp may be memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
        let floor = floor(directory.path());
        let host = Host::start_in(&directory.path().join("data"), &[]);
        host.crew("load", component, wants, &format!("replicas = {AGENTS}\n{grants}"));
        Ready {
            host,
            floor,
            attempts: grants.is_empty().then_some(1),
            _directory: directory,
        }
    }

    /// Attempts that the crew's agents have begun: one per task, as long as none is tried again.
    fn attempts(&self) -> usize {
        let mut path = "/v1/agents?crew=load".to_owned();
        let mut sum = 0;
        loop {
            let page = self.host.get(&path);
            let items = page["items"].as_array().expect("a page has items");
            sum += items.iter().filter_map(|agent| agent["attempts"].as_u64()).sum::<u64>();
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/agents?crew=load&after={next}"),
                None => return usize::try_from(sum).expect("a number of tasks"),
            }
        }
    }

    /// A request that submits tasks and waits for their ends.
    pub(crate) fn request(&self, body: &Value) -> Vec<u8> {
        let (address, token, body) = (&self.host.address, &self.host.token, body.to_string());
        format!(
            "POST /v1/tasks?wait=60s HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// Sends the request over some connections, over each again when it was answered, until `more` says no (it is told how often the connection
    /// has asked); how long each answer took. Every answer must hold `each` completed tasks, and every task must have had one attempt.
    pub(crate) fn load(
        &self,
        clients: usize,
        request: &[u8],
        each: usize,
        pause: Duration,
        more: impl Fn(usize) -> bool + Clone + Send + 'static,
    ) -> Vec<Duration> {
        let before = self.attempts();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let samples = runtime.block_on(async {
            let mut connections = JoinSet::new();
            for _ in 0..clients {
                let (address, request, more) = (self.host.address.clone(), request.to_vec(), more.clone());
                connections.spawn(async move {
                    let mut client = Client::new(&address).await;
                    let mut samples = Vec::new();
                    while more(samples.len()) {
                        let start = Instant::now();
                        client.ask(&request, each).await;
                        samples.push(start.elapsed());
                        if !pause.is_zero() {
                            tokio::time::sleep(pause).await;
                        }
                    }
                    samples
                });
            }
            connections.join_all().await
        });
        let samples: Vec<Duration> = samples.into_iter().flatten().collect();
        if let Some(attempts) = self.attempts {
            let made = self.attempts() - before;
            assert_eq!(made, samples.len() * each * attempts, "one attempt per accepted task");
        }
        samples
    }
}

/// One connection, kept.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn new(address: &str) -> Client {
        let stream = TcpStream::connect(address).await.expect("the host listens");
        stream.set_nodelay(true).expect("a socket takes the option");
        Client {
            stream,
            buffer: vec![0; ANSWER],
        }
    }

    /// One request and its whole answer, which must be that all its tasks are completed.
    async fn ask(&mut self, request: &[u8], tasks: usize) {
        self.stream.write_all(request).await.expect("the request is sent");
        let mut filled = 0;
        let answer = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await;
            let read = read.and_then(|read| {
                if read == 0 {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(read)
                }
            });
            filled += read.expect("the answer is read");
            if let Some(length) = length(&self.buffer[..filled])
                && filled >= length
            {
                break std::str::from_utf8(&self.buffer[..length]).expect("an answer is text");
            }
        };
        let completed = answer.matches("\"state\":\"COMPLETED\"").count();
        assert!(answer.starts_with("HTTP/1.1 201 ") && completed == tasks, "{answer}");
    }
}

/// The bytes of an answer, as its head says; nothing while the head is not all there.
fn length(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).expect("a head is text");
    let body = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse::<usize>().ok());
    Some(end + body.expect("the host says how long its answer is"))
}

fn task() -> Value {
    json!({"description": "nothing", "crew": "load", "input": [1, 2, 3]})
}

/// Tasks per second, submitted one per request by [`CLIENTS`] connections that wait for the end of each.
pub(crate) fn tasks() -> Vec<Value> {
    vec![throughput(&Ready::new(), &task(), "synced")]
}

/// The same, of tasks whose submitter asks for no durability.
pub(crate) fn ephemeral() -> Vec<Value> {
    let mut task = task();
    task["durability"] = json!("ephemeral");
    vec![throughput(&Ready::new(), &task, "ephemeral")]
}

pub(crate) fn throughput(ready: &Ready, task: &Value, durability: &str) -> Value {
    let request = ready.request(task);
    ready.load(CLIENTS, &request, 1, Duration::ZERO, |asked| asked < 50);
    let end = Instant::now() + LOAD;
    let before = cpu(ready.host.pid());
    let (samples, took) = time(|| ready.load(CLIENTS, &request, 1, Duration::ZERO, move |_| Instant::now() < end));
    let (completed, cpu) = (samples.len(), cpu(ready.host.pid()) - before);
    let (p50, p99) = percentiles(samples);
    json!({
        "value": round(completed as f64 / took.as_secs_f64(), 0), "unit": "tasks/s", "p50": round(p50 / 1e3, 2), "p99": round(p99 / 1e3, 2),
        "percentiles_unit": "ms", "n": completed, "in_flight": CLIENTS, "agents": AGENTS, "threads": threads(ready),
        "host_cpu_us_each": round(cpu * 1e6 / completed as f64, 0), "durability": durability, "floor_us": ready.floor, "load_from": "one thread of the bench"
    })
}

/// Some ten thousand tasks, without and with one among them that traps each time it is tried: what the others lose by it.
pub(crate) fn poison() -> Vec<Value> {
    const EACH: usize = 10_000 / CLIENTS;
    const ROUNDS: usize = 5;
    let ready = Ready {
        attempts: None,
        ..Ready::of(skep_built_guests::LIMITS, "", "limits = { memory = \"16MiB\" }\n")
    };
    let act = |act: &str| json!({"description": act, "crew": "load", "input": {"do": act}});
    let request = ready.request(&act("dice"));
    let load = || ready.load(CLIENTS, &request, 1, Duration::ZERO, |asked| asked < EACH);
    load();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(time(load).1.as_secs_f64());
        let mut poison = act("panic");
        poison["retry"] = json!({"maxRetries": 3, "initialDelay": "100ms", "onExhausted": "dead_letter"});
        let (letter, took) = time(|| {
            let answer = ready.host.call("POST", "/v1/tasks", &poison);
            assert_eq!(answer.status, 201);
            // Every answer of these is that its task is completed.
            load();
            answer.json()
        });
        with.push(took.as_secs_f64());
        let path = format!(
            "/v1/tasks/{}?wait=60s",
            letter["taskId"].as_str().expect("a task has an id")
        );
        let letter = ready.host.call("GET", &path, &Value::Null).json();
        assert_eq!(
            (&letter["failure"]["code"], &letter["attempts"]),
            (&json!("dead-letter"), &json!(4)),
            "{letter}"
        );
    }
    let agents = ready.host.get("/v1/agents?crew=load");
    let alive = |agent: &Value| agent["phase"] == "READY" && agent["generation"] == 1;
    assert!(
        agents["items"].as_array().expect("a page has items").iter().all(alive),
        "{agents}"
    );
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    let (without, with) = (median(without), median(with));
    let count = (CLIENTS * EACH) as f64;
    vec![json!({
        "value": round((1.0 - without / with) * 100.0, 1), "unit": "% of throughput lost", "without_per_s": round(count / without, 0),
        "with_per_s": round(count / with, 0), "tasks": CLIENTS * EACH, "rounds": ROUNDS, "durability": "synced", "floor_us": ready.floor
    })]
}

/// Submit to completed on a host that does nothing else, with a pause between, so that its threads are asleep.
pub(crate) fn latency() -> Vec<Value> {
    const COUNT: usize = 1_000;
    let ready = Ready::new();
    let request = ready.request(&task());
    let alone = |count: usize| ready.load(1, &request, 1, Duration::from_millis(2), move |asked| asked < count);
    alone(100);
    let (p50, p99) = percentiles(alone(COUNT));
    vec![json!({
        "value": round(p50 / 1e3, 3), "unit": "ms", "p50": round(p50 / 1e3, 3), "p99": round(p99 / 1e3, 3), "n": COUNT, "in_flight": 1,
        "threads": threads(&ready), "durability": "synced", "floor_us": ready.floor, "floor_ratio": round(p50 / ready.floor, 2)
    })]
}

/// What a host holds in memory after many tasks more than before: `SKEP_FIGURES_FULL` in the environment makes it a million.
pub(crate) fn memory() -> Vec<Value> {
    const BATCH: usize = 100;
    let tasks = if std::env::var_os("SKEP_FIGURES_FULL").is_some() {
        1_000_000
    } else {
        100_000
    };
    let ready = Ready::new();
    let pid = ready.host.pid();
    let request = ready.request(&Value::Array(vec![task(); BATCH]));
    let rounds = tasks / BATCH / CLIENTS;
    ready.load(CLIENTS, &request, BATCH, Duration::ZERO, |asked| asked < 1);
    let before = rss(pid);
    let (samples, took) = time(|| ready.load(CLIENTS, &request, BATCH, Duration::ZERO, move |asked| asked < rounds));
    let n = samples.len() * BATCH;
    vec![json!({
        "value": round(rss(pid) - before, 1), "unit": "MiB more", "before_mib": round(before, 1), "n": n, "in_flight": CLIENTS * BATCH,
        "batch": BATCH, "tasks_per_s": round(n as f64 / took.as_secs_f64(), 0), "threads": threads(&ready), "durability": "synced",
        "floor_us": ready.floor
    })]
}

/// Threads of the host.
pub(crate) fn threads(ready: &Ready) -> Option<u64> {
    status(ready.host.pid(), "Threads:")
}

/// What a process holds in memory, in MiB.
pub(crate) fn rss(pid: u32) -> f64 {
    status(pid, "VmRSS:").expect("the process lives") as f64 / 1024.0
}

/// Seconds of processor time that a process has used, in the kernel too.
pub(crate) fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks: Vec<u64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    // A tick is a hundredth of a second wherever Linux runs.
    ticks.iter().sum::<u64>() as f64 / 100.0
}

fn status(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}
