//! Generated histories of trust: operators, publishers, registries and thieves say things to a host, in order and out of it, while clocks jump
//! and the host crashes. After each step the host must have decided as a model does that reads everything anew from what was accepted. The
//! kinds of mischief are named after the modules of theupdateframework/tuf-conformance.

#[cfg(test)]
mod basic;
#[cfg(test)]
mod expiration;
#[cfg(test)]
mod fast_forward;
#[cfg(test)]
#[path = "../fixtures/trust.rs"]
mod fixtures;
#[cfg(test)]
mod freeze;
#[cfg(test)]
mod model;
#[cfg(test)]
mod rollback;
#[cfg(test)]
mod rotations;
#[cfg(test)]
mod thresholds;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use skep_rules::reason::Reason;

    use super::world::{Seen, Turn, World};

    const HISTORIES: u64 = 200;
    const STEPS: u64 = 50;

    /// Every kind of thing that happens, by its name.
    const KINDS: &[(&str, Turn)] = &[
        ("basic", super::basic::turn),
        ("expiration", super::expiration::turn),
        ("rollback", super::rollback::turn),
        ("freeze", super::freeze::turn),
        ("fast-forward", super::fast_forward::turn),
        ("key rotations", super::rotations::turn),
        ("thresholds", super::thresholds::turn),
    ];

    /// Reasons for which something must have been refused, or the histories prove little.
    const REASONS: &[Reason] = &[
        Reason::NotFound,
        Reason::Conflict,
        Reason::SignatureMissing,
        Reason::SignerUntrusted,
        Reason::ThresholdUnmet,
        Reason::Expired,
        Reason::NotYetValid,
        Reason::Rollback,
        Reason::Revoked,
        Reason::ApprovalRequired,
        Reason::FirstContact,
        Reason::InvalidMetadata,
    ];

    /// Names the seed when a history panics.
    struct Seed(u64);

    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the failing seed is {}", self.0);
            }
        }
    }

    /// A history in which one kind of thing happens more often than the others.
    fn play(seed: u64) -> Seen {
        let _named = Seed(seed);
        let mut world = World::new(seed);
        let favourite = KINDS[world.luck.index(KINDS.len())];
        for _ in 0..STEPS {
            let (kind, turn) = if world.luck.percent(40) {
                favourite
            } else {
                KINDS[world.luck.index(KINDS.len())]
            };
            world.kind = kind;
            turn(&mut world);
            world.mishap();
        }
        world.seen
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the number of histories is an argument of the test run"
    )]
    fn a_host_and_the_model_agree_at_every_step() {
        let histories = std::env::var("SKEP_SIM_SEEDS")
            .ok()
            .map_or(HISTORIES, |n| n.parse().expect("a number of histories"));
        let mut seen = Seen::default();
        for seed in 0..histories {
            for (what, count) in play(seed) {
                *seen.entry(what).or_default() += count;
            }
        }
        let mut by_kind = BTreeMap::<_, u64>::new();
        for ((kind, _, reason), count) in &seen {
            *by_kind.entry((*kind, reason.is_none())).or_default() += count;
        }
        println!("{by_kind:#?}\n{seen:#?}");
        for (kind, _) in KINDS {
            for accepted in [true, false] {
                let count = by_kind.get(&(*kind, accepted)).copied().unwrap_or(0);
                assert!(count >= histories, "{kind}, accepted {accepted}: only {count} times");
            }
        }
        for reason in REASONS {
            assert!(
                seen.keys().any(|(_, _, it)| *it == Some(*reason)),
                "nothing was refused for `{reason}`"
            );
        }
        for what in [
            "trust",
            "root",
            "rotation",
            "index",
            "clock",
            "install",
            "downgrade",
            "revoke",
            "remove",
        ] {
            for accepted in [true, false] {
                let shown = seen
                    .keys()
                    .any(|(_, it, reason)| *it == what && reason.is_none() == accepted);
                assert!(shown, "{what}, accepted {accepted}: never");
            }
        }
        assert!(seen.keys().any(|(_, it, _)| *it == "crash") && seen.keys().any(|(_, it, _)| *it == "reset"));
    }

    #[test]
    fn a_seed_plays_the_same_every_time() {
        assert_eq!(play(3), play(3));
    }
}
