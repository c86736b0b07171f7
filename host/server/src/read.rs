//! Records as clients see them.

use skep_rules::{
    agent::{Agent, Phase},
    crew_record::{Crew, CrewPhase},
    plugin::Plugin,
    state::State,
    task::Task,
};

use crate::http::api;

/// A task.
pub(crate) fn task(task: Task) -> api::task::Task {
    api::task::Task {
        task_id: task.id,
        name: task.name,
        description: task.description,
        state: task.state,
        status: task.state.into(),
        crew: task.crew,
        dependencies: task.dependencies,
        assigned_agent: task.held.map(|held| held.lease.agent).or(task.last_agent),
        attempts: task.attempts,
        fuel: task.fuel,
        peak_memory_bytes: task.peak_memory.0,
        denials: task.denials,
        remarks: task.remarks,
        result: task.result.as_ref().map(api::content::to_json),
        failure: task.failure.map(Into::into),
        parent: task.parent,
        children: task.children,
        labels: task.labels,
        revision: task.revision,
        created_at: task.created,
        ended_at: task.ended,
    }
}

/// An agent of a crew in memory.
pub(crate) fn agent(state: &State, agent: &Agent) -> Option<api::agent::Agent> {
    let member = state.member_of(agent)?;
    Some(api::agent::Agent {
        agent_id: agent.id,
        name: agent.name.clone(),
        crew: agent.crew,
        plugin: format!("{}@{}", member.plugin, member.version),
        digest: member.digest,
        roles: member.roles.clone(),
        phase: agent.phase,
        failure: agent.failure.clone().map(Into::into),
        slots: agent.slots,
        active: agent.active,
        generation: agent.generation,
        attempts: agent.tasks,
        fuel: agent.fuel,
        peak_memory_bytes: agent.peak_memory.0,
        changed_at: agent.changed,
        revision: agent.revision,
    })
}

/// A crew in memory.
pub(crate) fn crew(state: &State, crew: &Crew) -> api::crew::Crew {
    let ready = state
        .agents_of(crew.id)
        .filter(|agent| matches!(agent.phase, Phase::Ready | Phase::Busy))
        .count();
    let mut tasks = api::crew::TaskCounts::default();
    for task in state.tasks_of(crew.id) {
        let count = match api::task::Status::from(task.state) {
            api::task::Status::Pending => &mut tasks.pending,
            api::task::Status::InProgress => &mut tasks.in_progress,
            api::task::Status::Completed => &mut tasks.completed,
            api::task::Status::Failed => &mut tasks.failed,
        };
        *count += 1;
    }
    api::crew::Crew {
        crew_id: crew.id,
        name: crew.manifest.name.clone(),
        status: crew.status(state.agents_of(crew.id)),
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        agents: crew.size,
        min_ready: crew.manifest.min_ready.unwrap_or(crew.size),
        tasks,
        created_at: crew.created,
        revision: crew.revision,
    }
}

/// A plugin.
pub(crate) fn plugin(plugin: &Plugin) -> api::plugin::Plugin {
    api::plugin::Plugin {
        digest: plugin.digest,
        name: plugin.manifest.plugin.name.to_string(),
        version: plugin.manifest.plugin.version.to_string(),
        size: plugin.size.0,
        exports: plugin.exports.clone(),
        imports: plugin.imports.clone(),
        manifest: plugin.manifest.clone(),
        installed_at: plugin.installed_at,
    }
}

/// What the event stream calls the phase of a crew.
pub(crate) fn crew_phase(phase: CrewPhase) -> &'static str {
    match phase {
        CrewPhase::Live => "live",
        CrewPhase::Draining => "draining",
        CrewPhase::Stopped => "stopped",
    }
}
