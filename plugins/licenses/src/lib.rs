//! Finds license tags, licence files, and source files without either. The rules are those of `skep_scan::license` and `skep_scan::spdx`.

use skep_scan::{agent, batch::Scan};
use skep_sdk::{Executor, Failure, Outcome, Task};

struct Licenses;

impl Executor for Licenses {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        agent::execute(Scan::Licenses, &task)
    }
}

skep_sdk::executor!(Licenses);

#[cfg(test)]
mod tests {
    use super::*;
    use skep_scan::batch::{Batch, Entry};
    use std::fs;

    #[test]
    fn a_batch_becomes_a_report() {
        let root = tempfile::tempdir().unwrap();
        let texts = [
            ("a.rs", "// SPDX-License-Identifier: MIT OR Apache-2.0\n"),
            ("src/b.rs", "fn main() {}\n"),
            ("lib/LICENSE", "Mozilla Public License Version 2.0\n"),
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

        let Outcome::Done(payload) = Licenses::execute(Task::new("scan", &batch).unwrap()).unwrap() else {
            panic!("done")
        };
        let report: serde_json::Value = payload.parse().unwrap();
        let expected = serde_json::json!([
            {"kind": "license", "rule": "spdx-tag", "file": "a.rs", "line": 1, "excerpt": "MIT OR Apache-2.0"},
            {"kind": "license", "rule": "copyleft-file", "file": "lib/LICENSE", "line": 0, "excerpt": "MPL-2.0"},
            {"kind": "license", "rule": "no-license", "file": "src/b.rs", "line": 0,
             "excerpt": "1 source file in src/ has no license tag, no header, and no licence file above it"},
        ]);
        assert_eq!(report["findings"], expected);
        assert_eq!(
            (&report["kind"], &report["files"], &report["skipped"]),
            (&"licenses".into(), &(texts.len() - 1).into(), &3.into())
        );
        assert!(report.get("languages").is_none());
    }

    #[test]
    fn an_input_that_is_no_batch_is_refused() {
        let failure = Licenses::execute(Task::new("scan", &"what?").unwrap()).unwrap_err();
        assert!(failure.message.contains("does not parse"), "{}", failure.message);
    }
}
