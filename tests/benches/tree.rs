//! An objective of a thousand tasks: from its submission, with its plan, until the last of them and itself are durable.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{percentiles, tasks::Ready, time};

/// Tasks that can run together.
const WIDTH: usize = 50;
/// How often they follow each other.
const LEVELS: usize = 20;
/// Objectives, one after the other.
const ROUNDS: usize = 15;

/// Every task waits for the one above it, answers its empty input and has a sandbox of its own.
pub(crate) fn tree() -> Vec<Value> {
    let echo = skep_bundled::get("echo").expect("echo is bundled").component;
    let wants = "[provides]\nroles = [\"worker\"]\n[limits]\ntier = \"small\"\n";
    let ready = Ready::of(echo, wants, "");
    let node = |at: usize| {
        let above = at.checked_sub(WIDTH).map(|above| format!("n{above}"));
        json!({"name": format!("n{at}"), "roles": ["worker"], "dependencies": Vec::from_iter(above)})
    };
    let nodes: Vec<Value> = (0..WIDTH * LEVELS).map(node).collect();
    let objective = json!({"description": "tree", "crew": "load", "nodes": nodes});
    let round = |_| {
        let (ended, took) = time(|| ready.host.run(&objective));
        assert_eq!(ended["state"], "COMPLETED", "{ended}");
        took
    };
    let samples: Vec<Duration> = (0..ROUNDS).map(round).collect();
    vec![json!({
        "tasks": WIDTH * LEVELS, "width": WIDTH, "goal_s": 0.5, "microseconds": percentiles(samples), "fdatasync_us": ready.floor,
    })]
}
