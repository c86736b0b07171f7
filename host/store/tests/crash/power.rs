//! Power is cut at every operation of a scripted run, over a disk that keeps what was synced and, of the rest, anything: each
//! sector as it was before or as any of the writes since left it, each resize or not.
//!
//! What is left of the same operations is the same on every run. Which batches share a commit is not: that is the writer's race.

use skep_store::{Position, Redb};

use crate::disk::{Disk, Happened, SECTOR, apply};
use crate::script::{BATCHES, Script, acknowledged};

/// Images that the test looks at; `SKEP_CRASH_IMAGES=1000000` asks for more.
const IMAGES: usize = 10_000;
/// Of so many images, one loses power a second time, while it is being recovered.
const CUT_TWICE: u64 = 16;

/// What was left on the disk, and what must be found there.
struct Image {
    bytes: Vec<u8>,
    acknowledged: Position,
    /// Sync, operation after it, and number.
    point: (usize, usize, u64),
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the number of images is an argument of the test run"
)]
fn what_was_acknowledged_survives_a_power_cut_at_every_operation() {
    let wanted = std::env::var("SKEP_CRASH_IMAGES").map_or(IMAGES, |images| images.parse().unwrap());
    let script = Script::new(BATCHES);
    let disk = Disk::default();
    script.run(&disk).unwrap();
    let happened = disk.state().happened.clone();

    // Each thread makes and looks at its share.
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (points, images) = std::thread::scope(|scope| {
        let mut threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (script, happened) = (&script, &happened);
                scope.spawn(move || {
                    let mine = |number: usize| number % threads == thread;
                    cut_everywhere(happened, wanted, mine, |image| look_at(script, image))
                })
            })
            .collect();
        let (points, images) = threads.pop().unwrap().join().unwrap();
        let others = threads.into_iter().map(|thread| thread.join().unwrap().1);
        (points, images + others.sum::<usize>())
    });
    println!("{images} images at {points} operations");
    assert!(points > 2_000, "{points} operations are too few to prove anything");
    assert!(images >= wanted, "{images} images");
}

fn look_at(script: &Script, image: Image) {
    let (sync, operation, number) = image.point;
    let point = format!("after sync {sync}, operation {operation}, image {number}");
    if number % CUT_TWICE == CUT_TWICE - 1 {
        cut_twice(script, &image, &point);
    }
    script.check(Disk::holding(image.bytes), image.acknowledged, &point);
}

/// The power goes again while the store is being opened, at any of the operations of that.
fn cut_twice(script: &Script, image: &Image, point: &str) {
    let disk = Disk::holding(image.bytes.clone());
    drop(crate::disk::open(disk.clone()).unwrap());
    let happened = disk.state().happened.clone();
    let mut random = Random(image.point.2);
    let cut = random.below(happened.len() + 1);
    let synced = happened[..cut]
        .iter()
        .rposition(|event| matches!(event, Happened::Synced))
        .map_or(0, |sync| sync + 1);
    let mut bytes = image.bytes.clone();
    happened[..synced].iter().for_each(|event| apply(&mut bytes, event));
    let bytes = left(&bytes, &happened[synced..cut], image.point.2);
    script.check(
        Disk::holding(bytes),
        image.acknowledged,
        &format!("{point}, and again after operation {cut} of its recovery"),
    );
}

/// Cuts the power after each operation, and gives as many images of each as it takes to make `wanted` of them: those that are
/// `mine`. Returns how many operations there are, and how many images it gave.
fn cut_everywhere(
    happened: &[Happened],
    wanted: usize,
    mine: impl Fn(usize) -> bool,
    mut give: impl FnMut(Image),
) -> (usize, usize) {
    let is_operation = |event: &Happened| !matches!(event, Happened::Acknowledged(_));
    // Before the head row of a new store is durable there is no store yet; Store::open gives the file its name after that.
    let first = syncs(happened).nth(created()).unwrap();
    let points = happened[first..].iter().filter(|event| is_operation(event)).count();
    let each = wanted.div_ceil(points);

    let mut synced = Vec::new();
    let (mut since, mut sync, mut given, mut counted) = (0, created(), 0, 0..);
    for index in (first..happened.len()).filter(|index| is_operation(&happened[*index])) {
        if matches!(happened[index], Happened::Synced) {
            happened[since..index]
                .iter()
                .for_each(|event| apply(&mut synced, event));
            (since, sync) = (index, sync + 1);
        }
        // What was said before the next operation was said before the power went.
        let next = happened[index + 1..].iter().position(is_operation);
        let until = next.map_or(happened.len(), |next| index + 1 + next);
        for number in (0..each).filter(|_| counted.next().is_some_and(&mine)) {
            let seed = (number * happened.len() + index * number.min(1)) as u64;
            give(Image {
                bytes: left(&synced, &happened[since..=index], seed),
                acknowledged: acknowledged(&happened[..until]),
                point: (sync, index - since, number as u64),
            });
            given += 1;
        }
    }
    (points, given)
}

fn syncs(happened: &[Happened]) -> impl Iterator<Item = usize> {
    (0..happened.len()).filter(|index| matches!(happened[*index], Happened::Synced))
}

/// How many syncs it takes until a new database is one.
fn created() -> usize {
    let disk = Disk::default();
    drop(Redb::with_backend(disk.clone(), false).unwrap());
    let happened = disk.state().happened.clone();
    syncs(&happened).count()
}

/// What a power cut leaves of operations that were not synced, upon what was. Seed 0 leaves all of them.
fn left(synced: &[u8], since: &[Happened], seed: u64) -> Vec<u8> {
    let mut bytes = synced.to_vec();
    if seed == 0 {
        since.iter().for_each(|event| apply(&mut bytes, event));
        return bytes;
    }
    let mut random = Random(seed);
    // The length of a file goes through the journal of the file system: its changes are kept in order, up to some point.
    let resizes: Vec<usize> = since
        .iter()
        .filter_map(|event| match event {
            Happened::Resized(len) => Some(*len),
            _ => None,
        })
        .collect();
    let kept = random.below(resizes.len() + 1);
    for len in &resizes[..kept] {
        bytes.resize(*len, 0);
    }
    let mut sectors: Vec<(usize, &[u8])> = since
        .iter()
        .filter_map(|event| match event {
            Happened::Written(offset, written) => Some((*offset, written)),
            _ => None,
        })
        .flat_map(|(offset, written)| {
            let starts = (offset..).step_by(SECTOR);
            starts.zip(written.chunks(SECTOR))
        })
        .collect();
    random.shuffle(&mut sectors);
    // A few, half or nearly all of them: rare losses matter as much as great ones.
    let of_eight = [1, 4, 7][random.below(3)];
    for (offset, written) in sectors {
        // What lies past the end of the file is not in it.
        let room = bytes.len().saturating_sub(offset).min(written.len());
        if room > 0 && random.below(8) < of_eight {
            bytes[offset..offset + room].copy_from_slice(&written[..room]);
        }
    }
    bytes
}

/// SplitMix64: each image must be the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
