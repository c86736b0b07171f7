//! Tells the binary when it was built. Everything that is watched is part of the binary, so that this script runs only when the binary is made anew
//! anyway. `SOURCE_DATE_EPOCH` stands in for the clock, so that a build can be repeated bit by bit.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment, and the time of a build is the clock's"
)]

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

/// The name that the reproducible-builds project gave to it: seconds since 1970.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={EPOCH}");
    for watched in [
        "host/rules/src",
        "host/store/src",
        "host/runtime/src",
        "host/server/src",
        "plugins",
        "sdk/rust",
        "wit",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed=../../{watched}");
    }
    let seconds: u64 = match env::var(EPOCH) {
        Ok(text) => text
            .parse()
            .map_err(|error| format!("{EPOCH} is `{text}`, not seconds since 1970: {error}"))?,
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    };
    println!("cargo::rustc-env=SKEP_BUILT_SECONDS={seconds}");
    Ok(())
}
