//! The host is shown what it saw before, for too long, or a clock of one time beside an index of another.

use skep_rules::command::Command;

use crate::{
    fixtures::{adopt_clock, adopt_index, digest_of},
    world::World,
};

pub(crate) fn turn(world: &mut World) {
    match world.luck.below(5) {
        // A fresh index with its clock, and then silence.
        0..=1 => {
            let (index, signers) = world.next_index();
            world.ask(adopt_index(&index, &signers));
            let (clock, signers) = world.next_clock();
            world.ask(adopt_clock(&clock, &signers));
            let days = world.luck.pick(&[0, 0, 1, 7]);
            world.jump(days);
        }
        // Anything, once more.
        2 => {
            if world.said.is_empty() {
                return;
            }
            let at = world.luck.index(world.said.len());
            let again = world.said[at].clone();
            world.ask(again);
        }
        // A new clock names an index that was there before.
        3 => {
            let old = |command: &Command| match command {
                Command::AdoptIndex { index, .. } => Some(digest_of(index)),
                _ => None,
            };
            let known: Vec<_> = world.said.iter().filter_map(old).collect();
            let (mut clock, signers) = world.next_clock();
            if !known.is_empty() {
                clock.index = world.luck.pick(&known);
            }
            world.ask(adopt_clock(&clock, &signers));
        }
        // A new index without a clock of its own.
        _ => {
            let (index, signers) = world.next_index();
            world.ask(adopt_index(&index, &signers));
        }
    }
    let ship = world.next_release().command();
    world.ask(ship);
}
