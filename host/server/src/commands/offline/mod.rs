//! One attempt in a sandbox of this process, without a host: for `skep run`, which answers it itself, and for `skep replay`, which answers it from a
//! record. The sandbox and its limits are those of a host.

use std::{path::Path, pin::Pin, sync::Arc};

use anyhow::{Context as _, Result};
use skep::host::own_compiler;
use skep_rules::{
    grant::Effective,
    id::Digest,
    reason::Reason,
    seam::{
        Call, Denial, End, HostCall, HostReply, Identity, Lease, LogLine, RunnerCommand, RunnerEvent, StepReply,
        TaskView, Usage,
    },
    step::{Recorded, StepCall},
};
use skep_runtime::{Host, Options, Runner};
use tokio::sync::mpsc;

use crate::{failure::Failure, output::Output};

pub(super) mod memory;

/// What is to be attempted.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The file, and its digest.
    pub(super) component: Vec<u8>,
    pub(super) digest: Digest,
    /// What the agent holds.
    pub(super) effective: Effective,
    /// Who it is taken for.
    pub(super) agent: Identity,
    pub(super) lease: Lease,
    /// What is called, and with what.
    pub(super) call: Call,
    pub(super) task: TaskView,
    /// Steps that are given to it before it goes on.
    pub(super) recorded: u64,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) usage: Usage,
    pub(super) denials: Vec<Denial>,
    pub(super) log: Vec<LogLine>,
}

/// Whoever answers an attempt. Called on the threads that run guests.
pub(super) trait Answers: Send + Sync + 'static {
    /// See [`Host::step`].
    fn step(&self, number: u64, call: StepCall) -> StepReply;
    /// See [`Host::record`].
    ///
    /// # Errors
    /// When there is no such record.
    fn record(&self, from: u64) -> Result<Vec<Recorded>, Reason>;
    /// See [`Host::call`].
    fn call(&self, call: HostCall) -> HostReply;
}

/// Events that may wait: an attempt tells four that are no beats.
const EVENTS: usize = 16;

/// The side that decides, for one attempt.
struct Side<T> {
    component: Vec<u8>,
    events: mpsc::Sender<RunnerEvent>,
    answers: Arc<T>,
}

impl<T: Answers> Host for Side<T> {
    fn event(&self, event: RunnerEvent) {
        // Beats are for those who watch many; dropping them keeps room for the events that matter.
        if !matches!(event, RunnerEvent::Beats { .. } | RunnerEvent::Lines { .. }) {
            drop(self.events.try_send(event));
        }
    }

    fn component(&self, _: Digest) -> std::io::Result<Vec<u8>> {
        Ok(self.component.clone())
    }

    fn step(&self, _: Lease, number: u64, call: StepCall) -> StepReply {
        self.answers.step(number, call)
    }

    fn record(&self, _: Lease, from: u64) -> Result<Vec<Recorded>, Reason> {
        self.answers.record(from)
    }

    fn call(&self, call: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        Box::pin(std::future::ready(self.answers.call(call)))
    }
}

/// A directory for sandboxes: compiled code stays in it from one attempt to the next.
pub(super) fn home() -> Result<tempfile::TempDir> {
    tempfile::tempdir().context("cannot make a directory for the sandbox")
}

/// Makes one attempt.
///
/// # Errors
/// When it cannot begin.
pub(super) async fn attempt<T: Answers>(home: &Path, attempt: Attempt, answers: &Arc<T>) -> Result<Ended> {
    let (sender, mut events) = mpsc::channel(EVENTS);
    // Its own: what is left in it is removed while the next attempt begins.
    let workspaces = tempfile::tempdir_in(home).context("cannot make a directory for /workspace")?;
    let options = Options {
        compiler: own_compiler(),
        cache_dir: home.join("cache"),
        cache_key: [0; 32],
        workspaces: workspaces.path().to_path_buf(),
        slots: 1,
        memory: None,
        guest_threads: 1,
    };
    let side = Side {
        component: attempt.component,
        events: sender,
        answers: Arc::clone(answers),
    };
    let runner = Runner::start(options, Arc::new(side)).context("the sandbox cannot be made")?;
    runner.command(RunnerCommand::Warm {
        agent: attempt.agent,
        component: attempt.digest,
        effective: attempt.effective,
    });
    let mut start = Some(RunnerCommand::Start {
        lease: attempt.lease,
        call: attempt.call,
        task: attempt.task,
        recorded: attempt.recorded,
    });
    let ended = loop {
        match events.recv().await {
            Some(RunnerEvent::Warmed { .. }) => {
                if let Some(start) = start.take() {
                    runner.command(start);
                }
            }
            Some(RunnerEvent::WarmFailed { reason, message, .. }) => break Err(Failure::of(reason, message).into()),
            Some(RunnerEvent::Ended {
                end,
                usage,
                denials,
                log,
                ..
            }) => {
                break Ok(Ended {
                    end,
                    usage,
                    denials,
                    log,
                });
            }
            Some(
                RunnerEvent::Started { .. }
                | RunnerEvent::Evicted { .. }
                | RunnerEvent::Beats { .. }
                | RunnerEvent::Lines { .. }
                | RunnerEvent::CacheRefused { .. },
            ) => {}
            None => break Err(anyhow::anyhow!("the sandbox ended without a word")),
        }
    };
    runner.stop().await;
    ended
}

/// Prints what an attempt wrote, for people.
pub(super) fn tell(output: &Output, log: &[LogLine]) {
    for line in log {
        let fields: String = line
            .fields
            .iter()
            .map(|(key, value)| format!(" {key}={value}"))
            .collect();
        output.note(&format!("{:<6} {}{fields}", line.level, line.message));
    }
}
