use proptest::{collection::vec, prelude::*};
use skep_sdk::Slot;

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

        if let Some(added) = made.nodes.get(plan.nodes.len()) {
            prop_assert!(added.integrates && plan.nodes.iter().all(|node| !node.integrates));
        }
        let waits = |node: &Node| [node.dependencies.clone(), node.slots.iter().map(|slot| slot.node.clone()).collect()].concat();
        let waited_for: Vec<String> = made.nodes.iter().flat_map(waits).collect();
        let ends = made.nodes.iter().filter(|node| !waited_for.contains(&node.name)).count();
        prop_assert!(ends == 1 || plan.nodes.iter().any(|node| node.integrates), "one thing comes last");
    }
}
