//! The log of one attempt: captured standard output and error and the lines of `skep:agent/log`, in one ring. Output comes in at 64 KiB per second
//! and stays within 1 MiB; what is over is dropped and counted, never queued, so that a flood costs the guest its own lines and nobody anything else.
//!
//! The streams are our own because those of the library queue zero-length writes without end (GHSA-5m8g-xhq4-4h93).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use skep_rules::{
    limits::{
        LIVE_LOG_BYTES, LIVE_LOG_LINES, MAX_LOG_BYTES, MAX_LOG_FIELDS, MAX_LOG_LINE_BYTES, OUTPUT_BYTES_PER_SECOND,
    },
    quantity::Millis,
    reason::Reason,
    seam::{Lease, LogFrame, LogLine},
};
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::clocks::Clock;
use crate::{denials::Denials, escape::escape};

/// What a stream takes at once; a guest can make the host allocate that much.
const PERMIT: usize = 64 << 10;
/// What a line costs in the ring besides its text: the line itself and its allocations.
const LINE_COST: usize = 128;
/// The last bytes of the rate, kept from standard output: after a flood the message of a panic must still come through.
const RESERVE: u64 = 4 << 10;
/// Tokens are millionths of a byte, so that refilling by microseconds loses nothing to rounding.
const MICRO: u64 = 1_000_000;

/// Which of the two captured streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The log of one attempt. Clones write into the same ring.
#[derive(Debug, Clone)]
pub(crate) struct Log(
    /// Locked for one write at a time, by the one guest that writes here; never held across a wait.
    Arc<Mutex<Ring>>,
);

#[derive(Debug)]
struct Ring {
    clock: Clock,
    denials: Denials,
    lines: VecDeque<LogLine>,
    /// What `lines` costs, at most [`MAX_LOG_BYTES`].
    cost: usize,
    /// Begun lines of standard output and error, each shorter than [`MAX_LOG_LINE_BYTES`].
    begun: [Vec<u8>; 2],
    /// Millionths of bytes that may still come in.
    tokens: u64,
    /// When the tokens were last filled up, in microseconds of the clock.
    filled: u64,
    /// Lines that made room for newer ones.
    lost_lines: u64,
    /// Bytes that came in faster than the rate.
    lost_bytes: u64,
    /// Lines at the end of `lines` that were not told yet, and those that had to go before they were.
    untold: usize,
    untold_lost: u64,
    /// How many of `lost_bytes` were told.
    told_bytes: u64,
}

/// What was written lately.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// When this was taken, since the attempt began.
    pub(crate) now: Millis,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) dropped_lines: u64,
    pub(crate) dropped_bytes: u64,
}

impl Fresh {
    /// As it is told; nothing where nothing was written.
    pub(crate) fn of(self, lease: Lease) -> Option<LogFrame> {
        let any = !self.lines.is_empty() || self.dropped_lines + self.dropped_bytes > 0;
        any.then_some(LogFrame {
            lease,
            now: self.now,
            lines: self.lines,
            dropped_lines: self.dropped_lines,
            dropped_bytes: self.dropped_bytes,
        })
    }
}

impl Log {
    /// An empty log; `clock` stamps its lines.
    pub(crate) fn new(clock: Clock, denials: Denials) -> Self {
        Log(Arc::new(Mutex::new(Ring {
            clock,
            denials,
            lines: VecDeque::new(),
            cost: 0,
            begun: [Vec::new(), Vec::new()],
            tokens: u64::from(OUTPUT_BYTES_PER_SECOND) * MICRO,
            filled: clock.micros(),
            lost_lines: 0,
            lost_bytes: 0,
            untold: 0,
            untold_lost: 0,
            told_bytes: 0,
        })))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line. Its text and fields are escaped and cut at 4 KiB each; at most [`MAX_LOG_FIELDS`] fields are kept. Counts against the same
    /// rate as captured output.
    pub(crate) fn line(&self, level: &'static str, message: &str, fields: &[(String, String)]) {
        let mut ring = self.ring();
        let cut = |text: &str| escape(text.as_bytes(), MAX_LOG_LINE_BYTES);
        let shown = fields
            .iter()
            .take(MAX_LOG_FIELDS)
            .map(|(name, value)| (cut(name), cut(value)));
        let line = LogLine {
            at: ring.now(),
            level: level.to_owned(),
            message: cut(message),
            fields: shown.collect(),
        };
        let size = text_size(&line);
        match ring.admit(size, 0) == size {
            true => ring.push(line),
            false => ring.lost_bytes += u64::try_from(size).unwrap_or(u64::MAX),
        }
    }

    /// A stream that writes lines into the log.
    pub(super) fn stream(&self, source: Source) -> DynOutputStream {
        Box::new(Capture {
            log: self.clone(),
            source,
        })
    }

    /// Copies the lines that were written since the last time, the newest of them within [`LIVE_LOG_LINES`] and `bytes`; the rest is counted.
    pub(crate) fn fresh(&self, bytes: usize) -> Fresh {
        let mut ring = self.ring();
        let (mut room, untold) = (bytes, ring.untold);
        let newest = ring.lines.iter().rev().take(untold.min(LIVE_LOG_LINES));
        let fits = |line: &&LogLine| {
            let cost = cost(line);
            let fits = cost <= room;
            room = room.saturating_sub(cost);
            fits
        };
        let mut lines: Vec<LogLine> = newest.take_while(fits).cloned().collect();
        lines.reverse();
        let dropped = u64::try_from(untold - lines.len()).unwrap_or(u64::MAX);
        ring.untold = 0;
        let dropped_bytes = ring.lost_bytes - ring.told_bytes;
        ring.told_bytes = ring.lost_bytes;
        Fresh {
            now: ring.now(),
            lines,
            dropped_lines: dropped + std::mem::take(&mut ring.untold_lost),
            dropped_bytes,
        }
    }

    /// [`Log::fresh`] for the last time: begun lines are ended.
    pub(crate) fn last(&self) -> Fresh {
        let mut ring = self.ring();
        ring.end_line(Source::Stdout);
        ring.end_line(Source::Stderr);
        drop(ring);
        self.fresh(LIVE_LOG_BYTES)
    }

    /// Takes the lines, the oldest first; begun ones are ended. What was lost is said in lines of level `warn`.
    pub(crate) fn take(&self) -> Vec<LogLine> {
        let mut ring = self.ring();
        ring.end_line(Source::Stdout);
        ring.end_line(Source::Stderr);
        let at = ring.now();
        let warn = |message| LogLine {
            at,
            level: "warn".to_owned(),
            message,
            fields: Vec::new(),
        };
        let (lines, bytes) = (
            std::mem::take(&mut ring.lost_lines),
            std::mem::take(&mut ring.lost_bytes),
        );
        let older = (lines > 0).then(|| warn(format!("{lines} older lines were dropped: the log keeps 1 MiB")));
        let faster = (bytes > 0).then(|| {
            warn(format!(
                "{bytes} bytes of output were dropped: 64 KiB per second are taken"
            ))
        });
        (ring.cost, ring.untold, ring.told_bytes) = (0, 0, 0);
        let kept = std::mem::take(&mut ring.lines);
        older.into_iter().chain(kept).chain(faster).collect()
    }
}

impl Ring {
    fn now(&self) -> Millis {
        Millis(self.clock.micros() / 1_000)
    }

    /// How many of `wanted` bytes may come in now, leaving `reserve` for others. A piece shorter than a line comes in whole or not at all: under a
    /// flood the log holds fewer lines, not shreds of them.
    fn admit(&mut self, wanted: usize, reserve: u64) -> usize {
        let rate = u64::from(OUTPUT_BYTES_PER_SECOND);
        let now = self.clock.micros();
        let earned = now.saturating_sub(self.filled).saturating_mul(rate);
        self.filled = now;
        self.tokens = self.tokens.saturating_add(earned).min(rate * MICRO);
        let free = usize::try_from((self.tokens / MICRO).saturating_sub(reserve)).unwrap_or(usize::MAX);
        let taken = match wanted <= free {
            true => wanted,
            false if free >= MAX_LOG_LINE_BYTES => free,
            false => 0,
        };
        self.tokens -= u64::try_from(taken)
            .unwrap_or(u64::MAX)
            .saturating_mul(MICRO)
            .min(self.tokens);
        if taken < wanted {
            self.denials
                .note(Reason::RateLimited, "write more output than 64 KiB per second");
        }
        taken
    }

    /// Takes written bytes in, line by line.
    fn write(&mut self, source: Source, bytes: &[u8]) {
        let reserve = if source == Source::Stdout { RESERVE } else { 0 };
        let taken = self.admit(bytes.len(), reserve);
        self.lost_bytes += u64::try_from(bytes.len() - taken).unwrap_or(u64::MAX);
        for piece in bytes
            .get(..taken)
            .unwrap_or_default()
            .split_inclusive(|byte| *byte == b'\n')
        {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for part in text.chunks(MAX_LOG_LINE_BYTES) {
                let begun = self.begun(source);
                begun.extend_from_slice(part);
                while self.begun(source).len() >= MAX_LOG_LINE_BYTES {
                    self.cut_line(source);
                }
            }
            if ended {
                let text = std::mem::take(self.begun(source));
                self.push_text(source, &text);
            }
        }
    }

    fn begun(&mut self, source: Source) -> &mut Vec<u8> {
        let [stdout, stderr] = &mut self.begun;
        match source {
            Source::Stdout => stdout,
            Source::Stderr => stderr,
        }
    }

    /// Makes a line of the first 4 KiB of a long one, not cutting a character in two.
    fn cut_line(&mut self, source: Source) {
        let begun = self.begun(source);
        let head = begun.get(..MAX_LOG_LINE_BYTES).unwrap_or(begun);
        let end = match std::str::from_utf8(head) {
            // No length means that the text ends within a character.
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
            _ => head.len(),
        };
        let rest = begun.split_off(end);
        let text = std::mem::replace(begun, rest);
        self.push_text(source, &text);
    }

    fn end_line(&mut self, source: Source) {
        let text = std::mem::take(self.begun(source));
        if !text.is_empty() {
            self.push_text(source, &text);
        }
    }

    fn push_text(&mut self, source: Source, text: &[u8]) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let level = match source {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        };
        let line = LogLine {
            at: self.now(),
            level: level.to_owned(),
            // An escape is at most eight times what it stands for; nothing is cut here.
            message: escape(text, 8 * MAX_LOG_LINE_BYTES),
            fields: Vec::new(),
        };
        self.push(line);
    }

    fn push(&mut self, line: LogLine) {
        self.cost += cost(&line);
        self.lines.push_back(line);
        self.untold += 1;
        while self.cost > MAX_LOG_BYTES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.cost -= cost(&oldest);
            self.lost_lines += 1;
        }
        if self.untold > self.lines.len() {
            self.untold_lost += u64::try_from(self.untold - self.lines.len()).unwrap_or(u64::MAX);
            self.untold = self.lines.len();
        }
    }
}

fn text_size(line: &LogLine) -> usize {
    let fields = line.fields.iter().map(|(name, value)| name.len() + value.len());
    line.message.len() + fields.sum::<usize>()
}

fn cost(line: &LogLine) -> usize {
    LINE_COST + text_size(line) + line.fields.len() * LINE_COST
}

/// One handle of a captured stream. Always ready: what cannot be kept is dropped.
struct Capture {
    log: Log,
    source: Source,
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > PERMIT {
            return Err(StreamError::trap("wrote more than the stream permits at once"));
        }
        if !bytes.is_empty() {
            self.log.ring().write(self.source, &bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (Log, Denials) {
        let denials = Denials::default();
        (Log::new(Clock::start(), denials.clone()), denials)
    }

    fn write(log: &Log, source: Source, text: &[u8]) {
        for piece in text.chunks(PERMIT) {
            log.stream(source).write(Bytes::copy_from_slice(piece)).unwrap();
        }
    }

    fn texts(log: &Log) -> Vec<(String, String)> {
        log.take().into_iter().map(|line| (line.level, line.message)).collect()
    }

    #[test]
    fn output_becomes_lines_of_its_stream() {
        let (log, denials) = log();
        write(&log, Source::Stdout, b"one\ntw");
        write(&log, Source::Stderr, b"oops \x1b[31m\r\n");
        write(&log, Source::Stdout, b"");
        write(&log, Source::Stdout, b"o\n\nlast");
        log.line("info", "said\n", &[("k".into(), "v\x07".into())]);
        let lines = log.take();
        let seen: Vec<_> = lines
            .iter()
            .map(|line| (line.level.as_str(), line.message.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("stdout", "one"),
                ("stderr", "oops \\u{1b}[31m"),
                ("stdout", "two"),
                ("stdout", ""),
                ("info", "said\\n"),
                ("stdout", "last")
            ]
        );
        assert_eq!(lines[4].fields, [("k".to_owned(), "v\\u{7}".to_owned())]);
        assert!(denials.take().is_empty());
    }

    #[test]
    fn a_flood_is_cut_to_the_rate_counted_and_noted_once() {
        let (log, denials) = log();
        for _ in 0..160 {
            write(&log, Source::Stdout, &b"abcdefghijklmno\n".repeat(4096));
        }
        let lines = texts(&log);
        let kept: usize = lines
            .iter()
            .filter(|(level, _)| level == "stdout")
            .map(|(_, text)| text.len() + 1)
            .sum();
        assert!((60 << 10..256 << 10).contains(&kept), "{kept}");
        assert!(
            lines
                .last()
                .is_some_and(|(level, text)| level == "warn" && text.contains("bytes of output were dropped"))
        );
        let denials = denials.take();
        assert_eq!(denials.len(), 1);
        assert_eq!((denials[0].reason, denials[0].count > 100), (Reason::RateLimited, true));
    }

    #[test]
    fn what_is_written_is_told_once_and_a_flood_is_counted() {
        let (log, _) = log();
        let told = |log: &Log| {
            let fresh = log.fresh(LIVE_LOG_BYTES);
            let texts: Vec<String> = fresh.lines.into_iter().map(|line| line.message).collect();
            (texts, fresh.dropped_lines, fresh.dropped_bytes)
        };
        assert_eq!(told(&log), (vec![], 0, 0));
        write(&log, Source::Stdout, b"one\ntwo\nbeg");
        assert_eq!(told(&log), (vec!["one".to_owned(), "two".to_owned()], 0, 0));
        write(&log, Source::Stdout, b"un\n");
        assert_eq!(told(&log), (vec!["begun".to_owned()], 0, 0));
        write(&log, Source::Stdout, b"half");
        assert_eq!(log.last().lines[0].message, "half");
        // More lines than are told at a time: the newest are, and the rest is kept for the end.
        for n in 0..400 {
            log.line("info", &n.to_string(), &[]);
        }
        let (texts, lines, bytes) = told(&log);
        assert_eq!(
            (texts.len(), texts[0].as_str(), lines, bytes),
            (LIVE_LOG_LINES, "150", 150, 0)
        );
        // Faster than the rate, and more than the ring holds; whatever it is cut to is no number.
        write(&log, Source::Stderr, &b"abcdefghijklmno\n".repeat(65_536));
        let (texts, lines, bytes) = told(&log);
        assert!(!texts.is_empty() && lines > 0 && bytes > 0, "{lines} {bytes}");
        assert_eq!(told(&log), (vec![], 0, 0));
        assert_eq!(
            texts_of(&log).iter().filter(|text| text.parse::<u32>().is_ok()).count(),
            400
        );
    }

    fn texts_of(log: &Log) -> Vec<String> {
        log.take().into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn a_panic_after_a_flood_is_still_heard() {
        let (log, _) = log();
        write(&log, Source::Stdout, &b"x".repeat(1 << 20));
        write(&log, Source::Stderr, b"thread 'main' panicked\n");
        assert!(texts(&log).contains(&("stderr".to_owned(), "thread 'main' panicked".to_owned())));
    }

    #[test]
    fn the_ring_keeps_the_newest_and_stays_within_its_bound() {
        let (log, _) = log();
        // Past the rate, to reach the ring's own bound.
        for n in 0..100_000 {
            let line = LogLine {
                at: Millis(0),
                level: "info".into(),
                message: n.to_string(),
                fields: vec![],
            };
            log.ring().push(line);
        }
        assert!(log.ring().cost <= MAX_LOG_BYTES);
        let lines = texts(&log);
        assert!(lines[0].1.contains("older lines were dropped"));
        assert_eq!(lines.last().unwrap().1, "99999");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let (log, _) = log();
        let text = "ä日".repeat(3_000);
        write(&log, Source::Stderr, text.as_bytes());
        let lines = texts(&log);
        assert!(
            lines
                .iter()
                .all(|(_, line)| line.len() <= MAX_LOG_LINE_BYTES && !line.contains("\\x"))
        );
        assert_eq!(lines.iter().map(|(_, line)| line.as_str()).collect::<String>(), text);
    }

    #[test]
    fn a_stream_refuses_more_than_it_permits() {
        let (log, _) = log();
        let too_much = Bytes::from(vec![b'x'; PERMIT + 1]);
        assert!(matches!(
            log.stream(Source::Stdout).write(too_much),
            Err(StreamError::Trap(_))
        ));
    }
}
