//! One call of a webhook: a connection of its own, a bound on its time, and nothing read of the answer but its head.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use skep_rules::{
    limits::{WEBHOOK_DELAY, WEBHOOK_PATIENCE},
    quantity::{Millis, Time},
};

use super::Webhook;

/// Why a call has told nothing.
pub(super) enum Failed {
    /// The answer is about the call: the same call will mostly be answered so again.
    Refused(String),
    /// It may go better later, perhaps at a time that the other end has named.
    Later(String, Option<Millis>),
}

/// Makes calls.
#[derive(Debug)]
pub(super) struct Caller(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Caller {
    pub(super) fn new(roots: &Arc<RootCertStore>) -> Result<Self, rustls::Error> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth();
        // Plain HTTP is for loopback addresses, which the setup has seen to.
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        // A connection that lay idle may be gone, and a call is rare.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Caller(client))
    }

    /// Calls once. Redirects are not followed: whoever answers with one is not whom the operator named.
    pub(super) async fn call(&self, webhook: &Webhook, id: &str, now: Time, body: &[u8]) -> Result<(), Failed> {
        let seconds = now.0 / 1_000;
        let mut request = Request::post(webhook.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("skep/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds);
        if let Some(secret) = &webhook.secret {
            request = request.header("webhook-signature", secret.sign(id, seconds, body));
        }
        let later = |why: String| Failed::Later(why, None);
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body)))
            .map_err(|error| later(error.to_string()))?;
        let answer = tokio::time::timeout(WEBHOOK_PATIENCE.duration(), self.0.request(request)).await;
        let answer = answer.map_err(|_| later(format!("no answer within {WEBHOOK_PATIENCE}")))?;
        let answer = answer.map_err(|error| later(causes(&error)))?;
        let (status, why) = (answer.status(), format!("it answered {}", answer.status()));
        let busy = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if status.is_success() {
            Ok(())
        } else if status.is_server_error() || busy.contains(&status) {
            let seconds = answer.headers().get(header::RETRY_AFTER);
            let seconds = seconds.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            let wish = seconds.map(|seconds| Millis(seconds.saturating_mul(1_000)).min(WEBHOOK_DELAY));
            Err(Failed::Later(why, wish))
        } else {
            Err(Failed::Refused(why))
        }
    }
}

/// Who may vouch for the other end: the certificates of a file, or those that Mozilla trusts.
pub(super) fn roots(pem: Option<&[u8]>) -> Result<RootCertStore, String> {
    let Some(pem) = pem else {
        return Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it; a PEM file with one or more is wanted".to_owned());
    }
    Ok(roots)
}

/// An error with all its causes: what hyper says itself is little.
fn causes(error: &dyn std::error::Error) -> String {
    struct Chain<'a>(&'a dyn std::error::Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut source = self.0.source();
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
            Ok(())
        }
    }
    Chain(error).to_string()
}
