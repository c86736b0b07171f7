//! A document that tasks are read from, and how a mistake in it is shown.

use std::ops::Range;

use skep_sdk::{Failure, Note};

/// The most characters of a line that are shown: a document may be one long line.
const EXCERPT: usize = 100;
/// The most bytes of a message, which may name what somebody wrote: the host cuts a failure at 4 KiB, and its place shall stay.
const MESSAGE: usize = 1024;
/// How many characters of a line stand before the place.
const BEFORE: usize = 60;

/// Where tasks are read from.
#[derive(Debug)]
pub(crate) struct Document {
    /// What people know it by.
    pub(crate) name: String,
    /// What it says.
    pub(crate) text: String,
    /// It is one of the objective's notes, of that name.
    pub(crate) is_note: bool,
}

/// Something in a document is wrong.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// What, for people.
    pub(crate) message: String,
    /// Where, in bytes of the text.
    pub(crate) place: Range<usize>,
}

impl Mistake {
    pub(crate) fn new(message: impl Into<String>, place: Range<usize>) -> Mistake {
        Mistake {
            message: message.into(),
            place,
        }
    }
}

impl Document {
    pub(crate) fn of_note(note: Note) -> Document {
        Document {
            name: note.name,
            text: note.text,
            is_note: true,
        }
    }

    pub(crate) fn of_input(text: String) -> Document {
        Document {
            name: "input".to_owned(),
            text,
            is_note: false,
        }
    }

    /// Told by its first character, as names of files are the submitter's business.
    pub(crate) fn is_json(&self) -> bool {
        self.text.trim_start().starts_with(['{', '['])
    }

    /// `name:line:column` of a place, both from 1, columns in characters.
    pub(crate) fn position(&self, offset: usize) -> String {
        let (line, column, _) = self.locate(offset);
        format!("{}:{line}:{column}", self.name)
    }

    /// The mistake as a compiler would show it: message, position, line, and a caret under what is wrong.
    pub(crate) fn failure(&self, mistake: &Mistake) -> Failure {
        let (line, column, text) = self.locate(mistake.place.start);
        let skipped = if column > BEFORE { column - 1 - BEFORE } else { 0 };
        let shown: String = text
            .chars()
            .skip(skipped)
            .take(EXCERPT)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let before = column - 1 - skipped;
        let marked = self.text.get(mistake.place.clone()).unwrap_or_default();
        let marked = marked.lines().next().unwrap_or_default().chars().count();
        let carets = marked.clamp(1, shown.chars().count().saturating_sub(before).max(1));
        let message = match mistake.message.get(..mistake.message.floor_char_boundary(MESSAGE)) {
            Some(start) if start.len() < mistake.message.len() => format!("{start}…"),
            _ => mistake.message.clone(),
        };
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        Failure::never(format!(
            "{message}\n{gutter}--> {}:{line}:{column}\n{gutter} |\n{number} | {}\n{gutter} | {}{}",
            self.name,
            shown.trim_end(),
            " ".repeat(before),
            "^".repeat(carets),
        ))
    }

    /// Line and column of a byte, from 1, and the text of the line.
    fn locate(&self, offset: usize) -> (usize, usize, &str) {
        let offset = self.text.floor_char_boundary(offset);
        let (before, after) = self.text.split_at(offset);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = after.find('\n').map_or(self.text.len(), |newline| offset + newline);
        let line = before.matches('\n').count() + 1;
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        (line, column, self.text.get(start..end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, place: Range<usize>) -> String {
        let document = Document::of_input(text.to_owned());
        document.failure(&Mistake::new("wrong", place)).message
    }

    #[test]
    fn places_are_shown_wherever_they_are() {
        assert_eq!(shown("ab\ncd", 4..5), "wrong\n --> input:2:2\n  |\n2 | cd\n  |  ^");
        assert_eq!(shown("", 0..0), "wrong\n --> input:1:1\n  |\n1 | \n  | ^");
        assert_eq!(shown("ä\töx", 3..5), "wrong\n --> input:1:3\n  |\n1 | ä öx\n  |   ^");
        assert_eq!(shown("ab", 9..12), "wrong\n --> input:1:3\n  |\n1 | ab\n  |   ^");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}!{}", "a".repeat(1000), "b".repeat(1000));
        let shown = shown(&text, 1000..2001);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], " --> input:1:1001");
        assert_eq!(lines[3], format!("1 | {}!{}", "a".repeat(60), "b".repeat(39)));
        assert_eq!(lines[4], format!("  | {}{}", " ".repeat(60), "^".repeat(40)));
    }
}
