//! What counts as a widening, against a model that knows nothing of it: releases are drawn, spelled at random, and asked with concrete requests
//! whether they would be permitted.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that tests share"
)]

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use skep_rules::{
    manifest::Manifest,
    widening::{Change, Widening, changes, widenings},
};

/// Names as a manifest may spell them; the first spelling is the canonical one.
const NAMES: &[&[&str]] = &[
    &["example.com"],
    &["api.example.com", "API.example.COM"],
    &["a.api.example.com"],
    &[
        "xn--bcher-kva.example",
        "bücher.example",
        "BÜCHER.example",
        "XN--BCHER-KVA.Example",
        "bücher。example",
    ],
    &["badexample.com"],
];
const PATHS: &[&str] = &["/", "/v1", "/v1/", "/v1/a", "/v1/a%20b", "/v10/", "/v2/"];
const METHODS: &[&str] = &["GET", "POST", "DELETE"];
const MOUNTS: &[&str] = &["/input", "/output"];
const TIERS: &[&str] = &["small", "medium", "large"];
/// The same number in several units, by its base.
const SIZES: &[(u64, &[&str])] = &[
    (0, &["0", "0B", "0GiB"]),
    (1 << 10, &["1KiB", "1024", "1024B"]),
    (1 << 20, &["1MiB", "1024KiB", "1048576"]),
    (1 << 30, &["1GiB", "1024MiB"]),
];
const IMPORTS: &[(&str, &[&str])] = &[
    ("skep:agent/log@0.1", &["skep:agent/log@0.1.0", "skep:agent/log@0.1.9"]),
    ("wasi:io/poll@0.2", &["wasi:io/poll@0.2.0", "wasi:io/poll@0.2.6"]),
    ("wasi:io/poll@0.3", &["wasi:io/poll@0.3.0"]),
    ("a:b/c", &["a:b/c"]),
];

/// A want as indices: wildcard, name, port, methods, path.
type Http = (bool, usize, u16, BTreeSet<usize>, usize);

#[derive(Debug, Clone, Default)]
struct Release {
    http: Vec<Http>,
    /// Writable or not, per mount.
    mounts: [Option<bool>; 2],
    /// Workspace and artifacts.
    sizes: [usize; 2],
    /// The quota of the state.
    state: Option<usize>,
    children: Option<usize>,
    tier: Option<usize>,
    memory: Option<usize>,
    imports: BTreeSet<usize>,
}

struct Luck(ChaCha8Rng);

impl Luck {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.next_u64() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        of.get(self.below(of.len())).unwrap()
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = self.below(last + 1);
            list.swap(last, other);
        }
    }

    fn http(&mut self) -> Http {
        let mut methods = BTreeSet::from([self.below(METHODS.len())]);
        methods.insert(self.below(METHODS.len()));
        let port = *self.pick(&[443, 443, 8443]);
        (
            self.one_in(3),
            self.below(NAMES.len()),
            port,
            methods,
            self.below(PATHS.len()),
        )
    }

    fn release(&mut self) -> Release {
        let mount = |luck: &mut Luck| (!luck.one_in(2)).then(|| luck.one_in(2));
        Release {
            http: (0..self.below(4)).map(|_| self.http()).collect(),
            mounts: [mount(self), mount(self)],
            sizes: [self.below(SIZES.len()), self.below(SIZES.len())],
            state: (!self.one_in(3)).then(|| self.below(SIZES.len())),
            children: (!self.one_in(3)).then(|| self.below(3)),
            tier: (!self.one_in(3)).then(|| self.below(TIERS.len())),
            memory: self.one_in(2).then(|| 1 + self.below(SIZES.len() - 1)),
            imports: (0..self.below(3)).map(|_| self.below(IMPORTS.len())).collect(),
        }
    }

    /// One of the texts that say this release.
    fn spell(&mut self, release: &Release) -> Spelled {
        let mut wants = Vec::new();
        for (wildcard, name, port, methods, path) in &release.http {
            let mut methods: Vec<&str> = methods.iter().map(|index| METHODS[*index]).collect();
            self.shuffle(&mut methods);
            // Grouped, one by one, or both.
            let mut groups = Vec::new();
            if self.one_in(2) {
                groups.push(methods.clone());
            } else {
                groups.extend(methods.iter().map(|method| vec![*method, *method]));
            }
            if self.one_in(3) {
                groups.push(vec![methods[0]]);
            }
            for group in groups {
                let star = if *wildcard { "*." } else { "" };
                let name = self.pick(NAMES[*name]).to_string();
                let dot = if self.one_in(3) { "." } else { "" };
                let port = match port {
                    443 if self.one_in(2) => String::new(),
                    port => format!(":{port}"),
                };
                let path = if PATHS[*path] == "/" && self.one_in(2) {
                    String::new()
                } else {
                    format!(", path = '{}'", PATHS[*path])
                };
                let methods = if group == ["GET"] && self.one_in(2) {
                    String::new()
                } else {
                    format!(", methods = {group:?}")
                };
                wants.push(format!("{{ host = '{star}{name}{dot}{port}'{methods}{path} }}"));
            }
        }
        self.shuffle(&mut wants);
        let mut files: Vec<String> = release
            .mounts
            .iter()
            .zip(MOUNTS)
            .filter_map(|(access, mount)| {
                let access = if (*access)? { "write" } else { "read" };
                Some(format!("{{ mount = '{mount}', access = '{access}' }}"))
            })
            .collect();
        self.shuffle(&mut files);
        let [workspace, artifacts] = release.sizes.map(|index| *self.pick(SIZES[index].1));
        let mut durable = Vec::new();
        durable.extend(
            release
                .state
                .map(|quota| format!("state = {{ quota = '{}' }}\n", self.pick(SIZES[quota].1))),
        );
        durable.extend(
            release
                .children
                .map(|children| format!("tasks = {{ children = {children} }}\n")),
        );
        self.shuffle(&mut durable);
        let durable = durable.concat();
        let mut limits = String::new();
        match release.tier {
            // The default, left out or said.
            Some(1) if self.one_in(2) => {}
            Some(tier) => limits.push_str(&format!("tier = '{}'\n", TIERS[tier])),
            None if self.one_in(2) => limits.push_str("tier = 'medium'\n"),
            None => {}
        }
        if let Some(memory) = release.memory {
            limits.push_str(&format!("memory = '{}'\n", self.pick(SIZES[memory].1)));
        }
        let text = format!(
            "[plugin]\nname = 'a/b'\nversion = '1.0.0'\n[wants]\nworkspace = '{workspace}'\nartifacts = '{artifacts}'\n{durable}http = [{}]\nfiles = [{}]\n[limits]\n{limits}",
            wants.join(", "),
            files.join(", ")
        );
        let mut imports: Vec<String> = Vec::new();
        for index in &release.imports {
            imports.push(self.pick(IMPORTS[*index].1).to_string());
            imports.push(self.pick(IMPORTS[*index].1).to_string());
        }
        self.shuffle(&mut imports);
        let manifest = Manifest::parse(&text).unwrap_or_else(|error| unreachable!("{error}: {text}"));
        Spelled { manifest, imports }
    }
}

struct Spelled {
    manifest: Manifest,
    imports: Vec<String>,
}

fn between(before: &Spelled, after: &Spelled) -> Vec<Widening> {
    widenings((&before.manifest, &before.imports), (&after.manifest, &after.imports))
}

impl Release {
    /// Whether a concrete request would be permitted.
    fn permits(&self, host: &str, port: u16, method: usize, path: &str) -> bool {
        self.http.iter().any(|(wildcard, name, its_port, methods, prefix)| {
            let (name, prefix) = (NAMES[*name][0], PATHS[*prefix]);
            let host_fits = match wildcard {
                false => host == name,
                true => host.ends_with(&format!(".{name}")),
            };
            let path_fits = path == prefix || path.starts_with(&format!("{}/", prefix.trim_end_matches('/')));
            // `/v1/` has a slash more than `/v1`, and that is the whole difference.
            let not_above = prefix == "/" || !prefix.ends_with('/') || path.starts_with(prefix);
            host_fits && path_fits && not_above && port == *its_port && methods.contains(&method)
        })
    }

    fn limits(&self) -> (usize, u64) {
        let tier = self.tier.unwrap_or(1);
        let most = [16 << 20, 64 << 20, 512 << 20][tier];
        (tier, self.memory.map_or(most, |index| SIZES[index].0.min(most)))
    }

    /// Whether it permits anything that another does not.
    fn exceeds(&self, other: &Release) -> bool {
        let names = NAMES
            .iter()
            .flat_map(|name| ["", "zz.", "zz.a.api."].map(|label| format!("{label}{}", name[0])));
        let paths = [
            "/",
            "/v1",
            "/v1/",
            "/v1/a",
            "/v1/zz",
            "/v1/a/zz",
            "/v1/a%20b",
            "/v1/a%20b/zz",
            "/v10",
            "/v10/",
            "/v10/zz",
            "/v2/",
            "/v2/zz",
        ];
        let mut requests = names.flat_map(|name| {
            paths.iter().flat_map(move |path| {
                let name = name.clone();
                [443, 8443]
                    .into_iter()
                    .flat_map(move |port| (0..METHODS.len()).map(move |method| (port, method)))
                    .map(move |(port, method)| (name.clone(), port, method, *path))
            })
        });
        let (tier, memory) = self.limits();
        let (other_tier, other_memory) = other.limits();
        requests.any(|(host, port, method, path)| {
            self.permits(&host, port, method, path) && !other.permits(&host, port, method, path)
        }) || self
            .mounts
            .iter()
            .zip(other.mounts)
            .any(|(mine, theirs)| *mine > theirs)
            || self.sizes.iter().zip(other.sizes).any(|(mine, theirs)| *mine > theirs)
            || self.state > other.state
            || self.children > other.children
            || tier > other_tier
            || memory > other_memory
            || !self.imports.is_subset(&other.imports)
    }
}

fn luck(seed: u64) -> Luck {
    Luck(ChaCha8Rng::seed_from_u64(seed))
}

/// A release that differs from another in one thing, mostly.
fn near(luck: &mut Luck, release: &Release) -> Release {
    let fresh = luck.release();
    let mut near = release.clone();
    match luck.below(9) {
        0 => near.http = fresh.http,
        1 => near.http.push(luck.http()),
        2 => {
            near.http.pop();
        }
        3 => near.mounts = fresh.mounts,
        4 => near.sizes = fresh.sizes,
        5 => (near.tier, near.memory) = (fresh.tier, fresh.memory),
        6 => near.imports = fresh.imports,
        7 => (near.state, near.children) = (fresh.state, fresh.children),
        _ => near = fresh,
    }
    near
}

#[test]
fn a_widening_is_there_exactly_when_more_is_permitted() {
    let (mut wider, mut not) = (0, 0);
    for seed in 0..3_000 {
        let mut luck = luck(seed);
        let before = luck.release();
        let after = near(&mut luck, &before);
        let found = between(&luck.spell(&before), &luck.spell(&after));
        assert_eq!(
            !found.is_empty(),
            after.exceeds(&before),
            "seed {seed}: {before:?} {after:?} {found:?}"
        );
        if found.is_empty() { not += 1 } else { wider += 1 }
    }
    assert!(wider > 500 && not > 500, "both must occur often: {wider} {not}");
}

#[test]
fn no_spelling_makes_a_widening_or_changes_one() {
    for seed in 0..1_500 {
        let mut luck = luck(seed);
        let before = luck.release();
        let after = near(&mut luck, &before);
        let (one, two) = (luck.spell(&before), luck.spell(&before));
        assert_eq!(between(&one, &two), [], "seed {seed}: {before:?}");
        assert_eq!(
            changes((&one.manifest, &one.imports), (&two.manifest, &two.imports)),
            [],
            "seed {seed}"
        );
        let (three, four) = (luck.spell(&after), luck.spell(&after));
        assert_eq!(
            between(&one, &three),
            between(&two, &four),
            "seed {seed}: {before:?} {after:?}"
        );
    }
}

#[test]
fn steps_that_do_not_widen_never_add_up_to_a_widening() {
    for seed in 0..1_500 {
        let mut luck = luck(seed);
        let first = luck.release();
        let second = near(&mut luck, &first);
        let third = near(&mut luck, &second);
        let [first, second, third] = [first, second, third].map(|release| luck.spell(&release));
        let direct = between(&first, &third);
        let steps = between(&first, &second).len() + between(&second, &third).len();
        assert!(direct.is_empty() || steps > 0, "seed {seed}: {direct:?}");
    }
}

#[test]
fn asking_for_still_more_hides_nothing() {
    for seed in 0..1_500 {
        let mut luck = luck(seed);
        let before = luck.release();
        let after = near(&mut luck, &before);
        let mut more = after.clone();
        more.http.extend(luck.release().http);
        more.imports.extend(luck.release().imports);
        let [before, after, more] = [before, after, more].map(|release| luck.spell(&release));
        assert!(
            between(&before, &after).is_empty() || !between(&before, &more).is_empty(),
            "seed {seed}"
        );
    }
}

#[test]
fn what_narrows_is_what_going_back_would_widen() {
    for seed in 0..500 {
        let mut luck = luck(seed);
        let before = luck.release();
        let after = near(&mut luck, &before);
        let (before, after) = (luck.spell(&before), luck.spell(&after));
        let narrower: Vec<Widening> = changes((&before.manifest, &before.imports), (&after.manifest, &after.imports))
            .into_iter()
            .map(|change| match change {
                Change::Narrower { back } => back,
                other => unreachable!("names and versions are equal: {other:?}"),
            })
            .collect();
        assert_eq!(narrower, between(&after, &before), "seed {seed}");
    }
}
