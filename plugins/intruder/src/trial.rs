//! What a drill tried and what came of it.

use std::fmt;

use serde::Serialize;
use skep_sdk::{Failure, Outcome};

/// The record of one drill.
#[derive(Default)]
pub(crate) struct Trial {
    tried: Vec<String>,
    seen: Vec<String>,
    breaches: Vec<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    drill: &'a str,
    tried: String,
    result: String,
}

impl Trial {
    /// Note an attempt that the sandbox must refuse. Being let through is a breach; `Some` then holds what was gained.
    pub(crate) fn must_fail<T, E: fmt::Display>(&mut self, what: impl Into<String>, result: Result<T, E>) -> Option<T> {
        let what = what.into();
        self.tried.push(what.clone());
        match result {
            Ok(gained) => {
                self.breaches.push(what);
                Some(gained)
            }
            Err(refusal) => {
                self.seen.push(refusal.to_string());
                None
            }
        }
    }

    /// Note an attempt whose result speaks for itself.
    pub(crate) fn saw(&mut self, what: impl Into<String>, result: impl Into<String>) {
        self.tried.push(what.into());
        self.seen.push(result.into());
    }

    /// Note something that the sandbox should not have allowed.
    pub(crate) fn breach(&mut self, what: impl Into<String>) {
        self.breaches.push(what.into());
    }

    /// The outcome of the drill: done when everything was refused, a failure that no retry can cure otherwise.
    pub(crate) fn conclude(self, drill: &str) -> Result<Outcome, Failure> {
        if !self.breaches.is_empty() {
            return Err(Failure::never(format!("NOT CONTAINED: {}", self.breaches.join("; "))));
        }
        let report = Report {
            drill,
            tried: self.tried.join("; "),
            result: self.seen.join("; "),
        };
        Ok(Outcome::json(&report)?)
    }
}

#[cfg(test)]
mod tests {
    use skep_sdk::{Payload, Retry};

    use super::*;

    #[test]
    fn refusals_are_reported_and_done() {
        let mut trial = Trial::default();
        assert_eq!(trial.must_fail("open the door", Err::<(), _>("locked")), None);
        trial.saw("knock", "silence");
        let expected = r#"{"drill":"door","tried":"open the door; knock","result":"locked; silence"}"#;
        assert_eq!(
            trial.conclude("door").unwrap(),
            Outcome::Done(Payload::Inline(expected.into()))
        );
    }

    #[test]
    fn one_success_among_refusals_is_a_breach() {
        let mut trial = Trial::default();
        trial.must_fail("open the door", Err::<(), _>("locked"));
        assert_eq!(trial.must_fail("open the window", Ok::<_, String>(7)), Some(7));
        let failure = trial.conclude("house").unwrap_err();
        assert_eq!(failure.message, "NOT CONTAINED: open the window");
        assert_eq!(failure.retry, Retry::Never);
    }
}
