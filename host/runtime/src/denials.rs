//! What was refused to an attempt while it ran. A refused call is no end: the guest sees an error and lives, and the operator sees it here.

use std::sync::{Arc, Mutex, PoisonError};

use skep_rules::{
    limits::{MAX_DENIAL_BYTES, MAX_DENIALS},
    reason::Reason,
    seam::Denial,
};

use crate::escape::escape;

/// Stands for the distinct denials beyond [`MAX_DENIALS`], one entry per reason.
const OTHERS: &str = "(others)";

/// The denials of one attempt. Clones share one list: streams and limiters note into it beside the store's own data.
#[derive(Debug, Clone, Default)]
pub(crate) struct Denials(
    /// Locked for one entry at a time, by one guest; never held across a wait.
    Arc<Mutex<Vec<Denial>>>,
);

impl Denials {
    /// Notes one refusal. Equal ones are counted; at most [`MAX_DENIALS`] distinct ones are kept, the others counted by reason. `what` is escaped
    /// and cut.
    pub(crate) fn note(&self, reason: Reason, what: &str) {
        let what = escape(what.as_bytes(), MAX_DENIAL_BYTES);
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = list.len() >= MAX_DENIALS;
        let known = |what: &str, list: &[Denial]| list.iter().position(|d| d.reason == reason && d.what == what);
        let found = known(&what, &list).or_else(|| full.then(|| known(OTHERS, &list)).flatten());
        match found.and_then(|at| list.get_mut(at)) {
            Some(denial) => denial.count = denial.count.saturating_add(1),
            None => list.push(Denial {
                reason,
                what: if full { OTHERS.to_owned() } else { what },
                count: 1,
            }),
        }
    }

    /// Takes what was noted so far, in the order of first occurrence.
    pub(crate) fn take(&self) -> Vec<Denial> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_denials_are_counted() {
        let denials = Denials::default();
        for what in ["open /etc/passwd", "open /x\x1b[2J", "open /etc/passwd"] {
            denials.clone().note(Reason::MountDenied, what);
        }
        denials.note(Reason::QuotaExceeded, "open /etc/passwd");
        let seen: Vec<_> = denials
            .take()
            .into_iter()
            .map(|d| (d.reason, d.what, d.count))
            .collect();
        assert_eq!(
            seen,
            [
                (Reason::MountDenied, "open /etc/passwd".into(), 2),
                (Reason::MountDenied, "open /x\\u{1b}[2J".into(), 1),
                (Reason::QuotaExceeded, "open /etc/passwd".into(), 1)
            ]
        );
        assert!(denials.take().is_empty());
    }

    #[test]
    fn a_flood_of_distinct_denials_is_bounded_and_loses_no_count() {
        let denials = Denials::default();
        for n in 0..100_000 {
            let reason = Reason::ALL[n % 3];
            denials.note(reason, &format!("open /{n}/{}", "x".repeat(10_000)));
        }
        let list = denials.take();
        assert_eq!(list.len(), MAX_DENIALS + 3);
        assert_eq!(list.iter().map(|d| d.count).sum::<u64>(), 100_000);
        assert!(list.iter().all(|d| d.what.len() <= MAX_DENIAL_BYTES));
    }
}
