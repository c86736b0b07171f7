//! What the figures of durable steps measure, without JSON or standard input and output, so that the component is small: the input, which is a JSON
//! text, says what to do. `"steps3"` puts, gets and puts; `"children3"` spawns three children and waits for each before the next; `"steps:N"` puts
//! and gets by turns, N calls in all. Everything else is handed back, which is what the children do.

use skep_sdk::{Executor, Failure, Outcome, Payload, Task, state, tasks};

/// Written by all tasks: the figures are of steps, not of how many keys there are.
const KEY: &str = "n";

struct Steps;

impl Executor for Steps {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let asked: &[u8] = match &task.input {
            Payload::Inline(bytes) => bytes,
            Payload::Artifact(_) => b"",
        };
        match asked {
            br#""steps3""# => {
                state::put(KEY, b"1")?;
                state::get(KEY)?;
                state::put(KEY, b"2")?;
            }
            br#""children3""# => {
                for _ in 0..3 {
                    let child = tasks::spawn(&tasks::Child {
                        description: "child".to_owned(),
                        input: Payload::Inline(b"null".to_vec()),
                        roles: Vec::new(),
                        check: false,
                        retry: skep_sdk::RetryPolicy::default(),
                        timeouts: skep_sdk::Timeouts::default(),
                        priority: None,
                    })?;
                    let ended = tasks::await_all(&[child], None)?;
                    if !matches!(ended.as_slice(), [only] if matches!(only.end, tasks::End::Completed(_))) {
                        return Err(Failure::never("a child did not complete"));
                    }
                }
            }
            _ => {
                for call in 0..count(asked).unwrap_or(0) {
                    if call % 2 == 0 {
                        state::put(KEY, b"1")?;
                    } else {
                        state::get(KEY)?;
                    }
                }
            }
        }
        Ok(Outcome::Done(task.input))
    }
}

/// The number in `"steps:N"`.
fn count(asked: &[u8]) -> Option<u64> {
    let number = asked.strip_prefix(br#""steps:"#)?.strip_suffix(b"\"")?;
    str::from_utf8(number).ok()?.parse().ok()
}

skep_sdk::executor!(Steps);

#[cfg(test)]
mod tests {
    use skep_sdk::double;

    use super::*;

    fn run(input: &str) -> Result<Outcome, Failure> {
        Steps::execute(Task::new("figure", input).unwrap())
    }

    #[test]
    fn each_figure_takes_the_steps_of_its_name() {
        run("steps3").unwrap();
        assert_eq!(state::history(KEY).unwrap().len(), 2);
        run("steps:5").unwrap();
        assert_eq!(state::history(KEY).unwrap().len(), 5);
        run("steps:x").unwrap();
        assert_eq!(state::history(KEY).unwrap().len(), 5);

        double::end_children(|child| Some(tasks::End::Completed(child.input.clone())));
        run("children3").unwrap();
        assert_eq!(double::children().len(), 3);
        double::end_children(|_| Some(tasks::End::Cancelled));
        assert!(run("children3").is_err());
    }
}
