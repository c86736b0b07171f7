//! Children that a test ends, people whom it plays, time that passes at once.

use std::{collections::BTreeSet, panic};

use super::HOST;
use crate::{
    Payload,
    tasks::{Answer, Child, Decision, End, Ended, Error, Item, Mode, Request},
};

const MAX_AWAITED: usize = 1_000;
const MAX_ITEMS: usize = 32;
const MAX_ITEMS_BYTES: usize = 64 * 1024;
const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 4 * 1024;
const MONTH: u64 = 30 * 86_400_000;

/// A child that was spawned.
pub(super) struct Spawned {
    id: String,
    pub(super) child: Child,
    /// How it has ended, once it was awaited and has.
    end: Option<End>,
}

/// How a test ends the children.
pub(super) type Ends = Box<dyn FnMut(&Child) -> Option<End>>;

/// How a test decides what is asked.
pub(super) type Decides = Box<dyn FnMut(&Request, &Item) -> bool>;

/// How it answers what an agent cannot go on without.
pub(super) type Answers = Box<dyn FnMut(&str) -> Option<String>>;

/// What a run unwinds with when it goes on as another.
pub(super) struct Continued(pub(super) Payload);

pub(crate) fn spawn(child: &Child) -> Result<String, Error> {
    HOST.with_borrow_mut(|host| {
        let id = format!("task_{}", host.children.len() + 1);
        host.children.push(Spawned {
            id: id.clone(),
            child: child.clone(),
            end: None,
        });
        Ok(id)
    })
}

pub(crate) fn await_(tasks: &[String], mode: Mode, timeout: Option<u64>) -> Result<Vec<Ended>, Error> {
    if tasks.is_empty() || tasks.len() > MAX_AWAITED {
        return Err(Error::InvalidInput);
    }
    let mut ended = Vec::new();
    for task in tasks {
        if let Some(end) = end_of(task)? {
            let task = task.clone();
            ended.push(Ended { task, end });
        }
    }
    let enough = match mode {
        Mode::Any => !ended.is_empty(),
        Mode::All => ended.len() == tasks.len(),
    };
    assert!(
        enough || timeout.is_some(),
        "the agent would wait for ever: say with `double::end_children` how its children end"
    );
    Ok(ended)
}

/// How a child has ended, if it has. Asked until it has, and never again.
fn end_of(task: &str) -> Result<Option<End>, Error> {
    let place = |host: &super::Host| host.children.iter().position(|spawned| spawned.id == task);
    let place = HOST.with_borrow(place).ok_or(Error::NotFound)?;
    let (child, known, ends) = HOST.with_borrow_mut(|host| {
        let spawned = host.children.get(place);
        let child = spawned.map(|spawned| spawned.child.clone());
        let known = spawned.and_then(|spawned| spawned.end.clone());
        // Taken out while it is asked: it may itself look at this double.
        (child, known, host.ends.take())
    });
    let Some(mut ends) = ends else {
        return Ok(known);
    };
    let end = known.or_else(|| ends(&child?));
    HOST.with_borrow_mut(|host| {
        host.ends.get_or_insert(ends);
        if let Some(spawned) = host.children.get_mut(place) {
            spawned.end.clone_from(&end);
        }
    });
    Ok(end)
}

pub(crate) fn sleep_until(time: u64) -> Result<(), Error> {
    HOST.with_borrow_mut(|host| host.sleeps.push(time));
    Ok(())
}

pub(crate) fn continue_(input: &Payload) -> Error {
    panic::resume_unwind(Box::new(Continued(input.clone())))
}

pub(crate) fn ask_approval(request: &Request) -> Result<Vec<Decision>, Error> {
    let names: BTreeSet<&str> = request.items.iter().map(|item| item.name.as_str()).collect();
    let bytes: usize = request
        .items
        .iter()
        .map(|item| item.name.len() + item.arguments.len())
        .sum();
    let good = is_name(&request.action)
        && request.question.len() <= MAX_TEXT
        && (1..=MAX_ITEMS).contains(&request.items.len())
        && names.len() == request.items.len()
        && names.into_iter().all(is_name)
        && bytes <= MAX_ITEMS_BYTES
        && is_time(request.expires_in);
    if !good {
        return Err(Error::InvalidInput);
    }
    // Taken out while it is asked: it may itself look at this double.
    let decides = HOST.with_borrow_mut(|host| {
        host.requests.push(request.clone());
        host.decides.take()
    });
    let mut decides = decides.expect("nobody decides here: say with `double::decide` what a person would");
    let decide = |item: &Item| Decision {
        item: item.name.clone(),
        approved: decides(request, item),
        remark: String::new(),
    };
    let decided = request.items.iter().map(decide).collect();
    HOST.with_borrow_mut(|host| {
        host.decides.get_or_insert(decides);
    });
    Ok(decided)
}

pub(crate) fn raise_blocker(question: &str, expires: Option<u64>) -> Result<Answer, Error> {
    if question.is_empty() || question.len() > MAX_TEXT || !is_time(expires) {
        return Err(Error::InvalidInput);
    }
    let answers = HOST.with_borrow_mut(|host| {
        host.questions.push(question.to_owned());
        host.answers.take()
    });
    let mut answers = answers.expect("nobody answers here: say with `double::answer` what a person would");
    let answer = answers(question);
    HOST.with_borrow_mut(|host| {
        host.answers.get_or_insert(answers);
    });
    Ok(answer.map_or_else(|| Answer::Declined(String::new()), Answer::Answered))
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_time(expires: Option<u64>) -> bool {
    expires.is_none_or(|expires| (1_000..=MONTH).contains(&expires))
}
