//! The two directions between the shard and the runner: what the runner tells becomes commands, what a guest asks is answered from the store.
//! The other direction, effects to runner commands, is `Driver::perform`.

use std::{
    pin::Pin,
    sync::{Arc, Weak, atomic::Ordering},
};

use minicbor::{Decode, Encode};
use skep_rules::{
    command::{Command, children_of},
    id::{AgentId, CrewId, Digest, TaskId},
    limits::{MAX_ARTIFACT_BYTES, MAX_COMPONENT_BYTES, MAX_MEDIA_BYTES, MAX_PIECE_BYTES, MAX_STORED_LOG_BYTES},
    plan::{Artifact, Outcome, Payload},
    quantity::Time,
    reason::Reason,
    seam::{End, HostCall, HostReply, Lease, LogLine, RunnerEvent, StepReply},
    step::{Recorded, StepCall},
};
use skep_store::Write;

use crate::driver::{Driver, Error, LOGS, SHARD, decode, encode};

/// The driver as a runner sees it. Weak, so that the two do not keep each other alive.
#[derive(Debug)]
pub(crate) struct Side(pub(crate) Weak<Driver>);

impl skep_runtime::Host for Side {
    fn event(&self, event: RunnerEvent) {
        let Some(driver) = self.0.upgrade() else {
            return;
        };
        match take(&driver, event) {
            Ok(()) | Err(Error::Stopping | Error::Failed(_)) => {}
            Err(error) => tracing::error!(%error, "an event of the runner was lost"),
        }
    }

    fn component(&self, digest: Digest) -> std::io::Result<Vec<u8>> {
        let driver = self
            .0
            .upgrade()
            .ok_or_else(|| std::io::Error::other("the host is stopping"))?;
        let length = usize::try_from(MAX_COMPONENT_BYTES).unwrap_or(usize::MAX);
        let bytes = driver.store.blobs().read(blob(digest), 0, length);
        bytes.map_err(std::io::Error::other)
    }

    fn step(&self, lease: Lease, number: u64, call: StepCall) -> StepReply {
        let Some(driver) = self.0.upgrade() else {
            return StepReply::Refused(Reason::Interrupted);
        };
        let taken = step(&driver, lease, number, call);
        taken.unwrap_or_else(|error| StepReply::Refused(refusal(&error)))
    }

    fn record(&self, lease: Lease, from: u64) -> Result<Vec<Recorded>, Reason> {
        let driver = self.0.upgrade().ok_or(Reason::Interrupted)?;
        driver.record(lease, from).unwrap_or_else(|error| Err(refusal(&error)))
    }

    fn call(&self, call: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        let driver = self.0.clone();
        Box::pin(async move {
            let Some(driver) = driver.upgrade() else {
                return HostReply::Refused(Reason::Interrupted);
            };
            // Blobs are files: a guest's thread does not wait for the disk, the blocking threads do.
            let work = {
                let driver = Arc::clone(&driver);
                move || answer(&driver, call)
            };
            let answered = driver.blocking.spawn_blocking_on(work, &driver.runtime).await;
            answered.unwrap_or(HostReply::Refused(Reason::HostFault))
        })
    }
}

/// What the runner tells, as a command.
fn take(driver: &Driver, event: RunnerEvent) -> Result<(), Error> {
    let (command, writes) = match event {
        RunnerEvent::Beats { beats } => return driver.beats(&beats),
        RunnerEvent::Lines { frames } => return driver.keep_lines(frames),
        RunnerEvent::Warmed { agent, generation } => (Command::Warmed { agent, generation }, Vec::new()),
        RunnerEvent::WarmFailed {
            agent,
            generation,
            reason,
            message,
        } => {
            tracing::warn!(%agent, %reason, message, "an agent cannot be made ready");
            let command = Command::WarmFailed {
                agent,
                generation,
                reason,
                message,
            };
            (command, Vec::new())
        }
        RunnerEvent::CacheRefused { digest, why } => (Command::CacheRefused { digest, why }, Vec::new()),
        RunnerEvent::Started { lease } => (Command::AttemptStarted { lease }, Vec::new()),
        RunnerEvent::Evicted { lease, usage, denials } => {
            (Command::AttemptEvicted { lease, usage, denials }, Vec::new())
        }
        RunnerEvent::Ended {
            lease,
            end,
            usage,
            denials,
            log,
        } => {
            if let End::HostFault { message } = &end {
                tracing::error!(task = %lease.task, agent = %lease.agent, message, "an attempt ended by a fault of the host");
            }
            let end = known(driver, lease, end)?;
            let mut writes = StoredLog::of(lease, &end, driver.clock.now(), log);
            // Of an ephemeral task nothing is written.
            if writes.is_some() && driver.read(|state| state.is_ephemeral(lease.task))?.0 {
                writes = None;
            }
            let command = Command::AttemptEnded {
                lease,
                end,
                usage,
                denials,
                children: Vec::new(),
            };
            (command, writes.into_iter().collect())
        }
    };
    let decided = driver.decide(writes, |_, draw, now| {
        let mut command = command;
        if let Command::AttemptEnded { end, children, .. } = &mut command {
            for _ in 0..children_of(end) {
                children.push(TaskId::new(draw.uuid(now)?, SHARD));
            }
        }
        Ok(command)
    });
    decided.map(drop)
}

/// What a guest is told of an error.
fn refusal(error: &Error) -> Reason {
    match error {
        Error::Rejected(rejection) => rejection.reason,
        Error::Stopping | Error::Failed(_) => Reason::Interrupted,
        Error::Store(_) | Error::File(_) | Error::Randomness(_) | Error::Undecodable(_) => {
            tracing::error!(%error, "a host call failed");
            Reason::HostFault
        }
    }
}

/// Takes a step. A child or a message with an artifact that the crew does not have, as the agent says it is, is refused on record.
fn step(driver: &Driver, lease: Lease, number: u64, call: StepCall) -> Result<StepReply, Error> {
    let given = match &call {
        StepCall::Spawn(child) => Some(&child.input),
        StepCall::Send(letter) | StepCall::Request(letter) => Some(&letter.body),
        _ => None,
    };
    let ids = match given {
        None => call.makes(),
        Some(Payload::Inline(_)) => true,
        Some(Payload::Artifact(named)) => match crew_of(driver, lease)? {
            Some(crew) => artifact(driver, crew, named.digest)?.as_ref() == Some(named),
            // The decision says that it is fenced, and tells of it.
            None => false,
        },
    };
    driver.step(lease, number, call, ids)
}

/// Answers a guest's call.
fn answer(driver: &Driver, call: HostCall) -> HostReply {
    let answered = match call {
        HostCall::PutArtifact {
            lease,
            bytes,
            media,
            step,
        } => put_artifact(driver, lease, step, &bytes, media),
        HostCall::ReadArtifact {
            lease,
            digest,
            offset,
            length,
            step,
        } => read_artifact(driver, lease, step, digest, offset, length),
    };
    answered.unwrap_or_else(|error| HostReply::Refused(refusal(&error)))
}

/// Puts what became of an artifact on the record of its run; says why not, if it cannot be.
fn observe(driver: &Driver, lease: Lease, step: Option<u64>, call: StepCall) -> Result<Option<Reason>, Error> {
    let Some(number) = step else {
        return Ok(None);
    };
    Ok(match driver.step(lease, number, call, false)? {
        StepReply::Recorded(_) => None,
        StepReply::Fenced => Some(Reason::Fenced),
        StepReply::Refused(reason) => Some(reason),
        StepReply::Waiting => Some(Reason::HostFault),
    })
}

/// An end whose artifacts are the crew's own, as they were stored: an agent may return any digest, length and media type. One that is not there
/// is no result.
fn known(driver: &Driver, lease: Lease, mut end: End) -> Result<End, Error> {
    let payloads: Vec<&mut Payload> = match &mut end {
        End::Finished(Outcome::Done(payload) | Outcome::Continue(payload)) => vec![payload],
        End::Finished(Outcome::Plan(plan)) => plan.nodes.iter_mut().map(|node| &mut node.input).collect(),
        _ => return Ok(end),
    };
    for payload in payloads {
        let Payload::Artifact(returned) = payload else { continue };
        // Without a crew the lease is fenced, and the decision will say so.
        let Some(crew) = crew_of(driver, lease)? else {
            return Ok(end);
        };
        match artifact(driver, crew, returned.digest)? {
            Some(stored) => *returned = stored,
            None => {
                let message = format!(
                    "the agent returned the artifact {}, which its crew does not have",
                    returned.digest
                );
                return Ok(End::Stopped {
                    reason: Reason::InvalidInput,
                    message,
                });
            }
        }
    }
    Ok(end)
}

fn put_artifact(
    driver: &Driver,
    lease: Lease,
    step: Option<u64>,
    bytes: &[u8],
    media: String,
) -> Result<HostReply, Error> {
    let size = bytes.len() as u64;
    if size > MAX_ARTIFACT_BYTES || media.len() > MAX_MEDIA_BYTES {
        return Ok(HostReply::Refused(Reason::QuotaExceeded));
    }
    // What an ephemeral task does leaves nothing behind.
    if driver.read(|state| state.is_ephemeral(lease.task))?.0 {
        return Ok(HostReply::Refused(Reason::CapabilityDenied));
    }
    // A full disk fails the host: agents are the first who must do without.
    if driver.low_space.load(Ordering::Relaxed) {
        return Ok(HostReply::Refused(Reason::Overloaded));
    }
    let Some(crew) = crew_of(driver, lease)? else {
        return Ok(HostReply::Refused(Reason::Fenced));
    };
    let artifact = Artifact {
        digest: Digest::of(bytes),
        size,
        media,
    };
    driver.keep_artifact(bytes, artifact_key(crew, artifact.digest), encode(&artifact))?;
    let refused = observe(driver, lease, step, StepCall::PutArtifact(artifact.clone()))?;
    Ok(refused.map_or(HostReply::Artifact(artifact), HostReply::Refused))
}

fn read_artifact(
    driver: &Driver,
    lease: Lease,
    step: Option<u64>,
    digest: Digest,
    offset: u64,
    length: u32,
) -> Result<HostReply, Error> {
    let Some(crew) = crew_of(driver, lease)? else {
        return Ok(HostReply::Refused(Reason::Fenced));
    };
    let most = usize::try_from(length).unwrap_or(usize::MAX);
    if most > MAX_PIECE_BYTES {
        return Ok(HostReply::Refused(Reason::HostcallLimit));
    }
    let read = match artifact(driver, crew, digest)? {
        Some(_) => Ok(driver.store.blobs().read(blob(digest), offset, most)?),
        None => Err(Reason::NotFound),
    };
    let call = StepCall::ReadArtifact {
        digest,
        offset,
        length,
        refused: read.as_ref().err().copied(),
    };
    let refused = observe(driver, lease, step, call)?;
    Ok(match refused.map_or(read, Err) {
        Ok(bytes) => HostReply::Bytes(bytes),
        Err(reason) => HostReply::Refused(reason),
    })
}

/// The crew on whose behalf a lease acts, while it is in force.
fn crew_of(driver: &Driver, lease: Lease) -> Result<Option<CrewId>, Error> {
    let in_force = |state: &skep_rules::state::State| {
        let task = state.task(lease.task)?;
        task.held.as_ref().filter(|held| held.lease == lease)?;
        Some(task.crew)
    };
    Ok(driver.read(in_force)?.0)
}

/// A blob, if it is this crew's. Another crew's is not there, whoever knows its digest.
pub(crate) fn artifact(driver: &Driver, crew: CrewId, digest: Digest) -> Result<Option<Artifact>, Error> {
    let row = driver.artifact_row(&artifact_key(crew, digest))?;
    row.map(|bytes| decode(&bytes)).transpose()
}

/// Keeps what a client sent as an artifact of a crew. Waits for the disk.
pub(crate) fn keep(driver: &Driver, crew: CrewId, bytes: &[u8]) -> Result<Artifact, Error> {
    if driver.low_space.load(Ordering::Relaxed) {
        let full = skep_rules::rejection::Rejection::new(Reason::Overloaded, "the disk is nearly full");
        return Err(full.into());
    }
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    let media = if is_json {
        "application/json"
    } else {
        "application/octet-stream"
    };
    let artifact = Artifact {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        media: media.to_owned(),
    };
    driver.keep_artifact(bytes, artifact_key(crew, artifact.digest), encode(&artifact))?;
    Ok(artifact)
}

fn artifact_key(crew: CrewId, digest: Digest) -> Vec<u8> {
    [crew.to_bytes().as_slice(), digest.as_bytes()].concat()
}

/// The digest as the store has it.
pub(crate) fn blob(digest: Digest) -> skep_store::Digest {
    skep_store::Digest(*digest.as_bytes())
}

/// The log of one attempt as it is kept.
#[derive(Debug, PartialEq, Encode, Decode)]
pub(crate) struct StoredLog {
    #[n(0)]
    pub(crate) agent: AgentId,
    #[n(1)]
    pub(crate) ended_at: Time,
    #[n(2)]
    pub(crate) end: String,
    #[n(3)]
    pub(crate) lines: Vec<LogLine>,
    /// Lines left out in front.
    #[n(4)]
    pub(crate) omitted: u64,
}

impl StoredLog {
    /// The row to be written, unless there is nothing to tell. Of a log that is too long the newest lines are kept: they say how it ended.
    fn of(lease: Lease, end: &End, now: Time, mut lines: Vec<LogLine>) -> Option<Write> {
        let end = match end {
            End::Finished(_) if lines.is_empty() => return None,
            End::Finished(_) => "finished".to_owned(),
            End::Stopped { reason, .. } => reason.to_string(),
            End::Cancelled => Reason::Cancelled.to_string(),
            End::Fenced => Reason::Fenced.to_string(),
            End::Overload { .. } => Reason::Overloaded.to_string(),
            End::HostFault { .. } => Reason::HostFault.to_string(),
            End::Diverged { .. } => Reason::Diverged.to_string(),
        };
        let size = |line: &LogLine| {
            let fields: usize = line.fields.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
            line.message.len() + line.level.len() + fields + 16
        };
        let mut room = MAX_STORED_LOG_BYTES;
        let kept = lines
            .iter()
            .rev()
            .take_while(|line| {
                let fits = size(line) <= room;
                room = room.saturating_sub(size(line));
                fits
            })
            .count();
        let omitted = lines.len() - kept;
        lines.drain(..omitted);
        let log = StoredLog {
            agent: lease.agent,
            ended_at: now,
            end,
            lines,
            omitted: omitted as u64,
        };
        Some(Write::Put {
            table: LOGS,
            key: log_key(lease.task, lease.epoch),
            value: encode(&log),
        })
    }
}

/// The key of the log of an attempt.
pub(crate) fn log_key(task: TaskId, epoch: u64) -> Vec<u8> {
    [task.to_bytes().as_slice(), &epoch.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use skep_rules::quantity::Millis;

    use super::*;

    #[test]
    fn a_long_log_keeps_its_end() {
        let lease = Lease {
            task: TaskId::new(1 << 16, 0),
            epoch: 3,
            agent: AgentId::new(1 << 16, 0),
            generation: 1,
        };
        let line = |n: usize| LogLine {
            at: Millis(n as u64),
            level: "info".into(),
            message: "x".repeat(1000),
            fields: Vec::new(),
        };
        let write = StoredLog::of(lease, &End::Cancelled, Time(9), (0..100).map(line).collect());
        let Some(Write::Put { key, value, .. }) = write else {
            panic!("nothing is kept")
        };
        assert_eq!(key, log_key(lease.task, 3));
        let log: StoredLog = decode(&value).unwrap();
        assert!(value.len() <= MAX_STORED_LOG_BYTES);
        assert_eq!(log.omitted + log.lines.len() as u64, 100);
        assert_eq!((log.lines.last(), log.end.as_str()), (Some(&line(99)), "cancelled"));
    }
}
