//! Documents that are over, or not valid yet; clocks that stand ten years ahead or behind; time set right by a person.

use skep_rules::quantity::Time;

use crate::{
    fixtures::{DAY, adopt_clock, adopt_index, adopt_root, later, reset_time, rotate},
    world::World,
};

const TEN_YEARS: i64 = 3_653;

pub(crate) fn turn(world: &mut World) {
    match world.luck.below(12) {
        0 => {
            let days = world.luck.pick(&[TEN_YEARS, -TEN_YEARS]);
            world.jump(days);
            let good = world.next_release().command();
            // Made before the clock went wrong.
            let brief = world
                .next_release()
                .with(|it| it.release.expires = Time(it.release.not_before.0 + 1))
                .command();
            world.ask(good);
            world.ask(brief);
            if world.luck.percent(90) {
                world.jump(-days);
                world.ask(reset_time());
            }
        }
        1 => world.jump(1),
        2..=3 => {
            let days = world.luck.pick(&[5, 6, 7, 60]);
            world.jump(days);
        }
        _ => {}
    }
    // When it begins and ends, in days from now.
    let (begins, ends) = world.luck.pick(&[(0, 1), (-1, 0), (1, 2), (-2, 1), (-6, 1), (-3, 5)]);
    let time = world.time();
    let at = |days: i64| match days {
        0.. => later(time, days.unsigned_abs()),
        _ => Time(time.0 - days.unsigned_abs() * DAY),
    };
    let times = (at(begins), at(ends));
    let command = match world.luck.below(6) {
        0 => {
            let (mut root, signers) = world.next_root();
            (root.issued, root.expires) = (times.0, Time(times.1.0 + 30 * DAY * u64::from(ends > 0)));
            adopt_root(&root, &signers)
        }
        1 => {
            let (mut index, signers) = world.next_index();
            (index.issued, index.expires) = times;
            adopt_index(&index, &signers)
        }
        2 => {
            let (mut clock, signers) = world.next_clock();
            (clock.issued, clock.expires) = times;
            adopt_clock(&clock, &signers)
        }
        3 => {
            let name = world.publisher_name();
            let (mut rotation, signers) = world.next_rotation(name);
            (rotation.issued, rotation.expires) = (times.0, Time(times.1.0 + 100 * DAY * u64::from(ends > 0)));
            rotate(&rotation, &signers)
        }
        _ => world
            .next_release()
            .with(|it| (it.release.not_before, it.release.expires) = times)
            .command(),
    };
    world.ask(command);
}
