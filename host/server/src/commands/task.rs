//! `skep task`: submits tasks and shows them, their trees and their logs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use skep::http::api::{
    plan::{Export, NamedNote, Note},
    step::Step,
    task::{Action, Approval, AttemptLog, Durability, NewTask, Past, Request, RetryPolicy, Task, Timeouts, Tree},
};
use skep_rules::{
    approval::OnTimeout,
    id::{Digest, Role, TaskId},
    lifecycle::OnFailure,
    limits::{MAX_BODY_BYTES, MAX_WAIT},
    priority::Priority,
    quantity::{Fuel, Millis},
    reason::Reason,
    retry::OnExhausted,
    task::TaskState,
};

use super::{Context, logs, replay, session::Session, tree};
use crate::{
    cli::Exit,
    client::{Client, escape},
    failure::Failure,
    output::{bytes, duration, fuel, time, word},
};

/// `skep task …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Submit a task
    Submit(Box<Submit>),
    /// List tasks
    Ls {
        /// Only those of this crew: id, its beginning, or name
        #[arg(long)]
        crew: Option<String>,
        /// Only those in this state, for instance `failed`
        #[arg(long)]
        state: Option<String>,
        /// Only those with this reason code, for instance `dead-letter`
        #[arg(long)]
        reason: Option<Reason>,
    },
    /// Show one with its result
    Show {
        /// Id or its beginning
        task: String,
        /// Its record instead: the steps of its newest run with their answers
        #[arg(long)]
        steps: bool,
    },
    /// Write its newest run to a file that `skep replay` runs again on any machine
    Export {
        /// Id or its beginning
        task: String,
        /// The file; `TASK.export` in the current directory unless said
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Show one with its parts
    Tree {
        /// Id or its beginning
        task: String,
        /// Until it has ended, as it changes
        #[arg(short, long, conflicts_with = "export")]
        follow: bool,
        /// As it can be submitted again (`skep task submit --tree FILE`), and nothing of what became of it
        #[arg(long)]
        export: bool,
    },
    /// Show what its attempts wrote
    Logs {
        /// Id or its beginning
        task: String,
        /// Its lines as they come, with what the host decides about it, until it has ended
        #[arg(short, long)]
        follow: bool,
    },
    /// End one with its parts
    Cancel {
        /// Id or its beginning
        task: String,
    },
    /// Try one again at once, or from the beginning where it is paused
    Retry {
        /// Id or its beginning
        task: String,
    },
    /// Hold one with its parts until it is resumed
    Pause {
        /// Id or its beginning
        task: String,
    },
    /// Let one go on that is paused
    Resume {
        /// Id or its beginning
        task: String,
    },
    /// Give one with its parts another priority
    Reprioritise {
        /// Id or its beginning
        task: String,
        /// critical, high, medium or low
        priority: Priority,
    },
    /// End one with a result that you give
    Override {
        /// Id or its beginning
        task: String,
        /// The result
        #[arg(long, value_name = "JSON|@FILE")]
        result: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        why: String,
    },
    /// Submit a dead letter anew
    Redrive {
        /// Id or its beginning
        task: String,
    },
}

/// Arguments of `skep task submit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    /// The crew: id, its beginning, or name; may be left out where there is only one
    #[arg(long)]
    crew: Option<String>,
    /// Any agent with this role may do it; give several for any of them
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Only this agent may do it: id, its beginning, or name in the crew
    #[arg(long)]
    agent: Option<String>,
    /// What to work on
    #[arg(long, value_name = "JSON|@FILE", default_value = "null")]
    input: String,
    /// What it is, for people
    #[arg(long, default_value = "", value_name = "TEXT")]
    description: String,
    /// What is to be reached: a planner splits it into tasks
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["description", "plan"])]
    objective: Option<String>,
    /// Have a planner split it first
    #[arg(long)]
    plan: bool,
    /// A tree that `skep task tree --export` has written, or a task as JSON: submitted as it is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["description", "objective", "plan", "notes", "input", "roles", "agent", "check", "approve_before", "approve_after"])]
    tree: Option<PathBuf>,
    /// Fuel that it and all its parts may burn together, for instance 50G
    #[arg(long, value_name = "FUEL")]
    fuel_budget: Option<Fuel>,
    /// Have a checker look at the result
    #[arg(long)]
    check: bool,
    /// Keep it in memory only: faster, and lost with the host
    #[arg(long)]
    ephemeral: bool,
    /// A file to give along to the planner; its tasks name it
    #[arg(long = "note", value_name = "FILE")]
    notes: Vec<PathBuf>,
    /// Executions after the first that failed
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// What becomes of it when they are used up: pause, fail or dead-letter
    #[arg(long, value_name = "WHAT", value_parser = on_exhausted)]
    on_exhausted: Option<OnExhausted>,
    /// How urgent it is: critical, high, medium or low
    #[arg(long, value_name = "PRIORITY")]
    priority: Option<Priority>,
    /// Fail it when it waits so long for an agent
    #[arg(long, value_name = "DURATION")]
    start_within: Option<Millis>,
    /// End each attempt after so long, where the agent's limits allow more
    #[arg(long, value_name = "DURATION")]
    attempt_deadline: Option<Millis>,
    /// Fail it when it has not ended after so long
    #[arg(long, value_name = "DURATION")]
    max_duration: Option<Millis>,
    /// What becomes of it when one of its parts fails: fail-fast, collect or escalate
    #[arg(long, value_name = "WHAT", value_parser = on_failure)]
    on_part_failure: Option<OnFailure>,
    /// A label for finding it again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// A task whose end it waits for
    #[arg(long = "after", value_name = "TASK")]
    dependencies: Vec<String>,
    /// Wait so long for its end and print it then; exit code 8 where it waits for a person meanwhile
    #[arg(long, value_name = "DURATION")]
    wait: Option<Millis>,
    /// Have a person approve that it runs
    #[arg(long)]
    approve_before: bool,
    /// Have a person approve its result before it counts
    #[arg(long)]
    approve_after: bool,
    /// How long a person has for that; a day unless said
    #[arg(long, value_name = "DURATION")]
    approve_within: Option<Millis>,
    /// Ask people once more when the time is up, before it fails
    #[arg(long)]
    escalate: bool,
}

impl Submit {
    /// Whether the end of the task is waited for.
    pub(super) fn waits(&self) -> bool {
        self.wait.is_some()
    }
}

/// `KEY=VALUE`
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has the form KEY=VALUE")?;
    match key {
        "" => Err("the key is empty".to_owned()),
        _ => Ok((key.to_owned(), value.to_owned())),
    }
}

fn on_exhausted(text: &str) -> Result<OnExhausted, String> {
    match text {
        "pause" => Ok(OnExhausted::Pause),
        "fail" => Ok(OnExhausted::Fail),
        "dead-letter" => Ok(OnExhausted::DeadLetter),
        _ => Err("it is pause, fail or dead-letter".to_owned()),
    }
}

fn on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "fail-fast" => Ok(OnFailure::FailFast),
        "collect" => Ok(OnFailure::Collect),
        "escalate" => Ok(OnFailure::Escalate),
        _ => Err("it is fail-fast, collect or escalate".to_owned()),
    }
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::Submit(args) => return submit_and_print(context, args),
        Command::Export { task, to } => return export(context, task, to.as_deref()),
        Command::Show { task, steps: true } => return show_steps(context, task),
        Command::Logs { task, follow: true } => return logs::follow_task(context, task),
        _ => {}
    }
    let client = context.client()?;
    match command {
        Command::Submit(_) => {}
        Command::Ls { crew, state, reason } => {
            let state = state.as_ref().map(|state| state.to_uppercase().replace('-', "_"));
            let reason = reason.map(|reason| reason.to_string());
            let query: Vec<String> = [("crew", crew), ("state", &state), ("reason", &reason)]
                .iter()
                .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={}", escape(value))))
                .collect();
            let tasks: Vec<Task> = context.wait(client.list(&format!("/v1/tasks?{}", query.join("&"))))?;
            context.output.list(
                &tasks,
                ["task", "state", "attempts", "submitted", "description"],
                |task| {
                    [
                        task.task_id.to_string(),
                        word(&task.state),
                        task.attempts.to_string(),
                        time(task.created_at),
                        called(task),
                    ]
                },
            )?;
        }
        Command::Export { .. } | Command::Show { steps: true, .. } => {}
        Command::Show { task, steps: false } => {
            let task: Task = context.wait(client.get(&path(task, "")))?;
            context.output.one(&task, || describe(&task))?;
        }
        Command::Cancel { task } => ask(context, &client, task, &Action::Cancel.into())?,
        Command::Retry { task } => ask(context, &client, task, &Action::Retry.into())?,
        Command::Pause { task } => ask(context, &client, task, &Action::Pause.into())?,
        Command::Resume { task } => ask(context, &client, task, &Action::Resume.into())?,
        Command::Reprioritise { task, priority } => {
            let request = Request {
                priority: Some(*priority),
                ..Action::Reprioritise.into()
            };
            ask(context, &client, task, &request)?;
        }
        Command::Override { task, result, why } => {
            let request = Request {
                result: Some(read_json(result)?),
                why: Some(why.clone()),
                ..Action::OverrideResult.into()
            };
            ask(context, &client, task, &request)?;
        }
        Command::Redrive { task } => {
            let task: Task = context.wait(client.post(&path(task, "/redrive"), &(), Duration::ZERO))?;
            line(context, &task)?;
        }
        Command::Tree { task, export: true, .. } => {
            let export: Export = context.wait(client.get(&path(task, "/tree/export")))?;
            let text = serde_json::to_string_pretty(&export).context("a tree is JSON")?;
            context.output.one(&export, || text)?;
        }
        Command::Tree { task, follow, .. } => {
            let tree: Tree = context.wait(client.get(&path(task, "/tree")))?;
            match follow {
                true => return tree::follow(context, &client, tree),
                false => context.output.one(&tree, || tree::draw(&tree))?,
            }
        }
        Command::Logs { follow: true, .. } => {}
        Command::Logs { task, follow: false } => {
            let logs: Vec<AttemptLog> = context.wait(client.list(&path(task, "/logs")))?;
            match context.output.for_people() {
                true => context.output.one(&logs, || logs.iter().map(log).collect())?,
                false => context.output.list(&logs, [], |_| [])?,
            }
        }
    }
    Ok(Exit::Done)
}

/// How often a request is made anew because the task has changed since it was read: what runs changes all the time.
const READINGS: usize = 5;

/// Asks something of a task as it is now, and prints what it is then.
fn ask(context: &Context, client: &Client, task: &str, request: &Request) -> Result<()> {
    let task = context.wait(change(client, &path(task, ""), request))?;
    line(context, &task)
}

async fn change(client: &Client, path: &str, request: &Request) -> Result<Task> {
    let stale = |error: &anyhow::Error| {
        let failure = error.downcast_ref::<Failure>();
        failure.is_some_and(|failure| failure.reason == Some(Reason::StaleRevision))
    };
    let mut readings = 1;
    loop {
        let read: Task = client.get(path).await?;
        match client.put(path, read.revision, request).await {
            Err(error) if readings < READINGS && stale(&error) => readings += 1,
            answer => return answer,
        }
    }
}

fn line(context: &Context, task: &Task) -> Result<()> {
    context
        .output
        .one(task, || format!("{}  {}", task.task_id, word(&task.state)))
}

/// Where a task is in the API.
pub(super) fn path(task: &str, rest: &str) -> String {
    format!("/v1/tasks/{}{rest}", escape(task))
}

/// What a step was called for: the name, and enough of the digest of its arguments to tell two calls apart.
fn called_for(step: &Step) -> String {
    format!(
        "{} ({}…)",
        step.name,
        step.arguments.chars().take(8).collect::<String>()
    )
}

fn show_steps(context: &Context, task: &str) -> Result<Exit> {
    let session = Session::open(context, false)?;
    let steps: Vec<Step> = session.wait(session.client().list(&path(task, "/steps")))?;
    context.output.list(&steps, ["step", "at", "call", "answer"], |step| {
        [
            step.number.to_string(),
            time(step.at),
            called_for(step),
            step.answer.to_string(),
        ]
    })?;
    Ok(Exit::Done)
}

/// What was exported, and where to.
#[derive(Debug, serde::Serialize)]
struct Exported {
    task: TaskId,
    run: u32,
    file: PathBuf,
    bytes: u64,
    steps: u64,
    component: bool,
    masked: BTreeSet<String>,
    missing: BTreeSet<Digest>,
}

/// Writes the file whole or not at all: it is read through once before it gets its name.
fn export(context: &Context, task: &str, to: Option<&Path>) -> Result<Exit> {
    let session = Session::open(context, false)?;
    let folder = to
        .and_then(Path::parent)
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let cannot = || format!("cannot write in {}", folder.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(cannot)?;
    session.wait(replay::download(&session, &path(task, "/export"), &mut file))?;
    file.as_file().sync_all().with_context(cannot)?;
    let bytes = file.as_file().metadata().with_context(cannot)?.len();
    let recording = replay::read(file.path())?;
    let export = &recording.export;
    let to = to.map_or_else(|| folder.join(format!("{}.export", export.task())), Path::to_path_buf);
    file.persist_noclobber(&to).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(Exit::Conflict, format!("{} is there already", to.display()))
            .next("choose another name: --to FILE"),
        _ => Failure::new(Exit::Failure, format!("cannot write {}: {}", to.display(), error.error)),
    })?;
    let exported = Exported {
        task: export.task(),
        run: export.run,
        file: to,
        bytes,
        steps: export.steps,
        component: recording.component.is_some(),
        masked: export.masked.clone(),
        missing: recording.missing,
    };
    context.output.one(&exported, || told(&exported))?;
    Ok(Exit::Done)
}

fn told(exported: &Exported) -> String {
    let mut text = format!(
        "{}  {}, {} steps\n",
        exported.file.display(),
        bytes(exported.bytes),
        exported.steps
    );
    if !exported.component {
        text.push_str(
            "without the component, which the host does not have any more: `skep replay --plugin` takes it\n",
        );
    }
    for name in &exported.masked {
        text.push_str(&format!("the value of the variable {name} is masked\n"));
    }
    for digest in &exported.missing {
        text.push_str(&format!("without the artifact {digest}, which the run read\n"));
    }
    text
}

fn submit_and_print(context: &Context, args: &Submit) -> Result<Exit> {
    let task = new_task(args)?;
    let client = context.client()?;
    let task = context.wait(submit(&client, &task, args.wait))?;
    if args.wait.is_none() {
        context
            .output
            .one(&task, || format!("{}  {}", task.task_id, word(&task.state)))?;
        return Ok(Exit::Done);
    }
    context.output.one(&task, || match (&task.state, &task.result) {
        (TaskState::Completed, Some(result)) => pretty(result),
        _ => describe(&task),
    })?;
    if task.state == TaskState::Completed {
        return Ok(Exit::Done);
    }
    if task.state == TaskState::Paused {
        context.output.note(&format!(
            "it waits for you: `skep task retry {0}` tries it again, `skep task cancel {0}` gives it up",
            task.task_id
        ));
        return Ok(Exit::TaskFailed);
    }
    if let Some(approval) = task.approval {
        context.output.note(&format!(
            "it waits for a person: `skep approval show {approval}` says for what"
        ));
        return Ok(Exit::Waiting);
    }
    if !task.state.is_ended() {
        context
            .output
            .note(&format!("not ended yet; `skep task show {}` tells later", task.task_id));
        return Ok(Exit::TimedOut);
    }
    context.output.note(&format!(
        "`skep task logs {}` shows what its attempts wrote",
        task.task_id
    ));
    Ok(Exit::TaskFailed)
}

/// Submits a task, waiting as long as asked for its end, or until it waits for a person.
pub(crate) async fn submit(client: &Client, task: &NewTask, wait: Option<Millis>) -> Result<Task> {
    let wait = wait.map(|wait| wait.min(MAX_WAIT));
    let query = wait.map(|wait| format!("?wait={wait}")).unwrap_or_default();
    let longer = wait.map_or(Duration::ZERO, Millis::duration);
    client.post(&format!("/v1/tasks{query}"), task, longer).await
}

/// The tree of a file, which is whole where it has a digest.
fn read_tree(path: &Path) -> Result<NewTask> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the tree {}", path.display()))?;
    let value: Value = json_of(path, &text)?;
    if value.get("digest").is_none() {
        return json_of(path, &text);
    }
    let export: Export = json_of(path, &text)?;
    if !export.is_whole() {
        let message = format!("{} is not what was exported: its digest is another", path.display());
        return Err(Failure::of(Reason::InvalidInput, message)
            .next("export it again; or take the `task` out of it, if you have changed that")
            .into());
    }
    Ok(export.task)
}

pub(super) fn new_task(args: &Submit) -> Result<NewTask> {
    let note = |path: &PathBuf| {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the note {}", path.display()))?;
        let name = path.display().to_string();
        Ok::<_, anyhow::Error>(Note::Named(NamedNote { name, text }))
    };
    if let Some(path) = &args.tree {
        let tree = read_tree(path)?;
        return Ok(NewTask {
            crew: args.crew.clone().or(tree.crew),
            ..tree
        });
    }
    Ok(NewTask {
        objective: args.objective.clone(),
        fuel_budget: args.fuel_budget,
        nodes: Vec::new(),
        verify_before_next: false,
        description: args.description.clone(),
        input: read_json(&args.input)?,
        crew: args.crew.clone(),
        roles: args.roles.iter().cloned().collect::<BTreeSet<_>>(),
        agent: args.agent.clone(),
        dependencies: args.dependencies.clone(),
        plan: args.plan,
        notes: args.notes.iter().map(note).collect::<Result<_>>()?,
        check: args.check,
        retry: (args.retries.is_some() || args.on_exhausted.is_some()).then(|| RetryPolicy {
            max_retries: args.retries,
            on_exhausted: args.on_exhausted,
            ..RetryPolicy::default()
        }),
        priority: args.priority,
        timeouts: timeouts(args),
        on_part_failure: args.on_part_failure,
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        durability: match args.ephemeral {
            true => Durability::Ephemeral,
            false => Durability::Synced,
        },
        approval: approval(args),
    })
}

fn timeouts(args: &Submit) -> Option<Timeouts> {
    let timeouts = Timeouts {
        schedule_to_start: args.start_within,
        start_to_close: args.attempt_deadline,
        schedule_to_close: args.max_duration,
    };
    (timeouts != Timeouts::default()).then_some(timeouts)
}

/// Where a person has to approve it, if anywhere.
fn approval(args: &Submit) -> Option<Approval> {
    let asked = Approval {
        before: args.approve_before,
        after: args.approve_after,
        expires: args.approve_within,
        on_timeout: match args.escalate {
            true => OnTimeout::Escalate,
            false => OnTimeout::Reject,
        },
    };
    (asked != Approval::default()).then_some(asked)
}

/// JSON as it was typed, or of a file (`@FILE`), or of standard input (`@-`): as much as a request may have.
pub(crate) fn read_json(argument: &str) -> Result<Value> {
    read_json_of(argument, MAX_BODY_BYTES as u64)
}

/// The same, of so many bytes at most.
pub(crate) fn read_json_of(argument: &str, most: u64) -> Result<Value> {
    let Some(name) = argument.strip_prefix('@') else {
        return serde_json::from_str(argument).map_err(|error| {
            Failure::of(Reason::InvalidInput, format!("--input is not JSON: {error}"))
                .next("quote it for the shell ('\"text\"', '{\"a\":1}'), or put it in a file: --input @FILE")
                .into()
        });
    };
    let mut text = String::new();
    // One byte more is enough to be refused.
    let limit = most + 1;
    let read = match name {
        "-" => std::io::stdin().lock().take(limit).read_to_string(&mut text),
        _ => fs::File::open(name).and_then(|file| file.take(limit).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read the input {name}"))?;
    if text.len() as u64 > most {
        let message = format!("{name} has more than {most} bytes; put large inputs in artifacts");
        return Err(Failure::of(Reason::InvalidInput, message).into());
    }
    json_of(Path::new(name), &text)
}

/// What the JSON of a file says; the place of a mistake is shown.
fn json_of<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let before: usize = text
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1))
            .map(str::len)
            .sum();
        let at = (before + error.column().saturating_sub(1)).min(text.len());
        let what = match error.classify() {
            serde_json::error::Category::Data => "not understood",
            _ => "not JSON",
        };
        Failure::of(Reason::InvalidInput, format!("{what}: {error}"))
            .at(path, text, Some(at..at))
            .into()
    })
}

/// JSON for people: text as itself.
pub(crate) fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    }
}

/// What people call a task: its name in the plan, its description, or both.
pub(super) fn called(task: &Task) -> String {
    match (&task.name, task.description.as_str()) {
        (Some(name), "") => name.to_string(),
        (Some(name), description) => format!("{name}: {description}"),
        (None, "") => "(no description)".to_owned(),
        (None, description) => description.to_owned(),
    }
}

fn describe(task: &Task) -> String {
    let mut lines = vec![
        ("task", task.task_id.to_string()),
        ("what", called(task)),
        ("state", word(&task.state)),
        ("crew", task.crew.to_string()),
        (
            "attempts",
            format!(
                "{}, {} fuel, {} at most",
                task.attempts,
                fuel(task.fuel.0),
                bytes(task.peak_memory_bytes)
            ),
        ),
        ("submitted", time(task.created_at)),
    ];
    if task.durability == Durability::Ephemeral {
        lines.push(("durability", "ephemeral: lost when the host ends".to_owned()));
    }
    lines.extend(task.ended_at.map(|at| {
        (
            "ended",
            format!("{} after {}", time(at), duration(at.since(task.created_at).0)),
        )
    }));
    lines.extend(task.assigned_agent.map(|agent| ("agent", agent.to_string())));
    lines.extend(task.approval.map(|approval| ("waits for", approval.to_string())));
    lines.extend(task.parent.map(|parent| ("part of", parent.to_string())));
    if !task.children.is_empty() {
        lines.push(("parts", task.children.len().to_string()));
    }
    if task.priority != Priority::default() {
        lines.push(("priority", task.priority.to_string()));
    }
    lines.extend(task.retry_at.map(|at| ("tried again", time(at))));
    lines.extend(task.redrives.map(|dead| ("redrives", dead.to_string())));
    lines.extend(task.history.iter().map(|past| {
        let Past { epoch, failure, .. } = past;
        (
            "attempt",
            format!(
                "{epoch} at {}: {}: {}",
                time(past.ended_at),
                failure.code,
                failure.message
            ),
        )
    }));
    if let Some(failure) = &task.failure {
        lines.push(("failure", format!("{}: {}", failure.code, failure.message)));
        lines.push(("", failure.code.next().to_owned()));
    }
    lines.extend(task.remarks.iter().map(|remark| ("sent back", remark.clone())));
    for denial in &task.denials {
        lines.push((
            "denied",
            format!("{} ({}, {} times)", denial.what, denial.reason, denial.count),
        ));
    }
    lines.extend(task.result.as_ref().map(|result| ("result", pretty(result))));
    lines.iter().map(|(key, value)| format!("{key:<12}{value}\n")).collect()
}

fn log(attempt: &AttemptLog) -> String {
    let mut text = format!("attempt {} by {}: {}\n", attempt.epoch, attempt.agent, attempt.end);
    if attempt.omitted > 0 {
        text.push_str(&format!("  … {} earlier lines are not kept\n", attempt.omitted));
    }
    for line in &attempt.lines {
        let fields: String = line
            .fields
            .iter()
            .map(|(key, value)| format!(" {key}={value}"))
            .collect();
        text.push_str(&format!(
            "  {:>8}  {:<6} {}{fields}\n",
            duration(line.at.0),
            line.level,
            line.message
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_json_typed_or_from_a_file() {
        assert_eq!(read_json("{\"a\":1}").unwrap(), serde_json::json!({"a": 1}));
        let wrong = read_json("Ada").unwrap_err();
        assert_eq!(wrong.downcast_ref::<Failure>().unwrap().exit, Exit::Invalid);

        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("in.json");
        fs::write(&path, "{\n  \"a\": x\n}").unwrap();
        let shown = read_json(&format!("@{}", path.display())).unwrap_err().to_string();
        assert!(shown.contains("in.json:2:8") && shown.contains("^"), "{shown}");
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
