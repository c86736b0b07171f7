//! Reads the outputs of all scanners and keeps what the report shows: every count, and as many findings as fit.

use serde::{Deserialize, Serialize};
use skep_scan::batch::{Count, Finding, Kind, Report as ScanReport};
use skep_sdk::{Dependency, Failure, artifacts};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of findings kept of each kind: three times this, escaped, stays below the 10 MiB of an artifact.
const MAX_KEPT_BYTES: usize = 1536 << 10;

/// Different texts of tags that are counted. Trees have a handful; a generated one could have one per file.
const MAX_EXPRESSIONS: usize = 1000;

/// What the planner says about the tree.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Input {
    pub(crate) root: String,
    #[serde(default)]
    pub(crate) files: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) unreadable: u64,
}

/// What the host says about the crew's work.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Facts {
    /// Where the tree is on the host; the planner knows only the mount.
    pub(crate) root: String,
    pub(crate) started_at_ms: u64,
    pub(crate) now_ms: u64,
    pub(crate) denied: Vec<Denied>,
    pub(crate) tasks: Tasks,
    pub(crate) agents: Vec<Agent>,
}

impl Facts {
    /// What was denied, once for each attempt and reason: an attempt may try several paths.
    pub(crate) fn distinct(&self) -> Vec<&Denied> {
        let mut seen = BTreeSet::new();
        self.denied
            .iter()
            .filter(|denied| seen.insert((&denied.agent, &denied.attempt, &denied.code)))
            .collect()
    }
}

/// One thing that an agent tried and the host refused.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Denied {
    pub(crate) agent: String,
    pub(crate) attempt: String,
    pub(crate) code: String,
    #[serde(skip_serializing)]
    pub(crate) detail: String,
}

/// How the tasks of the objective have ended.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Tasks {
    pub(crate) total: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

/// What an agent used.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) plugin: String,
    pub(crate) fuel: u64,
    pub(crate) tasks: u64,
    pub(crate) peak_memory_bytes: u64,
}

/// The findings of one kind.
#[derive(Debug, Default)]
pub(crate) struct Section {
    /// As many as fit, by file and line.
    pub(crate) kept: Vec<Finding>,
    /// How many more there are.
    pub(crate) left_out: u64,
    /// How many of each rule, of those that the scanners listed.
    pub(crate) rules: BTreeMap<String, u64>,
    bytes: usize,
}

impl Section {
    /// How many findings there are.
    pub(crate) fn total(&self) -> u64 {
        self.left_out + u64::try_from(self.kept.len()).unwrap_or(u64::MAX)
    }

    fn add(&mut self, finding: Finding) {
        *self.rules.entry(finding.rule.clone()).or_default() += 1;
        let bytes = finding.file.len() + finding.excerpt.len() + finding.rule.len() + 64;
        if self.bytes + bytes > MAX_KEPT_BYTES {
            self.left_out += 1;
            return;
        }
        self.bytes += bytes;
        self.kept.push(finding);
    }
}

/// Everything that the two forms of the report show.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) input: Input,
    pub(crate) facts: Facts,
    pub(crate) secrets: Section,
    pub(crate) licenses: Section,
    pub(crate) todos: Section,
    pub(crate) languages: BTreeMap<String, Count>,
    /// Files by what their tag or text says.
    pub(crate) expressions: BTreeMap<String, u64>,
    /// Scans that have no output: what they would have found is missing.
    pub(crate) missing_scans: u64,
}

impl Report {
    /// Gather the outputs of all scans.
    pub(crate) fn gather(input: Input, facts: Facts, dependencies: &[Dependency]) -> Result<Self, Failure> {
        let mut report = Self {
            input,
            facts,
            ..Self::default()
        };
        let is_scan = |dependency: &&Dependency| {
            ["secrets/", "licenses/", "todos/"]
                .iter()
                .any(|kind| dependency.name.starts_with(kind))
        };
        for dependency in dependencies.iter().filter(is_scan) {
            // One at a time, and dropped at once: all of them together need not fit the memory of an agent.
            match &dependency.output {
                Some(output) => report.add(artifacts::parse(output)?),
                None => report.missing_scans += 1,
            }
        }
        for section in [&mut report.secrets, &mut report.licenses, &mut report.todos] {
            section
                .kept
                .sort_by(|a, b| (&a.file, a.line, &a.rule).cmp(&(&b.file, b.line, &b.rule)));
        }
        Ok(report)
    }

    /// The directory that was audited, as people know it.
    pub(crate) fn root(&self) -> &str {
        if self.facts.root.is_empty() {
            &self.input.root
        } else {
            &self.facts.root
        }
    }

    /// From the submission of the objective to this report, in milliseconds.
    pub(crate) fn duration_ms(&self) -> u64 {
        self.facts.now_ms.saturating_sub(self.facts.started_at_ms)
    }

    fn add(&mut self, scan: ScanReport) {
        self.section(scan.kind.kind()).left_out += scan.truncated;
        for finding in scan.findings {
            let names_license = ["spdx-tag", "copyleft-tag", "license-file", "copyleft-file"].contains(&&*finding.rule);
            if names_license
                && (self.expressions.len() < MAX_EXPRESSIONS || self.expressions.contains_key(&finding.excerpt))
            {
                *self.expressions.entry(finding.excerpt.clone()).or_default() += 1;
            }
            self.section(finding.kind).add(finding);
        }
        for (name, count) in scan.languages {
            let total = self.languages.entry(name).or_default();
            total.files += count.files;
            total.lines += count.lines;
        }
    }

    fn section(&mut self, kind: Kind) -> &mut Section {
        match kind {
            Kind::Secret => &mut self.secrets,
            Kind::License => &mut self.licenses,
            Kind::Todo => &mut self.todos,
        }
    }
}
