//! A shard on a bench: one crew, a clock moved by hand, and everything that the shard has said.

use std::collections::{BTreeMap, BTreeSet};

use skep_rules::{
    audit::{AuditEntry, Kind},
    command::{Command, NewTask, children_of},
    crew::CrewManifest,
    decide::Reply,
    facts::{Facts, Write},
    grant::Ceiling,
    id::{AgentId, CrewId, Digest, TaskId},
    lifecycle::{OnFailure, Timeouts},
    manifest::Manifest,
    plan::{Node, Outcome, Payload, Plan},
    plugin::Plugin,
    priority::Priority,
    quantity::{Fuel, Millis, Size, Time},
    rejection::Rejection,
    retry::{OnExhausted, Policy},
    seam::{Call, Denial, End, Export, Lease, RunnerCommand, TaskView, Usage},
    shard::{Output, Shard},
    state::State,
    task::{Task, TaskState},
};

pub(crate) const CREW: &str = r#"
    name = "crew"
    [[agent]]
    name = "worker"
    plugin = "acme/worker@1.0.0"
    [[agent]]
    name = "planner"
    plugin = "acme/planner@1.0.0"
    [[agent]]
    name = "checker"
    plugin = "acme/checker@1.0.0"
"#;

pub(crate) struct Bench {
    pub(crate) shard: Shard,
    pub(crate) now: Time,
    pub(crate) crew: CrewId,
    pub(crate) audit: Vec<AuditEntry>,
    pub(crate) rows: Vec<Write>,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) told: Vec<RunnerCommand>,
    ids: u128,
}

impl Bench {
    /// A crew of a worker, a planner and a checker, all of them ready.
    pub(crate) fn new() -> Self {
        Bench::of(CREW)
    }

    pub(crate) fn of(manifest: &str) -> Self {
        let mut bench = Bench::empty();
        bench.assemble(manifest).unwrap();
        bench.warm();
        bench
    }

    pub(crate) fn empty() -> Self {
        let mut shard = Shard::default();
        shard.take_unsigned(true);
        Bench {
            shard,
            now: Time(1_000_000),
            crew: CrewId::new(0, 0),
            audit: Vec::new(),
            rows: Vec::new(),
            entries: Vec::new(),
            told: Vec::new(),
            ids: 1 << 20,
        }
    }

    pub(crate) fn assemble(&mut self, manifest: &str) -> Result<(), Rejection> {
        self.assemble_with(manifest, &plugins(), &Ceiling::default())
    }

    pub(crate) fn assemble_with(
        &mut self,
        manifest: &str,
        plugins: &[Plugin],
        ceiling: &Ceiling,
    ) -> Result<(), Rejection> {
        let manifest = CrewManifest::parse(manifest).unwrap();
        let size: usize = manifest.members.iter().map(|member| member.agent_names().count()).sum();
        let crew = CrewId::new(self.draw(), 0);
        let agents = (0..size).map(|_| AgentId::new(self.draw(), 0)).collect();
        self.ask(Command::AssembleCrew {
            crew,
            agents,
            manifest,
            plugins: plugins.to_vec(),
            ceiling: ceiling.clone(),
            by: "tests".into(),
        })?;
        self.crew = crew;
        Ok(())
    }

    /// Answers every request to warm.
    pub(crate) fn warm(&mut self) {
        for command in std::mem::take(&mut self.told) {
            if let RunnerCommand::Warm { agent, .. } = command {
                let (agent, generation) = (agent.agent, agent.generation);
                self.ask(Command::Warmed { agent, generation }).unwrap();
            }
        }
    }

    pub(crate) fn draw(&mut self) -> u128 {
        self.ids += 1 << 16;
        self.ids
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Reply, Rejection> {
        self.ask_with(&Facts::default(), command)
    }

    pub(crate) fn ask_with(&mut self, facts: &Facts, command: Command) -> Result<Reply, Rejection> {
        let output = self.shard.submit(self.now, facts, command)?;
        Ok(self.take(output))
    }

    fn take(&mut self, output: Output) -> Reply {
        assert!(self.shard.state().index_is_right());
        self.audit.extend(output.audit);
        self.rows.extend(output.writes);
        self.entries.extend(output.entries);
        self.told.extend(output.effects);
        output.reply
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now = self.now.after(Millis(millis));
        let output = self.shard.tick(self.now);
        self.take(output);
    }

    /// Stops the host in order.
    pub(crate) fn stop(&mut self) {
        let output = self.shard.hand_back(self.now);
        self.take(output);
    }

    pub(crate) fn restart(&mut self) {
        let output = self.shard.resume(self.now);
        self.take(output);
    }

    pub(crate) fn state(&self) -> &State {
        self.shard.state()
    }

    pub(crate) fn agent(&self, name: &str) -> AgentId {
        self.state()
            .agents_of(self.crew)
            .find(|agent| agent.name == name)
            .unwrap()
            .id
    }

    pub(crate) fn new_task(&mut self) -> NewTask {
        NewTask {
            id: TaskId::new(self.draw(), 0),
            seed: 7,
            description: "a task".into(),
            input: text("input"),
            roles: BTreeSet::new(),
            agent: None,
            plan: false,
            notes: Vec::new(),
            check: false,
            max_retries: None,
            dependencies: Vec::new(),
            labels: BTreeMap::new(),
            ephemeral: false,
            // Most cases are about what becomes of others when a task has failed.
            retry: Policy {
                on_exhausted: Some(OnExhausted::Fail),
                ..Policy::default()
            },
            priority: Priority::Medium,
            timeouts: Timeouts::default(),
            on_failure: OnFailure::FailFast,
            approval: None,
            parts: None,
            budget: None,
        }
    }

    pub(crate) fn submit(&mut self, tasks: Vec<NewTask>) -> Result<Reply, Rejection> {
        let crew = self.crew;
        self.ask(Command::SubmitTasks {
            crew,
            tasks,
            idempotency: None,
            by: "tests".into(),
        })
    }

    /// Submits one task, altered.
    pub(crate) fn task(&mut self, alter: impl FnOnce(&mut NewTask)) -> TaskId {
        let mut task = self.new_task();
        alter(&mut task);
        let id = task.id;
        self.submit(vec![task]).unwrap();
        id
    }

    /// The attempt that holds a task.
    pub(crate) fn lease(&self, task: TaskId) -> Lease {
        self.state()
            .task(task)
            .and_then(|task| task.held.as_ref())
            .expect("the task is leased")
            .lease
    }

    pub(crate) fn started(&mut self, task: TaskId) {
        let lease = self.lease(task);
        self.ask(Command::AttemptStarted { lease }).unwrap();
    }

    /// Ends the attempt that holds a task.
    pub(crate) fn end(&mut self, task: TaskId, end: End) -> Reply {
        let lease = self.lease(task);
        self.end_of(lease, end, Vec::new())
    }

    pub(crate) fn end_of(&mut self, lease: Lease, end: End, denials: Vec<Denial>) -> Reply {
        let children = (0..children_of(&end)).map(|_| TaskId::new(self.draw(), 0)).collect();
        let usage = Usage {
            fuel: Fuel(10),
            peak_memory: Size(100),
            wall: Millis(1),
            hostcalls: 0,
        };
        let command = Command::AttemptEnded {
            lease,
            end,
            usage,
            denials,
            children,
        };
        self.ask(command).unwrap()
    }

    pub(crate) fn done(&mut self, task: TaskId) {
        self.end(task, End::Finished(Outcome::Done(text("output"))));
    }

    /// The record of a task, from memory or from the row that it wrote when it ended.
    pub(crate) fn record(&self, task: TaskId) -> Task {
        let row = || {
            let row = self.rows.iter().rev().find(|row| row.key == task.to_bytes())?;
            minicbor::decode(row.value.as_ref()?).ok()
        };
        self.state()
            .task(task)
            .cloned()
            .or_else(|| self.state().recent(task))
            .or_else(row)
            .expect("the task is known")
    }

    pub(crate) fn is(&self, task: TaskId) -> TaskState {
        self.record(task).state
    }

    /// The child of a task by its name in the plan.
    pub(crate) fn child(&self, parent: TaskId, name: &str) -> TaskId {
        let children = self.record(parent).children;
        let named = |id: &&TaskId| self.record(**id).name.is_some_and(|of| of.as_str() == name);
        *children.iter().rev().find(named).expect("the plan has such a node")
    }

    /// What the last attempt at a task was given.
    pub(crate) fn given(&self, task: TaskId) -> (Call, TaskView) {
        let given = self.told.iter().rev().find_map(|command| match command {
            RunnerCommand::Start {
                lease,
                call,
                task: view,
                ..
            } if lease.task == task => Some((call.clone(), view.clone())),
            _ => None,
        });
        given.expect("an attempt was started")
    }

    pub(crate) fn heard(&self, kind: Kind) -> Vec<&AuditEntry> {
        self.audit.iter().filter(|entry| entry.kind == kind).collect()
    }
}

pub(crate) fn text(text: &str) -> Payload {
    Payload::Inline(text.as_bytes().to_vec())
}

/// A plan of nodes `name: dependencies`, with `?` behind the name of an optional node, `!` behind that of the integrating one.
pub(crate) fn plan(nodes: &[(&str, &[&str])]) -> Outcome {
    let node = |(name, dependencies): &(&str, &[&str])| Node {
        description: format!("node {name}"),
        roles: ["work".parse().unwrap()].into(),
        input: text("part"),
        dependencies: dependencies.iter().map(|name| name.parse().unwrap()).collect(),
        optional: name.ends_with('?'),
        integrates: name.ends_with('!'),
        max_retries: Some(0),
        ..Node::named(name.trim_end_matches(['?', '!']).parse().unwrap())
    };
    Outcome::Plan(Plan {
        nodes: nodes.iter().map(node).collect(),
        verify_before_next: false,
    })
}

pub(crate) fn plugin(name: &str, exports: &[Export], roles: &str, more: &str) -> Plugin {
    let manifest =
        format!("[plugin]\nname = \"acme/{name}\"\nversion = \"1.0.0\"\n[provides]\nroles = [{roles}]\n{more}");
    Plugin {
        digest: Digest::of(name.as_bytes()),
        manifest: Manifest::parse(&manifest).unwrap(),
        exports: exports.iter().copied().collect(),
        imports: Vec::new(),
        size: Size(1),
        installed_at: Time(0),
        revision: 1,
        signed: None,
    }
}

pub(crate) fn plugins() -> Vec<Plugin> {
    vec![
        plugin("worker", &[Export::Executor], "\"work\"", ""),
        plugin("planner", &[Export::Planner], "\"plan\"", ""),
        plugin("checker", &[Export::Checker], "\"check\"", ""),
        plugin("both", &[Export::Executor, Export::Checker], "\"work\"", ""),
    ]
}
