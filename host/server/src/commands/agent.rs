//! `skep agent`: the agents of a host.

use anyhow::Result;
use skep::http::api::agent::Agent;
use skep_rules::agent::Phase;

use super::Context;
use crate::{
    cli::Exit,
    client::escape,
    output::{bytes, fuel, time, word},
};

/// `skep agent …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List agents
    Ls {
        /// Only those of this crew: id, its beginning, or name
        #[arg(long)]
        crew: Option<String>,
    },
    /// Show one
    Show {
        /// Id or its beginning
        agent: String,
    },
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    let client = context.client()?;
    match command {
        Command::Ls { crew } => {
            let query = crew
                .as_ref()
                .map(|crew| format!("?crew={}", escape(crew)))
                .unwrap_or_default();
            let agents: Vec<Agent> = context.wait(client.list(&format!("/v1/agents{query}")))?;
            context.output.list(
                &agents,
                [
                    "agent",
                    "name",
                    "phase",
                    "plugin",
                    "signature",
                    "busy",
                    "attempts",
                    "fuel",
                ],
                |agent| {
                    [
                        agent.agent_id.to_string(),
                        agent.name.clone(),
                        phase(agent),
                        agent.plugin.clone(),
                        agent.signature.word().to_owned(),
                        format!("{}/{}", agent.active, agent.slots),
                        agent.attempts.to_string(),
                        fuel(agent.fuel.0),
                    ]
                },
            )?;
        }
        Command::Show { agent } => {
            let agent: Agent = context.wait(client.get(&format!("/v1/agents/{}", escape(agent))))?;
            context.output.one(&agent, || describe(&agent))?;
        }
    }
    Ok(Exit::Done)
}

/// Where an agent is, and why, when it is not well: what was taken out of work is not to be overlooked.
pub(super) fn phase(agent: &Agent) -> String {
    match (agent.phase, &agent.failure) {
        (Phase::Quarantined, Some(failure)) => format!("QUARANTINED ({})", failure.code),
        (_, Some(failure)) => format!("{} ({})", word(&agent.phase), failure.code),
        (_, None) => word(&agent.phase),
    }
}

fn describe(agent: &Agent) -> String {
    let roles: Vec<String> = agent.roles.iter().map(ToString::to_string).collect();
    let failure = agent
        .failure
        .as_ref()
        .map(|failure| format!("{}: {}", failure.code, failure.message));
    [
        ("agent", format!("{} {}", agent.name, agent.agent_id)),
        ("crew", agent.crew.to_string()),
        ("plugin", format!("{} sha256:{}", agent.plugin, agent.digest)),
        ("signature", agent.signature.word().to_owned()),
        ("serves", roles.join(", ")),
        (
            "phase",
            format!("{} since {}", word(&agent.phase), time(agent.changed_at)),
        ),
        ("failure", failure.unwrap_or_else(|| "none".to_owned())),
        ("busy", format!("{} of {} slots", agent.active, agent.slots)),
        (
            "attempts",
            format!(
                "{}, {} fuel, {} at most",
                agent.attempts,
                fuel(agent.fuel.0),
                bytes(agent.peak_memory_bytes)
            ),
        ),
        ("generation", agent.generation.to_string()),
    ]
    .iter()
    .map(|(key, value)| format!("{key:<12}{value}\n"))
    .collect()
}
