//! Entries made durable per second, and what one awaited append takes beside the floor of the same disk.

use std::{fs::File, io::Write as _, time::Instant};

use serde_json::{Value, json};
use skep_store::{Batch, Options, Position, Store};

use crate::{percentiles, round, time};

pub(crate) fn journal() -> Vec<Value> {
    const ENTRIES: u64 = 2_000_000;
    const AWAITED: usize = 1_000;
    // Beside the build, so that the disk is a disk: /tmp may be memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
    let floor = floor(directory.path());
    let (store, _) = Store::open(&directory.path().join("journal"), Options::default()).expect("the store opens");
    let entry = vec![7_u8; 120];
    let append = || {
        store
            .append(Batch {
                entries: vec![entry.clone()],
                ..Batch::default()
            })
            .expect("an entry is taken")
    };

    let awaited: Vec<_> = (0..AWAITED)
        .map(|_| {
            let start = Instant::now();
            let position: Position = append();
            store.wait_blocking(position).expect("it is durable");
            start.elapsed()
        })
        .collect();
    let (p50, p99) = percentiles(awaited);
    let ((), took) = time(|| {
        let last = (0..ENTRIES).fold(Position::START, |_, _| append());
        store.wait_blocking(last).expect("they are durable");
    });
    vec![
        json!({"value": round(ENTRIES as f64 / took.as_secs_f64(), 0), "unit": "entries/s", "n": ENTRIES, "entry_bytes": 120, "durability": "synced"}),
        json!({"value": p50, "unit": "µs awaited", "p50": p50, "p99": p99, "n": AWAITED, "in_flight": 1, "durability": "synced", "floor_us": floor, "floor_ratio": round(p50 / floor, 2)}),
    ]
}

/// The p50 of one 4 KiB write and fdatasync on the same disk, in microseconds: what no program can beat.
pub(crate) fn floor(directory: &std::path::Path) -> f64 {
    let mut file = File::create(directory.join("floor")).expect("a file can be made");
    file.write_all(&vec![0; 4 << 20]).expect("it can be written");
    file.sync_all().expect("it can be synced");
    let samples = (0..300)
        .map(|n| {
            use std::os::unix::fs::FileExt as _;
            let start = Instant::now();
            file.write_all_at(&[1; 4096], n * 4096).expect("it can be written");
            file.sync_data().expect("it can be synced");
            start.elapsed()
        })
        .collect();
    percentiles(samples).0
}
