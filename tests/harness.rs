//! What the whole-host tests share: the real binary in a temporary directory, the real HTTP, plugins made of the test guests. Nothing waits for
//! a time to pass; everything waits for a condition with a deadline.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use skep_rules::{
    id::Digest,
    manifest::Manifest,
    quantity::{Millis, Time},
    release::{Content, FORMAT, HOST_API, PAYLOAD_TYPE, Release},
};
use skep_runtime::signature::SecretKey;
use tempfile::TempDir;

/// Between the fields of an upload; no file of the tests holds it.
const BOUNDARY: &str = "a-boundary-of-the-tests";

/// How long a condition may take before a test fails: long enough for a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition gives something.
#[expect(clippy::disallowed_methods, reason = "tests wait in real time")]
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The binary, without anything of the caller's environment that could configure it.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SKEP_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts that both streams together hold some texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Run {
        for text in texts {
            assert!(
                self.stdout.contains(text) || self.stderr.contains(text),
                "`{text}` is missing\nstdout: {}\nstderr: {}",
                self.stdout,
                self.stderr
            );
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\nstderr: {}", self.stdout, self.stderr))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the binary to its end in a directory.
pub(crate) fn skep(directory: &Path, arguments: &[&str]) -> Run {
    binary()
        .current_dir(directory)
        .args(arguments)
        .output()
        .expect("the binary runs")
        .into()
}

/// A temporary directory.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Writes a file and gives its path as text.
pub(crate) fn write(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder can be made");
    fs::write(&path, bytes).expect("the file can be written");
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

/// A plugin of a test guest: `test/NAME` version 1.0.0, with what `manifest` adds.
pub(crate) fn plugin(name: &str, component: &[u8], manifest: &str) -> Vec<u8> {
    let text = format!("[plugin]\nname = \"test/{name}\"\nversion = \"1.0.0\"\n{manifest}");
    let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    skep_runtime::plugin::embed(component, &manifest).expect("the guest takes a manifest")
}

/// A component with a manifest that our own code did not embed, because it would refuse the component.
pub(crate) fn plugin_unchecked(component: &[u8]) -> Vec<u8> {
    let manifest = b"[plugin]\nname = \"test/unchecked\"\nversion = \"1.0.0\"\n";
    // A custom section: its id, its length, the length of its name, its name, its content.
    let content = [&[13_u8][..], b"skep:manifest", manifest].concat();
    let length = u8::try_from(content.len()).expect("a short manifest");
    [component, &[0, length], &content].concat()
}

/// The key that plugins of the publisher `test` are signed with. Not a secret.
pub(crate) fn key() -> SecretKey {
    key_of("test")
}

/// The key of a publisher: one key is one publisher's.
pub(crate) fn key_of(publisher: &str) -> SecretKey {
    SecretKey::from_random(Digest::of(publisher.as_bytes()).as_bytes())
}

/// The time.
#[expect(clippy::disallowed_methods, reason = "tests live in real time")]
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(u64::try_from(since.expect("the clock is past 1970").as_millis()).expect("and not past the year 584,556,019"))
}

/// The statement of a file: what a publisher would say of it, or, of a file that is no plugin, what a forger would. Every one is a newer release,
/// and none follows another directly, so that it need not name it.
pub(crate) fn release(file: &[u8]) -> Release {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let read = skep_runtime::plugin::read(file).ok();
    let about = read.as_ref().map(|plugin| &plugin.manifest.plugin);
    Release {
        format: FORMAT,
        plugin: about.map_or_else(|| "test/unchecked".parse().expect("a name"), |about| about.name.clone()),
        version: about.map_or_else(|| "1.0.0".parse().expect("a version"), |about| about.version.clone()),
        release_seq: NEXT.fetch_add(2, Ordering::Relaxed),
        previous: None,
        component: Content {
            sha256: Digest::of(file),
            size: file.len() as u64,
        },
        imports: read.iter().flat_map(|plugin| plugin.imports.iter().cloned()).collect(),
        exports: read
            .iter()
            .flat_map(|plugin| plugin.interfaces.iter().cloned())
            .collect(),
        host_api: HOST_API.parse().expect("a version"),
        not_before: now(),
        expires: now().after(Millis(86_400_000)),
        provenance: None,
        license: String::new(),
        contact: String::new(),
    }
}

/// An envelope of a statement, signed by these keys.
pub(crate) fn sign(release: &Release, keys: &[&SecretKey]) -> Vec<u8> {
    skep_runtime::signature::sign(PAYLOAD_TYPE, &release.to_json(), keys)
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// Asserts status and reason code of a problem document.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!(
            (self.status, problem["code"].as_str()),
            (status, Some(code)),
            "{problem}"
        );
        problem
    }
}

/// A host: the real `skep up` on a free port. It is killed when dropped.
pub(crate) struct Host {
    /// None for a host that lives in the process of the test.
    child: Option<Child>,
    data: PathBuf,
    pub(crate) address: String,
    pub(crate) token: String,
    _owned: Option<TempDir>,
}

impl Host {
    /// A fresh host.
    pub(crate) fn start() -> Host {
        let owned = directory();
        let mut host = Host::start_in(&owned.path().join("data"), &[]);
        host._owned = Some(owned);
        host
    }

    /// A host on a data directory, with further arguments of `skep up`.
    pub(crate) fn start_in(data: &Path, arguments: &[&str]) -> Host {
        let mut command = binary();
        command
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(arguments);
        Host::start_by(command, data)
    }

    /// A host that a command starts on a data directory, in the command's own process.
    pub(crate) fn start_by(mut command: Command, data: &Path) -> Host {
        let _ = fs::remove_file(data.join("host.json"));
        // Beside the data directory, which takes nothing that is not its own.
        let log = data.with_extension("log");
        let file = fs::File::create(&log).expect("the log can be made");
        let mut child = command
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary runs");
        let log = || fs::read_to_string(&log).unwrap_or_default();
        let about: Value = until("host.json", || {
            assert!(
                child.try_wait().expect("the child can be asked").is_none(),
                "the host ended: {}",
                log()
            );
            serde_json::from_slice(&fs::read(data.join("host.json")).ok()?).ok()
        });
        let address = about["url"]
            .as_str()
            .expect("host.json holds a URL")
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        let token = fs::read_to_string(data.join("admin.token"))
            .expect("admin.token is there")
            .trim()
            .to_owned();
        let host = Host {
            child: Some(child),
            data: data.to_owned(),
            address,
            token,
            _owned: None,
        };
        until("readyz", || {
            (host.send("GET", "/readyz", &[], b"").status == 200).then_some(())
        });
        host
    }

    /// A host in this process, to be talked to like the others.
    pub(crate) fn here(host: &skep::host::Host, data: &Path) -> Host {
        Host {
            child: None,
            data: data.to_owned(),
            address: host.url().trim_start_matches("http://").to_owned(),
            token: host.token().to_owned(),
            _owned: None,
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the host can be killed");
            child.wait().expect("the host can be waited for");
        }
    }

    /// Stops it in order, as SIGTERM does.
    pub(crate) fn stop(&mut self) {
        let pid = self.pid().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.expect("the host can be asked").success());
        let mut child = self.child.take().expect("it runs in a process of its own");
        let status = until("the host has stopped", || {
            child.try_wait().expect("the host can be waited for")
        });
        assert!(status.success(), "{status}");
    }

    /// Waits until it ends by itself: its exit code and what it had logged.
    pub(crate) fn ends(&mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().expect("it runs in a process of its own");
        let status = until("the host has ended", || {
            child.try_wait().expect("the host can be waited for")
        });
        let log = fs::read_to_string(self.data.with_extension("log"));
        (status.code(), log.expect("the log can be read"))
    }

    /// Kills it, unless it has stopped, and starts it again on the same data.
    pub(crate) fn restart(mut self) -> Host {
        self.kill();
        let owned = self._owned.take();
        let mut host = Host::start_in(&self.data.clone(), &[]);
        host._owned = owned;
        host
    }

    /// Whether it runs.
    pub(crate) fn lives(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid())).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs in a process of its own").id()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// A command against this host.
    pub(crate) fn skep(&self, arguments: &[&str]) -> Run {
        let url = format!("http://{}", self.address);
        let mut command = binary();
        command.args(arguments).args(["--host", &url, "--token", &self.token]);
        command.output().expect("the binary runs").into()
    }

    /// One request, as it is: headers besides Host are the caller's.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body)
            .unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// [`Host::send`] to a host that may be gone; then there is no answer.
    pub(crate) fn try_send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket takes a time-out");
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        stream
            .write_all(format!("{head}\r\n").as_bytes())
            .expect("the head is sent");
        // A host that refuses early may close before it has read all.
        let _ = stream.write_all(body);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("an answer has a status");
        Some(Answer {
            status,
            head,
            body: bytes[split + 4..].to_vec(),
        })
    }

    /// A request with the token and a JSON body.
    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let bearer = format!("Bearer {}", self.token);
        // Of interest only to those who change what somebody else may change too.
        let any = ("If-Match", "*");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            any,
        ];
        let most = if method == "PUT" {
            headers.len()
        } else {
            headers.len() - 1
        };
        self.send(method, path, &headers[..most], &bytes)
    }

    /// The audit entries of a kind, the oldest first.
    pub(crate) fn audited(&self, kind: &str) -> Vec<Value> {
        let (mut told, mut from) = (Vec::new(), "1".to_owned());
        loop {
            let page = self.get(&format!("/v1/audit?from={from}"));
            let entries = page["items"]
                .as_array()
                .expect("a page has items")
                .iter()
                .map(|row| row["entry"].clone());
            told.extend(entries.filter(|entry| entry["kind"] == kind));
            match page["next"].as_str() {
                Some(next) => from = next.to_owned(),
                None => return told,
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, &Value::Null);
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Trusts the tests' key for a publisher, with a ceiling that is above everything.
    pub(crate) fn trust(&self, publisher: &str) {
        let all = json!({"tier": "large", "files": "write", "workspace": "1GiB", "artifacts": "1GiB", "http": true, "state": "1GiB", "children": 1000});
        let key = key_of(publisher).public().to_string();
        let body = json!({"name": publisher, "release": {"keys": [key], "threshold": 1}, "ceiling": all});
        let answer = self.call("POST", "/v1/keys", &body);
        assert_eq!(answer.status, 200, "{}", answer.json());
    }

    /// Signs and installs a plugin, its publisher trusted and agreed to.
    pub(crate) fn install(&self, plugin: &[u8]) -> Answer {
        let release = release(plugin);
        let publisher = release.plugin.publisher().to_owned();
        let known = self.get("/v1/keys")["publishers"]
            .as_array()
            .is_some_and(|known| known.iter().any(|known| known["name"] == *publisher));
        if !known {
            self.trust(&publisher);
        }
        let envelope = sign(&release, &[&key_of(&publisher)]);
        let fields: &[(&str, &[u8])] = &[
            ("component", plugin),
            ("signature", &envelope),
            ("publisher", publisher.as_bytes()),
        ];
        self.upload("", fields)
    }

    /// Uploads fields as they are.
    pub(crate) fn upload(&self, query: &str, fields: &[(&str, &[u8])]) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut body = Vec::new();
        for (name, value) in fields {
            body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").bytes());
            body.extend_from_slice(value);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{BOUNDARY}--\r\n").bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let path = format!("/v1/plugins{query}");
        self.send(
            "POST",
            &path,
            &[("Authorization", &bearer), ("Content-Type", &kind)],
            &body,
        )
    }

    /// Installs a guest and assembles a crew of that name around it; waits until the crew is ready. `agent` is added to its `[[agent]]`.
    pub(crate) fn crew(&self, name: &str, component: &[u8], manifest: &str, agent: &str) -> String {
        self.install(&plugin(name, component, manifest)).json();
        self.assemble(&format!(
            "name = \"{name}\"\n[[agent]]\nname = \"{name}\"\nplugin = \"test/{name}@1.0.0\"\n{agent}"
        ))
    }

    /// Assembles a crew and waits until it is ready; its id.
    pub(crate) fn assemble(&self, manifest: &str) -> String {
        let path = self.data.with_extension("crew.toml");
        fs::write(&path, manifest).expect("the manifest can be written");
        let run = self
            .skep(&[
                "crew",
                "assemble",
                path.to_str().expect("temporary paths are UTF-8"),
                "--wait",
                "-o",
                "json",
            ])
            .exits(0);
        run.json()["crew_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", run.stdout))
            .to_owned()
    }

    /// Submits a task and waits for its end.
    pub(crate) fn run(&self, task: &Value) -> Value {
        let answer = self.call("POST", "/v1/tasks?wait=60s", task);
        assert!(
            matches!(answer.status, 200..=202),
            "{} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}
