//! Plan documents in Markdown. What is a list, a heading or a block is `pulldown-cmark`'s business; here is what they mean.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::{
    document::Mistake,
    draft::{Contents, Draft, Slot, Word, is_name, slug},
};

/// What a heading ends with where its document asks for small, verified steps.
const VERIFY: &str = "{verify-before-next}";

/// The tasks of a document.
pub(crate) fn read(text: &str) -> Result<Contents, Mistake> {
    let mut reader = Reader::default();
    for (event, place) in Parser::new_ext(text, Options::ENABLE_TASKLISTS).into_offset_iter() {
        reader.event(event, place)?;
    }
    Ok(reader.contents)
}

/// Text without its markup, which knows where each part of it stands.
#[derive(Default)]
struct Text {
    text: String,
    /// Where a part begins, here and in the document.
    parts: Vec<(usize, usize)>,
    /// It ends with code, in which braces are no attributes.
    ends_with_code: bool,
}

/// A list item that is open.
struct Item {
    place: Range<usize>,
    /// The state of its box.
    box_checked: Option<bool>,
    is_numbered: bool,
    /// What it says itself, until its first paragraph ends.
    text: Option<Text>,
    /// Its task, when the paragraph has ended.
    draft: Option<usize>,
}

#[derive(Default)]
struct Reader {
    contents: Contents,
    /// Whether each open list is numbered.
    lists: Vec<bool>,
    items: Vec<Item>,
    heading: Option<Text>,
    /// The block that is open, where it is the input of a task.
    input: Option<Text>,
    /// Phases that are open, outermost first, by their index.
    phases: Vec<(HeadingLevel, usize)>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>, place: Range<usize>) -> Result<(), Mistake> {
        match event {
            Event::Text(text) => self.text(&text, place.start, false),
            Event::Code(text) => self.text(&text, place.start + 1, true),
            Event::InlineHtml(text) => self.text(&text, place.start, false),
            Event::SoftBreak | Event::HardBreak => self.text(" ", place.start, false),
            Event::TaskListMarker(checked) => {
                if let Some(item) = self.items.last_mut() {
                    item.box_checked = Some(checked);
                }
            }
            Event::Start(tag) => self.start(tag, place)?,
            Event::End(tag) => self.end(tag, place)?,
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str, place: usize, is_code: bool) {
        let item = self.items.last_mut().and_then(|item| item.text.as_mut());
        if let Some(gathered) = self.input.as_mut().or(self.heading.as_mut()).or(item) {
            gathered.push(text, place, is_code);
        }
    }

    fn start(&mut self, tag: Tag<'_>, place: Range<usize>) -> Result<(), Mistake> {
        match tag {
            Tag::List(first) => {
                self.close_text()?;
                self.lists.push(first.is_some());
            }
            Tag::Item => self.items.push(Item {
                place,
                box_checked: None,
                is_numbered: self.lists.last().copied().unwrap_or_default(),
                text: Some(Text::default()),
                draft: None,
            }),
            Tag::CodeBlock(kind) => {
                self.close_text()?;
                let is_json =
                    matches!(&kind, CodeBlockKind::Fenced(info) if info.split_whitespace().next() == Some("json"));
                if is_json && self.items.last().is_some_and(|item| item.draft.is_some()) {
                    self.input = Some(Text::default());
                }
            }
            Tag::Heading { .. } if self.items.is_empty() => self.heading = Some(Text::default()),
            Tag::Heading { .. } | Tag::BlockQuote(_) | Tag::HtmlBlock => self.close_text()?,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, tag: TagEnd, place: Range<usize>) -> Result<(), Mistake> {
        match tag {
            TagEnd::Paragraph => self.close_text(),
            TagEnd::Item => {
                self.close_text()?;
                self.items.pop();
                Ok(())
            }
            TagEnd::List(_) => {
                self.lists.pop();
                Ok(())
            }
            TagEnd::CodeBlock => self.close_input(place),
            TagEnd::Heading(level) => {
                self.close_heading(level);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close_heading(&mut self, level: HeadingLevel) {
        let Some(heading) = self.heading.take() else { return };
        let text = heading.text.trim_end();
        let title = text.strip_suffix(VERIFY).filter(|_| !heading.ends_with_code);
        self.contents.verify_before_next |= title.is_some();
        while self.phases.pop_if(|(open, _)| *open >= level).is_some() {}
        self.phases.push((level, self.contents.phases.len()));
        self.contents.phases.push((slug(title.unwrap_or(text)), Vec::new()));
    }

    fn close_input(&mut self, place: Range<usize>) -> Result<(), Mistake> {
        let Some(input) = self.input.take() else { return Ok(()) };
        let draft = self.items.last().and_then(|item| item.draft);
        let Some(draft) = draft.and_then(|draft| self.contents.drafts.get_mut(draft)) else {
            return Ok(());
        };
        if draft.input.is_some() {
            return Err(Mistake::new("the task has an input already", place));
        }
        if let Err(mistake) = crate::json::any(&input.text) {
            return Err(Mistake::new(
                format!("the input is not JSON: {}", mistake.message),
                input.place(mistake.place),
            ));
        }
        draft.input = Some(Word {
            text: input.text,
            place,
        });
        Ok(())
    }

    /// What the innermost item says itself is over. Makes its task, if it is one.
    fn close_text(&mut self) -> Result<(), Mistake> {
        let Some(item) = self.items.last_mut() else {
            return Ok(());
        };
        let Some(text) = item.text.take() else { return Ok(()) };
        if item.box_checked.is_none() && !item.is_numbered {
            return Ok(());
        }
        let mut draft = draft(&text, &item.place)?;
        draft.is_done = item.box_checked == Some(true);
        let index = self.contents.drafts.len();
        item.draft = Some(index);
        let drafts = &mut self.contents.drafts;
        let mut around = self.items.iter().rev().skip(1).filter_map(|item| item.draft);
        // What is done joins nothing any more.
        let parent = around.find(|outer| drafts.get(*outer).is_some_and(|outer| !outer.is_done));
        match parent.and_then(|parent| drafts.get_mut(parent)) {
            Some(parent) => parent.parts.push(index),
            None => {
                for (_, phase) in &self.phases {
                    if let Some((_, members)) = self.contents.phases.get_mut(*phase) {
                        members.push(index);
                    }
                }
            }
        }
        drafts.push(draft);
        Ok(())
    }
}

impl Text {
    fn push(&mut self, text: &str, place: usize, is_code: bool) {
        self.parts.push((self.text.len(), place));
        self.text.push_str(text);
        self.ends_with_code = is_code;
    }

    /// Where a range of the text stands in the document.
    fn place(&self, range: Range<usize>) -> Range<usize> {
        let start = self.source(range.start);
        start
            ..self
                .source(range.end.saturating_sub(1))
                .saturating_add(1)
                .max(start + 1)
    }

    fn source(&self, offset: usize) -> usize {
        let part = self
            .parts
            .partition_point(|(here, _)| *here <= offset)
            .saturating_sub(1);
        self.parts.get(part).map_or(0, |(here, there)| there + (offset - here))
    }

    fn word(&self, range: Range<usize>) -> Word {
        Word {
            text: self.text.get(range.clone()).unwrap_or_default().to_owned(),
            place: self.place(range),
        }
    }
}

/// The task that an item says.
fn draft(text: &Text, item: &Range<usize>) -> Result<Draft, Mistake> {
    let (said, attributes) = split_attributes(text);
    let start = said.len() - said.trim_start().len();
    let said = said.trim();
    if said.is_empty() {
        return Err(Mistake::new("a task says what is to be done", item.clone()));
    }
    let mut draft = Draft::new(text.place(start..start + said.len()));
    said.clone_into(&mut draft.description);
    if let Some((name, description)) = said.split_once(':')
        && is_name(name)
        && (description.is_empty() || description.starts_with(' '))
    {
        draft.name = Some(text.word(start..start + name.len()));
        draft.description = match description.trim() {
            "" => name.to_owned(),
            description => description.to_owned(),
        };
    }
    if let Some(range) = attributes {
        for word in words(text, range, char::is_whitespace) {
            attribute(&mut draft, text, word)?;
        }
    }
    Ok(draft)
}

/// What is said, and where between braces the attributes are.
fn split_attributes(text: &Text) -> (&str, Option<Range<usize>>) {
    let said = text.text.trim_end();
    let braces = said
        .strip_suffix('}')
        .filter(|_| !text.ends_with_code)
        .and_then(|inner| Some((inner.rfind('{')?, inner.len())));
    match braces {
        Some((open, close)) => (said.get(..open).unwrap_or_default(), Some(open + 1..close)),
        None => (said, None),
    }
}

/// The words of a range.
fn words(text: &Text, range: Range<usize>, separates: impl Fn(char) -> bool) -> Vec<Range<usize>> {
    let whole = text.text.get(range.clone()).unwrap_or_default();
    let mut words = Vec::new();
    let mut start = 0;
    for word in whole.split(separates) {
        if !word.is_empty() {
            words.push(range.start + start..range.start + start + word.len());
        }
        // Separators are ASCII but for spaces of other scripts, so the next word is looked for.
        start += word.len();
        start += whole
            .get(start..)
            .and_then(|rest| rest.chars().next())
            .map_or(0, char::len_utf8);
    }
    words
}

fn attribute(draft: &mut Draft, text: &Text, range: Range<usize>) -> Result<(), Mistake> {
    let whole = text.word(range.clone());
    let (key, value) = match whole.text.split_once('=') {
        Some((key, value)) => (key, Some((value, range.end - value.len()..range.end))),
        None => (whole.text.as_str(), None),
    };
    let flag = match key {
        "check" => Some(&mut draft.check),
        "optional" => Some(&mut draft.optional),
        "integrates" => Some(&mut draft.integrates),
        "plan" => Some(&mut draft.plan),
        _ => None,
    };
    if let Some(flag) = flag {
        if value.is_some() {
            return Err(whole.mistake(format!("`{key}` takes no value")));
        }
        *flag = true;
        return Ok(());
    }
    let known = [
        "role", "after", "retries", "timeout", "within", "lane", "priority", "approval", "slots", "note",
    ];
    if !known.contains(&key) {
        return Err(whole.mistake(format!(
            "there is no attribute `{key}`; there are `check`, `optional`, `integrates`, `plan` and, with `=`, `{}`",
            known.join("`, `")
        )));
    }
    let Some((_, range)) = value.filter(|(value, _)| !value.is_empty()) else {
        return Err(whole.mistake(format!("`{key}` takes a value: `{key}=…`")));
    };
    let value = text.word(range.clone());
    let list = || words(text, range.clone(), |c| c == ',');
    match key {
        "role" => draft.roles.extend(list().into_iter().map(|range| text.word(range))),
        "after" => draft.after.extend(list().into_iter().map(|range| text.word(range))),
        "retries" => draft.retry.max_retries = Some(value.retries()?),
        "timeout" => draft.timeouts.start_to_close = Some(value.duration()?),
        "within" => draft.timeouts.schedule_to_close = Some(value.duration()?),
        "lane" => draft.lane = Some(value),
        "priority" => draft.priority = Some(value.priority()?),
        "approval" => draft.approval = Some(value.approval()?),
        "note" => draft.note = Some(value),
        _ => {
            for range in list() {
                draft.slots.push(slot(text, range)?);
            }
        }
    }
    Ok(())
}

fn slot(text: &Text, range: Range<usize>) -> Result<Slot, Mistake> {
    let whole = text.word(range.clone());
    match whole.text.split_once(':') {
        Some((field, node)) if !field.is_empty() && !node.is_empty() => Ok(Slot {
            field: field.to_owned(),
            node: text.word(range.end - node.len()..range.end),
            schema: None,
        }),
        _ => Err(whole.mistake("a slot is a field and the task whose output it takes: `slots=FIELD:TASK`")),
    }
}
