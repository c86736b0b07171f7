//! Plugins and crews: installed, assembled whole or not at all, warmed, drained.

use skep_rules::{
    agent::Phase,
    audit::Kind,
    command::{Command, Consent},
    crew_record::{CrewPhase, Status},
    decide::Reply,
    grant::Ceiling,
    id::Digest,
    limits::Tier,
    plan::Outcome,
    reason::Reason,
    seam::{End, Export, RunnerCommand},
    shard::Shard,
    task::TaskState,
};

use crate::bench::{Bench, CREW, plugin, plugins, text};

fn status(bench: &Bench) -> Status {
    let state = bench.state();
    state.crew(bench.crew).unwrap().status(state.agents_of(bench.crew))
}

#[test]
fn a_plugin_is_installed_once_and_its_version_never_changes() {
    let mut bench = Bench::empty();
    let first = plugin("worker", &[Export::Executor], "", "");
    let install = |bench: &mut Bench, plugin| {
        bench.ask(Command::InstallPlugin {
            plugin,
            by: "tests".into(),
            signed: None,
            consent: Consent::default(),
        })
    };
    for already in [false, true] {
        let digest = first.digest;
        assert_eq!(
            install(&mut bench, first.clone()),
            Ok(Reply::Installed { digest, already })
        );
    }
    assert_eq!(bench.heard(Kind::PluginInstalled).len(), 1);
    let mut other = first;
    other.digest = Digest::of(b"another file");
    assert_eq!(install(&mut bench, other).unwrap_err().reason, Reason::Conflict);
}

#[test]
fn a_crew_that_cannot_be_is_refused_whole() {
    let one = |more: &str| format!("name = 'crew'\n[[agent]]\nname = 'a'\nplugin = 'acme/worker@1.0.0'\n{more}");
    let cases = [
        (one("roles = ['paint']"), Reason::InvalidManifest, "role `paint`"),
        (
            one("grants = { artifacts = '1MiB' }"),
            Reason::CapabilityDenied,
            "more than the plugin wants",
        ),
        (one("limits = { tier = 'large' }"), Reason::CapabilityDenied, "ceiling"),
        (
            one("[[agent]]\nname = 'b'\nplugin = 'acme/imports@1.0.0'"),
            Reason::CapabilityDenied,
            "skep:agent/artifacts",
        ),
        (
            one("[[agent]]\nname = 'b'\nplugin = 'acme/absent@1.0.0'"),
            Reason::NotFound,
            "not installed",
        ),
    ];
    let mut wanting = plugin("imports", &[Export::Executor], "", "[wants]\nartifacts = '1MiB'");
    wanting.imports = vec!["skep:agent/artifacts@0.1.0".into()];
    let installed: Vec<_> = plugins().into_iter().chain([wanting]).collect();
    for (manifest, reason, named) in cases {
        let mut bench = Bench::empty();
        let rejection = bench
            .assemble_with(&manifest, &installed, &Ceiling::default())
            .unwrap_err();
        assert_eq!(rejection.reason, reason, "{rejection}");
        assert!(rejection.message.contains(named), "{rejection}");
        assert_eq!((bench.state().crews().count(), bench.shard.position()), (0, 0));
    }
    let large = Ceiling {
        tier: Tier::Large,
        writable_mounts: false,
    };
    Bench::empty()
        .assemble_with(&one("limits = { tier = 'large' }"), &installed, &large)
        .unwrap();
}

#[test]
fn a_name_is_free_again_when_its_crew_has_stopped() {
    let mut bench = Bench::new();
    assert_eq!(bench.assemble(CREW).unwrap_err().reason, Reason::Conflict);
    let crew = bench.crew;
    bench
        .ask(Command::DrainCrew {
            crew,
            by: "tests".into(),
        })
        .unwrap();
    assert_eq!(status(&bench), Status::Stopped);
    bench.assemble(CREW).unwrap();
}

#[test]
fn the_status_of_a_crew_follows_its_agents() {
    let mut bench = Bench::empty();
    bench.assemble(&format!("min_ready = 2\n{CREW}")).unwrap();
    assert_eq!(status(&bench), Status::Assembling);
    let warm: Vec<_> = bench.told.drain(..).collect();
    for (command, then) in warm
        .into_iter()
        .zip([Status::Assembling, Status::Assembling, Status::Degraded])
    {
        let RunnerCommand::Warm { agent, .. } = command else {
            unreachable!("{command:?}")
        };
        let (agent, generation) = (agent.agent, agent.generation);
        let fails = agent != bench.agent("checker");
        let command = if fails {
            Command::WarmFailed {
                agent,
                generation,
                reason: Reason::CompileLimit,
                message: "too large".into(),
            }
        } else {
            Command::Warmed { agent, generation }
        };
        bench.ask(command.clone()).unwrap();
        assert_eq!(bench.ask(command), Ok(Reply::Fenced), "it is said once");
        assert_eq!(status(&bench), then);
    }
    let worker = bench.state().agent(bench.agent("worker")).unwrap();
    assert_eq!(
        (worker.phase, worker.failure.as_ref().unwrap().reason),
        (Phase::Failed, Reason::CompileLimit)
    );
}

#[test]
fn a_task_that_nobody_is_left_for_fails_and_says_why() {
    let mut bench = Bench::empty();
    bench.assemble(CREW).unwrap();
    let id = bench.task(|_| {});
    assert_eq!(bench.is(id), TaskState::Ready);
    let (agent, reason) = (bench.agent("worker"), Reason::CompileLimit);
    let message = "too large".into();
    bench
        .ask(Command::WarmFailed {
            agent,
            generation: 1,
            reason,
            message,
        })
        .unwrap();
    let failure = bench.record(id).failure.unwrap();
    assert!(
        failure.message.contains("agent `worker` failed: too large"),
        "{}",
        failure.message
    );
}

#[test]
fn a_draining_crew_finishes_what_runs_and_nothing_else() {
    let mut bench = Bench::new();
    let running = bench.task(|task| task.check = true);
    let (ready, pending) = (bench.task(|_| {}), bench.task(|task| task.dependencies = vec![running]));
    let crew = bench.crew;
    bench
        .ask(Command::DrainCrew {
            crew,
            by: "tests".into(),
        })
        .unwrap();
    assert_eq!(
        [running, ready, pending].map(|task| bench.is(task)),
        [TaskState::Assigned, TaskState::Cancelled, TaskState::Cancelled]
    );
    assert_eq!(status(&bench), Status::Draining);
    let task = bench.new_task();
    assert_eq!(bench.submit(vec![task]).unwrap_err().reason, Reason::IllegalTransition);
    bench.done(running);
    assert_eq!(bench.is(running), TaskState::Cancelled, "nobody is left to check it");
    assert_eq!(bench.state().crew(crew).unwrap().phase, CrewPhase::Stopped);
    let forgotten = bench
        .told
        .iter()
        .filter(|told| matches!(told, RunnerCommand::Forget { .. }))
        .count();
    assert_eq!(forgotten, 3);
}

#[test]
fn what_one_decision_leaves_over_the_next_tick_takes_up() {
    let mut bench = Bench::new();
    let mut tasks = Vec::new();
    for _ in 0..25 {
        let batch: Vec<_> = (0..100).map(|_| bench.new_task()).collect();
        tasks.extend(batch.iter().map(|task| task.id));
        bench.submit(batch).unwrap();
    }
    let running = tasks[0];
    let crew = bench.crew;
    bench
        .ask(Command::DrainCrew {
            crew,
            by: "tests".into(),
        })
        .unwrap();
    for left in [1_500, 500, 1] {
        assert!(bench.shard.is_unfinished() || left == 1);
        assert!(bench.state().live_tasks() >= left);
        bench.pass(0);
    }
    assert_eq!((bench.state().live_tasks(), bench.shard.is_unfinished()), (1, false));
    bench.done(running);
    assert_eq!(bench.state().crew(crew).unwrap().phase, CrewPhase::Stopped);
    assert!(tasks.iter().skip(1).all(|task| bench.is(*task) == TaskState::Cancelled));
}

#[test]
fn work_goes_to_the_least_used_agent_in_the_order_of_submission() {
    let mut bench = Bench::of("name = 'crew'\n[[agent]]\nname = 'w'\nplugin = 'acme/worker@1.0.0'\nreplicas = 2");
    let tasks: Vec<_> = (0..3).map(|_| bench.task(|_| {})).collect();
    let agents = tasks
        .iter()
        .take(2)
        .map(|task| bench.lease(*task).agent)
        .collect::<Vec<_>>();
    assert_eq!(agents, [bench.agent("w-1"), bench.agent("w-2")]);
    assert_eq!(bench.is(tasks[2]), TaskState::Ready);
    bench.done(tasks[1]);
    assert_eq!(bench.lease(tasks[2]).agent, bench.agent("w-2"));
}

#[test]
fn a_recovered_shard_is_the_one_that_was_lost() {
    let mut bench = Bench::new();
    let kept = bench.task(|_| {});
    let checkpoint = bench.shard.checkpoint();
    let after = usize::try_from(checkpoint.position).unwrap();
    bench.end(kept, End::Finished(Outcome::Done(text("output"))));
    let later = bench.task(|task| task.plan = true);
    let records = checkpoint
        .records
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let mut again = Shard::load(checkpoint.position, records).unwrap();
    for (entry, position) in bench.entries[after..].iter().zip(checkpoint.position + 1..) {
        again.replay(position, entry).unwrap();
    }
    assert!(again.state().tasks().eq(bench.state().tasks()) && again.state().agents().eq(bench.state().agents()));
    assert!(again.state().task(later).is_some());
    assert!(
        again.replay(again.position() + 2, &bench.entries[0]).is_err(),
        "a gap is noticed"
    );
    let next = again.position() + 1;
    assert!(
        again.replay(next, b"\xff").is_err(),
        "what cannot be decoded is an error, not a panic"
    );
    let second = bench.shard.checkpoint();
    assert!(
        second.records.iter().any(|(_, value)| value.is_none()),
        "what was archived is taken out: {second:?}"
    );
}
