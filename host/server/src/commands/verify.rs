//! `skep verify`: whether a file is what someone signed, and who; without a host and without a network.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use skep::clock::Clock;
use skep_rules::{key::PublicKey, limits::MAX_ENVELOPE_BYTES, reason::Reason};
use skep_runtime::signature::{self, Check, Explained, Outcome, State};

use super::{Context, inspect::read_component};
use crate::{cli::Exit, failure::Failure, files, keys::read_public};

/// Arguments of `skep verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plugin
    file: PathBuf,
    #[command(flatten)]
    signer: Signer,
    /// Every check on a line of its own
    #[arg(long)]
    explain: bool,
}

/// Where a signature is and who may have made it.
#[derive(Debug, clap::Args)]
pub(crate) struct Signer {
    /// The envelope; otherwise FILE.sig
    #[arg(long, value_name = "FILE")]
    sig: Option<PathBuf>,
    /// A public key to take for trusted (NAME.pub); may be given several times
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
}

/// A verdict as JSON has it.
#[derive(Serialize)]
struct Verdict<'a> {
    file: &'a Path,
    state: State,
    checks: Vec<Line<'a>>,
}

/// One check as JSON has it.
#[derive(Serialize)]
struct Line<'a> {
    check: &'static str,
    /// `passed`, `failed` or `skipped`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Reason>,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let component = read_component(&args.file)?;
    let explained = args.signer.explain(&args.file, &component)?;
    let verdict = Verdict {
        file: &args.file,
        state: explained.state(),
        checks: explained.checks.iter().map(Line::of).collect(),
    };
    context.output.one(&verdict, || match args.explain {
        true => verdict.checks.iter().map(Line::to_text).collect(),
        false => format!("{}\n", verdict.state),
    })?;
    match explained.failure() {
        None => Ok(Exit::Done),
        Some(refused) => {
            let failure = Failure::of(refused.reason, refused.message.clone()).at(&args.file, "", None);
            // Without a key nobody is trusted here, whatever hosts say.
            Err(
                match args.signer.keys.is_empty() && refused.reason == Reason::SignerUntrusted {
                    true => failure.next("name the publisher's key with `--key FILE.pub`").into(),
                    false => failure.into(),
                },
            )
        }
    }
}

impl Signer {
    /// Checks a file as far as its signature is concerned.
    ///
    /// # Errors
    /// When a file that was named is not there or is no key; what is wrong with the signature is not an error of this.
    pub(crate) fn explain(&self, file: &Path, component: &[u8]) -> Result<Explained> {
        let envelope = self.envelope(file)?;
        let now = Clock::system().now();
        // Whose key a person names is trusted by that person; a host has its own rules.
        Ok(signature::explain(
            component,
            envelope.as_deref(),
            self.trusted()?,
            now,
            |_| Ok(()),
        ))
    }

    /// The bytes of the envelope, if there is one.
    fn envelope(&self, file: &Path) -> Result<Option<Vec<u8>>> {
        let path = self.sig.clone().unwrap_or_else(|| beside(file));
        if self.sig.is_none() && !path.exists() {
            return Ok(None);
        }
        files::read(&path, MAX_ENVELOPE_BYTES as u64).map(Some)
    }

    /// The keys that count: those that were named.
    fn trusted(&self) -> Result<Vec<PublicKey>> {
        self.keys.iter().map(|path| read_public(path)).collect()
    }
}

/// Where the envelope of a file lies: `name.wasm.sig` beside `name.wasm`.
pub(crate) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

impl<'a> Line<'a> {
    fn of(check: &'a Check) -> Self {
        let (outcome, code, detail) = match &check.outcome {
            Outcome::Passed(found) => ("passed", None, found.as_str()),
            Outcome::Failed(refused) => ("failed", Some(refused.reason), refused.message.as_str()),
            Outcome::Skipped => ("skipped", None, ""),
        };
        Line {
            check: check.name,
            outcome,
            code,
            detail,
        }
    }

    fn to_text(&self) -> String {
        let code = self.code.map(|code| format!("{code}: ")).unwrap_or_default();
        let line = format!("{:<8} {:<11} {code}{}", self.outcome, self.check, self.detail);
        format!("{}\n", line.trim_end())
    }
}
