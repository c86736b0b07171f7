//! Quotes a part of a line for people: short, printable, with the secrets hidden.

use std::{fmt::Write, ops::Range};

/// The most characters of an excerpt.
pub const MAX_CHARS: usize = 160;

/// How much of the line before the match is quoted, in bytes.
const LEAD: usize = 48;

/// What stands for the hidden part of a secret of which the beginning is shown.
const SHOWN_MASK: &str = "…****";

/// What stands for a secret of which nothing is shown.
const FULL_MASK: &str = "****";

/// A part of a line that must not be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Where the secret is.
    pub hidden: Range<usize>,
    /// How many of its first bytes may be shown.
    pub shown: usize,
}

/// Order masks and join those that overlap or touch. Of a joined mask its first part decides what is shown, and nothing past the beginning
/// of another part is. Where two begin together, the one that shows something knows more of the kind of secret.
pub fn merge(mut masks: Vec<Mask>) -> Vec<Mask> {
    masks.retain(|mask| !mask.hidden.is_empty());
    masks.sort_by_key(|mask| (mask.hidden.start, std::cmp::Reverse(mask.shown)));
    let mut merged: Vec<Mask> = Vec::with_capacity(masks.len());
    for mask in masks {
        match merged.last_mut() {
            Some(last) if mask.hidden.start <= last.hidden.end => {
                if mask.hidden.start > last.hidden.start {
                    last.shown = last.shown.min(mask.hidden.start - last.hidden.start);
                }
                last.hidden.end = last.hidden.end.max(mask.hidden.end);
            }
            _ => merged.push(mask),
        }
    }
    merged
}

/// Quote a line around a position. `masks` are ordered and do not overlap ([`merge`]).
pub fn quote(line: &[u8], at: usize, masks: &[Mask]) -> String {
    let indent = line.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let mut from = at.min(line.len()).saturating_sub(LEAD).max(indent);
    while from > indent && line.get(from).is_some_and(|byte| byte & 0xC0 == 0x80) {
        from -= 1;
    }
    quote_from(line, from, from > indent, masks)
}

/// Quote a line from a position on. `is_cut` says that something was left out before it. `masks` as for [`quote`].
pub fn quote_from(line: &[u8], from: usize, is_cut: bool, masks: &[Mask]) -> String {
    let mut text = Text::default();
    if is_cut {
        text.push_str("…");
    }
    let mut cursor = from;
    for mask in masks.iter().filter(|mask| mask.hidden.end > from) {
        text.push_bytes(line.get(cursor..mask.hidden.start.max(cursor)).unwrap_or_default());
        // A secret whose beginning is cut off shows nothing: what comes next is its middle.
        let shown = if mask.hidden.start >= from {
            mask.shown.min(mask.hidden.len())
        } else {
            0
        };
        text.push_bytes(
            line.get(mask.hidden.start..mask.hidden.start + shown)
                .unwrap_or_default(),
        );
        text.push_str(if shown == 0 { FULL_MASK } else { SHOWN_MASK });
        cursor = mask.hidden.end;
        if text.is_full() {
            break;
        }
    }
    let rest = line.get(cursor..).unwrap_or_default();
    text.push_bytes(rest.trim_ascii_end());
    text.finish()
}

/// Quote a match alone, for lines that no person reads: its shown part and a mask.
pub fn quote_alone(line: &[u8], mask: &Mask) -> String {
    let only = line.get(mask.hidden.clone()).unwrap_or_default();
    quote(
        only,
        0,
        &[Mask {
            hidden: 0..only.len(),
            shown: mask.shown,
        }],
    )
}

/// Text under construction that never passes [`MAX_CHARS`].
#[derive(Default)]
struct Text {
    text: String,
    chars: usize,
    cut: bool,
}

impl Text {
    fn is_full(&self) -> bool {
        self.chars >= MAX_CHARS || self.cut
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        // Four bytes make a character at most: more than this can never be shown.
        let bytes = bytes.get(..MAX_CHARS * 4).unwrap_or(bytes);
        for char in String::from_utf8_lossy(bytes).chars() {
            self.push(char);
        }
    }

    fn push_str(&mut self, text: &str) {
        for char in text.chars() {
            self.push(char);
        }
    }

    fn push(&mut self, char: char) {
        let mut escaped = String::new();
        match char {
            '\t' => escaped.push(' '),
            char if is_unprintable(char) => {
                let written = write!(escaped, "\\u{{{:x}}}", u32::from(char));
                debug_assert!(written.is_ok(), "a string takes what is written to it");
            }
            char => escaped.push(char),
        }
        let width = escaped.chars().count();
        // One character is kept for the ellipsis.
        if self.cut || self.chars + width > MAX_CHARS - 1 {
            self.cut = true;
            return;
        }
        self.chars += width;
        self.text.push_str(&escaped);
    }

    fn finish(mut self) -> String {
        if self.cut {
            self.text.push('…');
        }
        self.text
    }
}

/// Control characters, and those that reorder or hide the text around them.
fn is_unprintable(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_printable_and_masked() {
        let long = format!("let x = {};", "y".repeat(500));
        type Case<'a> = (&'a [u8], usize, &'a [(Range<usize>, usize)], &'a str);
        let cases: &[Case<'_>] = &[
            (b"  plain  ", 0, &[], "plain"),
            (b"key = AKIA1234", 6, &[(6..14, 4)], "key = AKIA…****"),
            (
                b"pw='abcdef', k='ghijk'",
                4,
                &[(4..10, 0), (16..21, 0)],
                "pw='****', k='****'",
            ),
            (b"bell\x07 \xff \xe2\x80\xae", 0, &[], "bell\\u{7} \u{fffd} \\u{202e}"),
            (b"", 9, &[], ""),
            (b"ab", 9, &[(0..2, 4)], "ab…****"),
        ];
        for (line, at, masks, expected) in cases {
            let masks: Vec<_> = masks
                .iter()
                .map(|(hidden, shown)| Mask {
                    hidden: hidden.clone(),
                    shown: *shown,
                })
                .collect();
            assert_eq!(quote(line, *at, &masks), *expected);
        }
        let quoted = quote(long.as_bytes(), 300, &[]);
        assert!(
            quoted.chars().count() == MAX_CHARS && quoted.starts_with('…') && quoted.ends_with('…'),
            "{quoted}"
        );
    }

    #[test]
    fn a_secret_whose_beginning_is_cut_off_shows_nothing() {
        let line = [&b"A".repeat(100)[..], b" tail"].concat();
        assert_eq!(
            quote(
                &line,
                102,
                &[Mask {
                    hidden: 0..100,
                    shown: 4
                }]
            ),
            "…**** tail"
        );
    }

    #[test]
    fn overlapping_masks_are_joined() {
        let mask = |hidden: Range<usize>, shown| Mask { hidden, shown };
        assert_eq!(merge(vec![mask(5..9, 4), mask(0..6, 4)]), [mask(0..9, 4)]);
        assert_eq!(merge(vec![mask(2..9, 4), mask(0..6, 4)]), [mask(0..9, 2)]);
        assert_eq!(
            merge(vec![mask(0..9, 4), mask(0..4, 0), mask(20..22, 1)]),
            [mask(0..9, 4), mask(20..22, 1)]
        );
        assert_eq!(merge(vec![mask(3..3, 4)]), []);
    }
}
