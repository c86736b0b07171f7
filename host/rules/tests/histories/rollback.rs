//! Older documents, older releases, the same numbers with something else in them, chains that are broken; and a downgrade on purpose.

use skep_rules::id::Digest;

use crate::{
    fixtures::{adopt_clock, adopt_index, adopt_root, rotate},
    world::World,
};

pub(crate) fn turn(world: &mut World) {
    let back = world.luck.below(3);
    let command = match world.luck.below(12) {
        0 => {
            let (mut root, signers) = world.next_root();
            root.version = root.version.saturating_sub(back).max(1);
            adopt_root(&root, &signers)
        }
        1 => {
            let name = world.publisher_name();
            let (mut rotation, signers) = world.next_rotation(name);
            rotation.version = rotation.version.saturating_sub(back).max(1);
            rotate(&rotation, &signers)
        }
        2..=3 => {
            let (mut index, signers) = world.next_index();
            match world.luck.below(5) {
                0 => drop(index.plugins.pop_first()),
                1 => index
                    .plugins
                    .values_mut()
                    .for_each(|newest| newest.release_seq = newest.release_seq.saturating_sub(1)),
                2 => index
                    .plugins
                    .values_mut()
                    .for_each(|newest| newest.digest = Digest::of(b"another file")),
                3 => index.revoked.version = index.revoked.version.saturating_sub(1),
                _ => index.version = index.version.saturating_sub(back).max(1),
            }
            adopt_index(&index, &signers)
        }
        4 => {
            let (mut clock, signers) = world.next_clock();
            clock.version = clock.version.saturating_sub(back).max(1);
            adopt_clock(&clock, &signers)
        }
        _ => {
            let mut it = world.next_release();
            let (name, seq) = (it.release.plugin.to_string(), it.release.release_seq);
            match world.luck.below(6) {
                0 => it = it.holding(b"another file"),
                1 => it.release.previous = Some(Digest::of(b"another statement")),
                2 => {
                    it = world
                        .release(&name, seq.saturating_sub(1).max(1), "")
                        .holding(b"the same number")
                }
                choice => {
                    let older = seq.saturating_sub(1 + world.luck.below(4)).max(1);
                    it = world.release(&name, older, "");
                    it.consent.downgrade = (choice > 3).then(|| "on purpose".to_owned());
                }
            }
            it.command()
        }
    };
    world.ask(command);
}
