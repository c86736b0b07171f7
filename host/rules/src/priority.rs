//! How urgent a task is. There are four lanes for all work of a crew, whatever it came from; each has its share of the turns, so that none
//! waits for ever, and who waits long counts as more urgent.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

use crate::{
    id::text_serde,
    limits::AGEING,
    quantity::{Millis, Time},
};

/// A lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Priority {
    /// One turn in fifteen while all four have work.
    #[n(0)]
    Low,
    /// Two.
    #[default]
    #[n(1)]
    Medium,
    /// Four.
    #[n(2)]
    High,
    /// Eight.
    #[n(3)]
    Critical,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Priority; 4] = [Priority::Critical, Priority::High, Priority::Medium, Priority::Low];

    /// The code as people write it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Medium => "medium",
            Priority::High => "high",
            Priority::Critical => "critical",
        }
    }

    /// Turns of the lane for one of the lowest.
    fn weight(self) -> i64 {
        1 << self as u8
    }

    /// One level up for each [`AGEING`] that has been waited.
    #[must_use]
    pub fn aged(self, waited: Millis) -> Priority {
        let levels = waited.0.checked_div(AGEING.0).unwrap_or(0);
        let up = |level: Priority| match level {
            Priority::Low => Priority::Medium,
            Priority::Medium => Priority::High,
            Priority::High | Priority::Critical => Priority::Critical,
        };
        (0..levels.min(3)).fold(self, |level, _| up(level))
    }

    /// The lane of a task now that has waited since a time.
    pub(crate) fn at(self, queued: Option<Time>, now: Time) -> Priority {
        queued.map_or(self, |queued| self.aged(now.since(queued)))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The text names no priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a priority (critical, high, medium or low)")]
pub struct Unknown(String);

impl FromStr for Priority {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let found = Priority::ALL.into_iter().find(|priority| priority.code() == text);
        found.ok_or_else(|| Unknown(text.chars().take(80).collect()))
    }
}

use serde::{Deserialize, Serialize};
text_serde!(Priority);

/// Whose turn it is: smooth weighted round robin. What a lane does not use now it is not owed later, beyond one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turns([i64; 4]);

impl Turns {
    /// The lane whose turn it is, of those that have something that can be given out.
    pub(crate) fn take(&mut self, ready: impl Fn(Priority) -> bool) -> Option<Priority> {
        let mut round = 0;
        let mut best: Option<(i64, Priority)> = None;
        for lane in Priority::ALL.into_iter().filter(|lane| ready(*lane)) {
            let credit = self.credit(lane);
            *credit += lane.weight();
            round += lane.weight();
            if best.is_none_or(|(most, _)| *credit > most) {
                best = Some((*credit, lane));
            }
        }
        let (_, lane) = best?;
        *self.credit(lane) -= round;
        Some(lane)
    }

    fn credit(&mut self, lane: Priority) -> &mut i64 {
        let [low, medium, high, critical] = &mut self.0;
        match lane {
            Priority::Low => low,
            Priority::Medium => medium,
            Priority::High => high,
            Priority::Critical => critical,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_have_their_shares_of_every_fifteen_turns() {
        let mut turns = Turns::default();
        let taken: Vec<Priority> = (0..150).map(|_| turns.take(|_| true).unwrap()).collect();
        assert_eq!(taken[0], Priority::Critical);
        for round in taken.chunks(15) {
            let of = |lane| round.iter().filter(|taken| **taken == lane).count();
            assert_eq!(Priority::ALL.map(of), [8, 4, 2, 1]);
        }
        assert_eq!(turns, Turns::default(), "nothing is owed after whole rounds");
    }

    #[test]
    fn an_empty_lane_gives_its_turns_to_the_others() {
        let mut turns = Turns::default();
        let two = |lane| matches!(lane, Priority::Critical | Priority::Low);
        let taken: Vec<_> = (0..9).filter_map(|_| turns.take(two)).collect();
        assert_eq!(taken.iter().filter(|lane| **lane == Priority::Low).count(), 1);
        assert_eq!(turns.take(|_| false), None);
        assert_eq!(turns.take(|lane| lane == Priority::Low), Some(Priority::Low));
    }

    #[test]
    fn who_waits_rises_one_level_each_half_minute() {
        for (waited, level) in [
            (0, Priority::Low),
            (29_999, Priority::Low),
            (30_000, Priority::Medium),
            (59_999, Priority::Medium),
            (60_000, Priority::High),
            (90_000, Priority::Critical),
            (u64::MAX, Priority::Critical),
        ] {
            assert_eq!(Priority::Low.aged(Millis(waited)), level, "{waited}");
        }
        assert_eq!(Priority::High.aged(Millis(30_000)), Priority::Critical);
        assert_eq!(Priority::Low.at(None, Time(u64::MAX)), Priority::Low);
        assert_eq!(Priority::Low.at(Some(Time(5)), Time(30_005)), Priority::Medium);
    }

    #[test]
    fn priorities_read_what_they_print() {
        for priority in Priority::ALL {
            assert_eq!(priority.to_string().parse(), Ok(priority));
        }
        assert!("urgent".parse::<Priority>().is_err());
    }
}
