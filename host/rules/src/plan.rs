//! Payloads, plans and what becomes of an attempt: the values that agents take and give, in the host's own form. Plans are checked here;
//! cycles are found with petgraph and named.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};

use crate::{
    id::{Digest, NodeName, Role},
    limits::{MAX_DEPENDENCIES, MAX_PAYLOAD_BYTES, MAX_PLAN_NODES, MAX_RETRIES, MAX_ROLES, MAX_TEXT_BYTES},
    quantity::Millis,
};

/// A blob of a crew.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Artifact {
    /// SHA-256 of the bytes.
    #[n(0)]
    pub digest: Digest,
    /// Length in bytes.
    #[n(1)]
    pub size: u64,
    /// Media type.
    #[n(2)]
    pub media: String,
}

/// What a task takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum Payload {
    /// The bytes, at most [`MAX_PAYLOAD_BYTES`].
    #[n(0)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A blob of the crew.
    #[n(1)]
    Artifact(#[n(0)] Artifact),
}

impl Payload {
    /// Whether it is within the inline limit. Artifacts always are.
    #[must_use]
    pub fn fits(&self) -> bool {
        match self {
            Payload::Inline(bytes) => bytes.len() <= MAX_PAYLOAD_BYTES,
            Payload::Artifact(_) => true,
        }
    }
}

/// A child task to be.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Node {
    /// Unique in its plan.
    #[n(0)]
    pub name: NodeName,
    /// For people.
    #[n(1)]
    pub description: String,
    /// Any agent with one of them may execute it.
    #[n(2)]
    pub roles: BTreeSet<Role>,
    /// What to work on.
    #[n(3)]
    pub input: Payload,
    /// Nodes whose ends it waits for.
    #[n(4)]
    pub dependencies: Vec<NodeName>,
    /// Have the result checked.
    #[n(5)]
    pub check: bool,
    /// Its failure stops nobody.
    #[n(6)]
    pub optional: bool,
    /// Its output is the plan's.
    #[n(7)]
    pub integrates: bool,
    /// How often it may be tried again; the host's default when absent.
    #[n(8)]
    pub max_retries: Option<u32>,
}

/// How a task is split.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Plan {
    /// The child tasks to be.
    #[n(0)]
    pub nodes: Vec<Node>,
}

/// Why a plan was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It has no nodes.
    #[error("a plan has at least one node")]
    Empty,
    /// It has more nodes than [`MAX_PLAN_NODES`].
    #[error("a plan has at most {MAX_PLAN_NODES} nodes, this one {0}")]
    TooMany(usize),
    /// Two nodes of one name.
    #[error("two nodes are called `{0}`")]
    Twice(NodeName),
    /// A node waits for one that is not there.
    #[error("`{node}` depends on `{dependency}`, which is not in the plan")]
    Unknown {
        /// The node.
        node: NodeName,
        /// What it waits for.
        dependency: NodeName,
    },
    /// Nodes wait for each other.
    #[error("the plan has a cycle: {}", .0.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" → "))]
    Cycle(Vec<NodeName>),
    /// More than one node integrates.
    #[error("`{0}` and `{1}` both integrate; a plan has one output")]
    TwoOutputs(NodeName, NodeName),
    /// Something about one node.
    #[error("`{node}`: {what}")]
    Node {
        /// The node.
        node: NodeName,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Plan {
    /// Checks that every bound holds, that names are unique, that dependencies exist and that nothing waits for itself.
    ///
    /// # Errors
    /// The first thing that is wrong, with the nodes concerned. A cycle is named whole, beginning and ending with the same node.
    pub fn check(&self) -> Result<(), Error> {
        match self.nodes.len() {
            0 => return Err(Error::Empty),
            n if n > MAX_PLAN_NODES => return Err(Error::TooMany(n)),
            _ => {}
        }
        let mut graph = DiGraph::<&NodeName, ()>::with_capacity(self.nodes.len(), self.nodes.len());
        let mut index = BTreeMap::<&NodeName, NodeIndex>::new();
        let mut output: Option<&NodeName> = None;
        for node in &self.nodes {
            node.check()?;
            if index.insert(&node.name, graph.add_node(&node.name)).is_some() {
                return Err(Error::Twice(node.name.clone()));
            }
            if node.integrates
                && let Some(first) = output.replace(&node.name)
            {
                return Err(Error::TwoOutputs(first.clone(), node.name.clone()));
            }
        }
        for node in &self.nodes {
            for dependency in &node.dependencies {
                let (Some(from), Some(to)) = (index.get(dependency), index.get(&node.name)) else {
                    return Err(Error::Unknown {
                        node: node.name.clone(),
                        dependency: dependency.clone(),
                    });
                };
                graph.update_edge(*from, *to, ());
            }
        }
        match petgraph::algo::toposort(&graph, None) {
            Ok(_) => Ok(()),
            Err(cycle) => Err(Error::Cycle(name_cycle(&graph, cycle.node_id()))),
        }
    }
}

/// The cycle that a node lies on: some path from it back to itself.
fn name_cycle(graph: &DiGraph<&NodeName, ()>, start: NodeIndex) -> Vec<NodeName> {
    let path = graph.neighbors(start).find_map(|next| {
        petgraph::algo::astar(graph, next, |node| node == start, |_| 1_u32, |_| 0).map(|(_, path)| path)
    });
    let nodes = std::iter::once(start).chain(path.into_iter().flatten());
    nodes
        .filter_map(|node| graph.node_weight(node))
        .map(|name| (*name).clone())
        .collect()
}

impl Node {
    fn check(&self) -> Result<(), Error> {
        let refuse = |what| {
            Err(Error::Node {
                node: self.name.clone(),
                what,
            })
        };
        if self.description.len() > MAX_TEXT_BYTES {
            return refuse("the description is longer than 4096 bytes");
        }
        if self.roles.is_empty() || self.roles.len() > MAX_ROLES {
            return refuse("it needs 1 to 16 roles");
        }
        if self.dependencies.len() > MAX_DEPENDENCIES {
            return refuse("it has more than 1000 dependencies");
        }
        if self.max_retries.is_some_and(|n| n > MAX_RETRIES) {
            return refuse("it asks for more than 100 retries");
        }
        if !self.input.fits() {
            return refuse("its input is larger than 256 KiB; store it as an artifact");
        }
        Ok(())
    }
}

/// Advice of an agent about its own failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// The same input fails the same way.
    #[n(0)]
    Never,
    /// After the task's own delay.
    #[n(1)]
    Later,
    /// Not before so long.
    #[n(2)]
    After(#[n(0)] Millis),
}

/// What an agent's export returned.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum Outcome {
    /// A result (of `execute`).
    #[n(0)]
    Done(#[n(0)] Payload),
    /// A plan (of `plan`, or of `execute` that decomposes).
    #[n(1)]
    Plan(#[n(0)] Plan),
    /// The checker accepts.
    #[n(2)]
    Accepted,
    /// The checker sends the result back.
    #[n(3)]
    Rejected(#[n(0)] String),
    /// The agent reported a failure.
    #[n(4)]
    Failed {
        /// Its message.
        #[n(0)]
        message: String,
        /// Its advice.
        #[n(1)]
        retry: Retry,
    },
    /// The run is over and another one of the same task begins, with this input and an empty record (of `tasks.continue`).
    #[n(5)]
    Continue(#[n(0)] Payload),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: &[(&str, &[&str])]) -> Plan {
        let node = |(name, dependencies): &(&str, &[&str])| Node {
            name: name.parse().unwrap(),
            description: String::new(),
            roles: ["worker".parse().unwrap()].into(),
            input: Payload::Inline(Vec::new()),
            dependencies: dependencies.iter().map(|name| name.parse().unwrap()).collect(),
            check: false,
            optional: false,
            integrates: false,
            max_retries: None,
        };
        Plan {
            nodes: nodes.iter().map(node).collect(),
        }
    }

    #[test]
    fn a_plan_without_cycles_is_accepted() {
        assert_eq!(
            plan(&[("a", &[]), ("b", &["a"]), ("c", &["a", "b", "b"])]).check(),
            Ok(())
        );
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_named() {
        let cases: &[(Plan, &str)] = &[
            (plan(&[]), "a plan has at least one node"),
            (plan(&[("a", &[]), ("a", &[])]), "two nodes are called `a`"),
            (plan(&[("a", &["x"])]), "`a` depends on `x`, which is not in the plan"),
            (plan(&[("a", &["a"])]), "the plan has a cycle: a → a"),
            (
                plan(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]),
                "the plan has a cycle: b → c → b",
            ),
        ];
        for (plan, expected) in cases {
            let error = plan.check().unwrap_err().to_string();
            let turned = expected.replace("b → c → b", "c → b → c");
            assert!(error == *expected || error == turned, "{error}");
        }
    }

    #[test]
    fn only_one_node_integrates() {
        let mut plan = plan(&[("a", &[]), ("b", &[])]);
        plan.nodes.iter_mut().for_each(|node| node.integrates = true);
        assert!(matches!(plan.check(), Err(Error::TwoOutputs(..))));
    }
}
