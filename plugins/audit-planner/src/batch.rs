//! Which files are scanned together.

use serde::Serialize;

use crate::walk::File;

/// Files of one batch, unless the tree is so large that there would be too many batches.
const BATCH_FILES: usize = 400;
/// Bytes of one batch, likewise. A single larger file is a batch of its own.
const BATCH_BYTES: u64 = 4 << 20;

/// A batch as its scanners get it.
#[derive(Serialize)]
pub(crate) struct Batch<'a> {
    /// Where the paths start.
    pub(crate) root: &'a str,
    /// What to scan.
    pub(crate) files: &'a [&'a File],
}

/// Split into at most `most` batches (at least one is always allowed), in the order of the files.
pub(crate) fn split(files: &[File], most: usize) -> Vec<Vec<&File>> {
    let (mut max_files, mut max_bytes) = (BATCH_FILES, BATCH_BYTES);
    loop {
        let batches = split_by(files, max_files, max_bytes);
        if batches.len() <= most.max(1) {
            return batches;
        }
        // Ends: once both bounds pass the whole tree there is one batch.
        max_files = max_files.saturating_mul(2);
        max_bytes = max_bytes.saturating_mul(2);
    }
}

fn split_by(files: &[File], max_files: usize, max_bytes: u64) -> Vec<Vec<&File>> {
    let mut batches = Vec::new();
    let mut open = Vec::new();
    let mut bytes = 0u64;
    for file in files {
        if file.size > max_bytes {
            batches.push(vec![file]);
            continue;
        }
        if open.len() == max_files || bytes.saturating_add(file.size) > max_bytes {
            batches.push(std::mem::take(&mut open));
            bytes = 0;
        }
        bytes = bytes.saturating_add(file.size);
        open.push(file);
    }
    if !open.is_empty() {
        batches.push(open);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(sizes: impl IntoIterator<Item = u64>) -> Vec<File> {
        (0..)
            .zip(sizes)
            .map(|(number, size)| File {
                path: format!("{number}"),
                size,
                unreadable: false,
            })
            .collect()
    }

    fn counts(files: &[File], most: usize) -> Vec<usize> {
        split(files, most).iter().map(Vec::len).collect()
    }

    #[test]
    fn batches_are_bounded_by_files_and_by_bytes() {
        const MIB: u64 = 1 << 20;
        assert_eq!(counts(&[], 300), [0; 0]);
        assert_eq!(counts(&files([1; 401]), 300), [400, 1]);
        assert_eq!(counts(&files([MIB; 9]), 300), [4, 4, 1]);
        assert_eq!(counts(&files([4 * MIB, 1]), 300), [1, 1]);
        assert_eq!(counts(&files([1, 5 * MIB, 1]), 300), [1, 2]);
    }

    #[test]
    fn giant_trees_get_larger_batches_and_lose_nothing() {
        let tree = files((0..50_000).map(|number| number * 7919 % (1 << 18)));
        let batches = split(&tree, 90);
        assert!(batches.len() <= 90, "{}", batches.len());
        assert_eq!(batches.iter().flatten().count(), tree.len());
        assert_eq!(counts(&files([u64::MAX, u64::MAX]), 1), [2]);
    }
}
