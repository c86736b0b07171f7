//! Messages that are kept, and answers that a test gives.

use super::HOST;
use crate::{
    MessageKind, Payload,
    messages::{Error, Letter},
};

const MAX_SUBJECT: usize = 256;
const MAX_NAMES: usize = 16;

/// How a test answers requests.
pub(super) type Answers = Box<dyn FnMut(&Letter) -> Result<Payload, Error>>;

pub(crate) fn send(letter: &Letter) -> Result<String, Error> {
    if letter.kind == MessageKind::Query || !is_subject(&letter.subject) {
        return Err(Error::InvalidInput);
    }
    HOST.with_borrow_mut(|host| {
        host.sent.push(letter.clone());
        Ok(format!("message_{}", host.sent.len()))
    })
}

pub(crate) fn request(letter: &Letter) -> Result<Payload, Error> {
    if !is_subject(&letter.subject) {
        return Err(Error::InvalidInput);
    }
    // Taken out while it is asked: it may itself look at this double.
    let Some(mut answers) = HOST.with_borrow_mut(|host| host.replies.take()) else {
        return Err(Error::NoListener);
    };
    let answer = answers(letter);
    HOST.with_borrow_mut(|host| {
        host.replies.get_or_insert(answers);
    });
    answer
}

fn is_subject(text: &str) -> bool {
    let word = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= MAX_SUBJECT && text.split('.').count() <= MAX_NAMES && text.split('.').all(word)
}
