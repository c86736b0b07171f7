use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use skep_sdk::{Retry, Slot};

use super::*;

fn node(name: &str, dependencies: &[&str]) -> Node {
    Node {
        dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        ..Node::new(name, name, "worker", Payload::Inline(Vec::new()))
    }
}

fn sequenced(nodes: Vec<Node>) -> Vec<Node> {
    Order::sequence(Plan::new(nodes)).unwrap().nodes
}

fn waits(nodes: &[Node], name: &str) -> Vec<String> {
    let node = nodes.iter().find(|node| node.name == name).unwrap();
    node.dependencies.clone()
}

/// The longest way to each node, by the plainest of all means.
fn levels(nodes: &[Node]) -> BTreeMap<String, usize> {
    let mut levels: BTreeMap<String, usize> = nodes.iter().map(|node| (node.name.clone(), 0)).collect();
    for _ in 0..=nodes.len() {
        for node in nodes {
            let all = node.dependencies.iter().chain(node.slots.iter().map(|slot| &slot.node));
            let level = all.map(|name| levels[name] + 1).max().unwrap_or(0);
            levels.insert(node.name.clone(), level);
        }
    }
    levels
}

#[test]
fn several_ends_are_joined() {
    let nodes = sequenced(vec![node("a", &[]), node("b", &["a"]), node("c", &["a"])]);
    let last = nodes.last().unwrap();
    assert_eq!(last.name, "integrate");
    assert_eq!(last.description, "Join the parts");
    assert_eq!(last.dependencies, ["b", "c"]);
    assert_eq!((last.integrates, last.lane.as_deref()), (true, Some("integration")));
    assert_eq!(last.roles, ["integrator"]);
}

#[test]
fn what_is_joined_already_is_not_joined_again() {
    assert_eq!(sequenced(vec![node("a", &[])]).len(), 1);
    assert_eq!(sequenced(vec![node("a", &[]), node("b", &["a"])]).len(), 2);
    let integrates = Node {
        integrates: true,
        ..node("b", &[])
    };
    assert_eq!(sequenced(vec![node("a", &[]), integrates]).len(), 2);
    let slot = Node {
        slots: vec![Slot {
            field: "x".into(),
            node: "a".into(),
            schema: None,
        }],
        ..node("b", &[])
    };
    assert_eq!(sequenced(vec![node("a", &[]), slot]).len(), 2, "a slot waits as well");
    let full: Vec<Node> = (0..MAX_NODES).map(|n| node(&format!("n{n}"), &[])).collect();
    assert_eq!(sequenced(full).len(), MAX_NODES);
}

#[test]
fn names_that_are_taken_are_left_alone() {
    let nodes = sequenced(vec![node("integrate", &[]), node("integrate-2", &[])]);
    assert_eq!(nodes[2].name, "integrate-3");
}

#[test]
fn those_that_join_share_a_lane_unless_they_have_one() {
    let other = Node {
        lane: Some("x".into()),
        ..node("integrate/c", &[])
    };
    let role = Node {
        roles: vec!["integrator".into()],
        ..node("b", &[])
    };
    let nodes = sequenced(vec![node("a", &[]), role, node("integrate/b", &[]), other]);
    let lanes: Vec<Option<&str>> = nodes.iter().map(|node| node.lane.as_deref()).collect();
    assert_eq!(
        lanes,
        [
            None,
            Some("integration"),
            Some("integration"),
            Some("x"),
            Some("integration")
        ]
    );
    let steps = Plan {
        verify_before_next: true,
        ..Plan::new(vec![node("a", &[]), node("integrate-a", &["a"])])
    };
    assert_eq!(Order::sequence(steps).unwrap().nodes[1].lane, None);
}

#[test]
fn a_lane_never_turns_against_a_dependency() {
    let nodes = sequenced(vec![node("integrate-all", &["integrate-a"]), node("integrate-a", &[])]);
    let lanes: Vec<Option<&str>> = nodes.iter().map(|node| node.lane.as_deref()).collect();
    assert_eq!(lanes, [Some("integration"), None]);
}

#[test]
fn groups_wait_for_each_other() {
    let nodes = sequenced(vec![
        node("a", &[]),
        node("b", &[]),
        node("c", &["a"]),
        node("d", &["c"]),
    ]);
    assert_eq!(waits(&nodes, "b"), [""; 0]);
    assert_eq!(waits(&nodes, "c"), ["a", "b"]);
    assert_eq!(waits(&nodes, "d"), ["c"]);
}

#[test]
fn large_groups_are_left_alone() {
    for (size, added) in [(MAX_GROUP, true), (MAX_GROUP + 1, false)] {
        let mut nodes: Vec<Node> = (0..size).map(|n| node(&format!("n{n}"), &[])).collect();
        nodes.push(node("last", &["n0"]));
        let count = waits(&sequenced(nodes), "last").len();
        assert_eq!(count, if added { size } else { 1 });
    }
}

#[test]
fn what_has_no_order_is_refused() {
    let cases = [
        (
            vec![node("a", &["b"]), node("b", &["a"])],
            "the plan has a cycle, in which `",
        ),
        (vec![node("a", &["x"])], "`a` depends on `x`, which is not in the plan"),
        (vec![node("a", &[]), node("a", &[])], "two nodes are called `a`"),
    ];
    for (nodes, expected) in cases {
        let failure = Order::sequence(Plan::new(nodes)).unwrap_err();
        assert!(failure.message.starts_with(expected), "{}", failure.message);
        assert_eq!(failure.retry, Retry::Never);
    }
}

/// Plans without cycles: each node waits for some of those before it, some of them by a slot, and the list is turned so that it tells nothing of that.
fn plans() -> impl Strategy<Value = Plan> {
    let node = (vec(any::<prop::sample::Index>(), 0..4), 0..8_u8);
    (vec(node, 1..16), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(drawn, turn, integrates)| {
        let mut nodes: Vec<Node> = Vec::new();
        for (number, (waits, kind)) in drawn.into_iter().enumerate() {
            let waits = waits
                .iter()
                .filter(|_| number > 0)
                .map(|index| nodes[index.index(number)].name.clone());
            let mut dependencies: Vec<String> = waits.collect();
            let slots = match kind {
                1 => dependencies.pop(),
                _ => None,
            };
            nodes.push(Node {
                dependencies,
                slots: slots
                    .into_iter()
                    .map(|node| Slot {
                        field: "x".into(),
                        node,
                        schema: None,
                    })
                    .collect(),
                check: kind == 2,
                optional: kind == 3,
                roles: vec![if kind == 4 { ROLE } else { "worker" }.to_owned()],
                ..Node::new(
                    format!("{}{number}", if kind == 5 { NAME } else { "n" }),
                    "x",
                    "x",
                    Payload::Inline(vec![kind]),
                )
            });
        }
        if let Some(last) = nodes.last_mut() {
            last.integrates = integrates;
        }
        let turn = turn.index(nodes.len());
        nodes.rotate_left(turn);
        Plan::new(nodes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_gain_order_and_lose_nothing(plan in plans()) {
        let made = Order::sequence(plan.clone()).unwrap();
        for (before, after) in plan.nodes.iter().zip(&made.nodes) {
            let mut unchanged = after.clone();
            prop_assert!(after.dependencies.starts_with(&before.dependencies));
            unchanged.dependencies.clone_from(&before.dependencies);
            unchanged.lane.clone_from(&before.lane);
            prop_assert_eq!(&unchanged, before);
        }
        prop_assert!(made.nodes.len() >= plan.nodes.len());

        // Without cycles, lanes included, which go in the order of the plan.
        let graph = Graph::of(&made).unwrap();
        let groups = graph.levels().unwrap();

        if let Some(added) = made.nodes.get(plan.nodes.len()) {
            prop_assert!(added.integrates && plan.nodes.iter().all(|node| !node.integrates));
            prop_assert_eq!(groups.last().unwrap(), &vec![plan.nodes.len()], "nothing comes with it or after it");
            prop_assert_eq!(graph.ends(), vec![plan.nodes.len()]);
        }
        prop_assert!(made.nodes.iter().any(|node| node.integrates) || graph.ends().len() == 1);
    }

    #[test]
    fn groups_are_the_levels_of_the_graph(plan in plans()) {
        let mut plain = plan;
        for node in &mut plain.nodes {
            node.integrates = false;
            node.lane = Some(node.name.clone());
        }
        let made = Order::sequence(plain.clone()).unwrap();
        let before = levels(&plain.nodes);
        let after = levels(&made.nodes);
        for node in &plain.nodes {
            prop_assert_eq!(before[&node.name], after[&node.name], "{}", node.name);
        }
        for node in &made.nodes {
            let all: BTreeSet<&String> = node.dependencies.iter().chain(node.slots.iter().map(|slot| &slot.node)).collect();
            for (other, level) in &after {
                if level + 1 == after[&node.name] {
                    prop_assert!(all.contains(other) || node.integrates, "{} waits for {other}", node.name);
                }
            }
        }
    }
}
