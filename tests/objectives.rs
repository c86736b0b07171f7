//! Objectives, over the real binary with the planner, the sequencer and the checker that come with it: from notes to a report, across a host that is
//! killed, and plans that are given, refused, exported and submitted again. The guest `works` does what its input says.

use serde_json::{Value, json};
use skep_built_guests::WORKS;
use skep_rules::quantity::Fuel;

use crate::harness::{Host, directory, plugin, until, write};

const CREW: &str = r#"
name = "desk"

[approvals]
by_requester = true

[[agent]]
name = "planner"
plugin = "skep/planner@0.1.0"

[[agent]]
name = "sequencer"
plugin = "skep/sequencer@0.1.0"

[[agent]]
name = "checker"
plugin = "skep/checker@0.1.0"
grants = { artifacts = "10MiB" }

[[agent]]
name = "works"
plugin = "test/works@1.0.0"
replicas = 3
grants = { tasks = { children = 10 } }
"#;

const GUIDE: &str = r#"# The guide

- [ ] outline: What it is about
  ```json
  {"answer": {"title": "Bees"}, "$check": {"expressions": ["output.title == 'Bees'"]}}
  ```
- [ ] first: The first chapter {after=outline check}
  ```json
  {"fails": 1, "answer": "one", "$check": {"schema": {"type": "string"}}}
  ```
- [ ] second: The second chapter, which is long {after=outline}
  ```json
  {"split": ["north", "south"]}
  ```
- [ ] third: The third chapter, which takes its time {after=outline}
  ```json
  {"rest": 2, "answer": "three"}
  ```
"#;

const PRINT: &str = r#"
1. Print it {after=first,second,third approval=before role=worker integrates slots=title:outline}
   ```json
   {"join": true}
   ```
"#;

/// A host with the whole crew.
fn host() -> Host {
    host_with(&["planner", "sequencer", "checker"])
}

/// A host with workers and those of the others that a test needs: each is compiled anew.
fn host_with(bundled: &[&str]) -> Host {
    let host = Host::start();
    for name in bundled {
        let data = host.data().to_str().expect("temporary paths are UTF-8");
        host.skep(&["plugin", "install", &format!("bundled:{name}"), "--data-dir", data])
            .exits(0);
    }
    let manifest = "[provides]\nroles = [\"worker\"]\n[wants]\ntasks = { children = 10 }\n";
    host.install(&plugin("works", WORKS, manifest)).json();
    let (head, agents) = CREW.split_once("[[agent]]").expect("it has agents");
    let needed =
        |agent: &&str| agent.contains("test/") || bundled.iter().any(|name| agent.contains(&format!("skep/{name}@")));
    let agents = agents.split("[[agent]]").filter(needed);
    let agents: String = agents.map(|agent| format!("[[agent]]{agent}")).collect();
    host.assemble(&format!("{head}{agents}"));
    host
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

fn tree(host: &Host, task: &str) -> Value {
    host.get(&format!("/v1/tasks/{task}/tree"))
}

/// A part of a tree by its name, at any depth.
fn part(tree: &Value, name: &str) -> Option<Value> {
    let children = tree["children"].as_array()?;
    let own = children.iter().find(|child| child["task"]["name"] == name);
    let own = own.map(|child| child["task"].clone());
    own.or_else(|| children.iter().find_map(|child| part(child, name)))
}

#[test]
fn an_objective_goes_from_notes_to_a_report_across_a_killed_host() {
    let host = host();
    let notes = directory();
    let (guide, print) = (
        write(notes.path(), "guide.md", GUIDE),
        write(notes.path(), "print.md", PRINT),
    );
    let submitted = host.skep(&[
        "task",
        "submit",
        "--crew",
        "desk",
        "--objective",
        "a booklet",
        "--note",
        &guide,
        "--note",
        &print,
        "-o",
        "json",
    ]);
    let id = text(&submitted.exits(0).json()["taskId"]).to_owned();

    // Everything but the chapter that rests has come so far as it can.
    let done =
        |host: &Host, name: &str, state: &str| part(&tree(host, &id), name).filter(|task| task["state"] == *state);
    let first = until("the first chapter is checked, at its second attempt", || {
        done(&host, "first", "COMPLETED")
    });
    assert_eq!(
        (&first["attempts"], &first["note"]),
        (&json!(2), &json!(guide)),
        "{first}"
    );
    let second = until("the second chapter is joined", || done(&host, "second", "COMPLETED"));
    assert_eq!(second["children"].as_array().map(Vec::len), Some(3), "{second}");
    let host = host.restart();
    until("the third chapter goes on", || done(&host, "third", "COMPLETED"));

    // A person is asked, and the host dies once more before the answer.
    let asks = || part(&tree(&host, &id), "print-it").filter(|task| task["state"] == "AWAITING_APPROVAL");
    until("a person is asked", asks);
    let host = host.restart();
    let inbox = host.skep(&["approval", "ls", "-o", "json"]).exits(0).json();
    let approval = text(&inbox[0]["approvalId"]).to_owned();
    host.skep(&["task", "tree", &id])
        .exits(0)
        .says(&["print-it", "awaiting", &approval, &print]);
    host.skep(&["approval", "approve", &approval]).exits(0);

    let ended = host
        .call("GET", &format!("/v1/tasks/{id}?wait=60s"), &Value::Null)
        .json();
    let report = json!({"outline": {"title": "Bees"}, "first": "one", "second": {"north": "north", "south": "south"}, "third": "three"});
    assert_eq!(
        (&ended["state"], &ended["result"]),
        (&json!("COMPLETED"), &report),
        "{ended}"
    );
    // What was done before the host died was done once.
    let first = part(&tree(&host, &id), "first").unwrap();
    assert_eq!((&first["attempts"], &first["state"]), (&json!(2), &json!("COMPLETED")));
    host.skep(&["task", "tree", &id, "--follow"])
        .exits(0)
        .says(&["completed"]);
    host.skep(&["audit", "verify"]).exits(0);
}

#[test]
fn a_note_that_cannot_be_read_shows_the_place() {
    let host = host_with(&["planner"]);
    let notes = directory();
    let bad = write(notes.path(), "bad.md", "- [ ] one: The first {after=two}\n");
    let run = host.skep(&[
        "task",
        "submit",
        "--crew",
        "desk",
        "--objective",
        "nothing",
        "--note",
        &bad,
        "--wait",
        "60s",
    ]);
    run.exits(7).says(&[
        "`one` waits for `two`, which is neither a task nor a phase",
        "bad.md:1:",
    ]);
}

fn given(nodes: Value) -> Value {
    json!({"description": "given", "crew": "desk", "nodes": nodes})
}

#[test]
fn a_plan_that_is_given_runs_without_a_planner_and_comes_out_as_it_went_in() {
    let host = host_with(&[]);
    let ended = host.run(&given(json!([
        {"name": "a", "roles": ["worker"], "input": {"answer": [1, 2]}, "output": {"type": "array"}},
        {"name": "b", "roles": ["worker"], "lane": "slow", "nodes": [
            {"name": "x", "roles": ["worker"], "input": {"answer": "x"}},
            {"name": "y", "roles": ["worker"], "input": {"answer": "y"}, "dependencies": ["x"]},
        ]},
        {"name": "c", "roles": ["worker"], "lane": "slow", "input": {"n": 1}, "integrates": true, "dependencies": ["a"],
         "slots": [{"field": "list", "node": "a", "schema": {"type": "array"}}]},
    ])));
    let result = json!({"n": 1, "list": [1, 2]});
    assert_eq!(
        (&ended["state"], &ended["result"]),
        (&json!("COMPLETED"), &result),
        "{ended}"
    );

    let id = text(&ended["taskId"]);
    let files = directory();
    let exported = host.skep(&["task", "tree", id, "--export"]).exits(0).stdout;
    let file = write(files.path(), "tree.json", &exported);
    let again = host
        .skep(&["task", "submit", "--tree", &file, "--wait", "60s", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(again["result"], result, "{again}");
    let second = host.get(&format!("/v1/tasks/{}/tree/export", text(&again["taskId"])));
    assert_eq!(second, serde_json::from_str::<Value>(&exported).unwrap());

    let changed = write(files.path(), "changed.json", exported.replace("\"x\"", "\"z\""));
    host.skep(&["task", "submit", "--tree", &changed])
        .exits(6)
        .says(&["its digest is another"]);
}

#[test]
fn what_was_planned_comes_out_as_it_went_in() {
    let host = host();
    let objective = json!({"objective": "two", "crew": "desk", "notes": ["- [ ] one: 1 {check}\n- [ ] two: 2\n"]});
    let ended = host.run(&objective);
    // Nobody of the crew integrates, and the sequencer wants somebody to.
    assert_eq!(
        (&ended["state"], &ended["failure"]["code"]),
        (&json!("FAILED"), &json!("invalid-input")),
        "{ended}"
    );
    let message = text(&ended["failure"]["message"]);
    assert!(
        message.contains("`integrate`") && message.contains("role integrator"),
        "{message}"
    );

    let objective = json!({"objective": "two", "crew": "desk", "notes": [{"name": "a.md", "text": "- [ ] one: 1 {check}\n- [ ] two: 2 {after=one}\n"}]});
    let ended = host.run(&objective);
    assert_eq!(ended["state"], "COMPLETED", "{ended}");
    let export = |id: &Value| host.get(&format!("/v1/tasks/{}/tree/export", text(id)));
    let first = export(&ended["taskId"]);
    assert_eq!(first["task"]["nodes"][0]["note"], "a.md", "{first}");
    let mut task = first["task"].clone();
    task["crew"] = json!("desk");
    let again = host.run(&task);
    assert_eq!(export(&again["taskId"])["digest"], first["digest"]);
}

#[test]
fn a_plan_that_cannot_be_is_refused_with_its_reason() {
    let host = host_with(&[]);
    let node = |name: &str, more: Value| {
        let mut node = json!({"name": name, "roles": ["worker"]});
        node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node
    };
    let typed = |gives: &str| {
        json!([
            node("a", json!({"output": {"type": gives}})),
            node(
                "b",
                json!({"slots": [{"field": "f", "node": "a", "schema": {"type": "string"}}]})
            ),
        ])
    };
    let mut deep = json!([node("a", json!({}))]);
    for _ in 0..7 {
        deep = json!([node("a", json!({ "nodes": deep }))]);
    }
    let many: Vec<Value> = (0..1_001).map(|at| node(&format!("n{at}"), json!({}))).collect();
    let cases = [
        (
            json!([
                node("a", json!({"dependencies": ["b"]})),
                node("b", json!({"dependencies": ["a"]}))
            ]),
            "the plan has a cycle: ",
        ),
        (
            json!([node("a", json!({"dependencies": ["a"]}))]),
            "the plan has a cycle: a → a",
        ),
        (
            json!([node("a", json!({"dependencies": ["x"]}))]),
            "`a` depends on `x`, which is not in the plan",
        ),
        (
            typed("integer"),
            "its slot `f` does not take the output of `a`: it may be integer, and must be string",
        ),
        (json!(many), "at most 1000 nodes"),
        (deep, "tasks nest at most 8 deep"),
        (
            json!([node("a", json!({"roles": ["nobody"]}))]),
            "no agent of the crew can execute it (role nobody)",
        ),
    ];
    for (nodes, expected) in cases {
        let refused = host.call("POST", "/v1/tasks", &given(nodes));
        let problem = refused.json();
        assert!(
            (400..500).contains(&refused.status) && text(&problem["detail"]).contains(expected),
            "{expected}: {problem}"
        );
    }
    let unknown = host.call(
        "POST",
        "/v1/tasks",
        &given(json!([node("a", json!({"colour": "red"}))])),
    );
    assert!(unknown.status == 422 || unknown.status == 400, "{}", unknown.json());
    host.call("POST", "/v1/tasks", &given(typed("string"))).json();
}

#[test]
fn a_hydra_is_stopped_by_its_budget() {
    let host = host_with(&[]);
    // Each task burns some hundred thousand units and splits again, as deep as it may.
    let heads =
        json!({"description": "hydra", "crew": "desk", "fuelBudget": "100K", "input": {"split": ["a", "b", "c"]}});
    let ended = host.run(&heads);
    let tree = tree(&host, text(&ended["taskId"]));
    let all = tree["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| &child["task"])
        .chain([&tree["task"]]);
    let fuel: u64 = all.map(|task| text(&task["fuel"]).parse::<Fuel>().unwrap().0).sum();
    assert!(fuel <= 100_000, "{fuel}: {tree}");
    let head = part(&tree, "a").unwrap();
    assert_eq!(
        (&ended["state"], &head["failure"]["code"]),
        (&json!("FAILED"), &json!("budget-exhausted")),
        "{tree}"
    );
    let generous =
        json!({"description": "tame", "crew": "desk", "fuelBudget": "10G", "input": {"split": ["a", "b", "c"]}});
    assert_eq!(host.run(&generous)["state"], "COMPLETED");
}
