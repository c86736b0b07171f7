//! `skep demo`: a crew audits a directory while one of its agents tries to get out. It takes the path of production: a host of its own, plugins
//! installed over HTTP, a crew from a manifest, an objective, events; nothing is faked.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use serde::{Deserialize, Serialize};
use skep::{
    clock::Clock,
    host::{Host, Options},
    http::api::{
        event::{Event, Kind},
        task::{NewTask, RetryPolicy, Task, Tree},
    },
    telemetry, words,
};
use skep_rules::{
    crew::{CrewManifest, Member, PluginRef},
    crew_record::Status,
    id::TaskId,
    plan::Artifact,
    quantity::Millis,
    reason::Reason,
    retry::OnExhausted,
    task::TaskState,
};
use skep_runtime::signature::SecretKey;

use super::{Context, bundled, crew, plugin, task, up};
use crate::{
    cli::Exit,
    client::{Client, Events},
    failure::{Failure, plain},
    output::{Output, bytes, duration, fuel, grouped},
};

const CREW: &str = include_str!("../../../../examples/01-audit/crew.toml");
const OBJECTIVE: &str = include_str!("../../../../examples/01-audit/objective.json");
/// How long the host waits with its answer about the objective.
const WAIT: Millis = Millis(5_000);

/// Arguments of `skep demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory to audit; it is only read
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to write the report; its JSON goes beside it
    #[arg(long, value_name = "FILE", default_value = "skep-report.html")]
    report: PathBuf,
    /// Keep the host's data directory
    #[arg(long)]
    keep: bool,
}

/// What the demo says at the end.
#[derive(Debug, Serialize)]
struct Summary {
    root: String,
    #[serde(flatten)]
    counts: Counts,
    /// Calls that were refused to the intruder, by reason code.
    refused: BTreeMap<String, u64>,
    /// Attempts of the intruder that the host ended, by reason code.
    ended: BTreeMap<String, u64>,
    tasks: usize,
    failed: usize,
    fuel: u64,
    duration_ms: u64,
    html: PathBuf,
    json: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
}

/// What the reporter counted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Counts {
    files: u64,
    bytes: u64,
    secrets: u64,
    licenses: u64,
    todos: u64,
    denied: u64,
}

/// The objective's result.
#[derive(Debug, Deserialize)]
struct Report {
    html: Artifact,
    json: Artifact,
    summary: Counts,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let root = crew::directory(&args.dir)?;
    let json = report_beside(&args.report)?;
    // The demo shows what agents do; of the host only what goes wrong is worth a line.
    telemetry::start("error", telemetry::Format::Text, context.output.color()).context("the host's log")?;
    let home = Home::new(context, args.keep)?;
    refuse_nested(home.path(), &root)?;
    let runtime = up::runtime()?;
    let summary = runtime.block_on(async {
        let clock = Clock::system();
        let host = up::start(Options {
            clock: clock.clone(),
            ..Options::new(home.path())
        })
        .await?;
        let client = Client::new(host.url(), Some(host.token().to_owned()), PATIENCE)?;
        let audit = audit(context, &client, &clock, &root);
        let done = tokio::select! {
            done = audit => done,
            error = host.failed() => Err(up::failed(error).into()),
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted").into()),
        };
        stop(host).await;
        done
    });
    let kept = home.keep();
    let finding = summary?;
    for (path, content) in [(&args.report, &finding.html), (&json, &finding.json)] {
        fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let summary = Summary {
        html: fs::canonicalize(&args.report).unwrap_or_else(|_| args.report.clone()),
        json: fs::canonicalize(&json).unwrap_or(json),
        data_dir: kept,
        ..finding.summary
    };
    context.output.one(&summary, || summary.to_text())?;
    match finding.breached {
        true => Err(Failure::of(Reason::HostFault, "the intruder got through; see above").into()),
        false => Ok(Exit::Done),
    }
}

/// How long an answer may take that waits for nothing: a machine busy with compiling is slow.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

async fn stop(host: Host) {
    // What the demo had to show is shown; its data directory is thrown away.
    if let Err(error) = Box::pin(host.stop()).await {
        tracing::error!(%error, "the host did not stop in order");
    }
}

/// The path of the JSON report, once it is certain that both can be written.
fn report_beside(html: &Path) -> Result<PathBuf> {
    let json = html.with_extension("json");
    if json == html {
        return Err(Failure::usage("--report names the HTML file; the JSON goes beside it")
            .next("--report report.html")
            .into());
    }
    let parent = html
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let failure = Failure::new(
            Exit::NotFound,
            format!("--report: {} is no directory", parent.display()),
        );
        return Err(failure.next("name a file in a directory that is there").into());
    }
    Ok(json)
}

/// A host never shows agents its own data. Said before anything is started, and with what to do.
fn refuse_nested(home: &Path, root: &str) -> Result<()> {
    let home = home
        .ancestors()
        .find_map(|dir| fs::canonicalize(dir).ok())
        .unwrap_or_default();
    if home.starts_with(root) {
        let message = format!("{root} holds the demo's own data directory, {}", home.display());
        return Err(Failure::usage(message)
            .next("put it elsewhere with --data-dir DIR, or audit a directory further down")
            .into());
    }
    Ok(())
}

/// The host's data directory.
enum Home {
    /// Thrown away afterwards.
    Temporary(tempfile::TempDir),
    /// Kept.
    Kept(PathBuf),
}

impl Home {
    fn new(context: &Context, keep: bool) -> Result<Self> {
        if let Some(dir) = &context.global.data_dir {
            return Ok(Home::Kept(dir.clone()));
        }
        let dir = tempfile::Builder::new()
            .prefix("skep-demo-")
            .tempdir()
            .context("cannot make a data directory")?;
        Ok(if keep {
            Home::Kept(dir.keep())
        } else {
            Home::Temporary(dir)
        })
    }

    fn path(&self) -> &Path {
        match self {
            Home::Temporary(dir) => dir.path(),
            Home::Kept(dir) => dir,
        }
    }

    /// Removes it, or says where it is.
    fn keep(self) -> Option<PathBuf> {
        match self {
            Home::Temporary(dir) => {
                drop(dir);
                None
            }
            Home::Kept(dir) => Some(dir),
        }
    }
}

/// What the audit found, with the two reports.
struct Found {
    summary: Summary,
    html: bytes::Bytes,
    json: bytes::Bytes,
    breached: bool,
}

/// The plugin of the binary that agents of the crew run.
fn plugin_of(member: &Member) -> Result<&str> {
    match &member.plugin {
        PluginRef::Named(name, _) => Ok(name.plugin()),
        PluginRef::Digest(_) => anyhow::bail!("examples/01-audit/crew.toml: {} does not come with Skep", member.plugin),
    }
}

async fn audit(context: &Context, client: &Client, clock: &Clock, root: &str) -> Result<Found> {
    let began = clock.now();
    let show = Show::new(&context.output);
    let mut manifest = CrewManifest::parse(CREW).context("examples/01-audit/crew.toml")?;
    for mount in &mut manifest.mounts {
        root.clone_into(&mut mount.host);
    }
    let key = SecretKey::from_random(&skep::clock::random()?);
    bundled::trust(client, key.public()).await?;
    for member in &manifest.members {
        let name = plugin_of(member)?;
        show.doing(&format!("signing and installing {name}"));
        plugin::install_bundled(client, name, &key).await?;
    }
    show.say(&format!(
        "{:<15}{} plugins, by a key that is trusted for {}/* here",
        "signed",
        manifest.members.len(),
        bundled::PUBLISHER
    ));
    show.say(&format!("{:<15}{}", "its words", words::of(key.public().id())));
    show.doing(&format!(
        "assembling {} agents",
        manifest.members.iter().map(|m| m.replicas).sum::<u32>()
    ));
    let assembled = crew::assemble(client, &manifest).await?;
    let id = assembled.crew_id.to_string();
    // Before the objective, so that no event of it is missed.
    let events = client.events(&assembled.endpoints.events).await?;
    let status = crew::ready(client, &id).await?;
    if status.crew.status != Status::Ready {
        let failures = status
            .members
            .iter()
            .filter_map(|agent| Some(format!("{}: {}", agent.name, agent.failure.as_ref()?.message)));
        let message = format!(
            "the crew is {}: {}",
            status.crew.status,
            failures.collect::<Vec<_>>().join("; ")
        );
        return Err(Failure::of(Reason::HostFault, message).into());
    }

    let objective = NewTask {
        description: format!("audit {root}"),
        input: serde_json::from_str(OBJECTIVE).context("examples/01-audit/objective.json")?,
        crew: Some(id.clone()),
        plan: true,
        // Nobody is asked whether it is tried again.
        retry: Some(RetryPolicy {
            on_exhausted: Some(OnExhausted::Fail),
            ..RetryPolicy::default()
        }),
        ..NewTask::default()
    };
    show.doing("planning");
    let objective = task::submit(client, &objective, None).await?;
    let objective = follow(client, &show, objective.task_id, events).await?;
    show.finish();
    if objective.state != TaskState::Completed {
        let failure = objective
            .failure
            .map(|failure| format!("{}: {}", failure.code, failure.message));
        let message = format!("the audit did not end well: {}", failure.unwrap_or_default());
        return Err(Failure::new(Exit::TaskFailed, message)
            .next("--keep keeps the data; `skep task tree` shows what failed")
            .into());
    }

    let result = objective.result.clone().unwrap_or_default();
    let report: Report = serde_json::from_value(result).context("the reporter's result is not a report")?;
    let fetch = async |artifact: &Artifact| {
        client
            .bytes(&format!("/v1/artifacts/{}?crew={id}", artifact.digest))
            .await
    };
    let tree: Tree = client.get(&format!("/v1/tasks/{}/tree", objective.task_id)).await?;
    let summary = summarise(&tree, root, report.summary, clock.now().since(began));
    Ok(Found {
        breached: tree
            .children
            .iter()
            .any(|child| Drill::of(&child.task).is_some_and(|drill| drill.breached)),
        summary,
        html: fetch(&report.html).await?,
        json: fetch(&report.json).await?,
    })
}

/// Watches until the objective has ended; shows progress, and each drill as it ends.
async fn follow(client: &Client, show: &Show<'_>, objective: TaskId, events: Events) -> Result<Task> {
    let path = format!("/v1/tasks/{objective}");
    let mut events = Some(events);
    let mut shown = HashSet::new();
    let mut ended = 0;
    loop {
        let event = async {
            match &mut events {
                Some(events) => events.next::<Event>().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = event => match told {
                // Without events the objective is still asked for; only the progress is coarser.
                Ok(None) | Err(_) => events = None,
                Ok(Some(event)) => {
                    let over = ["COMPLETED", "FAILED", "CANCELLED", "SKIPPED", "REJECTED"].contains(&event.to.as_str());
                    if let (Kind::Task, Some(task), true) = (event.kind, event.task, over) {
                        ended += 1;
                        show.at(ended);
                        if task != objective {
                            drill_ended(client, show, task, &mut shown).await?;
                        }
                    }
                    if event.task == Some(objective) && event.to == "WAITING" {
                        let task: Task = client.get(&path).await?;
                        show.begin(task.children.len());
                    }
                }
            },
            task = client.get_final::<Task>(&path, WAIT) => {
                let task = task?;
                if !task.state.is_ended() {
                    continue;
                }
                // Drills whose events were not told in time.
                for child in &task.children {
                    drill_ended(client, show, *child, &mut shown).await?;
                }
                return Ok(task);
            }
        }
    }
}

/// Shows a task if it is a drill that was not shown yet.
async fn drill_ended(client: &Client, show: &Show<'_>, id: TaskId, shown: &mut HashSet<TaskId>) -> Result<()> {
    if shown.insert(id) {
        let task: Task = client.get(&format!("/v1/tasks/{id}")).await?;
        if let Some(drill) = Drill::of(&task) {
            show.say(&drill.to_text());
        }
    }
    Ok(())
}

/// One attempt of the intruder, over.
struct Drill {
    description: String,
    /// What was refused or what ended it, with its reason codes.
    codes: Vec<Reason>,
    what: String,
    breached: bool,
}

impl Drill {
    /// The drill that a task is, if it is one.
    fn of(task: &Task) -> Option<Self> {
        task.name.as_ref()?.as_str().strip_prefix("drill/")?;
        let mut codes: Vec<Reason> = task.denials.iter().map(|denial| denial.reason).collect();
        let failure = task.failure.as_ref();
        // The agent's own failure is no containment: it says that something got through.
        let ended = failure.filter(|failure| failure.code != Reason::Error);
        codes.extend(ended.map(|failure| failure.code));
        codes.sort_unstable();
        codes.dedup();
        let breached = failure.is_some_and(|failure| failure.code == Reason::Error);
        let what = match failure.filter(|_| breached) {
            Some(failure) => failure.message.clone(),
            None => task
                .denials
                .first()
                .map(|denial| denial.what.clone())
                .unwrap_or_default(),
        };
        Some(Drill {
            description: task.description.clone(),
            codes,
            what,
            breached,
        })
    }

    fn to_text(&self) -> String {
        let codes: Vec<&str> = self.codes.iter().map(|code| code.code()).collect();
        let (mark, codes) = match (self.breached, codes.is_empty()) {
            (true, _) => ("NOT CONTAINED", codes.join(" ")),
            (false, true) => ("nothing there", String::new()),
            (false, false) => ("denied", codes.join(" ")),
        };
        format!("{mark:<15}{:<36}{codes:<20}  {}", self.description, self.what)
            .trim_end()
            .to_owned()
    }
}

fn summarise(tree: &Tree, root: &str, counts: Counts, took: Millis) -> Summary {
    let tasks: Vec<&Task> = std::iter::once(&tree.task)
        .chain(tree.children.iter().map(|child| &child.task))
        .collect();
    let drills = || tasks.iter().filter(|task| Drill::of(task).is_some());
    let mut refused: BTreeMap<String, u64> = BTreeMap::new();
    let mut ended: BTreeMap<String, u64> = BTreeMap::new();
    for drill in drills() {
        for denial in &drill.denials {
            *refused.entry(denial.reason.to_string()).or_default() += denial.count;
        }
        if let Some(failure) = &drill.failure {
            *ended.entry(failure.code.to_string()).or_default() += 1;
        }
    }
    let drills_failed = drills().filter(|task| task.state == TaskState::Failed).count();
    let failed = tasks.iter().filter(|task| task.state == TaskState::Failed).count() - drills_failed;
    Summary {
        root: root.to_owned(),
        counts,
        refused,
        ended,
        tasks: tasks.len(),
        failed,
        fuel: tasks.iter().map(|task| task.fuel.0).sum(),
        duration_ms: took.0,
        html: PathBuf::new(),
        json: PathBuf::new(),
        data_dir: None,
    }
}

impl Summary {
    fn to_text(&self) -> String {
        let list = |codes: &BTreeMap<String, u64>| {
            let parts: Vec<String> = codes
                .iter()
                .map(|(code, count)| format!("{code} {}", grouped(*count)))
                .collect();
            if parts.is_empty() {
                "none".to_owned()
            } else {
                parts.join(", ")
            }
        };
        let counts = &self.counts;
        let mut lines = vec![
            ("audited", self.root.clone()),
            ("files", format!("{}, {}", grouped(counts.files), bytes(counts.bytes))),
            (
                "findings",
                format!(
                    "{} secrets, {} licences, {} to do",
                    grouped(counts.secrets),
                    grouped(counts.licenses),
                    grouped(counts.todos)
                ),
            ),
            ("denied", list(&self.refused)),
            ("ended", list(&self.ended)),
            (
                "tasks",
                match self.failed {
                    0 => grouped(self.tasks as u64),
                    failed => format!("{}, {failed} failed", grouped(self.tasks as u64)),
                },
            ),
            ("fuel", fuel(self.fuel)),
            ("time", duration(self.duration_ms)),
            ("report", self.html.display().to_string()),
            ("", self.json.display().to_string()),
        ];
        lines.extend(self.data_dir.as_ref().map(|dir| ("data", dir.display().to_string())));
        lines.iter().map(|(key, value)| format!("{key:<12}{value}\n")).collect()
    }
}

/// What a person sees while it goes on: a bar on a terminal, lines elsewhere.
struct Show<'a> {
    output: &'a Output,
    bar: ProgressBar,
}

impl<'a> Show<'a> {
    fn new(output: &'a Output) -> Self {
        let target = if output.shows_progress() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_finish(ProgressFinish::AndClear);
        let style = ProgressStyle::with_template("{spinner} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        Show { output, bar }
    }

    /// What is being done before there are tasks to count.
    fn doing(&self, what: &str) {
        self.bar.set_message(plain(what));
    }

    /// There are so many tasks to do.
    fn begin(&self, tasks: usize) {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tasks  {elapsed}");
        self.bar
            .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_length(tasks as u64);
    }

    fn at(&self, tasks: u64) {
        self.bar.set_position(tasks);
    }

    /// A line that stays.
    fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            self.output.note(line);
        } else {
            self.bar.println(plain(line));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_crew_of_bundled_plugins() {
        let crew = CrewManifest::parse(CREW).unwrap();
        for member in &crew.members {
            let plugin = skep_runtime::plugin::read(&bundled::file(plugin_of(member).unwrap()).unwrap()).unwrap();
            let reference = format!("{}@{}", plugin.manifest.plugin.name, plugin.manifest.plugin.version);
            assert_eq!(member.plugin.to_string(), reference);
            let ceiling = skep_rules::grant::Ceiling::default();
            let env = BTreeMap::new();
            let held = skep_rules::grant::effective(
                &plugin.manifest,
                &member.grants,
                &crew.mounts,
                &env,
                &member.limits,
                &ceiling,
            );
            assert!(held.is_ok(), "{}: {held:?}", member.name);
        }
    }

    #[test]
    fn the_objective_names_each_drill_once() {
        let objective: serde_json::Value = serde_json::from_str(OBJECTIVE).unwrap();
        let names: Vec<&str> = objective["drills"]
            .as_array()
            .unwrap()
            .iter()
            .map(|drill| drill["name"].as_str().unwrap())
            .collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(
            (objective["root"].as_str(), unique.len()),
            (Some("/input"), names.len())
        );
        assert!(names.len() >= 7);
    }

    #[test]
    fn the_json_report_goes_beside_the_html() {
        assert_eq!(report_beside(Path::new("a.html")).unwrap(), Path::new("a.json"));
        assert!(report_beside(Path::new("a.json")).is_err());
        assert!(report_beside(Path::new("/no/such/dir/a.html")).is_err());
    }
}
