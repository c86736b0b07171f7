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
    limits::{MAX_EXPORT_PIECE_BYTES, MAX_EXPORTED_ARTIFACTS, MAX_PLAN_NODES, MAX_RECORD_BYTES, MAX_STEPS},
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

    /// Whether two runs ended alike. An artifact is its bytes; of plans counts what is made of them.
    #[must_use]
    pub fn is_like(&self, other: &Ending) -> bool {
        match (self, other) {
            (Ending::Done(one), Ending::Done(other)) => same(one, other),
            (Ending::Split(one), Ending::Split(other)) => {
                let (one, other) = (one.spelled_out().nodes, other.spelled_out().nodes);
                one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| same_node(one, other))
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
    let plain = |node: &Node| Node {
        input: Payload::Inline(Vec::new()),
        ..node.clone()
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
mod tests;
