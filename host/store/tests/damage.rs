//! Bytes on the disk that are not those that were written are found and named, and directories that are not ours refused.
#![expect(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test says what it expects by failing"
)]

use std::fs;
use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use skep_store::{Batch, Error, Options, Position, Recovered, Store, Table, Write};

const FRAMES: &str = ".frames";
const AUDIT: &str = ".audit";
const META: &str = ".meta";

fn open(path: &Path) -> Result<(Store, Recovered), Error> {
    Store::open(path, Options::default())
}

/// A store of twenty frames, each with an audit row, closed.
fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path()).unwrap();
    for number in 1..=20u8 {
        let key = vec![number];
        let write = Write::Put {
            table: Table::new("state"),
            key,
            value: vec![number; 50],
        };
        let batch = Batch {
            entries: vec![vec![number; 50]],
            audit: vec![vec![number; 50]],
            writes: vec![write],
        };
        store.wait_blocking(store.append(batch).unwrap()).unwrap();
    }
    store.close().unwrap();
    directory
}

/// Edits a row behind the store's back; `edit` may empty it, which deletes it.
fn edit(path: &Path, table: &'static str, key: &[u8], edit: impl FnOnce(&mut Vec<u8>)) {
    let database = redb::Database::open(path.join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction
            .open_table(TableDefinition::<&[u8], &[u8]>::new(table))
            .unwrap();
        let mut row = rows.get(key).unwrap().unwrap().value().to_vec();
        edit(&mut row);
        if row.is_empty() {
            rows.remove(key).unwrap();
        } else {
            rows.insert(key, row.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn number(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The one error that reading everything gives.
fn found(path: &Path) -> String {
    let read = || -> Result<(), Error> {
        let (store, recovered) = open(path)?;
        recovered.entries().try_for_each(|entry| entry.map(drop))?;
        store.verify_journal()?;
        store.verify_audit()?;
        Ok(())
    };
    let error = read().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_flipped_byte_in_a_frame_is_named() {
    for byte in [0, 31, 32, 40, 90] {
        let directory = filled();
        edit(directory.path(), FRAMES, &number(7), |row| row[byte] ^= 1);
        assert_eq!(
            found(directory.path()),
            "damaged frame: entry 7: its bytes do not match its hash"
        );
    }
}

#[test]
fn a_damaged_last_frame_is_found_at_opening() {
    let directory = filled();
    edit(directory.path(), FRAMES, &number(20), |row| row[50] ^= 1);
    let error = open(directory.path()).unwrap_err().to_string();
    assert_eq!(error, "damaged frame: entry 20: its bytes do not match its hash");
}

#[test]
fn a_missing_frame_is_named() {
    for (gone, error) in [
        (1, "damaged frame: entry 1: missing"),
        (7, "damaged frame: entry 7: missing"),
    ] {
        let directory = filled();
        edit(directory.path(), FRAMES, &number(gone), Vec::clear);
        assert_eq!(found(directory.path()), error);
    }
    let directory = filled();
    edit(directory.path(), FRAMES, &number(20), Vec::clear);
    assert_eq!(
        open(directory.path()).unwrap_err().to_string(),
        "damaged frame: entry 20: missing"
    );
}

#[test]
fn a_frame_of_another_history_does_not_follow() {
    let (ours, theirs) = (filled(), tempfile::tempdir().unwrap());
    let (store, _) = open(theirs.path()).unwrap();
    for number in 1..=20u8 {
        store
            .wait_blocking(
                store
                    .append(Batch {
                        entries: vec![vec![number]],
                        ..Batch::default()
                    })
                    .unwrap(),
            )
            .unwrap();
    }
    store.close().unwrap();
    let mut frame = Vec::new();
    edit(theirs.path(), FRAMES, &number(7), |row| frame.clone_from(row));
    edit(ours.path(), FRAMES, &number(7), |row| *row = frame);
    assert_eq!(
        found(ours.path()),
        "damaged frame: entry 7: it does not follow the frame before"
    );
}

#[test]
fn a_changed_missing_or_cut_audit_row_is_named() {
    let payload = |row: &mut Vec<u8>| *row.last_mut().unwrap() ^= 1;
    let cases: [(u64, fn(&mut Vec<u8>), &str); 4] = [
        (
            5,
            payload,
            "damaged audit row: 5: its payload does not match its digest",
        ),
        (
            5,
            |row| row[10] ^= 1,
            "damaged audit row: 5: its payload does not match its digest",
        ),
        (5, Vec::clear, "damaged audit row: 5: missing"),
        (
            20,
            Vec::clear,
            "damaged audit row: 20: missing, the log is cut off here",
        ),
    ];
    for (row, change, error) in cases {
        let directory = filled();
        edit(directory.path(), AUDIT, &number(row), change);
        assert_eq!(found(directory.path()), error);
    }
}

#[test]
fn an_audit_row_put_in_with_its_own_chain_is_named() {
    let directory = filled();
    let mut other = Vec::new();
    edit(directory.path(), AUDIT, &number(6), |row| other.clone_from(row));
    edit(directory.path(), AUDIT, &number(5), |row| *row = other);
    assert_eq!(
        found(directory.path()),
        "damaged audit row: 5: its chain does not follow from the row before"
    );
}

#[test]
fn a_flipped_byte_in_a_blob_is_named_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = vec![7; 300_000];
    let (store, _) = open(directory.path()).unwrap();
    let digest = store.blobs().put(&bytes).unwrap();
    let file = directory.path().join("blobs").join(digest.to_string());
    let expected = format!("damaged blob: {digest}: its bytes do not match its name");

    let flip = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
    };
    // While the store remembers its pieces, a read finds damage in the pieces it touches.
    flip(200_000);
    assert_eq!(store.blobs().read(digest, 0, 10).unwrap(), [7; 10]);
    assert_eq!(
        store.blobs().read(digest, 199_000, 10).unwrap_err().to_string(),
        expected
    );
    // From then on, and after opening again, the first read hashes all of it.
    assert_eq!(store.blobs().read(digest, 0, 10).unwrap_err().to_string(), expected);
    assert_eq!(store.blobs().verify().unwrap_err().to_string(), expected);
    // Putting the bytes again replaces what is damaged; a cut blob is damaged too.
    store.blobs().put(&bytes).unwrap();
    assert_eq!(store.blobs().read(digest, 0, bytes.len()).unwrap(), bytes);
    fs::write(&file, &bytes[..100]).unwrap();
    assert_eq!(store.blobs().read(digest, 0, 10).unwrap_err().to_string(), expected);
}

#[test]
fn a_store_in_use_is_locked_until_its_last_clone_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (store, recovered) = open(directory.path()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Locked { path } if path == directory.path()),
        "{error:?}"
    );
    drop(recovered);
    let fence = store.fence();
    drop(store);
    assert_eq!(open(directory.path()).unwrap().0.fence(), fence + 1);
}

#[test]
fn a_directory_of_others_is_refused_untouched() {
    let foreign = |directory: &Path| {
        let before = fs::read_dir(directory).unwrap().count();
        let error = open(directory).unwrap_err();
        assert!(
            matches!(&error, Error::Foreign { path } if path == directory),
            "{error:?}"
        );
        assert_eq!(
            fs::read_dir(directory)
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().file_name() != "lock")
                .count(),
            before
        );
    };
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("letter.txt"), "dear all").unwrap();
    foreign(directory.path());

    for content in [&b""[..], b"red", b"not a database at all"] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("store.redb"), content).unwrap();
        foreign(directory.path());
    }

    let directory = tempfile::tempdir().unwrap();
    let database = redb::Database::create(directory.path().join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<u64, u64>::new("theirs"))
        .unwrap()
        .insert(1, 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    foreign(directory.path());
    let database = redb::Database::open(directory.path().join("store.redb")).unwrap();
    assert_eq!(database.begin_read().unwrap().list_tables().unwrap().count(), 1);
}

#[test]
fn a_creation_cut_short_is_begun_again_for_the_operator_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fs::create_dir_all(path.join("blobs/tmp")).unwrap();
    fs::write(path.join("store.redb.new"), "half a data").unwrap();
    fs::write(path.join("blobs/tmp/0"), "half a blob").unwrap();
    let (store, recovered) = open(&path).unwrap();
    assert_eq!((recovered.last, store.blobs().verify().unwrap()), (Position::START, 0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(path.join("blobs/tmp")).unwrap().count(), 0);
}

#[test]
fn an_unknown_format_is_named() {
    let directory = filled();
    // The head row is an array whose first element is the format.
    edit(directory.path(), META, b"head", |row| row[1] = 9);
    assert!(matches!(
        open(directory.path()).unwrap_err(),
        Error::Format { found: 9, known: 2, .. }
    ));
    edit(directory.path(), META, b"head", |row| row.truncate(4));
    assert!(matches!(
        open(directory.path()).unwrap_err(),
        Error::Format { .. } | Error::Damaged { .. }
    ));
}

#[test]
fn a_store_opened_again_has_everything_and_goes_on() {
    let directory = filled();
    let (store, recovered) = open(directory.path()).unwrap();
    assert_eq!((recovered.checkpoint, recovered.last), (Position::START, Position(20)));
    assert!(
        recovered
            .entries()
            .map(Result::unwrap)
            .map(|(position, _)| position.0)
            .eq(1..=20)
    );
    drop(recovered);
    store
        .checkpoint(Position(20), vec![(b"a".to_vec(), Some(b"1".to_vec()))])
        .unwrap();
    store
        .append(Batch {
            entries: vec![b"21".to_vec()],
            ..Batch::default()
        })
        .unwrap();
    store.close().unwrap();

    let (store, recovered) = open(directory.path()).unwrap();
    assert_eq!(recovered.checkpoint, Position(20));
    assert_eq!(
        recovered.records().map(Result::unwrap).collect::<Vec<_>>(),
        [(b"a".to_vec(), b"1".to_vec())]
    );
    assert_eq!(
        recovered.entries().map(Result::unwrap).collect::<Vec<_>>(),
        [(Position(21), b"21".to_vec())]
    );
    assert_eq!(store.verify_audit().unwrap().seq, 20);
}
