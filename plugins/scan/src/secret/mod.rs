//! Finds credentials in a text, and hides them in whatever is quoted from it.
//!
//! One automaton over all prefixes and keywords runs over every byte; the exact rule of a hit looks at its surroundings only. *Finding* is
//! strict, so that ordinary source code stays quiet; *masking* uses the same rules with every condition dropped that narrows them, so that
//! whatever finding reports, masking hides.

mod assign;
pub mod rules;

use crate::excerpt::{self, Mask};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind};
use rules::{Alphabet, KEYWORDS, TOKENS, Token};
use std::ops::Range;

/// The most of a secret that is ever shown.
pub const SHOWN: usize = 4;

/// The longest secret that a rule follows: what a block shows beyond a seam.
const MAX_SECRET: usize = crate::blocks::CONTEXT;

/// The longest `user:password@host` that is followed.
const MAX_AUTHORITY: usize = 1 << 10;

/// How far behind its keyword an assignment is followed: room for the key, a type and the longest value.
const MAX_ASSIGNMENT: usize = 640;

/// A longer line is machine-made; an excerpt of it quotes the match alone, and matches too close to see their surroundings are left.
pub const MAX_QUOTED_LINE: usize = 4096;

/// The rule for secrets of no known kind.
const ASSIGNMENT: &str = "high-entropy-assignment";

const PEM: &str = "-----BEGIN ";
const JWT: &str = "eyJ";
const URL: &str = "://";

/// What a file's name says about its contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Values need no quotes here: `.env`, `.ini`, `.yaml` …
    pub unquoted: bool,
    /// Random values are normal here: lock files hold hashes. Keyword rules are off.
    pub hashes: bool,
}

impl Place {
    /// Judge a path by its last part.
    pub fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let configuration = [
            "env",
            "ini",
            "properties",
            "cfg",
            "conf",
            "cnf",
            "yml",
            "yaml",
            "netrc",
            "pgpass",
            "npmrc",
            "pypirc",
            "tfvars",
        ];
        let hashes = ["lock", "sum", "svg", "map", "snap"].contains(&extension)
            || [
                "package-lock.json",
                "npm-shrinkwrap.json",
                "pnpm-lock.yaml",
                "cargo_vcs_info.json",
                ".cargo-checksum.json",
            ]
            .contains(&&*name);
        Self {
            unquoted: name.starts_with(".env") || configuration.contains(&extension),
            hashes,
        }
    }
}

/// One secret in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The rule that found it.
    pub rule: &'static str,
    /// Where the secret is: the value alone, without key, quotes or user name.
    pub secret: Range<usize>,
    /// How many of its first bytes may be shown.
    pub shown: usize,
}

#[derive(Clone, Copy, Debug)]
enum Pattern {
    Token(&'static Token),
    Keyword,
    Pem,
    Jwt,
    Url,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Find(Place),
    Mask,
}

/// The rules, ready to run. Building them takes about a millisecond; do it once per attempt.
#[derive(Debug)]
pub struct Secrets {
    prefixes: AhoCorasick,
    patterns: Vec<Pattern>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new()
    }
}

impl Secrets {
    /// Build the automaton.
    pub fn new() -> Self {
        let tokens = TOKENS.iter().map(|token| (token.prefix, Pattern::Token(token)));
        let keywords = KEYWORDS.iter().map(|word| (*word, Pattern::Keyword));
        let others = [(PEM, Pattern::Pem), (JWT, Pattern::Jwt), (URL, Pattern::Url)];
        let (texts, patterns): (Vec<_>, Vec<_>) = tokens.chain(keywords).chain(others).unzip();
        let prefixes = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            // The longer pattern that begins first: `AGE-SECRET-KEY-1` and not the keyword within it.
            .match_kind(MatchKind::LeftmostFirst)
            .kind(Some(AhoCorasickKind::DFA))
            .build(texts)
            .expect("the table of patterns is small and fixed");
        Self { prefixes, patterns }
    }

    /// Every secret whose prefix or keyword starts in a range of a text, in the order of the text, without overlaps. Where two rules see
    /// the same secret, the one that knows its kind wins.
    pub fn find(&self, text: &[u8], owned: Range<usize>, place: Place) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        let mut key_material_end = 0;
        self.each(text, owned, Mode::Find(place), |seen| {
            if seen.secret.start < key_material_end {
                return;
            }
            if seen.rule.ends_with("private-key") {
                let rest = text.get(seen.secret.start..).unwrap_or_default();
                let rest = rest.get(..MAX_SECRET).unwrap_or(rest);
                let length = memchr::memmem::find(rest, b"-----END").unwrap_or(seen.secret.len());
                key_material_end = seen.secret.start + length;
            }
            match found.last_mut() {
                Some(last) if seen.secret.start < last.secret.end => {
                    if last.rule == ASSIGNMENT {
                        *last = seen;
                    }
                }
                _ => found.push(seen),
            }
        });
        found
    }

    /// Everything in a line that must not be shown, in order, without overlaps.
    pub fn masks(&self, line: &[u8]) -> Vec<Mask> {
        let mut masks = Vec::new();
        self.each(line, 0..line.len(), Mode::Mask, |seen| {
            masks.push(Mask {
                hidden: seen.secret,
                shown: seen.shown,
            })
        });
        masks.extend(random_runs(line).map(|hidden| Mask { hidden, shown: 0 }));
        let copies = copies(line, &masks);
        masks.extend(copies);
        excerpt::merge(masks)
    }

    /// Quote a line around a position, at most [`excerpt::MAX_CHARS`] characters, with every secret in it masked.
    pub fn excerpt(&self, line: &[u8], at: usize) -> String {
        excerpt::quote(line, at, &self.masks(line))
    }

    /// Quote the rest of a line from a position on, with every secret of the line masked.
    pub fn excerpt_from(&self, line: &[u8], from: usize) -> String {
        excerpt::quote_from(line, from, false, &self.masks(line))
    }

    /// A text as it may be shown.
    pub fn masked(&self, text: &str) -> String {
        self.excerpt(text.as_bytes(), 0)
    }

    fn each(&self, text: &[u8], owned: Range<usize>, mode: Mode, mut report: impl FnMut(Found)) {
        // A prefix that begins on the last owned byte ends a little further on.
        let end = text.len().min(owned.end.saturating_add(32));
        let input = Input::new(text).range(owned.start.min(end)..end).anchored(Anchored::No);
        for hit in self.prefixes.find_iter(input) {
            if hit.start() >= owned.end {
                break;
            }
            let Some(pattern) = self.patterns.get(hit.pattern().as_usize()) else {
                continue;
            };
            if let Some(seen) = examine(*pattern, text, hit.range(), mode) {
                report(seen);
            }
        }
    }
}

fn examine(pattern: Pattern, text: &[u8], hit: Range<usize>, mode: Mode) -> Option<Found> {
    match pattern {
        Pattern::Token(token) => known_token(token, text, hit, mode),
        Pattern::Keyword => assignment(text, hit, mode),
        Pattern::Pem => private_key(text, hit, mode),
        Pattern::Jwt => json_web_token(text, hit, mode),
        Pattern::Url => url_password(text, hit, mode),
    }
}

fn known_token(token: &'static Token, text: &[u8], hit: Range<usize>, mode: Mode) -> Option<Found> {
    if text.get(hit.clone())? != token.prefix.as_bytes() {
        return None;
    }
    // When finding, one byte more than the longest tells enough: a text made of prefixes must not be followed to its end from each.
    let limit = if mode == Mode::Mask { MAX_SECRET } else { token.max + 1 };
    let body = run(text, hit.end, limit, |byte| token.body.holds(byte));
    if body.len() < token.min {
        return None;
    }
    if let Mode::Find(_) = mode {
        let inside_a_word = hit
            .start
            .checked_sub(1)
            .and_then(|at| text.get(at))
            .is_some_and(|byte| is_word(*byte));
        let goes_on = text.get(body.end).is_some_and(|byte| is_word(*byte));
        let is_path = token.body == Alphabet::Path;
        if (inside_a_word && !is_path) || goes_on || body.len() > token.max {
            return None;
        }
        // A run of the same few characters stands for a token; 16 random ones are above 3 bits nearly always.
        if entropy(text.get(body.clone())?) < 2.6 || !text.get(body.clone())?.iter().any(u8::is_ascii_digit) {
            return None;
        }
    }
    // A prefix that is a place (a host, a key's name) may stay; of the secret behind it nothing does.
    if token.prefix.len() > 11 || token.prefix.ends_with('=') {
        return Some(Found {
            rule: token.rule,
            secret: body,
            shown: 0,
        });
    }
    Some(Found {
        rule: token.rule,
        secret: hit.start..body.end,
        shown: SHOWN,
    })
}

fn assignment(text: &[u8], keyword: Range<usize>, mode: Mode) -> Option<Found> {
    let ahead = if mode == Mode::Mask { MAX_SECRET } else { MAX_ASSIGNMENT };
    let line = line_around(text, &keyword, ahead);
    let found = assign::parse(line.bytes, &line.inward(&keyword))?;
    let keyword = line.inward(&keyword);
    let (rule, is_found) = match mode {
        Mode::Mask => ("", assign::is_maskable(line.bytes, &found)),
        Mode::Find(place) if place.hashes || (!found.quoted && !place.unquoted) => return None,
        Mode::Find(_) if is_aws_secret(line.bytes, &found) => ("aws-secret-key", true),
        Mode::Find(_) => (ASSIGNMENT, assign::is_secret(line.bytes, &keyword, &found)),
    };
    is_found.then(|| Found {
        rule,
        secret: line.outward(&found.value),
        shown: 0,
    })
}

/// 40 characters of base64 given to something that is called `secret`: what AWS hands out.
fn is_aws_secret(line: &[u8], found: &assign::Assignment) -> bool {
    let (Some(key), Some(value)) = (line.get(found.key.clone()), line.get(found.value.clone())) else {
        return false;
    };
    let key = key.to_ascii_lowercase();
    let names_it = memchr::memmem::find(&key, b"aws").is_some()
        || memchr::memmem::find(&key, b"secret").is_some() && memchr::memmem::find(&key, b"access").is_some();
    let classes = [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit];
    names_it
        && value.len() == 40
        && value.iter().all(|byte| Alphabet::Base64.holds(*byte))
        && classes.iter().all(|is| value.iter().any(is))
        && entropy(value) >= 3.5
}

/// The header of a private key. What is secret is everything from there to the footer or the end of the line.
fn private_key(text: &[u8], hit: Range<usize>, mode: Mode) -> Option<Found> {
    let line = line_around(text, &hit, MAX_SECRET);
    let hit = line.inward(&hit);
    let label = line.bytes.get(hit.end..)?;
    let dashes = memchr::memmem::find(label.get(..64).unwrap_or(label), b"-----")?;
    let label_text = label.get(..dashes)?;
    if !(label_text.ends_with(b"PRIVATE KEY") || label_text.ends_with(b"PRIVATE KEY BLOCK")) {
        return None;
    }
    let start = hit.end + dashes + 5;
    let body = line.bytes.get(start..)?;
    let length = memchr::memmem::find(body, b"-----END").unwrap_or(body.len());
    let rule = match label_text {
        b"PGP PRIVATE KEY BLOCK" => "pgp-private-key",
        b"ENCRYPTED PRIVATE KEY" => "encrypted-private-key",
        b"OPENSSH PRIVATE KEY" | b"SSH2 PRIVATE KEY" => "ssh-private-key",
        _ => "private-key",
    };
    // Code that looks for keys, or writes them, names the header in a string and closes it at once.
    if matches!(mode, Mode::Find(_))
        && !is_key_material(body.get(..length)?, text, line.outward(&(start..start + length)).end)
    {
        return None;
    }
    Some(Found {
        rule,
        secret: line.outward(&(start..start + length)),
        shown: 0,
    })
}

/// Does base64 follow a header: on the same line (behind an escaped line end, perhaps), or on one of the next four lines?
fn is_key_material(rest: &[u8], text: &[u8], line_end: usize) -> bool {
    let is_base64 = |bytes: &[u8]| {
        bytes.iter().filter(|byte| Alphabet::Base64.holds(**byte)).count() >= 24
            && bytes.iter().filter(|byte| byte.is_ascii_whitespace()).count() < 4
    };
    let trimmed = rest.trim_ascii();
    if trimmed.len() >= 24 {
        return is_base64(trimmed.get(..64).unwrap_or(trimmed));
    }
    let closes_string = matches!(trimmed, [b'"' | b'\'' | b'`' | b')' | b';' | b',', ..]);
    let continues_string = matches!(trimmed, [b'"' | b'\'', b'+' | b'.' | b'\\' | b' ', ..] | [b'"' | b'\'']);
    if closes_string && !continues_string {
        return false;
    }
    let next = text
        .get(line_end..text.len().min(line_end.saturating_add(1024)))
        .unwrap_or_default();
    next.split(|byte| *byte == b'\n').skip(1).take(4).any(|line| {
        let line = line.trim_ascii();
        (32..=100).contains(&line.len()) && !line.contains(&b' ') && is_base64(line) && entropy(line) > 3.5
    })
}

fn json_web_token(text: &[u8], hit: Range<usize>, mode: Mode) -> Option<Found> {
    if text.get(hit.clone())? != JWT.as_bytes() {
        return None;
    }
    let inside_a_word = hit
        .start
        .checked_sub(1)
        .and_then(|at| text.get(at))
        .is_some_and(|byte| is_word(*byte));
    // The alphabet of the parts, so that runs do not overlap and a text made of beginnings is followed once.
    if mode != Mode::Mask && (inside_a_word || hit.start.checked_sub(1).and_then(|at| text.get(at)) == Some(&b'-')) {
        return None;
    }
    let part = |from: usize| run(text, from, MAX_SECRET, |byte| Alphabet::Url.holds(byte));
    let header = part(hit.start);
    let payload = part(header.end.checked_add(1)?);
    if header.len() < 12 || text.get(header.end) != Some(&b'.') || payload.len() < 8 {
        return None;
    }
    if mode != Mode::Mask && !text.get(payload.clone())?.starts_with(b"ey") {
        return None;
    }
    let signature = match text.get(payload.end) {
        Some(b'.') => part(payload.end + 1),
        _ => payload.end..payload.end,
    };
    if mode != Mode::Mask && signature.len() < 16 {
        return None;
    }
    Some(Found {
        rule: "json-web-token",
        secret: hit.start..signature.end,
        shown: SHOWN,
    })
}

/// `scheme://user:password@host`
fn url_password(text: &[u8], hit: Range<usize>, mode: Mode) -> Option<Found> {
    let ends = |byte: u8| {
        !byte.is_ascii_graphic()
            || matches!(
                byte,
                b'/' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'?' | b'#' | b'\\' | b',' | b';'
            )
    };
    let authority = run(text, hit.end, MAX_AUTHORITY, |byte| !ends(byte));
    let bytes = text.get(authority.clone())?;
    let at = memchr::memrchr(b'@', bytes)?;
    let colon = memchr::memchr(b':', bytes.get(..at)?)?;
    let secret = authority.start + colon + 1..authority.start + at;
    if secret.is_empty() {
        return None;
    }
    if let Mode::Find(_) = mode {
        let (password, host) = (bytes.get(colon + 1..at)?, bytes.get(at + 1..)?);
        if !is_url_password(password) || host.is_empty() || is_example_host(host) {
            return None;
        }
    }
    Some(Found {
        rule: "url-password",
        secret,
        shown: 0,
    })
}

fn is_url_password(password: &[u8]) -> bool {
    let lower = password.to_ascii_lowercase();
    let stands_in: [&[u8]; 14] = [
        b"pass",
        b"password",
        b"passwd",
        b"pwd",
        b"pw",
        b"secret",
        b"user",
        b"token",
        b"p",
        b"x",
        b"port",
        b"foo",
        b"bar",
        b"x-oauth-basic",
    ];
    let reference = password.iter().any(|byte| {
        matches!(
            byte,
            b'$' | b'{' | b'}' | b'<' | b'%' | b'[' | b'(' | b'*' | b':' | b'@'
        )
    }) && !password.iter().any(u8::is_ascii_digit);
    password.len() >= 3 && !stands_in.contains(&&*lower) && !reference && !matches!(password, [b'$' | b'{' | b'%', ..])
}

/// Hosts that are reserved for documentation (RFC 2606), and the machine itself.
fn is_example_host(host: &[u8]) -> bool {
    let name = host.split(|byte| *byte == b':').next().unwrap_or_default();
    [
        &b"example.com"[..],
        b"example.org",
        b"example.net",
        b"example",
        b".test",
        b".invalid",
        b"localhost",
        b"127.0.0.1",
        b"host",
        b"hostname",
    ]
    .iter()
    .any(|reserved| name.ends_with(reserved))
}

/// Runs that look like a key to the eye: 20 and more letters and digits of all three classes, or 32 hexadecimal digits. Only masking asks:
/// among names and hashes they are too common to report.
fn random_runs(line: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < line.len() {
            let found = run(line, at, MAX_SECRET, |byte| Alphabet::Url.holds(byte) || byte == b'+');
            at = found.end + 1;
            let bytes = line.get(found.clone()).unwrap_or_default();
            let classes = [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit];
            let mixed = found.len() >= 20 && classes.iter().all(|is| bytes.iter().any(is));
            if mixed || (found.len() >= 32 && bytes.iter().all(u8::is_ascii_hexdigit)) {
                return Some(found);
            }
        }
        None
    })
}

/// The other places where a masked value stands: a comment often repeats what the code beside it says.
fn copies(line: &[u8], masks: &[Mask]) -> Vec<Mask> {
    let mut copies = Vec::new();
    for mask in masks {
        let Some(value) = line.get(mask.hidden.clone()).filter(|value| value.len() >= SHOWN) else {
            continue;
        };
        copies.extend(memchr::memmem::find_iter(line, value).map(|at| Mask {
            hidden: at..at + value.len(),
            shown: mask.shown,
        }));
    }
    copies
}

/// Shannon entropy in bits per byte: 0 for one repeated character, 4 for random hexadecimal digits, towards 6 for random base64.
pub fn entropy(text: &[u8]) -> f32 {
    let text = text.get(..256).unwrap_or(text);
    let mut counts = [0_u16; 256];
    for byte in text {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let length = f32::from(u16::try_from(text.len()).unwrap_or(u16::MAX).max(1));
    let share = |count: u16| f32::from(count) / length;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| -share(*count) * share(*count).log2())
        .sum()
}

/// The bytes from a position on that a test holds for, at most `limit`.
fn run(text: &[u8], from: usize, limit: usize, holds: impl Fn(u8) -> bool) -> Range<usize> {
    let rest = text.get(from..).unwrap_or_default();
    let length = rest.iter().take(limit).take_while(|byte| holds(**byte)).count();
    from..from + length
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The surroundings of a hit on its own line, no further than a rule may look.
struct Line<'a> {
    bytes: &'a [u8],
    start: usize,
}

impl Line<'_> {
    fn inward(&self, range: &Range<usize>) -> Range<usize> {
        range.start - self.start..range.end - self.start
    }

    fn outward(&self, range: &Range<usize>) -> Range<usize> {
        range.start + self.start..range.end + self.start
    }
}

fn line_around<'a>(text: &'a [u8], hit: &Range<usize>, ahead: usize) -> Line<'a> {
    let before = text.get(..hit.start).unwrap_or_default();
    let reach = before.len().saturating_sub(256);
    let start = before
        .get(reach..)
        .and_then(|bytes| memchr::memrchr(b'\n', bytes))
        .map_or(reach, |newline| reach + newline + 1);
    let limit = text.len().min(hit.end.saturating_add(ahead));
    let after = text.get(hit.end..limit).unwrap_or_default();
    let end = memchr::memchr(b'\n', after).map_or(limit, |newline| hit.end + newline);
    let bytes = text.get(start..end).unwrap_or_default();
    Line {
        bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes),
        start,
    }
}

#[cfg(test)]
mod tests;
