//! Counts the words of some texts with the help of its crew, and keeps a tally of all words ever counted.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_sdk::{Executor, Failure, Outcome, Task, state, tasks};

/// What a task asks for: the whole, or the part of it that a child does.
#[derive(Deserialize)]
#[serde(untagged)]
enum Work {
    Tally {
        texts: Vec<String>,
        /// Seconds to rest before the ends of the children are looked at.
        #[serde(default)]
        rest: u64,
    },
    Count(String),
}

#[derive(Debug, Serialize)]
struct Report {
    words: Vec<usize>,
    /// All words that this crew has counted, in this task and those before.
    tally: usize,
}

struct Tally;

impl Executor for Tally {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        match task.input()? {
            Work::Count(text) => Ok(Outcome::json(&text.split_whitespace().count())?),
            Work::Tally { texts, rest } => Ok(Outcome::json(&tally(&texts, rest)?)?),
        }
    }
}

/// Plain code from top to bottom. When the host is killed anywhere in it, the task runs it again from the top: what was spawned is not spawned again,
/// what was slept is not slept again, what was added is not added again, because the answers of these calls are on record.
fn tally(texts: &[String], rest: u64) -> Result<Report, Failure> {
    let mut children = Vec::new();
    for text in texts {
        let child = tasks::Child {
            roles: vec!["counter".into()],
            ..tasks::Child::new("count words", text)?
        };
        children.push(tasks::spawn(&child)?);
    }

    tasks::sleep_for(Duration::from_secs(rest))?;

    let mut words = Vec::new();
    for ended in tasks::await_all(&children, None)? {
        words.push(ended.output::<usize>()?);
    }

    let sum: usize = words.iter().sum();
    let tally = state::update("tally", |old: Option<usize>| old.unwrap_or(0) + sum)?;
    Ok(Report { words, tally })
}

skep_sdk::executor!(Tally);

#[cfg(test)]
mod tests {
    use skep_sdk::{Payload, double};

    use super::*;

    #[test]
    fn it_counts_with_its_crew_and_remembers() {
        // The children run the same code; a test plays the host between them.
        double::end_children(|child| {
            let task = Task {
                input: child.input.clone(),
                ..Task::new(&*child.description, &()).unwrap()
            };
            match Tally::execute(task) {
                Ok(Outcome::Done(output)) => Some(tasks::End::Completed(output)),
                _ => Some(tasks::End::Failed("agent-failed".into())),
            }
        });
        let texts = ["one two three".to_owned(), String::new(), "four five".to_owned()];
        let report = tally(&texts, 3600).unwrap();
        assert_eq!((report.words, report.tally), (vec![3, 0, 2], 5));
        assert_eq!(double::sleeps().len(), 1, "an hour, which takes no time in a test");
        assert_eq!(double::children()[2].input, Payload::json("four five").unwrap());

        let report = tally(&texts[..1], 0).unwrap();
        assert_eq!((report.words, report.tally), (vec![3], 8));
    }
}
