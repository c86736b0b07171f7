//! How long a task waits before it is tried again, and what becomes of it when it was tried often enough. The jitter comes from the task's
//! own seed, so a replay waits as long.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    limits::{
        MAX_FINAL_CODES, MAX_RETRY_DELAY, MAX_RETRY_JITTER, RETRY_ADVICE_CAP, RETRY_CAP_FACTOR, RETRY_FACTOR,
        RETRY_FACTORS, RETRY_INITIAL, RETRY_JITTER,
    },
    quantity::Millis,
    reason::Reason,
};

/// How failures are tried again, beside how often. What is absent is the host's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Policy {
    /// The delay before the first retry: [`RETRY_INITIAL`].
    #[n(0)]
    pub initial: Option<Millis>,
    /// By how much each delay is longer than the one before, in hundredths: [`RETRY_FACTOR`].
    #[n(1)]
    pub factor: Option<u32>,
    /// The longest delay: [`RETRY_CAP_FACTOR`] times the first.
    #[n(2)]
    pub cap: Option<Millis>,
    /// By how many hundredths a delay is shorter or longer by chance: [`RETRY_JITTER`].
    #[n(3)]
    pub jitter: Option<u32>,
    /// Reasons that are not tried again, beside those for which it never helps.
    #[n(4)]
    pub not_again: BTreeSet<Reason>,
    /// What becomes of the task then.
    #[n(5)]
    pub on_exhausted: Option<OnExhausted>,
}

/// What becomes of a task of which every attempt has failed that it may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// PAUSED: a person says whether it is tried again. What a person submitted does so.
    #[n(0)]
    Pause,
    /// FAILED, with why the last attempt did. What an agent made does so, and what is ephemeral.
    #[n(1)]
    Fail,
    /// FAILED with `dead-letter`, and kept for a redrive. So is what fails without hope of another attempt.
    #[n(2)]
    DeadLetter,
}

impl Policy {
    /// Whether every field is within its bounds.
    ///
    /// # Errors
    /// Which is not, and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let delays = Millis(1)..=MAX_RETRY_DELAY;
        if self.initial.is_some_and(|initial| !delays.contains(&initial)) {
            return Err(format!("the first retry delay is between 1ms and {MAX_RETRY_DELAY}"));
        }
        if self.cap.is_some_and(|cap| !delays.contains(&cap)) {
            return Err(format!("the longest retry delay is between 1ms and {MAX_RETRY_DELAY}"));
        }
        if self.cap.is_some_and(|cap| cap < self.initial()) {
            return Err(format!(
                "the longest retry delay is not shorter than the first, which is {}",
                self.initial()
            ));
        }
        if self.factor.is_some_and(|factor| !RETRY_FACTORS.contains(&factor)) {
            let (least, most) = (RETRY_FACTORS.start() / 100, RETRY_FACTORS.end() / 100);
            return Err(format!("retry delays grow by a factor between {least} and {most}"));
        }
        if self.jitter.is_some_and(|jitter| jitter > MAX_RETRY_JITTER) {
            return Err(format!(
                "the jitter of retry delays is at most {MAX_RETRY_JITTER} in a hundred"
            ));
        }
        if self.not_again.len() > MAX_FINAL_CODES {
            return Err(format!("at most {MAX_FINAL_CODES} reasons that are not tried again"));
        }
        Ok(())
    }

    fn initial(&self) -> Millis {
        self.initial.unwrap_or(RETRY_INITIAL)
    }

    fn cap(&self) -> Millis {
        let usual = Millis(self.initial().0.saturating_mul(RETRY_CAP_FACTOR));
        self.cap.unwrap_or(usual.min(MAX_RETRY_DELAY))
    }

    /// The delay before retry number `retry` (1 for the first).
    #[must_use]
    pub fn delay(&self, seed: u64, retry: u32) -> Millis {
        let (cap, factor) = (self.cap().0, u64::from(self.factor.unwrap_or(RETRY_FACTOR)));
        let mut base = self.initial().0.min(cap);
        // A factor of one never reaches the cap, and need not be applied.
        let rounds = if factor == 100 { 0 } else { retry.saturating_sub(1) };
        for _ in 0..rounds {
            // Below a hundred milliseconds a small factor would be rounded away.
            base = (base.saturating_mul(factor) / 100).max(base + 1);
            if base >= cap {
                base = cap;
                break;
            }
        }
        let spread = u64::from(self.jitter.unwrap_or(RETRY_JITTER)) * 10;
        let thousandths = 1_000 - spread + mix(seed ^ u64::from(retry)) % (2 * spread + 1);
        Millis(base.saturating_mul(thousandths) / 1_000)
    }
}

/// The delay before retry number `retry` where the task has no say: 1 s, doubling, at most 100 s, ±20 %.
#[must_use]
pub fn delay(seed: u64, retry: u32) -> Millis {
    Policy::default().delay(seed, retry)
}

/// The delay that an agent asked for, within its cap.
#[must_use]
pub fn advised(wish: Millis) -> Millis {
    wish.min(RETRY_ADVICE_CAP)
}

/// Whether a second attempt could end otherwise.
pub(crate) fn may_help(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::CapabilityDenied
            | Reason::InvalidManifest
            | Reason::InvalidInput
            | Reason::UnsupportedImport
            | Reason::CompileLimit
            | Reason::NotAComponent
            | Reason::MessageExpired
    )
}

/// The seed of the child at `index` under a task with this seed.
#[must_use]
pub fn child_seed(seed: u64, index: u64) -> u64 {
    mix(seed
        .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(1))
}

/// The finaliser of splitmix64: spreads every bit over all.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_with_a_fifth_of_jitter() {
        for (retry, base) in [
            (1, 1_000),
            (2, 2_000),
            (3, 4_000),
            (7, 64_000),
            (8, 100_000),
            (100, 100_000),
            (u32::MAX, 100_000),
        ] {
            for seed in 0..200 {
                let Millis(got) = delay(seed, retry);
                assert!((base * 8 / 10..=base * 12 / 10).contains(&got), "{retry} {got}");
            }
        }
        assert_eq!(delay(7, 2), delay(7, 2));
        assert_ne!(delay(7, 2), delay(8, 2));
    }

    /// First delay, factor, cap and jitter of a policy, and the delays before the first four retries and the hundredth.
    #[test]
    fn every_field_of_a_policy_counts() {
        type Case = (Option<u64>, Option<u32>, Option<u64>, [u64; 5]);
        let cases: [Case; 6] = [
            (None, None, None, [1_000, 2_000, 4_000, 8_000, 100_000]),
            (Some(10), None, None, [10, 20, 40, 80, 1_000]),
            (None, Some(100), None, [1_000; 5]),
            (None, Some(1_000), None, [1_000, 10_000, 100_000, 100_000, 100_000]),
            (None, Some(150), Some(2_000), [1_000, 1_500, 2_000, 2_000, 2_000]),
            (Some(86_400_000), None, None, [86_400_000; 5]),
        ];
        for (initial, factor, cap, expected) in cases {
            let policy = Policy {
                initial: initial.map(Millis),
                factor,
                cap: cap.map(Millis),
                jitter: Some(0),
                ..Policy::default()
            };
            assert_eq!(policy.check(), Ok(()));
            let got = [1, 2, 3, 4, 100].map(|retry| policy.delay(9, retry).0);
            assert_eq!(got, expected, "{policy:?}");
        }
        let wide = Policy {
            jitter: Some(50),
            ..Policy::default()
        };
        let all: BTreeSet<u64> = (0..500).map(|seed| wide.delay(seed, 1).0).collect();
        assert!(all.first() < Some(&550) && all.last() > Some(&1_450) && all.iter().all(|d| (500..=1_500).contains(d)));
    }

    #[test]
    fn the_fields_of_a_policy_are_bounded() {
        let good = |policy: Policy| policy.check().is_ok();
        let initial = |millis| Policy {
            initial: Some(Millis(millis)),
            ..Policy::default()
        };
        let cap = |millis| Policy {
            cap: Some(Millis(millis)),
            ..initial(100)
        };
        let factor = |factor| Policy {
            factor: Some(factor),
            ..Policy::default()
        };
        let jitter = |jitter| Policy {
            jitter: Some(jitter),
            ..Policy::default()
        };
        let codes = |count| Policy {
            not_again: Reason::ALL.iter().copied().take(count).collect(),
            ..Policy::default()
        };
        for (policy, fits) in [
            (initial(0), false),
            (initial(1), true),
            (initial(MAX_RETRY_DELAY.0), true),
            (initial(MAX_RETRY_DELAY.0 + 1), false),
            (cap(0), false),
            (cap(99), false),
            (cap(100), true),
            (cap(MAX_RETRY_DELAY.0), true),
            (cap(MAX_RETRY_DELAY.0 + 1), false),
            (factor(99), false),
            (factor(100), true),
            (factor(1_000), true),
            (factor(1_001), false),
            (jitter(0), true),
            (jitter(50), true),
            (jitter(51), false),
            (codes(MAX_FINAL_CODES), true),
            (codes(MAX_FINAL_CODES + 1), false),
        ] {
            assert_eq!(good(policy.clone()), fits, "{policy:?}");
        }
    }

    #[test]
    fn advice_is_capped() {
        assert_eq!(advised(Millis(u64::MAX)), RETRY_ADVICE_CAP);
        assert_eq!(advised(Millis(5)), Millis(5));
    }
}
