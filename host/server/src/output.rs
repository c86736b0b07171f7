//! Where commands print: results on standard output in the format that was asked for, everything else on standard error. Knows whether a
//! person sits in front of it.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use skep_rules::quantity::Time;

use crate::{
    cli::{Format, Global},
    config::Environment,
    failure::{Failure, plain},
};

/// How to print and whom to ask.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    yes: bool,
    /// Colours on standard error.
    color: bool,
    /// Colours on standard output.
    color_results: bool,
    /// A person can answer: a terminal on both sides, and no `CI`.
    interactive: bool,
}

impl Output {
    /// From the flags, the environment and what the streams are.
    pub(crate) fn new(global: &Global, environment: &Environment) -> Self {
        let wanted = !global.no_color && !environment.is_set("NO_COLOR");
        Output {
            format: global.output,
            quiet: global.quiet,
            yes: global.yes,
            color: wanted && io::stderr().is_terminal(),
            color_results: wanted && io::stdout().is_terminal(),
            interactive: io::stdin().is_terminal() && io::stderr().is_terminal() && !environment.is_set("CI"),
        }
    }

    /// Whether results are for people.
    pub(crate) fn for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether a progress bar may be drawn.
    pub(crate) fn shows_progress(&self) -> bool {
        self.interactive && !self.quiet
    }

    /// Whether standard error may be coloured.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// Whether only results and errors are wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints one record: as JSON, or as the text that `for_people` makes.
    pub(crate) fn one<T: Serialize>(&self, record: &T, for_people: impl FnOnce() -> String) -> Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table => {
                let text = marked(&plain(&for_people()), self.color_results);
                out.write_all(text.as_bytes())?;
                if !text.is_empty() && !text.ends_with('\n') {
                    out.write_all(b"\n")?;
                }
            }
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(record)?)?,
            Format::Jsonl => writeln!(out, "{}", serde_json::to_string(record)?)?,
        }
        Ok(out.flush()?)
    }

    /// Prints one record of a sequence that goes on: as JSON on one line, or as the line that `for_people` makes.
    pub(crate) fn line<T: Serialize>(&self, record: &T, for_people: impl FnOnce() -> String) -> Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table => writeln!(out, "{}", marked(&plain(&for_people()), self.color_results))?,
            Format::Json | Format::Jsonl => writeln!(out, "{}", serde_json::to_string(record)?)?,
        }
        Ok(out.flush()?)
    }

    /// Prints a list: as JSON (`[]` when empty), or as a table with these heads, one row per record.
    pub(crate) fn list<T: Serialize, const N: usize>(
        &self,
        records: &[T],
        heads: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table if records.is_empty() => self.note("none"),
            Format::Table => {
                let text = table(heads, records.iter().map(row));
                writeln!(out, "{}", reddened(&text, self.color_results, is_loud))?;
            }
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(records)?)?,
            Format::Jsonl => {
                for record in records {
                    writeln!(out, "{}", serde_json::to_string(record)?)?;
                }
            }
        }
        Ok(out.flush()?)
    }

    /// A remark for people, on standard error; nothing with `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            // A closed standard error must not end the command.
            drop(writeln!(io::stderr().lock(), "{}", marked(&plain(text), self.color)));
        }
    }

    /// What a question is about, on standard error: where a person is `asked` and can answer, it is shown with `--quiet` too.
    pub(crate) fn subject(&self, text: &str, asked: bool) {
        let shown = Output {
            quiet: self.quiet && !(asked && self.interactive),
            ..self.clone()
        };
        shown.note(text);
    }

    /// Whether a person can be asked.
    pub(crate) fn interactive(&self) -> bool {
        self.interactive
    }

    /// The line that a person types in answer to a question. Waits for it.
    ///
    /// # Errors
    /// When a stream fails.
    pub(crate) fn ask(&self, question: &str) -> io::Result<String> {
        write!(io::stderr().lock(), "{}", plain(question))?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    /// Asks a question that `--yes` answers, in the caller's way.
    ///
    /// # Errors
    /// When nobody can be asked, the asking fails, or the answer is no.
    pub(crate) fn confirm(&self, question: &str, ask: impl FnOnce(&str) -> Result<String>) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !self.interactive {
            return Err(
                Failure::usage(format!("{question} needs an answer, and nobody can be asked here"))
                    .next("add --yes, if you agree")
                    .into(),
            );
        }
        match ask(&format!("{question}? [y/N] "))?.as_str() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new(crate::cli::Exit::Failure, "not done: the answer was no").into()),
        }
    }
}

/// Lines that begin with `+ ` or `! ` in red: what an update asks for more, and what a person should not overlook. Text from elsewhere never
/// begins a line of a sheet.
fn marked(text: &str, color: bool) -> String {
    reddened(text, color, |line| line.starts_with("+ ") || line.starts_with("! "))
}

/// Rows of a table about something that nobody vouches for, or no longer.
fn is_loud(row: &str) -> bool {
    let loud = |word: &str| matches!(word, "UNSIGNED" | "REVOKED" | "QUARANTINED");
    row.split_whitespace().any(loud)
}

fn reddened(text: &str, color: bool, which: impl Fn(&str) -> bool) -> String {
    let red = |line: &str| match color && which(line) {
        true => format!("\u{1b}[31m{line}\u{1b}[0m"),
        false => line.to_owned(),
    };
    text.split('\n').map(red).collect::<Vec<String>>().join("\n")
}

/// A table without lines, as wide as the terminal allows.
pub(crate) fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(heads.map(str::to_uppercase));
    for row in rows {
        table.add_row(row.map(|text| plain(&text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// `12,345,678`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A point in time for people: `2026-01-31 09:05:00Z`.
pub(crate) fn time(at: Time) -> String {
    let (days, seconds) = (at.0 / 86_400_000, at.0 / 1_000 % 86_400);
    // Days since 0000-03-01, so that leap days end their year; 146,097 days are 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// The word that a closed set uses in JSON, in lower case.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.to_lowercase().replace('_', "-"),
        _ => "?".to_owned(),
    }
}

/// Bytes for people, to a tenth: `1.4 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    scaled(number, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Fuel for people, to a tenth: `1.4 G`.
pub(crate) fn fuel(number: u64) -> String {
    scaled(number, 1000, &["", "K", "M", "G", "T"])
}

/// A duration for people: `420 ms`, `3.2 s`, `2 min 5 s`.
pub(crate) fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100),
        _ => format!("{} min {} s", milliseconds / 60_000, milliseconds % 60_000 / 1_000),
    }
}

fn scaled(number: u64, step: u64, units: &[&str]) -> String {
    let mut factor = 1;
    let mut unit = units.first().copied().unwrap_or_default();
    for larger in units.iter().skip(1) {
        if number / factor < step {
            break;
        }
        factor *= step;
        unit = larger;
    }
    let tenth = (u128::from(number) * 10 / u128::from(factor)) % 10;
    match factor {
        1 => format!("{number} {unit}"),
        _ => format!("{}.{tenth} {unit}", number / factor),
    }
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_vouches_for_is_red() {
        let rows = "PLUGIN  SIGNATURE\na/b  signed\na/c  UNSIGNED\na/d  REVOKED";
        let shown = reddened(rows, true, is_loud);
        let red: Vec<&str> = shown.lines().filter(|line| line.starts_with("\u{1b}[31m")).collect();
        assert_eq!(
            red,
            ["\u{1b}[31ma/c  UNSIGNED\u{1b}[0m", "\u{1b}[31ma/d  REVOKED\u{1b}[0m"]
        );
        assert_eq!(reddened(rows, false, is_loud), rows);
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(
            (bytes(12), bytes(1_536), bytes(5 << 30)),
            ("12 B".into(), "1.5 KiB".into(), "5.0 GiB".into())
        );
        assert_eq!((fuel(7), fuel(1_450_000_000)), ("7".into(), "1.4 G".into()));
        assert_eq!(
            (duration(420), duration(3_250), duration(125_000)),
            ("420 ms".into(), "3.2 s".into(), "2 min 5 s".into())
        );
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (milliseconds, shown) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399_000, "2000-02-28 23:59:59Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_767_225_599_999, "2025-12-31 23:59:59Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(Time(milliseconds)), shown);
        }
    }
}
