//! Writes to its standard streams what its input says: `{"stream": "stdout" | "stderr", "text": "…", "times": 1, "turns": 0, "panic": false}`.

use std::io::Write as _;

use serde::Deserialize;
use skep_sdk::{Executor, Failure, Outcome, Task};

#[derive(Deserialize)]
struct Write {
    stream: String,
    text: String,
    #[serde(default = "once")]
    times: u64,
    /// Turns of an empty loop before each time: who floods without a pause passes the limit of host calls, and is stopped for that.
    #[serde(default)]
    turns: u64,
    /// Panic afterwards: its message must still be in the log.
    #[serde(default)]
    panic: bool,
}

fn once() -> u64 {
    1
}

struct Output;

impl Executor for Output {
    #[expect(clippy::panic, reason = "a panic is what the host is tested with")]
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let write: Write = task.input()?;
        for _ in 0..write.times {
            for turn in 0..write.turns {
                std::hint::black_box(turn);
            }
            let written = match write.stream.as_str() {
                "stderr" => std::io::stderr().write_all(write.text.as_bytes()),
                _ => std::io::stdout().write_all(write.text.as_bytes()),
            };
            written.map_err(|error| Failure::never(error.to_string()))?;
        }
        if write.panic {
            panic!("asked to panic after {} writes", write.times);
        }
        Ok(Outcome::json(&write.times)?)
    }
}

skep_sdk::executor!(Output);
