//! The log of the host: what attempts write while they run, and what the host decides and refuses, in the order in which it came to know of it.
//! Lines lie in numbered pieces; the newest are in memory, for streams, and all that are kept are rows. Nobody waits for a line: what is over a
//! bound is dropped and counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minicbor::{Decode, Encode};
use skep_rules::{
    audit::AuditEntry,
    id::{AgentId, CrewId, TaskId},
    limits::{HOST_LINES_PER_SECOND, LOG_MEMORY_PIECES, LOG_PIECE_BYTES, MAX_LOG_PIECES},
    quantity::{Millis, Time},
    reason::Reason,
    seam::{LogFrame, LogLine},
};
use skep_store::{Table, Write};
use tokio::sync::watch;

use crate::driver::{decode, encode};

/// Pieces of the log: the number (8 bytes, big-endian) to an encoded [`Piece`].
pub(crate) const LINES: Table = Table::new("lines");

/// What a line costs besides its text.
const LINE_COST: usize = 64;

/// A place in the log: the number of a piece, and which of its lines.
pub(crate) type Place = (u64, u32);

/// One line.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Line {
    #[n(0)]
    pub(crate) at: Time,
    /// `trace`, `debug`, `info`, `warn`, `error`, or `stdout` and `stderr` for captured output.
    #[n(1)]
    pub(crate) level: String,
    #[n(2)]
    pub(crate) message: String,
    #[n(3)]
    pub(crate) fields: Vec<(String, String)>,
    #[n(4)]
    pub(crate) crew: Option<CrewId>,
    #[n(5)]
    pub(crate) task: Option<TaskId>,
    /// The epoch of the attempt that wrote it; none for what the host says itself.
    #[n(6)]
    pub(crate) attempt: Option<u64>,
    #[n(7)]
    pub(crate) agent: Option<AgentId>,
    /// The objective above the task: what all lines of a tree share.
    #[n(8)]
    pub(crate) trace: Option<TaskId>,
}

/// Lines that are written and read together.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(crate) struct Piece {
    #[n(0)]
    pub(crate) lines: Vec<Line>,
}

/// Where an attempt belongs, for its lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose {
    pub(crate) crew: CrewId,
    pub(crate) trace: TaskId,
}

/// The lines behind a place are not in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

#[derive(Debug)]
pub(crate) struct Logs {
    /// Locked for single changes and look-ups, also under the shard's lock; nothing else is locked beneath it.
    inner: Mutex<Inner>,
    /// The place of the newest line: what streams wait on.
    newest: watch::Sender<Place>,
}

#[derive(Debug)]
struct Inner {
    /// The newest pieces; the last of them is added to.
    pieces: VecDeque<(u64, Arc<Piece>)>,
    /// What the last of them costs.
    cost: usize,
    /// Everything up to here was handed out as rows.
    written: Place,
    /// Lines that were dropped since the start, bytes that were no lines not counted.
    dropped: u64,
    /// What the host may still say itself in this second, and when that began.
    host: (u32, Time),
}

impl Logs {
    /// A log that goes on behind a piece. Every life of a host begins a new one.
    pub(crate) fn behind(last: u64) -> Self {
        let first = last + 1;
        Logs {
            inner: Mutex::new(Inner {
                pieces: VecDeque::from([(first, Arc::default())]),
                cost: 0,
                written: (last, u32::MAX),
                dropped: 0,
                host: (HOST_LINES_PER_SECOND, Time(0)),
            }),
            newest: watch::Sender::new((first, 0)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what attempts have written; `whose` says where each belongs, nothing where its lines are not kept.
    pub(crate) fn frames(&self, now: Time, frames: Vec<LogFrame>, whose: impl Fn(&LogFrame) -> Option<Whose>) {
        let mut lines = Vec::new();
        let mut dropped = 0_u64;
        for frame in frames {
            let Some(Whose { crew, trace }) = whose(&frame) else {
                continue;
            };
            let lease = frame.lease;
            let line = |at: Time, line: LogLine| Line {
                at,
                level: line.level,
                message: line.message,
                fields: line.fields,
                crew: Some(crew),
                task: Some(lease.task),
                attempt: Some(lease.epoch),
                agent: Some(lease.agent),
                trace: Some(trace),
            };
            dropped = dropped.saturating_add(frame.dropped_lines);
            lines.extend(missing(&frame).map(|lost| line(now, lost)));
            for written in frame.lines {
                let age = frame.now.0.saturating_sub(written.at.0);
                lines.push(line(Time(now.0.saturating_sub(age)), written));
            }
        }
        self.push(lines, dropped);
    }

    /// Adds what the host has decided; `trace` names the objective above a task. What is over [`HOST_LINES_PER_SECOND`] stays in the audit log only.
    pub(crate) fn decisions(&self, entries: &[AuditEntry], trace: impl Fn(TaskId) -> TaskId) {
        let Some(now) = entries.first().map(|entry| entry.at) else {
            return;
        };
        let may = {
            let mut inner = self.inner();
            if now.since(inner.host.1) >= Millis(1_000) {
                inner.host = (HOST_LINES_PER_SECOND, now);
            }
            let wanted = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let may = inner.host.0.min(wanted);
            inner.host.0 -= may;
            usize::try_from(may).unwrap_or(usize::MAX)
        };
        let lines = entries.iter().take(may).map(|entry| decision(entry, &trace));
        let dropped = entries.len().saturating_sub(may);
        self.push(lines.collect(), u64::try_from(dropped).unwrap_or(u64::MAX));
    }

    fn push(&self, lines: Vec<Line>, dropped: u64) {
        let mut inner = self.inner();
        inner.dropped = inner.dropped.saturating_add(dropped);
        let told = !lines.is_empty();
        for line in lines {
            inner.push(line);
        }
        let place = inner.newest();
        drop(inner);
        if told {
            self.newest.send_replace(place);
        }
    }

    /// The rows that changed since the last call, and those that go because there are enough newer ones. A piece that is not full yet is written
    /// again with what was added.
    pub(crate) fn take_rows(&self) -> Vec<Write> {
        let (changed, before) = {
            let mut inner = self.inner();
            let newest = inner.newest();
            // A life begins with an empty piece, which is no row before it holds something.
            if newest.1 == 0 || newest == inner.written {
                return Vec::new();
            }
            let before = std::mem::replace(&mut inner.written, newest);
            let changed = inner.pieces.iter().filter(|(number, _)| *number >= before.0);
            (changed.cloned().collect::<Vec<_>>(), before)
        };
        let key = |number: u64| number.to_be_bytes().to_vec();
        let mut rows = Vec::new();
        for (number, piece) in changed {
            rows.push(Write::Put {
                table: LINES,
                key: key(number),
                value: encode(piece.as_ref()),
            });
            if let Some(over) = number.checked_sub(MAX_LOG_PIECES).filter(|_| number > before.0) {
                rows.push(Write::Delete {
                    table: LINES,
                    key: key(over),
                });
            }
        }
        rows
    }

    /// A piece that is in memory.
    pub(crate) fn piece(&self, number: u64) -> Option<Arc<Piece>> {
        self.inner().piece(number).cloned()
    }

    /// The lines behind a place, those of one piece, each with its own place.
    pub(crate) fn read(&self, after: Place) -> Result<Vec<(Place, Line)>, Gone> {
        let (mut number, mut seen) = after;
        loop {
            let inner = self.inner();
            let piece = inner.piece(number).ok_or(Gone)?;
            let is_last = number == inner.newest().0;
            let piece = Arc::clone(piece);
            drop(inner);
            let lines = numbered(number, &piece).skip(usize::try_from(seen).unwrap_or(usize::MAX));
            let lines: Vec<_> = lines.map(|(place, line)| (place, line.clone())).collect();
            if is_last || !lines.is_empty() {
                return Ok(lines);
            }
            (number, seen) = (number + 1, 0);
        }
    }

    /// The place of the newest line.
    pub(crate) fn newest(&self) -> Place {
        self.inner().newest()
    }

    /// Follows it.
    pub(crate) fn watch(&self) -> watch::Receiver<Place> {
        self.newest.subscribe()
    }

    /// Lines that were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.inner().dropped
    }
}

impl Inner {
    fn newest(&self) -> Place {
        let last = self.pieces.back();
        last.map_or((0, 0), |(number, piece)| (*number, count(piece)))
    }

    fn piece(&self, number: u64) -> Option<&Arc<Piece>> {
        let first = self.pieces.front()?.0;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        self.pieces.get(at).map(|(_, piece)| piece)
    }

    fn push(&mut self, line: Line) {
        let cost = cost(&line);
        let last = self.newest().0;
        if self.cost > 0 && self.cost + cost > LOG_PIECE_BYTES {
            self.pieces.push_back((last + 1, Arc::default()));
            self.cost = 0;
            if self.pieces.len() > LOG_MEMORY_PIECES {
                self.pieces.pop_front();
            }
        }
        if let Some((_, piece)) = self.pieces.back_mut() {
            // Copied only where somebody reads it just now.
            Arc::make_mut(piece).lines.push(line);
            self.cost += cost;
        }
    }
}

/// The lines of a piece with their places, the oldest first.
pub(crate) fn numbered(number: u64, piece: &Piece) -> impl DoubleEndedIterator<Item = (Place, &Line)> {
    let count = count(piece);
    let places = (0..count).map(move |line| (number, line + 1));
    places.zip(&piece.lines)
}

fn count(piece: &Piece) -> u32 {
    u32::try_from(piece.lines.len()).unwrap_or(u32::MAX)
}

fn cost(line: &Line) -> usize {
    let fields = line.fields.iter().map(|(key, value)| key.len() + value.len() + 8);
    LINE_COST + line.message.len() + line.level.len() + fields.sum::<usize>()
}

/// Says that lines of an attempt are missing here.
fn missing(frame: &LogFrame) -> Option<LogLine> {
    let (lines, bytes) = (frame.dropped_lines, frame.dropped_bytes);
    let fields = [("dropped-lines", lines), ("dropped-bytes", bytes)];
    let fields = fields.iter().filter(|(_, count)| *count > 0);
    (lines + bytes > 0).then(|| LogLine {
        at: frame.now,
        level: "warn".to_owned(),
        message: "lines of this attempt are left out here: it writes faster than is shown".to_owned(),
        fields: fields
            .map(|(name, count)| ((*name).to_owned(), count.to_string()))
            .collect(),
    })
}

/// What the host decided, as a line.
fn decision(entry: &AuditEntry, trace: impl Fn(TaskId) -> TaskId) -> Line {
    let level = match entry.reason {
        Some(Reason::HostFault) => "error",
        Some(_) => "warn",
        None => "info",
    };
    let kind = crate::read::audit_kind(entry.kind);
    let reason = entry.reason.map(|reason| ("reason".to_owned(), reason.to_string()));
    let actor = entry.actor.clone().map(|actor| ("actor".to_owned(), actor));
    Line {
        at: entry.at,
        level: level.to_owned(),
        message: match entry.detail.as_str() {
            "" => kind,
            detail => format!("{kind}: {detail}"),
        },
        fields: reason.into_iter().chain(actor).collect(),
        crew: entry.crew,
        task: entry.task,
        attempt: None,
        agent: entry.agent,
        trace: entry.task.map(trace),
    }
}

/// The number of the last piece that a store has.
pub(crate) fn last_piece(store: &skep_store::Store) -> Result<u64, skep_store::Error> {
    let rows = store.scan(LINES, &skep_store::Range::all().reversed(), 1)?;
    let key = rows.first().and_then(|(key, _)| key.first_chunk::<8>());
    Ok(key.map_or(0, |key| u64::from_be_bytes(*key)))
}

/// A piece from its row.
pub(crate) fn piece_of(row: &[u8]) -> Result<Piece, crate::driver::Error> {
    decode(row)
}

#[cfg(test)]
mod tests {
    use skep_rules::seam::Lease;

    use super::*;

    fn frame(lines: &[&str], dropped_lines: u64) -> LogFrame {
        LogFrame {
            lease: Lease {
                task: TaskId::new(1 << 16, 0),
                epoch: 2,
                agent: AgentId::new(1 << 16, 0),
                generation: 1,
            },
            now: Millis(500),
            lines: lines
                .iter()
                .map(|text| LogLine {
                    at: Millis(300),
                    level: "info".into(),
                    message: (*text).to_owned(),
                    fields: Vec::new(),
                })
                .collect(),
            dropped_lines,
            dropped_bytes: 0,
        }
    }

    fn whose(_: &LogFrame) -> Option<Whose> {
        Some(Whose {
            crew: CrewId::new(1 << 16, 0),
            trace: TaskId::new(1 << 16, 0),
        })
    }

    fn texts(logs: &Logs, after: Place) -> Vec<String> {
        logs.read(after)
            .unwrap()
            .into_iter()
            .map(|(_, line)| line.message)
            .collect()
    }

    #[test]
    fn lines_are_read_behind_a_place_and_have_their_time() {
        let logs = Logs::behind(6);
        assert_eq!((logs.newest(), texts(&logs, (7, 0))), ((7, 0), vec![]));
        logs.frames(Time(10_000), vec![frame(&["one", "two"], 0)], whose);
        assert_eq!(texts(&logs, (7, 1)), ["two"]);
        let (place, line) = logs.read((7, 0)).unwrap().remove(0);
        assert_eq!((place, line.at, line.attempt), ((7, 1), Time(9_800), Some(2)));
        assert_eq!(logs.read((6, 9)), Err(Gone));
        // What is not kept leaves nothing behind.
        logs.frames(Time(10_000), vec![frame(&["ephemeral"], 1)], |_| None);
        assert_eq!((logs.newest(), logs.dropped()), ((7, 2), 0));
    }

    #[test]
    fn what_was_dropped_is_counted_and_shown() {
        let logs = Logs::behind(0);
        logs.frames(Time(10_000), vec![frame(&["last"], 41)], whose);
        let lines = logs.read((1, 0)).unwrap();
        assert_eq!(lines[0].1.fields, [("dropped-lines".to_owned(), "41".to_owned())]);
        assert_eq!((lines[1].1.message.as_str(), logs.dropped()), ("last", 41));
    }

    #[test]
    fn decisions_are_told_up_to_a_rate() {
        let logs = Logs::behind(0);
        let entry = |at| AuditEntry {
            reason: Some(Reason::MountDenied),
            ..AuditEntry::new(Time(at), skep_rules::audit::Kind::Denied, "open /etc")
        };
        let many: Vec<AuditEntry> = (0..1_500).map(|_| entry(5)).collect();
        logs.decisions(&many, |task| task);
        let told = || {
            (1..=logs.newest().0)
                .map(|n| logs.piece(n).unwrap().lines.len())
                .sum::<usize>()
        };
        assert_eq!((told(), logs.dropped()), (1_000, 500));
        logs.decisions(&[entry(1_006)], |task| task);
        assert_eq!(told(), 1_001);
        let line = &logs.piece(1).unwrap().lines[0];
        assert_eq!(
            (line.level.as_str(), line.message.as_str()),
            ("warn", "denied: open /etc")
        );
        assert_eq!(line.fields, [("reason".to_owned(), "mount-denied".to_owned())]);
    }

    #[test]
    fn pieces_become_rows_once_they_change_and_the_oldest_go() {
        let logs = Logs::behind(MAX_LOG_PIECES);
        let number = |write: &Write| match write {
            Write::Put { key, .. } => (true, u64::from_be_bytes(*key.first_chunk().unwrap())),
            Write::Delete { key, .. } => (false, u64::from_be_bytes(*key.first_chunk().unwrap())),
        };
        let rows = || logs.take_rows().iter().map(number).collect::<Vec<_>>();
        assert_eq!(rows(), []);
        logs.frames(Time(10_000), vec![frame(&["x"], 0)], whose);
        assert_eq!(rows(), [(true, MAX_LOG_PIECES + 1), (false, 1)]);
        assert_eq!(rows(), []);
        let long = "x".repeat(60_000);
        logs.frames(Time(10_000), vec![frame(&[&long, &long], 0)], whose);
        let last = MAX_LOG_PIECES + 2;
        assert_eq!(rows(), [(true, last - 1), (true, last), (false, 2)]);
        // Memory holds the newest; whoever reads further back is told.
        for _ in 0..LOG_MEMORY_PIECES {
            logs.frames(Time(10_000), vec![frame(&[&long], 0)], whose);
        }
        assert_eq!(logs.read((last - 1, 0)), Err(Gone));
        assert!(logs.read(logs.newest()).unwrap().is_empty());
    }
}
