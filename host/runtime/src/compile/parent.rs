//! Starts compiler processes, waits for them, and says of each end what it means. Trusts nothing that one of them says: it has read what a stranger
//! wrote.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    process::Signal,
};
use skep_rules::{
    limits::{COMPILE_CPU, COMPILE_WALL, MAX_CODE_BYTES, MAX_COMPILE_MEMORY, MAX_COMPILE_REPORT_BYTES},
    quantity::Size,
    reason::Reason,
};

use super::{child::Report, confine::Confinement, refuse};
use crate::{engine::Profile, escape::escape, plugin::Refused};

/// The hidden verb of the program that begins [`child`](super::child()).
pub(super) const VERB: &str = "compile-component";
/// How often a process is looked for that has closed its report: it is all but gone.
const LOOK: Duration = Duration::from_millis(1);
/// How many looks that may take.
const LOOKS: u32 = 5_000;

/// Has a component compiled by a process of `program`, from where `output` stands. Blocks, at most a little longer than [`COMPILE_WALL`]. The calling
/// thread must live as long: the kernel ends the process with it.
pub(super) fn compile(
    program: &Path,
    profile: Profile,
    print: &[u8; 32],
    bytes: &[u8],
    output: &File,
) -> Result<Confinement, Refused> {
    let fault = |error: io::Error| refuse(Reason::HostFault, format!("the compiler cannot be started: {error}"));
    let input = sealed(bytes).map_err(fault)?;
    let child = Command::new(program)
        .arg0("skep")
        .arg(VERB)
        .arg("--reservation")
        .arg(profile.reservation.to_string())
        .arg("--fingerprint")
        .arg(blake3::Hash::from_bytes(*print).to_hex().as_str())
        .env_clear()
        .current_dir("/")
        // A Ctrl-C in the host's terminal is the host's to handle.
        .process_group(0)
        .stdin(input)
        .stdout(output.try_clone().map_err(fault)?)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fault)?;
    let (end, said) = wait(child).map_err(fault)?;
    judge(end, &said)
}

/// A file in memory that nobody can change any more, at its beginning.
fn sealed(bytes: &[u8]) -> io::Result<File> {
    let file = rustix::fs::memfd_create("component", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exit(i32),
    Signal(i32),
    /// It did not end in time and was killed.
    Late,
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> End {
        match status.signal() {
            Some(signal) => End::Signal(signal),
            None => End::Exit(status.code().unwrap_or_default()),
        }
    }
}

/// Waits until the process has closed its report, which is when it ends, and reaps it. What it said, cut.
fn wait(mut child: Child) -> io::Result<(End, Vec<u8>)> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let report = child.stderr.take();
    let read = move || {
        let mut said = Vec::new();
        if let Some(report) = report {
            // What cannot be read was not said.
            drop(report.take(MAX_COMPILE_REPORT_BYTES).read_to_end(&mut said));
        }
        // Whoever asked may have given up.
        drop(sender.send(said));
    };
    let reader = std::thread::Builder::new().name("compile".into()).spawn(read);
    let said = match reader {
        Ok(_) => receiver.recv_timeout(COMPILE_WALL.duration()).ok(),
        Err(_) => None,
    };
    if let Some(said) = said {
        for _ in 0..LOOKS {
            if let Some(status) = child.try_wait()? {
                return Ok((status.into(), said));
            }
            std::thread::sleep(LOOK);
        }
    }
    child.kill()?;
    child.wait()?;
    Ok((End::Late, Vec::new()))
}

/// What an end means.
fn judge(end: End, said: &[u8]) -> Result<Confinement, Refused> {
    // Our line is the last: what a library may say before it does not count.
    let line = said
        .trim_ascii()
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let report = serde_json::from_slice(line).ok();
    let text = |text: &str| escape(text.as_bytes(), 512);
    let limit = |what: String| {
        refuse(
            Reason::CompileLimit,
            format!("the component {what}; build it smaller, or split it in two plugins"),
        )
    };
    Err(match (end, report) {
        (End::Exit(0), Some(Report::Compiled(confinement))) => return Ok(confinement),
        (End::Exit(_), Some(Report::Refused(why))) => refuse(
            Reason::CompileLimit,
            format!("the component does not compile: {}", text(&why)),
        ),
        (End::Exit(_), Some(Report::Failed(why))) => {
            refuse(Reason::HostFault, format!("the compiler failed: {}", text(&why)))
        }
        (End::Late, _) => limit(format!("takes longer than {COMPILE_WALL} to compile")),
        (End::Signal(signal), _) if signal == Signal::XCPU.as_raw() => {
            limit(format!("takes more than {COMPILE_CPU} of processor time to compile"))
        }
        (End::Signal(signal), _) if signal == Signal::XFSZ.as_raw() => {
            limit(format!("compiles to more than {}", Size(MAX_CODE_BYTES)))
        }
        (End::Signal(signal), _) if signal == Signal::ABORT.as_raw() && holds(said, "memory allocation") => limit(
            format!("takes more than {} of memory to compile", Size(MAX_COMPILE_MEMORY)),
        ),
        (End::Signal(signal), _) if signal == Signal::ABORT.as_raw() && holds(said, "overflowed its stack") => {
            limit("nests too deep to compile".into())
        }
        (end, _) => {
            // A panic of the compiler, a crash, or the kernel short of memory.
            let said = escape(said, 1_024);
            tracing::warn!(?end, said, "a compiler ended without a report");
            let how = match end {
                End::Signal(signal) => format!("was ended by signal {signal}"),
                End::Exit(_) | End::Late => "gave up".into(),
            };
            limit(format!("cannot be compiled here: the compiler {how}"))
        }
    })
}

fn holds(said: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(said).contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_says_which_limit_it_was() {
        let cases: [(End, &str, Reason, &str); 10] = [
            (End::Late, "", Reason::CompileLimit, "longer than 1min"),
            (End::Signal(24), "", Reason::CompileLimit, "20s of processor time"),
            (End::Signal(25), "", Reason::CompileLimit, "256MiB"),
            (
                End::Signal(6),
                "memory allocation of 9 bytes failed",
                Reason::CompileLimit,
                "1536MiB of memory",
            ),
            (
                End::Signal(6),
                "thread 'main' has overflowed its stack",
                Reason::CompileLimit,
                "too deep",
            ),
            (End::Signal(9), "", Reason::CompileLimit, "signal 9"),
            (
                End::Exit(101),
                "thread 'main' panicked at x",
                Reason::CompileLimit,
                "gave up",
            ),
            (End::Exit(0), "", Reason::CompileLimit, "gave up"),
            (
                End::Exit(1),
                "{\"refused\":\"no \\u001b[31m\"}\n",
                Reason::CompileLimit,
                "no \\u{1b}[31m",
            ),
            (
                End::Exit(1),
                "noise\n{\"failed\":\"disk full\"}\n",
                Reason::HostFault,
                "disk full",
            ),
        ];
        for (end, said, reason, says) in cases {
            let refused = judge(end, said.as_bytes()).unwrap_err();
            assert!(
                refused.reason == reason && refused.message.contains(says),
                "{end:?} {said}: {refused:?}"
            );
        }
        let report = serde_json::to_string(&Report::Compiled(Confinement {
            landlock: Some(4),
            seccomp: true,
        }))
        .unwrap();
        assert!(judge(End::Exit(0), report.as_bytes()).unwrap().seccomp);
        assert!(
            judge(End::Signal(9), report.as_bytes()).is_err(),
            "the end counts, not the word"
        );
    }

    #[test]
    fn the_input_cannot_be_changed() {
        let mut file = sealed(b"component").unwrap();
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "component");
        assert!(file.write_all(b"more").is_err() && file.set_len(0).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_or_does_something_else_is_a_fault_or_a_refusal() {
        let output = tempfile::tempfile().unwrap();
        let run = |program: &str| {
            let profile = Profile { reservation: 1 << 32 };
            compile(Path::new(program), profile, &[0; 32], b"x", &output).unwrap_err()
        };
        let none = run("/nowhere/skep");
        assert!(
            none.reason == Reason::HostFault && none.message.contains("cannot be started"),
            "{none:?}"
        );
        assert_eq!(run("/bin/true").reason, Reason::CompileLimit, "silence is no success");
    }
}
