//! `skep doctor`: looks for what would keep a host from working well. Each line says how it is and, where it is not well, what to do.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Result;
use serde::Serialize;
use skep::{
    clock::Clock,
    currency,
    http::api::host::{Advisory, Currency},
};
use skep_rules::{limits::BUILD_LIFE, quantity::Time};
use skep_runtime::mappings_needed;

use super::Context;
use crate::{
    cli::Exit,
    output::{bytes, grouped, time},
};

mod data;

/// Arguments of `skep doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read every byte of the data directory and compare it with what was written; no host may run on it
    #[arg(long)]
    deep: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
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
    fn ok(what: &str, found: impl Into<String>) -> Self {
        Check {
            what: what.to_owned(),
            state: State::Ok,
            found: found.into(),
            next: None,
        }
    }

    fn warn(what: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Check {
            state: State::Warn,
            next: Some(next.into()),
            ..Check::ok(what, found)
        }
    }

    fn fail(what: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Check {
            state: State::Fail,
            ..Check::warn(what, found, next)
        }
    }

    fn failed(&self) -> bool {
        self.state == State::Fail
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.config()?;
    let config = &loaded.config;
    let now = Clock::system().now();
    let current = currency::at(now);
    let mut checks = vec![versions(&current), age(&current, now)];
    checks.extend(current.advisories.iter().map(advisory));
    checks.extend([
        compiler(&skep::host::own_compiler()),
        target(context.environment.get("RUSTC").unwrap_or("rustc")),
        mappings(
            config.slots,
            fs::read_to_string("/proc/sys/vm/max_map_count").ok().as_deref(),
        ),
        open_files(),
    ]);
    checks.extend(data::checks(&config.data_dir, args.deep));
    checks.push(space(&config.data_dir));
    let mark = |state| match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "FAIL",
    };
    context.output.list(&checks, ["", "check", "found", "next"], |check| {
        let next = check.next.clone().unwrap_or_default();
        [
            mark(check.state).to_owned(),
            check.what.clone(),
            check.found.clone(),
            next,
        ]
    })?;
    let failed = checks.iter().any(Check::failed);
    Ok(if failed { Exit::Failure } else { Exit::Done })
}

fn versions(current: &Currency) -> Check {
    let wasmtime = &current.wasmtime;
    Check::ok(
        "versions",
        format!("skep {}, wasmtime {wasmtime}", env!("CARGO_PKG_VERSION")),
    )
}

/// How long ago this was built.
fn age(current: &Currency, now: Time) -> Check {
    let what = "age";
    let day = 86_400_000;
    let built = time(current.built_at);
    if now < current.built_at {
        let found = format!("built {built}, which this machine's clock says is yet to come");
        return Check::warn(what, found, "set the clock");
    }
    let found = format!(
        "built {built}, {} days ago",
        grouped(now.since(current.built_at).0 / day)
    );
    if current.outdated {
        let days = BUILD_LIFE.0 / day;
        let next = format!("build or fetch a newer one: fixes of more than {days} days are missing");
        return Check::warn(what, found, next);
    }
    Check::ok(what, found)
}

/// One that is known and not fixed here.
fn advisory(advisory: &Advisory) -> Check {
    let Advisory { id, what, fixed, .. } = advisory;
    match &advisory.countered {
        Some(countered) => Check::ok(id, format!("{what} (fixed in wasmtime {fixed}); not here: {countered}")),
        None => {
            let reach = if advisory.reaches {
                "agents can reach it"
            } else {
                "no agent is known to reach it"
            };
            let next = format!("build or fetch a newer one, with wasmtime {fixed}");
            let state = if advisory.reaches { Check::fail } else { Check::warn };
            state(id, format!("{what}; {reach}"), next)
        }
    }
}

/// Compiles something, as a host would. A kernel that confines less is no failure: the limits hold without it.
fn compiler(compiler: &skep_runtime::Compiler) -> Check {
    let what = "compiler";
    match compiler.try_out() {
        Err(refused) => Check::fail(
            what,
            refused.message,
            "see that this program can be started and /proc is there",
        ),
        Ok(confinement) => confined(what, confinement),
    }
}

fn confined(what: &'static str, confinement: Option<skep_runtime::Confinement>) -> Check {
    const NEXT: &str = "a kernel with Landlock and seccomp confines the compiler better; its limits hold without them";
    let (landlock, seccomp) = confinement.map_or((None, false), |found| (found.landlock, found.seccomp));
    let landlock = landlock.map(|version| format!("Landlock {version}"));
    let found = format!(
        "limits, {}, {}",
        landlock.as_deref().unwrap_or("no Landlock"),
        if seccomp { "seccomp" } else { "no seccomp" }
    );
    match landlock.is_some() && seccomp {
        true => Check::ok(what, found),
        false => Check::warn(what, found, NEXT),
    }
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

fn mappings(slots: u32, limit: Option<&str>) -> Check {
    let what = "vm.max_map_count";
    let needed = mappings_needed(slots);
    let found = |limit: u64| {
        let (limit, slots) = (grouped(limit), grouped(slots.into()));
        format!("{limit}, {slots} slots need {}", grouped(needed))
    };
    match limit.and_then(|text| text.trim().parse::<u64>().ok()) {
        None => Check::warn(
            what,
            "unknown on this system",
            format!("see that a process may have {} mappings", grouped(needed)),
        ),
        Some(limit) if limit >= needed => Check::ok(what, found(limit)),
        Some(limit) => Check::fail(
            what,
            found(limit),
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

/// The directory itself, or what it would be made in.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."))
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
    use skep_rules::quantity::Millis;

    use super::*;

    #[test]
    fn slots_that_the_kernel_has_no_mappings_for_are_a_failure() {
        assert_eq!(mappings(10_000, Some("65530\n")).state, State::Ok);
        assert_eq!(mappings(11_000, Some("65530\n")).state, State::Fail);
        assert_eq!(mappings(1, None).state, State::Warn);
    }

    #[test]
    fn a_build_of_more_than_ninety_days_is_warned_of() {
        let built = currency::at(Time(0)).built_at;
        let check = |now: Time| age(&currency::at(now), now);
        let young = check(built.after(BUILD_LIFE));
        assert_eq!((young.state, young.next), (State::Ok, None));
        let old = check(built.after(BUILD_LIFE).after(Millis(1)));
        assert_eq!(old.state, State::Warn);
        assert!(
            old.found.ends_with(", 90 days ago") && old.next.is_some(),
            "{}",
            old.found
        );
        assert_eq!(
            check(Time(built.0 - 1)).state,
            State::Warn,
            "a clock that is before the build"
        );
    }

    #[test]
    fn an_advisory_is_as_bad_as_what_agents_can_do_with_it() {
        let state = |reaches: bool, countered: Option<&str>| {
            let known = Advisory {
                id: "GHSA-0000-0000-0000".to_owned(),
                what: "it breaks".to_owned(),
                fixed: "48.0.9".to_owned(),
                reaches,
                countered: countered.map(str::to_owned),
            };
            advisory(&known).state
        };
        assert_eq!(state(true, Some("it is off")), State::Ok);
        assert_eq!(state(false, None), State::Warn);
        assert_eq!(state(true, None), State::Fail);
    }
}
