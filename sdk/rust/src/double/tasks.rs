//! Children that a test ends, time that passes at once.

use std::panic;

use super::HOST;
use crate::{
    Payload,
    tasks::{Child, End, Ended, Error, Mode},
};

const MAX_AWAITED: usize = 1_000;

/// A child that was spawned.
pub(super) struct Spawned {
    id: String,
    pub(super) child: Child,
    /// How it has ended, once it was awaited and has.
    end: Option<End>,
}

/// How a test ends the children.
pub(super) type Ends = Box<dyn FnMut(&Child) -> Option<End>>;

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
