//! The people of the simulated world: they decide what they are asked, some of it, twice, too late, otherwise than before. What they were told is
//! decided is kept here by the position that made it durable, and held against what the host knows afterwards.

use std::collections::BTreeSet;

use skep_rules::{
    approval::{Approval, OnTimeout, Points, Ruling, Settled, Terms},
    audit::Kind,
    command::{Command, Mail},
    decide::Reply,
    event::Event,
    facts::Table,
    id::{ApprovalId, Digest, MessageId, TaskId},
    message::Dead,
    quantity::Millis,
    reason::Reason,
    shard::Output,
    task::Task,
};

use crate::world::World;

/// What the default seeds must have shown at least once.
pub(crate) const MUST_BE_SEEN: &[&str] = &[
    "asked",
    "decided",
    "expired",
    "withdrawn",
    "asked once more",
    "partly decided",
    "the same again",
    "otherwise than before",
    "too late",
    "of what is gone",
    "by whoever asked",
    "of something else",
    "a question was lost",
    "approved for the whole run",
    "woken by a person, or for want of one",
];

/// What must be seen where a host dies behind every step and its disk has kept everything.
pub(crate) const MUST_OUTLIVE: &[&str] = &[
    "asked",
    "decided",
    "expired",
    "withdrawn",
    "asked once more",
    "partly decided",
    "the same again",
    "otherwise than before",
    "too late",
    "woken by a person, or for want of one",
];

#[derive(Default)]
pub(crate) struct People {
    /// What was decided: the position that made it durable, which item, and how.
    rulings: Vec<(u64, ApprovalId, u32, bool)>,
    /// Dead messages that were redriven: the position that made it durable, and which delivery.
    redriven: Vec<(u64, TaskId)>,
    /// Everything that anybody was ever asked, what a crash has taken back included.
    asked: BTreeSet<ApprovalId>,
}

impl People {
    /// What was not durable has not happened.
    pub(crate) fn crash(&mut self, durable: u64) {
        self.rulings.retain(|(position, ..)| *position <= durable);
        self.redriven.retain(|(position, _)| *position <= durable);
    }
}

impl World {
    /// Where a person's word is wanted, of one task in five.
    pub(crate) fn points(&mut self) -> Option<Points> {
        if !self.luck.percent(20) {
            return None;
        }
        let (before, after) = [(true, false), (false, true), (true, true)][self.luck.index(3)];
        let mut id = || ApprovalId::new(self.luck.wide(), 1);
        Some(Points {
            before: before.then(&mut id),
            after: after.then(&mut id),
            terms: Terms {
                expires: Some(Millis(1_000 + self.luck.below(300_000))),
                on_timeout: [OnTimeout::Reject, OnTimeout::Escalate][self.luck.index(2)],
            },
        })
    }

    /// Somebody says something about what somebody was asked once.
    pub(crate) fn decide(&mut self) {
        let open: Vec<ApprovalId> = self.shard.state().approvals().map(|approval| approval.id).collect();
        let known: Vec<ApprovalId> = self.people.asked.iter().copied().collect();
        let among = if self.luck.percent(80) && !open.is_empty() {
            &open
        } else {
            &known
        };
        let Some(id) = self.luck.pick(among).copied() else {
            return;
        };
        let before = self.approval(id);
        let ruling = self.ruling(before.as_ref());
        let by = if self.luck.percent(30) { "sim" } else { "ann" };
        let position = self.shard.position();
        let command = Command::DecideApproval {
            approval: id,
            ruling: ruling.clone(),
            by: by.into(),
        };
        match self.submit(command) {
            Ok(Reply::Ruled(after)) => self.note_decision(&before.expect("it is known"), &after, &ruling, position),
            Ok(other) => unreachable!("{other:?}"),
            Err(rejection) => {
                assert_eq!(self.approval(id), before, "what is refused changes nothing");
                let what = match rejection.reason {
                    Reason::NotFound if before.is_none() => "a question was lost",
                    Reason::NotFound => "of another thing",
                    Reason::Conflict
                        if ruling
                            .digest
                            .is_some_and(|seen| before.is_some_and(|of| of.digest != seen)) =>
                    {
                        "of something else"
                    }
                    Reason::Conflict => "otherwise than before",
                    Reason::SelfApproval if by == "sim" => "by whoever asked",
                    Reason::ApprovalExpired => "too late",
                    Reason::IllegalTransition => "of what is gone",
                    Reason::InvalidInput if ruling.always => "always, of what cannot be",
                    reason => panic!("{reason}: {rejection}"),
                };
                self.saw(what);
            }
        }
    }

    /// Somebody has a dead message sent anew, one that is, or was redriven before.
    pub(crate) fn redrive_message(&mut self) {
        let dead: Vec<Dead> = self.shard.state().dead_messages().collect();
        let again = self.luck.pick(&self.people.redriven.clone()).copied();
        let chosen = match again.filter(|_| dead.is_empty() || self.luck.percent(20)) {
            Some((_, delivery)) => self.message_of(delivery).map(|message| Dead { message, delivery }),
            None => self.luck.pick(&dead).copied(),
        };
        let Some(Dead { message, delivery }) = chosen else {
            return;
        };
        let command = Command::RedriveMessage {
            delivery,
            message,
            mail: Mail {
                message: MessageId::new(self.luck.wide(), 1),
                deliveries: vec![TaskId::new(self.luck.wide(), 1)],
            },
            by: "sim".into(),
        };
        let before = self.people.redriven.iter().any(|(_, known)| *known == delivery);
        match self.submit(command) {
            Ok(Reply::Sent {
                message, deliveries, ..
            }) => {
                assert!(!before, "{delivery} was redriven twice");
                assert!(self.shard.state().dead_messages().all(|dead| dead.delivery != delivery));
                self.people.redriven.push((self.shard.position(), delivery));
                self.promise_message(message, deliveries);
                self.saw("message redriven");
            }
            Ok(other) => unreachable!("{other:?}"),
            Err(rejection) if before => {
                assert_eq!(rejection.reason, Reason::IllegalTransition, "{rejection}");
                self.saw("message redriven before");
            }
            // Its crew, or whoever lost it, is gone.
            Err(rejection) => assert!(
                matches!(
                    rejection.reason,
                    Reason::IllegalTransition | Reason::NoListener | Reason::NotFound
                ),
                "{rejection}"
            ),
        }
    }

    /// Which message a delivery was of, as far as that is known.
    fn message_of(&self, delivery: TaskId) -> Option<MessageId> {
        let row = || self.disk.row(Table::Tasks, &delivery.to_bytes());
        let task = self.shard.state().task(delivery).cloned();
        let task: Task = task.or_else(|| row().map(|row| minicbor::decode(&row).unwrap()))?;
        task.delivery.map(|of| of.message)
    }

    fn ruling(&mut self, of: Option<&Approval>) -> Ruling {
        let approved = self.luck.percent(60);
        let mut items = Vec::new();
        if let Some(approval) = of.filter(|_| self.luck.percent(50)) {
            items.extend(self.luck.pick(&approval.items).map(|item| item.name.clone()));
        }
        if self.luck.percent(3) {
            items.push("nobody asked for this".into());
        }
        let seen = of.filter(|_| self.luck.percent(50)).map(|approval| approval.digest);
        Ruling {
            items,
            approved,
            remark: "as the dice fell".into(),
            always: approved && self.luck.percent(30),
            digest: if self.luck.percent(3) {
                Some(Digest::of(b"another"))
            } else {
                seen
            },
        }
    }

    /// Nothing that was decided before is decided otherwise, and all that was to be is decided now.
    fn note_decision(&mut self, before: &Approval, after: &Approval, ruling: &Ruling, position: u64) {
        assert!(
            before.requester != "sim"
                || before
                    .verdicts
                    .values()
                    .all(|verdict| verdict.by.as_deref() == Some("ann"))
        );
        for (at, verdict) in &before.verdicts {
            assert_eq!(after.verdicts.get(at), Some(verdict), "a decision is final");
        }
        for (item, verdict) in after.decided() {
            let named = ruling.items.is_empty() || ruling.items.contains(&item.name);
            let now = verdict.map(|verdict| verdict.approved);
            let ruled = ruling.items.is_empty() || now == Some(ruling.approved);
            assert!(!named || (now.is_some() && ruled), "{after:?}");
        }
        if before == after {
            assert_eq!(self.shard.position(), position, "the same again changes nothing");
            return self.saw("the same again");
        }
        assert!(before.settled.is_none());
        let now = self.shard.position();
        for (at, verdict) in after
            .verdicts
            .iter()
            .filter(|(at, _)| !before.verdicts.contains_key(at))
        {
            self.people.rulings.push((now, after.id, *at, verdict.approved));
        }
        if after.settled.is_none() {
            self.saw("partly decided");
        }
    }

    /// What the host knows of an approval.
    fn approval(&self, id: ApprovalId) -> Option<Approval> {
        let row = || self.disk.row(Table::Approvals, &id.to_bytes());
        let open = self.shard.state().approval(id).cloned();
        open.or_else(|| row().map(|row| minicbor::decode(&row).unwrap()))
    }

    /// Whether everything that was decided still is, the way it was.
    pub(crate) fn check_decisions(&self) {
        for (_, id, at, approved) in &self.people.rulings {
            let approval = self.approval(*id).expect("what was decided is known");
            let verdict = approval.verdicts.get(at).map(|verdict| verdict.approved);
            assert_eq!(verdict, Some(*approved), "{approval:?}");
        }
        for row in self.disk.rows(Table::Approvals).into_values() {
            let approval: Approval = minicbor::decode(&row).unwrap();
            let open = approval.open().next().is_some();
            match approval.settled.expect("what has a row is over").0 {
                Settled::Decided => assert!(!open, "{approval:?}"),
                Settled::Expired | Settled::Withdrawn => assert!(open, "{approval:?}"),
            }
            assert!(self.shard.state().approval(approval.id).is_none(), "open, or over");
        }
    }

    /// What was asked is remembered, by the position of its entry; each is asked once, and is over once.
    pub(crate) fn note_questions(&mut self, output: &Output) {
        for entry in &output.entries {
            if let Event::ApprovalAsked(approval) = minicbor::decode(entry).expect("an entry is an event") {
                self.people.asked.insert(approval.id);
                self.saw("asked");
            }
        }
        for entry in &output.audit {
            match entry.kind {
                Kind::ApprovalEscalated => self.saw("asked once more"),
                Kind::ApprovalDecided if entry.detail.contains("was approved for the whole run") => {
                    assert!(entry.agent.is_some());
                }
                _ => {}
            }
        }
    }
}

pub(crate) fn name_of(settled: Option<Settled>) -> &'static str {
    match settled {
        None => "told of a question",
        Some(Settled::Decided) => "decided",
        Some(Settled::Expired) => "expired",
        Some(Settled::Withdrawn) => "withdrawn",
    }
}
