//! Numbers, times and codes in words.

use std::fmt::{self, Display, Formatter, Write};

/// A text as it may stand in HTML, between tags and in quoted attributes. Characters that reorder or hide the text around them are shown.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                    write!(f, "\\u{{{:x}}}", u32::from(char))?
                }
                char if char.is_control() => write!(f, "\\u{{{:x}}}", u32::from(char))?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `2 files`.
pub(crate) fn count(count: u64, word: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {word}{ending}", number(count))
}

/// Bytes in binary units with one digit behind the point.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Fuel in thousands.
pub(crate) fn fuel(fuel: u64) -> String {
    scaled(fuel, 1000, &["", "K", "M", "G", "T", "P"])
}

fn scaled(value: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 1_u64;
    let mut name = units.first().copied().unwrap_or_default();
    for larger in units.iter().skip(1) {
        if value / unit < step {
            break;
        }
        unit = unit.saturating_mul(step);
        name = larger;
    }
    let whole = value / unit;
    let text = if unit == 1 || whole >= 100 {
        number(whole)
    } else {
        // The remainder is below the unit, so a tenth of it is below ten.
        format!("{whole}.{}", (u128::from(value % unit) * 10 / u128::from(unit)).min(9))
    };
    format!("{text} {name}").trim_end().to_owned()
}

/// Milliseconds as people say them.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Milliseconds since 1970 as date and time in UTC.
pub(crate) fn time(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Days are counted from 1 March of year 0, so that leap days end a year: Hinnant's `civil_from_days`.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60
    )
}

/// What a reason code of a refusal means.
pub(crate) fn meaning(code: &str) -> &'static str {
    match code {
        "mount-denied" => "The path lies outside what the agent was given, or the mount is read-only.",
        "capability-denied" => "The operator granted no such capability.",
        "host-denied" => "No host of that name was granted; the name was never looked up.",
        "address-denied" => "The network address was refused before a packet was sent.",
        "method-denied" => "That kind of request was not granted.",
        "memory-limit" => "The agent asked for more memory than its tier allows.",
        "fuel-exhausted" => "The agent burned all the instructions it was given, and was stopped.",
        "deadline-exceeded" => "The agent ran out of time, and was stopped.",
        "stack-overflow" => "The agent called itself too deeply, and was stopped.",
        "handle-limit" => "The agent held more open files and handles than its tier allows.",
        "hostcall-limit" | "rate-limited" => "The agent called the host too often, or with too much at once.",
        "quota-exceeded" => "The agent wrote all that its quota allows.",
        "body-limit" => "The message was larger than is taken.",
        "trapped" => "The agent broke a rule of WebAssembly, and was stopped.",
        "revoked" => "The plugin or its key was revoked.",
        _ => "The host refused it.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_words() {
        let cases = [
            (number(0), "0"),
            (number(999), "999"),
            (number(1_234_567), "1,234,567"),
            (count(1, "file"), "1 file"),
            (count(2_000, "file"), "2,000 files"),
            (bytes(0), "0 B"),
            (bytes(1023), "1,023 B"),
            (bytes(1536), "1.5 KiB"),
            (bytes(200 << 20), "200 MiB"),
            (bytes(u64::MAX), "16,777,215 TiB"),
            (fuel(12), "12"),
            (fuel(12_345_678_901), "12.3 G"),
            (duration(7), "7 ms"),
            (duration(1_850), "1.8 s"),
            (duration(125_000), "2 min 5 s"),
            (duration(7_260_000), "2 h 1 min"),
            (time(0), "1970-01-01 00:00 UTC"),
            (time(951_827_696_000), "2000-02-29 12:34 UTC"),
            (time(1_798_761_599_000), "2026-12-31 23:59 UTC"),
            (
                Escaped("<a href='x'>&\"\u{202e}\u{7}").to_string(),
                "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\\u{202e}\\u{7}",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
        assert!(time(u64::MAX).ends_with("UTC"));
    }
}
