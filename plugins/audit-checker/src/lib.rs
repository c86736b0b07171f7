//! Verifies what a scanner reported: every finding cites a file of the batch and a line that matches.
//!
//! It asks the same rules the same question again, for the files that have findings and no others, and compares. So an excerpt that shows
//! more than the rules would, a line that does not exist and a rule that does not match are all refused. That a scanner found *less* than
//! there is cannot be seen here.

use skep_scan::{
    batch::{Batch, Entry, Finding, Findings, Report},
    scanner::Scanner,
};
use skep_sdk::{Checker, Failure, Payload, Task, Verdict, artifacts};
use std::collections::BTreeMap;

struct Audit;

impl Checker for Audit {
    fn check(task: Task, payload: Payload) -> Result<Verdict, Failure> {
        let batch: Batch = artifacts::parse(&task.input)?;
        let report = match serde_json::from_slice::<Report>(&artifacts::bytes(&payload)?) {
            Ok(report) => report,
            Err(error) => return Ok(Verdict::Rejected(format!("the report does not parse: {error}"))),
        };
        Ok(first_wrong(&batch, &report).map_or(Verdict::Accepted, Verdict::Rejected))
    }
}

skep_sdk::checker!(Audit);

/// What is wrong with a report, if anything is.
fn first_wrong(batch: &Batch, report: &Report) -> Option<String> {
    let files = u64::try_from(batch.files.len()).unwrap_or(u64::MAX);
    if report.files.checked_add(report.skipped) != Some(files) {
        return Some(format!(
            "{} files read and {} skipped do not make up the {files} of the batch",
            report.files, report.skipped
        ));
    }
    let entries: BTreeMap<&str, &Entry> = batch.files.iter().map(|entry| (&*entry.path, entry)).collect();
    let mut by_file: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &report.findings {
        by_file.entry(&finding.file).or_default().push(finding);
    }
    let mut scanner = Scanner::new(report.kind, &batch.root);
    by_file.iter().find_map(|(file, cited)| match entries.get(file) {
        Some(entry) => first_wrong_of(&mut scanner, entry, report, cited),
        None => Some(format!("{file} is not in the batch")),
    })
}

fn first_wrong_of(scanner: &mut Scanner, entry: &Entry, report: &Report, cited: &[&Finding]) -> Option<String> {
    let mut findings = Findings::new();
    let Ok(outcome) = scanner.file(entry, &mut findings) else {
        return Some(format!("{} cannot be read as text", entry.path));
    };
    let (made, _) = findings.into_parts();
    cited.iter().find_map(|finding| {
        let Finding {
            rule, file, line, kind, ..
        } = finding;
        if *kind != report.kind.kind() {
            return Some(format!("{file}:{line}: a finding of another kind of scan"));
        }
        // It speaks of all the files beside this one; of this one it says that it is without a licence.
        if rule == "no-license" && *line == 0 && outcome.is_unlicensed {
            return None;
        }
        if made.contains(finding) {
            return None;
        }
        let here = || made.iter().filter(|made| made.line == *line && made.rule == *rule);
        Some(match here().next() {
            Some(_) => format!("{file}:{line}: {rule} is there, but the excerpt does not match the line"),
            None => format!("{file}:{line}: {rule} does not match that line"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_scan::batch::{Kind, Scan};
    use std::fs;

    fn verdict(change: impl FnOnce(&mut Report)) -> Verdict {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.rs"), "\n// TODO: password = \"hunter2\"\n").unwrap();
        fs::write(root.path().join("b.rs"), "fn main() {}\n").unwrap();
        let files = ["a.rs", "b.rs"].map(|path| Entry {
            path: path.to_owned(),
            ..Entry::default()
        });
        let batch = Batch {
            root: root.path().to_str().unwrap().to_owned(),
            files: files.to_vec(),
        };
        let mut report = Scanner::new(Scan::Todos, &batch.root).batch(&batch, |_| true);
        assert_eq!(report.findings.len(), 1);
        change(&mut report);
        Audit::check(Task::new("scan", &batch).unwrap(), Payload::json(&report).unwrap()).unwrap()
    }

    #[test]
    fn a_true_report_stands_and_each_lie_is_named() {
        type Change = fn(&mut Report);
        let cases: [(Change, &str); 8] = [
            (|_| {}, ""),
            (|report| report.findings.clear(), ""),
            (
                |report| report.findings[0].line = 1,
                "a.rs:1: todo does not match that line",
            ),
            (
                |report| report.findings[0].line = 99,
                "a.rs:99: todo does not match that line",
            ),
            (
                |report| report.findings[0].rule = "hack".into(),
                "a.rs:2: hack does not match that line",
            ),
            (
                |report| report.findings[0].file = "c.rs".into(),
                "c.rs is not in the batch",
            ),
            (
                |report| report.findings[0].kind = Kind::Secret,
                "a.rs:2: a finding of another kind of scan",
            ),
            (
                |report| report.files = 1,
                "1 files read and 0 skipped do not make up the 2 of the batch",
            ),
        ];
        for (change, expected) in cases {
            let expected = if expected.is_empty() {
                Verdict::Accepted
            } else {
                Verdict::Rejected(expected.to_owned())
            };
            assert_eq!(verdict(change), expected);
        }
    }

    #[test]
    fn an_excerpt_that_gives_the_secret_away_is_refused() {
        let verdict = verdict(|report| report.findings[0].excerpt = "TODO: password = \"hunter2\"".into());
        assert_eq!(
            verdict,
            Verdict::Rejected("a.rs:2: todo is there, but the excerpt does not match the line".into())
        );
    }

    #[test]
    fn missing_licences_are_looked_up_again() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.rs"), "fn main() {}\n").unwrap();
        let files = vec![Entry {
            path: "a.rs".to_owned(),
            ..Entry::default()
        }];
        let batch = Batch {
            root: root.path().to_str().unwrap().to_owned(),
            files,
        };
        let report = Scanner::new(Scan::Licenses, &batch.root).batch(&batch, |_| true);
        assert_eq!(report.findings.len(), 1);
        assert_eq!(first_wrong(&batch, &report), None);
        fs::write(root.path().join("LICENSE"), "MIT").unwrap();
        assert_eq!(
            first_wrong(&batch, &report),
            Some("a.rs:0: no-license does not match that line".to_owned())
        );
    }

    #[test]
    fn what_is_no_report_is_rejected_and_not_failed() {
        let batch = Batch {
            root: "/nowhere".to_owned(),
            files: Vec::new(),
        };
        let verdict = Audit::check(Task::new("scan", &batch).unwrap(), Payload::Inline(b"{}".to_vec())).unwrap();
        assert!(matches!(verdict, Verdict::Rejected(reason) if reason.starts_with("the report does not parse")));
    }
}
