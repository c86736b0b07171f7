//! What an update asks for more than the release before it, computed on what the words mean and not on how they are spelled: a widening waits
//! for a person's approval, all other differences are shown beside it. Knows manifests and interfaces; not who asks, and not what was granted.
//!
//! Roles and exports are differences, not widenings. They say what work a plugin offers; what it may touch while it works is in its wants, its
//! limits and its imports, and a crew hands work only to the version that its own manifest names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;

use crate::{
    capability::Capability,
    http::{Host, HttpWant, Method, Methods, PathPrefix},
    limits::{Limits, Tier},
    manifest::{Access, FileWant, GuestPath, Manifest, StateWant, TasksWant, Wants},
    message::{Topic, Topics},
    quantity::{Fuel, Millis, Size},
};

/// What one release asks for: its manifest, and the interfaces that it imports, with versions, in any order.
pub type Asked<'a> = (&'a Manifest, &'a [String]);

/// One thing that an update asks for and that the release before it did not. Its text is one line in plain words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Widening {
    /// A host that was not covered before: a new one, another port, or a wildcard over what was there.
    Host {
        /// What was there of the same name, or below the wildcard.
        from: BTreeSet<Host>,
        /// The host, and what it wants to do there.
        to: HttpWant,
    },
    /// More methods at a host.
    Method {
        /// The host.
        host: Host,
        /// The methods of before.
        from: BTreeSet<Method>,
        /// Those that are new.
        to: Methods,
        /// Beneath which path.
        path: PathPrefix,
    },
    /// More of a host's paths for methods that it had before.
    Path {
        /// The host.
        host: Host,
        /// The methods.
        methods: Methods,
        /// The paths of before.
        from: BTreeSet<PathPrefix>,
        /// The path that they do not cover.
        to: PathPrefix,
    },
    /// A mount that was not there.
    Mount {
        /// The mount and what is done there.
        to: FileWant,
    },
    /// A mount that was only read is written.
    Write {
        /// The mount.
        mount: GuestPath,
    },
    /// More of `/workspace`.
    Workspace {
        /// Before.
        from: Size,
        /// Now.
        to: Size,
    },
    /// More artifacts per attempt.
    Artifacts {
        /// Before.
        from: Size,
        /// Now.
        to: Size,
    },
    /// The state of the crew, or more of it.
    State {
        /// Before; nothing where it had none.
        from: Option<StateWant>,
        /// Now.
        to: StateWant,
    },
    /// Children and waits, or more children.
    Tasks {
        /// Before; nothing where it had none.
        from: Option<TasksWant>,
        /// Now.
        to: TasksWant,
    },
    /// A topic on which it did not send messages before.
    Send {
        /// The topics of before.
        from: BTreeSet<Topic>,
        /// The one that they do not cover.
        to: Topic,
    },
    /// A topic that it did not hear before.
    Receive {
        /// The topics of before.
        from: BTreeSet<Topic>,
        /// The one that they do not cover.
        to: Topic,
    },
    /// A larger tier, and with it all the limits that no manifest names.
    Tier {
        /// Before.
        from: Tier,
        /// Now.
        to: Tier,
    },
    /// More memory.
    Memory {
        /// Before.
        from: Size,
        /// Now.
        to: Size,
    },
    /// More fuel per attempt.
    Fuel {
        /// Before.
        from: Fuel,
        /// Now.
        to: Fuel,
    },
    /// A later deadline.
    Deadline {
        /// Before.
        from: Millis,
        /// Now.
        to: Millis,
    },
    /// An interface that was not imported, or one in another version than a patch.
    Import {
        /// The versions of it that were imported.
        from: BTreeSet<String>,
        /// The interface with its version, without the patch.
        to: String,
    },
}

/// A difference between two releases that is no widening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// What going back would widen: it is no longer asked for.
    Narrower {
        /// From the newer release to the older.
        back: Widening,
    },
    /// Something else that is said of the plugin.
    Other {
        /// What.
        what: &'static str,
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
}

/// All that `after` asks for beyond `before`. Empty exactly when `before` covers `after`.
#[must_use]
pub fn widenings(before: Asked<'_>, after: Asked<'_>) -> Vec<Widening> {
    let mut found = http(&before.0.wants.http, &after.0.wants.http);
    files(&before.0.wants.files, &after.0.wants.files, &mut found);
    durable(&before.0.wants, &after.0.wants, &mut found);
    sizes(before.0, after.0, &mut found);
    let imported = tracks(before.1);
    found.extend(
        tracks(after.1)
            .into_iter()
            .filter(|to| !imported.contains(to))
            .map(|to| Widening::Import {
                from: imported
                    .iter()
                    .filter(|from| interface(from) == interface(&to))
                    .cloned()
                    .collect(),
                to,
            }),
    );
    found
}

/// All the differences that [`widenings`] does not name.
#[must_use]
pub fn changes(before: Asked<'_>, after: Asked<'_>) -> Vec<Change> {
    let narrower = widenings(after, before)
        .into_iter()
        .map(|back| Change::Narrower { back });
    let (old, new) = (&before.0.plugin, &after.0.plugin);
    let roles = |asked: Asked<'_>| list(&asked.0.provides.roles);
    let others = [
        ("name", old.name.to_string(), new.name.to_string()),
        ("version", old.version.to_string(), new.version.to_string()),
        ("description", old.description.clone(), new.description.clone()),
        ("licence", old.license.clone(), new.license.clone()),
        ("roles", roles(before), roles(after)),
    ];
    let others = others
        .into_iter()
        .filter(|(_, from, to)| from != to)
        .map(|(what, from, to)| Change::Other { what, from, to });
    narrower.chain(others).collect()
}

/// One method, at one host, beneath one path: the grain in which HTTP wants are compared, so that it does not matter how they are grouped.
type Grain<'a> = (&'a Host, &'a PathPrefix, Method);

/// A set of grains permits no more than its members do one by one: a wildcard stands for more names than finitely many other hosts can cover,
/// and a path prefix contains itself, which only a prefix that covers all of it contains. So comparing member with member is exact.
fn covered(grain: &Grain<'_>, by: &BTreeSet<Grain<'_>>) -> bool {
    by.iter().any(|wide| covers(wide, grain))
}

fn covers(wide: &Grain<'_>, narrow: &Grain<'_>) -> bool {
    wide.2 == narrow.2 && wide.0.covers(narrow.0) && wide.1.covers(narrow.1)
}

/// The grains of some wants, without those that others of them cover.
fn grains(wants: &BTreeSet<HttpWant>) -> BTreeSet<Grain<'_>> {
    let all: BTreeSet<Grain<'_>> = wants
        .iter()
        .flat_map(|want| want.methods.iter().map(|method| (&want.host, &want.path, method)))
        .collect();
    let needed = |grain: &&Grain<'_>| !all.iter().any(|other| other != *grain && covers(other, grain));
    all.iter().filter(needed).copied().collect()
}

fn http(before: &BTreeSet<HttpWant>, after: &BTreeSet<HttpWant>) -> Vec<Widening> {
    let before = grains(before);
    let mut fresh: BTreeMap<(&Host, &PathPrefix), BTreeSet<Method>> = BTreeMap::new();
    for (host, path, method) in grains(after).into_iter().filter(|grain| !covered(grain, &before)) {
        fresh.entry((host, path)).or_default().insert(method);
    }
    let mut found = Vec::new();
    for ((host, path), methods) in fresh {
        let known: BTreeSet<&Grain<'_>> = before.iter().filter(|grain| grain.0.covers(host)).collect();
        let (old, new): (BTreeSet<Method>, BTreeSet<Method>) = methods
            .into_iter()
            .partition(|method| known.iter().any(|grain| grain.2 == *method));
        if let Ok(to) = Methods::try_from(new) {
            let (host, path) = (host.clone(), path.clone());
            found.push(if known.is_empty() {
                let near = |other: &&Host| host.covers(other) || host.same_name(other);
                let from = before.iter().map(|grain| grain.0).filter(near).cloned().collect();
                let methods = to;
                let to = HttpWant { host, methods, path };
                Widening::Host { from, to }
            } else {
                let from = known.iter().map(|grain| grain.2).collect();
                Widening::Method { host, from, to, path }
            });
        }
        if let Ok(methods) = Methods::try_from(old) {
            let same = known.iter().filter(|grain| methods.contains(grain.2));
            found.push(Widening::Path {
                host: host.clone(),
                from: same.map(|grain| grain.1.clone()).collect(),
                to: path.clone(),
                methods,
            });
        }
    }
    found
}

fn files(before: &[FileWant], after: &[FileWant], found: &mut Vec<Widening>) {
    let after: BTreeMap<&GuestPath, Access> = after.iter().map(|want| (&want.mount, want.access)).collect();
    for (mount, access) in after {
        let mount = mount.clone();
        match before.iter().find(|want| want.mount == mount).map(|want| want.access) {
            None => found.push(Widening::Mount {
                to: FileWant { mount, access },
            }),
            Some(Access::Read) if access == Access::Write => found.push(Widening::Write { mount }),
            Some(_) => {}
        }
    }
}

/// State and children: having none of them is less than having zero.
fn durable(before: &Wants, after: &Wants, found: &mut Vec<Widening>) {
    let state = after.state.filter(|_| after.state > before.state);
    found.extend(state.map(|to| Widening::State { from: before.state, to }));
    let tasks = after.tasks.filter(|_| after.tasks > before.tasks);
    found.extend(tasks.map(|to| Widening::Tasks { from: before.tasks, to }));
    messages(before.messages.as_ref(), after.messages.as_ref(), found);
}

/// A topic is compared with those of before one by one. Several narrow ones together may have all subjects of a wide one and are not seen to: a person
/// is asked once too often, never once too rarely.
fn messages(before: Option<&Topics>, after: Option<&Topics>, found: &mut Vec<Widening>) {
    let none = Topics::default();
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    found.extend(before.beyond(after).into_iter().map(|(send, to)| match send {
        true => Widening::Send {
            from: before.send.clone(),
            to: to.clone(),
        },
        false => Widening::Receive {
            from: before.receive.clone(),
            to: to.clone(),
        },
    }));
}

/// The limits under which a plugin runs where nobody narrows them.
fn limits(manifest: &Manifest) -> Limits {
    manifest
        .limits
        .narrow(manifest.limits.tier.unwrap_or_default().limits())
}

fn sizes(before: &Manifest, after: &Manifest, found: &mut Vec<Widening>) {
    fn more<T: PartialOrd>(from: T, to: T, widening: fn(T, T) -> Widening) -> Option<Widening> {
        (to > from).then(|| widening(from, to))
    }
    let (old, new) = (limits(before), limits(after));
    let (before, after) = (&before.wants, &after.wants);
    let all = [
        more(before.workspace, after.workspace, |from, to| Widening::Workspace {
            from,
            to,
        }),
        more(before.artifacts, after.artifacts, |from, to| Widening::Artifacts {
            from,
            to,
        }),
        more(old.tier, new.tier, |from, to| Widening::Tier { from, to }),
        more(old.memory, new.memory, |from, to| Widening::Memory { from, to }),
        more(old.fuel, new.fuel, |from, to| Widening::Fuel { from, to }),
        more(old.deadline, new.deadline, |from, to| Widening::Deadline { from, to }),
    ];
    found.extend(all.into_iter().flatten());
}

/// Interfaces with their versions up to what is compatible: a patch adds nothing that could be called.
fn tracks(imports: &[String]) -> BTreeSet<String> {
    imports.iter().map(|import| track(import)).collect()
}

fn track(import: &str) -> String {
    let parsed = import
        .split_once('@')
        .and_then(|(name, version)| Some((name, semver::Version::parse(version).ok()?)));
    match parsed {
        Some((name, version)) if version.pre.is_empty() => format!("{name}@{}.{}", version.major, version.minor),
        // A pre-release promises nothing to the next one; what has no version is only equal to itself.
        _ => import.to_owned(),
    }
}

fn interface(import: &str) -> &str {
    import.split_once('@').map_or(import, |(name, _)| name)
}

fn list<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(", ")
}

impl Widening {
    /// What is asked for.
    fn thing(&self) -> String {
        match self {
            Widening::Host { to, .. } => to.to_string(),
            Widening::Method { host, to, path, .. } => format!("{to} with {} beneath {path}", host.in_words()),
            Widening::Path { host, methods, to, .. } => format!("{methods} with {} beneath {to}", host.in_words()),
            Widening::Mount { to } => to.to_string(),
            Widening::Write { mount } => format!("write files beneath {mount}"),
            Widening::Workspace { to, .. } => format!("{to} of scratch files in /workspace"),
            Widening::Artifacts { to, .. } => format!("{to} of artifacts per attempt"),
            Widening::State { to, .. } => to.to_string(),
            Widening::Tasks { to, .. } => to.to_string(),
            Widening::Send { to, .. } => format!("send messages to its crew on {to}"),
            Widening::Receive { to, .. } => format!("receive messages of its crew on {to}"),
            Widening::Tier { to, .. } => format!("the tier `{to}`"),
            Widening::Memory { to, .. } => format!("{to} of memory"),
            Widening::Fuel { to, .. } => format!("{to} of fuel per attempt"),
            Widening::Deadline { to, .. } => format!("a deadline of {to} per attempt"),
            Widening::Import { to, .. } => match Capability::of_interface(to) {
                Some(capability) => format!("import {to}: {}", capability.means()),
                None => format!("import {to}"),
            },
        }
    }

    /// What there is of it in the other release; empty for nothing.
    fn other(&self) -> String {
        let size = |size: &Size| {
            if *size == Size(0) {
                "none".to_owned()
            } else {
                size.to_string()
            }
        };
        match self {
            Widening::Host { from, .. } => list(from),
            Widening::Method { from, .. } => list(from),
            Widening::Path { from, .. } => list(from),
            Widening::Mount { .. } => String::new(),
            Widening::Write { .. } => "read only".to_owned(),
            Widening::Workspace { from, .. } | Widening::Artifacts { from, .. } => size(from),
            Widening::State { from, .. } => match from {
                None => "none".to_owned(),
                Some(StateWant { quota: Size(0) }) => "read only".to_owned(),
                Some(StateWant { quota }) => quota.to_string(),
            },
            Widening::Tasks { from, .. } => match from {
                None => "none".to_owned(),
                Some(TasksWant { children: 0 }) => "wait only".to_owned(),
                Some(TasksWant { children }) => children.to_string(),
            },
            Widening::Send { from, .. } | Widening::Receive { from, .. } => match from.is_empty() {
                true => "none".to_owned(),
                false => list(from),
            },
            Widening::Tier { from, .. } => from.to_string(),
            Widening::Memory { from, .. } => from.to_string(),
            Widening::Fuel { from, .. } => from.to_string(),
            Widening::Deadline { from, .. } => from.to_string(),
            Widening::Import { from, .. } => list(from),
        }
    }

    fn told(&self, f: &mut fmt::Formatter<'_>, other: &str) -> fmt::Result {
        f.write_str(&self.thing())?;
        match self.other() {
            none if none.is_empty() => Ok(()),
            there => write!(f, " ({other}: {there})"),
        }
    }
}

impl fmt::Display for Widening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told(f, "before")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Narrower { back } => {
                f.write_str("no longer ")?;
                back.told(f, "now")
            }
            Change::Other { what, from, to } => write!(f, "{what}: {} (before: {})", said(to), said(from)),
        }
    }
}

fn said(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}
