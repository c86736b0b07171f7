//! The permission sheet: what a component can do, what it may reach and what it asks for, in plain words. Shown by `inspect` and before
//! anything is installed. Made from the file alone; no guest code runs.

use serde::Serialize;
use skep_rules::{
    capability::Capability,
    grant,
    id::Digest,
    manifest::{Access, Manifest},
    quantity::Size,
    seam::Export,
};
use skep_runtime::plugin::Scan;

use crate::output::{bytes, duration, fuel};

/// A component in words.
#[derive(Debug, Serialize)]
pub(crate) struct Sheet {
    /// SHA-256 of the file.
    digest: Digest,
    /// Length of the file.
    size: u64,
    /// Nothing verifies signatures yet, so nothing else may be claimed.
    signature: &'static str,
    exports: Vec<Export>,
    /// What it imports of `skep:agent/*`.
    capabilities: Vec<Reach>,
    /// Everything that it imports.
    imports: Vec<String>,
    manifest: Option<Manifest>,
    /// Where component and manifest contradict each other.
    disagreements: Vec<String>,
}

/// One capability that it may use.
#[derive(Debug, Serialize)]
struct Reach {
    interface: &'static str,
    means: &'static str,
    /// Whether it needs a grant.
    granted: bool,
}

impl Sheet {
    /// The sheet of a component.
    pub(crate) fn of(scan: &Scan) -> Self {
        let mut capabilities: Vec<Capability> = scan
            .imports
            .iter()
            .filter_map(|import| Capability::of_interface(import))
            .collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        Sheet {
            digest: scan.digest,
            size: scan.size,
            signature: "unsigned",
            exports: scan.exports.iter().copied().collect(),
            capabilities: capabilities
                .iter()
                .map(|capability| Reach {
                    interface: capability.interface(),
                    means: capability.means(),
                    granted: !capability.is_free(),
                })
                .collect(),
            imports: scan.imports.clone(),
            manifest: scan.manifest.clone(),
            disagreements: disagreements(scan),
        }
    }

    /// The sheet as people read it.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            text.push_str(&format!("{key:<12}{value}\n"));
        };
        match &self.manifest {
            Some(manifest) => {
                let about = &manifest.plugin;
                line("plugin", &format!("{} {}", about.name, about.version));
                for (key, value) in [("", &about.description), ("licence", &about.license)] {
                    if !value.is_empty() {
                        line(key, value);
                    }
                }
            }
            None => line(
                "plugin",
                "none: the component carries no manifest (`skep build` embeds skep.toml)",
            ),
        }
        line("digest", &format!("sha256:{}", self.digest));
        line("size", &bytes(self.size));
        line("signature", self.signature);
        column(
            &mut line,
            "can",
            self.exports.iter().map(|export| can(*export).to_owned()),
        );
        column(
            &mut line,
            "may",
            self.capabilities.iter().map(|reach| {
                let grant = if reach.granted { ", when granted" } else { "" };
                format!("{} ({}{grant})", reach.means, reach.interface)
            }),
        );
        column(&mut line, "links", self.links());
        if let Some(manifest) = &self.manifest {
            column(&mut line, "asks for", asks(manifest));
            column(
                &mut line,
                "serves",
                manifest.provides.roles.iter().map(ToString::to_string),
            );
            line("limits", &limits(manifest));
        }
        column(&mut line, "disagrees", self.disagreements.iter().cloned());
        text
    }
}

impl Sheet {
    /// What it imports of WASI, where that sounds like power: it is linked for everyone and holds only what was granted.
    fn links(&self) -> Vec<String> {
        let imports = |package: &str| self.imports.iter().any(|import| import.starts_with(package));
        [
            (
                "wasi:filesystem/",
                "files (wasi:filesystem): holds granted mounts and /workspace, nothing else",
            ),
            (
                "wasi:sockets/",
                "network (wasi:sockets): every address and name is refused",
            ),
        ]
        .into_iter()
        .filter(|(package, _)| imports(package))
        .map(|(_, text)| text.to_owned())
        .collect()
    }
}

/// Values of one key, one per line; `nothing` when there are none.
fn column(line: &mut impl FnMut(&str, &str), key: &str, values: impl IntoIterator<Item = String>) {
    let mut key = Some(key);
    for value in values {
        line(key.take().unwrap_or_default(), &value);
    }
    if let Some(key) = key {
        line(key, "nothing");
    }
}

fn can(export: Export) -> &'static str {
    match export {
        Export::Executor => "execute tasks",
        Export::Planner => "split objectives into tasks",
        Export::Checker => "check results of others",
    }
}

/// What a manifest wants, one sentence each.
fn asks(manifest: &Manifest) -> Vec<String> {
    let wants = &manifest.wants;
    let files = wants.files.iter().map(|want| match want.access {
        Access::Read => format!("read files beneath {}", want.mount),
        Access::Write => format!("read and write files beneath {}", want.mount),
    });
    let sizes = [
        (
            wants.workspace,
            "of scratch files in /workspace, gone after each attempt",
        ),
        (wants.artifacts, "of artifacts per attempt"),
    ];
    let sizes = sizes.into_iter().filter(|(size, _)| *size > Size(0));
    files
        .chain(sizes.map(|(size, what)| format!("{size} {what}")))
        .collect()
}

fn limits(manifest: &Manifest) -> String {
    let tier = manifest.limits.tier.unwrap_or_default();
    let limits = manifest.limits.narrow(tier.limits());
    format!(
        "{tier}: {} of memory, {} of fuel and {} per attempt",
        bytes(limits.memory.0),
        fuel(limits.fuel.0),
        duration(limits.deadline.0)
    )
}

/// Where the component and its manifest contradict each other.
fn disagreements(scan: &Scan) -> Vec<String> {
    let Some(manifest) = &scan.manifest else {
        return Vec::new();
    };
    let imports = |package: &str| scan.imports.iter().any(|import| import.starts_with(package));
    let mut found = Vec::new();
    if let Err(refused) = grant::agrees(scan.imports.iter().map(String::as_str), manifest) {
        found.push(refused.message);
    }
    let wants = &manifest.wants;
    if wants.artifacts > Size(0) && !imports(Capability::Artifacts.interface()) {
        found.push("the manifest wants artifacts, which the component does not import".to_owned());
    }
    if (!wants.files.is_empty() || wants.workspace > Size(0)) && !imports("wasi:filesystem/") {
        found.push("the manifest wants files, and the component does not import wasi:filesystem".to_owned());
    }
    if scan.exports.is_empty() {
        found.push("the component exports nothing that a host could call".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(manifest: &str, imports: &[&str]) -> Scan {
        Scan {
            digest: Digest::of(b""),
            size: 2_048,
            manifest: Some(Manifest::parse(manifest).unwrap()),
            exports: [Export::Executor].into(),
            imports: imports.iter().map(|import| (*import).to_owned()).collect(),
        }
    }

    #[test]
    fn an_agent_that_asks_for_nothing_says_so() {
        let scan = scan(
            "[plugin]\nname='a/b'\nversion='1.0.0'",
            &["skep:agent/log@0.1.0", "wasi:io/poll@0.2.6"],
        );
        let text = Sheet::of(&scan).to_text();
        for line in [
            "asks for    nothing\n",
            "can         execute tasks\n",
            "disagrees   nothing\n",
            "signature   unsigned\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn wants_are_told_in_words_and_contradictions_named() {
        let manifest =
            "[plugin]\nname='a/b'\nversion='1.0.0'\n[wants]\nartifacts='1MiB'\nfiles=[{mount='/input',access='write'}]";
        let text = Sheet::of(&scan(manifest, &[])).to_text();
        for part in [
            "read and write files beneath /input",
            "1MiB of artifacts",
            "which the component does not import",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
