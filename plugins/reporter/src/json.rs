//! The report for programs.

use crate::gather::{Agent, Denied, Report, Tasks};
use serde::Serialize;
use skep_scan::batch::{Count, Finding};
use skep_sdk::Failure;
use std::collections::BTreeMap;

/// An artifact's bound, with room for what stands around the findings.
const MAX_BYTES: usize = 9 << 20;

#[derive(Serialize)]
struct Document<'a> {
    root: &'a str,
    files: u64,
    bytes: u64,
    findings: Vec<&'a Finding>,
    /// Findings that are counted and not listed. Absent when all are.
    #[serde(skip_serializing_if = "is_zero")]
    findings_left_out: u64,
    languages: &'a BTreeMap<String, Count>,
    denied: Vec<&'a Denied>,
    tasks: &'a Tasks,
    agents: &'a [Agent],
    duration_ms: u64,
}

/// The whole report: findings by kind, file and line.
pub(crate) fn document(report: &Report) -> Result<Vec<u8>, Failure> {
    let sections = [&report.licenses, &report.secrets, &report.todos];
    let mut document = Document {
        root: report.root(),
        files: report.input.files,
        bytes: report.input.bytes,
        findings: sections.iter().flat_map(|section| &section.kept).collect(),
        findings_left_out: sections.iter().map(|section| section.left_out).sum(),
        languages: &report.languages,
        denied: report.facts.distinct(),
        tasks: &report.facts.tasks,
        agents: &report.facts.agents,
        duration_ms: report.duration_ms(),
    };
    loop {
        let bytes = serde_json::to_vec(&document)?;
        if bytes.len() <= MAX_BYTES || document.findings.is_empty() {
            return Ok(bytes);
        }
        // Paths full of control bytes grow six times when they are escaped.
        let half = document.findings.len() / 2;
        document.findings_left_out += u64::try_from(document.findings.len() - half).unwrap_or(u64::MAX);
        document.findings.truncate(half);
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
