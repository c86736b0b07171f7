//! `skep crew`: assembles crews from their manifests and shows how they are.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use skep::http::api::crew::{Assembled, Crew, CrewStatus};
use skep_rules::{crew::CrewManifest, crew_record::Status, manifest::GuestPath, quantity::Millis, reason::Reason};

use super::Context;
use crate::{
    cli::Exit,
    client::{Client, escape},
    failure::{Failure, locate},
    output::{table, time},
};

/// `skep crew …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Assemble the crew of a manifest
    Assemble {
        /// The crew's manifest
        #[arg(value_name = "CREW.TOML")]
        manifest: PathBuf,
        /// Put this directory where agents see GUEST, instead of the manifest's
        #[arg(long = "mount", value_name = "GUEST=HOST")]
        mounts: Vec<Override>,
        /// Wait until it is ready
        #[arg(long)]
        wait: bool,
    },
    /// List crews
    Ls,
    /// Show how a crew and its agents are
    Status {
        /// Id, its beginning, or name
        crew: String,
    },
    /// Let a crew finish what it has and then end
    Drain {
        /// Id, its beginning, or name
        crew: String,
    },
}

/// `GUEST=HOST`
#[derive(Debug, Clone)]
pub(crate) struct Override {
    guest: GuestPath,
    host: PathBuf,
}

impl FromStr for Override {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (guest, host) = text.split_once('=').ok_or("it has the form /input=DIR")?;
        Ok(Override {
            guest: guest
                .parse()
                .map_err(|error: skep_rules::id::Error| error.to_string())?,
            host: PathBuf::from(host),
        })
    }
}

/// How long a host waits with its answer about a crew that is not ready yet.
const POLL: Millis = Millis(10_000);

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::Assemble { manifest, mounts, wait } => {
            let crew = read(manifest, mounts)?;
            let client = context.client()?;
            let assembled = context.wait(assemble(&client, &crew))?;
            if !*wait {
                context
                    .output
                    .one(&assembled, || format!("{}  {}", assembled.crew_id, assembled.status))?;
                return Ok(Exit::Done);
            }
            let status = context.wait(ready(&client, &assembled.crew_id.to_string()))?;
            context.output.one(&status, || describe(&status))?;
            return Ok(if status.crew.status == Status::Ready {
                Exit::Done
            } else {
                Exit::Failure
            });
        }
        Command::Ls => {
            let client = context.client()?;
            let crews: Vec<Crew> = context.wait(client.list("/v1/crews"))?;
            context.output.list(
                &crews,
                ["crew", "name", "status", "ready", "tasks", "assembled"],
                |crew| {
                    let tasks = crew.tasks.pending + crew.tasks.in_progress;
                    [
                        crew.crew_id.to_string(),
                        crew.name.to_string(),
                        crew.status.to_string(),
                        format!("{}/{}", crew.ready, crew.agents),
                        format!(
                            "{tasks} live, {} done, {} failed",
                            crew.tasks.completed, crew.tasks.failed
                        ),
                        time(crew.created_at),
                    ]
                },
            )?;
        }
        Command::Status { crew } => {
            let client = context.client()?;
            let status: CrewStatus = context.wait(client.get(&format!("/v1/crews/{}/status", escape(crew))))?;
            context.output.one(&status, || describe(&status))?;
        }
        Command::Drain { crew } => {
            let client = context.client()?;
            let crew: Crew = context.wait(client.delete(&format!("/v1/crews/{}", escape(crew))))?;
            context
                .output
                .one(&crew, || format!("{}  {}", crew.crew_id, crew.status))?;
        }
    }
    Ok(Exit::Done)
}

/// Asks for a crew.
pub(crate) async fn assemble(client: &Client, crew: &CrewManifest) -> Result<Assembled> {
    client.post("/v1/crews/assemble", crew, Duration::ZERO).await
}

/// Waits until a crew is ready or cannot be.
pub(crate) async fn ready(client: &Client, crew: &str) -> Result<CrewStatus> {
    loop {
        let status: CrewStatus = client.get_final(&format!("/v1/crews/{crew}/status"), POLL).await?;
        if status.crew.status != Status::Assembling {
            return Ok(status);
        }
    }
}

fn describe(status: &CrewStatus) -> String {
    let crew = &status.crew;
    let members = status.members.iter().map(|agent| {
        let failure = agent
            .failure
            .as_ref()
            .map(|failure| format!("{}: {}", failure.code, failure.message));
        [
            agent.name.clone(),
            super::agent::phase(agent),
            format!("{} {}", agent.plugin, agent.signature.word()),
            format!("{}/{}", agent.active, agent.slots),
            agent.attempts.to_string(),
            failure.unwrap_or_default(),
        ]
    });
    format!(
        "{} {}: {}, {} of {} agents ready\n\n{}\n",
        crew.name,
        crew.crew_id,
        crew.status,
        crew.ready,
        crew.agents,
        table(["agent", "phase", "plugin", "busy", "attempts", "failure"], members)
    )
}

/// Reads a crew's manifest; mounts become absolute directories that are there. Relative ones start at the manifest, those of `overrides` here.
fn read(path: &Path, overrides: &[Override]) -> Result<CrewManifest> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new(Exit::NotFound, format!("{} is not there", path.display())).into());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut crew = CrewManifest::parse(&text).map_err(|error| Failure::manifest(path, &text, &error))?;
    if let Some(stray) = overrides
        .iter()
        .find(|o| crew.mounts.iter().all(|mount| mount.guest != o.guest))
    {
        let message = format!("--mount {}: the crew has no such mount", stray.guest);
        return Err(Failure::usage(message).at(path, &text, None).into());
    }
    for mount in &mut crew.mounts {
        let chosen = overrides.iter().find(|o| o.guest == mount.guest);
        let wanted = match chosen {
            Some(chosen) => chosen.host.clone(),
            None => path.parent().unwrap_or(Path::new(".")).join(&mount.host),
        };
        mount.host = directory(&wanted).map_err(|failure| match chosen {
            Some(_) => failure,
            None => failure.at(path, &text, locate(&text, &["mount"])),
        })?;
    }
    Ok(crew)
}

/// The absolute path of a directory that is there and can be listed.
pub(crate) fn directory(path: &Path) -> Result<String, Failure> {
    let no = |why: &str| {
        let failure = Failure::of(Reason::InvalidInput, format!("{}: {why}", path.display()));
        failure.next("name a directory that you can read")
    };
    let absolute = fs::canonicalize(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{} is not there", path.display()))
            .next("name a directory that you can read"),
        _ => no(&error.to_string()),
    })?;
    fs::read_dir(&absolute).map_err(|error| no(&error.to_string()))?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|_| no("the path of a mount is UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREW: &str =
        "name = 'c'\n[[mount]]\nguest = '/input'\nhost = 'files'\n[[agent]]\nname = 'a'\nplugin = 'x/y@1.0.0'\n";

    #[test]
    fn mounts_become_absolute_from_where_the_manifest_lies() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("crew.toml");
        fs::write(&path, CREW).unwrap();
        let missing = read(&path, &[]).unwrap_err().to_string();
        assert!(
            missing.contains("crew.toml:2:3") && missing.contains("files"),
            "{missing}"
        );

        fs::create_dir(home.path().join("files")).unwrap();
        let found = read(&path, &[]).unwrap().mounts[0].host.clone();
        assert_eq!(Path::new(&found), home.path().canonicalize().unwrap().join("files"));

        let other = format!("/input={}", home.path().display()).parse().unwrap();
        let found = read(&path, &[other]).unwrap().mounts[0].host.clone();
        assert_eq!(Path::new(&found), home.path().canonicalize().unwrap());
    }

    #[test]
    fn an_override_of_a_mount_that_the_crew_lacks_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("crew.toml");
        fs::write(&path, CREW).unwrap();
        let stray = "/other=/tmp".parse().unwrap();
        assert!(read(&path, &[stray]).unwrap_err().to_string().contains("no such mount"));
        assert!("/other".parse::<Override>().is_err());
    }
}
