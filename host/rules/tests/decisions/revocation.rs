//! What becomes of agents and tasks when what they run is revoked: by command at once, by an index or a root with the next sweep.

use skep_rules::{
    agent::Phase,
    audit::Kind,
    command::Command,
    crew_record::{CrewPhase, Status},
    decide::Reply,
    grant::Ceiling,
    id::{Digest, TaskId},
    limits::{REVOCATION_DRAIN, REVOCATION_SWEEP},
    plan::Outcome,
    plugin::Plugin,
    reason::Reason,
    seam::{End, Export, RunnerCommand},
    shard::Shard,
    task::TaskState,
    trust::Revocation,
};

use crate::{
    bench::{Bench, CREW, plan, text},
    fixtures::{START, adopt_index, adopt_root, ids, index, key, keys, publisher, revoke, root, ship, trust},
};

/// A worker, a planner, a checker, and one who executes and checks.
const FOUR: &str = "[[agent]]\nname = 'both'\nplugin = 'acme/both@1.0.0'";

/// `acme` signs the worker with key 1 (a stranger's key 11 signs it as well), the planner with key 2, the checker and `both` with key 3.
fn signed(manifest: &str) -> Bench {
    let mut bench = Bench::empty();
    bench.shard.take_unsigned(false);
    bench.now = START;
    for publisher in [
        publisher("acme", keys(1, &[1, 2, 3]), 9, START),
        publisher("bolt", keys(1, &[11]), 19, START),
    ] {
        bench.ask(trust(publisher)).unwrap();
    }
    for (name, exports, role, signers) in [
        ("worker", vec![Export::Executor], "work", vec![1, 11]),
        ("planner", vec![Export::Planner], "plan", vec![2]),
        ("checker", vec![Export::Checker], "check", vec![3]),
        ("both", vec![Export::Executor, Export::Checker], "work", vec![3]),
    ] {
        let roles = format!("[provides]\nroles = ['{role}']");
        let ship = ship(&format!("acme/{name}"), 1_000, &roles).with(|ship| {
            ship.plugin.exports = exports.into_iter().collect();
            ship.signers = signers;
        });
        bench.ask(ship.command()).unwrap();
    }
    assemble(&mut bench, manifest).unwrap();
    bench.warm();
    bench.pass(0);
    bench
}

fn assemble(bench: &mut Bench, manifest: &str) -> Result<(), Reason> {
    let plugins: Vec<Plugin> = bench.state().plugins().cloned().collect();
    bench
        .assemble_with(manifest, &plugins, &Ceiling::default())
        .map_err(|rejection| rejection.reason)
}

fn file_of(name: &str) -> Digest {
    ship(&format!("acme/{name}"), 1_000, "").plugin.digest
}

fn void(name: &str) -> Command {
    revoke(Revocation::Digest(file_of(name)))
}

fn phase(bench: &Bench, name: &str) -> Phase {
    bench.state().agent(bench.agent(name)).unwrap().phase
}

fn reason(bench: &Bench, task: TaskId) -> Option<Reason> {
    bench.record(task).failure.map(|failure| failure.reason)
}

fn resume(bench: &mut Bench, task: TaskId) -> Result<Reply, Reason> {
    let by = "tests".to_owned();
    bench
        .ask(Command::ResumeTask { task, by })
        .map_err(|rejection| rejection.reason)
}

fn done() -> End {
    End::Finished(Outcome::Done(text("output")))
}

#[test]
fn what_is_revoked_by_command_is_ended_in_the_same_decision() {
    let below = |minimum| Revocation::Below {
        plugin: "acme/worker".parse().unwrap(),
        minimum,
    };
    let cases: Vec<(Revocation, &[&str])> = vec![
        (Revocation::Key(key(1).id()), &["worker"]),
        (Revocation::Key(key(2).id()), &["planner"]),
        (Revocation::Digest(file_of("worker")), &["worker"]),
        (below(1_001), &["worker"]),
        (
            Revocation::Publisher("acme".parse().unwrap()),
            &["worker", "planner", "checker"],
        ),
        (below(1_000), &[]),
        (Revocation::Key(key(11).id()), &[]),
        (Revocation::Publisher("bolt".parse().unwrap()), &[]),
        (Revocation::Digest(Digest::of(b"another file")), &[]),
    ];
    for (what, fall) in cases {
        let mut bench = signed(CREW);
        let executes = bench.task(|_| {});
        let plans = bench.task(|task| task.plan = true);
        let waits = bench.task(|_| {});
        bench.started(executes);
        bench.started(plans);
        let leases = [executes, plans].map(|task| bench.lease(task));
        bench.audit.clear();
        bench.told.clear();
        bench.ask(revoke(what.clone())).unwrap();
        for name in ["worker", "planner", "checker"] {
            let agent = bench.state().agent(bench.agent(name)).unwrap();
            let fallen = fall.contains(&name);
            assert_eq!(agent.phase == Phase::Quarantined, fallen, "{what:?}: {name}");
            let why = agent.failure.as_ref().map(|failure| failure.reason);
            assert_eq!(why, fallen.then_some(Reason::Revoked), "{what:?}: {name}");
            let forget = RunnerCommand::Forget { agent: agent.id };
            assert_eq!(bench.told.contains(&forget), fallen, "{what:?}: {name}");
        }
        for (task, agent, lease) in [(executes, "worker", leases[0]), (plans, "planner", leases[1])] {
            let fallen = fall.contains(&agent);
            let state = if fallen { TaskState::Paused } else { TaskState::Running };
            assert_eq!(bench.is(task), state, "{what:?}");
            assert_eq!(reason(&bench, task), fallen.then_some(Reason::Revoked));
            assert_eq!(bench.record(task).held.is_none(), fallen);
            if fallen {
                assert_eq!(bench.end_of(lease, done(), vec![]), Reply::Fenced, "{what:?}");
                assert_eq!(bench.is(task), TaskState::Paused, "what it still says is not heard");
            }
        }
        let paused = if fall.contains(&"worker") {
            TaskState::Paused
        } else {
            TaskState::Ready
        };
        assert_eq!(
            bench.is(waits),
            paused,
            "{what:?}: what waited for it waits for a person"
        );
        assert_eq!(bench.heard(Kind::Revoked).len(), 1);
        assert_eq!(bench.heard(Kind::Revoked)[0].actor.as_deref(), Some("tests"));
        let of = |kind| {
            bench
                .heard(kind)
                .iter()
                .filter(|entry| entry.reason == Some(Reason::Revoked))
                .count()
        };
        assert_eq!(of(Kind::AgentMoved), fall.len(), "{what:?}");
        let held = fall.iter().filter(|name| **name != "checker").count();
        assert_eq!(
            (of(Kind::AttemptFailed), bench.heard(Kind::AttemptFenced).len()),
            (held, held),
            "{what:?}"
        );
        assert_eq!(
            of(Kind::TaskPaused),
            held + usize::from(fall.contains(&"worker")),
            "{what:?}"
        );

        let again = assemble(&mut bench, &CREW.replace("\"crew\"", "\"another\""));
        assert_eq!(
            again,
            if fall.is_empty() { Ok(()) } else { Err(Reason::Revoked) },
            "{what:?}"
        );
    }
}

#[test]
fn a_stranger_who_signed_as_well_does_not_keep_a_release_standing() {
    let bench = signed(CREW);
    let worker = bench.state().plugin(file_of("worker")).unwrap();
    assert_eq!(worker.signed.as_ref().unwrap().signers, ids(&[1]));
}

#[test]
fn a_result_under_check_goes_to_another_checker_or_waits() {
    let mut bench = signed(&format!("{CREW}{FOUR}"));
    let id = bench.task(|task| (task.check, task.agent) = (true, Some("worker".into())));
    bench.done(id);
    assert_eq!(bench.lease(id).agent, bench.agent("checker"));
    bench.started(id);
    bench.ask(void("checker")).unwrap();
    assert_eq!(
        (bench.is(id), bench.lease(id).agent),
        (TaskState::Verifying, bench.agent("both"))
    );
    bench.ask(void("both")).unwrap();
    assert_eq!(
        (bench.is(id), reason(&bench, id)),
        (TaskState::Paused, Some(Reason::Revoked))
    );
    let candidate = Some(text("output"));
    assert_eq!(bench.record(id).candidate, candidate, "the result is kept");
    resume(&mut bench, id).unwrap();
    assert_eq!(bench.is(id), TaskState::Paused, "there is still nobody to check it");
    assert_eq!(bench.record(id).candidate, candidate);
    assert_eq!(bench.heard(Kind::TaskResumed).len(), 1);
}

#[test]
fn a_paused_task_goes_on_when_a_person_says_so() {
    let mut bench = signed(&format!("{CREW}{FOUR}"));
    let id = bench.task(|_| {});
    assert_eq!(bench.lease(id).agent, bench.agent("worker"));
    bench.started(id);
    assert_eq!(resume(&mut bench, id), Err(Reason::IllegalTransition), "it runs");
    bench.ask(void("worker")).unwrap();
    assert_eq!(
        bench.is(id),
        TaskState::Paused,
        "though another could take it: a person looks first"
    );
    bench.pass(3_600_000);
    assert_eq!(
        bench.is(id),
        TaskState::Paused,
        "it waits for a person and nothing else"
    );
    resume(&mut bench, id).unwrap();
    assert_eq!(
        (bench.is(id), bench.lease(id).agent),
        (TaskState::Assigned, bench.agent("both"))
    );
    bench.done(id);
    let record = bench.record(id);
    assert_eq!((record.state, record.failure), (TaskState::Completed, None));
    let facts = skep_rules::facts::Facts {
        tasks: [(id, bench.record(id))].into(),
        ..Default::default()
    };
    let by = "tests".to_owned();
    let ended = bench
        .ask_with(&facts, Command::ResumeTask { task: id, by })
        .unwrap_err();
    assert_eq!(ended.reason, Reason::IllegalTransition);
    assert_eq!(resume(&mut bench, TaskId::new(1, 0)), Err(Reason::NotFound));
}

#[test]
fn a_parent_waits_for_its_paused_child() {
    let nodes: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"])];
    let begun = |nodes| {
        let mut bench = signed(&format!("{CREW}{FOUR}"));
        let parent = bench.task(|task| task.plan = true);
        bench.end(parent, End::Finished(plan(nodes)));
        let child = bench.child(parent, "a");
        assert_eq!(bench.lease(child).agent, bench.agent("worker"));
        bench.ask(void("worker")).unwrap();
        assert_eq!(
            (bench.is(child), bench.is(parent)),
            (TaskState::Paused, TaskState::Waiting)
        );
        (bench, parent, child)
    };
    let (mut bench, parent, child) = begun(nodes);
    assert_eq!(bench.is(bench.child(parent, "b")), TaskState::Pending);
    resume(&mut bench, child).unwrap();
    bench.done(child);
    bench.done(bench.child(parent, "b"));
    assert_eq!(bench.is(parent), TaskState::Completed);

    let (mut bench, parent, child) = begun(nodes);
    let by = "tests".to_owned();
    bench.ask(Command::CancelTask { task: parent, by }).unwrap();
    assert_eq!(bench.is(child), TaskState::Cancelled, "and is cancelled with it");

    let (mut bench, parent, child) = begun(&[("a", &[]), ("b", &[])]);
    let never = Outcome::Failed {
        message: "no".into(),
        retry: skep_rules::plan::Retry::Never,
    };
    bench.end(bench.child(parent, "b"), End::Finished(never));
    assert_eq!(bench.is(child), TaskState::Skipped, "a failed sibling ends it");
    assert_eq!(bench.is(parent), TaskState::Failed);
    assert_eq!(resume(&mut bench, child), Err(Reason::NotFound), "it is in the archive");
}

#[test]
fn a_crew_with_quarantined_agents_drains_to_its_end() {
    let drain = |bench: &mut Bench| {
        let (crew, by) = (bench.crew, "tests".to_owned());
        bench.ask(Command::DrainCrew { crew, by }).unwrap();
    };
    let over = |bench: &Bench, task| {
        let crew = bench.state().crew(bench.crew).unwrap();
        assert_eq!((crew.phase, bench.is(task)), (CrewPhase::Stopped, TaskState::Cancelled));
        assert!(
            bench
                .state()
                .agents_of(bench.crew)
                .all(|agent| agent.phase == Phase::Stopped)
        );
        let moves: Vec<&str> = bench
            .heard(Kind::AgentMoved)
            .iter()
            .map(|entry| entry.detail.as_str())
            .collect();
        assert!(
            moves.iter().any(|detail| detail.ends_with("→ QUARANTINED")),
            "{moves:?}"
        );
        assert!(moves.contains(&"QUARANTINED → STOPPED"), "{moves:?}");
    };
    // Quarantined, then drained.
    let mut bench = signed(CREW);
    let id = bench.task(|_| {});
    bench.ask(void("worker")).unwrap();
    let crew = bench.state().crew(bench.crew).unwrap();
    assert_eq!(crew.status(bench.state().agents_of(bench.crew)), Status::Degraded);
    drain(&mut bench);
    over(&bench, id);
    // Draining, then revoked by command.
    let mut bench = signed(CREW);
    let id = bench.task(|_| {});
    drain(&mut bench);
    assert_eq!(bench.is(id), TaskState::Assigned, "it is let finish");
    bench.started(id);
    bench.ask(void("worker")).unwrap();
    over(&bench, id);
    // Draining, then revoked by an index.
    let mut bench = signed_by_index(CREW);
    let id = bench.task(|_| {});
    bench.started(id);
    drain(&mut bench);
    bench.ask(adopt_index(&revoking(1, &["worker"]), &[50])).unwrap();
    live_on(&mut bench, id, REVOCATION_SWEEP.0);
    assert_eq!(bench.is(id), TaskState::Running);
    bench.pass(REVOCATION_DRAIN.0);
    over(&bench, id);
}

/// As [`signed`], with a root that names key 50 for indexes.
fn signed_by_index(manifest: &str) -> Bench {
    let mut bench = signed(manifest);
    let mut first = root(1, [40, 50, 60], vec![], bench.now);
    first.publishers = bench
        .state()
        .trust()
        .publishers()
        .map(|trusted| trusted.publisher.clone())
        .collect();
    bench.ask(adopt_root(&first, &[40])).unwrap();
    bench
}

fn revoking(version: u64, names: &[&str]) -> skep_rules::metadata::Index {
    let mut index = index(version, START);
    index.revoked.version = version;
    index.revoked.digests = names.iter().map(|name| file_of(name)).collect();
    index
}

/// The attempt at a task is seen alive.
fn beat(bench: &mut Bench, task: TaskId) {
    let lease = bench.lease(task);
    let beat = skep_rules::seam::Beat {
        lease,
        crossings: 1,
        fuel: skep_rules::quantity::Fuel(1),
        percent: None,
    };
    let now = bench.now;
    bench.shard.beats(now, &[beat]);
}

/// Lets time pass while an attempt is seen alive.
fn live_on(bench: &mut Bench, task: TaskId, millis: u64) {
    for _ in 0..millis / 10_000 {
        bench.pass(10_000);
        beat(bench, task);
    }
}

#[test]
fn what_an_index_revokes_is_drained_by_the_next_sweep_and_then_ended() {
    let mut bench = signed_by_index(&CREW.replace("\"acme/worker@1.0.0\"", "\"acme/worker@1.0.0\"\nreplicas = 2"));
    let runs = bench.task(|_| {});
    bench.started(runs);
    let busy = bench.lease(runs).agent;
    let idle = bench.agent(if busy == bench.agent("worker-1") {
        "worker-2"
    } else {
        "worker-1"
    });
    bench.ask(adopt_index(&revoking(1, &["worker"]), &[50])).unwrap();
    let of = |bench: &Bench, agent| bench.state().agent(agent).unwrap().phase;
    assert_eq!(
        (of(&bench, busy), of(&bench, idle)),
        (Phase::Busy, Phase::Ready),
        "the sweep has not come"
    );
    let waits = bench.task(|_| {});
    assert_eq!(
        bench.is(waits),
        TaskState::Ready,
        "a new attempt is given to nobody who has fallen"
    );
    assert_eq!(
        assemble(&mut bench, &CREW.replace("\"crew\"", "\"another\"")),
        Err(Reason::Revoked)
    );

    live_on(&mut bench, runs, REVOCATION_SWEEP.0);
    assert_eq!(
        (of(&bench, busy), of(&bench, idle)),
        (Phase::Draining, Phase::Quarantined)
    );
    assert!(bench.told.contains(&RunnerCommand::Drain { agent: busy }));
    assert_eq!(
        (bench.is(runs), bench.is(waits)),
        (TaskState::Running, TaskState::Paused)
    );
    assert_eq!(
        bench.shard.next_wake(bench.now),
        Some(bench.now.after(REVOCATION_DRAIN))
    );
    bench.pass(REVOCATION_DRAIN.0 - 1);
    assert_eq!(of(&bench, busy), Phase::Draining);
    bench.pass(1);
    assert_eq!(
        (of(&bench, busy), bench.is(runs)),
        (Phase::Quarantined, TaskState::Paused)
    );
    assert!(bench.told.contains(&RunnerCommand::Forget { agent: busy }));
}

#[test]
fn what_ends_while_it_is_drained_counts() {
    let begun = || {
        let mut bench = signed_by_index(CREW);
        let runs = bench.task(|_| {});
        bench.started(runs);
        bench.ask(adopt_index(&revoking(1, &["worker"]), &[50])).unwrap();
        live_on(&mut bench, runs, REVOCATION_SWEEP.0);
        assert_eq!(phase(&bench, "worker"), Phase::Draining);
        (bench, runs)
    };
    let (mut bench, runs) = begun();
    bench.done(runs);
    assert_eq!(
        (bench.is(runs), phase(&bench, "worker")),
        (TaskState::Completed, Phase::Quarantined)
    );
    // A person who revokes by hand does not wait for the drain.
    let (mut bench, runs) = begun();
    bench.ask(void("worker")).unwrap();
    assert_eq!(
        (bench.is(runs), phase(&bench, "worker")),
        (TaskState::Paused, Phase::Quarantined)
    );
    bench.pass(REVOCATION_DRAIN.0);
    assert_eq!(
        bench.heard(Kind::TaskPaused).len(),
        1,
        "the end of the drain finds nothing left"
    );
}

#[test]
fn a_publisher_that_the_root_drops_falls_with_the_next_sweep() {
    let mut bench = signed_by_index(CREW);
    let second = root(
        2,
        [40, 50, 60],
        vec![publisher("bolt", keys(1, &[11]), 19, bench.now)],
        bench.now,
    );
    bench.ask(adopt_root(&second, &[40])).unwrap();
    assert_eq!(phase(&bench, "checker"), Phase::Ready);
    bench.pass(REVOCATION_SWEEP.0);
    for name in ["worker", "planner", "checker"] {
        assert_eq!(phase(&bench, name), Phase::Quarantined, "{name}");
    }
}

#[test]
fn a_restart_ends_what_is_revoked_however_far_the_sweep_had_come() {
    for swept in [false, true] {
        let mut bench = signed_by_index(CREW);
        let runs = bench.task(|_| {});
        bench.started(runs);
        bench.ask(adopt_index(&revoking(1, &["worker"]), &[50])).unwrap();
        if swept {
            live_on(&mut bench, runs, REVOCATION_SWEEP.0);
            assert_eq!(phase(&bench, "worker"), Phase::Draining);
        }
        let checkpoint = bench.shard.checkpoint();
        let records = checkpoint
            .records
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let again = Shard::load(checkpoint.position, records).unwrap();
        assert_eq!(again.state().trust(), bench.state().trust());
        bench.shard = again;
        bench.restart();
        assert_eq!(
            (phase(&bench, "worker"), bench.is(runs)),
            (Phase::Quarantined, TaskState::Paused),
            "{swept}"
        );
        let quarantined = bench.agent("worker");
        assert!(bench.told.contains(&RunnerCommand::Forget { agent: quarantined }));
        bench.restart();
        assert_eq!(
            phase(&bench, "worker"),
            Phase::Quarantined,
            "it stays so over the next start"
        );
    }
}

#[test]
fn the_first_sweep_after_a_start_does_not_wait_for_work() {
    let mut bench = signed_by_index(CREW);
    bench.restart();
    bench.warm();
    let wake = bench.shard.next_wake(bench.now);
    assert_eq!(wake, Some(bench.now), "nobody has looked yet");
    bench.pass(0);
    assert_eq!(
        bench.shard.next_wake(bench.now),
        Some(bench.now.after(REVOCATION_SWEEP))
    );
}

#[test]
fn what_is_not_warm_falls_as_well() {
    let mut bench = signed(CREW);
    assemble(&mut bench, &CREW.replace("\"crew\"", "\"another\"")).unwrap();
    let (worker, planner) = (bench.agent("worker"), bench.agent("planner"));
    let (generation, message) = (1, "too large".to_owned());
    let failed = Command::WarmFailed {
        agent: planner,
        generation,
        reason: Reason::CompileLimit,
        message,
    };
    bench.ask(failed).unwrap();
    for (name, before) in [("worker", Phase::Warming), ("planner", Phase::Failed)] {
        assert_eq!(phase(&bench, name), before);
        bench.ask(void(name)).unwrap();
        assert_eq!(phase(&bench, name), Phase::Quarantined);
    }
    let warmed = Command::Warmed {
        agent: worker,
        generation,
    };
    assert_eq!(bench.ask(warmed), Ok(Reply::Fenced));
}

#[test]
fn thousands_fall_over_several_decisions_that_follow_at_once() {
    let many = "name = 'many'\n[[agent]]\nname = 'a'\nplugin = 'acme/worker@1.0.0'\nreplicas = 900
        [[agent]]\nname = 'b'\nplugin = 'acme/worker@1.0.0'\nreplicas = 600";
    let mut bench = signed(CREW);
    assemble(&mut bench, many).unwrap();
    bench.pass(0);
    let fallen = |bench: &Bench| {
        bench
            .state()
            .agents()
            .filter(|agent| agent.phase == Phase::Quarantined)
            .count()
    };
    bench.ask(void("worker")).unwrap();
    assert_eq!(
        (fallen(&bench), bench.shard.next_wake(bench.now)),
        (1_000, Some(bench.now))
    );
    bench.pass(0);
    assert_eq!((fallen(&bench), bench.shard.is_unfinished()), (1_501, false));
}

#[test]
fn what_is_unsigned_runs_only_where_the_host_takes_it() {
    let mut bench = Bench::new();
    bench.shard.take_unsigned(false);
    bench.restart();
    for name in ["worker", "planner", "checker"] {
        let agent = bench.state().agent(bench.agent(name)).unwrap();
        let why = agent.failure.as_ref().map(|failure| failure.reason);
        assert_eq!(
            (agent.phase, why),
            (Phase::Failed, Some(Reason::SignatureMissing)),
            "{name}"
        );
    }
    assert!(
        !bench
            .told
            .iter()
            .any(|told| matches!(told, RunnerCommand::Start { .. }))
    );
    let again = bench.assemble(&CREW.replace("\"crew\"", "\"another\""));
    assert_eq!(again.unwrap_err().reason, Reason::SignatureMissing);
}

/// Installed is not for ever: what a publisher may sign and want counts when a crew is assembled and when an agent is made ready.
#[test]
fn a_publisher_that_is_narrowed_gives_no_more_than_that() {
    type Narrow = fn(&mut skep_rules::metadata::Publisher);
    let cases: [(Narrow, Reason); 2] = [
        (
            |it| it.plugins = Some(["planner".parse().unwrap()].into()),
            Reason::SignerUntrusted,
        ),
        (
            |it| it.ceiling.tier = skep_rules::limits::Tier::Small,
            Reason::CeilingExceeded,
        ),
    ];
    for (narrow, reason) in cases {
        let mut bench = signed(CREW);
        let mut acme = publisher("acme", keys(1, &[1, 2, 3]), 9, START);
        narrow(&mut acme);
        bench.ask(trust(acme)).unwrap();
        assert_eq!(
            assemble(&mut bench, &CREW.replace("\"crew\"", "\"another\"")),
            Err(reason)
        );
        assert_eq!(phase(&bench, "worker"), Phase::Ready, "what runs goes on");
        bench.restart();
        bench.pass(0);
        assert_eq!(
            phase(&bench, "worker"),
            Phase::Failed,
            "until it would be made ready again"
        );
    }
}
