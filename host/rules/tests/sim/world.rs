//! The world around a shard: clients, a runner that loses and repeats things, a disk, a clock.

use std::collections::{BTreeMap, BTreeSet};

use skep_rules::{
    agent::{Agent, Phase},
    approval::Points,
    audit::{AuditEntry, Kind},
    command::{Command, Consent, Idempotency, NewTask},
    crew::CrewManifest,
    crew_record::CrewPhase,
    decide::Reply,
    effect::Changed,
    event::Event,
    facts::{Facts, Table},
    grant::Ceiling,
    id::{AgentId, ApprovalId, CrewId, Digest, MessageId, TaskId},
    key::PublicKey,
    lifecycle::{Hold, OnFailure, Request},
    limits::{REVOCATION_DRAIN, REVOCATION_SWEEP},
    manifest::Manifest,
    metadata::{Document as _, Index, Keys, Revocations, Root},
    plan::Note,
    plugin::Plugin,
    priority::Priority,
    quantity::{Fuel, Millis, Size, Time},
    reason::Reason,
    rejection::Rejection,
    seam::{Export, Lease},
    shard::{Output, Shard},
    state::State,
    task::{Task, TaskState},
    trust::Revocation,
};

use crate::{
    calendar::Calendar,
    disk::Disk,
    faults::{Luck, ROLES},
    invariants,
    ledger::Ledger,
    people::{self, People},
    post::TOPICS,
    runner::Runner,
};

/// What the default seeds must have shown at least once, or the simulation proves little.
pub(crate) const MUST_BE_SEEN: &[&str] = &[
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "SKIPPED",
    "RETRY_WAIT",
    "VERIFYING",
    "WAITING",
    "crash",
    "fenced",
    "lost",
    "repeated",
    "stopped crew",
    "checkpoint",
    "rejected",
    "archived dependency",
    "FAILED agent",
    "PAUSED",
    "AWAITING_APPROVAL",
    "BLOCKED",
    "REJECTED",
    "resumed",
    "QUARANTINED agent",
    "new version",
    "revoked by command",
    "revoked by index",
    "drained by the sweep",
    "crew of what is revoked",
    "ephemeral task",
    "ephemeral part",
    "ephemeral task lost",
    "ephemeral task between synced ones",
    "stopped host",
    "given back",
    "spawned",
    "written",
    "conflict",
    "refused step",
    "over its quota",
    "over its budget",
    "doubled step",
    "fenced step",
    "not heard of",
    "parked",
    "woken by a child",
    "woken by time",
    "given back to who kept it",
    "continued with its record",
    "read from rows",
    "continued in another run",
    "diverged",
    "full disk",
    "crash while starting",
    "timed out",
    "paused by a person",
    "resumed where it was",
    "tried again by a person",
    "reprioritised",
    "overridden",
    "exhausted",
    "escalated",
    "split anew",
    "dead letter",
    "redriven",
    "sequenced",
    "given plan",
    "lane",
    "filled slot",
    "budget used up",
    "broken promise",
    "refused sequence",
    "message",
    "message again",
    "message of an agent",
    "received",
    "no listener",
    "dead message",
    "message expired",
    "message redriven",
    "message redriven before",
    "request answered",
    "request timed out",
    "request failed",
    "question in a delivery",
    "fired",
    "made up for",
    "refused firing",
    "skipped",
    "all but one passed over",
    "more missed than is made up for",
    "ended schedule",
    "deleted schedule",
];

/// What plugins there are, and what they export.
const PLUGINS: &[(&str, &[Export])] = &[
    ("worker", &[Export::Executor]),
    ("planner", &[Export::Planner]),
    ("checker", &[Export::Checker]),
    ("all", Export::ALL),
];

pub(crate) struct World {
    pub(crate) luck: Luck,
    pub(crate) seen: BTreeMap<&'static str, u64>,
    pub(crate) now: Time,
    pub(crate) shard: Shard,
    pub(crate) disk: Disk,
    pub(crate) runner: Runner,
    pub(crate) ledger: Ledger,
    calendar: Calendar,
    pub(crate) people: People,
    /// Attempts that were overtaken, as the audit log was told.
    pub(crate) fenced: usize,
    /// When an index revoked a file.
    fell: BTreeMap<Digest, Time>,
    /// Agents of such files that were found to be let finish, and when first.
    draining: BTreeMap<AgentId, Time>,
    pub(crate) faulty: bool,
    /// Answers that wait for the disk.
    owed: Vec<(u64, Promise)>,
    /// What clients were told: tasks accepted, keys used.
    accepted: BTreeSet<TaskId>,
    keys: BTreeMap<String, (Digest, Vec<TaskId>)>,
    /// How tasks ended, as streams were told.
    ended: BTreeMap<TaskId, TaskState>,
    /// Ephemeral tasks of all lives, and the agents that were given one: of those the disk knows less.
    ephemeral: BTreeSet<TaskId>,
    lent: BTreeSet<AgentId>,
}

enum Promise {
    Accepted(Vec<TaskId>, Option<(String, Digest)>),
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World {
            luck: Luck::new(seed),
            seen: BTreeMap::new(),
            now: Time(1_000_000),
            shard: Shard::default(),
            disk: Disk::default(),
            runner: Runner::default(),
            ledger: Ledger::default(),
            calendar: Calendar::default(),
            people: People::default(),
            fenced: 0,
            fell: BTreeMap::new(),
            draining: BTreeMap::new(),
            faulty: true,
            owed: Vec::new(),
            accepted: BTreeSet::new(),
            keys: BTreeMap::new(),
            ended: BTreeMap::new(),
            ephemeral: BTreeSet::new(),
            lent: BTreeSet::new(),
        };
        world.shard.take_unsigned(true);
        world.assemble();
        world
    }

    pub(crate) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        if self.luck.percent(3) {
            self.plan_ahead();
        }
        match self.luck.below(100) {
            0..=1 => self.assemble(),
            2..=13 => self.submit_tasks(),
            14 => self.upgrade(),
            15 if self.luck.percent(60) => self.revoke(),
            15 => self.send_message(),
            16 if self.luck.percent(25) => self.resume(),
            16 => self.ask(),
            17..=18 => self.cancel(),
            19 => self.drain(),
            20..=23 => self.send_message(),
            24 => self.redrive_message(),
            25..=59 => self.deliver(),
            60..=65 => self.work(),
            66..=69 => self.decide(),
            70..=79 => self.pass(),
            80..=92 => self.sync(),
            93..=95 => self.checkpoint(),
            96 => self.beat(),
            97 => self.stop(),
            98 => self.deliver_stale(),
            _ if self.luck.percent(20) => self.fill_disk(),
            _ => self.crash(),
        }
        if self.luck.percent(10) {
            assert!(
                self.shard.state().index_is_right(),
                "the index is a function of the records"
            );
        }
        invariants::check(&self.shard, self.now);
        self.nothing_void_is_given();
    }

    /// Faults stop: every task that was accepted comes to its end, and what was promised is so.
    pub(crate) fn calm_down(&mut self) {
        self.faulty = false;
        self.delete_schedules();
        for _ in 0..20_000 {
            if self.shard.state().tasks().all(|task| task.state.is_ended()) {
                break;
            }
            self.let_work();
            // Whoever is paused waits for a person, who now and then gives it up.
            while self.is_any_paused() {
                // What has no fuel left, or promises what it never gives, is paused again and again.
                if self.luck.percent(80) {
                    self.resume();
                }
                self.cancel_paused();
            }
            self.let_work();
            // People answer some of what they are asked, the rest expires.
            if self.luck.percent(50) {
                self.decide();
            }
            if let Some(wake) = self.shard.next_wake(self.now) {
                self.now = self.now.max(wake);
            }
            self.tick();
            invariants::check(&self.shard, self.now);
        }
        let left: Vec<&Task> = self
            .shard
            .state()
            .tasks()
            .filter(|task| !task.state.is_ended())
            .collect();
        assert!(left.is_empty(), "these never ended: {left:?}");
        self.sync_all();
        let accepted = self.accepted.clone();
        for id in accepted {
            assert!(self.ending(id).is_some(), "{id} was accepted and is nowhere");
        }
        self.ledger.check_state(&self.disk, &self.shard);
        self.ledger.check_records(&self.disk, &self.shard);
        for what in self.calendar.check() {
            self.saw(what);
        }
        self.check_decisions();
        self.replay_is_the_same();
    }

    /// Every attempt comes to its end, or to where it waits, and every message arrives.
    fn let_work(&mut self) {
        while !(self.runner.mail.is_empty() && self.runner.running.is_empty()) {
            let leases: Vec<Lease> = self.runner.running.keys().copied().collect();
            for lease in leases {
                self.advance(lease);
            }
            while !self.runner.mail.is_empty() {
                self.deliver();
            }
        }
    }

    /// Everything that is remembered, for comparing runs.
    pub(crate) fn digest(&self) -> String {
        format!("{:?} {:?} {:?}", self.now, self.ended, self.seen)
    }

    pub(crate) fn submit(&mut self, command: Command) -> Result<Reply, Rejection> {
        let needs = command.needs(self.shard.state());
        let facts = Facts {
            idempotency: needs
                .idempotency
                .and_then(|key| self.disk.row(Table::Idempotency, key.as_bytes()))
                .map(|row| minicbor::decode(&row).unwrap()),
            tasks: needs
                .tasks
                .iter()
                .filter_map(|id| Some((*id, self.archived(*id)?)))
                .collect(),
            value: needs
                .value
                .and_then(|key| self.disk.row(Table::State, &key))
                .map(|row| minicbor::decode(&row).unwrap()),
            old: needs
                .old
                .and_then(|key| self.disk.row(Table::Replaced, &key))
                .map(|row| minicbor::decode(&row).unwrap()),
            page: needs.page.map(|page| self.disk.page(&page)).unwrap_or_default(),
            message: needs
                .message
                .and_then(|id| self.disk.row(Table::Messages, &id.to_bytes()))
                .map(|row| minicbor::decode(&row).unwrap()),
            approval: needs
                .approval
                .and_then(|id| self.disk.row(Table::Approvals, &id.to_bytes()))
                .map(|row| minicbor::decode(&row).unwrap()),
        };
        let before = self.shard.position();
        match self.shard.submit(self.now, &facts, command) {
            Ok(output) => Ok(self.perform(output)),
            Err(rejection) => {
                assert_eq!(self.shard.position(), before);
                self.saw("rejected");
                Err(rejection)
            }
        }
    }

    fn archived(&self, id: TaskId) -> Option<Task> {
        self.disk
            .row(Table::Tasks, &id.to_bytes())
            .map(|row| minicbor::decode(&row).unwrap())
    }

    fn perform(&mut self, output: Output) -> Reply {
        self.note_ephemeral(&output);
        self.note_fenced(&output);
        self.note_used_up(&output);
        self.note_messages(&output);
        self.calendar.note(&output);
        self.note_questions(&output);
        self.disk.append(&output);
        for effect in output.effects {
            self.told(effect);
        }
        output.reply
    }

    /// Takes note of tasks whose attempts are used up.
    fn note_used_up(&mut self, output: &Output) {
        let state = self.shard.state();
        let is = |found: fn(&Task) -> bool| state.tasks().any(found);
        let seen = [
            (
                "sequenced",
                is(|task| task.draft.as_ref().is_some_and(|draft| !draft.given)),
            ),
            (
                "given plan",
                is(|task| task.draft.as_ref().is_some_and(|draft| draft.given) && task.is_split()),
            ),
            (
                "lane",
                is(|task| task.part.as_ref().is_some_and(|part| part.lane.is_some())),
            ),
        ];
        for (what, seen) in seen {
            if seen {
                self.saw(what);
            }
        }
        for entry in &output.audit {
            let held = entry.task.and_then(|id| self.shard.state().task(id));
            let escalates = held.is_some_and(Task::escalates);
            let exhausted = held.is_some_and(|task| task.hold == Some(Hold::Exhausted));
            match entry.kind {
                Kind::TaskEnded if entry.reason == Some(Reason::DeadLetter) => self.saw("dead letter"),
                Kind::TaskEnded if entry.reason == Some(Reason::BudgetExhausted) => self.saw("budget used up"),
                Kind::TaskEnded if entry.detail.contains("not what the plan says") => self.saw("broken promise"),
                Kind::TaskEnded if entry.detail.contains("the sequencer must keep") => self.saw("refused sequence"),
                Kind::TaskPaused if exhausted && escalates => self.saw("escalated"),
                Kind::TaskPaused if exhausted => self.saw("exhausted"),
                Kind::TaskEscalated => self.saw("split anew"),
                _ => {}
            }
        }
    }

    /// What is written never speaks of an ephemeral task, unless something was refused to it.
    fn note_ephemeral(&mut self, output: &Output) {
        let state = self.shard.state();
        let known = self.ephemeral.len();
        self.ephemeral
            .extend(state.tasks().filter(|task| task.ephemeral).map(|task| task.id));
        // Some end in the decision that makes them.
        self.ephemeral.extend(state.recent_ids());
        let parts = state.tasks().any(|task| task.ephemeral && task.parent.is_some());
        for task in state.tasks().filter(|task| task.ephemeral) {
            self.lent.extend(task.held.as_ref().map(|held| held.lease.agent));
        }
        for entry in &output.entries {
            let about = match minicbor::decode(entry).expect("an entry is an event") {
                Event::TaskAccepted(task) => task.id,
                Event::TaskMoved { task, .. } | Event::TreeArchived { root: task } => task,
                Event::AttemptUsed { lease, .. } => lease.task,
                _ => continue,
            };
            assert!(!self.ephemeral.contains(&about), "{about} is in the journal");
        }
        for entry in &output.audit {
            let about = entry.task.is_some_and(|task| self.ephemeral.contains(&task));
            // Of an attempt that outlived its host nobody knows what it was.
            let may = matches!(entry.kind, Kind::Denied | Kind::AttemptFenced);
            assert!(!about || may, "{entry:?}");
        }
        for write in output.writes.iter().filter(|write| write.table == Table::Tasks) {
            assert!(!self.ephemeral.iter().any(|id| write.key == id.to_bytes()));
        }
        if self.ephemeral.len() > known {
            self.saw("ephemeral task");
        }
        if parts {
            self.saw("ephemeral part");
        }
    }

    fn pass(&mut self) {
        let most = [100, 2_000, 10_000, 200_000][self.luck.index(4)];
        self.now = self.now.after(Millis(self.luck.below(most)));
        if self.luck.percent(60) {
            self.beat();
        }
        self.tick();
    }

    fn tick(&mut self) {
        let output = self.shard.tick(self.now);
        let expired = |entry: &&AuditEntry| entry.kind == Kind::TaskEnded && entry.reason == Some(Reason::TimedOut);
        if output.audit.iter().any(|entry| expired(&entry)) {
            self.saw("timed out");
        }
        self.perform(output);
        self.what_fell_ends();
        self.what_is_due_is_done();
        self.nothing_is_late();
    }

    fn sync(&mut self) {
        let batches = self.luck.index(self.disk.pending() + 1);
        self.sync_some(batches);
    }

    fn sync_all(&mut self) {
        self.sync_some(self.disk.pending());
    }

    fn sync_some(&mut self, batches: usize) {
        let durable = self.disk.sync(batches);
        for notice in self.shard.durable(durable).into_iter().flat_map(|(_, notices)| notices) {
            if let Changed::Approval { settled, .. } = notice.what {
                self.saw(people::name_of(settled));
            }
            let Changed::Task { task, state, .. } = notice.what else {
                continue;
            };
            self.saw(name_of(state));
            if state.is_ended() {
                assert_eq!(self.ended.insert(task, state), None, "{task} ends once");
                let kept = match self.ephemeral.contains(&task) {
                    true => self
                        .shard
                        .state()
                        .recent(task)
                        .or_else(|| self.shard.state().task(task).cloned()),
                    false => self.archived(task),
                };
                let row = kept.expect("an ended task has a row, or is remembered for a while");
                assert_eq!(row.state, state);
            }
        }
        let (kept, owed) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|(at, _)| *at > durable);
        self.owed = kept;
        for (_, Promise::Accepted(tasks, key)) in owed {
            self.accepted.extend(tasks.iter().copied());
            if let Some((key, digest)) = key {
                self.keys.insert(key, (digest, tasks));
            }
        }
    }

    fn checkpoint(&mut self) {
        let checkpoint = self.shard.checkpoint();
        self.disk.write_checkpoint(checkpoint);
        self.saw("checkpoint");
    }

    /// The host stops in order: nothing is lost, and no attempt has been made for nothing.
    fn stop(&mut self) {
        let held = |task: &&Task| task.held.is_some() && !task.ephemeral;
        let credits = |state: &State| -> BTreeMap<TaskId, (u32, u32)> {
            let tasks = state.tasks().filter(|task| !task.ephemeral && !task.state.is_ended());
            tasks.map(|task| (task.id, (task.retries, task.faults))).collect()
        };
        let before = credits(self.shard.state());
        if self.shard.state().tasks().filter(held).count() > 0 {
            self.saw("given back");
        }
        loop {
            let output = self.shard.hand_back(self.now);
            assert!(output.audit.iter().all(|entry| entry.kind != Kind::AttemptFailed));
            assert!(output.effects.is_empty(), "nothing new begins");
            self.perform(output);
            if !self.shard.is_unfinished() {
                break;
            }
        }
        self.checkpoint();
        self.sync_all();
        let told = self.come_up();
        assert!(told.iter().all(|entry| entry.reason != Some(Reason::Interrupted)));
        let after = credits(self.shard.state());
        assert!(after.iter().all(|(id, credit)| before.get(id) == Some(credit)));
        self.saw("stopped host");
    }

    /// The host dies; the disk has kept a prefix, and may have got further than anybody was told.
    fn crash(&mut self) {
        let batches = self.luck.index(self.disk.pending() + 1);
        self.disk.sync(batches);
        self.saw("crash");
        self.start_again();
    }

    /// The disk takes a part of what it was given and refuses the rest: the shard stops, and is opened again from what is durable.
    fn fill_disk(&mut self) {
        let batches = self.luck.index(self.disk.pending() + 1);
        self.sync_some(batches);
        self.saw("full disk");
        self.start_again();
    }

    /// The host dies, and the disk has kept everything.
    pub(crate) fn die(&mut self) {
        self.sync_all();
        self.start_again();
    }

    fn start_again(&mut self) {
        self.disk.crash();
        self.ledger.crash(self.disk.durable());
        self.calendar.crash(self.disk.durable());
        self.people.crash(self.disk.durable());
        self.owed.clear();
        drop(self.come_up());
    }

    /// A host finds the disk as it is; what it tells the audit log.
    fn come_up(&mut self) -> Vec<AuditEntry> {
        let luck = &mut self.luck;
        self.runner.lose(|| luck.percent(20));
        // A runner that outlives its host speaks of a life that is over.
        if self.luck.percent(50) {
            self.runner.mail.clear();
        }
        if self
            .shard
            .state()
            .tasks()
            .any(|task| task.ephemeral && !task.state.is_ended())
        {
            self.saw("ephemeral task lost");
        }
        self.shard = self.disk.recover();
        assert!(self.shard.state().index_is_right());
        assert!(self.shard.state().tasks().all(|task| !task.ephemeral));
        self.ended.retain(|id, _| !self.ephemeral.contains(id));
        self.now = self.now.after(Millis(self.luck.below(60_000)));
        let mut output = self.shard.resume(self.now);
        if self.luck.percent(10) {
            // It dies again before what it resumed with is durable.
            self.shard = self.disk.recover();
            output = self.shard.resume(self.now);
            self.saw("crash while starting");
        }
        self.disk.append(&output);
        self.sync_all();
        self.ledger.check_state(&self.disk, &self.shard);
        self.check_decisions();
        output.effects.into_iter().for_each(|effect| self.told(effect));
        let accepted: Vec<TaskId> = self.accepted.iter().copied().collect();
        for id in accepted {
            let known = self.shard.state().task(id).is_some() || self.archived(id).is_some();
            assert!(known, "{id} was accepted and is lost");
        }
        let ended: Vec<_> = self.ended.iter().map(|(id, state)| (*id, *state)).collect();
        for (id, state) in ended {
            assert_eq!(
                self.archived(id).map(|task| task.state),
                Some(state),
                "what has ended stays so"
            );
            assert!(self.shard.state().task(id).is_none_or(|task| task.state == state));
        }
        output.audit
    }

    /// A replay of what the disk has gives the state that lives.
    fn replay_is_the_same(&self) {
        let again = self.disk.recover();
        let (live, replayed) = (self.shard.state(), again.state());
        assert!(live.tasks().filter(|task| !task.ephemeral).eq(replayed.tasks()));
        assert_eq!(live.agents().count(), replayed.agents().count());
        for (live, replayed) in live.agents().zip(replayed.agents()) {
            // What ephemeral tasks have used, and whether one of them holds a slot just now, the disk does not know.
            let known = |agent: &Agent| Agent {
                phase: if agent.phase == Phase::Busy {
                    Phase::Ready
                } else {
                    agent.phase
                },
                active: 0,
                revision: 0,
                tasks: 0,
                fuel: Fuel(0),
                peak_memory: Size(0),
                ..agent.clone()
            };
            let same = live == replayed || (self.lent.contains(&live.id) && known(live) == known(replayed));
            assert!(same, "{live:?} is replayed as {replayed:?}");
        }
        assert!(live.crews().eq(replayed.crews()));
        assert!(live.plugins().eq(replayed.plugins()));
        assert_eq!(live.trust(), replayed.trust());
        assert!(live.namespaces().eq(replayed.namespaces()));
        assert!(
            live.messages()
                .filter(|message| !message.is_volatile())
                .eq(replayed.messages())
        );
        assert!(live.schedules().eq(replayed.schedules()));
        assert_eq!(live.next_due(), replayed.next_due());
        assert!(live.approvals().eq(replayed.approvals()));
        for task in live.tasks() {
            assert_eq!(live.tail(task.id), replayed.tail(task.id), "{task:?}");
        }
        for digest in live
            .plugins()
            .map(|plugin| plugin.digest)
            .chain(self.fell.keys().copied())
        {
            assert_eq!(live.is_void(digest), replayed.is_void(digest));
        }
        assert!(again.state().index_is_right());
    }

    fn ending(&self, id: TaskId) -> Option<TaskState> {
        self.shard
            .state()
            .task(id)
            .cloned()
            .or_else(|| self.shard.state().recent(id))
            .or_else(|| self.archived(id))
            .map(|task| task.state)
    }

    fn assemble(&mut self) {
        let name = format!("crew-{}", self.luck.below(6));
        let mut text = format!("name = \"{name}\"\n");
        let mut void = false;
        for (at, (plugin, _)) in PLUGINS.iter().enumerate() {
            if at == 0 || self.luck.percent(70) {
                let replicas = self.luck.below(3) + 1;
                if self.versions(plugin).is_empty() {
                    self.install(plugin);
                }
                let versions = self.versions(plugin);
                let newest = versions.iter().max_by_key(|plugin| plugin.installed_at);
                let chosen = if self.luck.percent(80) {
                    newest
                } else {
                    self.luck.pick(&versions)
                };
                let (version, digest) = chosen.map(|it| (&it.manifest.plugin.version, it.digest)).unwrap();
                void |= self.shard.state().is_void(digest);
                text.push_str(&format!(
                    "[[agent]]\nname = \"{plugin}\"\nplugin = \"sim/{plugin}@{version}\"\nreplicas = {replicas}\n\
                     grants = {{ state = {{ quota = \"48KiB\" }}, tasks = {{ children = 3 }}, messages = {TOPICS} }}\n"
                ));
            }
        }
        let manifest = CrewManifest::parse(&text).unwrap();
        let size: usize = manifest.members.iter().map(|member| member.agent_names().count()).sum();
        let command = Command::AssembleCrew {
            crew: CrewId::new(self.luck.wide(), 1),
            agents: (0..size).map(|_| AgentId::new(self.luck.wide(), 1)).collect(),
            manifest: manifest.clone(),
            plugins: self.shard.state().plugins().cloned().collect(),
            ceiling: Ceiling::default(),
            by: "sim".into(),
        };
        let taken = self.shard.state().crew_named(&manifest.name).is_some();
        match self.submit(command) {
            Ok(reply) => assert!(matches!(reply, Reply::Assembled(_)) && !taken && !void),
            Err(rejection) if taken => assert_eq!(rejection.reason, Reason::Conflict, "{rejection}"),
            Err(rejection) => {
                assert!(void && rejection.reason == Reason::Revoked, "{rejection}");
                self.saw("crew of what is revoked");
            }
        }
    }

    /// The installed versions of a plugin.
    fn versions(&self, name: &str) -> Vec<Plugin> {
        let of = |plugin: &&Plugin| plugin.manifest.plugin.name.plugin() == name;
        self.shard.state().plugins().filter(of).cloned().collect()
    }

    /// Installs the next version of a plugin.
    fn install(&mut self, name: &str) {
        let plugin = plugin(name, self.versions(name).len());
        let command = Command::InstallPlugin {
            plugin,
            by: "sim".into(),
            signed: None,
            consent: Consent::default(),
        };
        // A crash may have taken back the install of this file, but not that it is revoked.
        if let Err(rejection) = self.submit(command) {
            assert_eq!(rejection.reason, Reason::Revoked, "{rejection}");
        }
    }

    fn upgrade(&mut self) {
        let (name, _) = *self.luck.pick(PLUGINS).unwrap();
        self.install(name);
        self.saw("new version");
    }

    /// A file is revoked, by a person or by an index; a new version follows.
    fn revoke(&mut self) {
        let state = self.shard.state();
        let sound: Vec<Plugin> = state
            .plugins()
            .filter(|plugin| !state.is_void(plugin.digest))
            .cloned()
            .collect();
        let Some(plugin) = self.luck.pick(&sound) else {
            return;
        };
        let (digest, name) = (plugin.digest, plugin.manifest.plugin.name.plugin().to_owned());
        if self.luck.percent(50) {
            let command = Command::Revoke {
                what: Revocation::Digest(digest),
                why: "as the dice fell".into(),
                by: "sim".into(),
            };
            self.fell.remove(&digest);
            self.submit(command).unwrap();
            self.saw("revoked by command");
        } else {
            self.revoke_by_index(digest);
        }
        if self
            .shard
            .state()
            .agents()
            .any(|agent| agent.phase == Phase::Quarantined)
        {
            self.saw("QUARANTINED agent");
        }
        self.install(&name);
    }

    fn revoke_by_index(&mut self, digest: Digest) {
        let metadata = self.shard.state().trust().metadata();
        let (now, later) = (self.now, |days: u64| self.now.after(Millis(days * 86_400_000)));
        let keys = Keys {
            keys: [PublicKey::from_bytes([1; 32])].into(),
            threshold: 1,
        };
        let signers = BTreeSet::from([PublicKey::from_bytes([1; 32]).id()]);
        let root = Root {
            format: 1,
            version: 1,
            issued: now,
            expires: later(300),
            root: keys.clone(),
            index: Some(keys),
            clock: None,
            publishers: Vec::new(),
        };
        let index = Index {
            format: 1,
            version: metadata.index.as_ref().map_or(1, |index| index.version + 1),
            issued: now,
            expires: later(7),
            plugins: BTreeMap::new(),
            revoked: Revocations {
                version: metadata.revoked.version + 1,
                digests: [digest].into(),
                ..Revocations::default()
            },
        };
        let by = || "sim".to_owned();
        if metadata.roles.is_none() {
            let signers = signers.clone();
            self.submit(Command::AdoptRoot {
                root,
                signers,
                by: by(),
            })
            .unwrap();
        }
        let command = Command::AdoptIndex {
            digest: Digest::of(&index.to_json()),
            index,
            signers,
            by: by(),
        };
        self.submit(command).unwrap();
        self.fell.insert(digest, now);
        self.saw("revoked by index");
    }

    fn paused(&self) -> Vec<TaskId> {
        let tasks = self.shard.state().tasks();
        tasks
            .filter(|task| task.state == TaskState::Paused)
            .map(|task| task.id)
            .collect()
    }

    fn is_any_paused(&self) -> bool {
        !self.paused().is_empty()
    }

    fn resume(&mut self) {
        let paused = self.paused();
        if let Some(task) = self.luck.pick(&paused).copied() {
            let by = "sim".to_owned();
            let hold = self.shard.state().task(task).and_then(|task| task.hold);
            self.submit(Command::ResumeTask { task, by }).unwrap();
            self.saw("resumed");
            if matches!(hold, Some(Hold::Person(_))) {
                self.saw("resumed where it was");
            }
        }
    }

    /// A person asks for something, which is done exactly where it may be asked for, and by whoever has read the record as it is.
    fn ask(&mut self) {
        if self.luck.percent(40) {
            return self.redrive();
        }
        let tasks: Vec<Task> = self.shard.state().tasks().cloned().collect();
        // Of those that wait for somebody more is asked than of others.
        let idle = |task: &&Task| matches!(task.state, TaskState::Paused | TaskState::RetryWait);
        let idle: Vec<Task> = tasks.iter().filter(idle).cloned().collect();
        let some = self.luck.percent(40) && !idle.is_empty();
        let Some(task) = self.luck.pick(if some { &idle } else { &tasks }) else {
            return;
        };
        let request = self.luck.request();
        let stale = self.luck.percent(10);
        let legal = Request::legal(task).contains(&request.name());
        let command = Command::ChangeTask {
            task: task.id,
            request: request.clone(),
            revision: Some(task.revision + u64::from(stale)),
            by: "sim".into(),
        };
        match self.submit(command) {
            Ok(_) => assert!(legal && !stale, "{request:?} of {task:?}"),
            Err(rejection) if stale => return assert_eq!(rejection.reason, Reason::StaleRevision),
            Err(rejection) => {
                assert!(!legal, "{request:?} of {task:?}: {rejection}");
                assert_eq!(rejection.legal, Request::legal(task));
                return;
            }
        }
        self.was_done(task, &request);
    }

    /// What a request has made of the task, and of what is beneath it.
    fn was_done(&mut self, task: &Task, request: &Request) {
        let state = self.shard.state();
        let tree = state.tree(task.id);
        let all = |of: &dyn Fn(&Task) -> bool| tree.iter().all(|task| task.state.is_ended() || of(task));
        match request {
            Request::Cancel => {
                assert!(all(&|_| false));
            }
            Request::Pause => {
                assert!(all(&|task| task.state.waits_for_person()));
                self.saw("paused by a person");
            }
            Request::Reprioritise(priority) => {
                assert!(all(&|task| task.priority == *priority));
                self.saw("reprioritised");
            }
            Request::OverrideResult { result, .. } => {
                // Where its tree is over with it, it is in the archive.
                let now = state.task(task.id);
                assert!(now.is_none_or(|now| now.result.as_ref() == Some(result)));
                self.saw("overridden");
            }
            Request::Retry => self.saw("tried again by a person"),
            Request::Resume if matches!(task.hold, Some(Hold::Person(_))) => self.saw("resumed where it was"),
            Request::Resume => {}
        }
    }

    /// A dead letter is submitted anew, once.
    fn redrive(&mut self) {
        let dead: Vec<TaskId> = self.shard.state().dead_letters().collect();
        let Some(task) = self.luck.pick(&dead).copied() else {
            return;
        };
        let known = self.shard.state().task(task).cloned().or_else(|| self.archived(task));
        let letter = known.expect("a dead letter is in memory or in the archive");
        let live = |crew: CrewId| {
            let crew = self.shard.state().crew(crew);
            crew.is_some_and(|crew| crew.phase == CrewPhase::Live)
        };
        let live = live(letter.crew);
        let id = TaskId::new(self.luck.wide(), 1);
        let mut anew = |id: Option<ApprovalId>| id.map(|_| ApprovalId::new(self.luck.wide(), 1));
        let points = letter.points.map(|points| Points {
            before: anew(points.before),
            after: anew(points.after),
            ..points
        });
        let command = Command::RedriveTask {
            task,
            dependencies: letter.dependencies.clone(),
            id,
            seed: self.luck.draw(),
            by: "sim".into(),
            points,
        };
        match self.submit(command.clone()) {
            Ok(reply) => {
                let tasks = vec![id];
                assert_eq!(reply, Reply::Submitted { tasks, repeated: false });
                assert!(live && !self.shard.state().is_dead_letter(task));
                self.owed
                    .push((self.shard.position(), Promise::Accepted(vec![id], None)));
                let again = self.submit(command).unwrap_err();
                assert_eq!(again.reason, Reason::IllegalTransition);
                self.saw("redriven");
            }
            Err(rejection) => assert!(!live || rejection.reason == Reason::NotFound, "{rejection}"),
        }
    }

    /// What time has to end it has ended, and nobody's letter is lost.
    fn what_is_due_is_done(&self) {
        let state = self.shard.state();
        if self.shard.is_unfinished() {
            return;
        }
        for task in state.tasks() {
            let due = |at: Option<Time>| at.is_some_and(|at| at <= self.now);
            assert!(!due(task.close_by()) && !due(task.start_by()), "{task:?} is too late");
        }
        for id in state.dead_letters() {
            let row = self.archived(id).expect("a dead letter has its row");
            let reason = row.failure.as_ref().map(|failure| failure.reason);
            assert_eq!((row.state, reason), (TaskState::Failed, Some(Reason::DeadLetter)));
            assert!(!row.history.is_empty() || row.retries == 0, "{row:?}");
        }
    }

    fn cancel_paused(&mut self) {
        let paused = self.paused();
        if let Some(task) = self.luck.pick(&paused).copied() {
            let by = "sim".to_owned();
            self.submit(Command::CancelTask { task, by }).unwrap();
        }
    }

    /// What is revoked holds no lease that was given after, and none at all where a person has revoked it.
    fn nothing_void_is_given(&self) {
        let state = self.shard.state();
        for held in state.tasks().filter_map(|task| task.held.as_ref()) {
            let agent = state.agent(held.lease.agent).unwrap();
            let digest = state.member_of(agent).unwrap().digest;
            if state.is_void(digest) && !self.shard.is_unfinished() {
                let fell = self.fell.get(&digest);
                assert!(fell.is_some_and(|fell| held.since <= *fell), "{held:?} since {fell:?}");
            }
        }
    }

    /// The sweep comes each minute, and ends in ten seconds what it lets finish.
    fn what_fell_ends(&mut self) {
        let state = self.shard.state();
        let mut draining = BTreeMap::new();
        for agent in state.agents() {
            let digest = state.member_of(agent).unwrap().digest;
            let fell = self.fell.get(&digest).filter(|_| state.is_void(digest));
            if self.shard.is_unfinished() || fell.is_none_or(|fell| fell.after(REVOCATION_SWEEP) > self.now) {
                continue;
            }
            assert!(!agent.phase.may_serve(), "{agent:?} fell at {fell:?}");
            if agent.phase == Phase::Draining {
                let since = self.draining.get(&agent.id).copied().unwrap_or(self.now);
                assert!(
                    since.after(REVOCATION_DRAIN) > self.now || since == self.now,
                    "{agent:?} is let finish since {since:?}"
                );
                draining.insert(agent.id, since);
            }
        }
        self.draining = draining;
        if !self.draining.is_empty() {
            self.saw("drained by the sweep");
        }
    }

    fn submit_tasks(&mut self) {
        let crews: Vec<CrewId> = self.shard.state().crews().map(|crew| crew.id).collect();
        let Some(crew) = self.luck.pick(&crews).copied() else {
            return;
        };
        let mut tasks: Vec<NewTask> = Vec::new();
        for _ in 0..self.luck.below(4) + 1 {
            let earlier = tasks.last().map(|task| task.id);
            tasks.push(self.new_task(crew, earlier));
        }
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        let ephemeral = tasks.iter().filter(|task| task.ephemeral).count();
        let idempotency = self
            .luck
            .percent(if ephemeral > 0 { 3 } else { 30 })
            .then(|| Idempotency {
                key: format!("key-{}", self.luck.below(20)),
                digest: Digest::of(&self.luck.below(2).to_be_bytes()),
            });
        let key = idempotency.clone().map(|given| (given.key, given.digest));
        let leaning = tasks
            .iter()
            .flat_map(|task| &task.dependencies)
            .any(|id| self.shard.state().task(*id).is_none() && self.archived(*id).is_some());
        let reply = self.submit(Command::SubmitTasks {
            crew,
            tasks,
            idempotency,
            by: "sim".into(),
        });
        match reply {
            Ok(Reply::Submitted { tasks, repeated }) => {
                if repeated {
                    self.saw("repeated");
                } else {
                    assert_eq!(tasks, ids);
                }
                if leaning {
                    self.saw("archived dependency");
                }
                if let Some((known, (digest, before))) = key.as_ref().and_then(|(key, _)| self.keys.get_key_value(key))
                {
                    let given = key.as_ref().map(|(_, digest)| *digest);
                    assert!(
                        !repeated || (given == Some(*digest) && tasks == *before),
                        "{known} answers as before"
                    );
                }
                if ephemeral > 0 && ephemeral < tasks.len() {
                    self.saw("ephemeral task between synced ones");
                }
                let synced = tasks.into_iter().filter(|id| !self.ephemeral.contains(id)).collect();
                self.owed.push((self.shard.position(), Promise::Accepted(synced, key)));
            }
            Ok(other) => unreachable!("{other:?}"),
            Err(rejection) => assert!(
                matches!(
                    rejection.reason,
                    Reason::NotFound | Reason::IllegalTransition | Reason::IdempotencyMismatch
                ) || (ephemeral > 0 && rejection.reason == Reason::InvalidInput),
                "{rejection}"
            ),
        }
    }

    /// Deliveries that were told of are tasks that were accepted.
    pub(crate) fn promise_message(&mut self, message: MessageId, deliveries: Vec<TaskId>) {
        let kept = deliveries
            .into_iter()
            .filter(|id| !self.ephemeral.contains(id))
            .collect();
        if self
            .shard
            .state()
            .message(message)
            .is_none_or(|message| !message.is_volatile())
        {
            self.owed.push((self.shard.position(), Promise::Accepted(kept, None)));
        }
    }

    pub(crate) fn new_task(&mut self, crew: CrewId, earlier: Option<TaskId>) -> NewTask {
        let plan = self.luck.percent(35);
        let mut dependencies: Vec<TaskId> = earlier.into_iter().filter(|_| self.luck.percent(40)).collect();
        if self.luck.percent(15) {
            let known: Vec<TaskId> = self.accepted.iter().copied().collect();
            dependencies.extend(self.luck.pick(&known));
        }
        let agents: Vec<String> = self
            .shard
            .state()
            .agents_of(crew)
            .map(|agent| agent.name.clone())
            .collect();
        let ephemeral = self.luck.percent(25);
        NewTask {
            approval: self.points().filter(|_| !ephemeral || self.luck.percent(5)),
            id: TaskId::new(self.luck.wide(), 1),
            seed: self.luck.draw(),
            description: "a task".into(),
            input: self.luck.payload(),
            roles: if self.luck.percent(50) {
                self.luck.roles()
            } else {
                BTreeSet::new()
            },
            agent: if self.luck.percent(10) {
                self.luck.pick(&agents).cloned()
            } else {
                None
            },
            plan,
            notes: if plan { vec![note()] } else { vec![] },
            parts: (!plan && self.luck.percent(6)).then(|| self.luck.given()),
            budget: self.luck.percent(10).then(|| Fuel(1 + self.luck.below(8_000_000))),
            check: self.luck.percent(30),
            max_retries: self
                .luck
                .percent(50)
                .then(|| u32::try_from(self.luck.below(3)).unwrap()),
            dependencies,
            labels: BTreeMap::new(),
            ephemeral,
            retry: self.luck.policy(ephemeral),
            priority: *self.luck.pick(&Priority::ALL).unwrap(),
            timeouts: self.luck.timeouts(),
            on_failure: [OnFailure::FailFast, OnFailure::Collect, OnFailure::Escalate][self.luck.index(3)],
        }
    }

    fn cancel(&mut self) {
        let tasks: Vec<TaskId> = self.shard.state().tasks().map(|task| task.id).collect();
        if let Some(task) = self.luck.pick(&tasks).copied() {
            let ended = self.ending(task).is_some_and(TaskState::is_ended);
            let by = "sim".to_owned();
            match self.submit(Command::CancelTask { task, by }) {
                Ok(_) => assert!(!ended),
                Err(rejection) => assert!(ended && rejection.reason == Reason::IllegalTransition),
            }
            assert!(self.ending(task).is_none_or(TaskState::is_ended));
        }
    }

    fn drain(&mut self) {
        let crews: Vec<CrewId> = self.shard.state().crews().map(|crew| crew.id).collect();
        if let Some(crew) = self.luck.pick(&crews).copied() {
            self.submit(Command::DrainCrew { crew, by: "sim".into() }).unwrap();
            let state = self.shard.state();
            assert!(
                state
                    .agents_of(crew)
                    .all(|agent| matches!(agent.phase, Phase::Draining | Phase::Stopped))
            );
            if state.crew(crew).is_some_and(|crew| crew.phase == CrewPhase::Stopped) {
                self.saw("stopped crew");
            }
        }
    }
}

fn note() -> Note {
    Note {
        name: "a.md".into(),
        text: "be brief".into(),
    }
}

fn name_of(state: TaskState) -> &'static str {
    let names = MUST_BE_SEEN.iter().find(|name| **name == state.to_string());
    names.copied().unwrap_or("another state")
}

/// A version of a plugin, counted from nought.
fn plugin(name: &str, version: usize) -> Plugin {
    let manifest = format!(
        "[plugin]\nname = \"sim/{name}\"\nversion = \"1.0.{version}\"\n[provides]\nroles = {ROLES:?}\n\
         [wants]\nstate = {{ quota = \"1MiB\" }}\ntasks = {{ children = 9 }}\nmessages = {TOPICS}\n"
    );
    let exports = PLUGINS.iter().find(|(of, _)| *of == name).map(|(_, exports)| *exports);
    Plugin {
        digest: Digest::of(format!("{name} {version}").as_bytes()),
        manifest: Manifest::parse(&manifest).unwrap(),
        exports: exports.unwrap().iter().copied().collect(),
        imports: vec!["skep:agent/log@0.1.0".into()],
        size: Size(1),
        installed_at: Time(0),
        revision: 0,
        signed: None,
    }
}
