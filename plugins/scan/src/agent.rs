//! What makes an agent of a scan: batch in, report out, a beat now and then.

use crate::{
    batch::{Batch, Report, Scan},
    scanner::Scanner,
};
use skep_sdk::{
    Failure, Outcome, Payload, Task, artifacts,
    heartbeat::{self, Directive},
};

/// Reports up to this many bytes travel inline. One integration task is handed the reports of up to 900 batches at once: at this size the
/// worst of them fit its 64 MiB, and most reports stay far below it.
const INLINE_REPORT: usize = 32 << 10;

/// Files between two beats: each is a call into the host.
const FILES_PER_BEAT: usize = 32;

/// Scan the batch that a task carries.
///
/// # Errors
/// The input is no batch, the host wishes the attempt to stop, or the report cannot be stored.
pub fn execute(scan: Scan, task: &Task) -> Result<Outcome, Failure> {
    let batch: Batch = artifacts::parse(&task.input)?;
    let total = batch.files.len().max(1);
    let mut is_cancelled = false;
    let report = Scanner::new(scan, &batch.root).batch(&batch, |index| {
        if index % FILES_PER_BEAT == 0 {
            let percent = u8::try_from(index * 100 / total).unwrap_or(100);
            is_cancelled |= heartbeat::beat(percent) == Directive::Cancel;
        }
        !is_cancelled
    });
    if is_cancelled {
        return Err(Failure::later(
            "stopped before the batch was scanned, as the host wished",
        ));
    }
    payload(&report).map(Outcome::Done)
}

fn payload(report: &Report) -> Result<Payload, Failure> {
    let bytes = serde_json::to_vec(report)?;
    if bytes.len() <= INLINE_REPORT {
        return Ok(Payload::Inline(bytes));
    }
    Ok(Payload::Artifact(artifacts::write_all(artifacts::JSON, &bytes)?))
}
