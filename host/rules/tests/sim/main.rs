//! Seeded simulation of a shard: crews, plans, failures, lost beats, duplicated and late completions, crashes that keep a prefix. What is
//! simulated is what is shipped: the shard's own API, the entries as they are encoded, recovery as the host does it.
//!
//! `SKEP_SIM_SEEDS=n` runs more seeds than the default. A seed that failed becomes a line of `REGRESSIONS`.

#[cfg(test)]
mod disk;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use super::world::World;

    const SEEDS: u64 = 200;

    /// Seeds that found something once.
    const REGRESSIONS: &[u64] = &[];

    /// Names the seed when a run panics.
    struct Seed(u64);

    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the failing seed is {}", self.0);
            }
        }
    }

    fn run(seed: u64) -> World {
        let _named = Seed(seed);
        let mut world = World::new(seed);
        let steps = world.luck.below(400) + 50;
        for _ in 0..steps {
            world.step();
        }
        world.calm_down();
        world
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the number of seeds is an argument of the test run"
    )]
    fn nothing_is_lost_and_nothing_happens_twice() {
        let seeds = std::env::var("SKEP_SIM_SEEDS")
            .ok()
            .map_or(SEEDS, |n| n.parse().expect("a number of seeds"));
        let mut seen = std::collections::BTreeMap::<&str, u64>::new();
        for seed in REGRESSIONS.iter().copied().chain(0..seeds) {
            for (what, count) in run(seed).seen {
                *seen.entry(what).or_default() += count;
            }
        }
        for what in super::world::MUST_BE_SEEN {
            assert!(
                seen.contains_key(what) || seeds < SEEDS,
                "no seed has shown `{what}`; seen: {seen:?}"
            );
        }
    }

    #[test]
    fn a_seed_runs_the_same_every_time() {
        assert_eq!(run(7).digest(), run(7).digest());
    }
}
