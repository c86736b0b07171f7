//! Files that earlier releases wrote, opened and read whole. `tests/fixtures` has a directory per format: the first has a store,
//! the second a backup beside it. When the format changes they stay as they are, and another joins them. To write one:
//! `SKEP_FIXTURE=DIR cargo test -p skep-store --test compat`.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::fs;
use std::path::{Path, PathBuf};

use skep_store::{Batch, Digest, Options, Position, Range, Recovered, SCAN_ROWS, Store, Table, Write, restore};

const STATE: Table = Table::new("state");
const EMPTY: Table = Table::new("empty");
/// Entries, of which those up to the checkpoint were dropped.
const ENTRIES: u64 = 60;
const CHECKPOINT: Position = Position(40);
/// Audit rows that have lost their payloads.
const EXPIRED: u64 = 10;
const BLOB: &[u8] = b"a blob of the first format\n";

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

fn open(path: &Path) -> (Store, Recovered) {
    Store::open(path, Options::default()).unwrap()
}

/// Writes a store with some of everything, and a backup of it. What must be in them is what [`check`] says.
fn write(directory: &Path) {
    let (store, _) = open(&directory.join("store"));
    for number in 1..=ENTRIES {
        let value = number.to_string().into_bytes();
        let write = match number % 7 {
            6 => Write::Delete {
                table: STATE,
                key: vec![5],
            },
            key => Write::Put {
                table: STATE,
                key: vec![u8::try_from(key).unwrap()],
                value: value.clone(),
            },
        };
        let empty = Write::Put {
            table: EMPTY,
            key: Vec::new(),
            value: Vec::new(),
        };
        let batch = Batch {
            entries: vec![value],
            audit: vec![format!("row {number}").into_bytes()],
            writes: vec![write, empty],
        };
        store.wait_blocking(store.append(batch).unwrap()).unwrap();
        if Position(number) == CHECKPOINT {
            let records = (0..5_u8).map(|key| (vec![key], Some(vec![key; 10])));
            store.checkpoint(CHECKPOINT, records.collect()).unwrap();
            store.expire_audit(EXPIRED).unwrap();
            store.flush().unwrap();
        }
    }
    store.blobs().put(BLOB).unwrap();
    let backup = fs::File::create(directory.join("host.backup")).unwrap();
    store.backup(&[("host.toml", b"slots = 7\n".to_vec())], backup).unwrap();
    store.close().unwrap();
}

/// All that is in a store, against what was written.
fn check((store, recovered): (Store, Recovered)) {
    assert_eq!((recovered.checkpoint, recovered.last), (CHECKPOINT, Position(ENTRIES)));
    let records: Vec<_> = recovered.records().map(Result::unwrap).collect();
    assert_eq!(
        records,
        (0..5_u8).map(|key| (vec![key], vec![key; 10])).collect::<Vec<_>>()
    );
    let entries = recovered.entries().map(Result::unwrap);
    assert!(entries.eq((CHECKPOINT.0 + 1..=ENTRIES).map(|number| (Position(number), number.to_string().into_bytes()))));
    drop(recovered);
    let rows = store.scan(STATE, &Range::all(), SCAN_ROWS).unwrap();
    let expected = [(0, "56"), (1, "57"), (2, "58"), (3, "59"), (4, "60")];
    let expected = expected.map(|(key, value): (u8, &str)| (vec![key], value.as_bytes().to_vec()));
    assert_eq!(rows, expected);
    assert_eq!(store.get(EMPTY, b"").unwrap(), Some(Vec::new()));
    for (row, number) in store.audit(1, SCAN_ROWS).unwrap().into_iter().zip(1..) {
        let payload = (number > EXPIRED).then(|| format!("row {number}").into_bytes());
        assert_eq!((row.seq, row.payload), (number, payload));
    }
    assert_eq!(store.verify_audit().unwrap().seq, ENTRIES);
    assert_eq!(store.verify_journal().unwrap(), Position(ENTRIES));
    assert_eq!(store.blobs().read(Digest::of(BLOB), 0, 100).unwrap(), BLOB);
    // And it goes on.
    let next = Batch {
        entries: vec![b"next".to_vec()],
        ..Batch::default()
    };
    store.wait_blocking(store.append(next).unwrap()).unwrap();
    store.verify_tables().unwrap();
}

fn check_backup(file: &Path, to: &Path) {
    let backup = fs::File::open(file).unwrap();
    let mut files = Vec::new();
    let restored = restore(backup, to, Options::default(), |name, bytes| {
        files.push((name.to_owned(), bytes.to_vec()));
        Ok(())
    });
    assert_eq!(restored.unwrap().position, Position(ENTRIES));
    assert_eq!(files, [("host.toml".to_owned(), b"slots = 7\n".to_vec())]);
    check(open(to));
}

#[test]
fn stores_of_every_format_are_read_whole_and_go_on() {
    for format in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("store");
        // The fixture itself stays as it was written.
        fs::create_dir_all(copy.join("blobs")).unwrap();
        fs::copy(fixture(format).join("store/store.redb"), copy.join("store.redb")).unwrap();
        let blob = format!("blobs/{}", Digest::of(BLOB));
        fs::copy(fixture(format).join("store").join(&blob), copy.join(&blob)).unwrap();
        check(open(&copy));
        // What was brought to the present format is opened as such.
        Store::open(&copy, Options::default())
            .unwrap()
            .0
            .verify_tables()
            .unwrap();
    }
}

#[test]
fn a_backup_of_the_second_format_is_restored_whole() {
    let directory = tempfile::tempdir().unwrap();
    check_backup(&fixture(2).join("host.backup"), &directory.path().join("restored"));
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "where a fixture is written is an argument of the test run"
)]
fn what_this_release_writes_holds_the_same() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    check_backup(
        &directory.path().join("host.backup"),
        &directory.path().join("restored"),
    );
    if let Ok(fixture) = std::env::var("SKEP_FIXTURE") {
        fs::create_dir_all(&fixture).unwrap();
        write(Path::new(&fixture));
    }
    check(open(&directory.path().join("store")));
}
