//! What was answered to steps, by the position that made it durable: what the disk must hold is computed from that, and from nothing else.

use std::collections::BTreeMap;

use skep_rules::{
    facts::{Table, record_key, value_key},
    id::{Name, TaskId},
    reason::Reason,
    shard::Shard,
    step::{Step, StepCall, StepResult, Value, read_steps},
};

use crate::disk::Disk;

/// A step that was answered.
pub(crate) struct Answered {
    pub(crate) position: u64,
    pub(crate) namespace: Name,
    pub(crate) task: TaskId,
    pub(crate) run: u32,
    pub(crate) number: u64,
    pub(crate) call: StepCall,
    pub(crate) step: Step,
}

#[derive(Default)]
pub(crate) struct Ledger {
    answered: Vec<Answered>,
}

impl Ledger {
    pub(crate) fn note(&mut self, answered: Answered) {
        self.answered.push(answered);
    }

    /// What was not durable has not happened.
    pub(crate) fn crash(&mut self, durable: u64) {
        self.answered.retain(|answered| answered.position <= durable);
    }

    /// Whether the disk holds what was answered, whole: each write once, in its order, with the revision that was told.
    pub(crate) fn check_state(&self, disk: &Disk, shard: &Shard) {
        let mut newest: BTreeMap<(&Name, &str), (u64, &[u8])> = BTreeMap::new();
        let mut highest: BTreeMap<(&Name, &str), u64> = BTreeMap::new();
        let mut raised: BTreeMap<(&Name, &str), u64> = BTreeMap::new();
        for answered in &self.answered {
            let name = &answered.namespace;
            match (&answered.call, &answered.step.result) {
                (StepCall::Get { key, revision: None }, StepResult::Value(found)) => {
                    let found = found.as_ref().map(|value| (value.revision, value.bytes.as_slice()));
                    assert_eq!(found, newest.get(&(name, key.as_str())).copied(), "{key} as it is read");
                }
                (StepCall::Put { key, value, expected }, StepResult::Written(revision)) => {
                    let at = (name, key.as_str());
                    let before = newest.insert(at, (*revision, value)).map_or(0, |(before, _)| before);
                    assert!(
                        expected.is_none_or(|expected| expected == before),
                        "{key} was at {before}"
                    );
                    let last = highest.insert(at, *revision);
                    assert!(last < Some(*revision), "{key}: {revision} after {last:?}");
                    *raised.entry(at).or_default() += 1;
                }
                (StepCall::Delete { key, .. }, StepResult::Deleted(there)) => {
                    assert_eq!(
                        newest.remove(&(name, key.as_str())).is_some(),
                        *there,
                        "{key} is removed"
                    );
                }
                (
                    StepCall::Put { key, .. } | StepCall::Delete { key, .. },
                    StepResult::Refused {
                        reason: Reason::Conflict,
                        revision,
                    },
                ) => {
                    let known = newest.get(&(name, key.as_str())).map_or(0, |(known, _)| *known);
                    assert_eq!(*revision, known, "{key} as a conflict tells it");
                }
                _ => {}
            }
        }
        for ((name, key), (_, value)) in newest.iter().filter(|((_, key), _)| key.starts_with("counter-")) {
            let value = u64::from_be_bytes((*value).try_into().unwrap());
            assert_eq!(
                value,
                raised[&(*name, *key)],
                "{key} counts every time that it was raised"
            );
        }
        let rows = disk.rows(Table::State).into_iter().map(|(key, row)| {
            let value: Value = minicbor::decode(&row).unwrap();
            (key, (value.revision, value.bytes))
        });
        let expected = newest.iter().map(|((name, key), (revision, value))| {
            let value = (*revision, value.to_vec());
            (value_key(name, key), value)
        });
        assert_eq!(rows.collect::<BTreeMap<_, _>>(), expected.collect::<BTreeMap<_, _>>());
        for (name, space) in shard.state().namespaces() {
            let of = newest.iter().filter(|((of, _), _)| *of == name);
            let sizes = of.map(|((_, key), (_, value))| (key.len() + value.len()) as u64);
            let sizes: Vec<u64> = sizes.collect();
            assert_eq!(
                (space.keys, space.bytes),
                (sizes.len() as u64, sizes.iter().sum()),
                "{name}"
            );
        }
    }

    /// Whether every step that was answered is on record, once and as it was answered: in its table, for runs that are over.
    pub(crate) fn check_records(&self, disk: &Disk, shard: &Shard) {
        let rows = disk.rows(Table::Steps);
        let mut records: BTreeMap<(TaskId, u32), Vec<Step>> = BTreeMap::new();
        for answered in &self.answered {
            let (task, run) = (answered.task, answered.run);
            let record = records.entry((task, run)).or_insert_with(|| {
                let mut steps = Vec::new();
                for (key, bytes) in rows.range(record_key(task, run, 0)..=record_key(task, run, u64::MAX)) {
                    let first = u64::from_be_bytes(*key.last_chunk().unwrap());
                    assert_eq!(first, steps.len() as u64, "pieces of {task} follow each other");
                    steps.extend(read_steps(bytes).unwrap());
                }
                let live = shard.state().task(task).filter(|of| of.run == run);
                let tail = live.and_then(|_| shard.state().tail(task));
                steps.extend(tail.into_iter().flat_map(|tail| read_steps(&tail.bytes).unwrap()));
                steps
            });
            let number = usize::try_from(answered.number).unwrap();
            assert_eq!(record.get(number), Some(&answered.step), "step {number} of {task}");
        }
    }
}
