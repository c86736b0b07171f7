//! Finds markers of unfinished work, and counts lines by language. The rules are those of `skep_scan::todo` and `skep_scan::language`.

use skep_scan::{agent, batch::Scan};
use skep_sdk::{Executor, Failure, Outcome, Task};

struct Todos;

impl Executor for Todos {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        agent::execute(Scan::Todos, &task)
    }
}

skep_sdk::executor!(Todos);

#[cfg(test)]
mod tests {
    use super::*;
    use skep_scan::batch::{Batch, Entry};
    use std::fs;

    #[test]
    fn a_batch_becomes_a_report() {
        let root = tempfile::tempdir().unwrap();
        let texts = [
            ("a.rs", "fn main() {} // TODO(ada): drop password = \"hunter2\"\n\n"),
            ("b.py", "# FIXME"),
            ("data.bin", "\0\u{1}"),
        ];
        for (path, text) in texts {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let paths = texts
            .map(|(path, _)| path)
            .into_iter()
            .chain(["vanished.rs", "../outside"]);
        let files: Vec<_> = paths
            .map(|path| Entry {
                path: path.to_owned(),
                ..Entry::default()
            })
            .collect();
        let batch = Batch {
            root: root.path().to_str().unwrap().to_owned(),
            files,
        };

        let Outcome::Done(payload) = Todos::execute(Task::new("scan", &batch).unwrap()).unwrap() else {
            panic!("done")
        };
        let report: serde_json::Value = payload.parse().unwrap();
        let expected = serde_json::json!([
            {"kind": "todo", "rule": "todo", "file": "a.rs", "line": 1, "excerpt": "TODO(ada): drop password = \"****\""},
            {"kind": "todo", "rule": "fixme", "file": "b.py", "line": 1, "excerpt": "FIXME"},
        ]);
        assert_eq!(report["findings"], expected);
        assert_eq!(
            (&report["kind"], &report["files"], &report["skipped"]),
            (&"todos".into(), &(texts.len() - 1).into(), &3.into())
        );
        let languages = serde_json::json!({"Python": {"files": 1, "lines": 1}, "Rust": {"files": 1, "lines": 2}});
        assert_eq!(report["languages"], languages);
    }

    #[test]
    fn an_input_that_is_no_batch_is_refused() {
        let failure = Todos::execute(Task::new("scan", &"what?").unwrap()).unwrap_err();
        assert!(failure.message.contains("does not parse"), "{}", failure.message);
    }
}
