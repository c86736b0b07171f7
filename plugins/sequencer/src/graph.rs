//! What waits for what, by the places of nodes in their plan: dependencies, slots and lanes.

use std::collections::BTreeMap;

use petgraph::graph::{DiGraph, NodeIndex};
use skep_sdk::{Failure, Plan};

/// What waits for what.
pub(crate) struct Graph {
    names: Vec<String>,
    /// From what is waited for to what waits.
    all: DiGraph<(), ()>,
    /// Who is waited for by another one's dependencies or slots.
    waited_for: Vec<bool>,
}

impl Graph {
    /// The graph of a plan. Fails where two nodes have one name, or one waits for another that is not there.
    pub(crate) fn of(plan: &Plan) -> Result<Graph, Failure> {
        let mut graph = Graph {
            names: plan.nodes.iter().map(|node| node.name.clone()).collect(),
            all: DiGraph::new(),
            waited_for: vec![false; plan.nodes.len()],
        };
        let mut places = BTreeMap::new();
        for node in &plan.nodes {
            let place = graph.all.add_node(());
            if places.insert(node.name.as_str(), place).is_some() {
                return Err(Failure::never(format!("two nodes are called `{}`", node.name)));
            }
        }
        let mut lanes = BTreeMap::new();
        for (node, place) in plan.nodes.iter().zip(graph.all.node_indices()) {
            let waits = node.dependencies.iter().chain(node.slots.iter().map(|slot| &slot.node));
            for name in waits {
                let Some(dependency) = places.get(name.as_str()) else {
                    return Err(Failure::never(format!(
                        "`{}` depends on `{name}`, which is not in the plan",
                        node.name
                    )));
                };
                graph.all.update_edge(*dependency, place, ());
                if let Some(waited_for) = graph.waited_for.get_mut(dependency.index()) {
                    *waited_for = true;
                }
            }
            let lane = node.lane.as_deref();
            // Where a plan goes in small steps, nodes without a lane share one.
            if (lane.is_some() || plan.verify_before_next)
                && let Some(before) = lanes.insert(lane, place)
            {
                graph.all.update_edge(before, place, ());
            }
        }
        Ok(graph)
    }

    /// Those that nobody waits for.
    pub(crate) fn ends(&self) -> Vec<usize> {
        let ends = self.waited_for.iter().enumerate();
        ends.filter(|(_, waited_for)| !**waited_for)
            .map(|(index, _)| index)
            .collect()
    }

    /// One more node, which waits for these.
    pub(crate) fn add(&mut self, waits: &[usize]) {
        let place = self.all.add_node(());
        for dependency in waits {
            self.all.update_edge(NodeIndex::new(*dependency), place, ());
        }
    }

    /// Lets one node wait for another, unless that waits for it.
    pub(crate) fn let_follow(&mut self, before: usize, after: usize) -> bool {
        let (before, after) = (NodeIndex::new(before), NodeIndex::new(after));
        let possible = !petgraph::algo::has_path_connecting(&self.all, after, before, None);
        if possible {
            self.all.update_edge(before, after, ());
        }
        possible
    }

    /// The nodes by the longest way to them, each level in the order of the plan. Fails where nodes wait for each other.
    pub(crate) fn levels(&self) -> Result<Vec<Vec<usize>>, Failure> {
        let order = petgraph::algo::toposort(&self.all, None).map_err(|cycle| {
            let name = self.names.get(cycle.node_id().index()).map_or("", String::as_str);
            Failure::never(format!("the plan has a cycle, in which `{name}` waits for itself"))
        })?;
        let mut level = vec![0usize; self.all.node_count()];
        for node in order {
            let before = self.all.neighbors_directed(node, petgraph::Direction::Incoming);
            let deepest = before.filter_map(|before| level.get(before.index())).max();
            let own = deepest.map_or(0, |deepest| deepest + 1);
            if let Some(level) = level.get_mut(node.index()) {
                *level = own;
            }
        }
        let mut levels = Vec::new();
        for (node, level) in level.into_iter().enumerate() {
            if levels.len() <= level {
                levels.resize(level + 1, Vec::new());
            }
            if let Some(level) = levels.get_mut(level) {
                level.push(node);
            }
        }
        Ok(levels)
    }
}
