//! A task as a document says it, before all documents are read: names may be missing, and what it waits for may not be there.

use std::ops::Range;

use skep_sdk::{ApprovalPoint, Priority, RetryPolicy, Timeouts};

use crate::document::Mistake;

/// The most retries that the host takes.
pub(crate) const MAX_RETRIES: u32 = 100;

/// A word of a document, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) place: Range<usize>,
}

/// A task to be.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Where it is said.
    pub(crate) place: Range<usize>,
    /// Made of the description when absent.
    pub(crate) name: Option<Word>,
    pub(crate) description: String,
    /// Its box is checked: it is no task of the plan, and nobody waits for it.
    pub(crate) is_done: bool,
    /// Those that it joins, by their index in the document.
    pub(crate) parts: Vec<usize>,
    pub(crate) roles: Vec<Word>,
    pub(crate) after: Vec<Word>,
    /// JSON.
    pub(crate) input: Option<Word>,
    pub(crate) check: bool,
    pub(crate) optional: bool,
    pub(crate) integrates: bool,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeouts: Timeouts,
    pub(crate) plan: bool,
    pub(crate) lane: Option<Word>,
    pub(crate) priority: Option<Priority>,
    pub(crate) approval: Option<ApprovalPoint>,
    pub(crate) note: Option<Word>,
    /// A JSON Schema.
    pub(crate) output: Option<String>,
    pub(crate) slots: Vec<Slot>,
}

/// A field that is the output of another task.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) field: String,
    pub(crate) node: Word,
    /// A JSON Schema.
    pub(crate) schema: Option<String>,
}

/// What a document holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) drafts: Vec<Draft>,
    /// Headings, as tasks without a name are named, and the tasks beneath each.
    pub(crate) phases: Vec<(String, Vec<usize>)>,
    pub(crate) verify_before_next: bool,
}

impl Draft {
    pub(crate) fn new(place: Range<usize>) -> Draft {
        Draft {
            place,
            name: None,
            description: String::new(),
            is_done: false,
            parts: Vec::new(),
            roles: Vec::new(),
            after: Vec::new(),
            input: None,
            check: false,
            optional: false,
            integrates: false,
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            plan: false,
            lane: None,
            priority: None,
            approval: None,
            note: None,
            output: None,
            slots: Vec::new(),
        }
    }
}

impl Word {
    pub(crate) fn priority(&self) -> Result<Priority, Mistake> {
        match self.text.as_str() {
            "low" => Ok(Priority::Low),
            "medium" => Ok(Priority::Medium),
            "high" => Ok(Priority::High),
            "critical" => Ok(Priority::Critical),
            _ => Err(self.mistake("a priority is `low`, `medium`, `high` or `critical`")),
        }
    }

    pub(crate) fn approval(&self) -> Result<ApprovalPoint, Mistake> {
        match self.text.as_str() {
            "before" => Ok(ApprovalPoint::Before),
            "after" => Ok(ApprovalPoint::After),
            _ => Err(self.mistake("a person approves `before` the task runs, or its result `after`")),
        }
    }

    pub(crate) fn retries(&self) -> Result<u32, Mistake> {
        let number = self.text.parse().ok().filter(|number| *number <= MAX_RETRIES);
        number.ok_or_else(|| self.mistake(format!("a task may be tried again 0 to {MAX_RETRIES} times")))
    }

    /// A duration, in milliseconds.
    pub(crate) fn duration(&self) -> Result<u64, Mistake> {
        let units = [
            ("ms", 1),
            ("s", 1_000),
            ("m", 60_000),
            ("min", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        let unit = self.text.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.text.len());
        let (number, unit) = self.text.split_at(unit);
        let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let millis = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        millis
            .filter(|millis| *millis > 0)
            .ok_or_else(|| self.mistake("a duration is a whole number, not 0, of `ms`, `s`, `m`, `h` or `d`: `30s`"))
    }

    /// Something is wrong with this word.
    pub(crate) fn mistake(&self, message: impl Into<String>) -> Mistake {
        Mistake::new(message, self.place.clone())
    }
}

/// Whether nodes and lanes may be called so.
pub(crate) fn is_name(text: &str) -> bool {
    is_word(text, "_./")
}

/// Whether roles may be called so.
pub(crate) fn is_role(text: &str) -> bool {
    is_word(text, "_.=")
}

fn is_word(text: &str, more: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=64).contains(&text.len())
        && text.chars().all(|c| plain(c) || c == '-' || more.contains(c))
        && text.starts_with(plain)
        && text.ends_with(plain)
}

/// A description as a name; leaves room for a number behind it.
pub(crate) fn slug(description: &str) -> String {
    const MOST: usize = 48;
    let mut slug = String::new();
    for c in description.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= MOST {
            break;
        }
    }
    match slug.trim_end_matches('-') {
        "" => "task".to_owned(),
        slug => slug.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_names() {
        for (description, expected) in [
            ("Write the notes", "write-the-notes"),
            ("  `cargo test` (all)!", "cargo-test-all"),
            ("日本語", "task"),
            ("", "task"),
        ] {
            assert_eq!(slug(description), expected);
        }
        let long = slug(&"word ".repeat(100));
        assert!(is_name(&long) && long.len() <= 48, "{long}");
    }

    #[test]
    fn names_and_roles_differ() {
        for name in ["a", "scan/0001", "a.b_c-d"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", "-a", "a-", "A", "a b", "a=b", "ä", &long] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_role("zone=eu") && !is_role("a/b"));
    }
}
