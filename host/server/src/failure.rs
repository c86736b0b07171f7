//! What a command prints when it fails: the cause, the place with a caret, the reason code and the next command to type.

use std::{fmt, ops::Range, path::Path};

use skep_rules::{manifest, reason::Reason};

use crate::cli::Exit;

/// An error that a person can act on.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// What is wrong.
    message: String,
    /// Where in a file of the user.
    place: Option<Box<Place>>,
    /// The reason code, where one applies.
    pub(crate) reason: Option<Reason>,
    /// What to do next.
    next: Option<String>,
}

/// A place in a text file.
#[derive(Debug)]
struct Place {
    file: String,
    line: usize,
    column: usize,
    /// The line itself and how many of its characters are meant, where a caret helps.
    excerpt: Option<(String, usize)>,
}

impl Failure {
    /// With an exit code of its own.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure {
            exit,
            message: message.into(),
            place: None,
            reason: None,
            next: None,
        }
    }

    /// With a reason code, from which the exit code and the next step follow.
    pub(crate) fn of(reason: Reason, message: impl Into<String>) -> Self {
        Failure {
            reason: Some(reason),
            next: Some(reason.next().to_owned()),
            ..Failure::new(Exit::of(reason), message)
        }
    }

    /// The command line asks for something that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
    }

    /// Says what to do next.
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Failure {
            next: Some(next.into()),
            ..self
        }
    }

    /// Says where in a file; `span` is in bytes of `text`.
    pub(crate) fn at(self, file: &Path, text: &str, span: Option<Range<usize>>) -> Self {
        let place = span.and_then(|span| Place::find(file, text, &span));
        Failure {
            place: Some(Box::new(place.unwrap_or_else(|| Place {
                file: plain(&file.display().to_string()),
                line: 0,
                column: 0,
                excerpt: None,
            }))),
            ..self
        }
    }

    /// What is wrong with a manifest of ours, with its place.
    pub(crate) fn manifest(file: &Path, text: &str, error: &manifest::Error) -> Self {
        let span = match error {
            manifest::Error::Syntax { span, .. } => span.map(|(start, length)| start..start + length),
            manifest::Error::Value { key, .. } => locate(text, &key.split('.').collect::<Vec<_>>()),
            _ => None,
        };
        Failure::of(Reason::InvalidManifest, error.to_string()).at(file, text, span)
    }
}

/// Bytes of a line that are shown; what is wrong further on is named by its place alone.
const MAX_EXCERPT: usize = 4 << 10;

impl Place {
    fn find(file: &Path, text: &str, span: &Range<usize>) -> Option<Self> {
        let before = text.get(..span.start)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text.get(start..)?.lines().next().unwrap_or_default();
        let column = text.get(start..span.start)?.chars().count();
        // A line of a megabyte shows nobody anything.
        let line = line.get(..line.floor_char_boundary(MAX_EXCERPT)).unwrap_or_default();
        let meant = text
            .get(span.clone())?
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        Some(Place {
            file: plain(&file.display().to_string()),
            line: before.matches('\n').count() + 1,
            column: column + 1,
            excerpt: (column < MAX_EXCERPT).then(|| (line.replace('\t', " "), meant.clamp(1, MAX_EXCERPT - column))),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) if place.line > 0 => write!(f, "{}:{}:{}: ", place.file, place.line, place.column)?,
            Some(place) => write!(f, "{}: ", place.file)?,
            None => {}
        }
        f.write_str(&plain(&self.message))?;
        if let Some(Place {
            line,
            column,
            excerpt: Some((text, meant)),
            ..
        }) = self.place.as_deref()
        {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let (skip, carets) = (" ".repeat(column - 1), "^".repeat(*meant));
            write!(f, "\n{margin} |\n{number} | {}\n{margin} | {skip}{carets}", plain(text))?;
        }
        if let Some(reason) = self.reason {
            write!(f, "\n  code: {reason}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {}", plain(next))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Text from elsewhere, fit for a terminal: control characters, those that turn the direction of writing and those that take up no room or look
/// like none are escaped, because a plugin or a file name must not be able to move the cursor or to hide what it says. Line feeds stay.
pub(crate) fn plain(text: &str) -> String {
    let hostile = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
    };
    text.chars()
        .flat_map(|c| {
            let escaped = hostile(c).then(|| c.escape_default());
            let kept = (!hostile(c)).then_some(c);
            escaped.into_iter().flatten().chain(kept)
        })
        .collect()
}

/// Where a key stands in a TOML text: the span of its last part, or of the deepest part that is there.
pub(crate) fn locate(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = document.into_inner();
    let mut found = None;
    for part in path {
        let entry = table.into_iter().find(|(key, _)| key.get_ref().as_ref() == *part);
        let Some((key, value)) = entry else { break };
        found = Some(key.span());
        match value.into_inner() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_error_shows_its_place_and_what_to_do() {
        let text = "[plugin]\nname = \"acme/x\"\nversion = \"1.0.0\"\nlicence = \"MIT\"\n";
        let error = manifest::Manifest::parse(text).unwrap_err();
        let failure = Failure::manifest(Path::new("skep.toml"), text, &error);
        assert_eq!(failure.exit, Exit::Invalid);
        let shown = failure.to_string();
        assert!(shown.starts_with("skep.toml:4:1: unknown field `licence`"), "{shown}");
        assert!(shown.contains("\n4 | licence = \"MIT\"\n  | ^^^^^^^\n"), "{shown}");
        assert!(shown.contains("code: invalid-manifest\n  next: "), "{shown}");
    }

    #[test]
    fn a_wrong_value_is_found_by_its_key() {
        let text = "[plugin]\nname = \"acme/x\"\nversion = \"1.0.0\"\n[wants]\nfiles = [\n  { mount = \"/a\", access = \"read\" },\n  { mount = \"/a\", access = \"read\" },\n]\n";
        let error = manifest::Manifest::parse(text).unwrap_err();
        let shown = Failure::manifest(Path::new("skep.toml"), text, &error).to_string();
        assert!(shown.starts_with("skep.toml:5:1: wants.files: "), "{shown}");
    }

    #[test]
    fn a_place_behind_wide_characters_and_at_the_end_is_found() {
        let place = Place::find(Path::new("f"), "é = ü", &(5..7)).unwrap();
        assert_eq!((place.line, place.column), (1, 5));
        let place = Place::find(Path::new("f"), "a\n", &(2..2)).unwrap();
        assert_eq!((place.line, place.column), (2, 1));
        assert!(
            Place::find(Path::new("f"), "é", &(1..1)).is_none(),
            "inside a character"
        );
    }

    #[test]
    fn hostile_text_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31m\u{202e}b\nc"), "a\\u{1b}[31m\\u{202e}b\nc");
        assert_eq!(plain("a\u{2060}b\u{e0041}\u{ad}"), "a\\u{2060}b\\u{e0041}\\u{ad}");
        assert_eq!(plain("äñ 漢字 😀"), "äñ 漢字 😀");
    }
}
