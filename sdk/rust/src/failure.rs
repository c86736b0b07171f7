//! Why an agent could not do what it was asked, with advice on trying again.
//!
//! Everything that `?` can turn into a [`Failure`] is listed here. Errors of the input are never tried again, because the same input
//! fails the same way; errors that may pass are tried later.

use std::{error::Error, io, time::Duration};

use crate::{Failure, Retry, artifacts, messages, payload, state, tasks};

impl Failure {
    /// The same input will fail the same way.
    pub fn never(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            retry: Retry::Never,
        }
    }

    /// Worth trying again after the task's own delay.
    pub fn later(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            retry: Retry::Later,
        }
    }

    /// Worth trying again, but not before `delay` is over. The host allows at most one hour.
    pub fn after(delay: Duration, message: impl Into<String>) -> Failure {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Failure {
            message: message.into(),
            retry: Retry::After(milliseconds),
        }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Failure {
        Failure::never(message)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::never(message)
    }
}

impl From<payload::Error> for Failure {
    fn from(error: payload::Error) -> Failure {
        Failure::never(with_source(&error))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        Failure::never(error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// What the sandbox refuses stays refused; only what the clock can cure is tried again.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Failure::later(error.to_string())
            }
            _ => Failure::never(error.to_string()),
        }
    }
}

impl From<artifacts::Error> for Failure {
    fn from(error: artifacts::Error) -> Failure {
        let message = format!("artifacts: {}", artifacts::describe(error));
        match error {
            artifacts::Error::Unavailable => Failure::later(message),
            artifacts::Error::NotFound
            | artifacts::Error::QuotaExceeded
            | artifacts::Error::InvalidInput
            | artifacts::Error::CapabilityDenied => Failure::never(message),
        }
    }
}

impl From<state::Error> for Failure {
    fn from(error: state::Error) -> Failure {
        let message = format!("state: {}", state::describe(error));
        match error {
            state::Error::Unavailable | state::Error::Conflict(_) => Failure::later(message),
            state::Error::NotFound
            | state::Error::InvalidInput
            | state::Error::QuotaExceeded
            | state::Error::Denied
            | state::Error::RecordFull => Failure::never(message),
        }
    }
}

impl From<tasks::Error> for Failure {
    fn from(error: tasks::Error) -> Failure {
        let message = format!("tasks: {}", tasks::describe(error));
        match error {
            tasks::Error::Unavailable => Failure::later(message),
            tasks::Error::NotFound
            | tasks::Error::InvalidInput
            | tasks::Error::BudgetExceeded
            | tasks::Error::Denied
            | tasks::Error::RecordFull => Failure::never(message),
        }
    }
}

impl From<messages::Error> for Failure {
    fn from(error: messages::Error) -> Failure {
        let message = format!("messages: {}", messages::describe(error));
        match error {
            messages::Error::Busy
            | messages::Error::TimedOut
            | messages::Error::Failed
            | messages::Error::NoListener
            | messages::Error::Unavailable => Failure::later(message),
            messages::Error::InvalidInput | messages::Error::Denied | messages::Error::RecordFull => {
                Failure::never(message)
            }
        }
    }
}

fn with_source(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_carries_its_advice() {
        let after = Failure::after(Duration::from_secs(2), "busy");
        assert_eq!(
            after,
            Failure {
                message: "busy".into(),
                retry: Retry::After(2000)
            }
        );
        let cases = [
            (Failure::from("plain"), Retry::Never),
            (
                Failure::from(io::Error::from(io::ErrorKind::PermissionDenied)),
                Retry::Never,
            ),
            (Failure::from(io::Error::from(io::ErrorKind::TimedOut)), Retry::Later),
            (Failure::from(artifacts::Error::NotFound), Retry::Never),
            (Failure::from(artifacts::Error::Unavailable), Retry::Later),
            (Failure::from(state::Error::Conflict(3)), Retry::Later),
            (Failure::from(state::Error::QuotaExceeded), Retry::Never),
            (Failure::from(tasks::Error::Unavailable), Retry::Later),
            (Failure::from(tasks::Error::BudgetExceeded), Retry::Never),
            (Failure::from(messages::Error::Busy), Retry::Later),
            (Failure::from(messages::Error::Denied), Retry::Never),
        ];
        for (failure, retry) in cases {
            assert_eq!(failure.retry, retry, "{}", failure.message);
        }
    }
}
