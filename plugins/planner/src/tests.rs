//! Every file in `tests/golden/plans/good` and `bad` is a case: a document, or a folder of them, beside the plan or the message that it gives.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use skep_sdk::{Node, Retry};

use super::*;

fn golden(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/plans")
        .join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            !name.ends_with(".plan.json") && !name.ends_with(".txt")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// The file that holds what a case gives: the name of the case and an ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn note(path: &Path) -> Note {
    Note {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(path).unwrap(),
    }
}

/// The plan of a case, given along as notes.
fn planned(path: &Path) -> Result<Plan, Failure> {
    let mut notes = Vec::new();
    if path.is_dir() {
        let mut files: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        notes.extend(files.iter().map(|file| note(file)));
    } else {
        notes.push(note(path));
    }
    Documents::plan(Task::new("an objective", &Value::Null).unwrap(), notes)
}

/// The plan as people write it: nothing that is as it is by default.
fn shown(plan: &Plan) -> Value {
    let nodes: Vec<Value> = plan.nodes.iter().map(shown_node).collect();
    match plan.verify_before_next {
        true => json!({"nodes": nodes, "verifyBeforeNext": true}),
        false => json!({"nodes": nodes}),
    }
}

fn shown_node(node: &Node) -> Value {
    let schema = |schema: &Option<String>| {
        schema
            .as_deref()
            .map(|text| serde_json::from_str::<Value>(text).unwrap())
    };
    let word = |variant: &str| variant.rsplit("::").next().unwrap().to_lowercase();
    let slots: Vec<Value> = node
        .slots
        .iter()
        .map(|slot| json!({"field": slot.field, "node": slot.node, "schema": schema(&slot.schema)}))
        .collect();
    let all = json!({
        "name": node.name,
        "description": node.description,
        "roles": node.roles,
        "input": node.input.parse::<Value>().unwrap(),
        "dependencies": node.dependencies,
        "check": node.check,
        "optional": node.optional,
        "integrates": node.integrates,
        "retry": said(json!({
            "maxRetries": node.retry.max_retries, "initialDelay": node.retry.initial_delay, "factorPercent": node.retry.factor_percent,
            "maxDelay": node.retry.max_delay, "jitterPercent": node.retry.jitter_percent, "nonRetryable": node.retry.non_retryable,
        })),
        "timeouts": said(json!({
            "scheduleToStart": node.timeouts.schedule_to_start, "startToClose": node.timeouts.start_to_close,
            "scheduleToClose": node.timeouts.schedule_to_close,
        })),
        "plan": node.plan,
        "lane": node.lane,
        "priority": node.priority.map(|priority| word(&format!("{priority:?}"))),
        "approval": node.approval.map(|point| word(&format!("{point:?}"))),
        "note": node.note,
        "output": schema(&node.output),
        "slots": slots,
    });
    said(all)
}

/// An object without what says nothing.
fn said(all: Value) -> Value {
    let Value::Object(all) = all else { unreachable!() };
    let said = all
        .into_iter()
        .filter(|(_, value)| ![json!(null), json!(false), json!([]), json!({})].contains(value));
    Value::Object(said.collect::<Map<_, _>>())
}

#[test]
fn good_documents_give_their_plans() {
    for path in golden("good") {
        let plan = planned(&path).unwrap_or_else(|failure| panic!("{}: {}", path.display(), failure.message));
        let expected = fs::read_to_string(beside(&path, ".plan.json")).unwrap_or_default();
        let made = format!("{:#}\n", shown(&plan));
        assert_eq!(made, expected, "{} gives:\n{made}", path.display());
    }
}

#[test]
fn bad_documents_say_what_is_wrong_and_where() {
    for path in golden("bad") {
        let failure = planned(&path).expect_err(&path.display().to_string());
        let expected = fs::read_to_string(beside(&path, ".txt")).unwrap_or_default();
        let made = format!("{}\n", failure.message);
        assert_eq!(made, expected, "{} gives:\n{made}", path.display());
        assert_eq!(failure.retry, Retry::Never);
    }
}

fn plan_of(input: &Value, notes: &[(&str, &str)]) -> Result<Plan, Failure> {
    let notes = notes.iter().map(|(name, text)| Note {
        name: (*name).to_owned(),
        text: (*text).to_owned(),
    });
    Documents::plan(Task::new("an objective", input).unwrap(), notes.collect())
}

#[test]
fn the_input_may_be_the_document() {
    for input in [
        json!("- [ ] a: first"),
        json!("[{\"name\": \"a\", \"description\": \"first\"}]"),
        json!([{"name": "a", "description": "first"}]),
        json!({"nodes": [{"name": "a", "description": "first"}]}),
    ] {
        let node = &plan_of(&input, &[]).unwrap().nodes[0];
        assert_eq!(
            (node.name.as_str(), node.description.as_str()),
            ("a", "first"),
            "{input}"
        );
        assert_eq!(node.note, None);
    }
    let raw = |text: &str| Task {
        input: Payload::Inline(text.as_bytes().to_vec()),
        ..Task::new("an objective", &()).unwrap()
    };
    assert_eq!(
        Documents::plan(raw("1. a: first"), Vec::new()).unwrap().nodes[0].name,
        "a"
    );
    let broken = Documents::plan(raw("[{]"), Vec::new()).unwrap_err();
    assert!(broken.message.contains("--> input:1:3\n"), "{}", broken.message);
}

#[test]
fn an_input_that_is_no_document_is_left_alone() {
    let notes = [("a.md", "- [ ] a: first")];
    for input in [json!(null), json!(7), json!({"goal": "tidy up"}), json!("tidy up")] {
        assert_eq!(plan_of(&input, &notes).unwrap().nodes.len(), 1, "{input}");
    }
}

#[test]
fn tasks_of_the_input_name_their_note_where_there_are_any() {
    let notes = [("a.md", "- [ ] a: first")];
    let failure = plan_of(&json!([{"name": "b"}]), &notes).unwrap_err();
    assert!(
        failure.message.starts_with("`b` comes from no note"),
        "{}",
        failure.message
    );
    let plan = plan_of(&json!([{"name": "b", "note": "a.md"}]), &notes).unwrap();
    assert_eq!(plan.nodes[1].note.as_deref(), Some("a.md"));
    let plan = plan_of(&json!("- [ ] b: join {after=a integrates}"), &notes).unwrap();
    assert_eq!((plan.nodes[1].note.as_deref(), plan.nodes[1].integrates), (None, true));
}

#[test]
fn without_a_task_there_is_no_plan() {
    for (input, notes, expected) in [
        (json!(null), &[][..], "there is no plan document"),
        (
            json!(null),
            &[("a.md", "# Nothing\n\n- a bullet")][..],
            "no task in a.md; ",
        ),
        (
            json!(null),
            &[("a.md", "- [x] a"), ("b.md", "")][..],
            "nothing is left to be done: every box in a.md, b.md",
        ),
        (json!([]), &[][..], "no task in input; "),
    ] {
        let failure = plan_of(&input, notes).unwrap_err();
        assert!(failure.message.starts_with(expected), "{}", failure.message);
    }
}

#[test]
fn bounds_are_shown_where_they_are_passed() {
    let many: String = (0..1001).map(|n| format!("- [ ] task {n}\n")).collect();
    let failure = plan_of(&json!(many), &[]).unwrap_err();
    assert!(failure.message.contains("--> input:1001:7\n"), "{}", failure.message);
    let deep: String = (0..500)
        .map(|n| format!("{}- [ ] task {n}\n", "  ".repeat(n)))
        .collect();
    assert_eq!(plan_of(&json!(deep), &[]).unwrap().nodes.len(), 500);
    let nested = "[".repeat(10_000);
    let failure = plan_of(&json!(nested), &[]).unwrap_err();
    assert!(
        failure.message.starts_with("EOF while parsing a list"),
        "{}",
        failure.message
    );
    for long in [
        json!([{"name": "a", "description": "x".repeat(5000)}]),
        json!([{"name": "a", "dependencies": ["ö".repeat(5000)]}]),
    ] {
        let message = plan_of(&long, &[]).unwrap_err().message;
        assert!(message.len() < 4096 && message.contains("--> input:1:"), "{message}");
    }
}

#[test]
fn the_readme_is_a_plan() {
    let readme = include_str!("../README.md");
    let document = readme
        .split("````markdown\n")
        .nth(1)
        .unwrap()
        .split("\n````")
        .next()
        .unwrap();
    let plan = plan_of(&json!(document), &[]).unwrap();
    let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    let expected = [
        "notes",
        "put-the-translations-together",
        "german",
        "french",
        "put-it-on-the-page",
        "tell-people",
    ];
    assert_eq!(names, expected);
    assert!(plan.verify_before_next);
    assert_eq!(plan.nodes[1].dependencies, ["german", "french"]);
    assert_eq!(plan.nodes[4].dependencies, ["notes", "put-the-translations-together"]);
    let failing = "\n\n\n\n\n\n\n\n- [ ] publish: Publish it {after=wirte}";
    let failure = plan_of(&Value::Null, &[("release.md", failing)]).unwrap_err();
    assert!(readme.contains(&failure.message), "{}", failure.message);
}
