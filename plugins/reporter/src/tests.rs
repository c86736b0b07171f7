use super::*;
use skep_scan::batch::{Count, Finding, Kind, Report as ScanReport, Scan};
use skep_sdk::{Dependency, Ended, Payload};

fn dependency(name: &str, output: Option<&ScanReport>) -> Dependency {
    let ended = if output.is_some() {
        Ended::Completed
    } else {
        Ended::Failed
    };
    Dependency {
        name: name.to_owned(),
        ended,
        output: output.map(|report| Payload::json(report).unwrap()),
        reason: None,
    }
}

fn finding(kind: Kind, rule: &str, file: &str, line: u64, excerpt: &str) -> Finding {
    Finding {
        kind,
        rule: rule.to_owned(),
        file: file.to_owned(),
        line,
        excerpt: excerpt.to_owned(),
    }
}

fn facts() -> serde_json::Value {
    json!({
        "root": "/home/ada/project", "started_at_ms": 1_798_761_596_000_u64, "now_ms": 1_798_761_599_400_u64,
        "denied": [
            {"agent": "intruder-1", "attempt": "read a file outside its mounts", "code": "mount-denied", "detail": "open /etc/passwd"},
            {"agent": "intruder-1", "attempt": "allocate 4 GiB", "code": "memory-limit", "detail": ""},
        ],
        "tasks": {"total": 14, "completed": 12, "failed": 2},
        "agents": [{"name": "secrets-1", "plugin": "skep/secrets@0.1.0", "fuel": 1_234_567_890_u64, "tasks": 4, "peak_memory_bytes": 3_400_000}],
    })
}

fn task(dependencies: Vec<Dependency>) -> Task {
    let mut task = Task::new(
        "report",
        &json!({"root": "/input", "files": 1234, "bytes": 5_678_901, "unreadable": 0}),
    )
    .unwrap();
    task.facts = Some(serde_json::to_vec(&facts()).unwrap());
    task.dependencies = dependencies;
    task
}

/// The outcome, the JSON report and the page.
fn run(task: Task) -> (serde_json::Value, serde_json::Value, String) {
    let Outcome::Done(payload) = Reporter::execute(task).unwrap() else {
        panic!("a report is done")
    };
    let outcome: serde_json::Value = payload.parse().unwrap();
    let read = |form: &str| {
        let digest = outcome[form]["digest"].as_str().unwrap().to_owned();
        let artifact = Artifact {
            digest,
            size: outcome[form]["size"].as_u64().unwrap(),
            media: String::new(),
        };
        artifacts::read_all(&artifact).unwrap()
    };
    let (json, html) = (
        serde_json::from_slice(&read("json")).unwrap(),
        String::from_utf8(read("html")).unwrap(),
    );
    (outcome, json, html)
}

fn reports() -> [ScanReport; 3] {
    let mut secrets = ScanReport::new(Scan::Secrets);
    secrets.findings = vec![
        finding(Kind::Secret, "aws-access-key", "src/z.rs", 12, "AKIA…****"),
        finding(
            Kind::Secret,
            "github-token",
            "src/<script>alert(1)</script>.rs",
            3,
            "\"><img src=x onerror=alert(1)> ghp_…****",
        ),
    ];
    let mut licenses = ScanReport::new(Scan::Licenses);
    licenses.findings = vec![
        finding(Kind::License, "spdx-tag", "a.rs", 1, "MIT"),
        finding(Kind::License, "no-license", "b.rs", 0, "none"),
    ];
    let mut todos = ScanReport::new(Scan::Todos);
    todos.truncated = 7;
    todos.findings = vec![finding(Kind::Todo, "todo", "a.rs", 9, "TODO")];
    todos
        .languages
        .insert("Rust".to_owned(), Count { files: 3, lines: 3000 });
    [secrets, licenses, todos]
}

#[test]
fn the_json_report_has_the_promised_shape_and_order() {
    let [secrets, licenses, todos] = reports();
    let (outcome, json, _) = run(task(vec![
        dependency("secrets/0001", Some(&secrets)),
        dependency("licenses/0001", Some(&licenses)),
        dependency("todos/0001", Some(&todos)),
        dependency("todos/0002", Some(&todos)),
        dependency("drill/memory", None),
    ]));
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "root",
        "files",
        "bytes",
        "findings",
        "findings_left_out",
        "languages",
        "denied",
        "tasks",
        "agents",
        "duration_ms",
    ]
    .to_vec();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(json["root"], "/home/ada/project");
    assert_eq!(json["duration_ms"], 3400);
    assert_eq!(json["findings_left_out"], 14);
    assert_eq!(
        json["denied"][0],
        json!({"agent": "intruder-1", "attempt": "read a file outside its mounts", "code": "mount-denied"})
    );
    assert_eq!(json["languages"], json!({"Rust": {"files": 6, "lines": 6000}}));
    assert_eq!(json["agents"], facts()["agents"]);
    let order: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["file"].as_str().unwrap())
        .collect();
    assert_eq!(
        order,
        [
            "a.rs",
            "b.rs",
            "src/<script>alert(1)</script>.rs",
            "src/z.rs",
            "a.rs",
            "a.rs"
        ]
    );
    assert_eq!(
        outcome["summary"],
        json!({"files": 1234, "bytes": 5_678_901, "secrets": 2, "licenses": 2, "todos": 16, "denied": 2})
    );
    assert_eq!(outcome["html"]["media"], "text/html");
}

#[test]
fn the_page_escapes_everything_and_loads_nothing() {
    let (_, _, html) = run(task(vec![
        dependency("secrets/0001", Some(&reports()[0])),
        dependency("todos/0001", None),
    ]));
    assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
    assert!(html.contains("src/&lt;script&gt;alert(1)&lt;/script&gt;.rs"));
    assert!(html.contains("default-src &#39;none&#39;") || html.contains("default-src 'none'"));
    for reference in ["http://", "https://", "url(", "@import", "src="] {
        let harmless = if reference == "src=" { 1 } else { 0 };
        assert_eq!(html.matches(reference).count(), harmless, "{reference}");
    }
    assert!(html.contains("1 scan gave no result"), "a missing scan is said");
    assert!(html.contains("The path lies outside what the agent was given"));
}

#[test]
fn an_empty_tree_makes_a_report_too() {
    let mut task = task(Vec::new());
    task.facts = None;
    let (outcome, json, html) = run(task);
    assert_eq!(outcome["summary"]["secrets"], 0);
    assert_eq!((&json["root"], &json["findings"]), (&json!("/input"), &json!([])));
    assert!(html.contains("None found."));
}

#[test]
fn a_giant_tree_fits_the_bound_and_says_what_is_left_out() {
    let mut todos = ScanReport::new(Scan::Todos);
    let path = "\u{1}".repeat(1000);
    todos.findings = (0..200)
        .map(|line| finding(Kind::Todo, "todo", &path, line, "TODO"))
        .collect();
    let dependencies = (0..30).map(|index| {
        let mut reference = dependency(&format!("todos/{index:04}"), None);
        let bytes = serde_json::to_vec(&todos).unwrap();
        reference.output = Some(Payload::Artifact(
            artifacts::write_all(artifacts::JSON, &bytes).unwrap(),
        ));
        reference
    });
    let (outcome, json, html) = run(task(dependencies.collect()));
    let listed = u64::try_from(json["findings"].as_array().unwrap().len()).unwrap();
    assert_eq!(listed + json["findings_left_out"].as_u64().unwrap(), 6000);
    assert!(listed > 500 && outcome["json"]["size"].as_u64().unwrap() < 10 << 20);
    assert_eq!(outcome["summary"]["todos"], 6000);
    assert!(html.contains("And 5,500 more findings"));
}
