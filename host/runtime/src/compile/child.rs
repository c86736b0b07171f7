//! The compiler process: the same program, started for one component. It binds its own hands, reads the component from standard input, writes the
//! code to standard output, and says on standard error, in one line of JSON, what became of it.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsFd,
};

use serde::{Deserialize, Serialize};
use skep_rules::limits::MAX_COMPONENT_BYTES;

use super::confine::{self, Confinement};
use crate::engine::{Profile, fingerprint};

/// What a compiler process is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Address space of a memory in bytes: what the engines that code is for differ in.
    pub reservation: u64,
    /// What the host expects of the code, in hexadecimal: a program of another version, put in the place of the running one, refuses.
    pub fingerprint: String,
}

/// What a compiler process says at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// The code is written; this held the compiler.
    Compiled(Confinement),
    /// The component does not compile: why.
    Refused(String),
    /// The compiler cannot do its work, whatever the component: why.
    Failed(String),
}

/// Compiles one component, as a process that [`Compiler::Child`](super::Compiler::Child) started: nothing else may run in it. True when it did.
#[must_use]
pub fn child(job: &Job) -> bool {
    let report = work(job).unwrap_or_else(|report| report);
    let line = serde_json::to_string(&report).unwrap_or_default();
    // Nobody else could be told that nobody listens.
    drop(writeln!(io::stderr(), "{line}"));
    matches!(report, Report::Compiled(_))
}

fn work(job: &Job) -> Result<Report, Report> {
    let failed = |doing: &str, error: &dyn std::fmt::Display| Report::Failed(format!("{doing}: {error}"));
    let landlock = confine::limits().map_err(|error| failed("cannot limit itself", &error))?;
    let profile = Profile {
        reservation: job.reservation,
    };
    let engine = profile
        .compiler()
        .map_err(|error| failed("cannot make its engine", &error))?;
    if blake3::Hash::from_bytes(fingerprint(&engine)).to_hex().as_str() != job.fingerprint {
        return Err(Report::Failed(
            "it is not the version that the host is; restart the host".into(),
        ));
    }
    let own = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned().map(File::from);
    let input = own(&io::stdin()).map_err(|error| failed("has no input", &error))?;
    let mut output = own(&io::stdout()).map_err(|error| failed("has no output", &error))?;
    let confinement = Confinement {
        landlock,
        seccomp: confine::calls(),
    };

    let mut bytes = Vec::new();
    input
        .take(MAX_COMPONENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed("cannot read the component", &error))?;
    let code = engine
        .precompile_component(&bytes)
        .map_err(|error| Report::Refused(error.root_cause().to_string()))?;
    output
        .write_all(&code)
        .map_err(|error| failed("cannot write the code", &error))?;
    Ok(Report::Compiled(confinement))
}
