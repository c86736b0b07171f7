//! The repository checks itself: rules that live only in prose decay. Each test names the rule that it keeps.

#![expect(clippy::panic, reason = "a test may panic, also in the functions that tests share")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The top of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the package lies two folders below the top")
}

/// Every file that git knows or would know, relative to the top.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(root())
        .output();
    let output = output.expect("git runs");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8(output.stdout).expect("file names are UTF-8");
    listed
        .lines()
        .filter(|file| root().join(file).is_file())
        .map(str::to_owned)
        .collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Files with an ending, below a folder (or anywhere for an empty one).
fn files_in(folder: &str, ending: &str) -> Vec<String> {
    files()
        .into_iter()
        .filter(|file| file.starts_with(folder) && file.ends_with(ending))
        .collect()
}

/// The name of a file without its ending.
fn stem(file: &str) -> String {
    Path::new(file)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .expect("a source file has a name")
        .to_owned()
}

/// The direct dependencies of a crate, dev-dependencies left out.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = read(manifest).parse().expect("a Cargo.toml is TOML");
    ["dependencies", "build-dependencies"]
        .iter()
        .filter_map(|table| manifest.get(*table)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let allowed: &[(&str, &[&str])] = &[
        ("host/rules/Cargo.toml", &[]),
        ("host/store/Cargo.toml", &["skep-rules"]),
        ("host/runtime/Cargo.toml", &["skep-rules"]),
        (
            "host/server/Cargo.toml",
            &["skep-rules", "skep-store", "skep-runtime", "skep-bundled"],
        ),
        ("sdk/rust/Cargo.toml", &[]),
    ];
    for (manifest, allowed) in allowed {
        for name in dependencies(manifest)
            .into_iter()
            .filter(|name| name.starts_with("skep"))
        {
            assert!(allowed.contains(&name.as_str()), "{manifest} must not depend on {name}");
        }
    }
    for manifest in files_in("plugins/", "Cargo.toml")
        .into_iter()
        .chain(files_in("examples/", "Cargo.toml"))
    {
        for name in dependencies(&manifest) {
            let host = matches!(name.as_str(), "skep" | "skep-rules" | "skep-store" | "skep-runtime");
            assert!(!host, "{manifest} knows the host");
        }
    }
}

#[test]
fn foreign_types_stay_in_their_crate() {
    let never: &[(&str, &[&str])] = &[
        (
            "host/rules",
            &[
                "tokio",
                "wasmtime",
                "redb",
                "axum",
                "hyper",
                "getrandom",
                "rustix",
                "cap-std",
                "tracing",
            ],
        ),
        ("host/store", &["wasmtime", "axum", "hyper"]),
        ("host/runtime", &["redb", "axum", "hyper", "skep-store"]),
        ("host/server", &["wasmtime", "wasmtime-wasi", "redb"]),
    ];
    for (krate, never) in never {
        let held = dependencies(&format!("{krate}/Cargo.toml"));
        for name in *never {
            assert!(!held.contains(*name), "{krate} must not depend on {name}");
        }
    }
}

#[test]
fn clocks_and_the_environment_have_one_place() {
    // Clippy refuses the calls; what is checked here is that nobody waives the refusal elsewhere.
    for file in files_in("host/", ".rs") {
        let waived = read(&file).contains("clippy::disallowed_methods");
        let place = ["clock.rs", "clocks.rs", "config.rs", "build.rs"]
            .iter()
            .any(|place| file.ends_with(place))
            || file.contains("/tests/");
        assert!(
            !waived || place,
            "{file}: clocks are read in clock.rs and caps/clocks.rs, the environment in config.rs"
        );
    }
}

#[test]
fn every_reason_code_is_documented() {
    let document = read("host/README.md");
    for reason in skep_rules::reason::Reason::ALL {
        assert!(
            document.contains(&format!("`{reason}`")),
            "host/README.md does not list the reason code `{reason}`"
        );
    }
}

#[test]
fn every_interface_has_its_capability_or_export() {
    use skep_rules::{capability::Capability, seam::Export};
    let known: BTreeSet<String> = Capability::ALL
        .iter()
        .map(|capability| capability.interface())
        .chain(Export::ALL.iter().map(|export| export.interface()))
        .chain(["skep:agent/types", "skep:agent/worlds"])
        .map(str::to_owned)
        .collect();
    let written: BTreeSet<String> = files_in("wit/", ".wit")
        .iter()
        .map(|file| format!("skep:agent/{}", stem(file)))
        .collect();
    assert_eq!(
        written, known,
        "wit/ and the lists of capabilities and exports in skep-rules"
    );
}

#[test]
fn nothing_is_left_to_fix_later() {
    let marks = ["FIXME", "TODO", "XXX", "todo!(", "unimplemented!("];
    // The scanner for such marks, what checks it and this file have to name them.
    let exempt = |file: &str| ["plugins/", "tests/"].iter().any(|folder| file.starts_with(folder));
    for file in files_in("", ".rs")
        .into_iter()
        .chain(files_in("wit/", ".wit"))
        .filter(|file| !exempt(file))
    {
        for (number, line) in read(&file).lines().enumerate() {
            assert!(
                !marks.iter().any(|mark| line.contains(mark)),
                "{file}:{}: {line}",
                number + 1
            );
        }
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    for file in files_in("", ".md") {
        let folder = root().join(&file).parent().expect("a file lies in a folder").to_owned();
        for link in read(&file)
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            let local = !target.is_empty() && !target.contains("://") && !target.contains("{{");
            assert!(
                !local || folder.join(target).exists(),
                "{file}: the link `{link}` leads nowhere"
            );
        }
    }
}

#[test]
fn the_top_level_is_fixed() {
    let allowed = "Cargo.toml Cargo.lock host wit plugins sdk examples tests README.md LICENSE CHANGELOG.md SECURITY.md rust-toolchain.toml rustfmt.toml";
    for file in files() {
        let top = file.split('/').next().unwrap_or_default();
        assert!(
            top.starts_with('.') || allowed.split(' ').any(|name| name == top),
            "`{top}` at the top level"
        );
    }
}

#[test]
fn every_crate_keeps_the_lints() {
    // The template becomes someone else's crate; the fuzz crate is a workspace of its own, and its bodies are linted as tests here.
    let exempt = ["sdk/template", "tests/fuzz"];
    for manifest in files_in("", "/Cargo.toml")
        .into_iter()
        .filter(|file| !exempt.iter().any(|folder| file.starts_with(folder)))
    {
        assert!(
            read(&manifest).contains("[lints]\nworkspace = true"),
            "{manifest} does not take the workspace's lints"
        );
    }
}

#[test]
fn every_guest_and_example_is_tested() {
    let guests = "tests/guests/";
    let tests: String = files_in("tests/", ".rs")
        .iter()
        .filter(|file| !file.starts_with(guests))
        .map(|file| read(file))
        .collect();
    for guest in files_in("tests/guests/examples/", ".rs") {
        assert!(tests.contains(&stem(&guest)), "{guest} is named by no test");
    }
    let examples: BTreeSet<_> = files_in("examples/", "")
        .iter()
        .filter_map(|file| file.split('/').nth(1).map(str::to_owned))
        .collect();
    for example in examples {
        assert!(
            tests.contains(&format!("examples/{example}")),
            "examples/{example} is run by no test"
        );
    }
}
