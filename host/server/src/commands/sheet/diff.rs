//! Two releases of a plugin side by side: what the newer one asks for more, which takes a person's approval, and all that differs besides.

use serde::Serialize;
use skep_rules::{
    id::{Digest, PluginName},
    manifest::{Manifest, Version},
    widening::{self, Change, Widening},
};
use skep_runtime::plugin::Scan;

use super::{Text, WIDTH, fold};

/// What differs between two releases.
#[derive(Debug, Serialize)]
pub(crate) struct Diff {
    before: Release,
    after: Release,
    /// What the newer one asks for more.
    widenings: Vec<Told<Widening>>,
    /// All the rest.
    changes: Vec<Told<Change>>,
}

#[derive(Debug, Serialize)]
struct Release {
    name: PluginName,
    version: Version,
    digest: Digest,
}

/// A difference, and the same in words.
#[derive(Debug, Serialize)]
struct Told<T> {
    #[serde(flatten)]
    it: T,
    text: String,
}

impl<T: ToString> From<T> for Told<T> {
    fn from(it: T) -> Self {
        let text = it.to_string();
        Told { it, text }
    }
}

impl Diff {
    /// What differs between two releases, from their files alone; `None` where one of them carries no manifest, and so is no release.
    pub(crate) fn of(before: &Scan, after: &Scan) -> Option<Self> {
        let (was, is) = (before.manifest.as_ref()?, after.manifest.as_ref()?);
        let release = |scan: &Scan, manifest: &Manifest| Release {
            name: manifest.plugin.name.clone(),
            version: manifest.plugin.version.clone(),
            digest: scan.digest,
        };
        let exports = |scan: &Scan| {
            let interfaces: Vec<&str> = scan.exports.iter().map(|export| export.interface()).collect();
            interfaces.join(", ")
        };
        let old = (was, before.imports.as_slice());
        let new = (is, after.imports.as_slice());
        let exported = (before.exports != after.exports).then(|| Change::Other {
            what: "exports",
            from: exports(before),
            to: exports(after),
        });
        let widenings = widening::widenings(old, new);
        let changes = widening::changes(old, new).into_iter().chain(exported);
        Some(Diff {
            before: release(before, was),
            after: release(after, is),
            widenings: widenings.into_iter().map(Told::from).collect(),
            changes: changes.map(Told::from).collect(),
        })
    }

    /// Whether the newer release asks for more.
    pub(crate) fn widens(&self) -> bool {
        !self.widenings.is_empty()
    }

    /// The differences as people read them: `+ ` begins what is asked for more, `- ` what no longer is.
    pub(crate) fn to_text(&self) -> String {
        let mut text = Text::default();
        for (key, release) in [("before", &self.before), ("after", &self.after)] {
            text.line(
                key,
                &format!("{} {}  sha256:{}", release.name, release.version, release.digest),
            );
        }
        for told in &self.widenings {
            text.marked('+', &told.text);
        }
        for told in &self.changes {
            let mark = match told.it {
                Change::Narrower { .. } => '-',
                _ => ' ',
            };
            text.marked(mark, &told.text);
        }
        text.0.push_str(match (self.widens(), self.changes.is_empty()) {
            (true, _) => "It asks for more than before: a person must approve that.\n",
            (false, false) => "It asks for nothing more than before.\n",
            (false, true) => "They ask for the same and say the same.\n",
        });
        text.0
    }
}

impl Text {
    /// A difference behind its mark; a longer one goes on below, behind the same mark and indented.
    fn marked(&mut self, mark: char, difference: &str) {
        for (index, part) in fold(difference, WIDTH - 4).iter().enumerate() {
            let indent = if index == 0 { "" } else { "  " };
            self.0.push_str(&format!("{mark} {indent}{part}\n"));
        }
    }
}
