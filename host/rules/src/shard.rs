//! One shard without I/O: the state, what was observed of it, the order of its journal, and the gate that holds back what leaves the shard
//! until the journal is durable. The driver feeds it under a short lock; the simulation feeds it the same way.
//!
//! A decision comes out as an [`Output`]. The driver appends its entries, audit entries and rows in one batch, performs the effects at once,
//! and answers the asker when [`Output::position`] is durable. When the disk has reached a position it calls [`Shard::durable`] and passes
//! on the notices that come out.

use std::collections::VecDeque;

use crate::{
    audit::AuditEntry,
    command::Command,
    decide::{Decision, Reply},
    effect::{Effect, Notice},
    event::Event,
    facts::{Facts, Write},
    observed::Observed,
    quantity::Time,
    rejection::Rejection,
    seam::{Beat, RunnerCommand},
    state::{Corrupt, Record, State, decode},
};

/// What a decision has done: to be remembered in one batch, and to be performed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "entries that are not appended are lost, and so is all that follows from them"]
pub struct Output {
    /// For the asker, once `position` is durable.
    pub reply: Reply,
    /// Encoded entries, in order. The last has position `position`.
    pub entries: Vec<Vec<u8>>,
    /// For the audit log, in the same commit.
    pub audit: Vec<AuditEntry>,
    /// Rows, in the same commit.
    pub writes: Vec<Write>,
    /// For the runner, at once.
    pub effects: Vec<RunnerCommand>,
    /// What must be durable before the asker is told: the last entry of this decision, or of what it was decided from.
    pub position: u64,
    /// When to call [`Shard::tick`] again if nothing happens before; now or earlier means at once.
    pub next_wake: Option<Time>,
}

/// The records that changed since the last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// They hold everything up to here.
    pub position: u64,
    /// Keys and values; without a value the record is to go.
    pub records: Vec<Record>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Shard {
    state: State,
    observed: Observed,
    /// The last entry decided or replayed.
    position: u64,
    /// Notices by the position that must be durable before they leave. As long as the disk is behind, no longer.
    gate: VecDeque<(u64, Vec<Notice>)>,
    /// A decision left something over.
    unfinished: bool,
}

impl Shard {
    /// A shard from the records of a checkpoint and its position. A new shard is `Shard::default()`.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn load(position: u64, records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, Corrupt> {
        Ok(Shard {
            state: State::load(records)?,
            position,
            ..Shard::default()
        })
    }

    /// Replays one entry, in order, after [`Shard::load`] and before [`Shard::resume`].
    ///
    /// # Errors
    /// When it cannot be read, does not fit the state, or does not follow the last one. The shard is then not to be used.
    pub fn replay(&mut self, position: u64, entry: &[u8]) -> Result<(), Corrupt> {
        if position != self.position + 1 {
            return Err(Corrupt::Gap {
                last: self.position,
                found: position,
            });
        }
        let event: Event = decode("an entry", entry)?;
        self.state.apply(&event)?;
        self.position = position;
        Ok(())
    }

    /// Whether plugins that nobody signed are taken and run: for development only.
    pub fn take_unsigned(&mut self, unsigned: bool) {
        self.observed.unsigned = unsigned;
    }

    /// Begins to live after a recovery: attempts of the life before are lost and their tasks go back in the queue, agents are warmed again.
    /// Of a state without agents it makes nothing.
    ///
    /// Make its entries durable before performing its effects. Then no generation of an agent is given twice, and a message of the life
    /// before, from a runner that outlived its host, cannot be taken for one of this life.
    pub fn resume(&mut self, now: Time) -> Output {
        self.observed.reset();
        self.observed.stirred.extend(self.state.crews().map(|crew| crew.id));
        let mut decision = Decision::new(&mut self.state, &mut self.observed, now);
        decision.resume();
        let parts = Parts::of(decision, self.unfinished);
        self.output(parts, Reply::Done, now)
    }

    /// Decides a command. `facts` are the rows that [`Command::needs`] named, as far as they were there.
    ///
    /// # Errors
    /// When it is refused; nothing has changed then.
    pub fn submit(&mut self, now: Time, facts: &Facts, command: Command) -> Result<Output, Rejection> {
        let mut decision = Decision::new(&mut self.state, &mut self.observed, now);
        let reply = decision.decide(facts, command)?;
        let parts = Parts::of(decision, self.unfinished);
        Ok(self.output(parts, reply, now))
    }

    /// Decides what the time makes of the state.
    pub fn tick(&mut self, now: Time) -> Output {
        let mut decision = Decision::new(&mut self.state, &mut self.observed, now);
        decision.tick();
        let parts = Parts::of(decision, self.unfinished);
        self.output(parts, Reply::Done, now)
    }

    /// Gives the leases in force back because the host stops in order: what ran goes on at the next start and has lost no attempt. Ask again
    /// while [`Shard::is_unfinished`], and nothing else afterwards but [`Shard::checkpoint`].
    pub fn hand_back(&mut self, now: Time) -> Output {
        let mut decision = Decision::new(&mut self.state, &mut self.observed, now);
        decision.hand_back();
        let parts = Parts::of(decision, self.unfinished);
        self.output(parts, Reply::Done, now)
    }

    /// Takes note of signs of life. Nothing is decided and nothing remembered.
    pub fn beats(&mut self, now: Time, beats: &[Beat]) {
        for beat in beats {
            self.observed.beat(&beat.lease, now);
        }
    }

    /// The disk holds everything up to a position: hands out the notices that waited for it, in order, each with what it waited for. A
    /// decision about ephemeral tasks waits for what it was decided from, which may be durable already: then ask at once.
    #[must_use = "notices that are dropped never reach whoever waits for them"]
    pub fn durable(&mut self, position: u64) -> Vec<(u64, Vec<Notice>)> {
        let ready = self.gate.partition_point(|(at, _)| *at <= position);
        self.gate.drain(..ready).collect()
    }

    /// The records to be written as a checkpoint. Ask only when the records can be given to the store before another decision is appended.
    pub fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint {
            position: self.position,
            records: self.state.take_dirty(),
        }
    }

    /// When to call [`Shard::tick`] again if nothing happens before.
    #[must_use]
    pub fn next_wake(&self, now: Time) -> Option<Time> {
        if self.unfinished {
            return Some(now);
        }
        let timer = self.state.index.timers.first().map(|(time, _)| *time);
        // Also where nothing runs: time is put on record, so that what has expired stays so. A shard without a past has nothing to keep.
        let swept = (self.position > 0).then(|| self.observed.next_revocation(now));
        let due = self.state.next_due().map(|(time, _)| time);
        let timers = timer.into_iter().chain(due);
        let seen = self.observed.next_look().into_iter().chain(self.observed.next_alert);
        timers.chain(seen).chain(swept).min()
    }

    /// Whether a decision left something over that the next tick takes up.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// The records. What is read here may be told once [`Shard::position`] is durable.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is known for the moment only.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// The position of the last entry.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    fn output(&mut self, parts: Parts, reply: Reply, now: Time) -> Output {
        self.position += parts.entries.len() as u64;
        self.unfinished = parts.unfinished;
        let (mut effects, mut notices) = (Vec::new(), Vec::new());
        for effect in parts.effects {
            match effect {
                Effect::Run(command) => effects.push(command),
                Effect::Notice(notice) => notices.push(notice),
            }
        }
        if !notices.is_empty() {
            self.gate.push_back((self.position, notices));
        }
        Output {
            reply,
            entries: parts.entries,
            audit: parts.audit,
            writes: parts.writes,
            effects,
            position: self.position,
            next_wake: self.next_wake(now),
        }
    }
}

/// What is left of a decision when it lets go of the state.
struct Parts {
    entries: Vec<Vec<u8>>,
    audit: Vec<AuditEntry>,
    writes: Vec<Write>,
    effects: Vec<Effect>,
    unfinished: bool,
}

impl Parts {
    fn of(decision: Decision<'_>, unfinished: bool) -> Self {
        Parts {
            unfinished: decision.is_unfinished(unfinished),
            entries: decision.entries,
            audit: decision.audit,
            writes: decision.writes,
            effects: decision.effects,
        }
    }
}
