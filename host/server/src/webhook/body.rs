//! What a webhook is sent, and its signature: Standard Webhooks 1.0.0 (<https://www.standardwebhooks.com>), symmetric signatures.

use std::{fmt, str::FromStr};

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use skep_rules::{
    approval::Point,
    audit::{AuditEntry, Kind},
    id::Digest,
    limits::WEBHOOK_TEXT_BYTES,
    quantity::Time,
};
use skep_store::AuditRow;

use super::Format;
use crate::{http::api::approval::Approval, read};

/// What calls are signed with.
#[derive(Clone)]
pub(super) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text
            .strip_prefix("whsec_")
            .and_then(|text| Base64::decode_vec(text).ok());
        // 18 bytes are what the examples of the standard have.
        bytes
            .filter(|bytes| (18..=64).contains(&bytes.len()))
            .map(Secret)
            .ok_or("a secret is `whsec_` and 24 random bytes in base64: `echo whsec_$(head -c 24 /dev/urandom | base64)` makes one")
    }
}

impl Secret {
    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()))
    }
}

/// An event that is told.
pub(super) struct Telling<'a> {
    pub(super) row: &'a AuditRow,
    pub(super) entry: &'a AuditEntry,
    /// The name of its crew, while that lives.
    pub(super) crew: Option<String>,
    pub(super) approval: Option<Approval>,
}

impl Telling<'_> {
    /// The same for every call about this event, another for every other: the chain up to it is on no other host.
    pub(super) fn id(&self) -> String {
        let chain = Digest::from_bytes(self.row.chain).to_string();
        let hex: String = chain.trim_start_matches("sha256:").chars().take(32).collect();
        format!("event_{hex}")
    }

    pub(super) fn body(&self, format: Format) -> Vec<u8> {
        let body = match format {
            Format::Json => self.json(),
            Format::Slack => json!({ "text": self.text() }),
        };
        body.to_string().into_bytes()
    }

    fn json(&self) -> Value {
        let approval = self.approval.as_ref().map(|of| {
            // With what it would be done stays on the host: arguments may hold what the other end should not see.
            let items: Vec<&str> = of.items.iter().map(|item| item.name.as_str()).collect();
            json!({
                "approvalId": of.approval_id, "point": of.point, "action": of.action, "question": cut(&of.question), "items": items,
                "digest": of.digest, "requester": of.requester, "askedAt": of.asked_at, "expiresAt": of.expires_at, "settled": of.settled,
            })
        });
        let mut data = serde_json::to_value(self.entry).unwrap_or_default();
        if let Value::Object(data) = &mut data {
            data.remove("kind");
            data.insert("seq".to_owned(), self.row.seq.into());
            data.insert("crewName".to_owned(), self.crew.clone().into());
            data.insert("approval".to_owned(), approval.unwrap_or_default());
        }
        json!({ "type": read::audit_kind(self.entry.kind), "timestamp": iso(self.entry.at), "data": data })
    }

    /// For people. Agents have written some of it: none of that is more than text.
    fn text(&self) -> String {
        let crew = self.crew.as_ref().map(|name| format!(" in crew *{}*", plain(name)));
        let crew = crew.unwrap_or_default();
        let Some(approval) = &self.approval else {
            let task = self.entry.task.map(|task| format!(", {task}")).unwrap_or_default();
            let kind = read::audit_kind(self.entry.kind);
            return format!("`{kind}`{crew}{task}: {}", plain(&self.entry.detail));
        };
        let what = match approval.point {
            Point::Blocker => "An agent cannot go on without an answer".to_owned(),
            Point::Before => "A task waits for approval before it runs".to_owned(),
            Point::After => "A result waits for approval".to_owned(),
            Point::Action => format!("*{}* waits for approval", plain(&approval.action)),
        };
        let how = match self.entry.kind {
            Kind::ApprovalAsked => String::new(),
            Kind::ApprovalEscalated => "Asked again, nobody has answered: ".to_owned(),
            kind => format!("`{}`: ", read::audit_kind(kind)),
        };
        let mut text = format!("{how}{what}{crew}");
        for line in plain(&approval.question).lines() {
            text.push_str("\n> ");
            text.push_str(line);
        }
        if approval.point == Point::Action {
            let items: Vec<String> = approval.items.iter().map(|item| plain(&item.name)).collect();
            text.push_str(&format!("\nfor {}", cut(&items.join(", "))));
        }
        if approval.settled.is_none() {
            let (id, until) = (approval.approval_id, iso(approval.expires_at));
            text.push_str(&format!("\nuntil {until}: `skep approval show {id}`"));
        }
        text
    }
}

/// Text as Slack shows it, which has three characters that mean something else, and would take a `*` or a backtick for a format.
fn plain(text: &str) -> String {
    let text = cut(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.replace('`', "'").replace('*', "∗")
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(WEBHOOK_TEXT_BYTES))
        .unwrap_or_default()
}

fn iso(time: Time) -> String {
    let millis = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use skep_rules::id::{ApprovalId, CrewId, TaskId};

    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // From the test vectors of its libraries.
        let secret: Secret = "whsec_plJ3nmyCDGBKInavdOK15jsl".parse().unwrap();
        let body = br#"{"event_type":"ping","data":{"success":true}}"#;
        assert_eq!(
            secret.sign("msg_loFOjxBNrRLzqYUf", 1_731_705_121, body),
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
        );
    }

    fn approval(question: &str) -> Approval {
        Approval {
            approval_id: ApprovalId::drawn(TaskId::new(7, 0)),
            task: TaskId::new(7, 0),
            crew: CrewId::new(8, 0),
            point: Point::Action,
            action: "<!channel> *deploy*".to_owned(),
            question: question.to_owned(),
            items: vec![crate::http::api::approval::Item {
                name: "eu".to_owned(),
                arguments: "{\"token\":\"hunter2\"}".to_owned(),
                parsed: true,
                verdict: None,
            }],
            component: None,
            digest: Digest::of(b""),
            requester: "agent".to_owned(),
            asked_at: Time(0),
            expires_at: Time(86_400_000),
            on_timeout: Default::default(),
            escalated: 0,
            settled: None,
            settled_at: None,
        }
    }

    #[test]
    fn what_agents_write_is_text_and_arguments_stay_at_home() {
        let entry = AuditEntry::new(Time(1_000), Kind::ApprovalAsked, "asked");
        let row = AuditRow {
            seq: 3,
            payload: None,
            digest: [0; 32],
            chain: [1; 32],
        };
        let telling = Telling {
            row: &row,
            entry: &entry,
            crew: Some("shop".to_owned()),
            approval: Some(approval("why?\n<https://evil|here> & `x`")),
        };
        assert_eq!(telling.id(), "event_01010101010101010101010101010101");
        let slack: Value = serde_json::from_slice(&telling.body(Format::Slack)).unwrap();
        let id = telling.approval.as_ref().unwrap().approval_id;
        assert_eq!(
            slack["text"],
            format!(
                "*&lt;!channel&gt; ∗deploy∗* waits for approval in crew *shop*\n> why?\n> &lt;https://evil|here&gt; &amp; 'x'\nfor eu\n\
                 until 1970-01-02T00:00:00Z: `skep approval show {id}`"
            )
        );
        let json: Value = serde_json::from_slice(&telling.body(Format::Json)).unwrap();
        assert_eq!(
            (&json["type"], &json["timestamp"]),
            (&json!("approval-asked"), &json!("1970-01-01T00:00:01Z"))
        );
        assert_eq!(json["data"]["approval"]["items"], json!(["eu"]));
        assert!(!json.to_string().contains("hunter2"));
        let long = Telling {
            approval: Some(approval(&"<".repeat(100_000))),
            ..telling
        };
        assert!(long.text().len() < 40_000);
    }
}
