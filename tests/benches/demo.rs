//! The binary as a user runs it: the demo on a large tree, and a warm start of a host.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{percentiles, round};

fn skep() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// 10,000 files and 100 MB of text that looks like source, with some secrets and marks in it.
fn tree(at: &Path) {
    let line =
        "    let value = compute(first, second, third).expect(\"the value is there\"); // a comment of some length\n";
    let mark = ["    // TO", "DO: look at this again\n"].concat();
    for n in 0..10_000_usize {
        let directory = at.join(format!("crate_{:02}/module_{:02}", n % 50, n / 50 % 20));
        fs::create_dir_all(&directory).expect("a directory can be made");
        let mut text = format!("//! Module {n}.\n\n");
        let wanted = 2_000 + n % 17 * 1_000;
        while text.len() < wanted {
            text.push_str(line);
            if text.len() % 41 == 0 {
                text.push_str(&mark);
            }
        }
        if n % 500 == 0 {
            text.push_str(&["const KEY: &str = \"AKIA", &format!("Q3EGRIZ7TZ5UL{n:03}"), "\";\n"].concat());
        }
        fs::write(directory.join(format!("file_{n}.rs")), text).expect("a file can be written");
    }
}

/// The most memory that a process ever held, in MiB, while it lives.
fn peak(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .ok()
        .map(|kib| kib / 1024.0)
}

pub(crate) fn demo() -> Vec<Value> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
    let source = directory.path().join("tree");
    tree(&source);
    let report = directory.path().join("report.html");
    let start = Instant::now();
    let mut child = skep()
        .arg("demo")
        .arg(&source)
        .arg("--report")
        .arg(&report)
        .spawn()
        .expect("the demo starts");
    let mut most = 0.0_f64;
    let status = loop {
        most = most.max(peak(child.id()).unwrap_or(0.0));
        if let Some(status) = child.try_wait().expect("the demo can be asked") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = start.elapsed().as_secs_f64();
    assert!(status.success(), "the demo failed: {status}");
    let report: Value = serde_json::from_slice(&fs::read(report.with_extension("json")).expect("the report is there"))
        .expect("it is JSON");
    assert_eq!(report["files"], 10_000, "every file was audited");
    vec![
        json!({"value": round(wall, 2), "unit": "s wall", "files": report["files"], "bytes": report["bytes"], "findings": report["findings"].as_array().map(Vec::len), "audit_ms": report["duration_ms"]}),
        json!({"value": round(most, 0), "unit": "MiB peak RSS"}),
    ]
}

/// From the start of the process to the first `/readyz` that says yes, with everything compiled before.
pub(crate) fn up() -> Vec<Value> {
    const COUNT: usize = 15;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
    let data = directory.path().join("data");
    // A demo that keeps its data leaves a host with seven plugins and a crew behind.
    let small = directory.path().join("small");
    fs::create_dir_all(&small).expect("a directory can be made");
    let status = skep()
        .current_dir(directory.path())
        .args(["demo", "small", "--keep", "--data-dir"])
        .arg(&data)
        .status()
        .expect("the demo runs");
    assert!(status.success(), "the demo failed: {status}");
    let samples = (0..COUNT)
        .map(|_| {
            drop(fs::remove_file(data.join("host.json")));
            let start = Instant::now();
            let mut child = skep()
                .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
                .arg(&data)
                .spawn()
                .expect("the host starts");
            while !ready(&data) {
                assert!(start.elapsed() < Duration::from_secs(30), "the host is never ready");
                std::thread::sleep(Duration::from_millis(1));
            }
            let took = start.elapsed();
            child.kill().expect("the host can be killed");
            child.wait().expect("it can be waited for");
            took
        })
        .collect();
    let (p50, p99) = percentiles(samples);
    vec![
        json!({"value": round(p50 / 1e3, 1), "unit": "ms", "p50": round(p50 / 1e3, 1), "p99": round(p99 / 1e3, 1), "n": COUNT}),
    ]
}

fn ready(data: &Path) -> bool {
    use std::io::{Read as _, Write as _};
    let ask = || {
        let about: Value = serde_json::from_slice(&fs::read(data.join("host.json")).ok()?).ok()?;
        let address = about["url"]
            .as_str()?
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        let mut stream = std::net::TcpStream::connect(&address).ok()?;
        write!(
            stream,
            "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
