//! Publishers and roots change their keys, rightly and wrongly; keys are revoked; publishers come and go.

use crate::{
    fixtures::{adopt_root, revoke, rotate, trust},
    world::{STRANGER, World, numbers},
};

pub(crate) fn turn(world: &mut World) {
    let name = world.publisher_name();
    let command = match world.luck.below(12) {
        0..=3 => {
            let (mut rotation, mut signers) = world.next_rotation(name);
            match world.luck.below(6) {
                // By the recovery key alone, or without it.
                0 => signers = signers.split_off(signers.len() - 1),
                1 => drop(signers.pop()),
                // By what it changes to.
                2 => {
                    signers = numbers(&rotation.release);
                    signers.push(rotation.recovery.as_bytes()[0]);
                }
                // To a key of somebody else.
                3 => {
                    let others = if name == "acme" { "bolt" } else { "acme" };
                    if let Some((other, _)) = world.known_publisher(others) {
                        rotation.release = other.release;
                        rotation.release.threshold = 1;
                    }
                }
                _ => {}
            }
            rotate(&rotation, &signers)
        }
        4..=5 => {
            let (mut root, mut signers) = world.next_root();
            root.root = world.fresh_keys(1, 2);
            let new = world.quorum(&root.root);
            match world.luck.below(3) {
                0 => signers = new,
                1 => {}
                _ => signers.extend(new),
            }
            adopt_root(&root, &signers)
        }
        6..=7 => {
            let (mut root, signers) = world.next_root();
            root.publishers.retain(|_| world.luck.percent(60));
            if root.publishers.iter().all(|it| it.name.as_str() != name) && world.luck.percent(80) {
                root.publishers.push(world.new_publisher(name));
            }
            adopt_root(&root, &signers)
        }
        8 => {
            // Known keys, under the name of another.
            let mut publisher = world.new_publisher(name);
            let other = world.publisher_name();
            if let Some((other, _)) = world.known_publisher(other) {
                publisher.release = other.release;
            }
            trust(publisher)
        }
        9 => trust(world.new_publisher(name)),
        10 => revoke(world.revocation()),
        _ => {
            let old = world
                .known_publisher(name)
                .map_or(STRANGER, |(publisher, _)| numbers(&publisher.release)[0]);
            let (rotation, signers) = world.next_rotation(name);
            world.ask(rotate(&rotation, &signers));
            // What the key of before signs is worth nothing any more.
            world.next_release().with(|it| it.signers = vec![old]).command()
        }
    };
    world.ask(command);
    let ship = world.next_release().command();
    world.ask(ship);
}
