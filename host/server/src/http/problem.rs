//! The one place where refusals and errors become HTTP: a status, and a problem document (RFC 9457) with a reason code.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use skep_rules::{reason::Reason, rejection::Rejection};

use super::api::problem::{PROBLEM_JSON, Problem};
use crate::driver::Error;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    problem: Box<Problem>,
}

/// What a handler gives.
pub(crate) type Answer<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal with the status that belongs to its code.
    pub(crate) fn new(code: Reason, detail: impl Into<String>) -> Self {
        Self::with_status(status(code), code, detail)
    }

    fn with_status(status: StatusCode, code: Reason, detail: impl Into<String>) -> Self {
        Refusal {
            status,
            problem: Box::new(Problem {
                kind: format!("urn:skep:{code}"),
                title: code.means().to_owned(),
                status: status.as_u16(),
                detail: detail.into(),
                code,
                next: code.next().to_owned(),
                legal: Vec::new(),
            }),
        }
    }

    /// A request that says something that cannot be.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Reason::InvalidInput, detail)
    }

    /// A request that is well made and says something that this host does not do.
    pub(crate) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::with_status(StatusCode::UNPROCESSABLE_ENTITY, Reason::InvalidInput, detail)
    }

    /// There is no such thing.
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Reason::NotFound, format!("there is no {what}"))
    }

    /// What was asked for was there, and is not kept any more.
    pub(crate) fn gone(detail: impl Into<String>) -> Self {
        Self::with_status(StatusCode::GONE, Reason::NotFound, detail)
    }

    /// The request took too long.
    pub(crate) fn too_slow() -> Self {
        Self::new(Reason::TimedOut, "the request was not answered in time")
    }

    pub(crate) fn no_route() -> Self {
        Self::new(Reason::NotFound, "there is no such route; `/openapi.json` lists them")
    }

    pub(crate) fn no_method() -> Self {
        let detail = "this route does not take that method; `/openapi.json` lists what it takes";
        Self::with_status(StatusCode::METHOD_NOT_ALLOWED, Reason::InvalidInput, detail)
    }

    /// A handler panicked: our bug. The panic has been logged by the hook.
    pub(crate) fn panicked() -> Self {
        Self::new(Reason::HostFault, "the host could not finish the request")
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let mut refusal = Refusal::new(rejection.reason, rejection.message);
        refusal.problem.legal = rejection.legal;
        refusal
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(rejection) => rejection.into(),
            Error::Store(skep_store::Error::Closed) | Error::Stopping => {
                let detail = "the host is stopping";
                Refusal::with_status(StatusCode::SERVICE_UNAVAILABLE, Reason::Overloaded, detail)
            }
            Error::Store(_) | Error::File(_) | Error::Randomness(_) | Error::Undecodable(_) | Error::Failed(_) => {
                tracing::error!(%error, source = std::error::Error::source(&error), "a request failed");
                Refusal::new(
                    Reason::HostFault,
                    "the host could not finish the request; its log says why",
                )
            }
        }
    }
}

impl From<skep_store::Error> for Refusal {
    fn from(error: skep_store::Error) -> Self {
        Error::Store(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&*self.problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// The status that belongs to a code. Codes that only attempts end with never get here; they would be the task's state, not an error.
fn status(code: Reason) -> StatusCode {
    match code {
        Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
        Reason::Forbidden | Reason::CapabilityDenied | Reason::MountDenied | Reason::AddressDenied => {
            StatusCode::FORBIDDEN
        }
        Reason::NotFound | Reason::NoListener => StatusCode::NOT_FOUND,
        Reason::IllegalTransition | Reason::Conflict | Reason::Fenced | Reason::ApprovalExpired => StatusCode::CONFLICT,
        Reason::StaleRevision => StatusCode::PRECONDITION_FAILED,
        Reason::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
        Reason::SelfApproval => StatusCode::FORBIDDEN,
        Reason::BodyLimit => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::InvalidInput => StatusCode::BAD_REQUEST,
        Reason::IdempotencyMismatch
        | Reason::InvalidManifest
        | Reason::UnsupportedImport
        | Reason::CompileLimit
        | Reason::NotAComponent
        | Reason::SignatureMissing
        | Reason::SignatureInvalid
        | Reason::Modified
        | Reason::SignerUntrusted
        | Reason::ThresholdUnmet
        | Reason::InvalidRelease
        | Reason::Expired
        | Reason::NotYetValid
        | Reason::Rollback
        | Reason::Revoked
        | Reason::ApprovalRequired
        | Reason::FirstContact
        | Reason::CeilingExceeded
        | Reason::InvalidMetadata
        | Reason::UnsupportedVersion
        | Reason::UnsupportedHost => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::RateLimited | Reason::QuotaExceeded | Reason::BudgetExhausted | Reason::Overloaded => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Reason::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
        Reason::TimedOut | Reason::MessageExpired => StatusCode::GATEWAY_TIMEOUT,
        Reason::FuelExhausted
        | Reason::MemoryLimit
        | Reason::DeadlineExceeded
        | Reason::StackOverflow
        | Reason::HandleLimit
        | Reason::HostcallLimit
        | Reason::Trapped
        | Reason::Diverged
        | Reason::RecordFull
        | Reason::Preempted
        | Reason::DeadLetter
        | Reason::Paused
        | Reason::Cancelled
        | Reason::DependencyFailed
        | Reason::Verify
        | Reason::Rejected
        | Reason::Error => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::DataDirectory | Reason::HostFault => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_no_room_is_told_when_to_come_back() {
        let full = || Error::Rejected(Rejection::new(Reason::Overloaded, "it is full"));
        for (error, expected) in [
            (full(), StatusCode::TOO_MANY_REQUESTS),
            (Error::Stopping, StatusCode::SERVICE_UNAVAILABLE),
            (Error::Store(skep_store::Error::Closed), StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let refusal = Refusal::from(error);
            assert_eq!(refusal.problem.code, Reason::Overloaded);
            assert_eq!(refusal.problem.status, expected.as_u16());
            let response = refusal.into_response();
            assert_eq!(response.status(), expected);
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
        let response = Refusal::not_found("it").into_response();
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
