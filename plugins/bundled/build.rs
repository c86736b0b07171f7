//! Builds every first-party plugin for `wasm32-wasip2` and writes the list that `src/lib.rs` includes.
//!
//! A plugin is a folder beside this one that holds a `skep.toml`; its crate is called `skep-plugin-` and the folder's name. They are
//! built by a cargo of their own, in a target directory of their own, because the outer cargo holds the lock of its own until this
//! script ends. What was set for the outer build (flags, wrappers, profiles) is kept from the inner one: the same sources give the same
//! components whether the host is checked, linted, debugged or released, so all of these share one target directory.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "wasm32-wasip2";

/// Prefixes of the variables of cargo that reach the inner build: where crates come from, how many jobs may run.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_MAKEFLAGS",
    "CARGO_TERM_",
];

/// What the components are built with: scanners want speed, and nobody steps through a bundled plugin.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "thin"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    // Byte searches run 16 bytes at a time; every host that runs components has this on. Names are stripped here because the profile's own word for it
    // does not reach a package that has a profile of its own.
    (
        "CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS",
        "-C target-feature=+simd128 -C strip=symbols",
    ),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the crate lies in no folder")?;
    let root = folder.parent().ok_or("the plugins lie in no workspace")?;
    for watched in ["plugins", "sdk/rust", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let names = plugins(folder)?;
    require_target()?;
    // `target/debug/build/skep-bundled-0123/out` -> `target/plugins`: debug, release and clippy builds have an `out` each.
    let target_dir = out.ancestors().nth(4).unwrap_or(&out).join("plugins");
    let components = build(root, &target_dir, &names)?;
    for name in &names {
        // Copied, so that another build in the shared directory cannot change what this one embeds.
        let component = components.join(format!("skep_plugin_{}.wasm", name.replace('-', "_")));
        fs::copy(&component, out.join(name).with_extension("wasm"))
            .map_err(|error| format!("{}: {error}", component.display()))?;
    }
    fs::write(out.join("bundled.rs"), list(folder, &out, &names))
        .map_err(|error| format!("the list of plugins: {error}"))
}

/// The folders that hold a plugin, sorted by name.
fn plugins(folder: &Path) -> Result<Vec<String>, String> {
    let unreadable = |error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().join("skep.toml").is_file() {
            names.push(
                entry
                    .file_name()
                    .into_string()
                    .map_err(|name| format!("{} is not UTF-8", name.display()))?,
            );
        }
    }
    names.sort();
    Ok(names)
}

/// Ask before building, because the compiler's own error (`can't find crate for core`) names no cure.
fn require_target() -> Result<(), String> {
    let rustc = variable("RUSTC")?;
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("{rustc}: {error}"))?;
    if Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() {
        return Ok(());
    }
    Err(format!(
        "Skep's plugins are WebAssembly, and the compiler's target {TARGET} is not installed. Type:\n\n    rustup target add {TARGET}\n"
    ))
}

/// Build the plugins and return where their components are.
fn build(root: &Path, target_dir: &Path, names: &[String]) -> Result<PathBuf, String> {
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let outer = text.starts_with("CARGO") || text.starts_with("RUSTC") || text.starts_with("CLIPPY");
        if outer && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env_remove("RUSTFLAGS")
        .envs(PROFILE)
        // A shared build directory in the user's configuration would be locked by the outer cargo.
        .env("CARGO_BUILD_BUILD_DIR", target_dir)
        .args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir);
    for name in names {
        cargo.args(["-p", &format!("skep-plugin-{name}")]);
    }
    let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("the plugins did not build: cargo ended with {status}"));
    }
    Ok(target_dir.join(TARGET).join("release"))
}

/// The list as Rust.
fn list(folder: &Path, out: &Path, names: &[String]) -> String {
    let mut list = String::from("/// Every bundled plugin, sorted by name.\npub const ALL: &[Bundled] = &[\n");
    for name in names {
        let component = out.join(name).with_extension("wasm");
        let manifest = folder.join(name).join("skep.toml");
        writeln!(list, "    Bundled {{ name: {name:?}, component: include_bytes!({component:?}), manifest: include_str!({manifest:?}) }},")
            .expect("writing to a string does not fail");
    }
    list.push_str("];\n");
    list
}

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script everything through the environment"
)]
fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}
