//! `skep key`: making keys, whom a host trusts to sign what, and taking trust back.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;
use skep::http::api::{
    key::{Key, NewPublisher, ResetTime, Revoke, Role, Trust},
    plugin::Revoked,
};
use skep::{clock::Clock, words};
use skep_rules::{
    id::Name,
    key::{KeyId, PublicKey},
    limits::{MAX_METADATA_ENVELOPE_BYTES, Tier},
    manifest::Access,
    metadata::{Ceiling, Keys},
    quantity::{Millis, Size},
    reason::Reason,
};

use super::{Context, plugin::told, session::Session};
use crate::{
    cli::Exit,
    failure::Failure,
    files,
    keys::{KeyFile, read_public},
    output::time,
};

/// `skep key …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key: NAME.key signs and stays with you, NAME.pub is for everyone
    New(New),
    /// Show whom the host trusts to sign what
    Ls,
    /// Trust keys for a publisher, or adopt a signed document of trust
    Trust(Box<TrustArgs>),
    /// Let a publisher change its keys, as its recovery key has signed it
    Rotate {
        /// The signed rotation
        #[arg(value_name = "FILE.json.sig")]
        file: PathBuf,
    },
    /// Revoke a key, or a publisher with all its keys: what they signed is ended at once. There is no way back
    Revoke {
        /// A key's name or its beginning (`key_…`), or a publisher's name
        #[arg(value_name = "KEY|PUBLISHER")]
        what: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Take this machine's clock for right again, after it stood in the future
    ResetTime {
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Arguments of `skep key new`.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// What to call the files; the publisher's name, for example
    name: Name,
    /// Put them there
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    public: PathBuf,
    key: PublicKey,
    id: KeyId,
    words: String,
}

/// Arguments of `skep key trust`.
#[derive(Debug, clap::Args)]
pub(crate) struct TrustArgs {
    /// Public keys that may sign its releases
    #[arg(value_name = "FILE.pub", required_unless_present_any = ["root", "index", "clock"])]
    keys: Vec<PathBuf>,
    /// The publisher: the first half of its plugins' names
    #[arg(long, value_name = "NAME", requires = "keys", required_unless_present_any = ["root", "index", "clock"])]
    publisher: Option<Name>,
    /// It may sign only this plugin: the second half of its name; give several for several
    #[arg(long = "plugin", value_name = "NAME", requires = "keys")]
    plugins: Vec<Name>,
    /// So many of its keys must sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: u32,
    /// Its offline key, which can change the others together with one of them
    #[arg(long, value_name = "FILE.pub", requires = "keys")]
    recovery: Option<PathBuf>,
    /// For so long, `400d` at most and when left out
    #[arg(long, value_name = "DURATION")]
    expires: Option<Millis>,
    /// The largest tier that its plugins may want
    #[arg(long, value_name = "TIER", requires = "keys")]
    tier: Option<Tier>,
    /// Its plugins may want to write to mounts
    #[arg(long, requires = "keys")]
    write: bool,
    /// Its plugins may want no mounts at all
    #[arg(long, requires = "keys", conflicts_with = "write")]
    no_files: bool,
    /// Its plugins may not want to speak HTTP
    #[arg(long, requires = "keys")]
    no_http: bool,
    /// The most scratch space that its plugins may want
    #[arg(long, value_name = "SIZE", requires = "keys")]
    workspace: Option<Size>,
    /// The most bytes of artifacts that its plugins may want
    #[arg(long, value_name = "SIZE", requires = "keys")]
    artifacts: Option<Size>,
    /// The most bytes of its crew's state that its plugins may want; 0 for reading it only
    #[arg(long, value_name = "SIZE", requires = "keys")]
    state: Option<Size>,
    /// The most children of one task that its plugins may want
    #[arg(long, value_name = "N", requires = "keys")]
    children: Option<u32>,
    /// Adopt a signed root instead: from then on only the next root says who is trusted
    #[arg(long, value_name = "FILE.json.sig", conflicts_with_all = ["keys", "index", "clock"])]
    root: Option<PathBuf>,
    /// Adopt a signed index instead: what is newest, and what is revoked
    #[arg(long, value_name = "FILE.json.sig", conflicts_with_all = ["keys", "clock"])]
    index: Option<PathBuf>,
    /// Adopt a signed clock instead: which index is the newest
    #[arg(long, value_name = "FILE.json.sig", conflicts_with = "keys")]
    clock: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::New(args) => return new(context, args),
        Command::Ls => {
            let session = Session::open(context, false)?;
            let trust: Trust = session.wait(session.client().get("/v1/keys"))?;
            context.output.one(&trust, || describe(&trust))?;
        }
        Command::Trust(args) => match (&args.root, &args.index, &args.clock) {
            (Some(file), _, _) => adopt(context, "/v1/keys/root", file)?,
            (_, Some(file), _) => adopt(context, "/v1/keys/index", file)?,
            (_, _, Some(file)) => adopt(context, "/v1/keys/clock", file)?,
            (None, None, None) => trust(context, args)?,
        },
        Command::Rotate { file } => adopt(context, "/v1/keys/rotation", file)?,
        Command::Revoke { what, reason } => {
            let session = Session::open(context, true)?;
            let client = session.client();
            let known: Trust = session.wait(client.get("/v1/keys"))?;
            let revoke = meant(&known, what, reason)?;
            session.confirm(&format!("revoke {what} for good"))?;
            let revoked: Revoked = session.wait(client.post("/v1/keys/revoke", &revoke, Duration::ZERO))?;
            context.output.one(&revoked, || told(&revoked))?;
        }
        Command::ResetTime { reason } => {
            let session = Session::open(context, true)?;
            let reset = ResetTime { reason: reason.clone() };
            let trust: Trust = session.wait(session.client().post("/v1/keys/time", &reset, Duration::ZERO))?;
            context
                .output
                .one(&trust, || format!("expiry is judged by {} now", time(trust.time)))?;
        }
    }
    Ok(Exit::Done)
}

fn new(context: &Context, args: &New) -> Result<Exit> {
    let made = KeyFile::create(&args.dir, &args.name)?;
    let key = made.key.public();
    let made = Made {
        public: made.path.with_extension("pub"),
        file: made.path,
        key,
        id: key.id(),
        words: words::of(key.id()),
    };
    context.output.one(&made, || {
        format!(
            "secret   {} (keep it to yourself, and a copy of it elsewhere)\npublic   {}\nkey      {}\nid       {}\nwords    {}\n",
            made.file.display(),
            made.public.display(),
            made.key,
            made.id,
            made.words
        )
    })?;
    Ok(Exit::Done)
}

/// Has a host adopt a signed document.
fn adopt(context: &Context, path: &str, file: &std::path::Path) -> Result<()> {
    let envelope = files::read(file, MAX_METADATA_ENVELOPE_BYTES as u64)?;
    let session = Session::open(context, true)?;
    let trust: Trust = session.wait(session.client().document(path, envelope))?;
    context.output.one(&trust, || describe(&trust))
}

/// The key or the publisher that a word means.
fn meant(trust: &Trust, what: &str, reason: &str) -> Result<Revoke> {
    let revoke = |key, publisher| {
        Ok(Revoke {
            key,
            publisher,
            reason: reason.to_owned(),
        })
    };
    if let Ok(key) = what.parse::<KeyId>() {
        return revoke(Some(key), None);
    }
    if !what.starts_with(KeyId::PREFIX) {
        let name = what
            .parse::<Name>()
            .map_err(|error| Failure::of(Reason::InvalidInput, error.to_string()))?;
        return revoke(None, Some(name));
    }
    let ids: BTreeSet<KeyId> = keys(trust)
        .map(|key| key.id)
        .filter(|id| id.to_string().starts_with(what))
        .collect();
    let mut ids = ids.into_iter();
    match (ids.next(), ids.next()) {
        (Some(key), None) => revoke(Some(key), None),
        (None, _) => Err(Failure::of(
            Reason::NotFound,
            format!("no key that is trusted here begins with `{what}`"),
        )
        .next("`skep key ls` lists them; one that is not trusted is revoked by its whole name")
        .into()),
        (Some(_), Some(_)) => {
            Err(Failure::of(Reason::InvalidInput, format!("more than one key begins with `{what}`")).into())
        }
    }
}

/// All keys that are trusted for anything.
fn keys(trust: &Trust) -> impl Iterator<Item = &Key> {
    let published = trust
        .publishers
        .iter()
        .flat_map(|publisher| publisher.release.keys.iter().chain(&publisher.recovery));
    let roles = trust
        .root
        .iter()
        .flat_map(|root| std::iter::once(&root.root).chain(&root.index).chain(&root.clock));
    published.chain(roles.flat_map(|role| &role.keys))
}

fn trust(context: &Context, args: &TrustArgs) -> Result<()> {
    let name = args.publisher.clone().context("--publisher is required with keys")?;
    let keys = args
        .keys
        .iter()
        .map(|file| read_public(file))
        .collect::<Result<BTreeSet<_>>>()?;
    let recovery = args.recovery.as_deref().map(read_public).transpose()?;
    let default = Ceiling::default();
    let publisher = NewPublisher {
        release: Keys {
            keys,
            threshold: args.threshold,
        },
        recovery,
        plugins: (!args.plugins.is_empty()).then(|| args.plugins.iter().cloned().collect()),
        ceiling: Ceiling {
            tier: args.tier.unwrap_or(default.tier),
            files: match (args.no_files, args.write) {
                (true, _) => None,
                (false, true) => Some(Access::Write),
                (false, false) => default.files,
            },
            workspace: args.workspace.unwrap_or(default.workspace),
            artifacts: args.artifacts.unwrap_or(default.artifacts),
            http: !args.no_http,
            state: args.state.unwrap_or(default.state),
            children: args.children.unwrap_or(default.children),
        },
        expires: args.expires.map(|life| Clock::system().now().after(life)),
        name,
    };
    let session = Session::open(context, true)?;
    for key in publisher.release.keys.iter().chain(&publisher.recovery) {
        // They are what the question is about.
        context
            .output
            .subject(&format!("{}\n  {}", key.id(), words::of(key.id())), true);
    }
    let name = &publisher.name;
    // Where nobody can be asked, the name on the command line is the name that was typed.
    let typed = session.ask(&format!(
        "compare the words with those that `{name}` tells you; type the publisher's name to trust it: "
    ))?;
    if typed.is_some_and(|typed| typed != name.as_str()) {
        let message = format!("not trusted: the publisher is `{name}`, and something else was typed");
        return Err(Failure::of(Reason::FirstContact, message)
            .next(format!("type `{name}`, if these are the words that it tells you"))
            .into());
    }
    let trust: Trust = session.wait(session.client().post("/v1/keys", &publisher, Duration::ZERO))?;
    context.output.one(&trust, || describe(&trust))
}

fn describe(trust: &Trust) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<12}{value}\n"));
    for publisher in &trust.publishers {
        let plugins = match &publisher.plugins {
            None => format!("{}/*", publisher.name),
            Some(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("{}/{name}", publisher.name)).collect();
                names.join(", ")
            }
        };
        line("publisher", &format!("{} may sign {plugins}", publisher.name));
        line("until", &time(publisher.expires));
        line("most", &most(&publisher.ceiling));
        role(&mut line, "keys", &publisher.release);
        if let Some(key) = &publisher.recovery {
            one(&mut line, "recovery", key);
        }
        line("", "");
    }
    if trust.publishers.is_empty() {
        line(
            "publishers",
            "none: nothing can be installed before one is trusted (`skep key trust`)",
        );
    }
    match &trust.root {
        None => line("root", "none: the operator's token says who is trusted"),
        Some(root) => {
            line("root", &format!("{} until {}", root.version, time(root.expires)));
            role(&mut line, "", &root.root);
            for (name, keys) in [("index keys", &root.index), ("clock keys", &root.clock)] {
                if let Some(keys) = keys {
                    role(&mut line, name, keys);
                }
            }
        }
    }
    for (name, document) in [("index", &trust.index), ("clock", &trust.clock)] {
        if let Some(document) = document {
            let over = if document.expires <= trust.time {
                "! expired"
            } else {
                "until"
            };
            line(name, &format!("{} {over} {}", document.version, time(document.expires)));
        }
    }
    let revoked = &trust.revoked;
    line(
        "revoked",
        &format!(
            "{} keys, {} files, {} plugins below a release",
            revoked.keys.len(),
            revoked.digests.len(),
            revoked.minimum.len()
        ),
    );
    if trust.time > trust.clock_time {
        text.push_str(&format!(
            "! the clock stands before {}, which was seen; expiry is judged by that (`skep key reset-time`)\n",
            time(trust.time)
        ));
    }
    text
}

fn role(line: &mut impl FnMut(&str, &str), name: &str, role: &Role) {
    line(name, &format!("{} of {} must sign", role.threshold, role.keys.len()));
    for key in &role.keys {
        one(line, "", key);
    }
}

fn one(line: &mut impl FnMut(&str, &str), name: &str, key: &Key) {
    let revoked = if key.revoked { " REVOKED" } else { "" };
    line(name, &format!("{}{revoked}", key.id));
    line("", &format!("  {}", key.words));
}

/// A ceiling in words.
fn most(ceiling: &Ceiling) -> String {
    let files = match ceiling.files {
        None => "no mounts",
        Some(Access::Read) => "read mounts",
        Some(Access::Write) => "write mounts",
    };
    let http = if ceiling.http { "HTTP to named hosts" } else { "no HTTP" };
    format!(
        "tier {}, {files}, {} of workspace, {} of artifacts, {} of state, {} children, {http}",
        ceiling.tier, ceiling.workspace, ceiling.artifacts, ceiling.state, ceiling.children
    )
}
