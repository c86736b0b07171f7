//! A whole host in this process, over real connections.

use std::{path::Path, time::Duration};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use skep_rules::{
    limits::{APPROVAL_AGE, BUILD_LIFE, IDEMPOTENCY, MAX_MESSAGE_TTL},
    manifest::Manifest,
    quantity::{Millis, Time},
};

use crate::{
    clock::Clock,
    currency,
    host::{Host, Options},
};

type Http = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

/// A host with a client.
struct Fixture {
    host: Host,
    http: Http,
}

/// The program of these tests cannot be started as a compiler.
fn options(dir: &Path) -> Options {
    Options {
        compiler: skep_runtime::Compiler::InProcess,
        dev: true,
        ..Options::new(dir)
    }
}

async fn start(dir: &Path) -> Fixture {
    start_at(dir, Clock::system()).await
}

async fn start_at(dir: &Path, clock: Clock) -> Fixture {
    let options = Options { clock, ..options(dir) };
    let host = Host::start(options).await.unwrap();
    Fixture {
        host,
        http: Client::builder(TokioExecutor::new()).build_http(),
    }
}

impl Fixture {
    async fn send(&self, method: &str, path: &str, kind: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.host.url()))
            .header("authorization", format!("Bearer {}", self.host.token()))
            .header("content-type", kind);
        // Whatever the task has become.
        let request = match method {
            "PUT" => request.header("if-match", "*"),
            _ => request,
        };
        let response = self
            .http
            .request(request.body(Full::new(body.into())).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send("GET", path, "application/json", Bytes::new()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    /// Submits a task under an idempotency key.
    async fn ask(&self, key: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(format!("{}/v1/tasks", self.host.url()))
            .header("authorization", format!("Bearer {}", self.host.token()))
            .header("idempotency-key", key);
        let response = self
            .http
            .request(request.body(Full::new(body.to_string().into())).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    /// Uploads echo; the host takes what nobody signed.
    async fn install(&self) -> (StatusCode, Value) {
        self.upload(&echo()).await
    }

    async fn upload(&self, plugin: &[u8]) -> (StatusCode, Value) {
        let head = "--x\r\nContent-Disposition: form-data; name=\"component\"\r\n\r\n";
        let body = [head.as_bytes(), plugin, b"\r\n--x--\r\n"].concat();
        self.send("POST", "/v1/plugins", "multipart/form-data; boundary=x", body)
            .await
    }

    /// Installs echo and assembles a crew of `replicas` of it.
    async fn echo_crew(&self, replicas: u32) {
        let (status, plugin) = self.install().await;
        assert!(status.is_success(), "{plugin}");
        let crew = format!(
            "name = \"first\"\n[[agent]]\nname = \"echo\"\nplugin = \"skep/echo@0.1.0\"\nreplicas = {replicas}\n"
        );
        self.assemble(crew).await;
    }

    /// Assembles a crew and waits until it is ready.
    async fn assemble(&self, crew: String) {
        let (status, assembled) = self.send("POST", "/v1/crews/assemble", "application/toml", crew).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{assembled}");
        let path = format!("{}?wait=60s", assembled["endpoints"]["status"].as_str().unwrap());
        let (_, crew) = self.get(&path).await;
        assert_eq!(crew["status"], "ready", "{crew}");
    }
}

/// The bundled echo with its manifest.
fn echo() -> Vec<u8> {
    let echo = skep_bundled::get("echo").unwrap();
    skep_runtime::plugin::embed(echo.component, &Manifest::parse(echo.manifest).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_answered_and_outlives_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let fixture = start(&dir).await;
    assert_eq!(fixture.get("/readyz").await.0, StatusCode::OK);
    fixture.echo_crew(2).await;

    let (status, task) = fixture
        .post("/v1/tasks?wait=20s", json!({"description": "hello", "input": {"a": 1}}))
        .await;
    assert_eq!(
        (status, &task["state"]),
        (StatusCode::CREATED, &json!("COMPLETED")),
        "{task}"
    );
    let id = task["taskId"].as_str().unwrap().to_owned();
    let (_, tree) = fixture.get(&format!("/v1/tasks/{id}/tree")).await;
    assert_eq!(tree["task"]["taskId"], task["taskId"]);
    let (_, verified) = fixture.get("/v1/audit/verify").await;
    assert!(verified["rows"].as_u64().unwrap() >= 4, "{verified}");
    fixture.host.stop().await.unwrap();
    assert!(!dir.join("host.json").exists());

    let fixture = start(&dir).await;
    let (status, again) = fixture.get(&format!("/v1/tasks/{}", &id[..30])).await;
    assert_eq!((status, &again["result"]), (StatusCode::OK, &task["result"]), "{again}");
    let (_, crew) = fixture.get("/v1/crews/first/status?wait=60s").await;
    assert_eq!(crew["status"], "ready", "{crew}");
    let (_, listed) = fixture.get("/v1/tasks?state=COMPLETED").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_answers_the_same_and_refuses_another_request() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = start(&dir.path().join("data")).await;
    fixture.echo_crew(1).await;
    let (first, task) = fixture.ask("k1", json!({"description": "once"})).await;
    let (second, again) = fixture.ask("k1", json!({"description": "once"})).await;
    assert_eq!(
        (first, second, &task["taskId"]),
        (StatusCode::CREATED, StatusCode::OK, &again["taskId"])
    );
    let (third, problem) = fixture.ask("k1", json!({"description": "other"})).await;
    assert_eq!(
        (third, &problem["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency-mismatch"))
    );
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = start(&dir.path().join("data")).await;
    let cases: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("GET", "/v1/nothing", "", "", 404, "not-found"),
        ("PATCH", "/v1/tasks", "", "", 405, "invalid-input"),
        ("GET", "/v1/tasks?colour=red", "", "", 400, "invalid-input"),
        ("GET", "/v1/tasks?limit=101", "", "", 400, "invalid-input"),
        ("GET", "/v1/tasks/task_zz", "", "", 400, "invalid-input"),
        ("GET", "/v1/tasks/task_0193", "", "", 404, "not-found"),
        (
            "POST",
            "/v1/tasks",
            "application/json",
            "{\"description\": \"x\", \"colour\": 1}",
            400,
            "invalid-input",
        ),
        (
            "POST",
            "/v1/tasks",
            "application/json",
            "{\"description\": \"x\"}",
            404,
            "not-found",
        ),
        ("POST", "/v1/tasks", "application/json", "[]", 400, "invalid-input"),
        (
            "POST",
            "/v1/plugins",
            "application/wasm",
            "nonsense",
            400,
            "invalid-input",
        ),
        (
            "POST",
            "/v1/crews/assemble",
            "application/toml",
            "name = 1",
            422,
            "invalid-manifest",
        ),
        ("DELETE", "/v1/crews/none", "", "", 404, "not-found"),
        ("GET", "/v1/plugins/skep%2Fnone@1.0.0", "", "", 404, "not-found"),
        ("GET", "/v1/plugins/skep/none@1.0.0", "", "", 404, "not-found"),
    ];
    for (method, path, kind, body, status, code) in cases {
        let (found, problem) = fixture
            .send(method, path, kind, Bytes::from_static(body.as_bytes()))
            .await;
        assert_eq!(
            (found.as_u16(), &problem["code"]),
            (*status, &json!(code)),
            "{method} {path}: {problem}"
        );
    }
    let large = format!("{{\"description\": \"{}\"}}", "x".repeat(2 << 20));
    let (status, problem) = fixture.send("POST", "/v1/tasks", "application/json", large).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("body-limit"))
    );
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_described_and_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = start(&dir.path().join("data")).await;
    let (_, openapi) = fixture.get("/openapi.json").await;
    let paths = openapi["paths"].as_object().unwrap();
    assert!(paths.len() >= 17, "{:?}", paths.keys());
    for path in paths.keys().filter(|path| path.starts_with("/v1/")) {
        let uri = format!("{}{}", fixture.host.url(), path.replace(['{', '}'], "x"));
        let response = fixture.http.get(uri.parse().unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_once_durable() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = start(&dir.path().join("data")).await;
    let request = Request::get(format!("{}/v1/events", fixture.host.url()))
        .header("authorization", format!("Bearer {}", fixture.host.token()));
    let response = fixture
        .http
        .request(request.body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    fixture.install().await;
    let mut body = response.into_body();
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    assert!(
        text.contains("event: plugin") && text.contains("\"to\":\"changed\""),
        "{text}"
    );
    drop(body);
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_host_at_a_time_holds_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let fixture = start(&dir).await;
    let error = Host::start(options(&dir)).await.unwrap_err();
    assert_eq!(error.reason(), skep_rules::reason::Reason::DataDirectory);
    assert!(error.to_string().contains(fixture.host.url()), "{error}");
    let mut other = options(&dir.with_file_name("other"));
    other.listen = fixture.host.url().trim_start_matches("http://").parse().unwrap();
    let error = Host::start(other).await.unwrap_err();
    assert!(error.to_string().contains("port 0"), "{error}");
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_task_cannot_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = start(&dir.path().join("data")).await;
    fixture.echo_crew(1).await;
    let blocker = json!({"description": "goes first", "roles": ["echo"]});
    let (_, first) = fixture.post("/v1/tasks", blocker).await;
    let id = first["taskId"].as_str().unwrap();
    let waits = json!({"description": "waits", "dependencies": [id]});
    let (_, second) = fixture.post("/v1/tasks?wait=20s", waits).await;
    assert_eq!(second["state"], "COMPLETED", "{second}");
    let path = format!("/v1/tasks/{}", second["taskId"].as_str().unwrap());
    let cancel = |path: String| {
        let fixture = &fixture;
        async move {
            fixture
                .send("PUT", &path, "application/json", "{\"action\":\"cancel\"}")
                .await
        }
    };
    let (status, problem) = cancel(path).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::CONFLICT, &json!("illegal-transition")),
        "{problem}"
    );
    let (status, problem) = cancel(format!("/v1/tasks/task_{}", "0".repeat(32))).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::NOT_FOUND, &json!("not-found")),
        "{problem}"
    );
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_failed_answers_nobody_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = start(&dir.path().join("data")).await;
    let driver = std::sync::Arc::clone(&fixture.host.shared.driver);
    driver.fail(&"the disk is gone");
    driver.fail(&"a later complaint");
    let why = fixture.host.failed().await.to_string();
    assert!(why.contains("the disk is gone"), "the first failure is kept: {why}");
    let refused = driver.read(|_| ()).unwrap_err();
    assert!(matches!(refused, crate::driver::Error::Failed(_)), "{refused}");
    let stopped = fixture.host.stop().await.unwrap_err();
    assert!(matches!(stopped, crate::host::Error::Failed(_)), "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_says_how_current_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let built = currency::at(Time(0)).built_at;
    let clock = Clock::manual(built);
    let fixture = start_at(&dir.path().join("data"), clock.clone()).await;
    let (_, about) = fixture.get("/v1/host").await;
    let current = &about["currency"];
    assert_eq!(current, &serde_json::to_value(currency::at(built)).unwrap());
    assert_eq!(
        (&current["wasmtime"], &current["outdated"]),
        (&json!(skep_runtime::WASMTIME), &json!(false))
    );
    clock.advance(Millis(BUILD_LIFE.0 + 1));
    let (_, about) = fixture.get("/v1/host").await;
    assert_eq!(about["currency"]["outdated"], json!(true));
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_past_their_time_are_forgotten_at_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Time(1_800_000_000_000));
    let fixture = start_at(&dir.path().join("data"), clock.clone()).await;
    fixture.echo_crew(1).await;
    let driver = &fixture.host.shared.driver;
    let kept = || {
        let rows = driver
            .store
            .scan(skep_store::Table::new("idempotency"), &skep_store::Range::all(), 10);
        rows.unwrap().len()
    };
    let (_, first) = fixture.ask("old", json!({"description": "once"})).await;
    clock.advance(IDEMPOTENCY);
    fixture.ask("new", json!({"description": "once"})).await;
    driver.checkpoint().unwrap();
    // What a checkpoint finds goes with the next entry; nothing is past its time yet.
    fixture.ask("newer", json!({"description": "once"})).await;
    assert_eq!(kept(), 3);
    clock.advance(Millis(1));
    driver.checkpoint().unwrap();
    fixture.ask("newest", json!({"description": "once"})).await;
    assert_eq!(kept(), 3, "the oldest of four is gone");
    let (status, again) = fixture.ask("old", json!({"description": "once"})).await;
    assert_eq!(status, StatusCode::CREATED, "{again}");
    assert_ne!(first["taskId"], again["taskId"]);
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_past_their_time_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Time(1_800_000_000_000));
    let fixture = start_at(&dir.path().join("data"), clock.clone()).await;
    let (status, plugin) = fixture.install().await;
    assert!(status.is_success(), "{plugin}");
    let crew = "name = \"first\"\n[approvals]\nby_requester = true\n[[agent]]\nname = \"echo\"\nplugin = \"skep/echo@0.1.0\"\n";
    fixture.assemble(crew.to_owned()).await;
    let asks = async || {
        let task = json!({"description": "asks", "approval": {"before": true}});
        let (status, task) = fixture.post("/v1/tasks", task).await;
        assert_eq!(status, StatusCode::CREATED, "{task}");
        task["approval"].as_str().unwrap().to_owned()
    };
    let id = asks().await;
    let ruling = json!({"approvalId": id, "decision": "reject", "remark": "no"});
    let (status, ruled) = fixture.post("/v1/approvals", ruling).await;
    assert_eq!(status, StatusCode::OK, "{ruled}");
    let found = async || fixture.get(&format!("/v1/approvals/{id}")).await.0;
    let driver = &fixture.host.shared.driver;
    clock.advance(APPROVAL_AGE);
    driver.checkpoint().unwrap();
    // What a checkpoint finds goes with the next entry.
    asks().await;
    assert_eq!(found().await, StatusCode::OK);
    clock.advance(Millis(1));
    driver.checkpoint().unwrap();
    asks().await;
    assert_eq!(found().await, StatusCode::NOT_FOUND);
    fixture.host.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_past_their_time_are_forgotten_with_their_deliveries() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Time(1_800_000_000_000));
    let fixture = start_at(&dir.path().join("data"), clock.clone()).await;
    let grants = "state = { quota = \"1MiB\" }\ntasks = { children = 0 }\nmessages = { receive = [\">\"] }\n";
    let manifest = format!("[plugin]\nname = \"test/post\"\nversion = \"1.0.0\"\n[wants]\n{grants}");
    let manifest = Manifest::parse(&manifest).unwrap();
    let plugin = skep_runtime::plugin::embed(skep_built_guests::MESSAGES, &manifest).unwrap();
    let (status, installed) = fixture.upload(&plugin).await;
    assert!(status.is_success(), "{installed}");
    let crew =
        format!("name = \"post\"\n[[agent]]\nname = \"post\"\nplugin = \"test/post@1.0.0\"\n[agent.grants]\n{grants}");
    fixture.assemble(crew).await;
    let send = async |note: &str| {
        let message = json!({"type": "event", "subject": "done", "body": {"note": note}});
        let (status, sent) = fixture.post("/v1/messages?wait=60s", message).await;
        assert_eq!(
            (status, &sent["deliveries"][0]["state"]),
            (StatusCode::CREATED, &json!("COMPLETED")),
            "{sent}"
        );
        sent
    };
    let first = send("first").await;
    let task = format!("/v1/tasks/{}", first["deliveries"][0]["taskId"].as_str().unwrap());
    let message = format!("/v1/messages/{}", first["messageId"].as_str().unwrap());
    let driver = &fixture.host.shared.driver;
    let steps = || {
        driver
            .store
            .scan(crate::driver::STEPS, &skep_store::Range::all(), 10)
            .unwrap()
            .len()
    };
    assert_eq!(steps(), 1, "its record is in its table");
    clock.advance(MAX_MESSAGE_TTL);
    driver.checkpoint().unwrap();
    // What a checkpoint finds goes with the next entry; nothing is past its time yet.
    send("second").await;
    assert_eq!(
        (fixture.get(&task).await.0, fixture.get(&message).await.0, steps()),
        (StatusCode::OK, StatusCode::OK, 2)
    );
    clock.advance(Millis(1));
    driver.checkpoint().unwrap();
    send("third").await;
    let gone = StatusCode::NOT_FOUND;
    assert_eq!(
        (fixture.get(&task).await.0, fixture.get(&message).await.0, steps()),
        (gone, gone, 2)
    );
    fixture.host.stop().await.unwrap();
}
