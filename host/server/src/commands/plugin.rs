//! `skep plugin`: what is installed on a host, what it asks for, and installing more of it with open eyes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use skep::{
    host::bundled_secret,
    http::api::{
        key::Trust,
        plugin::{Checked, Plugin, Revoke, Revoked, Standing},
        task::Task,
    },
};
use skep_rules::{limits::MAX_ENVELOPE_BYTES, reason::Reason};
use skep_runtime::{plugin::Scan, signature::SecretKey};

use super::{
    Context, bundled,
    inspect::read_component,
    offline,
    replay::{self, Component, Replay, Report},
    session::Session,
    sheet::{Allowance, Diff, Sheet},
    verify::beside,
};
use crate::{
    cli::{Exit, Global},
    client::{Client, Form, escape},
    failure::Failure,
    files,
    output::{bytes, time},
};

/// `skep plugin …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Install a plugin after showing who signed it and what it asks for
    Install(Install),
    /// List what is installed
    Ls,
    /// Show one
    Show {
        /// `publisher/name@version`, or the digest or its beginning
        plugin: String,
    },
    /// Show what one release asks for and offers that another does not
    Diff {
        /// The release after
        plugin: String,
        /// The release before; the newest other one when left out
        #[arg(long, value_name = "PLUGIN")]
        from: Option<String>,
    },
    /// Run recorded tasks of a plugin again on another file of it, and say where that does something else
    Check {
        /// The file that is to take over
        file: PathBuf,
        /// How many tasks, the newest first
        #[arg(long, value_name = "N", default_value_t = 10)]
        replay: u32,
    },
    /// Remove a plugin that no crew uses
    Remove {
        /// `publisher/name@version`, or the digest or its beginning
        plugin: String,
    },
    /// Revoke a plugin: what runs of it is ended at once. There is no way back
    Revoke {
        /// `publisher/name@version`, or the digest; with --below also `publisher/name`
        plugin: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Revoke all its releases below this number, instead of this file
        #[arg(long, value_name = "RELEASE")]
        below: Option<u64>,
    },
}

/// Arguments of `skep plugin install`.
#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// A file, or `bundled:NAME`
    source: String,
    /// Its envelope; otherwise the file beside it that ends in `.sig`
    #[arg(long, value_name = "FILE")]
    sig: Option<PathBuf>,
    /// The publisher's name, typed: agrees to a plugin of this publisher without being asked
    #[arg(long, value_name = "NAME")]
    publisher: Option<String>,
    /// Agrees that the second file asks for more than the first, which is installed: two whole digests
    #[arg(long, value_name = "FROM..TO")]
    approve: Option<String>,
    /// Install an older release than the newest one seen
    #[arg(long, value_name = "REASON")]
    allow_downgrade: Option<String>,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    let make = matches!(command, Command::Install(_) | Command::Revoke { .. });
    if let Command::Install(args) = command {
        return install_and_print(context, args);
    }
    if let Command::Check { file, replay } = command {
        return check(context, file, *replay);
    }
    let session = Session::open(context, make)?;
    let client = session.client();
    match command {
        Command::Install(_) | Command::Check { .. } => {}
        Command::Ls => {
            let plugins: Vec<Plugin> = session.wait(client.list("/v1/plugins"))?;
            context.output.list(
                &plugins,
                ["plugin", "signature", "release", "digest", "size", "installed"],
                |plugin| {
                    [
                        format!("{}@{}", plugin.name, plugin.version),
                        plugin.signature.state.word().to_owned(),
                        plugin
                            .signature
                            .release_seq
                            .map(|seq| seq.to_string())
                            .unwrap_or_default(),
                        plugin.digest.short(),
                        bytes(plugin.size),
                        time(plugin.installed_at),
                    ]
                },
            )?;
        }
        Command::Show { plugin } => {
            let plugin: Plugin = session.wait(client.get(&path(plugin, "")))?;
            context.output.one(&plugin, || sheet(&plugin).to_text())?;
        }
        Command::Diff { plugin, from } => {
            let query = from
                .as_ref()
                .map(|from| format!("?from={}", escape(from)))
                .unwrap_or_default();
            let found: skep::http::api::plugin::Difference =
                session.wait(client.get(&path(plugin, &format!("/diff{query}"))))?;
            let diff = session.wait(async {
                let from: Plugin = client.get(&path(&found.from.to_string(), "")).await?;
                let to: Plugin = client.get(&path(&found.to.to_string(), "")).await?;
                Ok(Diff::of(&scan(&from), &scan(&to)))
            })?;
            let diff = diff.context("an installed plugin carries a manifest")?;
            context.output.one(&diff, || diff.to_text())?;
        }
        Command::Remove { plugin } => {
            let shown: Plugin = session.wait(client.get(&path(plugin, "")))?;
            session.confirm(&format!("remove {}@{}", shown.name, shown.version))?;
            let removed: Plugin = session.wait(client.delete(&path(&shown.digest.to_string(), "")))?;
            context.output.one(&removed, || {
                format!(
                    "removed {}@{}  sha256:{}",
                    removed.name, removed.version, removed.digest
                )
            })?;
        }
        Command::Revoke { plugin, reason, below } => {
            session.confirm(&format!("revoke {plugin} for good"))?;
            let revoke = Revoke {
                reason: reason.clone(),
                below: *below,
            };
            let path = path(plugin, "/revoke");
            let revoked: Revoked = session.wait(client.post(&path, &revoke, std::time::Duration::ZERO))?;
            context.output.one(&revoked, || told(&revoked))?;
        }
    }
    Ok(Exit::Done)
}

/// What a revocation has done.
pub(super) fn told(revoked: &Revoked) -> String {
    let below = revoked
        .below
        .map(|below| format!(" below release {below}"))
        .unwrap_or_default();
    format!(
        "revoked {}{below}: {} of the installed plugins must not run now, {} agents are in quarantine",
        revoked.subject,
        revoked.plugins.len(),
        revoked.agents
    )
}

/// Runs the newest records of a plugin again on another file of it. All of them are looked at, also behind one that diverges.
fn check(context: &Context, file: &Path, most: u32) -> Result<Exit> {
    let component = Component::read(file)?;
    let manifest = component
        .scan
        .manifest
        .as_ref()
        .context("a plugin carries a manifest")?;
    let name = manifest.plugin.name.to_string();
    let session = Session::open(context, false)?;
    let query = format!("/v1/tasks?recorded={}", escape(&name));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let tasks: Vec<Task> = session.wait(session.client().first(&query, most))?;
    if tasks.is_empty() {
        let message = format!("no task of `{name}` has a record here, so there is nothing to compare with");
        return Err(Failure::of(Reason::NotFound, message).into());
    }
    let home = offline::home()?;
    let mut reports = Vec::new();
    for task in tasks {
        let recording = replay::fetch(&session, &task.task_id.to_string(), false)?;
        let ran = session.wait(Replay::of(recording, component.clone()).run(home.path()));
        let (report, _) = ran.with_context(|| format!("{} cannot be replayed", task.task_id))?;
        reports.push(report);
    }
    context.output.list(&reports, ["task", "replay"], |report| {
        [report.task().to_string(), report.line()]
    })?;
    let failed = reports.iter().find(|report| report.exit() != Exit::Done);
    context.output.note(&format!(
        "sha256:{}: {} records, {} of them as before",
        component.scan.digest,
        reports.len(),
        reports.iter().filter(|report| report.exit() == Exit::Done).count()
    ));
    Ok(failed.map_or(Exit::Done, Report::exit))
}

fn path(plugin: &str, rest: &str) -> String {
    format!("/v1/plugins/{}{rest}", escape(plugin))
}

/// A file to be installed.
struct Source {
    component: Vec<u8>,
    envelope: Option<Vec<u8>>,
}

impl Source {
    fn read(args: &Install) -> Result<Self> {
        let file = Path::new(&args.source);
        let component = read_component(file)?;
        let beside = beside(file);
        let envelope = match &args.sig {
            Some(path) => Some(files::read(path, MAX_ENVELOPE_BYTES as u64)?),
            None if beside.exists() => Some(files::read(&beside, MAX_ENVELOPE_BYTES as u64)?),
            None => None,
        };
        Ok(Source { component, envelope })
    }

    fn form(&self) -> Form {
        let form = Form::default().with("component", self.component.clone());
        match &self.envelope {
            Some(envelope) => form.with("signature", envelope.clone()),
            None => form,
        }
    }
}

fn install_and_print(context: &Context, args: &Install) -> Result<Exit> {
    let (source, session) = match args.source.strip_prefix("bundled:") {
        Some(name) => {
            // Before the host is there: it checks who else uses the directory.
            let secret = bundled_secret(&context.config()?.config.data_dir).map_err(super::up::failed)?;
            let key = SecretKey::from_random(&secret);
            let bundled = bundled::signed(name, &key)?;
            let session = Session::open(context, true)?;
            session.wait(bundled::trust(session.client(), key.public()))?;
            let source = Source {
                component: bundled.component,
                envelope: Some(bundled.envelope),
            };
            (source, session)
        }
        None => (Source::read(args)?, Session::open(context, true)?),
    };
    let client = session.client();
    let mut form = source.form();
    if let Some(why) = &args.allow_downgrade {
        form = form.with("downgrade", why.clone());
    }
    let checked: Checked = session.wait(client.upload("/v1/plugins?check=true", form.clone()))?;
    let plugin = &checked.plugin;
    let title = format!("{}@{}", plugin.name, plugin.version);
    if !checked.installed {
        let trust: Trust = session.wait(client.get("/v1/keys"))?;
        show(context, plugin, &trust, args.asks(&checked, context.global.yes));
        form = agree(&session, context, args, &checked, form)?;
    }
    let installed: Plugin = session.wait(client.upload("/v1/plugins", form))?;
    let verb = if checked.installed {
        "was installed before:"
    } else {
        "installed"
    };
    context
        .output
        .one(&installed, || format!("{verb} {title}  sha256:{}", installed.digest))?;
    Ok(Exit::Done)
}

impl Install {
    /// Whether it comes with Skep.
    fn is_bundled(&self) -> bool {
        self.source.starts_with("bundled:")
    }

    /// Whether a question follows where somebody can answer one; `yes` as `--yes` says.
    fn asks(&self, checked: &Checked, yes: bool) -> bool {
        let wider = checked.update.as_ref().is_some_and(|update| !update.wider.is_empty());
        let agreed = self.publisher.is_some() || self.is_bundled();
        checked.first_contact && !agreed
            || wider && self.approve.is_none()
            || !(checked.first_contact || wider || agreed || yes)
    }

    /// The command line as it was given, for a shell; never with the token, which is nobody's to read in a terminal.
    fn again(&self, global: &Global) -> String {
        let mut line = format!("skep plugin install {}", quoted(&self.source));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let given = [
            ("--sig", path(&self.sig)),
            ("--publisher", self.publisher.clone()),
            ("--approve", self.approve.clone()),
            ("--allow-downgrade", self.allow_downgrade.clone()),
            ("--host", global.host.clone()),
            ("--data-dir", path(&global.data_dir)),
            ("--config", path(&global.config)),
        ];
        for (flag, value) in given {
            if let Some(value) = value {
                line.push_str(&format!(" {flag} {}", quoted(&value)));
            }
        }
        line
    }
}

/// A word of a command line, in quotes where a POSIX shell would take it for something else.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Shows the sheet, with who signed it and what of its wants the publisher may be given.
fn show(context: &Context, plugin: &Plugin, trust: &Trust, asked: bool) {
    let (publisher, _) = plugin.name.split_once('/').unwrap_or_default();
    let trusted = trust
        .publishers
        .iter()
        .find(|trusted| trusted.name.as_str() == publisher);
    let sheet = match trusted {
        Some(trusted) => sheet(plugin).held_against(Allowance::Publisher(&trusted.ceiling)),
        None => sheet(plugin),
    };
    let mut text = sheet.to_text();
    let keys = trusted.iter().flat_map(|trusted| &trusted.release.keys);
    for key in keys.filter(|key| plugin.signature.keys.contains(&key.id)) {
        text.push_str(&format!("{:<12}{}\n", key.id.short(), key.words));
    }
    if plugin.signature.state == Standing::Unsigned {
        text.push_str("! UNSIGNED: nobody vouches for this file.\n");
    }
    context.output.subject(text.trim_end(), asked);
}

/// What a person agrees to, asked for where it was not said on the command line.
fn agree(session: &Session<'_>, context: &Context, args: &Install, checked: &Checked, form: Form) -> Result<Form> {
    let plugin = &checked.plugin;
    let (publisher, _) = plugin.name.split_once('/').unwrap_or_default();
    let mut form = form;
    let mut agreed = args.publisher.is_some() || args.is_bundled();
    let mut missing = Vec::new();
    let mut reason = Reason::FirstContact;
    if checked.first_contact {
        let question = format!(
            "no release of `{}` is here to compare it with; type the name of its publisher, `{publisher}`, to agree: ",
            plugin.name
        );
        let typed = match (&args.publisher, args.is_bundled()) {
            (Some(typed), _) => Some(typed.clone()),
            // Whoever names a plugin of this binary has named its publisher.
            (None, true) => Some(bundled::PUBLISHER.to_owned()),
            (None, false) => session.ask(&question)?,
        };
        match typed {
            Some(typed) => form = form.with("publisher", typed),
            None => missing.push(format!("--publisher {publisher}")),
        }
        agreed = true;
    } else if let Some(typed) = args.publisher.as_ref().filter(|typed| *typed != publisher) {
        let message = format!("the publisher is `{publisher}`, not `{typed}`");
        return Err(Failure::of(Reason::FirstContact, message).into());
    }
    if let Some(update) = checked.update.as_ref().filter(|update| !update.wider.is_empty()) {
        let exact = format!("{}..{}", update.from, update.to);
        let before: Plugin = session.wait(session.client().get(&path(&update.from.to_string(), "")))?;
        if let Some(diff) = Diff::of(&scan(&before), &scan(plugin)) {
            context
                .output
                .subject(diff.to_text().trim_end(), args.approve.is_none());
        }
        let approval = match &args.approve {
            Some(given) => Some(given.clone()),
            None => match session.ask("it asks for more than before; approve that? [y/N] ")? {
                Some(answer) if matches!(answer.as_str(), "y" | "Y" | "yes") => Some(exact.clone()),
                Some(_) => return Err(Failure::new(Exit::Failure, "not done: the answer was no").into()),
                None => None,
            },
        };
        match approval {
            Some(approval) => form = form.with("approve", approval),
            None => {
                reason = Reason::ApprovalRequired;
                missing.push(format!("--approve {exact}"));
            }
        }
        agreed = true;
    }
    if !missing.is_empty() {
        let message = match reason {
            Reason::ApprovalRequired => "it asks for more than what is installed, and nobody can be asked here",
            _ => "no release of it is here to compare it with, and nobody can be asked for its publisher's name here",
        };
        let next = format!("if you agree: {} {}", args.again(&context.global), missing.join(" "));
        return Err(Failure::of(reason, message).next(next).into());
    }
    if !agreed {
        session.confirm(&format!("install {}@{}", plugin.name, plugin.version))?;
    }
    Ok(form)
}

/// Installs a plugin that comes with Skep, signed with a key that is trusted for it.
pub(super) async fn install_bundled(client: &Client, name: &str, key: &SecretKey) -> Result<Plugin> {
    let bundled = bundled::signed(name, key)?;
    let form = Form::default()
        .with("component", bundled.component)
        .with("signature", bundled.envelope)
        .with("publisher", bundled::PUBLISHER);
    client.upload("/v1/plugins", form).await
}

/// The sheet of a plugin as the host tells of it.
fn sheet(plugin: &Plugin) -> Sheet {
    let signature = &plugin.signature;
    let keys: Vec<String> = signature.keys.iter().map(skep_rules::key::KeyId::short).collect();
    let text = match (signature.state, signature.release_seq) {
        (Standing::Signed, Some(seq)) => format!("signed by {}, release {seq}", keys.join(" and ")),
        (Standing::Revoked, _) => format!("REVOKED: {}", signature.why.as_deref().unwrap_or_default()),
        (state, _) => state.word().to_owned(),
    };
    Sheet::of(&scan(plugin)).signed(text)
}

/// A plugin as the host tells of it, in the form that sheets and differences are made of.
fn scan(plugin: &Plugin) -> Scan {
    Scan {
        digest: plugin.digest,
        size: plugin.size,
        manifest: Some(plugin.manifest.clone()),
        exports: plugin.exports.clone(),
        imports: plugin.imports.clone(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{self, Cli};

    #[test]
    fn the_command_to_type_is_the_one_that_was_typed() {
        let typed = [
            "skep",
            "plugin",
            "install",
            "my dir/it's.wasm",
            "--allow-downgrade",
            "$(id)",
            "--data-dir",
            "/d",
            "--host",
            "http://127.0.0.1:1",
            "--token",
            "secret",
            "-q",
        ];
        let cli = Cli::try_parse_from(typed).unwrap();
        let cli::Command::Plugin(Command::Install(args)) = &cli.command else {
            panic!("another command")
        };
        assert_eq!(
            args.again(&cli.global),
            r"skep plugin install 'my dir/it'\''s.wasm' --allow-downgrade '$(id)' --host http://127.0.0.1:1 --data-dir /d"
        );
    }
}
