//! A thief of keys says the highest number that there is; a root with other keys for the role repairs it.

use crate::{
    fixtures::{adopt_clock, adopt_index, adopt_root, rotate},
    world::World,
};

pub(crate) fn turn(world: &mut World) {
    let far = world.luck.pick(&[2, 1_000, u64::MAX - 1, u64::MAX]);
    match world.luck.below(6) {
        0 => {
            let (mut index, signers) = world.next_index();
            index.version = index.version.max(far);
            if world.luck.percent(50) {
                index.revoked.version = index.revoked.version.max(far);
                // Also the keys of the root, so that the repair would never come.
                let roots = world
                    .model()
                    .root()
                    .map(|(_, root)| root.root.keys.clone())
                    .unwrap_or_default();
                index.revoked.keys.extend(roots.iter().map(|key| key.id()));
            }
            world.ask(adopt_index(&index, &signers));
        }
        1 => {
            let (mut clock, signers) = world.next_clock();
            clock.version = clock.version.max(far);
            world.ask(adopt_clock(&clock, &signers));
        }
        2 => {
            let (mut root, signers) = world.next_root();
            root.version = root.version.saturating_add(far);
            world.ask(adopt_root(&root, &signers));
        }
        3 => {
            let name = world.publisher_name();
            let (mut rotation, signers) = world.next_rotation(name);
            rotation.version = rotation.version.saturating_add(far);
            world.ask(rotate(&rotation, &signers));
        }
        4 => {
            let seq = world.luck.pick(&[100, 1_000, u64::MAX]);
            let ship = world.release("bolt/one", seq, "").command();
            world.ask(ship);
        }
        _ => repair(world),
    }
}

/// New keys for both roles, and the counters begin anew.
fn repair(world: &mut World) {
    let (mut root, signers) = world.next_root();
    (root.index, root.clock) = (Some(world.fresh_keys(1, 1)), Some(world.fresh_keys(1, 2)));
    if !world.ask(adopt_root(&root, &signers)) {
        return;
    }
    for _ in 0..2 {
        let (index, signers) = world.next_index();
        assert!(index.version <= 2, "the numbers begin anew");
        world.ask(adopt_index(&index, &signers));
        let (clock, signers) = world.next_clock();
        world.ask(adopt_clock(&clock, &signers));
    }
}
