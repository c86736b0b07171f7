//! How much memory one attempt and all attempts together may hold. The sums are ours: wasmtime's own limits are per memory, not for all of them.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use skep_rules::limits::Limits;
use wasmtime::ResourceLimiter;

/// Memory of an attempt that is not charged to the total: the stack that every guest declares and hardly touches.
const UNCHARGED: u64 = 2 << 20;

/// The host had no memory left for an attempt: not the guest's fault, and never shown to it, because an answer that depends on its neighbours would
/// make a replay diverge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the attempts of this host together hold all the memory that they may ({0} MiB)")]
pub(crate) struct Overload(u64);

/// Gives back what an attempt holds that can be spared; false when there is none.
type Spare = Box<dyn Fn() -> bool + Send + Sync>;

/// The memory of all attempts of a host.
pub(crate) struct Total {
    held: AtomicU64,
    most: u64,
    /// Asked when something is short. Set once, by whoever keeps attempts that wait.
    spare: OnceLock<Spare>,
}

impl std::fmt::Debug for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Total")
            .field("held", &self.held)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl Total {
    /// At most so many bytes.
    pub(crate) fn new(most: u64) -> Self {
        Total {
            held: AtomicU64::new(0),
            most,
            spare: OnceLock::new(),
        }
    }

    /// Asks `spare` from now on when something is short. The first one stays.
    pub(crate) fn spare_with(&self, spare: Spare) {
        drop(self.spare.set(spare));
    }

    /// Has an attempt that can be spared give back what it holds, a slot included; false when there is none.
    pub(crate) fn make_room(&self) -> bool {
        self.spare.get().is_some_and(|spare| spare())
    }

    fn take(&self, bytes: u64) -> Result<(), Overload> {
        loop {
            let before = self.held.fetch_add(bytes, Ordering::Relaxed);
            if before.saturating_add(bytes) <= self.most {
                return Ok(());
            }
            self.give(bytes);
            if !self.make_room() {
                return Err(Overload(self.most >> 20));
            }
        }
    }

    fn give(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The memory of one attempt.
#[derive(Debug)]
pub(crate) struct Limiter {
    total: Arc<Total>,
    charged: u64,
    /// What the host itself holds for the attempt: blobs being written.
    lent: u64,
    /// Bytes of all memories, now and at most; how many are allowed.
    held: u64,
    peak: u64,
    most: u64,
    /// Elements of all tables, likewise.
    elements: u64,
    most_elements: u64,
    counts: [usize; 3],
    /// What the growth under way asked for: when it fails for another reason it is given back, and that call is told no sizes.
    asked: (u64, u64),
    refused: bool,
}

impl Limiter {
    /// Nothing held.
    pub(crate) fn new(limits: &Limits, total: Arc<Total>) -> Self {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Limiter {
            total,
            charged: 0,
            lent: 0,
            held: 0,
            peak: 0,
            most: limits.memory.0,
            elements: 0,
            most_elements: limits.table_elements,
            counts: [count(limits.instances), count(limits.memories), count(limits.tables)],
            asked: (0, 0),
            refused: false,
        }
    }

    /// Takes note of bytes that the host holds for the attempt, outside its memories.
    ///
    /// # Errors
    /// When all attempts together hold what they may.
    pub(crate) fn lend(&mut self, bytes: u64) -> Result<(), Overload> {
        self.total.take(bytes)?;
        self.lent += bytes;
        Ok(())
    }

    /// Takes back what was lent.
    pub(crate) fn take_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.lent);
        self.lent -= bytes;
        self.total.give(bytes);
    }

    /// The most linear memory that was held.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Whether the last thing that the attempt asked for, memory or a table, was refused: what tells an allocation failure from another
    /// `unreachable`.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }

    fn refuse(&mut self) -> wasmtime::Result<bool> {
        self.refused = true;
        self.asked = (0, 0);
        Ok(false)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.total.give(self.charged + self.lent);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let held = self.held.saturating_add(more);
        if held > self.most || maximum.is_some_and(|maximum| desired > maximum) {
            return self.refuse();
        }
        let due = held.saturating_sub(UNCHARGED).saturating_sub(self.charged);
        self.total.take(due)?;
        self.charged += due;
        self.held = held;
        // It has gone on after a refusal: what it ends of later is something else.
        self.refused = false;
        self.peak = self.peak.max(held);
        self.asked = (more, 0);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let (bytes, _) = std::mem::take(&mut self.asked);
        self.held = self.held.saturating_sub(bytes);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let elements = self.elements.saturating_add(more);
        if elements > self.most_elements || maximum.is_some_and(|maximum| desired > maximum) {
            return self.refuse();
        }
        self.elements = elements;
        self.asked = (0, more);
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let (_, elements) = std::mem::take(&mut self.asked);
        self.elements = self.elements.saturating_sub(elements);
        Ok(())
    }

    fn instances(&self) -> usize {
        self.counts[0]
    }

    fn memories(&self) -> usize {
        self.counts[1]
    }

    fn tables(&self) -> usize {
        self.counts[2]
    }
}

#[cfg(test)]
mod tests {
    use skep_rules::limits::Tier;

    use super::*;

    const MIB: usize = 1 << 20;

    fn limiter(total: u64) -> Limiter {
        Limiter::new(&Tier::Small.limits(), Arc::new(Total::new(total)))
    }

    #[test]
    fn the_sum_of_all_memories_is_bounded() {
        let mut limiter = limiter(u64::MAX / 2);
        assert!(limiter.memory_growing(0, 10 * MIB, None).unwrap());
        assert!(!limiter.memory_growing(0, 7 * MIB, None).unwrap());
        assert!(limiter.has_refused());
        assert!(limiter.memory_growing(0, 6 * MIB, None).unwrap());
        assert_eq!(limiter.peak(), 16 * MIB as u64);
        assert!(!limiter.memory_growing(10 * MIB, 10 * MIB + 1, None).unwrap());
    }

    #[test]
    fn a_growth_that_failed_elsewhere_is_given_back() {
        let mut limiter = limiter(u64::MAX / 2);
        assert!(limiter.memory_growing(0, 16 * MIB, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no")).unwrap();
        assert!(limiter.memory_growing(0, 16 * MIB, None).unwrap());
        assert!(!limiter.memory_growing(0, 1, Some(0)).unwrap());
    }

    #[test]
    fn tables_are_bounded_together() {
        let mut limiter = limiter(u64::MAX / 2);
        assert!(limiter.table_growing(0, 19_000, None).unwrap());
        assert!(!limiter.table_growing(0, 1_001, None).unwrap());
        assert!(limiter.table_growing(0, 1_000, None).unwrap());
    }

    #[test]
    fn a_full_host_is_an_overload_and_a_dropped_attempt_makes_room() {
        let total = Arc::new(Total::new(10 << 20));
        let mut first = Limiter::new(&Tier::Small.limits(), total.clone());
        let mut second = Limiter::new(&Tier::Small.limits(), total.clone());
        assert!(first.memory_growing(0, 10 * MIB, None).unwrap());
        let error = second.memory_growing(0, 5 * MIB, None).unwrap_err();
        assert!(error.downcast_ref::<Overload>().is_some());
        assert!(!second.has_refused());
        drop(first);
        assert!(second.memory_growing(0, 5 * MIB, None).unwrap());
        drop(second);
        assert_eq!(total.held.load(Ordering::Relaxed), 0);
    }
}
