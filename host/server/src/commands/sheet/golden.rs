//! Golden files: what a person reads for a document, as files in `tests/golden`. A new case is a new file; `UPDATE_GOLDEN=1` writes what is
//! expected anew, and the difference is read before it is committed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use skep_rules::{
    id::Digest,
    manifest::{Manifest, Wants},
    metadata::Ceiling,
    seam::Export,
};
use skep_runtime::plugin::Scan;

use super::{Allowance, Diff, Sheet};
use crate::{
    config::Environment,
    failure::{Failure, plain},
};

/// A manifest whose comments tell the rest: `#: import NAME`, `#: export NAME`, `#: signature STATE`, `#: crew { GRANTS }`, `#: ceiling { KEYS }`.
struct Case {
    text: String,
}

impl Case {
    fn all<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.text
            .lines()
            .filter_map(move |line| line.strip_prefix("#: ")?.strip_prefix(word)?.strip_prefix(' '))
    }

    fn scan(&self) -> Scan {
        let export = |name| {
            let found = Export::ALL.iter().find(|export| export.interface().ends_with(name));
            *found.unwrap_or_else(|| panic!("no export {name}"))
        };
        let manifest = Manifest::parse(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text));
        Scan {
            digest: Digest::of(self.text.as_bytes()),
            size: 20_480,
            manifest: Some(manifest),
            exports: self.all("export").map(export).collect(),
            imports: self.all("import").map(str::to_owned).collect(),
        }
    }

    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::of(&self.scan());
        if let Some(state) = self.all("signature").next() {
            sheet = sheet.signed(state);
        }
        if let Some(grants) = self.all("crew").next() {
            let grants: Wants = grants.parse::<toml::Value>().unwrap().try_into().unwrap();
            sheet = sheet.held_against(Allowance::Crew(&grants));
        }
        if let Some(ceiling) = self.all("ceiling").next() {
            let ceiling: Ceiling = ceiling.parse::<toml::Value>().unwrap().try_into().unwrap();
            sheet = sheet.held_against(Allowance::Publisher(&ceiling));
        }
        sheet
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares what each case shows with the `.txt` beside it.
fn golden(name: &str, ending: &str, least: usize, show: impl Fn(&Path, &str) -> String) {
    let folder = folder(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let cases: BTreeSet<&str> = files.iter().filter_map(|file| file.strip_suffix(ending)).collect();
    assert!(
        cases.len() >= least,
        "{name} has {} cases, at least {least} are expected",
        cases.len()
    );
    let orphans: Vec<&str> = files
        .iter()
        .filter_map(|file| file.strip_suffix(".txt"))
        .filter(|case| !cases.contains(case))
        .collect();
    assert_eq!(orphans, [""; 0], "expected texts without a case");
    let updates = Environment::of_process().is_set("UPDATE_GOLDEN");
    let mut wrong = Vec::new();
    for case in cases {
        let shown = plain(&show(&folder, case));
        let expected = folder.join(format!("{case}.txt"));
        if updates {
            fs::write(&expected, &shown).unwrap();
        } else if fs::read_to_string(&expected).ok().as_deref() != Some(&shown) {
            wrong.push(format!("{name}/{case} shows:\n{shown}"));
        }
    }
    let count = wrong.len();
    assert!(
        wrong.is_empty(),
        "{count} differ; `UPDATE_GOLDEN=1` writes them anew\n\n{}",
        wrong.join("\n")
    );
}

#[test]
fn sheets_read_as_they_did() {
    golden("sheets", ".toml", 8, |folder, case| {
        let text = read(&folder.join(format!("{case}.toml")));
        Case { text }.sheet().to_text()
    });
}

#[test]
fn diffs_read_as_they_did() {
    golden("diffs", ".before.toml", 12, |folder, case| {
        let [before, after] = ["before", "after"].map(|side| Case {
            text: read(&folder.join(format!("{case}.{side}.toml"))),
        });
        let diff = Diff::of(&before.scan(), &after.scan()).unwrap();
        let widening = diff.to_text().lines().any(|line| line.starts_with("+ "));
        assert_eq!(
            widening,
            diff.widens(),
            "{case}: exactly the lines of widenings begin with a plus"
        );
        // A file that is called after a spelling may show no difference at all.
        assert!(
            !case.starts_with("spelling-") || (!diff.widens() && diff.to_text().lines().count() == 3),
            "{case}"
        );
        diff.to_text()
    });
}

#[test]
fn good_wants_have_one_spelling() {
    golden("wants/good", ".toml", 4, |folder, case| {
        let manifest = Manifest::parse(&read(&folder.join(format!("{case}.toml")))).unwrap();
        let again = manifest.to_toml();
        assert_eq!(Manifest::parse(&again), Ok(manifest), "{case}");
        again
    });
}

#[test]
fn bad_wants_are_refused_with_their_place() {
    golden("wants/bad", ".toml", 12, |folder, case| {
        let text = read(&folder.join(format!("{case}.toml")));
        let error = Manifest::parse(&text).expect_err(case);
        format!("{}\n", Failure::manifest(Path::new("skep.toml"), &text, &error))
    });
}

#[test]
fn no_text_of_an_author_begins_a_line_or_moves_the_cursor() {
    for hostile in [
        "fine\nsignature   signed",
        "fine\r\n+ nothing",
        "\u{1b}[2J\u{1b}[1;1Hsignature   signed",
        "\u{9b}31m",
        "\u{202e}dengis",
        "\u{2066}a\u{2069}",
        "a\u{2028}! b\u{2029}+ c\u{85}- d",
        "\u{200b}\u{2060}\u{feff}\u{ad}\u{e0041}",
        "\u{3164}\u{2800}\u{115f}",
        "a\u{8}\u{8}\u{7f}b",
        &" ".repeat(68),
        &"x".repeat(4_000),
        &"\u{1f4a9}".repeat(1_000),
        "%s %n {} {0} $(reboot) `id` <script>",
    ] {
        let text = format!(
            "[plugin]\nname = 'a/b'\nversion = '1.0.0'\nlicense = {:?}\ndescription = {:?}",
            "MIT", "DESCRIPTION"
        );
        let quoted = toml::Value::String(hostile.to_owned()).to_string();
        let case = Case {
            text: text.replace("\"DESCRIPTION\"", &quoted),
        };
        let calm = Case { text };
        let keys = |sheet: &str| -> Vec<String> {
            let first = sheet
                .lines()
                .map(|line| line.chars().take(12).collect::<String>().trim().to_owned());
            first.filter(|key| !key.is_empty()).collect()
        };
        let sheet = case.sheet().to_text();
        assert_eq!(plain(&sheet), sheet, "{hostile:?}");
        assert_eq!(keys(&sheet), keys(&calm.sheet().to_text()), "{sheet}");
        assert!(sheet.lines().all(|line| line.chars().count() <= 100), "{sheet}");
        let diff = Diff::of(&calm.scan(), &case.scan()).unwrap();
        assert!(
            !diff.to_text().lines().any(|line| line.starts_with(['+', '-', '!'])),
            "{}",
            diff.to_text()
        );
    }
}
