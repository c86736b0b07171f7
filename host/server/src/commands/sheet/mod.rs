//! The permission sheet: what a component can do, what it asks for, what of that it is given and what it may reach, in plain words. Shown by
//! `inspect` and before anything is installed. Made from the file alone; no guest code runs.

mod diff;
#[cfg(test)]
mod golden;

use serde::Serialize;
use skep_rules::{
    capability::Capability,
    grant,
    id::Digest,
    manifest::{Access, FileWant, Manifest, Wants},
    metadata,
    quantity::Size,
    seam::Export,
};
use skep_runtime::plugin::Scan;

pub(crate) use diff::Diff;

use crate::{
    failure::plain,
    output::{bytes, duration, fuel},
};

/// Width of the first column.
const KEY: usize = 12;
/// Characters of a line that holds text from elsewhere: it fits a terminal of 80, because what a terminal wraps begins at its left edge, where it
/// could pass for a line of the sheet.
const WIDTH: usize = 76;

/// A component in words.
#[derive(Debug, Serialize)]
pub(crate) struct Sheet {
    /// SHA-256 of the file.
    digest: Digest,
    /// Length of the file.
    size: u64,
    /// `unsigned` until somebody who verified the signature says otherwise.
    signature: String,
    exports: Vec<Export>,
    /// What it imports of `skep:agent/*`.
    capabilities: Vec<Reach>,
    /// Everything that it imports.
    imports: Vec<String>,
    /// What its manifest wants.
    asks: Vec<Ask>,
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

/// One thing that a manifest wants.
#[derive(Debug, Serialize)]
struct Ask {
    /// The key that says it, of `[wants]` or `[limits]`.
    key: &'static str,
    /// In words.
    what: String,
    /// Whether it reaches so far that two keys must sign for it.
    far: bool,
    /// What of it is given, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<String>,
}

/// Against what wants are held, to tell what of them is given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Allowance<'a> {
    /// The grants of a member of a crew.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no command shows the sheet of a member of a crew yet")
    )]
    Crew(&'a Wants),
    /// The most that a publisher may be given.
    Publisher(&'a metadata::Ceiling),
}

impl Sheet {
    /// The sheet of a component whose signature nobody looked at.
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
            signature: "unsigned".to_owned(),
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
            asks: scan
                .manifest
                .as_ref()
                .map(|manifest| asks(manifest, None))
                .unwrap_or_default(),
            manifest: scan.manifest.clone(),
            disagreements: disagreements(scan),
        }
    }

    /// The same with what is known of its signature.
    pub(crate) fn signed(self, signature: impl Into<String>) -> Self {
        Sheet {
            signature: signature.into(),
            ..self
        }
    }

    /// The same, telling beside each want what of it is given.
    pub(crate) fn held_against(self, allowance: Allowance<'_>) -> Self {
        let asks = self.manifest.as_ref().map(|manifest| asks(manifest, Some(allowance)));
        Sheet {
            asks: asks.unwrap_or_default(),
            ..self
        }
    }

    /// The sheet as people read it. Lines that begin with `! ` are those that must not be overlooked.
    pub(crate) fn to_text(&self) -> String {
        let mut text = Text::default();
        match &self.manifest {
            Some(manifest) => {
                let about = &manifest.plugin;
                text.line("plugin", &format!("{} {}", about.name, about.version));
                text.foreign("", &about.description);
                text.foreign("licence", &about.license);
            }
            None => text.line(
                "plugin",
                "none: the component carries no manifest (`skep build` embeds skep.toml)",
            ),
        }
        text.line("digest", &format!("sha256:{}", self.digest));
        text.line("size", &bytes(self.size));
        text.foreign("signature", &self.signature);
        text.column("can", self.exports.iter().map(|export| can(*export).to_owned()));
        text.column(
            "may",
            self.capabilities.iter().map(|reach| {
                let grant = if reach.granted { ", when granted" } else { "" };
                format!("{} ({}{grant})", reach.means, reach.interface)
            }),
        );
        text.column("links", self.links());
        if let Some(manifest) = &self.manifest {
            text.asks(&self.asks);
            text.column("serves", manifest.provides.roles.iter().map(ToString::to_string));
            text.line("limits", &limits(manifest));
        }
        text.column("disagrees", self.disagreements.iter().cloned());
        text.0
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

/// The lines of a sheet: a key and what stands beside it.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, key: &str, value: &str) {
        self.0.push_str(&format!("{key:<KEY$}{value}\n"));
    }

    /// Text that its author chose: escaped and folded; nothing for an empty one.
    fn foreign(&mut self, key: &str, value: &str) {
        let mut key = key;
        for part in fold(value, WIDTH - KEY) {
            self.line(key, &part);
            key = "";
        }
    }

    /// Values of one key, one per line; `nothing` when there are none.
    fn column(&mut self, key: &str, values: impl IntoIterator<Item = String>) {
        let mut key = Some(key);
        for value in values {
            self.line(key.take().unwrap_or_default(), &value);
        }
        if let Some(key) = key {
            self.line(key, "nothing");
        }
    }

    fn asks(&mut self, asks: &[Ask]) {
        if asks.is_empty() {
            self.line("asks for", "nothing");
        }
        let mut key = "asks for";
        for ask in asks {
            let mark = if ask.far { "! " } else { "" };
            // What goes on below is indented: one want, one beginning. What is given stands in one piece.
            let width = WIDTH - KEY - 2;
            let mut parts = fold(&ask.what, width);
            if let Some(given) = ask.given.as_ref().map(|given| format!("({given})")) {
                match parts.last_mut() {
                    Some(last) if last.chars().count() + 1 + given.len() <= width => *last = format!("{last} {given}"),
                    _ => parts.push(given),
                }
            }
            for (index, part) in parts.iter().enumerate() {
                let indent = if index == 0 { "" } else { "  " };
                self.line(&format!("{mark}{key}"), &format!("{indent}{part}"));
                key = "";
            }
        }
    }
}

/// Text from elsewhere as lines of a bounded width without anything in them that a terminal would obey. All white space counts as one space.
fn fold(text: &str, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    // The width of `line` in characters: counting it anew for each would be quadratic.
    let mut width = 0;
    for word in text.split_whitespace().map(plain) {
        let letters = word.chars().count();
        if width > 0 && width + 1 + letters > most {
            lines.push(std::mem::take(&mut line));
            width = 0;
        } else if width > 0 {
            line.push(' ');
            width += 1;
        }
        for letter in word.chars() {
            if width == most {
                lines.push(std::mem::take(&mut line));
                width = 0;
            }
            line.push(letter);
            width += 1;
        }
    }
    if width > 0 {
        lines.push(line);
    }
    lines
}

fn can(export: Export) -> &'static str {
    match export {
        Export::Executor => "execute tasks",
        Export::Planner => "split objectives into tasks",
        Export::Sequencer => "put the tasks of plans in order",
        Export::Checker => "check results of others",
        Export::Mailbox => "receive messages",
    }
}

/// What a manifest wants, one sentence each, and what of it is given.
fn asks(manifest: &Manifest, allowance: Option<Allowance<'_>>) -> Vec<Ask> {
    let wants = &manifest.wants;
    let files = wants.files.iter().map(|want| Ask {
        key: "files",
        what: want.to_string(),
        far: want.access == Access::Write,
        given: allowance.map(|allowance| allowance.file(want).to_owned()),
    });
    let size = |key, what: &str, wanted: Size, of: fn(Allowance<'_>) -> Size| {
        (wanted > Size(0)).then(|| Ask {
            key,
            what: format!("{wanted} {what}"),
            far: false,
            given: allowance.map(|allowance| allowance.size(wanted, of(allowance))),
        })
    };
    let sizes = [
        size(
            "workspace",
            "of scratch files in /workspace, gone after each attempt",
            wants.workspace,
            |allowance| match allowance {
                Allowance::Crew(grants) => grants.workspace,
                Allowance::Publisher(ceiling) => ceiling.workspace,
            },
        ),
        size(
            "artifacts",
            "of artifacts per attempt",
            wants.artifacts,
            |allowance| match allowance {
                Allowance::Crew(grants) => grants.artifacts,
                Allowance::Publisher(ceiling) => ceiling.artifacts,
            },
        ),
    ];
    let http = wants.http.iter().map(|want| Ask {
        key: "http",
        what: want.to_string(),
        far: want.host.is_wildcard(),
        given: Some(match allowance {
            Some(Allowance::Publisher(ceiling)) if !ceiling.http => {
                format!("{PASSES}; {LATER}")
            }
            _ => LATER.to_owned(),
        }),
    });
    let state = wants.state.map(|want| Ask {
        key: "state",
        what: want.to_string(),
        far: false,
        given: allowance.map(|allowance| match allowance {
            Allowance::Crew(grants) => granted(want, grants.state, |given| given.quota.to_string()),
            Allowance::Publisher(ceiling) => under(want.quota <= ceiling.state),
        }),
    });
    let tasks = wants.tasks.map(|want| Ask {
        key: "tasks",
        what: want.to_string(),
        far: false,
        given: allowance.map(|allowance| match allowance {
            Allowance::Crew(grants) => granted(want, grants.tasks, |given| given.children.to_string()),
            Allowance::Publisher(ceiling) => under(want.children <= ceiling.children),
        }),
    });
    let messages = wants.messages.as_ref().map(|want| Ask {
        key: "messages",
        what: want.to_string(),
        far: false,
        given: allowance.map(|allowance| match allowance {
            Allowance::Crew(grants) => match &grants.messages {
                None => "not granted".to_owned(),
                Some(given) if given.beyond(want).is_empty() => "granted".to_owned(),
                Some(given) => format!("granted: {given}"),
            },
            // Messages stay within a crew, whose operator grants each topic.
            Allowance::Publisher(_) => under(true),
        }),
    });
    let tier = manifest.limits.tier.unwrap_or_default();
    let tier = match allowance {
        Some(Allowance::Publisher(ceiling)) => Some(Ask {
            key: "tier",
            what: format!("the tier `{tier}`"),
            far: false,
            given: Some(under(tier <= ceiling.tier)),
        }),
        _ => None,
    };
    files
        .chain(sizes.into_iter().flatten())
        .chain(state)
        .chain(tasks)
        .chain(messages)
        .chain(http)
        .chain(tier)
        .collect()
}

impl Allowance<'_> {
    /// What is given of a mount.
    fn file(self, want: &FileWant) -> &'static str {
        match self {
            Allowance::Crew(grants) => match grants.files.iter().find(|grant| grant.mount == want.mount) {
                None => "not granted",
                Some(grant) if grant.access < want.access => "granted for reading",
                Some(_) => "granted",
            },
            Allowance::Publisher(ceiling) if Some(want.access) > ceiling.files => PASSES,
            Allowance::Publisher(_) => WITHIN,
        }
    }

    /// What is given of a size.
    fn size(self, wanted: Size, given: Size) -> String {
        match self {
            Allowance::Crew(_) if given == Size(0) => "not granted".to_owned(),
            Allowance::Crew(_) if given < wanted => format!("granted: {given}"),
            Allowance::Crew(_) => "granted".to_owned(),
            Allowance::Publisher(_) => under(wanted <= given),
        }
    }
}

/// What a crew gives of a want that it may also leave out.
fn granted<T: PartialOrd>(wanted: T, given: Option<T>, amount: impl Fn(&T) -> String) -> String {
    match given {
        None => "not granted".to_owned(),
        Some(given) if given < wanted => format!("granted: {}", amount(&given)),
        Some(_) => "granted".to_owned(),
    }
}

/// Whether a publisher's ceiling holds a want.
fn under(within: bool) -> String {
    if within { WITHIN } else { PASSES }.to_owned()
}

const PASSES: &str = "passes the publisher's ceiling";
const WITHIN: &str = "within the publisher's ceiling";
/// Said of HTTP, so that nothing is silently not given.
const LATER: &str = "this host does not offer it yet";

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
    for (key, wanted, capability) in [
        ("artifacts", wants.artifacts > Size(0), Capability::Artifacts),
        ("state", wants.state.is_some(), Capability::State),
        ("tasks", wants.tasks.is_some(), Capability::Tasks),
        (
            "to send messages",
            wants.messages.as_ref().is_some_and(|topics| !topics.send.is_empty()),
            Capability::Messages,
        ),
    ] {
        if wanted && !imports(capability.interface()) {
            found.push(format!("the manifest wants {key}, which the component does not import"));
        }
    }
    let hears = wants.messages.as_ref().is_some_and(|topics| !topics.receive.is_empty());
    if hears != scan.exports.contains(&Export::Mailbox) {
        found.push(match hears {
            true => "the manifest wants to receive messages, and the component exports no mailbox".to_owned(),
            false => "the component exports a mailbox, and its manifest wants no topic to receive".to_owned(),
        });
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
