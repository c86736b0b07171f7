//! Answers its input: for first tries and load.

use skep_sdk::{Executor, Failure, Outcome, Task};

struct Echo;

impl Executor for Echo {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        Ok(Outcome::Done(task.input))
    }
}

skep_sdk::executor!(Echo);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_input() {
        let task = Task::new("say it again", &["a", "b"]).unwrap();
        assert_eq!(Echo::execute(task).unwrap(), Outcome::json(&["a", "b"]).unwrap());
    }
}
