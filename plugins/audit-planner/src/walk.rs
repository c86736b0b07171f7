//! Which files there are: everything but `.git` and what `.gitignore` files match. Symbolic links are never followed.

use std::{fs, path::Path};

use ignore::WalkBuilder;
use serde::Serialize;
use skep_sdk::{Directive, Failure, heartbeat};

/// All names of a tree as JSON must fit what one attempt may write as artifacts (10 MiB); this leaves room for escapes and frames.
const MAX_LISTING_BYTES: usize = 9 << 20;
/// JSON around one name: `{"path":"","size":18446744073709551615},`.
const ENTRY_BYTES: usize = 41;
/// Files between two heartbeats: some milliseconds of walking.
const BEAT_EVERY: usize = 1000;

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct File {
    /// Relative to the root, separated by `/`.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Its name is not UTF-8, so nobody can open it by this path.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unreadable: bool,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// In the order of their paths, folder by folder.
    pub(crate) files: Vec<File>,
    /// Entries that could not be listed, looked at or named.
    pub(crate) unreadable: usize,
}

/// List the files beneath `root`.
pub(crate) fn walk(root: &Path) -> Result<Tree, Failure> {
    let metadata = fs::metadata(root).map_err(|error| Failure::never(format!("{}: {error}", root.display())))?;
    if !metadata.is_dir() {
        return Err(Failure::never(format!("{} is not a directory", root.display())));
    }
    let mut tree = Tree::default();
    let mut listing = 0;
    for entry in walker(root) {
        let Ok(entry) = entry else {
            tree.unreadable += 1;
            continue;
        };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let (Ok(metadata), Ok(path)) = (entry.metadata(), entry.path().strip_prefix(root)) else {
            tree.unreadable += 1;
            continue;
        };
        let unreadable = path.to_str().is_none();
        tree.unreadable += usize::from(unreadable);
        let path = path.to_string_lossy().into_owned();
        listing += path.len() + ENTRY_BYTES;
        if listing > MAX_LISTING_BYTES {
            return Err(Failure::never(format!(
                "{} holds more files than one audit can list ({} so far); audit its folders one by one",
                root.display(),
                tree.files.len()
            )));
        }
        tree.files.push(File {
            path,
            size: metadata.len(),
            unreadable,
        });
        if tree.files.len() % BEAT_EVERY == 0 && heartbeat::beat(None) == Directive::Cancel {
            return Err(Failure::never("cancelled while listing files"));
        }
    }
    Ok(tree)
}

fn walker(root: &Path) -> ignore::Walk {
    WalkBuilder::new(root)
        .standard_filters(false)
        // As a file of rules of our own: a directory is audited as it lies there, whether or not it is a checkout, and the walker's own
        // support for git would look for rules above the root, outside the mount.
        .add_custom_ignore_filename(".gitignore")
        .follow_links(false)
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git")
        .sort_by_file_name(Ord::cmp)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn paths(dir: &tempfile::TempDir) -> Vec<String> {
        walk(dir.path())
            .unwrap()
            .files
            .into_iter()
            .map(|file| file.path)
            .collect()
    }

    #[test]
    fn git_and_what_it_ignores_are_left_out_and_hidden_files_are_not() {
        let dir = tree_of(&[
            (".git/config", "[core]"),
            (".gitignore", "target/\n*.log\n!keep.log\n/top.txt\n"),
            (".env", "KEY=1"),
            ("target/debug/out", ""),
            ("a.log", ""),
            ("keep.log", ""),
            ("top.txt", ""),
            ("sub/top.txt", ""),
            ("sub/.gitignore", "private\n"),
            ("sub/private", ""),
            ("private", ""),
        ]);
        let expected = [
            ".env",
            ".gitignore",
            "keep.log",
            "private",
            "sub/.gitignore",
            "sub/top.txt",
        ];
        assert_eq!(paths(&dir), expected);
    }

    #[test]
    fn sizes_are_counted_and_ignore_files_of_other_tools_are_not_obeyed() {
        let dir = tree_of(&[(".ignore", "*"), ("five", "12345")]);
        let tree = walk(dir.path()).unwrap();
        assert_eq!(
            tree.files[1],
            File {
                path: "five".into(),
                size: 5,
                unreadable: false
            }
        );
        assert_eq!(tree.unreadable, 0);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed_and_odd_names_are_only_counted() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

        let dir = tree_of(&[("folder/file", "")]);
        std::os::unix::fs::symlink("folder", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("passwd")).unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(b"odd\xff")), "x").unwrap();
        let tree = walk(dir.path()).unwrap();
        let odd = File {
            path: "odd\u{fffd}".into(),
            size: 1,
            unreadable: true,
        };
        assert_eq!(
            tree.files,
            [
                File {
                    path: "folder/file".into(),
                    size: 0,
                    unreadable: false
                },
                odd
            ]
        );
        assert_eq!(tree.unreadable, 1);
    }
}
