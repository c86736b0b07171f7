//! Drills against what a process inherits: an agent inherits nothing.

use std::env;

use crate::trial::Trial;

/// Read the environment of the host.
pub(crate) fn environment(trial: &mut Trial) {
    nothing(trial, "environment variables", env::vars_os().count());
}

/// Read the command line of the host.
pub(crate) fn arguments(trial: &mut Trial) {
    nothing(trial, "arguments", env::args_os().count());
}

/// Names and values are left out on purpose: the message is shown to people, and they may be secrets.
fn nothing(trial: &mut Trial, what: &str, count: usize) {
    if count > 0 {
        trial.breach(format!("read {count} {what}"));
    }
    trial.saw(format!("read the {what}"), format!("{count} {what}"));
}
