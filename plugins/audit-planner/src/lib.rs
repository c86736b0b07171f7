//! Splits the audit of a directory into scans of batches of files, drills for an intruder, and one report.
//!
//! It lists files and never opens them: what is in them is the scanners' business.

mod batch;
mod nodes;
mod walk;

use std::path::Path;

use serde::Deserialize;
use skep_sdk::{Failure, Note, Plan, Planner, Task, artifacts, log};

use batch::Batch;
use nodes::{Drill, Report};

struct Audit;

/// What is to be audited.
#[derive(Deserialize)]
struct Input {
    root: String,
    #[serde(default)]
    drills: Vec<Drill>,
}

impl Planner for Audit {
    fn plan(task: Task, _notes: Vec<Note>) -> Result<Plan, Failure> {
        let input: Input = task.input()?;
        let room = nodes::room_for_batches(&input.drills)?;
        let drills = input.drills.iter().map(nodes::drill).collect::<Result<Vec<_>, _>>()?;
        let tree = walk::walk(Path::new(&input.root))?;
        let bytes = tree.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
        let report = Report {
            root: &input.root,
            files: tree.files.len(),
            bytes,
            unreadable: tree.unreadable,
        };

        let groups = batch::split(&tree.files, room);
        let mut nodes = Vec::new();
        for (number, files) in (1..).zip(&groups) {
            let stored = artifacts::write_all(
                artifacts::JSON,
                &serde_json::to_vec(&Batch {
                    root: &input.root,
                    files,
                })?,
            )?;
            nodes.extend(nodes::scans(number, files.len(), &stored));
        }
        nodes.extend(drills);
        nodes.push(nodes::report(&report, &nodes)?);
        log::info(format!(
            "{} files, {bytes} bytes in {} batches; {} entries unreadable",
            report.files,
            groups.len(),
            report.unreadable
        ));
        Ok(Plan::new(nodes))
    }
}

skep_sdk::planner!(Audit);

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};
    use skep_sdk::Payload;

    use super::*;

    fn plan(input: &Value) -> Result<Plan, Failure> {
        Audit::plan(Task::new("audit", input).unwrap(), Vec::new())
    }

    #[test]
    fn a_directory_becomes_scans_drills_and_a_report() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.rs"), "fn main() {}").unwrap();
        let root = dir.path().to_str().unwrap();
        let drills = json!([{"name": "tcp-connect", "description": "connect out"}]);
        let nodes = plan(&json!({"root": root, "drills": drills})).unwrap().nodes;

        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "secrets/0001",
                "licenses/0001",
                "todos/0001",
                "drill/tcp-connect",
                "report"
            ]
        );
        let Payload::Artifact(batch) = &nodes[0].input else {
            panic!("a batch travels as an artifact")
        };
        let batch: Value = serde_json::from_slice(&artifacts::read_all(batch).unwrap()).unwrap();
        assert_eq!(batch, json!({"root": root, "files": [{"path": "a.rs", "size": 12}]}));
        assert!(nodes[0].check && !nodes[0].optional);
        assert_eq!(nodes[0].input, nodes[2].input);

        assert!(nodes[3].optional && !nodes[3].check);
        assert_eq!(nodes[3].retry.max_retries, Some(0));
        assert_eq!(
            nodes[3].input.parse::<Value>().unwrap(),
            json!({"drill": "tcp-connect"})
        );

        assert!(nodes[4].integrates);
        assert_eq!(nodes[4].dependencies, names[..4]);
        let expected = json!({"root": root, "files": 1, "bytes": 12, "unreadable": 0});
        assert_eq!(nodes[4].input.parse::<Value>().unwrap(), expected);
    }

    #[test]
    fn an_empty_directory_still_gets_its_report() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = plan(&json!({"root": dir.path()})).unwrap().nodes;
        assert_eq!(nodes.len(), 1);
        assert_eq!(nodes[0].name, "report");
    }

    #[test]
    fn what_cannot_be_planned_says_why() {
        let missing = plan(&json!({"root": "/nowhere/at/all"})).unwrap_err();
        assert!(missing.message.starts_with("/nowhere/at/all: "), "{}", missing.message);
        let shapeless = plan(&json!({"drills": []})).unwrap_err();
        assert!(
            shapeless.message.contains("missing field `root`"),
            "{}",
            shapeless.message
        );
        let badly_named = plan(&json!({"root": "/", "drills": [{"name": "A b", "description": ""}]})).unwrap_err();
        assert!(badly_named.message.contains("\"A b\""), "{}", badly_named.message);
    }
}
