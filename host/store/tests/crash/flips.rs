//! Bits flip in every page of a small file: each flip is found and named or has no effect. Nothing that was not written is ever
//! served, and nothing panics.

use skep_store::{Error, Options, Position, Range, Redb, SCAN_ROWS, Store, Write};

use crate::disk::{Disk, open};
use crate::script::{STATE, batch};

const BATCHES: u64 = 20;
/// Bits flipped in every page: in its first bytes, where the engine has its own, and in what it holds.
const FLIPS_PER_PAGE: usize = 200;
/// Of the engine.
const PAGE: usize = 4096;

#[test]
fn a_flipped_bit_in_any_page_of_the_file_is_found_or_without_effect() {
    let [found, harmless, hidden] = flip(true);
    assert_eq!(hidden, 0, "{found} found, {harmless} harmless");
    assert!(found > 100 && harmless > 100, "{found} found, {harmless} harmless");
}

#[test]
fn a_flipped_bit_in_a_file_too_large_to_be_checked_when_opened_is_never_served() {
    let [found, harmless, hidden] = flip(false);
    assert!(found > 100, "{found} found, {harmless} harmless, {hidden} hidden");
}

/// Flips bits in every page of a small file, which is checked when it is opened or not, and looks at what is served of it
/// then; all of it must be what is served of the sound file. Returns how many flips were found, had no effect, and hid
/// something.
fn flip(check: bool) -> [usize; 3] {
    let sound = filled();
    let (all, refused) = served(&sound, check);
    assert!(refused.is_empty(), "{refused:?}");
    let [mut found, mut harmless, mut hidden] = [0; 3];
    for at in places(&sound) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        let (served, refused) = served(&bytes, check);
        for item in &served {
            assert!(all.contains(item), "byte {at}: {item} was never written");
        }
        for error in &refused {
            let named = matches!(
                error,
                Error::Damaged { .. } | Error::Format { .. } | Error::Failed { .. }
            );
            assert!(named, "byte {at}: {error:?}");
        }
        match (refused.is_empty(), served == all) {
            (false, _) => found += 1,
            (true, true) => harmless += 1,
            (true, false) => hidden += 1,
        }
    }
    [found, harmless, hidden]
}

/// The file of a store with some of everything in it, closed.
fn filled() -> Vec<u8> {
    let disk = Disk::default();
    let (store, _) = open(disk.clone()).unwrap();
    for number in 0..BATCHES {
        // The large values are a page of one byte after another.
        let mut batch = batch(number);
        for write in &mut batch.writes {
            if let Write::Put { value, .. } = write {
                value.truncate(500);
            }
        }
        store.wait_blocking(store.append(batch).unwrap()).unwrap();
        if number == 5 {
            let records = (0..10_u8).map(|key| (vec![key], Some(vec![key; 20])));
            store.checkpoint(store.durable(), records.collect()).unwrap();
            store.flush().unwrap();
        }
    }
    store.close().unwrap();
    disk.state().bytes.clone()
}

fn places(sound: &[u8]) -> impl Iterator<Item = usize> {
    (0..sound.len()).step_by(PAGE).flat_map(|page| {
        let used: Vec<usize> = (page..page + PAGE).filter(|at| sound[*at] != 0).collect();
        let step = used.len() / FLIPS_PER_PAGE + 1;
        (page..page + 2).chain(used.into_iter().step_by(step))
    })
}

/// What is served of a store that is read in every way, and what was refused.
fn served(bytes: &[u8], check: bool) -> (Vec<String>, Vec<Error>) {
    let opened = Redb::with_backend(Disk::holding(bytes.to_vec()), check);
    let (store, recovered) = match opened.and_then(|engine| Store::with_engine(engine, Options::default())) {
        Ok(opened) => opened,
        Err(error) => return (Vec::new(), vec![error]),
    };
    let mut read = Read::default();
    recovered.records().for_each(|record| read.note("record", record));
    recovered.entries().for_each(|entry| read.note("entry", entry));
    read.page("row", store.scan(STATE, &Range::all(), SCAN_ROWS));
    for key in (0..BATCHES).map(u64::to_be_bytes) {
        match store.get(STATE, &key).transpose() {
            None => {}
            Some(value) => read.note("row", value.map(|value| (key.to_vec(), value))),
        }
    }
    read.page("entry", store.entries(recovered.checkpoint, SCAN_ROWS));
    read.page("audit row", store.audit(1, SCAN_ROWS));
    read.note("journal", store.verify_journal());
    read.note("audit", store.verify_audit());
    assert!(recovered.checkpoint > Position::START || !read.refused.is_empty());
    (read.served, read.refused)
}

#[derive(Default)]
struct Read {
    served: Vec<String>,
    refused: Vec<Error>,
}

impl Read {
    fn note(&mut self, what: &str, item: Result<impl std::fmt::Debug, Error>) {
        match item {
            Ok(item) => self.served.push(format!("{what} {item:?}")),
            Err(error) => self.refused.push(error),
        }
    }

    fn page(&mut self, what: &str, page: Result<Vec<impl std::fmt::Debug>, Error>) {
        match page {
            Ok(items) => items.into_iter().for_each(|item| self.note(what, Ok(item))),
            Err(error) => self.refused.push(error),
        }
    }
}
