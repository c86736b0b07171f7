//! Chance, all of it from one seed: plans, ends, and what goes wrong.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use skep_rules::{
    id::{NodeName, Role},
    lifecycle::{Request, Timeouts},
    plan::{Node, NodePoint, Note, Outcome, Payload, Plan, Retry, Slot},
    priority::Priority,
    quantity::{Fuel, Millis, Size},
    reason::Reason,
    retry::{OnExhausted, Policy},
    seam::{Call, Denial, End, Usage},
};

pub(crate) const ROLES: &[&str] = &["scan", "write", "plan", "check"];

pub(crate) struct Luck(ChaCha8Rng);

impl Luck {
    pub(crate) fn new(seed: u64) -> Self {
        Luck(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.draw()) << 64 | u128::from(self.draw())
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.index(of.len()))
    }

    pub(crate) fn role(&mut self) -> Role {
        self.pick(ROLES).unwrap().parse().unwrap()
    }

    pub(crate) fn roles(&mut self) -> BTreeSet<Role> {
        (0..self.below(2) + 1).map(|_| self.role()).collect()
    }

    pub(crate) fn payload(&mut self) -> Payload {
        match self.percent(30) {
            true => Payload::Inline(self.draw().to_string().into_bytes()),
            false => Payload::Inline(self.draw().to_be_bytes().to_vec()),
        }
    }

    /// A random graph: mostly one without cycles, sometimes with.
    fn plan(&mut self, notes: &[Note], most: u64) -> Plan {
        let len = self.below(most) + 1;
        let integrates = self.percent(50).then(|| len - 1);
        let loose = self.percent(4);
        let lanes = self.percent(30);
        let noted = self.percent(96);
        let nodes = (0..len).map(|at| {
            let bound = if loose { len } else { at };
            let dependencies = (0..self.below(3)).filter(|_| bound > 0).collect::<Vec<_>>();
            let dependencies: Vec<NodeName> = dependencies
                .iter()
                .map(|_| format!("n{}", self.below(bound)).parse().unwrap())
                .collect();
            let slots: Vec<Slot> = dependencies
                .first()
                .filter(|_| self.percent(15))
                .into_iter()
                .cloned()
                .map(slot)
                .collect();
            Node {
                roles: ["scan".parse().unwrap(), self.role()].into(),
                input: if slots.is_empty() {
                    self.payload()
                } else {
                    Payload::Inline(Vec::new())
                },
                check: self.percent(25),
                optional: self.percent(25),
                integrates: integrates == Some(at),
                max_retries: self.percent(50).then(|| u32::try_from(self.below(3)).unwrap()),
                plan: self.percent(1),
                lane: (lanes && self.percent(50)).then(|| "lane".parse().unwrap()),
                priority: self.percent(10).then(|| *self.pick(&Priority::ALL).unwrap()),
                approval: self
                    .percent(4)
                    .then(|| [NodePoint::Before, NodePoint::After][self.index(2)]),
                note: notes.first().map(|note| note.name.clone()).filter(|_| noted),
                output: self.percent(3).then(|| r#"{"type":"integer"}"#.parse().unwrap()),
                dependencies,
                slots,
                ..Node::named(format!("n{at}").parse().unwrap())
            }
        });
        Plan {
            nodes: nodes.collect(),
            verify_before_next: self.percent(5),
        }
    }

    /// A plan that a person gives: one that hangs together, some of it split further. Small, because it may be carried out many times over.
    pub(crate) fn given(&mut self) -> Plan {
        loop {
            let mut plan = self.plan(&[], 4);
            for at in 0..plan.nodes.len() {
                if self.percent(5) {
                    let parts = self.plan(&[], 2);
                    let node = plan.nodes.get_mut(at).unwrap();
                    (node.plan, node.parts) = (false, Some(parts));
                }
            }
            if plan.check().is_ok() {
                return plan;
            }
        }
    }

    /// What a sequencer makes of a plan: more order, seldom something that is not its own to say.
    fn sequenced(&mut self, mut plan: Plan) -> Plan {
        let names: Vec<NodeName> = plan.nodes.iter().map(|node| node.name.clone()).collect();
        for (at, node) in plan.nodes.iter_mut().enumerate() {
            if at > 0 && self.percent(30) {
                node.dependencies.push(names[self.index(at)].clone());
            }
            if self.percent(2) {
                node.check = !node.check;
            }
        }
        plan.nodes.push(Node {
            roles: ["scan".parse().unwrap()].into(),
            dependencies: names,
            lane: Some("integration".parse().unwrap()),
            ..Node::named("join".parse().unwrap())
        });
        plan
    }

    /// How failures are tried again: mostly as usual.
    pub(crate) fn policy(&mut self, ephemeral: bool) -> Policy {
        if self.percent(40) {
            return Policy::default();
        }
        let kept = !ephemeral && self.percent(30);
        let on_exhausted = if kept {
            Some(OnExhausted::DeadLetter)
        } else {
            [None, Some(OnExhausted::Pause), Some(OnExhausted::Fail)][self.index(3)]
        };
        let policy = Policy {
            initial: self.percent(30).then(|| Millis(1 + self.below(3_000))),
            factor: self.percent(30).then(|| 100 + u32::try_from(self.below(300)).unwrap()),
            cap: self.percent(20).then(|| Millis(5_000 + self.below(60_000))),
            jitter: self.percent(30).then(|| u32::try_from(self.below(51)).unwrap()),
            not_again: if self.percent(20) {
                [Reason::Trapped].into()
            } else {
                BTreeSet::new()
            },
            on_exhausted,
        };
        assert_eq!(policy.check(), Ok(()));
        policy
    }

    /// How long a task may take: mostly for ever.
    pub(crate) fn timeouts(&mut self) -> Timeouts {
        let timeout = |luck: &mut Luck| {
            let most = [2_000, 20_000, 300_000][luck.index(3)];
            luck.percent(12).then(|| Millis(1 + luck.below(most)))
        };
        Timeouts {
            schedule_to_start: timeout(self),
            start_to_close: timeout(self),
            schedule_to_close: timeout(self),
        }
    }

    /// What a person asks of a task.
    pub(crate) fn request(&mut self) -> Request {
        match self.below(7) {
            0 => Request::Cancel,
            1 => Request::Retry,
            2..=3 => Request::Pause,
            4 => Request::Resume,
            5 => Request::Reprioritise(*self.pick(&Priority::ALL).unwrap()),
            _ => Request::OverrideResult {
                result: self.payload(),
                why: "it is known".into(),
            },
        }
    }

    /// How an attempt ends, mostly well.
    pub(crate) fn end(&mut self, call: &Call, faulty: bool) -> End {
        if faulty && self.percent(20) {
            return self.misfortune();
        }
        match call {
            Call::Plan { notes } => End::Finished(Outcome::Plan(self.plan(notes, 6))),
            Call::Sequence { plan } => End::Finished(Outcome::Plan(self.sequenced(plan.as_ref().clone()))),
            Call::Check { .. } if self.percent(75) => End::Finished(Outcome::Accepted),
            Call::Check { .. } => End::Finished(Outcome::Rejected("look again".into())),
            Call::Execute if self.percent(6) => End::Finished(Outcome::Plan(self.plan(&[], 6))),
            Call::Receive { .. } if self.percent(15) => End::Finished(Outcome::Failed {
                message: "it was not understood".into(),
                retry: Retry::Later,
            }),
            Call::Execute | Call::Receive { .. } => End::Finished(Outcome::Done(self.payload())),
        }
    }

    fn misfortune(&mut self) -> End {
        let message = "as the dice fell".to_owned();
        let stopped = |reason| End::Stopped {
            reason,
            message: "as the dice fell".to_owned(),
        };
        match self.below(11) {
            0 => stopped(Reason::Trapped),
            1 => stopped(Reason::FuelExhausted),
            2 => stopped(Reason::CapabilityDenied),
            3 => End::Overload { message },
            4 => End::HostFault { message },
            5 => End::Cancelled,
            6 => End::Finished(Outcome::Done(Payload::Inline(vec![0; (256 << 10) + 1]))),
            7 => End::Finished(Outcome::Accepted),
            n => End::Finished(Outcome::Failed {
                message,
                retry: [Retry::Never, Retry::Later, Retry::After(Millis(7_000))][usize::try_from(n - 8).unwrap()],
            }),
        }
    }

    pub(crate) fn usage(&mut self) -> Usage {
        Usage {
            fuel: Fuel(self.below(1_000_000)),
            peak_memory: Size(self.below(1 << 24)),
            wall: Millis(self.below(1_000)),
            hostcalls: self.below(50),
        }
    }

    pub(crate) fn denials(&mut self) -> Vec<Denial> {
        let one = |luck: &mut Luck| Denial {
            reason: Reason::MountDenied,
            what: format!("open /{}", luck.below(90)),
            count: 1 + luck.below(5),
        };
        let count = if self.percent(10) { self.below(80) } else { 0 };
        (0..count).map(|_| one(self)).collect()
    }
}

/// A slot for whatever a node gives.
fn slot(node: NodeName) -> Slot {
    Slot {
        field: "part".to_owned(),
        node,
        schema: None,
    }
}
