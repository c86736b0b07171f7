//! Finds `TODO`, `FIXME`, `HACK` and `XXX` in comments.
//!
//! A marker counts when it is a word of its own in capitals and stands in a comment: behind a comment's opener on its line that is not in a
//! string, on a line that continues a block comment, or inside one. That is judged from the line and the lines before it that the block
//! shows, not by parsing the language: a marker in a string that itself holds an opener can be taken for one.

use crate::{blocks::Block, language::Comments};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input};

const MARKERS: [(&str, &str); 4] = [("TODO", "todo"), ("FIXME", "fixme"), ("HACK", "hack"), ("XXX", "xxx")];

/// How far back the opener of a block comment is looked for, in bytes.
const LOOK_BACK: usize = 16 << 10;

/// How far back on its line the opener of a line comment is looked for, in bytes.
const LINE_LOOK_BACK: usize = 1 << 10;

/// Markers outside comments that are looked into per block. Code has a handful; a file made of them must not cost its batch the attempt.
const MAX_FAILED: usize = 512;

/// A marker in a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `todo`, `fixme`, `hack` or `xxx`.
    pub rule: &'static str,
    /// Where the marker begins.
    pub at: usize,
}

/// The markers, ready to be searched.
#[derive(Debug)]
pub struct Todos {
    markers: AhoCorasick,
}

impl Default for Todos {
    fn default() -> Self {
        Self::new()
    }
}

impl Todos {
    /// Build the automaton.
    pub fn new() -> Self {
        let markers = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .build(MARKERS.map(|(marker, _)| marker))
            .expect("the table of markers is small and fixed");
        Self { markers }
    }

    /// Show every marker of the owned part of a block, the first of each line only.
    pub fn find(&self, block: &Block<'_>, comments: &Comments, mut report: impl FnMut(Found)) {
        let end = block.bytes.len().min(block.owned.end + 8);
        let (mut line_end, mut failed) = (0, 0);
        for hit in self
            .markers
            .find_iter(Input::new(block.bytes).range(block.owned.start..end))
        {
            if hit.start() >= block.owned.end || failed == MAX_FAILED {
                break;
            }
            if hit.start() < line_end || !is_word(block.bytes, hit.start(), hit.end()) {
                continue;
            }
            if !is_comment(block, hit.start(), comments) {
                failed += 1;
                continue;
            }
            if let Some((_, rule)) = MARKERS.get(hit.pattern().as_usize()) {
                report(Found { rule, at: hit.start() });
                line_end = block.line_range(hit.start()).end;
            }
        }
    }
}

/// Is it a word of its own, and no part of an identifier, a path or a form like `XXX-XX-XXXX`?
fn is_word(text: &[u8], start: usize, end: usize) -> bool {
    let before = start
        .checked_sub(1)
        .and_then(|at| text.get(at))
        .copied()
        .unwrap_or(b' ');
    let after = text.get(end).copied().unwrap_or(b' ');
    let then = text.get(end + 1).copied().unwrap_or(b' ');
    let opens = before.is_ascii_whitespace()
        || matches!(
            before,
            b'/' | b'*'
                | b'#'
                | b'-'
                | b';'
                | b'%'
                | b'!'
                | b'('
                | b'['
                | b'{'
                | b'@'
                | b'"'
                | b'\''
                | b'<'
                | b'>'
                | b'|'
                | b','
                | b':'
        );
    let lone_dash = before == b'-'
        && start
            .checked_sub(2)
            .and_then(|at| text.get(at))
            .is_some_and(u8::is_ascii_alphanumeric);
    let closes = after.is_ascii_whitespace()
        || matches!(
            after,
            b':' | b'('
                | b'['
                | b'!'
                | b'?'
                | b')'
                | b']'
                | b'}'
                | b','
                | b';'
                | b'*'
                | b'@'
                | b'<'
                | b'>'
                | b'|'
                | b'"'
                | b'\''
        )
        || (matches!(after, b'.' | b'-' | b'/') && !then.is_ascii_alphanumeric());
    opens && closes && !lone_dash
}

fn is_comment(block: &Block<'_>, at: usize, comments: &Comments) -> bool {
    let line = block.line_range(at);
    let start = line.start.max(at.saturating_sub(LINE_LOOK_BACK));
    let before = block.bytes.get(start..at).unwrap_or_default();
    if comments
        .line
        .iter()
        .any(|opener| opens_comment(before, opener.as_bytes()))
    {
        return true;
    }
    if comments.block.is_empty() {
        return false;
    }
    let starts_with_star =
        before.trim_ascii_start().starts_with(b"*") && comments.block.iter().any(|(opener, _)| *opener == "/*");
    starts_with_star || is_inside_block(block.bytes, at, comments)
}

/// Does a line comment open before the end of this text, outside a string?
fn opens_comment(before: &[u8], opener: &[u8]) -> bool {
    let mut string = Quotes::default();
    before.iter().enumerate().any(|(at, byte)| {
        // `https://`, `$#`, `a--`: an opener that sticks to what is before it is a part of that.
        let sticks = match opener {
            b"//" => string.previous == b':',
            _ => !(string.previous.is_ascii_whitespace() || string.previous == *opener.first().unwrap_or(&b' ')),
        };
        let opens = !sticks && !string.is_open() && before.get(at..).is_some_and(|rest| rest.starts_with(opener));
        string.next(*byte);
        opens
    })
}

/// Follows the quotes of a line that are not escaped; an apostrophe within a word is none.
struct Quotes {
    open: Option<u8>,
    previous: u8,
    is_escaped: bool,
}

impl Default for Quotes {
    fn default() -> Self {
        Self {
            open: None,
            previous: b' ',
            is_escaped: false,
        }
    }
}

impl Quotes {
    fn next(&mut self, byte: u8) {
        let is_quote = matches!(byte, b'"' | b'\'' | b'`') && !self.is_escaped;
        let is_apostrophe =
            byte == b'\'' && (self.previous.is_ascii_alphanumeric() || matches!(self.previous, b'<' | b'&'));
        match self.open {
            Some(quote) if is_quote && byte == quote => self.open = None,
            None if is_quote && !is_apostrophe => self.open = Some(byte),
            _ => {}
        }
        self.is_escaped = byte == b'\\' && !self.is_escaped;
        self.previous = byte;
    }

    /// A single apostrophe that never closes is a lifetime or a digit separator more often than a string.
    fn is_open(&self) -> bool {
        self.open.is_some_and(|quote| quote != b'\'')
    }
}

/// Is the end of this text inside a string?
fn is_in_string(text: &[u8]) -> bool {
    let mut quotes = Quotes::default();
    text.iter().for_each(|byte| quotes.next(*byte));
    quotes.is_open()
}

fn is_inside_block(text: &[u8], at: usize, comments: &Comments) -> bool {
    let from = at.saturating_sub(LOOK_BACK);
    let before = text.get(from..at).unwrap_or_default();
    comments.block.iter().any(|(opener, closer)| {
        let (opener, closer) = (opener.as_bytes(), closer.as_bytes());
        if opener == closer {
            return memchr::memmem::find_iter(before, opener).count() % 2 == 1;
        }
        let Some(opened) = memchr::memmem::rfind(before, opener) else {
            return false;
        };
        let line = memchr::memrchr(b'\n', before.get(..opened).unwrap_or_default()).map_or(0, |newline| newline + 1);
        let closed = before
            .get(opened + opener.len()..)
            .is_some_and(|rest| memchr::memmem::find(rest, closer).is_some());
        !closed && !is_in_string(before.get(line..opened).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language;

    fn check(path: &str, text: &str, expected: &[(&str, u64)]) {
        let block = Block {
            bytes: text.as_bytes(),
            owned: 0..text.len(),
            first_line: 1,
        };
        let comments = language::of_path(path).map_or(&language::UNKNOWN, |language| &language.comments);
        let mut found = Vec::new();
        Todos::new().find(&block, comments, |todo| {
            found.push((todo.rule, block.line_number(todo.at)))
        });
        assert_eq!(found, expected, "{path}: {text}");
    }

    #[test]
    fn markers_count_in_comments_only() {
        check(
            "a.rs",
            "// TODO: one\nlet x = 1; // FIXME(me) two\n",
            &[("todo", 1), ("fixme", 2)],
        );
        check(
            "a.rs",
            "let TODO = 1;\nlet a = \"TODO: no\";\nlet b = \"// TODO no\";",
            &[],
        );
        check("a.rs", "/// see `XXX` // and HACK\n", &[("hack", 1)]);
        check("a.rs", "fn f<'a>(x: &'a str) {} // TODO: lifetimes\n", &[("todo", 1)]);
        check("a.rs", "/*\n first\n TODO second\n*/\nlet TODO = 1;", &[("todo", 3)]);
        check("a.java", "/**\n * TODO: doc\n */", &[("todo", 2)]);
        check("a.rs", "let glob = \"src/*\";\nlet y = TODO;\n", &[]);
        check("a.rs", "let u = \"https://x/TODO\"; see(TODO)", &[]);
        check(
            "a.py",
            "x = 1  # XXX later\n\"\"\"\nTODO doc\n\"\"\"\ny = TODO\n",
            &[("xxx", 1), ("todo", 3)],
        );
        check("a.py", "s = '# TODO'\n", &[]);
        check("a.c", "/* TODO */ int x; // TODO TODO\n", &[("todo", 1)]);
        check("a.c", "// TODO_LIST, TODOS, MYTODO, XXXL, todo, XXX-XX-XXXX\n", &[]);
        check("a.c", "// a.TODO /TODO/x XXX-large\n", &[]);
        check("a.sql", "select 1 -- HACK\n", &[("hack", 1)]);
        check("a.html", "<p>TODO</p>\n<!-- TODO -->\n", &[("todo", 2)]);
        check("a.md", "TODO list\n", &[]);
        check("a.json", "{\"k\": \"# TODO\"}", &[]);
        check("a.lisp", ";; TODO\n", &[("todo", 1)]);
        check("a.tex", "50\\% TODO % TODO really\n", &[("todo", 1)]);
        check("unknown", "# TODO a\n// FIXME b\nTODO\n", &[("todo", 1), ("fixme", 2)]);
        check("Makefile", "all: # TODO\n", &[("todo", 1)]);
    }
}
