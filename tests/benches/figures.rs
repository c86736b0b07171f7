//! How fast and how small: `cargo bench -p skep --bench figures -- NAME…` prints one JSON line per figure, all of them without a name. Baselines and
//! floors are taken in the same run, because absolute values move with whatever else the machine does.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a bench reads the clock, computes with what it read, and may panic"
)]

mod approvals;
mod compile;
mod demo;
#[path = "../harness.rs"]
#[expect(
    dead_code,
    clippy::let_underscore_must_use,
    clippy::panic,
    reason = "it is the tests', which need more of it and may panic"
)]
mod harness;
mod journal;
mod logs;
mod messages;
mod metering;
mod recover;
mod revoke;
mod sandbox;
mod steps;
mod tasks;
mod tree;
mod verify;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A figure by name.
type Figure = (&'static str, fn() -> Vec<Value>);

const FIGURES: &[Figure] = &[
    ("instantiate", sandbox::instantiate),
    ("call", sandbox::call),
    ("host_call", sandbox::host_call),
    ("resident", sandbox::resident),
    ("kill", sandbox::kill),
    ("metering", metering::metering),
    ("compile", compile::compile),
    ("bomb", compile::bomb),
    ("journal", journal::journal),
    ("tasks", tasks::tasks),
    ("ephemeral", tasks::ephemeral),
    ("poison", tasks::poison),
    ("workflow3", steps::workflow3),
    ("tree", tree::tree),
    ("latency", tasks::latency),
    ("steps", steps::steps),
    ("replay", steps::replay),
    ("recover", recover::recover),
    ("waiting", steps::waiting),
    ("memory", tasks::memory),
    ("verify", verify::verify),
    ("revoke", revoke::revoke),
    ("logs", logs::logs),
    ("messages", messages::messages),
    ("approvals", approvals::approvals),
    ("up", demo::up),
    ("demo", demo::demo),
];

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn main() {
    // Cargo adds `--bench`.
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if let Some(unknown) = asked.iter().find(|name| FIGURES.iter().all(|(known, _)| known != name)) {
        let known: Vec<_> = FIGURES.iter().map(|(name, _)| *name).collect();
        eprintln!("there is no figure `{unknown}`; there are {}", known.join(", "));
        std::process::exit(2);
    }
    for (name, figure) in FIGURES
        .iter()
        .filter(|(name, _)| asked.is_empty() || asked.iter().any(|asked| asked == name))
    {
        let before = busy();
        for mut line in figure() {
            line["figure"] = json!(name);
            line["busy_elsewhere"] = json!(before);
            println!("{line}");
        }
    }
}

/// The share of the machine's cores that was busy over a tenth of a second before a figure was taken: 0 is a quiet machine.
fn busy() -> f64 {
    let sample = || {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|n| n.parse().ok())
            .collect();
        (
            ticks.iter().sum::<u64>(),
            ticks.get(3).copied().unwrap_or(0) + ticks.get(4).copied().unwrap_or(0),
        )
    };
    let (total, idle) = sample();
    std::thread::sleep(Duration::from_millis(100));
    let (total_after, idle_after) = sample();
    let (total, idle) = (total_after - total, idle_after - idle);
    if total == 0 {
        0.0
    } else {
        round(1.0 - idle as f64 / total as f64, 2)
    }
}

/// How long something takes.
fn time<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// The p50 and p99 of some durations, in microseconds.
fn percentiles(mut samples: Vec<Duration>) -> (f64, f64) {
    samples.sort_unstable();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    (round(at(0.5), 2), round(at(0.99), 2))
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
