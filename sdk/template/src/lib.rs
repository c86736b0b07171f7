//! Greets whoever is named in the input.

use serde::{Deserialize, Serialize};
use skep_sdk::{Executor, Failure, Outcome, Task};

/// What a task gives.
#[derive(Serialize, Deserialize)]
struct Input {
    name: String,
}

/// What it gets back.
#[derive(Serialize)]
struct Output {
    greeting: String,
}

struct Agent;

impl Executor for Agent {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let input: Input = task.input()?;
        let greeting = format!("Hello, {}!", input.name);
        Ok(Outcome::json(&Output { greeting })?)
    }
}

skep_sdk::executor!(Agent);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_by_name() {
        let task = Task::new("greet", &Input { name: "Ada".into() }).unwrap();
        let expected = Outcome::json(&Output { greeting: "Hello, Ada!".into() }).unwrap();
        assert_eq!(Agent::execute(task).unwrap(), expected);
    }
}
