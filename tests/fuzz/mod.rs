//! The fuzz bodies over a small corpus and some thousand mutations of it, from seeds: the same on every machine. For longer, with coverage to guide
//! it: `cargo +nightly fuzz run --fuzz-dir tests/fuzz envelope tests/fuzz/corpus/envelope` (or `statement`, `metadata`, `manifest`, `prescan`).

use std::{fs, path::Path};

mod bodies;

/// Mutations of each corpus.
const MUTATIONS: u64 = 20_000;
/// The longest that a mutation grows.
const MOST: usize = 128 << 10;
/// Pieces that readers look for: they get further with these than with noise.
const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"key_",
    b"ed25519:",
    b"sha256:",
    b"\0asm",
    b"\x0d\0\x01\0",
    b"\x80\x80\x80\x80\x10",
    b"''",
    b"=",
    b"\n[wants]\n",
    b"*.",
];

/// Numbers from a seed (SplitMix64): enough to choose with.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another; 0 below 0.
    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % (most.max(1) as u64)).expect("below a length")
    }

    /// A range within a length.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(64) + 1)
    }
}

/// One to eight changes of bytes: bits, pieces, cuts, repetitions, splices of another file.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(8) {
        let at = numbers.below(bytes.len());
        match numbers.below(7) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            2 => drop(bytes.drain(numbers.range(bytes.len()))),
            3 => {
                let piece = bytes[numbers.range(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let piece = other[numbers.range(other.len())].to_vec();
                bytes.splice(numbers.range(bytes.len()), piece);
            }
            5 => bytes.truncate(at),
            _ => {
                let piece = PIECES[numbers.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes.truncate(MOST);
}

/// Names what was tried when a body panics, so that it can be tried again.
struct Named<'a>(&'a str, u64, &'a [u8]);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Named(target, seed, bytes) = self;
            eprintln!(
                "the fuzz body `{target}` failed at seed {seed}, on: {}",
                bytes.escape_ascii()
            );
        }
    }
}

fn fuzz(target: &str) {
    let (name, body) = bodies::BODIES
        .iter()
        .find(|(name, _)| *name == target)
        .expect("a body of that name");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(corpus.len() >= 3, "the corpus of `{name}` is too small");
    for (file, bytes) in files.iter().zip(&corpus) {
        let _named = Named(file.to_str().unwrap(), 0, bytes);
        body(bytes);
    }
    let mut taken = 0;
    for seed in 0..MUTATIONS {
        let mut numbers = Numbers(seed);
        let mut bytes = corpus[numbers.below(corpus.len())].clone();
        mutate(&mut bytes, &corpus[numbers.below(corpus.len())], &mut numbers);
        let _named = Named(name, seed, &bytes);
        taken += u64::from(body(&bytes));
    }
    // Mutations that are all refused, or all taken, would try half of the body.
    assert!(
        (100..MUTATIONS - 100).contains(&taken),
        "{taken} of {MUTATIONS} mutations were taken"
    );
}

#[test]
fn envelopes() {
    fuzz("envelope");
}

#[test]
fn statements() {
    fuzz("statement");
}

#[test]
fn documents_of_trust() {
    fuzz("metadata");
}

#[test]
fn manifests() {
    fuzz("manifest");
}

#[test]
fn components_before_they_are_compiled() {
    fuzz("prescan");
}

/// Every body has a target for cargo-fuzz, which is not built here.
#[test]
fn every_body_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for (name, _) in bodies::BODIES {
        let target = fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("bodies::{name}(bytes)")), "{target}");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
}
