//! What is right is done; what a stranger signs, or nobody, is not.

use crate::{
    fixtures::{adopt_clock, adopt_index, adopt_root, remove, revoke, rotate, trust},
    world::{STRANGER, World},
};

pub(crate) fn turn(world: &mut World) {
    let stranger = world.luck.percent(25);
    let by = |signers: Vec<u8>| if stranger { vec![STRANGER] } else { signers };
    let command = match world.luck.below(20) {
        0..=2 => {
            let name = world.publisher_name();
            trust(world.new_publisher(name))
        }
        3 => {
            let (root, signers) = world.next_root();
            adopt_root(&root, &by(signers))
        }
        4..=6 => {
            let (mut index, signers) = world.next_index();
            if world.luck.percent(30) {
                index.revoked.version = index.revoked.version.saturating_add(1);
                index.revoked.keys.insert(crate::fixtures::key(world.fresh()).id());
            }
            adopt_index(&index, &by(signers))
        }
        7..=9 => {
            let (clock, signers) = world.next_clock();
            adopt_clock(&clock, &by(signers))
        }
        10 => {
            let name = world.publisher_name();
            let (rotation, signers) = world.next_rotation(name);
            rotate(&rotation, &by(signers))
        }
        11 => revoke(world.revocation()),
        12 => {
            let digest = world.model().installed().first().map(|(plugin, _)| plugin.digest);
            remove(digest.unwrap_or_else(|| world.next_release().plugin.digest))
        }
        13 => world.next_release().unsigned(),
        14 => world
            .next_release()
            .with(|it| it.consent = skep_rules::command::Consent::default())
            .command(),
        _ => {
            let mut ship = world.next_release();
            ship.signers = by(ship.signers);
            ship.command()
        }
    };
    world.ask(command);
}
