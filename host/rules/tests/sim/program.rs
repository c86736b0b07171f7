//! What an attempt does: a function of what it is told and of every answer that it has been given. A second attempt of the same run asks the same
//! again, so a step that was lost, doubled, changed or given in another order shows at once as another question.

use skep_rules::{
    approval::{Item, OnTimeout, Request, Terms},
    id::{Digest, TaskId},
    lifecycle::Timeouts,
    plan::{Artifact, Payload},
    priority::Priority,
    quantity::{Millis, Time},
    reason::Reason,
    seam::TaskView,
    step::{Child, Recorded, StepCall, StepName, StepResult},
};

use crate::post;

/// The counters that all tasks of a crew raise.
const COUNTERS: u64 = 2;
/// The deepest that children have children.
const DEEPEST: u64 = 3;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    /// Everything that it was told, in one number.
    told: u64,
    task: TaskId,
    depth: u64,
    /// Steps taken, and how many it takes.
    pub(crate) taken: u64,
    length: u64,
    /// It may send messages.
    sends: bool,
    /// Where its clock stands.
    at: Time,
    children: Vec<TaskId>,
    /// The revision of its own key, as far as it knows.
    own: u64,
    /// A counter that it raises: what it holds, and its revision.
    counting: Option<(String, u64, u64)>,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Next {
    Step(StepCall),
    /// It has a result, or goes on in another run.
    End {
        continues: bool,
    },
}

impl Program {
    pub(crate) fn new(task: TaskId, view: &TaskView) -> Self {
        let told = view_digest(view);
        let depth = match view.description.strip_prefix("depth ") {
            Some(depth) => depth.parse().unwrap(),
            None => 0,
        };
        let length = match told % 10 {
            _ if !view.records => 0,
            0..=3 => 0,
            4..=8 => told / 10 % (8 >> depth) + 1,
            _ => told / 10 % (32 >> depth) + 1,
        };
        Program {
            told,
            task,
            depth,
            taken: 0,
            length,
            sends: !post::is_delivery(&view.description),
            at: view.began,
            children: Vec::new(),
            own: 0,
            counting: None,
        }
    }

    pub(crate) fn next(&self) -> Next {
        if let Some((key, value, revision)) = &self.counting {
            return Next::Step(StepCall::Put {
                key: key.clone(),
                value: (value + 1).to_be_bytes().to_vec(),
                expected: Some(*revision),
            });
        }
        if self.taken >= self.length {
            let continues = self.length > 0 && self.told.is_multiple_of(5);
            return Next::End { continues };
        }
        // The low digits say what, the others with what.
        let with = self.told / 100;
        Next::Step(match self.told % 100 {
            0..=21 => self.get(counter(with), None),
            22..=39 => self.put(with),
            40..=51 => self.get(self.key(), None),
            52..=55 => StepCall::Delete {
                key: self.key(),
                expected: Some(self.own),
            },
            56..=57 => self.get(self.key(), Some(with % 5)),
            58..=59 => StepCall::History { key: self.key() },
            60..=62 => StepCall::List {
                prefix: String::new(),
                after: None,
                limit: u32::try_from(with % 4).unwrap(),
            },
            63..=72 if self.depth < DEEPEST => self.spawn(with),
            63..=84 => self.wait(with),
            85..=86 if self.sends => StepCall::Send(post::letter(with)),
            87..=88 if self.sends => StepCall::Request(post::question(with)),
            85..=88 => StepCall::Sleep {
                until: self.at.after(Millis(with % 60_000)),
            },
            89..=90 => self.ask(with),
            91 => StepCall::RaiseBlocker {
                question: "what now?".into(),
                expires: (!with.is_multiple_of(4)).then(|| Millis(1_000 + with % 300_000)),
            },
            92..=94 => StepCall::Clock {
                alarm: with.is_multiple_of(2).then(|| self.at.after(Millis(with % 50))),
            },
            95..=96 => StepCall::Directive {
                beats: with % 9,
                drain: with.is_multiple_of(2),
            },
            97 => StepCall::PutArtifact(Artifact {
                digest: Digest::of(&with.to_be_bytes()),
                size: 8,
                media: "text/plain".into(),
            }),
            _ => StepCall::ReadArtifact {
                digest: Digest::of(&with.to_be_bytes()),
                offset: 0,
                length: 8,
                refused: with.is_multiple_of(2).then_some(Reason::NotFound),
            },
        })
    }

    /// Takes note of the answer to its next step.
    pub(crate) fn give(&mut self, recorded: &Recorded) {
        let Next::Step(call) = self.next() else {
            panic!("{} has ended and is given {recorded:?}", self.task)
        };
        let step = &recorded.step;
        assert_eq!(
            step.asked,
            call.asked(),
            "step {} of {} is {call:?}",
            self.taken,
            self.task
        );
        assert!(
            step.at >= self.at,
            "time does not go back: {recorded:?} after {:?}",
            self.at
        );
        let counted = self.counting.take();
        match (&call, &step.result) {
            (StepCall::Put { .. }, StepResult::Written(revision)) if counted.is_none() => self.own = *revision,
            (
                StepCall::Put { .. } | StepCall::Delete { .. },
                StepResult::Refused {
                    reason: Reason::Conflict,
                    revision,
                },
            ) if counted.is_none() => {
                self.own = *revision;
            }
            (StepCall::Delete { .. }, StepResult::Deleted(_)) => self.own = 0,
            (StepCall::Get { key, revision: None }, StepResult::Value(value)) if *key != self.key() => {
                let (bytes, revision) = value
                    .as_ref()
                    .map_or((&[][..], 0), |value| (&value.bytes, value.revision));
                let value = bytes.try_into().map_or(0, u64::from_be_bytes);
                self.counting = Some((key.clone(), value, revision));
            }
            (StepCall::Spawn(_), StepResult::Spawned(id)) => self.children.push(*id),
            _ => {}
        }
        self.taken += 1;
        self.at = step.at;
        self.told = mixed(self.told, &minicbor::to_vec(recorded).unwrap());
    }

    /// Whether its next step may be answered later.
    pub(crate) fn is_waiting(name: StepName) -> bool {
        matches!(
            name,
            StepName::Await | StepName::Sleep | StepName::Request | StepName::AskApproval | StepName::RaiseBlocker
        )
    }

    fn key(&self) -> String {
        self.task.to_string()
    }

    fn get(&self, key: String, revision: Option<u64>) -> StepCall {
        StepCall::Get { key, revision }
    }

    /// Mostly small, now and then as much as makes a record long.
    fn put(&self, with: u64) -> StepCall {
        let size = if with.is_multiple_of(4) { 20_000 } else { 10 };
        StepCall::Put {
            key: self.key(),
            value: vec![1; usize::try_from(with % size).unwrap()],
            expected: (with % 8 != 1).then_some(self.own),
        }
    }

    fn spawn(&self, with: u64) -> StepCall {
        StepCall::Spawn(Child {
            description: format!("depth {}", self.depth + 1),
            input: Payload::Inline(with.to_be_bytes().to_vec()),
            roles: Default::default(),
            check: with.is_multiple_of(8),
            max_retries: Some(u32::try_from(with % 2).unwrap()),
            retry: Default::default(),
            timeouts: Timeouts {
                schedule_to_close: with.is_multiple_of(16).then_some(Millis(20_000)),
                ..Timeouts::default()
            },
            priority: with.is_multiple_of(5).then_some(Priority::High),
        })
    }

    /// For one of two actions, of one to three things: some it cannot say in JSON, and now and then it names one twice.
    fn ask(&self, with: u64) -> StepCall {
        let arguments = if with.is_multiple_of(7) { "{" } else { "{\"n\":1}" };
        let item = |n: u64| Item::new(format!("item-{}", n % 3), arguments.into());
        let count = if with.is_multiple_of(11) { 4 } else { with % 3 + 1 };
        StepCall::AskApproval(Request {
            action: format!("action-{}", with % 2),
            question: "may it?".into(),
            items: (0..count).map(item).collect(),
            terms: Terms {
                expires: (!with.is_multiple_of(5)).then(|| Millis(1_000 + with % 300_000)),
                on_timeout: [OnTimeout::Reject, OnTimeout::Escalate][usize::try_from(with / 2 % 2).unwrap()],
            },
        })
    }

    /// For one of its children, or all, or for none of its own.
    fn wait(&self, with: u64) -> StepCall {
        let mut tasks = self.children.clone();
        if let Some(one) = usize::try_from(with).unwrap().checked_rem(tasks.len()) {
            match with % 3 {
                0 => tasks = vec![tasks[one]],
                1 => tasks.push(tasks[one]),
                _ => {}
            }
        } else {
            tasks.push(TaskId::new(u128::from(with), 1));
        }
        StepCall::Await {
            tasks,
            all: with.is_multiple_of(2),
            timeout: [None, None, Some(0), Some(500), Some(90_000)][usize::try_from(with % 5).unwrap()].map(Millis),
        }
    }
}

/// The name of a counter.
pub(crate) fn counter(with: u64) -> String {
    format!("counter-{}", with % COUNTERS)
}

fn view_digest(view: &TaskView) -> u64 {
    // How much it may burn, nobody tells it.
    let told = TaskView {
        fuel: None,
        ..view.clone()
    };
    mixed(0, &minicbor::to_vec(&told).unwrap())
}

/// FNV-1a of bytes, begun with a number, and spread over all bits.
fn mixed(from: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(from ^ 0xcbf2_9ce4_8422_2325, step);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ (hash >> 27)
}
