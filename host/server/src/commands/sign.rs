//! `skep sign`: makes or extends the envelope of a plugin or of a document of trust. Needs the file and the keys, nothing else.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use skep::clock::Clock;
use skep_rules::{
    grant::Refused,
    id::{Digest, PluginName},
    key::KeyId,
    limits::{MAX_ENVELOPE_BYTES, MAX_METADATA_BYTES, MAX_METADATA_ENVELOPE_BYTES, MAX_RELEASE_LIFE},
    metadata::{self, Document as _},
    quantity::{Millis, Time},
    reason::Reason,
    release::{Content, FORMAT, HOST_API, PAYLOAD_TYPE, Release},
};
use skep_runtime::{
    plugin::{self, Plugin},
    signature::{self, Envelope},
};

use super::{
    Context,
    inspect::{read_component, refuse},
    verify::beside,
};
use crate::{
    cli::Exit,
    failure::Failure,
    files,
    keys::{self, KeyFile, Last, Ledger},
    output::time,
};

/// Arguments of `skep sign`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plugin, or the document
    file: PathBuf,
    /// A key to sign with (NAME.key); may be given several times
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Add a signature to the envelope that is there, over what was signed
    #[arg(long)]
    add: bool,
    /// The file is a document of trust of this kind
    #[arg(long, value_enum, value_name = "KIND")]
    document: Option<Document>,
    #[command(flatten)]
    statement: Statement,
}

/// What a release statement says beyond the file.
#[derive(Debug, clap::Args)]
#[group(id = "statement", multiple = true, conflicts_with_all = ["add", "document"])]
struct Statement {
    /// The number of the release; otherwise one more than the last that these keys signed
    #[arg(long, value_name = "N")]
    seq: Option<u64>,
    /// How long it may be installed; at most and otherwise 400 days
    #[arg(long, value_name = "DURATION")]
    expires: Option<Millis>,
    /// Not to be installed before so long from now
    #[arg(long, value_name = "DURATION")]
    not_before: Option<Millis>,
    /// SHA-256 of what tells how it was built
    #[arg(long, value_name = "DIGEST")]
    provenance: Option<Digest>,
    /// Whom to ask about it
    #[arg(long, value_name = "TEXT")]
    contact: Option<String>,
}

/// The documents of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Document {
    /// Who may sign what
    Root,
    /// What is newest and what is revoked
    Index,
    /// Which index is the newest
    Clock,
    /// A publisher's change of its own keys
    Rotation,
}

/// What was signed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    file: PathBuf,
    envelope: PathBuf,
    /// All that the envelope names now.
    keys: Vec<KeyId>,
    /// SHA-256 of the statement or document.
    statement: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<Release>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let keys: Vec<KeyFile> = args
        .keys
        .iter()
        .map(|path| KeyFile::read(path))
        .collect::<Result<_>>()?;
    let (envelope, release) = match args.document {
        Some(document) => (document.sign(args, &keys)?, None),
        None => {
            let (envelope, release) = sign_release(args, &keys)?;
            (envelope, Some(release))
        }
    };
    let made = Made {
        file: args.file.clone(),
        envelope: beside(&args.file),
        keys: envelope.key_ids().collect(),
        statement: Digest::of(envelope.payload()),
        release,
    };
    files::replace(&made.envelope, &envelope.to_json())?;
    context.output.one(&made, || made.to_text())?;
    Ok(Exit::Done)
}

/// Signs a plugin. The ledgers are written before the envelope can be, and nobody else signs with these keys meanwhile.
fn sign_release(args: &Args, keys: &[KeyFile]) -> Result<(Envelope, Release)> {
    let file = &args.file;
    let component = read_component(file)?;
    let plugin = plugin::read(&component).map_err(|refused| refuse(file, &refused))?;
    let name = &plugin.manifest.plugin.name;
    let _alone = keys::lock(keys)?;
    let ledgers: Vec<Ledger> = keys.iter().map(Ledger::read).collect::<Result<_>>()?;
    let last = ledgers
        .iter()
        .filter_map(|ledger| ledger.last(name))
        .max_by_key(|last| last.release_seq);
    let (envelope, release) = match args.add {
        true => extend(file, &component, &plugin, keys)?,
        false => {
            let release = args.statement.release(&plugin, last, Clock::system().now())?;
            // Read back before it is signed: what cannot be read must not get a signature.
            let payload = release.to_json();
            let release = Release::parse(&payload).map_err(|refused| refuse(file, &refused))?;
            (signed(PAYLOAD_TYPE, &payload, keys)?, release)
        }
    };
    fits(file, &envelope, MAX_ENVELOPE_BYTES)?;
    let signed = Last {
        release_seq: release.release_seq,
        statement: Digest::of(envelope.payload()),
    };
    if let Some(last) = last.filter(|last| *last != signed && last.release_seq >= signed.release_seq) {
        return Err(taken(name, last, signed.release_seq).at(file, "", None).into());
    }
    for (ledger, key) in ledgers.into_iter().zip(keys) {
        ledger.note(key, name, signed)?;
    }
    Ok((envelope, release))
}

/// A number that was given away already.
fn taken(name: &PluginName, last: Last, wanted: u64) -> Failure {
    let known = last.release_seq;
    let next = known.saturating_add(1);
    Failure::of(
        Reason::InvalidInput,
        format!("release {known} of {name} was signed with these keys; another release {wanted} cannot come after it"),
    )
    .next(format!("leave `--seq` away, or give {next} or more"))
}

impl Statement {
    fn release(&self, plugin: &Plugin, last: Option<Last>, now: Time) -> Result<Release> {
        let life = self.expires.unwrap_or(MAX_RELEASE_LIFE);
        if life.0 == 0 || life > MAX_RELEASE_LIFE {
            let failure = Failure::of(
                Reason::InvalidInput,
                format!("--expires {life}: a release lasts 1ms to 400d"),
            );
            return Err(failure.next("sign a new release before the old one ends").into());
        }
        let about = &plugin.manifest.plugin;
        let after = last.map_or(0, |last| last.release_seq);
        let not_before = now.after(self.not_before.unwrap_or_default());
        Ok(Release {
            format: FORMAT,
            plugin: about.name.clone(),
            version: about.version.clone(),
            release_seq: self.seq.unwrap_or_else(|| after.saturating_add(1)),
            previous: last.map(|last| last.statement),
            component: Content {
                sha256: plugin.digest,
                size: plugin.size,
            },
            imports: plugin.imports.iter().cloned().collect(),
            exports: plugin.interfaces.clone(),
            host_api: HOST_API.parse()?,
            not_before,
            expires: not_before.after(life),
            provenance: self.provenance,
            license: about.license.clone(),
            contact: self.contact.clone().unwrap_or_default(),
        })
    }
}

/// Adds signatures to the envelope of a release, once it is certain that it speaks of this file.
fn extend(file: &Path, component: &[u8], plugin: &Plugin, keys: &[KeyFile]) -> Result<(Envelope, Release)> {
    let path = beside(file);
    let refused = |refused: Refused| refuse(&path, &refused);
    let mut envelope = read_envelope(&path, MAX_ENVELOPE_BYTES)?;
    add(&mut envelope, keys).map_err(refused)?;
    let own = keys.iter().map(|key| key.key.public());
    let signed = signature::release(&envelope.to_json(), component, own).map_err(refused)?;
    signature::interfaces(&signed.release, plugin).map_err(refused)?;
    Ok((envelope, signed.release))
}

impl Document {
    /// Signs a document as it is, once it is certain that it is one.
    fn sign(self, args: &Args, keys: &[KeyFile]) -> Result<Envelope> {
        let file = &args.file;
        let bytes = files::read(file, MAX_METADATA_BYTES as u64)?;
        let payload_type = self.check(&bytes).map_err(|refused| refuse(file, &refused))?;
        let envelope = match args.add {
            false => signed(payload_type, &bytes, keys)?,
            true => {
                let path = beside(file);
                let mut envelope = read_envelope(&path, MAX_METADATA_ENVELOPE_BYTES)?;
                if envelope.payload() != bytes || envelope.payload_type() != payload_type {
                    let message = "the envelope is around another document than the file";
                    return Err(Failure::of(Reason::Modified, message)
                        .at(&path, "", None)
                        .next("sign the file anew, without `--add`")
                        .into());
                }
                add(&mut envelope, keys).map_err(|refused| refuse(&path, &refused))?;
                envelope
            }
        };
        fits(file, &envelope, MAX_METADATA_ENVELOPE_BYTES)?;
        Ok(envelope)
    }

    /// Reads the document strictly and gives the type that it is signed as.
    fn check(self, bytes: &[u8]) -> Result<&'static str, Refused> {
        match self {
            Document::Root => metadata::Root::parse(bytes).map(|_| metadata::Root::PAYLOAD_TYPE),
            Document::Index => metadata::Index::parse(bytes).map(|_| metadata::Index::PAYLOAD_TYPE),
            Document::Clock => metadata::Clock::parse(bytes).map(|_| metadata::Clock::PAYLOAD_TYPE),
            Document::Rotation => metadata::Rotation::parse(bytes).map(|_| metadata::Rotation::PAYLOAD_TYPE),
        }
    }
}

fn signed(payload_type: &str, payload: &[u8], keys: &[KeyFile]) -> Result<Envelope> {
    let keys: Vec<_> = keys.iter().map(|key| &key.key).collect();
    let envelope = signature::sign(payload_type, payload, &keys);
    Ok(Envelope::parse(&envelope, MAX_METADATA_ENVELOPE_BYTES)
        .map_err(|refused| Failure::of(refused.reason, refused.message))?)
}

fn add(envelope: &mut Envelope, keys: &[KeyFile]) -> Result<(), Refused> {
    keys.iter().try_for_each(|key| envelope.add(&key.key))
}

fn read_envelope(path: &Path, most: usize) -> Result<Envelope> {
    let bytes = files::read(path, most as u64)?;
    Ok(Envelope::parse(&bytes, most).map_err(|refused| refuse(path, &refused))?)
}

/// What nobody would take must not be written.
fn fits(file: &Path, envelope: &Envelope, most: usize) -> Result<(), Failure> {
    let length = envelope.to_json().len();
    if length <= most {
        return Ok(());
    }
    let message = format!("its envelope would have {length} bytes, at most {most}");
    let failure = Failure::of(Reason::InvalidInput, message).at(file, "", None);
    Err(failure.next("say less in `--contact`, or import and export fewer interfaces"))
}

impl Made {
    fn to_text(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(KeyId::to_string).collect();
        let mut text = match &self.release {
            Some(release) => format!(
                "{}@{}, release {}, is signed until {}\n",
                release.plugin,
                release.version,
                release.release_seq,
                time(release.expires)
            ),
            None => format!("{} is signed\n", self.file.display()),
        };
        text.push_str(&format!(
            "envelope   {}\nstatement  sha256:{}\nkeys       {}\n",
            self.envelope.display(),
            self.statement,
            keys.join("\n           ")
        ));
        text
    }
}
