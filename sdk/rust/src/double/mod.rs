//! Stand-ins for the host when an agent runs natively, in its author's unit tests.
//!
//! Each thread has a host of its own, so tests do not see each other. Artifacts live in memory; their digests are stable and unique but
//! not SHA-256. State lives in memory with its revisions; children are kept and end, and people decide and answer, as the test says; messages are
//! kept, and requests are answered as the test says; sleeping takes no time. Nothing is recorded:
//! whether an agent does the same again is for a host to say. Grants and quotas are not played; the sizes of blobs, pieces, keys and values are.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    panic,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    Payload,
    context::Identity,
    heartbeat::Directive,
    log::Level,
    messages::{Error, Letter},
    tasks::{Child, End, Item, Request, present},
};

pub(crate) mod messages;
pub(crate) mod state;
pub(crate) mod tasks;

/// A log line that the agent wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// How important it is.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// Its named fields.
    pub fields: Vec<(String, String)>,
}

struct Host {
    lines: Vec<Line>,
    beats: Vec<Option<u8>>,
    directive: Directive,
    identity: Identity,
    blobs: BTreeMap<String, Vec<u8>>,
    state: BTreeMap<String, state::Record>,
    children: Vec<tasks::Spawned>,
    ends: Option<tasks::Ends>,
    /// Milliseconds since 1970.
    sleeps: Vec<u64>,
    sent: Vec<Letter>,
    replies: Option<messages::Answers>,
    requests: Vec<Request>,
    decides: Option<tasks::Decides>,
    questions: Vec<String>,
    answers: Option<tasks::Answers>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host {
        lines: Vec::new(),
        beats: Vec::new(),
        directive: Directive::Continue,
        identity: Identity {
            agent: "agent_0".into(),
            name: "agent-1".into(),
            crew: "crew_0".into(),
            task: "task_0".into(),
            attempt: 1,
        },
        blobs: BTreeMap::new(),
        state: BTreeMap::new(),
        children: Vec::new(),
        ends: None,
        sleeps: Vec::new(),
        sent: Vec::new(),
        replies: None,
        requests: Vec::new(),
        decides: None,
        questions: Vec::new(),
        answers: None,
    });
}

/// The log lines of this thread so far.
pub fn lines() -> Vec<Line> {
    HOST.with_borrow(|host| host.lines.clone())
}

/// The heartbeats of this thread so far.
pub fn beats() -> Vec<Option<u8>> {
    HOST.with_borrow(|host| host.beats.clone())
}

/// What the next heartbeats of this thread are answered with; [`Directive::Continue`] until then.
pub fn direct(directive: Directive) {
    HOST.with_borrow_mut(|host| host.directive = directive);
}

/// Who this thread is from now on.
pub fn identify(identity: Identity) {
    HOST.with_borrow_mut(|host| host.identity = identity);
}

/// The children that this thread has spawned so far, the first one first.
pub fn children() -> Vec<Child> {
    HOST.with_borrow(|host| host.children.iter().map(|spawned| spawned.child.clone()).collect())
}

/// How the children of this thread end from now on; `None` for one that has not ended, about which the next wait asks again. Until this is called none
/// ends, and only waits with a timeout return.
pub fn end_children(ends: impl FnMut(&Child) -> Option<End> + 'static) {
    HOST.with_borrow_mut(|host| host.ends = Some(Box::new(ends)));
}

/// The letters that this thread has sent so far, requests aside, the first one first.
pub fn sent() -> Vec<Letter> {
    HOST.with_borrow(|host| host.sent.clone())
}

/// How requests of this thread are answered from now on. Until this is called nobody listens.
pub fn answer_requests(answers: impl FnMut(&Letter) -> Result<Payload, Error> + 'static) {
    HOST.with_borrow_mut(|host| host.replies = Some(Box::new(answers)));
}

/// The times until which this thread has slept so far.
pub fn sleeps() -> Vec<SystemTime> {
    let time = |since: &u64| UNIX_EPOCH + Duration::from_millis(*since);
    HOST.with_borrow(|host| host.sleeps.iter().map(time).collect())
}

/// What people have been asked to approve on this thread so far.
pub fn requests() -> Vec<Request> {
    HOST.with_borrow(|host| host.requests.clone())
}

/// What people decide on this thread from now on, item by item. Until this is called nobody does, and asking fails the test.
pub fn decide(decides: impl FnMut(&Request, &Item) -> bool + 'static) {
    HOST.with_borrow_mut(|host| host.decides = Some(Box::new(decides)));
}

/// The blockers that were raised on this thread so far.
pub fn questions() -> Vec<String> {
    HOST.with_borrow(|host| host.questions.clone())
}

/// What people answer on this thread from now on; `None` declines. Until this is called nobody does, and raising a blocker fails the test.
pub fn answer(answers: impl FnMut(&str) -> Option<String> + 'static) {
    HOST.with_borrow_mut(|host| host.answers = Some(Box::new(answers)));
}

/// Runs a part of an agent that may end in [`continue_with`](crate::tasks::continue_with): what it returned, or the input of the next run.
///
/// # Errors
/// The input of the next run, when it goes on as another.
pub fn continued<T>(run: impl FnOnce() -> T) -> Result<T, Payload> {
    panic::catch_unwind(panic::AssertUnwindSafe(run)).map_err(|unwound| match unwound.downcast() {
        Ok(continued) => {
            let tasks::Continued(input) = *continued;
            input
        }
        Err(panicked) => panic::resume_unwind(panicked),
    })
}

/// The present, in milliseconds since 1970.
fn milliseconds() -> u64 {
    let since = present().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) mod log {
    use super::{HOST, Level, Line};

    pub(crate) fn write(level: Level, message: &str, fields: &[(String, String)]) {
        let line = Line {
            level,
            message: message.into(),
            fields: fields.to_vec(),
        };
        HOST.with_borrow_mut(|host| host.lines.push(line));
    }
}

pub(crate) mod heartbeat {
    use super::{Directive, HOST};

    pub(crate) fn beat(percent: Option<u8>) -> Directive {
        HOST.with_borrow_mut(|host| {
            host.beats.push(percent);
            host.directive
        })
    }
}

pub(crate) mod context {
    use super::{HOST, Identity};

    pub(crate) fn current() -> Identity {
        HOST.with_borrow(|host| host.identity.clone())
    }
}

pub(crate) mod artifacts {
    use std::{
        cell::RefCell,
        hash::{DefaultHasher, Hash, Hasher},
    };

    use super::HOST;
    use crate::{Artifact, artifacts::Error};

    const MAX_BLOB: usize = 10 * 1024 * 1024;
    const MAX_PIECE: usize = 1024 * 1024 - 1;

    #[derive(Debug)]
    pub(crate) struct Writer {
        media: String,
        bytes: RefCell<Vec<u8>>,
    }

    impl Writer {
        pub(crate) fn new(media: &str) -> Writer {
            Writer {
                media: media.into(),
                bytes: RefCell::new(Vec::new()),
            }
        }

        pub(crate) fn write(&self, piece: &[u8]) -> Result<(), Error> {
            let mut bytes = self.bytes.borrow_mut();
            if piece.len() > MAX_PIECE {
                return Err(Error::InvalidInput);
            }
            if bytes.len() + piece.len() > MAX_BLOB {
                return Err(Error::QuotaExceeded);
            }
            bytes.extend_from_slice(piece);
            Ok(())
        }

        pub(crate) fn finish(writer: Writer) -> Result<Artifact, Error> {
            let bytes = writer.bytes.into_inner();
            let digest = digest(&bytes);
            let artifact = Artifact {
                digest: digest.clone(),
                size: bytes.len() as u64,
                media: writer.media,
            };
            HOST.with_borrow_mut(|host| host.blobs.insert(digest, bytes));
            Ok(artifact)
        }
    }

    pub(crate) fn read(digest: &str, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        HOST.with_borrow(|host| {
            let blob = host.blobs.get(digest).ok_or(Error::NotFound)?;
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|offset| blob.get(offset..))
                .unwrap_or_default();
            let length = usize::try_from(length)
                .unwrap_or(MAX_PIECE)
                .min(MAX_PIECE)
                .min(rest.len());
            Ok(rest.iter().take(length).copied().collect())
        })
    }

    /// 64 hexadecimal digits that depend on every byte.
    fn digest(bytes: &[u8]) -> String {
        (0u8..4)
            .map(|salt| {
                let mut hasher = DefaultHasher::new();
                (salt, bytes).hash(&mut hasher);
                format!("{:016x}", hasher.finish())
            })
            .collect()
    }
}
