//! Joins the parts of a plan. The host runs what can run together and knows the levels of a plan itself; this adds what it cannot know:
//!
//! - Where no task integrates and several are waited for by nobody, a new task `integrate` of the role `integrator` waits for all of these, and its
//!   output is that of the plan.
//! - Tasks of that role, and those whose name begins with `integrate`, run one after the other, in the lane `integration`, unless the plan gives them
//!   another lane.
//!
//! It wants nothing and asks nobody. What it is given hangs together: the host has checked it.

use std::collections::BTreeSet;

use skep_sdk::{Failure, Node, Payload, Plan, Sequencer};

/// The most nodes that the host takes in one plan.
const MAX_NODES: usize = 1000;
/// Who joins parts.
const ROLE: &str = "integrator";
/// What the task that joins is called, and how the names of others like it begin.
const NAME: &str = "integrate";
/// Where they run, one after the other.
const LANE: &str = "integration";

struct Order;

impl Sequencer for Order {
    fn sequence(mut plan: Plan) -> Result<Plan, Failure> {
        plan.nodes.extend(joining(&plan));
        // Where nodes go in small steps they share a lane already.
        for node in plan.nodes.iter_mut().filter(|_| !plan.verify_before_next) {
            let joins = node.name.starts_with(NAME) || node.roles.iter().any(|role| role == ROLE);
            if joins && node.lane.is_none() {
                node.lane = Some(LANE.to_owned());
            }
        }
        Ok(plan)
    }
}

skep_sdk::sequencer!(Order);

/// The task that joins the parts, where nobody does.
fn joining(plan: &Plan) -> Option<Node> {
    let waits = |node: &Node| {
        [
            node.dependencies.clone(),
            node.slots.iter().map(|slot| slot.node.clone()).collect(),
        ]
        .concat()
    };
    let waited_for: BTreeSet<String> = plan.nodes.iter().flat_map(waits).collect();
    let names = || plan.nodes.iter().map(|node| &node.name);
    let ends: Vec<String> = names().filter(|name| !waited_for.contains(*name)).cloned().collect();
    let is_joined = ends.len() < 2 || plan.nodes.iter().any(|node| node.integrates);
    if is_joined || plan.nodes.len() >= MAX_NODES {
        return None;
    }
    let numbered = (2..).map(|number| format!("{NAME}-{number}"));
    let name = std::iter::once(NAME.to_owned())
        .chain(numbered)
        .find(|name| names().all(|taken| taken != name))?;
    Some(Node {
        dependencies: ends,
        integrates: true,
        ..Node::new(name, "Join the parts", ROLE, Payload::Inline(b"{}".to_vec()))
    })
}

#[cfg(test)]
mod tests;
