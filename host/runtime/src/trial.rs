//! What the tests of this crate share: a host that remembers, agents made of hand-written core modules, and the commands to run them.

use std::{
    collections::HashMap,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use skep_rules::{
    capability::{Capability, GrantWord},
    grant::Effective,
    id::{AgentId, CrewId, Digest, TaskId},
    limits::{Limits, Tier},
    plan::{Artifact, Payload},
    quantity::Size,
    reason::Reason,
    seam::{Call, End, HostCall, HostReply, Identity, Lease, RunnerCommand, RunnerEvent, TaskView},
};

use crate::{Compiler, Host, Options, Runner};

/// A host with a few components and one crew's blobs.
pub(crate) struct Bench {
    events: Mutex<mpsc::Sender<RunnerEvent>>,
    components: Mutex<HashMap<Digest, Vec<u8>>>,
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
}

impl Host for Bench {
    fn event(&self, event: RunnerEvent) {
        self.events.lock().unwrap().send(event).ok();
    }

    fn component(&self, digest: Digest) -> std::io::Result<Vec<u8>> {
        let found = self.components.lock().unwrap().get(&digest).cloned();
        found.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn call(&self, call: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        let reply = match call {
            HostCall::PutArtifact { bytes, media, .. } => {
                let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
                self.blobs.lock().unwrap().insert(digest, bytes);
                HostReply::Artifact(Artifact { digest, size, media })
            }
            HostCall::ReadArtifact {
                digest, offset, length, ..
            } => match self.blobs.lock().unwrap().get(&digest) {
                Some(bytes) => {
                    let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
                    HostReply::Bytes(rest[..rest.len().min(length as usize)].to_vec())
                }
                None => HostReply::Refused(Reason::NotFound),
            },
        };
        Box::pin(std::future::ready(reply))
    }
}

/// A runner, and what it told.
pub(crate) struct Trial {
    pub(crate) runner: Arc<Runner>,
    pub(crate) bench: Arc<Bench>,
    told: mpsc::Receiver<RunnerEvent>,
    pub(crate) dir: tempfile::TempDir,
}

/// What an attempt left.
pub(crate) type Left = (
    End,
    skep_rules::seam::Usage,
    Vec<skep_rules::seam::Denial>,
    Vec<skep_rules::seam::LogLine>,
);

impl Trial {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (events, told) = mpsc::channel();
        let bench = Arc::new(Bench {
            events: Mutex::new(events),
            components: Mutex::default(),
            blobs: Mutex::default(),
        });
        let options = Options {
            compiler: Compiler::InProcess,
            cache_dir: dir.path().join("cache"),
            cache_key: [7; 32],
            workspaces: dir.path().join("workspaces"),
            slots: 8,
            memory: Some(Size(1 << 30)),
            guest_threads: 2,
        };
        let runner = Runner::start(options, bench.clone()).unwrap();
        Trial {
            runner,
            bench,
            told,
            dir,
        }
    }

    /// The next event that is no beat.
    pub(crate) fn next(&self) -> RunnerEvent {
        loop {
            match self.told.recv_timeout(Duration::from_secs(60)).unwrap() {
                RunnerEvent::Beats { .. } => {}
                event => return event,
            }
        }
    }

    /// The next message of beats.
    pub(crate) fn beat(&self) -> Vec<skep_rules::seam::Beat> {
        loop {
            if let RunnerEvent::Beats { beats } = self.told.recv_timeout(Duration::from_secs(60)).unwrap() {
                return beats;
            }
        }
    }

    /// Has a component that agents can be made of.
    pub(crate) fn offer(&self, component: &[u8]) -> Digest {
        let digest = Digest::of(component);
        self.bench.components.lock().unwrap().insert(digest, component.to_vec());
        digest
    }

    /// Warms the agent of a generation.
    pub(crate) fn warm(&self, component: &[u8], generation: u64, effective: Effective) -> Result<(), (Reason, String)> {
        self.runner.command(RunnerCommand::Warm {
            agent: identity(generation),
            component: self.offer(component),
            effective,
        });
        match self.next() {
            RunnerEvent::Warmed { generation: told, .. } if told == generation => Ok(()),
            RunnerEvent::WarmFailed { reason, message, .. } => Err((reason, message)),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&self, epoch: u64, call: Call) {
        self.runner.command(RunnerCommand::Start {
            lease: lease(epoch),
            call,
            task: task(b""),
        });
    }

    pub(crate) fn started(&self, epoch: u64) {
        assert_eq!(self.next(), RunnerEvent::Started { lease: lease(epoch) });
    }

    pub(crate) fn ended(&self, epoch: u64) -> Left {
        match self.next() {
            RunnerEvent::Ended {
                lease: told,
                end,
                usage,
                denials,
                log,
            } if told == lease(epoch) => (end, usage, denials, log),
            other => panic!("{other:?}"),
        }
    }

    /// Warms an agent made of a core module and runs one attempt.
    pub(crate) fn run(&self, body: &str, effective: Effective) -> Left {
        self.warm(&agent(body), 1, effective).unwrap();
        self.start(1, Call::Execute);
        self.started(1);
        self.ended(1)
    }
}

pub(crate) fn lease(epoch: u64) -> Lease {
    Lease {
        task: TaskId::new(1, 0),
        epoch,
        agent: AgentId::new(1, 0),
        generation: 1,
    }
}

pub(crate) fn identity(generation: u64) -> Identity {
    Identity {
        agent: AgentId::new(1, 0),
        generation,
        name: "worker".into(),
        crew: CrewId::new(1, 0),
    }
}

pub(crate) fn task(input: &[u8]) -> TaskView {
    TaskView {
        attempt: 1,
        description: String::new(),
        input: Payload::Inline(input.to_vec()),
        dependencies: Vec::new(),
        facts: None,
        remarks: Vec::new(),
        seed: 1,
    }
}

/// The free capabilities and the limits of `small`, changed as the test wants.
pub(crate) fn effective(change: impl FnOnce(&mut Limits)) -> Effective {
    let mut limits = Tier::Small.limits();
    change(&mut limits);
    Effective {
        mounts: Vec::new(),
        workspace: Size(0),
        artifacts: Size(0),
        env: std::collections::BTreeMap::new(),
        limits,
        word: GrantWord::free(),
    }
}

/// As [`effective`], with so many bytes of artifacts.
pub(crate) fn with_artifacts(bytes: u64) -> Effective {
    Effective {
        artifacts: Size(bytes),
        word: GrantWord::free().with(Capability::Artifacts),
        ..effective(|_| {})
    }
}

/// An executor whose `execute` is this body of WAT. It returns the address of its result; zeroes there (1024) are an empty payload.
/// What the body does not call is not imported.
pub(crate) fn agent(body: &str) -> Vec<u8> {
    let read = r#"(import "skep:agent/artifacts@0.1.0" "read" (func $read (param i32 i32 i64 i32 i32)))"#;
    module(&format!(
        r#"(module
            (import "skep:agent/heartbeat@0.1.0" "beat" (func $beat (param i32 i32) (result i32)))
            {read}
            (memory (export "memory") 1 200)
            (data (i32.const 2048) "{digest}")
            (global $next (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                global.get $next
                (global.set $next (i32.add (global.get $next) (local.get 3))))
            (func $deep (param i32) (result i32)
                (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
            (func (export "skep:agent/executor@0.1.0#execute") (param i32) (result i32)
                {body}))"#,
        read = if body.contains("$read") { read } else { "" },
        digest = Digest::of(b"blob")
    ))
}

/// A component of the world `executor-agent` around a core module.
pub(crate) fn module(wat: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(wat).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(Path::new("../../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("executor-agent")).unwrap();
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    wit_component::ComponentEncoder::default()
        .module(&bytes)
        .unwrap()
        .validate(true)
        .encode()
        .unwrap()
}
