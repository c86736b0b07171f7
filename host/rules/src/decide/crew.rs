//! Crews and agents: assembled whole or not at all, warmed, drained.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decision, Reply, trust::small_enough};
use crate::{
    agent::{Failure, Phase},
    audit::{AuditEntry, Kind},
    crew::{self, CrewManifest},
    crew_record::{Crew, CrewPhase, Member},
    effect::Changed,
    event::Event,
    grant::{self, Ceiling, effective, gate},
    id::{AgentId, CrewId},
    limits::{MAX_AGENTS, MAX_CREWS},
    plugin::Plugin,
    reason::Reason,
    rejection::Rejection,
    seam::RunnerCommand,
};

impl Decision<'_> {
    pub(super) fn assemble(
        &mut self,
        id: CrewId,
        agents: Vec<AgentId>,
        manifest: CrewManifest,
        plugins: &[Plugin],
        ceiling: &Ceiling,
    ) -> Result<Reply, Rejection> {
        manifest
            .check()
            .map_err(|error| Rejection::new(Reason::InvalidManifest, error.to_string()))?;
        if let Some(other) = self.state.crew_named(&manifest.name) {
            let message = format!("`{}` is the name of {}, which has not stopped", manifest.name, other.id);
            return Err(Rejection::new(Reason::Conflict, message));
        }
        let unstopped = |phase: CrewPhase| phase != CrewPhase::Stopped;
        if self.state.crews().filter(|crew| unstopped(crew.phase)).count() >= MAX_CREWS {
            return Err(Rejection::new(
                Reason::Overloaded,
                format!("a host holds at most {MAX_CREWS} crews"),
            ));
        }
        let size: usize = manifest.members.iter().map(|member| member.agent_names().count()).sum();
        let live = self
            .state
            .agents()
            .filter(|agent| agent.phase != Phase::Stopped)
            .count();
        if live + size > MAX_AGENTS {
            let message =
                format!("a host holds at most {MAX_AGENTS} agents; {live} are there and {size} are asked for");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        let distinct: BTreeSet<_> = agents.iter().collect();
        let fresh = self.state.crew(id).is_none() && agents.iter().all(|agent| self.state.agent(*agent).is_none());
        if agents.len() != size || distinct.len() != size || !fresh {
            return Err(Rejection::invalid(format!(
                "the crew needs {size} new and distinct agent ids"
            )));
        }
        let members = manifest
            .members
            .iter()
            .map(|member| enlist(&manifest, member, plugins, ceiling));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        members.iter().try_for_each(|member| self.runnable(member))?;
        let detail = format!("{} with {size} agents", manifest.name);
        let crew = Crew {
            id,
            manifest,
            members,
            phase: CrewPhase::Live,
            size: u32::try_from(size).expect("bounded by MAX_AGENTS"),
            created: self.now,
            ended: None,
            revision: 1,
        };
        small_enough(&crew)?;
        self.emit(Event::CrewAssembled {
            crew: Box::new(crew),
            agents,
        });
        let entry = AuditEntry {
            crew: Some(id),
            ..self.entry(Kind::CrewAssembled, detail)
        };
        self.audit.push(entry);
        self.notice(Some(id), Changed::Crew(CrewPhase::Live));
        Ok(Reply::Assembled(id))
    }

    pub(super) fn drain(&mut self, id: CrewId) -> Result<Reply, Rejection> {
        let crew = self.state.crew(id).ok_or_else(|| Rejection::not_found(id))?;
        if crew.phase != CrewPhase::Live {
            return Ok(Reply::Done);
        }
        self.move_crew(id, CrewPhase::Draining);
        let agents: Vec<_> = self
            .state
            .agents_of(id)
            .map(|agent| (agent.id, agent.phase, agent.active))
            .collect();
        for (agent, phase, active) in agents {
            match phase {
                Phase::Warming | Phase::Ready | Phase::Busy => {
                    self.move_agent(agent, Phase::Draining, None);
                    if active > 0 {
                        self.run(RunnerCommand::Drain { agent });
                    }
                }
                Phase::Provisioning | Phase::Failed | Phase::Quarantined => {
                    self.move_agent(agent, Phase::Stopped, None);
                }
                Phase::Draining | Phase::Stopped => {}
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn warmed(&mut self, id: AgentId, generation: u64) -> Reply {
        if !self.is_warming(id, generation) {
            return Reply::Fenced;
        }
        self.move_agent(id, Phase::Ready, None);
        Reply::Done
    }

    pub(super) fn warm_failed(&mut self, id: AgentId, generation: u64, reason: Reason, message: &str) -> Reply {
        if !self.is_warming(id, generation) {
            return Reply::Fenced;
        }
        self.move_agent(id, Phase::Failed, Some(Failure::new(reason, message)));
        Reply::Done
    }

    /// What an earlier generation says does not count, nor what comes after the agent was told to drain.
    fn is_warming(&self, id: AgentId, generation: u64) -> bool {
        let agent = self.state.agent(id);
        agent.is_some_and(|agent| agent.generation == generation && agent.phase == Phase::Warming)
    }

    /// Whether what a member runs may run here at all: not revoked, and signed unless the host takes what is not.
    fn runnable(&self, member: &Member) -> Result<(), Rejection> {
        let (plugin, version) = (&member.plugin, &member.version);
        if self.state.is_void(member.digest) {
            return Err(Rejection::new(
                Reason::Revoked,
                format!("{plugin}@{version} is revoked"),
            ));
        }
        if member.unsigned && !self.unsigned {
            let message = format!("{plugin}@{version} is not signed; only a host started with `--dev` runs it");
            return Err(Rejection::new(Reason::SignatureMissing, message));
        }
        // What a publisher may sign, and the most that it may want, count as they are now, not as they were at the install.
        let signed = self
            .state
            .plugin(member.digest)
            .filter(|plugin| plugin.signed.is_some());
        let publisher = self.state.trust().publisher(plugin.publisher());
        if let (Some(signed), Some(trusted)) = (signed, publisher) {
            if !trusted.publisher.may_sign(plugin) {
                let message = format!("`{}` may sign {plugin} here no longer", trusted.publisher.name);
                return Err(Rejection::new(Reason::SignerUntrusted, message));
            }
            grant::within(&signed.manifest, &trusted.publisher.ceiling)?;
        }
        Ok(())
    }

    /// Has a runner make an agent ready.
    pub(super) fn warm(&mut self, id: AgentId) {
        if self.state.agent(id).is_some_and(|agent| self.is_fallen(agent)) {
            self.quarantine(id);
            return;
        }
        self.move_agent(id, Phase::Warming, None);
        let Some(agent) = self.state.agent(id) else {
            return;
        };
        let Some(member) = self.state.member_of(agent) else {
            return;
        };
        if let Err(refused) = self.runnable(member) {
            self.move_agent(id, Phase::Failed, Some(Failure::new(refused.reason, &refused.message)));
            return;
        }
        let command = RunnerCommand::Warm {
            agent: agent.identity(),
            component: member.digest,
            effective: member.effective.clone(),
        };
        self.run(command);
    }
}

/// One member with its plugin found, its grants computed and its roles narrowed.
fn enlist(
    manifest: &CrewManifest,
    member: &crew::Member,
    plugins: &[Plugin],
    ceiling: &Ceiling,
) -> Result<Member, Rejection> {
    let name = &member.name;
    let plugin = plugins
        .iter()
        .find(|plugin| plugin.answers_to(&member.plugin))
        .ok_or_else(|| {
            let message = format!("agent `{name}`: the plugin {} is not installed", member.plugin);
            Rejection::new(Reason::NotFound, message)
        })?;
    let provided = &plugin.manifest.provides.roles;
    let roles = member.roles.as_ref().unwrap_or(provided);
    if let Some(role) = roles.difference(provided).next() {
        let message = format!("agent `{name}`: {} does not provide the role `{role}`", member.plugin);
        return Err(Rejection::new(Reason::InvalidManifest, message));
    }
    let env: &BTreeMap<String, String> = &member.env;
    let refused =
        |refused: crate::grant::Refused| Rejection::new(refused.reason, format!("agent `{name}`: {}", refused.message));
    let effective = effective(
        &plugin.manifest,
        &member.grants,
        &manifest.mounts,
        env,
        &member.limits,
        ceiling,
    )
    .map_err(refused)?;
    gate(plugin.imports.iter().map(String::as_str), effective.word).map_err(refused)?;
    Ok(Member {
        plugin: plugin.manifest.plugin.name.clone(),
        version: plugin.manifest.plugin.version.clone(),
        digest: plugin.digest,
        roles: roles.clone(),
        exports: plugin.exports.clone(),
        effective,
        unsigned: plugin.signed.is_none(),
    })
}
