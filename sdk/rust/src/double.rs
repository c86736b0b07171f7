//! Stand-ins for the host when an agent runs natively, in its author's unit tests.
//!
//! Each thread has a host of its own, so tests do not see each other. Artifacts live in memory; their digests are stable and unique but
//! not SHA-256. Grants and quotas are not played; 10 MiB and 1 MiB are.

use std::{cell::RefCell, collections::BTreeMap};

use crate::{context::Identity, heartbeat::Directive, log::Level};

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
