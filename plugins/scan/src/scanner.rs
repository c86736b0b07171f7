//! Scans the files of a batch: opens each, reads it in blocks, and asks the rules of one kind of scan.

use crate::{
    batch::{Batch, Count, Entry, Finding, Findings, Report, Scan},
    blocks::{Block, MAX_FILE_BYTES, Reader},
    excerpt::{self, Mask},
    language::{self, Language},
    license::{self, Role},
    secret::{MAX_QUOTED_LINE, Place, Secrets},
    spdx::{self, Tag, Terms},
    todo::Todos,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

/// Names looked at in a directory when a licence file is searched in it. A directory with more is data.
const MAX_DIRECTORY_ENTRIES: usize = 4096;

/// What a file turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes read.
    pub bytes: u64,
    /// Lines, when the whole file was read.
    pub lines: u64,
    /// Its language, when it has one.
    pub language: Option<&'static Language>,
    /// Source code without a tag, a header, or a licence file above it.
    pub is_unlicensed: bool,
}

/// Why a file was left out. A batch counts these, and does not tell them apart.
#[derive(Debug)]
pub enum Skipped {
    /// A NUL near its beginning.
    Binary,
    /// Its path leaves the root, or it is no regular file; links count as none.
    NotRegular,
    /// It could not be read.
    Unreadable(io::Error),
}

/// One kind of scan, ready to run.
#[derive(Debug)]
pub struct Scanner {
    scan: Scan,
    root: PathBuf,
    reader: Reader,
    secrets: Secrets,
    todos: Todos,
    /// Directories already looked at: do they hold a licence file? Bounded by the depth and number of a batch's files.
    licensed: BTreeMap<PathBuf, bool>,
}

impl Scanner {
    /// A scanner for the files beneath a root.
    pub fn new(scan: Scan, root: impl Into<PathBuf>) -> Self {
        Self {
            scan,
            root: root.into(),
            reader: Reader::new(),
            secrets: Secrets::new(),
            todos: Todos::new(),
            licensed: BTreeMap::new(),
        }
    }

    /// The rules that hide secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Scan a batch. `progress` is told the index of each file before it is read, and answers whether to go on; files that are left are
    /// counted as skipped.
    pub fn batch(&mut self, batch: &Batch, mut progress: impl FnMut(usize) -> bool) -> Report {
        let mut report = Report::new(self.scan);
        let mut findings = Findings::new();
        let mut unlicensed: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
        let mut goes_on = true;
        for (index, entry) in batch.files.iter().enumerate() {
            goes_on = goes_on && progress(index);
            findings.next_file();
            let outcome = if goes_on {
                self.file(entry, &mut findings).ok()
            } else {
                None
            };
            let Some(outcome) = outcome else {
                report.skipped += 1;
                continue;
            };
            report.files += 1;
            report.bytes += outcome.bytes;
            if outcome.is_unlicensed {
                let directory = entry.path.rsplit_once('/').map_or("", |(directory, _)| directory);
                unlicensed.entry(directory).or_insert((&entry.path, 0)).1 += 1;
            }
            if self.scan == Scan::Todos {
                let name = outcome.language.map_or("Other", |language| language.name);
                let count: &mut Count = report.languages.entry(name.to_owned()).or_default();
                count.files += 1;
                count.lines += outcome.lines;
            }
        }
        for (directory, (first, files)) in unlicensed {
            findings.next_file();
            findings.push(|| no_license(&self.secrets, directory, first, files));
        }
        (report.findings, report.truncated) = findings.into_parts();
        report
    }

    /// Scan one file.
    ///
    /// # Errors
    /// Why it was left out; findings that were made before the error stand.
    pub fn file(&mut self, entry: &Entry, findings: &mut Findings) -> Result<Outcome, Skipped> {
        let path = self.locate(entry)?;
        let file = File::open(&path).map_err(Skipped::Unreadable)?;
        let mut sight = Sight {
            secrets: &self.secrets,
            todos: &self.todos,
            entry,
            findings,
            language: language::of_path(&entry.path),
            has_tag: false,
            has_header: false,
        };
        let extent = match self.scan {
            Scan::Secrets => {
                let place = Place::of(&entry.path);
                self.reader
                    .read(file, MAX_FILE_BYTES, |block| sight.secrets(block, place))
            }
            Scan::Todos => self.reader.read(file, MAX_FILE_BYTES, |block| sight.todos(block)),
            Scan::Licenses => self.reader.read(file, license::HEAD, |block| sight.licenses(block)),
        };
        let Sight {
            language,
            has_tag,
            has_header,
            ..
        } = sight;
        let extent = extent.map_err(Skipped::Unreadable)?;
        if extent.binary {
            return Err(Skipped::Binary);
        }
        let needs_license = self.scan == Scan::Licenses
            && language.is_some_and(|language| language.is_source)
            && !has_tag
            && !has_header
            && license::role(&entry.path).is_none()
            && extent.bytes > 0;
        let is_unlicensed = needs_license && !self.has_license_above(&entry.path);
        Ok(Outcome {
            bytes: extent.bytes,
            lines: extent.lines,
            language,
            is_unlicensed,
        })
    }

    /// Where an entry is, if it is a regular file beneath the root.
    fn locate(&self, entry: &Entry) -> Result<PathBuf, Skipped> {
        let relative = Path::new(&entry.path);
        let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if entry.unreadable || !is_plain || entry.path.is_empty() {
            return Err(Skipped::NotRegular);
        }
        let path = self.root.join(relative);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(_) => Err(Skipped::NotRegular),
            Err(error) => Err(Skipped::Unreadable(error)),
        }
    }

    /// Is there a licence file in the directory of a file, or in one above it up to the root? The scanner looks itself: the batch holds
    /// only some of the tree.
    fn has_license_above(&mut self, path: &str) -> bool {
        let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        parents.into_iter().any(|directory| {
            let directory = self.root.join(directory);
            if let Some(known) = self.licensed.get(&directory) {
                return *known;
            }
            let found = holds_license(&directory);
            self.licensed.insert(directory, found);
            found
        })
    }
}

fn holds_license(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    entries.take(MAX_DIRECTORY_ENTRIES).flatten().any(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name == "LICENSES" || license::role(name) == Some(Role::License))
    })
}

fn no_license(secrets: &Secrets, directory: &str, first: &str, files: u64) -> Finding {
    let place = if directory.is_empty() {
        "the root".to_owned()
    } else {
        format!("{directory}/")
    };
    let text = match files {
        1 => format!("1 source file in {place} has no license tag, no header, and no licence file above it"),
        files => {
            format!("{files} source files in {place} have no license tag, no header, and no licence file above them")
        }
    };
    Finding {
        kind: Scan::Licenses.kind(),
        rule: "no-license".to_owned(),
        file: first.to_owned(),
        line: 0,
        excerpt: secrets.masked(&text),
    }
}

/// One file, as the rules of a scan see it block by block.
struct Sight<'a> {
    secrets: &'a Secrets,
    todos: &'a Todos,
    entry: &'a Entry,
    findings: &'a mut Findings,
    language: Option<&'static Language>,
    has_tag: bool,
    has_header: bool,
}

impl Sight<'_> {
    fn secrets(&mut self, block: &Block<'_>, place: Place) {
        let mut place = place;
        // In a line that no person wrote, random values are normal.
        place.hashes |=
            block.owned.end - block.owned.start > MAX_QUOTED_LINE && memchr::memchr(b'\n', block.bytes).is_none();
        for found in self.secrets.find(block.bytes, block.owned.clone(), place) {
            let mask = Mask {
                hidden: found.secret.clone(),
                shown: found.shown,
            };
            self.push(Scan::Secrets, block, found.rule, found.secret.start, mask);
        }
    }

    fn todos(&mut self, block: &Block<'_>) {
        if block.first_line == 1 && block.owned.start == 0 {
            self.language = self.language.or_else(|| language::of_shebang(block.bytes));
        }
        let comments = self.language.map_or(&language::UNKNOWN, |language| &language.comments);
        let todos = self.todos;
        todos.find(block, comments, |found| {
            let mask = Mask {
                hidden: found.at..found.at + found.rule.len(),
                shown: found.rule.len(),
            };
            self.push(Scan::Todos, block, found.rule, found.at, mask);
        });
    }

    fn licenses(&mut self, block: &Block<'_>) {
        let is_beginning = block.first_line == 1 && block.owned.start == 0;
        if is_beginning {
            self.language = self.language.or_else(|| language::of_shebang(block.bytes));
            self.licence_file(block);
            self.has_header |= license::has_header(block.bytes);
        }
        for at in memchr::memmem::find_iter(block.owned_bytes(), spdx::TAG.as_bytes()) {
            let at = block.owned.start + at;
            let expression = spdx::expression(block.bytes.get(at + spdx::TAG.len()..).unwrap_or_default());
            // `SPDX-License-Identifier: {id}` in a program that writes tags.
            if expression.is_empty() {
                continue;
            }
            self.has_tag = true;
            let rule = match spdx::judge(&expression) {
                Tag::Known(Terms::Permissive) => "spdx-tag",
                Tag::Known(Terms::Copyleft) => "copyleft-tag",
                Tag::Unknown(_) => "unknown-license",
                Tag::Malformed => "malformed-tag",
            };
            let line = block.line_number(at);
            let (secrets, file) = (self.secrets, &self.entry.path);
            self.findings.push(|| Finding {
                kind: Scan::Licenses.kind(),
                rule: rule.to_owned(),
                file: file.clone(),
                line,
                excerpt: secrets.masked(&expression),
            });
        }
    }

    fn licence_file(&mut self, block: &Block<'_>) {
        let Some(role) = license::role(&self.entry.path) else {
            return;
        };
        let recognised = license::recognise(block.bytes);
        let rule = match (role, recognised.map(license::terms)) {
            (Role::Notice, _) => "notice-file",
            (Role::License, Some(Terms::Permissive)) => "license-file",
            (Role::License, Some(Terms::Copyleft)) => "copyleft-file",
            (Role::License, None) => "unknown-license-file",
        };
        let excerpt = match role {
            Role::Notice => "notices to pass on".to_owned(),
            Role::License => recognised.unwrap_or("a text that is not recognised").to_owned(),
        };
        let file = self.entry.path.clone();
        self.findings.push(|| Finding {
            kind: Scan::Licenses.kind(),
            rule: rule.to_owned(),
            file,
            line: 0,
            excerpt,
        });
    }

    /// Keep a finding with its line, or with the match alone when the line is no line for people.
    fn push(&mut self, scan: Scan, block: &Block<'_>, rule: &str, at: usize, alone: Mask) {
        let (secrets, file) = (self.secrets, &self.entry.path);
        self.findings.push(|| {
            let range = block.line_range(at);
            let line = block.bytes.get(range.clone()).unwrap_or_default();
            let excerpt = if line.len() > MAX_QUOTED_LINE {
                match scan {
                    Scan::Secrets => excerpt::quote_alone(block.bytes, &alone),
                    Scan::Licenses | Scan::Todos => {
                        String::from_utf8_lossy(block.bytes.get(alone.hidden.clone()).unwrap_or_default()).into_owned()
                    }
                }
            } else if scan == Scan::Todos {
                // From the marker on: what stands before it is code.
                secrets.excerpt_from(line, at - range.start)
            } else {
                secrets.excerpt(line, at - range.start)
            };
            Finding {
                kind: scan.kind(),
                rule: rule.to_owned(),
                file: file.clone(),
                line: block.line_number(at),
                excerpt,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{BUFFER, CONTEXT};

    const TOKEN: &str = "ghp_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB3dE6gH9jK2";

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            ..Entry::default()
        }
    }

    fn scan(scan: Scan, files: &[(&str, &[u8])]) -> Report {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let files = files.iter().map(|(path, _)| entry(path)).collect();
        Scanner::new(scan, root.path()).batch(
            &Batch {
                root: String::new(),
                files,
            },
            |_| true,
        )
    }

    fn lines(report: &Report) -> Vec<(&str, u64, &str)> {
        report
            .findings
            .iter()
            .map(|finding| (&*finding.rule, finding.line, &*finding.excerpt))
            .collect()
    }

    #[test]
    fn a_giant_line_is_read_in_pieces_and_quoted_alone() {
        for at in [BUFFER - CONTEXT - 20, BUFFER - CONTEXT, BUFFER - 10, BUFFER, 2 * BUFFER] {
            let mut line = b"first\n".to_vec();
            line.resize(at, b' ');
            line.extend_from_slice(TOKEN.as_bytes());
            line.resize(5 * BUFFER, b' ');
            let report = scan(Scan::Secrets, &[("app.min.js", &line)]);
            assert_eq!(lines(&report), [("github-token", 2, "ghp_…****")], "at {at}");
        }
    }

    #[test]
    fn what_cannot_be_read_as_text_is_skipped_and_counted() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.rs"), "// TODO\n").unwrap();
        fs::write(root.path().join("binary"), "\0// TODO\n").unwrap();
        fs::create_dir(root.path().join("directory")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("a.rs", root.path().join("link.rs")).unwrap();
        let names = [
            "a.rs",
            "binary",
            "directory",
            "link.rs",
            "gone",
            "",
            "/etc/passwd",
            "../a.rs",
            "x/../a.rs",
        ];
        let mut files: Vec<_> = names.map(entry).into_iter().collect();
        files.push(Entry {
            unreadable: true,
            ..entry("a.rs")
        });
        let mut scanner = Scanner::new(Scan::Todos, root.path());
        let report = scanner.batch(
            &Batch {
                root: String::new(),
                files,
            },
            |_| true,
        );
        assert_eq!((report.files, report.skipped, report.findings.len()), (1, 9, 1));
        let stopped = scanner.batch(
            &Batch {
                root: String::new(),
                files: vec![entry("a.rs"); 3],
            },
            |index| index < 1,
        );
        assert_eq!(
            (stopped.files, stopped.skipped),
            (1, 2),
            "the host may stop it between two files"
        );
    }

    /// A file made of beginnings costs little more than any other: it must not take its batch along.
    #[test]
    fn hostile_files_are_scanned_to_their_end() {
        let pieces = [
            "token=",
            "token=\"",
            "://a:",
            "eyJ-",
            "eyJa.",
            "glpat-",
            "github_pat_",
            "-----BEGIN ",
            "TODO ",
            "TODO\n",
            "\"// TODO ",
            "/* TODO\n",
            "</password>",
        ];
        for piece in pieces {
            let text = piece.repeat((128 << 10) / piece.len());
            for kind in [Scan::Secrets, Scan::Todos] {
                let report = scan(kind, &[("a.rs", text.as_bytes()), ("a.env", text.as_bytes())]);
                assert_eq!(report.files, 2, "{piece}");
            }
        }
    }

    #[test]
    fn findings_are_bounded_and_the_rest_is_counted() {
        let text = "// TODO\n".repeat(60);
        let paths: Vec<_> = (0..12).map(|index| format!("{index}.rs")).collect();
        let files: Vec<_> = paths.iter().map(|path| (&**path, text.as_bytes())).collect();
        let report = scan(Scan::Todos, &files);
        assert_eq!(
            (report.findings.len(), report.truncated),
            (crate::batch::MAX_FINDINGS, 12 * 60 - 400)
        );
        assert_eq!(report.findings[50].file, "1.rs", "at most 50 of one file");
        assert_eq!(report.languages["Rust"], Count { files: 12, lines: 720 });
    }

    #[test]
    fn tags_and_licences_above_cover_a_file() {
        let report = scan(
            Scan::Licenses,
            &[
                ("a/LICENSE.txt", b"Permission is hereby granted, free of charge, to any person obtaining a copy ... the above copyright notice"),
                ("a/b/c.rs", b"fn covered() {}"),
                ("d/e.rs", b"fn bare() {}"),
                ("d/f.rs", b"fn bare() {}"),
                ("d/g.rs", b"// Copyright 2026 Ada. Licensed under the Apache License."),
                ("d/h.py", b"# SPDX-License-Identifier: GPL-3.0-or-later\n"),
                ("d/i.rs", b"// SPDX-License-Identifier: Acme-1.0\n"),
                ("d/j.rs", b"// SPDX-License-Identifier: MIT OR\n"),
                ("d/k.rs", b"println!(\"SPDX-License-Identifier: {id}\");\n"),
                ("d/data.json", b"{}"),
            ],
        );
        let bare = "3 source files in d/ have no license tag, no header, and no licence file above them";
        assert_eq!(
            lines(&report),
            [
                ("license-file", 0, "MIT"),
                ("copyleft-tag", 1, "GPL-3.0-or-later"),
                ("unknown-license", 1, "Acme-1.0"),
                ("malformed-tag", 1, "MIT OR"),
                ("no-license", 0, bare),
            ]
        );
    }

    #[test]
    fn no_scan_quotes_a_secret() {
        let text = format!(
            "// SPDX-License-Identifier: {TOKEN}\nlet k = \"{TOKEN}\"; // TODO: password = \"hunter2\" {TOKEN}\n"
        );
        for kind in [Scan::Secrets, Scan::Licenses, Scan::Todos] {
            let report = scan(kind, &[("a.rs", text.as_bytes())]);
            assert!(!report.findings.is_empty());
            for finding in &report.findings {
                assert!(
                    !finding.excerpt.contains("aB3") && !finding.excerpt.contains("hunter2"),
                    "{finding:?}"
                );
            }
        }
    }
}
