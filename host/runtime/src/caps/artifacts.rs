//! `skep:agent/artifacts`: gives an agent the blobs of its crew, in pieces of less than 1 MiB. Granted by `artifacts` with a size, the most that one
//! attempt may write. Refused: writing more than that or more than 10 MiB at once, more than four writers at a time, digests and media types that are
//! none, blobs of other crews (they are not found), and everything once the grant was taken back. Storing and reading are steps, which the host records
//! itself: what was stored is not stored again, and what was read is read again, because its digest says what it is.

use skep_rules::{
    capability::Capability,
    grant::Effective,
    id::Digest,
    limits::{MAX_ARTIFACT_BYTES, MAX_MEDIA_BYTES, MAX_PIECE_BYTES, MAX_WRITERS},
    plan,
    reason::Reason,
    seam::{HostCall, HostReply},
    step::{StepCall, StepResult},
};
use wasmtime::component::{HasSelf, Linker, Resource};

use super::stepped::Stepped;
use crate::{
    bindings::{
        artifacts::{self, Error},
        types::Artifact,
    },
    control::Halt,
    meter::Stop,
    outcome::Fault,
    steps::Unrecorded,
};

/// What one attempt may still do.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// Bytes that it may still write. Taken when a piece comes in: a writer that is dropped gives nothing back, because its bytes were moved.
    left: u64,
    /// Writers that are open.
    writers: usize,
}

/// A blob being written.
#[derive(Debug)]
#[expect(
    unreachable_pub,
    reason = "the generated bindings export it again, which takes a public type"
)]
pub struct Writer {
    media: String,
    bytes: Vec<u8>,
    /// What was wrong from the start: a constructor cannot say it.
    flaw: Option<Error>,
}

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<crate::ctx::Ctx>) -> wasmtime::Result<()> {
    artifacts::add_to_linker::<crate::ctx::Ctx, HasSelf<crate::ctx::Ctx>>(linker, |ctx| ctx)?;
    let mut stepped = Stepped::new(linker, "skep:agent/artifacts@0.1.0", |ctx| &mut ctx.base);
    stepped.waiting("read", |ctx, (digest, offset, length)| {
        Box::pin(async move { Ok((artifacts::Host::read(ctx, digest, offset, length).await?,)) })
    })?;
    stepped.waiting("[static]writer.finish", |ctx, (writer,)| {
        Box::pin(async move { Ok((artifacts::HostWriter::finish(ctx, writer).await?,)) })
    })
}

/// What an attempt under these grants may do.
pub(crate) fn build(effective: &Effective) -> Ctx {
    Ctx {
        left: effective.artifacts.0,
        writers: 0,
    }
}

impl crate::ctx::Ctx {
    fn refuse(&self, error: Error, what: &str) -> Error {
        self.base.denials.note(reason(error), what);
        error
    }

    /// A refusal of the host, as the guest is told it: the interface has no word for a record that is full, nor for a lease that is over.
    fn unless_full<T>(&self, reason: Reason) -> wasmtime::Result<Result<T, Error>> {
        match reason {
            Reason::RecordFull => Err(Stop::new(reason, reason.means()).into()),
            Reason::Fenced if self.base.steps.are_kept() => {
                self.control.halt(Halt::Fenced);
                Err(Stop::new(reason, reason.means()).into())
            }
            Reason::Overloaded | Reason::Interrupted | Reason::HostFault if self.base.steps.are_kept() => {
                Err(Unrecorded(reason).into())
            }
            reason => Ok(Err(error(reason))),
        }
    }

    /// Takes a piece in, within the grant.
    fn append(&mut self, writer: &Resource<Writer>, piece: &[u8]) -> wasmtime::Result<Result<(), Error>> {
        let writer = self.base.table.get_mut(writer)?;
        let (more, size) = (piece.len() as u64, writer.bytes.len() as u64 + piece.len() as u64);
        Ok(match writer.flaw {
            Some(flaw) => Err(flaw),
            None if piece.len() > MAX_PIECE_BYTES => Err(Error::InvalidInput),
            None if more > self.artifacts.left || size > MAX_ARTIFACT_BYTES => Err(Error::QuotaExceeded),
            None => {
                self.limiter.lend(more)?;
                self.artifacts.left -= more;
                writer.bytes.extend_from_slice(piece);
                Ok(())
            }
        })
    }
}

impl artifacts::Host for crate::ctx::Ctx {
    async fn read(&mut self, digest: String, offset: u64, length: u32) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let most = u32::try_from(MAX_PIECE_BYTES).unwrap_or(u32::MAX);
        let length = length.min(most);
        if !self.cross(Capability::Artifacts, length as usize)? {
            return Ok(Err(self.refuse(Error::CapabilityDenied, "artifacts.read")));
        }
        let Ok(digest) = digest.parse::<Digest>() else {
            return Ok(Err(Error::InvalidInput));
        };
        let steps = self.base.steps.clone();
        let given = steps.given(|| StepCall::ReadArtifact {
            digest,
            offset,
            length,
            refused: None,
        })?;
        if let Some(StepResult::Refused { reason, .. }) = given {
            return Ok(Err(error(reason)));
        }
        let step = if given.is_none() { steps.number() } else { None };
        let call = HostCall::ReadArtifact {
            lease: self.control.lease(),
            step,
            digest,
            offset,
            length,
        };
        let reply = self.host.call(call).await;
        steps.passed(step)?;
        match reply {
            HostReply::Bytes(bytes) => Ok(Ok(bytes)),
            HostReply::Refused(reason) if given.is_some() => {
                let message =
                    format!("the artifact {digest}, which the record says was read, cannot be read again: {reason}");
                Err(Fault(message).into())
            }
            HostReply::Refused(reason) => self.unless_full(reason),
            HostReply::Artifact(_) => Ok(Err(Error::Unavailable)),
        }
    }
}

impl artifacts::HostWriter for crate::ctx::Ctx {
    fn new(&mut self, media: String) -> wasmtime::Result<Resource<Writer>> {
        let held = self.cross(Capability::Artifacts, media.len())?;
        let flaw = if !held {
            Some(self.refuse(Error::CapabilityDenied, "artifacts.writer"))
        } else if !is_media(&media) {
            Some(Error::InvalidInput)
        } else if self.artifacts.writers >= MAX_WRITERS {
            Some(self.refuse(Error::QuotaExceeded, "artifacts.writer: more than 4 at a time"))
        } else {
            None
        };
        self.artifacts.writers += 1;
        let writer = Writer {
            media: if flaw.is_none() { media } else { String::new() },
            bytes: Vec::new(),
            flaw,
        };
        Ok(self.base.table.push(writer)?)
    }

    fn write(&mut self, writer: Resource<Writer>, bytes: Vec<u8>) -> wasmtime::Result<Result<(), Error>> {
        if !self.cross(Capability::Artifacts, bytes.len())? {
            return Ok(Err(self.refuse(Error::CapabilityDenied, "artifacts.write")));
        }
        let written = self.append(&writer, &bytes)?;
        if written == Err(Error::QuotaExceeded) {
            self.base.denials.note(Reason::QuotaExceeded, "artifacts.write");
        }
        Ok(written)
    }

    async fn finish(&mut self, writer: Resource<Writer>) -> wasmtime::Result<Result<Artifact, Error>> {
        let Writer { media, bytes, flaw } = self.base.table.delete(writer)?;
        self.artifacts.writers = self.artifacts.writers.saturating_sub(1);
        self.limiter.take_back(bytes.len() as u64);
        if !self.cross(Capability::Artifacts, bytes.len())? {
            return Ok(Err(self.refuse(Error::CapabilityDenied, "artifacts.finish")));
        }
        if let Some(flaw) = flaw {
            return Ok(Err(flaw));
        }
        let steps = self.base.steps.clone();
        let stored = || plan::Artifact {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            media: media.clone(),
        };
        match steps.given(|| StepCall::PutArtifact(stored()))? {
            Some(StepResult::Refused { reason, .. }) => return Ok(Err(error(reason))),
            Some(_) => return Ok(Ok(named(stored()))),
            None => {}
        }
        let step = steps.number();
        let call = HostCall::PutArtifact {
            lease: self.control.lease(),
            step,
            bytes,
            media,
        };
        let reply = self.host.call(call).await;
        steps.passed(step)?;
        match reply {
            HostReply::Artifact(artifact) => Ok(Ok(named(artifact))),
            HostReply::Refused(reason) => self.unless_full(reason),
            HostReply::Bytes(_) => Ok(Err(Error::Unavailable)),
        }
    }

    fn drop(&mut self, writer: Resource<Writer>) -> wasmtime::Result<()> {
        let dropped = self.base.table.delete(writer)?;
        self.limiter.take_back(dropped.bytes.len() as u64);
        self.artifacts.writers = self.artifacts.writers.saturating_sub(1);
        Ok(())
    }
}

fn named(artifact: plan::Artifact) -> Artifact {
    Artifact {
        digest: artifact.digest.to_string(),
        size: artifact.size,
        media: artifact.media,
    }
}

fn reason(error: Error) -> Reason {
    match error {
        Error::NotFound => Reason::NotFound,
        Error::QuotaExceeded => Reason::QuotaExceeded,
        Error::InvalidInput => Reason::InvalidInput,
        Error::CapabilityDenied => Reason::CapabilityDenied,
        Error::Unavailable => Reason::Overloaded,
    }
}

/// What a guest is told of a refusal; it never learns of troubles of the host.
fn error(reason: Reason) -> Error {
    [
        Error::NotFound,
        Error::QuotaExceeded,
        Error::InvalidInput,
        Error::CapabilityDenied,
    ]
    .into_iter()
    .find(|error| self::reason(*error) == reason)
    .unwrap_or(Error::Unavailable)
}

/// `type/subtype`, perhaps with parameters: printable ASCII only.
pub(crate) fn is_media(text: &str) -> bool {
    let good = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    text.len() <= MAX_MEDIA_BYTES && text.split_once('/').is_some_and(|(main, sub)| good(main) && good(sub))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_what_they_look_like() {
        for good in ["application/json", "text/plain; charset=utf-8", "x/y"] {
            assert!(is_media(good), "{good}");
        }
        for bad in [
            "",
            "json",
            "/x",
            "x/",
            "text/pl\nain",
            "t\u{e4}xt/plain",
            &format!("a/{}", "b".repeat(127)),
        ] {
            assert!(!is_media(bad), "{bad}");
        }
    }

    #[test]
    fn a_refusal_of_the_host_shows_as_what_it_means_or_as_unavailable() {
        assert_eq!(error(Reason::NotFound), Error::NotFound);
        assert_eq!(error(Reason::QuotaExceeded), Error::QuotaExceeded);
        assert_eq!(error(Reason::DataDirectory), Error::Unavailable);
    }
}
