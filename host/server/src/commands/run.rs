//! `skep run`: one agent, one task, no host. The sandbox, the limits and the grants are those of a host; what the flags give is the grant.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    pin::Pin,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use skep::{clock, host::own_compiler, http::api::content};
use skep_rules::{
    grant::{self, Ceiling, Effective, Mount},
    id::{AgentId, CrewId, Digest, TaskId},
    limits::Wish,
    manifest::{Access, FileWant, GuestPath, Manifest, Wants},
    plan::{Artifact, Outcome},
    quantity::{Fuel, Millis, Size},
    reason::Reason,
    seam::{
        Call, Denial, End, Export, HostCall, HostReply, Identity, Lease, LogLine, RunnerCommand, RunnerEvent, TaskView,
        Usage,
    },
};
use skep_runtime::{
    Host, Options, Runner,
    plugin::{self, Scan},
};
use tokio::sync::mpsc;

use super::{
    Context,
    crew::directory,
    inspect::{read_component, refuse},
    task::{pair, read_json},
};
use crate::{
    cli::Exit,
    failure::Failure,
    output::{Output, bytes, duration, fuel},
};

/// Arguments of `skep run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, with or without a manifest
    component: PathBuf,
    /// What to work on
    #[arg(long, value_name = "JSON|@FILE", default_value = "null")]
    input: String,
    /// Show it a directory: HOST:GUEST to read, HOST:GUEST:rw to write too
    #[arg(long = "mount", value_name = "HOST:GUEST[:rw]")]
    mounts: Vec<MountFlag>,
    /// Set an environment variable for it
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Fuel, at most (`5G`)
    #[arg(long, value_name = "N")]
    fuel: Option<Fuel>,
    /// Memory, at most (`16MiB`)
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Time, at most; 30s unless said
    #[arg(long, value_name = "DURATION")]
    deadline: Option<Millis>,
}

/// Whoever waits at a terminal wants an end sooner than a tier does.
const DEADLINE: Millis = Millis(30_000);

/// `HOST:GUEST[:rw]`
#[derive(Debug, Clone)]
struct MountFlag {
    host: PathBuf,
    guest: GuestPath,
    access: Access,
}

impl FromStr for MountFlag {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (text, access) = match text.strip_suffix(":rw") {
            Some(text) => (text, Access::Write),
            None => (text, Access::Read),
        };
        let (host, guest) = text.rsplit_once(':').ok_or("it has the form DIR:/input")?;
        Ok(MountFlag {
            host: PathBuf::from(host),
            guest: guest
                .parse()
                .map_err(|error: skep_rules::id::Error| error.to_string())?,
            access,
        })
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let component = read_component(&args.component)?;
    let scan = plugin::scan(&component).map_err(|refused| refuse(&args.component, &refused))?;
    let call = call_of(&scan)?;
    let effective = effective(context, args, &scan)?;
    let input = read_json(&args.input)?;
    let payload =
        content::from_json(&input).map_err(|why| Failure::of(Reason::InvalidInput, format!("--input: {why}")))?;
    let view = TaskView {
        attempt: 1,
        description: String::new(),
        input: payload,
        dependencies: Vec::new(),
        facts: None,
        remarks: Vec::new(),
        seed: u64::from_le_bytes(clock::random()?),
        began: skep_rules::quantity::Time(0),
        records: matches!(call, Call::Execute | Call::Plan { .. }),
    };
    let ended = context.wait(attempt(component, scan.digest, effective, call, view))?;
    report(&context.output, &ended)
}

/// What is called: tasks are executed; an agent that only plans plans.
fn call_of(scan: &Scan) -> Result<Call, Failure> {
    if scan.exports.contains(&Export::Executor) {
        return Ok(Call::Execute);
    }
    if scan.exports.contains(&Export::Planner) {
        return Ok(Call::Plan { notes: Vec::new() });
    }
    Err(Failure::of(
        Reason::InvalidInput,
        "the component exports neither an executor nor a planner",
    )
    .next("`skep inspect` shows what it can do"))
}

/// What the agent holds: the mounts of the flags, and of the rest all that its manifest wants. A component without a manifest wants what the
/// flags give.
fn effective(context: &Context, args: &Args, scan: &Scan) -> Result<Effective> {
    let files: Vec<FileWant> = args
        .mounts
        .iter()
        .map(|mount| FileWant {
            mount: mount.guest.clone(),
            access: mount.access,
        })
        .collect();
    let manifest = match &scan.manifest {
        Some(manifest) => manifest.clone(),
        None => bare(files.clone())?,
    };
    if !manifest.wants.http.is_empty() {
        context
            .output
            .note("the plugin wants HTTP, which this host does not offer yet; it gets none");
    }
    let grants = Wants {
        files,
        http: BTreeSet::new(),
        ..manifest.wants.clone()
    };
    let mounts = args
        .mounts
        .iter()
        .map(|mount| {
            Ok(Mount {
                guest: mount.guest.clone(),
                host: directory(&mount.host)?,
                access: mount.access,
            })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let env: BTreeMap<String, String> = args.env.iter().cloned().collect();
    let wish = Wish {
        tier: None,
        memory: args.memory,
        fuel: args.fuel,
        deadline: Some(args.deadline.unwrap_or(DEADLINE)),
    };
    // Whoever types `:rw` is the operator, and so allows it.
    let ceiling = Ceiling {
        writable_mounts: true,
        ..context.config()?.config.ceiling
    };
    let effective = grant::effective(&manifest, &grants, &mounts, &env, &wish, &ceiling)
        .map_err(|refused| Failure::of(refused.reason, refused.message))?;
    for (flag, asked, given) in [
        ("--memory", args.memory.map(|size| size.0), effective.limits.memory.0),
        ("--fuel", args.fuel.map(|fuel| fuel.0), effective.limits.fuel.0),
        (
            "--deadline",
            args.deadline.map(|deadline| deadline.0),
            effective.limits.deadline.0,
        ),
    ] {
        if asked.is_some_and(|asked| asked > given) {
            context.output.note(&format!(
                "{flag} is above what the plugin and its tier `{}` allow; it gets that",
                effective.limits.tier
            ));
        }
    }
    Ok(effective)
}

/// A manifest for a component that has none.
fn bare(files: Vec<FileWant>) -> Result<Manifest> {
    let mut manifest = Manifest::parse("[plugin]\nname = \"local/component\"\nversion = \"0.0.0\"\n")
        .context("the manifest of a bare component")?;
    manifest.wants.files = files;
    Ok(manifest)
}

/// How an attempt ended.
struct Ended {
    end: End,
    usage: Usage,
    denials: Vec<Denial>,
    log: Vec<LogLine>,
}

/// Makes one attempt.
async fn attempt(
    component: Vec<u8>,
    digest: Digest,
    effective: Effective,
    call: Call,
    task: TaskView,
) -> Result<Ended> {
    let home = tempfile::tempdir().context("cannot make a directory for /workspace")?;
    let (sender, mut events) = mpsc::channel(EVENTS);
    let options = Options {
        compiler: own_compiler(),
        cache_dir: home.path().join("cache"),
        cache_key: [0; 32],
        workspaces: home.path().join("workspaces"),
        slots: 1,
        memory: None,
        guest_threads: 1,
    };
    let side = Side {
        component,
        artifacts: Mutex::default(),
        events: sender,
    };
    let runner = Runner::start(options, Arc::new(side)).context("the sandbox cannot be made")?;
    let agent = AgentId::new(1, 0);
    runner.command(RunnerCommand::Warm {
        agent: Identity {
            agent,
            generation: 1,
            name: "agent".to_owned(),
            crew: CrewId::new(1, 0),
        },
        component: digest,
        effective,
    });
    let lease = Lease {
        task: TaskId::new(1, 0),
        epoch: 1,
        agent,
        generation: 1,
    };
    let mut start = Some(RunnerCommand::Start {
        lease,
        call,
        task,
        recorded: 0,
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
            Some(RunnerEvent::Started { .. } | RunnerEvent::Beats { .. } | RunnerEvent::CacheRefused { .. }) => {}
            None => break Err(anyhow::anyhow!("the sandbox ended without a word")),
        }
    };
    runner.stop().await;
    ended
}

/// Events that may wait: an attempt tells four that are no beats.
const EVENTS: usize = 16;
/// What one run may store, together.
const MAX_STORED: u64 = 64 << 20;

/// The side that decides, for one attempt: artifacts live in memory.
struct Side {
    component: Vec<u8>,
    artifacts: Mutex<HashMap<Digest, Vec<u8>>>,
    events: mpsc::Sender<RunnerEvent>,
}

impl Host for Side {
    fn event(&self, event: RunnerEvent) {
        // Beats are for those who watch many; dropping them keeps room for the events that matter.
        if !matches!(event, RunnerEvent::Beats { .. }) {
            drop(self.events.try_send(event));
        }
    }

    fn component(&self, _: Digest) -> std::io::Result<Vec<u8>> {
        Ok(self.component.clone())
    }

    fn step(&self, _: skep_rules::seam::Lease, _: u64, _: skep_rules::step::StepCall) -> skep_rules::seam::StepReply {
        skep_rules::seam::StepReply::Refused(Reason::Overloaded)
    }

    fn record(&self, _: skep_rules::seam::Lease, _: u64) -> Result<Vec<skep_rules::step::Recorded>, Reason> {
        Ok(Vec::new())
    }

    fn call(&self, call: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        let reply = self.answer(call);
        Box::pin(std::future::ready(reply))
    }
}

impl Side {
    fn answer(&self, call: HostCall) -> HostReply {
        let mut artifacts = self.artifacts.lock().unwrap_or_else(PoisonError::into_inner);
        match call {
            HostCall::PutArtifact { bytes, media, .. } => {
                let held: usize = artifacts.values().map(Vec::len).sum();
                if (held + bytes.len()) as u64 > MAX_STORED {
                    return HostReply::Refused(Reason::QuotaExceeded);
                }
                let artifact = Artifact {
                    digest: Digest::of(&bytes),
                    size: bytes.len() as u64,
                    media,
                };
                artifacts.insert(artifact.digest, bytes);
                HostReply::Artifact(artifact)
            }
            HostCall::ReadArtifact {
                digest, offset, length, ..
            } => {
                let Some(bytes) = artifacts.get(&digest) else {
                    return HostReply::Refused(Reason::NotFound);
                };
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let rest = bytes.get(from..).unwrap_or_default();
                let piece = rest.get(..length as usize).unwrap_or(rest);
                HostReply::Bytes(piece.to_vec())
            }
        }
    }
}

/// Prints the outcome, everything else on standard error, and says what to end with.
fn report(output: &Output, ended: &Ended) -> Result<Exit> {
    for line in &ended.log {
        let fields: String = line
            .fields
            .iter()
            .map(|(key, value)| format!(" {key}={value}"))
            .collect();
        output.note(&format!("{:<6} {}{fields}", line.level, line.message));
    }
    let mut hints = BTreeSet::new();
    for denial in &ended.denials {
        let times = if denial.count > 1 {
            format!(", {} times", denial.count)
        } else {
            String::new()
        };
        output.note(&format!("denied {} ({}{times})", denial.what, denial.reason));
        hints.insert(allows(denial.reason));
    }
    for hint in hints {
        output.note(&format!("       {hint}"));
    }
    let usage = &ended.usage;
    let used = format!(
        "{} of fuel, {} of memory at most, {}",
        fuel(usage.fuel.0),
        bytes(usage.peak_memory.0),
        duration(usage.wall.0)
    );
    let fail = |failure: Failure| {
        output.note(&format!("used   {used}"));
        Err(failure.into())
    };
    match &ended.end {
        End::Finished(Outcome::Done(payload)) => {
            let value = content::to_json(payload);
            output.one(&value, || format!("{value:#}\n"))?;
        }
        End::Finished(Outcome::Failed { message, .. }) => {
            return fail(Failure::of(Reason::Error, format!("the agent failed: {message}")).next("its log is above"));
        }
        End::Finished(outcome) => output.one(outcome, || format!("{:#}\n", serde_json::json!(outcome)))?,
        End::Stopped { reason, message } => {
            return fail(Failure::of(*reason, format!("the attempt was ended: {message}")));
        }
        End::Cancelled | End::Fenced => return fail(Failure::of(Reason::Cancelled, "the attempt was cancelled")),
        End::Overload { message } => return fail(Failure::of(Reason::Overloaded, message.clone())),
        End::HostFault { message } => return fail(Failure::of(Reason::HostFault, message.clone())),
        End::Diverged { step, expected, got } => {
            let message = format!("at step {step} the record says {expected}, the attempt did {got}");
            return fail(Failure::of(Reason::Diverged, message));
        }
    }
    output.note(&format!("done   {used}"));
    Ok(Exit::Done)
}

/// What would allow something that was denied.
fn allows(reason: Reason) -> &'static str {
    match reason {
        Reason::MountDenied => {
            "`--mount DIR:/GUEST` (or `:rw` to write) would allow it, if `[wants] files` of skep.toml has that mount"
        }
        Reason::QuotaExceeded => "a larger `workspace` or `artifacts` under `[wants]` of skep.toml would allow it",
        other => other.next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_only_unless_said() {
        let mount: MountFlag = "a:b:/input".parse().unwrap();
        assert_eq!(
            (mount.host, mount.guest.as_str(), mount.access),
            (PathBuf::from("a:b"), "/input", Access::Read)
        );
        assert_eq!("x:/out:rw".parse::<MountFlag>().unwrap().access, Access::Write);
        for bad in ["", "x", "x:input", "x:/workspace", "/input"] {
            assert!(bad.parse::<MountFlag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn artifacts_are_read_in_pieces_and_bounded() {
        let (events, _receiver) = mpsc::channel(1);
        let side = Side {
            component: Vec::new(),
            artifacts: Mutex::default(),
            events,
        };
        let lease = Lease {
            task: TaskId::new(1, 0),
            epoch: 1,
            agent: AgentId::new(1, 0),
            generation: 1,
        };
        let stored = side.answer(HostCall::PutArtifact {
            lease,
            step: None,
            bytes: b"hello".to_vec(),
            media: "text/plain".into(),
        });
        let HostReply::Artifact(artifact) = stored else {
            panic!("{stored:?}")
        };
        let read = |offset| {
            side.answer(HostCall::ReadArtifact {
                lease,
                step: None,
                digest: artifact.digest,
                offset,
                length: 3,
            })
        };
        assert_eq!(
            (read(0), read(3), read(9)),
            (
                HostReply::Bytes(b"hel".to_vec()),
                HostReply::Bytes(b"lo".to_vec()),
                HostReply::Bytes(vec![])
            )
        );
    }
}
