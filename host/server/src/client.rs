//! A client of the HTTP API: finds the host, shows it the token, and turns problem documents into failures with exit codes. It speaks plain
//! HTTP, which is what a host on the loopback address speaks.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming, header};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Serialize, de::DeserializeOwned};
use skep::http::api::{Page, host::HostFile, problem::Problem};
use skep_rules::{
    id::Digest,
    limits::{MAX_ARTIFACT_BYTES, MAX_WAIT},
    quantity::Millis,
};

use crate::{
    cli::{Exit, Global},
    failure::Failure,
};

/// How long an answer may take that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// What an answer may hold: the largest artifact, or the tree of a large objective.
const MAX_ANSWER_BYTES: usize = 64 << 20;
const _: () = assert!(
    MAX_ANSWER_BYTES as u64 > MAX_ARTIFACT_BYTES,
    "every artifact fits in an answer"
);
/// One event of a stream.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// A host to talk to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// `http://127.0.0.1:7410`, without a path.
    base: String,
    token: Option<String>,
    patience: Duration,
}

/// What is sent along.
enum Body {
    None,
    Json(Vec<u8>),
    /// A change of what was read at a revision.
    Changed(u64, Vec<u8>),
    Form(Form),
}

/// Fields to be uploaded (`multipart/form-data`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Form(Vec<(&'static str, Vec<u8>)>);

impl Form {
    /// The same with a field more.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The content type and the body. The boundary is a digest of all values: no value can hold it.
    fn encode(self) -> (String, Vec<u8>) {
        let digests: Vec<u8> = self
            .0
            .iter()
            .flat_map(|(_, value)| *Digest::of(value).as_bytes())
            .collect();
        let boundary = Digest::of(&digests).to_string();
        let mut body = Vec::new();
        for (name, value) in self.0 {
            let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        (format!("multipart/form-data; boundary={boundary}"), body)
    }
}

impl Client {
    /// The host that the flags name, or the one that holds the data directory.
    ///
    /// # Errors
    /// When no host holds it, or its files cannot be read.
    pub(crate) fn find(global: &Global, data_dir: &Path) -> Result<Self> {
        let base = match &global.host {
            Some(url) => url.clone(),
            None => Self::host_of(data_dir)?.url,
        };
        let token = match &global.token {
            Some(token) => Some(token.clone()),
            None if global.host.is_some() => None,
            None => Some(read_token(data_dir)?),
        };
        let patience = global.timeout.map_or(PATIENCE, |timeout| timeout.duration());
        Self::new(&base, token, patience)
    }

    /// A host at a known place.
    ///
    /// # Errors
    /// When the URL is not one of a host.
    pub(crate) fn new(base: &str, token: Option<String>, patience: Duration) -> Result<Self> {
        let base = base.trim_end_matches('/');
        let url: Option<Uri> = base.parse().ok();
        let good =
            url.is_some_and(|url| url.scheme_str() == Some("http") && url.authority().is_some() && url.path() == "/");
        if !good {
            return Err(Failure::usage(format!("`{base}` is not the URL of a host"))
                .next("use http://ADDRESS:PORT, as `skep up` prints it")
                .into());
        }
        Ok(Client {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            base: base.to_owned(),
            token,
            patience,
        })
    }

    /// What the host that holds a data directory wrote about itself.
    fn host_of(data_dir: &Path) -> Result<HostFile> {
        let path = data_dir.join("host.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("no host runs on {}", data_dir.display());
                Err(Failure::new(Exit::Unreachable, message)
                    .next("`skep up` starts one; --host URL or --data-dir DIR names another")
                    .into())
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(Method::GET, path, Body::None, Duration::ZERO).await
    }

    /// Reads something when it is final, or as it is after `wait`.
    pub(crate) async fn get_final<T: DeserializeOwned>(&self, path: &str, wait: Millis) -> Result<T> {
        let path = format!("{path}?wait={wait}");
        self.json(Method::GET, &path, Body::None, wait.duration()).await
    }

    /// Reads every page of a list. `path` may have a query.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        self.first(path, usize::MAX).await
    }

    /// Reads the pages of a list until so many items are there, and leaves out what is more.
    pub(crate) async fn first<T: DeserializeOwned>(&self, path: &str, most: usize) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page: Page<T> = match &after {
                None => self.get(path).await?,
                Some(after) => {
                    let joint = if path.contains('?') { '&' } else { '?' };
                    self.get(&format!("{path}{joint}after={}", escape(after))).await?
                }
            };
            items.extend(page.items);
            items.truncate(most);
            match page.next {
                Some(next) if after.as_ref() != Some(&next) && items.len() < most => after = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// Sends JSON and reads the answer, which may take `wait` longer than others.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T> {
        self.json(Method::POST, path, Body::Json(serde_json::to_vec(body)?), wait)
            .await
    }

    /// Deletes or ends something.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(Method::DELETE, path, Body::None, Duration::ZERO).await
    }

    /// Asks for a change of something that was read at a revision.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, revision: u64, body: &impl Serialize) -> Result<T> {
        let body = Body::Changed(revision, serde_json::to_vec(body)?);
        self.json(Method::PUT, path, body, Duration::ZERO).await
    }

    /// Sends a signed document as it is.
    pub(crate) async fn document<T: DeserializeOwned>(&self, path: &str, envelope: Vec<u8>) -> Result<T> {
        self.json(Method::POST, path, Body::Json(envelope), Duration::ZERO)
            .await
    }

    /// Uploads a plugin.
    pub(crate) async fn upload<T: DeserializeOwned>(&self, path: &str, form: Form) -> Result<T> {
        // It waits for its turn at the compiler, and for the compiler.
        self.json(Method::POST, path, Body::Form(form), MAX_WAIT.duration())
            .await
    }

    /// Reads bytes.
    pub(crate) async fn bytes(&self, path: &str) -> Result<Bytes> {
        let response = self.send(Method::GET, path, Body::None, Duration::ZERO).await?;
        self.collect(response).await
    }

    /// Asks for bytes, however many, and gives them away as they come.
    pub(crate) async fn download(
        &self,
        method: Method,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let response = self.send(method, path, Body::None, Duration::ZERO).await?;
        let mut body = response.into_body();
        loop {
            match tokio::time::timeout(self.patience, body.frame()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(frame))) => take(frame.data_ref().map_or(&[][..], |part| part))?,
                Ok(Some(Err(error))) => anyhow::bail!("{}: the answer broke off: {error}", self.base),
                Err(_) => return Err(self.late().into()),
            }
        }
    }

    /// Whether the host is there and takes work.
    pub(crate) async fn answers(&self) -> bool {
        self.send(Method::GET, "/readyz", Body::None, Duration::ZERO)
            .await
            .is_ok()
    }

    /// Follows a stream of events.
    pub(crate) async fn events(&self, path: &str) -> Result<Events> {
        let response = self.send(Method::GET, path, Body::None, Duration::ZERO).await?;
        Ok(Events {
            body: response.into_body(),
            parser: Parser::default(),
        })
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body, wait: Duration) -> Result<T> {
        let response = self.send(method, path, body, wait).await?;
        let bytes = self.collect(response).await?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{}{path} answered what this version does not read", self.base))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes> {
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
        match tokio::time::timeout(self.patience, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(anyhow::anyhow!("{}: the answer broke off: {error}", self.base)),
            Err(_) => Err(self.late().into()),
        }
    }

    /// Sends a request; an answer that is not a success becomes a failure.
    async fn send(&self, method: Method, path: &str, body: Body, wait: Duration) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let (request, bytes) = match body {
            Body::None => (request, Vec::new()),
            Body::Json(bytes) => (request.header(header::CONTENT_TYPE, "application/json"), bytes),
            Body::Changed(revision, bytes) => {
                let request = request.header(header::IF_MATCH, format!("\"{revision}\""));
                (request.header(header::CONTENT_TYPE, "application/json"), bytes)
            }
            Body::Form(form) => {
                let (kind, bytes) = form.encode();
                (request.header(header::CONTENT_TYPE, kind), bytes)
            }
        };
        let request = request.body(Full::from(bytes)).context("the request cannot be sent")?;
        let answer = tokio::time::timeout(self.patience + wait, self.pool.request(request)).await;
        let response = match answer {
            Err(_) => return Err(self.late().into()),
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
                return Err(
                    Failure::new(Exit::Unreachable, format!("no host answers at {}: {cause}", self.base))
                        .next("`skep up` starts one; --host URL or --data-dir DIR names another")
                        .into(),
                );
            }
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.collect(response).await?;
        Err(refusal(status, &bytes).into())
    }

    fn late(&self) -> Failure {
        Failure::new(Exit::TimedOut, format!("{} did not answer in time", self.base)).next("--timeout gives it longer")
    }
}

/// The failure that a host's answer says.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let legal = match problem.legal.as_slice() {
                [] => String::new(),
                legal => format!(" (possible: {})", legal.join(", ")),
            };
            Failure::of(problem.code, format!("{}{legal}", problem.detail)).next(problem.next)
        }
        Err(_) => {
            Failure::new(Exit::Failure, format!("the host answered {status}")).next("see that --host names a Skep host")
        }
    }
}

fn read_token(data_dir: &Path) -> Result<String> {
    let path = data_dir.join("admin.token");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(
            Exit::Denied,
            format!("cannot read the token in {}: {error}", path.display()),
        )
        .next("--token TOKEN or SKEP_TOKEN gives one")
    })?;
    Ok(text.trim().to_owned())
}

/// A text as one segment of a path or one value of a query.
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// A stream of events under way.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    parser: Parser,
}

impl Events {
    /// The data of the next event; `None` at the end of the stream, or where events were lost.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some((name, data)) = self.parser.pop() {
                if name == "gone" || name == "end" {
                    return Ok(None);
                }
                return Ok(Some(
                    serde_json::from_str(&data).context("the host told an event that this version does not read")?,
                ));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.context("the stream of events broke off")?;
                    if let Ok(bytes) = frame.into_data() {
                        self.parser.push(&bytes)?;
                    }
                }
            }
        }
    }
}

/// Reads server-sent events piece by piece; comments and fields other than `event` and `data` are left out.
#[derive(Debug, Default)]
struct Parser {
    /// Bytes after the last line end.
    rest: Vec<u8>,
    /// The name and the data of the event that is not complete yet.
    name: String,
    data: Option<String>,
    complete: std::collections::VecDeque<(String, String)>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\r', '\n']));
        }
        let held = self.rest.len() + self.data.as_ref().map_or(0, String::len);
        anyhow::ensure!(
            held <= MAX_EVENT_BYTES,
            "the host told an event of more than {MAX_EVENT_BYTES} bytes"
        );
        Ok(())
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            self.complete.extend(self.data.take().map(|data| (name, data)));
        } else if let Some(name) = line.strip_prefix("event:") {
            name.trim().clone_into(&mut self.name);
        } else if let Some(value) = line.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
    }

    fn pop(&mut self) -> Option<(String, String)> {
        self.complete.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use skep_rules::reason::Reason;

    use super::*;

    #[test]
    fn events_are_read_across_pieces_and_comments_are_left_out() {
        let mut parser = Parser::default();
        for piece in [
            ": hello\n\nid: 1\nevent: x\nda",
            "ta: {\"a\":\r\ndata: 1}\n",
            "\ndata:2\n\n",
        ] {
            parser.push(piece.as_bytes()).unwrap();
        }
        assert_eq!(parser.pop(), Some(("x".to_owned(), "{\"a\":\n1}".to_owned())));
        assert_eq!(
            (parser.pop(), parser.pop()),
            (Some((String::new(), "2".to_owned())), None)
        );
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'x'; MAX_EVENT_BYTES + 1]).is_err());
    }

    #[test]
    fn a_problem_leaves_with_the_code_of_its_kind() {
        let body = br#"{"type":"urn:skep:not-found","title":"There is no such thing.","status":404,"detail":"no task `x`","code":"not-found","next":"list them"}"#;
        let failure = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!((failure.exit, failure.reason), (Exit::NotFound, Some(Reason::NotFound)));
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>").exit, Exit::Failure);
    }

    #[test]
    fn only_plain_urls_of_hosts_are_taken() {
        let new = |url: &str| Client::new(url, None, PATIENCE);
        assert!(new("http://127.0.0.1:7410/").is_ok());
        for bad in [
            "127.0.0.1:7410",
            "https://127.0.0.1",
            "http://",
            "http://x/v1",
            "ftp://x",
        ] {
            assert!(new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_is_escaped_for_paths() {
        assert_eq!(escape("skep/echo@0.1.0 ü"), "skep%2Fecho%400.1.0%20%C3%BC");
    }
}
