//! How long a task waits before it is tried again. The jitter comes from the task's own seed, so a replay waits as long.

use crate::{
    limits::{RETRY_ADVICE_CAP, RETRY_CAP, RETRY_INITIAL},
    quantity::Millis,
};

/// The delay before retry number `retry` (1 for the first): 1 s, doubling, at most 100 s, ±20 %.
#[must_use]
pub fn delay(seed: u64, retry: u32) -> Millis {
    let doublings = retry.saturating_sub(1).min(16);
    let base = (RETRY_INITIAL.0 << doublings).min(RETRY_CAP.0);
    // 800 to 1200 thousandths.
    let thousandths = 800 + mix(seed ^ u64::from(retry)) % 401;
    Millis(base * thousandths / 1_000)
}

/// The delay that an agent asked for, within its cap.
#[must_use]
pub fn advised(wish: Millis) -> Millis {
    wish.min(RETRY_ADVICE_CAP)
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
        ] {
            for seed in 0..200 {
                let Millis(got) = delay(seed, retry);
                assert!((base * 8 / 10..=base * 12 / 10).contains(&got), "{retry} {got}");
            }
        }
        assert_eq!(delay(7, 2), delay(7, 2));
        assert_ne!(delay(7, 2), delay(8, 2));
    }

    #[test]
    fn advice_is_capped() {
        assert_eq!(advised(Millis(u64::MAX)), RETRY_ADVICE_CAP);
        assert_eq!(advised(Millis(5)), Millis(5));
    }
}
