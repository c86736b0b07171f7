//! The template of `skep new` says the same as the project it was taken from: else an agent made from it could not be built offline.

/// The value of the first line `key = value` of a manifest.
fn line<'a>(manifest: &'a str, key: &str) -> &'a str {
    let found = manifest
        .lines()
        .find(|line| line.split_once('=').is_some_and(|(name, _)| name.trim() == key));
    found
        .unwrap_or_else(|| panic!("no line {key} in\n{manifest}"))
        .split_once('=')
        .unwrap()
        .1
        .trim()
}

#[test]
fn the_vendored_sdk_asks_for_the_same_crates() {
    let vendored = include_str!("../../template/vendor/skep-sdk/Cargo.toml");
    let workspace = include_str!("../../../Cargo.toml");
    let own = include_str!("../Cargo.toml");
    let dependencies = own
        .split_once("[dependencies]\n")
        .unwrap()
        .1
        .split("\n\n")
        .next()
        .unwrap();
    for dependency in dependencies.lines() {
        let name = dependency.split('.').next().unwrap();
        assert_eq!(line(vendored, name), line(workspace, name), "{name}");
    }
    for key in ["edition", "rust-version", "license"] {
        assert_eq!(line(vendored, key), line(workspace, key), "{key}");
    }
    assert_eq!(line(vendored, "description"), line(own, "description"));
}

#[test]
fn the_template_pins_the_same_toolchain() {
    assert_eq!(
        include_str!("../../template/rust-toolchain.toml"),
        include_str!("../../../rust-toolchain.toml")
    );
}
