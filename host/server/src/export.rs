//! A recorded run in one file: what its attempts were given, every step with its answer, and how it ended, so that it can run again where there is no
//! host and no network. Pieces one behind the other, each with the digest of all that the file holds before its end: a file that is cut or has a bit
//! flipped is refused at the place where it is, and nothing of such a piece is read. Neither side holds more than one piece besides what it keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
};

use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};
use skep_rules::{
    grant::Effective,
    id::{Digest, PluginName, TaskId},
    limits::{
        DEFAULT_RETRIES, MAX_EXPORT_PIECE_BYTES, MAX_EXPORTED_ARTIFACTS, MAX_PLAN_NODES, MAX_RECORD_BYTES, MAX_STEPS,
    },
    manifest::Version,
    plan::{Node, Outcome, Payload, Plan},
    reason::Reason,
    seam::{Call, DependencyEnd, End, Identity, Lease, TaskView},
    step::{Recorded, Step, StepResult, read_steps},
    task::TaskState,
};

/// What a file begins with; the number of the format and a line feed follow.
const MAGIC: &[u8] = b"skep-export ";
/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// What stands for the value of an environment variable that is not told.
pub const MASK: &str = "***";

/// What a run was given, and how it ended.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Export {
    /// The version of Skep that wrote it.
    #[n(0)]
    pub skep: String,
    /// The run's last lease: its task and the agent.
    #[n(1)]
    pub lease: Lease,
    /// Runs of the task before this one.
    #[n(2)]
    pub run: u32,
    /// Who the agent is.
    #[n(3)]
    pub agent: Identity,
    /// Its plugin.
    #[n(4)]
    pub plugin: PluginName,
    /// The plugin's version.
    #[n(5)]
    pub version: Version,
    /// The component.
    #[n(6)]
    pub component: Digest,
    /// What was called.
    #[n(7)]
    pub call: Call,
    /// The task as the attempts saw it.
    #[n(8)]
    pub view: TaskView,
    /// What the agent held.
    #[n(9)]
    pub effective: Effective,
    /// Environment variables of which the value is not told: it reads [`MASK`].
    #[n(10)]
    pub masked: BTreeSet<String>,
    /// Steps on the record.
    #[n(11)]
    pub steps: u64,
    /// Where the task was in its life.
    #[n(12)]
    pub state: TaskState,
    /// How the run ended.
    #[n(13)]
    pub ending: Ending,
}

impl Export {
    /// Whose run.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.lease.task
    }
}

/// How a run ended, as far as its attempt decides that.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Ending {
    /// It goes on, or something else than the agent ended it.
    #[n(0)]
    Open,
    /// With this result.
    #[n(1)]
    Done(#[n(0)] Payload),
    /// With this plan.
    #[n(2)]
    Split(#[n(0)] Plan),
    /// With a failure that the agent reported.
    #[n(3)]
    Failed(#[n(0)] String),
    /// At a bound of its sandbox, or of a trap.
    #[n(4)]
    Stopped(#[n(0)] Reason),
}

impl Ending {
    /// What an attempt came to. Of what a clock, a person or the host itself decides nothing follows.
    #[must_use]
    pub fn of(end: &End) -> Self {
        match end {
            End::Finished(Outcome::Done(payload)) => Ending::Done(payload.clone()),
            End::Finished(Outcome::Plan(plan)) => Ending::Split(plan.clone()),
            End::Finished(Outcome::Failed { message, .. }) => Ending::Failed(skep_rules::task::cut(message)),
            End::Stopped { reason, .. } => Ending::stopped(*reason),
            _ => Ending::Open,
        }
    }

    /// At a bound that a second run meets again; nothing follows from others.
    #[must_use]
    pub fn stopped(reason: Reason) -> Self {
        match reason {
            Reason::FuelExhausted
            | Reason::MemoryLimit
            | Reason::StackOverflow
            | Reason::HandleLimit
            | Reason::HostcallLimit
            | Reason::Trapped => Ending::Stopped(reason),
            _ => Ending::Open,
        }
    }

    /// Whether two runs ended alike. An artifact is its bytes; in plans the order of dependencies and what is the default anyway do not count.
    #[must_use]
    pub fn is_like(&self, other: &Ending) -> bool {
        match (self, other) {
            (Ending::Done(one), Ending::Done(other)) => same(one, other),
            (Ending::Split(one), Ending::Split(other)) => {
                let (one, other) = (&one.nodes, &other.nodes);
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_node(one, other))
            }
            (one, other) => one == other,
        }
    }
}

fn same(one: &Payload, other: &Payload) -> bool {
    match (one, other) {
        (Payload::Artifact(one), Payload::Artifact(other)) => one.digest == other.digest,
        (one, other) => one == other,
    }
}

fn same_node(one: &Node, other: &Node) -> bool {
    let plain = |node: &Node| {
        let dependencies: BTreeSet<_> = node.dependencies.iter().cloned().collect();
        Node {
            dependencies: dependencies.into_iter().collect(),
            max_retries: Some(node.max_retries.unwrap_or(DEFAULT_RETRIES)),
            input: Payload::Inline(Vec::new()),
            ..node.clone()
        }
    };
    same(&one.input, &other.input) && plain(one) == plain(other)
}

/// One piece of a file, in the order of the variants.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Piece {
    /// The first.
    #[n(0)]
    Head(#[n(0)] Box<Export>),
    /// The component, where it is in the file.
    #[n(1)]
    Component(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Encoded [`Step`]s, one behind the other.
    #[n(2)]
    Steps(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// How a child ended that a step tells of; it is named by its id.
    #[n(3)]
    Child(#[n(0)] DependencyEnd),
    /// An artifact that the run read.
    #[n(4)]
    Artifact {
        /// Which.
        #[n(0)]
        digest: Digest,
        /// Its bytes, where they are in the file.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        bytes: Option<Vec<u8>>,
    },
    /// The last.
    #[n(5)]
    Last,
}

/// Why a file was refused. Places are in bytes from its beginning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is something else.
    #[error("it is not an exported task: it does not begin as one")]
    Foreign,
    /// It is of another version.
    #[error("it is written in format {found}, this version of Skep reads format {FORMAT}")]
    Format {
        /// Which.
        found: String,
    },
    /// Its end is missing.
    #[error("it is cut short: it ends at byte {at}, in the piece that begins at byte {begins}")]
    Cut {
        /// Where it ends.
        at: u64,
        /// The piece that is not whole.
        begins: u64,
    },
    /// A piece is not what was written.
    #[error("it is damaged: the bytes {begins} to {ends} are not what was written")]
    Damaged {
        /// The piece.
        begins: u64,
        /// Its end.
        ends: u64,
    },
    /// A piece says something that cannot be.
    #[error("the piece at byte {begins}: {what}")]
    Invalid {
        /// The piece.
        begins: u64,
        /// What is wrong.
        what: String,
    },
}

/// Writes a file, piece by piece.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    /// Of all that was written.
    hash: Sha256,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(to: W) -> io::Result<Self> {
        let mut writer = Writer {
            to,
            hash: Sha256::new(),
        };
        writer.put(MAGIC)?;
        writer.put(format!("{FORMAT}\n").as_bytes())?;
        Ok(writer)
    }

    /// Writes a piece: its length, itself, and the digest of the file so far.
    ///
    /// # Errors
    /// When it cannot be written, or is longer than [`MAX_EXPORT_PIECE_BYTES`].
    pub fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        let bytes = crate::driver::encode(piece);
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= MAX_EXPORT_PIECE_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a piece of the export is too long"))?;
        self.put(&length.to_be_bytes())?;
        self.put(&bytes)?;
        let digest = self.hash.clone().finalize();
        self.put(&digest)
    }

    /// Whatever is written to.
    pub fn into_inner(self) -> W {
        self.to
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.to.write_all(bytes)
    }
}

/// Reads the pieces of a file.
#[derive(Debug)]
struct Reader<R> {
    from: R,
    hash: Sha256,
    /// Bytes read so far.
    at: u64,
}

impl<R: Read> Reader<R> {
    fn begin(from: R) -> Result<Self, Error> {
        let mut reader = Reader {
            from,
            hash: Sha256::new(),
            at: 0,
        };
        let begins = reader.take(MAGIC.len()).map_err(|error| match error {
            Error::Cut { .. } => Error::Foreign,
            other => other,
        })?;
        if begins != MAGIC {
            return Err(Error::Foreign);
        }
        let mut found = Vec::new();
        while found.len() < 16 {
            match reader.take(1)?.as_slice() {
                b"\n" => break,
                byte => found.extend_from_slice(byte),
            }
        }
        let found = String::from_utf8_lossy(&found).into_owned();
        match found == FORMAT.to_string() {
            true => Ok(reader),
            false => Err(Error::Format { found }),
        }
    }

    /// The next piece, and where it begins.
    fn piece(&mut self) -> Result<(u64, Piece), Error> {
        let begins = self.at;
        let cut = |error| match error {
            Error::Cut { at, .. } => Error::Cut { at, begins },
            other => other,
        };
        let length = self.take(4).map_err(cut)?;
        let length = length.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_EXPORT_PIECE_BYTES {
            let what = format!("it says that it has {length} bytes, at most {MAX_EXPORT_PIECE_BYTES}");
            return Err(Error::Invalid { begins, what });
        }
        let bytes = self.take(length).map_err(cut)?;
        let digest = self.hash.clone().finalize();
        if self.take(digest.len()).map_err(cut)? != digest.as_slice() {
            return Err(Error::Damaged { begins, ends: self.at });
        }
        let piece = minicbor::decode(&bytes).map_err(|error| Error::Invalid {
            begins,
            what: error.to_string(),
        })?;
        Ok((begins, piece))
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(length as u64).read_to_end(&mut bytes);
        read.map_err(Error::Unreadable)?;
        self.at += bytes.len() as u64;
        if bytes.len() < length {
            return Err(Error::Cut {
                at: self.at,
                begins: self.at,
            });
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }
}

/// A file that was read whole and found good.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What it says of the run.
    pub export: Export,
    /// The component, where the file has it.
    pub component: Option<Vec<u8>>,
    /// What the run read, where the file has it.
    pub artifacts: BTreeMap<Digest, Vec<u8>>,
    /// What the run read and the file does not have.
    pub missing: BTreeSet<Digest>,
    /// Encoded steps, as they are in the file, by the number of the first. They are decoded when they are asked for: a record can hold 256 MiB.
    steps: BTreeMap<u64, Vec<u8>>,
    /// How children ended, by their ids.
    children: BTreeMap<String, DependencyEnd>,
}

impl Recording {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(from: impl Read) -> Result<Self, Error> {
        let mut reader = Reader::begin(from)?;
        let (begins, first) = reader.piece()?;
        let Piece::Head(export) = first else {
            let what = "the first piece says what the run was given; this one is another".to_owned();
            return Err(Error::Invalid { begins, what });
        };
        let mut recording = Recording {
            export: *export,
            component: None,
            artifacts: BTreeMap::new(),
            missing: BTreeSet::new(),
            steps: BTreeMap::new(),
            children: BTreeMap::new(),
        };
        let mut taken = Taken::default();
        loop {
            let (begins, piece) = reader.piece()?;
            let invalid = |what: String| Error::Invalid { begins, what };
            if piece == Piece::Last {
                recording.check(&taken).map_err(invalid)?;
                break;
            }
            recording.add(piece, &mut taken).map_err(invalid)?;
        }
        match reader.take(1) {
            Err(Error::Cut { .. }) => Ok(recording),
            Err(error) => Err(error),
            Ok(_) => Err(Error::Invalid {
                begins: reader.at - 1,
                what: "something follows the last piece".to_owned(),
            }),
        }
    }

    fn add(&mut self, piece: Piece, taken: &mut Taken) -> Result<(), String> {
        match piece {
            Piece::Component(bytes) => {
                if Digest::of(&bytes) != self.export.component {
                    return Err("the component is not the one that made the record".to_owned());
                }
                self.component = Some(bytes);
            }
            Piece::Steps(bytes) => {
                let steps = read_steps(&bytes).map_err(|error| error.to_string())?;
                taken.bytes += bytes.len() as u64;
                self.steps.insert(taken.steps, bytes);
                taken.steps += steps.len() as u64;
                // One step more than a record may have can be on it: the one that found it full.
                if taken.steps > MAX_STEPS || taken.bytes > 2 * MAX_RECORD_BYTES {
                    return Err("it has more steps than a record can have".to_owned());
                }
            }
            Piece::Child(end) => {
                self.children.insert(end.name.clone(), end);
                if self.children.len() > MAX_PLAN_NODES {
                    return Err("it has more children than a task can have".to_owned());
                }
            }
            Piece::Artifact { digest, bytes: None } => {
                self.missing.insert(digest);
                if self.missing.len() as u64 > MAX_STEPS {
                    return Err("it names more artifacts than a run can read".to_owned());
                }
            }
            Piece::Artifact {
                digest,
                bytes: Some(bytes),
            } => {
                taken.artifacts += bytes.len() as u64;
                if Digest::of(&bytes) != digest || taken.artifacts > MAX_EXPORTED_ARTIFACTS {
                    return Err("an artifact is not what it is said to be, or one too many".to_owned());
                }
                self.artifacts.insert(digest, bytes);
            }
            Piece::Head(_) | Piece::Last => return Err("this piece comes once".to_owned()),
        }
        Ok(())
    }

    /// Whether all is there that the head promised.
    fn check(&self, taken: &Taken) -> Result<(), String> {
        match taken.steps == self.export.steps {
            true => Ok(()),
            false => Err(format!(
                "the record has {} steps, {} are in the file",
                self.export.steps, taken.steps
            )),
        }
    }

    /// Steps from a number on: some of them, none only where there are no more.
    #[must_use]
    pub fn steps(&self, from: u64) -> Vec<Recorded> {
        let Some((first, bytes)) = self.steps.range(..=from).next_back() else {
            return Vec::new();
        };
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        // They were read once, when the file was.
        let steps = read_steps(bytes).unwrap_or_default().into_iter().skip(skip);
        steps.map(|step| self.recorded(step)).collect()
    }

    fn recorded(&self, step: Step) -> Recorded {
        let ends = match &step.result {
            StepResult::Ended(tasks) => {
                let ended = tasks.iter().filter_map(|id| self.children.get(&id.to_string()));
                ended.cloned().collect()
            }
            _ => Vec::new(),
        };
        Recorded { step, ends }
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Taken {
    steps: u64,
    bytes: u64,
    artifacts: u64,
}

#[cfg(test)]
mod tests {
    use skep_rules::{
        id::{AgentId, CrewId},
        limits::Tier,
        plan::Artifact,
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
                notes: vec!["note".into()],
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
                nodes: vec![Node {
                    name: "n".parse().unwrap(),
                    description: String::new(),
                    roles: BTreeSet::new(),
                    input: Payload::Inline(input.to_vec()),
                    dependencies: dependencies.iter().map(|name| name.parse().unwrap()).collect(),
                    check: false,
                    optional: false,
                    integrates: false,
                    max_retries,
                }],
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
}
