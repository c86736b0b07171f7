//! A start after a crash: a data directory with 100,000 waiting tasks in its checkpoint and a million entries behind it, which a host never lets come
//! so far, is written as a host writes it, by the same shard and the same store, and the real `skep up` starts on it.

use std::{path::Path, time::Instant};

use serde_json::{Value, json};
use skep_rules::{
    command::{Command, NewTask},
    facts::Facts,
    id::{CrewId, TaskId},
    limits::{MAX_LIVE_TASKS, MAX_SUBMISSION, MAX_UPLOAD_BYTES},
    plan::{Outcome, Payload},
    quantity::{Millis, Time},
    seam::{End, Lease, RunnerCommand, Usage},
    shard::{Output, Shard},
    step::StepCall,
};
use skep_store::{Batch, Options, Position, Store, Table, Write};

use crate::{
    harness::{Host, now},
    journal::floor,
    round,
};

/// Entries behind the checkpoint.
const ENTRIES: u64 = 1_000_000;
/// Where a host archives tasks.
const TASKS: Table = Table::new("tasks");
/// Tasks that wait, less room for those that come and go behind the checkpoint.
const WAITING: usize = MAX_LIVE_TASKS - 1_000;

pub(crate) fn recover() -> Vec<Value> {
    // Beside the build, so that the disk is a disk: /tmp may be memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
    let floor = floor(directory.path());
    let data = directory.path().join("data");
    let mut host = Host::start_in(&data, &[]);
    let echo = skep_bundled::get("echo").expect("echo is bundled").component;
    host.crew("load", echo, "[limits]\ntier = \"small\"\n", "replicas = 64");
    host.kill();
    let entries = write(&data);
    let start = Instant::now();
    let host = Host::start_in(&data, &[]);
    let took = start.elapsed();
    let crew = &host.get("/v1/crews")["items"][0];
    assert_eq!(crew["tasks"]["in_progress"], WAITING, "{crew}");
    vec![json!({
        "value": round(took.as_secs_f64(), 2), "unit": "s to ready", "live_tasks": WAITING, "n": entries, "durability": "synced", "floor_us": floor
    })]
}

/// A shard as a driver drives it, without a runner.
struct Journal {
    shard: Shard,
    store: Store,
    now: Time,
    ids: u128,
    crew: CrewId,
    started: Vec<Lease>,
    entries: u64,
}

/// Puts the tasks and the entries into the store of a data directory.
fn write(data: &Path) -> u64 {
    let options = Options {
        blob_bytes: MAX_UPLOAD_BYTES,
        ..Options::default()
    };
    let (store, recovered) = Store::open(&data.join("store"), options).expect("the store opens");
    let records: Vec<_> = recovered.records().collect::<Result<_, _>>().expect("records are read");
    let mut shard = Shard::load(recovered.checkpoint.0, records).expect("records are ours");
    for entry in recovered.entries() {
        let (position, entry) = entry.expect("entries are read");
        shard.replay(position.0, &entry).expect("entries are ours");
    }
    drop(recovered);
    let crew = shard.state().crews().next().expect("the crew is there").id;
    let mut journal = Journal {
        shard,
        store,
        now: now(),
        ids: 1 << 100,
        crew,
        started: Vec::new(),
        entries: 0,
    };
    let resumed = journal.shard.resume(journal.now);
    journal.perform(resumed);
    let day = journal.now.after(Millis(86_400_000));
    journal.run(WAITING as u64, |_, lease| Command::Step {
        lease,
        number: 0,
        call: StepCall::Sleep { until: day },
        child: None,
        mail: None,
    });
    let checkpoint = journal.shard.checkpoint();
    let position = Position(checkpoint.position);
    journal
        .store
        .checkpoint(position, checkpoint.records)
        .expect("a checkpoint is taken");
    journal.entries = 0;
    while journal.entries < ENTRIES {
        journal.run(MAX_SUBMISSION as u64, |_, lease| Command::AttemptEnded {
            lease,
            end: End::Finished(Outcome::Done(Payload::Inline(b"[1,2,3]".to_vec()))),
            usage: Usage::default(),
            denials: Vec::new(),
            children: Vec::new(),
        });
    }
    let entries = journal.entries;
    journal.store.close().expect("the store closes");
    entries
}

impl Journal {
    /// Submits tasks and has each attempt say that it began, and then something else.
    fn run(&mut self, tasks: u64, says: impl Fn(&Journal, Lease) -> Command) {
        let mut left = tasks;
        while left > 0 {
            let count = left.min(MAX_SUBMISSION as u64);
            left -= count;
            let tasks = (0..count).map(|_| self.task()).collect();
            self.submit(Command::SubmitTasks {
                crew: self.crew,
                tasks,
                idempotency: None,
                by: "figures".into(),
            });
            while let Some(lease) = self.started.pop() {
                self.submit(Command::AttemptStarted { lease });
                let command = says(self, lease);
                self.submit(command);
            }
        }
    }

    fn task(&mut self) -> NewTask {
        self.ids += 1;
        NewTask {
            id: TaskId::new(self.ids << 16, 0),
            seed: 7,
            description: "nothing".into(),
            input: Payload::Inline(b"[1,2,3]".to_vec()),
            roles: Default::default(),
            agent: None,
            plan: false,
            notes: Vec::new(),
            check: false,
            max_retries: None,
            dependencies: Vec::new(),
            labels: Default::default(),
            ephemeral: false,
            retry: Default::default(),
            priority: Default::default(),
            timeouts: Default::default(),
            on_failure: Default::default(),
            approval: None,
            parts: None,
            budget: None,
        }
    }

    fn submit(&mut self, command: Command) {
        let output = self
            .shard
            .submit(self.now, &Facts::default(), command)
            .expect("nothing is refused");
        self.perform(output);
    }

    fn perform(&mut self, output: Output) {
        if !output.entries.is_empty() {
            self.entries += output.entries.len() as u64;
            let writes = output.writes.into_iter().map(|write| Write::Put {
                table: TASKS,
                key: write.key,
                value: write.value.expect("only rows of ended tasks are written here"),
            });
            let batch = Batch {
                entries: output.entries,
                audit: Vec::new(),
                writes: writes.collect(),
            };
            self.store.append(batch).expect("entries are taken");
        }
        for effect in output.effects {
            match effect {
                RunnerCommand::Start { lease, .. } => self.started.push(lease),
                RunnerCommand::Warm { agent, .. } => self.submit(Command::Warmed {
                    agent: agent.agent,
                    generation: agent.generation,
                }),
                _ => {}
            }
        }
    }
}
