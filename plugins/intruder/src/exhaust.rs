//! Drills against what everybody shares: memory, processor, time, stack, log. Most of them end with the attempt, not with an answer.

use std::{
    hint::black_box,
    io::{self, Write},
    thread,
    time::Duration,
};

use crate::trial::Trial;

/// Pages of 64 KiB in 4 GiB, all that 32 bits can address.
#[cfg(target_arch = "wasm32")]
const ALL_PAGES: usize = 1 << 16;

/// Grow the memory to 4 GiB, then allocate what is not there: the host ends the attempt.
pub(crate) fn memory(trial: &mut Trial) {
    #[cfg(target_arch = "wasm32")]
    {
        use core::arch::wasm32::{memory_grow, memory_size};
        // In steps, so that the last page that is granted is taken.
        let mut step = 1 << 10;
        while step > 0 {
            if memory_grow::<0>(step) == usize::MAX {
                step /= 2;
            }
        }
        let pages = memory_size::<0>();
        if pages + 1 >= ALL_PAGES {
            trial.breach(format!("grew to {pages} pages"));
            return;
        }
    }
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    while hoard.len() < 4096 {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
    trial.breach(format!("allocated {} MiB", black_box(&hoard).len()));
}

/// Spin for ever: the host ends the attempt when its fuel is burned.
pub(crate) fn endless_loop() {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Sleep for ever: the host ends the attempt at its deadline.
pub(crate) fn endless_sleep() {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Use up the stack: the host ends the attempt.
pub(crate) fn deep_recursion(trial: &mut Trial) {
    let depth = descend(0);
    trial.breach(format!("came back from depth {depth}"));
}

fn descend(depth: u32) -> u32 {
    let frame = black_box([depth; 256]);
    if depth == u32::MAX {
        return depth;
    }
    let below = descend(depth + 1);
    // Reading the frame after the call keeps it on the stack.
    black_box(&frame);
    below
}

/// Bytes written to each of the two streams: sixty-four times what the host keeps of an attempt.
const FLOOD: usize = 64 << 20;

/// Flood the operator's log, with escape sequences that would rewrite a terminal.
pub(crate) fn stdout_flood(trial: &mut Trial) {
    trial.saw("write to stdout", flood(io::stdout().lock()));
    trial.saw("write to stderr", flood(io::stderr().lock()));
}

fn flood(mut stream: impl Write) -> String {
    let block = "\x1b[2J\x1b[31mALL YOUR LOGS\x1b]0;owned\x07\n".repeat(128);
    let mut written = 0;
    while written < FLOOD {
        if let Err(error) = stream.write_all(block.as_bytes()) {
            return format!("{written} bytes, then {error}");
        }
        written += block.len();
    }
    format!("{written} bytes swallowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flood_ends_when_the_stream_refuses() {
        let mut room = [0u8; 6000];
        assert_eq!(
            flood(room.as_mut_slice()),
            "4224 bytes, then failed to write whole buffer"
        );
    }
}
