//! `password = "…"` and its relatives: finds the value that a keyword's key is given on the same line.

use super::rules::{KEY_ENDINGS, PLACEHOLDERS};
use std::ops::Range;

/// A key longer than this is not a name somebody typed.
const MAX_KEY: usize = 80;

/// A value longer than this is data, not a secret.
const MAX_VALUE: usize = 512;

/// How far the operator may be from the key: room for a type between them.
const MAX_GAP: usize = 40;

/// A value given to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The whole key.
    pub(super) key: Range<usize>,
    /// The value without its quotes.
    pub(super) value: Range<usize>,
    /// Was the value in quotes, or between tags?
    pub(super) quoted: bool,
}

/// Read the assignment around a keyword. `None` when nothing is assigned there.
pub(super) fn parse(line: &[u8], keyword: &Range<usize>) -> Option<Assignment> {
    let key = widen(line, keyword);
    let mut cursor = Cursor { line, at: key.end };
    cursor.skip(|byte| matches!(byte, b'"' | b'\'' | b'`' | b']' | b'\\'));
    cursor.skip(is_blank);
    let in_tag = key.start.checked_sub(1).and_then(|at| line.get(at)) == Some(&b'<');
    match cursor.next()? {
        b'>' if in_tag => return tagged(line, key, cursor.at),
        b'=' => cursor.skip(|byte| matches!(byte, b'=' | b'>' | b'~')),
        b'!' if cursor.peek() == Some(b'=') => cursor.skip(|byte| byte == b'='),
        b':' => {
            cursor.skip(|byte| matches!(byte, b':' | b'='));
            cursor.skip_type();
        }
        _ => return None,
    }
    cursor.skip(is_blank);
    value(line, key, cursor)
}

/// Does the key name a secret, and could the value be one?
pub(super) fn is_secret(line: &[u8], keyword: &Range<usize>, found: &Assignment) -> bool {
    let (Some(word), Some(rest), Some(value)) = (
        line.get(keyword.clone()),
        line.get(keyword.end..found.key.end),
        line.get(found.value.clone()),
    ) else {
        return false;
    };
    // Without quotes a value without a digit is a word of the configuration's own language.
    if !found.quoted && !value.iter().any(u8::is_ascii_digit) {
        return false;
    }
    let rest: Vec<u8> = rest
        .iter()
        .filter(|byte| byte.is_ascii_alphabetic())
        .map(u8::to_ascii_lowercase)
        .collect();
    if !KEY_ENDINGS.iter().any(|ending| ending.as_bytes() == rest) {
        return false;
    }
    let is_password = matches!(word.first().map(u8::to_ascii_lowercase), Some(b'p'))
        && !word.to_ascii_lowercase().starts_with(b"private");
    let (least, entropy) = if is_password { (6, 2.5) } else { (16, 3.3) };
    value.len() >= least
        && looks_random(value, is_password)
        && super::entropy(value) >= entropy
        && !is_placeholder(value)
}

/// Is the value one that the masker must hide although nobody would report it? Wider than [`is_secret`] in everything.
pub(super) fn is_maskable(line: &[u8], found: &Assignment) -> bool {
    found.quoted
        || line
            .get(found.value.clone())
            .is_some_and(|value| value.len() >= 6 && value.iter().any(u8::is_ascii_digit))
}

fn widen(line: &[u8], keyword: &Range<usize>) -> Range<usize> {
    let before = line
        .get(keyword.start.saturating_sub(MAX_KEY)..keyword.start)
        .unwrap_or_default();
    let after = line.get(keyword.end..).unwrap_or_default();
    let left = before.iter().rev().take_while(|byte| is_name(**byte)).count();
    let right = after.iter().take(MAX_KEY).take_while(|byte| is_name(**byte)).count();
    keyword.start - left..keyword.end + right
}

fn value(line: &[u8], key: Range<usize>, mut cursor: Cursor<'_>) -> Option<Assignment> {
    // `b"…"`, `r"…"`, `@"…"` and the like, and the backslashes of a string within a string.
    if matches!(
        cursor.peek(),
        Some(b'b' | b'B' | b'r' | b'R' | b'u' | b'U' | b'f' | b'F' | b'@' | b'$')
    ) && matches!(line.get(cursor.at + 1), Some(b'"' | b'\''))
    {
        cursor.at += 1;
    }
    cursor.skip(|byte| byte == b'\\');
    let start = cursor.at;
    let quote = cursor.peek()?;
    if matches!(quote, b'"' | b'\'' | b'`') {
        let start = start + 1;
        let rest = line.get(start..)?;
        let length = rest.iter().position(|byte| *byte == quote).unwrap_or(rest.len());
        let value = rest.get(..length)?;
        let length = length - usize::from(value.last() == Some(&b'\\'));
        return Some(Assignment {
            key,
            value: start..start + length,
            quoted: true,
        })
        .filter(|found| !found.value.is_empty());
    }
    let rest = line.get(start..)?;
    let length = rest
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'`' | b',' | b';' | b'<' | b'>'))
        .unwrap_or(rest.len());
    Some(Assignment {
        key,
        value: start..start + length,
        quoted: false,
    })
    .filter(|found| !found.value.is_empty())
}

fn tagged(line: &[u8], key: Range<usize>, start: usize) -> Option<Assignment> {
    let rest = line.get(start..)?;
    // `<user>:<password>@host` is no element.
    let length = memchr::memmem::find(rest, b"</")
        .filter(|length| !rest.get(..*length).is_some_and(|value| value.contains(&b'<')))?;
    Some(Assignment {
        key,
        value: start..start + length,
        quoted: true,
    })
    .filter(|found| !found.value.is_empty())
}

/// Words, names, paths, addresses, numbers, versions and references are not secrets.
fn looks_random(value: &[u8], is_password: bool) -> bool {
    if value.len() > MAX_VALUE
        || value
            .iter()
            .any(|byte| byte.is_ascii_whitespace() || !byte.is_ascii_graphic())
    {
        return false;
    }
    if matches!(
        value,
        [
            b'/' | b'.' | b'$' | b'%' | b'<' | b'{' | b'[' | b'(' | b'&' | b'*' | b'-' | b'#',
            ..
        ]
    ) || contains(value, b"://")
    {
        return false;
    }
    let letters = value.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let marks = value
        .iter()
        .filter(|byte| byte.is_ascii_punctuation() && !matches!(byte, b'_' | b'-' | b'.' | b'/' | b':'))
        .count();
    // A call, an index or a generic type: code, in a place where no quotes are needed.
    let code = value.iter().any(|byte| {
        matches!(
            byte,
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b'|' | b';' | b'\\'
        )
    });
    if is_password {
        letters >= 1 && (digits >= 1 || marks >= 1) && !(code && marks > 0 && digits == 0)
    } else {
        letters >= 4 && digits >= 2 && !code && !contains(value, b"::")
    }
}

fn is_placeholder(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|word| contains(&lower, word.as_bytes()))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&is_skipped) {
            self.at += 1;
        }
    }

    /// Step over the type of `token: &'static str = "…"`, if that is what is here.
    fn skip_type(&mut self) {
        let ahead = self.line.get(self.at..).unwrap_or_default();
        let is_type = |byte: &u8| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b' ' | b'&' | b'\'' | b'_' | b'<' | b'>' | b'?' | b'*' | b'[' | b']' | b':' | b'|'
                )
        };
        let length = ahead.iter().take(MAX_GAP).take_while(|byte| is_type(byte)).count();
        if ahead.get(length) == Some(&b'=') && matches!(ahead.get(length + 1), Some(b' ' | b'"' | b'\'')) {
            self.at += length + 1;
        }
    }
}
