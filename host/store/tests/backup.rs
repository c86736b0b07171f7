//! A backup is everything as of one position, made while the store goes on; a byte of it that changed or is missing is found, with
//! its place; a restored store is whole and has a higher fence than any owner of the old one.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use skep_store::{
    BackedUp, Batch, Error, Options, Position, Range, SCAN_ROWS, Store, Table, Write as Change, check_backup, restore,
};

const STATE: Table = Table::new("state");
const BLOB_BYTES: usize = 10 << 20;

fn open(path: &Path) -> Store {
    Store::open(path, Options::default()).unwrap().0
}

/// Entry, audit row and table row `number`, of which the last of each of ten keys counts.
fn batch(number: u64) -> Batch {
    Batch {
        entries: vec![number.to_string().into_bytes()],
        audit: vec![number.to_be_bytes().to_vec()],
        writes: vec![Change::Put {
            table: STATE,
            key: vec![u8::try_from(number % 10).unwrap()],
            value: number.to_string().into_bytes(),
        }],
    }
}

/// What the table holds after so many batches.
fn rows(batches: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = BTreeMap::new();
    for number in 1..=batches {
        rows.insert(
            vec![u8::try_from(number % 10).unwrap()],
            number.to_string().into_bytes(),
        );
    }
    Vec::from_iter(rows)
}

fn filled(path: &Path, batches: u64) -> Store {
    let store = open(path);
    for number in 1..=batches {
        store.append(batch(number)).unwrap();
    }
    store.flush().unwrap();
    store
}

fn backup(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    let files = [("bundled.key", b"secret".to_vec()), ("empty", Vec::new())];
    let made = store.backup(&files, &mut bytes).unwrap();
    assert_eq!(made.bytes, bytes.len() as u64);
    assert_eq!(check_backup(bytes.as_slice(), BLOB_BYTES).unwrap(), made);
    bytes
}

type Files = Vec<(String, Vec<u8>)>;

/// Restores into a new directory and gives the files that were in the backup.
fn restored(bytes: &[u8], path: &Path) -> Result<(BackedUp, Files), Error> {
    let mut files = Vec::new();
    let made = restore(bytes, path, Options::default(), |name, bytes| {
        files.push((name.to_owned(), bytes.to_vec()));
        Ok(())
    })?;
    Ok((made, files))
}

#[test]
fn what_was_durable_when_it_began_is_restored_as_of_one_position() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(old.path(), 100);
    store
        .checkpoint(Position(60), vec![(b"record".to_vec(), Some(b"as of 60".to_vec()))])
        .unwrap();
    let blob = vec![7; 3_000_000];
    let digest = store.blobs().put(&blob).unwrap();
    store.flush().unwrap();

    // The store goes on while it is read: every write of the backup finds it further on.
    struct GoesOn<'a>(&'a Store, Vec<u8>, u64);
    impl Write for GoesOn<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.2 += 1;
            self.0.append(batch(self.2)).unwrap();
            self.0.flush().unwrap();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut to = GoesOn(&store, Vec::new(), 100);
    let made = store.backup(&[("a", b"1".to_vec())], &mut to).unwrap();
    let (bytes, went_on) = (to.1, to.2);
    assert!(went_on > 105, "{went_on}");
    assert_eq!((made.position, made.audit.seq, made.blobs), (Position(100), 100, 1));
    let fence = store.fence();

    let path = new.path().join("store");
    let (read, files) = restored(&bytes, &path).unwrap();
    assert_eq!(read, made);
    assert_eq!(files, [("a".to_owned(), b"1".to_vec())]);
    let (store, recovered) = Store::open(&path, Options::default()).unwrap();
    assert!(
        store.fence() > fence + u64::from(u32::MAX),
        "no owner of the old one gets there by opening it"
    );
    assert_eq!((recovered.checkpoint, recovered.last), (Position(60), Position(100)));
    let records: Vec<_> = recovered.records().map(Result::unwrap).collect();
    assert_eq!(records, [(b"record".to_vec(), b"as of 60".to_vec())]);
    let entries = recovered.entries().map(Result::unwrap);
    assert!(entries.eq((61..=100).map(|number: u64| (Position(number), number.to_string().into_bytes()))));
    assert_eq!(store.scan(STATE, &Range::all(), SCAN_ROWS).unwrap(), rows(100));
    assert_eq!(store.verify_audit().unwrap(), made.audit);
    assert_eq!(store.blobs().read(digest, 0, blob.len()).unwrap(), blob);
    let next = store.append(batch(101)).unwrap();
    assert_eq!(next, Position(101));
    store.wait_blocking(next).unwrap();
    store.verify_journal().unwrap();
}

#[test]
fn a_backup_of_a_restored_store_is_like_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("a"), 5_000);
    let first = backup(&store);
    let path = directory.path().join("b");
    restored(&first, &path).unwrap();
    let second = backup(&open(&path));
    let (first, second) = (
        check_backup(first.as_slice(), BLOB_BYTES).unwrap(),
        check_backup(second.as_slice(), BLOB_BYTES).unwrap(),
    );
    assert_eq!(
        (first.position, first.audit, first.rows, first.blobs),
        (second.position, second.audit, second.rows, second.blobs)
    );
}

#[test]
fn a_changed_missing_or_added_byte_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 3);
    store.blobs().put(b"a blob").unwrap();
    let sound = backup(&store);
    let check = |bytes: &[u8]| check_backup(bytes, BLOB_BYTES).unwrap_err();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        match check(&bytes) {
            Error::Damaged {
                what: "backup",
                at: place,
            } => {
                let place: usize = place.split([' ', ':']).nth(1).unwrap().parse().unwrap();
                assert!(place <= at, "byte {at} was flipped, byte {place} was named");
            }
            Error::Format { what: "backup", .. } if at < 20 => {}
            error => unreachable!("byte {at}: {error:?}"),
        }
    }
    for length in 0..sound.len() {
        let error = check(&sound[..length]).to_string();
        assert!(error.starts_with("damaged backup: byte "), "{length}: {error}");
    }
    let error = check(&[sound.as_slice(), b"x"].concat()).to_string();
    let expected = format!(
        "damaged backup: byte {}: something follows the end of the backup",
        sound.len()
    );
    assert_eq!(error, expected);
    assert_eq!(
        check(b"not a backup at all").to_string(),
        "damaged backup: byte 0: this is not a backup of skep"
    );
    assert!(matches!(
        check(b"skep-backup 7\n"),
        Error::Format {
            what: "backup",
            found: 7,
            known: 1
        }
    ));
}

#[test]
fn nothing_is_made_of_a_damaged_backup_nor_in_a_directory_that_holds_something() {
    let directory = tempfile::tempdir().unwrap();
    let sound = backup(&filled(&directory.path().join("old"), 3));
    let path = directory.path().join("new");
    let cut = &sound[..sound.len() - 1];
    assert!(matches!(
        restored(cut, &path),
        Err(Error::Damaged { what: "backup", .. })
    ));
    // What is left of it is in the way of nobody but the next restore.
    assert!(matches!(restored(&sound, &path), Err(Error::Foreign { .. })));
    fs::remove_dir_all(&path).unwrap();
    restored(&sound, &path).unwrap();
    assert!(matches!(restored(&sound, &path), Err(Error::Foreign { .. })));
}

#[test]
fn a_blob_that_is_dropped_during_a_backup_is_in_it_and_goes_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("old"), 3);
    let [dropped, kept] = [b"dropped", b"kept ok"].map(|bytes| store.blobs().put(bytes).unwrap());
    struct Drops<'a>(&'a Store, Vec<u8>, [skep_store::Digest; 2]);
    impl Write for Drops<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            for digest in self.2 {
                self.0.blobs().remove(digest).unwrap();
            }
            self.0.blobs().put(b"kept ok").unwrap();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut to = Drops(&store, Vec::new(), [dropped, kept]);
    store.backup(&[], &mut to).unwrap();
    let bytes = to.1;
    assert_eq!(store.blobs().list().unwrap(), [kept]);
    let path = directory.path().join("new");
    restored(&bytes, &path).unwrap();
    assert_eq!(open(&path).blobs().verify().unwrap(), 2);
}

#[test]
fn a_damaged_store_has_no_backup() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 3);
    let digest = store.blobs().put(b"a blob").unwrap();
    fs::write(directory.path().join("blobs").join(digest.to_string()), b"a bulb").unwrap();
    let error = store.backup(&[], &mut Vec::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("damaged blob: {digest}: its bytes do not match its name")
    );
    assert!(matches!(
        store.backup(&[("big", vec![0; skep_store::BACKUP_FILE_BYTES + 1])], &mut Vec::new()),
        Err(Error::OverLimit { .. })
    ));
}
