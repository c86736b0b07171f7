//! Ephemeral tasks that have ended, for whoever still asks: as encoded records, the oldest out first. They have no other archive.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    id::TaskId,
    limits::{MAX_RECENT, MAX_RECENT_BYTES},
    state::{decode, encode},
    task::Task,
};

/// At most [`MAX_RECENT`] records of together [`MAX_RECENT_BYTES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    records: BTreeMap<TaskId, Vec<u8>>,
    /// In the order in which their trees ended.
    order: VecDeque<TaskId>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn keep(&mut self, task: &Task) {
        let record = encode(task);
        self.bytes += record.len();
        match self.records.insert(task.id, record) {
            Some(before) => self.bytes -= before.len(),
            None => self.order.push_back(task.id),
        }
        while self.records.len() > MAX_RECENT || self.bytes > MAX_RECENT_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.bytes -= self.records.remove(&oldest).map_or(0, |record| record.len());
        }
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<Task> {
        let record = self.records.get(&id)?;
        Some(decode("an ended task", record).expect("a record that was encoded here decodes"))
    }

    pub(crate) fn contains(&self, id: TaskId) -> bool {
        self.records.contains_key(&id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.records.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decide::blank, id::CrewId, plan::Payload};

    fn task(n: u128, bytes: usize) -> Task {
        Task {
            result: Some(Payload::Inline(vec![0; bytes])),
            ..blank(TaskId::new(n << 16, 0), CrewId::new(1 << 16, 0))
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_large() {
        let mut recent = Recent::default();
        for n in 0..=MAX_RECENT as u128 {
            recent.keep(&task(n, 0));
        }
        assert_eq!((recent.records.len(), recent.order.len()), (MAX_RECENT, MAX_RECENT));
        assert_eq!(recent.get(task(0, 0).id), None);
        assert_eq!(recent.get(task(1, 0).id), Some(task(1, 0)));

        let large = 256 << 10;
        for n in 0..200 {
            recent.keep(&task(1 << 40 | n, large));
        }
        assert!(recent.records.len() < 128 && recent.bytes <= MAX_RECENT_BYTES);
        assert_eq!(recent.bytes, recent.records.values().map(Vec::len).sum::<usize>());
        assert_eq!(
            recent.get(task(1 << 40 | 199, large).id),
            Some(task(1 << 40 | 199, large))
        );
    }
}
