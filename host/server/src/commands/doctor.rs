//! `skep doctor`: looks for what would keep a host from working well. Each line says how it is and, where it is not well, what to do.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Result;
use serde::Serialize;

use super::{Context, audit, new::LOCK};
use crate::{
    cli::Exit,
    output::{bytes, grouped},
};

/// Arguments of `skep doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    Warn,
    Fail,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Check {
            what,
            state: State::Ok,
            found: found.into(),
            next: None,
        }
    }

    fn warn(what: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Check {
            state: State::Warn,
            next: Some(next.into()),
            ..Check::ok(what, found)
        }
    }

    fn fail(what: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Check {
            state: State::Fail,
            ..Check::warn(what, found, next)
        }
    }
}

pub(crate) fn run(context: &Context, _: &Args) -> Result<Exit> {
    let loaded = context.config()?;
    let config = &loaded.config;
    let checks = [
        versions(),
        target(context.environment.get("RUSTC").unwrap_or("rustc")),
        mappings(
            config.slots,
            fs::read_to_string("/proc/sys/vm/max_map_count").ok().as_deref(),
        ),
        open_files(),
        directory(&config.data_dir),
        store(&config.data_dir),
        space(&config.data_dir),
    ];
    let mark = |state| match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "FAIL",
    };
    context.output.list(&checks, ["", "check", "found", "next"], |check| {
        let next = check.next.clone().unwrap_or_default();
        [
            mark(check.state).to_owned(),
            check.what.to_owned(),
            check.found.clone(),
            next,
        ]
    })?;
    let failed = checks.iter().any(|check| check.state == State::Fail);
    Ok(if failed { Exit::Failure } else { Exit::Done })
}

fn versions() -> Check {
    let engine = locked_version(LOCK, "wasmtime").unwrap_or("unknown");
    Check::ok(
        "versions",
        format!("skep {}, wasmtime {engine}", env!("CARGO_PKG_VERSION")),
    )
}

/// The version of a package in a lock file.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let entry = lock
        .split("[[package]]")
        .find(|entry| entry.contains(&format!("name = \"{package}\"\n")))?;
    entry.split("version = \"").nth(1)?.split('"').next()
}

/// Only authors of plugins need it, so that its absence is no failure.
fn target(rustc: &str) -> Check {
    const NEXT: &str = "to build plugins: install Rust (https://rustup.rs), then `rustup target add wasm32-wasip2`";
    let what = "wasm target";
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", "wasm32-wasip2"])
        .stdin(Stdio::null())
        .output();
    match output {
        Err(_) => Check::warn(what, "no Rust compiler", NEXT),
        Ok(output) if Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() => {
            Check::ok(what, "wasm32-wasip2 is installed")
        }
        Ok(_) => Check::warn(what, "wasm32-wasip2 is missing", NEXT),
    }
}

/// Mappings that a number of live attempts needs: two per fiber stack, made at start, four per live instance, and about 90 for the
/// process itself. Measured; beyond the kernel's bound instances fail as if memory had run out.
fn mappings_needed(slots: u32) -> u64 {
    let slots = u64::from(slots);
    2 * slots + 4 * slots + 90
}

fn mappings(slots: u32, limit: Option<&str>) -> Check {
    let what = "vm.max_map_count";
    let needed = mappings_needed(slots);
    match limit.and_then(|text| text.trim().parse::<u64>().ok()) {
        None => Check::warn(
            what,
            "unknown on this system",
            format!("see that a process may have {} mappings", grouped(needed)),
        ),
        Some(limit) if limit >= needed => Check::ok(
            what,
            format!(
                "{}, {} slots need {}",
                grouped(limit),
                grouped(slots.into()),
                grouped(needed)
            ),
        ),
        Some(limit) => Check::fail(
            what,
            format!(
                "{}, {} slots need {}",
                grouped(limit),
                grouped(slots.into()),
                grouped(needed)
            ),
            format!("`sysctl -w vm.max_map_count={needed}`, or lower `slots`"),
        ),
    }
}

/// What a host keeps open beside its guests' files: the store, its listener and clients.
const OPEN_FILES: u64 = 1_024;

fn open_files() -> Check {
    let what = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.current {
        Some(current) if current < OPEN_FILES => Check::warn(
            what,
            format!("at most {}", grouped(current)),
            format!("`ulimit -n {OPEN_FILES}` or more before `skep up`"),
        ),
        current => Check::ok(
            what,
            current.map_or("unlimited".to_owned(), |n| format!("at most {}", grouped(n))),
        ),
    }
}

fn directory(dir: &Path) -> Check {
    let what = "data directory";
    let shown = dir.display();
    if dir.exists() && !dir.is_dir() {
        return Check::fail(
            what,
            format!("{shown} is not a directory"),
            "choose another with --data-dir",
        );
    }
    let there = existing(dir);
    match tempfile::tempfile_in(there) {
        Ok(_) if there == dir => Check::ok(what, format!("{shown} is writable")),
        Ok(_) => Check::ok(what, format!("{shown} is not there yet; `skep up` makes it")),
        Err(error) => {
            let next = "make it yours, or choose another with --data-dir";
            Check::fail(what, format!("{} is not writable: {error}", there.display()), next)
        }
    }
}

/// The directory itself, or what it would be made in.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."))
}

/// Opens what a host remembers, as the host would.
fn store(dir: &Path) -> Check {
    let what = "store";
    match audit::open(dir) {
        Ok(None) => Check::ok(what, "nothing yet"),
        Ok(Some(store)) => Check::ok(what, format!("sound, {} entries", grouped(store.durable().0))),
        Err(error) => match error.downcast_ref::<skep_store::Error>() {
            Some(skep_store::Error::Locked { .. }) => Check::ok(what, "a running host has it"),
            _ => Check::fail(
                what,
                format!("{error:#}"),
                "restore a backup, or choose another directory with --data-dir",
            ),
        },
    }
}

/// Bytes below which a host would soon stop.
const LOW_SPACE: u64 = 1 << 30;

fn space(dir: &Path) -> Check {
    let what = "disk space";
    match rustix::fs::statvfs(existing(dir)) {
        Err(error) => Check::warn(what, error.to_string(), "see that the data directory has room"),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free", bytes(free));
            match free {
                0..LOW_SPACE => Check::warn(what, text, "make room, or choose another disk with --data-dir"),
                _ => Check::ok(what, text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_follow_the_formula() {
        assert_eq!(mappings_needed(10_000), 60_090);
        assert_eq!(mappings(10_000, Some("65530\n")).state, State::Ok);
        assert_eq!(mappings(11_000, Some("65530\n")).state, State::Fail);
        assert_eq!(mappings(1, None).state, State::Warn);
    }

    #[test]
    fn the_engine_has_a_version() {
        let version = locked_version(LOCK, "wasmtime").unwrap();
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    }
}
