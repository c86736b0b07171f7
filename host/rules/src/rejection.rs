//! A refused command: a value that says which rule refused, never an error. A refused command has changed nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{grant::Refused, reason::Reason};

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The reason code.
    pub reason: Reason,
    /// For people: what was asked, what stands against it, what would be accepted.
    pub message: String,
    /// What could be asked instead in the present state; empty unless the reason is [`Reason::IllegalTransition`].
    pub legal: Vec<String>,
}

impl Rejection {
    /// A refusal without a list of legal commands.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Rejection {
            reason,
            message: message.into(),
            legal: Vec::new(),
        }
    }

    /// There is no such record.
    #[must_use]
    pub fn not_found(what: impl fmt::Display) -> Self {
        Rejection::new(Reason::NotFound, format!("there is no {what}"))
    }

    /// A request that says something that cannot be.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Rejection::new(Reason::InvalidInput, message)
    }

    /// A plugin that nobody signed, where that is not taken.
    #[must_use]
    pub fn unsigned() -> Self {
        let message = "the plugin comes without a signature; sign it with `skep sign` and send the envelope along";
        Rejection::new(Reason::SignatureMissing, message)
    }

    /// The record is in a state from which this cannot be asked.
    #[must_use]
    pub fn illegal(message: impl Into<String>, legal: &[&str]) -> Self {
        Rejection {
            reason: Reason::IllegalTransition,
            message: message.into(),
            legal: legal.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

impl From<Refused> for Rejection {
    fn from(refused: Refused) -> Self {
        Rejection::new(refused.reason, refused.message)
    }
}
