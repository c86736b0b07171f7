//! A bench whose agents take steps: their answers, and the record as a runner is given it.

use std::collections::BTreeMap;

use skep_rules::{
    command::{Command, Mail},
    decide::Reply,
    event::Event,
    facts::{Facts, Needs, Page, Table, record_key},
    grant::Ceiling,
    id::{MessageId, TaskId},
    quantity::Millis,
    reason::Reason,
    seam::{Export, Lease, RunnerCommand, StepReply},
    shard::Shard,
    state::Namespace,
    step::{Child, Recorded, Step, StepCall, StepResult, read_steps},
    task::Task,
};

use crate::bench::{Bench, plugin, text};

/// Two that take steps, one that checks.
pub(crate) const STEPPERS: &str = r#"
    name = "crew"
    [[agent]]
    name = "stepper"
    plugin = "acme/stepper@1.0.0"
    replicas = 2
    grants = { state = { quota = "4KiB" }, tasks = { children = 5 } }
    [[agent]]
    name = "checker"
    plugin = "acme/checker@1.0.0"
"#;

impl Bench {
    pub(crate) fn stepping() -> Self {
        Bench::stepping_as(STEPPERS)
    }

    pub(crate) fn stepping_as(manifest: &str) -> Self {
        let mut bench = Bench::empty();
        bench.assemble_steppers(manifest);
        bench
    }

    pub(crate) fn assemble_steppers(&mut self, manifest: &str) {
        let wants = "[wants]\nstate = { quota = \"1MiB\" }\ntasks = { children = 1000 }\n";
        let both = [Export::Executor, Export::Planner];
        let plugins = [
            plugin("stepper", &both, "\"work\"", wants),
            plugin("other", &both, "\"work\"", wants),
            plugin("checker", &[Export::Checker], "\"check\"", wants),
        ];
        self.assemble_with(manifest, &plugins, &Ceiling::default()).unwrap();
        self.warm();
    }

    /// Takes the next step of a task, whatever becomes of it.
    pub(crate) fn step(&mut self, task: TaskId, call: StepCall) -> StepReply {
        let (lease, number) = (self.lease(task), self.record(task).steps);
        self.step_by(lease, number, call)
    }

    pub(crate) fn step_by(&mut self, lease: Lease, number: u64, call: StepCall) -> StepReply {
        let child = Some(TaskId::new(self.draw(), 0));
        self.step_with(lease, number, call, child)
    }

    pub(crate) fn step_with(&mut self, lease: Lease, number: u64, call: StepCall, child: Option<TaskId>) -> StepReply {
        let mail = self.mail();
        let command = Command::Step {
            lease,
            number,
            call,
            child,
            mail: Some(mail),
        };
        self.take_step(command)
    }

    /// Ids for a message and as many deliveries as any test has.
    pub(crate) fn mail(&mut self) -> Mail {
        Mail {
            message: MessageId::new(self.draw(), 0),
            deliveries: (0..1_100).map(|_| TaskId::new(self.draw(), 0)).collect(),
        }
    }

    pub(crate) fn take_step(&mut self, command: Command) -> StepReply {
        let facts = self.facts_for(command.needs(self.state()));
        match self.ask_with(&facts, command) {
            Ok(Reply::Step(reply)) => reply,
            other => unreachable!("{other:?}"),
        }
    }

    /// Takes a step that is answered at once.
    pub(crate) fn recorded_step(&mut self, task: TaskId, call: StepCall) -> Recorded {
        match self.step(task, call.clone()) {
            StepReply::Recorded(recorded) => {
                assert_eq!(recorded.step.asked, call.asked());
                recorded
            }
            other => unreachable!("{call:?} was answered {other:?}"),
        }
    }

    pub(crate) fn answer(&mut self, task: TaskId, call: StepCall) -> StepResult {
        self.recorded_step(task, call).step.result
    }

    /// Takes a step that is answered later.
    pub(crate) fn waits(&mut self, task: TaskId, call: StepCall) {
        assert_eq!(self.step(task, call), StepReply::Waiting);
    }

    pub(crate) fn spawn(&mut self, task: TaskId) -> TaskId {
        match self.answer(task, StepCall::Spawn(child())) {
            StepResult::Spawned(id) => id,
            other => unreachable!("{other:?}"),
        }
    }

    /// The record of a run, as it is read back: its rows, then what memory keeps.
    pub(crate) fn steps_of(&self, task: TaskId, run: u32) -> Vec<Step> {
        let rows = self.table(Table::Steps);
        let rows = rows.range(record_key(task, run, 0)..=record_key(task, run, u64::MAX));
        let mut steps = Vec::new();
        let mut add = |first: u64, bytes: &[u8]| {
            assert_eq!(first, steps.len() as u64, "pieces follow each other");
            steps.extend(read_steps(bytes).unwrap());
        };
        for (key, bytes) in rows {
            add(u64::from_be_bytes(*key.last_chunk().unwrap()), bytes);
        }
        let live = self.state().task(task).filter(|task| task.run == run);
        if let Some(tail) = live.and_then(|_| self.state().tail(task)) {
            add(tail.first, &tail.bytes);
        }
        steps
    }

    /// The results on the record of the run that a task is in.
    pub(crate) fn results_of(&self, task: TaskId) -> Vec<StepResult> {
        let run = self.record(task).run;
        self.steps_of(task, run).into_iter().map(|step| step.result).collect()
    }

    /// How many steps the last attempt at a task was told that there are.
    pub(crate) fn recorded(&self, task: TaskId) -> u64 {
        let start = self.told.iter().rev().find_map(|command| match command {
            RunnerCommand::Start { lease, recorded, .. } if lease.task == task => Some(*recorded),
            _ => None,
        });
        start.expect("an attempt was started")
    }

    /// A table as it is on the disk.
    pub(crate) fn table(&self, table: Table) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows = BTreeMap::new();
        for write in self.rows.iter().filter(|write| write.table == table) {
            match &write.value {
                Some(value) => drop(rows.insert(write.key.clone(), value.clone())),
                None => drop(rows.remove(&write.key)),
            }
        }
        rows
    }

    pub(crate) fn facts_for(&self, needs: Needs) -> Facts {
        let row = |table, key: Option<Vec<u8>>| self.table(table).remove(&key?);
        let key = needs.idempotency.map(String::into_bytes);
        Facts {
            idempotency: row(Table::Idempotency, key).map(|row| minicbor::decode(&row).unwrap()),
            value: row(Table::State, needs.value).map(|row| minicbor::decode(&row).unwrap()),
            old: row(Table::Replaced, needs.old).map(|row| minicbor::decode(&row).unwrap()),
            page: needs.page.map(|page| self.page(&page)).unwrap_or_default(),
            message: row(Table::Messages, needs.message.map(|id| id.to_bytes().to_vec()))
                .map(|row| minicbor::decode(&row).unwrap()),
            tasks: needs
                .tasks
                .into_iter()
                .filter_map(|id| Some((id, row(Table::Tasks, Some(id.to_bytes().to_vec()))?)))
                .map(|(id, row)| (id, minicbor::decode(&row).unwrap()))
                .collect(),
            ..Facts::default()
        }
    }

    fn page(&self, page: &Page) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows: Vec<_> = self.table(page.table).into_iter().collect();
        rows.retain(|(key, _)| key.starts_with(&page.prefix) && page.after.as_ref().is_none_or(|after| key > after));
        if page.reverse {
            rows.reverse();
        }
        rows.truncate(page.limit);
        rows
    }

    /// Goes on as a host that is started and finds the record of a task altered.
    pub(crate) fn start_with(&mut self, task: TaskId, alter: impl FnOnce(&mut Task)) {
        let mut record = self.record(task);
        alter(&mut record);
        let records = self.shard.checkpoint().records;
        let records = records.into_iter().filter_map(|(key, value)| {
            let value = value?;
            let same = minicbor::decode::<Task>(&value).is_ok_and(|of| of.id == task);
            Some((
                key,
                if same {
                    minicbor::to_vec(&record).unwrap()
                } else {
                    value
                },
            ))
        });
        self.shard = Shard::load(self.shard.position(), records).unwrap();
        self.shard.take_unsigned(true);
        self.restart();
        self.warm();
    }

    /// Goes on as a host that is started and cannot make an agent ready any more.
    pub(crate) fn start_without(&mut self, name: &str) {
        self.told.clear();
        self.restart();
        let gone = self.agent(name);
        for command in std::mem::take(&mut self.told) {
            let RunnerCommand::Warm { agent, .. } = command else {
                continue;
            };
            let (agent, generation) = (agent.agent, agent.generation);
            let command = match agent == gone {
                true => Command::WarmFailed {
                    agent,
                    generation,
                    reason: Reason::CompileLimit,
                    message: "too large".into(),
                },
                false => Command::Warmed { agent, generation },
            };
            self.ask(command).unwrap();
        }
    }

    /// Has crews of these names have had state.
    pub(crate) fn with_namespaces(&mut self, names: &[String]) {
        for name in names {
            let event = Event::NamespaceChanged {
                name: name.parse().unwrap(),
                namespace: Namespace::default(),
            };
            let next = self.shard.position() + 1;
            self.shard.replay(next, &minicbor::to_vec(&event).unwrap()).unwrap();
        }
    }
}

pub(crate) fn child() -> Child {
    Child {
        description: "a child".into(),
        input: text("part"),
        roles: ["work".parse().unwrap()].into(),
        check: false,
        max_retries: Some(0),
        retry: Default::default(),
        timeouts: Default::default(),
        priority: None,
    }
}

pub(crate) fn get(key: &str) -> StepCall {
    let (key, revision) = (key.to_owned(), None);
    StepCall::Get { key, revision }
}

pub(crate) fn get_old(key: &str, revision: u64) -> StepCall {
    let (key, revision) = (key.to_owned(), Some(revision));
    StepCall::Get { key, revision }
}

pub(crate) fn put(key: &str, value: &[u8], expected: Option<u64>) -> StepCall {
    let (key, value) = (key.to_owned(), value.to_vec());
    StepCall::Put { key, value, expected }
}

pub(crate) fn delete(key: &str, expected: Option<u64>) -> StepCall {
    let key = key.to_owned();
    StepCall::Delete { key, expected }
}

pub(crate) fn list(prefix: &str, after: Option<&str>, limit: u32) -> StepCall {
    let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
    StepCall::List { prefix, after, limit }
}

pub(crate) fn history(key: &str) -> StepCall {
    StepCall::History { key: key.to_owned() }
}

/// Waits for children: all of them, or the first.
pub(crate) fn children(tasks: &[TaskId], all: bool, timeout: Option<u64>) -> StepCall {
    let (tasks, timeout) = (tasks.to_vec(), timeout.map(Millis));
    StepCall::Await { tasks, all, timeout }
}
