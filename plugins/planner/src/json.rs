//! Plan documents in JSON. Every name keeps its place, so that what is wrong with it can be shown.

use std::ops::Range;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use skep_sdk::{RetryPolicy, Timeouts};

use crate::{
    document::Mistake,
    draft::{Contents, Draft, Slot, Word},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Plan<'a> {
    #[serde(borrow)]
    nodes: Vec<&'a RawValue>,
    #[serde(default)]
    verify_before_next: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Node<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    description: Option<String>,
    #[serde(default)]
    roles: Vec<&'a RawValue>,
    input: Option<&'a RawValue>,
    #[serde(default)]
    dependencies: Vec<&'a RawValue>,
    #[serde(default)]
    check: bool,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    integrates: bool,
    retry: Option<&'a RawValue>,
    timeouts: Option<&'a RawValue>,
    #[serde(default)]
    plan: bool,
    lane: Option<&'a RawValue>,
    priority: Option<&'a RawValue>,
    approval: Option<&'a RawValue>,
    note: Option<&'a RawValue>,
    output: Option<&'a RawValue>,
    #[serde(default)]
    slots: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSlot<'a> {
    field: String,
    #[serde(borrow)]
    node: &'a RawValue,
    schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct JsonRetry<'a> {
    #[serde(borrow)]
    max_retries: Option<&'a RawValue>,
    initial_delay: Option<&'a RawValue>,
    factor: Option<f64>,
    max_delay: Option<&'a RawValue>,
    jitter_percent: Option<u32>,
    #[serde(default)]
    non_retryable: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct JsonTimeouts<'a> {
    #[serde(borrow)]
    schedule_to_start: Option<&'a RawValue>,
    start_to_close: Option<&'a RawValue>,
    schedule_to_close: Option<&'a RawValue>,
}

/// The tasks of a document.
pub(crate) fn read(text: &str) -> Result<Contents, Mistake> {
    let plan = if text.trim_start().starts_with('[') {
        Plan {
            nodes: parse(text, 0)?,
            verify_before_next: false,
        }
    } else {
        parse(text, 0)?
    };
    let source = Source(text);
    Ok(Contents {
        drafts: plan
            .nodes
            .into_iter()
            .map(|raw| source.draft(raw))
            .collect::<Result<_, _>>()?,
        phases: Vec::new(),
        verify_before_next: plan.verify_before_next,
    })
}

/// The text that raw values are parts of.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn place(&self, raw: &RawValue) -> Range<usize> {
        let start = (raw.get().as_ptr() as usize).saturating_sub(self.0.as_ptr() as usize);
        start..start + raw.get().len()
    }

    fn draft(&self, raw: &RawValue) -> Result<Draft, Mistake> {
        let place = self.place(raw);
        let node: Node<'_> = parse(raw.get(), place.start)?;
        let name = self.word(node.name)?;
        let slot = |raw: &RawValue| {
            let slot: JsonSlot<'_> = parse(raw.get(), self.place(raw).start)?;
            Ok(Slot {
                field: slot.field,
                node: self.word(slot.node)?,
                schema: slot.schema.map(|schema| schema.get().to_owned()),
            })
        };
        Ok(Draft {
            description: node.description.unwrap_or_else(|| name.text.clone()),
            name: Some(name),
            roles: self.words(&node.roles)?,
            after: self.words(&node.dependencies)?,
            input: node.input.map(|input| Word {
                text: input.get().to_owned(),
                place: self.place(input),
            }),
            check: node.check,
            optional: node.optional,
            integrates: node.integrates,
            retry: node.retry.map(|raw| self.retry(raw)).transpose()?.unwrap_or_default(),
            timeouts: node
                .timeouts
                .map(|raw| self.timeouts(raw))
                .transpose()?
                .unwrap_or_default(),
            plan: node.plan,
            lane: self.optional(node.lane)?,
            priority: self.optional(node.priority)?.map(|word| word.priority()).transpose()?,
            approval: self.optional(node.approval)?.map(|word| word.approval()).transpose()?,
            note: self.optional(node.note)?,
            output: node.output.map(|schema| schema.get().to_owned()),
            slots: node.slots.into_iter().map(slot).collect::<Result<_, _>>()?,
            ..Draft::new(place)
        })
    }

    fn retry(&self, raw: &RawValue) -> Result<RetryPolicy, Mistake> {
        let retry: JsonRetry<'_> = parse(raw.get(), self.place(raw).start)?;
        let most = retry.max_retries.map(|raw| {
            let (text, place) = (raw.get().to_owned(), self.place(raw));
            Word { text, place }.retries()
        });
        Ok(RetryPolicy {
            max_retries: most.transpose()?,
            initial_delay: self.duration(retry.initial_delay)?,
            factor_percent: retry.factor.map(hundredths),
            max_delay: self.duration(retry.max_delay)?,
            jitter_percent: retry.jitter_percent,
            non_retryable: retry.non_retryable,
        })
    }

    fn timeouts(&self, raw: &RawValue) -> Result<Timeouts, Mistake> {
        let timeouts: JsonTimeouts<'_> = parse(raw.get(), self.place(raw).start)?;
        Ok(Timeouts {
            schedule_to_start: self.duration(timeouts.schedule_to_start)?,
            start_to_close: self.duration(timeouts.start_to_close)?,
            schedule_to_close: self.duration(timeouts.schedule_to_close)?,
        })
    }

    fn duration(&self, raw: Option<&RawValue>) -> Result<Option<u64>, Mistake> {
        self.optional(raw)?.map(|word| word.duration()).transpose()
    }

    fn words(&self, raw: &[&RawValue]) -> Result<Vec<Word>, Mistake> {
        raw.iter().map(|raw| self.word(raw)).collect()
    }

    fn optional(&self, raw: Option<&RawValue>) -> Result<Option<Word>, Mistake> {
        raw.map(|raw| self.word(raw)).transpose()
    }

    fn word(&self, raw: &RawValue) -> Result<Word, Mistake> {
        let place = self.place(raw);
        let text = parse_owned(raw.get(), place.start)?;
        // Without the quotes.
        let place = place.start + 1..place.end.saturating_sub(1);
        Ok(Word { text, place })
    }
}

/// A factor in hundredths. What it may be is for the host to say.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is whole and between nought and a million"
)]
fn hundredths(factor: f64) -> u32 {
    (factor * 100.0).round().clamp(0.0, 1e6) as u32
}

fn parse_owned<T: DeserializeOwned>(text: &str, start: usize) -> Result<T, Mistake> {
    parse(text, start)
}

/// Reads a part of the document that begins at `start`.
fn parse<'a, T: Deserialize<'a>>(text: &'a str, start: usize) -> Result<T, Mistake> {
    serde_json::from_str(text).map_err(|error| {
        let place = place_of(text, &error);
        let message = error.to_string();
        // The place is shown.
        let message = message
            .rsplit_once(" at line ")
            .map_or(&*message, |(message, _)| message);
        Mistake::new(message, start + place.start..start + place.end)
    })
}

/// Where an error is: the character that it names, or the whole string that ends there, because shapes are judged when a value has been read.
fn place_of(text: &str, error: &serde_json::Error) -> Range<usize> {
    let lines = text.split_inclusive('\n');
    let line: usize = lines.take(error.line().saturating_sub(1)).map(str::len).sum();
    let last = text.floor_char_boundary(line + error.column().saturating_sub(1));
    let string = text.get(..last).and_then(|before| before.rfind('"'));
    match string {
        Some(first) if error.is_data() && text.as_bytes().get(last) == Some(&b'"') => first..last + 1,
        _ => last..last + 1,
    }
}

/// Whether a text is JSON.
pub(crate) fn any(text: &str) -> Result<(), Mistake> {
    parse::<serde::de::IgnoredAny>(text, 0).map(|_| ())
}
