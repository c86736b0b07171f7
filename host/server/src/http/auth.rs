//! Who may talk to the host: whoever has the admin token, through a loopback name. The name and the origin are checked because a browser on
//! this machine can be made to send requests to loopback addresses by any page that it shows.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use skep_rules::{id::Digest, reason::Reason};

use super::{problem::Refusal, serve};
use crate::host::Shared;

/// What answers without a token.
const PUBLIC: &[&str] = &["/healthz", "/readyz", "/metrics", "/openapi.json"];

/// Refuses what must not go further, and bounds the time of what may.
pub(super) async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if let Err(refusal) = place(headers, request.uri().host()) {
        return refusal.into_response();
    }
    if !PUBLIC.contains(&request.uri().path()) && !bears(headers, shared.token) {
        let detail = "the request carries no token, or not the right one";
        return Refusal::new(Reason::Unauthenticated, detail).into_response();
    }
    serve::limit_time(request, next).await
}

/// Host and Origin name this machine by a loopback name.
fn place(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
    let named = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => authority,
    };
    if !named.is_some_and(is_loopback) {
        let detail = "the Host header does not name this machine by a loopback name";
        return Err(Refusal::new(Reason::Forbidden, detail));
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    if !from.is_some_and(|(_, place)| is_loopback(place)) {
        return Err(Refusal::new(
            Reason::Forbidden,
            "the request comes from a page of another origin",
        ));
    }
    Ok(())
}

/// `localhost` or a loopback address, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if is_port(port) && !name.is_empty() => name,
        _ => authority,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The digests are compared, not the texts: how long that takes says nothing about the token.
fn bears(headers: &HeaderMap, token: Digest) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| value.split_at_checked(7));
    given.is_some_and(|(scheme, text)| scheme.eq_ignore_ascii_case(b"Bearer ") && Digest::of(text) == token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_this_machine() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost:1",
            "LOCALHOST",
            "[::1]:8080",
            "[::1]",
            "127.9.9.9:1",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "127.0.0.1.example.com",
            "localhost.evil:80",
            "10.0.0.1:80",
            "[::2]:80",
            ":80",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let headers = |host: &'static str, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            place(&headers, None).is_ok()
        };
        assert!(headers("localhost:1", None));
        assert!(headers("localhost:1", Some("http://127.0.0.1:1")));
        assert!(!headers("localhost:1", Some("http://evil.example")));
        assert!(!headers("localhost:1", Some("null")));
        assert!(!headers("rebound.example:1", None));
    }

    #[test]
    fn the_token_is_compared_whole() {
        let token = Digest::of(b"secret");
        let bearing = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bears(&headers, token)
        };
        assert!(bearing("Bearer secret") && bearing("bearer secret"));
        assert!(
            !bearing("Bearer secre") && !bearing("Bearer secret ") && !bearing("Basic secret") && !bearing("Bearer")
        );
        assert!(!bears(&HeaderMap::new(), token));
    }
}
