//! A worker that does what its input says: `{"answer": …}` answers; `{"fails": n}` beside it fails so many attempts first; `{"split": [name, …]}` is too
//! large and is split into tasks that answer their names; `{"rest": seconds}` sleeps first, which outlives the host; `{"join": true}` answers what it
//! was given by the tasks that it waited for, by name. With `input` it answers its own input. It writes a log line for every attempt.

use std::time::Duration;

use serde_json::{Map, Value, json};
use skep_sdk::{Executor, Failure, Node, Outcome, Payload, Plan, Task, log, tasks};

struct Works;

impl Executor for Works {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let input: Value = task.input()?;
        log::info(format!("attempt {} of {}", task.attempt, task.description));
        if let Some(names) = input.get("split").and_then(Value::as_array) {
            return split(names);
        }
        if input
            .get("fails")
            .and_then(Value::as_u64)
            .is_some_and(|fails| u64::from(task.attempt) <= fails)
        {
            return Err(Failure::later("not yet"));
        }
        if let Some(seconds) = input.get("rest").and_then(Value::as_u64) {
            tasks::sleep_for(Duration::from_secs(seconds))?;
        }
        if input.get("join").is_some() {
            let mut parts = Map::new();
            for part in &task.dependencies {
                let output = part.output.as_ref().map(Payload::parse::<Value>).transpose()?;
                parts.insert(part.name.clone(), output.unwrap_or_default());
            }
            return Ok(Outcome::json(&parts)?);
        }
        match input.get("answer") {
            Some(answer) => Ok(Outcome::json(answer)?),
            None => Ok(Outcome::json(&input)?),
        }
    }
}

fn split(names: &[Value]) -> Result<Outcome, Failure> {
    let mut nodes = Vec::new();
    for name in names.iter().filter_map(Value::as_str) {
        let input = Payload::json(&json!({ "answer": name }))?;
        nodes.push(Node::new(name, name, "worker", input));
    }
    let join = Node {
        dependencies: nodes.iter().map(|node| node.name.clone()).collect(),
        integrates: true,
        ..Node::new(
            "join",
            "join the parts",
            "worker",
            Payload::json(&json!({"join": true}))?,
        )
    };
    nodes.push(join);
    Ok(Outcome::Decompose(Plan::new(nodes)))
}

skep_sdk::executor!(Works);
