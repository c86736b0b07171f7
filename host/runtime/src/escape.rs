//! Text that a guest chose, made safe to show: in a terminal, a log, an audit entry or a page it can move no cursor, change no colour, reverse no
//! reading direction and forge no line.

use std::fmt::Write as _;

/// `bytes` as text of at most `most` bytes (a cut shows as `…`). Control characters, line breaks, direction marks and what is not UTF-8 are
/// escaped in the manner of Rust string literals.
pub(crate) fn escape(bytes: &[u8], most: usize) -> String {
    // What is beyond `most` bytes of input cannot show anyway: an escape is never shorter than what it stands for.
    let mut shown = String::with_capacity(bytes.len().min(most));
    for chunk in bytes.get(..most.saturating_add(4)).unwrap_or(bytes).utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                c if unsafe_to_show(c) => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            write!(shown, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    if shown.len() > most {
        shown.truncate(shown.floor_char_boundary(most.saturating_sub('…'.len_utf8())));
        shown.push('…');
    }
    shown
}

/// Controls (C0, C1, DEL), line and paragraph separators, and the marks that change the direction of reading.
fn unsafe_to_show(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_act_on_a_terminal_is_escaped() {
        for (raw, shown) in [
            (&b"plain text"[..], "plain text"),
            (b"\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}"),
            (b"tab\tline\r\n", "tab\\tline\\r\\n"),
            (b"\xff\xfeok", "\\xff\\xfeok"),
            ("gr\u{fc}n \u{202e}live".as_bytes(), "gr\u{fc}n \\u{202e}live"),
            ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
        ] {
            assert_eq!(escape(raw, 256), shown);
        }
    }

    #[test]
    fn a_cut_shows_and_never_splits_a_character() {
        assert_eq!(escape(b"abcdef", 6), "abcdef");
        assert_eq!(escape(b"abcdefg", 6), "abc…");
        for most in 3..40 {
            let cut = escape("äöü\u{1b}日本語".repeat(9).as_bytes(), most);
            assert!(cut.len() <= most && cut.ends_with('…'), "{cut}");
        }
    }
}
