//! Newer rows laid over older ones: how a scan sees writes that are not committed yet.

use std::cmp::Ordering;
use std::iter::Peekable;

/// Merges two runs of rows, each in scan order. Where both have a key the newer one counts. None stands for a deletion.
pub(crate) struct Overlay<N: Iterator, O: Iterator> {
    newer: Peekable<N>,
    older: Peekable<O>,
    reverse: bool,
}

impl<K, V, N, O> Overlay<N, O>
where
    K: AsRef<[u8]>,
    N: Iterator<Item = (K, V)>,
    O: Iterator<Item = (K, V)>,
{
    pub(crate) fn new(newer: N, older: O, reverse: bool) -> Self {
        Self {
            newer: newer.peekable(),
            older: older.peekable(),
            reverse,
        }
    }
}

impl<K, V, N, O> Iterator for Overlay<N, O>
where
    K: AsRef<[u8]>,
    N: Iterator<Item = (K, V)>,
    O: Iterator<Item = (K, V)>,
{
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        let (Some((newer, _)), Some((older, _))) = (self.newer.peek(), self.older.peek()) else {
            return self.newer.next().or_else(|| self.older.next());
        };
        let order = newer.as_ref().cmp(older.as_ref());
        match if self.reverse { order.reverse() } else { order } {
            Ordering::Less => self.newer.next(),
            Ordering::Greater => self.older.next(),
            Ordering::Equal => {
                self.older.next();
                self.newer.next()
            }
        }
    }
}
