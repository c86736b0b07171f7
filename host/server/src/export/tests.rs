use skep_rules::{
    id::{AgentId, CrewId},
    limits::{DEFAULT_RETRIES, Tier},
    plan::{Artifact, Note},
    quantity::Time,
    step::StepCall,
};

use super::*;

fn export(steps: u64) -> Export {
    let (agent, crew, task) = (
        AgentId::new(7 << 16, 0),
        CrewId::new(8 << 16, 0),
        TaskId::new(9 << 16, 0),
    );
    Export {
        skep: "0.1.0".into(),
        lease: Lease {
            task,
            epoch: 3,
            agent,
            generation: 2,
        },
        run: 1,
        agent: Identity {
            agent,
            generation: 2,
            name: "a".into(),
            crew,
        },
        plugin: "acme/x".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        component: Digest::of(b"component"),
        call: Call::Plan {
            notes: vec![Note {
                name: "a.md".into(),
                text: "note".into(),
            }],
        },
        view: TaskView {
            attempt: 2,
            description: "d".into(),
            input: Payload::Inline(b"in".to_vec()),
            dependencies: Vec::new(),
            facts: None,
            remarks: Vec::new(),
            seed: 5,
            records: true,
            deadline: None,
            fuel: None,
            began: Time(50),
        },
        effective: Effective {
            mounts: Vec::new(),
            workspace: skep_rules::quantity::Size(0),
            artifacts: skep_rules::quantity::Size(0),
            env: BTreeMap::from([("KEY".into(), MASK.into())]),
            limits: Tier::Small.limits(),
            word: skep_rules::capability::GrantWord::free(),
            state: skep_rules::quantity::Size(9),
            children: 1,
            messages: skep_rules::message::Topics::default(),
        },
        masked: BTreeSet::from(["KEY".into()]),
        steps,
        state: TaskState::Completed,
        ending: Ending::Done(Payload::Inline(b"out".to_vec())),
    }
}

fn step(at: u64, result: StepResult) -> Vec<u8> {
    crate::driver::encode(&Step {
        asked: StepCall::Clock { alarm: None }.asked(),
        at: Time(at),
        result,
    })
}

fn child(id: TaskId) -> DependencyEnd {
    DependencyEnd {
        name: id.to_string(),
        output: Err(Reason::Trapped),
        skipped: false,
    }
}

/// A file with three steps in two pieces, one child and two artifacts, and where its pieces end.
fn file() -> (Vec<u8>, Vec<usize>) {
    let ended = TaskId::new(10 << 16, 0);
    let pieces = [
        Piece::Head(Box::new(export(3))),
        Piece::Component(b"component".to_vec()),
        Piece::Steps([step(51, StepResult::Done), step(52, StepResult::Written(1))].concat()),
        Piece::Steps(step(53, StepResult::Ended(vec![ended]))),
        Piece::Child(child(ended)),
        Piece::Artifact {
            digest: Digest::of(b"here"),
            bytes: Some(b"here".to_vec()),
        },
        Piece::Artifact {
            digest: Digest::of(b"not here"),
            bytes: None,
        },
        Piece::Last,
    ];
    let mut writer = Writer::begin(Vec::new()).unwrap();
    let mut ends = vec![writer.to.len()];
    for piece in &pieces {
        writer.piece(piece).unwrap();
        ends.push(writer.to.len());
    }
    (writer.into_inner(), ends)
}

fn write(pieces: &[Piece]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new()).unwrap();
    pieces.iter().for_each(|piece| writer.piece(piece).unwrap());
    writer.into_inner()
}

#[test]
fn a_file_gives_back_what_was_written() {
    let recording = Recording::read(file().0.as_slice()).unwrap();
    assert_eq!(recording.export, export(3));
    assert_eq!(recording.component.as_deref(), Some(b"component".as_slice()));
    assert_eq!(recording.artifacts[&Digest::of(b"here")], b"here");
    assert!(recording.missing.contains(&Digest::of(b"not here")));
    let times = |from| -> Vec<u64> {
        recording
            .steps(from)
            .iter()
            .map(|recorded| recorded.step.at.0)
            .collect()
    };
    assert_eq!((times(0), times(1), times(2)), (vec![51, 52], vec![52], vec![53]));
    assert!(recording.steps(3).is_empty());
    assert_eq!(recording.steps(2)[0].ends, [child(TaskId::new(10 << 16, 0))]);
}

#[test]
fn every_cut_is_found_and_placed() {
    let (good, ends) = file();
    for length in 0..good.len() {
        let error = Recording::read(&good[..length]).unwrap_err();
        match error {
            Error::Foreign => assert!(length < MAGIC.len(), "{length}"),
            Error::Cut { at, begins } => {
                assert_eq!(at, length as u64);
                let begun = ends.iter().rev().find(|end| **end <= length).copied().unwrap_or(length);
                assert_eq!(begins, begun as u64, "cut at {length}");
            }
            other => panic!("cut at {length}: {other}"),
        }
    }
    let long = [good.as_slice(), b"x"].concat();
    assert!(
        matches!(Recording::read(long.as_slice()), Err(Error::Invalid { begins, .. }) if begins == good.len() as u64)
    );
}

#[test]
fn every_flipped_bit_is_found_and_no_piece_of_it_is_read() {
    let (good, ends) = file();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let begun = ends.iter().rev().find(|end| **end <= at).copied().unwrap_or(0) as u64;
            match Recording::read(bytes.as_slice()).unwrap_err() {
                Error::Foreign => assert!(at < MAGIC.len()),
                Error::Format { .. } => assert!((MAGIC.len()..ends[0]).contains(&at)),
                // A length that is another makes the piece another, or longer than the file.
                Error::Damaged { begins, .. } | Error::Cut { begins, .. } | Error::Invalid { begins, .. } => {
                    assert!(
                        begins == begun || at < ends[0],
                        "bit {bit} of byte {at}: {begins}, not {begun}"
                    );
                }
                Error::Unreadable(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn pieces_that_contradict_each_other_are_refused() {
    let head = || Piece::Head(Box::new(export(1)));
    let steps = || Piece::Steps(step(51, StepResult::Done));
    let artifact = |digest, bytes: &[u8]| Piece::Artifact {
        digest,
        bytes: Some(bytes.to_vec()),
    };
    let cases: &[(Vec<Piece>, &str)] = &[
        (vec![steps()], "this one is another"),
        (vec![head(), Piece::Last], "the record has 1 steps, 0 are in the file"),
        (
            vec![head(), steps(), steps(), Piece::Last],
            "the record has 1 steps, 2 are in the file",
        ),
        (vec![head(), head()], "comes once"),
        (
            vec![head(), Piece::Component(b"other".to_vec())],
            "not the one that made the record",
        ),
        (
            vec![head(), artifact(Digest::of(b"a"), b"b")],
            "not what it is said to be",
        ),
        (vec![head(), Piece::Steps(b"junk".to_vec())], "a step"),
    ];
    for (pieces, expected) in cases {
        let error = Recording::read(write(pieces).as_slice()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn ends_are_compared_by_what_counts() {
    let artifact = |media: &str| {
        Ending::Done(Payload::Artifact(Artifact {
            digest: Digest::of(b"x"),
            size: 1,
            media: media.into(),
        }))
    };
    assert!(artifact("a").is_like(&artifact("b")));
    let plan = |dependencies: &[&str], max_retries, input: &[u8]| {
        Ending::Split(Plan {
            nodes: ["n", "a", "b"]
                .map(|name| Node {
                    roles: ["worker".parse().unwrap()].into(),
                    input: Payload::Inline(input.to_vec()),
                    dependencies: dependencies
                        .iter()
                        .filter(|_| name == "n")
                        .map(|name| name.parse().unwrap())
                        .collect(),
                    max_retries,
                    ..Node::named(name.parse().unwrap())
                })
                .into(),
            verify_before_next: false,
        })
    };
    let one = plan(&["b", "a", "b"], None, b"1");
    assert!(one.is_like(&plan(&["a", "b"], Some(DEFAULT_RETRIES), b"1")));
    for other in [
        plan(&["a"], None, b"1"),
        plan(&["a", "b"], Some(9), b"1"),
        plan(&["a", "b"], None, b"2"),
    ] {
        assert!(!one.is_like(&other), "{other:?}");
    }
    let stopped = |reason| End::Stopped {
        reason,
        message: String::new(),
    };
    assert_eq!(Ending::of(&stopped(Reason::Trapped)), Ending::Stopped(Reason::Trapped));
    assert_eq!(Ending::of(&stopped(Reason::DeadlineExceeded)), Ending::Open);
}
