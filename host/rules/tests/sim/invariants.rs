//! What holds after every step, by the numbers of `architecture.md` 5.

use std::collections::{BTreeMap, BTreeSet};

use skep_rules::{
    agent::{Agent, Phase},
    approval::Point,
    crew_record::CrewPhase,
    lifecycle::Hold,
    limits::{MAX_DEAD_LETTERS, MAX_HISTORY, MAX_HOST_FAULTS},
    reason::Reason,
    retry::OnExhausted,
    seam::Export,
    shard::Shard,
    state::State,
    task::{Task, TaskState},
};

pub(crate) fn check(shard: &Shard, now: skep_rules::quantity::Time) {
    let state = shard.state();
    leases(state);
    paused(state);
    lives(state);
    questions(state);
    records(state);
    plans(state);
    let unfinished = shard.next_wake(now) == Some(now) && shard.is_unfinished();
    crate::post::check(state, unfinished);
    if !unfinished {
        for task in state.tasks().filter(|task| !task.state.is_ended()) {
            assert!(cause(shard, task), "nothing will ever wake {task:?}");
        }
        busy(state);
        doomed(state);
        crews(state);
    }
}

/// 4 and 6: every lease is held by one slot of a living agent of that generation, and every slot by a lease.
fn leases(state: &State) {
    let mut held = BTreeMap::new();
    for task in state.tasks() {
        let leased = match task.state {
            TaskState::Assigned | TaskState::Running => true,
            TaskState::Verifying => task.held.is_some(),
            _ => false,
        };
        assert_eq!(task.held.is_some(), leased, "{task:?}");
        let Some(of) = &task.held else { continue };
        assert_eq!((of.lease.task, of.lease.epoch), (task.id, task.epoch));
        *held.entry(of.lease.agent).or_insert(0) += 1;
        let agent = state.agent(of.lease.agent).expect("a lease has an agent");
        assert_eq!(
            agent.generation, of.lease.generation,
            "a fenced generation holds nothing"
        );
        if of.export == Export::Checker {
            assert_ne!(task.executed_by, Some(agent.id), "nobody checks its own work");
        }
    }
    for agent in state.agents() {
        assert_eq!(agent.active, held.get(&agent.id).copied().unwrap_or(0), "{agent:?}");
        let fits = match agent.phase {
            Phase::Ready => agent.active < agent.slots,
            Phase::Busy => agent.active == agent.slots,
            Phase::Draining => agent.active > 0,
            Phase::Provisioning | Phase::Warming | Phase::Stopped | Phase::Failed | Phase::Quarantined => {
                agent.active == 0
            }
        };
        assert!(fits || agent.phase == Phase::Draining, "{agent:?}");
    }
}

/// Who is quarantined holds nothing, and who waits for a person says why.
fn paused(state: &State) {
    for agent in state.agents().filter(|agent| agent.phase == Phase::Quarantined) {
        let reason = agent.failure.as_ref().map(|failure| failure.reason);
        assert_eq!((agent.active, reason), (0, Some(Reason::Revoked)), "{agent:?}");
    }
    for task in state.tasks().filter(|task| task.state == TaskState::Paused) {
        assert!(task.held.is_none() && task.not_before.is_none(), "{task:?}");
        let reason = task.failure.as_ref().map(|failure| failure.reason);
        // Only what has a record waits for whoever can continue it.
        let for_its_record = matches!(reason, Some(Reason::NotFound | Reason::Diverged)) && task.pinned.is_some();
        let used_up = task.retries >= task.max_retries || task.faults >= MAX_HOST_FAULTS;
        let fits = match task.hold {
            None => reason == Some(Reason::Revoked) || for_its_record,
            Some(Hold::Exhausted) => task.escalates() || (used_up && task.on_exhausted() == OnExhausted::Pause),
            Some(Hold::Person(from)) => reason == Some(Reason::Paused) && from != TaskState::Paused && !from.is_ended(),
        };
        assert!(fits, "{task:?}");
    }
}

/// Nothing is tried more often than it may be, and what is told of it is bounded.
fn lives(state: &State) {
    for task in state.tasks() {
        assert!(
            task.retries <= task.max_retries && task.faults <= MAX_HOST_FAULTS,
            "{task:?}"
        );
        assert!(task.history.len() <= MAX_HISTORY, "{task:?}");
        let queues = task.held.is_none() && matches!(task.state, TaskState::Ready | TaskState::Verifying);
        assert_eq!(task.queued.is_some(), queues, "{task:?}");
        let is_held = task.state == TaskState::Paused || task.state.is_ended();
        assert!(task.hold.is_none() || is_held, "{task:?}");
    }
    assert!(state.dead_letters().len() <= MAX_DEAD_LETTERS);
}

/// Budgets are split and never grow, and of a lane one task is at work.
fn plans(state: &State) {
    let lane_of = |task: &Task| Some((task.parent, task.part.as_ref()?.lane.clone()?));
    // Whom a person has ended before it began has not waited for the one before it, and the next does not wait for that either.
    let left = |task: &&Task| task.state.is_ended() && task.attempts == 0;
    let gaps: BTreeSet<_> = state.tasks().filter(left).filter_map(lane_of).collect();
    let mut lanes: BTreeMap<_, &Task> = BTreeMap::new();
    for task in state.tasks() {
        let parent = task.parent.and_then(|parent| state.task(parent));
        if let Some(parent) = parent {
            assert_eq!(task.budget.is_some(), parent.budget.is_some(), "{task:?}");
        }
        let held_before = task.hold == Some(Hold::Person(TaskState::Pending));
        let works = !task.state.is_ended() && task.state != TaskState::Pending && !held_before;
        if let Some(lane) = lane_of(task).filter(|lane| works && !gaps.contains(lane)) {
            let other = lanes.insert(lane, task);
            assert!(other.is_none(), "{task:?} works beside {other:?}");
        }
    }
}

/// Who waits for a person is no delivery, holds nothing and has asked one question, which is open and can be answered; nobody else has.
fn questions(state: &State) {
    let mut asked = BTreeSet::new();
    for task in state.tasks() {
        let expected = match task.asks.map(|asks| asks.point) {
            Some(Point::Before | Point::After | Point::Action) => Some(TaskState::AwaitingApproval),
            Some(Point::Blocker) => Some(TaskState::Blocked),
            None => None,
        };
        let waits = matches!(task.state, TaskState::AwaitingApproval | TaskState::Blocked);
        assert_eq!(expected, waits.then_some(task.state), "{task:?}");
        let Some(asks) = task.asks else { continue };
        assert!(task.delivery.is_none(), "{task:?}");
        let approval = state.approval(asks.approval).expect("what it asks is open");
        assert_eq!(
            (approval.task, approval.crew, approval.point, approval.until),
            (task.id, task.crew, asks.point, asks.until)
        );
        assert!(
            approval.open().next().is_some() && approval.settled.is_none(),
            "{approval:?}"
        );
        assert_eq!(approval.digest, approval.binding());
        let steps = matches!(asks.point, Point::Action | Point::Blocker);
        assert!(task.wait.is_some() == steps && task.held.is_none(), "{task:?}");
        assert_eq!(task.candidate.is_some(), asks.point == Point::After, "{task:?}");
        asked.insert(asks.approval);
    }
    let open: BTreeSet<_> = state.approvals().map(|approval| approval.id).collect();
    assert_eq!(open, asked, "every open question is a task's");
}

/// A run has a record from its first step to its end, and a component that alone may continue it.
fn records(state: &State) {
    for task in state.tasks() {
        let tail = state.tail(task.id);
        assert_eq!(tail.is_some(), task.steps > 0 && !task.state.is_ended(), "{task:?}");
        assert!(tail.is_none_or(|tail| tail.first < task.steps), "{task:?}");
        assert!(
            task.steps == 0 || (task.pinned.is_some() && task.stepped >= task.began && !task.ephemeral),
            "{task:?}"
        );
        if let Some(wait) = &task.wait {
            let held_up = task.hold == Some(Hold::Person(TaskState::Waiting));
            let asks = task.asks.is_some();
            let waits = asks || task.state == TaskState::Waiting || held_up;
            assert!(waits && task.held.is_none() && task.pinned.is_some(), "{task:?}");
            assert!(asks || wait.until.is_some() || !wait.tasks.is_empty(), "{task:?}");
        }
    }
}

/// 5: something registered will wake the task.
fn cause(shard: &Shard, task: &Task) -> bool {
    let state = shard.state();
    let live = |id: &skep_rules::id::TaskId| state.task(*id).is_some_and(|task| !task.state.is_ended());
    let timer = |time: skep_rules::quantity::Time| {
        shard
            .next_wake(skep_rules::quantity::Time(0))
            .is_some_and(|wake| wake <= time)
    };
    let lease = || {
        task.held.as_ref().is_some_and(|held| match held.ack_by() {
            Some(time) => timer(time),
            None => shard
                .observed()
                .last_seen(task.id)
                .is_some_and(|seen| timer(seen.after(skep_rules::limits::LEASE))),
        })
    };
    match task.state {
        TaskState::Pending => task.dependencies.iter().any(live) || crate::post::is_behind(state, task),
        TaskState::Waiting => match &task.wait {
            // A child of which the end is enough wakes it in the decision that ends it.
            Some(wait) => {
                let open = wait.tasks.iter().filter(|id| live(id)).count();
                let all_open = open == wait.tasks.len();
                assert!(
                    wait.tasks.is_empty() || (open > 0 && (wait.all || all_open)),
                    "{task:?} has slept on"
                );
                open > 0 || wait.until.is_some_and(timer)
            }
            None => task.children.iter().any(live),
        },
        // A plan that was given is carried out at once.
        TaskState::Ready => !task.is_given() && servant(state, task, |agent| agent.phase.may_serve()),
        TaskState::Assigned | TaskState::Running => lease(),
        TaskState::RetryWait => task.not_before.is_some_and(timer),
        TaskState::Verifying if task.held.is_some() => lease(),
        TaskState::Verifying => {
            task.not_before.is_some_and(timer) || servant(state, task, |agent| agent.phase.may_serve())
        }
        // A person wakes it.
        TaskState::Paused => true,
        // A person wakes it, or the end of the time that a person has.
        TaskState::AwaitingApproval | TaskState::Blocked => task.asks.is_some_and(|asks| timer(asks.until)),
        TaskState::Completed | TaskState::Failed | TaskState::Cancelled | TaskState::Skipped | TaskState::Rejected => {
            true
        }
    }
}

/// Whether an agent runs what is revoked.
fn void(state: &State, agent: &Agent) -> bool {
    state
        .member_of(agent)
        .is_some_and(|member| state.is_void(member.digest))
}

/// Whether such an agent could take the task.
fn servant(state: &State, task: &Task, such: impl Fn(&Agent) -> bool) -> bool {
    let export = task.export();
    let checkers = state
        .agents_of(task.crew)
        .filter(|agent| agent.phase.may_serve())
        .filter(|agent| {
            state
                .member_of(agent)
                .is_some_and(|member| member.exports.contains(&Export::Checker))
        });
    let checkers: Vec<_> = checkers.map(|agent| agent.id).collect();
    state.agents_of(task.crew).filter(|agent| such(agent)).any(|agent| {
        let member = state.member_of(agent).unwrap();
        let exports = member.exports.contains(&export);
        exports
            && if export == Export::Checker {
                task.executed_by != Some(agent.id)
            } else {
                let pinned = task.pinned.is_none_or(|pinned| pinned == member.digest);
                let alone = export == Export::Executor && task.check && checkers == [agent.id];
                // What a task says of who does it is not said of who orders its plan.
                let any = export == Export::Sequencer;
                (any || task.agent.is_none_or(|only| only == agent.id))
                    && (any || task.roles.is_empty() || !task.roles.is_disjoint(&member.roles))
                    && !alone
                    && pinned
            }
    })
}

/// No free agent sits beside a task that it could take.
fn busy(state: &State) {
    for task in state.tasks() {
        let queued = task.state == TaskState::Ready
            || (task.state == TaskState::Verifying && task.held.is_none() && task.not_before.is_none());
        if queued {
            assert!(
                !servant(state, task, |agent| agent.phase == Phase::Ready && !void(state, agent)),
                "{task:?} waits beside a free agent"
            );
        }
    }
}

/// Nothing new begins in a tree that has failed.
fn doomed(state: &State) {
    let bad = |id: &skep_rules::id::TaskId| {
        let task = state.task(*id).expect("a tree leaves memory whole");
        task.state.is_ended() && task.state != TaskState::Completed && !task.optional
    };
    for task in state
        .tasks()
        .filter(|task| !task.state.is_ended() && task.held.is_none())
    {
        let mut above = task.parent;
        while let Some(parent) = above.and_then(|id| state.task(id)) {
            let failed = parent.is_split() && parent.parts().iter().any(bad);
            assert!(
                !failed || task.is_split(),
                "{task:?} goes on though {} has failed",
                parent.id
            );
            above = parent.parent;
        }
    }
}

fn crews(state: &State) {
    for crew in state.crews() {
        let mut tasks = state
            .tasks()
            .filter(|task| task.crew == crew.id && !task.state.is_ended());
        match crew.phase {
            CrewPhase::Live => {}
            CrewPhase::Draining => assert!(
                state.agents_of(crew.id).any(|agent| agent.phase != Phase::Stopped),
                "a crew whose agents are stopped has stopped"
            ),
            CrewPhase::Stopped => {
                assert!(tasks.next().is_none(), "a stopped crew has nothing left to do");
                assert!(state.agents_of(crew.id).all(|agent| agent.phase == Phase::Stopped));
            }
        }
    }
    // 9: what has ended with its whole tree, and holds nobody up, is not in memory.
    let live = state.tasks().filter(|task| !task.state.is_ended());
    let needed = live.flat_map(|task| task.dependencies.iter().copied().chain([task.id]));
    let roots: BTreeSet<_> = needed.filter_map(|id| state.task(id)).map(|task| task.root).collect();
    for task in state.tasks() {
        assert!(roots.contains(&task.root), "{task:?} should be archived");
    }
}
