//! `skep replay`: runs a recorded task again in a sandbox of this process, step by step, with the same component or with another, and says where it
//! does something else than the record. Nothing is written anywhere, nobody is asked: every answer comes from the record.

use std::{
    collections::BTreeSet,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use hyper::Method;
use serde::Serialize;
use skep::{
    export::{Ending, Error, Export, Recording},
    http::api::{content, step::Step},
};
use skep_rules::{
    grant::{Effective, Mount},
    id::{Digest, TaskId},
    manifest::Access,
    plan::Outcome,
    reason::Reason,
    seam::{self, End, HostCall, HostReply, StepReply},
    step::{Recorded, StepCall},
};
use skep_runtime::plugin::{self, Scan};

use super::{
    Context,
    crew::directory,
    inspect::{read_component, refuse},
    offline::{
        self, Answers, Attempt, Ended,
        memory::{Artifacts, piece},
    },
    run::MountFlag,
    session::Session,
    task::{pair, path},
};
use crate::{
    cli::Exit,
    failure::Failure,
    files,
    output::{Output, time},
};

/// Arguments of `skep replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A task (`task_…` or its beginning), or a file that `skep task export` wrote
    #[arg(value_name = "TASK|FILE")]
    what: String,
    /// Run this component instead of the one that made the record
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Stop after so many steps
    #[arg(long, value_name = "N")]
    until: Option<u64>,
    /// Show each step, and what the agent writes
    #[arg(long)]
    verbose: bool,
    /// Show it a directory where its crew mounted one: of a file, no mount is shown unless named here
    #[arg(long = "mount", value_name = "HOST:GUEST")]
    mounts: Vec<MountFlag>,
    /// The value of an environment variable, which is masked in a file
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
}

/// What came of a replay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    task: TaskId,
    run: u32,
    /// The plugin that made the record.
    plugin: String,
    /// The component that ran now.
    component: Digest,
    /// The component that made the record.
    recorded_by: Digest,
    /// Steps on the record, and those that were taken as it says.
    steps: u64,
    replayed: u64,
    equal: bool,
    /// The first thing that was not as the record says.
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence: Option<Divergence>,
    /// What may have made a difference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
}

/// The first thing that was not as the record says.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Divergence {
    /// The step, 0 for the first; the number of steps where it is about the end.
    step: u64,
    expected: String,
    got: String,
}

impl Report {
    /// One paragraph for people.
    pub(super) fn to_text(&self) -> String {
        let by = match self.component == self.recorded_by {
            true => "the component that made it".to_owned(),
            false => format!("sha256:{} instead of sha256:{}", self.component, self.recorded_by),
        };
        let mut text = format!("{}  {} of {} steps\n", self.task, self.replayed, self.steps);
        text.push_str(&format!("plugin      {}\nran         {by}\n", self.plugin));
        match &self.divergence {
            None => text.push_str("equal\n"),
            Some(Divergence { step, expected, got }) => {
                text.push_str(&format!(
                    "DIVERGED at step {step}\nexpected    {expected}\ngot         {got}\n"
                ));
            }
        }
        for hint in &self.hints {
            text.push_str(&format!("hint        {hint}\n"));
        }
        text
    }

    /// What the command ends with.
    pub(super) fn exit(&self) -> Exit {
        match self.equal {
            true => Exit::Done,
            false => Exit::of(Reason::Diverged),
        }
    }

    /// One line: how it went.
    pub(super) fn line(&self) -> String {
        match &self.divergence {
            None => "equal".to_owned(),
            Some(Divergence { step, expected, got }) => {
                format!("diverged at step {step}: expected {expected}, got {got}")
            }
        }
    }

    /// Whose record.
    pub(super) fn task(&self) -> TaskId {
        self.task
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    // Read before the record is fetched: that can take a while.
    let other = args.plugin.as_deref().map(Component::read).transpose()?;
    let is_task = args.what.starts_with(TaskId::PREFIX);
    let mut recording = match is_task {
        true => {
            let session = Session::open(context, false)?;
            fetch(&session, &args.what, other.is_none())?
        }
        false => read(Path::new(&args.what))?,
    };
    let component = match other {
        Some(other) => other,
        None => Component::of(&mut recording)?,
    };
    let mut hints = Vec::new();
    let effective = effective(&recording.export, args, is_task, &mut hints)?;
    let home = offline::home()?;
    let shown = args.verbose && context.output.for_people();
    let replay = Replay {
        recording: Arc::new(recording),
        component,
        effective,
        until: args.until.unwrap_or(u64::MAX),
        shown: shown.then(|| context.output.clone()),
    };
    let (mut report, log) = context.wait(replay.run(home.path()))?;
    if args.verbose {
        offline::tell(&context.output, &log);
    }
    if !report.equal {
        report.hints.extend(hints);
    }
    context.output.one(&report, || report.to_text())?;
    Ok(report.exit())
}

/// A component to be run.
#[derive(Debug, Clone)]
pub(super) struct Component {
    bytes: Vec<u8>,
    /// What it is; its manifest is there.
    pub(super) scan: Scan,
}

impl Component {
    /// A file of a plugin.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = read_component(path)?;
        let scan = plugin::scan(&bytes).map_err(|refused| refuse(path, &refused))?;
        if scan.manifest.is_none() {
            let failure = Failure::of(
                Reason::InvalidManifest,
                "the component has no manifest, so it is no plugin",
            );
            return Err(failure.at(path, "", None).next("`skep build` embeds one").into());
        }
        Ok(Component { bytes, scan })
    }

    /// The one that comes with a record.
    fn of(recording: &mut Recording) -> Result<Self> {
        let digest = recording.export.component;
        let Some(bytes) = recording.component.take() else {
            let message = format!("the component sha256:{digest} is not there any more");
            return Err(Failure::of(Reason::NotFound, message)
                .next("`--plugin FILE` takes it, or another, from a file")
                .into());
        };
        let scan = plugin::scan(&bytes).map_err(|refused| Failure::of(refused.reason, refused.message))?;
        Ok(Component { bytes, scan })
    }
}

/// Reads an exported record.
pub(super) fn read(path: &Path) -> Result<Recording> {
    let file = BufReader::with_capacity(1 << 20, files::open(path)?);
    Recording::read(file).map_err(|error| match error {
        Error::Unreadable(source) => anyhow::Error::from(source).context(format!("cannot read {}", path.display())),
        error => Failure::of(Reason::InvalidInput, error.to_string())
            .at(path, "", None)
            .next("get the file again from whoever wrote it with `skep task export`")
            .into(),
    })
}

/// Fetches the record of a task, with the values of environment variables: it stays on this machine.
pub(super) fn fetch(session: &Session<'_>, task: &str, component: bool) -> Result<Recording> {
    let mut file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let path = path(task, &format!("/export?unmasked=true&component={component}"));
    session.wait(download(session, &path, &mut file))?;
    read(file.path())
}

/// Fetches an export into a file.
pub(super) async fn download(session: &Session<'_>, path: &str, file: &mut tempfile::NamedTempFile) -> Result<()> {
    let take = |part: &[u8]| file.write_all(part).context("cannot write what the host answered");
    session.client().download(Method::GET, path, take).await
}

/// What the agent holds now: what it held, but it writes nowhere. A file can name any directory, so none of them is shown unasked.
fn effective(export: &Export, args: &Args, is_task: bool, hints: &mut Vec<String>) -> Result<Effective> {
    let mut effective = export.effective.clone();
    let mut mounts = Vec::new();
    for mount in std::mem::take(&mut effective.mounts) {
        let named = args.mounts.iter().find(|named| named.guest == mount.guest);
        let guest = &mount.guest;
        let host = match named {
            Some(named) => directory(&named.host)?,
            None if is_task => mount.host,
            None => {
                hints.push(format!(
                    "the agent saw {guest} then; `--mount DIR:{guest}` shows it a directory there"
                ));
                continue;
            }
        };
        if mount.access == Access::Write {
            hints.push(format!("the agent could write to {guest} then; in a replay it cannot"));
        } else {
            hints.push(format!(
                "{guest} may hold something else than then: mounts are not recorded"
            ));
        }
        mounts.push(Mount {
            guest: mount.guest,
            host,
            access: Access::Read,
        });
    }
    for named in &args.mounts {
        let guest = &named.guest;
        if named.access == Access::Write {
            return Err(Failure::usage(format!("--mount {guest}: a replay writes nowhere; leave `:rw` out")).into());
        }
        if !mounts.iter().any(|mount| mount.guest == *guest) {
            return Err(Failure::usage(format!("--mount {guest}: the agent had no such mount")).into());
        }
    }
    effective.mounts = mounts;
    for (name, value) in &args.env {
        match effective.env.get_mut(name) {
            Some(known) => known.clone_from(value),
            None => return Err(Failure::usage(format!("--env {name}: the agent had no such variable")).into()),
        }
    }
    let given: BTreeSet<&String> = args.env.iter().map(|(name, _)| name).collect();
    for name in export.masked.iter().filter(|name| !given.contains(name)) {
        hints.push(format!("the value of {name} is masked; `--env {name}=VALUE` gives it"));
    }
    Ok(effective)
}

/// A record to be run again.
pub(super) struct Replay {
    recording: Arc<Recording>,
    component: Component,
    effective: Effective,
    /// Steps that are given at most.
    until: u64,
    /// Where each step is shown, if it is.
    shown: Option<Output>,
}

impl Replay {
    /// A record as it is, to be run to its end with a component.
    pub(super) fn of(recording: Recording, component: Component) -> Self {
        let mut effective = recording.export.effective.clone();
        effective
            .mounts
            .iter_mut()
            .for_each(|mount| mount.access = Access::Read);
        Replay {
            effective,
            recording: Arc::new(recording),
            component,
            until: u64::MAX,
            shown: None,
        }
    }

    /// Runs it, and gives what the agent wrote along.
    pub(super) async fn run(self, home: &Path) -> Result<(Report, Vec<seam::LogLine>)> {
        let export = &self.recording.export;
        let component = self.component.scan.digest;
        let given = self.until.min(export.steps);
        let attempt = Attempt {
            component: self.component.bytes,
            digest: component,
            effective: self.effective,
            agent: export.agent.clone(),
            lease: export.lease,
            call: export.call.clone(),
            task: export.view.clone(),
            recorded: given,
        };
        let answers = Arc::new(Answering {
            recording: Arc::clone(&self.recording),
            given,
            shown: self.shown,
            passed: AtomicU64::new(0),
            beyond: Mutex::default(),
        });
        let ended = offline::attempt(home, attempt, &answers).await?;
        let beyond = answers.beyond().asked.take();
        let verdict = judge(&self.recording, given, &ended, beyond);
        if let Some(missing) = answers.beyond().missing.take() {
            let message = format!("the run read the artifact {missing}, which is not in the record");
            return Err(Failure::of(Reason::NotFound, message)
                .next("export the task again while the host has it")
                .into());
        }
        let divergence = verdict?;
        let replayed = divergence.as_ref().map_or(given, |divergence| divergence.step);
        answers.show(replayed.min(given));
        let report = Report {
            task: export.task(),
            run: export.run,
            plugin: format!("{}@{}", export.plugin, export.version),
            component,
            recorded_by: export.component,
            steps: export.steps,
            replayed,
            equal: divergence.is_none(),
            divergence,
            hints: Vec::new(),
        };
        Ok((report, ended.log))
    }
}

/// Answers an attempt from its record. What goes beyond it is noted once, and ends the attempt.
struct Answering {
    recording: Arc<Recording>,
    /// Steps that are given.
    given: u64,
    shown: Option<Output>,
    /// Steps that have been shown.
    passed: AtomicU64,
    beyond: Mutex<Beyond>,
}

/// What could not be answered from the record.
#[derive(Debug, Default)]
struct Beyond {
    /// The first step behind what was given.
    asked: Option<StepCall>,
    /// An artifact that was read then.
    missing: Option<Digest>,
    /// What an attempt that has no record stored.
    stored: Artifacts,
}

impl Answering {
    fn beyond(&self) -> MutexGuard<'_, Beyond> {
        self.beyond.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the steps before this number that were not shown yet.
    fn show(&self, before: u64) {
        let Some(output) = &self.shown else { return };
        let mut number = self.passed.fetch_max(before, Ordering::Relaxed);
        while number < before {
            let left = usize::try_from(before - number).unwrap_or(usize::MAX);
            let steps = self.recording.steps(number);
            if steps.is_empty() {
                return;
            }
            for recorded in steps.into_iter().take(left) {
                let asked = recorded.step.asked.to_string();
                let step = Step::of(number, recorded);
                output.note(&format!("{number:>6}  {}  {asked:<32} {}", time(step.at), step.answer));
                number += 1;
            }
        }
    }
}

impl Answers for Answering {
    fn step(&self, _: u64, call: StepCall) -> StepReply {
        self.beyond().asked.get_or_insert(call);
        StepReply::Fenced
    }

    fn record(&self, from: u64) -> Result<Vec<Recorded>, Reason> {
        // Whoever asks for more has passed what is before.
        self.show(from);
        let mut steps = self.recording.steps(from);
        let left = usize::try_from(self.given.saturating_sub(from)).unwrap_or(usize::MAX);
        steps.truncate(left);
        Ok(steps)
    }

    fn call(&self, call: HostCall) -> HostReply {
        let mut beyond = self.beyond();
        match call {
            HostCall::PutArtifact {
                step: None,
                bytes,
                media,
                ..
            } => beyond
                .stored
                .put(bytes, media)
                .map_or_else(HostReply::Refused, HostReply::Artifact),
            HostCall::PutArtifact { bytes, media, .. } => {
                let artifact = skep_rules::plan::Artifact {
                    digest: Digest::of(&bytes),
                    size: bytes.len() as u64,
                    media,
                };
                beyond.asked.get_or_insert(StepCall::PutArtifact(artifact));
                HostReply::Refused(Reason::Fenced)
            }
            HostCall::ReadArtifact {
                step: None,
                digest,
                offset,
                length,
                ..
            } => match self.recording.artifacts.get(&digest) {
                Some(bytes) => HostReply::Bytes(piece(bytes, offset, length)),
                None => match beyond.stored.read(digest, offset, length) {
                    Ok(bytes) => HostReply::Bytes(bytes),
                    Err(reason) => {
                        beyond.missing = Some(digest);
                        HostReply::Refused(reason)
                    }
                },
            },
            HostCall::ReadArtifact {
                digest, offset, length, ..
            } => {
                let refused = None;
                beyond.asked.get_or_insert(StepCall::ReadArtifact {
                    digest,
                    offset,
                    length,
                    refused,
                });
                HostReply::Refused(Reason::Fenced)
            }
        }
    }
}

/// The first thing that was not as the record says, if anything was.
fn judge(recording: &Recording, given: u64, ended: &Ended, beyond: Option<StepCall>) -> Result<Option<Divergence>> {
    let export = &recording.export;
    let expected = || match recording.steps(given).first() {
        Some(recorded) => recorded.step.asked.to_string(),
        None => told(&export.ending, &export.state.to_string()),
    };
    let diverged = |got: String| {
        Some(Divergence {
            step: given,
            expected: expected(),
            got,
        })
    };
    Ok(match (&ended.end, beyond) {
        (End::Diverged { step, expected, got }, _) => Some(Divergence {
            step: *step,
            expected: expected.clone(),
            got: got.clone(),
        }),
        // Stopped where it was to stop; of a run that goes on, behind what is known of it.
        (_, Some(_)) if given < export.steps || export.ending == Ending::Open => None,
        (_, Some(call)) => diverged(format!("another step, {}", call.asked())),
        (End::Fenced | End::Cancelled, None) => {
            return Err(Failure::of(Reason::Cancelled, "the attempt was cancelled").into());
        }
        (End::Overload { message }, None) => return Err(Failure::of(Reason::Overloaded, message.clone()).into()),
        (End::HostFault { message }, None) => return Err(Failure::of(Reason::HostFault, message.clone()).into()),
        (End::Stopped { reason, message }, None) if *reason == Reason::MountDenied => {
            return Err(Failure::of(*reason, message.clone()).into());
        }
        (end, None) if given < export.steps => diverged(ending(end)),
        (_, None) if export.ending == Ending::Open => None,
        (end, None) if export.ending.is_like(&Ending::of(end)) => None,
        (end, None) => diverged(ending(end)),
    })
}

/// The end that a record tells of.
fn told(ending: &Ending, state: &str) -> String {
    match ending {
        Ending::Open => format!("no end: the task is {state}"),
        Ending::Done(payload) => format!(
            "the end, with the result {}",
            short(&content::to_json(payload).to_string())
        ),
        Ending::Split(plan) => format!("the end, with a plan of {} tasks", plan.nodes.len()),
        Ending::Failed(message) => format!("the end, failed: {}", short(message)),
        Ending::Stopped(reason) => format!("the end, by {reason}"),
    }
}

/// The end of an attempt.
fn ending(end: &End) -> String {
    match (Ending::of(end), end) {
        (Ending::Open, End::Stopped { reason, message }) => format!("the end, by {reason}: {}", short(message)),
        (Ending::Open, End::Finished(Outcome::Continue(_))) => "the end, to go on as another run".to_owned(),
        (Ending::Open, _) => "another end".to_owned(),
        (ending, _) => told(&ending, ""),
    }
}

/// Characters of a text that a message shows.
const SHOWN: usize = 120;

fn short(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut}{more}")
}

#[cfg(test)]
mod tests;
