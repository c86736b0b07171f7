//! What the figures measure: `{"do": "nothing" | "beat" | "wait" | "fib" | "sieve" | "json", "n": …}`.

use std::{hint::black_box, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use skep_sdk::{Executor, Failure, Outcome, Task, heartbeat};

#[derive(Deserialize)]
struct Work {
    r#do: String,
    #[serde(default)]
    n: u64,
}

struct Figures;

impl Executor for Figures {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        // The cheapest call possible: whatever is not JSON of ours is handed back.
        let Ok(work) = task.input::<Work>() else {
            return Ok(Outcome::Done(task.input));
        };
        let answer = match work.r#do.as_str() {
            "beat" => {
                for _ in 0..work.n {
                    black_box(heartbeat::beat(None));
                }
                work.n
            }
            "wait" => {
                std::thread::sleep(Duration::from_millis(work.n));
                work.n
            }
            "fib" => fib(black_box(work.n)),
            "sieve" => sieve(work.n),
            "json" => json(work.n)?,
            _ => 0,
        };
        Ok(Outcome::json(&answer)?)
    }
}

fn fib(n: u64) -> u64 {
    if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
}

/// How many primes there are below a number.
fn sieve(below: u64) -> u64 {
    let below = usize::try_from(below).unwrap_or(usize::MAX);
    let mut composite = vec![false; below];
    let mut primes = 0;
    for n in 2..below {
        if composite.get(n).is_some_and(|known| !known) {
            primes += 1;
            composite
                .iter_mut()
                .skip(n * n)
                .step_by(n)
                .for_each(|mark| *mark = true);
        }
    }
    primes
}

/// Parses and prints a document so many times; the bytes printed.
fn json(times: u64) -> Result<u64, Failure> {
    let text: String = (0..200)
        .map(|n| format!(r#"{{"id":{n},"name":"item {n}","tags":["a","b","ü"],"price":{n}.25}},"#))
        .collect();
    let text = format!("[{}]", text.trim_end_matches(','));
    let mut bytes = 0;
    for _ in 0..times {
        let value: Value = serde_json::from_str(black_box(&text))?;
        bytes += serde_json::to_string(&value)?.len() as u64;
    }
    Ok(bytes)
}

skep_sdk::executor!(Figures);
