//! Webhooks of the real binary: an endpoint with a certificate of its own, which fails, refuses and is away in turn.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufReader, Write as _},
    net::TcpListener,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use sha2::Sha256;
use skep_built_guests::PROGRAM;

use crate::{
    harness::{Host, binary, directory, until, write},
    kills::{GRANTS, WANTS},
};

/// In base64, as the standard has it.
const KEY: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A call as it came in.
struct Call {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Call {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// By the words of the standard, not by the code of the host.
    fn is_signed(&self) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(&Base64::decode_vec(KEY).unwrap()).unwrap();
        let what = format!("{}.{}.", self.id(), self.headers["webhook-timestamp"]);
        mac.update(what.as_bytes());
        mac.update(&self.body);
        self.headers["webhook-signature"] == format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()))
    }
}

/// What it answers next; nothing at all where there is no answer. When no more are left it takes every call.
type Answers = Arc<Mutex<VecDeque<Option<&'static str>>>>;

/// Somebody outside who is told: HTTPS on a free loopback port.
struct Endpoint {
    url: String,
    calls: Receiver<Call>,
    answers: Answers,
}

impl Endpoint {
    /// Begins to listen; its certificate is written to `endpoint.pem`.
    fn start(directory: &Path) -> Endpoint {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        write(directory, "endpoint.pem", made.cert.pem());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}/hook?x=1", listener.local_addr().unwrap().port());
        let (told, calls) = channel();
        let answers = Answers::default();
        let (tls, turns) = (Arc::new(tls), Arc::clone(&answers));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
                // A caller that does not trust it goes away.
                let Some(call) = read(&mut stream) else { continue };
                let answer = turns.lock().unwrap().pop_front().unwrap_or(Some("204 No Content"));
                if let Some(answer) = answer {
                    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    // A host that was killed meanwhile does not hear it.
                    let _ = stream.get_mut().write_all(answer.as_bytes());
                    stream.get_mut().conn.send_close_notify();
                    let _ = stream.get_mut().flush();
                }
                if told.send(call).is_err() {
                    return;
                }
            }
        });
        Endpoint { url, calls, answers }
    }

    fn answers(&self, answers: &[Option<&'static str>]) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn called(&self) -> Call {
        self.calls.recv_timeout(Duration::from_secs(60)).expect("it is called")
    }

    /// The next call about something.
    fn told(&self, kind: &str) -> Call {
        loop {
            let call = self.called();
            if call.json()["type"] == kind {
                return call;
            }
        }
    }
}

fn read(stream: &mut impl std::io::BufRead) -> Option<Call> {
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
    });
    assert_eq!(lines.next()?, "POST /hook?x=1 HTTP/1.1");
    let headers: BTreeMap<String, String> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        })
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(Call { headers, body })
}

fn configured(directory: &Path, text: &str) -> std::path::PathBuf {
    let data = directory.join("data");
    write(&data, "host.toml", text);
    write(directory, "key", format!("whsec_{KEY}\n"));
    data
}

/// The id of a task that asks for a deployment.
fn asks(host: &Host, question: &str) -> String {
    let program = json!([{"ask": {"action": "deploy", "question": question, "items": [["eu", "{\"secret\": 1}"]]}}]);
    let answer = host.call("POST", "/v1/tasks", &json!({"description": "asks", "input": program}));
    assert_eq!(answer.status, 201, "{}", answer.json());
    let task = answer.json()["taskId"].as_str().unwrap().to_owned();
    until("it asks", || {
        let read = host.get(&format!("/v1/tasks/{task}"));
        assert_ne!(read["state"], "FAILED", "{read}");
        (read["state"] == "AWAITING_APPROVAL").then_some(())
    });
    task
}

#[test]
fn what_waits_for_a_person_is_told_signed_and_again_until_it_is_taken() {
    let directory = directory();
    let endpoint = Endpoint::start(directory.path());
    let data = configured(
        directory.path(),
        &format!(
            "[webhooks.on-call]\nurl = \"{}\"\nsecret = {{ file = \"{at}/key\" }}\nca = \"{at}/endpoint.pem\"\n\
             events = [\"approval-asked\", \"approval-decided\"]\n",
            endpoint.url,
            at = directory.path().display()
        ),
    );
    let host = Host::start_in(&data, &[]);
    host.crew("program", PROGRAM, WANTS, GRANTS);
    endpoint.answers(&[
        None,
        Some("500 No"),
        Some("429 Later"),
        Some("302 Found\r\nLocation: /elsewhere"),
    ]);
    let task = asks(&host, "now?");
    // The host is killed while it tries; what it tells then is about the same event.
    let first = endpoint.called();
    let (second, third) = (endpoint.called(), endpoint.called());
    let host = host.restart();
    let (fourth, fifth) = (endpoint.called(), endpoint.called());
    for call in [&first, &second, &third, &fourth, &fifth] {
        assert_eq!((call.id(), call.is_signed()), (first.id(), true));
        assert_eq!(call.headers["content-type"], "application/json");
    }
    let told = fifth.json();
    assert_eq!(told["type"], "approval-asked");
    assert_eq!(
        (&told["data"]["task"], &told["data"]["crewName"]),
        (&json!(task), &json!("program"))
    );
    let approval = &told["data"]["approval"];
    assert_eq!(
        (&approval["action"], &approval["items"]),
        (&json!("deploy"), &json!(["eu"]))
    );
    assert!(
        !told.to_string().contains("secret"),
        "arguments stay on the host: {told}"
    );

    // What comes after it is told in order, and what was taken is told no more, even by the next life.
    let id = approval["approvalId"].as_str().unwrap();
    host.skep(&["approval", "approve", id]).exits(0);
    let decided = endpoint.called();
    assert_eq!(
        (&decided.json()["type"], decided.is_signed()),
        (&json!("approval-decided"), true)
    );
    assert_ne!(decided.id(), first.id());
    until("it counts as told", || {
        let metrics = String::from_utf8(host.send("GET", "/metrics", &[], b"").body).unwrap();
        metrics
            .contains("skep_webhook_told_total{webhook=\"on-call\"} 2")
            .then_some(())
    });
    let again = asks(&host, "and now?");
    let third = endpoint.called();
    assert_eq!(third.json()["data"]["task"], json!(again));
    // The newest may be told once more by the next life, what was taken before that is not.
    let host = host.restart();
    let last = asks(&host, "once more?");
    loop {
        let call = endpoint.called();
        assert!(![first.id(), decided.id()].contains(&call.id()), "{}", call.json());
        if call.json()["data"]["task"] == json!(last) {
            break;
        }
        assert_eq!(call.id(), third.id());
    }
}

#[test]
fn a_chat_is_told_in_its_own_form_and_one_that_refuses_is_given_up() {
    let directory = directory();
    let (chat, strict) = (
        Endpoint::start(&directory.path().join("chat")),
        Endpoint::start(&directory.path().join("strict")),
    );
    let at = directory.path().display();
    let data = configured(
        directory.path(),
        &format!(
            "[webhooks.chat]\nurl = {{ env = \"SKEP_SECRET_CHAT\" }}\nformat = \"slack\"\nca = \"{at}/chat/endpoint.pem\"\n\
             [webhooks.strict]\nurl = \"{}\"\nsecret = {{ file = \"{at}/key\" }}\nca = \"{at}/strict/endpoint.pem\"\n\
             [webhooks.stranger]\nurl = \"{}\"\nsecret = {{ file = \"{at}/key\" }}\n",
            strict.url, strict.url
        ),
    );
    let mut command = binary();
    command.env("SKEP_SECRET_CHAT", &chat.url);
    command.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let host = Host::start_by(command, &data);
    host.crew("program", PROGRAM, WANTS, GRANTS);
    strict.answers(&[Some("400 Bad"); 5]);
    asks(&host, "<!channel> now?");
    let told = chat.called();
    assert!(!told.headers.contains_key("webhook-signature"));
    let text = told.json()["text"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("*deploy* waits for approval in crew *program*\n> &lt;!channel&gt; now?\nfor eu\nuntil "),
        "{text}"
    );
    for _ in 0..5 {
        strict.told("approval-asked");
    }
    let given_up = until("the audit log tells of it", || {
        host.audited("webhook-failed").into_iter().next()
    });
    let detail = given_up["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.starts_with("strict: row ") && detail.ends_with(": it answered 400 Bad Request"),
        "{detail}"
    );
    // What comes next is told.
    asks(&host, "again?");
    strict.told("approval-asked");
    // Whose certificate nobody vouches for is told nothing.
    let metrics = String::from_utf8(host.send("GET", "/metrics", &[], b"").body).unwrap();
    assert!(
        metrics.contains("skep_webhook_told_total{webhook=\"stranger\"} 0"),
        "{metrics}"
    );
    assert!(
        !metrics.contains("skep_webhook_failed_total{webhook=\"stranger\"} 0"),
        "{metrics}"
    );
}

#[test]
fn a_webhook_that_cannot_be_is_refused_with_its_place() {
    for (text, says) in [
        (
            "[webhooks.x]\nurl = \"http://example.com/\"\n",
            "host.toml:1:11: webhooks.x: url: give an https:// address",
        ),
        (
            "[webhooks.x]\nurl = \"https://example.com/\"\n",
            "webhooks.x: secret: calls are signed",
        ),
        (
            "[webhooks.x]\nurl = { env = \"SKEP_SECRET_NONE\" }\n",
            "the variable SKEP_SECRET_NONE is not set",
        ),
        (
            "[webhooks.x]\nurl = \"https://x/\"\nsecret = { file = \"/nowhere\" }\n",
            "cannot read /nowhere",
        ),
        (
            "[webhooks.x]\nurl = \"https://x/\"\nevents = [\"no-such\"]\n",
            "no-such",
        ),
        (
            "[webhooks.x]\nurl = \"https://x/\"\nkind = 1\n",
            "`webhooks.x.kind` is not a key",
        ),
    ] {
        let directory = directory();
        let data = configured(directory.path(), text);
        let run = binary()
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .output()
            .unwrap();
        let run = crate::harness::Run::from(run).exits(6);
        assert!(run.stderr.contains(says), "{text}: {}", run.stderr);
    }
}
