//! What is wrong with an output, in bounds: the host cuts a remark at 4 KiB, and an output may be wrong in a thousand places.

use serde_json::Value;

/// The most places that one remark names.
const MOST: usize = 8;
/// The most bytes that are said of one place.
const MOST_BYTES: usize = 400;
/// The most bytes that are shown of one value.
const VALUE_BYTES: usize = 120;

/// What is wrong with an output.
#[derive(Default)]
pub(crate) struct Remarks {
    lines: Vec<String>,
    left_out: bool,
}

impl Remarks {
    pub(crate) fn is_full(&self) -> bool {
        self.lines.len() >= MOST
    }

    pub(crate) fn add(&mut self, line: String) {
        if self.is_full() {
            self.left_out = true;
        } else {
            self.lines.push(cut(line, MOST_BYTES));
        }
    }

    /// All of it, a line for each place; nothing where nothing is wrong.
    pub(crate) fn into_text(mut self) -> Option<String> {
        if self.left_out {
            self.lines.push("and more".to_owned());
        }
        Some(self.lines.join("\n")).filter(|text| !text.is_empty())
    }
}

/// A value, short enough to be shown.
pub(crate) fn shown(value: &Value) -> String {
    cut(value.to_string(), VALUE_BYTES)
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}
