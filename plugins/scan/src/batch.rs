//! The formats that planner, scanners, checker and reporter share, and the bounds of a scanner's answer.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Findings kept of one file. More of the same hardly helps the reader; the rest is counted.
pub const MAX_FINDINGS_PER_FILE: usize = 50;

/// Findings kept of one batch, so that an answer usually travels inline.
pub const MAX_FINDINGS: usize = 400;

/// Bytes of paths and excerpts kept of one batch: the same bound for trees with very long paths.
pub const MAX_FINDING_BYTES: usize = 128 << 10;

/// What the planner gives a scanner: some files beneath a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The directory that the paths are relative to.
    pub root: String,
    /// The files.
    pub files: Vec<Entry>,
}

/// One file of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the root, `/` between its parts.
    pub path: String,
    /// Its size in bytes when the planner saw it.
    #[serde(default)]
    pub size: u64,
    /// The planner could not name it exactly: count it, do not open it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// Which of the three scanners an answer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scan {
    /// Credentials.
    Secrets,
    /// Licences.
    Licenses,
    /// Markers of unfinished work, and lines per language.
    Todos,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A license tag, a licence file, a missing licence.
    License,
    /// A credential.
    Secret,
    /// A marker of unfinished work.
    Todo,
}

impl Scan {
    /// The kind of finding that this scan makes.
    pub fn kind(self) -> Kind {
        match self {
            Self::Secrets => Kind::Secret,
            Self::Licenses => Kind::License,
            Self::Todos => Kind::Todo,
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// The rule that made it.
    pub rule: String,
    /// The path of the file, as the batch has it.
    pub file: String,
    /// The line, from 1; 0 is the whole file.
    pub line: u64,
    /// What stands there: at most 160 characters, printable, secrets masked.
    pub excerpt: String,
}

/// Files and lines of a language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Text files.
    pub files: u64,
    /// Lines, blank ones included.
    pub lines: u64,
}

/// A scanner's answer for a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which scanner.
    pub kind: Scan,
    /// Files read.
    pub files: u64,
    /// Bytes read. The license scanner reads the beginning of a file only.
    pub bytes: u64,
    /// Files that could not be read, or are binary. With `files` it makes up the batch.
    pub skipped: u64,
    /// What was found, in the order of the batch.
    pub findings: Vec<Finding>,
    /// How many more findings there are than are listed.
    pub truncated: u64,
    /// Lines by language; the todo scanner alone counts them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, Count>,
}

impl Report {
    /// An answer without anything in it yet.
    pub fn new(kind: Scan) -> Self {
        Self {
            kind,
            files: 0,
            bytes: 0,
            skipped: 0,
            findings: Vec::new(),
            truncated: 0,
            languages: BTreeMap::new(),
        }
    }
}

/// Takes findings until a bound is met, then counts.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    bytes: usize,
    in_file: usize,
    truncated: u64,
}

impl Findings {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The findings that follow are of another file.
    pub fn next_file(&mut self) {
        self.in_file = 0;
    }

    /// Would the next finding be kept? Making an excerpt that is not costs for nothing.
    pub fn has_room(&self) -> bool {
        self.in_file < MAX_FINDINGS_PER_FILE && self.kept.len() < MAX_FINDINGS && self.bytes < MAX_FINDING_BYTES
    }

    /// Keep a finding, or count it.
    pub fn push(&mut self, finding: impl FnOnce() -> Finding) {
        if !self.has_room() {
            self.truncated += 1;
            return;
        }
        let finding = finding();
        self.bytes += finding.file.len() + finding.excerpt.len();
        self.in_file += 1;
        self.kept.push(finding);
    }

    /// What was kept, and how many more there were.
    pub fn into_parts(self) -> (Vec<Finding>, u64) {
        (self.kept, self.truncated)
    }
}
