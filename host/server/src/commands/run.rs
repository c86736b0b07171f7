//! `skep run`: one agent, one task, no host. The sandbox, the limits and the grants are those of a host; what the flags give is the grant.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use skep::{
    clock::{self, Clock},
    http::api::content,
};
use skep_rules::{
    grant::{self, Ceiling, Effective, Mount},
    id::{AgentId, CrewId, Digest, TaskId},
    limits::{MAX_SLEEP, Wish},
    manifest::{Access, FileWant, GuestPath, Manifest, Wants},
    plan::{Artifact, Outcome},
    quantity::{Fuel, Millis, Size, Time},
    reason::Reason,
    seam::{Call, End, Export, HostCall, HostReply, Identity, Lease, StepReply, TaskView},
    step::{Decided, Recorded, Step, StepCall, StepResult},
};
use skep_runtime::plugin::{self, Scan};

use super::{
    Context,
    crew::directory,
    inspect::{read_component, refuse},
    offline::{
        self, Answers, Attempt, Ended,
        memory::{Artifacts, State},
    },
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
pub(super) struct MountFlag {
    pub(super) host: PathBuf,
    pub(super) guest: GuestPath,
    pub(super) access: Access,
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
    let clock = Clock::system();
    let view = TaskView {
        attempt: 1,
        description: String::new(),
        input: payload,
        dependencies: Vec::new(),
        facts: None,
        remarks: Vec::new(),
        seed: u64::from_le_bytes(clock::random()?),
        records: true,
        deadline: None,
        fuel: None,
        began: clock.now(),
    };
    let alone = Arc::new(Alone::new(clock, effective.state));
    let attempt = attempt(component, scan.digest, effective, call, view);
    let home = offline::home()?;
    let ended = context.wait(offline::attempt(home.path(), attempt, &alone))?;
    if alone.memory().slept {
        context
            .output
            .note("a sleep was passed over: its end is when the agent went on, as it sees it");
    }
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

/// An attempt under no host: as the first of a task and an agent of no crew.
fn attempt(component: Vec<u8>, digest: Digest, effective: Effective, call: Call, task: TaskView) -> Attempt {
    let (agent, crew) = (AgentId::new(1, 0), CrewId::new(1, 0));
    let lease = Lease {
        task: TaskId::new(1, 0),
        epoch: 1,
        agent,
        generation: 1,
    };
    Attempt {
        component,
        digest,
        effective,
        agent: Identity {
            agent,
            generation: 1,
            name: "agent".to_owned(),
            crew,
        },
        lease,
        call,
        task,
        recorded: 0,
    }
}

/// Answers an attempt from memory. There is nobody to give work to, and nobody who would wait.
struct Alone {
    clock: Clock,
    /// Bytes that the state may hold.
    quota: Size,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    artifacts: Artifacts,
    state: State,
    /// The last step and its number: all that is ever asked for again.
    last: Option<(u64, Step)>,
    /// A sleep was passed over.
    slept: bool,
}

impl Alone {
    fn new(clock: Clock, quota: Size) -> Self {
        Alone {
            clock,
            quota,
            memory: Mutex::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nobody says.
fn nobody() -> Decided {
    Decided {
        approved: false,
        remark: "nobody can be asked: there is no host".to_owned(),
    }
}

impl Memory {
    /// Takes a step. The agent's clock stands at its time until the next.
    fn step(&mut self, number: u64, call: &StepCall, quota: Size, now: Time) -> Recorded {
        let before = self.last.as_ref().map_or(Time(0), |(_, step)| step.at);
        let now = now.max(before);
        let (at, result) = match call {
            StepCall::Spawn(_) => (now, StepResult::refused(Reason::BudgetExhausted)),
            StepCall::Await { .. } => (now, StepResult::refused(Reason::NotFound)),
            // Nobody else is here.
            StepCall::Send(_) | StepCall::Request(_) => (now, StepResult::refused(Reason::NoListener)),
            StepCall::Sleep { until } if *until > now.after(MAX_SLEEP) => {
                (now, StepResult::refused(Reason::InvalidInput))
            }
            StepCall::Sleep { until } => {
                self.slept |= *until > now;
                (now.max(*until), StepResult::Done)
            }
            // Nobody can be asked here, and what nobody approves is not approved.
            StepCall::AskApproval(request) => (
                now,
                StepResult::Decided(request.items.iter().map(|_| nobody()).collect()),
            ),
            StepCall::RaiseBlocker { .. } => (now, StepResult::Decided(vec![nobody()])),
            StepCall::Clock { alarm } => (alarm.unwrap_or(now).max(before), StepResult::Done),
            StepCall::Directive { .. } => (now, StepResult::Done),
            StepCall::PutArtifact(Artifact { digest, .. }) => (now, StepResult::Artifact(*digest)),
            StepCall::ReadArtifact { digest, refused, .. } => {
                let read = StepResult::Artifact(*digest);
                (now, refused.map_or(read, StepResult::refused))
            }
            StepCall::Get { .. }
            | StepCall::Put { .. }
            | StepCall::Delete { .. }
            | StepCall::List { .. }
            | StepCall::History { .. } => {
                let answer = self.state.answer(call, quota, now);
                (now, answer.unwrap_or(StepResult::refused(Reason::HostFault)))
            }
        };
        let step = Step {
            asked: call.asked(),
            at,
            result,
        };
        self.last = Some((number, step.clone()));
        Recorded { step, ends: Vec::new() }
    }
}

impl Answers for Alone {
    fn step(&self, number: u64, call: StepCall) -> StepReply {
        StepReply::Recorded(self.memory().step(number, &call, self.quota, self.clock.now()))
    }

    fn record(&self, from: u64) -> Result<Vec<Recorded>, Reason> {
        let memory = self.memory();
        let last = memory.last.as_ref().filter(|(number, _)| *number == from);
        let recorded = last.map(|(_, step)| Recorded {
            step: step.clone(),
            ends: Vec::new(),
        });
        Ok(recorded.into_iter().collect())
    }

    fn call(&self, call: HostCall) -> HostReply {
        let mut memory = self.memory();
        let (step, taken, reply) = match call {
            HostCall::PutArtifact { step, bytes, media, .. } => match memory.artifacts.put(bytes, media) {
                Ok(artifact) => (
                    step,
                    StepCall::PutArtifact(artifact.clone()),
                    HostReply::Artifact(artifact),
                ),
                // Nothing was stored, and so nothing is on record.
                Err(reason) => return HostReply::Refused(reason),
            },
            HostCall::ReadArtifact {
                step,
                digest,
                offset,
                length,
                ..
            } => {
                let read = memory.artifacts.read(digest, offset, length);
                let taken = StepCall::ReadArtifact {
                    digest,
                    offset,
                    length,
                    refused: read.as_ref().err().copied(),
                };
                (step, taken, read.map_or_else(HostReply::Refused, HostReply::Bytes))
            }
        };
        if let Some(number) = step {
            memory.step(number, &taken, self.quota, self.clock.now());
        }
        reply
    }
}

/// Prints the outcome, everything else on standard error, and says what to end with.
fn report(output: &Output, ended: &Ended) -> Result<Exit> {
    offline::tell(output, &ended.log);
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
        End::Diverged { step, .. } => {
            let message = format!("step {step} was held against a record that there is not");
            return fail(Failure::of(Reason::HostFault, message));
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
    fn nobody_is_waited_for_and_nobody_takes_work() {
        let mut memory = Memory::default();
        let mut step = |call: StepCall| memory.step(0, &call, Size(100), Time(50)).step;
        let slept = step(StepCall::Sleep { until: Time(90) });
        assert_eq!((slept.at, slept.result), (Time(90), StepResult::Done));
        // The agent's clock does not go back behind the sleep that was passed over.
        let put = step(StepCall::Put {
            key: "k".into(),
            value: b"1".to_vec(),
            expected: None,
        });
        assert_eq!((put.at, put.result), (Time(90), StepResult::Written(1)));
        let children = StepCall::Await {
            tasks: vec![TaskId::new(1, 0)],
            all: true,
            timeout: None,
        };
        assert_eq!(step(children).result, StepResult::refused(Reason::NotFound));
        assert!(memory.slept);
    }

    #[test]
    fn what_an_artifact_is_asked_for_is_on_record() {
        let alone = Alone::new(Clock::manual(Time(50)), Size(0));
        let lease = Lease {
            task: TaskId::new(1, 0),
            epoch: 1,
            agent: AgentId::new(1, 0),
            generation: 1,
        };
        let stored = alone.call(HostCall::PutArtifact {
            lease,
            step: Some(4),
            bytes: b"hello".to_vec(),
            media: "text/plain".into(),
        });
        let HostReply::Artifact(artifact) = stored else {
            panic!("{stored:?}")
        };
        let recorded = alone.record(4).unwrap();
        let answers: Vec<StepResult> = recorded.into_iter().map(|recorded| recorded.step.result).collect();
        assert_eq!(answers, [StepResult::Artifact(artifact.digest)]);
        assert_eq!(alone.record(5), Ok(Vec::new()));
    }
}
