//! Turns what the scanners found and what the host observed into one report: a page for people and JSON for programs.

mod gather;
mod html;
mod json;
mod words;

use gather::{Facts, Input, Report};
use serde_json::json;
use skep_sdk::{Artifact, Executor, Failure, Outcome, Task, artifacts};

struct Reporter;

impl Executor for Reporter {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let input: Input = task.input()?;
        let facts: Facts = task.facts()?.unwrap_or_default();
        let report = Report::gather(input, facts, &task.dependencies)?;
        let html = artifacts::write_all("text/html", html::page(&report).as_bytes())?;
        let json = artifacts::write_all(artifacts::JSON, &json::document(&report)?)?;
        Ok(Outcome::json(&json!({
            "html": reference(&html),
            "json": reference(&json),
            "summary": {
                "files": report.input.files,
                "bytes": report.input.bytes,
                "secrets": report.secrets.total(),
                "licenses": report.licenses.total(),
                "todos": report.todos.total(),
                "denied": report.facts.distinct().len(),
            },
        }))?)
    }
}

skep_sdk::executor!(Reporter);

fn reference(artifact: &Artifact) -> serde_json::Value {
    json!({"digest": artifact.digest, "size": artifact.size, "media": artifact.media})
}

#[cfg(test)]
mod tests;
