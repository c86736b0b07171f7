//! Runs into every limit that an attempt has, one at a time: the input `{"do": …}` says which.

use std::{hint::black_box, time::Duration};

use serde::Deserialize;
use skep_sdk::{Executor, Failure, Outcome, Payload, Task, heartbeat, log};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Act {
    /// Spin for ever.
    Spin,
    /// Spin, but call the host now and then.
    SpinPolitely,
    /// Sleep for so many milliseconds.
    Sleep { ms: u64 },
    /// Panic.
    Panic,
    /// End the process.
    Exit,
    /// Recurse until the stack is gone.
    Recurse,
    /// Grow by pages until refused, say how many there are, live on.
    Grow,
    /// Allocate more than there is and die of it.
    Allocate,
    /// Copy a block of memory for ever.
    Copy,
    /// Call the host as fast as possible.
    Chatter,
    /// Read the clock as fast as possible.
    Clock,
    /// Hand the host one string of so many bytes.
    Shout { bytes: usize },
    /// Hand the host so many empty fields in one call.
    Fields { count: usize },
    /// Return a result of so many bytes.
    Return { bytes: usize },
    /// Report a failure and ask to be tried again, until the attempt of this number.
    FailUntil { attempt: u32 },
    /// Report a failure that no retry cures.
    Fail,
    /// Draw random numbers and read the time.
    Dice,
}

struct Limits;

impl Executor for Limits {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let act: Act = task.input()?;
        match act {
            Act::Spin => spin(),
            Act::SpinPolitely => loop {
                black_box(heartbeat::beat(None));
                for n in 0..1_000_000_u64 {
                    black_box(n);
                }
            },
            Act::Sleep { ms } => std::thread::sleep(Duration::from_millis(ms)),
            Act::Panic => return Err(Failure::never(explode())),
            Act::Exit => std::process::exit(3),
            Act::Recurse => return Ok(Outcome::json(&recurse(black_box(1)))?),
            Act::Grow => return Ok(Outcome::json(&grow())?),
            Act::Allocate => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            Act::Copy => {
                let mut block = vec![0_u8; 4 << 20];
                loop {
                    let half = block.len() / 2;
                    black_box(&mut block).copy_within(..half, half);
                }
            }
            Act::Chatter => loop {
                black_box(heartbeat::beat(Some(1)));
            },
            Act::Clock => look_at_the_clock(),
            Act::Shout { bytes } => log::info("x".repeat(bytes)),
            Act::Fields { count } => log::write(log::Level::Info, "many", &vec![("", ""); count]),
            Act::Return { bytes } => return Ok(Outcome::Done(Payload::Inline(vec![b'y'; bytes]))),
            Act::FailUntil { attempt } if task.attempt < attempt => return Err(Failure::later("not yet")),
            Act::FailUntil { .. } => return Ok(Outcome::json(&task.attempt)?),
            Act::Fail => return Err(Failure::never("it cannot be done")),
            Act::Dice => {
                let drawn = std::collections::hash_map::RandomState::new();
                let drawn = std::hash::BuildHasher::hash_one(&drawn, 0);
                return Ok(Outcome::json(&drawn)?);
            }
        }
        Ok(Outcome::json(&"alive")?)
    }
}

#[expect(clippy::disallowed_methods, reason = "the point of it")]
fn look_at_the_clock() -> ! {
    loop {
        black_box(std::time::Instant::now());
    }
}

fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

#[expect(clippy::panic, reason = "the point of it")]
fn explode() -> String {
    panic!("this guest panics on purpose")
}

#[expect(unconditional_recursion, reason = "the point of it")]
fn recurse(n: u64) -> u64 {
    black_box(recurse(black_box(n + 1)) + n)
}

/// Grows the memory page by page until the host refuses; how many pages it has then.
#[cfg(target_family = "wasm")]
fn grow() -> usize {
    while core::arch::wasm32::memory_grow::<0>(1) != usize::MAX {}
    core::arch::wasm32::memory_size::<0>()
}

#[cfg(not(target_family = "wasm"))]
fn grow() -> usize {
    0
}

skep_sdk::executor!(Limits);
