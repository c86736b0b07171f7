use skep::export::{Piece, Writer};
use skep_rules::{
    capability::GrantWord,
    id::{AgentId, CrewId},
    limits::Tier,
    plan::Payload,
    quantity::{Size, Time},
    seam::{Call, Identity, Lease, TaskView, Usage},
    step,
    step::StepResult,
    task::TaskState,
};

use super::*;

/// A record of two steps.
fn recording(ending: Ending, mounts: Vec<Mount>) -> Recording {
    let (agent, crew) = (AgentId::new(7 << 16, 0), CrewId::new(8 << 16, 0));
    let export = Export {
        skep: String::new(),
        lease: Lease {
            task: TaskId::new(9 << 16, 0),
            epoch: 1,
            agent,
            generation: 1,
        },
        run: 0,
        agent: Identity {
            agent,
            generation: 1,
            name: "a".into(),
            crew,
        },
        plugin: "acme/x".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        component: Digest::of(b""),
        call: Call::Execute,
        view: TaskView {
            attempt: 1,
            description: String::new(),
            input: Payload::Inline(Vec::new()),
            dependencies: Vec::new(),
            facts: None,
            remarks: Vec::new(),
            seed: 0,
            records: true,
            deadline: None,
            fuel: None,
            began: Time(1),
        },
        effective: Effective {
            mounts,
            workspace: Size(0),
            artifacts: Size(0),
            env: [("KEY".to_owned(), skep::export::MASK.to_owned())].into(),
            limits: Tier::Small.limits(),
            word: GrantWord::free(),
            state: Size(0),
            children: 0,
            messages: skep_rules::message::Topics::default(),
        },
        masked: ["KEY".to_owned()].into(),
        steps: 2,
        state: TaskState::Running,
        ending,
    };
    let step = |alarm| step::Step {
        asked: StepCall::Clock { alarm }.asked(),
        at: Time(1),
        result: StepResult::Done,
    };
    let steps = [step(None), step(Some(Time(1)))];
    let steps = steps.iter().flat_map(|step| minicbor::to_vec(step).unwrap()).collect();
    let mut writer = Writer::begin(Vec::new()).unwrap();
    for piece in [Piece::Head(Box::new(export)), Piece::Steps(steps), Piece::Last] {
        writer.piece(&piece).unwrap();
    }
    Recording::read(writer.into_inner().as_slice()).unwrap()
}

fn done(text: &str) -> End {
    End::Finished(Outcome::Done(Payload::Inline(text.into())))
}

/// What is said of an attempt that was given so many steps and ended so.
fn said(ending: Ending, given: u64, end: End, beyond: bool) -> Option<(u64, String, String)> {
    let ended = Ended {
        end,
        usage: Usage::default(),
        denials: Vec::new(),
        log: Vec::new(),
    };
    let beyond = beyond.then_some(StepCall::Clock { alarm: None });
    let verdict = judge(&recording(ending, Vec::new()), given, &ended, beyond).unwrap();
    verdict.map(|divergence| (divergence.step, divergence.expected, divergence.got))
}

#[test]
fn the_first_divergence_is_said() {
    let result = || Ending::of(&done("1"));
    // As the record says, stopped before its end, and a run that goes on.
    assert_eq!(said(result(), 2, done("1"), false), None);
    assert_eq!(said(result(), 1, End::Fenced, true), None);
    assert_eq!(said(Ending::Open, 2, End::Fenced, true), None);
    assert_eq!(said(Ending::Open, 2, done("2"), false), None);
    // Another result, another step, none where there was one.
    let (step, expected, got) = said(result(), 2, done("2"), false).unwrap();
    assert_eq!(
        (step, expected.as_str(), got.as_str()),
        (2, "the end, with the result 1", "the end, with the result 2")
    );
    let (step, expected, got) = said(result(), 2, End::Fenced, true).unwrap();
    assert_eq!((step, expected.as_str()), (2, "the end, with the result 1"));
    assert!(got.starts_with("another step, clock ("), "{got}");
    let (step, expected, got) = said(result(), 1, done("1"), false).unwrap();
    assert!(
        step == 1 && expected.starts_with("clock (") && got == "the end, with the result 1",
        "{expected} {got}"
    );
    let diverged = End::Diverged {
        step: 1,
        expected: "a".into(),
        got: "b".into(),
    };
    assert_eq!(said(result(), 2, diverged, false), Some((1, "a".into(), "b".into())));
    let late = End::Stopped {
        reason: Reason::DeadlineExceeded,
        message: "late".into(),
    };
    assert_eq!(
        said(result(), 2, late, false).unwrap().2,
        "the end, by deadline-exceeded: late"
    );
}

#[test]
fn a_file_is_shown_only_what_the_command_line_names() {
    let here = tempfile::tempdir().unwrap();
    let mount = Mount {
        guest: "/input".parse().unwrap(),
        host: "/etc".into(),
        access: Access::Write,
    };
    let recording = recording(Ending::Open, vec![mount]);
    let args = |mounts: &[&str], env: &[(&str, &str)]| Args {
        what: String::new(),
        plugin: None,
        until: None,
        verbose: false,
        mounts: mounts.iter().map(|mount| mount.parse().unwrap()).collect(),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let held = |args: &Args, is_task| {
        let mut hints = Vec::new();
        let effective = effective(&recording.export, args, is_task, &mut hints);
        effective.map(|effective| (effective, hints))
    };
    let (file, hints) = held(&args(&[], &[]), false).unwrap();
    assert!(file.mounts.is_empty() && hints.len() == 2, "{hints:?}");
    let (task, _) = held(&args(&[], &[]), true).unwrap();
    assert_eq!(
        (task.mounts[0].host.as_str(), task.mounts[0].access),
        ("/etc", Access::Read)
    );
    let named = format!("{}:/input", here.path().display());
    let (file, hints) = held(&args(&[&named], &[("KEY", "v")]), false).unwrap();
    assert_eq!(
        file.mounts[0].host,
        here.path().canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!((file.env["KEY"].as_str(), hints.len()), ("v", 1));
    for bad in [
        args(&[&format!("{named}:rw")], &[]),
        args(&[&format!("{}:/other", here.path().display())], &[]),
        args(&[], &[("OTHER", "v")]),
    ] {
        let error = held(&bad, false).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit, Exit::Usage);
    }
}
