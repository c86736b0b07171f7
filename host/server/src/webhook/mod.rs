//! Webhooks: programs outside that are told of what the audit log tells. The log remembers what happened and a row how far each webhook was told,
//! so there is no queue: an event is told at least once, in order, and again until it was taken or is a day old.

mod body;
mod call;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hyper::Uri;
use rustls::RootCertStore;
use skep_rules::{
    approval::Approval,
    audit::{AuditEntry, Kind},
    command::Command,
    limits::{WEBHOOK_AGE, WEBHOOK_DELAY, WEBHOOK_PAGE, WEBHOOK_PAUSE, WEBHOOK_REFUSALS},
    retry::Policy,
};
use skep_store::{AuditRow, Table};

use self::{
    body::{Secret, Telling},
    call::{Caller, Failed},
};
use crate::{
    driver::{APPROVALS, Driver, Error, decode},
    read,
};

/// How far webhooks were told: the name to the number of a row of the audit log (8 bytes, big-endian).
pub(crate) const WEBHOOKS: Table = Table::new("webhooks");

/// Somebody outside who is told of events.
#[derive(Debug, Clone)]
pub struct Webhook {
    name: String,
    uri: Uri,
    secret: Option<Secret>,
    events: BTreeSet<Kind>,
    format: Format,
    roots: Arc<RootCertStore>,
    tally: Arc<Tally>,
}

/// What a webhook is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `{"type", "timestamp", "data"}`, as Standard Webhooks has it.
    #[default]
    Json,
    /// `{"text"}`, as incoming webhooks of Slack, Mattermost and others take it.
    Slack,
}

/// What is said of a webhook.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// `https://…`; `http://` to a loopback address only.
    pub url: String,
    /// What calls are signed with: `whsec_` and 24 to 64 bytes in base64. Must be there unless the format is [`Format::Slack`].
    pub secret: Option<String>,
    /// Of what it is told. Default: of what a person should decide.
    pub events: Option<BTreeSet<Kind>>,
    /// What it is sent.
    pub format: Format,
    /// Certificates in PEM that may vouch for it, instead of those that Mozilla trusts.
    pub roots: Option<Vec<u8>>,
}

/// How its calls went since the start of the host.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) told: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) given_up: AtomicU64,
}

/// Of what a webhook is told that does not say.
const USUAL: [Kind; 3] = [Kind::ApprovalAsked, Kind::ApprovalEscalated, Kind::TaskPaused];

impl Webhook {
    /// A webhook under a name, which is how far it was told is remembered by.
    ///
    /// # Errors
    /// What is wrong with it, naming the key.
    pub fn new(name: &str, setup: Setup) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=64).contains(&name.len()) || !name.chars().all(plain) {
            return Err("a webhook is named by 1 to 64 of `a-z 0-9 -`".to_owned());
        }
        let uri: Uri = setup.url.trim().parse().map_err(|error| format!("url: {error}"))?;
        let host = uri.host().unwrap_or_default();
        let loopback = host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if loopback => {}
            _ => return Err("url: give an https:// address (http:// is for loopback addresses only)".to_owned()),
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err("url: a user and a password have no place in it".to_owned());
        }
        let secret = setup.secret.as_deref().map(str::trim).map(str::parse::<Secret>);
        let secret = secret.transpose().map_err(|error| format!("secret: {error}"))?;
        if secret.is_none() && setup.format == Format::Json {
            return Err("secret: calls are signed, so that whoever is called knows who calls; name the variable or the file that holds one".to_owned());
        }
        let events = setup.events.unwrap_or_else(|| USUAL.into());
        if events.is_empty() {
            return Err("events: it is told of nothing".to_owned());
        }
        if events.contains(&Kind::WebhookFailed) {
            return Err("events: a webhook is not told of `webhook-failed`, which would be told of again".to_owned());
        }
        Ok(Webhook {
            name: name.to_owned(),
            uri,
            secret,
            events,
            format: setup.format,
            roots: Arc::new(call::roots(setup.roots.as_deref()).map_err(|error| format!("ca: {error}"))?),
            tally: Arc::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// What was told to nobody.
#[derive(Default)]
struct Lost {
    rows: Vec<u64>,
    why: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows.as_slice() {
            [row] => write!(f, "row {row} of the audit log: {}", self.why),
            rows => {
                let (first, last) = (rows.first().unwrap_or(&0), rows.last().unwrap_or(&0));
                write!(
                    f,
                    "{} rows of the audit log from {first} to {last}, the last because of: {}",
                    rows.len(),
                    self.why
                )
            }
        }
    }
}

/// Tells a webhook of what happens, until the host stops or fails. One that is new begins with what happens from now on.
pub(crate) async fn keep(driver: Arc<Driver>, webhook: Webhook) {
    let Err(error) = tokio::select! {
        () = driver.stopping.cancelled() => return,
        () = driver.failed.cancelled() => return,
        ended = webhook.tell_all(&driver) => ended,
    };
    tracing::error!(webhook = webhook.name, %error, "it is told nothing more until the host starts again");
}

impl Webhook {
    async fn tell_all(&self, driver: &Arc<Driver>) -> Result<Infallible, Error> {
        let caller = Caller::new(&self.roots).map_err(|error| Error::Undecodable(error.to_string()))?;
        let mut durable = driver.store.subscribe();
        let mut through = self.begin(driver)?;
        loop {
            durable.borrow_and_update();
            let rows = self.rows(driver, through + 1).await?;
            let Some(last) = rows.last().map(|row| row.seq) else {
                if durable.changed().await.is_err() {
                    // The store is closed: the host ends.
                    std::future::pending::<()>().await;
                }
                let soon = driver.clock.now().after(WEBHOOK_PAUSE);
                driver.clock.sleep_until(soon).await;
                continue;
            };
            let mut lost = Lost::default();
            for row in rows {
                let seq = row.seq;
                if let Some((row, entry)) = self.wanted(row)? {
                    if let Err(why) = self.tell(driver, &caller, &row, &entry).await? {
                        lost.rows.push(seq);
                        lost.why = why;
                    }
                    driver.keep_cursor(&self.name, seq)?;
                }
            }
            if !lost.rows.is_empty() {
                let what = format!("{}: {lost}", self.name);
                driver.decide(Vec::new(), move |_, _, _| Ok(Command::NoteWebhook { what }))?;
            }
            through = last;
            driver.keep_cursor(&self.name, through)?;
        }
    }

    /// Through which row it was told.
    fn begin(&self, driver: &Driver) -> Result<u64, Error> {
        let kept = driver.store.get(WEBHOOKS, self.name.as_bytes())?;
        if let Some(through) = kept.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?))) {
            return Ok(through);
        }
        let newest = driver.store.audit_head()?.seq;
        driver.keep_cursor(&self.name, newest)?;
        Ok(newest)
    }

    async fn rows(&self, driver: &Arc<Driver>, from: u64) -> Result<Vec<AuditRow>, Error> {
        let driver = Arc::clone(driver);
        let rows = tokio::task::spawn_blocking(move || driver.store.audit(from, WEBHOOK_PAGE));
        Ok(rows.await.map_err(|error| Error::Failed(error.to_string().into()))??)
    }

    /// The row with its entry, where it is one of those that are to be told; what has expired cannot be.
    fn wanted(&self, row: AuditRow) -> Result<Option<(AuditRow, AuditEntry)>, Error> {
        let entry: Option<AuditEntry> = row.payload.as_deref().map(decode).transpose()?;
        let wanted = entry.filter(|entry| self.events.contains(&entry.kind));
        Ok(wanted.map(|entry| (row, entry)))
    }

    /// Tells of one event until it is taken or given up, which has a reason.
    async fn tell(
        &self,
        driver: &Driver,
        caller: &Caller,
        row: &AuditRow,
        entry: &AuditEntry,
    ) -> Result<Result<(), String>, Error> {
        let ((crew, open), position) = driver.read(|state| {
            let crew = entry.crew.and_then(|id| state.crew(id));
            let open = entry.approval.and_then(|id| state.approval(id)).map(read::approval);
            (crew.map(|crew| crew.manifest.name.to_string()), open)
        })?;
        driver.store.wait(position).await?;
        let approval = match (open, entry.approval) {
            (None, Some(id)) => driver
                .row::<Approval>(APPROVALS, &id.to_bytes())?
                .as_ref()
                .map(read::approval),
            (open, _) => open,
        };
        let telling = Telling {
            row,
            entry,
            crew,
            approval,
        };
        let (id, body) = (telling.id(), telling.body(self.format));
        let policy = Policy {
            cap: Some(WEBHOOK_DELAY),
            ..Policy::default()
        };
        let (mut attempt, mut refusals) = (0, 0);
        loop {
            attempt += 1;
            let now = driver.clock.now();
            let (why, wish) = match caller.call(self, &id, now, &body).await {
                Ok(()) => {
                    self.tally.told.fetch_add(1, Ordering::Relaxed);
                    return Ok(Ok(()));
                }
                Err(Failed::Refused(why)) => {
                    refusals += 1;
                    (why, None)
                }
                Err(Failed::Later(why, wish)) => (why, wish),
            };
            self.tally.failed.fetch_add(1, Ordering::Relaxed);
            let delay = wish
                .unwrap_or_else(|| policy.delay(row.seq, attempt))
                .min(WEBHOOK_DELAY);
            let again = driver.clock.now().after(delay);
            tracing::warn!(webhook = self.name, row = row.seq, attempt, %delay, why, "a call failed");
            if refusals >= WEBHOOK_REFUSALS || again.since(entry.at) > WEBHOOK_AGE {
                self.tally.given_up.fetch_add(1, Ordering::Relaxed);
                return Ok(Err(why));
            }
            driver.clock.sleep_until(again).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl";

    fn refusal(change: impl FnOnce(&mut Setup)) -> String {
        let mut setup = Setup {
            url: "https://example.com/hook".to_owned(),
            secret: Some(SECRET.to_owned()),
            ..Setup::default()
        };
        change(&mut setup);
        Webhook::new("on-call", setup).map_or_else(|why| why, |_| "taken".to_owned())
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(refusal(|_| {}), "taken");
        assert_eq!(refusal(|setup| setup.url = "http://[::1]:80/x".to_owned()), "taken");
        assert_eq!(refusal(|setup| setup.url = "http://127.0.0.1".to_owned()), "taken");
        for url in [
            "http://example.com/",
            "ftp://x/",
            "example.com",
            "http://127.0.0.1.example.com/",
            "http:///x",
        ] {
            let why = refusal(|setup| setup.url = url.to_owned());
            assert!(why.starts_with("url: "), "{url}: {why}");
        }
        let why = refusal(|setup| setup.url = "https://me:word@example.com/".to_owned());
        assert!(why.contains("password"), "{why}");
        let why = refusal(|setup| setup.secret = None);
        assert!(why.starts_with("secret: "), "{why}");
        let slack = |setup: &mut Setup| (setup.secret, setup.format) = (None, Format::Slack);
        assert_eq!(refusal(slack), "taken");
        for secret in ["", "whsec_", "whsec_c2hvcnQ=", "plJ3nmyCDGBKInavdOK15jsl", "whsec_?"] {
            let why = refusal(|setup| setup.secret = Some(secret.to_owned()));
            assert!(why.starts_with("secret: "), "{secret}: {why}");
        }
        let why = refusal(|setup| setup.events = Some([Kind::WebhookFailed].into()));
        assert!(why.starts_with("events: "), "{why}");
        let why = refusal(|setup| setup.roots = Some(b"nothing".to_vec()));
        assert!(why.starts_with("ca: "), "{why}");
    }

    #[test]
    fn secrets_are_shown_to_nobody() {
        let secret: Secret = SECRET.parse().unwrap();
        assert!(!format!("{secret:?}").contains("plJ3"));
    }
}
