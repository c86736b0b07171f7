//! What an agent may reach: want ∩ grant ∩ ceiling, computed here and nowhere else. Asking for more than the plugin's own manifest wants is
//! refused by name, never cut silently.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    capability::{Capability, GrantWord},
    limits::{Limits, Tier, Wish},
    manifest::{Access, GuestPath, Manifest, StateWant, TasksWant, Wants},
    message::Topics,
    metadata::{self, Publisher},
    quantity::Size,
    reason::Reason,
};

/// What the operator of the host allows at most.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// The largest tier; `medium` unless configured.
    #[n(0)]
    pub tier: Tier,
    /// Whether mounts may be granted writable; false unless configured.
    #[n(1)]
    pub writable_mounts: bool,
}

impl Default for Ceiling {
    fn default() -> Self {
        Ceiling {
            tier: Tier::Medium,
            writable_mounts: false,
        }
    }
}

/// A directory of the host that a crew offers its agents.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where agents see it.
    #[n(0)]
    pub guest: GuestPath,
    /// The directory: absolute once the command line has resolved it.
    #[n(1)]
    pub host: String,
    /// The most that an agent may do there; `read` unless said.
    #[n(2)]
    #[serde(default = "read")]
    pub access: Access,
}

fn read() -> Access {
    Access::Read
}

/// What one agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Effective {
    /// Directories that it sees, besides `/workspace`.
    #[n(0)]
    pub mounts: Vec<Mount>,
    /// Bytes of its `/workspace`; zero is none.
    #[n(1)]
    pub workspace: Size,
    /// Bytes of artifacts that one attempt may write; zero is none.
    #[n(2)]
    pub artifacts: Size,
    /// Environment variables: only those that the crew lists.
    #[n(3)]
    pub env: BTreeMap<String, String>,
    /// Its limits.
    #[n(4)]
    pub limits: Limits,
    /// The capabilities among `skep:agent/*`.
    #[n(5)]
    pub word: GrantWord,
    /// Bytes that the crew's state may hold for it still to be let write.
    #[n(6)]
    #[cbor(default)]
    #[serde(default)]
    pub state: Size,
    /// Children that one run of a task may spawn.
    #[n(7)]
    #[cbor(default)]
    #[serde(default)]
    pub children: u32,
    /// Topics on which it may send messages, and those that it hears.
    #[n(80)]
    #[cbor(default)]
    #[serde(default)]
    pub messages: Topics,
}

/// A grant that cannot be given, or an import without one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The reason code.
    pub reason: Reason,
    /// Which key, what it asks and what would allow it.
    pub message: String,
}

impl Refused {
    fn new(reason: Reason, message: String) -> Self {
        Refused { reason, message }
    }
}

/// What an agent gets: the least of what its plugin wants, what its crew grants and what the host's ceiling allows.
///
/// # Errors
/// When the crew grants more than the plugin wants, grants a mount that the crew does not have, or passes the ceiling.
pub fn effective(
    manifest: &Manifest,
    grants: &Wants,
    mounts: &[Mount],
    env: &BTreeMap<String, String>,
    wish: &Wish,
    ceiling: &Ceiling,
) -> Result<Effective, Refused> {
    let wants = &manifest.wants;
    if !grants.http.is_empty() {
        let message = "grants.http cannot be given: this host performs no HTTP yet; leave the key out";
        return Err(Refused::new(Reason::CapabilityDenied, message.to_owned()));
    }
    let over = |key: &str, granted: Size, wanted: Size| {
        let message =
            format!("grants.{key} = \"{granted}\" is more than the plugin wants (\"{wanted}\"); grant at most that");
        (granted > wanted).then(|| Refused::new(Reason::CapabilityDenied, message))
    };
    if let Some(refused) = over("workspace", grants.workspace, wants.workspace) {
        return Err(refused);
    }
    if let Some(refused) = over("artifacts", grants.artifacts, wants.artifacts) {
        return Err(refused);
    }
    let (granted, wanted) = (
        grants.state.map(|state| state.quota),
        wants.state.map(|state| state.quota),
    );
    if granted > wanted {
        let message = match wanted {
            Some(wanted) => {
                format!("grants.state.quota is more than the plugin wants (\"{wanted}\"); grant at most that")
            }
            None => "grants.state: the plugin does not want it; leave the key out".to_owned(),
        };
        return Err(Refused::new(Reason::CapabilityDenied, message));
    }
    let (children, wanted) = (
        grants.tasks.map(|tasks| tasks.children),
        wants.tasks.map(|tasks| tasks.children),
    );
    if children > wanted {
        let message = match wanted {
            Some(wanted) => {
                format!("grants.tasks.children is more than the plugin wants ({wanted}); grant at most that")
            }
            None => "grants.tasks: the plugin does not want it; leave the key out".to_owned(),
        };
        return Err(Refused::new(Reason::CapabilityDenied, message));
    }
    let topics = topics(wants.messages.as_ref(), grants.messages.as_ref())?;
    if wish.tier.is_some_and(|tier| tier > ceiling.tier) {
        let message = format!(
            "limits.tier passes the host's ceiling `{}`; raise `ceiling.tier` in host.toml",
            ceiling.tier
        );
        return Err(Refused::new(Reason::CapabilityDenied, message));
    }
    let mounts = grants
        .files
        .iter()
        .map(|grant| mount(wants, mounts, grant, ceiling))
        .collect::<Result<Vec<_>, _>>()?;
    let tier = manifest.limits.tier.unwrap_or_default().min(ceiling.tier);
    let limits = wish.narrow(manifest.limits.narrow(tier.limits()));
    let held = Capability::ALL.iter().filter(|capability| grants.covers(**capability));
    Ok(Effective {
        mounts,
        workspace: grants.workspace.min(limits.workspace),
        artifacts: grants.artifacts,
        env: env.clone(),
        limits,
        word: held.fold(GrantWord::free(), |word, capability| word.with(*capability)),
        state: granted.unwrap_or_default(),
        children: children.unwrap_or_default(),
        messages: topics,
    })
}

/// The topics of a grant, if one of the plugin's own covers each.
fn topics(wanted: Option<&Topics>, granted: Option<&Topics>) -> Result<Topics, Refused> {
    let Some(granted) = granted else {
        return Ok(Topics::default());
    };
    let refuse = |message| Err(Refused::new(Reason::CapabilityDenied, message));
    let Some(wanted) = wanted else {
        return refuse("grants.messages: the plugin does not want it; leave the key out".to_owned());
    };
    match wanted.beyond(granted).first() {
        None => Ok(granted.clone()),
        Some((send, topic)) => {
            let list = if *send { "send" } else { "receive" };
            refuse(format!(
                "grants.messages.{list} has `{topic}`, which no topic that the plugin wants covers; leave it out or narrow it"
            ))
        }
    }
}

/// One mount, if the plugin wants it, the crew has it and the ceiling allows it.
fn mount(
    wants: &Wants,
    mounts: &[Mount],
    grant: &crate::manifest::FileWant,
    ceiling: &Ceiling,
) -> Result<Mount, Refused> {
    let path = &grant.mount;
    let refuse = |message| Err(Refused::new(Reason::CapabilityDenied, message));
    let Some(want) = wants.files.iter().find(|want| want.mount == *path) else {
        return refuse(format!("grants.files has `{path}`, which the plugin does not want"));
    };
    let Some(mount) = mounts.iter().find(|mount| mount.guest == *path) else {
        return refuse(format!(
            "grants.files has `{path}`, but no [[mount]] of the crew has `guest = \"{path}\"`"
        ));
    };
    let allowed = want.access.min(mount.access);
    if grant.access > allowed {
        return refuse(format!(
            "grants.files asks to write `{path}`, but the plugin or the [[mount]] allows reading only"
        ));
    }
    if grant.access == Access::Write && !ceiling.writable_mounts {
        return refuse(format!(
            "writing `{path}` passes the host's ceiling; set `ceiling.writable_mounts = true` in host.toml"
        ));
    }
    Ok(Mount {
        guest: path.clone(),
        host: mount.host.clone(),
        access: grant.access,
    })
}

/// The first gate: refuses a component that imports a capability which was not granted, before anything is instantiated.
///
/// # Errors
/// Names the interface and the grant that would allow it.
pub fn gate<'a>(imports: impl IntoIterator<Item = &'a str>, word: GrantWord) -> Result<(), Refused> {
    let missing: BTreeSet<Capability> = imports
        .into_iter()
        .filter_map(Capability::of_interface)
        .filter(|capability| !word.holds(*capability))
        .collect();
    match missing
        .first()
        .and_then(|capability| Some((capability, capability.grant()?)))
    {
        Some((capability, grant)) => Err(Refused::new(
            Reason::CapabilityDenied,
            format!(
                "the component imports `{}`, which is not granted; `grants = {{ {grant} }}` would allow it",
                capability.interface()
            ),
        )),
        None => Ok(()),
    }
}

/// Refuses a manifest that the component contradicts: an import that no want covers.
///
/// # Errors
/// Names the interface and the key of `[wants]` that is missing.
pub fn agrees<'a>(imports: impl IntoIterator<Item = &'a str>, manifest: &Manifest) -> Result<(), Refused> {
    let uncovered = |capability: &Capability| !manifest.wants.covers(*capability);
    match imports.into_iter().filter_map(Capability::of_interface).find(uncovered) {
        Some(capability) => Err(Refused::new(
            Reason::InvalidManifest,
            format!(
                "the component imports `{}`, but its manifest does not want it; add `{}` to [wants] in skep.toml",
                capability.interface(),
                capability.grant().unwrap_or_default()
            ),
        )),
        None => Ok(()),
    }
}

/// Refuses a manifest that wants more than its publisher may be given on this host. A tier that is not named is the default one.
///
/// # Errors
/// [`Reason::CeilingExceeded`]: names the key, what it wants and what would allow it.
pub fn within(manifest: &Manifest, ceiling: &metadata::Ceiling) -> Result<(), Refused> {
    let wants = &manifest.wants;
    let tier = manifest.limits.tier.unwrap_or_default();
    let refuse = |key: &str, wanted: String, allows: String| {
        let publisher = manifest.plugin.name.publisher();
        Err(Refused::new(
            Reason::CeilingExceeded,
            format!(
                "{key} = {wanted} passes the ceiling of the publisher `{publisher}`; `{allows}` in it would allow that"
            ),
        ))
    };
    if tier > ceiling.tier {
        return refuse("limits.tier", format!("\"{tier}\""), format!("tier = \"{tier}\""));
    }
    if let Some(want) = wants.files.iter().find(|want| Some(want.access) > ceiling.files) {
        let access = want.access;
        let wanted = format!("[{{ mount = \"{}\", access = \"{access}\" }}]", want.mount);
        return refuse("wants.files", wanted, format!("files = \"{access}\""));
    }
    for (key, wanted, most) in [
        ("workspace", wants.workspace, ceiling.workspace),
        ("artifacts", wants.artifacts, ceiling.artifacts),
    ] {
        if wanted > most {
            let quoted = format!("\"{wanted}\"");
            return refuse(&format!("wants.{key}"), quoted.clone(), format!("{key} = {quoted}"));
        }
    }
    if let Some(StateWant { quota }) = wants.state.filter(|want| want.quota > ceiling.state) {
        return refuse(
            "wants.state.quota",
            format!("\"{quota}\""),
            format!("state = \"{quota}\""),
        );
    }
    if let Some(TasksWant { children }) = wants.tasks.filter(|want| want.children > ceiling.children) {
        return refuse(
            "wants.tasks.children",
            children.to_string(),
            format!("children = {children}"),
        );
    }
    match wants.http.first() {
        Some(want) if !ceiling.http => {
            let wanted = format!("[{{ host = \"{}\" }}]", want.host);
            refuse("wants.http", wanted, "http = true".to_owned())
        }
        _ => Ok(()),
    }
}

/// How many of a publisher's release keys must sign a plugin: its threshold, and two where the plugin wants a wildcard host or to write files
/// outside its `/workspace`, because one stolen key must not reach that far.
#[must_use]
pub fn signatures_needed(manifest: &Manifest, publisher: &Publisher) -> u32 {
    let wants = &manifest.wants;
    let far = wants.http.iter().any(|want| want.host.is_wildcard())
        || wants.files.iter().any(|want| want.access == Access::Write);
    publisher.release.threshold.max(if far { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: &str = r#"
        [plugin]
        name = "acme/scanner"
        version = "1.0.0"
        [wants]
        files = [{ mount = "/input", access = "read" }]
        artifacts = "1MiB"
        [limits]
        tier = "small"
    "#;

    fn mounts(access: Access) -> Vec<Mount> {
        vec![Mount {
            guest: "/input".parse().unwrap(),
            host: "/srv".into(),
            access,
        }]
    }

    fn check(grants: &str, access: Access, ceiling: &Ceiling) -> Result<Effective, String> {
        let manifest = Manifest::parse(PLUGIN).unwrap();
        let grants: Wants = toml::from_str(grants).unwrap();
        effective(
            &manifest,
            &grants,
            &mounts(access),
            &BTreeMap::new(),
            &Wish::default(),
            ceiling,
        )
        .map_err(|refused| refused.message)
    }

    #[test]
    fn nothing_is_held_that_was_not_granted() {
        let held = check("", Access::Write, &Ceiling::default()).unwrap();
        assert_eq!(
            (held.mounts, held.artifacts, held.word),
            (vec![], Size(0), GrantWord::free())
        );
        assert_eq!(held.limits, Tier::Small.limits());
    }

    #[test]
    fn what_was_granted_is_held() {
        let held = check(
            "artifacts = '1KiB'\nfiles = [{mount = '/input', access = 'read'}]",
            Access::Write,
            &Ceiling::default(),
        );
        let held = held.unwrap();
        assert_eq!(
            (held.artifacts, held.mounts.as_slice()),
            (Size(1024), mounts(Access::Read).as_slice())
        );
        assert!(held.word.holds(Capability::Artifacts));
    }

    #[test]
    fn an_over_wide_grant_is_refused_by_name() {
        let open = Ceiling {
            writable_mounts: true,
            ..Ceiling::default()
        };
        for (grants, named) in [
            ("artifacts = '2MiB'", "grants.artifacts"),
            ("workspace = '1B'", "grants.workspace"),
            ("files = [{mount = '/etc', access = 'read'}]", "/etc"),
            ("files = [{mount = '/input', access = 'write'}]", "reading only"),
        ] {
            let message = check(grants, Access::Write, &open).unwrap_err();
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn the_gate_names_the_interface_and_the_grant() {
        let imports = [
            "skep:agent/log@0.1.0",
            "skep:agent/artifacts@0.1.0",
            "wasi:io/poll@0.2.6",
        ];
        let message = gate(imports, GrantWord::free()).unwrap_err().message;
        assert!(
            message.contains("skep:agent/artifacts") && message.contains("artifacts = "),
            "{message}"
        );
        assert!(gate(imports, GrantWord::free().with(Capability::Artifacts)).is_ok());
    }

    #[test]
    fn http_is_refused_until_the_host_performs_it() {
        let message = check("http = [{host = 'a.example'}]", Access::Read, &Ceiling::default()).unwrap_err();
        assert!(
            message.contains("grants.http") && message.contains("no HTTP yet"),
            "{message}"
        );
    }

    fn wanting(rest: &str) -> Manifest {
        Manifest::parse(&format!("[plugin]\nname = 'acme/x'\nversion = '1.0.0'\n{rest}")).unwrap()
    }

    #[test]
    fn a_publisher_is_given_no_more_than_its_ceiling() {
        let least = metadata::Ceiling {
            tier: Tier::Small,
            files: None,
            workspace: Size(0),
            artifacts: Size(0),
            http: false,
            state: Size(0),
            children: 0,
        };
        let nothing = "[limits]\ntier = 'small'\n[wants]\nstate = { quota = '0' }\ntasks = { children = 0 }";
        assert!(within(&wanting("[limits]\ntier = 'small'"), &least).is_ok());
        assert!(within(&wanting(nothing), &least).is_ok());
        for (rest, key, allows) in [
            ("", "limits.tier = \"medium\"", "`tier = \"medium\"`"),
            ("[limits]\ntier = 'large'", "limits.tier", "`tier = \"large\"`"),
            (
                "[limits]\ntier = 'small'\n[wants]\nworkspace = '1KiB'",
                "wants.workspace",
                "`workspace = \"1KiB\"`",
            ),
            (
                "[limits]\ntier = 'small'\n[wants]\nartifacts = '1B'",
                "wants.artifacts",
                "`artifacts = \"1B\"`",
            ),
            (
                "[limits]\ntier = 'small'\n[wants]\nstate = { quota = '1KiB' }",
                "wants.state.quota = \"1KiB\"",
                "`state = \"1KiB\"`",
            ),
            (
                "[limits]\ntier = 'small'\n[wants]\ntasks = { children = 1 }",
                "wants.tasks.children = 1",
                "`children = 1`",
            ),
            (
                "[limits]\ntier = 'small'\n[wants]\nhttp = [{host = 'A.b'}]",
                "\"a.b\"",
                "`http = true`",
            ),
            (
                "[limits]\ntier = 'small'\n[wants]\nfiles = [{mount = '/i', access = 'read'}]",
                "wants.files",
                "`files = \"read\"`",
            ),
        ] {
            let refused = within(&wanting(rest), &least).unwrap_err();
            assert_eq!(refused.reason, Reason::CeilingExceeded);
            assert!(
                refused.message.contains(key) && refused.message.contains(allows),
                "{}",
                refused.message
            );
        }
        let writing = wanting("[wants]\nfiles = [{mount = '/i', access = 'read'}, {mount = '/o', access = 'write'}]");
        let refused = within(&writing, &metadata::Ceiling::default()).unwrap_err();
        assert!(
            refused.message.contains("/o") && refused.message.contains("`files = \"write\"`"),
            "{}",
            refused.message
        );
        let most = metadata::Ceiling {
            files: Some(Access::Write),
            ..metadata::Ceiling::default()
        };
        assert!(within(&writing, &most).is_ok());
    }

    #[test]
    fn what_reaches_far_takes_two_signatures() {
        let publisher = |threshold| Publisher {
            name: "acme".parse().unwrap(),
            release: metadata::Keys {
                keys: BTreeSet::new(),
                threshold,
            },
            recovery: None,
            plugins: None,
            ceiling: metadata::Ceiling::default(),
            expires: crate::quantity::Time(0),
        };
        for (rest, needed) in [
            ("", 1),
            (
                "[wants]\nhttp = [{host = 'a.example.com'}]\nfiles = [{mount = '/i', access = 'read'}]\nworkspace = '1MiB'",
                1,
            ),
            ("[wants]\nhttp = [{host = '*.example.com'}]", 2),
            ("[wants]\nfiles = [{mount = '/i', access = 'write'}]", 2),
        ] {
            assert_eq!(signatures_needed(&wanting(rest), &publisher(1)), needed, "{rest}");
            assert_eq!(signatures_needed(&wanting(rest), &publisher(3)), 3, "{rest}");
        }
    }
}
