//! A task as an attempt sees it, with the ends of what it waited for and, for an integrating task, what the host knows.

use serde_json::json;

use super::Decision;
use crate::{
    reason::Reason,
    seam::{Export, TaskView},
    task::{Task, TaskState},
};

impl Decision<'_> {
    pub(super) fn view(&self, task: &Task) -> TaskView {
        let live = task.dependencies.iter().filter_map(|id| self.state.task(*id));
        let view = task.view(live.map(Task::end));
        TaskView {
            facts: self.facts_for(task),
            records: view.records && task.export() != Export::Checker,
            deadline: view.deadline.filter(|_| task.export() != Export::Checker),
            fuel: view.fuel.filter(|_| task.export() != Export::Checker),
            began: task.began.filter(|_| task.steps > 0).unwrap_or(self.now),
            ..view
        }
    }

    /// What an integrating task is told of the host: what it knew when the run began, where the run has a record.
    pub(super) fn facts_for(&self, task: &Task) -> Option<Vec<u8>> {
        match task.steps {
            0 => task.integrates.then(|| self.facts(task)),
            _ => task.facts.clone(),
        }
    }

    /// What the host knows about the objective so far, as JSON: where it works, since when, what was refused to whom, how its tasks stand
    /// and what the agents of the crew have used.
    fn facts(&self, task: &Task) -> Vec<u8> {
        let tree = self.state.tree(task.root);
        let name = |id| self.state.agent(id).map(|agent| agent.name.clone());
        let mut denied = Vec::new();
        for of in &tree {
            let agent = of.last_agent.and_then(name);
            for denial in &of.denials {
                denied.push(json!({
                    "agent": agent, "attempt": of.description, "code": denial.reason.code(),
                    "detail": denial.what, "count": denial.count,
                }));
            }
            if let Some(failure) = of
                .failure
                .as_ref()
                .filter(|failure| of.state == TaskState::Failed && contains(failure.reason))
            {
                denied.push(json!({
                    "agent": agent, "attempt": of.description, "code": failure.reason.code(), "detail": failure.message, "count": 1,
                }));
            }
        }
        let of_state = |state| tree.iter().filter(|task| task.state == state).count();
        let agents: Vec<_> = self
            .state
            .agents_of(task.crew)
            .map(|agent| {
                let plugin = self.state.member_of(agent).map(|member| member.plugin.to_string());
                json!({
                    "name": agent.name, "plugin": plugin, "fuel": agent.fuel.0, "tasks": agent.tasks,
                    "peak_memory_bytes": agent.peak_memory.0,
                })
            })
            .collect();
        let mounts = self
            .state
            .crew(task.crew)
            .map(|crew| crew.manifest.mounts.as_slice())
            .unwrap_or_default();
        let facts = json!({
            "root": mounts.first().map_or("", |mount| mount.host.as_str()),
            "started_at_ms": self.state.task(task.root).map(|root| root.created.0),
            "now_ms": self.now.0,
            "denied": denied,
            "tasks": { "total": tree.len(), "completed": of_state(TaskState::Completed), "failed": of_state(TaskState::Failed) },
            "agents": agents,
        });
        facts.to_string().into_bytes()
    }
}

/// Whether a bound of the host has ended the attempt, rather than the agent itself.
fn contains(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::FuelExhausted
            | Reason::MemoryLimit
            | Reason::DeadlineExceeded
            | Reason::StackOverflow
            | Reason::HandleLimit
            | Reason::HostcallLimit
            | Reason::Trapped
            | Reason::CapabilityDenied
    )
}
