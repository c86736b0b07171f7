//! Plans as a submitter gives them and as a tree is told again.

use std::collections::BTreeMap;

use skep_rules::{
    id::{NodeName, TaskId},
    plan,
    task::Task,
};

use super::tasks;
use crate::{
    driver::Driver,
    http::{
        api::{
            self, content,
            plan::{Export, NamedNote, Node, Note, Slot},
            task::{Durability, NewTask, RetryPolicy},
        },
        problem::{Answer, Refusal},
    },
};

/// The plan that comes with a task. Whether it hangs together is for the rules to say.
pub(super) fn given(driver: &Driver, task: &NewTask, crew: Option<&str>) -> Answer<Option<plan::Plan>> {
    if task.verify_before_next && task.nodes.is_empty() {
        let message = "`verifyBeforeNext` is said of `nodes`, and there are none; a planner says it of its own plan";
        return Err(Refusal::invalid(message));
    }
    Ok(nodes(driver, &task.nodes, crew)?.map(|plan| plan::Plan {
        verify_before_next: task.verify_before_next,
        ..plan
    }))
}

/// Recursion is bounded by that of JSON.
fn nodes(driver: &Driver, nodes: &[Node], crew: Option<&str>) -> Answer<Option<plan::Plan>> {
    if nodes.is_empty() {
        return Ok(None);
    }
    let nodes = nodes.iter().map(|node| read(driver, node, crew));
    Ok(Some(plan::Plan {
        nodes: nodes.collect::<Answer<_>>()?,
        verify_before_next: false,
    }))
}

fn read(driver: &Driver, node: &Node, crew: Option<&str>) -> Answer<plan::Node> {
    let name: NodeName = node
        .name
        .parse()
        .map_err(|error| Refusal::invalid(format!("`name` of a node: {error}")))?;
    let slot = |slot: &Slot| plan::Slot {
        field: slot.field.clone(),
        node: slot.node.clone(),
        schema: slot.schema.clone(),
    };
    let retry = node.retry.clone().unwrap_or_default();
    Ok(plan::Node {
        description: node.description.clone(),
        roles: node.roles.clone(),
        input: tasks::input(driver, &node.input, &node.name, crew)?,
        dependencies: node.dependencies.clone(),
        check: node.check,
        optional: node.optional,
        integrates: node.integrates,
        max_retries: retry.max_retries,
        retry: retry
            .policy()
            .map_err(|why| Refusal::invalid(format!("`retry` of `{name}`: {why}")))?,
        timeouts: node.timeouts.unwrap_or_default().into(),
        plan: node.plan,
        lane: node.lane.clone(),
        priority: node.priority,
        approval: node.approval,
        note: node.note.clone(),
        output: node.output.clone(),
        slots: node.slots.iter().map(slot).collect(),
        parts: nodes(driver, &node.nodes, crew)?,
        ..plan::Node::named(name)
    })
}

/// The tree under a task as it can be submitted again. Parts that a run has spawned are left out: a run of the same task spawns them again.
pub(super) fn export(tasks: &BTreeMap<TaskId, Task>, id: TaskId) -> Option<Export> {
    let task = tasks.get(&id)?;
    let nodes = parts(tasks, task);
    let note = |note: &plan::Note| {
        Note::Named(NamedNote {
            name: note.name.clone(),
            text: note.text.clone(),
        })
    };
    Some(Export::of(NewTask {
        description: task.description.clone(),
        input: content::to_json(&task.input),
        roles: task.roles.clone(),
        plan: task.plan && nodes.is_empty(),
        notes: task.notes.iter().map(note).collect(),
        check: task.check,
        retry: Some(RetryPolicy::of(task.max_retries, &task.retry)),
        labels: task.labels.clone(),
        durability: match task.ephemeral {
            true => Durability::Ephemeral,
            false => Durability::Synced,
        },
        priority: Some(task.priority),
        timeouts: (task.timeouts != Default::default()).then(|| task.timeouts.into()),
        on_part_failure: Some(task.on_failure),
        approval: task.points.map(|points| api::task::Approval {
            before: points.before.is_some(),
            after: points.after.is_some(),
            expires: points.terms.expires,
            on_timeout: points.terms.on_timeout,
        }),
        nodes,
        ..NewTask::default()
    }))
}

fn parts(tasks: &BTreeMap<TaskId, Task>, of: &Task) -> Vec<Node> {
    let planned = of.parts().iter().filter_map(|id| tasks.get(id));
    planned.filter_map(|task| node(tasks, task)).collect()
}

/// A part with everything that was made of its plan, so that `check`, lanes and dependencies stand for themselves.
fn node(tasks: &BTreeMap<TaskId, Task>, task: &Task) -> Option<Node> {
    let node = task.node(|id| tasks.get(&id)?.name.clone())?;
    let nodes = parts(tasks, task);
    let slot = |slot: plan::Slot| Slot {
        field: slot.field,
        node: slot.node,
        schema: slot.schema,
    };
    Some(Node {
        name: node.name.to_string(),
        description: node.description,
        roles: node.roles,
        input: content::to_json(&node.input),
        dependencies: node.dependencies,
        check: node.check,
        optional: node.optional,
        integrates: node.integrates,
        retry: node.max_retries.map(|most| RetryPolicy::of(most, &node.retry)),
        timeouts: (node.timeouts != Default::default()).then(|| node.timeouts.into()),
        plan: node.plan && nodes.is_empty(),
        lane: node.lane,
        priority: node.priority,
        approval: node.approval,
        note: node.note,
        output: node.output,
        slots: node.slots.into_iter().map(slot).collect(),
        nodes,
    })
}
