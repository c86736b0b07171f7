//! Every pair of a state and a change, as tables; and the bytes that older releases wrote.

use super::{Corrupt, State, decode, encode};
use crate::{
    agent::{Failure, Phase},
    approval::{Approval, Asks, Item, OnTimeout, Point, Points, Settled, Terms, Verdict},
    audit::AuditEntry,
    crew::CrewManifest,
    crew_record::{Crew, CrewPhase, Member},
    decide::blank,
    event::{Cause, Change, Counts, Event, Source},
    grant::Effective,
    id::{AgentId, ApprovalId, CrewId, Digest, PluginName, TaskId},
    key::PublicKey,
    lease::Held,
    limits::Tier,
    manifest::Manifest,
    message::{Kind, Letter, Target},
    metadata::{Ceiling, Clock, Index, Keys, Newest, Publisher, Revocations, Root, Rotation},
    plan::{Node, Payload, Plan},
    plugin::{Plugin, Signature},
    priority::Priority,
    quantity::{Fuel, Size, Time},
    reason::Reason,
    seam::{Export, Lease, Usage},
    step::{Child, StepCall},
    task::{Task, TaskState, Wait},
    trust::Revocation,
};

fn crew_id() -> CrewId {
    CrewId::new(1 << 16, 0)
}

fn agent_id() -> AgentId {
    AgentId::new(2 << 16, 0)
}

fn task_id() -> TaskId {
    TaskId::new(3 << 16, 0)
}

fn crew() -> Crew {
    let effective = Effective {
        mounts: Vec::new(),
        workspace: Size(0),
        artifacts: Size(0),
        env: std::collections::BTreeMap::new(),
        limits: Tier::Small.limits(),
        word: crate::capability::GrantWord::free(),
        state: Size(0),
        children: 0,
        messages: crate::message::Topics::default(),
    };
    Crew {
        id: crew_id(),
        manifest: CrewManifest::parse("name = 'c'\n[[agent]]\nname = 'a'\nplugin = 'p/q@1.0.0'").unwrap(),
        members: vec![Member {
            plugin: "p/q".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            digest: Digest::of(b""),
            roles: std::collections::BTreeSet::new(),
            exports: [Export::Executor].into(),
            effective,
            unsigned: true,
        }],
        phase: CrewPhase::Live,
        size: 1,
        created: Time(1),
        ended: None,
        revision: 1,
    }
}

fn held() -> Held {
    Held {
        lease: Lease {
            task: task_id(),
            epoch: 1,
            agent: agent_id(),
            generation: 1,
        },
        export: Export::Executor,
        since: Time(1),
        started: false,
        facts: None,
    }
}

/// A state with one crew, one agent in a phase and one task in a state.
fn state(phase: Phase, task: TaskState) -> State {
    let mut state = State::default();
    let assembled = Event::CrewAssembled {
        crew: Box::new(crew()),
        agents: vec![agent_id()],
    };
    state.apply(&assembled).unwrap();
    state.agents.get_mut(&agent_id()).unwrap().phase = phase;
    let leased = matches!(task, TaskState::Assigned | TaskState::Running);
    let task = Task {
        state: task,
        held: leased.then(held),
        candidate: matches!(task, TaskState::Verifying | TaskState::Paused).then(|| Payload::Inline(Vec::new())),
        ..blank(task_id(), crew_id())
    };
    state.apply(&Event::TaskAccepted(Box::new(task))).unwrap();
    state
}

fn failure() -> Failure {
    Failure::new(Reason::Error, "no")
}

fn changes() -> [(&'static str, Change); 34] {
    let wait = Wait {
        asked: StepCall::Sleep { until: Time(9) }.asked(),
        tasks: Vec::new(),
        all: false,
        until: Some(Time(9)),
        request: None,
    };
    let given = || Source::Given(Payload::Inline(Vec::new()));
    let asks = |point, wait, result| Change::Asks {
        asks: Asks {
            approval: ApprovalId::new(4 << 16, 0),
            point,
            until: Time(9),
        },
        wait,
        result,
    };
    let retry = Change::Retry {
        not_before: Time(9),
        failure: failure(),
        counts: Counts::Retry,
    };
    let plan = Plan {
        nodes: Vec::new(),
        verify_before_next: false,
    };
    [
        ("Ready", Change::Ready),
        ("Assigned", Change::Assigned(held())),
        ("Started", Change::Started),
        ("Lost", Change::Lost),
        ("HandedBack", Change::HandedBack),
        ("Retry", retry),
        ("Candidate", Change::Candidate(given())),
        ("Recheck", Change::Candidate(Source::Candidate)),
        ("SentBack", Change::SentBack(String::new())),
        ("Split", Change::Split),
        ("Drafted", Change::Drafted(Box::new(plan))),
        ("Waits", Change::Waits(wait.clone())),
        ("Continued", Change::Continued(Payload::Inline(Vec::new()))),
        ("Completed", Change::Completed(given())),
        ("Failed", Change::Failed(Cause::Own(failure()))),
        ("Cancelled", Change::Cancelled(failure())),
        ("Skipped", Change::Skipped(Cause::Own(failure()))),
        ("Paused", Change::Paused(failure())),
        ("Exhausted", Change::Exhausted(failure())),
        ("Held", Change::Held(failure())),
        ("ToPending", Change::Resumed(TaskState::Pending)),
        ("ToReady", Change::Resumed(TaskState::Ready)),
        ("ToWaiting", Change::Resumed(TaskState::Waiting)),
        ("ToVerifying", Change::Resumed(TaskState::Verifying)),
        ("Again", Change::Again),
        ("Reprioritised", Change::Reprioritised(Priority::High)),
        ("Overridden", Change::Overridden(Payload::Inline(Vec::new()))),
        ("Buried", Change::Buried(failure())),
        ("Before", asks(Point::Before, None, None)),
        ("After", asks(Point::After, None, Some(given()))),
        ("Action", asks(Point::Action, Some(wait.clone()), None)),
        ("Blocker", asks(Point::Blocker, Some(wait), None)),
        ("Approved", Change::Completed(Source::Candidate)),
        ("Rejected", Change::Rejected(failure())),
    ]
}

/// Where each change takes a task from each state; `-` where it is refused.
const TASKS: &str = "
    change        PENDING           READY     ASSIGNED  RUNNING           WAITING           RETRY_WAIT VERIFYING         COMPLETED FAILED CANCELLED SKIPPED PAUSED    AWAITING_APPROVAL BLOCKED   REJECTED
    Ready         READY             -         -         -                 READY             READY      VERIFYING         -         -      -         -       READY     READY             READY     -
    Assigned      -                 ASSIGNED  -         -                 -                 -          VERIFYING         -         -      -         -       -         -                 -         -
    Started       -                 -         RUNNING   -                 -                 -          VERIFYING         -         -      -         -       -         -                 -         -
    Lost          -                 -         READY     READY             -                 -          VERIFYING         -         -      -         -       -         -                 -         -
    HandedBack    -                 -         READY     READY             -                 -          VERIFYING         -         -      -         -       -         -                 -         -
    Retry         -                 -         -         RETRY_WAIT        -                 -          VERIFYING         -         -      -         -       -         -                 -         -
    Candidate     -                 -         -         VERIFYING         VERIFYING         -          -                 -         -      -         -       -         -                 -         -
    Recheck       -                 -         -         VERIFYING         VERIFYING         -          -                 -         -      -         -       VERIFYING -                 -         -
    SentBack      -                 -         -         -                 READY             -          READY             -         -      -         -       -         -                 -         -
    Split         -                 WAITING   -         WAITING           -                 -          -                 -         -      -         -       -         -                 -         -
    Drafted       -                 -         -         READY             -                 -          -                 -         -      -         -       -         -                 -         -
    Waits         -                 -         -         WAITING           -                 -          -                 -         -      -         -       -         -                 -         -
    Continued     -                 -         -         READY             -                 -          -                 -         -      -         -       -         -                 -         -
    Completed     -                 -         -         COMPLETED         COMPLETED         -          COMPLETED         -         -      -         -       -         -                 -         -
    Failed        FAILED            FAILED    FAILED    FAILED            FAILED            FAILED     FAILED            -         -      -         -       FAILED    FAILED            FAILED    -
    Cancelled     CANCELLED         CANCELLED CANCELLED CANCELLED         CANCELLED         CANCELLED  CANCELLED         -         -      -         -       CANCELLED CANCELLED         CANCELLED -
    Skipped       SKIPPED           SKIPPED   SKIPPED   SKIPPED           SKIPPED           SKIPPED    SKIPPED           -         -      -         -       SKIPPED   SKIPPED           SKIPPED   -
    Paused        -                 PAUSED    PAUSED    PAUSED            -                 -          PAUSED            -         -      -         -       -         -                 -         -
    Exhausted     -                 -         -         PAUSED            -                 -          PAUSED            -         -      -         -       -         -                 PAUSED    -
    Held          PAUSED            PAUSED    PAUSED    PAUSED            PAUSED            PAUSED     PAUSED            -         -      -         -       -         -                 -         -
    ToPending     -                 -         -         -                 -                 -          -                 -         -      -         -       PENDING   -                 -         -
    ToReady       -                 -         -         -                 -                 -          -                 -         -      -         -       READY     -                 -         -
    ToWaiting     -                 -         -         -                 -                 -          -                 -         -      -         -       WAITING   -                 -         -
    ToVerifying   -                 -         -         -                 -                 -          -                 -         -      -         -       VERIFYING -                 -         -
    Again         -                 -         -         -                 -                 -          -                 -         -      -         -       READY     -                 -         -
    Reprioritised PENDING           READY     ASSIGNED  RUNNING           WAITING           RETRY_WAIT VERIFYING         -         -      -         -       PAUSED    AWAITING_APPROVAL BLOCKED   -
    Overridden    COMPLETED         COMPLETED COMPLETED COMPLETED         COMPLETED         COMPLETED  COMPLETED         -         -      -         -       COMPLETED COMPLETED         COMPLETED -
    Buried        -                 -         -         FAILED            -                 -          FAILED            -         -      -         -       -         FAILED            FAILED    -
    Before        AWAITING_APPROVAL -         -         -                 -                 -          -                 -         -      -         -       -         -                 -         -
    After         -                 -         -         AWAITING_APPROVAL AWAITING_APPROVAL -          AWAITING_APPROVAL -         -      -         -       -         -                 -         -
    Action        -                 -         -         AWAITING_APPROVAL -                 -          -                 -         -      -         -       -         -                 -         -
    Blocker       -                 -         -         BLOCKED           -                 -          -                 -         -      -         -       -         -                 -         -
    Approved      -                 -         -         COMPLETED         COMPLETED         -          COMPLETED         -         -      -         -       -         COMPLETED         -         -
    Rejected      -                 -         -         -                 -                 -          -                 -         -      -         -       -         REJECTED          -         -
";

#[test]
fn every_change_takes_every_state_where_the_table_says() {
    let mut rows = TASKS.lines().filter(|line| !line.trim().is_empty());
    let header: Vec<&str> = rows.next().unwrap().split_whitespace().skip(1).collect();
    let states: Vec<String> = TaskState::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(header, states);
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split_whitespace().collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, changes().map(|(name, _)| name));
    for (column, before) in TaskState::ALL.iter().enumerate() {
        let mut reached = std::collections::BTreeSet::new();
        for (row, (name, change)) in rows.iter().zip(changes()) {
            let expected = row[column + 1];
            let moves = !matches!(change, Change::Reprioritised(_));
            let mut state = state(Phase::Ready, *before);
            let (task, at) = (task_id(), Time(5));
            let after = match state.apply(&Event::TaskMoved { task, change, at }) {
                Ok(()) => {
                    let after = state.task(task).unwrap().state;
                    reached.extend(Some(after).filter(|_| moves));
                    after.to_string()
                }
                Err(error) => {
                    assert!(matches!(error, Corrupt::Illegal { .. }), "{error}");
                    "-".to_owned()
                }
            };
            assert_eq!(after, expected, "{before} and {name}");
        }
        assert_eq!(
            reached,
            before.leaves_to().iter().copied().collect(),
            "what {before} is said to leave to"
        );
    }
}

#[test]
fn every_phase_is_left_only_where_the_table_says() {
    let legal: &[(Phase, &[Phase])] = &[
        (
            Phase::Provisioning,
            &[Phase::Warming, Phase::Stopped, Phase::Quarantined],
        ),
        (
            Phase::Warming,
            &[Phase::Ready, Phase::Failed, Phase::Draining, Phase::Quarantined],
        ),
        (Phase::Ready, &[Phase::Busy, Phase::Draining, Phase::Quarantined]),
        (Phase::Busy, &[Phase::Ready, Phase::Draining, Phase::Quarantined]),
        (Phase::Draining, &[Phase::Stopped, Phase::Quarantined]),
        (Phase::Stopped, &[]),
        (Phase::Failed, &[Phase::Stopped, Phase::Quarantined]),
        (Phase::Quarantined, &[Phase::Stopped]),
    ];
    for (before, expected) in legal {
        for to in Phase::ALL {
            let mut state = state(*before, TaskState::Pending);
            let moved = Event::AgentMoved {
                agent: agent_id(),
                to: *to,
                at: Time(5),
                failure: None,
            };
            assert_eq!(state.apply(&moved).is_ok(), expected.contains(to), "{before} to {to}");
        }
    }
}

#[test]
fn an_entry_about_nothing_is_an_error() {
    let mut state = State::default();
    let usage = Usage {
        fuel: Fuel(0),
        ..Usage::default()
    };
    let lease = held().lease;
    for event in [
        Event::TaskMoved {
            task: task_id(),
            change: Change::Ready,
            at: Time(0),
        },
        Event::AttemptUsed {
            lease,
            usage,
            denials: Vec::new(),
        },
        Event::CrewMoved {
            crew: crew_id(),
            to: CrewPhase::Draining,
            at: Time(0),
        },
    ] {
        assert!(matches!(state.apply(&event), Err(Corrupt::Missing(_))), "{event:?}");
    }
}

/// Every event of trust, all that may be absent once there and once not.
fn events_of_trust(at: Time) -> Vec<Event> {
    let key = |number| PublicKey::from_bytes([number; 32]);
    let keys = |number| Keys {
        keys: [key(number)].into(),
        threshold: 1,
    };
    let (digest, plugin, expires) = (Digest::of(b""), "a/b".parse::<PluginName>().unwrap(), Time(at.0 + 9));
    let publisher = |full: bool| Publisher {
        name: "a".parse().unwrap(),
        release: keys(1),
        recovery: full.then(|| key(2)),
        plugins: full.then(|| ["b".parse().unwrap()].into()),
        ceiling: Ceiling {
            state: Size(0),
            children: 0,
            ..Ceiling::default()
        },
        expires,
    };
    let root = |full: bool| Root {
        format: 1,
        version: 1,
        issued: at,
        expires,
        root: keys(4),
        index: full.then(|| keys(5)),
        clock: full.then(|| keys(6)),
        publishers: full.then(|| publisher(false)).into_iter().collect(),
    };
    let rotation = Rotation {
        format: 1,
        publisher: "a".parse().unwrap(),
        version: 1,
        issued: at,
        expires,
        release: keys(7),
        recovery: key(8),
    };
    let index = Index {
        format: 1,
        version: 1,
        issued: at,
        expires,
        plugins: [(plugin.clone(), Newest { release_seq: 3, digest })].into(),
        revoked: Revocations {
            version: 2,
            keys: [key(9).id()].into(),
            digests: [digest].into(),
            minimum: [(plugin.clone(), 3)].into(),
        },
    };
    let clock = Clock {
        format: 1,
        version: 1,
        issued: at,
        expires,
        index: digest,
    };
    let installed = |signed| {
        let manifest = Manifest::parse("[plugin]\nname = 'a/b'\nversion = '1.0.0'").unwrap();
        Event::PluginInstalled(Box::new(Plugin {
            digest,
            manifest,
            exports: [Export::Executor].into(),
            imports: vec!["c:d/e@0.1.0".to_owned()],
            size: Size(1),
            installed_at: at,
            revision: 1,
            signed,
        }))
    };
    let signature = Signature {
        statement: digest,
        release_seq: 3,
        signers: [key(1).id()].into(),
        needed: 1,
        expires,
    };
    let revoked = |what| Event::Revoked { what, at };
    vec![
        installed(None),
        installed(Some(signature)),
        Event::PluginRemoved { digest, at },
        Event::PublisherTrusted {
            publisher: Box::new(publisher(false)),
            at,
        },
        Event::PublisherTrusted {
            publisher: Box::new(publisher(true)),
            at,
        },
        Event::RootAdopted {
            root: Box::new(root(false)),
            at,
        },
        Event::RootAdopted {
            root: Box::new(root(true)),
            at,
        },
        Event::KeysRotated {
            rotation: Box::new(rotation),
            at,
        },
        Event::IndexAdopted {
            index: Box::new(index),
            digest,
            at,
        },
        Event::ClockAdopted { clock, at },
        revoked(Revocation::Key(key(1).id())),
        revoked(Revocation::Digest(digest)),
        revoked(Revocation::Publisher("a".parse().unwrap())),
        revoked(Revocation::Below { plugin, minimum: 3 }),
        Event::TimeSeen { at },
        Event::TimeReset { at },
        Event::CacheRefused { digest, at },
    ]
}

/// Every event of approvals, and the changes that come with them.
fn events_of_approvals(at: Time) -> Vec<Event> {
    let (task, id) = (task_id(), ApprovalId::new(4 << 16, 0));
    let moved = |change| Event::TaskMoved { task, change, at };
    let verdict = Verdict {
        approved: true,
        by: Some("a".into()),
        remark: "b".into(),
        at,
        always: true,
    };
    let asked = Approval {
        id,
        task,
        crew: crew_id(),
        point: Point::Action,
        action: "deploy".into(),
        question: "why".into(),
        items: vec![Item::new("x".into(), "{}".into()), Item::new("y".into(), "{".into())],
        component: Some(Digest::of(b"")),
        digest: Digest::of(b""),
        requester: "a".into(),
        by_requester: true,
        asked: at,
        until: at,
        terms: Terms {
            expires: Some(crate::quantity::Millis(9)),
            on_timeout: OnTimeout::Escalate,
        },
        escalated: 1,
        verdicts: [(0, verdict.clone())].into(),
        settled: Some((Settled::Expired, at)),
    };
    let accepted = Task {
        points: Some(Points {
            before: Some(id),
            after: Some(id),
            terms: Terms::default(),
        }),
        asks: Some(Asks {
            approval: id,
            point: Point::Before,
            until: at,
        }),
        always: vec!["deploy".into()],
        state: TaskState::AwaitingApproval,
        ..blank(task, crew_id())
    };
    let asks = changes().into_iter().map(|(_, change)| change);
    let asks = asks.filter(|change| matches!(change, Change::Asks { .. }));
    let mut events: Vec<Event> = asks.map(moved).collect();
    events.extend([
        moved(Change::Rejected(failure())),
        Event::TaskAccepted(Box::new(accepted)),
        Event::ApprovalAsked(Box::new(asked)),
        Event::ApprovalDecided {
            approval: id,
            items: vec![0, 1],
            verdict,
        },
        Event::ApprovalEscalated {
            approval: id,
            until: at,
            at,
        },
    ]);
    let settled = [Settled::Decided, Settled::Expired, Settled::Withdrawn];
    events.extend(settled.map(|how| Event::ApprovalSettled { approval: id, how, at }));
    events
}

/// What a release has written, every later one reads as what it meant: these bytes never change, lines are only added. A record that has grown since
/// has nothing in its new fields.
#[test]
fn entries_of_every_release_are_read() {
    let (task, at) = (task_id(), Time(1_700_000_000_000));
    let moved = |change| Event::TaskMoved { task, change, at };
    let mut events = vec![
        moved(Change::Ready),
        moved(Change::Assigned(held())),
        moved(Change::Failed(Cause::Own(failure()))),
        Event::HostRestarted { at },
        Event::TaskAccepted(Box::new(blank(task, crew_id()))),
        moved(Change::Paused(failure())),
        Event::AgentMoved {
            agent: agent_id(),
            to: Phase::Quarantined,
            at,
            failure: Some(failure()),
        },
    ];
    events.extend(events_of_trust(at));
    events.push(moved(Change::HandedBack));
    events.extend(events_of_approvals(at));
    assert_eq!(events.len(), WRITTEN.len());
    for (event, written) in events.into_iter().zip(WRITTEN) {
        assert_eq!(decode::<Event>("an entry", &encode(&event)).as_ref(), Ok(&event));
        let bytes: Vec<u8> = written
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(decode::<Event>("an entry", &bytes), Ok(event));
    }
}

const WRITTEN: &[&str] = &[
    "82088350000000000000000000000000000300008200801b0000018bcfe56800",
    "820883500000000000000000000000000003000082018184845000000000000000000000000000030000015000000000000000000000000000020000010001f41b0000018bcfe56800",
    "820883500000000000000000000000000003000082098182008182181a626e6f1b0000018bcfe56800",
    "8205811b0000018bcfe56800",
    "820681982c50000000000000000000000000000300005000000000000000000000000000010000f65000000000000000000000000000030000f601608200814080f6f480f4f4f400808080a0000000000100000000f680f6f6f6f6f6f6f6000080600000",
    "8208835000000000000000000000000000030000820c8182181a626e6f1b0000018bcfe56800",
    "8204845000000000000000000000000000020000071b0000018bcfe5680082181a626e6f",
    "820081875820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855848463612f6265312e302e30606081808480000080808100816b633a642f6540302e312e30011b0000018bcfe5680001",
    "820081885820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855848463612f6265312e302e30606081808480000080808100816b633a642f6540302e312e30011b0000018bcfe5680001855820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855038158205293319ab1bbfee0013be6e8330b7291e6a5bf235541e996b92d9cd01ffee703011b0000018bcfe56809",
    "8214825820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8551b0000018bcfe56800",
    "82158286616182815820010101010101010101010101010101010101010101010101010101010101010101f6f68501001a100000001a10000000f51b0000018bcfe568091b0000018bcfe56800",
    "82158286616182815820010101010101010101010101010101010101010101010101010101010101010101582002020202020202020202020202020202020202020202020202020202020202028161628501001a100000001a10000000f51b0000018bcfe568091b0000018bcfe56800",
    "8216828801011b0000018bcfe568001b0000018bcfe5680982815820040404040404040404040404040404040404040404040404040404040404040401f6f6801b0000018bcfe56800",
    "8216828801011b0000018bcfe568001b0000018bcfe568098281582004040404040404040404040404040404040404040404040404040404040404040182815820050505050505050505050505050505050505050505050505050505050505050501828158200606060606060606060606060606060606060606060606060606060606060606018186616182815820010101010101010101010101010101010101010101010101010101010101010101f6f68501001a100000001a10000000f51b0000018bcfe568091b0000018bcfe56800",
    "82178287016161011b0000018bcfe568001b0000018bcfe5680982815820070707070707070707070707070707070707070707070707070707070707070701582008080808080808080808080808080808080808080808080808080808080808081b0000018bcfe56800",
    "821818838601011b0000018bcfe568001b0000018bcfe56809a163612f6282035820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85584028158204ccc0ed7209088b619a2338960567a974cdbb5ab67e35fa4c4e642c1f40cc42f815820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855a163612f62035820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8551b0000018bcfe56800",
    "821819828501011b0000018bcfe568001b0000018bcfe568095820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8551b0000018bcfe56800",
    "82181a8282008158205293319ab1bbfee0013be6e8330b7291e6a5bf235541e996b92d9cd01ffee7031b0000018bcfe56800",
    "82181a828201815820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8551b0000018bcfe56800",
    "82181a8282028161611b0000018bcfe56800",
    "82181a8282038263612f62031b0000018bcfe56800",
    "82181b811b0000018bcfe56800",
    "82181c811b0000018bcfe56800",
    "820b825820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8551b0000018bcfe56800",
    "8208835000000000000000000000000000030000821828801b0000018bcfe56800",
    "82088350000000000000000000000000000300008218648183500000000000000000000000000004000000091b0000018bcfe56800",
    "8208835000000000000000000000000000030000821864838350000000000000000000000000000400000109f6820081820081401b0000018bcfe56800",
    "820883500000000000000000000000000003000082186482835000000000000000000000000000040000020984820750e1aad149b1236ed91617aaea48c5c4bd80f4091b0000018bcfe56800",
    "820883500000000000000000000000000003000082186482835000000000000000000000000000040000030984820750e1aad149b1236ed91617aaea48c5c4bd80f4091b0000018bcfe56800",
    "82088350000000000000000000000000000300008218658182181a626e6f1b0000018bcfe56800",
    "820681984550000000000000000000000000000300005000000000000000000000000000010000f65000000000000000000000000000030000f601608200814080f6f480f4f4f400808080a000000018640100000000f680f6f6f6f6f6f6f6000080600000f6f4000000f6f6f6f6f685f6f6f6f6800180f68000f6f6f6f6f6f6835000000000000000000000000000040000500000000000000000000000000004000082f600835000000000000000000000000000040000001b0000018bcfe5680081666465706c6f79",
    "821864819150000000000000000000000000000400005000000000000000000000000000030000500000000000000000000000000001000002666465706c6f796377687982836178627b7df5836179617bf45820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8555820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8556161f51b0000018bcfe568001b0000018bcfe5680082090101a10085f5616161621b0000018bcfe56800f582011b0000018bcfe56800",
    "82186583500000000000000000000000000004000082000185f5616161621b0000018bcfe56800f5",
    "8218668350000000000000000000000000000400001b0000018bcfe568001b0000018bcfe56800",
    "821867835000000000000000000000000000040000001b0000018bcfe56800",
    "821867835000000000000000000000000000040000011b0000018bcfe56800",
    "821867835000000000000000000000000000040000021b0000018bcfe56800",
];

/// What says nothing with its newer fields is written as it was before there were any, and so is read as well.
#[test]
fn newer_fields_that_say_nothing_are_not_written() {
    fn written<T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> + PartialEq + std::fmt::Debug>(
        value: &T,
    ) -> u64 {
        let bytes = encode(value);
        let read: T = decode("a value", &bytes).unwrap();
        assert_eq!(read, *value);
        minicbor::Decoder::new(&bytes).array().unwrap().unwrap()
    }
    let node = Node::named("a".parse().unwrap());
    assert!(written(&node) <= 17);
    let child = Child {
        description: String::new(),
        input: Payload::Inline(Vec::new()),
        roles: Default::default(),
        check: false,
        max_retries: None,
        retry: Default::default(),
        timeouts: Default::default(),
        priority: None,
    };
    assert!(written(&child) <= 5);
    let letter = Letter {
        kind: Kind::Event,
        subject: "a".parse().unwrap(),
        target: Target::Subscribers,
        body: Payload::Inline(Vec::new()),
        priority: Priority::Medium,
        ttl: None,
        partition_key: None,
        idempotency_key: None,
        correlation: None,
        reply_to: None,
        traceparent: None,
        tracestate: None,
        datatype: None,
    };
    assert!(written(&letter) <= 11);
    let entry = AuditEntry::new(Time(1), crate::audit::Kind::BackedUp, "");
    assert!(written(&entry) <= 8);
}
