//! A hostile agent, signed and granted like any other: each task is one drill that tries to get out of the sandbox for real.
//!
//! A drill whose attempts are all refused is done and says what it saw. One that gets through fails with `NOT CONTAINED`. Some drills
//! cannot come back at all when the sandbox holds: the host ends their attempt.

mod exhaust;
mod files;
mod network;
mod surroundings;
mod trial;

use serde::Deserialize;
use skep_sdk::{Executor, Failure, Outcome, Task, log};
use trial::Trial;

struct Intruder;

#[derive(Deserialize)]
struct Input {
    drill: String,
}

impl Executor for Intruder {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let Input { drill } = task.input()?;
        log::info(format!("drill {drill}"));
        let mut trial = Trial::default();
        run(&drill, &mut trial)?;
        trial.conclude(&drill)
    }
}

/// Every drill there is.
fn run(drill: &str, trial: &mut Trial) -> Result<(), Failure> {
    match drill {
        "read-outside" => files::read_outside(trial),
        "write-mount" => files::write_mount(trial),
        "follow-symlink" => files::follow_symlink(trial),
        "workspace-flood" => files::workspace_flood(trial),
        "handles" => files::handles(trial),
        "tcp-connect" => network::tcp_connect(trial),
        "udp-send" => network::udp_send(trial),
        "name-lookup" => network::name_lookup(trial),
        "environment" => surroundings::environment(trial),
        "arguments" => surroundings::arguments(trial),
        "memory" => exhaust::memory(trial),
        "endless-loop" => exhaust::endless_loop(),
        "endless-sleep" => exhaust::endless_sleep(),
        "deep-recursion" => exhaust::deep_recursion(trial),
        "stdout-flood" => exhaust::stdout_flood(trial),
        unknown => return Err(Failure::never(format!("no drill is called {unknown:?}"))),
    }
    Ok(())
}

skep_sdk::executor!(Intruder);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_drills_are_refused_by_name() {
        let task = Task::new("drill", &std::collections::BTreeMap::from([("drill", "dance")])).unwrap();
        assert_eq!(
            Intruder::execute(task).unwrap_err(),
            Failure::never("no drill is called \"dance\"")
        );
    }

    #[test]
    fn outside_a_sandbox_the_intruder_says_that_it_got_through() {
        let task = Task::new("drill", &std::collections::BTreeMap::from([("drill", "environment")])).unwrap();
        let failure = Intruder::execute(task).unwrap_err();
        assert!(failure.message.starts_with("NOT CONTAINED: "), "{}", failure.message);
    }
}
