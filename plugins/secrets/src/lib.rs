//! Finds credentials in the files of a batch. The rules and the masking are those of `skep_scan::secret`.

use skep_scan::{agent, batch::Scan};
use skep_sdk::{Executor, Failure, Outcome, Task};

struct Secrets;

impl Executor for Secrets {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        agent::execute(Scan::Secrets, &task)
    }
}

skep_sdk::executor!(Secrets);

#[cfg(test)]
mod tests {
    use super::*;
    use skep_scan::batch::{Batch, Entry};
    use std::fs;

    #[test]
    fn a_batch_becomes_a_report() {
        let root = tempfile::tempdir().unwrap();
        let texts = [
            ("a.env", "DB_PASSWORD=tr0ub4dor&3\nnothing\n"),
            ("b.rs", "// AKIAIOSFODNN7EXAMPLE\n"),
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

        let Outcome::Done(payload) = Secrets::execute(Task::new("scan", &batch).unwrap()).unwrap() else {
            panic!("done")
        };
        let report: serde_json::Value = payload.parse().unwrap();
        let expected = serde_json::json!([
            {"kind": "secret", "rule": "high-entropy-assignment", "file": "a.env", "line": 1, "excerpt": "DB_PASSWORD=****"},
            {"kind": "secret", "rule": "aws-access-key", "file": "b.rs", "line": 1, "excerpt": "// AKIA…****"},
        ]);
        assert_eq!(report["findings"], expected);
        assert_eq!(
            (&report["kind"], &report["files"], &report["skipped"]),
            (&"secrets".into(), &(texts.len() - 1).into(), &3.into())
        );
        assert!(report.get("languages").is_none());
    }

    #[test]
    fn an_input_that_is_no_batch_is_refused() {
        let failure = Secrets::execute(Task::new("scan", &"what?").unwrap()).unwrap_err();
        assert!(failure.message.contains("does not parse"), "{}", failure.message);
    }
}
