//! Uses every import of `skep:agent` as it is meant: the input `{"do": …}` says which.

use serde::Deserialize;
use serde_json::json;
use skep_sdk::{Artifact, Executor, Failure, Outcome, Payload, Task, artifacts, context, heartbeat, log};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Act {
    /// Write a line at each level, with a field.
    Log,
    /// Write so many lines.
    LogMany { count: u32 },
    /// Beat, and say what the host answered.
    Beat,
    /// Say who it is.
    Who,
    /// Store a text, read it back in pieces.
    Store { text: String },
    /// Store so many blobs of so many bytes each; say how far it came.
    StoreMany { count: u32, bytes: usize },
    /// Read what somebody else stored.
    Read { digest: String },
    /// Return an artifact as if it were its own.
    Give { digest: String, size: u64, media: String },
}

struct Talk;

impl Executor for Talk {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let answer = match task.input()? {
            Act::Log => {
                log::write(log::Level::Trace, "a trace", &[("key", "value")]);
                log::debug("a debug line");
                log::info("an \u{1b}[31minfo\u{1b}[0m line");
                log::warn("a warning");
                log::error("an error");
                printed();
                json!("logged")
            }
            Act::LogMany { count } => {
                for n in 0..count {
                    log::info(format!("line {n}"));
                }
                json!(count)
            }
            Act::Beat => json!(format!("{:?}", heartbeat::beat(Some(50)))),
            Act::Who => {
                let me = context::current();
                json!({"agent": me.agent, "name": me.name, "crew": me.crew, "task": me.task, "attempt": me.attempt})
            }
            Act::Store { text } => {
                let stored = artifacts::write_all("text/plain", text.as_bytes())?;
                let back = artifacts::read_all(&stored)?;
                json!({"digest": stored.digest, "size": stored.size, "media": stored.media, "same": back == text.as_bytes()})
            }
            Act::StoreMany { count, bytes } => {
                let store = |n: &u32| artifacts::write_all("text/plain", format!("{n:0bytes$}").as_bytes()).is_ok();
                json!((0..count).take_while(store).count())
            }
            Act::Give { digest, size, media } => {
                return Ok(Outcome::Done(Payload::Artifact(Artifact { digest, size, media })));
            }
            Act::Read { digest } => {
                let artifact = Artifact {
                    digest,
                    size: 0,
                    media: String::new(),
                };
                match artifacts::read(&artifact, 0, 1024) {
                    Ok(bytes) => json!(String::from_utf8_lossy(&bytes)),
                    Err(error) => json!({ "refused": format!("{error:?}") }),
                }
            }
        };
        Ok(Outcome::json(&answer)?)
    }
}

/// What goes to standard output and error is captured.
#[expect(clippy::print_stdout, reason = "the point of it")]
fn printed() {
    println!("a printed line");
    eprintln!("a line on stderr");
}

skep_sdk::executor!(Talk);
