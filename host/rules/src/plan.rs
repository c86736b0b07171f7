//! Payloads, plans and what becomes of an attempt: the values that agents take and give, in the host's own form. Plans are checked here;
//! cycles are found with petgraph and named.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Decoder, Encode, data::Type, decode};
use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};

use crate::{
    id::{Digest, NodeName, Role},
    lifecycle::Timeouts,
    limits::{
        DEFAULT_RETRIES, MAX_DEPENDENCIES, MAX_NOTE_BYTES, MAX_NOTES, MAX_PAYLOAD_BYTES, MAX_PLAN_NODES, MAX_RETRIES,
        MAX_ROLES, MAX_SLOTS, MAX_TASK_DEPTH, MAX_TEXT_BYTES,
    },
    priority::Priority,
    quantity::Millis,
    retry::Policy,
    schema::{Schema, Steps},
    state::none,
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

/// What a submitter gives along with an objective.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Serialize, Deserialize)]
pub struct Note {
    /// What nodes call it that came from it; at most 256 bytes.
    #[n(0)]
    pub name: String,
    /// What the planner is told.
    #[n(1)]
    pub text: String,
}

impl Note {
    /// Whether some notes are within their bounds, and have names that tell them apart.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(notes: &[Note]) -> Result<(), String> {
        let bytes: usize = notes.iter().map(|note| note.text.len()).sum();
        let names: BTreeSet<&str> = notes.iter().map(|note| note.name.as_str()).collect();
        if notes.len() > MAX_NOTES || bytes > MAX_NOTE_BYTES {
            Err(format!("at most {MAX_NOTES} notes of together {MAX_NOTE_BYTES} bytes"))
        } else if names.len() < notes.len() || names.iter().any(|name| !(1..=256).contains(&name.len())) {
            Err("every note has a name of its own, of 1 to 256 bytes".to_owned())
        } else {
            Ok(())
        }
    }
}

/// A note of before notes had names is its text alone.
impl<'b, C> Decode<'b, C> for Note {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        if d.datatype()? == Type::String {
            let text = d.str()?.to_owned();
            return Ok(Note {
                name: "note".to_owned(),
                text,
            });
        }
        match d.array()? {
            Some(2) => Ok(Note {
                name: d.str()?.to_owned(),
                text: d.str()?.to_owned(),
            }),
            _ => Err(decode::Error::message("a note is a name and a text")),
        }
    }
}

/// Where a node waits for a person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum NodePoint {
    /// Before its first attempt.
    #[n(0)]
    Before,
    /// Before its result counts.
    #[n(1)]
    After,
}

/// A field of a node's input that is the output of another node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Slot {
    /// The field.
    #[n(0)]
    pub field: String,
    /// Whose output it is.
    #[n(1)]
    pub node: NodeName,
    /// What the output must be.
    #[n(2)]
    pub schema: Option<Schema>,
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
    /// A planner splits it.
    #[n(9)]
    #[cbor(default)]
    pub plan: bool,
    /// Nodes of one lane run one after the other.
    #[n(10)]
    pub lane: Option<NodeName>,
    /// How urgent it is; as its parent when absent.
    #[n(11)]
    pub priority: Option<Priority>,
    /// Where a person has to approve it.
    #[n(12)]
    pub approval: Option<NodePoint>,
    /// The note that it came from.
    #[n(13)]
    pub note: Option<String>,
    /// What its output will be.
    #[n(14)]
    pub output: Option<Schema>,
    /// Fields of its input that are outputs of others.
    #[n(15)]
    #[cbor(default)]
    pub slots: Vec<Slot>,
    /// How it is split, where the submitter has said that already. Agents cannot say it.
    #[n(16)]
    pub parts: Option<Plan>,
    /// How failures are tried again, beside how often.
    #[n(17)]
    #[cbor(default, skip_if = "none")]
    pub retry: Policy,
    /// How long it may take.
    #[n(18)]
    #[cbor(default, skip_if = "none")]
    pub timeouts: Timeouts,
}

/// How a task is split.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Plan {
    /// The child tasks to be.
    #[n(0)]
    pub nodes: Vec<Node>,
    /// Every result is checked, and the next node of a lane waits for that.
    #[n(1)]
    #[cbor(default)]
    pub verify_before_next: bool,
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
        what: String,
    },
    /// What a planner was given notes for names none, or another.
    #[error("`{node}` names {named} as the note that it came from; there are {notes}")]
    Note {
        /// The node.
        node: NodeName,
        /// What it names.
        named: String,
        /// What there is.
        notes: String,
    },
    /// A sequencer changed more than the order.
    #[error("the sequencer must keep `{0}` as it was, but for dependencies and lane")]
    Changed(NodeName),
}

/// A plan that was checked, with its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The nodes by how many others come before each, at most, along what they depend on: those of one level can run together. Places in the plan,
    /// which order a level.
    pub levels: Vec<Vec<usize>>,
    /// What each node waits for, the node before it in its lane included; places in the plan, ascending.
    pub waits: Vec<Vec<usize>>,
}

impl Plan {
    /// Checks that every bound holds, that names are unique, that dependencies exist, that nothing waits for itself and that outputs fit where they go,
    /// and puts the nodes in order: by levels (Kahn 1962), and within each lane one after the other.
    ///
    /// # Errors
    /// The first thing that is wrong, with the nodes concerned. A cycle is named whole, beginning and ending with the same node.
    pub fn check(&self) -> Result<Order, Error> {
        // An objective stands above it.
        self.check_within(MAX_TASK_DEPTH - 2)
    }

    fn check_within(&self, depth: u32) -> Result<Order, Error> {
        match self.nodes.len() {
            0 => return Err(Error::Empty),
            n if n > MAX_PLAN_NODES => return Err(Error::TooMany(n)),
            _ => {}
        }
        let mut graph = DiGraph::<&NodeName, ()>::with_capacity(self.nodes.len(), self.nodes.len());
        let mut index = BTreeMap::<&NodeName, NodeIndex>::new();
        let mut output: Option<&NodeName> = None;
        for node in &self.nodes {
            node.check(depth)?;
            if index.insert(&node.name, graph.add_node(&node.name)).is_some() {
                return Err(Error::Twice(node.name.clone()));
            }
            if node.integrates
                && let Some(first) = output.replace(&node.name)
            {
                return Err(Error::TwoOutputs(first.clone(), node.name.clone()));
            }
        }
        let mut steps = Steps::default();
        let mut waits = vec![BTreeSet::new(); self.nodes.len()];
        for (node, waits) in self.nodes.iter().zip(&mut waits) {
            for dependency in node.waits_for() {
                let (Some(from), Some(to)) = (index.get(dependency), index.get(&node.name)) else {
                    return Err(Error::Unknown {
                        node: node.name.clone(),
                        dependency: dependency.clone(),
                    });
                };
                graph.update_edge(*from, *to, ());
                waits.insert(from.index());
            }
            for slot in &node.slots {
                let from = index.get(&slot.node).and_then(|at| self.nodes.get(at.index()));
                from.map_or(Ok(()), |from| node.fits(slot, from, &mut steps))?;
            }
        }
        let sorted = petgraph::algo::toposort(&graph, None)
            .map_err(|cycle| Error::Cycle(name_cycle(&graph, cycle.node_id())))?;
        let mut level = vec![0_usize; self.nodes.len()];
        for at in sorted {
            let before = graph.neighbors_directed(at, petgraph::Direction::Incoming);
            let above = before.filter_map(|before| level.get(before.index())).max();
            let own = above.map_or(0, |above| above + 1);
            if let Some(level) = level.get_mut(at.index()) {
                *level = own;
            }
        }
        Ok(self.lanes(&level, waits))
    }

    /// Chains the nodes of each lane. Along (level, place) no node comes before what it depends on, so no chain closes a cycle.
    fn lanes(&self, level: &[usize], mut waits: Vec<BTreeSet<usize>>) -> Order {
        let mut levels: Vec<Vec<usize>> = vec![Vec::new(); level.iter().max().map_or(0, |deepest| deepest + 1)];
        for (at, level) in level.iter().enumerate() {
            levels.get_mut(*level).expect("there is one for each").push(at);
        }
        let mut last: BTreeMap<Option<&NodeName>, usize> = BTreeMap::new();
        for at in levels.iter().flatten().copied() {
            let lane = self.nodes.get(at).and_then(|node| node.lane.as_ref());
            if (lane.is_some() || self.verify_before_next)
                && let (Some(before), Some(waits)) = (last.insert(lane, at), waits.get_mut(at))
            {
                waits.insert(before);
            }
        }
        let waits = waits.into_iter().map(|waits| waits.into_iter().collect()).collect();
        Order { levels, waits }
    }

    /// Whether every node names the note that it came from, where there are any. The node that joins the others has none of its own.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_notes(&self, notes: &[Note]) -> Result<(), Error> {
        let known = |node: &&Node| match &node.note {
            Some(named) => notes.iter().any(|note| note.name == *named),
            None => notes.is_empty() || node.integrates,
        };
        match self.nodes.iter().find(|node| !known(node)) {
            None => Ok(()),
            Some(node) => Err(Error::Note {
                node: node.name.clone(),
                named: node
                    .note
                    .as_ref()
                    .map_or("none".to_owned(), |named| format!("`{named}`")),
                notes: match notes {
                    [] => "none".to_owned(),
                    notes => {
                        let names: Vec<&str> = notes.iter().map(|note| note.name.as_str()).collect();
                        format!("`{}`", names.join("`, `"))
                    }
                },
            }),
        }
    }

    /// Whether this is `before` with more order: each of its nodes is here, as it was but for more dependencies and a lane where there was none.
    ///
    /// # Errors
    /// The first node that is not.
    pub fn keeps(&self, before: &Plan) -> Result<(), Error> {
        let now: BTreeMap<&NodeName, &Node> = self.nodes.iter().map(|node| (&node.name, node)).collect();
        let kept = |old: &&Node| {
            now.get(&old.name).is_some_and(|new| {
                let ordered = Node {
                    dependencies: new.dependencies.clone(),
                    lane: old.lane.clone().or_else(|| new.lane.clone()),
                    ..(*old).clone()
                };
                let waits = |name| new.dependencies.contains(name);
                **new == ordered && old.dependencies.iter().all(waits)
            })
        };
        match before.nodes.iter().find(|old| !kept(old)) {
            Some(node) => Err(Error::Changed(node.name.clone())),
            // Checks that were asked for are not left out.
            None if before.verify_before_next && !self.verify_before_next => {
                let first = before.nodes.first().map(|node| Error::Changed(node.name.clone()));
                first.map_or(Ok(()), Err)
            }
            None => Ok(()),
        }
    }

    /// The same with everything said of each node: what its lane lets it wait for, that it is checked, how often it is tried again. What does not check is
    /// left as it is.
    #[must_use]
    pub fn spelled_out(&self) -> Plan {
        let Ok(order) = self.check() else {
            return self.clone();
        };
        let name = |at: usize| self.nodes.get(at).map(|node| node.name.clone());
        let node = |(node, waits): (&Node, Vec<usize>)| {
            let mut dependencies: Vec<NodeName> = waits.into_iter().filter_map(name).collect();
            dependencies.sort_unstable();
            Node {
                dependencies,
                check: node.check || self.verify_before_next && node.parts.is_none(),
                max_retries: Some(node.max_retries.unwrap_or(DEFAULT_RETRIES)),
                ..node.clone()
            }
        };
        Plan {
            nodes: self.nodes.iter().zip(order.waits).map(node).collect(),
            verify_before_next: false,
        }
    }

    /// Its nodes, those that these are split into included.
    #[must_use]
    pub fn size(&self) -> usize {
        let parts = |node: &Node| node.parts.as_ref().map_or(0, Plan::size);
        self.nodes.iter().map(|node| 1 + parts(node)).sum()
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
    /// A node that is nothing but required: nobody can execute it before it has a role.
    #[must_use]
    pub fn named(name: NodeName) -> Node {
        Node {
            name,
            description: String::new(),
            roles: BTreeSet::new(),
            input: Payload::Inline(Vec::new()),
            dependencies: Vec::new(),
            check: false,
            optional: false,
            integrates: false,
            max_retries: None,
            plan: false,
            lane: None,
            priority: None,
            approval: None,
            note: None,
            output: None,
            slots: Vec::new(),
            parts: None,
            retry: Policy::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// Names of all that it waits for because it says so.
    fn waits_for(&self) -> impl Iterator<Item = &NodeName> {
        self.dependencies.iter().chain(self.slots.iter().map(|slot| &slot.node))
    }

    fn refuse(&self, what: impl Into<String>) -> Error {
        Error::Node {
            node: self.name.clone(),
            what: what.into(),
        }
    }

    fn check(&self, depth: u32) -> Result<(), Error> {
        let refuse = |what: &str| Err(self.refuse(what));
        if self.description.len() > MAX_TEXT_BYTES {
            return refuse("the description is longer than 4096 bytes");
        }
        if self.roles.len() > MAX_ROLES || self.roles.is_empty() && self.parts.is_none() {
            return refuse("it needs 1 to 16 roles");
        }
        if self.dependencies.len() > MAX_DEPENDENCIES {
            return refuse("it has more than 1000 dependencies");
        }
        if self.max_retries.is_some_and(|n| n > MAX_RETRIES) {
            return refuse("it asks for more than 100 retries");
        }
        self.retry.check().map_err(|why| self.refuse(why))?;
        self.timeouts.check().map_err(|why| self.refuse(why))?;
        if !self.input.fits() {
            return refuse("its input is larger than 256 KiB; store it as an artifact");
        }
        if self.note.as_ref().is_some_and(|note| note.len() > 256) {
            return refuse("the name of its note is longer than 256 bytes");
        }
        if let Some(parts) = &self.parts {
            if self.plan {
                return refuse("it is split already, and has no need of a planner");
            }
            let Some(depth) = depth.checked_sub(1) else {
                return Err(self.refuse(format!("tasks nest at most {MAX_TASK_DEPTH} deep")));
            };
            parts.check_within(depth)?;
        }
        self.check_slots()
    }

    fn check_slots(&self) -> Result<(), Error> {
        let fields: BTreeSet<&str> = self.slots.iter().map(|slot| slot.field.as_str()).collect();
        if self.slots.len() > MAX_SLOTS {
            return Err(self.refuse(format!("it has more than {MAX_SLOTS} slots")));
        }
        if fields.len() < self.slots.len() || fields.iter().any(|field| !(1..=64).contains(&field.len())) {
            return Err(self.refuse("every slot fills a field of its own, named by 1 to 64 bytes"));
        }
        if self.slots.is_empty() {
            return Ok(());
        }
        match object(&self.input) {
            None => Err(self.refuse("its slots fill fields of its input, so that must be a JSON object, or empty")),
            Some(input) => match fields.iter().find(|field| input.contains_key(**field)) {
                Some(field) => Err(self.refuse(format!("its input has the field `{field}`, which a slot is to fill"))),
                None => Ok(()),
            },
        }
    }

    /// Whether what another node promises is what a slot takes.
    fn fits(&self, slot: &Slot, from: &Node, steps: &mut Steps) -> Result<(), Error> {
        let (field, node) = (&slot.field, &from.name);
        match (&slot.schema, &from.output) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(self.refuse(format!(
                "its slot `{field}` has a schema, and `{node}` promises nothing of its output (`output`)"
            ))),
            (Some(takes), Some(gives)) => {
                let why = takes.accepts(gives, steps);
                why.map_err(|why| {
                    self.refuse(format!(
                        "its slot `{field}` does not take the output of `{node}`: {why}"
                    ))
                })
            }
        }
    }
}

/// An output as JSON: itself where it is JSON, else a string, or an object with the single key `$hex` or `$artifact`.
#[must_use]
pub fn as_json(payload: &Payload) -> serde_json::Value {
    match payload {
        Payload::Inline(bytes) if bytes.is_empty() => serde_json::Value::Null,
        Payload::Inline(bytes) => serde_json::from_slice(bytes).unwrap_or_else(|_| match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                serde_json::json!({ "$hex": hex })
            }
        }),
        Payload::Artifact(artifact) => serde_json::json!({ "$artifact": artifact }),
    }
}

/// The fields of an input that is a JSON object; none where it is empty.
#[must_use]
pub fn object(input: &Payload) -> Option<serde_json::Map<String, serde_json::Value>> {
    match input {
        Payload::Inline(bytes) if bytes.is_empty() => Some(serde_json::Map::new()),
        Payload::Inline(bytes) => serde_json::from_slice(bytes).ok(),
        Payload::Artifact(_) => None,
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
            roles: ["worker".parse().unwrap()].into(),
            dependencies: dependencies.iter().map(|name| name.parse().unwrap()).collect(),
            ..Node::named(name.parse().unwrap())
        };
        Plan {
            nodes: nodes.iter().map(node).collect(),
            verify_before_next: false,
        }
    }

    #[test]
    fn a_plan_without_cycles_is_accepted() {
        let order = plan(&[("a", &[]), ("b", &["a"]), ("c", &["a", "b", "b"]), ("d", &[])]).check();
        let order = order.unwrap();
        assert_eq!(order.levels, [vec![0, 3], vec![1], vec![2]]);
        assert_eq!(order.waits, [vec![], vec![0], vec![0, 1], vec![]]);
    }

    /// Each is one level below the deepest that it depends on, computed the slow way: by following every dependency up.
    #[test]
    fn levels_are_the_longest_ways_up_in_ten_thousand_graphs() {
        let mut state = 7_u64;
        let mut below = |bound: usize| {
            state = crate::retry::child_seed(state, 1);
            usize::try_from(state % (bound.max(1) as u64)).unwrap()
        };
        for _ in 0..10_000 {
            let len = 1 + below(12);
            let mut plan = plan(&vec![("x", &[][..]); len]);
            for (at, node) in plan.nodes.iter_mut().enumerate() {
                // Backwards, so that the order of the plan is not that of the levels.
                node.name = format!("n{}", len - at).parse().unwrap();
                let edges = below(4);
                for _ in 0..edges.min(len - 1 - at) {
                    let to = 1 + below(len - at - 1);
                    node.dependencies.push(format!("n{to}").parse().unwrap());
                }
            }
            let order = plan.check().unwrap();
            let depth = |at: usize| -> usize {
                fn up(plan: &Plan, at: usize) -> usize {
                    let names = plan.nodes[at].dependencies.iter();
                    let places = names.map(|name| plan.nodes.iter().position(|node| node.name == *name).unwrap());
                    places.map(|above| 1 + up(plan, above)).max().unwrap_or(0)
                }
                up(&plan, at)
            };
            for (level, nodes) in order.levels.iter().enumerate() {
                assert!(nodes.iter().all(|at| depth(*at) == level), "{plan:?}");
            }
            assert_eq!(order.levels.iter().map(Vec::len).sum::<usize>(), len);
        }
    }

    #[test]
    fn a_lane_is_one_after_the_other() {
        let mut plan = plan(&[("a", &["d"]), ("b", &[]), ("c", &[]), ("d", &[])]);
        for at in [0, 1, 3] {
            plan.nodes[at].lane = Some("slow".parse().unwrap());
        }
        let order = plan.check().unwrap();
        assert_eq!(order.waits, [vec![3], vec![], vec![], vec![1]]);
        plan.verify_before_next = true;
        plan.nodes[3].lane = None;
        let order = plan.check().unwrap();
        assert_eq!(order.waits, [vec![1, 3], vec![], vec![], vec![2]]);
    }

    #[test]
    fn slots_are_dependencies_and_take_what_fits() {
        let schema = |text: &str| Some(text.parse::<Schema>().unwrap());
        let mut plan = plan(&[("a", &[]), ("b", &[])]);
        let slot = |schema| Slot {
            field: "text".to_owned(),
            node: "a".parse().unwrap(),
            schema,
        };
        plan.nodes[1].slots = vec![slot(None)];
        assert_eq!(plan.check().unwrap().waits, [vec![], vec![0]]);
        plan.nodes[1].slots = vec![slot(schema(r#"{"type":"string"}"#))];
        let refused = |plan: &Plan| plan.check().unwrap_err().to_string();
        assert!(refused(&plan).contains("promises nothing"));
        plan.nodes[0].output = schema(r#"{"type":"integer"}"#);
        let message = "`b`: its slot `text` does not take the output of `a`: it may be integer, and must be string";
        assert_eq!(refused(&plan), message);
        plan.nodes[0].output = schema(r#"{"type":"string"}"#);
        assert!(plan.check().is_ok());
        plan.nodes[1].input = Payload::Inline(br#"{"text":1}"#.to_vec());
        assert!(refused(&plan).contains("which a slot is to fill"));
        plan.nodes[1].input = Payload::Inline(b"[]".to_vec());
        assert!(refused(&plan).contains("must be a JSON object"));
    }

    #[test]
    fn a_sequencer_adds_order_and_nothing_else() {
        let before = plan(&[("a", &[]), ("b", &[])]);
        let mut after = plan(&[("a", &[]), ("b", &["a"]), ("join", &["a", "b"])]);
        after.nodes[0].lane = Some("one".parse().unwrap());
        assert_eq!(after.keeps(&before), Ok(()));
        let changed = |name: &str| Err(Error::Changed(name.parse().unwrap()));
        assert_eq!(before.keeps(&after), changed("a"));
        let spoil: [fn(&mut Node); 4] = [
            |node| node.optional = true,
            |node| node.description.push('x'),
            |node| node.name = "c".parse().unwrap(),
            |node| node.approval = Some(NodePoint::After),
        ];
        for spoil in spoil {
            let mut other = after.clone();
            spoil(&mut other.nodes[1]);
            assert_eq!(other.keeps(&before), changed("b"));
        }
    }

    #[test]
    fn notes_of_before_they_had_names_are_read() {
        let old = crate::state::encode(&vec!["one".to_owned()]);
        let notes: Vec<Note> = minicbor::decode(&old).unwrap();
        assert_eq!(notes[0].text, "one");
        let new: Vec<Note> = minicbor::decode(&crate::state::encode(&notes)).unwrap();
        assert_eq!(new, notes);
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
