//! `/metrics`: figures for Prometheus. Labels are types of messages and the names of a bounded number of crews, never a subject or an id: whoever gathers
//! figures keeps each series, and anybody on this machine may read them.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use skep_rules::{
    crew_record::CrewPhase,
    limits::MAX_METERED_CREWS,
    message::Kind,
    quantity::Time,
    state::State as Records,
    traffic::{Counts, Traffic},
};

use crate::{
    host::Shared,
    http::{api::problem::Problem, problem::Answer},
    webhook::{Tally, Webhook},
};

/// The text format of Prometheus.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One figure of every type of message: its name, what it says, where it is.
type Figure = (&'static str, &'static str, fn(&Counts) -> u64);

const FIGURES: &[Figure] = &[
    ("sent", "Messages that were taken.", |counts| counts.sent),
    ("delivered", "Deliveries that were handled.", |counts| counts.delivered),
    ("dead", "Deliveries that ended as dead letters.", |counts| counts.dead),
    (
        "expired",
        "Deliveries that nobody had begun in time; most are dead letters as well.",
        |counts| counts.expired,
    ),
    (
        "refused",
        "Messages that were refused because a mailbox or the host was full.",
        |counts| counts.refused,
    ),
];

/// Read the host's figures, in the text format of Prometheus. Counters begin at zero with each start of the host.
#[utoipa::path(get, path = "/metrics", tag = "host", security(()),
    responses((status = 200, description = "Figures", body = String, content_type = "text/plain"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Answer<Response> {
    let driver = &shared.driver;
    let (traffic, mail) = driver.observe(|state, observed| (observed.traffic().clone(), mail(state)))?;
    let mut text = text(&traffic, &mail, driver.clock.now());
    webhooks(&mut text, &shared.webhooks);
    Ok(([(header::CONTENT_TYPE, FORMAT)], text).into_response())
}

/// What waits in the mailboxes of a crew: how many deliveries, and since when the oldest.
struct Mail {
    /// None for all crews beyond those that have a series of their own.
    crew: Option<String>,
    waiting: usize,
    oldest: Option<Time>,
}

/// The mail of every crew that lives, the oldest crews first: which have a series of their own does not change when another comes.
fn mail(state: &Records) -> Vec<Mail> {
    let mut rest = Mail {
        crew: None,
        waiting: 0,
        oldest: None,
    };
    let mut all = Vec::new();
    for crew in state.crews().filter(|crew| crew.phase != CrewPhase::Stopped) {
        let (waiting, oldest) = state.mail(crew.id).map_or((0, None), |(n, oldest)| (n, Some(oldest)));
        if all.len() < MAX_METERED_CREWS {
            all.push(Mail {
                crew: Some(crew.manifest.name.to_string()),
                waiting,
                oldest,
            });
        } else {
            rest.waiting += waiting;
            rest.oldest = rest.oldest.into_iter().chain(oldest).min();
        }
    }
    all.push(rest);
    all
}

fn text(traffic: &Traffic, mail: &[Mail], now: Time) -> String {
    let mut text = String::new();
    for (name, help, value) in FIGURES {
        let name = format!("skep_messages_{name}_total");
        head(&mut text, &name, help, "counter");
        for kind in Kind::ALL {
            line(&mut text, &name, "type", &kind.to_string(), value(&traffic.of(*kind)));
        }
    }
    let name = "skep_messages_waiting";
    let help = "Deliveries that have not ended, by crew; those of crews beyond the first hundred have no name.";
    head(&mut text, name, help, "gauge");
    for mail in mail {
        line(
            &mut text,
            name,
            "crew",
            mail.crew.as_deref().unwrap_or_default(),
            mail.waiting,
        );
    }
    let name = "skep_messages_oldest_seconds";
    head(
        &mut text,
        name,
        "The age of the oldest of them; 0 where there are none.",
        "gauge",
    );
    for mail in mail {
        let millis = mail.oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        let seconds = format!("{}.{:03}", millis / 1_000, millis % 1_000);
        line(
            &mut text,
            name,
            "crew",
            mail.crew.as_deref().unwrap_or_default(),
            seconds,
        );
    }
    text
}

/// How calls of webhooks went; each has a series, and there are few.
fn webhooks(text: &mut String, webhooks: &[Webhook]) {
    type Count = fn(&Tally) -> &AtomicU64;
    let figures: [(&str, &str, Count); 3] = [
        ("told", "Events that a webhook has taken.", |tally| &tally.told),
        ("failed", "Calls that it has not; most are made again.", |tally| {
            &tally.failed
        }),
        ("given_up", "Events that it will not be told of.", |tally| {
            &tally.given_up
        }),
    ];
    for (name, help, count) in figures.into_iter().filter(|_| !webhooks.is_empty()) {
        let name = format!("skep_webhook_{name}_total");
        head(text, &name, help, "counter");
        for webhook in webhooks {
            line(
                text,
                &name,
                "webhook",
                webhook.name(),
                count(webhook.tally()).load(Ordering::Relaxed),
            );
        }
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
}

/// One value. Names of crews and types need no escaping.
fn line(text: &mut String, name: &str, label: &str, value: &str, figure: impl std::fmt::Display) {
    writeln!(text, "{name}{{{label}=\"{value}\"}} {figure}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_every_crew_has_its_line() {
        let mail = |crew: Option<&str>, waiting, oldest| Mail {
            crew: crew.map(str::to_owned),
            waiting,
            oldest,
        };
        let all = [mail(Some("build"), 3, Some(Time(1_000))), mail(None, 0, None)];
        let text = text(&Traffic::default(), &all, Time(4_020));
        for kind in Kind::ALL {
            assert!(
                text.contains(&format!("skep_messages_sent_total{{type=\"{kind}\"}} 0\n")),
                "{text}"
            );
        }
        assert!(text.contains("# TYPE skep_messages_waiting gauge\nskep_messages_waiting{crew=\"build\"} 3\n"));
        assert!(text.contains("skep_messages_oldest_seconds{crew=\"build\"} 3.020\n"));
        assert!(text.ends_with("skep_messages_oldest_seconds{crew=\"\"} 0.000\n"));
    }
}
