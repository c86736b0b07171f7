//! As many signatures as must be, one more, one less, and the same number by others.

use crate::{
    fixtures::{adopt_clock, adopt_index, adopt_root, rotate, trust},
    world::{STRANGER, World},
};

pub(crate) fn turn(world: &mut World) {
    let name = world.publisher_name();
    let command = match world.luck.below(10) {
        // Who must sign how often is said anew.
        0..=1 => {
            let (mut root, signers) = world.next_root();
            let threshold = 1 + u32::try_from(world.luck.below(3)).unwrap();
            let (index, clock) = (world.fresh_keys(threshold, 3), world.fresh_keys(1, 1));
            root.root = world.fresh_keys(threshold, 3);
            let count = usize::try_from(threshold).unwrap() - world.luck.index(2);
            let new = world.some(&root.root, count);
            (root.index, root.clock) = (Some(index), Some(clock));
            adopt_root(&root, &[signers, new].concat())
        }
        2 => {
            let mut publisher = world.new_publisher(name);
            publisher.release.threshold = u32::try_from(world.luck.below(4)).unwrap();
            trust(publisher)
        }
        3..=4 => {
            let (index, signers) = world.next_index();
            adopt_index(&index, &spoil(world, signers))
        }
        5 => {
            let (clock, signers) = world.next_clock();
            adopt_clock(&clock, &spoil(world, signers))
        }
        6 => {
            let (mut rotation, signers) = world.next_rotation(name);
            rotation.release = world.fresh_keys(2, 3);
            rotate(&rotation, &spoil(world, signers))
        }
        choice => {
            let mut it = world.next_release();
            if choice == 9 {
                let (of, seq) = (it.release.plugin.to_string(), it.release.release_seq);
                // Reaches far, and takes two whatever the publisher says. Its widening was approved.
                it = world.release(&of, seq, "[wants]\nhttp = [{ host = '*.example.com' }]");
            }
            it.signers = spoil(world, it.signers);
            it.command()
        }
    };
    world.ask(command);
}

/// One less, one that counts for nothing instead, or as it was.
fn spoil(world: &mut World, mut signers: Vec<u8>) -> Vec<u8> {
    match world.luck.below(4) {
        0 => drop(signers.pop()),
        1 => {
            signers.pop();
            signers.push(STRANGER);
        }
        2 => signers.push(STRANGER),
        _ => {}
    }
    signers
}
