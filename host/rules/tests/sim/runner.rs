//! The runner of the simulated world: it warms agents and executes attempts, loses and repeats messages, and keeps attempts that were overtaken.

use skep_rules::{
    audit::Kind,
    command::{Command, children_of},
    decide::Reply,
    facts::{Page, Table, record_key},
    id::{AgentId, TaskId},
    limits::RECORD_PAGE_BYTES,
    plan::{Outcome, Payload},
    quantity::Fuel,
    reason::Reason,
    seam::{Beat, Call, End, Lease, RunnerCommand, StepReply, TaskView},
    step::{Recorded, StepCall, StepName, StepResult, read_steps},
    task::Task,
};

use crate::{
    ledger::Answered,
    program::{Next, Program},
    world::World,
};

#[derive(Default)]
pub(crate) struct Runner {
    pub(crate) running: std::collections::BTreeMap<Lease, Attempt>,
    /// Instances that are kept while their runs wait.
    parked: std::collections::BTreeMap<TaskId, (AgentId, Program)>,
    /// Messages on their way to the shard, and the life of the host in which they were sent.
    pub(crate) mail: Vec<(u64, Command)>,
    pub(crate) life: u64,
}

pub(crate) struct Attempt {
    call: Call,
    program: Program,
    /// Its next step is on its way.
    asked: bool,
    /// It is not told what happens, gives no sign of life and goes on.
    zombie: bool,
    /// The life of the host that began it.
    life: u64,
}

impl Runner {
    /// The host dies. What it ran goes with it, or outlives it and does not know.
    pub(crate) fn lose(&mut self, mut survives: impl FnMut() -> bool) {
        self.life += 1;
        self.parked.clear();
        self.running.retain(|_, attempt| {
            (attempt.zombie, attempt.asked) = (true, false);
            survives()
        });
    }
}

impl World {
    /// What the runner makes of a command.
    pub(crate) fn told(&mut self, command: RunnerCommand) {
        match command {
            RunnerCommand::Warm { agent, .. } if self.faulty && self.luck.percent(5) => {
                self.send(Command::WarmFailed {
                    agent: agent.agent,
                    generation: agent.generation,
                    reason: Reason::CompileLimit,
                    message: "too large".into(),
                });
                self.saw("FAILED agent");
            }
            RunnerCommand::Warm { agent, .. } => self.send(Command::Warmed {
                agent: agent.agent,
                generation: agent.generation,
            }),
            RunnerCommand::Start { .. } if self.faulty && self.luck.percent(3) => self.saw("lost"),
            RunnerCommand::Start {
                lease,
                call,
                task,
                recorded,
            } => self.start(lease, call, &task, recorded),
            RunnerCommand::Cancel { lease } => self.let_go(lease),
            RunnerCommand::Forget { agent } => {
                let running = self.runner.running.keys().filter(|lease| lease.agent == agent);
                for lease in running.copied().collect::<Vec<_>>() {
                    self.let_go(lease);
                }
            }
            RunnerCommand::Drain { .. } => {}
        }
    }

    /// An attempt is told to stop, and sometimes does not hear it.
    fn let_go(&mut self, lease: Lease) {
        let deaf = self.faulty && self.luck.percent(15);
        match self.runner.running.get_mut(&lease) {
            Some(attempt) if deaf || attempt.zombie => attempt.zombie = true,
            Some(_) => {
                self.runner.running.remove(&lease);
                self.ends(lease, End::Cancelled);
            }
            None => {}
        }
    }

    fn start(&mut self, lease: Lease, call: Call, view: &TaskView, recorded: u64) {
        self.note_received(&call, recorded);
        self.send(Command::AttemptStarted { lease });
        let kept = self.runner.parked.remove(&lease.task);
        if matches!(&view.input, Payload::Inline(input) if input.starts_with(br#"{"part":"#)) {
            self.saw("filled slot");
        }
        let mut program = Program::new(lease.task, view);
        if recorded > 0 {
            assert!(view.records, "what has no record is given none");
            let Some(record) = self.record(lease, recorded) else {
                // Overtaken in the decision that began it.
                return self.ends(lease, End::Fenced);
            };
            record.iter().for_each(|step| program.give(step));
            self.saw("continued with its record");
            if let Some((agent, mut kept)) = kept {
                let last = record.last().unwrap();
                self.saw(match last.step.result {
                    StepResult::Done => "woken by time",
                    StepResult::Answered(_) => "request answered",
                    StepResult::Refused {
                        reason: Reason::TimedOut,
                        ..
                    } => "request timed out",
                    StepResult::Refused {
                        reason: Reason::Error, ..
                    } => "request failed",
                    StepResult::Decided(_) => "woken by a person, or for want of one",
                    _ => "woken by a child",
                });
                kept.give(last);
                assert_eq!(kept, program, "an instance that was kept is where its record is");
                if agent == lease.agent {
                    self.saw("given back to who kept it");
                }
            }
            if self.faulty && self.luck.percent(3) {
                let (expected, got) = ("what was".to_owned(), "what is".to_owned());
                self.saw("diverged");
                let step = recorded - 1;
                return self.ends(lease, End::Diverged { step, expected, got });
            }
        }
        let attempt = Attempt {
            call,
            program,
            asked: false,
            zombie: false,
            life: self.runner.life,
        };
        self.runner.running.insert(lease, attempt);
    }

    /// The record of the task that a lease holds, read as the host reads it: from rows where memory does not keep it.
    fn record(&mut self, lease: Lease, recorded: u64) -> Option<Vec<Recorded>> {
        let state = self.shard.state();
        let task = state.crew_of(&lease).and_then(|_| state.task(lease.task))?;
        assert_eq!(task.steps, recorded);
        let tail = state.tail(task.id).expect("memory keeps the last steps of a run");
        let mut steps = Vec::new();
        if tail.first > 0 {
            let rows = self.disk.page(&Page {
                table: Table::Steps,
                prefix: record_key(task.id, task.run, 0)[..20].to_vec(),
                after: None,
                reverse: false,
                limit: usize::MAX,
            });
            for (key, row) in rows {
                assert_eq!(key, record_key(task.id, task.run, steps.len() as u64));
                assert!(row.len() < RECORD_PAGE_BYTES, "a row is a page");
                steps.extend(read_steps(&row).unwrap());
            }
        }
        assert_eq!(tail.first, steps.len() as u64, "memory goes on where the rows end");
        steps.extend(read_steps(&tail.bytes).unwrap());
        assert_eq!(steps.len() as u64, recorded);
        let spilled = tail.first > 0;
        let record = steps.into_iter().map(|step| Recorded {
            ends: state.ends(&step),
            step,
        });
        let record = record.collect();
        if spilled {
            self.saw("read from rows");
        }
        Some(record)
    }

    pub(crate) fn send(&mut self, message: Command) {
        self.runner.mail.push((self.runner.life, message));
    }

    fn ends(&mut self, lease: Lease, end: End) {
        self.ends_in(self.runner.life, lease, end);
    }

    fn ends_in(&mut self, life: u64, lease: Lease, end: End) {
        let children = (0..children_of(&end))
            .map(|_| TaskId::new(self.luck.wide(), 1))
            .collect();
        let ended = Command::AttemptEnded {
            lease,
            usage: self.luck.usage(),
            denials: self.luck.denials(),
            children,
            end,
        };
        self.runner.mail.push((life, ended));
    }

    /// A random attempt takes a step or comes to its end; or it dies without a word, or is not heard of for long.
    pub(crate) fn work(&mut self) {
        let at = self.luck.index(self.runner.running.len());
        let Some(lease) = self.runner.running.keys().nth(at).copied() else {
            return;
        };
        match self.luck.below(100) {
            0..=2 if self.faulty => {
                self.runner.running.remove(&lease);
                self.saw("lost");
            }
            3..=5 if self.faulty => {
                if let Some(attempt) = self.runner.running.get_mut(&lease) {
                    attempt.zombie = true;
                }
                self.saw("not heard of");
            }
            _ => self.advance(lease),
        }
    }

    /// An attempt takes its next step, or ends.
    pub(crate) fn advance(&mut self, lease: Lease) {
        let child = TaskId::new(self.luck.wide(), 1);
        let fails = self.faulty && self.luck.percent(6);
        let Some(attempt) = self.runner.running.get_mut(&lease) else {
            return;
        };
        let (life, next) = (attempt.life, attempt.program.next());
        match next {
            Next::Step(call) if !fails => {
                if !std::mem::replace(&mut attempt.asked, true) {
                    let command = Command::Step {
                        lease,
                        number: attempt.program.taken,
                        call,
                        child: Some(child),
                        mail: None,
                    };
                    self.runner.mail.push((life, command));
                }
            }
            next => {
                let end = match (&attempt.call, next) {
                    (Call::Execute | Call::Plan { .. }, Next::End { continues: true }) if !fails => {
                        let input = Payload::Inline(attempt.program.taken.to_be_bytes().to_vec());
                        End::Finished(Outcome::Continue(input))
                    }
                    (call, _) => self.luck.end(call, self.faulty),
                };
                if matches!(end, End::Finished(Outcome::Continue(_))) {
                    self.saw("continued in another run");
                }
                self.runner.running.remove(&lease);
                self.ends_in(life, lease, end);
            }
        }
    }

    /// A message arrives: in any order, sometimes twice.
    pub(crate) fn deliver(&mut self) {
        if self.runner.mail.is_empty() {
            return self.work();
        }
        let at = self.luck.index(self.runner.mail.len());
        let (life, command) = if self.faulty && self.luck.percent(5) {
            self.runner.mail[at].clone()
        } else {
            self.runner.mail.swap_remove(at)
        };
        let reply = self.arrive(command);
        assert!(
            life == self.runner.life || is_fenced(&reply),
            "a life that is over has no say"
        );
    }

    /// What no shard ever asked for.
    pub(crate) fn deliver_stale(&mut self) {
        let Some(lease) = self.runner.running.keys().next().copied() else {
            return;
        };
        let stale = [
            Lease {
                epoch: lease.epoch - 1,
                ..lease
            },
            Lease {
                generation: lease.generation + 1,
                ..lease
            },
        ];
        let lease = *self.luck.pick(&stale).unwrap();
        let usage = self.luck.usage();
        self.arrive(Command::AttemptEnded {
            lease,
            end: End::Finished(Outcome::Done(Payload::Inline(vec![]))),
            usage,
            denials: vec![],
            children: vec![],
        });
        let number = self.luck.below(3);
        self.arrive(Command::Step {
            lease,
            number,
            call: StepCall::Clock { alarm: None },
            child: None,
            mail: None,
        });
    }

    fn arrive(&mut self, command: Command) -> Reply {
        let lease = match &command {
            Command::AttemptEnded { lease, .. } | Command::AttemptStarted { lease } | Command::Step { lease, .. } => {
                Some(*lease)
            }
            _ => None,
        };
        let state = self.shard.state();
        let holds = |lease: &Lease| state.crew_of(lease).is_some();
        let current = lease.as_ref().map(holds);
        // Copied only where it must stay: most of what arrives is not. What an earlier decision has left over is done with any.
        let stays = current == Some(false) && !self.shard.is_unfinished();
        let before = stays.then(|| state.tasks().cloned().collect::<Vec<Task>>());
        let fenced_before = self.fenced;
        let step = match &command {
            Command::Step {
                lease, number, call, ..
            } => Some((*lease, *number, call.clone())),
            _ => None,
        };
        let reply = match step {
            Some((lease, number, call)) => self.take_step(command, lease, number, call),
            None => self.submit(command).expect("what a runner says is never refused"),
        };
        if let Some(current) = current {
            assert_eq!(
                is_fenced(&reply),
                !current,
                "exactly what does not hold the task is fenced"
            );
        }
        if is_fenced(&reply) {
            let state = self.shard.state();
            assert!(
                before.is_none_or(|before| state.tasks().eq(&before)),
                "what is fenced changes nothing"
            );
            if let (Reply::Step(_), Some(lease)) = (&reply, lease) {
                let told = usize::from(!state.is_ephemeral(lease.task));
                assert_eq!(self.fenced, fenced_before + told, "a fenced step is told once");
                self.saw("fenced step");
            }
            self.saw("fenced");
        }
        reply
    }

    /// A step is decided, and whoever asked for it hears the answer.
    fn take_step(&mut self, command: Command, lease: Lease, number: u64, call: StepCall) -> Reply {
        let known = self.shard.state().task(lease.task).map(|task| (task.run, task.steps));
        let namespace = self
            .shard
            .state()
            .crew_of(&lease)
            .map(|crew| crew.manifest.name.clone());
        let position = self.shard.position();
        let name = call.name();
        let command = self.with_mail(command);
        let reply = self.submit(command).expect("a step is never refused as a command");
        let Reply::Step(answer) = &reply else {
            unreachable!("a step is answered as one")
        };
        match answer {
            StepReply::Recorded(recorded) => {
                let (run, steps) = known.expect("it is there");
                assert_eq!(number, steps, "only the next step is taken");
                assert_eq!(recorded.step.asked, call.asked());
                self.note_answer(name, &recorded.step.result);
                self.ledger.note(Answered {
                    position: self.shard.position(),
                    namespace: namespace.expect("who holds a task has a crew"),
                    task: lease.task,
                    run,
                    number,
                    call,
                    step: recorded.step.clone(),
                });
                if let Some(attempt) = self.asker(lease, number) {
                    attempt.asked = false;
                    attempt.program.give(recorded);
                }
            }
            StepReply::Waiting => {
                assert!(Program::is_waiting(name));
                if self.asker(lease, number).is_some() {
                    let attempt = self.runner.running.remove(&lease).unwrap();
                    self.runner.parked.insert(lease.task, (lease.agent, attempt.program));
                }
                self.saw("parked");
            }
            StepReply::Fenced => {
                // Who is told ends of it; a runner that does not goes on asking.
                let deaf = self.faulty && self.luck.percent(50);
                if let Some(attempt) = self.asker(lease, number) {
                    attempt.asked = false;
                    let life = attempt.life;
                    if !deaf {
                        self.runner.running.remove(&lease);
                        self.ends_in(life, lease, End::Fenced);
                    }
                }
            }
            StepReply::Refused(reason) => {
                let (_, steps) = known.expect("it is there");
                assert!(*reason == Reason::HostFault && number < steps, "{reason} for {name}");
                assert_eq!(self.shard.position(), position, "what is refused changes nothing");
                self.saw("doubled step");
            }
        }
        reply
    }

    /// A step that sends has the ids that the driver draws for it when it is taken.
    fn with_mail(&mut self, command: Command) -> Command {
        let Command::Step {
            lease,
            number,
            call,
            child,
            mail: _,
        } = command
        else {
            return command;
        };
        let mail = match &call {
            StepCall::Send(letter) | StepCall::Request(letter) => {
                let crew = self.shard.state().crew_of(&lease).map(|crew| crew.id);
                Some(self.mail(crew, letter, matches!(call, StepCall::Request(_))))
            }
            _ => None,
        };
        Command::Step {
            lease,
            number,
            call,
            child,
            mail,
        }
    }

    /// The attempt that waits for the answer to this step.
    fn asker(&mut self, lease: Lease, number: u64) -> Option<&mut Attempt> {
        let attempt = self.runner.running.get_mut(&lease)?;
        (attempt.asked && attempt.program.taken == number).then_some(attempt)
    }

    fn note_answer(&mut self, name: StepName, result: &StepResult) {
        match (name, result) {
            (StepName::Put, StepResult::Written(_)) => self.saw("written"),
            (StepName::Send, StepResult::Sent(_)) => self.saw("message of an agent"),
            (StepName::Send | StepName::Request, StepResult::Refused { reason, .. }) => {
                self.note_refused_message(*reason);
            }
            (
                StepName::AskApproval | StepName::RaiseBlocker,
                StepResult::Refused {
                    reason: Reason::CapabilityDenied,
                    ..
                },
            ) => self.saw("question in a delivery"),
            (_, StepResult::Refused { reason, .. }) => match reason {
                Reason::Conflict => self.saw("conflict"),
                Reason::QuotaExceeded => self.saw("over its quota"),
                Reason::BudgetExhausted => self.saw("over its budget"),
                Reason::NotFound | Reason::InvalidInput => self.saw("refused step"),
                _ => panic!("{name} was refused for {reason}"),
            },
            (StepName::Spawn, _) => self.saw("spawned"),
            (StepName::AskApproval, StepResult::Decided(_)) => self.saw("approved for the whole run"),
            _ => {}
        }
    }

    /// Beats of some of what runs; the others are lost.
    pub(crate) fn beat(&mut self) {
        let mut beats = Vec::new();
        for (lease, attempt) in &self.runner.running {
            if !attempt.zombie && self.luck.percent(80) {
                beats.push(Beat {
                    lease: *lease,
                    crossings: 1,
                    fuel: Fuel(1),
                    percent: None,
                });
            }
        }
        self.shard.beats(self.now, &beats);
    }

    /// How many attempts it has told of that were overtaken.
    pub(crate) fn note_fenced(&mut self, output: &skep_rules::shard::Output) {
        let fenced = output.audit.iter().filter(|entry| entry.kind == Kind::AttemptFenced);
        self.fenced += fenced.count();
    }
}

fn is_fenced(reply: &Reply) -> bool {
    matches!(reply, Reply::Fenced | Reply::Step(StepReply::Fenced))
}
