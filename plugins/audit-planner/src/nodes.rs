//! The nodes of an audit's plan.

use serde::{Deserialize, Serialize};
use skep_sdk::{Artifact, Failure, Node, Payload};

/// The most nodes that the host takes in one plan.
const MAX_NODES: usize = 1000;
/// The most batches, however small the rest of the plan is.
const MAX_BATCHES: usize = 300;
/// The most characters of a node's name.
const MAX_NAME: usize = 64;
/// Bytes of a drill's description that are kept, so that the plan stays small.
const MAX_DESCRIPTION: usize = 200;
/// What every batch is scanned for: the role and the first part of the node's name.
const KINDS: [&str; 3] = ["secrets", "licenses", "todos"];

/// Something the intruder shall try.
#[derive(Deserialize)]
pub(crate) struct Drill {
    name: String,
    description: String,
}

/// What the reporter is told of the tree.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) root: &'a str,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) unreadable: usize,
}

/// How many batches fit in a plan beside these drills and the report.
pub(crate) fn room_for_batches(drills: &[Drill]) -> Result<usize, Failure> {
    let room = MAX_NODES.saturating_sub(drills.len() + 1) / KINDS.len();
    if room == 0 {
        return Err(Failure::never(format!(
            "{} drills leave no room for scans in a plan of {MAX_NODES} nodes",
            drills.len()
        )));
    }
    Ok(room.min(MAX_BATCHES))
}

/// The scans of one batch.
pub(crate) fn scans(number: usize, files: usize, batch: &Artifact) -> impl Iterator<Item = Node> {
    KINDS.into_iter().map(move |kind| Node {
        check: true,
        ..Node::new(
            format!("{kind}/{number:04}"),
            format!("Look for {kind} in {files} files"),
            kind,
            Payload::Artifact(batch.clone()),
        )
    })
}

/// One drill: tried once, and nothing waits for its success.
pub(crate) fn drill(drill: &Drill) -> Result<Node, Failure> {
    #[derive(Serialize)]
    struct Input<'a> {
        drill: &'a str,
    }

    let name = format!("drill/{}", drill.name);
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_./".contains(&byte);
    if drill.name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(valid) {
        return Err(Failure::never(format!(
            "{:?} does not name a drill: up to {} of a-z 0-9 - _ . /",
            drill.name,
            MAX_NAME - "drill/".len()
        )));
    }
    let description = drill
        .description
        .get(..drill.description.floor_char_boundary(MAX_DESCRIPTION))
        .unwrap_or_default();
    let input = Payload::json(&Input { drill: &drill.name })?;
    Ok(Node {
        optional: true,
        retry: skep_sdk::RetryPolicy::times(0),
        ..Node::new(name, description, "intruder", input)
    })
}

/// The node that puts everything together.
pub(crate) fn report(report: &Report<'_>, others: &[Node]) -> Result<Node, Failure> {
    Ok(Node {
        dependencies: others.iter().map(|node| node.name.clone()).collect(),
        integrates: true,
        ..Node::new(
            "report",
            "Put the findings together in a report",
            "reporter",
            Payload::json(report)?,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drills(count: usize) -> Vec<Drill> {
        (0..count)
            .map(|number| Drill {
                name: number.to_string(),
                description: String::new(),
            })
            .collect()
    }

    #[test]
    fn batches_scans_drills_and_report_fit_one_plan() {
        for count in [0, 15, 99, 100, 500, 996] {
            let room = room_for_batches(&drills(count)).unwrap();
            assert!(
                room * KINDS.len() + count < MAX_NODES,
                "{count} drills leave room for {room} batches"
            );
        }
        assert_eq!(room_for_batches(&drills(15)).unwrap(), MAX_BATCHES);
        assert!(room_for_batches(&drills(997)).is_err());
    }

    #[test]
    fn names_are_checked_and_descriptions_cut() {
        let named = |name: &str| Drill {
            name: name.into(),
            description: "\u{fc}".repeat(MAX_DESCRIPTION),
        };
        for name in ["", "A", "a b", &"x".repeat(59)] {
            assert!(drill(&named(name)).is_err(), "{name:?}");
        }
        let node = drill(&named(&"x".repeat(58))).unwrap();
        assert_eq!(node.name.len(), MAX_NAME);
        assert_eq!(node.description.len(), MAX_DESCRIPTION);
    }
}
