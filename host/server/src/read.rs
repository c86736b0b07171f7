//! Records as clients see them.

use skep_rules::{
    agent::{Agent, Phase},
    approval::{Approval, Item, Settled, Verdict},
    crew_record::{Crew, CrewPhase},
    id::Digest,
    key::PublicKey,
    lifecycle::Timeouts,
    metadata::Keys,
    plugin::Plugin,
    quantity::Time,
    schedule::{self, Schedule},
    state::State,
    task::Task,
    trust::Trusted,
    widening,
};

use crate::{
    http::api::{
        self,
        key::{Document, Key, Role, Root},
        plugin::{Difference, Signature, Standing},
    },
    words,
};

/// The word for what an audit entry is about.
pub(crate) fn audit_kind(kind: skep_rules::audit::Kind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A schedule.
pub(crate) fn schedule(state: &State, of: &Schedule) -> api::schedule::Schedule {
    let when = match &of.when {
        schedule::When::Cron { pattern, zone } => api::schedule::When {
            cron: Some(pattern.clone()),
            zone: Some(zone.clone()),
            ..Default::default()
        },
        schedule::When::Every { every, first } => api::schedule::When {
            every: Some(*every),
            first: Some(*first),
            ..Default::default()
        },
        schedule::When::Once(at) => api::schedule::When {
            at: Some(*at),
            ..Default::default()
        },
    };
    let live = state.crew_named(&of.crew).map(|crew| crew.phase);
    api::schedule::Schedule {
        name: of.name.clone(),
        crew: of.crew.clone(),
        when,
        missed: of.missed,
        description: of.task.description.clone(),
        next: of.next,
        resting: live != Some(CrewPhase::Live),
        fired: of.fired,
        last: of.last.clone().map(|last| api::schedule::Last {
            due: last.due,
            at: last.at,
            task: last.task.as_ref().ok().copied(),
            failure: last.task.err().map(Into::into),
        }),
        passed: of.passed.map(|(first, before)| api::schedule::Passed { first, before }),
        by: of.by.clone(),
        revision: of.revision,
        created_at: of.created,
    }
}

/// A task.
pub(crate) fn task(task: Task) -> api::task::Task {
    let part = task.part.map(|part| *part).unwrap_or_default();
    api::task::Task {
        lane: part.lane,
        note: part.note,
        fuel_budget: task.budget,
        task_id: task.id,
        name: task.name,
        description: task.description,
        state: task.state,
        status: task.state.into(),
        a2a_state: task.state.into(),
        priority: task.priority,
        timeouts: (task.timeouts != Timeouts::default()).then(|| task.timeouts.into()),
        retry_at: task.not_before,
        history: task.history.into_iter().map(Into::into).collect(),
        redrives: task.redrives,
        durability: match task.ephemeral {
            true => api::task::Durability::Ephemeral,
            false => api::task::Durability::Synced,
        },
        crew: task.crew,
        dependencies: task.dependencies,
        assigned_agent: task.held.map(|held| held.lease.agent).or(task.last_agent),
        run: task.run,
        steps: task.steps,
        waits: task.wait.filter(|_| task.asks.is_none()).map(|wait| api::task::Waits {
            tasks: wait.tasks,
            all: wait.all,
            until: wait.until,
        }),
        approval: task.asks.map(|asks| asks.approval),
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

/// An approval, open or over.
pub(crate) fn approval(approval: &Approval) -> api::approval::Approval {
    let item = |(item, verdict): (&Item, Option<&Verdict>)| api::approval::Item {
        name: item.name.clone(),
        arguments: item.arguments.clone(),
        parsed: item.parsed,
        verdict: verdict.cloned(),
    };
    api::approval::Approval {
        approval_id: approval.id,
        task: approval.task,
        crew: approval.crew,
        point: approval.point,
        action: approval.action.clone(),
        question: approval.question.clone(),
        items: approval.decided().map(item).collect(),
        component: approval.component,
        digest: approval.digest,
        requester: approval.requester.clone(),
        asked_at: approval.asked,
        expires_at: approval.until,
        on_timeout: approval.terms.on_timeout,
        escalated: approval.escalated,
        settled: approval.settled.map(|(how, _)| how),
        settled_at: approval.settled.map(|(_, at)| at),
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
        signature: standing(state, member.digest),
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
    for (standing, tasks_so) in state.standing(crew.id) {
        let count = match api::task::Status::from(standing) {
            api::task::Status::Pending => &mut tasks.pending,
            api::task::Status::InProgress => &mut tasks.in_progress,
            api::task::Status::Completed => &mut tasks.completed,
            api::task::Status::Failed => &mut tasks.failed,
        };
        *count += tasks_so as u64;
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

/// A plugin, installed or about to be.
pub(crate) fn plugin(state: &State, plugin: &Plugin) -> api::plugin::Plugin {
    let void = state.trust().stands(plugin).err();
    let signed = plugin.signed.as_ref();
    api::plugin::Plugin {
        digest: plugin.digest,
        name: plugin.manifest.plugin.name.to_string(),
        version: plugin.manifest.plugin.version.to_string(),
        size: plugin.size.0,
        exports: plugin.exports.clone(),
        imports: plugin.imports.clone(),
        manifest: plugin.manifest.clone(),
        installed_at: plugin.installed_at,
        signature: Signature {
            state: match (&void, signed) {
                (Some(_), _) => Standing::Revoked,
                (None, Some(_)) => Standing::Signed,
                (None, None) => Standing::Unsigned,
            },
            why: void.map(|rejection| rejection.message),
            release_seq: signed.map(|signed| signed.release_seq),
            statement: signed.map(|signed| signed.statement),
            keys: signed.map(|signed| signed.signers.clone()).unwrap_or_default(),
            needed: signed.map_or(0, |signed| signed.needed),
        },
    }
}

/// How the plugin of an agent stands; one that is removed has nobody who vouches for it.
fn standing(state: &State, component: Digest) -> Standing {
    match state.plugin(component) {
        _ if state.is_void(component) => Standing::Revoked,
        Some(plugin) if plugin.signed.is_some() => Standing::Signed,
        _ => Standing::Unsigned,
    }
}

/// What one release asks for and offers that another does not.
pub(crate) fn difference(from: &Plugin, to: &Plugin) -> Difference {
    let old = (&from.manifest, from.imports.as_slice());
    let new = (&to.manifest, to.imports.as_slice());
    Difference {
        from: from.digest,
        to: to.digest,
        wider: widening::widenings(old, new).iter().map(ToString::to_string).collect(),
        changes: widening::changes(old, new).iter().map(ToString::to_string).collect(),
    }
}

/// All that is trusted.
pub(crate) fn trust(state: &State, now: Time) -> api::key::Trust {
    let trust = state.trust();
    let metadata = trust.metadata();
    let key = |key: &PublicKey| Key {
        id: key.id(),
        key: *key,
        words: words::of(key.id()),
        revoked: metadata.revoked.keys.contains(&key.id()),
    };
    let role = |keys: &Keys| Role {
        keys: keys.keys.iter().map(key).collect(),
        threshold: keys.threshold,
    };
    let publisher = |trusted: &Trusted| {
        let publisher = &trusted.publisher;
        api::key::Publisher {
            name: publisher.name.clone(),
            release: role(&publisher.release),
            recovery: publisher.recovery.as_ref().map(key),
            plugins: publisher.plugins.clone(),
            ceiling: publisher.ceiling.clone(),
            expires: publisher.expires,
            since: trusted.since,
            rotation: trusted.rotation,
        }
    };
    api::key::Trust {
        publishers: trust.publishers().map(publisher).collect(),
        root: metadata.roles.as_ref().map(|roles| Root {
            version: roles.version,
            expires: roles.expires,
            root: role(&roles.root),
            index: roles.index.as_ref().map(role),
            clock: roles.clock.as_ref().map(role),
        }),
        index: metadata.index.as_ref().map(|index| Document {
            version: index.version,
            expires: index.expires,
            index: index.digest,
        }),
        clock: metadata.clock.as_ref().map(|clock| Document {
            version: clock.version,
            expires: clock.expires,
            index: clock.index,
        }),
        revoked: metadata.revoked.clone(),
        time: trust.time(now),
        clock_time: now,
    }
}

/// What the event stream calls how an approval is over.
pub(crate) fn settled(settled: Option<Settled>) -> &'static str {
    match settled {
        None => "open",
        Some(Settled::Decided) => "decided",
        Some(Settled::Expired) => "expired",
        Some(Settled::Withdrawn) => "withdrawn",
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
