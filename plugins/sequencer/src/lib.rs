//! Puts the tasks of a plan in order and joins its parts. It adds dependencies, lanes and at most one task, and changes nothing else:
//!
//! - **Integration.** Where no task integrates and several are waited for by nobody, a new task `integrate` of the role `integrator` waits for all of
//!   these, and its output is that of the plan. Tasks of that role, and those whose name begins with `integrate`, run one after the other, in the lane
//!   `integration`, unless the plan gives them another lane.
//! - **Groups.** What waits for nothing is the first group, what waits only for that is the second, and so on. A group begins when the one before it has
//!   ended: each of its tasks waits for all of that one, and is told of their ends. Where one of two groups has more than [`MAX_GROUP`] tasks nothing is
//!   added between them, because every pair of tasks would be a dependency, and one slow task would hold up many.
//!
//! It wants nothing and asks nobody.

mod graph;

use std::collections::BTreeSet;

use skep_sdk::{Failure, Node, Payload, Plan, Sequencer, log};

use graph::Graph;

/// The most nodes that the host takes in one plan.
const MAX_NODES: usize = 1000;
/// The most tasks of a group that is joined to the next one.
const MAX_GROUP: usize = 50;
/// Who joins parts.
const ROLE: &str = "integrator";
/// What the task that joins is called, and how the names of others like it begin.
const NAME: &str = "integrate";
/// Where they run, one after the other.
const LANE: &str = "integration";

struct Order;

impl Sequencer for Order {
    fn sequence(mut plan: Plan) -> Result<Plan, Failure> {
        let mut graph = Graph::of(&plan)?;
        join(&mut plan, &mut graph);
        line_up(&mut plan, &mut graph);
        let added = group(&mut plan, &graph.levels()?);
        log::info(format!("{} tasks, {added} dependencies added", plan.nodes.len()));
        Ok(plan)
    }
}

skep_sdk::sequencer!(Order);

/// Adds the task that joins the parts, if nobody does.
fn join(plan: &mut Plan, graph: &mut Graph) {
    let ends = graph.ends();
    if ends.len() < 2 || plan.nodes.iter().any(|node| node.integrates) {
        return;
    }
    if plan.nodes.len() >= MAX_NODES {
        log::warn(format!("nothing joins the parts: a plan has at most {MAX_NODES} tasks"));
        return;
    }
    let taken: BTreeSet<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    let mut name = NAME.to_owned();
    for number in 2.. {
        if !taken.contains(name.as_str()) {
            break;
        }
        name = format!("{NAME}-{number}");
    }
    let names = ends.iter().filter_map(|end| plan.nodes.get(*end));
    let node = Node {
        dependencies: names.map(|node| node.name.clone()).collect(),
        integrates: true,
        lane: Some(LANE.to_owned()),
        ..Node::new(name, "Join the parts", ROLE, Payload::Inline(b"{}".to_vec()))
    };
    graph.add(&ends);
    plan.nodes.push(node);
}

/// Puts those that join parts in a lane. Where nodes go in small steps they share one already.
fn line_up(plan: &mut Plan, graph: &mut Graph) {
    if plan.verify_before_next {
        return;
    }
    let mut last = None;
    for (index, node) in plan.nodes.iter_mut().enumerate() {
        let joins = node.roles.iter().any(|role| role == ROLE) || node.name.starts_with(NAME);
        let is_in_lane = node.lane.as_deref() == Some(LANE);
        if !is_in_lane && (!joins || node.lane.is_some()) {
            continue;
        }
        // A lane goes in the order of the plan. What one before it waits for cannot come after that, and is in order without a lane.
        if let Some(last) = last
            && !graph.let_follow(last, index)
            && !is_in_lane
        {
            continue;
        }
        node.lane = Some(LANE.to_owned());
        last = Some(index);
    }
}

/// Lets each group wait for the one before it. How many dependencies that took.
fn group(plan: &mut Plan, levels: &[Vec<usize>]) -> usize {
    let mut added = 0;
    for pair in levels.windows(2) {
        let [before, after] = pair else { continue };
        if before.len() > MAX_GROUP || after.len() > MAX_GROUP {
            continue;
        }
        let names: Vec<String> = before
            .iter()
            .filter_map(|index| plan.nodes.get(*index))
            .map(|node| node.name.clone())
            .collect();
        for node in after {
            let Some(node) = plan.nodes.get_mut(*node) else {
                continue;
            };
            let slots = node.slots.iter().map(|slot| &slot.node);
            let known: BTreeSet<String> = node.dependencies.iter().chain(slots).cloned().collect();
            let missing = names.iter().filter(|name| !known.contains(*name));
            let length = node.dependencies.len();
            node.dependencies.extend(missing.cloned());
            added += node.dependencies.len() - length;
        }
    }
    added
}

#[cfg(test)]
mod tests;
