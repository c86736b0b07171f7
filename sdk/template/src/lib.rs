//! Greets whoever is named in the input.

use skep_sdk::{Executor, Failure, Outcome, Task};

struct Agent;

impl Executor for Agent {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let name: String = task.input()?;
        Ok(Outcome::json(&format!("Hello, {name}!"))?)
    }
}

skep_sdk::executor!(Agent);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_by_name() {
        let task = Task::new("greet", "Ada").unwrap();
        assert_eq!(Agent::execute(task).unwrap(), Outcome::json("Hello, Ada!").unwrap());
    }
}
