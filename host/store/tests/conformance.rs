//! One list of promises, kept by a store on every engine.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]

use std::path::Path;

use skep_store::{Batch, Error, Options, Position, Range, Recovered, SCAN_ROWS, Store, Table, Write};

const COLOURS: Table = Table::new("colours");
const OTHER: Table = Table::new("other");

/// Every promise, by name. A new one is a function and a line.
macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name(&super::memory()); })*
        }
        mod redb {
            $(#[test] fn $name() {
                let directory = tempfile::tempdir().unwrap();
                super::$name(&super::open(directory.path()).0);
            })*
        }
    };
}

promises! {
    positions_count_entries_from_one,
    reads_see_writes_at_once_and_after_the_commit,
    scans_lay_pending_writes_over_the_engine,
    scans_page_in_both_directions,
    entries_are_read_after_a_position,
    a_checkpoint_drops_whole_frames_before_it,
    audit_rows_are_chained_and_outlive_their_payloads,
    what_is_over_a_bound_is_refused_and_changes_nothing,
    waiting_ends_when_durable,
    closing_makes_everything_durable,
    appends_from_many_threads_keep_one_order,
    blobs_are_named_by_their_content,
    what_is_just_within_a_bound_is_kept_whole,
    empty_keys_and_values_are_kept,
    a_scan_sees_batches_whole,
    a_later_checkpoint_absorbs_one_that_waits,
    a_backup_becomes_a_store_like_it,
}

fn memory() -> Store {
    Store::in_memory(Options::default()).unwrap().0
}

fn open(path: &Path) -> (Store, Recovered) {
    Store::open(path, Options::default()).unwrap()
}

fn entry(text: &str) -> Batch {
    Batch {
        entries: vec![text.into()],
        ..Batch::default()
    }
}

fn put(table: Table, key: &str, value: &str) -> Write {
    Write::Put {
        table,
        key: key.into(),
        value: value.into(),
    }
}

fn delete(table: Table, key: &str) -> Write {
    Write::Delete { table, key: key.into() }
}

fn written(writes: Vec<Write>) -> Batch {
    Batch {
        entries: vec![b"wrote".to_vec()],
        writes,
        ..Batch::default()
    }
}

fn keys(rows: &[(Vec<u8>, Vec<u8>)]) -> Vec<&str> {
    rows.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect()
}

fn positions_count_entries_from_one(store: &Store) {
    assert_eq!(store.last(), Position::START);
    assert_eq!(store.append(entry("a")).unwrap(), Position(1));
    let three = Batch {
        entries: vec![b"b".to_vec(), b"c".to_vec(), b"d".to_vec()],
        ..Batch::default()
    };
    assert_eq!(store.append(three).unwrap(), Position(4));
    assert_eq!(
        store.append(Batch::default()).unwrap(),
        Position(4),
        "an empty batch changes nothing"
    );
    assert_eq!(store.last(), Position(4));
}

fn reads_see_writes_at_once_and_after_the_commit(store: &Store) {
    assert_eq!(store.get(COLOURS, b"sky").unwrap(), None);
    store
        .append(written(vec![
            put(COLOURS, "sky", "grey"),
            put(COLOURS, "sky", "blue"),
            put(OTHER, "sky", "x"),
        ]))
        .unwrap();
    for _ in 0..2 {
        assert_eq!(store.get(COLOURS, b"sky").unwrap().unwrap(), b"blue");
        assert_eq!(store.get(OTHER, b"sky").unwrap().unwrap(), b"x");
        store.flush().unwrap();
    }
    store.append(written(vec![delete(COLOURS, "sky")])).unwrap();
    for _ in 0..2 {
        assert_eq!(store.get(COLOURS, b"sky").unwrap(), None);
        assert_eq!(store.scan(COLOURS, &Range::all(), 10).unwrap(), vec![]);
        store.flush().unwrap();
    }
}

fn scans_lay_pending_writes_over_the_engine(store: &Store) {
    store
        .append(written(
            "bdfhj"
                .chars()
                .map(|key| put(COLOURS, &key.to_string(), "old"))
                .collect(),
        ))
        .unwrap();
    store.flush().unwrap();
    let writes = vec![
        delete(COLOURS, "b"),
        put(COLOURS, "c", "new"),
        put(COLOURS, "d", "new"),
        delete(COLOURS, "h"),
    ];
    store.append(written(writes)).unwrap();
    for _ in 0..2 {
        let rows = store.scan(COLOURS, &Range::all(), 10).unwrap();
        assert_eq!(keys(&rows), ["c", "d", "f", "j"]);
        assert_eq!(rows[1].1, b"new");
        assert_eq!(keys(&store.scan(COLOURS, &Range::all(), 2).unwrap()), ["c", "d"]);
        assert_eq!(
            keys(&store.scan(COLOURS, &Range::all().reversed(), 3).unwrap()),
            ["j", "f", "d"]
        );
        store.flush().unwrap();
    }
}

fn scans_page_in_both_directions(store: &Store) {
    let names: Vec<String> = (0..25).map(|number| format!("k/{number:02}")).collect();
    let mut writes: Vec<Write> = names.iter().map(|name| put(COLOURS, name, "v")).collect();
    writes.extend([put(COLOURS, "j", "before"), put(COLOURS, "k0", "after")]);
    store.append(written(writes)).unwrap();
    for reverse in [false, true] {
        let mut range = Range {
            reverse,
            ..Range::prefix(b"k/")
        };
        let mut found = Vec::new();
        loop {
            let page = store.scan(COLOURS, &range, 10).unwrap();
            let Some((last, _)) = page.last() else { break };
            range = if reverse { range.before(last) } else { range.after(last) };
            found.extend(keys(&page).into_iter().map(str::to_owned));
        }
        if reverse {
            found.reverse();
        }
        assert_eq!(found, names);
    }
    assert_eq!(
        keys(&store.scan(COLOURS, &Range::all().after(b"k/24"), 10).unwrap()),
        ["k0"]
    );
    let inverted = Range::all().after(b"z").before(b"a");
    assert_eq!(store.scan(COLOURS, &inverted, 10).unwrap(), vec![]);
}

fn entries_are_read_after_a_position(store: &Store) {
    for number in 1..=50 {
        let position = store.append(entry(&number.to_string())).unwrap();
        if number % 7 == 0 {
            store.wait_blocking(position).unwrap();
        }
    }
    store.flush().unwrap();
    let found = store.entries(Position(20), 5).unwrap();
    let expected: Vec<_> = (21..=25u64)
        .map(|number| (Position(number), number.to_string().into_bytes()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(store.entries(Position(50), 5).unwrap(), vec![]);
    assert_eq!(store.entries(Position::START, SCAN_ROWS).unwrap().len(), 50);
    assert_eq!(store.verify_journal().unwrap(), Position(50));
}

fn a_checkpoint_drops_whole_frames_before_it(store: &Store) {
    for number in 1..=20 {
        let position = store.append(entry(&number.to_string())).unwrap();
        store.wait_blocking(position).unwrap();
    }
    store
        .checkpoint(
            Position(10),
            vec![(b"r".to_vec(), Some(b"1".to_vec())), (b"s".to_vec(), None)],
        )
        .unwrap();
    store.flush().unwrap();
    assert!(matches!(
        store.entries(Position(9), 5),
        Err(Error::Truncated { base: Position(10), .. })
    ));
    assert_eq!(store.entries(Position(10), 1).unwrap()[0].0, Position(11));
    assert_eq!(store.verify_journal().unwrap(), Position(20));

    assert!(matches!(
        store.checkpoint(Position(9), vec![]),
        Err(Error::CheckpointOutside { .. })
    ));
    assert!(matches!(
        store.checkpoint(Position(21), vec![]),
        Err(Error::CheckpointOutside { .. })
    ));
    store.checkpoint(Position(20), vec![]).unwrap();
    store.flush().unwrap();
    assert_eq!(store.entries(Position(20), 5).unwrap(), vec![]);
    store.append(entry("21")).unwrap();
    store.flush().unwrap();
    assert_eq!(store.verify_journal().unwrap(), Position(21));
}

fn audit_rows_are_chained_and_outlive_their_payloads(store: &Store) {
    for number in 0..1200u32 {
        let audit = vec![number.to_string().into_bytes()];
        store
            .append(Batch {
                entries: vec![b"e".to_vec()],
                audit,
                ..Batch::default()
            })
            .unwrap();
    }
    store.flush().unwrap();
    let head = store.verify_audit().unwrap();
    assert_eq!(head.seq, 1200);
    let row = &store.audit(1200, 10).unwrap()[0];
    assert_eq!(
        (row.seq, row.payload.as_deref(), row.chain),
        (1200, Some(&b"1199"[..]), head.chain)
    );

    store.expire_audit(1100).unwrap();
    store.flush().unwrap();
    store.append(entry("behind the rest of the expiry")).unwrap();
    store.flush().unwrap();
    store.flush().unwrap();
    assert_eq!(store.verify_audit().unwrap(), head);
    let rows = store.audit(1100, 2).unwrap();
    assert_eq!(rows[0].payload, None);
    assert_eq!(rows[1].payload.as_deref(), Some(&b"1100"[..]));
}

fn what_is_over_a_bound_is_refused_and_changes_nothing(store: &Store) {
    let over = |result: Result<Position, Error>| assert!(matches!(result, Err(Error::OverLimit { .. })), "{result:?}");
    over(store.append(Batch {
        entries: vec![vec![0; skep_store::FRAME_BYTES]],
        ..Batch::default()
    }));
    over(store.append(Batch {
        audit: vec![vec![0; skep_store::AUDIT_BYTES + 1]],
        ..entry("e")
    }));
    over(store.append(written(vec![put(
        COLOURS,
        "k",
        &"v".repeat(skep_store::VALUE_BYTES + 1),
    )])));
    over(store.append(written(vec![put(COLOURS, &"k".repeat(skep_store::KEY_BYTES + 1), "v")])));
    assert!(matches!(
        store.scan(COLOURS, &Range::all(), SCAN_ROWS + 1),
        Err(Error::OverLimit { .. })
    ));
    let orphan = Batch {
        writes: vec![put(COLOURS, "k", "v")],
        ..Batch::default()
    };
    assert!(matches!(store.append(orphan), Err(Error::NoEntry)));
    assert_eq!(
        (store.last(), store.get(COLOURS, b"k").unwrap()),
        (Position::START, None)
    );
}

fn waiting_ends_when_durable(store: &Store) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut progress = store.subscribe();
        let position = store.append(entry("a")).unwrap();
        store.wait(position).await.unwrap();
        assert!(store.durable() >= position);
        assert!(*progress.wait_for(|durable| *durable >= position).await.unwrap() >= position);
    });
}

fn closing_makes_everything_durable(store: &Store) {
    let position = store.append(entry("last")).unwrap();
    store.clone().close().unwrap();
    assert_eq!(store.durable(), position);
    store.wait_blocking(position).unwrap();
    assert!(matches!(store.wait_blocking(Position(2)), Err(Error::Closed)));
    assert!(matches!(store.append(entry("later")), Err(Error::Closed)));
    assert_eq!(
        store.entries(Position::START, 5).unwrap(),
        vec![(position, b"last".to_vec())]
    );
}

fn appends_from_many_threads_keep_one_order(store: &Store) {
    let threads = 4u8;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for number in 0..200u8 {
                    let key = format!("{thread}/{number:03}");
                    let batch = Batch {
                        entries: vec![vec![thread, number]],
                        audit: vec![vec![thread]],
                        writes: vec![put(COLOURS, &key, "v")],
                    };
                    let position = store.append(batch).unwrap();
                    assert!(store.get(COLOURS, key.as_bytes()).unwrap().is_some());
                    if number % 50 == 0 {
                        store.wait_blocking(position).unwrap();
                    }
                }
            });
        }
    });
    store.flush().unwrap();
    let found = store.entries(Position::START, SCAN_ROWS).unwrap();
    assert_eq!(found.len(), 800);
    for thread in 0..threads {
        let numbers = found
            .iter()
            .filter(|(_, entry)| entry[0] == thread)
            .map(|(_, entry)| entry[1]);
        assert!(numbers.eq(0..200), "the appends of thread {thread} kept their order");
    }
    assert_eq!(store.verify_audit().unwrap().seq, 800);
    assert_eq!(store.scan(COLOURS, &Range::all(), SCAN_ROWS).unwrap().len(), 800);
}

fn blobs_are_named_by_their_content(store: &Store) {
    let blobs = store.blobs();
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = blobs.put(&bytes).unwrap();
    assert_eq!(blobs.put(&bytes).unwrap(), digest);
    assert_eq!(digest.to_string().parse(), Ok(digest));
    assert_eq!(blobs.len(digest).unwrap(), 800_000);
    for (offset, len) in [
        (0, 1),
        (65_535, 2),
        (100_000, 300_000),
        (799_999, 10),
        (800_000, 1),
        (u64::MAX, usize::MAX),
    ] {
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = start.saturating_add(len).min(bytes.len());
        assert_eq!(blobs.read(digest, offset, len).unwrap(), bytes[start..end]);
    }
    assert_eq!(blobs.read(blobs.put(b"").unwrap(), 0, 10).unwrap(), b"");
    assert_eq!(blobs.verify().unwrap(), 2);
    assert!(matches!(
        blobs.put(&vec![0; (10 << 20) + 1]),
        Err(Error::OverLimit { .. })
    ));
    blobs.remove(digest).unwrap();
    assert!(matches!(blobs.read(digest, 0, 1), Err(Error::NoBlob { .. })));
    assert!(matches!(blobs.len(digest), Err(Error::NoBlob { .. })));
    blobs.remove(digest).unwrap();
}

fn what_is_just_within_a_bound_is_kept_whole(store: &Store) {
    // What frame and entry take beside the bytes.
    let entry = vec![1; skep_store::FRAME_BYTES - 200];
    let key = "k".repeat(skep_store::KEY_BYTES);
    let value = "v".repeat(skep_store::VALUE_BYTES);
    let payload = vec![2; skep_store::AUDIT_BYTES];
    let batch = Batch {
        entries: vec![entry.clone()],
        audit: vec![payload.clone()],
        writes: vec![put(COLOURS, &key, &value)],
    };
    store.append(batch).unwrap();
    for _ in 0..2 {
        assert!(store.get(COLOURS, key.as_bytes()).unwrap().unwrap() == value.as_bytes());
        store.flush().unwrap();
    }
    assert!(store.entries(Position::START, 1).unwrap() == [(Position(1), entry)]);
    assert!(store.audit(1, 1).unwrap()[0].payload.as_ref() == Some(&payload));
    assert_eq!(store.verify_tables().unwrap(), 4, "frame, audit row, row, head");
}

fn empty_keys_and_values_are_kept(store: &Store) {
    store
        .append(written(vec![put(COLOURS, "", ""), put(OTHER, "a", "")]))
        .unwrap();
    for _ in 0..2 {
        assert_eq!(store.get(COLOURS, b"").unwrap(), Some(Vec::new()));
        assert_eq!(
            store.scan(COLOURS, &Range::all(), 5).unwrap(),
            [(Vec::new(), Vec::new())]
        );
        assert_eq!(store.scan(COLOURS, &Range::all().after(b""), 5).unwrap(), vec![]);
        assert_eq!(store.get(OTHER, b"a").unwrap(), Some(Vec::new()));
        store.flush().unwrap();
    }
}

fn a_scan_sees_batches_whole(store: &Store) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..300 {
                let value = number.to_string();
                let writes = vec![put(COLOURS, "first", &value), put(COLOURS, "second", &value)];
                store.append(written(writes)).unwrap();
            }
        });
        scope.spawn(|| {
            let mut last = None;
            while last.as_deref() != Some(&b"299"[..]) {
                let rows = store.scan(COLOURS, &Range::all(), 5).unwrap();
                if let [(_, first), (_, second)] = rows.as_slice() {
                    assert_eq!(first, second, "half of a batch");
                    last = Some(first.clone());
                }
            }
        });
    });
}

fn a_later_checkpoint_absorbs_one_that_waits(store: &Store) {
    for number in 1..=3 {
        store.append(entry(&number.to_string())).unwrap();
    }
    let record =
        |key: &str, value: Option<&str>| (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()));
    store
        .checkpoint(Position(1), vec![record("a", Some("1")), record("b", Some("1"))])
        .unwrap();
    store
        .checkpoint(Position(3), vec![record("b", None), record("c", Some("3"))])
        .unwrap();
    store.flush().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (_copy, recovered) = copy(store, directory.path());
    assert_eq!(recovered.checkpoint, Position(3));
    let records: Vec<_> = recovered.records().map(Result::unwrap).collect();
    assert_eq!(keys(&records), ["a", "c"]);
}

/// A store made of a backup of another.
fn copy(store: &Store, directory: &Path) -> (Store, Recovered) {
    let mut backup = Vec::new();
    store.backup(&[], &mut backup).unwrap();
    let path = directory.join("copy");
    skep_store::restore(backup.as_slice(), &path, Options::default(), |_, _| Ok(())).unwrap();
    open(&path)
}

fn a_backup_becomes_a_store_like_it(store: &Store) {
    for number in 0..50 {
        let key = format!("{:02}", number % 20);
        let batch = Batch {
            audit: vec![vec![number]],
            ..written(vec![put(COLOURS, &key, "x"), delete(OTHER, &key)])
        };
        store.append(batch).unwrap();
    }
    let blob = store.blobs().put(b"bytes").unwrap();
    store.flush().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (copy, recovered) = copy(store, directory.path());
    assert_eq!(recovered.last, store.last());
    assert_eq!(
        copy.entries(Position::START, 100).unwrap(),
        store.entries(Position::START, 100).unwrap()
    );
    assert_eq!(
        copy.scan(COLOURS, &Range::all(), 100).unwrap(),
        store.scan(COLOURS, &Range::all(), 100).unwrap()
    );
    assert_eq!(copy.audit(1, 100).unwrap(), store.audit(1, 100).unwrap());
    assert_eq!(copy.verify_audit().unwrap(), store.verify_audit().unwrap());
    assert_eq!(copy.blobs().read(blob, 0, 10).unwrap(), b"bytes");
}
