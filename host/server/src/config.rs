//! The configuration of a host and where each value came from: flags, then `SKEP_*` in the environment, then `host.toml`, then the user's
//! file, then defaults. Unknown keys refuse to start. Secrets are never values here.
//!
//! This is the only place that reads the process environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider, Source,
    error::Kind,
    providers::Serialized,
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Serialize};
use skep::{
    telemetry::DEFAULT_LEVEL,
    webhook::{self, Webhook},
};
use skep_rules::{audit, grant::Ceiling, limits::MAX_WEBHOOKS, reason::Reason};

use crate::{
    cli::Exit,
    failure::{Failure, locate},
};

/// The configuration of a host. Every key is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the host keeps everything.
    pub(crate) data_dir: PathBuf,
    /// Where it listens; loopback unless said. Port 0 picks a free one.
    pub(crate) listen: SocketAddr,
    /// Attempts that are live at once.
    pub(crate) slots: u32,
    /// Threads that run guests; 0 is as many as there are cores.
    pub(crate) guest_threads: usize,
    /// The most that any agent may be granted.
    pub(crate) ceiling: Ceiling,
    /// The host's own log.
    pub(crate) log: Log,
    /// Who is told of what happens, by name.
    pub(crate) webhooks: BTreeMap<String, Hook>,
}

/// `[webhooks.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hook {
    /// Whom to call; a reference where the address itself is a secret.
    url: Text,
    /// What calls are signed with.
    #[serde(default)]
    secret: Option<Reference>,
    /// Of what it is told, as the audit log has it: `approval-asked`, `task-ended`.
    #[serde(default)]
    events: Option<BTreeSet<audit::Kind>>,
    /// `json` or `slack`.
    #[serde(default)]
    format: webhook::Format,
    /// A PEM file with the certificates that may vouch for it.
    #[serde(default)]
    ca: Option<PathBuf>,
}

/// A value, or where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Elsewhere(Reference),
}

/// Where a secret is: `{ env = "NAME" }` or `{ file = "PATH" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reference {
    /// A variable of the environment.
    Env(String),
    /// A file that holds nothing else.
    File(PathBuf),
}

impl Reference {
    fn read(&self, environment: &Environment) -> Result<String, String> {
        match self {
            Reference::Env(name) => {
                let value = environment.get(name).map(ToOwned::to_owned);
                value.ok_or_else(|| format!("the variable {name} is not set"))
            }
            Reference::File(path) => {
                std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
            }
        }
    }
}

impl Hook {
    fn resolve(&self, name: &str, environment: &Environment) -> Result<Webhook, String> {
        let of = |key: &'static str| move |why: String| format!("{key}: {why}");
        let secret = self.secret.as_ref().map(|secret| secret.read(environment));
        let file =
            |path: &PathBuf| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        let setup = webhook::Setup {
            url: match &self.url {
                Text::Plain(url) => url.clone(),
                Text::Elsewhere(reference) => reference.read(environment).map_err(of("url"))?,
            },
            secret: secret.transpose().map_err(of("secret"))?,
            events: self.events.clone(),
            format: self.format,
            roots: self.ca.as_ref().map(file).transpose().map_err(of("ca"))?,
        };
        Webhook::new(name, setup)
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// `text`, `json`, or `auto`: text on a terminal, JSON elsewhere.
    pub(crate) format: LogFormat,
    /// A filter as `tracing` reads it: `info`, `skep=debug,warn`.
    pub(crate) level: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON document per line.
    Json,
}

impl Config {
    /// What holds where nothing is configured.
    fn defaults(data_dir: PathBuf) -> Self {
        Config {
            data_dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 7_410)),
            slots: 1_000,
            guest_threads: 0,
            ceiling: Ceiling::default(),
            log: Log {
                format: LogFormat::Auto,
                level: DEFAULT_LEVEL.to_owned(),
            },
            webhooks: BTreeMap::new(),
        }
    }
}

/// What the command line says about a host; `None` leaves a key to the layers below.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Flags {
    /// `--data-dir`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    /// `--listen`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    /// `--slots`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slots: Option<u32>,
}

/// The process environment, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

/// Variables that speak to the command line rather than to a host.
const NOT_KEYS: &[&str] = &["SKEP_HOST", "SKEP_TOKEN", "SKEP_CONFIG"];
/// What begins so is free for secrets that a configuration refers to.
const SECRETS: &str = "SKEP_SECRET_";

impl Environment {
    /// That of this process; variables that are not UTF-8 are none of ours.
    pub(crate) fn of_process() -> Self {
        let pairs = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Environment(pairs.collect())
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a variable is set and not empty.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// `$XDG_…/skep`, or its usual place beneath the home directory.
    fn directory(&self, variable: &str, beneath_home: &str) -> Option<PathBuf> {
        let chosen = self.get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        chosen
            .or_else(|| self.get("HOME").map(|home| Path::new(home).join(beneath_home)))
            .map(|path| path.join("skep"))
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        let ours = self
            .0
            .iter()
            .filter(|(name, _)| !NOT_KEYS.contains(&name.as_str()) && !name.starts_with(SECRETS));
        for (name, value) in ours {
            if let Some(key) = name.strip_prefix("SKEP_") {
                let parts: Vec<String> = key.split("__").map(str::to_lowercase).collect();
                insert(&mut root, &parts, value);
            }
        }
        Ok(Profile::Default.collect(root))
    }
}

/// Puts a variable where its name says. A name that goes through a value is kept beside it, so that it is reported as unknown.
fn insert(dict: &mut Dict, parts: &[String], value: &str) {
    let Some((first, rest)) = parts.split_first() else {
        return;
    };
    if rest.is_empty() {
        let parsed = match (value.parse::<bool>(), value.parse::<u64>()) {
            (Ok(truth), _) => Value::from(truth),
            (_, Ok(number)) => Value::from(number),
            _ => Value::from(value),
        };
        dict.insert(first.clone(), parsed);
        return;
    }
    let mut inner = match dict.remove(first) {
        Some(Value::Dict(_, inner)) => inner,
        _ => Dict::new(),
    };
    insert(&mut inner, rest, value);
    dict.insert(first.clone(), Value::from(inner));
}

/// A configuration file that was read.
#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// Reads it; `None` when it is not there and need not be.
    fn read(path: PathBuf, required: bool) -> Result<Option<Self>, Failure> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(File { path, text })),
            // A data directory that is a file is for the host to refuse, with its own reason.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) && !required =>
            {
                Ok(None)
            }
            Err(error) => Err(Failure::new(Exit::Invalid, format!("cannot read it: {error}")).at(&path, "", None)),
        }
    }
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::from("file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict: Dict = toml::from_str(&self.text).map_err(|error| error.message().to_owned())?;
        Ok(Profile::Default.collect(dict))
    }
}

/// A configuration and the layers that it came from.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The values.
    pub(crate) config: Config,
    layers: Figment,
}

/// One key with its value and where that came from.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// The key, dotted.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: serde_json::Value,
    /// `default`, `flag`, `environment (SKEP_…)` or the path of a file.
    pub(crate) origin: String,
}

/// Reads the configuration. `explicit` is `--config`; without it `host.toml` in the data directory is taken when it is there.
///
/// # Errors
/// When a file cannot be read or is not TOML, a key is unknown or a value is of the wrong kind; the failure names key, place and the
/// closest key.
pub(crate) fn load(flags: &Flags, environment: &Environment, explicit: Option<&Path>) -> Result<Loaded, Failure> {
    let user = environment
        .directory("XDG_CONFIG_HOME", ".config")
        .map(|dir| File::read(dir.join("host.toml"), false))
        .transpose()?
        .flatten();
    let explicit = explicit
        .or_else(|| environment.get("SKEP_CONFIG").map(Path::new))
        .map(|path| File::read(path.to_owned(), true))
        .transpose()?
        .flatten();
    let default_dir = environment.directory("XDG_DATA_HOME", ".local/share");
    let stack = |host: Option<&File>| {
        let defaults = Config::defaults(default_dir.clone().unwrap_or_default());
        let mut layers = Figment::from(Layer("default", Serialized::defaults(defaults)));
        for file in user.iter().chain(host) {
            layers = layers.merge(file.clone());
        }
        layers
            .merge(environment.clone())
            .merge(Layer("flag", Serialized::defaults(flags)))
    };
    let files = |host: Option<&File>| user.iter().chain(host).cloned().collect::<Vec<_>>();

    let first = extract(stack(explicit.as_ref()), &files(explicit.as_ref()))?;
    if first.config.data_dir.as_os_str().is_empty() {
        return Err(Failure::usage("there is no home directory to keep data in").next("add --data-dir DIR"));
    }
    if explicit.is_some() {
        return Ok(first);
    }
    let Some(own) = File::read(first.config.data_dir.join("host.toml"), false)? else {
        return Ok(first);
    };
    if let Some(span) = locate(&own.text, &["data_dir"]) {
        let failure = Failure::of(Reason::InvalidInput, "a data directory cannot name another one");
        return Err(failure.at(&own.path, &own.text, Some(span)));
    }
    extract(stack(Some(&own)), &files(Some(&own)))
}

/// A provider under the name that `config show --origin` prints.
struct Layer<P>(&'static str, P);

impl<P: Provider> Provider for Layer<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.1.data()
    }
}

fn extract(layers: Figment, files: &[File]) -> Result<Loaded, Failure> {
    // A syntax error is found here rather than by figment, which would lose its place.
    for file in files {
        if let Err(error) = toml::from_str::<toml::Table>(&file.text) {
            let failure = Failure::of(Reason::InvalidInput, error.message());
            return Err(failure.at(&file.path, &file.text, error.span()));
        }
    }
    match layers.extract::<Config>() {
        Ok(config) => Ok(Loaded { config, layers }),
        Err(error) => Err(explain(&error, files)),
    }
}

/// A refusal that names the key, where it stands and what was probably meant.
fn explain(error: &figment::Error, files: &[File]) -> Failure {
    let mut path = error.path.clone();
    let message = match &error.kind {
        Kind::UnknownField(field, expected) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            let closest = expected.iter().min_by_key(|known| distance(field, known));
            let closest = closest
                .map(|known| format!("; did you mean `{known}`?"))
                .unwrap_or_default();
            format!("`{}` is not a key of a host's configuration{closest}", path.join("."))
        }
        kind => format!("{}: {kind}", path.join(".")),
    };
    let failure = Failure::of(Reason::InvalidInput, message).next("`skep config show` prints every key with its value");
    let metadata = error.metadata.as_ref();
    match metadata.and_then(|metadata| metadata.source.as_ref()) {
        Some(Source::File(at)) => match files.iter().find(|file| file.path == *at) {
            Some(file) => {
                let parts: Vec<&str> = path.iter().map(String::as_str).collect();
                failure.at(&file.path, &file.text, locate(&file.text, &parts))
            }
            None => failure.at(at, "", None),
        },
        _ => match metadata.map(|metadata| metadata.name.as_ref()) {
            Some("environment") => failure.at(Path::new(&variable(&path.join("."))), "", None),
            Some("flag") => failure.at(Path::new("command line"), "", None),
            _ => failure,
        },
    }
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("SKEP_{}", key.replace('.', "__").to_uppercase())
}

/// Levenshtein's distance between two short words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, cell) in b.chars().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            left = (diagonal + usize::from(from != to)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

impl Loaded {
    /// The webhooks, with what they refer to read.
    ///
    /// # Errors
    /// What is wrong with one, and where it is named; more than [`MAX_WEBHOOKS`].
    pub(crate) fn webhooks(&self, environment: &Environment) -> Result<Vec<Webhook>, Failure> {
        let hooks = &self.config.webhooks;
        if hooks.len() > MAX_WEBHOOKS {
            return Err(self.wrong(
                &["webhooks"],
                &format!("a host has at most {MAX_WEBHOOKS}, there are {}", hooks.len()),
            ));
        }
        let resolve = |(name, hook): (&String, &Hook)| {
            let webhook = hook.resolve(name, environment);
            webhook.map_err(|why| self.wrong(&["webhooks", name], &why))
        };
        hooks.iter().map(resolve).collect()
    }

    /// Something is wrong with the value of a key.
    fn wrong(&self, key: &[&str], why: &str) -> Failure {
        let failure = Failure::of(Reason::InvalidInput, format!("{}: {why}", key.join(".")));
        let metadata = self.layers.find_metadata(&key.join("."));
        match metadata.and_then(|metadata| metadata.source.as_ref()) {
            Some(Source::File(path)) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                failure.at(path, &text, locate(&text, key))
            }
            _ => failure,
        }
    }

    /// Every key with its value and origin, sorted by key.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let values = serde_json::to_value(&self.config).expect("a configuration has only texts, numbers and tables");
        self.flatten("", values, &mut entries);
        entries
    }

    fn flatten(&self, prefix: &str, value: serde_json::Value, entries: &mut Vec<Entry>) {
        match value {
            serde_json::Value::Object(inner) => {
                for (key, value) in inner {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    self.flatten(&format!("{prefix}{dot}{key}"), value, entries);
                }
            }
            value => entries.push(Entry {
                key: prefix.to_owned(),
                value,
                origin: self.origin(prefix),
            }),
        }
    }

    fn origin(&self, key: &str) -> String {
        let Some(metadata) = self.layers.find_metadata(key) else {
            return "default".to_owned();
        };
        match (&metadata.source, metadata.name.as_ref()) {
            (Some(Source::File(path)), _) => path.display().to_string(),
            (_, "environment") => format!("environment ({})", variable(key)),
            (_, name) => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home directory with the given files, and an environment that points there.
    struct Home(tempfile::TempDir);

    impl Home {
        fn with(files: &[(&str, &str)]) -> Self {
            let home = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = home.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Home(home)
        }

        fn environment(&self, variables: &[(&str, &str)]) -> Environment {
            let mut all: BTreeMap<_, _> = variables
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            all.insert("HOME".to_owned(), self.0.path().display().to_string());
            Environment(all)
        }
    }

    const USER: &str = ".config/skep/host.toml";
    const HOST: &str = ".local/share/skep/host.toml";

    #[test]
    fn a_higher_layer_wins_and_every_value_names_its_origin() {
        let home = Home::with(&[
            (
                USER,
                "slots = 1\nguest_threads = 1\nlisten = \"127.0.0.1:1\"\nlog.level = \"user\"",
            ),
            (HOST, "slots = 2\nguest_threads = 2\nlisten = \"127.0.0.1:2\""),
        ]);
        let environment = home.environment(&[
            ("SKEP_SLOTS", "3"),
            ("SKEP_GUEST_THREADS", "3"),
            ("SKEP_CEILING__TIER", "large"),
        ]);
        let flags = Flags {
            slots: Some(4),
            ..Flags::default()
        };
        let loaded = load(&flags, &environment, None).unwrap();
        let config = &loaded.config;
        assert_eq!((config.slots, config.guest_threads, config.listen.port()), (4, 3, 2));
        assert_eq!(
            (config.log.level.as_str(), config.ceiling.tier),
            ("user", skep_rules::limits::Tier::Large)
        );

        let origins: BTreeMap<_, _> = loaded.entries().into_iter().map(|e| (e.key, e.origin)).collect();
        assert_eq!(origins["slots"], "flag");
        assert_eq!(origins["guest_threads"], "environment (SKEP_GUEST_THREADS)");
        assert_eq!(origins["ceiling.tier"], "environment (SKEP_CEILING__TIER)");
        assert!(origins["listen"].ends_with(HOST), "{origins:?}");
        assert!(origins["log.level"].ends_with(USER), "{origins:?}");
        assert_eq!(origins["log.format"], "default");
        assert_eq!(origins["data_dir"], "default");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_closest_key() {
        let home = Home::with(&[(HOST, "# mine\n[ceiling]\nteir = \"small\"\n")]);
        let shown = load(&Flags::default(), &home.environment(&[]), None)
            .unwrap_err()
            .to_string();
        assert!(shown.contains("host.toml:3:1: `ceiling.teir` is not a key"), "{shown}");
        assert!(
            shown.contains("did you mean `tier`?") && shown.contains("^^^^"),
            "{shown}"
        );

        let environment = Home::with(&[]);
        let environment = environment.environment(&[("SKEP_SLOT", "3")]);
        let shown = load(&Flags::default(), &environment, None).unwrap_err().to_string();
        assert!(shown.starts_with("SKEP_SLOT: `slot` is not a key"), "{shown}");
        assert!(shown.contains("did you mean `slots`?"), "{shown}");
    }

    #[test]
    fn a_wrong_value_and_broken_toml_are_refused_with_their_place() {
        let home = Home::with(&[(HOST, "slots = \"many\"\n")]);
        let shown = load(&Flags::default(), &home.environment(&[]), None)
            .unwrap_err()
            .to_string();
        assert!(shown.contains("host.toml:1:1: slots: "), "{shown}");

        let home = Home::with(&[(HOST, "slots = \n")]);
        let shown = load(&Flags::default(), &home.environment(&[]), None)
            .unwrap_err()
            .to_string();
        assert!(shown.contains("host.toml:1:"), "{shown}");
    }

    #[test]
    fn a_named_file_replaces_that_of_the_data_directory_and_must_exist() {
        let home = Home::with(&[
            (HOST, "slots = 2"),
            ("mine.toml", "slots = 5\ndata_dir = \"/srv/skep\""),
        ]);
        let loaded = load(
            &Flags::default(),
            &home.environment(&[]),
            Some(&home.0.path().join("mine.toml")),
        )
        .unwrap();
        assert_eq!(
            (loaded.config.slots, loaded.config.data_dir.as_path()),
            (5, Path::new("/srv/skep"))
        );
        assert!(
            load(
                &Flags::default(),
                &home.environment(&[]),
                Some(Path::new("/nowhere.toml"))
            )
            .is_err()
        );
    }

    #[test]
    fn a_data_directory_cannot_name_another() {
        let home = Home::with(&[(HOST, "data_dir = \"/elsewhere\"")]);
        let shown = load(&Flags::default(), &home.environment(&[]), None)
            .unwrap_err()
            .to_string();
        assert!(shown.contains("cannot name another"), "{shown}");
    }

    #[test]
    fn distances_count_edits() {
        assert_eq!(
            (distance("teir", "tier"), distance("slot", "slots"), distance("", "ab")),
            (2, 1, 2)
        );
    }
}
