//! Builds the examples of `skep-test-guests` into a target directory of its own (the outer cargo holds a lock on the usual one) and writes
//! one constant for each.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::{env, fmt::Write as _, fs, path::Path, process::Command};

fn main() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in tests/guests");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let target = Path::new(&out).join("target");
    for watched in [
        "../examples",
        "../src",
        "../Cargo.toml",
        "../../../sdk/rust",
        "../../../wit",
        "../../../Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let mut cargo = Command::new(env::var("CARGO").expect("cargo sets CARGO"));
    cargo.args([
        "build",
        "--locked",
        "--release",
        "--examples",
        "--target",
        "wasm32-wasip2",
        "--manifest-path",
    ]);
    cargo.arg(guests.join("Cargo.toml"));
    // Flags and wrappers of the outer build are for the host; wasm gets none of them.
    for (name, _) in env::vars() {
        let outer = name.starts_with("CARGO_") && !matches!(name.as_str(), "CARGO_HOME" | "CARGO_NET_OFFLINE");
        if outer || name.contains("RUSTFLAGS") || name.starts_with("RUSTC") || name.starts_with("CLIPPY") {
            cargo.env_remove(name);
        }
    }
    let status = cargo.env("CARGO_TARGET_DIR", &target).status().expect("cargo runs");
    assert!(
        status.success(),
        "the test guests do not build; is the target there? `rustup target add wasm32-wasip2`"
    );

    let built = target.join("wasm32-wasip2/release/examples");
    let mut names: Vec<String> = fs::read_dir(guests.join("examples"))
        .expect("tests/guests/examples can be listed")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    let mut code = String::new();
    for name in &names {
        let file = built.join(format!("{name}.wasm"));
        writeln!(
            code,
            "/// The component of `tests/guests/examples/{name}.rs`.\npub const {}: &[u8] = include_bytes!({file:?});",
            name.to_uppercase()
        )
        .expect("a String takes everything");
    }
    fs::write(Path::new(&out).join("guests.rs"), code).expect("OUT_DIR can be written");
}
